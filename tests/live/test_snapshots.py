"""Snapshots of real processes: logs stay short, who was away long enough is sent one, and any of them may die anywhere.

The figures are small, so that a snapshot is due after a few writes and a segment of the log is soon not needed any
more; ``snapshot_soak`` has the large ones.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.live.cluster import LiveCluster, LiveNode, Status, eventually
from tests.live.wire import Answer, Trouble

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]

SNAPSHOT_BYTES = 100_000
OPTIONS = (
    *("--snapshot-log-bytes", str(SNAPSHOT_BYTES), "--segment-bytes", str(1024 * 1024)),
    *("--log-tail-entries", "5", "--log-tail-bytes", "200000", "--log-memory-bytes", str(1024 * 1024)),
)
VALUE_BYTES = 20_000
ENOUGH = 12
"""So many writes are more than a snapshot's worth, and more than what is kept before it."""
CAUGHT_UP_WITHIN_S = 30.0


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveCluster]:
    directory = tmp_path_factory.mktemp("snapshots")
    with LiveCluster(directory, nodes_count=3, breakable=True, options=OPTIONS) as cluster:
        cluster.start()
        yield cluster


@pytest.fixture
async def cluster(processes: LiveCluster) -> AsyncIterator[LiveCluster]:
    """Serving before each test; after it all nodes have the same state, and every write that was acknowledged."""
    processes.mend()
    await processes.until_serving()
    yield processes
    processes.mend()
    await all_are_equal(processes)
    processes.connections.close()


class Writer:
    """Overwrites a few keys, and knows what each must hold."""

    def __init__(self, cluster: LiveCluster, name: str) -> None:
        self._cluster, self._name = cluster, name
        self.acknowledged: dict[str, bytes] = {}
        self.count = 0

    async def write(self, count: int) -> None:
        for _ in range(count):
            self.count += 1
            key = f"key{self.count % 10}"
            value = f"{self._name} {self.count:08d}".encode().ljust(VALUE_BYTES)
            answer = await asked(self._cluster, "PUT", f"/v1/kv/{key}", body=value)
            assert answer.status in (200, 201), answer
            self.acknowledged[key] = value

    async def check(self) -> None:
        """No acknowledged write is lost."""
        for key, value in self.acknowledged.items():
            answer = await asked(self._cluster, "GET", f"/v1/kv/{key}")
            assert answer.status == 200 and answer.body == value, (key, answer.body[:20], value[:20])


