"""The real disk, and what the simulated one has in common with it."""

from __future__ import annotations

import errno
import os
import stat
import threading
from random import Random

import pytest

from raftkv.errors import DirectoryLocked, DiskFailed
from raftkv.sim.world.disk import SimulatedDirectory
from raftkv.storage import directory as directory_module
from raftkv.storage.directory import PosixDirectory, is_disk_full


@pytest.fixture(params=["posix", "simulated"])
def directory(request, tmp_path):
    if request.param == "simulated":
        yield SimulatedDirectory(Random(1))
        return
    opened = PosixDirectory(tmp_path / "data")
    yield opened
    opened.close()


def test_bytes_read_back_where_they_were_written(directory):
    file = directory.create("a")
    file.pwrite(b"hello", offset=3)
    assert file.size_bytes() == 8
    assert file.pread(100, offset=0) == b"\0\0\0hello"
    assert file.pread(2, offset=4) == b"el"
    assert file.pread(2, offset=50) == b""
    file.pwrite(b"J", offset=3)
    file.truncate(5)
    file.sync_data()
    file.sync()
    file.close()
    again = directory.open("a")
    assert again.pread(100, offset=0) == b"\0\0\0Je"
    again.close()


def test_allocation_writes_zeros_up_to_the_size_and_touches_nothing_before(directory):
    file = directory.create("a")
    file.pwrite(b"kept", offset=0)
    file.allocate(3_000_001)
    assert file.size_bytes() == 3_000_001
    content = file.pread(3_000_001, offset=0)
    assert content[:4] == b"kept"
    assert content.count(0) == 3_000_001 - 4
    file.allocate(10)
    assert file.size_bytes() == 3_000_001
    file.close()


def test_names_come_and_go(directory):
    for name in ("b", "a"):
        directory.create(name).close()
    assert [name for name in directory.names() if name != "lock"] == ["a", "b"]
    directory.rename("a", "c")
    directory.rename("c", "b")
    assert not directory.exists("a")
    assert directory.exists("b")
    directory.sync()
    directory.delete("b")
    assert not directory.exists("b")
    assert directory.free_bytes() > 0


def test_what_the_system_refuses_is_a_failed_disk(directory):
    directory.create("a").close()
    for refused in (
        lambda: directory.create("a"),
        lambda: directory.open("none"),
        lambda: directory.rename("none", "b"),
        lambda: directory.delete("none"),
    ):
        with pytest.raises(DiskFailed) as failed:
            refused()
        assert not is_disk_full(failed.value)


@pytest.mark.parametrize("name", ["", ".", "..", "../a", "/etc/passwd", "a/b", "a\0b"])
def test_no_name_leads_out_of_the_directory(directory, name):
    for refused in (directory.create, directory.open, directory.exists, directory.delete):
        with pytest.raises(AssertionError):
            refused(name)
    with pytest.raises(AssertionError):
        directory.rename("a", name)


def test_only_the_owner_can_look_in(tmp_path):
    old_mask = os.umask(0)
    try:
        directory = PosixDirectory(tmp_path / "deep" / "data")
        directory.create("a").close()
    finally:
        os.umask(old_mask)
    for path, mode in ((".", 0o700), ("a", 0o600), ("lock", 0o600), ("..", 0o700)):
        assert stat.S_IMODE(os.stat(tmp_path / "deep" / "data" / path).st_mode) == mode
    directory.close()


def test_two_processes_cannot_use_one_directory(tmp_path):
    """faults 54: flock belongs to the open file, so a second opening in this process is a fair stand-in."""
    first = PosixDirectory(tmp_path)
    with pytest.raises(DirectoryLocked, match="in use"):
        PosixDirectory(tmp_path)
    first.close()
    PosixDirectory(tmp_path).close()


