"""How commands end: one exit code for one meaning, errors for people or for programs, pipes that close."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import click
import pytest

from raftkv.cli import keys
from raftkv.cli.failures import exit_code_of
from raftkv.core.types import Incarnation, NodeId
from raftkv.storage.directory import PosixDirectory
from raftkv.storage.identity import IdentityFile
from tests.cli.fake_node import Reply, problem

NOWHERE = ("--endpoints", "http://127.0.0.1:1")
QUICK = ("--timeout", "0.1")
DONE = {"revision": 7, "deleted": 1, "version": 1, "succeeded": True, "results": [], "items": [], "changed": True}
FOUND = {"ETag": '"7"', "Raftkv-Create-Revision": "5", "Raftkv-Version": "2"}
TRANSACTION = b'{"success": []}'

ASKING = [
    # every command that asks a cluster: its words, the request that it makes
    (("put", "k", "v"), "PUT", "/v1/kv/k"),
    (("get", "k"), "GET", "/v1/kv/k"),
    (("delete", "k"), "DELETE", "/v1/kv/k"),
    (("delete", "--prefix", "k", "--yes"), "DELETE", "/v1/kv?prefix=k"),
    (("list",), "GET", "/v1/kv?"),
    (("txn", "-"), "POST", "/v1/txn"),
    (("leader", "transfer"), "POST", "/v1/admin/leader"),
]
ENDINGS = [
    # an answer, and what every command ends with
    (Reply(200, json.dumps(DONE).encode(), FOUND), 0, None),
    (problem(412, "precondition_failed", mod_revision=4), 1, "precondition_failed"),
    (problem(400, "bad_request"), 4, "bad_request"),
    (problem(413, "too_large"), 4, "too_large"),
    (problem(422, "sequence_reused"), 4, "sequence_reused"),
    (problem(404, "not_found"), 4, "not_found"),
    (problem(503, "no_leader"), 3, "unreachable"),
    (problem(503, "shutting_down"), 3, "unreachable"),
    (problem(429, "overloaded"), 3, "unreachable"),
]
WRITES_ONLY = [
    (problem(504, "outcome_unknown"), 3, "outcome_unknown"),
    (problem(500, "internal"), 3, "outcome_unknown"),
    (Reply(502, b"<html>"), 3, "outcome_unknown"),
    (Reply(hang_up=True), 3, "outcome_unknown"),
    (problem(507, "disk_full"), 4, "disk_full"),
]
CASES = [
    (words, method, target, *ending)
    for words, method, target in ASKING
    for ending in ENDINGS + (WRITES_ONLY if method != "GET" else [])
]


@pytest.mark.parametrize("as_json", [False, True], ids=["people", "programs"])
@pytest.mark.parametrize(
    ("words", "method", "target", "reply", "code", "told"),
    CASES,
    ids=[f"{' '.join(words)}-{reply.status}-{told}" for words, _, _, reply, _, told in CASES],
)
def test_each_answer_has_its_exit_code_for_every_command(run, node, words, method, target, reply, code, told, as_json):
    node.on(method, target, reply)
    extra = ("--output", "json") if as_json else ()
    ended = run(*words, *extra, "--endpoints", node.url, *QUICK, stdin=TRANSACTION)
    assert ended.code == code
    if told is None:
        assert ended.err in ("", "There are no keys.\n")
    elif as_json:
        assert json.loads(ended.err)["error"] | {"message": ""} == {"code": told, "message": "", "exit_code": code}
    else:
        assert ended.err.startswith("Error: ")
        assert ended.err.rstrip().endswith(".")


USAGE = [
    ("get",),
    ("get", "k", "--min-index", "3"),
    ("get", "k", "--consistency", "follower", "--max-staleness-ms", "3"),
    ("get", "k", "--consistency", "sometimes"),
    ("list", "a", "--start", "b"),
    ("list", "--start", "b", "--end", "a"),
    ("list", "--limit", "0"),
    ("txn", "absent.json"),
    ("txn", "-"),
    ("delete",),
    ("delete", "k", "--all"),
    ("delete", "k", "--prefix", "k"),
    ("delete", "--prefix", ""),
    ("delete", "--prefix", "", "--yes"),
    ("delete", "--start", "", "--yes"),
    ("delete", "--all"),
    ("delete", "--prefix", "a"),
    ("delete", "--prefix", "a", "--end", "b", "--yes"),
    ("delete", "--prefix", "a", "--yes", "--if-revision", "3"),
    ("put", "k", "v", "--if-absent", "--if-revision", "3"),
    ("log", "show", "absent"),
    ("completion", "tcsh"),
    ("put", "k", "v", "--endpoints", "nonsense"),
]


@pytest.mark.parametrize("words", USAGE, ids=" ".join)
def test_what_cannot_be_meant_asks_nobody_and_is_exit_code_2(run, node, words):
    """faults 70"""
    endpoints = () if "--endpoints" in words else ("--endpoints", node.url)
    if words[0] in ("log", "completion"):
        endpoints = ()
    ended = run(*words, *endpoints)
    assert (ended.code, ended.text) == (2, "")
    programs = run(*words, *endpoints, "--output", "json") if words[0] != "completion" else None
    if programs is not None:
        assert programs.code == 2
        assert json.loads(programs.err)["error"]["code"] == "usage"
    assert node.heard == []


@pytest.mark.parametrize("words", [words for words, *_ in ASKING] + [("status",)], ids=" ".join)
def test_without_a_cluster_every_command_is_exit_code_3_and_says_how_to_get_one(run, words):
    for where in ((), NOWHERE):
        ended = run(*words, *where, *QUICK, stdin=TRANSACTION)
        assert ended.code == 3
        assert "raftkv cluster up" in ended.err
        assert "--endpoints" in ended.err
        programs = run(*words, *where, *QUICK, "--output", "json", stdin=TRANSACTION)
        assert programs.code == 3
        assert json.loads(programs.err)["error"]["code"] == "unreachable"


def test_a_bug_of_ours_is_no_code_that_means_something_else(run, monkeypatch):
    monkeypatch.setattr(keys, "key_bytes", lambda _: 1 // 0)
    ended = run("get", "k", *NOWHERE)
    assert ended.code == 70
    assert "ZeroDivisionError" in ended.err
    assert "bug of raftkv" in ended.err


def test_an_interrupted_write_says_that_its_outcome_is_not_known(run, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("raftkv.cli.asking.exchange", interrupted)
    written = run("put", "k", "v", *NOWHERE)
    assert written.code == 130
    assert "not known" in written.err
    read = run("get", "k", *NOWHERE)
    assert (read.code, read.err) == (130, "")


@pytest.fixture
def data_directory(tmp_path):
    """A node's directory with an identity and no log yet."""
    path = tmp_path / "raftkv-data" / "n1"
    path.mkdir(parents=True)
    directory = PosixDirectory(path)
    IdentityFile.open(directory, node_id=NodeId("n1"), new_incarnation=Incarnation(bytes(range(16))))
    directory.close()
    return path


