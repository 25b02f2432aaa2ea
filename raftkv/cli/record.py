"""What runs where: ``cluster.json``, and processes that are known again for certain.

A process is known by its number and the moment it started, so that a number which the system has given to
somebody else in the meantime is never signalled.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from raftkv.cli.failures import CommandFailed

DATA_DIR_DEFAULT: Final = Path("raftkv-data")
VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Process:
    """One process of this machine."""

    pid: int
    started: str
    """The moment of its start, in the system's own words; only compared."""

    @property
    def is_alive(self) -> bool:
        """Whether this very process still runs; a dead one that nobody has collected does not."""
        return started(self.pid) == self.started


@dataclass(frozen=True, slots=True)
class LocalNode:
    """One node of the local cluster."""

    id: str
    url: str
    process: Process | None = None
    """As it was started last; None: stopped in order."""
    joins: bool = False
    """It was added to the cluster, which the others had formed."""

    @property
    def is_alive(self) -> bool:
        """Whether the node's process runs."""
        return self.process is not None and self.process.is_alive


@dataclass(frozen=True, slots=True)
class Record:
    """The local cluster, as cluster.json has it."""

    nodes: tuple[LocalNode, ...]

    @property
    def urls(self) -> tuple[str, ...]:
        """Of all nodes, in order of id."""
        return tuple(node.url for node in self.nodes)

    @property
    def names(self) -> dict[str, str]:
        """Ids by URL."""
        return {node.url: node.id for node in self.nodes}

    def alive(self) -> tuple[LocalNode, ...]:
        """The nodes whose processes run."""
        return tuple(node for node in self.nodes if node.is_alive)


def record_path(directory: Path) -> Path:
    """Where the record of a cluster's directory stands."""
    return directory / "cluster.json"


def read_record(directory: Path) -> Record | None:
    """The record, or None where no cluster was started; raises CommandFailed when it is unreadable."""
    path = record_path(directory)
    try:
        text = path.read_text()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CommandFailed(f"cannot read {path}: {error.strerror}") from error
    try:
        return _decode(json.loads(text))
    except (ValueError, KeyError, TypeError) as error:
        raise CommandFailed(
            f"{path} is not what `raftkv cluster up` writes ({error!r}). The nodes' data is elsewhere and unharmed; "
            "name the nodes with --endpoints."
        ) from error


def write_record(directory: Path, record: Record) -> None:
    """The record is replaced as a whole: whoever reads meanwhile sees the old one or the new one."""
    path = record_path(directory)
    fresh = path.with_suffix(".json.new")
    fresh.write_text(
        json.dumps({"version": VERSION, "nodes": [asdict(node) for node in record.nodes]}, indent=2) + "\n"
    )
    fresh.replace(path)


def started(pid: int) -> str | None:
    """When the process with this number started; None: there is none, or it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except ProcessLookupError:
        return None
    except FileNotFoundError:
        return None if Path("/proc/self/stat").exists() else _started_by_ps(pid)
    # The name in parentheses may hold anything, also a closing parenthesis; what is fixed follows the last one.
    fields = stat[stat.rindex(")") + 2 :].split()
    state, start_ticks = fields[0], fields[19]
    return None if state in "ZXx" else f"{boot} {start_ticks}"


def _started_by_ps(pid: int) -> str | None:
    environment = {**os.environ, "LC_ALL": "C"}
    asked = subprocess.run(
        ["ps", "-o", "state=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False, env=environment
    )
    state, _, moment = asked.stdout.strip().partition(" ")
    return moment.strip() if moment and not state.startswith("Z") else None


def _decode(value: Any) -> Record:
    if value["version"] != VERSION:
        raise ValueError(f"version {value['version']!r}")
    return Record(tuple(_decode_node(node) for node in _list(value["nodes"])))


def _decode_node(value: Any) -> LocalNode:
    process = value["process"]
    return LocalNode(
        str(value["id"]),
        str(value["url"]),
        None if process is None else Process(int(process["pid"]), str(process["started"])),
        bool(value.get("joins", False)),
    )


def _list(value: Any) -> Sequence[Any]:
    if not isinstance(value, list) or not value:
        raise ValueError("no nodes")
    return value
