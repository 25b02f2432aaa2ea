"""Random lives of a node's directory, log and snapshots together, on a simulated disk beside a model of both.

The model keeps every entry and knows what the content of a snapshot of any entry must be. Whenever the life ends, by
a kill or without power, what is found must be one of what the model admits: everything acknowledged, and of what was
under way either all or nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import NamedTuple

import pytest

from raftkv import frames
from raftkv.core.effects import LogBase
from raftkv.core.types import ClusterId, Configuration, Index, SnapshotId, Term
from raftkv.errors import DataDamaged, DiskFailed
from raftkv.frames import EntryKind
from raftkv.sim.world.disk import Crash, Moment, SimulatedDirectory
from raftkv.storage.identity import IdentityFile
from raftkv.storage.recovery import Recovered
from raftkv.storage.snapshot_reading import TEMPORARY_NAME, snapshot_name, snapshots_in
from raftkv.storage.snapshots import SnapshotMeta, SnapshotReader, Snapshots
from raftkv.storage.wal import Wal
from tests.storage.life import INCARNATION, NODE, configuration_of, entry, write

CLUSTER = ClusterId(b"cluster of tests")
SEGMENT_BYTES = 3072
"""Four batches, so that segments come and go all the time."""


class Directory(NamedTuple):
    """An open one."""

    snapshots: Snapshots
    wal: Wal
    recovered: Recovered


def open_directory(disk: SimulatedDirectory, *, reserve_bytes: int = 0) -> Directory:
    identity = IdentityFile.open(disk, node_id=NODE, new_incarnation=INCARNATION)
    identity.store_cluster(CLUSTER, configuration_of("n1"))
    snapshots = Snapshots.open(disk, cluster_id=CLUSTER, reserve_bytes=reserve_bytes)
    wal, recovered = Wal.open(disk, identity, snapshots=snapshots, segment_bytes=SEGMENT_BYTES, tail_bytes_max=800)
    return Directory(snapshots, wal, recovered)


def meta_of(base: LogBase) -> SnapshotMeta:
    return SnapshotMeta(CLUSTER, base, stamp_ms=base.index * 3, state_hash=base.index.to_bytes(16, "little"))


def content_of(base: LogBase, variant: int = 0) -> list[bytes]:
    """What a snapshot of that entry holds; other nodes cut the same into other blocks."""
    rng = Random(base.index * 1000 + base.term)
    state = rng.randbytes(rng.choice((0, 40, 900, 2500)))
    cut = 300 + 100 * variant
    return [state[start : start + cut] for start in range(0, len(state), cut)]


@functools.cache
def others_file(base: LogBase, variant: int) -> tuple[SnapshotId, bytes]:
    """The snapshot of that entry as another node wrote it."""
    disk = SimulatedDirectory(Random(0))
    id = Snapshots.open(disk, cluster_id=CLUSTER, reserve_bytes=0).write(meta_of(base), content_of(base, variant))
    return id, disk.content(snapshot_name(id))


@dataclass(frozen=True)
class Log:
    """All that a log says, with every entry since it last started again."""

    term: int = 0
    voted_for: str | None = None
    base: LogBase = LogBase(Index(0), Term(0), configuration_of("n1"))  # noqa: RUF009 - frozen too
    entries: tuple[bytes, ...] = ()

    @property
    def last_index(self) -> int:
        return self.base.index + len(self.entries)

    def term_at(self, index: int) -> int | None:
        if index == self.base.index:
            return self.base.term
        if not self.base.index < index <= self.last_index:
            return None
        return frames.term_and_index(self.entries[index - self.base.index - 1])[0]

    def base_at(self, index: int) -> LogBase:
        """What a snapshot of that entry stands for."""
        configuration = self.base.configuration
        for frame in self.entries[: index - self.base.index]:
            if frames.kind(frame) == EntryKind.CONFIGURATION:
                configuration = Configuration.decode(frames.body(frame))
        return LogBase(Index(index), Term(self.term_at(index) or 0), configuration)

    def restarted_with(self, newest: LogBase | None) -> Log:
        """What a start makes of it beside that snapshot."""
        if newest is None or self.term_at(newest.index) == newest.term:
            return self
        vote = None if newest.term > self.term else self.voted_for
        return Log(max(self.term, newest.term), vote, newest)


class Admitted(NamedTuple):
    """What may be found."""

    log: Log
    newest: LogBase | None
    """The newest snapshot."""


class History:
    """One life, drawn from ``rng``; what it draws depends on nothing else than on what was found."""

    def __init__(self, disk: SimulatedDirectory, rng: Random) -> None:
        self.disk, self.rng = disk, rng
        self.log = Log()
        self.newest: LogBase | None = None
        self.commit = 0
        self.admitted = [Admitted(self.log, None)]
        self.node: Directory | None = None
        self.readers: list[tuple[SnapshotReader, bytes]] = []
        self.seen: set[str] = set()

    def run(self, steps: int) -> None:
        self.start()
        for _ in range(steps):
            self.step()

    def step(self) -> None:
        kinds = [self.append, self.append, self.append, self.truncate, self.take, self.take, self.receive, self.trim]
        kinds += [self.idle, self.start, self.hold, self.damage]
        kind = self.rng.choice(kinds)
        self.seen.add(kind.__name__)
        kind()

    # ------------------------------------------------------------------------------------- what happens

    def start(self) -> None:
        """A clean restart."""
        self._forget()
        self.node = open_directory(self.disk)
        self.check()

    def append(self) -> None:
        vote = None
        log = self.log
        if log.term == 0 or self.rng.random() < 0.2:
            log = replace(log, term=log.term + 1, voted_for=self.rng.choice((None, "n1", "n2")))
            vote = (log.term, log.voted_for)
        new: list[bytes] = []
        for _ in range(self.rng.randint(1, 5)):
            new.append(self._entry(log.last_index + 1 + len(new), log.term))
        after = replace(log, entries=log.entries + tuple(new))
        self._write(after, write(*new, vote=vote))
        if self.rng.random() < 0.7:
            self.commit = self.rng.randint(self.commit, self.log.last_index)

    def truncate(self) -> None:
        if self.log.last_index <= self.commit:
            return
        first = self.rng.randint(self.commit + 1, self.log.last_index)
        kept = self.log.entries[: first - self.log.base.index - 1]
        term = self.log.term + 1
        new = self._entry(first, term)
        after = Log(term, None, self.log.base, (*kept, new))
        self._write(after, write(new, vote=(term, None), truncate_from=first))

    def take(self) -> None:
        """A snapshot of our own; sometimes of an entry that others have committed and our disk has not yet."""
        log, late = self.log, None
        if self.rng.random() < 0.2 and log.term:
            late = self._entry(log.last_index + 1, log.term)
            log = replace(log, entries=(*log.entries, late))
            self.commit = log.last_index
        index = self.commit if late else self.rng.randint(0, self.commit)
        if index > (self.newest.index if self.newest else 0):
            base = log.base_at(index)
            self.admitted = [Admitted(self.log, self.newest), Admitted(self.log, base)]
            id = self._open().snapshots.write(meta_of(base), content_of(base))
            assert id.index == index
            self._stored(base)
        if late:
            self._write(log, write(late))

    def receive(self) -> None:
        """Another node's, in pieces that are lost, doubled and disordered; sometimes broken off, or another begins."""
        if not self.log.term:
            return
        index = self.rng.randint(self.commit + 1, max(self.commit + 1, self.log.last_index) + 3)
        term = self.log.term_at(index) or self.log.term
        if self.rng.random() < 0.3:
            term = self.log.term + self.rng.randint(0, 1)
        base = LogBase(Index(index), Term(term), configuration_of("n1", f"n{index % 7 + 2}"))
        if self.log.term_at(index) == term:
            base = self.log.base_at(index)
        id, file = others_file(base, self.rng.randint(0, 1))
        offset, gives_up = 0, self.rng.random() < 0.3
        self.admitted = [Admitted(self.log, self.newest), Admitted(self.log, base)]
        complete = None
        while complete is None:
            piece = file[offset : offset + self.rng.choice((100, 700, 3000))]
            received = self._open().snapshots.receive(id, offset, piece)
            assert not received.problem
            assert received.complete is not None or received.wanted_offset < len(file)
            offset, complete = received.wanted_offset, received.complete
            if complete is None and self.rng.random() < 0.3:
                offset = self.rng.randint(0, len(file))
            if complete is None and gives_up and self.rng.random() < 0.5:
                self.admitted = [Admitted(self.log, self.newest)]
                return
        assert complete == base
        self._stored(base)
        after = self.log.restarted_with(base)
        if after is not self.log:
            vote = (after.term, after.voted_for) if after.term > self.log.term else None
            self._write(after, write(vote=vote, base=base))
        self.commit = index

    def trim(self) -> None:
        if self.newest is not None:
            self._open().wal.trim(Index(self.rng.randint(0, self.newest.index)))

    def idle(self) -> None:
        node = self._open()
        node.wal.mark()
        if node.wal.wants_spare:
            node.wal.prepare_spare()

    def hold(self) -> None:
        """Somebody is sent a snapshot over a long time."""
        while self.readers and self.rng.random() < 0.6:
            held, content = self.readers.pop(0)
            assert self._read(held) == content
            held.close()
        reader = self._open().snapshots.reader()
        assert (reader is None) == (self.newest is None)
        if reader is not None:
            self.readers.append((reader, self._read(reader)))

    def damage(self) -> None:
        """A bit of the newest snapshot flips; then it flips back."""
        if self.newest is None:
            return
        id = snapshots_in(self.disk)[-1]
        bit = self.rng.randrange(id.size_bytes * 8)
        self._forget()
        stored = [self._base_of(each) for each in snapshots_in(self.disk)][:-1]
        older = stored[-1] if stored else None
        reaches = self.log.base.index == 0 if older is None else self.log.term_at(older.index) == older.term
        self.disk.flip_bit(snapshot_name(id), bit)
        try:
            self._start_damaged(id, older, reaches=reaches)
        finally:
            self.disk.flip_bit(snapshot_name(id), bit)
        self.start()

    def _start_damaged(self, id: SnapshotId, older: LogBase | None, *, reaches: bool) -> None:
        if reaches:
            self.node = open_directory(self.disk)
            assert "stands in" in " ".join(self.node.recovered.notes)
            self._compare(Admitted(self.log, older))
            self._forget()
        else:
            with pytest.raises(DataDamaged) as refused:
                open_directory(self.disk)
            assert snapshot_name(id) in str(refused.value)

    def crash(self) -> None:
        """The process was killed, or the machine lost its power; what is found is held against the model."""
        self.disk = self.disk.survivor(self.rng) if self.rng.random() < 0.6 else self.disk.restarted()
        self._forget()
        while self.rng.random() < 0.3:
            self.disk.crash_at(self.rng.randint(1, 15), self.rng.choice(list(Moment)))
            try:
                open_directory(self.disk)
            except Crash:
                self.disk = self.disk.survivor(self.rng) if self.rng.random() < 0.6 else self.disk.restarted()
            else:
                self.disk.crash_at(0, Moment.BEFORE)
        self.node = open_directory(self.disk)
        self.check()

    # ------------------------------------------------------------------------------------- what must hold

    def check(self) -> None:
        """What was found is admitted; from now on nothing else is."""
        found = self._find()
        self.log, self.newest = found.log.restarted_with(found.newest), found.newest
        self.commit = max(self.commit if self.commit <= self.log.last_index else 0, self._held())
        self.admitted = [Admitted(self.log, self.newest)]
        assert not self.disk.exists(TEMPORARY_NAME)
        assert len(snapshots_in(self.disk)) <= 2, "more than two are kept"

    def _held(self) -> int:
        return 0 if self.newest is None else self.newest.index

    def _find(self) -> Admitted:
        problems = []
        for admitted in self.admitted:
            try:
                self._compare(admitted)
            except AssertionError as error:
                problems.append(str(error))
            else:
                return admitted
        raise AssertionError("; ".join(problems))

    def _compare(self, admitted: Admitted) -> None:
        snapshots, wal, recovered = self._open()
        expected = admitted.log.restarted_with(admitted.newest)
        assert (recovered.term, recovered.voted_for) == (expected.term, expected.voted_for)
        assert recovered.last_index == wal.last_index == expected.last_index
        base = recovered.base
        assert base.index >= expected.base.index
        assert base == expected.base_at(base.index)
        entries = wal.read(Index(base.index + 1), recovered.last_index, bytes_max=1 << 30)
        assert tuple(entries) == expected.entries[base.index - expected.base.index :]
        self._compare_twice_told(recovered, entries)
        if admitted.newest is None:
            assert recovered.snapshot is None
            assert base.index == 0
            return
        assert recovered.snapshot is not None
        assert recovered.snapshot.meta == meta_of(admitted.newest)
        assert base.index <= recovered.snapshot.id.index <= recovered.last_index
        reader = snapshots.reader(recovered.snapshot.id)
        assert reader is not None
        with reader:
            assert b"".join(reader.blocks()) == b"".join(content_of(admitted.newest))

    def _compare_twice_told(self, recovered: Recovered, entries: list[bytes]) -> None:
        first = recovered.base.index + 1
        assert list(entries[recovered.tail_first - first :]) == recovered.tail
        runs: list[tuple[int, int]] = []
        configurations = []
        for frame in entries:
            term, index = frames.term_and_index(frame)
            if not runs or runs[-1][1] != term:
                runs.append((index, term))
            if frames.kind(frame) == EntryKind.CONFIGURATION:
                configurations.append((index, Configuration.decode(frames.body(frame))))
        assert recovered.term_runs == runs
        assert recovered.configurations == configurations

    # ---------------------------------------------------------------------------------------------- leaves

    def _open(self) -> Directory:
        assert self.node is not None
        return self.node

    def _write(self, after: Log, disk_write) -> None:
        self.admitted = [Admitted(self.log, self.newest), Admitted(after, self.newest)]
        self._open().wal.write([disk_write])
        self.log = after
        self.admitted = self.admitted[-1:]

    def _stored(self, base: LogBase) -> None:
        self.newest = base
        self.admitted = [Admitted(self.log, base)]
        pinned = {reader.stored.id for reader, _ in self.readers}
        assert len(set(snapshots_in(self.disk)) - pinned) <= 2

    def _entry(self, index: int, term: int) -> bytes:
        if self.rng.random() < 0.1:
            body = configuration_of("n1", f"n{self.rng.randint(2, 9)}").encode()
            return entry(index, term, body, EntryKind.CONFIGURATION)
        return entry(index, term, self.rng.randbytes(self.rng.choice((0, 30, 200, 600))))

    def _base_of(self, id: SnapshotId) -> LogBase:
        reader = Snapshots.open(self.disk, cluster_id=CLUSTER, reserve_bytes=0).reader(id)
        assert reader is not None
        return reader.stored.meta.base

    def _read(self, reader: SnapshotReader) -> bytes:
        found, offset = [], 0
        while piece := reader.piece(offset, 1000):
            found.append(piece)
            offset += len(piece)
        assert offset == reader.stored.id.size_bytes
        return b"".join(found)

    def _forget(self) -> None:
        self.node = None
        self.readers = []


