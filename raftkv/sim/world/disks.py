"""The disk threads of all nodes, in virtual time: what has gathered is written as one batch, then the next.

Told: writes and reads of nodes, and what is wrong with their disks. Tells: each node, in its process, what is durable,
what was read, that room is short, or that its disk failed. After 100 ms without work a log gets its mark; a spare is
prepared ahead of need, and while the disk is full that is tried once a second.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final, Protocol

from raftkv.core.effects import DiskWrite, LogRead
from raftkv.core.types import Index
from raftkv.errors import DiskFailed
from raftkv.sim.world.disk import Crash
from raftkv.sim.world.node import Disk, VirtualNode
from raftkv.sim.world.snapshot_files import Job, Told
from raftkv.sim.world.wal_disk import WalDisk
from raftkv.sim.world.watching import Watcher
from raftkv.snapshotting import SnapshotWork

_IDLE_MARK_US: Final = 100_000
_SPARE_RETRY_US: Final = 1_000_000
_SPARE_US_MAX: Final = 20_000
_TRIM_US_MAX: Final = 20_000
_SMALL_US_MAX: Final = 10_000
_LARGE_US_MAX: Final = 200_000
"""What is done with snapshots: a piece; a whole one, written or loaded."""
_OPENING_US_MIN: Final = 100
_OPENING_US_MAX: Final = 20_000
"""So long a node reads its log when it starts."""
_SOON_US: Final = 1_000
"""Within this what a slow disk was at is done once it is as fast as others."""
_LOOK_AGAIN_US: Final = 20_000
"""Where a thread stands still, or its disk hangs, what was due is looked at again after this."""


@dataclass(frozen=True, slots=True)
class DiskFaults:
    """How slow disks are, in microseconds."""

    sync_us_min: int = 100
    sync_us_max: int = 400
    read_us: int = 500


class World(Protocol):
    """What disks live in."""

    @property
    def rng(self) -> Random:
        """Draws how long things take."""
        ...

    @property
    def disk_faults(self) -> DiskFaults:
        """How slow disks are now."""
        ...

    @property
    def watchers(self) -> Sequence[Watcher]:
        """Who is told."""
        ...

    def after(self, delay_us: int, act: Callable[[], None]) -> None:
        """Has ``act`` called that much later."""
        ...

    def happens(self, node: VirtualNode, act: Callable[[], None]) -> None:
        """In the node's process: now, or as soon as it is continued."""
        ...

    def halt(self, node: VirtualNode, error: BaseException) -> None:
        """The node ends itself."""
        ...

    def dies(self, node: VirtualNode) -> None:
        """The node died in an operation of its disk."""
        ...


