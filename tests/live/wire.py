"""HTTP/1.1 as the live clients speak it: plain streams, so that nothing follows, retries or mends in secret.

Told: whom to ask what. Tells: the answer, or which kind of trouble: nothing was sent, or it is not known
what became of it. It never learns what a request means.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

CONNECT_TIMEOUT_S: Final = 1.0
_HEAD_BYTES_MAX: Final = 64 * 1024


class Address(NamedTuple):
    """Where a node listens."""

    host: str
    port: int


class Trouble(Exception):
    """There is no answer."""


class NotSent(Trouble):
    """Nothing was sent: the node cannot have acted on it."""


class Broken(Trouble):
    """The connection broke, or the time was over, after the first byte: the node may have acted on it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a node answered; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _Connection(NamedTuple):
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @property
    def is_fresh(self) -> bool:
        """As far as one can see, the other end has not closed it."""
        return not self.reader.at_eof() and self.reader.exception() is None and not self.writer.is_closing()


class Connections:
    """Kept connections by address; each carries one exchange at a time."""

    def __init__(self) -> None:
        self._idle: dict[Address, list[_Connection]] = {}

    async def exchange(
        self,
        address: Address,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        timeout_s: float,
        kept: bool = True,
    ) -> Answer:
        """The answer; raises NotSent or Broken. ``kept``: over a kept connection, and keeping it."""
        connection = self._take(address) if kept else None
        if connection is None:
            connection = await _connect(address)
        try:
            async with asyncio.timeout(timeout_s):
                connection.writer.write(request_bytes(address, method, target, headers or {}, body))
                answer = await read_answer(connection.reader, bodiless=method == "HEAD")
        except (OSError, EOFError, ValueError, TimeoutError, asyncio.LimitOverrunError) as error:
            connection.writer.transport.abort()
            raise Broken(f"{type(error).__name__}: {error}") from error
        except BaseException:
            connection.writer.transport.abort()
            raise
        if kept and answer.headers.get("connection", "").lower() != "close":
            self._idle.setdefault(address, []).append(connection)
        else:
            connection.writer.close()
        return answer

    def close(self) -> None:
        """No connection is kept."""
        for connections in self._idle.values():
            for connection in connections:
                connection.writer.transport.abort()
        self._idle.clear()

    def _take(self, address: Address) -> _Connection | None:
        idle = self._idle.get(address, [])
        while idle:
            connection = idle.pop()
            if connection.is_fresh:
                return connection
            connection.writer.transport.abort()
        return None


async def _connect(address: Address) -> _Connection:
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            return _Connection(*await asyncio.open_connection(*address, limit=_HEAD_BYTES_MAX))
    except (OSError, TimeoutError) as error:
        raise NotSent(f"{type(error).__name__}: {error}") from error


def request_bytes(address: Address, method: str, target: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """The request as it goes out."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {address.host}:{address.port}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body or method in ("PUT", "POST"):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body


async def read_answer(reader: asyncio.StreamReader, *, bodiless: bool = False) -> Answer:
    """The next answer; raises OSError, EOFError or ValueError where there is none."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    status_line, *lines = head.split("\r\n")
    version, status, *_ = status_line.split(" ", 2)
    if version != "HTTP/1.1":
        raise ValueError(f"not an answer: {status_line!r}")
    pairs = (line.split(":", 1) for line in lines if line)
    headers = {name.strip().lower(): value.strip() for name, value in pairs}
    length = 0 if bodiless or status in ("204", "304") else int(headers.get("content-length", "none given"))
    return Answer(int(status), headers, await reader.readexactly(length))
