"""A node of PySyncObj inside this process; its clients are calls, each begun when the one before came back.

Tuned: it ticks every millisecond and sends every two; as it comes, 50 and 100. Its log is not compacted while it is
measured: as it comes, every 5,000 entries the thread that serves pickles and compresses the whole state, which takes
1.7 s of CPU with 100,000 keys. It keeps nothing on disk by default.
It has no read but that of whichever node is asked, which may be stale: a linearizable get goes through its log.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from pysyncobj import SyncObj, SyncObjConf, replicated

from benchmarks.generators import closing, lines
from benchmarks.generators.closing import Count
from benchmarks.work import Work, drawn_keys, key

TICK_S: Final = 0.001
SEND_S: Final = 0.002
UNCOMPACTED_ENTRIES: Final = 100_000_000
UNCOMPACTED_S: Final = 3600
FILLING_AT_ONCE: Final = 1024
FILL_TIMEOUT_S: Final = 600.0


class Values(SyncObj):  # type: ignore[misc]
    """Values by key."""

    def __init__(self, own: str, others: list[str]) -> None:
        tuned = SyncObjConf(
            autoTickPeriod=TICK_S,
            appendEntriesPeriod=SEND_S,
            logCompactionMinEntries=UNCOMPACTED_ENTRIES,
            logCompactionMinTime=UNCOMPACTED_S,
        )
        super().__init__(own, others, tuned)
        self._values: dict[str, bytes] = {}

    @replicated  # type: ignore[untyped-decorator]
    def put(self, name: str, value: bytes) -> None:
        """Through the log."""
        self._values[name] = value

    @replicated  # type: ignore[untyped-decorator]
    def get(self, name: str) -> bytes | None:
        """Through the log too, so that it is linearizable."""
        return self._values.get(name)


def fill(values: Values, told: dict[str, Any]) -> None:
    """Every key is there."""
    value, numbers, done = b"v" * told["value_bytes"], iter(range(told["keys"])), threading.Event()
    left = [told["keys"]]

    def next_one(_: Any = None, error: Any = None, *, first: bool = False) -> None:
        if error:
            raise RuntimeError(f"PySyncObj refused a put: {error}")
        left[0] -= not first
        number = next(numbers, None)
        if number is not None:
            values.put(key(number), value, callback=next_one)
        elif left[0] == 0:
            done.set()

    for _ in range(min(FILLING_AT_ONCE, told["keys"])):
        next_one(first=True)
    if not done.wait(FILL_TIMEOUT_S):
        raise TimeoutError(f"{left[0]} keys were not filled")


def measured(values: Values, work: Work) -> dict[str, Any]:
    """One run."""
    value, wanted = b"v" * work.value_bytes, [key(number) for number in drawn_keys(work)]
    count, left, over = Count(work.seconds), [work.clients], threading.Event()

    def client(at: int) -> Callable[[], None]:
        place, began = [at], [0.0]

        def ask() -> None:
            began[0] = time.perf_counter()
            name = wanted[place[0] % len(wanted)]
            place[0] += 1
            if work.verb == "put":
                values.put(name, value, callback=answered)
            else:
                values.get(name, callback=answered)

        def answered(_: Any, error: Any) -> None:
            now = time.perf_counter()
            if error:
                raise RuntimeError(f"PySyncObj refused a call: {error}")
            count.taken_s.append(now - began[0])
            if now < count.until_s:
                ask()
                return
            left[0] -= 1
            if left[0] == 0:
                over.set()

        return ask

    for number in range(work.clients):
        client(len(wanted) * number // work.clients)()
    if not over.wait(work.seconds + 20):
        raise TimeoutError(f"{left[0]} calls of PySyncObj did not come back")
    return count.told()


def main() -> None:
    """Be a node of the cluster, and do what is told in lines."""
    parser = argparse.ArgumentParser()
    parser.add_argument("own")
    parser.add_argument("others", nargs="+")
    given = parser.parse_args()
    values = Values(given.own, given.others)
    for told in lines.heard():
        if told["do"] == "fill":
            fill(values, told)
            closing.say({})
        elif told["do"] == "run":
            closing.say(measured(values, lines.work_of(told)))
        else:
            closing.say({"leads": bool(values.isReady() and values._isLeader())})
    values.destroy()


if __name__ == "__main__":
    main()
