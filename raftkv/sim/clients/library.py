"""Clients that are the Python client that ships, but for its event loop.

Told: a way to the nodes, when to stop. Tells: the history of what was asked and answered, and the judge how each call
ended. May never know: what the client decides, and what the nodes do.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any, Final

from raftkv.client import wishes
from raftkv.client.attempts import Call
from raftkv.client.results import LeaderDone
from raftkv.client.session import Numbered
from raftkv.client.wishes import CONSISTENCIES, Wish
from raftkv.core.types import NodeId
from raftkv.errors import ConditionFailed, OutcomeUnknown, Rejected, RequestError, Unreachable
from raftkv.kv.commands import Put, Write
from raftkv.kv.queries import Get, Range
from raftkv.sim.checks.invariants import Violated
from raftkv.sim.checks.words import Behalf, Sent
from raftkv.sim.clients import wording
from raftkv.sim.clients.book import Book
from raftkv.sim.clients.connections import Connections
from raftkv.sim.clients.requests import Memory, Requests
from raftkv.sim.clients.shell import Ended, Going, Times, VirtualShell

CLOSE_US_MAX: Final = 1_000_000
LAST_US_MAX: Final = 5_000_000
"""Within this every client has found a leader again."""


@dataclass(frozen=True, slots=True)
class Manners:
    """What library clients do."""

    times: Times
    timeouts_us: tuple[int, ...] = (4_000_000, 4_000_000, 2_200_000, 500_000)
    """Of calls. A node that knows no more says so after about two seconds."""
    think_us_max: int = 60_000
    reads_per_mille: int = 450
    transfers_per_mille: int = 10
    stands_still_per_mille: int = 5
    stands_still_us_max: int = 1_500_000


@dataclass(slots=True, eq=False)
class Task:
    """One request of the workload, from its caller's question to the end of the call."""

    number: int
    client: str
    request: Get | Range | Write
    invoked_us: int
    sent: Sent | None
    """Of a write."""
    is_stale: bool = False
    behalf: Behalf | None = None
    """Of a read's newest attempt."""
    numbered: Numbered | None = None
    """Of a write's newest attempt."""

    @property
    def session_is_over(self) -> bool:
        """The write was numbered in one, and nobody is told any more what became of it."""
        return self.numbered is not None and self.numbered.session.is_over

    @property
    def is_read(self) -> bool:
        """Whether it stands in no log."""
        return self.sent is None

    @property
    def commands(self) -> list[bytes]:
        """As which it may stand in the log."""
        return [] if self.sent is None else self.sent.commands

    @property
    def is_traceless(self) -> bool:
        """Whether nobody could say that it is not in the log: its numbers tell."""
        return False


