"""Which configuration is in force: the newest in the log, committed or not (paper §6, thesis §4.1).

``Configurations`` is told of them as they are appended, and of truncations; it tells the voter sets and members now.
The functions below it say what a wanted membership comes to, step by step; none of them knows who leads.

    a b c            a b c, d catches up           a b c and a b d         a b d
    C_old      →     (c is to leave)        →      C_old,new        →      C_new
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from raftkv.core.types import (
    ID_BYTES,
    Configuration,
    Incarnation,
    Index,
    Intent,
    Learner,
    Member,
    Membership,
    NodeId,
)


class Configurations:
    """The base's configuration and those of the log after it, by rising index."""

    __slots__ = ("_listed_before", "_stack", "members", "voter_sets", "voters")

    def __init__(
        self, base_index: Index, base: Configuration, later: Sequence[tuple[Index, Configuration]] = ()
    ) -> None:
        self._stack: list[tuple[Index, Configuration]] = [(base_index, base), *later]
        self._listed_before: set[tuple[NodeId, Incarnation]] = set()
        """By committed configurations that stood in this log, and do not any more."""
        self._take_effect()

    @property
    def current(self) -> Configuration:
        """The one in force."""
        return self._stack[-1][1]

    @property
    def current_index(self) -> Index:
        """Where in the log the one in force stands."""
        return self._stack[-1][0]

    @property
    def oldest_index(self) -> Index:
        """Where the oldest one stands that is known; with a leader's snapshot that is the snapshot's index."""
        return self._stack[0][0]

    def is_listed(self, node: NodeId, incarnation: Incarnation) -> bool:
        """Whether exactly this incarnation is a member."""
        member = self.members.get(node)
        return member is not None and member.incarnation == incarnation

    def was_listed(self, node: NodeId, incarnation: Incarnation, *, through: Index | None = None) -> bool:
        """Whether it is a member, or was one as far back as this log says, or has said in this life.

        By configurations up to ``through``; None: by all, also those that may be undone.
        """
        who = (node, incarnation)
        last = self.current_index if through is None else through
        return who in self._listed_before or who in self._listed_through(last)

    @property
    def before(self) -> tuple[Index, Configuration] | None:
        """The one before that in force, and where it stands; None: it is in the snapshot, or there was none."""
        return self._stack[-2] if len(self._stack) > 1 else None

    def append(self, index: Index, configuration: Configuration) -> None:
        """Counts from the moment it is in the log."""
        assert index > self.current_index
        self._stack.append((index, configuration))
        self._take_effect()

    def truncate_from(self, index: int) -> None:
        """Brings the one before back into force where the newest goes."""
        while self._stack[-1][0] >= index:
            self._stack.pop()
        assert self._stack, "the base's configuration is never truncated"
        self._take_effect()

    def compact(self, base_index: Index) -> None:
        """The log begins after ``base_index``, which is committed: the one in force there is the base's."""
        self._listed_before.update(self._listed_through(base_index))
        at_base = (self.index_at(base_index), self.at(base_index))
        self._stack = [at_base, *(later for later in self._stack if later[0] > base_index)]

    def begin_anew(self, base_index: Index, base: Configuration, *, committed: Index) -> None:
        """Only the snapshot's counts; of the old ones, those up to ``committed`` once did."""
        self._listed_before.update(self._listed_through(committed))
        self._stack = [(base_index, base)]
        self._take_effect()

    def at(self, index: int) -> Configuration:
        """The one in force when the log ended at ``index``."""
        return next(configuration for first, configuration in reversed(self._stack) if first <= index)

    def index_at(self, index: int) -> Index:
        """Where that one stands."""
        return next(first for first, _ in reversed(self._stack) if first <= index)

    def between(self, first: Index, last: Index) -> Iterator[Configuration]:
        """Those that stand from ``first`` to ``last``, as far as this log says."""
        return (configuration for index, configuration in self._stack if first <= index <= last)

    def _listed_through(self, index: Index) -> set[tuple[NodeId, Incarnation]]:
        """Whom the configurations up to there list."""
        through = [configuration for first, configuration in self._stack if first <= index]
        return {(member.id, member.incarnation) for listing in through for member in listing.members().values()}

    def _take_effect(self) -> None:
        self.voter_sets: tuple[frozenset[NodeId], ...] = self.current.voter_sets()
        self.members: dict[NodeId, Member] = self.current.members()
        self.voters: tuple[NodeId, ...] = self.current.voters()


# ------------------------------------------------------------------------------ what a change comes to


