"""Backups of a running node: a read round, a snapshot of what is applied then, and its file in pieces.

Told: who wants a backup, what the replica and the snapshot thread say. Tells: a source of bytes, or why there is none.
So a backup has everything that was acknowledged before it was asked for. May never know: what is in a file.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from raftkv.api.service import BackupBusy, BackupOpened, BackupOutcome
from raftkv.node.snapshots import SnapshotThread
from raftkv.outcomes import (
    Answered,
    Consistency,
    ReadOutcome,
    SnapshotOutcome,
    SnapshotRefused,
    SnapshotTaken,
    SnapshotWhy,
)
from raftkv.replica import Replica
from raftkv.storage.snapshots import SnapshotReader

BACKUPS_MAX: Final = 2
"""At once: each keeps a file from being deleted, and they share the rate with followers that are sent snapshots."""

BackupDone = Callable[[BackupOutcome], None]


class Backups:
    """Those of one node. Belongs to the event loop."""

    def __init__(
        self, replica: Replica, thread: SnapshotThread, has_work: Callable[[], None], *, barrier: object
    ) -> None:
        """``barrier`` is a query that costs nothing."""
        self._replica, self._thread, self._has_work, self._barrier = replica, thread, has_work, barrier
        self._count = 0

    def open(self, done: BackupDone, *, wait_ms: int) -> None:
        """``done`` is called once, with a source that has to be closed, or with why there is none."""
        if self._count >= BACKUPS_MAX:
            done(BackupBusy())
            return
        self._count += 1
        self._replica.read(self._barrier, Consistency.LINEARIZABLE, partial(self._confirmed, done, wait_ms))
        self._has_work()

    def _confirmed(self, done: BackupDone, wait_ms: int, outcome: ReadOutcome) -> None:
        """What was acknowledged before is applied here now, if it was."""
        if not isinstance(outcome, Answered):
            self._ended()
            done(outcome)
            return
        self._replica.snapshots.ask(partial(self._taken, done), wait_us=wait_ms * 1000)
        self._has_work()

    def _taken(self, done: BackupDone, outcome: SnapshotOutcome) -> None:
        if isinstance(outcome, SnapshotTaken):
            self._thread.open_backup(partial(self._opened, done))
        else:
            self._ended()
            done(outcome)

    def _opened(self, done: BackupDone, reader: SnapshotReader | None) -> None:
        if reader is None:
            self._ended()
            done(SnapshotRefused(SnapshotWhy.FAILED, "the snapshot that was just taken does not read back"))
        else:
            done(BackupOpened(reader.stored.id.index, FileSource(self._thread, reader, self._ended)))

    def _ended(self) -> None:
        self._count -= 1


class FileSource:
    """A snapshot's file on its way to a client; satisfies ``raftkv.api.responses.Source``."""

    def __init__(self, thread: SnapshotThread, reader: SnapshotReader, ended: Callable[[], None]) -> None:
        self._thread, self._reader, self._ended = thread, reader, ended
        self._offset = 0
        self._is_closed = False

    @property
    def size_bytes(self) -> int:
        """Of the whole file."""
        return self._reader.stored.id.size_bytes

    def read(self, bytes_max: int, done: Callable[[bytes], None]) -> None:
        """``done`` gets the next bytes when their turn has come."""
        self._thread.read_backup(self._reader, self._offset, bytes_max, partial(self._came, done))

    def close(self) -> None:
        """The file may be deleted, and another backup begin."""
        if not self._is_closed:
            self._is_closed = True
            self._thread.close_backup(self._reader)
            self._ended()

    def _came(self, done: Callable[[bytes], None], data: bytes) -> None:
        self._offset += len(data)
        done(data)
