"""One kept connection to a server that many share: requests pipelined, each answer for the oldest that is owed one.

Told: requests as bytes, and until when the answer to each is of use. Tells: of each exactly once its answer, or that
there will be none, or that no byte of it left. It never learns what they mean: it repeats nothing, follows nothing,
and what it is given goes out byte for byte.

    gathered ── written, all of one turn of the loop at once ──► owed ── answered ──► HttpAnswer
       │                                                          └───── the end of the connection ──► NoAnswer
       └── the end of the connection, or of its time ──► NotSent

Answers come in the order of the requests (RFC 9112 section 9.3.2). From that follows:

- Whoever waits no more, cancelled or late, gives up the answer and not the place: it stays owed, and goes to nobody.
- Silence is the connection's, not one request's. One look at the oldest who still waits decides for all of them.
- What cannot be understood, or was not asked for, ends the connection: nothing behind it belongs to anybody.
- A connection carries a single request until it has been kept after an answer (section 9.3.2 again): a server that
  closes each connection does not leave dozens in doubt.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Final, cast

from raftkv.http.answer_reader import AnswerReader
from raftkv.http.exchange import Heard, HttpAnswer, NoAnswer, NotSent
from raftkv.http.watch import TICK_S, Watch

OWED_MAX: Final = 32
"""Requests on one connection that are not answered. A node stops reading at 64."""
SLOW_S: Final = 0.05
"""A connection on which nothing came for so long, although something is owed, may hold up whatever is asked behind."""
TOO_LATE: Final = NotSent("the time was over before it could be sent", unreachable=False)

LookAt = Callable[[Any, float], float | None]
"""``Look`` for the request of this context."""


class Asked:
    """One request and its place."""

    __slots__ = ("answered", "context", "due_s", "end_bytes", "request", "since_s")

    def __init__(self, request: bytes, context: Any, due_s: float, answered: asyncio.Future[Heard]) -> None:
        self.request, self.context, self.due_s, self.answered = request, context, due_s, answered
        self.since_s = 0.0
        """Since when it waits for a connection, if it had to."""
        self.end_bytes = 0
        """Where it ends in all that was written on its connection."""

    def end(self, with_: Heard) -> None:
        """Whoever still waits hears this."""
        if not self.answered.done():
            self.answered.set_result(with_)


class SharedProtocol(asyncio.Protocol):
    """The client's end of one connection."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        answer_bytes_max: int,
        silence_s: float,
        look: LookAt,
        on_room: Callable[[], None],
        on_lost: Callable[[SharedProtocol], None],
    ) -> None:
        """``look`` is asked when nothing came for ``silence_s`` although something is owed, then as often as it says.

        ``on_room`` is called when there may be room again, ``on_lost`` once, when the connection is gone and everybody
        on it has been told.
        """
        self._loop, self._silence_s = loop, silence_s
        self._look, self._on_room, self._on_lost = look, on_room, on_lost
        self._transport: asyncio.Transport | None = None
        self._reader = AnswerReader(self, answer_bytes_max=answer_bytes_max)
        self._gathered: list[Asked] = []
        """Not yet written."""
        self._owed: deque[Asked] = deque()
        """Written, in this order, and not yet answered; whoever waits no more too."""
        self._written_bytes = 0
        self._left_bytes = 0
        """Of those, how many had left when the newest bytes came."""
        self._heard_at_s = loop.time()
        """When the last bytes came; or when something was owed again, after nothing was."""
        self._look_at_s = 0.0
        """Not before."""
        self._is_kept = False
        """An answer came, and the server closed nothing."""
        self._flush_is_due = False
        self._is_paused = False
        self._watch = Watch(loop, self._look_about)
        self._why_closed = ""
        self.left_doubts = False
        """It ended while something was owed."""

    @property
    def is_open(self) -> bool:
        """As far as is known here."""
        return self._transport is not None and not self._why_closed and not self._transport.is_closing()

    @property
    def has_room(self) -> bool:
        """A request can be asked now."""
        if len(self._owed) + len(self._gathered) >= (OWED_MAX if self._is_kept else 1):
            return False
        transport = self._transport
        return transport is not None and not self._why_closed and not transport.is_closing()

    @property
    def is_unused(self) -> bool:
        """Nothing is asked on it."""
        return not self._owed and not self._gathered

    def quiet_s(self, now_s: float) -> float:
        """For how long nothing came although something is owed; or since when nothing is asked on it."""
        return now_s - self._heard_at_s if self._owed or not self._gathered else 0.0

    def ask(self, asked: Asked, now_s: float) -> None:
        """It is written with all others of this turn. Only while ``has_room``."""
        self._gathered.append(asked)
        if not self._flush_is_due:
            self._flush_is_due = True
            self._loop.call_soon(self._flush)
        if asked.due_s < self._watch.at_s:
            self._watch.by(min(asked.due_s, now_s + self._silence_s))

    def close(self, why: str) -> None:
        """Ends the connection at once; what is owed on it gets no answer."""
        if self._transport is not None and not self._why_closed:
            self._why_closed = why
            self._reader.stop()
            self._transport.abort()

    # What the transport tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Requests can be asked."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """What was written may have been acted on; what was not, was not."""
        self._transport = None
        self._watch.stop()
        why = self._why_closed or (f"connection lost: {exc}" if exc else "the server closed it")
        self.left_doubts = bool(self._owed)
        owed, self._owed = self._owed, deque()
        gathered, self._gathered = self._gathered, []
        for asked in owed:
            asked.end(NoAnswer(why))
        for asked in gathered:
            asked.end(NotSent(why, unreachable=False))
        self._on_lost(self)

    def data_received(self, data: bytes) -> None:
        """Bytes of answers; those that nobody asked for end the connection."""
        if self._why_closed or self._transport is None:
            return
        if not self._owed:
            self.close("an answer that nobody asked for")
            return
        self._heard_at_s = self._loop.time()
        self._left_bytes = self._written_bytes - self._transport.get_write_buffer_size()
        self._reader.feed(data)
        self._on_room()

    def pause_writing(self) -> None:
        """The server does not read fast enough: what is asked is gathered until it does."""
        self._is_paused = True

    def resume_writing(self) -> None:
        """It does again."""
        self._is_paused = False
        self._flush()

    # What the reader tells.

    def on_answer_begun(self) -> None:
        """It is somebody's, or the end."""
        if not self._owed:
            self.close("an answer that nobody asked for")

    def on_answer(self, answer: HttpAnswer, *, is_last: bool) -> None:
        """It is the oldest one's that is owed an answer."""
        asked = self._owed.popleft()
        asked.end(answer)
        if is_last or asked.end_bytes > self._left_bytes:
            # An answer that came before its request had left: what follows it on the wire is the request's rest.
            self.close("the server keeps it no longer")
        self._is_kept = True

    # Writing.

    def _flush(self) -> None:
        self._flush_is_due = False
        if self._is_paused or not self.is_open or self._transport is None:
            return
        now_s, gathered, owed = self._loop.time(), self._gathered, self._owed
        self._gathered = []
        requests: list[bytes] = []
        for asked in gathered:
            if asked.answered.done():
                continue
            if asked.due_s - now_s < TICK_S:  # The watch would give it up at once, and nobody know what became of it.
                asked.end(TOO_LATE)
                continue
            self._written_bytes += len(asked.request)
            asked.end_bytes = self._written_bytes
            requests.append(asked.request)
        if requests:
            if not owed:
                self._heard_at_s = now_s
                self._watch.by(now_s + self._silence_s)
            owed.extend([asked for asked in gathered if asked.end_bytes])
            self._transport.write(requests[0] if len(requests) == 1 else b"".join(requests))
        if len(requests) < len(gathered):
            self._on_room()

    # Silence, and who gives up.

    def _look_about(self) -> None:
        now_s = self._loop.time()
        for asked in self._owed:
            if asked.due_s - now_s < TICK_S:
                asked.end(NoAnswer("no answer in time"))
        for asked in self._gathered:
            if asked.due_s - now_s < TICK_S:
                asked.end(TOO_LATE)
        if self._owed and self._look_due_s() - now_s < TICK_S:
            self._look_at_silence(now_s)
        self._watch_on()

    def _look_due_s(self) -> float:
        return max(self._heard_at_s + self._silence_s, self._look_at_s)

    def _look_at_silence(self, now_s: float) -> None:
        """Nothing came for long: whoever waits longest decides whether it is worth waiting on; if nobody does, no."""
        oldest = next((asked for asked in self._owed if not asked.answered.done()), None)
        more_s = None if oldest is None else self._look(oldest.context, self._heard_at_s)
        if more_s is None:
            self.close("no answer in time")
        else:
            self._look_at_s = now_s + more_s

    def _watch_on(self) -> None:
        if self._why_closed:
            return
        for asked in (*self._owed, *self._gathered):
            if not asked.answered.done():
                self._watch.by(asked.due_s)
        if self._owed:
            self._watch.by(self._look_due_s())
