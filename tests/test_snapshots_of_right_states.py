"""A snapshot counts once its state is known to be a majority's (faults 61), or where that takes too long."""

from __future__ import annotations

from typing import Any

import pytest

from raftkv.core.types import Index
from raftkv.outcomes import SnapshotTaken, SnapshotWhy
from raftkv.snapshotting import RETRY_US
from tests.played_snapshots import SETTINGS, Node


def unproved(**how: Any) -> Node:
    """A snapshot of all up to 50 is whole, and no majority has said that it has that state."""
    node = Node(**how)
    node.raft.agrees_at = Index(49)
    node.is_due()
    node.was_prepared()
    assert not node.turn().place
    return node


def test_a_snapshot_counts_once_a_majority_has_the_same_state() -> None:
    """faults 61: else a wrong state would be everybody's before anybody compares it."""
    node = unproved()
    assert node.raft.hashes == [(50, 7)], "the others' can be compared with it"
    assert (node.snapshots.index, node.snapshots.is_taking) == (0, True)
    node.apply(10)
    node.raft.agrees_at = Index(50)
    assert [node.turn().place for _ in range(2)] == [True, False]
    assert node.raft.told == [], "it is not in place yet"
    node.is_in_place()
    assert node.raft.told == [("stored", 50, 100)]
    assert (node.snapshots.unproved_count, node.notes, node.snapshots.is_taking) == (0, [], False)


def test_that_a_later_state_is_right_is_enough() -> None:
    """Between two indexes at which states are compared there may be many entries."""
    node = unproved()
    node.raft.agrees_at = Index(1024)
    assert node.turn().place


@pytest.mark.parametrize(("entries", "log_bytes", "counts"), [(199, 4000, False), (200, 0, True), (1, 4004, True)])
def test_without_a_word_it_counts_when_very_much_log_has_come(entries: int, log_bytes: int, counts: bool) -> None:
    """Or one node that is away would keep all logs from ever getting shorter."""
    node = unproved()
    node.apply(entries, log_bytes=log_bytes)
    assert node.turn(after_us=10**12).place is counts
    assert (node.snapshots.unproved_count, node.notes) == ((1, ["snapshot_unproved"]) if counts else (0, []))
    if counts:
        node.is_in_place()
        assert node.raft.told == [("stored", 50, 100)]
        assert node.taken() == 50 + entries, "what came meanwhile counts for the next"


def test_where_nothing_comes_it_waits_for_as_long_as_it_takes() -> None:
    node = unproved()
    assert node.snapshots.next_deadline_us() is None
    assert not node.turn(after_us=10**12).place


@pytest.mark.parametrize("asks_first", [True, False])
def test_for_who_asks_it_counts_after_a_while(asks_first: bool) -> None:
    patience_us = SETTINGS.proof_wait_ms * 1000
    node = Node()
    node.raft.agrees_at = Index(0)
    node.apply(50)
    told = node.ask(wait_us=10**9) if asks_first else []
    node.turn()
    node.was_prepared()
    node.turn()
    if not asks_first:
        told = node.ask(wait_us=10**9)
        node.turn()
    assert node.snapshots.next_deadline_us() == (10**9 if patience_us > 10**9 else patience_us)
    assert not node.turn(after_us=patience_us - 1).place
    assert node.turn(after_us=1).place
    assert told == []
    node.is_in_place()
    node.turn()
    assert told == [SnapshotTaken(50, 100, changed=True)]
    assert (node.snapshots.unproved_count, node.notes) == (1, ["snapshot_unproved"])


def test_where_the_log_has_no_room_it_counts_after_a_while() -> None:
    """faults 56: puts are refused, so nothing comes that could be compared, and nothing goes that takes the room."""
    node = unproved()
    node.snapshots.room_is_short = True
    assert not node.turn().place
    node.snapshots.room_is_short = False
    assert node.snapshots.next_deadline_us() == SETTINGS.proof_wait_ms * 1000
    assert node.turn(after_us=SETTINGS.proof_wait_ms * 1000).place


def test_a_machine_without_hashes_has_no_state_that_could_be_compared() -> None:
    node = Node()
    node.machine.hash = None
    node.raft.agrees_at = Index(0)
    node.is_due()
    node.was_written()
    assert (node.raft.hashes, node.snapshots.unproved_count) == ([], 0)


def test_while_one_waits_none_is_captured_also_for_who_asks() -> None:
    node = unproved()
    node.apply(10)
    told = node.ask()
    assert node.taken() is None
    node.raft.agrees_at = Index(60)
    assert node.turn().place
    assert node.taken() is None
    node.is_in_place()
    assert told == [] and node.taken() == 60


@pytest.mark.parametrize("load", [None, 80])
def test_one_that_waits_goes_when_its_state_is_wrong_or_replaced(load: int | None) -> None:
    node = unproved()
    if load is None:
        node.raft.disagrees_at = Index(49)
    works = [node.turn(load=load), node.turn()]
    assert [(work.abandon, work.place) for work in works] == [(True, False), (False, False)]
    node.snapshots.was_not_written(SnapshotWhy.SHUTTING_DOWN, "given up")
    assert (node.raft.told, node.snapshots.failures_count, node.snapshots.is_taking) == ([], 0, False)


def test_one_that_became_whole_as_it_was_given_up_is_not_put_in_place() -> None:
    node = Node()
    node.is_due()
    assert node.turn(load=80).abandon
    node.was_prepared()
    works = [node.turn() for _ in range(2)]
    assert not any(work.place or work.abandon for work in works)
    node.snapshots.was_not_written(SnapshotWhy.SHUTTING_DOWN, "given up")
    assert (node.snapshots.index, node.snapshots.failures_count) == (0, 0)


def test_no_room_for_its_name_is_a_failure_as_any() -> None:
    node = unproved()
    node.raft.agrees_at = Index(50)
    assert node.turn().place
    node.snapshots.was_not_written(SnapshotWhy.DISK_FULL, "no room")
    assert (node.snapshots.failure, node.snapshots.index, node.snapshots.is_taking) == ("no room", 0, False)
    assert node.taken(after_us=RETRY_US) == 50


def test_a_state_that_is_found_wrong_as_it_is_captured_is_not() -> None:
    node = Node()

    def found(index: Index, state_hash: bytes) -> None:
        node.raft.disagrees_at = index

    node.raft.machine_hash = found  # type: ignore[method-assign]
    node.apply(50)
    assert not node.turn() and node.machine.captures == []
