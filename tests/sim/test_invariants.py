"""A checker that never fails proves nothing: every planted bug is found within a bounded number of seeds."""

from __future__ import annotations

import pytest

from raftkv.sim.runs.failed import RunFailed
from raftkv.sim.runs.short import ShortRun
from raftkv.sim.runs.whole import run
from tests.sim.planted import PLANTED

SHORT_RUNS_MAX = 800
LONG_RUNS_MAX = 30
BY_LONG_RUNS = {
    "counts_its_own_vote_at_once",
    "sends_from_beyond_what_matches",
    "stands_in_its_present_term_again",
}
"""What shows soonest in a whole run."""


def found_by(one, seeds):
    for seed in seeds:
        try:
            one(seed)
        except RunFailed as failure:
            return failure
    return None


@pytest.mark.parametrize("name", sorted(PLANTED.keys() - BY_LONG_RUNS))
def test_short_runs_find(name, monkeypatch):
    PLANTED[name](monkeypatch)
    failures = filter(None, (ShortRun(seed).failure() for seed in range(SHORT_RUNS_MAX)))
    assert isinstance(next(failures, None), AssertionError)


@pytest.mark.parametrize("name", sorted(BY_LONG_RUNS))
def test_whole_runs_find(name, monkeypatch):
    PLANTED[name](monkeypatch)
    failure = found_by(run, range(LONG_RUNS_MAX))
    assert failure is not None
    assert isinstance(failure.cause, AssertionError), failure
