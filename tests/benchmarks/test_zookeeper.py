"""ZooKeeper's protocol as our load speaks it, against a server that only counts."""

from __future__ import annotations

import asyncio
import struct

import pytest

from benchmarks.generators import zookeeper_wire as wire
from benchmarks.generators.closing import Count
from benchmarks.generators.zookeeper import Session


def test_a_put_is_framed_as_the_protocol_has_it() -> None:
    assert wire.set_data(7, b"/k", b"vv") == (
        b"\0\0\0\x18" + b"\0\0\0\x07" + b"\0\0\0\x05" + b"\0\0\0\x02/k" + b"\0\0\0\x02vv" + b"\xff\xff\xff\xff"
    )


def test_a_node_is_made_for_everybody_and_stays() -> None:
    payload = wire.create(1, b"/k", b"v")[4:]
    assert payload.startswith(b"\0\0\0\x01\0\0\0\x01\0\0\0\x02/k\0\0\0\x01v\0\0\0\x01\0\0\0\x1f")
    assert payload.endswith(b"\0\0\0\x05world\0\0\0\x06anyone\0\0\0\0")


def test_every_frame_says_its_own_length() -> None:
    for frame in (wire.connect(), wire.create(1, b"/k", b"v"), wire.get_data(1, b"/k"), wire.sync(1, b"/k")):
        assert wire.frame_of(frame, 0) == (4, len(frame))
        assert wire.frame_of(frame[:-1], 0) is None
    assert wire.frame_of(b"\0\0", 0) is None


def answer(error: int = 0) -> bytes:
    return wire.framed(struct.pack(">iqi", 1, 99, error) + b"body")


GRANTED = wire.framed(struct.pack(">iiq", 0, 30_000, 5) + wire.framed(bytes(16)))
EXPIRED = wire.framed(struct.pack(">iiq", 0, 0, 0) + wire.framed(bytes(16)))


class Transport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []

    def write(self, data) -> None:
        self.written.append(bytes(data))


def connected(requests: list[bytes], answers_each: int = 1, **more: int) -> tuple[Session, Transport]:
    session, transport = Session(requests, answers_each, 0, **more), Transport()
    session.connection_made(transport)
    session.data_received(GRANTED[:7])
    session.data_received(GRANTED[7:])
    assert session.connected.done()
    transport.written.clear()
    return session, transport


async def test_filling_sends_every_request_once() -> None:
    requests = [b"%d" % number for number in range(100)]
    session, transport = connected(requests, allowed=wire.NODE_EXISTS)
    session.go_through()
    assert len(transport.written) == 32
    for number in range(100):
        assert not session.ended.done()
        session.data_received(answer(wire.NODE_EXISTS if number % 2 else 0))
    assert session.ended.done()
    assert transport.written == requests


async def test_nothing_to_fill_ends_at_once() -> None:
    session, _ = connected([])
    session.go_through()
    assert session.ended.done()


async def test_a_get_counts_when_the_sync_and_the_get_are_answered() -> None:
    session, transport = connected([b"sync and get"], answers_each=2)
    count = Count(60)
    session.measure(count)
    both = answer() + answer()
    session.data_received(both[:30])
    assert (len(count.taken_s), len(transport.written)) == (0, 1)
    session.data_received(both[30:])
    assert (len(count.taken_s), len(transport.written)) == (1, 2)


async def test_a_session_ends_when_the_time_is_over() -> None:
    session, transport = connected([b"put"])
    count = Count(0)
    session.measure(count)
    session.data_received(answer())
    assert session.ended.done()
    assert (len(count.taken_s), len(transport.written)) == (1, 1)


async def test_an_error_fails_the_run() -> None:
    session, _ = connected([b"put"])
    session.measure(Count(60))
    session.data_received(answer(-101))
    with pytest.raises(wire.Refused, match="-101"):
        await session.ended


async def test_a_session_that_is_not_given_fails_the_run() -> None:
    session = Session([b"put"], 1, 0)
    session.connection_made(Transport())
    session.data_received(EXPIRED)
    with pytest.raises(wire.Refused, match="no session"):
        await session.connected


async def test_a_connection_that_is_lost_fails_the_run() -> None:
    session, _ = connected([b"put"])
    session.measure(Count(60))
    session.connection_lost(None)
    with pytest.raises(ConnectionError):
        await session.ended
