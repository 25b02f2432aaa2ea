"""The state hash: a sum modulo 2^128 of one hash for each thing that the state holds.

Told: bytes. Tells: numbers. May never know: what the bytes mean.

A sum needs no order and can be kept as the state changes: what comes is added, what goes is subtracted. The
hash that is subtracted is that of the bytes actually found, so a bit that flipped in memory shows.
"""

from __future__ import annotations

import struct
from enum import Enum
from hashlib import blake2b
from typing import Final

HASH_BYTES: Final = 16
_MASK: Final = 2 ** (8 * HASH_BYTES) - 1
_KEY_LENGTH: Final = struct.Struct("<I")


class Room(bytes, Enum):
    """Where a thing lives: equal bytes in two rooms have different hashes."""

    TABLE = b"t"
    SESSIONS = b"s"
    ANSWERS = b"a"
    CLOCKS = b"c"


def item_hash(room: Room, key: bytes, content: bytes) -> int:
    """128 bits of this thing; no two things are joined to the same bytes."""
    joined = b"".join((room, _KEY_LENGTH.pack(len(key)), key, content))
    return int.from_bytes(blake2b(joined, digest_size=HASH_BYTES).digest(), "little")


def total(*sums: int) -> int:
    """Sums of hashes, which may have grown beyond 128 bits or below 0, as one."""
    return sum(sums) & _MASK


def request_hash(request: bytes) -> bytes:
    """Tells a repeat of a request from another request under the same number."""
    return blake2b(request, digest_size=HASH_BYTES).digest()
