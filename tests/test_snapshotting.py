"""Snapshots of one replica: when one is due, who waits for one, what becomes of it, and of one that is received."""

from __future__ import annotations

import pytest

from raftkv.core.effects import LogBase
from raftkv.core.types import Index, SnapshotId, Term
from raftkv.errors import ConfigError
from raftkv.outcomes import SnapshotRefused, SnapshotTaken, SnapshotUnderWay, SnapshotWhy
from raftkv.snapshotting import (
    FOLD_PAUSE_US,
    RETRY_US,
    Restored,
    SnapshotSettings,
    snapshot_is_due,
)
from tests.played_snapshots import CONFIGURATION, SETTINGS, Node, snapshot_id

# ----------------------------------------------------------------------------------------------- policy


@pytest.mark.parametrize(
    ("log_bytes", "entries", "last_size_bytes", "is_due"),
    [
        (0, 0, 0, False),
        (1000, 49, 0, False),
        (1001, 1, 0, True),
        (0, 50, 0, True),
        (1500, 1, 3000, False),
        (1501, 1, 3000, True),
        (1001, 1, 2001, True),
        (1001, 1, 2004, False),
        (0, 50, 10**9, True),
    ],
)
def test_a_snapshot_is_due_after_enough_log(log_bytes, entries, last_size_bytes, is_due) -> None:
    due = snapshot_is_due(SETTINGS, log_bytes=log_bytes, entries=entries, last_size_bytes=last_size_bytes)
    assert due is is_due


