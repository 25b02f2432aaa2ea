"""Processes that are started, looked at through /proc, and ended by pid, always."""

from __future__ import annotations

import ctypes
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final, NamedTuple, TypeVar

import click

T = TypeVar("T")

ROOT: Final = Path(__file__).resolve().parent.parent
READY_TIMEOUT_S: Final = 45.0
END_TIMEOUT_S: Final = 10.0
PORTS: Final = range(20_000, 32_000)
"""Below what connections are given for their own end: a node that comes back finds its port free."""
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_PR_SET_PDEATHSIG: Final = 1


class Failed(click.ClickException):
    """The benchmark cannot go on; says why."""


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on now, all different."""
    found: list[int] = []
    for port in random.Random().sample(PORTS, len(PORTS)):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise Failed(f"no {count} free ports from {PORTS.start} to {PORTS.stop - 1}")


def environment(**more: str) -> dict[str, str]:
    """For a child: finds this checkout's modules; no proxy between nodes of one machine."""
    inherited = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    return {**inherited, "PYTHONPATH": str(ROOT), **more}


def _end_with_us() -> None:
    """In a child: killed when whoever started it is gone, however that went."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def start(command: Sequence[str], *, log: Path, pipes: bool = False, cwd: Path | None = None) -> subprocess.Popen[str]:
    """A child whose complaints go to ``log``; with ``pipes``, one that is spoken to in lines."""
    with log.open("ab") as file:
        channel = subprocess.PIPE if pipes else file
        return subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
            stdout=channel,
            stderr=file,
            text=True,
            cwd=cwd,
            env=environment(),
            preexec_fn=_end_with_us,
        )


def end(children: Sequence[subprocess.Popen[str]]) -> None:
    """All are gone afterwards: asked first, killed when they do not hear."""
    for child in children:
        if child.poll() is None:
            child.send_signal(signal.SIGCONT)
            child.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + END_TIMEOUT_S
    for child in children:
        try:
            child.wait(timeout=max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                pipe.close()


class Cluster:
    """The processes of one system, by number."""

    def __init__(self, name: str, commands: Sequence[Sequence[str]], directory: Path, *, pipes: bool = False) -> None:
        self.name, self.commands, self.directory, self._pipes = name, commands, directory, pipes
        directory.mkdir(parents=True, exist_ok=True)
        self._children: dict[int, subprocess.Popen[str]] = {}

    def __len__(self) -> int:
        return len(self.commands)

    @property
    def runs(self) -> bool:
        """Whether it was started and not ended since."""
        return bool(self._children)

    def start(self, *nodes: int) -> None:
        """These run; without numbers, all."""
        for node in nodes or range(len(self.commands)):
            log = self.directory / f"{node}.log"
            command = self.commands[node]
            self._children[node] = start(command, log=log, pipes=self._pipes, cwd=self.directory)

    def kill(self, node: int) -> None:
        """As if its plug were pulled: kill -9."""
        self._children[node].kill()
        self._children[node].wait()

    def send(self, number: signal.Signals, *nodes: int) -> None:
        """A signal to these; without numbers, to all."""
        for node in nodes or range(len(self.commands)):
            self._children[node].send_signal(number)

    def end(self) -> None:
        """None runs afterwards."""
        children, self._children = list(self._children.values()), {}
        end(children)

    def pid(self, node: int) -> int:
        """Of a node that was started."""
        return self._children[node].pid

    def pipes(self, node: int) -> tuple[IO[str], IO[str]]:
        """What a node that is spoken to in lines hears and says."""
        hears, says = self._children[node].stdin, self._children[node].stdout
        assert hears is not None
        assert says is not None
        return hears, says

    def check(self, *, within_s: float = 0.0) -> None:
        """Raises Failed, with the last lines of its log, if a node has ended by itself."""
        deadline = time.monotonic() + within_s
        while all(child.poll() is None for child in self._children.values()) and time.monotonic() < deadline:
            time.sleep(0.02)
        for node, child in self._children.items():
            if child.poll() is not None:
                said = (self.directory / f"{node}.log").read_text(errors="replace").splitlines()[-8:]
                raise Failed(f"{self.name}: node {node + 1} ended ({child.returncode}):\n" + "\n".join(said))

    def cpu_s(self) -> tuple[float, ...]:
        """What each node has worked so far."""
        return tuple(cpu_s_of(self.pid(node)) for node in range(len(self.commands)))

    def rss_mib(self) -> tuple[float, ...]:
        """What each node holds in memory now."""
        return tuple(rss_mib_of(self.pid(node)) for node in range(len(self.commands)))


def cpu_s_of(pid: int) -> float:
    """User and system time of a process, all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def rss_mib_of(pid: int) -> float:
    """Resident memory."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise Failed(f"process {pid} has no memory: it has ended")


def machine_cpu_s() -> float:
    """What all programs of this machine together have worked."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    user, nice, system, _, _, hard, soft = fields[:7]
    return (user + nice + system + hard + soft) / _TICKS_PER_S


class Printed(NamedTuple):
    """What a generator said, and what it worked."""

    text: str
    cpu_s: float


def run(command: Sequence[str], *, timeout_s: float) -> Printed:
    """A child's whole life; raises Failed where it fails or takes too long."""
    child = subprocess.Popen(
        list(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        preexec_fn=_end_with_us,
    )
    before = os.times()
    try:
        out, err = child.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise Failed(f"{Path(command[0]).name} had not ended after {timeout_s:.0f} s") from None
    finally:
        if child.poll() is None:
            child.kill()
            child.communicate()
    after = os.times()
    if child.returncode != 0:
        raise Failed(f"{' '.join(command[:4])} … ended with {child.returncode}:\n{(err or out).strip()[-2000:]}")
    cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
    return Printed(out, cpu_s)


def wait_for(what: str, look: Callable[[], T | None], *, timeout_s: float = READY_TIMEOUT_S) -> T:
    """The first thing that is found; raises Failed, naming ``what``, when there is none in time."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = look()
        if found is not None:
            return found
        if time.monotonic() > deadline:
            raise Failed(f"{what}: not within {timeout_s:.0f} s")
        time.sleep(0.05)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end the benchmark as Ctrl-C does: all that was started is ended first."""

    def stop(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def shortened(values: Mapping[str, object]) -> list[str]:
    """Options of a child's command line."""
    return [word for name, value in values.items() for word in (f"--{name.replace('_', '-')}", str(value))]
