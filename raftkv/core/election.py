"""Elections: who stands, who votes, who leads, who steps down (paper §5.2, §5.4.1; thesis §4.2.3, §6.2, §9.6)."""

from __future__ import annotations

from raftkv import frames as framing
from raftkv.core import rules
from raftkv.core.effects import Exchange
from raftkv.core.messages import (
    Envelope,
    PreVoteReply,
    PreVoteRequest,
    ReadIndexReply,
    RequestVote,
    RequestVoteReply,
)
from raftkv.core.quorum import majority_is_out_of_reach
from raftkv.core.state import Campaign, Office, State
from raftkv.core.types import Index, NodeId, Role, Term
from raftkv.errors import MessageError

# ------------------------------------------------------------------------------------- following


def follow(state: State, term: Term, leader: NodeId | None, why: str) -> None:
    """Afterwards this node follows in ``term``; an office or a campaign of its own is over."""
    _leave_office(state, why)
    if rules.term_is_news(theirs=term, ours=state.current_term):
        state.set_term_and_vote(term, None)
        state.leader_id = None
    if state.campaign is not None:
        state.campaign = None
    if leader is not None and state.leader_id != leader:
        state.note("follows", f"{state.me.id}: follows {leader} in term {term}")
    state.leader_id = leader
    state.role = state.idle_role
    if state.election_deadline_us is None:
        restart_election_timer(state)


def adopt_term(state: State, term: Term, why: str) -> None:
    """Follows into a higher term, whose leader is not known yet."""
    if rules.term_is_news(theirs=term, ours=state.current_term):
        follow(state, term, None, why)


def heard_leader(state: State, leader: NodeId, term: Term) -> None:
    """A request came from the leader of the present term, or of a higher one; MessageError if this node leads it."""
    if state.office is not None and term == state.current_term:
        raise MessageError(f"{leader} claims to lead term {term}, which {state.me.id} leads")
    state.told_removed_at = None
    if term > state.current_term or state.leader_id != leader or state.campaign is not None:
        follow(state, term, leader, f"{leader} leads term {term}")
    state.last_heard_leader_us = state.now_us
    restart_election_timer(state)


def restart_election_timer(state: State) -> None:
    """A new wait of random length (paper §5.2)."""
    timeout_us = rules.randomized_election_timeout_us(state.rng, lower_us=state.settings.election_timeout_us)
    state.election_deadline_us = state.now_us + timeout_us


def _leave_office(state: State, why: str) -> None:
    """Everything that only a leader may have is gone; everybody who waits for it is told."""
    office, state.office = state.office, None
    if office is None:
        return
    state.note("stepped_down", f"{state.me.id}: leader in term {state.current_term} → follower, {why}")
    restart_election_timer(state)
    waiting = office.unregistered_reads + [read for open_round in office.rounds for read in open_round.reads]
    for read in waiting:
        if read.asker is None:
            state.reads_failed.append(read.read_id)
            continue
        exchange, request = read.asker
        refusal = ReadIndexReply(state.current_term, read.read_id, confirmed=False, index=Index(0))
        state.outbox.reply(exchange, state.answer(request, refusal), said_in=state.current_term)


# -------------------------------------------------------------------------------------- standing


def election_timeout_passed(state: State) -> None:
    """Nobody was heard for a whole wait: asks whether an election would be won (thesis §9.6).

    Who may not stand asks too, since the answer may be that it was removed; whatever else is said is not counted. Who
    leads while a snapshot is loaded, or with a wrong state, could answer nobody.
    """
    restart_election_timer(state)
    state.leader_id = None
    may_stand = state.may_stand and state.told_removed_at is None
    could_serve = state.disagrees_at is None and state.snapshots.loading is None
    if not could_serve or (not may_stand and state.is_known_to_be_removed):
        state.role = state.idle_role
        return
    term = Term(state.current_term + 1)
    last_index, last_term = state.log.last_index, state.log.last_term
    for voter in state.other_voters():
        state.outbox.send_at_once(state.request(voter, PreVoteRequest(term, last_index, last_term)))
    if not may_stand:
        state.role = state.idle_role
        return
    state.role = Role.CANDIDATE
    state.campaign = Campaign(term, is_pre_vote=True, granted={state.me.id})
    _count_votes(state)


def stand(state: State, *, transfer: bool = False) -> None:
    """Begins a new term with a vote for itself, and asks for the others' (paper §5.2)."""
    term = Term(state.current_term + 1)
    state.set_term_and_vote(term, state.me.id)
    state.role, state.leader_id = Role.CANDIDATE, None
    state.campaign = Campaign(term, is_pre_vote=False)
    restart_election_timer(state)
    state.note("stands", f"{state.me.id}: stands in term {term}" + (", asked to by the leader" if transfer else ""))
    for voter in state.other_voters():
        message = RequestVote(term, state.log.last_index, state.log.last_term, transfer)
        state.outbox.send(state.request(voter, message), said_in=term, vote=(term, state.me.id))


