"""Very many very short runs: three nodes, a few dozen choices, every one of them drawn.

Most bugs of consensus need only 8 to 25 steps, in an order that nobody thought of. Here no clock drives the
world: every message waits until it is chosen, every disk until it is let, and every node has a clock of its
own that jumps as it likes, since no safety may rest on time. What is drawn first is what this run likes to do
(more crashes, fewer deliveries …), so that runs differ in kind.

Told: a seed. Tells: that all properties held, or Violated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from raftkv.core.effects import LogBase
from raftkv.core.messages import AppendEntries, Envelope
from raftkv.core.settings import RaftSettings
from raftkv.core.state import Identity
from raftkv.core.types import Configuration, Index, Member, NodeId, Role, Term, membership_of
from raftkv.kv.answers import PutDone, Repeated, SessionOpened
from raftkv.kv.commands import Numbered, OpenSession, Put, encode
from raftkv.kv.queries import Get
from raftkv.outcomes import Answered, Applied, Consistency, Refused, Superseded
from raftkv.replica import ReplicaSettings, Work
from raftkv.sim.checks.history import Absent, Done, Operation, Result, Seen
from raftkv.sim.checks.invariants import Invariants, Violated
from raftkv.sim.checks.linearizability import Linearizable, check
from raftkv.sim.checks.oracle import Oracle, WatchedMachine
from raftkv.sim.runs.failed import RunFailed
from raftkv.sim.world.cluster import CLUSTER_ID, incarnation_of
from raftkv.sim.world.node import VirtualNode
from raftkv.transport import codec

KEY: Final = b"k"
NAMES: Final = ("a", "b", "c")
CHOICES_MAX: Final = 60
_FLYING_MAX: Final = 40
"""Beyond, the oldest messages are lost."""
_SESSION: Final = b"a short session."
_SETTINGS: Final = RaftSettings(election_timeout_ms=300, heartbeat_ms=100)
_SMALL_SETTINGS: Final = RaftSettings(
    election_timeout_ms=300, heartbeat_ms=100, append_bytes_max=1, inflight_appends_max=2, log_memory_bytes=64
)
"""One entry a message, and all but the newest entries read back from disk."""
_REPLICA_SETTINGS: Final = ReplicaSettings(request_timeout_ms=10**9)


@dataclass(slots=True, eq=False)
class _Flying:
    """A message on its way, for as long as nobody chooses it."""

    envelope: Envelope
    """To know whose it is; what arrives is decoded anew."""
    packed: bytes
    asker_life: int
    exchange: _Open | None
    """The request's, for a reply; None: it is a request."""


@dataclass(slots=True, eq=False)
class _Open:
    """An exchange at the node that was asked."""

    request: Envelope
    asker_life: int
    answered: bool = False


@dataclass(slots=True, eq=False)
class _Asked:
    """A client's request that has no answer yet."""

    request: Put | Get
    invoked_at: int
    asked_at: int
    """The oracle's acknowledged index then."""
    attempts: int = 0
    result: Result | None = None
    returned_at: int | None = None
    void: bool = False
    """It changed nothing and never will, or was a read that failed."""


