"""Another node's snapshot file, of which the beginning is there.

Told: pieces of the file. Tells: how much of it is there, or why nothing of it can be used. Its name says which file it
is to become, so a restart needs nothing else to go on; what the blocks' own checksums prove of it then is kept.
"""

from __future__ import annotations

from typing import Final

from raftkv.core.types import ClusterId, SnapshotId
from raftkv.errors import DataDamaged, UnknownFormat, WrongIdentity
from raftkv.storage.directory import Directory
from raftkv.storage.format import BadBytes
from raftkv.storage.snapshot_format import START_BYTES, SnapshotMeta, header_bytes_of
from raftkv.storage.snapshot_reading import SnapshotFile, receiving_name
from raftkv.storage.snapshot_writing import SYNC_BYTES, require_room

_PIECE_BYTES: Final = 1024 * 1024


class Unusable(Exception):
    """What was received is no snapshot of ours; never leaves this room."""


class Receiving:
    """One partial file."""

    __slots__ = (
        "_cluster_id",
        "_directory",
        "_file",
        "_is_header_proved",
        "_reserve_bytes",
        "_unsynced_bytes",
        "id",
        "size_bytes",
    )

    def __init__(
        self, directory: Directory, id: SnapshotId, *, cluster_id: ClusterId | None, reserve_bytes: int
    ) -> None:
        """Goes on with what a former process left of that file, or begins. Raises DiskFailed, also for want of room."""
        self._directory, self._cluster_id, self._reserve_bytes = directory, cluster_id, reserve_bytes
        self.id = id
        self.size_bytes = self._unsynced_bytes = 0
        """The beginning that is there."""
        self._is_header_proved = False
        if directory.exists(self.name):
            self._file = directory.open(self.name)
            self._take_up()
        else:
            self._require_room()
            self._file = directory.create(self.name)

    @property
    def name(self) -> str:
        """Of the file."""
        return receiving_name(self.id)

    @property
    def is_whole(self) -> bool:
        """Every byte is there; not that they are right."""
        return self.size_bytes == self.id.size_bytes

    def add(self, offset: int, data: bytes) -> None:
        """What joins the beginning is written behind it; what lies beyond is not, and what is there already stays.

        Raises Unusable as soon as the header is there and cannot be used, DiskFailed if the disk fails or is full.
        """
        new = data[max(0, self.size_bytes - offset) : self.id.size_bytes - offset] if offset <= self.size_bytes else b""
        if not new:
            return
        self._require_room()
        self._put(new)
        if not self._is_header_proved and self._has_header():
            self._opened()
            self._is_header_proved = True

    def finish(self) -> SnapshotMeta:
        """Every byte of the file is right, and on stable storage; what it stands for. Raises Unusable or DiskFailed."""
        found = self._opened()
        try:
            found.prove()
        except DataDamaged as error:
            raise Unusable(str(error)) from error
        if self._file.size_bytes() != self.id.size_bytes:
            raise Unusable(f"{self._file.path} is {self._file.size_bytes()} bytes long")
        self._file.sync()
        self._file.close()
        return found.meta

    def close(self) -> None:
        """The file stays as it is."""
        self._file.close()

    def _take_up(self) -> None:
        """What the blocks' checksums prove of it is there, and written again; the rest is cut off.

        Written again, for after a sync that failed the system's cache shows, and calls clean, what the disk does not
        have: no later sync would write it (faults 55).
        """
        try:
            sound_bytes = self._opened().sound_bytes()
        except Unusable:
            sound_bytes = 0
        self._file.truncate(sound_bytes)
        while self.size_bytes < sound_bytes:
            self._put(self._file.pread(min(_PIECE_BYTES, sound_bytes - self.size_bytes), offset=self.size_bytes))

    def _put(self, data: bytes) -> None:
        self._file.pwrite(data, offset=self.size_bytes)
        self.size_bytes += len(data)
        self._unsynced_bytes += len(data)
        if self._unsynced_bytes >= SYNC_BYTES:
            self._file.sync_data()
            self._unsynced_bytes = 0

    def _require_room(self) -> None:
        left_bytes = self.id.size_bytes - self.size_bytes
        require_room(self._directory, self.name, size_bytes=left_bytes, reserve_bytes=self._reserve_bytes)

    def _has_header(self) -> bool:
        start = self._file.pread(START_BYTES, offset=0)
        try:
            return self.is_whole or (len(start) == START_BYTES and self.size_bytes >= header_bytes_of(start))
        except BadBytes as error:
            raise Unusable(f"{self._file.path}: {error}") from error

    def _opened(self) -> SnapshotFile:
        try:
            return SnapshotFile(self._file, self.id, cluster_id=self._cluster_id)
        except (DataDamaged, UnknownFormat, WrongIdentity) as error:
            raise Unusable(str(error)) from error
