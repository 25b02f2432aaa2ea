"""A state that is being replaced by a received snapshot gets no more entries, however loadings follow one another."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from raftkv.core.types import Index
from raftkv.sim.checks.invariants import Invariants
from raftkv.sim.checks.loading import Loading
from raftkv.sim.checks.violated import Violated
from raftkv.sim.runs.failed import RunFailed
from raftkv.sim.runs.whole import run

RIGHT = {
    "entries, and no loading": [(None, 3), (None, 8)],
    "a loading begins and ends": [(None, 3), (9, 3), (None, 9), (None, 12)],
    "it takes several turns": [(9, 3), (9, 3), (9, 3), (None, 9)],
    "entries that followed it in the turn in which it ended": [(9, 3), (None, 14)],
    "a newer one instead": [(9, 3), (20, 3), (None, 20)],
    "one ended and the next began between two turns": [(None, 3), (9, 3), (20, 9), (None, 20)],
    "the first of two ends while the second is due": [(9, 3), (20, 3), (20, 3)],
    "entries in the turn in which it begins": [(None, 3), (9, 5)],
}
WRONG = {
    "entries meanwhile": [(9, 3), (9, 5)],
    "entries up to what is still being loaded": [(9, 3), (9, 9)],
    "entries as the next begins": [(9, 3), (20, 5)],
    "entries after one ended and the next began": [(9, 3), (20, 11)],
    "it ended, and the state is older than what was loaded": [(9, 3), (None, 3)],
    "it ended with other entries than it stands for": [(9, 3), (None, 5)],
    "an older one instead": [(20, 3), (9, 3)],
    "entries up to it in the turn in which it begins": [(None, 3), (9, 9)],
    "entries beyond it in the turn in which it begins": [(None, 3), (9, 12)],
    "a state is to be replaced by an older one": [(None, 12), (9, 12)],
}


def watched(turns: list[tuple[int | None, int]]) -> None:
    watch = Loading()
    for loading, applied in turns:
        watch.stepped(loading=None if loading is None else Index(loading), applied=Index(applied))


@pytest.mark.parametrize("turns", RIGHT.values(), ids=RIGHT)
def test_what_may_happen(turns):
    watched(turns)


@pytest.mark.parametrize("turns", WRONG.values(), ids=WRONG)
def test_what_may_not(turns):
    *before, wrong = turns
    watched(before)
    with pytest.raises(Violated, match="a state that goes"):
        watched([*before, wrong])


def test_whole_runs_watch_each_life_of_each_node(monkeypatch):
    watches: set[Loading] = set()
    lives: list[object] = []
    started, stepped = Invariants.started, Loading.stepped

    def counting(self, node):
        lives.append(node)
        started(self, node)

    def noting(self, *, loading, applied):
        watches.add(self)
        stepped(self, loading=loading, applied=applied)

    monkeypatch.setattr(Invariants, "started", counting)
    monkeypatch.setattr(Loading, "stepped", noting)
    run(0)
    assert 3 <= len(watches) <= len(lives)


def test_what_a_watch_finds_ends_the_run(monkeypatch):
    def finding(self, *, loading, applied):
        if loading is not None:
            raise Violated("nothing is applied to a state that goes", "said by this test")

    monkeypatch.setattr(Loading, "stepped", finding)
    with pytest.raises(RunFailed, match="a state that goes"):
        _run_all(range(30))


def _run_all(seeds: Iterable[int]) -> None:
    for seed in seeds:
        run(seed)
