"""aiohttp's request handler, behind the same strict reading of heads as the lean front.

Told: the bytes of a connection that aiohttp serves. Tells: aiohttp's own handler exactly those bytes, held
back only while a head is not yet whole. It never learns what a request means, and changes no byte.

aiohttp alone is laxer than we are, sets no deadline to a head or a body, and words its parser's errors as
plain text with a traceback in the log. So every request on the connection, not only the first, is vetted
before aiohttp sees it, and message boundaries are followed by the code that the lean front uses too. What is
refused reaches aiohttp as bytes that no parser takes: that makes it answer in its turn, through
``handle_error``, where the answer is put into our words. Only public methods are overridden, so a front
with more to say about its connections can inherit from this one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from aiohttp import StreamReader, web
from aiohttp.http_websocket import WebSocketReader

from raftkv.errors import UnsoundRequest
from raftkv.http import problems
from raftkv.http.deadline import Deadline
from raftkv.http.framing import Body, body_of
from raftkv.http.handling import ServerSettings
from raftkv.http.heads import FIELDS_MAX, HEAD_BYTES_MAX, Head, read_head
from raftkv.http.plain import Plain, PlainReader

_METHODS: Final = frozenset((b"DELETE", b"GET", b"HEAD", b"OPTIONS", b"PATCH", b"POST", b"PUT", b"TRACE"))
"""Known to every parser. Of some others aiohttp's would say that what came is no HTTP."""
_POISON: Final = b"\0\r\n\r\n"
_AFTER_UPGRADE_BYTES_MAX: Final = 256 * 1024


