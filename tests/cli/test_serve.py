"""raftkv serve: what it refuses before anything is touched, and the exit code of every way to end."""

from __future__ import annotations

import errno
import socket
import sys
import types
from pathlib import Path
from typing import Final

import pytest

from raftkv.config import SETTINGS
from raftkv.errors import DataDamaged, DirectoryLocked, DiskFailed, UnknownFormat, WrongIdentity

WORDS = ("serve", "--id", "n1", "--data-dir", "data", "--url", "http://127.0.0.1:7401")


@pytest.fixture
def served(monkeypatch):
    """Stands in for the node; collects what it is served with, and ends as it is told to."""
    configs = []
    end = types.SimpleNamespace(with_code=0, by=None)

    def serve(config):
        configs.append(config)
        if end.by is not None:
            raise end.by
        return end.with_code

    stand_in = types.ModuleType("raftkv.node.main")
    stand_in.serve = serve  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "raftkv.node.main", stand_in)
    return types.SimpleNamespace(configs=configs, end=end)


def test_flags_reach_the_node(run, served):
    assert run(*WORDS, "--heartbeat-ms", "50", "--insecure").code == 0
    (config,) = served.configs
    assert (config.id, config.data_dir, config.raft.heartbeat_ms, config.insecure) == ("n1", Path("data"), 50, True)


def test_the_file_and_the_environment_reach_the_node(run, served, tmp_path, monkeypatch):
    (tmp_path / "raftkv.toml").write_text("heartbeat-ms = 50\nelection-timeout-ms = 500\n")
    monkeypatch.setenv("RAFTKV_ELECTION_TIMEOUT_MS", "600")
    assert run(*WORDS, "--config", "raftkv.toml").code == 0
    monkeypatch.setenv("RAFTKV_CONFIG", "raftkv.toml")
    assert run(*WORDS).code == 0
    assert served.configs[0] == served.configs[1]
    assert (served.configs[0].raft.heartbeat_ms, served.configs[0].raft.election_timeout_ms) == (50, 600)


def test_every_problem_is_told_on_a_line_of_its_own(run, served):
    """faults 21"""
    ended = run(*WORDS, "--heartbeat-ms", "290", "--listen", "0.0.0.0:7401")
    assert ended.code == 2
    assert served.configs == []
    assert not Path("data").exists()
    first, second, third = ended.err.splitlines()
    assert "heartbeat-ms (290) must be at most half of election-timeout-ms (300)" in first
    assert "--insecure" in second
    assert "raftkv serve --help" in third


def test_the_help_tells_every_setting(run):
    text = run("serve", "--help").text
    assert [setting.flag for setting in SETTINGS if setting.flag not in text] == []


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DirectoryLocked("data"), 73),
        (DiskFailed(path="data/log", operation="fdatasync", cause=OSError(5, "Input/output error")), 74),
        (DataDamaged(path="data/log", offset=512, why="checksum"), 76),
        (WrongIdentity("belongs to n2"), 77),
        (UnknownFormat("version 9"), 77),
        (OSError(errno.EMFILE, "too many open files"), 70),
        (RuntimeError("a bug"), 70),
        (AssertionError("a bug"), 70),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_trouble_ends_with_its_exit_code_and_is_told(run, served, error, code):
    served.end.by = error
    ended = run(*WORDS)
    assert ended.code == code
    assert str(error) in ended.err or (code == 70 and type(error).__name__ in ended.err)


DAMAGED: Final = DataDamaged(path="data/snapshot-9", offset=512, why="checksum")


@pytest.mark.parametrize(
    ("words", "told", "not_told"),
    [
        (
            ("--initial-cluster", "n1=http://127.0.0.1:7401,n2=http://127.0.0.1:7402"),
            (
                "raftkv doctor --endpoints http://127.0.0.1:7402\n",
                "mv 'a b' 'a b'.damaged\n",
                "with --join http://127.0.0.1:7402 instead of --initial-cluster\n",
                "raftkv member replace n1 --endpoints http://127.0.0.1:7402\n",
            ),
            "restore",
        ),
        (
            ("--join", "http://127.0.0.1:7403"),
            ("with --join http://127.0.0.1:7403 ", "replace n1 --endpoints http://127.0.0.1:7403\n"),
            "restore",
        ),
        ((), ("with --join URL ", "raftkv member replace n1 --endpoints URL\n"), "restore"),
        (("--initial-cluster", "n1=http://127.0.0.1:7401"), ("raftkv restore",), "member replace"),
        (
            (
                *("--peer-url", "http://127.0.0.1:7501", "--initial-cluster"),
                "n1=http://127.0.0.1:7501,n2=http://127.0.0.1:7502",
            ),
            ("with --join http://127.0.0.1:7502 ", "replace n1 --endpoints URL\n"),
            "restore",
        ),
    ],
    ids=["formed", "joined", "nobody named", "alone", "peers apart"],
)
def test_whoever_has_damaged_data_hears_the_way_back(run, served, words, told, not_told):
    """faults 58: every command, with what this node knows; followed to the end in tests/live/test_damaged.py."""
    served.end.by = DAMAGED
    ended = run("serve", "--id", "n1", "--data-dir", "a b", "--url", "http://127.0.0.1:7401", *words)
    assert ended.code == 76
    assert [text for text in told if text not in ended.err] == []
    assert not_told not in ended.err


def test_a_bug_is_told_without_words_that_could_be_a_clients(run, served):
    served.end.by = KeyError("a client's key")
    ended = run(*WORDS)
    assert ended.code == 70 and "KeyError" in ended.err and "client" not in ended.err


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.EADDRINUSE, "error while attempting to bind"), "another process has this port"),
        (OSError(errno.EADDRNOTAVAIL, "error while attempting to bind"), "this machine has no such address"),
        (PermissionError(errno.EACCES, "permission denied"), "ports below 1024"),
        (socket.gaierror(socket.EAI_NONAME, "name or service not known"), "this machine has no such address"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_an_address_that_cannot_be_had_is_told_in_words_with_what_to_do(run, served, error, told):
    served.end.by = error
    ended = run(*WORDS)
    assert ended.code == 2
    assert "cannot listen on 127.0.0.1:7401" in ended.err
    assert told in ended.err
    assert "--listen" in ended.err
    assert "rrno" not in ended.err


def test_the_port_of_peers_is_told_by_its_own_name(run, served):
    served.end.by = OSError(errno.EADDRINUSE, "error while attempting to bind")
    served.end.by.filename = "127.0.0.1:7501"
    ended = run(*WORDS, "--peer-url", "http://127.0.0.1:7501")
    assert ended.code == 2
    assert "cannot listen on 127.0.0.1:7501: another process has this port" in ended.err
    assert "--peer-listen" in ended.err


def test_a_secret_that_is_none_ends_serve_before_anything_is_touched(run, served, tmp_path):
    file = tmp_path / "secret"
    file.write_text("too short")
    file.chmod(0o600)
    ended = run(*WORDS, "--peer-secret-file", str(file))
    assert ended.code == 2
    assert "openssl rand -hex 32" in ended.err
    assert "too short" not in ended.err
    assert served.configs == []
    assert not Path("data").exists()


def test_the_node_s_own_exit_code_is_passed_on(run, served):
    served.end.with_code = 74
    assert run(*WORDS).code == 74
