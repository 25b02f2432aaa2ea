"""What nodes say to each other. One class per message, with only its own fields.

Every request gets exactly one reply. A reply repeats what it answers (its term, a round, an index), so
that one which is late, doubled or out of order can be told from the one that is waited for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from raftkv.core.types import ClusterId, Incarnation, Index, NodeId, Round, SnapshotId, Term


@dataclass(slots=True)
class PreVoteRequest:
    """Thesis §9.6: "would you vote for me in ``term``?" Nobody's state changes by it."""

    term: Term
    """The term that the asker would start, one above its own."""
    last_log_index: Index
    last_log_term: Term


@dataclass(slots=True)
class PreVoteReply:
    """The answer; ``term`` is the asked one when granted, the voter's own when refused."""

    term: Term
    proposed_term: Term
    granted: bool
    removed: bool = False
    """On refusal: a leader is heard, and by what is committed there the asker is no member any more …"""
    last_log_index: Index = Index(0)
    last_log_term: Term = Term(0)
    """… whose log ended there: repeated where it was removed, or a late word would reach one that was added again."""


@dataclass(slots=True)
class RequestVote:
    """Paper §5.2, Figure 2."""

    term: Term
    last_log_index: Index
    last_log_term: Term
    transfer: bool
    """Thesis §3.10: the present leader wants this election; a heard leader is no reason to refuse."""


@dataclass(slots=True)
class RequestVoteReply:
    """A vote, or its refusal, in ``term``."""

    term: Term
    granted: bool
    removed: bool = False
    last_log_index: Index = Index(0)
    last_log_term: Term = Term(0)
    """These three as in PreVoteReply."""


@dataclass(slots=True)
class AppendEntries:
    """Paper §5.3, Figure 2. The sender leads ``term``."""

    term: Term
    prev_index: Index
    prev_term: Term
    commit: Index
    frames: list[bytes]
    """Entries prev_index + 1 and on, as ``raftkv.frames`` makes them; checksums were proved by the codec."""


@dataclass(slots=True)
class AppendEntriesReply:
    """Either the log matches the leader's up to ``match`` on stable storage, or it does not at prev."""

    term: Term
    success: bool
    prev_index: Index
    """Of the request that this answers."""
    match: Index
    """On success: what is proved to agree, and durable here. 0 otherwise."""
    conflict_term: Term
    """On refusal: the term that this log has at prev (0: its log ends before prev)."""
    conflict_index: Index
    """On refusal: the first index of that term here, or one past the end of this log; 0 where the request
    was of an older term, and nothing was compared."""


@dataclass(slots=True)
class Heartbeat:
    """The leader is there. Also a read round (thesis §6.4). Travels beside the appends and proves no match."""

    term: Term
    commit: Index
    """min(the leader's commit, what this follower is known to match)."""
    leader_commit: Index
    """The leader's commit, or where its term begins, if that is later. Proves nothing here; who has applied
    it knows how fresh that is."""
    round: Round
    dated_life: int
    """Of the receiver's lives, the one by whose clock the next is meant; 0: nothing is dated."""
    dated_us: int
    """The newest confirmed round was sent when the receiver's own clock showed this, or later: the reading in its
    last echo before that round, and the time that passed here since that echo came. So a follower dates its
    leader's word by its own clock, and the time that a heartbeat is under way, or lies in a stopped process's
    buffer, makes nothing look fresher than it is."""
    agreed_index: Index = Index(0)
    """The newest index, of those that the receiver has told a hash of or passed, at which a majority of voters has told
    equal hashes (0: there is none) …"""
    agreed_hash: bytes = b""
    """… and that hash."""


