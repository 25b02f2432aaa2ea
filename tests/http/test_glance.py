"""Requests that are taken at a glance, alone and pipelined: in order, one write a turn, within the limits."""

from __future__ import annotations

import asyncio
import random
import re
from typing import Any, cast

import pytest

from raftkv.http.answers import Answer
from raftkv.http.handling import Exchange, HandOver, ServerSettings, Verdict
from raftkv.http.heads import Head
from raftkv.http.plain import PlainReader
from raftkv.http.server import ServerProtocol

AT_ONCE = b"/at-once/"
ANSWER = re.compile(rb"HTTP/1\.1 200 OK\r\n(?:[^\r]+\r\n)*\r\n<([^>]*)>")


class Transport(asyncio.Transport):
    """Remembers what was written, write by write."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.reading = True
        self.closed = False

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))

    def writelines(self, list_of_data: Any) -> None:
        self.writes.append(b"".join(list_of_data))

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True

    def can_write_eof(self) -> bool:
        return False

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    @property
    def targets(self) -> list[list[bytes]]:
        """By write, whose answers it had."""
        return [ANSWER.findall(write) for write in self.writes]


class Echo:
    """Answers each request with its target and body, at a glance or not, when it is told to."""

    def __init__(self) -> None:
        self.glanced: list[bytes] = []
        self.waiting: list[tuple[bytes, Exchange]] = []
        self._reader = PlainReader(
            target=rb"(/[a-z0-9/-]*)", numbering=rb"\r\nX-Number: ([0-9]+)", heeded=(b"x-number",)
        )

    def on_plain(self, data: bytes, start: int, exchange: Exchange) -> int:
        plain = self._reader.read(data, start)
        if plain is None:
            return 0
        self.glanced.append(plain.target)
        self._take(plain.target, plain.body, exchange)
        return plain.end

    def on_head(self, head: Head) -> int | Answer | Verdict:
        return 1_000

    def on_request(self, exchange: Exchange) -> None:
        self._take(exchange.head.target, exchange.body, exchange)

    def _take(self, target: bytes, body: bytes, exchange: Exchange) -> None:
        said = target + b"=" + body if body else target
        if target.startswith(AT_ONCE):
            exchange.respond(Answer(200, b"<%b>" % said))
        else:
            self.waiting.append((said, exchange))

    def answer(self, *numbers: int) -> None:
        """Those of the waiting requests, in this order; they wait no more."""
        for said, exchange in [self.waiting[number] for number in numbers]:
            exchange.respond(Answer(200, b"<%b>" % said))
        self.waiting = [one for number, one in enumerate(self.waiting) if number not in numbers]


def put(target: bytes, body: bytes = b"v", more: bytes = b"") -> bytes:
    return b"PUT %b HTTP/1.1\r\nHost: n1\r\n%bContent-Length: %d\r\n\r\n%b" % (target, more, len(body), body)


def get(target: bytes, more: bytes = b"") -> bytes:
    return b"GET %b HTTP/1.1\r\nHost: n1\r\n%b\r\n" % (target, more)


def opened(**limits: Any) -> tuple[ServerProtocol, Transport, Echo]:
    echo, transport = Echo(), Transport()
    protocol = ServerProtocol(asyncio.get_running_loop(), cast(Any, echo), ServerSettings(**limits))
    protocol.connection_made(transport)
    return protocol, transport, echo


async def test_requests_that_came_together_are_answered_in_order_by_one_write() -> None:
    protocol, transport, echo = opened()
    targets = [b"/%d" % number for number in range(32)]
    protocol.data_received(b"".join(map(get, targets)))
    assert echo.glanced == targets
    echo.answer(*range(32))
    await asyncio.sleep(0)
    assert transport.targets == [targets]


async def test_those_that_have_their_answer_do_not_wait_for_the_others() -> None:
    protocol, transport, echo = opened()
    protocol.data_received(b"".join(get(b"/%d" % number) for number in range(6)))
    echo.answer(0, 1, 3)
    await asyncio.sleep(0)
    assert transport.targets == [[b"/0", b"/1"]]
    echo.answer(1)
    await asyncio.sleep(0)
    assert transport.targets == [[b"/0", b"/1"]]
    echo.answer(0)
    await asyncio.sleep(0)
    assert transport.targets == [[b"/0", b"/1"], [b"/2", b"/3", b"/4"]]
    echo.answer(0)
    assert transport.targets[2:] == [[b"/5"]]


async def test_an_answer_at_once_waits_for_nobody_behind_it() -> None:
    protocol, transport, _ = opened()
    protocol.data_received(get(AT_ONCE + b"1") + get(b"/late") + get(AT_ONCE + b"2"))
    await asyncio.sleep(0)
    assert transport.targets == [[AT_ONCE + b"1"]]


async def test_a_later_piece_is_taken_at_a_glance_too() -> None:
    protocol, transport, echo = opened()
    for number in range(4):
        protocol.data_received(get(b"/%d" % number))
    assert len(echo.glanced) == 4
    echo.answer(3, 2, 1, 0)
    await asyncio.sleep(0)
    assert [target for write in transport.targets for target in write] == [b"/0", b"/1", b"/2", b"/3"]


async def test_what_is_beyond_the_limit_waits_unread_and_is_taken_at_a_glance_then() -> None:
    """faults 65."""
    protocol, transport, echo = opened(outstanding_max=4)
    protocol.data_received(b"".join(get(b"/%d" % number) for number in range(10)))
    assert len(echo.glanced) == 4 and not transport.reading
    echo.answer(0, 1)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(echo.glanced) == 6 and not transport.reading
    while echo.waiting:
        echo.answer(*range(len(echo.waiting)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert [target for write in transport.targets for target in write] == [b"/%d" % number for number in range(10)]
    assert len(echo.glanced) == 10 and transport.reading


@pytest.mark.parametrize("outstanding_max", [1, 2, 3])
async def test_a_connection_at_its_limit_reads_on_afterwards(outstanding_max: int) -> None:
    protocol, transport, echo = opened(outstanding_max=outstanding_max)
    for round in range(3):
        protocol.data_received(b"".join(get(b"/%d" % number) for number in range(outstanding_max)))
        assert not transport.reading
        for _ in range(outstanding_max):
            echo.answer(0)
            await asyncio.sleep(0)
        assert transport.reading, round


async def test_many_that_are_answered_at_once_leave_the_loop_to_others_between_them() -> None:
    protocol, transport, echo = opened(outstanding_max=8)
    protocol.data_received(b"".join(get(AT_ONCE + b"%d" % number) for number in range(100)))
    while len(echo.glanced) < 100:
        before = len(echo.glanced)
        await asyncio.sleep(0)
        assert 0 < len(echo.glanced) - before <= 16
    await asyncio.sleep(0)
    answered = [target for write in transport.targets for target in write]
    assert answered == [AT_ONCE + b"%d" % number for number in range(100)] and transport.reading


async def test_a_client_that_is_done_with_sending_hears_every_answer_and_is_let_go() -> None:
    protocol, transport, echo = opened()
    protocol.data_received(get(b"/0") + get(b"/1"))
    protocol.eof_received()
    echo.answer(0)
    await asyncio.sleep(0)
    assert not transport.closed
    echo.answer(0)
    await asyncio.sleep(0)
    assert transport.targets == [[b"/0"], [b"/1"]] and transport.closed


async def test_a_stop_waits_for_the_answers_that_are_owed() -> None:
    protocol, transport, echo = opened()
    protocol.data_received(get(b"/0") + get(b"/1"))
    protocol.close_gracefully()
    echo.answer(0, 1)
    assert transport.targets == [[b"/0", b"/1"]] and transport.closed
    assert transport.writes[-1].count(b"Connection: close\r\n") == 1


async def test_what_is_not_written_yet_when_the_connection_goes_is_forgotten() -> None:
    protocol, transport, echo = opened()
    protocol.data_received(get(b"/0") + get(b"/1"))
    echo.answer(0)
    protocol.connection_lost(None)
    await asyncio.sleep(0)
    assert transport.writes == []


async def test_a_stalled_reader_is_not_read_and_hears_all_later() -> None:
    protocol, transport, echo = opened()
    protocol.data_received(get(b"/0"))
    protocol.pause_writing()
    protocol.data_received(get(b"/1"))
    assert echo.glanced == [b"/0"] and not transport.reading
    echo.answer(0)
    protocol.resume_writing()
    await asyncio.sleep(0)
    echo.answer(0)
    assert [target for write in transport.targets for target in write] == [b"/0", b"/1"] and transport.reading


async def test_any_mixture_in_any_pieces_is_answered_in_order() -> None:
    """Plain requests, numbered ones and others, cut anywhere, answered in any order: as if each had come alone."""
    rng = random.Random(11)
    for _ in range(300):
        protocol, transport, echo = opened(outstanding_max=rng.choice([1, 3, 64]))
        sent, expected = [], []
        for number in range(rng.randint(1, 40)):
            target = rng.choice([b"/", AT_ONCE]) + b"%d" % number
            body = rng.choice([b"", b"v", get(b"/hidden")])
            more = rng.choice([b"", b"X: y\r\n", b"X-Number: %d\r\n" % number, b"x-number: 1\r\n"])
            plain = put(target, body, more) if rng.random() < 0.7 else get(target, more)
            chunks = b"PUT %b HTTP/1.1\r\nHost: n1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nv\r\n0\r\n\r\n" % target
            raw = chunks if rng.random() < 0.2 else plain
            said = b"v" if raw is chunks else body if raw.startswith(b"PUT") else b""
            sent.append(raw)
            expected.append(target + b"=" + said if said else target)
        data = b"".join(sent)
        cuts = sorted(rng.sample(range(len(data)), rng.randint(0, 3)))
        for start, stop in zip([0, *cuts], [*cuts, len(data)], strict=True):
            protocol.data_received(data[start:stop])
            if rng.random() < 0.5:
                await asyncio.sleep(0)
        while (waiting := len(echo.waiting)) or sum(map(len, transport.targets)) < len(expected):
            echo.answer(*rng.sample(range(waiting), rng.randint(0, waiting)))
            await asyncio.sleep(0)
        assert [target for write in transport.targets for target in write] == expected
        assert transport.reading and not transport.closed
        protocol.connection_lost(None)


async def test_what_is_nobodys_at_a_glance_is_handed_over_behind_its_answers() -> None:
    echo, transport, handed = Echo(), Transport(), list[HandOver]()
    echo.on_head = lambda head: Verdict.HAND_OVER  # type: ignore[method-assign]
    loop = asyncio.get_running_loop()
    protocol = ServerProtocol(
        loop, cast(Any, echo), ServerSettings(), on_hand_over=lambda _, given: handed.append(given)
    )
    protocol.connection_made(transport)
    other = get(b"/other?x=1")
    protocol.data_received(get(b"/0") + get(b"/1") + other)
    assert handed == []
    echo.answer(0, 1)
    await asyncio.sleep(0)
    assert transport.targets == [[b"/0", b"/1"]]
    assert [given.unread for given in handed] == [other]
