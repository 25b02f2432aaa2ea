"""What is broken about a node, on its way from a test to the node's process (``faulty_node``): a small file of JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Faults:
    """What is broken."""

    cut: tuple[str, ...] = ()
    """HOST:PORT to which nothing gets through, and from which no answer comes back."""
    sync_delay_ms: int = 0
    sync_hangs: bool = False
    sync_fails: bool = False
    disk_full: bool = False
    clock_ahead_ms: int = 0
    stall_ms: int = 0
    """The event loop stands still for so long, again and again."""
    dies: str = ""
    """``before`` or ``after``, an operation (``write``, ``sync``, ``rename``, ``drop``, ``load``), and what the name of
    its file begins with: there the process is gone, as by kill -9."""
    state_is_wrong: bool = False
    """What is applied makes another state here than elsewhere."""

    def write(self, path: Path) -> None:
        """A node that runs goes by it soon, and then says so (``is_heeded``)."""
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(asdict(self)))
        fresh.replace(path)


def read(path: Path) -> Faults:
    """What the file says; nothing is broken where there is none."""
    try:
        told = json.loads(path.read_text())
    except FileNotFoundError:
        return Faults()
    return Faults(**{**told, "cut": tuple(told.get("cut", ()))})


def heeded(path: Path) -> None:
    """A node goes by what stands in its file now."""
    path.with_suffix(".heeded").write_text(_version_of(path))


def is_heeded(path: Path) -> bool:
    """Whether the node has said so of the newest faults."""
    try:
        return path.with_suffix(".heeded").read_text() == _version_of(path)
    except FileNotFoundError:
        return False


def _version_of(path: Path) -> str:
    found = path.stat()
    return f"{found.st_ino} {found.st_mtime_ns}"
