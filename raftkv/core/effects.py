"""What the core wants done. ``Raft.take()`` hands these out; the shell does them in any order it likes.

The core alone sees to it that nothing leaves that rests on an unfinished write: whatever stands in
``requests`` and ``replies`` may go at once, and may be lost, doubled or reordered.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from raftkv.core.messages import Envelope
from raftkv.core.types import Configuration, Index, NodeId, SnapshotId, Term, Ticket

Exchange = object
"""The shell's own handle of an open exchange with a peer: given with a request, handed back with its reply."""


@dataclass(frozen=True, slots=True)
class LogBase:
    """The log starts again right after this entry, which a snapshot holds."""

    index: Index
    term: Term
    configuration: Configuration


@dataclass(slots=True)
class DiskWrite:
    """One piece of disk work, to be made durable in the order of its fields; tickets complete in order."""

    ticket: Ticket
    vote: tuple[Term, NodeId | None] | None = None
    """The new current term and vote, where they changed."""
    base: LogBase | None = None
    """The log is reset to begin after this."""
    truncate_from: Index | None = None
    """This entry and all after it go."""
    frames: list[bytes] = field(default_factory=list)
    """Entries to append, contiguous."""


class LogRead(NamedTuple):
    """Entries that the core no longer has in memory; answer with ``Raft.log_was_read``."""

    first: Index
    last: Index
    bytes_max: int
    """Stop after the entry that passes this; at least one entry is read."""
    follower: NodeId | None
    """For whom; None: to be applied here."""


class SnapshotRead(NamedTuple):
    """A piece of a snapshot's file, to be sent to a follower; answer with ``Raft.snapshot_was_read``.

    One at a time for each follower. Who answers late slows the transfer down, and nothing else.
    """

    follower: NodeId
    snapshot: SnapshotId | None
    """None: the newest that there is; the piece tells which that is."""
    offset: int
    bytes_max: int


class SnapshotPiece(NamedTuple):
    """What stands at ``offset`` in that file: as much as was asked for, less only at its end."""

    snapshot: SnapshotId
    offset: int
    data: bytes


class SnapshotWrite(NamedTuple):
    """A piece of a leader's snapshot, to be kept in a partial file until that is whole.

    A write of another snapshot than the partial file's begins a new one. Answer each, in order, with
    ``Raft.snapshot_was_written``: where the partial file ends now, whatever was written; once it is whole, proved and
    in place for good, what it stands for. A write into a file that is whole already is answered so, too.
    """

    number: int
    snapshot: SnapshotId
    offset: int
    data: bytes


class Committed(NamedTuple):
    """Entries to apply, in order; the first has index ``first``."""

    first: Index
    frames: list[bytes]


@dataclass(slots=True)
class ReadReady:
    """The read may be served once ``index`` is applied."""

    read_id: int
    index: Index


class Note(NamedTuple):
    """Something that people want to know: the one source of log lines, metrics and scenario traces."""

    event: str
    """A short snake_case name: ``became_leader``, ``truncated``, ``refused_vote`` …"""
    text: str
    """The event told in words, for logs and traces."""


@dataclass(slots=True)
class Effects:
    """All that has gathered since the last ``take()``."""

    persist: list[DiskWrite] = field(default_factory=list)
    requests: list[Envelope] = field(default_factory=list)
    replies: list[tuple[Exchange, Envelope]] = field(default_factory=list)
    apply: list[Committed] = field(default_factory=list)
    read_log: list[LogRead] = field(default_factory=list)
    snapshot_reads: list[SnapshotRead] = field(default_factory=list)
    snapshot_writes: list[SnapshotWrite] = field(default_factory=list)
    load_snapshot: Index | None = None
    """The state machine is to be replaced by the snapshot that was received at this index; until
    ``Raft.snapshot_loaded`` is called nothing is handed out to be applied."""
    drop_log_through: Index | None = None
    """Nobody needs entries up to here any more: the disk may drop them, in its own pieces and at its leisure."""
    reads_ready: list[ReadReady] = field(default_factory=list)
    reads_failed: list[int] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    deadline_us: int | None = None
    """When to call ``elapse`` again at the latest; None: never by time alone."""
