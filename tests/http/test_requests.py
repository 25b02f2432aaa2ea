"""A kept connection for one exchange at a time: how long an answer is waited for, and when no other follows it."""

from __future__ import annotations

import asyncio
from typing import Any

from raftkv.http.exchange import HttpAnswer
from raftkv.http.requests import RequestProtocol
from tests.http.fronts import until

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Wire(asyncio.Transport):
    """The other end reads as much as the test says."""

    def __init__(self) -> None:
        super().__init__()
        self.unsent_bytes = 0
        self._is_closing = False

    def write(self, data: Any) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return self.unsent_bytes

    def is_closing(self) -> bool:
        return self._is_closing

    def abort(self) -> None:
        self._is_closing = True


class Asking:
    """A connection, and every look at it: for how long nothing had come by then."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.quiet_s: list[float] = []
        self.protocol = RequestProtocol(self.loop, answer_bytes_max=1000, on_lost=lambda _: None)
        self.wire = Wire()
        self.protocol.connection_made(self.wire)

    def ask(self) -> asyncio.Future[Any]:
        return self.protocol.exchange(b"GET / HTTP/1.1\r\n\r\n", look_after_s=0.01, look=self._look)

    def _look(self, quiet_since_s: float) -> float | None:
        self.quiet_s.append(self.loop.time() - quiet_since_s)
        return 0.01


async def test_an_answer_that_comes_piece_by_piece_is_not_quiet():
    asking = Asking()
    answered = asking.ask()
    asking.protocol._heard_at_s -= 1000
    await until(lambda: asking.quiet_s)
    assert asking.quiet_s[0] > 999
    asking.protocol.data_received(ANSWER[:10])
    asking.quiet_s.clear()
    await until(lambda: asking.quiet_s)
    assert asking.quiet_s[0] < 999
    asking.protocol.data_received(ANSWER[10:])
    assert isinstance(answered.result(), HttpAnswer)


async def test_on_a_connection_that_lies_idle_nobody_looks():
    asking = Asking()
    asking.ask()
    asking.protocol.data_received(ANSWER)
    began_s = asking.loop.time()
    await until(lambda: asking.loop.time() > began_s + 0.05)
    assert asking.quiet_s == []
    assert asking.protocol.is_free


async def test_behind_an_answer_that_came_before_its_request_had_left_nothing_is_asked():
    """What follows on the wire is the rest of that request."""
    asking = Asking()
    answered = asking.ask()
    asking.wire.unsent_bytes = 1
    asking.protocol.data_received(ANSWER)
    assert isinstance(answered.result(), HttpAnswer)
    assert not asking.protocol.is_free
