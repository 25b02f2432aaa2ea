"""What becomes of a client's write or read: the replica decides, the fronts put it into words.

A write is first taken or refused. Refused, it changed nothing here and never will. Taken, it ends as
Applied, Superseded or Unknown, and nothing else (http-api: "an answer speaks of this arrival only").
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple


class Consistency(Enum):
    """How fresh a read must be; the names are those of the HTTP parameter."""

    LINEARIZABLE = "linearizable"
    FOLLOWER = "follower"
    LEASE = "lease"
    STALE = "stale"


class Leadership(NamedTuple):
    """Who leads, as this node knows it now."""

    leads: bool
    """This node leads and takes proposals."""
    term: int
    leader_id: str | None
    """Heard in this term within an election timeout; None: not known."""
    leader_url: str | None


class Why(Enum):
    """Why an arrival was refused before it could change anything."""

    NOT_LEADER = "not_leader"
    OVERLOADED = "overloaded"
    SHUTTING_DOWN = "shutting_down"
    DISK_FULL = "disk_full"
    REPLICAS_DISAGREE = "replicas_disagree"


@dataclass(slots=True)
class Refused:
    """Nothing of this arrival was appended."""

    why: Why
    leadership: Leadership


@dataclass(slots=True)
class Applied:
    """Committed and executed; ``answer`` is the state machine's own."""

    index: int
    answer: Any


@dataclass(slots=True)
class Superseded:
    """Another entry was committed at its index: it was not executed and never will be."""


@dataclass(slots=True)
class Unknown:
    """The deadline passed first: it may have happened, or may happen yet."""


WriteOutcome = Applied | Refused | Superseded | Unknown


@dataclass(slots=True)
class Answered:
    """A read's answer, from the state at ``index`` applied entries."""

    index: int
    answer: Any
    consistency: Consistency
    """What was really used."""
    staleness_ms: int | None = None
    """Of a stale read: at most this old; None: not known."""


@dataclass(slots=True)
class TooStale:
    """This node did not get as far as the bounds that the read set, and how far it is."""

    applied_index: int
    staleness_ms: int | None
    """None: not known."""
    min_index: int = 0
    """That was asked for."""
    max_staleness_ms: int | None = None
    """That was asked for; None: any."""
    is_loading: bool = False
    """A snapshot that this node was sent is taking the place of its state: there is none to read from now."""


@dataclass(slots=True)
class ReadTimedOut:
    """No majority confirmed the read in time. Nothing was changed; ask again."""


ReadOutcome = Answered | Refused | TooStale | ReadTimedOut


@dataclass(frozen=True, slots=True)
class Transferred:
    """That node leads now."""

    leader_id: str
    leader_url: str
    term: int
    changed: bool = True
    """False: it led already, nothing was done."""


class TransferWhy(Enum):
    """Why leadership was not handed over."""

    NOT_LEADER = "not_leader"
    NO_SUCH_MEMBER = "no_such_member"
    NOT_A_VOTER = "not_a_voter"
    NO_OTHER_VOTER = "no_other_voter"
    """No target was named, and no other voter could take over."""
    IN_PROGRESS = "in_progress"
    """Another transfer or a change of members is running."""
    TIMED_OUT = "timed_out"
    """It may still happen."""


@dataclass(frozen=True, slots=True)
class TransferRefused:
    """This node leads on, or never led."""

    why: TransferWhy


TransferOutcome = Transferred | TransferRefused


@dataclass(frozen=True, slots=True)
class SnapshotTaken:
    """A snapshot of everything that was applied when it was asked for is in place on this node."""

    index: int
    """Of the last entry in it."""
    size_bytes: int
    changed: bool
    """False: it was there already, and nothing was applied since."""


@dataclass(frozen=True, slots=True)
class SnapshotUnderWay:
    """It was waited for as long as was wanted; it goes on. Afterwards a snapshot of ``index`` or later is in place."""

    index: int


class SnapshotWhy(Enum):
    """Why no snapshot was taken."""

    NOTHING_APPLIED = "nothing_applied"
    LOADING = "loading"
    """One that was received is taking the place of this node's state."""
    DISK_FULL = "disk_full"
    FAILED = "failed"
    REPLICAS_DISAGREE = "replicas_disagree"
    SHUTTING_DOWN = "shutting_down"


@dataclass(frozen=True, slots=True)
class SnapshotRefused:
    """There is none of what was applied when it was asked for. The log has it all the same."""

    why: SnapshotWhy
    text: str
    """For people."""


SnapshotOutcome = SnapshotTaken | SnapshotUnderWay | SnapshotRefused
