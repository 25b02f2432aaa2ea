"""Somebody between two nodes, who hears what passes and may alter it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

Alteration = Callable[[bytes], bytes]


def as_it_is(data: bytes) -> bytes:
    return data


class Middle:
    """Somebody between a link and its peer, who may alter what passes. Both directions are recorded."""

    def __init__(self) -> None:
        self.there: Alteration = as_it_is
        self.back: Alteration = as_it_is
        self.target = 0
        self.port = 0
        self.heard: list[bytes] = []
        self.answered: list[bytes] = []
        self.by_connection: list[list[bytes]] = []
        """What was heard on each connection."""
        self._tasks: list[asyncio.Task[None]] = []

    async def listen(self, target: int) -> None:
        self.target = target
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.close()
            return
        self.by_connection.append([])
        heard = (self.heard, self.by_connection[-1])
        self._tasks += [
            asyncio.ensure_future(self._carry(reader, there_writer, heard, lambda data: self.there(data))),
            asyncio.ensure_future(self._carry(there_reader, writer, (self.answered,), lambda data: self.back(data))),
        ]

    @staticmethod
    async def _carry(
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        records: tuple[list[bytes], ...],
        alter: Alteration,
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                for record in records:
                    record.append(data)
                writer.write(alter(data))
        writer.close()


def replacing(old: bytes, new: bytes) -> Alteration:
    return lambda data: data.replace(old, new)


def proofs_in(sent: bytes) -> set[str]:
    """The proofs of all requests and answers in these bytes."""
    return {part[:43].decode() for mark in (b"Raftkv-HMAC ", b'mac="') for part in sent.split(mark)[1:]}
