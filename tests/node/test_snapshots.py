"""The snapshot thread, with files on a simulated disk and an event loop that is real."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from raftkv.core.effects import LogBase, SnapshotRead, SnapshotWrite
from raftkv.core.types import ClusterId, Configuration, Incarnation, Index, Member, NodeId, SnapshotId, Term
from raftkv.core.types import membership_of as voters
from raftkv.errors import DataDamaged, DiskFailed, SnapshotError
from raftkv.node import snapshots as thread_module
from raftkv.node.keeper import KeeperShell, SnapshotKeeper
from raftkv.node.snapshots import Pace, SnapshotListener, SnapshotThread
from raftkv.outcomes import SnapshotWhy
from raftkv.sim.world.disk import SimulatedDirectory
from raftkv.snapshotting import BegunLoading, SnapshotWork, TakenCapture
from raftkv.storage.snapshot_reading import snapshot_name
from raftkv.storage.snapshots import Snapshots
from tests.live.cluster import until

DEADLINE_S = 10.0
CLUSTER = ClusterId(b"c" * 16)
CONFIGURATION = Configuration(voters([Member(NodeId("n1"), Incarnation(b"1" * 16), "http://n1")]))
FAST = 1 << 40
RESERVE_BYTES = 1000


class Capture:
    """Blocks of a state; another thread may be let in between."""

    def __init__(self, blocks: list[bytes]) -> None:
        self._blocks = blocks
        self.given = 0
        self.began = threading.Event()
        self.gates: dict[int, threading.Event] = {}
        """How many blocks have been given when it waits, and for what."""
        self.raises: Exception | None = None

    def blocks(self) -> Iterator[bytes]:
        for block in self._blocks:
            if self.given in self.gates:
                assert self.gates[self.given].wait(DEADLINE_S / 2), "nothing came of what it waits for"
            if self.raises is not None and self.given == 1:
                raise self.raises
            self.given += 1
            yield block
            self.began.set()

    def fold(self, budget_us: int) -> bool:
        return True


class Loading:
    """Remembers the blocks that it was given."""

    def __init__(self) -> None:
        self.blocks: list[bytes] = []
        self.freed = 0
        self.raises: Exception | None = None

    def add(self, block: bytes) -> None:
        if self.raises is not None:
            raise self.raises
        self.blocks.append(block)

    def finish(self) -> None:
        pass

    def free(self) -> Iterator[None]:
        for _ in range(3):
            self.freed += 1
            yield


class Told:
    """What the thread said, as (name, …), in order; any condition of it can be waited for."""

    def __init__(self) -> None:
        self.said: list[tuple[Any, ...]] = []
        self._changed = asyncio.Event()

    def listener(self) -> SnapshotListener:
        names = SnapshotListener.__slots__
        return SnapshotListener(**{name: lambda *what, name=name: self._hear(name, *what) for name in names})

    def _hear(self, *what: Any) -> None:
        self.said.append(what)
        self._changed.set()

    def named(self, name: str) -> list[Any]:
        return [what[1:] for what in self.said if what[0] == name]

    async def until(self, name: str, count: int = 1) -> Any:
        """What was said when it was said so often."""
        async with asyncio.timeout(DEADLINE_S):
            while len(self.named(name)) < count:
                assert name == "failed" or not self.named("failed"), self.named("failed")
                self._changed.clear()
                await self._changed.wait()
        return self.named(name)[count - 1]


class Running:
    """A thread that runs, over a directory."""

    def __init__(self, directory: SimulatedDirectory, *, bytes_per_s: int = FAST) -> None:
        self.directory, self.told = directory, Told()
        self.snapshots = Snapshots.open(directory, cluster_id=CLUSTER, reserve_bytes=RESERVE_BYTES)
        loop = asyncio.get_running_loop()
        self.thread = SnapshotThread(
            self.snapshots, loop, self.told.listener(), cluster_id=CLUSTER, bytes_per_s=bytes_per_s
        )
        self.thread.start()

    def take(self, index: int, capture: Capture) -> None:
        base = LogBase(Index(index), Term(1), CONFIGURATION)
        self.thread.submit(SnapshotWork(take=TakenCapture(base, 77, b"hash", capture)))

    async def has(self, index: int, blocks: list[bytes]) -> SnapshotId:
        """A snapshot is in place."""
        self.take(index, Capture(blocks))
        return await self.is_placed()

    async def is_placed(self) -> SnapshotId:
        """What is being written is put in place as soon as it is whole."""
        before = len(self.told.named("was_written"))
        await self.told.until("was_prepared", before + 1)
        self.thread.submit(SnapshotWork(place=True))
        written: SnapshotId = (await self.told.until("was_written", before + 1))[0]
        return written

    def read(self, snapshot: SnapshotId | None, offset: int, bytes_max: int, *, follower: str = "n2") -> None:
        self.thread.submit(SnapshotWork(reads=[SnapshotRead(NodeId(follower), snapshot, offset, bytes_max)]))

    def write(self, number: int, snapshot: SnapshotId, offset: int, data: bytes) -> None:
        self.thread.submit(SnapshotWork(writes=[SnapshotWrite(number, snapshot, offset, data)]))


@contextmanager
def running(directory: SimulatedDirectory | None = None, *, bytes_per_s: int = FAST) -> Iterator[Running]:
    found = Running(directory or disk(), bytes_per_s=bytes_per_s)
    try:
        yield found
    finally:
        found.thread.stop()


def disk() -> SimulatedDirectory:
    return SimulatedDirectory(Random(1))


BLOCKS = [bytes([number]) * 5000 for number in range(20)]


async def test_a_capture_becomes_a_file_that_a_start_finds() -> None:
    with running() as one:
        written = await one.has(50, BLOCKS)
        assert (written.index, one.snapshots.newest.id) == (50, written)  # type: ignore[union-attr]
    found = Snapshots.open(one.directory.restarted(), cluster_id=CLUSTER)
    assert found.newest is not None
    assert (found.newest.id, found.newest.meta.stamp_ms, found.newest.meta.state_hash) == (written, 77, b"hash")
    reader = found.reader()
    assert reader is not None and list(reader.blocks()) == BLOCKS
    assert one.thread.meter.written_bytes == sum(map(len, BLOCKS))


async def test_between_two_blocks_followers_get_their_pieces() -> None:
    """faults 45: no transfer waits for a million keys."""
    with running() as one:
        first = await one.has(50, BLOCKS)
        capture = Capture(BLOCKS)
        asked, answered = capture.gates[1], capture.gates[3] = threading.Event(), threading.Event()
        one.take(60, capture)
        assert await asyncio.to_thread(capture.began.wait, DEADLINE_S)
        one.read(first, 0, 100)
        asked.set()
        read, piece = await one.told.until("was_read")
        assert (read.offset, len(piece.data), piece.snapshot) == (0, 100, first)
        assert capture.given <= 3 and len(one.told.named("was_written")) == 1
        answered.set()
        await one.is_placed()


async def test_one_that_is_wanted_no_more_is_given_up() -> None:
    with running() as one:
        capture = Capture(BLOCKS)
        capture.gates[1] = threading.Event()
        one.take(60, capture)
        one.thread.submit(SnapshotWork(abandon=True))
        capture.gates[1].set()
        why, _ = await one.told.until("was_not_written")
        assert why is SnapshotWhy.SHUTTING_DOWN
        assert capture.given <= 2 and one.snapshots.newest is None
        assert not [name for name in one.directory.names() if "snapshot" in name]
        assert (await one.has(70, BLOCKS)).index == 70, "the next is wanted again"


async def test_one_that_is_whole_is_none_before_it_is_put_in_place() -> None:
    """faults 61: nobody is sent it, and no start goes on from it."""
    with running() as one:
        first = await one.has(50, BLOCKS)
        one.take(60, Capture(BLOCKS))
        await one.told.until("was_prepared", 2)
        one.read(None, 0, 100)
        _, piece = await one.told.until("was_read")
        assert piece.snapshot == first
        found = Snapshots.open(one.directory.survivor(Random(1)), cluster_id=CLUSTER)
        assert [stored.id for stored in found.stored] == [first]
        assert [name for name in one.directory.names() if "new" in name] != []
        assert (await one.is_placed()).index == 60


@pytest.mark.parametrize("is_known", [True, False])
async def test_one_that_is_whole_and_wanted_no_more_goes(is_known: bool) -> None:
    """Whether or not the loop had heard that it is whole when it gave it up."""
    with running() as one:
        capture = Capture(BLOCKS)
        one.take(60, capture)
        if is_known:
            await one.told.until("was_prepared")
        else:
            await until(lambda: one.thread._is_prepared, within_s=DEADLINE_S, what="a whole file")
        one.thread.submit(SnapshotWork(abandon=True))
        assert (await one.told.until("was_not_written"))[0] is SnapshotWhy.SHUTTING_DOWN
        assert one.directory.names() == [] and not one.told.named("was_written")
        assert (await one.has(70, BLOCKS[:1])).index == 70


async def test_one_that_is_given_up_as_it_becomes_whole_goes_before_anybody_hears_of_it() -> None:
    """Else it would wait for ever to be put in place, and no other be taken."""
    with running() as one:

        class GivenUpAtTheEnd(Capture):
            def blocks(self) -> Iterator[bytes]:
                yield from super().blocks()
                one.thread.submit(SnapshotWork(abandon=True))

        one.take(60, GivenUpAtTheEnd(BLOCKS))
        assert (await one.told.until("was_not_written"))[0] is SnapshotWhy.SHUTTING_DOWN
        assert one.directory.names() == [] and not one.told.named("was_prepared")
        assert (await one.has(70, BLOCKS[:1])).index == 70


async def test_a_stop_waits_for_no_capture() -> None:
    one = Running(disk())
    capture = Capture(BLOCKS)
    capture.gates[1] = threading.Event()
    one.take(60, capture)
    stopping = asyncio.get_running_loop().run_in_executor(None, one.thread.stop)
    await until(lambda: one.thread._stopping, within_s=DEADLINE_S, what="the stop to be asked for")
    capture.gates[1].set()
    async with asyncio.timeout(DEADLINE_S):
        await stopping
    assert capture.given < len(BLOCKS)
    assert not [name for name in one.directory.names() if "snapshot" in name]


async def test_a_full_disk_costs_the_snapshot_only() -> None:
    """faults 56"""
    with running() as one:
        one.directory.capacity_bytes = 20_000
        one.take(50, Capture(BLOCKS))
        why, text = await one.told.until("was_not_written")
        assert why is SnapshotWhy.DISK_FULL and "snapshot" in text
        assert one.directory.names() == []
        one.directory.capacity_bytes = None
        assert (await one.has(50, BLOCKS)).index == 50


async def test_a_sync_that_fails_ends_the_node() -> None:
    """faults 55: of such a disk nothing is believed any more."""
    with running() as one:
        one.directory.failing_syncs.add(one.directory.syncs + 1)
        one.take(50, Capture(BLOCKS))
        (error,) = await one.told.until("failed")
        assert isinstance(error, DiskFailed)
        assert not one.told.named("was_not_written") and not one.told.named("was_written")


async def test_a_capture_that_cannot_be_read_costs_the_snapshot_only() -> None:
    with running() as one:
        capture = Capture(BLOCKS)
        capture.raises = SnapshotError("it was folded")
        one.take(50, capture)
        assert await one.told.until("was_not_written") == (SnapshotWhy.FAILED, "it was folded")


async def test_what_nobody_foresaw_ends_the_node() -> None:
    with running() as one:
        capture = Capture(BLOCKS)
        capture.raises = ZeroDivisionError()
        one.take(50, capture)
        (error,) = await one.told.until("failed")
        assert isinstance(error, ZeroDivisionError)


# ---------------------------------------------------------------------------------------- on their way


async def carried(one: Running, other: Running, *, bytes_max: int = 7000) -> SnapshotId:
    """The newest of one is at the other, piece by piece."""
    offset, number = 0, 0
    snapshot: Any = None
    while True:
        number += 1
        one.read(snapshot, offset, bytes_max)
        _, piece = await one.told.until("was_read", number)
        snapshot = piece.snapshot
        other.write(number, snapshot, piece.offset, piece.data)
        _, received = await other.told.until("was_received", number)
        if received.complete is not None:
            assert received.complete.index == snapshot.index
            return snapshot
        offset = received.wanted_offset


async def test_a_file_travels_in_pieces_and_is_loaded() -> None:
    with running() as one, running() as other:
        await one.has(50, BLOCKS)
        snapshot = await carried(one, other)
        loading = Loading()
        old = Loading()
        begun = BegunLoading(snapshot.index, old.free(), loading)
        other.thread.submit(SnapshotWork(load=begun))
        loaded, stored = await other.told.until("was_loaded")
        assert loaded is begun and stored.id == snapshot and stored.meta.stamp_ms == 77
        assert loading.blocks == BLOCKS and old.freed == 3, "the old state went first"
        other.thread.free(loading)
        assert one.thread.meter.sent_bytes == other.thread.meter.received_bytes == snapshot.size_bytes


async def test_one_on_its_way_is_kept_though_newer_ones_come() -> None:
    """faults 41: or a follower that is slower than this node's snapshots would never have one."""
    with running() as one:
        first = await one.has(50, BLOCKS)
        one.read(first, 0, 100)
        await one.told.until("was_read")
        for index in (60, 70, 80):
            await one.has(index, BLOCKS)
        one.read(first, 100, 100)
        _, piece = await one.told.until("was_read", 2)
        assert piece is not None and piece.snapshot == first
        one.read(None, 0, 100)
        _, newest = await one.told.until("was_read", 3)
        assert newest.snapshot.index == 80
        one.read(first, 200, 100, follower="n3")
        assert (await one.told.until("was_read", 4))[1] is None, "nobody held it any more"


