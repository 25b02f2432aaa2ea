"""Ports for the nodes of tests: no other run's on this machine, and given again as late as can be.

Told: how many. Tells: that many in a row on which nobody listens. A process has a block of ports to itself for as long
as it lives, by a lock that ends with it: so nobody else takes the port of a node that is killed, or not yet started.
Within its block it goes round: a test that adds nodes is not given the ports of those that it has killed.
"""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
from functools import cache
from pathlib import Path
from typing import Final

HOST: Final = "127.0.0.1"
PORTS: Final = range(10_000, 20_000)
"""Below what the system gives to outgoing connections, or one of those could take a killed node's port."""
BLOCK: Final = 200


class Block:
    """Some ports that are one process's alone, until it ends or ``close``."""

    def __init__(self, directory: Path) -> None:
        """``directory``: where those who share the machine lock their blocks; OSError where all are taken."""
        directory.mkdir(mode=0o700, exist_ok=True)
        starts = range(PORTS.start, PORTS.stop, BLOCK)
        for place in range(len(starts)):
            self.first = starts[(os.getpid() + place) % len(starts)]
            self._lock = os.open(directory / str(self.first), os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(self._lock)
                continue
            self._next = self.first
            return
        raise OSError(f"all ports between {PORTS.start} and {PORTS.stop} are taken by those who lock {directory}")

    def give(self, count: int) -> list[int]:
        """That many in a row, not given since all others were; OSError where there are none."""
        end = self.first + BLOCK
        for _ in range(2 * BLOCK):
            first = self._next if self._next + count <= end else self.first
            taken = next((port for port in range(first, first + count) if not is_free(port)), None)
            if taken is None:
                self._next = first + count
                return list(range(first, first + count))
            self._next = taken + 1
        raise OSError(f"no {count} free ports in a row between {self.first} and {end}")

    def close(self) -> None:
        """They are anybody's."""
        os.close(self._lock)


def free_ports(count: int) -> list[int]:
    """That many ports in a row on which nobody listens, of this process's own."""
    return _block_of(os.getpid()).give(count)


def is_free(port: int) -> bool:
    """A node could listen there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


@cache
def _block_of(pid: int) -> Block:
    """One that was forked has a block of its own."""
    return Block(Path(tempfile.gettempdir()) / f"raftkv-ports-{os.getuid()}")
