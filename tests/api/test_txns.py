"""http-api "Keys", from "POST /v1/txn, JSON or msgpack" on: compares, operations, results, refusals."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgpack
import pytest

from raftkv.api.settings import ApiSettings
from raftkv.kv.answers import TooLarge
from raftkv.kv.commands import (
    OPERATIONS_MAX,
    Compare,
    Delete,
    DeleteRange,
    Numbered,
    Op,
    Put,
    ReadKey,
    ReadRange,
    Target,
    Txn,
    decode,
)
from raftkv.outcomes import Applied, Refused, Superseded, Unknown, Why
from tests.api.conftest import api_of
from tests.api.fronts import Answer, Client, PureClient
from tests.api.service import FOLLOWS, LEADERLESS, LEADS, FakeService

JSON = {"Content-Type": "application/json"}
PACKED = {"Content-Type": "application/msgpack"}
RAW = {**PACKED, "Accept": "application/msgpack"}
MIB = 1024 * 1024


def txn(client: Client, *success: dict[str, Any], query: str = "", **more: Any) -> Answer:
    return client.post("/v1/txn" + query, {"success": list(success), **more})


def packed(client: Client, fields: Any, headers: dict[str, str] = RAW) -> Answer:
    return client.ask("POST", "/v1/txn", headers, msgpack.packb(fields))


def submitted(client: Client) -> Any:
    ((command, _),) = client.service.submitted
    return decode(command).command


def put(key: str, value: str = "v") -> dict[str, Any]:
    return {"put": {"key": key, "value": value}}


class TestResults:
    def test_every_operation_has_its_result_in_order(self, client: Client) -> None:
        client.service.fill({b"a": b"1", b"r1": b"x", b"r2": b"y", b"r3": b"\xff", b"s": b""})
        answer = txn(
            client,
            put("a", "2"),
            {"get": {"key": "a"}},
            {"delete": {"key": "s"}},
            {"delete": {"key": "t"}},
            {"range": {"prefix": "r", "limit": 2, "reverse": True}},
            {"delete_range": {"start": "r", "end": "r3", "limit": 1}},
            {"range": {"prefix": "r", "keys_only": True}},
            {"get": {"key": "gone"}},
        )
        r2, r3 = ({"create_revision": at, "mod_revision": at, "version": 1} for at in (3, 4))
        assert (answer.status, answer["Content-Type"], answer["Raftkv-Applied-Index"]) == (200, "application/json", "6")
        assert answer.json == {
            "succeeded": True,
            "results": [
                {"put": {"revision": 6, "version": 2}},
                {"get": {"key": "a", "value": "2", "create_revision": 1, "mod_revision": 6, "version": 2}},
                {"delete": {"deleted": 1}},
                {"delete": {"deleted": 0}},
                {"range": {"items": [{"key": "r3", "value_base64": "/w==", **r3}, {"key": "r2", "value": "y", **r2}],
                           "more": True}},
                {"delete_range": {"deleted": 1, "more": True}},
                {"range": {"items": [{"key": "r2", **r2}, {"key": "r3", **r3}], "more": False}},
                {"get": None},
            ],
            "revision": 6,
        }  # fmt: skip

    def test_a_branch_is_atomic_and_of_one_revision(self, client: Client) -> None:
        answer = txn(client, put("a"), put("b"), {"delete": {"key": "c"}})
        assert answer.body == (
            b'{"succeeded":true,"results":[{"put":{"revision":1,"version":1}},{"put":{"revision":1,"version":1}},'
            b'{"delete":{"deleted":0}}],"revision":1}'
        )
        assert client.stored(b"a") == client.stored(b"b") == b"v"

    def test_if_a_compare_does_not_hold_the_other_branch_is_executed(self, client: Client) -> None:
        client.put("a", b"1")
        compare = [{"key": "a", "target": "value", "op": "==", "operand": "1"}]
        for wanted, succeeded in (("x", True), ("y", False)):
            answer = txn(client, put("a", "2"), compare=compare, failure=[{"get": {"key": "a"}}])
            assert (answer.status, answer.json["succeeded"]) == (200, succeeded), wanted
        assert answer.json["results"][0]["get"]["value"] == "2"

    @pytest.mark.parametrize("body", [None, b"", b"{}", b'{"compare":[],"success":[],"failure":[]}'])
    def test_missing_lists_are_empty(self, client: Client, body: bytes | None) -> None:
        client.put("a")
        answer = client.ask("POST", "/v1/txn", JSON if body else None, body)
        assert (answer.status, answer.body) == (200, b'{"succeeded":true,"results":[],"revision":1}')

    def test_what_changes_nothing_makes_no_revision(self, client: Client) -> None:
        client.put("a")
        answer = txn(client, {"get": {"key": "a"}}, {"delete": {"key": "b"}}, {"delete_range": {"prefix": "c"}})
        assert answer.json["revision"] == 1

    def test_the_keys_dot_and_dot_dot_go_through_here(self, client: Client) -> None:
        answer = txn(client, put(".", "1"), put("..", "2"), {"get": {"key": ".."}})
        assert answer.json["results"][2]["get"]["value"] == "2"
        assert client.stored(b".") == b"1"

    def test_bytes_are_shown_as_in_ranges(self, client: Client) -> None:
        client.service.fill({b"\xff": b"\xfe", b"a": b"1"})
        reads: list[dict[str, Any]] = [{"get": {"key_base64": "/w=="}}, {"get": {"key": "a"}}, {"range": {}}]
        shown, encoded = (txn(client, *reads, query=query).json["results"] for query in ("", "?encoding=base64"))
        assert (shown[0]["get"]["key_base64"], shown[0]["get"]["value_base64"]) == ("/w==", "/g==")
        assert (shown[1]["get"]["key"], shown[1]["get"]["value"]) == ("a", "1")
        assert (encoded[1]["get"]["key_base64"], encoded[1]["get"]["value_base64"]) == ("YQ==", "MQ==")
        assert encoded[2]["range"]["items"] == [encoded[1]["get"], encoded[0]["get"]]

    def test_msgpack_takes_and_shows_raw_bytes(self, client: Client) -> None:
        client.service.fill({b"\xff": b"\xfe"})
        answer = packed(client, {
            "compare": [{"key": b"\xff", "target": "value", "op": "==", "operand": b"\xfe"}],
            "success": [{"put": {"key": b"\xfe", "value": b"\xfd"}}, {"get": {"key": b"\xff"}}, {"get": {"key": "x"}},
                        {"range": {"start": b"\xfe", "end": b"\xff", "keys_only": True}}, {"delete": {"key": b"\xff"}},
                        {"delete_range": {"prefix": b"\xf0"}}],
        })  # fmt: skip
        assert answer["Content-Type"] == "application/msgpack"
        item = {"key": b"\xff", "value": b"\xfe", "create_revision": 1, "mod_revision": 1, "version": 1}
        assert msgpack.unpackb(answer.body) == {
            "succeeded": True,
            "results": [
                {"put": {"revision": 2, "version": 1}}, {"get": item}, {"get": None},
                {"range": {"items": [{"key": b"\xfe", "create_revision": 2, "mod_revision": 2, "version": 1}],
                           "more": False}},
                {"delete": {"deleted": 1}}, {"delete_range": {"deleted": 0, "more": False}},
            ],
            "revision": 2,
        }  # fmt: skip

    def test_body_and_answer_may_be_of_different_types(self, client: Client) -> None:
        assert packed(client, {"success": [put("a")]}, PACKED).json["succeeded"] is True
        answer = client.ask("POST", "/v1/txn", {**JSON, "Accept": "application/msgpack"}, b"{}")
        assert msgpack.unpackb(answer.body) == {"succeeded": True, "results": [], "revision": 1}


COMPARES = [
    ("a", "value", "==", "m", True), ("a", "value", "==", "mm", False), ("a", "value", "!=", "n", True),
    ("a", "value", "!=", "m", False), ("a", "value", "<", "n", True), ("a", "value", "<", "m", False),
    ("a", "value", ">", "M", True), ("a", "value", ">", "m", False), ("a", "value", ">", "", True),
    ("a", "value", "<", "\u00ff", True), ("a", "version", "==", 2, True), ("a", "version", "!=", 2, False),
    ("a", "version", ">", 1, True), ("a", "version", "<", 2, False), ("a", "create_revision", "==", 1, True),
    ("a", "create_revision", "<", 2, True), ("a", "mod_revision", "==", 2, True), ("a", "mod_revision", ">", 2, False),
    ("no", "version", "==", 0, True), ("no", "create_revision", "==", 0, True), ("no", "mod_revision", "<", 1, True),
    ("no", "version", ">", 0, False), ("no", "value", "==", "", False), ("no", "value", "!=", "x", False),
    ("no", "value", "<", "x", False), ("no", "value", ">", "", False), ("a", "version", "<", 2**63 - 1, True),
]  # fmt: skip


@pytest.mark.parametrize(("key", "target", "op", "operand", "holds"), COMPARES)
def test_a_compare_holds_or_not(client: Client, key: str, target: str, op: str, operand: Any, holds: bool) -> None:
    """Of an absent key version and revisions are 0, and a comparison of its value is false; values compare bytewise."""
    client.put("a", b"l")
    client.put("a", b"m")
    answer = txn(client, compare=[{"key": key, "target": target, "op": op, "operand": operand}])
    assert answer.json["succeeded"] is holds


def test_all_compares_must_hold(client: Client) -> None:
    holds = {"key": "a", "target": "version", "op": "==", "operand": 0}
    assert txn(client, compare=[holds, holds]).json["succeeded"] is True
    assert txn(client, compare=[holds, {**holds, "op": "!="}, holds]).json["succeeded"] is False


class TestCommand:
    def test_it_is_what_was_asked_for(self, client: Client) -> None:
        session = "0123456789abcdef" * 2
        fields = {
            "compare": [
                {"key": "a", "target": "value", "op": "<", "operand_base64": "/w=="},
                {"key_base64": "Yg==", "target": "mod_revision", "op": "!=", "operand": 7},
            ],
            "success": [
                {"put": {"key": "p", "value": ""}}, {"put": {"key_base64": "/w==", "value_base64": "AA=="}},
                {"get": {"key": "g"}}, {"delete": {"key_base64": "ZA=="}}, {"range": {}},
                {"range": {"prefix": "x", "limit": 10_000, "reverse": True, "keys_only": True}},
                {"range": {"start": "x", "end": "y"}}, {"range": {"prefix_base64": "/w=="}},
                {"range": {"start_base64": "AA==", "end_base64": "/w=="}},
                {"delete_range": {"prefix": "q", "limit": 10_000}},
            ],
            "failure": [{"delete_range": {"all": True}}],
        }  # fmt: skip
        headers = {"Raftkv-Session": session, "Raftkv-Sequence": "2", "Raftkv-Acknowledged": "1"}
        assert client.post("/v1/txn", fields, headers).status == 410
        assert submitted(client) == Txn(
            (Compare(b"a", Target.VALUE, Op.LESS, b"\xff"), Compare(b"b", Target.MOD_REVISION, Op.UNEQUAL, 7)),
            (
                Put(b"p", b""), Put(b"\xff", b"\0"), ReadKey(b"g"), Delete(b"d"), ReadRange(b"", None, 1_000),
                ReadRange(b"x", b"y", 10_000, True, True), ReadRange(b"x", b"y", 1_000),
                ReadRange(b"\xff", None, 1_000),
                ReadRange(b"\0", b"\xff", 1_000), DeleteRange(b"q", b"r", 10_000),
            ),
            (DeleteRange(b"", None, 10_000),),
        )  # fmt: skip
        assert decode(client.service.submitted[0][0]).numbered == Numbered(bytes.fromhex(session), 2, 1)

    @pytest.mark.parametrize(
        ("operation", "frees_space"),
        [(put("a"), False), ({"delete": {"key": "a"}}, True), ({"delete_range": {"prefix": "a"}}, True)],
    )
    def test_what_puts_nothing_is_taken_when_the_disk_is_short(
        self, client: Client, operation: dict[str, Any], frees_space: bool
    ) -> None:
        txn(client, failure=[operation])
        assert [frees for _, frees in client.service.submitted] == [frees_space]

    def test_a_repeated_number_gets_the_first_answer(self, client: Client) -> None:
        """faults 47: reads too show what they showed then."""
        session = client.post("/v1/sessions", {}).json["session"]
        headers = {"Raftkv-Session": session, "Raftkv-Sequence": "1"}
        fields = {"success": [{"get": {"key": "a"}}, {"range": {}}, put("a")]}
        first = client.post("/v1/txn", fields, headers)
        client.put("b")
        again = client.post("/v1/txn", fields, headers)
        assert again.body == first.body
        assert (again["Raftkv-Duplicate"], again["Raftkv-Applied-Index"]) == ("true", first["Raftkv-Applied-Index"])
        other = client.post("/v1/txn", {**fields, "failure": [put("a")]}, headers)
        assert (other.status, other.code) == (422, "sequence_reused")
        one_more = client.post("/v1/txn", fields, {**headers, "Accept": "application/msgpack"})
        assert one_more["Content-Type"] == "application/msgpack"  # the answer is the same, its form was not asked for

    @pytest.mark.parametrize("led", [FOLLOWS, LEADERLESS])
    def test_a_follower_executes_nothing(self, client: Client, led: Any) -> None:
        client.service.led = led
        answer = txn(client, put("a"), query="?encoding=base64")
        assert answer.code == ("not_leader" if led is FOLLOWS else "no_leader")
        assert led is LEADERLESS or answer["Location"] == "http://n2.test:7402/v1/txn?encoding=base64"
        assert client.service.submitted == []

    OUTCOMES: list[tuple[Any, str]] = [
        (Superseded(), "superseded"), (Unknown(), "outcome_unknown"), (Refused(Why.OVERLOADED, LEADS), "overloaded"),
        (Refused(Why.DISK_FULL, LEADS), "disk_full"), (Refused(Why.SHUTTING_DOWN, LEADS), "shutting_down"),
        (Applied(3, TooLarge(9, 8)), "too_large"),
    ]  # fmt: skip

    @pytest.mark.parametrize(("outcome", "code"), OUTCOMES)
    def test_what_becomes_of_a_transaction(self, client: Client, outcome: Any, code: str) -> None:
        client.service.forced_writes.append(outcome)
        answer = packed(client, {"success": [put("a")]})
        assert (answer.code, answer["Content-Type"]) == (code, "application/problem+json")


VALUE = {"key": "a", "target": "value", "op": "==", "operand": "x"}
NUMBER = {"key": "a", "target": "version", "op": "==", "operand": 1}
WRONG_LISTS: list[Any] = [None, {}, "x", 1, [None], [1], [[]], ["x"], [{}]]
WRONG_OPERATIONS: list[dict[str, Any]] = [
    {"put": {"key": "a"}}, {"put": {"value": "a"}}, {"put": {"key": "a", "value": None}}, {"put": {"key": "a",
    "value": 1}},
    {"put": {"key": "a", "value": "a", "value_base64": "YQ=="}}, {"put": {"key": "a", "value": "a", "lease": 1}},
    {"put": None}, {"put": []}, {"put": {}}, {"put": "a"}, {"Put": {"key": "a", "value": "b"}}, {"cas": {}},
    {"put": {"key": "a", "value": "b"}, "get": {"key": "a"}}, {"get": {}}, {"get": {"key": ""}},
    {"get": {"key": "a", "x": 1}},
    {"get": "a"}, {"get": {"key": "a", "value": "b"}}, {"delete": {"key": 7}}, {"delete": {"key_base64": "YQ"}},
    {"delete": {"key_base64": "Y Q=="}}, {"delete": {"key_base64": "_w=="}}, {"delete": {"key_base64": 1}},
    {"delete": {"key_base64": ""}}, {"delete": {"key_base64": "\u0661"}}, {"delete": {"key_base64": None}},
    {"delete": {"key_base64": "/" * 5468}}, {"range": None}, {"range": {"limit": 0}}, {"range": {"limit": 10_001}},
    {"range": {"limit": "1"}}, {"range": {"limit": True}}, {"range": {"limit": None}}, {"range": {"reverse": 1}},
    {"range": {"keys_only": "true"}}, {"range": {"prefix": "a", "start": "b"}}, {"range": {"prefix": "a", "end": "b"}},
    {"range": {"prefix": 1}}, {"range": {"prefix": "a", "prefix_base64": "YQ=="}}, {"range": {"end": ""}},
    {"range": {"prefix": "p" * 4097}}, {"range": {"start": "s" * 4098}}, {"range": {"cursor": "x"}},
    {"range": {"all": True}},
    {"range": {"bytes_max": 1}}, {"delete_range": {}}, {"delete_range": {"prefix": ""}},
    {"delete_range": {"start": ""}},
    {"delete_range": {"start": "", "end": "b"}}, {"delete_range": {"end": ""}}, {"delete_range": {"all": False}},
    {"delete_range": {"all": True, "prefix": "a"}}, {"delete_range": {"all": "true"}}, {"delete_range": {"all": 1}},
    {"delete_range": {"prefix": "a", "limit": 0}}, {"delete_range": {"prefix": "a", "reverse": True}},
    {"delete_range": {"prefx": "a"}}, {"delete_range": {"prefix": "a", "keys_only": True}},
]  # fmt: skip
BAD_PARTS: list[dict[str, Any]] = [
    *({name: wrong} for name in ("compare", "success", "failure") for wrong in WRONG_LISTS),
    *({"compare": [{**VALUE, **change}]} for change in (
        {"key": None}, {"key": 1}, {"key": ""}, {"key": "k" * 4097}, {"key": ["a"]}, {"key_base64": "YQ=="},
        {"target": "Value"}, {"target": None}, {"target": 1}, {"target": ["value"]}, {"op": "="}, {"op": "<="},
        {"op": None},
        {"operand": 1}, {"operand": None}, {"operand": True}, {"operand_base64": "YQ=="}, {"x": 1}, {"operand": ["x"]},
    )),
    *({"compare": [{name: value for name, value in VALUE.items() if name != left_out}]} for left_out in VALUE),
    *({"compare": [{**NUMBER, **change}]} for change in (
        {"operand": "1"}, {"operand": -1}, {"operand": 2**63}, {"operand": 1.5}, {"operand": True}, {"operand": None},
        {"operand_base64": "AQ=="}, {"operand": 1e30},
    )),
    *({"success": [operation]} for operation in WRONG_OPERATIONS),
    {"then": []}, {"Success": []}, {"success": [put("b"), {"put": {"key": "a"}}]},
]  # fmt: skip


class TestRefusals:
    def test_what_is_not_understood_is_refused_in_both_languages(self, client: Client) -> None:
        """faults 64: a 4xx that says where, and nothing is executed."""
        for fields in BAD_PARTS:
            for headers, body in ((JSON, json.dumps(fields).encode()), (PACKED, msgpack.packb(fields))):
                answer = client.ask("POST", "/v1/txn", headers, body)
                assert (answer.status, answer.code) == (400, "bad_request"), fields
        assert client.service.submitted == []

    def test_the_refusal_says_where(self, client: Client) -> None:
        for fields, says in (
            ({"success": [put("a"), {"put": {"key": "b"}}]}, "success[1].put: value is missing"),
            ({"failure": [{"get": {"kye": "b"}}]}, "failure[0].get: unknown field 'kye'"),
            ({"compare": [NUMBER, VALUE, {**NUMBER, "op": "=>"}]}, "compare[2]: op is one of ==, !=, <, >"),
            ({"success": [{"del": {}}]}, "success[0]: an operation is an object with one field, of put, get, delete"),
        ):
            assert says in client.post("/v1/txn", fields).json["detail"]

    DOUBLED = [
        ([put("a"), put("a")], "a"), ([put("a"), {"delete": {"key_base64": "YQ=="}}], "a"),
        ([{"delete": {"key": "b"}}, put("a"), {"delete": {"key": "b"}}], "b"),
        ([put("ab"), {"delete_range": {"prefix": "a"}}], "ab"), ([{"delete_range": {"all": True}}, put("x")], "x"),
        ([{"delete_range": {"prefix": "a"}}, {"delete_range": {"start": "ab", "end": "b"}}], "ab"),
        ([put("a"), {"delete_range": {"prefix": "a", "limit": 1}}], "a"),
    ]  # fmt: skip

    @pytest.mark.parametrize(("operations", "key"), DOUBLED)
    @pytest.mark.parametrize("branch", ["success", "failure"])
    def test_a_key_is_written_at_most_once(
        self, client: Client, branch: str, operations: list[dict[str, Any]], key: str
    ) -> None:
        answer = client.post("/v1/txn", {branch: operations})
        assert (answer.status, answer.code, answer.json["key"]) == (400, "duplicate_key", key)
        assert branch in answer.json["detail"]
        assert client.service.submitted == []

    FINE = [
        [put("a"), {"get": {"key": "a"}}, {"get": {"key": "a"}}, {"range": {"prefix": "a"}}],
        [put("a"), {"delete_range": {"prefix": "b"}}, put("c")],
        [{"delete_range": {"start": "a", "end": "b"}}, {"delete_range": {"start": "b", "end": "c"}}, put("c")],
        [put("a"), {"delete_range": {"start": "b", "end": "a"}}],
    ]  # fmt: skip

    @pytest.mark.parametrize("operations", FINE)
    def test_a_key_may_be_read_often_and_written_in_both_branches(
        self, client: Client, operations: list[dict[str, Any]]
    ) -> None:
        assert client.post("/v1/txn", {"success": operations, "failure": operations}).status == 200

    @pytest.mark.parametrize("header", ["If-Match", "If-None-Match"])
    def test_conditions_are_refused(self, client: Client, header: str) -> None:
        assert client.ask("POST", "/v1/txn", {**JSON, header: "*"}, b"{}").status == 400
        assert client.service.submitted == []

    @pytest.mark.parametrize(
        "headers", [{"Raftkv-Session": "0" * 32}, {"Raftkv-Sequence": "1"}, {"Raftkv-Acknowledged": "1"}]
    )
    def test_half_a_numbering_is_refused(self, client: Client, headers: dict[str, str]) -> None:
        assert client.post("/v1/txn", {}, headers).status == 400

    @pytest.mark.parametrize("query", ["?x=1", "?consistency=stale", "?encoding=raw", "?limit=1"])
    def test_unknown_query_parameters_are_refused(self, client: Client, query: str) -> None:
        assert txn(client, put("a"), query=query).status == 400
        assert client.service.submitted == []

    def test_other_types_of_body_are_refused(self, client: Client) -> None:
        for headers in (None, {"Content-Type": "text/plain"}, {"Content-Type": "application/x-www-form-urlencoded"}):
            assert client.ask("POST", "/v1/txn", headers, b"{}").code == "unsupported_media_type"
        assert client.ask("POST", "/v1/txn", {**JSON, "Content-Encoding": "gzip"}, b"{}").status == 415
        assert client.service.submitted == []

    def test_a_surrogate_is_no_text(self, client: Client) -> None:
        body = b'{"success":[{"put":{"key":"\\ud800","value":"v"}}]}'
        assert client.ask("POST", "/v1/txn", JSON, body).status == 400
        whole = body.replace(b"\\ud800", b"\\ud83d\\ude00")
        assert client.ask("POST", "/v1/txn", JSON, whole).status == 200
        assert client.stored("😀".encode()) == b"v"

    def test_a_whole_number_may_be_written_as_a_float_in_json(self, client: Client) -> None:
        for written, status in (("1.0", 200), ("1e0", 200), ("1.5", 400), ("9007199254740993.0", 400), ("1e999", 400)):
            body = json.dumps({"compare": [{**NUMBER, "operand": "?"}]}).replace('"?"', written).encode()
            assert client.ask("POST", "/v1/txn", JSON, body).status == status, written


class TestLimits:
    def test_a_transaction_has_at_most_128_operations_and_as_many_compares(self, client: Client) -> None:
        compares, gets = [NUMBER] * 128, [{"get": {"key": "a"}}] * 64
        fields = {"compare": compares, "success": gets, "failure": gets}
        for more in ({"compare": [*compares, NUMBER]}, {"failure": [*gets, put("a")]}, {"success": [put("a")] * 129}):
            answer = client.post("/v1/txn", {**fields, **more})
            assert (answer.status, answer.code) == (413, "too_large")
        assert client.service.submitted == []
        assert client.post("/v1/txn", fields).status == 200
        assert txn(client, *[put(str(number)) for number in range(OPERATIONS_MAX)], compare=compares).status == 200

    @pytest.mark.parametrize("headers", [JSON, PACKED])
    def test_the_largest_transaction_has_not_too_many_values(self, client: Client, headers: dict[str, str]) -> None:
        """faults 64: bodies are refused for how many values they hold, but never one within the other limits."""
        ranges = [{"range": {"start": "a", "end": "b", "limit": 1, "reverse": True, "keys_only": True}}] * 128
        fields = {"compare": [NUMBER] * 128, "success": ranges, "failure": []}
        body = json.dumps(fields).encode() if headers is JSON else msgpack.packb(fields)
        assert client.ask("POST", "/v1/txn", headers, body).status == 200

    @pytest.mark.parametrize("size", [4096, 4097])
    def test_a_key_has_at_most_4096_bytes(self, client: Client, size: int) -> None:
        keys = ["k" * size, "é" * (size // 2) + "k" * (size % 2)]
        statuses = {txn(client, {"get": {"key": key}}).status for key in keys}
        statuses.add(packed(client, {"success": [{"get": {"key": b"\xff" * size}}]}).status)
        statuses.add(txn(client, {"get": {"key_base64": base64.b64encode(b"k" * size).decode()}}).status)
        assert statuses == ({200} if size == 4096 else {400})

    def test_a_value_has_at_most_a_mebibyte(self, client: Client) -> None:
        assert txn(client, put("a", "v" * MIB)).status == 200
        answer = txn(client, put("b"), put("a", "v" * (MIB + 1)))
        assert (answer.status, answer.code) == (413, "too_large")
        assert client.stored(b"b") is None

    @pytest.mark.parametrize("packing", ["json", "base64", "msgpack"])
    def test_keys_and_values_have_2_mib_in_all(self, client: Client, packing: str) -> None:
        """Both ends, whatever the body is written in: 127 values and keys, and the bytes of the last."""
        size = 2 * MIB // OPERATIONS_MAX - 3
        for over, status in ((0, 200), (1, 413)):
            values = [b"v" * size] * (OPERATIONS_MAX - 1) + [b"v" * (size + over)]
            answer = self._put_all(client, packing, values)
            assert answer.status == status, (over, answer.body[:200])
        assert answer.code == "too_large"
        assert len(client.service.submitted) == 1

    @staticmethod
    def _put_all(client: Client, packing: str, values: list[bytes]) -> Answer:
        named = [(f"{number:03}", value) for number, value in enumerate(values)]
        if packing == "msgpack":
            return packed(client, {"success": [{"put": {"key": key, "value": value}} for key, value in named]})
        if packing == "json":
            return txn(client, *[put(key, value.decode()) for key, value in named])
        encoded = [(key, base64.b64encode(value).decode()) for key, value in named]
        return txn(client, *[{"put": {"key": key, "value_base64": value}} for key, value in encoded])

    def test_both_branches_and_operands_count(self, client: Client) -> None:
        half = "v" * (MIB - 1)
        assert txn(client, put("a", half), failure=[put("a", half)]).status == 200
        operand = {**VALUE, "operand": "vv"}
        for more in ({"compare": [operand]}, {"failure": [put("a", half), {"get": {"key": "b"}}]}):
            assert (
                client.post("/v1/txn", {"success": [put("a", half)], "failure": [put("a", half)], **more}).status == 413
            )

    def test_a_body_has_at_most_3_mib(self, client: Client) -> None:
        body = b'{"success":[]' + b" " * (3 * MIB - 14) + b"}"
        assert client.ask("POST", "/v1/txn", JSON, body).status == 200
        assert client.ask("POST", "/v1/txn", JSON, body + b" ").status == 413

    def test_what_is_replaced_and_read_counts_too(self, client: Client) -> None:
        client.service.fill({b"a": b"v" * MIB, b"b": b"v" * MIB})
        answer = txn(client, put("a", ""), put("b", ""))
        assert (answer.status, answer.code) == (413, "too_large")
        assert client.stored(b"a") == b"v" * MIB
        assert answer["Raftkv-Applied-Index"] == "3"

    def test_a_range_stops_where_nothing_is_left_to_touch(self, client: Client) -> None:
        client.service.fill({b"%05d" % number: b"" for number in range(10_001)})
        counts = txn(
            client, {"range": {"limit": 9_999}}, {"range": {"limit": 10}}, {"delete_range": {"all": True}}
        ).json
        assert [result.popitem()[1]["more"] for result in counts["results"]] == [True, True, True]

    def test_a_smaller_limit_of_values_holds_here_too(self) -> None:
        service = FakeService()
        client = PureClient(api_of(service, ApiSettings(max_value_bytes=3)), service)
        assert [txn(client, put("a", value)).status for value in ("123", "1234")] == [200, 413]
