"""Three cores with disks, snapshot files and a bad network, and nothing else: for stories and many short runs.

Nothing happens by itself but time: a message lies in ``mail`` until it is delivered, dropped or doubled; a disk write,
a piece of a file, a loading lies with its node until somebody finishes it. After every turn of a core all of Figure 3
is checked, and that whatever leaves rests on what its disk holds.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

import google_crc32c
import msgpack

from raftkv import frames as framing
from raftkv.core.effects import DiskWrite, Effects, LogBase, LogRead, SnapshotPiece, SnapshotRead, SnapshotWrite
from raftkv.core.messages import REPLY_TYPES, REQUEST_TYPES, AppendEntriesReply, Envelope, InstallSnapshotReply
from raftkv.core.raft import Raft
from raftkv.core.settings import RaftSettings
from raftkv.core.state import Identity, Saved
from raftkv.core.types import Configuration, Index, NodeId, Role, SnapshotId, Term
from tests.core.lone import CLUSTER_ID, incarnation_of, runs_of, voters


class Wrong(AssertionError):
    """Something that must never be."""


class File(NamedTuple):
    """A snapshot's file."""

    id: SnapshotId
    base: LogBase
    state: bytes
    data: bytes


def file_of(base: LogBase, state: bytes, *, by: str) -> File:
    """As a node would write it: no two nodes' files are the same."""
    data: bytes = msgpack.packb([base.index, base.term, base.configuration.encode(), state, by])
    return File(SnapshotId(base.index, base.term, len(data), google_crc32c.value(data)), base, state, data)


def file_from(data: bytes) -> File:
    """As it was received whole."""
    index, term, configuration, state, _ = msgpack.unpackb(data)
    base = LogBase(Index(index), Term(term), Configuration.decode(configuration))
    return File(SnapshotId(base.index, base.term, len(data), google_crc32c.value(data)), base, state, data)


@dataclass(slots=True)
class Disk:
    """What a crash leaves."""

    base: LogBase
    vote: tuple[Term, NodeId | None] = (Term(0), None)
    frames: list[bytes] = field(default_factory=list)
    file: File | None = None
    partial: tuple[SnapshotId, bytes] | None = None

    @property
    def last_index(self) -> int:
        return self.base.index + len(self.frames)

    def term_at(self, index: int) -> int | None:
        if index == self.base.index:
            return self.base.term
        if not self.base.index < index <= self.last_index:
            return None
        return framing.term_and_index(self.frames[index - self.base.index - 1])[0]

    def holds(self, index: int, term: int) -> bool:
        """In its log, or in its snapshot."""
        return self.term_at(index) == term or (self.file is not None and self.file.id.index >= index)

    def configurations(self) -> list[tuple[Index, Configuration]]:
        found = []
        for frame in self.frames:
            if framing.kind(frame) == framing.EntryKind.CONFIGURATION:
                found.append((Index(framing.term_and_index(frame)[1]), Configuration.decode(framing.body(frame))))
        return found

    def write(self, write: DiskWrite) -> None:
        if write.vote is not None:
            self.vote = write.vote
        if write.base is not None:
            self.base, self.frames = write.base, []
        if write.truncate_from is not None:
            del self.frames[write.truncate_from - self.base.index - 1 :]
        for frame in write.frames:
            if framing.term_and_index(frame)[1] != self.last_index + 1:
                raise Wrong("a gap on disk")
            self.frames.append(frame)

    def drop_through(self, index: int) -> None:
        """In its own pieces: so perhaps less than is allowed, never more."""
        if self.file is None or self.file.id.index < index:
            raise Wrong(f"the log goes through {index}, which no snapshot holds")
        if index <= self.base.index or index > self.last_index:
            return
        before = [configuration for at, configuration in self.configurations() if at <= index]
        configuration = before[-1] if before else self.base.configuration
        term = self.term_at(index)
        assert term is not None
        del self.frames[: index - self.base.index]
        self.base = LogBase(Index(index), Term(term), configuration)

    def recover(self) -> Saved:
        """The log starts again at the snapshot where it does not hold that."""
        if self.file is not None and self.term_at(self.file.id.index) != self.file.id.term:
            self.base, self.frames = self.file.base, []
        return Saved(
            base=self.base,
            term=self.vote[0],
            voted_for=self.vote[1],
            term_runs=runs_of(self.frames),
            tail=list(self.frames),
            configurations=self.configurations(),
            snapshot=None if self.file is None else self.file.base,
        )


