"""What one request that touches several keys says about each of them.

Told: a request, its answer, the keys that there can be. Tells: requests on single keys with their results, for the
checker of histories, which searches every key by itself. May never know: when it was asked, and by whom.

All parts take effect at the one moment at which the whole did, so each key's share of an order of the wholes is
an order of its parts: histories that are true stay linearizable. That the parts took effect together is not
what these histories can prove; the oracle proves it.

What an answer does not tell of a key is left out: what lies beyond the limit of a range, and compares that did
not hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set

from raftkv.kv.answers import (
    DeleteRangeDone,
    DeleteRangeResult,
    DeleteResult,
    ReadKeyResult,
    ReadRangeResult,
    TxnDone,
)
from raftkv.kv.commands import (
    ABSENT,
    ANY,
    Compare,
    Delete,
    DeleteRange,
    Expect,
    Op,
    Put,
    ReadKey,
    ReadRange,
    Target,
    Txn,
)
from raftkv.kv.queries import Get, Page, Range
from raftkv.kv.record import Record
from raftkv.sim.checks.history import Absent, Deleted, Done, Request, Result, Seen

Part = tuple[Request, Result]


def of_page(query: Range, found: Page, known: Iterable[bytes]) -> Iterator[Part]:
    """A page shows keys that are there and, between them, that others are not."""
    return _shown(query, found.items, known, more=found.more)


def of_range_delete(
    command: DeleteRange, answer: DeleteRangeDone, known: Iterable[bytes], removed: Set[bytes]
) -> Iterator[Part]:
    """``removed``: the keys that it took away, as the log has it, since the answer only counts them."""
    return _deleted(command, removed, known, more=answer.more, revision=answer.revision)


def of_txn(command: Txn, answer: TxnDone, known: Sequence[bytes], removed: Set[bytes]) -> Iterator[Part]:
    """Compares that held are seen; an equal revision becomes the condition of the write that it guards."""
    held = command.compares if answer.succeeded else ()
    branch = command.success if answer.succeeded else command.failure
    conditions = dict(filter(None, map(_condition, held)))
    for compare in held:
        yield from _compared(compare)
    for operation, result in zip(branch, answer.results, strict=True):
        match operation:
            case Put(key, value):
                yield Put(key, value, conditions.get(key, ANY)), Done(answer.revision)
            case Delete(key):
                assert isinstance(result, DeleteResult)
                yield Delete(key, conditions.get(key, ANY)), Deleted(result.deleted, answer.revision)
            case ReadKey(key):
                assert isinstance(result, ReadKeyResult)
                yield Get(key), seen(result.record)
            case ReadRange():
                assert isinstance(result, ReadRangeResult)
                yield from _shown(operation, result.items, known, more=result.more)
            case DeleteRange():
                assert isinstance(result, DeleteRangeResult)
                yield from _deleted(operation, removed, known, more=result.more, revision=answer.revision)


def _condition(compare: Compare) -> tuple[bytes, Expect] | None:
    """What a write of the key can bear as its own condition."""
    operand = compare.operand
    if compare.op is not Op.EQUAL or isinstance(operand, bytes):
        return None
    if operand == 0:
        return compare.key, ABSENT
    return (compare.key, Expect(operand)) if compare.target is Target.MOD_REVISION else None


def _compared(compare: Compare) -> Iterator[Part]:
    if compare.op is not Op.EQUAL:
        return
    if isinstance(compare.operand, bytes):
        yield Get(compare.key), Seen(compare.operand)
    elif compare.operand == 0:
        yield Get(compare.key), Absent()


def _shown(
    asked: Range | ReadRange, items: Sequence[tuple[bytes, Record]], known: Iterable[bytes], *, more: bool
) -> Iterator[Part]:
    found = dict(items)
    for key in _within(asked, known):
        beyond = not found or (key < min(found) if asked.reverse else key > max(found))
        if key in found and not asked.keys_only:
            yield Get(key), seen(found[key])
        elif key not in found and not (more and beyond):
            yield Get(key), Absent()


def _deleted(
    asked: DeleteRange, removed: Set[bytes], known: Iterable[bytes], *, more: bool, revision: int
) -> Iterator[Part]:
    gone = list(_within(asked, removed))
    for key in _within(asked, known):
        beyond = not gone or key > gone[-1]
        if not (more and beyond):
            yield Delete(key), Deleted(int(key in gone), revision)


def _within(asked: Range | ReadRange | DeleteRange, keys: Iterable[bytes]) -> Iterator[bytes]:
    """In their order."""
    return (key for key in sorted(keys) if asked.start <= key and (asked.end is None or key < asked.end))


def seen(record: Record | None) -> Result:
    """What a read of one key tells."""
    return Absent() if record is None else Seen(record.value, record.mod_revision)
