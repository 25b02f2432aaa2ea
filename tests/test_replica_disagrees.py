"""A replica whose state is found to be wrong (faults 61) answers nobody from it, whether they wait or come later."""

from __future__ import annotations

import pytest

from raftkv.core.messages import AppendEntriesReply, Heartbeat, HeartbeatReply, ReadIndexRequest
from raftkv.core.types import Index, Role, Round, Term
from raftkv.outcomes import Answered, Consistency, Refused, TransferRefused, TransferWhy, Unknown, Why
from raftkv.replica import HASH_INTERVAL
from tests.core.lone import NO_TERM, NONE
from tests.lone_replica import LoneReplica, why

FOLLOWER, STALE = Consistency.FOLLOWER, Consistency.STALE
RIGHT = b"r" * 16


def filled_leader() -> LoneReplica:
    """It has applied all but one entry of the interval, and its peers hold them too."""
    lone = LoneReplica()
    lone.lead()
    for number in range(HASH_INTERVAL - 2):
        lone.submit(f"{number}", then_turn=False)
    lone.turn()
    lone.acknowledge()
    assert lone.raft.applied_index == HASH_INTERVAL - 1
    return lone


def others_tell(lone: LoneReplica) -> None:
    """Both others have another state at the interval than this leader has, or will have."""
    for name in ("b", "c"):
        lone.says(name, HeartbeatReply(lone.raft.term, Round(1), Index(HASH_INTERVAL), RIGHT), then_turn=False)


def test_a_write_whose_answer_the_wrong_state_would_give_is_unknown():
    """The others' word is there already when the leader comes to the index: in that very batch nobody is answered."""
    lone = filled_leader()
    others_tell(lone)
    for name in "xyz":
        lone.submit(name, then_turn=False)
    lone.read("q")
    lone.says("b", AppendEntriesReply(lone.raft.term, True, NONE, lone.raft.last_index, NO_TERM, NONE), then_turn=False)
    lone.echo("b")
    assert lone.raft.role is Role.FOLLOWER
    assert [lone.outcome(name) for name in "xyz"] == [Unknown()] * 3
    assert isinstance(lone.outcome("q"), Refused)
    assert (lone.replica.writes_in_flight, lone.replica.reads_in_flight) == (0, 0)


def test_a_write_that_waits_when_the_others_tell_is_unknown():
    lone = filled_leader()
    lone.submit("x")
    lone.acknowledge("b")
    assert lone.raft.applied_index == HASH_INTERVAL
    lone.submit("y")
    lone.read("q")
    others_tell(lone)
    lone.turn()
    assert lone.outcome("y") == Unknown()
    assert isinstance(lone.outcome("q"), Refused)
    lone.submit("z")
    assert isinstance(lone.outcome("z"), Refused)


def test_a_read_that_is_confirmed_in_the_very_turn_that_finds_the_state_wrong_is_refused():
    """Where nothing comes the state is hashed as it stands: after the core has said that the read may be answered."""
    lone = LoneReplica()
    lone.lead()
    term, index = lone.raft.term, lone.raft.applied_index
    for name in ("b", "c"):
        lone.says(name, HeartbeatReply(term, Round(1), index, RIGHT))
    lone.read("q")
    assert lone.outcome("q") is None and lone.raft.disagrees_at is None
    office = lone.raft.state.office
    assert office is not None
    lone.says("b", HeartbeatReply(term, office.last_round, index, RIGHT), then_turn=False)
    lone.turn(lone.raft.state.settings.heartbeat_us)
    assert lone.raft.disagrees_at == index
    assert why(lone.outcome("q")) is Why.REPLICAS_DISAGREE


def wrong_follower() -> LoneReplica:
    lone = LoneReplica()
    lone.follow("b", 1)
    lone.raft.machine_hash(Index(HASH_INTERVAL), b"w" * 16)
    return lone


def is_told(lone: LoneReplica) -> None:
    message = Heartbeat(Term(1), NONE, NONE, Round(99), 0, 0, Index(HASH_INTERVAL), RIGHT)
    lone.says("b", message)


@pytest.mark.parametrize("bounds", [{}, {"min_index": 7}], ids=["follower", "index"])
def test_a_read_that_waits_is_refused(bounds):
    lone = wrong_follower()
    lone.turn(10_000)
    lone.read("q", STALE if bounds else FOLLOWER, **bounds)
    assert lone.outcome("q") is None
    is_told(lone)
    lone.turn()
    assert why(lone.outcome("q")) is Why.REPLICAS_DISAGREE
    assert lone.replica.reads_in_flight == 0


def test_a_read_that_waits_to_be_asked_anew_is_refused():
    lone = wrong_follower()
    lone.read("q", FOLLOWER)
    lone.replica.delivery_failed(*lone.requests(ReadIndexRequest))
    lone.turn()
    assert lone.outcome("q") is None
    is_told(lone)
    assert why(lone.outcome("q")) is Why.REPLICAS_DISAGREE


@pytest.mark.parametrize("consistency", [STALE, FOLLOWER])
def test_a_read_that_comes_later_is_refused(consistency):
    lone = wrong_follower()
    lone.read("before", STALE)
    assert isinstance(lone.outcome("before"), Answered)
    is_told(lone)
    lone.read("q", consistency)
    assert why(lone.outcome("q")) is Why.REPLICAS_DISAGREE


@pytest.mark.parametrize("consistency", [Consistency.LINEARIZABLE, Consistency.LEASE])
def test_what_belongs_to_a_leader_is_sent_to_the_leader(consistency):
    lone = wrong_follower()
    is_told(lone)
    lone.read("q", consistency)
    lone.submit("x")
    for name in "qx":
        assert why(lone.outcome(name)) is Why.NOT_LEADER
        assert lone.outcome(name).leadership.leader_id == "b"


def test_with_nobody_right_in_reach_nothing_is_handed_over():
    """Of two others one is wrong, and the other has not been heard for as long as an election takes."""
    lone = filled_leader()
    lone.submit("x")
    lone.acknowledge("b", "c")
    own = lone.raft.state.hashes.at(Index(HASH_INTERVAL))
    assert own is not None
    said = {"b": RIGHT, "c": own}
    for name, state_hash in said.items():
        lone.says(name, HeartbeatReply(lone.raft.term, Round(1), Index(HASH_INTERVAL), state_hash))
    for _ in range(4):
        lone.turn(100_000)
        lone.echo("b")
    lone.transfer()
    assert lone.outcome("transfer") == TransferRefused(TransferWhy.NO_OTHER_VOTER)
    assert lone.raft.takes_proposals
