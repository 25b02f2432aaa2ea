"""Ways for a test's request to reach the semantics: directly, through aiohttp on a real socket, or by the door."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import socket
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import aiohttp
import msgpack

from raftkv.api.aiohttp_front import PIECE_BYTES, AiohttpFront
from raftkv.api.lean_front import LeanFront, connection_settings
from raftkv.api.requests import Head
from raftkv.api.responses import Response, common_header_bytes
from raftkv.api.routes import Api
from raftkv.api.settings import ApiSettings
from raftkv.core.messages import Envelope, Introduction
from raftkv.http.door import Door, DoorSettings
from raftkv.http.handling import ServerSettings
from raftkv.kv.queries import Get
from raftkv.transport.farewell import Farewell
from raftkv.transport.routes import PeerExchange, PeerRoutes
from tests.api.documented import complaint_about
from tests.api.service import FakeService

PATIENCE_SECONDS = 10
STREAMED = re.compile(rb"/v1/(kv|txn|sessions)([/?]|$)")
COMMON_HEADERS = (("Raftkv-Node", "n1"), ("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff"))
"""What a stream leaves out of every answer."""
Header = tuple[str, str]
T = TypeVar("T")


@dataclass(frozen=True)
class Answer:
    """An answer as it came over the wire."""

    status: int
    headers: tuple[Header, ...]
    body: bytes

    def __getitem__(self, name: str) -> str:
        (value,) = [value for found, value in self.headers if found.lower() == name.lower()]
        return value

    def __contains__(self, name: str) -> bool:
        return any(found.lower() == name.lower() for found, _ in self.headers)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        assert self["Content-Type"] == "application/problem+json", self
        return self.json["code"]

    def comparable(self) -> tuple[Any, ...]:
        """All of it but what may differ between two fronts."""
        return self.status, [header for header in self.headers if header[0] not in ("Date", "Connection")], self.body


def parse_answer(raw: bytes, *, method: str = "GET") -> tuple[Answer, bytes]:
    """The first answer in these bytes and what follows it; raises ValueError while it is not whole."""
    head, mark, rest = raw.partition(b"\r\n\r\n")
    if not mark:
        raise ValueError("no whole head")
    status_line, *lines = head.decode("latin-1").split("\r\n")
    headers = tuple((name, value) for name, _, value in (line.partition(": ") for line in lines))
    answer = Answer(int(status_line.split(" ")[1]), headers, b"")
    if answer.status < 200 or answer.status in (204, 304) or method == "HEAD":
        return answer, rest
    length = int(answer["Content-Length"])
    if len(rest) < length:
        raise ValueError("no whole body")
    return Answer(answer.status, headers, rest[:length]), rest[length:]


def request_bytes(method: str, target: bytes, headers: list[Header], body: bytes | None) -> bytes:
    """A request with exactly these headers, and Host and Content-Length."""
    lines = [f"{name}: {value}\r\n".encode("latin-1") for name, value in full_headers(headers, body)]
    return b"%s %s HTTP/1.1\r\n%s\r\n%s" % (method.encode(), target, b"".join(lines), body or b"")


def full_headers(headers: list[Header], body: bytes | None) -> list[Header]:
    length = [] if body is None else [("Content-Length", str(len(body)))]
    return [("Host", "n1.test"), *headers, *length]


class Client:
    """What contract tests see: one node, asked by method, target, headers and body."""

    def __init__(self, service: FakeService) -> None:
        self.service = service

    def ask_raw(self, method: str, target: bytes, headers: list[Header], body: bytes | None) -> Answer:
        raise NotImplementedError

    def ask_documented(self, method: str, target: bytes, headers: list[Header], body: bytes | None) -> Answer:
        """Fails where the answer is not as the OpenAPI document has it."""
        answer = self.ask_raw(method, target, headers, body)
        complaint = complaint_about(method, target, answer)
        assert complaint is None, f"{method} {target!r}: {complaint}\n{answer}"
        return answer

    def ask(
        self,
        method: str,
        target: str | bytes,
        headers: dict[str, str] | list[Header] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        raw_target = target.encode() if isinstance(target, str) else target
        listed = list(headers.items()) if isinstance(headers, dict) else headers or []
        return self.ask_documented(method, raw_target, listed, body)

    def put(self, key: str | bytes, value: bytes = b"value", headers: dict[str, str] | None = None) -> Answer:
        return self.ask("PUT", path_of(key), headers, value)

    def get(self, key: str | bytes, query: str = "", headers: dict[str, str] | None = None) -> Answer:
        return self.ask("GET", path_of(key) + query.encode(), headers)

    def delete(self, key: str | bytes, headers: dict[str, str] | None = None) -> Answer:
        return self.ask("DELETE", path_of(key), headers)

    def post(self, target: str, fields: Any = None, headers: dict[str, str] | None = None) -> Answer:
        if fields is None:
            return self.ask("POST", target, headers)
        return self.ask(
            "POST", target, {"Content-Type": "application/json", **(headers or {})}, json.dumps(fields).encode()
        )

    def stored(self, key: bytes) -> bytes | None:
        """What the machine holds, asked behind the API's back."""
        record = self.service.machine.query(Get(key)).record
        return None if record is None else record.value


