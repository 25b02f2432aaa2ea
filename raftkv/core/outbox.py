"""What may leave, and what must wait for the disk.

Told: a message and what it rests on. Tells: what may leave now. It is the one place that keeps the
promise "nothing leaves that rests on an unfinished write", and the other: every request gets exactly one
reply. A held reply that became void, because the term moved on, leaves as a refusal in the present term.
"""

from __future__ import annotations

from dataclasses import dataclass

from raftkv.core import rules
from raftkv.core.durability import Durability, Vote
from raftkv.core.effects import Exchange
from raftkv.core.messages import (
    REPLY_TYPES,
    AppendEntriesReply,
    Envelope,
    HeartbeatReply,
    InstallSnapshotReply,
    PreVoteReply,
    ReadIndexReply,
    Reply,
    RequestVoteReply,
    TimeoutNowReply,
)
from raftkv.core.types import Index, Round, Term


@dataclass(slots=True)
class _Held:
    """A message and the term in which it was said."""

    exchange: Exchange | None
    """None for a request of our own."""
    envelope: Envelope
    said_in: Term
    vote: Vote | None
    match: Index


class Outbox:
    """Messages on their way out, in the order in which they were said."""

    __slots__ = ("_held", "replies", "requests")

    def __init__(self) -> None:
        self.requests: list[Envelope] = []
        self.replies: list[tuple[Exchange, Envelope]] = []
        self._held: list[_Held] = []

    def send_at_once(self, envelope: Envelope) -> None:
        """A request that rests on nothing."""
        self.requests.append(envelope)

    def send(self, envelope: Envelope, *, said_in: Term, vote: Vote | None = None) -> None:
        """A request that rests on the term being durable, or on that very vote."""
        self._held.append(_Held(None, envelope, said_in, vote, Index(0)))

    def reply(
        self,
        exchange: Exchange,
        envelope: Envelope,
        *,
        said_in: Term,
        vote: Vote | None = None,
        match: Index = Index(0),
    ) -> None:
        """A reply that rests on the term being durable, on that very vote, or on the log up to ``match``."""
        self._held.append(_Held(exchange, envelope, said_in, vote, match))

    def release(self, *, current_term: Term, durability: Durability) -> None:
        """Moves what the disk allows to ``requests`` and ``replies``; void replies become refusals."""
        if not self._held:
            return
        still_held = []
        for held in self._held:
            if held.said_in != current_term:
                if held.exchange is None:
                    continue
                self._make_void(held, current_term)
            if not _may_leave(held, durability):
                still_held.append(held)
            elif held.exchange is None:
                self.requests.append(held.envelope)
            else:
                self.replies.append((held.exchange, held.envelope))
        self._held = still_held

    @property
    def held(self) -> list[Envelope]:
        """What waits for the disk, in order."""
        return [held.envelope for held in self._held]

    def take(self) -> tuple[list[Envelope], list[tuple[Exchange, Envelope]]]:
        """What may leave now."""
        requests, replies = self.requests, self.replies
        self.requests, self.replies = [], []
        return requests, replies

    @staticmethod
    def _make_void(held: _Held, current_term: Term) -> None:
        reply = held.envelope.message
        assert isinstance(reply, REPLY_TYPES)
        held.envelope.message = refusal_instead_of(reply, current_term)
        held.said_in, held.vote, held.match = current_term, None, Index(0)


def _may_leave(held: _Held, durability: Durability) -> bool:
    if durability.durable_vote[0] < held.said_in:
        return False
    if held.vote is not None and durability.durable_vote != held.vote:
        return False
    return rules.append_reply_may_leave(match=held.match, durable=durability.durable_index)


def refusal_instead_of(reply: Reply, current_term: Term) -> Reply:
    """The reply that says no in the present term, to the same request."""
    match reply:
        case RequestVoteReply():
            return RequestVoteReply(current_term, granted=False)
        case PreVoteReply(proposed_term=proposed_term):
            return PreVoteReply(current_term, proposed_term, granted=False)
        case AppendEntriesReply(prev_index=prev_index):
            return AppendEntriesReply(
                term=current_term,
                success=False,
                prev_index=prev_index,
                match=Index(0),
                conflict_term=Term(0),
                conflict_index=Index(0),
            )
        case HeartbeatReply():
            return HeartbeatReply(current_term, Round(0), reply.hash_index, reply.state_hash)
        case ReadIndexReply(read_id=read_id):
            return ReadIndexReply(current_term, read_id, confirmed=False, index=Index(0))
        case TimeoutNowReply():
            return TimeoutNowReply(current_term, accepted=False)
        case InstallSnapshotReply():
            return InstallSnapshotReply(current_term, Index(0), 0, installed=False)
