"""Durations and sizes counted at next to no cost: whole numbers in slots, made into statistics when somebody asks.

One thread counts, another may read: a reader can miss the newest value, and is never wrong about older ones.
"""

from __future__ import annotations

from typing import Final, NamedTuple

_BITS: Final = 64
"""No value of ours is longer."""
SLOT_US: Final = 10_000_000
SLOTS: Final = 6
WINDOW_MS: Final = SLOT_US * SLOTS // 1000
"""What Recent looks back on at most; it drops ten seconds at once, so at least 50 s."""


class Histogram:
    """How often a value was how large, in buckets that double."""

    __slots__ = ("buckets", "total")

    def __init__(self) -> None:
        self.buckets = [0] * (_BITS + 1)
        """By the number of binary digits: bucket b has the values from 2^(b-1) to 2^b - 1."""
        self.total = 0
        """The sum of all values."""

    def add(self, value: int) -> None:
        """One value more; not negative."""
        self.buckets[value.bit_length()] += 1
        self.total += value

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self.buckets)

    def up_to(self, bits: int) -> int:
        """How many values were below 2^bits."""
        return sum(self.buckets[: bits + 1])


class Summary(NamedTuple):
    """What a time's worth of values was like."""

    values_count: int
    p50: int
    p99: int
    longest: int


NOTHING: Final = Summary(0, 0, 0, 0)


class _Slot:
    __slots__ = ("counts", "longest", "number")

    def __init__(self) -> None:
        self.number = -1
        self.counts: dict[int, int] = {}
        self.longest = 0


class Recent:
    """Values of the last minute, exact to a quarter of themselves. Bounded: a slot for each ten seconds."""

    __slots__ = ("_slots",)

    def __init__(self) -> None:
        self._slots = [_Slot() for _ in range(SLOTS)]

    def add(self, value: int, *, now_us: int) -> None:
        """One value more; not negative."""
        number = now_us // SLOT_US
        slot = self._slots[number % SLOTS]
        if slot.number != number:
            slot.number, slot.counts, slot.longest = number, {}, 0
        place = _place(value)
        slot.counts[place] = slot.counts.get(place, 0) + 1
        if value > slot.longest:
            slot.longest = value

    def summary(self, *, now_us: int) -> Summary:
        """What the last minute was like."""
        oldest = now_us // SLOT_US - SLOTS + 1
        counts: dict[int, int] = {}
        longest = 0
        for slot in self._slots:
            if slot.number >= oldest:
                longest = max(longest, slot.longest)
                for place, count in list(slot.counts.items()):
                    counts[place] = counts.get(place, 0) + count
        total = sum(counts.values())
        if not total:
            return NOTHING
        p50, p99 = (min(_largest_of(_reached(counts, -(-total * part // 100))), longest) for part in (50, 99))
        return Summary(total, p50, p99, longest)


def _reached(counts: dict[int, int], wanted: int) -> int:
    """The place at which so many values have been passed."""
    passed = 0
    for place in sorted(counts):
        passed += counts[place]
        if passed >= wanted:
            break
    return place


def _place(value: int) -> int:
    """Four places for every doubling; the values 0 to 3 have one each."""
    shift = value.bit_length() - 3
    return value if shift <= 0 else shift * 4 + (value >> shift)


def _largest_of(place: int) -> int:
    """The largest value that has this place."""
    if place < 8:
        return place
    shift = place // 4 - 1
    return ((place % 4 + 5) << shift) - 1
