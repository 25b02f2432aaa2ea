"""A change of members, from the request to its end (paper §6, thesis §4): who joins catches up, C_old,new, C_new.

Everything rests on the log: whoever leads reads from the configuration in force how far the change has come, and
takes the next step. Only how far a learner has caught up is the leader's own knowledge; another begins to measure anew.
Those that left are told so: without it they would ask for votes until somebody told them.
"""

from __future__ import annotations

from raftkv import frames as framing
from raftkv.core import election, membership, reads, replication, rules, transfer
from raftkv.core.messages import TimeoutNow
from raftkv.core.state import Departing, Office, State
from raftkv.core.types import (
    ChangePhase,
    ChangeStatus,
    Configuration,
    Incarnation,
    Index,
    Member,
    Membership,
    NodeId,
    Round,
)
from raftkv.errors import ChangeRefused, ChangeWhy

# ------------------------------------------------------------------------------------- the request


def begin(
    state: State, target: Membership, *, deadline_ms: int | None, force: bool, since: Round | None = None
) -> Index:
    """Appends the first configuration on the way to ``target``; ChangeRefused says why not. The caller leads."""
    office, current = state.office, state.configurations.current.current
    assert office is not None
    target = membership.in_order(target)
    problem = membership.problem_with(current, target)
    if problem is not None:
        raise ChangeRefused(ChangeWhy.BAD, problem)
    if not replication.may_serve(state, office):
        raise ChangeRefused(ChangeWhy.NOT_READY, "this leader has not committed anything of its own term yet")
    if rules.leader_is_done(votes=state.is_voter, is_committed=state.configuration_is_committed):
        raise ChangeRefused(ChangeWhy.NOT_READY, "this leader is no voter any more, and steps down")
    if is_running(state):
        raise ChangeRefused(ChangeWhy.IN_PROGRESS, "another change of members is not over yet")
    if target == membership.given_up(current):
        raise ChangeRefused(ChangeWhy.SAME, "these are the members already")
    joining = {member.id for member in target.voters} - {member.id for member in current.voters}
    if not force and _is_at_risk(state, office, target, counting=joining, since=since):
        raise ChangeRefused(ChangeWhy.QUORUM_AT_RISK, "fewer than a majority of the new voters answer this leader")
    office.change_is_forced = force
    return _append(state, rules.first_configuration(current, target, deadline_ms=deadline_ms))


def call_off(state: State, node: NodeId) -> Index:
    """Appends what ends the change by which ``node`` is to vote; ChangeRefused says why not. The caller leads.

    It takes the place of C_old,new: either stands only after the entry that let the learners in was committed, and
    while neither is committed no other follows.
    """
    office = state.office
    assert office is not None
    following = rules.configuration_without(state.configurations.current, node)
    if following is None:
        raise ChangeRefused(ChangeWhy.BAD, f"{node} is not catching up in order to vote: nothing can be called off")
    if not state.configuration_is_committed or not replication.may_serve(state, office):
        raise ChangeRefused(ChangeWhy.NOT_READY, "the change that lets it in is not known to be committed yet")
    state.note(
        "members_called_off",
        f"{state.me.id}: the change by which {' '.join(following.called_off)} would vote is called off",
    )
    return _append(state, following)


def is_running(state: State) -> bool:
    """Whether a change is not over yet, as far as this node knows."""
    return rules.change_is_running(state.configurations.current, is_committed=state.configuration_is_committed)


def _is_at_risk(
    state: State, office: Office, target: Membership, *, counting: set[NodeId], since: Round | None
) -> bool:
    """Whether too few of the new voters were heard within E. Those that join prove themselves by catching up.

    No longer ago than CheckQuorum allows: else C_old,new would unseat the leader that appends it, and who serves by
    the old majority would serve no more. Where a vote is lost even that is too long: they must have echoed the round
    ``since`` too. Of three, one may have died since it was heard, and the other is the one that goes.
    """
    oldest_us = state.now_us - state.settings.election_timeout_us
    heard = {peer for peer, one in office.progress.items() if one.has_answered and one.last_contact_us > oldest_us}
    if since is not None:
        heard = {peer for peer in heard if office.progress[peer].echo.round >= since}
    return rules.quorum_is_at_risk([member.id for member in target.voters], heard | counting | {state.me.id})


