"""What an embedder is told when a node breaks under them, and what a node leaves behind when it is gone: nothing."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest

from raftkv import Consistency, LogEntry, Node, NodeConfig, NodeFailed, OutcomeUnknown
from raftkv.errors import DataDamaged, DiskFailed
from raftkv.storage.directory import PosixFile
from tests.live.cluster import until
from tests.node.nodes import (
    PATIENCE_S,
    Adder,
    at_leader,
    configs,
    leader_of,
    lone_node,
    outcome,
    ready,
    running,
    totals,
)


class Weak(Adder):
    """Breaks at its first command."""

    def apply_batch(self, entries: Any) -> Any:
        if entries:
            raise ZeroDivisionError("not my day")
        return []


class Mended(Adder):
    """Knows what broke its elder."""

    def _answers(self, entry: LogEntry) -> list[Any]:
        return ["cannot do that"] if entry.command == b"raise" else super()._answers(entry)


@pytest.mark.parametrize(
    ("command", "why"), [(b"raise", ValueError("this machine is broken")), (b"two answers", AssertionError())]
)
async def test_a_machine_that_breaks_halts_its_node_loudly(tmp_path, caplog, command: bytes, why: Exception) -> None:
    """faults 62: never skips."""
    with pytest.raises(NodeFailed, match="n1 has halted") as at_the_end:  # noqa: PT012 - the end of the block raises
        async with lone_node(tmp_path) as node:
            written = asyncio.gather(*(outcome(node.submit(each)) for each in (b"1", command, b"1")))
            future_s = node.query("total", consistency=Consistency.STALE, min_index=10**9)
            read = asyncio.create_task(outcome(future_s))
            assert [type(each) for each in await written] == [OutcomeUnknown] * 3, "one batch, executed as a whole"
            assert isinstance(await read, NodeFailed)
            assert type(await node.ended) is type(why)
            for late in (node.submit(b"1"), node.query("total"), node.until_ready(), node.transfer_leadership()):
                halted = await outcome(late)
                assert isinstance(halted, NodeFailed) and type(halted.__cause__) is type(why)
            with pytest.raises(NodeFailed):
                node.status()
    assert type(at_the_end.value.__cause__) is type(why)
    assert [record.levelname for record in caplog.records if "this node stops" in record.message] == ["CRITICAL"]


async def test_the_others_go_on_without_a_node_whose_machine_broke(tmp_path) -> None:
    """faults 62: it halts, and does not take the others with it."""
    machines = [Adder(), Adder(), Weak()]
    nodes = [Node(each, state_machine=machine) for each, machine in zip(configs(tmp_path, 3), machines, strict=True)]
    weak = nodes.pop()
    await asyncio.gather(*(node.start() for node in (*nodes, weak)))
    await ready([*nodes, weak])
    written = await outcome(at_leader([*nodes, weak], lambda node: node.submit(b"1")))
    assert written == 1 or isinstance(written, OutcomeUnknown)
    assert isinstance(await weak.ended, ZeroDivisionError)
    assert await at_leader(nodes, lambda node: node.submit(b"1")) == 2
    assert await totals(nodes) == [2, 2]
    await asyncio.gather(*(node.stop() for node in (*nodes, weak)))


async def test_a_node_that_has_halted_frees_its_port_and_its_directory_by_itself(tmp_path) -> None:
    """Nobody is left waiting at a door behind which nothing moves."""
    with pytest.raises(NodeFailed):  # noqa: PT012 - the end of the block raises
        async with lone_node(tmp_path) as node:
            address = node.config.listen
            reader, writer = await asyncio.open_connection(address.host, address.port)
            writer.write(b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            await outcome(node.submit(b"raise"))
            async with asyncio.timeout(PATIENCE_S):
                assert b'"role":"leader"' in await reader.read(), "what came before it ended; then it was closed"
            writer.close()
            await node.stop()
            async with Node(node.config, state_machine=Mended()) as mended:
                await ready([mended])
                assert await mended.submit(b"7") == 7, "what broke the machine is in the log, and does so no more"


async def test_what_the_body_raises_is_not_hidden_by_the_failure(tmp_path) -> None:
    with pytest.raises(KeyError):  # noqa: PT012 - the end of the block raises
        async with lone_node(tmp_path) as node:
            await outcome(node.submit(b"raise"))
            raise KeyError("the embedder's own")


async def test_a_disk_that_fails_takes_its_node_down_and_nothing_else(tmp_path, monkeypatch) -> None:
    """faults 55: nothing is acknowledged on it, and the others go on."""
    async with running(configs(tmp_path, 3)) as nodes:
        leader = await leader_of(nodes)
        broken = str(leader.config.data_dir)
        synced = PosixFile.sync_data

        def sync_data(file: PosixFile) -> None:
            if file.path.startswith(broken):
                raise DiskFailed(path=file.path, operation="fdatasync", cause=OSError(5, "Input/output error"))
            synced(file)

        monkeypatch.setattr(PosixFile, "sync_data", sync_data)
        written = await outcome(leader.submit(b"1"))
        assert written == 1 or isinstance(written, OutcomeUnknown), "the others' disks are a majority too"
        assert isinstance(await leader.ended, DiskFailed)
        with pytest.raises(NodeFailed, match="fdatasync"):
            await leader.submit(b"1")
        left = [node for node in nodes if node is not leader]
        assert await at_leader(left, lambda node: node.submit(b"10")) in (10, 11)


def _damage(directory: Path) -> None:
    """A bit is flipped in the first batch of the log, which others follow."""
    (segment,) = directory.glob("log-*")
    raw = bytearray(segment.read_bytes())
    raw[1024] ^= 1
    segment.write_bytes(raw)


async def test_a_damaged_log_is_told_to_whoever_waits_for_the_node(tmp_path) -> None:
    async with lone_node(tmp_path) as node:
        for _ in range(3):
            await node.submit(b"1")
        config = node.config
    _damage(config.data_dir)
    with pytest.raises(NodeFailed):  # noqa: PT012 - the end of the block raises
        async with Node(config, state_machine=Adder()) as node:
            with pytest.raises(NodeFailed) as failed:
                await node.until_ready(timeout_s=PATIENCE_S)
            assert isinstance(failed.value.__cause__, DataDamaged)


# ------------------------------------------------------------------------------------- nothing is left


def _open_files() -> list[str]:
    found = []
    for number in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{number}"))
        except FileNotFoundError:
            continue  # the listing's own
    return sorted(found)


def _threads() -> set[threading.Thread]:
    return set(threading.enumerate())


async def _life(made: list[NodeConfig]) -> list[weakref.ref[Any]]:
    """Nodes that live, serve a connection that stays open, lose their leader, and stop."""
    async with running(made) as nodes:
        address = nodes[0].config.listen
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        leader = await leader_of(nodes)
        await asyncio.gather(*(leader.submit(b"1") for _ in range(10)))
        await leader.stop()
        await ready([node for node in nodes if node is not leader])
        found: list[weakref.ref[Any]] = [weakref.ref(node) for node in nodes]
    writer.close()
    await writer.wait_closed()
    return found


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("count", [1, 3])
def test_nothing_is_left_of_a_node_that_has_stopped(tmp_path, loop: str, count: int) -> None:
    async def story() -> None:
        await _life(configs(tmp_path / "before", 1))  # uvloop opens files of its own when they are first needed
        files, threads = _open_files(), _threads()
        lives = await _life(configs(tmp_path / "lives", count))
        await until(lambda: _threads() <= threads, within_s=PATIENCE_S, what="the threads to end")
        await until(lambda: _open_files() == files, within_s=PATIENCE_S, what=f"files to be closed: {_open_files()}")
        assert len(asyncio.all_tasks()) == 1
        await until(lambda: _all_gone(lives), within_s=PATIENCE_S, what="timers that still know a node")

    with asyncio.Runner(loop_factory=_factory(loop)) as runner:
        runner.run(story())


def _all_gone(lives: list[weakref.ref[Any]]) -> bool:
    gc.collect()
    return all(life() is None for life in lives)


def _factory(loop: str) -> Any:
    if loop == "asyncio":
        return None
    import uvloop

    return uvloop.new_event_loop


async def test_nothing_is_left_of_a_node_that_never_formed(tmp_path) -> None:
    threads = _threads()
    async with Node(configs(tmp_path, 3)[0], state_machine=Adder()) as node:
        life = weakref.ref(node)
    del node
    assert len(asyncio.all_tasks()) == 1
    assert _threads() == threads
    assert _all_gone([life]), "its timer too"
