"""Leases (thesis §6.4.1) with hand-made messages: what a leader may believe, and what its voters keep to."""

from __future__ import annotations

import pytest

from raftkv.core import leases, rules
from raftkv.core.messages import (
    Heartbeat,
    HeartbeatReply,
    PreVoteReply,
    PreVoteRequest,
    RequestVote,
    RequestVoteReply,
    TimeoutNow,
    TimeoutNowReply,
)
from raftkv.core.settings import RaftSettings
from raftkv.core.types import Configuration, Index, Intent, Learner, Membership, NodeId, Round, Term, membership_of
from raftkv.errors import ConfigError
from tests.core.lone import E_US, NO_TERM, NONE, Lone, configuration_entry, voters

LEASES = RaftSettings(lease_reads=True)
LEASE_US = LEASES.lease_us
HEARTBEAT_US = LEASES.heartbeat_us


def leading(others: str = "abc", settings: RaftSettings = LEASES, **how) -> Lone:
    """A leader that has committed in its term, and whose rounds nobody has echoed."""
    lone = Lone(others=others, settings=settings, **how)
    lone.lead()
    lone.acknowledge(*(name for name in others if name != "a"))
    lone.elapse(HEARTBEAT_US)
    return lone


def echo(lone: Lone, *names: str, round: int | None = None, withholds_ms: int = 300) -> None:
    said = lone.office.last_round if round is None else Round(round)
    for name in names:
        lone.says(name, HeartbeatReply(lone.raft.term, said, NONE, b"", withholds_ms))


def held(lone: Lone, after_us: int = 0) -> bool:
    return lone.raft.holds_lease(lone.now_us + after_us)


# -------------------------------------------------------------------------------------- at the leader


def test_a_lease_runs_from_the_sending_of_the_round_and_not_from_its_echo():
    """Thesis §6.4.1: the voter's promise runs from when it heard the round, which can be as soon as it was sent."""
    lone = leading()
    sent_us = lone.now_us
    lone.elapse(50_000)
    assert not held(lone)
    echo(lone, "b")
    assert leases.end_us(lone.raft.state) == sent_us + LEASE_US
    assert held(lone, LEASE_US - 50_000 - 1)
    assert not held(lone, LEASE_US - 50_000)


def test_an_earlier_rounds_echo_gives_an_earlier_lease():
    lone = leading()
    sent_us, first = lone.now_us, lone.office.last_round
    lone.elapse(HEARTBEAT_US)
    echo(lone, "b", round=first)
    assert leases.end_us(lone.raft.state) == sent_us + LEASE_US


def test_a_round_that_was_joined_to_another_dates_from_an_earlier_one():
    """Where rounds pile up, some are forgotten: their echoes count from one that went out before them."""
    lone = leading(settings=RaftSettings(lease_reads=True, heartbeat_ms=10, inflight_rounds_max=1))
    first_sent_us, first = lone.office.rounds[0].sent_us, lone.office.rounds[0].round
    for _ in range(5):
        lone.elapse(10_000)
    assert first + 2 not in [one.round for one in lone.office.rounds]
    echo(lone, "b", round=first + 2)
    assert leases.end_us(lone.raft.state) <= first_sent_us + 10_000 + LEASE_US


def test_an_echo_of_a_round_that_is_long_confirmed_promises_nothing_new():
    lone = leading("abcde")
    late = lone.office.last_round
    echo(lone, "b", "c")
    lone.elapse(HEARTBEAT_US)
    echo(lone, "b", "c")
    end_us = leases.end_us(lone.raft.state)
    echo(lone, "d", round=late)
    assert leases.end_us(lone.raft.state) == end_us
    assert lone.office.progress[NodeId("d")].echo.promised_until_us == 0


@pytest.mark.parametrize(
    ("others", "echoing", "holds"),
    [("abc", "", False), ("abc", "b", True), ("abcde", "b", False), ("abcde", "bc", True), ("a", "", True)],
)
def test_a_lease_needs_a_majority(others, echoing, holds):
    lone = leading(others)
    echo(lone, *echoing)
    assert held(lone) is holds


def test_a_lease_needs_both_majorities_of_a_joint_configuration():
    """faults 37; paper §6: also a lease that was won before the configuration came."""
    lone = leading()
    echo(lone, "b", "c")
    assert held(lone)
    joint = Configuration(membership_of(voters("a", "d", "e").current.voters), voters("a", "b", "c").current)
    lone.raft.state.append([configuration_entry(lone.raft.last_index + 1, lone.raft.term, joint)])
    assert not held(lone), "of d and e nothing is known"


