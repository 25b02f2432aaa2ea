"""What commands on keys come to, written without a thought for speed: the real store is held against it.

Told: writes, and ranges to look at. Tells: what they come to. May never know: sessions, time, the log, and how the
store goes about it: nothing is kept incrementally, packed or indexed; every write is done on a copy of
everything, and what then differs is what was changed.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import Any, Final

from raftkv.kv import commands
from raftkv.kv.answers import (
    ConditionFailed,
    DeleteDone,
    DeleteRangeDone,
    DeleteRangeResult,
    DeleteResult,
    Executed,
    PutDone,
    PutResult,
    ReadKeyResult,
    ReadRangeResult,
    Result,
    TooLarge,
    TxnDone,
)
from raftkv.kv.commands import Compare, Delete, DeleteRange, Operation, Put, ReadKey, ReadRange, Txn, Write
from raftkv.kv.queries import Page, Range
from raftkv.kv.record import NO_LEASE, Record

Records = dict[bytes, Record]

_COMPARISONS: Final[dict[str, Any]] = {"==": operator.eq, "!=": operator.ne, "<": operator.lt, ">": operator.gt}


@dataclass(slots=True)
class Specification:
    """All keys, and the revision."""

    bytes_max: int = commands.COMMAND_BYTES_MAX
    """What one command may touch."""
    keys_max: int = commands.COMMAND_KEYS_MAX
    """What one transaction may touch; a range delete names its own limit."""
    records: Records = field(default_factory=dict)
    """Never changed: replaced."""
    revision: int = 0

    def write(self, command: Write) -> Executed | TooLarge:
        """The command is executed."""
        match command:
            case Txn():
                return self._transact(command)
            case DeleteRange():
                gone, more, _ = _first(self.records, command, keys_max=command.limit, bytes_max=self.bytes_max)
                self._commit({key: found for key, found in self.records.items() if key not in gone})
                return DeleteRangeDone(len(gone), more, self.revision)
            case Put() if len(command.key) + len(command.value) > self.bytes_max:
                return TooLarge(len(command.key) + len(command.value), self.bytes_max)
        found = self.records.get(command.key)
        if not _is_as_expected(found, command.expect):
            return ConditionFailed(found.mod_revision if found else 0, self.revision)
        after = dict(self.records)
        if isinstance(command, Delete):
            after.pop(command.key, None)
            self._commit(after)
            return DeleteDone(int(found is not None), self.revision)
        new = after[command.key] = _put(found, command.value, self.revision + 1)
        self._commit(after)
        return PutDone(found is None, self.revision, new.create_revision, new.version)

    def _transact(self, command: Txn) -> TxnDone | TooLarge:
        succeeded = all(_holds(self.records.get(compare.key), compare) for compare in command.compares)
        branch = command.success if succeeded else command.failure
        bytes_left = self.bytes_max - sum(map(_compared_bytes, command.compares)) - self._single_keys_bytes(branch)
        if bytes_left < 0:
            return TooLarge(self.bytes_max - bytes_left, self.bytes_max)
        keys_left = self.keys_max - len(command.compares)
        keys_left -= sum(isinstance(one, Put | Delete | ReadKey) for one in branch)
        after, results = dict(self.records), []
        for one in branch:
            result, keys_touched, bytes_touched = self._operate(after, one, keys_left, bytes_left)
            keys_left, bytes_left = keys_left - keys_touched, bytes_left - bytes_touched
            results.append(result)
        self._commit(after)
        return TxnDone(succeeded, tuple(results), self.revision)

    def _single_keys_bytes(self, branch: tuple[Operation, ...]) -> int:
        """What its operations on single keys touch: found by executing these alone."""
        after, touched = dict(self.records), 0
        for one in branch:
            if isinstance(one, Put | Delete | ReadKey):
                before = len(after[one.key].value) if one.key in after else 0
                new = len(one.value) if isinstance(one, Put) else 0
                touched += len(one.key) + max(before, new)
                self._operate(after, one, 0, 0)
        return touched

    def _operate(self, after: Records, one: Operation, keys_left: int, bytes_left: int) -> tuple[Result, int, int]:
        """The result, and how many keys and bytes it touched, if it is a range."""
        match one:
            case Put():
                after[one.key] = _put(after.get(one.key), one.value, self.revision + 1)
                return PutResult(self.revision + 1, after[one.key].version), 0, 0
            case Delete():
                return DeleteResult(int(after.pop(one.key, None) is not None)), 0, 0
            case ReadKey():
                return ReadKeyResult(one.key, after.get(one.key)), 0, 0
        keys, more, size = _first(after, one, keys_max=keys_left, bytes_max=bytes_left)
        if isinstance(one, ReadRange):
            items = tuple(_item(after, key, keys_only=one.keys_only) for key in keys)
            return ReadRangeResult(items, more, one.keys_only), len(keys), size
        for key in keys:
            del after[key]
        return DeleteRangeResult(len(keys), more), len(keys), size

    def _commit(self, after: Records) -> None:
        """One revision for whatever has changed."""
        self.revision += after != self.records
        self.records = after


def page(records: Records, revision: int, query: Range) -> Page:
    """What the range gives, of a state with these records and this revision."""
    keys, more, _ = _first(records, query, keys_max=query.limit, bytes_max=query.bytes_max)
    if not keys and more and query.limit > 0:
        keys, more, _ = _first(records, query, keys_max=1, bytes_max=2**62)
    return Page([_item(records, key, keys_only=query.keys_only) for key in keys], more, revision)


def _first(
    records: Records, asked: DeleteRange | ReadRange | Range, *, keys_max: int, bytes_max: int
) -> tuple[list[bytes], bool, int]:
    """The first keys that fit, whether there are more, and how many bytes they and their values have."""
    within = sorted(key for key in records if asked.start <= key and (asked.end is None or key < asked.end))
    keys_only = False
    if not isinstance(asked, DeleteRange):
        within, keys_only = within[::-1] if asked.reverse else within, asked.keys_only
    count = min(len(within), asked.limit, keys_max)
    while _size(records, within[:count], keys_only=keys_only) > bytes_max:
        count -= 1
    return within[:count], count < len(within), _size(records, within[:count], keys_only=keys_only)


def _size(records: Records, keys: list[bytes], *, keys_only: bool) -> int:
    return sum(len(key) + (0 if keys_only else len(records[key].value)) for key in keys)


def _item(records: Records, key: bytes, *, keys_only: bool) -> tuple[bytes, Record]:
    return key, records[key]._replace(value=b"") if keys_only else records[key]


def _put(found: Record | None, value: bytes, revision: int) -> Record:
    if found is None:
        return Record(revision, revision, 1, NO_LEASE, value)
    return found._replace(mod_revision=revision, version=found.version + 1, value=value)


def _is_as_expected(found: Record | None, expect: int) -> bool:
    known = {commands.ANY: True, commands.PRESENT: found is not None, commands.ABSENT: found is None}
    return known.get(commands.Expect(expect), found is not None and found.mod_revision == expect)


def _holds(found: Record | None, compare: Compare) -> bool:
    if found is None and compare.target is commands.Target.VALUE:
        return False
    there = 0 if found is None else getattr(found, compare.target.value)
    return bool(_COMPARISONS[compare.op.value](there, compare.operand))


def _compared_bytes(compare: Compare) -> int:
    return len(compare.key) + (len(compare.operand) if isinstance(compare.operand, bytes) else 0)
