"""Clients in virtual time that ask replicas at once, without a word of HTTP: they write, read, lose answers, ask again
elsewhere, and give up.

Told: a cluster to ask, when to stop. Tells: the history of what was asked and answered, for the checker, and
the oracle what each answer claims. A client knows no more than one behind HTTP would: what a node answers, that
nothing came in time, that a connection was refused.

One request is one operation, however often it is sent. It is sent again only where that is safe: a numbered
write always, another only if what came of it is known to be nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from raftkv.core.types import NodeId
from raftkv.kv.answers import (
    Answer,
    Repeated,
    SessionExpired,
    SessionOpened,
)
from raftkv.kv.commands import Delete, Numbered, OpenSession, Write, encode
from raftkv.kv.queries import Found, Get, Page, Range
from raftkv.outcomes import Answered, Applied, Consistency, Refused, Superseded
from raftkv.sim.checks.invariants import Violated
from raftkv.sim.clients.book import Book
from raftkv.sim.clients.requests import Memory, Requests

_PAUSED_LOOK_US: Final = 5_000
_ANYBODY_ANSWERS: Final = (Consistency.FOLLOWER, Consistency.STALE)


@dataclass(frozen=True, slots=True)
class ScriptedPlan:
    """What clients do, and how patient they are."""

    slots: int = 2
    """Requests that a client has in flight at a time."""
    think_us_max: int = 60_000
    attempt_us_max: int = 700_000
    """How long a client waits for an answer before it asks again."""
    patience_us: int = 4_000_000
    """How long it goes on asking; then the outcome stays unknown."""
    delay_us_max: int = 2_000
    answers_lost_per_mille: int = 20
    reads_per_mille: int = 450
    session_ttl_ms: int = 60_000


@dataclass(slots=True, eq=False)
class Task:
    """One request on its way to an answer."""

    number: int
    """Of all tasks of the run."""
    client: str
    request: Get | Range | Write
    consistency: Consistency
    numbered: Numbered | None
    began_us: int
    invoked_us: int
    """A read that is asked again is a new one; a write is not."""
    asked_at: int
    """The oracle's acknowledged index at that moment."""
    attempt: int = 0
    may_have_happened: bool = False
    """Some attempt was sent whose end is not known."""
    is_settled: bool = False

    @property
    def is_read(self) -> bool:
        """Whether it stands in no log."""
        return isinstance(self.request, Get | Range)

    @property
    def command(self) -> bytes:
        """What is submitted; a numbered write says the same at every attempt."""
        assert not isinstance(self.request, Get | Range)
        return encode(self.request, self.numbered)

    @property
    def commands(self) -> list[bytes]:
        """As which it may stand in the log."""
        return [] if self.is_read else [self.command]

    @property
    def is_traceless(self) -> bool:
        """Whether nobody can say that it is not in the log: one delete of a key is like another."""
        return self.numbered is None and isinstance(self.request, Delete)


