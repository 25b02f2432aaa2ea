"""Where in the log's files an entry is found, remembered for one batch in every 64 KiB.

Told: appends, truncations and resets as they are written or recovered, with the place of their batch.
Tells: from which batch to walk to an entry, and up to which index that walk may be believed. Pure.

    entries    1 … 40       41 … 90      91 … 95 | truncate(60)  60 … 70
    remembered ^ 1, until 41 ^ 41, until 60                       ^ 60, until the end

A truncation ends what was remembered at its index and makes the next append be remembered, so a walk
never takes an entry that was truncated in a batch further on.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from typing import Final, NamedTuple

from raftkv.core.types import Index

STRIDE_BYTES: Final = 64 * 1024


class Place(NamedTuple):
    """A batch to walk from."""

    segment: int
    offset: int
    limit: Index | None
    """The walk may be believed for entries before this; None: to the end of the log."""


class SparseIndex:
    """Three columns of numbers, in order of the entries."""

    __slots__ = ("_firsts", "_must_remember", "_offsets", "_segments")

    def __init__(self) -> None:
        self._firsts = array("Q")
        self._segments = array("Q")
        self._offsets = array("Q")
        self._must_remember = True

    def appended(self, first: Index, *, segment: int, offset: int) -> None:
        """Entries from ``first`` on stand in the batch at this place."""
        if not self._must_remember and self._segments[-1] == segment and offset - self._offsets[-1] < STRIDE_BYTES:
            return
        self._firsts.append(first)
        self._segments.append(segment)
        self._offsets.append(offset)
        self._must_remember = False

    def truncated(self, first: Index) -> None:
        """This entry and all after it are gone."""
        keep = bisect_left(self._firsts, first)
        for column in (self._firsts, self._segments, self._offsets):
            del column[keep:]
        self._must_remember = True

    def begins_after(self, index: Index) -> None:
        """Entries up to this one are not asked for any more."""
        keep = max(0, bisect_right(self._firsts, index + 1) - 1)
        for column in (self._firsts, self._segments, self._offsets):
            del column[:keep]

    def reset(self) -> None:
        """All entries are gone."""
        self.truncated(Index(0))

    def place_of(self, index: Index) -> Place:
        """Where to walk from to reach an entry that is in the log."""
        at = bisect_right(self._firsts, index) - 1
        assert at >= 0, f"entry {index} was never appended"
        limit = Index(self._firsts[at + 1]) if at + 1 < len(self._firsts) else None
        return Place(self._segments[at], self._offsets[at], limit)
