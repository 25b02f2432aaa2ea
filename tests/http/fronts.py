"""Small fronts to be tested, and a client that speaks bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

from aiohttp import web

from raftkv.http.answers import Answer
from raftkv.http.door import Door, DoorSettings
from raftkv.http.guard import GuardedHandler
from raftkv.http.handling import Exchange, ServerSettings, Verdict
from raftkv.http.heads import Head
from raftkv.http.server import ServerProtocol

PATIENCE_S = 5.0
"""No test waits longer for anything; none ever gets near it unless it fails."""
BODY_BYTES_MAX = 1000
BIG_BYTES_MAX = 32 * 1024 * 1024


class Recorder:
    """A lean handler: echoes, keeps what is asked ``/raft/later``, remembers every request that was whole."""

    def __init__(self) -> None:
        self.targets: list[bytes] = []
        self.later: list[Exchange] = []
        self.closed_count = 0

    def on_head(self, head: Head) -> int | Answer | Verdict:
        if not head.target.startswith(b"/raft/"):
            return Verdict.HAND_OVER
        if head.target == b"/raft/elsewhere":
            return Answer(307, b"{}", fields=b"Location: /raft/echo\r\n")
        return BIG_BYTES_MAX if head.target == b"/raft/big" else BODY_BYTES_MAX

    def on_closed(self, _: ServerProtocol) -> None:
        self.closed_count += 1

    def on_request(self, exchange: Exchange) -> None:
        self.targets.append(exchange.head.target)
        if exchange.head.target == b"/raft/later":
            self.later.append(exchange)
        elif exchange.head.target == b"/raft/big":
            exchange.respond(Answer(200, b"%d" % len(exchange.body), b"text/plain"))
        elif exchange.head.target == b"/raft/large-answer":
            exchange.respond(Answer(200, bytes(int(exchange.body)), b"application/octet-stream"))
        else:
            exchange.respond(Answer(200, exchange.body, b"text/plain"))


class AiohttpFront:
    """The other front: aiohttp's low-level server, which echoes too."""

    def __init__(self, limits: ServerSettings, targets: list[bytes]) -> None:
        self._limits, self._targets = limits, targets
        self.server = web.Server(self._echo)
        self.gate = asyncio.Event()

    @property
    def connections_count(self) -> int:
        return len(self.server.connections)

    def protocol_factory(self) -> asyncio.Protocol:
        return GuardedHandler(self.server, loop=asyncio.get_running_loop(), limits=self._limits)

    async def _echo(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        self._targets.append(request.raw_path.encode("utf-8", "surrogateescape"))
        if request.path == "/websocket":
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            async for message in socket:
                await socket.send_bytes(message.data)
            return socket
        if request.path == "/later":
            await self.gate.wait()
        return web.Response(body=body)


class Reply(NamedTuple):
    status: int
    fields: dict[bytes, bytes]
    body: bytes


class Wire:
    """A client that sends exactly the bytes it is told."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def send_slowly(self, parts: Sequence[bytes]) -> None:
        """Each part in a packet of its own."""
        for part in parts:
            self.writer.write(part)
            await self.writer.drain()
            for _ in range(4):
                await asyncio.sleep(0)

    async def reply(self, *, to_head: bool = False) -> Reply:
        async with asyncio.timeout(PATIENCE_S):
            raw = await self.reader.readuntil(b"\r\n\r\n")
            line, *lines = raw[:-4].split(b"\r\n")
            fields = {name.lower(): value for name, value in (line.split(b": ", 1) for line in lines)}
            length = 0 if to_head else int(fields.get(b"content-length", b"0"))
            return Reply(int(line.split(b" ")[1]), fields, await self.reader.readexactly(length))

    async def rest(self) -> bytes:
        """All that comes until the server closes."""
        async with asyncio.timeout(PATIENCE_S):
            try:
                return await self.reader.read()
            except ConnectionResetError:
                return b"(reset)"

    async def ended(self) -> bool:
        return await self.rest() == b""

    def stop_reading(self) -> None:
        """What the server sends is left in the kernel."""
        cast(asyncio.Transport, self.writer.transport).pause_reading()

    def close(self) -> None:
        self.writer.close()


class Fronts:
    """Opens fronts on loopback and clients to them; closes all of them."""

    def __init__(self) -> None:
        self.failures: list[dict[str, Any]] = []
        self._closers: list[Callable[[], Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: self.failures.append(context))

    async def lean(self, **settings: Any) -> tuple[int, Recorder]:
        """A lean front; answers its port and what it hears."""
        loop, recorder = asyncio.get_running_loop(), Recorder()
        limits = ServerSettings(**settings)
        port = await self._serve(lambda: ServerProtocol(loop, recorder, limits, on_closed=recorder.on_closed))
        return port, recorder

    async def door(self, *, connections_max: int = 100, **settings: Any) -> tuple[int, Recorder, AiohttpFront, Door]:
        """A door before a lean front (/raft/…) and aiohttp (the rest); both tell one recorder."""
        loop, recorder = asyncio.get_running_loop(), Recorder()
        limits = ServerSettings(**settings)
        other = AiohttpFront(limits, recorder.targets)
        door = Door(loop, lambda: recorder, other, DoorSettings(connections_max, limits))
        port = await self._serve(door)
        self._closers.append(lambda: other.server.shutdown(0.1))
        return port, recorder, other, door

    async def wire(self, port: int) -> Wire:
        wire = Wire(*await asyncio.open_connection("127.0.0.1", port))
        self._closers.append(wire.close)
        return wire

    async def serves(self, port: int, path: bytes = b"/raft/echo") -> bool:
        """Whether a new client is served."""
        wire = await self.wire(port)
        wire.send(post(path, b"still here"))
        reply = await wire.reply()
        wire.close()
        return (reply.status, reply.body) == (200, b"still here")

    async def close(self) -> None:
        for closer in reversed(self._closers):
            if (waits := closer()) is not None:
                await waits

    async def _serve(self, factory: Callable[[], asyncio.BaseProtocol]) -> int:
        server = await asyncio.get_running_loop().create_server(factory, "127.0.0.1", 0)
        self._closers.append(server.close)
        port: int = server.sockets[0].getsockname()[1]
        return port


def post(target: bytes, body: bytes = b"", *fields: bytes) -> bytes:
    """A plain request."""
    lines = [b"POST " + target + b" HTTP/1.1", b"Host: x", *fields, b"Content-Length: %d" % len(body)]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def chunked(target: bytes, *chunks: bytes) -> bytes:
    """A request with a body in these chunks."""
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    return b"POST " + target + b" HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + body


async def until(condition: Callable[[], object]) -> None:
    """Gives the loop its turns until the condition holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110  # conditions of many kinds, none with an event of its own
            await asyncio.sleep(0.001)
