"""Streams to real nodes: through the front door, to the leader, and to their end when a node stops."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import aiohttp
import msgpack
from aiohttp import WSMsgType

from raftkv import KeyValueMachine
from tests.api.streams import get, put
from tests.node.nodes import PATIENCE_S, configs, leader_of, running

STEADY: dict[str, Any] = {"heartbeat_ms": 100, "election_timeout_ms": 2000}
"""What is counted here is the same leader's from the first write to the last: a machine that stops for a moment
elects nobody else.
"""


async def answers(stream: aiohttp.ClientWebSocketResponse, count: int) -> dict[int, list[Any]]:
    """By id, as they come."""
    async with asyncio.timeout(PATIENCE_S):
        found = [msgpack.unpackb(await stream.receive_bytes()) for _ in range(count)]
    return {id: rest for id, *rest in found}


async def test_a_stream_leads_through_the_front_door_to_the_leader_and_ends_as_it_stops(tmp_path) -> None:
    async with running(configs(tmp_path, 3, **STEADY), KeyValueMachine) as nodes, aiohttp.ClientSession() as session:
        leader = await leader_of(nodes)
        other = next(node for node in nodes if node is not leader)
        async with session.ws_connect(f"{other.config.url}/v1/stream") as elsewhere:
            await elsewhere.send_bytes(put(1))
            await elsewhere.send_bytes(get(2))
            away = await answers(elsewhere, 2)
        assert [status for status, _, _ in away.values()] == [307, 307]
        assert away[1][1]["Location"] == f"{leader.config.url}/v1/kv/a"
        async with session.ws_connect(f"{leader.config.url}/v1/stream") as stream:
            for id in range(600):
                await stream.send_bytes(put(id, f"k{id % 50}", b"%d" % id))
            written = await answers(stream, 600)
            assert Counter(status for status, _, _ in written.values()) == {201: 50, 200: 550}
            revisions = [headers["ETag"] for _, headers, _ in written.values()]
            assert sorted(revisions, key=lambda tag: int(tag.strip('"'))) == [f'"{i}"' for i in range(1, 601)]
            for id in range(50):
                await stream.send_bytes(get(id, f"k{id}"))
            read = await answers(stream, 50)
            assert [read[id][2] for id in range(50)] == [b"%d" % (550 + id) for id in range(50)]
            stopping = asyncio.create_task(leader.stop())
            ended = await stream.receive()
            assert (ended.type, ended.data) == (WSMsgType.CLOSE, 1001)
            await stopping
