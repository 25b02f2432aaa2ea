"""A map of millions of keys in 64 parts.

Told: keys and what they hold. Tells: the part in which a key is. May never know: what the map is of.

One dict of a million records grows in a single step of 36 to 49 ms, twice as much at two million, and whoever puts the
key that makes it grow stops the loop for so long. Of 64 parts each grows by itself, in well under a millisecond. Which
part a key is in is the process's own affair and never seen: nothing goes through the parts in their order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat, starmap
from operator import and_
from typing import Final, Generic, TypeVar

PARTS: Final = 64
MASK: Final = PARTS - 1

Held = TypeVar("Held")


class PartedMap(Generic[Held]):
    """``parts[hash(key) & MASK]`` is the dict that has the key, or would."""

    __slots__ = ("parts",)

    def __init__(self) -> None:
        self.parts: tuple[dict[bytes, Held], ...] = tuple({} for _ in range(PARTS))

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def get(self, key: bytes) -> Held | None:
        """What the key holds; None: nothing."""
        return self.parts[hash(key) & MASK].get(key)

    def found(self, keys: Sequence[bytes]) -> Iterator[Held | None]:
        """What each of them holds, without a line of Python for each."""
        return map(dict.get, self._parts_of(keys), keys)

    def update(self, keys: Sequence[bytes], held: Sequence[Held]) -> None:
        """Each of them holds this, without a line of Python for each."""
        deque(map(dict.__setitem__, self._parts_of(keys), keys, held), maxlen=0)

    def shrink(self, count: int) -> bool:
        """So many items are gone, without a line of Python for each; whether none is left."""
        for part in self.parts:
            gone = min(count, len(part))
            deque(starmap(part.popitem, repeat((), gone)), maxlen=0)
            count -= gone
        return not any(self.parts)

    def _parts_of(self, keys: Iterable[bytes]) -> Iterator[dict[bytes, Held]]:
        return map(self.parts.__getitem__, map(and_, map(hash, keys), repeat(MASK)))
