"""A cluster of real processes on this machine: which nodes, started, watched, stopped.

Told: a directory and what the user wants. Tells: the record of what runs, and who ended how. Prints
nothing. What one needs to find the processes again stands in the directory (``record.py``), so that any
later command can stop what an earlier one started.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Final

from raftkv.cli.asking import ask_this_node
from raftkv.cli.failures import CommandFailed, Unusable
from raftkv.cli.overview import NodeView, leader_among, view_nodes
from raftkv.cli.record import LocalNode, Process, Record, read_record, started, write_record
from raftkv.errors import DataError
from raftkv.storage.directory import PosixDirectory
from raftkv.storage.identity import IDENTITY_NAME, read_identity
from raftkv.values import url_address

HOST: Final = "127.0.0.1"
NODES_DEFAULT: Final = 3
BASE_PORT_DEFAULT: Final = 7401
SERVING_TIMEOUT_S: Final = 30.0
ELECTION_TIMEOUT_S: Final = 5.0
"""For a majority that has lost a node at its start to find out whether it can go on, as it can where it once did."""
READY_TIMEOUT_S: Final = 2.0
"""For a node that knows its leader to catch up; one that has a long way goes it while the others serve."""
STOP_GRACE_S: Final = 15.0
"""How long a node may take to hand over and finish before it is killed."""
POLL_S: Final = 0.1
LOG_TAIL_LINES: Final = 15
STOPPING_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Ending(Enum):
    """How a node came to stand still."""

    WAS_NOT_RUNNING = "was not running"
    STOPPED = "stopped"
    KILLED = "did not stop in time and was killed"


@dataclass(slots=True)
class LocalCluster:
    """The cluster in one directory, and the processes that this command itself has started."""

    directory: Path
    record: Record
    children: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def log_path(self, id: str) -> Path:
        """Where the node's output goes."""
        return self.directory / f"{id}.log"

    def exit_code(self, id: str) -> int | None:
        """What the node ended with, where this command can know; None: it runs, or is nobody we started."""
        child = self.children.get(id)
        return None if child is None else child.poll()


def plan(directory: Path, *, nodes: int | None, base_port: int | None) -> Record:
    """The record to go on with, or a new one. Raises Unusable when the wish contradicts what is there."""
    existing = read_record(directory)
    if existing is None:
        first = BASE_PORT_DEFAULT if base_port is None else base_port
        count = NODES_DEFAULT if nodes is None else nodes
        return Record(tuple(LocalNode(f"n{i + 1}", f"http://{HOST}:{first + i}") for i in range(count)))
    if nodes is not None and nodes != len(existing.nodes):
        raise Unusable(
            f"{directory} holds a cluster of {len(existing.nodes)} nodes, not {nodes}. Leave out --nodes to go on with "
            "it, or start another one with --data-dir."
        )
    there = url_address(existing.nodes[0].url).port
    if base_port is not None and base_port != there:
        raise Unusable(
            f"the cluster in {directory} lives at port {there} and on, not {base_port}. Leave out --base-port to go "
            "on with it, or start another one with --data-dir."
        )
    return existing


