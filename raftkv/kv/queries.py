"""What the store can be asked. A query changes nothing and stands in no log.

Told: nothing. Tells: the questions and what an answer holds. May never know: how consistent the answer is;
that is for whoever asks to see to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from raftkv.kv.record import Record


@dataclass(slots=True)
class Get:
    """What does this key hold? Answered by ``Found``."""

    key: bytes


@dataclass(slots=True)
class Range:
    """Which keys are within these bounds, and what do they hold? Answered by ``Page``."""

    start: bytes
    """Empty: from the first key."""
    end: bytes | None
    """Excluded; None: to the last key."""
    limit: int
    bytes_max: int
    """Of keys and values; the page ends before the item that would exceed it, but has one item at least."""
    reverse: bool = False
    """From the last key within the bounds downwards."""
    keys_only: bool = False
    """The records come with empty values, which do not count."""


@dataclass(slots=True)
class Revision:
    """What is the store's revision? Answered by an ``int``."""


class Found(NamedTuple):
    """A key as it is now."""

    record: Record | None
    """None: the key is absent."""
    revision: int
    """The store's."""


class Page(NamedTuple):
    """Some keys as they are now."""

    items: list[tuple[bytes, Record]]
    """In the order asked for."""
    more: bool
    """Further keys are within the bounds."""
    revision: int
    """The store's."""


Query = Get | Range | Revision
