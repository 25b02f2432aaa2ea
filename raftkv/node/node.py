"""One node: brings the rooms together, starts them in order, stops them in order.

    directory and identity → front door → introductions until the cluster is formed → log → replica, pump

Everything here runs on the event loop; only the disk thread writes. Whatever breaks ends the node with the
error that says why: it never goes on from a state that nobody foresaw.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from asyncio import AbstractEventLoop
from dataclasses import replace
from random import Random
from typing import Any, Final

from raftkv.api.aiohttp_front import AiohttpFront
from raftkv.api.routes import Api
from raftkv.config import NodeConfig
from raftkv.core import state as core_state
from raftkv.core.effects import Exchange, LogRead
from raftkv.core.formation import Formation
from raftkv.core.messages import Envelope, Introduction
from raftkv.core.raft import Raft
from raftkv.core.types import ID_BYTES, Incarnation, Member, NodeId, Ticket
from raftkv.errors import DataError, Misdirected, RaftkvError
from raftkv.http.door import Door, DoorSettings
from raftkv.kv.machine import KeyValueMachine
from raftkv.node.disk import DiskListener, DiskThread
from raftkv.node.metrics import NodeMetrics, Reading
from raftkv.node.peers import Peers
from raftkv.node.pump import Pump, PumpShell
from raftkv.node.service import NodeService
from raftkv.outcomes import TransferOutcome
from raftkv.replica import Replica, Work
from raftkv.storage.directory import PosixDirectory
from raftkv.storage.identity import IdentityFile
from raftkv.storage.recovery import Recovered
from raftkv.storage.wal import Wal
from raftkv.transport.routes import PeerExchange, PeerRoutes

_LOG: Final = logging.getLogger("raftkv.node")
INTRODUCE_EVERY_S: Final = 1.0
STOP_GRACE_S: Final = 2.0
"""For answers that are on their way when everything else is done."""


class Node:
    """A node that serves from ``start`` until ``stop``; ``ended`` is done when it should stop, or had to."""

    def __init__(self, config: NodeConfig, loop: AbstractEventLoop) -> None:
        self.config = config
        self.ended: asyncio.Future[BaseException | None] = loop.create_future()
        self._loop = loop
        self._rng = Random(secrets.randbits(64))
        self._directory = PosixDirectory(config.data_dir)
        try:
            self._identity = IdentityFile.open(
                self._directory, node_id=config.id, new_incarnation=Incarnation(secrets.token_bytes(ID_BYTES))
            )
        except BaseException:
            self._directory.close()
            raise
        identity = self._identity.identity
        self._formation = Formation(
            Member(config.id, identity.incarnation, config.url),
            config.initial_cluster,
            cluster_id=identity.cluster_id,
            configuration=identity.initial_configuration,
            formed=identity.formed,
        )
        self._service = NodeService(config.id, has_work=self._has_work, why_not_formed=self._why_not_formed)
        self._metrics = NodeMetrics(self._reading)
        api = Api(self._service, node_id=config.id, settings=config.api, metrics=self._metrics.text)
        self._front = AiohttpFront(api, config.api)
        self._door = Door(loop, PeerRoutes(self), self._front, DoorSettings())
        self._peers = Peers(config.transport, self._rng, self._introduction, self)
        self._server: asyncio.Server | None = None
        self._replica: Replica | None = None
        self._disk: DiskThread | None = None
        self._pump: Pump | None = None
        self._beginning: asyncio.Task[None] | None = None
        self._said = ""

    # ------------------------------------------------------------------------------------ start, stop

    async def start(self) -> None:
        """The port is bound; the cluster forms, or goes on, by itself."""
        address = self.config.listen
        self._server = await self._loop.create_server(self._door, address.host, address.port, backlog=1024)
        self._reach_members()
        self._formation_moved()
        if self._beginning is None:
            self._introduce_on()

    async def stop(self) -> None:
        """Leadership is handed over, what is in flight answered, everything synced and closed."""
        self._service.stopping = True
        if self._beginning is not None:
            await asyncio.gather(self._beginning, return_exceptions=True)
        if self._replica is not None and self._service.failure is None:
            self._replica.shutting_down = True
            await self._hand_over()
            await self._finish_writes()
        if self._server is not None:
            self._server.close()
        await self._front.stop(STOP_GRACE_S)
        await self._door.close(STOP_GRACE_S)
        if self._pump is not None:
            self._pump.stop()
        await self._peers.close()
        if self._disk is not None:
            await asyncio.to_thread(self._disk.stop)
        self._directory.close()

    async def _hand_over(self) -> None:
        """Ends by itself: a transfer that nobody answers is given up after two election timeouts."""
        handed: asyncio.Future[TransferOutcome] = self._loop.create_future()
        self._service.transfer_leadership(None, lambda outcome: _settle(handed, outcome))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(4 * self.config.raft.election_timeout_ms / 1000):
                await handed

    async def _finish_writes(self) -> None:
        """Clients that wait hear what became of their writes, or that it is not known."""
        replica = self._replica
        assert replica is not None
        emptied: asyncio.Future[None] = self._loop.create_future()
        replica.when_idle(lambda: _settle(emptied, None))
        self._has_work()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.config.replica.request_timeout_ms / 1000 + 1):
                await emptied

    def _fail(self, error: BaseException) -> None:
        """The node halts: nothing more is written, sent or answered."""
        if self._service.failure is None:
            self._service.failure = str(error)
            _LOG.critical("this node stops: %s", error, exc_info=None if isinstance(error, RaftkvError) else error)
        if self._pump is not None:
            self._pump.stop()
        if not self.ended.done():
            self.ended.set_result(error)

    # ---------------------------------------------------------------------------------------- forming

    def _reach_members(self) -> None:
        configuration = self._formation.configuration
        if configuration is None:
            members = list(self.config.initial_cluster)
        else:
            members = [(member.id, member.url) for member in configuration.members().values()]
        self._peers.reach([(id, url) for id, url in members if id != self.config.id])

    def _introduce_on(self) -> None:
        """While the cluster is not formed, everybody hears of this node once a second, and the operator once."""
        if self._beginning is not None or self._service.stopping or self._service.failure is not None:
            return
        why = self._why_not_formed()
        if why != self._said:
            self._said = why
            _LOG.warning("%s", why)
        self._peers.introduce_again()
        self._loop.call_later(INTRODUCE_EVERY_S, self._introduce_on)

    def _why_not_formed(self) -> str:
        formation = self._formation
        if formation.problem is not None:
            return formation.problem
        if formation.waits_for:
            return f"the cluster is not formed yet: waiting for {', '.join(formation.waits_for)}"
        if not self.config.initial_cluster and formation.cluster_id is None:
            return "the data directory is empty and no --initial-cluster says whom to form a cluster with"
        return "this node is starting"

    def _formation_moved(self) -> None:
        """What is new is stored before anybody hears of it; then Raft may begin.

        A store that failed is not tried again, and ends the node: callers are connections, whose own failures
        end only them.
        """
        if self._service.failure is not None:
            return
        try:
            self._store_formation()
        except DataError as error:
            self._fail(error)

    def _store_formation(self) -> None:
        formation, identity = self._formation, self._identity
        if formation.cluster_id is not None and identity.identity.cluster_id is None:
            identity.store_cluster(formation.cluster_id, formation.configuration)
            self._peers.introduce_again()
        if formation.formed and self._beginning is None:
            identity.store_formed()
            self._peers.introduce_again()
            self._beginning = self._loop.create_task(self._begin())

    def _introduction(self) -> Introduction:
        """What this node says of itself: only what is on stable storage."""
        stored = self._identity.identity
        return replace(self._formation.introduction(), cluster_id=stored.cluster_id, formed=stored.formed)

    async def _begin(self) -> None:
        """The log is read, and the node takes part."""
        try:
            wal, recovered = await asyncio.to_thread(
                Wal.open,
                self._directory,
                self._identity,
                segment_bytes=self.config.segment_bytes,
                tail_bytes_max=self.config.raft.log_memory_bytes,
            )
            self._take_part(wal, recovered)
        except Exception as error:  # noqa: BLE001 - the node ends with it
            self._fail(error)

    def _take_part(self, wal: Wal, recovered: Recovered) -> None:
        for note in recovered.notes:
            _LOG.warning("%s", note)
        identity = self._identity.identity
        assert identity.cluster_id is not None
        me = core_state.Identity(identity.node_id, identity.incarnation, identity.cluster_id)
        raft = Raft(me, self.config.raft, _saved(recovered), self._rng)
        machine = KeyValueMachine()
        replica = Replica(raft, machine, self.config.replica)
        shell = PumpShell(self._work, self._peers.send, self._reply, self._refuse, self._fail)
        self._pump = Pump(replica, self._loop, shell)
        listener = DiskListener(self._persisted, self._was_read, self._room_is_short, self._fail)
        self._disk = DiskThread(wal, self._loop, listener)
        self._replica = replica
        self._service.replica, self._service.machine = replica, machine
        self._service.cluster_id = identity.cluster_id
        self._service.log_bytes = lambda: wal.log_bytes
        _LOG.info(
            "takes part in cluster %s: term %d, log to %d",
            identity.cluster_id.hex(),
            recovered.term,
            recovered.last_index,
        )
        self._disk.start()
        self._pump.schedule()

    # ------------------------------------------------------------------- what the disk and the pump say

    def _has_work(self) -> None:
        if self._pump is not None:
            self._pump.schedule()

    def _work(self, work: Work) -> None:
        assert self._disk is not None
        if work.persist or work.read_log:
            self._disk.submit(work.persist, work.read_log)
        for note in work.notes:
            self._metrics.events[note.event] += 1
            _LOG.info("%s", note.text, extra={"event": note.event})

    def _persisted(self, ticket: Ticket) -> None:
        assert self._replica is not None
        self._replica.persisted(ticket)
        self._has_work()

    def _was_read(self, read: LogRead, frames: list[bytes]) -> None:
        assert self._replica is not None
        self._replica.log_was_read(read, frames)
        self._has_work()

    def _room_is_short(self, short: bool) -> None:
        assert self._replica is not None
        self._replica.disk_is_short = short
        _LOG.warning("the disk is full: puts are refused" if short else "the disk has room again")

    # --------------------------------------------------------------------------------- what peers say

    def on_message(self, envelope: Envelope, exchange: PeerExchange) -> None:
        """A peer's request."""
        if self._replica is not None:
            self._replica.receive(envelope, exchange)
            self._has_work()
            return
        cluster_id = self._identity.identity.cluster_id
        if cluster_id is None or envelope.cluster_id != cluster_id:
            text = f"{self.config.id} belongs to no cluster yet" if cluster_id is None else "another cluster's message"
            exchange.refuse(status=409, code="wrong_cluster", detail=text)
            return
        self._formation.heard_of_formation()
        self._formation_moved()
        exchange.refuse(status=503, code="no_leader", detail=f"{self.config.id} is starting")

    def on_introduction(self, introduction: Introduction, exchange: PeerExchange) -> None:
        """Somebody says who it is."""
        self._hear(introduction)
        exchange.introduce(self._introduction())

    def on_introduced(self, peer: NodeId, introduction: Introduction) -> None:
        """A peer answers our introduction with its own."""
        self._hear(introduction)

    def _hear(self, said: Introduction) -> None:
        if self._beginning is None:
            self._formation.hear(said)
            self._formation_moved()
            return
        if self._replica is None or said.sender == self.config.id:
            return
        member = self._replica.raft.state.configurations.members.get(said.sender)
        if member is None:
            return
        if member.incarnation == said.incarnation:
            self._peers.moved(said.sender, said.url)
        elif said.cluster_id not in (None, self._identity.identity.cluster_id):
            self._complain(
                f"the {said.sender} that says it is at {said.url} belongs to cluster {said.cluster_id.hex()}"
            )
        else:
            self._complain(f"{said.sender}'s data is gone; run raftkv member replace {said.sender}")

    def _complain(self, text: str) -> None:
        """Said once, until it is something else."""
        if text != self._said:
            self._said = text
            _LOG.error("%s", text)

    def on_reply(self, envelope: Envelope) -> None:
        """A peer's reply."""
        if self._replica is not None:
            self._replica.receive(envelope)
            self._has_work()

    def on_failed(self, peer: NodeId, request: Envelope, why: str) -> None:
        """A request of ours gets no reply."""
        if self._replica is not None:
            self._replica.delivery_failed(request)
            self._has_work()

    @staticmethod
    def _reply(exchange: Exchange, envelope: Envelope) -> None:
        assert isinstance(exchange, PeerExchange)
        exchange.reply(envelope)

    @staticmethod
    def _refuse(exchange: Exchange, error: RaftkvError) -> None:
        assert isinstance(exchange, PeerExchange)
        if isinstance(error, Misdirected):
            exchange.refuse(status=409, code="wrong_cluster", detail=str(error))
        else:
            exchange.refuse(status=400, code="bad_request", detail=str(error))

    def _reading(self) -> Reading | None:
        if self._replica is None or self._pump is None or self._disk is None:
            return None
        raft = self._replica.raft
        return Reading(
            term=raft.term,
            role=raft.role,
            commit_index=raft.commit_index,
            applied_index=raft.applied_index,
            last_index=raft.last_index,
            durable_index=raft.durable_index,
            writes_in_flight=self._replica.writes_in_flight,
            reads_in_flight=self._replica.reads_in_flight,
            turns=self._pump.turns_count,
            longest_turn_us=self._pump.longest_turn_us,
            syncs=self._disk.syncs_count,
            log_bytes=self._disk.log_bytes,
        )


def _settle(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _saved(recovered: Recovered) -> core_state.Saved:
    return core_state.Saved(
        base=recovered.base,
        term=recovered.term,
        voted_for=recovered.voted_for,
        term_runs=recovered.term_runs,
        tail_first=recovered.tail_first,
        tail=recovered.tail,
        configurations=recovered.configurations,
    )
