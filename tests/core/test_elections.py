"""Elections, resignation, transfer: the paper and the thesis played against one core with hand-made messages."""

from __future__ import annotations

from dataclasses import replace

import pytest

from raftkv.core.messages import (
    AppendEntries,
    AppendEntriesReply,
    Heartbeat,
    HeartbeatReply,
    PreVoteReply,
    PreVoteRequest,
    RequestVote,
    RequestVoteReply,
    TimeoutNow,
    TimeoutNowReply,
)
from raftkv.core.settings import RaftSettings
from raftkv.core.types import Configuration, Index, NodeId, Round, Term, membership_of
from raftkv.errors import ConfigError
from tests.core.lone import E_US, NO_TERM, NONE, B, Lone, configuration_entry, entries, incarnation_of, voters


def append(term: int, prev: int, prev_term: int, terms: tuple[int, ...] = (), *, commit: int = 0) -> AppendEntries:
    return AppendEntries(Term(term), Index(prev), Term(prev_term), Index(commit), entries(terms, first=prev + 1))


def success(lone: Lone, match: int, *, term: int | None = None) -> AppendEntriesReply:
    said_in = lone.raft.term if term is None else Term(term)
    return AppendEntriesReply(said_in, True, NONE, Index(match), NO_TERM, NONE)


# ------------------------------------------------------------------------------- §5.1, §5.2: elections


def test_a_node_starts_as_a_follower_and_stands_only_after_a_whole_timeout():
    """Paper §5.2"""
    lone = Lone()
    assert lone.role == "follower"
    lone.elapse(E_US - 1)
    assert lone.role == "follower"
    lone.elapse(E_US + 1)
    assert lone.role == "candidate"


def test_asking_whether_it_would_win_stores_nothing():
    """Thesis §9.6, faults 15"""
    lone = Lone()
    for _ in range(20):
        lone.elapse(2 * E_US)
    assert lone.raft.term == 0
    assert lone.raft.durable_index == 0
    assert {request.term for request in lone.requests(PreVoteRequest)} == {1}
    assert lone.requests(RequestVote) == []


def test_a_grant_of_the_question_is_no_vote():
    """faults 11"""
    lone = Lone()
    lone.stand()
    assert lone.raft.term == 1
    lone.says("b", PreVoteReply(Term(1), Term(1), granted=True))
    lone.says("c", PreVoteReply(Term(2), Term(2), granted=True))
    assert lone.role == "candidate"


@pytest.mark.parametrize("term", [0, 1])
def test_a_vote_of_an_older_term_is_not_counted(term):
    """faults 11"""
    lone = Lone(term=1)
    lone.stand()
    assert lone.raft.term == 2
    lone.says("b", RequestVoteReply(Term(term), granted=True))
    lone.says("c", RequestVoteReply(Term(term), granted=True))
    assert lone.role == "candidate"
    lone.says("c", RequestVoteReply(Term(2), granted=True))
    assert lone.role == "leader"


def test_a_doubled_vote_counts_once():
    lone = Lone(others="abcde")
    lone.stand()
    for _ in range(3):
        lone.says("b", RequestVoteReply(Term(1), granted=True))
    assert lone.role == "candidate"
    lone.says("c", RequestVoteReply(Term(1), granted=True))
    assert lone.role == "leader"


def test_a_candidate_counts_its_own_vote_only_from_its_disk():
    """faults 2: one more vote would do, but its own is not stored; nor does its request leave before."""
    lone = Lone()
    lone.disk_answers = False
    lone.stand()
    assert lone.requests(RequestVote) == []
    lone.says("b", RequestVoteReply(Term(1), granted=True))
    assert lone.role == "candidate"
    lone.disk_answers = True
    lone.turn()
    assert lone.role == "leader"
    assert len(lone.requests(RequestVote)) == 2


def test_a_cluster_of_one_leads_when_its_vote_is_stored():
    """faults 2"""
    lone = Lone(others="a")
    lone.disk_answers = False
    lone.elapse(2 * E_US)
    assert lone.role == "candidate"
    lone.disk_answers = True
    lone.turn()
    assert lone.role == "leader"
    assert lone.raft.commit_index == 1


def test_one_vote_a_term_also_in_the_next_life():
    """faults 2"""
    lone = Lone(term=3, voted_for="b")
    lone.says("c", RequestVote(Term(3), NONE, NO_TERM, transfer=False))
    lone.says("b", RequestVote(Term(3), NONE, NO_TERM, transfer=False))
    assert [reply.granted for reply in lone.replies] == [False, True]


