"""Stale reads in whole runs: what an answer says of its age is true, by the clock of the node that gives it.

Everybody reads at every node all the time. An answer of that age must reflect every write that was acknowledged
before it. Nodes stand still, are cut off, crash, and come back with a clock that begins anew, as after a reboot.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any, Final

import pytest

from raftkv.core import reads, rules
from raftkv.core.settings import RaftSettings
from raftkv.core.types import NodeId
from raftkv.outcomes import Answered, Applied, Consistency
from raftkv.sim.faults.drawing import draw_profile
from raftkv.sim.faults.kinds import Faults
from raftkv.sim.faults.profile import LATE, SLOW
from raftkv.sim.world.cluster import VirtualCluster
from raftkv.sim.world.node import Clock, VirtualNode
from tests.story import ListMachine

STORM_US: Final = 4_000_000
SEEDS: Final = range(12)
PLANTED_SEEDS_MAX: Final = 120
KINDS: Final = ("isolate", "split", "cut_one_way", "pause", "stall", "crash_one", "transfer", "hang_disk")


class TooYoung(AssertionError):
    """An answer claimed to be newer than it was."""


class World:
    """A cluster under faults that is written to and read from everywhere."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        profile = replace(
            draw_profile(self.rng),
            voters=self.rng.choice((3, 5)),
            kinds=KINDS,
            pause_us_max=400_000,
            weather=self.rng.choice((SLOW, LATE)),
            raft=RaftSettings(heartbeat_ms=self.rng.choice((50, 100)), clock_drift_max_per_mille=223),
            aim=None,
            clocks_differ=False,
            segment_bytes=0,
        )
        self.cluster = VirtualCluster(profile.plan(), self.rng, ListMachine)
        self.faults = Faults(self.cluster, profile, self.rng)
        for node in self.cluster.nodes.values():
            node.clock = Clock(self.rng.randrange(10**9), self.rng.choice((900, 1000, 1100)))
        self.acknowledged_us: list[int] = []
        self.acknowledged_index: list[int] = []
        """The highest so far at each of these times."""
        self.aged = 0
        self.written = 0

    def run(self) -> None:
        """Raises TooYoung."""
        self.cluster.start_all()
        self.faults.start()
        self._write()
        self._read()
        self.cluster.run_for(STORM_US)

    def _write(self) -> None:
        leader = self.cluster.leader()
        if leader is not None and not leader.paused:
            self.written += 1
            leader.running.submit(b"%d" % self.written, self._was_written)
            self.cluster.poke(leader.id)
        self.cluster.after(self.rng.randrange(1_000, 12_000), self._write)

    def _was_written(self, outcome: object) -> None:
        if isinstance(outcome, Applied):
            highest = self.acknowledged_index[-1] if self.acknowledged_index else 0
            self.acknowledged_us.append(self.cluster.now_us)
            self.acknowledged_index.append(max(highest, outcome.index))

    def _read(self) -> None:
        for node in self.cluster.nodes.values():
            if node.is_up and not node.paused and not node.stall_us:
                node.running.read("all", Consistency.STALE, self._reader(node))
                if self.rng.randrange(4) == 0:
                    node.running.read("all", Consistency.FOLLOWER, lambda _: None)
                self.cluster.poke(node.id)
        self.cluster.after(self.rng.randrange(1_000, 10_000), self._read)

    def _reader(self, node: VirtualNode) -> Callable[[Any], None]:
        def look(outcome: Any) -> None:
            if not isinstance(outcome, Answered) or outcome.staleness_ms is None:
                return
            self.aged += 1
            as_of_us = node.clock.world_us(node.running._now_us - outcome.staleness_ms * 1000)
            before = bisect_left(self.acknowledged_us, as_of_us)
            if before and self.acknowledged_index[before - 1] > outcome.index:
                raise TooYoung(f"{node.id} at {self.cluster.now_us}: {outcome}, {self.acknowledged_index[before - 1]}")

        return look


def starts_with_another_clock(world: World) -> None:
    """As after a reboot: it shows how long the machine runs, and nothing of what was before."""
    original = world.cluster.start

    def start(name: str) -> None:
        node = world.cluster.nodes[NodeId(name)]
        if node.life > 0 and world.rng.randrange(2):
            node.clock.offset_us = world.rng.randrange(10) - world.cluster.now_us * node.clock.per_mille // 1000
        original(name)

    world.cluster.start = start  # type: ignore[method-assign]


def ran(seed: int) -> World:
    world = World(seed)
    starts_with_another_clock(world)
    world.run()
    return world


def test_answers_are_no_older_than_they_say():
    worlds = [ran(seed) for seed in SEEDS]
    assert sum(world.aged for world in worlds) > 500 * len(worlds)


# ------------------------------------------------------------------------------------------ planted bugs

Plant = Callable[[pytest.MonkeyPatch], None]


def dated_from_its_receipt(patch: pytest.MonkeyPatch) -> None:
    def note_freshness(state, request):
        state.note_freshness(request.leader_commit, as_of_us=state.now_us)

    patch.setattr(reads, "_note_freshness", note_freshness)


def dated_as_if_clocks_did_not_drift(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(rules, "passed_elsewhere_us", lambda *, passed_us, **_: passed_us)


def dated_by_what_the_leader_knows_to_be_committed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(reads, "_commit_at_least", lambda state, office: state.commit_index)


@pytest.mark.parametrize(
    "plant",
    [
        dated_from_its_receipt,
        dated_as_if_clocks_did_not_drift,
        dated_by_what_the_leader_knows_to_be_committed,
    ],
)
def test_a_planted_bug_is_found(plant, monkeypatch):
    plant(monkeypatch)
    with pytest.raises(TooYoung):
        list(map(ran, range(PLANTED_SEEDS_MAX)))
