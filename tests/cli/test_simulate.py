"""``raftkv simulate``: stories that can be repeated byte for byte, campaigns that are gone on with, what is found."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from raftkv.cli import campaign
from raftkv.sim.runs.counted import Finding, Tally, counted
from raftkv.sim.runs.whole import Run, RunOptions
from tests.cli.terminals import on_a_terminal
from tests.sim.broken_machines import FOUND
from tests.sim.planted import PLANTED

ROOT = Path(__file__).resolve().parents[2]
MACHINES = "tests.sim.broken_machines"
OF_REAL_TIME = ("spent_s", "steps_per_second", "virtual_hours_per_minute")
PATIENCE_S = 50.0
MACHINES_SEEDS_MAX = 20


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "raftkv", "simulate", *words]


def environment(hash_seed: str = "random") -> dict[str, str]:
    return {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}


def figures(text: str) -> dict[str, Any]:
    """A campaign's summary, but for what depends on real time."""
    said: dict[str, Any] = json.loads(text)
    return {name: value for name, value in said.items() if name not in OF_REAL_TIME}


@cache
def busy_seed() -> str:
    """Of a run of three nodes to which things happen, whatever is drawn for which seed by now."""
    runs = (Run(seed) for seed in range(1000))
    return str(next(run.seed for run in runs if run.profile.voters == 3 and len(run.profile.kinds) > 2))


# --------------------------------------------------------------------------------------------- one run


def test_the_same_seed_is_the_same_story_whatever_the_hash_seed():
    told = [
        subprocess.run(
            command("--seed", busy_seed(), "--trace", "--steps", "2500"),
            env=environment(seed),
            capture_output=True,
            check=True,
            timeout=PATIENCE_S,
        ).stdout
        for seed in ("0", "4711")
    ]
    assert told[0] == told[1]
    assert b"AppendEntries" in told[0]


def test_a_story_tells_what_happens_and_how_it_ended(run):
    ended = run("simulate", "--seed", busy_seed())
    assert ended.code == 0
    lines = ended.text.splitlines()
    assert lines[0] == f"seed {busy_seed()}"
    assert any(re.fullmatch(r" +\d+\.\d{3} s  [abc] +leader in term \d+", line) for line in lines), ended.text
    assert any(re.fullmatch(r" +\d+\.\d{3} s  clients  .* done.*", line) for line in lines), ended.text
    assert any("nothing breaks any more" in line for line in lines)
    assert "nothing is wrong" in lines
    assert "steps a second" in ended.err
    assert "a second" not in ended.text
    assert max(map(len, lines)) < 250
    assert len(lines) < 250


def test_a_trace_has_every_message(run):
    story, trace = (
        run("simulate", "--seed", busy_seed(), "--steps", "1500"),
        run("simulate", "--seed", busy_seed(), "--steps", "1500", "--trace"),
    )
    assert len(trace.text.splitlines()) > 3 * len(story.text.splitlines())
    for told in (r"tells [abc]: PreVoteRequest\(term 1, ", r"hears [abc]: ", r"has stored term 1 and a vote for [abc]"):
        assert re.search(told, trace.text), told
    assert "every property held after each of 1,500 steps (it was cut off after 1,500)" in trace.text


def test_a_run_for_programs(run):
    words = ("--seed", busy_seed(), "--steps", "1200")
    said = json.loads(run("simulate", *words, "--output", "json").text)
    assert said["found"] is None
    assert said["steps"] > 1000
    assert json.loads(run("--output", "json", "simulate", *words).text) == said


def test_a_short_run_tells_its_choices(run):
    ended = run("simulate", "--short", "--seed", "5")
    assert ended.code == 0
    assert "campaign" in ended.text
    assert "nothing is wrong" in ended.text
    assert json.loads(run("simulate", "--short", "--seed", "5", "--output", "json").text)["turns"] > 5


