"""What a node reports of its own troubles, under the names that ``GET /v1/diagnostics`` gives them.

Told: nothing. Tells: the vocabulary between the node and that route. May never know: how a node finds it out.

Every age is by the node's own monotonic clock, so that nobody's wall clock has a say. What is not known is None.
No key, no value and no secret is ever in it, and no list in it grows without bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

CHANGES_MAX: Final = 64
"""Of leadership; older ones are forgotten."""
CANDIDATES_MAX: Final = 16
STALLS_MAX: Final = 8
OUTAGES_MAX: Final = 8
"""Of one link."""


@dataclass(frozen=True, slots=True)
class MemberReport:
    """A member of the configuration in force; the last two only its leader knows."""

    id: str
    url: str | None
    """Where clients reach it; None: not known."""
    role: str
    """voter or learner."""
    match_index: int | None = None
    contact_age_ms: int | None = None
    """Since its newest answer in this term."""


@dataclass(frozen=True, slots=True)
class RefusalReport:
    """A peer that answers, and will not have us."""

    code: str
    detail: str
    age_ms: int


@dataclass(frozen=True, slots=True)
class FarewellReport:
    """What a peer said when it stopped; gone once it is heard again."""

    reason: str
    age_ms: int


@dataclass(frozen=True, slots=True)
class OutageReport:
    """A time in which a peer that answers again did not: over the link, or because it could not."""

    duration_ms: int
    age_ms: int
    """Since its end."""


@dataclass(frozen=True, slots=True)
class LinkReport:
    """This node's own connection to a peer. A link that is idle for a second is tried."""

    peer: str
    url: str
    connected: bool
    answer_age_ms: int | None
    """Since the peer answered anything; null: it never did."""
    heard_age_ms: int | None
    """Since the peer asked anything of us, over a connection of its own; null: it never did."""
    trouble: str | None
    """Why there is no connection or was no answer; null since the last answer."""
    refusal: RefusalReport | None
    complaint: str | None
    """Who answers at the peer's address instead of it."""
    farewell: FarewellReport | None
    outages: tuple[OutageReport, ...] = ()
    """The newest that are over, oldest first."""


@dataclass(frozen=True, slots=True)
class CandidateReport:
    """Somebody who asked for a vote, or whether he would get one, in the last minutes."""

    id: str
    term: int
    is_pre_vote: bool
    age_ms: int


@dataclass(frozen=True, slots=True)
class DiskReport:
    """The log's disk. Times of syncs are of whole batches in the last minute, in microseconds."""

    is_alive: bool
    """The thread that writes runs."""
    syncs_count: int
    sync_p50_us: int
    sync_p99_us: int
    sync_longest_us: int
    oldest_wait_ms: int
    """How long the oldest write, or what the disk is at, has been waiting now; 0: nothing does."""
    room_is_short: bool
    """There is no room for another segment: puts are refused."""
    free_bytes: int | None
    log_bytes: int
    snapshot_failure: str | None = None
    """Why the last attempt at a snapshot came to nothing; null: it did not, or there was none yet."""


@dataclass(frozen=True, slots=True)
class ChangeReport:
    """Something that befell leadership, newest last."""

    event: str
    term: int
    age_ms: int
    detail: str


@dataclass(frozen=True, slots=True)
class StallReport:
    """A time in which the event loop, and so all of this node but its disk thread, stood still."""

    duration_ms: int
    age_ms: int


@dataclass(frozen=True, slots=True)
class LoopReport:
    """The event loop: what it could not do in time."""

    stalls_count: int
    """Since the start."""
    stalls: tuple[StallReport, ...]
    """The newest, oldest first."""
    longest_turn_us: int
    """Of the pump, since the start."""


@dataclass(frozen=True, slots=True)
class FormationReport:
    """How the cluster came to be, as far as it did."""

    formed: bool
    waits_for: tuple[str, ...]
    problem: str | None
    """What will not mend by waiting, and what to do about it."""
    complaint: str | None = None
    """What this node says about another one's identity, or its own."""
    joins: bool = False
    """It was started to join a cluster, and belongs to none yet."""


@dataclass(frozen=True, slots=True)
class JoiningReport:
    """A node that is to vote, and does not yet."""

    id: str
    match_index: int | None
    """How far its leader knows it to hold the log; null: this is not the leader."""


@dataclass(frozen=True, slots=True)
class MembersChangeReport:
    """A change of members that is running."""

    phase: str
    """catching_up, joint or leaving."""
    joining: tuple[JoiningReport, ...]
    leaving: tuple[str, ...]
    demoted: tuple[str, ...]
    """Voters that become learners."""
    remaining_ms: int | None
    """Until those that have not caught up are taken out again; null: they have, or nobody joins."""
    last_index: int
    age_ms: int
    """Since this node has seen it run."""


@dataclass(frozen=True, slots=True)
class SettingsReport:
    """What should be the same on every node."""

    election_timeout_ms: int
    heartbeat_ms: int
    lease_reads: bool | None


@dataclass(frozen=True, slots=True)
class ReasonReport:
    """Why the node is not ready."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Diagnostics:
    """One node's view."""

    id: str
    url: str
    version: str
    cluster_id: str | None
    role: str
    term: int
    leader_id: str | None
    leader_age_ms: int | None
    """Since the leader of the present term was heard; at the leader itself 0."""
    commit_index: int
    applied_index: int
    last_index: int
    durable_index: int
    state_hash: str | None
    staleness_ms: int | None
    uptime_ms: int
    wall_clock_ms: int
    """This node's wall clock, since 1970; only to be compared with others'."""
    dead_because: str | None
    unready: tuple[ReasonReport, ...]
    disagreeing: tuple[str, ...]
    """Members that had another state at the same log index, as their leader knows; elsewhere none."""
    members: tuple[MemberReport, ...]
    links: tuple[LinkReport, ...]
    candidates: tuple[CandidateReport, ...]
    disk: DiskReport | None
    """null: the log is not open yet."""
    leadership: tuple[ChangeReport, ...]
    loop: LoopReport
    formation: FormationReport
    settings: SettingsReport
    change: MembersChangeReport | None = None
    """null: none is running."""
    removed_at: int | None = None
    """Where in the log this node knows itself to be no member any more; null: it is one, or never was."""
