"""A crash at every operation, and planted bugs that this must catch."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from raftkv.core.types import Index
from raftkv.errors import DataDamaged
from raftkv.sim.world.disk import SimulatedDirectory, SimulatedFile
from raftkv.storage.segments import segment_name
from raftkv.storage.wal import Wal
from tests.storage.life import (
    Life,
    State,
    assert_survives,
    crash_everywhere,
    entry,
    open_log,
    overwrite,
    random_script,
    write,
)


@pytest.mark.parametrize(("seed", "page_bytes"), [(0, 512), (1, 4096), (2, 512), (3, 4096)])
def test_every_acknowledged_write_survives_a_crash_at_every_operation(seed, page_bytes):
    """faults 52, 54, 43 (the log's part): torn, reordered and lost pages, names in doubt, restarts between."""
    assert crash_everywhere(seed, page_bytes=page_bytes, survivors=1) > 60


def test_a_write_of_several_batches_is_cut_only_between_its_entries():
    crash_everywhere(10, page_bytes=512, survivors=1, steps=10, batch_bytes_max=900)


def test_a_long_life_without_crashes_keeps_everything():
    for seed in range(20, 30):
        life = Life(SimulatedDirectory(Random(seed)))
        life.run(random_script(Random(seed), steps=120))
        assert_survives(life.disk.survivor(Random(seed)), life.admissible, Random(seed))


def _skip_data_sync(monkeypatch):
    monkeypatch.setattr(SimulatedFile, "sync_data", lambda self: None)


def _skip_directory_sync(monkeypatch):
    monkeypatch.setattr(SimulatedDirectory, "sync", lambda self: None)


def _skip_full_sync(monkeypatch):
    monkeypatch.setattr(SimulatedFile, "sync", lambda self: None)


def _acknowledge_before_sync(monkeypatch):
    """The write is handed out as done, and synced with the next one."""
    sync = SimulatedFile.sync_data
    late: list[SimulatedFile] = []

    def sync_the_one_before(self):
        if late:
            sync(late.pop())
        late.append(self)

    monkeypatch.setattr(SimulatedFile, "sync_data", sync_the_one_before)


def _trust_the_cache(monkeypatch):
    """Recovery believes what it reads and makes nothing of it durable."""
    monkeypatch.setattr(Wal, "_settle", lambda self, found: [])


def _name_before_header(monkeypatch):
    """A segment gets its name before its header is synced."""
    monkeypatch.setattr("raftkv.storage.wal._begin_segment", _begin_segment_in_the_wrong_order)


def _begin_segment_in_the_wrong_order(directory, spare, header, *, room_bytes):
    header_bytes = len(header.encode())
    with spare.taken(size_bytes=header_bytes + room_bytes) as (name, file):
        directory.rename(name, segment_name(header.number))
        directory.sync()
        file.pwrite(replace(header, size_bytes=file.size_bytes()).encode(), offset=0)
        file.sync()
    return file, header_bytes


def _leave_header_to_the_next_sync(monkeypatch):
    """A segment gets its name while its header is only written."""
    monkeypatch.setattr("raftkv.storage.wal._begin_segment", _begin_segment_without_sync)


def _begin_segment_without_sync(directory, spare, header, *, room_bytes):
    header_bytes = len(header.encode())
    with spare.taken(size_bytes=header_bytes + room_bytes) as (name, file):
        file.pwrite(replace(header, size_bytes=file.size_bytes()).encode(), offset=0)
        directory.rename(name, segment_name(header.number))
        directory.sync()
    return file, header_bytes


def _mark_without_sync(monkeypatch):
    """The next batch is written behind a mark that may be lost."""
    mark, sync = Wal.mark, SimulatedFile.sync_data

    def unsynced(self):
        monkeypatch.setattr(SimulatedFile, "sync_data", lambda file: None)
        mark(self)
        monkeypatch.setattr(SimulatedFile, "sync_data", sync)

    monkeypatch.setattr(Wal, "mark", unsynced)


PLANTED = [
    _skip_data_sync,
    _skip_directory_sync,
    _skip_full_sync,
    _acknowledge_before_sync,
    _trust_the_cache,
    _name_before_header,
    _leave_header_to_the_next_sync,
    _mark_without_sync,
]


@pytest.mark.parametrize("plant", PLANTED)
def test_the_sweep_catches_a_planted_bug(plant, monkeypatch):
    plant(monkeypatch)
    with pytest.raises((AssertionError, DataDamaged)):
        crash_everywhere(0, page_bytes=512, survivors=2)


def test_an_append_after_a_torn_tail_survives_the_next_restart():
    """faults 52: a later page of the batch reached the disk and an earlier one did not."""
    disk = SimulatedDirectory(Random(1))
    wal, _ = open_log(disk)
    wal.write([write(entry(1, 1), vote=(1, None))])
    torn_at = _end_of_log(wal)
    wal.write([write(entry(2, 1, b"y" * 2000))])
    disk = disk.survivor(Random(1))
    name = segment_name(1)
    overwrite(disk, name, offset=torn_at, data=bytes(512))
    wal, recovered = open_log(disk)
    assert recovered.last_index == 1
    assert "cut" in recovered.notes[0]
    assert set(disk.content(name)[torn_at + 512 :]) == {0}, "nothing of the torn batch is left behind the mark"
    wal.write([write(entry(2, 1, b"z"))])
    wal, recovered = open_log(disk.survivor(Random(2)))
    assert wal.read(Index(1), Index(9), bytes_max=9999) == [entry(1, 1), entry(2, 1, b"z")]
    assert recovered.notes == []


def _end_of_log(wal: Wal) -> int:
    return wal._offset


def test_a_fresh_directory_says_that_nothing_ever_happened():
    wal, recovered = open_log(SimulatedDirectory(Random(1)))
    assert (recovered.term, recovered.voted_for, recovered.last_index, recovered.tail) == (0, None, 0, [])
    assert recovered.tail_first == 1
    assert wal.read(Index(1), Index(5), bytes_max=100) == []
    assert State() == State(recovered.term, recovered.voted_for)
