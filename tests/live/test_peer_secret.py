"""Real nodes that share a secret: they form and serve, whoever has another one is refused, and nothing shows it."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

import pytest

from tests.live.cluster import HOST, LiveCluster, LiveNode, eventually, until
from tests.live.wire import Address, Connections, read_answer
from tests.transport.middle import Middle, proofs_in

pytestmark = [pytest.mark.live, pytest.mark.timeout(60)]

SECRET, OTHER = "the nodes of this cluster know it", "the nodes of that cluster know it"
WITHIN_S: Final = 20.0
TOLD = ("/v1/status", "/v1/cluster", "/v1/diagnostics", "/metrics", "/readyz", "/v1/openapi.json", "/v1/kv/a")


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[tuple[LiveCluster, Middle]]:
    """Three nodes, the third of which the others reach through somebody who hears all that is said."""
    middle = Middle()
    with LiveCluster(tmp_path, nodes_count=3) as cluster:
        third = cluster.nodes["n3"]
        await middle.listen(third.port)
        urls = {node.id: node.url for node in cluster.nodes.values()} | {"n3": f"http://{HOST}:{middle.port}"}
        listed = ",".join(f"{id}={url}" for id, url in urls.items())
        for node in cluster.nodes.values():
            node.command[node.command.index("--url") + 1] = urls[node.id]
            node.command[node.command.index("--initial-cluster") + 1] = listed
            node.command += ["--listen", f"{HOST}:{node.port}", "--peer-secret-file", str(secret_of(node))]
            node.command += ["--election-timeout-ms", "600"]
            give(node, SECRET)
        cluster.start()
        await cluster.until_serving()
        yield cluster, middle
    await middle.close()


def secret_of(node: LiveNode) -> Path:
    return node.directory.with_suffix(".secret")


def give(node: LiveNode, secret: str) -> None:
    secret_of(node).write_text(secret + "\n")
    secret_of(node).chmod(0o600)


async def put(cluster: LiveCluster, value: bytes) -> None:
    """Acknowledged by a majority."""
    connections = Connections()

    async def acknowledged() -> bool | None:
        leader = await cluster.until_leader()
        answer = await connections.exchange(leader.address, "PUT", "/v1/kv/a", body=value, timeout_s=5.0, kept=False)
        return answer.status in (200, 201) or None

    await eventually(acknowledged, within_s=WITHIN_S, what="a write to be acknowledged")


async def restarted(cluster: LiveCluster, node: LiveNode, *, secret: str) -> None:
    node.ask_to_stop()
    assert await node.ended() == 0
    give(node, secret)
    node.start()


async def terms(cluster: LiveCluster) -> dict[str, int]:
    """Of all nodes, once each has read its log."""

    async def known() -> dict[str, int] | None:
        found = {id: status["term"] for id, status in (await cluster.statuses()).items()}
        return found if len(found) == len(cluster.nodes) and all(found.values()) else None

    return await eventually(known, within_s=WITHIN_S, what="every node's term")


def said(node: LiveNode, text: str) -> Callable[[], bool]:
    return lambda: text in node.log_text()


async def test_nodes_with_one_secret_serve_and_nothing_shows_it(guarded: tuple[LiveCluster, Middle]) -> None:
    cluster, middle = guarded
    await put(cluster, b"1")
    await cluster.until_equal()
    told = [node.log_text() for node in cluster.nodes.values()]
    for node in cluster.nodes.values():
        for target in TOLD:
            answer = await Connections().exchange(node.address, "GET", target, timeout_s=5.0, kept=False)
            told.append(f"{answer.headers} {answer.body.decode('utf-8', 'replace')}")
    all_told, passed = "\n".join(told), b"".join(middle.heard + middle.answered)
    assert len(proofs_in(passed)) > 10
    assert not [proof for proof in proofs_in(passed) if proof in all_told]
    for shown in (SECRET, b64encode(SECRET.encode()).decode()[:-4], SECRET.encode().hex()):
        assert shown not in all_told
        assert shown.encode() not in passed
    assert "peer secret" not in all_told, "nobody was refused"


async def test_a_node_with_another_secret_is_refused_and_no_term_moves(guarded: tuple[LiveCluster, Middle]) -> None:
    """faults 32, by the secret."""
    cluster, _ = guarded
    first, second, stranger = cluster.nodes.values()
    await restarted(cluster, stranger, secret=OTHER)
    for node in (first, second):
        await until(said(stranger, f"{node.id} does not have the same peer secret"), within_s=WITHIN_S, what="its word")
        text = "n3 (so it calls itself) does not have the same peer secret: it is refused here"
        await until(said(node, text), within_s=WITHIN_S, what="their word")
    await put(cluster, b"2")
    before = await terms(cluster)
    for value in (b"3", b"4", b"5"):
        await put(cluster, value)
        await until_elections_would_have_been_held(cluster)
    assert await terms(cluster) == before
    for node in cluster.nodes.values():
        assert node.log_text().count("does not have the same peer secret") <= 4, "said once of each, by each side"
    await restarted(cluster, stranger, secret=SECRET)
    await cluster.until_serving()
    await cluster.until_equal()


async def until_elections_would_have_been_held(cluster: LiveCluster) -> None:
    """The node that hears nobody has asked for votes several times in as long as this."""
    began_ms = await uptime_ms(cluster.nodes["n3"], cluster)

    async def longer() -> bool | None:
        return await uptime_ms(cluster.nodes["n3"], cluster) > began_ms + 700 or None

    await eventually(longer, within_s=WITHIN_S, what="time to pass")


async def uptime_ms(node: LiveNode, cluster: LiveCluster) -> int:
    return int((await cluster.told(node))["uptime_ms"])


async def test_what_was_recorded_between_nodes_is_worth_nothing(guarded: tuple[LiveCluster, Middle]) -> None:
    """faults 62: every connection to n3 that anybody made, once more from its first byte."""
    cluster, middle = guarded
    await put(cluster, b"1")
    await cluster.until_equal()
    before = await terms(cluster)
    assert len(middle.by_connection) >= 4, "two lanes of each of the others"
    for recorded in list(middle.by_connection):
        reader, writer = await asyncio.open_connection(*Address(HOST, cluster.nodes["n3"].port))
        writer.write(b"".join(recorded))
        answers = [await read_answer(reader) for _ in range(2)]
        assert [answer.status for answer in answers] == [200, 403], "a hello is only a hello; nothing follows from it"
        assert json.loads(answers[1].body)["code"] == "forbidden"
        writer.close()
    assert await terms(cluster) == before
    assert "was changed, repeated or put there" in cluster.nodes["n3"].log_text()
    await put(cluster, b"2")
