"""The store as a replicated state machine: commands in, answers out, the same on every node.

Told: committed commands with their log index and cluster time. Tells: one answer for each. May never know:
the clock, chance, the network, which node this is, or who waits for an answer.

Apply is total: whatever the bytes, there is an answer. Cluster time is max(last, stamp); before each command
whatever has run out by then is removed, and only then is the command looked at.

The state hash covers everything that two nodes must agree on: records, sessions with their stored answers,
the revision and the cluster time.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any, Final, overload

from raftkv.errors import CommandError, SnapshotError
from raftkv.kv import snapshot, transactions
from raftkv.kv.answers import (
    Answer,
    ConditionFailed,
    DeleteDone,
    DeleteRangeDone,
    Executed,
    Malformed,
    PutDone,
    Ticked,
    TooLarge,
)
from raftkv.kv.commands import (
    ANY,
    COMMAND_BYTES_MAX,
    PRESENT,
    CloseSession,
    Delete,
    DeleteRange,
    Expect,
    KeepAlive,
    Numbered,
    OpenSession,
    Put,
    Tick,
    Txn,
    Write,
    decode,
    encode,
)
from raftkv.kv.hashing import Room, item_hash, request_hash, total
from raftkv.kv.queries import Found, Get, Page, Query, Range, Revision
from raftkv.kv.ranges import Bounds
from raftkv.kv.sessions import Sessions
from raftkv.kv.snapshot import State
from raftkv.kv.table import ABSENT_REVISION, Table
from raftkv.state_machine import Capture, Loading, LogEntry, WholeCapture, WholeLoading

TIME_MS_MAX: Final = 2**62
"""A stamp beyond this counts as this: an absurd one may not break the arithmetic of expiry."""

_CLOCKS: Final = struct.Struct("<QQ")
_TICK: Final = encode(Tick())


class KeyValueMachine:
    """Implements ``raftkv.state_machine.StateMachine``."""

    __slots__ = ("_sessions", "_table", "_time_ms")

    def __init__(self) -> None:
        self._table = Table()
        self._sessions = Sessions()
        self._time_ms = 0
        """Cluster time: the highest stamp so far."""

    def apply_batch(self, entries: Sequence[LogEntry]) -> list[Answer]:
        """Executes the commands in order; one answer for each."""
        answers: list[Answer] = []
        for index, stamp_ms, encoded in entries:
            self._pass_time(stamp_ms)
            try:
                command, numbered, request = decode(encoded)
            except CommandError as error:
                answers.append(Malformed(str(error)))
                continue
            if isinstance(command, Write):
                answers.append(self._apply_write(command, numbered, request, index))
            else:
                answers.append(self._apply_to_sessions(command))
        return answers

    @overload
    def query(self, query: Get) -> Found: ...
    @overload
    def query(self, query: Range) -> Page: ...
    @overload
    def query(self, query: Revision) -> int: ...
    def query(self, query: Query) -> Any:
        """Answers from the state as it is now."""
        match query:
            case Get():
                return Found(self._table.get(query.key), self._table.revision)
            case Range():
                return self._page(query)
            case Revision():
                return self._table.revision

    def tick_due_ms(self) -> int | None:
        """The cluster time at which the next session runs out; None: there is none."""
        return self._sessions.next_expiry_ms()

    def tick_command(self) -> bytes:
        """A command that only lets time pass."""
        return _TICK

    def state_hash(self) -> int:
        """128 bits over records, sessions, revision and cluster time."""
        return _state_hash(self._table, self._sessions, self._time_ms)

    def snapshot(self) -> bytes:
        """The whole state; equal states have equal snapshots."""
        return snapshot.pack(State(self._table, self._sessions, self._time_ms, self.state_hash()))

    def restore(self, packed: bytes) -> None:
        """The state is what ``snapshot`` returned; raises SnapshotError, and then nothing has changed."""
        state = snapshot.unpack(packed)
        if _state_hash(state.table, state.sessions, state.time_ms) != state.state_hash:
            raise SnapshotError("the state in the snapshot does not have the hash that it had when it was taken")
        self._table, self._sessions, self._time_ms, _ = state

    def capture(self) -> Capture:
        """The state as it is now."""
        return WholeCapture(self.snapshot())

    def loading(self) -> Loading:
        """Begins to replace the state."""
        return WholeLoading(self)

    def discard(self) -> Iterator[None]:
        """The machine is empty."""
        self._table, self._sessions, self._time_ms = Table(), Sessions(), 0
        return iter(())

    def raise_revision(self) -> None:
        """No revision that was ever given can come again, whatever was lost: for restored and forced clusters."""
        self._table.revision += snapshot.REVISION_RAISE

    def _pass_time(self, stamp_ms: int) -> None:
        self._time_ms = max(self._time_ms, min(stamp_ms, TIME_MS_MAX))
        due_ms = self._sessions.next_expiry_ms()
        if due_ms is not None and due_ms <= self._time_ms:
            self._sessions.expire(self._time_ms)

    def _page(self, query: Range) -> Page:
        selection = self._table.select(
            Bounds(query.start, query.end),
            keys_max=query.limit,
            bytes_max=query.bytes_max,
            reverse=query.reverse,
            keys_only=query.keys_only,
        )
        items = self._table.items(selection.keys, keys_only=query.keys_only)
        return Page(items, selection.more, self._table.revision)

    def _apply_write(self, command: Write, numbered: Numbered | None, request: bytes, index: int) -> Answer:
        """What is too large is not executed, and so not remembered: its number is still free."""
        if numbered is None:
            return self._execute(command)
        hashed = request_hash(request)
        judgement = self._sessions.judge(numbered, hashed, self._time_ms)
        if judgement is not None:
            return judgement
        answer = self._execute(command)
        if not isinstance(answer, TooLarge):
            self._sessions.remember(numbered, hashed, self._time_ms, index=index, answer=answer)
        return answer

    def _execute(self, command: Write) -> Executed | TooLarge:
        match command:
            case Put():
                return self._put(command)
            case Delete():
                return self._delete(command)
            case DeleteRange():
                return self._delete_range(command)
            case Txn():
                return transactions.execute(self._table, command)

    def _put(self, command: Put) -> PutDone | ConditionFailed | TooLarge:
        touched_bytes = len(command.key) + len(command.value)
        if touched_bytes > COMMAND_BYTES_MAX:
            return TooLarge(touched_bytes, COMMAND_BYTES_MAX)
        failed = self._failed_condition(command.key, command.expect)
        if failed is not None:
            return failed
        self._table.revision += 1
        return self._table.put(command.key, command.value, self._table.revision)

    def _delete(self, command: Delete) -> DeleteDone | ConditionFailed:
        failed = self._failed_condition(command.key, command.expect)
        if failed is not None:
            return failed
        deleted = int(self._table.remove(command.key))
        self._table.revision += deleted
        return DeleteDone(deleted, self._table.revision)

    def _delete_range(self, command: DeleteRange) -> DeleteRangeDone:
        """One revision for all; at least one key goes, if there is one: who repeats it comes to an end."""
        bounds = Bounds(command.start, command.end)
        selection = self._table.select(bounds, keys_max=command.limit, bytes_max=COMMAND_BYTES_MAX)
        for key in selection.keys:
            self._table.remove(key)
        self._table.revision += bool(selection.keys)
        return DeleteRangeDone(len(selection.keys), selection.more, self._table.revision)

    def _failed_condition(self, key: bytes, expect: Expect) -> ConditionFailed | None:
        if expect == ANY:
            return None
        mod_revision = self._table.mod_revision(key)
        return None if _is_as_expected(expect, mod_revision) else ConditionFailed(mod_revision, self._table.revision)

    def _apply_to_sessions(self, command: OpenSession | KeepAlive | CloseSession | Tick) -> Answer:
        match command:
            case OpenSession():
                return self._sessions.open(command.session, command.ttl_ms, self._time_ms)
            case KeepAlive():
                return self._sessions.keep_alive(command.session, self._time_ms)
            case CloseSession():
                return self._sessions.close(command.session, self._time_ms)
            case Tick():
                return Ticked()


def _state_hash(table: Table, sessions: Sessions, time_ms: int) -> int:
    clocks = item_hash(Room.CLOCKS, b"", _CLOCKS.pack(table.revision, time_ms))
    return total(table.hash_sum, sessions.hash_sum, clocks)


def _is_as_expected(expect: Expect, mod_revision: int) -> bool:
    if expect == PRESENT:
        return mod_revision != ABSENT_REVISION
    return expect == mod_revision
