"""The simulated disk forgets what it may, and only that."""

from __future__ import annotations

import errno
from random import Random

import pytest

from raftkv.errors import DiskFailed
from raftkv.sim.world.disk import Crash, Moment, SimulatedDirectory
from raftkv.storage.directory import is_disk_full

OLD, NEW = b"o" * 4096, b"n" * 4096


def _written_but_not_synced(page_bytes: int = 512) -> SimulatedDirectory:
    disk = SimulatedDirectory(Random(1), page_bytes=page_bytes)
    file = disk.create("a")
    file.pwrite(OLD, offset=0)
    file.sync_data()
    disk.sync()
    file.pwrite(NEW, offset=0)
    return disk


def test_unsynced_pages_are_lost_kept_torn_and_reordered_and_synced_ones_stay():
    disk = _written_but_not_synced()
    found = [disk.survivor(Random(seed)).content("a") for seed in range(200)]
    assert OLD in found
    assert NEW in found
    pages = [[content[at : at + 512] for at in range(0, 4096, 512)] for content in found]
    assert all(set(each) <= {OLD[:512], NEW[:512]} for each in pages), "a page is whole"
    assert any(each[0] == OLD[:512] and each[-1] == NEW[:512] for each in pages), "a later page without an earlier"
    assert any(each[0] == NEW[:512] and each[-1] == OLD[:512] for each in pages)
    disk.open("a").sync_data()
    assert all(disk.survivor(Random(seed)).content("a") == NEW for seed in range(50))


def test_the_page_size_is_the_grain_of_what_is_lost():
    disk = _written_but_not_synced(page_bytes=4096)
    assert {disk.survivor(Random(seed)).content("a") for seed in range(50)} == {OLD, NEW}


def test_the_same_seed_finds_the_same_disk():
    disk = _written_but_not_synced()
    for seed in range(20):
        assert disk.survivor(Random(seed)).content("a") == disk.survivor(Random(seed)).content("a")


def test_a_name_is_lost_until_its_directory_is_synced():
    disk = SimulatedDirectory(Random(1))
    file = disk.create("a")
    file.pwrite(b"x", offset=0)
    file.sync()
    assert {disk.survivor(Random(seed)).exists("a") for seed in range(30)} == {True, False}
    disk.sync()
    disk.rename("a", "b")
    assert {tuple(disk.survivor(Random(seed)).names()) for seed in range(30)} == {("a",), ("b",)}
    disk.sync()
    disk.delete("b")
    assert {tuple(disk.survivor(Random(seed)).names()) for seed in range(30)} == {("b",), ()}
    disk.sync()
    assert {tuple(disk.survivor(Random(seed)).names()) for seed in range(30)} == {()}


def test_a_killed_process_loses_nothing_but_a_later_power_cut_may():
    disk = _written_but_not_synced()
    again = disk.restarted()
    assert again.open("a").pread(4096, offset=0) == NEW
    assert OLD in [again.survivor(Random(seed)).content("a") for seed in range(50)]
    again.open("a").sync()
    assert again.survivor(Random(1)).content("a") == NEW


def test_a_failed_sync_calls_pages_clean_that_were_never_written():
    """faults 55."""
    disk = _written_but_not_synced()
    disk.failing_syncs.add(disk.syncs + 1)
    file = disk.open("a")
    with pytest.raises(DiskFailed) as failed:
        file.sync_data()
    assert failed.value.cause.errno == errno.EIO
    file.sync_data()
    assert file.pread(4096, offset=0) == NEW
    assert OLD in [disk.survivor(Random(seed)).content("a") for seed in range(50)], "the second sync wrote nothing"
    file.pwrite(NEW[:1000], offset=0)
    file.sync_data()
    found = [disk.survivor(Random(seed)).content("a") for seed in range(50)]
    assert all(content[:1000] == NEW[:1000] for content in found), "what was written again is there"
    assert any(content[-512:] == OLD[-512:] for content in found)


def test_the_disk_is_full_at_the_chosen_byte():
    """faults 56."""
    disk = SimulatedDirectory(Random(1), capacity_bytes=700)
    file = disk.create("a")
    file.pwrite(bytes(500), offset=0)
    assert disk.free_bytes() == 200
    with pytest.raises(DiskFailed) as failed:
        file.pwrite(b"x" * 500, offset=400)
    assert is_disk_full(failed.value)
    assert file.pread(1000, offset=400) == b"x" * 300, "as much of it as there was room for"
    file.pwrite(b"y" * 700, offset=0)
    disk.delete("a")
    assert disk.free_bytes() == 700


@pytest.mark.parametrize(
    ("moment", "lengths"), [(Moment.BEFORE, {0}), (Moment.MIDDLE, {0, 500}), (Moment.AFTER, {0, 500, 1000})]
)
def test_the_machine_dies_before_in_the_middle_of_or_after_an_operation(moment, lengths):
    disk = SimulatedDirectory(Random(1), page_bytes=500)
    file = disk.create("a")
    disk.sync()
    disk.crash_at(disk.operations + 1, moment)
    with pytest.raises(Crash):
        file.pwrite(b"x" * 1000, offset=0)
    for dead in (file.sync, file.size_bytes, disk.names, disk.sync, lambda: disk.create("b")):
        with pytest.raises(Crash):
            dead()
    assert {len(disk.survivor(Random(seed)).content("a")) for seed in range(60)} == lengths


def test_a_failing_operation_fails_once():
    disk = SimulatedDirectory(Random(1))
    file = disk.create("a")
    disk.failing_operations.add(disk.operations + 1)
    with pytest.raises(DiskFailed):
        file.pwrite(b"xx", offset=0)
    assert file.size_bytes() < 2
    file.pwrite(b"xx", offset=0)
