"""/healthz and /readyz mean what they say: the one that a start would help, the other that traffic would not."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path

import pytest

from raftkv import Node
from raftkv.core import hashes
from raftkv.core.types import Index
from raftkv.kv.machine import KeyValueMachine
from raftkv.node import diagnostics
from raftkv.storage.directory import PosixFile
from tests.live.wire import Address, Connections
from tests.node.nodes import Adder, configs, leader_of, lone_node, running

PATIENCE_S = 10.0


async def probe(node: Node, path: str) -> tuple[int, str]:
    """Status, and the words of a problem."""
    answer = await Connections().exchange(Address(*node.config.listen), "GET", path, timeout_s=5.0, kept=False)
    return answer.status, json.loads(answer.body).get("detail", "")


async def until_probed(node: Node, path: str, status: int, words: str = "") -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = await probe(node, path)
            if found[0] == status and words in found[1]:
                return
            await asyncio.sleep(0.01)


async def test_a_node_that_waits_for_others_to_form_is_alive_and_says_for_whom(tmp_path: Path) -> None:
    first, *_ = configs(tmp_path, 3)
    async with Node(first, state_machine=Adder()) as node:
        assert await probe(node, "/healthz") == (200, "")
        assert await probe(node, "/readyz") == (503, "the cluster is not formed yet: waiting for n2, n3")


async def test_without_a_majority_a_node_is_alive_and_not_ready(tmp_path: Path) -> None:
    """Whoever restarted it for that would make things worse."""
    async with running(configs(tmp_path, 3)) as nodes:
        leader = await leader_of(nodes)
        assert (await probe(leader, "/readyz"))[0] == 200
        await asyncio.gather(*(node.stop() for node in nodes if node is not leader))
        await until_probed(leader, "/readyz", 503, "no leader is known")
        assert await probe(leader, "/healthz") == (200, "")


async def test_a_disk_that_hangs_is_borne_for_a_while_and_then_kills(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_return, sync_data = threading.Event(), PosixFile.sync_data

    def held(file: PosixFile) -> None:
        may_return.wait(PATIENCE_S)
        sync_data(file)

    async with lone_node(tmp_path, KeyValueMachine()) as node:
        monkeypatch.setattr(PosixFile, "sync_data", held)
        write = asyncio.create_task(
            Connections().exchange(
                Address(*node.config.listen), "PUT", "/v1/kv/a", body=b"v", timeout_s=PATIENCE_S, kept=False
            )
        )
        try:
            await until_probed(node, "/readyz", 503)
            assert await probe(node, "/healthz") == (200, "")
            monkeypatch.setattr(diagnostics, "DISK_HANGS_US_MAX", 1000)
            await until_probed(node, "/healthz", 500, "the disk has not finished a write for")
        finally:
            may_return.set()
        await until_probed(node, "/healthz", 200)
        await write


async def test_a_disk_thread_that_is_gone_is_no_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with lone_node(tmp_path) as node:
        assert node._running is not None and node._running._disk is not None
        monkeypatch.setattr(type(node._running._disk), "is_alive", property(lambda _: False))
        assert await probe(node, "/healthz") == (500, "the thread that writes the log has ended")


async def test_a_leader_whose_state_is_nobody_elses_takes_no_traffic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(configs(tmp_path, 3)) as nodes:
        leader = await leader_of(nodes)
        others = [node for node in nodes if node is not leader]
        assert leader._running is not None
        raft = leader._running.service.replica.raft  # type: ignore[union-attr]
        raft.machine_hash(Index(1024), b"mine")
        assert raft.state.office is not None
        raft.state.office.progress[others[0].config.id].hashes.note(Index(1024), b"theirs")
        assert diagnostics.disagreeing(raft) == (others[0].config.id,)
        assert (await probe(leader, "/readyz"))[0] == 200, "one of three may be the wrong one itself"
        hashes.compare(raft.state, Index(1024), b"theirs")
        await until_probed(leader, "/readyz", 503, "this node's state differs from the majority's at log index 1024")
        assert (await probe(leader, "/healthz"))[0] == 200
