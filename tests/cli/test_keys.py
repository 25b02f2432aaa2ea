"""put, get, delete: what goes out, what is printed, and the exit code of every kind of answer."""

from __future__ import annotations

import json
import os

import pytest

from raftkv.cli.targets import key_target
from tests.cli.fake_node import FakeNode, Reply, problem, redirect_to
from tests.cli.terminals import on_a_terminal

CREATED = Reply(201, {"key": "greeting", "revision": 5, "create_revision": 5, "version": 1})
REPLACED = Reply(200, {"key": "greeting", "revision": 6, "create_revision": 5, "version": 2})
QUICK = ("--timeout", "0.1")


def test_put_sends_the_value_as_it_is_and_opens_no_session(run, node):
    node.on("PUT", "/v1/kv/", CREATED)
    ended = run("put", "greeting", "hello", "--endpoints", node.url)
    assert (ended.code, ended.text) == (0, "created, revision 5\n")
    (heard,) = node.heard
    assert (heard.method, heard.target, heard.body) == ("PUT", "/v1/kv/greeting", b"hello")
    assert not [name for name in heard.headers if name.startswith("raftkv-")]


def test_put_tells_a_replacement(run, node):
    node.on("PUT", "/v1/kv/", REPLACED)
    assert run("put", "greeting", "hello", "--endpoints", node.url).text == "replaced, revision 6\n"


def test_put_reads_standard_input_byte_for_byte(run, node):
    node.on("PUT", "/v1/kv/", CREATED)
    assert run("put", "k", "-", "--endpoints", node.url, stdin=b"\x00\xff\r\n").code == 0
    assert node.heard[0].body == b"\x00\xff\r\n"


def test_put_of_an_empty_value_sends_its_length(run, node):
    node.on("PUT", "/v1/kv/", CREATED)
    assert run("put", "k", "", "--endpoints", node.url).code == 0
    assert node.heard[0].headers["content-length"] == "0"


@pytest.mark.parametrize("value", [b"plain\n", b"", b"\x00\xff\xfe binary", b"no newline"], ids=repr)
def test_get_writes_the_raw_value_and_nothing_else(run, node, value):
    node.on("GET", "/v1/kv/", Reply(200, value, {"Content-Type": "application/octet-stream"}))
    for extra in ((), ("--output", "table")):
        ended = run("get", "k", "--endpoints", node.url, *extra)
        assert (ended.code, ended.out, ended.err) == (0, value, "")


@pytest.mark.parametrize("value", [b"hello", b"hello\n"], ids=repr)
def test_get_leaves_the_prompt_a_line_of_its_own(node, value):
    node.on("GET", "/v1/kv/", Reply(200, value))
    assert on_a_terminal(["get", "k", "--endpoints", node.url]) == "hello\n"


def test_get_for_programs_is_the_item_with_what_it_reflects(run, node):
    told = {"ETag": '"7"', "Raftkv-Create-Revision": "5", "Raftkv-Version": "2", "Raftkv-Applied-Index": "40"}
    node.on("GET", "/v1/kv/", Reply(200, b"\xff", told | {"Raftkv-Staleness-Ms": "12"}), Reply(200, b"v", told))
    item = {"key": "k", "create_revision": 5, "mod_revision": 7, "version": 2, "applied_index": 40}
    first = run("get", "k", "--output", "json", "--endpoints", node.url)
    assert json.loads(first.text) == item | {"value_base64": "/w==", "staleness_ms": 12}
    assert json.loads(run("get", "k", "--output", "json", "--endpoints", node.url).text) == item | {"value": "v"}


def test_an_error_without_a_code_of_ours_comes_from_what_is_no_node(run, node):
    node.on("GET", "/v1/kv/", Reply(404, b"<h1>Not\x1b[2J found</h1>"))
    ended = run("get", "k", "--endpoints", node.url)
    assert ended.code == 4
    assert ended.err == (
        f"Error: {node.url} does not answer like a raftkv node (status 404 without an explanation). "
        "Ask a node of the cluster with --endpoints.\n"
    )


