"""Processes on this machine: known again for certain, stopped in order, never mistaken.

The "nodes" here are sleeping processes of these tests; the real ones are in tests/live.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from raftkv.cli import local_cluster
from raftkv.cli.exchange import Answer
from raftkv.cli.failures import CommandFailed
from raftkv.cli.local_cluster import Ending, LocalCluster
from raftkv.cli.overview import NodeView
from raftkv.cli.record import LocalNode, Process, Record, read_record, started, write_record

OBEDIENT = "import signal; print('ready', flush=True); signal.pause()"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + OBEDIENT.removeprefix("import signal; ")


@pytest.fixture
def spawn():
    """Starts a Python that runs a line of code, once it has said that it is ready."""
    children = []

    def start(code: str) -> subprocess.Popen[bytes]:
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        children.append(child)
        assert child.stdout is not None
        child.stdout.readline()
        return child

    yield start
    for child in children:
        child.kill()
        child.communicate()


def local(directory: Path, **processes: Process | None) -> LocalCluster:
    nodes = tuple(
        LocalNode(id, f"http://127.0.0.1:{i}", process) for i, (id, process) in enumerate(processes.items(), 1)
    )
    write_record(directory, Record(nodes))
    return LocalCluster(directory, Record(nodes))


def identity(child: subprocess.Popen[bytes]) -> Process:
    moment = started(child.pid)
    assert moment is not None
    return Process(child.pid, moment)


def test_a_process_is_known_by_number_and_start(spawn):
    child = spawn(OBEDIENT)
    assert identity(child).is_alive
    assert not Process(child.pid, "another moment").is_alive


def test_a_dead_process_that_nobody_collected_is_not_alive(spawn):
    child = spawn(OBEDIENT)
    process = identity(child)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not process.is_alive


def test_down_stops_what_runs_and_tells_each_ending(spawn, tmp_path):
    cluster = local(tmp_path, n1=identity(spawn(OBEDIENT)), n2=identity(spawn(STUBBORN)), n3=None)
    endings = {node.id: ending for node, ending in local_cluster.stop(cluster, grace_s=0.3)}
    assert endings == {"n1": Ending.STOPPED, "n2": Ending.KILLED, "n3": Ending.WAS_NOT_RUNNING}
    record = read_record(tmp_path)
    assert record is not None
    assert record.alive() == ()
    assert all(node.process is None for node in record.nodes)


def test_a_node_that_another_command_has_started_anew_meanwhile_is_stopped_too(spawn, tmp_path):
    gone, anew = spawn(OBEDIENT), spawn(OBEDIENT)
    cluster = local(tmp_path, n1=identity(gone))
    gone.kill()
    gone.wait()
    write_record(tmp_path, Record((LocalNode("n1", "http://127.0.0.1:1", identity(anew)),)))
    assert [ending for _, ending in local_cluster.stop(cluster)] == [Ending.STOPPED]
    assert started(anew.pid) is None
    record = read_record(tmp_path)
    assert record is not None and not any(node.process for node in record.nodes)


def test_a_record_that_cannot_be_read_keeps_nobody_from_being_stopped(spawn, tmp_path):
    child = spawn(OBEDIENT)
    cluster = local(tmp_path, n1=identity(child))
    (tmp_path / "cluster.json").write_text("{")
    assert [ending for _, ending in local_cluster.stop(cluster)] == [Ending.STOPPED]


def test_a_number_that_was_given_to_somebody_else_is_never_signalled(spawn, tmp_path):
    bystander = spawn(OBEDIENT)
    cluster = local(tmp_path, n1=Process(bystander.pid, "long ago"))
    ((_, ending),) = local_cluster.stop(cluster, grace_s=0.1)
    assert ending is Ending.WAS_NOT_RUNNING
    assert bystander.poll() is None


def test_down_from_the_command_line(run, spawn, tmp_path):
    local(tmp_path, n1=identity(spawn(OBEDIENT)), n2=None)
    ended = run("cluster", "down", "--data-dir", str(tmp_path))
    assert ended.code == 0
    assert ended.text.startswith("n1 stopped\nn2 was not running\n")
    again = run("cluster", "down", "--data-dir", str(tmp_path), "--output", "json")
    assert again.code == 0
    assert '"was_not_running"' in again.text


def test_up_over_a_running_cluster_says_so(run, spawn, tmp_path):
    local(tmp_path, n1=identity(spawn(OBEDIENT)))
    ended = run("cluster", "up", "--data-dir", str(tmp_path))
    assert ended.code == 0
    assert "already running" in ended.err
    assert "cluster down" in ended.err
    *lines, hint, _ = ended.text.splitlines()
    assert lines == [
        "0 of 1 nodes serve, no leader yet",
        "",
        "node  role       url                 log",
        f"n1    no answer  http://127.0.0.1:1  {tmp_path / 'n1.log'}",
        "",
    ]
    assert hint.endswith("raftkv doctor --endpoints http://127.0.0.1:1` says what is wrong with the others.")


def test_up_over_a_running_cluster_gives_programs_the_cluster_and_no_more(run, spawn, tmp_path):
    local(tmp_path, n1=identity(spawn(OBEDIENT)))
    ended = run("cluster", "up", "--data-dir", str(tmp_path), "--output", "json")
    assert (ended.code, ended.err) == (0, "")
    assert [node["id"] for node in json.loads(ended.text)["nodes"]] == ["n1"]


def test_a_command_that_is_told_can_be_pasted_whatever_the_directory_s_name(run, tmp_path):
    directory = tmp_path / "two words; and more"
    ended = run("cluster", "down", "--data-dir", str(directory))
    assert f"cluster up --data-dir '{directory}'`" in ended.err


def test_a_taken_port_is_named_and_nothing_is_started(run, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = run("cluster", "up", "--data-dir", str(tmp_path), "--base-port", str(port), "--detach")
    assert ended.code == 4
    assert str(port) in ended.err
    assert "--base-port" in ended.err
    assert read_record(tmp_path) is None


def test_two_commands_at_once_do_not_meddle(tmp_path):
    with (
        local_cluster.exclusively(tmp_path),
        pytest.raises(CommandFailed, match="Wait until it is done"),
        local_cluster.exclusively(tmp_path),
    ):
        pass


def test_an_impossible_directory_is_told(run, tmp_path):
    (tmp_path / "file").write_text("")
    ended = run("cluster", "up", "--data-dir", str(tmp_path / "file" / "below"))
    assert ended.code == 4
    assert "--data-dir" in ended.err


def fake_serve(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Nodes are this line of Python instead of raftkv."""
    real = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda command, **rest: real([sys.executable, "-c", code], **rest))


