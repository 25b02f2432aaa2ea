"""A port for peers and one for clients: each serves its own, and clients are sent to where clients are served."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from raftkv import Node, NodeConfig
from raftkv.core.messages import Introduction
from raftkv.core.types import Incarnation, Member, NodeId
from raftkv.kv.machine import KeyValueMachine
from raftkv.node import doors
from raftkv.node.doors import DESCRIPTORS_RESERVED, PeersOnly, Room, is_unproved, room_within
from raftkv.node.peers import ClientUrls
from raftkv.transport.codec import MEMBERS_MAX
from raftkv.transport.guard import PeerGate, PeerGuard
from raftkv.transport.routes import PeerRoutes
from raftkv.transport.secret import PeerSecret
from tests.api.fronts import NoPeers
from tests.live.cluster import eventually, free_ports
from tests.live.ports import is_free
from tests.live.wire import Address, Answer, Connections
from tests.node.nodes import PATIENCE_S, QUICK, ready, running

ME, OTHER = NodeId("n1"), NodeId("n2")
HEARD_WITHIN_S = 5.0
"""Less than a silent connection is waited for."""
FIRST, SECOND = Incarnation(b"1" * 16), Incarnation(b"2" * 16)


def apart(directory: Path, count: int = 3, **settings: object) -> list[NodeConfig]:
    """A cluster whose nodes talk to each other on ports of their own, and share a secret."""
    secret = directory / "secret"
    secret.write_bytes(b"only the nodes know this one\n")
    secret.chmod(0o600)
    ports = free_ports(2 * count)
    ids = [f"n{number}" for number in range(1, count + 1)]
    members = {id: f"http://127.0.0.1:{port}" for id, port in zip(ids, ports[count:], strict=True)}
    return [
        NodeConfig.of(
            id=id,
            data_dir=directory / id,
            url=f"http://127.0.0.1:{port}",
            peer_url=members[id],
            peer_secret_file=secret,
            initial_cluster=members,
            **(QUICK | settings),
        )
        for id, port in zip(ids, ports, strict=False)
    ]


async def ask(address: Address, method: str, target: str, *, body: bytes = b"") -> Answer:
    headers = {"Content-Type": "application/msgpack"} if target.startswith("/raft/") else {}
    return await Connections().exchange(
        address, method, target, body=body, headers=headers, timeout_s=PATIENCE_S, kept=False
    )


def for_clients(node: Node) -> Address:
    return Address(*node.config.listen)


def for_peers(node: Node) -> Address:
    return Address(*node.config.peer_listen)


async def test_clients_are_sent_to_where_clients_are_served(tmp_path: Path) -> None:
    async with running(apart(tmp_path), KeyValueMachine) as nodes:
        leader = await leader_of_stores(nodes)
        for node in nodes:
            answer = await ask(for_clients(node), "PUT", "/v1/kv/a%2Fb?", body=b"1")
            if node is leader:
                assert answer.status in (200, 201)
            else:
                assert answer.status == 307
                assert answer.headers["location"] == f"{leader.config.url}/v1/kv/a%2Fb?"
                assert json.loads(answer.body)["leader"] == {"id": leader.config.id, "url": leader.config.url}
            status = json.loads((await ask(for_clients(node), "GET", "/v1/status")).body)
            assert status["leader_url"] == leader.config.url
            told = json.loads((await ask(for_clients(node), "GET", "/v1/cluster")).body)
            assert {voter["url"] for voter in told["voters"]} == {node.config.url for node in nodes}
            stored = json.loads((node.config.data_dir / "identity").read_text())
            assert [voter["url"] for voter in stored["initial_voters"]] == [node.config.peer_url for node in nodes]
        other = next(node for node in nodes if node is not leader)
        assert (await leader.transfer_leadership(other.config.id)).leader_url == other.config.url


async def leader_of_stores(nodes: list[Node]) -> Node:
    async def look() -> Node | None:
        return next((node for node in nodes if node.leadership().leads), None)

    return await eventually(look, within_s=PATIENCE_S, what="a leader")


async def test_each_port_serves_its_own_and_nothing_else(tmp_path: Path) -> None:
    async with running(apart(tmp_path, 1, heartbeat_ms=10, election_timeout_ms=20), KeyValueMachine) as (node,):
        for target in ("/raft/v1/introduce", "/raft/v1/hello", "/raft/v1/append-entries", "/raft/v1/nothing"):
            answer = await ask(for_clients(node), "POST", target, body=b"\x90")
            assert (answer.status, json.loads(answer.body)["code"]) == (404, "not_found"), target
        for target in ("/v1/status", "/v1/kv/a", "/metrics", "/healthz", "/"):
            answer = await ask(for_peers(node), "GET", target)
            assert (answer.status, json.loads(answer.body)["code"]) == (404, "not_found"), target
            assert (await ask(for_clients(node), "GET", target)).status == 200 or target in ("/v1/kv/a", "/")
        answer = await ask(for_peers(node), "POST", "/raft/v1/introduce", body=b"\x90")
        assert (answer.status, json.loads(answer.body)["code"]) == (401, "unauthorized")


async def test_a_node_whose_clients_have_moved_says_so_itself(tmp_path: Path) -> None:
    """It comes back behind another URL; its peers' address is the same, and the log knows nothing of it."""
    made = apart(tmp_path)
    async with running(made, KeyValueMachine) as nodes:
        await leader_of_stores(nodes)
        first = nodes[0]
        await first.stop()
        port = free_ports(1)[0]
        moved = NodeConfig.of(
            id=first.config.id,
            data_dir=first.config.data_dir,
            url=f"http://127.0.0.1:{port}",
            peer_url=first.config.peer_url,
            peer_secret_file=first.config.peer_secret_file,
            **QUICK,
        )
        async with Node(moved, state_machine=KeyValueMachine()) as back:
            await ready([back, *nodes[1:]])
            leader = await leader_of_stores([back, *nodes[1:]])
            if leader is not back:
                assert (await leader.transfer_leadership(back.config.id)).leader_url == moved.url
            for node in nodes[1:]:

                async def knows(node: Node = node) -> bool | None:
                    return node.leadership().leader_url == moved.url or None

                await eventually(knows, within_s=PATIENCE_S, what="the new URL")


