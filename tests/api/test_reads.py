"""http-api "Reading": how fresh, from whom, and what the answer says about itself."""

from __future__ import annotations

import pytest

from raftkv.api.parameters import Octets, Parameter, read_query
from raftkv.kv.queries import Get
from raftkv.outcomes import Answered, Consistency, ReadTimedOut, Refused, TooStale, Why
from tests.api.fronts import Client
from tests.api.service import FOLLOWS, LEADERLESS, LEADS


@pytest.mark.parametrize(
    ("query", "asked", "used"),
    [
        ("", Consistency.LINEARIZABLE, "linearizable"),
        ("?consistency=linearizable", Consistency.LINEARIZABLE, "linearizable"),
        ("?consistency=follower", Consistency.FOLLOWER, "follower"),
        ("?consistency=lease", Consistency.LEASE, "linearizable"),
        ("?consistency=stale", Consistency.STALE, "stale"),
        ("?consistency=s%74ale", Consistency.STALE, "stale"),
    ],
)
def test_the_level_that_was_used_is_told(client: Client, query: str, asked: Consistency, used: str) -> None:
    client.put("a")
    answer = client.get("a", query)
    assert (answer.status, answer["Raftkv-Consistency"]) == (200, used)
    assert (answer["Raftkv-Applied-Index"], answer["Raftkv-Node"]) == ("1", "n1")
    assert ("Raftkv-Staleness-Ms" in answer) == (used == "stale")
    assert client.service.reads == [(Get(b"a"), asked, 0, None)]


def test_an_absent_key_is_absent_at_some_index_too(client: Client) -> None:
    client.put("a")
    answer = client.get("b", "?consistency=stale")
    assert (answer.status, answer["Raftkv-Applied-Index"], answer["Raftkv-Staleness-Ms"]) == (404, "1", "17")


def test_bounds_of_a_stale_read_are_passed_on(client: Client) -> None:
    client.get("a", "?consistency=stale&min_index=9223372036854775807&max_staleness_ms=0")
    client.get("a", "?max_staleness_ms=250&consistency=stale")
    assert [bounds for _, _, *bounds in client.service.reads] == [[2**63 - 1, 0], [0, 250]]


@pytest.mark.parametrize(
    "query",
    [
        "?consistency=", "?consistency", "?consistency=Stale", "?consistency=stale+", "?consistency=strong",
        "?consistency=stale&consistency=stale", "?consistency=stale&consistency=linearizable", "?Consistency=stale",
        "?consistency=stale&min_index=", "?consistency=stale&min_index=-1", "?consistency=stale&min_index=%2B1",
        "?consistency=stale&min_index=+1", "?consistency=stale&min_index=01", "?consistency=stale&min_index=1.0",
        "?consistency=stale&min_index=1e3", "?consistency=stale&min_index=%D9%A1", "?consistency=stale&min_index=1%0a",
        "?consistency=stale&min_index=9223372036854775808", "?consistency=stale&min_index=" + "9" * 5000,
        "?consistency=stale&max_staleness_ms=-1", "?consistency=stale&max_staleness_ms=1_000",
        "?consistency=stale&min_index=1&min_index=1", "?min_index=1", "?max_staleness_ms=1",
        "?consistency=follower&min_index=1", "?consistency=lease&max_staleness_ms=5",
        "?x=1", "?limit=1", "?&", "?consistency=stale&", "?%=1", "?consistency=%zz", "?consistency=stale?", "?=stale",
    ],
)  # fmt: skip
def test_a_query_that_is_not_understood_is_refused(client: Client, query: str) -> None:
    """faults 64: hostile numbers, repeated and unknown parameters are 400."""
    for method in ("GET", "HEAD"):
        assert client.ask(method, "/v1/kv/a" + query).status == 400
    assert client.service.reads == []


@pytest.mark.parametrize("query", ["", "?consistency=linearizable", "?consistency=lease"])
def test_a_follower_sends_reads_that_need_the_leader_there(client: Client, query: str) -> None:
    client.service.led = FOLLOWS
    for method in ("GET", "HEAD"):
        answer = client.ask(method, "/v1/kv/a" + query)
        assert (answer.status, answer["Location"]) == (307, "http://n2.test:7402/v1/kv/a" + query)
    assert client.service.reads == []


@pytest.mark.parametrize("level", ["follower", "stale"])
@pytest.mark.parametrize("led", [FOLLOWS, LEADERLESS])
def test_a_follower_answers_the_other_reads_itself(client: Client, level: str, led: object) -> None:
    client.put("a", b"value")
    client.service.led = led  # type: ignore[assignment]
    answer = client.get("a", f"?consistency={level}")
    assert (answer.status, answer.body, answer["Raftkv-Consistency"]) == (200, b"value", level)


def test_a_stale_read_of_unknown_age_does_not_invent_one(client: Client) -> None:
    client.put("a")
    found = client.service.machine.query(Get(b"a"))
    client.service.forced_reads.append(Answered(1, found, Consistency.STALE, None))
    assert "Raftkv-Staleness-Ms" not in client.get("a", "?consistency=stale")


@pytest.mark.parametrize(
    ("outcome", "status", "code"),
    [
        (TooStale(5, None, 9), 503, "too_stale"),
        (ReadTimedOut(), 504, "read_timeout"),
        (Refused(Why.NOT_LEADER, FOLLOWS), 307, "not_leader"),
        (Refused(Why.NOT_LEADER, LEADERLESS), 503, "no_leader"),
        (Refused(Why.OVERLOADED, LEADS), 429, "overloaded"),
        (Refused(Why.SHUTTING_DOWN, LEADS), 503, "shutting_down"),
        (Refused(Why.REPLICAS_DISAGREE, LEADS), 503, "replicas_disagree"),
    ],
)
def test_what_becomes_of_a_read(client: Client, outcome: object, status: int, code: str) -> None:
    client.service.forced_reads.append(outcome)  # type: ignore[arg-type]
    answer = client.get("a")
    assert (answer.status, answer.code) == (status, code)
    assert "Raftkv-Applied-Index" not in answer


def test_a_plus_in_a_query_is_a_space() -> None:
    known = [Parameter(name, Octets(0, 9), "", b"") for name in ("a", "b")]
    assert read_query(b"a=x+y%2Bz&b", known) == {"a": b"x y+z", "b": b""}


def test_reads_ignore_sessions(client: Client) -> None:
    assert client.get("a", headers={"Raftkv-Session": "nonsense", "Raftkv-Sequence": "-1"}).status == 404


@pytest.mark.parametrize(
    ("outcome", "says"),
    [
        (TooStale(5, 17, 9), "log index 9 was asked, 5 is applied here"),
        (TooStale(9, 17, 9, 10), "at most 10 ms of age were asked, this node's state is 17 ms old"),
        (TooStale(9, None, 0, 10), "at most 10 ms of age were asked, this node's state is of unknown age"),
    ],
)
def test_a_node_that_is_too_far_behind_says_by_how_much(client: Client, outcome: TooStale, says: str) -> None:
    client.service.forced_reads.append(outcome)
    answer = client.get("a", "?consistency=stale&min_index=9")
    assert (answer.status, answer["Retry-After"], answer.json["retry_after_ms"]) == (503, "1", 300)
    assert says in answer.json["detail"]
    shown = ("min_index", "max_staleness_ms", "applied_index", "staleness_ms")
    assert {name: answer.json[name] for name in shown} == {name: getattr(outcome, name) for name in shown}
