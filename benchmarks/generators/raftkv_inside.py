"""A node of raftkv inside this process, with a plain dictionary as its machine; its clients are tasks beside it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Final

import click

from benchmarks.generators import closing, lines
from benchmarks.generators.closing import Count
from benchmarks.work import Work, drawn_keys
from raftkv import LogEntry, Node, NodeConfig, StateMachine

FILLING_AT_ONCE: Final = 256
KEY_BYTES: Final = 16


class Dictionary(StateMachine):
    """Values by key."""

    def __init__(self) -> None:
        self._values: dict[bytes, bytes] = {}

    def apply_batch(self, entries: Sequence[LogEntry]) -> Sequence[None]:
        """Each puts one key."""
        values = self._values
        for entry in entries:
            values[entry.command[:KEY_BYTES]] = entry.command[KEY_BYTES:]
        return [None] * len(entries)

    def query(self, query: Any) -> bytes | None:
        """The value of a key."""
        return self._values.get(query)

    def snapshot(self) -> bytes:
        """All pairs, one after the other."""
        pairs = self._values.items()
        return b"".join(key + len(value).to_bytes(4, "big") + value for key, value in pairs)

    def restore(self, snapshot: bytes) -> None:
        """As ``snapshot`` wrote them."""
        self._values, at = {}, 0
        while at < len(snapshot):
            first = at + KEY_BYTES + 4
            end = first + int.from_bytes(snapshot[at + KEY_BYTES : first], "big")
            self._values[snapshot[at : at + KEY_BYTES]] = snapshot[first:end]
            at = end


async def fill(node: Node, told: dict[str, Any]) -> None:
    """Every key is there."""
    value, numbers = b"v" * told["value_bytes"], iter(range(told["keys"]))

    async def some() -> None:
        for number in numbers:
            await node.submit(lines.command_of(number, value))

    await asyncio.gather(*(some() for _ in range(FILLING_AT_ONCE)))


async def measured(node: Node, work: Work) -> dict[str, Any]:
    """One run."""
    value = b"v" * work.value_bytes
    wanted = [lines.command_of(number, value if work.verb == "put" else b"") for number in drawn_keys(work)]
    count = Count(work.seconds)

    async def client(at: int) -> None:
        began = time.perf_counter()
        while began < count.until_s:
            if work.verb == "put":
                await node.submit(wanted[at % len(wanted)])
            else:
                await node.query(wanted[at % len(wanted)])
            ended = time.perf_counter()
            count.taken_s.append(ended - began)
            began, at = ended, at + 1

    await asyncio.gather(*(client(len(wanted) * n // work.clients) for n in range(work.clients)))
    return count.told()


async def serve(config: NodeConfig) -> None:
    """Does what it is told until nobody tells it any more."""
    told_lines = lines.heard()
    async with Node(config, state_machine=Dictionary()) as node:
        while (told := await asyncio.to_thread(next, told_lines, None)) is not None:
            if told["do"] == "fill":
                await fill(node, told)
                closing.say({})
            elif told["do"] == "run":
                closing.say(await measured(node, lines.work_of(told)))
            else:
                closing.say({"leads": node.leadership().leads})


@click.command()
@click.option("--id", "name", required=True)
@click.option("--data-dir", required=True)
@click.option("--initial-cluster", required=True, help="ID=URL,…")
def main(name: str, data_dir: str, initial_cluster: str) -> None:
    """Be the node ID."""
    members = dict(pair.split("=", 1) for pair in initial_cluster.split(","))
    closing.run(serve(NodeConfig.of(id=name, data_dir=data_dir, url=members[name], initial_cluster=members)))


if __name__ == "__main__":
    main()
