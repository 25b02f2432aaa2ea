"""--exactly-once: a write is repeated until its stored answer comes, and nothing else settles it."""

from __future__ import annotations

import json

import pytest

from tests.cli.fake_node import FakeNode, Heard, Reply, problem

CREATED = Reply(201, {"key": "k", "revision": 5, "create_revision": 5, "version": 1})
SESSION = Reply(201, {"session": "ab" * 16, "ttl_ms": 25_000})
UNKNOWN = [Reply(hang_up=True), problem(504, "outcome_unknown"), problem(500, "internal"), Reply(502, b"?")]
PROVES_NOTHING = [
    problem(410, "session_expired"),
    problem(409, "sequence_too_old"),
    problem(503, "superseded"),
    problem(503, "no_leader"),
    problem(507, "disk_full"),
    problem(400, "bad_request"),
]


@pytest.fixture
def node(node: FakeNode) -> FakeNode:
    node.on("POST", "/v1/sessions", SESSION)
    node.on("DELETE", "/v1/sessions/", Reply(200, {"ended": True}))
    return node


def writes(node: FakeNode) -> list[Heard]:
    return [heard for heard in node.heard if "raftkv-sequence" in heard.headers]


def numbers(heard: Heard) -> tuple[str, str, str]:
    session, sequence, acknowledged = (
        heard.headers[f"raftkv-{name}"] for name in ("session", "sequence", "acknowledged")
    )
    return session, sequence, acknowledged


@pytest.mark.parametrize(
    ("words", "method", "target"),
    [
        (("put", "k", "v"), "PUT", "/v1/kv/k"),
        (("delete", "k"), "DELETE", "/v1/kv/k"),
        (("txn", "-"), "POST", "/v1/txn"),
        (("put", "..", "v"), "POST", "/v1/txn"),
        (("delete", "--all", "--yes"), "DELETE", "/v1/kv?all=true"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
@pytest.mark.parametrize("first", UNKNOWN, ids=lambda reply: "hang_up" if reply.hang_up else str(reply.status))
def test_every_write_is_repeated_with_the_same_number_until_its_answer_comes(run, node, words, method, target, first):
    """faults 46, 47"""
    body = {"succeeded": True, "results": [{"put": {"version": 1, "revision": 5}}], "revision": 5, "deleted": 1}
    node.on(method, target, first, first, Reply(200, body))
    ended = run(*words, "--exactly-once", "--endpoints", node.url, stdin=b'{"success": []}')
    assert (ended.code, ended.err) == (0, "")
    sent = writes(node)
    assert len(sent) == 3
    assert {numbers(heard) for heard in sent} == {("ab" * 16, "1", "0")}
    assert len({(heard.method, heard.target, heard.body) for heard in sent}) == 1


def test_a_session_is_opened_for_longer_than_the_command_asks_and_ended_afterwards(run, node):
    node.on("PUT", "/v1/kv/", CREATED)
    assert run("put", "k", "v", "--exactly-once", "--timeout", "20", "--endpoints", node.url).code == 0
    opened, _, closed = node.heard
    assert json.loads(opened.body) == {"ttl_ms": 30_000}
    assert (closed.method, closed.target) == ("DELETE", f"/v1/sessions/{'ab' * 16}")


def test_a_session_that_cannot_be_ended_changes_nothing(run, node):
    node.on("PUT", "/v1/kv/", CREATED)
    node.on("DELETE", "/v1/sessions/", problem(410, "session_expired"))
    assert run("put", "k", "v", "--exactly-once", "--endpoints", node.url).code == 0


def test_the_steps_of_a_range_delete_have_numbers_of_their_own(run, node):
    step, last = (Reply(body={"deleted": 1, "more": more, "revision": 9}) for more in (True, False))
    node.on("DELETE", "/v1/kv?", step, Reply(hang_up=True), last)
    assert run("delete", "--all", "--yes", "--exactly-once", "--endpoints", node.url).code == 0
    assert [numbers(heard)[1:] for heard in writes(node)] == [("1", "0"), ("2", "1"), ("2", "1")]


@pytest.mark.parametrize("later", PROVES_NOTHING, ids=lambda reply: reply.body["code"])
def test_after_an_unknown_outcome_a_refusal_proves_nothing(run, node, later):
    """faults 50"""
    node.on("PUT", "/v1/kv/", Reply(hang_up=True), later)
    ended = run("put", "k", "v", "--exactly-once", "--timeout", "0.3", "--endpoints", node.url)
    assert ended.code == 3
    assert "not known" in ended.err
    assert len(writes(node)) > 1


def test_after_an_unknown_outcome_a_failed_condition_is_the_stored_answer(run, node):
    node.on("PUT", "/v1/kv/", Reply(hang_up=True), problem(412, "precondition_failed", mod_revision=4))
    assert run("put", "k", "v", "--if-absent", "--exactly-once", "--endpoints", node.url).code == 1


def test_a_refusal_without_an_unknown_outcome_before_it_is_believed(run, node):
    node.on("PUT", "/v1/kv/", problem(413, "too_large"))
    assert run("put", "k", "v", "--exactly-once", "--endpoints", node.url).code == 4
    assert len(writes(node)) == 1


def test_a_node_that_dies_with_the_write_leaves_it_to_the_others(run, node, make_node):
    other = make_node()
    node.on("PUT", "/v1/kv/", Reply(hang_up=True))
    other.on("PUT", "/v1/kv/", CREATED)
    assert run("put", "k", "v", "--exactly-once", "--endpoints", f"{node.url},{other.url}").code == 0
    assert numbers(writes(node)[0]) == numbers(writes(other)[0])


def test_a_session_is_asked_for_again_when_nobody_answers_at_first(run, node):
    node.on("POST", "/v1/sessions", Reply(hang_up=True), problem(504, "outcome_unknown"), SESSION)
    node.on("PUT", "/v1/kv/", CREATED)
    assert run("put", "k", "v", "--exactly-once", "--endpoints", node.url).code == 0


@pytest.mark.parametrize("reply", [problem(400, "bad_request"), Reply(201, {})], ids=["refused", "strange"])
def test_without_a_session_nothing_is_written(run, node, reply):
    node.on("POST", "/v1/sessions", reply)
    assert run("put", "k", "v", "--exactly-once", "--endpoints", node.url).code == 4
    assert len(node.heard) == 1


def test_an_opening_that_is_never_heard_of_says_that_nothing_was_written(run, node):
    node.on("POST", "/v1/sessions", Reply(hang_up=True))
    ended = run("put", "k", "v", "--exactly-once", "--timeout", "0.3", "--endpoints", node.url)
    assert ended.code == 3
    assert "Nothing was written" in ended.err