def test_a_candidate_that_meets_its_terms_leader_follows():
    """Paper §5.2"""
    lone = Lone()
    lone.stand()
    lone.says("b", append(1, 0, 0))
    assert (lone.role, lone.raft.leader_id, lone.raft.term) == ("follower", "b", 1)
    lone.says("c", RequestVoteReply(Term(1), granted=True))
    assert lone.role == "follower"


def test_votes_that_cannot_come_together_end_the_campaign():
    lone = Lone()
    lone.stand()
    lone.says("b", RequestVoteReply(Term(1), granted=False))
    assert lone.role == "candidate"
    lone.says("c", RequestVoteReply(Term(1), granted=False))
    assert lone.role == "follower"


def deadline_after(lone: Lone, *, of: str, message: object) -> tuple[int | None, int | None]:
    before = lone.raft.state.election_deadline_us
    lone.now_us += 1000
    lone.raft.elapse(lone.now_us)
    lone.says(of, message)  # type: ignore[arg-type]
    return before, lone.raft.state.election_deadline_us


@pytest.mark.parametrize(
    ("message", "resets"),
    [
        (append(1, 0, 0), True),
        (Heartbeat(Term(1), NONE, NONE, Round(1), 0, 0), True),
        (RequestVote(Term(1), NONE, NO_TERM, transfer=False), True),  # granted
        (RequestVote(Term(5), NONE, NO_TERM, transfer=False), True),
        (append(0, 0, 0), False),  # a stale leader
        (Heartbeat(Term(0), NONE, NONE, Round(1), 0, 0), False),
        (RequestVote(Term(0), NONE, NO_TERM, transfer=False), False),
        (PreVoteRequest(Term(9), Index(9), Term(9)), False),
        (PreVoteReply(Term(7), Term(2), granted=False), False),
        (RequestVoteReply(Term(7), granted=False), False),
    ],
)
def test_only_a_leader_and_a_granted_vote_reset_the_election_timer(message, resets):
    """Paper Figure 2 "Followers": anybody else could keep a cluster without a leader."""
    lone = Lone(term=1)
    before, after = deadline_after(lone, of="b", message=message)
    assert (before != after) is resets


def test_a_refused_candidate_does_not_reset_the_timer_though_its_term_is_adopted():
    """faults 16: a node with an old log must not hold back those who could win."""
    lone = Lone(log=[1, 1])
    before, after = deadline_after(lone, of="b", message=RequestVote(Term(5), Index(1), Term(1), transfer=False))
    assert before == after
    assert lone.raft.term == 5


def test_an_answer_to_an_earlier_question_is_not_counted():
    """Thesis §9.6, faults 11"""
    lone = Lone(term=1)
    lone.elapse(2 * E_US)
    lone.says("b", PreVoteReply(Term(7), Term(2), granted=False))
    lone.elapse(2 * E_US)
    lone.says("c", PreVoteReply(Term(2), Term(2), granted=True))
    assert lone.raft.term == 7
    lone.says("c", PreVoteReply(Term(8), Term(8), granted=True))
    assert lone.raft.term == 8


@pytest.mark.parametrize(("proposed", "reply"), [(6, (6, 6, True)), (5, (5, 5, False)), (3, (5, 3, False))])
def test_a_question_is_answered_with_its_own_term_or_with_a_higher_one(proposed, reply):
    """Thesis §9.6: the asked term when granted, so that a yes never moves the asker's term; else the voter's own."""
    lone = Lone(term=5)
    lone.says("b", PreVoteRequest(Term(proposed), Index(9), Term(5)))
    assert lone.reply == PreVoteReply(Term(reply[0]), Term(reply[1]), granted=reply[2])
    assert lone.raft.term == 5


def test_a_higher_term_in_a_refused_question_is_adopted():
    """faults 15, 16: else a node with the best log would ask for ever below the others' term."""
    lone = Lone(log=[1, 1])
    lone.elapse(2 * E_US)
    lone.says("b", PreVoteReply(Term(7), Term(2), granted=False))
    assert (lone.raft.term, lone.role) == (7, "follower")
    lone.forget()
    lone.elapse(2 * E_US)
    assert lone.requests(PreVoteRequest, "b") == [PreVoteRequest(Term(8), Index(2), Term(1))]