def test_a_node_that_dies_at_its_start_is_told_with_the_end_of_its_log(run, tmp_path, monkeypatch, free_ports):
    fake_serve(monkeypatch, "print('line of the log'); raise SystemExit(76)")
    ended = run("cluster", "up", "--data-dir", str(tmp_path), "--base-port", str(free_ports), "--detach")
    assert ended.code == 4
    assert "exit code 76" in ended.err
    assert "line of the log" in ended.err
    record = read_record(tmp_path)
    assert record is not None
    assert record.alive() == ()


def test_an_interrupted_start_leaves_nobody_running(run, tmp_path, monkeypatch, free_ports):
    fake_serve(monkeypatch, "import signal; signal.pause()")
    seen: list[Record] = []

    def interrupt(cluster, **_):
        seen.append(cluster.record)
        os.kill(os.getpid(), signal.SIGTERM)
        signal.sigtimedwait([], 5)

    monkeypatch.setattr(local_cluster, "wait_until_serving", interrupt)
    ended = run("cluster", "up", "--data-dir", str(tmp_path), "--base-port", str(free_ports))
    assert ended.code == 130
    assert len(seen[0].alive()) == 0
    assert all(node.process is not None for node in seen[0].nodes)


def test_a_node_that_starts_as_the_interrupt_comes_is_stopped_too(run, tmp_path, monkeypatch, free_ports):
    real, spawned = subprocess.Popen, []

    def spawn_and_interrupt(_, **rest):
        spawned.append(real([sys.executable, "-c", "import signal; signal.pause()"], **rest))
        os.kill(os.getpid(), signal.SIGTERM)
        return spawned[-1]

    monkeypatch.setattr(subprocess, "Popen", spawn_and_interrupt)
    assert run("cluster", "up", "--data-dir", str(tmp_path), "--base-port", str(free_ports)).code == 130
    (only,) = spawned
    assert only.poll() == -signal.SIGTERM