def own_vote_became_durable(state: State) -> None:
    """Only now the candidate counts itself."""
    campaign = state.campaign
    if campaign is None or campaign.is_pre_vote or state.me.id in campaign.granted:
        return
    if rules.own_vote_counts(durable_vote=state.durability.durable_vote, term=campaign.term, me=state.me.id):
        campaign.granted.add(state.me.id)
        _count_votes(state)


def _count_votes(state: State) -> None:
    campaign = state.campaign
    assert campaign is not None
    if rules.has_won_election(state.voter_sets, campaign.granted):
        if campaign.is_pre_vote:
            stand(state)
        else:
            _take_office(state)
    elif majority_is_out_of_reach(state.voter_sets, campaign.refused):
        state.campaign = None
        state.role = state.idle_role


def _take_office(state: State) -> None:
    """Begins the term with a no-op (paper §8), which also commits what older terms left."""
    state.campaign = None
    state.role, state.leader_id = Role.LEADER, state.me.id
    state.election_deadline_us = None
    term_start = Index(state.log.last_index + 1)
    state.office = Office(term_start=term_start, began_us=state.now_us, progress={}, next_heartbeat_us=state.now_us)
    before = state.configurations.before
    if before is not None and not state.configuration_is_committed:
        # Its predecessor may not have told those who left.
        leaving = {id: member for id, member in before[1].members().items() if id != state.me.id}
        state.office.members_are(leaving, next_index=term_start, index=before[0], now_us=state.now_us)
    state.configuration_changed()
    state.note("became_leader", f"{state.me.id}: leader in term {state.current_term}")
    state.append([framing.encode(framing.EntryKind.NOOP, term=state.current_term, index=term_start)])


# ---------------------------------------------------------------------------------------- voting


def _withholds(state: State, *, transfer: bool) -> bool:
    return rules.vote_is_withheld(
        last_heard_leader_us=_may_have_heard_leader_us(state),
        now_us=state.now_us,
        election_timeout_us=state.settings.election_timeout_us,
        transfer=transfer,
    )


def _may_have_heard_leader_us(state: State) -> int | None:
    """A leader in contact with its majority counts as hearing one; so does a start after which a promise may hold."""
    if state.office is not None and _has_its_majority(state):
        return state.now_us
    if state.last_heard_leader_us is None and state.may_have_promised:
        return state.began_us
    return state.last_heard_leader_us


def _has_its_majority(state: State) -> bool:
    """Reckoned anew only when the time is over for which it was known: to be heard again puts it off, nothing else."""
    office = state.office
    assert office is not None
    if state.now_us >= office.has_majority_until_us:
        contact = {peer: progress.last_contact_us for peer, progress in office.progress.items()}
        office.has_majority_until_us = rules.leader_loses_its_majority_at_us(
            state.voter_sets,
            state.with_own(contact, state.now_us),
            election_timeout_us=state.settings.election_timeout_us,
        )
    return state.now_us < office.has_majority_until_us


def check_quorum(state: State) -> None:
    """A leader that has not heard a majority for E stops leading (thesis §6.2)."""
    if not _has_its_majority(state):
        why = f"no quorum for {state.settings.election_timeout_ms}ms"
        follow(state, state.current_term, None, why)


def _candidate_is_up_to_date(state: State, request: PreVoteRequest | RequestVote) -> bool:
    return rules.candidate_is_up_to_date(
        candidates_last_term=request.last_log_term,
        candidates_last_index=request.last_log_index,
        our_last_term=state.log.last_term,
        our_last_index=state.log.last_index,
    )


def handle_pre_vote(state: State, envelope: Envelope, request: PreVoteRequest, exchange: Exchange) -> None:
    """Says what a real vote would say. Stores nothing, resets no timer."""
    granted = rules.pre_vote_is_granted(
        proposed_term=request.term,
        current_term=state.current_term,
        withheld=_withholds(state, transfer=False),
        up_to_date=_candidate_is_up_to_date(state, request),
    )
    term = request.term if granted else state.current_term
    message = PreVoteReply(term, request.term, granted)
    if not granted:
        _tell_if_removed(state, envelope, request, message)
    state.outbox.reply(exchange, state.answer(envelope, message), said_in=state.current_term)


