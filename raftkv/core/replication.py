"""Log replication: proposals, AppendEntries and its replies, commit, what is applied (paper §5.3, §5.4.2)."""

from __future__ import annotations

from raftkv import frames as framing
from raftkv.core import election, rules
from raftkv.core.effects import Committed, Exchange, LogRead
from raftkv.core.messages import AppendEntries, AppendEntriesReply, Envelope, Reply
from raftkv.core.progress import Phase, Progress
from raftkv.core.state import Office, State
from raftkv.core.types import Configuration, Index, NodeId, Term
from raftkv.errors import MessageError

# ------------------------------------------------------------------------------ at the leader: out


def propose(state: State, payloads: list[bytes]) -> Index:
    """Appends a COMMAND and then FURTHER_COMMANDs, one for each payload; returns the first index. The caller leads."""
    first, term = Index(state.log.last_index + 1), state.current_term
    further = framing.EntryKind.FURTHER_COMMAND
    state.append(
        [
            framing.encode(framing.EntryKind.COMMAND, term=term, index=first, body=payloads[0]),
            *(
                framing.encode(further, term=term, index=index, body=body)
                for index, body in enumerate(payloads[1:], first + 1)
            ),
        ]
    )
    return first


def send_appends(state: State) -> None:
    """Sends to each peer what it lacks, as far as the bounds in flight allow (thesis §10.2.3)."""
    office = state.office
    assert office is not None
    last_index = state.log.last_index
    for peer, progress in office.progress.items():
        if progress.phase is Phase.REPLICATE and progress.next_index > last_index:
            continue  # All that there is was sent.
        while _send_one_append(state, peer, progress):
            pass


def _send_one_append(state: State, peer: NodeId, progress: Progress) -> bool:
    """Whether an AppendEntries went out, and another may follow."""
    last = state.last_index_for(peer)
    if not progress.may_send(now_us=state.now_us, inflight_max=state.settings.inflight_appends_max):
        return False
    if progress.next_index > last:
        return _ask_where_it_is(state, peer, progress, last)
    bytes_max = state.settings.append_bytes_max
    frames = state.log.frames_between(progress.next_index, last, bytes_max=bytes_max)
    if frames is None:
        _read_for(state, peer, progress)
        return False
    _post_append(state, peer, progress, frames)
    return True


def _ask_where_it_is(state: State, peer: NodeId, progress: Progress, last: Index) -> bool:
    """The log begins after all that the peer lacks, and holds nothing for it: an empty request says so to it.

    Else a follower whose appends were lost, and compacted since, would lag until somebody writes again. Who left has
    its part of the log, and where that is gone too there is nothing to ask: it asks itself (thesis §4.2.3).
    """
    if progress.phase is not Phase.PROBE or progress.match_index >= last or progress.next_index != last + 1:
        return False
    if not rules.snapshot_is_needed(next_index=progress.next_index, log_base=state.log.base_index):
        _post_append(state, peer, progress, [])
    return False


def _read_for(state: State, peer: NodeId, progress: Progress) -> None:
    """What the peer needs is no longer in memory."""
    if rules.snapshot_is_needed(next_index=progress.next_index, log_base=state.log.base_index):
        state.note("snapshot_needed", f"{state.me.id}: {peer} needs entry {progress.next_index}, the log begins later")
        progress.begin_snapshot()
        return
    progress.reads_log = True
    last = Index(min(state.last_index_for(peer), state.log.memory_first - 1))
    state.log_reads.append(LogRead(progress.next_index, last, state.settings.append_bytes_max, peer))


def _post_append(state: State, peer: NodeId, progress: Progress, frames: list[bytes]) -> None:
    prev_index = Index(progress.next_index - 1)
    prev_term = state.log.term_at(prev_index)
    assert prev_term is not None
    message = AppendEntries(state.current_term, prev_index, prev_term, state.commit_index, frames)
    state.outbox.send_at_once(state.request(peer, message))
    progress.sent(last_index=Index(prev_index + len(frames)), now_us=state.now_us)


