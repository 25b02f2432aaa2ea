"""The disk thread, with a log on a simulated disk and an event loop that is real or only listens."""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import Callable
from random import Random
from typing import Any

from raftkv.core.effects import DiskWrite, LogBase, LogRead
from raftkv.core.types import Configuration, Incarnation, Index, Member, Membership, NodeId, Term, Ticket
from raftkv.errors import DiskFailed
from raftkv.node.clock import now_us
from raftkv.node.disk import DiskListener, DiskThread
from raftkv.sim.world.disk import SimulatedDirectory, SimulatedFile
from raftkv.storage.show import describe
from raftkv.storage.wal import Wal
from tests.storage.life import entry, open_log

DEADLINE_S = 10.0
NONE = Incarnation(bytes(16))


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

    async def until_last(self, name: str, value: Any) -> None:
        await self.until(lambda: self.named(name)[-1:] == [value])


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
        await told.until_last("persisted", index)
    assert len(tried) <= 2, "not once for each write"
    simulated.capacity_bytes = None
    await told.until(lambda: told.named("room_is_short") == [True, False])
    await asyncio.to_thread(disk.stop)
    assert told.named("failed") == []


def _running(simulated: SimulatedDirectory) -> tuple[DiskThread, Told]:
    wal, _ = open_log(simulated)
    told = Told()
    return DiskThread(wal, asyncio.get_running_loop(), told.listener()), told


async def test_nothing_is_told_to_be_durable_before_its_sync_returned(monkeypatch):
    """faults 1."""
    simulated = SimulatedDirectory(Random(1))
    disk, told = _running(simulated)
    in_sync, may_return = threading.Event(), threading.Event()
    sync_data = SimulatedFile.sync_data

    def held(file: SimulatedFile) -> None:
        in_sync.set()
        may_return.wait(DEADLINE_S)
        sync_data(file)

    monkeypatch.setattr(SimulatedFile, "sync_data", held)
    disk.start()
    disk.submit([first_write()], [])
    assert await asyncio.to_thread(in_sync.wait, DEADLINE_S)
    await asyncio.sleep(0)
    assert told.named("persisted") == []
    may_return.set()
    await told.until(lambda: told.named("persisted") == [1])
    await asyncio.to_thread(disk.stop)


async def test_what_gathers_during_a_sync_is_one_batch_and_the_last_ticket_speaks_for_it(monkeypatch):
    simulated = SimulatedDirectory(Random(1))
    disk, told = _running(simulated)
    disk.submit([first_write()], [])
    disk.submit([append(2), append(3)], [])
    disk.start()
    await told.until(lambda: told.named("persisted") == [3])
    assert (disk.syncs_count, disk.writes_count) == (1, 3)
    await asyncio.to_thread(disk.stop)


async def test_a_stop_writes_what_waits_and_marks_it():
    """A clean stop leaves nothing that damage could be taken for a torn write."""
    simulated = SimulatedDirectory(Random(1))
    disk, told = _running(simulated)
    disk.submit([first_write(), append(2)], [])
    disk.start()
    await asyncio.to_thread(disk.stop)
    await told.until(lambda: told.named("persisted") == [2])
    wal, recovered = open_log(simulated.survivor(Random(1)))
    assert recovered.last_index == 2
    assert not wal.is_unmarked
    wal.close()
    assert "mark 2" in "\n".join(describe(simulated))


async def _is_marked(simulated: SimulatedDirectory) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while "mark 2" not in "\n".join(describe(simulated)):
            await asyncio.to_thread(threading.Event().wait, 0.02)


async def test_idleness_is_marked():
    """faults 53: after 100 ms without work the last batch can be told from a torn one."""
    simulated = SimulatedDirectory(Random(1))
    disk, told = _running(simulated)
    disk.start()
    disk.submit([first_write()], [])
    await told.until(lambda: told.named("persisted") == [1])
    await _is_marked(simulated)
    await asyncio.to_thread(disk.stop)


async def test_entries_are_read_back_though_nothing_is_written():
    """A read alone wakes the thread, also out of an idleness that is already marked."""
    simulated = SimulatedDirectory(Random(1))
    disk, told = _running(simulated)
    disk.start()
    disk.submit([first_write(), append(2)], [])
    await _is_marked(simulated)
    disk.submit([], [LogRead(Index(1), Index(2), 1000, None)])
    await told.until(lambda: told.named("was_read") == [[entry(1, 1), entry(2, 1)]])
    await asyncio.to_thread(disk.stop)


