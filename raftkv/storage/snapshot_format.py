"""The bytes of a snapshot's file: header, blocks, trailer. Pure.

Told: what a snapshot stands for, blocks, or bytes that were read. Tells: bytes, or what they say; BadBytes where they
say nothing. Knows no file. Numbers are little-endian.

    header    magic | header bytes u32 | format u16 | cluster 16 bytes | index u64 | term u64 | stamp u64
              | hash bytes u8 | configuration bytes u32 | state hash | configuration | crc u32
    block     data bytes u32 | crc u32 | data                                                  any number of them
    trailer   magic | blocks u64 | file bytes u64 | crc of the last block u32 | crc of all that is before it u32

The crc of a block starts from the one before, the first from the header's, and covers the length and the data: so a
block is right only in its place in its file, and is known to be right before anything after it was read. The last four
bytes are the file's name among files (``SnapshotId.checksum``): every byte is under them, and nearly every one under
two checksums. Nothing is of the node that wrote it; there is no padding, so there are no bytes that nobody checks.

What the trailer says of the file's length is held against its real one, and where the trailer stands follows from
that: nothing in the data can look like an end.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final, NamedTuple

import google_crc32c

from raftkv.core.effects import LogBase
from raftkv.core.types import ClusterId, Configuration, Index, SnapshotId, Term
from raftkv.errors import MessageError
from raftkv.storage.format import BadBytes, OtherFormat

SNAPSHOT_FORMAT: Final = 2
"""1 has the same bytes, and other hashes in what the store puts into them."""
HEADER_MAGIC: Final = b"RaftkvSn"
TRAILER_MAGIC: Final = b"RkvSnEnd"
BLOCK_BYTES_MAX: Final = 64 * 1024 * 1024
"""No block is larger; nothing is allocated for one that claims to be."""
HEADER_BYTES_MAX: Final = 1024 * 1024
HASH_BYTES_MAX: Final = 255

_CRC: Final = struct.Struct("<I")
_CRC_PIECE_BYTES: Final = 1024 * 1024
"""The interpreter's lock is held while a checksum is computed: 0.13 ms for so much."""
_START: Final = struct.Struct("<8sIH")
"""Magic, header bytes, format: these and the crc at the end of the header stay where they are in every format."""
_HEADER: Final = struct.Struct("<8sIH16sQQQBI")
_BLOCK: Final = struct.Struct("<II")
_LENGTH: Final = struct.Struct("<I")
_TRAILER: Final = struct.Struct("<8sQQII")

START_BYTES: Final = _START.size
BLOCK_HEADER_BYTES: Final = _BLOCK.size
TRAILER_BYTES: Final = _TRAILER.size


@dataclass(frozen=True, slots=True)
class SnapshotMeta:
    """The header of a snapshot's file: nothing of the node that wrote it, so that another can install it."""

    cluster_id: ClusterId
    base: LogBase
    """The last entry that is in it, and the configuration in force there."""
    stamp_ms: int
    """Cluster time of what is in it."""
    state_hash: bytes
    """Of the state machine at ``base.index``; empty: it has none."""


class BlockHeader(NamedTuple):
    """What a block says of itself before its data."""

    data_bytes: int
    crc: int


def extended(crc: int, data: bytes) -> int:
    """The checksum of what ``crc`` is of and ``data`` after it."""
    if len(data) <= _CRC_PIECE_BYTES:
        return int(google_crc32c.extend(crc, data))
    for start in range(0, len(data), _CRC_PIECE_BYTES):
        crc = google_crc32c.extend(crc, data[start : start + _CRC_PIECE_BYTES])
    return crc


def encode_header(meta: SnapshotMeta) -> bytes:
    """The first bytes of the file, ending in their checksum."""
    assert len(meta.state_hash) <= HASH_BYTES_MAX, "a hash, not a state"
    configuration = meta.base.configuration.encode()
    header_bytes = _HEADER.size + len(meta.state_hash) + len(configuration) + _CRC.size
    assert header_bytes <= HEADER_BYTES_MAX, "no configuration is so large"
    fixed = _HEADER.pack(
        HEADER_MAGIC,
        header_bytes,
        SNAPSHOT_FORMAT,
        meta.cluster_id,
        meta.base.index,
        meta.base.term,
        meta.stamp_ms,
        len(meta.state_hash),
        len(configuration),
    )
    checked = fixed + meta.state_hash + configuration
    return checked + _CRC.pack(google_crc32c.value(checked))


def crc_of_header(header: bytes) -> int:
    """The checksum at its end, from which the first block's starts."""
    return int(_CRC.unpack_from(header, len(header) - _CRC.size)[0])


