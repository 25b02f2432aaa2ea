"""A transaction's branch, executed on the table (``http-api.md``, "Keys").

Told: a table and a transaction. Tells: what it came to, or that it is too large; then nothing has changed. May
never know: sessions, time, the log.

All or nothing without anything to undo: whatever can be refused is refused before the first change. What a
branch touches for certain is counted beforehand, and ranges, which can stop early, share what that leaves:

    a compare    its key and its operand
    a put        its key, and the larger of its value and the one that it replaces
    a delete     its key and the value that goes
    a read       its key, and the value that it finds, were no range deleted before it
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import eq, gt, lt, ne
from typing import Final

from raftkv.kv import record
from raftkv.kv.answers import (
    DeleteRangeResult,
    DeleteResult,
    PutResult,
    ReadKeyResult,
    ReadRangeResult,
    Result,
    TooLarge,
    TxnDone,
)
from raftkv.kv.commands import (
    COMMAND_BYTES_MAX,
    COMMAND_KEYS_MAX,
    Compare,
    Delete,
    DeleteRange,
    Op,
    Operation,
    Put,
    ReadKey,
    ReadRange,
    Target,
    Txn,
)
from raftkv.kv.ranges import Bounds
from raftkv.kv.record import HEADER_BYTES
from raftkv.kv.table import Selection, Table

_HOLDS: Final = {Op.EQUAL: eq, Op.UNEQUAL: ne, Op.LESS: lt, Op.GREATER: gt}
_FIELD: Final = {Target.CREATE_REVISION: 0, Target.MOD_REVISION: 1, Target.VERSION: 2}
"""Where in a record's header it stands."""


def execute(table: Table, txn: Txn) -> TxnDone | TooLarge:
    """The branch that the compares choose is executed, whole and at one revision."""
    succeeded = all(_holds(table, compare) for compare in txn.compares)
    branch = txn.success if succeeded else txn.failure
    touched_bytes = sum(map(_compared_bytes, txn.compares)) + _certain_bytes(table, branch)
    if touched_bytes > COMMAND_BYTES_MAX:
        return TooLarge(touched_bytes, COMMAND_BYTES_MAX)
    touched_keys = len(txn.compares) + sum(isinstance(one, Put | Delete | ReadKey) for one in branch)
    execution = _Execution(
        table, bytes_left=COMMAND_BYTES_MAX - touched_bytes, keys_left=COMMAND_KEYS_MAX - touched_keys
    )
    results = tuple(map(execution.result, branch))
    if execution.has_changed:
        table.revision = execution.revision
    return TxnDone(succeeded, results, table.revision)


def _holds(table: Table, compare: Compare) -> bool:
    found = table.packed(compare.key)
    holds, operand = _HOLDS[compare.op], compare.operand
    if isinstance(operand, int):
        return bool(holds(0 if found is None else record.header(found)[_FIELD[compare.target]], operand))
    if found is None:
        return False
    # One byte more than the operand has decides as the whole value would, and needs no copy of a large one.
    return bool(holds(found[HEADER_BYTES : HEADER_BYTES + len(operand) + 1], operand))


def _compared_bytes(compare: Compare) -> int:
    return len(compare.key) + (len(compare.operand) if isinstance(compare.operand, bytes) else 0)


def _certain_bytes(table: Table, branch: Sequence[Operation]) -> int:
    """What the operations on single keys touch; each key is written at most once."""
    written: dict[bytes, int] = {}
    touched = 0
    for operation in branch:
        match operation:
            case Put(key, value):
                touched += len(key) + max(len(value), _value_bytes(table, key))
                written[key] = len(value)
            case Delete(key):
                touched += len(key) + _value_bytes(table, key)
                written[key] = 0
            case ReadKey(key):
                touched += len(key) + (written[key] if key in written else _value_bytes(table, key))
    return touched


def _value_bytes(table: Table, key: bytes) -> int:
    found = table.packed(key)
    return 0 if found is None else len(found) - HEADER_BYTES


class _Execution:
    """One branch under way. What may stop early stops where nothing is left to touch."""

    __slots__ = ("_bytes_left", "_keys_left", "_table", "has_changed", "revision")

    def __init__(self, table: Table, *, bytes_left: int, keys_left: int) -> None:
        self._table = table
        self._bytes_left = bytes_left
        self._keys_left = keys_left
        self.revision = table.revision + 1
        """That of everything that is changed."""
        self.has_changed = False

    def result(self, operation: Operation) -> Result:
        """The operation is executed."""
        match operation:
            case Put():
                self.has_changed = True
                done = self._table.put(operation.key, operation.value, self.revision)
                return PutResult(done.revision, done.version)
            case Delete():
                return DeleteResult(self._remove([operation.key]))
            case ReadKey():
                return ReadKeyResult(operation.key, self._table.get(operation.key))
            case DeleteRange():
                selection = self._select(operation)
                return DeleteRangeResult(self._remove(selection.keys), selection.more)
            case ReadRange():
                selection = self._select(operation, reverse=operation.reverse, keys_only=operation.keys_only)
                items = self._table.items(selection.keys, keys_only=operation.keys_only)
                return ReadRangeResult(tuple(items), selection.more, operation.keys_only)

    def _remove(self, keys: Sequence[bytes]) -> int:
        removed = sum(map(self._table.remove, keys))
        self.has_changed |= removed > 0
        return removed

    def _select(self, asked: DeleteRange | ReadRange, *, reverse: bool = False, keys_only: bool = False) -> Selection:
        selection = self._table.select(
            Bounds(asked.start, asked.end),
            keys_max=min(asked.limit, self._keys_left),
            bytes_max=self._bytes_left,
            keys_min=0,
            reverse=reverse,
            keys_only=keys_only,
        )
        self._keys_left -= len(selection.keys)
        self._bytes_left -= selection.size_bytes
        return selection