@dataclass(slots=True)
class ShortRun:
    """One run. Iterating over ``choices`` is all that there is to it."""

    rng: Random
    nodes: dict[NodeId, VirtualNode] = field(default_factory=dict)
    clocks_us: dict[NodeId, int] = field(default_factory=dict)
    flying: list[_Flying] = field(default_factory=list)
    asked: list[_Asked] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    """The choices, and the notes of the nodes: what a person reads."""
    turns: int = 0
    now: int = 0
    """Counts choices and turns: the clients' clock."""
    numbered: list[tuple[bytes, _Asked]] = field(default_factory=list)
    sequence: int = 0
    session_is_open: bool = False
    oracle: Oracle = field(default_factory=Oracle)
    invariants: Invariants = field(init=False)

    def __post_init__(self) -> None:
        members = [Member(NodeId(name), incarnation_of(name), f"http://{name}") for name in NAMES]
        base = LogBase(Index(0), Term(0), Configuration(membership_of(members)))
        settings = self.rng.choice((_SETTINGS, _SMALL_SETTINGS))
        for member in members:
            self.nodes[member.id] = VirtualNode(
                Identity(member.id, member.incarnation, CLUSTER_ID),
                base,
                raft_settings=settings,
                replica_settings=_REPLICA_SETTINGS,
                make_machine=lambda: WatchedMachine(self.oracle),
                world_us=lambda id=member.id: self.clocks_us[id],  # type: ignore[misc]
            )
            self.clocks_us[member.id] = 0
        self.invariants = Invariants(self)

    def run(self) -> None:
        """All choices, then what clients were told; raises Violated."""
        for node in self.nodes.values():
            self._start(node)
        choices = [choose for choose, _ in _CHOICES]
        weights = [weight * self.rng.choice((0, 1, 1, 1, 8)) for _, weight in _CHOICES]
        if self.rng.randrange(2):
            weights[: len(_NEEDED)] = [weight for _, weight in _NEEDED]
        self._campaign()
        for choose in self.rng.choices(choices, weights, k=self.rng.randrange(8, CHOICES_MAX)):
            self.now += 1
            choose(self)
        self._prove_history()

    # ------------------------------------------------------------------------------ what can be chosen

    def _campaign(self) -> None:
        """One node stands, others have forgotten their leader, and those who hear each other talk for a while."""
        node, group = self._someone(), self._group()
        if not node.is_up:
            self._restart()
        if node.is_up:
            for other in group:
                if other.is_up and other is not node and other.raft.role is not Role.LEADER:
                    self.clocks_us[other.id] += _SETTINGS.election_timeout_us
            self._say(f"{node.id} stands")
            self._stand(node)
            self._talk([node, *(other for other in group if other is not node)])

    def _overthrow(self) -> None:
        """The two others elect one of themselves, and the old leader does not hear of it; clients ask either."""
        old = self._leader()
        if old is None:
            return self._campaign()
        one, other = self.rng.sample([node for node in self.nodes.values() if node is not old], 2)
        if not one.is_up or not other.is_up:
            return self._restart()
        self.clocks_us[other.id] += _SETTINGS.election_timeout_us
        self._say(f"{one.id} stands, {old.id} hears nothing")
        self._stand(one)
        self._talk([one, other], until=lambda: one.raft.role is Role.LEADER)
        if one.raft.role is Role.LEADER:
            asked = self.rng.randrange(3)
            if asked == 0:
                self._put_at(one)
            elif asked == 1:
                self._ask(one, Consistency.LINEARIZABLE)
            self._talk([one, other], slow=other if self.rng.randrange(2) else None)
        if self.rng.randrange(2):
            self._ask(old, Consistency.LINEARIZABLE)
        return None

    def _rivals(self) -> None:
        """Two nodes stand at the same time, and everybody would hear both."""
        if not all(node.is_up for node in self.nodes.values()):
            return self._restart()
        for node in self.nodes.values():
            self.clocks_us[node.id] += _SETTINGS.election_timeout_us
        one, other, third = self.rng.sample(list(self.nodes.values()), 3)
        self._say(f"{one.id} and {other.id} stand")
        self._stand(one)
        self._stand(other)
        return self._talk([one, other, third], budget=40, in_order=False)

    def _let_talk(self) -> None:
        """Some nodes hear each other for a while."""
        self._talk(self._group())

    def _deliver(self) -> None:
        """Any message, old or new."""
        if self.flying:
            self._arrive(self.flying.pop(self.rng.randrange(len(self.flying))))

    def _double(self) -> None:
        """A message arrives and may arrive again."""
        if self.flying:
            self._arrive(self.rng.choice(self.flying))

    def _drop(self) -> None:
        """All messages of one direction are lost; the sender may hear that its link is broken."""
        sender, receiver = self._someone().id, self._someone().id
        lost = [one for one in self.flying if (one.envelope.sender, one.envelope.receiver) == (sender, receiver)]
        self.flying = [one for one in self.flying if one not in lost]
        for message in lost:
            self._fail(message)

    def _sync(self) -> None:
        """A disk finishes its oldest write."""
        self._sync_one(self._someone())

    def _crash(self) -> None:
        node = self._someone()
        if node.is_up:
            self._say(f"{node.id} crashes")
            node.crash(self.rng)

    def _crash_leader(self) -> None:
        leader = self._leader()
        if leader is not None:
            self._say(f"{leader.id} crashes")
            leader.crash(self.rng)

    def _restart(self) -> None:
        for node in self.nodes.values():
            if not node.is_up:
                return self._start(node)
        return None

    def _stand_alone(self) -> None:
        """A node's election timer runs out; nobody hears of it yet."""
        node = self._someone()
        if node.is_up:
            self._say(f"{node.id} stands")
            self._stand(node)

    def _pass_time(self) -> None:
        """A heartbeat's time passes at one node."""
        self._lapse(self._someone(), _SETTINGS.heartbeat_us)

    def _pass_long(self) -> None:
        """An election timeout passes at one node."""
        self._lapse(self._someone(), _SETTINGS.election_timeout_us)

    def _put(self) -> None:
        """A write without a number, at somebody who takes it."""
        leader = self._leader()
        if leader is not None:
            self._put_at(leader)

    def _put_numbered(self) -> None:
        """A write with a number; the first opens the session."""
        leader = self._leader()
        if leader is None:
            return None
        if not self.session_is_open:
            leader.running.submit(encode(OpenSession(_SESSION)), self._opened)
            return self._turn(leader)
        self.sequence += 1
        put = Put(KEY, b"v%d" % len(self.asked))
        asked = _Asked(put, self.now, self.oracle.acknowledged_index)
        command = encode(put, Numbered(_SESSION, self.sequence))
        self.numbered.append((command, asked))
        return self._submit(leader, command, asked)

    def _repeat(self) -> None:
        """A numbered write comes again."""
        leader = self._leader()
        if leader is not None and self.numbered:
            command, asked = self.rng.choice(self.numbered)
            self._submit(leader, command, asked)

    def _read(self) -> None:
        node = self._leader() or self._someone()
        self._ask(node, Consistency.LINEARIZABLE)

    def _read_at_follower(self) -> None:
        self._ask(self._someone(), Consistency.FOLLOWER)

    def _transfer(self) -> None:
        leader, target = self._leader(), self._someone()
        if leader is not None:
            leader.running.transfer_leadership(target.id, lambda _: None)
            self._turn(leader)

    # ------------------------------------------------------------------------------------- who, and whom

    def _someone(self) -> VirtualNode:
        return self.nodes[NodeId(self.rng.choice(NAMES))]

    def _group(self) -> list[VirtualNode]:
        """Two nodes mostly, or all."""
        names = NAMES if self.rng.randrange(3) == 0 else self.rng.sample(NAMES, 2)
        return [self.nodes[NodeId(name)] for name in names]

    def _leader(self) -> VirtualNode | None:
        """One of those who think that they lead; often the newest."""
        leaders = [node for node in self.nodes.values() if node.is_up and node.raft.role is Role.LEADER]
        if not leaders:
            return None
        return max(leaders, key=lambda node: node.raft.term) if self.rng.randrange(2) else self.rng.choice(leaders)

    # --------------------------------------------------------------------------------------- how it goes

    def _talk(
        self,
        group: list[VirtualNode],
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
        while budget > 0 and not until():
            budget -= 1
            if not self._sync_some(group, slow) and not self._deliver_among(ids, in_order=in_order):
                return

    def _turn_and_perhaps_talk(self, node: VirtualNode) -> None:
        self._turn(node)
        if self.rng.randrange(2):
            self._talk([node, *(other for other in self._group() if other is not node)])

    def _sync_some(self, group: list[VirtualNode], slow: VirtualNode | None) -> bool:
        busy = [node for node in group if node.is_up and node is not slow and node.disk.unfinished]
        for node in busy:
            self._sync_one(node)
        return bool(busy)

    def _deliver_among(self, ids: dict[NodeId, None], *, in_order: bool) -> bool:
        places = [
            place
            for place, one in enumerate(self.flying)
            if one.envelope.sender in ids and one.envelope.receiver in ids
        ]
        if places:
            self._arrive(self.flying.pop(places[0] if in_order else self.rng.choice(places)))
        return bool(places)

    def _stand(self, node: VirtualNode) -> None:
        deadline_us = node.raft.state.election_deadline_us
        if deadline_us is not None:
            self.clocks_us[node.id] = max(self.clocks_us[node.id], deadline_us)
        self._turn(node)

    def _lapse(self, node: VirtualNode, duration_us: int) -> None:
        if node.is_up:
            self.clocks_us[node.id] += duration_us
            self._turn(node)

    def _sync_one(self, node: VirtualNode) -> None:
        if node.is_up and node.disk.unfinished:
            node.running.persisted(node.disk.finish_one().ticket)
            self._turn(node)

    def _start(self, node: VirtualNode) -> None:
        self._say(f"{node.id} starts")
        node.start(self.rng)
        self.invariants.started(node)
        self._turn(node)

    def _turn(self, node: VirtualNode) -> None:
        """One turn; what it wants read from its log is read at once, and makes another."""
        self.turns += 1
        self.now += 1
        work = node.running.turn(self.clocks_us[node.id])
        node.disk.unfinished.extend(work.persist)
        for envelope in work.requests:
            self._fly(_Flying(envelope, codec.encode(envelope), node.life, None))
        for exchange, reply in work.replies:
            assert isinstance(exchange, _Open)
            if exchange.answered:
                raise Violated("one reply a request", f"{exchange.request} got a second, {reply}")
            exchange.answered = True
            self._fly(_Flying(reply, codec.encode(reply), exchange.asker_life, exchange))
        self._note(work)
        self.invariants.stepped(node, work)
        for read in work.read_log:
            node.running.log_was_read(read, node.disk.read(read))
        if work.read_log:
            self._turn(node)

    def _fly(self, message: _Flying) -> None:
        self.flying.append(message)
        if len(self.flying) > _FLYING_MAX:
            self.flying.pop(0)

    def _arrive(self, message: _Flying) -> None:
        node = self.nodes[message.envelope.receiver]
        if not node.is_up:
            self._fail(message)
            return
        if message.exchange is None:
            envelope = codec.decode(message.packed)
            node.running.receive(envelope, _Open(envelope, message.asker_life))
        elif message.asker_life != node.life:
            return
        else:
            node.running.receive(codec.decode(message.packed))
        self._turn(node)

    def _fail(self, message: _Flying) -> None:
        """Sometimes the sender of an append hears that it was in vain."""
        sender = self.nodes[message.envelope.sender]
        told = isinstance(message.envelope.message, AppendEntries) and self.rng.randrange(2)
        if told and sender.is_up and sender.life == message.asker_life:
            sender.running.delivery_failed(message.envelope)
            self._turn(sender)

    # ------------------------------------------------------------------------------------------- clients

    def _submit(self, node: VirtualNode, command: bytes, asked: _Asked) -> None:
        if asked not in self.asked:
            self.asked.append(asked)
        asked.attempts += 1
        asked.void = False
        self._say(f"{node.id} is to put {asked.request}")

        def done(outcome: Any) -> None:
            match outcome:
                case Applied(index, answer):
                    self.oracle.write_answered(command, index, answer, asked_at=asked.asked_at)
                    self._answered(asked, answer.answer if isinstance(answer, Repeated) else answer)
                case Refused() | Superseded():
                    asked.attempts -= 1
                    asked.void = asked.attempts == 0

        node.running.submit(command, done)
        self._turn_and_perhaps_talk(node)

    def _answered(self, asked: _Asked, answer: Any) -> None:
        if not isinstance(answer, PutDone):
            raise Violated("never another's answer", f"{asked.request}: {answer}")
        if asked.returned_at is None:
            asked.result, asked.returned_at = Done(answer.revision), self.now
        elif asked.result != Done(answer.revision):
            raise Violated("a repeat has the first answer", f"{asked.request}: {asked.result}, {answer}")

    def _opened(self, outcome: Any) -> None:
        if isinstance(outcome, Applied) and isinstance(outcome.answer, SessionOpened):
            self.session_is_open = True

    def _put_at(self, node: VirtualNode) -> None:
        put = Put(KEY, b"v%d" % len(self.asked))
        self._submit(node, encode(put), _Asked(put, self.now, self.oracle.acknowledged_index))

    def _ask(self, node: VirtualNode, consistency: Consistency) -> None:
        if not node.is_up:
            return
        asked = _Asked(Get(KEY), self.now, self.oracle.acknowledged_index, void=True)
        self.asked.append(asked)
        self._say(f"{node.id} is asked, {consistency.value}")

        def done(outcome: Any) -> None:
            if isinstance(outcome, Answered):
                self.oracle.read_answered(Get(KEY), outcome.index, outcome.answer, asked_at=asked.asked_at)
                record = outcome.answer.record
                asked.result = Absent() if record is None else Seen(record.value, record.mod_revision)
                asked.returned_at, asked.void = self.now, False

        node.running.read(Get(KEY), consistency, done)
        self._turn_and_perhaps_talk(node)

    def _prove_history(self) -> None:
        history = [
            Operation("client", asked.request, asked.result, asked.invoked_at, asked.returned_at)
            for asked in self.asked
            if not asked.void
        ]
        verdict = check(history)
        if not isinstance(verdict, Linearizable):
            raise Violated("linearizability", str(verdict))

    # --------------------------------------------------------------------------------------- for people

    def _say(self, text: str) -> None:
        self.told.append(f"{self.now}: {text}")

    def _note(self, work: Work) -> None:
        for note in work.notes:
            self.told.append(f"{self.now}:     {note.text}")


_NEEDED: Final[tuple[tuple[Callable[[ShortRun], None], int], ...]] = (
    (ShortRun._let_talk, 24),
    (ShortRun._campaign, 8),
    (ShortRun._overthrow, 8),
    (ShortRun._rivals, 5),
)
"""Without these nothing comes about."""
_CHOICES: Final[tuple[tuple[Callable[[ShortRun], None], int], ...]] = (
    *_NEEDED,
    (ShortRun._deliver, 20),
    (ShortRun._stand_alone, 3),
    (ShortRun._double, 6),
    (ShortRun._drop, 3),
    (ShortRun._sync, 6),
    (ShortRun._crash, 3),
    (ShortRun._crash_leader, 3),
    (ShortRun._restart, 8),
    (ShortRun._pass_time, 5),
    (ShortRun._pass_long, 4),
    (ShortRun._put, 12),
    (ShortRun._put_numbered, 6),
    (ShortRun._repeat, 4),
    (ShortRun._read, 8),
    (ShortRun._read_at_follower, 5),
    (ShortRun._transfer, 2),
)
"""What can be chosen, and how likely it is before the run has drawn what it likes."""


def short_run(seed: int) -> int:
    """The short run of that seed; its turns. Raises RunFailed."""
    made = ShortRun(Random(seed))
    try:
        made.run()
    except Exception as error:
        command = "raftkv simulate --short --seed"
        raise RunFailed(seed, command=command, cause=error, told=made.told, steps=made.turns) from error
    return made.turns
