"""Requests of the workload in the library's words, and its results in the store's.

Told: a request; a result or an error that the library gave. Tells: the wish for it; what the store must have answered
for that. May never know: how it was asked.
"""

from __future__ import annotations

from typing import Any, Final, TypeVar

from raftkv.api.ranges import PAGE_BYTES_MAX
from raftkv.client import results, txn, wishes
from raftkv.client.wishes import Condition, Consistency, Freshness, Wish
from raftkv.errors import ConditionFailed
from raftkv.kv import answers
from raftkv.kv.commands import (
    ABSENT,
    ANY,
    PRESENT,
    Compare,
    Delete,
    DeleteRange,
    Expect,
    Operation,
    Put,
    ReadKey,
    ReadRange,
    Txn,
    Write,
)
from raftkv.kv.queries import Found, Get, Page, Range
from raftkv.kv.record import NO_LEASE, Record

Read = Get | Range
_T = TypeVar("_T")
_CONDITIONS: Final = {ANY: Condition(), ABSENT: Condition(absent=True), PRESENT: Condition(present=True)}


# ------------------------------------------------------------------------------------------ what is asked


def wish_to_write(write: Write) -> Wish[Any]:
    """As a program would ask the library for it."""
    match write:
        case Put(key, value, expect):
            return wishes.put(key, value, _condition(expect))
        case Delete(key, expect):
            return wishes.delete(key, _condition(expect))
        case DeleteRange(start, end, limit):
            return wishes.delete_range(_bounds(start, end), limit=limit, all_keys=False)
        case Txn(compares, success, failure):
            return wishes.txn([*map(_compare, compares)], [*map(_operation, success)], [*map(_operation, failure)])


def wish_to_read(read: Read, fresh: Freshness) -> Wish[Any]:
    """One key, or one page."""
    match read:
        case Get(key):
            return wishes.get(key, fresh)
        case Range(start, end, limit, _, reverse, keys_only):
            return wishes.range_page(_bounds(start, end), fresh, limit=limit, reverse=reverse, keys_only=keys_only)


def as_a_page(read: Range) -> Range:
    """A page is as large as the API has it, whatever was drawn."""
    return Range(read.start, read.end, read.limit, PAGE_BYTES_MAX, read.reverse, read.keys_only)


def freshness(consistency: Consistency, *, min_index: int, max_staleness_ms: int | None) -> Freshness:
    """As the client makes it, which passes on what it has seen where it asks for a stale read."""
    if consistency != "stale":
        return Freshness(consistency)
    return Freshness(consistency, max_staleness_ms, min_index)


def _condition(expect: Expect) -> Condition:
    found = _CONDITIONS.get(expect)
    return Condition(revision=expect) if found is None else found


def _bounds(start: bytes, end: bytes | None) -> dict[str, bytes]:
    return txn.bounds(prefix=None, start=start or None, end=end)


def _compare(compare: Compare) -> txn.Compare:
    fields = {"key": compare.key, "target": compare.target.value, "op": compare.op.value, "operand": compare.operand}
    return txn.Compare(fields)


def _operation(operation: Operation) -> txn.Op:
    match operation:
        case Put(key, value):
            return txn.Op.put(key, value)
        case Delete(key):
            return txn.Op.delete(key)
        case ReadKey(key):
            return txn.Op.get(key)
        case ReadRange(start, end, limit, reverse, keys_only):
            return txn.Op.range(start=start, end=end, limit=limit, reverse=reverse, keys_only=keys_only)
        case DeleteRange(start, end, limit):
            return txn.Op.delete_range(start=start, end=end, limit=limit)


# --------------------------------------------------------------------------------------- what is answered


def written(write: Write, told: object) -> answers.Executed:
    """What the store must have answered for the library to say this; AssertionError: it cannot say this at all."""
    match write, told:
        case Put() | Delete(), ConditionFailed():
            return answers.ConditionFailed(told.mod_revision, told.revision)
        case Put(), results.PutDone():
            return answers.PutDone(told.created, told.revision, told.create_revision, told.version)
        case Delete(), results.DeleteDone():
            return answers.DeleteDone(int(told.deleted), told.revision)
        case DeleteRange(), results.DeleteRangeDone():
            return answers.DeleteRangeDone(told.deleted, told.more, told.revision)
        case Txn(), results.TxnDone():
            branch = write.success if told.succeeded else write.failure
            outcomes = tuple(_outcome(*both) for both in zip(branch, told.results, strict=True))
            return answers.TxnDone(told.succeeded, outcomes, told.revision)
    raise AssertionError(f"{write} came to {told}")


def _outcome(operation: Operation, told: results.TxnOutcome) -> answers.Result:
    match operation, told:
        case Put(), results.TxnPut():
            return answers.PutResult(told.revision, told.version)
        case Delete(), results.TxnDelete():
            return answers.DeleteResult(int(told.deleted))
        case DeleteRange(), results.TxnDeleteRange():
            return answers.DeleteRangeResult(told.deleted, told.more)
        case ReadKey(key), results.TxnGet():
            return answers.ReadKeyResult(key, record(told.item))
        case ReadRange(), results.TxnRange():
            items = tuple((item.key, _record(item)) for item in told.items)
            return answers.ReadRangeResult(items, told.more, operation.keys_only)
    raise AssertionError(f"{operation} came to {told}")


def found(read: Read, told: object, *, revision: int) -> Found | Page:
    """What the store must have found; of a key the answer does not tell the store's revision."""
    match read, told:
        case Get(), None | results.Item():
            return Found(record(told), revision)
        case Range(), results.Page():
            return Page([(item.key, _record(item)) for item in told.items], told.next is not None, told.revision)
    raise AssertionError(f"{read} came to {told}")


def record(item: results.Item | None) -> Record | None:
    """As the table has it."""
    return None if item is None else _record(item)


def _record(item: results.Item) -> Record:
    return Record(item.create_revision, item.mod_revision, item.version, NO_LEASE, item.value)
