"""Nodes that join a cluster, leave it, move and come back: embedded ones, over real sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from raftkv import Node, NodeConfig
from raftkv.core.messages import Envelope, TimeoutNow
from raftkv.core.progress import Progress
from raftkv.core.types import ClusterId, Incarnation, NodeId, Term
from raftkv.errors import DiskFailed
from raftkv.kv.machine import KeyValueMachine
from raftkv.node import joining, members
from raftkv.node.running import Owner, RunningNode
from raftkv.storage.directory import PosixFile
from raftkv.values import url_address
from tests.live.cluster import HOST, free_ports
from tests.live.cluster import until as live_until
from tests.node.nodes import PATIENCE_S, QUICK, leader_of, ready, running
from tests.node.test_forming import HeardExchange

CLUSTER = ClusterId(b"some cluster....")
ELSEWHERE = Incarnation(b"somebody else's.")
PEER = NodeId("n1")


# --------------------------------------------------------------------------- whose cluster a node belongs to


@asynccontextmanager
async def lone(directory: Path, failures: list[BaseException], **settings: Any) -> AsyncIterator[RunningNode]:
    """A node that nobody has let in yet, and whose door is not open."""
    url = settings.pop("url", None) or f"http://{HOST}:{free_ports(1)[0]}"
    config = NodeConfig.of(id="n4", data_dir=directory, url=url, **settings)
    owner = Owner(turned=lambda: None, failed=failures.append)
    node = RunningNode(config, KeyValueMachine(), asyncio.get_running_loop(), owner)
    try:
        yield node
    finally:
        await node.stop()


def message(cluster_id: ClusterId, incarnation: Incarnation, *, id: str = "n4") -> Envelope:
    return Envelope(cluster_id, PEER, ELSEWHERE, NodeId(id), incarnation, TimeoutNow(Term(1)))


def hear(node: RunningNode, envelope: Envelope) -> tuple[int, str, str]:
    exchange = HeardExchange()
    node.on_message(envelope, exchange)  # type: ignore[arg-type]
    (refusal,) = exchange.refusals
    return refusal


JOINS = {"join": [f"http://{HOST}:1"]}
FORMS = {"url": f"http://{HOST}:2", "initial_cluster": {"n4": f"http://{HOST}:2", "n5": f"http://{HOST}:3"}}


async def test_a_joining_node_belongs_to_whoever_names_its_very_incarnation(tmp_path: Path) -> None:
    async with lone(tmp_path / "n4", [], **JOINS) as node:
        identity = node._forming.identity.identity
        assert node._forming.introduction().joins
        assert hear(node, message(CLUSTER, identity.incarnation))[1] == "no_leader", "it is starting"
        stored = node._forming.identity.identity
        assert (stored.cluster_id, stored.formed) == (CLUSTER, True)
        assert not node._forming.introduction().joins
        other = ClusterId(b"another cluster.")
        assert hear(node, message(other, identity.incarnation))[1] == "wrong_cluster"
        assert node._forming.identity.identity.cluster_id == CLUSTER


async def test_an_emptied_node_is_told_what_to_do(tmp_path: Path) -> None:
    """faults 31: a message to the one that it was makes no member of it."""
    async with lone(tmp_path / "n4", [], **JOINS) as node:
        assert hear(node, message(CLUSTER, ELSEWHERE))[1] == "wrong_cluster"
        assert node._forming.identity.identity.cluster_id is None
        assert node._forming.why_not_formed() == "n4's data is gone; run raftkv member replace n4"
        hear(node, message(CLUSTER, node._forming.identity.identity.incarnation))
        assert node._forming.identity.identity.cluster_id == CLUSTER


@pytest.mark.parametrize("settings", [{}, FORMS], ids=["started bare", "forms a cluster"])
async def test_a_node_that_was_not_told_to_join_never_does(tmp_path: Path, settings: dict[str, Any]) -> None:
    """faults 32: not even if it is named, with its incarnation."""
    async with lone(tmp_path / "n4", [], **settings) as node:
        incarnation = node._forming.identity.identity.incarnation
        assert not node._forming.introduction().joins
        assert hear(node, message(CLUSTER, incarnation))[1] == "wrong_cluster"
        assert node._forming.identity.identity.cluster_id is None


async def test_a_message_for_somebody_else_lets_nobody_in(tmp_path: Path) -> None:
    async with lone(tmp_path / "n4", [], **JOINS) as node:
        incarnation = node._forming.identity.identity.incarnation
        assert hear(node, message(CLUSTER, incarnation, id="n5"))[1] == "wrong_cluster"
        assert node._forming.identity.identity.cluster_id is None


async def test_a_cluster_that_cannot_be_stored_ends_the_node(tmp_path: Path, monkeypatch: Any) -> None:
    """faults 55: nothing is answered in the name of a cluster that is not on stable storage."""
    failures: list[BaseException] = []
    async with lone(tmp_path / "n4", failures, **JOINS) as node:

        def sync(file: PosixFile) -> None:
            raise DiskFailed(path=file.path, operation="fsync", cause=OSError(5, "Input/output error"))

        monkeypatch.setattr(PosixFile, "sync", sync)
        assert hear(node, message(CLUSTER, node._forming.identity.identity.incarnation))[1] == "wrong_cluster"
        assert [type(failure) for failure in failures] == [DiskFailed]
        monkeypatch.undo()


# ------------------------------------------------------------------------------------ clusters that change


def three(directory: Path, **settings: Any) -> list[NodeConfig]:
    """Of a cluster with room for two more ports behind it."""
    urls = {f"n{number}": f"http://{HOST}:{port}" for number, port in enumerate(free_ports(6)[:3], 1)}
    return [
        NodeConfig.of(id=id, data_dir=directory / id, url=url, initial_cluster=urls, **(QUICK | settings))
        for id, url in urls.items()
    ]


def fourth(directory: Path, configs: list[NodeConfig], id: str = "n4", **settings: Any) -> NodeConfig:
    url = f"http://{HOST}:{configs[-1].listen.port + 1}"
    join = settings.pop("join", [config.url for config in configs])
    return NodeConfig.of(id=id, data_dir=directory / id, url=url, join=join, **(QUICK | settings))


async def ask(
    node: Node, method: str, path: str = "", fields: Any = None, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, Any]]:
    """The leader's answer, wherever it is asked."""
    url = f"{node.config.url}/v1/admin/members{path}"
    async with aiohttp.ClientSession() as session:
        for _ in range(3):
            async with session.request(method, url, json=fields, headers=headers, allow_redirects=False) as answer:
                body = json.loads(await answer.read())
                if answer.status != 307:
                    return answer.status, body
                url = answer.headers["Location"]
    raise AssertionError("redirected again and again")