def handle_request_vote(state: State, envelope: Envelope, request: RequestVote, exchange: Exchange) -> None:
    """Votes, once a term, for who is up to date; the vote leaves when it is on stable storage."""
    candidate = envelope.sender
    if _withholds(state, transfer=request.transfer):
        state.note("refused_vote", f"{state.me.id}: no vote for {candidate} in term {request.term}, a leader is heard")
        refusal = RequestVoteReply(state.current_term, granted=False)
        _tell_if_removed(state, envelope, request, refusal)
        return state.outbox.reply(exchange, state.answer(envelope, refusal), said_in=state.current_term)
    adopt_term(state, request.term, f"{candidate} stands in term {request.term}")
    if rules.term_is_stale(theirs=request.term, ours=state.current_term):
        return _reply_to_candidate(state, envelope, exchange, granted=False)
    if not rules.vote_is_free(voted_for=state.voted_for, candidate=candidate):
        state.note(
            "refused_vote", f"{state.me.id}: no vote for {candidate}, term {request.term} has {state.voted_for}'s"
        )
        return _reply_to_candidate(state, envelope, exchange, granted=False)
    if not _candidate_is_up_to_date(state, request):
        state.note("refused_vote", f"{state.me.id}: no vote for {candidate} in term {request.term}, its log is behind")
        return _reply_to_candidate(state, envelope, exchange, granted=False)
    if state.voted_for is None:
        state.set_term_and_vote(state.current_term, candidate)
        state.note("voted", f"{state.me.id}: votes for {candidate} in term {request.term}")
    restart_election_timer(state)
    return _reply_to_candidate(state, envelope, exchange, granted=True)


def _tell_if_removed(
    state: State, envelope: Envelope, request: PreVoteRequest | RequestVote, refusal: PreVoteReply | RequestVoteReply
) -> None:
    """Whoever asks is told that it was removed, and how far its log went when it asked."""
    if _was_removed(state, envelope, request):
        refusal.removed = True
        refusal.last_log_index, refusal.last_log_term = request.last_log_index, request.last_log_term


def _was_removed(state: State, envelope: Envelope, request: PreVoteRequest | RequestVote) -> bool:
    """Whether whoever asks is no member, by what is committed here, and cannot know it."""
    configurations = state.configurations
    committed = configurations.at(state.commit_index).members().get(envelope.sender)
    listed = configurations.is_listed(envelope.sender, envelope.sender_incarnation) or (
        committed is not None and committed.incarnation == envelope.sender_incarnation
    )
    return rules.candidate_was_removed(
        leader_is_heard=_withholds(state, transfer=False),
        left_too=state.is_known_to_be_removed,
        is_listed=listed,
        candidates_last=(request.last_log_term, request.last_log_index),
        our_committed=(state.log.term_at(state.commit_index) or 0, state.commit_index),
    )


def _reply_to_candidate(state: State, envelope: Envelope, exchange: Exchange, *, granted: bool) -> None:
    reply = state.answer(envelope, RequestVoteReply(state.current_term, granted))
    vote = (state.current_term, envelope.sender) if granted else None
    state.outbox.reply(exchange, reply, said_in=state.current_term, vote=vote)


# --------------------------------------------------------------------------------- votes received


def handle_pre_vote_reply(state: State, envelope: Envelope, reply: PreVoteReply) -> None:
    """Counts it; a refusal that knows a higher term is believed, so that no asker asks for ever in vain."""
    if _is_told_to_have_left(state, envelope, reply):
        return
    if not reply.granted:
        adopt_term(state, reply.term, f"{envelope.sender} knows term {reply.term}")
    campaign = state.campaign
    if campaign is None or not campaign.is_pre_vote or reply.proposed_term != campaign.term:
        return
    _count(state, campaign, envelope.sender, granted=reply.granted)


def handle_request_vote_reply(state: State, envelope: Envelope, reply: RequestVoteReply) -> None:
    """Counts a vote of this very term; any other is late."""
    if _is_told_to_have_left(state, envelope, reply):
        return
    adopt_term(state, reply.term, f"{envelope.sender} knows term {reply.term}")
    campaign = state.campaign
    if campaign is None or campaign.is_pre_vote or reply.term != campaign.term:
        return
    _count(state, campaign, envelope.sender, granted=reply.granted)


def _is_told_to_have_left(state: State, envelope: Envelope, reply: PreVoteReply | RequestVoteReply) -> bool:
    """Notes a removal that this node has missed; no term moves by it. Who would vote for it proves nothing was missed.

    Nothing is noted while a leader is heard: it speaks to members, and to those that it tells itself. Nor where the log
    has gone on since this node asked: what came may have added it again.
    """
    if not reply.removed:
        if reply.granted and state.told_removed_at is not None:
            state.told_removed_at = None
            state.configuration_changed()
        return False
    is_of_now = (reply.last_log_index, reply.last_log_term) == (state.log.last_index, state.log.last_term)
    if is_of_now and not _withholds(state, transfer=False) and state.told_removed_at is None:
        state.told_removed_at = state.log.last_index
        state.note("removed", f"{state.me.id}: is no member of the cluster any more, {envelope.sender} says")
        follow(state, state.current_term, None, "it is no member any more")
    return True


def _count(state: State, campaign: Campaign, voter: NodeId, *, granted: bool) -> None:
    (campaign.granted if granted else campaign.refused).add(voter)
    _count_votes(state)
