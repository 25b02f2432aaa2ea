"""Changes of members into which something else comes: a transfer, a lag, a snapshot, a vote that is asked for."""

from __future__ import annotations

from raftkv.core.membership import Configurations, learners_first
from raftkv.core.messages import AppendEntries, PreVoteRequest, TimeoutNow, TimeoutNowReply
from raftkv.core.types import Configuration, Index, Intent, Learner, Membership, Term
from tests.core.lone import E_US, NO_TERM, NONE, B, Lone, configuration_entry, incarnation_of, voters
from tests.core.test_changes import beats, begin, led
from tests.core.test_membership_rules import member, members


def test_no_step_is_taken_while_leadership_is_handed_over():
    """Faults 20: what came after it would keep the target behind, and another leads soon who takes the step."""
    lone = led()
    begin(lone, members("ab"))
    lone.raft.transfer_leadership(B)
    lone.acknowledge("b", "c")
    assert lone.raft.configuration.is_joint and lone.raft.state.configuration_is_committed
    lone.says("b", TimeoutNowReply(lone.raft.term, accepted=False))
    assert lone.raft.configuration == voters("a", "b")


def test_force_is_for_one_change_only():
    """Faults 29: the next one waits for voters that are gone, like any other."""
    lone = led("abcef")
    begin(lone, members("abcef", "x"), force=True)
    lone.acknowledge("e", "f")
    assert lone.raft.change_status is None
    begin(lone, members("abcd", "x"))
    beats(lone, "e", "f", "d", count=7)
    lone.acknowledge("e", "f", "d")
    beats(lone, "e", "f", "d")
    assert not lone.raft.configuration.is_joint


def test_a_learner_that_stays_one_is_where_the_change_says():
    moved = member("x", url="http://elsewhere")
    target = Membership(members("ad").voters, (Learner(moved, Intent.LEARNER, None),))
    found = learners_first(members("a", "x"), target, deadline_ms=None)
    assert moved in [learner.member for learner in found.learners]


def test_a_leader_that_leaves_sends_nobody_who_lacks_something():
    """Thesis §3.10: with a shorter log it would lose, and only disturb those who could win."""
    lone = led("abc")
    begin(lone, members("bc"))
    lone.acknowledge("b", "c")
    removal = lone.raft.last_index
    lone.raft.propose([b"x"])
    lone.turn()
    lone.forget()
    lone.acknowledge("b", "c", match=removal)
    assert lone.role == "learner"
    assert lone.sent(TimeoutNow) == []


def between(lone: Lone, before: Configuration, newest: Configuration) -> None:
    """``before`` at index 1 is committed, ``newest`` at 2 is not."""
    frames = [configuration_entry(1, 1, before), configuration_entry(2, 1, newest)]
    lone.says("b", AppendEntries(Term(1), NONE, NO_TERM, Index(1), frames))
    lone.forget()


def test_nobody_is_told_to_have_left_while_either_configuration_lists_it():
    """Faults 19, 28: the newest may be undone, the committed one is about to go."""
    both = Configuration(members("ab"), outgoing=members("abc"))
    for asker, before, newest, told in (
        ("c", both, voters("a", "b"), False),
        ("d", voters("a", "b"), Configuration(members("ab", "d")), False),
        ("x", both, voters("a", "b"), True),
    ):
        lone = Lone("a", "abc")
        between(lone, before, newest)
        lone.says(asker, PreVoteRequest(Term(2), NONE, NO_TERM))
        assert lone.reply.removed is told, asker


def test_who_may_yet_stay_tells_nobody_to_have_left():
    """Faults 19, 28: it hears no leader, and what takes it out may be undone."""
    lone = Lone("c", "abc")
    between(lone, Configuration(members("ab"), outgoing=members("abc")), voters("a", "b"))
    lone.elapse(E_US)
    lone.forget()
    lone.says("x", PreVoteRequest(Term(2), NONE, NO_TERM))
    assert not lone.reply.removed


def test_what_a_snapshot_undid_has_never_listed_anybody():
    """Faults 39: of the log that goes, what is committed stays known, and nothing else."""
    configurations = Configurations(Index(0), voters("a", "b"))
    configurations.append(Index(2), voters("a", "c"))
    configurations.append(Index(5), voters("a", "d"))
    configurations.begin_anew(Index(9), voters("a"), committed=Index(2))
    listed = [name for name in "abcd" if configurations.was_listed(member(name).id, incarnation_of(name))]
    assert listed == ["a", "b", "c"]
