"""What this machine allows, whatever runs on it: the disk, memory, a hop between processes, an event loop."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from rich.progress import Progress

from benchmarks.figures import percentile
from benchmarks.processes import Failed, end, free_ports, start, wait_for
from benchmarks.systems.http import ask
from benchmarks.systems.wrk import drive
from benchmarks.tables import Table

BLOCK_BYTES: Final = 4096
LARGE_BYTES: Final = 64 * 1024
SYNCS: Final = 500
COPIES: Final = 20_000
EXCHANGES: Final = 3_000
PASSED_ON: Final = 4_096
EXCHANGE_BYTES: Final = 300
CLIENTS: Final = (1, 64, 256)
VALUE_BYTES: Final = 256


def sync_us(directory: Path, *, block_bytes: int = BLOCK_BYTES, count: int = SYNCS) -> float:
    """The median of a write and its fdatasync, into a file that was written with zeros before."""
    return percentile(sorted(syncs_us(directory, block_bytes=block_bytes, count=count)), 50)


def syncs_us(
    directory: Path, *, block_bytes: int = BLOCK_BYTES, count: int = SYNCS, preallocated: bool = True
) -> list[float]:
    """Each of so many writes with its fdatasync, one behind the other."""
    path, block = directory / "floor", os.urandom(block_bytes)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        if preallocated:
            for number in range(count):
                os.pwrite(descriptor, bytes(block_bytes), number * block_bytes)
            os.fsync(descriptor)
        return timed_us(count, lambda number: _write_and_sync(descriptor, block, number * block_bytes))
    finally:
        os.close(descriptor)
        path.unlink()


def _write_and_sync(descriptor: int, block: bytes, at: int) -> None:
    os.pwrite(descriptor, block, at)
    os.fdatasync(descriptor)


def timed_us(count: int, act: Callable[[int], Any]) -> list[float]:
    """How long each of so many took."""
    taken = []
    for number in range(count):
        began = time.perf_counter_ns()
        act(number)
        taken.append((time.perf_counter_ns() - began) / 1000)
    return taken


def measured(directory: Path, seconds: int, progress: Progress) -> tuple[Table, dict[str, Any]]:
    """Everything, as a table."""
    table = Table("floor: what this machine allows", ("what", "p50 µs", "p99 µs", "per second"))
    figures: dict[str, Any] = {}
    task = progress.add_task("floor", total=8 + 2 * len(CLIENTS))

    def add(what: str, taken_us: list[float], mib_s: float | None = None) -> None:
        ordered = sorted(taken_us)
        p50, p99 = percentile(ordered, 50), percentile(ordered, 99)
        per_second = len(taken_us) / sum(taken_us) * 1e6 if mib_s is None else mib_s * 2**20 / LARGE_BYTES
        table.add(what, f"{p50:,.1f}", f"{p99:,.1f}", f"{per_second:,.0f}")
        figures[what] = {"p50_us": p50, "p99_us": p99}
        progress.advance(task)

    add("fdatasync of 4 KiB, appended to a growing file", syncs_us(directory, preallocated=False))
    add("fdatasync of 4 KiB, into a file written before", syncs_us(directory))
    add("fdatasync of 64 KiB, into a file written before", syncs_us(directory, block_bytes=LARGE_BYTES))
    add("64 KiB copied in memory", _copies_us())
    add("64 KiB written to a file, not synced", _writes_us(directory))
    add(f"{EXCHANGE_BYTES} bytes there and back between two processes", _exchanges_us(directory))
    for clients in (1, CLIENTS[1]):
        taken_us, mib_s = passed_on(directory, clients)
        add(f"64 KiB passed on to two more processes and synced by all three, {clients} at a time", taken_us, mib_s)
    _event_loop(directory, seconds, lambda: progress.advance(task), table, figures)
    return table, {"floor": figures}


def _copies_us() -> list[float]:
    block = bytearray(os.urandom(LARGE_BYTES))
    return timed_us(COPIES, lambda _: bytes(block))


def _writes_us(directory: Path) -> list[float]:
    path, block = directory / "floor", os.urandom(LARGE_BYTES)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        return timed_us(SYNCS, lambda number: os.pwrite(descriptor, block, number * LARGE_BYTES))
    finally:
        os.close(descriptor)
        path.unlink()


def _exchanges_us(directory: Path) -> list[float]:
    """Asyncio's plain protocols at both ends, on uvloop where it is there."""
    import asyncio

    from benchmarks.generators import closing
    from benchmarks.generators.nothing import Caller

    async def call(port: int) -> list[float]:
        loop = asyncio.get_running_loop()
        caller = Caller(EXCHANGES, EXCHANGE_BYTES)
        await loop.create_connection(lambda: caller, "127.0.0.1", port)
        return await asyncio.wait_for(caller.taken_us, 60)

    (port,) = free_ports(1)
    child = start(
        [sys.executable, "-m", "benchmarks.generators.nothing", "echo", str(port)], log=directory / "echo.log"
    )
    try:
        wait_for("the echo", lambda: _listens(port), timeout_s=20)
        taken: list[float] = closing.run(call(port))
        return taken
    finally:
        end([child])


