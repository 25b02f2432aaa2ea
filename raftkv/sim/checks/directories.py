"""What nodes that keep files promise of them, and of who belongs to the cluster, checked whenever they say it.

Told: what a start found in a log, what was read back, who formed which cluster, who ended and why. Tells: Violated,
with the property's name.
"""

from __future__ import annotations

from raftkv.core.effects import LogRead
from raftkv.core.messages import Envelope
from raftkv.core.types import ClusterId, Configuration
from raftkv.errors import DataDamaged, DiskFailed
from raftkv.replica import Work
from raftkv.sim.checks.invariants import Violated
from raftkv.sim.world.cluster import STRANGERS_TERM, VirtualCluster, Watcher
from raftkv.sim.world.node import VirtualNode
from raftkv.sim.world.shadow import Shadow
from raftkv.sim.world.wal_disk import WalDisk
from raftkv.sim.world.watching import Recovery
from raftkv.storage.recovery import Recovered


class Directories(Watcher):
    """Watches a cluster whose nodes keep files."""

    def __init__(self, cluster: VirtualCluster) -> None:
        self.cluster = cluster
        self.recoveries = 0
        self._cluster_id: ClusterId | None = None
        self._members: Configuration | None = None

    def recovered(self, node: VirtualNode, found: Recovery) -> None:
        """What was promised is there, and nothing that was not submitted; said twice, it is said alike."""
        self.recoveries += 1
        snapshot = None if found.said.snapshot is None else found.said.snapshot.meta.base
        for durable in found.admissible:
            state = durable.joined_with(snapshot)
            if state.base.index < found.said.base.index <= node.disk.trimmed_through:
                state.trim(found.said.base.index)
            if _is_same(state, found):
                self._says_it_alike(node, state, found.said)
                return
        seen = f"term {found.said.term}, vote {found.said.voted_for}, log to {found.said.last_index}"
        raise Violated("recovery tells the truth", f"{node.id} found {seen}; {_admitted(found)} may be there")

    def _says_it_alike(self, node: VirtualNode, state: Shadow, said: Recovered) -> None:
        expected = state.saved()
        first = state.base.index + 1
        end = state.base.index + len(state.frames)
        facts = (list(said.term_runs), list(said.configurations), said.last_index, list(said.tail), said.base)
        tail = state.frames[said.tail_first - first :]
        if facts != (list(expected.term_runs), list(expected.configurations), end, tail, state.base):
            raise Violated("recovery tells the truth", f"{node.id}'s log and what is said of it differ: {said}")

    def was_read(self, node: VirtualNode, read: LogRead, frames: list[bytes]) -> None:
        """What is read back is what was written."""
        if frames != node.disk.read(read) and (frames or read.first > node.disk.trimmed_through):
            raise Violated("a log reads back as written", f"{node.id}: {read}")

    def formed(self, node: VirtualNode, cluster_id: ClusterId) -> None:
        """Faults 31: no second cluster forms over the remains of the first, and nobody takes part in another life."""
        assert isinstance(node.disk, WalDisk)
        stored = node.disk.stored()
        assert stored is not None
        if self._members is None:
            self._cluster_id, self._members = cluster_id, stored.initial_configuration
        if cluster_id != self._cluster_id:
            raise Violated("one cluster id", f"{node.id} is of cluster {cluster_id!r}, others of {self._cluster_id!r}")
        assert self._members is not None
        member = self._members.members().get(node.id)
        if member is not None and member.incarnation != stored.incarnation and not node.joins:
            raise Violated("an emptied node takes no part", f"{node.id} is another than the one of this cluster")

    def refused_to_start(self, node: VirtualNode, error: Exception) -> None:
        """Whoever wrote a directory alone can use it; only what was spoiled is refused, and by its name."""
        assert isinstance(node.disk, WalDisk)
        if not node.disk.is_spoiled:
            raise Violated("what was stored can be used", f"{node.id}: {error}")
        if not isinstance(error, DataDamaged):
            raise Violated("damage is called by its name", f"{node.id}: {error!r}")

    def halted(self, node: VirtualNode, error: BaseException) -> None:
        """Nodes end for what their disks do to them, and for nothing else."""
        if not isinstance(error, (DiskFailed, DataDamaged)):
            raise error

    def room_is_short(self, node: VirtualNode, *, short: bool) -> None:
        """Faults 56: from the moment that it is told, a node whose disk is full takes nothing that needs room."""
        if short:
            self._takes_no_puts(node)

    def stepped(self, node: VirtualNode, work: Work) -> None:
        """Also later; and no term comes from somebody who is no member (faults 19, 32)."""
        if node.raft.term >= STRANGERS_TERM:
            raise Violated("strangers move no term", f"{node.id} is in term {node.raft.term}")
        if isinstance(node.disk, WalDisk) and node.disk.is_open and node.running.disk_is_short:
            self._takes_no_puts(node)

    def _takes_no_puts(self, node: VirtualNode) -> None:
        answers: list[object] = []
        node.running.submit(b"", answers.append)
        if not answers:
            raise Violated("a full disk takes no puts", node.id)

    def answered_a_stranger(self, node: VirtualNode, stranger: Envelope, reply: Envelope) -> None:
        """Faults 32"""
        raise Violated("strangers are refused", f"{node.id} answers {stranger} with {reply}")


def nobody_forms(cluster: VirtualCluster) -> None:
    """A cluster that will never form: data was lost while it formed, and everybody says what is wrong, or waits."""
    emptied = [node for node in cluster.nodes.values() if isinstance(node.disk, WalDisk) and node.disk.wipes]
    if not emptied:
        raise Violated("a cluster forms", "; ".join(f"{node.id}: {node.waits_for}" for node in cluster.nodes.values()))
    if not any(node.forming is not None and node.forming.problem for node in cluster.nodes.values()):
        raise Violated("who cannot form a cluster says why", f"{[node.id for node in emptied]} were emptied")


def the_lost_are_known(cluster: VirtualCluster) -> None:
    """Whoever came back with an empty directory takes no part, and tells the operator what to do (faults 31)."""
    sound = cluster.sound_nodes()
    for node in cluster.nodes.values():
        if node in sound or node.disk.is_lost or node.joins or node.id in cluster.plan.spares:
            continue
        if node.is_up:
            raise Violated("an emptied node takes no part", node.id)
        told = (node.forming is not None and node.forming.problem) or ""
        if "data is gone" not in told:
            raise Violated("an emptied node says so", f"{node.id} says {told!r} and waits: {node.waits_for}")


def _is_same(state: Shadow, found: Recovery) -> bool:
    said = found.said
    return (
        state.vote == (said.term, said.voted_for)
        and (state.base.index, state.base.term) == (said.base.index, said.base.term)
        and state.frames == found.frames
    )


def _admitted(found: Recovery) -> str:
    shown = (f"{state.vote} with a log to {state.base.index + len(state.frames)}" for state in found.admissible)
    return " or ".join(shown)