def test_a_leader_that_is_no_voter_does_not_count_itself():
    lone = leading()
    echo(lone, "b")
    assert held(lone)
    without_a = Configuration(membership_of(voters("b", "c").current.voters))
    lone.raft.state.append([configuration_entry(lone.raft.last_index + 1, lone.raft.term, without_a)])
    assert not held(lone)
    echo(lone, "c")
    assert held(lone)


def test_a_learners_promise_does_not_count():
    lone = leading()
    both, learner = voters("a", "b").current.voters, voters("c").current.voters[0]
    taught = Configuration(Membership(both, (Learner(learner, Intent.LEARNER, None),)))
    lone.raft.state.append([configuration_entry(lone.raft.last_index + 1, lone.raft.term, taught)])
    echo(lone, "c")
    assert not held(lone)
    echo(lone, "b")
    assert held(lone)


def test_leases_are_off_by_default():
    lone = leading(settings=RaftSettings())
    echo(lone, "b", "c")
    assert not held(lone)


def test_a_voter_that_promises_less_gives_less():
    """Whose operator has not turned leases on, or who has a shorter election timeout, votes earlier."""
    lone = leading()
    echo(lone, "b", withholds_ms=0)
    assert not held(lone)
    lone.elapse(HEARTBEAT_US)
    echo(lone, "b", withholds_ms=100)
    short_us = rules.lease_duration_us(promised_us=100_000, clock_drift_max_per_mille=100)
    assert held(lone, short_us - 1)
    assert not held(lone, short_us)


def test_a_clock_that_fell_back_prolongs_no_lease():
    """faults 36: what was over once is over."""
    lone = leading()
    echo(lone, "b", "c")
    lone.elapse(LEASE_US)
    assert not held(lone, after_us=-LEASE_US)


def test_without_a_commit_of_its_own_term_a_leader_has_no_lease():
    """faults 33; paper §8"""
    lone = Lone(log=[1, 1], settings=LEASES)
    lone.lead()
    lone.elapse(HEARTBEAT_US)
    echo(lone, "b", "c")
    assert not held(lone)
    lone.acknowledge("b")
    assert held(lone)


def test_after_timeout_now_there_is_no_lease_for_the_rest_of_the_term():
    """Thesis §3.10, faults 36: the target needs no free votes, and the transfer may end here long before it stands."""
    lone = leading()
    echo(lone, "b", "c")
    lone.raft.transfer_leadership(NodeId("b"))
    assert held(lone), "nobody was told yet"
    lone.turn()
    assert len(lone.requests(TimeoutNow)) == 1
    assert not held(lone)
    lone.says("b", TimeoutNowReply(lone.raft.term, accepted=False))
    assert lone.raft.takes_proposals
    for _ in range(5):
        lone.elapse(HEARTBEAT_US)
        echo(lone, "b", "c")
        assert not held(lone)


def test_the_next_term_has_leases_again():
    lone = leading()
    lone.raft.transfer_leadership(NodeId("b"))
    lone.turn()
    lone.says("b", Heartbeat(Term(2), NONE, NONE, Round(1), 0, 0))
    lone.lead()
    lone.acknowledge("b")
    lone.elapse(HEARTBEAT_US)
    echo(lone, "b")
    assert held(lone)


def test_office_and_lease_end_together():
    lone = leading()
    echo(lone, "b", "c")
    lone.says("b", RequestVoteReply(Term(9), granted=False))
    assert not held(lone)


def test_a_lease_is_over_before_its_leader_steps_down():
    """Thesis §6.2"""
    lone = leading()
    echo(lone, "b")
    lone.elapse(LEASE_US)
    assert lone.role == "leader"
    assert not held(lone)


# ---------------------------------------------------------------------------------------- at the voters


def test_an_echo_tells_for_how_long_no_vote_is_given():
    for settings, withholds_ms in ((LEASES, 300), (RaftSettings(), 0)):
        lone = Lone(settings=settings)
        lone.says("b", Heartbeat(Term(1), NONE, NONE, Round(1), 0, 0))
        assert lone.reply.withholds_ms == withholds_ms


def asked_for_a_vote(lone: Lone, *, transfer: bool = False) -> tuple[bool, bool]:
    """Whether c would get a PreVote now, and gets a vote."""
    lone.forget()
    lone.says("c", PreVoteRequest(Term(9), Index(9), Term(8)))
    pre_vote = lone.reply
    lone.says("c", RequestVote(Term(9), Index(9), Term(8), transfer=transfer))
    vote = lone.reply
    assert isinstance(pre_vote, PreVoteReply)
    assert isinstance(vote, RequestVoteReply)
    return pre_vote.granted, vote.granted