@dataclass(slots=True)
class Mail:
    """A message on its way; a request has an exchange."""

    envelope: Envelope
    exchange: object | None
    asker: tuple[str, int] | None = None
    """For a reply: who asked, in which of its lives …"""
    request: Envelope | None = None
    """… and what."""


class Core:
    """A node: its core, its machine, and what it has not finished."""

    def __init__(self, name: str, disk: Disk) -> None:
        self.name, self.disk = name, disk
        self.me = Identity(NodeId(name), incarnation_of(name), CLUSTER_ID)
        self.life = 0
        self.raft: Raft | None = None
        self.state = b""
        self.pending: list[DiskWrite] = []
        self.log_reads: list[LogRead] = []
        self.reads: list[SnapshotRead] = []
        self.writes: list[SnapshotWrite] = []
        self.load: int | None = None
        self.captures: list[File] = []
        """Of its own state, not yet in place."""
        self.term, self.commit, self.applied = 0, 0, 0

    @property
    def up(self) -> Raft:
        assert self.raft is not None, f"{self.name} is down"
        return self.raft

    def log(self) -> dict[int, int]:
        """Terms by index, the base too."""
        first, last = self.up.state.log.base_index, self.up.last_index
        return {index: self.up.term_at(index) or 0 for index in range(first, last + 1)}


