"""A machine driven one command at a time, for tests that tell a story."""

from __future__ import annotations

from raftkv.kv.answers import Answer, TxnDone
from raftkv.kv.commands import Command, Numbered, encode
from raftkv.kv.machine import KeyValueMachine
from raftkv.kv.queries import Get
from raftkv.kv.record import Record
from raftkv.state_machine import LogEntry, StateMachine


class Store:
    """Counts log indexes by itself; time stands where the last stamp put it."""

    def __init__(self) -> None:
        self.machine = KeyValueMachine()
        self.index = 0
        self.stamp_ms = 0

    def apply(self, command: Command, numbered: Numbered | None = None, *, at_ms: int | None = None) -> Answer:
        return self.apply_bytes(encode(command, numbered), at_ms=at_ms)

    def apply_bytes(self, encoded: bytes, *, at_ms: int | None = None) -> Answer:
        self.index += 1
        self.stamp_ms = self.stamp_ms if at_ms is None else at_ms
        as_embedders_see_it: StateMachine = self.machine
        (answer,) = as_embedders_see_it.apply_batch([LogEntry(self.index, self.stamp_ms, encoded)])
        return answer

    def restart_from_snapshot(self) -> None:
        """The same state in a new machine: nothing but the snapshot comes over."""
        snapshot = self.machine.snapshot()
        self.machine = KeyValueMachine()
        self.machine.restore(snapshot)

    def get(self, key: bytes) -> Record | None:
        return self.machine.query(Get(key)).record

    @property
    def hash(self) -> int:
        return self.machine.state_hash()


def done(answer: Answer) -> TxnDone:
    """The transaction was executed."""
    assert isinstance(answer, TxnDone), answer
    return answer


def typed(answer: object) -> object:
    """Tuples of different kinds compare equal; with their types they do not."""
    return type(answer), [typed(field) for field in answer] if isinstance(answer, tuple | list) else answer
