"""Servers that do nothing but answer, and a caller that does nothing but ask: what is left is the machine's."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import cast

from benchmarks.generators import closing
from raftkv.http.answers import Answer
from raftkv.http.handling import Exchange, ServerSettings
from raftkv.http.heads import Head
from raftkv.http.server import ServerProtocol

BODY_BYTES_MAX = 1 << 20
_DONE = Answer(200, b"v" * 256, b"application/octet-stream")


class Empty:
    """A handler of the lean front that answers everything at once, with a value of 256 bytes."""

    def on_head(self, head: Head) -> int:
        """Whatever it is, its body may come."""
        return BODY_BYTES_MAX

    def on_request(self, exchange: Exchange) -> None:
        """The same for all."""
        exchange.respond(_DONE)


class Echo(asyncio.Protocol):
    """Sends back what it receives."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Nothing yet."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """At once."""
        self._transport.write(data)


class Caller(asyncio.Protocol):
    """Sends so many bytes, waits until they are back or as many as are the answer, and does so again."""

    def __init__(self, exchanges: int, message_bytes: int, answer_bytes: int | None = None) -> None:
        self.taken_us: asyncio.Future[list[float]] = asyncio.get_running_loop().create_future()
        self._left, self._message, self._missing = exchanges, b"x" * message_bytes, 0
        self._answer_bytes = message_bytes if answer_bytes is None else answer_bytes
        self._taken: list[float] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begins."""
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        """Before the end, a failure."""
        if not self.taken_us.done():
            self.taken_us.set_exception(ConnectionError("the echo is gone"))

    def data_received(self, data: bytes) -> None:
        """The next one when all of this one is back."""
        self._missing -= len(data)
        if self._missing > 0:
            return
        self._taken.append((time.perf_counter_ns() - self._sent_ns) / 1000)
        self._left -= 1
        if self._left:
            self._send()
        else:
            self.taken_us.set_result(self._taken)
            self._transport.close()

    def _send(self) -> None:
        self._missing, self._sent_ns = self._answer_bytes, time.perf_counter_ns()
        self._transport.write(self._message)


async def serve(kind: str, port: int) -> None:
    """Until it is ended."""
    loop = asyncio.get_running_loop()
    settings = ServerSettings()
    make = Echo if kind == "echo" else lambda: ServerProtocol(loop, Empty(), settings)
    server = await loop.create_server(make, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    closing.run(serve(sys.argv[1], int(sys.argv[2])))
