"""Lease reads at the replica (thesis §6.4.1): what is answered on the lease, what goes through a round after all."""

from __future__ import annotations

import pytest

from raftkv.core.messages import AppendEntriesReply, Heartbeat, TimeoutNow
from raftkv.core.settings import RaftSettings
from raftkv.core.types import Index
from raftkv.outcomes import Answered, Consistency, Refused, Why
from raftkv.replica import Replica
from tests.core.lone import NO_TERM, NONE
from tests.lone_replica import LoneReplica

LEASE = Consistency.LEASE
LEASES = RaftSettings(lease_reads=True)


def leasing(**how) -> LoneReplica:
    """A leader with a lease that was won just now."""
    lone = LoneReplica(raft_settings=LEASES, **how)
    lone.lead()
    lone.turn(LEASES.heartbeat_us)
    lone.promise("b")
    return lone


def test_a_lease_read_is_answered_at_once_and_asks_nobody():
    lone = leasing()
    rounds = len(lone.requests(Heartbeat))
    lone.read("q", LEASE)
    assert lone.outcome("q") == Answered(1, "q after 0", LEASE)
    assert len(lone.requests(Heartbeat)) == rounds
    assert lone.replica.reads_in_flight == 0


def test_only_a_lease_read_goes_by_the_lease():
    lone = leasing()
    lone.read("q")
    assert lone.outcome("q") is None
    lone.echo("b")
    assert lone.outcome("q").consistency is Consistency.LINEARIZABLE


def test_a_lease_read_without_a_lease_goes_through_a_round():
    """And says so, when the lease is won back meanwhile too."""
    lone = leasing()
    lone.turn(LEASES.lease_us)
    lone.read("q", LEASE)
    assert lone.outcome("q") is None
    lone.promise("b")
    assert lone.outcome("q").consistency is Consistency.LINEARIZABLE


@pytest.mark.parametrize(("stopped_us", "answered"), [(LEASES.lease_us - 1, True), (LEASES.lease_us, False)])
def test_the_lease_is_judged_by_a_clock_read_after_the_table(stopped_us, answered):
    """faults 23, 36, 59: the process is stopped between the beginning of its turn and the answer."""
    lone = leasing()
    lone.stopped_us = stopped_us
    lone.read("q", LEASE)
    assert (lone.outcome("q") is not None) is answered
    lone.stopped_us = 0
    lone.turn()
    lone.echo("b")
    assert lone.outcome("q").consistency is (LEASE if answered else Consistency.LINEARIZABLE)


def test_the_table_is_read_before_the_clock():
    """faults 36: the other way round, another could lead and write between the two."""
    lone = leasing()
    order: list[str] = []

    def clock() -> int:
        order.append("clock")
        return lone.now_us

    def query(query: object) -> str:
        order.append("table")
        return "an answer"

    lone.replica._clock = clock
    lone.machine.query = query  # type: ignore[method-assign]
    lone.read("q", LEASE)
    assert order == ["table", "clock"]


def test_a_lease_read_waits_until_what_is_committed_is_applied():
    """Who asked a follower may have seen what this leader has committed and not applied yet."""
    lone = LoneReplica(raft_settings=RaftSettings(lease_reads=True, apply_entries_max=1))
    lone.lead()
    for name in "xyz":
        lone.submit(name, then_turn=False)
    lone.turn(LEASES.heartbeat_us)
    lone.says("b", AppendEntriesReply(lone.raft.term, True, NONE, Index(4), NO_TERM, NONE), then_turn=False)
    lone.promise("b")
    assert (lone.raft.commit_index, lone.raft.applied_index) == (4, 2)
    lone.replica.read("q", LEASE, lambda outcome: lone.told.append(("q", outcome)))
    lone.turn()
    assert lone.outcome("q") is None
    lone.turn()
    assert lone.outcome("q") == Answered(4, "q after 3", LEASE)


def test_a_lease_of_a_later_term_answers_no_read_of_an_earlier_one():
    """When that was asked, another may have led; how far it wrote, this leader did not know."""
    lone = LoneReplica(raft_settings=RaftSettings(lease_reads=True, apply_entries_max=1))
    lone.lead()
    for number in range(100):
        lone.submit(f"{number}", then_turn=False)
    lone.turn(LEASES.heartbeat_us)
    lone.says("b", AppendEntriesReply(lone.raft.term, True, NONE, Index(101), NO_TERM, NONE), then_turn=False)
    lone.promise("b")
    lone.read("q", LEASE)
    lone.follow("b", 2)
    lone.lead()
    lone.turn(LEASES.heartbeat_us)
    lone.promise("b")
    assert lone.outcome("q") is None
    assert lone.raft.applied_index < 101
    while lone.raft.applied_index < 102:
        lone.turn()
    assert lone.raft.holds_lease(lone.now_us)
    assert lone.outcome("q") is None
    lone.turn()
    lone.echo("b")
    assert lone.outcome("q").consistency is Consistency.LINEARIZABLE


def test_after_a_transfer_was_begun_in_earnest_lease_reads_go_through_rounds():
    """Thesis §3.10, faults 36: in the very turn in which TimeoutNow leaves."""
    lone = leasing()
    lone.replica.read("q", LEASE, lambda outcome: lone.told.append(("q", outcome)))
    lone.transfer("b")
    assert len(lone.requests(TimeoutNow)) == 1
    assert lone.outcome("q") is None
    lone.turn()
    lone.echo("c")
    assert lone.outcome("q").consistency is Consistency.LINEARIZABLE


def test_a_lease_read_at_a_leader_that_was_stopped_is_refused():
    """faults 23, 59"""
    lone = leasing()
    lone.replica.read("q", LEASE, lambda outcome: lone.told.append(("q", outcome)))
    lone.turn(30_000_000)
    lone.turn()
    outcome = lone.outcome("q")
    assert isinstance(outcome, Refused)
    assert outcome.why is Why.NOT_LEADER


def test_a_lease_read_at_a_follower_is_sent_to_the_leader():
    lone = LoneReplica(raft_settings=LEASES)
    lone.follow("b", 1)
    lone.read("q", LEASE)
    assert lone.outcome("q").leadership.leader_id == "b"


def test_leases_need_a_clock():
    lone = LoneReplica(raft_settings=LEASES)
    with pytest.raises(AssertionError):
        Replica(lone.raft, lone.machine)
    assert lone.replica.lease_reads
    assert not LoneReplica().replica.lease_reads