def in_order(membership: Membership) -> Membership:
    """The same, sorted by id."""
    return Membership(
        tuple(sorted(membership.voters)),
        tuple(sorted(membership.learners, key=lambda learner: learner.member)),
        tuple(sorted(membership.leaving)),
        tuple(sorted(membership.demoted)),
    )


def joining(membership: Membership) -> tuple[NodeId, ...]:
    """The learners that are to vote, in order of id."""
    return tuple(learner.member.id for learner in membership.learners if learner.intent is Intent.VOTER)


def learners_first(current: Membership, target: Membership, *, deadline_ms: int | None) -> Membership:
    """As ``current``, and who is to vote listens first; what else ``target`` says waits until they have caught up."""
    wanted = {member.id: member for member in target.members()}
    voting = {member.id for member in target.voters}
    voters = tuple(wanted.get(member.id, member) for member in current.voters)
    known = {member.id for member in current.voters}
    learners = []
    for learner in current.learners:
        member = wanted.get(learner.member.id, learner.member)
        known.add(member.id)
        to_vote = member.id in voting
        learners.append(
            Learner(member, Intent.VOTER, deadline_ms, stays=True) if to_vote else replace(learner, member=member)
        )
    for member in target.members():
        if member.id not in known:
            learners.append(Learner(member, Intent.VOTER if member.id in voting else Intent.LEARNER, deadline_ms))
    return in_order(
        Membership(
            voters,
            tuple(learners),
            leaving=tuple(id for id in known if id not in wanted),
            demoted=tuple(member.id for member in current.voters if member.id in wanted and member.id not in voting),
        )
    )


def when_caught_up(membership: Membership) -> Membership:
    """What the change was for: learners that are to vote do, who is to leave has left."""
    leaving, demoted = set(membership.leaving), set(membership.demoted)
    voters = [member for member in membership.voters if member.id not in leaving | demoted]
    learners = [Learner(member, Intent.LEARNER, None) for member in membership.voters if member.id in demoted]
    for learner in membership.learners:
        if learner.intent is Intent.VOTER:
            voters.append(learner.member)
        elif learner.member.id not in leaving:
            learners.append(Learner(learner.member, Intent.LEARNER, None))
    return in_order(Membership(tuple(voters), tuple(learners)))


def given_up(membership: Membership) -> Membership:
    """As before the change; addresses alone stay as they were told with it."""
    learners = [
        Learner(learner.member, Intent.LEARNER, None)
        for learner in membership.learners
        if learner.stays or (learner.intent is Intent.LEARNER and learner.deadline_ms is None)
    ]
    return in_order(Membership(membership.voters, tuple(learners)))


def called_off(membership: Membership, node: NodeId) -> Membership:
    """As before the change that was to make ``node`` a voter, and without it, also if it was a learner before."""
    before = given_up(membership)
    return replace(before, learners=tuple(learner for learner in before.learners if learner.member.id != node))


def votes_are_lost(current: Membership, target: Membership) -> bool:
    """Whether somebody who votes will not."""
    return not {member.id for member in current.voters} <= {member.id for member in target.voters}


def outcome(configuration: Configuration) -> Membership:
    """What the members are when the change that runs is over, or now if none runs."""
    return configuration.current if configuration.is_joint else when_caught_up(configuration.current)


def deadline_ms(membership: Membership) -> int | None:
    """Cluster time by which those that join must have caught up; None: whenever."""
    deadlines = [
        learner.deadline_ms
        for learner in membership.learners
        if learner.intent is Intent.VOTER and learner.deadline_ms is not None
    ]
    return min(deadlines, default=None)


def problem_with(current: Membership, target: Membership) -> str | None:
    """Why these can never be the members, or not after the present ones in one change; None: they can be."""
    if not target.voters:
        return "nobody would vote"
    plain = all(learner == Learner(learner.member, Intent.LEARNER, None) for learner in target.learners)
    if target.leaving or target.demoted or not plain:
        return "who is to vote is listed as a voter, and who is to leave is not listed"
    members = target.members()
    for what in ("id", "incarnation", "url"):
        values = [getattr(member, what) for member in members]
        twice = sorted({member.id for member in members if values.count(getattr(member, what)) > 1})
        if twice:
            return f"{' and '.join(twice)} {'is listed twice' if what == 'id' else f'have one {what}'}"
    known = {member.id: member.incarnation for member in current.members()}
    for member in members:
        if len(member.incarnation) != ID_BYTES:
            return f"{member.id} has not said who it is"
        if known.get(member.id, member.incarnation) != member.incarnation:
            return f"another {member.id} is a member: remove that one first, then add this one"
    return None
