"""What is measured of one cluster after the other: each is ended, also when looking at it fails."""

from __future__ import annotations

import itertools
import signal
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.progress import Progress

from benchmarks import clusters, failover, floor
from benchmarks.environment import Available
from benchmarks.processes import Failed, ended_by_signals
from benchmarks.systems.base import NotAccepted
from tests.benchmarks.test_comparing import Fake


def available(story: list[str], **fails_at: str) -> Available:
    found = Available()
    for name in ("raftkv", "zookeeper"):
        found.makes[name] = lambda _, name=name: Fake(name, story, fails_at=fails_at.get(name, ""))  # type: ignore[misc]
    return found


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "SETTLE_S", 0)
    monkeypatch.setattr(failover, "QUIET_S", 0)


def test_a_cluster_that_fails_while_it_is_looked_at_is_ended_before_anybody_hears(tmp_path: Path) -> None:
    story: list[str] = []
    with pytest.raises(Failed) as failed:
        clusters.memory(["zookeeper"], available(story, zookeeper="fill 5"), tmp_path, [5], Progress(disable=True))
    assert (story, str(failed.value)) == (
        ["zookeeper start", "zookeeper fill 5", "zookeeper end"],
        "zookeeper cannot fill 5",
    )


def test_who_still_works_off_what_was_filled_is_waited_for_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "RESTED_S", 0.001)
    system, looks = Fake("raftkv", []), itertools.count()
    busy = itertools.accumulate([0.0, 5.0, 5.0, 5.0, 0.0, 0.0])
    system.cluster = SimpleNamespace(cpu_s=lambda: (next(busy), next(looks) * 0.0))  # type: ignore[assignment]
    clusters.rested(system)
    assert next(looks) == 6
    forever = itertools.count()
    system.cluster = SimpleNamespace(cpu_s=lambda: (float(next(forever)),))  # type: ignore[assignment]
    clusters.rested(system)
    assert next(forever) == 2 * clusters.RESTED_LOOKS_MAX


def test_what_filling_began_is_over_before_many_keys_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    story: list[str] = []
    monkeypatch.setattr(floor, "sync_us", lambda *_, **__: 100.0)
    monkeypatch.setattr(floor, "passed_on", lambda *_: ([100.0], 640.0))
    monkeypatch.setattr(clusters, "rested", lambda system: story.append(f"{system.name} rested"))
    clusters.sizes(["raftkv"], available(story), tmp_path, [5], 1, Progress(disable=True))
    many = story[story.index("raftkv fill 5") :]
    assert many == ["raftkv fill 5", "raftkv rested", "raftkv put 64 5", "raftkv get 64 5", "raftkv end"]


def test_one_is_ended_before_the_next_is_started_and_what_does_not_start_is_a_note(tmp_path: Path) -> None:
    story: list[str] = []
    machine = available(story, zookeeper="start")
    names = ["raftkv", "zookeeper", "etcd-3.5"]
    table, figures = clusters.idle(names, machine, tmp_path, 0, Progress(disable=True))
    assert story == ["raftkv start", "raftkv end", "zookeeper start", "zookeeper end"]
    assert [row[0] for row in table.rows] == list(figures["idle"]) == ["raftkv"]
    assert table.notes[0] == "left out: zookeeper: zookeeper cannot start"


def test_nobody_waits_for_the_failover_of_what_takes_no_single_writes(tmp_path: Path) -> None:
    story: list[str] = []
    with pytest.raises(Failed, match="takes no single writes"):
        failover.measured(["raftkv"], available(story), tmp_path, 1, Progress(disable=True))
    assert story == ["raftkv start", "raftkv end"]


def test_who_is_stopped_while_nobody_can_write_leaves_nobody_asking(tmp_path: Path) -> None:
    class Leaderless(Fake):
        dead = told = over = False

        def write(self, node: int, timeout_s: float) -> None:
            if self.over or not self.dead:
                return
            with once:
                if not self.told:
                    signal.pthread_kill(stopped, signal.SIGTERM)
                self.told = True
            raise NotAccepted("nobody leads")

        def kill(self, node: int) -> None:
            self.dead = True

    stopped, once = threading.get_ident(), threading.Lock()
    system = Leaderless("raftkv", [])
    system.cluster = SimpleNamespace(kill=system.kill, start=lambda _: None)  # type: ignore[assignment]
    before = set(threading.enumerate())
    try:
        with ended_by_signals(), pytest.raises(SystemExit):
            failover.gap_s(system, "kill -9")
        assert set(threading.enumerate()) == before
    finally:
        system.over = True
