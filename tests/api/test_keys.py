"""http-api "Keys": values under keys, byte for byte."""

from __future__ import annotations

import base64

import pytest

from raftkv.kv.commands import Delete, Put, decode
from raftkv.outcomes import Applied
from tests.api.fronts import Client


def test_put_creates_then_overwrites(client: Client) -> None:
    created = client.put("a", b"1")
    assert (created.status, created["ETag"], created["Content-Type"]) == (201, '"1"', "application/json")
    assert created.body == b'{"key":"a","revision":1,"create_revision":1,"version":1}'
    client.put("b", b"2")
    again = client.put("a", b"3")
    assert (again.status, again["ETag"]) == (200, '"3"')
    assert again.json == {"key": "a", "revision": 3, "create_revision": 1, "version": 2}


def test_get_returns_the_value_as_it_was_put(client: Client) -> None:
    value = bytes(range(256)) + b"\r\n\r\nHTTP/1.1 200 OK"
    client.put("a", b"first")
    client.put("a", value)
    answer = client.get("a")
    assert (answer.status, answer.body, answer["Content-Type"]) == (200, value, "application/octet-stream")
    assert (answer["ETag"], answer["Raftkv-Create-Revision"], answer["Raftkv-Version"]) == ('"2"', "1", "2")


def test_an_empty_value_is_a_value(client: Client) -> None:
    assert client.put("a", b"").status == 201
    answer = client.get("a")
    assert (answer.status, answer.body, answer["Content-Length"]) == (200, b"", "0")


def test_a_put_without_any_body_puts_the_empty_value(client: Client) -> None:
    assert client.ask("PUT", "/v1/kv/a").status == 201
    assert client.stored(b"a") == b""


def test_get_of_an_absent_key_is_404(client: Client) -> None:
    answer = client.get("nothing")
    assert (answer.status, answer.code) == (404, "key_not_found")
    assert answer["Raftkv-Applied-Index"] == "0"


def test_head_is_get_without_the_body(client: Client) -> None:
    client.put("a", b"value")
    head, get = client.ask("HEAD", "/v1/kv/a"), client.get("a")
    assert head.body == b""
    assert head.comparable()[:2] == get.comparable()[:2]
    assert client.ask("HEAD", "/v1/kv/absent").status == 404
    assert client.get("a").body == b"value"  # the connection is still in step


def test_delete_says_how_many(client: Client) -> None:
    client.put("a")
    first = client.delete("a")
    assert (first.status, first.body) == (200, b'{"deleted":1,"revision":2}')
    second = client.delete("a")
    assert (second.status, second.json) == (200, {"deleted": 0, "revision": 2})
    assert client.get("a").status == 404


ODD_KEYS = [
    (b"a%2Fb", b"a/b"),
    (b"a/b", b"a/b"),
    (b"a//b", b"a//b"),
    (b"/", b"/"),
    (b"//", b"//"),
    (b"%2f%2F", b"//"),
    (b"..", b".."),
    (b"%2e%2e", b".."),
    (b"a/../b", b"a/../b"),
    (b"a%2F..%2Fb", b"a/../b"),
    (b"./a", b"./a"),
    (b"../../v1/status", b"../../v1/status"),
    (b"%00", b"\0"),
    (b"%FF%fe", b"\xff\xfe"),
    (b"a%3Fb", b"a?b"),
    (b"a%23b", b"a#b"),
    (b"a+b", b"a+b"),
    (b"a%2Bb", b"a+b"),
    (b"a%20b", b"a b"),
    (b"a%2520b", b"a%20b"),
    (b"%25%32%35", b"%25"),
    (b"%0d%0aX:%20y", b"\r\nX: y"),
    (b"%e2%82%ac", "€".encode()),
    (b"a;b=c&d", b"a;b=c&d"),
    (b'[]{}|^`"<>\\', b'[]{}|^`"<>\\'),
    (b"keepalive", b"keepalive"),
    (b"a%", None),
    (b"a%2", None),
    (b"a%zz", None),
    (b"a%+1", None),
    (b"a% 1", None),
    (b"a#b", None),
    (b"", None),
    (b"%", None),
]


