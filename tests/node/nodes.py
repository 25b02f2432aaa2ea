"""Nodes embedded in the test's own process, and a machine that does as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from raftkv import Consistency, LogEntry, Node, NodeConfig, NotLeader, RaftkvError, StateMachine
from tests.live.cluster import free_ports

PATIENCE_S = 20.0
QUICK: dict[str, Any] = {"heartbeat_ms": 50, "election_timeout_ms": 500}
ALONE: dict[str, Any] = {"heartbeat_ms": 10, "election_timeout_ms": 20}


class Adder(StateMachine):
    """Adds up numbers. Told to, it misbehaves."""

    def __init__(self) -> None:
        self.total = 0
        self.entries: list[LogEntry] = []
        self.due_ms: int | None = None

    def apply_batch(self, entries: Sequence[LogEntry]) -> list[Any]:
        self.entries += entries
        return [answer for entry in entries for answer in self._answers(entry)]

    def _answers(self, entry: LogEntry) -> list[Any]:
        match entry.command.split():
            case [b"raise"]:
                raise ValueError("this machine is broken")
            case [b"two", b"answers"]:
                return ["one", "two"]
            case [b"due", when]:
                self.due_ms = int(when)
            case [b"tick"]:
                self.due_ms = None
            case [number]:
                self.total += int(number)
        return [self.total]

    def query(self, query: Any) -> Any:
        if query == "raise":
            raise LookupError("no such thing")
        return query, self.total

    def tick_due_ms(self) -> int | None:
        return self.due_ms

    def tick_command(self) -> bytes:
        return b"tick"

    def snapshot(self) -> bytes:
        return b"%d" % self.total

    def restore(self, snapshot: bytes) -> None:
        self.total = int(snapshot)


def configs(directory: Path, count: int, **settings: Any) -> list[NodeConfig]:
    """Of a cluster that forms on this machine."""
    members = {f"n{i}": f"http://127.0.0.1:{port}" for i, port in enumerate(free_ports(count), 1)}
    return [
        NodeConfig.of(id=id, data_dir=directory / id, url=url, initial_cluster=members, **(QUICK | settings))
        for id, url in members.items()
    ]


@asynccontextmanager
async def lone_node(directory: Path, machine: StateMachine | None = None, **settings: Any) -> AsyncIterator[Node]:
    """A cluster of one, which leads itself."""
    (config,) = configs(directory, 1, **(ALONE | settings))
    async with Node(config, state_machine=machine or Adder()) as node:
        await node.until_ready(timeout_s=PATIENCE_S)
        yield node


@asynccontextmanager
async def running(made: Sequence[NodeConfig], machine: Callable[[], StateMachine] = Adder) -> AsyncIterator[list[Node]]:
    """All of them, ready."""
    nodes = [Node(config, state_machine=machine()) for config in made]
    try:
        await asyncio.gather(*(node.start() for node in nodes))
        await ready(nodes)
        yield nodes
    finally:
        await asyncio.gather(*(node.stop() for node in nodes))


async def ready(nodes: Sequence[Node]) -> None:
    await asyncio.gather(*(node.until_ready(timeout_s=PATIENCE_S) for node in nodes))


async def at_leader(nodes: Sequence[Node], ask: Callable[[Node], Awaitable[Any]]) -> Any:
    """What the leader answers, whoever that is by then. Only for what may safely be asked again."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            for node in nodes:
                try:
                    return await ask(node)
                except NotLeader:
                    await asyncio.sleep(0.01)


async def leader_of(nodes: Sequence[Node]) -> Node:
    """Who leads, once a majority has said so."""

    async def confirm(node: Node) -> Node:
        await node.query("who?")
        return node

    leader: Node = await at_leader(nodes, confirm)
    return leader


async def totals(nodes: Sequence[Node]) -> list[int]:
    """What each node's own machine holds, as fresh as the leader's."""

    async def total(node: Node) -> int:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    return (await node.query("total", consistency=Consistency.FOLLOWER))[1]
                except NotLeader:
                    await asyncio.sleep(0.01)

    return list(await asyncio.gather(*map(total, nodes)))


async def outcome(awaitable: Awaitable[Any]) -> Any:
    """What it returns, or the error of ours that it raises."""
    try:
        return await awaitable
    except RaftkvError as error:
        return error
