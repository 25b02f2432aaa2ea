"""A change of members at one leader, and what others are told of it (paper §6, thesis §4)."""

from __future__ import annotations

import pytest

from raftkv import frames as framing
from raftkv.core import changes
from raftkv.core.membership import Configurations
from raftkv.core.messages import (
    AppendEntries,
    AppendEntriesReply,
    Heartbeat,
    HeartbeatReply,
    TimeoutNow,
)
from raftkv.core.types import ChangePhase, Configuration, Index, Membership, NodeId, Round, Term
from raftkv.errors import ChangeRefused, ChangeWhy, Misdirected, NotLeader
from tests.core.lone import E_US, NO_TERM, NONE, A, B, C, Lone, configuration_entry, entries, voters
from tests.core.test_membership_rules import EMPTIED, member, members

D = NodeId("d")


def led(others: str = "abc") -> Lone:
    """It leads, and has committed its no-op."""
    lone = Lone("a", others)
    lone.lead()
    lone.acknowledge(*others.replace("a", ""))
    assert lone.raft.commit_index == 1
    lone.forget()
    return lone


def begin(lone: Lone, target: Membership, *, deadline_ms: int | None = None, force: bool = False) -> None:
    lone.raft.change_membership(target, deadline_ms=deadline_ms, force=force)
    lone.turn()


def refusal(lone: Lone, target: Membership, *, force: bool = False) -> ChangeWhy:
    last = lone.raft.last_index
    with pytest.raises(ChangeRefused) as raised:
        lone.raft.change_membership(target, deadline_ms=None, force=force)
    assert lone.raft.last_index == last, "nothing was appended"
    return raised.value.why


def echo(lone: Lone, *names: str) -> None:
    """They echo the newest round."""
    for name in names:
        lone.says(name, HeartbeatReply(lone.raft.term, lone.office.last_round, NONE, b""))


def beats(lone: Lone, *names: str, count: int = 1) -> None:
    """Heartbeats go out, so many, and these echo them."""
    for _ in range(count):
        lone.elapse(100_000)
        echo(lone, *names)


# -------------------------------------------------------------------------------------- may it begin


def test_only_a_leader_begins():
    lone = Lone()
    with pytest.raises(NotLeader):
        lone.raft.change_membership(members("ab"), deadline_ms=None)


def test_not_while_leadership_is_handed_over():
    lone = led()
    lone.raft.transfer_leadership(B)
    with pytest.raises(NotLeader):
        lone.raft.change_membership(members("ab"), deadline_ms=None)


def test_not_before_the_own_terms_first_commit():
    """Faults 24: entries of older terms may be committed already, and a configuration among them undone yet."""
    lone = Lone("a", "abc", log=[1, 1])
    lone.follow("b", 1)
    lone.says("b", Heartbeat(Term(1), Index(2), Index(2), Round(1), 0, 0))
    lone.elapse(2 * E_US)
    lone.lead()
    assert lone.raft.commit_index == 2
    assert refusal(lone, members("ab")) is ChangeWhy.NOT_READY
    lone.acknowledge("b", "c")
    begin(lone, members("ab"))
    assert lone.raft.configuration.is_joint


def test_not_while_another_is_not_over():
    """Faults 24: joint, catching up, or merely not committed yet."""
    lone = led()
    begin(lone, members("abc", "x"))
    assert refusal(lone, members("abc")) is ChangeWhy.IN_PROGRESS
    lone.acknowledge("b")
    begin(lone, members("abcd", "x"))
    lone.acknowledge("b")
    assert lone.raft.commit_index == lone.raft.last_index
    assert refusal(lone, members("abc")) is ChangeWhy.IN_PROGRESS
    lone.acknowledge("d")
    assert lone.raft.configuration.is_joint
    assert refusal(lone, members("abc")) is ChangeWhy.IN_PROGRESS
    lone.acknowledge("b", "c", "d")
    assert lone.raft.configuration == Configuration(members("abcd", "x"))
    assert refusal(lone, members("abc")) is ChangeWhy.IN_PROGRESS
    lone.acknowledge("b", "c", "d")
    assert lone.raft.change_status is None
    begin(lone, members("abc"))


