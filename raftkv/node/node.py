"""A node in somebody's program: ``async with Node(config, state_machine=Mine()) as node: …``.

Told: a configuration, a state machine, commands and queries. Tells: the machine's own answers, and what became of
whatever could not be answered. Several nodes may run in one process and on one event loop, asyncio's own or uvloop;
when one has stopped, no task, thread, socket or open file of it is left.
"""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self

from raftkv.api.service import Status
from raftkv.config import NodeConfig
from raftkv.errors import NodeFailed, OutcomeUnknown, RaftkvError, Rejected, Unreachable
from raftkv.node.embedding import applied_answer, careful, read_answer, refuse_command, transferred
from raftkv.node.running import Owner, RunningNode
from raftkv.outcomes import Consistency, Leadership, Transferred
from raftkv.state_machine import StateMachine

READY_WITHIN_S: Final = 30.0


class Node:
    """One member of a cluster, which runs once: from ``async with`` (or ``start``) to its end (or ``stop``).

    While it runs it serves its peers and its HTTP API, and takes part whether or not anybody calls it. If it fails
    (its disk does, or its machine raises), it halts at once, and closes its port and its files: a write that waits
    raises ``OutcomeUnknown``, every other call, and every later one, ``NodeFailed``; ``ended`` is done, and the end of
    ``async with`` raises ``NodeFailed`` too, unless its body raised something else. A node that was told to stop
    refuses calls with ``Rejected``.

    Call it from its own event loop only.
    """

    def __init__(self, config: NodeConfig, *, state_machine: StateMachine) -> None:
        """``state_machine`` is empty, and this node's alone."""
        self.config = config
        self._machine = careful(state_machine)
        self._running: RunningNode | None = None
        self._ended: Future[BaseException | None] | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._failure: BaseException | None = None
        self._waiting: dict[Future[Any], bool] = {}
        """Calls that wait, and of each whether it may happen although this node goes down."""
        self._awaiting_ready: list[Future[None]] = []

    # ------------------------------------------------------------------------------------------ its life

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()
        if error is None and self._failure is not None:
            raise self._failed()

    async def start(self) -> None:
        """Its directory is locked and its port bound; the cluster forms, or goes on, by itself.

        Raises DataError where the directory cannot be used, OSError where the port cannot be bound: then
        nothing is left open.
        """
        if self._ended is not None:
            raise RaftkvError("a node runs once: make another one, with a state machine that is empty")
        loop = asyncio.get_running_loop()
        owner = Owner(turned=self._look_if_ready, failed=self._fail)
        self._running = RunningNode(self.config, self._machine, loop, owner)
        self._ended = loop.create_future()
        try:
            await self._running.start()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """It leads no more, what is in flight is answered, all is synced and closed. Asked again, it waits for that.

        It goes on by itself if whoever asked is cancelled.
        """
        if self._running is None:
            return
        await asyncio.shield(self._stop_once(self._running))

    @property
    def ended(self) -> Future[BaseException | None]:
        """Done when the node has stopped (with None) or failed (with what). Yours to await, or to cancel."""
        if self._ended is None:
            raise RaftkvError("this node was not started")
        return asyncio.shield(self._ended)

    async def until_ready(self, *, timeout_s: float = READY_WITHIN_S) -> None:
        """The cluster is formed, its leader known, and what that had committed is applied here.

        Raises Unreachable, which says for whom this node waits, when that is not so in time.
        """
        running = self._served()
        if not running.service.unready():
            return
        ready: Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[ready] = False
        self._awaiting_ready.append(ready)
        try:
            async with asyncio.timeout(timeout_s):
                await ready
        except TimeoutError:
            why = "; ".join(text for _, text in running.service.unready())
            raise Unreachable(f"{self.config.id} is not ready after {timeout_s:g} s: {why}") from None
        finally:
            self._awaiting_ready.remove(ready)
            del self._waiting[ready]

    # ---------------------------------------------------------------------------------- what it is asked

    async def submit(self, command: bytes) -> Any:
        """The command is committed and applied here; the machine's own answer to it. At the leader only.

        Raises NotLeader, which says who leads, at any other node. It is not forwarded: if the way there broke, nobody
        could say whether it was executed, unless commands have numbers of their own, which are the machine's to
        understand. ``Rejected`` changed nothing and never will: ``overloaded`` (as much waits as the settings
        allow), ``too_large``, ``disk_full``, ``superseded``, ``shutting_down``, ``replicas_disagree``.
        ``OutcomeUnknown``: it may have happened, or may happen yet. So may one whose call is cancelled: that
        takes nothing back.
        """
        service = self._served().service
        refuse_command(command)
        outcome = await self._outcome(lambda done: service.submit(command, done), may_happen=True)
        return applied_answer(outcome, why_no_leader=self._why_no_leader)

    async def query(
        self,
        query: Any,
        *,
        consistency: Consistency = Consistency.LINEARIZABLE,
        min_index: int = 0,
        max_staleness_ms: int | None = None,
    ) -> Any:
        """The machine's own answer to the query, as fresh as ``consistency`` demands; what it raises is raised.

        ``LINEARIZABLE`` and ``LEASE`` are the leader's (NotLeader elsewhere), ``FOLLOWER`` promises the same on every
        node, ``STALE`` answers at once from what is applied here, within the two bounds that only it has. Raises
        ``Rejected`` (``overloaded``, ``too_stale``, ``shutting_down``, ``replicas_disagree``), or Unreachable where no
        majority confirmed it in time.
        """
        service = self._served().service
        consistency = Consistency(consistency)
        if consistency is not Consistency.STALE and (min_index or max_staleness_ms is not None):
            raise Rejected("min_index and max_staleness_ms go with Consistency.STALE")

        def ask(done: Callable[[Any], None]) -> None:
            service.read(query, consistency, done, min_index=min_index, max_staleness_ms=max_staleness_ms)

        return read_answer(await self._outcome(ask, may_happen=False), why_no_leader=self._why_no_leader)

    def leadership(self) -> Leadership:
        """Who leads, as this node knows it now."""
        return self._served().service.leadership()

    def status(self) -> Status:
        """This node as it is now, as ``/v1/status`` and ``/v1/cluster`` tell it."""
        return self._served().service.status()

    async def transfer_leadership(self, to: str | None = None) -> Transferred:
        """That voter leads now; None: the best placed one. At the leader only.

        Raises NotLeader; ``Rejected`` where that node cannot lead, or nobody else could; OutcomeUnknown if it did not
        take over in time, and still may.
        """
        service = self._served().service
        outcome = await self._outcome(lambda done: service.transfer_leadership(to, done), may_happen=True)
        return transferred(outcome, service.leadership())

    # ----------------------------------------------------------------------------------------- its owner

    def _served(self) -> RunningNode:
        """The node, as long as it serves."""
        if self._running is None:
            raise RaftkvError("this node was not started")
        if self._failure is not None:
            raise self._failed()
        if self._stopping is not None:
            raise _stopped()
        return self._running

    async def _outcome(self, ask: Callable[[Callable[[Any], None]], None], *, may_happen: bool) -> Any:
        future: Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[future] = may_happen
        try:
            ask(lambda outcome: None if future.done() else future.set_result(outcome))
            return await future
        finally:
            del self._waiting[future]

    def _why_no_leader(self) -> str:
        assert self._running is not None
        return "; ".join(why for _, why in self._running.service.unready())

    def _look_if_ready(self) -> None:
        """After each turn; whoever waits for it is told."""
        if self._awaiting_ready and self._running is not None and not self._running.service.unready():
            for ready in self._awaiting_ready:
                if not ready.done():
                    ready.set_result(None)

    def _fail(self, error: BaseException) -> None:
        assert self._running is not None
        self._failure = error
        self._end(self._failed)
        self._stop_once(self._running)

    def _stop_once(self, running: RunningNode) -> asyncio.Task[None]:
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop(running), name=f"raftkv {self.config.id} stops")
        return self._stopping

    async def _stop(self, running: RunningNode) -> None:
        try:
            await running.stop()
        finally:
            self._end(_stopped)

    def _end(self, why: Callable[[], RaftkvError]) -> None:
        """Nobody waits any more."""
        for future, may_happen in self._waiting.items():
            if not future.done():
                future.set_exception(OutcomeUnknown(f"{why()}; it may happen yet") if may_happen else why())
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(self._failure)

    def _failed(self) -> NodeFailed:
        failed = NodeFailed(f"{self.config.id} has halted: {self._failure!r}")
        failed.__cause__ = self._failure
        return failed


def _stopped() -> Rejected:
    return Rejected("this node is stopping, or has stopped", code="shutting_down")
