"""The rules of membership, a table each; and what a wanted membership comes to, step by step (paper §6, thesis §4)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from raftkv.core import membership, rules
from raftkv.core.types import (
    Configuration,
    Incarnation,
    Intent,
    Learner,
    Member,
    Membership,
    NodeId,
)
from tests.core.lone import incarnation_of
from tests.core.test_rules import JOINT, A, B, C, D, E, cases

SOON = 500


def member(name: str, *, url: str = "", incarnation: str = "") -> Member:
    return Member(NodeId(name), incarnation_of(incarnation or name), url or f"http://{name}")


def members(
    voters: str,
    learners: str = "",
    *,
    to_vote: str = "",
    promoted: str = "",
    added: str = "",
    leaving: str = "",
    demoted: str = "",
    deadline_ms: int | None = SOON,
) -> Membership:
    """``to_vote`` are new and ``promoted`` were learners; ``added`` are learners that come with the change."""
    listed = [Learner(member(name), Intent.LEARNER, None) for name in learners]
    listed += [Learner(member(name), Intent.VOTER, deadline_ms) for name in to_vote]
    listed += [Learner(member(name), Intent.VOTER, deadline_ms, stays=True) for name in promoted]
    listed += [Learner(member(name), Intent.LEARNER, deadline_ms) for name in added]
    return membership.in_order(
        Membership(
            tuple(member(name) for name in voters),
            tuple(listed),
            tuple(map(NodeId, leaving)),
            tuple(map(NodeId, demoted)),
        )
    )


def joint(old: Membership, new: Membership) -> Configuration:
    return Configuration(new, outgoing=old)


# ----------------------------------------------------------------------------------------- who votes


@cases("me, verdict", (A, True), (C, True), (E, True), (NodeId("x"), False))
def test_is_voter(me, verdict):
    """Thesis §4.2.2: of either set, and nobody else counts himself."""
    assert rules.is_voter(JOINT, me) is verdict


@cases(
    "sets, before, me, verdict",
    ((frozenset({A, B}),), (), A, True),
    ((frozenset({A, B}),), (), C, False),
    ((frozenset({A, B}),), (frozenset({A, B, C}),), C, True),
    ((frozenset({A, B}),), (frozenset({A, B}), frozenset({D, E})), E, True),
    ((frozenset({A, B}),), (frozenset({B, C}),), D, False),
)
def test_may_stand_while_the_newest_may_be_undone(sets, before, me, verdict):
    """Thesis §4.2.2"""
    assert rules.may_stand(sets, me, voter_sets_before=before) is verdict


@cases(
    "leader_is_heard, left_too, is_listed, theirs, ours, verdict",
    (True, False, False, (3, 7), (3, 7), True),
    (False, True, False, (3, 7), (3, 7), True),
    (True, False, False, (2, 99), (3, 7), True),
    (True, False, False, (3, 8), (3, 7), False),
    (True, False, False, (4, 1), (3, 7), False),
    (True, True, True, (3, 1), (3, 7), False),
    (False, False, False, (3, 1), (3, 7), False),
)
def test_candidate_was_removed(leader_is_heard, left_too, is_listed, theirs, ours, verdict):
    """Thesis §4.2.3, faults 19: who may have been added in what is not known here is judged like any candidate."""
    said = rules.candidate_was_removed(
        leader_is_heard=leader_is_heard,
        left_too=left_too,
        is_listed=is_listed,
        candidates_last=theirs,
        our_committed=ours,
    )
    assert said is verdict


@cases(
    "votes, is_committed, verdict",
    (True, True, False),
    (True, False, False),
    (False, False, False),
    (False, True, True),
)
def test_leader_is_done(votes, is_committed, verdict):
    """Paper §6, faults 26"""
    assert rules.leader_is_done(votes=votes, is_committed=is_committed) is verdict


# -------------------------------------------------------------------------------------- may it begin


@cases(
    "configuration, is_committed, verdict",
    (Configuration(members("abc")), True, False),
    (Configuration(members("abc", "d")), True, False),
    (Configuration(members("abc")), False, True),
    (Configuration(members("abc", to_vote="d")), True, True),
    (Configuration(members("abc", promoted="d")), True, True),
    (joint(members("abc"), members("abd")), True, True),
)
def test_change_is_running(configuration, is_committed, verdict):
    """Paper §6, faults 24"""
    assert rules.change_is_running(configuration, is_committed=is_committed) is verdict


@cases(
    "voters, in_contact, verdict",
    ("a", "a", False),
    ("ab", "a", True),
    ("ab", "ab", False),
    ("abc", "ab", False),
    ("abc", "axy", True),
    ("abcd", "ab", True),
    ("abcd", "abd", False),
)
def test_quorum_is_at_risk(voters, in_contact, verdict):
    """Faults 29: half is no majority, and who is no voter does not make one."""
    assert rules.quorum_is_at_risk(list(map(NodeId, voters)), set(map(NodeId, in_contact))) is verdict


def test_a_wanted_membership_that_can_be_has_no_problem():
    assert membership.problem_with(members("abc", "d"), members("bce", "da")) is None


EMPTIED = member("c", incarnation="c, emptied")


@pytest.mark.parametrize(
    ("target", "why"),
    [
        (Membership(()), "nobody would vote"),
        (members("", "abc"), "nobody would vote"),
        (members("ab", to_vote="d"), "listed as a voter"),
        (members("ab", added="d"), "listed as a voter"),
        (members("ab", leaving="a"), "listed as a voter"),
        (members("ab", demoted="a"), "listed as a voter"),
        (members("aab"), "a is listed twice"),
        (members("ab", "b"), "b is listed twice"),
        (Membership((member("a"), member("b", incarnation="a"))), "a and b have one incarnation"),
        (Membership((member("a"), member("b", url="http://a"))), "a and b have one url"),
        (Membership((member("a"), member("b"), EMPTIED)), "another c is a member"),
        (Membership((member("a"),), (Learner(EMPTIED, Intent.LEARNER, None),)), "another c is a member"),
        (Membership((member("a"), Member(D, Incarnation(b""), "http://d"))), "d has not said who it is"),
    ],
)
def test_what_can_never_be_is_said(target, why):
    """Faults 29, 31: acknowledgements count by id, so one id has one incarnation throughout a change."""
    problem = membership.problem_with(members("abc"), target)
    assert problem is not None
    assert why in problem


def test_a_learner_is_not_replaced_under_its_id_either():
    """Faults 31"""
    current = Membership((member("a"),), (Learner(member("c"), Intent.LEARNER, None),))
    problem = membership.problem_with(current, Membership((member("a"), EMPTIED)))
    assert problem == "another c is a member: remove that one first, then add this one"


# ------------------------------------------------------------------------------------ step by step

MOVED_B = Membership((member("a"), member("b", url="http://elsewhere"), member("c")))
MOVED_B_AND_D = Membership((*MOVED_B.voters, member("d")))


@cases(
    "current, target, first",
    (members("abc"), members("ab"), joint(members("abc"), members("ab"))),
    (members("abc"), members("ab", "c"), joint(members("abc"), members("ab", "c"))),
    (members("abc"), members("abc", "d"), Configuration(members("abc", "d"))),
    (members("abc", "d"), members("abc"), Configuration(members("abc"))),
    (members("abc"), MOVED_B, Configuration(MOVED_B)),
    (members("abc"), members("abcd"), Configuration(members("abc", to_vote="d"))),
    (members("abc", "d"), members("abcd"), Configuration(members("abc", promoted="d"))),
    (members("abc"), members("abd"), Configuration(members("abc", to_vote="d", leaving="c"))),
    (members("abc"), members("abd", "c"), Configuration(members("abc", to_vote="d", demoted="c"))),
    (
        members("abc", "x"),
        members("abd", "y"),
        Configuration(members("abc", "x", to_vote="d", added="y", leaving="cx")),
    ),
    (members("abc"), members("de"), Configuration(members("abc", to_vote="de", leaving="abc"))),
    (members("abc"), MOVED_B_AND_D, Configuration(replace(members("abc", to_vote="d"), voters=MOVED_B.voters))),
)
def test_first_configuration(current, target, first):
    """Paper §6, thesis §4.2.1: nobody votes before it has caught up, and until then nobody has left."""
    assert rules.first_configuration(current, target, deadline_ms=SOON) == first


@cases(
    "catching_up, new",
    (members("abc", to_vote="d"), members("abcd")),
    (members("abc", promoted="d"), members("abcd")),
    (members("abc", "x", to_vote="d", leaving="c"), members("abd", "x")),
    (members("abc", to_vote="d", demoted="c"), members("abd", "c")),
    (members("abc", "x", to_vote="d", added="y", leaving="cx"), members("abd", "y")),
    (members("abc", to_vote="de", leaving="abc"), members("de")),
)
def test_next_configuration_when_all_have_caught_up(catching_up, new):
    """Paper §6: first both sets, then the new one alone."""
    both = rules.next_configuration(Configuration(catching_up), caught_up=True, too_late=False)
    assert both == joint(catching_up, new)
    assert rules.next_configuration(both, caught_up=False, too_late=False) == Configuration(new)
    assert rules.next_configuration(Configuration(new), caught_up=True, too_late=True) is None
    assert membership.outcome(Configuration(catching_up)) == membership.outcome(both) == new


@cases(
    "catching_up, before",
    (members("abc", to_vote="d"), members("abc")),
    (members("abc", "x", promoted="d"), members("abc", "xd")),
    (members("abc", "x", to_vote="d", added="y", leaving="cx", demoted="b"), members("abc", "x")),
)
def test_next_configuration_past_the_deadline(catching_up, before):
    """Faults 29: as before, to the letter."""
    configuration = Configuration(catching_up)
    assert rules.next_configuration(configuration, caught_up=False, too_late=False) is None
    assert rules.next_configuration(configuration, caught_up=False, too_late=True) == Configuration(before)
    assert rules.next_configuration(configuration, caught_up=True, too_late=True) == joint(
        catching_up, membership.when_caught_up(catching_up)
    )


def test_past_the_deadline_a_joint_change_goes_on():
    """Paper §6: C_old,new may be committed, so it is finished and not undone."""
    both = joint(members("abc", to_vote="d"), members("abcd"))
    assert rules.next_configuration(both, caught_up=False, too_late=True) == Configuration(members("abcd"))


@cases(
    "catching_up, node, before",
    (members("abc", to_vote="d"), D, members("abc")),
    (members("abc", promoted="d"), D, members("abc")),
    (members("abc", "x", to_vote="de", added="y", leaving="cx", demoted="b"), E, members("abc", "x")),
)
def test_configuration_without_a_node_that_catches_up(catching_up, node, before):
    """Thesis §4.2.1: all that the change brought goes, and ``node`` itself, also if it had been a learner."""
    both = tuple(learner.member.id for learner in catching_up.learners if learner.intent is Intent.VOTER)
    ended = rules.configuration_without(Configuration(catching_up), node)
    assert ended == Configuration(before, called_off=both)
    assert Configuration.decode(ended.encode()) == ended
    assert rules.next_configuration(ended, caught_up=True, too_late=True) is None


@cases(
    "configuration, node",
    (Configuration(members("abc")), D),
    (Configuration(members("abc", "d")), D),
    (Configuration(members("abc", to_vote="e", added="d")), D),
    (Configuration(members("abc", to_vote="e", leaving="c")), C),
    (Configuration(members("abc", to_vote="e")), D),
    (joint(members("abc", to_vote="d"), members("abcd")), D),
)
def test_configuration_without_somebody_else_is_none(configuration, node):
    """Paper §6: what both sets decide is finished, and only who is to vote stands for the change."""
    assert rules.configuration_without(configuration, node) is None


@cases("deadlines, earliest", ((), None), ((None,), None), ((7, None, 5), 5))
def test_the_deadline_of_a_change(deadlines, earliest):
    learners = tuple(Learner(member(f"n{n}"), Intent.VOTER, ms) for n, ms in enumerate(deadlines))
    assert membership.deadline_ms(Membership((member("a"),), learners)) == earliest
    plain = Membership((member("a"),), (Learner(member("x"), Intent.LEARNER, 1),))
    assert membership.deadline_ms(plain) is None


# -------------------------------------------------------------------------------------- catching up


@cases(
    "last, this, silent, verdict",
    (None, 0, 0, False),
    (299, 0, 0, True),
    (300, 0, 0, False),
    (5, 299, 0, True),
    (5, 300, 0, False),
    (5, 5, 299, True),
    (5, 5, 300, False),
)
def test_learner_has_caught_up(last, this, silent, verdict):
    """Thesis §4.2.1, faults 29"""
    said = rules.learner_has_caught_up(
        last_round_us=last, this_round_us=this, silent_us=silent, election_timeout_us=300
    )
    assert said is verdict


# ----------------------------------------------------------------------------------------- as bytes


@pytest.mark.parametrize(
    "found",
    [
        members("abc", "x", to_vote="d", promoted="e", leaving="cx", demoted="b"),
        members("abc", demoted="b"),
        members("abc", leaving="b", deadline_ms=None, to_vote="d"),
    ],
)
def test_what_a_change_remembers_comes_back(found):
    for configuration in (Configuration(found), joint(found, members("abc")), joint(members("abc"), found)):
        assert Configuration.decode(configuration.encode()) == configuration


def test_a_configuration_without_a_change_has_the_bytes_that_it_always_had():
    packed = bytes.fromhex("9301929193a161c410" + "61" + "2e" * 15 + "a8687474703a2f2f6190c0")
    assert Configuration(members("a")).encode() == packed
    assert Configuration.decode(packed) == Configuration(members("a"))


def ids(found: Iterable[Member]) -> str:
    return "".join(one.id for one in found)


def test_members_are_kept_in_order():
    found = membership.in_order(Membership((member("c"), member("a")), (Learner(member("z"), Intent.LEARNER, None),)))
    assert ids(found.members()) == "acz"
