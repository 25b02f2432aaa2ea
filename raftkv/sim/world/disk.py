"""A disk in memory that forgets whatever it was not told to keep.

Told: the calls of storage's Directory port, a seeded ``random.Random``, and faults to inject. Tells: what a
POSIX file system may tell, and after a power cut a disk as it may be found then. What is durable is kept
apart from what is merely written:

- a write is durable from the file's next sync on; until then each page of it is lost or kept by itself, so
  a crash tears writes and keeps later ones while it loses earlier ones; a file's new length likewise, so it
  may be kept without the data;
- a created, renamed or deleted name is durable from the directory's next sync on, whatever was synced in
  the file; until then each of these changes is lost or kept by itself;
- after a sync that failed, the pages it was to write are called clean: they still read back, no later sync
  writes them, and a power cut may lose them, as Linux does it.

Every call that changes something is an operation and has a number. ``crash_at`` ends the machine before,
in the middle of or after one of them: it raises Crash, and so does every call from then on.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from random import Random
from typing import Final, NamedTuple

from raftkv.errors import DiskFailed
from raftkv.storage.directory import ALLOCATION_CHUNK_BYTES, assert_plain, path_of

PAGE_BYTES: Final = 4096
SECTOR_BYTES: Final = 512


class Crash(Exception):
    """The simulated machine is dead. Never caught by what runs on it."""


class Moment(Enum):
    """When during an operation the machine dies."""

    BEFORE = "before"
    MIDDLE = "middle"
    AFTER = "after"


class _Page(NamedTuple):
    """A piece of a write, kept or lost as a whole."""

    offset: int
    data: bytes


class _Growth(NamedTuple):
    """A file that became this long; its new length may be kept and what was written there lost."""

    size_bytes: int


_Change = _Page | _Growth | int
"""The last is a length that the file was set to."""


@dataclass(slots=True)
class _Inode:
    """A file's content, apart from its names."""

    content: bytearray = field(default_factory=bytearray)
    """What reads see."""
    durable: bytearray = field(default_factory=bytearray)
    """What a power cut leaves at least."""
    dirty: list[_Change] = field(default_factory=list)
    """Changes since the last sync, in order."""
    abandoned: list[_Change] = field(default_factory=list)
    """Changes that a failed sync called clean."""

    def survivor(self, keep: Callable[[], bool]) -> _Inode:
        """As found after a power cut, every change in doubt kept or lost by itself."""
        found = bytearray(self.durable)
        for change in self.abandoned + self.dirty:
            if keep():
                _change(found, change)
        return _Inode(content=found, durable=bytearray(found))


def _change(content: bytearray, change: _Change) -> None:
    if isinstance(change, int):
        del content[change:]
        content.extend(bytes(change - len(content)))
        return
    if isinstance(change, _Growth):
        content.extend(bytes(max(0, change.size_bytes - len(content))))
        return
    offset, data = change
    content.extend(bytes(max(0, offset - len(content))))
    content[offset : offset + len(data)] = data


def _without(abandoned: list[_Change], change: _Change) -> list[_Change]:
    """The abandoned changes that a later durable one has not overwritten, each cut to what is left of it."""
    if not isinstance(change, _Page):
        return abandoned
    start, end = change.offset, change.offset + len(change.data)
    left: list[_Change] = []
    for page in abandoned:
        if not isinstance(page, _Page):
            left.append(page)
            continue
        before, after = page.data[: max(0, start - page.offset)], page.data[max(0, end - page.offset) :]
        left += [_Page(page.offset, before)] if before else []
        left += [_Page(max(page.offset, end), after)] if after else []
    return left


class _Rename(NamedTuple):
    """A change of names: ``old`` None for a new file, ``new`` None for a deleted one."""

    old: str | None
    new: str | None
    inode: _Inode


