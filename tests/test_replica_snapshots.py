"""The replica on snapshots: what it captures, what it lets nobody read, and what it goes on from."""

from __future__ import annotations

from raftkv.core.effects import LogBase, SnapshotPiece
from raftkv.core.messages import (
    AppendEntries,
    AppendEntriesReply,
    HeartbeatReply,
    InstallSnapshot,
    InstallSnapshotReply,
)
from raftkv.core.settings import RaftSettings
from raftkv.core.types import Index, Role, SnapshotId, Term
from raftkv.outcomes import Answered, Applied, Consistency, SnapshotTaken, TooStale, Unknown
from raftkv.replica import Replica
from raftkv.snapshotting import BegunLoading, Restored, SnapshotSettings, SnapshotWork, TakenCapture
from tests.core.lone import configuration_entry, voters
from tests.lone_replica import LoneReplica, leading

DUE_SOON = SnapshotSettings(snapshot_log_entries=4)
NO_TAIL = RaftSettings(log_tail_entries=1, log_tail_bytes=1)
RECEIVED = SnapshotId(Index(40), Term(3), 5, 1)


def works(lone: LoneReplica) -> list[SnapshotWork]:
    """What was wanted of snapshots so far, and not looked at."""
    found = [work.snapshots for work in lone.works if work.snapshots]
    lone.works.clear()
    return found


def taken(lone: LoneReplica) -> TakenCapture:
    (work,) = works(lone)
    assert work.take is not None
    return work.take


def in_place(lone: LoneReplica, capture: TakenCapture, *, size_bytes: int = 100) -> SnapshotId:
    """Its file is whole, others have that state too, and it is in place."""
    lone.replica.snapshots.was_prepared()
    assert lone.raft.state.office is not None
    told = HeartbeatReply(lone.raft.term, lone.raft.state.office.last_round, capture.base.index, capture.state_hash)
    lone.says("b", told)
    (work,) = works(lone)
    assert work.place
    snapshot = SnapshotId(capture.base.index, capture.base.term, size_bytes, 7)
    lone.replica.snapshots.was_written(snapshot)
    lone.turn()
    return snapshot


def loading(lone: LoneReplica, *, leader: str = "b", term: int = 3) -> BegunLoading:
    """That leader has sent a snapshot, whole, and this node begins to load it."""
    lone.says(leader, InstallSnapshot(Term(term), RECEIVED, 0, b"state"))
    (work,) = works(lone)
    (write,) = work.writes
    base = LogBase(RECEIVED.index, RECEIVED.term, lone.raft.configuration)
    lone.replica.snapshots.was_received(write, 5, base)
    lone.turn()
    (begun,) = [work.load for work in works(lone) if work.load is not None]
    assert lone.replica.snapshots.is_loading
    return begun


def loaded(lone: LoneReplica, begun: BegunLoading, *, stamp_ms: int = 0) -> None:
    for _ in begun.discarding:
        pass
    begun.loading.add(b"x\ny\nz")
    assert lone.replica.snapshot_was_loaded(begun, stamp_ms)
    lone.turn()


# -------------------------------------------------------------------------------------- of its own state


def test_a_snapshot_is_of_all_that_is_applied_and_of_the_time_then() -> None:
    lone = leading(snapshot_settings=DUE_SOON)
    lone.turn(7_000)
    for name in "xyz":
        lone.submit(name)
        lone.acknowledge("b")
    capture = taken(lone)
    assert (capture.base.index, capture.base.term) == (4, lone.raft.term)
    assert capture.base.configuration == lone.raft.configuration
    assert capture.stamp_ms == lone.replica.last_stamp_ms >= 7
    assert b"".join(capture.capture.blocks()) == b"x\ny\nz"


def test_the_log_before_it_may_go_once_it_is_in_place() -> None:
    lone = leading(snapshot_settings=DUE_SOON, raft_settings=NO_TAIL)
    for name in "xyz":
        lone.submit(name)
        lone.acknowledge()
    capture = taken(lone)
    assert lone.raft.state.log.base_index == 0
    in_place(lone, capture)
    assert lone.raft.state.log.base_index == 4
    assert [work.drop_log_through for work in lone.works if work.drop_log_through] == [4]


def test_who_asks_for_one_hears_of_it_in_the_turn_in_which_it_is_in_place() -> None:
    lone = leading()
    told: list[object] = []
    lone.replica.snapshots.ask(told.append, wait_us=10**6)
    lone.turn()
    snapshot = in_place(lone, taken(lone), size_bytes=55)
    assert told == [SnapshotTaken(snapshot.index, 55, changed=True)]


def test_a_full_log_waits_no_longer_for_a_majoritys_word_than_who_asks() -> None:
    lone = leading(snapshot_settings=DUE_SOON)
    for name in "xyz":
        lone.submit(name)
        lone.acknowledge("b")
    taken(lone)
    lone.replica.snapshots.was_prepared()
    lone.replica.disk_is_short = True
    lone.turn()
    assert works(lone) == []
    for _ in range(51):
        lone.turn(100_000)
        lone.echo("b")
    (work,) = works(lone)
    assert work.place and lone.raft.agrees_at == 0