def log_was_read(state: State, read: LogRead, frames: list[bytes]) -> None:
    """Entries came back from disk. Those that were overwritten meanwhile are of no use to anybody."""
    still_ours = all(state.log.term_at(index) == term for term, index in map(framing.term_and_index, frames))
    if read.follower is None:
        state.apply_read_under_way = False
        if still_ours and read.first == state.handed_index + 1:
            state.log.was_read(read.first, frames)
            state.read_to_apply = frames
        return
    progress = state.office.progress.get(read.follower) if state.office is not None else None
    if progress is None or not progress.reads_log:
        return
    progress.reads_log = False
    gone = rules.snapshot_is_needed(next_index=read.first, log_base=state.log.base_index)
    wanted = still_ours and bool(frames) and read.first == progress.next_index and not gone
    if wanted and progress.may_send(now_us=state.now_us, inflight_max=state.settings.inflight_appends_max):
        _post_append(state, read.follower, progress, frames)


def repeat_lost_appends(state: State) -> None:
    """What has not been answered for E counts as lost; the peer is probed again."""
    office = state.office
    assert office is not None
    for progress in office.progress.values():
        oldest_us = progress.oldest_send_us()
        if oldest_us is not None and state.now_us - oldest_us >= state.settings.election_timeout_us:
            progress.probe_from(_first_to_try(state, progress))


def _first_to_try(state: State, progress: Progress) -> Index:
    """After what is known to match; or where our log begins: the follower says if it needs what stood before."""
    return Index(max(progress.match_index, state.log.base_index) + 1)


def append_failed(state: State, peer: NodeId) -> None:
    """The link says that a request will never be answered; the peer is probed after a heartbeat interval."""
    progress = state.office.progress.get(peer) if state.office is not None else None
    if progress is not None and progress.phase is not Phase.SNAPSHOT:
        progress.probe_from(_first_to_try(state, progress))
        progress.blocked_until_us = state.now_us + state.settings.heartbeat_us


# --------------------------------------------------------------------------- at the leader: replies


def contact(state: State, envelope: Envelope, reply: Reply) -> Progress | None:
    """The peer's progress, if this is a reply to the leader of the present term; its contact is noted.

    Who left deposes nobody, whatever its term.
    """
    if state.has_left(envelope.sender) and reply.term > state.current_term:
        return None
    election.adopt_term(state, reply.term, f"{envelope.sender} knows term {reply.term}")
    if state.office is None or reply.term != state.current_term:
        return None
    progress = state.office.progress.get(envelope.sender)
    if progress is not None:
        progress.last_contact_us = state.now_us
        progress.has_answered = True
    return progress


def handle_append_reply(state: State, envelope: Envelope, reply: AppendEntriesReply) -> None:
    """Moves the peer's match index on, or finds where the logs part."""
    _prove_match_is_ours(state, envelope, reply)
    progress = contact(state, envelope, reply)
    if progress is None:
        return
    if reply.success:
        progress.matched(reply.match)
        progress.blocked_until_us = 0
        end_snapshot_if_log_goes_on(state, progress)
        advance_commit(state)
    elif _refusal_is_news(progress, reply):
        state.note("append_refused", f"{state.me.id}: {envelope.sender}'s log does not match at {reply.prev_index}")
        progress.probe_from(_next_index(state, progress, reply))


def end_snapshot_if_log_goes_on(state: State, progress: Progress) -> None:
    """Whatever the follower holds now, it is more than what was thought to be needed."""
    next_index = Index(progress.match_index + 1)
    needed = rules.snapshot_is_needed(next_index=next_index, log_base=state.log.base_index)
    if progress.phase is Phase.SNAPSHOT and not needed:
        progress.end_snapshot()


def _prove_match_is_ours(state: State, envelope: Envelope, reply: AppendEntriesReply) -> None:
    """Raises MessageError if a follower of this leader claims to match more than there is."""
    if state.office is None or reply.term != state.current_term or reply.match <= state.log.last_index:
        return
    raise MessageError(f"{envelope.sender} claims match {reply.match}, our log ends at {state.log.last_index}")


