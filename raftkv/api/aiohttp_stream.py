"""Streams on aiohttp's WebSockets: messages in, messages out, limits in between, and an end in good order.

Told: handshakes, by the front. Tells: each client's ``Stream`` what it says, the client what is answered. May never
know: what a message means.

A stream has two tasks: one reads, one writes. What comes is read only while little waits for answers and little is
unsent, so that a client that does not read is not buffered without end; one that takes nothing for too long is cut
off. Whatever ends a stream, what was taken is answered before the close is said, as long as somebody is there to
hear it.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import Coroutine
from typing import Any, Final

from aiohttp import WSCloseCode, WSMsgType, web

from raftkv.api.aiohttp_connection import Connection
from raftkv.api.handshake import TARGET
from raftkv.api.responses import Response, common_headers
from raftkv.api.routes import Api
from raftkv.api.settings import ApiSettings
from raftkv.api.stream import CloseCode, Stream, StreamBroken

_LOG: Final = logging.getLogger("raftkv.api")
_PATH: Final = TARGET.decode()
UNSENT_BYTES_MAX: Final = 1024 * 1024
"""Of the answers that wait to be sent; beyond it nothing more is read."""
_MESSAGES_A_TURN: Final = 64
"""So many are taken before others get their turn of the event loop."""
_NO_LIMIT: Final = 2**62
"""Of what aiohttp writes before it waits for the client: the writer here waits after each message."""


class Streams:
    """All streams of one front."""

    def __init__(self, api: Api, settings: ApiSettings) -> None:
        self._api, self._settings = api, settings
        self._open: dict[_OpenStream, None] = {}

    @property
    def count(self) -> int:
        """Those that are open."""
        return len(self._open)

    def are_asked_for(self, request: web.BaseRequest) -> bool:
        """Whether this is a handshake that aiohttp can answer; everything else is HTTP, and not ours."""
        if request.method != "GET" or request.raw_path != _PATH or not self._api.has_path(TARGET):
            return False
        return web.WebSocketResponse().can_prepare(request).ok

    def why_not(self, request: web.BaseRequest) -> Response | None:
        """Why this handshake opens no stream; None: it does."""
        origins = request.headers.getall("Origin", [])
        return self._api.why_no_stream(origins=origins, host=request.headers.get("Host", ""), open_count=self.count)

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """From the handshake to the end of the stream."""
        stream = _OpenStream(self._api, self._settings, request)
        self._open[stream] = None
        try:
            await stream.serve()
        finally:
            del self._open[stream]
        return stream.socket

    def go_away(self) -> None:
        """Every stream ends, each once what it had taken is answered."""
        for stream in self._open:
            stream.end(StreamBroken(CloseCode.GOING_AWAY, "this node is stopping"))


class _Socket(web.WebSocketResponse):
    """aiohttp closes as soon as it has read a close, or what breaks the protocol; this one answers first."""

    def __init__(self, settings: ApiSettings) -> None:
        super().__init__(
            timeout=settings.discard_timeout_ms / 1000,
            heartbeat=settings.keep_alive_timeout_ms / 1000 * 2 / 3,
            compress=False,
            max_msg_size=settings.stream_message_bytes_max,
            writer_limit=_NO_LIMIT,
        )
        self.stream: _OpenStream | None = None

    async def close(self, *, code: int = WSCloseCode.OK, message: bytes = b"", drain: bool = True) -> bool:
        """The stream is closed, with everything answered that could be."""
        if self.stream is not None:
            await self.stream.all_sent()
        return await super().close(code=code, message=message, drain=drain)


class _OpenStream:
    """One client's stream, and what carries it."""

    def __init__(self, api: Api, settings: ApiSettings, request: web.BaseRequest) -> None:
        self._settings, self._request = settings, request
        self.socket = _Socket(settings)
        self.socket.headers.update(common_headers(api.node_id))
        self.socket.headers["Server"] = "raftkv"
        self._stream = Stream(api, self._send)
        self._unsent: deque[bytes] = deque()
        self._unsent_bytes = 0
        self._moved = asyncio.Event()
        """Something was answered or sent, or will never be."""
        self._to_send = asyncio.Event()
        self._ending: asyncio.Future[StreamBroken | None] = asyncio.get_running_loop().create_future()
        """Why the stream ends; None: the client has ended it."""
        self._writes = True
        """Somebody is there to read."""

    async def serve(self) -> None:
        """Until the client or the node ends it."""
        await self.socket.prepare(self._request)
        self.socket.stream = self
        reading = asyncio.create_task(self._until_it_ends(self._read()))
        writing = asyncio.create_task(self._until_it_ends(self._write()))
        try:
            why = await self._ending
            reading.cancel()
            await asyncio.wait([reading])
            if why is not None:
                await self.socket.close(code=why.code, message=why.why.encode())
        finally:
            reading.cancel()
            writing.cancel()
            await asyncio.wait([reading, writing])
            if self.socket.exception() is not None and self._request.transport is not None:
                self._request.transport.abort()  # nobody is there: what is unsent would keep it open

    def end(self, why: StreamBroken | None) -> None:
        """Nothing more is read, and the stream ends."""
        if not self._ending.done():
            self._ending.set_result(why)

    async def all_sent(self) -> None:
        """Everything taken is answered and sent, or nobody is there to hear it."""
        while self._writes and self._is_connected() and not (self._stream.is_idle and not self._unsent_bytes):
            self._moved.clear()
            await self._moved.wait()

    async def _until_it_ends(self, side: Coroutine[Any, Any, None]) -> None:
        """When one side ends, the stream does."""
        try:
            await side
        except StreamBroken as broken:
            self.end(broken)
        except ConnectionError:
            self.end(None)
        except Exception:  # noqa: BLE001 - a bug of ours: in the log with its traceback, and the stream ends
            _LOG.exception("a stream failed", extra={"event": "stream_failed"})
            self.end(StreamBroken(CloseCode.INTERNAL, "see this node's log"))
        else:
            self.end(None)

    def _is_connected(self) -> bool:
        transport = self._request.transport
        return transport is not None and not transport.is_closing()

    # ---------------------------------------------------------------------------------------- reading

    async def _read(self) -> None:
        for count in itertools.count(1):
            if count % _MESSAGES_A_TURN == 0:
                await asyncio.sleep(0)
            while self._stream.is_full or self._unsent_bytes > UNSENT_BYTES_MAX:
                self._moved.clear()
                await self._moved.wait()
            message = await self.socket.receive()
            if message.type is WSMsgType.BINARY:
                self._stream.receive(message.data)
            elif message.type is WSMsgType.TEXT:
                raise StreamBroken(CloseCode.UNSUPPORTED_DATA, "messages are binary, one msgpack array each")
            else:
                return

    # ---------------------------------------------------------------------------------------- writing

    def _send(self, message: bytes) -> None:
        if self._writes:
            self._unsent.append(message)
            self._unsent_bytes += len(message)
            self._to_send.set()
        self._moved.set()

    async def _write(self) -> None:
        try:
            while True:
                await self._to_send.wait()
                self._to_send.clear()
                while self._unsent:
                    message = self._unsent.popleft()
                    await self.socket.send_bytes(message)
                    await self._until_read()
                    self._unsent_bytes -= len(message)
                    self._moved.set()
        finally:
            self._writes = False
            self._unsent.clear()
            self._moved.set()

    async def _until_read(self) -> None:
        """The client has taken enough of its answers; one that takes none for too long is cut off."""
        connection = self._request.protocol
        assert isinstance(connection, Connection)
        if not connection.writing_paused:
            return
        try:
            async with asyncio.timeout(self._settings.send_timeout_ms / 1000):
                await self._request.writer.drain()
        except TimeoutError:
            if connection.transport is not None:
                connection.transport.abort()
            raise ConnectionResetError("the client does not read") from None