@pytest.mark.parametrize(
    ("target", "why"),
    [
        (members("abc"), ChangeWhy.SAME),
        (members("cba"), ChangeWhy.SAME),
        (members("", "abc"), ChangeWhy.BAD),
        (Membership((member("a"), member("b"), EMPTIED)), ChangeWhy.BAD),
    ],
)
def test_what_changes_nothing_or_can_never_be_is_refused(target, why):
    lone = led()
    assert refusal(lone, target) is why
    assert refusal(lone, target, force=True) is why


def test_a_change_that_would_leave_too_few_is_refused_unless_forced():
    """Faults 29, 30: heard within the election timeout, in this term."""
    lone = led("abcde")
    beats(lone, "b", "c", "d", count=7)
    assert refusal(lone, members("ae")) is ChangeWhy.QUORUM_AT_RISK
    begin(lone, members("ae"), force=True)
    assert lone.raft.configuration.is_joint


def test_silence_is_what_puts_a_quorum_at_risk():
    lone = led("abcde")
    beats(lone, "b", "c", count=2)
    begin(lone, members("ad"))
    lone = led("abcde")
    beats(lone, "b", "c", count=3)
    assert refusal(lone, members("ad")) is ChangeWhy.QUORUM_AT_RISK


def test_who_has_not_answered_in_this_term_is_not_counted():
    lone = Lone("a", "abc")
    lone.lead()
    lone.acknowledge("b")
    assert refusal(lone, members("ac")) is ChangeWhy.QUORUM_AT_RISK


def test_who_joins_proves_itself_by_catching_up():
    lone = led("a")
    begin(lone, members("abc"))
    assert lone.raft.configuration == Configuration(members("a", to_vote="bc", deadline_ms=None))
    assert lone.raft.commit_index == lone.raft.last_index


# ---------------------------------------------------------------------------------------- catching up


def test_all_must_catch_up_before_both_sets_decide():
    """Thesis §4.2.1, faults 29"""
    lone = led()
    begin(lone, members("abcde"))
    lone.acknowledge("b", "d")
    assert not lone.raft.configuration.is_joint
    lone.acknowledge("e")
    assert lone.raft.configuration.is_joint


def test_a_round_longer_than_the_election_timeout_is_followed_by_another():
    lone = led()
    begin(lone, members("abcd"))
    beats(lone, "b", "c", "d", count=4)
    lone.acknowledge("b", "d")
    assert not lone.raft.configuration.is_joint, "the first round took 400 ms"
    lone.elapse(10_000)
    assert lone.raft.configuration.is_joint


def test_who_has_fallen_silent_has_not_caught_up():
    """It held everything once; there is nothing new to hold."""
    lone = led()
    begin(lone, members("abcde"))
    lone.acknowledge("b", "c", "d")
    beats(lone, "b", "c", count=4)
    lone.acknowledge("e")
    lone.elapse(1_000)
    assert not lone.raft.configuration.is_joint
    beats(lone, "b", "c", "d", "e")
    lone.elapse(1_000)
    assert lone.raft.configuration.is_joint


def test_both_sets_wait_while_too_many_of_the_new_one_are_gone():
    """b and c, who stay, died while d caught up: the cluster serves by a, e and f, and must go on so."""
    lone = led("abcef")
    begin(lone, members("abcd"))
    beats(lone, "e", "f", "d", count=7)
    lone.acknowledge("e", "f", "d")
    beats(lone, "e", "f", "d")
    assert not lone.raft.configuration.is_joint
    beats(lone, "e", "f", "d", "b")
    lone.elapse(1_000)
    assert lone.raft.configuration.is_joint


def test_a_forced_change_waits_for_nobody():
    lone = led("abcef")
    begin(lone, members("abcd"), force=True)
    beats(lone, "e", "f", "d", count=7)
    lone.acknowledge("e", "f", "d")
    beats(lone, "e", "f", "d")
    assert lone.raft.configuration.is_joint


def test_past_the_deadline_all_is_as_before():
    """Faults 29"""
    lone = led()
    begin(lone, members("abd"), deadline_ms=1000)
    lone.acknowledge("b", "c")
    lone.raft.cluster_time_ms = 999
    beats(lone, "b", "c")
    assert lone.raft.configuration.current.leaving == (C,)
    lone.raft.cluster_time_ms = 1000
    beats(lone, "b", "c")
    assert lone.raft.configuration == Configuration(members("abc"))


# ------------------------------------------------------------------------------------- those who left


