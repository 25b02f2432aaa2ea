"""Who missed its removal hears of it, and believes no more than is so (thesis §4.2.3; faults 15, 19, 26, 31)."""

from __future__ import annotations

import pytest

from raftkv.core.messages import (
    AppendEntries,
    AppendEntriesReply,
    Heartbeat,
    PreVoteReply,
    PreVoteRequest,
    RequestVote,
    RequestVoteReply,
)
from raftkv.core.settings import RaftSettings
from raftkv.core.types import Configuration, Index, Round, Term
from tests.core.lone import E_US, NO_TERM, NONE, A, B, C, Lone, configuration_entry, entries, voters
from tests.core.test_changes import beats, begin, led, left
from tests.core.test_membership_rules import members


def asked(lone: Lone) -> None:
    """It has heard nobody for long, and asks for votes."""
    lone.elapse(2 * E_US)
    assert lone.requests(PreVoteRequest)
    lone.forget()


@pytest.mark.parametrize("reply", [PreVoteReply(Term(9), Term(1), False, True), RequestVoteReply(Term(9), False, True)])
def test_who_is_told_of_its_removal_believes_it_and_no_term_moves(reply):
    """Thesis §4.2.3, faults 19"""
    lone = Lone()
    asked(lone)
    lone.says("b", reply)
    assert (lone.role, lone.raft.removed_at, lone.raft.term) == ("learner", 0, 0)
    for _ in range(3):
        asked(lone)
        assert (lone.role, lone.raft.term) == ("learner", 0), "it asks whether it is so still, and does not stand"


def test_a_leader_that_speaks_to_it_proves_that_it_is_a_member():
    lone = Lone()
    asked(lone)
    lone.says("b", PreVoteReply(Term(1), Term(1), False, True))
    lone.follow("c", 1)
    assert (lone.role, lone.raft.removed_at) == ("follower", None)
    lone.says("b", PreVoteReply(Term(1), Term(1), False, True))
    assert lone.raft.removed_at is None, "that was said before"


def test_somebody_who_would_vote_for_it_proves_that_it_may_be_needed():
    lone = Lone()
    asked(lone)
    lone.says("b", PreVoteReply(Term(1), Term(1), False, True))
    asked(lone)
    assert lone.role == "learner"
    lone.says("c", PreVoteReply(Term(1), Term(1), granted=True))
    assert lone.role == "follower", "at once: it votes, and may be asked to lead"
    asked(lone)
    assert lone.role == "candidate"


@pytest.mark.parametrize("kind", [PreVoteReply, RequestVoteReply])
def test_a_late_word_removes_nobody_who_was_added_again(kind):
    """Faults 14, 19: what was asked with a shorter log is answered when the log has gone on, and no leader is heard."""
    lone = Lone()
    lone.follow("c", 1)
    lone.says("c", AppendEntries(Term(1), NONE, NO_TERM, NONE, entries([1])))
    for index, term, removed_at in [(0, 0, None), (1, 0, None), (2, 1, None), (1, 1, 1)]:
        asked(lone)
        reply = kind(*(Term(9),) * (2 if kind is PreVoteReply else 1), granted=False, removed=True)
        reply.last_log_index, reply.last_log_term = Index(index), Term(term)
        lone.says("b", reply)
        assert lone.raft.removed_at == removed_at
        assert lone.raft.term == 1


def test_a_node_whose_own_log_says_so_asks_nobody():
    lone = Lone("c", "abc")
    frames = [
        configuration_entry(1, 1, Configuration(members("ab"), outgoing=members("abc"))),
        configuration_entry(2, 1, Configuration(members("ab"))),
    ]
    lone.says("a", AppendEntries(Term(1), NONE, NO_TERM, NONE, frames))
    assert (lone.role, lone.raft.removed_at) == ("follower", None), "that may be undone"
    lone.says("a", Heartbeat(Term(1), Index(2), Index(2), Round(1), 0, 0))
    assert (lone.role, lone.raft.removed_at) == ("learner", 2)
    lone.forget()
    for _ in range(3):
        lone.elapse(2 * E_US)
    assert lone.sent(object) == []


def test_a_removal_is_beyond_doubt_only_when_it_is_committed_also_for_who_came_and_went():
    """Faults 28: after a start nothing of the log is known to be committed, and its end may be undone."""
    lone = Lone("c", "ab")
    frames = [configuration_entry(1, 1, Configuration(members("ab", "c"))), configuration_entry(2, 1, voters("a", "b"))]
    lone.says("a", AppendEntries(Term(1), NONE, NO_TERM, NONE, frames))
    told = [lone.raft.removed_at]
    for commit in (1, 2):
        lone.says("a", Heartbeat(Term(1), Index(commit), Index(commit), Round(commit), 0, 0))
        told.append(lone.raft.removed_at)
    assert told == [None, None, 2]


