"""A whole cluster in virtual time: the replicas that ship, a network and disks that fail, one clock.

Told: what to break, and how long to run. Tells, after every step, whoever watches. Every event has a
time and a number; the same seed gives the same events in the same order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from random import Random

from raftkv.core.effects import DiskWrite, Exchange, LogBase, LogRead
from raftkv.core.messages import REPLY_TYPES, Envelope
from raftkv.core.settings import RaftSettings
from raftkv.core.state import Identity
from raftkv.core.types import ClusterId, Configuration, Incarnation, Index, Member, NodeId, Role, Term, membership_of
from raftkv.replica import ReplicaSettings, Work
from raftkv.sim.world.network import Network, NetworkFaults
from raftkv.sim.world.node import VirtualNode
from raftkv.state_machine import StateMachine
from raftkv.transport import codec

CLUSTER_ID = ClusterId(b"virtual cluster.")


@dataclass(slots=True, eq=False)
class VirtualExchange:
    """A request that waits for its one reply."""

    number: int
    request: Envelope
    asker_life: int
    arrived_us: int
    answered: bool = False


@dataclass(frozen=True, slots=True)
class DiskFaults:
    """How slow disks are, in microseconds."""

    sync_us_min: int = 100
    sync_us_max: int = 400
    read_us: int = 500


@dataclass(slots=True)
class Watcher:
    """Looks at the cluster after every step; overridden by checkers and story tellers."""

    def stepped(self, node: VirtualNode, work: Work) -> None:
        """This node has just had a turn."""

    def synced(self, node: VirtualNode, write: DiskWrite) -> None:
        """This write is durable on this node's disk now."""

    def crashed(self, node: VirtualNode) -> None:
        """This node's process is gone."""

    def started(self, node: VirtualNode) -> None:
        """This node's process runs again."""

    def heard(self, node: VirtualNode, envelope: Envelope) -> None:
        """This message has just arrived at the node's process, which may be paused."""

    def broke(self, kind: str) -> None:
        """A fault of that name has just been made."""


@dataclass(slots=True)
class Plan:
    """What a cluster is made of."""

    voters: tuple[str, ...] = ("a", "b", "c")
    raft: RaftSettings = field(default_factory=RaftSettings)
    replica: ReplicaSettings = field(default_factory=ReplicaSettings)
    network: NetworkFaults = field(default_factory=NetworkFaults)
    disk: DiskFaults = field(default_factory=DiskFaults)
    gathering_us_max: int = 0
    """What arrives at a node waits up to this long for its next turn, so that several things make one; 0: each
    has a turn of its own, at once."""


class CutOff(Exception):
    """The world was to end at this step."""


