"""The front on aiohttp's low-level server: bytes in, bytes out, deadlines and limits in between.

Told: connections, by whoever accepts them. Tells: the API's answers. May never know: what a request means.

aiohttp parses; an exchange is written out here, because its own ways do not fit: it sends no 100 Continue,
sets no deadline on bodies, and no bound on what it reads on of a refused one.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Final

from aiohttp import StreamReader, web

from raftkv.api.aiohttp_connection import SENT, SENT_LAST, Connection, ConnectionServer
from raftkv.api.aiohttp_stream import Streams
from raftkv.api.exchange import Pending
from raftkv.api.plain import Told
from raftkv.api.problems import RequestRefused, bad_request, problem
from raftkv.api.ready import ReadyAnswers
from raftkv.api.requests import Head, no_room
from raftkv.api.responses import Response, Source
from raftkv.api.routes import Api
from raftkv.api.settings import ApiSettings
from raftkv.http.answers import encode
from raftkv.http.plain import Plain
from raftkv.http.room import BodyRoom
from raftkv.problems import Code

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
PIECE_BYTES: Final = 256 * 1024
"""Of a body that is not held in memory, so much at a time."""
_STOP_SECONDS: Final = 0.05
"""For connections to end that have nothing more to say; aiohttp takes 0 for "for ever"."""


class AiohttpFront:
    """Serves an Api on connections that somebody else accepts. Made and used on the running event loop."""

    def __init__(self, api: Api, settings: ApiSettings) -> None:
        self._api = api
        self._settings = settings
        self._server = ConnectionServer(self._exchange_counted, settings, self._encode, self._answer_without_action)
        self._streams = Streams(api, settings)
        self._exchanges_count = 0
        self.room = BodyRoom(settings.bodies_bytes_max)
        """For the bodies that are being read, here and at whoever shares it."""
        self._all_done: asyncio.Future[None] | None = None
        """While stopping: done when no exchange is left."""
        self._ready = ReadyAnswers(api.node_id)

    def protocol_factory(self) -> asyncio.Protocol:
        """The protocol for one new connection; ``data_received`` may be told what was read of it before."""
        return self._server()

    @property
    def connections_count(self) -> int:
        """Open connections."""
        return len(self._server.connections)

    @property
    def streams_count(self) -> int:
        """Open streams, each on a connection of its own."""
        return self._streams.count

    async def stop(self, grace_seconds: float) -> None:
        """Every exchange is answered, or was given ``grace_seconds``, and every connection is closed.

        What arrives meanwhile is answered 503 ``shutting_down``. A write that still waits at the end loses its
        connection, so that its client takes the outcome for what it is: unknown.
        """
        self._all_done = asyncio.get_running_loop().create_future()
        self._streams.go_away()
        if self._exchanges_count:
            await asyncio.wait([self._all_done], timeout=grace_seconds)
        self._server.pre_shutdown()
        await self._server.shutdown(_STOP_SECONDS)

    @property
    def stopping(self) -> bool:
        """``stop`` was called."""
        return self._all_done is not None

    def _encode(self, response: Response, connection: str | None) -> bytes:
        """The answer as it goes out now."""
        return self._api.encode(response, connection=connection, date=self._ready.date(now_s=time.time()))

    def _encoded(self, answer: Told | Response, connection: str | None) -> bytes:
        """The same, of either kind."""
        if isinstance(answer, Response):
            return self._encode(answer, connection)
        parts: list[bytes] = []
        close = connection is not None
        encode(parts, self._ready.of(answer, now_s=time.time(), close=close), None, close=close)
        return b"".join(parts)

    def _answer_without_action(self, head: Head) -> Response:
        decision = self._api.begin(head)
        assert isinstance(decision, Response), "some route has a method that not every parser knows"
        return decision

    async def _exchange_counted(self, request: web.BaseRequest) -> web.StreamResponse:
        self._exchanges_count += 1
        try:
            return await self._exchange(request)
        except ConnectionError:
            return SENT_LAST  # the client is gone; nobody is left to tell
        finally:
            self._exchanges_count -= 1
            if self._all_done is not None and not self._exchanges_count and not self._all_done.done():
                self._all_done.set_result(None)

    async def _exchange(self, request: web.BaseRequest) -> web.StreamResponse:
        if self.stopping:
            return await self._send(request, problem(Code.SHUTTING_DOWN, "this node is stopping; ask another one"))
        plain = self._glanced(request)
        if plain is not None and (answer := self._taken(plain)) is not None:
            return await self._send(request, await answer)
        if self._streams.are_asked_for(request):
            refused = self._streams.why_not(request)
            return await (self._streams.serve(request) if refused is None else self._send(request, refused))
        decision = self._api.begin(_head_of(request))
        if isinstance(decision, Response):
            return await self._send(request, decision)
        try:
            body = await self._read_body(request, decision)
        except RequestRefused as refused:
            return await self._send(request, decision.given_up(refused))
        response = await _answered(decision, body)
        try:
            return await self._send(request, response)
        finally:
            response.let_go()

    def _glanced(self, request: web.BaseRequest) -> Plain | None:
        """This request as it was told at a glance; None: it was not, or aiohttp read something else."""
        connection = request.protocol
        assert isinstance(connection, Connection)
        plain, connection.glanced = connection.glanced, None
        if plain is None or plain.target != request.raw_path.encode() or plain.method != request.method.encode():
            return None
        return plain

    def _taken(self, plain: Plain) -> asyncio.Future[Told | Response] | None:
        """What will be answered, if it is taken at a glance."""
        keys = self._api.plain_keys
        answer: asyncio.Future[Told | Response] = asyncio.get_running_loop().create_future()
        taken = keys is not None and keys.take(plain, lambda told: None if answer.done() else answer.set_result(told))
        return answer if taken else None

    async def _read_body(self, request: web.BaseRequest, pending: Pending) -> bytes:
        """The whole body; raises RequestRefused for one that is too large, too slow or broken off."""
        stream = request.content
        try:
            if stream.is_eof():
                return stream.read_nowait()
            with _Reservation(self.room, request.content_length or pending.body_bytes_max):
                if _expects_continue(request):
                    _transport_of(request).write(_CONTINUE)
                async with asyncio.timeout(self._settings.body_timeout_ms / 1000):
                    return await _gathered(stream, pending)
        except TimeoutError:
            raise RequestRefused(Code.REQUEST_TIMEOUT, "the body did not come in time") from None
        except web.RequestPayloadError:
            raise bad_request("the body breaks off, or its chunks are none") from None

    async def _send(self, request: web.BaseRequest, response: Told | Response) -> web.StreamResponse:
        """The answer is out, and what is left of a refused body thrown away."""
        connection = request.protocol
        assert isinstance(connection, Connection)
        stays_open = self._stays_open(request, connection)
        if isinstance(response, Response) and response.source is not None and not response.body_omitted:
            _transport_of(request).write(self._encode(response, None if stays_open else "close"))
            await self._send_from(response.source, request, connection)
            if not stays_open:
                connection.write_last(b"")
        elif stays_open:
            says = None if request.version >= (1, 1) else "keep-alive"
            _transport_of(request).write(self._encoded(response, says))
        else:
            connection.write_last(self._encoded(response, "close"))
        if connection.writing_paused:
            await self._drained(request, connection)
        if not request.content.is_eof():
            await self._discard(request.content)
        return SENT if stays_open and request.content.is_eof() else SENT_LAST

    async def _send_from(self, source: Source, request: web.BaseRequest, connection: Connection) -> None:
        """The body as it comes, and never more of it than the client takes; the connection breaks where it ends early.

        Its length was told before: a client that does not get all of it knows.
        """
        left_bytes = source.size_bytes
        while left_bytes:
            piece: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
            source.read(min(left_bytes, PIECE_BYTES), partial(_settle, piece))
            data = await piece
            transport = _transport_of(request)
            if not data:
                transport.abort()
                raise ConnectionResetError("the rest of the body does not come")
            transport.write(data)
            left_bytes -= len(data)
            if connection.writing_paused:
                await self._drained(request, connection)

    def _stays_open(self, request: web.BaseRequest, connection: Connection) -> bool:
        if self.stopping or connection.nothing_follows:
            return False
        return request.keep_alive and self._end_is_near(request)

    def _end_is_near(self, request: web.BaseRequest) -> bool:
        """Whether the next request can be found: the body is there, or will be, and soon (RFC 9110 section 10.1.1).

        A client that waits for 100 Continue may leave its body out now, or not; it cannot be told which.
        """
        if request.content.is_eof():
            return True
        length = request.content_length
        return length is not None and length <= self._settings.discard_bytes_max and not _expects_continue(request)

    async def _drained(self, request: web.BaseRequest, connection: Connection) -> None:
        """The client has taken enough of its answers; one that takes none for too long is cut off."""
        try:
            async with asyncio.timeout(self._settings.send_timeout_ms / 1000):
                await request.writer.drain()
        except TimeoutError:
            if connection.transport is not None:
                connection.transport.abort()
            raise ConnectionResetError("the client does not read") from None

    async def _discard(self, stream: StreamReader) -> None:
        """Reads on, for as much and as long as the settings say, so that the client gets to read the answer."""
        left_bytes = self._settings.discard_bytes_max
        try:
            async with asyncio.timeout(self._settings.discard_timeout_ms / 1000):
                while left_bytes > 0 and not stream.at_eof():
                    left_bytes -= len(await stream.readany())
        except (TimeoutError, web.RequestPayloadError):
            return


async def _answered(decision: Pending, body: bytes) -> Response:
    """The answer; if nobody waits for it any more when it comes, it is let go."""
    answer: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
    decision.finish(body, lambda response: response.let_go() if answer.done() else answer.set_result(response))
    try:
        return await answer
    except asyncio.CancelledError:
        if answer.done() and not answer.cancelled():
            answer.result().let_go()
        raise


def _settle(future: asyncio.Future[bytes], data: bytes) -> None:
    if not future.done():
        future.set_result(data)


class _Reservation:
    """Room for one body while it is read."""

    def __init__(self, room: BodyRoom, body_bytes: int) -> None:
        self._room, self._body_bytes = room, body_bytes

    def __enter__(self) -> None:
        if not self._room.take(self._body_bytes):
            raise no_room()

    def __exit__(self, *_: object) -> None:
        self._room.give_back(self._body_bytes)


def _head_of(request: web.BaseRequest) -> Head:
    return Head(
        request.method,
        request.raw_path.encode("utf-8", "surrogateescape"),
        request.raw_headers,
        (request.version.major, request.version.minor),
    )


def _expects_continue(request: web.BaseRequest) -> bool:
    expected = request.headers.get("Expect", "")
    return request.version >= (1, 1) and expected.isascii() and expected.lower() == "100-continue"


def _transport_of(request: web.BaseRequest) -> asyncio.Transport:
    transport = request.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError("the client is gone")
    return transport


async def _gathered(stream: StreamReader, pending: Pending) -> bytes:
    """The rest of the body, as soon as it is whole or one byte too long; ``finish`` refuses the latter."""
    chunks: list[bytes] = []
    size_bytes = 0
    while size_bytes <= pending.body_bytes_max:
        chunk = await stream.readany()
        if not chunk:
            break
        chunks.append(chunk)
        size_bytes += len(chunk)
    return b"".join(chunks)
