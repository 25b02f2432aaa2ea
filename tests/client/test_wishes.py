"""What goes out for each method, byte for byte, and what is made of answers."""

from __future__ import annotations

import json
from base64 import b64encode

import msgpack
import pytest

from raftkv.client import wishes
from raftkv.client.attempts import Kind, Whom
from raftkv.client.results import (
    DeleteDone,
    Item,
    PutDone,
    TxnDelete,
    TxnDeleteRange,
    TxnDone,
    TxnGet,
    TxnPut,
    TxnRange,
)
from raftkv.client.txn import Compare, Op, as_bytes, bounds, refuse_everything_unasked
from raftkv.client.wishes import Condition, Freshness, Unintelligible
from raftkv.errors import ConditionFailed
from raftkv.http.exchange import HttpAnswer, encode_request
from raftkv.problems import Code
from tests.client.answers import JSON, problem, put_done

ANY = Condition()
MSGPACK = {b"content-type": b"application/msgpack"}


def packed(fields: object, status: int = 200) -> HttpAnswer:
    return HttpAnswer(status, dict(MSGPACK), msgpack.packb(fields))


@pytest.mark.parametrize(
    ("key", "target"),
    [
        (b"k", b"/v1/kv/k"),
        (b"a/b", b"/v1/kv/a%2Fb"),
        (b"a/../b", b"/v1/kv/a%2F..%2Fb"),
        (b"...", b"/v1/kv/..."),
        (b"+ %?#", b"/v1/kv/%2B%20%25%3F%23"),
        (b"\x00\xff", b"/v1/kv/%00%FF"),
        ("ä".encode(), b"/v1/kv/%C3%A4"),
        (b"%2e", b"/v1/kv/%252e"),
    ],
)
def test_a_key_s_path_is_its_bytes_and_nothing_that_could_be_normalised(key, target):
    assert wishes.put(key, b"v", ANY).target == target
    assert wishes.delete(key, ANY).target == target
    assert wishes.get(key, Freshness()).target == target


@pytest.mark.parametrize(
    ("condition", "fields"),
    [
        (ANY, b""),
        (Condition(7), b'If-Match: "7"\r\n'),
        (Condition(0), b"If-None-Match: *\r\n"),
        (Condition(absent=True), b"If-None-Match: *\r\n"),
        (Condition(present=True), b"If-Match: *\r\n"),
    ],
)
def test_conditions_are_http_s_own(condition, fields):
    assert wishes.put(b"k", b"v", condition).fields == fields
    assert wishes.delete(b"k", condition).fields == fields


@pytest.mark.parametrize(
    "condition",
    [{"revision": 1, "absent": True}, {"absent": True, "present": True}, {"revision": -1}, {"revision": True}],
)
def test_a_condition_that_cannot_be_meant_is_refused(condition):
    with pytest.raises(ValueError):
        Condition(**condition)


@pytest.mark.parametrize("key", [b".", b".."])
@pytest.mark.parametrize(
    ("condition", "compare"),
    [
        (ANY, []),
        (Condition(7), [("mod_revision", "==", 7)]),
        (Condition(0), [("version", "==", 0)]),
        (Condition(absent=True), [("version", "==", 0)]),
        (Condition(present=True), [("version", ">", 0)]),
    ],
)
def test_keys_that_look_like_a_way_up_go_in_bodies(key, condition, compare):
    put, delete, get = wishes.put(key, b"v", condition), wishes.delete(key, condition), wishes.get(key, Freshness())
    for wish in (put, delete):
        assert (wish.method, wish.target, wish.kind) == (b"POST", b"/v1/txn", Kind.NUMBERED)
        asked = msgpack.unpackb(wish.body)
        assert [(one["target"], one["op"], one["operand"]) for one in asked["compare"]] == compare
        assert asked["failure"] == [{"get": {"key": key}}]
    assert msgpack.unpackb(put.body)["success"] == [{"put": {"key": key, "value": b"v"}}, {"get": {"key": key}}]
    assert get.target == b"/v1/kv?start=" + key + b"&end=" + key + b"%00&limit=1"
    item = {"key": key, "value": b"v", "create_revision": 2, "mod_revision": 3, "version": 2}
    done = {"succeeded": True, "results": [{"put": {"revision": 3, "version": 2}}, {"get": item}], "revision": 3}
    assert put.read(packed(done)) == PutDone(3, 2, 2)
    done = {"succeeded": True, "results": [{"delete": {"deleted": 1}}], "revision": 4}
    assert delete.read(packed(done)) == DeleteDone(deleted=True, revision=4)
    assert get.read(packed({"items": [item], "revision": 3, "more": False})) == Item(key, b"v", 2, 3, 2)
    assert get.read(packed({"items": [], "revision": 3, "more": False})) is None
    for held, mod_revision in ((item, 3), (None, 0)):
        with pytest.raises(ConditionFailed) as failed:
            put.read(packed({"succeeded": False, "results": [{"get": held}], "revision": 9}))
        assert (failed.value.mod_revision, failed.value.revision) == (mod_revision, 9)


