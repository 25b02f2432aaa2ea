"""A node while it runs: brings the rooms together, starts them in order, stops them in order.

    directory and identity → front door → introductions until the cluster is formed → log → replica, pump

Everything here runs on the event loop; only the disk thread writes. Whatever breaks ends the node with the
error that says why: it never goes on from a state that nobody foresaw. It touches nothing of the process that
is not its own: no signal, no logging handler, no event loop's policy.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from asyncio import AbstractEventLoop
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any, Final, TypeVar

from raftkv.api.aiohttp_front import AiohttpFront
from raftkv.api.lean_front import LeanFront
from raftkv.api.reports import Diagnostics
from raftkv.api.routes import NODE_ROUTES, ROUTES, Api
from raftkv.beginning import raft_of
from raftkv.config import NodeConfig
from raftkv.core.effects import Exchange, LogRead, Note
from raftkv.core.messages import Envelope, Introduction
from raftkv.core.types import ID_BYTES, ClusterId, Incarnation, NodeId, Ticket
from raftkv.errors import DiskFailed, Misdirected, RaftkvError, StateDamaged
from raftkv.forming import Forming, FormingPlan, FormingShell
from raftkv.kv.machine import KeyValueMachine
from raftkv.kv.queries import Revision
from raftkv.node.clock import LoopScheduler, now_us
from raftkv.node.diagnostics import Parts, Watch, report, why_disk_is_useless
from raftkv.node.disk import DiskListener, DiskThread
from raftkv.node.doors import Doors
from raftkv.node.embedding import NOTHING
from raftkv.node.joining import ask_to_join
from raftkv.node.keeper import KeeperShell, SnapshotKeeper, load, restored_from
from raftkv.node.logs import event, in_words
from raftkv.node.members import Members
from raftkv.node.metrics import NodeMetrics
from raftkv.node.peers import ClientUrls, Peers
from raftkv.node.probing import Prober
from raftkv.node.service import NodeService
from raftkv.outcomes import SnapshotWhy, TransferOutcome
from raftkv.pump import Pump, PumpShell
from raftkv.replica import Replica, Work
from raftkv.state_machine import Loading, StateMachine
from raftkv.storage.directory import PosixDirectory
from raftkv.storage.identity import IdentityFile
from raftkv.storage.recovery import Recovered
from raftkv.storage.replacing import finish as finish_replacing
from raftkv.storage.snapshots import Snapshots, StoredSnapshot
from raftkv.storage.wal import Wal
from raftkv.transport.codec import MEMBERS_MAX
from raftkv.transport.farewell import Farewell
from raftkv.transport.routes import PeerExchange, PeerRoutes
from raftkv.transport.sealed import Credentials

_LOG: Final = logging.getLogger("raftkv.node")
REFUSALS_APART_S: Final = 1.0
"""So far, at least, are two log lines of messages that were refused."""
LEAVE_S: Final = 0.5
"""For peers to hear why this node goes."""
_LEVELS: Final = {
    **dict.fromkeys(("replicas_disagree", "state_is_wrong"), logging.ERROR),
    **dict.fromkeys(("capture_failed", "disk_stalled", "refused_message"), logging.WARNING),
    **dict.fromkeys(("snapshot_needed", "transfer_gave_up"), logging.WARNING),
}
"""What the core notes that somebody should look at; everything else is INFO."""
STOP_GRACE_S: Final = 2.0
"""For answers that are on their way when everything else is done."""
T = TypeVar("T")


@dataclass(slots=True)
class Owner:
    """Whom a running node tells."""

    turned: Callable[[], None]
    """The pump has taken a turn: whatever its owner waits for may be so now."""
    failed: Callable[[BaseException], None]
    """It has halted; called once."""


class RunningNode:
    """A node that serves from ``start`` until ``stop``, or until it fails; then too it must be stopped."""

    def __init__(self, config: NodeConfig, machine: StateMachine, loop: AbstractEventLoop, owner: Owner) -> None:
        """The data directory is this node's; raises DataError where it cannot be."""
        self.config = config
        self._loop, self._machine, self._owner = loop, machine, owner
        rng = Random(secrets.randbits(64))
        self._directory = PosixDirectory(config.data_dir)
        shell = FormingShell(self._introduce_again, self._formed, self._waits_for_others, self._fail)
        try:
            if finish_replacing(self._directory):
                _LOG.warning("what recover or restore had begun here is finished now", extra=event("replaced"))
            new_incarnation = Incarnation(secrets.token_bytes(ID_BYTES))
            identity = IdentityFile.open(self._directory, node_id=config.id, new_incarnation=new_incarnation)
            self._forming = Forming(_plan(config), identity, LoopScheduler(loop), shell)
        except BaseException:
            self._directory.close()
            raise
        self.service = NodeService(
            config.id, machine, has_work=self._has_work, why_not_formed=self._forming.why_not_formed
        )
        self._metrics = NodeMetrics(lambda: self._parts)
        api = Api(
            self.service,
            node_id=config.id,
            settings=config.api,
            metrics=self._metrics.text,
            meter=self._metrics.requests,
            routes=ROUTES if isinstance(machine, KeyValueMachine) else NODE_ROUTES,
        )
        self._front = AiohttpFront(api, config.api)
        self._lean = LeanFront(api, self._front.room) if config.http_fast_lane else None
        self._rng = rng
        secret = config.peer_secret
        credentials = None if secret is None else Credentials(secret, config.id)
        self._peers = Peers(config.transport, rng, self._forming.introduction, self, credentials)
        prober = Prober(config.transport, rng, self._forming.introduction, credentials)
        self._members = self.service.members = Members(
            loop, self._peers, prober, self._forming.introduction, self._watch_forgets
        )
        self._client_urls = ClientUrls(config.id, url=config.url, peer_url=config.peer_url)
        self._doors = Doors(loop, config, PeerRoutes(self), self._front, self._lean, complain=self._peers.on_stranger)
        self._watch = Watch(loop)
        self._parts = Parts(config, self._watch, self._peers, self._forming, self.service.status, self._change_age_ms)
        self.service.diagnose = self._diagnose
        self._replica: Replica | None = None
        self._disk: DiskThread | None = None
        self._snapshots: SnapshotKeeper | None = None
        self._pump: Pump | None = None
        self._beginning: asyncio.Task[None] | None = None
        self._joining: asyncio.Task[None] | None = None
        self._halted: asyncio.Future[None] = loop.create_future()
        """Done when the node has failed: then nothing that the pump or the disk would do is waited for."""
        self._said_early: dict[tuple[NodeId, Incarnation], Introduction] = {}
        """What nodes said of themselves while this one did not take part yet; two may go by one name."""
        self._said = self._refused = ""
        self._refused_at = -REFUSALS_APART_S
        self._why_it_stops = "it was told to stop"

    # ------------------------------------------------------------------------------------ start, stop

    async def start(self) -> None:
        """The ports are bound; the cluster forms, or goes on, by itself."""
        await self._doors.open()
        self._peers.reach(self._forming.others())
        self._watch.start(self._peers.links)
        self._forming.start()
        if self._forming.joins:
            joining = ask_to_join(self.config, self._members, self._forming.was_not_let_in)
            self._joining = self._loop.create_task(joining)

    async def stop(self) -> None:
        """Leadership is handed over, what is in flight answered, everything synced and closed."""
        self.service.stopping = True
        self._forming.stop()
        self._watch.stop()
        if self._joining is not None:
            self._joining.cancel()
            await asyncio.gather(self._joining, return_exceptions=True)
        await self._members.stop()
        if self._beginning is not None:
            await asyncio.gather(self._beginning, return_exceptions=True)
        if self._replica is not None:
            self._replica.shutting_down = True
            self._replica.snapshots.give_up(SnapshotWhy.SHUTTING_DOWN, "this node is stopping")
        if self._replica is not None and not self._halted.done():
            await self._hand_over()
            await self._finish_writes()
        grace_s = 0.0 if self._halted.done() else STOP_GRACE_S
        self._doors.stop_accepting()
        if self._lean is not None:
            lean_is_done = self._lean.stop()
            await asyncio.gather(self._front.stop(grace_s), asyncio.wait([lean_is_done], timeout=grace_s))
        else:
            await self._front.stop(grace_s)
        await self._doors.close(grace_s)
        if self._pump is not None:
            self._pump.stop()
        await self._peers.take_leave(self._farewell(), within_s=LEAVE_S)
        await self._peers.close()
        if self._snapshots is not None:
            await _in_own_thread(self._snapshots.stop)
        if self._disk is not None:
            await _in_own_thread(self._disk.stop)
        self._directory.close()

    async def _hand_over(self) -> None:
        """Ends by itself: a transfer that nobody answers is given up after two election timeouts."""
        handed: asyncio.Future[TransferOutcome] = self._loop.create_future()
        self.service.transfer_leadership(None, lambda outcome: _settle(handed, outcome))
        await self._unless_halted(handed, within_s=4 * self.config.raft.election_timeout_ms / 1000)

    async def _finish_writes(self) -> None:
        """Clients that wait hear what became of their writes, or that it is not known."""
        replica = self._replica
        assert replica is not None
        emptied: asyncio.Future[None] = self._loop.create_future()
        replica.when_idle(lambda: _settle(emptied, None))
        self._has_work()
        await self._unless_halted(emptied, within_s=self.config.replica.request_timeout_ms / 1000 + 1)

    async def _unless_halted(self, awaited: asyncio.Future[Any], *, within_s: float) -> None:
        await asyncio.wait([awaited, self._halted], timeout=within_s, return_when=asyncio.FIRST_COMPLETED)

    def _fail(self, error: BaseException) -> None:
        """The node halts: nothing more is written, sent or answered."""
        if self._pump is not None:
            self._pump.stop()
        if self.service.failure is None:
            self.service.failure = why = in_words(error)
            self._why_it_stops = why_it_stops(error)
            is_foreseen = isinstance(error, RaftkvError)
            _LOG.critical("this node stops: %s", why, exc_info=None if is_foreseen else error, extra=event("halted"))
            self._halted.set_result(None)
            self._owner.failed(error)

    # ------------------------------------------------------------------------------------- taking part

    def _introduce_again(self) -> None:
        self._peers.introduce_again()

    def _waits_for_others(self, why: str) -> None:
        _LOG.warning("%s", why, extra=event("not_formed"))

    def _farewell(self) -> Farewell:
        identity = self._forming.identity.identity
        return Farewell(identity.node_id, identity.incarnation, self._why_it_stops)

    def _formed(self) -> None:
        self._beginning = self._loop.create_task(self._begin())

    async def _begin(self) -> None:
        """The log is read, the newest snapshot is in the machine, and the node takes part."""
        try:
            snapshots = await _in_own_thread(self._open_snapshots)
            try:
                wal, recovered, loading = await self._recover(snapshots)
            except BaseException:
                snapshots.close()
                raise
            self._take_part(snapshots, wal, recovered, loading)
        except Exception as error:  # noqa: BLE001 - the node ends with it
            self._fail(error)

    async def _recover(self, snapshots: Snapshots) -> tuple[Wal, Recovered, Loading | None]:
        """The log is open, and the machine holds the newest state that is what its snapshot was taken of.

        Where the newest is not, the one before stands in with the log from there on, as for a file that is damaged.
        """
        while True:
            wal, recovered = await _in_own_thread(partial(self._open_log, snapshots))
            try:
                return wal, recovered, await self._restore(snapshots, recovered.snapshot)
            except StateDamaged as error:
                wal.close()
                assert recovered.snapshot is not None
                snapshots.refuse(recovered.snapshot.id, str(error))
            except BaseException:
                wal.close()
                raise

    async def _restore(self, snapshots: Snapshots, stored: StoredSnapshot | None) -> Loading | None:
        """The machine holds that snapshot; None: there is none, and the machine is empty."""
        if stored is None:
            return None
        loading = self._machine.loading()
        await _in_own_thread(partial(load, snapshots, stored, loading))
        loading.finish()
        return loading

    def _open_snapshots(self) -> Snapshots:
        return Snapshots.open(self._directory, cluster_id=self._forming.identity.identity.cluster_id)

    def _open_log(self, snapshots: Snapshots) -> tuple[Wal, Recovered]:
        return Wal.open(
            self._directory,
            self._forming.identity,
            segment_bytes=self.config.segment_bytes,
            tail_bytes_max=self.config.raft.log_kept_bytes,
            snapshots=snapshots,
        )

    def _take_part(self, snapshots: Snapshots, wal: Wal, recovered: Recovered, loaded: Loading | None) -> None:
        for note in recovered.notes:
            _LOG.warning("%s", note, extra=event("recovered"))
        identity = self._forming.identity.identity
        assert identity.cluster_id is not None
        raft = raft_of(identity, recovered, self.config.raft, self._rng)
        replica = Replica(
            raft,
            self._machine,
            self.config.replica,
            clock=now_us,
            snapshot_settings=self.config.snapshots,
            restored=restored_from(recovered.snapshot),
        )
        replica.client_url_of = self._client_urls.of
        shell = PumpShell(self._work, self._peers.send, self._reply, self._refuse, self._fail, self._parts.turns.took)
        self._pump = Pump(replica, LoopScheduler(self._loop), shell)
        listener = DiskListener(self._persisted, self._was_read, self._room_is_short, self._fail)
        self._disk = DiskThread(wal, self._loop, listener, free_bytes=self._directory.free_bytes)
        self._replica = replica
        self._parts.replica, self._parts.disk = replica, self._disk
        self.service.replica = replica
        self._members.start(replica, self._has_work)
        self.service.cluster_id = identity.cluster_id
        self.service.log_bytes = lambda: wal.log_bytes
        cluster, term, last_index = identity.cluster_id.hex(), recovered.term, recovered.last_index
        _LOG.info(
            "takes part in cluster %s: term %d, log to %d",
            *(cluster, term, last_index),
            extra=event("takes_part", cluster=cluster, term=term, last_index=last_index),
        )
        for said in self._said_early.values():
            self._hear(said)  # A member that has moved says so once for each connection.
        self._said_early = {}
        self._disk.start()
        self._keep_snapshots(snapshots, replica, identity.cluster_id, recovered.snapshot, loaded)
        self.service.disk_trouble = partial(why_disk_is_useless, self._disk, replica)
        self._pump.schedule()

    def _keep_snapshots(
        self,
        snapshots: Snapshots,
        replica: Replica,
        cluster_id: ClusterId,
        restored: StoredSnapshot | None,
        loaded: Loading | None,
    ) -> None:
        self._snapshots = SnapshotKeeper(
            snapshots,
            replica,
            self._loop,
            KeeperShell(self._has_work, self._fail),
            cluster_id=cluster_id,
            bytes_per_s=self.config.snapshots.snapshot_bytes_per_s,
        )
        self._parts.snapshots = self._snapshots
        barrier = Revision() if isinstance(self._machine, KeyValueMachine) else NOTHING
        self.service.backups = self._snapshots.backups(barrier=barrier)
        self._snapshots.start()
        if restored is not None and loaded is not None:
            self._snapshots.begin(restored, loaded)

    # ------------------------------------------------------------------- what the disk and the pump say

    def _has_work(self) -> None:
        if self._pump is not None:
            self._pump.schedule()

    def _work(self, work: Work) -> None:
        assert self._disk is not None
        assert self._replica is not None
        if work.persist or work.read_log or work.drop_log_through is not None:
            self._disk.submit(work.persist, work.read_log, work.drop_log_through)
        if work.snapshots and self._snapshots is not None:
            self._snapshots.submit(work.snapshots)
        for note in work.notes:
            self._metrics.events[note.event] += 1
            self._watch.note(note, self._term)
            self._log(note)
        self._watch.turned(self._replica.raft)
        self._members.turned()
        self._owner.turned()

    def _log(self, note: Note) -> None:
        """Whoever is refused goes on asking, ten times a second: that is said once, until it is something else.

        Even then not all is said, for two may take turns, or no two complaints be alike. All are counted.
        """
        if note.event == "refused_message":
            if note.text == self._refused or self._loop.time() < self._refused_at + REFUSALS_APART_S:
                return
            self._refused, self._refused_at = note.text, self._loop.time()
        level = _LEVELS.get(note.event, logging.INFO)
        _LOG.log(level, "%s", note.text, extra=event(note.event, term=self._term))

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
        if short:
            _LOG.warning("the disk is full: puts are refused", extra=event("disk_full"))
        else:
            _LOG.warning("the disk has room again", extra=event("disk_has_room"))

    # --------------------------------------------------------------------------------- what peers say

    def on_message(self, envelope: Envelope, exchange: PeerExchange) -> None:
        """A peer's request."""
        self._watch.heard(envelope)
        if self._replica is not None:
            self._replica.receive(envelope, exchange)
            self._has_work()
            return
        if envelope.receiver == self.config.id:
            self._forming.was_named(envelope.cluster_id, envelope.receiver_incarnation)
        cluster_id = self._forming.cluster_id
        if cluster_id is None or envelope.cluster_id != cluster_id:
            text = f"{self.config.id} belongs to no cluster yet" if cluster_id is None else "another cluster's message"
            exchange.refuse(status=409, code="wrong_cluster", detail=text)
            return
        self._forming.heard_of_formation()
        exchange.refuse(status=503, code="no_leader", detail=f"{self.config.id} is starting")

    def on_introduction(self, introduction: Introduction, exchange: PeerExchange) -> None:
        """Somebody says who it is."""
        self._watch.heard_from(introduction.sender)
        self._hear(introduction)
        self._peers.is_there(introduction.sender)
        exchange.introduce(self._forming.introduction())

    def on_farewell(self, said: Farewell, exchange: PeerExchange) -> None:
        """Somebody stops, and says why."""
        exchange.take_note()
        if self._replica is None or self._replica.raft.state.configurations.is_listed(said.sender, said.incarnation):
            self._watch.took_leave(said.sender, said.reason)
            _LOG.info("%s stops: %s", said.sender, said.reason, extra=event("peer_left", peer=said.sender))

    def on_introduced(self, peer: NodeId, introduction: Introduction) -> None:
        """A peer answers our introduction with its own."""
        self._hear(introduction)

    def _hear(self, said: Introduction) -> None:
        self._client_urls.heard(said)
        if self._replica is None:
            speaker = (said.sender, said.incarnation)
            if self._said_early.pop(speaker, None) is not None or len(self._said_early) < MEMBERS_MAX:
                self._said_early[speaker] = said
            self._forming.hear(said)
            return
        if said.sender == self.config.id:
            return
        self._members.heard(said)
        member = self._replica.raft.state.configurations.members.get(said.sender)
        if member is None:
            return
        if member.incarnation == said.incarnation:
            self._watch.is_right(said.sender)
            self._peers.moved(said.sender, said.url)
        elif said.cluster_id not in (None, self._forming.cluster_id):
            self._complain(
                said.sender,
                f"the {said.sender} that says it is at {said.url} belongs to cluster {said.cluster_id.hex()}",
            )
        else:
            self._complain(said.sender, f"{said.sender}'s data is gone; run raftkv member replace {said.sender}")

    def _complain(self, about: NodeId, text: str) -> None:
        """Said once, until it is something else."""
        self._watch.complained(about, text)
        if text != self._said:
            self._said = text
            _LOG.error("%s", text, extra=event("peer_is_another", peer=about))

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

    @property
    def _term(self) -> int:
        return 0 if self._replica is None else self._replica.raft.term

    def _watch_forgets(self, node: NodeId) -> None:
        self._watch.is_right(node)

    def _change_age_ms(self) -> int:
        return self._members.change_age_ms

    def _diagnose(self) -> Diagnostics:
        return report(self._parts)


def why_it_stops(error: BaseException) -> str:
    """What a node that halts says to its peers."""
    if isinstance(error, DiskFailed):
        return f"its disk failed: {error}"
    return in_words(error) if isinstance(error, RaftkvError) else f"a bug of raftkv itself: {in_words(error)}"


def _settle(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)


async def _in_own_thread(work: Callable[[], T]) -> T:
    """What ``work`` returns. In a thread that ends with it: the loop's own may be busy, and are not ours."""
    pool = ThreadPoolExecutor(1, thread_name_prefix="raftkv")
    try:
        return await asyncio.get_running_loop().run_in_executor(pool, work)
    finally:
        pool.shutdown(wait=False)


def _plan(config: NodeConfig) -> FormingPlan:
    client_url = None if config.url == config.peer_url else config.url
    return FormingPlan(config.id, config.peer_url, client_url, config.initial_cluster, joins=bool(config.join))
