"""Load for ZooKeeper in its own protocol: one session for each client, one operation of each under way.

kazoo has a thread for every session, and is itself what such a run would measure. A get is a sync and a get, sent
together: without the sync, ZooKeeper promises no linearizable read.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import cast

import click

from benchmarks.generators import closing, zookeeper_wire
from benchmarks.generators.closing import Count
from benchmarks.work import Work, drawn_keys, key

SESSIONS = 16
FILLING_AT_ONCE = 32
CONNECT_TIMEOUT_S = 20.0


class Session(asyncio.Protocol):
    """One connection: sends the next request when the one before is answered."""

    def __init__(
        self, requests: Sequence[bytes], answers_each: int, at: int, *, allowed: int = zookeeper_wire.OK
    ) -> None:
        loop = asyncio.get_running_loop()
        self.connected: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self._requests, self._answers_each, self._at, self._allowed = requests, answers_each, at, allowed
        self._count: Count | None = None
        self._sent_s, self._answers = 0.0, 0
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asks for its session."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(zookeeper_wire.connect())

    def connection_lost(self, exc: Exception | None) -> None:
        """Before the end, a failure of the whole run."""
        for waiting in (self.connected, self.ended):
            if not waiting.done():
                waiting.set_exception(ConnectionError("ZooKeeper closed a session"))

    def data_received(self, data: bytes) -> None:
        """Whole answers are taken, the rest is kept."""
        self._buffer += data
        at = 0
        while (frame := zookeeper_wire.frame_of(self._buffer, at)) is not None:
            first, at = frame
            if self.connected.done():
                self._answered(first)
            elif zookeeper_wire.session_is_given(self._buffer, first):
                self.connected.set_result(None)
            else:
                self.connected.set_exception(zookeeper_wire.Refused("no session"))
        del self._buffer[:at]

    def measure(self, count: Count) -> None:
        """One operation after the other, until the time is over."""
        self._count = count
        self._send()

    def go_through(self) -> None:
        """Each request once, several at a time."""
        for _ in range(min(FILLING_AT_ONCE, len(self._requests))):
            self._send()
        if not self._requests:
            self.ended.set_result(None)

    def _send(self) -> None:
        self._sent_s = time.perf_counter()
        self._transport.write(self._requests[self._at % len(self._requests)])
        self._at += 1

    def _answered(self, first: int) -> None:
        error = zookeeper_wire.error_of(self._buffer, first)
        if error not in (zookeeper_wire.OK, self._allowed) and not self.ended.done():
            self.ended.set_exception(zookeeper_wire.Refused(f"ZooKeeper answered with error {error}"))
            return
        self._answers += 1
        if self._count is None:
            self._next_of_all()
        elif self._answers % self._answers_each == 0:
            self._next_timed(self._count)

    def _next_of_all(self) -> None:
        if self._at < len(self._requests):
            self._send()
        elif self._answers == len(self._requests) and not self.ended.done():
            self.ended.set_result(None)

    def _next_timed(self, count: Count) -> None:
        now = time.perf_counter()
        count.taken_s.append(now - self._sent_s)
        if now < count.until_s:
            self._send()
        elif not self.ended.done():
            self.ended.set_result(None)


async def connect(port: int, sessions: list[Session]) -> None:
    """All of them have their sessions afterwards."""
    loop = asyncio.get_running_loop()
    for session in sessions:
        await loop.create_connection(lambda session=session: session, "127.0.0.1", port)  # type: ignore[misc]
    await asyncio.wait_for(asyncio.gather(*(session.connected for session in sessions)), CONNECT_TIMEOUT_S)


async def measured(port: int, work: Work) -> dict[str, object]:
    """One run."""
    paths = [f"/{key(number)}".encode() for number in drawn_keys(work)]
    value = b"v" * work.value_bytes
    if work.verb == "put":
        requests = [zookeeper_wire.set_data(1, path, value) for path in paths]
    else:
        requests = [zookeeper_wire.sync(1, path) + zookeeper_wire.get_data(2, path) for path in paths]
    each = 1 if work.verb == "put" else 2
    sessions = [Session(requests, each, len(requests) * n // work.clients) for n in range(work.clients)]
    await connect(port, sessions)
    count = Count(work.seconds)
    for session in sessions:
        session.measure(count)
    await asyncio.gather(*(session.ended for session in sessions))
    return count.told()


async def filled(port: int, keys: int, value_bytes: int) -> dict[str, object]:
    """Every key is there: made where it is not."""
    value = b"v" * value_bytes
    count = Count(0)
    parts = [range(keys * n // SESSIONS, keys * (n + 1) // SESSIONS) for n in range(SESSIONS)]
    sessions = []
    for part in parts:
        requests = [zookeeper_wire.create(1, f"/{key(number)}".encode(), value) for number in part]
        sessions.append(Session(requests, 1, 0, allowed=zookeeper_wire.NODE_EXISTS))
    await connect(port, sessions)
    for session in sessions:
        session.go_through()
    await asyncio.gather(*(session.ended for session in sessions))
    return {**count.told(), "operations": keys}


@click.command()
@click.option("--port", type=int, required=True)
@click.option("--verb", type=click.Choice(["put", "get", "fill"]), required=True)
@click.option("--clients", type=int, default=1)
@click.option("--seconds", type=int, default=1)
@click.option("--keys", type=int, required=True)
@click.option("--value-bytes", type=int, required=True)
@click.option("--seed", type=int, default=0)
def main(port: int, verb: str, clients: int, seconds: int, keys: int, value_bytes: int, seed: int) -> None:
    """Put load on the server at PORT of loopback, and tell what it did."""
    if verb == "fill":
        closing.say(closing.run(filled(port, keys, value_bytes)))
    else:
        closing.say(closing.run(measured(port, Work(verb, clients, seconds, keys, value_bytes, seed))))


if __name__ == "__main__":
    main()
