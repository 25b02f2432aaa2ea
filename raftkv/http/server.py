"""The lean front: HTTP/1.1 on a plain asyncio protocol, no task and no future per request.

Told: bytes of one connection, and answers, at once or later, in any order. Tells: its handler each head,
and each request that is whole; the transport the answers, in the order of the requests. It never learns
what a request means. Time and size of everything that a client can send are bounded here.

One connection in three motions: ``_read_some`` takes apart what has arrived, ``_write_some`` sends what is
answered and due, ``_set_deadline`` says by when the client must do what is up to it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, cast

from raftkv.errors import UnsoundRequest
from raftkv.http import problems
from raftkv.http.answers import Answer, encode
from raftkv.http.deadline import Deadline
from raftkv.http.framing import Body, body_of
from raftkv.http.handling import Exchange, Handler, HandOver, ServerSettings, Verdict, Within
from raftkv.http.heads import Head, read_head
from raftkv.http.room import BodyRoom

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_PLAIN_REQUEST: Final = Head(method=b"", target=b"", minor_version=1, fields=b"Host: -\r\n", end=0)
"""Stands for a request that was taken at a glance: what is left to know of it is that its connection lives on."""
_NO_REQUEST: Final = Head(method=b"", target=b"", minor_version=0, fields=b"", end=0)
"""Stands for bytes that were none, where their refusal waits for its turn."""


class ServerProtocol(asyncio.Protocol):
    """One connection of the lean front."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        handler: Handler,
        settings: ServerSettings,
        *,
        on_closed: Callable[[ServerProtocol], None] | None = None,
        on_hand_over: Callable[[ServerProtocol, HandOver], None] | None = None,
    ) -> None:
        self._loop, self._handler, self._settings = loop, handler, settings
        self._on_plain: Callable[[bytes, int, Exchange], int] | None = getattr(handler, "on_plain", None)
        """Of a handler that knows some requests at a glance: whether it takes the one that begins there in these bytes,
        whole. Where it ends; 0: it is none of those, or not all there."""
        self._on_closed, self._on_hand_over = on_closed, on_hand_over
        self._transport: asyncio.Transport | None = None
        self._deadline = Deadline(loop, self._expired)
        self._exchanges: deque[Exchange] = deque()
        """Not yet written, in the order of their requests."""
        self._unread = b""
        self._at = 0
        self._checked_bytes = 0
        """So much of ``_unread`` is known to be a sound part of a head."""
        self._body: Body | None = None
        """The body that is being received, of the last exchange, or to be thrown away."""
        self._payload: list[bytes] | None = None
        """Its parts; None: it is thrown away."""
        self._body_limit_bytes = 0
        self._too_large: Callable[[], Answer] | None = None
        """What a body beyond that is answered; None: in our own words."""
        self._room: BodyRoom | None = None
        """Whence room was taken for the body that is being received …"""
        self._room_bytes = 0
        """… and how much."""
        self._since_s = 0.0
        """When the head or the body that is being received began."""
        self._continue_due = False
        """The client waits for our word before it sends the body."""
        self._busy = False
        self._goes_on = False
        """It has been asked for a turn of its own."""
        self._writes_soon = False
        """So has it, to write what is answered by then."""
        self._closing = False
        """No further request is read; the connection ends when the present ones are answered."""
        self._foreign = False
        """The next request belongs to another front."""
        self._lingering_bytes = -1
        """Thrown away since our last word; negative: it is not yet spoken."""
        self._ended = False
        """The client has sent its last byte, or so much that the rest is not waited for."""
        self._writing_paused = False
        self._stalled_since_s = 0.0
        self._reading_paused = False

    # What the transport tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there, and its first head is waited for."""
        self._transport = cast(asyncio.Transport, transport)
        self._since_s = self._loop.time()
        settings = self._settings
        self._deadline.set(self._since_s + min(settings.head_timeout_s, settings.idle_timeout_s))

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone: what is still answered goes nowhere."""
        self._transport = None
        self._deadline.stop()
        self._exchanges.clear()
        self._give_room_back()
        self._unread, self._payload = b"", None
        if self._on_closed is not None:
            self._on_closed(self)

    def data_received(self, data: bytes) -> None:
        """Takes apart as much as it can and holds the rest."""
        if self._lingering_bytes >= 0:
            self._linger(len(data))
            return
        if not self._unread and self._body is None:
            taken_bytes = 0 if self._on_plain is None else self._take_at_a_glance(data)
            if taken_bytes == len(data) and len(self._exchanges) < self._settings.outstanding_max:
                return
            self._since_s = self._loop.time()
            self._unread = data[taken_bytes:] if taken_bytes else data
        else:
            self._unread += data
        self._advance()

    def _take_at_a_glance(self, data: bytes) -> int:
        """How many of these bytes are plain requests, one behind the other; they are taken.

        Where there is nothing else, what is answered by then is written.
        """
        if self._transport is None or not self._is_at_rest:
            return 0
        at, exchanges, outstanding_max = 0, self._exchanges, self._settings.outstanding_max
        self._busy = True
        try:
            while at < len(data) and len(exchanges) < outstanding_max and (end := self._glance_at(data, at)):
                at = end
        finally:
            self._busy = False
        if exchanges and at == len(data):
            self._deadline.clear()
            if exchanges[0].answer is not None:
                self._plain_answered()
        return at

    def _glance_at(self, data: bytes, start: int) -> int:
        """Where the plain request ends that begins there, and is taken; 0: it is none, or not all there."""
        if self._on_plain is None:
            return 0
        exchange = Exchange(_PLAIN_REQUEST, self._plain_answered, self)
        self._exchanges.append(exchange)
        end = self._on_plain(data, start, exchange)
        if not end:
            self._exchanges.pop()
        return end

    def _plain_answered(self) -> None:
        """The only answer that is owed goes out, several go together; where anything is the matter, the general way."""
        transport, exchanges = self._transport, self._exchanges
        if self._busy or transport is None:
            return
        if len(exchanges) > 1 and exchanges[-1].answer is None:
            self._write_soon()
            return
        answer = exchanges[0].answer if len(exchanges) == 1 else None
        if answer is None or answer.close or self._unread or self._reading_paused or not self._is_at_rest:
            self._advance()
            return
        exchanges.clear()
        parts: list[bytes] = []
        encode(parts, answer, _PLAIN_REQUEST, close=False)
        transport.writelines(parts)
        if not self._writing_paused:
            self._deadline.set(self._loop.time() + self._settings.idle_timeout_s)

    def _write_soon(self) -> None:
        """Requests that came together are answered together: one write for all that have their answer by then."""
        if not self._writes_soon:
            self._writes_soon = True
            self._loop.call_soon(self._write_now)

    def _write_now(self) -> None:
        self._writes_soon = False
        self._advance()

    @property
    def _is_at_rest(self) -> bool:
        """No body is being received, and nothing stands in the way of a further request."""
        is_ending = self._closing or self._ended or self._foreign
        return self._body is None and not is_ending and not self._writing_paused

    def eof_received(self) -> bool:
        """The client sends no more; what it has asked is still answered, if the transport can do that."""
        transport = self._transport
        if transport is None:
            return False
        self._ended = True
        if self._body is not None and self._payload is not None:
            self._exchanges.pop()
        self._give_room_back()
        self._body = self._payload = None
        if self._lingering_bytes >= 0:
            transport.close()
            return False
        self._advance()
        return transport.can_write_eof()

    def pause_writing(self) -> None:
        """The client does not read its answers fast enough: nothing more is read from it, for a while."""
        self._writing_paused = True
        self._stalled_since_s = self._loop.time()
        self._advance()

    def resume_writing(self) -> None:
        """It does again."""
        self._writing_paused = False
        self._advance()

    # What the node tells.

    @property
    def is_open(self) -> bool:
        """It is neither gone nor handed over."""
        return self._transport is not None

    def close_gracefully(self) -> None:
        """What has been asked is answered, nothing further is read, then the connection closes."""
        self._closing = True
        if self._transport is not None and not self._exchanges and self._body is None:
            self._transport.close()

    def abort(self) -> None:
        """It is closed at once, whatever is outstanding."""
        if self._transport is not None:
            self._transport.abort()

    # Reading.

    def _advance(self) -> None:
        """As far as it goes without the client: reading makes answers, and writing them makes room to read."""
        if self._busy or self._transport is None or self._lingering_bytes >= 0:
            return
        self._busy = True
        try:
            self._read_some()
            has_room = self._write_some()
        finally:
            self._busy = False
        if has_room and self._may_read():
            self._go_on_later(self._transport)
            return
        self._hand_over_or_hang_up()
        self._await_client()

    def _go_on_later(self, transport: asyncio.Transport) -> None:
        """The rest waits until others have had their turn.

        In 256 KiB come 7,000 small requests. Refused at one go they kept the loop from everybody for 0.4 s,
        which is longer than an election timeout.
        """
        if not self._reading_paused:
            self._reading_paused = True
            transport.pause_reading()
        self._deadline.clear()
        if not self._goes_on:
            self._goes_on = True
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._goes_on = False
        self._advance()

    def _await_client(self) -> None:
        """What the client may do next, and by when."""
        if self._transport is not None and self._lingering_bytes < 0:
            self._pause_or_resume(self._transport)
            self._set_deadline()

    def _may_read(self) -> bool:
        """A body that has begun is always read on; a further request only within the limits."""
        if self._body is not None:
            return True
        within = len(self._exchanges) < self._settings.outstanding_max and not self._writing_paused
        return within and not self._closing and not self._foreign

    def _read_some(self) -> None:
        try:
            while self._at < len(self._unread) and self._may_read() and self._step():
                pass
        except UnsoundRequest as refusal:
            self._refuse(refusal)
        if self._at:
            self._unread, self._at = self._unread[self._at :], 0

    def _step(self) -> bool:
        """One head, or one piece of a body; false: the rest must come first."""
        if self._body is not None:
            return self._step_body(self._body)
        start = self._at
        if not self._checked_bytes and (end := self._glance_at(self._unread, start)):
            self._at = end
            self._since_s = self._loop.time()
            return True
        head = read_head(self._unread, start, checked=self._checked_bytes)
        if head is None:
            self._checked_bytes = len(self._unread) - start
            return False
        self._checked_bytes = 0
        verdict = self._handler.on_head(head)
        if verdict is Verdict.HAND_OVER:
            self._foreign = True
            return False
        self._at = head.end
        self._since_s = self._loop.time()
        self._closing = self._closing or not head.keep_alive
        exchange = Exchange(head, self._advance, self)
        self._exchanges.append(exchange)
        if isinstance(verdict, Answer):
            self._answer_early(exchange, verdict)
        elif isinstance(verdict, Within):
            self._begin(exchange, limit_bytes=verdict.body_bytes_max, within=verdict)
        else:
            assert isinstance(verdict, int)
            self._begin(exchange, limit_bytes=verdict)
        return True

    def _begin(self, exchange: Exchange, *, limit_bytes: int, within: Within | None = None) -> None:
        head = exchange.head
        if head.content_length > limit_bytes:
            self._answer_early(exchange, _too_large(limit_bytes) if within is None else within.too_large())
            return
        self._body = body_of(head)
        if self._body is None:
            self._handler.on_request(exchange)
            return
        if within is not None and not self._take_room(head, within):
            self._body = None
            self._answer_early(exchange, within.no_room())
            return
        self._payload, self._body_limit_bytes = [], limit_bytes
        self._too_large = None if within is None else within.too_large
        self._continue_due = head.expects_continue

    def _take_room(self, head: Head, within: Within) -> bool:
        """For a body that is not all there yet; false: there is none left."""
        body_bytes = within.body_bytes_max if head.chunked else head.content_length
        if not head.chunked and len(self._unread) - self._at >= body_bytes:
            return True
        if not within.room.take(body_bytes):
            return False
        self._room, self._room_bytes = within.room, body_bytes
        return True

    def _give_room_back(self) -> None:
        """The body is whole, or is not kept."""
        if self._room is not None:
            self._room.give_back(self._room_bytes)
            self._room = None

    def _answer_early(self, exchange: Exchange, answer: Answer) -> None:
        """The body, if there is one, is read and thrown away behind the answer."""
        head = exchange.head
        hopeless = head.expects_continue or head.content_length > self._settings.discard_bytes_max
        exchange.answer = answer._replace(close=True) if hopeless else answer
        self._closing = self._closing or exchange.answer.close
        self._body = None if head.expects_continue else body_of(head)

    def _step_body(self, body: Body) -> bool:
        before = self._at
        self._at = body.scan(self._unread, before, self._payload)
        if self._payload is not None and body.received_bytes > self._body_limit_bytes:
            refused = self._too_large
            self._exchanges[-1].answer = _too_large(self._body_limit_bytes) if refused is None else refused()
            self._closing = True
            self._payload = None
            self._give_room_back()
            self._since_s = self._loop.time()
        if self._payload is None and body.received_bytes > self._settings.discard_bytes_max:
            self._give_up_discarding()
            return True
        if not body.done:
            return self._at > before
        payload, self._body, self._payload = self._payload, None, None
        self._give_room_back()
        self._since_s = self._loop.time()
        if payload is not None:
            exchange = self._exchanges[-1]
            exchange.body = payload[0] if len(payload) == 1 else b"".join(payload)
            self._handler.on_request(exchange)
        return True

    def _refuse(self, refusal: UnsoundRequest) -> None:
        """The bytes make no sense from here on: this is answered in its turn, and is the last answer."""
        if self._body is None:
            self._exchanges.append(Exchange(_NO_REQUEST, self._advance, self))
        self._closing = True
        self._at = len(self._unread)
        body, fields = problems.problem_of(refusal), self._settings.refusal_fields
        answer = Answer(refusal.status, body, problems.CONTENT_TYPE, fields, close=True)
        if self._body is None or self._payload is not None:
            self._exchanges[-1].answer = answer
        self._give_room_back()
        self._body = self._payload = None

    def _give_up_discarding(self) -> None:
        self._body, self._closing, self._ended = None, True, True
        self._at = len(self._unread)

    # Writing.

    def _write_some(self) -> bool:
        """Writes the answers that are due; true: that may have made room for something that waits to be read."""
        parts: list[bytes] = []
        exchanges = self._exchanges
        while exchanges and (answer := exchanges[0].answer) is not None:
            exchange = exchanges.popleft()
            self._closing = self._closing or answer.close
            encode(parts, answer, exchange.head, close=self._closing and not exchanges)
        if self._continue_due and len(exchanges) == 1:
            self._continue_due = False
            if self._body is not None and not self._body.received_bytes:
                parts.append(_CONTINUE)
        if not parts or self._transport is None:
            return False
        self._transport.writelines(parts)
        return bool(self._unread)

    # Ends and limits.

    def _hand_over_or_hang_up(self) -> None:
        transport = self._transport
        if self._exchanges or self._body is not None or transport is None:
            return
        if self._closing:
            self._hang_up(transport)
        elif self._writing_paused:
            return
        elif self._foreign:
            self._hand_over(transport)
        elif self._ended:
            transport.close()

    def _hand_over(self, transport: asyncio.Transport) -> None:
        assert self._on_hand_over is not None, "a handler that hands over is given somebody to hand over to"
        self._deadline.stop()
        if self._reading_paused:
            transport.resume_reading()
        self._transport = None
        unread, self._unread = self._unread, b""
        self._on_hand_over(self, HandOver(transport, unread, self._ended))

    def _hang_up(self, transport: asyncio.Transport) -> None:
        """Our last word is written.

        A close with bytes unread would reset the connection under it: so only our side is closed, and what
        still comes is thrown away, within bounds (RFC 9112 §9.6).
        """
        self._unread = b""
        if self._ended or not transport.can_write_eof():
            transport.close()
            return
        self._lingering_bytes = 0
        if self._reading_paused:
            transport.resume_reading()
        transport.write_eof()
        self._deadline.set(self._loop.time() + self._settings.discard_timeout_s)

    def _linger(self, more_bytes: int) -> None:
        self._lingering_bytes += more_bytes
        if self._lingering_bytes > self._settings.discard_bytes_max and self._transport is not None:
            self._transport.abort()

    def _pause_or_resume(self, transport: asyncio.Transport) -> None:
        wanted = self._may_read() or self._closing
        if wanted == self._reading_paused and not self._ended:
            self._reading_paused = not wanted
            if wanted:
                self._since_s = self._loop.time()
                transport.resume_reading()
            else:
                transport.pause_reading()

    def _set_deadline(self) -> None:
        """By when the client must have done what is up to it; nothing is, while it waits for our answer."""
        settings = self._settings
        if self._writing_paused:
            self._deadline.set(self._stalled_since_s + settings.write_stall_timeout_s)
        elif self._body is not None:
            self._deadline.set(self._since_s + self._body_time_s(self._body))
        elif self._unread and self._may_read():
            self._deadline.set(self._since_s + settings.head_timeout_s)
        elif self._exchanges:
            self._deadline.clear()
        else:
            self._deadline.set(self._loop.time() + settings.idle_timeout_s)

    def _body_time_s(self, body: Body) -> float:
        if self._payload is None:
            return self._settings.discard_timeout_s
        return self._settings.body_timeout_s + body.received_bytes / self._settings.body_rate_bytes_per_s

    def _expired(self) -> None:
        transport = self._transport
        if transport is None:
            return
        if self._lingering_bytes >= 0 or self._writing_paused:
            transport.abort()
        elif self._body is not None and self._payload is None:
            self._give_up_discarding()
            self._advance()
        elif self._body is not None or self._unread:
            self._refuse(UnsoundRequest("the request came too slowly", status=408, code="request_timeout"))
            self._advance()
        else:
            transport.close()


def _too_large(limit_bytes: int) -> Answer:
    body = problems.problem(status=413, code="too_large", detail=f"a body has at most {limit_bytes} bytes here")
    return Answer(413, body, problems.CONTENT_TYPE, close=True)
