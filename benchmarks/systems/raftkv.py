"""This checkout's raftkv: as `raftkv serve` runs it, with either front."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from benchmarks.figures import Run, metrics
from benchmarks.processes import ROOT, Cluster, free_ports
from benchmarks.systems.base import NODES
from benchmarks.systems.http import HttpSystem, ask, json_of
from benchmarks.systems.wrk import drive
from benchmarks.work import Work, drawn_keys, key
from raftkv import __version__

COMPILED: Final = ROOT / ".venv-compiled" / "bin" / "python"
"""Where `scripts/compiled` leaves a raftkv that is compiled."""


def commands(
    directory: Path, urls: Sequence[str], *more: str, python: Sequence[str] = (sys.executable,)
) -> list[list[str]]:
    """`raftkv serve` for each node, with default settings but for ``more``."""
    members = ",".join(f"n{number}={url}" for number, url in enumerate(urls, 1))
    return [
        [
            *(*python, "-m", "raftkv", "serve", "--id", f"n{number}", "--url", url),
            *("--data-dir", str(directory / f"n{number}"), "--initial-cluster", members, *more),
        ]
        for number, url in enumerate(urls, 1)
    ]


class Raftkv(HttpSystem):
    """Default settings."""

    name = "raftkv"
    title = "raftkv"
    version = __version__
    more: tuple[str, ...] = ()
    python: tuple[str, ...] = (sys.executable,)

    def __init__(self, directory: Path) -> None:
        self.urls = [f"http://127.0.0.1:{port}" for port in free_ports(NODES)]
        self.cluster = Cluster(self.name, commands(directory, self.urls, *self.more, python=self.python), directory)

    def leads(self, url: str) -> bool:
        """Its status says so."""
        return bool(json_of(url, "GET", "/v1/status")["role"] == "leader")

    def term(self) -> int:
        """Of whoever leads."""
        return int(json_of(self.urls[self.leader()], "GET", "/v1/status")["term"])

    def fill_request(self, numbers: range, value_bytes: int) -> tuple[str, bytes]:
        """One transaction."""
        value = "v" * value_bytes
        puts = [{"put": {"key": key(number), "value": value}} for number in numbers]
        return "/v1/txn", json.dumps({"success": puts}).encode()

    def write_request(self) -> tuple[str, str, bytes]:
        """One key, again and again."""
        return "PUT", "/v1/kv/failover", b"v" * 256

    def run(self, work: Work) -> Run:
        """At the leader."""
        body = " =" if work.verb == "put" else ""
        lines = [f"/v1/kv/{key(number)}{body}" for number in drawn_keys(work)]
        url, method = self.urls[self.leader()], "PUT" if work.verb == "put" else "GET"
        return drive(url, method, lines, clients=work.clients, seconds=work.seconds, value_bytes=work.value_bytes)

    def counters(self) -> Sequence[Mapping[str, float]]:
        """The nodes' metrics."""
        return [metrics(ask(url, "GET", "/metrics")[1].decode()) for url in self.urls]


class RaftkvWithoutFastLane(Raftkv):
    """All requests by aiohttp."""

    name = "raftkv-aiohttp"
    title = "raftkv, http-fast-lane off"
    more = ("--http-fast-lane", "off")


class RaftkvCompiled(Raftkv):
    """As it was installed by `scripts/compiled`: -I, so that it is not this checkout's source that is imported."""

    name = "raftkv-compiled"
    title = "raftkv, compiled"
    python = (str(COMPILED), "-I")