def test_a_reader_needs_no_lock_and_can_change_nothing(tmp_path):
    owner = PosixDirectory(tmp_path)
    owner.create("a").close()
    reader = PosixDirectory.read_only(tmp_path)
    file = reader.open("a")
    with pytest.raises(DiskFailed):
        file.pwrite(b"x", offset=0)
    file.close()
    reader.close()
    owner.close()
    with pytest.raises(DiskFailed):
        PosixDirectory.read_only(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_links_are_not_followed(tmp_path):
    (tmp_path / "secret").write_bytes(b"secret")
    directory = PosixDirectory(tmp_path / "data")
    os.symlink(tmp_path / "secret", tmp_path / "data" / "a")
    assert not directory.exists("a")
    assert "a" not in directory.names()
    with pytest.raises(DiskFailed):
        directory.open("a")
    with pytest.raises(DiskFailed):
        directory.create("a")
    directory.close()


def test_a_write_that_the_system_takes_in_pieces_is_finished(tmp_path, monkeypatch):
    directory = PosixDirectory(tmp_path)
    file = directory.create("a")
    pwrite = os.pwrite
    with monkeypatch.context() as slow:
        slow.setattr(os, "pwrite", lambda fd, data, offset: pwrite(fd, bytes(data[:7]), offset))
        file.pwrite(bytes(range(100)), offset=5)
    pread = os.pread
    with monkeypatch.context() as slow:
        slow.setattr(os, "pread", lambda fd, size, offset: pread(fd, min(size, 9), offset))
        assert file.pread(200, offset=5) == bytes(range(100))
    file.close()
    directory.close()


@pytest.mark.parametrize(("code", "is_full"), [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EIO, False)])
def test_a_full_disk_is_told_from_a_broken_one(tmp_path, monkeypatch, code, is_full):
    """faults 56, 55."""

    def refuse(fd, data, offset):
        raise OSError(code, os.strerror(code))

    directory = PosixDirectory(tmp_path)
    file = directory.create("a")
    with monkeypatch.context() as broken:
        broken.setattr(os, "pwrite", refuse)
        with pytest.raises(DiskFailed) as failed:
            file.pwrite(b"x", offset=0)
    assert is_disk_full(failed.value) == is_full
    assert failed.value.path == str(tmp_path / "a")
    assert failed.value.operation == "write"
    file.close()
    directory.close()


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_a_directory_whose_sync_has_failed_is_never_called_synced_again(tmp_path, monkeypatch, code):
    """faults 55, 56: of two threads that sync it the system tells one, and the other's name is lost, too.

    Called want of room, it would be waited for without end.
    """
    directory = PosixDirectory(tmp_path / "data")
    file = directory.create("a")

    def fail(fd: int) -> None:
        raise OSError(code, "simulated")

    with monkeypatch.context() as failing:
        failing.setattr(directory_module, "_sync_fully", fail)
        with pytest.raises(DiskFailed, match="simulated") as first:
            directory.sync()
    with pytest.raises(DiskFailed, match=r"fsync.*simulated") as second:
        directory.sync()
    assert not is_disk_full(first.value)
    assert not is_disk_full(second.value)
    assert second.value is not first.value, "raised again and again it would keep what it passed through"
    file.sync()
    file.close()
    directory.close()
    again = PosixDirectory(tmp_path / "data")
    again.sync()
    again.close()


def test_who_syncs_a_directory_while_that_fails_for_another_is_not_told_that_all_is_well(tmp_path, monkeypatch):
    """faults 55: the system tells one of the two, and only when it is over."""
    directory = PosixDirectory(tmp_path / "data")
    entered, second_synced = threading.Event(), threading.Event()
    told: list[str] = []

    def fail_the_first(fd: int) -> None:
        if threading.current_thread() is first:
            entered.set()
            second_synced.wait(0.3)  # The other one gets as far as it can.
            raise OSError(errno.EIO, "simulated")
        second_synced.set()

    def sync() -> None:
        try:
            directory.sync()
        except DiskFailed:
            told.append("failed")
        else:
            told.append("synced")

    monkeypatch.setattr(directory_module, "_sync_fully", fail_the_first)
    first, second = threading.Thread(target=sync), threading.Thread(target=sync)
    first.start()
    assert entered.wait(10.0)
    second.start()
    for thread in (first, second):
        thread.join(10.0)
    directory.close()
    assert told == ["failed", "failed"]


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL])
def test_where_no_room_can_be_reserved_nothing_is_broken(tmp_path, monkeypatch, code):
    def refuse(*_: object) -> None:
        raise OSError(code, "not here")

    monkeypatch.setattr(os, "posix_fallocate", refuse, raising=False)
    directory = PosixDirectory(tmp_path / "data")
    file = directory.create("a")
    assert (file.reserve(4096), file.size_bytes()) == (False, 0)
    file.close()
    directory.close()