@pytest.mark.parametrize(("trust", "warned"), [({}, True), ({"insecure": True}, False)])
async def test_a_secret_is_not_taken_for_one_that_clients_must_know(tmp_path: Path, caplog, trust, warned) -> None:
    """Beyond loopback, unless the operator has said that the network is trusted."""
    (config,) = apart(tmp_path, 1, listen=f"0.0.0.0:{free_ports(3)[2]}", **trust)
    async with Node(config, state_machine=KeyValueMachine()):
        assert ("clients prove nothing: whoever reaches 0.0.0.0:" in caplog.text) is warned


async def test_a_port_that_cannot_be_bound_leaves_the_other_one_free(tmp_path: Path) -> None:
    (config,) = apart(tmp_path, 1)
    async with running([config], KeyValueMachine):
        (free,) = free_ports(1)
        clashing = replace(config, data_dir=tmp_path / "other", listen=config.listen._replace(port=free))
        with pytest.raises(OSError, match="in use") as caught:
            await Node(clashing, state_machine=KeyValueMachine()).start()
        host, port = config.peer_listen
        assert caught.value.filename == f"{host}:{port}"
        assert is_free(free)


def said(id: NodeId, incarnation: Incarnation, url: str, client_url: str | None = None) -> Introduction:
    return Introduction(id, incarnation, url, None, False, [], client_url)


def test_where_clients_reach_a_member() -> None:
    """What it said itself, else what the log says if this node's own two addresses are one, else nothing."""
    there = Member(OTHER, SECOND, "http://in-the-log:1")
    for peer_url, unheard in (("http://n1:1", "http://in-the-log:1"), ("http://inner:1", None)):
        urls = ClientUrls(ME, url="http://n1:1", peer_url=peer_url)
        assert urls.of(Member(ME, FIRST, "http://in-the-log:9")) == "http://n1:1"
        assert urls.of(there) == unheard
        urls.heard(said(OTHER, FIRST, "http://an-emptied-one:1"))
        assert urls.of(there) == unheard, "another incarnation is somebody else"
        urls.heard(said(OTHER, SECOND, "http://inner2:1", "http://n2:1"))
        assert urls.of(there) == "http://n2:1"
        urls.heard(said(OTHER, SECOND, "http://n2:2"))
        assert urls.of(there) == "http://n2:2", "its newest word"


def test_what_strangers_say_is_forgotten_in_time() -> None:
    urls = ClientUrls(ME, url="http://n1:1", peer_url="http://inner:1")
    for number in range(5 * MEMBERS_MAX):
        urls.heard(said(NodeId(f"x{number}"), FIRST, f"http://x{number}:1"))
        urls.heard(said(OTHER, SECOND, "http://n2:1"))
    assert urls.of(Member(OTHER, SECOND, "")) == "http://n2:1"
    assert urls.of(Member(NodeId("x0"), FIRST, "")) is None


async def test_strangers_keep_no_peer_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They take all the room that there is for peers; whoever proves to be one gets it all the same."""

    async def stranger(node: Node) -> asyncio.StreamWriter:
        """Refused, and stays as long as an idle connection may."""
        _, writer = await asyncio.open_connection(*for_peers(node))
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        return writer

    monkeypatch.setattr(doors, "room_within", lambda *_, apart: Room(clients_max=100, peers_max=6, backlog=64))
    async with running(apart(tmp_path), KeyValueMachine) as nodes:
        last = nodes[2]
        await last.stop()
        strangers = [await stranger(node) for node in nodes[:2] for _ in range(20)]
        async with Node(last.config, state_machine=KeyValueMachine()) as back:
            strangers += [await stranger(back) for _ in range(20)]
            async with asyncio.timeout(HEARD_WITHIN_S):
                await ready([back, *nodes[:2]])
        for writer in strangers:
            writer.close()


def test_only_a_connection_on_which_nobody_is_proved_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    routes = PeerRoutes(NoPeers())
    guard = PeerGate(PeerSecret(b"s" * 32), ME, routes, lambda _: None)()
    assert is_unproved(PeersOnly(guard))
    monkeypatch.setattr(PeerGuard, "is_proved", True)
    assert not is_unproved(PeersOnly(guard))
    assert not is_unproved(PeersOnly(routes)), "where there is no secret nobody can be told apart"


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize("descriptors_max", [192, 256, 1024, 4096, 20_000, 65_536, 2**20])
def test_connections_leave_descriptors_for_the_log(descriptors_max, apart):
    """Whoever opens connections and says nothing would else stop the node at its next segment."""
    room = room_within(descriptors_max, apart=apart)
    assert min(room.clients_max, room.backlog) > 0
    at_once = room.clients_max + room.peers_max + room.backlog * (2 if apart else 1)
    assert at_once <= descriptors_max - DESCRIPTORS_RESERVED
    assert at_once > (descriptors_max - DESCRIPTORS_RESERVED) // 2 or room.clients_max == 10_000
    assert (room.peers_max > 0) is apart
    assert room_within(16, apart=apart).clients_max > 0
