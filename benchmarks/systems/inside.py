"""Clusters whose clients live inside the leader's process: raftkv embedded, and PySyncObj."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from benchmarks.figures import Run
from benchmarks.processes import ROOT, Cluster, Failed, free_ports, wait_for
from benchmarks.systems.base import NODES, System
from benchmarks.systems.raftkv import COMPILED
from benchmarks.work import Work

_RUN_MODULE: Final = """\
import runpy, sys
sys.path.append(ROOT)
del sys.argv[0]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
"""What `python -m` does, where it must not put the current directory first."""


class Inside(System):
    """Three processes that are spoken to in lines."""

    generator = "calls inside the leader"

    def _ask(self, node: int, told: dict[str, Any]) -> dict[str, Any]:
        hears, says = self.cluster.pipes(node)
        try:
            hears.write(json.dumps(told) + "\n")
            hears.flush()
            line = says.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self.cluster.check(within_s=2.0)
            raise Failed(f"{self.name}: node {node + 1} said nothing")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def leader(self) -> int:
        """By asking every node."""

        def look() -> int | None:
            self.cluster.check()
            leaders = (node for node in range(NODES) if self._ask(node, {"do": "look"})["leads"])
            return next(leaders, None)

        return wait_for(f"{self.name}: a leader", look)

    def fill(self, keys: int, value_bytes: int) -> None:
        """By the leader itself."""
        self._ask(self.leader(), {"do": "fill", "keys": keys, "value_bytes": value_bytes})

    def run(self, work: Work) -> Run:
        """In the leader."""
        told = self._ask(self.leader(), {"do": "run", "work": asdict(work)})
        return Run(told["operations"], told["seconds"], told["latency_ms"], generator_is_in_leader=True)


class RaftkvInside(Inside):
    """`raftkv.Node` with a dictionary as its machine; every write is synced, as by default."""

    name = "raftkv-inside"
    title = "raftkv, submit inside the leader"
    python: tuple[str, ...] = (sys.executable, "-m")

    def __init__(self, directory: Path) -> None:
        from raftkv import __version__

        self.version = __version__
        members = ",".join(f"n{n}=http://127.0.0.1:{port}" for n, port in enumerate(free_ports(NODES), 1))
        commands = [
            [
                *(*self.python, "benchmarks.generators.raftkv_inside", "--id", f"n{n}"),
                *("--data-dir", str(directory / f"n{n}"), "--initial-cluster", members),
            ]
            for n in range(1, NODES + 1)
        ]
        self.cluster = Cluster(self.name, commands, directory, pipes=True)


class RaftkvInsideCompiled(RaftkvInside):
    """With the raftkv that `scripts/compiled` installed: this checkout, where the benchmark is, is looked at last."""

    name = "raftkv-inside-compiled"
    title = "raftkv compiled, submit inside the leader"
    python = (str(COMPILED), "-I", "-c", _RUN_MODULE.replace("ROOT", repr(str(ROOT))))


class PySyncObj(Inside):
    """Tuned; in memory, as it is by default.

    It ticks a thousand times a second, so it ends after each run and is filled anew for the next. Stopped and continued
    it did not answer all calls: by default its connections are dead after 3.5 s, and made again after 5.
    """

    name = "pysyncobj"
    title = "PySyncObj, tuned, inside the leader"
    remark = (
        "PySyncObj syncs nothing to disk by default and loses acknowledged writes when its machines do; ticks of 1 ms, "
        "its log never compacted; a get goes through its log; started and filled anew for each of its runs."
    )

    def __init__(self, directory: Path, *, python: Path, version: str) -> None:
        self.version, self.title = version, f"PySyncObj {version}, tuned, inside the leader"
        self._filled: tuple[int, int] | None = None
        addresses = [f"127.0.0.1:{port}" for port in free_ports(NODES)]
        commands = [
            [
                *(str(python), "-m", "benchmarks.generators.pysyncobj_inside", own),
                *(other for other in addresses if other != own),
            ]
            for own in addresses
        ]
        self.cluster = Cluster(self.name, commands, directory, pipes=True)

    def fill(self, keys: int, value_bytes: int) -> None:
        """By the leader, now and whenever it begins anew."""
        super().fill(keys, value_bytes)
        self._filled = keys, value_bytes

    def rest(self) -> None:
        """None of its processes runs."""
        self.cluster.end()

    def wake(self) -> None:
        """New ones run, one leads, and holds what was filled."""
        if self.cluster.runs:
            return
        self.start()
        if self._filled is not None:
            super().fill(*self._filled)
