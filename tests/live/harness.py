"""A whole run: clients at work, faults among the nodes, then quiet, last reads and the verdicts.

Told: a cluster that serves, and a plan. Tells: figures and verdicts. Tests and ``scripts/torture`` run the
same, the one shorter, the other longer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Final

from tests.live import verdicts
from tests.live.client import Client, Members, now_ms
from tests.live.cluster import SERVING_WITHIN_S, Late, LiveCluster, until
from tests.live.faults import Deeds, Faults, States
from tests.live.verdicts import Verdict
from tests.live.wire import Answer, Connections
from tests.live.workload import Story, Worker, read

SETTLING_MS: Final = 30_000
"""After the last fault everything that is repeated must be answered within this."""
LAST_READS_AT_ONCE: Final = 16
LAST_READ_TIMEOUT_S: Final = 7.0
BETWEEN_POWER_CUTS_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is to be."""

    seconds: float
    """Of mixed faults; 0: none."""
    clients_count: int = 8
    seed: int = 0
    power_cuts_count: int = 0
    """How often all nodes are killed at once, after the mixed faults."""


@dataclass(slots=True)
class Report:
    """What a run was."""

    plan: Plan
    story: Story
    deeds: Deeds
    verdicts: list[Verdict] = field(default_factory=list)
    elections_count: int = 0
    seconds: float = 0.0

    @property
    def broken(self) -> list[Verdict]:
        """The promises that were not kept."""
        return [verdict for verdict in self.verdicts if verdict.complaints]

    @property
    def longest_pause(self) -> tuple[float, float]:
        """Between two acknowledged writes, of whatever clients: milliseconds, and when it ended, as deeds tell time."""
        times = sorted(self.story.acknowledged_at)
        longest = max(((later - earlier, later) for earlier, later in pairwise(times)), default=None)
        return (0.0, 0.0) if longest is None else (longest[0], longest[1] - self.deeds.began_at)

    def complaint(self) -> str:
        """What was broken, and what had been done; for an assertion's message."""
        return "\n".join([*map(str, self.broken), f"seed {self.plan.seed}; what happened:", *self.deeds.told])

    def keep(self, directory: Path) -> Path:
        """Everything that was asked and told, and done, written where one can look."""
        path = directory / "history.txt"
        pause_ms, ended_ms = self.longest_pause
        pause = f"no write was acknowledged for {pause_ms:.0f} ms until {ended_ms / 1000:.2f} s"
        lines = [str(verdict) for verdict in self.verdicts] + ["", *self.deeds.told, "", pause, ""]
        lines += [str(operation) for operation in sorted(self.story.operations, key=lambda each: each.invoked_at)]
        path.write_text("\n".join(lines) + "\n")
        return path


async def run(cluster: LiveCluster, plan: Plan, *, tell: Callable[[Report], None] | None = None) -> Report:
    """The plan, carried out and judged. ``tell`` hears of the progress about once a second."""
    began_at = now_ms()
    story, deeds, states = Story(), Deeds(), States()
    report = Report(plan, story, deeds)
    members = Members([node.address for node in cluster.nodes.values()], story.findings)
    async with asyncio.TaskGroup() as group:
        beside = [group.create_task(states.sample(cluster))]
        if tell is not None:
            beside.append(group.create_task(_tell_on(report, tell)))
        workers = [group.create_task(worker.run()) for worker in _workers(plan, members, story)]
        report.verdicts.append(await _torment(cluster, plan, story, deeds))
        members.settle_within(SETTLING_MS)
        await asyncio.gather(*workers)
        for task in beside:
            task.cancel()
    last = await last_reads(story, members)
    report.verdicts += [
        verdicts.acknowledged_writes_stand(story.operations, last),
        await asyncio.to_thread(verdicts.linearizable, story.operations),
        verdicts.executed_once(story.tallies, last),
        verdicts.answers_sound(story, cluster.odd_answers),
        await agreement(cluster, states),
        verdicts.processes_sound(cluster.endings(), _loud(cluster)),
    ]
    report.elections_count = cluster.elections_count()
    report.seconds = (now_ms() - began_at) / 1000
    return report


def _workers(plan: Plan, members: Members, story: Story) -> list[Worker]:
    return [
        Worker(f"c{place}", members, story, f"{plan.seed} c{place}", lanes_count=1 + place % 3)
        for place in range(plan.clients_count)
    ]


async def _torment(cluster: LiveCluster, plan: Plan, story: Story, deeds: Deeds) -> Verdict:
    """Mixed faults, then power cuts, each while writes are accepted; at the end all nodes follow one leader."""
    rng = Random(f"faults {plan.seed}")
    faults = Faults(cluster, rng, deeds)
    promise = "the cluster serves again once its nodes run"
    try:
        await faults.run(now_ms() + plan.seconds * 1000)
        for _ in range(plan.power_cuts_count):
            await _until_written(story)
            await asyncio.sleep(BETWEEN_POWER_CUTS_S * rng.uniform(0.2, 1.0))
            await faults.power_cut()
        await _until_written(story)
        await cluster.until_serving()
    except Late as late:
        return Verdict(promise, [str(late)])
    return Verdict(promise, [])


async def _until_written(story: Story) -> None:
    """Some write was accepted from now on."""
    before = len(story.acknowledged_at)
    what = "a write to be accepted after a power cut"
    await until(lambda: len(story.acknowledged_at) > before, within_s=SERVING_WITHIN_S, what=what)


async def last_reads(story: Story, members: Members) -> dict[bytes, Answer]:
    """Every key read once more, every other one at a follower; recorded like any other read."""
    rng, connections = Random(1), Connections()
    members.settle_within(SETTLING_MS)
    waiting = list(enumerate(story.keys()))
    found: dict[bytes, Answer] = {}

    async def reader() -> None:
        client = Client(members, rng, connections, timeout_s=LAST_READ_TIMEOUT_S)
        while waiting:
            place, key = waiting.pop()
            answer = await read(story, "last", client, key, at_follower=place % 2 == 0)
            if answer is not None:
                found[key] = answer

    await asyncio.gather(*(reader() for _ in range(LAST_READS_AT_ONCE)))
    connections.close()
    return found


async def agreement(cluster: LiveCluster, states: States) -> Verdict:
    """All nodes come to the same index, and have the same state there."""
    try:
        statuses = await cluster.until_equal()
    except Late as late:
        return Verdict("all nodes have equal state", [str(late)])
    hashes = {node: status["state_hash"] for node, status in statuses.items()}
    return verdicts.nodes_agree(hashes, states.contradictions)


def _loud(cluster: LiveCluster) -> list[str]:
    return [line for node in cluster.nodes.values() for line in node.loud_lines()]


async def _tell_on(report: Report, tell: Callable[[Report], None]) -> None:
    while True:
        tell(report)
        await asyncio.sleep(1.0)
