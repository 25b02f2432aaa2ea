"""What those who ask a node for something else than reads and writes are told: transfers, members, snapshots.

Told: who asks whom for what, then the outcome. Tells: Violated, where the cluster is not as the asker was told.
"""

from __future__ import annotations

from collections.abc import Callable

from raftkv.core import membership
from raftkv.core.types import Configuration, Index, Intent, NodeId, Role
from raftkv.members import (
    Add,
    Alter,
    Become,
    MembersAre,
    MembersDone,
    MembersOutcome,
    MembersRefused,
    MembersWhy,
    StillChanging,
    Terms,
    Wish,
)
from raftkv.outcomes import Leadership, SnapshotOutcome, SnapshotTaken, TransferOutcome, Transferred
from raftkv.sim.checks.invariants import Invariants
from raftkv.sim.checks.violated import Violated
from raftkv.sim.world.node import VirtualNode
from raftkv.snapshotting import SnapshotDone

_HAS_COME_TO_NOTHING = (MembersWhy.CATCH_UP_FAILED, MembersWhy.CALLED_OFF)


class Told:
    """Judges what one cluster's nodes say."""

    def __init__(self, invariants: Invariants) -> None:
        self._invariants = invariants
        self.judged = 0

    # ------------------------------------------------------------------------------------- transfers

    def transferred(self, node: VirtualNode) -> Callable[[TransferOutcome], None]:
        """For whoever asks that node to hand over: who is said to lead led that term."""

        def done(outcome: TransferOutcome) -> None:
            self.judged += 1
            if isinstance(outcome, Transferred):
                self._after(node, lambda: self._leads(outcome.leader_id, outcome.term))

        return done

    def _after(self, node: VirtualNode, judge: Callable[[], None]) -> None:
        """When the turn in which it was said has been looked at."""
        self._invariants.electorate.judge_after_turn(node.id, judge)

    def _leads(self, leader: str | None, term: int) -> None:
        known = self._invariants.leader_of(term)
        if leader is not None and leader != known:
            raise Violated("who is said to lead leads", f"{leader} in term {term}, which {known or 'nobody'} led")

    # --------------------------------------------------------------------------------------- members

    def members(self, node: VirtualNode, wish: Wish, terms: Terms) -> MembersDone:
        """For whoever asks that node: what he is told is what is committed there."""
        asked_at = node.raft.commit_index
        forced = self._invariants.electorate.is_forced_at(node.id) if terms.force else None

        def done(outcome: MembersOutcome) -> None:
            self.judged += 1
            if forced is not None:
                forced.is_over = True
            commit = node.raft.commit_index
            match outcome:
                case MembersAre():
                    self._after(node, lambda: self._are(node, wish, asked_at, commit))
                case StillChanging():
                    self._is_still_changing(node, wish)
                case MembersRefused():
                    self._after(node, lambda: self._are_not(node, wish, outcome, asked_at, commit))

        return done

    def _are(self, node: VirtualNode, wish: Wish, asked_at: int, commit: int) -> None:
        """They were at some time since it was asked: they may have been changed again before this node knew."""
        before = self._committed(asked_at)
        known = self._invariants.electorate.committed_configurations()
        since = [one for index, one in known if asked_at < index <= commit] + ([] if before is None else [before])
        if not any(_is_granted(wish, one) for one in since):
            raise Violated("members are as was said", f"{node.id} says so to {wish}, committed is {since}")

    def _is_still_changing(self, node: VirtualNode, wish: Wish) -> None:
        """A leader says so of what it is at, and of nothing else that goes on."""
        raft = node.raft
        if raft.role is not Role.LEADER:
            raise Violated("a change that goes on goes on", f"{node.id} does not lead")
        if raft.change_status is None and raft.state.configuration_is_committed:
            raise Violated("a change that goes on goes on", f"{node.id} waits for nothing")
        if not _is_granted(wish, Configuration(membership.outcome(raft.configuration))):
            raise Violated("a change that goes on goes on", f"{node.id} says so to {wish}, at {raft.configuration}")

    def _are_not(self, node: VirtualNode, wish: Wish, outcome: MembersRefused, asked_at: int, commit: int) -> None:
        led: Leadership | None = outcome.leadership
        if led is not None:
            self._leads(led.leader_id, led.term)
        has_come_to_nothing = outcome.why in _HAS_COME_TO_NOTHING and isinstance(wish, Add) and wish.votes
        if has_come_to_nothing and isinstance(wish, Add):
            id = wish.member.id
            if id in self._voters(commit) and id not in self._voters(asked_at):
                raise Violated("members are as was said", f"{node.id}: {outcome}, but it votes")

    def _voters(self, commit: int) -> list[NodeId]:
        committed = self._committed(commit)
        return [] if committed is None else [member.id for member in committed.current.voters]

    def _committed(self, commit: int) -> Configuration | None:
        """The newest of what is committed up to there; None: that with which the cluster began."""
        known = self._invariants.electorate.committed_configurations()
        return next((one for index, one in reversed(known) if index <= commit), None)

    # ------------------------------------------------------------------------------------- snapshots

    def snapshot(self, node: VirtualNode) -> SnapshotDone:
        """For whoever asks that node for a snapshot of what it has applied by now."""
        need, life = node.raft.applied_index, node.life

        def done(outcome: SnapshotOutcome) -> None:
            self.judged += 1
            if isinstance(outcome, SnapshotTaken) and node.life == life:
                self._is_in_place(node, need, outcome)

        return done

    @staticmethod
    def _is_in_place(node: VirtualNode, need: Index, outcome: SnapshotTaken) -> None:
        newest = None if node.files is None else node.files.snapshots.newest
        in_place = 0 if newest is None else newest.id.index
        if outcome.index < need or in_place < outcome.index:
            raise Violated(
                "a snapshot is of what was applied", f"{node.id}: {outcome}, asked at {need}, has {in_place}"
            )


def _is_granted(wish: Wish, committed: Configuration) -> bool:
    """Whether these are members with these votes as was wished, and no change is on its way."""
    members = committed.current
    if committed.is_joint or any(learner.intent is Intent.VOTER for learner in members.learners):
        return False
    roles = {member.id: True for member in members.voters} | {one.member.id: False for one in members.learners}
    match wish:
        case Add(member, votes):
            return roles.get(NodeId(member.id)) == votes
        case Alter(id, votes):
            return NodeId(id) in roles and votes in (None, roles[NodeId(id)])
        case Become(voters, learners):
            return roles == {NodeId(one.id): True for one in voters} | {NodeId(one.id): False for one in learners}
    return NodeId(wish.id) not in roles
