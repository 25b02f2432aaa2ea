"""A list that fails, made as short as it can be made by leaving things out.

Told: the things, and whether some of them, in their order, still fail. Tells: a part that still fails and that fails
no more once any single thing is left out, or the shortest part that was found before the tries ran out. Knows not
what the things are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def minimized(items: Sequence[Item], fails: Callable[[list[Item]], bool], *, tries_max: int) -> list[Item]:
    """``items`` fails as a whole. Ever smaller pieces are left out, and stay out where it fails without them."""
    left = list(items)
    tries = 0
    size = max(1, len(left) // 2)
    while True:
        shorter = False
        start = 0
        while start < len(left):
            without = left[:start] + left[start + size :]
            if tries >= tries_max:
                return left
            tries += bool(without)
            if without and fails(without):
                left, shorter = without, True
            else:
                start += size
        if size == 1 and not shorter:
            return left
        size = max(1, size // 2)


def lowest(highest: int, fails: Callable[[int], bool]) -> int:
    """A number from 0 to ``highest``, which fails, that fails too: found by halving, as if every greater one failed."""
    low = 0
    while low < highest:
        middle = (low + highest) // 2
        if fails(middle):
            highest = middle
        else:
            low = middle + 1
    return highest
