"""The write-ahead log: entries, term and vote in one order, one batch and one sync for all that gathered.

Told: the core's ``DiskWrite``s, by one thread. Tells: when they are on stable storage (by returning), and
entries read back. What it raises ends it: after a failed write or sync nobody knows what is on the disk,
so nothing is tried again, and only the next start's recovery tells the truth (faults 55, 56).

Its life: recovery reads the log (recovery.py); the last batch, which nothing proves, is written once more
and synced, what stands behind it is zeroed, a mark follows; then batches; at the end of a segment the spare
gets a header with all that is in force, is synced, renamed into place, and the directory synced. So a
segment has its name only once its header is on stable storage, and that header proves all before it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from raftkv.core.effects import DiskWrite, LogBase
from raftkv.core.types import Index, Ticket
from raftkv.errors import DataDamaged, DiskFailed
from raftkv.storage.choosing import Choice, choose
from raftkv.storage.directory import Directory, File, path_of
from raftkv.storage.format import BLOCK_BYTES, NO_CONFIGURATION, SegmentHeader, batch_bytes, encode_batch, salt_of
from raftkv.storage.identity import Identity, IdentityFile
from raftkv.storage.operations import Operation, Run, encode, operations_of, table_of
from raftkv.storage.reading import read_entries
from raftkv.storage.recovery import TAIL_BYTES_MAX, Recovered, Scan, Tail, remember, scan
from raftkv.storage.segments import Segment, segment_name, segment_numbers
from raftkv.storage.snapshots import Snapshots, StoredSnapshot
from raftkv.storage.spare import Spare
from raftkv.storage.sparse_index import SparseIndex
from raftkv.storage.standing import Inconsistent, Standing
from raftkv.storage.starts import Starts

SEGMENT_BYTES: Final = 16 * 1024 * 1024
BATCH_BYTES_MAX: Final = 8 * 1024 * 1024
ZEROED_FOR_BATCHES: Final = 64
"""A segment that fewer filled, of 256 KiB and more, is followed by one that is not zeroed first: what that would save
of their syncs is less than it costs."""


class _Draft(NamedTuple):
    """The makings of one batch; one without operations is a mark."""

    operations: list[Operation]
    parts: list[bytes]


class Wal:
    """The open log. All of it but ``prepare_spare`` belongs to one thread."""

    __slots__ = (
        "_batch_bytes_max",
        "_batches_count",
        "_directory",
        "_failure",
        "_file",
        "_identity",
        "_index",
        "_next_batch",
        "_offset",
        "_salt",
        "_segment",
        "_size_bytes",
        "_snapshots",
        "_spare",
        "_standing",
        "_starts",
        "_unmarked",
    )

    def __init__(
        self,
        directory: Directory,
        identity: IdentityFile,
        spare: Spare,
        snapshots: Snapshots | None,
        found: Scan,
        *,
        batch_bytes_max: int,
    ) -> None:
        """Use ``open``."""
        self._directory, self._identity, self._spare, self._snapshots = directory, identity, spare, snapshots
        self._salt = salt_of(identity.identity.incarnation)
        self._batch_bytes_max = batch_bytes_max
        self._standing, self._index, self._starts = found.standing, found.index, found.starts
        self._segment, self._offset, self._next_batch = found.segment, found.offset, found.next_batch
        self._file = directory.open(segment_name(found.segment))
        self._size_bytes = self._file.size_bytes()
        self._unmarked = found.last_batch is not None and not found.last_batch.header.is_mark
        self._batches_count = ZEROED_FOR_BATCHES
        """In this segment; as if it had many where nobody counted."""
        self._failure: DiskFailed | None = None

    @classmethod
    def open(
        cls,
        directory: Directory,
        identity: IdentityFile,
        *,
        snapshots: Snapshots | None = None,
        segment_bytes: int = SEGMENT_BYTES,
        batch_bytes_max: int = BATCH_BYTES_MAX,
        tail_bytes_max: int = TAIL_BYTES_MAX,
    ) -> tuple[Wal, Recovered]:
        """The log, ready to be written on, and what it says; made if the directory is fresh.

        With the snapshot that it goes on from, if the directory has any; ``choosing.py`` tells which, and when the log
        starts again after it. Raises DataDamaged, WrongIdentity or UnknownFormat with nothing changed, DiskFailed if
        the disk fails.
        """
        found = None
        if segment_numbers(directory):
            found = scan(directory, identity.identity, tail_bytes_max=tail_bytes_max)
            if found.left and snapshots is None:
                path = path_of(directory, segment_name(found.left[-1] + 1))
                raise DataDamaged(path=path, offset=0, why="the segment is missing between others")
        elif identity.identity.log_begun:
            path = path_of(directory, segment_name(1))
            raise DataDamaged(path=path, offset=0, why="the log is gone, and this node has had one")
        spare = Spare(directory, segment_bytes=segment_bytes)
        standing = Standing() if found is None else found.standing
        path = path_of(directory, segment_name(1 if found is None else found.starts.oldest))
        choice = choose(standing, snapshots, path=path)
        if found is None:
            found = _fresh(directory, identity.identity, spare, tail_bytes_max=tail_bytes_max)
        identity.store_log_begun()
        wal = cls(directory, identity, spare, snapshots, found, batch_bytes_max=batch_bytes_max)
        try:
            notes = wal._settle(found) + wal._go_on_from(choice, found)
            return wal, _recovered(found, identity.identity, snapshot=choice.snapshot, notes=notes)
        except BaseException:
            wal.close()
            raise

    @property
    def room_is_short(self) -> bool:
        """The disk has no room for another segment: take no more puts; votes, deletes and reads go on."""
        return self._spare.room_is_short

    @property
    def wants_spare(self) -> bool:
        """``prepare_spare`` has something to do."""
        return not self._spare.is_ready

    @property
    def is_unmarked(self) -> bool:
        """``mark`` has something to do."""
        return self._unmarked

    @property
    def last_index(self) -> Index:
        """The newest entry's."""
        return self._standing.last_index

    @property
    def log_bytes(self) -> int:
        """What the segments take on the disk, the spare not counted."""
        return self._starts.size_bytes

    def prepare_spare(self) -> bool:
        """The next segment is ready; False if the disk is too full, which ``room_is_short`` then says.

        Slow, and the one method that may be called from another thread, also while this one writes. To be
        called whenever ``wants_spare``; while ``room_is_short``, now and then: that is how it ends.
        """
        with self._ending_at_failure():
            return self._spare.prepare()

    def write(self, writes: Sequence[DiskWrite]) -> None:
        """All of it is on stable storage: one batch, one write, one fdatasync for all that gathered.

        What is larger than a batch may be is cut into several, each synced before the next is written.
        Raises DiskFailed, now and at every later call.
        """
        with self._ending_at_failure():
            for draft in self._drafts(writes):
                self._write_batch(draft)

    def mark(self) -> None:
        """Everything up to now can be told from a torn write for ever. Does nothing where that is so already.

        The mark is a batch without content that says which batch is synced, and it is synced itself, like
        any other. Were it not, and the next batch written behind it, a crash could keep that one and lose the
        mark: a hole with a later batch behind it, which recovery must take for damage.
        """
        if self._unmarked:
            with self._ending_at_failure():
                self._put(_Draft([], []), [], [])

    def read(self, first: Index, last: Index, *, bytes_max: int) -> list[bytes]:
        """The frames from ``first`` to ``last``, ending with the one that reaches ``bytes_max``.

        At least one if ``first`` is in the log; none if it is not (any more). Raises DataDamaged if what was
        written does not read back.
        """
        with self._ending_at_failure():
            last = min(last, self._standing.last_index)
            begin = self._standing.begin
            assert begin is not None
            if not begin.index < first <= last:
                return []
            return read_entries(self._directory, self._index, first=first, last=last, bytes_max=bytes_max)

    def trim(self, through: Index, *, segments_max: int | None = None) -> bool:
        """Whole segments that hold nothing but entries up to ``through``, which a snapshot holds, are gone.

        Fewer go where the snapshots that ``open`` was given need more of the log. What ``read`` is asked for from
        then on may be gone too. Costs several milliseconds for each segment; whether more than ``segments_max`` could
        have gone: then it is to be called again.
        """
        with self._ending_at_failure():
            held = min(through, self._standing.last_index)
            if self._snapshots is not None:
                held = min(held, self._snapshots.trim_limit)
            starts, index = self._starts.droppable(held)
            begin = self._standing.begin
            assert begin is not None
            if index > begin.index:
                self._standing.begin_after(index)
                self._index.begins_after(index)
            later = [] if segments_max is None else starts[:-segments_max]
            for start in reversed(starts[len(later) :]):
                self._drop(start.number, size_bytes=start.size_bytes)
                self._starts.dropped(start)
            return bool(later)

    def close(self) -> None:
        """Nothing is open any more. Writes no mark: a clean stop calls ``mark`` before."""
        self._file.close()

    @contextlib.contextmanager
    def _ending_at_failure(self) -> Iterator[None]:
        """A failed fsync is never retried: the kernel may have dropped what it could not write (faults 55)."""
        if self._failure is not None:
            raise self._failure
        try:
            yield
        except DiskFailed as failure:
            self._failure = failure
            raise

    def _drafts(self, writes: Sequence[DiskWrite]) -> Iterator[_Draft]:
        draft, draft_bytes = _Draft([], []), 0
        for operation in operations_of(writes, append_bytes_max=self._batch_bytes_max):
            parts = encode(operation)
            parts_bytes = sum(map(len, parts))
            if draft.operations and draft_bytes + parts_bytes > self._batch_bytes_max:
                yield draft
                draft, draft_bytes = _Draft([], []), 0
            draft.operations.append(operation)
            draft.parts.extend(parts)
            draft_bytes += parts_bytes
        if draft.operations:
            yield draft

    def _write_batch(self, draft: _Draft) -> None:
        runs, checksums = table_of(draft.operations)
        body_bytes = sum(map(len, draft.parts))
        size_bytes = batch_bytes(run_count=len(runs), entry_count=len(checksums), body_bytes=body_bytes)
        # A block stays free at the end of each segment, so that a mark never has to wait for a new one.
        if self._offset + size_bytes + BLOCK_BYTES > self._size_bytes:
            self._roll(room_bytes=size_bytes + BLOCK_BYTES)
        try:
            for operation in draft.operations:
                self._standing.apply(operation)
                self._starts.apply(operation)
                remember(self._index, operation, segment=self._segment, offset=self._offset)
        except Inconsistent as error:
            raise AssertionError(f"the core wrote what no Raft node may: {error}") from error
        self._put(draft, runs, checksums)

    def _put(self, draft: _Draft, runs: list[Run], checksums: list[bytes]) -> None:
        batch = encode_batch(
            segment=self._segment,
            number=self._next_batch,
            runs=runs,
            checksums=checksums,
            parts=draft.parts,
            salt=self._salt,
        )
        self._file.pwrite(batch, offset=self._offset)
        self._file.sync_data()
        self._offset += len(batch)
        self._next_batch += 1
        self._batches_count += 1
        self._unmarked = bool(draft.operations)

    def _roll(self, *, room_bytes: int) -> None:
        """The log goes on in a new segment."""
        header = _header(
            self._identity.identity, self._standing, number=self._segment + 1, first_batch=self._next_batch
        )
        self._spare.is_zeroed = self._batches_count >= ZEROED_FOR_BATCHES
        self._batches_count = 0
        file, self._offset = _begin_segment(self._directory, self._spare, header, room_bytes=room_bytes)
        self._file.close()
        self._file, self._segment, self._size_bytes = file, header.number, file.size_bytes()
        self._starts.add(header, size_bytes=self._size_bytes)
        self._unmarked = False

    def _drop(self, number: int, *, size_bytes: int) -> None:
        """A segment that nobody needs is gone, for good, and all later ones that nobody needs went before it.

        From the newest to the oldest, for not every one may be the first that a start reads (``starts.py``): after a
        crash the gap tells where the log begins.
        """
        name = segment_name(number)
        if not self._spare.takes(name, size_bytes=size_bytes):
            self._directory.delete(name)
        self._directory.sync()

    def _go_on_from(self, choice: Choice, found: Scan) -> list[str]:
        """The log and the chosen snapshot fit together, durably; snapshots that nobody needs are gone."""
        notes = list(choice.notes)
        for number in reversed(found.left):
            self._drop(number, size_bytes=0)
        if choice.snapshot is not None and choice.resets_log:
            base = choice.snapshot.meta.base
            notes.append(f"the log starts again after entry {base.index}, with the snapshot that ends there")
            vote = (base.term, None) if base.term > self._standing.term else None
            self.write([DiskWrite(Ticket(0), vote=vote, base=base)])
            found.tail.apply(base)
        if self._snapshots is not None:
            self._snapshots.prune()
        return notes

    def _settle(self, found: Scan) -> list[str]:
        """What was recovered is on stable storage, and nothing stands behind it; tells what was cut.

        The last batch may only be in the system's cache: after a kill it was never synced, and after a failed
        sync the cache calls it clean although the disk may not have it, so that no later sync would write
        it. Therefore it is written again, the same bytes to the same place.
        """
        notes: list[str] = []
        if found.last_batch is not None:
            offset, size_bytes = found.last_batch.offset, found.last_batch.header.total_bytes
            self._file.pwrite(self._file.pread(size_bytes, offset=offset), offset=offset)
        for offset, size_bytes in Segment(self._file).leftovers(self._offset):
            if not notes:
                notes.append(f"{self._file.path}: a write that was never synced was cut at byte {self._offset}")
            self._file.pwrite(bytes(size_bytes), offset=offset)
        self._file.sync()
        self._directory.sync()
        self.mark()
        return notes


