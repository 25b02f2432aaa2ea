"""The disk thread, with a log on a simulated disk and an event loop that is real or only listens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any

from raftkv.core.effects import DiskWrite
from raftkv.core.types import Term, Ticket
from raftkv.node.disk import DiskListener, DiskThread
from raftkv.sim.disk import SimulatedDirectory
from raftkv.storage.wal import Wal
from tests.storage.life import entry, open_log

DEADLINE_S = 10.0


class Told:
    """What the disk thread said, as (name, …), in order; any condition of it can be waited for."""

    def __init__(self) -> None:
        self.said: list[tuple[Any, ...]] = []
        self._changed = asyncio.Event()

    def listener(self) -> DiskListener:
        return DiskListener(
            persisted=lambda ticket: self._hear("persisted", ticket),
            was_read=lambda read, frames: self._hear("was_read", read, frames),
            room_is_short=lambda short: self._hear("room_is_short", short),
            failed=lambda error: self._hear("failed", error),
        )

    def _hear(self, *what: Any) -> None:
        self.said.append(what)
        self._changed.set()

    def named(self, name: str) -> list[Any]:
        return [what[-1] for what in self.said if what[0] == name]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():
                self._changed.clear()
                await self._changed.wait()


def first_write() -> DiskWrite:
    return DiskWrite(Ticket(1), vote=(Term(1), None), frames=[entry(1, 1)])


def append(index: int) -> DiskWrite:
    return DiskWrite(Ticket(index), frames=[entry(index, 1)])


async def test_a_listener_that_raises_ends_the_node():
    """What nobody foresaw is not left to the loop's own handler, which logs it and goes on."""
    wal, _ = open_log(SimulatedDirectory(Random(1)))
    told = Told()
    listener = told.listener()

    def persisted(ticket: Ticket) -> None:
        raise AssertionError(f"ticket {ticket}")

    listener.persisted = persisted
    disk = DiskThread(wal, asyncio.get_running_loop(), listener)
    disk.start()
    disk.submit([first_write()], [])
    await told.until(lambda: bool(told.named("failed")))
    await asyncio.to_thread(disk.stop)
    assert isinstance(told.named("failed")[0], AssertionError)


async def test_a_full_disk_is_tried_now_and_then_however_much_is_written(monkeypatch):
    """faults 56: puts are refused, deletes are written; the end of the shortage is told too."""
    simulated = SimulatedDirectory(Random(1))
    wal, _ = open_log(simulated)
    simulated.capacity_bytes = 0
    tried = []
    prepare_spare = Wal.prepare_spare

    def remember(self: Wal) -> bool:
        tried.append(self.room_is_short)
        return prepare_spare(self)

    monkeypatch.setattr(Wal, "prepare_spare", remember)
    told = Told()
    disk = DiskThread(wal, asyncio.get_running_loop(), told.listener())
    disk.start()
    await told.until(lambda: told.named("room_is_short") == [True])
    disk.submit([first_write()], [])
    for index in range(2, 10):
        disk.submit([append(index)], [])
        await told.until(lambda index=index: told.named("persisted")[-1:] == [index])
    assert len(tried) <= 2, "not once for each write"
    simulated.capacity_bytes = None
    await told.until(lambda: told.named("room_is_short") == [True, False])
    await asyncio.to_thread(disk.stop)
    assert told.named("failed") == []
