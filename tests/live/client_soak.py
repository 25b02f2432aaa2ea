"""``python -m tests.live.client_soak --kills 50``: a program of many tasks writes on while its leaders are killed.

Told: a cluster that serves, how many tasks, how many kills. Tells: figures, and every write that was not executed
exactly once or that ended with an error. Each task writes to keys of its own: to one by compare-and-set upon its own
last answer, to one without a condition, to two in transactions. The version of a key counts how often it was put, so
a write that was lost or doubled shows in the next answer, and at the end in the store.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from random import Random

import click

from raftkv.client import Client, ClientSettings, Op, RequestError, TxnPut
from raftkv.client.attempts import Figures
from tests.live.cluster import LiveCluster, until

WRITTEN_WITHIN_S = 20.0
PAUSED_S = 1.5


@dataclass(slots=True)
class Soaked:
    """What came of it."""

    acknowledged_at_s: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    """That reached the program."""
    wrong: list[str] = field(default_factory=list)
    """Writes that were not executed exactly once."""
    kills: int = 0
    pauses: int = 0
    seconds: float = 0.0
    figures: Figures = field(default_factory=Figures)

    @property
    def writes(self) -> int:
        """That were acknowledged."""
        return len(self.acknowledged_at_s)

    @property
    def longest_pause_s(self) -> float:
        """Between two acknowledged writes, of whatever tasks."""
        times = sorted(self.acknowledged_at_s)
        return max((later - earlier for earlier, later in pairwise(times)), default=0.0)

    def __str__(self) -> str:
        told, pause_ms = self.figures, self.longest_pause_s * 1000
        return (
            f"{self.kills} kills and {self.pauses} pauses of leaders, {self.writes} writes in {self.seconds:.0f} s; "
            f"{len(self.errors)} errors, {len(self.wrong)} writes not exactly once; longest pause {pause_ms:.0f} ms; "
            f"{told.retries} retries, {told.duplicates} answers that had been stored, {told.redirects} redirects, "
            f"{told.renumbered} renumbered, {told.sessions} sessions; "
            f"attempts that failed: {dict(sorted(told.failures.items()))}"
        )


class Writer:
    """One task of the program."""

    def __init__(self, client: Client, name: str, soaked: Soaked, *, think_s: float) -> None:
        self._client, self._name, self._soaked, self._think_s = client, name, soaked, think_s
        self._rng = Random(name)
        self._revision = 0
        self._puts = {f"{kind}/{name}": 0 for kind in ("chain", "tally", "left", "right")}

    async def write_until(self, stopping: asyncio.Event) -> None:
        """One write after the other. An error ends the task: the program would have had to deal with it."""
        try:
            while not stopping.is_set():
                await self._rng.choice([self._link, self._count, self._count_both])()
                self._soaked.acknowledged_at_s.append(time.monotonic())
                await asyncio.sleep(self._rng.uniform(0, 2 * self._think_s))
        except RequestError as error:
            self._soaked.errors.append(f"{self._name}: {type(error).__name__}: {error}")

    async def judge(self) -> None:
        """What the store holds is what was acknowledged."""
        for key, puts in self._puts.items():
            item = await self._client.get(key)
            self._expect(key, 0 if item is None else item.version, puts)

    async def _link(self) -> None:
        key = f"chain/{self._name}"
        done = await self._client.put(key, self._next_value(key), if_revision=self._revision)
        self._revision = done.revision
        self._expect(key, done.version, self._puts[key])

    async def _count(self) -> None:
        key = f"tally/{self._name}"
        done = await self._client.put(key, self._next_value(key))
        self._expect(key, done.version, self._puts[key])

    async def _count_both(self) -> None:
        keys = [f"left/{self._name}", f"right/{self._name}"]
        done = await self._client.txn(success=[Op.put(key, self._next_value(key)) for key in keys])
        for key, result in zip(keys, done.results, strict=True):
            assert isinstance(result, TxnPut)
            self._expect(key, result.version, self._puts[key])

    def _next_value(self, key: str) -> str:
        self._puts[key] += 1
        return f"{self._puts[key]}" + "." * self._rng.choice([0, 0, 200])

    def _expect(self, key: str, version: int, puts: int) -> None:
        if version != puts:
            self._soaked.wrong.append(f"{key} was put {version} times, by {puts} writes")


async def soak(
    cluster: LiveCluster, *, tasks: int, kills: int, pauses: int = 0, think_s: float = 0.01, settings: ClientSettings
) -> Soaked:
    """Kills of leaders, then pauses, each once writes flow again after the one before."""
    soaked, stopping = Soaked(), asyncio.Event()
    began_s = time.monotonic()
    async with Client([node.url for node in cluster.nodes.values()], settings=settings) as client:
        soaked.figures = client.figures
        writers = [Writer(client, f"{number}", soaked, think_s=think_s) for number in range(tasks)]
        writing = [asyncio.create_task(writer.write_until(stopping)) for writer in writers]
        for _ in range(kills):
            await _strike(cluster, soaked, "kill")
        for _ in range(pauses):
            await _strike(cluster, soaked, "pause")
        await _until_written(soaked, 3 * tasks)
        stopping.set()
        await asyncio.gather(*writing)
        await asyncio.gather(*(writer.judge() for writer in writers))
        soaked.figures = client.figures
    soaked.seconds = time.monotonic() - began_s
    return soaked


async def _strike(cluster: LiveCluster, soaked: Soaked, how: str) -> None:
    leader = await cluster.until_serving()
    await _until_written(soaked, 50)
    if how == "kill":
        soaked.kills += 1
        leader.kill()
        await _until_written(soaked, 50)
        leader.start()
    else:
        soaked.pauses += 1
        leader.pause()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PAUSED_S):
                await cluster.until_leader(other_than=leader)
                await _until_written(soaked, 50)
        leader.resume()


async def _until_written(soaked: Soaked, count: int) -> None:
    """So many writes were acknowledged from now on."""
    before = soaked.writes
    await until(
        lambda: soaked.writes >= before + count or bool(soaked.errors),
        within_s=WRITTEN_WITHIN_S,
        what=f"{count} writes to be acknowledged",
    )


@click.command()
@click.option("--kills", type=click.IntRange(0, 10_000), default=50, show_default=True)
@click.option("--pauses", type=click.IntRange(0, 10_000), default=0, show_default=True)
@click.option("--tasks", type=click.IntRange(1, 1000), default=64, show_default=True)
@click.option("--nodes", "nodes_count", type=click.Choice(["3", "5"]), default="3")
@click.option("--package-root", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(*, kills: int, pauses: int, tasks: int, nodes_count: str, package_root: Path | None) -> None:
    """Exit code 1: a write was not executed exactly once, or an error reached the program."""
    directory = Path(tempfile.mkdtemp(prefix="raftkv-client-soak-"))
    with LiveCluster(directory, nodes_count=int(nodes_count), package_root=package_root) as cluster:
        soaked = asyncio.run(_main(cluster, tasks=tasks, kills=kills, pauses=pauses))
    click.echo(str(soaked))
    for complaint in (soaked.errors + soaked.wrong)[:20]:
        click.echo(complaint)
    sys.exit(1 if soaked.errors or soaked.wrong else 0)


async def _main(cluster: LiveCluster, *, tasks: int, kills: int, pauses: int) -> Soaked:
    cluster.start()
    await cluster.until_serving()
    return await soak(cluster, tasks=tasks, kills=kills, pauses=pauses, settings=ClientSettings())


if __name__ == "__main__":
    main()
