"""A node whose disk, links, clock, event loop and memory break when a file says so.

    python -m tests.live.faulty_node CONTROL serve --id n1 …

Everything else of it is the real one. The faults are put in where a process ends and its system begins, so that they
need no root: what the operating system would do, this does instead. The control file is JSON, may change at any time,
and need not be there; its names are the fields of ``Faults``.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sys
import threading
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, cast

import uvloop

from raftkv.cli.main import main
from raftkv.errors import DiskFailed
from raftkv.kv.machine import KeyValueMachine
from raftkv.node import diagnostics
from raftkv.node import main as node_main
from raftkv.node.snapshots import SnapshotThread
from raftkv.storage.directory import PosixDirectory, PosixFile
from tests.live.faults_file import Faults, heeded, read

LOOK_EVERY_S: Final = 0.02


class Control:
    """The faults of this process, as the file has them now."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._inode: tuple[int, int] | None = None
        self.faults = Faults()
        self._look()
        threading.Thread(target=self._look_on, daemon=True).start()

    def _look_on(self) -> None:
        while True:
            time.sleep(LOOK_EVERY_S)
            self._look()

    def _look(self) -> None:
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            self._inode, self.faults = None, Faults()
            return
        if (found.st_ino, found.st_mtime_ns) != self._inode:
            self._inode = (found.st_ino, found.st_mtime_ns)
            self.faults = read(self._path)
            heeded(self._path)


# ------------------------------------------------------------------------------------------- the disk


def break_disk(control: Control) -> None:
    """Every sync, write and question for room goes by the faults first."""
    sync_data, sync, pwrite, free_bytes = (
        PosixFile.sync_data,
        PosixFile.sync,
        PosixFile.pwrite,
        PosixDirectory.free_bytes,
    )

    def broken(real: Callable[[PosixFile], None]) -> Callable[[PosixFile], None]:
        def synced(file: PosixFile) -> None:
            while control.faults.sync_hangs:
                time.sleep(LOOK_EVERY_S)
            time.sleep(control.faults.sync_delay_ms / 1000)
            if control.faults.sync_fails:
                raise _failed(file, "fdatasync", errno.EIO)
            real(file)

        return synced

    def written(file: PosixFile, data: bytes, *, offset: int) -> None:
        if control.faults.disk_full and offset + len(data) > file.size_bytes():
            raise _failed(file, "write", errno.ENOSPC)
        pwrite(file, data, offset=offset)

    patches: dict[str, Any] = {"sync_data": broken(sync_data), "sync": broken(sync), "pwrite": written}
    for name, patch in patches.items():
        setattr(PosixFile, name, patch)
    room: Any = lambda directory: 0 if control.faults.disk_full else free_bytes(directory)  # noqa: E731
    PosixDirectory.free_bytes = room  # type: ignore[method-assign]


def die_somewhere(control: Control) -> None:
    """Every operation by which snapshots come and logs go may be the last."""
    write, sync, rename, delete, load = (
        PosixFile.pwrite,
        PosixFile.sync,
        PosixDirectory.rename,
        PosixDirectory.delete,
        SnapshotThread._load,
    )

    def die_if(when: str, operations: dict[str, str]) -> None:
        wanted_when, _, rest = control.faults.dies.partition(" ")
        wanted, _, prefix = rest.partition(" ")
        if wanted_when == when and wanted in operations and operations[wanted].startswith(prefix):
            os.kill(os.getpid(), signal.SIGKILL)

    def around(operations: dict[str, str], act: Callable[[], Any]) -> Any:
        """``operations``: what this is, each with the name of its file."""
        die_if("before", operations)
        done = act()
        die_if("after", operations)
        return done

    def name_of(file: PosixFile) -> str:
        return os.path.basename(file.path)

    patches: dict[Any, dict[str, Any]] = {
        PosixFile: {
            "pwrite": lambda file, data, *, offset: around(
                {"write": name_of(file)}, lambda: write(file, data, offset=offset)
            ),
            "sync": lambda file: around({"sync": name_of(file)}, lambda: sync(file)),
        },
        PosixDirectory: {
            "rename": lambda there, old, new: around({"rename": new, "drop": old}, lambda: rename(there, old, new)),
            "delete": lambda there, name: around({"drop": name}, lambda: delete(there, name)),
        },
        SnapshotThread: {"_load": lambda thread, *what: around({"load": ""}, lambda: load(thread, *what))},
    }
    for patched, methods in patches.items():
        for name, method in methods.items():
            setattr(patched, name, method)