async def until(condition: Callable[[], bool], what: str) -> None:
    await live_until(condition, within_s=PATIENCE_S, what=what)


def voters(node: Node) -> list[str]:
    return [member.id for member in node.status().voters]


def at_rest_with_four(node: Node) -> bool:
    """While the old set decides too, whoever asks for the same waits for the change, and hears that it was one."""
    return len(voters(node)) == 4 and node.status().change is None


def links(node: Node) -> list[str]:
    assert node._running is not None
    return [str(name) for name in node._running._peers.names()]


async def test_a_node_joins_by_itself_and_after_a_restart_just_goes_on(tmp_path: Path) -> None:
    configs = three(tmp_path)
    async with running(configs, KeyValueMachine) as nodes:
        config = fourth(tmp_path, configs)
        async with Node(config, state_machine=KeyValueMachine()) as joined:
            await until(lambda: voters(joined) == ["n1", "n2", "n3", "n4"], "n4 to vote")
            await ready([joined])
            await until(lambda: all(at_rest_with_four(node) for node in nodes), "everybody to know that it is over")
            assert links(nodes[0]) == ["n2", "n3", "n4"] and links(joined) == ["n1", "n2", "n3"]
            status, told = await ask(nodes[0], "POST", "", {"id": "n4", "url": config.url})
            assert (status, told["changed"]) == (200, False)
        nobody = [f"http://{HOST}:1"]
        async with Node(replace(config, join=tuple(nobody)), state_machine=KeyValueMachine()) as again:
            await ready([again])
            assert again._running is not None and again._running._joining is None, "it asks nobody again"


