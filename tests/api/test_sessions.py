"""http-api "Exactly once": sessions, numbers, repeats."""

from __future__ import annotations

from urllib.parse import quote

import msgpack
import pytest

from raftkv.kv.commands import KeepAlive, Numbered, OpenSession, Put, decode
from tests.api.fronts import Client


def opened(client: Client, ttl_ms: int = 60_000) -> str:
    return client.post("/v1/sessions", {"ttl_ms": ttl_ms}).json["session"]


def numbered(session: str, sequence: int, acknowledged: int | None = None) -> dict[str, str]:
    headers = {"Raftkv-Session": session, "Raftkv-Sequence": str(sequence)}
    return headers if acknowledged is None else {**headers, "Raftkv-Acknowledged": str(acknowledged)}


def test_a_session_is_opened_kept_alive_and_ended(client: Client) -> None:
    answer = client.post("/v1/sessions")
    session = answer.json["session"]
    assert (answer.status, answer.body) == (201, b'{"session":"%s","ttl_ms":60000}' % session.encode())
    assert len(session) == 32 and int(session, 16) == 1
    assert answer["Raftkv-Applied-Index"] == "1"
    alive = client.post(f"/v1/sessions/{session}/keepalive")
    assert (alive.status, alive.json) == (200, {"session": session, "ttl_ms": 60_000})
    ended = client.ask("DELETE", f"/v1/sessions/{session}")
    assert (ended.status, ended.json) == (200, {"session": session})
    assert [frees_space for _, frees_space in client.service.submitted] == [False, False, True]
    for again in (client.ask("DELETE", f"/v1/sessions/{session}"), client.post(f"/v1/sessions/{session}/keepalive")):
        assert (again.status, again.code) == (410, "session_expired")


@pytest.mark.parametrize("ttl_ms", [1_000, 86_400_000, 2e3])
def test_a_session_lives_a_second_to_a_day(client: Client, ttl_ms: float) -> None:
    answer = client.post("/v1/sessions", {"ttl_ms": ttl_ms})
    assert (answer.status, answer.json["ttl_ms"]) == (201, ttl_ms)


@pytest.mark.parametrize("ttl_ms", [999, 86_400_001, -1, 0, 1000.5, 2.0**53, "1000", None, True, [1000], 2**70])
def test_other_times_to_live_are_refused(client: Client, ttl_ms: object) -> None:
    assert client.post("/v1/sessions", {"ttl_ms": ttl_ms}).status == 400
    assert client.service.submitted == []


def test_msgpack_is_taken_as_well(client: Client) -> None:
    answer = client.ask(
        "POST", "/v1/sessions", {"Content-Type": "application/msgpack"}, msgpack.packb({"ttl_ms": 5_000})
    )
    assert (answer.status, answer.json["ttl_ms"]) == (201, 5_000)


def test_every_session_is_another_one(client: Client) -> None:
    assert opened(client) != opened(client)


def test_a_repeat_gets_the_first_answer_again(client: Client) -> None:
    """faults 47: status, body, ETag and applied index of the first answer, and nothing is executed again."""
    session = opened(client)
    first = client.put("a", b"1", numbered(session, 1))
    assert (first.status, first["Raftkv-Applied-Index"]) == (201, "2")
    assert "Raftkv-Duplicate" not in first
    client.put("a", b"2")
    again = client.put("a", b"1", numbered(session, 1))
    assert again["Raftkv-Duplicate"] == "true"
    assert again.body == first.body
    assert (again.status, again["ETag"], again["Raftkv-Applied-Index"]) == (201, '"1"', "2")
    assert client.stored(b"a") == b"2"


def test_a_repeated_failed_condition_fails_again(client: Client) -> None:
    """faults 47: a 412 is an answer like any other."""
    session = opened(client)
    headers = {**numbered(session, 1), "If-Match": "*"}
    first = client.put("a", b"1", headers)
    client.put("a", b"2")
    again = client.put("a", b"1", headers)
    assert (first.status, again.status, again["Raftkv-Duplicate"]) == (412, 412, "true")
    assert (again.body, again["Raftkv-Applied-Index"]) == (first.body, first["Raftkv-Applied-Index"])
    assert client.stored(b"a") == b"2"


