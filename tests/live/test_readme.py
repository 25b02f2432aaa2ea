"""The README's session, pasted line by line: nothing in it fails, and what it shows is what comes."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.live.ports import free_ports
from tests.live.test_cluster_command import environment

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]

README = Path(__file__).resolve().parents[2] / "README.md"
SESSIONS = ("First session", "Exactly once")
README_PORT = 7401


class Step(NamedTuple):
    """A command of the README, and what it says that comes; empty: it says nothing."""

    command: str
    shown: str


def steps(text: str) -> list[Step]:
    """The commands of the sections that are sessions, in order."""
    found: list[Step] = []
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        if section.split("\n")[0] not in SESSIONS:
            continue
        for block in re.findall(r"```console\n(.*?)```", section, flags=re.DOTALL):
            for piece in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
                found.append(_step(piece))
    return found


def _step(piece: str) -> Step:
    """A command goes on until its quotes are closed."""
    command, _, shown = piece.partition("\n")
    while not _is_whole(command):
        line, _, shown = shown.partition("\n")
        command += "\n" + line
    return Step(command, shown)


def _is_whole(command: str) -> bool:
    try:
        shlex.split(command)
    except ValueError:
        return False
    return True


def programs(text: str) -> list[str]:
    """The README's programs, each whole."""
    return re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


class Shell:
    """One bash that takes a command after the other, as a terminal does."""

    def __init__(self, directory: Path) -> None:
        path = f"{directory / 'bin'}:{os.environ['PATH']}"
        self._bash = subprocess.Popen(
            ["bash", "--norc"],
            cwd=directory,
            env=environment() | {"PATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def run(self, command: str) -> tuple[int, str]:
        """The exit code and what was printed."""
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        self._bash.stdin.write(f"{command}\nprintf '\\n=== %s\\n' $?\n")
        self._bash.stdin.flush()
        printed: list[str] = []
        for line in self._bash.stdout:
            if line.startswith("=== "):
                return int(line[4:]), "".join(printed).removesuffix("\n")
            printed.append(line)
        raise AssertionError(f"the shell ended at {command}")

    def close(self) -> None:
        """Whatever runs is stopped."""
        self.run("raftkv cluster down")
        self._bash.communicate("exit\n")


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    (tmp_path / "bin").mkdir()
    raftkv = tmp_path / "bin" / "raftkv"
    raftkv.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m raftkv "$@"\n')
    raftkv.chmod(0o755)
    shell = Shell(tmp_path)
    yield shell
    shell.close()


def test_the_readmes_sessions_do_what_they_show(shell: Shell) -> None:
    base = free_ports(3)[0]
    assert shell.run(f"raftkv cluster up --detach --base-port {base}")[0] == 0
    pasted = steps(README.read_text())
    assert len(pasted) >= 12
    for step in pasted:
        if step.command.startswith((". .venv", "scripts/up")):
            step = Step("raftkv cluster up --detach", "")
        command = re.sub(r"740(\d)", lambda port: str(base + int(port[1]) - 1), step.command)
        exit_code, printed = shell.run(command)
        assert exit_code == 0, command
        if step.shown:
            assert printed.strip() == step.shown.strip(), command


def test_a_repeat_in_the_readme_is_told_as_one(shell: Shell) -> None:
    base = free_ports(3)[0]
    shell.run(f"raftkv cluster up --detach --base-port {base}")
    answers = []
    for step in steps(README.read_text()):
        if "SESSION" in step.command:
            command = re.sub(r"740(\d)", lambda port: str(base + int(port[1]) - 1), step.command)
            answers.append(shell.run(command)[1])
    first, second = answers[-2:]
    assert "201 Created" in first
    assert "Raftkv-Duplicate" not in first
    assert "201 Created" in second
    assert "Raftkv-Duplicate: true" in second


def test_the_readmes_programs_do_what_it_says(shell: Shell, tmp_path: Path) -> None:
    base = free_ports(4)[0]
    assert shell.run(f"raftkv cluster up --detach --base-port {base}")[0] == 0
    printed = []
    for place, program in enumerate(programs(README.read_text())):
        moved = re.sub(r"740(\d)", lambda port: str(base + int(port[1]) - 1), program).replace("7501", str(base + 3))
        (tmp_path / f"program{place}.py").write_text(moved)
        printed.append(shell.run(f"{sys.executable} program{place}.py 2>&1"))
    assert printed == [
        (0, "somebody was there first, at revision 2\ngreeting = hello again\n"),
        (0, "counted to 2\ncounted to 2\n"),
    ]


def test_a_command_goes_on_until_its_quotes_are_closed() -> None:
    text = "## First session\n\n```console\n$ one '{\n  two}'\nshown\n$ three\n```\n"
    assert steps(text) == [Step("one '{\n  two}'", "shown\n"), Step("three", "")]


def test_a_session_is_found_in_the_text() -> None:
    text = "## First session\n\n```console\n$ one\nshown\n$ two\n```\n## Other\n```console\n$ three\n```\n"
    assert steps(text) == [Step("one", "shown\n"), Step("two", "")]
