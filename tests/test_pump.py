"""The pump's one timer: an early ring, an earlier deadline, a stop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from raftkv.pump import Pump, PumpShell
from raftkv.replica import Replica, Work


class FakeTimer:
    def __init__(self, due_us: int, ring: Callable[[], None]) -> None:
        self.due_us, self.ring, self.cancelled = due_us, ring, False

    def cancel(self) -> None:
        self.cancelled = True


class FakeScheduler:
    """Time stands still unless the test moves it."""

    def __init__(self) -> None:
        self.time_us = 0
        self.due: list[Callable[[], None]] = []
        self.timers: list[FakeTimer] = []

    def now_us(self) -> int:
        return self.time_us

    def soon(self, act: Callable[[], None]) -> None:
        self.due.append(act)

    def later(self, delay_us: int, act: Callable[[], None]) -> FakeTimer:
        timer = FakeTimer(self.time_us + delay_us, act)
        self.timers.append(timer)
        return timer

    def run_soon(self) -> None:
        due, self.due = self.due, []
        for act in due:
            act()

    @property
    def live(self) -> list[FakeTimer]:
        return [timer for timer in self.timers if not timer.cancelled]


class FakeReplica:
    def __init__(self, deadlines_us: list[int | None]) -> None:
        self.turns_us: list[int] = []
        self.during: Callable[[], None] = lambda: None
        self._deadlines_us = deadlines_us

    def turn(self, now_us: int) -> Work:
        self.turns_us.append(now_us)
        self.during()
        return Work(deadline_us=self._deadlines_us.pop(0))


def made(deadlines_us: list[int | None]) -> tuple[Pump, FakeScheduler, FakeReplica, list[Any]]:
    loop, replica = FakeScheduler(), FakeReplica(deadlines_us)
    failures: list[Any] = []
    ignore = cast(Any, lambda *_: None)
    shell = PumpShell(ignore, ignore, ignore, ignore, failures.append)
    pump = Pump(cast(Replica, replica), loop, shell)
    return pump, loop, replica, failures


def test_a_timer_that_rings_early_is_set_again() -> None:
    """uvloop rounds to milliseconds: the ring came 0.4 ms early, no timer was left, and the leader fell silent."""
    pump, loop, replica, _ = made([100_000, 100_000, 200_000])
    pump.schedule()
    loop.run_soon()
    loop.time_us = 99_600
    first = loop.live.pop()
    loop.timers.clear()
    first.ring()
    loop.run_soon()
    assert replica.turns_us == [0, 99_600]
    assert [timer.due_us for timer in loop.live] == [100_000]


def test_an_earlier_deadline_replaces_the_timer_and_a_later_one_does_not() -> None:
    pump, loop, _, _ = made([100_000, 50_000, 80_000])
    for _ in range(3):
        pump.schedule()
        loop.run_soon()
    assert [timer.due_us for timer in loop.live] == [50_000]


def test_many_calls_make_one_turn() -> None:
    pump, loop, replica, _ = made([None])
    for _ in range(100):
        pump.schedule()
    loop.run_soon()
    assert len(replica.turns_us) == 1


@pytest.mark.parametrize("who", ["replica", "shell"])
def test_what_a_turn_brings_about_has_a_turn_of_its_own(who: str) -> None:
    """Its answers may bring requests at once, and what it sends may be answered within the call."""
    pump, loop, replica, _ = made([None, None])

    def in_the_first_turn(asked: str) -> None:
        if asked == who and len(replica.turns_us) == 1:
            pump.schedule()

    replica.during = lambda: in_the_first_turn("replica")
    pump._shell.work = lambda _: in_the_first_turn("shell")
    pump.schedule()
    for _ in range(3):
        loop.run_soon()
    assert len(replica.turns_us) == 2


def test_a_turn_that_raises_ends_the_node_and_no_turn_follows() -> None:
    """faults 62: halts loudly, never skips."""
    pump, loop, replica, failures = made([])
    pump.schedule()
    loop.run_soon()
    pump.schedule()
    loop.run_soon()
    assert len(replica.turns_us) == 1
    assert [type(error) for error in failures] == [IndexError]
