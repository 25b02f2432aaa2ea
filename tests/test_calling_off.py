"""A change that is called off while somebody catches up: who asked for it, and who asks on, is told so."""

from __future__ import annotations

from dataclasses import replace

import pytest

from raftkv.core.messages import AppendEntriesReply
from raftkv.core.types import Configuration, NodeId, Role, Term
from raftkv.members import Alter, Become, MembersAre, MembersWhy, Remove
from tests.core.lone import NO_TERM, NONE
from tests.test_changing import (
    EMPTIED,
    D,
    add_d,
    append,
    catching_up,
    configuration_frame,
    configuration_frames,
    leading_three,
    membership,
    named,
    says,
    see_through,
    voters,
    why_not,
    wish_for,
)


def test_removing_who_catches_up_calls_the_change_off_and_everybody_hears_it() -> None:
    """faults 24"""
    lone = catching_up()
    wish_for(lone, "off", Remove("d"))
    assert (lone.outcome("off"), lone.outcome("d")) == (None, None), "it is not committed yet"
    lone.acknowledge("b", "c")
    assert lone.outcome("off") == MembersAre(changed=True)
    assert why_not(lone, "d") is MembersWhy.CALLED_OFF
    assert "called off" in lone.outcome("d").text
    assert lone.raft.configuration == Configuration(membership("abc"), called_off=(NodeId("d"),))
    wish_for(lone, "again", Remove("d"))
    lone.echo("b")
    assert lone.outcome("again") == MembersAre(changed=False)


def test_a_whole_change_goes_with_anybody_who_catches_up_by_it() -> None:
    """Nobody would be left to vote without it: that is no reason, for nobody's vote has changed."""
    lone = leading_three()
    wish_for(lone, "other", Become((named("d"), named("e"))), {"d": says("d"), "e": says("e")})
    lone.acknowledge("b", "c")
    wish_for(lone, "off", Remove("e"))
    lone.acknowledge("b", "c")
    assert lone.outcome("off") == MembersAre(changed=True)
    assert why_not(lone, "other") is MembersWhy.CALLED_OFF
    assert voters(lone) == ["a", "b", "c"]


def test_a_learner_that_was_to_vote_is_removed_as_was_asked() -> None:
    lone = leading_three()
    wish_for(lone, "d", Become((named("a"), named("b"), named("c")), (named("d"),)), {"d": says("d")})
    see_through(lone, "b", "c")
    wish_for(lone, "vote", Alter("d", votes=True))
    lone.acknowledge("b", "c")
    wish_for(lone, "off", Remove("d"))
    lone.acknowledge("b", "c")
    assert lone.outcome("off") == MembersAre(changed=True)
    assert why_not(lone, "vote") is MembersWhy.CALLED_OFF
    assert lone.raft.configuration.current == membership("abc")


def test_what_is_not_committed_yet_is_called_off_when_it_is() -> None:
    lone = leading_three()
    add_d(lone)
    wish_for(lone, "off", Remove("d"))
    assert lone.outcome("off") is None
    lone.acknowledge("b", "c")
    lone.acknowledge("b", "c")
    assert (lone.outcome("off"), why_not(lone, "d")) == (MembersAre(changed=True), MembersWhy.CALLED_OFF)


def test_what_both_sets_decide_is_not_called_off() -> None:
    """faults 24: it ends by itself, and then the new voter can be removed like any other."""
    lone = catching_up()
    lone.says("d", AppendEntriesReply(lone.raft.term, True, NONE, lone.raft.last_index, NO_TERM, NONE))
    assert lone.raft.configuration.is_joint
    wish_for(lone, "off", Remove("d"))
    assert why_not(lone, "off") is MembersWhy.IN_PROGRESS
    see_through(lone, "b", "c", "d")
    assert lone.outcome("d") == MembersAre(changed=True)


@pytest.mark.parametrize("id", ["c", "x"])
def test_only_who_catches_up_stands_for_the_change(id: str) -> None:
    lone = catching_up()
    wish_for(lone, "no", Remove(id))
    lone.acknowledge("b", "c")
    assert lone.outcome("d") is None and lone.raft.change_status is not None
    see_through(lone, "b", "c", "d")
    assert lone.outcome("d") == MembersAre(changed=True)


def test_who_asked_a_leader_that_leads_no_more_reads_from_the_log_that_it_was_called_off() -> None:
    lone = catching_up()
    last, term = lone.raft.last_index, lone.raft.term
    ended = Configuration(membership("abc"), called_off=(NodeId("d"),))
    append(lone, term + 1, [configuration_frame(last + 1, term + 1, ended)], prev=last, commit=last + 1)
    assert lone.raft.role is Role.FOLLOWER
    assert why_not(lone, "d") is MembersWhy.CALLED_OFF


def test_whoever_asks_on_does_not_begin_anew_what_was_called_off() -> None:
    """It was told how far it was right before the end, and repeats itself, as --join and the command line do."""
    lone = catching_up()
    wish_for(lone, "off", Remove("d"))
    lone.acknowledge("b", "c")
    add_d(lone, "on")
    assert why_not(lone, "on") is MembersWhy.CALLED_OFF
    fresh = replace(says("d"), incarnation=EMPTIED)
    wish_for(lone, "another", D, {"d": fresh})
    assert lone.outcome("another") is None and lone.raft.change_status is not None, "that is somebody else"


def test_a_little_later_it_is_a_new_wish() -> None:
    lone = catching_up()
    wish_for(lone, "off", Remove("d"))
    lone.acknowledge("b", "c")
    for _ in range(21):
        lone.turn(100_000)
        lone.acknowledge("b", "c")
    add_d(lone, "anew")
    see_through(lone, "b", "c", "d")
    assert lone.outcome("anew") == MembersAre(changed=True)


def test_what_was_to_be_called_off_and_came_to_be_is_not_told_as_called_off() -> None:
    """faults 50: the entry that called it off gave way to a successor's, and this node leads again at once."""
    lone = catching_up()
    begun, term = lone.raft.last_index, Term(lone.raft.term + 1)
    wish_for(lone, "off", Remove("d"))
    came = [Configuration(membership("abcd"), outgoing=membership("abc")), Configuration(membership("abcd"))]
    append(lone, term, configuration_frames(begun + 1, term, came), prev=begun, commit=begun + 2)
    assert (why_not(lone, "off"), lone.outcome("d")) == (MembersWhy.SUPERSEDED, MembersAre(changed=True))
    lone.lead()
    add_d(lone, "on")
    lone.echo("b", "c")
    assert lone.outcome("on") == MembersAre(changed=False)
