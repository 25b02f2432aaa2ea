"""The pump: one turn of the replica for each turn of the event loop in which something happened.

Told: by everybody, that there is something to do. Tells: its shell what a turn wants done. Handlers only enqueue
and call ``schedule``; the pump runs once, after all of them, so that what came together goes together. It decides
nothing: the replica does. May never know: which loop and which clock it runs by; a node's are the system's, the
simulator's are virtual.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from raftkv.core.effects import Exchange
from raftkv.core.messages import Envelope
from raftkv.errors import RaftkvError
from raftkv.replica import Replica, Work


class Timer(Protocol):
    """Something that will be called later."""

    def cancel(self) -> None:
        """It will not; also after it was."""
        ...


class Scheduler(Protocol):
    """An event loop, and the clock that leases and timeouts go by."""

    def now_us(self) -> int:
        """A clock that never falls, in microseconds."""
        ...

    def soon(self, act: Callable[[], None], /) -> object:
        """Calls it before the loop waits again."""
        ...

    def later(self, delay_us: int, act: Callable[[], None]) -> Timer:
        """Calls it about that much later; a little earlier is as good."""
        ...


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
    took: Callable[[int], None] = lambda duration_us: None
    """How long a turn took, in microseconds."""


class Pump:
    """Runs the replica's turns."""

    def __init__(self, replica: Replica, scheduler: Scheduler, shell: PumpShell) -> None:
        self._replica, self._scheduler, self._shell = replica, scheduler, shell
        self._scheduled = False
        self._stopped = False
        self._timer: Timer | None = None
        self._timer_due_us = 0

    def schedule(self) -> None:
        """A turn comes before the event loop waits again."""
        if not self._scheduled and not self._stopped:
            self._scheduled = True
            self._scheduler.soon(self._run)

    def stop(self) -> None:
        """No turn any more."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def _run(self) -> None:
        self._scheduled = False
        if self._stopped:
            return
        began_us = self._scheduler.now_us()
        try:
            self._do(self._replica.turn(began_us))
        except Exception as error:  # noqa: BLE001 - the node halts with it, loudly
            self.stop()
            self._shell.failed(error)
            return
        self._shell.took(self._scheduler.now_us() - began_us)

    def _do(self, work: Work) -> None:
        shell = self._shell
        shell.work(work)
        for envelope in work.requests:
            shell.send(envelope)
        for exchange, reply in work.replies:
            shell.reply(exchange, reply)
        for exchange, error in work.refusals:
            shell.refuse(exchange, error)
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
        self._timer = self._scheduler.later(max(0, due_us - self._scheduler.now_us()), self._rang)

    def _rang(self) -> None:
        """Perhaps a little early, where a loop rounds: the turn then asks for another timer."""
        self._timer = None
        self.schedule()