@contextmanager
def exclusively(directory: Path) -> Iterator[None]:
    """Nobody else starts or stops this directory's cluster meanwhile. Makes the directory."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / "cluster.lock").open("w")
    except OSError as error:
        raise CommandFailed(f"cannot use {directory}: {error.strerror}. Give another place with --data-dir.") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CommandFailed(
                f"another `raftkv cluster` command is starting or stopping {directory}. Wait until it is done."
            ) from None
        yield


def start_missing(cluster: LocalCluster) -> None:
    """Every node has a process, and the record says which. Raises CommandFailed, nothing started, on a taken port."""
    missing = [node for node in cluster.record.nodes if not node.is_alive]
    _refuse_taken_ports(missing)
    for node in missing:
        # Interrupted between its start and its record, a node would run on with nobody knowing it.
        with _undisturbed():
            child = _spawn(cluster, node)
            cluster.children[node.id] = child
            _note_process(cluster, node.id, Process(child.pid, started(child.pid) or "ended at once"))


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Signals that ask us to stop are kept until this is done. A mask would do, but a child would inherit it."""
    arrived: list[int] = []
    before = {number: signal.signal(number, lambda number, _: arrived.append(number)) for number in STOPPING_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if arrived:
        signal.raise_signal(arrived[0])


def add_node(cluster: LocalCluster) -> LocalNode:
    """The cluster has a node more, which is started and asks the others to let it in. Its id and port come next."""
    taken = {node.id for node in cluster.record.nodes}
    port = max(url_address(node.url).port for node in cluster.record.nodes) + 1
    id = next(f"n{number}" for number in range(len(taken) + 1, 2 * len(taken) + 2) if f"n{number}" not in taken)
    node = LocalNode(id, f"http://{HOST}:{port}", joins=True)
    _refuse_taken_ports([node])
    with _undisturbed():
        cluster.record = Record((*cluster.record.nodes, node))
        child = _spawn(cluster, node)
        cluster.children[node.id] = child
        _note_process(cluster, node.id, Process(child.pid, started(child.pid) or "ended at once"))
    return node


def forget_node(cluster: LocalCluster, id: str) -> None:
    """The node, which this command has started, is stopped, and the cluster is as it was without it."""
    _stop(cluster, [node for node in cluster.record.nodes if node.id == id], STOP_GRACE_S)
    cluster.record = Record(tuple(node for node in cluster.record.nodes if node.id != id))
    write_record(cluster.directory, cluster.record)


def _how_it_begins(cluster: LocalCluster, node: LocalNode) -> list[str]:
    """Those who were there first form the cluster. Who comes later joins it; so does one whose data is gone.

    That one can never form the cluster again: it waits until it is put in its old place.
    """
    others = [other for other in cluster.record.nodes if other.id != node.id]
    is_emptied = not _has_identity(cluster, node) and any(_has_formed(cluster, other) for other in others)
    if others and (node.joins or is_emptied):
        return ["--join", ",".join(other.url for other in others)]
    founders = [f"{other.id}={other.url}" for other in cluster.record.nodes if not other.joins]
    return ["--initial-cluster", ",".join(founders)]


def _has_identity(cluster: LocalCluster, node: LocalNode) -> bool:
    return (cluster.directory / node.id / IDENTITY_NAME).exists()


def _has_formed(cluster: LocalCluster, node: LocalNode) -> bool:
    """Whether its directory says that the cluster is formed; one that cannot be read says nothing."""
    if not _has_identity(cluster, node):
        return False
    try:
        return read_identity(PosixDirectory.read_only(cluster.directory / node.id)).formed
    except (DataError, OSError):
        return False


def _spawn(cluster: LocalCluster, node: LocalNode) -> subprocess.Popen[bytes]:
    address = url_address(node.url)
    command = [sys.executable, "-m", "raftkv", "serve", "--id", node.id]
    command += ["--data-dir", str(cluster.directory / node.id)]
    command += ["--url", node.url, "--listen", f"{address.host}:{address.port}", *_how_it_begins(cluster, node)]
    with cluster.log_path(node.id).open("ab") as log:
        # A session of its own: the terminal's Ctrl-C must not reach it beside our own, orderly stop.
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )


def _refuse_taken_ports(nodes: Sequence[LocalNode]) -> None:
    taken = [node for node in nodes if not _is_free(node.url)]
    if taken:
        ports = ", ".join(f"{url_address(node.url).port} (for {node.id})" for node in taken)
        raise CommandFailed(
            f"taken by another process: port {ports}. Stop that one (`ss -ltnp` names it), or start a cluster "
            f"elsewhere with --base-port {url_address(taken[-1].url).port + 100} and a --data-dir of its own."
        )


def _is_free(url: str) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(url_address(url))
        except OSError:
            return False
    return True


def wait_until_serving(cluster: LocalCluster, *, timeout_s: float = SERVING_TIMEOUT_S) -> list[NodeView]:
    """The nodes' views once all that run know one leader, and have caught up with it unless that takes long.

    A majority goes on without the others. Raises CommandFailed with the end of a node's log when it cannot, or when
    the time is over.
    """
    deadline, ready_by = time.monotonic() + timeout_s, 0.0
    while True:
        views = view_nodes(cluster.record.urls, timeout_s=1.0)
        leader = leader_among(views)
        leader_id = None if leader is None else leader.id
        running = [
            view
            for node, view in zip(cluster.record.nodes, views, strict=True)
            if node.is_alive and not view.was_removed
        ]
        if leader_id and all(view.follows(leader_id) for view in running):
            ready_by = ready_by or time.monotonic() + READY_TIMEOUT_S
            if all(_is_ready(view.url) for view in running) or time.monotonic() > ready_by:
                return views
        lost = loss(cluster)
        if lost and 2 * len(running) <= len(views):
            raise CommandFailed(lost)
        if lost and not leader_id:
            deadline = min(deadline, time.monotonic() + ELECTION_TIMEOUT_S)
        if time.monotonic() > deadline:
            if leader_id:
                return views
            first = cluster.log_path(cluster.record.nodes[0].id)
            raise CommandFailed(lost or f"no leader within {timeout_s:.0f} s. {log_tail(first)}")
        time.sleep(POLL_S)


