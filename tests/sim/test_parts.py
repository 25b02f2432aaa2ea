"""What a request on several keys says about each of them, and what the checker makes of it."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from raftkv.kv.answers import (
    ConditionFailed,
    DeleteDone,
    DeleteRangeDone,
    DeleteRangeResult,
    DeleteResult,
    PutDone,
    PutResult,
    ReadKeyResult,
    ReadRangeResult,
    Result,
    TxnDone,
)
from raftkv.kv.commands import (
    ABSENT,
    Compare,
    Delete,
    DeleteRange,
    Expect,
    Op,
    Operation,
    Put,
    ReadKey,
    ReadRange,
    Target,
    Txn,
    Write,
)
from raftkv.kv.queries import Get, Page, Range
from raftkv.kv.record import Record
from raftkv.sim.checks import history, parts
from raftkv.sim.checks.history import Absent, Deleted, Done, Refused, Seen
from raftkv.sim.checks.linearizability import Linearizable, Violation, check
from raftkv.sim.checks.parts import Part
from raftkv.sim.checks.specification import Specification
from raftkv.sim.clients.requests import Memory, Requests

KNOWN = [b"a", b"b", b"c", b"d"]


def record(value: bytes, mod_revision: int) -> Record:
    return Record(1, mod_revision, 1, 0, value)


B, C = (b"b", record(b"B", 5)), (b"c", record(b"C", 6))
PAGES: list[tuple[Range, list[tuple[bytes, Record]], bool, list[Part]]] = [
    (
        Range(b"", None, 9, 99),
        [B, C],
        False,
        [(Get(b"a"), Absent()), (Get(b"b"), Seen(b"B", 5)), (Get(b"c"), Seen(b"C", 6)), (Get(b"d"), Absent())],
    ),
    (Range(b"b", b"d", 9, 99), [C], False, [(Get(b"b"), Absent()), (Get(b"c"), Seen(b"C", 6))]),
    (Range(b"", None, 1, 99), [B], True, [(Get(b"a"), Absent()), (Get(b"b"), Seen(b"B", 5))]),
    (Range(b"", None, 1, 99, reverse=True), [C], True, [(Get(b"c"), Seen(b"C", 6)), (Get(b"d"), Absent())]),
    (Range(b"", None, 9, 99, keys_only=True), [B, C], False, [(Get(b"a"), Absent()), (Get(b"d"), Absent())]),
    (Range(b"b", b"b", 9, 99), [], False, []),
    (Range(b"", None, 9, 99), [], True, []),
    (Range(b"", b"b", 9, 99), [(b"Other", record(b"", 1))], False, [(Get(b"a"), Absent())]),
]


@pytest.mark.parametrize(("query", "items", "more", "expected"), PAGES)
def test_a_page_shows_what_is_there_and_what_is_not(query, items, more, expected):
    assert list(parts.of_page(query, Page(items, more, 7), KNOWN)) == expected


GONE: list[tuple[DeleteRange, DeleteRangeDone, set[bytes], list[Part]]] = [
    (
        DeleteRange(b"b", None),
        DeleteRangeDone(2, more=False, revision=9),
        {b"b", b"d"},
        [(Delete(b"b"), Deleted(1, 9)), (Delete(b"c"), Deleted(0, 9)), (Delete(b"d"), Deleted(1, 9))],
    ),
    (
        DeleteRange(b"", None, 1),
        DeleteRangeDone(1, more=True, revision=9),
        {b"b"},
        [(Delete(b"a"), Deleted(0, 9)), (Delete(b"b"), Deleted(1, 9))],
    ),
    (DeleteRange(b"c", b"d"), DeleteRangeDone(0, more=False, revision=8), set(), [(Delete(b"c"), Deleted(0, 8))]),
    (DeleteRange(b"c", b"c"), DeleteRangeDone(0, more=False, revision=8), set(), []),
]


@pytest.mark.parametrize(("command", "answer", "removed", "expected"), GONE)
def test_a_range_delete_is_a_delete_of_every_key_it_came_to(command, answer, removed, expected):
    assert list(parts.of_range_delete(command, answer, KNOWN, removed)) == expected


def compared(target: Target, operand: bytes | int, op: Op = Op.EQUAL) -> tuple[Compare, ...]:
    return (Compare(b"a", target, op, operand),)


PUT, DONE = Put(b"a", b"new"), PutResult(9, 2)
TXNS: list[tuple[tuple[Compare, ...], Operation, Result, list[Part]]] = [
    ((), PUT, DONE, [(PUT, Done(9))]),
    (compared(Target.MOD_REVISION, 4), PUT, DONE, [(Put(b"a", b"new", Expect(4)), Done(9))]),
    (compared(Target.MOD_REVISION, 4), Delete(b"a"), DeleteResult(1), [(Delete(b"a", Expect(4)), Deleted(1, 9))]),
    (compared(Target.MOD_REVISION, 4), ReadKey(b"b"), ReadKeyResult(*B), [(Get(b"b"), Seen(b"B", 5))]),
    (compared(Target.VERSION, 0), PUT, DONE, [(Get(b"a"), Absent()), (Put(b"a", b"new", ABSENT), Done(9))]),
    (compared(Target.VERSION, 3), PUT, DONE, [(PUT, Done(9))]),
    (compared(Target.VALUE, b"x"), PUT, DONE, [(Get(b"a"), Seen(b"x")), (PUT, Done(9))]),
    (compared(Target.VALUE, b"x", Op.LESS), PUT, DONE, [(PUT, Done(9))]),
    ((), ReadKey(b"d"), ReadKeyResult(b"d", None), [(Get(b"d"), Absent())]),
    (
        (),
        ReadRange(b"a", b"c", 9),
        ReadRangeResult((B,), more=False, keys_only=False),
        [(Get(b"a"), Absent()), (Get(b"b"), Seen(b"B", 5))],
    ),
    (
        (),
        DeleteRange(b"a", b"c"),
        DeleteRangeResult(1, more=False),
        [(Delete(b"a"), Deleted(0, 9)), (Delete(b"b"), Deleted(1, 9))],
    ),
]


@pytest.mark.parametrize(("compares", "operation", "result", "expected"), TXNS)
def test_a_transaction_is_all_that_its_branch_did_and_saw(compares, operation, result, expected):
    done = TxnDone(succeeded=True, results=(result,), revision=9)
    assert list(parts.of_txn(Txn(compares, (operation,), ()), done, KNOWN, {b"b"})) == expected


@pytest.mark.parametrize("compares", [compared(Target.MOD_REVISION, 4), compared(Target.VALUE, b"x"), ()])
def test_of_compares_that_did_not_hold_nothing_is_known(compares):
    failed = TxnDone(succeeded=False, results=(DONE,), revision=9)
    assert list(parts.of_txn(Txn(compares, (), (PUT,)), failed, KNOWN, set())) == [(PUT, Done(9))]


# ------------------------------------------------------------------------- what the checker makes of parts


def told(key: bytes, revision: int, part_of: int | None) -> history.Operation:
    return history.Operation("c", Put(key, b"v%d" % revision), Done(revision), 0, 1, part_of)


@pytest.mark.parametrize(
    ("one", "other", "is_fine"),
    [
        (told(b"a", 1, 7), told(b"b", 1, 7), True),
        (told(b"a", 1, 7), told(b"b", 1, 8), False),
        (told(b"a", 1, None), told(b"b", 1, None), False),
        (told(b"a", 1, 7), told(b"b", 1, None), False),
        (told(b"a", 1, 7), told(b"a", 1, 7), False),
        (told(b"a", 1, 7), told(b"b", 2, 7), True),
    ],
)
def test_only_parts_of_one_request_on_different_keys_share_a_revision(one, other, is_fine):
    assert isinstance(check([one, other]), Linearizable if is_fine else Violation)


def true_history(rng: random.Random, *, clients: int, requests: int) -> list[history.Operation]:
    """Each request takes effect at a moment of its own, within its interval, as it is specified."""
    keys = [b"k%d" % number for number in range(rng.choice((1, 2, 3)))]
    values = iter(range(10**6))
    memory, store, found = Memory(), Specification(), []
    drawn = Requests(rng, keys, memory, lambda: b"v%d" % next(values))
    busy_until = [0.0] * clients
    for number in range(requests):
        effect_at = float(number)
        client = min(range(clients), key=busy_until.__getitem__)
        invoked_at = max(busy_until[client], effect_at - rng.expovariate(0.3))
        if invoked_at > effect_at:
            continue
        returned_at = busy_until[client] = effect_at + rng.expovariate(0.3) + 0.01
        command = drawn.write()
        before = store.records
        for request, result in _parts(command, store, keys, before):
            found.append(history.Operation(f"c{client}", request, result, invoked_at, returned_at, number))
        for key in keys:
            memory.saw(key, store.records.get(key))
    return found


def _parts(command: Write, store: Specification, keys: list[bytes], before: dict[bytes, Record]) -> list[Part]:
    answer = store.write(command)
    removed = before.keys() - store.records.keys()
    match command, answer:
        case Txn(), TxnDone():
            return list(parts.of_txn(command, answer, keys, removed))
        case DeleteRange(), DeleteRangeDone():
            return list(parts.of_range_delete(command, answer, keys, removed))
        case Put(), PutDone():
            return [(command, Done(answer.revision))]
        case Delete(), DeleteDone():
            return [(command, Deleted(answer.deleted, answer.revision))]
        case Put() | Delete(), ConditionFailed():
            return [(command, Refused(answer.mod_revision, answer.revision))]
    raise AssertionError(answer)


def test_true_histories_in_parts_are_linearizable():
    """And not for want of substance: with one part's answer from another, most are not."""
    rng, refused = random.Random(3), 0
    for _ in range(150):
        found = true_history(rng, clients=4, requests=100)
        assert isinstance(check(found), Linearizable)
        seen = [place for place, one in enumerate(found) if isinstance(one.result, Seen) and one.result.mod_revision]
        place, other = rng.choice(seen or [0]), rng.choice(seen or [0])
        spoilt = [*found[:place], replace(found[place], result=found[other].result), *found[place + 1 :]]
        refused += isinstance(check(spoilt), Violation)
    assert refused > 75
