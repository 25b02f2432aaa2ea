"""txn, and the keys that no URL can name: what goes out, what is printed, and the exit code."""

from __future__ import annotations

import base64
import json

import pytest

from tests.cli.fake_node import Reply, problem

SWAP = {
    "compare": [{"key": "lock", "target": "value", "op": "==", "operand": "me"}],
    "success": [{"put": {"key": "lock", "value": "you"}}],
    "failure": [{"get": {"key": "lock"}}],
}
FIELDS = {"create_revision": 5, "mod_revision": 7, "version": 2}


def encoded(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def answer(succeeded: bool, *results: object, revision: int = 9) -> Reply:
    return Reply(body={"succeeded": succeeded, "results": list(results), "revision": revision})


class TestTxn:
    @pytest.mark.parametrize("where", ["file", "stdin"])
    def test_sends_the_file_as_it_is(self, run, node, tmp_path, where):
        node.on("POST", "/v1/txn", answer(True, {"put": {"revision": 9, "version": 3}}))
        raw = json.dumps(SWAP, indent=3).encode()
        (tmp_path / "swap.json").write_bytes(raw)
        name = "swap.json" if where == "file" else "-"
        ended = run("txn", name, "--endpoints", node.url, stdin=raw if where == "stdin" else b"")
        assert (ended.code, ended.err) == (0, "")
        assert ended.text.splitlines()[0] == "success ran, revision 9"
        assert ended.text.splitlines()[1].split() == ["put", "lock", "version", "3"]
        assert node.heard[0].body == raw
        assert node.heard[0].headers["content-type"] == "application/json"

    def test_that_fails_its_comparison_is_exit_code_1_and_prints_the_other_results(self, run, node):
        node.on("POST", "/v1/txn", answer(False, {"get": {"key": "lock", "value": "him\n", **FIELDS}}))
        ended = run("txn", "-", "--endpoints", node.url, stdin=json.dumps(SWAP).encode())
        assert (ended.code, ended.err) == (1, "")
        assert ended.text.splitlines()[0] == "a comparison did not hold: failure ran, revision 9"
        assert ended.text.splitlines()[1].split() == ["get", "lock", "him\\n"]

    def test_for_programs_prints_the_answer(self, run, node):
        node.on("POST", "/v1/txn", answer(False, {"get": None}))
        ended = run("txn", "-", "--output", "json", "--endpoints", node.url, stdin=json.dumps(SWAP).encode())
        assert ended.code == 1
        assert json.loads(ended.text) == {"succeeded": False, "results": [{"get": None}], "revision": 9}

    def test_shows_every_kind_of_result(self, run, node):
        operations = [
            {"put": {"key_base64": encoded(b"\xff"), "value": "1"}},
            {"get": {"key": "here"}},
            {"get": {"key": "empty"}},
            {"get": {"key": "gone"}},
            {"delete": {"key": "old"}},
            {"range": {"prefix": "a/"}},
            {"delete_range": {"start": "b", "end": "c"}},
        ]
        results = [
            {"put": {"revision": 9, "version": 1}},
            {"get": {"key": "here", "value_base64": encoded(b"\x00"), **FIELDS}},
            {"get": {"key": "empty", "value": "", **FIELDS}},
            {"get": None},
            {"delete": {"deleted": 1}},
            {"range": {"items": [{"key": "a/1", "value": "xyz", **FIELDS}] * 2, "more": True}},
            {"delete_range": {"deleted": 1200, "more": False}},
        ]
        node.on("POST", "/v1/txn", answer(True, *results))
        ended = run("txn", "-", "--endpoints", node.url, stdin=json.dumps({"success": operations}).encode())
        assert [" ".join(line.split()) for line in ended.text.splitlines()[1:]] == [
            "put \\xff version 1",
            "get here \\x00",
            "get empty (empty)",
            "get gone absent",
            "delete old 1 deleted",
            "range a/* 2 keys, 6 B, and more",
            "delete_range b…c 1,200 deleted",
        ]

    @pytest.mark.parametrize("body", [b"", b"{", b"[]", b"3", b"\xff", b'"text"'], ids=repr)
    def test_what_is_no_transaction_is_not_sent(self, run, node, body):
        ended = run("txn", "-", "--endpoints", node.url, stdin=body)
        assert (ended.code, node.heard) == (2, [])
        assert "raftkv txn --help" in ended.err

    @pytest.mark.parametrize(
        "results", [[3], [{}], [{"put": 3}], [{"get": 3}], [{"get": {"key": "k"}}], [{"delete": None}]], ids=str
    )
    def test_strange_results_are_no_bug_of_ours(self, run, node, results):
        node.on("POST", "/v1/txn", answer(True, *results))
        ended = run("txn", "-", "--endpoints", node.url, stdin=b"{}")
        assert ended.code == 4
        assert "does not answer like a raftkv node" in ended.err


DOTS = [".", ".."]


@pytest.mark.parametrize("key", DOTS)
class TestKeysThatNoUrlCanName:
    """faults 64"""

    def name(self, key):
        return {"key_base64": encoded(key.encode())}

    def test_are_got_as_a_range_of_one_that_honours_freshness(self, run, node, key):
        item = {"key": key, "value_base64": encoded(b"\x00v"), **FIELDS}
        node.on("GET", "/v1/kv?", Reply(body={"items": [item], "more": False, "revision": 9}))
        ended = run("get", key, "--consistency", "stale", "--min-index", "3", "--endpoints", node.url)
        assert (ended.code, ended.out) == (0, b"\x00v")
        dots = "%2E" * len(key)
        expected = f"/v1/kv?start={dots}&end={dots}%00&encoding=base64&consistency=stale&min_index=3"
        assert node.heard[0].target == expected
        programs = run("get", key, "--output", "json", "--endpoints", node.url)
        assert json.loads(programs.text) == {"key": key, "value": "\x00v", **FIELDS}

    def test_that_are_absent_are_exit_code_1(self, run, node, key):
        node.on("GET", "/v1/kv?", Reply(body={"items": [], "more": False, "revision": 9}))
        assert run("get", key, "--endpoints", node.url).code == 1

    @pytest.mark.parametrize(
        ("extra", "compare"),
        [
            ((), []),
            (("--if-absent",), [{"target": "version", "op": "==", "operand": 0}]),
            (("--if-revision", "7"), [{"target": "mod_revision", "op": "==", "operand": 7}]),
        ],
        ids=str,
    )
    def test_are_put_by_a_transaction(self, run, node, key, extra, compare):
        node.on("POST", "/v1/txn", answer(True, {"put": {"revision": 9, "version": 1}}))
        ended = run("put", key, "v", *extra, "--endpoints", node.url)
        assert (ended.code, ended.text) == (0, "created, revision 9\n")
        assert json.loads(node.heard[0].body) == {
            "compare": [self.name(key) | each for each in compare],
            "success": [{"put": {**self.name(key), "value_base64": encoded(b"v")}}],
            "failure": [{"get": self.name(key)}],
        }

    def test_are_deleted_by_a_transaction(self, run, node, key):
        node.on("POST", "/v1/txn", answer(True, {"delete": {"deleted": 1}}))
        ended = run("delete", key, "--endpoints", node.url)
        assert (ended.code, ended.text) == (0, "deleted, revision 9\n")
        assert json.loads(node.heard[0].body)["success"] == [{"delete": self.name(key)}]
        node.on("POST", "/v1/txn", answer(True, {"delete": {"deleted": 0}}))
        assert run("delete", key, "--endpoints", node.url).code == 1

    def test_whose_condition_fails_are_exit_code_1_with_what_is_there(self, run, node, key):
        node.on("POST", "/v1/txn", answer(False, {"get": {"key": key, "value": "v", **FIELDS}}))
        ended = run("put", key, "v", "--if-absent", "--endpoints", node.url)
        assert ended.code == 1
        assert "its revision is 7" in ended.err
        node.on("POST", "/v1/txn", answer(False, {"get": None}))
        assert "there is no such key" in run("delete", key, "--if-revision", "7", "--endpoints", node.url).err

    def test_of_unknown_outcome_are_not_sent_again(self, run, node, key):
        node.on("POST", "/v1/txn", problem(504, "outcome_unknown"))
        assert run("put", key, "v", "--endpoints", node.url).code == 3
        assert len(node.heard) == 1