def passed_on(directory: Path, clients: int) -> tuple[list[float], float]:
    """How long each block of 64 KiB took, and MiB/s, through three processes that only copy, write and sync."""
    import asyncio

    from benchmarks.generators import closing
    from benchmarks.generators.nothing import Caller

    async def call(port: int) -> tuple[list[float], float]:
        loop = asyncio.get_running_loop()
        callers = [Caller(PASSED_ON // clients, LARGE_BYTES, 1) for _ in range(clients)]
        began = time.perf_counter()
        for caller in callers:
            await loop.create_connection(partial(lambda each: each, caller), "127.0.0.1", port)
        taken = await asyncio.wait_for(asyncio.gather(*(caller.taken_us for caller in callers)), 120)
        blocks = clients * (PASSED_ON // clients)
        return [each for one in taken for each in one], blocks * LARGE_BYTES / 2**20 / (time.perf_counter() - began)

    children: list[subprocess.Popen[str]] = []
    ports = free_ports(3)
    try:
        for node, others in ((1, ()), (2, ()), (0, (1, 2))):
            file, passes_to = directory / f"copies-{node}", [str(ports[other]) for other in others]
            command = [sys.executable, "-m", "benchmarks.generators.copies", str(file), str(ports[node]), *passes_to]
            children.append(start(command, log=directory / f"copies-{node}.log"))
            wait_for("who takes copies", partial(_listens, ports[node]), timeout_s=20)
        found: tuple[list[float], float] = closing.run(call(ports[0]))
        return found
    finally:
        end(children)


def _event_loop(directory: Path, seconds: int, done: Callable[[], None], table: Table, figures: dict[str, Any]) -> None:
    """Requests per second of the lean front when nothing is behind it."""
    if shutil.which("wrk") is None:
        table.notes.append("event loop: not measured, wrk is not installed")
        return
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    child = start(
        [sys.executable, "-m", "benchmarks.generators.nothing", "http", str(port)], log=directory / "http.log"
    )
    try:
        wait_for("the empty handler", lambda: _listens(port), timeout_s=20)
        if ask(url, "GET", "/")[0] != 200:
            raise Failed("the empty handler does not answer")
        for method, line in (("PUT", "/v1/kv/key-000000000001 ="), ("GET", "/v1/kv/key-000000000001")):
            for clients in CLIENTS:
                run = drive(url, method, [line], clients=clients, seconds=seconds, value_bytes=VALUE_BYTES)
                what = f"lean front, empty handler: {method}, {clients} clients"
                p50, p99 = run.latency_ms["50"] * 1000, run.latency_ms["99"] * 1000
                table.add(what, f"{p50:,.0f}", f"{p99:,.0f}", f"{run.per_second:,.0f}")
                figures[what] = {"p50_us": p50, "p99_us": p99, "per_second": run.per_second}
                done()
    finally:
        end([child])


def _server(kind: str, port: int, directory: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.generators.nothing", kind, str(port)]
    return start(command, log=directory / f"{kind}.log")


def _listens(port: int) -> bool | None:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return None
    return True
