"""What follows from what the nodes say: who serves, what is survived, and a picture that fits the screen."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from rich.cells import cell_len

from raftkv.cli.overview import ClusterView, NodeView, judge
from raftkv.cli.pictures import Screen, show_cluster
from tests.cli.fake_node import Reply, status_of

FOLLOWS, ALONE, DEAD = "follows", "alone", "dead"


def view(*voters: str, contacts: list[int | None] | None = None, learners: int = 0, **fields: Any) -> ClusterView:
    """n1 leads; the other voters are as they are said to be; ``contacts`` are the leader's, by voter."""
    ids = [f"n{number}" for number in range(1, len(voters) + 1)]
    urls = {id: f"http://127.0.0.1:74{number:02}" for number, id in enumerate(ids, 1)}
    heard = contacts or [None] * len(voters)
    nodes = []
    for id, state in zip(ids, voters, strict=True):
        role = "leader" if state == "leads" else "candidate" if state == ALONE else "follower"
        leader_id = None if state == ALONE else "n1"
        told = status_of(id, urls[id], role=role, leader_id=leader_id, **fields)
        nodes.append(NodeView(urls[id], None if state == DEAD else told))
    members = {
        "voters": [
            {"id": id, "url": urls[id], "last_contact_ms": contact} for id, contact in zip(ids, heard, strict=True)
        ],
        "learners": [{"id": f"l{number}", "url": f"http://127.0.0.1:75{number:02}"} for number in range(learners)],
        "change": None,
    }
    return ClusterView(nodes, members, {url: id for id, url in urls.items()})


CASES = [
    # the voters as they answer here, what the leader last heard of each, how many serve, how many may yet fail
    (("leads", FOLLOWS, FOLLOWS), None, 3, 1),
    (("leads", FOLLOWS, DEAD), None, 2, 0),
    (("leads", DEAD, DEAD), None, 1, -1),
    (("leads", FOLLOWS, ALONE), None, 2, 0),
    (("leads",), None, 1, 0),
    (("leads", FOLLOWS), None, 2, 0),
    (("leads", FOLLOWS, FOLLOWS, FOLLOWS, FOLLOWS), None, 5, 2),
    (("leads", FOLLOWS, FOLLOWS, DEAD, DEAD), None, 3, 0),
    (("leads", FOLLOWS, FOLLOWS, FOLLOWS), None, 4, 1),
    # The leader's own word counts, where it has one.
    (("leads", FOLLOWS, FOLLOWS), [0, 40, 60_000], 2, 0),
    (("leads", FOLLOWS, DEAD), [0, 40, 80], 3, 1),
    ((ALONE, FOLLOWS, FOLLOWS), None, 0, -2),
]


@pytest.mark.parametrize(("voters", "contacts", "serving", "survived"), CASES, ids=str)
def test_what_is_survived_is_counted_over_the_voters_that_follow(voters, contacts, serving, survived):
    verdict = judge(view(*voters, contacts=contacts))
    assert verdict is not None
    assert (verdict.serving, verdict.failures_survived) == (serving, survived)


def test_learners_count_for_nothing():
    verdict = judge(view("leads", FOLLOWS, FOLLOWS, learners=2))
    assert verdict is not None
    assert (verdict.voters, verdict.failures_survived) == (3, 1)


def test_nobody_told_who_votes():
    assert judge(ClusterView([], {}, {})) is None


def picture(of: ClusterView, *, width: int = 80) -> str:
    screen = Screen(file=io.StringIO(), width=width, highlight=False)
    show_cluster(of, screen)
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue()