@dataclass(slots=True)
class HeartbeatReply:
    """Echoes the round. Claims no match."""

    term: Term
    round: Round
    """The one that was asked; 0 if it was asked in an older term than this reply's."""
    hash_index: Index
    """One of the newest at which the state here was hashed, a multiple of 1,024 or where it stood (0: none yet) …"""
    state_hash: bytes
    """… and the hash of the state there (empty: none yet)."""
    withholds_ms: int = 0
    """Since this round was heard here, no vote is given for so long, whether or not this node stops and starts
    meanwhile (thesis §6.4.1); 0: nothing of the kind is promised."""
    life: int = 0
    """Tells this node's life from its others: a clock may begin anew with the machine; 0: not told."""
    heard_us: int = 0
    """What this node's clock showed when it heard the round; for nobody but itself."""


@dataclass(slots=True)
class ReadIndexRequest:
    """A follower asks for an index that a read of its own must have applied (thesis §6.4)."""

    term: Term
    read_id: int


@dataclass(slots=True)
class ReadIndexReply:
    """The leader's confirmed read index; ``confirmed`` false: not the leader any more, ask anew."""

    term: Term
    read_id: int
    confirmed: bool
    index: Index


@dataclass(slots=True)
class TimeoutNow:
    """Thesis §3.10: start an election at once."""

    term: Term


@dataclass(slots=True)
class TimeoutNowReply:
    """Heard it; ``accepted`` false: not in that term, or no voter."""

    term: Term
    accepted: bool


SNAPSHOT_CHUNK_BYTES_MAX: Final = 1024 * 1024
"""Of a snapshot's file in one message, whatever the sender's settings."""


@dataclass(slots=True)
class InstallSnapshot:
    """Paper §7, Figure 13: a piece of the file that holds what the sender's log does not any more."""

    term: Term
    snapshot: SnapshotId
    offset: int
    data: bytes


@dataclass(slots=True)
class InstallSnapshotReply:
    """Where the receiver's partial file of it ends; or that the snapshot's entries are on stable storage there."""

    term: Term
    index: Index
    """Of the snapshot that this answers; 0 where the request was of an older term, and nothing was looked at."""
    wanted_offset: int
    """The next piece is to begin here."""
    installed: bool
    """This log agrees with the leader's up to ``index``, on stable storage; nothing more of it is wanted."""


Request = PreVoteRequest | RequestVote | AppendEntries | Heartbeat | ReadIndexRequest | TimeoutNow | InstallSnapshot
Reply = (
    PreVoteReply
    | RequestVoteReply
    | AppendEntriesReply
    | HeartbeatReply
    | ReadIndexReply
    | TimeoutNowReply
    | InstallSnapshotReply
)
Message = Request | Reply

REQUEST_TYPES = (PreVoteRequest, RequestVote, AppendEntries, Heartbeat, ReadIndexRequest, TimeoutNow, InstallSnapshot)
REPLY_TYPES = (
    PreVoteReply,
    RequestVoteReply,
    AppendEntriesReply,
    HeartbeatReply,
    ReadIndexReply,
    TimeoutNowReply,
    InstallSnapshotReply,
)


@dataclass(slots=True)
class Envelope:
    """A message with who speaks to whom. A message to or from another incarnation is never acted upon."""

    cluster_id: ClusterId
    sender: NodeId
    sender_incarnation: Incarnation
    receiver: NodeId
    receiver_incarnation: Incarnation
    message: Message


@dataclass(slots=True)
class Introduction:
    """What a node says of itself before the cluster is formed, and first on every new link.

    It is the only message that needs no cluster. Request and reply have the same form.
    """

    sender: NodeId
    incarnation: Incarnation
    url: str
    """Where other nodes reach the sender now."""
    cluster_id: ClusterId | None
    """The cluster that the sender has stored; None: it has not yet heard of every member."""
    formed: bool
    """The sender knows that every member has stored this cluster id."""
    initial_members: list[tuple[NodeId, Incarnation]]
    """The members of the first configuration as the sender has stored or heard them, sorted; an
    incarnation is empty where it has not been heard yet."""
    client_url: str | None = None
    """Where clients reach the sender; None: where other nodes do."""
    joins: bool = False
    """The sender was started to join a cluster that is there, and belongs to none yet."""
