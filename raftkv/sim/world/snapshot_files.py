"""What a node's snapshot thread does, without a thread: storage's own files of snapshots, over a simulated directory.

Told: what a turn wants done with snapshots. Tells: pieces of work, each to be done whenever somebody likes, but those
of one kind in their order; and what the node is to be told of each once it is done. May never know: when that is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

from raftkv.core.effects import LogBase, SnapshotPiece, SnapshotRead, SnapshotWrite
from raftkv.core.types import ClusterId, SnapshotId
from raftkv.errors import DiskFailed, SnapshotError
from raftkv.outcomes import SnapshotWhy
from raftkv.replica import Replica
from raftkv.snapshotting import BegunLoading, Restored, SnapshotWork, TakenCapture
from raftkv.state_machine import StateMachine
from raftkv.storage.directory import Directory, is_disk_full
from raftkv.storage.snapshots import SnapshotMeta, Snapshots, StoredSnapshot

RESERVE_BYTES: Final = 4_096
"""Snapshots leave so much of a disk to the log; its segments are small here."""

Told = Callable[[], None]
"""Told to the node, in its process."""
Job = Callable[[], Told]
"""Done by the thread; raises DiskFailed, or that the machine died."""


class _Abandoned(Exception):
    """Raised into the writing of a file that nobody wants any more."""


def open_snapshots(directory: Directory, cluster_id: ClusterId) -> Snapshots:
    """As a start does it."""
    return Snapshots.open(directory, cluster_id=cluster_id, reserve_bytes=RESERVE_BYTES)


def restore(machine: StateMachine, snapshots: Snapshots, stored: StoredSnapshot) -> Restored:
    """The machine holds it now."""
    reader, loading = snapshots.reader(stored.id), machine.loading()
    assert reader is not None, "nobody deletes what the log was just opened with"
    with reader:
        for block in reader.blocks():
            loading.add(block)
    loading.finish()
    return Restored(stored.id, stored.meta.stamp_ms)


@dataclass(slots=True)
class Jobs:
    """What a turn wants done, by kind: each in its order, one kind beside the other."""

    large: list[Job]
    reads: list[Job]
    pieces: list[Job]


class SnapshotFiles:
    """The snapshots of one life of a node."""

    def __init__(
        self, snapshots: Snapshots, replica: Replica, cluster_id: ClusterId, *, in_place: Callable[[LogBase], None]
    ) -> None:
        """``in_place`` hears of each snapshot that was promised to be on stable storage."""
        self.snapshots = snapshots
        self._replica, self._cluster_id, self._in_place = replica, cluster_id, in_place
        self._is_abandoned = self._is_prepared = False

    def jobs(self, work: SnapshotWork) -> Jobs:
        """Of one turn."""
        large: list[Job] = []
        if work.abandon:
            self._is_abandoned = True
        if work.abandon and self._is_prepared:
            large.append(self._forget)
        if work.place:
            large.append(self._place)
        if work.take is not None:
            self._is_abandoned = False
            large.append(partial(self._write, work.take))
        if work.load is not None:
            large.append(partial(self._load, work.load))
        return Jobs(
            large, [partial(self._read, read) for read in work.reads], [partial(self._keep, one) for one in work.writes]
        )

    def _write(self, taken: TakenCapture) -> Told:
        replica = self._replica
        meta = SnapshotMeta(self._cluster_id, taken.base, taken.stamp_ms, taken.state_hash)
        try:
            self.snapshots.prepare(meta, self._while_wanted(taken.capture.blocks()))
        except _Abandoned:
            return partial(replica.snapshots.was_not_written, SnapshotWhy.SHUTTING_DOWN, "it was given up")
        except DiskFailed as error:
            if not is_disk_full(error):
                raise
            return partial(replica.snapshots.was_not_written, SnapshotWhy.DISK_FULL, str(error))
        except SnapshotError as error:
            return partial(replica.snapshots.was_not_written, SnapshotWhy.FAILED, str(error))
        if self._is_abandoned:
            return self._forget()
        self._is_prepared = True
        return replica.snapshots.was_prepared

    def _place(self) -> Told:
        self._is_prepared = False
        try:
            written = self.snapshots.place()
        except DiskFailed as error:
            if not is_disk_full(error):
                raise
            return partial(self._replica.snapshots.was_not_written, SnapshotWhy.DISK_FULL, str(error))
        self._is_promised(written)
        return partial(self._replica.snapshots.was_written, written)

    def _forget(self) -> Told:
        self._is_prepared = False
        self.snapshots.forget()
        return partial(self._replica.snapshots.was_not_written, SnapshotWhy.SHUTTING_DOWN, "it was given up")

    def _while_wanted(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        for block in blocks:
            if self._is_abandoned:
                raise _Abandoned
            yield block

    def _is_promised(self, id: SnapshotId) -> None:
        self._in_place(next(stored.meta.base for stored in self.snapshots.stored if stored.id == id))

    def _read(self, read: SnapshotRead) -> Told:
        return partial(self._replica.snapshot_was_read, read, self._piece(read))

    def _piece(self, read: SnapshotRead) -> SnapshotPiece | None:
        reader = self.snapshots.reader(read.snapshot)
        if reader is None:
            return None
        with reader:
            return SnapshotPiece(reader.stored.id, read.offset, reader.piece(read.offset, read.bytes_max))

    def _keep(self, write: SnapshotWrite) -> Told:
        wanted_offset, complete = 0, None
        try:
            received = self.snapshots.receive(write.snapshot, write.offset, write.data)
            wanted_offset, complete = received.wanted_offset, received.complete
        except DiskFailed as error:
            if not is_disk_full(error):
                raise
        if complete is not None:
            self._in_place(complete)
        return partial(self._replica.snapshots.was_received, write, wanted_offset, complete)

    def _load(self, begun: BegunLoading) -> Told:
        for _ in begun.discarding:
            pass
        named = next((stored.id for stored in self.snapshots.stored if stored.id.index == begun.index), None)
        reader = None if named is None else self.snapshots.reader(named)
        if reader is None:
            return partial(self._replica.snapshots.was_not_loaded, begun)
        with reader:
            for block in reader.blocks():
                begun.loading.add(block)
        return partial(self._was_loaded, begun, reader.stored.meta.stamp_ms)

    def _was_loaded(self, begun: BegunLoading, stamp_ms: int) -> None:
        self._replica.snapshot_was_loaded(begun, stamp_ms)