@pytest.mark.parametrize("name", ["snapshot_log_bytes", "snapshot_log_entries", "snapshot_bytes_per_s"])
def test_no_setting_is_zero(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        SnapshotSettings(**{name: 0})


def test_what_is_captured_is_all_that_is_applied() -> None:
    node = Node()
    node.apply(50, log_bytes=10)
    take = node.turn().take
    assert take is not None
    assert (take.base, take.stamp_ms) == (LogBase(Index(50), Term(1), CONFIGURATION), 9)
    assert int.from_bytes(take.state_hash, "little") == 7
    assert node.snapshots.index == 0, "nothing is in place yet"


def test_the_next_is_counted_from_the_capture_on() -> None:
    node = Node()
    node.is_due()
    node.apply(49, log_bytes=900)
    node.was_written()
    node.turn()
    assert node.snapshots.log_bytes == 900
    assert node.taken() is None
    node.apply(1)
    assert node.taken() == 100


def test_a_restart_counts_from_the_snapshot_it_began_with() -> None:
    node = Node(restored=Restored(snapshot_id(200, 4000), 5))
    assert (node.snapshots.index, node.snapshots.size_bytes) == (200, 4000)
    node.apply(10, log_bytes=1500)
    assert node.taken() is None, "half of the last one's size is more"
    node.apply(10, log_bytes=501)
    assert node.taken() == 220


def test_one_is_written_at_a_time_and_folded_before_the_next() -> None:
    node = Node()
    node.machine.slices = 3
    node.is_due()
    node.apply(60)
    assert [node.taken() for _ in range(3)] == [None] * 3
    node.was_prepared()
    assert [node.turn().place for _ in range(2)] == [True, False]
    node.is_in_place()
    assert node.taken() is None, "a slice each turn"
    assert node.machine.captures[0].slices == 0
    assert node.taken() == 110


def test_while_it_is_folded_turns_come_soon() -> None:
    node = Node()
    node.machine.slices = 2
    node.is_due()
    assert node.snapshots.next_deadline_us() is None
    node.was_prepared()
    node.turn()
    assert node.snapshots.next_deadline_us() == node.now_us + FOLD_PAUSE_US
    node.turn()
    assert node.snapshots.next_deadline_us() is None


def test_what_is_in_place_is_told_to_the_core() -> None:
    node = Node()
    node.is_due()
    node.was_written(size_bytes=321)
    assert node.raft.told == [("stored", 50, 321)]
    assert (node.snapshots.index, node.snapshots.size_bytes, node.snapshots.taken_count) == (50, 321, 1)


def test_one_that_a_received_snapshot_overtook_is_not() -> None:
    node = Node()
    node.is_due()
    node.receive(80)
    node.raft.state.log.base_index = 80
    node.was_written()
    assert [told[0] for told in node.raft.told] == ["written"]
    assert node.snapshots.index == 80


def test_none_is_begun_as_the_node_stops() -> None:
    node = Node()
    node.apply(50)
    assert node.turn(may_begin=False).take is None


# --------------------------------------------------------------------------------------------- failures


def test_after_a_failure_the_log_goes_on_and_another_is_tried_later() -> None:
    node = Node()
    node.apply(50, log_bytes=400)
    node.turn()
    node.snapshots.was_not_written(SnapshotWhy.DISK_FULL, "no room")
    assert (node.snapshots.failure, node.snapshots.failures_count) == ("no room", 1)
    assert node.snapshots.log_bytes == 400, "all of it is still there"
    assert node.raft.told == []
    node.turn()
    assert node.taken(after_us=RETRY_US - 1) is None
    assert node.snapshots.next_deadline_us() == node.now_us + 1
    assert node.taken(after_us=1) == 50
    node.was_written()
    assert node.snapshots.failure is None


def test_what_came_while_one_failed_is_log_too() -> None:
    node = Node()
    node.apply(50, log_bytes=400)
    node.turn()
    node.apply(1, log_bytes=300)
    node.snapshots.was_not_written(SnapshotWhy.DISK_FULL, "no room")
    assert node.snapshots.log_bytes == 700


def test_who_asks_has_it_tried_at_once() -> None:
    node = Node()
    node.is_due()
    node.snapshots.was_not_written(SnapshotWhy.FAILED, "an error")
    node.turn()
    node.ask()
    assert node.taken() == 50
    node.was_written()
    node.apply(50)
    assert node.taken() == 100, "what made the others wait is over"


def test_a_machine_that_raises_is_none_that_is_captured() -> None:
    node = Node()
    node.machine.raises = True
    node.apply(50)
    told = node.ask()
    assert node.taken() is None
    assert node.notes == ["capture_failed"]
    assert node.snapshots.failure == "the machine gave no snapshot: it raised ValueError"
    assert told == [SnapshotRefused(SnapshotWhy.FAILED, node.snapshots.failure)]
    assert node.taken() is None, "not again at once"
    node.machine.raises = False
    assert node.taken(after_us=RETRY_US) == 50


def test_a_state_that_is_wrong_is_not_kept() -> None:
    node = Node()
    node.apply(50)
    node.raft.disagrees_at = Index(40)
    assert node.taken() is None
    (refused,) = node.ask()
    assert refused.why is SnapshotWhy.REPLICAS_DISAGREE


@pytest.mark.parametrize("is_too_late", [False, True])
def test_a_state_that_is_found_wrong_while_it_is_written_is_not_kept(is_too_late: bool) -> None:
    """What was captured is as wrong; and the log, from which alone the state can be made anew, stays."""
    node = Node()
    node.is_due()
    told = node.ask()
    if is_too_late:
        node.was_prepared()
        assert node.turn().place
        node.raft.disagrees_at = Index(40)
        assert not node.turn().abandon
        node.is_in_place()
    else:
        node.raft.disagrees_at = Index(40)
        assert [node.turn().abandon for _ in range(2)] == [True, False]
        node.snapshots.was_not_written(SnapshotWhy.SHUTTING_DOWN, "given up")
    assert node.raft.told == []
    assert node.snapshots.failures_count == 0
    assert [one.why for one in told] == [SnapshotWhy.REPLICAS_DISAGREE]
    assert node.taken(after_us=RETRY_US) is None


@pytest.mark.parametrize("left", [None, snapshot_id(20)])
def test_in_place_of_a_damaged_one_another_is_taken(left: SnapshotId | None) -> None:
    """faults 58: followers may need the log from before it, which is gone; nothing need be written meanwhile."""
    node = Node(restored=Restored(snapshot_id(200), 5))
    assert node.taken() is None
    node.snapshots.was_damaged(left)
    assert node.snapshots.index == (0 if left is None else 20)
    assert node.taken() == 200
    node.snapshots.was_not_written(SnapshotWhy.DISK_FULL, "no room")
    node.turn()
    assert node.taken() is None
    assert node.taken(after_us=RETRY_US) == 200
    node.was_written()
    node.turn()
    assert node.snapshots.index == 200
    assert node.taken(after_us=RETRY_US) is None


# --------------------------------------------------------------------------------------------- who asks


def test_who_asks_hears_when_it_is_in_place() -> None:
    node = Node()
    node.apply(3)
    told = node.ask()
    assert node.taken() == 3 and told == []
    node.was_written(size_bytes=77)
    node.turn()
    assert told == [SnapshotTaken(3, 77, changed=True)]


def test_who_asks_for_what_is_there_hears_so() -> None:
    node = Node()
    node.is_due()
    node.was_written(size_bytes=77)
    assert node.ask() == [SnapshotTaken(50, 77, changed=False)]
    assert node.taken() is None


def test_who_asks_while_one_is_written_waits_for_it_or_for_another() -> None:
    node = Node()
    node.is_due()
    same = node.ask()
    node.apply(1)
    later = node.ask()
    node.was_written()
    assert node.taken() == 51
    assert same == [SnapshotTaken(50, 100, changed=True)] and later == []
    node.was_written(size_bytes=101)
    node.turn()
    assert later == [SnapshotTaken(51, 101, changed=True)]


def test_all_who_ask_share_one() -> None:
    node = Node()
    node.apply(3)
    told = [node.ask() for _ in range(5)]
    node.turn()
    node.was_written()
    node.turn()
    assert told == [[SnapshotTaken(3, 100, changed=True)]] * 5
    assert len(node.machine.captures) == 1


def test_who_does_not_wait_longer_hears_that_it_goes_on() -> None:
    node = Node()
    node.apply(3)
    told = node.ask(wait_us=5000)
    node.turn()
    assert node.snapshots.next_deadline_us() == 5000
    node.turn(after_us=5000)
    assert told == [SnapshotUnderWay(3)]
    node.was_written()
    node.turn()
    assert len(told) == 1


def test_where_nothing_is_applied_there_is_nothing_to_keep() -> None:
    (refused,) = Node().ask()
    assert refused == SnapshotRefused(SnapshotWhy.NOTHING_APPLIED, "nothing is applied here yet")


@pytest.mark.parametrize("why", [SnapshotWhy.DISK_FULL, SnapshotWhy.FAILED])
def test_who_waits_hears_why_there_is_none(why: SnapshotWhy) -> None:
    node = Node()
    node.apply(3)
    told = node.ask()
    node.turn()
    node.snapshots.was_not_written(why, "that is why")
    assert told == [SnapshotRefused(why, "that is why")]


def test_as_the_node_stops_nobody_waits_any_more() -> None:
    node = Node()
    node.apply(3)
    told = node.ask()
    node.turn()
    node.snapshots.give_up(SnapshotWhy.SHUTTING_DOWN, "it stops")
    node.turn()
    assert told == [SnapshotRefused(SnapshotWhy.SHUTTING_DOWN, "it stops")]


# ------------------------------------------------------------------------------------------ one received


def test_a_received_one_takes_the_place_of_the_state() -> None:
    """The old state goes before the new one comes: memory may have no room for both (faults 45)."""
    node = Node()
    node.apply(3)
    node.receive(80)
    load = node.turn(load=80).load
    assert load is not None and load.index == 80
    assert node.machine.asked == ["discard", "loading"]
    assert node.snapshots.is_loading and not node.machine.loadings[0].is_finished
    assert node.snapshots.was_loaded(load)
    assert node.machine.loadings[0].is_finished and not node.snapshots.is_loading
    assert node.raft.told[-1] == ("loaded", 80)
    assert (node.snapshots.index, node.snapshots.loaded_count) == (80, 1)


def test_what_keeps_a_piece_from_being_kept_is_trouble_while_it_comes() -> None:
    node = Node()
    node.snapshots.receive_failure = "no room"
    assert node.snapshots.trouble is None, "nobody sends any more"
    node.raft.receiving = (snapshot_id(80), 0)
    assert node.snapshots.trouble == "no room"
    node.snapshots.receive_failure, node.snapshots.failure = None, "a failure of its own"
    assert node.snapshots.trouble == "a failure of its own"


def test_a_piece_is_answered_and_changes_nothing_else() -> None:
    node = Node()
    node.receive(80, complete=False)
    assert node.raft.told == [("written", 100, None)]
    assert node.snapshots.index == 0 and not node.snapshots.is_loading


def test_what_a_capture_noted_goes_in_slices_though_a_received_one_waits() -> None:
    """faults 45: let go of at once, 400,000 notes stop the loop for more than 50 ms."""
    node = Node()
    node.machine.slices = 3
    node.is_due()
    assert node.turn(load=80).abandon
    node.snapshots.was_not_written(SnapshotWhy.SHUTTING_DOWN, "given up")
    for _ in range(2):
        work = node.turn()
        assert not work.abandon and work.load is None
        assert node.snapshots.next_deadline_us() == node.now_us + FOLD_PAUSE_US
    assert node.turn().load is not None
    assert node.machine.captures[0].slices == 0


def test_what_a_loaded_one_holds_is_not_log_since_the_last() -> None:
    node = Node()
    node.apply(3, log_bytes=900)
    node.receive(800)
    load = node.turn(load=800).load
    assert load is not None and node.snapshots.was_loaded(load)
    assert node.snapshots.log_bytes == 0
    node.apply(1, log_bytes=9)
    assert node.taken() == 801
    node.was_written()
    node.apply(48, log_bytes=991)
    assert node.taken() is None
    node.apply(2)
    assert node.taken() == 851


@pytest.mark.parametrize("is_restarted", [False, True])
def test_one_from_another_node_is_soon_followed_by_one_of_its_own(is_restarted: bool) -> None:
    """faults 58: the log begins after it, so were it damaged nothing could stand in; of two each can."""
    node = Node(restored=Restored(snapshot_id(80), 5), log_begins_after=80) if is_restarted else Node()
    if not is_restarted:
        node.receive(80)
        load = node.turn(load=80).load
        assert load is not None and node.snapshots.was_loaded(load)
    assert node.taken() is None, "it would be the same"
    node.apply(1)
    assert node.taken() == 81
    node.snapshots.was_not_written(SnapshotWhy.DISK_FULL, "no room")
    node.turn()
    assert node.taken() is None
    assert node.taken(after_us=RETRY_US) == 81
    node.was_written()
    node.apply(49)
    assert node.taken() is None


def test_who_was_given_up_once_is_not_for_ever() -> None:
    node = Node()
    node.is_due()
    assert node.turn(load=80).abandon
    node.snapshots.was_not_written(SnapshotWhy.SHUTTING_DOWN, "given up")
    load = node.turn().load
    assert load is not None and node.snapshots.was_loaded(load)
    node.is_due()
    node.snapshots.was_not_written(SnapshotWhy.DISK_FULL, "no room")
    node.turn()
    assert (node.snapshots.failure, node.taken()) == ("no room", None)
    assert node.taken(after_us=RETRY_US) == 130
    assert node.turn(load=180).abandon


def test_while_one_is_loaded_nothing_is_captured() -> None:
    node = Node()
    node.receive(80)
    load = node.turn(load=80).load
    node.apply(50)
    assert node.taken() is None
    (refused,) = node.ask()
    assert refused.why is SnapshotWhy.LOADING
    assert load is not None and node.snapshots.was_loaded(load)
    assert node.snapshots.log_bytes == 0


def test_a_newer_one_is_loaded_instead() -> None:
    """faults 42: what came first is never shown as the state."""
    node = Node()
    first = node.turn(load=80).load
    assert node.turn(load=120).load is None, "one at a time"
    assert first is not None and not node.snapshots.was_loaded(first)
    assert not node.machine.loadings[0].is_finished
    second = node.turn().load
    assert second is not None and second.index == 120
    assert node.snapshots.was_loaded(second)
    assert [told for told in node.raft.told if told[0] == "loaded"] == [("loaded", 120)]


def test_one_whose_file_a_newer_one_replaced_is_begun_anew() -> None:
    node = Node()
    first = node.turn(load=80).load
    assert first is not None
    node.snapshots.was_not_loaded(first)
    assert node.snapshots.is_loading, "what the machine held before is gone: there is no state to read"
    second = node.turn(load=120).load
    assert second is not None and second.index == 120


def test_a_capture_that_is_being_written_is_given_up_first() -> None:
    node = Node()
    node.is_due()
    work = node.turn(load=80)
    assert work.abandon and work.load is None
    assert not node.turn().abandon, "said once"
    node.snapshots.was_not_written(SnapshotWhy.SHUTTING_DOWN, "given up")
    assert node.snapshots.failures_count == 0
    assert node.turn().load is not None
    assert node.machine.captures[0].slices == 0, "it is let go of before its state is"


def test_a_capture_that_was_written_all_the_same_counts() -> None:
    node = Node()
    node.is_due()
    node.was_prepared()
    assert node.turn().place
    assert node.turn(load=80).load is not None, "nobody reads the old state"
    node.is_in_place()
    load = node.snapshots._loading
    assert load is not None and node.snapshots.was_loaded(load)
    node.apply(50)
    assert node.taken() == 130
    node.snapshots.was_not_written(SnapshotWhy.FAILED, "a failure of its own")
    assert node.snapshots.failures_count == 1


def test_who_waits_for_one_that_is_received_has_it() -> None:
    node = Node()
    node.is_due()
    told = node.ask()
    node.receive(80, size_bytes=500)
    node.turn(load=80)
    assert told == [SnapshotTaken(80, 500, changed=True)]


def test_work_is_false_where_there_is_none() -> None:
    node = Node()
    assert not node.turn()
    node.apply(50)
    assert node.turn()
