"""Clients that wait: writes for their index to be applied, reads for what they need to be reached.

Told: who waits for what and until when, what was applied, what time it is. Tells each write what became of
it, exactly once; gives each read back, exactly once, to whoever can answer it or say why not. Knows no Raft
and no state machine. Pure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any

from raftkv.outcomes import Applied, Consistency, ReadOutcome, Superseded, Unknown, WriteOutcome

WriteDone = Callable[[WriteOutcome], None]
ReadDone = Callable[[ReadOutcome], None]


@dataclass(slots=True)
class WaitingWrite:
    """A write that was submitted and not answered."""

    command: bytes
    done: WriteDone
    deadline_us: int
    term: int = 0
    """Of the entry that carries it."""


class WaitingWrites:
    """Writes in the log, by index. Bounded by whoever lets them in."""

    __slots__ = ("_by_index", "_deadlines", "_overtaken", "bytes_in_flight")

    def __init__(self) -> None:
        self._by_index: dict[int, WaitingWrite] = {}
        self._overtaken: dict[int, list[WaitingWrite]] = {}
        """Truncated here in an older term, while a later write took the index: decided when that commits."""
        self._deadlines: deque[tuple[int, int]] = deque()
        self.bytes_in_flight = 0

    def __len__(self) -> int:
        if not self._overtaken:
            return len(self._by_index)
        return len(self._by_index) + sum(map(len, self._overtaken.values()))

    def add(self, writes: Sequence[WaitingWrite], *, first_index: int, term: int) -> None:
        """They stand in the log from first_index on, in this term."""
        for index, write in enumerate(writes, first_index):
            write.term = term
            self._put(index, write)
            self._deadlines.append((write.deadline_us, index))

    def applied(self, index: int, term: int, answer: Any) -> None:
        """The entry (index, term) was executed; another write that stood there never will be."""
        if self._overtaken:
            leaving = self._leaving(index)
        else:  # As nearly always: one, or nobody.
            write = self._by_index.pop(index, None)
            if write is None:
                return
            self.bytes_in_flight -= len(write.command)
            leaving = [write]
        for write in leaving:
            write.done(Applied(index, answer) if write.term == term else Superseded())

    def passed(self, index: int) -> None:
        """An entry that is no command was committed at ``index``."""
        for write in self._leaving(index):
            write.done(Superseded())

    def expire(self, now_us: int) -> None:
        """Whoever's deadline has come gets Unknown."""
        while self._deadlines and self._deadlines[0][0] <= now_us:
            _, index = self._deadlines.popleft()
            for write in self._leaving(index):
                if write.deadline_us > now_us:
                    self._put(index, write)
                else:
                    write.done(Unknown())

    def give_up(self, *, through: int | None = None) -> None:
        """Nobody can answer them from here, up to that index or (None) at all: their entries may commit, or not."""
        for index in [index for index in self._by_index if through is None or index <= through]:
            for write in self._leaving(index):
                write.done(Unknown())

    def next_deadline_us(self) -> int | None:
        """When to look again; an answered write's deadline may still stand here."""
        while self._deadlines and self._deadlines[0][1] not in self._by_index:
            self._deadlines.popleft()
        return self._deadlines[0][0] if self._deadlines else None

    def _leaving(self, index: int) -> list[WaitingWrite]:
        write = self._by_index.pop(index, None)
        if write is None:
            return _NOBODY
        leaving = [write]
        if self._overtaken:
            leaving = [*self._overtaken.pop(index, ()), write]
        for one in leaving:
            self.bytes_in_flight -= len(one.command)
        return leaving

    def _put(self, index: int, write: WaitingWrite) -> None:
        earlier = self._by_index.get(index)
        if earlier is not None:
            self._overtaken.setdefault(index, []).append(earlier)
        self._by_index[index] = write
        self.bytes_in_flight += len(write.command)


_NOBODY: list[WaitingWrite] = []


@dataclass(slots=True)
class WaitingRead:
    """A read that was asked and not answered."""

    query: Any
    consistency: Consistency
    done: ReadDone
    deadline_us: int
    min_index: int = 0
    max_staleness_ms: int | None = None
    """The two bounds of a stale read."""
    lease_term: int = 0
    """It is to be answered on the leader's lease of this term, if that still holds then (0: on none) …"""
    lease_ran_out: bool = False
    """… which it did not; now it waits for a round."""


@dataclass(slots=True)
class WaitingReads:
    """Reads that know how far something must have come before they can be answered."""

    _heap: list[tuple[int, int, list[WaitingRead]]] = field(default_factory=list)
    _count: int = 0
    _look_us: int | None = None
    """No deadline comes before this: between two deadlines, nobody looks through all that wait."""

    def add(self, reads: list[WaitingRead], *, need: int) -> None:
        """They may be answered once ``need`` is reached."""
        self._count += 1
        heappush(self._heap, (need, self._count, reads))
        first_us = min(read.deadline_us for read in reads)
        self._look_us = first_us if self._look_us is None else min(self._look_us, first_us)

    def reached(self, far: int) -> list[WaitingRead]:
        """Those who may be answered now, in the order of their needs. They wait no more."""
        ready: list[WaitingRead] = []
        while self._heap and self._heap[0][0] <= far:
            ready.extend(heappop(self._heap)[2])
        return ready

    def leave(self) -> list[WaitingRead]:
        """All of them. Nobody waits any more."""
        left = [read for _, _, reads in self._heap for read in reads]
        self._heap, self._look_us = [], None
        return left

    def expire(self, now_us: int) -> list[WaitingRead]:
        """Those whose deadline has come. They wait no more."""
        if self._look_us is None or now_us < self._look_us:
            return []
        expired = [read for _, _, reads in self._heap for read in expire_reads(reads, now_us)]
        self._heap = [entry for entry in self._heap if entry[2]]
        self._heap.sort(key=lambda entry: entry[:2])
        self._look_us = min((read.deadline_us for _, _, reads in self._heap for read in reads), default=None)
        return expired

    def next_deadline_us(self) -> int | None:
        """When to look again; an answered read's deadline may still stand here."""
        return self._look_us if self._heap else None

    def __len__(self) -> int:
        return sum(len(reads) for _, _, reads in self._heap)


def expire_reads(reads: list[WaitingRead], now_us: int) -> list[WaitingRead]:
    """Takes those whose deadline has come out of the list."""
    expired = [read for read in reads if read.deadline_us <= now_us]
    if expired:
        reads[:] = [read for read in reads if read.deadline_us > now_us]
    return expired
