"""Who sits at a terminal is told what is waited for; a program is not."""

from __future__ import annotations

from tests.cli.fake_node import FakeNode, Reply, problem
from tests.cli.terminals import on_a_terminal

LONGER_THAN_A_SECOND = 15
"""Answers that mean: ask again in a tenth of a second."""


def leaderless_for_a_while(node: FakeNode) -> None:
    node.on("GET", "/v1/kv/", *[problem(503, "no_leader")] * LONGER_THAN_A_SECOND, Reply(200, b"v"))


def test_after_a_second_a_person_sees_why_there_is_no_answer_yet(node):
    leaderless_for_a_while(node)
    shown = on_a_terminal(["get", "k", "--endpoints", node.url])
    assert f"{node.url}: because of no_leader …" in shown
    # Erased, before the answer comes.
    assert shown.rindex("\x1b[2K") > shown.rindex("no_leader")
    assert shown.rstrip().endswith("v")


def test_a_program_sees_nothing_but_the_answer(run, node):
    leaderless_for_a_while(node)
    ended = run("get", "k", "--endpoints", node.url)
    assert (ended.text, ended.err) == ("v", "")


def test_nothing_is_told_where_json_is_wanted_and_of_what_is_soon_there(node):
    leaderless_for_a_while(node)
    node.on("GET", "/v1/kv?", Reply(body={"items": [], "revision": 1, "more": False, "next": None}))
    assert "because" not in on_a_terminal(["get", "k", "--output", "json", "--endpoints", node.url])
    assert on_a_terminal(["list", "--endpoints", node.url]) == "There are no keys.\n"


def test_a_node_s_words_cannot_act_on_the_terminal(node):
    evil = problem(503, "no_leader", detail="\x1b]0;title\x07[bold]loud[/bold]")
    node.on("GET", "/v1/kv/", *[evil] * LONGER_THAN_A_SECOND, Reply(200, b"v"))
    shown = on_a_terminal(["get", "k", "--endpoints", node.url])
    assert "\x07" not in shown and "\x1b]" not in shown
    assert "[bold]loud[/bold]" in shown
