"""Any state machine in a virtual cluster, watched: deterministic, total, restorable, and answered truly.

Told: every batch as the replicas execute it, and what clients were told. Tells: Violated. The truth is the log: a
reference machine of the same class executes it entry by entry, and beside it one that was restored from the
reference's snapshot now and then. Every replica's answers and states are held against these at their indexes.

Answers to queries are compared with what the reference answers at the same index. Whatever a query raises is an
answer too. May never know: what the machine is for.
"""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from raftkv.sim.checks.committed import Committed
from raftkv.sim.checks.invariants import Violated
from raftkv.sim.machine import SimulatedMachine
from raftkv.state_machine import LogEntry, StateMachine

MakeMachine = Callable[[], SimulatedMachine]

_RESTORED_EVERY: Final = 16
"""So many commands after the last time, the second reference is made anew from a snapshot."""


class Raised(NamedTuple):
    """What a query raised, as an answer."""

    kind: str
    text: str


class MachineOracle(Committed):
    """What the committed log makes of this machine."""

    def __init__(self, make: MakeMachine) -> None:
        super().__init__()
        self._make = make
        self.reference = make()
        """It holds everything that was committed by now."""
        self._restored = make()
        self._restored_at = 0
        self._indexes = [0]
        self._snapshots = [_snapshot(self.reference)]
        """The reference's at each of the indexes."""
        self._states: dict[int, object] = {0: _state(self.reference)}
        self._submitted: Counter[bytes] = Counter()
        self._executed: Counter[bytes] = Counter()
        self._acknowledged_at: dict[int, None] = {}

    def submitted(self, command: bytes) -> None:
        """A client asks a node to have this executed."""
        self._submitted[command] += 1

    def was_void(self, command: bytes) -> None:
        """One asking of this came to nothing, as a node has said, and never will come to anything."""
        self._submitted[command] -= 1
        self._at_most_once(command)

    def _executed_first(self, entry: LogEntry, answer: Any) -> None:
        self.executions += 1
        self._executed[entry.command] += 1
        self._at_most_once(entry.command)
        for who, machine in (("another machine", self.reference), ("a restored machine", self._restored)):
            expected = _applied(machine, [entry])[0]
            if expected != answer:
                what = f"{_shown(entry.command)} at index {entry.log_index}"
                raise Violated("equal answers", f"{what} came to {answer!r}, on {who} to {expected!r}")
        self.digest = zlib.crc32(_plain(answer).encode(), self.digest)
        self._note_state(entry.log_index)

    def _at_most_once(self, command: bytes) -> None:
        if self._executed[command] > self._submitted[command]:
            raise Violated("at most once", f"{_shown(command)} was executed more often than clients can have meant")

    def _note_state(self, index: int) -> None:
        state = self._states[index] = _state(self.reference)
        snapshot = _snapshot(self.reference)
        self._indexes.append(index)
        self._snapshots.append(snapshot)
        self.digest = zlib.crc32(snapshot, self.digest)
        if _state(self._restored) != state:
            if self._restored_at == 0:
                raise Violated("equal states", f"two machines that executed the same differ at index {index}")
            text = f"what was restored at {self._restored_at} differs at {index}"
            raise Violated("a snapshot holds the whole state", text)
        if self.executions % _RESTORED_EVERY == 0:
            self._restored, self._restored_at = self._restored_from(snapshot), index
            if _state(self._restored) != state:
                raise Violated("a snapshot holds the whole state", f"what is restored from it differs, at {index}")

    def _restored_from(self, snapshot: bytes) -> SimulatedMachine:
        machine = self._make()
        try:
            machine.restore(snapshot)
        except Exception as error:
            raise Violated("a snapshot can be restored", f"{type(error).__name__}: {error}") from error
        return machine

    def state_is(self, index: int, machine: SimulatedMachine) -> None:
        """A replica that has executed all up to this index has this state."""
        if _state(machine) != self._states[index]:
            raise Violated("equal states", f"a replica differs from another machine at index {index}")

    def write_answered(self, command: bytes, index: int, answer: Any, *, asked_at: int) -> None:
        """A client was told that its command was executed at ``index``, with this answer; ``asked_at`` as for all."""
        self.acknowledged(command, index, answer, executed_at=index, asked_at=asked_at)
        if index in self._acknowledged_at:
            raise Violated("never another's answer", f"two commands were acknowledged with index {index}")
        self._acknowledged_at[index] = None

    def read_answered(self, query: Any, index: int, answer: Any, *, asked_at: int | None) -> None:
        """A client was told that this is the answer at ``index``; ``asked_at`` is None where it wanted a stale one."""
        self.read_in_order(index, asked_at=asked_at)
        truth = queried(self._reference_at(index), query)
        if truth != answer:
            text = f"{query!r} at {index} is {truth!r}, told was {answer!r}"
            raise Violated("a read is the state at its index", text)

    def _reference_at(self, index: int) -> SimulatedMachine:
        place = bisect_right(self._indexes, index) - 1
        newest = place == len(self._indexes) - 1
        return self.reference if newest else self._restored_from(self._snapshots[place])


