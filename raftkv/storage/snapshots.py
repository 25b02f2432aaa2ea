"""The snapshot files of a data directory: which there are, writing one, sending one, receiving one.

Told: what a snapshot stands for and its blocks, pieces of another node's file. Tells: which snapshots are there,
blocks of which every byte was checked, pieces of a file. Belongs to one thread; while ``write`` draws from its
iterator, that iterator may call everything else here but ``write``. Knows nothing of what is in a block.

    snapshot-INDEX-TERM-SIZE-CHECKSUM     in place: whole, and on stable storage before it got this name
    snapshot.new                          being written, or whole and not to be used yet; a restart forgets it
    receiving-INDEX-TERM-SIZE-CHECKSUM    the beginning of another node's file

The newest two are kept, and whatever a reader holds open. The older of them is there for the day on which the newest
is found damaged; the log is kept for it too (``trim_limit``), so that with it nothing is lost.

A full disk is an ordinary outcome here: the attempt leaves nothing, and may be made again. Any other failure of the
disk is final, as with the log: what reached the disk is unknown, and only the next start tells (faults 55).
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from raftkv.core.effects import LogBase
from raftkv.core.types import ClusterId, Index, SnapshotId
from raftkv.errors import DataDamaged, DataError, DiskFailed, UnknownFormat, WrongIdentity
from raftkv.storage.directory import Directory, is_disk_full, path_of
from raftkv.storage.snapshot_format import BLOCK_BYTES_MAX, SnapshotMeta
from raftkv.storage.snapshot_reading import (
    RECEIVING_PREFIX,
    TEMPORARY_NAME,
    SnapshotFile,
    receiving_name,
    snapshot_name,
    snapshots_in,
)
from raftkv.storage.snapshot_receiving import Receiving, Unusable
from raftkv.storage.snapshot_writing import discard, no_room, write_temporary

__all__ = [
    "BLOCK_BYTES_MAX",
    "RESERVE_BYTES",
    "Received",
    "SnapshotMeta",
    "SnapshotReader",
    "Snapshots",
    "StoredSnapshot",
]

RESERVE_BYTES: Final = 32 * 1024 * 1024
"""A snapshot leaves at least so much of the disk free, for the log."""
KEPT_COUNT: Final = 2


class StoredSnapshot(NamedTuple):
    """A snapshot that is in place and on stable storage."""

    id: SnapshotId
    meta: SnapshotMeta


class Received(NamedTuple):
    """What became of a piece of another node's file."""

    wanted_offset: int
    """Everything before this is there."""
    complete: LogBase | None
    """The file is whole, was checked, and is in place and on stable storage; what it stands for."""
    problem: str = ""
    """Why everything received so far was thrown away, for people; empty: it was not."""


