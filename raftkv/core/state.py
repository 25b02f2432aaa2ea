"""The variables of Figure 2, and what else a node keeps: what each means, who changes it.

The rooms election, replication, reads and transfer are functions over this one object; the facade
``raft.py`` calls them. Only two things change term, vote and role: ``adopt_term`` and the functions of
election.py. Whoever changes the log tells durability and the configurations in the same breath, which is
why that happens here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from raftkv import frames as framing
from raftkv.core import rules
from raftkv.core.durability import Durability
from raftkv.core.effects import (
    Committed,
    Exchange,
    LogBase,
    LogRead,
    Note,
    ReadReady,
    SnapshotRead,
    SnapshotWrite,
)
from raftkv.core.log import RaftLog
from raftkv.core.membership import Configurations
from raftkv.core.messages import Envelope, Reply, Request
from raftkv.core.outbox import Outbox
from raftkv.core.progress import Progress, StateHashes
from raftkv.core.settings import RaftSettings
from raftkv.core.types import ClusterId, Configuration, Incarnation, Index, Member, NodeId, Role, Round, Term

_FRESHNESS_KEPT_MAX = 64
"""A node that applies nothing for long forgets steps between, which only makes it say "older"."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this node is, for good: another incarnation under the same id is another node."""

    id: NodeId
    incarnation: Incarnation
    cluster_id: ClusterId


@dataclass(slots=True)
class Saved:
    """What a disk gave back at start. A fresh node: term 0, no vote, a base at 0, nothing after it."""

    base: LogBase
    term: Term = Term(0)
    voted_for: NodeId | None = None
    term_runs: Sequence[tuple[Index, Term]] = ()
    tail_first: Index | None = None
    """The first entry of ``tail``; None: the tail is the whole log after the base."""
    tail: Sequence[bytes] = ()
    configurations: Sequence[tuple[Index, Configuration]] = ()
    """Those in the log after the base, with their indexes."""
    snapshot: LogBase | None = None
    """The newest snapshot of this node's, from which the state machine was restored: all up to there is committed
    and applied. It stands in the log, or at its base; the base may be lower. None: the machine is at the base."""


@dataclass(slots=True)
class Campaign:
    """An election that this node has begun."""

    term: Term
    """That it stands in; while it only asks (PreVote), the one above its own."""
    is_pre_vote: bool
    granted: set[NodeId] = field(default_factory=set)
    refused: set[NodeId] = field(default_factory=set)


@dataclass(slots=True)
class WaitingRead:
    """A read that waits for its round: one of this node, or one that a follower asks for."""

    read_id: int
    asker: tuple[Exchange, Envelope] | None
    """The follower's open exchange and its request; None: our own."""


@dataclass(slots=True)
class OpenRound:
    """A read round that is under way."""

    round: Round
    sent_us: int
    read_index: Index
    """Who has applied this knows all that was acknowledged before the round was sent."""
    reads: list[WaitingRead]
    dates: dict[NodeId, tuple[int, int]]
    """For each follower: which of its lives, and what that one's clock showed by then, or less."""


@dataclass(slots=True)
class Transfer:
    """Leadership on its way to another node (thesis §3.10)."""

    target: NodeId
    deadline_us: int
    told: bool = False
    """TimeoutNow went out."""


@dataclass(slots=True)
class Departing:
    """A member that the newest configuration does not list: it is told so before it is forgotten."""

    member: Member
    index: Index
    """Of the configuration that lists it no more; nothing after it is sent to it."""
    committed_us: int | None = None
    """When that was seen to be committed."""
    round: Round | None = None
    """A heartbeat with this number tells it that."""


