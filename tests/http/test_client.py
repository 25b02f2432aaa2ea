"""One kept connection: every exchange gets its own answer, or hears that there is none, exactly once."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from raftkv.http.client import ClientProtocol, ExchangeLimits
from tests.http.fronts import Fronts, until


class Told:
    """A poster that remembers what it is told."""

    def __init__(self) -> None:
        self.answers: list[tuple[Any, int, bytes]] = []
        self.failed: list[tuple[Any, str]] = []
        self.lost: list[str] = []

    def on_answer(self, context: Any, status: int, body: bytes) -> None:
        self.answers.append((context, status, body))

    def on_failed(self, context: Any, why: str) -> None:
        self.failed.append((context, why))

    def on_lost(self, why: str) -> None:
        self.lost.append(why)


async def connected(port: int, timeout_s: float = 5.0) -> tuple[ClientProtocol, Told]:
    loop, told = asyncio.get_running_loop(), Told()
    limits = ExchangeLimits(timeout_s, outstanding_max=100, answer_bytes_max=1000, unsent_bytes_max=1_000_000)
    _, client = await loop.create_connection(
        lambda: ClientProtocol(loop, authority=b"x", content_type=b"text/plain", limits=limits, poster=told),
        "127.0.0.1",
        port,
    )
    return client, told


async def answering(answer: bytes) -> asyncio.Server:
    """A server that sends these bytes once it is asked."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer)

    return await asyncio.start_server(serve, "127.0.0.1", 0)


async def test_every_context_comes_back_with_its_own_answer(fronts: Fronts):
    port, _ = await fronts.lean()
    client, told = await connected(port)
    for number in range(100):
        client.post(b"/raft/echo", b"%d" % number, number)
    assert not client.has_room
    await until(lambda: len(told.answers) == 100)
    assert told.answers == [(number, 200, b"%d" % number) for number in range(100)]
    client.close("done")
    await until(lambda: told.lost)
    assert told.failed == []


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n" + bytes(1500), "an answer of more than 1000 bytes"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5dc\r\n" + bytes(1500), "an answer of more than 1000"),
        (b"\0\0\0", "the answer is not HTTP"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "the answer is not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", "no answer within"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "no answer within"),
        (b"", "no answer within"),
    ],
)
async def test_answer_that_is_none_ends_the_connection(fronts: Fronts, answer, why):
    """faults 57, 63: too large, not HTTP, half, or never."""
    server = await answering(answer)
    client, told = await connected(server.sockets[0].getsockname()[1], timeout_s=0.1)
    client.post(b"/x", b"", "first")
    client.post(b"/x", b"", "second")
    await until(lambda: told.lost)
    assert [context for context, _ in told.failed] == ["first", "second"]
    assert told.lost[0].startswith(why)
    assert (told.answers, client.has_room) == ([], False)
    server.close()


ENDLESS = {
    "a field": (b"HTTP/1.1 200 OK\r\nX: ", b"x" * 1000),
    "fields": (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 200),
    "trailers": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ", b"x" * 1000),
    "a chunk's extension": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"x" * 1000),
}


@pytest.mark.parametrize("kind", ENDLESS)
async def test_an_answer_without_end_ends_the_connection(fronts: Fronts, kind):
    """Whoever sits at a peer's address could fill this node's memory; httptools adds up fields in square time."""
    beginning, more = ENDLESS[kind]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(beginning)
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(more)
                await writer.drain()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    client, told = await connected(server.sockets[0].getsockname()[1], timeout_s=60.0)
    client.post(b"/x", b"", "only")
    await until(lambda: told.lost)
    assert told.lost == ["an answer of more than 1000 bytes"]
    server.close()


async def test_an_answer_leaves_the_next_exchange_its_deadline(fronts: Fronts):
    """faults 63: a peer that answers once and then hangs."""
    server = await answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    client, told = await connected(server.sockets[0].getsockname()[1], timeout_s=0.2)
    client.post(b"/x", b"", "answered")
    client.post(b"/x", b"", "silent")
    await until(lambda: told.failed)
    assert told.answers == [("answered", 200, b"")]
    assert told.failed == [("silent", "no answer within 0.2 s")]
    server.close()


async def test_who_goes_on_posting_pushes_no_deadline(fronts: Fronts):
    """faults 63: heartbeats to a peer that hangs would otherwise keep the connection to it for ever."""
    server = await answering(b"")
    client, told = await connected(server.sockets[0].getsockname()[1], timeout_s=0.2)
    posts_count = 0
    while not told.lost and client.has_room:
        client.post(b"/x", b"", posts_count)
        posts_count += 1
        await asyncio.sleep(0.02)
    assert posts_count < 50, "the oldest one's time was over long before there was no room"
    assert told.lost == ["no answer within 0.2 s"]
    server.close()


async def test_a_peer_that_reads_too_slowly_is_posted_nothing_more(fronts: Fronts):
    server = await answering(b"")
    client, _ = await connected(server.sockets[0].getsockname()[1])
    client.pause_writing()
    assert not client.has_room
    client.resume_writing()
    assert client.has_room
    client.close("enough")
    server.close()


async def test_bytes_that_nobody_asked_for_end_the_connection(fronts: Fronts):
    """Also if they never become an answer: nothing is waited for, and so no time would end it."""
    server = await answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nX: x")
    client, told = await connected(server.sockets[0].getsockname()[1])
    client.post(b"/x", b"", "only")
    await until(lambda: told.lost)
    assert told.answers == [("only", 200, b"")]
    assert told.lost == ["an answer that nobody asked for"]
    server.close()


async def test_answer_that_nobody_asked_for_ends_the_connection(fronts: Fronts):
    twice = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" * 2
    server = await answering(twice)
    client, told = await connected(server.sockets[0].getsockname()[1])
    client.post(b"/x", b"", "only")
    await until(lambda: told.lost)
    assert told.answers == [("only", 200, b"")]
    assert told.lost == ["an answer that nobody asked for"]
    server.close()