async def test_a_joining_node_that_is_let_go_asks_no_more_until_somebody_asks_for_it(
    tmp_path: Path, monkeypatch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    configs = three(tmp_path)
    async with running(configs, KeyValueMachine) as nodes:
        leader = await leader_of(nodes)
        with monkeypatch.context() as patched:
            patched.setattr(Progress, "has_caught_up", lambda *_, **__: False)
            async with Node(fourth(tmp_path, configs), state_machine=KeyValueMachine()) as n4:
                await until(lambda: [one.id for one in leader.status().learners] == ["n4"], "n4 to be let in")
                await until(lambda: n4._running._replica is not None, "n4 to hear of it")  # type: ignore[union-attr]
                status, told = await ask(nodes[0], "DELETE", "/n4")
                assert (status, told["changed"], told["learners"]) == (200, True, [])
                assert n4._running is not None and n4._running._joining is not None
                await until(n4._running._joining.done, "n4 to ask no more")
                assert "it asks no more; stop it, or let it in with raftkv member add n4" in caplog.text
                await until(lambda: leader.status().change is None, "n4 to have heard of it")
                assert voters(leader) == ["n1", "n2", "n3"]
                patched.undo()
                wish = {"id": "n4", "url": n4.config.url}
                async with asyncio.timeout(PATIENCE_S):  # a wish that comes at once is taken for the one called off
                    while (await ask(nodes[0], "POST", "", wish))[0] != 200:
                        assert voters(leader) == ["n1", "n2", "n3"], "nor by itself when it could"
                await until(lambda: voters(n4) == ["n1", "n2", "n3", "n4"], "n4 to vote")


@pytest.mark.parametrize(
    ("status", "body", "asks_on"),
    [
        (409, b'{"detail": "no", "called_off": true}', False),
        (409, b'{"detail": "no"}', True),
        (503, b'{"detail": "no", "called_off": true}', True),
        (409, b"[]", True),
        (409, b"?", True),
    ],
)
def test_only_the_word_that_it_was_called_off_ends_the_asking(status: int, body: bytes, asks_on: bool) -> None:
    assert joining._read("http://n1", status, body).called_off is not asks_on


class Outside:
    """A node whose own log says that it was let go."""

    has_joined, was_let_go = False, True


async def test_who_knows_from_its_own_log_that_it_was_let_go_asks_nobody(tmp_path: Path) -> None:
    told: list[str] = []
    config = NodeConfig.of(id="n4", data_dir=tmp_path / "n4", url=f"http://{HOST}:2", join=[f"http://{HOST}:1"])
    await joining.ask_to_join(config, Outside(), told.append)
    assert len(told) == 1 and "asks no more" in told[0]


async def test_a_node_that_is_started_after_it_was_asked_for_is_waited_for(tmp_path: Path) -> None:
    """Either side first (http-api, Starting nodes); here with the peers' secret, which the probe proves too."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"only the nodes know this one\n")
    secret.chmod(0o600)
    configs = three(tmp_path, peer_secret_file=secret)
    async with running(configs, KeyValueMachine) as nodes:
        config = fourth(tmp_path, configs, peer_secret_file=secret, join=[f"http://{HOST}:1"])
        asked = asyncio.create_task(ask(nodes[1], "POST", "", {"id": "n4", "url": config.url, "role": "learner"}))
        await asyncio.sleep(0)
        async with Node(config, state_machine=KeyValueMachine()) as joined:
            status, told = await asked
            assert (status, told["changed"]) == (200, True)
            assert [learner["id"] for learner in told["learners"]] == ["n4"]
            await ready([joined])
            assert joined.status().role == "learner"
            assert joined._running is not None and joined._running._joining is not None
            await until(joined._running._joining.done, "it to ask for nothing more")
            assert joined.status().role == "learner", "it does not promote itself"
            assert (await ask(nodes[0], "PATCH", "/n4", {"role": "voter"}))[0] == 200
            await until(lambda: voters(joined) == ["n1", "n2", "n3", "n4"], "n4 to vote")


async def test_who_cannot_be_a_member_is_refused_and_nothing_has_changed(tmp_path: Path, monkeypatch: Any) -> None:
    """faults 29, 32"""
    monkeypatch.setattr(members, "PROBE_S", 0.5)
    configs = three(tmp_path)
    async with running(configs, KeyValueMachine) as nodes:
        leader = await leader_of(nodes)
        index = leader.status().configuration_index
        (stranger,) = [fourth(tmp_path, configs, "n5", join=[f"http://{HOST}:1"])]
        forming = replace(stranger, join=(), initial_cluster=((NodeId("n5"), stranger.url),))
        for config, code, words in (
            (None, "member_unreachable", "does not answer"),
            (replace(stranger, id=NodeId("n6"), data_dir=tmp_path / "n6"), "member_unreachable", "n6 answers at"),
            (forming, "wrong_cluster", "belongs to cluster"),
        ):
            wish = {"id": "n5", "url": stranger.url}
            if config is None:
                status, told = await ask(leader, "POST", "", wish)
            else:
                async with Node(config, state_machine=KeyValueMachine()):
                    status, told = await ask(leader, "POST", "", wish)
            assert (status, told["code"]) == (409, code), told
            assert words in told["detail"]
        status, told = await ask(leader, "POST", "", {"id": "n9", "url": configs[1].url})
        assert (status, told["code"]) == (409, "member_unreachable")
        assert leader.status().configuration_index == index and voters(leader) == ["n1", "n2", "n3"]


async def test_a_removed_node_says_so_and_nobody_keeps_a_link_to_it(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(members, "LOOK_EVERY_S", 0.05)
    configs = three(tmp_path)
    async with running(configs, KeyValueMachine) as nodes:
        leader = await leader_of(nodes)
        rest = [node for node in nodes if node is not leader]
        status, told = await ask(rest[0], "DELETE", f"/{leader.config.id}")
        assert (status, told["changed"]) == (200, True)
        ids = sorted(node.config.id for node in rest)
        assert sorted(one["id"] for one in told["voters"]) == ids
        await until(lambda: leader.status().removed_at is not None, "the removed one to know it")
        (why, *_) = leader.status().health.unready
        assert "removed from the cluster" in why[1]
        await until(lambda: all(len(links(node)) == 1 for node in rest), "the others to let it go")
        assert (await ask(rest[0], "DELETE", f"/{leader.config.id}"))[1]["changed"] is False
        assert (await ask(rest[0], "DELETE", f"/{ids[0]}"))[0] == 200, "one is left"


async def test_a_whole_membership_is_set_by_whoever_has_seen_the_one_before(tmp_path: Path) -> None:
    configs = three(tmp_path)
    async with running(configs, KeyValueMachine) as nodes:
        leader = await leader_of(nodes)
        follower = next(node for node in nodes if node is not leader)
        named = {config.id: {"id": config.id, "url": config.url} for config in configs}
        learner = named.pop(follower.config.id)
        wish = {"voters": list(named.values()), "learners": [learner]}
        status, told = await ask(leader, "PUT", "", wish, {"If-Match": '"77"'})
        assert (status, told["code"], told["configuration_index"]) == (412, "precondition_failed", 0)
        status, told = await ask(follower, "PUT", "", wish, {"If-Match": '"0"'})
        assert (status, told["changed"]) == (200, True)
        await until(lambda: follower.status().role == "learner", "it to know that it does not vote")
        assert (await ask(leader, "PUT", "", wish))[1]["changed"] is False
        assert (await ask(leader, "POST", "", learner))[1]["code"] == "member_exists"
        assert (await ask(leader, "PATCH", f"/{follower.config.id}", {"role": "voter"}))[0] == 200
        await until(lambda: follower.status().role == "follower", "it to know that it votes")
        await ready(nodes)


async def test_nothing_is_removed_that_the_rest_could_not_do_without(tmp_path: Path) -> None:
    """Also right after the other has ended, which the leader has heard a moment ago."""
    configs = three(tmp_path)
    async with running(configs, KeyValueMachine) as nodes:
        leader = await leader_of(nodes)
        dead, alive = (node for node in nodes if node is not leader)
        await dead.stop()
        status, told = await ask(leader, "DELETE", f"/{alive.config.id}")
        assert (status, told["code"]) == (409, "quorum_at_risk")
        assert (await ask(leader, "DELETE", f"/{dead.config.id}"))[0] == 200
        assert voters(alive) == sorted([leader.config.id, alive.config.id])


async def test_a_member_that_comes_back_elsewhere_is_there_in_the_log(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(members, "LOOK_EVERY_S", 0.05)
    configs = three(tmp_path)
    async with running(configs, KeyValueMachine) as nodes:
        leader = await leader_of(nodes)
        moving = next(node for node in nodes if node is not leader)
        await moving.stop()
        url = f"http://{HOST}:{configs[-1].listen.port + 1}"
        at = _reached_at(moving.config, url)
        async with Node(at, state_machine=KeyValueMachine()) as moved:
            await ready([moved])
            id = moving.config.id
            await until(lambda: _place_of(leader, id) == url, "the log to say where it is")
            assert leader.status().configuration_index > 0
            staying = [node for node in nodes if node is not moving]
            if (await leader_of([*staying, moved])) is leader:
                await leader.transfer_leadership(id)
            other = next(node for node in staying if node is not leader)
            await until(lambda: other.leadership().leader_url == url, "redirects to lead there")


async def test_members_that_have_moved_find_each_other_when_they_start_again(tmp_path: Path, monkeypatch: Any) -> None:
    """Where they were as the cluster formed none of them is any more; where they are, the log says."""
    monkeypatch.setattr(members, "LOOK_EVERY_S", 0.05)
    configs = three(tmp_path)
    moved = []
    async with running(configs, KeyValueMachine) as nodes:
        for place, node in enumerate(nodes[1:], 1):
            await node.stop()
            url = f"http://{HOST}:{configs[-1].listen.port + place}"
            moved.append(_reached_at(node.config, url))
            nodes[place] = Node(moved[-1], state_machine=KeyValueMachine())
            await nodes[place].start()
            await until(partial(_all_know, nodes, moved[-1]), "all to know where it is")
    async with running(moved, KeyValueMachine) as again:
        assert voters(again[0]) == ["n1", "n2", "n3"], "they are ready, without the first"


async def test_who_has_moved_is_reached_also_by_those_that_were_starting_when_it_said_so(
    tmp_path: Path, monkeypatch: Any
) -> None:
    """All start at once, and n2, which is behind, can only be led: it says where it is once for each connection.

    Another of that name, perhaps where it was before, may have spoken since.
    """
    configs = three(tmp_path)
    async with running(configs, KeyValueMachine) as nodes:
        await nodes[1].stop()
        leader = await leader_of([nodes[0], nodes[2]])
        await leader.transfer_leadership("n3" if leader is nodes[0] else "n1")
        await leader_of([nodes[0], nodes[2]])
    url = f"http://{HOST}:{configs[-1].listen.port + 1}"
    moved = _reached_at(configs[1], url)
    begin = RunningNode._begin
    begun: list[RunningNode] = []

    def has_spoken(at: RunningNode) -> bool:
        lanes = [link.is_connected for node in begun for link, _ in node._peers.links()]
        return bool(lanes) and all(lanes) and any(id == "n2" for id, _ in at._client_urls._said)

    async def begin_later(node: RunningNode) -> None:
        if node.config.id == "n2":
            begun.append(node)
        else:
            await until(partial(has_spoken, node), "n2 to say where it is")
            node._hear(replace(begun[0]._forming.introduction(), incarnation=ELSEWHERE, url="http://n2.old"))
        await begin(node)

    monkeypatch.setattr(RunningNode, "_begin", begin_later)
    async with running([configs[0], moved, configs[2]], KeyValueMachine) as again:
        assert links(again[0]) == ["n2", "n3"], "all are ready"


def _reached_at(config: NodeConfig, url: str) -> NodeConfig:
    """The same node at another address."""
    at = url_address(url)
    return replace(config, url=url, peer_url=url, listen=at, peer_listen=at)


def _place_of(node: Node, id: str) -> str:
    assert node._running is not None
    replica = node._running._replica
    return "" if replica is None else replica.raft.committed_configuration.members()[NodeId(id)].url


def _all_know(nodes: list[Node], moved: NodeConfig) -> bool:
    return all(_place_of(node, moved.id) == moved.url for node in nodes)


async def test_an_emptied_node_is_replaced(tmp_path: Path) -> None:
    """faults 31"""
    configs = three(tmp_path)
    async with running(configs, KeyValueMachine) as nodes:
        leader = await leader_of(nodes)
        lost = next(node for node in nodes if node is not leader)
        await lost.stop()
        id, others = lost.config.id, tuple(config.url for config in configs if config.id != lost.config.id)
        config = replace(lost.config, data_dir=tmp_path / "new disk", initial_cluster=(), join=others)
        async with Node(config, state_machine=KeyValueMachine()) as fresh:
            await until(lambda: "member replace" in fresh.status().health.unready[0][1], "it to say what to do")
            status, told = await ask(leader, "POST", "", {"id": id, "url": config.url})
            assert (status, told["code"]) == (409, "member_exists")
            assert f"{id}'s data is gone; run raftkv member replace {id}" in told["detail"]
            assert (await ask(leader, "DELETE", f"/{id}"))[0] == 200
            assert (await ask(leader, "POST", "", {"id": id, "url": config.url}))[0] == 200
            await ready([fresh])
            assert voters(fresh) == ["n1", "n2", "n3"]


async def test_a_node_is_replaced_by_one_elsewhere(tmp_path: Path, monkeypatch: Any) -> None:
    """faults 29, 31: the old one's links are still there when the new one comes, which waits to be spoken to."""
    monkeypatch.setattr(members, "LET_GO_AFTER_LOOKS", 1_000_000)
    configs = three(tmp_path)
    async with running(configs, KeyValueMachine) as nodes:
        leader = await leader_of(nodes)
        lost = next(node for node in nodes if node is not leader)
        await lost.stop()
        id, others = lost.config.id, tuple(config.url for config in configs if config.id != lost.config.id)
        url = f"http://{HOST}:{configs[-1].listen.port + 1}"
        empty = replace(lost.config, data_dir=tmp_path / "new disk", initial_cluster=(), join=others)
        config = _reached_at(empty, url)
        async with Node(config, state_machine=KeyValueMachine()) as fresh:
            assert (await ask(leader, "DELETE", f"/{id}"))[0] == 200
            assert id in links(leader)
            status, told = await ask(leader, "POST", "", {"id": id, "url": url})
            assert (status, told["voters"][int(id[1]) - 1]["url"]) == (200, url)
            await ready([fresh])