def _append(state: State, configuration: Configuration) -> Index:
    index = Index(state.log.last_index + 1)
    kind, term = framing.EntryKind.CONFIGURATION, state.current_term
    state.append([framing.encode(kind, term=term, index=index, body=configuration.encode())])
    state.note("members_change", f"{state.me.id}: {in_words(configuration)}, entry {index}")
    return index


def in_words(configuration: Configuration) -> str:
    """A configuration for people."""
    current = configuration.current
    words = [f"voters {' '.join(member.id for member in current.voters)}"]
    if configuration.outgoing is not None:
        words = [f"voters {' '.join(member.id for member in configuration.outgoing.voters)} and the new {words[0]}"]
    joining = membership.joining(current)
    learners = [learner.member.id for learner in current.learners if learner.member.id not in joining]
    words += [f"learners {' '.join(learners)}"] if learners else []
    words += [f"to vote {' '.join(joining)}"] if joining else []
    words += [f"to leave {' '.join(current.leaving)}"] if current.leaving else []
    words += [f"to learn {' '.join(current.demoted)}"] if current.demoted else []
    return ", ".join(words)


# ---------------------------------------------------------------------------------------- each turn


def go_on(state: State) -> None:
    """Takes the next step of a change, if it is this node's to take, and draws the conclusions of the last."""
    current_index = state.configurations.current_index
    if state.settled_at != current_index and state.configuration_is_committed:
        state.settled_at = current_index
        _settle(state)
    office = state.office
    if office is None or office.no_change_at == current_index:
        return
    _tell_those_who_left(state, office)
    if rules.leader_is_done(votes=state.is_voter, is_committed=state.configuration_is_committed):
        _leave_office(state, office)
    elif is_running(state):
        _take_next_step(state, office)
    elif not office.departing:
        office.no_change_at = current_index


def _settle(state: State) -> None:
    """The configuration in force has just been seen to be committed: it will not be undone."""
    if state.office is None and state.campaign is None:
        state.role = state.idle_role
    if state.is_known_to_be_removed:
        state.note("removed", f"{state.me.id}: is no member of the cluster any more, since entry {state.removed_at}")


def _take_next_step(state: State, office: Office) -> None:
    configuration = state.configurations.current
    joining = membership.joining(configuration.current)
    for learner in joining:
        office.progress[learner].catch_up(last_index=state.log.last_index, now_us=state.now_us)
    if office.transfer is not None or not state.configuration_is_committed or not replication.may_serve(state, office):
        return
    deadline_ms = membership.deadline_ms(configuration.current)
    following = rules.next_configuration(
        configuration,
        caught_up=_may_vote(state, office, joining),
        too_late=deadline_ms is not None and state.cluster_time_ms >= deadline_ms,
    )
    if following is None:
        return
    if joining and not following.is_joint:
        state.note("members_gave_up", f"{state.me.id}: {_why_not_joint(state, office, joining)}")
    _append(state, following)


def _may_vote(state: State, office: Office, joining: tuple[NodeId, ...]) -> bool:
    """Whether all have caught up; and if meanwhile too many others are gone, C_old,new waits for them too."""
    if _behind(state, office, joining):
        return False
    if office.change_is_forced:
        return True
    current = state.configurations.current.current
    target = membership.when_caught_up(current)
    since = _round_since_caught_up(state, office) if membership.votes_are_lost(current, target) else None
    return not _is_at_risk(state, office, target, counting=set(), since=since)


def _behind(state: State, office: Office, joining: tuple[NodeId, ...]) -> list[NodeId]:
    """Those that have not caught up."""
    timeout_us, progress = state.settings.election_timeout_us, office.progress
    return [id for id in joining if not progress[id].has_caught_up(now_us=state.now_us, election_timeout_us=timeout_us)]


