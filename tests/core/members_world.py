"""A few cores, their disks and a bad network, for runs in which members change all the time.

It is smaller than ``raftkv.sim`` on purpose: no replica, no clients, no files, so that thousands of short runs cost
seconds. A run draws what happens from one seed. After every turn of a core, what Figure 3 says of it is checked; at
the end everything works again, and the cluster must have come to rest by itself.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Final

import msgpack

from raftkv import frames as framing
from raftkv.core import membership
from raftkv.core.effects import DiskWrite, Effects, LogBase, SnapshotPiece, SnapshotRead, SnapshotWrite
from raftkv.core.messages import REPLY_TYPES, Envelope
from raftkv.core.quorum import has_majority
from raftkv.core.raft import Raft
from raftkv.core.settings import RaftSettings
from raftkv.core.state import Identity, Saved
from raftkv.core.types import (
    ClusterId,
    Configuration,
    Incarnation,
    Index,
    Intent,
    Learner,
    Member,
    Membership,
    NodeId,
    Role,
    Round,
    SnapshotId,
    Term,
    membership_of,
)
from raftkv.errors import ChangeRefused, MessageError, Misdirected, NotLeader
from raftkv.transport import codec
from tests.core.lone import runs_of

CLUSTER: Final = ClusterId(b"members' world..")
E_MS: Final = 100
SETTINGS: Final = RaftSettings(
    election_timeout_ms=E_MS, heartbeat_ms=30, append_bytes_max=300, snapshot_chunk_bytes=64, log_tail_entries=2
)
NOBODY: Final = LogBase(Index(0), Term(0), Configuration(Membership(())))
_REST_MS_MAX: Final = 20_000


class Wrong(AssertionError):
    """Something happened that never may."""


class Node:
    """A core, its disk, and what the disk has not finished."""

    def __init__(self, member: Member, base: LogBase) -> None:
        self.member = member
        self.life = 0
        self.raft: Raft | None = None
        self.base = base
        self.vote: tuple[Term, NodeId | None] = (Term(0), None)
        self.frames: list[bytes] = []
        self.unfinished: list[DiskWrite] = []
        self.snapshot: tuple[SnapshotId, LogBase] | None = None
        self.partial: tuple[SnapshotId, bytes] | None = None
        self.wake_us: int | None = None
        self.seen_commit = 0
        self.led_term = 0

    @property
    def id(self) -> NodeId:
        return self.member.id

    @property
    def up(self) -> Raft:
        assert self.raft is not None
        return self.raft

    def saved(self) -> Saved:
        """What a start finds."""
        found = [(framing.term_and_index(f)[1], f) for f in self.frames]
        configurations = [
            (Index(index), Configuration.decode(framing.body(frame)))
            for index, frame in found
            if framing.kind(frame) == framing.EntryKind.CONFIGURATION
        ]
        newest = None if self.snapshot is None else self.snapshot[1]
        return Saved(
            self.base, self.vote[0], self.vote[1], runs_of(self.frames), None, self.frames, configurations, newest
        )

    def recover(self) -> None:
        """A log that does not reach the snapshot, or parts from it, begins anew there."""
        if self.snapshot is None or self.snapshot[1].index <= self.base.index:
            return
        base = self.snapshot[1]
        place = base.index - self.base.index - 1
        if place >= len(self.frames) or framing.term_and_index(self.frames[place])[0] != base.term:
            self.base, self.frames = base, []

    def drop_through(self, through: Index) -> None:
        """A snapshot has these entries; nothing is dropped that is still to be written."""
        count = through - self.base.index
        if not 0 < count <= len(self.frames) or self.unfinished:
            return
        configuration = self.base.configuration
        for frame in self.frames[:count]:
            if framing.kind(frame) == framing.EntryKind.CONFIGURATION:
                configuration = Configuration.decode(framing.body(frame))
        term = Term(framing.term_and_index(self.frames[count - 1])[0])
        self.base, self.frames = LogBase(through, term, configuration), self.frames[count:]

    def finish(self, write: DiskWrite) -> None:
        """The write is durable."""
        if write.vote is not None:
            self.vote = write.vote
        if write.base is not None:
            self.base, self.frames = write.base, []
        if write.truncate_from is not None:
            del self.frames[write.truncate_from - self.base.index - 1 :]
        self.frames += write.frames

    def holds(self, index: int, frame: bytes) -> bool:
        """On its disk."""
        place = index - self.base.index - 1
        return place < 0 or (place < len(self.frames) and self.frames[place] == frame)


class World:
    """All nodes, the network between them, the time, and what was ever seen."""

    def __init__(self, seed: int, names: str, voters: str) -> None:
        self.rng = Random(seed)
        self.now_us = 0
        self.told: list[str] = []
        self.cut: set[tuple[NodeId, NodeId]] = set()
        self.loss_percent = 0
        self.delay_us_max = 2_000
        self.disk_us_max = 1_000
        self.nodes: dict[NodeId, Node] = {}
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0
        self._leaders: dict[int, NodeId] = {}
        self._chains: dict[tuple[int, int], int] = {}
        self.committed: list[bytes] = []
        self.changes_begun = self.called_off = 0
        first = membership_of(self._member(name) for name in voters)
        for name in names:
            base = LogBase(Index(0), Term(0), Configuration(first)) if name in voters else NOBODY
            self.nodes[NodeId(name)] = Node(self._member(name), base)

    @staticmethod
    def _member(name: str, life: int = 0) -> Member:
        return Member(NodeId(name), Incarnation(f"{name}{life}".encode().ljust(16, b".")), f"http://{name}")

    # -- time

    def after(self, delay_us: int, act: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (self.now_us + delay_us, self._count, act))

    def run(self, duration_ms: int) -> None:
        until_us = self.now_us + duration_ms * 1000
        while self._events and self._events[0][0] <= until_us:
            self.now_us, _, act = heapq.heappop(self._events)
            act()
        self.now_us = until_us

    # -- nodes

    def start(self, node: Node) -> None:
        me = Identity(node.id, node.member.incarnation, CLUSTER)
        node.recover()
        node.raft = Raft(me, SETTINGS, node.saved(), Random(self.rng.randrange(2**32)))
        node.seen_commit, node.led_term = 0, 0
        self.tell(f"{node.id}: starts")
        self.turn(node)

    def crash(self, node: Node) -> None:
        node.raft, node.wake_us = None, None
        node.life += 1
        self.tell(f"{node.id}: crashes")
        for write in node.unfinished[: self.rng.randrange(len(node.unfinished) + 1)]:
            node.finish(write)
        node.unfinished = []

    def wipe(self, node: Node) -> None:
        """Its directory is emptied: under its id comes somebody else."""
        if node.raft is not None:
            self.crash(node)
        self.tell(f"{node.id}: is emptied")
        self.nodes[node.id] = fresh = Node(self._member(node.id, node.life + 1), NOBODY)
        fresh.life = node.life + 1

    def turn(self, node: Node, act: Callable[[Raft], object] = lambda raft: None) -> None:
        """Something happens at a node; then all that it wants is done, sooner or later."""
        raft = node.raft
        if raft is None:
            return
        raft.elapse(self.now_us)
        raft.cluster_time_ms = self.now_us // 1000
        try:
            act(raft)
        except (Misdirected, MessageError) as error:
            self.tell(f"{node.id}: refuses a message: {error}")
            if isinstance(error, MessageError):
                raise Wrong(f"{node.id}: {error}") from error
        effects = raft.take()
        for note in effects.notes:
            self.tell(note.text)
        for write in effects.persist:
            self._write(node, write)
        for envelope in effects.requests:
            self._send(node, envelope)
        for exchange, reply in effects.replies:
            assert callable(exchange)
            exchange(reply)
        for committed in effects.apply:
            raft.applied(Index(committed.first + len(committed.frames) - 1))
        assert not effects.read_log, "everything is in memory"
        self._snapshots(node, effects)
        self._check(node, raft)
        if effects.deadline_us is not None:
            self._wake_at(node, max(self.now_us + 1, effects.deadline_us))

    def _snapshots(self, node: Node, effects: Effects) -> None:
        for read in effects.snapshot_reads:
            self._later(node, partial(self._read_piece, node, read))
        for write in effects.snapshot_writes:
            self._later(node, partial(self._write_piece, node, write))
        if effects.load_snapshot is not None:
            index = effects.load_snapshot
            self._later(node, lambda raft: raft.snapshot_loaded(index))
        if effects.drop_log_through is not None:
            node.drop_through(effects.drop_log_through)

    def _later(self, node: Node, act: Callable[[Raft], object]) -> None:
        life = node.life
        self.after(self.rng.randrange(self.disk_us_max), lambda: self.turn(node, act) if node.life == life else None)

    @staticmethod
    def _read_piece(node: Node, read: SnapshotRead, raft: Raft) -> None:
        piece = None
        if node.snapshot is not None and read.snapshot in (None, node.snapshot[0]):
            data = _as_bytes(node.snapshot[1])[read.offset :][: read.bytes_max]
            piece = SnapshotPiece(node.snapshot[0], read.offset, data)
        raft.snapshot_was_read(read, piece)

    @staticmethod
    def _write_piece(node: Node, write: SnapshotWrite, raft: Raft) -> None:
        if node.partial is None or node.partial[0] != write.snapshot:
            node.partial = (write.snapshot, b"")
        data = node.partial[1]
        if write.offset <= len(data):
            data = data[: write.offset] + write.data
        node.partial = (write.snapshot, data)
        complete = None
        if len(data) == write.snapshot.size_bytes:
            complete = _from_bytes(data)
            if node.snapshot is None or node.snapshot[1].index < complete.index:
                node.snapshot = (write.snapshot, complete)
        raft.snapshot_was_written(write, len(data), complete)

    def keep_state(self, node: Node) -> None:
        """A snapshot of its own state is in place."""

        def act(raft: Raft) -> None:
            if raft.applied_index > raft.state.log.base_index and raft.state.snapshots.loading is None:
                base = raft.base_at(raft.applied_index)
                data = _as_bytes(base)
                node.snapshot = (SnapshotId(base.index, base.term, len(data), self.rng.randrange(2**32)), base)
                raft.snapshot_stored(base, size_bytes=len(data))
                self.tell(f"{node.id}: keeps its state at {base.index}")

        self.turn(node, act)

    def _wake_at(self, node: Node, due_us: int) -> None:
        node.wake_us, life = due_us, node.life

        def wake() -> None:
            if node.life == life and node.wake_us == due_us:
                self.turn(node)

        self.after(due_us - self.now_us, wake)

    def _write(self, node: Node, write: DiskWrite) -> None:
        """Writes end in their order."""
        node.unfinished.append(write)
        life = node.life

        def finished() -> None:
            if node.life != life or write not in node.unfinished:
                return
            while node.unfinished:
                done = node.unfinished.pop(0)
                node.finish(done)
                if done is write:
                    break
            self.turn(node, lambda raft: raft.persisted(write.ticket))

        self.after(self.rng.randrange(self.disk_us_max), finished)

    # -- network

    def _send(self, node: Node, envelope: Envelope) -> None:
        packed, life = codec.encode(envelope), node.life

        def answered(reply: Envelope) -> None:
            packed_reply = codec.encode(reply)

            def heard() -> None:
                if node.life == life:
                    self.turn(node, lambda raft: raft.receive(codec.decode(packed_reply)))

            self._carry(reply, heard)

        def arrives() -> None:
            receiver = self.nodes[envelope.receiver]
            if receiver.raft is not None:
                self.turn(receiver, lambda raft: raft.receive(codec.decode(packed), answered))
            elif self.rng.randrange(2):
                failed()

        def failed() -> None:
            if node.life == life:
                self.turn(node, lambda raft: raft.delivery_failed(envelope))

        if not self._carry(envelope, arrives) and self.rng.randrange(2):
            self.after(2_000, failed)

    def _carry(self, envelope: Envelope, arrive: Callable[[], None]) -> bool:
        if (envelope.sender, envelope.receiver) in self.cut or self.rng.randrange(100) < self.loss_percent:
            return False
        for _ in range(2 if self.loss_percent and self.rng.randrange(20) == 0 else 1):
            if isinstance(envelope.message, REPLY_TYPES) or self.loss_percent == 0 or self.rng.randrange(10):
                self.after(self.rng.randrange(self.delay_us_max), arrive)
            else:
                self.after(self.rng.randrange(3 * E_MS * 1000), arrive)
        return True

    # -- what is asked of nodes

    def propose(self, node: Node) -> None:
        def act(raft: Raft) -> None:
            if raft.takes_proposals:
                raft.propose([bytes(40)] * self.rng.randrange(1, 4))

        self.turn(node, act)

    def ask_around(self, node: Node) -> tuple[Term, Round] | None:
        """The round that goes out there before a change, and the term that it is of."""
        asked: list[tuple[Term, Round]] = []

        def act(raft: Raft) -> None:
            round = raft.ask_around() if raft.role is Role.LEADER else None
            if round is not None:
                asked.append((raft.term, round))

        self.turn(node, act)
        return asked[0] if asked else None

    def change(
        self,
        node: Node,
        target: Membership,
        *,
        deadline_ms: int | None,
        force: bool = False,
        asked: tuple[Term, Round] | None = None,
    ) -> str:
        """Why not; empty: it began. ``asked``: who answered that round is there."""
        said = ["down"]

        def act(raft: Raft) -> None:
            try:
                since = asked[1] if asked is not None and asked[0] == raft.term else None
                before = raft.configuration.current
                raft.change_membership(target, deadline_ms=deadline_ms, force=force, since=since)
                said[0] = ""
                if since is not None and not force:
                    self._is_answered(raft, before, target, since)
                self.changes_begun += 1
            except ChangeRefused as refused:
                said[0] = refused.why.value
            except NotLeader:
                said[0] = "not_leader"

        self.turn(node, act)
        return said[0]

    @staticmethod
    def _is_answered(raft: Raft, before: Membership, target: Membership, since: Round) -> None:
        """Most of those that are to vote have echoed the round, or will catch up first."""
        office = raft.state.office
        assert office is not None
        new = {member.id for member in target.voters} - {member.id for member in before.voters}
        there = [
            member.id
            for member in target.voters
            if member.id in {raft.state.me.id, *new}
            or (member.id in office.progress and office.progress[member.id].echo.round >= since)
        ]
        if 2 * len(there) <= len(target.voters):
            raise Wrong(f"of {target} only {there} are there")

    def call_off(self, node: Node) -> bool:
        """Whether a change was called off there; what it was to bring is never decided then."""
        called_off = []

        def act(raft: Raft) -> None:
            try:
                raft.call_off_change(next(iter(membership.joining(raft.configuration.current)), NodeId("nobody")))
                called_off.append(True)
            except (ChangeRefused, NotLeader):
                pass

        self.turn(node, act)
        self.called_off += len(called_off)
        return bool(called_off)

    def leader(self) -> Node | None:
        leaders = [node for node in self.nodes.values() if node.raft is not None and node.raft.role is Role.LEADER]
        return max(leaders, key=lambda node: node.up.term, default=None)

    def tell(self, text: str) -> None:
        self.told.append(f"{self.now_us / 1000:9.1f} {text}")

    # -- what is always so

    def _check(self, node: Node, raft: Raft) -> None:
        self._one_leader_a_term(node, raft)
        state = raft.state
        log, base = state.log, state.log.base_index
        if raft.commit_index < node.seen_commit:
            raise Wrong(f"{node.id}: commit falls to {raft.commit_index}")
        for index in range(max(node.seen_commit, base) + 1, raft.commit_index + 1):
            frames = log.frames_between(index, index, bytes_max=1)
            assert frames is not None
            self._is_committed(node, raft, index, frames[0])
        node.seen_commit = raft.commit_index

    def _one_leader_a_term(self, node: Node, raft: Raft) -> None:
        if raft.role is not Role.LEADER or node.led_term == raft.term:
            return
        node.led_term = raft.term
        if self._leaders.setdefault(raft.term, node.id) != node.id:
            raise Wrong(f"{node.id} and {self._leaders[raft.term]} lead term {raft.term}")
        if raft.last_index < len(self.committed) or any(
            raft.term_at(index) not in (None, framing.term_and_index(self.committed[index - 1])[0])
            for index in range(raft.state.log.base_index, len(self.committed) + 1)
            if index
        ):
            raise Wrong(f"{node.id} leads term {raft.term} without what is committed")
        self._logs_match(raft)

    def _logs_match(self, raft: Raft) -> None:
        """Whoever comes to lead shows its log: one entry, one history before it."""
        log = raft.state.log
        frames = log.frames_between(log.base_index + 1, log.last_index, bytes_max=2**40) or []
        chain = self._chains.get((log.base_term, log.base_index), 0)
        if log.base_index and not chain:
            return
        for frame in frames:
            chain = hash((chain, frame))
            if self._chains.setdefault(framing.term_and_index(frame), chain) != chain:
                raise Wrong(f"two histories before {framing.term_and_index(frame)}")

    def _is_committed(self, node: Node, raft: Raft, index: int, frame: bytes) -> None:
        if index <= len(self.committed):
            if self.committed[index - 1] != frame:
                raise Wrong(f"{node.id} commits another entry {index}")
            return
        if raft.role is Role.LEADER:
            holders = [one.id for one in self.nodes.values() if one.holds(index, frame)]
            # In the turn in which a configuration is committed, the next one may be in force already.
            before = raft.state.configurations.before
            in_force = [raft.configuration] + ([before[1]] if before is not None else [])
            if not any(has_majority(configuration.voter_sets(), holders) for configuration in in_force):
                raise Wrong(f"{node.id} commits {index}, which is only on the disks of {holders}")
        assert index == len(self.committed) + 1
        if framing.kind(frame) == framing.EntryKind.CONFIGURATION:
            self._follows(Configuration.decode(framing.body(frame)))
        self.committed.append(frame)

    def _follows(self, configuration: Configuration) -> None:
        """Voters change through both sets only."""
        before = self.configuration()
        if before.is_joint:
            allowed = configuration == Configuration(before.current)
        elif configuration.is_joint:
            allowed = configuration.outgoing == before.current
        else:
            allowed = configuration.voters() == before.voters()
        if configuration.called_off:
            ended = membership.given_up(before.current)
            gone = set(configuration.called_off) - {learner.member.id for learner in ended.learners}
            stayed = [learner for learner in ended.learners if learner.member.id in configuration.members()]
            allowed &= not before.is_joint and configuration.called_off == membership.joining(before.current)
            allowed &= not gone & configuration.members().keys() and configuration.current.learners == tuple(stayed)
        if not allowed:
            raise Wrong(f"after {before} comes {configuration}")

    def configuration(self) -> Configuration:
        """The newest that was ever committed."""
        for frame in reversed(self.committed):
            if framing.kind(frame) == framing.EntryKind.CONFIGURATION:
                return Configuration.decode(framing.body(frame))
        return next(node.base.configuration for node in self.nodes.values() if node.base.configuration.voters())

    # -- in the end

    def comes_to_rest(self) -> None:
        """Everything works again: somebody leads, no change is stuck, everybody knows whether he is a member."""
        self.cut, self.loss_percent, self.delay_us_max, self.disk_us_max = set(), 0, 2_000, 1_000
        self.tell("everything works again")
        for node in self.nodes.values():
            if node.raft is None:
                self.start(node)
        why = "nothing"
        for _ in range(_REST_MS_MAX // 100):
            self.run(100)
            why = self._restless()
            if not why:
                return
        raise Wrong(f"no rest after {_REST_MS_MAX} ms: {why}")

    def _restless(self) -> str:
        leader = self.leader()
        if leader is None:
            return "nobody leads"
        if not leader.up.takes_proposals:
            return f"{leader.id} hands over"
        if leader.up.change_status is not None:
            return f"{leader.id}: {leader.up.change_status}"
        members = leader.up.configuration.members()
        for node in self.nodes.values():
            raft = node.up
            if members.get(node.id) == node.member:
                if raft.commit_index != leader.up.commit_index or raft.removed_at is not None:
                    return f"{node.id} is at {raft.commit_index}, removed at {raft.removed_at}"
            elif not members.keys() & set(raft.configuration.voters()):
                continue  # nobody whom it knows is left to tell it
            elif raft.role is not Role.LEARNER:
                return f"{node.id} is no member and {raft.role.value}"
            elif raft.removed_at is None and raft.state.configurations.was_listed(node.id, node.member.incarnation):
                return f"{node.id} does not know that it was removed"
        return ""


def _as_bytes(base: LogBase) -> bytes:
    packed: bytes = msgpack.packb((base.index, base.term, base.configuration.encode(), bytes(100)))
    return packed


def _from_bytes(packed: bytes) -> LogBase:
    index, term, configuration, _ = msgpack.unpackb(packed)
    return LogBase(Index(index), Term(term), Configuration.decode(configuration))


def wanted(world: World, rng: Random) -> Membership:
    """Somebody's wish: a few nodes more, a few less, or quite others."""
    now = membership.outcome(world.configuration())
    voters, learners = {one.id for one in now.voters}, {one.member.id for one in now.learners}
    for name in rng.sample(sorted(world.nodes), rng.choice((1, 1, 1, 2, 3))):
        voters.discard(name)
        learners.discard(name)
        where = rng.choice((voters, voters, learners, set()))
        where.add(name)
    if rng.randrange(5) == 0:
        voters, learners = set(rng.sample(sorted(world.nodes), rng.randrange(1, 4))), set()
    return membership.in_order(
        Membership(
            tuple(world.nodes[name].member for name in voters),
            tuple(Learner(world.nodes[name].member, Intent.LEARNER, None) for name in learners),
        )
    )