def _fresh(directory: Directory, identity: Identity, spare: Spare, *, tail_bytes_max: int) -> Scan:
    """An empty log whose first segment is there."""
    standing = Standing()
    header = _header(identity, standing, number=1, first_batch=1)
    spare.prepare()
    file, offset = _begin_segment(directory, spare, header, room_bytes=BLOCK_BYTES)
    log_bytes = file.size_bytes()
    file.close()
    tail = Tail(tail_bytes_max, last_index=standing.last_index)
    starts = Starts()
    starts.add(header, size_bytes=log_bytes)
    return Scan(standing, tail, SparseIndex(), starts, segment=1, offset=offset)


def _header(identity: Identity, standing: Standing, *, number: int, first_batch: int) -> SegmentHeader:
    configuration_index, configuration = standing.configurations[-1]
    return SegmentHeader(
        number=number,
        first_batch=first_batch,
        size_bytes=0,
        cluster_id=identity.cluster_id,
        node_id=identity.node_id,
        incarnation=identity.incarnation,
        term=standing.term,
        voted_for=standing.voted_for,
        base=standing.base,
        first_index=Index(standing.last_index + 1),
        configuration_index=configuration_index,
        configuration=configuration,
    )


def _begin_segment(directory: Directory, spare: Spare, header: SegmentHeader, *, room_bytes: int) -> tuple[File, int]:
    """The new segment, its header and its name on stable storage, and where its first batch goes.

    The header is synced before the file gets its name: a segment with a bad header is damaged, never torn.
    """
    header_bytes = len(header.encode())
    with spare.taken(size_bytes=header_bytes + room_bytes) as taken:
        file = taken.file
        file.pwrite(replace(header, size_bytes=file.size_bytes()).encode(), offset=0)
        file.sync()
        directory.rename(taken.name, segment_name(header.number))
        directory.sync()
    return file, header_bytes


def _recovered(found: Scan, identity: Identity, *, snapshot: StoredSnapshot | None, notes: list[str]) -> Recovered:
    standing = found.standing
    base = standing.begin
    assert base is not None
    if base.configuration == NO_CONFIGURATION and identity.initial_configuration is not None:
        base = LogBase(base.index, base.term, identity.initial_configuration)
    return Recovered(
        term=standing.term,
        voted_for=standing.voted_for,
        base=base,
        term_runs=list(standing.term_runs),
        last_index=standing.last_index,
        tail=list(found.tail.frames),
        tail_first=found.tail.first,
        configurations=standing.configurations[1:],
        snapshot=snapshot,
        notes=notes,
    )
