"""Bytes that nobody would send on purpose: every one is answered or cut off, none hurts."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator

import pytest

from raftkv.api.requests import Head
from raftkv.api.responses import Response
from tests.api.conftest import api_of
from tests.api.fronts import PATIENCE_SECONDS, AiohttpClient, Answer, parse_answer, request_bytes
from tests.api.service import FakeService

CONNECTIONS = 3_000
HEADS = 20_000

SEEDS = [
    request_bytes("GET", b"/v1/kv/a%2Fb?consistency=stale&min_index=1", [("If-None-Match", '"1"')], None),
    request_bytes("PUT", b"/v1/kv/a", [("Raftkv-Session", "0" * 31 + "1"), ("Raftkv-Sequence", "1")], b"value"),
    request_bytes("PUT", b"/v1/kv/a", [("Transfer-Encoding", "chunked")], None) + b"3\r\nval\r\n2\r\nue\r\n0\r\n\r\n",
    request_bytes("PUT", b"/v1/kv/a", [("Expect", "100-continue"), ("If-Match", "*")], b"value"),
    request_bytes("DELETE", b"/v1/kv/%ff", [("If-Match", '"1"')], None),
    request_bytes("POST", b"/v1/sessions", [("Content-Type", "application/json")], b'{"ttl_ms":2000}'),
    request_bytes("POST", b"/v1/sessions", [("Content-Type", "application/msgpack")], b"\x81\xa6ttl_ms\xcd\x07\xd0"),
    request_bytes("POST", b"/v1/admin/leader", [("Content-Type", "application/json")], b'{"id":"n2"}'),
    request_bytes("GET", b"/metrics", [("Upgrade", "websocket"), ("Connection", "Upgrade")], None),
]
TOKENS = [b"\r\n", b"\n", b"\r", b"\0", b"%", b"%00", b"#", b"?", b"&", b"=", b"+", b" ", b"\t", b":", b'"', b"*",
          b"W/", b"/..", b"//", b"\xff", b"\xc3\xa9", b"0", b"-1", b"99999999999999999999", b"chunked", b"gzip",
          b"HTTP/1.0", b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"{",
          b"[" * 50, b"\xdd\xff\xff\xff\xff"]  # fmt: skip


def mutated(rng: random.Random) -> bytes:
    raw = bytearray(b"".join(rng.choices(SEEDS, k=rng.choice([1, 1, 1, 2, 3]))))
    for _ in range(rng.choice([1, 1, 2, 3, 8])):
        at = rng.randrange(len(raw) + 1)
        match rng.randrange(5):
            case 0:
                raw[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                raw[at:at] = rng.choice(TOKENS)
            case 2:
                del raw[at : at + rng.randrange(1, 20)]
            case 3:
                raw[at:at] = raw[at : at + rng.randrange(1, 40)]
            case _:
                raw[at : at + 1] = rng.choice(TOKENS)
    return bytes(raw)


def everything_after(port: int, raw: bytes) -> bytes:
    """What comes back until the server closes, once we have said all that we will."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS) as connection:
        received = b""
        try:
            connection.sendall(raw)
            connection.shutdown(socket.SHUT_WR)
            while more := connection.recv(1 << 16):
                received += more
        except (ConnectionResetError, BrokenPipeError):
            pass  # cut off while it was still sending; what was received before still counts
        return received


def answers_in(received: bytes) -> Iterator[Answer]:
    while received:
        answer, received = parse_answer(received)
        yield answer


def complaint_about(answer: Answer) -> str | None:
    """What is wrong with an answer to anything at all; None: nothing."""
    if answer.status == 100:
        return None
    if answer.status >= 500:
        return "a client's bytes never make a server's fault"
    if answer.status >= 300 and answer.status != 304 and not answer.code:
        return "a refusal has a code"
    if (answer["Cache-Control"], answer["Raftkv-Node"]) != ("no-store", "n1"):
        return "an answer of somebody else"
    return None


def test_mutated_requests_are_answered_or_cut_off(wired: AiohttpClient, caplog: pytest.LogCaptureFixture) -> None:
    """faults 63, 64, 66: a few thousand broken requests; no 500, no log line, no hanging connection."""
    rng = random.Random(64)
    failures: list[object] = []
    wired.thread.call(lambda: wired.thread.loop.set_exception_handler(lambda _, context: failures.append(context)))
    statuses: dict[int, int] = {}
    for number in range(CONNECTIONS):
        raw = mutated(rng)
        for answer in answers_in(everything_after(wired.port, raw)):
            statuses[answer.status] = statuses.get(answer.status, 0) + 1
            assert complaint_about(answer) is None, (number, raw, answer)
    assert failures == [] and caplog.records == []
    assert wired.front.room.taken_bytes == 0
    assert wired.put("still-serving").status == 201
    assert statuses[400] > CONNECTIONS // 10 and statuses[200] > CONNECTIONS // 10, statuses


@pytest.mark.parametrize(
    "planted",
    [
        Answer(500, (("Content-Type", "application/problem+json"),), b'{"code":"internal"}'),
        Answer(200, (("Cache-Control", "public"), ("Raftkv-Node", "n1")), b""),
        Answer(400, (("Content-Type", "application/problem+json"),), b'{"code":""}'),
    ],
)
def test_the_fuzzer_notices_bad_answers(planted: Answer) -> None:
    assert complaint_about(planted) is not None


def hostile_head(rng: random.Random) -> Head:
    names = [b"If-Match", b"If-None-Match", b"Raftkv-Session", b"Raftkv-Sequence", b"Raftkv-Acknowledged",
             b"Content-Type", b"Content-Encoding", b"Content-Length", b"Transfer-Encoding", b"X"]  # fmt: skip
    targets = [b"/v1/kv/", b"/v1/kv/a", b"/v1/sessions", b"/v1/sessions/" + b"0" * 32, b"/v1/status", b"/", b""]
    noise = rng.choice([rng.choice(TOKENS), rng.randbytes(rng.randrange(6)), b""])
    values = [*TOKENS, b'"1"', b"1", b"0" * 32, b"application/json", rng.randbytes(5)]
    headers = [(rng.choice(names), rng.choice(values)) for _ in range(rng.randrange(4))]
    method = rng.choice(["GET", "HEAD", "PUT", "DELETE", "POST", "CONNECT", ""])
    return Head(method, rng.choice(targets) + noise, headers, rng.choice([(1, 1), (1, 1), (1, 0), (3, 7)]))


def test_hostile_heads_are_judged_without_a_fault() -> None:
    """faults 64: whatever a front lets through, the semantics have an answer that is no server's fault."""
    service = FakeService()
    api, rng = api_of(service), random.Random(64)
    for _ in range(HEADS):
        head = hostile_head(rng)
        decision = api.begin(head)
        answers = [decision] if isinstance(decision, Response) else []
        if not isinstance(decision, Response):
            decision.finish(rng.choice([b"", b"{}", b"\x80", rng.randbytes(8)]), answers.append)
        (answer,) = answers
        assert answer.status < 500, head
        api.encode(answer, connection=None, date="")
