"""Changes in which nobody's vote changes: learners come and go by one entry each, and are told apart."""

from __future__ import annotations

from raftkv.core.types import Configuration
from raftkv.members import Add, Become, MembersAre, MembersWhy
from tests.test_changing import (
    append,
    configuration_frames,
    leading_three,
    membership,
    named,
    says,
    see_through,
    why_not,
    wish_for,
)

ABC = tuple(named(name) for name in "abc")


def test_a_learner_in_anothers_place_is_a_change():
    """As many learners as before, and the same voters: but one that was asked for is not there."""
    lone = leading_three()
    wish_for(lone, "d", Become(ABC, (named("d"),)), {"d": says("d")})
    see_through(lone, "b", "c")
    assert lone.outcome("d") == MembersAre(changed=True)
    wish_for(lone, "e", Become(ABC, (named("e"),)), {"e": says("e")})
    see_through(lone, "b", "c")
    assert lone.outcome("e") == MembersAre(changed=True)
    assert [learner.member.id for learner in lone.raft.configuration.current.learners] == ["e"]


def test_a_learner_that_came_and_went_before_this_node_heard_of_it_is_not_said_to_have_failed():
    """Faults 50: it was let in by the very entry with which that began, and another took it out again."""
    lone = leading_three()
    wish_for(lone, "d", Add(named("d"), votes=False), {"d": says("d")})
    begun = lone.raft.last_index
    assert lone.outcome("d") is None
    append(
        lone, 2, configuration_frames(begun + 1, 2, [Configuration(membership("abc"))]), prev=begun, commit=begun + 1
    )
    assert why_not(lone, "d") is MembersWhy.UNKNOWN