def _refusal_is_news(progress: Progress, reply: AppendEntriesReply) -> bool:
    """A refusal of what is known to match, of a probe that was answered already, or of an older term, is late."""
    if reply.prev_index <= progress.match_index or reply.conflict_index == 0 or progress.phase is Phase.SNAPSHOT:
        return False
    return progress.phase is Phase.REPLICATE or reply.prev_index == progress.next_index - 1


def _next_index(state: State, progress: Progress, reply: AppendEntriesReply) -> Index:
    ours = state.log.last_index_of_term(reply.conflict_term) if reply.conflict_term else None
    return rules.next_index_after_refusal(
        match=progress.match_index,
        refused_prev=reply.prev_index,
        conflict_index=reply.conflict_index,
        our_last_index_of_conflict_term=ours,
    )


def advance_commit(state: State) -> None:
    """Commits what a majority of each voter set holds, if it is of this term (paper §5.4.2)."""
    office = state.office
    if office is None or state.commit_index == state.log.last_index:
        return  # Nothing is left to be committed.
    match: dict[NodeId, int] = {peer: progress.match_index for peer, progress in office.progress.items()}
    majority_match = rules.majority_match_index(state.voter_sets, state.with_own(match, state.durability.durable_index))
    state.commit_index = rules.leader_commit_index(
        commit=state.commit_index,
        majority_match=majority_match,
        term_at_match=state.log.term_at(majority_match),
        current_term=state.current_term,
    )


def may_serve(state: State, office: Office) -> bool:
    """Whether this leader knows what is committed (paper §8)."""
    return state.commit_index >= office.term_start and rules.new_leader_may_serve(
        term_at_commit=state.log.term_at(state.commit_index), current_term=state.current_term
    )


# ---------------------------------------------------------------------------------- at a follower


def handle_append_entries(state: State, envelope: Envelope, request: AppendEntries, exchange: Exchange) -> None:
    """Figure 2, AppendEntries. The reply leaves when what it claims is on stable storage."""
    prove_contiguous(request)
    if rules.term_is_stale(theirs=request.term, ours=state.current_term):
        refusal = _refused(state, request)
        return state.outbox.reply(exchange, state.answer(envelope, refusal), said_in=state.current_term)
    prove_spares_committed(state, request)
    election.heard_leader(state, envelope.sender, request.term)
    skip_snapshot(state, request)
    if not rules.log_matches(prev_term=request.prev_term, our_term_at_prev=state.log.term_at(request.prev_index)):
        return _refuse(state, envelope, request, exchange)
    _store(state, request)
    match = Index(request.prev_index + len(request.frames))
    state.commit_index = rules.follower_commit_index(
        ours=state.commit_index, leaders=request.commit, last_checked=match
    )
    reply = _accepted(state, request, match)
    return state.outbox.reply(exchange, state.answer(envelope, reply), said_in=state.current_term, match=match)


def _accepted(state: State, request: AppendEntries, match: Index) -> AppendEntriesReply:
    return AppendEntriesReply(
        term=state.current_term,
        success=True,
        prev_index=request.prev_index,
        match=match,
        conflict_term=Term(0),
        conflict_index=Index(0),
    )


def prove_contiguous(request: AppendEntries) -> None:
    """Raises MessageError unless the entries follow prev without a gap, in terms that do not fall."""
    index, term = int(request.prev_index), int(request.prev_term)
    configuration, at, read = int(framing.EntryKind.CONFIGURATION), framing.KIND_OFFSET, framing.term_and_index
    for frame in request.frames:
        frame_term, frame_index = read(frame)
        if frame_index != index + 1 or not term <= frame_term <= request.term:
            raise MessageError(f"entry ({frame_index}, term {frame_term}) after ({index}, term {term})")
        if frame[at] == configuration:
            Configuration.decode(framing.body(frame))
        index, term = frame_index, frame_term


def prove_spares_committed(state: State, request: AppendEntries) -> None:
    """Raises MessageError if this would overwrite what is committed here: every leader has that (paper §5.4.3)."""
    for frame in request.frames[: max(0, state.commit_index - request.prev_index)]:
        term, index = framing.term_and_index(frame)
        if state.log.term_at(index) not in (None, term):
            raise MessageError(f"entry {index} of term {term} would overwrite what is committed")