@pytest.mark.parametrize(
    ("fresh", "query", "whom"),
    [
        (Freshness(), b"", Whom.LEADER),
        (Freshness("lease"), b"?consistency=lease", Whom.LEADER),
        (Freshness("follower"), b"?consistency=follower", Whom.ANYBODY),
        (Freshness("stale"), b"?consistency=stale", Whom.ANYBODY),
        (Freshness("stale", min_index=0), b"?consistency=stale", Whom.ANYBODY),
        (
            Freshness("stale", max_staleness_ms=50, min_index=9),
            b"?consistency=stale&min_index=9&max_staleness_ms=50",
            Whom.ANYBODY,
        ),
    ],
)
def test_freshness_is_asked_for(fresh, query, whom):
    for wish in (wishes.get(b"k", fresh), wishes.range_page({}, fresh)):
        assert (wish.target.partition(b"?")[2], wish.whom, wish.kind) == (query[1:], whom, Kind.READ)


@pytest.mark.parametrize("wrong", [{"consistency": "strong"}, {"consistency": "follower", "max_staleness_ms": 5}])
def test_freshness_that_cannot_be_meant_is_refused(wrong):
    with pytest.raises(ValueError):
        Freshness(**wrong)


def test_a_range_is_asked_for_by_its_bounds_and_then_by_cursor():
    first = wishes.range_page({"prefix": b"a/\xff&"}, Freshness(), limit=5, reverse=True, keys_only=True)
    assert first.target == b"/v1/kv?prefix=a%2F%FF%26&reverse=true&limit=5&keys_only=true"
    later = wishes.range_page({"prefix": b"a"}, Freshness(), limit=5, reverse=True, cursor="a+/=b")
    assert later.target == b"/v1/kv?cursor=a%2B%2F%3Db&limit=5"
    assert b"Accept: application/msgpack\r\n" in first.fields
    page = first.read(packed({"items": [], "revision": 4, "more": True, "next": "c"}))
    assert (page.items, page.revision, page.next) == ((), 4, "c")
    assert first.read(packed({"items": [], "revision": 4, "more": False, "next": "c"})).next is None


@pytest.mark.parametrize(
    ("within", "all_keys", "target"),
    [
        ({"prefix": b"a"}, False, b"/v1/kv?prefix=a&limit=3"),
        ({"start": b"a", "end": b"b"}, False, b"/v1/kv?start=a&end=b&limit=3"),
        ({}, True, b"/v1/kv?limit=3&all=true"),
    ],
)
def test_a_range_delete_says_what_it_deletes(within, all_keys, target):
    assert wishes.delete_range(within, limit=3, all_keys=all_keys).target == target


@pytest.mark.parametrize(
    ("within", "all_keys", "is_refused"),
    [
        ({}, False, True),
        ({"prefix": b""}, False, True),
        ({"start": b""}, False, True),
        ({"start": b"", "end": b""}, False, True),
        ({"prefix": b"a"}, True, True),
        ({}, True, False),
        ({"prefix": b"a"}, False, False),
        ({"end": b"a"}, False, False),
    ],
)
def test_nothing_is_deleted_by_a_bound_that_was_forgotten(within, all_keys, is_refused):
    """faults 70."""
    if is_refused:
        with pytest.raises(ValueError):
            refuse_everything_unasked(within, all_keys=all_keys)
    else:
        refuse_everything_unasked(within, all_keys=all_keys)


