"""A disk with a model of a log and one snapshot: what a node of an exploration keeps.

A snapshot's file is what it stands for: the configuration, and every entry before it. So it can be seen whether two
nodes' states are the same. What is written is in place at once; a file that comes in pieces is when it is whole.

Told: what is to be kept. Tells: what there is. Knows nothing of nodes.
"""

from __future__ import annotations

import zlib
from typing import Final

import msgpack

from raftkv import frames as framing
from raftkv.core.effects import LogBase, SnapshotPiece, SnapshotRead, SnapshotWrite
from raftkv.core.types import Configuration, Index, SnapshotId, Term
from raftkv.sim.checks.invariants import Violated
from raftkv.sim.world.shadow import Shadow

_NOTHING: Final = SnapshotId(Index(0), Term(0), 0, 0)


class FewFiles:
    """The newest snapshot, and one that is coming."""

    def __init__(self) -> None:
        self.base: LogBase | None = None
        """What the snapshot stands for; None: there is none."""
        self.entries: tuple[bytes, ...] = ()
        """All that it holds."""
        self.partial = b""
        self.partial_of = _NOTHING
        self.snapshot = _NOTHING
        self._content = b""

    def write(self, base: LogBase, entries: tuple[bytes, ...]) -> None:
        """It is in place; Violated if it says of the members what its entries do not."""
        told = [frame for frame in entries if framing.kind(frame) == framing.EntryKind.CONFIGURATION]
        if told and Configuration.decode(framing.body(told[-1])) != base.configuration:
            raise Violated("a snapshot has the members of its index", f"at {base.index}: {base.configuration}")
        content: bytes = msgpack.packb([base.index, base.term, base.configuration.encode(), list(entries)])
        self._is_in_place(content)

    def piece(self, read: SnapshotRead) -> SnapshotPiece | None:
        """Of the snapshot in place; None: it is another by now, or there is none."""
        if not self._content or read.snapshot not in (None, self.snapshot):
            return None
        return SnapshotPiece(self.snapshot, read.offset, self._content[read.offset : read.offset + read.bytes_max])

    def receive(self, write: SnapshotWrite) -> tuple[int, LogBase | None]:
        """Where the partial file ends now, and what the snapshot stands for once it is whole."""
        if write.snapshot != self.partial_of:
            self.partial, self.partial_of = b"", write.snapshot
        if write.offset <= len(self.partial):
            self.partial = (self.partial[: write.offset] + write.data)[: write.snapshot.size_bytes]
        if len(self.partial) < write.snapshot.size_bytes:
            return len(self.partial), None
        end, (base, _) = len(self.partial), _unpacked(self.partial)
        if self.base is None or base.index > self.base.index:
            self._is_in_place(self.partial)
        return end, base

    def _is_in_place(self, content: bytes) -> None:
        self._content = content
        self.base, self.entries = _unpacked(content)
        self.snapshot = SnapshotId(self.base.index, self.base.term, len(content), zlib.crc32(content))


def _unpacked(content: bytes) -> tuple[LogBase, tuple[bytes, ...]]:
    index, term, configuration, entries = msgpack.unpackb(content)
    return LogBase(Index(index), Term(term), Configuration.decode(configuration)), tuple(entries)


class NodeDisk(Shadow):
    """A log that forgets what it has not finished, and the files beside it."""

    def __init__(self, base: LogBase) -> None:
        super().__init__(base)
        self.files = FewFiles()
        self.begun_with = base.configuration

    def trim_log(self, through: Index) -> None:
        """Nobody needs the log up to there: what is durable of that is gone."""
        self.trim(min(through, self.base.index + len(self.frames)))
