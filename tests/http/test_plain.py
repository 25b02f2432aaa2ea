"""What is told at a glance is what the strict reader would have told."""

from __future__ import annotations

import random
import re
from types import SimpleNamespace
from typing import Any

import pytest

from raftkv.api.plain import NUMBERING
from raftkv.api.requests import ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HEEDED
from raftkv.client import course
from raftkv.errors import UnsoundRequest
from raftkv.http.exchange import encode_request
from raftkv.http.framing import body_of
from raftkv.http.heads import Head, read_head
from raftkv.http.plain import PlainReader

ASKING = HEEDED - {CONTENT_LENGTH, CONTENT_TYPE, ACCEPT}
ANY_TARGET = rb"(/[!\"$-~]{0,8192}+)"
LINES = [
    *(
        b"GET /v1/kv/a HTTP/1.1",
        b"PUT /v1/kv/a HTTP/1.1",
        b"DELETE /v1/kv/a HTTP/1.1",
        b"PUT /v1/kv/a%2Fb?x=1 HTTP/1.1",
        b"GET /v1/kv/a HTTP/1.0",
    ),
    *(b"HEAD /v1/kv/a HTTP/1.1", b"get / HTTP/1.1", b"PUT  / HTTP/1.1", b"PUT /# HTTP/1.1", b"GET /\x7f HTTP/1.1"),
]
FIELDS = [
    *(b"Host: n1", b"host:n1", b"Host: n2", b"Content-Length: 3", b"Content-Length: 0", b"Content-Length: +3"),
    *(b"Content-Length: 3, 3", b"Transfer-Encoding: chunked", b"Expect: 100-continue", b"Connection: close"),
    *(b"Connection: keep-alive", b"Upgrade: websocket", b"Connection: upgrade", b"If-Match: *", b"X: y", b"X : y"),
    *(b" folded", b"Raftkv-Session: 00", b"Content-Encoding: gzip", b"Accept: x", b"User-Agent: \xff", b"X: \x00"),
    *(b"Content-Type: text/plain", b"X: y\nContent-Length: 9", b""),
]
SESSION = b"Raftkv-Session: 0123456789abcdef0123456789abcdef"
NUMBERINGS = [
    *([SESSION, b"Raftkv-Sequence: 7"], [SESSION, b"Raftkv-Sequence: 12", b"Raftkv-Acknowledged: 0"]),
    *([SESSION, b"Raftkv-Sequence: 999999999999999999", b"Raftkv-Acknowledged: 11"],),
]
"""In the one form that is known."""
OTHER_NUMBERINGS = [
    *([SESSION], [b"Raftkv-Sequence: 7"], [b"Raftkv-Acknowledged: 7"], [b"Raftkv-Sequence: 7", SESSION]),
    *([SESSION, b"Raftkv-Sequence: 0"], [SESSION, b"Raftkv-Sequence: 07"], [SESSION, b"Raftkv-Sequence: +7"]),
    *([SESSION, b"Raftkv-Sequence: 7 "], [SESSION, b"Raftkv-Sequence:7"], [SESSION, b"Raftkv-Sequence: 7,8"]),
    *([SESSION, b"Raftkv-Sequence: 9999999999999999999"], [SESSION, b"Raftkv-Sequence: 7x"]),
    *([SESSION.upper(), b"Raftkv-Sequence: 7"], [SESSION + b"0", b"Raftkv-Sequence: 7"]),
    *([SESSION, b"raftkv-sequence: 7"], [SESSION, b"X: y", b"Raftkv-Sequence: 7"], [SESSION, b" Raftkv-Sequence: 7"]),
    *([SESSION, b"Raftkv-Sequence: 7", b"Raftkv-Sequence: 7"], [SESSION, b"Raftkv-Sequence: 7", b" 8"]),
    *([SESSION, b"Raftkv-Sequence: 7", b"Raftkv-Acknowledged: x"], [SESSION, b"Raftkv-Sequence: 7", SESSION]),
    *([SESSION, b"Raftkv-Sequence: 7", b"Raftkv-Acknowledged: 1", b"Raftkv-Acknowledged: 1"], NUMBERINGS[0] * 2),
    *([b"X: y" + SESSION, b"Raftkv-Sequence: 7"], [b"X: y\n" + SESSION, b"Raftkv-Sequence: 7"]),
]
BODIES = [b"", b"abc", b"ab", b"abcd", b"3\r\nabc\r\n0\r\n\r\n", b"abcGET / HTTP/1.1\r\nHost: n1\r\n\r\n"]
RUNS = 30_000


