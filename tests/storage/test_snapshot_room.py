"""A disk that is nearly full, and a snapshot that has to come in (faults 56): what it replaces goes first."""

from __future__ import annotations

from random import Random

import pytest

from raftkv.core.types import SnapshotId
from raftkv.errors import DiskFailed
from raftkv.sim.world.disk import Crash, Moment, SimulatedDirectory
from raftkv.storage.directory import is_disk_full
from raftkv.storage.snapshot_reading import TEMPORARY_NAME, receiving_name, snapshot_name
from raftkv.storage.snapshots import Snapshots
from tests.storage.test_snapshots import BLOCKS, file_of, meta_at, opened

OTHER, FILE = file_of(60)
RESERVE_BYTES = 100


def with_two() -> tuple[SimulatedDirectory, Snapshots, SnapshotId, SnapshotId]:
    """A directory with snapshots at 40 and 50."""
    disk = SimulatedDirectory(Random(1))
    snapshots = opened(disk, reserve_bytes=RESERVE_BYTES)
    older, newest = (snapshots.write(meta_at(index), BLOCKS) for index in (40, 50))
    return disk, snapshots, older, newest


def leaves(disk: SimulatedDirectory, free_bytes: int) -> None:
    """The disk has so much room."""
    disk.capacity_bytes = sum(len(disk.content(name)) for name in disk.names()) + free_bytes


def test_the_older_one_goes_where_it_makes_room():
    disk, snapshots, older, newest = with_two()
    leaves(disk, RESERVE_BYTES + len(FILE) - older.size_bytes)
    assert snapshots.receive(OTHER, 0, FILE[:200]).wanted_offset == 200
    assert disk.names() == [receiving_name(OTHER), snapshot_name(newest)]
    assert snapshots.receive(OTHER, 200, FILE[200:]).complete == meta_at(60).base


def test_what_was_received_so_far_is_kept():
    """Room may go while it comes: it is not asked for from the beginning again."""
    disk, snapshots, _, newest = with_two()
    assert snapshots.receive(OTHER, 0, FILE[:200]).wanted_offset == 200
    leaves(disk, RESERVE_BYTES)
    assert snapshots.receive(OTHER, 200, FILE[200:300]).wanted_offset == 300
    assert disk.names() == [receiving_name(OTHER), snapshot_name(newest)]


def test_room_is_made_only_for_what_is_missing():
    disk, snapshots, older, newest = with_two()
    assert snapshots.receive(OTHER, 0, FILE[:50]).wanted_offset == 50
    leaves(disk, RESERVE_BYTES + len(FILE) - 50 - older.size_bytes)
    assert snapshots.receive(OTHER, 50, FILE[50:]).complete == meta_at(60).base
    assert disk.names() == [snapshot_name(newest), snapshot_name(OTHER)]


@pytest.mark.parametrize("free_bytes", [0, RESERVE_BYTES - 1])
def test_nothing_goes_where_it_is_not_enough(free_bytes):
    disk, snapshots, older, newest = with_two()
    leaves(disk, RESERVE_BYTES + len(FILE) - older.size_bytes - 1 - free_bytes)
    with pytest.raises(DiskFailed) as full:
        snapshots.receive(OTHER, 0, FILE)
    assert is_disk_full(full.value)
    assert disk.names() == [snapshot_name(older), snapshot_name(newest)]


def test_our_own_that_waits_goes_before_one_that_is_in_place():
    disk, snapshots, older, newest = with_two()
    snapshots.prepare(meta_at(55), BLOCKS)
    leaves(disk, RESERVE_BYTES)
    assert snapshots.receive(OTHER, 0, FILE[:200]).wanted_offset == 200
    assert disk.names() == [receiving_name(OTHER), snapshot_name(older), snapshot_name(newest)]
    with pytest.raises(DiskFailed) as full:
        snapshots.place()
    assert is_disk_full(full.value)
    disk.capacity_bytes = None
    assert snapshots.write(meta_at(56), BLOCKS).index == 56, "it is tried again as after any full disk"


def test_both_go_where_one_is_not_enough():
    disk, snapshots, _, newest = with_two()
    snapshots.prepare(meta_at(55), BLOCKS[:1])
    leaves(disk, RESERVE_BYTES)
    assert snapshots.receive(OTHER, 0, FILE[:200]).wanted_offset == 200
    assert disk.names() == [receiving_name(OTHER), snapshot_name(newest)]
    assert TEMPORARY_NAME not in disk.names()


def test_one_that_is_being_sent_stays():
    disk, snapshots, older, newest = with_two()
    reader = snapshots.reader(older)
    assert reader is not None
    leaves(disk, RESERVE_BYTES)
    with pytest.raises(DiskFailed):
        snapshots.receive(OTHER, 0, FILE)
    assert disk.names() == [snapshot_name(older), snapshot_name(newest)]
    reader.close()
    assert snapshots.receive(OTHER, 0, FILE).complete is not None


def test_the_older_one_stays_where_the_newest_is_damaged():
    """With the log it is all that this node can start from."""
    disk, _, older, newest = with_two()
    disk.flip_bit(snapshot_name(newest), 8 * newest.size_bytes - 40)
    snapshots = opened(disk, reserve_bytes=RESERVE_BYTES)
    leaves(disk, RESERVE_BYTES)
    with pytest.raises(DiskFailed):
        snapshots.receive(OTHER, 0, FILE)
    assert snapshots.newest is not None and snapshots.newest.id == older
    assert snapshot_name(older) in disk.names()


def test_a_machine_that_dies_meanwhile_starts_from_the_newest():
    """faults 43: at every operation, in every way."""
    died = 0
    for at in range(1, 12):
        for moment in Moment:
            disk, snapshots, _, newest = with_two()
            leaves(disk, RESERVE_BYTES + 10)
            disk.crash_at(disk.operations + at, moment)
            try:
                snapshots.receive(OTHER, 0, FILE)
            except Crash:
                died += 1
            for seed in range(3):
                survivor = disk.survivor(Random(seed))
                survivor.capacity_bytes = None
                found = opened(survivor).newest
                assert found is not None and found.id in (newest, OTHER)
    assert died > 10