@pytest.mark.parametrize(
    ("of", "told"),
    [
        (view("leads", FOLLOWS, FOLLOWS), "3 of 3 voters serve: 1 failure is survived"),
        (view("leads", FOLLOWS, DEAD), "2 of 3 voters serve: no further failure is survived"),
        (view("leads", DEAD, DEAD), "1 of 3 voters serve: no majority, so nothing is written"),
        (view("leads"), "1 of 1 voter serve"),
        (view(*["leads", *[FOLLOWS] * 4]), "5 of 5 voters serve: 2 failures are survived"),
        (view("leads", FOLLOWS, FOLLOWS, learners=1), "1 learner without a vote"),
        (view(ALONE, DEAD, DEAD), "no leader"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_verdict_is_told_in_a_line(of, told):
    assert told in picture(of)


HUGE = {"commit_index": 123_456_789, "applied_index": 123_456_700, "revision": 123_456_789, "uptime_ms": 10**10}


@pytest.mark.parametrize("width", [80, 100, 120])
@pytest.mark.parametrize("fields", [{}, HUGE], ids=["usual", "huge"])
def test_the_picture_fits_the_screen(width, fields):
    shown = picture(view("leads", FOLLOWS, DEAD, **fields), width=width)
    assert max(cell_len(line) for line in shown.splitlines()) <= width
    assert [line for line in shown.splitlines() if line != line.rstrip()] == []
    for always in ("node", "role", "lag", "127.0.0.1:7401", "no answer", "n3"):
        assert always in shown


def test_80_columns_have_room_for_every_usual_column():
    heading = next(line for line in picture(view("leads", FOLLOWS, DEAD)).splitlines() if line.startswith("node"))
    assert heading.split() == ["node", "role", "term", "commit", "lag", "revision", "log", "up", "address"]


def test_wide_screens_have_urls_that_can_be_pasted():
    assert "http://127.0.0.1:7401" in picture(view("leads"), width=120)


def test_what_a_node_says_cannot_act_on_the_terminal():
    bad = status_of("n1\x1b[2J\nn9", "http://127.0.0.1:7401", role="leader\x07")
    shown = picture(ClusterView([NodeView("http://127.0.0.1:7401", bad)], {}, {}))
    assert "\x1b" not in shown and "\x07" not in shown
    assert len(shown.splitlines()) == 4


def test_a_pipe_gets_no_colours(run, node, monkeypatch):
    node.leads()
    monkeypatch.setenv("TERM", "xterm-256color")
    assert "\x1b" not in run("status", "--endpoints", node.url).text


def test_programs_get_the_verdict(run, node, make_node):
    second = make_node()
    node.leads(second)
    second.on("GET", "/v1/status", Reply(body=status_of("n2", second.url)))
    told = json.loads(run("status", "--output", "json", "--endpoints", node.url).text)
    assert {name: value for name, value in told.items() if name != "nodes"} == {
        "leader_id": "n1",
        "term": 3,
        "led_for_ms": None,
        "voters": 2,
        "voters_serving": 2,
        "failures_survived": 0,
        "change": None,
    }
    assert [found["id"] for found in told["nodes"]] == ["n1", "n2"]


def test_how_long_the_leader_leads_is_its_own_word_about_this_term(run, node):
    node.leads(term=3)
    remembered = [
        {"event": "became_leader", "term": 2, "age_ms": 900_000, "detail": ""},
        {"event": "stands", "term": 3, "age_ms": 126_000, "detail": ""},
        {"event": "became_leader", "term": 3, "age_ms": 125_000, "detail": ""},
    ]
    for leadership, told in ((remembered, "n1 leads in term 3, for 2m 5s\n"), ([], "n1 leads in term 3\n")):
        node.on("GET", "/v1/diagnostics", Reply(body={"term": 3, "leadership": leadership}))
        assert run("status", "--endpoints", node.url).text.startswith(told)


def test_a_member_that_does_not_answer_has_its_name(run, node):
    node.leads()
    dead = {"id": "n2", "url": "http://127.0.0.1:1", "last_contact_ms": 90_000}
    node.on("GET", "/v1/cluster", Reply(body={"voters": [{"id": "n1", "url": node.url}, dead]}))
    lines = run("status", "--endpoints", node.url).text.splitlines()
    assert lines[-1].split()[:3] == ["n2", "no", "answer"]
    assert "1 of 2 voters serve: no majority" in "\n".join(lines)


def test_a_member_that_only_the_leader_reaches_is_said_to_be_one():
    shown = picture(view("leads", FOLLOWS, DEAD, contacts=[0, 40, 80]))
    assert "3 of 3 voters serve" in shown
    assert "n3 does not answer here, but the leader hears it" in shown
    assert "does not answer here" not in picture(view("leads", FOLLOWS, DEAD, contacts=[0, 40, 5_000]))


@pytest.mark.parametrize(("contact_ms", "serving"), [(390, 2), (410, 1)])
def test_the_leader_s_election_timeout_says_how_long_a_voter_may_be_silent(run, node, contact_ms, serving):
    node.leads()
    other = {"id": "n2", "url": "http://127.0.0.1:1", "last_contact_ms": contact_ms}
    node.on("GET", "/v1/cluster", Reply(body={"voters": [{"id": "n1", "url": node.url}, other]}))
    node.on("GET", "/v1/diagnostics", Reply(body={"settings": {"election_timeout_ms": 200}}))
    assert f"{serving} of 2 voters serve" in run("status", "--endpoints", node.url).text
