"""Clients of a short run: each request is chosen, each answer is checked at once, and all of them at the end.

Told: whom to ask what. Tells: Violated, when the oracle or the checker of histories finds an answer that must not be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from raftkv.kv.answers import Answer, ConditionFailed, DeleteDone, DeleteRangeDone, PutDone, Repeated, TxnDone
from raftkv.kv.answers import SessionOpened as Opened
from raftkv.kv.commands import Delete, DeleteRange, Numbered, OpenSession, Put, Txn, Write, encode
from raftkv.kv.queries import Get
from raftkv.outcomes import Answered, Applied, Consistency, Refused, Superseded
from raftkv.sim.checks import history, parts
from raftkv.sim.checks.history import Operation
from raftkv.sim.checks.invariants import Violated
from raftkv.sim.checks.linearizability import Linearizable, check
from raftkv.sim.checks.parts import Part
from raftkv.sim.clients.requests import Memory, Requests
from raftkv.sim.runs.short_world import ShortWorld
from raftkv.sim.world.node import VirtualNode

KEYS: Final = (b"k", b"k2")
_SESSION: Final = b"a short session."


@dataclass(slots=True, eq=False)
class _Asked:
    """A request that has no answer yet, or had one."""

    request: Write | Get
    command: bytes
    """Empty: it is a read."""
    invoked_at: int
    asked_at: int
    """The oracle's acknowledged index then."""
    attempts: int = 0
    answer: Answer | None = None
    parts: list[Part] = field(default_factory=list)
    returned_at: int | None = None
    void: bool = False
    """It changed nothing and never will, or was a read that failed."""


class ShortClients:
    """All that was asked in one run."""

    def __init__(self, world: ShortWorld) -> None:
        self._world, self._oracle = world, world.oracle
        self._asked: list[_Asked] = []
        self._numbered: list[_Asked] = []
        self._session_is_open = False
        self._values = 0
        self._requests = Requests(world.rng, KEYS, Memory(), self._new_value)

    def put(self, node: VirtualNode) -> None:
        """A write without a number."""
        self._write(node, Put(KEYS[0], self._new_value()))

    def put_numbered(self, node: VirtualNode) -> None:
        """A write with a number; the first opens the session."""
        if not self._session_is_open:
            node.running.submit(encode(OpenSession(_SESSION)), self._opened)
            return self._world.turn(node)
        put = Put(KEYS[0], self._new_value())
        asked = self._new(put, encode(put, Numbered(_SESSION, len(self._numbered) + 1)))
        self._numbered.append(asked)
        return self._submit(node, asked)

    def repeat(self, node: VirtualNode) -> None:
        """A numbered write comes again."""
        if self._numbered:
            self._submit(node, self._world.rng.choice(self._numbered))

    def write_anything(self, node: VirtualNode) -> None:
        """With conditions, of ranges, in transactions."""
        self._write(node, self._requests.write())

    def read(self, node: VirtualNode, consistency: Consistency) -> None:
        """One key."""
        if not node.is_up:
            return
        query = Get(self._world.rng.choice((KEYS[0], *KEYS)))
        asked = self._new(query, b"")
        asked.void = True
        self._world.say(f"{node.id} is asked for {query.key!r}, {consistency.value}")

        def done(outcome: Any) -> None:
            if isinstance(outcome, Answered) and consistency is Consistency.STALE:
                self._oracle.read_answered(query, outcome.index, outcome.answer, asked_at=None)
            elif isinstance(outcome, Answered):
                self._oracle.read_answered(query, outcome.index, outcome.answer, asked_at=asked.asked_at)
                asked.parts = [(query, parts.seen(outcome.answer.record))]
                asked.returned_at, asked.void = self._world.now, False

        node.running.read(query, consistency, done)

    def prove(self) -> None:
        """What clients were told is linearizable; raises Violated."""
        verdict = check(
            [operation for number, asked in enumerate(self._asked) for operation in self._of(number, asked)]
        )
        if not isinstance(verdict, Linearizable):
            raise Violated("linearizability", str(verdict))

    # ------------------------------------------------------------------------------------- asking

    def _new_value(self) -> bytes:
        self._values += 1
        return b"v%d" % self._values

    def _new(self, request: Write | Get, command: bytes) -> _Asked:
        asked = _Asked(request, command, self._world.now, self._oracle.acknowledged_index)
        self._asked.append(asked)
        return asked

    def _write(self, node: VirtualNode, request: Write) -> None:
        self._submit(node, self._new(request, encode(request)))

    def _submit(self, node: VirtualNode, asked: _Asked) -> None:
        asked.attempts += 1
        asked.void = False
        self._world.say(f"{node.id} is to do {asked.request}")
        node.running.submit(asked.command, self._heard(asked))

    def _heard(self, asked: _Asked) -> Callable[[Any], None]:
        def done(outcome: Any) -> None:
            match outcome:
                case Applied(index, answer):
                    self._oracle.write_answered(asked.command, index, answer, asked_at=asked.asked_at)
                    if isinstance(answer, Repeated):
                        index, answer = answer.index, answer.answer
                    self._answered(asked, index, answer)
                case Refused() | Superseded():
                    asked.attempts -= 1
                    asked.void = asked.attempts == 0

        return done

    def _answered(self, asked: _Asked, index: int, answer: Answer) -> None:
        if asked.answer is None:
            asked.answer, asked.returned_at = answer, self._world.now
            asked.parts = list(self._parts(asked.request, index, answer))
        elif asked.answer != answer:
            raise Violated("a repeat has the first answer", f"{asked.request}: {asked.answer}, {answer}")

    def _opened(self, outcome: Any) -> None:
        if isinstance(outcome, Applied) and isinstance(outcome.answer, Opened):
            self._session_is_open = True

    # --------------------------------------------------------------------------------- what came of it

    def _of(self, number: int, asked: _Asked) -> list[Operation]:
        """The operations on single keys that the request was. What became of a put that nobody heard of is for the
        search to find; of everything else the log says it.
        """
        request, returned_at = asked.request, asked.returned_at
        if asked.void:
            return []
        if asked.answer is None and not isinstance(request, Get):
            end = self._oracle.end_of(asked.command)
            if isinstance(request, Put | Delete):
                return [Operation("client", request, None, asked.invoked_at, None)]
            asked.parts = [] if end is None else list(self._parts(request, *end))
            returned_at = self._world.now
        part_of = number if isinstance(request, DeleteRange | Txn) else None
        return [
            Operation("client", part, result, asked.invoked_at, returned_at, part_of) for part, result in asked.parts
        ]

    def _parts(self, request: Write | Get, index: int, answer: Answer) -> Iterable[Part]:
        match request, answer:
            case Put(), PutDone():
                return [(request, history.Done(answer.revision))]
            case Delete(), DeleteDone():
                return [(request, history.Deleted(answer.deleted, answer.revision))]
            case Put() | Delete(), ConditionFailed():
                return [(request, history.Refused(answer.mod_revision, answer.revision))]
            case DeleteRange(), DeleteRangeDone():
                return parts.of_range_delete(request, answer, KEYS, self._oracle.removed_at(index))
            case Txn(), TxnDone():
                return parts.of_txn(request, answer, KEYS, self._oracle.removed_at(index))
        raise Violated("never another's answer", f"{request}: {answer}")
