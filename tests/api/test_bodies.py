"""http-api "Errors", last paragraph: JSON and msgpack bodies, and what is none of either."""

from __future__ import annotations

import msgpack
import pytest

from raftkv.api.bodies import DEPTH_MAX, ITEMS_MAX, BodyType, fields_of
from raftkv.api.problems import RequestRefused
from raftkv.api.requests import Head
from raftkv.api.responses import Response
from tests.api.conftest import api_of
from tests.api.fronts import Client
from tests.api.service import FakeService

JSON = {"Content-Type": "application/json"}
MSGPACK = {"Content-Type": "application/msgpack"}


@pytest.mark.parametrize("named", ["application/json", "Application/JSON", "application/json; charset=utf-8",
                                   "application/json ;x"])  # fmt: skip
def test_json_is_taken(client: Client, named: str) -> None:
    assert client.ask("POST", "/v1/sessions", {"Content-Type": named}, b'{"ttl_ms":2000}').status == 201


@pytest.mark.parametrize("named", [None, "", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data",
                                   "application/jsonx", "application/json, text/plain", "json", "*/*"])  # fmt: skip
def test_other_types_are_refused(client: Client, named: str | None) -> None:
    headers = {} if named is None else {"Content-Type": named}
    for path in ("/v1/sessions", f"/v1/sessions/{1:032x}/keepalive", "/v1/admin/leader"):
        answer = client.ask("POST", path, headers, b"{}")
        assert (answer.status, answer.code) == (415, "unsupported_media_type")
    assert client.service.submitted == [] and client.service.transfers == []


def test_an_empty_body_needs_no_type_but_under_admin(client: Client) -> None:
    assert client.ask("POST", "/v1/sessions", None, b"").status == 201
    assert client.ask("POST", "/v1/sessions").status == 201
    assert client.ask("POST", "/v1/admin/leader", None, b"").status == 415
    assert client.ask("POST", "/v1/admin/leader").status == 415
    assert client.service.transfers == []
    assert client.ask("POST", "/v1/admin/leader", JSON, b"").status == 200


BAD_JSON = [
    b"{", b"nonsense", b"[]", b"null", b"1", b'"x"', b" ", b"{}{}", b'{"ttl_ms":NaN}', b'{"ttl_ms":Infinity}',
    b'{"ttl_ms":-Infinity}', b'{"ttl_ms":1e999}', b'{"ttl_ms":2000,"ttl_ms":2000}', b'{"ttl_ms":2000,}',
    b"{'ttl_ms':2000}", b'{"ttl_ms":02000}', b'{"ttl_ms":+2000}', b'{"x":1}', b'{"ttl_ms":2000,"x":1}',
    b'{"TTL_MS":2000}', b'{"\\ud800":1}', b'\xef\xbb\xbf{"ttl_ms":2000}', '{"ttl_ms":2000}'.encode("utf-16"),
    b'{"ttl_ms":2000}\x00', b'{"\xff":1}', b'{"ttl_ms":' + b"9" * 5_000 + b"}", b"[" * 60_000,
    b'{"a":' * 10_000, b'{"ttl_ms":' + b"[" * 900 + b"]" * 900 + b"}", b'{"ttl_ms":{"a":{"a":1}}}',
]  # fmt: skip


@pytest.mark.parametrize("body", BAD_JSON, ids=range(len(BAD_JSON)))
def test_json_is_read_strictly(client: Client, body: bytes) -> None:
    """faults 64: no NaN, no doubled key, bounded depth, UTF-8 only; a 4xx, and nothing changes."""
    answer = client.ask("POST", "/v1/sessions", JSON, body)
    assert (answer.status, answer.code) == (400, "bad_request")
    assert client.service.submitted == []


BAD_MSGPACK = [
    b"\xc1", b"\x81", b"\x80\x80", b"\x90", b"\x01", b"\xa1x", b"\xc0",
    b"\xdd\xff\xff\xff\xff",  # a list that claims 4 G items
    b"\xdf\xff\xff\xff\xff",
    b"\xdb\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\xc9\xff\xff\xff\xff\x01",
    b"\x91" * 60_000,
    b"\xdc\x03\xff" * 20_000,  # each level claims, and would be given, room for a thousand
    b"\xdd\x00\x00\xea\x60" * 12_000,
    b"\x82\xa6ttl_ms\xcd\x07\xd0\xa6ttl_ms\xcd\x07\xd0",
    b"\x81\xa6ttl_ms\xd4\x01\x00",
    b"\x81\xa6ttl_ms\xc7\x00\x01",
    b"\x81\xa6ttl_ms\xd6\xff\x00\x00\x00\x00",  # a timestamp
    b"\x81\x01\x02",
    b"\x81\xc4\x06ttl_ms\xcd\x07\xd0",
    b"\x81\x90\x02",
    b"\x81\xa2\xff\xfe\x01",
    b"\x81\xa6ttl_ms\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00",
    msgpack.packb({"ttl_ms": 2000, "x": 1}),
    msgpack.packb({"ttl_ms": b"2000"}),
]  # fmt: skip


@pytest.mark.parametrize("body", BAD_MSGPACK, ids=range(len(BAD_MSGPACK)))
def test_msgpack_bombs_are_refused(client: Client, body: bytes) -> None:
    """faults 57, 64: absurd lengths, deep nesting, wrong types; a 4xx, no allocation, nothing changes."""
    answer = client.ask("POST", "/v1/sessions", MSGPACK, body)
    assert (answer.status, answer.code) == (400, "bad_request")
    assert client.service.submitted == []


