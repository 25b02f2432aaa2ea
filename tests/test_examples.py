"""The examples do what they say, with nodes in this process and customers over real HTTP."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from examples import tickets
from examples.tickets import Tickets, face
from raftkv import LogEntry, Node
from tests.live.cluster import free_ports
from tests.node.nodes import PATIENCE_S, configs, leader_of, running


@asynccontextmanager
async def faces(nodes: list[Node]) -> AsyncIterator[dict[str, str]]:
    """The nodes' own HTTP, by node."""
    ports = dict(zip((node.config.id for node in nodes), free_ports(len(nodes) * 2)[len(nodes) :], strict=True))
    urls = {str(id): f"http://127.0.0.1:{port}" for id, port in ports.items()}
    runners = []
    for node in nodes:
        runners.append(web.AppRunner(face(node, urls)))
        await runners[-1].setup()
        await web.TCPSite(runners[-1], "127.0.0.1", ports[node.config.id]).start()
    yield urls
    await asyncio.gather(*(runner.cleanup() for runner in runners))


async def draw(session: aiohttp.ClientSession, url: str, customer: str) -> int:
    """The ticket, however often one must ask."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            async with session.post(f"{url}/tickets/{customer}") as answer:
                if answer.status == 200:
                    return int((await answer.json())["ticket"])
                assert answer.status in (503, 504), await answer.text()
            await asyncio.sleep(0.02)


async def test_tickets_are_drawn_at_any_node_and_outlive_the_leader(tmp_path) -> None:
    made = configs(tmp_path, 3)
    async with running(made, Tickets) as nodes, faces(nodes) as urls, aiohttp.ClientSession() as session:
        crowd = [f"customer {i}" for i in range(30)]
        drawing = [draw(session, urls[nodes[i % 3].config.id], customer) for i, customer in enumerate(crowd)]
        drawn_by_all = await asyncio.gather(*drawing)
        assert sorted(drawn_by_all) == list(range(1, 31)), "nobody got another's, and no number is missing"
        leader = await leader_of(nodes)
        await leader.stop()
        left = [node for node in nodes if node is not leader]
        here = urls[left[0].config.id]
        assert await draw(session, here, "late") == 31
        assert await draw(session, here, "customer 7") == drawn_by_all[7], "who asks again gets the same"
        async with session.get(f"{here}/tickets") as drawn:
            assert await drawn.json() == {"drawn": 31}
        async with session.post(f"{urls[leader.config.id]}/tickets/x") as stopped:
            assert stopped.status == 503


def test_tickets_come_back_from_a_snapshot() -> None:
    one, other = Tickets(), Tickets()
    assert one.apply_batch([LogEntry(1, 0, b"\xff"), LogEntry(2, 0, b"b"), LogEntry(3, 0, b"\xff")]) == [1, 2, 1]
    other.restore(one.snapshot())
    assert other.apply_batch([LogEntry(4, 0, b"b"), LogEntry(5, 0, b"c")]) == [2, 3]


@pytest.mark.parametrize("words", [(), ("n7",), ("n1", "n2")], ids=str)
def test_a_command_line_that_names_no_node_is_answered_with_the_one_that_does(words) -> None:
    ended = subprocess.run(
        [sys.executable, tickets.__file__, *words], capture_output=True, text=True, check=False, timeout=30
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == f"usage: python {tickets.__file__} n1|n2|n3\n"
