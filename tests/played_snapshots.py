"""One replica's snapshots, a turn at a time; the core and the machine are played."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from raftkv.core.effects import Effects, LogBase, SnapshotWrite
from raftkv.core.types import Index, SnapshotId, Term
from raftkv.snapshotting import Restored, SnapshotSettings, Snapshotting, SnapshotWork
from tests.core.lone import voters

SETTINGS = SnapshotSettings(snapshot_log_bytes=1000, snapshot_log_entries=50)
CONFIGURATION = voters("a")


class PlayedRaft:
    """What ``Snapshotting`` sees of the core, and what it tells it."""

    def __init__(self) -> None:
        self.applied_index = Index(0)
        self.disagrees_at: Index | None = None
        self.agrees_at = Index(10**9)
        """As if a majority had always said already that it has the same state."""
        self.hashes: list[tuple[int, int]] = []
        self.state = SimpleNamespace(log=SimpleNamespace(base_index=0))
        self.told: list[Any] = []
        self.receiving: tuple[SnapshotId, int] | None = None

    def base_at(self, index: Index) -> LogBase:
        return LogBase(index, Term(1), CONFIGURATION)

    def machine_hash(self, index: Index, state_hash: bytes) -> None:
        self.hashes.append((index, int.from_bytes(state_hash, "little")))

    def snapshot_stored(self, base: LogBase, *, size_bytes: int) -> None:
        self.told.append(("stored", base.index, size_bytes))

    def snapshot_was_written(self, write: SnapshotWrite, wanted_offset: int, complete: LogBase | None) -> None:
        self.told.append(("written", wanted_offset, complete))

    def snapshot_loaded(self, index: Index) -> None:
        self.told.append(("loaded", index))
        self.applied_index = index


class PlayedMachine:
    """A state machine of which only its captures and loadings are looked at."""

    def __init__(self) -> None:
        self.captures: list[PlayedCapture] = []
        self.loadings: list[PlayedLoading] = []
        self.asked: list[str] = []
        self.slices = 1
        self.raises = False
        self.hash: int | None = 7

    def state_hash(self) -> int | None:
        return self.hash

    def capture(self) -> PlayedCapture:
        if self.raises:
            raise ValueError("what a machine says is for nobody's log")
        self.captures.append(PlayedCapture(self.slices))
        return self.captures[-1]

    def discard(self) -> Iterator[None]:
        self.asked.append("discard")
        return iter(())

    def loading(self) -> PlayedLoading:
        self.asked.append("loading")
        self.loadings.append(PlayedLoading())
        return self.loadings[-1]


class PlayedCapture:
    def __init__(self, slices: int) -> None:
        self.slices = slices

    def blocks(self) -> Iterator[bytes]:
        return iter((b"state",))

    def fold(self, budget_us: int) -> bool:
        self.slices -= 1
        assert self.slices >= 0, "folded once more than needed"
        return self.slices == 0


class PlayedLoading:
    def __init__(self) -> None:
        self.is_finished = False

    def finish(self) -> None:
        self.is_finished = True


class Node:
    """One replica's snapshots, a turn at a time."""

    def __init__(
        self, *, settings: SnapshotSettings = SETTINGS, restored: Restored | None = None, log_begins_after: int = 0
    ) -> None:
        self.raft, self.machine = PlayedRaft(), PlayedMachine()
        self.raft.state.log.base_index = log_begins_after
        if restored is not None:
            self.raft.applied_index = restored.snapshot.index
        raft: Any = self.raft
        machine: Any = self.machine
        self.snapshots = Snapshotting(raft, machine, settings, restored)
        self.now_us = 0
        self.told: list[Any] = []
        self.notes: list[str] = []

    def apply(self, entries: int, *, log_bytes: int = 0) -> None:
        self.raft.applied_index = Index(self.raft.applied_index + entries)
        self.snapshots.applied(log_bytes)

    def turn(self, *, after_us: int = 0, load: int | None = None, may_begin: bool = True) -> SnapshotWork:
        self.now_us += after_us
        effects = Effects(load_snapshot=None if load is None else Index(load))
        work = self.snapshots.turn(effects, now_us=self.now_us, stamp_ms=9, may_begin=may_begin)
        self.notes += [note.event for note in effects.notes]
        return work

    def taken(self, *, after_us: int = 0) -> int | None:
        """The index of what this turn captured."""
        take = self.turn(after_us=after_us).take
        return None if take is None else take.base.index

    def is_due(self) -> None:
        """One is being written."""
        self.apply(50)
        assert self.taken() == self.raft.applied_index

    def was_written(self, size_bytes: int = 100) -> None:
        """Whole, found to be right in the next turn, and in place."""
        index = self.captured
        self.was_prepared()
        assert self.turn().place
        self.is_in_place(index, size_bytes)

    def was_prepared(self) -> None:
        """The file of what was captured is whole."""
        self.prepared = self.captured
        self.snapshots.was_prepared()

    def is_in_place(self, index: int | None = None, size_bytes: int = 100) -> None:
        self.snapshots.was_written(snapshot_id(index or self.prepared, size_bytes))

    @property
    def captured(self) -> int:
        taken = self.snapshots._taken
        assert taken is not None
        return taken.base.index

    def ask(self, *, wait_us: int = 1_000_000) -> list[Any]:
        """What will be told, as it comes."""
        told: list[Any] = []
        self.snapshots.ask(told.append, wait_us=wait_us)
        return told

    def receive(self, index: int, *, size_bytes: int = 100, complete: bool = True) -> None:
        base = LogBase(Index(index), Term(1), CONFIGURATION) if complete else None
        write = SnapshotWrite(1, snapshot_id(index, size_bytes), 0, b"piece")
        self.snapshots.was_received(write, size_bytes, base)


def snapshot_id(index: int, size_bytes: int = 100) -> SnapshotId:
    return SnapshotId(Index(index), Term(1), size_bytes, 0)
