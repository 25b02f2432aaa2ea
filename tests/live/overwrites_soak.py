"""``python -m tests.live.overwrites_soak``: what an endless load of overwrites leaves on the disks.

Told: how many keys, of which size, how many clients, for how long. Tells, for each part of that time: how much was
written, and what the log and the snapshots of the node that had most took at most. All settings are the defaults, so
the sizes are those of a node in service. Fails where the last part had more than the second one by more than a quarter;
in the first one it all comes to be.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from tests.live.cluster import LiveCluster
from tests.live.snapshot_soak import Load, metric

LOOKED_EVERY_S: Final = 0.2
GROWN_MAX: Final = 1.25


@dataclass(slots=True)
class Most:
    """The most that any node had at one moment, in bytes."""

    log: int = 0
    snapshots: int = 0

    def look(self, directories: Sequence[Path]) -> None:
        """As it is now: what files take of the disk, prepared room too."""
        for directory in directories:
            snapshots = taken(directory, "snapshot*")
            self.log = max(self.log, taken(directory, "*") - snapshots)
            self.snapshots = max(self.snapshots, snapshots)


def taken(directory: Path, pattern: str) -> int:
    """Of the disk, by all such files."""
    count = 0
    for path in directory.glob(pattern):
        with suppress(FileNotFoundError):  # deleted meanwhile
            count += path.stat().st_blocks * 512
    return count


async def soak(
    cluster: LiveCluster, *, keys: int, value_bytes: int, clients: int, minutes: float, parts: int
) -> list[Most]:
    """What each part of the time came to."""
    cluster.start()
    leader = await cluster.until_serving()
    directories = [node.directory for node in cluster.nodes.values()]
    told: list[Most] = []
    for part in range(1, parts + 1):
        load, most = Load(cluster, leader, keys, value_bytes, clients), Most()

        async def look(most: Most = most) -> None:
            ends_s = time.monotonic() + minutes * 60 / parts
            while time.monotonic() < ends_s:
                most.look(directories)
                await asyncio.sleep(LOOKED_EVERY_S)

        took_s = await load.during(look)
        snapshots = sum([await metric(cluster, node, "snapshot_writes_total") for node in cluster.nodes.values()])
        click.echo(f"part {part} of {parts}: {len(load.took_ms) * value_bytes / 2**20:,.0f} MiB, {load.told(took_s)}")
        click.echo(f"    on disk at most {most.log / 2**20:.0f} MiB of log, {most.snapshots / 2**20:.0f} of snapshots")
        click.echo(f"    {snapshots:.0f} snapshots were taken so far")
        told.append(most)
        assert load.failed == 0, f"{load.failed} puts failed"
    await cluster.until_equal()
    cluster.connections.close()
    return told


@click.command()
@click.option("--keys", default=20_000, show_default=True)
@click.option("--value-bytes", default=4_096, show_default=True)
@click.option("--clients", default=32, show_default=True)
@click.option("--minutes", default=5.0, show_default=True)
@click.option("--parts", type=click.IntRange(3), default=5, show_default=True)
@click.option("--nodes", default=3, show_default=True)
def main(keys: int, value_bytes: int, clients: int, minutes: float, parts: int, nodes: int) -> None:
    """Tell what overwrites leave on the disks."""
    with (
        tempfile.TemporaryDirectory(prefix="raftkv-soak-") as temporary,
        LiveCluster(Path(temporary), nodes_count=nodes) as cluster,
    ):
        told = asyncio.run(
            soak(cluster, keys=keys, value_bytes=value_bytes, clients=clients, minutes=minutes, parts=parts)
        )
    first, last = told[1], told[-1]
    if last.log > GROWN_MAX * first.log or last.snapshots > GROWN_MAX * first.snapshots:
        sys.exit("what is on the disks grows")
    click.echo("what is on the disks stays bounded")


if __name__ == "__main__":
    main()
