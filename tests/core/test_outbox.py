"""What may leave: held until the disk allows it, void after a change of term, and one reply for every request."""

from __future__ import annotations

import pytest

from raftkv.core.durability import Durability
from raftkv.core.messages import (
    AppendEntries,
    AppendEntriesReply,
    Heartbeat,
    HeartbeatReply,
    PreVoteReply,
    PreVoteRequest,
    ReadIndexReply,
    ReadIndexRequest,
    Reply,
    RequestVote,
    RequestVoteReply,
    TimeoutNow,
    TimeoutNowReply,
)
from raftkv.core.outbox import Outbox, refusal_instead_of
from raftkv.core.types import Index, Round, Term
from tests.core.lone import NO_TERM, NONE, B, Lone, entries

ENVELOPE = Lone().envelope


def durability_of(term: int, vote: str | None = None, index: int = 0) -> Durability:
    return Durability(durable_index=Index(index), durable_vote=(Term(term), None if vote is None else B))


def leaving(outbox: Outbox, term: int, durability: Durability) -> tuple[list[object], list[tuple[object, object]]]:
    outbox.release(current_term=Term(term), durability=durability)
    requests, replies = outbox.take()
    return [one.message for one in requests], [(exchange, one.message) for exchange, one in replies]


GRANT = RequestVoteReply(Term(5), granted=True)
MATCH = AppendEntriesReply(Term(5), True, Index(2), Index(4), NO_TERM, NONE)


def test_a_reply_waits_for_its_term():
    """faults 2"""
    outbox = Outbox()
    reply = RequestVoteReply(Term(5), granted=False)
    outbox.reply("x", ENVELOPE("b", reply), said_in=Term(5))
    assert leaving(outbox, 5, durability_of(4)) == ([], [])
    assert leaving(outbox, 5, durability_of(5)) == ([], [("x", reply)])
    assert leaving(outbox, 5, durability_of(5)) == ([], []), "once"


def test_a_grant_waits_for_its_vote():
    """faults 2"""
    outbox = Outbox()
    outbox.reply("x", ENVELOPE("b", GRANT), said_in=Term(5), vote=(Term(5), B))
    assert leaving(outbox, 5, durability_of(5)) == ([], [])
    assert leaving(outbox, 5, durability_of(5, "b")) == ([], [("x", GRANT)])


def test_a_match_waits_for_its_entries():
    """faults 2"""
    outbox = Outbox()
    outbox.reply("x", ENVELOPE("b", MATCH), said_in=Term(5), match=Index(4))
    assert leaving(outbox, 5, durability_of(5, index=3)) == ([], [])
    assert leaving(outbox, 5, durability_of(5, index=4)) == ([], [("x", MATCH)])


def test_what_waits_holds_nothing_else_up():
    outbox = Outbox()
    outbox.reply("x", ENVELOPE("b", MATCH), said_in=Term(5), match=Index(4))
    beat = HeartbeatReply(Term(5), Round(3), NONE, b"")
    outbox.reply("y", ENVELOPE("b", beat), said_in=Term(5))
    assert leaving(outbox, 5, durability_of(5, index=3)) == ([], [("y", beat)])


def test_a_request_for_votes_waits_for_the_own_vote():
    """faults 2"""
    outbox = Outbox()
    request = RequestVote(Term(5), NONE, NO_TERM, transfer=False)
    outbox.send(ENVELOPE("b", request), said_in=Term(5), vote=(Term(5), B))
    assert leaving(outbox, 5, durability_of(5)) == ([], [])
    assert leaving(outbox, 5, durability_of(5, "b")) == ([request], [])


def test_a_request_of_an_older_term_never_leaves():
    """faults 14"""
    outbox = Outbox()
    outbox.send(ENVELOPE("b", RequestVote(Term(5), NONE, NO_TERM, transfer=False)), said_in=Term(5))
    assert leaving(outbox, 6, durability_of(6)) == ([], [])
    assert leaving(outbox, 6, durability_of(6)) == ([], [])


def test_what_rests_on_nothing_leaves_at_once():
    outbox = Outbox()
    outbox.send_at_once(ENVELOPE("b", MATCH))
    assert leaving(outbox, 5, durability_of(0)) == ([MATCH], [])


def test_a_reply_of_an_older_term_leaves_as_a_refusal_when_the_new_term_is_durable():
    """faults 14: an open exchange waits for it; what it claimed is not said any more."""
    outbox = Outbox()
    outbox.reply("x", ENVELOPE("b", GRANT), said_in=Term(5), vote=(Term(5), B))
    assert leaving(outbox, 6, durability_of(5, "b")) == ([], []), "the new term is not durable"
    assert leaving(outbox, 6, durability_of(6)) == ([], [("x", RequestVoteReply(Term(6), granted=False))])


def test_a_refusal_can_become_void_again():
    outbox = Outbox()
    outbox.reply("x", ENVELOPE("b", MATCH), said_in=Term(5), match=Index(4))
    assert leaving(outbox, 6, durability_of(5)) == ([], [])
    ((exchange, reply),) = leaving(outbox, 7, durability_of(7))[1]
    assert exchange == "x"
    assert isinstance(reply, AppendEntriesReply)
    assert (reply.term, reply.success, reply.match) == (7, False, 0)


@pytest.mark.parametrize(
    ("held", "refusal"),
    [
        (GRANT, RequestVoteReply(Term(9), granted=False)),
        (PreVoteReply(Term(6), Term(6), granted=True), PreVoteReply(Term(9), Term(6), granted=False)),
        (MATCH, AppendEntriesReply(Term(9), False, Index(2), NONE, NO_TERM, NONE)),
        (
            HeartbeatReply(Term(5), Round(3), Index(1024), b"h" * 16),
            HeartbeatReply(Term(9), Round(0), Index(1024), b"h" * 16),
        ),
        (
            ReadIndexReply(Term(5), 7, confirmed=True, index=Index(4)),
            ReadIndexReply(Term(9), 7, confirmed=False, index=NONE),
        ),
        (TimeoutNowReply(Term(5), accepted=True), TimeoutNowReply(Term(9), accepted=False)),
    ],
    ids=lambda reply: type(reply).__name__,
)
def test_the_refusal_of_every_kind_of_reply_claims_nothing(held: Reply, refusal: Reply):
    assert refusal_instead_of(held, Term(9)) == refusal


def test_every_request_gets_one_reply_whatever_becomes_of_the_term():
    """faults 14: appends, votes and heartbeats wait for a disk that hangs while three terms pass."""
    lone = Lone(log=[1])
    lone.forget()
    lone.disk_answers = False
    for term in (2, 3, 4):
        sender = "bcb"[term - 2]
        lone.says(sender, AppendEntries(Term(term), Index(1), Term(1), NONE, entries([term], first=2)))
        lone.says(sender, Heartbeat(Term(term), NONE, NONE, Round(1), 0, 0))
        lone.says("c", PreVoteRequest(Term(term + 1), Index(9), Term(1)))
        lone.says("c", ReadIndexRequest(Term(term), 1))
        lone.says("b", TimeoutNow(Term(1)))
        lone.elapse(300_000)
        lone.says("b", RequestVote(Term(term), Index(9), Term(9), transfer=True))
    assert lone.exchanges == []
    lone.disk_answers = True
    lone.turn()
    assert sorted(map(int, map(str, lone.exchanges))) == list(range(1, 19))
    for reply in lone.replies:
        assert reply.term == 4 or isinstance(reply, PreVoteReply)
