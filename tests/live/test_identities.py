"""Nodes that are not who they should be: emptied, of another cluster, with another id, in another's directory."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.live.client import Ask, Client, Members, now_ms
from tests.live.cluster import SERVING_WITHIN_S, LiveCluster, LiveNode, Status, eventually, until
from tests.live.leadership import next_write
from tests.live.wire import Connections
from tests.live.workload import target_of

pytestmark = [pytest.mark.live, pytest.mark.timeout(60)]

WITH_MAJORITY_MS = 20_000
WITHOUT_MAJORITY_MS = 1_500
"""Several election timeouts: long enough for a node that wrongly counts to make a majority."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveCluster]:
    """Three nodes that every test leaves running, with all that they had."""
    with LiveCluster(tmp_path_factory.mktemp("ours"), nodes_count=3) as cluster:
        cluster.start()
        yield cluster


@pytest.fixture
def lossy_cluster(tmp_path: Path) -> Iterator[LiveCluster]:
    """One for a test that leaves less behind."""
    with LiveCluster(tmp_path, nodes_count=3) as cluster:
        cluster.start()
        yield cluster


async def writes_are_accepted_within(cluster: LiveCluster, duration_ms: float) -> bool:
    members = Members([node.address for node in cluster.up()], ends_at=now_ms() + duration_ms)
    connections = Connections()
    client = Client(members, Random(1), connections, timeout_s=1.0)
    settled = await client.settle(Ask("PUT", target_of(b"majority"), b"?", is_repeatable=True))
    connections.close()
    return settled.answer is not None


async def until_said(node: LiveNode, text: str) -> None:
    await until(lambda: text in node.log_text(), within_s=SERVING_WITHIN_S, what=f"{node.id} to say: {text}")


async def test_an_emptied_node_neither_votes_nor_counts_and_says_so(lossy_cluster: LiveCluster) -> None:
    """faults 31."""
    cluster = lossy_cluster
    first, second, emptied = cluster.nodes.values()
    await cluster.until_serving()
    emptied.kill()
    emptied.empty()
    emptied.start()
    text = "n3's data is gone; run raftkv member replace n3"
    await asyncio.gather(until_said(emptied, text), until_said(first, text), until_said(second, text))
    assert await writes_are_accepted_within(cluster, WITH_MAJORITY_MS), "two of three are a majority without it"
    second.kill()
    assert not await writes_are_accepted_within(cluster, WITHOUT_MAJORITY_MS), "it counts"
    assert await cluster.leader() is None, "it votes"
    status = await cluster.told(emptied)
    assert (status["cluster_id"], status["term"], status["applied_index"]) == (None, 0, 0)
    second.start()
    assert await next_write(cluster, Random(1)) < 10_000
    assert not emptied.endings[1:], "it waits to be replaced"


async def _leading(cluster: LiveCluster, node: LiveNode) -> Status | None:
    status = await cluster.status(node)
    return status if status is not None and status["role"] == "leader" else None


@pytest.mark.parametrize(
    ("id", "complaint"),
    [
        pytest.param("n2", "belongs to cluster", id="another cluster's node of the same id"),
        pytest.param("m9", "m9 answers at", id="another cluster's node of another id"),
    ],
)
async def test_a_stranger_at_a_members_address_moves_no_term(
    cluster: LiveCluster, tmp_path: Path, id: str, complaint: str
) -> None:
    """faults 19, 32."""
    first, second, third = cluster.nodes.values()
    await cluster.until_serving()
    second.kill()
    stranger = cluster.make_node(id, second.port, tmp_path / "theirs", {id: second.url})
    stranger.start()
    try:
        await asyncio.gather(until_said(first, complaint), until_said(third, complaint))
        theirs = await eventually(
            lambda: _leading(cluster, stranger), within_s=SERVING_WITHIN_S, what="the stranger to lead itself"
        )
        leader = await cluster.until_leader()
        assert await writes_are_accepted_within(cluster, WITH_MAJORITY_MS)
        leader.kill()
        assert not await writes_are_accepted_within(cluster, WITHOUT_MAJORITY_MS), "the stranger votes"
        leader.start()
        after = await cluster.told(stranger)
        assert (after["term"], after["revision"]) == (theirs["term"], 0)
    finally:
        stranger.kill()
        cluster.connections.close()
    second.start()
    await cluster.until_serving()
    assert await writes_are_accepted_within(cluster, WITH_MAJORITY_MS)


async def test_a_directory_of_another_node_or_in_use_is_refused(cluster: LiveCluster) -> None:
    await cluster.until_serving()
    second, third = cluster.nodes["n2"], cluster.nodes["n3"]
    third.kill()
    urls = {"n1": cluster.nodes["n1"].url, "n2": third.url, "n3": second.url}
    for owner, exit_code in ((third, 77), (second, 73)):
        intruder = cluster.make_node("n2", third.port, owner.directory, urls)
        intruder.start()
        assert await intruder.ended() == exit_code, intruder.log_text()
    third.start()
    await cluster.until_serving()
