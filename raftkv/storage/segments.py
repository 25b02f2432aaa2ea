"""The log's files for reading: names, headers, batches, and the search for what a torn tail cannot have.

Told: a directory or an open file. Tells: headers, batches and operations, or BadBytes with the reason.
Writes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from raftkv.errors import DataDamaged, UnknownFormat
from raftkv.storage.directory import Directory, File, path_of
from raftkv.storage.format import (
    BATCH_MAGIC,
    BLOCK_BYTES,
    BadBytes,
    BatchHeader,
    OtherFormat,
    SegmentHeader,
    batch_header_bytes,
    body_of,
    decode_batch_header,
    decode_segment_header,
    salt_of,
    segment_header_bytes,
)
from raftkv.storage.operations import BadBody, Operation, decode, table_of

WINDOW_BYTES: Final = 256 * 1024

_NAME = re.compile(r"log-([0-9]{16})")


def segment_name(number: int) -> str:
    """The file of a segment: names sort as numbers do."""
    return f"log-{number:016d}"


def segment_numbers(directory: Directory) -> list[int]:
    """The segments that are there, oldest first."""
    return [int(match[1]) for match in map(_NAME.fullmatch, directory.names()) if match]


class Batch(NamedTuple):
    """One batch as it was found."""

    offset: int
    header: BatchHeader
    operations: list[Operation]


class Segment:
    """An open segment, read forward through a window so that small batches cost no system call each."""

    __slots__ = ("_salt", "_window", "_window_offset", "batches_offset", "end", "file", "header")

    def __init__(self, file: File) -> None:
        """Reads and proves the header: DataDamaged or UnknownFormat if it cannot be used."""
        self.file = file
        self.end = file.size_bytes()
        self._window = b""
        self._window_offset = 0
        self.header, self.batches_offset = self._read_header()
        self._salt = salt_of(self.header.incarnation)

    @classmethod
    def open(cls, directory: Directory, number: int) -> Segment:
        """The segment of this number; DataDamaged if the file holds another."""
        file = directory.open(segment_name(number))
        try:
            segment = cls(file)
            if segment.header.number != number:
                why = f"it says that it is segment {segment.header.number}"
                raise DataDamaged(path=path_of(directory, segment_name(number)), offset=0, why=why)
        except BaseException:
            file.close()
            raise
        return segment

    def batch_at(self, offset: int) -> Batch:
        """The batch that begins there, every checksum proved; BadBytes if none does."""
        header = self.header_at(offset)
        start = offset + header.header_bytes
        body = body_of(self._bytes(offset + header.total_bytes - start, start), header)
        try:
            operations = list(decode(body))
        except BadBody as error:
            raise BadBytes(str(error)) from error
        runs, checksums = table_of(operations)
        if runs != header.runs or b"".join(checksums) != header.checksums:
            raise BadBytes("the batch's table is not of its body")
        return Batch(offset, header, operations)

    def header_at(self, offset: int) -> BatchHeader:
        """The batch header that begins there, proved by its checksum, whatever its body; BadBytes if none does."""
        header_bytes = batch_header_bytes(self._bytes(BLOCK_BYTES, offset), room_bytes=self.end - offset)
        return decode_batch_header(self._bytes(header_bytes, offset), segment=self.header.number, salt=self._salt)

    def batches(self, offset: int | None = None) -> Iterator[Batch]:
        """The batches from ``offset`` on (or all), up to the first place where there is none."""
        at = self.batches_offset if offset is None else offset
        while True:
            try:
                batch = self.batch_at(at)
            except BadBytes:
                return
            yield batch
            at += batch.header.total_bytes

    def proof_after(self, offset: int, *, number: int) -> int | None:
        """Where after ``offset`` a batch says that batch ``number`` was synced; None: nowhere.

        Its header is enough: it was only written after that sync had returned, whether or not its own body
        became whole. If the batch at ``offset`` still has its header, its body is not searched.
        """
        try:
            offset += self.header_at(offset).total_bytes
        except BadBytes:
            offset += BLOCK_BYTES
        for candidate in self._blocks_with_magic(offset):
            try:
                header = self.header_at(candidate)
            except BadBytes:
                continue
            if header.synced_through >= number:
                return candidate
        return None

    def read_anew(self) -> None:
        """What was written since the last read is seen too."""
        self._window = b""

    def leftovers(self, offset: int) -> Iterator[tuple[int, int]]:
        """Where from ``offset`` to the end something else than zeros stands: (offset, length) of each chunk."""
        while offset < self.end:
            chunk = self.file.pread(min(WINDOW_BYTES, self.end - offset), offset=offset)
            if chunk.count(0) != len(chunk):
                yield offset, len(chunk)
            offset += len(chunk)

    def _blocks_with_magic(self, offset: int) -> Iterator[int]:
        while offset < self.end:
            chunk = self.file.pread(min(WINDOW_BYTES, self.end - offset), offset=offset)
            found = chunk.find(BATCH_MAGIC)
            while found >= 0:
                if found % BLOCK_BYTES == 0:
                    yield offset + found
                found = chunk.find(BATCH_MAGIC, found + 1)
            offset += len(chunk)

    def _read_header(self) -> tuple[SegmentHeader, int]:
        try:
            header_bytes = segment_header_bytes(self._bytes(BLOCK_BYTES, 0), file_bytes=self.end)
            header = decode_segment_header(self._bytes(header_bytes, 0))
        except OtherFormat as error:
            raise UnknownFormat(f"{self.file.path}: {error}") from error
        except BadBytes as error:
            raise DataDamaged(path=self.file.path, offset=0, why=str(error)) from error
        if self.end < header.size_bytes:
            why = f"the file was {header.size_bytes} bytes long and has only {self.end}"
            raise DataDamaged(path=self.file.path, offset=self.end, why=why)
        return header, header_bytes

    def _bytes(self, size_bytes: int, offset: int) -> bytes:
        start = offset - self._window_offset
        if start < 0 or start + size_bytes > len(self._window):
            self._window = self.file.pread(max(size_bytes, WINDOW_BYTES), offset=offset)
            self._window_offset, start = offset, 0
        return self._window[start : start + size_bytes]
