"""A disk that fails or is full."""

from __future__ import annotations

import errno
from random import Random

import pytest

from raftkv.core.types import Index
from raftkv.errors import DataDamaged, DiskFailed
from raftkv.sim.world.disk import SimulatedDirectory
from raftkv.storage.directory import is_disk_full
from raftkv.storage.segments import segment_numbers
from raftkv.storage.wal import Wal
from tests.storage.life import SEGMENT_BYTES, Life, assert_survives, entry, open_log, random_script, write


def _fail_everywhere(seed: int, faults: str, count: str) -> int:
    """One EIO at each sync, or at each operation, of a script; the next call would succeed."""
    script = random_script(Random(seed))
    whole = Life(SimulatedDirectory(Random(seed)))
    whole.run(script)
    total = getattr(whole.disk, count)
    for number in range(1, total + 1):
        life = Life(SimulatedDirectory(Random(number), page_bytes=512))
        getattr(life.disk, faults).add(number)
        with pytest.raises(DiskFailed):
            life.run(script)
        rng = Random(number)
        assert_survives(life.disk.restarted(), life.admissible, rng)
    return total


@pytest.mark.parametrize("seed", [0, 1])
def test_one_failed_sync_ends_the_log_and_recovery_tells_the_truth(seed):
    """faults 55: EIO from fsync, then success, at every sync; what the cache shows may never have been written."""
    assert _fail_everywhere(seed, "failing_syncs", "syncs") > 30


@pytest.mark.parametrize("seed", [2])
def test_one_failed_operation_of_any_kind_ends_the_log(seed):
    assert _fail_everywhere(seed, "failing_operations", "operations") > 60


def test_the_failing_sync_check_catches_a_recovery_that_only_syncs_again(monkeypatch):
    """faults 55: planted bug. After a failed sync the cache calls its pages clean; a second sync writes nothing."""

    def settle(self, found):
        self._file.sync()
        self._directory.sync()
        self.mark()
        return []

    monkeypatch.setattr(Wal, "_settle", settle)
    with pytest.raises((AssertionError, DataDamaged)):
        _fail_everywhere(0, "failing_syncs", "syncs")


def test_after_a_failed_sync_everything_is_refused():
    """faults 55: nothing is tried again, though the disk would work."""
    disk = SimulatedDirectory(Random(1))
    wal, _ = open_log(disk)
    wal.write([write(entry(1, 1), vote=(1, None))])
    disk.failing_syncs.add(disk.syncs + 1)
    with pytest.raises(DiskFailed) as failed:
        wal.write([write(entry(2, 1))])
    assert failed.value.operation == "fdatasync"
    assert failed.value.cause.errno == errno.EIO
    operations = disk.operations
    for refused in (
        lambda: wal.write([write(entry(2, 1))]),
        wal.mark,
        wal.prepare_spare,
        lambda: wal.read(Index(1), Index(1), bytes_max=100),
    ):
        with pytest.raises(DiskFailed):
            refused()
    assert disk.operations == operations


def test_a_failing_spare_ends_the_log_too():
    disk = SimulatedDirectory(Random(1))
    wal, _ = open_log(disk)
    disk.failing_syncs.add(disk.syncs + 1)
    with pytest.raises(DiskFailed):
        wal.prepare_spare()
    with pytest.raises(DiskFailed):
        wal.write([write(vote=(1, None))])


def _filled(disk: SimulatedDirectory) -> Wal:
    """A log on a disk that has no room for another spare."""
    wal, _ = open_log(disk)
    wal.write([write(vote=(1, None))])
    disk.capacity_bytes = sum(len(disk.content(name)) for name in disk.names()) + SEGMENT_BYTES // 2
    assert not wal.prepare_spare()
    return wal


def test_a_full_disk_is_told_before_the_log_runs_out():
    """faults 56: what is left of the segment serves votes and deletes; when space comes back, puts go on."""
    disk = SimulatedDirectory(Random(1))
    wal = _filled(disk)
    assert wal.room_is_short
    assert wal.wants_spare
    assert disk.names() == ["identity", "log-0000000000000001"], "the attempt gave its bytes back"
    wal.write([write(entry(1, 1))])
    assert wal.read(Index(1), Index(1), bytes_max=100) == [entry(1, 1)]
    assert not wal.prepare_spare()
    disk.capacity_bytes = None
    assert wal.prepare_spare()
    assert not wal.room_is_short
    for index in range(2, 60):
        wal.write([write(entry(index, 1))])
    assert len(segment_numbers(disk)) > 1


def _write_until_full(life: Life, wal: Wal) -> None:
    for index in range(1, 60):
        life.write(wal, [write(entry(index, 1))])


def test_running_out_of_space_loses_nothing_and_leaves_no_garbage():
    """faults 56: the disk is full at any byte of a new segment; space comes back; nothing surprising is there."""
    for room_bytes in range(0, SEGMENT_BYTES, 700):
        disk = SimulatedDirectory(Random(room_bytes), page_bytes=512)
        life = Life(disk)
        wal, _ = open_log(disk)
        life.write(wal, [write(vote=(1, None))])
        disk.capacity_bytes = sum(len(disk.content(name)) for name in disk.names()) + room_bytes
        with pytest.raises(DiskFailed) as failed:
            _write_until_full(life, wal)
        assert is_disk_full(failed.value)
        with pytest.raises(DiskFailed):
            wal.write([write(entry(1, 1))])
        restarted = disk.restarted()
        open_log(restarted)
        assert not {"spare.new", "spare.now"} & set(restarted.names()), "a start on the full disk works, and clears up"
        restarted.capacity_bytes = None
        assert_survives(restarted, life.admissible, Random(room_bytes))


def test_a_broken_disk_is_not_taken_for_a_full_one():
    broken = DiskFailed(path="x", operation="write", cause=OSError(errno.EIO, "broken"))
    full = DiskFailed(path="x", operation="write", cause=OSError(errno.ENOSPC, "full"))
    quota = DiskFailed(path="x", operation="write", cause=OSError(errno.EDQUOT, "quota"))
    assert [is_disk_full(error) for error in (broken, full, quota)] == [False, True, True]