def path_of(key: str | bytes) -> bytes:
    return b"/v1/kv/" + (key.encode() if isinstance(key, str) else key)


class PureClient(Client):
    """A front of a dozen lines: no socket, no loop."""

    def __init__(self, api: Api, service: FakeService) -> None:
        super().__init__(service)
        self._api = api

    def ask_raw(self, method: str, target: bytes, headers: list[Header], body: bytes | None) -> Answer:
        raw_headers = [(name.encode(), value.encode("latin-1")) for name, value in full_headers(headers, body)]
        decision = self._api.begin(Head(method, target, raw_headers))
        answers: list[Response] = [decision] if isinstance(decision, Response) else []
        if not isinstance(decision, Response):
            decision.finish(body or b"", answers.append)
        (answer,) = answers
        raw = self._api.encode(answer, connection=None, date="Thu, 01 Jan 1970 00:00:00 GMT")
        if answer.source is not None:
            pieces: list[bytes] = []
            for _ in range(0, answer.source.size_bytes, PIECE_BYTES):
                answer.source.read(PIECE_BYTES, pieces.append)
            raw += b"".join(pieces)
            answer.let_go()
        parsed, rest = parse_answer(raw, method=method)
        assert rest == b""
        return parsed


class Wire:
    """A client's end of a connection."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)
        self._read = b""

    def send(self, raw: bytes) -> None:
        self._socket.sendall(raw)

    def try_to_send(self, raw: bytes) -> bool:
        """False: the other side has closed."""
        try:
            self._socket.sendall(raw)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def end_sending(self) -> None:
        self._socket.shutdown(socket.SHUT_WR)

    def receive(self, *, method: str = "GET") -> Answer:
        """The next answer; fails where the connection ends before it does."""
        while True:
            try:
                answer, self._read = parse_answer(self._read, method=method)
            except ValueError:
                more = self._socket.recv(1 << 16)
                assert more, f"the connection ended after {self._read[:200]!r}"
                self._read += more
            else:
                return answer

    def has_answer(self, *, method: str = "GET") -> bool:
        """Whether the next one comes whole within a moment."""
        self._socket.settimeout(0.002)
        try:
            while True:
                try:
                    parse_answer(self._read, method=method)
                except ValueError:
                    self._read += self._socket.recv(1 << 16)
                else:
                    return True
        except TimeoutError:
            return False
        finally:
            self._socket.settimeout(PATIENCE_SECONDS)

    def receive_some(self) -> bytes:
        """Whatever comes next."""
        return self._socket.recv(1 << 16)

    def ended(self) -> bool:
        """Whether the other side closes, and says nothing more before it; waits for that."""
        try:
            return self._read == b"" and self._socket.recv(1 << 16) == b""
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self._socket.close()

    def reset(self) -> None:
        """Breaks the connection off rather than closing it."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self._socket.close()


