"""What a second reader of the log suspected, each as the smallest case that shows it."""

from __future__ import annotations

import os
from random import Random

from raftkv.sim.world.disk import SimulatedDirectory
from raftkv.storage import directory as directory_module
from raftkv.storage.directory import PosixDirectory
from raftkv.storage.segments import WINDOW_BYTES, Segment
from raftkv.storage.show import describe
from tests.storage.life import SEGMENT_BYTES, entry, open_log, write


def test_a_disk_that_says_it_is_full_is_not_filled_to_find_out():
    """faults 56: it is asked again and again, and each time the last free byte would be taken from everybody."""
    disk = SimulatedDirectory(Random(1))
    wal, _ = open_log(disk)
    disk.capacity_bytes = sum(len(disk.content(name)) for name in disk.names()) + SEGMENT_BYTES - 1
    operations = disk.operations
    assert not wal.prepare_spare()
    assert wal.room_is_short
    assert disk.operations == operations
    disk.capacity_bytes += 1
    assert wal.prepare_spare()
    assert not wal.room_is_short


def test_a_disk_that_has_less_than_it_says_gets_back_what_was_tried(monkeypatch):
    """faults 56: under a quota the file system has room, and the write is refused all the same."""
    disk = SimulatedDirectory(Random(1))
    wal, _ = open_log(disk)
    names = disk.names()
    disk.capacity_bytes = sum(len(disk.content(name)) for name in names) + SEGMENT_BYTES // 2
    monkeypatch.setattr(disk, "free_bytes", lambda: 1 << 40)
    assert not wal.prepare_spare()
    assert wal.room_is_short
    assert disk.names() == names


def test_a_data_directory_that_was_there_has_its_own_name_synced(tmp_path, monkeypatch):
    """faults 54: whoever made it may have died before its name was on stable storage."""
    (tmp_path / "n1").mkdir()
    synced = []
    sync = directory_module._sync_fully

    def remember(fd: int) -> None:
        synced.append(os.fstat(fd).st_ino)
        sync(fd)

    monkeypatch.setattr(directory_module, "_sync_fully", remember)
    PosixDirectory(tmp_path / "n1").close()
    assert tmp_path.stat().st_ino in synced


def test_a_log_that_is_written_while_it_is_shown_is_not_called_damaged(monkeypatch):
    """The batch that was not there yet, and the next one that says it was synced, both come while one looks."""
    disk = SimulatedDirectory(Random(1))
    wal, _ = open_log(disk, segment_bytes=4 * WINDOW_BYTES)
    wal.write([write(entry(1, 1), vote=(1, None))])
    proof_after = Segment.proof_after

    def meanwhile(self, offset, *, number):
        if wal.last_index == 1:
            wal.write([write(entry(2, 1, bytes(2 * WINDOW_BYTES)))])
            wal.write([write(entry(3, 1))])
        return proof_after(self, offset, number=number)

    monkeypatch.setattr(Segment, "proof_after", meanwhile)
    assert "DAMAGED" not in "\n".join(describe(disk))


def test_growth_without_the_data_is_a_torn_tail_too():
    """faults 52: a file system may keep a file's new length and lose what was written into it."""
    found = set()
    for seed in range(60):
        disk = SimulatedDirectory(Random(1))
        file = disk.create("a")
        disk.sync()
        file.pwrite(b"x" * 1000, offset=0)
        found.add(disk.survivor(Random(seed)).content("a"))
    assert found == {b"", bytes(1000), b"x" * 1000}