class WatchedReplica(StateMachine):
    """The user's machine at one node; tells the oracle what it executes."""

    def __init__(self, oracle: MachineOracle, make: MakeMachine) -> None:
        self._oracle, self._machine = oracle, make()

    def apply_batch(self, entries: Sequence[LogEntry]) -> Sequence[Any]:
        """As the machine does it; then everything that can be held against it is."""
        if not entries:
            return []
        answers = _applied(self._machine, entries)
        for entry, answer in zip(entries, answers, strict=True):
            self._oracle.executed(entry, answer)
        self._oracle.state_is(entries[-1].log_index, self._machine)
        _check(self._machine)
        return answers

    def query(self, query: Any) -> Any:
        """As the machine answers it, or what it raises."""
        return queried(self._machine, query)

    def snapshot(self) -> bytes:
        """The machine's own."""
        return _snapshot(self._machine)

    def restore(self, snapshot: bytes) -> None:
        """The machine does it."""
        self._machine.restore(snapshot)

    def tick_due_ms(self) -> int | None:
        """The machine's own, if it knows of ticks."""
        due: Callable[[], int | None] | None = getattr(self._machine, "tick_due_ms", None)
        return None if due is None else due()

    def tick_command(self) -> bytes:
        """The machine's own; nobody but its leader has submitted it."""
        command: bytes = self._machine.tick_command()  # type: ignore[attr-defined]
        self._oracle.submitted(command)
        return command

    def state_hash(self) -> int | None:
        """The machine's own, if it has one."""
        return _state_hash(self._machine)


def queried(machine: SimulatedMachine, query: Any) -> Any:
    """The answer, or what was raised."""
    try:
        return machine.query(query)
    except Exception as error:  # noqa: BLE001 - it goes to whoever asked, and must be the same everywhere
        return Raised(type(error).__name__, str(error))


def _applied(machine: SimulatedMachine, entries: Sequence[LogEntry]) -> list[Any]:
    try:
        answers = list(machine.apply_batch(entries))
    except Exception as error:
        indexes = f"{entries[0].log_index} to {entries[-1].log_index}"
        raise Violated("apply never raises", f"{type(error).__name__}: {error}, in entries {indexes}") from error
    if len(answers) != len(entries):
        raise Violated("one answer for each entry", f"{len(entries)} entries, {len(answers)} answers")
    return answers


def _check(machine: SimulatedMachine) -> None:
    check: Callable[[], None] | None = getattr(machine, "check", None)
    if check is None:
        return
    try:
        check()
    except Exception as error:
        raise Violated("the machine's own check", f"{type(error).__name__}: {error}") from error


def _snapshot(machine: SimulatedMachine) -> bytes:
    try:
        snapshot = machine.snapshot()
    except Exception as error:
        raise Violated("a snapshot can be taken", f"{type(error).__name__}: {error}") from error
    if not isinstance(snapshot, bytes):
        raise Violated("a snapshot can be taken", f"it is bytes; this one is {type(snapshot).__name__}")
    return snapshot


def _state_hash(machine: SimulatedMachine) -> int | None:
    own: Callable[[], int | None] | None = getattr(machine, "state_hash", None)
    return None if own is None else own()


def _state(machine: SimulatedMachine) -> object:
    """What equal states have alike."""
    own = _state_hash(machine)
    return _snapshot(machine) if own is None else own


def _plain(answer: object) -> str:
    """What is the same in every process where the answer is: a set has no order, and an object no address."""
    match answer:
        case None | bool() | int() | float() | str() | bytes():
            return repr(answer)
        case list() | tuple():
            return f"[{','.join(map(_plain, answer))}]"
        case dict():
            return f"{{{','.join(f'{_plain(key)}:{_plain(value)}' for key, value in answer.items())}}}"
        case set() | frozenset():
            return f"{{{','.join(sorted(map(_plain, answer)))}}}"
    return type(answer).__qualname__


def _shown(command: bytes) -> str:
    return repr(command) if len(command) <= 60 else f"{command[:50]!r}… ({len(command)} bytes)"
