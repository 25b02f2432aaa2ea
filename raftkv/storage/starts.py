"""The segments that are there, and from which of them on the log could be read if those before were gone.

Told: segments and operations, in their order. Tells: which segments may be dropped once a snapshot holds an entry.
Pure.

A segment's header says all that recovery needs of what was before it, but for the term of the last entry before its
first. So a log whose older segments are gone begins right *after* the first entry of the oldest that is left. That
needs this entry to be there, once and for all: one that was taken back again later would leave nobody knowing what was
in force before it. Such a segment never is the oldest; a later one will be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from raftkv.core.effects import LogBase
from raftkv.core.types import Index
from raftkv.storage.format import SegmentHeader
from raftkv.storage.operations import Operation, Truncate

NOTHING: Final = Index(0)


@dataclass(slots=True)
class Start:
    """One segment."""

    number: int
    size_bytes: int
    needs: Index | None
    """The log can be read from here on once a snapshot holds this entry, with which it then begins (0: the log's own
    base says where); None: never."""


class Starts:
    """All segments, oldest first."""

    __slots__ = ("_starts",)

    def __init__(self) -> None:
        self._starts: list[Start] = []

    @property
    def size_bytes(self) -> int:
        """What all of them take on the disk."""
        return sum(start.size_bytes for start in self._starts)

    @property
    def oldest(self) -> int:
        """Its number."""
        return self._starts[0].number

    def add(self, header: SegmentHeader, *, size_bytes: int) -> None:
        """The newest segment begins."""
        begins_at_base = header.first_index == header.base.index + 1
        needs = NOTHING if begins_at_base else header.first_index
        self._starts.append(Start(header.number, size_bytes, needs))

    def apply(self, operation: Operation) -> None:
        """Follows the log."""
        match operation:
            case Truncate(first):
                for start in self._starts:
                    if start.needs is not None and start.needs >= first:
                        start.needs = None
            case LogBase():
                for start in self._starts:
                    if start.needs is not None:
                        start.needs = NOTHING
            case _:
                pass

    def droppable(self, held: Index) -> tuple[list[Start], Index]:
        """The oldest segments that nobody needs when a snapshot holds what is up to ``held``, which is in the log.

        And the entry after which the log begins without them (0: where its base says).
        """
        for at in range(len(self._starts) - 1, 0, -1):
            needs = self._starts[at].needs
            if needs is not None and needs <= held:
                return self._starts[:at], needs
        return [], NOTHING

    def dropped(self, start: Start) -> None:
        """It is gone."""
        self._starts.remove(start)
