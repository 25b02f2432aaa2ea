"""Who takes part in a comparison, in which order, and what becomes of those who fail."""

from __future__ import annotations

import itertools
import signal
import time as real_time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.progress import Progress

from benchmarks import comparing
from benchmarks.comparing import Plan
from benchmarks.environment import Available
from benchmarks.figures import Run
from benchmarks.processes import Failed
from benchmarks.systems import base
from benchmarks.systems.base import System
from benchmarks.work import Work


class Fake(System):
    """A cluster of no processes."""

    generator = "nobody"

    def __init__(self, name: str, story: list[str], *, fails_at: str = "") -> None:
        self.name = self.title = name
        self._story, self._fails_at = story, fails_at
        self.rests = False
        self.cluster = SimpleNamespace(cpu_s=lambda: (0.0, 0.0, 0.0), send=self._hear)  # type: ignore[assignment]

    def _hear(self, number: signal.Signals) -> None:
        self.rests = {signal.SIGSTOP: True, signal.SIGCONT: False}[number]

    def _do(self, what: str) -> None:
        self._story.append(f"{self.name} {what}")
        if what == self._fails_at:
            raise Failed(f"{self.name} cannot {what}")

    def leader(self) -> int:
        return 0

    def start(self) -> None:
        self._do("start")

    def end(self) -> None:
        self._do("end")

    def fill(self, keys: int, value_bytes: int) -> None:
        self._do(f"fill {keys}")

    def run(self, work: Work) -> Run:
        self._do(f"{work.verb} {work.clients} {work.seed}")
        return Run(10, 1.0, {"50": 1.0, "99": 1.0})


class Clock:
    """Time passes when somebody sleeps, or looks who leads."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    time = SimpleNamespace(monotonic=found.monotonic, sleep=found.sleep, perf_counter=real_time.perf_counter)
    monkeypatch.setattr(base, "time", time)
    return found


PLAN = Plan(seconds=1, rounds=2, clients=(1,), keys=5, value_bytes=1, systems=())


def compared(tmp_path: Path, plan: Plan = PLAN, **fails_at: str) -> tuple[Any, list[str]]:
    story: list[str] = []
    available = Available(missing={"zookeeper": "not installed"})
    for name in ("etcd-3.5", "raftkv"):
        key = name.replace("-3.5", "")
        available.makes[name] = lambda _, name=name, key=key: Fake(name, story, fails_at=fails_at.get(key, ""))  # type: ignore[misc]
    return comparing.compare(plan, available, tmp_path, Progress(disable=True)), story


def test_systems_take_turns_and_all_are_ended(tmp_path: Path) -> None:
    result, story = compared(tmp_path)
    turns = [f"{name} {verb} 1 {seed}" for seed in (0, 1) for verb in ("put", "get") for name in ("etcd-3.5", "raftkv")]
    starts = ["etcd-3.5 start", "raftkv start", "etcd-3.5 fill 5", "raftkv fill 5"]
    assert story == [*starts, *turns, "etcd-3.5 end", "raftkv end"]
    assert {name: len(points["put", 1]) for name, points in result.measured["servers"].items()} == {
        "etcd-3.5": 2,
        "raftkv": 2,
    }


def test_while_one_is_measured_the_others_are_stopped_where_they_stand(tmp_path: Path) -> None:
    made: list[Fake] = []
    seen: list[dict[str, bool]] = []

    class Seen(Fake):
        def run(self, work: Work) -> Run:
            seen.append({fake.name: fake.rests for fake in made})
            return super().run(work)

    def make(name: str) -> System:
        made.append(Seen(name, []))
        return made[-1]

    available = Available()
    for name in ("etcd-3.5", "raftkv"):
        available.makes[name] = lambda _, name=name: make(name)  # type: ignore[misc]
    comparing.compare(replace(PLAN, rounds=1), available, tmp_path, Progress(disable=True))
    assert seen == 2 * [{"etcd-3.5": False, "raftkv": True}, {"etcd-3.5": True, "raftkv": False}]


class Elected(Fake):
    """Whoever leads, look by look."""

    def __init__(self, leaders: Iterable[int]) -> None:
        super().__init__("etcd-3.5", [])
        self._leaders = iter(leaders)

    def leader(self) -> int:
        return next(self._leaders)


def test_who_goes_on_is_measured_when_nobody_else_was_elected_for_a_while(clock: Clock) -> None:
    Elected([0, 0, 0, 2, 2, 1, *[1] * 40]).wake()
    elected_after_s = 5 * base.LOOK_EVERY_S
    assert elected_after_s + base.SETTLED_S <= clock.now_s < elected_after_s + base.SETTLED_S + 2 * base.LOOK_EVERY_S


def test_who_elects_somebody_else_again_and_again_is_not_measured() -> None:
    with pytest.raises(Failed, match="nobody led for"):
        Elected(itertools.islice(itertools.cycle([0, 1]), 10_000)).wake()


def test_what_is_not_installed_is_named(tmp_path: Path) -> None:
    assert compared(tmp_path)[0].left_out == {"zookeeper": "not installed"}


@pytest.mark.parametrize("moment", ["start", "fill 5", "get 1 0", "put 1 1"])
def test_a_peer_that_fails_is_named_and_left_out_and_the_rest_goes_on(tmp_path: Path, moment: str) -> None:
    result, story = compared(tmp_path, etcd=moment)
    assert f"etcd-3.5 cannot {moment}" in result.left_out["etcd-3.5"]
    assert list(result.measured["servers"]) == ["raftkv"]
    assert len(result.measured["servers"]["raftkv"]["get", 1]) == 2
    assert "etcd-3.5 end" in story
    assert story[-1] == "raftkv end"
    assert [row[2] for table in comparing.told(result) for row in table.rows] == ["raftkv"] * 4


@pytest.mark.parametrize("moment", ["start", "fill 5", "put 1 0"])
def test_when_ours_fails_there_is_no_comparison_and_all_are_ended(tmp_path: Path, moment: str) -> None:
    story: list[str] = []
    available = Available()
    available.makes["etcd-3.5"] = lambda _: Fake("etcd-3.5", story)
    available.makes["raftkv"] = lambda _: Fake("raftkv", story, fails_at=moment)
    with pytest.raises(Failed, match="raftkv cannot"):
        comparing.compare(PLAN, available, tmp_path, Progress(disable=True))
    assert sorted(story[-2:]) == ["etcd-3.5 end", "raftkv end"]


def test_only_the_systems_that_were_asked_for_are_started(tmp_path: Path) -> None:
    plan = Plan(seconds=1, rounds=1, clients=(1,), keys=5, value_bytes=1, systems=("raftkv",))
    result, story = compared(tmp_path, plan)
    assert not [line for line in story if line.startswith("etcd")]
    assert result.left_out == {}


def test_every_single_run_is_kept(tmp_path: Path) -> None:
    kept = comparing.kept(compared(tmp_path)[0])
    (put, get) = kept["measured"]["servers"]["raftkv"]
    assert (put["verb"], get["verb"], len(put["rounds"])) == ("put", "get", 2)
    assert put["rounds"][0]["per_second"] == 10.0
