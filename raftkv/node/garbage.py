"""What a full collection of garbage has once looked at and kept is not looked at again.

Told: by the interpreter, that a collection is over. Tells nobody. May never know: what the objects are.

A store of a million keys makes every full collection take about 40 ms, in which no thread goes on, though nothing of it
is garbage. What survived one is taken out of all later ones (``gc.freeze``), so each looks at what came since, and is
short. What was taken out is still freed when nobody refers to it; lost is only what later becomes garbage in a circle.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

LONG_S: Final = 0.005
"""A full collection that takes longer has too much to look at. A small process never freezes anything."""
_FULL: Final = 2


@contextmanager
def short_collections(*, long_s: float = LONG_S) -> Iterator[None]:
    """Within it, and for the whole process."""
    began_s = 0.0

    def collection(phase: str, info: dict[str, int]) -> None:
        nonlocal began_s
        if info["generation"] != _FULL:
            return
        if phase == "start":
            began_s = time.perf_counter()
        elif time.perf_counter() - began_s > long_s:
            gc.freeze()

    gc.callbacks.append(collection)
    try:
        yield
    finally:
        gc.callbacks.remove(collection)
