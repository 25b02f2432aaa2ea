"""A node's process in virtual time: its event loop, its timers, and what becomes of both when it stands still.

Told: what to call soon or later, when the process is stopped and continued, and that it is gone. Tells: each
callback, in order, in its time. It is the Scheduler that the pump and the forming of a cluster run by. May never
know: what is called.

A process that stands still is called nothing; what came due meanwhile is called when it goes on. One that is
stopped in the middle of a turn has read its clock before, and goes on with what it read. A machine that was suspended
has timers that come later by as long, as Linux's monotonic clock has it, while the clock that leases go by went on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


class World(Protocol):
    """What a process lives in."""

    @property
    def now_us(self) -> int:
        """The time."""
        ...

    def after(self, delay_us: int, act: Callable[[], None]) -> None:
        """Has ``act`` called that much later."""
        ...


@dataclass(slots=True)
class Clock:
    """A node's monotonic clock: it began at any number, and runs a little fast or slow."""

    offset_us: int = 0
    per_mille: int = 1000
    """Of its own microseconds in a thousand of the world's."""

    def local_us(self, world_us: int) -> int:
        """What the node's clock shows at that time."""
        return self.offset_us + world_us * self.per_mille // 1000

    def world_us(self, local_us: int) -> int:
        """The first moment at which the clock shows that."""
        return -((self.offset_us - local_us) * 1000 // self.per_mille)


class VirtualTimer:
    """Rings once, unless it is cancelled."""

    __slots__ = ("act", "due_us", "is_cancelled", "suspended_us")

    def __init__(self, act: Callable[[], None], due_us: int, suspended_us: int) -> None:
        self.act, self.due_us = act, due_us
        self.is_cancelled = False
        self.suspended_us = suspended_us
        """For how long the machine had been suspended when its time was counted."""

    def cancel(self) -> None:
        """It will not ring."""
        self.is_cancelled = True


class Process:
    """The event loop of one life of a node."""

    def __init__(
        self,
        world: World,
        clock: Callable[[], Clock],
        *,
        stall_is_over: Callable[[], None],
        gathering_us: Callable[[], int] | None = None,
    ) -> None:
        """``gathering_us`` draws how long each thing that is to be called soon waits; None: it is called at once."""
        self.is_gone = False
        self.stands_still = False
        self.stall_us = 0
        """For so long the process will be stopped in the middle of its next turn, when it has read its clock."""
        self._world, self._clock, self._gathering_us = world, clock, gathering_us
        self._stall_is_over = stall_is_over
        self._held: list[Callable[[], None]] = []
        """What came due while the process stood still, in order."""
        self._stopped_turn: tuple[int, Callable[[], None]] | None = None
        """What its clock showed in the turn in which it is stopped, and the rest of that turn."""
        self._reading_us: int | None = None
        self._suspended_us = 0
        self._suspended_at_us: int | None = None

    # ------------------------------------------------------------------------------- as a Scheduler

    def now_us(self) -> int:
        """What this node's clock shows; once after a stop what it had shown before."""
        if self._reading_us is not None:
            reading_us, self._reading_us = self._reading_us, None
            return reading_us
        return self._clock().local_us(self._world.now_us)

    def soon(self, act: Callable[[], None], /) -> None:
        """Calls it after all that gathers meanwhile."""
        if self._gathering_us is None:
            self._take_turn(act)
        else:
            self._world.after(self._gathering_us(), lambda: self._take_turn(act))

    def later(self, delay_us: int, act: Callable[[], None]) -> VirtualTimer:
        """Calls it when the clock shows so much more."""
        now_us, clock = self._world.now_us, self._clock()
        due_us = max(now_us, clock.world_us(clock.local_us(now_us) + delay_us))
        timer = VirtualTimer(act, due_us, self._suspended_us)
        self._world.after(due_us - now_us, lambda: self._ring(timer))
        return timer

    # --------------------------------------------------------------------------- what is done to it

    def stop(self) -> None:
        """SIGSTOP: nothing is called."""
        self.stands_still = True

    def suspend(self) -> None:
        """The machine sleeps: nothing is called, and timers stand still too."""
        if self._suspended_at_us is None and not self.stands_still:
            self._suspended_at_us = self._world.now_us
        self.stands_still = True

    def go_on(self) -> None:
        """SIGCONT, or the machine wakes. A turn that was stopped goes on with the time that it had read."""
        self.stands_still = False
        if self._suspended_at_us is not None:
            self._suspended_us += self._world.now_us - self._suspended_at_us
            self._suspended_at_us = None
        if self._stopped_turn is not None:
            self._reading_us, turn = self._stopped_turn
            self._stopped_turn = None
            turn()

    def release(self) -> None:
        """Calls what came due while it stood still."""
        held, self._held = self._held, []
        for act in held:
            act()

    def end(self) -> None:
        """Nothing is ever called again."""
        self.is_gone = True
        self._held.clear()

    # ----------------------------------------------------------------------------------------- leaves

    def _take_turn(self, turn: Callable[[], None]) -> None:
        if self.is_gone:
            return
        if self.stands_still:
            self._held.append(lambda: self._take_turn(turn))
        elif self.stall_us:
            duration_us, self.stall_us = self.stall_us, 0
            self._stopped_turn = (self.now_us(), turn)
            self.stop()
            self._world.after(duration_us, lambda: None if self.is_gone else self._stall_is_over())
        else:
            turn()

    def _ring(self, timer: VirtualTimer) -> None:
        if self.is_gone or timer.is_cancelled:
            return
        if self.stands_still:
            self._held.append(lambda: self._ring(timer))
            return
        missed_us = self._suspended_us - timer.suspended_us
        if missed_us:
            timer.suspended_us = self._suspended_us
            timer.due_us += missed_us
        if timer.due_us > self._world.now_us:
            self._world.after(timer.due_us - self._world.now_us, lambda: self._ring(timer))
            return
        timer.act()
