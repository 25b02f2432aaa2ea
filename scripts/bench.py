"""Replicated writes and linearizable reads per second: raftkv against etcd's HTTP gateway, in one run.

Three nodes of each on loopback, default durability (a sync before every acknowledgement), all data on one file
system, the same keys and values, one load generator (wrk, one thread) on the same machine. The two take turns,
round by round, so that a machine whose speed drifts drifts for both; what counts is the ratio.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

KEYS = 10_000
VALUE_BYTES = 256
READY_TIMEOUT_S = 30.0
INSTALL = "apt-get install -y etcd-server wrk"

LUA = """
local alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
local function base64(text)
  local bits = text:gsub(".", function(c)
    local byte, out = c:byte(), ""
    for i = 7, 0, -1 do out = out .. (math.floor(byte / 2 ^ i) % 2) end
    return out
  end)
  bits = bits .. string.rep("0", (6 - #bits % 6) % 6)
  local out = bits:gsub("%d%d%d%d%d%d", function(six)
    local index = tonumber(six, 2) + 1
    return alphabet:sub(index, index)
  end)
  return out .. string.rep("=", (4 - #out % 4) % 4)
end
local requests = {}
function init()
  math.randomseed(os.time())
  local value = string.rep("v", VALUE_BYTES)
  for i = 1, KEYS do
    local key = string.format("key-%012d", i)
    requests[i] = MAKE
  end
  for i = KEYS, 2, -1 do
    local j = math.random(i)
    requests[i], requests[j] = requests[j], requests[i]
  end
end
local turn = 0
function request()
  turn = turn % #requests + 1
  return requests[turn]
end
"""
MAKE = {
    ("raftkv", "PUT"): 'wrk.format("PUT", "/v1/kv/" .. key, {}, value)',
    ("raftkv", "GET"): 'wrk.format("GET", "/v1/kv/" .. key)',
    ("etcd", "PUT"): """wrk.format("POST", "/v3/kv/put", {["Content-Type"] = "application/json"},
      '{"key":"' .. base64(key) .. '","value":"' .. base64(value) .. '"}')""",
    ("etcd", "GET"): """wrk.format("POST", "/v3/kv/range", {["Content-Type"] = "application/json"},
      '{"key":"' .. base64(key) .. '"}')""",
}

console = Console(highlight=False, width=max(110, Console().width))


@dataclass(frozen=True)
class Measured:
    """One point of one round."""

    per_second: float
    p50_ms: float
    p99_ms: float


@dataclass
class System:
    """A running cluster of three."""

    name: str
    version: str
    leader: Callable[[], str]
    points: dict[tuple[str, int], list[Measured]] = field(default_factory=dict)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--seconds", default=5, show_default=True, help="Length of one measurement.")
@click.option("--rounds", default=3, show_default=True, help="How often the two take turns.")
@click.option("--clients", default="1,64,256", show_default=True, help="Connections, each with one request at a time.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Also write all measurements there.")
def bench(seconds: int, rounds: int, clients: str, json_file: Path | None) -> None:
    """Measure raftkv and etcd in turns and print the ratios."""
    missing = [tool for tool in ("wrk", "etcd") if shutil.which(tool) is None]
    if missing:
        sys.exit(f"scripts/bench needs {' and '.join(missing)}: {INSTALL}")
    counts = [int(count) for count in clients.split(",")]
    with ExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="raftkv-bench-")))
        sync_us = sync_floor_us(data)
        systems = [stack.enter_context(etcd(data)), stack.enter_context(raftkv(data))]
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task("filling", total=len(systems) * (1 + rounds * len(counts) * 2))
            for system in systems:
                fill(system, seconds)
                progress.advance(task)
            for number in range(1, rounds + 1):
                for verb in ("PUT", "GET"):
                    for count in counts:
                        for system in systems:
                            progress.update(task, description=f"round {number}: {system.name} {verb} × {count}")
                            system.points.setdefault((verb, count), []).append(measure(system, verb, count, seconds))
                            progress.advance(task)
        show(systems, counts, sync_us, seconds, rounds)
        if json_file is not None:
            json_file.write_text(json.dumps({system.name: _plain(system) for system in systems}, indent=1) + "\n")


def fill(system: System, seconds: int) -> None:
    """Every key is there: a run of wrk takes them one after the other, in an order of its own."""
    while measure(system, "PUT", 64, seconds).per_second * seconds < KEYS:
        seconds *= 2


def measure(system: System, verb: str, clients: int, seconds: int) -> Measured:
    """One run of wrk against the leader; a single answer that is no success ends the benchmark."""
    script = LUA.replace("KEYS", str(KEYS)).replace("VALUE_BYTES", str(VALUE_BYTES))
    script = script.replace("MAKE", MAKE[system.name, verb])
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}", "--latency", "-s", file.name, system.leader()]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    failures = re.search(r"Non-2xx or 3xx responses: (\d+)", printed)
    if failures or "Socket errors" in printed:
        sys.exit(f"{system.name} {verb} × {clients} did not answer everything well:\n{printed}")
    per_second = float(_found(r"Requests/sec:\s+([\d.]+)", printed))
    return Measured(per_second, _ms(_found(r"\n +50% +(\S+)", printed)), _ms(_found(r"\n +99% +(\S+)", printed)))


def show(systems: list[System], counts: list[int], sync_us: float, seconds: int, rounds: int) -> None:
    """The table of medians and ratios."""
    theirs, ours = systems
    console.print(
        f"{theirs.version} against {ours.version}: 3 nodes each on loopback, {rounds} rounds of {seconds} s in turns, "
        f"{VALUE_BYTES}-byte values, {os.cpu_count()} cores; fdatasync of 4 KiB here: {sync_us:.0f} µs (p50)"
    )
    table = Table(box=None, pad_edge=False)
    for heading in ("operation", "clients", f"{theirs.name}/s", "p50/p99 ms", f"{ours.name}/s", "p50/p99 ms", "ratio"):
        table.add_column(heading, justify="left" if heading == "operation" else "right")
    for verb in ("PUT", "GET"):
        for count in counts:
            pairs = list(zip(theirs.points[verb, count], ours.points[verb, count], strict=True))
            ratios = sorted(mine.per_second / other.per_second for other, mine in pairs)
            ratio = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f}–{ratios[-1]:.2f})"
            cells = [cell for system in systems for cell in _cells(system.points[verb, count])]
            table.add_row("put" if verb == "PUT" else "linearizable get", str(count), *cells, ratio)
    console.print(table)
    console.print("Ratios are of operations per second, raftkv over etcd: median (lowest–highest of the rounds).")


def _cells(measured: list[Measured]) -> tuple[str, str]:
    p50, p99 = (statistics.median(getattr(one, name) for one in measured) for name in ("p50_ms", "p99_ms"))
    return f"{statistics.median(one.per_second for one in measured):,.0f}", f"{p50:.2f}/{p99:.1f}"


def _plain(system: System) -> dict[str, object]:
    points = {f"{verb} {count}": [vars(one) for one in runs] for (verb, count), runs in system.points.items()}
    return {"version": system.version, "points": points}


@contextmanager
def etcd(data: Path) -> Iterator[System]:
    """Three nodes of Debian's etcd, defaults but for names, addresses and a quieter log."""
    version = subprocess.run(["etcd", "--version"], capture_output=True, text=True, check=True).stdout.split("\n")[0]
    names = [f"e{i}" for i in range(3)]
    peers = ",".join(f"{name}=http://127.0.0.1:{7981 + i}" for i, name in enumerate(names))
    commands = [
        [
            "etcd", "--name", name, "--data-dir", str(data / name), "--initial-cluster", peers,
            "--listen-peer-urls", f"http://127.0.0.1:{7981 + i}",
            "--initial-advertise-peer-urls", f"http://127.0.0.1:{7981 + i}",
            "--listen-client-urls", f"http://127.0.0.1:{7971 + i}",
            "--advertise-client-urls", f"http://127.0.0.1:{7971 + i}",
            "--logger", "zap", "--log-level", "error",
        ]
        for i, name in enumerate(names)
    ]  # fmt: skip
    urls = [f"http://127.0.0.1:{7971 + i}" for i in range(3)]
    with _processes(commands, data):
        yield System("etcd", version, lambda: _leader(urls, _etcd_leads))


@contextmanager
def raftkv(data: Path) -> Iterator[System]:
    """Three nodes of this checkout, with default settings."""
    names = [f"n{i + 1}" for i in range(3)]
    urls = [f"http://127.0.0.1:{7991 + i}" for i in range(3)]
    members = ",".join(f"{name}={url}" for name, url in zip(names, urls, strict=True))
    commands = [
        [
            sys.executable, "-m", "raftkv", "serve", "--id", name, "--data-dir", str(data / name), "--url", url,
            "--initial-cluster", members,
        ]
        for name, url in zip(names, urls, strict=True)
    ]  # fmt: skip
    from raftkv import __version__

    with _processes(commands, data):
        yield System("raftkv", f"raftkv {__version__}", lambda: _leader(urls, _raftkv_leads))


@contextmanager
def _processes(commands: list[list[str]], data: Path) -> Iterator[None]:
    running = []
    try:
        for number, command in enumerate(commands):
            with (data / f"{Path(command[0]).name}-{number}.log").open("wb") as log:
                running.append(subprocess.Popen(command, stdout=log, stderr=log))
        yield
    finally:
        for process in running:
            process.send_signal(signal.SIGTERM)
        for process in running:
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _leader(urls: list[str], leads: Callable[[str], bool]) -> str:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline:
        for url in urls:
            try:
                if leads(url):
                    return url
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                continue
        time.sleep(0.1)
    sys.exit(f"no leader among {', '.join(urls)} within {READY_TIMEOUT_S:.0f} s")


def _etcd_leads(url: str) -> bool:
    request = urllib.request.Request(f"{url}/v3/maintenance/status", data=b"{}", method="POST")
    with urllib.request.urlopen(request, timeout=2) as answer:
        status = json.load(answer)
    return bool(status.get("leader")) and status["leader"] == status["header"]["member_id"]


def _raftkv_leads(url: str) -> bool:
    with urllib.request.urlopen(f"{url}/v1/status", timeout=2) as answer:
        return bool(json.load(answer)["role"] == "leader")


def sync_floor_us(data: Path) -> float:
    """The median fdatasync of 4 KiB into a file that was written with zeros before."""
    descriptor = os.open(data / "floor", os.O_RDWR | os.O_CREAT, 0o600)
    block = os.urandom(4096)
    os.pwrite(descriptor, bytes(4096 * 500), 0)
    os.fsync(descriptor)
    taken = []
    for number in range(500):
        began = time.perf_counter()
        os.pwrite(descriptor, block, number * 4096)
        os.fdatasync(descriptor)
        taken.append(time.perf_counter() - began)
    os.close(descriptor)
    return statistics.median(taken) * 1e6


def _found(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    if found is None:
        sys.exit(f"wrk printed something else than expected:\n{text}")
    return found[1]


def _ms(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text).groups()  # type: ignore[union-attr]
    return float(number) * {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}[unit]


if __name__ == "__main__":
    bench()
