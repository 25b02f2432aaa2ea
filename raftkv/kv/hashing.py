"""The state hash: a sum modulo 2^128 of one hash for each thing that the state holds.

Told: bytes. Tells: numbers. May never know: what the bytes mean.

A sum needs no order and can be kept as the state changes: what comes is added, what goes is subtracted. The
hash that is subtracted is that of the bytes actually found, so a bit that flipped in memory shows.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from enum import Enum
from functools import partial
from hashlib import blake2b
from itertools import repeat
from operator import methodcaller
from typing import Any, Final

HASH_BYTES: Final = 16
_MASK: Final = 2 ** (8 * HASH_BYTES) - 1
_KEY_LENGTH: Final = struct.Struct("<I")
_HASHED: Final[Any] = partial(blake2b, digest_size=HASH_BYTES)
_DIGEST: Final = methodcaller("digest")
_NUMBER: Final = partial(int.from_bytes, byteorder="little")


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


def hash_sum(room: Room, keys: Sequence[bytes], contents: Iterable[bytes]) -> int:
    """The sum of ``item_hash`` over all of them, without a line of Python for each."""
    joined = map(b"".join, zip(repeat(room), map(_KEY_LENGTH.pack, map(len, keys)), keys, contents))
    return sum(map(_NUMBER, map(_DIGEST, map(_HASHED, joined))))


def total(*sums: int) -> int:
    """Sums of hashes, which may have grown beyond 128 bits or below 0, as one."""
    return sum(sums) & _MASK


def packed_hash(hashed: int) -> bytes:
    """The bytes of a hash, or of a sum of hashes."""
    return total(hashed).to_bytes(HASH_BYTES, "little")


def request_hash(request: bytes) -> bytes:
    """Tells a repeat of a request from another request under the same number."""
    return blake2b(request, digest_size=HASH_BYTES).digest()
