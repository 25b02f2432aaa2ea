"""The scripts at the front door: sound as shell, and with one clear word when something is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted([*(ROOT / "scripts").iterdir(), ROOT / ".ci" / "run"])
SHELL_SCRIPTS = [
    path for path in SCRIPTS if (path.is_file() and b"bash" in path.read_bytes()[:40]) or path.suffix == ".sh"
]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what the scripts look at, without an environment."""
    copy = tmp_path / "checkout"
    shutil.copytree(ROOT / "scripts", copy / "scripts")
    for name in ("pyproject.toml", "requirements.txt", "requirements-build.txt", "requirements-dev.txt"):
        shutil.copy(ROOT / name, copy / name)
    return copy


def fake_bin(tmp_path: Path, commands: dict[str, str]) -> Path:
    """A directory of commands that stands for the whole machine."""
    directory = tmp_path / "bin"
    directory.mkdir()
    for name in ("bash", "dirname", "id", "cat", "env", "rm", "chmod"):
        real = shutil.which(name)
        assert real is not None
        (directory / name).symlink_to(real)
    for name, body in commands.items():
        path = directory / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
    return directory


def run(script: Path, path: Path | str, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": str(path), "HOME": str(script.parent), "LANG": "C.UTF-8"}
    return subprocess.run([str(script), *words], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("script", SHELL_SCRIPTS, ids=lambda path: path.name)
def test_the_shell_understands_it(script: Path) -> None:
    assert subprocess.run(["bash", "-n", str(script)], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
@pytest.mark.parametrize("script", SHELL_SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_has_nothing_to_say(script: Path) -> None:
    checked = subprocess.run(
        ["shellcheck", "-x", "-P", "SCRIPTDIR", str(script)], capture_output=True, text=True, check=False
    )
    assert checked.stdout == ""


@pytest.mark.parametrize("script", [path for path in SCRIPTS if path.suffix == ""], ids=lambda path: path.name)
def test_it_can_be_executed(script: Path) -> None:
    assert os.access(script, os.X_OK)


def test_without_python_one_command_is_told(checkout: Path, tmp_path: Path) -> None:
    ended = run(checkout / "scripts" / "up", fake_bin(tmp_path, {"apt-get": "exit 0", "apt-cache": "exit 1"}))
    assert ended.returncode == 1
    assert "no Python 3.11 or newer" in ended.stderr
    assert ended.stderr.strip().endswith("apt-get install -y python3.11-venv")


def test_with_an_old_python_one_command_is_told(checkout: Path, tmp_path: Path) -> None:
    newer = '[ "$2" = python3.12-venv ]'
    directory = fake_bin(tmp_path, {"python3": "exit 1", "apt-get": "exit 0", "apt-cache": newer})
    ended = run(checkout / "scripts" / "test", directory)
    assert ended.returncode == 1
    assert ended.stderr.strip().endswith("apt-get install -y python3.12-venv")


def test_without_the_venv_module_its_package_is_told(checkout: Path, tmp_path: Path) -> None:
    """A Debian whose python3 is new enough and cannot make environments."""
    answers = 'case "$2" in *ensurepip*) exit 1;; *print*) echo 3.13;; esac'
    directory = fake_bin(tmp_path, {"python3": answers, "apt-get": "exit 0"})
    ended = run(checkout / "scripts" / "up", directory)
    assert ended.returncode == 1
    assert "Python 3.13 is here, but it cannot make virtual environments" in ended.stderr
    assert ended.stderr.strip().endswith("apt-get install -y python3.13-venv")


@pytest.fixture
def prepared(checkout: Path) -> Path:
    """A checkout whose environment is there: a Python that can everything but install."""
    venv = checkout / ".venv" / "bin"
    venv.mkdir(parents=True)
    (venv / "python").write_text(
        f'#!/bin/sh\n[ "$2 $3" = "pip install" ] && {{ echo "$@" >> {checkout}/installs; exit 0; }}\n'
        f'exec {sys.executable} "$@"\n'
    )
    (venv / "raftkv").write_text('#!/bin/sh\necho raftkv "$@"\n')
    for path in venv.iterdir():
        path.chmod(0o755)
    return checkout


def installs(checkout: Path) -> int:
    path = checkout / "installs"
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_up_installs_once_and_passes_its_words_on(prepared: Path) -> None:
    path = os.environ["PATH"]
    first = run(prepared / "scripts" / "up", path, "--nodes", "5")
    assert (first.returncode, first.stdout) == (0, "raftkv cluster up --nodes 5\n")
    assert installs(prepared) == 2
    again = run(prepared / "scripts" / "up", path)
    assert (again.stdout, again.stderr) == ("raftkv cluster up\n", "")
    assert installs(prepared) == 2


def campaigns(prepared: Path, *words: str) -> list[str]:
    ended = run(prepared / "scripts" / "simulate", os.environ["PATH"], *words)
    assert ended.returncode == 0, ended.stderr
    return [line for line in ended.stdout.splitlines() if line.startswith("raftkv ")]


def test_simulate_takes_its_seeds_from_the_commit(prepared: Path) -> None:
    def git(*words: str) -> str:
        whole = ["git", "-C", str(prepared), "-c", "user.name=a", "-c", "user.email=a@b.invalid", *words]
        return subprocess.run(whole, capture_output=True, text=True, check=True).stdout.strip()

    git("init", "--quiet")
    git("commit", "--quiet", "--allow-empty", "--message", "one")
    first = int(git("rev-parse", "HEAD")[:12], 16)
    whole, short = campaigns(prepared)
    assert whole.startswith(f"raftkv simulate --first-seed {first} --jobs ")
    assert whole.endswith(" --minutes 3.5")
    assert short.endswith(" --short --minutes 1.5")


def test_simulate_has_seeds_without_git_too_and_a_release_goes_on_where_it_was(prepared: Path) -> None:
    if shutil.which("git") and subprocess.run(["git", "-C", str(prepared), "rev-parse"], check=False).returncode == 0:
        pytest.skip("temporary directories lie in a repository here")
    whole, short, *others = campaigns(prepared, "--release")
    assert whole.startswith("raftkv simulate --first-seed 0 ")
    assert whole.endswith(" --seeds 1000 --state simulated/whole-0.json")
    assert short.endswith(" --short --seeds 50000 --state simulated/short-0.json")
    assert others[-2].endswith(" --seeds 100000 --state simulated/whole-0.json")
    assert others[-1].endswith(" --short --seeds 5000000 --state simulated/short-0.json")
    (prepared / "simulated" / "parts-0").write_text("99\n")
    assert campaigns(prepared, "--release") == others[-2:]
    assert campaigns(prepared, "--release") == []


def test_simulate_passes_on_what_it_is_told(prepared: Path) -> None:
    assert campaigns(prepared, "--seed", "17") == ["raftkv simulate --seed 17"]


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-build.txt", "pyproject.toml"])
def test_up_installs_again_when_what_is_needed_has_changed(prepared: Path, name: str) -> None:
    path = os.environ["PATH"]
    run(prepared / "scripts" / "up", path)
    with (prepared / name).open("a") as file:
        file.write("\n# changed\n")
    run(prepared / "scripts" / "up", path)
    assert installs(prepared) == 4


def test_two_at_once_install_once(prepared: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": str(prepared)}
    script = str(prepared / "scripts" / "up")
    both = [subprocess.Popen([script], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in "ab"]
    assert [running.communicate()[0] for running in both] == [b"raftkv cluster up\n"] * 2
    assert installs(prepared) == 2


def test_a_failed_installation_is_tried_again(prepared: Path) -> None:
    python = prepared / ".venv" / "bin" / "python"
    sound = python.read_text()
    python.write_text(sound.replace("exit 0", "exit 1"))
    path = os.environ["PATH"]
    assert run(prepared / "scripts" / "up", path).returncode == 1
    python.write_text(sound)
    assert run(prepared / "scripts" / "up", path).returncode == 0