USAGE = [
    ((), "say --seed 17 for one run"),
    (("--seed", "-1"), "--seed"),
    (("--seeds", "0"), "--seeds"),
    (("--minutes", "0"), "--minutes"),
    (("--seed", "1", "--seeds", "2"), "--seed is about one run"),
    (("--seed", "1", "--state", "x"), "--seed is about one run"),
    (("--seeds", "1", "--trace"), "say --seed too"),
    (("--seeds", "1", "--steps", "5"), "say --seed too"),
    (("--short", "--seed", "1", "--trace"), "a short run tells every step anyway"),
    (("--short", "--seed", "1", "--state-machine", f"{MACHINES}:Bag"), "leave out --short"),
    (("--seed", "1", "--state-machine", "Bag"), "module:Class"),
    (("--seed", "1", "--state-machine", "no.such.module:Bag"), "cannot be imported: ModuleNotFoundError"),
    (("--seed", "1", "--state-machine", f"{MACHINES}:Sack"), "there is no class Sack"),
    (("--seed", "1", "--state-machine", f"{MACHINES}:FOUND"), "there is no class FOUND"),
    (("--seed", "1", "--state-machine", "random:Random"), "lacks apply_batch(entries) -> answers; query(query)"),
    (
        ("--seed", "1", "--state-machine", "raftkv.kv.machine:KeyValueMachine"),
        "lacks random_command(rng) -> bytes; random",
    ),
    (("--seed", "1", "--state-machine", "fractions:Fraction.from_float"), "cannot be made without arguments"),
    (("--seeds", "1", "--state", "nowhere/campaign.json"), "there is no directory nowhere"),
]


