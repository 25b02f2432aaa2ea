"""Three processes that pass blocks on, write and sync them, and do nothing else: what disk and copying leave over.

The first takes blocks from whoever connects, passes each on to the other two and answers it with a byte once it and one
of them have it on disk. Nothing is checked, numbered or kept: what a store in Python does beside this is its own.
"""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio import Future
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, cast

from benchmarks.generators import closing

BLOCK_BYTES: Final = 64 * 1024
FILE_BLOCKS: Final = 1024
"""The file was written with zeros before, and is gone round in."""
JOINED_MAX: Final = 64
"""So many blocks at most with one write and one sync."""

Answer = Callable[[], None]


class Disk:
    """Writes and syncs what waits, together, in a thread."""

    def __init__(self, path: Path) -> None:
        self._descriptor, self._at = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600), 0
        for _ in range(FILE_BLOCKS):
            os.write(self._descriptor, bytes(BLOCK_BYTES))
        os.fsync(self._descriptor)
        self._loop, self._thread = asyncio.get_running_loop(), ThreadPoolExecutor(1)
        self._waiting: deque[tuple[list[bytes], Answer]] = deque()
        self._is_busy = False

    def write(self, block: list[bytes], done: Answer) -> None:
        """``done`` is called once these pieces of one block are on disk."""
        self._waiting.append((block, done))
        if not self._is_busy:
            self._is_busy = True
            self._loop.call_soon(self._next)

    def _next(self) -> None:
        room = min(JOINED_MAX, FILE_BLOCKS - self._at)
        taken = [self._waiting.popleft() for _ in range(min(room, len(self._waiting)))]
        pieces = [piece for block, _ in taken for piece in block]
        written = self._loop.run_in_executor(self._thread, self._write_and_sync, pieces, self._at * BLOCK_BYTES)
        self._at = (self._at + len(taken)) % FILE_BLOCKS
        written.add_done_callback(lambda written: self._written(written, [done for _, done in taken]))

    def _write_and_sync(self, pieces: Sequence[bytes], at: int) -> None:
        ends_at = at + sum(map(len, pieces))
        for begins in range(0, len(pieces), 1000):  # IOV_MAX is 1024
            at += os.pwritev(self._descriptor, pieces[begins : begins + 1000], at)
        if at != ends_at:
            raise OSError("not everything was written")
        os.fdatasync(self._descriptor)

    def _written(self, written: Future[None], answers: Sequence[Answer]) -> None:
        written.result()
        self._is_busy = bool(self._waiting)
        if self._is_busy:
            self._next()
        for answer in answers:
            answer()


class Taker(asyncio.Protocol):
    """A connection on which blocks come; each is answered with a byte, in order."""

    def __init__(self, on_block: Callable[[list[bytes], Answer], None]) -> None:
        self._on_block = on_block
        self._pieces: list[bytes] = []
        self._missing = BLOCK_BYTES

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Nothing yet."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """A block, a part of one, or several."""
        while len(data) >= self._missing:
            self._pieces.append(data[: self._missing])
            data, block = data[self._missing :], self._pieces
            self._pieces, self._missing = [], BLOCK_BYTES
            self._on_block(block, self._answer)
        if data:
            self._pieces.append(data)
            self._missing -= len(data)

    def _answer(self) -> None:
        self._transport.write(b".")


class Passer(asyncio.Protocol):
    """The connection to one of the other two."""

    def __init__(self) -> None:
        self._owed: deque[Answer] = deque()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Nothing yet."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """A byte for each block that is on its disk."""
        for _ in data:
            self._owed.popleft()()

    def send(self, block: list[bytes], done: Answer) -> None:
        """The other end writes it too."""
        self._owed.append(done)
        self._transport.writelines(block)


class Majority:
    """Answers a block at the second of three."""

    def __init__(self, disk: Disk, others: Sequence[Passer]) -> None:
        self._disk, self._others = disk, others

    def take(self, block: list[bytes], answer: Answer) -> None:
        """Passes it on and writes it."""
        have = 0

        def one_has_it() -> None:
            nonlocal have
            have += 1
            if have == 2:
                answer()

        for other in self._others:
            other.send(block, one_has_it)
        self._disk.write(block, one_has_it)


async def serve(path: Path, port: int, others: Sequence[int]) -> None:
    """Until it is ended; ``others``: the ports of those that it passes blocks on to."""
    loop = asyncio.get_running_loop()
    disk = Disk(path)
    passers = [(await loop.create_connection(Passer, "127.0.0.1", other))[1] for other in others]
    on_block = Majority(disk, passers).take if passers else disk.write
    server = await loop.create_server(lambda: Taker(on_block), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    closing.run(serve(Path(sys.argv[1]), int(sys.argv[2]), [int(port) for port in sys.argv[3:]]))
