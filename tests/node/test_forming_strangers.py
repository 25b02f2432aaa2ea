"""Somebody at a member's address, who also asks of its own accord: with a secret no cluster is formed with it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from raftkv import NodeConfig
from raftkv.core.messages import Introduction
from raftkv.core.types import Incarnation, NodeId
from raftkv.kv.machine import KeyValueMachine
from raftkv.node.running import Owner, RunningNode
from raftkv.transport import codec
from tests.http.fronts import Wire, post, until
from tests.live.cluster import HOST, free_ports

ME, OTHER = NodeId("n1"), NodeId("n2")
MINE, THEIRS = Incarnation(b""), Incarnation(b"i" * 16)
MSGPACK = b"Content-Type: application/msgpack"


class Impostor:
    """Says that it is n2, whatever it is asked, and is heard to be asked."""

    def __init__(self, port: int) -> None:
        members = [(ME, MINE), (OTHER, THEIRS)]
        said = Introduction(OTHER, THEIRS, f"http://{HOST}:{port}", None, False, members)
        self.introduction = codec.encode_introduction(said)
        self.asked_count = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
                self.asked_count += 1
                body = self.introduction
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        writer.close()

    async def ask(self, port: int) -> int:
        """Introduces itself; the status of what it hears."""
        wire = Wire(*await asyncio.open_connection(HOST, port))
        wire.send(post(b"/raft/v1/introduce", self.introduction, MSGPACK))
        status = (await wire.reply()).status
        wire.close()
        return status


@pytest.fixture(params=[True, False], ids=["with a secret", "without"])
async def node(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[RunningNode]:
    mine, theirs = free_ports(2)
    settings = {}
    if request.param:
        secret = tmp_path / "secret"
        secret.write_bytes(b"only the nodes know this one\n")
        secret.chmod(0o600)
        settings["peer_secret_file"] = secret
    members = {"n1": f"http://{HOST}:{mine}", "n2": f"http://{HOST}:{theirs}"}
    config = NodeConfig.of(id="n1", data_dir=tmp_path / "n1", url=members["n1"], initial_cluster=members, **settings)
    owner = Owner(turned=lambda: None, failed=lambda _: None)
    made = RunningNode(config, KeyValueMachine(), asyncio.get_running_loop(), owner)
    await made.start()
    yield made
    await made.stop()


async def test_no_cluster_is_formed_with_whoever_stands_at_a_members_address(node: RunningNode) -> None:
    """Without a secret one is: that is what the secret is for."""
    (_, url), *_ = node._forming.others()
    impostor = Impostor(int(url.rpartition(":")[2]))
    server = await asyncio.start_server(impostor.answer, HOST, int(url.rpartition(":")[2]))
    status = await impostor.ask(node.config.listen.port)
    if node.config.peer_secret is None:
        assert status == 200
        await until(lambda: node._forming.cluster_id is not None)
    else:
        assert status == 401
        await until(lambda: node._peers.complaint_about(OTHER) is not None)
        await until(lambda: impostor.asked_count >= 4)
        assert node._forming.cluster_id is None
        assert node._forming.waits_for == (OTHER,)
        assert "does not have the same peer secret" in (node._peers.complaint_about(OTHER) or "")
    server.close()