@pytest.mark.parametrize(
    ("words", "told"), USAGE, ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_what_cannot_be_meant_is_refused_with_a_word_on_why(run, words, told):
    ended = run("simulate", *words)
    assert (ended.code, ended.text) == (2, "")
    assert told in ended.err


# ------------------------------------------------------------------------------------------- campaigns


def test_a_campaign_adds_up_its_runs_in_however_many_processes(run):
    one = run("simulate", "--seeds", "4", "--first-seed", "8", "--output", "json")
    assert one.code == 0
    assert figures(
        run("simulate", "--seeds", "4", "--first-seed", "8", "--jobs", "3", "--output", "json").text
    ) == figures(one.text)
    alone = Tally()
    for seed in range(8, 12):
        tally = counted(seed, RunOptions())
        assert isinstance(tally, Tally)
        alone.add(tally)
    said = figures(one.text)
    assert (said["runs"], said["steps"], said["operations"]) == (4, alone.steps, alone.operations)
    assert said["faults"] == dict(alone.faults)
    assert said["situations"].items() >= alone.situations.items()
    assert said["covered_runs"] == 1


def test_a_campaign_is_summed_up_for_people(run):
    ended = run("simulate", "--seeds", "4")
    assert ended.code == 0
    assert ended.text.startswith("4 whole runs (seeds 0 to 3): nothing is wrong\n")
    for part in (
        "virtual time",
        "every one of them checked",
        "answers to clients judged",
        "never  ",
        "rare situations",
    ):
        assert part in ended.text
    assert "virtual hours a minute" in ended.err


def test_short_runs_are_campaigned_too(run):
    ended = run("simulate", "--short", "--seeds", "120")
    assert (ended.code, ended.text.splitlines()[0]) == (0, "120 short runs (seeds 0 to 119): nothing is wrong")


def test_a_campaign_ends_when_its_time_is_over(run):
    ended = run("simulate", "--short", "--minutes", "0.02", "--output", "json")
    assert ended.code == 0
    assert json.loads(ended.text)["runs"] > 0


def test_a_bar_is_shown_on_a_terminal():
    shown = on_a_terminal(["simulate", "--short", "--seeds", "300"])
    assert " of 300 short runs" in shown
    assert "300 short runs (seeds 0 to 299): nothing is wrong" in shown


def test_a_killed_campaign_goes_on_where_it_was(run, tmp_path):
    state = tmp_path / "campaign.json"
    words = ["--short", "--first-seed", "40", "--state", str(state)]
    with subprocess.Popen(command("--seeds", "100000", *words), env=environment(), stdout=subprocess.PIPE) as killed:
        done = _seeds_kept(state, at_least=50)
        killed.kill()
    left = _kept(state)["next_seed"] - 40 + 20
    ended = run("simulate", "--seeds", str(left), *words, "--output", "json")
    assert ended.code == 0
    assert done >= 50
    assert figures(ended.text) == figures(run("simulate", "--seeds", str(left), *words[:3], "--output", "json").text)
    again = run("simulate", "--seeds", str(left), *words)
    assert f"{left} short runs" in again.text, "what is done is not done again"


def test_an_interrupted_campaign_sums_up_what_it_did(tmp_path):
    state = tmp_path / "campaign.json"
    words = command("--short", "--seeds", "100000", "--jobs", "2", "--state", str(state))
    ours = signal.signal(signal.SIGINT, signal.SIG_DFL)  # in the background of a script, it would be ignored
    with subprocess.Popen(words, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as going:
        signal.signal(signal.SIGINT, ours)
        _seeds_kept(state, at_least=1)
        going.send_signal(signal.SIGINT)
        told, errors = going.communicate(timeout=PATIENCE_S)
    assert going.returncode == 130
    assert b"interrupted: nothing is wrong" in told
    assert b"Traceback" not in errors
    assert _kept(state)["next_seed"] >= 1


def _kept(state: Path) -> dict[str, Any]:
    kept: dict[str, Any] = json.loads(state.read_text())
    return kept


def _seeds_kept(state: Path, *, at_least: int) -> int:
    """How many are, as soon as they are so many."""
    deadline_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline_s:
        done = int(_kept(state)["tally"]["runs"]) if state.exists() else 0
        if done >= at_least:
            return done
        time.sleep(0.05)
    raise AssertionError(f"{state} has no {at_least} runs after {PATIENCE_S} s")


def test_a_state_of_something_else_is_not_gone_on_with(run, tmp_path, monkeypatch):
    state = tmp_path / "campaign.json"
    words = ("simulate", "--short", "--seeds", "50", "--state", str(state))
    assert run(*words).code == 0
    for other in (("--first-seed", "7"), ("--state-machine", f"{MACHINES}:Bag")):
        ended = run(*[word for word in words if word != "--short" or "--first-seed" in other], *other)
        assert (ended.code, "is of another campaign" in ended.err) == (2, True), ended.err
    monkeypatch.setattr(campaign, "_code_hash", lambda wanted: "another")
    ended = run(*words)
    assert (ended.code, "(code differs)" in ended.err) == (2, True)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 2}', '{"format": 1, "of": {}, "tally": {}}', "\0"])
def test_a_state_that_is_none_is_refused_and_left_alone(run, tmp_path, text):
    state = tmp_path / "campaign.json"
    state.write_text(text)
    ended = run("simulate", "--seeds", "1", "--state", str(state))
    assert (ended.code, "is no campaign's state" in ended.err) == (2, True)
    assert state.read_text() == text


# ------------------------------------------------------------------------------------ what is found


def test_a_violation_is_told_with_its_story_and_with_what_repeats_it(run, monkeypatch):
    PLANTED["votes_for_anybody"](monkeypatch)
    seed = next(seed for seed in range(100) if isinstance(counted(seed, RunOptions()), Finding))
    ended = run("simulate", "--seed", str(seed))
    assert ended.code == 1
    assert f"seed {seed}: " in ended.text
    assert "does not hold" in ended.text
    repeated = ended.text.splitlines()[-1].split()
    assert repeated[:4] == ["raftkv", "simulate", "--seed", str(seed)]
    again = run(*repeated[1:])
    assert (again.code, again.text) == (1, ended.text)
    fewer = int(repeated[-1]) - 1
    assert run("simulate", "--seed", str(seed), "--steps", str(fewer)).code == 0


def test_a_violation_for_programs(run, monkeypatch):
    PLANTED["commits_without_a_majority"](monkeypatch)
    ended = run("simulate", "--seed", "0", "--output", "json")
    assert ended.code == 1
    found = json.loads(ended.text)["found"]
    assert found["command"] == f"raftkv simulate --seed 0 --steps {found['shortest_steps']}"
    assert found["property"] == "committed is durable on a majority"


def test_a_short_violation_is_told_with_its_choices(run, monkeypatch):
    PLANTED["commits_without_a_majority"](monkeypatch)
    ended = next(
        ended for ended in (run("simulate", "--short", "--seed", str(seed)) for seed in range(50)) if ended.code
    )
    assert ended.code == 1
    assert "does not hold" in ended.text
    assert ended.text.splitlines()[-1].strip().startswith("raftkv simulate --short --seed ")


def test_a_campaign_stops_at_the_first_that_fails(run, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    words = ("simulate", "--seeds", "50", "--jobs", "2", "--state-machine", f"{MACHINES}:BreaksItsOwnRule")
    ended = run(*words)
    assert ended.code == 1
    assert "the machine's own check does not hold\n  AssertionError: ten is too many" in ended.text
    assert "the last that happened:\n" in ended.text
    repeated = ended.text.splitlines()[-1].split()
    assert repeated[:3] == [repeated[0], "raftkv", "simulate"]
    assert repeated[0].startswith("PYTHONHASHSEED=")
    assert run(*repeated[2:]).code == 1
    found = json.loads(run(*words, "--output", "json").text)["found"]
    assert found["property"] == "the machine's own check"


# ------------------------------------------------------------------------------- machines of one's own


def test_a_sound_machine_is_sound(run):
    ended = run("simulate", "--seeds", "3", "--jobs", "2", "--state-machine", f"{MACHINES}:Bag")
    assert ended.code == 0, ended.text
    assert run("simulate", "--seed", "1", "--state-machine", f"{MACHINES}:Bag").code == 0


def test_the_example_is_sound(run, monkeypatch):
    monkeypatch.chdir(ROOT)
    ended = run("simulate", "--seed", "1", "--state-machine", "examples.tickets:Tickets")
    assert ended.code == 0, ended.text


@pytest.mark.parametrize("machine", FOUND, ids=lambda machine: machine.__name__)
def test_a_wrong_machine_is_found(run, machine):
    """By whichever seed comes first to what is wrong with it."""
    words = ("--state-machine", f"{MACHINES}:{machine.__name__}")
    tried = ((seed, run("simulate", "--seed", str(seed), *words)) for seed in range(MACHINES_SEEDS_MAX))
    seed, ended = next(((seed, ended) for seed, ended in tried if ended.code), (None, None))
    assert ended is not None, "no run has found anything"
    assert ended.code == 1
    assert f"seed {seed}: {FOUND[machine]} does not hold" in ended.text


def test_the_order_of_a_set_is_found_in_another_process(run, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    ended = run("simulate", "--seeds", "5", "--jobs", "2", "--state-machine", f"{MACHINES}:IteratesASet")
    assert ended.code == 1
    assert "the same in every process" in ended.text or "equal answers" in ended.text


def test_a_process_that_dies_over_a_seed_is_a_finding(run, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    ended = run("simulate", "--seeds", "5", "--state-machine", f"{MACHINES}:EndsItsProcess")
    assert ended.code == 1
    assert "a run comes to its end does not hold\n  its process ended with 7 on the way through seed 0" in ended.text


def test_a_run_that_does_not_end_is_a_finding(run, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(campaign, "UNENDING_S", 3.0)
    ended = run("simulate", "--seeds", "5", "--state-machine", f"{MACHINES}:NeverEnds")
    assert ended.code == 1
    assert "did not end within 3 s" in ended.text
