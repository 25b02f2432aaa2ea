"""A snapshot's bytes proved as they come, whoever sends them: nothing is kept of them but what is needed to go on.

Told: how long the file is, and its bytes in pieces of any size. Tells: that it is whole and which snapshot it is, or
DataDamaged at the first byte that is not as it was written. Knows no file.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Final, NamedTuple

import google_crc32c

from raftkv.core.types import SnapshotId
from raftkv.errors import DataDamaged, UnknownFormat
from raftkv.storage.format import BadBytes, OtherFormat
from raftkv.storage.snapshot_format import (
    BLOCK_HEADER_BYTES,
    START_BYTES,
    TRAILER_BYTES,
    SnapshotMeta,
    checksum_in,
    crc_of_header,
    decode_block_header,
    decode_header,
    extended,
    header_bytes_of,
    prove_trailer,
)

FIRST_BLOCK_BYTES_MAX: Final = 1024 * 1024
"""A first block up to this size is kept: a machine may say in it what the others hold."""
_PIECE_BYTES: Final = 1024 * 1024


class Proved(NamedTuple):
    """A snapshot of which every byte is as it was written."""

    id: SnapshotId
    meta: SnapshotMeta
    first_block: bytes
    """Empty where it is too large to be kept, or where there is none."""


class SnapshotProof:
    """Follows one file from its first byte to its last."""

    def __init__(self, size_bytes: int, *, path: str) -> None:
        """``path`` is what to call the file in messages."""
        self._size_bytes, self._path = size_bytes, path
        self._received_bytes = self._used_bytes = 0
        self._pending = bytearray()
        self._proved: Proved | None = None
        self._steps = self._walk()
        self._wanted_bytes = next(self._steps)

    def add(self, data: bytes) -> None:
        """The next bytes. Raises DataDamaged or UnknownFormat, and is of no use then."""
        self._received_bytes += len(data)
        if self._received_bytes > self._size_bytes:
            raise self._damaged(f"it goes on behind its {self._size_bytes} bytes")
        self._pending += data
        while self._proved is None and len(self._pending) >= self._wanted_bytes:
            self._go_on()

    def finish(self) -> Proved:
        """There are no more bytes; raises DataDamaged if there should be."""
        if self._proved is None:
            raise self._damaged(f"it ends after {self._received_bytes} of {self._size_bytes} bytes")
        return self._proved

    def _go_on(self) -> None:
        data = bytes(self._pending[: self._wanted_bytes])
        del self._pending[: self._wanted_bytes]
        try:
            wanted_bytes = self._steps.send(data)
        except StopIteration as end:
            self._proved = end.value
            return
        except OtherFormat as error:
            raise UnknownFormat(f"{self._path}: {error}") from error
        except BadBytes as error:
            raise self._damaged(str(error)) from error
        self._used_bytes += len(data)
        self._wanted_bytes = wanted_bytes

    def _walk(self) -> Generator[int, bytes, Proved]:
        """Asks for so many bytes, and is sent just these, until the file is whole."""
        start = yield START_BYTES
        header = start + (yield header_bytes_of(start) - START_BYTES)
        meta = decode_header(header)
        crc, file_crc = crc_of_header(header), extended(0, header)
        offset, blocks_count = len(header), 0
        first_block: list[bytes] = []
        blocks_end = self._size_bytes - TRAILER_BYTES
        while offset < blocks_end:
            start = yield BLOCK_HEADER_BYTES
            block = decode_block_header(start, room_bytes=blocks_end - offset)
            crc_so_far = google_crc32c.extend(crc, start[:4])
            file_crc = extended(file_crc, start)
            left_bytes = block.data_bytes
            while left_bytes:
                piece = yield min(left_bytes, _PIECE_BYTES)
                crc_so_far, file_crc = extended(crc_so_far, piece), extended(file_crc, piece)
                left_bytes -= len(piece)
                if not blocks_count and block.data_bytes <= FIRST_BLOCK_BYTES_MAX:
                    first_block.append(piece)
            if crc_so_far != block.crc:
                raise BadBytes("a block's checksum does not match")
            crc, blocks_count = block.crc, blocks_count + 1
            offset += BLOCK_HEADER_BYTES + block.data_bytes
        trailer = yield TRAILER_BYTES
        id = SnapshotId(meta.base.index, meta.base.term, self._size_bytes, checksum_in(trailer))
        prove_trailer(trailer, blocks_count=blocks_count, crc=crc, file_crc=file_crc, id=id)
        return Proved(id, meta, b"".join(first_block))

    def _damaged(self, why: str) -> DataDamaged:
        return DataDamaged(path=self._path, offset=self._used_bytes, why=why)
