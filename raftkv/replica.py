"""One replica: the core, the state machine, and the clients that wait. Still no IO.

Told: submissions and reads, peers' messages, the disk's word, the time. Tells: what is to be written and
sent, and every waiting client what became of its request. May never know: sockets, files, HTTP.

It is driven by turns. Whatever arrives only enqueues; ``turn`` makes one proposal of all writes that
wait, one read round of all reads, applies what is committed, and answers whoever can be answered. While
a write or a request is in flight, work gathers for the next turn: batches make themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, Final

from raftkv import frames as framing
from raftkv import stamps
from raftkv.changing import Changing, Said
from raftkv.comparing import Comparing
from raftkv.core.effects import (
    Committed,
    DiskWrite,
    Effects,
    Exchange,
    LogRead,
    Note,
    SnapshotPiece,
    SnapshotRead,
)
from raftkv.core.messages import Envelope
from raftkv.core.raft import Raft
from raftkv.core.types import Index, Member, NodeId, Role, Ticket
from raftkv.errors import ConfigError, MessageError, Misdirected
from raftkv.members import MembersDone, Terms, Wish
from raftkv.outcomes import (
    Answered,
    Consistency,
    Leadership,
    ReadOutcome,
    ReadTimedOut,
    Refused,
    TooStale,
    TransferOutcome,
    Why,
)
from raftkv.snapshotting import BegunLoading, Restored, SnapshotSettings, Snapshotting, SnapshotWork
from raftkv.state_machine import StateMachine
from raftkv.transferring import Transferring
from raftkv.waiting import ReadDone, WaitingRead, WaitingReads, WaitingWrite, WaitingWrites, WriteDone, expire_reads

HASH_INTERVAL: Final = 1024
"""State hashes are compared at every multiple of this index, and where nothing comes."""


@dataclass(frozen=True, slots=True)
class ReplicaSettings:
    """Bounds on what clients may have in flight; validated when made."""

    request_timeout_ms: int = 5000
    """After that a write's outcome is unknown, and a read has failed."""
    proposals_in_flight_max: int = 20_000
    """Writes taken and not answered; beyond, they are refused at once."""
    proposal_bytes_in_flight_max: int = 64 * 1024 * 1024
    """The same in bytes."""
    reads_in_flight_max: int = 20_000
    """Reads taken and not answered."""
    member_catch_up_timeout_ms: int = 300_000
    """A node that is to vote and has not caught up by then is taken out again."""
    hash_interval_entries: int = HASH_INTERVAL
    """The same at all nodes; another one in simulations, whose logs are short."""

    def __post_init__(self) -> None:
        problems = [f"{one.name} must be at least 1" for one in fields(self) if getattr(self, one.name) < 1]
        if problems:
            raise ConfigError(problems)


@dataclass(slots=True)
class Work:
    """What a turn wants done by the shell; as the core's effects, less what the replica does itself."""

    persist: list[DiskWrite] = field(default_factory=list)
    requests: list[Envelope] = field(default_factory=list)
    replies: list[tuple[Exchange, Envelope]] = field(default_factory=list)
    refusals: list[tuple[Exchange, Misdirected | MessageError]] = field(default_factory=list)
    """Exchanges whose request no node of ours would have sent to this one."""
    read_log: list[LogRead] = field(default_factory=list)
    snapshots: SnapshotWork = field(default_factory=SnapshotWork)
    drop_log_through: Index | None = None
    """Entries up to here may go from the disk."""
    notes: list[Note] = field(default_factory=list)
    deadline_us: int | None = None


