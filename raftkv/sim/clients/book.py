"""What all clients of a run share: keys, fresh values, and the history of what was asked and answered.

Told: which requests begin, and how each ends. Tells: the history for its checker, and what became of writes of which
nobody was told. May never know: who asks, and how.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol

from raftkv.kv.answers import Answer, ConditionFailed, DeleteDone, DeleteRangeDone, PutDone, TxnDone
from raftkv.kv.commands import Delete, DeleteRange, Put, Txn, Write, encode
from raftkv.kv.queries import Found, Get, Page, Range
from raftkv.sim.checks import history, parts
from raftkv.sim.checks.history import Operation
from raftkv.sim.checks.invariants import Violated
from raftkv.sim.checks.linearizability import Linearizable, check
from raftkv.sim.checks.oracle import Oracle
from raftkv.sim.checks.parts import Part
from raftkv.sim.checks.words import Words
from raftkv.sim.world.cluster import VirtualCluster

_ODD: Final = (b"", b"+ %41%2F/../\xff\x00?#", b"/")
"""At the ends of keys: what a path must not be read as anything else (faults 64)."""


class Asked(Protocol):
    """A request of a client, from its question to its end."""

    number: int
    """Of all requests of the run."""
    client: str
    request: Get | Range | Write
    invoked_us: int

    @property
    def is_read(self) -> bool:
        """Whether it stands in no log."""
        ...

    @property
    def commands(self) -> list[bytes]:
        """As which it may stand in the log."""
        ...

    @property
    def is_traceless(self) -> bool:
        """Whether nobody can say that it is not in the log."""
        ...


class Book:
    """One run's."""

    def __init__(self, cluster: VirtualCluster, oracle: Oracle, *, keys: int) -> None:
        self.cluster, self.oracle = cluster, oracle
        self.words = Words(cluster, oracle, self.new_session)
        self.keys = [b"k%d" % number + _ODD[number % len(_ODD)] for number in range(keys)]
        self.history: list[Operation] = []
        self._unknown: list[Asked] = []
        self.answers = 0
        """Requests that came to a known end."""
        self.tally: dict[str, int] = {}
        """How often attempts and requests came to what, by name."""
        self._open: dict[int, Asked] = {}
        """Requests without an end, by number."""
        self.stopped = False
        self.in_flight = 0
        self._tasks = 0
        self._values = 0
        self._sessions = 0

    def new_number(self) -> int:
        """One that no task had before."""
        self._tasks += 1
        return self._tasks

    def new_value(self) -> bytes:
        """One that was never put before."""
        self._values += 1
        return b"v%d" % self._values

    def any_command(self) -> bytes:
        """A write on a key that is nobody else's."""
        return encode(Put(b"calm", self.new_value()))

    @property
    def operations(self) -> int:
        """What the checker of histories has to order."""
        return len(self.history)

    def prove(self) -> None:
        """What clients were told is true and linearizable; raises Violated."""
        self.words.prove()
        verdict = check(self.complete_history())
        if not isinstance(verdict, Linearizable):
            raise Violated("linearizability", str(getattr(verdict, "explanation", verdict)))

    def new_session(self) -> bytes:
        """An id that nobody has."""
        self._sessions += 1
        return b"session %8d" % self._sessions

    def count(self, what: str) -> None:
        """It has happened once more."""
        self.tally[what] = self.tally.get(what, 0) + 1

    def begun(self, task: Asked) -> None:
        """A client wants an answer to this."""
        self.in_flight += 1
        self._open[task.number] = task

    def ended(self, task: Asked) -> None:
        """It has one, or its client gave up."""
        self.in_flight -= 1
        del self._open[task.number]

    def record(self, task: Asked, index: int, answer: Answer | Found | Page) -> None:
        """What came of it at this log index, as the checker wants it."""
        self.answers += 1
        self.history += self._operations(task, index, answer)

    def record_unknown(self, task: Asked) -> None:
        """Its client gave up."""
        self.count("outcome unknown")
        self._unknown.append(task)

    def complete_history(self) -> list[Operation]:
        """The history with what became of writes whose clients gave up, as far as the log tells.

        They count as answered now. That is one of the completions that linearizability allows, and the one
        that the cluster chose; a search that had to guess them all would not end. Of a write that can be told
        from all others, and that the log does not have, nothing came. What is in flight is such a write too.
        """
        completed = list(self.history)
        for task in (*self._unknown, *(task for task in self._open.values() if not task.is_read)):
            ends = [end for command in task.commands if (end := self.oracle.end_of(command)) is not None]
            for end in ends:
                completed += self._operations(task, *end)
            if not ends and task.is_traceless:
                assert isinstance(task.request, Delete)
                completed.append(Operation(task.client, task.request, None, task.invoked_us, None))
        return completed

    def _operations(self, task: Asked, index: int, answer: Answer | Found | Page) -> list[Operation]:
        """One for each key that the answer speaks of."""
        part_of = task.number if isinstance(task.request, DeleteRange | Txn) else None
        return [
            Operation(task.client, request, result, task.invoked_us, self.cluster.now_us, part_of)
            for request, result in self._parts(task.request, index, answer)
        ]

    def _parts(self, request: Get | Range | Write, index: int, answer: Answer | Found | Page) -> Iterable[Part]:
        match request, answer:
            case Get(), Found(record, _):
                return [(request, parts.seen(record))]
            case Range(), Page():
                return parts.of_page(request, answer, self.keys)
            case Put(), PutDone():
                return [(request, history.Done(answer.revision))]
            case Delete(), DeleteDone():
                return [(request, history.Deleted(answer.deleted, answer.revision))]
            case Put() | Delete(), ConditionFailed():
                return [(request, history.Refused(answer.mod_revision, answer.revision))]
            case DeleteRange(), DeleteRangeDone():
                return parts.of_range_delete(request, answer, self.keys, self.oracle.removed_at(index))
            case Txn(), TxnDone():
                return parts.of_txn(request, answer, self.keys, self.oracle.removed_at(index))
        raise Violated("answers that a client can expect", f"{request}: {answer}")