def _failed(file: PosixFile, operation: str, number: int) -> DiskFailed:
    return DiskFailed(path=file.path, operation=operation, cause=OSError(number, os.strerror(number)))


def break_memory(control: Control) -> None:
    """As if a bit had flipped in the table: its hash is another one."""
    state_hash = KeyValueMachine.state_hash

    def flipped(machine: KeyValueMachine) -> int:
        return state_hash(machine) ^ control.faults.state_is_wrong

    machines: Any = KeyValueMachine
    machines.state_hash = flipped


# ------------------------------------------------------------------------------------------- the links


class _Wire:
    """A transport over which nothing goes while the link is cut."""

    def __init__(self, real: asyncio.Transport, is_cut: Callable[[], bool]) -> None:
        self._real, self._is_cut = real, is_cut

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def write(self, data: bytes) -> None:
        """Lost, if it is cut."""
        if not self._is_cut():
            self._real.write(data)

    def writelines(self, parts: Any) -> None:
        """Lost, if it is cut."""
        if not self._is_cut():
            self._real.writelines(parts)


class _Socket(asyncio.Protocol):
    """Stands before a protocol, which hears nothing while the link is cut."""

    def __init__(self, inner: Any, is_cut: Callable[[], bool]) -> None:
        self.inner, self._is_cut = inner, is_cut

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.inner.connection_made(_Wire(cast(asyncio.Transport, transport), self._is_cut))

    def data_received(self, data: bytes) -> None:
        if not self._is_cut():
            self.inner.data_received(data)

    def eof_received(self) -> bool | None:
        return cast("bool | None", self.inner.eof_received())

    def connection_lost(self, exc: Exception | None) -> None:
        self.inner.connection_lost(exc)

    def pause_writing(self) -> None:
        self.inner.pause_writing()

    def resume_writing(self) -> None:
        self.inner.resume_writing()


class FaultyLoop(uvloop.Loop):
    """Its connections can be cut, and it can stand still."""

    control: Control

    async def create_connection(self, protocol_factory: Any, host: Any = None, port: Any = None, **more: Any) -> Any:
        """To an address that is cut it never comes about, nor fails."""

        def is_cut() -> bool:
            return f"{host}:{port}" in self.control.faults.cut

        while is_cut():  # noqa: ASYNC110 - what is waited for is a file
            await asyncio.sleep(LOOK_EVERY_S)
        made: list[_Socket] = []

        def wrapped() -> _Socket:
            made.append(_Socket(protocol_factory(), is_cut))
            return made[-1]

        transport, _ = await super().create_connection(wrapped, host, port, **more)
        return transport, made[-1].inner

    def stall_on(self) -> None:
        """Stands still as often as the faults say."""
        time.sleep(self.control.faults.stall_ms / 1000)
        self.call_later(LOOK_EVERY_S * 5, self.stall_on)


def serve(control_path: Path, words: list[str]) -> int:
    """As ``raftkv``, but for the faults."""
    control = Control(control_path)
    break_disk(control)
    die_somewhere(control)
    break_memory(control)
    clock = types.SimpleNamespace(time_ns=lambda: time.time_ns() + control.faults.clock_ahead_ms * 1_000_000)
    vars(diagnostics)["time"] = clock
    FaultyLoop.control = control

    def new_loop() -> FaultyLoop:
        loop = FaultyLoop()
        loop.call_soon(loop.stall_on)
        return loop

    node_main._loop_factory = lambda: new_loop
    return main(words)


if __name__ == "__main__":
    sys.exit(serve(Path(sys.argv[1]), sys.argv[2:]))