def left(lone: Lone) -> None:
    """c is to leave, b and the leader stay; that is committed."""
    begin(lone, members("ab"))
    lone.acknowledge("b", "c")
    lone.acknowledge("b")
    assert lone.raft.commit_index == lone.raft.last_index


def test_who_left_is_told_that_it_is_committed_and_then_forgotten():
    """Thesis §4.2.2"""
    lone = led()
    left(lone)
    assert set(lone.raft.contacts) == {A, B, C}
    assert lone.raft.change_status is not None
    assert (lone.raft.change_status.phase, lone.raft.change_status.leaving) == (ChangePhase.LEAVING, (C,))
    lone.acknowledge("c")
    lone.forget()
    lone.elapse(1_000)
    assert [beat.commit for beat in lone.requests(Heartbeat, "c")] == [lone.raft.commit_index], "at once"
    lone.acknowledge("c")
    assert C in lone.raft.contacts, "it has the entry, and may not have heard of the commit"
    echo(lone, "c")
    assert set(lone.raft.contacts) == {A, B}
    assert lone.raft.change_status is None
    lone.forget()
    lone.raft.propose([b"x"])
    beats(lone, "b")
    assert {envelope.receiver for envelope in lone.sent(object)} == {B}


def test_who_left_gets_nothing_that_came_after():
    lone = led()
    left(lone)
    last = lone.raft.last_index
    lone.raft.propose([b"x", b"y"])
    lone.turn()
    lone.acknowledge("c", match=last - 1)
    sent = [framing.term_and_index(frame)[1] for one in lone.requests(AppendEntries, "c") for frame in one.frames]
    assert max(sent) == last


def test_who_left_and_is_silent_is_forgotten_after_a_while():
    lone = led()
    left(lone)
    beats(lone, "b", count=11)
    assert C in lone.raft.contacts
    beats(lone, "b", count=2)
    assert set(lone.raft.contacts) == {A, B}


def test_who_left_deposes_nobody():
    """Faults 15, 19: whatever its term; until that is committed it is a voter like others."""
    lone = led()
    left(lone)
    lone.says("c", AppendEntriesReply(Term(9), False, NONE, NONE, NO_TERM, NONE))
    assert (lone.role, lone.raft.term) == ("leader", 1)
    for acknowledged in ("", "bc"):
        lone = led()
        begin(lone, members("ab"))
        lone.acknowledge(*acknowledged)
        lone.says("c", AppendEntriesReply(Term(9), False, NONE, NONE, NO_TERM, NONE))
        assert (lone.role, lone.raft.term) == ("follower", 9)


def test_a_successor_tells_those_who_left_too():
    """Its predecessor may have died before it could."""
    lone = Lone("b", "abc")
    lone.raft.state.append(
        [
            configuration_entry(1, 0, Configuration(members("bc"), outgoing=members("abc"))),
            configuration_entry(2, 0, Configuration(members("bc"))),
        ]
    )
    lone.turn()
    lone.lead()
    assert set(lone.raft.contacts) == {A, B, C}
    assert [last for last, _ in lone.office.progress[A].inflight] == [2]


def test_another_under_the_same_id_inherits_nothing():
    """Faults 31: what the emptied one acknowledged, it has no more."""
    lone = led()
    left(lone)
    begin(lone, Membership((member("a"), member("b"), EMPTIED)))
    assert lone.office.progress[C].match_index == 0
    assert lone.raft.contacts[C].incarnation == EMPTIED.incarnation
    late = AppendEntriesReply(lone.raft.term, True, NONE, lone.raft.last_index, NO_TERM, NONE)
    with pytest.raises(Misdirected):
        lone.says("c", late)
    assert lone.office.progress[C].match_index == 0


def test_a_reply_of_somebody_who_never_was_a_member_is_refused():
    lone = led()
    with pytest.raises(Misdirected):
        lone.says("x", HeartbeatReply(lone.raft.term, Round(1), NONE, b""))


def test_a_role_is_by_the_newest_configuration_committed_or_not():
    """Paper §6, faults 27, 28: also when it gives way again."""
    lone = Lone("d", "abc", log=[1])
    assert lone.role == "learner"
    both = Configuration(members("abcd"), outgoing=members("abc", to_vote="d"))
    lone.says("b", AppendEntries(Term(1), Index(1), Term(1), NONE, [configuration_entry(2, 1, both)]))
    assert lone.role == "follower"
    lone.says("c", AppendEntries(Term(2), Index(1), Term(1), NONE, entries([2], first=2)))
    assert lone.role == "learner"


