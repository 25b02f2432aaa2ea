"""What a cluster costs beside its speed: idle, in memory, with many keys and large values, over a long time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from rich.progress import Progress

from benchmarks import floor
from benchmarks.comparing import running
from benchmarks.environment import Available
from benchmarks.figures import Point, percentile
from benchmarks.processes import Failed
from benchmarks.systems.base import System, measure
from benchmarks.systems.inside import Inside
from benchmarks.systems.raftkv import Raftkv
from benchmarks.tables import Table, cpu_cell, latency_cell
from benchmarks.work import Work

SERVERS: Final = ("etcd-3.4", "etcd-3.5", "zookeeper", "raftkv")
IDLE: Final = (*SERVERS, "pysyncobj")
SETTLE_S: Final = 3.0
VALUE_BYTES: Final = 256
LARGE_BYTES: Final = 64 * 1024
LARGE_KEYS: Final = 500
CLIENTS: Final = 64
LOOK_EVERY_S: Final = 0.5
RESTED_S: Final = 1.0
RESTED_SHARE: Final = 0.15
"""Of a core, all nodes together, for that long."""
RESTED_LOOKS_MAX: Final = 60

Found = tuple[Table, dict[str, Any]]


def idle(names: Sequence[str], available: Available, directory: Path, seconds: int, progress: Progress) -> Found:
    """Each by itself."""
    table = Table("idle: CPU of a cluster that nobody asks", ("system", "leader", "followers"))
    figures: dict[str, Any] = {}

    def look(system: System) -> None:
        leader = system.leader()
        time.sleep(SETTLE_S)
        began, before = time.perf_counter(), system.cluster.cpu_s()
        time.sleep(seconds)
        taken, after = time.perf_counter() - began, system.cluster.cpu_s()
        shares = [(late - early) / taken for early, late in zip(before, after, strict=True)]
        followers = " + ".join(f"{share:.2%}" for node, share in enumerate(shares) if node != leader)
        table.add(system.title, f"{shares[leader]:.2%}", followers)
        figures[system.title] = {"leader": leader, "shares": shares}

    _one_by_one(names, available, directory, progress, table, look)
    table.notes.append("Of one core.")
    return table, {"idle": figures}


def memory(
    names: Sequence[str], available: Available, directory: Path, keys: Sequence[int], progress: Progress
) -> Found:
    """Each by itself, growing."""
    table = Table("memory: resident, MiB", ("system", "keys", "leader", "followers"))
    figures: dict[str, Any] = {}

    def look(system: System) -> None:
        for count in sorted(keys):
            system.fill(count, VALUE_BYTES)
            time.sleep(SETTLE_S)
            leader, held = system.leader(), system.cluster.rss_mib()
            followers = " + ".join(f"{mib:.0f}" for node, mib in enumerate(held) if node != leader)
            table.add(system.title, f"{count:,}", f"{held[leader]:.0f}", followers)
            figures.setdefault(system.title, {})[str(count)] = {"leader": leader, "rss_mib": held}

    _one_by_one(names, available, directory, progress, table, look)
    table.notes.append(f"Keys of 16 bytes, values of {VALUE_BYTES}. Java takes what it may: its heap is as by default.")
    return table, {"memory": figures}


def sizes(
    names: Sequence[str], available: Available, directory: Path, keys: Sequence[int], seconds: int, progress: Progress
) -> tuple[list[Table], dict[str, Any]]:
    """Each by itself: large values where there is nothing else, and anew few keys, and more and more."""
    headings = ("system", "operation", "keys", "per second", "p50/p99 ms", "CPU µs leader+followers", "limited by")
    many = Table(f"sizes: {CLIENTS} clients, values of {VALUE_BYTES} bytes", headings, left=2)
    large = Table("sizes: values of 64 KiB, beside writing and syncing as much", ("", "clients", "MiB/s", "p50 ms"))
    figures: dict[str, Any] = {"sizes": {}, "large": {}}
    write_us = floor.sync_us(directory, block_bytes=LARGE_BYTES)
    floor_mib_s = LARGE_BYTES / 2**20 / (write_us / 1e6)
    large.add("floor: written and synced once, one by one", "1", f"{floor_mib_s:.1f}", f"{write_us / 1000:.2f}")
    figures["passed_on"] = []
    for clients in (1, CLIENTS):
        taken_us, mib_s = floor.passed_on(directory, clients)
        p50_ms = percentile(sorted(taken_us), 50) / 1000
        large.add("floor: passed on, and synced by three processes", str(clients), f"{mib_s:.1f}", f"{p50_ms:.2f}")
        figures["passed_on"].append({"clients": clients, "mib_s": mib_s, "p50_ms": p50_ms})

    def look_at_large(system: System) -> None:
        for clients in (1, CLIENTS):
            point = measure(system, Work("put", clients, seconds, LARGE_KEYS, LARGE_BYTES, seed=clients))
            mib_s = point.run.per_second * LARGE_BYTES / 2**20
            large.add(f"{system.title}, put", str(clients), f"{mib_s:.1f}", f"{point.run.latency_ms['50']:.2f}")
            figures["large"].setdefault(system.title, []).append({"clients": clients, "point": point})

    def look_at_many(system: System) -> None:
        for count in sorted(keys):
            system.fill(count, VALUE_BYTES)
            rested(system)
            for verb in ("put", "get"):
                point = measure(system, Work(verb, CLIENTS, seconds, count, VALUE_BYTES, seed=count))
                many.add(*_size_row(system, verb, count, point))
                figures["sizes"].setdefault(system.title, []).append({"verb": verb, "keys": count, "point": point})

    _one_by_one(names, available, directory / "large", progress, large, look_at_large)
    _one_by_one(names, available, directory / "many", progress, many, look_at_many)
    figures["floor_us"] = write_us
    return [many, large], figures


def rested(system: System) -> None:
    """What the last key began, snapshots above all, is over: its nodes are nearly idle, or it takes very long."""
    for _ in range(RESTED_LOOKS_MAX):
        began, before = time.perf_counter(), sum(system.cluster.cpu_s())
        time.sleep(RESTED_S)
        if sum(system.cluster.cpu_s()) - before <= RESTED_SHARE * (time.perf_counter() - began):
            return


def _size_row(system: System, verb: str, count: int, point: Point) -> list[str]:
    speed = f"{point.run.per_second:,.0f}"
    return [system.title, verb, f"{count:,}", speed, latency_cell([point]), cpu_cell([point]), point.limited_by]


def steady(
    names: Sequence[str], available: Available, directory: Path, minutes: float, clients: int, progress: Progress
) -> Found:
    """Each by itself."""
    headings = ("system", "minutes", "puts", "per second", "p99 ms", "changes of leader", "terms")
    table = Table(f"steady: {clients} clients put without a pause", headings)
    figures: dict[str, Any] = {}

    def look(system: System) -> None:
        if isinstance(system, Inside):
            raise Failed(f"{system.name}: nobody can ask who leads while its clients are inside")
        system.fill(10_000, VALUE_BYTES)
        first_term = system.term() if isinstance(system, Raftkv) else None
        watch = _Watch(system)
        watch.start()
        try:
            seconds = max(1, round(minutes * 60))
            point = measure(system, Work("put", clients, seconds, 10_000, VALUE_BYTES, seed=0))
        finally:
            watch.stop()
        terms = f"{first_term} → {system.term()}" if isinstance(system, Raftkv) else "–"
        run = point.run
        speed = (f"{run.operations:,}", f"{run.per_second:,.0f}", f"{run.latency_ms['99']:.1f}")
        table.add(system.title, f"{minutes:g}", *speed, str(watch.changes), terms)
        figures[system.title] = {"changes": watch.changes, "unseen": watch.unseen, "point": point}
        if watch.unseen:
            table.notes.append(f"{system.title}: {watch.unseen} times nobody said that it leads")

    _one_by_one(names, available, directory, progress, table, look)
    table.notes.append(f"Who leads is asked every {LOOK_EVERY_S:g} s; a term more is a change too short for it.")
    return table, {"steady": figures}


class _Watch(threading.Thread):
    """Asks who leads, and counts how often that was somebody else."""

    def __init__(self, system: System) -> None:
        super().__init__(daemon=True)
        self._system, self._over = system, threading.Event()
        self._leader = system.leader()
        self.changes = self.unseen = 0

    def run(self) -> None:
        """Until it is stopped."""
        while not self._over.wait(LOOK_EVERY_S):
            try:
                leader = self._system.leader()
            except (Failed, OSError):
                self.unseen += 1
                continue
            self.changes += leader != self._leader
            self._leader = leader

    def stop(self) -> None:
        """Asks no more."""
        self._over.set()
        self.join()


def _one_by_one(
    names: Sequence[str],
    available: Available,
    directory: Path,
    progress: Progress,
    table: Table,
    look: Callable[[System], None],
) -> None:
    """Each is started, looked at, and ended; what does not start is a note of the table."""
    chosen = [name for name in names if name in available.makes]
    task = progress.add_task("starting", total=len(chosen))
    left_out: dict[str, str] = {}
    for name in chosen:
        progress.update(task, description=f"measuring {name}")
        with running([name], available, directory, left_out) as systems:
            for system in systems:
                look(system)
        progress.advance(task)
    table.notes += [f"left out: {name}: {why}" for name, why in left_out.items()]
