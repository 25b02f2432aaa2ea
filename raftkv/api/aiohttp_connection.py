"""One connection on aiohttp's low-level server: what it cannot parse, and heads that never end.

Told: bytes. Tells: requests to its handler, and answers of its own to bytes that are no request. May never
know: what a request means.

aiohttp answers what it cannot parse in plain text, with a traceback in the log; it leaves a body waiting for
ever when the parser fails in the middle of it; and it gives a head all the time of an idle connection.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Final

from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong

from raftkv.api.problems import Code, RequestRefused, bad_request, problem, refused_response
from raftkv.api.requests import head_too_large, uri_too_long
from raftkv.api.responses import Response
from raftkv.api.settings import ApiSettings

_LOG: Final = logging.getLogger("raftkv.api")
_FIELDS_MAX: Final = 1 << 20
"""Never reached: heads are bounded by their bytes, and only by them."""

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
Encode = Callable[[Response, str | None], bytes]
"""The bytes of an answer with this Connection header; None: without one."""


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

    def __init__(self, handler: Handler, settings: ApiSettings, encode: Encode) -> None:
        super().__init__(handler)
        self._settings, self._encode = settings, encode

    def __call__(self) -> web.RequestHandler:
        """A protocol for one new connection."""
        return Connection(self, self._settings, self._encode)


class Connection(web.RequestHandler):
    """aiohttp's connection, with our words for what cannot be parsed and deadlines on heads."""

    __slots__ = (
        "_deaf",
        "_discarded_bytes",
        "_encode",
        "_end",
        "_head_bytes",
        "_head_late",
        "_newest_body",
        "_sends_no_more",
        "_settings",
    )

    def __init__(self, server: ConnectionServer, settings: ApiSettings, encode: Encode) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=settings.keep_alive_timeout_ms / 1000,
            logger=_LOG,
            access_log=None,  # type: ignore[arg-type]  # aiohttp takes None for "none"
            max_line_size=settings.head_bytes_max,
            max_field_size=settings.head_bytes_max + 1,  # tells a long field from a long target in LineTooLong
            max_headers=_FIELDS_MAX,
            lingering_time=0,
            auto_decompress=False,
        )
        self._settings, self._encode = settings, encode
        self._deaf = False
        """The parser failed: what still comes has no meaning any more."""
        self._discarded_bytes = 0
        self._end: asyncio.Future[None] = self._loop.create_future()
        """Done when the client sends no more, or is gone."""
        self._newest_body: StreamReader | None = None
        self._sends_no_more = False
        self._head_bytes = 0
        """Of a head that is not whole yet, as far as can be told from outside the parser."""
        self._head_late: asyncio.TimerHandle | None = None

    def connection_lost(self, exc: BaseException | None) -> None:
        """Nobody is left to answer."""
        self._note_end()
        self._head_is_whole()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes of heads and bodies, or after a parser error of nothing."""
        if self._deaf:
            self._discarded_bytes += len(data)
            if self._discarded_bytes > self._settings.discard_bytes_max:
                self.force_close()
            return
        requests_count = self._request_count
        is_of_a_head = not self._upgraded and (self._newest_body is None or self._newest_body.is_eof())
        super().data_received(data)
        if self._request_count != requests_count:
            self._note_newest()
        elif data and is_of_a_head:
            self._head_goes_on(len(data))

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio's contract, which aiohttp narrows
        """The client sends no more, but may wait for what it asked for: then we close once it has that."""
        self._sends_no_more = True
        self._note_end()
        if self._newest_body is not None and not self._newest_body.is_eof():
            self._newest_body.set_exception(web.RequestPayloadError("the client sends no more"))
        is_idle = self._waiter is not None and not self._waiter.done()
        return self.transport is not None and self.transport.can_write_eof() and not is_idle

    def _note_end(self) -> None:
        if not self._end.done():
            self._end.set_result(None)

    @property
    def nothing_follows(self) -> bool:
        """The request being answered is the connection's last."""
        return self._sends_no_more and not self._messages

    def _note_newest(self) -> None:
        self._head_is_whole()
        message, body = self._messages[-1]
        if isinstance(message, RawRequestMessage):
            self._newest_body = body
            return
        self._deaf = True
        if len(self._messages) > 1:
            self._newest_body = self._messages[-2][1]
        if self._newest_body is not None and not self._newest_body.is_eof():
            self._newest_body.set_exception(web.RequestPayloadError("the parser gave up"))

    def _head_goes_on(self, more_bytes: int) -> None:
        self._head_bytes += more_bytes
        if self._head_late is None:
            self._head_late = self._loop.call_later(self._settings.head_timeout_ms / 1000, self._cut_off, _late_head())
        if self._head_bytes > self._settings.head_bytes_max:
            self._cut_off(refused_response(head_too_large(self._settings)))

    def _head_is_whole(self) -> None:
        self._head_bytes = 0
        if self._head_late is not None:
            self._head_late.cancel()
            self._head_late = None

    def _cut_off(self, response: Response) -> None:
        """Answers a head that has no end, if it is this head's turn, and closes."""
        self._head_is_whole()
        self._deaf = True
        transport = self.transport
        if transport is None:
            return
        if self._waiter is None or self._waiter.done():
            self.close()  # an earlier request is being answered; after it the connection ends
            return
        self._write_last(transport, response)
        self._loop.call_later(self._settings.discard_timeout_ms / 1000, self.force_close)

    def _write_last(self, transport: asyncio.WriteTransport, response: Response) -> None:
        transport.write(self._encode(response, "close"))
        if transport.can_write_eof():
            transport.write_eof()

    def _make_error_handler(self, err_info: Any) -> Handler:
        """Aiohttp's turn for what it could not parse: our answer, then a while for the client to read it."""
        refused = _parser_refusal(err_info.exc, self._settings)

        async def handler(_: web.BaseRequest) -> web.StreamResponse:
            if self.transport is not None:
                self._write_last(self.transport, refused_response(refused))
                await asyncio.wait([self._end], timeout=self._settings.discard_timeout_ms / 1000)
            return SENT_LAST

        return handler

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = HTTPStatus.INTERNAL_SERVER_ERROR,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """An exception that nobody expected: our own bug, in the log with its traceback, to the client as 500."""
        _LOG.error("%s %r failed", request.method, request.raw_path, exc_info=exc)
        if self.transport is not None and not self.transport.is_closing():
            self._write_last(self.transport, problem(Code.INTERNAL, "see this node's log"))
        return SENT_LAST


def _late_head() -> Response:
    return problem(Code.REQUEST_TIMEOUT, "the head did not come in time")


def _parser_refusal(error: HttpProcessingError, settings: ApiSettings) -> RequestRefused:
    if isinstance(error, LineTooLong):
        return uri_too_long(settings) if error.args[1] == settings.head_bytes_max else head_too_large(settings)
    reason = error.message.partition("\n")[0][:120]
    return bad_request(f"not HTTP as it should be: {reason!a}")