class SimulatedDirectory:
    """Storage's Directory in memory."""

    def __init__(
        self, rng: Random, *, path: str = "sim", page_bytes: int = PAGE_BYTES, capacity_bytes: int | None = None
    ) -> None:
        self._rng = rng
        self._path = path
        self.page_bytes = page_bytes
        """The piece of a write that is kept or lost as a whole."""
        self.capacity_bytes = capacity_bytes
        """ENOSPC comes at this byte, in the middle of a write if need be; None: never. May be changed at any time."""
        self.operations = 0
        """How many calls have changed something."""
        self.syncs = 0
        """How many of them were syncs of files."""
        self.failing_syncs: set[int] = set()
        """Numbers of syncs of files that fail with EIO, each once."""
        self.failing_operations: set[int] = set()
        """Numbers of operations that fail with EIO, each once, having done part of their work."""
        self._names: dict[str, _Inode] = {}
        self._durable_names: dict[str, _Inode] = {}
        self._pending: list[_Rename] = []
        self._crash: tuple[int, Moment] | None = None
        self._is_dead = False

    @property
    def path(self) -> str:
        """What it is called in messages."""
        return self._path

    def crash_at(self, operation: int, moment: Moment) -> None:
        """The machine dies at the operation of this number, the first being 1."""
        self._crash = (operation, moment)

    def survivor(self, rng: Random) -> SimulatedDirectory:
        """The disk after a power cut now: one of the many that may be found, drawn from ``rng``.

        Some draws keep nothing or everything that is in doubt, for those are the likely ones.
        """
        share = rng.choice((0.0, 1.0, 0.5, rng.random()))

        def keep() -> bool:
            return rng.random() < share

        found = self._successor(rng)
        names = dict(self._durable_names)
        for change in self._pending:
            if keep():
                _rename(names, change)
        survivors: dict[int, _Inode] = {}
        for name, inode in sorted(names.items()):
            if id(inode) not in survivors:
                survivors[id(inode)] = inode.survivor(keep)
            found._names[name] = survivors[id(inode)]
        found._durable_names = dict(found._names)
        return found

    def restarted(self) -> SimulatedDirectory:
        """The disk after the process was killed, but not the machine: all that was written still reads back, and
        what was not synced is in doubt as before.
        """
        found = self._successor(self._rng)
        found._names, found._durable_names, found._pending = self._names, self._durable_names, self._pending
        return found

    def flip_bit(self, name: str, bit: int) -> None:
        """One bit of a file is another, on the medium too."""
        inode = self._names[name]
        for content in (inode.content, inode.durable):
            content[bit // 8] ^= 1 << bit % 8

    def content(self, name: str) -> bytes:
        """All of a file, as reads see it."""
        return bytes(self._names[name].content)

    def names(self) -> list[str]:
        """See Directory."""
        self._alive()
        return sorted(self._names)

    def exists(self, name: str) -> bool:
        """See Directory."""
        self._alive()
        assert_plain(name)
        return name in self._names

    def create(self, name: str) -> SimulatedFile:
        """See Directory."""
        self._alive()
        assert_plain(name)
        if name in self._names:
            raise self._failed("create", name, errno.EEXIST)
        inode = _Inode()
        self._operate("create", name, lambda: self._changed(_Rename(None, name, inode)))
        return SimulatedFile(self, name, inode)

    def open(self, name: str) -> SimulatedFile:
        """See Directory."""
        self._alive()
        return SimulatedFile(self, name, self._inode("open", name))

    def rename(self, old: str, new: str) -> None:
        """See Directory."""
        assert_plain(new)
        inode = self._inode("rename", old)
        self._operate("rename", old, lambda: self._changed(_Rename(old, new, inode)))

    def delete(self, name: str) -> None:
        """See Directory."""
        inode = self._inode("delete", name)
        self._operate("delete", name, lambda: self._changed(_Rename(name, None, inode)))

    def sync(self) -> None:
        """See Directory."""
        self._operate("fsync", "", self._sync_names, middle=self._sync_some_names)

    def free_bytes(self) -> int:
        """See Directory."""
        return self._room_bytes()

    def _room_bytes(self) -> int:
        if self.capacity_bytes is None:
            return 1 << 40
        return max(0, self.capacity_bytes - sum(len(inode.content) for inode in self._names.values()))

    def _successor(self, rng: Random) -> SimulatedDirectory:
        return SimulatedDirectory(rng, path=self._path, page_bytes=self.page_bytes, capacity_bytes=self.capacity_bytes)

    def _changed(self, change: _Rename) -> None:
        _rename(self._names, change)
        self._pending.append(change)

    def _sync_names(self) -> None:
        self._durable_names = dict(self._names)
        self._pending.clear()

    def _sync_some_names(self) -> None:
        """What a sync that was interrupted had done: the oldest changes are durable."""
        done = self._rng.randint(0, len(self._pending))
        for change in self._pending[:done]:
            _rename(self._durable_names, change)
        del self._pending[:done]

    def _inode(self, operation: str, name: str) -> _Inode:
        assert_plain(name)
        if name not in self._names:
            raise self._failed(operation, name, errno.ENOENT)
        return self._names[name]

    def _alive(self) -> None:
        if self._is_dead:
            raise Crash

    def _operate(
        self, operation: str, name: str, work: Callable[[], None], *, middle: Callable[[], None] | None = None
    ) -> None:
        """Does one numbered operation, or dies or fails at it; ``middle`` is what half of it would be."""
        self._alive()
        self.operations += 1
        moment = None
        if self._crash is not None and self._crash[0] == self.operations:
            moment = self._crash[1]
        if self.operations in self.failing_operations:
            self.failing_operations.discard(self.operations)
            if middle is not None:
                middle()
            raise self._failed(operation, name, errno.EIO)
        if moment is None:
            work()
            return
        if moment is Moment.AFTER:
            work()
        elif moment is Moment.MIDDLE and middle is not None:
            middle()
        self._is_dead = True
        raise Crash

    def _failed(self, operation: str, name: str, code: int) -> DiskFailed:
        path = path_of(self, name) if name else self._path
        return DiskFailed(path=path, operation=operation, cause=OSError(code, f"simulated {errno.errorcode[code]}"))


def _rename(names: dict[str, _Inode], change: _Rename) -> None:
    """Changes of names are kept one by one: a rename whose create was lost still brings the new name."""
    if change.old is not None and names.get(change.old) is change.inode:
        del names[change.old]
    if change.new is not None:
        names[change.new] = change.inode


class SimulatedFile:
    """Storage's File in memory."""

    def __init__(self, directory: SimulatedDirectory, name: str, inode: _Inode) -> None:
        self._directory, self._name, self._inode = directory, name, inode

    @property
    def path(self) -> str:
        """What it is called in messages."""
        return path_of(self._directory, self._name)

    def pread(self, size_bytes: int, *, offset: int) -> bytes:
        """See File."""
        self._directory._alive()
        return bytes(self._inode.content[offset : offset + size_bytes])

    def pwrite(self, data: bytes, *, offset: int) -> None:
        """See File."""
        growth = max(0, offset + len(data) - len(self._inode.content))
        room = self._directory._room_bytes()
        if growth > room:
            kept = data[: len(data) - growth + room]
            self._directory._operate("write", self._name, lambda: self._write(kept, offset))
            raise self._directory._failed("write", self._name, errno.ENOSPC)
        half = data[: len(data) // 2]
        self._directory._operate(
            "write", self._name, lambda: self._write(data, offset), middle=lambda: self._write(half, offset)
        )

    def sync_data(self) -> None:
        """See File."""
        self._sync("fdatasync")

    def sync(self) -> None:
        """See File."""
        self._sync("fsync")

    def allocate(self, size_bytes: int) -> None:
        """See File."""
        offset = len(self._inode.content)
        while offset < size_bytes:
            chunk = bytes(min(ALLOCATION_CHUNK_BYTES, size_bytes - offset))
            self.pwrite(chunk, offset=offset)
            self.sync()
            offset += len(chunk)

    def reserve(self, size_bytes: int) -> bool:
        """See File."""
        self._directory._alive()
        if size_bytes - len(self._inode.content) > self._directory._room_bytes():
            raise self._directory._failed("fallocate", self._name, errno.ENOSPC)
        self._directory._operate("fallocate", self._name, lambda: self._changed(_Growth(size_bytes)))
        return True

    def size_bytes(self) -> int:
        """See File."""
        self._directory._alive()
        return len(self._inode.content)

    def truncate(self, size_bytes: int) -> None:
        """See File."""
        self._directory._operate("ftruncate", self._name, lambda: self._changed(size_bytes))

    def close(self) -> None:
        """See File."""

    def _sync(self, operation: str) -> None:
        directory = self._directory
        directory.syncs += 1
        if directory.syncs in directory.failing_syncs:
            directory.failing_syncs.discard(directory.syncs)
            directory._operate(operation, self._name, self._abandon)
            raise directory._failed(operation, self._name, errno.EIO)
        directory._operate(operation, self._name, self._make_durable, middle=self._make_some_durable)

    def _write(self, data: bytes, offset: int) -> None:
        page_bytes, end = self._directory.page_bytes, offset + len(data)
        if end > len(self._inode.content):
            self._changed(_Growth(end))
        at = offset
        while at < end:
            page_end = min(end, (at // page_bytes + 1) * page_bytes)
            self._changed(_Page(at, data[at - offset : page_end - offset]))
            at = page_end

    def _changed(self, change: _Change) -> None:
        _change(self._inode.content, change)
        self._inode.dirty.append(change)

    def _make_durable(self) -> None:
        """The pages that are dirty; what a failed sync abandoned stays in doubt, unless it was written anew."""
        for change in self._inode.dirty:
            _change(self._inode.durable, change)
            self._inode.abandoned = _without(self._inode.abandoned, change)
        self._inode.dirty.clear()

    def _make_some_durable(self) -> None:
        kept: list[_Change] = []
        for change in self._inode.dirty:
            if self._directory._rng.random() < 0.5:
                _change(self._inode.durable, change)
            else:
                kept.append(change)
        self._inode.dirty[:] = kept

    def _abandon(self) -> None:
        self._inode.abandoned += self._inode.dirty
        self._inode.dirty.clear()
