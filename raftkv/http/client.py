"""One kept connection to a server: requests pipelined in order, no task and no future per exchange.

Told: requests to post, each with whatever its owner wants back beside the answer. Tells: for each of them,
in order, the answer or that there is none, exactly once. It never learns what they mean.

Answers come in the order of the requests, and all have the same time: so the first one that waits is the
only one whose deadline needs watching. When that passes, the connection is closed: behind a missing answer
nothing that comes can be trusted to belong to what is waited for.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Any, Protocol, cast

import httptools

from raftkv.http.deadline import Deadline
from raftkv.http.heads import HEAD_BYTES_MAX


@dataclass(frozen=True, slots=True)
class ExchangeLimits:
    """Bounds of the exchanges on one connection."""

    timeout_s: float
    """From the posting of a request to the end of its answer."""
    outstanding_max: int
    answer_bytes_max: int
    """Of its body; its head, and whatever else stands around the body, has ``HEAD_BYTES_MAX`` more."""
    unsent_bytes_max: int
    """What the peer may leave unread before there is no room for more."""


class Poster(Protocol):
    """Who posted, and hears what became of it."""

    def on_answer(self, context: Any, status: int, body: bytes) -> None:
        """The answer to what was posted with this context."""
        ...

    def on_failed(self, context: Any, why: str) -> None:
        """There will be no answer. Whether the request was acted on is not known."""
        ...

    def on_lost(self, why: str) -> None:
        """The connection is gone; everything outstanding has been told."""
        ...


class ClientProtocol(asyncio.Protocol):
    """The client's end of one connection."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        authority: bytes,
        content_type: bytes,
        limits: ExchangeLimits,
        poster: Poster,
    ) -> None:
        """``authority`` is the Host of every request: host and port as the URL has them."""
        self._loop, self._limits, self._poster = loop, limits, poster
        self._head_rest = (
            b" HTTP/1.1\r\nHost: " + authority + b"\r\nContent-Type: " + content_type + b"\r\nContent-Length: "
        )
        self._transport: asyncio.Transport | None = None
        self._deadline = Deadline(loop, self._expired)
        self._waiting: deque[tuple[float, Any]] = deque()
        """Deadline and context of every exchange without an answer, oldest first."""
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._answers_begun_count = 0
        self._answer_bytes = 0
        """Of the answer that is being received, all but those that came together with its first."""
        self._writing_paused = False
        self._why_closed = ""

    @property
    def is_open(self) -> bool:
        """It is connected, and ``Poster.on_lost`` has not been called."""
        return self._transport is not None

    @property
    def has_room(self) -> bool:
        """A request would be sent now."""
        return (
            self._transport is not None
            and not self._writing_paused
            and not self._why_closed
            and len(self._waiting) < self._limits.outstanding_max
        )

    def post(self, target: bytes, body: bytes, context: Any, fields: bytes = b"") -> None:
        """Sends it; ``context`` comes back with the answer, or with the failure. Only while ``has_room``.

        ``fields`` are further header lines, each ended by CRLF.
        """
        transport = self._transport
        assert self.has_room, "ask has_room first"
        assert transport is not None
        due_s = self._loop.time() + self._limits.timeout_s
        if not self._waiting:
            self._deadline.set(due_s)
        self._waiting.append((due_s, context))
        transport.writelines((b"POST %b%b%d\r\n%b\r\n" % (target, self._head_rest, len(body), fields), body))

    def close(self, why: str) -> None:
        """Ends the connection at once; everything outstanding fails with ``why``."""
        if self._transport is not None and not self._why_closed:
            self._why_closed = why
            self._transport.abort()

    # What the transport tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Requests can be posted."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=self._limits.unsent_bytes_max)

    def connection_lost(self, exc: Exception | None) -> None:
        """Everything outstanding fails, oldest first."""
        self._transport = None
        self._deadline.stop()
        why = self._why_closed or (f"connection lost: {exc}" if exc else "connection closed by the peer")
        waiting, self._waiting = self._waiting, deque()
        for _, context in waiting:
            self._poster.on_failed(context, why)
        self._poster.on_lost(why)

    def data_received(self, data: bytes) -> None:
        """Bytes of answers; those that nobody asked for end the connection."""
        if self._why_closed:
            return
        begun_count = self._answers_begun_count
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self.close(f"the answer is not HTTP: {error}")
        if begun_count == self._answers_begun_count:
            self._answer_bytes += len(data)
            if self._answer_bytes > self._limits.answer_bytes_max + HEAD_BYTES_MAX:
                self._close_for_size()

    def pause_writing(self) -> None:
        """The peer does not read fast enough: no room until it does."""
        self._writing_paused = True

    def resume_writing(self) -> None:
        """It does again."""
        self._writing_paused = False

    # What the parser tells.

    def on_message_begin(self) -> None:
        """The first byte of an answer. The parser keeps heads and trailers of any size: they are counted here."""
        self._answers_begun_count += 1
        self._answer_bytes = 0
        if not self._waiting:
            self.close("an answer that nobody asked for")

    def on_body(self, data: bytes) -> None:
        """A part of an answer's body."""
        self._body_bytes += len(data)
        if self._body_bytes > self._limits.answer_bytes_max:
            self._close_for_size()
        elif not self._why_closed:
            self._body.append(data)

    def on_message_complete(self) -> None:
        """An answer is whole: it belongs to the oldest exchange that waits."""
        status = self._parser.get_status_code()
        body = b"".join(self._body)
        self._body.clear()
        self._body_bytes = 0
        if not self._why_closed and status >= 200:
            self._answered(status, body)

    def _answered(self, status: int, body: bytes) -> None:
        """Tells it. Who lets only some answers through (by their headers) stands here."""
        self._poster.on_answer(self._next_waiting(), status, body)

    def _next_waiting(self) -> Any:
        """The context of the oldest exchange, which waits no more; the next one's deadline counts."""
        _, context = self._waiting.popleft()
        if self._waiting:
            self._deadline.set(self._waiting[0][0])
        else:
            self._deadline.clear()
        return context

    def _close_for_size(self) -> None:
        self.close(f"an answer of more than {self._limits.answer_bytes_max} bytes")

    def _expired(self) -> None:
        self.close(f"no answer within {self._limits.timeout_s:g} s")