class LibraryClient:
    """One program that uses the client."""

    def __init__(self, world: Book, name: str, net: Connections, manners: Manners, rng: Random) -> None:
        self.world, self.name, self.manners, self.rng = world, name, manners, rng
        self.shell = VirtualShell(name, net, manners.times, rng)
        self.memory = Memory()
        self.requests = Requests(rng, world.keys, self.memory, world.new_value)
        self._seen_index = 0
        """The highest that an answer reflected, whatever the client makes of it."""
        self._under_way = 0
        self._has_said_last = False
        self._says_it_again = False
        self._newest: Going
        """The call that has just ended."""

    def start(self, slots: int) -> None:
        """It asks, so many things at a time."""
        self.shell.start()
        for _ in range(slots):
            self._think()

    def stop(self) -> None:
        """Once its calls have ended, it writes a last time, in a cluster that works; then the client is closed."""
        if self._under_way or self.shell.courses.is_closing:
            return
        if not self._has_said_last:
            self._has_said_last = True
            self._write(Put(self.rng.choice(self.world.keys), self.world.new_value()), LAST_US_MAX)
        else:
            self.shell.close(CLOSE_US_MAX)

    # ------------------------------------------------------------------------------------- what is asked

    def _think(self) -> None:
        self.shell.after(self.rng.randrange(1, self.manners.think_us_max), self._begin)

    def _begin(self) -> None:
        if self.world.stopped:
            return
        if self.rng.randrange(1000) < self.manners.stands_still_per_mille:
            self.shell.stand_still(self.rng.randrange(self.manners.stands_still_us_max))
        if self.rng.randrange(1000) < self.manners.transfers_per_mille:
            self._transfer()
        elif self.rng.randrange(1000) < self.manners.reads_per_mille:
            self._read()
        else:
            self._write(self.requests.write(), self._timeout_us())

    def _timeout_us(self) -> int:
        return self.rng.choice(self.manners.timeouts_us)

    def _read(self) -> None:
        request = self.requests.read()
        if isinstance(request, Range):
            request = wording.as_a_page(request)
        consistency: wishes.Consistency = self.rng.choice(CONSISTENCIES)
        bound_ms = self.rng.choice((None, None, 50, 300, 1_000)) if consistency == "stale" else None
        fresh = wording.freshness(consistency, min_index=self.shell.courses.seen_index, max_staleness_ms=bound_ms)
        task = self._task(request, None)
        task.is_stale = consistency == "stale"
        task.behalf = Behalf(self.name, -1, self._seen_index, bound_ms)
        wish = wording.wish_to_read(request, fresh)
        self._ask(task, wish, self._timeout_us(), lambda told, error: self._read_ended(task, told, error))

    def _write(self, request: Write, timeout_us: int) -> None:
        sent = Sent(request, self.world.words.oracle.acknowledged_index)
        task = self._task(request, sent)
        wish = wording.wish_to_write(request)
        self._ask(task, wish, timeout_us, lambda told, error: self._write_ended(task, sent, told, error))

    def _task(self, request: Get | Range | Write, sent: Sent | None) -> Task:
        return Task(self.world.new_number(), self.name, request, self.shell.now_us(), sent)

    def _ask(self, task: Task, wish: Wish[Any], timeout_us: int, ended: Ended) -> None:
        self.world.begun(task)
        self._call(wish, timeout_us, ended, task)

    def _call(self, wish: Wish[Any], timeout_us: int, ended: Ended, task: Task | None) -> None:
        self._under_way += 1
        courses = self.shell.courses
        call = courses.call(wish, timeout_us)
        going: Going | None = None

        def over(told: Any, error: RequestError | None) -> None:
            assert going is not None, "nothing ends before it is sent"
            self._ended(going, task, error)
            ended(told, error)
            self._next(task)

        going = self.shell.go(courses.asked(call, wish), over, lambda call: self._behalf(call, task))
        if task is not None and task.sent is not None:
            sent, words = task.sent, self.world.words
            going.heard = lambda answer: words.heard(sent, answer)

    def _behalf(self, call: Call, task: Task | None) -> Behalf | None:
        """A request of the task goes out now."""
        if task is None:
            return None
        if task.sent is not None:
            task.numbered = call.numbered
            if call.numbered is not None:
                task.sent.goes_out_as(bytes.fromhex(call.numbered.session.id), call.numbered.number)
            return Behalf(self.name, task.sent.asked_at)
        seen = task.behalf
        assert seen is not None, "a read says what it has seen"
        asked_at = self.world.words.oracle.acknowledged_index
        task.behalf = Behalf(self.name, asked_at, seen.min_index, seen.max_staleness_ms)
        return task.behalf

    def _ended(self, going: Going, task: Task | None, error: RequestError | None) -> None:
        self.world.count("done" if error is None else type(error).__name__)
        self._newest = going
        if task is not None and task.sent is not None:
            task.sent.doubts = going.doubts

    def _next(self, task: Task | None) -> None:
        if task is not None:
            self.world.ended(task)
        self._under_way -= 1
        if self.world.stopped:
            self.stop()
        else:
            self._think()

    # ------------------------------------------------------------------------------------- how it ended

    def _index(self) -> int:
        """That the answer of the call that has just ended reflects."""
        assert self._newest.answer is not None
        index = wishes.applied_index_of(self._newest.answer)
        self._seen_index = max(self._seen_index, index)
        return index

    def _read_ended(self, task: Task, told: Any, error: RequestError | None) -> None:
        if error is not None:
            if not isinstance(error, Unreachable):
                raise Violated("answers that a client can expect", f"{task.request}: {error!r}")
            return
        request, index = task.request, self._index()
        assert isinstance(request, Get | Range)
        assert task.behalf is not None
        words = self.world.words
        found = wording.found(request, told, revision=words.oracle.revision_at(index))
        words.read_told(request, found, index, task.behalf, is_stale=task.is_stale)
        self.memory.was_told(request, found)
        if not task.is_stale:
            self.world.record(task, index, found)

    def _write_ended(self, task: Task, sent: Sent, told: Any, error: RequestError | None) -> None:
        words = self.world.words
        match error:
            case None | ConditionFailed():
                answer = wording.written(sent.request, told if error is None else error)
                index = self._index()
                words.answered(sent, answer, index)
                self.memory.was_told(sent.request, answer)
                self.world.record(task, index, answer)
            case OutcomeUnknown() if task.session_is_over and self._may_say_it_again():
                # It was in doubt when its session ran out, while the last who had to hand over did: once that can be.
                words.unknown(sent)
                self.world.record_unknown(task)
            case Rejected(code="disk_full") if self._may_say_it_again():
                # Its session was asked for while there was no room, and the answer was late: there is room now.
                words.denied(sent, repr(error))
            case _ if self._has_said_last:
                raise Violated("clients find their leader again", f"{self.name} within {LAST_US_MAX} us: {error!r}")
            case OutcomeUnknown():
                words.unknown(sent)
                self.world.record_unknown(task)
            case Unreachable() | Rejected(code="disk_full"):
                words.denied(sent, repr(error))
            case _:
                raise Violated("answers that a client can expect", f"{task.request}: {error!r}")

    def _may_say_it_again(self) -> bool:
        """The last write may be made once more, and will be."""
        if not self._has_said_last or self._says_it_again:
            return False
        self._says_it_again, self._has_said_last = True, False
        return True

    def _transfer(self) -> None:
        """Anybody is to lead, or the best placed."""
        target = self.rng.choice([*map(str, self.world.cluster.nodes), None])
        wish = wishes.transfer_leadership(target)
        self._call(wish, self._timeout_us(), lambda told, error: self._transferred(target, told, error), None)

    def _transferred(self, target: str | None, told: LeaderDone | None, error: RequestError | None) -> None:
        if isinstance(error, OutcomeUnknown) and not self._newest.doubts:
            raise Violated("unknown is only what is in doubt", f"a transfer to {target}: {error!r}")
        if told is None:
            return
        if target is not None and told.id != target:
            self.world.count("another was elected meanwhile")  # The answer names who leads, and is true.
        self.world.count("transferred" if told.changed else "led already")
        leader = self.world.cluster.nodes[NodeId(told.id)]
        if leader.is_up and leader.raft.term < told.term:
            raise Violated("who is said to lead leads", f"{told}, which is in term {leader.raft.term} only")
        for node in self.world.cluster.nodes.values():
            if node.is_up and node.raft.term == told.term and node.raft.leader_id not in (None, told.id):
                raise Violated("who is said to lead leads", f"{told}, but {node.raft.leader_id} leads")
