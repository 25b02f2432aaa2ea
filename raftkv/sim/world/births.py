"""How nodes with directories of their own come to take part: identity, introductions, log, as in a real process.

Told: whose process begins, and what the network brings before Raft does. Tells: when a node takes part, or why it
never will in this life. The order of things is that of ``node/running.py``: nothing is said that is not stored, the log
is opened when the cluster is formed, and whoever does not take part yet refuses Raft's messages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Final, Protocol

from raftkv.beginning import raft_of
from raftkv.core.messages import Envelope, Introduction
from raftkv.core.raft import Raft
from raftkv.core.types import NodeId
from raftkv.errors import DataError, DiskFailed
from raftkv.forming import Forming, FormingPlan, FormingShell
from raftkv.sim.world.disks import Disks
from raftkv.sim.world.network import Network
from raftkv.sim.world.node import VirtualNode
from raftkv.sim.world.snapshot_files import open_snapshots
from raftkv.sim.world.wal_disk import WalDisk
from raftkv.sim.world.watching import Watcher
from raftkv.storage.snapshots import Snapshots, StoredSnapshot
from raftkv.transport import codec

_TRIED_AGAIN_US: Final = 150_000


class World(Protocol):
    """What nodes are born into."""

    @property
    def now_us(self) -> int:
        """The time."""
        ...

    @property
    def rng(self) -> Random:
        """Draws how long things take."""
        ...

    @property
    def disks(self) -> Disks:
        """All disks."""
        ...

    @property
    def network(self) -> Network:
        """What carries introductions."""
        ...

    @property
    def nodes(self) -> dict[NodeId, VirtualNode]:
        """All nodes."""
        ...

    @property
    def watchers(self) -> Sequence[Watcher]:
        """Who is told."""
        ...

    def after(self, delay_us: int, act: Callable[[], None]) -> None:
        """Has ``act`` called that much later."""
        ...

    def happens(self, node: VirtualNode, act: Callable[[], None]) -> None:
        """In the node's process: now, or as soon as it is continued."""
        ...

    def halt(self, node: VirtualNode, error: BaseException) -> None:
        """The node ends itself."""
        ...

    def take_part(self, node: VirtualNode, raft: Raft, snapshots: Snapshots, restored: StoredSnapshot | None) -> None:
        """The node is a member of Raft from now on."""
        ...


def url_of(name: str) -> str:
    """Where a virtual node is reached."""
    return f"http://{name}"


