"""What the log on disk says at a start. Reads everything, changes nothing.

Told: a directory and whose it should be. Tells: what the log amounts to and where to write on, or
DataDamaged with path and offset. Never guesses, never cuts.

**Torn or damaged.** Reading ends at the first batch that is not whole. Batch n+1 was written only after the
sync of n had returned, so if anything further on says that n was synced (a batch behind it, if only its
header is sound; a mark; the header of a later segment), then n was whole once and is damaged now. Nothing
is cut then, for what would be cut was promised to others. If nothing says so, it is a write that the
machine died in: nobody was promised it, and the writer cuts it (faults 52, 53).

One case cannot be told apart by anybody: damage to the very last batch before a mark was written behind
it looks exactly like a torn write. It is cut. The mark follows after 100 ms of idleness, at a clean stop,
at every start, and with every further batch. (And a newest segment that somebody deleted leaves no trace.)
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from raftkv.core.effects import LogBase
from raftkv.core.types import Configuration, Index, NodeId, Term
from raftkv.errors import DataDamaged, WrongIdentity
from raftkv.storage.directory import Directory, path_of
from raftkv.storage.format import SegmentHeader
from raftkv.storage.identity import Identity
from raftkv.storage.operations import Append, Operation, Truncate
from raftkv.storage.segments import Batch, Segment, segment_name, segment_numbers
from raftkv.storage.snapshots import StoredSnapshot
from raftkv.storage.sparse_index import SparseIndex
from raftkv.storage.standing import Inconsistent, Standing
from raftkv.storage.starts import Starts

TAIL_BYTES_MAX: Final = 64 * 1024 * 1024


@dataclass(slots=True)
class Recovered:
    """What the node goes on from."""

    term: Term
    voted_for: NodeId | None
    base: LogBase
    """The log begins after this; at index 0 with the configuration that the identity has (or an empty one)."""
    term_runs: list[tuple[Index, Term]]
    """First index and term of each run after the base."""
    last_index: Index
    tail: list[bytes]
    """The newest frames, as many as memory is meant to hold …"""
    tail_first: Index
    """… and the index of the first of them; last_index + 1 if there is none."""
    configurations: list[tuple[Index, Configuration]]
    """Those that stand in the log after the base, with their indexes."""
    snapshot: StoredSnapshot | None = None
    """What the state machine is to be restored from; the log begins at or before its index, and goes on from it."""
    notes: list[str] = field(default_factory=list)
    """What an operator should know of: a tail that was cut."""


class Tail:
    """The newest frames, bounded in bytes."""

    __slots__ = ("_bytes", "_bytes_max", "frames", "last_index")

    def __init__(self, bytes_max: int, *, last_index: Index) -> None:
        self.frames: deque[bytes] = deque()
        self.last_index = last_index
        self._bytes, self._bytes_max = 0, bytes_max

    @property
    def first(self) -> Index:
        """The index of the first frame held."""
        return Index(self.last_index - len(self.frames) + 1)

    def apply(self, operation: Operation) -> None:
        """Follows the log; what it drops at the old end it does not fetch again after a truncation."""
        match operation:
            case Append():
                self._append(operation.frames)
            case Truncate(first):
                self._truncate(first)
            case LogBase(index):
                self.frames.clear()
                self._bytes, self.last_index = 0, index
            case _:
                pass

    def begin_after(self, index: Index) -> None:
        """Nothing up to this entry is held."""
        while self.frames and self.first <= index:
            self._bytes -= len(self.frames.popleft())

    def _append(self, joined: list[bytes]) -> None:
        self.frames.extend(joined)
        self.last_index = Index(self.last_index + len(joined))
        self._bytes += sum(map(len, joined))
        while self._bytes > self._bytes_max and len(self.frames) > 1:
            self._bytes -= len(self.frames.popleft())

    def _truncate(self, first: Index) -> None:
        while self.frames and self.last_index >= first:
            self._bytes -= len(self.frames.pop())
            self.last_index = Index(self.last_index - 1)
        self.last_index = Index(first - 1)


@dataclass(slots=True)
class Scan:
    """The log as it was read, and where writing goes on."""

    standing: Standing
    tail: Tail
    index: SparseIndex
    starts: Starts = field(default_factory=Starts)
    segment: int = 0
    """The newest segment."""
    offset: int = 0
    """Its first byte after the last batch."""
    next_batch: int = 1
    last_batch: Batch | None = None
    """The last in the newest segment: the one that nothing proves to be synced."""
    left: list[int] = field(default_factory=list)
    """Segments that were being dropped when the machine died."""


def scan(directory: Directory, identity: Identity, *, tail_bytes_max: int = TAIL_BYTES_MAX) -> Scan:
    """Reads every segment; DataDamaged, WrongIdentity or UnknownFormat if the log cannot be trusted whole."""
    left, numbers = _newest_run(segment_numbers(directory))
    found: Scan | None = None
    for number in numbers:
        segment = Segment.open(directory, number)
        try:
            _check_owner(segment, identity)
            found = _begun(segment, tail_bytes_max) if found is None else _continued(directory, segment, found)
            found.starts.add(segment.header, size_bytes=segment.end)
            _read_batches(segment, found, is_newest=number == numbers[-1])
        finally:
            segment.file.close()
    assert found is not None, "the caller makes the first segment"
    found.left = left
    if found.standing.begin is not None:
        found.tail.begin_after(found.standing.begin.index)
    return found


def _newest_run(numbers: list[int]) -> tuple[list[int], list[int]]:
    """The newest segments without a gap, and those before it.

    Dropping goes from the newest of those that are not needed to the oldest, so what a crash leaves of it lies before a
    gap. Where a segment was lost otherwise the log begins behind it too, later than any snapshot allows.
    """
    run = numbers[-1:]
    for number in reversed(numbers[:-1]):
        if number != run[0] - 1:
            break
        run.insert(0, number)
    return numbers[: len(numbers) - len(run)], run


def _check_owner(segment: Segment, identity: Identity) -> None:
    header = segment.header
    if (header.node_id, header.incarnation) != (identity.node_id, identity.incarnation):
        raise WrongIdentity(f"{segment.file.path} was written by another node or incarnation, {header.node_id}")
    if identity.cluster_id is not None and header.cluster_id not in (None, identity.cluster_id):
        raise WrongIdentity(f"{segment.file.path} belongs to another cluster")


def _begun(segment: Segment, tail_bytes_max: int) -> Scan:
    """Where the log stood before the oldest segment that is left. Whether others may be gone is judged at the end."""
    header = segment.header
    if header.first_index <= header.base.index:
        why = f"entry {header.first_index} is to follow, and the log begins after entry {header.base.index}"
        raise DataDamaged(path=segment.file.path, offset=0, why=why)
    if header.number == 1 and header.first_batch != 1:
        raise DataDamaged(path=segment.file.path, offset=0, why="the first segment does not begin at the first batch")
    standing = Standing(
        term=header.term,
        voted_for=header.voted_for,
        base=header.base,
        begin=header.base if header.first_index == header.base.index + 1 else None,
        last_index=Index(header.first_index - 1),
        configurations=[(header.configuration_index, header.configuration)],
    )
    tail = Tail(tail_bytes_max, last_index=standing.last_index)
    return Scan(standing, tail, SparseIndex(), next_batch=header.first_batch)


def _continued(directory: Directory, segment: Segment, found: Scan) -> Scan:
    """The newer segment's header must say just what the older ones amount to."""
    header, standing = segment.header, found.standing
    if header.first_batch != found.next_batch:
        path = path_of(directory, segment_name(found.segment))
        why = f"batch {found.next_batch} is not whole, and {segment_name(header.number)} says that it was synced"
        raise DataDamaged(path=path, offset=found.offset, why=why)
    if facts_of(header) != facts_of_standing(standing):
        why = "the header does not say what the segments before it amount to"
        raise DataDamaged(path=segment.file.path, offset=0, why=why)
    return found


