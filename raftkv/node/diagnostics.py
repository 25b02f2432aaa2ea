"""What a node has noticed of itself and its peers, for whoever must find out what is wrong.

Told: by the node, each as it happens, the core's notes, who asks, who takes leave, the end of each turn; by its own
timer, how late it rings. Tells: ``/v1/diagnostics`` and the metrics. Everything here is bounded and costs the hot
path a few attribute reads a turn. It decides nothing.

Ten times a second the timer rings; how late says how long the event loop stood still. Once a second it has every
link tried that has been silent for so long: followers say nothing to each other while all is well, so that a cut
between them would be found only by the election that needs it.
"""

from __future__ import annotations

import logging
import time
from asyncio import AbstractEventLoop, TimerHandle
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from raftkv.api.reports import (
    CANDIDATES_MAX,
    CHANGES_MAX,
    OUTAGES_MAX,
    STALLS_MAX,
    CandidateReport,
    ChangeReport,
    Diagnostics,
    DiskReport,
    FarewellReport,
    FormationReport,
    JoiningReport,
    LinkReport,
    LoopReport,
    MemberReport,
    MembersChangeReport,
    OutageReport,
    ReasonReport,
    RefusalReport,
    SettingsReport,
    StallReport,
)
from raftkv.api.service import Status
from raftkv.config import NodeConfig
from raftkv.core.effects import Note
from raftkv.core.messages import Envelope, PreVoteRequest, RequestVote
from raftkv.core.raft import Raft
from raftkv.core.types import NodeId, Role
from raftkv.forming import Forming
from raftkv.node.clock import TurnMeter, now_us
from raftkv.node.disk import DiskThread
from raftkv.node.figures import Histogram
from raftkv.node.keeper import SnapshotKeeper
from raftkv.node.logs import event
from raftkv.node.peers import Peers
from raftkv.replica import Replica
from raftkv.transport.link import PeerLink

_LOG: Final = logging.getLogger("raftkv.node")
LOOK_EVERY_S: Final = 0.08
"""A little less than the default time between two heartbeats, whose turns do not come to the millisecond."""
RING_AFTER_S: Final = 0.15
"""Turns come with every heartbeat, and looks with them: an idle process wakes less. Without turns a timer rings."""
_NEVER_US: Final = 2**63
TRY_EVERY_LOOKS: Final = 10
SILENT_S: Final = 1.0
"""After so long without an answer a link is tried."""
OUTAGE_S: Final = 0.3
"""A connection that is lost and made again at once harms nobody."""
STALL_US: Final = 150_000
"""Half of the default election timeout. A loop that stands still for longer is a danger to its office."""
DISK_HANGS_US_MAX: Final = 120_000_000
"""After so long a disk is not waited for any more: the node says that it is not alive."""
PEERS_MAX: Final = 64
"""Of whom anything is kept; nobody has so many, but anybody may send a message."""
PROPOSALS_MAX: Final = 4096
"""Of which it is kept when they were made, until they are committed."""
LEADERSHIP_EVENTS: Final = frozenset(
    {"became_leader", "stepped_down", "follows", "stands", "transfer_began", "transfer_gave_up", "disk_stalled"}
)


class Change(NamedTuple):
    """Something that befell leadership."""

    event: str
    term: int
    at_us: int
    text: str


class Candidate(NamedTuple):
    """Somebody who asked for a vote."""

    id: NodeId
    term: int
    is_pre_vote: bool
    at_us: int


class Stall(NamedTuple):
    """The event loop stood still for so long, until then."""

    duration_us: int
    at_us: int


class Outage(NamedTuple):
    """A peer did not answer for so long, until then; by the loop's clock."""

    duration_s: float
    ended_at_s: float


class Said(NamedTuple):
    """Words, and when they were said."""

    text: str
    at_us: int