class World:
    """Cores by name, and what lies between them."""

    def __init__(self, names: str, settings: RaftSettings, seed: int = 1, configuration: Configuration | None = None):
        self.rng, self.settings, self.now_us = Random(seed), settings, 0
        self.configuration = configuration or voters(*names)
        begin = LogBase(Index(0), Term(0), self.configuration)
        self.cores = {name: Core(name, Disk(begin)) for name in names}
        self.mail: list[Mail] = []
        self.leaders: dict[int, str] = {}
        self.committed: dict[int, int] = {}
        """Terms by index, of all that some core knew to be committed."""
        self.states: dict[int, bytes] = {0: b""}
        self.counts: Counter[str] = Counter()
        self._exchanges = 0
        self._open: dict[object, tuple[str, int, Envelope, str, int]] = {}
        """Exchanges without an answer: whose it is to give (name, life), the request, who asked (name, life)."""

    # -- what can happen

    def start(self, name: str) -> None:
        core = self.cores[name]
        saved = core.disk.recover()
        core.raft = Raft(core.me, self.settings, saved, Random(self.rng.random()))
        core.life += 1
        core.state = b"" if core.disk.file is None else core.disk.file.state
        core.commit = core.applied = core.up.applied_index
        core.term = core.up.term
        core.up.elapse(self.now_us)
        self.turn(name)

    def crash(self, name: str) -> None:
        """Whatever was not finished is gone; of a partial file, what had not yet reached the disk."""
        core = self.cores[name]
        core.raft = None
        core.pending, core.log_reads, core.reads, core.writes, core.load = [], [], [], [], None
        core.captures = []
        self._open = {exchange: one for exchange, one in self._open.items() if one[:2] != (name, core.life)}

    def elapse(self, duration_us: int) -> None:
        """Time passes for everybody."""
        self.now_us += duration_us
        for name in self.up_names():
            self.cores[name].up.elapse(self.now_us)
            self.turn(name)

    def up_names(self) -> list[str]:
        return [name for name, core in self.cores.items() if core.raft is not None]

    def deliver(self, mail: Mail) -> None:
        """It arrives; also if it did already."""
        envelope = mail.envelope
        core = self.cores[envelope.receiver]
        if core.raft is None:
            return
        if mail.asker is not None and mail.asker != (core.name, core.life):
            return
        exchange = None
        if isinstance(envelope.message, REQUEST_TYPES):
            self._exchanges += 1
            exchange = self._exchanges
            sender = self.cores[envelope.sender]
            self._open[exchange] = (core.name, core.life, envelope, sender.name, mail.exchange)  # type: ignore[assignment]
        core.raft.receive(envelope, exchange)
        self.turn(core.name)

    def fail(self, mail: Mail) -> None:
        """It is lost, and whoever asked hears that a request of its will not be answered."""
        if mail.asker is not None:
            asker = self.cores[mail.asker[0]]
            if asker.raft is not None and asker.life == mail.asker[1] and mail.request is not None:
                asker.raft.delivery_failed(mail.request)
                self.turn(asker.name)
            return
        core = self.cores[mail.envelope.sender]
        if core.raft is not None and mail.exchange == core.life:
            core.raft.delivery_failed(mail.envelope)
            self.turn(core.name)

    def finish_disk(self, name: str, count: int | None = None) -> None:
        core = self.cores[name]
        done, core.pending = core.pending[:count], core.pending[len(core.pending[:count]) :]
        for write in done:
            core.disk.write(write)
        if done:
            core.up.persisted(done[-1].ticket)
            self.turn(name)

    def answer_log_read(self, name: str) -> None:
        core = self.cores[name]
        read = core.log_reads.pop(0)
        frames = core.disk.frames[max(0, read.first - core.disk.base.index - 1) : read.last - core.disk.base.index]
        if read.first <= core.disk.base.index:
            frames = []
        core.up.log_was_read(read, frames[:3])
        self.turn(name)

    def answer_read(self, name: str) -> None:
        """A piece of the file, if it is still there: the newest is kept, and no other."""
        core = self.cores[name]
        read, file = core.reads.pop(0), core.disk.file
        piece = None
        if file is not None and read.snapshot in (None, file.id):
            piece = SnapshotPiece(file.id, read.offset, file.data[read.offset : read.offset + read.bytes_max])
        core.up.snapshot_was_read(read, piece)
        self.turn(name)

    def answer_write(self, name: str, *, spoilt: bool = False) -> None:
        """As ``SnapshotWrite`` says; ``spoilt``: a bit of the partial file flips."""
        core, disk = self.cores[name], self.cores[name].disk
        write = core.writes.pop(0)
        wanted, complete = self._received(disk, write, spoilt=spoilt)
        core.up.snapshot_was_written(write, wanted, complete)
        if complete is not None:
            self.counts["received"] += 1
        self.turn(name)

    @staticmethod
    def _received(disk: Disk, write: SnapshotWrite, *, spoilt: bool) -> tuple[int, LogBase | None]:
        if disk.file is not None and disk.file.id == write.snapshot:
            return write.snapshot.size_bytes, disk.file.base
        data = disk.partial[1] if disk.partial is not None and disk.partial[0] == write.snapshot else b""
        if write.offset <= len(data):
            data += write.data[len(data) - write.offset :]
        if spoilt and data:
            data = bytes([data[0] ^ 1]) + data[1:]
        if len(data) < write.snapshot.size_bytes:
            disk.partial = (write.snapshot, data)
            return len(data), None
        disk.partial = None
        if google_crc32c.value(data) != write.snapshot.checksum:
            return 0, None
        file = file_from(data)
        if disk.file is None or disk.file.id.index <= file.id.index:
            disk.file = file
        return len(data), file.base

    def finish_loading(self, name: str) -> None:
        core = self.cores[name]
        assert core.disk.file is not None
        core.load, index = None, core.disk.file.id.index
        core.state = core.disk.file.state
        core.applied = index
        self._check_state(core)
        core.up.snapshot_loaded(index)
        self.turn(name)

    def capture(self, name: str) -> bool:
        """A snapshot of the machine as it is now begins; False: there is nothing to take."""
        core = self.cores[name]
        newest = max([0 if core.disk.file is None else core.disk.file.id.index, *(f.id.index for f in core.captures)])
        if core.up.loading is not None or core.applied <= newest:
            return False
        core.captures.append(file_of(core.up.base_at(Index(core.applied)), core.state, by=f"{name} {core.life}"))
        return True

    def store_capture(self, name: str) -> None:
        """It is in place, unless a newer one has come from elsewhere meanwhile."""
        core = self.cores[name]
        file = core.captures.pop(0)
        if core.disk.file is None or core.disk.file.id.index < file.id.index:
            core.disk.file = file
            self.counts["stored"] += 1
        core.up.snapshot_stored(file.base, size_bytes=file.id.size_bytes)
        self.turn(name)

    # -- a turn, and what must be true after it

    def turn(self, name: str) -> Effects:
        core = self.cores[name]
        effects = core.up.take()
        core.pending += effects.persist
        core.log_reads += effects.read_log
        core.reads += effects.snapshot_reads
        core.writes += effects.snapshot_writes
        for committed in effects.apply:
            self._apply(core, committed.first, committed.frames)
        if effects.load_snapshot is not None:
            core.load = effects.load_snapshot
            self.counts["installed"] += 1
        if effects.drop_log_through is not None:
            self.counts["compacted"] += 1
            core.disk.drop_through(self.rng.randint(core.disk.base.index, effects.drop_log_through))
        for envelope in effects.requests:
            self.mail.append(Mail(envelope, core.life))
        for exchange, envelope in effects.replies:
            self._answered(core, exchange, envelope)
        self.noted(name, effects)
        self._check(core)
        return effects

    def noted(self, name: str, effects: Effects) -> None:
        """For who tells stories."""

    def _apply(self, core: Core, first: int, frames: Iterable[bytes]) -> None:
        for index, frame in enumerate(frames, first):
            if index != core.applied + 1 or framing.term_and_index(frame)[1] != index:
                raise Wrong(f"{core.name} applies {index} after {core.applied}")
            core.applied = index
            core.state = hashlib.sha256(core.state + frame).digest()[:4]
            self._check_state(core)
        core.up.applied(Index(core.applied))

    def _answered(self, core: Core, exchange: object, envelope: Envelope) -> None:
        if exchange not in self._open:
            raise Wrong(f"{core.name} answers an exchange twice: {envelope.message}")
        asked = self._open.pop(exchange)
        reply = envelope.message
        assert isinstance(reply, REPLY_TYPES)
        if core.disk.vote[0] < reply.term and not hasattr(reply, "proposed_term"):
            raise Wrong(f"{core.name} answers in a term that it may forget: {reply}")
        claimed = 0
        if isinstance(reply, AppendEntriesReply) and reply.success:
            claimed = reply.match
        elif isinstance(reply, InstallSnapshotReply) and reply.installed:
            claimed = reply.index
        term = core.up.term_at(claimed)
        if claimed > core.up.state.log.base_index and not core.disk.holds(claimed, term or 0):
            raise Wrong(f"{core.name} claims {claimed}, which its disk does not hold: {reply}")
        if claimed and core.disk.last_index < claimed and (core.disk.file is None or core.disk.file.id.index < claimed):
            raise Wrong(f"{core.name} claims {claimed}, which its disk does not hold: {reply}")
        self.mail.append(Mail(envelope, None, asker=(asked[3], asked[4]), request=asked[2]))

    def _check_state(self, core: Core) -> None:
        if self.states.setdefault(core.applied, core.state) != core.state:
            raise Wrong(f"State Machine Safety: {core.name} has another state at {core.applied}")

    def _check(self, core: Core) -> None:
        raft, log = core.up, core.log()
        if raft.term < core.term or raft.commit_index < core.commit:
            raise Wrong(f"{core.name}: term {raft.term} after {core.term}, commit {raft.commit_index} of {core.commit}")
        if not raft.applied_index <= raft.commit_index <= raft.last_index:
            raise Wrong(
                f"{core.name}: applied {raft.applied_index}, commit {raft.commit_index}, last {raft.last_index}"
            )
        for index in range(core.commit + 1, raft.commit_index + 1):
            if index in log and self.committed.setdefault(index, log[index]) != log[index]:
                raise Wrong(f"State Machine Safety: {core.name} commits ({index}, {log[index]})")
        core.term, core.commit = raft.term, raft.commit_index
        for index, term in log.items():
            if index <= core.commit and self.committed.get(index, term) != term:
                raise Wrong(f"State Machine Safety: {core.name} holds ({index}, {term}) as committed")
        self._check_durable()
        self._check_logs(core, log)
        if raft.role is Role.LEADER:
            self._check_leader(core, log)

    def _check_durable(self) -> None:
        if not self.committed:
            return
        index = max(self.committed)
        holders = [name for name, core in self.cores.items() if core.disk.holds(index, self.committed[index])]
        if 2 * len(holders) <= len(self.cores):
            raise Wrong(f"entry {index} is committed and only on {holders}")

    def _check_logs(self, core: Core, log: dict[int, int]) -> None:
        for other in self.cores.values():
            if other is core or other.raft is None:
                continue
            theirs = other.log()
            common = [index for index in log if index > 0 and theirs.get(index) == log[index]]
            if common and any(log[index] != theirs.get(index, log[index]) for index in log if index < max(common)):
                raise Wrong(f"Log Matching: {core.name} {log}, {other.name} {theirs}")

    def _check_leader(self, core: Core, log: dict[int, int]) -> None:
        term = core.up.term
        if self.leaders.setdefault(term, core.name) != core.name:
            raise Wrong(f"Election Safety: {self.leaders[term]} and {core.name} lead term {term}")
        if term != max(self.leaders):
            return
        base = core.up.state.log.base_index
        lacking = [index for index, of in self.committed.items() if index >= base and log.get(index) != of]
        if lacking:
            raise Wrong(f"Leader Completeness: {core.name} leads term {term} without {lacking}")

    def unanswered(self) -> list[Envelope]:
        """Requests that arrived at a core that still lives, and have no reply."""
        return [one[2] for one in self._open.values() if self.cores[one[0]].life == one[1]]
