"""What no node of this cluster would send is refused, and changes nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from raftkv.core.messages import (
    AppendEntries,
    AppendEntriesReply,
    Envelope,
    Heartbeat,
    HeartbeatReply,
    Message,
    PreVoteReply,
    RequestVote,
    RequestVoteReply,
)
from raftkv.core.types import ClusterId, Configuration, Index, Membership, NodeId, Role, Round, Term
from raftkv.errors import MessageError, Misdirected
from tests.core.lone import NO_TERM, NONE, Lone, configuration_entry, entries, entry, incarnation_of


def seen_from_outside(lone: Lone) -> tuple[object, ...]:
    raft = lone.raft
    return (raft.term, raft.voted_for, raft.role, raft.leader_id, raft.commit_index, lone.terms)


def refuses(lone: Lone, envelope: Envelope, error: type[Exception]) -> None:
    before = seen_from_outside(lone)
    with pytest.raises(error):
        lone.raft.receive(envelope, "exchange")
    lone.turn()
    assert seen_from_outside(lone) == before
    assert lone.exchanges == []


HIGH_TERM = RequestVote(Term(99), Index(99), Term(98), transfer=True)


@pytest.mark.parametrize(
    "change",
    [
        {"cluster_id": ClusterId(b"another cluster.")},
        {"receiver": NodeId("b")},
        {"receiver_incarnation": incarnation_of("an emptied disk")},
    ],
    ids=["another cluster", "another node", "another incarnation"],
)
@pytest.mark.parametrize(
    "message", [HIGH_TERM, HeartbeatReply(Term(99), Round(1), NONE, b"")], ids=["request", "reply"]
)
def test_what_is_not_for_this_node_moves_no_term(change, message):
    """faults 19, 32: another cluster's node, a wrong id at an address."""
    lone = Lone()
    refuses(lone, replace(lone.envelope("b", message), **change), Misdirected)


@pytest.mark.parametrize(
    "message",
    [RequestVote(Term(2**62), NONE, NO_TERM, transfer=False), RequestVoteReply(Term(2**62), granted=False)],
    ids=["request", "reply"],
)
def test_a_term_that_no_cluster_reaches_is_not_adopted(message):
    """faults 57: with it the next election could not count any further."""
    lone = Lone()
    refuses(lone, lone.envelope("b", message), MessageError)


def test_a_term_that_is_far_ahead_but_thinkable_is_adopted():
    lone = Lone()
    lone.raft.receive(lone.envelope("b", RequestVote(Term(2**40), NONE, NO_TERM, transfer=False)), "exchange")
    assert lone.raft.term == 2**40


def test_a_vote_of_an_emptied_disk_does_not_count():
    """faults 31: it bears the member's name, but it is another node."""
    lone = Lone()
    lone.stand()
    vote = RequestVoteReply(lone.raft.term, granted=True)
    lone.forget()
    refuses(lone, lone.envelope("b", vote, incarnation="b, emptied"), Misdirected)
    assert lone.raft.role is Role.CANDIDATE


def test_a_reply_of_an_unknown_node_does_not_count():
    """faults 19"""
    lone = Lone()
    lone.stand()
    lone.forget()
    refuses(lone, lone.envelope("x", PreVoteReply(Term(50), Term(2), granted=False)), Misdirected)


def test_an_unlisted_candidate_is_judged_like_any_other():
    """faults 19, 27; thesis §4.1: this node may not have heard yet that it votes."""
    lone = Lone()
    lone.says("x", RequestVote(Term(1), NONE, NO_TERM, transfer=False))
    assert lone.reply == RequestVoteReply(Term(1), granted=True)


def test_an_unlisted_candidate_moves_no_term_while_a_leader_is_heard():
    """faults 19"""
    lone = Lone()
    lone.follow("b", 1)
    lone.says("x", RequestVote(Term(9), Index(9), Term(8), transfer=False))
    assert lone.reply == RequestVoteReply(Term(1), granted=False)
    assert lone.raft.term == 1


@pytest.mark.parametrize(
    "message",
    [AppendEntries(Term(1), NONE, NO_TERM, NONE, []), Heartbeat(Term(1), NONE, NONE, Round(1), 0, 0)],
    ids=["append", "heartbeat"],
)
def test_a_second_leader_of_the_own_term_is_refused(message):
    """Election Safety forbids it, so it is a peer's mistake; it must not bring this leader down."""
    lone = Lone()
    lone.lead()
    refuses(lone, lone.envelope("b", message), MessageError)


def test_nobody_overwrites_what_is_committed():
    """A leader without a committed entry is no leader; this node neither follows it there nor falls over."""
    lone = Lone(log=[1, 1, 1])
    lone.says("b", AppendEntries(Term(1), Index(3), Term(1), Index(3), []))
    lone.forget()
    refuses(
        lone, lone.envelope("c", AppendEntries(Term(2), Index(1), Term(1), NONE, entries([2], first=2))), MessageError
    )


def no_voters(index: int, term: int) -> bytes:
    return configuration_entry(index, term, Configuration(Membership(())))


@pytest.mark.parametrize(
    "message",
    [
        AppendEntries(Term(2), Index(1), Term(1), NONE, [entry(3, 2)]),
        AppendEntries(Term(2), Index(1), Term(1), NONE, [entry(2, 2), entry(2, 2)]),
        AppendEntries(Term(2), Index(1), Term(2), NONE, [entry(2, 1)]),
        AppendEntries(Term(2), Index(1), Term(1), NONE, [entry(2, 3)]),
        AppendEntries(Term(2), Index(1), Term(1), NONE, [no_voters(2, 2)]),
    ],
    ids=["a gap", "the same twice", "a falling term", "a term above the leader's", "nobody votes"],
)
def test_entries_that_no_leader_sends(message):
    """faults 57"""
    lone = Lone(log=[1])
    refuses(lone, lone.envelope("b", message), MessageError)


def test_a_match_beyond_the_leaders_log_counts_for_nothing():
    lone = Lone()
    lone.lead()
    before = lone.office.progress[NodeId("b")].last_contact_us
    lone.now_us += 1000
    lone.raft.elapse(lone.now_us)
    beyond = AppendEntriesReply(lone.raft.term, True, NONE, Index(99), NO_TERM, NONE)
    refuses(lone, lone.envelope("b", beyond), MessageError)
    progress = lone.office.progress[NodeId("b")]
    assert (progress.match_index, progress.last_contact_us) == (0, before)


def test_messages_of_an_unknown_kind_cannot_be_made():
    """The vocabulary is closed: every kind of message has its own handler, and the facade knows all of them."""
    lone = Lone()
    handled: list[Message] = [
        *(PreVoteReply(Term(0), Term(0), granted=False), RequestVoteReply(Term(0), granted=False)),
        HeartbeatReply(Term(0), Round(0), NONE, b""),
    ]
    for message in handled:
        lone.says("b", message)
    assert lone.raft.term == 0
