"""Heartbeats, which are read rounds, and the reads that wait for them (thesis §6.4).

A round has a number that its term never uses again. A read joins a round that begins after it was
registered; once a majority of each voter set has echoed that round or a later one, nobody else led when
the read came, and the commit index noted then is safe to read at. One round serves all that wait.
"""

from __future__ import annotations

from raftkv.core import election, hashes, leases, replication, rules
from raftkv.core.effects import Exchange, ReadReady
from raftkv.core.messages import Envelope, Heartbeat, HeartbeatReply, ReadIndexReply, ReadIndexRequest
from raftkv.core.progress import Echo
from raftkv.core.state import AskedRead, Office, OpenRound, State, WaitingRead
from raftkv.core.types import Index, NodeId, Round
from raftkv.errors import MessageError

# ------------------------------------------------------------------------------ reads of this node


def request_read(state: State, read_id: int) -> None:
    """A leader registers the read; a follower asks its leader for the index; without one the read fails."""
    if state.office is not None:
        state.office.unregistered_reads.append(WaitingRead(read_id, None))
    elif state.leader_id is not None and state.leader_id in state.configurations.members:
        state.asked_reads[read_id] = AskedRead(state.leader_id, state.now_us)
        request = state.request(state.leader_id, ReadIndexRequest(state.current_term, read_id))
        state.outbox.send(request, said_in=state.current_term)
    else:
        state.reads_failed.append(read_id)


def handle_read_index_reply(state: State, envelope: Envelope, reply: ReadIndexReply) -> None:
    """The leader's index, or word that it leads no more."""
    election.adopt_term(state, reply.term, f"{envelope.sender} knows term {reply.term}")
    asked = state.asked_reads.get(reply.read_id)
    if asked is None or asked.leader != envelope.sender:
        return
    del state.asked_reads[reply.read_id]
    if reply.confirmed:
        state.reads_ready.append(ReadReady(reply.read_id, reply.index))
    else:
        state.reads_failed.append(reply.read_id)


def fail_asked_reads(state: State, *, of: NodeId | None = None) -> None:
    """Reads that were asked of a leader who is not ours any more, or of ``of``, or too long ago, fail."""
    oldest_us = state.now_us - state.settings.election_timeout_us
    for read_id, asked in list(state.asked_reads.items()):
        if asked.leader != state.leader_id or asked.leader == of or asked.asked_us <= oldest_us:
            del state.asked_reads[read_id]
            state.reads_failed.append(read_id)


# --------------------------------------------------------------------------------- at the leader


def handle_read_index(state: State, envelope: Envelope, request: ReadIndexRequest, exchange: Exchange) -> None:
    """A follower's read waits for a round like any other; its exchange stays open until then."""
    if state.office is None or request.term != state.current_term:
        refusal = ReadIndexReply(state.current_term, request.read_id, confirmed=False, index=Index(0))
        return state.outbox.reply(exchange, state.answer(envelope, refusal), said_in=state.current_term)
    return state.office.unregistered_reads.append(WaitingRead(request.read_id, (exchange, envelope)))


def heartbeat_if_due(state: State) -> None:
    """Speaks to everybody once an interval, so that nobody stands (paper §5.2)."""
    office = state.office
    assert office is not None
    if state.now_us >= office.next_heartbeat_us:
        _send_round(state, office)


def ask_around(state: State, office: Office) -> Round:
    """A round goes out to everybody now, whether or not one is due; who echoes it, or a later one, is there."""
    _send_round(state, office)
    confirm_rounds(state)
    return office.last_round


def open_round_if_reads_wait(state: State) -> None:
    """All reads that wait go with one round; while many rounds are out, they gather for the next."""
    office = state.office
    assert office is not None
    if not office.unregistered_reads or not replication.may_serve(state, office):
        return
    if len(office.rounds) < state.settings.inflight_rounds_max:
        _send_round(state, office)
        confirm_rounds(state)


def _send_round(state: State, office: Office) -> None:
    """Every heartbeat is a round; the reads that may be served join it."""
    office.last_round = Round(office.last_round + 1)
    office.next_heartbeat_us = state.now_us + state.settings.heartbeat_us
    joining: list[WaitingRead] = []
    if replication.may_serve(state, office):
        joining, office.unregistered_reads = office.unregistered_reads, joining
    drift = state.settings.clock_drift_max_per_mille
    dates = {
        peer: progress.echo.dates(state.now_us, clock_drift_max_per_mille=drift)
        for peer, progress in office.progress.items()
    }
    office.rounds.append(OpenRound(office.last_round, state.now_us, _commit_at_least(state, office), joining, dates))
    _join_rounds(state, office)
    for peer, progress in office.progress.items():
        message = Heartbeat(
            state.current_term,
            rules.heartbeat_commit_index(leaders=state.commit_index, match=progress.match_index),
            _commit_at_least(state, office),
            office.last_round,
            *_date_for(office, peer),
            *hashes.to_compare(office, progress),
        )
        state.outbox.send_at_once(state.request(peer, message))