def test_get_for_programs_of_what_is_no_node_is_refused(run, node):
    node.on("GET", "/v1/kv/", Reply(200, b"<html>"))
    assert run("get", "k", "--output", "json", "--endpoints", node.url).code == 4


def test_get_passes_the_consistency_on(run, node):
    node.on("GET", "/v1/kv/", Reply(200, b"v"))
    run("get", "k", "--consistency", "stale", "--endpoints", node.url)
    assert node.heard[0].target == "/v1/kv/k?consistency=stale"


def test_delete_tells_the_revision(run, node):
    node.on("DELETE", "/v1/kv/", Reply(200, {"deleted": 1, "revision": 9}))
    ended = run("delete", "k", "--endpoints", node.url)
    assert (ended.code, ended.text) == (0, "deleted, revision 9\n")


def test_deleting_an_absent_key_is_exit_code_1(run, node):
    node.on("DELETE", "/v1/kv/", Reply(200, {"deleted": 0, "revision": 9}))
    ended = run("delete", "k", "--endpoints", node.url)
    assert (ended.code, ended.text) == (1, "")
    assert "there is no key k" in ended.err


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_shared_options_are_taken_before_or_after_the_subcommand(run, node, before):
    node.on("PUT", "/v1/kv/", CREATED)
    shared = ("--output", "json", "--endpoints", node.url)
    words = (*shared, "put", "greeting", "v") if before else ("put", "greeting", "v", *shared)
    ended = run(*words)
    assert ended.code == 0
    assert '"revision": 5' in ended.text


def test_a_flag_beats_the_variable_wherever_it_stands(run, node, monkeypatch):
    node.on("GET", "/v1/kv/", Reply(200, b"v"))
    monkeypatch.setenv("RAFTKV_ENDPOINTS", "http://127.0.0.1:1")
    assert run("--endpoints", node.url, "get", "k").code == 0
    assert run("get", "k", "--endpoints", node.url).code == 0
    assert run("get", "k", *QUICK).code == 3


def test_the_variable_names_the_nodes(run, node, monkeypatch):
    node.on("GET", "/v1/kv/", Reply(200, b"v"))
    monkeypatch.setenv("RAFTKV_ENDPOINTS", f"{node.url}, {node.url}/")
    assert run("get", "k").out == b"v"


@pytest.mark.parametrize(
    ("key", "target"),
    [
        ("a-b_c~9", "a-b_c~9"),
        ("a/b", "a%2Fb"),
        ("a/../b", "a%2F%2E%2E%2Fb"),
        ("a b+c", "a%20b%2Bc"),
        ("100%?#", "100%25%3F%23"),
        ("ä", "%C3%A4"),
        (os.fsdecode(b"\xff\x01"), "%FF%01"),
        ("...", "%2E%2E%2E"),
    ],
    ids=ascii,
)
def test_keys_are_encoded_so_that_nobody_on_the_way_tidies_them(run, node, key, target):
    """faults 64"""
    assert key_target(os.fsencode(key)) == f"/v1/kv/{target}"
    node.on("GET", "/v1/kv/", Reply(200, b"v"))
    assert run("get", key, "--endpoints", node.url).code == 0
    assert node.heard[0].target == f"/v1/kv/{target}"


@pytest.mark.parametrize("key", ["", "k" * 4097, "ä" * 2049], ids=lambda key: key[:3] or "empty")
@pytest.mark.parametrize("command", [("get",), ("delete",), ("put",)], ids=lambda words: words[0])
def test_keys_that_cannot_be_named_are_usage_errors(run, node, command, key):
    words = (*command, key, *(("v",) if command == ("put",) else ()), "--endpoints", node.url)
    assert run(*words).code == 2
    assert node.heard == []


def test_the_longest_key_goes_out(run, node):
    node.on("GET", "/v1/kv/", Reply(200, b"v"))
    assert run("get", "\u00e4" * 2048, "--endpoints", node.url).code == 0


@pytest.mark.parametrize(
    ("extra", "header", "value"),
    [(("--if-absent",), "if-none-match", "*"), (("--if-revision", "7"), "if-match", '"7"')],
    ids=str,
)
def test_conditions_are_http_s_own(run, node, extra, header, value):
    node.on("PUT", "/v1/kv/", CREATED)
    assert run("put", "k", "v", *extra, "--endpoints", node.url).code == 0
    assert node.heard[0].headers[header] == value


