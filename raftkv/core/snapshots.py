"""Snapshots: to whom they are sent, what becomes of a received one, what of the log may go (paper §7, Figure 13).

A snapshot is a file that the shell keeps; the core knows of it what it stands for in the log, and moves it piece by
piece. A piece is asked of the shell, sent, and answered with the offset that the receiver wants next: so its partial
file alone decides where the transfer goes on, after whatever happened.
"""

from __future__ import annotations

from raftkv.core.effects import Exchange, LogBase, SnapshotPiece, SnapshotRead, SnapshotWrite
from raftkv.core.messages import Envelope, InstallSnapshot, InstallSnapshotReply
from raftkv.core.state import State
from raftkv.core.types import Index


def was_read(state: State, read: SnapshotRead, piece: SnapshotPiece | None) -> None:
    """The piece is sent, if it is still wanted; without such a file the newest is sent from its beginning."""
    raise NotImplementedError


def was_written(state: State, write: SnapshotWrite, *, wanted_offset: int, complete: LogBase | None) -> None:
    """The piece's exchange is answered; a whole snapshot takes the place of what the log lacks."""
    raise NotImplementedError


def stored(state: State, base: LogBase, *, size_bytes: int) -> None:
    """A snapshot of our own state is in place: the log before it may go, but for its tail."""
    raise NotImplementedError


def loaded(state: State, index: Index) -> None:
    """The machine holds the received snapshot; entries after it are handed out again."""
    raise NotImplementedError


def handle_install_snapshot(state: State, envelope: Envelope, request: InstallSnapshot, exchange: Exchange) -> None:
    """Figure 13. The reply leaves when the piece, or what it completes, is on stable storage."""
    raise NotImplementedError


def handle_install_reply(state: State, envelope: Envelope, reply: InstallSnapshotReply) -> None:
    """Goes on where the follower wants, or with the log after the snapshot."""
    raise NotImplementedError
