"""The commands against a real node: what the stand-in of the other tests says is what a node says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from raftkv.cli.main import main
from tests.cli.conftest import Ended
from tests.live.ports import free_ports

pytestmark = pytest.mark.live

Run = Callable[..., Ended]
KEYS = [
    b"a",
    b"a/1",
    b".",
    b"..",
    b"nul\x00",
    b"\xff\xfe",
    "ä".encode(),
    b"%2F",
    b"a b+c?#",
    b"line\nbreak",
    b"\x1b[2J",
]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A cluster of one."""
    url = f"http://127.0.0.1:{free_ports(1)[0]}"
    words = ("--id", "n1", "--data-dir", str(tmp_path_factory.mktemp("data") / "n1"), "--url", url)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAFTKV_")}
    command = [sys.executable, "-m", "raftkv", "serve", *words, "--initial-cluster", f"n1={url}"]
    node = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment)
    assert node.stdout is not None
    assert node.stdout.readline() == f"raftkv n1 serving on {url}\n".encode()
    # A node serves before it leads; commands are patient.
    assert main(["put", "ready", "yes", "--endpoints", url, "--output", "json"]) == 0
    yield url
    node.send_signal(signal.SIGTERM)
    node.communicate(timeout=20)
    assert node.returncode == 0


@pytest.fixture
def raftkv(url: str, run: Run) -> Run:
    """Commands to the node, which has no keys yet."""
    run("delete", "--all", "--yes", "--endpoints", url)
    return lambda *words, **more: run(*words, "--endpoints", url, **more)


@pytest.mark.parametrize("key", KEYS, ids=repr)
@pytest.mark.parametrize("exactly_once", [False, True], ids=["once", "exactly once"])
def test_every_key_can_be_put_got_listed_and_deleted(raftkv: Run, key: bytes, exactly_once: bool) -> None:
    """faults 64"""
    word, extra = os.fsdecode(key), ("--exactly-once",) if exactly_once else ()
    assert raftkv("put", word, "-", *extra, stdin=b"\x00value\xff").text.startswith("created, revision ")
    assert raftkv("put", word, "x", "--if-absent", *extra).code == 1
    assert raftkv("get", word).out == b"\x00value\xff"
    told = json.loads(raftkv("get", word, "--output", "json").text)
    assert told["value_base64"] == "AHZhbHVl/w=="
    (listed,) = json.loads(raftkv("list", "--output", "json").text)["items"]
    assert {name: value for name, value in told.items() if name != "applied_index"} == listed
    assert raftkv("delete", word, "--if-revision", "1", *extra).code == 1
    assert raftkv("delete", word, "--if-revision", str(told["mod_revision"]), *extra).code == 0
    assert raftkv("get", word).code == 1
    assert raftkv("delete", word, *extra).code == 1


def test_a_long_list_is_whole_in_both_directions(raftkv: Run, tmp_path: Path) -> None:
    keys = [f"k{number:04}" for number in range(2_300)]
    for first in range(0, len(keys), 100):
        operations = [{"put": {"key": key, "value": key}} for key in keys[first : first + 100]]
        (tmp_path / "txn.json").write_text(json.dumps({"success": operations}))
        assert raftkv("txn", "txn.json").code == 0
    assert raftkv("list", "--keys-only").text.split() == keys
    assert raftkv("list", "--keys-only", "--reverse", "k").text.split() == keys[::-1]
    limited = raftkv("list", "--keys-only", "--limit", "1500", "--consistency", "stale")
    assert limited.text.split() == keys[:1500]
    assert "more keys" in limited.err
    assert raftkv("list", "--start", "k0007", "--end", "k0009", "--keys-only").text.split() == ["k0007", "k0008"]
    assert raftkv("delete", "--start", "k0100", "--yes").text.startswith("2,200 keys deleted, revision ")
    assert raftkv("delete", "--prefix", "k", "--yes", "--exactly-once").text.startswith("100 keys deleted, revision ")
    assert raftkv("list").text == ""


def test_a_transaction_runs_one_branch_and_tells_which(raftkv: Run) -> None:
    swap = {
        "compare": [{"key": "lock", "target": "value", "op": "==", "operand": "me"}],
        "success": [{"put": {"key": "lock", "value": "you"}}, {"range": {"prefix": "lo"}}, {"get": {"key": "x"}}],
        "failure": [{"get": {"key": "lock"}}, {"delete_range": {"prefix": "none"}}],
    }
    first = raftkv("txn", "-", stdin=json.dumps(swap).encode())
    assert first.code == 1
    assert [line.split() for line in first.text.splitlines()[1:]] == [
        ["get", "lock", "absent"],
        ["delete_range", "none*", "0", "deleted"],
    ]
    assert raftkv("put", "lock", "me").code == 0
    second = raftkv("txn", "-", "--exactly-once", stdin=json.dumps(swap).encode())
    assert second.code == 0
    assert [line.split() for line in second.text.splitlines()[1:]] == [
        ["put", "lock", "version", "2"],
        ["range", "lo*", "1", "keys,", "3", "B"],
        ["get", "x", "absent"],
    ]
    refused = raftkv("txn", "-", stdin=b'{"succes": []}')
    assert refused.code == 4
    assert "bad_request" in refused.err


def test_status_tells_of_a_cluster_of_one(raftkv: Run, url: str) -> None:
    lines = raftkv("status").text.splitlines()
    assert lines[0].startswith("n1 leads in term 1, for ")
    assert lines[1] == "1 of 1 voter serve: no further failure is survived"
    assert lines[-1].split()[:2] == ["n1", "leader"]
    assert lines[-1].endswith(url)


def test_a_snapshot_is_taken_and_one_that_is_there_is_told(raftkv: Run) -> None:
    assert raftkv("put", "k", "v").code == 0
    (first,) = json.loads(raftkv("snapshot", "--output", "json").text)["snapshots"]
    assert (first["node"], first["changed"]) == ("n1", True)
    (again,) = json.loads(raftkv("snapshot", "--output", "json").text)["snapshots"]
    assert (again["changed"], again["index"], again["bytes"]) == (False, first["index"], first["bytes"])
    assert raftkv("snapshot").text.endswith(", which it had already\n")


def test_a_second_node_at_the_same_address_says_what_to_do(url: str, run: Run, tmp_path: Path) -> None:
    ended = run(
        "serve", "--id", "n2", "--data-dir", str(tmp_path / "n2"), "--url", url, "--initial-cluster", f"n2={url}"
    )
    assert ended.code == 2
    assert "another process has this port" in ended.err
    assert "rrno" not in ended.err
