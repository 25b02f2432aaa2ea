"""``raftkv cluster`` with real nodes: up, use, down, up again, and what a user may do wrong in between."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live.ports import free_ports, is_free

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]

Command = Callable[..., subprocess.CompletedProcess[bytes]]


def environment() -> dict[str, str]:
    """This project's code, and no setting of whoever runs the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAFTKV_")}
    return kept | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}


@pytest.fixture
def base_port() -> int:
    """The first of five neighbouring ports."""
    return free_ports(5)[0]


@pytest.fixture
def raftkv(tmp_path: Path) -> Iterator[Command]:
    """Runs commands in a directory of their own; whatever they left running is stopped."""

    def run(*words: str) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "raftkv", *words]
        return subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, check=False)

    yield run
    if (tmp_path / "raftkv-data" / "cluster.json").exists():
        run("cluster", "down")


def piped(command: list[str], directory: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, cwd=directory, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def processes(directory: Path) -> list[int]:
    record = json.loads((directory / "raftkv-data" / "cluster.json").read_text())
    return [node["process"]["pid"] for node in record["nodes"] if node["process"] is not None]


def eventually(condition: Callable[[], Any], *, within_s: float = 30.0) -> Any:
    deadline = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < deadline, "did not become true in time"
        time.sleep(0.05)
    return found


def test_up_use_down_and_up_again(raftkv: Command, base_port: int, tmp_path: Path) -> None:
    up = raftkv("cluster", "up", "--detach", "--base-port", str(base_port))
    assert up.returncode == 0, up.stderr.decode()
    told = up.stdout.decode()
    for part in ("n1", "n2", "n3", "leader", f"http://127.0.0.1:{base_port}", "put greeting hello", "cluster down"):
        assert part in told

    assert raftkv("put", "greeting", "hello").stdout == b"created, revision 1\n"
    assert raftkv("get", "greeting").stdout == b"hello"
    assert raftkv("get", "absent").returncode == 1
    status = json.loads(raftkv("cluster", "status", "--output", "json").stdout)
    assert sorted(node["status"]["id"] for node in status["nodes"]) == ["n1", "n2", "n3"]

    again = raftkv("cluster", "up", "--detach")
    assert again.returncode == 0
    assert b"already running" in again.stderr

    down = raftkv("cluster", "down")
    assert down.stdout.decode().splitlines()[:3] == ["n1 stopped", "n2 stopped", "n3 stopped"]
    assert all(is_free(base_port + i) for i in range(3))
    assert raftkv("get", "greeting").returncode == 3

    other = raftkv("cluster", "up", "--detach", "--nodes", "5")
    assert other.returncode == 2
    assert raftkv("cluster", "up", "--detach").returncode == 0
    assert raftkv("get", "greeting").stdout == b"hello"


def test_up_starts_only_what_is_missing(raftkv: Command, base_port: int, tmp_path: Path) -> None:
    assert raftkv("cluster", "up", "--detach", "--base-port", str(base_port)).returncode == 0
    before = processes(tmp_path)
    os.kill(before[0], signal.SIGKILL)
    assert raftkv("put", "after", "the crash").returncode == 0
    assert raftkv("cluster", "up", "--detach").returncode == 0
    after = processes(tmp_path)
    assert after[0] != before[0]
    assert after[1:] == before[1:]


def test_a_node_that_cannot_start_keeps_no_majority_from_serving(
    raftkv: Command, base_port: int, tmp_path: Path
) -> None:
    assert raftkv("cluster", "up", "--detach", "--base-port", str(base_port)).returncode == 0
    assert raftkv("put", "k", "v").returncode == 0
    raftkv("cluster", "down")
    (segment,) = (tmp_path / "raftkv-data" / "n2").glob("log-*")
    with segment.open("r+b") as file:
        file.seek(1_100)
        file.write(b"damage")
    up = raftkv("cluster", "up", "--detach")
    assert up.returncode == 4
    assert "n2 ended with exit code 76." in up.stderr.decode()
    assert up.stdout.decode().startswith("2 of 3 nodes serve, n")
    assert " doctor` says what is wrong with the others." in up.stdout.decode()
    assert raftkv("get", "k").stdout == b"v"
    assert raftkv("put", "k", "w").returncode == 0


def test_five_nodes_in_the_foreground_until_interrupted(raftkv: Command, base_port: int, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "raftkv", "cluster", "up", "--nodes", "5", "--base-port", str(base_port)]
    up = piped(command, tmp_path)
    assert up.stdout is not None
    for line in up.stdout:
        if b"Ctrl-C stops all nodes" in line:
            break
    assert raftkv("put", "k", "v").returncode == 0
    up.send_signal(signal.SIGINT)
    told, _ = up.communicate(timeout=60)
    assert up.returncode == 0
    assert told.decode().splitlines() == [f"n{number} stopped" for number in range(1, 6)]
    assert all(is_free(base_port + i) for i in range(5))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_whatever_ends_the_foreground_command_stops_the_nodes(
    raftkv: Command, base_port: int, tmp_path: Path, number: signal.Signals
) -> None:
    command = [sys.executable, "-m", "raftkv", "cluster", "up", "--base-port", str(base_port)]
    ours = signal.signal(number, signal.SIG_DFL)  # under nohup, a child would inherit that it is ignored
    up = piped(command, tmp_path)
    signal.signal(number, ours)
    eventually(lambda: (tmp_path / "raftkv-data" / "n3.log").exists())
    up.send_signal(number)
    up.communicate(timeout=60)
    assert processes(tmp_path) == []
    assert all(is_free(base_port + i) for i in range(3))


def test_down_from_elsewhere_ends_the_foreground_command(raftkv: Command, base_port: int, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "raftkv", "cluster", "up", "--base-port", str(base_port)]
    up = piped(command, tmp_path)
    assert up.stdout is not None
    for line in up.stdout:
        if b"Ctrl-C stops all nodes" in line:
            break
    assert raftkv("cluster", "down").returncode == 0
    _, told = up.communicate(timeout=60)
    assert up.returncode == 0
    assert sorted(told.decode().split()) == ["n1", "n2", "n3", *["stopped"] * 3]


def test_a_foreground_command_that_nobody_reads_leaves_no_nodes(
    raftkv: Command, base_port: int, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "raftkv", "cluster", "up", "--base-port", str(base_port)]
    up = piped(command, tmp_path)
    assert up.stdout is not None
    up.stdout.close()
    up.wait(timeout=60)
    assert up.stderr is not None
    up.stderr.close()
    assert processes(tmp_path) == []
    assert all(is_free(base_port + i) for i in range(3))


def test_a_cluster_grows_and_stays_grown(raftkv: Command, base_port: int, tmp_path: Path) -> None:
    """``add`` grows it by one, ``up`` starts it as it is by then, also with a node whose data is gone."""
    assert raftkv("cluster", "up", "--detach", "--base-port", str(base_port)).returncode == 0
    assert raftkv("put", "a", "1").returncode == 0
    added = raftkv("cluster", "add")
    assert added.returncode == 0, added.stderr.decode()
    assert b"4 nodes serve" in added.stdout and len(processes(tmp_path)) == 4
    assert raftkv("cluster", "down").returncode == 0
    shutil.rmtree(tmp_path / "raftkv-data" / "n2")
    up = raftkv("cluster", "up", "--detach", "--nodes", "3")
    assert up.returncode == 2 and b"holds a cluster of 4 nodes" in up.stderr
    up = raftkv("cluster", "up", "--detach", "--timeout", "10")
    assert up.returncode == 0, up.stderr.decode()
    assert b"3 of 4 nodes serve" in up.stdout
    replaced = raftkv("member", "replace", "n2")
    assert replaced.returncode == 0, replaced.stderr.decode()
    listed = json.loads(raftkv("member", "list", "--output", "json").stdout)
    assert [voter["id"] for voter in listed["voters"]] == ["n1", "n2", "n3", "n4"]
    assert raftkv("get", "a").stdout.strip() == b"1"


def test_a_cluster_without_a_leader_does_not_grow(raftkv: Command, base_port: int, tmp_path: Path) -> None:
    assert raftkv("cluster", "up", "--detach", "--base-port", str(base_port)).returncode == 0
    for pid in processes(tmp_path)[:2]:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: b"no leader" in raftkv("cluster", "status").stdout)
    added = raftkv("cluster", "add")
    assert added.returncode == 3 and b"has no leader" in added.stderr
    assert len(json.loads((tmp_path / "raftkv-data" / "cluster.json").read_text())["nodes"]) == 3
