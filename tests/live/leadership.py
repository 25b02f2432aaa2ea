"""How long writes stand still when the leader goes.

Told: a cluster that serves. Tells: milliseconds from the loss of the leader to the first write that was begun
after it and accepted. It never learns why it took so long.
"""

from __future__ import annotations

from random import Random
from typing import Final

from tests.live.client import Ask, Client, Members, now_ms
from tests.live.cluster import LiveCluster
from tests.live.wire import Connections
from tests.live.workload import target_of

ATTEMPT_TIMEOUT_S: Final = 0.5
GIVEN_UP_AFTER_MS: Final = 20_000


async def kill_leader(cluster: LiveCluster, rng: Random) -> float:
    """The leader is killed; the pause of writes in milliseconds. It is started again and followed by all."""
    leader = await cluster.until_serving()
    leader.kill()
    pause_ms = await next_write(cluster, rng)
    leader.start()
    await cluster.until_serving()
    return pause_ms


async def next_write(cluster: LiveCluster, rng: Random) -> float:
    """Milliseconds until a write that is tried over and over from now on is accepted."""
    began_at = now_ms()
    members = Members([node.address for node in cluster.nodes.values()], ends_at=began_at + GIVEN_UP_AFTER_MS)
    connections = Connections()
    client = Client(members, rng, connections, timeout_s=ATTEMPT_TIMEOUT_S)
    settled = await client.settle(Ask("PUT", target_of(b"pulse"), b"%d" % rng.getrandbits(60), is_repeatable=True))
    connections.close()
    assert settled.answer is not None, f"no write was accepted within {GIVEN_UP_AFTER_MS / 1000:.0f} s"
    assert not members.findings, members.findings
    return now_ms() - began_at
