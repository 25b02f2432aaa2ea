"""One connection on aiohttp's low-level server: answers of ours to what is no request, and its end.

Told: bytes that the guard has vetted. Tells: requests to its handler, refusals to the client. May never know:
what a request means.

aiohttp takes a client that sends no more for one that wants no answer, and closes so soon after a refusal that
a reset can overtake it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Final

from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter

from raftkv.api import plain
from raftkv.api.failures import request_failed
from raftkv.api.problems import RequestRefused, bad_request, refused_response
from raftkv.api.requests import Head
from raftkv.api.responses import Response
from raftkv.api.settings import ApiSettings
from raftkv.http.guard import GuardedHandler
from raftkv.http.handling import ServerSettings
from raftkv.http.plain import PlainReader
from raftkv.problems import Code

_CODES: Final = {code.text: code for code in Code}

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
Encode = Callable[[Response, str | None], bytes]
"""The bytes of an answer with this Connection header; None: without one."""
Judge = Callable[[Head], Response]
"""The answer to a head that leads to no action."""


class Sent(web.StreamResponse):
    """Tells aiohttp that the answer is out already, and whether the connection goes on."""

    def __init__(self, *, keep_alive: bool) -> None:
        super().__init__()
        self._keep_alive = keep_alive

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Nothing is left to prepare."""
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing is left to write."""


SENT: Final = Sent(keep_alive=True)
SENT_LAST: Final = Sent(keep_alive=False)


class ConnectionServer(web.Server):
    """Makes our connections where aiohttp would make its own."""

    def __init__(self, handler: Handler, settings: ApiSettings, encode: Encode, judge: Judge) -> None:
        super().__init__(handler)
        self._settings, self._encode, self._judge = settings, encode, judge
        self._plain_reader = plain.reader()

    def __call__(self) -> web.RequestHandler:
        """A protocol for one new connection."""
        return Connection(self, self._settings, self._encode, self._judge, self._plain_reader)


class Connection(GuardedHandler):
    """The guard's connection, ending as a client needs it."""

    def __init__(
        self,
        server: ConnectionServer,
        settings: ApiSettings,
        encode: Encode,
        judge: Judge,
        plain_reader: PlainReader,
    ) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            limits=_limits(settings),
            plain_reader=plain_reader,
            lingering_time=0,  # whoever answers also reads on, within bounds of bytes too
        )
        self._settings, self._encode, self._judge = settings, encode, judge
        self._end: asyncio.Future[None] = self._loop.create_future()
        """Done when the client sends no more, or is gone."""
        self._sends_no_more = False
        self._newest_body: StreamReader | None = None
        self._discarded_bytes = 0

    def connection_lost(self, exc: BaseException | None) -> None:
        """Nobody is left to answer."""
        self._note_end()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes of heads and bodies; after a refusal of nothing any more."""
        if self._was_refused():
            self._discarded_bytes += len(data)
            if self._discarded_bytes > self._settings.discard_bytes_max:
                self.force_close()
            return
        super().data_received(data)
        self._look_at_newest()

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio's contract, which aiohttp narrows
        """The client sends no more, but may wait for what it asked for: then we close once it has that.

        Of a WebSocket there are no halves: it is over.
        """
        if self._is_websocket:
            return False
        self._sends_no_more = True
        self._note_end()
        self._break_off("the client sends no more")
        is_idle = self._waiter is not None and not self._waiter.done()
        if not is_idle and not self._messages:
            self.close()  # once what is being answered is: it may have promised already to wait for more
        return self.transport is not None and self.transport.can_write_eof() and not is_idle

    async def finish_response(self, request: web.BaseRequest, resp: web.StreamResponse, start_time: Any) -> Any:
        """An answer is out. If it declined an upgrade, the guard has just let go what it held back."""
        finished = await super().finish_response(request, resp, start_time)
        self._look_at_newest()
        if self.nothing_follows:
            self.close()
        return finished

    def _look_at_newest(self) -> None:
        """Knows the newest body; what can never come of it is not waited for."""
        if self._messages:
            self._newest_body = self._messages[-1][1]
        if self._was_refused():  # the guard cannot see the body of a request that aiohttp is just taking up
            self._break_off("what came is refused")
        elif self._sends_no_more:
            self._break_off("the client sends no more")

    @property
    def nothing_follows(self) -> bool:
        """The request being answered is the connection's last."""
        return self._sends_no_more and not self._messages

    def _was_refused(self) -> bool:
        return self.refusal is not None

    def _note_end(self) -> None:
        if not self._end.done():
            self._end.set_result(None)

    def write_last(self, answer: bytes) -> None:
        """The answer goes out, and the client sees at once that none follows; ConnectionError where it is gone."""
        transport = self.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client is gone")
        transport.write(answer)
        if transport.can_write_eof():
            try:
                transport.write_eof()
            except OSError as error:  # a socket that was reset has no sending side to close
                raise ConnectionResetError("the client is gone") from error

    def _break_off(self, why: str) -> None:
        """Whoever waits for the rest of the newest body waits no longer."""
        if self._newest_body is not None and not self._newest_body.is_eof():
            self._newest_body.set_exception(web.RequestPayloadError(why))

    def _make_error_handler(self, err_info: Any) -> Handler:
        """The turn of what was refused: our answer, then a while for the client to read it."""
        answer = self._refusal_answer()

        async def handler(_: web.BaseRequest) -> web.StreamResponse:
            with contextlib.suppress(ConnectionError):
                self.write_last(self._encode(answer, "close"))
                await asyncio.wait([self._end], timeout=self._settings.discard_timeout_ms / 1000)
            return SENT_LAST

        return handler

    def _refusal_answer(self) -> Response:
        if self.unknown_method is not None:
            head = self.unknown_method
            return self._judge(Head(head.method.decode(), head.target, ()))
        if self.refusal is None:
            return refused_response(bad_request("not HTTP as it should be"))
        return refused_response(RequestRefused(_CODES[self.refusal.code], self.refusal.detail))

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = HTTPStatus.INTERNAL_SERVER_ERROR,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """An exception that nobody expected: our own bug, in the log with its traceback, to the client as 500."""
        answer = request_failed(exc, request.method, request.raw_path)
        with contextlib.suppress(ConnectionError):
            self.write_last(self._encode(answer, "close"))
        return SENT_LAST


def _limits(settings: ApiSettings) -> ServerSettings:
    """The guard's, in its units. Bodies have a deadline of their own, with an answer; the guard's comes after it."""
    return ServerSettings(
        head_timeout_s=settings.head_timeout_ms / 1000,
        body_timeout_s=(settings.body_timeout_ms + 2 * settings.discard_timeout_ms) / 1000,
        idle_timeout_s=settings.keep_alive_timeout_ms / 1000,
        write_stall_timeout_s=settings.send_timeout_ms / 1000,
        discard_timeout_s=settings.discard_timeout_ms / 1000,
        discard_bytes_max=settings.discard_bytes_max,
    )
