"""What is started is ended, whatever it does; what it costs is read from the system."""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path

import pytest

from benchmarks import processes
from benchmarks.processes import Cluster, Failed

STUBBORN = "import signal, sys, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
BUSY = "import sys; sys.stderr.write('no room'); sys.exit(3)"


def python(text: str) -> list[str]:
    return [sys.executable, "-c", text]


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def test_free_ports_are_different_and_below_those_that_the_system_gives_away() -> None:
    ports = processes.free_ports(9)
    assert len(set(ports)) == 9
    for port in ports:
        assert port in processes.PORTS
        with socket.socket() as free:
            free.bind(("127.0.0.1", port))


def test_what_this_process_costs_can_be_read() -> None:
    before = processes.cpu_s_of(os.getpid())
    until = time.process_time() + 0.05
    while time.process_time() < until:
        sum(range(1000))
    assert processes.cpu_s_of(os.getpid()) - before == pytest.approx(0.05, abs=0.03)
    assert 5 < processes.rss_mib_of(os.getpid()) < 2000
    assert processes.machine_cpu_s() > before


@pytest.mark.live
def test_one_that_does_not_hear_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "END_TIMEOUT_S", 0.3)
    cluster = Cluster("stubborn", [python(STUBBORN)] * 2, tmp_path, pipes=True)
    cluster.start()
    pids = [cluster.pid(node) for node in range(2)]
    assert [cluster.pipes(node)[1].readline() for node in range(2)] == ["up\n"] * 2
    cluster.end()
    assert all(gone(pid) for pid in pids)


@pytest.mark.live
def test_a_node_that_ends_by_itself_is_named_with_its_last_words(tmp_path: Path) -> None:
    cluster = Cluster("etcd-9", [python("input()"), python(BUSY)], tmp_path, pipes=True)
    cluster.start()
    try:
        with pytest.raises(Failed, match=r"(?s)etcd-9: node 2 ended \(3\).*no room"):
            cluster.check(within_s=20)
    finally:
        cluster.end()


@pytest.mark.live
def test_a_generator_that_fails_says_why() -> None:
    with pytest.raises(Failed, match="no room"):
        processes.run(python(BUSY), timeout_s=20)


@pytest.mark.live
def test_a_generator_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    text = f"import os, time; open({str(pid_file)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    with pytest.raises(Failed, match="had not ended after"):
        processes.run(python(text), timeout_s=1.5)
    assert gone(int(pid_file.read_text()))


@pytest.mark.live
def test_what_a_generator_worked_is_told() -> None:
    printed = processes.run(python("sum(range(10**7)); print('done')"), timeout_s=30)
    assert printed.text == "done\n"
    assert printed.cpu_s > 0.05


def test_waiting_in_vain_says_for_what() -> None:
    with pytest.raises(Failed, match=r"a leader: not within 0 s"):
        processes.wait_for("a leader", lambda: None, timeout_s=0)
    assert processes.wait_for("a leader", lambda: 0) == 0
