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
class Revision:
    """What is the store's revision? Answered by an ``int``."""


class Found(NamedTuple):
    """A key as it is now."""

    record: Record | None
    """None: the key is absent."""
    revision: int
    """The store's."""


Query = Get | Revision
