"""Which configuration may follow which, by the paper's steps: every step that is one passes, none that is not."""

from __future__ import annotations

import pytest

from raftkv.core.types import Configuration, Incarnation, Intent, Learner, Member, Membership, NodeId
from raftkv.sim.checks.succession import are_to_vote, wrong_successor


def member(name: str, life: int = 1) -> Member:
    return Member(NodeId(name), Incarnation(f"{name} {life}".ljust(16, ".").encode()), f"http://{name}")


def of(voters, learners="", *, joining="", stays="", leaving="", demoted="") -> Membership:
    """The members of these names; ``joining`` are learners that are to vote, ``stays`` those that were learners."""
    listening = [Learner(member(name), Intent.LEARNER, None) for name in learners]
    coming = [Learner(member(name), Intent.VOTER, 9, stays=name in stays) for name in joining]
    listed = tuple(sorted([*listening, *coming], key=lambda learner: learner.member))
    return Membership(tuple(map(member, voters)), listed, tuple(map(NodeId, leaving)), tuple(map(NodeId, demoted)))


def simple(*args, **how) -> Configuration:
    return Configuration(of(*args, **how))


def joint(old: Membership, new: Membership) -> Configuration:
    return Configuration(new, outgoing=old)


REPLACING = of("abc", joining="d", leaving="c")
STEPS = [
    ("who is new listens first", simple("abc"), simple("abc", joining="d")),
    ("others go with it later", simple("abc"), Configuration(REPLACING)),
    ("a learner is to vote", simple("abc", "d"), simple("abc", joining="d", stays="d")),
    ("all have caught up", Configuration(REPLACING), joint(REPLACING, of("abd"))),
    (
        "who is demoted learns",
        simple("ab", joining="c", demoted="b"),
        joint(of("ab", joining="c", demoted="b"), of("ac", "b")),
    ),
    ("it took too long", Configuration(REPLACING), simple("abc")),
    ("it took too long for a learner", simple("abc", joining="d", stays="d"), simple("abc", "d")),
    ("it was called off", simple("abc", joining="d", stays="d"), Configuration(of("abc"), called_off=(NodeId("d"),))),
    ("both sets, then the new one", joint(of("abc"), of("ab")), simple("ab")),
    ("somebody goes", simple("abc"), joint(of("abc"), of("ab"))),
    ("somebody learns instead", simple("abc"), joint(of("abc"), of("ab", "c"))),
    ("a learner comes", simple("abc"), simple("abc", "d")),
    ("a learner goes", simple("abc", "d"), simple("abc")),
    ("a node that knows nobody is told", Configuration(of("")), simple("abc")),
]
SLIPS = [
    ("a vote at once", simple("abc"), joint(of("abc"), of("abcd"))),
    ("a vote gone at once", simple("abc"), simple("ab")),
    ("a vote come at once", simple("abc", joining="d"), simple("abcd")),
    ("C_old again", joint(of("abc"), of("ab")), simple("abc")),
    ("others than C_old,new said", joint(of("abc"), of("ab")), simple("bc")),
    ("another change before the end", joint(of("abc"), of("ab")), joint(of("abc"), of("ac"))),
    ("another learner meanwhile", simple("abc", joining="d"), simple("abc", joining="de")),
    ("who was to go stays", Configuration(REPLACING), joint(REPLACING, of("abcd"))),
    (
        "who is demoted is gone",
        simple("ab", joining="c", demoted="b"),
        joint(of("ab", joining="c", demoted="b"), of("ac")),
    ),
    ("who listened before is gone", simple("abc", joining="d", stays="d"), simple("abc")),
    ("half of what was called off", Configuration(REPLACING), simple("ab")),
    ("who is to go has gone", simple("abc"), simple("ab", joining="d")),
    ("that it listened is forgotten", simple("abc", "d"), simple("abc", joining="d")),
    (
        "another under the same name",
        simple("abc"),
        Configuration(Membership((member("a"), member("b"), member("c", 2)))),
    ),
    ("other old members", simple("abc"), joint(of("abd"), of("ab"))),
]


@pytest.mark.parametrize(("before", "after"), [step[1:] for step in STEPS], ids=[step[0] for step in STEPS])
def test_a_step_of_the_paper_may_follow(before, after):
    assert wrong_successor(before, after) is None


@pytest.mark.parametrize(("before", "after"), [slip[1:] for slip in SLIPS], ids=[slip[0] for slip in SLIPS])
def test_nothing_else_may_follow(before, after):
    assert wrong_successor(before, after) is not None


@pytest.mark.parametrize(
    ("membership", "expected"),
    [
        (of("abc"), "abc"),
        (of("abc", "d"), "abc"),
        (of("ab", joining="d", stays="d"), "abd"),
        (REPLACING, "abd"),
        (of("abc", joining="d", leaving="ab", demoted="c"), "d"),
    ],
)
def test_who_is_to_vote_once_all_is_done(membership, expected):
    assert are_to_vote(membership) == set(expected)