@pytest.mark.parametrize(("raw", "key"), ODD_KEYS)
def test_a_key_is_decoded_once_and_never_normalised(client: Client, raw: bytes, key: bytes | None) -> None:
    """faults 64: stored and returned byte for byte, or a 4xx; never another key, route or file."""
    answer = client.ask("PUT", b"/v1/kv/" + raw, None, b"value")
    if key is None:
        assert (answer.status, answer.code) == (400, "bad_request")
        assert client.service.submitted == []
        return
    assert answer.status == 201
    assert [decode(command).command for command, _ in client.service.submitted] == [Put(key, b"value")]
    assert client.stored(key) == b"value"
    assert client.ask("GET", b"/v1/kv/" + raw).body == b"value"
    shown = answer.json
    assert shown.get("key", "").encode() == key or base64.b64decode(shown["key_base64"]) == key


def test_a_key_that_is_no_text_comes_as_base64(client: Client) -> None:
    assert client.put(b"%ff").json == {"key_base64": "/w==", "revision": 1, "create_revision": 1, "version": 1}


def test_a_key_has_at_most_4096_bytes(client: Client) -> None:
    longest = b"%ff" * 4096
    assert client.put(longest).status == 201
    assert client.stored(b"\xff" * 4096) == b"value"
    for method in ("PUT", "GET", "DELETE", "HEAD"):
        assert client.ask(method, b"/v1/kv/" + longest + b"a").status == 400


def test_a_value_has_at_most_a_mebibyte(client: Client) -> None:
    """faults 60: a value over the limit is refused with 413."""
    value = b"x" * (1024 * 1024)
    assert client.put("a", value).status == 201
    assert client.get("a").body == value
    answer = client.put("b", value + b"x")
    assert (answer.status, answer.code) == (413, "too_large")
    assert client.stored(b"b") is None


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "deflate", "br", "zstd", "identity, gzip", "x", ""])
def test_a_packed_value_is_refused(client: Client, coding: str) -> None:
    """faults 67: 415, never stored unpacked, nor packed."""
    answer = client.put("a", b"\x1f\x8b\x08", {"Content-Encoding": coding})
    assert (answer.status, answer.code) == (415, "unsupported_media_type")
    assert client.service.submitted == []


@pytest.mark.parametrize("coding", ["identity", "Identity"])
def test_identity_is_no_packing(client: Client, coding: str) -> None:
    assert client.put("a", b"\x1f\x8b\x08", {"Content-Encoding": coding}).status == 201
    assert client.get("a").body == b"\x1f\x8b\x08"


def test_accept_and_content_type_are_ignored_on_keys(client: Client) -> None:
    assert client.put("a", b"{", {"Accept": "text/html", "Content-Type": "application/json"}).status == 201
    assert client.get("a", headers={"Accept": "application/msgpack"})["Content-Type"] == "application/octet-stream"


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
def test_methods_without_a_body_refuse_one(client: Client, method: str) -> None:
    assert client.ask(method, "/v1/kv/a", None, b"ignored?").status == 400
    assert client.ask(method, "/v1/kv/a", None, b"").status in (200, 404)


def test_deletes_are_taken_when_the_disk_is_short(client: Client) -> None:
    client.put("a")
    client.delete("a")
    assert [frees_space for _, frees_space in client.service.submitted] == [False, True]
    assert decode(client.service.submitted[1][0]).command == Delete(b"a")


@pytest.mark.parametrize(
    "query", ["?x=1", "?consistency=stale", "?=", "?&", "?prefix=a", "?force=true", "?%63=1", "?limit"]
)
@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_a_write_takes_no_query_parameter(client: Client, method: str, query: str) -> None:
    """faults 70: what is mistyped is refused, and nothing is changed."""
    client.put("a", b"before")
    assert client.ask(method, "/v1/kv/a" + query).status == 400
    assert client.stored(b"a") == b"before"


def test_an_empty_query_is_none(client: Client) -> None:
    assert client.ask("PUT", "/v1/kv/a?", None, b"v").status == 201
    assert client.ask("GET", "/v1/kv/a?").status == 200


