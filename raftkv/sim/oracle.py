"""What the committed log says, kept beside the cluster, and every answer to a client held against it.

Told: every command as the replicas execute it, and what clients were told. Tells: Violated, when a command was
executed twice, when replicas answer it differently, or when an answer is not what the log has at its index.
Knows nothing of Raft: where it and the checker of histories disagree, one of them is wrong.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from raftkv.kv.answers import Answer, ConditionFailed, DeleteDone, PutDone, Repeated
from raftkv.kv.commands import Delete, Put, Write, decode
from raftkv.kv.machine import KeyValueMachine
from raftkv.kv.queries import Found
from raftkv.sim.invariants import Violated
from raftkv.state_machine import LogEntry

_EXECUTED = (PutDone, DeleteDone, ConditionFailed)


class Oracle:
    """One log's worth of truth, shared by all replicas of a cluster."""

    def __init__(self) -> None:
        self.executions = 0
        self.acknowledged_index = 0
        """The highest index of an answer that a node has given, stale reads apart: who asks from now on sees it."""
        self._answers: dict[int, tuple[bytes, Answer]] = {}
        """By log index: the command and its answer, as the first replica executed it."""
        self._newest_index = 0
        self._numbered_at: dict[tuple[bytes, int], int] = {}
        """Where each session's number was executed."""
        self._put_at: dict[bytes, int] = {}
        """Where each value was put: no two puts of a workload have the same."""
        self._versions: dict[bytes, tuple[list[int], list[tuple[bytes | None, int]]]] = {}
        """By key: the indexes at which it changed, and (value or None, mod revision) from there on."""

    def executed(self, entry: LogEntry, answer: Answer) -> None:
        """A replica has executed this entry."""
        known = self._answers.get(entry.log_index)
        if known is None:
            self._executed_first(entry, answer)
        elif known[0] != entry.command:
            raise Violated("State Machine Safety", f"two commands were executed at index {entry.log_index}")
        elif known[1] != answer or type(known[1]) is not type(answer):
            raise Violated("equal answers", f"{known[1]} and {answer} at index {entry.log_index}")

    def _executed_first(self, entry: LogEntry, answer: Answer) -> None:
        index = entry.log_index
        if index <= self._newest_index:
            raise Violated("in order", f"index {index} was executed first after {self._newest_index}")
        self._newest_index = index
        self._answers[index] = (entry.command, answer)
        if not isinstance(answer, _EXECUTED):
            return
        self.executions += 1
        command, numbered, _ = decode(entry.command)
        assert isinstance(command, Write)
        if numbered is not None:
            first = self._numbered_at.setdefault((numbered.session, numbered.sequence), index)
            if first != index:
                raise Violated("at most once", f"number {numbered.sequence} was executed at {first} and {index}")
        if isinstance(answer, PutDone):
            assert isinstance(command, Put)
            first = self._put_at.setdefault(command.value, index)
            if first != index:
                raise Violated("at most once", f"{command.value!r} was put at {first} and {index}")
            self._changed(command.key, index, command.value, answer.revision)
        elif isinstance(answer, DeleteDone) and answer.deleted:
            assert isinstance(command, Delete)
            self._changed(command.key, index, None, 0)

    def _changed(self, key: bytes, index: int, value: bytes | None, mod_revision: int) -> None:
        indexes, versions = self._versions.setdefault(key, ([], []))
        indexes.append(index)
        versions.append((value, mod_revision))

    def end_of(self, command: bytes) -> Answer | None:
        """What became of a write that can be told from others; None: it was not executed, or nobody can say."""
        request, numbered, _ = decode(command)
        if numbered is not None:
            index = self._numbered_at.get((numbered.session, numbered.sequence))
        else:
            index = self._put_at.get(request.value) if isinstance(request, Put) else None
        return None if index is None else self._answers[index][1]

    def write_answered(self, command: bytes, index: int, answer: Answer, *, asked_at: int) -> None:
        """A client was told that its command was committed at ``index``, with this answer.

        ``asked_at`` is what ``acknowledged_index`` was when it first asked.
        """
        self.acknowledged_index = max(self.acknowledged_index, index)
        executed_at = answer.index if isinstance(answer, Repeated) else index
        if executed_at <= asked_at:
            raise Violated("real-time order", f"{answer} at {executed_at}, asked after {asked_at} was acknowledged")
        known = self._answers.get(index)
        if known is None or known[0] != command or known[1] != answer:
            raise Violated("acknowledged is executed", f"{answer} at index {index}, where the log has {known}")
        if isinstance(answer, Repeated):
            first = self._answers.get(answer.index)
            if first is None or first[1] != answer.answer or decode(first[0]).request != decode(command).request:
                raise Violated("a repeat has the first answer", f"{answer}, but the log has {first}")

    def read_answered(self, key: bytes, index: int, found: Found, *, asked_at: int | None) -> None:
        """A client was told that this is the key's record in the state at ``index``.

        ``asked_at`` is what ``acknowledged_index`` was when it asked; None: it wanted a stale answer.
        """
        if asked_at is not None:
            self.acknowledged_index = max(self.acknowledged_index, index)
            if index < asked_at:
                raise Violated("real-time order", f"read at {index}, asked after {asked_at} was acknowledged")
        indexes, versions = self._versions.get(key, ([], []))
        place = bisect_right(indexes, index)
        truth = versions[place - 1] if place else (None, 0)
        told = (None, 0) if found.record is None else (found.record.value, found.record.mod_revision)
        if told != truth:
            raise Violated("a read is the state at its index", f"{key!r} at {index} is {truth}, told was {told}")


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
        return answers
