"""Changing who belongs to a cluster of real processes, as an operator would who does not give up.

Told: a cluster that serves, and whom to add or remove. Tells: how long it took. A change is asked for at any node,
again and again until it is decided: asking for what is there already changes nothing.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final
from urllib.parse import urlsplit

from tests.live.client import now_ms
from tests.live.cluster import Late, LiveCluster, LiveNode
from tests.live.wire import Address, Answer, Trouble

MEMBERS: Final = "/v1/admin/members"
WITHIN_S: Final = 60.0
_OPEN: Final = {202, 307, 500, 503, 504}
_NOT_YET: Final = {"membership_change_in_progress", "quorum_at_risk", "member_unreachable"}
"""What mends while nodes are killed and started again."""


async def ask(
    cluster: LiveCluster, node: LiveNode, method: str, path: str = "", fields: Any = None, *, wait_ms: int = 2000
) -> Answer | None:
    """What the leader says, asked by way of this node; None: nobody who could say anything was reached."""
    body = b"" if fields is None else json.dumps(fields).encode()
    headers = {} if fields is None else {"Content-Type": "application/json"}
    target, address = f"{MEMBERS}{path}" + ("" if method == "GET" else f"?wait_ms={wait_ms}"), node.address
    try:
        for _ in range(4):
            answer = await cluster.connections.exchange(
                address, method, target, headers=headers, body=body, timeout_s=15.0, kept=False
            )
            if answer.status != 307:
                return answer
            parts = urlsplit(answer.headers["location"])
            address = Address(parts.hostname or "", parts.port or 0)
    except Trouble:
        pass
    return None


async def decided(cluster: LiveCluster, method: str, path: str = "", fields: Any = None) -> dict[str, Any]:
    """What the cluster decided; raises Late if it does not come to that."""
    deadline, place, last = now_ms() + WITHIN_S * 1000, 0, "nobody answered"
    while now_ms() < deadline:
        up = cluster.up()
        node, place = up[place % len(up)], place + 1
        answer = await ask(cluster, node, method, path, fields)
        if answer is not None:
            told: dict[str, Any] = json.loads(answer.body)
            if answer.status not in _OPEN and told.get("code") not in _NOT_YET:
                return told
            last = f"{node.id}: {answer.status} {told.get('code')} {told.get('detail')}"
        await asyncio.sleep(0.1)
    raise Late(f"{method} {path} {fields} was not decided within {WITHIN_S:.0f} s; last: {last}")


async def add(cluster: LiveCluster, id: str, port: int) -> float:
    """A node more, which was started with --join and votes now; milliseconds since its start."""
    began_at = now_ms()
    node = cluster.make_joining(id, port)
    node.start()
    told = await decided(cluster, "POST", "", {"id": id, "url": node.url})
    assert id in voters_in(told), told
    return now_ms() - began_at


async def remove(cluster: LiveCluster, id: str) -> float:
    """A member less; its process still runs. Milliseconds."""
    began_at = now_ms()
    told = await decided(cluster, "DELETE", f"/{id}")
    assert id not in voters_in(told), told
    return now_ms() - began_at


def voters_in(told: dict[str, Any]) -> list[str]:
    """The ids of an answer's voters."""
    assert "voters" in told, told
    return [voter["id"] for voter in told["voters"]]
