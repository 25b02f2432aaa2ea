"""member list, add, remove, promote, replace: what is asked, seen through, and told."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from raftkv.cli import changing
from raftkv.cli.changing import in_words
from raftkv.cli.local_cluster import LocalCluster, _how_it_begins
from raftkv.cli.record import LocalNode, Record, read_record, write_record
from tests.cli.fake_node import FakeNode, Reply, problem, redirect_to

MEMBERS = "/v1/admin/members"
CHANGE = {
    "phase": "catching_up",
    "joining": [{"id": "n4", "match_index": 500}],
    "leaving": [],
    "demoted": [],
    "remaining_ms": 9_500,
    "last_index": 1_000,
}
Asked = Callable[..., Any]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changing, "PAUSE_S", 0.0)


def told(*voters: str, changed: bool = True, **more: Any) -> Reply:
    shown = [{"id": id, "url": f"http://{id}.test:1", "match_index": 1_000, "last_contact_ms": 10} for id in voters]
    return Reply(body={"changed": changed, "voters": shown, "learners": [], **more})


def running(**more: Any) -> Reply:
    return Reply(202, {"change": CHANGE | more, "voters": [], "learners": []})


# ------------------------------------------------------------------------------------------------- one wish


@pytest.mark.parametrize(
    ("words", "method", "target", "body"),
    [
        (("add", "n4", "http://n4.test:1"), "POST", "", {"id": "n4", "url": "http://n4.test:1", "role": "voter"}),
        (
            ("add", "n4", "http://n4.test:1/", "--learner"),
            "POST",
            "",
            {"id": "n4", "url": "http://n4.test:1", "role": "learner"},
        ),
        (("remove", "n4"), "DELETE", "/n4", None),
        (("promote", "n4"), "PATCH", "/n4", {"role": "voter"}),
    ],
)
@pytest.mark.parametrize("force", [False, True])
def test_each_command_asks_for_one_thing(
    run: Asked, node: FakeNode, words: tuple[str, ...], method: str, target: str, body: Any, force: bool
) -> None:
    node.on(method, MEMBERS, told("n1", "n4"))
    ended = run("member", *words, *(["--force"] if force else []), "--endpoints", node.url)
    assert ended.code == 0
    assert ended.text.endswith("Voters: n1, n4\n")
    (heard,) = [one for one in node.heard if one.method == method]
    assert heard.target == f"{MEMBERS}{target}?wait_ms=1000" + ("&force=true" if force else "")
    assert (json.loads(heard.body) if heard.body else None) == body
    assert heard.headers.get("content-type") == (None if body is None else "application/json")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("add", "n4", "http://n4.test:1"), "n4 is a member already"),
        (("remove", "n4"), "n4 is no member"),
        (("promote", "n4"), "n4 votes already"),
    ],
)
def test_what_is_so_already_is_told_as_such(run: Asked, node: FakeNode, words: tuple[str, ...], line: str) -> None:
    for method in ("POST", "DELETE", "PATCH"):
        node.on(method, MEMBERS, told("n1", changed=False))
    ended = run("member", *words, "--endpoints", node.url)
    assert (ended.code, ended.text) == (0, f"{line}. Voters: n1\n")


def test_a_change_is_seen_through(run: Asked, node: FakeNode) -> None:
    """However often it is not over, or nobody knows; what this command began, it has changed."""
    unknown = problem(504, "outcome_unknown")
    node.on("POST", MEMBERS, running(), unknown, Reply(hang_up=True), running(), told("n1", "n4", changed=False))
    ended = run("member", "add", "n4", "http://n4.test:1", "--endpoints", node.url, "--output", "json")
    assert ended.code == 0, ended.err
    assert json.loads(ended.text)["changed"] is True
    assert len([one for one in node.heard if one.method == "POST"]) == 5


def test_a_change_is_followed_to_whoever_leads_by_then(run: Asked, node: FakeNode, make_node: Any) -> None:
    """The leader that is removed hands over, and sends there."""
    leader = make_node()
    node.knows(node, leader)
    node.on("DELETE", MEMBERS, redirect_to(leader.url, f"{MEMBERS}/n1?wait_ms=1000"))
    leader.on("DELETE", MEMBERS, told("n2", "n3"))
    ended = run("member", "remove", "n1", "--endpoints", node.url)
    assert ended.text == "n1 is no member any more; its process can be stopped. Voters: n2, n3\n"


def test_whose_time_is_over_is_told_that_it_goes_on(run: Asked, node: FakeNode) -> None:
    node.on("POST", MEMBERS, running())
    ended = run("member", "add", "n4", "http://n4.test:1", "--endpoints", node.url, "--timeout", "0.2")
    assert ended.code == 3
    assert "what was begun goes on without you" in ended.err and "`raftkv member list`" in ended.err


@pytest.mark.parametrize(
    ("code", "status", "hint"),
    [
        ("member_exists", 409, "`raftkv member list` shows the members"),
        ("member_unreachable", 409, "ask again when it answers"),
        ("wrong_cluster", 409, "The members are as before"),
        ("membership_change_in_progress", 409, "shows how far that one is"),
        ("catch_up_failed", 409, "--member-catch-up-timeout-ms"),
        ("quorum_at_risk", 409, "say --force"),
        ("member_not_found", 404, "`raftkv member list` shows the members"),
    ],
)
def test_a_no_is_told_in_the_nodes_words_with_what_to_do(
    run: Asked, node: FakeNode, code: str, status: int, hint: str
) -> None:
    node.on("PATCH", MEMBERS, problem(status, code))
    ended = run("member", "promote", "n4", "--endpoints", node.url)
    assert (ended.code, ended.out) == (4, b"")
    assert f"because of {code}" in ended.err and hint in ended.err


def test_who_waits_for_what_was_called_off_is_told_so_and_asks_no_more(run: Asked, node: FakeNode) -> None:
    node.on("POST", MEMBERS, running(), problem(409, "catch_up_failed", called_off=True))
    ended = run("member", "add", "n4", "http://n4.test:1", "--endpoints", node.url)
    assert ended.code == 4 and "Somebody removed it while it caught up" in ended.err
    assert [one.method for one in node.heard].count("POST") == 2


@pytest.mark.parametrize(
    "words",
    [
        ("add", "n 4", "http://n4.test:1"),
        ("add", "n4", "n4.test:1"),
        ("remove", "n/4"),
        ("promote", ""),
        ("replace", "n4", "--url", "ftp://x"),
    ],
)
def test_what_cannot_be_meant_is_sent_to_nobody(run: Asked, node: FakeNode, words: tuple[str, ...]) -> None:
    node.on("GET", MEMBERS, told("n4"))
    assert run("member", *words, "--endpoints", node.url).code == 2
    assert [one for one in node.heard if one.method != "GET"] == []


# -------------------------------------------------------------------------------------------------- list


def test_the_list_shows_who_votes_and_what_is_running(run: Asked, node: FakeNode) -> None:
    learner = {"id": "n4", "url": "http://n4.test:1", "match_index": 500, "last_contact_ms": None}
    reply = told("n1", "n2")
    assert isinstance(reply.body, dict)
    reply.body["voters"][1] |= {"match_index": 990, "last_contact_ms": 9_000}
    reply.body["learners"] = [learner]
    node.on("GET", MEMBERS, reply)
    node.on("GET", "/v1/cluster", Reply(body={"change": CHANGE, "leader_id": "n1"}))
    ended = run("member", "list", "--endpoints", node.url)
    first, _, heading, *lines = ended.text.splitlines()
    assert first.startswith("a change of members is running: n4 catches up") and "50%, 500 of 1,000" in first
    assert first.endswith("`raftkv member remove n4` calls it off")
    assert heading.split() == ["member", "role", "lag", "heard", "url"]
    assert [line.split() for line in lines] == [
        ["n1", "leader", "0", "now", "http://n1.test:1"],
        ["n2", "voter", "10", "9s", "ago", "http://n2.test:1"],
        ["n4", "learner,", "is", "to", "vote", "500", "never", "http://n4.test:1"],
    ]
    shown = json.loads(run("member", "list", "--endpoints", node.url, "--output", "json").text)
    assert (shown["leader_id"], shown["change"]["phase"]) == ("n1", "catching_up")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (CHANGE, "n4 catches up ━━━━━━━━━━╌╌╌╌╌╌╌╌╌╌ 50%, 500 of 1,000 entries, 9 s left"),
        (CHANGE | {"joining": [{"id": "n4", "match_index": None}], "remaining_ms": None}, "n4 catches up"),
        (CHANGE | {"phase": "joint"}, "old and new voters decide together"),
        (CHANGE | {"phase": "leaving"}, "almost done"),
        ({"phase": 7, "joining": "x"}, "almost done"),
        (CHANGE | {"joining": [{"id": "n4\x1b[2J", "match_index": 1}], "last_index": "x"}, "n4\\x1b[2J catches up"),
    ],
)
def test_how_far_a_change_is(change: dict[str, Any], words: str) -> None:
    assert in_words(change).startswith(words)


# ------------------------------------------------------------------------------------------------ replace


def says(id: str, *, cluster_id: str | None, joins: bool) -> Reply:
    return Reply(body={"id": id, "cluster_id": cluster_id, "formation": {"formed": False, "joins": joins}})


@pytest.fixture
def emptied(node: FakeNode, make_node: Any) -> FakeNode:
    """n4 is a learner, and what answers at its URL waits to be let in."""
    fresh: FakeNode = make_node()
    listed = {"voters": [{"id": "n1", "url": node.url}], "learners": [{"id": "n4", "url": fresh.url}]}
    node.on("GET", MEMBERS, Reply(body=listed))
    node.on("DELETE", MEMBERS, told("n1"))
    node.on("POST", MEMBERS, told("n1"))
    fresh.on("GET", "/v1/diagnostics", says("n4", cluster_id=None, joins=True))
    return fresh


def writes(node: FakeNode) -> list[str]:
    return [one.method for one in node.heard if one.method != "GET"]


def test_a_replacement_is_a_removal_and_an_addition_in_the_same_role(
    run: Asked, node: FakeNode, emptied: FakeNode
) -> None:
    ended = run("member", "replace", "n4", "--endpoints", node.url)
    assert (ended.code, ended.text) == (0, "n4 is replaced. Voters: n1\n")
    assert writes(node) == ["DELETE", "POST"]
    assert json.loads(node.heard[-1].body) == {"id": "n4", "url": emptied.url, "role": "learner"}


def test_a_replacement_that_was_interrupted_is_gone_on_with(run: Asked, node: FakeNode, emptied: FakeNode) -> None:
    node.on("GET", MEMBERS, told("n1"))
    assert run("member", "replace", "n4", "--endpoints", node.url).code == 2, "where is it?"
    assert run("member", "replace", "n4", "--url", emptied.url, "--endpoints", node.url).code == 0
    assert writes(node) == ["POST"]


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (None, "no node answers"),
        (says("n5", cluster_id=None, joins=True), "n5 answers"),
        (says("n4", cluster_id=None, joins=False), "runs without --join"),
        (says("n4", cluster_id="ab" * 16, joins=False), "still has its data"),
    ],
)
def test_nobody_is_removed_for_one_that_cannot_come(
    run: Asked, node: FakeNode, emptied: FakeNode, reply: Reply | None, words: str
) -> None:
    if reply is None:
        listed = {"voters": [{"id": "n4", "url": "http://127.0.0.1:1"}], "learners": []}
        node.on("GET", MEMBERS, Reply(body=listed))
    else:
        emptied.on("GET", "/v1/diagnostics", reply)
    ended = run("member", "replace", "n4", "--endpoints", node.url)
    assert (ended.code, writes(node)) == (4, [])
    assert words in ended.err and "othing was changed" in ended.err.replace(
        "nothing was changed", "Nothing was changed"
    )


# ------------------------------------------------------------------------------------- the local cluster


def test_a_grown_cluster_is_started_as_it_has_grown(tmp_path: Any) -> None:
    """Founders list founders; who joined joins, and so does a founder whose data is gone."""
    nodes = tuple(LocalNode(f"n{i}", f"http://127.0.0.1:{i}", joins=i > 2) for i in (1, 2, 3))
    write_record(tmp_path, Record(nodes))
    record = read_record(tmp_path)
    assert record is not None and record.nodes == nodes
    local = LocalCluster(tmp_path, record)
    founders = ["--initial-cluster", "n1=http://127.0.0.1:1,n2=http://127.0.0.1:2"]
    assert [_how_it_begins(local, node) for node in nodes[:2]] == [founders, founders]
    assert _how_it_begins(local, nodes[2]) == ["--join", "http://127.0.0.1:1,http://127.0.0.1:2"]
    _form(tmp_path / "n1", "n1")
    assert _how_it_begins(local, nodes[0]) == founders
    assert _how_it_begins(local, nodes[1]) == ["--join", "http://127.0.0.1:1,http://127.0.0.1:3"]
    _form(tmp_path / "n2", "n2")
    assert _how_it_begins(local, nodes[1]) == founders


def _form(directory: Any, id: str) -> None:
    """The directory of a node whose cluster is formed."""
    from raftkv.core.types import ClusterId, Incarnation, NodeId
    from raftkv.storage.directory import PosixDirectory
    from raftkv.storage.identity import IdentityFile

    opened = PosixDirectory(directory)
    file = IdentityFile.open(opened, node_id=NodeId(id), new_incarnation=Incarnation(b"i" * 16))
    file.store_cluster(ClusterId(b"c" * 16), None)
    file.store_formed()
    opened.close()


def test_a_record_from_before_nodes_could_join_is_read(tmp_path: Any) -> None:
    old = {"version": 1, "nodes": [{"id": "n1", "url": "http://127.0.0.1:1", "process": None}]}
    (tmp_path / "cluster.json").write_text(json.dumps(old))
    record = read_record(tmp_path)
    assert record is not None and not record.nodes[0].joins
