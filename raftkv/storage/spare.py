"""The next segment, made ready before it is needed.

Told: a directory and a size. Tells: a file of zeros that were really written, and whether the disk has
room for one. Zeroing 16 MiB takes tens of milliseconds, so ``prepare`` may run in another thread than the
one that writes the log: it touches only the spare's own files, and a lock makes ``taken`` wait for it.

A spare is room that the disk has already given. While there is none to be had, the log goes on in what is
left of the present segment, and the node takes no new puts (507), so that what is left serves deletes
and votes.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Final

from raftkv.errors import DiskFailed
from raftkv.storage.directory import Directory, File, is_disk_full

SPARE_NAME: Final = "spare"
UNFINISHED_NAME: Final = "spare.new"


class Spare:
    """At most one file in waiting."""

    __slots__ = ("_directory", "_is_ready", "_lock", "_room_is_short", "_segment_bytes")

    def __init__(self, directory: Directory, *, segment_bytes: int) -> None:
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._lock = threading.Lock()
        self._is_ready = self._found()
        self._room_is_short = False

    @property
    def is_ready(self) -> bool:
        """The next segment need not wait for zeros."""
        return self._is_ready

    @property
    def room_is_short(self) -> bool:
        """The disk was too full for a spare when it was last tried."""
        return self._room_is_short

    def prepare(self) -> bool:
        """There is a spare; False, with nothing left behind, if the disk is too full for one.

        A disk that says so itself is believed: tried again and again, it would each time be filled to its
        last byte, at everybody's cost. Slow. Raises DiskFailed if the disk fails in any other way.
        """
        with self._lock:
            if not self._is_ready:
                self._is_ready = self._directory.free_bytes() >= self._segment_bytes and self._made()
                self._room_is_short = not self._is_ready
            return self._is_ready

    @contextlib.contextmanager
    def taken(self, *, size_bytes: int) -> Iterator[File]:
        """The spare, opened under its name, at least so long; it is renamed before this ends.

        Makes one if none is ready. Raises DiskFailed if there is no room. Until the end no other can be made:
        it would get the name that the caller is about to rename.
        """
        with self._lock:
            if not self._is_ready:
                self._make()
            self._is_ready = False
            file = self._directory.open(SPARE_NAME)
            try:
                if file.size_bytes() < size_bytes:
                    file.allocate(size_bytes)
                yield file
            except BaseException:
                file.close()
                raise

    def _found(self) -> bool:
        """A spare from before is as good as a new one: it got its name after its zeros were synced."""
        self._delete_unfinished()
        if not self._directory.exists(SPARE_NAME):
            return False
        file = self._directory.open(SPARE_NAME)
        try:
            is_long_enough = file.size_bytes() >= self._segment_bytes
        finally:
            file.close()
        if not is_long_enough:
            self._directory.delete(SPARE_NAME)
        return is_long_enough

    def _made(self) -> bool:
        """Whether there was room. A disk may have less than it says: a quota, the file system's own needs."""
        try:
            self._make()
        except DiskFailed as error:
            if not is_disk_full(error):
                raise
            self._delete_unfinished()
            return False
        return True

    def _make(self) -> None:
        self._delete_unfinished()
        file = self._directory.create(UNFINISHED_NAME)
        try:
            file.allocate(self._segment_bytes)
            file.sync()
        finally:
            file.close()
        self._directory.rename(UNFINISHED_NAME, SPARE_NAME)
        self._directory.sync()

    def _delete_unfinished(self) -> None:
        if self._directory.exists(UNFINISHED_NAME):
            self._directory.delete(UNFINISHED_NAME)