class LoopThread:
    """An event loop that runs beside the test."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="front")
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(PATIENCE_SECONDS)

    def call(self, function: Callable[[], T]) -> T:
        """Runs it on the loop, and so in between exchanges."""

        async def called() -> T:
            return function()

        return self.run(called())

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


class AiohttpClient(Client):
    """aiohttp on a loopback socket, told raw bytes."""

    def __init__(self, api: Api, service: FakeService, settings: ApiSettings, thread: LoopThread) -> None:
        super().__init__(service)
        self.thread, self.api, self.settings = thread, api, settings
        self.front, self._listener = thread.run(self._open(api, settings))
        self.port: int = self._listener.sockets[0].getsockname()[1]
        self._wires: list[Wire] = []
        self._wire: Wire | None = None

    async def _open(self, api: Api, settings: ApiSettings) -> tuple[AiohttpFront, asyncio.Server]:
        front = AiohttpFront(api, settings)
        return front, await asyncio.get_running_loop().create_server(self.accepting(front), "127.0.0.1", 0)

    def accepting(self, front: AiohttpFront) -> Callable[[], asyncio.Protocol]:
        """Who serves a connection from its first byte on."""
        return front.protocol_factory

    @property
    def connections_count(self) -> int:
        """Open connections, as the node counts them."""
        return self.front.connections_count

    def is_gone(self) -> bool:
        """The node knows that the one client there was has gone, though it still owes it an answer."""
        return self.front._server.connections[0].transport is None

    async def stop(self, grace_seconds: float) -> None:
        """As the node stops its fronts."""
        await self.front.stop(grace_seconds)

    def wire(self) -> Wire:
        """A new connection."""
        self._wires.append(Wire(self.port))
        return self._wires[-1]

    def ask_raw(self, method: str, target: bytes, headers: list[Header], body: bytes | None) -> Answer:
        wire = self._wire = self._wire or self.wire()
        wire.send(request_bytes(method, target, headers, body))
        answer = wire.receive(method=method)
        if "Connection" in answer:
            assert answer["Connection"] == "close"
            assert wire.ended()
            self._wire = None
        return answer

    def close(self) -> None:
        for wire in self._wires:
            wire.close()
        self.thread.run(self._close())

    async def _close(self) -> None:
        self._listener.close()
        await self.front.stop(grace_seconds=1)


class StreamClient(AiohttpClient):
    """The store's requests as messages of one WebSocket, all others over HTTP."""

    def __init__(self, api: Api, service: FakeService, settings: ApiSettings, thread: LoopThread) -> None:
        super().__init__(api, service, settings, thread)
        self._ids = itertools.count(1)
        self._session, self.socket = thread.run(self._connect())

    async def _connect(self) -> tuple[aiohttp.ClientSession, aiohttp.ClientWebSocketResponse]:
        session = aiohttp.ClientSession()
        return session, await session.ws_connect(f"http://127.0.0.1:{self.port}/v1/stream", max_msg_size=0)

    def ask_raw(self, method: str, target: bytes, headers: list[Header], body: bytes | None) -> Answer:
        if not STREAMED.match(target):
            return super().ask_raw(method, target, headers, body)
        return self.thread.run(self._ask(method, target, headers, body))

    async def _ask(self, method: str, target: bytes, headers: list[Header], body: bytes | None) -> Answer:
        id = next(self._ids)
        await self.socket.send_bytes(stream_message(id, method, target, headers, body))
        answered, status, own_headers, answer_body = msgpack.unpackb(await self.socket.receive_bytes())
        assert answered == id
        if status not in (204, 304):
            own_headers.setdefault("Content-Length", str(len(answer_body)))
        date = ("Date", "Thu, 01 Jan 1970 00:00:00 GMT")  # of the handshake, as the common ones
        return Answer(status, (*COMMON_HEADERS, *own_headers.items(), date), answer_body)

    async def _close(self) -> None:
        await self._session.close()
        await super()._close()


def stream_message(id: int, method: str, target: bytes, headers: list[Header], body: bytes | None) -> bytes:
    """A client's message; the map of headers may have a name twice."""
    packer = msgpack.Packer(autoreset=False)
    packer.pack_array_header(5)
    for part in (id, method, target):
        packer.pack(part)
    packer.pack_map_pairs(headers)
    packer.pack(body)
    packed: bytes = packer.bytes()
    return packed


class NoPeers:
    """Nobody of whom the peers' routes could tell anybody."""

    def on_message(self, envelope: Envelope, exchange: PeerExchange) -> None:
        raise AssertionError(envelope)

    def on_introduction(self, introduction: Introduction, exchange: PeerExchange) -> None:
        raise AssertionError(introduction)

    def on_farewell(self, said: Farewell, exchange: PeerExchange) -> None:
        raise AssertionError(said)


class DoorClient(AiohttpClient):
    """The whole door of a node: each connection begins at the lean front, and is handed over to aiohttp."""

    def accepting(self, front: AiohttpFront) -> Callable[[], asyncio.Protocol]:
        """As ``node.doors`` puts it together."""
        settings = DoorSettings(connection=ServerSettings(refusal_fields=common_header_bytes("n1")))
        return Door(asyncio.get_running_loop(), lambda: PeerRoutes(NoPeers()), front, settings)


class LeanClient(AiohttpClient):
    """The whole door of a node with the fast lane: the lean front serves the keys, aiohttp the rest."""

    def accepting(self, front: AiohttpFront) -> Callable[[], asyncio.Protocol]:
        """As ``node.doors`` puts it together."""
        self.lean = LeanFront(self.api, front.room)
        peers = PeerRoutes(NoPeers())
        settings = DoorSettings(connection=connection_settings(self.settings, "n1"))
        self.door = Door(asyncio.get_running_loop(), lambda: self.lean.handler(peers), front, settings)
        return self.door

    def is_gone(self) -> bool:
        return self.door.connections_count == 0

    async def stop(self, grace_seconds: float) -> None:
        lean_is_done = self.lean.stop()
        await asyncio.gather(self.front.stop(grace_seconds), asyncio.wait([lean_is_done], timeout=grace_seconds))
        await self.door.close(grace_s=0)

    @property
    def connections_count(self) -> int:
        """Those of both fronts."""
        return self.door.connections_count

    async def _close(self) -> None:
        await self.door.close(grace_s=1)
        await super()._close()


class MakeClient(Protocol):
    """Opens a client, with settings of its own if need be."""

    def __call__(self, settings: ApiSettings = ...) -> AiohttpClient: ...
