"""What every system that is measured can do."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from benchmarks.figures import Point, Run, syncs_between
from benchmarks.processes import Cluster, Failed, machine_cpu_s, run, shortened
from benchmarks.work import Work

NODES: Final = 3
SETTLED_S: Final = 2.0
"""Who has led for so long since its cluster went on is not about to be replaced: an election takes none that long."""
SETTLE_TIMEOUT_S: Final = 60.0
LOOK_EVERY_S: Final = 0.1


class NotAccepted(Exception):
    """A write that no node has confirmed: refused, unreachable, or not answered in time."""


class System(ABC):
    """Three nodes on loopback with default durability, and one way to put load on them."""

    name: str
    """As ``--systems`` takes it."""
    title: str
    version: str = ""
    generator: str
    """Who puts the load on it, for the report."""
    remark: str = ""
    """What a reader of the figures must know."""
    cluster: Cluster

    @abstractmethod
    def leader(self) -> int:
        """The number of the node that leads; waits until one does."""

    @abstractmethod
    def fill(self, keys: int, value_bytes: int) -> None:
        """Every key is there."""

    @abstractmethod
    def run(self, work: Work) -> Run:
        """Load for so long."""

    def write(self, node: int, timeout_s: float) -> None:
        """One write, given to this node. Raises NotAccepted, or OSError."""
        raise NotAccepted(f"{self.name} takes no single writes")

    def counters(self) -> Sequence[Mapping[str, float]] | None:
        """Of each node, where it tells."""
        return None

    def start(self) -> None:
        """All nodes run, and one leads."""
        self.cluster.start()
        self.leader()

    def end(self) -> None:
        """Nothing of it runs."""
        self.cluster.end()

    def rest(self) -> None:
        """Takes no CPU until ``wake``: stopped where it stands."""
        self.cluster.send(signal.SIGSTOP)

    def wake(self) -> None:
        """Goes on, and one leads for as long as it takes to see that no other is being elected."""
        self.cluster.send(signal.SIGCONT)
        give_up = time.monotonic() + SETTLE_TIMEOUT_S
        leader, since = self.leader(), time.monotonic()
        while time.monotonic() - since < SETTLED_S:
            if time.monotonic() > give_up:
                raise Failed(f"{self.name}: nobody led for {SETTLED_S:g} s within {SETTLE_TIMEOUT_S:.0f} s")
            time.sleep(LOOK_EVERY_S)
            if (now := self.leader()) != leader:
                leader, since = now, time.monotonic()


def measure(system: System, work: Work) -> Point:
    """One run, and what it cost."""
    leader = system.leader()
    counters_before = system.counters()
    began_s, before, machine_before = time.perf_counter(), system.cluster.cpu_s(), machine_cpu_s()
    done = system.run(work)
    ended_s, after, machine_after = time.perf_counter(), system.cluster.cpu_s(), machine_cpu_s()
    counters_after = system.counters()
    syncs = None
    if counters_before is not None and counters_after is not None and work.verb == "put":
        syncs = syncs_between(counters_before, counters_after, leader=leader, seconds=done.seconds)
    return Point(
        run=done,
        leader=leader,
        node_cpu_s=tuple(late - early for early, late in zip(before, after, strict=True)),
        machine_cpu_s=machine_after - machine_before,
        window_s=ended_s - began_s,
        cores=os.cpu_count() or 1,
        syncs_per_batch=syncs.per_batch if syncs else None,
        operations_per_batch=syncs.operations_per_batch if syncs else None,
        sync_share=syncs.share if syncs else None,
    )


def run_generator(module: str, work: Work, *, python: Path | str = sys.executable, **more: object) -> Run:
    """One of our own generators, in a process of its own."""
    options = shortened({**asdict(work), **more})
    printed = run([str(python), "-m", f"benchmarks.generators.{module}", *options], timeout_s=60 + 3 * work.seconds)
    told = json.loads(printed.text)
    return Run(told["operations"], told["seconds"], told["latency_ms"], generator_cpu_s=printed.cpu_s)