def facts_of(header: SegmentHeader) -> tuple[object, ...]:
    """What a header says of the log …"""
    return (
        header.term,
        header.voted_for,
        header.base,
        header.first_index - 1,
        header.configuration_index,
        header.configuration,
    )


def facts_of_standing(standing: Standing) -> tuple[object, ...]:
    """… and the same of a log as it stands."""
    return (standing.term, standing.voted_for, standing.base, standing.last_index, *standing.configurations[-1])


def _read_batches(segment: Segment, found: Scan, *, is_newest: bool) -> None:
    found.segment, found.offset, found.last_batch = segment.header.number, segment.batches_offset, None
    for batch in segment.batches():
        if batch.header.number != found.next_batch:
            why = f"batch {batch.header.number} stands where batch {found.next_batch} was expected"
            raise DataDamaged(path=segment.file.path, offset=batch.offset, why=why)
        _apply(segment, batch, found)
        found.offset = batch.offset + batch.header.total_bytes
        found.next_batch += 1
        found.last_batch = batch
    if is_newest:
        _refuse_damage(segment, found)


def _apply(segment: Segment, batch: Batch, found: Scan) -> None:
    try:
        for operation in batch.operations:
            found.standing.apply(operation)
            found.tail.apply(operation)
            found.starts.apply(operation)
            remember(found.index, operation, segment=segment.header.number, offset=batch.offset)
    except Inconsistent as error:
        raise DataDamaged(path=segment.file.path, offset=batch.offset, why=str(error)) from error


def remember(index: SparseIndex, operation: Operation, *, segment: int, offset: int) -> None:
    """The index knows of an operation in the batch at this place."""
    match operation:
        case Append():
            for run in operation.runs:
                index.appended(run.first, segment=segment, offset=offset)
        case Truncate(first):
            index.truncated(first)
        case LogBase():
            index.reset()
        case _:
            pass


def _refuse_damage(segment: Segment, found: Scan) -> None:
    """What was once synced is never cut (faults 53)."""
    proof = segment.proof_after(found.offset, number=found.next_batch)
    if proof is not None:
        why = f"batch {found.next_batch} is not whole, and a batch at byte {proof} says that it was synced"
        raise DataDamaged(path=segment.file.path, offset=found.offset, why=why)
