"""What the API asks of the node behind it, and the node's view of itself.

Told: nothing. Tells: the protocol that the replica satisfies. May never know: how it does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from raftkv.api.reports import Diagnostics
from raftkv.api.responses import Source
from raftkv.members import MembersOutcome, Terms, Wish
from raftkv.outcomes import (
    Consistency,
    Leadership,
    ReadOutcome,
    ReadTimedOut,
    Refused,
    SnapshotOutcome,
    SnapshotRefused,
    SnapshotUnderWay,
    TooStale,
    TransferOutcome,
    WriteOutcome,
)


@dataclass(frozen=True, slots=True)
class MemberStatus:
    """A member as this node sees it; what only the leader has is None elsewhere."""

    id: str
    url: str | None
    """Where clients reach it."""
    match_index: int | None = None
    last_contact_ms: int | None = None
    """Since its newest answer."""


@dataclass(frozen=True, slots=True)
class MembersChange:
    """The change of members that is running, as this node sees it."""

    phase: str
    """catching_up, joint or leaving."""
    joining: tuple[tuple[str, int | None], ...]
    """Who is to vote, and how far its leader knows it to hold the log; None: this is not the leader."""
    leaving: tuple[str, ...]
    demoted: tuple[str, ...]
    """Voters that become learners."""
    remaining_ms: int | None
    """Until those that have not caught up are taken out again; None: they have, or nobody joins."""
    last_index: int
    """The end of this node's log."""


class Unready(Enum):
    """Why a node should get no traffic; the names are codes of the closed list."""

    NO_LEADER = "no_leader"
    CATCHING_UP = "too_stale"
    REPLICAS_DISAGREE = "replicas_disagree"
    SHUTTING_DOWN = "shutting_down"


@dataclass(frozen=True, slots=True)
class Health:
    """Alive: the process does its work at all. Ready: it has a leader and has caught up."""

    dead_because: str | None = None
    """None: it is alive."""
    unready: tuple[tuple[Unready, str], ...] = ()
    """Each reason with a sentence for the operator, the gravest first; none: it is ready."""


@dataclass(frozen=True, slots=True)
class Status:
    """This node, as ``/v1/status``, ``/v1/cluster`` and the probes show it; None: it cannot know."""

    id: str
    cluster_id: bytes | None
    role: str
    """leader, follower, candidate or learner."""
    term: int
    leader_id: str | None
    leader_url: str | None
    commit_index: int
    applied_index: int
    last_index: int
    snapshot_index: int
    """0: there is no snapshot."""
    log_bytes: int | None
    revision: int | None
    """None: another machine than the key-value store is replicated."""
    state_hash: int | None
    version: str
    uptime_ms: int
    voters: tuple[MemberStatus, ...] = ()
    learners: tuple[MemberStatus, ...] = ()
    configuration_index: int = 0
    """Where in the log the configuration in force stands."""
    change: MembersChange | None = None
    """None: none is running."""
    removed_at: int | None = None
    """Where in the log this node knows itself to be no member any more; None: it is one, or never was."""
    health: Health = Health()


@dataclass(frozen=True, slots=True)
class BackupOpened:
    """A snapshot's file that has all that was acknowledged when it was asked for."""

    index: int
    """Of the last entry in it."""
    source: Source


@dataclass(frozen=True, slots=True)
class BackupBusy:
    """As many are being sent as this node sends at once."""


BackupOutcome = BackupOpened | BackupBusy | SnapshotUnderWay | SnapshotRefused | Refused | TooStale | ReadTimedOut


class Service(Protocol):
    """The replica, as the API sees it. Every ``done`` is called exactly once, at once or later."""

    def leadership(self) -> Leadership:
        """Who leads, as this node knows it now."""
        ...

    def submit(self, command: bytes, done: Callable[[WriteOutcome], None], *, frees_space: bool = False) -> None:
        """Has the command replicated and executed; ``frees_space``: taken also when the disk is short."""
        ...

    def read(
        self,
        query: object,
        consistency: Consistency,
        done: Callable[[ReadOutcome], None],
        *,
        min_index: int = 0,
        max_staleness_ms: int | None = None,
    ) -> None:
        """Has the state machine answer the query, as fresh as ``consistency`` demands.

        The two bounds belong to stale reads.
        """
        ...

    def status(self) -> Status:
        """This node as it is now."""
        ...

    def diagnostics(self) -> Diagnostics:
        """All that this node knows of its own troubles."""
        ...

    def transfer_leadership(self, target: str | None, done: Callable[[TransferOutcome], None]) -> None:
        """Has that voter lead; None: the best placed."""
        ...

    def change_members(self, wish: Wish, terms: Terms, done: Callable[[MembersOutcome], None]) -> None:
        """Has the members be as wished."""
        ...

    def take_snapshot(self, done: Callable[[SnapshotOutcome], None], *, wait_ms: int) -> None:
        """Has this node keep a snapshot of all that is applied here; ``done`` hears by then that it is under way."""
        ...

    def open_backup(self, done: Callable[[BackupOutcome], None], *, wait_ms: int) -> None:
        """A file with everything that is acknowledged by now; ``done`` hears by then that it is still being written.

        Whoever gets its source closes it.
        """
        ...

    def new_session_id(self) -> bytes:
        """16 random bytes."""
        ...
