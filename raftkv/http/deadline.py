"""One deadline of one connection, cheap to move.

Told: when something must have happened. Tells: that it has not. Moving it later, which every request does,
only stores a number: the timer that is armed finds the new time when it fires.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, TimerHandle
from collections.abc import Callable


class Deadline:
    """Calls ``expired`` once, at the time that was last set; times are the loop's, in seconds."""

    __slots__ = ("_armed_for_s", "_at_s", "_expired", "_loop", "_timer")

    def __init__(self, loop: AbstractEventLoop, expired: Callable[[], None]) -> None:
        self._loop = loop
        self._expired = expired
        self._at_s: float | None = None
        self._armed_for_s = 0.0
        self._timer: TimerHandle | None = None

    def set(self, at_s: float) -> None:
        """It is ``at_s`` from now on, whatever was set before."""
        self._at_s = at_s
        if self._timer is None:
            self._arm(at_s)
        elif at_s < self._armed_for_s:
            self._timer.cancel()
            self._arm(at_s)

    def clear(self) -> None:
        """There is none until the next ``set``."""
        self._at_s = None

    def stop(self) -> None:
        """There is none any more, and no timer keeps the connection in memory."""
        self._at_s = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, at_s: float) -> None:
        self._armed_for_s = at_s
        self._timer = self._loop.call_at(at_s, self._fire)

    def _fire(self) -> None:
        self._timer = None
        if self._at_s is None:
            return
        if self._loop.time() < self._at_s:
            self._arm(self._at_s)
            return
        self._at_s = None
        self._expired()
