"""completion: real shells complete commands, options and choices with the script that is printed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SHELLS = ("bash", "zsh", "fish")
BASH = """
source "$1"
COMP_WORDS=("${@:2}")
COMP_CWORD=$(($# - 2))
compopt() { COMPREPLY=("<$2>"); }
_raftkv_completion raftkv
printf '%s\\n' "${COMPREPLY[@]}"
"""
ZSH = """
compdef() { :; }
_describe() { shift 2; for each in "${(@P)1}"; do print -r -- "${each%%:*}"; done; }
_path_files() { print -r -- "<files>"; }
compadd() { while [[ $1 != -a ]]; do shift; done; print -rl -- "${(@P)2}"; }
source "$1"
words=("${@:2}")
CURRENT=$(($# - 1))
_raftkv_completion
"""
WORDS = [
    # what was typed, what must be offered, what must not
    (["raftkv", "pu"], {"put"}, {"get"}),
    (["raftkv", ""], {"put", "get", "list", "txn", "status", "cluster", "completion"}, set()),
    (["raftkv", "cluster", ""], {"up", "down", "status"}, {"put"}),
    (["raftkv", "--output", "json", "le"], {"leader"}, {"list"}),
    (["raftkv", "leader", "tr"], {"transfer"}, set()),
    (["raftkv", "put", "k", "v", "--if-"], {"--if-absent", "--if-revision"}, {"--endpoints"}),
    (["raftkv", "serve", "--heart"], {"--heartbeat-ms"}, set()),
    (["raftkv", "get", "k", "--output", ""], {"table", "json"}, set()),
    (["raftkv", "list", "--consistency", "li"], {"linearizable"}, {"stale"}),
    (["raftkv", "cluster", "up", "--nodes", ""], {"3", "5"}, {"4"}),
    (["raftkv", "completion", ""], set(SHELLS), set()),
    (["raftkv", "re"], {"restore", "recover"}, {"backup"}),
    (["raftkv", "recover", "--f"], {"--force-new-cluster"}, {"--force"}),
    (["raftkv", "get", ""], set(), {"put"}),
]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A PATH whose ``raftkv`` is this one, and a place where no cluster can be asked."""
    directory = tmp_path / "bin"
    directory.mkdir()
    raftkv = directory / "raftkv"
    raftkv.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m raftkv "$@"\n')
    raftkv.chmod(0o755)
    kept = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
    path = f"{directory}:{os.environ['PATH']}"
    return kept | {"PATH": path, "HOME": str(tmp_path), "RAFTKV_ENDPOINTS": "http://192.0.2.1:1", "LC_ALL": "C.UTF-8"}


@pytest.fixture
def script(run, tmp_path: Path):
    def write(shell: str) -> Path:
        ended = run("completion", shell)
        assert (ended.code, ended.err) == (0, "")
        path = tmp_path / f"completion.{shell}"
        path.write_bytes(ended.out)
        return path

    return write


def shell_or_skip(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def offered(command: list[str], environment: dict[str, str]) -> set[str]:
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=30)
    assert ended.stderr == ""
    return set(ended.stdout.split("\n")) - {""}


@pytest.mark.parametrize(
    ("typed", "wanted", "unwanted"), WORDS, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
class TestRealShells:
    def test_bash(self, script, environment, typed, wanted, unwanted):
        found = offered([shell_or_skip("bash"), "--norc", "-c", BASH, "bash", str(script("bash")), *typed], environment)
        assert wanted <= found
        assert not unwanted & found

    def test_zsh(self, script, environment, typed, wanted, unwanted):
        found = offered([shell_or_skip("zsh"), "-f", "-c", ZSH, "zsh", str(script("zsh")), *typed], environment)
        assert wanted <= found
        assert not unwanted & found

    def test_fish(self, script, environment, typed, wanted, unwanted):
        line = " ".join(typed)
        asked = f"source {script('fish')}; complete --do-complete '{line}'"
        found = {
            each.split("\t")[0] for each in offered([shell_or_skip("fish"), "--no-config", "-c", asked], environment)
        }
        assert wanted <= found
        assert not unwanted & found


def test_files_are_completed_where_a_file_is_wanted(script, environment):
    words = ["raftkv", "txn", "sw"]
    assert offered(["bash", "--norc", "-c", BASH, "bash", str(script("bash")), *words], environment) == {"<default>"}


def test_the_script_of_bash_is_sound_as_shell(script):
    assert subprocess.run(["bash", "-n", str(script("bash"))], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("shell", SHELLS)
def test_every_script_calls_this_program_by_its_name(script, shell):
    text = script(shell).read_text()
    assert f"_RAFTKV_COMPLETE={shell}_complete" in text
    assert "raftkv" in text
