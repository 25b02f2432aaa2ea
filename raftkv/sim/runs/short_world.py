"""Nodes that nothing happens to unless somebody chooses it.

No clock drives this world: every message waits until it is chosen, every disk until it is let, and every node has a
clock of its own that jumps as it likes, since no safety may rest on time. Only where leases are on all clocks go on
together, within the bound on their drift. Every turn is checked.

Told: what is to happen. Tells: the nodes' turns to the checkers; what happened, for people. Knows no clients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Final

from raftkv.core.effects import Exchange, LogBase
from raftkv.core.messages import AppendEntries, Envelope, ReadIndexRequest
from raftkv.core.settings import RaftSettings
from raftkv.core.state import Identity
from raftkv.core.types import Configuration, Index, Member, NodeId, Role, Term, membership_of
from raftkv.errors import RaftkvError
from raftkv.pump import Pump, PumpShell
from raftkv.replica import ReplicaSettings, Work
from raftkv.sim.checks.invariants import Invariants, Violated
from raftkv.sim.checks.oracle import Oracle, WatchedMachine
from raftkv.sim.checks.told import Told
from raftkv.sim.world.births import url_of
from raftkv.sim.world.cluster import CLUSTER_ID, incarnation_of
from raftkv.sim.world.disk import Crash, Moment
from raftkv.sim.world.node import ModelDisk, VirtualNode
from raftkv.sim.world.snapshot_files import Job
from raftkv.snapshotting import SnapshotSettings
from raftkv.transport import codec

_FLYING_MAX: Final = 40
"""Beyond, the oldest messages are lost."""
_OPERATIONS: Final = 12
"""About so many does the making of a file take."""
_ROUNDS_UNTIL_SETTLED: Final = 300
"""Heartbeats: 40 election timeouts, until a piece of a snapshot of which nobody ever heard counts as lost, and some."""
_TURNS_MAX: Final = 50_000
"""A hundred times what a run takes: nodes that ask each other for something in a circle never come to rest."""
_MOMENTS: Final = tuple(Moment)
_REPLICA_SETTINGS: Final = ReplicaSettings(request_timeout_ms=10**9, hash_interval_entries=1)


@dataclass(slots=True, eq=False)
class Flying:
    """A message on its way, for as long as nobody chooses it."""

    envelope: Envelope
    """To know whose it is; what arrives is decoded anew."""
    packed: bytes
    asker_life: int
    exchange: Open | None
    """The request's, for a reply; None: it is a request."""


@dataclass(slots=True, eq=False)
class Open:
    """An exchange at the node that was asked."""

    request: Envelope
    asker_life: int
    answered: bool = False


class _Now:
    """A Scheduler under which soon is now; later is when somebody chooses."""

    __slots__ = ("now_us",)

    def __init__(self, now_us: Callable[[], int]) -> None:
        self.now_us = now_us

    def soon(self, act: Callable[[], None], /) -> None:
        """Calls it."""
        act()

    def later(self, delay_us: int, act: Callable[[], None]) -> _Now:
        """Never by itself."""
        return self

    def cancel(self) -> None:
        """It would not ring."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What a world is made of."""

    names: tuple[NodeId, ...]
    raft: RaftSettings
    per_mille: tuple[int, ...]
    """How fast each node's clock goes, where they go on together."""
    snapshots: SnapshotSettings = field(default_factory=SnapshotSettings)
    spares: int = 0
    """So many, the last, are no members at first."""
    catch_up_timeout_ms: int = 300_000
    """Who is to vote and has not caught up by then is let go."""


