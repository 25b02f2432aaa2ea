"""One session as its client keeps it: which numbers are given out, what may be acknowledged, what a number is worth.

Told: that a write wants a number, what each of its arrivals came to, that its caller wants nothing more. Tells:
the next number, what to acknowledge, and after each arrival whether to send the same again, to send it under a
new number, or to say that nobody knows. It never learns what is written, to whom it is sent, or how.

Two rules make every write happen exactly once (http-api.md, "Exactly once", "Errors"):

- A number whose arrivals all came to nothing was never executed and never will be: its write may take another
  number, of another session too.
- A number of which one arrival may have been executed keeps its number until the stored answer comes. Whatever
  else it is told meanwhile speaks of later arrivals only. If its session ends first, nobody can say.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

NUMBERS_MAX: Final = 1_000
"""Given out and not yet acknowledged; the servers keep 1,024 answers for one session."""


class Arrival(Enum):
    """What one arrival of a numbered write came to, as far as its client knows. (An answer ends the write.)"""

    NOTHING = auto()
    """It did nothing and never will: it was refused by a code, or no byte of it was sent."""
    PERHAPS = auto()
    """It may have been executed, or may be yet."""
    NO_ROOM = auto()
    """Refused because the session stores as many answers as it may."""
    EXPIRED = auto()
    """Refused because the session is no more."""


class Next(Enum):
    """What to do with a write."""

    SAME = auto()
    """Send it again, under its number."""
    ANEW = auto()
    """It has never been executed and its number is given up: send it under a new one of the session in force."""
    UNKNOWN = auto()
    """Nobody can say any more what became of it."""


class Session:
    """The numbers of one session, from its opening to its end."""

    def __init__(self, id: str, *, ttl_us: int, opened_at_us: int, numbers_max: int = NUMBERS_MAX) -> None:
        """``opened_at_us``: when the request that opened it was sent."""
        self.id = id
        self.is_over = False
        """It expired, or was ended: no number of it is executed any more."""
        self._ttl_us, self._alive_at_us, self._numbers_max = ttl_us, opened_at_us, numbers_max
        self._last = 0
        self._unsettled: dict[int, None] = {}
        """Numbers of which something is still wanted, lowest first: they are given out in order."""

    @property
    def acknowledged(self) -> int:
        """All answers up to this number have arrived, or are not wanted. Never above a number that is still wanted."""
        return next(iter(self._unsettled), self._last + 1) - 1

    @property
    def has_room(self) -> bool:
        """Another number may be given out. One write that stays without an answer takes the room, after many others."""
        return self._last - self.acknowledged < self._numbers_max

    @property
    def can_give(self) -> bool:
        """``give`` may be called."""
        return not self.is_over and self._last - self.acknowledged < self._numbers_max

    @property
    def free_count(self) -> int:
        """How many numbers may be given out now."""
        return self._numbers_max - (self._last - self.acknowledged)

    @property
    def unsettled_count(self) -> int:
        """Numbers of which something is still wanted."""
        return len(self._unsettled)

    @property
    def keepalive_due_us(self) -> int:
        """When it wants a sign of life: after a third of its time, so that one can be lost and one be late."""
        return self._alive_at_us + self._ttl_us // 3

    def give(self) -> Numbered:
        """The next number, for one write. Only while ``has_room`` and not ``is_over``."""
        assert self.has_room, "ask has_room first"
        assert not self.is_over, "nothing of a session that is over is executed"
        self._last += 1
        self._unsettled[self._last] = None
        return Numbered(self, self._last)

    def was_alive(self, sent_at_us: int) -> None:
        """A write or a sign of life that was sent then was answered by the session."""
        self._alive_at_us = max(self._alive_at_us, sent_at_us)

    def settle(self, number: int) -> None:
        """Its answer has arrived, or nobody wants it any more: what follows acknowledges it. Again: nothing."""
        self._unsettled.pop(number, None)


class Numbered:
    """One write under one number."""

    __slots__ = ("may_have_happened", "number", "session")

    def __init__(self, session: Session, number: int) -> None:
        self.session, self.number = session, number
        self.may_have_happened = False
        """Some arrival may have been executed, and its answer was not heard."""

    @property
    def next(self) -> Next:
        """What to do with it now, whatever it was told: another write may have heard that the session is over."""
        if not self.session.is_over:
            return Next.SAME
        return Next.UNKNOWN if self.may_have_happened else Next.ANEW

    def after(self, arrival: Arrival) -> Next:
        """What to do after this arrival."""
        match arrival:
            case Arrival.PERHAPS:
                self.may_have_happened = True
            case Arrival.EXPIRED:
                self.session.is_over = True
            case Arrival.NO_ROOM if not self.may_have_happened:
                # Higher numbers have taken the room, and their answers cannot be acknowledged before this one's.
                return Next.ANEW
        return self.next

    def settle(self) -> None:
        """Its answer has arrived, or nobody wants it any more."""
        self.session.settle(self.number)
