"""What clients asked and what they were told: the raw material of the checkers.

Told: requests, results, times. Tells: histories, and a line of text for each operation. May never know: what
should have happened.

How to record: one operation for everything that a client did about one request, from the first byte sent to
the answer that settled it; retries under one session and number are one operation. An answer that says that
nothing was changed and never will be (a redirect, a 4xx other than 404 and 412, a 503 with a code) is left
out. An outcome that stayed unknown is ``result=None, returned_at=None``. A request that touched several keys is
recorded as its parts on single keys (``sim/checks/parts.py``), all with the same times.
"""

from __future__ import annotations

from dataclasses import dataclass

from raftkv.kv.commands import ABSENT, ANY, PRESENT, Delete, Expect, Put
from raftkv.kv.queries import Get


@dataclass(frozen=True, slots=True)
class Seen:
    """GET, 200."""

    value: bytes
    mod_revision: int | None = None
    """None: not looked at."""


@dataclass(frozen=True, slots=True)
class Absent:
    """GET, 404."""


@dataclass(frozen=True, slots=True)
class Done:
    """PUT, 200 or 201."""

    revision: int | None = None
    """That this put made; None: not looked at."""


@dataclass(frozen=True, slots=True)
class Deleted:
    """DELETE, 200."""

    count: int
    revision: int | None = None
    """Of the store: what this deletion made, or, where it found nothing, what it found."""


@dataclass(frozen=True, slots=True)
class Refused:
    """PUT or DELETE with a condition, 412."""

    mod_revision: int
    """What the key had instead; 0: it was absent."""
    revision: int | None = None
    """Of the store."""


Request = Get | Put | Delete
Result = Seen | Absent | Done | Deleted | Refused


@dataclass(frozen=True, slots=True)
class Operation:
    """One request of one client, on one clock that all clients share."""

    client: str
    request: Request
    result: Result | None
    """None: unknown; it may have happened, may happen yet, or never."""
    invoked_at: float
    returned_at: float | None
    part_of: int | None = None
    """Parts of one request that touched several keys have one number, and took effect at one moment."""

    def __post_init__(self) -> None:
        assert (self.result is None) == (self.returned_at is None), "an outcome is known from when it returned"
        assert self.returned_at is None or self.invoked_at <= self.returned_at, "nothing returns before it is asked"

    def __str__(self) -> str:
        until = "…" if self.returned_at is None else f"{self.returned_at:g}"
        part = "" if self.part_of is None else f" (part of {self.part_of})"
        return f"[{self.invoked_at:g} … {until}] {self.client}: {_asked(self.request)} → {_told(self.result)}{part}"


def _asked(request: Request) -> str:
    match request:
        case Get():
            return f"get {request.key!r}"
        case Put():
            return f"put {request.key!r} = {shown(request.value)}{_condition(request.expect)}"
        case Delete():
            return f"delete {request.key!r}{_condition(request.expect)}"


def _condition(expect: Expect) -> str:
    return {ANY: "", ABSENT: " if absent", PRESENT: " if present"}.get(expect, f" if at revision {expect}")


def _told(result: Result | None) -> str:
    match result:
        case None:
            return "unknown"
        case Seen():
            return shown(result.value) + _at(result.mod_revision)
        case Absent():
            return "absent"
        case Done():
            return "done" + _at(result.revision)
        case Deleted():
            return f"deleted {result.count}{_at(result.revision)}"
        case Refused():
            return f"refused, the key was{_at(result.mod_revision) if result.mod_revision else ' absent'}"


def _at(revision: int | None) -> str:
    return "" if revision is None else f" at revision {revision}"


def shown(value: bytes) -> str:
    """A value short enough for a line."""
    return repr(value) if len(value) <= 24 else f"{value[:16]!r}… ({len(value)} bytes)"