class TestConditions:
    def test_if_match_writes_over_that_revision_only(self, client: Client) -> None:
        client.put("a", b"1")
        client.put("a", b"2")
        failed = client.put("a", b"3", {"If-Match": '"1"'})
        assert (failed.status, failed.code) == (412, "precondition_failed")
        assert (failed.json["mod_revision"], failed.json["revision"]) == (2, 2)
        assert failed["Raftkv-Applied-Index"] == "3"
        assert client.stored(b"a") == b"2"
        assert client.put("a", b"3", {"If-Match": '"2"'}).status == 200

    def test_a_revision_may_be_as_large_as_any_number(self, client: Client) -> None:
        client.put("a", b"1")
        largest = f'"{2**63 - 1}"'
        assert client.put("a", b"2", {"If-Match": largest}).json["mod_revision"] == 1
        assert client.delete("a", {"If-Match": largest}).status == 412
        assert client.get("a", headers={"If-None-Match": largest}).status == 200

    def test_if_match_star_demands_presence(self, client: Client) -> None:
        failed = client.put("a", b"1", {"If-Match": "*"})
        assert (failed.status, failed.json["mod_revision"], failed.json["revision"]) == (412, 0, 0)
        client.put("a", b"1")
        assert client.put("a", b"2", {"If-Match": "*"}).status == 200

    def test_if_none_match_star_demands_absence(self, client: Client) -> None:
        assert client.put("a", b"1", {"If-None-Match": "*"}).status == 201
        assert client.put("a", b"2", {"If-None-Match": "*"}).status == 412
        assert client.stored(b"a") == b"1"

    def test_conditions_hold_for_deletes_too(self, client: Client) -> None:
        client.put("a")
        assert client.delete("a", {"If-Match": '"9"'}).status == 412
        assert client.delete("a", {"If-None-Match": "*"}).status == 412
        assert client.delete("a", {"If-Match": '"1"'}).json == {"deleted": 1, "revision": 2}
        assert client.delete("a", {"If-Match": "*"}).status == 412

    def test_if_none_match_spares_an_unchanged_value(self, client: Client) -> None:
        client.put("a", b"1")
        client.put("a", b"2")
        for method in ("GET", "HEAD"):
            same = client.ask(method, "/v1/kv/a", {"If-None-Match": '"2"'})
            assert (same.status, same.body, same["ETag"]) == (304, b"", '"2"')
            assert (same["Raftkv-Applied-Index"], same["Raftkv-Consistency"]) == ("2", "linearizable")
        for other in ('"1"', '"7"'):
            assert client.get("a", headers={"If-None-Match": other}).body == b"2"
        assert client.get("b", headers={"If-None-Match": '"1"'}).status == 404

    @pytest.mark.parametrize(
        "tag",
        ['W/"1"', '"1", "2"', '"1","1"', "1", '"1', '"01"', '"+1"', '"-1"', '"0"', '"abc"', '""', "", "**", '"1" x',
         '"١"', '"²"', '"9223372036854775808"', '"' + "9" * 400 + '"', "'1'", '"1.0"', '"0x1"', '"1_0"'],
    )  # fmt: skip
    def test_a_tag_that_is_none_of_ours_is_refused(self, client: Client, tag: str) -> None:
        client.put("a", b"before")
        hostile = tag.encode().decode("latin-1")
        for method in ("PUT", "DELETE", "GET", "HEAD"):
            for header in ("If-Match", "If-None-Match"):
                assert client.ask(method, "/v1/kv/a", {header: hostile}).status == 400, (method, header)
        assert client.stored(b"a") == b"before"

    def test_conditions_that_a_method_does_not_have_are_refused(self, client: Client) -> None:
        client.put("a", b"before")
        assert client.put("a", b"2", {"If-None-Match": '"1"'}).status == 400
        assert client.get("a", headers={"If-Match": '"1"'}).status == 400
        assert client.get("a", headers={"If-None-Match": "*"}).status == 400
        assert client.put("a", b"2", {"If-Match": '"1"', "If-None-Match": "*"}).status == 400
        assert client.ask("PUT", "/v1/kv/a", [("If-Match", '"1"'), ("If-Match", '"1"')], b"2").status == 400
        assert client.stored(b"a") == b"before"

    @pytest.mark.parametrize(
        ("method", "path"),
        [("POST", "/v1/sessions"), ("POST", f"/v1/sessions/{0:032x}/keepalive"), ("DELETE", f"/v1/sessions/{0:032x}"),
         ("GET", "/v1/status"), ("POST", "/v1/admin/leader")],
    )  # fmt: skip
    def test_conditions_elsewhere_are_refused(self, client: Client, method: str, path: str) -> None:
        for headers in ({"If-Match": "*"}, {"If-None-Match": '"1"'}):
            assert client.ask(method, path, headers).status == 400
        assert client.service.submitted == []


def test_an_answer_of_a_kind_that_no_route_knows_is_our_bug(wired: Client, caplog: pytest.LogCaptureFixture) -> None:
    wired.service.forced_writes.append(Applied(1, "nonsense"))
    answer = wired.put("a")
    assert (answer.status, answer.code) == (500, "internal")
    (record,) = caplog.records
    assert (record.event, record.fields) == ("request_failed", {"method": "PUT", "route": "/v1/kv"})  # type: ignore[attr-defined]
    assert record.exc_info is not None