@pytest.mark.parametrize(("after_us", "granted"), [(0, False), (E_US - 1, False), (E_US, True)])
def test_a_voter_keeps_to_its_promise_from_when_it_heard_the_round(after_us, granted):
    lone = Lone(settings=LEASES)
    lone.elapse(5_000)
    lone.says("b", Heartbeat(Term(1), NONE, NONE, Round(1), 0, 0))
    lone.raft.state.election_deadline_us = 10**9
    lone.elapse(after_us)
    assert asked_for_a_vote(lone) == (granted, granted)


@pytest.mark.parametrize(("after_us", "granted"), [(0, False), (E_US - 1, False), (E_US, True)])
def test_a_voter_that_starts_again_keeps_to_what_it_may_have_promised(after_us, granted):
    """Its clock may begin anywhere; what counts is its start."""
    lone = Lone(log=[1], settings=LEASES)
    lone.raft.state.election_deadline_us = 10**12
    lone.elapse(after_us)
    assert asked_for_a_vote(lone) == (granted, granted)


def test_a_voter_that_starts_again_gives_way_to_the_leaders_own_wish():
    """Thesis §3.10: the leader that sends a candidate has forgone its lease."""
    lone = Lone(log=[1], settings=LEASES)
    assert asked_for_a_vote(lone, transfer=True) == (False, True)


@pytest.mark.parametrize("how", [{"settings": RaftSettings(), "log": [1]}, {"settings": LEASES}], ids=["off", "fresh"])
def test_without_leases_or_anything_stored_a_vote_is_given_at_once(how):
    """A node that never knew a term has answered no leader; a cluster forms without that delay."""
    assert asked_for_a_vote(Lone(**how)) == (True, True)


def test_a_term_that_was_stored_without_an_entry_may_have_been_promised_in():
    """A heartbeat is answered before there is a log."""
    assert asked_for_a_vote(Lone(term=1, settings=LEASES)) == (False, False)


def test_a_candidate_that_hears_a_leader_drops_what_it_was_granted():
    """What was granted before the promise must not win after it."""
    lone = Lone("a", "abcde", settings=LEASES)
    lone.elapse(2 * E_US)
    lone.says("b", PreVoteReply(Term(1), Term(1), granted=True))
    lone.says("c", Heartbeat(Term(1), NONE, NONE, Round(1), 0, 0))
    lone.says("d", PreVoteReply(Term(1), Term(1), granted=True))
    lone.elapse(E_US - 1)
    assert (lone.raft.term, lone.role) == (1, "follower")


def test_a_voter_does_not_stand_itself_while_it_is_bound():
    """Its own vote is one of those that it promised."""
    for seed_us in range(20):
        lone = Lone(settings=LEASES)
        lone.elapse(seed_us * 1000)
        lone.says("b", Heartbeat(Term(1), NONE, NONE, Round(1), 0, 0))
        lone.elapse(E_US - 1)
        assert lone.role == "follower"


def test_a_term_that_moved_on_echoes_nothing():
    """Who has voted in a higher term promises the old leader nothing."""
    lone = Lone(settings=LEASES)
    lone.says("c", RequestVote(Term(5), NONE, NO_TERM, transfer=False))
    lone.forget()
    lone.says("b", Heartbeat(Term(1), NONE, NONE, Round(1), 0, 0))
    assert lone.reply.round == 0


# -------------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("how", "complaint"),
    [
        ({"clock_drift_max_per_mille": 0}, "clock_drift_max_per_mille must be at least 1"),
        ({"lease_reads": True, "heartbeat_ms": 150, "clock_drift_max_per_mille": 1000}, "before the next heartbeat"),
        ({"lease_reads": True, "heartbeat_ms": 150, "clock_drift_max_per_mille": 999}, None),
        ({"lease_reads": True, "clock_drift_max_per_mille": 2001}, "before the next heartbeat"),
        ({"lease_reads": False, "clock_drift_max_per_mille": 2001}, None),
    ],
)
def test_a_bound_that_leaves_no_lease_is_refused(how, complaint):
    if complaint is None:
        RaftSettings(**how)
        return
    with pytest.raises(ConfigError) as caught:
        RaftSettings(**how)
    assert complaint in caught.value.problems[0]