def test_a_prefix_goes_without_start_and_end():
    for wrong in ({"start": "b"}, {"end": "b"}, {"start": b"", "end": None}):
        with pytest.raises(ValueError):
            bounds(prefix="a", start=wrong.get("start"), end=wrong.get("end"))


def test_a_transaction_is_said_in_raw_bytes():
    wish = wishes.txn(
        [Compare.value("a", "<", b"\xff"), Compare.create_revision("b", "!=", 3)],
        [
            Op.put("c", b"\x00"),
            Op.range(prefix="d", limit=2, reverse=True, keys_only=True),
            Op.delete_range(start="e"),
            Op.delete_range(all_keys=True, limit=9),
        ],
        [Op.delete("f"), Op.get("g"), Op.range()],
    )
    assert msgpack.unpackb(wish.body) == {
        "compare": [
            {"key": b"a", "target": "value", "op": "<", "operand": b"\xff"},
            {"key": b"b", "target": "create_revision", "op": "!=", "operand": 3},
        ],
        "success": [
            {"put": {"key": b"c", "value": b"\x00"}},
            {"range": {"prefix": b"d", "limit": 2, "reverse": True, "keys_only": True}},
            {"delete_range": {"start": b"e"}},
            {"delete_range": {"limit": 9, "all": True}},
        ],
        "failure": [{"delete": {"key": b"f"}}, {"get": {"key": b"g"}}, {"range": {}}],
    }


ITEM = {"key": b"k", "value": b"\xff", "create_revision": 1, "mod_revision": 2, "version": 3}
RESULTS = [
    {"put": {"revision": 5, "version": 1}},
    {"get": None},
    {"get": ITEM},
    {"delete": {"deleted": 0}},
    {"range": {"items": [ITEM], "more": True}},
    {"delete_range": {"deleted": 4, "more": False}},
]


def test_a_transaction_s_results_are_typed():
    done = wishes.txn([], [], []).read(packed({"succeeded": True, "results": RESULTS, "revision": 5}))
    item = Item(b"k", b"\xff", 1, 2, 3)
    assert done == TxnDone(
        succeeded=True,
        results=(
            TxnPut(5, 1),
            TxnGet(None),
            TxnGet(item),
            TxnDelete(deleted=False),
            TxnRange((item,), more=True),
            TxnDeleteRange(4, more=False),
        ),
        revision=5,
    )


