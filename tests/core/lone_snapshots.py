"""One core that sends a snapshot, or receives one; everything around it is played by the test."""

from __future__ import annotations

from raftkv.core.effects import LogBase, SnapshotPiece, SnapshotRead, SnapshotWrite
from raftkv.core.messages import AppendEntriesReply, InstallSnapshot
from raftkv.core.messages import InstallSnapshotReply as Reply
from raftkv.core.settings import RaftSettings
from raftkv.core.types import Configuration, Index, NodeId, SnapshotId, Term
from tests.core.lone import NO_TERM, NONE, Lone, voters

CHUNK = 10
SETTINGS = RaftSettings(snapshot_chunk_bytes=CHUNK, log_tail_entries=2)


def snapshot(index: int, term: int, size: int = 25, checksum: int = 7) -> SnapshotId:
    return SnapshotId(Index(index), Term(term), size, checksum)


def base(index: int, term: int, configuration: Configuration | None = None) -> LogBase:
    return LogBase(Index(index), Term(term), configuration or voters("a", "b", "c"))


def install(id: SnapshotId, offset: int = 0, *, term: int | None = None, length: int = CHUNK) -> InstallSnapshot:
    size = min(length, id.size_bytes - offset)
    return InstallSnapshot(Term(term or id.term), id, offset, b"x" * size)


class Sender(Lone):
    """Leads a, b and c with a log that begins after entry 5; b turns out to be empty."""

    def __init__(self, log: tuple[int, ...] = (2, 2, 2)) -> None:
        super().__init__(base=(5, 2), log=list(log), settings=SETTINGS)
        self.lead()

    def refused_by(self, name: str) -> SnapshotRead:
        prev = Index(self.office.progress[NodeId(name)].next_index - 1)
        refusal = AppendEntriesReply(self.raft.term, False, prev, NONE, NO_TERM, Index(1))
        (read,) = self.says(name, refusal).snapshot_reads
        return read

    def reads(self, read: SnapshotRead, id: SnapshotId | None, *, size: int | None = None) -> list[InstallSnapshot]:
        self.forget()
        length = CHUNK if id is None else min(CHUNK, id.size_bytes - read.offset)
        piece = None if id is None else SnapshotPiece(id, read.offset, b"d" * (size or length))
        self.raft.snapshot_was_read(read, piece)
        self.turn()
        return self.requests(InstallSnapshot)


def wants(leader: Sender, index: int, offset: int) -> list[SnapshotRead]:
    reply = Reply(leader.raft.term, Index(index), offset, installed=False)
    return leader.says("b", reply).snapshot_reads


class Receiver(Lone):
    """Follows b in term 3, after entries of these terms."""

    def __init__(self, log: tuple[int, ...] = (1, 2), *, term: int = 3) -> None:
        super().__init__(log=list(log), settings=SETTINGS)
        self.follow("b", term)

    def gets(self, message: InstallSnapshot, by: str = "b") -> list[SnapshotWrite]:
        return self.says(by, message).snapshot_writes

    def wrote(self, write: SnapshotWrite, wanted: int, complete: LogBase | None = None) -> None:
        self.raft.snapshot_was_written(write, wanted, complete)
        self.turn()


def whole(node: Receiver, id: SnapshotId, configuration: Configuration | None = None, *, term: int = 3) -> None:
    """Its last piece arrives, and the file is in place."""
    (write,) = node.gets(install(id, id.size_bytes - 5, term=term))
    node.wrote(write, id.size_bytes, base(id.index, id.term, configuration))