def _why_not_joint(state: State, office: Office, joining: tuple[NodeId, ...]) -> str:
    behind = _behind(state, office, joining)
    return f"{' '.join(behind)} did not catch up in time" if behind else "most of those that would vote are not there"


def _round_since_caught_up(state: State, office: Office) -> Round:
    """One that was sent when all had caught up; another, once that has gone unanswered for E."""
    index, round, sent_us = office.asked_around or (None, Round(0), 0)
    if index != state.configurations.current_index or state.now_us - sent_us >= state.settings.election_timeout_us:
        round = reads.ask_around(state, office)
        office.asked_around = (state.configurations.current_index, round, state.now_us)
    return round


def _leave_office(state: State, office: Office) -> None:
    """C_new is committed and this leader is not in it. Whoever holds all that it holds may stand at once."""
    target = transfer.best_target(state)
    if target is not None and rules.transfer_target_is_ready(
        target_match=office.progress[target].match_index, our_last_index=state.log.last_index
    ):
        state.outbox.send_at_once(state.request(target, TimeoutNow(state.current_term)))
    election.follow(state, state.current_term, None, "it is no voter any more")


# ---------------------------------------------------------------------------------- those who left


def _tell_those_who_left(state: State, office: Office) -> None:
    """A heartbeat tells each that the configuration without it is committed; after 4 E nobody waits for its answer."""
    for id, left in list(office.departing.items()):
        if left.committed_us is None and left.index <= state.commit_index:
            left.committed_us = state.now_us
        if left.committed_us is not None and _is_told(state, office, left):
            del office.departing[id], office.progress[id]


def _is_told(state: State, office: Office, left: Departing) -> bool:
    progress = office.progress[left.member.id]
    if left.round is None and progress.match_index >= left.index:
        left.round = Round(office.last_round + 1)
        office.next_heartbeat_us = state.now_us
    assert left.committed_us is not None
    if state.now_us - left.committed_us >= 4 * state.settings.election_timeout_us:
        return True
    return left.round is not None and progress.echo.round >= left.round


def contacts(state: State) -> dict[NodeId, Member]:
    """Everybody to whom messages may go."""
    members = dict(state.configurations.members)
    if state.office is not None:
        members.update((id, left.member) for id, left in state.office.departing.items())
    return members


def is_known(state: State, node: NodeId, incarnation: Incarnation) -> bool:
    """Whether a reply may come from there: a member, or one that was and whose id is nobody else's now."""
    member = state.configurations.members.get(node)
    if member is not None:
        return member.incarnation == incarnation
    return state.configurations.was_listed(node, incarnation)


# --------------------------------------------------------------------------------------- for people


def status(state: State) -> ChangeStatus | None:
    """The change that is under way; None: there is none."""
    departing = () if state.office is None else tuple(state.office.departing)
    if not is_running(state) and not departing:
        return None
    configuration = state.configurations.current
    current, outgoing = configuration.current, configuration.outgoing
    phase, joining, leaving, demoted = ChangePhase.LEAVING, membership.joining(current), departing, current.demoted
    if joining:
        phase, leaving = ChangePhase.CATCHING_UP, current.leaving
    elif outgoing is not None:
        phase = ChangePhase.JOINT
        ids = {member.id for member in current.members()}
        voters, before = ({member.id for member in one.voters} for one in (current, outgoing))
        joining = tuple(sorted(voters - before))
        leaving = tuple(sorted({member.id for member in outgoing.members()} - ids))
        demoted = tuple(sorted((before - voters) & ids))
    progress = {} if state.office is None else state.office.progress
    return ChangeStatus(
        phase=phase,
        index=state.configurations.current_index,
        joining=joining,
        leaving=leaving,
        demoted=demoted,
        deadline_ms=membership.deadline_ms(current),
        match=tuple((id, progress[id].match_index) for id in joining if id in progress),
    )