def test_a_directory_that_is_no_node_s_is_not_shown_as_one(run, data_directory, tmp_path):
    ended = run("log", "show", str(data_directory.parent))
    assert (ended.code, ended.text) == (4, "")
    assert f"Did you mean {data_directory}?" in ended.err
    empty = tmp_path / "empty"
    empty.mkdir()
    assert run("log", "show", str(empty)).code == 4
    assert list(empty.iterdir()) == []


def test_a_log_is_shown_for_people_and_for_programs(run, data_directory):
    for_people = run("log", "show", str(data_directory))
    assert for_people.code == 0
    assert "node n1, incarnation 000102" in for_people.text
    for_programs = json.loads(run("log", "show", str(data_directory), "--output", "json").text)
    assert for_programs["lines"] == for_people.text.splitlines()


def spawn(*words: str, **streams):
    environment = {**os.environ, "PYTHONUNBUFFERED": ""}
    return subprocess.Popen([sys.executable, "-m", "raftkv", *words], env=environment, **streams)


@pytest.mark.parametrize(
    "words", [("list",), ("list", "--keys-only"), ("list", "--output", "json"), ("--help",)], ids=" ".join
)
def test_a_reader_that_has_had_enough_ends_the_command_quietly(node, words):
    item = {"key_base64": "a2V5", "value_base64": "dg==", "create_revision": 1, "mod_revision": 1, "version": 1}
    node.on("GET", "/v1/kv?", Reply(body={"items": [item] * 5_000, "more": False, "revision": 1}))
    endpoints = () if words == ("--help",) else ("--endpoints", node.url)
    command = spawn(*words, *endpoints, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert command.stdout is not None
    command.stdout.close()
    _, told = command.communicate(timeout=30)
    assert (command.returncode, told) == (0, b"")


def test_nobody_reading_the_errors_changes_no_exit_code():
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = spawn("get", "k", *NOWHERE, stdout=subprocess.PIPE, stderr=write_end)
    os.close(write_end)
    command.communicate(timeout=30)
    assert command.returncode == 3


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
@pytest.mark.parametrize("words", [("get", "k"), ("list", "--output", "json"), ("list", "--keys-only")], ids=" ".join)
def test_what_could_not_be_written_is_not_done(node, words):
    item = {"key_base64": "a2V5", "value_base64": "dg==", "create_revision": 1, "mod_revision": 1, "version": 1}
    node.on("GET", "/v1/kv/", Reply(200, b"value"))
    node.on("GET", "/v1/kv?", Reply(body={"items": [item], "more": False, "revision": 1}))
    with open("/dev/full", "wb") as full:
        command = spawn(*words, "--endpoints", node.url, stdout=full, stderr=subprocess.PIPE)
        _, told = command.communicate(timeout=30)
    assert command.returncode == 4
    assert b"not done, or not all of it: No space left on device" in told


@pytest.mark.parametrize("error", [click.FileError("x"), click.UsageError("x"), click.ClickException("x")], ids=repr)
def test_no_error_of_click_s_own_says_that_a_key_is_absent(error):
    assert exit_code_of(error) == 2
