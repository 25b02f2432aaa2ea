"""Snapshots of a node on its event loop: what the snapshot thread tells goes to the replica, and into the log.

Told: a turn's work, by the thread what became of it. Tells: the replica, people, the pump that there is something to
do. And at a start: the machine gets the state of the newest snapshot before anything is applied to it.
"""

from __future__ import annotations

import logging
from asyncio import AbstractEventLoop
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from raftkv.core.effects import SnapshotPiece, SnapshotRead, SnapshotWrite
from raftkv.core.types import ClusterId, SnapshotId
from raftkv.node.backups import Backups
from raftkv.node.logs import event
from raftkv.node.snapshots import SnapshotListener, SnapshotMeter, SnapshotThread
from raftkv.outcomes import SnapshotWhy
from raftkv.replica import Replica
from raftkv.snapshotting import BegunLoading, Restored, SnapshotWork
from raftkv.state_machine import Loading
from raftkv.storage.snapshots import Received, Snapshots, StoredSnapshot

_LOG: Final = logging.getLogger("raftkv.node")
_MIB: Final = 1024 * 1024


@dataclass(slots=True)
class KeeperShell:
    """Whom the keeper tells."""

    has_work: Callable[[], None]
    """The replica was told something: it should have a turn."""
    failed: Callable[[BaseException], None]


class SnapshotKeeper:
    """Between one replica and the files of its snapshots. Belongs to the event loop."""

    def __init__(
        self,
        snapshots: Snapshots,
        replica: Replica,
        loop: AbstractEventLoop,
        shell: KeeperShell,
        *,
        cluster_id: ClusterId,
        bytes_per_s: int,
    ) -> None:
        self._replica, self._shell = replica, shell
        listener = SnapshotListener(
            was_prepared=self._was_prepared,
            was_written=self._was_written,
            was_not_written=self._was_not_written,
            was_read=self._was_read,
            was_damaged=self._was_damaged,
            was_received=self._was_received,
            was_loaded=self._was_loaded,
            was_not_loaded=self._was_not_loaded,
            failed=shell.failed,
        )
        self._thread = SnapshotThread(snapshots, loop, listener, cluster_id=cluster_id, bytes_per_s=bytes_per_s)
        self._trouble = ""

    def backups(self, *, barrier: object) -> Backups:
        """The files for clients that want a copy."""
        return Backups(self._replica, self._thread, self._shell.has_work, barrier=barrier)

    @property
    def meter(self) -> SnapshotMeter:
        """What was written, sent and received."""
        return self._thread.meter

    def start(self) -> None:
        """The thread runs."""
        self._thread.start()

    def stop(self) -> None:
        """It does not. Waits; not for the event loop."""
        self._thread.stop()

    def submit(self, work: SnapshotWork) -> None:
        """What a turn wants done."""
        if work.load is not None:
            index = work.load.index
            _LOG.info(
                "loads the snapshot at %d that it was sent; nothing can be read here until that is done",
                index,
                extra=event("snapshot_loads", index=index),
            )
        self._thread.submit(work)

    def begin(self, restored: StoredSnapshot, loading: Loading) -> None:
        """The machine was restored at the start; what it held before goes."""
        self._thread.free(loading)
        index, size_bytes = restored.id.index, restored.id.size_bytes
        text = "begins with the snapshot at %d, of %.1f MiB"
        _LOG.info(text, index, size_bytes / _MIB, extra=event("snapshot_restored", index=index, bytes=size_bytes))

    # ----------------------------------------------------------------------------- what the thread says

    def _was_prepared(self) -> None:
        self._replica.snapshots.was_prepared()
        self._shell.has_work()

    def _was_written(self, snapshot: SnapshotId) -> None:
        self._replica.snapshots.was_written(snapshot)
        took_ms = self.meter.last_write_us // 1000
        _LOG.info(
            "has a snapshot of everything up to %d, of %.1f MiB, after %d ms",
            *(snapshot.index, snapshot.size_bytes / _MIB, took_ms),
            extra=event("snapshot_taken", index=snapshot.index, bytes=snapshot.size_bytes, duration_ms=took_ms),
        )
        self._shell.has_work()

    def _was_not_written(self, why: SnapshotWhy, text: str) -> None:
        self._replica.snapshots.was_not_written(why, text)
        if why is not SnapshotWhy.SHUTTING_DOWN:
            words = "no snapshot was taken, the log goes on growing, and another is tried later: %s"
            _LOG.warning(words, text, extra=event("snapshot_failed"))
        self._shell.has_work()

    def _was_read(self, read: SnapshotRead, piece: SnapshotPiece | None) -> None:
        self._replica.snapshot_was_read(read, piece)
        self._shell.has_work()

    def _was_damaged(self, text: str, newest: SnapshotId | None) -> None:
        self._has_trouble(text)
        self._replica.snapshots.was_damaged(newest)
        self._shell.has_work()

    def _was_received(self, write: SnapshotWrite, received: Received) -> None:
        self._replica.snapshots.receive_failure = received.problem or None
        if received.problem:
            self._has_trouble(received.problem)
        if received.complete is not None and write.snapshot.index > self._replica.snapshots.index:
            index, size_bytes = write.snapshot.index, write.snapshot.size_bytes
            text = "was sent the snapshot at %d, of %.1f MiB, and has all of it"
            _LOG.info(text, index, size_bytes / _MIB, extra=event("snapshot_received", index=index, bytes=size_bytes))
        self._replica.snapshots.was_received(write, received.wanted_offset, received.complete)
        self._shell.has_work()

    def _was_loaded(self, loaded: BegunLoading, stored: StoredSnapshot) -> None:
        if self._replica.snapshot_was_loaded(loaded, stored.meta.stamp_ms):
            took_ms = self.meter.last_load_us // 1000
            _LOG.info(
                "goes on from the snapshot at %d, loaded in %d ms",
                *(loaded.index, took_ms),
                extra=event("snapshot_loaded", index=loaded.index, duration_ms=took_ms),
            )
        self._thread.free(loaded.loading)
        self._shell.has_work()

    def _was_not_loaded(self, begun: BegunLoading) -> None:
        self._replica.snapshots.was_not_loaded(begun)
        self._thread.free(begun.loading)
        self._shell.has_work()

    def _has_trouble(self, text: str) -> None:
        """Said once, until it is something else."""
        if text != self._trouble:
            self._trouble = text
            _LOG.warning("%s", text, extra=event("snapshot_trouble"))


def restored_from(stored: StoredSnapshot | None) -> Restored | None:
    """What the replica is told of the snapshot that its machine was restored from."""
    return None if stored is None else Restored(stored.id, stored.meta.stamp_ms)


def load(snapshots: Snapshots, stored: StoredSnapshot, loading: Loading) -> None:
    """The state of this snapshot is in; in a thread of its own, before the node takes part. Raises DataDamaged."""
    reader = snapshots.reader(stored.id)
    assert reader is not None, "nobody deletes what the log was just opened with"
    with reader:
        for block in reader.blocks():
            loading.add(block)
