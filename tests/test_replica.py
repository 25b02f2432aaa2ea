"""The replica: what becomes of writes, transfers and ticks, each told exactly once."""

from __future__ import annotations

from typing import Any

import pytest

from raftkv.core.messages import (
    AppendEntries,
    AppendEntriesReply,
    Heartbeat,
    HeartbeatReply,
    TimeoutNow,
)
from raftkv.core.settings import RaftSettings
from raftkv.core.types import Index, Role, Round, Term
from raftkv.errors import ConfigError, MessageError, Misdirected
from raftkv.outcomes import (
    Answered,
    Applied,
    Superseded,
    Transferred,
    TransferRefused,
    TransferWhy,
    Unknown,
    Why,
)
from raftkv.replica import HASH_INTERVAL, ReplicaSettings
from tests.core.lone import E_US, NO_TERM, NONE, B
from tests.lone_replica import LoneReplica, leading, stamped, why

# ------------------------------------------------------------------------------------------ writes


def test_a_write_is_answered_when_it_is_applied():
    lone = leading()
    lone.submit("x")
    assert lone.outcome("x") is None
    lone.acknowledge("b")
    assert lone.outcome("x") == Applied(2, "did x")


def test_all_that_waits_is_one_proposal():
    lone = leading()
    for name in "xyz":
        lone.submit(name, then_turn=False)
    lone.turn()
    appends = [one.message for one in lone.requests(AppendEntries) if one.receiver == "b"]
    assert [len(append.frames) for append in appends] == [1, 3], "the no-op, and all three"
    lone.acknowledge("b")
    assert [lone.outcome(name) for name in "xyz"] == [Applied(i, f"did {n}") for i, n in enumerate("xyz", 2)]
    assert lone.machine.batches[-1] == 3


def test_a_write_survives_its_leaders_fall_if_its_entry_does():
    """faults 69: committed by the next leader, it is answered as what it became."""
    lone = leading()
    lone.submit("x")
    lone.append("b", 2, [None], prev=2, commit=2)
    assert lone.raft.role is Role.FOLLOWER
    assert lone.outcome("x") == Applied(2, "did x")


def test_a_write_is_superseded_when_another_entry_commits_at_its_index():
    """faults 69"""
    lone = leading()
    lone.submit("x")
    lone.append("b", 2, [stamped(0, b"y")], prev=1, commit=1)
    assert lone.outcome("x") is None, "b's entry may be overwritten yet"
    lone.append("b", 2, [None], prev=2, commit=3)
    assert lone.outcome("x") == Superseded()
    assert lone.machine.commands == ["y"]


def test_a_write_at_a_no_ops_index_is_superseded():
    """faults 69"""
    lone = leading()
    lone.submit("x")
    lone.append("b", 2, [None], prev=1, commit=2)
    assert lone.outcome("x") == Superseded()


def test_at_its_deadline_a_write_is_unknown():
    """faults 50: its entry may commit yet; nobody calls that failed."""
    lone = leading()
    lone.submit("x")
    for _ in range(50):
        assert lone.outcome("x") is None
        lone.turn(100_000)
        lone.echo("b")
    assert lone.outcome("x") == Unknown()
    lone.acknowledge("b")
    assert lone.machine.commands == ["x"]


def test_a_write_that_was_overtaken_is_told_by_what_commits():
    """faults 69: proposed in term 1, truncated, and the same node proposes another at that index in term 3."""
    lone = leading()
    lone.submit("x")
    lone.append("b", 2, [], prev=1, commit=1)
    lone.append("b", 2, [None], prev=1, commit=1)
    assert lone.raft.last_index == 2
    lone.append("b", 2, [None], prev=2, commit=1)
    lone.lead()
    assert lone.raft.term == 3
    assert lone.outcome("x") == Superseded()


def test_nothing_of_a_refused_write_is_appended():
    lone = LoneReplica()
    lone.follow("b", 1)
    lone.submit("x")
    refused = lone.outcome("x")
    assert why(refused) is Why.NOT_LEADER
    assert (refused.leadership.leader_id, refused.leadership.leader_url) == ("b", "http://b")
    assert lone.raft.last_index == 0


def test_a_leader_that_was_not_heard_lately_is_not_named():
    lone = LoneReplica()
    lone.follow("b", 1)
    lone.turn(E_US)
    lone.submit("x")
    assert lone.outcome("x").leadership.leader_id is None


def test_office_lost_between_submission_and_turn_refuses_the_write():
    """faults 69: it was not appended, so it is not unknown."""
    lone = leading()
    lone.submit("x", then_turn=False)
    lone.follow("b", 9)
    assert why(lone.outcome("x")) is Why.NOT_LEADER
    assert lone.raft.last_index == 1