@pytest.mark.parametrize(
    "words",
    [
        ("get",),
        ("get", "a", "b"),
        ("put", "k"),
        ("nonsense",),
        ("get", "k", "--output", "xml"),
        ("get", "k", "--endpoints", "localhost:7401"),
        ("put", "k", "v", "--if-absent", "--if-revision", "3"),
        ("put", "k", "v", "--if-revision", "0"),
        ("cluster", "up", "--nodes", "4"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_meant_is_exit_code_2(run, words):
    assert run(*words).code == 2


ANSWERS = [
    # put, get, delete: the exit code that each answer means
    (problem(404, "key_not_found"), 1, 1, 1),
    (problem(412, "precondition_failed", mod_revision=4, revision=9), 1, 1, 1),
    (problem(400, "bad_request"), 4, 4, 4),
    (problem(404, "not_found"), 4, 4, 4),
    (problem(413, "too_large"), 4, 4, 4),
    (problem(415, "unsupported_media_type"), 4, 4, 4),
    (problem(507, "disk_full"), 4, 3, 4),
    (problem(503, "replicas_disagree"), 4, 3, 4),
    (problem(503, "no_leader"), 3, 3, 3),
    (problem(503, "superseded"), 3, 3, 3),
    (problem(429, "overloaded"), 3, 3, 3),
    (problem(504, "outcome_unknown"), 3, 3, 3),
    (problem(504, "read_timeout"), 3, 3, 3),
    (problem(500, "internal"), 3, 3, 3),
    (Reply(502, b"<html>bad gateway</html>"), 3, 3, 3),
    (Reply(503, b"proxy"), 3, 3, 3),
    (Reply(hang_up=True), 3, 3, 3),
]


@pytest.mark.parametrize("which", [0, 1, 2], ids=["put", "get", "delete"])
@pytest.mark.parametrize(
    ("reply", "expected"), [(answer, codes) for answer, *codes in ANSWERS], ids=lambda value: _name(value)
)
def test_every_kind_of_failure_has_its_exit_code(run, node, which, reply, expected):
    method = ("PUT", "GET", "DELETE")[which]
    node.on(method, "/v1/kv/", reply)
    words = (("put", "k", "v"), ("get", "k"), ("delete", "k"))[which]
    ended = run(*words, "--endpoints", node.url, *QUICK)
    assert ended.code == expected[which]
    assert ended.out == b""
    assert ended.err.startswith("Error: ")


def _name(value):
    if isinstance(value, Reply):
        body = value.body if isinstance(value.body, dict) else {}
        return "hang_up" if value.hang_up else f"{value.status} {body.get('code', 'without a code')}"
    return ""


@pytest.mark.parametrize(
    "reply",
    [Reply(hang_up=True), problem(504, "outcome_unknown"), problem(500, "internal"), Reply(502, b"?")],
    ids=_name,
)
def test_a_write_of_unknown_outcome_is_not_sent_again_and_says_so(run, node, make_node, reply):
    """faults 50"""
    other = make_node()
    for each in (node, other):
        each.on("PUT", "/v1/kv/", reply, CREATED)
    ended = run("put", "k", "v", "--endpoints", f"{node.url},{other.url}")
    assert ended.code == 3
    assert "not known" in ended.err
    assert "Read the key before you write again" in ended.err
    assert len(node.asked("PUT")) + len(other.asked("PUT")) == 1


@pytest.mark.parametrize("code", ["no_leader", "superseded", "shutting_down"])
def test_a_write_that_changed_nothing_is_sent_again(run, node, code):
    node.on("PUT", "/v1/kv/", problem(503, code), problem(503, code), CREATED)
    assert run("put", "k", "v", "--endpoints", node.url).code == 0
    assert len(node.asked("PUT")) == 3


def test_a_read_goes_to_the_next_node_when_one_breaks(run, node, make_node):
    broken = make_node()
    broken.on("GET", "/v1/kv/", Reply(hang_up=True))
    node.on("GET", "/v1/kv/", Reply(200, b"v"))
    assert run("get", "k", "--endpoints", f"{broken.url},{node.url}").out == b"v"


def test_a_write_goes_to_the_next_node_when_one_refuses_the_connection(run, node):
    node.on("PUT", "/v1/kv/", CREATED)
    assert run("put", "k", "v", "--endpoints", f"http://127.0.0.1:1,{node.url}").code == 0
    assert len(node.asked("PUT")) == 1


def test_an_unreachable_cluster_says_what_to_do(run):
    ended = run("get", "k", "--endpoints", "http://127.0.0.1:1")
    assert ended.code == 3
    assert "raftkv cluster up" in ended.err
    assert "--endpoints" in ended.err


def test_without_any_cluster_the_message_says_how_to_get_one(run):
    ended = run("get", "k")
    assert ended.code == 3
    assert "raftkv cluster up" in ended.err


class TestRedirects:
    """A follower points to its leader."""

    def test_are_followed_with_the_very_bytes_of_the_target(self, run, node, make_node):
        leader = make_node()
        node.knows(node, leader)
        node.on("PUT", "/v1/kv/", redirect_to(leader.url, "/v1/kv/a%2F%2e%2E?x=%41"))
        leader.on("PUT", "/v1/kv/", CREATED)
        assert run("put", "a/..", "v", "--endpoints", node.url).code == 0
        assert leader.asked("PUT")[0].target == "/v1/kv/a%2F%2e%2E?x=%41"
        assert leader.asked("PUT")[0].body == b"v"

    def test_to_a_stranger_are_refused(self, run, node, make_node):
        stranger = make_node()
        stranger.on("PUT", "/v1/kv/", CREATED)
        node.knows(node)
        node.on("PUT", "/v1/kv/", redirect_to(stranger.url, "/v1/kv/k"))
        ended = run("put", "k", "v", "--endpoints", node.url)
        assert ended.code == 4
        assert "no member" in ended.err
        assert stranger.heard == []

    @pytest.mark.parametrize("location", ["", "/v1/kv/k", "nonsense", "http://", "ftp://x/v1/kv/k", "http://a b/k"])
    def test_to_nowhere_are_refused(self, run, node, location):
        node.knows(node)
        reply = problem(307, "not_leader", term=3)
        reply.headers["Location"] = location
        node.on("GET", "/v1/kv/", reply)
        assert run("get", "k", "--endpoints", node.url, *QUICK).code == 4

    def test_in_a_circle_end(self, run, node, make_node):
        """faults 51"""
        other = make_node()
        for one, next_one in ((node, other), (other, node)):
            one.knows(node, other)
            one.on("GET", "/v1/kv/", redirect_to(next_one.url, "/v1/kv/k"))
        ended = run("get", "k", "--endpoints", node.url, "--timeout", "0.1")
        assert ended.code == 3
        rounds = len(node.asked("GET"))
        assert len(other.asked("GET")) == rounds
        assert rounds <= 2 * 4

    def test_to_a_lower_term_are_not_followed(self, run, node, make_node):
        second, third = make_node(), make_node()
        node.knows(node, second, third)
        node.on("GET", "/v1/kv/", redirect_to(second.url, "/v1/kv/k", term=5))
        second.on("GET", "/v1/kv/", redirect_to(third.url, "/v1/kv/k", term=4))
        third.on("GET", "/v1/kv/", Reply(200, b"from the past"))
        assert run("get", "k", "--endpoints", node.url, *QUICK).code == 3
        assert third.asked("GET") == []

    def test_to_a_leader_that_is_gone_are_tried_again(self, run, node: FakeNode, make_node):
        node.on(
            "GET",
            "/v1/cluster",
            Reply(body={"voters": [{"id": "n1", "url": node.url}, {"id": "n2", "url": "http://127.0.0.1:1"}]}),
        )
        node.on("PUT", "/v1/kv/", redirect_to("http://127.0.0.1:1", "/v1/kv/k"), CREATED)
        assert run("put", "k", "v", "--endpoints", node.url).code == 0
