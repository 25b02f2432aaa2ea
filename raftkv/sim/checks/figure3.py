"""The properties of Figure 3 as claims about a whole state, for explorations that merge equal states.

``invariants.py`` watches one run and remembers; here nothing may be remembered but what is part of the state itself,
and that is the History: who was elected, what was committed, who waits for a read. Where the two disagree, one of them
is wrong.

Told: what is to be seen of each node. Tells: the history after a step, or Violated with the property's name.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from raftkv import frames as framing
from raftkv.core.messages import (
    AppendEntriesReply,
    Envelope,
    InstallSnapshotReply,
    PreVoteReply,
    PreVoteRequest,
    RequestVote,
)
from raftkv.core.messages import RequestVoteReply as VoteReply
from raftkv.core.types import Configuration, NodeId, Role, Term
from raftkv.sim.checks.invariants import Violated
from raftkv.sim.checks.succession import wrong_successor


class Facts(NamedTuple):
    """What is to be seen of one node."""

    id: NodeId
    life: int
    role: Role | None
    """None: it is down."""
    term: int
    log: tuple[bytes, ...]
    commit: int
    applied: tuple[bytes, ...]
    """What its state machine holds."""
    match: tuple[tuple[NodeId, int], ...]
    """At a leader: how far each follower is known to match."""
    vote: tuple[Term, NodeId | None]
    """On its disk."""
    durable: tuple[bytes, ...]
    """The entries on its disk."""
    hears: bool
    """It has heard a leader less than an election timeout ago."""
    deciding: tuple[tuple[frozenset[NodeId], ...], ...] = ()
    """By which voters it decides: by its newest configuration, or by the one before, whose turn it was until now; none:
    all nodes vote."""
    configurations: tuple[Configuration, ...] = ()
    """By which it says so, oldest first."""
    begun_with: Configuration | None = None
    """Before there was any in its log."""

    def is_decided(self, by: Collection[NodeId], nodes: Sequence[Facts]) -> bool:
        """Whether these are enough, as this node knows the members."""
        everybody = (frozenset(node.id for node in nodes),)
        return any(all(is_majority(by, voters) for voters in sets) for sets in self.deciding or (everybody,))


def is_majority(of: Collection[NodeId], voters: Collection[NodeId]) -> bool:
    """Whether they are more than half of the voters. Counted here again: what is checked may count wrongly."""
    return 2 * sum(voter in of for voter in voters) > len(voters)


class History(NamedTuple):
    """What was, as far as it decides on what may be."""

    leaders: tuple[tuple[int, NodeId], ...] = ()
    """(term, who led it), in the order of the elections."""
    committed: tuple[bytes, ...] = ()
    """All entries that some node knew to be committed."""
    reads: tuple[tuple[NodeId, int], ...] = ()
    """(who was asked, how much was committed by then) of each read that has no answer."""


def after_step(nodes: Sequence[Facts], moved: Facts, history: History) -> History:
    """One node has moved. All that this can have broken holds."""
    leaders, committed = history.leaders, history.committed
    if moved.role is Role.LEADER:
        leaders = _election_safety(nodes, moved, leaders)
    for other in nodes:
        if other is not moved:
            _log_matching(moved, other)
    committed = _state_machine_safety(nodes, moved, committed)
    if moved.role is Role.LEADER:
        _leader_completeness(moved, leaders, committed)
    return History(leaders, committed, history.reads)


def _election_safety(
    nodes: Sequence[Facts], moved: Facts, leaders: tuple[tuple[int, NodeId], ...]
) -> tuple[tuple[int, NodeId], ...]:
    """Figure 3: at most one leader in a term, ever; for a majority voted for it, and will not forget it."""
    for term, leader in leaders:
        if term == moved.term:
            if leader != moved.id:
                raise Violated("Election Safety", f"{leader} and {moved.id} both led term {term}")
            return leaders
    voters = [node.id for node in nodes if node.vote[0] > moved.term or node.vote == (moved.term, moved.id)]
    if not moved.is_decided(voters, nodes):
        raise Violated("elected by a majority", f"{moved.id} leads term {moved.term} by the votes of {voters}")
    return (*leaders, (moved.term, moved.id))


def _log_matching(one: Facts, other: Facts) -> None:
    """Figure 3: where two logs have an entry of one index and term, they are the same up to it."""
    for index in range(min(len(one.log), len(other.log)), 0, -1):
        if framing.term_and_index(one.log[index - 1]) == framing.term_and_index(other.log[index - 1]):
            if one.log[:index] != other.log[:index]:
                raise Violated("Log Matching", f"{one.id} and {other.id} have other histories up to entry {index}")
            return


def _state_machine_safety(nodes: Sequence[Facts], moved: Facts, committed: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """Figure 3: no two nodes commit different entries at one index; all of them are on a majority's disks.

    By the members of those who commit them; from then on by one of the voter sets that every election needs.
    """
    known = moved.log[: moved.commit]
    if known[: len(committed)] != committed[: len(known)]:
        raise Violated("State Machine Safety", f"{moved.id} commits others than were committed before")
    if moved.applied != known[: len(moved.applied)]:
        raise Violated("State Machine Safety", f"{moved.id}'s state is of others than were committed")
    is_news = len(known) > len(committed)
    committed = max(committed, known, key=len)
    if committed:
        holders = [node.id for node in nodes if node.durable[: len(committed)] == committed]
        if not _is_held(nodes, committed, holders) or (is_news and not moved.is_decided(holders, nodes)):
            raise Violated("committed is durable on a majority", f"{len(committed)} entries are only at {holders}")
    return committed


def _is_held(nodes: Sequence[Facts], committed: tuple[bytes, ...], holders: Collection[NodeId]) -> bool:
    """Whether nobody can be elected without the word of one of them."""
    for frame in reversed(committed):
        if framing.kind(frame) == framing.EntryKind.CONFIGURATION:
            return any(is_majority(holders, voters) for voters in _voter_sets_in(frame))
    everybody = frozenset(node.id for node in nodes)
    first = [node.deciding[-1] if node.deciding else (everybody,) for node in nodes if node.role is not None]
    known = [sets for sets in first if all(sets)]
    return not known or any(is_majority(holders, voters) for sets in known for voters in sets)


@lru_cache(maxsize=1_000)
def _voter_sets_in(frame: bytes) -> Sequence[frozenset[NodeId]]:
    return Configuration.decode(framing.body(frame)).voter_sets()


def _leader_completeness(moved: Facts, leaders: tuple[tuple[int, NodeId], ...], committed: tuple[bytes, ...]) -> None:
    """Figure 3: what was committed is in the log of every later leader."""
    if moved.term == max(leaders)[0] and moved.log[: len(committed)] != committed:
        raise Violated("Leader Completeness", f"{moved.id} leads term {moved.term} without all that is committed")


def read_answered(node: NodeId, index: int | None, history: History) -> History:
    """A read came to its end at this index; None: it failed. No answer is from before the question (thesis §6.4)."""
    waiting = [asker for asker, _ in history.reads]
    if node not in waiting:
        raise Violated("one answer a read", f"{node} answers at {index} what nobody asked")
    place = waiting.index(node)
    asked_at = history.reads[place][1]
    if index is not None and index < asked_at:
        raise Violated("real-time order", f"{node} reads at {index}, asked after {asked_at} was committed")
    return history._replace(reads=history.reads[:place] + history.reads[place + 1 :])


# ------------------------------------------------------------------------------- one node, before and after


def of_one_node(before: Facts, after: Facts, heard: Envelope | None, sent: Sequence[Envelope]) -> None:
    """What a step of one node may never do, whatever the others are. ``heard``: the message that came."""
    _nothing_durable_is_forgotten(before, after)
    if after.role is not None and before.life == after.life:
        _nothing_falls(before, after)
        _leader_append_only(before, after)
    if after.role is Role.LEADER and after.vote != (after.term, after.id):
        raise Violated("a leader's own vote is durable", f"{after.id} leads term {after.term}")
    if heard is not None:
        _elections_disturb_nobody(before, after, heard, sent)
    elif before.role is not None and before.term != after.term and after.role is not None and not _votes_alone(before):
        raise Violated("a term begins with others' word", f"{after.id} begins term {after.term} by itself")
    if after.role is not None and before.log != after.log:
        _members_follow(after)
    for envelope in sent:
        _rests_on_the_disk(after, envelope)


def _members_follow(node: Facts) -> None:
    """Paper §6: what follows what; and the newest of the log is in force, whoever it comes from."""
    for before, after in pairwise(node.configurations):
        wrong = wrong_successor(before, after)
        if wrong is not None:
            raise Violated("a change of members goes by its steps", f"{node.id}: {wrong}")
    told = [frame for frame in node.log if framing.kind(frame) == framing.EntryKind.CONFIGURATION]
    newest = Configuration.decode(framing.body(told[-1])) if told else node.begun_with
    if newest != node.configurations[-1]:
        raise Violated("the newest configuration is in force", f"{node.id} goes by {node.configurations[-1]}")


def _votes_alone(node: Facts) -> bool:
    """Whether its own word is a majority."""
    return any(sets and all(is_majority([node.id], voters) for voters in sets) for sets in node.deciding)


def _elections_disturb_nobody(before: Facts, after: Facts, heard: Envelope, sent: Sequence[Envelope]) -> None:
    """Thesis §9.6: who is asked whether it would vote does not change. §4.2.3: who hears a leader votes for nobody."""
    message = heard.message
    if isinstance(message, PreVoteRequest) and (before.term, before.role) != (after.term, after.role):
        raise Violated("a PreVote changes nothing", f"{after.id}: {message}")
    replies = [one.message for one in sent if one.receiver == heard.sender]
    voted = any(isinstance(reply, PreVoteReply | VoteReply) and reply.granted for reply in replies)
    asked = isinstance(message, PreVoteRequest) or (isinstance(message, RequestVote) and not message.transfer)
    if asked and before.hears and (voted or after.term != before.term):
        raise Violated("who hears a leader votes for nobody", f"{after.id}: {message}")


def _nothing_durable_is_forgotten(before: Facts, after: Facts) -> None:
    """Figure 2, persistent state: a term never falls, a vote never changes within one."""
    (term, vote), (later_term, later_vote) = before.vote, after.vote
    if later_term < term:
        raise Violated("term never falls", f"{after.id}: {term} → {later_term} on its disk")
    if later_term == term and vote not in (None, later_vote):
        raise Violated("one vote a term", f"{after.id} votes for {vote} and {later_vote} in term {term}")


def _nothing_falls(before: Facts, after: Facts) -> None:
    if after.term < before.term:
        raise Violated("term never falls", f"{after.id}: {before.term} → {after.term}")
    if after.commit < before.commit or after.applied[: len(before.applied)] != before.applied:
        raise Violated("commit and applied never fall", f"{after.id}")
    if not len(after.applied) <= after.commit <= len(after.log):
        raise Violated("applied ≤ commit ≤ last", f"{after.id}")
    if before.log[: before.commit] != after.log[: before.commit]:
        raise Violated("State Machine Safety", f"{after.id} overwrites what it knows to be committed")


def _leader_append_only(before: Facts, after: Facts) -> None:
    """Figure 3: a leader never overwrites or deletes entries in its log. Nor does it know less of its followers."""
    if after.role is not Role.LEADER or before.role is not Role.LEADER or before.term != after.term:
        return
    if after.log[: len(before.log)] != before.log:
        raise Violated("Leader Append-Only", f"{after.id} changed its log while it led")
    if after.commit > before.commit and framing.term_and_index(after.log[after.commit - 1])[0] != after.term:
        raise Violated("only the own term is committed by counting", f"{after.id}, entry {after.commit}")
    match = dict(after.match)
    if any(match.get(peer, known) < known for peer, known in before.match):
        raise Violated("match never falls", f"at {after.id}: {before.match} → {after.match}")


def _rests_on_the_disk(node: Facts, envelope: Envelope) -> None:
    """Whoever hears of a term, a vote or a match could hear of it again after a crash; so it is stored before."""
    message = envelope.message
    if isinstance(message, PreVoteRequest) or (isinstance(message, PreVoteReply) and message.granted):
        return
    if message.term > node.vote[0]:
        raise Violated("nothing leaves before its term is durable", f"{node.id}: {message}")
    if isinstance(message, RequestVote) and node.vote != (message.term, node.id):
        raise Violated("a candidate's own vote is durable", f"{node.id}: {message}")
    if isinstance(message, VoteReply) and message.granted and node.vote != (message.term, envelope.receiver):
        raise Violated("a vote is durable before it leaves", f"{node.id}: {message}")
    if isinstance(message, AppendEntriesReply) and message.success:
        match = message.match
        if len(node.durable) < match or node.durable[:match] != node.log[:match]:
            raise Violated("acknowledged is durable", f"{node.id} claims {match}, which its disk does not have so")
    if isinstance(message, InstallSnapshotReply) and message.installed:
        match = message.index
        if len(node.durable) < match or node.durable[:match] != node.log[:match]:
            raise Violated("installed is durable", f"{node.id} claims {match}, which its disk does not have so")
