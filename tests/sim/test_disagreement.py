"""A bit flips in one node's memory, while everything else breaks too (faults 61): that node, and no other, is found.

With snapshots as without: what is sent to others, and what takes the place of a log, is a state that a majority has.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from raftkv.core import rules
from raftkv.core.types import NodeId
from raftkv.sim.checks.invariants import Invariants
from raftkv.sim.faults.drawing import draw_profile
from raftkv.sim.faults.kinds import Faults
from raftkv.sim.faults.profile import CALM
from raftkv.sim.world.cluster import VirtualCluster
from raftkv.sim.world.node import VirtualNode
from raftkv.snapshotting import SnapshotSettings, Snapshotting
from tests.story import ListMachine

SEEDS = range(8)
NEVER = SnapshotSettings()
"""In so short a run."""
OFTEN = SnapshotSettings(snapshot_log_entries=10, proof_wait_ms=500)

IS_DUE = Snapshotting._is_due


class World:
    """A cluster under faults, that is written to all the time, and a node whose machine errs once."""

    def __init__(self, seed: int, snapshots: SnapshotSettings = NEVER) -> None:
        self.rng = Random(seed)
        profile = replace(
            draw_profile(self.rng),
            voters=self.rng.choice((3, 5)),
            kinds=("isolate", "split", "pause", "crash_one", "transfer"),
            pause_us_max=600_000,
            aim=None,
            snapshots=snapshots,
            spares=0,
        )
        plan = profile.plan()
        plan.replica = replace(plan.replica, hash_interval_entries=16 if snapshots is NEVER else 4)
        if snapshots is not NEVER:
            plan.raft = replace(plan.raft, log_tail_entries=1)
        self.cluster = VirtualCluster(plan, self.rng, ListMachine)
        self.cluster.watchers.append(Invariants(self.cluster, machines_are_sound=False))
        self.faults = Faults(self.cluster, profile, self.rng)
        self.written = 0
        self.wrong: NodeId | None = None
        self.wrong_life = 0

    def run(self) -> None:
        """A storm, in which a bit flips; then calm."""
        self.cluster.start_all()
        self.faults.start()
        self._write()
        self.cluster.after(self.rng.randrange(1_000_000, 2_000_000), self._flip)
        self.cluster.run_for(2_500_000)
        self.faults.stop()
        self.cluster.network.faults = CALM
        self.cluster.run_for(3_000_000)

    def _write(self) -> None:
        leader = self.cluster.leader()
        if leader is not None and not leader.paused:
            self.written += 1
            leader.running.submit(b"%d" % self.written, lambda _: None)
            self.cluster.poke(leader.id)
        self.cluster.after(15_000, self._write)

    def _flip(self) -> None:
        node = self.cluster.nodes[self.rng.choice(list(self.cluster.nodes))]
        if not node.is_up or not node.running.machine.words:  # type: ignore[attr-defined]
            self.cluster.after(10_000, self._flip)
            return
        self._flip_at(node)

    def _flip_at(self, node: VirtualNode) -> None:
        node.running.machine.words[0] += "?"  # type: ignore[attr-defined]
        self.wrong, self.wrong_life = node.id, node.life


@pytest.mark.parametrize("seed", SEEDS)
def test_the_wrong_node_is_found_and_no_other(seed):
    world = World(seed)
    world.run()
    nodes = world.cluster.nodes
    assert world.wrong is not None
    found = {name for name, node in nodes.items() if node.raft.disagrees_at is not None}
    started_again = nodes[world.wrong].life != world.wrong_life
    assert found == (set() if started_again else {world.wrong})
    leader = world.cluster.leader()
    assert leader is not None
    assert leader.id not in found
    assert min(node.raft.applied_index for node in nodes.values()) > leader.raft.applied_index - 100


class Unlucky(World):
    """The leader's memory errs while another was away, which comes back when a snapshot would be due."""

    def run(self) -> None:
        cluster, rng = self.cluster, self.rng
        cluster.start_all()
        self._write()
        assert cluster.run_while(lambda: self.written < 30, at_most_us=5_000_000)
        leader = cluster.leader()
        assert leader is not None
        others = [name for name in cluster.nodes if name != leader.id]
        away = rng.choice(others)
        for name in cluster.nodes:
            cluster.network.cut(away, name)
            cluster.network.cut(name, away)
        cluster.run_for(rng.randrange(300_000, 900_000))
        self._flip_at(leader)
        cluster.run_for(rng.randrange(50_000, 400_000))
        cluster.network.heal_all()
        cluster.run_for(2_000_000)


def held(world: World) -> set[NodeId]:
    """The nodes that have the wrong state, and believe that it is right."""
    nodes = [node for node in world.cluster.nodes.values() if node.raft.disagrees_at is None]
    return {node.id for node in nodes if any("?" in word for word in node.running.machine.words)}  # type: ignore[attr-defined]


def found(world: World) -> set[NodeId]:
    return {name for name, node in world.cluster.nodes.items() if node.raft.disagrees_at is not None}


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("kind", [World, Unlucky])
def test_no_snapshot_carries_a_wrong_state_on(kind, seed):
    world = kind(seed, OFTEN)
    world.run()
    assert world.wrong is not None
    assert (held(world), found(world) - {world.wrong}) == (set(), set())
    taken = sum(node.running.snapshots.taken_count for node in world.cluster.nodes.values())
    assert taken > 5, "logs get shorter all the same"


def carried_on() -> bool:
    """Whether of several runs one has a wrong state where no bit flipped."""
    for seed in range(12):
        world = Unlucky(seed, OFTEN)
        world.run()
        if held(world) or found(world) - {world.wrong}:
            return True
    return False


def test_a_state_that_nobody_compared_is_noticed_to_be_carried_on(monkeypatch):
    """The check can fail."""
    monkeypatch.setattr(Snapshotting, "_patience_ends_us", lambda self, file: 0)
    monkeypatch.setattr(Snapshotting, "_is_due", lambda self, *, times=1: times > 1 or IS_DUE(self))
    assert carried_on()


def test_a_comparison_that_always_comes_out_well_is_noticed(monkeypatch):
    """The check can fail."""
    monkeypatch.setattr(rules, "state_is_wrong", lambda **_: False)
    assert carried_on()


def test_a_lone_node_that_calls_the_others_wrong_is_noticed(monkeypatch):
    """The check can fail: with one node's word for a majority's, sound nodes are found too."""
    monkeypatch.setattr(rules, "hash_of_a_majority", lambda sets, hashes: next(iter(hashes.values()), None))
    found = 0
    for seed in SEEDS:
        world = World(seed)
        world.run()
        found += sum(
            node.raft.disagrees_at is not None for name, node in world.cluster.nodes.items() if name != world.wrong
        )
    assert found > 0
