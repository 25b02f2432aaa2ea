"""Changes of members into which something else comes: a transfer, a lag, a snapshot, a vote that is asked for."""

from __future__ import annotations

import pytest

from raftkv.core.effects import LogBase
from raftkv.core.membership import Configurations, learners_first
from raftkv.core.messages import AppendEntries, Heartbeat, PreVoteRequest, TimeoutNow, TimeoutNowReply
from raftkv.core.progress import Progress
from raftkv.core.types import Configuration, Index, Intent, Learner, Membership, Round, Term
from raftkv.errors import ChangeRefused
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


def test_a_change_that_is_let_in_does_not_stop_a_cluster_that_serves():
    """Faults 29: whom CheckQuorum counts no more is not counted: C_old,new would unseat its leader at once."""
    lone = led("abcde")
    beats(lone, "b", "c", count=3)
    with pytest.raises(ChangeRefused):
        begin(lone, members("ad"))
    beats(lone, "b", "c", "d")
    begin(lone, members("ad"))
    lone.elapse(1_000)
    assert (lone.role, lone.raft.configuration.is_joint) == ("leader", True)


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


def test_who_may_have_been_added_after_what_is_committed_here_is_not_told_to_have_left():
    """Faults 19, 28: the end of this node's own log proves nothing, as little as that of the asker's."""
    lone = Lone("a", "abc")
    between(lone, voters("a", "b"), Configuration(members("ab", "d")))
    for last, told in ((1, True), (2, False)):
        lone.says("x", PreVoteRequest(Term(2), Index(last), Term(1)))
        assert lone.reply.removed is told


def test_what_was_a_voter_under_the_same_name_gives_no_right_to_stand():
    """Faults 31: the one before lists another incarnation, the newest nobody of that name."""
    lone = Lone("c", "ab")
    emptied = member("c", incarnation="c, before it was emptied")
    old = Membership((*members("ab").voters, emptied))
    between(lone, Configuration(members("ab"), outgoing=old), voters("a", "b"))
    assert not lone.raft.state.may_stand
    assert lone.role == "learner"


def test_who_may_be_out_is_not_handed_the_leadership():
    """Faults 20, 26: it may stand by itself where nobody else can win, but would hand over again at once."""
    lone = Lone("c", "abc")
    between(lone, Configuration(members("ab"), outgoing=members("abc")), voters("a", "b"))
    assert lone.role == "follower"
    lone.says("b", TimeoutNow(Term(1)))
    assert lone.reply == TimeoutNowReply(Term(1), accepted=False)


def test_who_may_yet_stay_tells_nobody_to_have_left():
    """Faults 19, 28: it hears no leader, and what takes it out may be undone."""
    lone = Lone("c", "abc")
    between(lone, Configuration(members("ab"), outgoing=members("abc")), voters("a", "b"))
    lone.elapse(E_US)
    lone.forget()
    lone.says("x", PreVoteRequest(Term(2), NONE, NO_TERM))
    assert not lone.reply.removed


def test_who_left_knows_it_also_when_its_log_begins_later():
    """A snapshot of its own takes the place of the entry that says so."""
    lone = Lone("c", "abc")
    between(lone, Configuration(members("ab"), outgoing=members("abc")), voters("a", "b"))
    lone.says("b", Heartbeat(Term(1), Index(2), Index(2), Round(1), 0, 0))
    lone.raft.state.compact(Index(2))
    assert lone.raft.removed_at == 2
    assert lone.raft.state.is_known_to_be_removed


def test_a_snapshot_that_lists_a_node_no_more_makes_it_a_learner():
    lone = Lone("c", "abc")
    lone.raft.state.begin_log_anew(LogBase(Index(9), Term(1), voters("a", "b")))
    assert lone.role == "learner"


def test_a_slow_round_after_a_quick_one_is_what_counts():
    """Thesis §4.2.1: it kept up once; since then it has not."""
    progress = Progress(Index(1))
    told = []
    for match, last_index, now_us in ((0, 10, 0), (10, 50, 1_000), (50, 60, 900_000), (60, 60, 901_000)):
        progress.match_index, progress.last_contact_us = Index(match), now_us
        progress.catch_up(last_index=Index(last_index), now_us=now_us)
        told.append(progress.has_caught_up(now_us=now_us, election_timeout_us=E_US))
    assert told == [False, True, False, True]


def test_who_fell_behind_since_its_last_round_has_not_caught_up():
    """Thesis §4.2.1: it answers, and the round that runs lasts as long as an election already."""
    progress = Progress(Index(1))
    told = []
    for match, now_us in ((0, 0), (10, 1_000), (15, E_US), (16, E_US + 1_000)):
        progress.match_index, progress.last_contact_us = Index(match), now_us
        progress.catch_up(last_index=Index(10 + now_us), now_us=now_us)
        told.append(progress.has_caught_up(now_us=now_us, election_timeout_us=E_US))
    assert told == [False, True, True, False]


def test_by_another_configuration_a_learner_catches_up_anew():
    """Faults 29: how quick it was under the one before says nothing of how far it is now."""
    progress = Progress(Index(1), last_contact_us=2_000)
    for match, last_index, now_us in ((0, 10, 0), (10, 50, 1_000)):
        progress.match_index = Index(match)
        progress.catch_up(last_index=Index(last_index), now_us=now_us)
    assert progress.has_caught_up(now_us=1_000, election_timeout_us=E_US)
    progress.catch_up_anew()
    progress.catch_up(last_index=Index(50), now_us=2_000)
    assert not progress.has_caught_up(now_us=2_000, election_timeout_us=E_US)


def test_what_a_snapshot_undid_has_never_listed_anybody():
    """Faults 39: of the log that goes, what is committed stays known, and nothing else."""
    configurations = Configurations(Index(0), voters("a", "b"))
    configurations.append(Index(2), voters("a", "c"))
    configurations.append(Index(5), voters("a", "d"))
    configurations.begin_anew(Index(9), voters("a"), committed=Index(2))
    listed = [name for name in "abcd" if configurations.was_listed(member(name).id, incarnation_of(name))]
    assert listed == ["a", "b", "c"]
