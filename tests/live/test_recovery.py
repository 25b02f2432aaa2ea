"""Backups of clusters that serve, what becomes of them, and a survivor of three: real processes, real commands."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from raftkv.kv.snapshot import REVISION_RAISE
from tests.live.cluster import CHECKOUT, HOST, LiveCluster, LiveNode, eventually, free_ports
from tests.live.membership import add
from tests.live.test_snapshots import all_are_equal, asked
from tests.live.wire import Answer

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]

OPTIONS = ("--snapshot-bytes-per-s", str(512 * 1024 * 1024))
KEYS = [f"key{place}" for place in range(5)]


async def raftkv(*words: str, code: int = 0) -> dict[str, Any]:
    """What a command says to a program; it ends with this code."""
    command = [sys.executable, "-m", "raftkv", *words, "--output", "json"]
    process = await asyncio.create_subprocess_exec(
        *command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=CHECKOUT
    )
    out, err = await process.communicate()
    assert process.returncode == code, (words, out, err)
    said: dict[str, Any] = json.loads(out if not code else err)
    return said


async def put(cluster: LiveCluster, key: str, value: str, headers: Mapping[str, str] | None = None) -> Answer:
    answer = await asked(cluster, "PUT", f"/v1/kv/{key}", body=value.encode(), headers=headers)
    assert answer.status in (200, 201), answer
    return answer


async def numbered(cluster: LiveCluster, session: str, number: int) -> Answer:
    headers = {"Raftkv-Session": session, "Raftkv-Sequence": str(number)}
    return await put(cluster, f"once{number}", f"value {number}", headers)


async def opened_session(cluster: LiveCluster) -> str:
    headers = {"Content-Type": "application/json"}
    answer = await asked(cluster, "POST", "/v1/sessions", headers=headers, body=b'{"ttl_ms":3600000}')
    return str(json.loads(answer.body)["session"])


class Writer:
    """Writes one number into all keys at once, again and again: at any moment they are all equal."""

    def __init__(self, cluster: LiveCluster) -> None:
        self._cluster = cluster
        self.tried = self.acknowledged = 0
        self.etags: list[int] = []
        self.stopping = False

    async def run(self) -> None:
        while not self.stopping:
            await self.write()

    async def write(self) -> None:
        self.tried += 1
        puts = [{"put": {"key": key, "value": str(self.tried)}} for key in KEYS]
        body = json.dumps({"success": puts}).encode()
        headers = {"Content-Type": "application/json"}
        answer = await asked(self._cluster, "POST", "/v1/txn", headers=headers, body=body)
        assert answer.status == 200, answer
        self.acknowledged = self.tried
        self.etags.append(json.loads(answer.body)["revision"])

    async def read(self, cluster: LiveCluster) -> int:
        """The number that all keys have."""
        answers = [await asked(cluster, "GET", f"/v1/kv/{key}") for key in KEYS]
        (number,) = {int(answer.body) for answer in answers}
        return number


def lone(directory: Path) -> LiveCluster:
    """Of a node that is told of no other."""
    return LiveCluster(directory, nodes_count=1, options=OPTIONS)


async def status_of(cluster: LiveCluster, node: LiveNode) -> Mapping[str, Any]:
    async def led() -> Mapping[str, Any] | None:
        status = await cluster.status(node)
        return status if status is not None and status["role"] == "leader" else None

    return await eventually(led, within_s=20.0, what=f"{node.id} to lead")


async def test_a_backup_under_load_is_one_moment_and_restores(tmp_path: Path) -> None:
    backup = tmp_path / "monday.backup"
    with LiveCluster(tmp_path / "old", nodes_count=3, options=OPTIONS) as cluster:
        cluster.start()
        await cluster.until_serving()
        session = await opened_session(cluster)
        first = await numbered(cluster, session, 1)
        for place in range(40):
            await put(cluster, f"filler{place}", "x" * 100_000)
        writer = Writer(cluster)
        await writer.write()
        writing = asyncio.create_task(writer.run())
        endpoints = ",".join(node.url for node in cluster.nodes.values())
        acknowledged_before = writer.acknowledged
        said = await raftkv("backup", str(backup), "--endpoints", endpoints)
        tried_after = writer.tried
        refused = await raftkv("backup", str(backup), "--endpoints", endpoints, code=4)
        assert "--force" in refused["error"]["message"]
        writer.stopping = True
        await writing
        assert said["bytes"] == backup.stat().st_size > 4_000_000
        assert sorted(os.listdir(tmp_path)) == [backup.name, "old"]
        # Nothing was acknowledged in the session after the backup: its number 2 is free in both clusters.
        old_status = await cluster.told(await cluster.until_serving())
        cluster.connections.close()

    with lone(tmp_path / "new") as cluster:
        (node,) = cluster.nodes.values()
        words = ("restore", str(backup), "--data-dir", str(node.directory), "--id", "n1", "--url", node.url)
        told = await raftkv(*words)
        await raftkv(*words, code=4)  # never over what is there
        cluster.start()
        status = await status_of(cluster, node)
        assert status["cluster_id"] == told["cluster_id"] != old_status["cluster_id"]
        number = await writer.read(cluster)
        assert acknowledged_before <= number <= tried_after
        assert status["state_hash"] == told["state_hash"], "nothing was done to the state on the way"
        assert status["revision"] == said["revision"] + REVISION_RAISE
        again = await numbered(cluster, session, 1)
        assert again.headers["raftkv-duplicate"] == "true"
        assert (again.headers["etag"], again.body) == (first.headers["etag"], first.body)
        new = await put(cluster, "new", "value")
        assert int(new.headers["etag"].strip('"')) > max(writer.etags)
        # And it grows, by nodes that are sent the state.
        (port,) = free_ports(1)
        await add(cluster, "n2", port)
        await all_are_equal(cluster)
        assert await writer.read(cluster) == number
        cluster.connections.close()


async def test_a_survivor_of_three_is_a_cluster_that_grows_to_three_again(tmp_path: Path) -> None:
    with LiveCluster(tmp_path, nodes_count=3, options=OPTIONS) as cluster:
        cluster.start()
        await cluster.until_serving()
        session = await opened_session(cluster)
        first = await numbered(cluster, session, 1)
        writer = Writer(cluster)
        for _ in range(20):
            await writer.write()
        old_status = (await all_are_equal(cluster))["n1"]
        running = await raftkv("recover", "--data-dir", str(cluster.nodes["n1"].directory), code=4)
        assert running["error"]["code"] == "directory_locked"
        cluster.kill_all()
        lost = [cluster.nodes.pop("n2"), cluster.nodes.pop("n3")]
        survivor = cluster.nodes["n1"]
        looked = await raftkv("recover", "--data-dir", str(survivor.directory))
        assert looked["last_index"] >= old_status["last_index"] and looked["voters"] == ["n1", "n2", "n3"]
        unsure = await raftkv("recover", "--data-dir", str(survivor.directory), "--force-new-cluster", code=2)
        assert "--yes" in unsure["error"]["message"]
        told = await raftkv("recover", "--data-dir", str(survivor.directory), "--force-new-cluster", "--yes")
        survivor.start()  # with the same command line as ever
        status = await status_of(cluster, survivor)
        assert status["cluster_id"] == told["cluster_id"] != old_status["cluster_id"]
        assert status["revision"] == old_status["revision"] + REVISION_RAISE
        assert await writer.read(cluster) == writer.acknowledged
        again = await numbered(cluster, session, 1)
        assert (again.headers["raftkv-duplicate"], again.headers["etag"]) == ("true", first.headers["etag"])
        # A node of the old cluster comes back: it neither joins, nor leads, nor harms.
        ghost = lost[0]
        ghost.start()
        for node in lost[1:]:
            node.empty()
        for id, port in zip(("n4", "n5"), free_ports(2), strict=True):
            await add(cluster, id, port)
        await all_are_equal(cluster)
        members = json.loads((await asked(cluster, "GET", "/v1/admin/members")).body)
        assert [voter["id"] for voter in members["voters"]] == ["n1", "n4", "n5"]
        haunting = await cluster.status(ghost)
        assert haunting is None or haunting["role"] != "leader"
        await put(cluster, "after", "value")
        # Any one may go now.
        cluster.nodes["n1"].kill()
        await cluster.until_leader()
        assert (await asked(cluster, "GET", "/v1/kv/after")).body == b"value"
        ghost.kill()
        cluster.connections.close()


async def test_clients_that_go_away_midway_leave_nothing_behind(tmp_path: Path) -> None:
    """More than are sent at once go away, one after the other; then the next still gets its backup."""
    options = ("--snapshot-bytes-per-s", str(4 * 1024 * 1024))
    with LiveCluster(tmp_path, nodes_count=1, options=options) as cluster:
        cluster.start()
        node = await cluster.until_serving()
        for place in range(30):
            await put(cluster, f"filler{place}", "x" * 200_000)
        for _ in range(4):
            reader, writer = await asyncio.open_connection(HOST, node.port)
            writer.write(b"GET /v1/admin/backup HTTP/1.1\r\nHost: it\r\n\r\n")
            assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
            await reader.readexactly(50_000)
            writer.transport.abort()
        said = await raftkv("backup", str(tmp_path / "b"), "--endpoints", node.url)
        assert said["keys"] == 30
        # And the node stops at once, while one more is being sent.
        reader, writer = await asyncio.open_connection(HOST, node.port)
        writer.write(b"GET /v1/admin/backup HTTP/1.1\r\nHost: it\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        node.ask_to_stop()
        assert await node.ended() == 0
        writer.close()
        cluster.connections.close()
