"""How long nobody can write when the leader is gone: killed, or stopped where it stands."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from rich.progress import Progress

from benchmarks.comparing import running
from benchmarks.environment import Available
from benchmarks.figures import percentile
from benchmarks.processes import Failed, wait_for
from benchmarks.systems.base import NODES, NotAccepted, System
from benchmarks.tables import Table

SYSTEMS: Final = ("etcd-3.4", "etcd-3.5", "zookeeper", "raftkv")
ANSWER_TIMEOUT_S: Final = 0.25
"""For one attempt, which may be in vain: a request that reached a node while nobody led is not taken up by all."""
ASKERS: Final = 5
"""For each node, one after the other, so that an attempt in vain hides no more than a fifth of that."""
PAUSE_S: Final = 0.01
GIVE_UP_S: Final = 60.0
QUIET_S: Final = 1.0
"""Between two of them, all is well for so long: nobody is killed while it is still catching up."""
WAYS: Final = ("kill -9", "SIGSTOP")


def measured(
    names: Sequence[str], available: Available, directory: Path, kills: int, progress: Progress
) -> tuple[Table, dict[str, Any]]:
    """Each system by itself; the two ways in turns."""
    names = [name for name in names if name in available.makes]
    task = progress.add_task("failover", total=len(names) * kills * len(WAYS))
    left_out: dict[str, str] = {}
    found: dict[str, dict[str, list[float]]] = {}
    for name in names:
        with running([name], available, directory, left_out) as systems:
            for system in systems:
                if type(system).write is System.write:
                    raise Failed(f"{system.name} takes no single writes from outside")
                taken: dict[str, list[float]] = {way: [] for way in WAYS}
                for number in range(kills * len(WAYS)):
                    way = WAYS[number % len(WAYS)]
                    progress.update(task, description=f"{system.title}: {way} {number // len(WAYS) + 1} of {kills}")
                    taken[way].append(gap_s(system, way))
                    progress.advance(task)
                found[system.title] = taken
    return _table(found, left_out), {"failover_s": found, "left_out": left_out}


def gap_s(system: System, way: str) -> float:
    """From the signal to the next write that is accepted; afterwards all nodes are as they were."""
    _settle(system)
    leader = system.leader()
    began = time.perf_counter()
    if way == "SIGSTOP":
        system.cluster.send(signal.SIGSTOP, leader)
    else:
        system.cluster.kill(leader)
    try:
        return _first_accepted(system, [node for node in range(NODES) if node != leader]) - began
    finally:
        if way == "SIGSTOP":
            system.cluster.send(signal.SIGCONT, leader)
        else:
            system.cluster.start(leader)


def _settle(system: System) -> None:
    """Every node serves, and writes have gone well for a while."""
    for node in range(NODES):
        wait_for(f"{system.name}: node {node + 1}", _reachable(system, node))
    until = time.monotonic() + QUIET_S
    give_up = time.monotonic() + GIVE_UP_S
    while time.monotonic() < until:
        if time.monotonic() > give_up:
            raise Failed(f"{system.name}: writes did not go well for a second within {GIVE_UP_S:.0f} s")
        try:
            system.write(system.leader(), ANSWER_TIMEOUT_S)
        except (NotAccepted, OSError):
            until = time.monotonic() + QUIET_S
        time.sleep(0.02)


def _reachable(system: System, node: int) -> Callable[[], bool | None]:
    def look() -> bool | None:
        try:
            system.write(node, ANSWER_TIMEOUT_S)
        except NotAccepted:
            return True  # it answers, if only with a redirect
        except OSError:
            return None
        return True

    return look


def _first_accepted(system: System, nodes: Sequence[int]) -> float:
    """The moment; all of these nodes are asked again and again, each by several threads in turns."""
    accepted: list[float] = []
    over = threading.Event()

    def ask(node: int, turn: int) -> None:
        over.wait(turn * ANSWER_TIMEOUT_S / ASKERS)
        while not over.is_set():
            try:
                system.write(node, ANSWER_TIMEOUT_S)
            except (NotAccepted, OSError):
                over.wait(PAUSE_S)
            else:
                accepted.append(time.perf_counter())
                over.set()

    threads = [threading.Thread(target=ask, args=(node, turn), daemon=True) for node in nodes for turn in range(ASKERS)]
    try:
        for thread in threads:
            thread.start()
        over.wait(GIVE_UP_S)
    finally:
        over.set()
        for thread in threads:
            if thread.ident is not None:  # a signal may come while they are being started
                thread.join()
    if not accepted:
        raise Failed(f"{system.name}: no write was accepted within {GIVE_UP_S:.0f} s of the leader's end")
    return min(accepted)


def _table(found: dict[str, dict[str, list[float]]], left_out: dict[str, str]) -> Table:
    headings = ("system", "leader", "times", "median ms", "p95 ms", "p99 ms", "longest ms")
    table = Table("failover: from the leader's end to the next accepted write", headings, left=2)
    for title, ways in found.items():
        for way, taken in ways.items():
            ordered = sorted(taken)
            parts = (percentile(ordered, part) * 1000 for part in (50, 95, 99, 100))
            table.add(title, way, str(len(ordered)), *(f"{part:,.0f}" for part in parts))
    table.notes += [f"left out: {name}: {why}" for name, why in left_out.items()]
    table.notes.append(
        f"Both surviving nodes are asked again and again, {ASKERS} requests to each in turns, each on a connection of "
        f"its own and given up after {ANSWER_TIMEOUT_S * 1000:.0f} ms; default settings on all."
    )
    return table
