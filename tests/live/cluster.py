"""A cluster of real ``raftkv serve`` processes, and everything that may happen to a process.

Told: how many, where, and what to do to whom. Tells: what each process ended with, and what it wrote. Only
processes that were started here are ever signalled, by the handle that started them, and leaving the
``with`` block ends them all, paused ones too.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from weakref import WeakSet

from tests.live.faults_file import Faults, is_heeded
from tests.live.ports import HOST as HOST
from tests.live.ports import free_ports as free_ports
from tests.live.wire import Address, Connections, Trouble

CHECKOUT: Final = Path(__file__).resolve().parent.parent.parent
SERVING_WITHIN_S: Final = 20.0
STOPPING_WITHIN_S: Final = 15.0
STATUS_TIMEOUT_S: Final = 0.5
_LOUD: Final = re.compile(r" (ERROR|CRITICAL) |^Traceback ")
_BECAME_LEADER: Final = "event=became_leader"

CLUSTERS: Final[WeakSet[LiveCluster]] = WeakSet()
"""All that somebody still knows, for whoever wants to look when a test has failed."""

Status = Mapping[str, Any]
T = TypeVar("T")


@dataclass(slots=True)
class Ending:
    """How a process came to its end."""

    node: str
    exit_code: int
    by_itself: bool
    """Nobody here had asked for it."""

    def __str__(self) -> str:
        return f"{self.node} ended with exit code {self.exit_code}" + (" by itself" if self.by_itself else "")


@dataclass(slots=True)
class LiveNode:
    """One node's process, and what stays when it is gone: its directory, its port, its log."""

    id: str
    port: int
    directory: Path
    log: Path
    command: list[str]
    package_root: Path
    control: Path | None = None
    """What is broken about it, for a node that can be broken (``faulty_node``)."""
    process: subprocess.Popen[bytes] | None = None
    is_paused: bool = False
    was_asked_to_end: bool = False
    endings: list[Ending] = field(default_factory=list)

    @property
    def url(self) -> str:
        """What others reach it by."""
        return f"http://{HOST}:{self.port}"

    @property
    def address(self) -> Address:
        """What clients connect to."""
        return Address(HOST, self.port)

    @property
    def is_running(self) -> bool:
        """It has a process, paused or not. One that ended is noted here."""
        if self.process is None:
            return False
        exit_code = self.process.poll()
        if exit_code is None:
            return True
        self.endings.append(Ending(self.id, exit_code, by_itself=not self.was_asked_to_end))
        self.process, self.is_paused = None, False
        return False

    @property
    def is_up(self) -> bool:
        """It runs and is not paused."""
        return self.is_running and not self.is_paused

    def start(self) -> None:
        """A process runs it, with the same command line as ever."""
        assert not self.is_running, f"{self.id} runs already"
        self.was_asked_to_end = False
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAFTKV_")}
        environment["PYTHONPATH"] = str(self.package_root)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.log.parent,
                env=environment,
                start_new_session=True,
            )

    def kill(self) -> None:
        """As kill -9: no last word, no sync. Nothing of it runs any more."""
        self._end(signal.SIGKILL)
        if self.process is not None:
            self.process.wait()
        assert not self.is_running

    def pause(self) -> None:
        """The process stands still; its sockets stay open, and the kernel goes on accepting for it."""
        self._signal(signal.SIGSTOP)
        self.is_paused = True

    def resume(self) -> None:
        """It goes on, as if nothing had happened."""
        self._signal(signal.SIGCONT)
        self.is_paused = False

    def ask_to_stop(self) -> None:
        """As SIGTERM: it hands over, answers, syncs, ends."""
        self._end(signal.SIGTERM)

    async def ended(self) -> int:
        """The exit code, once it has stopped."""
        await until(lambda: not self.is_running, within_s=STOPPING_WITHIN_S, what=f"{self.id} to stop")
        return self.endings[-1].exit_code

    def breaks(self, **faults: Any) -> None:
        """From now on these are its faults, as ``faults_file`` names them, and no others."""
        assert self.control is not None, f"{self.id} is a node that cannot be broken"
        Faults(**faults).write(self.control)
        deadline = time.monotonic() + STOPPING_WITHIN_S
        while self.is_up and not is_heeded(self.control):
            assert time.monotonic() < deadline, f"{self.id} does not heed what is broken about it"
            time.sleep(0.005)

    def empty(self) -> None:
        """Its disk is lost."""
        assert not self.is_running
        shutil.rmtree(self.directory)

    def log_text(self) -> str:
        """All that it ever wrote."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def loud_lines(self) -> list[str]:
        """What it said that no healthy node says."""
        return [f"{self.id}: {line}" for line in self.log_text().splitlines() if _LOUD.search(line)]

    def _end(self, number: signal.Signals) -> None:
        self.was_asked_to_end = self.was_asked_to_end or self.is_running
        self._signal(number)

    def _signal(self, number: signal.Signals) -> None:
        if self.is_running and self.process is not None:
            self.process.send_signal(number)


class LiveCluster:
    """Some nodes, formed into one cluster by ``start`` and ``until_serving``."""

    def __init__(
        self,
        directory: Path,
        *,
        nodes_count: int,
        package_root: Path | None = None,
        breakable: bool = False,
        options: Sequence[str] = (),
    ) -> None:
        """``package_root``: where the raftkv to run lies; None: this checkout's own.

        ``breakable``: the nodes' disks, links, clocks and event loops can be broken. ``options``: more flags of theirs.
        """
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self._breakable, self._options = breakable, tuple(options)
        self.package_root = package_root or CHECKOUT
        self.made: list[LiveNode] = []
        """Also those that are no nodes of this cluster's any more, or never were."""
        CLUSTERS.add(self)
        ports = free_ports(nodes_count)
        urls = {f"n{place}": f"http://{HOST}:{port}" for place, port in enumerate(ports, 1)}
        self.nodes = {id: self.make_node(id, port, directory / id, urls) for port, id in zip(ports, urls, strict=True)}
        self.connections = Connections()
        self.odd_answers: list[str] = []
        """To questions for a node's status: every node answers those, unless it is stopping."""

    def make_node(self, id: str, port: int, directory: Path, members: Mapping[str, str]) -> LiveNode:
        """A node that nothing runs yet; not yet one of this cluster's."""
        listed = ",".join(f"{member}={url}" for member, url in members.items())
        control = directory.with_suffix(".faults") if self._breakable else None
        program = ["raftkv"] if control is None else ["tests.live.faulty_node", str(control)]
        command = [sys.executable, "-m", *program, "serve", "--id", id, "--data-dir", str(directory)]
        command += ["--url", f"http://{HOST}:{port}", "--initial-cluster", listed, *self._options]
        log = directory.with_suffix(".log")
        node = LiveNode(id, port, directory, log, command, self.package_root, control)
        self.made.append(node)
        return node

    def make_joining(self, id: str, port: int, directory: Path | None = None) -> LiveNode:
        """A node that nothing runs yet, which will ask these nodes to let it in; one of this cluster's from now on."""
        asked = ",".join(node.url for node in self.nodes.values() if node.id != id)
        node = self.make_node(id, port, directory or self.directory / id, {})
        node.command[node.command.index("--initial-cluster") : node.command.index("--initial-cluster") + 2] = [
            *("--join", asked),
        ]
        self.nodes[id] = node
        return node

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill_all()
        for node in self.made:
            node.kill()

    def start(self) -> None:
        """Every node that does not run is started."""
        for node in self.nodes.values():
            if not node.is_running:
                node.start()

    def resume_all(self) -> None:
        """Nobody is paused."""
        for node in self.nodes.values():
            if node.is_paused:
                node.resume()

    def kill_all(self) -> None:
        """All at once, as when the power fails. Signalled first, then waited for."""
        running = [node for node in self.nodes.values() if node.is_running]
        for node in running:
            node._end(signal.SIGKILL)
        for node in running:
            node.kill()

    def cut(self, *ways: tuple[LiveNode, LiveNode]) -> None:
        """Of each pair the first cannot reach the second any more; every other link is whole."""
        lost: dict[str, list[str]] = {node.id: [] for node in self.nodes.values()}
        for of, to in ways:
            lost[of.id].append(f"{HOST}:{to.port}")
        for node in self.nodes.values():
            node.breaks(cut=tuple(lost[node.id]))

    def mend(self) -> None:
        """Nothing is broken, nobody paused, and every node runs."""
        for node in self.nodes.values():
            node.breaks()
        self.resume_all()
        self.start()

    def up(self) -> list[LiveNode]:
        """Nodes that run and are not paused."""
        return [node for node in self.nodes.values() if node.is_up]

    def endings(self) -> list[Ending]:
        """Of all processes so far."""
        for node in self.nodes.values():
            assert node.is_running in (True, False), "looked at, so that an ending is noted"
        return [ending for node in self.nodes.values() for ending in node.endings]

    def elections_count(self) -> int:
        """How often a node came to lead, by the nodes' own logs."""
        return sum(node.log_text().count(_BECAME_LEADER) for node in self.nodes.values())

    # -------------------------------------------------------------------------------- what nodes say

    async def status(self, node: LiveNode) -> Status | None:
        """What the node says of itself; None: it does not answer."""
        try:
            answer = await self.connections.exchange(
                node.address, "GET", "/v1/status", timeout_s=STATUS_TIMEOUT_S, kept=False
            )
        except Trouble:
            return None
        if b'"shutting_down"' in answer.body:
            return None
        if answer.status != 200:
            self.odd_answers.append(f"{node.id} answered a question for its status {answer.status}: {answer.body!r}")
            return None
        found: Status = json.loads(answer.body)
        return found

    async def statuses(self, nodes: Iterable[LiveNode] | None = None) -> dict[str, Status]:
        """Of those that answer, by id."""
        asked = list(self.up() if nodes is None else nodes)
        told = await asyncio.gather(*(self.status(node) for node in asked))
        return {node.id: status for node, status in zip(asked, told, strict=True) if status is not None}

    async def told(self, node: LiveNode) -> Status:
        """What the node says of itself, once it answers."""

        async def look() -> Status | None:
            return await self.status(node)

        return await eventually(look, within_s=SERVING_WITHIN_S, what=f"{node.id} to tell of itself")

    async def all_told(self) -> dict[str, Status]:
        """What all nodes say of themselves, by id, once each answers."""
        return {id: await self.told(node) for id, node in self.nodes.items()}

    async def leader(self) -> LiveNode | None:
        """Who leads now in the highest term, by its own word; None: nobody that answers."""
        leaders = [status for status in (await self.statuses()).values() if status["role"] == "leader"]
        return self.nodes[max(leaders, key=lambda status: int(status["term"]))["id"]] if leaders else None

    async def until_leader(self, *, other_than: LiveNode | None = None) -> LiveNode:
        """A leader, once there is one."""

        async def found() -> LiveNode | None:
            leader = await self.leader()
            return leader if leader is not None and leader is not other_than else None

        return await eventually(found, within_s=SERVING_WITHIN_S, what="a leader")

    async def until_serving(self) -> LiveNode:
        """The leader, once all running nodes follow it."""

        async def agreed() -> LiveNode | None:
            nodes = [node for node in self.nodes.values() if node.is_running]
            statuses = await self.statuses(nodes)
            leaders = {status["leader_id"] for status in statuses.values()}
            terms = {status["term"] for status in statuses.values()}
            if len(statuses) < len(nodes) or len(leaders) != 1 or len(terms) != 1 or None in leaders:
                return None
            return self.nodes[leaders.pop()]

        return await eventually(agreed, within_s=SERVING_WITHIN_S, what="all nodes to follow one leader")

    async def until_equal(self) -> dict[str, Status]:
        """The statuses of all nodes, once they have applied the same entries. Equal state is not waited for."""

        async def equal() -> dict[str, Status] | None:
            statuses = await self.statuses(self.nodes.values())
            indexes = {status["applied_index"] for status in statuses.values()}
            return statuses if len(statuses) == len(self.nodes) and len(indexes) == 1 else None

        return await eventually(equal, within_s=SERVING_WITHIN_S, what="all nodes to apply the same entries")


class Late(AssertionError):
    """What was waited for did not come in time."""


async def eventually(look: Callable[[], Awaitable[T | None]], *, within_s: float, what: str) -> T:
    """What ``look`` finds as soon as it finds something; raises Late."""
    deadline = time.monotonic() + within_s
    while True:
        found = await look()
        if found is not None:
            return found
        if time.monotonic() > deadline:
            raise Late(f"waited {within_s:.0f} s in vain for {what}")
        await asyncio.sleep(0.02)


async def until(condition: Callable[[], bool], *, within_s: float, what: str) -> None:
    """The condition holds; raises Late."""

    async def look() -> bool | None:
        return condition() or None

    await eventually(look, within_s=within_s, what=what)