def test_a_structured_body_is_bounded(client: Client) -> None:
    answer = client.ask("POST", "/v1/sessions", JSON, b'{"ttl_ms":2000}' + b" " * 65_536)
    assert (answer.status, answer.code) == (413, "too_large")


@pytest.mark.parametrize(
    ("body", "written_in"),
    [
        (b'{"a":NaN}', BodyType.JSON),
        (b'{"a":-Infinity}', BodyType.JSON),
        (b'{"a":1e999}', BodyType.JSON),
        (b'{"a":"\xff"}', BodyType.JSON),
        (b'{"a":"\\ud800"}', BodyType.JSON),
        (b'{"a":{"b":1,"b":1}}', BodyType.JSON),
        (b"\x81\xa1a\xd4\x01\x00", BodyType.MSGPACK),
        (b"\x81\xa1a\xd6\xff\x00\x00\x00\x00", BodyType.MSGPACK),
        (b"\x81\xa1a\x81\x01\x02", BodyType.MSGPACK),
        (b"\x81\xa1a\x82\xa1b\x01\xa1b\x01", BodyType.MSGPACK),
        (b"\x81\xa1a\xa1\xff", BodyType.MSGPACK),
        (b"{}", None),
    ],
)
def test_what_is_no_plain_value_is_refused_whatever_it_is_for(body: bytes, written_in: BodyType | None) -> None:
    """faults 64: not left to whoever looks at the field."""
    with pytest.raises(RequestRefused):
        fields_of(body, written_in, known=frozenset({"a"}))


def test_a_body_in_chunks_without_a_type_may_be_empty_only(service: FakeService) -> None:
    for body, status in ((b"", 201), (b"{}", 415)):
        pending = api_of(service).begin(Head("POST", b"/v1/sessions", [(b"Transfer-Encoding", b"chunked")]))
        answers: list[Response] = []
        assert not isinstance(pending, Response)
        pending.finish(body, answers.append)
        assert [answer.status for answer in answers] == [status]


def test_depth_is_judged_by_brackets_outside_of_strings() -> None:
    known = frozenset({"a"})
    deepest = b'{"a":' + b"[" * (DEPTH_MAX - 1) + b'"[[[[[[\\"[[[[[[{{{{{{"' + b"]" * (DEPTH_MAX - 1) + b"}"
    assert fields_of(deepest, BodyType.JSON, known=known)
    with pytest.raises(RequestRefused, match="nested"):
        fields_of(deepest.replace(b"[", b"[[", 1).replace(b"]}", b"]]}"), BodyType.JSON, known=known)
    assert fields_of(b'{"a":[%s]}' % b",".join([b"[]"] * 500), BodyType.JSON, known=known)


@pytest.mark.parametrize("shape", [lambda n: [0] * n, lambda n: [[]] * n, lambda n: [["x"]] * (n // 2), lambda n: {
    str(number): b"x" for number in range(n // 2)
}])  # fmt: skip
def test_the_values_of_a_body_are_counted_before_it_is_parsed(shape) -> None:
    """faults 64: some mebibytes of empty lists would keep the event loop for a second."""
    known = frozenset({"a"})
    assert fields_of(msgpack.packb({"a": shape(ITEMS_MAX - 2)}), BodyType.MSGPACK, known=known)
    with pytest.raises(RequestRefused, match="values"):
        fields_of(msgpack.packb({"a": shape(ITEMS_MAX)}), BodyType.MSGPACK, known=known)


@pytest.mark.parametrize(
    "value",
    [b"\xc0", b"\x7f", b"\xff", b"\xca\0\0\0\0", b"\xcb" + bytes(8), b"\xcc\0", b"\xcd\0\0", b"\xce\0\0\0\0",
     b"\xcf" + bytes(8), b"\xd0\0", b"\xd1\0\0", b"\xd2\0\0\0\0", b"\xd3" + bytes(8), b"\xa2ab", b"\xd9\x02ab",
     b"\xda\0\x02ab", b"\xdb\0\0\0\x02ab", b"\xc4\x02\xdd\xff", b"\xc5\0\x02\xdd\xff", b"\xc6\0\0\0\x02\xdd\xff",
     b"\x80", b"\xde\0\0", b"\xdf\0\0\0\0", b"\xdc\0\0", b"\xdd\0\0\0\0"],
)  # fmt: skip
def test_msgpack_is_counted_as_the_unpacker_counts(value: bytes) -> None:
    """A list claimed behind any kind of value is still seen: nothing makes the count lose its place."""
    known = frozenset({"a"})
    assert fields_of(b"\x81\xa1a\x92" + value + b"\x90", BodyType.MSGPACK, known=known)
    with pytest.raises(RequestRefused, match="values"):
        fields_of(b"\x81\xa1a\x92" + value + b"\xdd\xff\xff\xff\xff", BodyType.MSGPACK, known=known)


def test_json_is_counted_outside_of_strings_only() -> None:
    known = frozenset({"a"})
    full = b'{"a":[' + b",".join([b"0"] * (ITEMS_MAX - 1)) + b"]}"
    assert fields_of(full, BodyType.JSON, known=known)
    with pytest.raises(RequestRefused, match="values"):
        fields_of(full.replace(b"[", b"[0,"), BodyType.JSON, known=known)
    text = b'{"a":"' + b',[{\\"\\\\' * ITEMS_MAX + b'"}'
    assert fields_of(text, BodyType.JSON, known=known)