def drawn(rng: random.Random) -> bytes:
    """Mostly sound, now and then not."""
    fields = [rng.choice(FIELDS[:1] * 9 + FIELDS[1:3])] if rng.random() < 0.95 else []
    fields += rng.sample(FIELDS[3:], rng.choice([0, 0, 1, 1, 1, 2, 3]))
    rng.shuffle(fields)
    at = rng.randrange(len(fields) + 1)
    fields[at:at] = rng.choice([[], [], rng.choice(NUMBERINGS), rng.choice(OTHER_NUMBERINGS)])
    line = rng.choice(LINES[:2] * 6 + LINES[2:])
    end = b"\r\n\r\n" if rng.random() < 0.97 else rng.choice([b"\r\n", b"\n\n", b"\r\n\r"])
    return b"\r\n".join([line, *fields]) + end + rng.choice(BODIES)


def without_numbering(head: Head) -> tuple[list[bytes], list[bytes]]:
    """Its fields apart from a numbering in the known form, and the values of that: by lines, as the contract has it."""
    lines = head.fields.removeprefix(b"\r\n").removesuffix(b"\r\n").split(b"\r\n")
    for at, line in enumerate(lines[:-1]):
        count = rb" [1-9][0-9]{0,17}"
        forms = [
            rb"Raftkv-Session: [0-9a-f]{32}",
            rb"Raftkv-Sequence:" + count,
            rb"Raftkv-Acknowledged:( 0|%b)" % count,
        ]
        parts = 3 if at + 2 < len(lines) and re.fullmatch(forms[2], lines[at + 2]) else 2
        if all(map(re.fullmatch, forms, [line, *lines[at + 1 : at + parts]])):
            return lines[:at] + lines[at + parts :], [one.split(b" ")[1] for one in lines[at : at + parts]]
    return lines, []


def is_plain(head: Head, rest: list[bytes], data: bytes) -> bool:
    """Said once more, from the strict reader's words alone."""
    asks = any(line.lower().startswith(name + b":") for name in ASKING for line in rest)
    lives_on = head.keep_alive and head.minor_version == 1 and not head.upgrades and not head.expects_continue
    whole = not head.chunked and len(data) - head.end >= head.content_length
    return lives_on and whole and not asks and head.method in (b"GET", b"PUT", b"DELETE")


def reader_of_all_targets() -> PlainReader:
    return PlainReader(target=ANY_TARGET, numbering=NUMBERING, heeded=ASKING)


def test_it_agrees_with_the_strict_reader() -> None:
    """faults 66: also on what it has seen before, for each block of fields comes many times."""
    rng, reader, plain_count, numbered_count = random.Random(7), reader_of_all_targets(), 0, 0
    for _ in range(RUNS):
        before, data = rng.choice([b"", b"", b"abc\r\n"]), drawn(rng)
        try:
            head = read_head(data)
        except UnsoundRequest:
            head = None
        told = reader.read(before + data, len(before))
        rest, numbers = ([], []) if head is None else without_numbering(head)
        if head is None or not is_plain(head, rest, data):
            assert told is None, data
            continue
        assert told is not None, data
        body = data[head.end : head.end + head.content_length]
        assert (told.method, told.target, told.body) == (head.method, head.target, body)
        assert told.end == len(before) + head.end + head.content_length
        assert [number for number in told.numbering or () if number is not None] == numbers, data
        assert body_of(head) is None or len(told.body) == head.content_length
        plain_count += 1
        numbered_count += bool(numbers)
    assert plain_count > RUNS // 20 and numbered_count > RUNS // 60