def test_who_is_refused_by_a_lost_office_is_not_told_that_it_still_leads():
    """What a leader says of itself holds until its next turn, in which it may lose its office."""
    lone = LoneReplica()
    lone.lead()
    assert lone.replica.leadership().leads
    told: list[Any] = []
    lone.replica.submit(b"x", told.append)
    lone.says("b", Heartbeat(Term(lone.raft.term + 1), NONE, NONE, Round(1), 0, 0))
    assert [(one.why, one.leadership.leads, one.leadership.leader_id) for one in told] == [(Why.NOT_LEADER, False, "b")]


def test_after_a_long_stop_nothing_is_proposed():
    """faults 23, 59: the first turn after the stop sees the time before anything else."""
    lone = leading()
    lone.submit("before")
    lone.submit("x", then_turn=False)
    lone.says("b", AppendEntriesReply(Term(1), True, NONE, Index(2), NO_TERM, NONE), then_turn=False)
    lone.turn(30_000_000)
    assert lone.raft.role is Role.FOLLOWER
    assert why(lone.outcome("x")) is Why.NOT_LEADER
    assert lone.outcome("before") == Unknown()


# ------------------------------------------------------------------------------------------ limits


def test_writes_beyond_the_limit_are_refused_at_once():
    """faults 65"""
    lone = leading(settings=ReplicaSettings(proposals_in_flight_max=2))
    for name in "xyz":
        lone.submit(name)
    assert [lone.outcome(name) is None for name in "xy"] == [True, True]
    assert why(lone.outcome("z")) is Why.OVERLOADED
    lone.acknowledge("b")
    lone.submit("again")
    assert lone.outcome("again") is None


def test_bytes_beyond_the_limit_are_refused_at_once():
    """faults 65: submitted or proposed, they count."""
    lone = leading(settings=ReplicaSettings(proposal_bytes_in_flight_max=10))
    lone.submit("123456", then_turn=False)
    lone.submit("12345", then_turn=False)
    lone.submit("1234", then_turn=False)
    lone.turn()
    lone.submit("1")
    assert lone.outcome("123456") is None
    assert why(lone.outcome("12345")) is Why.OVERLOADED
    assert lone.outcome("1234") is None
    assert why(lone.outcome("1")) is Why.OVERLOADED


def test_bytes_that_were_answered_leave_room_for_others():
    """faults 65: proposed, they count as written, and no longer as submitted."""
    lone = leading(settings=ReplicaSettings(proposal_bytes_in_flight_max=10))
    for number in range(3):
        lone.submit(f"write {number}")
        lone.acknowledge("b")
        assert isinstance(lone.outcome(f"write {number}"), Applied)


def test_bytes_that_were_refused_leave_room_for_others():
    """faults 65: taken by a leader that lost its office before it could propose them."""
    lone = leading(settings=ReplicaSettings(proposal_bytes_in_flight_max=10))
    lone.submit("submitted", then_turn=False)
    lone.follow("b", 2)
    assert why(lone.outcome("submitted")) is Why.NOT_LEADER
    lone.lead()
    lone.submit("later")
    assert lone.outcome("later") is None, "it waits for its majority"


def test_reads_beyond_the_limit_are_refused_at_once():
    """faults 65"""
    lone = leading(settings=ReplicaSettings(reads_in_flight_max=1))
    lone.read("q")
    lone.read("r")
    assert lone.outcome("q") is None
    assert why(lone.outcome("r")) is Why.OVERLOADED
    lone.echo("b")
    assert isinstance(lone.outcome("q"), Answered)
    lone.read("s")
    assert lone.outcome("s") is None
    assert lone.replica.reads_in_flight == 1


def test_settings_below_one_are_all_told():
    with pytest.raises(ConfigError) as caught:
        ReplicaSettings(request_timeout_ms=0, reads_in_flight_max=0)
    assert len(caught.value.problems) == 2


def test_a_node_that_shuts_down_takes_no_write_and_answers_those_it_has():
    lone = leading()
    lone.submit("x")
    idle: list[bool] = []
    lone.replica.when_idle(lambda: idle.append(True))
    lone.replica.shutting_down = True
    lone.submit("y")
    assert why(lone.outcome("y")) is Why.SHUTTING_DOWN
    assert idle == []
    lone.acknowledge("b")
    assert lone.outcome("x") == Applied(2, "did x")
    assert idle == [True]