# ---------------------------------------------------------------------------------- the leader leaves


def test_a_leader_that_leaves_does_not_count_itself_and_steps_down_when_that_is_committed():
    """Paper §6, faults 26"""
    lone = led()
    begin(lone, members("bc"))
    lone.acknowledge("b")
    assert lone.raft.configuration.is_joint, "a and b are no majority of b and c"
    lone.acknowledge("c")
    assert lone.raft.configuration == Configuration(members("bc"))
    lone.acknowledge("b")
    assert lone.role == "leader", "its own disk does not count"
    assert lone.raft.commit_index < lone.raft.last_index
    lone.forget()
    lone.acknowledge("c")
    assert (lone.role, lone.raft.removed_at) == ("learner", lone.raft.last_index)
    assert [envelope.receiver for envelope in lone.sent(TimeoutNow)] == [B], "who holds everything may stand at once"


def test_a_leader_that_has_left_begins_no_change_before_it_steps_down():
    """Faults 26: C_new is committed in this very turn. Added again by itself, it would be to catch up with itself."""
    lone = led()
    begin(lone, members("bc"))
    lone.acknowledge("b", "c")
    last = lone.raft.last_index
    for name in "bc":
        lone.hears(name, AppendEntriesReply(lone.raft.term, True, Index(last - 1), last, NO_TERM, NONE))
    assert (lone.role, lone.raft.commit_index) == ("leader", last)
    assert refusal(lone, members("abc")) is ChangeWhy.NOT_READY
    assert refusal(lone, members("bc", "a")) is ChangeWhy.NOT_READY
    lone.turn()
    assert lone.role == "learner"


def test_a_leader_that_leaves_hands_over_to_a_voter_that_stays():
    lone = led("abcd")
    begin(lone, members("cd"))
    lone.acknowledge("b")
    lone.acknowledge("c", match=1)
    assert lone.raft.configuration.is_joint
    assert lone.raft.best_placed == C, "b's log is longer, and b leaves too"


def test_a_leader_that_becomes_a_learner_steps_down_too():
    lone = led()
    begin(lone, members("bc", "a"))
    lone.acknowledge("b", "c")
    lone.acknowledge("b", "c")
    assert (lone.role, lone.raft.removed_at) == ("learner", None)


# ------------------------------------------------------------------------------ leader's death, chance


def test_a_snapshot_whose_configuration_is_joint_is_gone_on_from():
    """Faults 25: the base is committed, so C_new comes next."""
    lone = Lone("a", "abc", base=(7, 2))
    lone.raft.state.configurations = Configurations(Index(7), Configuration(members("abd"), outgoing=members("abc")))
    lone.lead()
    lone.acknowledge("b", "c")
    assert lone.raft.commit_index < lone.raft.last_index or lone.raft.configuration.is_joint
    lone.acknowledge("b", "d")
    assert lone.raft.configuration == Configuration(members("abd"))
    assert C in lone.raft.contacts


def test_people_are_told_how_far_a_change_is():
    lone = led()
    assert lone.raft.change_status is None
    begin(lone, members("abd", "c"), deadline_ms=77)
    status = lone.raft.change_status
    assert status is not None
    assert (status.phase, status.joining, status.leaving, status.demoted, status.deadline_ms, status.match) == (
        ChangePhase.CATCHING_UP,
        (D,),
        (),
        (C,),
        77,
        ((D, 0),),
    )
    lone.acknowledge("b", "d")
    echo(lone, "b", "d")
    status = lone.raft.change_status
    assert status is not None
    assert (status.phase, status.joining, status.leaving, status.demoted, status.deadline_ms) == (
        ChangePhase.JOINT,
        (D,),
        (),
        (C,),
        None,
    )


def test_in_words():
    found = members("abc", "x", to_vote="d", leaving="c", demoted="b")
    assert changes.in_words(Configuration(found)) == "voters a b c, learners x, to vote d, to leave c, to learn b"
    both = Configuration(members("ad"), outgoing=members("abc"))
    assert changes.in_words(both) == "voters a b c and the new voters a d"
    assert voters("a") == Configuration(members("a"))
