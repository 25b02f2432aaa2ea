"""The strict reading of heads and of body framing, without any socket."""

from __future__ import annotations

from itertools import pairwise

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftkv.errors import UnsoundRequest
from raftkv.http.framing import ChunkedBody, FixedBody, body_of
from raftkv.http.heads import HEAD_BYTES_MAX, TARGET_BYTES_MAX, Head, read_head
from tests.http.smuggling import BODIES, HEADS

GOOD = b"PUT /v1/kv/a%2Fb?x=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nX-A: 1\r\nx-a:\t2 \r\n\r\n"


def whole(data: bytes) -> Head:
    head = read_head(data)
    assert head is not None
    return head


@pytest.mark.parametrize("name", HEADS)
def test_head_that_could_smuggle_is_refused(name):
    """faults 66: refused, with the status that belongs to it."""
    raw, status = HEADS[name]
    with pytest.raises(UnsoundRequest) as refused:
        read_head(raw.replace(b"%b", b"/raft/echo"))
    assert refused.value.status == status


def test_sound_head_is_read():
    head = whole(GOOD + b"abc")
    assert (head.method, head.target, head.minor_version) == (b"PUT", b"/v1/kv/a%2Fb?x=1", 1)
    assert (head.content_length, head.chunked, head.keep_alive, head.end) == (3, False, True, len(GOOD))
    assert head.values(b"x-a") == [b"1", b"2"]
    assert head.value(b"x-a") == b"1, 2"
    assert head.value(b"absent") is None


@pytest.mark.parametrize(
    ("fields", "minor", "keeps"),
    [
        (b"", 1, True),
        (b"Connection: close\r\n", 1, False),
        (b"Connection: x, Close\r\n", 1, False),
        (b"Connection: keep-alive\r\nConnection: close\r\n", 1, False),
        (b"", 0, False),
        (b"Connection: Keep-Alive\r\n", 0, True),
    ],
)
def test_keep_alive_follows_version_and_connection(fields, minor, keeps):
    assert whole(b"GET / HTTP/1.%d\r\nHost: x\r\n%b\r\n" % (minor, fields)).keep_alive is keeps


@pytest.mark.parametrize("target", [b"/", b"*", b"/v1/kv/..%2f..", b"/v1/kv/%00%ff", b'/a"<>\\^`{|}', b"//x"])
def test_target_comes_as_it_was_sent(target):
    """faults 64: nothing is decoded or normalised here."""
    assert whole(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % target).target == target


def test_limits_are_reached_and_not_passed():
    line = b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n"
    assert len(whole(line % (b"a" * (TARGET_BYTES_MAX - 1))).target) == TARGET_BYTES_MAX
    with pytest.raises(UnsoundRequest, match="414"):
        read_head(line % (b"a" * TARGET_BYTES_MAX))
    rest = HEAD_BYTES_MAX - len(b"GET / HTTP/1.1\r\nHost: x\r\nX: \r\n\r\n")
    full = b"GET / HTTP/1.1\r\nHost: x\r\nX: %b\r\n\r\n"
    assert whole(full % (b"a" * rest)).end == HEAD_BYTES_MAX
    with pytest.raises(UnsoundRequest, match="431"):
        read_head(full % (b"a" * (rest + 1)))


@pytest.mark.parametrize("cut", range(len(GOOD)))
def test_every_beginning_of_a_sound_head_waits_for_more(cut):
    assert read_head(GOOD[:cut]) is None


def test_refusal_does_not_wait_for_the_end_of_the_head():
    for start in (b"\x16\x03\x01", b"get ", b"GET / HTTP/1.1\n", b"GET / HTTP/1.1\r\nX: \0", b"GET / HTTP/1.1\rX"):
        with pytest.raises(UnsoundRequest):
            read_head(start)


def read_in_pieces(raw: bytes, stops: list[int]) -> None:
    checked = 0
    for stop in stops:
        assert read_head(raw[:stop], checked=checked) is None
        checked = stop


