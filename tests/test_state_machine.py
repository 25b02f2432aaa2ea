"""What a machine has that writes nothing but the four methods: it is captured and loaded by its snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from raftkv.kv.machine import KeyValueMachine
from raftkv.node.embedding import CarefulMachine
from raftkv.state_machine import BLOCK_BYTES, Capture, Loading, LogEntry, StateMachine


class Collector(StateMachine):
    """Keeps all that it was told; a snapshot is that, one after the other."""

    def __init__(self) -> None:
        self.told = b""

    def apply_batch(self, entries: Sequence[LogEntry]) -> list[int]:
        for entry in entries:
            self.told += entry.command
        return [len(self.told)] * len(entries)

    def query(self, query: Any) -> int:
        return len(self.told)

    def snapshot(self) -> bytes:
        return self.told

    def restore(self, snapshot: bytes) -> None:
        if b"\xff" in snapshot:
            raise ValueError("not ours")
        self.told = snapshot


@pytest.mark.parametrize("size", [0, 1, BLOCK_BYTES, 3 * BLOCK_BYTES + 5])
def test_a_capture_is_the_snapshot_of_its_moment_in_blocks(size):
    machine, other = Collector(), Collector()
    machine.apply_batch([LogEntry(1, 0, bytes(size))])
    capture = machine.capture()
    machine.apply_batch([LogEntry(2, 0, b"later")])
    blocks = list(capture.blocks())
    assert all(0 < len(block) <= BLOCK_BYTES for block in blocks) and capture.fold(1_000)
    loading = other.loading()
    for block in blocks:
        loading.add(block)
        assert other.told == b"", "nothing has changed before the end"
    loading.finish()
    assert other.told == bytes(size) and list(loading.free()) == []


def test_what_restore_refuses_changes_nothing():
    machine = Collector()
    machine.apply_batch([LogEntry(1, 0, b"kept")])
    loading = machine.loading()
    loading.add(b"\xff")
    with pytest.raises(ValueError, match="not ours"):
        loading.finish()
    assert machine.told == b"kept"
    assert list(machine.discard()) == [] and machine.told == b"kept", "who has not written it loses nothing by it"


def test_an_embedders_own_capture_and_loading_are_the_ones_that_are_used():
    class Own(Collector):
        def capture(self) -> Capture:
            return KeyValueMachine().capture()

        def loading(self) -> Loading:
            return KeyValueMachine().loading()

    own = CarefulMachine(Own())
    assert type(own.capture()) is type(KeyValueMachine().capture())
    assert type(own.loading()) is type(KeyValueMachine().loading())
