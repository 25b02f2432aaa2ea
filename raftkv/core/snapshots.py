"""Snapshots: to whom they are sent, what becomes of a received one, what of the log may go (paper §7, Figure 13).

A snapshot is a file that the shell keeps; the core knows of it what it stands for in the log, and moves it piece by
piece. A piece is asked of the shell, sent, and answered with the offset that the receiver wants next: so its partial
file alone decides where the transfer goes on, after whatever happened.

    leader      log        . . . . 5 6 7 8      base 4: who needs 4 or less is sent the snapshot
                snapshot   ─────────┘           … at 5, and then the log after 5
    follower    log        1 2 x x              parts from what is committed: goes whole
                           . . . . .            begins anew at 5; the machine loads the snapshot
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from raftkv.core import election, replication, rules
from raftkv.core.effects import Exchange, LogBase, SnapshotPiece, SnapshotRead, SnapshotWrite
from raftkv.core.messages import Envelope, InstallSnapshot, InstallSnapshotReply
from raftkv.core.progress import Phase, Progress, Sending, StateHashes
from raftkv.core.state import Receiving, State
from raftkv.core.types import Index, NodeId, SnapshotId
from raftkv.errors import MessageError

SNAPSHOT_BYTES_MAX: Final = 2**44
"""Whoever speaks of a larger file is no node of ours (faults 57)."""
_PIECE_LOST_AFTER: Final = 40
"""Election timeouts after which a piece counts as lost, though the link says nothing: with the last one the whole
file is proved, so an answer may take long."""
_LOG_KEPT_FOR: Final = 100
"""Election timeouts for which the log is kept for a follower that gets no further: a disk must not fill up for it."""

# ------------------------------------------------------------------------------ at the leader: out


def ask_for_pieces(state: State) -> None:
    """Each follower that needs a snapshot, and was heard lately, is to get its next piece."""
    assert state.office is not None
    for peer, progress in state.office.progress.items():
        sending = progress.sending
        if sending is None or sending.is_under_way or state.now_us < progress.blocked_until_us:
            continue
        if not _was_heard_lately(state, progress):
            continue
        if sending.snapshot is not None and sending.snapshot.index < state.log.base_index:
            sending.begin_anew()  # our log does not go on where that one ends
        sending.read = SnapshotRead(peer, sending.snapshot, sending.offset, state.settings.snapshot_chunk_bytes)
        state.snapshots.reads.append(sending.read)


def was_read(state: State, read: SnapshotRead, piece: SnapshotPiece | None) -> None:
    """The piece is sent, if it is still wanted; without such a file the newest is sent from its beginning."""
    progress = None if state.office is None else state.office.progress.get(read.follower)
    if progress is None or progress.sending is None or progress.sending.read != read:
        return
    sending = progress.sending
    sending.read = None
    if piece is None or piece.snapshot.index < state.log.base_index:
        sending.begin_anew()
        if read.snapshot is None:
            progress.blocked_until_us = state.now_us + state.settings.election_timeout_us
        return
    assert piece.offset == read.offset, f"asked for {read}, got offset {piece.offset}"
    assert read.snapshot in (None, piece.snapshot), f"asked for {read}, got {piece.snapshot}"
    assert 0 < len(piece.data) <= read.bytes_max, f"asked for {read}, got {len(piece.data)} bytes"
    if sending.snapshot is None:
        sending.snapshot = piece.snapshot
        progress.log_is_kept_until_us = _kept_until_us(state)
    sending.sent_us = state.now_us
    message = InstallSnapshot(state.current_term, piece.snapshot, piece.offset, piece.data)
    state.outbox.send_at_once(state.request(read.follower, message))


def piece_failed(state: State, peer: NodeId, request: InstallSnapshot) -> None:
    """The link says that this piece will never be answered; it goes out again after a heartbeat interval."""
    progress = None if state.office is None else state.office.progress.get(peer)
    if progress is None or progress.sending is None or progress.sending.sent_us is None:
        return
    sending = progress.sending
    if (request.term, request.snapshot, request.offset) == (state.current_term, sending.snapshot, sending.offset):
        sending.sent_us = None
        progress.blocked_until_us = state.now_us + state.settings.heartbeat_us


def repeat_lost_pieces(state: State) -> None:
    """What has not been answered for very long counts as lost."""
    assert state.office is not None
    for progress in state.office.progress.values():
        sending = progress.sending
        if sending is None or sending.sent_us is None:
            continue
        if state.now_us - sending.sent_us >= _PIECE_LOST_AFTER * state.settings.election_timeout_us:
            sending.sent_us = None


def _was_heard_lately(state: State, progress: Progress) -> bool:
    return state.now_us - progress.last_contact_us < state.settings.election_timeout_us


def _kept_until_us(state: State) -> int:
    return state.now_us + _LOG_KEPT_FOR * state.settings.election_timeout_us


# --------------------------------------------------------------------------- at the leader: replies


def handle_install_reply(state: State, envelope: Envelope, reply: InstallSnapshotReply) -> None:
    """Goes on where the follower wants, or with the log after the snapshot."""
    _prove_snapshot_is_ours(state, envelope, reply)
    progress = replication.contact(state, envelope, reply)
    if progress is None:
        return
    sending = progress.sending
    if reply.installed:
        _is_installed(state, progress, reply.index)
    elif sending is not None and sending.snapshot is not None and sending.snapshot.index == reply.index:
        _go_on(state, progress, sending, sending.snapshot, reply.wanted_offset)


def _prove_snapshot_is_ours(state: State, envelope: Envelope, reply: InstallSnapshotReply) -> None:
    """Raises MessageError if a follower of this leader claims to hold a snapshot of more than there is."""
    last_index = state.log.last_index
    if state.office is not None and reply.term == state.current_term and reply.index > last_index:
        raise MessageError(f"{envelope.sender} claims a snapshot at {reply.index}, our log ends at {last_index}")


def _is_installed(state: State, progress: Progress, index: Index) -> None:
    """The follower matches up to there; if our log went on without it, it needs the newest snapshot."""
    progress.matched(index)
    progress.blocked_until_us = 0
    if progress.phase is Phase.SNAPSHOT:
        progress.catches_up_to = state.log.last_index
        progress.log_is_kept_until_us = _kept_until_us(state)
        replication.end_snapshot_if_log_goes_on(state, progress)
    sending = progress.sending
    if sending is not None and sending.snapshot is not None and sending.snapshot.index <= index:
        sending.begin_anew()
    replication.advance_commit(state)


def _go_on(state: State, progress: Progress, sending: Sending, snapshot: SnapshotId, wanted_offset: int) -> None:
    """A follower that gets no further, or falls back, is asked again after a heartbeat interval only.

    Else one whose disk is full, or who proves the whole file while pieces of it come again, would be asked in a circle.
    """
    if sending.read is not None:
        return
    is_whole = wanted_offset >= snapshot.size_bytes
    if wanted_offset > sending.offset and not is_whole:
        progress.log_is_kept_until_us = _kept_until_us(state)
    elif sending.sent_us is None:
        return
    else:
        progress.blocked_until_us = state.now_us + state.settings.heartbeat_us
    sending.sent_us = None
    # Of a whole file that is not said to be installed the end is sent again: the answer to that says what it is.
    end = max(0, snapshot.size_bytes - state.settings.snapshot_chunk_bytes)
    sending.offset = end if is_whole else wanted_offset


# ---------------------------------------------------------------------------------- at a follower


def handle_install_snapshot(state: State, envelope: Envelope, request: InstallSnapshot, exchange: Exchange) -> None:
    """Figure 13. The reply leaves when the piece, or what it completes, is on stable storage."""
    _prove_piece(envelope, request)
    if rules.term_is_stale(theirs=request.term, ours=state.current_term):
        refusal = InstallSnapshotReply(state.current_term, Index(0), 0, installed=False)
        return state.outbox.reply(exchange, state.answer(envelope, refusal), said_in=state.current_term)
    snapshot = request.snapshot
    _prove_spares_committed(state, snapshot)
    election.heard_leader(state, envelope.sender, request.term)
    if _log_holds(state, snapshot.index, snapshot.term):
        state.commit_index = max(state.commit_index, snapshot.index)
    if rules.snapshot_is_old(index=snapshot.index, commit=state.commit_index):
        return _reply(state, (exchange, envelope), wanted_offset=0)
    return _write(state, request, (exchange, envelope))


def _prove_piece(envelope: Envelope, request: InstallSnapshot) -> None:
    """Raises MessageError unless it can be a piece of a snapshot that its sender's log has gone through."""
    snapshot = request.snapshot
    whole = 0 < snapshot.size_bytes <= SNAPSHOT_BYTES_MAX
    within = 0 <= request.offset < request.offset + len(request.data) <= snapshot.size_bytes
    if not whole or not within or not (snapshot.index > 0 and 0 < snapshot.term <= request.term):
        raise MessageError(
            f"{envelope.sender} sends {len(request.data)} bytes at {request.offset} of a snapshot "
            f"({snapshot.index}, term {snapshot.term}, {snapshot.size_bytes} bytes) in term {request.term}"
        )


