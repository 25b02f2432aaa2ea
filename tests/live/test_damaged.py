"""A node whose snapshots are all damaged says what to do, and the words are followed to the end (faults 58)."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from raftkv.storage.snapshot_reading import SNAPSHOT_PREFIX
from tests.live.cluster import SERVING_WITHIN_S, LiveCluster, LiveNode, eventually, until
from tests.live.membership import decided, voters_in
from tests.live.test_members import command, get, put, until_replaced

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]
SHORT_LOGS = ("--snapshot-log-entries", "20", "--log-tail-entries", "1", "--log-tail-bytes", "1")


async def was_sent_a_snapshot(cluster: LiveCluster, lagging: LiveNode) -> None:
    """It was away while the others took snapshots, and their logs begin after what it has."""
    lagging.kill()
    for number in range(60):
        await put(cluster, b"%d" % number, b"x" * 100)

    async def logs_are_short() -> bool | None:
        # A snapshot that began late leaves fewer than 20 of the 60: only another write lets the next begin.
        await put(cluster, b"another", b"x" * 100)
        statuses = await cluster.statuses(cluster.up())
        return all(status["snapshot_index"] > 50 for status in statuses.values()) or None

    await eventually(logs_are_short, within_s=SERVING_WITHIN_S, what="the others' snapshots")
    lagging.start()
    await until(
        lambda: "goes on from the snapshot" in lagging.log_text(),
        within_s=SERVING_WITHIN_S,
        what="a snapshot to be sent",
    )
    await cluster.until_equal()


def damage(directory: Path) -> list[str]:
    """A byte of each of its snapshots is another; which they are."""
    damaged = sorted(directory.glob(f"{SNAPSHOT_PREFIX}-*"))
    for path in damaged:
        content = bytearray(path.read_bytes())
        content[-40] ^= 1
        path.write_bytes(content)
    return [path.name for path in damaged]


async def test_the_way_back_from_a_damaged_snapshot_is_what_the_node_says(tmp_path: Path) -> None:
    with LiveCluster(tmp_path, nodes_count=3, options=SHORT_LOGS) as cluster:
        cluster.start()
        leader = await cluster.until_serving()
        hurt = next(node for node in cluster.nodes.values() if node is not leader)
        await was_sent_a_snapshot(cluster, hurt)
        hurt.kill()
        damaged = damage(hurt.directory)
        hurt.start()
        assert await hurt.ended() == 76
        said = hurt.log_text()
        assert [name for name in damaged if name not in said] == [] != damaged
        assert "Nothing was changed." in said
        doctor, move, _, replace = re.findall(r"^  (raftkv|mv) (.*)$", said, re.MULTILINE)
        assert shlex.split(doctor[1]) == [
            *("doctor", "--endpoints"),
            ",".join(node.url for node in cluster.nodes.values() if node is not hurt),
        ]
        code, out, _ = await command(cluster, *shlex.split(doctor[1]))
        assert code != 0 and f"raftkv member replace {hurt.id}" in out
        source, target = map(Path, shlex.split(move[1]))
        assert source == hurt.directory
        source.rename(target)
        again = cluster.make_joining(hurt.id, hurt.port)
        again.start()

        await until_replaced(cluster, *shlex.split(replace[1]))
        await cluster.until_serving()
        assert voters_in(await decided(cluster, "GET")) == sorted(cluster.nodes)
        assert len({status["state_hash"] for status in (await cluster.until_equal()).values()}) == 1
        assert await get(cluster, b"59") == b"x" * 100
        cluster.connections.close()