def test_without_a_leader_in_time_the_log_is_shown(tmp_path, spawn):
    cluster = local(tmp_path, n1=identity(spawn(OBEDIENT)))
    cluster.log_path("n1").write_text("\n".join(f"line {number}" for number in range(100)))
    with pytest.raises(CommandFailed, match="no leader within 0 s") as caught:
        local_cluster.wait_until_serving(cluster, timeout_s=0)
    assert "line 99" in caught.value.message
    assert "line 50" not in caught.value.message


def test_a_majority_that_never_formed_a_cluster_is_not_waited_for_long(tmp_path, spawn, monkeypatch):
    ended = spawn(OBEDIENT)
    cluster = local(tmp_path, n1=identity(ended), n2=identity(spawn(OBEDIENT)), n3=identity(spawn(OBEDIENT)))
    ended.kill()
    ended.wait()
    cluster.log_path("n1").write_text("its last words")
    monkeypatch.setattr(local_cluster, "ELECTION_TIMEOUT_S", 0.2)
    with pytest.raises(CommandFailed, match=r"n1 is not running any more(.|\n)*its last words"):
        local_cluster.wait_until_serving(cluster, timeout_s=60)


@pytest.mark.parametrize(("ready_after", "asked"), [(0, 1), (3, 4)])
def test_a_start_is_over_when_all_nodes_are_ready(tmp_path, spawn, monkeypatch, ready_after, asked):
    cluster = local(tmp_path, n1=identity(spawn(OBEDIENT)))
    leads = NodeView("http://127.0.0.1:1", {"id": "n1", "role": "leader", "leader_id": "n1", "term": 1})
    answers = iter([503] * ready_after + [200])
    heard = []

    def ask(url, target, *, timeout_s):
        heard.append((url, target))
        return Answer(url, next(answers), {}, b"")

    monkeypatch.setattr(local_cluster, "view_nodes", lambda urls, timeout_s: [leads])
    monkeypatch.setattr(local_cluster, "ask_this_node", ask)
    assert local_cluster.wait_until_serving(cluster) == [leads]
    assert heard == [("http://127.0.0.1:1", "/readyz")] * asked


def test_a_node_that_is_long_not_ready_holds_nobody_up(tmp_path, spawn, monkeypatch):
    cluster = local(tmp_path, n1=identity(spawn(OBEDIENT)))
    leads = NodeView("http://127.0.0.1:1", {"id": "n1", "role": "leader", "leader_id": "n1", "term": 1})
    monkeypatch.setattr(local_cluster, "READY_TIMEOUT_S", 0.2)
    monkeypatch.setattr(local_cluster, "view_nodes", lambda urls, timeout_s: [leads])
    assert local_cluster.wait_until_serving(cluster) == [leads]


@pytest.fixture
def free_ports() -> int:
    """The first of three ports that are free now."""
    for base in range(20_000, 60_000, 7):
        if all(local_cluster._is_free(f"http://127.0.0.1:{base + i}") for i in range(3)):
            return base
    raise AssertionError("no free ports")