async def test_one_that_nobody_asks_for_any_more_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thread_module, "UNUSED_US", 0)
    with running() as one:
        first = await one.has(50, BLOCKS)
        one.read(first, 0, 100)
        await one.told.until("was_read")
        for index in (60, 70, 80):
            await one.has(index, BLOCKS)
        assert [stored.id.index for stored in one.snapshots.stored] == [70, 80]


async def test_a_stop_ends_whatever_cannot_be_deleted() -> None:
    """The log's thread is stopped after this one, and the directory let go of; the next start deletes it."""
    with running() as one:
        first = await one.has(50, BLOCKS)
        one.read(first, 0, 100)
        await one.told.until("was_read")
        for index in (60, 70):
            await one.has(index, BLOCKS)
        one.directory.failing_operations.add(one.directory.operations + 1)
    assert len(one.snapshots.stored) == 2
    found = Snapshots.open(one.directory.restarted(), cluster_id=CLUSTER)
    found.prune()
    assert [stored.id.index for stored in found.stored] == [60, 70]


async def test_where_there_is_none_that_is_said() -> None:
    with running() as one:
        one.read(None, 0, 100)
        assert (await one.told.until("was_read"))[1] is None


async def test_one_that_a_follower_had_whole_and_wants_again_is_proved() -> None:
    """faults 58: its disk no longer gives what this process wrote; else it would be sent for ever."""
    with running() as one:
        older, newest = await one.has(50, BLOCKS), await one.has(60, BLOCKS)
        one.read(None, 0, newest.size_bytes)
        await one.told.until("was_read")
        one.directory.flip_bit(snapshot_name(newest), 8 * newest.size_bytes - 40)
        one.read(newest, 0, 100)
        assert (await one.told.until("was_read", 2))[1] is None
        text, left = await one.told.until("was_damaged")
        assert (snapshot_name(newest) in text, left) == (True, older)
        assert [what[0] for what in one.told.said[-2:]] == ["was_damaged", "was_read"], "the next is known before"
        assert await one.has(60, BLOCKS) == newest, "the same state can be written again"
        one.read(newest, 0, newest.size_bytes)
        _, piece = await one.told.until("was_read", 3)
        assert piece is not None
        one.read(newest, 0, 100)
        assert (await one.told.until("was_read", 4))[1] is not None, "proved, it is sent again"
        assert len(one.told.named("was_damaged")) == 1


