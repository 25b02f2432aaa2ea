"""``raftkv snapshot``: every node that is named is asked, and each is told of."""

from __future__ import annotations

import json

import pytest

from tests.cli.fake_node import Reply, problem

PATH = "/v1/admin/snapshot"
HAS = {"changed": True, "index": 1200, "bytes": 5 * 1024 * 1024}
NOWHERE = "http://127.0.0.1:1"


def has(**more) -> Reply:
    return Reply(200, {**HAS, **more}, {"Raftkv-Node": "n1"})


def test_a_person_sees_which_node_has_what(run, node):
    node.on("POST", PATH, has())
    assert run("snapshot", "--endpoints", node.url).text == "n1 has a snapshot up to index 1200, 5.0 MiB\n"
    node.on("POST", PATH, has(changed=False))
    assert run("snapshot", "--endpoints", node.url).text.endswith("5.0 MiB, which it had already\n")


def test_a_program_gets_all_nodes(run, node, make_node):
    other = make_node()
    node.on("POST", PATH, has())
    other.on("POST", PATH, Reply(200, {**HAS, "index": 1300}, {"Raftkv-Node": "n2"}))
    ended = run("snapshot", "--output", "json", "--endpoints", f"{node.url},{other.url}")
    told = json.loads(ended.text)["snapshots"]
    assert [(one["node"], one["url"], one["index"]) for one in told] == [
        ("n1", node.url, 1200),
        ("n2", other.url, 1300),
    ]


def test_it_waits_as_long_as_it_was_told(run, node):
    node.on("POST", PATH, has())
    run("snapshot", "--timeout", "2.5", "--endpoints", node.url)
    run("snapshot", "--timeout", "9000", "--endpoints", node.url)
    assert [heard.target for heard in node.heard] == [f"{PATH}?wait_ms=2500", f"{PATH}?wait_ms=600000"]
    assert all(heard.body == b"{}" and heard.headers["content-type"] == "application/json" for heard in node.heard)


def test_one_that_is_still_being_written_is_no_failure_of_the_node(run, node):
    node.on("POST", PATH, Reply(202, {"index": 1200}))
    ended = run("snapshot", "--timeout", "0.1", "--endpoints", node.url)
    assert ended.code == 3
    assert "is still writing" in ended.err and "--timeout" in ended.err and "1200 or more" in ended.err


@pytest.mark.parametrize(
    ("reply", "code", "told"),
    [
        (problem(503, "no_leader"), 3, "unreachable"),
        (problem(503, "too_stale"), 3, "unreachable"),
        (problem(503, "shutting_down"), 3, "unreachable"),
        (problem(507, "disk_full"), 4, "disk_full"),
        (problem(500, "internal"), 4, "internal"),
        (problem(503, "replicas_disagree"), 4, "replicas_disagree"),
        (problem(404, "not_found"), 4, "not_found"),
        (Reply(hang_up=True), 3, "outcome_unknown"),
        (Reply(200, b"<html>"), 4, "refused"),
        (Reply(200, {"index": "many", "bytes": 1}), 4, "refused"),
    ],
)
def test_each_answer_has_its_exit_code(run, node, reply, code, told):
    node.on("POST", PATH, reply)
    ended = run("snapshot", "--output", "json", "--endpoints", node.url)
    assert ended.code == code
    assert json.loads(ended.err)["error"] | {"message": ""} == {"code": told, "message": "", "exit_code": code}


def test_where_one_node_is_down_the_others_are_asked_all_the_same(run, node):
    node.on("POST", PATH, has())
    ended = run("snapshot", "--endpoints", f"{NOWHERE},{node.url}")
    assert ended.code == 3
    assert ended.text == "n1 has a snapshot up to index 1200, 5.0 MiB\n"
    assert NOWHERE in ended.err