def test_a_repeated_delete_deletes_once(client: Client) -> None:
    """faults 46: the retry of a delete leaves alone what was put since."""
    session = opened(client)
    client.put("a")
    assert client.delete("a", numbered(session, 1)).json["deleted"] == 1
    client.put("a", b"new")
    again = client.delete("a", numbered(session, 1))
    assert (again.json["deleted"], again["Raftkv-Duplicate"]) == (1, "true")
    assert client.stored(b"a") == b"new"


def test_numbers_may_come_in_any_order(client: Client) -> None:
    """faults 48: lower than seen, with gaps: each executed once, each with its own answer."""
    session = opened(client)
    revisions = {sequence: client.put(f"k{sequence}", b"v", numbered(session, sequence)).json["revision"]
                 for sequence in (5, 2, 9, 1)}  # fmt: skip
    for sequence, revision in revisions.items():
        again = client.put(f"k{sequence}", b"v", numbered(session, sequence))
        assert (again.json["revision"], again["Raftkv-Duplicate"]) == (revision, "true")


@pytest.mark.parametrize("other", ["value", "key", "condition", "method"])
def test_a_number_belongs_to_one_request(client: Client, other: str) -> None:
    """faults 48: never another request's answer."""
    session = opened(client)
    client.put("a", b"1", numbered(session, 1))
    headers = numbered(session, 1)
    match other:
        case "value":
            answer = client.put("a", b"2", headers)
        case "key":
            answer = client.put("b", b"1", headers)
        case "condition":
            answer = client.put("a", b"1", {**headers, "If-Match": "*"})
        case _:
            answer = client.delete("a", headers)
    assert (answer.status, answer.code) == (422, "sequence_reused")
    assert client.stored(b"a") == b"1" and client.stored(b"b") is None


def test_an_acknowledged_number_is_too_old(client: Client) -> None:
    session = opened(client)
    client.put("a", b"1", numbered(session, 1))
    client.put("a", b"2", numbered(session, 2, acknowledged=1))
    answer = client.put("a", b"1", numbered(session, 1))
    assert (answer.status, answer.code) == (409, "sequence_too_old")
    assert client.stored(b"a") == b"2"


def test_too_many_unacknowledged_numbers_are_refused(client: Client) -> None:
    """faults 65: what a session may make the store remember is bounded."""
    session = opened(client)
    statuses = [client.put("a", b"", numbered(session, sequence)).status for sequence in range(1, 1026)]
    assert set(statuses[:-1]) == {200, 201}
    assert statuses[-1] == 429
    assert client.put("a", b"", numbered(session, 1025)).code == "too_many_unacknowledged"
    assert client.put("a", b"", numbered(session, 1025, acknowledged=1024)).status == 200


def test_an_expired_session_executes_nothing(client: Client) -> None:
    """faults 49: by the log's time, and said so."""
    session = opened(client, ttl_ms=1_000)
    client.put("a", b"1", numbered(session, 1))
    client.service.stamp_ms += 1_001
    answer = client.put("a", b"2", numbered(session, 2))
    assert (answer.status, answer.code) == (410, "session_expired")
    assert client.put("a", b"1", numbered(session, 1)).status == 410
    assert client.stored(b"a") == b"1"


SIGNS_OF_LIFE = ["put", "delete", "txn", "delete_range", "keepalive", "repeat"]


