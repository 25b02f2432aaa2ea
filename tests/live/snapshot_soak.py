"""``python -m tests.live.snapshot_soak``: what snapshots cost a store of a million keys, and what they spare it.

Told: how many keys, of which size, how many clients. Tells, for each phase: how long puts took, how long the longest
turn of each node's pump was, what each node's memory came to; and how long the snapshots, a follower's way back after
many writes and a start took. Snapshots are taken when this asks for them, and not by themselves.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

import click
import msgpack

from tests.live.cluster import LiveCluster, LiveNode, eventually
from tests.live.wire import Trouble

OPTIONS: Final = ("--snapshot-log-bytes", str(2**40), "--snapshot-log-entries", str(10**9))
FILL_OPERATIONS: Final = 128
FILL_BYTES_MAX: Final = 1024 * 1024
FILLERS: Final = 4
PATIENCE_S: Final = 300.0


@dataclass(slots=True)
class Load:
    """Clients that overwrite keys at random, one put after the other."""

    cluster: LiveCluster
    leader: LiveNode
    keys: int
    value_bytes: int
    clients: int
    took_ms: list[float] = field(default_factory=list)
    failed: int = 0
    _stopped: bool = False

    async def put_on(self, seed: int) -> None:
        """Until it is stopped."""
        rng = Random(seed)
        while not self._stopped:
            target = f"/v1/kv/{key_of(rng.randrange(self.keys))}"
            began_s = time.perf_counter()
            try:
                answer = await self.cluster.connections.exchange(
                    self.leader.address, "PUT", target, body=rng.randbytes(self.value_bytes), timeout_s=10.0
                )
            except Trouble:
                self.failed += 1
                continue
            self.took_ms.append((time.perf_counter() - began_s) * 1000)
            self.failed += answer.status not in (200, 201)

    async def during(self, act: Callable[[], Awaitable[object]]) -> float:
        """Puts go on while that is done; how many seconds it took."""
        self.took_ms, self.failed, self._stopped = [], 0, False
        clients = [asyncio.create_task(self.put_on(seed)) for seed in range(self.clients)]
        began_s = time.perf_counter()
        try:
            await act()
        finally:
            took_s = time.perf_counter() - began_s
            self._stopped = True
            await asyncio.gather(*clients)
        return took_s

    def told(self, seconds: float) -> str:
        """What came of it."""
        times = sorted(self.took_ms) or [0.0]
        p50, p99, p999 = (times[min(len(times) - 1, int(len(times) * part))] for part in (0.5, 0.99, 0.999))
        rate = len(self.took_ms) / seconds
        longest = f"p99.9 {p999:.1f}, longest {times[-1]:.1f} ms"
        return f"{rate:,.0f} puts/s, p50 {p50:.1f}, p99 {p99:.1f}, {longest}; {self.failed} failed; {seconds:.1f} s"


def key_of(number: int) -> str:
    """One of the keys."""
    return f"key{number:09d}"


async def fill(cluster: LiveCluster, *, keys: int, value_bytes: int) -> None:
    """All keys are there, though leaders may come and go: a dict that grows keeps all nodes at the same moment."""
    at_once = max(1, min(FILL_OPERATIONS, FILL_BYTES_MAX // (value_bytes + 64)))
    starts = iter(range(0, keys, at_once))

    async def go_on(rng: Random) -> None:
        for start in starts:
            puts = [
                {"put": {"key": key_of(number), "value": rng.randbytes(value_bytes)}}
                for number in range(start, min(keys, start + at_once))
            ]
            await txn(cluster, msgpack.packb({"success": puts}))

    await asyncio.gather(*(go_on(Random(seed)) for seed in range(FILLERS)))


async def txn(cluster: LiveCluster, body: bytes) -> None:
    """It is executed, once or more often: it only puts."""

    async def look() -> bool | None:
        for node in cluster.up():
            try:
                answer = await cluster.connections.exchange(
                    node.address,
                    "POST",
                    "/v1/txn",
                    headers={"Content-Type": "application/msgpack"},
                    body=body,
                    timeout_s=30.0,
                )
            except Trouble:
                continue
            if answer.status == 200:
                return True
        return None

    await eventually(look, within_s=PATIENCE_S, what="a transaction to be executed")


async def snapshot(cluster: LiveCluster, node: LiveNode) -> dict[str, int]:
    """The node has one of all that it has applied."""
    answer = await cluster.connections.exchange(
        node.address,
        "POST",
        "/v1/admin/snapshot?wait_ms=300000",
        headers={"Content-Type": "application/json"},
        body=b"{}",
        timeout_s=PATIENCE_S,
    )
    assert answer.status == 200, answer
    told: dict[str, int] = json.loads(answer.body)
    return told


async def metric(cluster: LiveCluster, node: LiveNode, name: str) -> float:
    """As the node tells it."""
    answer = await cluster.connections.exchange(node.address, "GET", "/metrics", timeout_s=10.0)
    return next(
        float(line.split()[1]) for line in answer.body.decode().splitlines() if line.startswith(f"raftkv_{name} ")
    )


def memory_of(node: LiveNode) -> str:
    """What it has resident now, and had at most."""
    assert node.process is not None
    lines = Path(f"/proc/{node.process.pid}/status").read_text().splitlines()
    now, most = (
        int(line.split()[1]) // 1024 for name in ("VmRSS", "VmHWM") for line in lines if line.startswith(f"{name}:")
    )
    return f"{now} MiB (most {most})"


async def tell(cluster: LiveCluster, what: str) -> None:
    """What it was, and each node's longest turn since this was last told, and memory."""
    click.echo(what)
    for node in cluster.up():
        turn_ms = await metric(cluster, node, "node_longest_turn_since_scrape_seconds") * 1000
        stall_ms = await metric(cluster, node, "node_longest_stall_seconds") * 1000
        turns = f"longest turn {turn_ms:.1f} ms, longest stall ever {stall_ms:.0f} ms"
        click.echo(f"    {node.id}: {turns}, memory {memory_of(node)}")


