"""The command line of scripts/bench, where it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from benchmarks import environment
from benchmarks.__main__ import bench
from benchmarks.environment import Available
from benchmarks.systems.base import System


def never(_: Path) -> System:
    raise AssertionError("nothing may be started")


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Available(makes={"raftkv": never}, missing={"zookeeper": "not installed; apt-get install -y zookeeper"})
    monkeypatch.setattr(environment, "look", lambda: machine)


def run(*words: str) -> Result:
    return CliRunner().invoke(bench, words, catch_exceptions=False)


@pytest.mark.parametrize("command", [[], ["failover"], ["idle"], ["memory"], ["sizes"], ["steady"]], ids=str)
def test_a_system_that_there_is_none_of_is_refused_with_those_there_are(command: list[str]) -> None:
    ended = run(*command, "--systems", "raftkv,consul")
    assert ended.exit_code == 2
    assert "no system is called consul; there are raftkv, zookeeper" in ended.output


def test_a_system_that_was_asked_for_and_is_not_here_says_how_it_comes_here() -> None:
    ended = run("--systems", "zookeeper")
    assert ended.exit_code == 1
    assert "zookeeper: not installed; apt-get install -y zookeeper" in ended.output


@pytest.mark.parametrize(
    "given", [["--systems", "raftkv"], ["--seconds", "5"], ["--value-bytes", "9"], ["--short"]], ids=str
)
def test_what_a_command_would_not_hear_is_refused(given: list[str]) -> None:
    ended = run(*given, "failover")
    assert ended.exit_code == 2
    assert f"{given[0]} does nothing before failover" in ended.output


@pytest.mark.parametrize("clients", ["", "0", "1,,2", "many", "-3"])
def test_clients_are_numbers(clients: str) -> None:
    assert run("--clients", clients).exit_code == 2


@pytest.mark.parametrize("command", ["floor", "failover", "idle", "memory", "sizes", "steady"])
def test_every_command_has_its_help(command: str) -> None:
    assert run(command, "--help").exit_code == 0
