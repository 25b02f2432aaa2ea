"""``raftkv simulate --exhaustive``: how far it came, what it found, how it is stopped."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys

import pytest

from raftkv.cli import exploring
from raftkv.sim.runs.starts import STARTS
from tests.cli.terminals import on_a_terminal
from tests.cli.test_simulate import PATIENCE_S, command, environment
from tests.sim.planted import PLANTED

pytestmark = pytest.mark.usefixtures("interpreted")


def test_everything_up_to_a_depth_is_seen(run):
    ended = run("simulate", "--exhaustive", "5")
    assert ended.code == 0
    assert "from empty: Three nodes have started" in ended.text
    assert re.search(r"depth 5: [\d,]+ different states, [\d,]+ times one that was known", ended.text)
    assert ended.text.splitlines()[-1] == "nothing is wrong"
    assert [line.split(":")[1] for line in ended.err.splitlines()[:5]] == [
        f" depth {depth}, {states} states" for depth, states in _growing(ended.err)
    ]
    assert "a second" in ended.err


def _growing(err: str) -> list[tuple[str, str]]:
    told = re.findall(r"depth (\d+), ([\d,]+) states", err)
    counts = [int(states.replace(",", "")) for _, states in told]
    assert counts == sorted(set(counts))
    assert [depth for depth, _ in told] == ["1", "2", "3", "4", "5"]
    return told


def test_from_every_starting_point_for_programs(run):
    said = json.loads(run("simulate", "--exhaustive", "1", "--start", "all", "--output", "json").text)
    assert [one["start"] for one in said["explored"]] == list(STARTS)
    assert all((one["ended_by"], one["found"]) == ("depth", None) for one in said["explored"])
    assert (said["found"], said["interrupted"]) == (False, False)


def test_from_two_starting_points_each_once(run):
    words = ("--start", "led", "--start", "figure-8", "--start", "led")
    ended = run("simulate", "--exhaustive", "2", *words)
    assert re.findall(r"^from (\S+):", ended.text, re.MULTILINE) == ["led", "figure-8"]


def test_it_goes_no_further_than_so_many_states_or_minutes(run):
    few = run("simulate", "--exhaustive", "9", "--start", "led", "--states", "300")
    assert (few.code, "stopped at so many states" in few.text) == (0, True)
    soon = run("simulate", "--exhaustive", "9", "--start", "led", "--minutes", "0.001")
    assert (soon.code, "stopped: the time is over" in soon.text) == (0, True)


def test_what_is_found_is_told_with_its_choices_and_with_what_repeats_it(run, monkeypatch):
    PLANTED["votes_twice"](monkeypatch)
    words = ("simulate", "--exhaustive", "6", "--start", "won", "--start", "rivals", "--start", "empty")
    ended = run(*words)
    assert ended.code == 1
    assert "does not hold" in ended.text
    assert re.search(r"after (\d+) choices", ended.text)
    assert "from empty" not in ended.text, "what is found ends it"
    repeated = ended.text.splitlines()[-1].split()
    assert repeated[:3] == ["raftkv", "simulate", "--exhaustive"]
    again = run(*repeated[1:])
    assert again.code == 1
    assert again.text.splitlines()[-1] == ended.text.splitlines()[-1]
    found = json.loads(run(*words, "--output", "json").text)["explored"][-1]["found"]
    assert len(found["choices"]) >= 1
    assert found["command"] == " ".join(repeated)


def test_an_interrupted_one_says_how_far_it_came():
    ours = signal.signal(signal.SIGINT, signal.SIG_DFL)  # in the background of a script, it would be ignored
    words = command("--exhaustive", "30", "--start", "led", "--states", "100000000")
    with subprocess.Popen(words, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as going:
        signal.signal(signal.SIGINT, ours)
        assert going.stderr is not None
        assert b"depth 1" in going.stderr.readline()
        going.send_signal(signal.SIGINT)
        told, errors = going.communicate(timeout=PATIENCE_S)
    assert going.returncode == 130
    assert b"interrupted" in told
    assert b"nothing is wrong" not in told
    assert b"Traceback" not in errors


def test_a_terminal_sees_how_deep_it_is():
    shown = on_a_terminal(["simulate", "--exhaustive", "30", "--start", "led", "--minutes", "0.04"])
    assert re.search(r"from led: depth \d+, [\d,]+ states; one deeper", shown)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--exhaustive", "0"), "--exhaustive"),
        (("--exhaustive", "3", "--start", "nowhere"), "'nowhere' is not one of 'empty'"),
        (("--exhaustive", "3", "--short"), "nothing is drawn"),
        (("--exhaustive", "3", "--seed", "1"), "nothing is drawn"),
        (("--exhaustive", "3", "--jobs", "2"), "nothing is drawn"),
        (("--start", "led"), "say --exhaustive DEPTH too"),
        (("--states", "5", "--seed", "1"), "say --exhaustive DEPTH too"),
    ],
)
def test_what_cannot_be_meant_is_refused(run, words, told):
    ended = run("simulate", *words)
    assert (ended.code, ended.text) == (2, "")
    assert told in ended.err


def test_the_names_to_start_from_are_completed(monkeypatch):
    words = "raftkv simulate --exhaustive 5 --start f"
    for name, value in (("_RAFTKV_COMPLETE", "bash_complete"), ("COMP_WORDS", words), ("COMP_CWORD", "5")):
        monkeypatch.setenv(name, value)
    ended = subprocess.run([sys.executable, "-m", "raftkv"], capture_output=True, check=False, timeout=PATIENCE_S)
    assert re.findall(rb"figure-\d", ended.stdout) == [b"figure-7", b"figure-8"], ended


def test_every_way_to_end_has_words():
    for ended_by in ("depth", "nothing is left", "states", "told to stop", "interrupted"):
        assert exploring._OUTCOMES[ended_by]
