"""One kept connection to a server, for a client of the API: one exchange at a time, any method, answers whole.

Told: a request as bytes, and whom to ask how long its answer is worth waiting for. Tells: the answer, or that
there will be none. It never learns what a request means: it repeats nothing, follows nothing, and what it is
given goes out byte for byte. (``http/shared.py`` is its sibling for requests that many share a connection for,
``http/client.py`` the one for peers: posts only.)

Behind an answer that did not come, nothing that comes can be trusted to belong to what is asked next: so a
connection on which an exchange failed is closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from raftkv.http.answer_reader import AnswerReader
from raftkv.http.deadline import Deadline
from raftkv.http.exchange import HttpAnswer, NoAnswer

Look = Callable[[float], float | None]
"""How many seconds more to wait, told since when by the loop's clock nothing came; None: no longer."""


class RequestProtocol(asyncio.Protocol):
    """The client's end of one connection."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        answer_bytes_max: int,
        on_lost: Callable[[RequestProtocol], None],
    ) -> None:
        """``on_lost`` is called once, when the connection is gone and its exchange has ended."""
        self._loop, self._on_lost = loop, on_lost
        self._transport: asyncio.Transport | None = None
        self._deadline = Deadline(loop, self._quiet)
        self._look: Look | None = None
        self._heard_at_s = 0.0
        """When the request was sent, or the last bytes of its answer came."""
        self._waiting: asyncio.Future[HttpAnswer | NoAnswer] | None = None
        self._reader = AnswerReader(self, answer_bytes_max=answer_bytes_max)
        self._why_closed = ""

    @property
    def is_free(self) -> bool:
        """A request can be sent now, as far as is known here."""
        transport = self._transport
        return transport is not None and self._waiting is None and not self._why_closed and not transport.is_closing()

    def exchange(self, request: bytes, *, look_after_s: float, look: Look) -> asyncio.Future[HttpAnswer | NoAnswer]:
        """Sends it, only while ``is_free``; the future always gets a result.

        ``look`` is asked while none is whole: first after ``look_after_s``, then as often as it says itself.
        """
        transport = self._transport
        assert self.is_free, "ask is_free first"
        assert transport is not None
        self._waiting = waiting = self._loop.create_future()
        self._look = look
        self._heard_at_s = self._loop.time()
        self._deadline.set(self._heard_at_s + look_after_s)
        transport.write(request)
        return waiting

    def close(self, why: str) -> None:
        """Ends the connection at once; what is asked on it gets no answer."""
        if self._transport is not None and not self._why_closed:
            self._why_closed = why
            self._reader.stop()
            self._transport.abort()

    # What the transport tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Requests can be sent."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """What was asked gets no answer."""
        self._transport = None
        self._deadline.stop()
        self._end(NoAnswer(self._why_closed or (f"connection lost: {exc}" if exc else "the server closed it")))
        self._on_lost(self)

    def data_received(self, data: bytes) -> None:
        """Bytes of an answer; those that nobody asked for end the connection."""
        if self._why_closed:
            return
        if self._waiting is None:
            self.close("an answer that nobody asked for")
            return
        self._heard_at_s = self._loop.time()
        self._reader.feed(data)

    # What the reader tells.

    def on_answer_begun(self) -> None:
        """Behind an answer that is whole, none may begin."""
        if self._waiting is None:
            self.close("an answer that nobody asked for")

    def on_answer(self, answer: HttpAnswer, *, is_last: bool) -> None:
        """The answer is whole."""
        transport = self._transport
        if is_last or (transport is not None and transport.get_write_buffer_size()):
            # An answer that came before its request had left: what follows it on the wire is the request's rest.
            self.close("the server keeps it no longer")
        self._end(answer)

    def _quiet(self) -> None:
        look = self._look
        more_s = look(self._heard_at_s) if look is not None else None
        if more_s is None:
            self.close("no answer in time")
        else:
            self._deadline.set(self._loop.time() + more_s)

    def _end(self, with_: HttpAnswer | NoAnswer) -> None:
        waiting, self._waiting, self._look = self._waiting, None, None
        if waiting is None:
            return
        self._deadline.clear()
        if not waiting.done():
            waiting.set_result(with_)
