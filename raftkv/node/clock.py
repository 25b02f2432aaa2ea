"""The pump's loop and clock in a real process, and how long its turns take.

Told: the event loop. Tells: the time, and who is due. The clock never falls and counts suspension too, where the
system has one that does.
"""

from __future__ import annotations

import time
from asyncio import AbstractEventLoop
from collections.abc import Callable
from typing import Final

from raftkv.node.figures import Histogram
from raftkv.pump import Timer

_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Linux's monotonic clock stands still while the machine is suspended, and a lease would outlive it."""


def now_us() -> int:
    """This machine's clock that never falls, in microseconds: where there is one that counts suspension too, that."""
    return time.clock_gettime_ns(_CLOCK) // 1000


class LoopScheduler:
    """The pump's Scheduler on an event loop. Loops round to milliseconds, so ``later`` may be a little early."""

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop = loop
        self.now_us = now_us
        self.soon: Callable[[Callable[[], None]], object] = loop.call_soon

    def later(self, delay_us: int, act: Callable[[], None]) -> Timer:
        """See Scheduler."""
        return self._loop.call_later(delay_us / 1_000_000, act)


class TurnMeter:
    """What the pump's turns took."""

    def __init__(self) -> None:
        self.longest_us = 0
        self.longest_since_look_us = 0
        """The same since whoever looks at it set it to 0."""
        self.turns_us = Histogram()
        """How long all turns took."""

    def took(self, duration_us: int) -> None:
        """One turn more."""
        self.turns_us.add(duration_us)
        if duration_us > self.longest_since_look_us:
            self.longest_since_look_us = duration_us
            if duration_us > self.longest_us:
                self.longest_us = duration_us
