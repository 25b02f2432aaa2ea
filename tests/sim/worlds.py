"""Whole runs of a cluster whose nodes keep files, to which only certain things happen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from random import Random

from raftkv.errors import DataDamaged
from raftkv.sim.faults.drawing import draw_profile
from raftkv.sim.runs.failed import RunFailed
from raftkv.sim.runs.whole import Run, RunOptions, finish
from raftkv.sim.world.cluster import VirtualCluster, Watcher


def run_of(seed: int, *kinds: str, segment_bytes: int = 4_096, voters: int = 3) -> Run:
    """Three nodes to which such things happen often."""
    profile = replace(
        draw_profile(Random(seed)),
        voters=voters,
        kinds=kinds,
        pause_us_max=500_000,
        aim=None,
        segment_bytes=segment_bytes,
    )
    return Run(seed, RunOptions(profile=profile))


class Seen(Watcher):
    """Counts what shows of faults."""

    def __init__(self, cluster: VirtualCluster) -> None:
        self.cluster = cluster
        self.counted: Counter[str] = Counter()

    def crashed(self, node):
        self.counted["crashed"] += 1

    def halted(self, node, error):
        self.counted["refused" if isinstance(error, DataDamaged) else error.cause.strerror] += 1

    def recovered(self, node, found):
        self.counted["recovered"] += 1
        self.counted["in doubt"] += len(found.admissible) > 1
        self.counted["cut"] += bool(found.said.notes)

    def room_is_short(self, node, *, short):
        self.counted["short" if short else "room"] += 1

    def stepped(self, node, work):
        self.counted["refusals"] += len(work.refusals)
        self.counted["lost"] = len(self.cluster.nodes) - len(self.cluster.sound_nodes())


def watched(run: Run) -> Seen:
    """Who counts what shows in that run."""
    seen = Seen(run.cluster)
    run.cluster.watchers.append(seen)
    return seen


def first_failure(seeds: Iterable[int], *kinds: str, **how: int) -> RunFailed | None:
    """The first run of these that fails."""
    for seed in seeds:
        try:
            finish(run_of(seed, *kinds, **how))
        except RunFailed as failure:
            return failure
    return None
