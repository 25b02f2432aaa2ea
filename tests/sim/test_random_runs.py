"""Whole clusters under random faults, from fixed seeds. A soak with fresh seeds is ``python -m raftkv.sim.runs``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from raftkv.sim.checks.invariants import Violated
from raftkv.sim.runs import __main__ as runs
from raftkv.sim.runs.failed import RunFailed
from raftkv.sim.runs.short import ShortRun, short_run
from raftkv.sim.runs.whole import Run, run

LONG_SEEDS = range(60)
SHORT_SEEDS = range(900)
ROOT = Path(__file__).parent.parent.parent

TELL_OUTCOMES = """
from raftkv.sim.runs.short import short_run
from raftkv.sim.runs.whole import run
print([run(seed) for seed in (1, 2)], [short_run(seed) for seed in range(20)])
"""


@pytest.mark.parametrize("first", LONG_SEEDS[::10])
def test_every_property_holds_in_whole_runs(first):
    """faults 2, 3, 10, 14, 15, 17, 18, 20, 35, 46 to 50: found nowhere, and afterwards the cluster works."""
    outcomes = [run(seed) for seed in range(first, first + 10)]
    assert sum(outcome.answers for outcome in outcomes) > 500
    assert sum(outcome.faults for outcome in outcomes) > 20
    assert max(outcome.terms for outcome in outcomes) > 3


@pytest.mark.parametrize("first", SHORT_SEEDS[::300])
def test_every_property_holds_in_very_many_short_runs(first):
    assert sum(short_run(seed) for seed in range(first, first + 300)) > 12_000


def test_the_same_seed_tells_the_same_story_whatever_the_hash_seed():
    told = {
        subprocess.run(
            [sys.executable, "-c", TELL_OUTCOMES],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for hash_seed in ("0", "1", "4711")
    }
    assert len(told) == 1
    assert "Outcome(seed=1" in told.pop()


def test_another_seed_tells_another_story():
    assert run(1).trace != run(2).trace


def test_a_failure_says_how_to_run_it_again(monkeypatch):
    def fails(self):
        raise Violated("a property", "did not hold")

    monkeypatch.setattr(Run, "whole", fails)
    with pytest.raises(RunFailed, match=r"seed 7: Violated: a property.*\n.*raftkv simulate --seed 7"):
        run(7)


@pytest.mark.parametrize("arguments", [[], ["--help"], ["--short", "--help"]])
def test_the_command_tells_how_it_is_used(arguments, capsys):
    assert runs.main(arguments) == 0
    assert "python -m raftkv.sim.runs --short 0 5000" in capsys.readouterr().out


def test_the_command_counts_what_failed(monkeypatch, capsys):
    assert runs.main(["3"]) == 0
    assert "Outcome(seed=3" in capsys.readouterr().out

    def fails(self):
        raise Violated("a property", "did not hold")

    monkeypatch.setattr(ShortRun, "run", fails)
    assert runs.main(["--short", "5", "8"]) == 3
    assert "raftkv simulate --short --seed 6" in capsys.readouterr().out
