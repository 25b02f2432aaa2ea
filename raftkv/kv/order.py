"""Keys in order, and what that order was at a moment that somebody holds on to.

Told: keys that come and go. Tells: which of them are within bounds, first to last or last to first, and all of
them as they were when they were frozen. May never know: what the keys hold.

They lie in short lists, each of which is copied before it changes if it was frozen with the others: so freezing
copies one pointer for a thousand keys and leaves nothing to be put together again.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from itertools import chain
from typing import Final

from raftkv.kv.ranges import Bounds

KEYS_PER_LIST: Final = 1_000
"""As many as a list is made with. One of twice as many is cut in two, one of half as many goes to its neighbour."""


class Keys:
    """Every key once, bytewise ascending."""

    __slots__ = ("_last", "_lists", "_owned")

    def __init__(self) -> None:
        self._lists: list[list[bytes]] = []
        """None of them empty."""
        self._last: list[bytes] = []
        """Of each list its last key."""
        self._owned = bytearray()
        """Of each list whether nobody else holds it."""

    def __iter__(self) -> Iterator[bytes]:
        return chain.from_iterable(self._lists)

    def freeze(self) -> list[list[bytes]]:
        """The keys as they are now; these lists never change again."""
        self._owned = bytearray(len(self._lists))
        return self._lists.copy()

    def append(self, keys: list[bytes]) -> None:
        """These keys, ascending and above all others, come at the end."""
        begins = 0
        if self._lists and len(self._lists[-1]) < KEYS_PER_LIST:
            last = self._own(len(self._lists) - 1)
            begins = KEYS_PER_LIST - len(last)
            last += keys[:begins]
            self._last[-1] = last[-1]
        for start in range(begins, len(keys), KEYS_PER_LIST):
            part = keys[start : start + KEYS_PER_LIST]
            self._lists.append(part)
            self._last.append(part[-1])
            self._owned.append(True)

    def shrink(self, count: int) -> None:
        """At least so many keys are gone from the end."""
        lists = 1 + count // KEYS_PER_LIST
        del self._lists[-lists:], self._last[-lists:], self._owned[-lists:]

    def add(self, key: bytes) -> None:
        """The key, which was not here, is."""
        if not self._lists:
            self.append([key])
            return
        place = bisect_left(self._last, key)
        if place == len(self._last):
            place -= 1
            keys = self._own(place)
            keys.append(key)
            self._last[place] = key
        else:
            keys = self._own(place)
            insort(keys, key)
        if len(keys) > 2 * KEYS_PER_LIST:
            self._cut(place)

    def remove(self, key: bytes) -> None:
        """The key, which was here, is gone."""
        place = bisect_left(self._last, key)
        keys = self._own(place)
        at = bisect_left(keys, key)
        assert keys[at] == key, "the order holds the same keys as the table"
        del keys[at]
        if len(keys) >= KEYS_PER_LIST // 2:
            self._last[place] = keys[-1]
        elif len(self._lists) > 1:
            self._join(max(place, 1))
        elif keys:
            self._last[place] = keys[-1]
        else:
            self._forget(place)

    def within(self, bounds: Bounds, *, reverse: bool) -> Iterator[bytes]:
        """The keys within the bounds, ascending, or descending."""
        if bounds.is_empty or not self._lists:
            return iter(())
        start, end = bounds
        last = len(self._lists) - 1
        first = min(bisect_left(self._last, start), last)
        if end is not None:
            last = min(bisect_left(self._last, end), last)
        if first == last:
            return self._part(first, bounds, reverse=reverse)
        places = range(first, last + 1)
        parts = (self._part(place, bounds, reverse=reverse) for place in (reversed(places) if reverse else places))
        return chain.from_iterable(parts)

    def _part(self, place: int, bounds: Bounds, *, reverse: bool) -> Iterator[bytes]:
        """Those of one list that are within the bounds."""
        keys, (start, end) = self._lists[place], bounds
        begins = bisect_left(keys, start)
        ends = len(keys) if end is None else bisect_left(keys, end)
        at = range(begins, ends)
        return map(keys.__getitem__, reversed(at) if reverse else at)

    def _own(self, place: int) -> list[bytes]:
        """The list, to be changed: another one than anybody has frozen."""
        if not self._owned[place]:
            self._lists[place] = self._lists[place].copy()
            self._owned[place] = True
        return self._lists[place]

    def _cut(self, place: int) -> None:
        keys = self._own(place)
        self._lists.insert(place + 1, keys[KEYS_PER_LIST:])
        del keys[KEYS_PER_LIST:]
        self._last.insert(place, keys[-1])
        self._owned.insert(place, True)

    def _join(self, place: int) -> None:
        """The list is one with that before it, or as good as: cut again where it became long."""
        joined = self._own(place - 1)
        joined += self._lists[place]
        self._forget(place)
        self._last[place - 1] = joined[-1]
        if len(joined) > 2 * KEYS_PER_LIST:
            self._cut(place - 1)

    def _forget(self, place: int) -> None:
        del self._lists[place], self._last[place], self._owned[place]