@pytest.mark.parametrize("transfer", [False, True])
def test_votes_are_withheld_while_a_leader_is_heard(transfer):
    """Thesis §4.2.3, §3.10, faults 15 and 19: no term moves; the leader's own wish goes through."""
    lone = Lone()
    lone.follow("b", 1)
    lone.elapse(E_US - 1)
    lone.says("c", RequestVote(Term(9), Index(9), Term(8), transfer=transfer))
    assert lone.reply == RequestVoteReply(Term(9 if transfer else 1), granted=transfer)
    assert lone.raft.term == (9 if transfer else 1)


def test_a_leader_in_contact_with_its_majority_withholds_its_vote():
    """Thesis §4.2.3"""
    lone = Lone()
    lone.lead()
    lone.elapse(E_US - 1)
    lone.acknowledge("b")
    lone.elapse(E_US - 1)
    lone.forget()
    lone.says("c", RequestVote(Term(9), Index(9), Term(8), transfer=False))
    assert lone.replies == [RequestVoteReply(Term(1), granted=False)]
    assert lone.role == "leader"


def test_a_leader_that_is_deposed_and_an_election_in_one_turn():
    """faults 14: what the old office had said is not said any more."""
    lone = Lone()
    lone.lead()
    lone.raft.propose([b"x"])
    lone.hears("b", RequestVote(Term(5), Index(9), Term(4), transfer=True))
    effects = lone.turn()
    assert lone.requests(AppendEntries) == []
    assert [write.truncate_from for write in effects.persist] == []
    assert lone.reply == RequestVoteReply(Term(5), granted=True)
    assert lone.raft.last_index == 2, "nothing is lost before somebody overwrites it"


# ----------------------------------------------------------------------------------- thesis §6.2, §3.10


def test_a_leader_without_its_majority_stops_after_a_timeout():
    """Thesis §6.2, faults 18"""
    lone = Lone()
    lone.lead()
    lone.elapse(E_US - 1)
    assert lone.role == "leader"
    lone.acknowledge("b")
    lone.elapse(E_US - 1)
    assert lone.role == "leader"
    lone.elapse(1)
    assert (lone.role, lone.raft.term) == ("follower", 1)


def test_stepping_down_names_the_term_that_was_led():
    lone = Lone()
    lone.lead()
    lone.says("b", append(7, 0, 0))
    assert "a: leader in term 1 → follower, b leads term 7" in [note.text for note in lone.effects.notes]


def test_a_target_that_is_told_to_stand_says_that_it_does():
    """Thesis §3.10, faults 20: in its new term, when its vote is stored; so the old leader follows at once."""
    lone = Lone()
    lone.follow("b", 1)
    lone.says("b", TimeoutNow(Term(1)))
    assert lone.reply == TimeoutNowReply(Term(2), accepted=True)
    assert lone.requests(RequestVote, "c") == [RequestVote(Term(2), NONE, NO_TERM, transfer=True)]


@pytest.mark.parametrize("term", [0, 2])
def test_only_the_present_leader_makes_a_node_stand(term):
    """faults 20: a late or an early word is refused."""
    lone = Lone()
    lone.follow("b", 1)
    lone.says("b", TimeoutNow(Term(term)))
    assert lone.reply == TimeoutNowReply(Term(1), accepted=False)
    assert lone.role == "follower"


def test_who_has_no_vote_never_stands():
    """Thesis §4.2.1: neither by itself nor when it is told to; it asks only so that it may hear of its removal."""
    lone = Lone("a", "bcd")
    for _ in range(5):
        lone.elapse(2 * E_US)
        for voter in "bcd":
            lone.says(voter, PreVoteReply(Term(1), Term(1), granted=True))
    lone.says("b", TimeoutNow(NO_TERM))
    assert lone.reply == TimeoutNowReply(NO_TERM, accepted=False)
    assert {type(envelope.message) for envelope in lone.sent(object)} == {PreVoteRequest}
    assert (lone.role, lone.raft.term) == ("learner", 0)


def test_who_was_replaced_under_its_own_name_never_stands():
    """faults 31: the configuration lists another incarnation of this id."""
    lone = Lone()
    me, *others = voters("a", "b", "c").current.voters
    anew = Configuration(membership_of((replace(me, incarnation=incarnation_of("a anew")), *others)))
    lone.raft.state.append([configuration_entry(1, 0, anew)])
    for _ in range(5):
        lone.elapse(2 * E_US)
        for voter in "bc":
            lone.says(voter, PreVoteReply(Term(1), Term(1), granted=True))
    assert {type(envelope.message) for envelope in lone.sent(object)} == {PreVoteRequest}
    lone.says("b", TimeoutNow(NO_TERM))
    assert lone.reply == TimeoutNowReply(NO_TERM, accepted=False)
    assert (lone.role, lone.raft.term) == ("learner", 0)