@pytest.mark.parametrize("numbering", OTHER_NUMBERINGS)
def test_a_number_in_any_other_form_is_not_told(numbering: list[bytes]) -> None:
    """faults 66: nor after the known form has been seen beside the same fields."""
    reader = reader_of_all_targets()
    for before in ([], [b"Host: n1"]):
        for after in ([], [b"Content-Length: 0"]):
            host = [] if before else [b"Host: n1"]
            known = b"\r\n".join([LINES[1], *before, *NUMBERINGS[0], *host, *after]) + b"\r\n\r\n"
            told = reader.read(known)
            assert told is not None and told.numbering is not None and told.numbering[1] == b"7"
            other = b"\r\n".join([LINES[1], *before, *numbering, *host, *after]) + b"\r\n\r\n"
            assert reader.read(other) is None


@pytest.mark.parametrize("acknowledged", [0, 41])
@pytest.mark.parametrize("method", [b"PUT", b"DELETE"])
def test_what_our_own_client_sends_is_told(method: bytes, acknowledged: int) -> None:
    """Its numbered writes are meant: in another form they would cost twice as much."""
    session: Any = SimpleNamespace(id="0123456789abcdef" * 2, acknowledged=acknowledged)
    numbered: Any = SimpleNamespace(session=session, number=42)
    fields = course.numbering(numbered)
    body = b"value" if method == b"PUT" else b""
    told = reader_of_all_targets().read(
        encode_request(method, b"/v1/kv/a", authority=b"127.0.0.1:7401", fields=fields, body=body)
    )
    assert told is not None
    assert (told.method, told.target, told.body) == (method, b"/v1/kv/a", body)
    assert told.numbering == (session.id.encode(), b"42", b"41" if acknowledged else None)


def test_requests_behind_each_other_are_told_one_by_one() -> None:
    reader = reader_of_all_targets()
    requests = [
        b"PUT /a HTTP/1.1\r\nHost: n1\r\n%b\r\nContent-Length: 3\r\n\r\nabc" % b"\r\n".join(NUMBERINGS[0]),
        b"GET /b HTTP/1.1\r\nHost: n1\r\n\r\n",
        b"PUT /c HTTP/1.1\r\nHost: n1\r\nContent-Length: 29\r\n\r\nGET /x HTTP/1.1\r\nHost: n1\r\n\r\n",
    ]
    data, at, targets = b"".join(requests), 0, []
    while (told := reader.read(data, at)) is not None:
        at = told.end
        targets.append(told.target)
    assert targets == [b"/a", b"/b", b"/c"] and at == len(data)


@pytest.mark.parametrize("missing", range(1, 60))
def test_a_request_that_is_not_all_there_is_not_told(missing: int) -> None:
    whole = b"PUT /v1/kv/a HTTP/1.1\r\nHost: n1\r\nContent-Length: 3\r\n\r\nabc"
    reader = reader_of_all_targets()
    assert reader.read(whole) is not None
    assert reader.read(whole[:-missing]) is None


def test_blocks_of_fields_are_not_remembered_without_end() -> None:
    """faults 65: a client that sends other fields each time costs no memory."""
    reader = reader_of_all_targets()
    for number in range(5_000):
        assert reader.read(b"GET / HTTP/1.1\r\nHost: n1\r\nX: %d\r\n\r\n" % number) is not None
    assert len(reader._body_bytes) <= 1024
    assert reader.read(b"GET / HTTP/1.1\r\nHost: n1\r\nX: %b\r\n\r\n" % (b"x" * 2_000)) is None