def header_bytes_of(start: bytes) -> int:
    """How long the header is that begins with ``start``; nothing absurd is believed."""
    if len(start) < START_BYTES:
        raise BadBytes("the file is too short for a snapshot's header")
    magic, header_bytes, _ = _START.unpack_from(start)
    if magic != HEADER_MAGIC:
        raise BadBytes("no snapshot begins here")
    if not START_BYTES + _CRC.size <= header_bytes <= HEADER_BYTES_MAX:
        raise BadBytes(f"the header claims {header_bytes} bytes")
    return int(header_bytes)


def decode_header(data: bytes) -> SnapshotMeta:
    """The header that is exactly ``data``; BadBytes if it is not whole, OtherFormat if it is not ours."""
    if google_crc32c.value(data[: -_CRC.size]) != crc_of_header(data):
        raise BadBytes("the header's checksum does not match")
    version = _START.unpack_from(data)[2]
    if version != SNAPSHOT_FORMAT:
        raise OtherFormat(f"a snapshot of format {version}; this raftkv reads format {SNAPSHOT_FORMAT}")
    if len(data) < _HEADER.size + _CRC.size:
        raise BadBytes("the header is too short")
    _, _, _, cluster_id, index, term, stamp_ms, hash_bytes, configuration_bytes = _HEADER.unpack_from(data)
    configuration_at = _HEADER.size + hash_bytes
    if configuration_at + configuration_bytes + _CRC.size != len(data):
        raise BadBytes("the header's parts do not fit in it")
    try:
        configuration = Configuration.decode(data[configuration_at : -_CRC.size])
    except MessageError as error:
        raise BadBytes(f"the header makes no sense: {error}") from error
    base = LogBase(Index(index), Term(term), configuration)
    return SnapshotMeta(ClusterId(cluster_id), base, stamp_ms, data[_HEADER.size : configuration_at])


def block_header(data: bytes, *, crc_before: int) -> bytes:
    """What stands before a block's data."""
    assert len(data) <= BLOCK_BYTES_MAX, f"a block of {len(data)} bytes"
    return _BLOCK.pack(len(data), _block_crc(data, crc_before))


def crc_of_block(start: bytes) -> int:
    """The checksum in a block's header, from which the next one's starts."""
    return int(_BLOCK.unpack(start)[1])


def decode_block_header(data: bytes, *, room_bytes: int) -> BlockHeader:
    """The block header that is exactly ``data``; a length that the room does not hold is not believed."""
    if len(data) < _BLOCK.size:
        raise BadBytes("no block begins here")
    found = BlockHeader(*_BLOCK.unpack(data))
    if found.data_bytes > min(room_bytes - _BLOCK.size, BLOCK_BYTES_MAX):
        raise BadBytes(f"a block claims {found.data_bytes} bytes where {room_bytes - _BLOCK.size} are left")
    return found


def prove_block(header: BlockHeader, data: bytes, *, crc_before: int) -> None:
    """BadBytes if the data, or the block's place, is not as it was written."""
    if len(data) != header.data_bytes or _block_crc(data, crc_before) != header.crc:
        raise BadBytes("a block's checksum does not match")


def _block_crc(data: bytes, crc_before: int) -> int:
    return extended(google_crc32c.extend(crc_before, _LENGTH.pack(len(data))), data)


def encode_trailer(*, blocks_count: int, crc: int, size_bytes: int, file_crc: int) -> bytes:
    """The last bytes of a file of that size; ``crc`` is the last block's, ``file_crc`` of all that is before them."""
    checked = _TRAILER.pack(TRAILER_MAGIC, blocks_count, size_bytes, crc, 0)[: -_CRC.size]
    return checked + _CRC.pack(google_crc32c.extend(file_crc, checked))


def checksum_in(trailer: bytes) -> int:
    """What the trailer says of the whole file, which is the file's ``SnapshotId.checksum``."""
    return int(_CRC.unpack_from(trailer, len(trailer) - _CRC.size)[0])


def prove_trailer(trailer: bytes, *, blocks_count: int, crc: int, file_crc: int, id: SnapshotId) -> None:
    """BadBytes unless this ends just that file: blocks, length, the checksum of every byte, and the name."""
    expected = encode_trailer(blocks_count=blocks_count, crc=crc, size_bytes=id.size_bytes, file_crc=file_crc)
    if trailer != expected:
        raise BadBytes("the file does not end as it was written")
    if checksum_in(trailer) != id.checksum:
        raise BadBytes(f"the file's checksum is {checksum_in(trailer):08x}, its name says {id.checksum:08x}")
