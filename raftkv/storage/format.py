"""The bytes of the log's files: segment headers and batches. Pure.

Told: what to write, or bytes that were read. Tells: bytes, or what they say. Knows no file.

A segment begins with its header and is then a row of batches; both are whole blocks of 512 bytes, so no
two share a sector and a torn write of one leaves the others alone. Numbers are little-endian.

    segment header   magic | header bytes u32 | format u16 | … | zeros | crc u32
    batch            magic | segment u64 | number u64 | synced through u64
                     | body bytes u32 | runs u32 | entries u32
                     | runs: (first index u64, term u64, count u32)*  | entries' checksums: u32*
                     | header crc u32
                     | body: operations, see operations.py | zeros | body crc u32

Every byte is under a checksum, the zeros too: no flipped bit goes unseen. The header's crc starts from
the crc of the node's incarnation and covers lengths and table; the body's starts from the header's. So a
batch from another node, from a segment that used the file before, or carried as a value by a client is
no batch here, and a body under a header that it was not written with is none either.

``synced through`` is the newest batch that was known to be on stable storage when this one was written:
the one before, for batch n+1 is only written after the sync of n returned. The table repeats index, term
and checksum of each entry away from its payload: with a damaged body one still knows what was lost.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import google_crc32c

from raftkv.core.effects import LogBase
from raftkv.core.types import ClusterId, Configuration, Incarnation, Index, Membership, NodeId, Term
from raftkv.errors import MessageError
from raftkv.storage.operations import Run

FORMAT_VERSION: Final = 2
BLOCK_BYTES: Final = 512
SEGMENT_MAGIC: Final = b"RaftkvSg"
BATCH_MAGIC: Final = b"RkvBatch"

_CRC = struct.Struct("<I")
_BATCH = struct.Struct("<8sQQQIII")
_RUN = struct.Struct("<QQI")
_CHECKSUM_BYTES: Final = 4

_SEGMENT_START = struct.Struct("<8sIH")
"""Magic, header bytes, format: these and the crc at the end stay where they are in every format."""
_SEGMENT = struct.Struct("<8sIHQQQ16s16sQQQQQBBII")
_NO_CLUSTER: Final = bytes(16)
NO_CONFIGURATION: Final = Configuration(Membership(()))
"""Before the first entry; the one the cluster was formed with stands in the identity. No bytes in a header."""


class BadBytes(Exception):
    """What was read is not what this format writes; never leaves this room."""


class OtherFormat(BadBytes):
    """Sound, but written by another version of the format."""


def whole_blocks(size_bytes: int) -> int:
    """The size rounded up to blocks."""
    return -(-size_bytes // BLOCK_BYTES) * BLOCK_BYTES


def salt_of(incarnation: Incarnation) -> int:
    """Where the checksums of this incarnation's batches start."""
    salt: int = google_crc32c.value(incarnation)
    return salt


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """All that recovery needs if no older segment is left."""

    number: int
    first_batch: int
    """The batch that comes first here; those before it were all synced when this header was written."""
    size_bytes: int
    """Of the file: it was preallocated to this and never shrinks."""
    cluster_id: ClusterId | None
    """None: the cluster was not yet formed."""
    node_id: NodeId
    incarnation: Incarnation
    term: Term
    voted_for: NodeId | None
    base: LogBase
    first_index: Index
    """The entry that is appended next."""
    configuration_index: Index
    configuration: Configuration
    """In force at first_index - 1, and the entry it stands in (the base's, where none has come since)."""

    def encode(self) -> bytes:
        """Whole blocks, ending in their checksum."""
        names = (self.node_id.encode(), (self.voted_for or "").encode())
        configurations = (_packed(self.base.configuration), _packed(self.configuration))
        variable = b"".join((*names, *configurations))
        header_bytes = whole_blocks(_SEGMENT.size + len(variable) + _CRC.size)
        fixed = _SEGMENT.pack(
            SEGMENT_MAGIC,
            header_bytes,
            FORMAT_VERSION,
            self.number,
            self.first_batch,
            self.size_bytes,
            self.cluster_id or _NO_CLUSTER,
            self.incarnation,
            self.term,
            self.base.index,
            self.base.term,
            self.first_index,
            self.configuration_index,
            *map(len, names),
            *map(len, configurations),
        )
        checked = (fixed + variable).ljust(header_bytes - _CRC.size, b"\0")
        return checked + _CRC.pack(google_crc32c.value(checked))


def _packed(configuration: Configuration) -> bytes:
    return b"" if configuration == NO_CONFIGURATION else configuration.encode()


def _unpacked(packed: bytes) -> Configuration:
    return Configuration.decode(packed) if packed else NO_CONFIGURATION


def segment_header_bytes(start: bytes, *, file_bytes: int) -> int:
    """How long the header is that begins with ``start``; BadBytes if it cannot be one."""
    if len(start) < BLOCK_BYTES:
        raise BadBytes("the file is too short for a segment's header")
    magic, header_bytes, _ = _SEGMENT_START.unpack_from(start)
    if magic != SEGMENT_MAGIC:
        raise BadBytes("no segment begins here")
    if not BLOCK_BYTES <= header_bytes <= file_bytes or header_bytes % BLOCK_BYTES:
        raise BadBytes(f"the header claims {header_bytes} bytes of a file of {file_bytes}")
    return int(header_bytes)