class Replica:
    """Drives one Raft and one state machine."""

    def __init__(
        self,
        raft: Raft,
        machine: StateMachine,
        settings: ReplicaSettings | None = None,
        *,
        clock: Callable[[], int] | None = None,
        snapshot_settings: SnapshotSettings | None = None,
        restored: Restored | None = None,
    ) -> None:
        """``clock`` reads the clock that ``turn`` is given the time of: a lease is believed by a new reading only.

        ``restored``: the snapshot that the machine holds already; None: the machine is empty.
        """
        self.raft = raft
        self.machine = machine
        self.settings = settings or ReplicaSettings()
        self.shutting_down = False
        """New writes are refused; those that wait are still answered."""
        self.disk_is_short = False
        """Only writes that free space are taken; told by the shell."""
        self.client_url_of: Callable[[Member], str | None] = lambda member: member.url
        """Where clients reach a member; None: not known. Told by the shell: the log has where nodes reach it."""
        self.last_stamp_ms = 0 if restored is None else restored.stamp_ms
        """Cluster time as of the last applied command."""
        self._comparing = Comparing(raft, machine, interval_entries=self.settings.hash_interval_entries)
        self.snapshots = Snapshotting(raft, machine, snapshot_settings or SnapshotSettings(), restored)
        assert clock is not None or not raft.state.settings.lease_reads, "leases rest on a clock"
        self._clock = clock
        self._now_us = 0
        self._clock_base: tuple[int, int, int] | None = None
        """(term, stamp, own clock) since when this leader adds its own clock to the cluster's time."""
        self._inbox: list[tuple[Envelope, Exchange | None]] = []
        self._failures: list[Envelope] = []
        self._submitted: list[WaitingWrite] = []
        self._submitted_bytes = 0
        self._writes = WaitingWrites()
        self._unasked_reads: list[WaitingRead] = []
        self._failed_reads: list[WaitingRead] = []
        """Reads of followers whose question was lost, to be asked anew …"""
        self._ask_again_us = 0
        """… at this time: a link that fails at once would be asked in a circle."""
        self._asked_reads: dict[int, list[WaitingRead]] = {}
        self._indexed_reads = WaitingReads()
        """Reads that wait for an index to be applied here."""
        self._reads_count = 0
        self._read_id = 0
        self._tick_term = 0
        """The last in which a tick was proposed, if nothing was heard of it yet; else 0."""
        self._when_idle: Callable[[], None] | None = None
        self._leads: Leadership | None = None
        """What this leader says of itself until its next turn, in which alone it can lose its office; None: it must be
        looked up. Writes taken by it are refused in that turn all the same where it hands over."""
        self._transfers = Transferring(raft, self._url_of)
        self._changes = Changing(self, catch_up_timeout_ms=self.settings.member_catch_up_timeout_ms)

    # ------------------------------------------------------------------------------ clients come in

    def leadership(self) -> Leadership:
        """Who leads, as this node knows it now; a leader that was not heard lately is not named."""
        if self._leads is not None:
            return self._leads
        raft = self.raft
        if raft.role is Role.LEADER:
            return self._own_leadership(leads=raft.takes_proposals)
        now_us = self._now_us if self._clock is None else self._clock()
        leader = raft.leader_id if raft.heard_leader_lately(now_us) else None
        url = None if leader is None else self._url_of(leader)
        return Leadership(leads=False, term=raft.term, leader_id=leader, leader_url=url)

    def _own_leadership(self, *, leads: bool) -> Leadership:
        me = self.raft.state.me.id
        return Leadership(leads, self.raft.term, me if leads else None, self._url_of(me) if leads else None)

    def submit(self, command: bytes, done: WriteDone, *, frees_space: bool = False) -> None:
        """Takes the command into the next proposal, or refuses it at once; ``done`` is called exactly once."""
        why = self._why_not_now(len(command), frees_space=frees_space)
        if why is not None:
            done(Refused(why, self.leadership()))
            return
        self._submitted.append(WaitingWrite(command, done, self._deadline()))
        self._submitted_bytes += len(command)

    def read(
        self,
        query: Any,
        consistency: Consistency,
        done: ReadDone,
        *,
        min_index: int = 0,
        max_staleness_ms: int | None = None,
    ) -> None:
        """Answers the query as fresh as asked for; ``done`` is called exactly once, at once or later."""
        read = WaitingRead(query, consistency, self._counted(done), self._deadline(), min_index, max_staleness_ms)
        self._reads_count += 1
        if self.raft.disagrees_at is not None and not self._belongs_to_a_leader(consistency):
            read.done(Refused(Why.REPLICAS_DISAGREE, self.leadership()))
        elif self._reads_count > self.settings.reads_in_flight_max:
            read.done(Refused(Why.OVERLOADED, self.leadership()))
        elif consistency is Consistency.STALE:
            self._indexed_reads.add([read], need=min_index)
        elif self._belongs_to_a_leader(consistency) and self.raft.role is not Role.LEADER:
            read.done(Refused(Why.NOT_LEADER, self.leadership()))
        else:
            self._unasked_reads.append(read)

    @staticmethod
    def _belongs_to_a_leader(consistency: Consistency) -> bool:
        return consistency not in (Consistency.FOLLOWER, Consistency.STALE)

    def transfer_leadership(self, target: NodeId | None, done: Callable[[TransferOutcome], None]) -> None:
        """Hands over to that voter, or to the best placed; ``done`` hears who leads, or why nobody else does."""
        self._transfers.ask(target, done, deadline_us=self._deadline())

    def change_members(self, wish: Wish, said: Said, terms: Terms, done: MembersDone) -> None:
        """Has the members be as wished; ``said``: what those who had to be asked said of themselves."""
        self._changes.ask(wish, said, terms, done, now_us=self._now_us)

    def when_idle(self, done: Callable[[], None]) -> None:
        """``done`` is called once no write waits any more."""
        self._when_idle = done

    @property
    def lease_reads(self) -> bool:
        """Whether the operator turned leases on at this node."""
        return self.raft.state.settings.lease_reads

    @property
    def writes_in_flight(self) -> int:
        """Taken and not answered."""
        return len(self._writes) + len(self._submitted)

    @property
    def reads_in_flight(self) -> int:
        """Taken and not answered."""
        return self._reads_count

    # ---------------------------------------------------------------------------- the world comes in

    def receive(self, envelope: Envelope, exchange: Exchange | None = None) -> None:
        """A peer's message; a request comes with its open exchange."""
        self._inbox.append((envelope, exchange))

    def delivery_failed(self, envelope: Envelope) -> None:
        """A request of ours will never be answered."""
        self._failures.append(envelope)

    def persisted(self, ticket: Ticket) -> None:
        """This disk work, and all before it, is on stable storage."""
        self.raft.persisted(ticket)

    def log_was_read(self, read: LogRead, frames: list[bytes]) -> None:
        """What a ``read_log`` of an earlier turn found."""
        self.raft.log_was_read(read, frames)

    def snapshot_was_read(self, read: SnapshotRead, piece: SnapshotPiece | None) -> None:
        """What a ``snapshots.reads`` of an earlier turn found; None: there is no such file any more."""
        self.raft.snapshot_was_read(read, piece)

    def snapshot_was_loaded(self, loaded: BegunLoading, stamp_ms: int) -> bool:
        """Whether the machine holds it now. What became of writes that wait for entries in it nobody can say here."""
        if not self.snapshots.was_loaded(loaded):
            return False
        self.last_stamp_ms = max(self.last_stamp_ms, stamp_ms)
        self._writes.give_up(through=loaded.index)
        return True

    # ------------------------------------------------------------------------------------ one turn

    def turn(self, now_us: int) -> Work:
        """Does everything that can be done now, and says what the shell is to do."""
        self._now_us = max(self._now_us, now_us)
        self._leads = None
        work = Work()
        self.raft.elapse(self._now_us)
        self._hear(work)
        if self.raft.disagrees_at is not None:
            self._serve_nothing()
        self._propose()
        self._ask_reads()
        self.raft.cluster_time_ms = self._changes.time_ms()
        self._changes.begin(self._now_us)
        effects = self.raft.take()
        for committed in effects.apply:
            self._apply(committed)
        if not self.snapshots.is_loading:
            self._comparing.stands(now_us=self._now_us)
        self.snapshots.room_is_short = self.disk_is_short
        work.snapshots = self.snapshots.turn(
            effects, now_us=self._now_us, stamp_ms=self.last_stamp_ms, may_begin=not self.shutting_down
        )
        if self.raft.disagrees_at is not None:
            self._serve_nothing()
        self._settle_reads(effects)
        self._transfers.settle(self._now_us)
        self._changes.settle(self._now_us)
        self._expire()
        if self._when_idle is not None and self.writes_in_flight == 0:
            done, self._when_idle = self._when_idle, None
            done()
        work.persist, work.requests, work.replies = effects.persist, effects.requests, effects.replies
        work.read_log, work.drop_log_through = effects.read_log, effects.drop_log_through
        work.notes += effects.notes
        work.deadline_us = self._next_deadline_us(effects.deadline_us)
        self._leads = self._own_leadership(leads=True) if self.raft.takes_proposals else None
        return work

    def _hear(self, work: Work) -> None:
        inbox, self._inbox = self._inbox, []
        for envelope, exchange in inbox:
            try:
                self.raft.receive(envelope, exchange)
            except (Misdirected, MessageError) as error:
                work.notes.append(Note("refused_message", str(error)))
                if exchange is not None:
                    work.refusals.append((exchange, error))
        failures, self._failures = self._failures, []
        for envelope in failures:
            self.raft.delivery_failed(envelope)

    def _propose(self) -> None:
        """One proposal of everything that waits."""
        if not self.raft.takes_proposals:
            self._refuse_submitted()
            return
        self._submit_tick_if_due()
        if not self._submitted:
            return
        submitted, self._submitted, self._submitted_bytes = self._submitted, [], 0
        commands = [write.command for write in submitted]
        first = self.raft.propose(stamps.bodies(commands, time_ms=self.cluster_time_ms()))
        self._writes.add(submitted, first_index=first, term=self.raft.term)

    def _refuse_submitted(self) -> None:
        submitted, self._submitted, self._submitted_bytes = self._submitted, [], 0
        for write in submitted:
            write.done(Refused(Why.NOT_LEADER, self.leadership()))

    def _ask_reads(self) -> None:
        """One request of everything that waits."""
        if self._failed_reads and self._now_us >= self._ask_again_us:
            # Who asked first stands first: by the first of a question it is known when its next read is too late.
            self._unasked_reads[:0], self._failed_reads = self._failed_reads, []
        if self._unasked_reads and self.lease_reads:
            self._try_lease()
        if self._unasked_reads:
            self._read_id += 1
            self._asked_reads[self._read_id], self._unasked_reads = self._unasked_reads, []
            self.raft.request_read(self._read_id)

    def _try_lease(self) -> None:
        """Lease reads wait for what is committed by now to be applied; without a lease they ask like the others."""
        unasked, self._unasked_reads = self._unasked_reads, []
        holds = self.raft.holds_lease(self._now_us)
        for read in unasked:
            if read.consistency is Consistency.LEASE and holds and not read.lease_ran_out:
                read.lease_term = self.raft.term
                self._indexed_reads.add([read], need=self.raft.commit_index)
            else:
                self._unasked_reads.append(read)

    # ------------------------------------------------------------------------------------- applying

    def _apply(self, committed: Committed) -> None:
        """Executes the entries; stops at every multiple of the interval to note the state's hash."""
        first, frames = committed
        self.snapshots.applied(sum(map(len, frames)))
        while frames:
            count = self._comparing.until_next(first)
            self._apply_batch(first, frames[:count])
            first, frames = Index(first + count), frames[count:]

    def _apply_batch(self, first: Index, frames: list[bytes]) -> None:
        entries, passed, self.last_stamp_ms = stamps.entries(frames, first, time_ms=self.last_stamp_ms)
        answers = self.machine.apply_batch(entries)
        assert len(answers) == len(entries), "the state machine answered another number than it was given"
        last = Index(first + len(frames) - 1)
        self.raft.applied(last)
        self._comparing.applied(last, now_us=self._now_us)
        if self.raft.disagrees_at is not None:
            self._serve_nothing()
        if len(self._writes):
            for entry, answer in zip(entries, answers, strict=True):
                term, _ = framing.term_and_index(frames[entry.log_index - first])
                self._writes.applied(entry.log_index, term, answer)
            for index in passed:
                self._writes.passed(index)

    # ---------------------------------------------------------------------------------------- reads

    def _settle_reads(self, effects: Effects) -> None:
        for read_id in effects.reads_failed:
            self._read_failed(self._asked_reads.pop(read_id, []))
        for ready in effects.reads_ready:
            reads = self._asked_reads.pop(ready.read_id, None)
            if reads:
                self._indexed_reads.add(reads, need=ready.index)
        if self.snapshots.is_loading:
            return
        on_lease: list[WaitingRead] = []
        for read in self._indexed_reads.reached(self.raft.applied_index):
            if read.lease_term:
                on_lease.append(read)
            elif not self._is_fresh_enough(read):
                read.done(self._too_stale(read))
            else:
                self._answer(read)
        if on_lease:
            self._answer_on_lease(on_lease)

    def _answer(self, read: WaitingRead) -> None:
        """From the state as it is; whatever made the read wait has come."""
        answer = self.machine.query(read.query)
        if read.consistency is Consistency.STALE:
            outcome = Answered(self.raft.applied_index, answer, Consistency.STALE, self._staleness_ms())
        elif read.consistency is Consistency.LEASE:
            outcome = Answered(self.raft.applied_index, answer, Consistency.LINEARIZABLE)
        else:
            outcome = Answered(self.raft.applied_index, answer, read.consistency)
        read.done(outcome)

    def _answer_on_lease(self, reads: list[WaitingRead]) -> None:
        """The table is read first, and only then the clock by which the lease is judged.

        The other way round, this process could be stopped between the two, another lead and write, and the
        answer still be given. The lease of a later term says nothing of what was committed when they asked.
        """
        assert self._clock is not None
        answers = [self.machine.query(read.query) for read in reads]
        held_term = self.raft.term if self.raft.holds_lease(self._clock()) else None
        for read, answer in zip(reads, answers, strict=True):
            if read.lease_term == held_term:
                read.done(Answered(self.raft.applied_index, answer, Consistency.LEASE))
            else:
                read.lease_term, read.lease_ran_out = 0, True
                self._unasked_reads.append(read)

    def _is_fresh_enough(self, read: WaitingRead) -> bool:
        """Whether the age of what is read here is known, and within the read's bound if it has one."""
        if read.max_staleness_ms is None:
            return True
        staleness_ms = self._staleness_ms()
        return staleness_ms is not None and staleness_ms <= read.max_staleness_ms

    def _staleness_ms(self) -> int | None:
        staleness_us = self.raft.state.staleness_us
        return None if staleness_us is None else -(-staleness_us // 1000)

    def _serve_nothing(self) -> None:
        """The state here is wrong, and so would be every answer: nobody waits for one any more."""
        self._writes.give_up()
        waiting = self._unasked_reads + self._failed_reads + self._indexed_reads.leave()
        waiting += [read for reads in self._asked_reads.values() for read in reads]
        self._unasked_reads, self._failed_reads, self._asked_reads = [], [], {}
        for read in waiting:
            read.done(Refused(Why.REPLICAS_DISAGREE, self.leadership()))

    def _read_failed(self, reads: list[WaitingRead]) -> None:
        """A follower's read is asked again soon, as long as a leader is known; others are sent away."""
        for read in reads:
            if read.consistency is Consistency.FOLLOWER and self.raft.leader_id is not None:
                self._failed_reads.append(read)
                self._ask_again_us = self._now_us + self.raft.state.settings.heartbeat_us
            else:
                read.done(Refused(Why.NOT_LEADER, self.leadership()))

    def _counted(self, done: ReadDone) -> ReadDone:
        def counted(outcome: Any) -> None:
            self._reads_count -= 1
            done(outcome)

        return counted

    # ---------------------------------------------------------------------------------- cluster time

    def cluster_time_ms(self) -> int:
        """Milliseconds as this leader counts them: from the last stamp applied at its no-op, by its own clock.

        Before its no-op is applied, time stands still; so it does without a leader.
        """
        office = self.raft.state.office
        if office is None or self.raft.applied_index < office.term_start:
            return self.last_stamp_ms
        if self._clock_base is None or self._clock_base[0] != self.raft.term:
            self._clock_base = (self.raft.term, self.last_stamp_ms, self._now_us)
        _, stamp_ms, since_us = self._clock_base
        return stamp_ms + (self._now_us - since_us) // 1000

    def _submit_tick_if_due(self) -> None:
        """Once something runs out by itself, the machine is shown the time.

        By one tick at a time: while many entries wait to be applied, each may move what runs out next, and a tick
        for each would make more entries than are applied.
        """
        due_ms = self._tick_due_ms()
        if due_ms is None or self.cluster_time_ms() < due_ms:
            return
        self._tick_term = self.raft.term
        tick = WaitingWrite(self.machine.tick_command(), partial(self._tick_done, self.raft.term), self._deadline())
        self._submitted.append(tick)

    def _tick_due_ms(self) -> int | None:
        return None if self._tick_is_on_its_way or self.snapshots.is_loading else self.machine.tick_due_ms()

    def _tick_done(self, term: int, _outcome: object) -> None:
        """If it was lost, the next turn proposes another."""
        if self._tick_term == term:
            self._tick_term = 0

    @property
    def _tick_is_on_its_way(self) -> bool:
        """One of an earlier office may be gone, and nobody write at its index for long: this office has its own."""
        return self._tick_term == self.raft.term

    # ----------------------------------------------------------------------------- limits, deadlines

    def _why_not_now(self, command_bytes: int, *, frees_space: bool) -> Why | None:
        settings = self.settings
        if self.shutting_down:
            return Why.SHUTTING_DOWN
        if self._leads is None and not self.raft.takes_proposals:
            return Why.NOT_LEADER
        if self.disk_is_short and not frees_space:
            return Why.DISK_FULL
        bytes_in_flight = self._writes.bytes_in_flight + self._submitted_bytes + command_bytes
        if (
            self.writes_in_flight >= settings.proposals_in_flight_max
            or bytes_in_flight > settings.proposal_bytes_in_flight_max
        ):
            return Why.OVERLOADED
        return None

    def _deadline(self) -> int:
        return self._now_us + self.settings.request_timeout_ms * 1000

    def _expire(self) -> None:
        now_us = self._now_us
        self._writes.expire(now_us)
        if not self._reads_count:
            return
        expired = self._indexed_reads.expire(now_us)
        expired += expire_reads(self._unasked_reads, now_us) + expire_reads(self._failed_reads, now_us)
        for read_id, reads in list(self._asked_reads.items()):
            expired += expire_reads(reads, now_us)
            if not reads:
                del self._asked_reads[read_id]
        for read in expired:
            read.done(self._too_late(read))

    def _too_late(self, read: WaitingRead) -> ReadOutcome:
        """What a read is told at its deadline: what it asked for, and how far this node is."""
        if read.consistency is not Consistency.STALE:
            return ReadTimedOut()
        return self._too_stale(read)

    def _too_stale(self, read: WaitingRead) -> TooStale:
        bounds = (read.min_index, read.max_staleness_ms)
        return TooStale(self.raft.applied_index, self._staleness_ms(), *bounds, is_loading=self.snapshots.is_loading)

    def _next_deadline_us(self, core_us: int | None) -> int | None:
        """When the next turn must come at the latest."""
        if self._unasked_reads or self._submitted:
            return self._now_us
        deadlines = [core_us, self._writes.next_deadline_us(), self._tick_due_us(), self.snapshots.next_deadline_us()]
        deadlines += [self._indexed_reads.next_deadline_us(), self._transfers.deadline_us, self._changes.deadline_us]
        if self._asked_reads:
            deadlines.append(min(reads[0].deadline_us for reads in self._asked_reads.values()))
        if self._failed_reads:
            deadlines.append(self._ask_again_us)
        return min([deadline for deadline in deadlines if deadline is not None], default=None)

    def _tick_due_us(self) -> int | None:
        """When, on this leader's own clock, the machine's next tick is due."""
        due_ms = self._tick_due_ms() if self.raft.takes_proposals else None
        return None if due_ms is None else self._now_us + max(0, due_ms - self.cluster_time_ms()) * 1000

    def _url_of(self, node: str) -> str | None:
        member = self.raft.state.configurations.members.get(NodeId(node))
        return None if member is None else self.client_url_of(member)