def skip_snapshot(state: State, request: AppendEntries) -> None:
    """Drops from the request what the snapshot holds, and lets the rest begin at the base.

    The base is committed, so every leader has it (paper §5.4.3): the logs match there. Without this a
    late request would be refused for a prev that this log no longer has, or its entries doubled.
    """
    behind = state.log.base_index - request.prev_index
    if behind > 0:
        del request.frames[:behind]
        request.prev_index, request.prev_term = state.log.base_index, state.log.base_term


def _store(state: State, request: AppendEntries) -> None:
    """Figure 2, AppendEntries 3 and 4: an entry that conflicts goes, with all after it; what is new is appended."""
    for position, frame in enumerate(request.frames):
        term, index = framing.term_and_index(frame)
        ours = state.log.term_at(index)
        if ours == term:
            continue
        if rules.entry_conflicts(our_term=ours, leaders_term=term):
            state.truncate_from(Index(index))
        state.append(request.frames[position:])
        return


def _refuse(state: State, envelope: Envelope, request: AppendEntries, exchange: Exchange) -> None:
    """Says where this log parts from the leader's: the conflicting term and its first index here."""
    refusal = _refused(state, request)
    refusal.conflict_index = Index(state.log.last_index + 1)
    our_term = state.log.term_at(request.prev_index)
    if our_term is not None and request.prev_index > state.log.base_index:
        refusal.conflict_term = our_term
        refusal.conflict_index = state.log.first_index_of_term_at(request.prev_index)
    state.outbox.reply(exchange, state.answer(envelope, refusal), said_in=state.current_term)


def _refused(state: State, request: AppendEntries) -> AppendEntriesReply:
    """A refusal that says nothing of the log."""
    return AppendEntriesReply(
        term=state.current_term,
        success=False,
        prev_index=request.prev_index,
        match=Index(0),
        conflict_term=Term(0),
        conflict_index=Index(0),
    )


def free_memory(state: State) -> None:
    """Lets go of entries that the disk has: soon of those that every member holds, late of those that one still lacks.

    Who does not lead counts what is committed as held by all. While a snapshot is loaded nothing is handed out,
    however much comes: what is durable can be read again.
    """
    log, settings = state.log, state.settings
    if log.memory_bytes <= settings.log_kept_bytes:
        return
    through = state.durability.durable_index
    if state.snapshots.loading is None:
        through = min(through, state.handed_index)
    log.evict(bytes_max=settings.log_memory_bytes, through=through)
    if state.office is not None:
        through = min([through, *(progress.match_index for progress in state.office.progress.values())])
    log.evict(bytes_max=settings.log_kept_bytes, through=through)


# -------------------------------------------------------------------------------- what is applied


def hand_out_committed(state: State) -> None:
    """Hands committed entries to the state machine, a bounded number at a time, in order, each once."""
    first = Index(state.handed_index + 1)
    if first > state.commit_index or state.apply_read_under_way or state.snapshots.loading is not None:
        return
    count = min(state.commit_index - state.handed_index, state.settings.apply_entries_max)
    frames = _taken_of_what_was_read(state, first, count) or state.log.frames_between(
        first, state.handed_index + count, bytes_max=state.settings.append_bytes_max
    )
    if frames is not None:
        state.commits.append(Committed(first, frames))
        state.handed_index = Index(state.handed_index + len(frames))
    if not state.read_to_apply:
        _read_to_apply(state)


def _taken_of_what_was_read(state: State, first: Index, count: int) -> list[bytes]:
    """Nothing: none is left, or a snapshot has taken the place of what was read."""
    read = state.read_to_apply
    if not read or framing.term_and_index(read[0])[1] != first:
        state.read_to_apply = []
        return []
    state.read_to_apply = read[count:]
    return read[:count]


def _read_to_apply(state: State) -> None:
    """What is next and not in memory, as much as may come at once: each reading begins at a batch's first byte."""
    first, last = Index(state.handed_index + 1), Index(min(state.commit_index, state.log.memory_first - 1))
    if first <= last:
        state.apply_read_under_way = True
        state.log_reads.append(LogRead(first, last, state.settings.append_bytes_max, None))
