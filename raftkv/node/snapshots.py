"""The snapshot thread: one thread beside the log's, which alone touches the files of snapshots.

Told: captures to write, pieces to read for followers and to keep from a leader, states to load. Tells the event loop
what became of each. May never know: what is in a block, and what a snapshot means to the log.

A capture is written, and a state loaded, block by block. Between two blocks everything small that waits is done, so
that no follower's transfer waits for a million keys, and the event loop has its turn. What is written, and what is
read for all followers together, keeps to a rate: the log's syncs and the heartbeats share disk and network with it.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import threading
import time
from asyncio import AbstractEventLoop
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

from raftkv.core.effects import SnapshotPiece, SnapshotRead, SnapshotWrite
from raftkv.core.types import ClusterId, Index, NodeId, SnapshotId
from raftkv.errors import DataDamaged, DiskFailed, SnapshotError
from raftkv.node.clock import now_us
from raftkv.outcomes import SnapshotWhy
from raftkv.snapshotting import BegunLoading, SnapshotWork, TakenCapture
from raftkv.state_machine import Loading
from raftkv.storage.directory import is_disk_full
from raftkv.storage.snapshots import Received, SnapshotMeta, SnapshotReader, Snapshots, StoredSnapshot

GIVE_WAY_S: Final = 0.0005
"""Between two blocks, at least: the event loop gets the interpreter, and what arrived meanwhile is done."""
RETRY_US: Final = 1_000_000
"""So much later is answered what there was no room for: whoever sent it would send it again at once."""
UNUSED_US: Final = 60_000_000
"""After so long nobody wants the rest of a file any more, and it may be deleted."""
NOT_KEPT: Final = "a piece of a snapshot was not stored"
_GIVEN_UP: Final = "it was given up"


@dataclass(slots=True)
class SnapshotListener:
    """Called on the event loop, in the order of what happened."""

    was_prepared: Callable[[], None]
    """A capture's file is whole, and has no name yet."""
    was_written: Callable[[SnapshotId], None]
    was_not_written: Callable[[SnapshotWhy, str], None]
    was_read: Callable[[SnapshotRead, SnapshotPiece | None], None]
    was_damaged: Callable[[str, SnapshotId | None], None]
    """The newest file is not as it was written, and why; which is the newest now."""
    was_received: Callable[[SnapshotWrite, Received], None]
    was_loaded: Callable[[BegunLoading, StoredSnapshot], None]
    was_not_loaded: Callable[[BegunLoading], None]
    failed: Callable[[BaseException], None]
    """Nothing more will be done: the node ends with it. A disk that fails is never believed again (faults 55)."""


class SnapshotMeter:
    """What the thread has done; it writes, anybody reads."""

    __slots__ = ("backup_bytes", "last_load_us", "last_write_us", "received_bytes", "sent_bytes", "written_bytes")

    def __init__(self) -> None:
        self.written_bytes = 0
        """Of captures, whether or not their files came to be."""
        self.sent_bytes = 0
        """Read for followers."""
        self.backup_bytes = 0
        """Read for clients that want a copy."""
        self.received_bytes = 0
        self.last_write_us = 0
        """How long the newest snapshot took from its capture until its file was whole; 0: there was none."""
        self.last_load_us = 0
        """How long it took to load the newest that was received; 0: there was none."""


class Pace:
    """Keeps something to so many bytes a second: whoever has moved some waits until the next may move."""

    __slots__ = ("_bytes_per_s", "_free_at_us")

    def __init__(self, bytes_per_s: int) -> None:
        self._bytes_per_s = bytes_per_s
        self._free_at_us = 0

    def due_us(self, size_bytes: int, *, now_us: int) -> int:
        """When so many bytes may move, after all those that were asked for before."""
        due_us = max(self._free_at_us, now_us)
        self._free_at_us = due_us + size_bytes * 1_000_000 // self._bytes_per_s
        return due_us


class _Abandoned(Exception):
    """A capture is wanted no more; raised into the writing of its file, and caught behind it."""


@dataclass(slots=True)
class _Transfer:
    """A file on its way to a follower; it is kept until it is there, or nobody asks for it any more."""

    reader: SnapshotReader
    used_us: int
    is_at_end: bool = False
    """All of it was read."""