def _prove_spares_committed(state: State, snapshot: SnapshotId) -> None:
    """Raises MessageError if it stands for another entry than what is committed here (paper §5.4.3)."""
    is_old = rules.snapshot_is_old(index=snapshot.index, commit=state.commit_index)
    if is_old and state.log.term_at(snapshot.index) not in (None, snapshot.term):
        raise MessageError(f"a snapshot at ({snapshot.index}, term {snapshot.term}) that is not what is committed")


def _log_holds(state: State, index: Index, term: int) -> bool:
    return rules.log_goes_on_after_snapshot(our_term_at_index=state.log.term_at(index), snapshots_term=term)


def _write(state: State, request: InstallSnapshot, asker: tuple[Exchange, Envelope]) -> None:
    """The piece goes to the shell. One of the same snapshot that is there already will answer for this one, too."""
    receiving = state.snapshots.receiving
    goes_on = receiving is not None and receiving.write.snapshot == request.snapshot
    if receiving is not None and receiving.asker is not None:
        _reply(state, receiving.asker, wanted_offset=receiving.wanted_offset)
        if goes_on:
            receiving.asker = asker
            return
    number = 1 if receiving is None else receiving.write.number + 1
    write = SnapshotWrite(number, request.snapshot, request.offset, request.data)
    wanted_offset = receiving.wanted_offset if receiving is not None and goes_on else 0
    state.snapshots.receiving = Receiving(write, asker, wanted_offset)
    state.snapshots.writes.append((state.current_term, write))


