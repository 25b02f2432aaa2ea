"""status, cluster status, leader transfer: what a person sees, and what a program gets."""

from __future__ import annotations

import json

import pytest

from raftkv.cli.local_cluster import plan
from raftkv.cli.pictures import duration
from raftkv.cli.record import LocalNode, Record, write_record
from tests.cli.fake_node import Reply, problem, redirect_to, status_of


@pytest.fixture
def cluster(make_node):
    """Three nodes; n1 leads, n3 lags by 100."""
    first, second, third = make_node(), make_node(), make_node()
    first.leads(second, third)
    second.knows(first, second, third)
    second.on("GET", "/v1/status", Reply(body=status_of("n2", second.url)))
    third.on("GET", "/v1/status", Reply(body=status_of("n3", third.url, applied_index=1100, commit_index=1100)))
    return first, second, third


def cells(text):
    """The lines of the table, each as its words, from its heading on."""
    lines = [line.split() for line in text.splitlines() if line.strip(" ─")]
    return lines[next(number for number, line in enumerate(lines) if line[0] == "node") :]


def test_status_finds_the_other_members_by_itself(run, cluster):
    first, second, third = cluster
    ended = run("status", "--endpoints", second.url)
    assert ended.code == 0
    heading, *lines = cells(ended.text)
    assert heading == ["node", "role", "term", "commit", "lag", "revision", "log", "up", "url"]
    told = {line[0]: line for line in lines}
    assert told["n1"] == ["n1", "leader", "3", "1,200", "0", "1,100", "16", "MiB", "2m", "5s", first.url]
    assert told["n3"] == ["n3", "follower", "3", "1,100", "100", "1,100", "16", "MiB", "2m", "5s", third.url]
    assert [line[-1] for line in lines] == [second.url, first.url, third.url]


def test_status_for_programs_has_every_field_as_the_nodes_gave_it(run, cluster):
    first, *_ = cluster
    told = json.loads(run("--output", "json", "status", "--endpoints", first.url).text)
    assert [node["url"] for node in told["nodes"]] == [node.url for node in cluster]
    assert told["nodes"][0]["status"]["role"] == "leader"
    assert told["nodes"][2]["status"]["applied_index"] == 1100


def test_a_member_that_does_not_answer_is_shown(run, node):
    node.leads()
    dead = {"id": "n2", "url": "http://127.0.0.1:1"}
    node.on("GET", "/v1/cluster", Reply(body={"voters": [{"id": "n1", "url": node.url}, dead]}))
    ended = run("status", "--endpoints", node.url)
    assert ended.code == 0
    assert "no answer" in ended.text
    assert "http://127.0.0.1:1" in ended.text


def test_a_node_known_by_two_urls_is_shown_once(run, node):
    node.leads()
    other_name = node.url.replace("127.0.0.1", "localhost")
    told = json.loads(run("status", "--endpoints", other_name, "--output", "json").text)
    assert [found["url"] for found in told["nodes"]] == [other_name]


def test_a_cluster_without_a_leader_is_exit_code_3(run, node):
    node.on("GET", "/v1/status", Reply(body=status_of("n1", node.url, role="candidate", leader_id=None)))
    ended = run("status", "--endpoints", node.url)
    assert ended.code == 3
    assert "candidate" in ended.text
    assert "no node leads" in ended.err


def test_nobody_there_is_exit_code_3(run):
    ended = run("status", "--endpoints", "http://127.0.0.1:1")
    assert ended.code == 3
    assert "no answer" in ended.text
    assert "raftkv cluster up" in ended.err


def test_what_a_node_cannot_know_is_a_dash(run, node):
    node.on("GET", "/v1/status", Reply(body={"id": "n1", "role": "leader", "term": None}))
    ended = run("status", "--endpoints", node.url)
    assert cells(ended.text)[1] == ["n1", "leader", "–", "–", "–", "–", "–", "–", node.url]
    assert ended.text.startswith("n1 leads in term –")


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "0s"),
        (59_999, "59s"),
        (60_000, "1m 0s"),
        (3_600_000, "1h 0m"),
        (90_061_000, "1d 1h"),
    ],
)
def test_time_spans_are_told_in_their_two_largest_units(milliseconds, text):
    assert duration(milliseconds) == text