class SnapshotReader:
    """An open snapshot that is not deleted before ``close``. Also a context manager."""

    def __init__(self, owner: Snapshots, file: SnapshotFile) -> None:
        """Use ``Snapshots.reader``."""
        self._owner, self._file, self._is_open = owner, file, True

    @property
    def stored(self) -> StoredSnapshot:
        """Which it is."""
        return StoredSnapshot(self._file.id, self._file.meta)

    def piece(self, offset: int, bytes_max: int) -> bytes:
        """The bytes of the file from there on; empty at its end. Unchecked: the receiver checks the whole."""
        with self._owner._ending_at_failure():
            return self._file.file.pread(bytes_max, offset=offset)

    def blocks(self) -> Iterator[bytes]:
        """Every block as it was given to ``write``, each checked before it is handed out; at the end, the whole.

        Raises DataDamaged at the first byte that is not as it was written.
        """
        return self._file.blocks()

    def close(self) -> None:
        """It may be deleted now."""
        if self._is_open:
            self._is_open = False
            self._file.file.close()
            self._owner._released(self._file.id)

    def __enter__(self) -> SnapshotReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Snapshots:
    """The snapshots of one directory."""

    __slots__ = (
        "_cluster_id",
        "_directory",
        "_failure",
        "_pins",
        "_prepared",
        "_proved",
        "_receiving",
        "_refused",
        "_reserve_bytes",
        "_stored",
    )

    def __init__(self, directory: Directory, *, cluster_id: ClusterId | None, reserve_bytes: int) -> None:
        """Use ``open``."""
        self._directory, self._cluster_id, self._reserve_bytes = directory, cluster_id, reserve_bytes
        self._stored: list[StoredSnapshot] = []
        """All that are believed to be sound, oldest first."""
        self._refused: dict[SnapshotId, DataError] = {}
        """Those of which something is wrong, and what."""
        self._proved: set[SnapshotId] = set()
        """Those of which every byte was read by this process, or written."""
        self._pins: Counter[SnapshotId] = Counter()
        self._receiving: Receiving | None = None
        self._prepared: StoredSnapshot | None = None
        """It is whole and on stable storage, under a name that means nothing."""
        self._failure: DiskFailed | None = None

    @classmethod
    def open(
        cls, directory: Directory, *, cluster_id: ClusterId | None, reserve_bytes: int = RESERVE_BYTES
    ) -> Snapshots:
        """What is there is known, and leftovers of what was not finished are gone. Only headers are read.

        To be handed to ``Wal.open``, which decides which of them the node goes on from. Raises DiskFailed.
        """
        opened = cls(directory, cluster_id=cluster_id, reserve_bytes=reserve_bytes)
        discard(directory, TEMPORARY_NAME)
        for id in snapshots_in(directory):
            opened._look_at(id)
        opened._discard_outrun()
        directory.sync()
        return opened

    @property
    def newest(self) -> StoredSnapshot | None:
        """The one that a start would be made from."""
        return self._stored[-1] if self._stored else None

    @property
    def stored(self) -> list[StoredSnapshot]:
        """All that are believed to be sound, oldest first."""
        return list(self._stored)

    @property
    def trim_limit(self) -> Index:
        """The log is to be kept after this, so that the snapshot before the newest can stand in for it (0: all).

        May be asked from any thread.
        """
        stored = self._stored
        return stored[-KEPT_COUNT].id.index if len(stored) >= KEPT_COUNT else Index(0)

    @property
    def candidates(self) -> list[SnapshotId]:
        """Every file that is called a snapshot, sound or not, newest first."""
        return sorted([*(each.id for each in self._stored), *self._refused], reverse=True)

    def prove(self, id: SnapshotId) -> StoredSnapshot:
        """Every byte of it is as it was written. Raises DataDamaged, UnknownFormat or WrongIdentity.

        One that is not is never offered again; it stays where it is until a newer one is in place.
        """
        if id in self._refused:
            raise self._refused[id]
        with self._ending_at_failure(), self._refusing(id):
            file = SnapshotFile.open(self._directory, id, cluster_id=self._cluster_id)
            try:
                file.prove()
            finally:
                file.file.close()
            self._proved.add(id)
            return StoredSnapshot(id, file.meta)

    def refuse(self, id: SnapshotId, why: str) -> None:
        """What is in it is of no use, though every byte of it is as it was written. As if ``prove`` had found so."""
        path = path_of(self._directory, snapshot_name(id))
        with contextlib.suppress(DataDamaged), self._refusing(id):
            raise DataDamaged(path=path, offset=0, why=why)

    def write(self, meta: SnapshotMeta, blocks: Iterable[bytes]) -> SnapshotId:
        """The snapshot is in place and on stable storage; of the older ones the newest is kept.

        If one of at least ``meta.base.index`` is in place by then, that one's id. What ``blocks`` raises passes
        through. Whatever is raised, nothing is left of the attempt, and all that was there is there. DiskFailed with
        ENOSPC (``is_disk_full``) where there is no room, or less would be left than ``reserve_bytes``.
        """
        if (newest := self._newest_from(meta.base)) is not None:
            return newest
        self.prepare(meta, blocks)
        return self.place()

    def prepare(self, meta: SnapshotMeta, blocks: Iterable[bytes]) -> None:
        """The snapshot is whole and on stable storage, but nobody goes on from it before ``place``, a start neither.

        What was prepared before and never placed is gone. Raises as ``write``.
        """
        with self._ending_at_failure():
            self._prepared = None
            id = write_temporary(self._directory, meta, blocks, reserve_bytes=self._reserve_bytes)
            self._prepared = StoredSnapshot(id, meta)

    def place(self) -> SnapshotId:
        """What was prepared is in place, as after ``write``. Raises as that, too."""
        with self._ending_at_failure():
            stored, self._prepared = self._prepared, None
            if stored is None:
                raise no_room(self._directory, TEMPORARY_NAME, "no room: one that was received took it")
            if (newest := self._newest_from(stored.meta.base)) is not None:
                discard(self._directory, TEMPORARY_NAME)
                return newest
            self._put_in_place(TEMPORARY_NAME, stored)
            return stored.id

    def forget(self) -> None:
        """What was prepared is gone, and its room free."""
        with self._ending_at_failure():
            self._prepared = None
            discard(self._directory, TEMPORARY_NAME)

    def reader(self, id: SnapshotId | None = None) -> SnapshotReader | None:
        """That snapshot or the newest, kept until the reader is closed; None: there is no such (any more).

        One that this process has neither written nor read as a whole is proved first: no follower is to be sent a
        damaged one again and again.
        """
        while True:
            wanted = self._wanted(id)
            if wanted is None:
                return None
            try:
                if wanted not in self._proved:
                    self.prove(wanted)
                with self._ending_at_failure(), self._refusing(wanted):
                    file = SnapshotFile.open(self._directory, wanted, cluster_id=self._cluster_id)
            except (DataDamaged, UnknownFormat, WrongIdentity):
                continue
            self._pins[wanted] += 1
            return SnapshotReader(self, file)

    def receive(self, id: SnapshotId, offset: int, data: bytes) -> Received:
        """A piece of that file of another node: it is written as far as it joins what is there.

        One file at a time: another ``id`` starts again. What was received survives a restart. Where there is no room,
        what can be spared goes first. Raises as ``write``.
        """
        with self._ending_at_failure():
            for stored in self._stored:
                if stored.id == id:
                    return Received(id.size_bytes, stored.meta.base)
            try:
                receiving = self._added(id, offset, data)
                if not receiving.is_whole:
                    return Received(receiving.size_bytes, None)
                meta = receiving.finish()
            except Unusable as error:
                self._drop_receiving(id)
                return Received(0, None, str(error))
            except DiskFailed as error:
                if is_disk_full(error):
                    self._drop_receiving(id)
                raise
            self._receiving = None
            self._put_in_place(receiving.name, StoredSnapshot(id, meta))
            return Received(id.size_bytes, meta.base)

    @property
    def receiving(self) -> tuple[SnapshotId, int] | None:
        """Which file is being received, and how much of it is there."""
        return None if self._receiving is None else (self._receiving.id, self._receiving.size_bytes)

    def prune(self) -> None:
        """The newest two are left, whatever is being read, and what is damaged and has no successor yet."""
        kept = {each.id for each in self._stored[-KEPT_COUNT:]} | set(self._pins)
        for id in [each.id for each in self._stored if each.id not in kept]:
            self._delete(id)
        newest = self.newest
        for id, error in list(self._refused.items()):
            is_outrun = newest is not None and id.index <= newest.id.index
            if is_outrun and isinstance(error, DataDamaged) and id not in self._pins:
                self._delete(id)
        self._discard_outrun()

    def close(self) -> None:
        """Nothing is open any more but readers."""
        if self._receiving is not None:
            self._receiving.close()
            self._receiving = None

    # ----------------------------------------------------------------------------------------- leaves

    @contextlib.contextmanager
    def _ending_at_failure(self) -> Iterator[None]:
        """A failure is final, unless it is want of room."""
        if self._failure is not None:
            raise self._failure
        try:
            yield
        except DiskFailed as failure:
            if not is_disk_full(failure):
                self._failure = failure
            raise
        if self._failure is not None:
            raise self._failure

    @contextlib.contextmanager
    def _refusing(self, id: SnapshotId) -> Iterator[None]:
        """What is wrong with that snapshot is remembered."""
        try:
            yield
        except (DataDamaged, UnknownFormat, WrongIdentity) as error:
            self._stored = [each for each in self._stored if each.id != id]
            self._proved.discard(id)
            self._refused[id] = error
            raise

    def _look_at(self, id: SnapshotId) -> None:
        with contextlib.suppress(DataDamaged, UnknownFormat, WrongIdentity), self._refusing(id):
            file = SnapshotFile.open(self._directory, id, cluster_id=self._cluster_id)
            file.file.close()
            self._stored.append(StoredSnapshot(id, file.meta))

    def _newest_from(self, base: LogBase) -> SnapshotId | None:
        newest = self.newest
        return newest.id if newest is not None and newest.id.index >= base.index else None

    def _wanted(self, id: SnapshotId | None) -> SnapshotId | None:
        if id is None:
            return None if self.newest is None else self.newest.id
        return id if any(each.id == id for each in self._stored) else None

    def _put_in_place(self, name: str, stored: StoredSnapshot) -> None:
        """A file that is whole and synced becomes a snapshot, and its name is on stable storage; then others may go."""
        try:
            self._directory.rename(name, snapshot_name(stored.id))
        except DiskFailed:
            discard(self._directory, name)
            raise
        try:
            self._directory.sync()
        except DiskFailed as failure:
            self._failure = failure
            raise
        self._refused.pop(stored.id, None)
        self._proved.add(stored.id)
        self._stored = sorted([*self._stored, stored], key=lambda each: each.id)
        self.prune()

    def _delete(self, id: SnapshotId) -> None:
        self._stored = [each for each in self._stored if each.id != id]
        self._refused.pop(id, None)
        self._proved.discard(id)
        discard(self._directory, snapshot_name(id))

    def _released(self, id: SnapshotId) -> None:
        self._pins[id] -= 1
        if not self._pins[id]:
            del self._pins[id]
            if self._failure is None:
                with self._ending_at_failure():
                    self.prune()

    def _added(self, id: SnapshotId, offset: int, data: bytes) -> Receiving:
        try:
            receiving = self._receiving_of(id)
            receiving.add(offset, data)
        except DiskFailed as error:
            if not is_disk_full(error) or not self._make_room(id):
                raise
            receiving = self._receiving_of(id)
            receiving.add(offset, data)
        return receiving

    def _make_room(self, id: SnapshotId) -> bool:
        """Whether there is room for the rest of that file now, since what it takes the place of went before it came.

        That is our own that waits to be put in place, and the older of those that are: with the newest, every byte of
        which was read, and the log, this node can start as before, should the other never come. Where all of that is
        not enough it stays.
        """
        held_bytes = 0 if self._receiving is None else self._receiving.size_bytes
        missing_bytes = id.size_bytes - held_bytes + self._reserve_bytes - self._directory.free_bytes()
        older = [each.id for each in self._stored[:-1] if each.id not in self._pins]
        waiting = [] if self._prepared is None else [self._prepared.id]
        if not 0 < missing_bytes <= sum(each.size_bytes for each in older + waiting):
            return False
        if waiting:
            self._prepared = None
            discard(self._directory, TEMPORARY_NAME)
        if self._directory.free_bytes() < id.size_bytes - held_bytes + self._reserve_bytes:
            if not self._newest_is_sound():
                return False
            for each in older:
                self._delete(each)
        return True

    def _newest_is_sound(self) -> bool:
        newest = self.newest
        if newest is not None and newest.id not in self._proved:
            with contextlib.suppress(DataDamaged, UnknownFormat, WrongIdentity):
                self.prove(newest.id)
        return newest is not None and newest.id in self._proved

    def _receiving_of(self, id: SnapshotId) -> Receiving:
        """The partial file of that snapshot, and no other is left."""
        if self._receiving is not None and self._receiving.id == id:
            return self._receiving
        if self._receiving is not None:
            self._receiving.close()
            self._receiving = None
        for other in snapshots_in(self._directory, RECEIVING_PREFIX):
            if other != id:
                discard(self._directory, receiving_name(other))
        self._receiving = Receiving(self._directory, id, cluster_id=self._cluster_id, reserve_bytes=self._reserve_bytes)
        return self._receiving

    def _drop_receiving(self, id: SnapshotId) -> None:
        self.close()
        discard(self._directory, receiving_name(id))

    def _discard_outrun(self) -> None:
        """Partial files of what is in place already, or is older, are gone."""
        newest = self.newest
        if newest is None:
            return
        for id in snapshots_in(self._directory, RECEIVING_PREFIX):
            if id.index <= newest.id.index:
                if self._receiving is not None and self._receiving.id == id:
                    self.close()
                discard(self._directory, receiving_name(id))
