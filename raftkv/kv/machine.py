"""The store as a replicated state machine: commands in, answers out, the same on every node.

Told: committed commands with their log index and cluster time. Tells: one answer for each. May never know:
the clock, chance, the network, which node this is, or who waits for an answer.

Apply is total: whatever the bytes, there is an answer. Cluster time is max(last, stamp); before each command
whatever has run out by then is removed, and only then is the command looked at.

The state hash covers everything that two nodes must agree on: records, sessions with their stored answers,
the revision and the cluster time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, overload

from raftkv.errors import CommandError
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
from raftkv.kv.captures import State, StoreCapture, StoreLoading, freed
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
    decode_put,
    encode,
)
from raftkv.kv.hashing import request_hash
from raftkv.kv.queries import Found, Get, Page, Query, Range, Revision
from raftkv.kv.ranges import Bounds
from raftkv.kv.sessions import Sessions
from raftkv.kv.table import ABSENT_REVISION, Table
from raftkv.state_machine import LogEntry

TIME_MS_MAX: Final = 2**62
"""A stamp beyond this counts as this: an absurd one may not break the arithmetic of expiry."""

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
                put = decode_put(encoded)
                if put is not None:
                    answers.append(self._store(*put))
                    continue
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
        return self._state.meta.state_hash

    def snapshot(self) -> bytes:
        """The whole state; equal states have equal snapshots."""
        capture = self.capture()
        packed = snapshot.joined(capture.blocks())
        while not capture.fold(1_000):
            pass
        return packed

    def restore(self, packed: bytes) -> None:
        """The state is what ``snapshot`` returned; raises SnapshotError, and then nothing has changed."""
        loading = self.loading()
        for block in snapshot.parted(packed):
            loading.add(block)
        loading.finish()

    def capture(self) -> StoreCapture:
        """The state as it is now, to be read in a thread; in a time that hardly depends on how much it holds."""
        return StoreCapture(self._state)

    def loading(self) -> StoreLoading:
        """Begins to replace the state, which stays in use until the end."""
        return StoreLoading(self._replace)

    def discard(self) -> Iterator[None]:
        """The store is empty; what it held is freed piece by piece."""
        return freed(self._replace(State(Table(), Sessions(), 0)))

    def raise_revision(self) -> None:
        """No revision that was ever given can come again, whatever was lost: for restored and forced clusters."""
        self._table.revision += snapshot.REVISION_RAISE

    @property
    def _state(self) -> State:
        return State(self._table, self._sessions, self._time_ms)

    def _replace(self, state: State) -> State:
        """The state is this one; that of before, which nobody needs, nor any capture of it."""
        old = self._state
        old.table.abandon()
        old.sessions.abandon()
        self._table, self._sessions, self._time_ms = state
        return old

    def _pass_time(self, stamp_ms: int) -> None:
        self._time_ms = max(self._time_ms, min(stamp_ms, TIME_MS_MAX))
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
        """What is too large is so whatever the key holds."""
        failed = None
        if command.expect != ANY and len(command.key) + len(command.value) <= COMMAND_BYTES_MAX:
            failed = self._failed_condition(command.key, command.expect)
        return self._store(command.key, command.value) if failed is None else failed

    def _store(self, key: bytes, value: bytes) -> PutDone | TooLarge:
        touched_bytes = len(key) + len(value)
        if touched_bytes > COMMAND_BYTES_MAX:
            return TooLarge(touched_bytes, COMMAND_BYTES_MAX)
        self._table.revision += 1
        return self._table.put(key, value, self._table.revision)

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


def _is_as_expected(expect: Expect, mod_revision: int) -> bool:
    if expect == PRESENT:
        return mod_revision != ABSENT_REVISION
    return expect == mod_revision
