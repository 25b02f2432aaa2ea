"""One of every message, and envelopes around them."""

from __future__ import annotations

from raftkv import frames
from raftkv.core.messages import (
    AppendEntries,
    AppendEntriesReply,
    Envelope,
    Heartbeat,
    HeartbeatReply,
    InstallSnapshot,
    InstallSnapshotReply,
    Introduction,
    Message,
    PreVoteReply,
    PreVoteRequest,
    ReadIndexReply,
    ReadIndexRequest,
    RequestVote,
    RequestVoteReply,
    TimeoutNow,
    TimeoutNowReply,
)
from raftkv.core.types import ClusterId, Incarnation, Index, NodeId, Round, SnapshotId, Term

CLUSTER = ClusterId(b"c" * 16)
ONE, TWO = Incarnation(b"1" * 16), Incarnation(b"2" * 16)


def envelope(message: Message, *, to: str = "n2") -> Envelope:
    """From n1 to n2, or back."""
    if to == "n2":
        return Envelope(CLUSTER, NodeId("n1"), ONE, NodeId("n2"), TWO, message)
    return Envelope(CLUSTER, NodeId("n2"), TWO, NodeId("n1"), ONE, message)


def append(*bodies: bytes, term: int = 3, prev: int = 7) -> AppendEntries:
    """Entries of one term behind ``prev``."""
    made = [
        frames.encode(frames.EntryKind.COMMAND, term=term, index=prev + 1 + at, body=body)
        for at, body in enumerate(bodies)
    ]
    return AppendEntries(Term(term), Index(prev), Term(2), Index(prev), made)


def heartbeat(round: int = 1) -> Heartbeat:
    return Heartbeat(Term(3), Index(5), Index(6), Round(round), Round(4), 40)


def introduction(formed: bool = True) -> Introduction:
    return Introduction(NodeId("n1"), ONE, "http://127.0.0.1:7401", CLUSTER, formed, [(NodeId("n1"), ONE)])


REQUESTS: list[Message] = [
    PreVoteRequest(Term(4), Index(9), Term(3)),
    RequestVote(Term(4), Index(9), Term(3), transfer=True),
    append(b"a", b"", b"ccc"),
    heartbeat(),
    ReadIndexRequest(Term(3), 2**40),
    TimeoutNow(Term(3)),
    InstallSnapshot(Term(3), SnapshotId(Index(9), Term(2), 12, 0xE3069283), 4, b"piece"),
]
REPLIES: list[Message] = [
    PreVoteReply(Term(3), Term(4), False, True, Index(9), Term(2)),
    RequestVoteReply(Term(4), False, True, Index(9), Term(2)),
    AppendEntriesReply(Term(3), True, Index(7), Index(10), Term(0), Index(0)),
    HeartbeatReply(Term(3), Round(1), Index(1024), b"h" * 16),
    ReadIndexReply(Term(3), 2**40, True, Index(8)),
    TimeoutNowReply(Term(3), accepted=True),
    InstallSnapshotReply(Term(3), Index(9), 9, installed=False),
]