class VirtualCluster:
    """Nodes, network and disks under one clock."""

    def __init__(self, plan: Plan, rng: Random, make_machine: Callable[[], StateMachine]) -> None:
        self.plan = plan
        self.rng = rng
        self.now_us = 0
        self.steps = 0
        self.steps_max: int | None = None
        """After so many, ``step`` raises CutOff."""
        self.network = Network(rng, plan.network)
        self.watchers: list[Watcher] = []
        self.interceptor: Callable[[Envelope, Callable[[], None]], bool] | None = None
        """Takes messages away from the network to deliver them, or not, when it likes."""
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._event_count = 0
        self._exchange_count = 0
        self._open_exchanges: dict[NodeId, dict[int, VirtualExchange]] = {}
        self.nodes: dict[NodeId, VirtualNode] = {}
        members = [Member(NodeId(name), incarnation_of(name), f"http://{name}") for name in plan.voters]
        base = LogBase(Index(0), Term(0), Configuration(membership_of(members)))
        for member in members:
            identity = Identity(member.id, member.incarnation, CLUSTER_ID)
            self._open_exchanges[member.id] = {}
            self.nodes[member.id] = VirtualNode(
                identity,
                base,
                raft_settings=plan.raft,
                replica_settings=plan.replica,
                make_machine=make_machine,
                world_us=lambda: self.now_us,
            )

    # ------------------------------------------------------------------------------------- the clock

    def after(self, delay_us: int, act: Callable[[], None]) -> None:
        """Has ``act`` called that much later."""
        self._event_count += 1
        heappush(self._events, (self.now_us + delay_us, self._event_count, act))

    def run_until(self, until_us: int) -> None:
        """Lets everything happen that happens before or at that time."""
        while self._events and self._events[0][0] <= until_us:
            self.step()
        self.now_us = max(self.now_us, until_us)

    def run_for(self, duration_us: int) -> None:
        """The same, counted from now."""
        self.run_until(self.now_us + duration_us)

    def run_while(self, condition: Callable[[], bool], *, at_most_us: int) -> bool:
        """Runs until the condition no longer holds; whether that came to pass in time."""
        until_us = self.now_us + at_most_us
        while condition():
            if not self._events or self._events[0][0] > until_us:
                self.now_us = max(self.now_us, until_us)
                return False
            self.step()
        return True

    def step(self) -> None:
        """The next event happens."""
        if self.steps == self.steps_max:
            raise CutOff
        self.now_us, _, act = heappop(self._events)
        self.steps += 1
        act()

    # --------------------------------------------------------------------------------------- processes

    def start_all(self) -> None:
        """Every node that is down starts."""
        for node in self.nodes.values():
            if not node.is_up:
                self.start(node.id)

    def start(self, name: str) -> None:
        """The node's process begins with what its disk holds."""
        node = self.nodes[NodeId(name)]
        node.start(self.rng)
        for watcher in self.watchers:
            watcher.started(node)
        self.turn(node)

    def crash(self, name: str) -> None:
        """As by kill -9; whoever waits for its replies hears the connection break."""
        node = self.nodes[NodeId(name)]
        node.crash(self.rng)
        broken = self._open_exchanges[node.id]
        self._open_exchanges[node.id] = {}
        for exchange in broken.values():
            self._tell_failure(exchange.request, exchange.asker_life)
        for watcher in self.watchers:
            watcher.crashed(node)

    def pause(self, name: str) -> None:
        """SIGSTOP: nothing happens in it; what arrives waits."""
        self.nodes[NodeId(name)].paused = True

    def stall(self, name: str, duration_us: int) -> None:
        """SIGSTOP in the middle of the node's next turn, between its look at the clock and everything else; SIGCONT."""
        self.nodes[NodeId(name)].stall_us = duration_us

    def resume(self, name: str) -> None:
        """SIGCONT. A turn that was stopped goes on with the time that it had read."""
        node = self.nodes[NodeId(name)]
        if node.paused:
            node.paused = False
            stalled_at_us, node.stalled_at_us = node.stalled_at_us, None
            if stalled_at_us is not None:
                self._turn_at(node, stalled_at_us)
            unheard, node.unheard = node.unheard, []
            for act in unheard:
                act()
            self.turn(node)

    def leader(self) -> VirtualNode | None:
        """The leader of the highest term among those who run."""
        leaders = [node for node in self.nodes.values() if node.is_up and node.raft.role is Role.LEADER]
        return max(leaders, key=lambda node: node.raft.term, default=None)

    # ------------------------------------------------------------------------------------------- turns

    def turn(self, node: VirtualNode) -> None:
        """One turn of the node's pump: what has gathered is done, what is wanted is set going."""
        if not node.is_up or node.paused:
            return
        local_us = node.read_clock_us()
        if node.stall_us:
            duration_us, node.stall_us, life = node.stall_us, 0, node.life
            node.paused, node.stalled_at_us = True, local_us
            self.after(duration_us, lambda: self.resume(node.id) if node.life == life else None)
            return
        self._turn_at(node, local_us)

    def _turn_at(self, node: VirtualNode, local_us: int) -> None:
        work = node.running.turn(local_us)
        for write in work.persist:
            self._write(node, write)
        for envelope in work.requests:
            self._send_request(node, envelope)
        for exchange, reply in work.replies:
            self._send_reply(self._closed(node, exchange), reply)
        for exchange, _ in work.refusals:
            closed = self._closed(node, exchange)
            self._tell_failure(closed.request, closed.asker_life)
        for read in work.read_log:
            self._read_log(node, read)
        self._schedule(node, work.deadline_us)
        for watcher in self.watchers:
            watcher.stepped(node, work)

    def poke(self, name: str) -> None:
        """Something was enqueued at the node from outside; it gets a turn."""
        self._wake(self.nodes[NodeId(name)])

    def reach(self, name: str, act: Callable[[], None]) -> None:
        """In the node's process, now or as soon as it is continued; it gets no turn by that."""
        node = self.nodes[NodeId(name)]
        if node.paused:
            node.unheard.append(lambda: self.reach(name, act))
        else:
            act()

    def _happens(self, node: VirtualNode, act: Callable[[], None]) -> None:
        """In the node's process: now, or as soon as it is continued."""
        if node.paused:
            node.unheard.append(act)
        else:
            act()
            self._wake(node)

    def _wake(self, node: VirtualNode) -> None:
        """Gives the node a turn, soon."""
        if self.plan.gathering_us_max == 0:
            self.turn(node)
        elif not node.turn_is_coming:
            node.turn_is_coming, life = True, node.life

            def come() -> None:
                if node.life == life and node.is_up:
                    node.turn_is_coming = False
                    self.turn(node)

            self.after(self.rng.randrange(self.plan.gathering_us_max + 1), come)

    def _schedule(self, node: VirtualNode, deadline_us: int | None) -> None:
        """One event waits for each node's deadline; where that has moved on meanwhile, it waits again."""
        if deadline_us is None:
            node.turn_due_us = None
            return
        due_us = node.turn_due_us = max(self.now_us, node.clock.world_us(deadline_us))
        if node.timer_at_us is not None and node.timer_at_us <= due_us:
            return
        node.timer_at_us, life = due_us, node.life

        def timer() -> None:
            if node.life != life or node.timer_at_us != due_us:
                return
            node.timer_at_us = None
            if node.turn_due_us is not None and node.turn_due_us > self.now_us:
                self._schedule(node, deadline_us=node.clock.local_us(node.turn_due_us))
            else:
                self.turn(node)

        self.after(due_us - self.now_us, timer)

    def _closed(self, node: VirtualNode, exchange: Exchange) -> VirtualExchange:
        assert isinstance(exchange, VirtualExchange)
        assert not exchange.answered, f"a second reply to {exchange.request}"
        exchange.answered = True
        del self._open_exchanges[node.id][exchange.number]
        return exchange

    def unanswered(self, *, since_us: int) -> list[Envelope]:
        """Requests that arrived at or before that time at nodes that have run ever since, and have no reply yet."""
        return [
            exchange.request
            for name, node in self.nodes.items()
            if not node.paused
            for exchange in self._open_exchanges[name].values()
            if exchange.arrived_us <= since_us
        ]

    # -------------------------------------------------------------------------------------------- disk

    def _write(self, node: VirtualNode, write: DiskWrite) -> None:
        node.disk.unfinished.append(write)
        if len(node.disk.unfinished) == 1:
            self._begin_sync(node)

    def _begin_sync(self, node: VirtualNode) -> None:
        """All that has gathered is one batch; what comes while it is being synced waits for the next."""
        node.disk.syncs += 1
        count, number, faults, life = len(node.disk.unfinished), node.disk.syncs, self.plan.disk, node.life
        duration_us = self.rng.randrange(faults.sync_us_min, faults.sync_us_max + 1)
        self.after(duration_us, lambda: self._end_sync(node, life, number, count))

    def _end_sync(self, node: VirtualNode, life: int, number: int, count: int) -> None:
        if node.life != life or not node.is_up or node.disk.hangs or node.disk.syncs != number:
            return
        for _ in range(count):
            write = node.disk.finish_one()
            for watcher in self.watchers:
                watcher.synced(node, write)
        if node.disk.unfinished:
            self._begin_sync(node)
        self._happens(node, lambda: node.running.persisted(write.ticket))

    def hang_disk(self, name: str) -> None:
        """The disk answers nothing until it is let go."""
        self.nodes[NodeId(name)].disk.hangs = True

    def let_disk_go(self, name: str) -> None:
        """The disk works again."""
        node = self.nodes[NodeId(name)]
        if node.disk.hangs:
            node.disk.hangs = False
            if node.is_up and node.disk.unfinished:
                self._begin_sync(node)

    def _read_log(self, node: VirtualNode, read: LogRead) -> None:
        life = node.life

        def done() -> None:
            if node.life == life and node.is_up:
                frames = node.disk.read(read)
                self._happens(node, lambda: node.running.log_was_read(read, frames))

        self.after(self.plan.disk.read_us, done)

    # ----------------------------------------------------------------------------------------- network

    def _send_request(self, node: VirtualNode, envelope: Envelope) -> None:
        packed, asker_life = codec.encode(envelope), node.life
        if not self._carry(envelope, lambda: self._arrive(packed, asker_life)):
            self._tell_failure(envelope, asker_life)

    def _carry(self, envelope: Envelope, deliver: Callable[[], None]) -> bool:
        """Whether the message arrives, once or more."""
        if self.interceptor is not None and self.interceptor(envelope, deliver):
            return True
        arrivals_us = self.network.arrivals_us(envelope, now_us=self.now_us)
        for arrival_us in arrivals_us:
            self.after(arrival_us - self.now_us, deliver)
        return bool(arrivals_us)

    def _arrive(self, packed: bytes, asker_life: int) -> None:
        request = codec.decode(packed)
        node = self.nodes.get(request.receiver)
        if node is None or not node.is_up:
            self._tell_failure(request, asker_life)
            return
        self._exchange_count += 1
        exchange = VirtualExchange(self._exchange_count, request, asker_life, self.now_us)
        self._open_exchanges[node.id][exchange.number] = exchange
        self._tell_heard(node, request)
        self._happens(node, lambda: node.running.receive(request, exchange))

    def _send_reply(self, exchange: VirtualExchange, reply: Envelope) -> None:
        packed = codec.encode(reply)
        if not self._carry(reply, lambda: self._arrive_reply(packed, exchange.asker_life)):
            self._tell_failure(exchange.request, exchange.asker_life)

    def _arrive_reply(self, packed: bytes, asker_life: int) -> None:
        reply = codec.decode(packed)
        assert isinstance(reply.message, REPLY_TYPES)
        node = self.nodes.get(reply.receiver)
        if node is not None and node.is_up and node.life == asker_life:
            self._tell_heard(node, reply)
            self._happens(node, lambda: node.running.receive(reply))

    def _tell_heard(self, node: VirtualNode, envelope: Envelope) -> None:
        for watcher in self.watchers:
            watcher.heard(node, envelope)

    def _tell_failure(self, request: Envelope, asker_life: int) -> None:
        """As a broken connection would, some time later, to whoever is still there to hear it."""
        node = self.nodes.get(request.sender)
        if node is None or not self.network.tells_failure():
            return

        def told() -> None:
            if node.is_up and node.life == asker_life:
                self._happens(node, lambda: node.running.delivery_failed(request))

        self.after(_FAILURE_TOLD_AFTER_US, told)


_FAILURE_TOLD_AFTER_US = 2_000


def incarnation_of(name: str) -> Incarnation:
    """The incarnation of a virtual node's first life."""
    return Incarnation(name.encode()[:16].ljust(16, b"."))
