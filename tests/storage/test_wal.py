"""Reading back, segments, spares, and the log on a real disk."""

from __future__ import annotations

import threading
from random import Random

import pytest

from raftkv.core.types import Index
from raftkv.errors import DataDamaged
from raftkv.frames import BODY_BYTES_MAX
from raftkv.sim.world.disk import Crash, Moment, SimulatedDirectory
from raftkv.storage import sparse_index
from raftkv.storage.directory import PosixDirectory
from raftkv.storage.segments import segment_name, segment_numbers
from raftkv.storage.sparse_index import SparseIndex
from tests.storage.life import Life, entry, open_log, overwrite, random_script, state_of, write


def _log(entry_count: int, *, body_bytes: int = 10):
    disk = SimulatedDirectory(Random(1))
    wal, _ = open_log(disk)
    wal.write([write(vote=(1, None))])
    for index in range(1, entry_count + 1):
        wal.write([write(entry(index, 1, bytes(body_bytes)))])
    return disk, wal


def test_one_write_is_one_batch_one_write_and_one_sync():
    disk, wal = _log(0)
    operations, syncs = disk.operations, disk.syncs
    wal.write([write(entry(1, 1), vote=(1, None)), write(entry(2, 1)), write(vote=(2, "n1"))])
    assert (disk.operations - operations, disk.syncs - syncs) == (2, 1)
    wal.write([])
    wal.write([write()])
    assert disk.operations - operations == 2, "nothing to write, nothing written"


def test_a_mark_is_written_once_and_synced():
    disk, wal = _log(3)
    syncs, operations = disk.syncs, disk.operations
    wal.mark()
    wal.mark()
    assert (disk.syncs - syncs, disk.operations - operations) == (1, 2)


def test_every_start_marks_what_it_found():
    """faults 53: from then on damage to the last batch is told from a torn write."""
    disk, wal = _log(3)
    assert wal.is_unmarked
    again, _ = open_log(disk)
    assert not again.is_unmarked


def test_a_mark_always_finds_room_in_the_segment():
    disk, wal = _log(0)
    for index in range(1, 100):
        wal.write([write(entry(index, 1))])
        segments = len(segment_numbers(disk))
        wal.mark()
        assert len(segment_numbers(disk)) == segments


def test_a_range_ends_with_the_entry_that_reaches_the_bound():
    _, wal = _log(20, body_bytes=75)
    assert len(wal.read(Index(3), Index(20), bytes_max=250)) == 3
    assert len(wal.read(Index(3), Index(20), bytes_max=300)) == 3
    assert len(wal.read(Index(3), Index(4), bytes_max=10_000)) == 2
    assert wal.read(Index(3), Index(20), bytes_max=0) == [entry(3, 1, bytes(75))]
    assert len(wal.read(Index(19), Index(999), bytes_max=10_000)) == 2
    assert wal.read(Index(21), Index(30), bytes_max=10_000) == []
    assert wal.read(Index(0), Index(30), bytes_max=10_000) == []


@pytest.mark.parametrize("stride_bytes", [1, 2000, 1 << 20])
def test_every_range_of_a_much_rewritten_log_reads_back(stride_bytes, monkeypatch):
    """Truncations, resets and rewrites leave stale entries on the way, which are never read."""
    monkeypatch.setattr(sparse_index, "STRIDE_BYTES", stride_bytes)
    for seed in range(12):
        life = Life(SimulatedDirectory(Random(seed)))
        life.run(random_script(Random(seed), steps=50))
        wal, recovered = open_log(life.disk)
        state = state_of(wal, recovered)
        assert [state] == life.admissible
        first = state.base[0] + 1
        rng = Random(seed)
        for _ in range(30):
            start, end = sorted(rng.choices(range(first, state.last_index + 2), k=2))
            found = wal.read(Index(start), Index(end), bytes_max=1 << 20)
            assert found == list(state.entries[start - first : end - first + 1])


def test_reading_what_is_damaged_says_so():
    """faults 58: an entry that no longer reads back is never left out or replaced by another."""
    disk, wal = _log(5)
    disk.flip_bit(segment_name(1), (4 * 512 + 110) * 8)
    with pytest.raises(DataDamaged):
        wal.read(Index(1), Index(5), bytes_max=10_000)


def test_memory_holds_only_the_newest_entries_after_a_start():
    disk, _ = _log(100, body_bytes=75)
    wal, recovered = open_log(disk, tail_bytes_max=1000)
    assert recovered.tail == [entry(index, 1, bytes(75)) for index in range(91, 101)]
    assert recovered.tail_first == 91
    assert recovered.term_runs == [(1, 1)]
    wal.write([write(truncate_from=50)])
    _, recovered = open_log(disk, tail_bytes_max=1000)
    assert (recovered.tail, recovered.tail_first, recovered.last_index) == ([], 50, 49)


