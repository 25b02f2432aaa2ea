"""Somebody opens connections and says nothing: the node serves on, and its log goes on."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import pytest

from tests.live.cluster import LiveCluster
from tests.live.wire import Connections

pytestmark = [pytest.mark.live, pytest.mark.timeout(60)]

DESCRIPTORS_MAX: Final = 512
MIB: Final = 1024 * 1024


async def test_silent_connections_take_nothing_from_the_log(tmp_path: Path) -> None:
    """Neither the system's limit nor a lower one that the process began with is ever reached."""
    with LiveCluster(tmp_path, nodes_count=1) as cluster:
        (node,) = cluster.nodes.values()
        node.command += ["--segment-bytes", str(MIB)]
        limits = f"ulimit -n {DESCRIPTORS_MAX}; ulimit -S -n {DESCRIPTORS_MAX // 2}"
        node.command[:0] = ["sh", "-c", limits + '; exec "$@"', "sh"]
        cluster.start()
        await cluster.until_serving()
        client = Connections()
        await client.exchange(node.address, "GET", "/v1/status", timeout_s=5.0)
        silent = [await asyncio.open_connection(*node.address) for _ in range(DESCRIPTORS_MAX + 100)]
        for number in range(8):
            answer = await client.exchange(node.address, "PUT", f"/v1/kv/{number}", body=bytes(MIB // 2), timeout_s=5.0)
            assert answer.status == 201
        assert node.is_up
        for _, writer in silent:
            writer.close()
        client.close()
