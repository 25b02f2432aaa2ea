"""The work that every system is given, the same for all. Pure, and without anything that must be installed."""

from __future__ import annotations

import base64
import random
from dataclasses import dataclass
from typing import Final

FILL_BATCH_BYTES: Final = 256 * 1024
FILL_BATCH_KEYS: Final = 100
DRAWN_MAX: Final = 20_000
DRAWN_BYTES_MAX: Final = 32 * 1024 * 1024


@dataclass(frozen=True)
class Work:
    """The same for every system."""

    verb: str
    """put or get: a linearizable one."""
    clients: int
    seconds: int
    keys: int
    value_bytes: int
    seed: int


def key(number: int) -> str:
    """Sixteen bytes."""
    return f"key-{number:012d}"


def drawn_keys(work: Work) -> list[int]:
    """Uniform over all keys, the same for every system; as many as a generator can hold ready."""
    count = min(DRAWN_MAX, max(100, DRAWN_BYTES_MAX // (work.value_bytes + 200)))
    chance = random.Random(work.seed)
    return [chance.randrange(work.keys) for _ in range(count)]


def batches(keys: int, value_bytes: int) -> list[range]:
    """All keys, in portions that every system takes at once."""
    size = max(1, min(FILL_BATCH_KEYS, FILL_BATCH_BYTES // (value_bytes + 100)))
    return [range(first, min(keys, first + size)) for first in range(0, keys, size)]


def base64_of(data: bytes) -> str:
    """As JSON carries bytes."""
    return base64.b64encode(data).decode()
