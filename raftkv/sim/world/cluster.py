"""A whole cluster in virtual time: the replicas that ship, a network and disks that fail, one clock.

Told: what to break, and how long to run. Tells, after every step, whoever watches. Every event has a
time and a number; the same seed gives the same events in the same order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from random import Random
from typing import Final

from raftkv.core.effects import Exchange, LogBase
from raftkv.core.messages import REPLY_TYPES, Envelope
from raftkv.core.raft import Raft
from raftkv.core.settings import RaftSettings
from raftkv.core.state import Identity
from raftkv.core.types import ClusterId, Configuration, Incarnation, Index, Member, NodeId, Role, Term, membership_of
from raftkv.pump import Pump, PumpShell
from raftkv.replica import ReplicaSettings, Work
from raftkv.sim.world.births import Births, url_of
from raftkv.sim.world.disks import DiskFaults as DiskFaults
from raftkv.sim.world.disks import Disks
from raftkv.sim.world.network import Network, NetworkFaults
from raftkv.sim.world.node import Disk, ModelDisk, VirtualNode
from raftkv.sim.world.process import Process
from raftkv.sim.world.wal_disk import WalDisk
from raftkv.sim.world.watching import Watcher as Watcher
from raftkv.snapshotting import SnapshotSettings
from raftkv.state_machine import StateMachine
from raftkv.storage.snapshots import Snapshots, StoredSnapshot
from raftkv.transport import codec

STRANGERS_TERM: Final = 10_000_000
"""Of what strangers say: no node of the cluster comes there by itself."""
_STRANGERS_LIFE: Final = -1
CLUSTER_ID = ClusterId(b"virtual cluster.")


@dataclass(slots=True, eq=False)
class VirtualExchange:
    """A request that waits for its one reply."""

    number: int
    request: Envelope
    asker_life: int
    arrived_us: int
    answered: bool = False


@dataclass(slots=True)
class Plan:
    """What a cluster is made of."""

    voters: tuple[str, ...] = ("a", "b", "c")
    spares: tuple[str, ...] = ()
    """Nodes that wait to be let in."""
    members_change: bool = False
    """Whoever is to find the cluster must know of all nodes: any of them may be the last that is left."""
    raft: RaftSettings = field(default_factory=RaftSettings)
    replica: ReplicaSettings = field(default_factory=ReplicaSettings)
    snapshots: SnapshotSettings = field(default_factory=SnapshotSettings)
    network: NetworkFaults = field(default_factory=NetworkFaults)
    disk: DiskFaults = field(default_factory=DiskFaults)
    gathering_us_max: int = 0
    """What arrives at a node waits up to this long for its next turn, so that several things make one; 0: each
    has a turn of its own, at once."""
    segment_bytes: int = 0
    """Of each node's log on a simulated disk, in a directory that is fresh, so that the cluster forms first; 0: there
    are no files, only a model of a disk, and the cluster is formed."""


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
        self.disks = Disks(self)
        self.births = Births(self, plan.voters)
        self.when_it_ends: Callable[[VirtualNode], None] = lambda node: None
        """Told of a node that ended by itself: its disk failed, or it died in the middle of an operation of it."""
        self.nodes: dict[NodeId, VirtualNode] = {}
        members = [Member(NodeId(name), incarnation_of(name), url_of(name)) for name in plan.voters]
        base = LogBase(Index(0), Term(0), Configuration(membership_of(members)))
        self._make_machine = make_machine
        for member in members:
            self._add(member.id, base)
        for name in plan.spares:
            self.add_spare(name)

    def add_spare(self, name: str) -> None:
        """A node of the cluster that is no member yet; its disk is empty."""
        self._add(NodeId(name), LogBase(Index(0), Term(0), Configuration(membership_of([]))))

    def _add(self, name: NodeId, base: LogBase) -> None:
        self._open_exchanges[name] = {}
        self.nodes[name] = VirtualNode(
            Identity(name, incarnation_of(name), CLUSTER_ID),
            base,
            raft_settings=self.plan.raft,
            replica_settings=self.plan.replica,
            make_machine=self._make_machine,
            world_us=lambda: self.now_us,
            disk=self._disk_of(name, base),
            snapshot_settings=self.plan.snapshots,
        )

    def _disk_of(self, name: NodeId, base: LogBase) -> Disk:
        if not self.plan.segment_bytes:
            return ModelDisk(base)
        return WalDisk(name, Random(self.rng.randrange(2**32)), segment_bytes=self.plan.segment_bytes)

    @property
    def disk_faults(self) -> DiskFaults:
        """How slow disks are."""
        return self.plan.disk

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
            if not node.runs:
                self.start(node.id)

    def start(self, name: str) -> None:
        """The node's process begins with what its disk holds."""
        node = self.nodes[NodeId(name)]
        assert not node.runs, f"{name} runs"
        draw_us, gathering_us_max = self.rng.randrange, self.plan.gathering_us_max
        node.process = Process(
            self,
            lambda: node.clock,
            stall_is_over=lambda: self.resume(node.id),
            gathering_us=(lambda: draw_us(gathering_us_max + 1)) if gathering_us_max else None,
        )
        node.complaints, node.waits_for = {}, ""
        if isinstance(node.disk, WalDisk):
            node.life += 1
            self.births.begin(node)
        else:
            node.start(self.rng)
            self._runs(node)

    def take_part(self, node: VirtualNode, raft: Raft, snapshots: Snapshots, restored: StoredSnapshot | None) -> None:
        """The node is a member of Raft from now on."""
        node.begin(raft, snapshots, restored)
        self._runs(node)

    def _runs(self, node: VirtualNode) -> None:
        assert node.process is not None
        shell = PumpShell(
            work=lambda work: self._work(node, work),
            send=lambda envelope: self._send_request(node, envelope),
            reply=lambda exchange, reply: self._send_reply(self._closed(node, exchange), reply),
            refuse=lambda exchange, _: self._refuse(self._closed(node, exchange)),
            failed=_raise,
            took=lambda _: self._stepped(node),
        )
        node.pump = Pump(node.running, node.process, shell)
        for watcher in self.watchers:
            watcher.started(node)
        self._wake(node)

    def crash(self, name: str, *, power_fails: bool = False) -> None:
        """As by kill -9, or for lack of power; whoever waits for its replies hears the connection break."""
        node = self.nodes[NodeId(name)]
        took_part = node.is_up
        node.crash(self.rng, power_fails=power_fails)
        self._is_gone(node, took_part=took_part)

    def halt(self, node: VirtualNode, error: BaseException) -> None:
        """The node ends itself, with this error, as a real one does; nothing more is written or said."""
        if not node.runs:
            return
        assert isinstance(node.disk, WalDisk)
        took_part = node.is_up
        node.end()
        node.disk.end(self.rng)
        for watcher in self.watchers:
            watcher.halted(node, error)
        self._is_gone(node, took_part=took_part)
        self.when_it_ends(node)

    def dies(self, node: VirtualNode) -> None:
        """The node died in an operation of its disk, with the machine or alone."""
        assert isinstance(node.disk, WalDisk)
        took_part = node.is_up
        node.end()
        node.disk.end(self.rng, power_fails=self.rng.randrange(2) == 0)
        self._is_gone(node, took_part=took_part)
        self.when_it_ends(node)

    def _is_gone(self, node: VirtualNode, *, took_part: bool) -> None:
        broken = self._open_exchanges[node.id]
        self._open_exchanges[node.id] = {}
        for exchange in broken.values():
            self._tell_failure(exchange.request, exchange.asker_life)
        if took_part:
            for watcher in self.watchers:
                watcher.crashed(node)

    def stored_configuration(self) -> Configuration | None:
        """That with which the cluster was, or is to be, formed, as some directory has it; None: none has it yet."""
        for node in self.nodes.values():
            stored = node.disk.stored() if isinstance(node.disk, WalDisk) else None
            if stored is not None and stored.initial_configuration is not None:
                return stored.initial_configuration
        return None

    def sound_nodes(self) -> list[VirtualNode]:
        """Those who must take part when everything works: who still hold what they formed the cluster with."""
        if not self.plan.segment_bytes:
            return list(self.nodes.values())
        configuration = self.stored_configuration()
        members = {} if configuration is None else configuration.members()
        return [
            node
            for node in self.nodes.values()
            if isinstance(node.disk, WalDisk)
            and not node.disk.is_lost
            and not self._came_later(node)
            and (not members or members[node.id].incarnation == node.disk.incarnation)
        ]

    def members(self) -> list[VirtualNode]:
        """Those whom the newest leader's configuration lists, but for who is not sound, or is not who it lists; nobody,
        while nobody leads or a change runs.
        """
        leader = self.leader()
        if leader is None or leader.raft.change_status is not None or not leader.raft.state.configuration_is_committed:
            return []
        sound = [node.id for node in self.sound_nodes()]
        listed = [(self.nodes[id], member) for id, member in leader.raft.state.configurations.members.items()]
        return [
            node
            for node, member in listed
            if node.id in sound or (self._came_later(node) and node.incarnation == member.incarnation)
        ]

    def _came_later(self, node: VirtualNode) -> bool:
        """Whether the cluster was formed without this node, as it is now."""
        return node.joins or node.id in self.plan.spares

    def pause(self, name: str) -> None:
        """SIGSTOP: nothing happens in it; what arrives waits."""
        process = self.nodes[NodeId(name)].process
        if process is not None:
            process.stop()

    def suspend(self, name: str) -> None:
        """The machine sleeps; its timers will come later by as long, its clock goes on."""
        process = self.nodes[NodeId(name)].process
        if process is not None:
            process.suspend()

    def block_loop(self, name: str) -> None:
        """Something keeps the node's event loop from its next turn; its disk thread goes on."""
        node = self.nodes[NodeId(name)]
        if node.process is not None and not node.paused:
            node.disk_goes_on = True
            node.process.stop()

    def stall(self, name: str, duration_us: int) -> None:
        """SIGSTOP in the middle of the node's next turn, between its look at the clock and everything else; SIGCONT."""
        process = self.nodes[NodeId(name)].process
        if process is not None:
            process.stall_us = duration_us

    def resume(self, name: str) -> None:
        """The process goes on. A turn that was stopped goes on with the time that it had read."""
        node = self.nodes[NodeId(name)]
        process = node.process
        if process is None or not process.stands_still:
            return
        node.disk_goes_on = False
        process.go_on()
        unheard, node.unheard = node.unheard, []
        for act in unheard:
            if not process.is_gone:
                act()
        if not process.is_gone:
            process.release()
            self.disks.go_on(node)
            self._wake(node)

    def leader(self) -> VirtualNode | None:
        """The leader of the highest term among those who run."""
        leaders = [node for node in self.nodes.values() if node.is_up and node.raft.role is Role.LEADER]
        return max(leaders, key=lambda node: node.raft.term, default=None)

    # ------------------------------------------------------------------------------------------- turns

    def _work(self, node: VirtualNode, work: Work) -> None:
        node.work = work
        self.disks.submit(node, work.persist, work.read_log)
        self.disks.trim(node, work.drop_log_through)
        if work.snapshots:
            self.disks.keep_snapshots(node, work.snapshots)

    def _stepped(self, node: VirtualNode) -> None:
        for watcher in self.watchers:
            watcher.stepped(node, node.work)

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

    def happens(self, node: VirtualNode, act: Callable[[], None]) -> None:
        """In the node's process: now, or as soon as it is continued."""
        if node.paused:
            node.unheard.append(act)
        else:
            act()
            self._wake(node)

    def _wake(self, node: VirtualNode) -> None:
        """Gives the node a turn, soon."""
        if node.pump is not None:
            node.pump.schedule()

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

    def hang_disk(self, name: str) -> None:
        """The disk answers nothing until it is let go."""
        self.nodes[NodeId(name)].disk.hangs = True

    def let_disk_go(self, name: str) -> None:
        """The disk works again."""
        self.disks.let_go(self.nodes[NodeId(name)])

    def slow_disk_down(self, name: str, slowness: int) -> None:
        """Everything takes the disk so many times as long; 1: as long as others."""
        node = self.nodes[NodeId(name)]
        if slowness == 1:
            self.disks.speed_up(node)
        else:
            node.disk.slowness = slowness

    # ----------------------------------------------------------------------------------------- network

    def _send_request(self, node: VirtualNode, envelope: Envelope) -> None:
        packed, asker_life = codec.encode(envelope), node.life
        if not self._carry(envelope, lambda: self._arrive(packed, asker_life)):
            self._tell_failure(envelope, asker_life)

    def _carry(self, envelope: Envelope, deliver: Callable[[], None]) -> bool:
        """Whether the message arrives, once or more."""
        if self.interceptor is not None and self.interceptor(envelope, deliver):
            return True
        arrivals_us = self.network.arrivals_us(envelope.sender, envelope.receiver, now_us=self.now_us)
        for arrival_us in arrivals_us:
            self.after(arrival_us - self.now_us, deliver)
        return bool(arrivals_us)

    def _arrive(self, packed: bytes, asker_life: int, node: VirtualNode | None = None) -> None:
        request = codec.decode(packed)
        node = node or self.nodes.get(request.receiver)
        if node is None or not node.runs:
            self._tell_failure(request, asker_life)
            return
        self._exchange_count += 1
        exchange = VirtualExchange(self._exchange_count, request, asker_life, self.now_us)
        self._open_exchanges[node.id][exchange.number] = exchange
        self._tell_heard(node, request)
        self.happens(node, lambda: self._receive(node, exchange))

    def hear_stranger(self, node: VirtualNode, envelope: Envelope) -> None:
        """Somebody who is no member reaches the node, and says this."""
        self._arrive(codec.encode(envelope), _STRANGERS_LIFE, node)

    def _receive(self, node: VirtualNode, exchange: VirtualExchange) -> None:
        if node.replica is not None:
            node.replica.receive(exchange.request, exchange)
            return
        self._refuse(self._closed(node, exchange))
        self.births.hear(node, exchange.request)

    def _refuse(self, exchange: VirtualExchange) -> None:
        self._tell_failure(exchange.request, exchange.asker_life)

    def _send_reply(self, exchange: VirtualExchange, reply: Envelope) -> None:
        if exchange.asker_life == _STRANGERS_LIFE:
            for watcher in self.watchers:
                watcher.answered_a_stranger(self.nodes[reply.sender], exchange.request, reply)
            return
        packed = codec.encode(reply)
        if not self._carry(reply, lambda: self._arrive_reply(packed, exchange.asker_life)):
            self._tell_failure(exchange.request, exchange.asker_life)

    def _arrive_reply(self, packed: bytes, asker_life: int) -> None:
        reply = codec.decode(packed)
        assert isinstance(reply.message, REPLY_TYPES)
        node = self.nodes.get(reply.receiver)
        if node is not None and node.is_up and node.life == asker_life:
            self._tell_heard(node, reply)
            self.happens(node, lambda: node.running.receive(reply))

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
                self.happens(node, lambda: node.running.delivery_failed(request))

        self.after(_FAILURE_TOLD_AFTER_US, told)


_FAILURE_TOLD_AFTER_US = 2_000


def incarnation_of(name: str) -> Incarnation:
    """The incarnation of a virtual node's first life."""
    return Incarnation(name.encode()[:16].ljust(16, b"."))


def _raise(error: BaseException) -> None:
    """A turn that raises is a bug, and ends the run that found it."""
    raise error
