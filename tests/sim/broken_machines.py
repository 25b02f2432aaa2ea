"""State machines that are wrong, each in the way in which somebody might write it; and one that is right."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Sequence
from random import Random
from typing import Any

from raftkv.errors import RaftkvError
from raftkv.state_machine import LogEntry


class Bag:
    """Words that were put in, each with how often; right as it is. It inherits from nothing."""

    def __init__(self) -> None:
        self.words: dict[str, int] = {}

    def apply_batch(self, entries: Sequence[LogEntry]) -> list[Any]:
        return [self.put(entry) for entry in entries]

    def put(self, entry: LogEntry) -> Any:
        word = entry.command.decode()
        self.words[word] = self.words.get(word, 0) + 1
        return self.words[word]

    def query(self, query: Any) -> Any:
        return self.words.get(query, 0)

    def snapshot(self) -> bytes:
        return json.dumps(self.words, sort_keys=True).encode()

    def restore(self, snapshot: bytes) -> None:
        self.words = json.loads(snapshot)

    def random_command(self, rng: Random) -> bytes:
        return b"word %d" % rng.randrange(20)

    def random_query(self, rng: Random) -> Any:
        return f"word {rng.randrange(20)}"


class ReadsTheClock(Bag):
    def put(self, entry: LogEntry) -> Any:
        self.words[entry.command.decode()] = time.monotonic_ns()
        return True


class DrawsRandomness(Bag):
    def put(self, entry: LogEntry) -> Any:
        return random.random()


class CountsItsCalls(Bag):
    """How replicas happen to get their batches shows in the answers."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def apply_batch(self, entries: Sequence[LogEntry]) -> list[Any]:
        self.calls += 1
        return [self.put(entry) + 1000 * self.calls for entry in entries]


class Raises(Bag):
    def put(self, entry: LogEntry) -> Any:
        if self.words.get("word 3", 0) > 1:
            raise RaftkvError("this cannot be put in")
        return super().put(entry)


class ForgetsAnAnswer(Bag):
    def apply_batch(self, entries: Sequence[LogEntry]) -> list[Any]:
        return [answer for answer in super().apply_batch(entries) if answer < 3]


class SnapshotsLessThanThereIs(Bag):
    def __init__(self) -> None:
        super().__init__()
        self.last = ""

    def put(self, entry: LogEntry) -> Any:
        before, self.last = self.last, entry.command.decode()
        return before


class ChangesInQueries(Bag):
    def query(self, query: Any) -> Any:
        return self.words.setdefault(query, 0)


class KeepsAnswersToQueries(Bag):
    """Whoever asks a second time hears what was so the first time."""

    def __init__(self) -> None:
        super().__init__()
        self.told: dict[str, Any] = {}

    def query(self, query: Any) -> Any:
        return self.told.setdefault(query, super().query(query))


class BreaksItsOwnRule(Bag):
    def check(self) -> None:
        assert sum(self.words.values()) < 10, "ten is too many"


class IteratesASet(Bag):
    """The order of a set of words is another in every process."""

    def put(self, entry: LogEntry) -> Any:
        super().put(entry)
        for word in {*self.words}:
            return word
        return None


class EndsItsProcess(Bag):
    def put(self, entry: LogEntry) -> Any:
        os._exit(7)


class NeverEnds(Bag):
    def put(self, entry: LogEntry) -> Any:
        while True:
            pass


FOUND = {
    ReadsTheClock: "equal states",
    DrawsRandomness: "equal answers",
    CountsItsCalls: "equal answers",
    Raises: "apply never raises",
    ForgetsAnAnswer: "one answer for each entry",
    SnapshotsLessThanThereIs: "equal answers",
    ChangesInQueries: "equal states",
    KeepsAnswersToQueries: "a read is the state at its index",
    BreaksItsOwnRule: "the machine's own check",
}
"""By what; a set's order shows only in another process."""