def test_on_a_full_disk_only_writes_that_free_space_are_taken():
    """faults 56"""
    lone = leading()
    lone.replica.disk_is_short = True
    lone.submit("put")
    lone.submit("delete", frees_space=True)
    lone.acknowledge("b")
    assert why(lone.outcome("put")) is Why.DISK_FULL
    assert lone.outcome("delete") == Applied(2, "did delete")


# ------------------------------------------------------------------------------------ cluster time


def test_time_counts_from_the_last_stamp_and_goes_on():
    """faults 68: whatever the next leader's own clock says."""
    lone = LoneReplica()
    lone.append("b", 1, [stamped(7_000, b"x")], prev=0, commit=1)
    lone.turn(50_000_000)
    assert lone.replica.cluster_time_ms() == 7_000, "without office, time stands still"
    lone.lead()
    assert lone.replica.cluster_time_ms() == 7_000
    lone.turn(250_000)
    assert lone.replica.cluster_time_ms() == 7_250


def test_the_time_of_others_offices_is_not_counted_again():
    """faults 49, 68: who comes back to office counts from what it has applied by then, not from its first office."""
    lone = leading()
    assert lone.replica.cluster_time_ms() == 0
    lone.append("b", 2, [stamped(500, b"x")], prev=1, commit=2)
    lone.turn(50_000_000)
    lone.lead()
    assert lone.replica.cluster_time_ms() == 500


def test_before_the_no_op_is_applied_time_stands_still():
    """faults 68: what is before it may bear a later stamp."""
    lone = LoneReplica()
    lone.append("b", 1, [stamped(7_000, b"x"), stamped(9_000, b"y")], prev=0, commit=1)
    lone.win()
    lone.turn(200_000)
    assert lone.replica.cluster_time_ms() == 7_000
    lone.acknowledge()
    assert lone.machine.entries[-1].stamp_ms == 9_000
    assert lone.replica.cluster_time_ms() == 9_000
    lone.turn(50_000)
    assert lone.replica.cluster_time_ms() == 9_050


def test_a_stamp_that_falls_is_not_seen_by_the_machine():
    """faults 68"""
    lone = LoneReplica()
    lone.append("b", 1, [stamped(9_000, b"x"), stamped(7_000, b"y"), stamped(9_500, b"z")], prev=0, commit=3)
    assert [entry.stamp_ms for entry in lone.machine.entries] == [9_000, 9_000, 9_500]


def test_a_tick_is_proposed_once_when_something_runs_out():
    lone = leading()
    lone.machine.due_ms = 200
    lone.turn()
    assert lone.deadline_us is not None
    assert lone.deadline_us <= lone.now_us + 200_000
    lone.turn(199_000)
    assert lone.raft.last_index == 1
    lone.acknowledge()
    lone.turn(1_000)
    assert lone.raft.last_index == 2
    for _ in range(5):
        lone.turn(1_000)
    assert lone.raft.last_index == 2
    lone.acknowledge("b")
    assert lone.machine.commands == ["tick"]
    lone.turn(1_000)
    assert lone.raft.last_index == 2


def test_until_something_runs_out_no_turn_comes_for_it():
    """Turns that come for nothing would fill the loop as long as there is a session."""
    lone = leading()
    lone.turn()
    usual_us = lone.deadline_us
    lone.machine.due_ms = 60_000
    lone.turn()
    assert lone.deadline_us == usual_us


def test_while_a_tick_is_on_its_way_no_other_is_proposed_whatever_runs_out_next():
    """Each entry that is applied may move it: a tick for each would make more entries than are applied."""
    lone = leading()
    for due_ms in (10, 20, 30):
        lone.machine.due_ms = due_ms
        lone.turn(50_000)
    assert lone.raft.last_index == 2
    lone.acknowledge("b")
    lone.machine.due_ms = 40
    lone.turn()
    assert lone.raft.last_index == 3


def test_a_tick_that_was_lost_with_the_office_is_proposed_again_in_the_next():
    lone = leading()
    lone.machine.due_ms = 0
    lone.turn()
    assert lone.raft.last_index == 2
    lone.append("b", 2, [None], prev=1, commit=1)
    lone.lead()
    lone.turn()
    lone.acknowledge("b")
    assert lone.machine.commands == ["tick"]


def lost_its_tick(settings: ReplicaSettings | None = None) -> LoneReplica:
    """In office again; of the earlier one's three entries, which were truncated, the tick was the last."""
    lone = leading(settings=settings)
    lone.submit("x")
    lone.submit("y")
    lone.machine.due_ms = 1
    lone.turn(1_000)
    assert lone.raft.last_index == 4
    lone.append("b", 2, [None], prev=1, commit=1)
    lone.lead()
    assert lone.raft.last_index == 3
    return lone


