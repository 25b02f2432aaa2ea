"""Members of clusters of real processes come, go, are replaced and move; commands do it, clients notice little."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.live.client import Ask, Client, Members, now_ms
from tests.live.cluster import CHECKOUT, SERVING_WITHIN_S, LiveCluster, LiveNode, eventually, free_ports
from tests.live.membership import ask, decided, voters_in
from tests.live.membership_soak import soak
from tests.live.wire import Answer
from tests.live.workload import target_of

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]
TIMEOUT_S = 7.0
MAY_MEND = ("no node answers", "unreachable", "fewer than a majority", "another change of members")
"""By waiting: what stands in the way of a change that is asked for."""


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[LiveCluster]:
    with LiveCluster(tmp_path, nodes_count=3, options=("--member-catch-up-timeout-ms", "3000")) as three:
        three.start()
        await three.until_serving()
        yield three
        three.connections.close()
        assert [str(ending) for ending in three.endings() if ending.by_itself] == []


async def command(cluster: LiveCluster, *words: str) -> tuple[int, str, str]:
    """Exit code, what it printed, what it complained about."""
    asked = ",".join(node.url for node in cluster.nodes.values() if node.is_up)
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "RAFTKV_ENDPOINTS": asked}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "raftkv", *words),
        cwd=cluster.directory,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def put(cluster: LiveCluster, key: bytes, value: bytes) -> Answer:
    """Acknowledged, whoever leads."""
    return await settled(cluster, Ask("PUT", target_of(key), value, is_repeatable=True))


async def get(cluster: LiveCluster, key: bytes) -> bytes:
    return (await settled(cluster, Ask("GET", target_of(key), is_repeatable=True, changes_nothing=True))).body


async def settled(cluster: LiveCluster, asked: Ask) -> Answer:
    from random import Random

    members = Members([node.address for node in cluster.up()], ends_at=now_ms() + SERVING_WITHIN_S * 1000)
    answer = (await Client(members, Random(1), cluster.connections, timeout_s=TIMEOUT_S).settle(asked)).answer
    assert answer is not None and members.findings == []
    return answer


async def until_removed(cluster: LiveCluster, node: LiveNode) -> None:
    async def look() -> bool | None:
        status = await cluster.status(node)
        return True if status is not None and status["removed_at"] is not None else None

    await eventually(look, within_s=SERVING_WITHIN_S, what=f"{node.id} to know that it was removed")


def spare_port() -> int:
    (port,) = free_ports(1)
    return port


async def until_replaced(cluster: LiveCluster, *words: str) -> None:
    """The command says so, sooner or later: the new node may not listen yet, or others not be heard this moment."""

    async def replaced() -> str | None:
        code, out, err = await command(cluster, *words)
        assert code != 4 or any(text in err for text in MAY_MEND), err
        return out if code == 0 else None

    assert f"{words[2]} is replaced" in await eventually(replaced, within_s=60, what="the node to be replaced")


async def test_a_cluster_grows_and_its_leader_leaves(cluster: LiveCluster) -> None:
    """3 → 4 → 3 by commands; a joined node that is started again just goes on."""
    await put(cluster, b"a", b"before")
    port = spare_port()
    joining = cluster.make_joining("n4", port)
    joining.start()
    code, out, err = await command(cluster, "member", "add", "n4", joining.url)
    assert (code, err) == (0, "") and "Voters: n1, n2, n3, n4" in out
    joining.kill()
    joining.start()
    leader = await cluster.until_serving()
    code, out, err = await command(cluster, "member", "remove", leader.id)
    assert (code, err) == (0, "") and f"{leader.id} is no member any more" in out
    await until_removed(cluster, leader)
    assert "event=removed" in leader.log_text()
    code, out, _ = await command(cluster, "doctor")
    assert f"{leader.id} was removed from the cluster" in out, out
    leader.ask_to_stop()
    assert await leader.ended() == 0
    del cluster.nodes[leader.id]
    await cluster.until_serving()
    assert await get(cluster, b"a") == b"before"
    await put(cluster, b"a", b"after")
    code, out, _ = await command(cluster, "member", "list", "--output", "json")
    assert voters_in(json.loads(out)) == sorted({"n1", "n2", "n3", "n4"} - {leader.id})
    code, out, _ = await command(cluster, "member", "remove", leader.id)
    assert code == 0 and f"{leader.id} is no member" in out


async def test_an_emptied_node_is_replaced(cluster: LiveCluster) -> None:
    """faults 31: it says what to do; replacing it costs nothing that was acknowledged."""
    await put(cluster, b"a", b"before")
    leader = await cluster.until_leader()
    lost = next(node for node in cluster.nodes.values() if node is not leader)
    lost.kill()
    lost.empty()
    lost.start()

    async def says_what_to_do() -> bool | None:
        return f"run raftkv member replace {lost.id}" in lost.log_text() or None

    await eventually(says_what_to_do, within_s=SERVING_WITHIN_S, what="the emptied node to say what to do")
    code, _, err = await command(cluster, "member", "replace", lost.id)
    assert code == 4 and "runs without --join" in err and "nothing was changed" in err
    assert lost.id in voters_in(await decided(cluster, "GET"))
    lost.kill()
    lost.empty()
    again = cluster.make_joining(lost.id, lost.port)
    again.start()

    await until_replaced(cluster, "member", "replace", lost.id)
    await cluster.until_serving()
    assert len({status["state_hash"] for status in (await cluster.until_equal()).values()}) == 1
    assert await get(cluster, b"a") == b"before"
    code, _, err = await command(cluster, "member", "replace", lost.id)
    assert code == 4 and "nothing to replace" in err


async def test_a_node_that_never_catches_up_leaves_everything_as_it_was(tmp_path: Path) -> None:
    """faults 29: it answers whoever asks who it is, and then its disk hangs."""
    options = ("--member-catch-up-timeout-ms", "2000")
    with LiveCluster(tmp_path, nodes_count=3, breakable=True, options=options) as cluster:
        cluster.start()
        leader = await cluster.until_serving()
        before = await ask(cluster, leader, "GET")
        hanging = cluster.make_joining("n4", spare_port())
        del cluster.nodes["n4"]
        hanging.command[hanging.command.index("--join") + 1] = "http://127.0.0.1:1"
        hanging.start()

        async def waits() -> Any:
            return await cluster.status(hanging)

        await eventually(waits, within_s=SERVING_WITHIN_S, what="the new node to answer")
        hanging.breaks(sync_hangs=True)
        answer = await ask(cluster, leader, "POST", "", {"id": "n4", "url": hanging.url}, wait_ms=10_000)
        assert answer is not None and answer.status == 409, answer
        assert json.loads(answer.body)["code"] == "catch_up_failed"
        after = await ask(cluster, leader, "GET")
        assert before is not None and after is not None
        assert voters_in(json.loads(after.body)) == voters_in(json.loads(before.body)) == ["n1", "n2", "n3"]
        assert json.loads(after.body)["learners"] == []
        await put(cluster, b"a", b"all the same")
        hanging.kill()
        cluster.connections.close()


async def test_a_member_moves(cluster: LiveCluster) -> None:
    """Restarted behind another URL, it is found by nodes and clients, and the log says where it is."""
    leader = await cluster.until_leader()
    moving = next(node for node in cluster.nodes.values() if node is not leader)
    moving.ask_to_stop()
    await moving.ended()
    port = spare_port()
    place = moving.command.index("--url") + 1
    listed = moving.command.index("--initial-cluster") + 1
    moving.command[listed] = moving.command[listed].replace(f":{moving.port}", f":{port}")
    moving.command[place], moving.port = f"http://127.0.0.1:{port}", port
    moving.start()

    async def is_there() -> bool | None:
        told = await decided(cluster, "GET")
        return {"id": moving.id, "url": moving.url}.items() <= next(
            {key: one[key] for key in ("id", "url")} for one in told["voters"] if one["id"] == moving.id
        ).items() or None

    await eventually(is_there, within_s=SERVING_WITHIN_S, what="the members to be shown where they are")
    await cluster.until_serving()
    code, _, err = await command(cluster, "leader", "transfer", moving.id)
    assert (code, err) == (0, "")
    await put(cluster, b"a", b"by way of a redirect")
    for node in cluster.nodes.values():
        node.kill()
    cluster.start()
    assert await get(cluster, b"a") == b"by way of a redirect"


async def test_members_come_and_go_while_clients_write(cluster: LiveCluster) -> None:
    """A round of the soak: two come, two leaders go, and members are killed all the while."""
    soaked = await soak(cluster, seconds=1.0, clients_count=4, kills=True, seed=5)
    assert soaked.broken == [], str(soaked)
    assert len(soaked.changes_ms) >= 4 and len(soaked.story.acknowledged_at) > 20
