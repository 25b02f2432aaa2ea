"""What befalls the nodes of a run: never more than a minority at once, unless the power fails.

Told: a cluster, a seed, how long. Tells: what it did, and what every node said of its state meanwhile. It
never learns what clients do.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import Final

from tests.live.client import now_ms
from tests.live.cluster import SERVING_WITHIN_S, LiveCluster, LiveNode, eventually

AWAY_S: Final = (0.1, 1.6)
"""How long victims stay away: from less than an election timeout to several of them."""
BETWEEN_S: Final = (0.2, 0.9)
SAMPLE_EVERY_S: Final = 0.2


@dataclass(slots=True)
class Deeds:
    """What was done to the nodes."""

    began_at: float = field(default_factory=now_ms)
    counts: Counter[str] = field(default_factory=Counter)
    told: list[str] = field(default_factory=list)
    """One line a deed."""

    def note(self, kind: str, text: str) -> None:
        """One deed more."""
        self.counts[kind] += 1
        self.told.append(f"{(now_ms() - self.began_at) / 1000:7.2f} s  {text}")


@dataclass(slots=True)
class States:
    """What nodes said that their state was, by applied index."""

    hash_at: dict[int, tuple[str, str]] = field(default_factory=dict)
    """State hash, and who said so first."""
    contradictions: list[str] = field(default_factory=list)

    def hear(self, node: str, applied_index: int, state_hash: str | None) -> None:
        """Whoever has applied the same has the same."""
        if state_hash is None:
            return
        known, first = self.hash_at.setdefault(applied_index, (state_hash, node))
        if known != state_hash:
            self.contradictions.append(f"at index {applied_index} {first} has {known}, {node} has {state_hash}")

    async def sample(self, cluster: LiveCluster) -> None:
        """Asks all nodes, until it is cancelled."""
        while True:
            for node, status in (await cluster.statuses()).items():
                self.hear(node, status["applied_index"], status["state_hash"])
            await asyncio.sleep(SAMPLE_EVERY_S)


class Faults:
    """Kills, pauses and stops a minority, over and over, the leader more often than others."""

    def __init__(self, cluster: LiveCluster, rng: Random, deeds: Deeds) -> None:
        self._cluster, self._rng, self._deeds = cluster, rng, deeds
        self._minority = (len(cluster.nodes) - 1) // 2

    async def run(self, until_ms: float) -> None:
        """Goes on until then; then all nodes run."""
        while now_ms() < until_ms:
            await asyncio.sleep(self._rng.uniform(*BETWEEN_S))
            await self._strike()

    async def power_cut(self) -> None:
        """All nodes are killed at once, and started again."""
        self._deeds.note("power cuts", "all nodes are killed at once")
        self._cluster.kill_all()
        self._cluster.start()
        await self._cluster.until_serving()

    async def _strike(self) -> None:
        victims = await self._victims()
        for victim in victims:
            await self._take_away(victim, self._rng.choice(["kill", "kill", "pause", "pause", "stop"]))
        await asyncio.sleep(self._rng.uniform(*AWAY_S))
        for victim in victims:
            if victim.is_paused and self._rng.random() < 0.3:
                self._deeds.note("kills", f"{victim.id}, paused, is killed")
                victim.kill()
            if victim.is_paused:
                victim.resume()
            elif not victim.is_running:
                victim.start()
        await self._until_answering(victims)

    async def _victims(self) -> list[LiveNode]:
        nodes = list(self._cluster.nodes.values())
        leader = await self._cluster.leader()
        chosen = self._rng.sample(nodes, self._rng.randint(1, self._minority))
        if leader is not None and leader not in chosen and self._rng.random() < 0.6:
            chosen[0] = leader
        return chosen

    async def _take_away(self, node: LiveNode, how: str) -> None:
        if how == "kill":
            self._deeds.note("kills", f"{node.id} is killed")
            node.kill()
        elif how == "pause":
            self._deeds.note("pauses", f"{node.id} is paused")
            node.pause()
        else:
            self._deeds.note("stops", f"{node.id} is asked to stop")
            node.ask_to_stop()
            await node.ended()

    async def _until_answering(self, nodes: list[LiveNode]) -> None:
        async def answering() -> bool | None:
            dead = [node.id for node in nodes if not node.is_running]
            assert not dead, f"{', '.join(dead)} ended when started again: see the log"
            return True if len(await self._cluster.statuses(nodes)) == len(nodes) else None

        await eventually(answering, within_s=SERVING_WITHIN_S, what="nodes to answer after a fault")
