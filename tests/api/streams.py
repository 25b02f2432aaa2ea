"""A stream as tests speak on it: message by message over aiohttp's client, or frame by frame over a bare socket."""

from __future__ import annotations

import asyncio
import base64
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import msgpack
from aiohttp import WSMsgType

from tests.api.fronts import PATIENCE_SECONDS, Answer, StreamClient, Wire, stream_message

TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 0x81, 0x82, 0x80, 0x88, 0x89, 0x8A
"""First bytes of frames that end their message."""


def put(id: int, key: str = "a", value: bytes = b"value") -> bytes:
    return stream_message(id, "PUT", b"/v1/kv/" + key.encode(), [], value)


def get(id: int, key: str = "a") -> bytes:
    return stream_message(id, "GET", b"/v1/kv/" + key.encode(), [], None)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            if condition():
                return
            await asyncio.sleep(0.002)


class Talk:
    """A stream that a test speaks on message by message."""

    def __init__(self, client: StreamClient) -> None:
        self.client, self.service = client, client.service

    def send(self, *messages: bytes | str) -> None:
        async def sent() -> None:
            for message in messages:
                if isinstance(message, str):
                    await self.client.socket.send_str(message)
                else:
                    await self.client.socket.send_bytes(message)

        self.client.thread.run(sent())

    def receive(self) -> list[Any]:
        """The next answer."""
        answer: list[Any] = msgpack.unpackb(self.client.thread.run(self.client.socket.receive_bytes()))
        return answer

    def end(self) -> tuple[int, str]:
        """The close code and reason; fails where something else comes first."""
        message = self.client.thread.run(self.client.socket.receive())
        assert message.type is WSMsgType.CLOSE, message
        return message.data, str(message.extra)

    def hold(self) -> None:
        self.client.thread.call(lambda: setattr(self.service, "holds", True))

    def let_go(self, at: int = 0) -> None:
        self.client.thread.call(lambda: self.service.held.pop(at)())

    def until_held(self, count: int) -> None:
        self.client.thread.run(until(lambda: len(self.service.held) >= count))


class Frame(NamedTuple):
    """As it came from the node."""

    first: int
    payload: bytes


class BareStream(Wire):
    """A client's end of a connection, frame by frame. It reads nothing by itself."""

    def shake_hands(self, headers: dict[str, Any] | None = None, *, line: str = "GET /v1/stream") -> Answer:
        """What a handshake with these headers is answered; None leaves one out."""
        own = {
            "Host": "n1.test",
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": base64.b64encode(b"0123456789abcdef").decode(),
        }
        given = {name: value for name, value in (own | (headers or {})).items() if value is not None}
        fields = "".join(f"{name}: {value}\r\n" for name, value in given.items())
        self.send(f"{line} HTTP/1.1\r\n{fields}\r\n".encode())
        return self.receive()

    def opened(self) -> BareStream:
        assert self.shake_hands().status == 101
        return self

    def receive_frame(self) -> Frame:
        first, length = self._exactly(2)
        if length == 126:
            (length,) = struct.unpack("!H", self._exactly(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", self._exactly(8))
        return Frame(first, self._exactly(length))

    def is_cut_off(self) -> bool:
        """Whatever still comes is read; whether the connection ends, and without a close."""
        seen = self._read
        try:
            while more := self._socket.recv(1 << 20):
                seen = (seen + more)[-200:]
        except TimeoutError:
            return False
        except ConnectionResetError:
            return True
        return bytes([CLOSE]) not in seen[-130:]

    def _exactly(self, count: int) -> bytes:
        while len(self._read) < count:
            more = self._socket.recv(1 << 16)
            assert more, f"the connection ended after {self._read[:200]!r}"
            self._read += more
        found, self._read = self._read[:count], self._read[count:]
        return found


def frame(first: int, payload: bytes) -> bytes:
    """A client's frame, masked with zeros."""
    length = len(payload)
    if length < 126:
        head = struct.pack("!BB", first, 0x80 | length)
    elif length < 65536:
        head = struct.pack("!BBH", first, 0x80 | 126, length)
    else:
        head = struct.pack("!BBQ", first, 0x80 | 127, length)
    return head + bytes(4) + payload