def loss(cluster: LocalCluster) -> str:
    """What became of a node that does not run, with the end of its log; empty: all do."""
    for node in cluster.record.nodes:
        if not node.is_alive:
            return f"{node.id} {ending_of(cluster.exit_code(node.id))}. {log_tail(cluster.log_path(node.id))}"
    return ""


def _is_ready(url: str) -> bool:
    answer = ask_this_node(url, "/readyz", timeout_s=1.0)
    return answer is not None and answer.status == 200


def ending_of(code: int | None) -> str:
    """How a node ended, in words; None: it is not known."""
    if code is None:
        return "is not running any more"
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def log_tail(path: Path) -> str:
    """The end of a log, introduced; for messages."""
    try:
        lines = path.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
    except OSError as error:
        return f"Its log {path} cannot be read: {error.strerror}"
    return "\n  ".join([f"The end of {path}:", *(lines or ["(nothing)"])])


def stop(cluster: LocalCluster, *, grace_s: float = STOP_GRACE_S) -> list[tuple[LocalNode, Ending]]:
    """Every node stands still, and the record says so; how each of them came to it."""
    _catch_up(cluster)
    return _stop(cluster, cluster.record.nodes, grace_s)


def stop_children(cluster: LocalCluster) -> None:
    """Of a start that failed nothing is left running; nodes that ran before it go on."""
    _stop(cluster, [node for node in cluster.record.nodes if node.id in cluster.children], STOP_GRACE_S)


def _stop(cluster: LocalCluster, nodes: Sequence[LocalNode], grace_s: float) -> list[tuple[LocalNode, Ending]]:
    running = [node for node in nodes if node.is_alive]
    _signal(running, signal.SIGTERM)
    try:
        late = _wait_until_dead(running, grace_s)
    except KeyboardInterrupt:
        late = [node for node in running if node.is_alive]
    _signal(late, signal.SIGKILL)
    _wait_until_dead(late, grace_s)
    for child in cluster.children.values():
        child.poll()
    for node in nodes:
        _note_process(cluster, node.id, None)
    return [
        (node, Ending.KILLED if node in late else Ending.STOPPED if node in running else Ending.WAS_NOT_RUNNING)
        for node in nodes
    ]


def _catch_up(cluster: LocalCluster) -> None:
    """The record names the nodes too that another command has started anew since it was read."""
    try:
        there = read_record(cluster.directory)
    except CommandFailed:
        # What is known from before is stopped all the same.
        return
    found = {node.id: node for node in there.nodes} if there is not None else {}
    nodes = tuple(node if node.is_alive else found.get(node.id, node) for node in cluster.record.nodes)
    cluster.record = Record(nodes)


def _note_process(cluster: LocalCluster, id: str, process: Process | None) -> None:
    """The record says that this is the node's process."""
    nodes = tuple(replace(node, process=process) if node.id == id else node for node in cluster.record.nodes)
    cluster.record = Record(nodes)
    write_record(cluster.directory, cluster.record)


def _signal(nodes: Sequence[LocalNode], number: signal.Signals) -> None:
    for node in nodes:
        if node.process is not None and node.process.is_alive:
            try:
                os.kill(node.process.pid, number)
            except ProcessLookupError:
                continue


def _wait_until_dead(nodes: Sequence[LocalNode], timeout_s: float) -> list[LocalNode]:
    """Those that still run when the time is over."""
    deadline = time.monotonic() + timeout_s
    left = [node for node in nodes if node.is_alive]
    while left and time.monotonic() < deadline:
        time.sleep(POLL_S / 2)
        left = [node for node in left if node.is_alive]
    return left


def watch(cluster: LocalCluster, *, on_end: Callable[[LocalNode, int | None], None]) -> None:
    """Returns when no node runs any more; tells each end as it comes."""
    running = list(cluster.record.alive())
    while running:
        time.sleep(POLL_S)
        for node in [node for node in running if not node.is_alive]:
            running.remove(node)
            on_end(node, cluster.exit_code(node.id))
