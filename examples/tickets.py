"""A ticket counter that outlives its machines: no number is given twice, and who asks again gets the same number.

Run three, each in a shell of its own; draw at any of them; kill one, and draw on:

    python examples/tickets.py n1     (n2, n3)
    curl -sL -X POST http://127.0.0.1:8701/tickets/alice
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from random import Random
from typing import Any

from aiohttp import web

from raftkv import Consistency, LogEntry, Node, NodeConfig, NotLeader, OutcomeUnknown, RaftkvError, StateMachine

MEMBERS = {f"n{i}": f"http://127.0.0.1:{8600 + i}" for i in (1, 2, 3)}
FACES = {f"n{i}": f"http://127.0.0.1:{8700 + i}" for i in (1, 2, 3)}


class Tickets(StateMachine):
    """Customers in the order in which they came. A command is a customer's name, and so may safely be repeated."""

    def __init__(self) -> None:
        self._tickets: dict[bytes, int] = {}

    def apply_batch(self, entries: Sequence[LogEntry]) -> list[int]:
        return [self._tickets.setdefault(entry.command, len(self._tickets) + 1) for entry in entries]

    def query(self, query: Any) -> int:
        return len(self._tickets)

    def snapshot(self) -> bytes:
        return json.dumps([customer.hex() for customer in self._tickets]).encode()

    def restore(self, snapshot: bytes) -> None:
        self._tickets = {bytes.fromhex(customer): ticket for ticket, customer in enumerate(json.loads(snapshot), 1)}

    # What follows is for `raftkv simulate --state-machine examples.tickets:Tickets`.

    def random_command(self, rng: Random) -> bytes:
        return b"customer %d" % rng.randrange(100)

    def random_query(self, rng: Random) -> Any:
        return None

    def check(self) -> None:
        assert sorted(self._tickets.values()) == list(range(1, len(self._tickets) + 1)), "a number is twice there"


def face(node: Node, faces: Mapping[str, str]) -> web.Application:
    """The program's own HTTP. A node that does not lead sends customers on to the one that does."""

    async def draw(request: web.Request) -> web.Response:
        try:
            ticket = await node.submit(request.match_info["customer"].encode())
        except NotLeader as elsewhere:
            if elsewhere.leader_id is None:
                raise web.HTTPServiceUnavailable(text="nobody leads at present; ask again soon") from None
            raise web.HTTPTemporaryRedirect(faces[elsewhere.leader_id] + request.raw_path) from None
        except OutcomeUnknown:
            raise web.HTTPGatewayTimeout(text="ask again: you get one ticket, whatever has happened") from None
        except RaftkvError as error:
            raise web.HTTPServiceUnavailable(text=str(error)) from None
        return web.json_response({"ticket": ticket})

    async def drawn(request: web.Request) -> web.Response:
        return web.json_response({"drawn": await node.query(None, consistency=Consistency.FOLLOWER)})

    app = web.Application()
    app.add_routes([web.post("/tickets/{customer}", draw), web.get("/tickets", drawn)])
    return app


async def main(me: str) -> None:
    config = NodeConfig.of(id=me, data_dir=f"tickets-{me}", url=MEMBERS[me], initial_cluster=MEMBERS)
    async with Node(config, state_machine=Tickets()) as node:
        runner = web.AppRunner(face(node, FACES))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", int(FACES[me].rpartition(":")[2])).start()
        await node.ended


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in MEMBERS:
        sys.exit(f"usage: python {sys.argv[0]} {'|'.join(MEMBERS)}")
    with suppress(KeyboardInterrupt):
        asyncio.run(main(sys.argv[1]))