class Watch:
    """One node's memory of what happened to it. Belongs to the event loop."""

    def __init__(self, loop: AbstractEventLoop, *, clock: Callable[[], int] = now_us) -> None:
        self.changes: deque[Change] = deque(maxlen=CHANGES_MAX)
        self.stalls: deque[Stall] = deque(maxlen=STALLS_MAX)
        self.stalls_count = 0
        self.longest_stall_us = 0
        self.commits_us = Histogram()
        """How long each proposal of this leader took to be committed."""
        self.proposal_entries = Histogram()
        """How many entries each proposal had."""
        self._loop, self._clock = loop, clock
        self._candidates: dict[NodeId, Candidate] = {}
        self._heard_us: dict[NodeId, int] = {}
        self._farewells: dict[NodeId, Said] = {}
        self._complaints: dict[NodeId, Said] = {}
        self._links: Callable[[], list[tuple[PeerLink, str]]] = list
        self._silent_since_s: dict[NodeId, float] = {}
        """Whose silence is an outage already."""
        self._outages: dict[NodeId, deque[Outage]] = {}
        self._beats_s = 0.0
        """While this node leads, every peer should answer within so long; 0: it does not lead."""
        self._awake_since_s = 0.0
        self._timer: TimerHandle | None = None
        self._due_us = _NEVER_US
        self._looks = 0
        self._proposals: deque[tuple[int, int]] = deque(maxlen=PROPOSALS_MAX)
        """(last index, when it was made) of each that is not committed yet."""
        self._proposed_to = 0
        self._term = -1

    # ------------------------------------------------------------------------------- what it is told

    def start(self, links: Callable[[], list[tuple[PeerLink, str]]]) -> None:
        """From now on it looks at the clock, and tries silent links."""
        self._links = links
        self._look_later()

    def stop(self) -> None:
        """No timer is left, and none comes."""
        self._due_us = _NEVER_US
        if self._timer is not None:
            self._timer.cancel()

    def note(self, note: Note, term: int) -> None:
        """The core said something."""
        if note.event in LEADERSHIP_EVENTS:
            self.changes.append(Change(note.event, term, self._clock(), note.text))

    def heard(self, envelope: Envelope) -> None:
        """A member's message came, over a connection of its own."""
        sender, message = envelope.sender, envelope.message
        self.heard_from(sender)
        if isinstance(message, (PreVoteRequest, RequestVote)):
            self._candidates.pop(sender, None)
            if len(self._candidates) >= CANDIDATES_MAX:
                del self._candidates[next(iter(self._candidates))]
            is_pre_vote = isinstance(message, PreVoteRequest)
            self._candidates[sender] = Candidate(sender, message.term, is_pre_vote, self._clock())

    def heard_from(self, peer: NodeId) -> None:
        """It asked something of us, and so it lives."""
        if peer in self._heard_us or len(self._heard_us) < PEERS_MAX:
            self._heard_us[peer] = self._clock()
            if self._farewells:
                self._farewells.pop(peer, None)

    def took_leave(self, peer: NodeId, reason: str) -> None:
        """It stops, and says why."""
        if peer in self._farewells or len(self._farewells) < PEERS_MAX:
            self._farewells[peer] = Said(reason, self._clock())

    def complained(self, about: NodeId, text: str) -> None:
        """Somebody is not who he should be."""
        if about in self._complaints or len(self._complaints) < PEERS_MAX:
            self._complaints[about] = Said(text, self._clock())

    def is_right(self, peer: NodeId) -> None:
        """It is who it should be."""
        self._complaints.pop(peer, None)

    def turned(self, raft: Raft) -> None:
        """The replica has taken a turn: what was proposed, and what is committed now."""
        if self._clock() >= self._due_us:
            self._look(self._due_us)
        if raft.role is not Role.LEADER:
            self._beats_s = 0.0
            return
        self._beats_s = raft.state.settings.election_timeout_us / 1_000_000
        last_index, commit_index = raft.last_index, raft.commit_index
        if raft.term != self._term:
            self._term, self._proposed_to = raft.term, last_index
            self._proposals.clear()
            return
        if last_index > self._proposed_to:
            self.proposal_entries.add(last_index - self._proposed_to)
            self._proposals.append((last_index, self._clock()))
            self._proposed_to = last_index
        proposals = self._proposals
        if proposals and proposals[0][0] <= commit_index:
            at_us = self._clock()
            while proposals and proposals[0][0] <= commit_index:
                self.commits_us.add(at_us - proposals.popleft()[1])

    # ------------------------------------------------------------------------------------ what it tells

    def heard_age_ms(self, peer: NodeId) -> int | None:
        """Since the peer asked anything of this node; None: it never did."""
        at_us = self._heard_us.get(peer)
        return None if at_us is None else self.age_ms(at_us)

    def farewell_of(self, peer: NodeId) -> Said | None:
        """What the peer said when it stopped, unless it was heard since."""
        return self._farewells.get(peer)

    def complaints(self) -> list[str]:
        """Who is not who he should be, newest first."""
        return [said.text for said in sorted(self._complaints.values(), key=lambda said: -said.at_us)]

    def complaint_about(self, peer: NodeId) -> str | None:
        """The same of one peer."""
        said = self._complaints.get(peer)
        return None if said is None else said.text

    def candidates(self) -> tuple[Candidate, ...]:
        """Who asked for votes, the newest last."""
        return tuple(self._candidates.values())

    def outages_of(self, peer: NodeId) -> tuple[Outage, ...]:
        """The newest that are over, oldest first."""
        return tuple(self._outages.get(peer, ()))

    def loop_time_s(self) -> float:
        """Now, by the clock of the links."""
        return self._loop.time()

    def age_ms(self, at_us: int) -> int:
        """How long ago that was."""
        return max(0, self._clock() - at_us) // 1000

    # --------------------------------------------------------------------------------------- its timer

    def _look_later(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        at_us = self._clock()
        self._due_us, ring_us = at_us + round(LOOK_EVERY_S * 1_000_000), at_us + round(RING_AFTER_S * 1_000_000)
        self._timer = self._loop.call_later(RING_AFTER_S, self._look, ring_us)

    def _look(self, due_us: int) -> None:
        late_us = self._clock() - due_us
        if late_us >= STALL_US:
            self.stalls_count += 1
            self.longest_stall_us = max(self.longest_stall_us, late_us)
            self.stalls.append(Stall(late_us, self._clock()))
            _LOG.warning(
                "the event loop stood still for %d ms",
                late_us // 1000,
                extra=event("loop_stalled", duration_ms=late_us // 1000),
            )
            # What was answered meanwhile is read only now.
            self._awake_since_s = self._loop.time()
        self._note_outages()
        self._looks += 1
        if self._looks % TRY_EVERY_LOOKS == 0:
            self._try_silent_links()
        self._look_later()

    def _note_outages(self) -> None:
        """Whose silence is longer than the beat of this leader's heartbeats, or has made a link give up."""
        now_s = self._loop.time()
        for link, _ in self._links():
            answered_s, began_s = link.answered_at_s, self._silent_since_s.get(link.peer)
            if answered_s is None:
                continue
            if began_s is None:
                silent_s = now_s - max(answered_s, self._awake_since_s)
                if link.trouble or (self._beats_s and silent_s > self._beats_s):
                    self._silent_since_s[link.peer] = answered_s
            elif answered_s > began_s:
                del self._silent_since_s[link.peer]
                if answered_s - began_s >= OUTAGE_S:
                    outages = self._outages.setdefault(link.peer, deque(maxlen=OUTAGES_MAX))
                    outages.append(Outage(answered_s - began_s, answered_s))

    def _try_silent_links(self) -> None:
        now_s = self._loop.time()
        for link, _ in self._links():
            if link.answered_at_s is None or now_s - link.answered_at_s >= SILENT_S:
                link.introduce()


@dataclass(slots=True)
class Parts:
    """Those of a running node that know something; None until it takes part."""

    config: NodeConfig
    watch: Watch
    peers: Peers
    forming: Forming
    status: Callable[[], Status]
    change_age_ms: Callable[[], int]
    """For how long a change of members has been running."""
    replica: Replica | None = None
    disk: DiskThread | None = None
    snapshots: SnapshotKeeper | None = None
    turns: TurnMeter = field(default_factory=TurnMeter)


def report(parts: Parts) -> Diagnostics:
    """The node's own view, as it is now."""
    status, watch, config, replica = parts.status(), parts.watch, parts.config, parts.replica
    staleness_us = None if replica is None else replica.raft.state.staleness_us
    return Diagnostics(
        id=config.id,
        url=config.url,
        version=status.version,
        cluster_id=None if status.cluster_id is None else status.cluster_id.hex(),
        role=status.role,
        term=status.term,
        leader_id=status.leader_id,
        leader_age_ms=_leader_age_ms(replica),
        commit_index=status.commit_index,
        applied_index=status.applied_index,
        last_index=status.last_index,
        durable_index=0 if replica is None else replica.raft.durable_index,
        state_hash=None if status.state_hash is None else f"{status.state_hash:032x}",
        staleness_ms=None if staleness_us is None else staleness_us // 1000,
        uptime_ms=status.uptime_ms,
        wall_clock_ms=time.time_ns() // 1_000_000,
        dead_because=status.health.dead_because,
        unready=tuple(ReasonReport(reason.value, text) for reason, text in status.health.unready),
        disagreeing=() if replica is None else disagreeing(replica.raft),
        members=_members(parts, status),
        links=tuple(_link(link, url, parts) for link, url in parts.peers.links()),
        candidates=tuple(
            CandidateReport(each.id, each.term, each.is_pre_vote, watch.age_ms(each.at_us))
            for each in watch.candidates()
        ),
        disk=None if parts.disk is None else _disk(parts.disk, replica, watch),
        leadership=tuple(
            ChangeReport(each.event, each.term, watch.age_ms(each.at_us), each.text) for each in watch.changes
        ),
        loop=LoopReport(
            stalls_count=watch.stalls_count,
            stalls=tuple(StallReport(each.duration_us // 1000, watch.age_ms(each.at_us)) for each in watch.stalls),
            longest_turn_us=parts.turns.longest_us,
        ),
        formation=_formation(parts),
        settings=SettingsReport(
            config.raft.election_timeout_ms, config.raft.heartbeat_ms, getattr(config.raft, "lease_reads", None)
        ),
        change=_members_change(status, parts.change_age_ms()),
        removed_at=status.removed_at,
    )


def _members_change(status: Status, age_ms: int) -> MembersChangeReport | None:
    change = status.change
    if change is None:
        return None
    return MembersChangeReport(
        phase=change.phase,
        joining=tuple(JoiningReport(id, match_index) for id, match_index in change.joining),
        leaving=change.leaving,
        demoted=change.demoted,
        remaining_ms=change.remaining_ms,
        last_index=change.last_index,
        age_ms=age_ms,
    )


def why_disk_is_useless(disk: DiskThread, replica: Replica) -> str | None:
    """Why this node should be started anew for its disk's sake; None: it should not.

    A disk that is slow, or hangs for as long as networked ones do while they fail over, comes back by itself, and a
    start would have to read the whole log from it. One that has hung for two minutes often needs to be attached anew.
    """
    if not disk.is_alive:
        return "the thread that writes the log has ended"
    waits_us = oldest_wait_us(disk, replica)
    if waits_us > DISK_HANGS_US_MAX:
        return f"the disk has not finished a write for {waits_us // 1_000_000} s"
    return None


def oldest_wait_us(disk: DiskThread, replica: Replica | None) -> int:
    """How long the oldest write, or what the disk is at, has been waiting; 0: nothing does."""
    handed_out_us = None if replica is None else replica.raft.state.durability.oldest_write_us
    since = [at_us for at_us in (handed_out_us, disk.meter.busy_since_us) if at_us is not None]
    return max(0, now_us() - min(since)) if since else 0


def disagreeing(raft: Raft) -> tuple[NodeId, ...]:
    """Whose state differs from this leader's at the newest index at which both are known."""
    state, office = raft.state, raft.state.office
    if office is None:
        return ()
    index, state_hash = state.state_hash
    said = [(peer, progress.state_hash) for peer, progress in sorted(office.progress.items())]
    return tuple(peer for peer, (at, other) in said if at == index > 0 and other != state_hash)


def _leader_age_ms(replica: Replica | None) -> int | None:
    if replica is None or replica.raft.leader_id is None:
        return None
    state = replica.raft.state
    if state.office is not None:
        return 0
    heard_us = state.last_heard_leader_us
    return None if heard_us is None else max(0, now_us() - heard_us) // 1000


def _members(parts: Parts, status: Status) -> tuple[MemberReport, ...]:
    """Those of the configuration; before there is one, those that the operator listed."""
    if parts.replica is None:
        config = parts.config
        ids = sorted([config.id, *(id for id, _ in parts.forming.others())])
        urls = {**dict(parts.forming.others()), config.id: config.url}
        knows = config.url == config.peer_url
        return tuple(MemberReport(id, urls[id] if knows or id == config.id else None, "voter") for id in ids)
    return tuple(
        MemberReport(member.id, member.url, role, member.match_index, member.last_contact_ms)
        for role, members in (("voter", status.voters), ("learner", status.learners))
        for member in members
    )


def _link(link: PeerLink, url: str, parts: Parts) -> LinkReport:
    watch, peer = parts.watch, link.peer
    now_s = watch.loop_time_s()
    farewell = watch.farewell_of(peer)
    refusal = None
    if link.refusal is not None:
        at_s, code, detail = link.refusal
        refusal = RefusalReport(code, detail, round((now_s - at_s) * 1000))
    return LinkReport(
        peer=peer,
        url=url,
        connected=link.is_connected,
        answer_age_ms=None if link.answered_at_s is None else round((now_s - link.answered_at_s) * 1000),
        heard_age_ms=watch.heard_age_ms(peer),
        trouble=link.trouble or None,
        refusal=refusal,
        complaint=parts.peers.complaint_about(peer) or watch.complaint_about(peer),
        farewell=None if farewell is None else FarewellReport(farewell.text, watch.age_ms(farewell.at_us)),
        outages=tuple(
            OutageReport(round(each.duration_s * 1000), round((now_s - each.ended_at_s) * 1000))
            for each in watch.outages_of(peer)
        ),
    )


def _disk(disk: DiskThread, replica: Replica | None, watch: Watch) -> DiskReport:
    summary = disk.meter.recent_syncs_us.summary(now_us=now_us())
    return DiskReport(
        is_alive=disk.is_alive,
        syncs_count=summary.values_count,
        sync_p50_us=summary.p50,
        sync_p99_us=summary.p99,
        sync_longest_us=summary.longest,
        oldest_wait_ms=oldest_wait_us(disk, replica) // 1000,
        room_is_short=disk.room_is_short,
        free_bytes=disk.meter.free_bytes,
        log_bytes=disk.log_bytes,
        snapshot_failure=None if replica is None else replica.snapshots.trouble,
    )


def _formation(parts: Parts) -> FormationReport:
    complaints = parts.watch.complaints()
    complaint = complaints[0] if complaints else None
    if parts.replica is not None:
        return FormationReport(formed=True, waits_for=(), problem=None, complaint=complaint)
    forming = parts.forming
    return FormationReport(forming.is_formed, forming.waits_for, forming.problem, complaint, forming.joins)
