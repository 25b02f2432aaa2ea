"""The facade of the core: everything that can happen to a node, and what it wants done about it.

Sans-IO: time comes in by ``elapse``, chance by a seeded ``rng``, messages by ``receive``, the disk's word
by ``persisted``. What is to be done comes out of ``take()``. Same inputs, same effects, byte for byte.

    raft.elapse(now_us)             before anything else of a turn
    raft.receive(envelope, …)       any number of these, in any order
    raft.propose(payloads)
    effects = raft.take()           once a turn
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from random import Random
from typing import Any, Final

from raftkv.core import changes, election, hashes, leases, reads, replication, snapshots, transfer
from raftkv.core.effects import Effects, Exchange, LogBase, LogRead, SnapshotPiece, SnapshotRead, SnapshotWrite
from raftkv.core.messages import (
    REPLY_TYPES,
    AppendEntries,
    AppendEntriesReply,
    Envelope,
    Heartbeat,
    HeartbeatReply,
    InstallSnapshot,
    InstallSnapshotReply,
    PreVoteReply,
    PreVoteRequest,
    ReadIndexReply,
    ReadIndexRequest,
    RequestVote,
    RequestVoteReply,
    TimeoutNow,
    TimeoutNowReply,
)
from raftkv.core.settings import RaftSettings
from raftkv.core.state import Identity, Saved, State
from raftkv.core.types import (
    ChangeStatus,
    Configuration,
    Index,
    Member,
    Membership,
    NodeId,
    Role,
    Round,
    SnapshotId,
    Term,
    Ticket,
)
from raftkv.errors import MessageError, Misdirected, NotLeader

_REQUEST_HANDLERS: Final[dict[type[Any], Callable[[State, Envelope, Any, Exchange], None]]] = {
    PreVoteRequest: election.handle_pre_vote,
    RequestVote: election.handle_request_vote,
    AppendEntries: replication.handle_append_entries,
    Heartbeat: reads.handle_heartbeat,
    ReadIndexRequest: reads.handle_read_index,
    TimeoutNow: transfer.handle_timeout_now,
    InstallSnapshot: snapshots.handle_install_snapshot,
}
_REPLY_HANDLERS: Final[dict[type[Any], Callable[[State, Envelope, Any], None]]] = {
    PreVoteReply: election.handle_pre_vote_reply,
    RequestVoteReply: election.handle_request_vote_reply,
    AppendEntriesReply: replication.handle_append_reply,
    HeartbeatReply: reads.handle_heartbeat_reply,
    ReadIndexReply: reads.handle_read_index_reply,
    TimeoutNowReply: transfer.handle_timeout_now_reply,
    InstallSnapshotReply: snapshots.handle_install_reply,
}
TERM_LEAP_MAX: Final = 2**40
"""A term further ahead than this is no term (faults 57)."""


class Raft:
    """One node of a cluster."""

    def __init__(self, me: Identity, settings: RaftSettings, saved: Saved, rng: Random) -> None:
        self._state = State(me, settings, saved, rng)
        self._state.role = self._state.idle_role

    # ------------------------------------------------------------------------------- what comes in

    def elapse(self, now_us: int) -> None:
        """It is now ``now_us`` on this node's monotonic clock. Timers that have run out are acted upon."""
        state = self._state
        state.now_us = max(state.now_us, now_us)
        if state.began_us is None:
            state.began_us = state.now_us
        if state.office is not None:
            election.check_quorum(state)
        if state.office is not None:
            reads.heartbeat_if_due(state)
            replication.repeat_lost_appends(state)
            snapshots.repeat_lost_pieces(state)
            transfer.hand_over_if_disk_stalls(state)
        elif state.election_deadline_us is None:
            election.restart_election_timer(state)
        elif state.now_us >= state.election_deadline_us:
            election.election_timeout_passed(state)
        reads.fail_asked_reads(state)

    def receive(self, envelope: Envelope, exchange: Exchange | None = None) -> None:
        """A message came. A request comes with the shell's handle of its exchange, and gets one reply.

        Raises Misdirected for a message that is not for this node, or a reply of somebody who is not the
        member he was; MessageError for one that no node of ours sends. Neither changes anything.
        """
        self._prove_address(envelope)
        self._prove_term(envelope)
        message = envelope.message
        handle_request = _REQUEST_HANDLERS.get(type(message))
        if handle_request is not None:
            handle_request(self._state, envelope, message, exchange)
        else:
            _REPLY_HANDLERS[type(message)](self._state, envelope, message)

    def delivery_failed(self, envelope: Envelope) -> None:
        """A request of ours got no reply and never will. It may have arrived all the same."""
        if isinstance(envelope.message, AppendEntries):
            replication.append_failed(self._state, envelope.receiver)
        elif isinstance(envelope.message, InstallSnapshot):
            snapshots.piece_failed(self._state, envelope.receiver, envelope.message)
        elif isinstance(envelope.message, ReadIndexRequest):
            reads.fail_asked_reads(self._state, of=envelope.receiver)

    def propose(self, payloads: list[bytes]) -> Index:
        """Appends them as entries of this term; returns the first one's index. Raises NotLeader."""
        if not self.takes_proposals:
            raise NotLeader
        return replication.propose(self._state, payloads)

    def request_read(self, read_id: int) -> None:
        """Asks for an index at which a read is linearizable; comes back in reads_ready or reads_failed."""
        reads.request_read(self._state, read_id)

    def transfer_leadership(self, target: NodeId | None) -> NodeId:
        """Begins to hand over, to the best placed voter if none is named; returns who it is.

        Raises NotLeader, or ValueError saying why that node cannot take over.
        """
        state = self._state
        if state.office is None:
            raise NotLeader
        chosen = self.best_placed if target is None else target
        if chosen is None:
            raise ValueError("no other voter has been heard lately, or none whose state is right")
        if chosen not in state.other_voters():
            raise ValueError(f"{chosen} is no other voter of this cluster")
        transfer.begin(state, chosen)
        return chosen

    def ask_around(self) -> Round | None:
        """Begins a read round at once, to see who is there before a change of members; returns its number.

        None: this leader may begin none yet, having committed nothing in its own term. Raises NotLeader.
        """
        office = self._state.office
        if office is None:
            raise NotLeader
        return reads.ask_around(self._state, office) if replication.may_serve(self._state, office) else None

    def has_confirmed(self, round: Round) -> bool:
        """Whether a majority has echoed that round of this term: nobody else led when it was sent."""
        office = self._state.office
        return office is not None and office.newest_confirmed is not None and office.newest_confirmed.round >= round

    def change_membership(
        self, target: Membership, *, deadline_ms: int | None, force: bool = False, since: Round | None = None
    ) -> Index:
        """Begins to make the members be ``target``; returns the index of the first configuration on the way.

        Who is to vote and does not yet is a learner until it has caught up, or until ``deadline_ms`` of the cluster's
        time, when everything is as it was. ``target`` lists plain learners only (intent LEARNER, no deadline).
        Raises NotLeader or ChangeRefused; ``force`` waives QUORUM_AT_RISK, which is judged by who has echoed the round
        ``since`` and was heard within E; None: by the latter alone.
        """
        if not self.takes_proposals:
            raise NotLeader
        return changes.begin(self._state, target, deadline_ms=deadline_ms, force=force, since=since)

    def call_off_change(self, node: NodeId) -> Index:
        """Ends the change by which ``node`` is to vote, while it catches up: all is as before, and without ``node``.

        Returns the index of the configuration that says so. Raises NotLeader or ChangeRefused: NOT_READY (ask again
        soon) or BAD (it does not catch up, or both sets decide already).
        """
        if not self.takes_proposals:
            raise NotLeader
        return changes.call_off(self._state, node)

    def persisted(self, ticket: Ticket) -> None:
        """This disk work, and all before it, is on stable storage."""
        state = self._state
        state.durability.persisted(ticket)
        election.own_vote_became_durable(state)
        replication.advance_commit(state)

    def log_was_read(self, read: LogRead, frames: list[bytes]) -> None:
        """The answer to a LogRead: the entries as they stand on disk."""
        replication.log_was_read(self._state, read, frames)

    def snapshot_was_read(self, read: SnapshotRead, piece: SnapshotPiece | None) -> None:
        """The answer to a SnapshotRead, however late; None: there is no such file, or not any more."""
        snapshots.was_read(self._state, read, piece)

    def snapshot_was_written(self, write: SnapshotWrite, wanted_offset: int, complete: LogBase | None) -> None:
        """The answer to a SnapshotWrite: where the partial file ends now; once it is whole, and in place for good,
        what it stands for.
        """
        snapshots.was_written(self._state, write, wanted_offset=wanted_offset, complete=complete)

    def base_at(self, index: Index) -> LogBase:
        """What a snapshot of the state right after ``index`` stands for; asked while that is the applied index."""
        state = self._state
        term = state.log.term_at(index)
        assert term is not None, f"the log says nothing of {index}"
        return LogBase(index, term, state.configurations.at(index))

    def snapshot_stored(self, base: LogBase, *, size_bytes: int) -> None:
        """A snapshot of this node's own state is in place for good; what the log held before it may go."""
        snapshots.stored(self._state, base, size_bytes=size_bytes)

    def snapshot_loaded(self, index: Index) -> None:
        """The state machine holds the received snapshot of that index, in place of all that it held before."""
        snapshots.loaded(self._state, index)

    def applied(self, index: Index) -> None:
        """The state machine holds everything up to ``index``."""
        assert self._state.applied_index <= index <= self._state.handed_index
        self._state.applied_index = index

    def machine_hash(self, index: Index, state_hash: bytes) -> None:
        """The state machine's hash right after applying ``index``: a multiple of 1,024, or where the state stands."""
        hashes.own_state_is_known(self._state, index, state_hash)

    # --------------------------------------------------------------------------------- what comes out

    def take(self) -> Effects:
        """Everything that is to be done since the last call. May be sent and written in any order."""
        state = self._state
        changes.go_on(state)
        if state.office is not None:
            reads.open_round_if_reads_wait(state)
            reads.confirm_rounds(state)
            replication.send_appends(state)
            snapshots.ask_for_pieces(state)
            transfer.go_on(state)
        replication.hand_out_committed(state)
        snapshots.compact_if_due(state)
        replication.free_memory(state)
        persist = state.durability.take(now_us=state.now_us)
        state.outbox.release(current_term=state.current_term, durability=state.durability)
        requests, replies = state.outbox.take()
        effects = Effects(
            persist=persist,
            requests=requests,
            replies=replies,
            apply=state.commits,
            read_log=state.log_reads,
            snapshot_reads=state.snapshots.reads,
            snapshot_writes=snapshots.take_writes(state),
            load_snapshot=state.snapshots.load,
            drop_log_through=state.snapshots.drop_log_through,
            reads_ready=state.reads_ready,
            reads_failed=state.reads_failed,
            notes=state.notes,
            deadline_us=self._deadline_us(),
        )
        state.commits, state.log_reads, state.notes = [], [], []
        state.reads_ready, state.reads_failed = [], []
        state.snapshots.reads, state.snapshots.load, state.snapshots.drop_log_through = [], None, None
        return effects

    def _deadline_us(self) -> int | None:
        """When the next timer runs out; at once, if there is more to apply."""
        state, office = self._state, self._state.office
        waits = state.apply_read_under_way or state.snapshots.loading is not None
        if state.handed_index < state.commit_index and not waits:
            return state.now_us
        if office is None:
            return state.election_deadline_us if state.election_deadline_us is not None else state.now_us
        if office.transfer is not None:
            return min(office.next_heartbeat_us, office.transfer.deadline_us)
        return office.next_heartbeat_us

    # -------------------------------------------------------------------------------- what can be read

    @property
    def state(self) -> State:
        """All variables, to be read; nobody outside the core writes them."""
        return self._state

    @property
    def role(self) -> Role:
        """Follower, candidate, leader or learner."""
        return self._state.role

    @property
    def term(self) -> Term:
        """The current term (paper §5.1)."""
        return self._state.current_term

    @property
    def voted_for(self) -> NodeId | None:
        """Who got this node's vote in the current term."""
        return self._state.voted_for

    @property
    def leader_id(self) -> NodeId | None:
        """The leader of the current term, if it was heard."""
        return self._state.leader_id

    @property
    def commit_index(self) -> Index:
        """The highest entry known to be committed."""
        return self._state.commit_index

    @property
    def applied_index(self) -> Index:
        """The highest entry that the state machine holds."""
        return self._state.applied_index

    @property
    def snapshot_index(self) -> Index:
        """Of the newest snapshot that this node holds; 0: none."""
        return self._state.snapshots.index

    @property
    def receiving(self) -> tuple[SnapshotId, int] | None:
        """The snapshot that a leader is sending here, and how much of it has come; None: none."""
        return snapshots.received_so_far(self._state)

    @property
    def loading(self) -> Index | None:
        """The received snapshot that the state machine does not hold yet; None: it holds what it should."""
        return self._state.snapshots.loading

    @property
    def last_index(self) -> Index:
        """The end of the log."""
        return self._state.log.last_index

    @property
    def durable_index(self) -> Index:
        """The end of what is on this node's stable storage."""
        return self._state.durability.durable_index

    @property
    def configuration(self) -> Configuration:
        """The configuration in force."""
        return self._state.configurations.current

    @property
    def committed_configuration(self) -> Configuration:
        """The newest configuration that is known to be committed."""
        return self._state.configurations.at(self._state.commit_index)

    @property
    def contacts(self) -> dict[NodeId, Member]:
        """Everybody to whom messages may go: the members, and those that left and are still told so."""
        return changes.contacts(self._state)

    @property
    def change_status(self) -> ChangeStatus | None:
        """The change of members that is under way; None: there is none."""
        return changes.status(self._state)

    @property
    def removed_at(self) -> Index | None:
        """Where in its log this node knows itself to be no member any more; None: it is one, or never was."""
        return self._state.removed_at

    @property
    def was_let_go(self) -> bool:
        """Whether this node was to vote and is no member, because that was called off. What an older incarnation came
        to under its id, and stands in the log that it receives, says nothing of it.
        """
        me, now, configurations = self._state.me, self.committed_configuration, self._state.configurations
        is_out = me.id in now.called_off and me.id not in now.members()
        return is_out and configurations.was_listed(me.id, me.incarnation, through=self._state.commit_index)

    @property
    def cluster_time_ms(self) -> int:
        """The cluster's time as this node was last told; the shell sets it each turn."""
        return self._state.cluster_time_ms

    @cluster_time_ms.setter
    def cluster_time_ms(self, cluster_time_ms: int) -> None:
        self._state.cluster_time_ms = cluster_time_ms

    @property
    def takes_proposals(self) -> bool:
        """Whether ``propose`` would take one now: leads, is not handing over, its disk answers."""
        office = self._state.office
        return office is not None and office.transfer is None and not transfer.disk_has_stalled(self._state)

    @property
    def best_placed(self) -> NodeId | None:
        """The voter to whom this leader would hand over; None: there is none, or this node does not lead."""
        return None if self._state.office is None else transfer.best_target(self._state)

    def best_placed_of(self, ids: Collection[NodeId]) -> NodeId | None:
        """The same, among these only."""
        return None if self._state.office is None else transfer.best_target(self._state, among=ids)

    def heard_leader_lately(self, now_us: int) -> bool:
        """Whether the leader of this term was heard within the lower election timeout before that time."""
        state = self._state
        if state.leader_id is None or state.last_heard_leader_us is None:
            return False
        return now_us - state.last_heard_leader_us < state.settings.election_timeout_us

    @property
    def disagrees_at(self) -> Index | None:
        """Where this node's state was found to be another than that of a majority of voters; None: nowhere."""
        return self._state.disagrees_at

    @property
    def agrees_at(self) -> Index:
        """The newest index at which a majority of voters was found to have this node's state; 0: none yet."""
        return self._state.agrees_at

    def holds_lease(self, now_us: int) -> bool:
        """Whether nobody else can have led until ``now_us``, a reading of this node's clock (thesis §6.4.1).

        What was read from the state machine before that reading is linearizable, if everything up to the
        commit index was applied.
        """
        return leases.is_held(self._state, now_us=now_us)

    def term_at(self, index: int) -> Term | None:
        """The term of an entry; None where the log does not say."""
        return self._state.log.term_at(index)

    # ------------------------------------------------------------------------------------------ walls

    def _prove_term(self, envelope: Envelope) -> None:
        """No cluster gets through so many elections while one of its nodes is away; adopted, terms would run out."""
        theirs, ours = envelope.message.term, self._state.current_term
        if theirs - ours > TERM_LEAP_MAX:
            raise MessageError(f"{envelope.sender} speaks of term {theirs}, this is term {ours}")

    def _prove_address(self, envelope: Envelope) -> None:
        """Another cluster's message, or one to another incarnation of this id, is not for us (design: identity)."""
        me = self._state.me
        if envelope.cluster_id != me.cluster_id:
            raise Misdirected(f"{me.id} belongs to cluster {me.cluster_id.hex()}, not {envelope.cluster_id.hex()}")
        if envelope.receiver != me.id:
            raise Misdirected(f"this is {me.id}, not {envelope.receiver}")
        if envelope.receiver_incarnation != me.incarnation:
            raise Misdirected(f"{me.id}'s data is gone; run raftkv member replace {me.id}")
        if isinstance(envelope.message, REPLY_TYPES) and not changes.is_known(
            self._state, envelope.sender, envelope.sender_incarnation
        ):
            raise Misdirected(f"a reply of {envelope.sender}, which is not the member of that name")
