"""Snapshots' files for reading: their names, headers, blocks, and the proof of the whole.

Told: a directory or an open file, and which snapshot it should be. Tells: what it stands for, its blocks, or
DataDamaged with path and offset. Writes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from raftkv.core.types import ClusterId, Index, SnapshotId, Term
from raftkv.errors import DataDamaged, UnknownFormat, WrongIdentity
from raftkv.storage.directory import Directory, File
from raftkv.storage.format import BadBytes, OtherFormat
from raftkv.storage.snapshot_format import (
    BLOCK_HEADER_BYTES,
    START_BYTES,
    TRAILER_BYTES,
    checksum_in,
    crc_of_header,
    decode_block_header,
    decode_header,
    extended,
    header_bytes_of,
    prove_block,
    prove_trailer,
)

SNAPSHOT_PREFIX: Final = "snapshot"
RECEIVING_PREFIX: Final = "receiving"
TEMPORARY_NAME: Final = "snapshot.new"

_NAME: Final = re.compile(r"(snapshot|receiving)-([0-9]{16,20})-([0-9]{16,20})-([0-9]{1,20})-([0-9a-f]{8})")


def snapshot_name(id: SnapshotId) -> str:
    """The file of a snapshot that is in place: names sort as indexes do."""
    return _named(SNAPSHOT_PREFIX, id)


def receiving_name(id: SnapshotId) -> str:
    """The file of a snapshot of which only the beginning is there."""
    return _named(RECEIVING_PREFIX, id)


def _named(prefix: str, id: SnapshotId) -> str:
    return f"{prefix}-{id.index:016d}-{id.term:016d}-{id.size_bytes}-{id.checksum:08x}"


def snapshots_in(directory: Directory, prefix: str = SNAPSHOT_PREFIX) -> list[SnapshotId]:
    """Which files of that kind are there, oldest first."""
    found = []
    for name in directory.names():
        match = _NAME.fullmatch(name)
        if match is not None and match[1] == prefix:
            id = SnapshotId(Index(int(match[2])), Term(int(match[3])), int(match[4]), int(match[5], 16))
            if _named(prefix, id) == name:
                found.append(id)
    return sorted(found)


class SnapshotFile:
    """An open file that is that snapshot, or of which the beginning is there."""

    __slots__ = ("_header", "blocks_offset", "file", "id", "meta")

    def __init__(self, file: File, id: SnapshotId, *, cluster_id: ClusterId | None) -> None:
        """Reads and proves the header. Raises DataDamaged, UnknownFormat or WrongIdentity if it cannot be used."""
        self.file, self.id = file, id
        try:
            self._header = self._read_header()
            self.meta = decode_header(self._header)
        except OtherFormat as error:
            raise UnknownFormat(f"{file.path}: {error}") from error
        except BadBytes as error:
            raise DataDamaged(path=file.path, offset=0, why=str(error)) from error
        self.blocks_offset = len(self._header)
        if cluster_id is not None and self.meta.cluster_id != cluster_id:
            raise WrongIdentity(f"{file.path} belongs to another cluster")
        if (self.meta.base.index, self.meta.base.term) != (id.index, id.term):
            why = f"it stands for entry {self.meta.base.index} of term {self.meta.base.term}"
            raise DataDamaged(path=file.path, offset=0, why=why)

    @classmethod
    def open(cls, directory: Directory, id: SnapshotId, *, cluster_id: ClusterId | None) -> SnapshotFile:
        """The snapshot in place; as ``__init__``, and DataDamaged if its length is not what its name says."""
        file = directory.open(snapshot_name(id))
        try:
            found = cls(file, id, cluster_id=cluster_id)
            if file.size_bytes() != id.size_bytes:
                why = f"it was {id.size_bytes} bytes long and has {file.size_bytes()}"
                raise DataDamaged(path=file.path, offset=min(id.size_bytes, file.size_bytes()), why=why)
        except BaseException:
            file.close()
            raise
        return found

    def blocks(self) -> Iterator[bytes]:
        """Every block, proved before it is handed out; at the end, the whole file. DataDamaged where it is not."""
        for _, block in self._walked():
            yield block

    def prove(self) -> None:
        """Every byte is as it was written. Raises DataDamaged."""
        for _ in self._walked():
            pass

    def sound_bytes(self) -> int:
        """How much of a file of which only the beginning is there is as it was written, in whole blocks."""
        end = self.blocks_offset
        try:
            for end, _ in self._walked():  # noqa: B007 - wanted after the loop
                pass
        except DataDamaged:
            return end
        return self.id.size_bytes

    def _walked(self) -> Iterator[tuple[int, bytes]]:
        """Where each block ends, and its data."""
        offset, blocks_count = self.blocks_offset, 0
        crc = crc_of_header(self._header)
        file_crc = extended(0, self._header)
        blocks_end = self.id.size_bytes - TRAILER_BYTES
        try:
            while offset < blocks_end:
                start = self.file.pread(BLOCK_HEADER_BYTES, offset=offset)
                header = decode_block_header(start, room_bytes=blocks_end - offset)
                data = self.file.pread(header.data_bytes, offset=offset + BLOCK_HEADER_BYTES)
                prove_block(header, data, crc_before=crc)
                crc, file_crc = header.crc, extended(extended(file_crc, start), data)
                blocks_count += 1
                offset += BLOCK_HEADER_BYTES + len(data)
                yield offset, data
            trailer = self.file.pread(TRAILER_BYTES + 1, offset=offset)
            prove_trailer(trailer, blocks_count=blocks_count, crc=crc, file_crc=file_crc, id=self.id)
        except BadBytes as error:
            raise DataDamaged(path=self.file.path, offset=offset, why=str(error)) from error

    def _read_header(self) -> bytes:
        header_bytes = header_bytes_of(self.file.pread(START_BYTES, offset=0))
        header = self.file.pread(header_bytes, offset=0)
        if len(header) < header_bytes:
            raise BadBytes("the file ends in its header")
        return header


def open_unnamed(directory: Directory, name: str) -> SnapshotFile:
    """A snapshot in a file whose name does not say which: its own header, length and last bytes do.

    Proved are the header, and nothing else yet. Raises DataDamaged or UnknownFormat.
    """
    file = directory.open(name)
    try:
        size_bytes = file.size_bytes()
        try:
            header = file.pread(header_bytes_of(file.pread(START_BYTES, offset=0)), offset=0)
            base = decode_header(header).base
        except OtherFormat as error:
            raise UnknownFormat(f"{file.path}: {error}") from error
        except BadBytes as error:
            raise DataDamaged(path=file.path, offset=0, why=str(error)) from error
        if size_bytes < len(header) + TRAILER_BYTES:
            raise DataDamaged(path=file.path, offset=size_bytes, why="the file ends before its trailer")
        checksum = checksum_in(file.pread(TRAILER_BYTES, offset=size_bytes - TRAILER_BYTES))
        return SnapshotFile(file, SnapshotId(base.index, base.term, size_bytes, checksum), cluster_id=None)
    except BaseException:
        file.close()
        raise