def take_writes(state: State) -> list[SnapshotWrite]:
    """Those whose term is on stable storage: a file in place must not speak of a term that its node may forget."""
    durable_term = state.durability.durable_vote[0]
    taken = [write for term, write in state.snapshots.writes if term <= durable_term]
    del state.snapshots.writes[: len(taken)]
    return taken


def was_written(state: State, write: SnapshotWrite, *, wanted_offset: int, complete: LogBase | None) -> None:
    """The piece's exchange is answered; a whole snapshot takes the place of what the log lacks.

    Whoever sent it, and whether or not he still leads: what it stands for is committed. Only its own exchange hears.
    """
    if complete is not None:
        asked = (write.snapshot.index, write.snapshot.term)
        assert (complete.index, complete.term) == asked, f"{complete} is none of {write.snapshot}"
        _install(state, complete)
    receiving = state.snapshots.receiving
    if receiving is None or receiving.write.number != write.number or receiving.asker is None:
        return
    asker, receiving.asker = receiving.asker, None
    receiving.wanted_offset = wanted_offset
    _reply(state, asker, wanted_offset=wanted_offset)


def _install(state: State, base: LogBase) -> None:
    """Figure 13 (6) to (8): the log goes on after it, or begins anew; then the machine is to load it."""
    state.snapshots.index = max(state.snapshots.index, base.index)
    if _log_holds(state, base.index, base.term):
        _load_instead(state, base.index)
    if state.office is not None or rules.snapshot_is_old(index=base.index, commit=state.commit_index):
        return
    if _log_holds(state, base.index, base.term):
        state.commit_index = base.index
        return
    if state.campaign is not None:
        election.follow(state, state.current_term, None, "it stood with a log that it has no more")
    state.begin_log_anew(base)
    state.commit_index = state.handed_index = state.snapshots.loading = state.snapshots.load = base.index
    state.snapshots.compact_through = None
    state.note("snapshot_installed", f"{state.me.id}: its log begins anew after entry {base.index}, from a snapshot")


