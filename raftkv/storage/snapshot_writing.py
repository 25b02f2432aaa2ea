"""A snapshot's file being written: under a name that means nothing, until it is whole and synced.

Told: a directory, what the snapshot stands for, its blocks. Tells: which file it became. What it raises leaves nothing
behind. It stops before the disk is full: what is left belongs to the log.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import Final

from raftkv.core.types import SnapshotId
from raftkv.errors import DiskFailed
from raftkv.storage.directory import Directory, File, path_of
from raftkv.storage.snapshot_format import (
    TRAILER_BYTES,
    SnapshotMeta,
    block_header,
    checksum_in,
    crc_of_block,
    crc_of_header,
    encode_header,
    encode_trailer,
    extended,
)
from raftkv.storage.snapshot_reading import TEMPORARY_NAME

SYNC_BYTES: Final = 8 * 1024 * 1024
"""A file is synced in pieces of this size, so that no sync of the log waits behind a long queue."""


def require_room(directory: Directory, name: str, *, size_bytes: int, reserve_bytes: int) -> None:
    """So much may be written, and the log still has its share. Raises DiskFailed as a full disk does."""
    free_bytes = directory.free_bytes()
    if free_bytes - size_bytes < reserve_bytes:
        why = f"no room: {size_bytes} bytes are needed, {free_bytes} free, of which {reserve_bytes} are the log's"
        raise no_room(directory, name, why)


def no_room(directory: Directory, name: str, why: str) -> DiskFailed:
    """As a full disk says it."""
    return DiskFailed(path=path_of(directory, name), operation="write", cause=OSError(errno.ENOSPC, why))


def discard(directory: Directory, name: str) -> None:
    """The name is gone. After a crash it may be there again."""
    if directory.exists(name):
        directory.delete(name)


class _Sink:
    """A file that is written from its beginning on, with the checksum of all of it."""

    __slots__ = ("_directory", "_file", "_reserve_bytes", "_unsynced_bytes", "crc", "size_bytes")

    def __init__(self, directory: Directory, file: File, *, reserve_bytes: int) -> None:
        self._directory, self._file, self._reserve_bytes = directory, file, reserve_bytes
        self.size_bytes = self.crc = self._unsynced_bytes = 0

    def put(self, data: bytes) -> None:
        """Written; every few MiB what was written is synced, and the disk asked whether there is room for more."""
        self._file.pwrite(data, offset=self.size_bytes)
        self.crc = extended(self.crc, data)
        self.size_bytes += len(data)
        self._unsynced_bytes += len(data)
        if self._unsynced_bytes >= SYNC_BYTES:
            self._file.sync_data()
            self._unsynced_bytes = 0
            require_room(self._directory, TEMPORARY_NAME, size_bytes=SYNC_BYTES, reserve_bytes=self._reserve_bytes)


def write_temporary(
    directory: Directory, meta: SnapshotMeta, blocks: Iterable[bytes], *, reserve_bytes: int
) -> SnapshotId:
    """The file is whole and on stable storage, under ``TEMPORARY_NAME``; which snapshot it is.

    What ``blocks`` raises passes through. Whatever is raised, nothing is left. DiskFailed with ENOSPC also where less
    than ``reserve_bytes`` would be left of the disk.
    """
    require_room(directory, TEMPORARY_NAME, size_bytes=SYNC_BYTES, reserve_bytes=reserve_bytes)
    discard(directory, TEMPORARY_NAME)
    file = directory.create(TEMPORARY_NAME)
    try:
        id = _written(_Sink(directory, file, reserve_bytes=reserve_bytes), meta, blocks)
        file.sync()
    except BaseException:
        file.close()
        discard(directory, TEMPORARY_NAME)
        raise
    file.close()
    return id


def _written(sink: _Sink, meta: SnapshotMeta, blocks: Iterable[bytes]) -> SnapshotId:
    header = encode_header(meta)
    sink.put(header)
    crc, blocks_count = crc_of_header(header), 0
    for block in blocks:
        start = block_header(block, crc_before=crc)
        sink.put(start)
        sink.put(block)
        crc, blocks_count = crc_of_block(start), blocks_count + 1
    size_bytes = sink.size_bytes + TRAILER_BYTES
    trailer = encode_trailer(blocks_count=blocks_count, crc=crc, size_bytes=size_bytes, file_crc=sink.crc)
    sink.put(trailer)
    return SnapshotId(meta.base.index, meta.base.term, size_bytes, checksum_in(trailer))