@given(st.sampled_from(sorted(HEADS)), st.data())
@settings(max_examples=300)
def test_refusal_is_the_same_however_the_bytes_arrive(name, data):
    """What an earlier call has checked is not judged again, and nothing slips through between two calls."""
    raw = HEADS[name][0].replace(b"%b", b"/raft/echo")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=4)))
    with pytest.raises(UnsoundRequest):
        read_in_pieces(raw, [*cuts, len(raw)])


def scan(body: ChunkedBody | FixedBody, raw: bytes, cuts: list[int]) -> tuple[bytes, bytes]:
    """Payload, and what is left behind the body, when it arrives in these pieces."""
    payload: list[bytes] = []
    held = b""
    for start, stop in pairwise([0, *cuts, len(raw)]):
        held += raw[start:stop]
        held = held[body.scan(held, 0, payload) :]
    return b"".join(payload), held


@given(st.lists(st.binary(min_size=1, max_size=20), max_size=5), st.binary(max_size=5), st.data())
def test_chunks_are_the_payload_however_they_arrive(chunks, behind, data):
    raw = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n" + behind
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=6)))
    body = ChunkedBody()
    assert scan(body, raw, cuts) == (b"".join(chunks), behind)
    assert body.done


@given(st.sampled_from(sorted(BODIES)), st.data())
def test_chunks_that_could_smuggle_are_refused_however_they_arrive(name, data):
    """faults 66."""
    raw = BODIES[name][0].replace(b"%b", b"/raft/echo")
    raw = raw[whole(raw).end :]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=4)))
    with pytest.raises(UnsoundRequest):
        scan(ChunkedBody(), raw, cuts)


class Oracle:
    """What llhttp, which both httptools and aiohttp stand on, makes of the same bytes."""

    def __init__(self) -> None:
        self.messages: list[list[bytes]] = []

    def on_url(self, url: bytes) -> None:
        self.messages[-1][0] += url

    def on_message_begin(self) -> None:
        self.messages.append([b"", b""])

    def on_body(self, body: bytes) -> None:
        self.messages[-1][1] += body


def ours(raw: bytes) -> list[list[bytes]] | None:
    """Target and payload of every message; None: refused, or not whole."""
    messages, at = [], 0
    try:
        while at < len(raw):
            head = read_head(raw, at)
            if head is None or head.upgrades:
                return None
            payload: list[bytes] = []
            at, body = head.end, body_of(head)
            if body is not None:
                at = body.scan(raw, at, payload)
                if not body.done:
                    return None
            messages.append([head.target, b"".join(payload)])
    except UnsoundRequest:
        return None
    return messages


LINES = (
    b"GET /a HTTP/1.1\r\n|POST /b HTTP/1.1\r\n|PUT /c HTTP/1.0\r\n|Host: x\r\n|Content-Length: 4\r\n"
    b"|Content-Length: 0\r\n"
    b"|Transfer-Encoding: chunked\r\n|X: \xff \r\n|\r\n|abcd|4\r\nabcd\r\n|0\r\n\r\n|0\r\n|\n|\r| |\t|:|\0|4;x\r\n|,"
)
MESSAGES = (
    b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n|POST /b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"|POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n"
)
PIECES = st.sampled_from((LINES + b"|" + MESSAGES).split(b"|"))


@given(st.lists(PIECES, min_size=1, max_size=8))
@settings(max_examples=800)
def test_what_is_accepted_is_what_the_other_parser_reads(pieces):
    """faults 66: wherever we accept, llhttp sees the same requests with the same bodies."""
    raw = b"".join(pieces)
    read = ours(raw)
    if read is None or b"HTTP/1.0" in raw:  # llhttp takes nothing behind a request of 1.0
        return
    oracle = Oracle()
    httptools.HttpRequestParser(oracle).feed_data(raw)
    assert oracle.messages == read