async def test_pieces_are_read_at_a_bounded_rate() -> None:
    """faults 45: heartbeats and appends have the rest of disk and network."""
    with running() as one:
        snapshot = await one.has(50, BLOCKS)
    with running(one.directory.restarted(), bytes_per_s=1_000_000) as slow:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        for number in range(5):
            slow.read(snapshot, number * 20_000, 20_000, follower=f"n{number}")
        await slow.told.until("was_read", 5)
        assert loop.time() - began_s >= 0.079, "the first at once, the others 20 ms apart"


async def test_a_piece_that_cannot_be_stored_is_answered_late_and_in_its_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A leader that were answered at once would send it again at once."""
    monkeypatch.setattr(thread_module, "RETRY_US", 50_000)
    with running() as one, running() as other:
        snapshot = await one.has(50, BLOCKS)
        one.read(snapshot, 0, 7000)
        _, piece = await one.told.until("was_read")
        other.directory.capacity_bytes = RESERVE_BYTES
        began_s = asyncio.get_running_loop().time()
        other.write(1, snapshot, 0, piece.data)
        other.write(2, snapshot, 7000, piece.data)
        (first, received), (second, _) = await told_twice(other.told, "was_received")
        assert asyncio.get_running_loop().time() - began_s >= 0.099
        assert (first.number, second.number) == (1, 2)
        assert received.wanted_offset == 0 and received.complete is None and "not stored" in received.problem
        other.directory.capacity_bytes = None
        other.write(3, snapshot, 0, piece.data)
        _, received = await other.told.until("was_received", 3)
        assert received.wanted_offset == 7000


async def told_twice(told: Told, name: str) -> list[Any]:
    await told.until(name, 2)
    return told.named(name)


async def test_a_piece_that_a_broken_disk_does_not_take_ends_the_node() -> None:
    with running() as one, running() as other:
        snapshot = await one.has(50, BLOCKS)
        other.directory.failing_operations.add(other.directory.operations + 1)
        other.write(1, snapshot, 0, b"piece")
        (error,) = await other.told.until("failed")
        assert isinstance(error, DiskFailed)


# ------------------------------------------------------------------------------------------ being loaded


async def test_a_stop_leaves_no_file_open_of_which_a_part_has_come() -> None:
    with running() as one:
        snapshot = await one.has(50, BLOCKS)
    with running() as other:
        other.write(1, snapshot, 0, b"piece")
        await other.told.until("was_received")
        assert other.snapshots.receiving is not None
        other.thread.stop()
        assert other.snapshots.receiving is None


async def test_one_whose_file_is_gone_is_not_loaded() -> None:
    with running() as one:
        await one.has(50, BLOCKS)
        begun = BegunLoading(Index(40), iter(()), Loading())
        one.thread.submit(SnapshotWork(load=begun))
        assert await one.told.until("was_not_loaded") == (begun,)


async def test_one_whose_file_was_damaged_meanwhile_ends_the_node() -> None:
    """faults 58: no newer one will be asked for, and the same one would be again and again."""
    with running() as one:
        snapshot = await one.has(50, BLOCKS)
        one.directory.flip_bit(snapshot_name(snapshot), 70)
        one.thread.submit(SnapshotWork(load=BegunLoading(Index(50), iter(()), Loading())))
        (error,) = await one.told.until("failed")
        assert isinstance(error, DataDamaged)


async def test_a_state_that_cannot_be_loaded_ends_the_node() -> None:
    """It holds nothing any more, and may not go on as if it did."""
    with running() as one:
        await one.has(50, BLOCKS)
        loading = Loading()
        loading.raises = SnapshotError("not a state")
        one.thread.submit(SnapshotWork(load=BegunLoading(Index(50), iter(()), loading)))
        (error,) = await one.told.until("failed")
        assert isinstance(error, SnapshotError)


# -------------------------------------------------------------------------------------- on the event loop


async def test_what_is_wrong_with_a_received_file_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """faults 58: it is thrown away, and the leader hears that it is wanted from its beginning."""
    with running() as one:
        snapshot = await one.has(50, BLOCKS)
        reader = one.snapshots.reader(snapshot)
        assert reader is not None
        with reader:
            whole = bytearray(reader.piece(0, snapshot.size_bytes))
    whole[3000] ^= 1
    heard: list[tuple[int, LogBase | None]] = []
    told = asyncio.Event()

    def was_received(_write: SnapshotWrite, wanted_offset: int, complete: LogBase | None) -> None:
        heard.append((wanted_offset, complete))

    replica: Any = SimpleNamespace(snapshots=SimpleNamespace(index=0, was_received=was_received))
    directory = disk()
    keeper = SnapshotKeeper(
        Snapshots.open(directory, cluster_id=CLUSTER, reserve_bytes=RESERVE_BYTES),
        replica,
        asyncio.get_running_loop(),
        KeeperShell(told.set, failed=lambda error: heard.append((-1, None))),
        cluster_id=CLUSTER,
        bytes_per_s=FAST,
    )
    keeper.start()
    try:
        for number in range(3):
            told.clear()
            keeper.submit(SnapshotWork(writes=[SnapshotWrite(number, snapshot, 0, bytes(whole))]))
            async with asyncio.timeout(DEADLINE_S):
                await told.wait()
            if number < 2:
                assert "is damaged" in replica.snapshots.receive_failure
                assert not [name for name in directory.names() if name.startswith("snapshot")]
            if number == 1:
                whole[3000] ^= 1
    finally:
        keeper.stop()
    assert heard == [(0, None), (0, None), (snapshot.size_bytes, LogBase(Index(50), Term(1), CONFIGURATION))]
    assert replica.snapshots.receive_failure is None, "the next was right"
    assert [record.event for record in caplog.records if hasattr(record, "event")] == ["snapshot_trouble"]


async def test_what_a_loading_took_the_place_of_goes_in_the_thread() -> None:
    """The loop would stand still for as long as it takes to free it."""
    directory, told = disk(), asyncio.Event()
    with running(directory) as one:
        await one.has(50, BLOCKS)
    replica: Any = SimpleNamespace(snapshot_was_loaded=lambda _loaded, stamp_ms: stamp_ms == 77)
    keeper = SnapshotKeeper(
        Snapshots.open(directory, cluster_id=CLUSTER, reserve_bytes=RESERVE_BYTES),
        replica,
        asyncio.get_running_loop(),
        KeeperShell(told.set, failed=lambda error: None),
        cluster_id=CLUSTER,
        bytes_per_s=FAST,
    )
    keeper.start()
    try:
        loading = Loading()
        keeper.submit(SnapshotWork(load=BegunLoading(Index(50), iter(()), loading)))
        async with asyncio.timeout(DEADLINE_S):
            await told.wait()
        await until(lambda: loading.freed == 3, within_s=DEADLINE_S, what="what it held to go")
    finally:
        keeper.stop()


# ---------------------------------------------------------------------------------------------- the pace


def test_a_pace_gives_each_its_time_in_turn() -> None:
    pace = Pace(1_000_000)
    assert pace.due_us(5000, now_us=100) == 100, "the first at once"
    assert pace.due_us(1000, now_us=100) == 5100
    assert pace.due_us(1000, now_us=200) == 6100
    assert pace.due_us(1000, now_us=90_000) == 90_000, "idleness is not saved up"
    assert pace.due_us(1000, now_us=90_000) == 91_000