@pytest.mark.parametrize("sign", SIGNS_OF_LIFE)
def test_a_write_or_a_keepalive_lets_a_session_live_another_whole_time(client: Client, sign: str) -> None:
    session = opened(client, ttl_ms=1_000)
    client.put("a", b"1", numbered(session, 1))
    client.service.stamp_ms += 999
    headers = numbered(session, 2)
    match sign:
        case "put":
            answer = client.put("a", b"2", headers)
        case "delete":
            answer = client.delete("a", headers)
        case "txn":
            answer = client.post("/v1/txn", {}, headers)
        case "delete_range":
            answer = client.ask("DELETE", "/v1/kv?prefix=b", headers)
        case "keepalive":
            answer = client.post(f"/v1/sessions/{session}/keepalive")
        case _:
            answer = client.put("a", b"1", numbered(session, 1))
    assert answer.status in (200, 201)
    client.service.stamp_ms += 999
    assert client.put("a", b"3", numbered(session, 3)).status in (200, 201)
    client.get("a", headers=numbered(session, 4))
    client.service.stamp_ms += 1_000
    assert client.put("a", b"4", numbered(session, 4)).code == "session_expired"


def test_stored_answers_of_a_mebibyte_are_enough(client: Client) -> None:
    """faults 65: the answer that reaches the bound is still stored; the next number waits for an acknowledgement."""
    session = opened(client)
    client.service.fill({b"a": b"v" * (512 * 1024)})
    reading = {"success": [{"get": {"key": "a"}}]}
    assert [client.post("/v1/txn", reading, numbered(session, sequence)).status for sequence in (1, 2)] == [200, 200]
    refused = client.put("b", b"1", numbered(session, 3))
    assert (refused.status, refused.code) == (429, "too_many_unacknowledged")
    assert client.stored(b"b") is None
    again = client.post("/v1/txn", reading, numbered(session, 1))
    assert (again.status, again["Raftkv-Duplicate"]) == (200, "true")
    assert client.put("b", b"1", numbered(session, 3, acknowledged=1)).status == 201


def test_what_the_store_refuses_says_at_which_index(client: Client) -> None:
    """Every answer to a write says which log index it reflects, but no refusal is the repeat of another."""
    session = opened(client)
    client.put("a", b"1", numbered(session, 2, acknowledged=1))
    refusals = [
        client.put("a", b"2", numbered(session, 2)),
        client.put("a", b"2", numbered(session, 1)),
        client.put("a", b"2", numbered(f"{9:032x}", 1)),
        client.put("a", b"2", {"If-Match": '"9"'}),
        client.get("b"),
    ]
    assert [answer.status for answer in refusals] == [422, 409, 410, 412, 404]
    assert [answer["Raftkv-Applied-Index"] for answer in refusals] == ["3", "4", "5", "6", "6"]
    assert not any("Raftkv-Duplicate" in answer for answer in refusals)


def test_the_headers_become_the_numbering(client: Client) -> None:
    client.put("a", b"1", numbered("0123456789abcdef" * 2, 2**63 - 1, acknowledged=0))
    decoded = decode(client.service.submitted[0][0])
    assert decoded.numbered == Numbered(bytes.fromhex("0123456789abcdef" * 2), 2**63 - 1, 0)
    assert decoded.command == Put(b"a", b"1")


GOOD = "0" * 31 + "1"
HOSTILE_NUMBERS = ["", "0", "-1", "+1", "01", "1.0", "1e3", "0x1", "1,2", "1 2", "9223372036854775808", "9" * 5_000,
                   "١", "²", "1\u00a0", "one"]  # fmt: skip


@pytest.mark.parametrize("value", HOSTILE_NUMBERS)
def test_hostile_numbers_are_refused(client: Client, value: str) -> None:
    """faults 64: signs, leading zeros, foreign digits, endless ones."""
    hostile = value.encode().decode("latin-1")
    for method in ("PUT", "DELETE"):
        answer = client.ask(method, "/v1/kv/a", {"Raftkv-Session": GOOD, "Raftkv-Sequence": hostile})
        assert (answer.status, answer.code) == (400, "bad_request")
    if value != "0":
        headers = {**numbered(GOOD, 5), "Raftkv-Acknowledged": hostile}
        assert client.put("a", headers=headers).status == 400
    assert client.service.submitted == []


