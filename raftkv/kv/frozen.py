"""What a map held at one moment, read by a thread while the loop changes the map.

Told: the map's keys in order, and by whoever changes the map what a key held before. Tells: the keys as they were,
in order, and what they held, thousands at a time. May never know: what the map is of.

The loop notes what a key holds before it changes that; the thread reads what the key holds now, and then what is noted,
which counts where there is something. So whenever the change comes, before, between or after the two, what comes out
is of the moment: no lock, and the map itself is as fast as ever.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import chain, compress, islice, repeat, starmap
from typing import Any, Generic, TypeVar

from raftkv.errors import SnapshotError
from raftkv.kv.parted import MASK, PartedMap

Held = TypeVar("Held")


class Frozen(Generic[Held]):
    """One map at one moment. Whoever has it reads in one thread; the loop ends it, at any time."""

    __slots__ = ("_lists", "before", "count", "is_over")

    def __init__(self, lists: list[list[bytes]], count: int) -> None:
        self._lists = lists
        self.count = count
        """Of the keys."""
        self.before: PartedMap[Held] = PartedMap()
        """What keys held at the moment that hold something else now. Keys that came later may be here too."""
        self.is_over = False

    def note(self, key: bytes, held: Held) -> None:
        """The key held this until now, and is about to be changed."""
        self.before.parts[hash(key) & MASK].setdefault(key, held)

    def pieces(self, count: int) -> Iterator[list[bytes]]:
        """All keys of the moment in order, so many at a time, the last time fewer."""
        keys = chain.from_iterable(self._lists)
        while piece := list(islice(keys, count)):
            yield piece
        self._check()

    def as_it_was(self, keys: list[bytes], found: dict[bytes, Held]) -> list[Held]:
        """What these keys held, of which some hold what was found in the map just now, before this was called."""
        noted = list(self.before.found(keys))
        self._check()
        found.update(compress(zip(keys, noted, strict=True), noted))  # type: ignore[arg-type]  # the None are left out
        return list(map(found.__getitem__, keys))

    def end(self) -> None:
        """Nobody needs it any more. Whoever still reads will hear so, and not take for whole what is let go of."""
        self.is_over = True

    def release(self, count: int) -> bool:
        """Lets go of about so many things that it holds, once it is over; whether none is left."""
        assert self.is_over, "a thread may be reading"
        del self._lists[-1 - count // 256 :]
        return self.before.shrink(count) and not self._lists

    def _check(self) -> None:
        if self.is_over:
            raise SnapshotError("the capture was given up while it was read")


def shrink(held: dict[Any, Any], count: int) -> bool:
    """So many items are gone, without a line of Python for each; whether none is left."""
    deque(starmap(held.popitem, repeat((), min(count, len(held)))), maxlen=0)
    return not held
