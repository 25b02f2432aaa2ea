"""What a node's disk holds for sure, kept in memory beside whatever stands behind it.

Told: writes, in their order. Tells: what is durable, as it was promised to the core, and what a start must find. Knows
nothing of files.
"""

from __future__ import annotations

from collections import deque

from raftkv import frames as framing
from raftkv.core.effects import DiskWrite, LogBase, LogRead
from raftkv.core.state import Saved
from raftkv.core.types import Configuration, Index, NodeId, Term


class Shadow:
    """Term, vote and entries that are on a disk, and the writes that it has not finished."""

    def __init__(self, base: LogBase) -> None:
        self.base = base
        self.vote: tuple[Term, NodeId | None] = (Term(0), None)
        self.frames: list[bytes] = []
        self.unfinished: deque[DiskWrite] = deque()
        self.emptied: list[Shadow] = []
        """What was on it each time when it was emptied: that was promised in good faith, and counts."""

    def copy(self) -> Shadow:
        """The same, without what is not finished."""
        other = Shadow(self.base)
        other.vote, other.frames = self.vote, list(self.frames)
        return other

    def was_promised(self, index: int, frame: bytes) -> bool:
        """Whether this entry is on the disk, or was when that was emptied."""
        if self.holds(index, frame):
            return True
        return any(before.was_promised(index, frame) for before in self.emptied)

    def holds(self, index: int, frame: bytes) -> bool:
        """Whether this entry is on the disk as it is now, or a snapshot has it."""
        position = index - self.base.index - 1
        return position < 0 or (position < len(self.frames) and self.frames[position] == frame)

    def apply(self, write: DiskWrite) -> None:
        """It is durable now."""
        if write.vote is not None:
            self.vote = write.vote
        if write.base is not None:
            self.base, self.frames = write.base, []
        if write.truncate_from is not None:
            del self.frames[write.truncate_from - self.base.index - 1 :]
        if write.frames:
            first = framing.term_and_index(write.frames[0])[1]
            assert first == self.base.index + len(self.frames) + 1, "a gap on disk"
            self.frames.extend(write.frames)

    def trim(self, through: int) -> None:
        """Entries up to here are gone from the log; a snapshot holds them."""
        count = through - self.base.index
        if count <= 0:
            return
        configuration = self.base.configuration
        for frame in self.frames[:count]:
            if framing.kind(frame) == framing.EntryKind.CONFIGURATION:
                configuration = Configuration.decode(framing.body(frame))
        term, index = framing.term_and_index(self.frames[count - 1])
        self.base = LogBase(Index(index), Term(term), configuration)
        del self.frames[:count]

    def term_at(self, index: int) -> int | None:
        """Of the entry there; None: there is none."""
        if index == self.base.index:
            return self.base.term
        position = index - self.base.index - 1
        return framing.term_and_index(self.frames[position])[0] if 0 <= position < len(self.frames) else None

    def joined_with(self, snapshot: LogBase | None) -> Shadow:
        """What a start must find that goes on from this snapshot: a log that does not fit to it starts again there."""
        joined = self.copy()
        if snapshot is None:
            return joined
        if joined.term_at(snapshot.index) != snapshot.term:
            joined.base, joined.frames = snapshot, []
        if snapshot.term > joined.vote[0]:
            joined.vote = (snapshot.term, None)
        return joined

    def recover(self, snapshot: LogBase | None = None) -> Saved:
        """What a start finds; a log that does not fit to the snapshot starts again there, for good."""
        joined = self.joined_with(snapshot)
        self.base, self.vote, self.frames = joined.base, joined.vote, joined.frames
        return self.saved(snapshot)

    def finish_one(self) -> DiskWrite:
        """The oldest write is durable now."""
        write = self.unfinished.popleft()
        self.apply(write)
        return write

    def read(self, read: LogRead) -> list[bytes]:
        """The frames first … last, cut as the read says."""
        found: list[bytes] = []
        size = 0
        if read.first <= self.base.index:
            return []
        for frame in self.frames[read.first - self.base.index - 1 : read.last - self.base.index]:
            found.append(frame)
            size += len(frame)
            if size >= read.bytes_max:
                break
        return found

    def saved(self, snapshot: LogBase | None = None) -> Saved:
        """What a start finds; its machine was restored from that snapshot."""
        runs: list[tuple[Index, Term]] = []
        configurations: list[tuple[Index, Configuration]] = []
        for frame in self.frames:
            term, index = framing.term_and_index(frame)
            if not runs or runs[-1][1] != term:
                runs.append((Index(index), Term(term)))
            if framing.kind(frame) == framing.EntryKind.CONFIGURATION:
                configurations.append((Index(index), Configuration.decode(framing.body(frame))))
        return Saved(
            base=self.base,
            term=self.vote[0],
            voted_for=self.vote[1],
            term_runs=runs,
            tail=list(self.frames),
            configurations=configurations,
            snapshot=snapshot,
        )
