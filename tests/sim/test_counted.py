"""Runs that are added up, and failing ones that are cut to their shortest."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import pytest

from raftkv.sim.checks.oracle import Oracle, _State
from raftkv.sim.runs.counted import Finding, Tally, counted, counted_short, shortest, story_end
from raftkv.sim.runs.whole import RunOptions, run
from tests.sim.broken_machines import BreaksItsOwnRule
from tests.sim.test_keys_in_runs import PLANTED as OF_KEYS

BREAKS = RunOptions(machine=BreaksItsOwnRule)


def found(seed: int, options: RunOptions) -> Finding:
    ended = counted(seed, options)
    assert isinstance(ended, Finding)
    return ended


def silent(self: Oracle, index: int, command: object, answer: object) -> None:
    """The oracle follows the log, and objects to nothing."""
    self._specification.write(command)  # type: ignore[arg-type]
    self._changed_at.append(index)
    self._states.append(_State(self._specification.records, self._specification.revision))


def test_tallies_add_up_and_survive_a_file():
    one = Tally(runs=1, steps=5, faults=Counter(pause=2), traces={1: 7})
    one.add(Tally(runs=2, steps=3, faults=Counter(pause=1, heal=1), traces={2: 8}))
    assert (one.runs, one.steps, one.faults, one.traces) == (3, 8, Counter(pause=3, heal=1), {1: 7, 2: 8})
    kept = Tally.from_json(json.loads(json.dumps(one.as_json())))
    assert kept == replace(one, traces={})
    for wrong in ({}, {**one.as_json(), "runs": None}, {**one.as_json(), "more": 1}):
        with pytest.raises((TypeError, ValueError)):
            Tally.from_json(wrong)


def test_a_run_that_is_counted_is_the_run():
    tally, outcome = counted(8, RunOptions()), run(8)
    assert isinstance(tally, Tally)
    assert (tally.steps, tally.virtual_us, tally.operations) == (outcome.steps, outcome.virtual_us, outcome.operations)
    assert tally.traces == {8: outcome.trace}
    assert sum(tally.faults.values()) == outcome.faults
    short = counted_short(8)
    assert isinstance(short, Tally)
    assert (short.runs, short.steps > 0) == (1, True)


def test_a_failure_at_a_step_is_cut_there():
    failed = found(0, BREAKS)
    cuts: list[int] = []
    assert shortest(failed, BREAKS, tried=cuts.append) == failed.steps
    assert cuts == [failed.steps, failed.steps - 1]


def test_a_failure_that_is_judged_at_the_end_is_cut_where_it_begins(monkeypatch):
    """Only what clients were told is judged: the cut is where the first wrong answer was heard."""
    monkeypatch.setattr(Oracle, "_specified", silent)
    for silenced in ("table_is", "read_answered"):
        monkeypatch.setattr(Oracle, silenced, lambda *_, **__: None)
    OF_KEYS["a_page_is_kept_for_the_next_who_asks"](monkeypatch)
    failed = next(ended for ended in (counted(seed, RunOptions()) for seed in range(20)) if isinstance(ended, Finding))
    assert failed.property == "linearizability"
    steps = shortest(failed, RunOptions())
    assert 0 < steps < failed.steps
    assert found(failed.seed, RunOptions(steps_max=steps)).property == "linearizability"
    assert isinstance(counted(failed.seed, RunOptions(steps_max=steps - 1)), Tally)


def test_a_failure_that_no_cut_shows_takes_the_whole_run():
    assert shortest(Finding(3, "another property", "", 700), RunOptions()) == 700


def test_the_end_of_a_story_is_what_came_last():
    failed = found(0, BREAKS)
    lines = story_end(failed, BREAKS, lines_max=3)
    assert len(lines) == 3
    assert lines == story_end(failed, BREAKS, lines_max=100)[-3:]


def test_a_cut_run_is_the_beginning_of_the_whole_one():
    whole, cut = run(3), run(3, RunOptions(steps_max=700))
    assert (cut.steps, cut.trace) == (700, run(3, RunOptions(steps_max=700)).trace)
    assert run(3, RunOptions(steps_max=whole.steps)) == whole
    assert cut.virtual_us < whole.virtual_us