@dataclass(slots=True)
class Office:
    """What only a leader keeps; it is thrown away with the office."""

    term_start: Index
    """The index of the no-op that began this term."""
    began_us: int
    progress: dict[NodeId, Progress]
    next_heartbeat_us: int
    last_round: Round = Round(0)
    unregistered_reads: list[WaitingRead] = field(default_factory=list)
    """Reads that no round covers yet."""
    rounds: list[OpenRound] = field(default_factory=list)
    """Oldest first."""
    newest_confirmed: OpenRound | None = None
    """The newest round that a majority has echoed."""
    transfer: Transfer | None = None
    lease_forgone: bool = False
    """TimeoutNow went out in this term: votes are no longer withheld from everybody else."""
    has_majority_until_us: int = 0
    """As far as is known: each of its voters that is heard later puts it off; other voters make it 0."""
    stall_noted: bool = False
    agreed_hashes: StateHashes = field(default_factory=StateHashes)
    """What a majority of voters has, by index."""
    disagreement_noted: bool = False
    members: dict[NodeId, Member] = field(default_factory=dict)
    """Everybody else in the configuration in force; each has a progress."""
    departing: dict[NodeId, Departing] = field(default_factory=dict)
    """Those that left and are still told so have one too."""
    no_change_at: Index | None = None
    """With the configuration that stands there nothing is left to be done: the hot path need not look again."""
    change_is_forced: bool = False
    """Whoever asked for the change that runs wants it also if that leaves no majority in contact."""
    asked_around: tuple[Index, Round, int] | None = None
    """The round that was sent, and when, since all had caught up by the configuration at that index."""

    def members_are(self, members: Mapping[NodeId, Member], *, next_index: Index, index: Index, now_us: int) -> None:
        """The configuration at ``index`` is in force: who is new is probed from there on, who left is to be told so."""
        for id, member in self.members.items():
            if id not in members:
                self.departing[id] = Departing(member, index)
                self.progress[id].next_index = min(self.progress[id].next_index, index)
        for id, member in members.items():
            known = self.departing[id].member if id in self.departing else self.members.get(id)
            if known is None or known.incarnation != member.incarnation:
                self.progress[id] = Progress(next_index=next_index, last_contact_us=now_us)
            self.departing.pop(id, None)
        self.members = dict(members)
        self.has_majority_until_us = 0
        self.progress = dict(sorted(self.progress.items()))
        for progress in self.progress.values():
            progress.catch_up_anew()


@dataclass(slots=True)
class Receiving:
    """A snapshot that a leader sends here."""

    write: SnapshotWrite
    """The newest piece that was given to the shell."""
    asker: tuple[Exchange, Envelope] | None
    """The open exchange, and its request, that gets this write's answer; None: it has been answered."""
    wanted_offset: int = 0
    """Where the partial file ended when the shell last said so."""


@dataclass(slots=True)
class SnapshotState:
    """What this node holds, sends and receives. Changed by snapshots.py."""

    index: Index
    """Of the newest snapshot that this node holds; 0: none."""
    compact_through: Index | None = None
    """The log may begin later, as soon as nobody needs what stands before; None: it begins where it should."""
    receiving: Receiving | None = None
    loading: Index | None = None
    """A received snapshot that the state machine does not hold yet; until then nothing is handed out."""
    # Work for others.
    reads: list[SnapshotRead] = field(default_factory=list)
    writes: list[tuple[Term, SnapshotWrite]] = field(default_factory=list)
    """Each waits for the term that it came in to be on stable storage."""
    load: Index | None = None
    drop_log_through: Index | None = None


@dataclass(slots=True)
class AskedRead:
    """A read index that this follower asked its leader for."""

    leader: NodeId
    asked_us: int


