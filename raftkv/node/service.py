"""The node as the API sees it: the replica once there is one, and before that a node that knows no leader."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Final

from raftkv import __version__
from raftkv.api.reports import Diagnostics
from raftkv.api.service import Health, MembersChange, MemberStatus, Status, Unready
from raftkv.core.raft import Raft
from raftkv.core.types import ClusterId, NodeId, Role
from raftkv.kv.machine import KeyValueMachine
from raftkv.kv.queries import Revision
from raftkv.members import MembersDone, MembersRefused, MembersWhy, Terms, Wish
from raftkv.node.backups import BackupDone, Backups
from raftkv.node.clock import now_us
from raftkv.node.members import Members
from raftkv.outcomes import (
    Consistency,
    Leadership,
    Refused,
    SnapshotOutcome,
    SnapshotRefused,
    SnapshotWhy,
    TransferOutcome,
    TransferRefused,
    TransferWhy,
    Why,
)
from raftkv.replica import Replica
from raftkv.state_machine import StateMachine
from raftkv.waiting import ReadDone, WriteDone

_STALENESS_READY_US_MAX: Final = 2_000_000
"""A node that lags further behind its leader gets no traffic from a load balancer."""
_NOBODY: Final = Leadership(leads=False, term=0, leader_id=None, leader_url=None)


class NodeService:
    """Satisfies ``raftkv.api.service.Service``."""

    def __init__(
        self,
        node_id: NodeId,
        machine: StateMachine,
        *,
        has_work: Callable[[], None],
        why_not_formed: Callable[[], str],
    ) -> None:
        """``has_work`` is called when something was enqueued."""
        self.replica: Replica | None = None
        self.cluster_id: ClusterId | None = None
        self.log_bytes: Callable[[], int] | None = None
        self.diagnose: Callable[[], Diagnostics]
        """Set by whoever runs the node, before anybody can ask."""
        self.failure: str | None = None
        self.members: Members
        """The same."""
        self.disk_trouble: Callable[[], str | None] = lambda: None
        """Why the disk makes this node useless; None: it does not."""
        self.backups: Backups | None = None
        """None: this node takes no part yet."""
        self.stopping = False
        self._node_id, self._machine = node_id, machine
        self._began_us = now_us()
        self._has_work, self._why_not_formed = has_work, why_not_formed

    def leadership(self) -> Leadership:
        """Who leads, as this node knows it now."""
        return _NOBODY if self.replica is None else self.replica.leadership()

    def submit(self, command: bytes, done: WriteDone, *, frees_space: bool = False) -> None:
        """Into the next proposal."""
        if self.replica is None:
            done(Refused(Why.NOT_LEADER, _NOBODY))
            return
        self.replica.submit(command, done, frees_space=frees_space)
        self._has_work()

    def read(
        self,
        query: object,
        consistency: Consistency,
        done: ReadDone,
        *,
        min_index: int = 0,
        max_staleness_ms: int | None = None,
    ) -> None:
        """Into the next read round."""
        if self.replica is None:
            done(Refused(Why.NOT_LEADER, _NOBODY))
            return
        self.replica.read(query, consistency, done, min_index=min_index, max_staleness_ms=max_staleness_ms)
        self._has_work()

    def transfer_leadership(self, target: str | None, done: Callable[[TransferOutcome], None]) -> None:
        """Has that voter lead; None: the best placed."""
        if self.replica is None:
            done(TransferRefused(TransferWhy.NOT_LEADER))
            return
        self.replica.transfer_leadership(None if target is None else NodeId(target), done)
        self._has_work()

    def take_snapshot(self, done: Callable[[SnapshotOutcome], None], *, wait_ms: int) -> None:
        """Of everything that is applied here now."""
        if self.stopping or self.failure is not None:
            done(SnapshotRefused(SnapshotWhy.SHUTTING_DOWN, "this node is stopping"))
            return
        if self.replica is None:
            done(SnapshotRefused(SnapshotWhy.NOTHING_APPLIED, self._why_not_formed()))
            return
        self.replica.snapshots.ask(done, wait_us=wait_ms * 1000)
        self._has_work()

    def open_backup(self, done: BackupDone, *, wait_ms: int) -> None:
        """Of everything that is acknowledged by now."""
        if self.backups is None:
            done(Refused(Why.NOT_LEADER, _NOBODY))
        elif self.stopping:
            done(Refused(Why.SHUTTING_DOWN, self.leadership()))
        else:
            self.backups.open(done, wait_ms=wait_ms)

    def change_members(self, wish: Wish, terms: Terms, done: MembersDone) -> None:
        """Has the members be as wished."""
        if self.stopping:
            done(MembersRefused(MembersWhy.SHUTTING_DOWN, "this node is stopping; ask another one"))
        else:
            self.members.change(wish, terms, done)

    def new_session_id(self) -> bytes:
        """16 random bytes."""
        return secrets.token_bytes(16)

    def status(self) -> Status:
        """This node as it is now."""
        replica = self.replica
        uptime_ms = (now_us() - self._began_us) // 1000
        if replica is None:
            return Status(
                id=self._node_id,
                cluster_id=self.cluster_id,
                role=Role.FOLLOWER.value,
                term=0,
                leader_id=None,
                leader_url=None,
                commit_index=0,
                applied_index=0,
                last_index=0,
                snapshot_index=0,
                log_bytes=None,
                revision=self._revision(),
                state_hash=None,
                version=__version__,
                uptime_ms=uptime_ms,
                health=Health(self.dead_because(), self.unready()),
            )
        raft = replica.raft
        leadership = replica.leadership()
        return Status(
            id=self._node_id,
            cluster_id=self.cluster_id,
            role=raft.role.value,
            term=raft.term,
            leader_id=leadership.leader_id,
            leader_url=leadership.leader_url,
            commit_index=raft.commit_index,
            applied_index=raft.applied_index,
            last_index=raft.last_index,
            snapshot_index=replica.snapshots.index,
            log_bytes=None if self.log_bytes is None else self.log_bytes(),
            revision=self._revision(),
            state_hash=None if replica.snapshots.is_loading else self._machine.state_hash(),
            version=__version__,
            uptime_ms=uptime_ms,
            voters=tuple(MemberStatus(*self._member(replica, voter)) for voter in raft.state.configurations.voters),
            learners=tuple(
                MemberStatus(*self._member(replica, learner.member.id))
                for learner in raft.configuration.current.learners
            ),
            configuration_index=raft.state.configurations.current_index,
            change=_change(raft),
            removed_at=raft.removed_at,
            health=Health(self.dead_because(), self.unready()),
        )

    def diagnostics(self) -> Diagnostics:
        """All that this node knows of its own troubles."""
        return self.diagnose()

    def _revision(self) -> int | None:
        """The store's; other machines have none, and none has one while another state takes its place."""
        if self.replica is not None and self.replica.snapshots.is_loading:
            return None
        return self._machine.query(Revision()) if isinstance(self._machine, KeyValueMachine) else None

    def _member(self, replica: Replica, member: NodeId) -> tuple[str, str | None, int | None, int | None]:
        """Id, URL, match index, time since its last contact; the latter two only the leader knows."""
        state = replica.raft.state
        url = replica.client_url_of(state.configurations.members[member])
        office = state.office
        if office is None:
            return member, url, None, None
        if member == state.me.id:
            return member, url, replica.raft.durable_index, 0
        progress = office.progress.get(member)
        if progress is None:
            return member, url, None, None
        contact_ms = (now_us() - progress.last_contact_us) // 1000 if progress.has_answered else None
        return member, url, progress.match_index, contact_ms

    def dead_because(self) -> str | None:
        """Why this node can do no work at all, so that it should be started anew; None: it can.

        No majority, no leader, a cluster that is not formed, a full disk: starting anew mends none of these.
        """
        return self.failure or self.disk_trouble()

    def unready(self) -> tuple[tuple[Unready, str], ...]:
        """Why this node should get no traffic, the gravest reason first; nothing: it is ready."""
        replica = self.replica
        if self.stopping:
            return ((Unready.SHUTTING_DOWN, "this node is stopping"),)
        if self.failure is not None:
            return ((Unready.SHUTTING_DOWN, f"this node has halted: {self.failure}"),)
        trouble = self.disk_trouble()
        if trouble is not None:
            return ((Unready.SHUTTING_DOWN, f"this node has to be started anew: {trouble}"),)
        if replica is None:
            return ((Unready.NO_LEADER, self._why_not_formed()),)
        if replica.raft.disagrees_at is not None:
            where = f"this node's state differs from the majority's at log index {replica.raft.disagrees_at}"
            mend = "start it again, and it is built anew from its snapshot and the log"
            last = f"if that comes to the same, run raftkv member replace {self._node_id}"
            return ((Unready.REPLICAS_DISAGREE, f"{where}; {mend}; {last}"),)
        if replica.snapshots.is_loading:
            return ((Unready.CATCHING_UP, "this node is loading the snapshot that its leader has sent"),)
        if replica.raft.removed_at is not None:
            return ((Unready.NO_LEADER, "this node was removed from the cluster, and knows no leader any more"),)
        leadership = replica.leadership()
        if leadership.leader_id is None:
            return ((Unready.NO_LEADER, "no leader is known in this term"),)
        staleness_us = replica.raft.state.staleness_us
        if staleness_us is None or staleness_us > _STALENESS_READY_US_MAX:
            return ((Unready.CATCHING_UP, "this node has not yet applied what its leader has committed"),)
        return ()


def _change(raft: Raft) -> MembersChange | None:
    """The change of members that is running, as this node sees it."""
    status = raft.change_status
    if status is None:
        return None
    match = dict(status.match)
    remaining_ms = None if status.deadline_ms is None else max(0, status.deadline_ms - raft.cluster_time_ms)
    return MembersChange(
        phase=status.phase.value,
        joining=tuple((id, match.get(id)) for id in status.joining),
        leaving=status.leaving,
        demoted=status.demoted,
        remaining_ms=remaining_ms,
        last_index=raft.last_index,
    )
