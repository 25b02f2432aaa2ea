"""What breaks in a run, and when: a profile drawn from the seed, and whoever carries it out.

Told: a cluster, an rng, when to stop. Tells: nothing; what it does shows in the cluster. Runs differ in kind:
one only loses messages, another only crashes, some aim everything at one node. A majority may well be down: no
safety rests on there being one. When the faults stop, everything works again.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final

from raftkv.core.types import NodeId
from raftkv.sim.faults.profile import CALM, LATE, LOSSY, SLOW, Profile
from raftkv.sim.world.cluster import DiskFaults, VirtualCluster
from raftkv.sim.world.node import Clock, VirtualNode

CLOCKS_PER_MILLE: Final = (900, 1000, 1000, 1100)


class Faults:
    """Breaks things in a cluster, one after the other, until it is told to stop."""

    def __init__(self, cluster: VirtualCluster, profile: Profile, rng: Random) -> None:
        self.cluster, self.profile, self.rng = cluster, profile, rng
        self.stopped = False
        self.count = 0
        self._partitions = 0
        if profile.clocks_differ:
            for node in cluster.nodes.values():
                node.clock = Clock(offset_us=rng.randrange(10**9), per_mille=rng.choice(CLOCKS_PER_MILLE))

    def start(self) -> None:
        """The first fault will come."""
        if self.profile.kinds:
            self._later()

    def stop(self) -> None:
        """Everything works again: links, weather, disks, processes."""
        self.stopped = True
        cluster = self.cluster
        cluster.network.heal_all()
        cluster.network.faults = CALM
        cluster.plan.disk = DiskFaults()
        for name in cluster.nodes:
            cluster.let_disk_go(name)
            cluster.stall(name, 0)
            cluster.resume(name)
        cluster.start_all()

    def _later(self) -> None:
        self.cluster.after(self.rng.randrange(1_000, self.profile.pause_us_max), self._break_something)

    def _break_something(self) -> None:
        if self.stopped:
            return
        self.count += 1
        kind = self.rng.choice(self.profile.kinds)
        KINDS[kind](self)
        for watcher in self.cluster.watchers:
            watcher.broke(kind)
        self._later()

    def _for_a_while(self, undo: Callable[[], None], *, at_most_us: int = 2_500_000) -> None:
        def until() -> None:
            if not self.stopped:
                undo()

        self.cluster.after(self.rng.randrange(5_000, at_most_us), until)

    def _victim(self) -> VirtualNode:
        """Whom this run aims at, else the leader as often as anybody."""
        leader = self.cluster.leader()
        if self.profile.aim is not None:
            return self.cluster.nodes[NodeId(self.profile.aim)]
        if leader is not None and self.rng.randrange(2):
            return leader
        return self.cluster.nodes[self.rng.choice(list(self.cluster.nodes))]

    # ---------------------------------------------------------------------------------------- links

    def isolate(self) -> None:
        """Nobody hears one node, and it hears nobody."""
        self._cut_between([self._victim().id])

    def split(self) -> None:
        """Two sides; everybody hears their own."""
        names = list(self.cluster.nodes)
        self._cut_between(self.rng.sample(names, self.rng.randrange(1, len(names) + 1)))

    def cut_one_way(self) -> None:
        """One node is heard and hears nothing, or the other way round, by all or by one."""
        self._new_partition()
        victim, deaf = self._victim().id, self.rng.randrange(2)
        others = [name for name in self.cluster.nodes if name != victim]
        for other in others[: self.rng.randrange(1, len(others) + 1) if others else 0]:
            self._cut(other, victim) if deaf else self._cut(victim, other)
        self._heal_later()

    def ring(self) -> None:
        """Everybody reaches only their two neighbours."""
        self._new_partition()
        names = list(self.cluster.nodes)
        for place, name in enumerate(names):
            for distance in range(2, len(names) - 1):
                self._cut(name, names[(place + distance) % len(names)])
        self._heal_later()

    def bridge(self) -> None:
        """Two sides that reach each other only through one node, which both reach."""
        self._new_partition()
        middle = self._victim().id
        others = [name for name in self.cluster.nodes if name != middle]
        half = len(others) // 2
        for one in others[:half]:
            for other in others[half:]:
                self._cut(one, other)
                self._cut(other, one)
        self._heal_later()

    def heal(self) -> None:
        """Sooner than was meant."""
        self.cluster.network.heal_all()

    def _new_partition(self) -> None:
        """One at a time; it lasts until its own end, or until the next."""
        self._partitions += 1
        self.cluster.network.heal_all()

    def _heal_later(self) -> None:
        number = self._partitions
        self._for_a_while(lambda: self.cluster.network.heal_all() if number == self._partitions else None)

    def _cut_between(self, side: list[NodeId]) -> None:
        self._new_partition()
        for one in side:
            for other in self.cluster.nodes:
                if other not in side:
                    self._cut(one, other)
                    self._cut(other, one)
        self._heal_later()

    def _cut(self, sender: NodeId, receiver: NodeId) -> None:
        self.cluster.network.cut(sender, receiver)

    # ------------------------------------------------------------------------------------ processes

    def crash_one(self) -> None:
        """It starts again some time later, or at once."""
        self._crash(self._victim())

    def crash_all(self) -> None:
        """Power fails."""
        for node in self.cluster.nodes.values():
            self._crash(node)

    def _crash(self, node: VirtualNode) -> None:
        if not node.is_up:
            return
        self.cluster.crash(node.id)
        self._for_a_while(lambda: None if node.is_up else self.cluster.start(node.id), at_most_us=1_500_000)

    def pause(self) -> None:
        """The process stands still, and its clock goes on."""
        victim = self._victim()
        self.cluster.pause(victim.id)
        self._for_a_while(lambda: self.cluster.resume(victim.id))

    def stall(self) -> None:
        """The process stands still in the middle of a turn: what it does next rests on a clock read long ago."""
        self.cluster.stall(self._victim().id, self.rng.randrange(1_000, 2_000_000))

    def hang_disk(self) -> None:
        """It takes writes and finishes none."""
        victim = self._victim()
        self.cluster.hang_disk(victim.id)
        self._for_a_while(lambda: self.cluster.let_disk_go(victim.id))

    def transfer(self) -> None:
        """The leader is asked to hand over, to anybody."""
        leader = self.cluster.leader()
        if leader is not None and not leader.paused:
            target = self.rng.choice([*self.cluster.nodes, None])
            leader.running.transfer_leadership(target, lambda _: None)
            self.cluster.poke(leader.id)

    def change_weather(self) -> None:
        """The network gets better or worse."""
        self.cluster.network.faults = self.rng.choice((CALM, LOSSY, LATE, SLOW))


KINDS: Final[dict[str, Callable[[Faults], None]]] = {
    act.__name__: act
    for act in (
        Faults.isolate,
        Faults.split,
        Faults.cut_one_way,
        Faults.ring,
        Faults.bridge,
        Faults.heal,
        Faults.crash_one,
        Faults.crash_all,
        Faults.pause,
        Faults.stall,
        Faults.hang_disk,
        Faults.transfer,
        Faults.change_weather,
    )
}
"""Everything that can happen, by name."""
