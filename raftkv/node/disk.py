"""The disk thread: one thread writes the log, in order, everything that has gathered as one batch.

Told: disk work with its tickets, and reads. Tells the event loop: what is durable, what was read, that room
is short, or that the disk failed, which ends the node. Whoever asks: how long all of it took. It never learns
what an entry means.

While a sync is under way work gathers, so a batch is as large as the load makes it. After 100 ms without
work the log gets its "synced through" mark. A second thread prepares the next segment ahead of need; while
the disk is full it tries once a second, however much is written.
"""

from __future__ import annotations

import threading
from asyncio import AbstractEventLoop
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from raftkv.core.effects import DiskWrite, LogRead
from raftkv.core.types import Index, Ticket
from raftkv.errors import DiskFailed
from raftkv.node.clock import now_us
from raftkv.node.figures import Histogram, Recent
from raftkv.storage.wal import Wal

IDLE_MARK_S: Final = 0.1
SPARE_RETRY_S: Final = 1.0
SEGMENTS_DROPPED_AT_ONCE: Final = 4
"""10 ms each, measured beside other load; a leader whose disk stands still for an election timeout hands over."""
ROOM_LOOK_S: Final = 10.0
"""How often the disk is asked how much room it has."""


@dataclass(slots=True)
class DiskListener:
    """Called on the event loop, in the order of what happened."""

    persisted: Callable[[Ticket], None]
    was_read: Callable[[LogRead, list[bytes]], None]
    room_is_short: Callable[[bool], None]
    failed: Callable[[BaseException], None]


class DiskMeter:
    """What the disk thread has measured; it writes, anybody reads."""

    __slots__ = ("batch_entries", "busy_since_us", "free_bytes", "recent_syncs_us", "syncs_us")

    def __init__(self) -> None:
        self.syncs_us = Histogram()
        """How long each batch took to be written and synced, since the start …"""
        self.recent_syncs_us = Recent()
        """… and in the last minute."""
        self.batch_entries = Histogram()
        """How many log entries each batch had; none where only a vote was stored."""
        self.busy_since_us: int | None = None
        """When the write, mark or read that is under way began; None: the disk is idle."""
        self.free_bytes: int | None = None
        """What the disk had room for when it was asked last."""

    def synced(self, entries_count: int, *, began_us: int) -> None:
        """A batch that began then is on stable storage."""
        ended_us = now_us()
        took_us = ended_us - began_us
        self.syncs_us.add(took_us)
        self.recent_syncs_us.add(took_us, now_us=ended_us)
        self.batch_entries.add(entries_count)