@dataclass(slots=True)
class ShortWorld:
    """All there is but clients. ``rng`` is seeded anew by whoever chooses, for each choice."""

    setting: Setting
    rng: Random
    oracle: Oracle = field(default_factory=Oracle)
    nodes: dict[NodeId, VirtualNode] = field(default_factory=dict)
    flying: list[Flying] = field(default_factory=list)
    jobs: list[tuple[VirtualNode, int, Job]] = field(default_factory=list)
    """What snapshot threads have still to do: whose, in which life."""
    late: list[Flying] = field(default_factory=list)
    """Messages that come only when everybody has forgotten them."""
    deaf: dict[tuple[NodeId, NodeId], None] = field(default_factory=dict)
    """(sender, receiver) between whom everything is lost, this way only."""
    told: list[str] = field(default_factory=list)
    """What was done, and the notes of the nodes: what a person reads."""
    turns: int = 0
    now: int = 0
    """Counts choices and turns: the clients' clock."""
    talked: int = 0
    """Steps of talk in the present choice …"""
    talk_max: int | None = None
    """… and after how many it is cut off, to see whether it fails with fewer."""
    invariants: Invariants = field(init=False)
    judge: Told = field(init=False)
    _clocks_us: dict[NodeId, int] = field(default_factory=dict)
    _common_us: int = 0
    """What has passed for all, where clocks go on together."""
    _per_mille: dict[NodeId, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = self.setting.names
        members = [Member(name, incarnation_of(name), url_of(name)) for name in names]
        listed = members[: len(members) - self.setting.spares]
        base = LogBase(Index(0), Term(0), Configuration(membership_of(listed)))
        outside = LogBase(Index(0), Term(0), Configuration(membership_of([])))
        for member, per_mille in zip(members, self.setting.per_mille, strict=True):
            self.nodes[member.id] = VirtualNode(
                Identity(member.id, member.incarnation, CLUSTER_ID),
                base if member in listed else outside,
                raft_settings=self.setting.raft,
                replica_settings=replace(
                    _REPLICA_SETTINGS, member_catch_up_timeout_ms=self.setting.catch_up_timeout_ms
                ),
                make_machine=lambda: WatchedMachine(self.oracle),
                world_us=lambda id=member.id: self.clock_us(id),  # type: ignore[misc]
                snapshot_settings=self.setting.snapshots,
            )
            self._clocks_us[member.id], self._per_mille[member.id] = 0, per_mille
        self.invariants = Invariants(self)
        self.judge = Told(self.invariants)

    @property
    def leases(self) -> bool:
        """Whether leases are on, and clocks keep to their bound."""
        return self.setting.raft.lease_reads

    def up(self) -> list[VirtualNode]:
        """Those whose process runs."""
        return [node for node in self.nodes.values() if node.is_up]

    # ----------------------------------------------------------------------------------------- time

    def clock_us(self, id: NodeId) -> int:
        """What that node's clock shows."""
        return self._clocks_us[id] + self._common_us * self._per_mille[id] // 1000

    def pass_time(self, node: VirtualNode, duration_us: int) -> None:
        """Passes at that node, without its taking notice; where leases are on, at every other one too."""
        if not self.leases:
            self._clocks_us[node.id] += duration_us
        elif duration_us > 0:
            self._common_us += -(-duration_us * 1000 // self._per_mille[node.id])

    def lapse(self, node: VirtualNode, duration_us: int) -> None:
        """Passes at that node, which notices."""
        if node.is_up:
            self.pass_time(node, duration_us)
            self.turn(node)

    def stand(self, node: VirtualNode) -> None:
        """Its election timer runs out."""
        deadline_us = node.raft.state.election_deadline_us
        if deadline_us is not None:
            self.pass_time(node, max(0, deadline_us - self.clock_us(node.id)))
        self.turn(node)

    # ------------------------------------------------------------------------------ nodes and disks

    def start(self, node: VirtualNode) -> None:
        """With what its disk holds."""
        self.say(f"{node.id} starts")
        node.start(self.rng)
        node.pump = self._pump(node)
        self.invariants.started(node)
        self.turn(node)

    def crash(self, node: VirtualNode) -> None:
        """With some of what its disk has not finished."""
        self.say(f"{node.id} crashes")
        self.jobs = [one for one in self.jobs if one[0] is not node]
        node.crash(self.rng)

    def sync(self, node: VirtualNode) -> None:
        """Its disk finishes its oldest write."""
        if node.is_up and node.disk.unfinished:
            node.running.persisted(node.disk.finish_one().ticket)
            self.turn(node)

    def work_on_files(self, node: VirtualNode) -> bool:
        """Its snapshot thread does the next thing; whether there was one."""
        if not node.is_up:
            return False
        for place, (whose, life, job) in enumerate(self.jobs):
            if whose is node and life == node.life:
                del self.jobs[place]
                job()()
                self.turn(node)
                return True
        return False

    def die_over_files(self, node: VirtualNode) -> None:
        """The machine dies in, before or after an operation of the next thing that its snapshot thread does."""
        disk = node.disk
        assert isinstance(disk, ModelDisk)
        if not any(whose is node and life == node.life for whose, life, _ in self.jobs):
            return
        disk.directory.crash_at(
            disk.directory.operations + self.rng.randrange(1, _OPERATIONS), self.rng.choice(_MOMENTS)
        )
        try:
            self.work_on_files(node)
        except Crash:
            self.say(f"{node.id}'s machine dies over its files")
        self.crash(node)
        disk.directory = disk.directory.survivor(self.rng)

    def turn(self, node: VirtualNode) -> None:
        """One turn of the pump that ships; what it wants read from its log is read at once, and makes another."""
        assert node.pump is not None
        self.turns += 1
        self.now += 1
        if self.turns > _TURNS_MAX:
            raise Violated("a run comes to its end", f"{node.id} has the turn, the {self.turns}th of all")
        node.pump.schedule()
        reads = node.work.read_log
        for read in reads:
            node.running.log_was_read(read, node.disk.read(read))
        if reads:
            self.turn(node)

    def _pump(self, node: VirtualNode) -> Pump:
        shell = PumpShell(
            work=lambda work: self._work(node, work),
            send=lambda envelope: self._fly(Flying(envelope, codec.encode(envelope), node.life, None)),
            reply=self._reply,
            refuse=self._refuse,
            failed=_raise,
            took=lambda _: self.invariants.stepped(node, node.work),
        )
        return Pump(node.running, _Now(lambda: self.clock_us(node.id)), shell)

    def _work(self, node: VirtualNode, work: Work) -> None:
        node.work = work
        node.disk.unfinished.extend(work.persist)
        if work.snapshots:
            assert node.files is not None
            jobs = node.files.jobs(work.snapshots)
            self.jobs += [(node, node.life, job) for job in (*jobs.large, *jobs.reads, *jobs.pieces)]
        if work.drop_log_through is not None:
            node.disk.trim_log(work.drop_log_through)
        self._note(work)

    def _reply(self, exchange: Exchange, reply: Envelope) -> None:
        closed = _closed(exchange, reply)
        self._fly(Flying(reply, codec.encode(reply), closed.asker_life, closed))

    def _refuse(self, exchange: Exchange, error: RaftkvError) -> None:
        _closed(exchange, error)

    # ------------------------------------------------------------------------------------- messages

    def arrive(self, message: Flying) -> None:
        """It reaches whoever it is for, unless that one is down, or the asker is another by now."""
        node = self.nodes[message.envelope.receiver]
        if not node.is_up:
            self.lose(message)
            return
        if message.exchange is None:
            envelope = codec.decode(message.packed)
            node.running.receive(envelope, Open(envelope, message.asker_life))
        elif message.asker_life != node.life:
            return
        else:
            node.running.receive(codec.decode(message.packed))
        self.turn(node)

    def lose(self, message: Flying) -> None:
        """Sometimes whoever asked hears that it was in vain."""
        sender = self.nodes[message.envelope.sender]
        told = isinstance(message.envelope.message, AppendEntries | ReadIndexRequest) and self.rng.randrange(2)
        if told and sender.is_up and sender.life == message.asker_life:
            sender.running.delivery_failed(message.envelope)
            self.turn(sender)

    def hold_back(self, whose: Callable[[Flying], bool], *, copies: bool = False) -> None:
        """Those of the messages in flight come late; ``copies``: they come now, and once more late."""
        held = [one for one in self.flying if whose(one)]
        if not copies:
            self.flying = [one for one in self.flying if not whose(one)]
        self.late = [*self.late, *held][-_FLYING_MAX:]

    def come_late(self, whose: Callable[[Flying], bool] = lambda one: True) -> None:
        """Those of the late messages arrive, in any order."""
        coming = [one for one in self.late if whose(one)]
        self.late = [one for one in self.late if not whose(one)]
        self.rng.shuffle(coming)
        for one in coming:
            self.arrive(one)

    def talk(
        self,
        group: Sequence[VirtualNode],
        *,
        until: Callable[[], bool] = lambda: False,
        budget: int | None = None,
        in_order: bool | None = None,
        slow: VirtualNode | None = None,
    ) -> None:
        """Messages among the group arrive, mostly in order, and its disks work, so many times."""
        budget = budget or self.rng.choice((3, 6, 10, 16, 24, 40))
        in_order = self.rng.randrange(3) > 0 if in_order is None else in_order
        slow = slow or self.rng.choice((*group, None, None))
        ids = {node.id: None for node in group}
        while budget > 0 and not until() and self.talked != self.talk_max:
            budget -= 1
            self.talked += 1
            if not self._sync_some(group, slow) and not self._deliver_among(ids, in_order=in_order):
                return

    def settle(self) -> None:
        """Everything works, and time passes for all: one leads, all come to the end of its log, and no change hangs."""
        self.deaf.clear()
        for node in self.nodes.values():
            if not node.is_up:
                self.start(node)
        group, ids = list(self.nodes.values()), dict.fromkeys(self.nodes)
        for _ in range(_ROUNDS_UNTIL_SETTLED):
            for node in group[:1] if self.leases else group:
                self.pass_time(node, self.setting.raft.heartbeat_us)
            for node in group:
                self.turn(node)
            while self._sync_some(group, None) or self._deliver_among(ids, in_order=True):
                pass
            if self._is_settled():
                return
        told = (
            f"{node.id}: {node.raft.role.value}, {node.raft.applied_index} of {node.raft.last_index}" for node in group
        )
        raise Violated("nodes converge", "; ".join(told))

    def _is_settled(self) -> bool:
        leader = newest_leader(list(self.nodes.values()))
        if leader is None or leader.raft.change_status is not None or not leader.raft.state.configuration_is_committed:
            return False
        members = [self.nodes[id].raft for id in leader.raft.state.configurations.members]
        return all(raft.applied_index == raft.last_index == leader.raft.last_index for raft in members)

    def _sync_some(self, group: Sequence[VirtualNode], slow: VirtualNode | None) -> bool:
        busy = [node for node in group if node.disk.unfinished and node.is_up and node is not slow]
        for node in busy:
            self.sync(node)
        at_files = [node for node in group if node is not slow and self.work_on_files(node)]
        return bool(busy or at_files)

    def _deliver_among(self, ids: dict[NodeId, None], *, in_order: bool) -> bool:
        places: list[int] = []
        for place, one in enumerate(self.flying):
            if one.envelope.sender in ids and one.envelope.receiver in ids:
                places.append(place)
                if in_order:
                    break
        if places:
            self.arrive(self.flying.pop(places[0] if in_order else self.rng.choice(places)))
        return bool(places)

    def _fly(self, message: Flying) -> None:
        if (message.envelope.sender, message.envelope.receiver) in self.deaf:
            return
        self.flying.append(message)
        if len(self.flying) > _FLYING_MAX:
            self.flying.pop(0)

    # ----------------------------------------------------------------------------------- for people

    def say(self, text: str) -> None:
        """A person will want to know that."""
        self.told.append(f"{self.now}: {text}")

    def _note(self, work: Work) -> None:
        for note in work.notes:
            self.told.append(f"{self.now}:     {note.text}")


def _closed(exchange: Exchange, answer: object) -> Open:
    assert isinstance(exchange, Open)
    if exchange.answered:
        raise Violated("one reply a request", f"{exchange.request} got a second, {answer}")
    exchange.answered = True
    return exchange


def newest_leader(nodes: Sequence[VirtualNode]) -> VirtualNode | None:
    """Of those who think that they lead, the one of the highest term."""
    leaders = [node for node in nodes if node.is_up and node.raft.role is Role.LEADER]
    return max(leaders, key=lambda node: node.raft.term) if leaders else None


def _raise(error: BaseException) -> None:
    """A turn that raises is a bug, and ends the run that found it."""
    raise error