async def asked(
    cluster: LiveCluster, method: str, target: str, *, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> Answer:
    """The leader's answer, whoever that is; puts are the same however often they arrive."""

    async def look() -> Answer | None:
        for node in cluster.up():
            try:
                answer = await cluster.connections.exchange(
                    node.address, method, target, body=body, headers=headers, timeout_s=7.0
                )
            except Trouble:
                continue
            if answer.status < 300 or 400 <= answer.status < 500:
                return answer
        return None

    return await eventually(look, within_s=20.0, what=f"an answer to {method} {target}")


async def take_snapshot(cluster: LiveCluster, node: LiveNode) -> dict[str, Any]:
    answer = await cluster.connections.exchange(
        node.address,
        "POST",
        "/v1/admin/snapshot",
        headers={"Content-Type": "application/json"},
        body=b"{}",
        timeout_s=30.0,
    )
    assert answer.status == 200, answer
    told: dict[str, Any] = json.loads(answer.body)
    return told


async def all_are_equal(cluster: LiveCluster) -> dict[str, Status]:
    """All have applied the same entries, and have the same state; what they said then."""

    async def equal() -> dict[str, Status] | None:
        statuses = await cluster.statuses(cluster.nodes.values())
        found = {(status["applied_index"], status["state_hash"]) for status in statuses.values()}
        are_equal = len(statuses) == len(cluster.nodes) and len(found) == 1 and None not in next(iter(found))
        return statuses if are_equal else None

    return await eventually(equal, within_s=CAUGHT_UP_WITHIN_S, what="all nodes to have the same state")


async def metric(cluster: LiveCluster, node: LiveNode, name: str) -> float:
    answer = await cluster.connections.exchange(node.address, "GET", "/metrics", timeout_s=7.0)
    (line,) = [line for line in answer.body.decode().splitlines() if line.startswith(f"raftkv_{name} ")]
    return float(line.split()[1])


async def follower(cluster: LiveCluster) -> LiveNode:
    leader = await cluster.until_serving()
    return next(node for node in cluster.nodes.values() if node is not leader)


async def test_the_log_stays_short_however_much_is_written(cluster: LiveCluster) -> None:
    writer = Writer(cluster, "endless")
    await writer.write(500)
    for node in cluster.nodes.values():
        status = await cluster.told(node)
        assert status["snapshot_index"] > 300
        assert status["log_bytes"] <= 4 * 1024 * 1024, "10 MB were written"
        assert await metric(cluster, node, "snapshot_writes_total") >= 8, (
            "one for each megabyte, less what a machine that stands still joins"
        )
    await writer.check()


async def test_a_restart_begins_with_the_snapshot_and_goes_on_with_the_log(cluster: LiveCluster) -> None:
    writer = Writer(cluster, "restart")
    await writer.write(ENOUGH)
    await cluster.until_equal()
    for node in cluster.nodes.values():
        told = await take_snapshot(cluster, node)
        assert told["index"] > 0 and told["bytes"] > 10 * VALUE_BYTES
        assert (await take_snapshot(cluster, node))["changed"] is False
    await writer.write(2)
    before = await cluster.until_equal()
    cluster.kill_all()
    cluster.start()
    await cluster.until_serving()
    for node in cluster.nodes.values():
        assert node.log_text().count("event=snapshot_restored") >= 1
        status = await cluster.told(node)
        assert status["snapshot_index"] >= before[node.id]["snapshot_index"] > 0
    await writer.check()


async def test_answers_of_sessions_survive_snapshot_and_restart(cluster: LiveCluster) -> None:
    """faults 47: a failed condition's too."""
    opened = await asked(cluster, "POST", "/v1/sessions")
    session = json.loads(opened.body)["session"]

    def put(number: int, **more: str) -> Awaitable[Answer]:
        headers = {"Raftkv-Session": session, "Raftkv-Sequence": str(number), **more}
        return asked(cluster, "PUT", "/v1/kv/once", body=b"v", headers=headers)

    done, failed = await put(1), await put(2, **{"If-None-Match": "*"})
    assert (done.status, failed.status) == (201, 412)
    for node in cluster.nodes.values():
        await take_snapshot(cluster, node)
    cluster.kill_all()
    cluster.start()
    await cluster.until_serving()
    for first, again in ((done, await put(1)), (failed, await put(2, **{"If-None-Match": "*"}))):
        assert again.headers["raftkv-duplicate"] == "true"
        assert (again.status, again.body, again.headers.get("etag")) == (
            first.status,
            first.body,
            first.headers.get("etag"),
        )
        assert again.headers["raftkv-applied-index"] == first.headers["raftkv-applied-index"]


@asynccontextmanager
async def writing_on(writer: Writer) -> AsyncIterator[None]:
    """Clients do not stop meanwhile."""
    stopped = False

    async def write() -> None:
        while not stopped:
            await writer.write(1)

    task = asyncio.create_task(write())
    try:
        yield
    finally:
        stopped = True
        await task


async def test_who_was_away_for_long_is_sent_a_snapshot_while_clients_write_on(cluster: LiveCluster) -> None:
    away = await follower(cluster)
    away.kill()
    writer = Writer(cluster, "away")
    await writer.write(5 * ENOUGH)
    before = await cluster.until_serving()
    term = (await cluster.told(before))["term"]
    async with writing_on(writer):
        away.start()
        await has_loaded(cluster, away)
    assert {status["term"] for status in (await cluster.all_told()).values()} == {term}, "nobody else came to lead"
    await writer.check()


async def has_loaded(cluster: LiveCluster, node: LiveNode, *, loads: int = 1) -> None:
    """It was sent a snapshot, has loaded it, and has applied nearly all that there is."""

    async def caught_up() -> bool | None:
        statuses = await cluster.statuses()
        newest = max((status["applied_index"] for status in statuses.values()), default=0)
        own = statuses.get(node.id)
        return (own is not None and own["applied_index"] > newest - 10) or None

    await eventually(caught_up, within_s=CAUGHT_UP_WITHIN_S, what=f"{node.id} to catch up")
    assert await metric(cluster, node, "snapshot_loads_total") >= loads


async def test_while_a_disk_is_full_the_log_goes_on_without_snapshots(cluster: LiveCluster) -> None:
    """faults 56: and they come again when there is room."""
    node = await follower(cluster)
    node.breaks(disk_full=True)
    writer = Writer(cluster, "full")

    async def fails() -> bool | None:
        await writer.write(1)
        return "event=snapshot_failed" in node.log_text() or None

    await eventually(fails, within_s=20.0, what="a snapshot that fails")
    assert await metric(cluster, node, "snapshot_failures_total") >= 1
    node.breaks()
    assert (await take_snapshot(cluster, node))["changed"] is True
    await writer.check()


OWN_POINTS = (
    "after write snapshot.new",
    "before rename snapshot-",
    "after rename snapshot-",
    "after drop snapshot-",
    "before drop log-",
    "after drop log-",
)
INSTALL_POINTS = (
    "after write receiving-",
    "before rename snapshot-",
    "after rename snapshot-",
    "before load",
    "after load",
)


async def died(node: LiveNode, act: Callable[[], Awaitable[object]]) -> None:
    """The node was alive until this was done, or some of it."""

    async def look() -> bool | None:
        if node.is_running:
            await act()
        return not node.is_running or None

    await eventually(look, within_s=CAUGHT_UP_WITHIN_S, what=f"{node.id} to die")


async def test_killed_anywhere_on_the_way_to_a_snapshot_a_node_goes_on(cluster: LiveCluster) -> None:
    """faults 43, 44: no zero-byte snapshot, no entry skipped or done twice."""
    writer = Writer(cluster, "own")
    for point in OWN_POINTS:
        node = await follower(cluster)
        node.breaks(dies=point)
        await died(node, lambda: writer.write(1))
        node.breaks()
        node.start()
        await all_are_equal(cluster)
    await writer.check()


async def test_killed_anywhere_while_it_is_sent_one_a_node_goes_on(cluster: LiveCluster) -> None:
    """faults 41, 43: what is there of it is gone on with, or thrown away whole."""
    writer = Writer(cluster, "install")
    for point in INSTALL_POINTS:
        node = await follower(cluster)
        node.kill()
        await writer.write(3 * ENOUGH)
        node.breaks(dies=point)
        node.start()
        await died(node, lambda: asyncio.sleep(0))
        node.breaks()
        node.start()
        await all_are_equal(cluster)
    await writer.check()
