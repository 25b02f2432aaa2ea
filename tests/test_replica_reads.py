"""The replica: what becomes of reads, each told exactly once, and whom it names as leader."""

from __future__ import annotations

import pytest

from raftkv.core.messages import (
    ReadIndexReply,
    ReadIndexRequest,
)
from raftkv.core.settings import RaftSettings
from raftkv.core.types import Index, Term
from raftkv.outcomes import (
    Answered,
    Consistency,
    ReadTimedOut,
    TooStale,
    Why,
)
from raftkv.replica import ReplicaSettings
from tests.core.lone import E_US
from tests.lone_replica import LoneReplica, leading, stamped, why

FOLLOWER, STALE, LEASE = Consistency.FOLLOWER, Consistency.STALE, Consistency.LEASE


def test_a_read_at_the_leader_waits_for_its_round():
    lone = leading()
    lone.read("q")
    assert lone.outcome("q") is None
    lone.echo("b")
    assert lone.outcome("q") == Answered(1, "q after 0", Consistency.LINEARIZABLE)


def test_a_lease_read_without_leases_goes_through_a_round():
    lone = leading()
    lone.read("q", LEASE)
    assert lone.outcome("q") is None
    lone.echo("b")
    assert lone.outcome("q").consistency is Consistency.LINEARIZABLE


def test_a_read_at_a_follower_is_sent_to_the_leader():
    lone = LoneReplica()
    lone.follow("b", 1)
    lone.read("q")
    assert lone.outcome("q").leadership.leader_id == "b"


def test_a_read_at_a_deposed_leader_is_refused():
    """faults 35"""
    lone = leading()
    lone.read("q")
    lone.turn(E_US)
    assert why(lone.outcome("q")) is Why.NOT_LEADER


def test_a_read_that_no_majority_confirms_times_out():
    lone = LoneReplica(raft_settings=RaftSettings(election_timeout_ms=60_000))
    lone.turn()
    lone.lead()
    lone.read("q")
    lone.turn(4_999_999)
    assert lone.outcome("q") is None
    assert lone.deadline_us is not None
    assert lone.deadline_us <= lone.now_us + 1
    lone.turn(1)
    assert lone.outcome("q") == ReadTimedOut()


def test_a_followers_read_waits_until_the_leaders_index_is_applied_here():
    lone = LoneReplica()
    lone.append("b", 1, [stamped(0, b"x")], prev=0, commit=0)
    lone.read("q", FOLLOWER)
    (asked,) = lone.requests(ReadIndexRequest)
    lone.says("b", ReadIndexReply(Term(1), asked.message.read_id, confirmed=True, index=Index(1)))
    assert lone.outcome("q") is None
    lone.append("b", 1, [], prev=1, commit=1)
    assert lone.outcome("q") == Answered(1, "q after 1", FOLLOWER)


def test_a_followers_read_without_a_leader_is_refused():
    lone = LoneReplica()
    lone.read("q", FOLLOWER)
    lone.turn()
    assert why(lone.outcome("q")) is Why.NOT_LEADER


def test_a_followers_read_is_asked_anew_when_its_question_was_lost():
    """As a new read, and a heartbeat later: a link that fails at once would be asked in a circle."""
    lone = LoneReplica()
    lone.follow("b", 1)
    lone.read("q", FOLLOWER)
    (lost,) = lone.requests(ReadIndexRequest)
    lone.replica.delivery_failed(lost)
    lone.turn()
    lone.turn()
    assert lone.requests(ReadIndexRequest) == [lost]
    assert lone.deadline_us is not None
    assert lone.now_us < lone.deadline_us <= lone.now_us + 100_000
    lone.turn(100_000)
    _, again = lone.requests(ReadIndexRequest)
    assert again.message.read_id != lost.message.read_id
    lone.says("b", ReadIndexReply(Term(1), again.message.read_id, confirmed=True, index=Index(0)))
    assert isinstance(lone.outcome("q"), Answered)


def test_who_is_asked_for_anew_times_out_before_who_came_later():
    """They go with one question; the next turn comes in time for the older of them, whatever else happens."""
    lone = LoneReplica(settings=ReplicaSettings(request_timeout_ms=200))
    lone.follow("b", 1)
    lone.read("older", FOLLOWER)
    lone.replica.delivery_failed(*lone.requests(ReadIndexRequest))
    lone.turn()
    lone.turn(50_000)
    lone.replica.read("newer", FOLLOWER, lambda outcome: lone.told.append(("newer", outcome)))
    lone.turn(50_000)
    assert len(lone.requests(ReadIndexRequest)) == 2
    assert lone.deadline_us == 200_000
    lone.turn(100_000)
    assert (lone.outcome("older"), lone.outcome("newer")) == (ReadTimedOut(), None)


