"""Whole runs whose clients are the library that ships: its decisions, its bytes, the API, the replica, together.

What it tells its callers is held against the log: faults 46 to 51, 64, 69.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from raftkv.errors import Rejected
from raftkv.http.exchange import HttpAnswer
from raftkv.kv.commands import Put
from raftkv.sim.checks.invariants import Violated
from raftkv.sim.checks.words import Redirects, Sent
from raftkv.sim.clients.library import Task
from raftkv.sim.clients.workload import Workload, WorkloadPlan
from raftkv.sim.faults.drawing import draw_profile
from raftkv.sim.runs import whole
from raftkv.sim.runs.failed import RunFailed
from raftkv.sim.runs.whole import Run, finish
from tests.sim.planted_clients import PLANTED

ROOT = Path(__file__).parent.parent.parent
SEEDS = range(100, 118)
PLANTED_SEEDS = (0, 1, 3, 17, 61, *range(4, 17), *range(18, 90))
"""Those first that have found most."""
DRAWN = whole._draw_workload
SEEN_WHERE_SESSIONS_EXPIRE = {"what_was_in_doubt_is_sent_anew_when_the_session_is_over"}
"""While a write is in doubt, which few runs have."""

TELL_OUTCOMES = """
from tests.sim.test_library_clients import all_are_the_library
from raftkv.sim.runs import whole
whole._draw_workload = all_are_the_library
print([whole.run(seed) for seed in (102, 103)])
"""


def all_are_the_library(rng: Random) -> WorkloadPlan:
    plan = DRAWN(rng)
    return replace(plan, library_clients=plan.clients)


def sessions_expire(rng: Random) -> WorkloadPlan:
    return replace(all_are_the_library(rng), session_ttl_ms=1_000, answers_lost_per_mille=200)


@pytest.fixture
def library_only(monkeypatch):
    monkeypatch.setattr(whole, "_draw_workload", all_are_the_library)


@pytest.mark.usefixtures("library_only")
@pytest.mark.parametrize("first", SEEDS[::6])
def test_no_false_word_is_told_whatever_happens(first):
    told: Counter[str] = Counter()
    for seed in range(first, first + 6):
        made = Run(seed)
        finish(made)
        told.update(made.workload.tally)
    assert told["done"] > 200
    assert told["ConditionFailed"] > 10
    assert told["Unreachable"] + told["OutcomeUnknown"] > 1
    assert told["transferred"] + told["led already"] > 0


def test_runs_have_clients_of_one_kind_of_the_other_and_of_both():
    plans = [DRAWN(Random(seed)) for seed in range(30)]
    shares = {(plan.library_clients > 0, plan.library_clients < plan.clients) for plan in plans}
    assert shares == {(False, True), (True, True), (True, False)}


@pytest.mark.usefixtures("library_only")
def test_no_client_knows_nobody_but_nodes_that_never_join(monkeypatch):
    """Seed 236919311254950: where no members changed, one was told of a spare only, and found no leader."""
    monkeypatch.setattr(whole, "draw_profile", lambda rng: replace(draw_profile(rng), kinds=(), spares=2))
    for seed in range(4):
        made = Run(seed)
        assert made.cluster.plan.spares
        finish(made)


@pytest.mark.usefixtures("library_only")
def test_the_last_write_may_be_refused_once_for_want_of_space_that_there_was_when_its_session_was_asked_for():
    """Seed 96610616976464: the answer came late, when there was room again."""
    made = Run(7)
    assert isinstance(made.workload, Workload)
    client = made.workload._libraries[0]

    def is_refused() -> None:
        client._has_said_last = True
        sent = Sent(Put(b"k0", b"v"), 0)
        client._write_ended(Task(1, client.name, sent.request, 0, sent), sent, None, Rejected("", code="disk_full"))

    is_refused()
    assert not client._has_said_last, "it writes once more"
    with pytest.raises(Violated, match="find their leader again"):
        is_refused()


def test_a_run_with_both_proves_what_both_were_told(monkeypatch):
    monkeypatch.setattr(whole, "_draw_workload", lambda rng: replace(DRAWN(rng), clients=4, library_clients=2))
    made = Run(7)
    finish(made)
    assert isinstance(made.workload, Workload)
    assert {operation.client[0] for operation in made.workload.history} == {"c", "l"}


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
    assert "Outcome(seed=102" in told.pop()


@pytest.mark.usefixtures("library_only")
@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_bug_is_found(name, monkeypatch):
    PLANTED[name](monkeypatch)
    seeds = PLANTED_SEEDS
    if name in SEEN_WHERE_SESSIONS_EXPIRE:
        monkeypatch.setattr(whole, "_draw_workload", sessions_expire)
        seeds = (53, 56, *range(50), *range(57, 150))
    with pytest.raises(RunFailed) as failed:
        list(map(whole.run, seeds))
    assert isinstance(failed.value.__cause__, Violated)


# ------------------------------------------------------------------------------------------- redirects
# Honest nodes lead no client round in circles, so that no run shows what becomes of one who follows.


def redirect(to: str, term: int) -> HttpAnswer:
    told = {"leader": {"id": to, "url": f"http://{to}"}, "term": term}
    return HttpAnswer(307, {b"location": b"http://%b/x" % to.encode()}, json.dumps(told).encode())


def followed(*told: tuple[str, int]) -> None:
    redirects = Redirects()
    for now_us, (to, term) in enumerate(told):
        redirects.came(redirect(to, term), now_us, at="-", target=b"/x")
        redirects.sent(to, now_us)


def test_three_redirects_in_a_row_are_followed():
    followed(("b", 2), ("c", 2), ("a", 3))


def test_a_fourth_redirect_in_a_row_is_found():
    with pytest.raises(Violated, match="come to an end"):
        followed(("b", 2), ("c", 2), ("a", 3), ("b", 3))


def test_a_redirect_to_an_earlier_term_is_found():
    with pytest.raises(Violated, match="no earlier term"):
        followed(("b", 2), ("c", 1))


def test_a_redirect_to_oneself_is_found():
    with pytest.raises(Violated, match="to himself"):
        Redirects().came(redirect("b", 2), 1, at="b", target=b"/x")


def test_a_redirect_that_loses_its_query_is_found():
    with pytest.raises(Violated, match="keep their target"):
        Redirects().came(redirect("b", 2), 1, at="a", target=b"/x?limit=1")


def test_asking_anew_is_not_following():
    redirects = Redirects()
    for _ in range(10):
        redirects.came(redirect("b", 2), 1, at="a", target=b"/x")
        redirects.sent("b", 500)