def test_a_large_write_is_cut_into_batches_and_each_is_synced():
    disk = SimulatedDirectory(Random(1))
    wal, _ = open_log(disk, batch_bytes_max=1000)
    syncs = disk.syncs
    wal.write([write(*(entry(index, 1, bytes(275)) for index in range(1, 11)), vote=(1, None))])
    assert disk.syncs - syncs >= 4
    assert len(wal.read(Index(1), Index(10), bytes_max=1 << 20)) == 10


def test_the_largest_frame_fits_and_the_segment_is_grown_for_it():
    """faults 60, the disk's part."""
    disk = SimulatedDirectory(Random(1))
    wal, _ = open_log(disk)
    largest = entry(1, 1, bytes(BODY_BYTES_MAX))
    wal.write([write(vote=(1, None))])
    wal.write([write(largest)])
    wal.write([write(entry(2, 1))])
    wal, recovered = open_log(disk.survivor(Random(1)))
    assert recovered.last_index == 2
    assert wal.read(Index(1), Index(2), bytes_max=1) == [largest]
    assert wal.log_bytes > BODY_BYTES_MAX


def test_a_spare_from_before_is_used_and_one_of_another_size_is_not():
    disk, wal = _log(1)
    assert wal.wants_spare
    assert wal.prepare_spare()
    operations = disk.operations
    assert wal.prepare_spare()
    assert disk.operations == operations, "one is enough"
    wal, _ = open_log(disk)
    assert not wal.wants_spare
    wal, _ = open_log(disk, segment_bytes=1 << 14)
    assert wal.wants_spare
    assert not disk.exists("spare")


def test_a_segment_begins_where_the_last_ended_and_the_log_says_how_large_it_is():
    disk, wal = _log(60)
    numbers = segment_numbers(disk)
    assert len(numbers) > 3
    assert wal.log_bytes == sum(len(disk.content(segment_name(number))) for number in numbers)
    again, _ = open_log(disk)
    assert again.log_bytes == wal.log_bytes


def test_the_index_remembers_one_batch_in_a_stride():
    index = SparseIndex()
    for batch in range(1000):
        index.appended(Index(batch * 10 + 1), segment=1, offset=512 + batch * 1024)
    assert len(index._firsts) == 1 + 999 * 1024 // sparse_index.STRIDE_BYTES
    assert index.place_of(Index(5)) == (1, 512, 641)
    assert index.place_of(Index(641)).offset == 512 + 64 * 1024


def test_entries_that_were_never_appended_have_no_place():
    with pytest.raises(AssertionError):
        SparseIndex().place_of(Index(1))


def test_a_life_on_a_real_disk(tmp_path):
    for seed in range(3):
        directory = PosixDirectory(tmp_path / str(seed))
        life = Life(directory)  # type: ignore[arg-type]
        life.run(random_script(Random(seed), steps=40))
        directory.close()
        directory = PosixDirectory(tmp_path / str(seed))
        assert [state_of(*open_log(directory))] == life.admissible
        directory.close()


def test_a_spare_is_made_in_another_thread_while_the_log_is_written(tmp_path):
    directory = PosixDirectory(tmp_path)
    wal, _ = open_log(directory)
    wal.write([write(vote=(1, None))])
    done = threading.Event()

    def prepare_until_done() -> None:
        while not done.wait(0.0005):
            wal.prepare_spare()

    thread = threading.Thread(target=prepare_until_done)
    thread.start()
    try:
        for index in range(1, 200):
            wal.write([write(entry(index, 1, bytes(200)))])
    finally:
        done.set()
        thread.join()
    wal.close()
    wal, recovered = open_log(directory)
    assert recovered.last_index == 199
    assert len(wal.read(Index(1), Index(199), bytes_max=1 << 20)) == 199
    wal.close()
    directory.close()


def test_the_directory_is_private_and_holds_what_it_should(tmp_path):
    directory = PosixDirectory(tmp_path / "data")
    wal, _ = open_log(directory)
    wal.prepare_spare()
    assert directory.names() == ["identity", "lock", segment_name(1), "spare"]
    for name in directory.names():
        assert (tmp_path / "data" / name).stat().st_mode & 0o777 == 0o600
    wal.close()
    directory.close()


def test_leftovers_of_interrupted_work_are_cleared_at_the_start():
    """faults 54."""
    disk, _ = _log(1)
    for name in ("identity.new", "spare.new"):
        disk.create(name)
        overwrite(disk, name, offset=0, data=b"half")
    open_log(disk)
    assert disk.names() == ["identity", segment_name(1)]


def test_a_log_that_a_killed_process_began_is_on_stable_storage_before_it_is_used():
    """faults 54: its names were there for the next process, not yet synced, and a power cut would take them away."""
    whole = SimulatedDirectory(Random(1))
    open_log(whole)
    for operation in range(1, whole.operations + 1):
        disk = SimulatedDirectory(Random(1))
        disk.crash_at(operation, Moment.BEFORE)
        with pytest.raises(Crash):
            open_log(disk)
        restarted = disk.restarted()
        wal, _ = open_log(restarted)
        wal.write([write(entry(1, 1), vote=(1, None))])
        for seed in range(6):
            assert open_log(restarted.survivor(Random(seed)))[1].last_index == 1
