"""Bytes that no client and no peer of ours sends, at a node's port.

Told: an address, a seed, how many. Tells: what the node answered, by status, and answers that it should
never give. Everything here must leave the state alone: reads, writes that are unsound twice over, messages of
peers of another cluster, all of it torn, flipped and joined at random.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import Final

from raftkv.core.messages import AppendEntries, Envelope, Message, RequestVote, TimeoutNow
from raftkv.core.types import ID_BYTES, ClusterId, Incarnation, Index, NodeId, Term
from raftkv.transport import codec
from raftkv.transport.routes import INTRODUCE, TARGET_OF
from tests.live.wire import CONNECT_TIMEOUT_S, Address

AT_ONCE: Final = 12
ANSWER_WITHIN_S: Final = 0.05
_ANSWER_BYTES_MAX: Final = 64 * 1024
_HOST: Final = b" HTTP/1.1\r\nHost: n1\r\n"

_REQUESTS: Final = (
    b"GET /v1/kv/a" + _HOST + b"\r\n",
    b"HEAD /v1/kv/%00%ff%2F..%2F" + _HOST + b"\r\n",
    b"GET /v1/status" + _HOST + b"\r\nGET /healthz" + _HOST + b"\r\n",
    b"GET /v1/kv?prefix=&limit=99999999999999999999" + _HOST + b"\r\n",
    b"GET /metrics" + _HOST + b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"OPTIONS *" + _HOST + b"Expect: 100-continue\r\n\r\n",
    b"PUT /v1/kv/fuzz?mistyped=1" + _HOST + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
    b"PUT /v1/kv/fuzz?mistyped=1" + _HOST + b"Transfer-Encoding: chunked\r\nIf-Match: W/1\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"DELETE /v1/kv/fuzz?all=1&x" + _HOST + b"Raftkv-Sequence: 0\r\nIf-Match: x\r\n\r\n",
    b"PUT /v1/kv/fuzz?mistyped=1" + _HOST + b"Raftkv-Session: zz\r\nContent-Length: 99999999999999999999\r\n\r\n",
    b"POST /v1/sessions?x=1" + _HOST + b"Content-Type: text/html\r\nContent-Length: 2\r\n\r\n{}",
    b"POST /v1/admin/leader?x=1" + _HOST + b'Content-Type: text/html\r\nContent-Length: 10\r\n\r\n{"id":"n9"}',
)


@dataclass(slots=True)
class Fuzzed:
    """What came of it."""

    statuses: Counter[str] = field(default_factory=Counter)
    """Of the first answer to each input; "none" where nothing came in time."""
    findings: list[str] = field(default_factory=list)


async def fuzz(address: Address, *, inputs_count: int, seed: int) -> Fuzzed:
    """Every input was sent over a connection of its own."""
    rng, found = Random(f"fuzz {seed}"), Fuzzed()
    inputs = iter([_input(rng) for _ in range(inputs_count)])

    async def sender() -> None:
        for sent in inputs:
            _judge(found, sent, await _answer_to(address, sent, half_closes=sent[-1:] < b"\x40"))

    await asyncio.gather(*(sender() for _ in range(AT_ONCE)))
    return found


def _judge(found: Fuzzed, sent: bytes, answer: bytes | None) -> None:
    if answer is None:
        found.findings.append(f"the node took no connection for {sent[:200]!r}")
    elif not answer:
        found.statuses["none"] += 1
    elif not answer.startswith(b"HTTP/1.1 "):
        found.findings.append(f"{sent[:200]!r} was answered {answer[:100]!r}")
    else:
        status = answer[9:12].decode("latin-1")
        found.statuses[status] += 1
        if status == "500" or b'"internal"' in answer:
            found.findings.append(f"{sent[:400]!r} was answered {answer[:300]!r}")


async def _answer_to(address: Address, sent: bytes, *, half_closes: bool) -> bytes | None:
    """What came back within a short time; None: no connection."""
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(*address)
    except (OSError, TimeoutError):
        return None
    try:
        writer.write(sent)
        if half_closes:
            writer.write_eof()
        async with asyncio.timeout(ANSWER_WITHIN_S):
            return await reader.read(_ANSWER_BYTES_MAX)
    except (OSError, TimeoutError):
        return b""
    finally:
        writer.transport.abort()


def _input(rng: Random) -> bytes:
    kind = rng.random()
    if kind < 0.1:
        return rng.randbytes(rng.randrange(1, 3000))
    whole = _peers_request(rng) if kind < 0.45 else rng.choice(_REQUESTS)
    if rng.random() < 0.1:
        whole += rng.choice(_REQUESTS)
    for _ in range(rng.choice([0, 1, 1, 2, 8])):
        whole = _mutated(rng, whole)
    return whole or b"\r\n"


def _peers_request(rng: Random) -> bytes:
    """A message as a peer sends it, but of a cluster that is not this one."""
    term = Term(rng.choice([0, 1, 2**31, 2**63 - 1]))
    ids = [Incarnation(rng.randbytes(ID_BYTES)) for _ in range(2)]
    messages: list[Message] = [
        RequestVote(term, Index(2**40), term, transfer=True),
        AppendEntries(term, Index(0), Term(0), Index(2**40), []),
        TimeoutNow(term),
    ]
    message = rng.choice(messages)
    sender, receiver = NodeId("n1"), NodeId("n2")
    envelope = Envelope(ClusterId(rng.randbytes(ID_BYTES)), sender, ids[0], receiver, ids[1], message)
    target, body = TARGET_OF[type(message)], codec.encode(envelope)
    if rng.random() < 0.3:
        target, body = INTRODUCE, rng.randbytes(rng.randrange(200))
    if rng.random() < 0.5:
        body = _mutated(rng, body)
    head = b"POST %b%bContent-Type: application/msgpack\r\nContent-Length: %d\r\n\r\n" % (target, _HOST, len(body))
    return head + body


def _mutated(rng: Random, whole: bytes) -> bytes:
    at = rng.randrange(len(whole) + 1)
    upto = min(len(whole), at + rng.randrange(1, 30))
    match rng.randrange(6):
        case 0:
            return whole[:at] + bytes([rng.randrange(256)]) + whole[at + 1 :]
        case 1:
            return whole[:at] or whole
        case 2:
            return whole[:at] + whole[upto:]
        case 3:
            return whole[:upto] + whole[at:]
        case 4:
            return whole[:at] + rng.randbytes(rng.randrange(1, 40)) + whole[at:]
    return whole[:at] + whole[at:upto] * rng.choice([2, 500]) + whole[upto:]
