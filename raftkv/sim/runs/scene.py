"""What a choice of a short run can act upon: the world, its clients, and who is drawn.

Told: chance, by the run's generator. Tells: whom it falls on. Knows no choices.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from raftkv.core.types import Role
from raftkv.outcomes import Consistency
from raftkv.sim.runs.short_clients import ShortClients
from raftkv.sim.runs.short_world import ShortWorld, newest_leader
from raftkv.sim.world.node import VirtualNode


@dataclass(slots=True)
class Scene:
    """Everything that a choice can act upon."""

    world: ShortWorld
    clients: ShortClients
    rng: Random

    # -- who, and whom

    def someone(self) -> VirtualNode:
        """Any node, up or down."""
        return self.rng.choice(list(self.world.nodes.values()))

    def group(self) -> list[VirtualNode]:
        """Some of them, two at least, or all."""
        nodes = list(self.world.nodes.values())
        if self.rng.randrange(3) == 0:
            return nodes
        return self.rng.sample(nodes, 2 if len(nodes) == 3 else self.rng.choice((2, 3, 3)))

    def leader(self) -> VirtualNode | None:
        """One of those who think that they lead; often the newest."""
        leaders = [node for node in self.world.up() if node.raft.role is Role.LEADER]
        if not leaders:
            return None
        return newest_leader(leaders) if self.rng.randrange(2) else self.rng.choice(leaders)

    def talk_around(self, node: VirtualNode) -> None:
        """It and some others hear each other for a while."""
        self.world.talk([node, *(other for other in self.group() if other is not node)])

    def turn_and_perhaps_talk(self, node: VirtualNode) -> None:
        """It does what it was asked."""
        self.world.turn(node)
        if self.rng.randrange(2):
            self.talk_around(node)

    def speak(self, leader: VirtualNode) -> None:
        """A leader's heartbeats are due, or it is asked and must know that it leads; some hear it at once."""
        if self.rng.randrange(2):
            self.world.lapse(leader, self.world.setting.raft.heartbeat_us)
        else:
            self.clients.read(leader, Consistency.LINEARIZABLE)
            self.world.turn(leader)
        for one in [one for one in self.world.flying if one.envelope.sender == leader.id and one.exchange is None]:
            if self.rng.randrange(4):
                self.world.flying.remove(one)
                self.world.arrive(one)

    def forget_leaders(self, nodes: list[VirtualNode]) -> None:
        """An election timeout passes at these; it is one and the same for all where clocks go on together."""
        for node in nodes[:1] if self.world.leases else nodes:
            self.world.pass_time(node, self.world.setting.raft.election_timeout_us)