class DiskThread:
    """Owns the Wal from ``start`` to ``stop``."""

    def __init__(
        self,
        wal: Wal,
        loop: AbstractEventLoop,
        listener: DiskListener,
        *,
        free_bytes: Callable[[], int] | None = None,
    ) -> None:
        """``free_bytes`` asks the disk for its room; it may block, and is called from a thread."""
        self.syncs_count = 0
        self.writes_count = 0
        self.meter = DiskMeter()
        self._free_bytes = free_bytes
        self._wal, self._loop, self._listener = wal, loop, listener
        self._gathered: deque[DiskWrite] = deque()
        self._reads: deque[LogRead] = deque()
        self._drop_through: Index | None = None
        """What was written and read goes first: to drop a segment takes a few milliseconds."""
        self._wake = threading.Condition()
        self._stopping = False
        self._failed = False
        self._spare_wanted = threading.Event()
        self._writer = threading.Thread(target=self._guarded, args=(self._write_on,), name="raftkv-disk", daemon=True)
        self._preparer = threading.Thread(
            target=self._guarded, args=(self._prepare_spares,), name="raftkv-spare", daemon=True
        )

    def start(self) -> None:
        """Both threads run."""
        self._writer.start()
        self._preparer.start()

    def submit(self, writes: list[DiskWrite], reads: list[LogRead], drop_through: Index | None = None) -> None:
        """Enqueues; from the event loop. Bounded by whoever bounds proposals and appends in flight.

        ``drop_through``: a snapshot has everything up to there, and the log need not.
        """
        with self._wake:
            self._gathered.extend(writes)
            self._reads.extend(reads)
            if drop_through is not None:
                self._drop_through = max(drop_through, self._drop_through or drop_through)
            self._wake.notify()

    def stop(self) -> None:
        """Everything submitted is written, a mark set, the log closed. Waits; not for the event loop."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._spare_wanted.set()
        self._writer.join()
        self._preparer.join()
        self._wal.close()

    @property
    def is_alive(self) -> bool:
        """The thread that writes still runs; one that failed does not."""
        return self._writer.is_alive() and not self._failed

    @property
    def room_is_short(self) -> bool:
        """The disk has no room for another segment."""
        return self._wal.room_is_short

    @property
    def log_bytes(self) -> int:
        """What the log takes on disk."""
        return self._wal.log_bytes

    # ------------------------------------------------------------------------------------ the threads

    def _guarded(self, work: Callable[[], None]) -> None:
        """Nothing that is raised in a thread is lost: it ends the node."""
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - handed to the loop, which ends the node with it
            self._failed = True
            self._tell(self._listener.failed, error)

    def _write_on(self) -> None:
        while True:
            writes, reads = self._next_work()
            began_us = self.meter.busy_since_us = now_us()
            if writes:
                self._wal.write(writes)
                self.meter.synced(sum(len(write.frames) for write in writes), began_us=began_us)
                self.syncs_count += 1
                self.writes_count += len(writes)
                self._tell(self._listener.persisted, writes[-1].ticket)
                if self._wal.wants_spare and not self._wal.room_is_short:
                    self._spare_wanted.set()
            for read in reads:
                frames = self._wal.read(read.first, read.last, bytes_max=read.bytes_max)
                self._tell(self._listener.was_read, read, frames)
            has_dropped = self._drop(writes)
            if not writes and not reads and not has_dropped:
                self._wal.mark()
                if self._stopping:
                    return
            self.meter.busy_since_us = None

    def _drop(self, written: list[DiskWrite]) -> bool:
        """Whether there was anything to drop. A log that begins anew needs nothing from before.

        A few segments at a time: whoever waits for an entry does not wait for all of them.
        """
        with self._wake:
            through, self._drop_through = self._drop_through, None
        begun_after = [write.base.index for write in written if write.base is not None]
        if through is None and not begun_after:
            return False
        through = max([*begun_after, through or Index(0)])
        if self._wal.trim(through, segments_max=SEGMENTS_DROPPED_AT_ONCE):
            self.submit([], [], through)
        return True

    def _next_work(self) -> tuple[list[DiskWrite], list[LogRead]]:
        """What has gathered; nothing after 100 ms without any, and at the stop."""
        with self._wake:
            if not self._is_called():
                self._wake.wait(IDLE_MARK_S)
            while not self._is_called() and not self._wal.is_unmarked:
                self._wake.wait()
            writes, reads = list(self._gathered), list(self._reads)
            self._gathered.clear()
            self._reads.clear()
            return writes, reads

    def _is_called(self) -> bool:
        return bool(self._gathered or self._reads or self._drop_through is not None or self._stopping)

    def _prepare_spares(self) -> None:
        was_short = False
        while not (self._stopping or self._failed):
            if self._wal.wants_spare and not self._wal.prepare_spare():
                self._spare_wanted.clear()
            self._look_for_room()
            short = self._wal.room_is_short
            if short != was_short:
                was_short = short
                self._tell(self._listener.room_is_short, short)
            self._spare_wanted.wait(SPARE_RETRY_S if short else ROOM_LOOK_S)
            if not short:
                self._spare_wanted.clear()

    def _look_for_room(self) -> None:
        """A look that fails says nothing: what is written and synced tells whether the disk works."""
        if self._free_bytes is not None:
            try:
                self.meter.free_bytes = self._free_bytes()
            except DiskFailed:
                self.meter.free_bytes = None

    def _tell(self, listener: Callable[..., None], *what: object) -> None:
        try:
            self._loop.call_soon_threadsafe(self._deliver, listener, *what)
        except RuntimeError:
            return  # the loop is closed: nobody is left to tell

    def _deliver(self, listener: Callable[..., None], *what: object) -> None:
        """On the loop, whose own handler would log what a listener raises and go on: a ticket would be lost."""
        try:
            listener(*what)
        except Exception as error:  # noqa: BLE001 - the node ends with it
            self._listener.failed(error)