def test_nothing_is_asked_of_who_left_once_the_log_begins_after_its_part():
    """Faults 42: its part ends where it left; what stood before the log is not known any more, nor needed."""
    lone = Lone("a", "abc", settings=RaftSettings(log_tail_entries=1))
    lone.lead()
    lone.acknowledge("b", "c")
    begin(lone, members("ab"))
    lone.acknowledge("b", "c")
    lone.acknowledge("b")
    left_at = lone.raft.last_index
    assert lone.raft.commit_index == left_at
    lost = lone.raft.state.request(C, AppendEntries(Term(1), NONE, NO_TERM, NONE, []))
    for count in (1, 2):
        lone.raft.propose([b"x"] * count)
        lone.turn()
        lone.acknowledge("b")
        lone.raft.snapshot_stored(lone.raft.base_at(lone.raft.applied_index), size_bytes=100)
        if count == 1:
            assert lone.raft.state.log.base_index == left_at
            lone.raft.delivery_failed(lost)
    lone.forget()
    beats(lone, "b", count=2)
    assert lone.sent(AppendEntries) == []
    assert lone.raft.state.log.base_index > left_at


def test_who_left_and_is_forgotten_deposes_nobody():
    """Faults 15, 19: an answer to what it was sent long ago, in whatever term."""
    lone = led()
    left(lone)
    beats(lone, "b", count=13)
    assert set(lone.raft.contacts) == {A, B}
    lone.says("c", AppendEntriesReply(Term(9), False, NONE, NONE, NO_TERM, NONE))
    assert (lone.role, lone.raft.term) == ("leader", 1)


@pytest.mark.parametrize(
    ("asker", "last", "told"),
    [("c", (1, 3), True), ("c", (0, 9), True), ("c", (1, 4), False), ("c", (2, 1), False), ("b", (1, 1), False)],
)
@pytest.mark.parametrize("kind", [PreVoteRequest, RequestVote])
def test_who_asks_and_was_removed_is_told(kind, asker, last, told):
    """Thesis §4.2.3, faults 19: by who hears a leader, if the asker's log goes no further than what is committed."""
    lone = Lone("a", "abc")
    frames = [
        configuration_entry(1, 1, Configuration(members("abd"), outgoing=members("abc"))),
        configuration_entry(2, 1, Configuration(members("abd"))),
        configuration_entry(3, 1, Configuration(members("abd", "x"))),
    ]
    lone.says("b", AppendEntries(Term(1), NONE, NO_TERM, Index(3), frames))
    lone.forget()
    term, index = last
    lone.says(asker, _asks(kind, term, index))
    reply = lone.reply
    assert reply.removed is told
    assert (reply.last_log_term, reply.last_log_index) == (last if told else (0, 0)), "for whom it is true"
    assert lone.raft.term == 1


def test_an_emptied_node_is_told_that_it_is_none_of_the_members():
    """Faults 31: it goes by the incarnation, not by the name."""
    lone = Lone("a", "abc")
    lone.says("b", AppendEntries(Term(1), NONE, NO_TERM, Index(1), [configuration_entry(1, 1, voters("a", "b", "c"))]))
    lone.forget()
    request = PreVoteRequest(Term(2), NONE, NO_TERM)
    lone.raft.receive(lone.envelope("c", request, incarnation="c, emptied"), "an exchange")
    lone.turn()
    assert lone.reply == PreVoteReply(Term(1), Term(2), granted=False, removed=True)
    lone.says("c", request)
    assert not lone.reply.removed


def _asks(kind: type, term: int, index: int) -> PreVoteRequest | RequestVote:
    if kind is RequestVote:
        return RequestVote(Term(5), Index(index), Term(term), transfer=False)
    return PreVoteRequest(Term(5), Index(index), Term(term))


def test_without_a_leader_whoever_is_not_listed_is_judged_like_any_candidate():
    """Faults 19, thesis §4.1: a joint change can need its vote, and it a vote."""
    lone = Lone("a", "ab", log=[1])
    lone.says("x", RequestVote(Term(3), Index(1), Term(1), transfer=False))
    assert lone.reply == RequestVoteReply(Term(3), granted=True)