async def until_ready(cluster: LiveCluster, node: LiveNode) -> None:
    """Its probe is satisfied."""

    async def look() -> bool | None:
        try:
            answer = await cluster.connections.exchange(node.address, "GET", "/readyz", timeout_s=2.0, kept=False)
        except Trouble:
            return None
        return answer.status == 200 or None

    await eventually(look, within_s=PATIENCE_S, what=f"{node.id} to be ready")


async def caught_up(cluster: LiveCluster, node: LiveNode) -> bool | None:
    """It has applied nearly all that anybody has."""
    statuses = await cluster.statuses()
    newest = max(status["applied_index"] for status in statuses.values())
    return (node.id in statuses and statuses[node.id]["applied_index"] > newest - 1000) or None


async def soak(cluster: LiveCluster, *, keys: int, value_bytes: int, clients: int, seconds: float, away: int) -> None:
    """All phases, one after the other."""
    cluster.start()
    await cluster.until_serving()
    began_s = time.perf_counter()
    await fill(cluster, keys=keys, value_bytes=value_bytes)
    await cluster.until_equal()
    leader = await cluster.until_serving()
    follower = next(node for node in cluster.nodes.values() if node is not leader)
    await tell(cluster, f"{keys:,} keys of {value_bytes} bytes are there after {time.perf_counter() - began_s:.1f} s")
    load = Load(cluster, leader, keys, value_bytes, clients)

    took_s = await load.during(lambda: asyncio.sleep(seconds))
    await tell(cluster, f"without a snapshot: {load.told(took_s)}")

    for node, name in ((leader, "the leader takes one"), (follower, "a follower takes one")):
        told: list[dict[str, int]] = []

        async def take(node: LiveNode = node, told: list[dict[str, int]] = told) -> None:
            told.append(await snapshot(cluster, node))

        took_s = await load.during(take)
        await tell(cluster, f"while {name} of {told[0]['bytes'] / 2**20:.0f} MiB: {load.told(took_s)}")

    follower.kill()

    async def enough() -> bool | None:
        return len(load.took_ms) >= away or None

    took_s = await load.during(lambda: eventually(enough, within_s=PATIENCE_S, what="enough puts"))
    await snapshot(cluster, leader)
    await tell(cluster, f"a follower is away for {away:,} puts: {load.told(took_s)}")
    follower.start()
    took_s = await load.during(
        lambda: eventually(lambda: caught_up(cluster, follower), within_s=PATIENCE_S, what="it to catch up")
    )
    loads = await metric(cluster, follower, "snapshot_loads_total")
    load_s = await metric(cluster, follower, "snapshot_last_load_seconds")
    await tell(cluster, f"it is back, sent {loads:.0f} snapshot, loaded in {load_s:.1f} s: {load.told(took_s)}")

    await snapshot(cluster, follower)
    follower.kill()
    began_s = time.perf_counter()
    follower.start()
    await until_ready(cluster, follower)
    await tell(cluster, f"started from its snapshot, it is ready after {time.perf_counter() - began_s:.1f} s")

    for node in cluster.nodes.values():
        await snapshot(cluster, node)
    cluster.kill_all()
    began_s = time.perf_counter()
    cluster.start()
    for node in cluster.nodes.values():
        await until_ready(cluster, node)
    await tell(cluster, f"all started at once, all are ready after {time.perf_counter() - began_s:.1f} s")
    await cluster.until_equal()
    hashes = {status["state_hash"] for status in (await cluster.statuses()).values()}
    click.echo("all states are equal" if len(hashes) == 1 else f"STATES DIFFER: {hashes}")
    assert len(hashes) == 1
    cluster.connections.close()


@click.command()
@click.option("--keys", default=1_000_000, show_default=True)
@click.option("--value-bytes", default=256, show_default=True)
@click.option("--clients", default=32, show_default=True)
@click.option("--seconds", default=20.0, show_default=True, help="For puts without a snapshot.")
@click.option("--away", default=200_000, show_default=True, help="Puts for which a follower is away.")
@click.option("--nodes", default=3, show_default=True)
@click.option("--directory", type=click.Path(path_type=Path), help="Kept, with the nodes' logs; else all is deleted.")
def main(
    keys: int, value_bytes: int, clients: int, seconds: float, away: int, nodes: int, directory: Path | None
) -> None:
    """Tell what snapshots cost."""
    with (
        tempfile.TemporaryDirectory(prefix="raftkv-soak-") as temporary,
        LiveCluster(directory or Path(temporary), nodes_count=nodes, options=OPTIONS) as cluster,
    ):
        try:
            asyncio.run(soak(cluster, keys=keys, value_bytes=value_bytes, clients=clients, seconds=seconds, away=away))
        except BaseException:
            for node in cluster.nodes.values():
                sys.stderr.write("".join(f"{line}\n" for line in node.log_text().splitlines()[-20:]))
            raise


if __name__ == "__main__":
    main()
