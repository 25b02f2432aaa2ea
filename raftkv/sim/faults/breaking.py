"""Whoever breaks things in a cluster, and the table of all that can break.

**To add a kind of fault**, write one function under ``@kind`` in links.py, processes.py, disks.py or members.py. It is
given a ``Faults``: it breaks something in ``faults.cluster``, at ``faults.victim()`` if that is a node, draws from
``faults.rng`` alone, and says with ``faults.for_a_while(undo)`` how it ends: after a while, or when faults stop. That
is all: runs draw it from now on, stories tell it by its name, a profile may name it. One that needs nodes whose logs
are files stands under ``@kind_of_files``; other runs do not draw it. When it has ended everything must work again,
unless ``may_lose`` has allowed that it does not. A run has some seconds of faults and some of calm: what a fault would
bring about later than that never comes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random
from typing import Final

from raftkv.core.types import Incarnation, NodeId
from raftkv.sim.checks.invariants import Invariants
from raftkv.sim.checks.told import Told
from raftkv.sim.faults.profile import CALM, Profile
from raftkv.sim.world.cluster import DiskFaults, VirtualCluster
from raftkv.sim.world.node import Clock, VirtualNode
from raftkv.sim.world.wal_disk import WalDisk

CLOCKS_PER_MILLE: Final = (900, 1000, 1000, 1100)
_FORMING_US: Final = 2_000_000
"""Where there is trouble with it, a cluster takes about so long to form; else some milliseconds."""
_RESTART_US_MAX: Final = 1_500_000


class Faults:
    """Breaks things in a cluster, one after the other, until it is told to stop."""

    def __init__(self, cluster: VirtualCluster, profile: Profile, rng: Random) -> None:
        """Whoever watches the cluster already judges what nodes say to those who ask them for something."""
        self.cluster, self.profile, self.rng = cluster, profile, rng
        watching = [watcher for watcher in cluster.watchers if isinstance(watcher, Invariants)]
        self.told = Told(watching[0] if watching else Invariants(cluster))
        self.stopped = False
        self.count = 0
        self._partitions = 0
        self._open: dict[int, Callable[[], None]] = {}
        """What is broken for a while, by the fault's number: how it is undone."""
        self._opened = 0
        cluster.when_it_ends = self._start_again
        if profile.clocks_differ:
            for node in cluster.nodes.values():
                up_s = rng.randrange(10**9)
                node.clock = Clock(offset_us=up_s * 1_000_000, per_mille=rng.choice(CLOCKS_PER_MILLE))

    def start(self) -> None:
        """The first fault will come; in some runs several while the cluster is still forming."""
        if not self.profile.kinds:
            return
        if self.profile.segment_bytes and self.rng.randrange(3) == 0:
            self._trouble_forming()
        self._next()

    def stop(self) -> None:
        """Everything works again: links, weather, disks, processes."""
        self.stopped = True
        cluster = self.cluster
        for node in cluster.nodes.values():
            if isinstance(node.disk, WalDisk):
                node.disk.mend()
        for number in list(self._open):
            self._undo(number)
        cluster.network.heal_all()
        cluster.network.faults = CALM
        cluster.plan.disk = DiskFaults()
        for name, node in cluster.nodes.items():
            cluster.slow_disk_down(name, 1)
            cluster.let_disk_go(name)
            cluster.stall(name, 0)
            cluster.resume(name)
            self.start_node(node)

    # ------------------------------------------------------------------------------- what kinds are given

    def victim(self) -> VirtualNode:
        """Whom this run aims at, else the leader as often as anybody."""
        leader = self.cluster.leader()
        if self.profile.aim is not None:
            return self.cluster.nodes[NodeId(self.profile.aim)]
        if leader is not None and self.rng.randrange(2):
            return leader
        return self.cluster.nodes[self.rng.choice(list(self.cluster.nodes))]

    def for_a_while(self, undo: Callable[[], None], *, at_most_us: int = 2_500_000) -> None:
        """``undo`` is called once: some time later, or when everything is mended."""
        self._opened += 1
        number = self._opened
        self._open[number] = undo
        self.later(self.rng.randrange(5_000, at_most_us), lambda: self._undo(number))

    def later(self, delay_us: int, act: Callable[[], None]) -> None:
        """``act`` is called so much later, unless everything was mended before."""
        self.cluster.after(delay_us, lambda: None if self.stopped else act())

    def crash(self, node: VirtualNode, *, power_fails: bool = False) -> bool:
        """Whether it ran; it is down now, and starts again some time later, or at once."""
        if not node.runs:
            return False
        self.cluster.crash(node.id, power_fails=power_fails)
        self.later(self.rng.randrange(5_000, _RESTART_US_MAX), lambda: self.start_node(node))
        return True

    def start_node(self, node: VirtualNode) -> None:
        """It runs; one whose directory cannot be used would only say so again."""
        if not node.runs and not node.disk.is_lost:
            self.cluster.start(node.id)

    def new_partition(self) -> None:
        """One at a time; it lasts until its own end, or until the next."""
        self._partitions += 1
        self.cluster.network.heal_all()

    def heal_later(self) -> None:
        """This partition comes to its end."""
        number = self._partitions
        self.for_a_while(lambda: self.cluster.network.heal_all() if number == self._partitions else None)

    def cut(self, sender: NodeId, receiver: NodeId) -> None:
        """Nothing passes this way."""
        self.cluster.network.cut(sender, receiver)

    def may_lose(self, victim: VirtualNode) -> bool:
        """Whether the others would do without what this node's disk holds.

        Once somebody has stored the cluster's id, a minority may lose its data, whether it has known of that id or
        not. Before, nobody has promised anything; but one node at least must never lose what it stored, or two
        clusters in a row may rightly form.
        """
        nodes = self.cluster.nodes.values()
        others = [node for node in nodes if node is not victim and node.id not in self.cluster.plan.spares]
        stored = self.cluster.stored_configuration()
        if stored is None:
            return any(isinstance(node.disk, WalDisk) and not node.disk.wipes for node in others)
        members = stored.members()
        lost = [node for node in others if not _holds(node, members[node.id].incarnation)]
        return len(lost) + 1 <= (len(members) - 1) // 2

    # ------------------------------------------------------------------------------------------ leaves

    def _undo(self, number: int) -> None:
        self._open.pop(number)()

    def _trouble_forming(self) -> None:
        """At first half of the links are down, one way each, and come back one by one; meanwhile things break."""
        network = self.cluster.network
        for sender in self.cluster.nodes:
            for receiver in self.cluster.nodes:
                if sender != receiver and self.rng.randrange(2):
                    network.cut(sender, receiver)
                    heal = partial(network.heal, sender, receiver)
                    self.later(self.rng.randrange(_FORMING_US), heal)
        for _ in range(self.rng.randrange(1, 5)):
            self.later(self.rng.randrange(_FORMING_US), self._break_one)

    def _next(self) -> None:
        self.cluster.after(self.rng.randrange(1_000, self.profile.pause_us_max), self._break_something)

    def _break_something(self) -> None:
        if not self.stopped:
            self._break_one()
            self._next()

    def _break_one(self) -> None:
        self.count += 1
        name = self.rng.choice(self.profile.kinds)
        KINDS[name](self)
        for watcher in self.cluster.watchers:
            watcher.broke(name)

    def _start_again(self, node: VirtualNode) -> None:
        """Somebody starts a node that has ended by itself."""
        self.cluster.after(self.rng.randrange(5_000, _RESTART_US_MAX), lambda: self.start_node(node))


def _holds(node: VirtualNode, incarnation: Incarnation) -> bool:
    disk = node.disk
    return isinstance(disk, WalDisk) and not disk.is_spoiled and disk.incarnation == incarnation


Kind = Callable[[Faults], None]
KINDS: Final[dict[str, Kind]] = {}
"""Everything that can happen, by name. How to add to it stands above."""
FILE_KINDS: Final[dict[str, Kind]] = {}
"""Those of them that only happen where logs are files."""


def kind(act: Kind) -> Kind:
    """The function is a kind of fault, by its name."""
    KINDS[act.__name__] = act
    return act


def kind_of_files(act: Kind) -> Kind:
    """The same, where logs are files."""
    FILE_KINDS[act.__name__] = act
    return kind(act)
