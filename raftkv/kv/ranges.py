"""Ranges of keys: from a first key on, up to an end that is no longer in it; bytewise.

Told: prefixes, keys and bounds. Tells: bounds, and where they meet. May never know: which keys there are.

``start`` is empty where the range begins with the first key of all, ``end`` is None where it goes on to the last
one. A range whose end is not above its start is empty: a question without an answer, not a mistake.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Bounds(NamedTuple):
    """The keys of a range."""

    start: bytes
    """The first key that can be in it."""
    end: bytes | None
    """Excluded; None: to the last key."""

    @property
    def is_empty(self) -> bool:
        """Whether no key can be within them."""
        return self.end is not None and self.end <= self.start


def prefix_bounds(prefix: bytes) -> Bounds:
    """The range of all keys that begin with the prefix; of the empty one: all keys."""
    body = prefix.rstrip(b"\xff")
    if not body:
        return Bounds(prefix, None)
    return Bounds(prefix, body[:-1] + bytes([body[-1] + 1]))


def key_bounds(key: bytes) -> Bounds:
    """The range of this one key."""
    return Bounds(key, right_after(key))


def right_after(key: bytes) -> bytes:
    """The smallest key above this one: where a range goes on that has come to this key."""
    return key + b"\x00"


def first_overlap(ranges: Iterable[Bounds]) -> bytes | None:
    """Where the first two ranges meet that have a key in common; None: each is apart from all others."""
    end: bytes | None = b""
    for bounds in sorted((bounds for bounds in ranges if not bounds.is_empty), key=lambda bounds: bounds.start):
        if end is None or bounds.start < end:
            return bounds.start
        end = bounds.end
    return None