def _load_instead(state: State, index: Index) -> None:
    """The log holds a newer one than is being loaded, whose file may go with the next and be looked for in vain."""
    loading = state.snapshots.loading
    if loading is not None and loading < index:
        state.handed_index = state.snapshots.loading = state.snapshots.load = index


def _reply(state: State, asker: tuple[Exchange, Envelope], *, wanted_offset: int) -> None:
    """What is true of the asked snapshot now, to a leader of this term; it rests on what it claims being durable."""
    exchange, envelope = asker
    request = envelope.message
    assert isinstance(request, InstallSnapshot)
    term, snapshot, match = state.current_term, request.snapshot, Index(0)
    if request.term != term:
        reply = InstallSnapshotReply(term, Index(0), 0, installed=False)
    elif rules.snapshot_is_old(index=snapshot.index, commit=state.commit_index):
        reply, match = InstallSnapshotReply(term, snapshot.index, 0, installed=True), snapshot.index
    else:
        reply = InstallSnapshotReply(term, snapshot.index, min(wanted_offset, snapshot.size_bytes), installed=False)
    state.outbox.reply(exchange, state.answer(envelope, reply), said_in=term, match=match)


def received_so_far(state: State) -> tuple[SnapshotId, int] | None:
    """The snapshot that is coming, and where its partial file ended when the shell last said so."""
    receiving = state.snapshots.receiving
    if receiving is None or receiving.write.snapshot.index <= state.commit_index:
        return None
    return receiving.write.snapshot, receiving.wanted_offset


def loaded(state: State, index: Index) -> None:
    """The machine holds the received snapshot; entries after it are handed out again.

    What was known of the hashes of the state before says nothing of this one.
    """
    assert index <= state.commit_index
    state.applied_index = max(state.applied_index, index)
    state.hashes = StateHashes()
    if state.snapshots.loading is not None and state.snapshots.loading <= index:
        state.snapshots.loading = None


# ----------------------------------------------------------------------- a snapshot of this node's own


def stored(state: State, base: LogBase, *, size_bytes: int) -> None:
    """A snapshot of our own state is in place: the log before it may go, but for its tail."""
    assert size_bytes > 0
    assert base.index <= state.applied_index, f"a snapshot at {base.index}, applied is {state.applied_index}"
    state.snapshots.index = max(state.snapshots.index, base.index)
    if base.index <= state.log.base_index:
        return
    assert state.log.term_at(base.index) == base.term, f"a snapshot of {base}, the log says another term"
    settings = state.settings
    before_tail = state.log.before_tail(
        base.index, entries_max=settings.log_tail_entries, bytes_max=settings.log_tail_bytes
    )
    state.snapshots.compact_through = max(before_tail, state.snapshots.compact_through or Index(0))
    compact_if_due(state)


def compact_if_due(state: State) -> None:
    """The log begins as late as it may, while those that were sent a snapshot still need what follows that."""
    if state.snapshots.compact_through is None:
        return
    through = rules.log_may_go_through(
        snapshot=state.snapshots.index,
        before_tail=state.snapshots.compact_through,
        durable=state.durability.durable_index,
        wanted_after=_wanted_after(state),
    )
    if through > state.log.base_index:
        state.compact(through)
    if through >= state.snapshots.compact_through:
        state.snapshots.compact_through = None


def _wanted_after(state: State) -> Iterator[Index]:
    """Where those begin to need our log that hold a snapshot, or soon will: each that is heard and gets further."""
    for progress in [] if state.office is None else state.office.progress.values():
        if not _was_heard_lately(state, progress) or state.now_us >= progress.log_is_kept_until_us:
            continue
        if progress.sending is not None:
            if progress.sending.snapshot is not None:
                yield progress.sending.snapshot.index
        elif progress.match_index < progress.catches_up_to:
            yield progress.match_index
