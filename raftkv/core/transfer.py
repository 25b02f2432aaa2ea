"""Leadership transfer (thesis §3.10): on request, and away from a disk that hangs."""

from __future__ import annotations

from collections.abc import Collection

from raftkv.core import election, hashes, replication, rules
from raftkv.core.effects import Exchange
from raftkv.core.messages import Envelope, TimeoutNow, TimeoutNowReply
from raftkv.core.quorum import has_majority
from raftkv.core.state import Office, State, Transfer
from raftkv.core.types import NodeId


def begin(state: State, target: NodeId) -> None:
    """From now on no proposals are taken, until the target leads or the upper election timeout has passed."""
    office = state.office
    assert office is not None
    assert target != state.me.id
    office.transfer = Transfer(target, deadline_us=state.now_us + 2 * state.settings.election_timeout_us)
    state.note("transfer_began", f"{state.me.id}: hands leadership to {target}")


def best_target(state: State, *, among: Collection[NodeId] | None = None) -> NodeId | None:
    """The voter (of those) in contact whose log is longest, and whose state is right; None: none was heard within E.

    Of the new set during a change: who leaves would have to hand over again.
    """
    office = state.office
    assert office is not None
    stays = state.voter_sets[0] if among is None else state.voter_sets[0] & set(among)
    heard = [
        (office.progress[voter].match_index, voter)
        for voter in state.other_voters()
        if voter in stays
        and office.progress[voter].has_answered
        and not hashes.peer_is_wrong(office, office.progress[voter])
        and state.now_us - office.progress[voter].last_contact_us < state.settings.election_timeout_us
    ]
    return max(heard, key=lambda pair: pair[0])[1] if heard else None


def go_on(state: State) -> None:
    """Tells the target as soon as it is ready; gives up at the deadline, and serves again."""
    office = state.office
    assert office is not None
    transfer = office.transfer
    if transfer is None:
        return
    progress = office.progress.get(transfer.target)
    if state.now_us >= transfer.deadline_us or progress is None:
        office.transfer = None
        state.note("transfer_gave_up", f"{state.me.id}: {transfer.target} did not take over, goes on leading")
        return
    if not transfer.told and rules.transfer_target_is_ready(
        target_match=progress.match_index, our_last_index=state.log.last_index
    ):
        transfer.told = office.lease_forgone = True
        state.outbox.send_at_once(state.request(transfer.target, TimeoutNow(state.current_term)))


def handle_timeout_now(state: State, envelope: Envelope, request: TimeoutNow, exchange: Exchange) -> None:
    """The present leader wants this node to stand; neither PreVote nor a heard leader is in the way.

    Its log may be whole while its state is none: who loads a snapshot would lead, and could answer nobody.
    """
    could_serve = state.disagrees_at is None and state.snapshots.loading is None
    may_lead = state.is_voter and could_serve and state.office is None
    accepted = request.term == state.current_term and may_lead
    if accepted:
        election.stand(state, transfer=True)
    reply = TimeoutNowReply(state.current_term, accepted)
    state.outbox.reply(exchange, state.answer(envelope, reply), said_in=state.current_term)


def handle_timeout_now_reply(state: State, envelope: Envelope, reply: TimeoutNowReply) -> None:
    """A target that will not stand ends the transfer."""
    progress = replication.contact(state, envelope, reply)
    office = state.office
    if progress is None or office is None or office.transfer is None or reply.accepted:
        return
    if office.transfer.target == envelope.sender:
        office.transfer = None
        state.note("transfer_gave_up", f"{state.me.id}: {envelope.sender} will not stand")


def disk_has_stalled(state: State) -> bool:
    """Whether this node's own disk owes an answer for longer than E."""
    oldest_us = state.durability.oldest_write_us
    if oldest_us is None:
        return False
    return rules.disk_has_stalled(
        oldest_write_us=oldest_us,
        now_us=state.now_us,
        election_timeout_us=state.settings.election_timeout_us,
    )


def hand_over_if_disk_stalls(state: State) -> None:
    """To a voter whose match index still advances; where none could be elected, stays and says so."""
    office = state.office
    assert office is not None
    if office.transfer is not None or not disk_has_stalled(state):
        return
    target = _voter_that_advances(state, office)
    if target is not None:
        state.note("disk_stalled", f"{state.me.id}: its disk does not answer, hands over to {target}")
        begin(state, target)
    elif not office.stall_noted:
        office.stall_noted = True
        state.note("disk_stalled", f"{state.me.id}: its disk does not answer, and no voter could take over")


def _voter_that_advances(state: State, office: Office) -> NodeId | None:
    """None unless a majority stores what this node does not: hung disks store no votes either."""
    durable = state.durability.durable_index
    advancing = [peer for peer, progress in office.progress.items() if progress.match_index > durable]
    best = best_target(state)
    return best if best in advancing and has_majority(state.voter_sets, advancing) else None
