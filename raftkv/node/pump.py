"""The pump: one turn of the replica for each turn of the event loop in which something happened.

Told: by everybody, that there is something to do. Tells: the disk thread and the links what to do. Handlers
only enqueue and call ``schedule``; the pump runs once, after all of them, so that what came together goes
together. It decides nothing: the replica does, and the simulator runs the same replica.
"""

from __future__ import annotations

import time
from asyncio import AbstractEventLoop, TimerHandle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from raftkv.core.effects import Exchange
from raftkv.core.messages import Envelope
from raftkv.errors import RaftkvError
from raftkv.node.figures import Histogram
from raftkv.replica import Replica, Work

_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Linux's monotonic clock stands still while the machine is suspended, and a lease would outlive it."""


def now_us() -> int:
    """This machine's clock that never falls, in microseconds: where there is one that counts suspension too, that."""
    return time.clock_gettime_ns(_CLOCK) // 1000


@dataclass(slots=True)
class PumpShell:
    """Where a turn's work goes."""

    work: Callable[[Work], None]
    """Disk work and notes."""
    send: Callable[[Envelope], None]
    reply: Callable[[Exchange, Envelope], None]
    refuse: Callable[[Exchange, RaftkvError], None]
    failed: Callable[[BaseException], None]
    """A turn raised: the node halts rather than go on from a state that nobody foresaw."""


class Pump:
    """Runs the replica's turns on the event loop."""

    def __init__(self, replica: Replica, loop: AbstractEventLoop, shell: PumpShell) -> None:
        self.turns_count = 0
        self.longest_turn_us = 0
        self.longest_turn_since_look_us = 0
        """The same since whoever looks at it set it to 0."""
        self.turns_us = Histogram()
        """How long all turns took."""
        self._replica, self._loop, self._shell = replica, loop, shell
        self._scheduled = False
        self._stopped = False
        self._timer: TimerHandle | None = None
        self._timer_due_us = 0

    def schedule(self) -> None:
        """A turn comes before the event loop waits again."""
        if not self._scheduled and not self._stopped:
            self._scheduled = True
            self._loop.call_soon(self._run)

    def stop(self) -> None:
        """No turn any more."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def _run(self) -> None:
        self._scheduled = False
        if self._stopped:
            return
        began_us = now_us()
        try:
            self._do(self._replica.turn(began_us))
        except Exception as error:  # noqa: BLE001 - the node halts with it, loudly
            self.stop()
            self._shell.failed(error)
            return
        self.turns_count += 1
        took_us = now_us() - began_us
        self.turns_us.add(took_us)
        if took_us > self.longest_turn_since_look_us:
            self.longest_turn_since_look_us = took_us
            if took_us > self.longest_turn_us:
                self.longest_turn_us = took_us

    def _do(self, work: Work) -> None:
        self._shell.work(work)
        for envelope in work.requests:
            self._shell.send(envelope)
        for exchange, reply in work.replies:
            self._shell.reply(exchange, reply)
        for exchange, error in work.refusals:
            self._shell.refuse(exchange, error)
        self._wake_at(work.deadline_us)

    def _wake_at(self, due_us: int | None) -> None:
        """Keeps one timer, and leaves an earlier one alone: a turn too many costs less than setting it anew."""
        if due_us is None:
            return
        if self._timer is not None:
            if self._timer_due_us <= due_us:
                return
            self._timer.cancel()
        self._timer_due_us = due_us
        self._timer = self._loop.call_later(max(0, due_us - now_us()) / 1_000_000, self._rang)

    def _rang(self) -> None:
        """Loops round to milliseconds, so it may be a little early: the turn then asks for another timer."""
        self._timer = None
        self.schedule()