class State:
    """One node. Everything here can be read by anyone; the rooms of the core alone write it."""

    def __init__(self, me: Identity, settings: RaftSettings, saved: Saved, rng: Random) -> None:
        self.me = me
        self.settings = settings
        self.rng = rng
        self.now_us = 0
        # Persistent (Figure 2). Changed by adopt_term and vote_for; stored before anything rests on them.
        self.current_term = saved.term
        self.voted_for = saved.voted_for
        restored = saved.snapshot or saved.base
        self.log = RaftLog(
            base_index=saved.base.index,
            base_term=saved.base.term,
            term_runs=saved.term_runs,
            memory_first=saved.tail_first,
            frames=saved.tail,
        )
        self.configurations = Configurations(saved.base.index, saved.base.configuration, saved.configurations)
        # Volatile on all (Figure 2). Neither ever falls.
        self.commit_index = restored.index
        self.handed_index = restored.index
        """Entries up to here were handed out to be applied."""
        self.applied_index = restored.index
        """Entries up to here are in the state machine; told by the shell."""
        self.hashes = StateHashes()
        """The machine's hash at the newest multiples of 1,024, and where it stood; told by the shell."""
        self.disagrees_at: Index | None = None
        """Where a majority of voters was found to have another state. Changed by hashes.py, never back."""
        self.agrees_at = Index(0)
        """The newest index at which a majority of voters was found to have the state that this node had there (0: none
        yet). Changed by hashes.py."""
        # Who leads. Changed by election.py.
        self.role = Role.FOLLOWER
        self.leader_id: NodeId | None = None
        self.last_heard_leader_us: int | None = None
        self.may_have_promised = rules.vote_may_be_promised(saved_term=saved.term, leases=settings.lease_reads)
        """An earlier life of this node may have answered a leader until it stopped."""
        self.began_us: int | None = None
        """When this life first saw the time."""
        self.freshness: deque[tuple[Index, int]] = deque()
        """(commit index, time as of which a confirmed leader had no later one), both rising."""
        self.election_deadline_us: int | None = None
        self.campaign: Campaign | None = None
        self.office: Office | None = None
        # Members. Changed by changes.py and election.py.
        self.cluster_time_ms = 0
        """The cluster's time, told by the shell."""
        self.settled_at = Index(0)
        """The newest configuration that was in force and seen to be committed."""
        self.told_removed_at: Index | None = None
        """The end of this log when a voter said that this node is no member any more; void once a leader is heard."""
        # Work for others.
        self.durability = Durability(durable_index=self.log.last_index, durable_vote=(saved.term, saved.voted_for))
        self.outbox = Outbox()
        self.asked_reads: dict[int, AskedRead] = {}
        self.commits: list[Committed] = []
        self.log_reads: list[LogRead] = []
        self.apply_read_under_way = False
        self.read_to_apply: list[bytes] = []
        """Committed entries that came back from disk, of which the first is the next to be handed out."""
        self.snapshots = SnapshotState(restored.index)
        self.reads_ready: list[ReadReady] = []
        self.reads_failed: list[int] = []
        self.notes: list[Note] = []
        self._hold_to(restored)

    def _hold_to(self, restored: LogBase) -> None:
        """A snapshot of entries whose term was not yet stored when this node stopped proves that term all the same."""
        assert self.log.term_at(restored.index) == restored.term, f"the log does not hold the snapshot's {restored}"
        if rules.term_is_news(theirs=restored.term, ours=self.current_term):
            self.set_term_and_vote(restored.term, None)

    # -- what is asked again and again

    @property
    def voter_sets(self) -> tuple[frozenset[NodeId], ...]:
        """Of the configuration in force: the newest in the log, committed or not (paper §6)."""
        return self.configurations.voter_sets

    @property
    def is_voter(self) -> bool:
        """Whether this node, in this incarnation, votes in the configuration in force."""
        return rules.is_voter(self.voter_sets, self.me.id) and self.is_listed

    @property
    def is_listed(self) -> bool:
        """Whether this node, in this incarnation, is a member by the configuration in force."""
        return self.configurations.is_listed(self.me.id, self.me.incarnation)

    @property
    def configuration_is_committed(self) -> bool:
        """Whether the configuration in force is known to be committed."""
        return self.configurations.current_index <= self.commit_index

    @property
    def may_stand(self) -> bool:
        """Whether an election is this node's to begin: it votes, or did before a configuration that may be undone."""
        if not self.is_listed and self.me.id in self.configurations.members:
            return False
        before = None if self.configuration_is_committed else self.configurations.before
        sets_before = before[1].voter_sets() if before is not None and _lists(before[1], self.me) else ()
        return rules.may_stand(self.voter_sets, self.me.id, voter_sets_before=sets_before)

    @property
    def removed_at(self) -> Index | None:
        """Where this node knows itself to be no member any more; None: it is one, or never was."""
        if self.is_listed or _lists(self.configurations.at(self.commit_index), self.me):
            return self.told_removed_at
        if self.configurations.was_listed(self.me.id, self.me.incarnation, through=self.commit_index):
            return self.configurations.index_at(self.commit_index)
        return self.told_removed_at

    @property
    def is_known_to_be_removed(self) -> bool:
        """Whether its own log says so, beyond doubt: nobody need be asked."""
        return self.removed_at is not None and self.told_removed_at is None

    @property
    def idle_role(self) -> Role:
        """What this node is when it neither stands nor leads."""
        return Role.FOLLOWER if self.may_stand and self.told_removed_at is None else Role.LEARNER

    def configuration_changed(self) -> None:
        """Another configuration is in force: this node's role is by that, and a leader speaks to all its members."""
        if self.role in (Role.FOLLOWER, Role.LEARNER):
            self.role = self.idle_role
        if self.office is not None:
            next_index = max(self.office.term_start, index := self.configurations.current_index)
            self.office.members_are(self.other_members(), next_index=next_index, index=index, now_us=self.now_us)

    def other_members(self) -> dict[NodeId, Member]:
        """Everybody else in the configuration in force, in order of id."""
        return {id: member for id, member in self.configurations.members.items() if id != self.me.id}

    @property
    def state_hash(self) -> tuple[Index, bytes]:
        """The newest hash of this node's state, and its index."""
        return self.hashes.newest

    def has_left(self, peer: NodeId) -> bool:
        """Whether this leader knows that peer to have left for good: it tells it so, or does not any more."""
        if self.office is None:
            return False
        left = self.office.departing.get(peer)
        return peer not in self.office.progress or (left is not None and left.committed_us is not None)

    def last_index_for(self, peer: NodeId) -> Index:
        """The last entry that this leader sends to that peer: who left gets the configuration that says so, no more."""
        left = None if self.office is None else self.office.departing.get(peer)
        return self.log.last_index if left is None else left.index

    def other_voters(self) -> list[NodeId]:
        """Everybody else who votes, in order of id."""
        return [voter for voter in self.configurations.voters if voter != self.me.id]

    def with_own(self, values: dict[NodeId, int], own: int) -> dict[NodeId, int]:
        """The peers' values and this node's own, which counts only where it is a voter."""
        if self.is_voter:
            values[self.me.id] = own
        return values

    def note(self, event: str, text: str) -> None:
        """Tells people."""
        self.notes.append(Note(event, text))

    @property
    def life(self) -> int:
        """When this life began; hardly when another did, though a reboot sets the clock back. Never 0."""
        assert self.began_us is not None, "time comes in before anything else"
        return self.began_us + 1

    def note_freshness(self, commit: Index, *, as_of_us: int) -> None:
        """Who has applied ``commit`` holds everything that was acknowledged before ``as_of_us``.

        Late news stands before what is newer, and takes nothing of it back.
        """
        place = len(self.freshness)
        while place and self.freshness[place - 1][1] >= as_of_us:
            place -= 1
            if self.freshness[place][0] <= commit:
                return
            if self.freshness[place][1] == as_of_us:
                del self.freshness[place]
        self.freshness.insert(place, (commit, as_of_us))
        if len(self.freshness) > _FRESHNESS_KEPT_MAX:
            # Not an old one: a node that always lags a little must come to the next before that is forgotten.
            del self.freshness[-2]
        while len(self.freshness) > 1 and self.freshness[1][0] <= self.applied_index:
            self.freshness.popleft()

    @property
    def staleness_us(self) -> int | None:
        """How old, at most, what is applied here can be; None: nothing is known of it (design: reading)."""
        if self._decides_alone and self.applied_index == self.commit_index:
            return 0
        fresh_us = None
        for commit, as_of_us in self.freshness:
            if commit <= self.applied_index:
                fresh_us = as_of_us
        return None if fresh_us is None else max(0, self.now_us - fresh_us)

    @property
    def _decides_alone(self) -> bool:
        """Whether this leader is the only voter: whatever was acknowledged in its term, it has committed itself."""
        if self.office is None or not self.is_voter or self.other_voters():
            return False
        return self.log.term_at(self.commit_index) == self.current_term

    # -- messages

    def request(self, to: NodeId, message: Request) -> Envelope:
        """The envelope of a request to a member, or to one that left and is still told so."""
        member = self.configurations.members.get(to)
        if member is None:
            assert self.office is not None, f"{to} is no member"
            member = self.office.departing[to].member
        return Envelope(self.me.cluster_id, self.me.id, self.me.incarnation, to, member.incarnation, message)

    def answer(self, request: Envelope, reply: Reply) -> Envelope:
        """The envelope of a reply to whoever asked."""
        return Envelope(
            self.me.cluster_id, self.me.id, self.me.incarnation, request.sender, request.sender_incarnation, reply
        )

    # -- term, vote and log: each change is told to the disk at once

    def set_term_and_vote(self, term: Term, voted_for: NodeId | None) -> None:
        """Figure 2's persistent pair. A term never falls; a vote never changes within one."""
        assert term > self.current_term or (term == self.current_term and self.voted_for in (None, voted_for))
        self.current_term, self.voted_for = term, voted_for
        self.durability.vote_changed((term, voted_for))

    def append(self, frames: list[bytes]) -> None:
        """Puts entries at the end of the log; a configuration among them is in force at once (paper §6)."""
        self.log.append(frames)
        configuration, at = framing.EntryKind.CONFIGURATION, framing.KIND_OFFSET
        for frame in [frame for frame in frames if frame[at] == configuration]:
            index = Index(framing.term_and_index(frame)[1])
            self.configurations.append(index, Configuration.decode(framing.body(frame)))
            self.configuration_changed()
        self.durability.appended(frames, last_index=self.log.last_index)

    def truncate_from(self, index: Index) -> None:
        """Removes entries that conflict with the leader's; a configuration among them is undone (paper §6)."""
        assert index > self.commit_index, f"committed entry {index} would be truncated (commit {self.commit_index})"
        self.note("truncated", f"{self.me.id}: entries from {index} to {self.log.last_index} gave way to the leader's")
        self.log.truncate_from(index)
        self.configurations.truncate_from(index)
        self.configuration_changed()
        self.durability.truncated(index)

    def compact(self, through: Index) -> None:
        """The log begins after ``through``, which a snapshot of this node's own holds."""
        assert through <= self.applied_index
        self.log.compact(through)
        self.configurations.compact(through)
        self.snapshots.drop_log_through = through

    def begin_log_anew(self, base: LogBase) -> None:
        """A leader's snapshot takes the place of the whole log; its configuration counts (paper §7, Figure 13)."""
        committed, last = self.commit_index, self.log.last_index
        assert base.index > committed, f"a snapshot at {base.index} over what is committed ({committed})"
        if last > committed:
            self.note("truncated", f"{self.me.id}: entries from {committed + 1} to {last} gave way to a snapshot")
        self.configurations.begin_anew(base.index, base.configuration, committed=committed)
        self.log.begin_anew(base.index, base.term)
        self.configuration_changed()
        self.durability.base_changed(base)


def _lists(configuration: Configuration, me: Identity) -> bool:
    member = configuration.members().get(me.id)
    return member is not None and member.incarnation == me.incarnation
