"""Snapshots of somebody's own machine, which has ``snapshot`` and ``restore`` and nothing else for them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from raftkv import Consistency, Node, NodeConfig
from raftkv.errors import NodeFailed, StateDamaged
from tests.live.cluster import until
from tests.node.nodes import ALONE, PATIENCE_S, Adder, at_leader, configs, leader_of, lone_node, running

OFTEN: dict[str, Any] = {"snapshot_log_entries": 20, "log_tail_entries": 1, "log_tail_bytes": 1}


class Fickle(Adder):
    """Its snapshots fail as often as it is told."""

    def __init__(self, failures: int = 0) -> None:
        super().__init__()
        self.failures = failures
        self.restored = 0

    def snapshot(self) -> bytes:
        if self.failures:
            self.failures -= 1
            raise OSError("not now")
        return super().snapshot()

    def restore(self, snapshot: bytes) -> None:
        self.restored += 1
        super().restore(snapshot)


async def add(node: Node, count: int) -> None:
    await asyncio.gather(*(node.submit(b"1") for _ in range(count)))


async def until_snapshot(node: Node, *, after: int = 0) -> None:
    await until(lambda: node.status().snapshot_index > after, within_s=PATIENCE_S, what="a snapshot")


async def test_a_start_restores_the_newest_and_applies_what_came_after_it(tmp_path: Path) -> None:
    (config,) = configs(tmp_path, 1, **(ALONE | OFTEN))
    async with Node(config, state_machine=Adder()) as node:
        await node.until_ready(timeout_s=PATIENCE_S)
        await add(node, 50)
        await until_snapshot(node, after=20)
        await add(node, 3)
    machine = Fickle()
    async with Node(config, state_machine=machine) as again:
        await again.until_ready(timeout_s=PATIENCE_S)
        assert machine.restored == 1 and len(machine.entries) < 40
        assert (await again.query("total"))[1] == 53
        assert again.status().snapshot_index >= 20


async def test_a_machine_without_a_snapshot_goes_on_and_its_log_grows(tmp_path: Path) -> None:
    machine = Fickle(failures=1)
    async with lone_node(tmp_path, machine, **OFTEN) as node:
        await add(node, 50)
        assert machine.failures == 0 and node.status().snapshot_index == 0
        assert await node.submit(b"1") == 51


async def test_a_machine_that_cannot_restore_its_own_snapshot_ends_the_node(tmp_path: Path) -> None:
    """It would have another state than the others."""

    class Forgetful(Adder):
        def restore(self, snapshot: bytes) -> None:
            raise ValueError("what is this?")

    (config,) = configs(tmp_path, 1, **(ALONE | OFTEN))
    async with Node(config, state_machine=Adder()) as node:
        await node.until_ready(timeout_s=PATIENCE_S)
        await add(node, 50)
        await until_snapshot(node)
    with pytest.raises(NodeFailed):
        async with Node(config, state_machine=Forgetful()) as again:
            await again.until_ready(timeout_s=PATIENCE_S)


class Doubting(Fickle):
    """Finds its newest states to be others than those that were captured, as many as it is told."""

    def __init__(self, doubts: int) -> None:
        super().__init__()
        self.doubts = doubts

    def restore(self, snapshot: bytes) -> None:
        self.doubts -= 1
        if self.doubts >= 0:
            raise StateDamaged("it has another sum")
        super().restore(snapshot)


async def twice_captured(tmp_path: Path) -> NodeConfig:
    (config,) = configs(tmp_path, 1, **(ALONE | OFTEN))
    async with Node(config, state_machine=Adder()) as node:
        await node.until_ready(timeout_s=PATIENCE_S)
        for _ in range(3):
            before = node.status().snapshot_index
            await add(node, 50)
            await until_snapshot(node, after=before)
    return config


@pytest.mark.parametrize("doubts", [1, 2])
async def test_a_state_that_was_damaged_before_it_was_captured_has_a_stand_in(doubts: int, tmp_path: Path) -> None:
    """faults 58: its file is as it was written, so only loading it tells; the one before and the log have it all.

    Here the log has all, too, from its beginning.
    """
    config, machine = await twice_captured(tmp_path), Doubting(doubts)
    async with Node(config, state_machine=machine) as again:
        await again.until_ready(timeout_s=PATIENCE_S)
        assert (await again.query("total"))[1] == 150
        assert machine.restored == 2 - doubts


async def test_a_node_that_was_away_gets_the_state_and_not_the_commands(tmp_path: Path) -> None:
    cluster = configs(tmp_path, 3, **OFTEN)
    async with running(cluster) as nodes:
        leader = await leader_of(nodes)
        away = next(node for node in nodes if node is not leader)
        await away.stop()
        others = [node for node in nodes if node is not away]
        for _ in range(5):
            await at_leader(others, lambda node: add(node, 30))
        await until_snapshot(await leader_of(others), after=100)
        machine = Fickle()
        config: NodeConfig = away.config
        async with Node(config, state_machine=machine) as back:
            await back.until_ready(timeout_s=PATIENCE_S)
            assert (await back.query("total", consistency=Consistency.FOLLOWER))[1] == 150
            assert machine.restored >= 1 and len(machine.entries) < 150
