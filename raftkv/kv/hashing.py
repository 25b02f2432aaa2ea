"""The state hash: a sum modulo 2^128 of one hash for each thing that the state holds.

Told: bytes. Tells: numbers. May never know: what the bytes mean.

A sum needs no order and can be kept as the state changes: what comes is added, what goes is subtracted. The
hash that is subtracted is that of the bytes actually found, so a bit that flipped in memory shows.

It is XXH3: what is looked for are faults, and nobody gains by two states with one hash, since whoever chooses the
commands chooses them for every node. BLAKE2b, six times slower for a small record and seventy times for a large
one, was a quarter of a large put. Whether a request is the one that came before under its number is another
question, which a client may want a wrong answer to: that is BLAKE2b's.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from enum import Enum
from hashlib import blake2b
from itertools import repeat
from typing import Final

from xxhash import xxh3_128, xxh3_128_intdigest

HASH_BYTES: Final = 16
_MASK: Final = 2 ** (8 * HASH_BYTES) - 1
_KEY_LENGTH: Final = struct.Struct("<I")
_JOINED_BYTES_MAX: Final = 4096
"""What is larger is hashed in two steps: copying it would take longer than hashing it."""


class Room(bytes, Enum):
    """Where a thing lives: equal bytes in two rooms have different hashes."""

    TABLE = b"t"
    SESSIONS = b"s"
    ANSWERS = b"a"
    CLOCKS = b"c"


def item_hash(room: Room, key: bytes, content: bytes) -> int:
    """128 bits of this thing; no two things are joined to the same bytes."""
    if len(content) > _JOINED_BYTES_MAX:
        hashed = xxh3_128(b"".join((room, _KEY_LENGTH.pack(len(key)), key)))
        hashed.update(content)
        return hashed.intdigest()
    return xxh3_128_intdigest(b"".join((room, _KEY_LENGTH.pack(len(key)), key, content)))


def hash_sum(room: Room, keys: Sequence[bytes], contents: Iterable[bytes]) -> int:
    """The sum of ``item_hash`` over all of them, without a line of Python for each."""
    joined = map(b"".join, zip(repeat(room), map(_KEY_LENGTH.pack, map(len, keys)), keys, contents))
    return sum(map(xxh3_128_intdigest, joined))


def total(*sums: int) -> int:
    """Sums of hashes, which may have grown beyond 128 bits or below 0, as one."""
    return sum(sums) & _MASK


def packed_hash(hashed: int) -> bytes:
    """The bytes of a hash, or of a sum of hashes."""
    return total(hashed).to_bytes(HASH_BYTES, "little")


def request_hash(request: bytes) -> bytes:
    """Tells a repeat of a request from another request under the same number."""
    return blake2b(request, digest_size=HASH_BYTES).digest()
