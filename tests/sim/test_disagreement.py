"""A bit flips in one node's memory, while everything else breaks too (faults 61): that node, and no other, is found.

Where snapshots are taken more often than states are compared, a wrong state can be sent on before anybody knows of it,
and may end as the majority's. Then this is left: of nodes that differ, somebody is found, and all others are alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from random import Random

import pytest

from raftkv import replica
from raftkv.core import rules
from raftkv.core.types import NodeId
from raftkv.sim.checks.invariants import Invariants
from raftkv.sim.faults.drawing import draw_profile
from raftkv.sim.faults.kinds import Faults
from raftkv.sim.faults.profile import CALM
from raftkv.sim.world.cluster import VirtualCluster
from raftkv.snapshotting import SnapshotSettings
from tests.story import ListMachine

SEEDS = range(8)
NEVER = SnapshotSettings()
"""In so short a run."""
OFTEN = SnapshotSettings(snapshot_log_entries=10)
"""Several between two comparisons."""


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
        self.cluster = VirtualCluster(profile.plan(), self.rng, ListMachine)
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
        node.running.machine.words[0] += "?"  # type: ignore[attr-defined]
        self.wrong, self.wrong_life = node.id, node.life


@pytest.fixture(autouse=True)
def states_are_compared_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica, "HASH_INTERVAL", 16)


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


def unnoticed(world: World) -> bool:
    """Whether two nodes that differ are both believed to be right."""
    nodes = [node for node in world.cluster.nodes.values() if node.raft.disagrees_at is None]
    words = [node.running.machine.words for node in nodes]  # type: ignore[attr-defined]
    longest = max(words, key=len)
    assert len(longest) > 100
    return any(of_one != longest[: len(of_one)] for of_one in words)


def test_with_snapshots_all_that_are_not_found_are_alike():
    found = 0
    for world in _runs_with_snapshots():
        assert not unnoticed(world)
        found += sum(node.raft.disagrees_at is not None for node in world.cluster.nodes.values())
    assert found > 0


def test_states_that_are_never_compared_are_noticed_to_differ(monkeypatch):
    """The check can fail."""
    monkeypatch.setattr(rules, "state_is_wrong", lambda **_: False)
    assert any(unnoticed(world) for world in _runs_with_snapshots())


def _runs_with_snapshots() -> Iterator[World]:
    for seed in SEEDS:
        world = World(seed, OFTEN)
        world.run()
        yield world


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