def test_only_the_targets_refusal_ends_a_transfer():
    """A refusal that comes late is of an earlier one, to somebody else."""
    lone = Lone()
    lone.lead()
    lone.acknowledge("b", "c")
    lone.raft.transfer_leadership(NodeId("b"))
    lone.turn()
    for refusing, goes_on in (("c", False), ("b", True)):
        lone.says(refusing, TimeoutNowReply(lone.raft.term, accepted=False))
        assert lone.raft.takes_proposals is goes_on


def test_a_leader_is_nobodys_target():
    lone = Lone()
    lone.lead()
    lone.says("b", TimeoutNow(lone.raft.term))
    assert lone.reply == TimeoutNowReply(Term(1), accepted=False)
    assert lone.role == "leader"


def test_the_best_target_was_heard_lately():
    """Who holds the longest log and is gone would only have writes wait for nothing."""
    lone = Lone()
    lone.lead()
    lone.acknowledge("b")
    lone.acknowledge("c", match=0)
    assert lone.raft.best_placed == "b"
    for _ in range(3):
        lone.elapse(100_000)
        lone.says("c", HeartbeatReply(lone.raft.term, lone.office.last_round, NONE, b""))
    assert lone.raft.best_placed == "c"


def test_a_target_hears_of_the_transfer_once_it_holds_everything():
    """Thesis §3.10, faults 20"""
    lone = Lone()
    lone.lead()
    lone.acknowledge("b")
    lone.raft.propose([b"x"])
    assert lone.raft.transfer_leadership(None) == "b"
    lone.turn()
    assert lone.requests(TimeoutNow) == []
    assert not lone.raft.takes_proposals
    lone.acknowledge("b")
    lone.elapse(1000)
    assert lone.requests(TimeoutNow, "b") == [TimeoutNow(Term(1))], "once"
    lone.says("b", TimeoutNowReply(Term(1), accepted=False))
    assert lone.raft.takes_proposals, "a target that will not stand ends it"


@pytest.mark.parametrize(("target", "why"), [("x", "no other voter of"), ("a", "no other voter of"), (None, "heard")])
def test_a_transfer_to_nobody_is_refused(target, why):
    """faults 20"""
    lone = Lone()
    lone.lead()
    lone.raft.state.office.progress[B].has_answered = False  # type: ignore[union-attr]
    with pytest.raises(ValueError, match=why):
        lone.raft.transfer_leadership(None if target is None else NodeId(target))


def test_a_leader_whose_disk_hangs_hands_over_when_a_majority_still_stores():
    """faults 22: with fewer, nobody could be elected, and the reads that this leader still serves would be lost too."""
    lone = Lone()
    lone.lead()
    lone.acknowledge("b", "c")
    lone.disk_answers = False
    lone.raft.propose([b"x"])
    lone.turn()
    lone.acknowledge("b")
    lone.elapse(E_US - 1)
    lone.acknowledge("b")
    lone.says("c", success(lone, 1))
    lone.elapse(1)
    assert lone.raft.takes_proposals
    lone.elapse(1)
    assert not lone.raft.takes_proposals
    assert lone.requests(TimeoutNow) == []
    assert [note.event for note in lone.effects.notes] == ["disk_stalled"]
    lone.acknowledge("c")
    lone.elapse(1)
    assert len(lone.requests(TimeoutNow)) == 1


# ----------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("how", "refused"),
    [
        ({"heartbeat_ms": 150, "election_timeout_ms": 300}, False),
        ({"heartbeat_ms": 151, "election_timeout_ms": 300}, True),
        ({"heartbeat_ms": 300, "election_timeout_ms": 300}, True),
        ({"heartbeat_ms": 0}, True),
        ({"inflight_appends_max": 0}, True),
    ],
)
def test_a_heartbeat_that_is_not_twice_in_a_timeout_is_refused(how, refused):
    """faults 21"""
    if refused:
        with pytest.raises(ConfigError):
            RaftSettings(**how)
    else:
        RaftSettings(**how)