def test_cluster_status_shows_the_nodes_of_the_record_by_name(run, node, tmp_path):
    node.leads()
    write_record(tmp_path, Record((LocalNode("n1", node.url), LocalNode("n2", "http://127.0.0.1:1"))))
    ended = run("cluster", "status", "--data-dir", str(tmp_path))
    assert ended.code == 0
    assert cells(ended.text)[2][:3] == ["n2", "no", "answer"]


def test_commands_find_the_cluster_of_this_directory(run, node, tmp_path):
    node.on("GET", "/v1/kv/", Reply(200, b"v"))
    (tmp_path / "raftkv-data").mkdir()
    write_record(tmp_path / "raftkv-data", Record((LocalNode("n1", node.url),)))
    assert run("get", "k").out == b"v"


@pytest.mark.parametrize("words", [("status",), ("down",)], ids=" ".join)
def test_without_a_cluster_in_the_directory_the_message_says_how_to_get_one(run, tmp_path, words):
    ended = run("cluster", *words, "--data-dir", "none")
    assert ended.code == 3
    assert "cluster up --data-dir none" in ended.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"version": 2, "nodes": []}', '{"version": 1, "nodes": [{"id": "n1"}]}'], ids=str
)
def test_a_strange_record_is_refused_and_named(run, tmp_path, text):
    (tmp_path / "cluster.json").write_text(text)
    ended = run("cluster", "status", "--data-dir", str(tmp_path))
    assert ended.code == 4
    assert "cluster.json" in ended.err


@pytest.mark.parametrize(("words", "body"), [(("n2",), b'{"id": "n2"}'), ((), b"{}")], ids=["named", "best placed"])
def test_leadership_is_transferred(run, node, words, body):
    answer = Reply(body={"changed": True, "leader": {"id": "n2", "url": "http://127.0.0.1:1"}, "term": 4})
    node.on("POST", "/v1/admin/leader", answer)
    ended = run("leader", "transfer", *words, "--endpoints", node.url)
    assert (ended.code, ended.text) == (0, "n2 leads, term 4\n")
    assert node.heard[0].body == body
    assert node.heard[0].headers["content-type"] == "application/json"


def test_a_transfer_goes_to_the_leader(run, node, make_node):
    leader = make_node()
    node.knows(node, leader)
    node.on("POST", "/v1/admin/leader", redirect_to(leader.url, "/v1/admin/leader"))
    leader.on("POST", "/v1/admin/leader", Reply(body={"changed": False, "leader": {"id": "n2"}, "term": 4}))
    assert run("leader", "transfer", "n2", "--endpoints", node.url).text == "n2 leads already\n"


def test_a_refused_transfer_is_exit_code_4_in_the_node_s_words(run, node):
    node.on("POST", "/v1/admin/leader", problem(404, "member_not_found"))
    ended = run("leader", "transfer", "n9", "--endpoints", node.url)
    assert ended.code == 4
    assert "because of member_not_found" in ended.err


def test_a_transfer_that_is_not_heard_of_says_what_to_look_at(run, node):
    node.on("POST", "/v1/admin/leader", problem(504, "outcome_unknown"))
    ended = run("leader", "transfer", "n2", "--endpoints", node.url)
    assert ended.code == 3
    assert "n2 did not take over in time; it still may. See `raftkv status`" in ended.err
    assert len(node.heard) == 1


def test_a_plan_goes_on_with_what_is_there(tmp_path):
    assert [node.url for node in plan(tmp_path, nodes=None, base_port=None).nodes] == [
        "http://127.0.0.1:7401",
        "http://127.0.0.1:7402",
        "http://127.0.0.1:7403",
    ]
    made = plan(tmp_path, nodes=5, base_port=9001)
    assert [node.id for node in made.nodes] == ["n1", "n2", "n3", "n4", "n5"]
    write_record(tmp_path, made)
    assert plan(tmp_path, nodes=None, base_port=None) == made
    assert plan(tmp_path, nodes=5, base_port=9001) == made


@pytest.mark.parametrize("words", [("--nodes", "5"), ("--base-port", "9001")], ids=" ".join)
def test_another_shape_than_what_is_there_is_a_usage_error(run, tmp_path, words):
    write_record(tmp_path, plan(tmp_path, nodes=3, base_port=None))
    ended = run("cluster", "up", "--data-dir", str(tmp_path), *words)
    assert ended.code == 2
    assert f"Leave out {words[0]}" in ended.err
