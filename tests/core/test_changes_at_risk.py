"""Who is there when a voter is to go: those that answer what was sent after the question came (paper §6, faults 29)."""

from __future__ import annotations

import pytest

from raftkv.core import membership
from raftkv.core.messages import Heartbeat, HeartbeatReply
from raftkv.core.types import Configuration, NodeId, Round
from raftkv.errors import ChangeRefused, ChangeWhy, NotLeader
from tests.core.lone import NONE, B, Lone
from tests.core.test_changes import beats, begin, echo, led
from tests.core.test_membership_rules import members


def refusal(lone: Lone, voters: str, since: Round) -> ChangeWhy | None:
    """Why these do not become the voters; None: that is begun."""
    try:
        lone.raft.change_membership(members(voters), deadline_ms=None, since=since)
    except ChangeRefused as refused:
        return refused.why
    lone.turn()
    return None


def asked_around(lone: Lone) -> Round:
    round = lone.raft.ask_around()
    assert round is not None
    return round


def echoes(lone: Lone, name: str, round: int) -> None:
    lone.says(name, HeartbeatReply(lone.raft.term, Round(round), NONE, b""))


def test_a_round_goes_out_at_once_and_only_from_a_leader():
    lone = Lone()
    with pytest.raises(NotLeader):
        lone.raft.ask_around()
    lone.lead()
    assert lone.raft.ask_around() is None, "it may begin nothing yet"
    lone = led()
    asked = lone.raft.ask_around()
    lone.turn()
    assert [message.round for message in lone.requests(Heartbeat)] == [asked, asked]


def test_a_live_voter_is_not_removed_right_after_anothers_death():
    """b was heard just now, and does not answer any more: without c nothing would be committed."""
    lone = led()
    beats(lone, "b", "c")
    since = asked_around(lone)
    echoes(lone, "c", since)
    assert refusal(lone, "ab", since) is ChangeWhy.QUORUM_AT_RISK
    echoes(lone, "b", since - 1)
    assert refusal(lone, "ab", since) is ChangeWhy.QUORUM_AT_RISK, "that was sent before"
    assert refusal(lone, "ac", since) is None, "the dead one goes"
    assert lone.raft.configuration.is_joint


def test_whoever_answers_that_round_or_a_later_one_is_there():
    lone = led()
    since = asked_around(lone)
    lone.elapse(100_000)
    assert refusal(lone, "ab", since) is ChangeWhy.QUORUM_AT_RISK
    echo(lone, "b")
    assert lone.office.progress[B].echo.round > since
    assert refusal(lone, "ab", since) is None


def test_who_goes_when_others_have_caught_up_is_done_without_by_then():
    """d takes c's place; b dies while d catches up, and was heard within E."""
    lone = led()
    begin(lone, members("abd"))
    lone.acknowledge("b", "c")
    beats(lone, "b", "c", "d")
    lone.acknowledge("d")
    lone.elapse(1_000)
    lone.acknowledge("d", "c")
    echo(lone, "c")
    assert not lone.raft.configuration.is_joint, "only a and c have answered since, and c goes"
    beats(lone, "c", "d")
    lone.elapse(1_000)
    assert lone.raft.configuration.is_joint, "a and d have"


def test_who_goes_when_others_have_caught_up_goes_after_a_round_trip():
    lone = led()
    begin(lone, members("abd"))
    lone.acknowledge("b", "c", "d")
    assert not lone.raft.configuration.is_joint
    echo(lone, "b")
    assert lone.raft.configuration.is_joint


def test_where_too_few_have_answered_within_an_election_timeout_they_are_asked_anew():
    """f takes e's place; b answers and dies, and c answers right after that: never were three that will vote there."""
    lone = led("abcde")
    begin(lone, members("abcdf"))
    lone.acknowledge("b", "c", "f")
    assert lone.office.asked_around is not None
    for names in ("e", "be", "e"):
        beats(lone, *names)
        lone.acknowledge("f")
    echo(lone, "c")
    assert not lone.raft.configuration.is_joint, "that b was there is no news any more"
    echo(lone, "b")
    assert lone.raft.configuration.is_joint


def test_what_was_answered_for_a_change_that_was_called_off_counts_for_no_other():
    """Within E of it: b answers and dies, and d is to take c's place after all."""
    lone = led()
    begin(lone, members("abd"))
    lone.acknowledge("b", "c", "d")
    lone.hears("b", HeartbeatReply(lone.raft.term, lone.office.last_round, NONE, b""))
    lone.raft.call_off_change(NodeId("d"))
    lone.turn()
    lone.acknowledge("b", "c")
    begin(lone, members("abd"))
    lone.acknowledge("b", "c", "d")
    assert not lone.raft.configuration.is_joint
    echo(lone, "b")
    assert lone.raft.configuration.is_joint


def test_where_nobody_goes_nobody_is_asked():
    lone = led()
    begin(lone, members("abcd"))
    lone.forget()
    lone.acknowledge("b", "c", "d")
    assert lone.raft.configuration.is_joint and lone.requests(Heartbeat) == []


@pytest.mark.parametrize(
    ("target", "lost"),
    [(members("abc", "d"), False), (members("abcd"), False), (members("ab"), True), (members("abd", "c"), True)],
)
def test_votes_are_lost(target, lost):
    assert membership.votes_are_lost(Configuration(members("abc", "d")).current, target) is lost