async def test_a_failed_sync_is_told_once_and_nothing_is_durable_after_it():
    """faults 55: writes that waited, and those that come later, are not acknowledged; the stop still ends."""
    simulated = SimulatedDirectory(Random(1))
    disk, told = _running(simulated)
    simulated.failing_syncs.update(range(simulated.syncs + 1, simulated.syncs + 9))
    disk.submit([first_write()], [])
    disk.start()
    disk.submit([append(2)], [])
    await told.until(lambda: bool(told.named("failed")))
    disk.submit([append(3)], [])
    await asyncio.to_thread(disk.stop)
    await asyncio.sleep(0)
    assert told.named("persisted") == []
    assert all(isinstance(error, DiskFailed) for error in told.named("failed"))
    assert told.named("failed")[0].cause.errno == errno.EIO


async def test_every_batch_is_measured_and_a_sync_that_hangs_can_be_seen(monkeypatch):
    simulated = SimulatedDirectory(Random(1))
    wal, _ = open_log(simulated)
    told = Told()
    disk = DiskThread(wal, asyncio.get_running_loop(), told.listener(), free_bytes=lambda: 12345)
    in_sync, may_return = threading.Event(), threading.Event()
    sync_data = SimulatedFile.sync_data

    def held(file: SimulatedFile) -> None:
        in_sync.set()
        may_return.wait(DEADLINE_S)
        sync_data(file)

    disk.submit([first_write(), append(2)], [])
    monkeypatch.setattr(SimulatedFile, "sync_data", held)
    began_us = now_us()
    disk.start()
    assert await asyncio.to_thread(in_sync.wait, DEADLINE_S)
    assert disk.meter.busy_since_us is not None and disk.meter.busy_since_us >= began_us
    assert disk.is_alive
    may_return.set()
    await told.until_last("persisted", 2)
    assert disk.meter.recent_syncs_us.summary(now_us=now_us()).values_count == disk.meter.syncs_us.count == 1
    assert disk.meter.batch_entries.total == 2
    await asyncio.to_thread(disk.stop)
    assert disk.meter.free_bytes == 12345
    assert not disk.is_alive


async def test_a_disk_that_will_not_say_how_much_room_it_has_fails_nobody():
    wal, _ = open_log(SimulatedDirectory(Random(1)))
    told = Told()

    def fails() -> int:
        raise DiskFailed(path="data", operation="statvfs", cause=OSError(errno.EIO, "Input/output error"))

    disk = DiskThread(wal, asyncio.get_running_loop(), told.listener(), free_bytes=fails)
    disk.start()
    disk.submit([first_write()], [])
    await told.until_last("persisted", 1)
    await asyncio.to_thread(disk.stop)
    assert (disk.meter.free_bytes, told.named("failed")) == (None, [])


async def test_what_a_snapshot_has_is_dropped_after_what_waits_is_written(monkeypatch):
    """Also where a received snapshot begins the log anew: what stood there before is nobody's."""
    dropped: list[tuple[int, int]] = []
    disk, told = _running(SimulatedDirectory(Random(1)))
    loop = asyncio.get_running_loop()

    def trim(wal: Wal, through: Index, *, segments_max: int) -> bool:
        dropped.append((through, wal.last_index))
        loop.call_soon_threadsafe(told._hear, "dropped", through)
        return False

    monkeypatch.setattr(Wal, "trim", trim)
    disk.submit([first_write(), append(2)], [], Index(1))
    disk.submit([append(3)], [], Index(2))
    disk.start()
    await told.until_last("dropped", 2)  # not only persisted: what is dropped next would go with it
    disk.submit([], [], Index(3))
    base = LogBase(Index(50), Term(1), Configuration(Membership((Member(NodeId("n1"), NONE, "http://n1"),))))
    disk.submit([DiskWrite(Ticket(4), base=base)], [])
    await told.until_last("persisted", 4)
    await asyncio.to_thread(disk.stop)
    assert told.named("failed") == []
    assert dropped[0] == (2, 3), "all that gathered was one batch"
    assert dropped[-1] == (50, 50)
    assert {through for through, _ in dropped[1:-1]} <= {3}


async def test_nobody_waits_for_all_that_is_dropped(monkeypatch):
    """faults 22: a leader whose log stands still for an election timeout hands over."""
    wal, _ = open_log(SimulatedDirectory(Random(1)))
    told = Told()
    disk = DiskThread(wal, asyncio.get_running_loop(), told.listener())
    dropped: list[tuple[int, int]] = []

    def trim(wal: Wal, through: Index, *, segments_max: int) -> bool:
        assert 0 < segments_max < 10
        dropped.append((through, wal.last_index))
        disk.submit([append(len(dropped) + 1)], [])
        return len(dropped) < 5

    monkeypatch.setattr(Wal, "trim", trim)
    disk.submit([first_write()], [], Index(1))
    disk.start()
    await told.until_last("persisted", 6)
    await asyncio.to_thread(disk.stop)
    assert dropped == [(1, index) for index in range(1, 6)]
