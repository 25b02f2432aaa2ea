"""http-api "Keys", from "GET /v1/kv?prefix=" on: pages, cursors, range deletes."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import quote_from_bytes

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv.api.cursors import CURSOR_CHARS_MAX, Cursor, cursor_after, digest_of, read_cursor, write_cursor
from raftkv.api.problems import RequestRefused
from raftkv.api.ranges import PAGE_BYTES_MAX, PAGE_CHARS_MAX
from raftkv.http.heads import TARGET_BYTES_MAX
from raftkv.kv.answers import DeleteRangeDone
from raftkv.kv.commands import DeleteRange, Numbered, decode
from raftkv.kv.queries import Range
from raftkv.kv.ranges import Bounds
from raftkv.outcomes import Applied, Consistency, ReadTimedOut, Refused, TooStale, Why
from tests.api.conftest import api_of
from tests.api.fronts import Answer, Client, PureClient
from tests.api.service import FOLLOWS, LEADERLESS, LEADS, FakeService

MSGPACK = {"Accept": "application/msgpack"}
MIB = 1024 * 1024
SOME = {b"": b"0", b"a": b"1", b"a/": b"2", b"a/b": b"3", b"b": b"\xff", b"\xc3\xa9": "é".encode(), b"\xff": b"5"}
del SOME[b""]


def pages(client: Client, query: str = "?", headers: dict[str, str] | None = None) -> list[Answer]:
    """Every page of a range, following its cursors."""
    found = [client.ask("GET", "/v1/kv" + query, headers)]
    while True:
        fields = msgpack.unpackb(found[-1].body) if headers else found[-1].json
        assert fields["more"] == (fields["next"] is not None)
        if not fields["more"]:
            return found
        found.append(client.ask("GET", f"/v1/kv{query}{'&' if query != '?' else ''}cursor={fields['next']}", headers))


def keys_in(answer: Answer) -> list[bytes]:
    return [
        item["key"].encode() if "key" in item else base64.b64decode(item["key_base64"]) for item in answer.json["items"]
    ]


def keys_of(answers: list[Answer]) -> list[bytes]:
    return [key for answer in answers for key in keys_in(answer)]


class TestPages:
    def test_a_page_has_items_revision_more_and_next(self, client: Client) -> None:
        client.put("a", b"1")
        client.put("a", b"2")
        client.put("b", b"")
        answer = client.ask("GET", "/v1/kv?prefix=&limit=1")
        assert (answer.status, answer["Content-Type"]) == (200, "application/json")
        assert answer.body.startswith(
            b'{"items":[{"key":"a","value":"2","create_revision":1,"mod_revision":2,"version":2}],'
            b'"revision":3,"more":true,"next":"'
        )
        assert (answer["Raftkv-Applied-Index"], answer["Raftkv-Consistency"]) == ("3", "linearizable")
        last = client.ask("GET", "/v1/kv?limit=1&cursor=" + answer.json["next"])
        assert last.json == {
            "items": [{"key": "b", "value": "", "create_revision": 3, "mod_revision": 3, "version": 1}],
            "revision": 3,
            "more": False,
            "next": None,
        }

    def test_text_is_text_and_what_is_no_utf_8_is_base64(self, client: Client) -> None:
        client.service.fill({b'\x00\x7f"\\\n': "é\u2028€😀".encode(), b"\xff": b"text", b"z": b"\xc3\x28"})
        items = client.ask("GET", "/v1/kv").json["items"]
        assert [{name: value for name, value in item.items() if "revision" not in name} for item in items] == [
            {"key": '\x00\x7f"\\\n', "value": "é\u2028€😀", "version": 1},
            {"key": "z", "value_base64": "wyg=", "version": 1},
            {"key_base64": "/w==", "value": "text", "version": 1},
        ]

    def test_with_encoding_base64_only_those_fields_appear(self, client: Client) -> None:
        client.service.fill({b"a": b"text", b"\xff": b""})
        items = client.ask("GET", "/v1/kv?encoding=base64").json["items"]
        assert [(item["key_base64"], item["value_base64"]) for item in items] == [("YQ==", "dGV4dA=="), ("/w==", "")]
        assert not any({"key", "value"} & item.keys() for item in items)

    @pytest.mark.parametrize("query", ["?", "?encoding=base64"])
    def test_as_msgpack_it_is_the_same_structure_with_raw_bytes(self, client: Client, query: str) -> None:
        client.service.fill({b"a": b"text", b"\xff": b"\xfe"})
        answer = client.ask("GET", "/v1/kv" + query, MSGPACK)
        assert answer["Content-Type"] == "application/msgpack"
        assert msgpack.unpackb(answer.body) == {
            "items": [
                {"key": b"a", "value": b"text", "create_revision": 1, "mod_revision": 1, "version": 1},
                {"key": b"\xff", "value": b"\xfe", "create_revision": 2, "mod_revision": 2, "version": 1},
            ],
            "revision": 2,
            "more": False,
            "next": None,
        }

    @pytest.mark.parametrize("headers", [None, MSGPACK])
    def test_keys_only_leaves_the_values_out(self, client: Client, headers: dict[str, str] | None) -> None:
        client.service.fill({b"a": b"text"})
        answer = client.ask("GET", "/v1/kv?keys_only=true", headers)
        (item,) = (msgpack.unpackb(answer.body) if headers else answer.json)["items"]
        assert list(item) == ["key", "create_revision", "mod_revision", "version"]

    def test_head_is_get_without_the_body(self, client: Client) -> None:
        client.service.fill(SOME)
        for query in ("?limit=2", "?prefix=a&encoding=base64", "?limit=0"):
            head, get = client.ask("HEAD", "/v1/kv" + query), client.ask("GET", "/v1/kv" + query)
            assert (head.body, head.comparable()[:2]) == (b"", get.comparable()[:2])

    BOUNDS = [
        ("", sorted(SOME)),
        ("?", sorted(SOME)),
        ("?prefix=", sorted(SOME)),
        ("?start=", sorted(SOME)),
        ("?prefix=a", [b"a", b"a/", b"a/b"]),
        ("?prefix=a%2F", [b"a/", b"a/b"]),
        ("?prefix=a/", [b"a/", b"a/b"]),
        ("?prefix=%ff", [b"\xff"]),
        ("?prefix=%ff%ff", []),
        ("?prefix=%c3", [b"\xc3\xa9"]),
        ("?prefix=b+", []),
        ("?start=a/", [b"a/", b"a/b", b"b", b"\xc3\xa9", b"\xff"]),
        ("?end=a/", [b"a"]),
        ("?start=a/&end=b", [b"a/", b"a/b"]),
        ("?start=a/&end=b%00", [b"a/", b"a/b", b"b"]),
        ("?start=b&end=b", []),
        ("?start=b&end=a", []),
        ("?start=%ff%00", []),
    ]

    @pytest.mark.parametrize(("query", "keys"), BOUNDS)
    def test_bounds_name_a_range_whose_end_is_excluded(self, client: Client, query: str, keys: list[bytes]) -> None:
        client.service.fill(SOME)
        assert keys_in(client.ask("GET", "/v1/kv" + query)) == keys
        backwards = client.ask("GET", f"/v1/kv{query or '?'}&reverse=true".replace("?&", "?"))
        assert keys_in(backwards) == keys[::-1]

    def test_a_plus_in_a_bound_is_a_space(self, client: Client) -> None:
        client.service.fill({b"a b": b"1", b"a+b": b"2"})
        assert keys_in(client.ask("GET", "/v1/kv?prefix=a+")) == [b"a b"]
        assert keys_in(client.ask("GET", "/v1/kv?prefix=a%2B")) == [b"a+b"]

    REFUSED = [
        "?prefix=a&start=a", "?prefix=a&end=b", "?prefix=&start=", "?prefix=a&prefix=a", "?end=", "?start=%", "?x=1",
        "?limit=0", "?limit=10001", "?limit=", "?limit=-1", "?limit=1.0", "?limit=%2B1", "?limit=01", "?Limit=1",
        "?lmit=1",
        "?keys_only=1", "?keys_only=", "?keys_only", "?keys_only=True", "?reverse=yes", "?encoding=text", "?encoding=",
        "?all=true", "?cursor=", "?cursor=x", "?consistency=strong", "?min_index=1", "?consistency=lease&min_index=1",
        "?prefix=" + "%61" * 4097, "?start=" + "a" * 4098, "?end=" + "a" * 4098, "?&", "?prefix=a&",
    ]  # fmt: skip

    @pytest.mark.parametrize("query", REFUSED)
    def test_what_is_not_understood_is_refused(self, client: Client, query: str) -> None:
        for method in ("GET", "HEAD"):
            assert client.ask(method, "/v1/kv" + query).status == 400
        assert client.service.reads == []

    @pytest.mark.parametrize("header", ["If-Match", "If-None-Match"])
    @pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
    def test_conditions_on_ranges_are_refused(self, client: Client, method: str, header: str) -> None:
        for tag in ("*", '"1"', 'W/"1"'):
            assert client.ask(method, "/v1/kv?prefix=a", {header: tag}).status == 400
        assert client.service.reads == [] and client.service.submitted == []

    def test_reads_of_ranges_ignore_sessions(self, client: Client) -> None:
        assert client.ask("GET", "/v1/kv", {"Raftkv-Session": "x", "Raftkv-Sequence": "-1"}).status == 200

    @pytest.mark.parametrize("bound", [b"a" * 4096, b"\xff" * 4096])
    def test_bounds_may_be_as_long_as_keys(self, client: Client, bound: bytes) -> None:
        client.service.fill({bound: b"v"})
        raw = quote_from_bytes(bound)
        for query in (f"?prefix={raw}", f"?start={raw}", f"?end={raw}%00"):
            assert keys_in(client.ask("GET", "/v1/kv" + query)) == [bound]
        both = "".join(f"%{byte:02x}" for byte in bound)
        longest = f"?start={both}&end={both}%00&limit=10000&keys_only=false&reverse=false&encoding=base64"
        freshness = f"&consistency=stale&min_index=0&max_staleness_ms={2**63 - 1}"
        assert keys_in(client.ask("GET", "/v1/kv" + longest + freshness)) == [bound]


class TestLimits:
    def test_a_page_has_1000_items_unless_asked_otherwise(self, client: Client) -> None:
        client.service.fill({b"%05d" % number: b"" for number in range(10_001)})
        for query, count in (("?keys_only=true", 1_000), ("?limit=1", 1), ("?limit=10000", 10_000)):
            answer = client.ask("GET", "/v1/kv" + query).json
            assert (len(answer["items"]), answer["more"]) == (count, True)
        assert client.ask("GET", "/v1/kv?limit=10001").status == 400

    def test_a_page_ends_at_4_mib_of_keys_and_values(self, client: Client) -> None:
        client.service.fill({b"%d" % number: b"x" * (MIB - 1) for number in range(5)})
        answers = pages(client, "?limit=10")
        assert [len(answer.json["items"]) for answer in answers] == [4, 1]
        assert sum(len(item["key"]) + len(item["value"]) for item in answers[0].json["items"]) == PAGE_BYTES_MAX
        client.service.fill({b"3": b"x" * MIB})
        assert [len(answer.json["items"]) for answer in pages(client, "?limit=10")] == [3, 2]
        assert len(client.ask("GET", "/v1/kv?keys_only=true").json["items"]) == 5

    def test_a_page_ends_where_its_json_gets_too_long(self, service: FakeService) -> None:
        """4 MiB of control characters are 24 MiB of JSON, and the event loop waits while it is written."""
        client = PureClient(api_of(service), service)
        values = {b"%04d" % number: b"\x01" * 1_000 for number in range(4_000)}
        service.fill(values)
        answers = pages(client, "?limit=10000")
        assert keys_of(answers) == sorted(values) and len(answers) == 3
        assert all(len(answer.body) < PAGE_CHARS_MAX + 10_000 for answer in answers)
        assert len(pages(client, "?limit=10000", MSGPACK)) == 1

    def test_a_value_of_any_size_comes_in_some_page(self, service: FakeService) -> None:
        client = PureClient(api_of(service), service)
        values = {b"%d" % number: bytes([number]) * 2_000_000 for number in range(4)}
        service.fill(values)
        assert keys_of(pages(client)) == sorted(values)


class TestCursors:
    @pytest.mark.parametrize("reverse", ["", "&reverse=true"])
    @pytest.mark.parametrize("query", ["?prefix=", "?prefix=a", "?start=a/&end=%ff", "?start=a/", "?prefix=%ff"])
    def test_pages_go_on_where_the_last_one_ended(self, client: Client, query: str, reverse: str) -> None:
        client.service.fill(SOME)
        whole = keys_in(client.ask("GET", "/v1/kv" + query + reverse))
        assert keys_of(pages(client, f"{query}{reverse}&limit=1")) == whole
        assert [len(keys_in(answer)) for answer in pages(client, f"{query}{reverse}&limit=2")[:-1]] == [2] * (
            (len(whole) - 1) // 2
        )

    def test_a_cursor_needs_no_bounds_beside_it(self, client: Client) -> None:
        client.service.fill(SOME)
        begun = client.ask("GET", "/v1/kv?prefix=a&reverse=true&limit=1").json
        assert keys_in(client.ask("GET", "/v1/kv?cursor=" + begun["next"])) == [b"a/", b"a"]

    def test_limit_and_form_are_free_on_every_page(self, client: Client) -> None:
        client.service.fill(SOME)
        begun = client.ask("GET", "/v1/kv?limit=1").json
        for query in ("&limit=2", "&keys_only=true", "&encoding=base64", "&consistency=stale"):
            assert keys_in(client.ask("GET", f"/v1/kv?cursor={begun['next']}{query}"))[0] == b"a/"

    def test_bounds_beside_a_cursor_are_its_own_or_400(self, client: Client) -> None:
        client.service.fill(SOME)
        cursor = client.ask("GET", "/v1/kv?prefix=a&limit=1").json["next"]
        for same in ("prefix=a", "start=a&end=b", "prefix=%61", "reverse=false", "prefix=a&reverse=false"):
            assert client.ask("GET", f"/v1/kv?cursor={cursor}&{same}").status == 200, same
        others = ("prefix=b", "prefix=", "start=a", "end=b", "start=b&end=b", "prefix=a/", "reverse=true",
                  "prefix=a&start=a")  # fmt: skip
        for other in others:
            assert client.ask("GET", f"/v1/kv?cursor={cursor}&{other}").status == 400, other

    def test_a_cursor_is_valid_on_every_node(self, service: FakeService) -> None:
        first, second = PureClient(api_of(service), service), PureClient(api_of(service), service)
        service.fill(SOME)
        cursor = first.ask("GET", "/v1/kv?limit=2").json["next"]
        assert keys_in(second.ask("GET", "/v1/kv?cursor=" + cursor)) == sorted(SOME)[2:]

    def test_a_bad_cursor_is_400(self, client: Client) -> None:
        """faults 64: cut, changed, prolonged, of another version, of another alphabet."""
        client.service.fill(SOME)
        good = client.ask("GET", "/v1/kv?prefix=a&limit=1").json["next"]
        bad = ["", "A", "AAAA", good[:-1], good[1:], good + "A", good + "=", good + "%3D", good.lower(), "+" + good[1:],
               "%00" + good, good[:9] + ("B" if good[9] != "B" else "C") + good[10:],
               "A" * (CURSOR_CHARS_MAX + 1)]  # fmt: skip
        for cursor in bad:
            answer = client.ask("GET", "/v1/kv?cursor=" + cursor)
            assert (answer.status, answer.code) == (400, "bad_request"), cursor
        assert len(client.service.reads) == 1

    def test_the_longest_cursor_fits_into_a_target(self, client: Client) -> None:
        longest = [b"\xff" * 4094 + bytes([0xFF, tail]) for tail in (1, 2)]
        client.service.fill(dict.fromkeys(longest, b"v"))
        start, end = b"\xff" * 4094, b"\xff" * 4096 + b"\0"
        cursor = write_cursor(cursor_after(Bounds(start, end), reverse=False, last_key=longest[0]))
        assert len(cursor) > CURSOR_CHARS_MAX - 5 and len(cursor) < TARGET_BYTES_MAX - 1_000
        assert keys_in(client.ask("GET", "/v1/kv?cursor=" + cursor)) == longest[1:]

    KEYS = st.binary(min_size=1, max_size=4)
    ENDS = st.none() | st.binary(min_size=1, max_size=4)

    @given(st.binary(max_size=4), ENDS, st.booleans(), KEYS)
    def test_a_cursor_is_read_as_it_was_written(
        self, start: bytes, end: bytes | None, reverse: bool, last_key: bytes
    ) -> None:
        cursor = cursor_after(Bounds(start, end), reverse=reverse, last_key=last_key)
        assert read_cursor(write_cursor(cursor).encode()) == cursor
        assert cursor.digest == digest_of(Bounds(start, end))

    @given(st.binary(max_size=3), ENDS, st.booleans(), KEYS, st.data())
    def test_no_changed_cursor_is_believed(
        self, start: bytes, end: bytes | None, reverse: bool, last_key: bytes, data: st.DataObject
    ) -> None:
        good = write_cursor(cursor_after(Bounds(start, end), reverse=reverse, last_key=last_key)).encode()
        at = data.draw(st.integers(0, len(good) - 1))
        changed = (
            good[:at] + bytes([data.draw(st.integers(0, 255).filter(lambda byte: byte != good[at]))]) + good[at + 1 :]
        )
        with pytest.raises(RequestRefused):
            read_cursor(changed)

    @given(st.binary(max_size=40))
    def test_no_other_bytes_are_a_cursor(self, raw: bytes) -> None:
        for tried in (raw, base64.urlsafe_b64encode(raw).rstrip(b"=")):
            with pytest.raises(RequestRefused):
                read_cursor(tried)

    @given(st.sets(KEYS, min_size=1), st.integers(1, 3), st.booleans(), st.lists(st.tuples(KEYS, st.booleans())))
    def test_a_key_that_is_there_throughout_comes_exactly_once(
        self, keys: set[bytes], limit: int, reverse: bool, changes: list[tuple[bytes, bool]]
    ) -> None:
        """Others are put and deleted between the pages; they may come or not, but never twice."""
        service = FakeService()
        client = PureClient(api_of(service), service)
        service.fill(dict.fromkeys(sorted(keys), b"v"))
        found: list[bytes] = []
        cursor, waiting = None, list(changes)
        while True:
            query = f"?limit={limit}&reverse={str(reverse).lower()}" + (f"&cursor={cursor}" if cursor else "")
            answer = client.ask("GET", "/v1/kv" + query)
            found += keys_in(answer)
            cursor = answer.json["next"]
            if cursor is None:
                break
            if waiting:
                key, put = waiting.pop()
                raw = quote_from_bytes(key, safe="")
                if put:
                    client.put(raw)
                elif key not in keys:
                    client.delete(raw)
        assert found == sorted(set(found), reverse=reverse)
        assert keys <= set(found)


class TestConsistency:
    @pytest.mark.parametrize("level", list(Consistency))
    def test_ranges_are_read_at_the_same_levels_as_keys(self, client: Client, level: Consistency) -> None:
        client.service.fill(SOME)
        answer = client.ask("GET", f"/v1/kv?consistency={level.value}&limit=1")
        used = "linearizable" if level is Consistency.LEASE else level.value
        assert (answer.status, answer["Raftkv-Consistency"]) == (200, used)
        assert ("Raftkv-Staleness-Ms" in answer) == (level is Consistency.STALE)
        assert client.service.reads == [(Range(b"", None, 1, PAGE_BYTES_MAX), level, 0, None)]

    def test_a_follower_sends_ranges_to_the_leader(self, client: Client) -> None:
        client.service.led = FOLLOWS
        for query in ("", "?prefix=a%2F+b&limit=1", "?consistency=lease"):
            for method in ("GET", "HEAD"):
                answer = client.ask(method, "/v1/kv" + query)
                assert (answer.status, answer["Location"]) == (307, "http://n2.test:7402/v1/kv" + query)
        assert client.ask("GET", "/v1/kv?consistency=follower").status == 200
        assert client.ask("GET", "/v1/kv?consistency=stale&min_index=0&max_staleness_ms=9").status == 200
        assert [read[1:] for read in client.service.reads] == [
            (Consistency.FOLLOWER, 0, None),
            (Consistency.STALE, 0, 9),
        ]

    OUTCOMES: list[tuple[Any, str]] = [
        (TooStale(1, None, 5), "too_stale"), (ReadTimedOut(), "read_timeout"), (Refused(Why.OVERLOADED, LEADS),
        "overloaded"),
        (Refused(Why.NOT_LEADER, FOLLOWS), "not_leader"), (Refused(Why.REPLICAS_DISAGREE, LEADS), "replicas_disagree"),
    ]  # fmt: skip

    @pytest.mark.parametrize(("outcome", "code"), OUTCOMES)
    def test_what_becomes_of_a_read_of_a_range(self, client: Client, outcome: Any, code: str) -> None:
        client.service.forced_reads.append(outcome)
        answer = client.ask("GET", "/v1/kv", MSGPACK)
        assert (answer.code, answer["Content-Type"]) == (code, "application/problem+json")


class TestDeletes:
    def test_the_keys_within_the_bounds_go_at_one_revision(self, client: Client) -> None:
        client.service.fill(SOME)
        answer = client.ask("DELETE", "/v1/kv?prefix=a")
        assert (answer.status, answer.body) == (200, b'{"deleted":3,"more":false,"revision":7}')
        assert answer["Raftkv-Applied-Index"] == "7"
        assert keys_in(client.ask("GET", "/v1/kv")) == [b"b", b"\xc3\xa9", b"\xff"]
        assert client.ask("DELETE", "/v1/kv?prefix=a").json == {"deleted": 0, "more": False, "revision": 7}

    def test_a_limit_leaves_more(self, client: Client) -> None:
        client.service.fill(SOME)
        assert client.ask("DELETE", "/v1/kv?start=a/&end=%ff&limit=2").json == {
            "deleted": 2,
            "more": True,
            "revision": 7,
        }
        assert keys_in(client.ask("GET", "/v1/kv")) == [b"a", b"b", b"\xc3\xa9", b"\xff"]

    def test_an_answer_may_be_msgpack(self, client: Client) -> None:
        client.service.fill(SOME)
        answer = client.ask("DELETE", "/v1/kv?end=b", MSGPACK)
        assert answer["Content-Type"] == "application/msgpack"
        assert msgpack.unpackb(answer.body) == {"deleted": 3, "more": False, "revision": 7}

    SLIPS = [
        "", "?", "?prefix=", "?prefix", "?start=", "?start=&end=b", "?end=", "?start=a&end=", "?all=false",
        "?prefix=&all=false",
        "?all", "?all=", "?all=1", "?all=TRUE", "?all=true&prefix=a", "?all=true&start=a", "?all=true&end=a",
        "?limit=1",
        "?prefix=a&start=b", "?prefx=a", "?prefix=a&limt=1", "?prefix=a&limit=0", "?prefix=a&limit=10001",
        "?prefix=a&limit=",
        "?prefix=a&prefix=b", "?prefix=%", "?prefix=a&cursor=x", "?prefix=a&reverse=true", "?prefix=a&keys_only=true",
        "?prefix=a&consistency=stale", "?prefix=a#", "?prefix=" + "a" * 4097,
    ]  # fmt: skip

    @pytest.mark.parametrize("query", SLIPS)
    def test_a_slip_deletes_nothing(self, client: Client, query: str) -> None:
        """faults 70: a mistyped or empty bound is 400."""
        client.service.fill(SOME)
        answer = client.ask("DELETE", "/v1/kv" + query)
        assert (answer.status, answer.code) == (400, "bad_request")
        assert client.service.submitted == []

    @pytest.mark.parametrize("query", ["?all=true", "?prefix=&all=true", "?start=&all=true", "?all=true&limit=10000"])
    def test_every_key_goes_only_where_somebody_says_so(self, client: Client, query: str) -> None:
        client.service.fill(SOME)
        assert client.ask("DELETE", "/v1/kv" + query).json["deleted"] == len(SOME)

    def test_a_body_or_a_packed_one_is_refused(self, client: Client) -> None:
        assert client.ask("DELETE", "/v1/kv?prefix=a", None, b"x").status == 400
        assert client.ask("DELETE", "/v1/kv?prefix=a", {"Content-Encoding": "gzip"}).status == 415
        assert client.service.submitted == []

    def test_the_command_is_what_was_asked_for(self, client: Client) -> None:
        session = "0123456789abcdef" * 2
        headers = {"Raftkv-Session": session, "Raftkv-Sequence": "7", "Raftkv-Acknowledged": "3"}
        client.ask("DELETE", "/v1/kv?prefix=a%2f&limit=5", headers)
        ((command, frees_space),) = client.service.submitted
        decoded = decode(command)
        assert (decoded.command, frees_space) == (DeleteRange(b"a/", b"a0", 5), True)
        assert decoded.numbered == Numbered(bytes.fromhex(session), 7, 3)

    def test_a_repeated_number_gets_the_first_answer(self, client: Client) -> None:
        """faults 47."""
        client.service.fill(SOME)
        session = client.post("/v1/sessions", {}).json["session"]
        headers = {"Raftkv-Session": session, "Raftkv-Sequence": "1"}
        first = client.ask("DELETE", "/v1/kv?prefix=a&limit=1", headers)
        again = client.ask("DELETE", "/v1/kv?prefix=a&limit=1", headers)
        assert again.body == first.body == b'{"deleted":1,"more":true,"revision":7}'
        assert (again["Raftkv-Duplicate"], again["Raftkv-Applied-Index"]) == ("true", first["Raftkv-Applied-Index"])
        other = client.ask("DELETE", "/v1/kv?prefix=a&limit=2", headers)
        assert (other.status, other.code) == (422, "sequence_reused")

    def test_half_a_numbering_is_refused(self, client: Client) -> None:
        assert client.ask("DELETE", "/v1/kv?prefix=a", {"Raftkv-Sequence": "1"}).status == 400
        assert client.service.submitted == []

    def test_one_command_deletes_at_most_10000_keys(self, client: Client) -> None:
        client.service.fill({b"%05d" % number: b"" for number in range(10_001)})
        assert client.ask("DELETE", "/v1/kv?all=true").json == {"deleted": 10_000, "more": True, "revision": 10_002}
        assert client.ask("DELETE", "/v1/kv?all=true").json == {"deleted": 1, "more": False, "revision": 10_003}

    def test_one_command_touches_at_most_2_mib_but_one_key_at_least(self, client: Client) -> None:
        client.service.fill({b"%d" % number: b"x" * (MIB - 1) for number in range(3)})
        assert client.ask("DELETE", "/v1/kv?all=true").json == {"deleted": 2, "more": True, "revision": 4}
        client.service.fill({b"9": b"x" * (2 * MIB - 1)})
        assert client.ask("DELETE", "/v1/kv?start=9").json["deleted"] == 1

    @pytest.mark.parametrize("led", [FOLLOWS, LEADERLESS])
    def test_a_follower_deletes_nothing(self, client: Client, led: Any) -> None:
        client.service.led = led
        answer = client.ask("DELETE", "/v1/kv?prefix=a+b")
        assert answer.code == ("not_leader" if led is FOLLOWS else "no_leader")
        assert led is LEADERLESS or answer["Location"] == "http://n2.test:7402/v1/kv?prefix=a+b"
        assert client.service.submitted == []

    def test_a_replicas_own_answer_is_what_is_told(self, client: Client) -> None:
        client.service.forced_writes.append(Applied(9, DeleteRangeDone(4, True, 8)))
        answer = client.ask("DELETE", "/v1/kv?prefix=a")
        assert (answer.json, answer["Raftkv-Applied-Index"]) == ({"deleted": 4, "more": True, "revision": 8}, "9")


ACCEPTS = [
    ("application/msgpack", True), ("Application/MsgPack", True), ("application/msgpack;q=0.5", True),
    ("application/msgpack, application/json", True), ("application/json, application/msgpack", True),
    ("application/json;q=0.5, application/msgpack", True), ("application/msgpack; q=0.9 , */*;q=0.1", True),
    ("application/json, application/msgpack;q=0.9", False), ("application/msgpack;q=0", False), ("", False),
    ("*/*", False),
    ("application/*", False), ("application/json", False), ("text/html", False), ("application/x-msgpack", False),
    ("application/msgpackx", False), ("application/msgpack/x", False), ("\xe9, application/msgpack", True), (",;=",
    False),
]  # fmt: skip


@pytest.mark.parametrize(("accept", "is_msgpack"), ACCEPTS)
def test_accept_chooses_between_json_and_msgpack(client: Client, accept: str, is_msgpack: bool) -> None:
    client.service.fill(SOME)
    answer = client.ask("GET", "/v1/kv?limit=1", {"Accept": accept})
    assert answer["Content-Type"] == ("application/msgpack" if is_msgpack else "application/json")


def test_accept_may_come_in_several_fields(client: Client) -> None:
    accepts = [("Accept", "text/html"), ("accept", "application/msgpack")]
    assert client.ask("GET", "/v1/kv", accepts)["Content-Type"] == "application/msgpack"


def test_sessions_and_the_nodes_own_pages_are_json_whatever_is_accepted(client: Client) -> None:
    for method, path in (("POST", "/v1/sessions"), ("GET", "/v1/status"), ("GET", "/v1/admin/members")):
        assert client.ask(method, path, MSGPACK)["Content-Type"] == "application/json"
    assert client.ask("GET", "/v1/kv?limit=0", MSGPACK)["Content-Type"] == "application/problem+json"


def test_a_cursor_before_the_first_page_is_of_no_key() -> None:
    """What is left behind a key never holds that key."""
    cursor = Cursor(b"\0" * 8, False, b"k", None)
    assert cursor.rest == Bounds(b"k\0", None)
    assert cursor._replace(reverse=True, ahead=b"a").rest == Bounds(b"a", b"k")
