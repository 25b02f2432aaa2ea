"""What the log goes on in: made ready in another thread, and never waited for where there is room."""

from __future__ import annotations

import errno
import os
import stat
import threading
from random import Random

import pytest

from raftkv.errors import DiskFailed
from raftkv.sim.world.disk import SimulatedDirectory, SimulatedFile
from raftkv.storage import directory as directory_module
from raftkv.storage import wal as wal_module
from raftkv.storage.directory import PosixDirectory, is_disk_full
from raftkv.storage.segments import segment_name, segment_numbers
from raftkv.storage.spare import RESERVED_NAME, SPARE_NAME, UNFINISHED_NAME, Spare
from tests.storage.life import SEGMENT_BYTES, entry, open_log, write

PATIENCE_S = 10.0
BYTES = 4096


class Slow:
    """A thread that makes a spare, and gets no further than into the middle of it until it may."""

    def __init__(self, spare: Spare, monkeypatch: pytest.MonkeyPatch, *, written_bytes: int = 1) -> None:
        self._entered, self._may_go_on = threading.Event(), threading.Event()
        allocate = SimulatedFile.allocate

        def slowly(file: SimulatedFile, size_bytes: int) -> None:
            if threading.current_thread() is self._thread:
                file.pwrite(bytes(written_bytes), offset=0)
                self._entered.set()
                assert self._may_go_on.wait(PATIENCE_S)
            allocate(file, size_bytes)

        monkeypatch.setattr(SimulatedFile, "allocate", slowly)
        self._thread = threading.Thread(target=spare.prepare)
        self._thread.start()
        assert self._entered.wait(PATIENCE_S)

    def end(self) -> None:
        self._may_go_on.set()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()


def test_no_spare_is_made_under_the_name_of_one_that_is_being_taken():
    """A second one would be renamed in the place of the first, whose header is already written."""
    disk = SimulatedDirectory(Random(1))
    spare = Spare(disk, segment_bytes=BYTES)
    assert spare.prepare()
    with spare.taken(size_bytes=BYTES) as (name, file):
        file.pwrite(b"header", offset=0)
        assert spare.prepare(), "there is one"
        disk.rename(name, segment_name(1))
    assert not spare.is_ready
    assert spare.prepare()
    assert disk.content(segment_name(1)).startswith(b"header")
    assert set(disk.content(SPARE_NAME)) == {0}


def test_a_log_does_not_wait_for_zeros(monkeypatch):
    """It did, and large values were half as fast; beside much else its leader took the disk for stuck."""
    disk = SimulatedDirectory(Random(1))
    spare = Spare(disk, segment_bytes=BYTES)
    slow = Slow(spare, monkeypatch)
    for number in (1, 2):
        with spare.taken(size_bytes=BYTES) as (name, file):
            assert (name, file.size_bytes()) == (RESERVED_NAME, BYTES)
            if number == 2:
                assert not spare.is_ready
                slow.end()
            disk.rename(name, segment_name(number))
    assert spare.is_ready
    with spare.taken(size_bytes=BYTES) as (name, _):
        assert name == SPARE_NAME, "what was made meanwhile is the next"
        disk.rename(name, segment_name(3))


@pytest.mark.parametrize("why", ["too little is free", "no name is", "others have taken it", "none can be reserved"])
def test_what_is_being_made_is_waited_for_where_nothing_can_be_reserved(monkeypatch, why):
    """The room is there, and it is the log's: to fail would end a node that has enough."""
    capacity_bytes = BYTES + BYTES // 2 if why == "too little is free" else None
    disk = SimulatedDirectory(Random(1), capacity_bytes=capacity_bytes)
    spare = Spare(disk, segment_bytes=BYTES)
    slow = Slow(spare, monkeypatch, written_bytes=BYTES - 1)
    create, free_bytes, full = disk.create, disk.free_bytes(), disk._failed("create", RESERVED_NAME, errno.ENOSPC)

    def looked() -> int:
        slow.end()
        return free_bytes

    def created(name: str) -> SimulatedFile:
        if why == "no name is" and name == RESERVED_NAME:
            raise full
        return create(name)

    def reserved(file: SimulatedFile, size_bytes: int) -> bool:
        assert why != "too little is free", "what is left would be gone, and the other thread could not end"
        file.pwrite(b"some", offset=0)
        if why == "others have taken it":
            raise full
        return False

    monkeypatch.setattr(disk, "free_bytes", looked)
    monkeypatch.setattr(disk, "create", created)
    monkeypatch.setattr(SimulatedFile, "reserve", reserved)
    with spare.taken(size_bytes=BYTES) as (name, _):
        assert name == SPARE_NAME
        disk.rename(name, segment_name(1))
    assert disk.names() == [segment_name(1)]
    assert not spare.is_ready