class GuardedHandler(web.RequestHandler):
    """One connection that aiohttp serves."""

    def __init__(
        self,
        server: web.Server,
        *,
        loop: asyncio.AbstractEventLoop,
        limits: ServerSettings,
        plain_reader: PlainReader | None = None,
        **options: Any,
    ) -> None:
        """``options`` are aiohttp's own, where they are to differ from what belongs to ``limits``.

        ``plain_reader`` tells some requests at a glance; what it takes is vetted.
        """
        own: dict[str, Any] = {
            "keepalive_timeout": limits.idle_timeout_s,
            "lingering_time": limits.discard_timeout_s,
            "max_line_size": HEAD_BYTES_MAX,
            "max_field_size": HEAD_BYTES_MAX,
            "max_headers": FIELDS_MAX + 1,
            "auto_decompress": False,
            "access_log": None,
        }
        super().__init__(server, loop=loop, **(own | options))
        self._limits, self._plain_reader = limits, plain_reader
        self.glanced: Plain | None = None
        """The oldest request without an answer, if it was told at a glance."""
        self.refusal: UnsoundRequest | None = None
        """Why what came is not taken: what the answer to the bytes that aiohttp cannot parse should say."""
        self.unknown_method: Head | None = None
        """If that is for its method alone: its head."""
        self._deadline = Deadline(loop, self._expired)
        self._held = b""
        """A head that is not yet whole, or what came behind a request to upgrade."""
        self._body: Body | None = None
        self._since_s = 0.0
        """When the head or body that is being received began."""
        self._upgrade_asked = False
        """aiohttp decides whether what follows is HTTP; until it has, that is held."""
        self._unanswered = 0
        """Requests that aiohttp was given and has not answered."""
        self._is_websocket = False

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection is gone."""
        self._deadline.stop()
        self._held = b""
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Hands on what is vetted. Empty data is aiohttp's own way to go on with what it has."""
        if not data or self._is_websocket:
            super().data_received(data)
        elif self.refusal is None:
            if not self._held and self._body is None:
                if not self._unanswered and self._is_plain(data):
                    super().data_received(data)
                    return
                self._since_s = self._loop.time()
            checked_bytes = len(self._held)
            self._follow(self._held + data if checked_bytes else data, checked_bytes)

    def _is_plain(self, data: bytes) -> bool:
        """Whether these bytes are exactly one request that is told at a glance."""
        plain = None if self._plain_reader is None else self._plain_reader.read(data)
        if plain is None or plain.end != len(data):
            return False
        self.glanced = plain
        self._unanswered += 1
        self._deadline.clear()
        return True

    def _follow(self, data: bytes, checked_bytes: int) -> None:
        """Goes over the messages in ``data``; hands on up to the last byte that belongs to a vetted one."""
        self._held = b""
        at = 0
        try:
            while at < len(data) and not self._upgrade_asked:
                after = self._step(data, at, checked_bytes)
                checked_bytes = 0
                if after == at:
                    break
                at = after
        except UnsoundRequest as refusal:
            self._refuse(refusal, before=data[:at])
            return
        self._held = data[at:]
        if self._upgrade_asked and len(self._held) > _AFTER_UPGRADE_BYTES_MAX:
            self.force_close()
        elif at:
            super().data_received(data[:at] if self._held else data)
        self._set_deadline()

    def _step(self, data: bytes, at: int, checked_bytes: int) -> int:
        if self._body is not None:
            at = self._body.scan(data, at, None)
            if self._body.done:
                self._body = None
                self._since_s = self._loop.time()
            return at
        head = read_head(data, at, checked=checked_bytes)
        if head is None:
            return at
        if head.method not in _METHODS:
            self.unknown_method = head
            raise UnsoundRequest("no route has this method", status=405, code="method_not_allowed")
        self._body = body_of(head)
        self._upgrade_asked = head.upgrades
        self._unanswered += 1
        self._since_s = self._loop.time()
        return head.end

    def _refuse(self, refusal: UnsoundRequest, *, before: bytes) -> None:
        """What came before is still served; then aiohttp meets the poison, and answers the refusal.

        In the middle of a body it is the body that fails: its reader gets the exception, and since such a body
        never ends, the connection ends with the answer.
        """
        self.refusal = refusal
        self._deadline.stop()
        self._held = b""
        if before:
            super().data_received(before)  # not in one call: a parser's error drops what the same call has parsed
        if self._body is None:
            super().data_received(_POISON)
        elif (content := self._newest_content()) is not None:
            content.set_exception(web.RequestPayloadError(str(refusal)))

    def _newest_content(self) -> StreamReader | None:
        """The body that is being received: aiohttp, left alone, lets its reader wait for ever on a parser error."""
        if self._messages:
            return self._messages[-1][1]
        return None if self._current_request is None else self._current_request.content

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer where aiohttp's parser or a handler failed; the connection ends with it."""
        if self.refusal is not None:
            return _closing(self.refusal)
        if status < 500:
            return _closing(UnsoundRequest(f"not taken as HTTP: {message}"))
        return super().handle_error(request, status, exc, message)

    def set_parser(self, parser: WebSocketReader, data_received_cb: Callable[[], None] | None = None) -> None:
        """Aiohttp has accepted the upgrade: from here on this is no HTTP and none of our business."""
        super().set_parser(parser, data_received_cb)
        self._is_websocket = True
        self._deadline.stop()
        held, self._held = self._held, b""
        super().data_received(held)

    async def finish_response(self, request: web.BaseRequest, resp: web.StreamResponse, start_time: Any) -> Any:
        """Aiohttp has written an answer; if that declined an upgrade, what follows is HTTP again."""
        finished = await super().finish_response(request, resp, start_time)
        self._unanswered -= 1
        declined = self._upgrade_asked and not self._unanswered and not self._is_websocket
        if declined and self.transport is not None:
            self._upgrade_asked = False
            self._since_s = self._loop.time()
            self._follow(self._held, 0)
        return finished

    def _set_deadline(self) -> None:
        limits = self._limits
        if self._body is not None:
            allowed_s = limits.body_timeout_s + self._body.received_bytes / limits.body_rate_bytes_per_s
            self._deadline.set(self._since_s + allowed_s)
        elif self._held and not self._upgrade_asked:
            self._deadline.set(self._since_s + limits.head_timeout_s)
        else:
            self._deadline.clear()

    def _expired(self) -> None:
        """Too slow; but not while it is aiohttp that does not read."""
        transport = self.transport
        if transport is None:
            return
        if not transport.is_reading():
            self._since_s = self._loop.time()
            self._set_deadline()
        else:
            refusal = UnsoundRequest("the request came too slowly", status=408, code="request_timeout")
            self._refuse(refusal, before=b"")


def _closing(refusal: UnsoundRequest) -> web.Response:
    body, content_type = problems.problem_of(refusal), problems.CONTENT_TYPE.decode()
    response = web.Response(status=refusal.status, body=body, content_type=content_type)
    response.force_close()
    return response