def test_a_followers_read_whose_questions_are_lost_times_out():
    """Also while it waits to be asked anew."""
    lone = LoneReplica(settings=ReplicaSettings(request_timeout_ms=50))
    lone.follow("b", 1)
    lone.read("q", FOLLOWER)
    lone.turn(49_000)
    (lost,) = lone.requests(ReadIndexRequest)
    lone.replica.delivery_failed(lost)
    lone.turn()
    assert lone.outcome("q") is None
    lone.turn(1_000)
    assert lone.outcome("q") == ReadTimedOut()


def test_a_followers_read_moves_to_the_next_leader():
    lone = LoneReplica()
    lone.follow("b", 1)
    lone.read("q", FOLLOWER)
    lone.follow("c", 2)
    lone.turn(100_000)
    lone.turn()
    assert lone.requests(ReadIndexRequest)[-1].receiver == "c"


def test_a_stale_read_is_answered_at_once_by_anybody():
    lone = LoneReplica()
    lone.read("q", STALE)
    assert lone.outcome("q") == Answered(0, "q after 0", STALE, None)
    lone.follow("b", 1, age_ms=30)
    lone.turn(20_000)
    lone.read("r", STALE)
    assert lone.outcome("r") == Answered(0, "r after 0", STALE, 50)


def test_a_stale_read_waits_for_the_index_that_its_client_has_seen():
    lone = LoneReplica()
    lone.append("b", 1, [stamped(0, b"x")], prev=0, commit=0)
    lone.read("q", STALE, min_index=1)
    assert lone.outcome("q") is None
    lone.append("b", 1, [], prev=1, commit=1)
    assert lone.outcome("q").index == 1


def test_an_index_that_never_comes_is_too_stale():
    lone = LoneReplica()
    lone.read("q", STALE, min_index=99)
    lone.turn(5_000_000)
    assert lone.outcome("q") == TooStale(0, None, min_index=99)


@pytest.mark.parametrize(("bound_ms", "answered"), [(49, False), (50, True), (51, True)])
def test_a_bound_of_staleness_is_met_or_refused_at_once(bound_ms, answered):
    lone = LoneReplica()
    lone.follow("b", 1, age_ms=50)
    lone.read("q", STALE, max_staleness_ms=bound_ms)
    met, refused = Answered(0, "q after 0", STALE, 50), TooStale(0, 50, max_staleness_ms=bound_ms)
    assert lone.outcome("q") == (met if answered else refused)


def test_who_decides_alone_is_never_stale():
    lone = leading(others="a")
    lone.turn(20_000)
    lone.read("q", STALE, max_staleness_ms=0)
    assert lone.outcome("q") == Answered(1, "q after 0", STALE, 0)


def test_a_leader_of_several_is_as_old_as_its_newest_round():
    lone = leading()
    lone.turn(20_000)
    lone.read("q", STALE, max_staleness_ms=0)
    assert isinstance(lone.outcome("q"), TooStale)


def test_where_nothing_is_known_of_the_age_no_bound_is_met():
    lone = LoneReplica()
    lone.read("q", STALE, max_staleness_ms=1000)
    assert lone.outcome("q") == TooStale(0, None, max_staleness_ms=1000)


def test_the_age_is_judged_when_the_index_that_was_waited_for_is_there():
    lone = LoneReplica()
    lone.append("b", 1, [stamped(0, b"x")], prev=0, commit=0)
    lone.read("q", STALE, min_index=1, max_staleness_ms=60)
    assert lone.outcome("q") is None
    lone.append("b", 1, [], prev=1, commit=1)
    assert lone.outcome("q") == TooStale(1, None, 1, 60)


def test_a_leader_that_fell_silent_is_not_named_whatever_the_time_of_the_last_turn():
    """Its own election timer may still have as long to run."""
    lone = LoneReplica()
    lone.follow("b", 1, age_ms=0)
    timeout_us = lone.raft.state.settings.election_timeout_us
    lone.now_us += timeout_us - 1
    assert lone.replica.leadership().leader_id == "b"
    lone.now_us += 1
    assert lone.replica.leadership().leader_id is None


def test_an_age_is_never_told_too_low():
    """faults 36: what is a microsecond old is older than 0 ms."""
    lone = LoneReplica()
    lone.follow("b", 1)
    lone.turn(1)
    lone.read("any", STALE)
    lone.read("new", STALE, max_staleness_ms=0)
    lone.read("nearly", STALE, max_staleness_ms=1)
    assert lone.outcome("any").staleness_ms == 1
    assert lone.outcome("new") == TooStale(0, 1, max_staleness_ms=0)
    assert lone.outcome("nearly").staleness_ms == 1