class ScriptedClient:
    """One client: its session, the leader that it believes in, what it has seen."""

    def __init__(self, world: Book, plan: ScriptedPlan, name: str, rng: Random, *, wants_session: bool) -> None:
        self.world, self.plan, self.name = world, plan, name
        self.rng = rng
        self.wants_session = wants_session
        self.session: bytes | None = None
        self.sequence = 0
        self.unsettled: dict[int, None] = {}
        """Numbers whose answers are still wanted, in order."""
        self.believed_leader: NodeId | None = None
        self.seen_index = 0
        self.memory = Memory()
        self.requests = Requests(self.rng, world.keys, self.memory, world.new_value)

    def start(self) -> None:
        """It asks, so many things at a time."""
        if self.wants_session:
            self._open_session()
        for _ in range(self.plan.slots):
            self._think()

    def _think(self) -> None:
        self._after(self.rng.randrange(1, self.plan.think_us_max), self._begin)

    def _delay_us(self) -> int:
        """Between a client and a node, one way."""
        return self.rng.randrange(100, self.plan.delay_us_max)

    def _after(self, delay_us: int, act: Callable[[], None]) -> None:
        self.world.cluster.after(delay_us, act)

    # ------------------------------------------------------------------------------------- what is asked

    def _begin(self) -> None:
        if self.world.stopped:
            return
        if self.rng.randrange(1000) < self.plan.reads_per_mille:
            consistency = self.rng.choice(tuple(Consistency))
            task = self._task(self.requests.read(), consistency, None)
        else:
            task = self._task(self.requests.write(), Consistency.LINEARIZABLE, self._next_number())
        self.world.begun(task)
        self._attempt(task)

    def _task(self, request: Get | Range | Write, consistency: Consistency, numbered: Numbered | None) -> Task:
        now_us = self.world.cluster.now_us
        asked_at = self.world.oracle.acknowledged_index
        number = self.world.new_number()
        return Task(
            number, self.name, request, consistency, numbered, began_us=now_us, invoked_us=now_us, asked_at=asked_at
        )

    def _next_number(self) -> Numbered | None:
        """Acknowledges what is settled below the oldest number that is not."""
        if self.session is None:
            return None
        self.sequence += 1
        acknowledged = min(self.unsettled, default=self.sequence) - 1
        self.unsettled[self.sequence] = None
        return Numbered(self.session, self.sequence, acknowledged)

    def _open_session(self) -> None:
        """Asked until it is answered, with a new id each time: an old request that comes after the session ran
        out would open it again, and its numbers would be free.
        """
        self.session = None

        def ask() -> None:
            node = self.world.cluster.nodes[self._whom(anybody=False)]
            if self.session is not None or self.world.stopped:
                return
            if node.is_up and not node.paused:
                id = self.world.new_session()
                command = encode(OpenSession(id, self.plan.session_ttl_ms))
                node.running.submit(command, lambda outcome: opened(id, outcome))
                self.world.cluster.poke(node.id)
            self._after(self.plan.attempt_us_max, ask)

        def opened(id: bytes, outcome: Any) -> None:
            self._hear_of_leader(outcome)
            if isinstance(outcome, Applied) and isinstance(outcome.answer, SessionOpened) and self.session is None:
                self.session, self.sequence, self.unsettled = id, 0, {}

        self._after(self._delay_us(), ask)

    # ------------------------------------------------------------------------------------ one attempt

    def _whom(self, *, anybody: bool) -> NodeId:
        if self.believed_leader is not None and not anybody:
            return self.believed_leader
        return self.rng.choice(list(self.world.cluster.nodes))

    def _attempt(self, task: Task) -> None:
        if self.world.cluster.now_us - task.began_us > self.plan.patience_us:
            return self._give_up(task)
        task.attempt += 1
        if task.is_read:
            task.invoked_us, task.asked_at = self.world.cluster.now_us, self.world.oracle.acknowledged_index
        attempt, target = task.attempt, self._whom(anybody=task.consistency in _ANYBODY_ANSWERS)
        self._after(self._delay_us(), lambda: self._arrives(task, attempt, target))
        patience_us = self.rng.randrange(self.plan.attempt_us_max // 4, self.plan.attempt_us_max)
        return self._after(patience_us, lambda: self._no_answer(task, attempt))

    def _arrives(self, task: Task, attempt: int, target: NodeId) -> None:
        node = self.world.cluster.nodes[target]
        if not node.is_up:
            return self._after(self._delay_us(), lambda: self._retry_unless_over(task, attempt, believed_leader=None))
        if node.paused:
            return self._after(_PAUSED_LOOK_US, lambda: self._arrives(task, attempt, target))
        done = self._answering(task, attempt)
        if task.is_read:
            min_index = self.seen_index if task.consistency is Consistency.STALE else 0
            checked = self._checked_read(task, min_index, done)
            node.running.read(task.request, task.consistency, checked, min_index=min_index)
        else:
            node.running.submit(task.command, self._checked_write(task, done))
        return self.world.cluster.poke(target)

    def _answering(self, task: Task, attempt: int) -> Callable[[Any], None]:
        """The way back; some answers are lost on it."""

        def done(outcome: Any) -> None:
            if self.rng.randrange(1000) >= self.plan.answers_lost_per_mille:
                self._after(self._delay_us(), lambda: self._answer(task, attempt, outcome))

        return done

    def _checked_write(self, task: Task, done: Callable[[Any], None]) -> Callable[[Any], None]:
        """What a node says is held against the log, also where nobody hears it any more."""
        command = task.command

        def checked(outcome: Any) -> None:
            if isinstance(outcome, Applied):
                self.world.oracle.write_answered(command, outcome.index, outcome.answer, asked_at=task.asked_at)
            done(outcome)

        return checked

    def _checked_read(self, task: Task, min_index: int, done: Callable[[Any], None]) -> Callable[[Any], None]:
        oracle, request = self.world.oracle, task.request
        assert isinstance(request, Get | Range)
        asked_at = None if task.consistency is Consistency.STALE else task.asked_at

        def checked(outcome: Any) -> None:
            if isinstance(outcome, Answered):
                oracle.read_answered(request, outcome.index, outcome.answer, asked_at=asked_at)
                if outcome.index < min_index:
                    raise Violated("stale reads are monotonic", f"{outcome.index} was served, asked for {min_index}")
            done(outcome)

        return checked

    # ------------------------------------------------------------------------------- what came of it

    def _answer(self, task: Task, attempt: int, outcome: Any) -> None:
        """An answer to an attempt that was given up says nothing any more: its connection is closed."""
        if task.is_settled or task.attempt != attempt:
            return
        self._hear_of_leader(outcome)
        self.world.count(type(outcome).__name__)
        match outcome:
            case Applied(index, answer):
                self.seen_index = max(self.seen_index, index)
                self._hear_answer(task, index, answer)
            case Answered(index, found):
                self.seen_index = max(self.seen_index, index)
                self._hear_found(task, index, found)
            case Refused() | Superseded():
                self._try_again(task)
            case _ if task.is_read:
                self._try_again(task)
            case _:
                self._uncertain(task)

    def _hear_of_leader(self, outcome: Any) -> None:
        if isinstance(outcome, Refused):
            named = outcome.leadership.leader_id
            self.believed_leader = None if named is None else NodeId(named)

    def _no_answer(self, task: Task, attempt: int) -> None:
        if task.is_settled or task.attempt != attempt:
            return
        self.believed_leader = None
        self.world.count("no answer")
        self._uncertain(task)

    def _retry_unless_over(self, task: Task, attempt: int, *, believed_leader: NodeId | None) -> None:
        """The connection was refused: nothing came of this attempt."""
        if not task.is_settled and task.attempt == attempt:
            self.believed_leader = believed_leader
            self.world.count("connection refused")
            self._try_again(task)

    def _uncertain(self, task: Task) -> None:
        task.may_have_happened = True
        if task.numbered is None and not task.is_read:
            self._give_up(task)
        else:
            self._try_again(task)

    def _try_again(self, task: Task) -> None:
        task.attempt += 1
        attempt = task.attempt

        def again() -> None:
            if task.attempt == attempt:
                self._attempt(task)

        self._after(self.rng.randrange(1_000, 80_000), again)

    def _give_up(self, task: Task) -> None:
        if task.may_have_happened and not task.is_read:
            self.world.record_unknown(task)
        self._settle(task)

    def _settle(self, task: Task) -> None:
        task.is_settled = True
        if task.numbered is not None and task.numbered.session == self.session:
            self.unsettled.pop(task.numbered.sequence, None)
        self.world.ended(task)
        self._think()

    def _hear_answer(self, task: Task, index: int, answer: Answer) -> None:
        if isinstance(answer, Repeated):
            self.world.count("Repeated")
            index, answer = answer.index, answer.answer
        if isinstance(answer, SessionExpired):
            return self._session_expired(task)
        self.world.record(task, index, answer)
        self.memory.was_told(task.request, answer)
        return self._settle(task)

    def _session_expired(self, task: Task) -> None:
        """This attempt did nothing; what an earlier one did, nobody can say any more."""
        assert task.numbered is not None
        self.world.count("session expired with a write in doubt" if task.may_have_happened else "session expired")
        if task.numbered.session == self.session:
            self._open_session()
        self._give_up(task)

    def _hear_found(self, task: Task, index: int, found: Found | Page) -> None:
        self.memory.was_told(task.request, found)
        if task.consistency is not Consistency.STALE:
            self.world.record(task, index, found)
        self._settle(task)