def decode_segment_header(data: bytes) -> SegmentHeader:
    """The header that is exactly ``data``; BadBytes if it is not whole, OtherFormat if it is not ours."""
    if google_crc32c.value(data[: -_CRC.size]) != _CRC.unpack_from(data, len(data) - _CRC.size)[0]:
        raise BadBytes("the header's checksum does not match")
    version = _SEGMENT_START.unpack_from(data)[2]
    if version != FORMAT_VERSION:
        raise OtherFormat(f"format {version}; this raftkv writes format {FORMAT_VERSION}")
    _, _, _, number, first_batch, size_bytes, cluster_id, incarnation, term, *rest = _SEGMENT.unpack_from(data)
    base_index, base_term, first_index, configuration_index, *lengths = rest
    if _SEGMENT.size + sum(lengths) + _CRC.size > len(data):
        raise BadBytes("the header's parts do not fit in it")
    parts: list[bytes] = []
    offset = _SEGMENT.size
    for length in lengths:
        parts.append(data[offset : offset + length])
        offset += length
    node_id, voted_for, base_configuration, configuration = parts
    try:
        return SegmentHeader(
            number=number,
            first_batch=first_batch,
            size_bytes=size_bytes,
            cluster_id=None if cluster_id == _NO_CLUSTER else ClusterId(cluster_id),
            node_id=NodeId(node_id.decode()),
            incarnation=Incarnation(incarnation),
            term=Term(term),
            voted_for=NodeId(voted_for.decode()) if voted_for else None,
            base=LogBase(Index(base_index), Term(base_term), _unpacked(base_configuration)),
            first_index=Index(first_index),
            configuration_index=Index(configuration_index),
            configuration=_unpacked(configuration),
        )
    except (MessageError, UnicodeDecodeError) as error:
        raise BadBytes(f"the header makes no sense: {error}") from error


@dataclass(slots=True)
class BatchHeader:
    """What a batch says of itself before its body."""

    segment: int
    number: int
    synced_through: int
    body_bytes: int
    runs: list[Run]
    checksums: bytes
    """Four bytes for each entry, joined."""
    crc: int

    @property
    def header_bytes(self) -> int:
        """Where the body begins."""
        return _header_bytes(len(self.runs), len(self.checksums) // _CHECKSUM_BYTES)

    @property
    def total_bytes(self) -> int:
        """What the batch takes in the file."""
        return whole_blocks(self.header_bytes + self.body_bytes + _CRC.size)

    @property
    def is_mark(self) -> bool:
        """It carries nothing, and only says what is synced."""
        return self.body_bytes == 0


def _header_bytes(run_count: int, entry_count: int) -> int:
    return _BATCH.size + run_count * _RUN.size + entry_count * _CHECKSUM_BYTES + _CRC.size


def batch_bytes(*, run_count: int, entry_count: int, body_bytes: int) -> int:
    """What a batch of these will take in the file."""
    return whole_blocks(_header_bytes(run_count, entry_count) + body_bytes + _CRC.size)


def encode_batch(
    *, segment: int, number: int, runs: Sequence[Run], checksums: Sequence[bytes], parts: Sequence[bytes], salt: int
) -> bytes:
    """One batch whose body is the join of ``parts``."""
    body = b"".join(parts)
    header = b"".join(
        (
            _BATCH.pack(BATCH_MAGIC, segment, number, number - 1, len(body), len(runs), len(checksums)),
            *(_RUN.pack(*run) for run in runs),
            *checksums,
        )
    )
    header_crc = google_crc32c.extend(salt, header)
    unpadded_bytes = len(header) + _CRC.size + len(body) + _CRC.size
    padding = bytes(-unpadded_bytes % BLOCK_BYTES)
    body_crc = google_crc32c.extend(google_crc32c.extend(header_crc, body), padding)
    return b"".join((header, _CRC.pack(header_crc), body, padding, _CRC.pack(body_crc)))


def batch_header_bytes(start: bytes, *, room_bytes: int) -> int:
    """How long the header is that begins with ``start``; nothing is believed that the room does not hold."""
    if len(start) < BLOCK_BYTES or not start.startswith(BATCH_MAGIC):
        raise BadBytes("no batch begins here")
    *_, body_bytes, run_count, entry_count = _BATCH.unpack_from(start)
    header_bytes = _header_bytes(run_count, entry_count)
    if whole_blocks(header_bytes + body_bytes + _CRC.size) > room_bytes:
        raise BadBytes(f"the batch claims a header of {header_bytes} and a body of {body_bytes} bytes")
    return header_bytes


def decode_batch_header(data: bytes, *, segment: int, salt: int) -> BatchHeader:
    """The header that is exactly ``data``, proved by its checksum; BadBytes if it is none of this segment."""
    end = len(data) - _CRC.size
    (crc,) = _CRC.unpack_from(data, end)
    if google_crc32c.extend(salt, data[:end]) != crc:
        raise BadBytes("the batch header's checksum does not match")
    _, found_segment, number, synced_through, body_bytes, run_count, entry_count = _BATCH.unpack_from(data)
    if found_segment != segment:
        raise BadBytes(f"the batch is of segment {found_segment}, which used this file before")
    table_end = end - entry_count * _CHECKSUM_BYTES
    runs = [
        Run(Index(first), Term(term), count)
        for first, term, count in _RUN.iter_unpack(data[table_end - run_count * _RUN.size : table_end])
    ]
    return BatchHeader(found_segment, number, synced_through, body_bytes, runs, data[table_end:end], crc)


def body_of(data: bytes, header: BatchHeader) -> bytes:
    """The body in ``data``, which is all of the batch after its header; BadBytes if its checksum is wrong."""
    end = len(data) - _CRC.size
    if google_crc32c.extend(header.crc, data[:end]) != _CRC.unpack_from(data, end)[0]:
        raise BadBytes("the batch body's checksum does not match")
    return data[: header.body_bytes]
