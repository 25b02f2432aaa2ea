"""The state as blocks, and back: the one format of snapshots, whether they are files or one piece of bytes.

Told: tables and sessions as they were at a moment. Tells: blocks; of a block what is in it, or SnapshotError. May
never know: files, threads, and what log index the state is of.

Each block is one msgpack array, and they come in this order:

    the meta    ["raftkv kv", 3, revision, time_ms, keys, sessions, table sum, sessions sum, state hash]
    records     [1, [key …], [packed record …]]
    sessions    [2, [[[id, ttl_ms, expires_ms, acknowledged], [[number, stored answer] …]] …]]

The state hash and the two sums in it have 16 bytes each. Keys, ids and numbers ascend from the first block to the last.
Where a block ends hangs on what is in it alone, so equal states have equal blocks.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import accumulate
from operator import add, itemgetter
from typing import Any, Final, NamedTuple

import msgpack

from raftkv.errors import SnapshotError
from raftkv.kv.frozen import Frozen
from raftkv.kv.hashing import Room, item_hash, packed_hash, total
from raftkv.kv.sessions import Kept, Sessions
from raftkv.kv.table import Table

FORMAT: Final = 3
"""1 was one msgpack array of everything, of which no file was ever made; 2 had other hashes."""
RECORDS_PER_BLOCK: Final = 256
"""At most: so many that what Python costs is shared by many, so few that the loop has its turn again within a third of
a millisecond. With 4,096 the p99 of a put doubled while the leader took a snapshot."""
SESSIONS_PER_BLOCK: Final = 256
"""At most; a session can hold a thousand answers."""
BLOCK_BYTES: Final = 2 * 1024 * 1024
"""A block with as much content ends; one thing that alone is larger has a block to itself."""
REVISION_RAISE: Final = 2**32
"""What a restored or forced cluster's revision is raised by: nobody can have seen as many that are lost now."""

_MAGIC: Final = "raftkv kv"
_RECORDS: Final = 1
_SESSIONS: Final = 2
_CLOCKS: Final = struct.Struct("<QQ")
_LENGTHS: Final = partial(map, len)


class Meta(NamedTuple):
    """What the first block says: of how much the state consists, and how it is hashed."""

    revision: int
    time_ms: int
    """Cluster time."""
    keys: int
    sessions: int
    """How many."""
    table_sum: int
    sessions_sum: int
    """Modulo 2^128."""

    @property
    def state_hash(self) -> int:
        """128 bits over the whole state."""
        clocks = item_hash(Room.CLOCKS, b"", _CLOCKS.pack(self.revision, self.time_ms))
        return total(self.table_sum, self.sessions_sum, clocks)


def meta_block(meta: Meta) -> bytes:
    """The first block."""
    *counts, table_sum, sessions_sum = meta
    hashes = map(packed_hash, (table_sum, sessions_sum, meta.state_hash))
    return _pack((_MAGIC, FORMAT, *counts, *hashes))


def meta_of(block: bytes) -> Meta:
    """What the first block says; raises SnapshotError: it is none, or of a format that this version does not know."""
    match _unpack(block):
        case [str(magic), int(number), *_] if magic == _MAGIC and number != FORMAT:
            raise SnapshotError(f"a snapshot of format {number}; this version reads format {FORMAT}")
        case [str(magic), int(), *counts, bytes(table_sum), bytes(sessions_sum), bytes(state_hash)] if magic == _MAGIC:
            if len(counts) != 4 or not all(map(_is_count, counts)):
                raise SnapshotError("the first block of a snapshot has other fields than it should")
            meta = Meta._make((*counts, *(int.from_bytes(hashed, "little") for hashed in (table_sum, sessions_sum))))
            if packed_hash(meta.state_hash) != state_hash:
                raise SnapshotError("the first block of a snapshot is damaged: its hashes do not agree")
            return meta
    raise SnapshotError("not the beginning of a snapshot of the store")


def raised(block: bytes) -> bytes:
    """The first block with its revision raised: no revision that was given before comes again, whatever was lost."""
    meta = meta_of(block)
    return meta_block(meta._replace(revision=meta.revision + REVISION_RAISE))


def record_blocks(table: Table, frozen: Frozen[bytes]) -> Iterator[bytes]:
    """The table's records of this moment."""
    for keys in frozen.pieces(RECORDS_PER_BLOCK):
        records = table.held(keys, frozen)
        for begins, ends in _cuts(map(add, map(len, keys), map(len, records))):
            yield _pack((_RECORDS, keys[begins:ends], records[begins:ends]))


def session_blocks(sessions: Sessions, frozen: Frozen[Kept]) -> Iterator[bytes]:
    """The sessions of this moment."""
    for ids in frozen.pieces(SESSIONS_PER_BLOCK):
        kept = sessions.held(ids, frozen)
        stored = list(map(itemgetter(1), kept))
        rows = list(zip(map(itemgetter(0), kept), map(sorted, map(dict.items, stored)), strict=True))
        for begins, ends in _cuts(map(sum, map(_LENGTHS, map(dict.values, stored)))):
            yield _pack((_SESSIONS, rows[begins:ends]))


class Records(NamedTuple):
    """What a block of records holds; whoever takes it checks it by its hashes."""

    keys: list[bytes]
    records: list[bytes]


class Rows(NamedTuple):
    """What a block of sessions holds; as above."""

    rows: list[list[Any]]


def content_of(block: bytes) -> Records | Rows:
    """What a block after the first says; raises SnapshotError: it is none of them."""
    match _unpack(block):
        case [int(kind), list(keys), list(records)] if kind == _RECORDS and len(keys) == len(records) > 0:
            return Records(keys, records)
        case [int(kind), list(rows)] if kind == _SESSIONS and rows:
            return Rows(rows)
    raise SnapshotError("not a block of records or sessions")


def joined(blocks: Iterable[bytes]) -> bytes:
    """The blocks as one piece of bytes."""
    return _pack(list(blocks))


def parted(snapshot: bytes) -> list[bytes]:
    """The blocks that were joined; raises SnapshotError: they were not."""
    match _unpack(snapshot):
        case [*blocks] if all(isinstance(block, bytes) for block in blocks):
            return blocks
    raise SnapshotError("not a snapshot of the store")


def _cuts(sizes: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Where to cut what has these sizes, so that each part but a single large one is within BLOCK_BYTES."""
    ends_at = list(accumulate(sizes))
    begins = 0
    while begins < len(ends_at):
        behind = ends_at[begins - 1] if begins else 0
        ends = max(begins + 1, bisect_right(ends_at, behind + BLOCK_BYTES))
        yield begins, ends
        begins = ends


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**64


def _pack(content: Any) -> bytes:
    packed: bytes = msgpack.packb(content)
    return packed


def _unpack(block: bytes) -> Any:
    try:
        return msgpack.unpackb(block, strict_map_key=False)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise SnapshotError(f"not a block of a snapshot: {error}") from error
