"""Log and snapshots together: a crash at every operation, one failure at every operation, random lives."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from raftkv.core.types import Index
from raftkv.errors import DataError
from raftkv.sim.world.disk import Crash, Moment, SimulatedDirectory
from raftkv.storage.snapshot_reading import snapshot_name, snapshots_in
from raftkv.storage.snapshots import Snapshots
from tests.storage.histories import (
    crash_everywhere,
    fail_everywhere,
    open_directory,
    others_file,
    random_history,
)
from tests.storage.life import write
from tests.storage.test_trim import base_at, take, trimmed

HISTORIES = 60


@pytest.mark.parametrize(("seed", "page_bytes"), [(0, 512), (1, 4096)])
def test_what_was_promised_survives_a_crash_at_every_operation(seed, page_bytes):
    """faults 43, 52, 54, 56: between snapshot, rename, base record and trim; torn files; names in doubt."""
    assert crash_everywhere(seed, steps=16, page_bytes=page_bytes) > 60


def test_a_file_that_is_synced_in_pieces_survives_too(monkeypatch):
    for module in ("writing", "receiving"):
        monkeypatch.setattr(f"raftkv.storage.snapshot_{module}.SYNC_BYTES", 600)
    assert crash_everywhere(2, steps=10, page_bytes=512) > 60


@pytest.mark.parametrize("seed", [0, 1])
def test_one_failed_sync_ends_it_and_the_next_start_tells_the_truth(seed):
    """faults 55: what the cache shows after it may never be on the disk."""
    assert fail_everywhere(seed, steps=25, faults="failing_syncs", count="syncs") > 30


def test_one_failed_operation_of_any_kind_loses_nothing():
    assert fail_everywhere(3, steps=20, faults="failing_operations", count="operations") > 60


def test_random_lives_are_as_the_model_says():
    """Thousands of them are a matter of minutes: a larger range here."""
    assert _lives() >= {"append", "truncate", "take", "receive", "trim", "start", "hold", "damage"}


# ------------------------------------------------------------------------------------- one act at a time


def _crashes(born: Callable[[], SimulatedDirectory], act: Callable[[SimulatedDirectory], object]) -> int:
    """Dies before, in the middle of and after each operation of the act, by a kill and without power; then what is
    found after a start is what it is without a crash. How many operations those are.
    """
    whole = born()
    began = whole.operations
    act(whole)
    for operation in range(1, whole.operations - began + 1):
        for moment in Moment:
            disk = born()
            disk.crash_at(disk.operations + operation, moment)
            with pytest.raises(Crash):
                act(disk)
            rng = Random(operation)
            for found in (disk.survivor(rng), disk.restarted()):
                act(found)
                assert _told(found) == _told(whole), f"after a crash {moment.value} operation {operation}"
    return whole.operations - began


def _told(disk: SimulatedDirectory) -> tuple:
    """What a start says, as far as a crash may not change it."""
    snapshots, wal, found = open_directory(disk)
    assert found.snapshot is None or found.base.index <= found.snapshot.id.index
    entries = wal.read(Index(wal.last_index - 9), wal.last_index, bytes_max=1 << 20)
    stored = [each.id for each in snapshots.stored]
    return found.term, found.voted_for, found.last_index, found.snapshot, entries, stored, len(snapshots_in(disk))


def _received_ahead() -> SimulatedDirectory:
    disk = trimmed()
    id, file = others_file(base_at(90, 2), 0)
    open_directory(disk).snapshots.receive(id, 0, file)
    return disk


def _contradicted() -> SimulatedDirectory:
    disk = trimmed()
    id, file = others_file(base_at(58, 2), 0)
    open_directory(disk).snapshots.receive(id, 0, file)
    return disk


def _damaged() -> SimulatedDirectory:
    disk = trimmed()
    newest = snapshots_in(disk)[-1]
    disk.flip_bit(snapshot_name(newest), 8 * newest.size_bytes - 40)
    return disk


def _half_trimmed() -> SimulatedDirectory:
    disk = trimmed(at=(30, 31))
    snapshots, wal, _ = open_directory(disk)
    for index in (55, 58):
        take(snapshots, index)
    disk.crash_at(disk.operations + 3, Moment.AFTER)
    with pytest.raises(Crash):
        wal.trim(Index(58))
    return disk.restarted()


@pytest.mark.parametrize("born", [trimmed, _received_ahead, _contradicted, _damaged, _half_trimmed])
def test_a_start_may_die_anywhere_and_the_next_one_says_the_same(born):
    """faults 43: recovery, the log's new start, the stand-in for what is damaged, the rest of a trim."""
    assert _crashes(born, open_directory) >= 4


def _received_in_pieces(disk: SimulatedDirectory) -> None:
    """From wherever a former process got to; then the log starts again."""
    id, file = others_file(base_at(90, 1), 0)
    snapshots, wal, found = open_directory(disk)
    received = snapshots.receive(id, 0, b"")
    while received.complete is None:
        received = snapshots.receive(id, received.wanted_offset, file[received.wanted_offset :][:400])
    assert disk.content(snapshot_name(id)) == file
    if found.base.index != 90:
        wal.write([write(base=base_at(90, 1))])
        wal.trim(Index(90))


def _taken_and_trimmed(disk: SimulatedDirectory) -> None:
    snapshots, wal, _ = open_directory(disk)
    for index in (55, 58):
        take(snapshots, index)
        wal.trim(Index(index))
        wal.prepare_spare()


@pytest.mark.parametrize("act", [_received_in_pieces, _taken_and_trimmed])
def test_an_act_that_died_anywhere_can_be_done_again(act):
    """faults 41, 43, 54: every step of receiving, writing, naming, deleting, dropping, zeroing."""
    assert _crashes(trimmed, act) > 20


# --------------------------------------------------------------------------------------------- planted


def _trust_the_name(monkeypatch):
    """What is called a snapshot is one: it was renamed only once it was whole."""
    monkeypatch.setattr("raftkv.storage.snapshot_reading.SnapshotFile.prove", lambda self: None)


def _reset_before_the_file(monkeypatch):
    """The log starts again while the received file still has no name of its own."""
    monkeypatch.setattr(Snapshots, "_put_in_place", lambda self, name, stored: self._stored.append(stored))


def _drop_before_the_snapshot(monkeypatch):
    """The log is trimmed as soon as a snapshot is begun."""
    monkeypatch.setattr(Snapshots, "trim_limit", property(lambda self: Index(1 << 40)))


@pytest.mark.parametrize("plant", [_trust_the_name, _reset_before_the_file, _drop_before_the_snapshot])
def test_the_random_lives_catch_a_planted_bug(plant, monkeypatch):
    plant(monkeypatch)
    with pytest.raises((AssertionError, DataError, pytest.fail.Exception)):
        _lives()


def _lives() -> set[str]:
    seen = set()
    for seed in range(HISTORIES):
        seen |= random_history(seed)
    return seen
