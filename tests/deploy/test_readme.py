"""deploy/README.md and the files' own comments: what they tell people to type exists."""

from __future__ import annotations

import re
import shlex

import pytest

from raftkv.cli.commands import Group
from raftkv.cli.main import raftkv
from raftkv.config import SETTINGS
from tests.cli.commandlines import understood
from tests.deploy.files import DEPLOY, ROOT, configuration, longest_stop_s

TEXTS = sorted(
    path
    for path in DEPLOY.rglob("*")
    if path.suffix in (".md", ".yaml", ".yml", ".service", ".example") or path.name == "Containerfile"
)
README = (DEPLOY / "README.md").read_text()


def raftkv_calls(text: str) -> list[list[str]]:
    """The words that reach raftkv in each command line, in a container or not."""
    found = []
    for line in text.splitlines():
        typed = re.match(r"^(?:#\s{3,}|\$ )(.*)$", line.strip())
        if typed is None:
            continue
        words = shlex.split(typed[1])
        if words[:2] == ["docker", "run"]:
            image = next(number for number, word in enumerate(words) if word.startswith("raftkv:"))
            found.append(words[image + 1 :])
        elif "--" in words and words[words.index("--") + 1 :][:1] == ["raftkv"]:
            found.append(words[words.index("--") + 2 :])
        elif words[:1] == ["raftkv"]:
            found.append(words[1:])
    return found


CALLS = [(path.name, words) for path in TEXTS for words in raftkv_calls(path.read_text())]


def test_calls_are_found():
    text = "$ docker run --rm -p 1:1 raftkv:0.1.0 status\n#     kubectl exec x -- raftkv list\n$ sudo raftkv\n"
    assert raftkv_calls(text) == [["status"], ["list"]]
    assert len(CALLS) >= 4


@pytest.mark.parametrize(
    ("name", "words"), CALLS, ids=lambda value: value if isinstance(value, str) else " ".join(value)
)
def test_every_command_line_is_understood(name, words):
    understood(words)


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_every_flag_of_ours_exists(path):
    named = set(re.findall(r"(?<![\w-])--(?:[a-z]+-?)+", path.read_text()))
    theirs = {
        *("--build", "--detach", "--volumes", "--rm", "--network", "--namespace", "--from-file", "--now", "--from"),
        *("--data-binary", "--help"),
        *("--require-hashes", "--no-deps", "--no-cache-dir", "--only-binary", "--requirement", "--no-build-isolation"),
        *("--wheel-dir", "--no-index", "--yes", "--quiet", "--interval", "--timeout", "--start-period", "--retries"),
    }
    ours = {setting.flag for setting in SETTINGS} | {"--endpoints"}
    assert named - theirs - ours == set()


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_every_variable_of_ours_exists(path):
    named = set(re.findall(r"\bRAFTKV_[A-Z_]+[A-Z]", path.read_text()))
    assert named <= {setting.variable for setting in SETTINGS}


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_every_command_in_backquotes_exists(path):
    assert isinstance(raftkv, Group)
    for words in re.findall(r"`raftkv ((?:[a-z]+ ?)+)", path.read_text()):
        command = raftkv.get_command(None, words.split()[0])  # type: ignore[arg-type]
        assert command is not None, words


def test_every_file_that_is_named_is_there():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (DEPLOY / target).exists(), target
    for name in re.findall(r"\b(deploy/[\w./@-]+)", README):
        found = ROOT / name.rstrip(".")
        assert found.exists(), name
    assert (ROOT / "tests" / "deploy").is_dir()


def test_what_is_installed_for_systemd_is_what_the_unit_runs():
    unit = (DEPLOY / "systemd" / "raftkv@.service").read_text()
    for path in ("/opt/raftkv", "/etc/raftkv/n1.env", "/etc/raftkv/peer-secret"):
        assert path in README
        assert path.replace("n1", "%i") in unit


def test_the_bound_of_a_stop_is_told_as_it_is():
    config = configuration(["serve", "--id=n1", "--data-dir=d", "--url=http://127.0.0.1:1"], {})
    (told,) = set(re.findall(r"(\d+) s at most with the", README))
    assert longest_stop_s(config) <= int(told) <= longest_stop_s(config) + 1