def _join_rounds(state: State, office: Office) -> None:
    """Rounds that nobody echoes do not pile up: the newest takes over the reads of the one before it.

    The old ones stay: where a round trip is long, theirs are the echoes that come next.
    """
    if len(office.rounds) > 2 * state.settings.inflight_rounds_max:
        joined = office.rounds.pop(-2)
        office.rounds[-1].reads[:0] = joined.reads


def _commit_at_least(state: State, office: Office) -> Index:
    """Who has applied this holds all that was ever acknowledged until now, if this node does lead.

    What its predecessors acknowledged lies before its no-op, though it cannot know yet how much of that is
    committed (paper §5.4.3, §8).
    """
    return max(state.commit_index, office.term_start)


def _date_for(office: Office, peer: NodeId) -> tuple[int, int]:
    """When, by the follower's own clock, this leader's newest confirmed round was sent, or earlier."""
    return (0, 0) if office.newest_confirmed is None else office.newest_confirmed.dates.get(peer, (0, 0))


def handle_heartbeat_reply(state: State, envelope: Envelope, reply: HeartbeatReply) -> None:
    """Notes the echo; what it confirms is released."""
    _prove_round_is_ours(state, envelope, reply)
    progress = replication.contact(state, envelope, reply)
    if progress is None or state.office is None:
        return
    promised_us = leases.promised_until_us(state, sent_us=_sent_us(state.office, reply.round), reply=reply)
    progress.echoed(Echo(reply.round, state.now_us, promised_us, reply.life, reply.heard_us))
    hashes.peers_state_is_told(state, envelope.sender, progress, reply)
    confirm_rounds(state)


def _sent_us(office: Office, round: Round) -> int | None:
    """When that round, or the nearest before it that is remembered, went out; None: it is long confirmed."""
    confirmed = [] if office.newest_confirmed is None else [office.newest_confirmed]
    return next((one.sent_us for one in reversed(confirmed + office.rounds) if one.round <= round), None)


def _prove_round_is_ours(state: State, envelope: Envelope, reply: HeartbeatReply) -> None:
    """Raises MessageError if a follower of this leader echoes a round that was never sent."""
    office = state.office
    if office is not None and reply.term == state.current_term and reply.round > office.last_round:
        raise MessageError(f"{envelope.sender} echoes round {reply.round}, ours go to {office.last_round}")


def confirm_rounds(state: State) -> None:
    """Releases the reads of every round that a majority of each voter set has echoed."""
    office = state.office
    if office is None or not office.rounds:
        return
    echoed: dict[NodeId, int] = {peer: progress.echo.round for peer, progress in office.progress.items()}
    confirmed = rules.confirmed_round(state.voter_sets, state.with_own(echoed, office.last_round))
    while office.rounds and office.rounds[0].round <= confirmed:
        done = office.rounds.pop(0)
        office.newest_confirmed = done
        state.note_freshness(done.read_index, as_of_us=done.sent_us)
        for read in done.reads:
            _release(state, read, done.read_index)


def _release(state: State, read: WaitingRead, index: Index) -> None:
    if read.asker is None:
        state.reads_ready.append(ReadReady(read.read_id, index))
        return
    exchange, request = read.asker
    reply = ReadIndexReply(state.current_term, read.read_id, confirmed=True, index=index)
    state.outbox.reply(exchange, state.answer(request, reply), said_in=state.current_term)


# --------------------------------------------------------------------------------- at a follower


def _note_freshness(state: State, request: Heartbeat) -> None:
    """Dates the leader's word by this node's own clock (design: reading); what an earlier life read there is void."""
    if request.dated_life == state.life:
        state.note_freshness(request.leader_commit, as_of_us=min(request.dated_us, state.now_us))


def handle_heartbeat(state: State, envelope: Envelope, request: Heartbeat, exchange: Exchange) -> None:
    """The leader is there. Its commit is within what this log is known to match; the round is echoed.

    A round of an older term is not: echoed in the present term, its number would confirm another round.
    """
    echoed = Round(0)
    if not rules.term_is_stale(theirs=request.term, ours=state.current_term):
        echoed = request.round
        election.heard_leader(state, envelope.sender, request.term)
        _note_freshness(state, request)
        hashes.compare(state, request.agreed_index, request.agreed_hash)
        state.commit_index = rules.follower_commit_index(
            ours=state.commit_index, leaders=request.commit, last_checked=state.log.last_index
        )
    told = state.hashes.newest if request.round % 2 else state.hashes.roundest
    reply = HeartbeatReply(state.current_term, echoed, *told, state.settings.withholds_ms, state.life, state.now_us)
    state.outbox.reply(exchange, state.answer(envelope, reply), said_in=state.current_term)
