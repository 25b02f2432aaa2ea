"""One timer for many things that may become due, of which most never do.

Told: that something will be due at a time. Tells: that something may be, no later than then; whoever hears it looks
for himself what is, and says what is next. What is due later than what is watched for costs nothing.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, TimerHandle
from collections.abc import Callable
from math import inf
from typing import Final

TICK_S: Final = 0.001
"""Timers are no finer: what is due so soon is due."""


class Watch:
    """Calls ``look`` once, no later than the earliest time it was told since; times are the loop's, in seconds."""

    __slots__ = ("_look", "_loop", "_timer", "at_s")

    def __init__(self, loop: AbstractEventLoop, look: Callable[[], None]) -> None:
        self._loop, self._look = loop, look
        self._timer: TimerHandle | None = None
        self.at_s = inf
        """When it calls."""

    def by(self, at_s: float) -> None:
        """No later than then."""
        if at_s < self.at_s:
            self.stop()
            self.at_s = at_s
            self._timer = self._loop.call_at(at_s, self._fire)

    def stop(self) -> None:
        """It calls no more, unless it is told of something else."""
        self.at_s = inf
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        self._timer, self.at_s = None, inf
        self._look()