class SnapshotThread:
    """Owns the snapshots' files from ``start`` to ``stop``."""

    def __init__(
        self,
        snapshots: Snapshots,
        loop: AbstractEventLoop,
        listener: SnapshotListener,
        *,
        cluster_id: ClusterId,
        bytes_per_s: int,
    ) -> None:
        self.meter = SnapshotMeter()
        self._snapshots, self._loop, self._listener = snapshots, loop, listener
        self._cluster_id = cluster_id
        self._writing, self._reading = Pace(bytes_per_s), Pace(bytes_per_s)
        self._wake = threading.Condition()
        self._timed: list[tuple[int, int, Callable[[], None]]] = []
        """Small jobs, by when they are due."""
        self._numbers = itertools.count()
        self._pieces: deque[SnapshotWrite] = deque()
        """Received; answered in their order, so none is looked at before the one before it is answered."""
        self._pieces_wait = False
        """For an answer that comes late."""
        self._large: deque[Callable[[], None]] = deque()
        self._transfers: dict[NodeId, _Transfer] = {}
        self._backups: set[SnapshotReader] = set()
        """That clients are being sent."""
        self._is_abandoned = self._is_prepared = False
        """What is being written is wanted no more; it is whole, and has no name yet."""
        self._stopping = False
        self._thread = threading.Thread(target=self._guarded, name="raftkv-snapshots", daemon=True)

    def start(self) -> None:
        """It runs."""
        self._thread.start()

    def submit(self, work: SnapshotWork) -> None:
        """Enqueues; from the event loop. Bounded: a piece at a time for each follower and each leader, one state."""
        with self._wake:
            for read in work.reads:
                self._at(self._reading.due_us(read.bytes_max, now_us=now_us()), partial(self._read, read))
            self._pieces.extend(work.writes)
            if work.abandon and self._is_prepared:
                self._large.append(self._forget)
            elif work.abandon:
                self._is_abandoned = True
            if work.place:
                self._large.append(self._place)
            if work.take is not None:
                self._is_abandoned = self._is_prepared = False
                self._large.append(partial(self._write, work.take, now_us()))
            if work.load is not None:
                self._large.append(partial(self._load, work.load, now_us()))
            self._wake.notify()

    def open_backup(self, done: Callable[[SnapshotReader | None], None]) -> None:
        """``done`` gets the newest snapshot, kept until ``close_backup``; None: there is none that is sound."""
        with self._wake:
            self._at(0, partial(self._open_backup, done))
            self._wake.notify()

    def read_backup(self, reader: SnapshotReader, offset: int, bytes_max: int, done: Callable[[bytes], None]) -> None:
        """``done`` gets these bytes, at the rate that backups and followers share; never, once it is closed."""
        with self._wake:
            due_us = self._reading.due_us(bytes_max, now_us=now_us())
            self._at(due_us, partial(self._read_backup, reader, offset, bytes_max, done))
            self._wake.notify()

    def close_backup(self, reader: SnapshotReader) -> None:
        """Nobody reads on."""
        with self._wake:
            self._at(0, partial(self._close_backup, reader))
            self._wake.notify()

    def free(self, loading: Loading) -> None:
        """What it still holds is let go of."""
        with self._wake:
            self._large.append(partial(self._exhaust, loading.free()))
            self._wake.notify()

    def stop(self) -> None:
        """A capture that is being written is given up; no file is open any more. Waits; not for the event loop."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join()
        for reader in [*(transfer.reader for transfer in self._transfers.values()), *self._backups]:
            with contextlib.suppress(DiskFailed):  # what could not be deleted the next start deletes
                reader.close()
        self._transfers.clear()
        self._backups.clear()
        self._snapshots.close()

    # ------------------------------------------------------------------------------------- the thread

    def _guarded(self) -> None:
        """Nothing that is raised in the thread is lost: it ends the node."""
        try:
            self._work_on()
        except BaseException as error:  # noqa: BLE001 - handed to the loop, which ends the node with it
            self._tell(self._listener.failed, error)

    def _work_on(self) -> None:
        while not self._stopping:
            with self._wake:
                job = self._small_job() or (self._large.popleft() if self._large else None)
                if job is None and not self._stopping:
                    self._wake.wait(self._until_due_s())
            if job is not None:
                job()

    def _give_way(self, until_us: int = 0) -> None:
        """The event loop has its turn, everything small that is due is done, and it is ``until_us``."""
        time.sleep(GIVE_WAY_S)
        while not self._stopping:
            with self._wake:
                job = self._small_job()
                left_us = until_us - now_us()
                if job is None:
                    if left_us <= 0:
                        return
                    due_s = self._until_due_s()
                    self._wake.wait(left_us / 1_000_000 if due_s is None else min(due_s, left_us / 1_000_000))
            if job is not None:
                job()

    def _small_job(self) -> Callable[[], None] | None:
        if self._timed and self._timed[0][0] <= now_us():
            return heapq.heappop(self._timed)[2]
        if self._pieces and not self._pieces_wait:
            return partial(self._receive, self._pieces.popleft())
        return None

    def _until_due_s(self) -> float | None:
        return max(0.0, (self._timed[0][0] - now_us()) / 1_000_000) if self._timed else None

    def _at(self, due_us: int, job: Callable[[], None]) -> None:
        heapq.heappush(self._timed, (due_us, next(self._numbers), job))

    def _exhaust(self, pieces: Iterator[None]) -> None:
        for _ in pieces:
            self._give_way()

    # ----------------------------------------------------------------------------------------- writing

    def _write(self, taken: TakenCapture, began_us: int) -> None:
        self._forget_unused()
        meta = SnapshotMeta(self._cluster_id, taken.base, taken.stamp_ms, taken.state_hash)
        try:
            self._snapshots.prepare(meta, self._paced(taken.capture.blocks()))
        except _Abandoned:
            self._tell(self._listener.was_not_written, SnapshotWhy.SHUTTING_DOWN, _GIVEN_UP)
        except DiskFailed as error:
            self._found_no_room(error)
        except SnapshotError as error:
            self._tell(self._listener.was_not_written, SnapshotWhy.FAILED, str(error))
        else:
            self._prepared(now_us() - began_us)

    def _prepared(self, took_us: int) -> None:
        """Whoever gave it up before the loop hears of it meant this file."""
        with self._wake:
            self._is_prepared = not self._is_abandoned
        if not self._is_prepared:
            self._forget()
            return
        self.meter.last_write_us = took_us
        self._tell(self._listener.was_prepared)

    def _place(self) -> None:
        self._is_prepared = False
        try:
            written = self._snapshots.place()
        except DiskFailed as error:
            self._found_no_room(error)
        else:
            self._tell(self._listener.was_written, written)

    def _forget(self) -> None:
        self._is_prepared = False
        self._snapshots.forget()
        self._tell(self._listener.was_not_written, SnapshotWhy.SHUTTING_DOWN, _GIVEN_UP)

    def _found_no_room(self, error: DiskFailed) -> None:
        """Raises what is wrong with the disk, if it is anything else."""
        if not is_disk_full(error):
            raise error
        self._tell(self._listener.was_not_written, SnapshotWhy.DISK_FULL, str(error))

    def _paced(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        """The blocks; each is asked for only when its turn has come."""
        for block in blocks:
            if self._stopping or self._is_abandoned:
                raise _Abandoned
            yield block
            self.meter.written_bytes += len(block)
            self._give_way(self._writing.due_us(len(block), now_us=now_us()))

    # ----------------------------------------------------------------------------------------- loading

    def _load(self, begun: BegunLoading, began_us: int) -> None:
        """Raises what is wrong with the file or the state in it: the machine holds nothing any more."""
        self._exhaust(begun.discarding)
        reader = self._reader_of(begun.index)
        if reader is None:
            self._tell(self._listener.was_not_loaded, begun)
            return
        with reader:
            for block in reader.blocks():
                if self._stopping:
                    return
                begun.loading.add(block)
                self._give_way()
        self.meter.last_load_us = now_us() - began_us
        self._tell(self._listener.was_loaded, begun, reader.stored)

    def _reader_of(self, index: Index) -> SnapshotReader | None:
        """None: a newer one has come and taken its place, and will be asked for. Raises what is wrong with it."""
        named = [id for id in self._snapshots.candidates if id.index == index]
        for id in named:
            reader = self._snapshots.reader(id)
            if reader is not None:
                return reader
        newest = self._snapshots.newest
        if newest is not None and newest.id.index > index:
            return None
        for id in named:
            self._snapshots.prove(id)
        raise SnapshotError(f"the snapshot at {index} is gone, and there is no newer one")

    # ------------------------------------------------------------------------------------ to followers

    def _read(self, read: SnapshotRead) -> None:
        newest = self._snapshots.newest
        piece = self._piece(read)
        if newest is not None and self._snapshots.newest != newest:
            self._tell_damage(newest.id)
        if piece is not None:
            self.meter.sent_bytes += len(piece.data)
        self._tell(self._listener.was_read, read, piece)

    def _piece(self, read: SnapshotRead) -> SnapshotPiece | None:
        transfer = self._transfers.get(read.follower)
        if transfer is not None and transfer.is_at_end and read.offset == 0:
            if transfer.reader.stored.id == read.snapshot:
                self._prove_again(read.follower, read.snapshot)
            transfer = None
        if transfer is None or read.snapshot is None or transfer.reader.stored.id != read.snapshot:
            self._close(read.follower)
            reader = self._snapshots.reader(read.snapshot)
            if reader is None:
                return None
            transfer = self._transfers[read.follower] = _Transfer(reader, 0)
        transfer.used_us = now_us()
        data = transfer.reader.piece(read.offset, read.bytes_max)
        transfer.is_at_end = read.offset + len(data) == transfer.reader.stored.id.size_bytes
        return SnapshotPiece(transfer.reader.stored.id, read.offset, data)

    def _prove_again(self, follower: NodeId, snapshot: SnapshotId) -> None:
        """A follower that had the whole file wants it from its beginning: what it had may not have been sound."""
        self._close(follower)
        with contextlib.suppress(DataDamaged):
            if any(stored.id == snapshot for stored in self._snapshots.stored):
                self._snapshots.prove(snapshot)

    def _tell_damage(self, damaged: SnapshotId) -> None:
        try:
            self._snapshots.prove(damaged)
        except DataDamaged as error:
            newest = self._snapshots.newest
            self._tell(self._listener.was_damaged, str(error), None if newest is None else newest.id)

    def _close(self, follower: NodeId) -> None:
        transfer = self._transfers.pop(follower, None)
        if transfer is not None:
            transfer.reader.close()

    def _forget_unused(self) -> None:
        """Whoever has its file, or is gone, does not keep it from being deleted."""
        before_us = now_us() - UNUSED_US
        for follower in [follower for follower, one in self._transfers.items() if one.used_us < before_us]:
            self._close(follower)

    # -------------------------------------------------------------------------------------- to clients

    def _open_backup(self, done: Callable[[SnapshotReader | None], None]) -> None:
        reader = self._snapshots.reader()
        if reader is not None:
            self._backups.add(reader)
        self._tell(done, reader)

    def _read_backup(self, reader: SnapshotReader, offset: int, bytes_max: int, done: Callable[[bytes], None]) -> None:
        """Its turn may come after it was closed: then nobody waits for it."""
        if reader in self._backups:
            data = reader.piece(offset, bytes_max)
            self.meter.backup_bytes += len(data)
            self._tell(done, data)

    def _close_backup(self, reader: SnapshotReader) -> None:
        if reader in self._backups:
            self._backups.remove(reader)
            reader.close()

    # ------------------------------------------------------------------------------------ from a leader

    def _receive(self, write: SnapshotWrite) -> None:
        try:
            received = self._snapshots.receive(write.snapshot, write.offset, write.data)
        except DiskFailed as error:
            if not is_disk_full(error):
                raise
            receiving = self._snapshots.receiving
            offset = receiving[1] if receiving is not None and receiving[0] == write.snapshot else 0
            failed = Received(offset, None, f"{NOT_KEPT}: {error}")
            with self._wake:
                self._pieces_wait = True
                self._at(now_us() + RETRY_US, partial(self._answer_late, write, failed))
            return
        self.meter.received_bytes += len(write.data)
        self._tell(self._listener.was_received, write, received)

    def _answer_late(self, write: SnapshotWrite, received: Received) -> None:
        self._pieces_wait = False
        self._tell(self._listener.was_received, write, received)

    # ----------------------------------------------------------------------------------------- telling

    def _tell(self, listener: Callable[..., None], *what: object) -> None:
        try:
            self._loop.call_soon_threadsafe(self._deliver, listener, *what)
        except RuntimeError:
            return  # the loop is closed: nobody is left to tell

    def _deliver(self, listener: Callable[..., None], *what: object) -> None:
        """On the loop, whose own handler would log what a listener raises and go on."""
        try:
            listener(*what)
        except Exception as error:  # noqa: BLE001 - the node ends with it
            self._listener.failed(error)
