"""The same clusters as elsewhere, through a Python client."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.figures import Run
from benchmarks.systems.base import System, run_generator
from benchmarks.systems.http import HttpSystem
from benchmarks.work import Work


class ThroughLibrary(System):
    """A cluster of somebody else's kind, with a library between it and the load."""

    generator = "benchmarks/generators/client_library.py"
    remark = (
        "raftkv's client writes exactly once, by a session; aetcd repeats nothing. One client each, "
        "one task for each of the clients."
    )

    def __init__(self, under: HttpSystem, *, library: str, version: str, python: Path | str = sys.executable) -> None:
        self._under, self._library, self._python = under, library, python
        self.name, self.version = f"{library}-client", version
        self.title = f"aetcd {version}, {under.name}"
        if library == "raftkv":
            self.name = under.name.replace("raftkv", "raftkv-client")
            self.title = "raftkv's Python client" + (", servers compiled" if under.name != "raftkv" else "")
        self.cluster = under.cluster

    def leader(self) -> int:
        """The cluster's."""
        return self._under.leader()

    def start(self) -> None:
        """The cluster runs."""
        self._under.start()

    def fill(self, keys: int, value_bytes: int) -> None:
        """Without the library."""
        self._under.fill(keys, value_bytes)

    def run(self, work: Work) -> Run:
        """In a process of its own."""
        leader = self.leader()
        urls = [self._under.urls[leader], *(url for url in self._under.urls if url != self._under.urls[leader])]
        return run_generator("client_library", work, python=self._python, library=self._library, urls=",".join(urls))

    def counters(self) -> Sequence[Mapping[str, float]] | None:
        """The cluster's."""
        return self._under.counters()