def crash_everywhere(seed: int, *, steps: int, page_bytes: int, every: int = 1) -> int:
    """A life crashed before, in the middle of and after each of its operations; how many those are."""

    def born(operation: int) -> History:
        return History(SimulatedDirectory(Random(seed * 10_007 + operation), page_bytes=page_bytes), Random(seed))

    whole = born(0)
    whole.run(steps)
    for operation in range(1, whole.disk.operations + 1, every):
        for moment in Moment:
            life = born(operation)
            life.disk.crash_at(operation, moment)
            with pytest.raises(Crash):
                life.run(steps)
            life.rng = Random(operation * 3 + list(Moment).index(moment))
            life.crash()
            life.crash()
            life.append()
            life.crash()
    return whole.disk.operations


def fail_everywhere(seed: int, *, steps: int, faults: str, count: str, every: int = 1) -> int:
    """One EIO at each sync or operation of a life; then the process ends, and later the machine."""

    def born(number: int) -> History:
        return History(SimulatedDirectory(Random(seed * 10_007 + number), page_bytes=512), Random(seed))

    whole = born(0)
    whole.run(steps)
    total = getattr(whole.disk, count)
    for number in range(1, total + 1, every):
        life = born(number)
        getattr(life.disk, faults).add(number)
        with pytest.raises(DiskFailed):
            life.run(steps)
        life.rng = Random(number)
        life.disk = life.disk.restarted()
        life.start()
        life.admitted = [Admitted(life.log, life.newest)]
        life.disk = life.disk.survivor(life.rng)
        life.start()
        life.append()
        life.take()
        life.crash()
    return total


def random_history(seed: int, *, crashes: int = 4) -> set[str]:
    """A life with crashes at random moments, checked after each; what has happened in it."""
    rng = Random(seed)
    life = History(SimulatedDirectory(Random(seed), page_bytes=rng.choice((512, 4096))), rng)
    life.start()
    for _ in range(crashes):
        life.disk.crash_at(life.disk.operations + rng.randint(1, 120), rng.choice(list(Moment)))
        until_crash(life.step)
        life.crash()
    return life.seen


def until_crash(work: Callable[[], None]) -> None:
    try:
        while True:
            work()
    except Crash:
        return
