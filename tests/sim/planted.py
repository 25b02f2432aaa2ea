"""Bugs to plant: each breaks one rule, in the way in which somebody might write it wrongly.

A checker that never fails proves nothing. Every one of these must be found by random runs. What random runs did
not find in thousands of seeds is not here: it needs a scenario.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from raftkv.core import durability, election, outbox, reads, replication, rules, state
from raftkv.core.progress import Progress
from raftkv.core.state import WaitingRead
from raftkv.core.types import Index, Round
from raftkv.kv.answers import Repeated
from raftkv.kv.sessions import Sessions
from raftkv.waiting import WaitingWrites

Plant = Callable[[pytest.MonkeyPatch], None]
PLANTED: dict[str, Plant] = {}


def plant(act: Plant) -> Plant:
    PLANTED[act.__name__] = act
    return act


def _rule(name: str, broken: Callable[..., Any]) -> Plant:
    return lambda patch: patch.setattr(rules, name, broken)


PLANTED |= {
    # Paper §5.4.2, Figure 8.
    "commits_old_terms_by_counting": _rule(
        "leader_commit_index", lambda *, commit, majority_match, **_: max(commit, majority_match)
    ),
    # Paper §5.4.1.
    "votes_for_anybody": _rule("candidate_is_up_to_date", lambda **_: True),
    "judges_logs_by_length_alone": _rule(
        "candidate_is_up_to_date",
        lambda *, candidates_last_index, our_last_index, **_: candidates_last_index >= our_last_index,
    ),
    "judges_logs_by_term_alone": _rule(
        "candidate_is_up_to_date",
        lambda *, candidates_last_term, our_last_term, **_: candidates_last_term >= our_last_term,
    ),
    # Figure 2, persistent state.
    "acknowledges_before_its_disk": _rule("append_reply_may_leave", lambda **_: True),
    "a_truncation_leaves_what_is_durable": _rule("durable_index_after_truncation", lambda *, durable, **_: durable),
    # Figure 2, AppendEntries.
    "never_truncates": _rule("entry_conflicts", lambda **_: False),
    "does_not_look_at_prev": _rule("log_matches", lambda **_: True),
    "looks_only_whether_prev_is_there": _rule(
        "log_matches", lambda *, our_term_at_prev, **_: our_term_at_prev is not None
    ),
    "commits_whatever_the_leader_did": _rule("heartbeat_commit_index", lambda *, leaders, **_: leaders),
    "match_falls": _rule("match_index_after", lambda *, reported, **_: reported),
    "serves_old_terms": _rule("term_is_stale", lambda **_: False),
    # A majority.
    "commits_without_a_majority": _rule(
        "majority_match_index", lambda voter_sets, match: Index(sorted(match.values())[-1])
    ),
    "wins_without_a_majority": _rule("has_won_election", lambda voter_sets, granted: True),
    # Thesis §6.4.
    "any_echo_confirms_a_round": _rule("confirmed_round", lambda voter_sets, echoed: Round(max(echoed.values()))),
}


@plant
def truncates_what_does_not_conflict(patch: pytest.MonkeyPatch) -> None:
    """A short request, or a late one, takes back what came after it."""

    def store(state, request):
        first = Index(request.prev_index + 1)
        if state.commit_index < first <= state.log.last_index and request.frames:
            state.truncate_from(first)
            state.append(request.frames)
        else:
            original(state, request)

    original = replication._store
    patch.setattr(replication, "_store", store)


@plant
def the_leader_counts_what_it_has_not_synced(patch: pytest.MonkeyPatch) -> None:
    """faults 1"""

    def advance(state):
        honest = state.durability.durable_index
        state.durability.durable_index = state.log.last_index
        original(state)
        state.durability.durable_index = honest

    original = replication.advance_commit
    patch.setattr(replication, "advance_commit", advance)


@plant
def old_writes_count_after_a_truncation(patch: pytest.MonkeyPatch) -> None:
    """faults 12: the disk's word for entries that were overwritten at the same indexes."""
    patch.setattr(durability.Durability, "_take_back", lambda self, index: None)


@plant
def votes_leave_before_the_disk_has_them(patch: pytest.MonkeyPatch) -> None:
    """faults 2"""
    original = outbox._may_leave
    patch.setattr(
        outbox,
        "_may_leave",
        lambda held, durability: (
            held.envelope.message.__class__.__name__ == "RequestVoteReply" or original(held, durability)
        ),
    )


@plant
def counts_its_own_vote_at_once(patch: pytest.MonkeyPatch) -> None:
    """Alone in its cluster, it leads before its disk knows; after a crash it could lead the same term again."""
    original = election.stand

    def stand(state, *, transfer=False):
        original(state, transfer=transfer)
        state.campaign.granted.add(state.me.id)
        election._count_votes(state)

    patch.setattr(election, "stand", stand)


@plant
def votes_twice(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(rules, "vote_is_free", lambda **_: True)
    original = outbox.Outbox.reply
    patch.setattr(
        outbox.Outbox,
        "reply",
        lambda self, exchange, envelope, *, vote=None, **rest: original(self, exchange, envelope, **rest),
    )


@plant
def stands_in_its_present_term_again(patch: pytest.MonkeyPatch) -> None:
    """The vote is changed instead of the term."""

    def set_term_and_vote(self, term, voted_for):
        if voted_for == self.me.id and self.current_term > 0:
            term = self.current_term
        self.current_term, self.voted_for = term, voted_for
        self.durability.vote_changed((term, voted_for))

    patch.setattr(state.State, "set_term_and_vote", set_term_and_vote)


@plant
def reads_do_not_wait_for_a_round(patch: pytest.MonkeyPatch) -> None:
    """faults 35"""

    def request_read(state, read_id):
        if state.office is not None and replication.may_serve(state, state.office):
            reads._release(state, WaitingRead(read_id, None), state.commit_index)
        else:
            original(state, read_id)

    original = reads.request_read
    patch.setattr(reads, "request_read", request_read)


@plant
def reads_join_rounds_that_are_out(patch: pytest.MonkeyPatch) -> None:
    """faults 34: as it once was, a list shared with the round before."""
    original = reads._send_round

    def send_round(state, office):
        waiting = office.unregistered_reads
        original(state, office)
        if not waiting:
            office.unregistered_reads = office.rounds[-1].reads

    patch.setattr(reads, "_send_round", send_round)


@plant
def executes_repeats(patch: pytest.MonkeyPatch) -> None:
    """faults 46, 47"""

    def judge(self, numbered, request_hash, now_ms):
        found = original(self, numbered, request_hash, now_ms)
        if isinstance(found, Repeated):
            self._drop(self._sessions[numbered.session], numbered.sequence)
            return None
        return found

    original = Sessions.judge
    patch.setattr(Sessions, "judge", judge)


@plant
def answers_whoever_waits_at_the_index(patch: pytest.MonkeyPatch) -> None:
    """faults 14, 69: without a look at the term, a write that was overtaken hears another's answer."""
    original = WaitingWrites.applied

    def applied(self, index, term, answer):
        for write in [*self._overtaken.get(index, ()), *filter(None, [self._by_index.get(index)])]:
            write.term = term
        original(self, index, term, answer)

    patch.setattr(WaitingWrites, "applied", applied)


@plant
def sends_from_beyond_what_matches(patch: pytest.MonkeyPatch) -> None:
    """A refusal is taken for an agreement."""

    def probe_from(self, next_index):
        self.matched(Index(next_index - 1))

    patch.setattr(Progress, "probe_from", probe_from)
