"""The next segment, made ready before it is needed.

Told: a directory and a size. Tells: a file that has its room, most often of zeros that were really written, and
whether the disk has room for one. Zeroing 16 MiB takes tens of milliseconds, beside much else hundreds, so
``prepare`` may run in another thread than the one that writes the log: it touches only the spare's own files.

A log that is written faster than zeros does not wait for them: its next segment is room that was only reserved, which
costs each sync a little more. Only the last room, and a system that cannot reserve any, make it wait. Where a segment
is full after a few large batches zeros do not pay at all, being as much to write again: ``is_zeroed`` says so. Values
of 64 KiB went a fifth slower when the log waited and zeros were always written, and leaders took their disk for stuck.

A spare is room that the disk has already given. While there is none to be had, the log goes on in what is
left of the present segment, and the node takes no new puts (507), so that what is left serves deletes
and votes.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Final, NamedTuple

from raftkv.errors import DiskFailed
from raftkv.storage.directory import ALLOCATION_CHUNK_BYTES, Directory, File, is_disk_full

SPARE_NAME: Final = "spare"
UNFINISHED_NAME: Final = "spare.new"
USED_NAME: Final = "spare.used"
"""A segment that nobody needs any more, to be zeroed."""
RESERVED_NAME: Final = "spare.now"
"""Of one that could not be waited for."""


class Taken(NamedTuple):
    """A file that is to become a segment."""

    name: str
    file: File


class Spare:
    """At most one file in waiting."""

    __slots__ = ("_directory", "_is_ready", "_lock", "_room_is_short", "_segment_bytes", "is_zeroed")

    def __init__(self, directory: Directory, *, segment_bytes: int) -> None:
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._lock = threading.Lock()
        self.is_zeroed = True
        """Whether the next one is to be zeros that were written, or only room; one that was used is zeroed anyway."""
        self._is_ready = self._found()
        self._room_is_short = False

    @property
    def is_ready(self) -> bool:
        """There is one."""
        return self._is_ready

    @property
    def room_is_short(self) -> bool:
        """The disk was too full for a spare when it was last tried."""
        return self._room_is_short

    def takes(self, name: str, *, size_bytes: int) -> bool:
        """Whether a segment that nobody needs any more is now to become the spare; its name is gone then.

        What was written in it is zeroed before, by ``prepare``: nothing behind the end of a log is ever anything else,
        and room that the log has had it need not ask for on a full disk. No, where there is one already, or one is
        being made, or the file is of another size.
        """
        if not self._lock.acquire(blocking=False):
            return False
        try:
            if self._is_ready or self._directory.exists(USED_NAME) or size_bytes != self._segment_bytes:
                return False
            self._directory.rename(name, USED_NAME)
            return True
        finally:
            self._lock.release()

    def prepare(self) -> bool:
        """There is a spare; False, with nothing left behind, if the disk is too full for one.

        A disk that says so itself is believed: tried again and again, it would each time be filled to its
        last byte, at everybody's cost. Slow. Raises DiskFailed if the disk fails in any other way.
        """
        with self._lock:
            if not self._is_ready:
                self._is_ready = self._has_room() and self._made()
                self._room_is_short = not self._is_ready
            return self._is_ready

    @contextlib.contextmanager
    def taken(self, *, size_bytes: int) -> Iterator[Taken]:
        """The spare, or room like it, at least so long; it is renamed before this ends.

        Raises DiskFailed if there is no room. Until the end no other gets the name that the caller is about to rename.
        """
        name = SPARE_NAME if self._is_ready or not self._is_reserved() else RESERVED_NAME
        file = self._directory.open(name)
        try:
            if file.size_bytes() < size_bytes:
                file.allocate(size_bytes)
            yield Taken(name, file)
        except BaseException:
            file.close()
            raise
        if name == SPARE_NAME:
            self._is_ready = False

    def _is_reserved(self) -> bool:
        """Whether there is room under RESERVED_NAME; if not, there is a spare, for whose end this has waited."""
        if self._has_reserved():
            return True
        with self._lock:
            if not self._is_ready:
                self._make()
                self._is_ready = True
        return False

    def _has_reserved(self) -> bool:
        """No, where there is too little room beside what another thread may be making, or none can be reserved."""
        if self._directory.free_bytes() < self._segment_bytes:
            return False
        try:
            file = self._directory.create(RESERVED_NAME)
            try:
                if file.reserve(self._segment_bytes):
                    return True
            finally:
                file.close()
        except DiskFailed as error:
            if not is_disk_full(error):
                raise
        self._delete(RESERVED_NAME)
        return False

    def _has_room(self) -> bool:
        return self._directory.exists(USED_NAME) or self._directory.free_bytes() >= self._segment_bytes

    def _found(self) -> bool:
        """A spare from before is as good as a new one: it got its name after it was synced."""
        self._delete(UNFINISHED_NAME)
        self._delete(RESERVED_NAME)
        self._is_long_enough(USED_NAME)
        return self._is_long_enough(SPARE_NAME)

    def _is_long_enough(self, name: str) -> bool:
        """Whether there is such a file; one that is too short is gone."""
        if not self._directory.exists(name):
            return False
        file = self._directory.open(name)
        try:
            is_long_enough = file.size_bytes() >= self._segment_bytes
        finally:
            file.close()
        if not is_long_enough:
            self._directory.delete(name)
        return is_long_enough

    def _made(self) -> bool:
        """Whether there was room. A disk may have less than it says: a quota, the file system's own needs."""
        try:
            self._make()
        except DiskFailed as error:
            if not is_disk_full(error):
                raise
            self._delete(UNFINISHED_NAME)
            self._delete(USED_NAME)
            return False
        return True

    def _make(self) -> None:
        if self._directory.exists(USED_NAME):
            self._directory.sync()  # else the zeros could be found under the segment's own name, as damage
            name, file = USED_NAME, self._directory.open(USED_NAME)
        else:
            self._delete(UNFINISHED_NAME)
            name, file = UNFINISHED_NAME, self._directory.create(UNFINISHED_NAME)
        try:
            _zero(file)
            if self.is_zeroed or not file.reserve(self._segment_bytes):
                file.allocate(self._segment_bytes)
            file.sync()
        finally:
            file.close()
        self._directory.rename(name, SPARE_NAME)
        self._directory.sync()

    def _delete(self, name: str) -> None:
        if self._directory.exists(name):
            self._directory.delete(name)


def _zero(file: File) -> None:
    """What was written in it is zeros, synced in pieces like what is allocated."""
    size_bytes = file.size_bytes()
    for offset in range(0, size_bytes, ALLOCATION_CHUNK_BYTES):
        file.pwrite(bytes(min(ALLOCATION_CHUNK_BYTES, size_bytes - offset)), offset=offset)
        file.sync()