def test_the_same_is_read_out_of_json():
    item = {"key": "ä", "value_base64": b64encode(b"\xff").decode(), **dict.fromkeys(list(ITEM)[2:], 1)}
    answer = HttpAnswer(200, JSON, json.dumps({"items": [item], "revision": 1, "more": False}).encode())
    assert wishes.range_page({}, Freshness()).read(answer).items == (Item("ä".encode(), b"\xff", 1, 1, 1),)
    keys_only = {name: value for name, value in item.items() if name != "value_base64"}
    answer = HttpAnswer(200, JSON, json.dumps({"items": [keys_only], "revision": 1, "more": False}).encode())
    assert wishes.range_page({}, Freshness()).read(answer).items[0].value == b""


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Compare.value("k", "<=", "v"),  # type: ignore[arg-type]
        lambda: Compare.value(5, "==", "v"),  # type: ignore[arg-type]
        lambda: Compare.version("k", "==", "v"),  # type: ignore[arg-type]
        lambda: Compare.version("k", "==", True),
        lambda: Op.delete_range(),
        lambda: Op.delete_range(prefix=""),
        lambda: Op.range(prefix="a", end="b"),
        lambda: as_bytes(None, what="key"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_meant_in_a_transaction_is_refused(wrong):
    with pytest.raises((ValueError, TypeError)):
        wrong()


def test_a_value_comes_with_what_the_store_knows_of_it():
    fields = {b"etag": b'"12"', b"raftkv-create-revision": b"3", b"raftkv-version": b"4"}
    assert wishes.get(b"k", Freshness()).read(HttpAnswer(200, fields, b"\x00v")) == Item(b"k", b"\x00v", 3, 12, 4)
    assert wishes.get(b"k", Freshness()).read(problem(Code.KEY_NOT_FOUND)) is None


def test_a_failed_condition_says_what_the_key_is_instead():
    for wish in (wishes.put(b"k", b"v", ANY), wishes.delete(b"k", ANY)):
        with pytest.raises(ConditionFailed) as failed:
            wish.read(problem(Code.PRECONDITION_FAILED, mod_revision=4, revision=9))
        assert (failed.value.mod_revision, failed.value.revision) == (4, 9)


GET = wishes.get(b"k", Freshness())
PUT = wishes.put(b"k", b"v", ANY)


@pytest.mark.parametrize(
    ("wish", "answer"),
    [
        (PUT, HttpAnswer(200, JSON, b"")),
        (PUT, HttpAnswer(200, JSON, b"<html>")),
        (PUT, HttpAnswer(200, JSON, b"[]")),
        (PUT, HttpAnswer(200, JSON, b'{"revision":1,"create_revision":1,"version":"1"}')),
        (PUT, HttpAnswer(200, JSON, b'{"revision":true,"create_revision":1,"version":1}')),
        (PUT, HttpAnswer(200, JSON, b"[" * 100_000)),
        (PUT, HttpAnswer(200, MSGPACK, b"\xc1")),
        (PUT, HttpAnswer(412, JSON, b"{}")),
        (GET, HttpAnswer(200, {}, b"v")),
        (GET, HttpAnswer(200, {b"etag": b'W/"1"', b"raftkv-create-revision": b"1", b"raftkv-version": b"1"}, b"")),
        (GET, HttpAnswer(200, {b"etag": b'"1"', b"raftkv-create-revision": b"-1", b"raftkv-version": b"1"}, b"")),
        (GET, HttpAnswer(200, {b"etag": b'"1"', b"raftkv-create-revision": b"9" * 99, b"raftkv-version": b"1"}, b"")),
        (GET, HttpAnswer(206, {b"etag": b'"1"', b"raftkv-create-revision": b"1", b"raftkv-version": b"1"}, b"v")),
        (GET, HttpAnswer(412, JSON, b"{}")),
        (wishes.open_session(1000), HttpAnswer(201, JSON, b'{"session":"x\\r\\nHost: y","ttl_ms":1}')),
        (wishes.open_session(1000), HttpAnswer(201, JSON, b'{"session":"%b","ttl_ms":1}' % (b"A" * 32))),
        (wishes.range_page({}, Freshness()), packed({"items": [None], "revision": 1, "more": False})),
        (wishes.range_page({}, Freshness()), packed({"items": [], "revision": 1, "more": True})),
        (wishes.txn([], [], []), packed({"succeeded": True, "results": [{}], "revision": 1})),
        (wishes.txn([], [], []), packed({"succeeded": True, "results": [{"x": {}}], "revision": 1})),
        (wishes.txn([], [], []), packed({"succeeded": True, "results": [{"put": 1}], "revision": 1})),
        (wishes.put(b".", b"", ANY), packed({"succeeded": True, "results": [], "revision": 1})),
        (wishes.cluster(Whom.LEADER), packed({"cluster_id": None, "term": 1, "voters": [1], "learners": []})),
        (wishes.status(Whom.LEADER), packed({})),
    ],
)
def test_an_answer_that_none_of_our_nodes_gives_is_unintelligible(wish, answer):
    """It is an unknown outcome, not a result and not a crash."""
    with pytest.raises(Unintelligible):
        wish.read(answer)


@pytest.mark.parametrize("value", [b"", b"x", b"-1", b"1" * 30, b"\xb2"])
def test_an_applied_index_that_is_none_counts_as_none(value):
    assert wishes.applied_index_of(HttpAnswer(200, {b"raftkv-applied-index": value}, b"")) == 0
    assert wishes.applied_index_of(put_done()) == 7


@pytest.mark.parametrize(
    ("method", "body", "length"),
    [
        (b"GET", b"", b""),
        (b"DELETE", b"", b""),
        (b"PUT", b"", b"Content-Length: 0\r\n"),
        (b"POST", b"", b"Content-Length: 0\r\n"),
        (b"PUT", b"v", b"Content-Length: 1\r\n"),
    ],
)
def test_a_request_goes_out_byte_for_byte(method, body, length):
    request = encode_request(method, b"/v1/kv/%2E?a=+", authority=b"h:1", fields=b"X: y\r\n", body=body)
    assert request == method + b" /v1/kv/%2E?a=+ HTTP/1.1\r\nHost: h:1\r\nX: y\r\n" + length + b"\r\n" + body