class Births:
    """Brings nodes into their cluster."""

    def __init__(self, world: World, listed: Sequence[str]) -> None:
        """``listed`` are the members of --initial-cluster."""
        self._world = world
        self._initial_cluster = [(NodeId(name), url_of(name)) for name in listed]
        self._introducing: dict[NodeId, int] = {}
        """In which life each node is about to introduce itself."""

    def begin(self, node: VirtualNode) -> None:
        """The process has begun; it reads whose directory this is."""
        self._guarded(node, lambda: self._identify(node))

    def hear(self, node: VirtualNode, request: Envelope) -> None:
        """A message of Raft came to a node that does not take part yet; it is refused in any case."""
        forming = node.forming
        if forming is None:
            return
        if forming.joins:
            self._guarded(node, lambda: forming.was_named(request.cluster_id, request.receiver_incarnation))
        elif forming.cluster_id is not None and request.cluster_id == forming.cluster_id:
            self._guarded(node, forming.heard_of_formation)

    # ----------------------------------------------------------------------------------- one life

    def _identify(self, node: VirtualNode) -> None:
        disk, process = node.disk, node.process
        assert isinstance(disk, WalDisk)
        assert process is not None
        shell = FormingShell(
            introduce_again=lambda: self._introduce_soon(node),
            formed=lambda: self._world.disks.open(node, lambda: self._guarded(node, lambda: self._open_log(node))),
            waits=lambda why: setattr(node, "waits_for", why),
            failed=lambda error: self._world.halt(node, error),
        )
        joins = node.joins or node.id not in dict(self._initial_cluster)
        plan = FormingPlan(node.id, url_of(node.id), None, () if joins else self._initial_cluster, joins=joins)
        node.forming = Forming(plan, disk.open_identity(), process, shell)
        node.forming.start()

    def _open_log(self, node: VirtualNode) -> None:
        disk, forming = node.disk, node.forming
        assert isinstance(disk, WalDisk)
        assert forming is not None
        identity = forming.identity.identity
        assert identity.cluster_id is not None
        snapshots = open_snapshots(disk.directory, identity.cluster_id)
        found = disk.open_log(snapshots, tail_bytes_max=node.raft_settings.log_kept_bytes)
        for watcher in self._world.watchers:
            watcher.recovered(node, found)
            watcher.formed(node, identity.cluster_id)
        raft = raft_of(identity, found.said, node.raft_settings, Random(self._world.rng.randrange(2**32)))
        self._world.take_part(node, raft, snapshots, found.said.snapshot)
        self._world.disks.begin(node)

    def _guarded(self, node: VirtualNode, act: Callable[[], None]) -> None:
        """A directory that cannot be used, or a disk that fails, ends the node."""

        def tried() -> None:
            try:
                act()
            except DiskFailed:
                raise
            except DataError as error:
                node.disk.is_lost = True
                for watcher in self._world.watchers:
                    watcher.refused_to_start(node, error)
                self._world.halt(node, error)

        self._world.disks.do(node, tried)

    # ------------------------------------------------------------------------------ introductions

    def _introduce_soon(self, node: VirtualNode) -> None:
        """All that changed at once is said once."""
        if self._introducing.get(node.id) == node.life:
            return
        self._introducing[node.id] = life = node.life

        def introduce() -> None:
            self._introducing.pop(node.id, None)
            if node.life == life and node.forming is not None:
                for other, _ in node.forming.others():
                    self._say(node, node.forming.introduction(), other, wants_reply=True)

        self._world.after(0, introduce)

    def _say(self, node: VirtualNode, said: Introduction, other: NodeId, *, wants_reply: bool) -> None:
        packed, now_us = codec.encode_introduction(said), self._world.now_us
        arrivals_us = self._world.network.arrivals_us(node.id, other, now_us=now_us)
        for arrival_us in arrivals_us:
            self._world.after(arrival_us - now_us, lambda: self._arrive(other, packed, wants_reply=wants_reply))
        if wants_reply and not arrivals_us:
            self._say_again(node, other)

    def _say_again(self, node: VirtualNode, other: NodeId) -> None:
        """A link that cannot be opened is tried again and again."""
        forming = node.forming

        def again() -> None:
            if forming is not None and node.forming is forming:
                self._say(node, forming.introduction(), other, wants_reply=True)

        self._world.after(_TRIED_AGAIN_US, again)

    def _arrive(self, name: NodeId, packed: bytes, *, wants_reply: bool) -> None:
        node = self._world.nodes[name]
        if node.runs:
            said = codec.decode_introduction(packed)
            self._world.happens(node, lambda: self._guarded(node, lambda: self._hear(node, said, wants_reply)))

    def _hear(self, node: VirtualNode, said: Introduction, wants_reply: bool) -> None:
        forming = node.forming
        if forming is None:
            return
        if node.replica is None:
            forming.hear(said)
        else:
            self._judge(node, said)
        if wants_reply and node.forming is forming:
            self._say(node, forming.introduction(), said.sender, wants_reply=False)

    def _judge(self, node: VirtualNode, said: Introduction) -> None:
        """Somebody who says that he is a member may be another incarnation."""
        member = node.raft.state.configurations.members.get(said.sender)
        if member is None or said.sender == node.id:
            return
        if member.incarnation == said.incarnation:
            node.complaints.pop(said.sender, None)
        else:
            node.complaints[said.sender] = f"{said.sender}'s data is gone; run raftkv member replace {said.sender}"