class Disks:
    """Drives them."""

    def __init__(self, world: World) -> None:
        self._world = world

    def submit(self, node: VirtualNode, writes: Sequence[DiskWrite], reads: Sequence[LogRead]) -> None:
        """Everything will be done, the writes in order."""
        if writes:
            node.disk.unfinished.extend(writes)
            self.go_on(node)
        for read in reads:
            self._read(node, read)

    def trim(self, node: VirtualNode, through: Index | None) -> None:
        """Some time later, on the thread that writes the log."""
        if through is not None:
            trimmed = through

            def trim() -> None:
                if _is_open(node.disk):
                    self.do(node, lambda: node.disk.trim_log(trimmed))

            self._later(node, self._world.rng.randrange(100, _TRIM_US_MAX), trim)

    def keep_snapshots(self, node: VirtualNode, work: SnapshotWork) -> None:
        """The snapshot thread does each thing in its time: small ones soon, large ones while others go on."""
        assert node.files is not None
        jobs, rng = node.files.jobs(work), self._world.rng
        for job in jobs.large:
            self._do_job(node, "large", job, rng.randrange(500, _LARGE_US_MAX))
        for job in jobs.reads:
            self._do_job(node, "reads", job, rng.randrange(100, _SMALL_US_MAX))
        for job in jobs.pieces:
            self._do_job(node, "pieces", job, rng.randrange(100, _SMALL_US_MAX))

    def _do_job(self, node: VirtualNode, kind: str, job: Job, delay_us: int) -> None:
        """Those of one kind in their order: each draws how much later than the one before it is done."""
        waiting = node.waiting_jobs.setdefault(kind, [])
        waiting.append(job)
        self._in_its_time(node, delay_us, lambda: self._next_job(node, waiting))

    def _next_job(self, node: VirtualNode, waiting: list[Job]) -> None:
        if not waiting:
            return
        told: list[Told] = []
        job = waiting.pop(0)
        if self.do(node, lambda: told.append(job())):
            self._world.happens(node, told[0])

    def go_on(self, node: VirtualNode) -> None:
        """All that has gathered is one batch; what comes while it is being synced waits for the next."""
        disk = node.disk
        if disk.unfinished and not disk.under_way and not self._stands(node):
            disk.under_way = len(disk.unfinished)
            self._begin_sync(node)

    def let_go(self, node: VirtualNode) -> None:
        """A disk that hung works again."""
        disk = node.disk
        if disk.hangs:
            disk.hangs = False
            if node.runs and disk.under_way:
                self._begin_sync(node)
            elif node.runs:
                self.go_on(node)

    def speed_up(self, node: VirtualNode) -> None:
        """A disk that was slow is as fast as others; what it is at is done soon."""
        disk = node.disk
        was_slow, disk.slowness = disk.slowness > 1, 1
        if was_slow and node.runs and disk.under_way and not disk.hangs:
            self._begin_sync(node)
        slowed, node.slowed = node.slowed, []
        for do_soon in slowed:
            do_soon()

    def open(self, node: VirtualNode, act: Callable[[], None]) -> None:
        """The log of a node that does not take part yet is read, and then ``act`` called in its process."""
        delay_us = self._world.rng.randrange(_OPENING_US_MIN, _OPENING_US_MAX)
        self._in_its_time(node, delay_us, lambda: self._world.happens(node, act), is_alive=lambda: node.runs)

    def begin(self, node: VirtualNode) -> None:
        """The node's log is open: there should be a spare."""
        self._prepare_spare_soon(node)

    def do(self, node: VirtualNode, act: Callable[[], None]) -> bool:
        """Whether it was done; where the disk fails the node ends, and where it died it is dead."""
        try:
            act()
        except Crash:
            self._world.dies(node)
            return False
        except DiskFailed as failure:
            error = failure
            self._world.happens(node, lambda: self._world.halt(node, error))
            return False
        return True

    # ----------------------------------------------------------------------------------------- leaves

    def _stands(self, node: VirtualNode) -> bool:
        return node.disk.hangs or (node.paused and not node.disk_goes_on)

    def _begin_sync(self, node: VirtualNode) -> None:
        node.disk.syncs += 1
        number, faults, life = node.disk.syncs, self._world.disk_faults, node.life
        duration_us = self._world.rng.randrange(faults.sync_us_min, faults.sync_us_max + 1) * node.disk.slowness
        self._world.after(duration_us, lambda: self._end_sync(node, life, number))

    def _end_sync(self, node: VirtualNode, life: int, number: int) -> None:
        disk = node.disk
        if node.life != life or not node.runs or disk.hangs or disk.syncs != number or not _is_open(disk):
            return  # One that failed is asked no more, though its process stands still and does not know it yet.
        written: list[DiskWrite] = []
        if not self.do(node, lambda: written.extend(disk.finish())):
            return
        for write in written:
            for watcher in self._world.watchers:
                watcher.synced(node, write)
        self.go_on(node)
        self._world.happens(node, lambda: node.running.persisted(written[-1].ticket))
        if isinstance(disk, WalDisk):
            self._later(node, _IDLE_MARK_US, lambda: self._mark_if_idle(node, number))
            if disk.wants_spare and not disk.room_is_short:
                self._prepare_spare_soon(node)

    def _mark_if_idle(self, node: VirtualNode, number: int) -> None:
        """Nothing was written since that sync."""
        disk = node.disk
        assert isinstance(disk, WalDisk)
        if disk.syncs == number and not disk.unfinished and disk.is_unmarked:
            self.do(node, disk.mark)

    def _prepare_spare_soon(self, node: VirtualNode) -> None:
        delay_us = self._world.rng.randrange(1_000, _SPARE_US_MAX)
        self._in_its_time(node, delay_us, lambda: self._prepare_spare(node))

    def _prepare_spare(self, node: VirtualNode) -> None:
        disk = node.disk
        assert isinstance(disk, WalDisk)
        was_short = node.running.disk_is_short
        if disk.wants_spare and not self.do(node, disk.prepare_spare):
            return
        short = disk.room_is_short
        if short != was_short:
            self._world.happens(node, lambda: self._tell_room(node, short=short))
        if short:
            self._later(node, _SPARE_RETRY_US, lambda: self._prepare_spare(node))

    def _tell_room(self, node: VirtualNode, *, short: bool) -> None:
        node.running.disk_is_short = short
        for watcher in self._world.watchers:
            watcher.room_is_short(node, short=short)

    def _read(self, node: VirtualNode, read: LogRead) -> None:
        def done() -> None:
            frames = node.disk.read(read)
            disk = node.disk
            if isinstance(disk, WalDisk):
                found: list[bytes] = []
                if not self.do(node, lambda: found.extend(disk.read_back(read))):
                    return
                for watcher in self._world.watchers:
                    watcher.was_read(node, read, found)
                frames = found
            self._world.happens(node, lambda: node.running.log_was_read(read, frames))

        self._in_its_time(node, self._world.disk_faults.read_us, done)

    def _in_its_time(
        self, node: VirtualNode, delay_us: int, act: Callable[[], None], *, is_alive: Callable[[], bool] | None = None
    ) -> None:
        """Once: after so long on a disk that is not slow, or as soon as a slow one is as fast as others."""
        if node.disk.slowness == 1:
            self._later(node, delay_us, act, is_alive=is_alive)
            return
        left = [act]

        def once() -> None:
            if left:
                left.pop()()

        node.slowed.append(lambda: self._later(node, self._world.rng.randrange(_SOON_US), once, is_alive=is_alive))
        self._later(node, delay_us * node.disk.slowness, once, is_alive=is_alive)

    def _later(
        self, node: VirtualNode, delay_us: int, act: Callable[[], None], *, is_alive: Callable[[], bool] | None = None
    ) -> None:
        """In the thread of this life, as soon as it can; None: it is alive while its log is open."""
        life, alive = node.life, is_alive or (lambda: _has_log(node))

        def due() -> None:
            if node.life != life or not alive():
                return
            if self._stands(node):
                self._world.after(_LOOK_AGAIN_US, due)
            else:
                act()

        self._world.after(delay_us, due)


def _has_log(node: VirtualNode) -> bool:
    return node.is_up and _is_open(node.disk)


def _is_open(disk: Disk) -> bool:
    return not isinstance(disk, WalDisk) or disk.is_open
