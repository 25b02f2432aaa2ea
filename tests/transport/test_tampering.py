"""Whatever somebody between two nodes does to the bytes: each hears a beginning of what the other said, or nothing.

What is cut, changed, doubled, moved or put in is drawn by hypothesis; it may also be taken from another connection of
the same two nodes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv.core.messages import Envelope, Introduction
from raftkv.core.types import NodeId
from raftkv.http.client import ExchangeLimits
from raftkv.http.handling import ServerSettings
from raftkv.http.server import ServerProtocol
from raftkv.node.doors import PeersOnly
from raftkv.transport import codec, seals
from raftkv.transport.farewell import Farewell
from raftkv.transport.guard import PeerGate
from raftkv.transport.routes import APPEND_ENTRIES, HELLO, INTRODUCE, PeerExchange, PeerRoutes
from raftkv.transport.sealed import Credentials, SealedProtocol
from raftkv.transport.seals import Hello, PeerKeys, Session
from raftkv.transport.secret import PeerSecret
from tests.http.fronts import post
from tests.transport.samples import envelope, heartbeat, introduction

SECRET = PeerSecret(b"the secret of these peers")
KEYS = PeerKeys(SECRET)
ONE, TWO = NodeId("n1"), NodeId("n2")
MSGPACK = b"Content-Type: application/msgpack"
SAID: list[Introduction | Envelope] = [introduction(), *(envelope(heartbeat(round)) for round in range(1, 6))]
ELSEWHERE: list[Introduction | Envelope] = [
    introduction(formed=False),
    *(envelope(heartbeat(round)) for round in range(11, 16)),
]
TARGETS = [INTRODUCE, *[APPEND_ENTRIES] * 5]


class Pipe(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.is_ended = False

    def write(self, data: Any) -> None:
        self.written += data

    def writelines(self, parts: Any) -> None:
        self.written += b"".join(parts)

    def abort(self) -> None:
        self.is_ended = True

    close = write_eof = abort

    def can_write_eof(self) -> bool:
        return True

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Second:
    """The node that is asked."""

    def __init__(self) -> None:
        self.heard: list[Introduction | Envelope] = []

    def on_message(self, envelope: Envelope, exchange: PeerExchange) -> None:
        self.heard.append(envelope)
        exchange.reply(envelope)

    def on_introduction(self, introduction: Introduction, exchange: PeerExchange) -> None:
        self.heard.append(introduction)
        exchange.introduce(introduction)

    def on_farewell(self, said: Farewell, exchange: PeerExchange) -> None:
        raise AssertionError("nobody has said that")


class First:
    """The node that asks."""

    def __init__(self) -> None:
        self.answers: list[bytes] = []

    def on_answer(self, context: Any, status: int, body: bytes) -> None:
        assert status == 200
        assert context == len(self.answers)
        self.answers.append(body)

    def on_failed(self, context: Any, why: str) -> None: ...

    def on_lost(self, why: str) -> None: ...


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


def signed(target: bytes, body: bytes, proof: bytes) -> bytes:
    return post(target, body, MSGPACK, b"Authorization: " + proof)


def bodies_of(said: list[Introduction | Envelope]) -> list[bytes]:
    return [codec.encode_introduction(each) if isinstance(each, Introduction) else codec.encode(each) for each in said]


def asked(
    loop: asyncio.AbstractEventLoop, said: list[Introduction | Envelope]
) -> tuple[Second, ServerProtocol, list[bytes], Pipe]:
    """A connection to n2 on which n1 was welcomed, and how n1 says this on it."""
    second, pipe = Second(), Pipe()
    gate = PeerGate(SECRET, TWO, PeerRoutes(second), lambda _: None)
    protocol = ServerProtocol(loop, PeersOnly(gate()), ServerSettings())
    protocol.connection_made(pipe)
    hello = Hello(ONE, TWO, b"h" * seals.NONCE_BYTES)
    protocol.data_received(signed(HELLO, hello.encode(), seals.hello_proof(KEYS, b"POST", HELLO, hello.encode())))
    session = Session(KEYS, hello, seals.decode_welcome(pipe.written.partition(b"\r\n\r\n")[2]))
    requests = [
        signed(target, body, session.request_proof(number, b"POST", target, body))
        for number, (target, body) in enumerate(zip(TARGETS, bodies_of(said), strict=True), 1)
    ]
    return second, protocol, requests, pipe


def answered(
    loop: asyncio.AbstractEventLoop, said: list[Introduction | Envelope]
) -> tuple[First, SealedProtocol, list[bytes], Pipe]:
    """A connection of n1's that n2 has welcomed, on which as much was asked; and how n2 answers this on it."""
    first, pipe = First(), Pipe()
    limits = ExchangeLimits(timeout_s=60.0, outstanding_max=64, answer_bytes_max=100_000, unsent_bytes_max=100_000)
    credentials = Credentials(SECRET, ONE)
    protocol = SealedProtocol(loop, credentials=credentials, peer=TWO, authority=b"x", limits=limits, poster=first)
    protocol.connection_made(pipe)
    hello = seals.decode_hello(pipe.written.partition(b"\r\n\r\n")[2])
    session = Session(KEYS, hello, b"w" * seals.NONCE_BYTES)
    protocol.data_received(answer(seals.encode_welcome(b"w" * seals.NONCE_BYTES), session.welcome_proof()))
    for number, (target, body) in enumerate(zip(TARGETS, bodies_of(said), strict=True)):
        protocol.post(target, body, number)
    answers = [answer(body, session.answer_proof(number, 200, body)) for number, body in enumerate(bodies_of(said), 1)]
    return first, protocol, answers, pipe