def test_a_tick_whose_index_stays_empty_keeps_no_later_one_back():
    lone = lost_its_tick()
    lone.turn(1_000)
    assert lone.raft.last_index == 4
    lone.acknowledge("b")
    assert lone.machine.commands == ["tick"]


def test_what_became_of_an_earlier_offices_tick_says_nothing_of_this_ones():
    lone = lost_its_tick(ReplicaSettings(request_timeout_ms=2 * E_US // 1000 + 200))
    lone.turn(1_000)
    assert lone.raft.last_index == 4
    lone.turn(250_000)
    lone.turn()
    assert lone.raft.last_index == 4


def test_a_follower_proposes_no_tick():
    lone = LoneReplica()
    lone.machine.due_ms = 0
    lone.follow("b", 1)
    assert lone.raft.last_index == 0


# ----------------------------------------------------------------------------------------- transfer


def refusal(lone: LoneReplica) -> TransferWhy:
    outcome = lone.outcome("transfer")
    assert isinstance(outcome, TransferRefused), outcome
    return outcome.why


@pytest.mark.parametrize(
    ("others", "target", "expected"),
    [("abc", "x", TransferWhy.NO_SUCH_MEMBER), ("a", None, TransferWhy.NO_OTHER_VOTER)],
)
def test_a_transfer_that_cannot_be_is_refused(others, target, expected):
    """faults 20"""
    lone = leading(others=others)
    lone.transfer(target)
    assert refusal(lone) is expected


def test_a_follower_hands_nothing_over():
    lone = LoneReplica()
    lone.transfer("b")
    assert refusal(lone) is TransferWhy.NOT_LEADER


def test_a_transfer_to_the_leader_itself_changes_nothing():
    lone = leading()
    lone.transfer("a")
    assert lone.outcome("transfer") == Transferred("a", "http://a", 1, changed=False)


def test_a_transfer_ends_when_the_target_leads():
    """faults 20"""
    lone = leading()
    lone.transfer("b")
    (told,) = lone.requests(TimeoutNow)
    assert told.receiver == "b"
    lone.submit("x")
    assert why(lone.outcome("x")) is Why.NOT_LEADER, "no proposals meanwhile"
    assert lone.outcome("transfer") is None
    lone.follow("b", 2)
    assert lone.outcome("transfer") == Transferred("b", "http://b", 2)


def test_a_transfer_to_a_dead_target_ends_and_writes_go_on():
    """faults 20"""
    lone = leading()
    lone.transfer("b")
    for _ in range(6):
        lone.turn(100_000)
        lone.echo("c")
    assert refusal(lone) is TransferWhy.TIMED_OUT
    lone.submit("x")
    lone.acknowledge("c")
    assert isinstance(lone.outcome("x"), Applied)


def test_a_second_transfer_has_to_wait():
    lone = leading()
    lone.replica.transfer_leadership(None, lambda outcome: None)
    lone.transfer("c")
    assert refusal(lone) is TransferWhy.IN_PROGRESS


def test_a_transfer_that_nobody_asked_for_is_not_redirected():
    """faults 20, 22: away from a disk that hangs, say; who was told to stand would stand against the other."""
    lone = leading()
    lone.raft.transfer_leadership(B)
    lone.transfer("c")
    assert refusal(lone) is TransferWhy.IN_PROGRESS


def test_a_transfer_after_which_nobody_leads_is_told_so_at_the_deadline():
    """faults 20: the office is lost, and no other leader is heard of."""
    lone = leading()
    lone.transfer("b")
    lone.turn(E_US)
    assert lone.raft.role is Role.FOLLOWER
    lone.turn(5_000_000 - E_US - 1)
    assert lone.outcome("transfer") is None
    lone.turn(1)
    assert refusal(lone) is TransferWhy.TIMED_OUT


def test_a_leader_that_is_elected_again_has_handed_nothing_over():
    """faults 20"""
    lone = leading()
    lone.transfer("b")
    lone.turn(E_US)
    lone.lead()
    assert refusal(lone) is TransferWhy.TIMED_OUT


# ---------------------------------------------------------------------------------------- the rest


def test_a_misdirected_request_is_refused_and_told():
    lone = LoneReplica()
    envelope = lone.lone.envelope("b", Heartbeat(Term(9), NONE, NONE, Round(1), 0, 0))
    envelope.receiver = envelope.sender
    exchange = object()
    lone.replica.receive(envelope, exchange)
    lone.turn()
    ((refused, error),) = lone.works[-1].refusals
    assert refused is exchange
    assert isinstance(error, Misdirected)
    assert lone.raft.term == 0
    assert [(note.event, note.text) for note in lone.works[-1].notes] == [("refused_message", "this is a, not b")]


def test_a_request_that_no_node_of_ours_sends_ends_neither_the_node_nor_the_turn():
    """Faults 57: a term out of all measure."""
    lone, exchange = LoneReplica(), object()
    absurd = Heartbeat(Term(2**60), NONE, NONE, Round(1), 0, 0)
    lone.replica.receive(lone.lone.envelope("c", absurd), exchange)
    lone.follow("b", 1)
    ((refused, error),) = [refusal for work in lone.works for refusal in work.refusals]
    assert refused is exchange and isinstance(error, MessageError)
    assert (lone.raft.term, lone.raft.leader_id) == (1, "b")


def test_what_comes_behind_a_misdirected_request_is_heard():
    """faults 32: somebody else's mistake costs no vote and no heartbeat of our own peers."""
    lone = LoneReplica()
    stray = lone.lone.envelope("b", Heartbeat(Term(9), NONE, NONE, Round(1), 0, 0))
    stray.receiver = stray.sender
    lone.replica.receive(stray, object())
    lone.says("c", Heartbeat(Term(2), NONE, NONE, Round(1), 0, 0))
    assert (lone.raft.term, lone.raft.leader_id) == (2, "c")


def test_state_hashes_are_told_at_every_multiple_of_the_interval():
    """faults 61: and only there, however the entries come in."""
    lone = LoneReplica()
    bodies = [stamped(0, b"x")] * (2 * HASH_INTERVAL + 10)
    lone.append("b", 1, bodies, prev=0, commit=len(bodies))
    for _ in range(5):
        lone.turn()
    index, state_hash = lone.raft.state.state_hash
    assert index == 2 * HASH_INTERVAL
    assert int.from_bytes(state_hash, "little") == 2 * HASH_INTERVAL


def test_where_nothing_comes_the_state_is_hashed_as_it_stands():
    """faults 61: once, after a heartbeat interval, which all have alike; a loaded cluster hashes no more often."""
    lone = LoneReplica()
    told: list[int] = []
    known = lone.machine.state_hash

    def asked() -> int:
        told.append(lone.raft.applied_index)
        return known()

    lone.machine.state_hash = asked  # type: ignore[method-assign]
    lone.append("b", 1, [stamped(0, b"x")] * 3, prev=0, commit=3)
    interval_us = lone.raft.state.settings.heartbeat_us
    for prev in range(3, 9):
        lone.turn(interval_us - 1)
        lone.append("b", 1, [stamped(0, b"x")], prev=prev, commit=prev + 1)
    assert told == []
    lone.turn(interval_us - 1)
    assert told == []
    for _ in range(3):
        lone.turn(1)
    assert told == [9]
    lone.append("b", 1, [None], prev=9, commit=10)
    lone.turn(interval_us)
    assert told == [9, 10]


def test_a_state_that_is_being_replaced_is_not_hashed():
    lone = LoneReplica()
    lone.append("b", 1, [None], prev=0, commit=1)
    lone.replica.snapshots._to_load = Index(9)
    lone.replica.snapshots._go_on_loading = lambda work, index: None  # type: ignore[method-assign]
    lone.machine.state_hash = lambda: 1 // 0  # type: ignore[method-assign]
    lone.turn(10**6)
    assert lone.raft.state.state_hash == (0, b"")


def test_a_state_that_differs_is_told_once():
    """faults 61"""
    lone = leading()
    lone.raft.machine_hash(Index(1024), b"m" * 16)
    for _ in range(3):
        lone.says("b", HeartbeatReply(lone.raft.term, Round(1), Index(1024), b"n" * 16))
    lone.says("c", HeartbeatReply(lone.raft.term, Round(1), Index(1024), b"m" * 16))
    (note,) = [note for note in lone.notes if note.event == "replicas_disagree"]
    assert "b has another state" in note.text


def test_a_long_catch_up_is_applied_in_pieces():
    lone = LoneReplica(raft_settings=RaftSettings(apply_entries_max=10))
    lone.append("b", 1, [stamped(0, b"x")] * 25, prev=0, commit=25)
    assert lone.machine.batches == [10, 10]
    assert lone.deadline_us == lone.now_us, "the rest is due at once"
    lone.turn()
    assert lone.machine.batches == [10, 10, 5]
