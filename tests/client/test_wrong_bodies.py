"""Bodies of any shape, in either format: a result of the promised types, or unintelligible; never another error."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftkv.client import wishes
from raftkv.client.attempts import Problem, Whom
from raftkv.client.wishes import Condition, Freshness, Unintelligible
from raftkv.errors import ConditionFailed
from raftkv.http.exchange import HttpAnswer
from raftkv.kv.commands import NUMBER_MAX
from tests.client.answers import JSON

ITEM = {"key": b"k", "value": b"v", "create_revision": 1, "mod_revision": 2, "version": 3}
MEMBER = {"id": "n1", "url": "http://a:1", "match_index": 1, "last_contact_ms": 2}
RESULTS: list[dict[str, Any]] = [
    {"put": {"revision": 5, "version": 1}},
    {"get": ITEM},
    {"delete": {"deleted": 0}},
    {"range": {"items": [ITEM], "more": True}},
    {"delete_range": {"deleted": 4, "more": False}},
]
STATUS: dict[str, Any] = dict.fromkeys(
    ("id", "role", "leader_id", "leader_url", "state_hash", "version"), "x"
) | dict.fromkeys(
    ("term", "commit_index", "applied_index", "last_index", "snapshot_index", "log_bytes", "revision", "uptime_ms"), 1
)
STATUS["role"] = "leader"
SOUND: list[tuple[wishes.Wish[Any], dict[str, Any]]] = [
    (wishes.put(b"k", b"v", Condition()), {"revision": 1, "create_revision": 1, "version": 1}),
    (wishes.put(b".", b"v", Condition()), {"succeeded": True, "results": [RESULTS[0], {"get": ITEM}], "revision": 1}),
    (wishes.delete(b"k", Condition()), {"deleted": 1, "revision": 1}),
    (wishes.delete_range({}, limit=None, all_keys=True), {"deleted": 1, "more": False, "revision": 1}),
    (wishes.txn([], [], []), {"succeeded": True, "results": RESULTS, "revision": 5}),
    (wishes.range_page({}, Freshness()), {"items": [ITEM], "revision": 1, "more": True, "next": "c"}),
    (wishes.get(b".", Freshness()), {"items": [ITEM], "revision": 1, "more": False}),
    (wishes.open_session(1000), {"session": "0" * 32, "ttl_ms": 1000}),
    (wishes.keep_alive("0" * 32), {"ttl_ms": 1000}),
    (
        wishes.cluster(Whom.LEADER),
        {"cluster_id": "k", "term": 1, "leader_id": "n1", "voters": [MEMBER], "learners": [MEMBER], "change": None},
    ),
    (wishes.status(Whom.LEADER), STATUS),
    (wishes.transfer_leadership(None), {"leader": {"id": "n", "url": "http://a:1"}, "term": 1, "changed": True}),
]
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9) | st.binary(max_size=3), inner),
    max_leaves=8,
)


def places(told: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = told.items() if isinstance(told, dict) else enumerate(told) if isinstance(told, list) else ()
    return [path, *(place for name, one in inner for place in places(one, (*path, name)))]


def altered(told: Any, path: tuple[Any, ...], by: Any) -> Any:
    if not path:
        return by
    copy = dict(told) if isinstance(told, dict) else list(told)
    copy[path[0]] = altered(copy[path[0]], path[1:], by)
    return copy


def is_of(value: Any, kind: Any) -> bool:
    """Whether it is what its annotation says."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return any(is_of(value, one) for one in typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        return type(value) is tuple and all(is_of(one, typing.get_args(kind)[0]) for one in value)
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return type(value) is kind and all(is_of(getattr(value, name), hint) for name, hint in hints.items())
    return value is None if kind in (None, type(None)) else type(value) is kind


def judge(wish: wishes.Wish[Any], answer: HttpAnswer) -> None:
    try:
        result = wish.read(answer)
    except (Unintelligible, ConditionFailed):
        return
    assert result is None or is_of(result, type(result))


@given(st.sampled_from(SOUND), st.data())
@settings(max_examples=200, deadline=None)
def test_a_body_with_one_wrong_part_is_a_result_or_unintelligible(sound, data):
    wish, told = sound
    said = altered(told, data.draw(st.sampled_from(places(told))), data.draw(ANYTHING))
    judge(wish, HttpAnswer(200, {b"content-type": b"application/msgpack"}, msgpack.packb(said)))
    try:
        text = json.dumps(said, default=lambda raw: raw.decode("latin-1")).encode()
    except TypeError:  # Keys that are no text.
        return
    judge(wish, HttpAnswer(200, JSON, text))
    judge(wish, HttpAnswer(412, JSON, text))
    problem = Problem(HttpAnswer(503, {b"content-type": b"application/problem+json"}, text))
    assert type(problem.number("term")) is int


@given(st.sampled_from(SOUND), st.binary(max_size=60))
@settings(max_examples=100, deadline=None)
def test_a_body_of_any_bytes_is_a_result_or_unintelligible(sound, body):
    for kind in (b"application/msgpack", b"application/json"):
        judge(sound[0], HttpAnswer(200, {b"content-type": kind}, body))


@pytest.mark.parametrize(("wish", "told"), SOUND)
def test_the_sound_ones_are_understood(wish, told):
    wish.read(HttpAnswer(200, {b"content-type": b"application/msgpack"}, msgpack.packb(told)))


@pytest.mark.parametrize("ttl_ms", [0, -1, 999])
def test_a_session_that_lives_less_than_any_may_is_unintelligible(ttl_ms):
    """It would want a sign of life at once, and at once again."""
    with pytest.raises(Unintelligible):
        wishes.open_session(1000).read(HttpAnswer(201, JSON, b'{"session":"%b","ttl_ms":%d}' % (b"0" * 32, ttl_ms)))


@pytest.mark.parametrize(
    ("told", "number"),
    [(b"7", 7), (b"%d" % NUMBER_MAX, NUMBER_MAX), (b"%d" % (NUMBER_MAX + 1), 0), (b"9" * 19, 0), (b"1" * 20, 0)],
)
def test_an_applied_index_beyond_any_log_counts_as_none(told, number):
    """As ``min_index`` it would have every later stale read refused."""
    assert wishes.applied_index_of(HttpAnswer(200, {b"raftkv-applied-index": told}, b"")) == number


@pytest.mark.parametrize("name", ["key", "value", "value_base64"])
def test_text_that_no_encoding_has_is_unintelligible(name):
    item = {"key": "k", "value": "v", "create_revision": 1, "mod_revision": 1, "version": 1}
    item |= {"value": None, "value_base64": "\ud800"} if name == "value_base64" else {name: "\ud800"}
    body = json.dumps({"items": [item], "revision": 1, "more": False}).encode()
    with pytest.raises(Unintelligible):
        wishes.range_page({}, Freshness()).read(HttpAnswer(200, JSON, body))