def test_a_node_that_joins_keeps_no_state_before_it_has_heard_who_the_members_are() -> None:
    """Faults 58: read back, such a file would be taken for damaged, and the log before it may be gone."""
    lone = LoneReplica(others="", snapshot_settings=DUE_SOON)
    told: list[object] = []
    lone.append("b", 1, [None] * 5, prev=0, commit=5)
    lone.replica.snapshots.ask(told.append, wait_us=10**6)
    lone.turn()
    assert lone.raft.applied_index == 5 and (told, works(lone)) == ([], [])
    lone.says("b", AppendEntries(Term(1), Index(5), Term(1), Index(6), [configuration_entry(6, 1, voters("b"))]))
    assert taken(lone).base.configuration == voters("b")


def test_a_follower_that_needs_it_is_sent_it_piece_by_piece() -> None:
    lone = leading(snapshot_settings=DUE_SOON, raft_settings=NO_TAIL)
    for name in "xyz":
        lone.submit(name)
        lone.acknowledge("b")
    snapshot = in_place(lone, taken(lone), size_bytes=2)
    lone.says("c", AppendEntriesReply(lone.raft.term, False, Index(2), Index(0), Term(0), Index(2)))
    (read,) = [read for work in works(lone) for read in work.reads]
    assert (read.follower, read.offset) == ("c", 0)
    lone.replica.snapshot_was_read(read, SnapshotPiece(snapshot, 0, b"ab"))
    lone.turn()
    (sent,) = [request.message for request in lone.requests(InstallSnapshot)]
    assert (sent.snapshot, sent.offset, sent.data) == (snapshot, 0, b"ab")
    lone.says("c", InstallSnapshotReply(lone.raft.term, snapshot.index, 2, installed=True))
    assert works(lone) == []


# ------------------------------------------------------------------------------------------ one received


def test_while_a_snapshot_is_loaded_nobody_reads_stale_reads_too() -> None:
    lone = LoneReplica()
    lone.follow("b", 3)
    begun = loading(lone)
    lone.read("stale", Consistency.STALE)
    lone.read("follower", Consistency.FOLLOWER)
    assert lone.outcome("stale") is None and lone.outcome("follower") is None
    loaded(lone, begun)
    outcome = lone.outcome("stale")
    assert isinstance(outcome, Answered)
    assert (outcome.index, outcome.answer) == (40, "stale after 3")


def test_a_stale_read_that_waited_too_long_hears_of_the_loading() -> None:
    lone = LoneReplica()
    lone.follow("b", 3)
    loading(lone)
    lone.read("stale", Consistency.STALE)
    for _ in range(60):
        lone.turn(100_000)
        lone.follow("b", 3)
    outcome = lone.outcome("stale")
    assert isinstance(outcome, TooStale) and outcome.is_loading


def test_while_a_snapshot_is_loaded_the_machine_is_asked_nothing() -> None:
    lone = LoneReplica()
    lone.follow("b", 3)
    begun = loading(lone)

    def asked() -> int | None:
        raise AssertionError("its state is none")

    lone.machine.tick_due_ms = asked  # type: ignore[method-assign]
    for _ in range(30):
        lone.turn(100_000)
    del lone.machine.tick_due_ms
    loaded(lone, begun)
    assert lone.raft.applied_index == 40


def test_time_goes_on_from_the_snapshots() -> None:
    """faults 49, 68: a leader that were to count from its own last entry would let sessions live longer."""
    lone = LoneReplica()
    lone.follow("b", 3)
    loaded(lone, loading(lone), stamp_ms=123_456)
    assert lone.replica.last_stamp_ms == 123_456
    lone.win()
    lone.acknowledge()
    assert lone.raft.role is Role.LEADER
    assert lone.replica.cluster_time_ms() >= 123_456


def test_of_a_write_that_the_snapshot_may_hold_nobody_here_knows() -> None:
    """faults 50"""
    lone = leading()
    lone.submit("mine")
    lone.follow("b", 3)
    loaded(lone, loading(lone))
    assert lone.outcome("mine") == Unknown()


def test_entries_after_it_are_applied_to_it() -> None:
    lone = LoneReplica()
    lone.follow("b", 3)
    loaded(lone, loading(lone))
    lone.append("b", 3, [None], prev=40, commit=41)
    assert lone.raft.applied_index == 41
    lone.win()
    lone.acknowledge()
    lone.submit("w")
    lone.acknowledge()
    outcome = lone.outcome("w")
    assert isinstance(outcome, Applied) and outcome.answer == "did w"
    assert lone.machine.commands == ["x", "y", "z", "w"]


def test_a_node_that_begins_with_a_snapshot_goes_on_with_its_time() -> None:
    lone = LoneReplica()
    replica = Replica(lone.raft, lone.machine, clock=lambda: 0, restored=Restored(RECEIVED, 77))
    assert replica.last_stamp_ms == 77
    assert (replica.snapshots.index, replica.snapshots.size_bytes) == (40, 5)
