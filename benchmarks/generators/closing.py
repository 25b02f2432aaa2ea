"""What all of our generators share: when to stop, what was counted, and how it is told."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Coroutine
from typing import Any

from benchmarks.figures import latencies_ms


class Count:
    """Operations of one run and how long each took; begins when made."""

    def __init__(self, seconds: float) -> None:
        self.taken_s: list[float] = []
        self.began_s = time.perf_counter()
        self.until_s = self.began_s + seconds

    def told(self) -> dict[str, Any]:
        """As figures.Run has it; what was begun in time counts, and the time that it took too."""
        seconds = time.perf_counter() - self.began_s
        return {"operations": len(self.taken_s), "seconds": seconds, "latency_ms": latencies_ms(self.taken_s)}


def say(told: dict[str, Any]) -> None:
    """One line, at once."""
    print(json.dumps(told), flush=True)  # noqa: T201 - what it is for


def loop_factory() -> Callable[[], Any] | None:
    """Uvloop where it is there."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], Any] = uvloop.new_event_loop
    return factory


def run(main: Coroutine[Any, Any, Any]) -> Any:
    """On the fastest event loop there is."""
    import asyncio

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(main)