UNKNOWN_SESSIONS = ["x", "0" * 31, "0" * 33, "A" * 32, "g" * 32, "0x" + "0" * 30, "+" + "0" * 31, "é" * 16, "٠" * 32,
                    "00000000-0000-0000-0000-00000000", "0" * 9_000]  # fmt: skip


@pytest.mark.parametrize("session", UNKNOWN_SESSIONS)
def test_an_id_that_is_none_of_ours_is_an_unknown_session(client: Client, session: str) -> None:
    """faults 64: an id is 32 lower-case hexadecimal digits; any other is unknown, in headers and in paths."""
    hostile = session.encode().decode("latin-1")
    headers = {"Raftkv-Session": hostile, "Raftkv-Sequence": "1"}
    answers = [client.put("a", headers=headers), client.delete("a", headers), client.post("/v1/txn", {}, headers),
               client.ask("DELETE", "/v1/kv?prefix=a", headers)]  # fmt: skip
    path = f"/v1/sessions/{quote(session)}"
    answers += [client.post(f"{path}/keepalive"), client.ask("DELETE", path)]
    assert {(answer.status, answer.code) for answer in answers} == {(410, "session_expired")}
    assert client.service.submitted == []


@pytest.mark.parametrize("session", ["", f"{GOOD}, {GOOD}"])
def test_no_session_and_two_sessions_are_refused(client: Client, session: str) -> None:
    assert client.put("a", headers={"Raftkv-Session": session, "Raftkv-Sequence": "1"}).code == "bad_request"
    assert client.service.submitted == []


def test_an_id_may_be_escaped_in_a_path(client: Client) -> None:
    session = opened(client)
    escaped = "".join(f"%{ord(digit):02x}" for digit in session)
    assert client.post(f"/v1/sessions/{escaped}/keepalive").status == 200
    assert client.ask("DELETE", f"/v1/sessions/{escaped}").status == 200
    assert client.ask("DELETE", "/v1/sessions/%zz").code == "bad_request"


@pytest.mark.parametrize(
    "headers",
    [{"Raftkv-Session": GOOD}, {"Raftkv-Sequence": "1"}, {"Raftkv-Acknowledged": "1"},
     {"Raftkv-Session": GOOD, "Raftkv-Acknowledged": "1"}, {"Raftkv-Sequence": "1", "Raftkv-Acknowledged": "1"}],
)  # fmt: skip
def test_half_a_numbering_is_refused(client: Client, headers: dict[str, str]) -> None:
    assert client.put("a", headers=headers).status == 400
    assert client.delete("a", headers=headers).status == 400
    assert client.service.submitted == []


def test_repeated_numbering_headers_are_refused(client: Client) -> None:
    headers = [("Raftkv-Session", GOOD), ("Raftkv-Sequence", "1"), ("raftkv-sequence", "2")]
    assert client.ask("PUT", "/v1/kv/a", headers, b"v").status == 400


def test_header_names_have_no_case(client: Client) -> None:
    session = opened(client)
    assert client.put("a", headers={"RAFTKV-SESSION": session, "raftkv-sequence": "1"}).status == 201


def test_session_requests_are_not_numbered(client: Client) -> None:
    for method, path in (("POST", "/v1/sessions"), ("POST", f"/v1/sessions/{GOOD}/keepalive"),
                         ("DELETE", f"/v1/sessions/{GOOD}")):  # fmt: skip
        assert client.ask(method, path, numbered(GOOD, 1)).status == 400
    assert client.service.submitted == []


def test_the_commands_are_what_was_asked_for(client: Client) -> None:
    client.post("/v1/sessions", {"ttl_ms": 2_000})
    client.post(f"/v1/sessions/{GOOD}/keepalive", {})
    commands = [decode(command).command for command, _ in client.service.submitted]
    assert commands == [OpenSession(bytes.fromhex(GOOD), 2_000), KeepAlive(bytes.fromhex(GOOD))]
