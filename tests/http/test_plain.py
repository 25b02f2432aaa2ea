"""What is told at a glance is what the strict reader would have told."""

from __future__ import annotations

import random

import pytest

from raftkv.api.requests import ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HEEDED
from raftkv.errors import UnsoundRequest
from raftkv.http.framing import body_of
from raftkv.http.heads import Head, read_head
from raftkv.http.plain import PlainReader

ASKING = HEEDED - {CONTENT_LENGTH, CONTENT_TYPE, ACCEPT}
LINES = [
    *(b"GET /v1/kv/a HTTP/1.1", b"PUT /v1/kv/a HTTP/1.1", b"PUT /v1/kv/a%2Fb?x=1 HTTP/1.1", b"GET /v1/kv/a HTTP/1.0"),
    *(b"HEAD /v1/kv/a HTTP/1.1", b"get / HTTP/1.1", b"PUT  / HTTP/1.1", b"PUT /# HTTP/1.1", b"GET /\x7f HTTP/1.1"),
]
FIELDS = [
    *(b"Host: n1", b"host:n1", b"Host: n2", b"Content-Length: 3", b"Content-Length: 0", b"Content-Length: +3"),
    *(b"Content-Length: 3, 3", b"Transfer-Encoding: chunked", b"Expect: 100-continue", b"Connection: close"),
    *(b"Connection: keep-alive", b"Upgrade: websocket", b"Connection: upgrade", b"If-Match: *", b"X: y", b"X : y"),
    *(b" folded", b"Raftkv-Session: 00", b"Content-Encoding: gzip", b"Accept: x", b"User-Agent: \xff", b"X: \x00"),
    *(b"Content-Type: text/plain", b"X: y\nContent-Length: 9", b""),
]
BODIES = [b"", b"abc", b"ab", b"abcd", b"3\r\nabc\r\n0\r\n\r\n", b"abcGET / HTTP/1.1\r\nHost: n1\r\n\r\n"]
RUNS = 30_000


def drawn(rng: random.Random) -> bytes:
    """Mostly sound, now and then not."""
    fields = [rng.choice(FIELDS[:1] * 9 + FIELDS[1:3])] if rng.random() < 0.95 else []
    fields += rng.sample(FIELDS[3:], rng.choice([0, 0, 1, 1, 1, 2, 3]))
    rng.shuffle(fields)
    line = rng.choice(LINES[:2] * 6 + LINES[2:])
    end = b"\r\n\r\n" if rng.random() < 0.97 else rng.choice([b"\r\n", b"\n\n", b"\r\n\r"])
    return b"\r\n".join([line, *fields]) + end + rng.choice(BODIES)


def is_plain(head: Head, data: bytes) -> bool:
    """Said once more, from the strict reader's words alone."""
    asks = any(head.value(name) is not None for name in ASKING)
    lives_on = head.keep_alive and head.minor_version == 1 and not head.upgrades and not head.expects_continue
    whole = not head.chunked and len(data) - head.end == head.content_length
    return lives_on and whole and not asks and head.method in (b"GET", b"PUT")


def test_it_agrees_with_the_strict_reader() -> None:
    """faults 66: also on what it has seen before, for each block of fields comes many times."""
    rng, reader, plain_count = random.Random(7), PlainReader(ASKING), 0
    for _ in range(RUNS):
        data = drawn(rng)
        try:
            head = read_head(data)
        except UnsoundRequest:
            head = None
        told = reader.read(data)
        if head is None or not is_plain(head, data):
            assert told is None, data
            continue
        assert told is not None, data
        assert (told.method, told.target, told.body) == (head.method, head.target, data[head.end :])
        assert body_of(head) is None or len(told.body) == head.content_length
        plain_count += 1
    assert plain_count > RUNS // 20


@pytest.mark.parametrize("missing", range(1, 60))
def test_a_request_that_is_not_all_there_is_not_told(missing: int) -> None:
    whole = b"PUT /v1/kv/a HTTP/1.1\r\nHost: n1\r\nContent-Length: 3\r\n\r\nabc"
    reader = PlainReader(ASKING)
    assert reader.read(whole) is not None
    assert reader.read(whole[:-missing]) is None


def test_blocks_of_fields_are_not_remembered_without_end() -> None:
    """faults 65: a client that sends other fields each time costs no memory."""
    reader = PlainReader(ASKING)
    for number in range(5_000):
        assert reader.read(b"GET / HTTP/1.1\r\nHost: n1\r\nX: %d\r\n\r\n" % number) is not None
    assert len(reader._body_bytes) <= 1024
    assert reader.read(b"GET / HTTP/1.1\r\nHost: n1\r\nX: %b\r\n\r\n" % (b"x" * 2_000)) is None
