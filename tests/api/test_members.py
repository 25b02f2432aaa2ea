"""http-api "Status and administration": who is a member, asked of the leader and changed there."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import msgpack
import pytest

from raftkv.api.service import MembersChange
from raftkv.kv.queries import Revision
from raftkv.members import (
    Add,
    Alter,
    Become,
    MembersAre,
    MembersRefused,
    MembersWhy,
    Named,
    Remove,
    StillChanging,
    Terms,
    Wish,
)
from raftkv.outcomes import Consistency, Leadership, ReadTimedOut, Refused, Why
from tests.api.documented import document
from tests.api.fronts import Answer, Client
from tests.api.service import FOLLOWS, LEADERLESS, STATUS

MEMBERS = "/v1/admin/members"
N4, N5 = Named("n4", "http://n4.test:7404"), Named("n5", "http://n5.test:7405")
JSON = {"Content-Type": "application/json"}


def send(client: Client, method: str, target: str, fields: Any = None, headers: dict[str, str] | None = None) -> Answer:
    if fields is None:
        return client.ask(method, target, headers)
    return client.ask(method, target, {**JSON, **(headers or {})}, json.dumps(fields).encode())


# --------------------------------------------------------------------------------------- what is shown


def test_the_leader_shows_the_members(client: Client) -> None:
    answer = client.ask("GET", "/v1/admin/members")
    cluster = client.ask("GET", "/v1/cluster").json
    assert (answer.status, answer["ETag"], answer["Content-Type"]) == (200, '"4"', "application/json")
    assert answer.json == {"voters": cluster["voters"], "learners": cluster["learners"]}
    assert (answer["Raftkv-Consistency"], answer["Raftkv-Applied-Index"]) == ("linearizable", "0")
    head = client.ask("HEAD", "/v1/admin/members")
    assert (head.body, head.comparable()[:2]) == (b"", answer.comparable()[:2])


def test_the_members_are_read_from_a_leader_that_is_sure_of_being_it(client: Client) -> None:
    """A deposed leader would show a configuration that is no longer in force."""
    client.ask("GET", "/v1/admin/members")
    assert client.service.reads == [(Revision(), Consistency.LINEARIZABLE, 0, None)]
    for outcome, code in ((ReadTimedOut(), "read_timeout"), (Refused(Why.NOT_LEADER, FOLLOWS), "not_leader")):
        client.service.forced_reads.append(outcome)
        assert client.ask("GET", "/v1/admin/members").code == code


def test_a_follower_sends_who_asks_for_the_members_to_the_leader(client: Client) -> None:
    client.service.led = FOLLOWS
    answer = client.ask("GET", "/v1/admin/members")
    assert (answer.status, answer["Location"]) == (307, "http://n2.test:7402/v1/admin/members")
    client.service.led = LEADERLESS
    assert client.ask("GET", "/v1/admin/members").code == "no_leader"


@pytest.mark.parametrize("query", ["?x=1", "?consistency=stale", "?limit=1"])
def test_members_take_no_parameters_and_no_conditions(client: Client, query: str) -> None:
    assert client.ask("GET", "/v1/admin/members" + query).status == 400
    assert client.ask("GET", "/v1/admin/members", {"If-None-Match": '"4"'}).status == 400


# --------------------------------------------------------------------------------------- what is wished

WISHES: list[tuple[str, str, Any, Wish]] = [
    ("POST", "", {"id": "n4", "url": "http://n4.test:7404"}, Add(N4, votes=True)),
    ("POST", "", {"id": "n4", "url": "http://n4.test:7404/", "role": "voter"}, Add(N4, votes=True)),
    ("POST", "", {"id": "n4", "url": "http://N4.test:7404", "role": "learner"}, Add(N4, votes=False)),
    ("DELETE", "/n4", None, Remove("n4")),
    ("DELETE", "/%6e4", None, Remove("n4")),
    ("PATCH", "/n4", {"role": "voter"}, Alter("n4", votes=True)),
    ("PATCH", "/n4", {"role": "learner"}, Alter("n4", votes=False)),
    ("PATCH", "/n4", {"url": N5.url}, Alter("n4", None, N5.url)),
    ("PATCH", "/n4", {"role": "learner", "url": N5.url}, Alter("n4", False, N5.url)),
    ("PUT", "", {"voters": [N4._asdict()]}, Become((N4,))),
    ("PUT", "", {"voters": [N5._asdict(), N4._asdict()], "learners": []}, Become((N5, N4))),
    ("PUT", "", {"voters": [N4._asdict()], "learners": [N5._asdict()]}, Become((N4,), (N5,))),
]


@pytest.mark.parametrize(("method", "path", "fields", "wish"), WISHES)
def test_a_wish_is_handed_on_and_its_end_told(client: Client, method: str, path: str, fields: Any, wish: Wish) -> None:
    answer = send(client, method, MEMBERS + path, fields)
    assert (answer.status, answer["ETag"]) == (200, '"4"')
    assert answer.json["changed"] is True and [one["id"] for one in answer.json["voters"]] == ["n1", "n2", "n3"]
    assert client.service.changes == [(wish, Terms(30_000, force=False))]


def test_asking_for_what_already_is_changes_nothing(client: Client) -> None:
    client.service.forced_changes.append(MembersAre(changed=False))
    answer = send(client, "DELETE", MEMBERS + "/n9")
    assert (answer.status, answer.json["changed"]) == (200, False)


def test_a_wish_may_come_as_msgpack(client: Client) -> None:
    body = msgpack.packb(N4._asdict())
    assert client.ask("POST", MEMBERS, {"Content-Type": "application/msgpack"}, body).status == 200
    assert client.service.changes == [(Add(N4, votes=True), Terms())]


@pytest.mark.parametrize(
    ("query", "terms"),
    [
        ("?wait_ms=0", Terms(0, force=False)),
        ("?force=true&wait_ms=600000", Terms(600_000, force=True)),
        ("?force=false", Terms()),
    ],
)
@pytest.mark.parametrize(("method", "path", "fields", "wish"), [WISHES[0], WISHES[3], WISHES[5], WISHES[9]])
def test_its_terms_stand_in_the_query(
    client: Client, method: str, path: str, fields: Any, wish: Wish, query: str, terms: Terms
) -> None:
    assert send(client, method, MEMBERS + path + query, fields).status == 200
    assert client.service.changes == [(wish, terms)]


def test_who_waits_too_long_is_told_how_far_it_is(client: Client) -> None:
    change = MembersChange("catching_up", (("n4", 2),), (), (), 9_000, 13)
    client.service.now = replace(STATUS, change=change)
    client.service.forced_changes.append(StillChanging())
    answer = send(client, "POST", MEMBERS + "?wait_ms=1", N4._asdict())
    assert (answer.status, answer["ETag"]) == (202, '"4"')
    assert answer.json["change"]["joining"] == [{"id": "n4", "match_index": 2}]
    client.service.now = STATUS
    client.service.forced_changes.append(StillChanging())
    assert send(client, "POST", MEMBERS, N4._asdict()).json["change"] is None


@pytest.mark.parametrize(
    ("tag", "expected"), [(None, None), ("*", None), ('"4"', 4), ('"0"', 0), ('"123456789"', 123_456_789)]
)
def test_a_whole_membership_replaces_the_one_that_is_named(
    client: Client, tag: str | None, expected: int | None
) -> None:
    headers = {} if tag is None else {"If-Match": tag}
    assert send(client, "PUT", MEMBERS, {"voters": [N4._asdict()]}, headers).status == 200
    ((wish, _),) = client.service.changes
    assert wish == Become((N4,), (), expected)


@pytest.mark.parametrize(
    "headers",
    [{"If-Match": "4"}, {"If-Match": 'W/"4"'}, {"If-Match": '"4", "5"'}, {"If-Match": '"04"'}, {"If-None-Match": "*"}],
)
def test_another_condition_is_refused_never_ignored(client: Client, headers: dict[str, str]) -> None:
    assert send(client, "PUT", MEMBERS, {"voters": [N4._asdict()]}, headers).code == "bad_request"
    for method, path, fields, _ in (WISHES[0], WISHES[3], WISHES[5]):
        assert send(client, method, MEMBERS + path, fields, {"If-Match": '"4"'}).code == "bad_request"
    assert client.service.changes == []


BAD: list[tuple[str, str, Any]] = [
    ("POST", "", {}),
    ("POST", "", {"id": "n4"}),
    ("POST", "", {"url": N4.url}),
    ("POST", "", {**N4._asdict(), "role": "leader"}),
    ("POST", "", {**N4._asdict(), "role": None}),
    ("POST", "", {**N4._asdict(), "id": "n 4"}),
    ("POST", "", {**N4._asdict(), "id": 4}),
    ("POST", "", {**N4._asdict(), "url": "n4.test:7404"}),
    ("POST", "", {**N4._asdict(), "url": "http://n4.test:7404/x"}),
    ("POST", "", {**N4._asdict(), "url": ["http://n4.test:7404"]}),
    ("POST", "", {**N4._asdict(), "incarnation": "x"}),
    ("POST", "", [N4._asdict()]),
    ("POST", "?wait_ms=600001", N4._asdict()),
    ("POST", "?force=yes", N4._asdict()),
    ("POST", "?consistency=stale", N4._asdict()),
    ("PUT", "", {}),
    ("PUT", "", {"voters": []}),
    ("PUT", "", {"voters": {}}),
    ("PUT", "", {"voters": ["n4"]}),
    ("PUT", "", {"voters": [{"id": "n4"}]}),
    ("PUT", "", {"voters": [{**N4._asdict(), "role": "voter"}]}),
    ("PUT", "", {"voters": [N4._asdict()], "learners": None}),
    ("PATCH", "/n4", {}),
    ("PATCH", "/n4", {"id": "n4"}),
    ("PATCH", "/n4", {"role": "follower"}),
    ("PATCH", "/n4", {"url": ""}),
    ("PATCH", "/n%204", {"role": "voter"}),
    ("DELETE", "/n%204", None),
    ("DELETE", "/n%ff", None),
    ("DELETE", "/" + "n" * 65, None),
    ("DELETE", "/", None),
]


@pytest.mark.parametrize(("method", "path", "fields"), BAD)
def test_what_cannot_be_meant_is_refused(client: Client, method: str, path: str, fields: Any) -> None:
    assert send(client, method, MEMBERS + path, fields).code == "bad_request"
    assert client.service.changes == []


@pytest.mark.parametrize("path", ["/v1/admin/members", "/v1/admin/members/{id}"])
def test_every_port_is_documented(path: str) -> None:
    """Whoever makes a client of the document could not have named a node beyond port 9999."""
    item = document()["paths"][path]
    body = item["post" if "post" in item else "patch"]["requestBody"]["content"]["application/json"]["schema"]
    pattern = body["properties"]["url"]["pattern"]
    found = [port for port in range(70_000) if re.search(pattern, f"http://n4.test:{port}")]
    assert found == list(range(1, 65_536))


@pytest.mark.parametrize(("method", "path", "fields", "wish"), [WISHES[0], WISHES[5], WISHES[9]])
def test_no_web_page_can_forge_one(client: Client, method: str, path: str, fields: Any, wish: Wish) -> None:
    for headers in ({}, {"Content-Type": "text/plain"}, {"Content-Type": "application/x-www-form-urlencoded"}):
        for body in (b"", json.dumps(fields).encode()):
            assert client.ask(method, MEMBERS + path, headers, body).status == 415, wish
    assert client.service.changes == []


# ----------------------------------------------------------------------------------------- what becomes of it


@pytest.mark.parametrize(
    ("why", "status", "code"),
    [
        (MembersWhy.BAD, 400, "bad_request"),
        (MembersWhy.NO_SUCH_MEMBER, 404, "member_not_found"),
        (MembersWhy.EXISTS, 409, "member_exists"),
        (MembersWhy.UNREACHABLE, 409, "member_unreachable"),
        (MembersWhy.WRONG_CLUSTER, 409, "wrong_cluster"),
        (MembersWhy.QUORUM_AT_RISK, 409, "quorum_at_risk"),
        (MembersWhy.IN_PROGRESS, 409, "membership_change_in_progress"),
        (MembersWhy.CATCH_UP_FAILED, 409, "catch_up_failed"),
        (MembersWhy.CALLED_OFF, 409, "catch_up_failed"),
        (MembersWhy.OTHER_CONFIGURATION, 412, "precondition_failed"),
        (MembersWhy.SHUTTING_DOWN, 503, "shutting_down"),
        (MembersWhy.SUPERSEDED, 503, "superseded"),
        (MembersWhy.UNKNOWN, 504, "outcome_unknown"),
        (MembersWhy.NOT_LEADER, 503, "no_leader"),
    ],
)
def test_a_wish_that_is_not_met_says_why(client: Client, why: MembersWhy, status: int, code: str) -> None:
    method, path, fields = {
        MembersWhy.NO_SUCH_MEMBER: ("PATCH", "/n4", {"role": "voter"}),
        MembersWhy.OTHER_CONFIGURATION: ("PUT", "", {"voters": [N4._asdict()]}),
    }.get(why, ("POST", "", N4._asdict()))
    client.service.forced_changes.append(MembersRefused(why, "because of n4"))
    answer = send(client, method, MEMBERS + path, fields)
    assert (answer.status, answer.code) == (status, code)
    assert why is MembersWhy.NOT_LEADER or answer.json["detail"] == "because of n4"
    assert ("configuration_index" in answer.json) == (why is MembersWhy.OTHER_CONFIGURATION)
    assert answer.json.get("called_off") == (True if why is MembersWhy.CALLED_OFF else None)


def test_every_end_of_a_wish_has_its_code() -> None:
    from raftkv.api.members import _CODES

    assert set(MembersWhy) - set(_CODES) == {MembersWhy.NOT_LEADER}


def test_a_leader_that_removes_itself_hands_over_and_sends_there(client: Client) -> None:
    led = Leadership(leads=False, term=8, leader_id="n2", leader_url="http://n2.test:7402")
    client.service.forced_changes.append(MembersRefused(MembersWhy.NOT_LEADER, "n2 leads now", led))
    answer = send(client, "DELETE", MEMBERS + "/n1?wait_ms=5")
    assert (answer.status, answer.code) == (307, "not_leader")
    assert answer["Location"] == "http://n2.test:7402/v1/admin/members/n1?wait_ms=5"
    assert answer.json["term"] == 8


@pytest.mark.parametrize(("method", "path", "fields", "wish"), [WISHES[0], WISHES[3], WISHES[5], WISHES[9]])
def test_a_follower_sends_on_before_it_reads_the_body(
    client: Client, method: str, path: str, fields: Any, wish: Wish
) -> None:
    client.service.led = FOLLOWS
    answer = send(client, method, MEMBERS + path, fields)
    assert (answer.status, answer["Location"]) == (307, "http://n2.test:7402" + MEMBERS + path), wish
    client.service.led = LEADERLESS
    assert send(client, method, MEMBERS + path, fields).code == "no_leader"
    assert client.service.changes == []