def test_without_room_there_is_nothing_to_take():
    disk = SimulatedDirectory(Random(1), capacity_bytes=BYTES // 2)
    spare = Spare(disk, segment_bytes=BYTES)
    with pytest.raises(DiskFailed) as failed, spare.taken(size_bytes=BYTES):
        pass
    assert is_disk_full(failed.value)
    assert disk.names() == [UNFINISHED_NAME], "the log is over, and its next start deletes it"
    assert (Spare(disk, segment_bytes=BYTES).is_ready, disk.names()) == (False, [])


def test_what_a_crash_left_of_one_is_gone_after_the_next_start():
    disk = SimulatedDirectory(Random(1))
    disk.create(RESERVED_NAME).reserve(BYTES)
    assert not Spare(disk, segment_bytes=BYTES).is_ready
    assert disk.names() == []


def _noted(monkeypatch, name: str) -> list[int]:
    """The sizes that files are asked for so."""
    sizes: list[int] = []
    act = getattr(SimulatedFile, name)

    def noting(file: SimulatedFile, size_bytes: int) -> object:
        sizes.append(size_bytes)
        return act(file, size_bytes)

    monkeypatch.setattr(SimulatedFile, name, noting)
    return sizes


@pytest.mark.parametrize("is_zeroed", [True, False])
def test_zeros_are_written_where_they_pay(monkeypatch, is_zeroed):
    """A segment that a few large batches fill would be written twice for nothing."""
    monkeypatch.setattr(wal_module, "ZEROED_FOR_BATCHES", 4 if is_zeroed else 1000)
    allocated, reserved = _noted(monkeypatch, "allocate"), _noted(monkeypatch, "reserve")
    disk = SimulatedDirectory(Random(1))
    wal, _ = open_log(disk)
    wal.write([write(vote=(1, None))])
    assert wal.prepare_spare()
    index = 0
    while (segments := len(segment_numbers(disk))) < 4:
        index += 1
        wal.write([write(entry(index, 1))])
        if len(segment_numbers(disk)) > segments:
            assert wal.prepare_spare()
    assert allocated[:3] == [SEGMENT_BYTES] * 3, "the first, and what was made before and after it: nobody had counted"
    wanted = ([SEGMENT_BYTES] * 2, []) if is_zeroed else ([], [SEGMENT_BYTES] * 2)
    assert (allocated[3:], reserved) == wanted
    _, recovered = open_log(disk)
    assert recovered.last_index == index


# ------------------------------------------------------------------------------------ a real disk's room


@pytest.fixture
def directory(tmp_path):
    opened = PosixDirectory(tmp_path / "data")
    yield opened
    opened.close()


def test_reserved_room_reads_as_zeros_behind_what_was_there(directory):
    file = directory.create("a")
    file.pwrite(b"kept", offset=0)
    assert file.reserve(3_000_001)
    assert file.size_bytes() == 3_000_001
    assert file.pread(3_000_001, offset=0) == b"kept" + bytes(3_000_001 - 4)
    assert os.stat(file.path).st_blocks * 512 >= 3_000_001, "it has the room"
    assert file.reserve(10)
    assert file.size_bytes() == 3_000_001
    file.close()


@pytest.mark.parametrize("missing", ["in the system", errno.EOPNOTSUPP, errno.EINVAL])
def test_where_no_room_can_be_reserved_it_is_allocated(directory, monkeypatch, missing):
    def refuse(*_: object) -> None:
        raise OSError(missing, "not here")

    if isinstance(missing, int):
        monkeypatch.setattr(os, "posix_fallocate", refuse, raising=False)
    else:
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
    file = directory.create("a")
    assert (file.reserve(BYTES), file.size_bytes()) == (False, 0)
    file.close()
    spare = Spare(directory, segment_bytes=BYTES)
    spare.is_zeroed = False
    for number in (1, 2):
        with spare.taken(size_bytes=BYTES) as (name, file):
            assert (name, file.pread(BYTES + 1, offset=0)) == (SPARE_NAME, bytes(BYTES))
            directory.rename(name, segment_name(number))
        file.close()


def test_a_full_disk_says_so_when_room_is_to_be_reserved(directory, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "posix_fallocate", refuse, raising=False)
    file = directory.create("a")
    with pytest.raises(DiskFailed) as failed:
        file.reserve(3_000_001)
    assert is_disk_full(failed.value)
    assert file.size_bytes() == 0
    file.close()


def test_no_spare_is_made_under_the_name_of_one_that_had_to_be_waited_for(monkeypatch):
    """Its zeros would get the segment's name, and the log would be written into a file that has none."""
    monkeypatch.setattr(SimulatedFile, "reserve", lambda file, size_bytes: False)
    disk = SimulatedDirectory(Random(1))
    spare = Spare(disk, segment_bytes=BYTES)
    with spare.taken(size_bytes=BYTES) as (name, file):
        assert name == SPARE_NAME
        file.pwrite(b"header", offset=0)
        assert spare.prepare(), "there is one"
        disk.rename(name, segment_name(1))
    assert disk.content(segment_name(1)).startswith(b"header")
    assert not spare.is_ready


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_stays_open_of_what_was_reserved(tmp_path, fails):
    directory = PosixDirectory(tmp_path / "data")
    spare = Spare(directory, segment_bytes=BYTES)
    before = len(os.listdir("/dev/fd"))
    if fails:
        with pytest.raises(ZeroDivisionError), spare.taken(size_bytes=BYTES):
            raise ZeroDivisionError
    else:
        with spare.taken(size_bytes=BYTES) as (name, file):
            assert name == RESERVED_NAME
            directory.rename(name, segment_name(1))
        file.close()
    assert len(os.listdir("/dev/fd")) == before
    directory.close()


@pytest.mark.parametrize("spare_is_ready", [False, True])
def test_a_batch_larger_than_a_segment_has_room_in_its_segment(spare_is_ready):
    disk = SimulatedDirectory(Random(1))
    wal, _ = open_log(disk)
    wal.write([write(vote=(1, None))])
    if spare_is_ready:
        assert wal.prepare_spare()
    before = wal.log_bytes
    wal.write([write(entry(1, 1, body=bytes(3 * SEGMENT_BYTES)))])
    assert wal.log_bytes == before + len(disk.content(segment_name(2))), "the file was so long before it was written"
    assert wal.log_bytes > 3 * SEGMENT_BYTES
    wal.write([write(entry(2, 1))])
    _, recovered = open_log(disk)
    assert recovered.last_index == 2


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_a_directory_that_will_never_be_synced_is_not_short_of_room(tmp_path, monkeypatch, code):
    """faults 55, 56: puts would be refused without end by a node that goes on."""
    directory = PosixDirectory(tmp_path / "data")
    spare = Spare(directory, segment_bytes=BYTES)

    def fail_of_a_directory(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            monkeypatch.undo()
            raise OSError(code, "simulated")

    monkeypatch.setattr(directory_module, "_sync_fully", fail_of_a_directory)
    for _ in range(2):
        with pytest.raises(DiskFailed) as failed:
            spare.prepare()
        assert not is_disk_full(failed.value)
    directory.close()
