"""The log as the core sees it: the term runs of all of it, the frames of the newest part.

Told: frames to append, where to truncate, where to begin anew. Tells: the term at any index, and the
frames of a range as long as they are still in memory. Knows nothing of disks: what was evicted here is
read back by whoever keeps the files.

    index   base     1 2 3 4 5 6 7 8
    term      1      1 1 2 2 2 3 3 3      runs: (1, 1) (3, 2) (6, 3)
    frames                 . . x x x x    memory begins at 5
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Final

from raftkv import frames as framing
from raftkv.core.types import Index, Term

PART_BYTES: Final = 64 * 1024
"""Of what is not in memory, the sizes of parts of about so much are known."""


class RaftLog:
    """Entries base + 1 … last_index. The entry at base itself is in a snapshot (or is the void before 1)."""

    __slots__ = (
        *("_frames", "_looked_at", "_memory_bytes", "_memory_first", "_run_firsts", "_run_terms", "_sizes"),
        *("base_index", "base_term"),
    )

    def __init__(
        self,
        *,
        base_index: Index = Index(0),
        base_term: Term = Term(0),
        term_runs: Sequence[tuple[Index, Term]] = (),
        memory_first: Index | None = None,
        frames: Sequence[bytes] = (),
    ) -> None:
        self.base_index = base_index
        self.base_term = base_term
        self._run_firsts = [first for first, _ in term_runs]
        self._run_terms = [term for _, term in term_runs]
        self._memory_first = base_index + 1 if memory_first is None else memory_first
        self._frames = list(frames)
        self._memory_bytes = sum(map(len, self._frames))
        self._sizes: list[tuple[int, int, int]] = []
        """First and last entry, and bytes, of each part of what was let go or read, in order, before memory."""
        self._looked_at = (0, 0)
        """So many of the oldest frames held, with so many bytes, might go, and are too few to."""

    @property
    def last_index(self) -> Index:
        """Of the newest entry; base_index when there is none."""
        return Index(self._memory_first + len(self._frames) - 1)

    @property
    def last_term(self) -> Term:
        """Of the newest entry; base_term when there is none."""
        return self._run_terms[-1] if self._run_terms else self.base_term

    @property
    def memory_bytes(self) -> int:
        """Of the frames held."""
        return self._memory_bytes

    @property
    def memory_first(self) -> Index:
        """The oldest entry whose frame is held; one past the end when none is."""
        return Index(self._memory_first)

    @property
    def term_runs(self) -> list[tuple[Index, Term]]:
        """Where each term's entries begin."""
        return list(zip(self._run_firsts, self._run_terms, strict=True))

    def term_at(self, index: int) -> Term | None:
        """The entry's term; None where this log does not say (before base, past the end)."""
        if index == self.base_index:
            return self.base_term
        if index < self.base_index or index > self.last_index:
            return None
        return self._run_terms[bisect_right(self._run_firsts, index) - 1]

    def first_index_of_term_at(self, index: int) -> Index:
        """Where the run of equal terms that holds ``index`` begins in this log."""
        assert self.base_index < index <= self.last_index, index
        return self._run_firsts[bisect_right(self._run_firsts, index) - 1]

    def last_index_of_term(self, term: int) -> Index | None:
        """The newest entry of that very term; None when the log holds none."""
        position = bisect_right(self._run_terms, term) - 1
        if position < 0 or self._run_terms[position] != term:
            return self.base_index if term == self.base_term and term > 0 else None
        if position + 1 < len(self._run_firsts):
            return Index(self._run_firsts[position + 1] - 1)
        return self.last_index

    def before_tail(self, through: int, *, entries_max: int, bytes_max: int) -> Index:
        """The entry before the newest ones up to ``through`` that are not more than this, as far as sizes are known.

        What is not in memory counts by parts of about PART_BYTES, so that it may be so much less.
        """
        first, size = through + 1, 0
        while first > self._memory_first and through - first + 1 < entries_max:
            size += len(self._frames[first - 1 - self._memory_first])
            if size > bytes_max:
                return Index(first - 1)
            first -= 1
        for part_first, part_last, part_bytes in reversed(self._sizes):
            if part_first >= first:
                continue
            size += part_bytes
            if size > bytes_max or through - first + 1 >= entries_max or part_last < first - 1:
                break
            first = max(part_first, through - entries_max + 1)
        return Index(first - 1)

    def compact(self, through: Index) -> None:
        """The log begins after ``through`` from now on; a snapshot holds the rest."""
        base_term = self.term_at(through)
        assert base_term is not None, (self.base_index, through, self.last_index)
        assert through > self.base_index, (self.base_index, through)
        goes_on = self.term_at(through + 1) == base_term
        gone = bisect_right(self._run_firsts, through) - (1 if goes_on else 0)
        del self._run_firsts[:gone], self._run_terms[:gone]
        if self._run_firsts:
            self._run_firsts[0] = max(self._run_firsts[0], Index(through + 1))
        dropped = max(0, through + 1 - self._memory_first)
        self._memory_bytes -= sum(map(len, self._frames[:dropped]))
        del self._frames[:dropped]
        self._memory_first += dropped
        self._looked_at = (0, 0)
        self._sizes = [part for part in self._sizes if part[0] > through]
        self.base_index, self.base_term = through, base_term

    def begin_anew(self, base_index: Index, base_term: Term) -> None:
        """Nothing of the old log is left; the next entry follows this one."""
        self.base_index, self.base_term = base_index, base_term
        self._run_firsts, self._run_terms = [], []
        self._frames, self._memory_bytes, self._memory_first = [], 0, base_index + 1
        self._sizes, self._looked_at = [], (0, 0)

    def append(self, frames: Sequence[bytes]) -> None:
        """Puts entries at the end. They follow on without a gap and their terms do not fall."""
        if not frames:
            return
        term, index = self.last_term, self.last_index
        if self._run_terms and framing.term_and_index(frames[-1]) == (term, index + len(frames)):
            assert framing.term_and_index(frames[0])[1] == index + 1, f"no entry for {index + 1}"
            self._memory_bytes += sum(map(len, frames))
            self._frames.extend(frames)
            return
        for frame in frames:
            frame_term, frame_index = framing.term_and_index(frame)
            index = Index(index + 1)
            assert frame_index == index, f"entry {frame_index} appended at {index}"
            if frame_term != term or not self._run_terms:
                assert frame_term >= term, f"term falls from {term} to {frame_term} at {index}"
                term = Term(frame_term)
                self._run_firsts.append(index)
                self._run_terms.append(term)
            self._memory_bytes += len(frame)
        self._frames.extend(frames)

    def truncate_from(self, index: int) -> None:
        """Removes ``index`` and all after it."""
        assert self.base_index < index <= self.last_index, index
        while self._run_firsts and self._run_firsts[-1] >= index:
            self._run_firsts.pop()
            self._run_terms.pop()
        keep = max(0, index - self._memory_first)
        self._memory_bytes -= sum(map(len, self._frames[keep:]))
        del self._frames[keep:]
        self._memory_first = min(self._memory_first, index)
        self._looked_at = (0, 0)
        self._sizes = [(first, min(last, index - 1), size) for first, last, size in self._sizes if first < index]

    def frames_between(self, first: int, last: int, *, bytes_max: int) -> list[bytes] | None:
        """Entries first … last, cut after the one that reaches bytes_max; None: not (all) in memory any more."""
        if first < self._memory_first:
            return None
        assert last <= self.last_index, (last, self.last_index)
        start = first - self._memory_first
        found = self._frames[start : last - self._memory_first + 1]
        size = 0
        for count, frame in enumerate(found, 1):
            size += len(frame)
            if size >= bytes_max:
                return found[:count]
        return found

    def evict(self, *, bytes_max: int, through: int) -> None:
        """Drops the oldest frames beyond bytes_max, never past ``through`` (what a disk can give back).

        Does so in steps of at least an eighth, so that the list is not shifted at every append; each frame is looked
        at once, however often somebody asks while they may not go.
        """
        if self._memory_bytes <= bytes_max + bytes_max // 8:
            return
        limit = through - self._memory_first + 1
        count, freed = self._looked_at
        if count > limit or self._memory_bytes - freed <= bytes_max:
            count, freed = 0, 0
        while count < limit and self._memory_bytes - freed > bytes_max:
            freed += len(self._frames[count])
            count += 1
        if not freed or freed < bytes_max // 8:
            self._looked_at = (count, freed)
            return
        self._looked_at = (0, 0)
        self._note_sizes(self._memory_first, self._frames[:count])
        del self._frames[:count]
        self._memory_first += count
        self._memory_bytes -= freed

    def was_read(self, first: int, frames: Sequence[bytes]) -> None:
        """What memory does not hold came back from disk, in order: how large it is counts for the tail."""
        known_through = self._sizes[-1][1] if self._sizes else 0
        if frames and known_through < first and first + len(frames) <= self._memory_first:
            self._note_sizes(first, frames)

    def _note_sizes(self, first: int, frames: Sequence[bytes]) -> None:
        """Of entries after all whose sizes are known, in parts, so that the tail may end within what went together."""
        size_bytes, part_first = 0, first
        for index, frame in enumerate(frames, first):
            size_bytes += len(frame)
            if size_bytes >= PART_BYTES:
                self._sizes.append((part_first, index, size_bytes))
                size_bytes, part_first = 0, index + 1
        if size_bytes:
            self._sizes.append((part_first, first + len(frames) - 1, size_bytes))
