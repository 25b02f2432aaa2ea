"""http-api "Errors" and "Finding the leader": what may be said of a write, and who must be asked."""

from __future__ import annotations

import pytest

from raftkv.kv.answers import Malformed, TooLarge, TooManySessions
from raftkv.outcomes import Applied, Leadership, Refused, Superseded, Unknown, Why
from tests.api.fronts import Client
from tests.api.service import FOLLOWS, LEADERLESS, LEADS

WRITES = [("PUT", "/v1/kv/a"), ("DELETE", "/v1/kv/a"), ("POST", "/v1/sessions"),
          ("POST", f"/v1/sessions/{1:032x}/keepalive"), ("DELETE", f"/v1/sessions/{1:032x}")]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), WRITES)
@pytest.mark.parametrize(
    ("outcome", "status", "code"),
    [
        (Superseded(), 503, "superseded"),
        (Unknown(), 504, "outcome_unknown"),
        (Refused(Why.NOT_LEADER, FOLLOWS), 307, "not_leader"),
        (Refused(Why.NOT_LEADER, LEADERLESS), 503, "no_leader"),
        (Refused(Why.NOT_LEADER, LEADS), 503, "no_leader"),  # it hands leadership over just now
        (Refused(Why.OVERLOADED, LEADS), 429, "overloaded"),
        (Refused(Why.SHUTTING_DOWN, LEADS), 503, "shutting_down"),
        (Refused(Why.DISK_FULL, LEADS), 507, "disk_full"),
        (Refused(Why.REPLICAS_DISAGREE, LEADS), 503, "replicas_disagree"),
    ],
)
def test_what_becomes_of_a_write(
    client: Client, method: str, path: str, outcome: object, status: int, code: str
) -> None:
    """faults 50, 69: only a refusal before the append is a refusal; afterwards it is done, superseded or unknown."""
    client.service.forced_writes.append(outcome)  # type: ignore[arg-type]
    answer = client.ask(method, path)
    assert (answer.status, answer.code) == (status, code)
    assert "Raftkv-Applied-Index" not in answer
    assert answer["Raftkv-Node"] == "n1"


@pytest.mark.parametrize("leadership", [LEADS, FOLLOWS, LEADERLESS])
@pytest.mark.parametrize("outcome", [Superseded(), Unknown()])
def test_an_appended_write_never_turns_into_a_refusal(client: Client, outcome: object, leadership: Leadership) -> None:
    """faults 50: whoever leads by then, an appended write that failed is never called "not here"."""

    def submit(command: bytes, done, *, frees_space: bool = False) -> None:
        client.service.led = leadership
        done(outcome)

    client.service.submit = submit  # type: ignore[method-assign]
    assert client.put("a").code in ("superseded", "outcome_unknown")


@pytest.mark.parametrize(("method", "path"), [*WRITES, ("POST", "/v1/admin/leader")])
def test_a_follower_sends_writes_to_the_leader(client: Client, method: str, path: str) -> None:
    client.service.led = FOLLOWS
    answer = client.ask(method, path, {"Content-Type": "application/json"})
    assert (answer.status, answer["Location"]) == (307, "http://n2.test:7402" + path)
    assert answer.code == "not_leader"
    assert (answer.json["leader"], answer.json["term"]) == ({"id": "n2", "url": "http://n2.test:7402"}, 8)
    assert client.service.submitted == []


@pytest.mark.parametrize(("method", "path"), [*WRITES, ("POST", "/v1/admin/leader"), ("GET", "/v1/kv/a")])
def test_without_a_leader_the_client_is_told_when_to_ask_again(client: Client, method: str, path: str) -> None:
    client.service.led = LEADERLESS
    answer = client.ask(method, path, {"Content-Type": "application/json"})
    assert (answer.status, answer.code, answer["Retry-After"]) == (503, "no_leader", "1")
    assert (answer.json["retry_after_ms"], answer.json["term"]) == (300, 9)
    assert "Location" not in answer


def test_an_overloaded_node_says_when_to_ask_again(client: Client) -> None:
    client.service.forced_writes.append(Refused(Why.OVERLOADED, LEADS))
    client.service.forced_reads.append(Refused(Why.OVERLOADED, LEADS))
    for answer in (client.put("a"), client.get("a")):
        assert (answer.status, answer.code, answer["Retry-After"]) == (429, "overloaded", "1")
        assert answer.json["retry_after_ms"] == 300


def test_a_node_never_sends_a_client_to_itself(client: Client) -> None:
    """faults 51: a node that stopped leading and has heard of nobody else ends no client in a loop."""
    client.service.led = Leadership(leads=False, term=7, leader_id="n1", leader_url="http://n1.test:7401")
    assert client.put("a").code == "no_leader"


@pytest.mark.parametrize(
    "target",
    ["/v1/kv/a%2Fb/%2e%2e//c+d?consistency=l%69nearizable", "/v1/kv/..%2f..", "/v1/kv/%FF%00?", "/v1/kv/a'\"<>|^`{}"],
)
def test_a_redirect_repeats_path_and_query_as_they_came(client: Client, target: str) -> None:
    client.service.led = FOLLOWS._replace(leader_url="http://n2.test:7402/")
    assert client.ask("GET", target)["Location"] == "http://n2.test:7402" + target


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("PUT", "/v1/kv/a%2Fb/%2e%2e//c+d?"),
        ("DELETE", "/v1/kv/%ff%00"),
        ("DELETE", "/v1/kv?prefix=%61+b&%6cimit=1"),
        ("POST", "/v1/txn?encoding=b%61se64"),
        ("POST", f"/v1/sessions/%30{1:031x}/keepalive?"),
        ("DELETE", f"/v1/sessions/{1:032x}?"),
        ("POST", "/v1/admin/leader?"),
    ],
)
def test_a_redirect_of_a_write_repeats_path_and_query_too(client: Client, method: str, target: str) -> None:
    client.service.led = FOLLOWS
    answer = client.ask(method, target, {"Content-Type": "application/json"})
    assert (answer.status, answer["Location"]) == (307, "http://n2.test:7402" + target)
    assert client.service.submitted == [] and client.service.transfers == []


def test_what_is_wrong_in_itself_is_refused_rather_than_redirected(client: Client) -> None:
    client.service.led = FOLLOWS
    assert client.put("a", headers={"If-Match": "1"}).status == 400
    assert client.put("a", headers={"Content-Encoding": "gzip"}).status == 415
    assert client.put("a", headers={"Raftkv-Session": "x"}).status == 400
    assert client.ask("PUT", "/v1/kv/a?x=1").status == 400


def test_leadership_lost_between_head_and_body_is_a_redirect_too(client: Client) -> None:
    client.service.forced_writes.append(Refused(Why.NOT_LEADER, FOLLOWS))
    assert client.ask("PUT", "/v1/kv/a%2f", None, b"v")["Location"] == "http://n2.test:7402/v1/kv/a%2f"


def test_an_answer_reflects_the_index_at_which_it_was_made(client: Client) -> None:
    client.service.index = 41
    assert client.put("a")["Raftkv-Applied-Index"] == "42"


def test_commands_that_the_machine_refuses_say_so(client: Client) -> None:
    for answer, code in ((Malformed("x"), "bad_request"), (TooLarge(9, 8), "too_large"),
                         (TooManySessions(5), "overloaded")):  # fmt: skip
        client.service.forced_writes.append(Applied(3, answer))
        refused = client.put("a")
        assert (refused.code, refused["Raftkv-Applied-Index"]) == (code, "3")
