"""A cluster in which nobody stays: ``python -m tests.live.membership_soak``.

Told: how long, whether nodes are killed too. Tells: pauses of writes, the longest change, and the verdicts. Again and
again two nodes join, then whoever leads is removed, and whoever leads then; so after a few rounds none of the members
that formed the cluster is left. Clients write, read and number their writes all the while.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from random import Random, SystemRandom
from typing import Final

import click

from tests.live import harness, verdicts
from tests.live.client import Members, now_ms
from tests.live.cluster import SERVING_WITHIN_S, Late, LiveCluster, LiveNode, eventually, free_ports
from tests.live.faults import States
from tests.live.harness import SETTLING_MS, last_reads
from tests.live.membership import add, remove
from tests.live.verdicts import Verdict
from tests.live.wire import Address
from tests.live.workload import Story, Worker

SIZE_MAX: Final = 5
SETTLED_S: Final = 1.0
"""A removed node's process is stopped after that; by then clients have heard of it."""
KILLS_APART_S: Final = (1.0, 3.0)
DOWN_S: Final = (0.1, 1.0)
SHORT_LOGS: Final = ("--snapshot-log-entries", "300", "--log-tail-entries", "20")


@dataclass(slots=True)
class Soaked:
    """What a run was."""

    story: Story = field(default_factory=Story)
    changes_ms: list[float] = field(default_factory=list)
    kills_count: int = 0
    originals_left: int = 3
    verdicts: list[Verdict] = field(default_factory=list)

    def __str__(self) -> str:
        pauses = sorted(later - earlier for earlier, later in pairwise(sorted(self.story.acknowledged_at)))
        p99 = pauses[len(pauses) * 99 // 100] if pauses else 0.0
        longest = max(pauses, default=0.0)
        return (
            f"{len(self.changes_ms)} changes, the longest {max(self.changes_ms, default=0.0) / 1000:.2f} s; "
            f"{self.kills_count} kills; {self.originals_left} of the first members left\n"
            f"{len(self.story.operations)} operations, {len(self.story.acknowledged_at)} acknowledged writes, "
            f"{self.story.unknown_count} unknown; between two of them p99 {p99:.0f} ms, longest {longest:.0f} ms\n"
            + "\n".join(map(str, self.verdicts))
        )

    @property
    def broken(self) -> list[Verdict]:
        """The promises that were not kept."""
        return [verdict for verdict in self.verdicts if verdict.complaints]


class Town:
    """Whose members come and go."""

    def __init__(self, cluster: LiveCluster, soaked: Soaked, members: Members, addresses: list[Address]) -> None:
        self._cluster, self._soaked, self._members, self._addresses = cluster, soaked, members, addresses
        self._next = len(cluster.nodes) + 1
        self._originals = set(cluster.nodes)
        self.retired: list[LiveNode] = []

    def _port(self) -> int:
        """No member's, also of none that is down; one that has left may be told so at its own for a while."""
        taken = {node.port for node in self._cluster.nodes.values()}
        while (port := free_ports(1)[0]) in taken:
            continue
        return port

    async def round(self) -> None:
        """Two come, and whoever leads goes, twice."""
        while len(self._cluster.nodes) < SIZE_MAX:
            id, port = f"n{self._next}", self._port()
            self._next += 1
            self._addresses.append(Address("127.0.0.1", port))
            self._soaked.changes_ms.append(await add(self._cluster, id, port))
        while len(self._cluster.nodes) > SIZE_MAX - 2:
            leader = await self._cluster.until_leader()
            self._soaked.changes_ms.append(await remove(self._cluster, leader.id))
            await self._retire(leader)
        self._soaked.originals_left = len(self._originals & set(self._cluster.nodes))

    async def _retire(self, node: LiveNode) -> None:
        """It is no member any more, and its process ends."""
        await asyncio.sleep(SETTLED_S)
        del self._cluster.nodes[node.id]
        self.retired.append(node)
        if await self._cluster.status(node) is None:
            # It is only just being started again, and would not heed a signal yet.
            node.kill()
        else:
            node.ask_to_stop()
            await node.ended()
        self._addresses.remove(node.address)
        shutil.rmtree(node.directory)


async def kill_on(cluster: LiveCluster, soaked: Soaked, rng: Random) -> None:
    """Some member is killed and started again, one at a time, until this is cancelled."""
    while True:
        await asyncio.sleep(rng.uniform(*KILLS_APART_S))
        up = [node for node in cluster.up() if not node.was_asked_to_end]
        if len(up) < len(cluster.nodes):
            continue
        node = rng.choice(up)
        node.kill()
        soaked.kills_count += 1
        await asyncio.sleep(rng.uniform(*DOWN_S))
        if not node.is_running and cluster.nodes.get(node.id) is node:
            node.start()
        await _until_it_answers(cluster, node)


async def _until_it_answers(cluster: LiveCluster, node: LiveNode) -> None:
    """Or has gone for good: a second one that is down would be one too many."""

    async def look() -> bool | None:
        return cluster.nodes.get(node.id) is not node or await cluster.status(node) is not None or None

    await eventually(look, within_s=SERVING_WITHIN_S, what=f"{node.id} to answer after it was killed")


async def soak(
    cluster: LiveCluster, *, seconds: float, clients_count: int, kills: bool, seed: int, rounds_min: int = 1
) -> Soaked:
    """At least so many rounds, and for so long; then quiet, last reads and the verdicts."""
    soaked, states = Soaked(), States()
    addresses = [node.address for node in cluster.nodes.values()]
    members = Members(addresses, soaked.story.findings)
    town = Town(cluster, soaked, members, addresses)
    ends_at = now_ms() + seconds * 1000
    async with asyncio.TaskGroup() as group:
        beside = [group.create_task(states.sample(cluster))]
        if kills:
            beside.append(group.create_task(kill_on(cluster, soaked, Random(f"kills {seed}"))))
        workers = [
            group.create_task(
                Worker(f"c{place}", members, soaked.story, f"{seed} c{place}", lanes_count=1 + place % 3).run()
            )
            for place in range(clients_count)
        ]
        soaked.verdicts.append(await _rounds(town, ends_at, rounds_min))
        for task in beside:
            task.cancel()
        cluster.start()
        members.settle_within(SETTLING_MS)
        await asyncio.gather(*workers)
    last = await last_reads(soaked.story, members)
    every = [*cluster.nodes.values(), *town.retired]
    soaked.verdicts += [
        verdicts.acknowledged_writes_stand(soaked.story.operations, last),
        await asyncio.to_thread(verdicts.linearizable, soaked.story.operations),
        verdicts.executed_once(soaked.story.tallies, last),
        verdicts.answers_sound(soaked.story, cluster.odd_answers),
        await harness.agreement(cluster, states),
        verdicts.processes_sound(
            [ending for node in every for ending in node.endings if node.is_running in (True, False)],
            [line for node in every for line in node.loud_lines()],
        ),
    ]
    return soaked


async def _rounds(town: Town, ends_at: float, rounds_min: int) -> Verdict:
    done = 0
    try:
        while now_ms() < ends_at or done < rounds_min:
            await town.round()
            done += 1
    except Late as late:
        return Verdict("every change comes to its end", [str(late)])
    return Verdict("every change comes to its end", [])


@click.command()
@click.option("--minutes", type=click.FloatRange(0, 600), default=2.0, show_default=True)
@click.option("--clients", "clients_count", type=click.IntRange(1, 100), default=8, show_default=True)
@click.option("--kills", is_flag=True, help="Members are killed and started again, too.")
@click.option("--snapshots", is_flag=True, help="Logs are so short that whoever joins is sent a snapshot.")
@click.option("--seed", type=int, help="Default: a new one.")
def main(*, minutes: float, clients_count: int, kills: bool, snapshots: bool, seed: int | None) -> None:
    """Exit code 1: a promise was not kept."""
    chosen = SystemRandom().randrange(10**6) if seed is None else seed
    directory = Path(tempfile.mkdtemp(prefix="raftkv-members-"))
    with LiveCluster(directory, nodes_count=3, options=SHORT_LOGS if snapshots else ()) as cluster:
        soaked = asyncio.run(_main(cluster, minutes * 60, clients_count, kills=kills, seed=chosen))
        click.echo(f"seed {chosen}\n{soaked}")
    if soaked.broken:
        click.echo(f"data and logs are kept in {directory}")
        sys.exit(1)
    shutil.rmtree(directory)


async def _main(cluster: LiveCluster, seconds: float, clients_count: int, *, kills: bool, seed: int) -> Soaked:
    cluster.start()
    await cluster.until_serving()
    return await soak(cluster, seconds=seconds, clients_count=clients_count, kills=kills, seed=seed)


if __name__ == "__main__":
    main()
