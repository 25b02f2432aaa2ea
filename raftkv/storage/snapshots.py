"""The snapshot files of a data directory: which there are, writing one, sending one, receiving one.

Told: what a snapshot stands for and its blocks, pieces of another node's file. Tells: which snapshots are there,
blocks of which every byte was checked, pieces of a file. Belongs to one thread; while ``write`` draws from its
iterator, that iterator may call everything else here but ``write``. Knows nothing of what is in a block.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from raftkv.core.effects import LogBase
from raftkv.core.types import ClusterId, Index, SnapshotId
from raftkv.storage.directory import Directory

BLOCK_BYTES_MAX: Final = 64 * 1024 * 1024
"""No block is larger; nothing is allocated for one that claims to be."""
RESERVE_BYTES: Final = 32 * 1024 * 1024
"""A snapshot leaves at least so much of the disk free, for the log."""


@dataclass(frozen=True, slots=True)
class SnapshotMeta:
    """The header of a snapshot's file: nothing of the node that wrote it, so that another can install it."""

    cluster_id: ClusterId
    base: LogBase
    """The last entry that is in it, and the configuration in force there."""
    stamp_ms: int
    """Cluster time of what is in it."""
    state_hash: bytes
    """Of the state machine at ``base.index``; at most 255 bytes."""


class StoredSnapshot(NamedTuple):
    """A snapshot that is in place and on stable storage."""

    id: SnapshotId
    meta: SnapshotMeta


class Received(NamedTuple):
    """What became of a piece of another node's file."""

    wanted_offset: int
    """Everything before this is there."""
    complete: LogBase | None
    """The file is whole, was checked, and is in place and on stable storage; what it stands for."""
    problem: str = ""
    """Why everything received so far was thrown away, for people; empty: it was not."""


class SnapshotReader:
    """An open snapshot that is not deleted before ``close``. Also a context manager."""

    @property
    def stored(self) -> StoredSnapshot:
        """Which it is."""
        raise NotImplementedError

    def piece(self, offset: int, bytes_max: int) -> bytes:
        """The bytes of the file from there on; empty at its end."""
        raise NotImplementedError

    def blocks(self) -> Iterator[bytes]:
        """Every block as it was given to ``write``, each checked before it is handed out; at the end, the whole.

        Raises DataDamaged at the first byte that is not as it was written.
        """
        raise NotImplementedError

    def close(self) -> None:
        """It may be deleted now."""
        raise NotImplementedError

    def __enter__(self) -> SnapshotReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Snapshots:
    """The snapshots of one directory."""

    @classmethod
    def open(
        cls, directory: Directory, *, cluster_id: ClusterId | None, reserve_bytes: int = RESERVE_BYTES
    ) -> Snapshots:
        """What is there is known, leftovers of what was not finished are gone.

        To be handed to ``Wal.open``, which decides which of them the log goes on from. Raises DiskFailed.
        """
        raise NotImplementedError

    @property
    def newest(self) -> StoredSnapshot | None:
        """The one that a start would be made from."""
        raise NotImplementedError

    @property
    def stored(self) -> list[StoredSnapshot]:
        """All that are believed to be sound, oldest first."""
        raise NotImplementedError

    @property
    def trim_limit(self) -> Index:
        """The log is to be kept after this, so that the snapshot before the newest can stand in for it (0: all)."""
        raise NotImplementedError

    def write(self, meta: SnapshotMeta, blocks: Iterable[bytes]) -> SnapshotId:
        """The snapshot is in place and on stable storage; of the older ones the newest is kept.

        If one of at least ``meta.base.index`` is in place by then, that one's id. What ``blocks`` raises passes
        through. Whatever is raised, nothing is left of the attempt, and all that was there is there. DiskFailed with
        ENOSPC (``is_disk_full``) where there is no room, or less would be left than ``reserve_bytes``.
        """
        raise NotImplementedError

    def reader(self, id: SnapshotId | None = None) -> SnapshotReader | None:
        """That snapshot or the newest, kept until the reader is closed; None: there is no such (any more)."""
        raise NotImplementedError

    def receive(self, id: SnapshotId, offset: int, data: bytes) -> Received:
        """A piece of that file of another node: it is written as far as it joins what is there.

        One file at a time: another ``id`` starts again. What was received survives a restart. Raises as ``write``.
        """
        raise NotImplementedError

    @property
    def receiving(self) -> tuple[SnapshotId, int] | None:
        """Which file is being received, and how much of it is there."""
        raise NotImplementedError
