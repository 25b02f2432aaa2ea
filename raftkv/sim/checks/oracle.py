"""What the committed log says, kept beside the cluster, and every answer to a client held against it.

Told: every command as the replicas execute it, and what clients were told. Tells: Violated, when a command was
executed twice, when replicas answer it differently, when an answer is not what the specification of keys has at
its index, or a table not the state there. Knows nothing of Raft: where it and the checker of histories disagree,
one of them is wrong.

The log's order, executed by the specification, in which every answer has a place between its question and its
return: this is linearizability of all keys together, transactions and ranges included, with the order given.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from raftkv.kv.answers import (
    Answer,
    ConditionFailed,
    DeleteDone,
    DeleteRangeDone,
    PutDone,
    Repeated,
    TooLarge,
    TxnDone,
)
from raftkv.kv.commands import Delete, Write, decode
from raftkv.kv.machine import KeyValueMachine
from raftkv.kv.queries import Found, Get, Page, Range
from raftkv.sim.checks.committed import Committed
from raftkv.sim.checks.invariants import Violated
from raftkv.sim.checks.specification import Records, Specification, page
from raftkv.state_machine import LogEntry

_EXECUTED: Final = (PutDone, DeleteDone, DeleteRangeDone, TxnDone, ConditionFailed)
_EVERYTHING: Final = Range(b"", None, limit=2**62, bytes_max=2**62)


class _State(NamedTuple):
    """All keys after some command."""

    records: Records
    revision: int


class Oracle(Committed):
    """One log's worth of truth, shared by all replicas of a cluster."""

    def __init__(self) -> None:
        super().__init__()
        self._numbered_at: dict[tuple[bytes, int], int] = {}
        """Where each session's number was executed."""
        self._told_apart_at: dict[bytes, int] = {}
        """Where each write was executed that a workload never gives twice: all but deletes of one key."""
        self._specification = Specification()
        self._changed_at = [0]
        """The indexes at which keys changed, and the states from there on."""
        self._states = [_State({}, 0)]

    def _executed_first(self, entry: LogEntry, answer: Answer) -> None:
        index = entry.log_index
        if not isinstance(answer, (*_EXECUTED, TooLarge)):
            return
        command, numbered, request = decode(entry.command)
        assert isinstance(command, Write)
        self._specified(index, command, answer)
        if isinstance(answer, TooLarge):
            return
        self.executions += 1
        if numbered is not None:
            first = self._numbered_at.setdefault((numbered.session, numbered.sequence), index)
            if first != index:
                raise Violated("at most once", f"number {numbered.sequence} was executed at {first} and {index}")
        if not isinstance(command, Delete):
            first = self._told_apart_at.setdefault(request or entry.command, index)
            if first != index:
                raise Violated("at most once", f"{command} was executed at {first} and {index}")

    def _specified(self, index: int, command: Write, answer: Answer) -> None:
        """The write came to what it must come to after all before it."""
        expected = self._specification.write(command)
        if answer != expected or _types(answer) != _types(expected):
            raise Violated("answers as specified", f"{command} at {index} came to {answer}, not to {expected}")
        if self._specification.revision != self._states[-1].revision:
            self._changed_at.append(index)
            self._states.append(_State(self._specification.records, self._specification.revision))

    def _state_at(self, index: int) -> _State:
        return self._states[bisect_right(self._changed_at, index) - 1]

    def removed_at(self, index: int) -> set[bytes]:
        """The keys that the command at this index took away."""
        return self._state_at(index - 1).records.keys() - self._state_at(index).records.keys()

    def table_is(self, index: int, found: Page) -> None:
        """A replica that has executed all up to this index holds this: of a transaction everything or nothing."""
        state = self._state_at(index)
        if found != Page(sorted(state.records.items()), more=False, revision=state.revision):
            raise Violated("a table is the state at its index", f"at {index} {state} is specified, held was {found}")

    def end_of(self, command: bytes) -> tuple[int, Answer] | None:
        """Where a write was executed that can be told from others, and its answer.

        None: it was not executed, or nobody can say.
        """
        _, numbered, request = decode(command)
        if numbered is not None:
            index = self._numbered_at.get((numbered.session, numbered.sequence))
        else:
            index = self._told_apart_at.get(request or command)
        return None if index is None else (index, self._answers[index][1])

    def end_of_number(self, session: bytes, number: int) -> tuple[int, bytes, Answer] | None:
        """Where the number of a session was executed, the command there, and its answer; None: it was not."""
        index = self._numbered_at.get((session, number))
        return None if index is None else (index, *self._answers[index])

    def executed_commands(self) -> Iterator[tuple[int, bytes]]:
        """Every write that was executed, with its index."""
        for index, (command, answer) in self._answers.items():
            if isinstance(answer, _EXECUTED):
                yield index, command

    def revision_at(self, index: int) -> int:
        """The store's, once all up to this index was executed."""
        return self._state_at(index).revision

    def write_answered(self, command: bytes, index: int, answer: Answer, *, asked_at: int) -> None:
        """A client was told that its command was committed at ``index``, with this answer.

        ``asked_at`` is what ``acknowledged_index`` was when it first asked.
        """
        executed_at = answer.index if isinstance(answer, Repeated) else index
        self.acknowledged(command, index, answer, executed_at=executed_at, asked_at=asked_at)
        if isinstance(answer, Repeated):
            first = self._answers.get(answer.index)
            if first is None or first[1] != answer.answer or decode(first[0]).request != decode(command).request:
                raise Violated("a repeat has the first answer", f"{answer}, but the log has {first}")

    def read_answered(self, query: Get | Range, index: int, found: Found | Page, *, asked_at: int | None) -> None:
        """A client was told that this is the state at ``index``, or so much of it as it asked for.

        ``asked_at`` is what ``acknowledged_index`` was when it asked; None: it wanted a stale answer.
        """
        self.read_in_order(index, asked_at=asked_at)
        records, revision = self._state_at(index)
        if isinstance(query, Get):
            truth: Found | Page = Found(records.get(query.key), revision)
        else:
            truth = page(records, revision, query)
        if found != truth:
            raise Violated("a read is the state at its index", f"{query} at {index} is {truth}, told was {found}")


def _types(answer: object) -> object:
    """Answers of different kinds with the same fields compare equal; with their kinds they do not."""
    return type(answer), [type(result) for result in answer.results] if isinstance(answer, TxnDone) else ()


class WatchedMachine(KeyValueMachine):
    """The store that ships; tells the oracle what it executes."""

    __slots__ = ("_oracle",)

    def __init__(self, oracle: Oracle) -> None:
        super().__init__()
        self._oracle = oracle

    def apply_batch(self, entries: Sequence[LogEntry]) -> list[Any]:
        """As the store does it."""
        answers = super().apply_batch(entries)
        for entry, answer in zip(entries, answers, strict=True):
            self._oracle.executed(entry, answer)
        if entries:
            self._oracle.table_is(entries[-1].log_index, self.query(_EVERYTHING))
        return answers