def answer(body: bytes, proof: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%b\r\n%b" % (len(body), seals.answer_field(proof), body)


@st.composite
def tampered(draw: st.DrawFn, here: list[bytes], elsewhere: list[bytes]) -> list[bytes]:
    """What arrives, in pieces: messages as they are and as they are not, from here and from another connection."""
    kinds = st.sampled_from(
        [
            "as it is",
            "as it is",
            "as it is",
            "left out",
            "again",
            "from elsewhere",
            "changed",
            "one byte of its body",
            "cut",
        ]
    )
    arriving: list[bytes] = []
    for message, other in zip(here, elsewhere, strict=True):
        match draw(kinds):
            case "as it is":
                arriving.append(message)
            case "again":
                arriving += [message, message]
            case "from elsewhere":
                arriving.append(other)
            case "changed":
                at = draw(st.integers(0, len(message) - 1))
                arriving.append(message[:at] + draw(st.binary(max_size=3)) + message[at + draw(st.integers(0, 3)) :])
            case "one byte of its body":
                at = len(message) - draw(st.integers(1, 40))
                arriving.append(message[:at] + draw(st.binary(min_size=1, max_size=1)) + message[at + 1 :])
            case "cut":
                at = draw(st.integers(0, len(message)))
                arriving.append(message[:at] + draw(st.sampled_from(here))[at:])
    if draw(st.booleans()):
        arriving = draw(st.permutations(arriving))
    whole = b"".join(arriving)
    cuts = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=5)))
    return [whole[one:other] for one, other in zip([0, *cuts], [*cuts, len(whole)], strict=True)]


@given(st.data())
def test_a_node_hears_a_beginning_of_what_its_peer_said(loop: asyncio.AbstractEventLoop, data: st.DataObject):
    second, protocol, requests, pipe = asked(loop, SAID)
    _, other, elsewhere, _ = asked(loop, ELSEWHERE)
    for piece in data.draw(tampered(requests, elsewhere)):
        if not pipe.is_ended:
            protocol.data_received(piece)
    turn(loop)
    assert second.heard == SAID[: len(second.heard)]
    for each in (protocol, other):
        each.connection_lost(None)


@given(st.data())
def test_a_node_hears_a_beginning_of_what_it_was_answered(loop: asyncio.AbstractEventLoop, data: st.DataObject):
    first, protocol, answers, pipe = answered(loop, SAID)
    _, other, elsewhere, _ = answered(loop, ELSEWHERE)
    for piece in data.draw(tampered(answers, elsewhere)):
        if not pipe.is_ended:
            protocol.data_received(piece)
    assert first.answers == bodies_of(SAID)[: len(first.answers)]
    for each in (protocol, other):
        each.connection_lost(None)


def test_what_nobody_touched_is_heard_whole(loop: asyncio.AbstractEventLoop):
    """Else the two above could not fail."""
    second, serving, requests, _ = asked(loop, SAID)
    serving.data_received(b"".join(requests))
    turn(loop)
    assert second.heard == SAID
    first, asking, answers, _ = answered(loop, SAID)
    asking.data_received(b"".join(answers))
    assert first.answers == bodies_of(SAID)
    serving.connection_lost(None)
    asking.connection_lost(None)


def turn(loop: asyncio.AbstractEventLoop) -> None:
    """What waits for a turn of the loop has had it."""
    for _ in range(10):
        loop.run_until_complete(asyncio.sleep(0))
