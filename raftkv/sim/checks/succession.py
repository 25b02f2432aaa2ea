"""Which configuration may follow which in a log: paper §6 and thesis §4.2.1, counted here again.

Told: two configurations in a row. Tells: what is wrong with the second, or nothing. Knows no logs, and none of the
core's own arithmetic: what is checked may reckon wrongly.
"""

from __future__ import annotations

from collections.abc import Iterable

from raftkv.core.types import Configuration, Intent, Learner, Member, Membership


def wrong_successor(before: Configuration, after: Configuration) -> str | None:
    """Why the one may not follow the other; None: it may. Whoever begins with an empty configuration takes any."""
    if not before.current.voters:
        return None
    known = before.members()
    stranger = [id for id, one in after.members().items() if id in known and known[id].incarnation != one.incarnation]
    if stranger:
        return f"{stranger[0]} is another incarnation from one configuration to the next"
    if before.outgoing is not None:
        is_its = after.outgoing is None and after.current == before.current
        return None if is_its else "C_new is what C_old,new said it would be"
    if _joining(before.current):
        return _after_catching_up(before.current, after)
    return _after_rest(before.current, after)


def _after_rest(old: Membership, after: Configuration) -> str | None:
    new = after.current
    if after.outgoing is not None:
        if after.outgoing != old:
            return "C_old,new keeps the old members as they were"
        if not _ids(new.voters) <= _ids(old.voters):
            return "who is to vote catches up first"
        return None if _is_at_rest(new) else "C_old,new has its end in it"
    if _ids(new.voters) != _ids(old.voters):
        return "votes change by C_old,new alone"
    if not _joining(new):
        return None if _is_at_rest(new) else "nobody waits to leave where nobody is to vote"
    if not _ids(old.members()) <= _ids(new.members()):
        return "nobody goes before those have caught up for whom he goes"
    was_learner = _ids(learner.member for learner in old.learners)
    if any(learner.stays != (learner.member.id in was_learner) for learner in _coming(new)):
        return "who was a learner before is one again if it does not vote"
    if not set(new.leaving) | set(new.demoted) <= _ids(old.members()):
        return "who leaves is there"
    return None


def _after_catching_up(old: Membership, after: Configuration) -> str | None:
    new, coming = after.current, _joining(old)
    leaving, demoted = set(old.leaving), set(old.demoted)
    voters = {member.id for member in old.voters}
    if not _is_at_rest(new):
        return "one change ends before the next begins"
    learners = _ids(learner.member for learner in new.learners)
    if after.outgoing is not None:
        kept = {learner.member.id for learner in old.learners} - coming - leaving
        if after.outgoing != old:
            return "C_old,new keeps the old members as they were"
        if _ids(new.voters) != (voters - leaving - demoted) | coming:
            return "those vote for whom it was begun"
        return None if learners == kept | demoted else "who votes no more and does not leave learns"
    if _ids(new.voters) != voters:
        return "votes change by C_old,new alone"
    stay = {
        one.member.id for one in old.learners if one.stays or (one.deadline_ms is None and one.member.id not in coming)
    }
    gone = stay - learners
    if learners - stay or len(gone) > 1 or not gone <= set(after.called_off):
        return "what comes to nothing leaves everybody as before"
    return None


def are_to_vote(membership: Membership) -> set[str]:
    """Who will, once all that this membership is on its way to is done."""
    return _ids(membership.voters) - set(membership.leaving) - set(membership.demoted) | _joining(membership)


def _joining(membership: Membership) -> set[str]:
    return {learner.member.id for learner in _coming(membership)}


def _coming(membership: Membership) -> list[Learner]:
    return [learner for learner in membership.learners if learner.intent is Intent.VOTER]


def _is_at_rest(membership: Membership) -> bool:
    """Nobody is on his way; a learner that has only just come may have the deadline that it came with."""
    return not membership.leaving and not membership.demoted and not _joining(membership)


def _ids(members: Iterable[Member]) -> set[str]:
    return {member.id for member in members}
