"""Transactions, one table per rule: compares, order, one revision, all or nothing, what one may touch."""

from __future__ import annotations

from typing import Any

import pytest

from raftkv.kv import answers
from raftkv.kv.answers import (
    DeleteRangeResult,
    DeleteResult,
    Malformed,
    PutDone,
    PutResult,
    ReadKeyResult,
    ReadRangeResult,
    Repeated,
    SequenceReused,
    SessionExpired,
    TooLarge,
    TooManyUnacknowledged,
    TxnDone,
)
from raftkv.kv.commands import (
    COMMAND_BYTES_MAX,
    COMMAND_KEYS_MAX,
    NUMBER_MAX,
    OPERATIONS_MAX,
    Compare,
    Delete,
    DeleteRange,
    Numbered,
    Op,
    OpenSession,
    Operation,
    Put,
    ReadKey,
    ReadRange,
    Target,
    Txn,
    key_written_twice,
)
from raftkv.kv.queries import Range, Revision
from raftkv.kv.record import Record
from raftkv.kv.sessions import ANSWERS_BYTES_MAX
from tests.kv.store import Store, done, typed

ID = b"0123456789abcdef"


def prepared() -> Store:
    """Revision 4: ``k`` created at 1, put again at 3 (version 2); ``a`` at 2, ``z`` at 4."""
    store = Store()
    for key, value in ((b"k", b"one"), (b"a", b"A"), (b"k", b"two"), (b"z", b"Z")):
        store.apply(Put(key, value))
    return store


def txn(*operations: Operation) -> Txn:
    return Txn((), operations, ())


def keys_of(store: Store) -> list[bytes]:
    return [key for key, _ in store.machine.query(Range(b"", None, 100_000, 2**30, keys_only=True)).items]


# ----------------------------------------------------------------------------------------------- compares

VALUE, VERSION, CREATED, MODIFIED = Target.VALUE, Target.VERSION, Target.CREATE_REVISION, Target.MOD_REVISION
# Which of ==, !=, <, > hold.
HOLDING: list[tuple[bytes, Target, bytes | int, str]] = [
    (b"k", VALUE, b"two", "=="),
    (b"k", VALUE, b"tw", "!= >"),
    (b"k", VALUE, b"two\x00", "!= <"),
    (b"k", VALUE, b"", "!= >"),
    (b"k", VALUE, b"twp", "!= <"),
    (b"k", VALUE, b"\xff", "!= <"),
    (b"k", VALUE, b"Two", "!= >"),
    (b"none", VALUE, b"", ""),
    (b"none", VALUE, b"two", ""),
    (b"k", VERSION, 2, "=="),
    (b"k", VERSION, 1, "!= >"),
    (b"k", VERSION, NUMBER_MAX, "!= <"),
    (b"none", VERSION, 0, "=="),
    (b"none", VERSION, 1, "!= <"),
    (b"k", CREATED, 1, "=="),
    (b"k", CREATED, 3, "!= <"),
    (b"none", CREATED, 0, "=="),
    (b"k", MODIFIED, 3, "=="),
    (b"k", MODIFIED, 1, "!= >"),
    (b"none", MODIFIED, 0, "=="),
    (b"none", MODIFIED, 5, "!= <"),
]


@pytest.mark.parametrize(("key", "target", "operand", "holding"), HOLDING)
def test_what_a_compare_claims(key, target, operand, holding):
    store = prepared()
    held = [op.value for op in Op if done(store.apply(Txn((Compare(key, target, op, operand),), (), ()))).succeeded]
    assert held == holding.split()


def test_an_empty_value_is_not_an_absent_key():
    store = Store()
    store.apply(Put(b"k", b""))
    for key, expected in ((b"k", True), (b"none", False)):
        answer = done(store.apply(Txn((Compare(key, VALUE, Op.EQUAL, b""),), (), ())))
        assert answer.succeeded == expected


TRUE, FALSE = Compare(b"k", VERSION, Op.EQUAL, 2), Compare(b"k", VERSION, Op.LESS, 2)


@pytest.mark.parametrize(
    ("compares", "succeeded"),
    [
        ((), True),
        ((TRUE,), True),
        ((FALSE,), False),
        ((TRUE, TRUE), True),
        ((TRUE, FALSE), False),
        ((FALSE, TRUE), False),
    ],
)
def test_all_compares_hold_or_the_other_branch_is_executed(compares, succeeded):
    store = prepared()
    answer = done(store.apply(Txn(compares, (Put(b"s", b""), ReadKey(b"f")), (Put(b"f", b""),))))
    assert (answer.succeeded, answer.revision, len(answer.results)) == (succeeded, 5, 2 if succeeded else 1)
    assert keys_of(store) == [b"a", *([] if succeeded else [b"f"]), b"k", *([b"s"] if succeeded else []), b"z"]


def test_compares_look_at_the_state_before_the_first_operation():
    store = prepared()
    answer = done(store.apply(Txn((Compare(b"new", VERSION, Op.EQUAL, 0),), (Put(b"new", b""),), ())))
    assert answer.succeeded


# ------------------------------------------------------------------------------------ operations in order

K_NOW = Record(create_revision=1, mod_revision=3, version=2, lease=0, value=b"two")
K_PUT = Record(create_revision=1, mod_revision=5, version=3, lease=0, value=b"new")
N_PUT = Record(create_revision=5, mod_revision=5, version=1, lease=0, value=b"new")
A_NOW = Record(create_revision=2, mod_revision=2, version=1, lease=0, value=b"A")
Z_NOW = Record(create_revision=4, mod_revision=4, version=1, lease=0, value=b"Z")
ORDERED: list[tuple[list[Operation], list[Any]]] = [
    ([ReadKey(b"k"), Put(b"k", b"new")], [ReadKeyResult(b"k", K_NOW), PutResult(5, 3)]),
    ([Put(b"k", b"new"), ReadKey(b"k")], [PutResult(5, 3), ReadKeyResult(b"k", K_PUT)]),
    ([ReadKey(b"n"), Put(b"n", b"new")], [ReadKeyResult(b"n", None), PutResult(5, 1)]),
    ([Put(b"n", b"new"), ReadKey(b"n")], [PutResult(5, 1), ReadKeyResult(b"n", N_PUT)]),
    ([Delete(b"k"), ReadKey(b"k")], [DeleteResult(1), ReadKeyResult(b"k", None)]),
    ([ReadKey(b"k"), Delete(b"k")], [ReadKeyResult(b"k", K_NOW), DeleteResult(1)]),
    (
        [Put(b"n", b"new"), ReadRange(b"k", b"z", 9)],
        [PutResult(5, 1), ReadRangeResult(((b"k", K_NOW), (b"n", N_PUT)), more=False, keys_only=False)],
    ),
    (
        [ReadRange(b"k", b"z", 9), Put(b"n", b"new")],
        [ReadRangeResult(((b"k", K_NOW),), more=False, keys_only=False), PutResult(5, 1)],
    ),
    (
        [Delete(b"k"), ReadRange(b"", None, 1, reverse=True)],
        [DeleteResult(1), ReadRangeResult(((b"z", Z_NOW),), more=True, keys_only=False)],
    ),
    (
        [DeleteRange(b"k", None), ReadRange(b"", None, 9, keys_only=True)],
        [
            DeleteRangeResult(2, more=False),
            ReadRangeResult(((b"a", A_NOW._replace(value=b"")),), more=False, keys_only=True),
        ],
    ),
    (
        [DeleteRange(b"", b"z", 1), ReadKey(b"a"), ReadKey(b"k")],
        [DeleteRangeResult(1, more=True), ReadKeyResult(b"a", None), ReadKeyResult(b"k", K_NOW)],
    ),
    ([Put(b"b", b"new"), DeleteRange(b"k", None)], [PutResult(5, 1), DeleteRangeResult(2, more=False)]),
    ([DeleteRange(b"a", b"k"), DeleteRange(b"k", b"l")], [DeleteRangeResult(1, more=False)] * 2),
]


@pytest.mark.parametrize(("operations", "expected"), ORDERED)
def test_operations_see_those_before_them(operations, expected):
    answer = done(prepared().apply(txn(*operations)))
    assert typed(answer.results) == typed(tuple(expected))
    assert answer.revision == 5 or not any(isinstance(one, Put | Delete | DeleteRange) for one in operations)


@pytest.mark.parametrize(("operations", "expected"), ORDERED)
def test_a_stored_answer_comes_back_as_it_was(operations, expected):
    """faults 47: records and all, to the type."""
    answer = done(prepared().apply(txn(*operations)))
    assert typed(answers.unpack(answers.pack(answer))) == typed(answer)


# ------------------------------------------------------------------------------------------- one revision


def test_everything_that_is_put_has_the_one_revision():
    store = prepared()
    answer = done(store.apply(txn(Put(b"k", b""), Put(b"n", b""), Delete(b"a"), Put(b"b", b""))))
    assert answer.revision == 5
    records = dict(store.machine.query(Range(b"", None, 9, 99)).items)
    assert {key: record.mod_revision for key, record in records.items()} == {b"b": 5, b"k": 5, b"n": 5, b"z": 4}
    assert {key: record.create_revision for key, record in records.items()} == {b"b": 5, b"k": 1, b"n": 5, b"z": 4}
    assert store.apply(Put(b"next", b"")) == PutDone(created=True, revision=6, create_revision=6, version=1)


WITHOUT_CHANGE: list[Txn] = [
    txn(),
    txn(ReadKey(b"k"), ReadRange(b"", None, 9)),
    txn(Delete(b"none"), DeleteRange(b"b", b"c"), DeleteRange(b"z", b"a")),
    Txn((FALSE,), (Put(b"n", b""),), ()),
    Txn((FALSE,), (Put(b"n", b""),), (ReadKey(b"n"), Delete(b"n"))),
]


@pytest.mark.parametrize("command", WITHOUT_CHANGE)
def test_what_changes_nothing_makes_no_revision(command):
    store = prepared()
    before = store.machine.snapshot()
    assert done(store.apply(command)).revision == 4
    assert store.machine.snapshot() == before


@pytest.mark.parametrize("operation", [Put(b"k", b"two"), Delete(b"a"), DeleteRange(b"", b"k", 1)])
def test_any_change_makes_one(operation):
    """Also a put of the value that was there: the key's version rises."""
    store = prepared()
    assert done(store.apply(txn(ReadKey(b"k"), Delete(b"none"), operation))).revision == 5
    assert store.machine.query(Revision()) == 5


# ---------------------------------------------------------------------------------- what one may touch

MIB = 1024 * 1024


def with_values(*sizes: int) -> Store:
    """Keys "0", "1", … whose values have these sizes."""
    store = Store()
    for number, size in enumerate(sizes):
        store.apply(Put(b"%d" % number, b"v" * size))
    return store


SIZED: list[tuple[tuple[int, ...], Txn, int]] = [
    # What is put, and its key.
    ((), txn(Put(b"k", b"v" * (COMMAND_BYTES_MAX - 1))), 0),
    ((), txn(Put(b"k", b"v" * COMMAND_BYTES_MAX)), 1),
    ((), txn(Put(b"k", b"v" * (MIB - 1)), Put(b"l", b"v" * (MIB - 1))), 0),
    ((), txn(Put(b"k", b"v" * (MIB - 1)), Put(b"l", b"v" * (MIB - 1)), Delete(b"m")), 1),
    # The larger of what is put and what it replaces.
    ((MIB - 1, MIB - 1), txn(Put(b"0", b"v" * (MIB - 1)), Put(b"1", b"")), 0),
    ((MIB - 1, MIB - 1), txn(Put(b"0", b"v" * MIB), Put(b"1", b"")), 1),
    ((MIB - 1, MIB), txn(Put(b"0", b""), Put(b"1", b"")), 1),
    # What is deleted.
    ((MIB - 1, MIB - 1), txn(Delete(b"0"), Delete(b"1")), 0),
    ((MIB - 1, MIB), txn(Delete(b"0"), Delete(b"1")), 1),
    # What is read, as often as it is read, as it is by then.
    ((MIB - 1,), txn(ReadKey(b"0"), ReadKey(b"0")), 0),
    ((MIB - 1,), txn(ReadKey(b"0"), ReadKey(b"0"), ReadKey(b"n")), 1),
    ((MIB - 1,), txn(Delete(b"0"), *[ReadKey(b"0")] * 127), 0),
    ((0,), txn(Put(b"0", b"v" * (MIB - 1)), ReadKey(b"0")), 0),
    ((0,), txn(Put(b"0", b"v" * MIB), ReadKey(b"0")), 2),
    ((MIB - 1,), txn(Put(b"0", b""), ReadKey(b"0")), 0),
    # Compares: keys and operands, not the values that they look at.
    ((MIB, MIB), Txn(tuple(Compare(b"%d" % n, VALUE, Op.LESS, b"w") for n in (0, 1)), (), ()), 0),
    ((), Txn((Compare(b"k", VALUE, Op.EQUAL, b"v" * (COMMAND_BYTES_MAX - 1)),), (), ()), 0),
    ((), Txn((Compare(b"k", VALUE, Op.EQUAL, b"v" * (COMMAND_BYTES_MAX - 1)),), (), (Delete(b"k"),)), 1),
    # The branch that is not taken touches nothing.
    ((), Txn((), (), (Put(b"k", b"v" * COMMAND_BYTES_MAX),)), 0),
    ((), Txn((Compare(b"k", VERSION, Op.GREATER, 0),), (), (Put(b"k", b"v" * COMMAND_BYTES_MAX),)), 2),
]


@pytest.mark.parametrize(("sizes", "command", "excess"), SIZED, ids=[str(number) for number in range(len(SIZED))])
def test_a_transaction_touches_at_most_two_mebibytes(sizes, command, excess):
    """faults 60, 62: beyond, nothing of it is executed."""
    store = with_values(*sizes)
    before = store.machine.snapshot()
    answer = store.apply(command)
    if excess:
        assert answer == TooLarge(COMMAND_BYTES_MAX + excess, COMMAND_BYTES_MAX)
        assert store.machine.snapshot() == before
    else:
        assert isinstance(answer, TxnDone)


def test_what_is_too_large_changes_nothing_of_what_came_before_it():
    store = prepared()
    before = store.machine.snapshot()
    changes: tuple[Operation, ...] = (Put(b"k", b"new"), Delete(b"a"), DeleteRange(b"y", None))
    assert isinstance(store.apply(txn(*changes, Put(b"n", b"v" * COMMAND_BYTES_MAX))), TooLarge)
    assert store.machine.snapshot() == before
    store.apply(Put(b"large", b"v" * (2 * MIB - 5)))
    before = store.machine.snapshot()
    assert isinstance(store.apply(txn(*changes, ReadKey(b"large"))), TooLarge)
    assert store.machine.snapshot() == before


def test_ranges_stop_where_nothing_is_left_to_touch():
    """In their order; operations on single keys come first, wherever they stand."""
    half = MIB - 1
    store = with_values(half, half, half, half)
    read, delete = ReadRange(b"", None, 9), DeleteRange(b"", None)
    answer = done(store.apply(txn(read, read, Put(b"4", b""))))
    assert [len(answer.results[place].items) for place in (0, 1)] == [1, 0]  # type: ignore[union-attr]
    assert [answer.results[place].more for place in (0, 1)] == [True, True]  # type: ignore[union-attr]
    answer = done(store.apply(txn(ReadRange(b"", None, 9, keys_only=True), delete)))
    assert answer.results[1] == DeleteRangeResult(1, more=True)
    answer = done(store.apply(txn(delete)))
    assert answer.results == (DeleteRangeResult(2, more=True),)
    answer = done(store.apply(txn(delete)))
    assert answer.results == (DeleteRangeResult(2, more=False),)


def test_a_transaction_touches_at_most_ten_thousand_keys():
    store = Store()
    for number in range(COMMAND_KEYS_MAX):
        store.apply(Put(b"%05d" % number, b""))
    keys_only = ReadRange(b"", None, COMMAND_KEYS_MAX, keys_only=True)
    answer = done(store.apply(txn(keys_only)))
    assert (len(answer.results[0].items), answer.results[0].more) == (COMMAND_KEYS_MAX, False)  # type: ignore[union-attr]
    compare = Compare(b"none", VERSION, Op.EQUAL, 0)
    first = ReadRange(b"", None, 7_000, keys_only=True)
    answer = done(store.apply(Txn((compare,), (first, DeleteRange(b"", None), ReadKey(b"00000"), keys_only), ())))
    assert answer.results[1] == DeleteRangeResult(2_998, more=True)
    assert answer.results[3] == ReadRangeResult((), more=True, keys_only=True)
    assert keys_of(store)[0] == b"02998"


# ------------------------------------------------------------------------------- a key is written once

TWICE: list[tuple[list[Operation], bytes | None]] = [
    ([], None),
    ([Put(b"k", b""), Put(b"l", b"")], None),
    ([Put(b"k", b""), ReadKey(b"k"), ReadRange(b"", None, 1)], None),
    ([Put(b"k", b""), Put(b"k", b"")], b"k"),
    ([Put(b"k", b""), Delete(b"k")], b"k"),
    ([Delete(b"k"), Delete(b"k")], b"k"),
    ([Put(b"b", b""), DeleteRange(b"a", b"c")], b"b"),
    ([DeleteRange(b"a", b"c"), Put(b"a", b"")], b"a"),
    ([DeleteRange(b"a", b"c", 1), Delete(b"b")], b"b"),
    ([DeleteRange(b"a", b"c"), Put(b"c", b"")], None),
    ([DeleteRange(b"a", None), Put(b"\xff", b"")], b"\xff"),
    ([DeleteRange(b"c", b"a"), Put(b"b", b"")], None),
    ([DeleteRange(b"a", b"c"), DeleteRange(b"b", b"d")], b"b"),
    ([DeleteRange(b"a", b"c"), DeleteRange(b"c", b"d")], None),
    ([DeleteRange(b"", None), DeleteRange(b"", None)], b""),
    ([Put(b"k\x00", b""), Put(b"k", b"")], None),
]


@pytest.mark.parametrize(("branch", "key"), TWICE)
def test_a_branch_writes_a_key_at_most_once(branch, key):
    """Told to whoever asks beforehand, and never executed."""
    assert key_written_twice(branch) == key
    store = prepared()
    before = store.machine.snapshot()
    for command in (Txn((), tuple(branch), ()), Txn((), (), tuple(branch))):
        answer = store.apply(command)
        assert isinstance(answer, TxnDone if key is None else Malformed)
        if key is not None:
            assert store.machine.snapshot() == before


def test_both_branches_may_write_the_same_key():
    assert done(prepared().apply(Txn((TRUE,), (Put(b"k", b"yes"),), (Put(b"k", b"no"),)))).succeeded


def test_at_most_128_operations_and_as_many_compares():
    store = prepared()
    puts = tuple(Put(b"%d" % number, b"") for number in range(OPERATIONS_MAX))
    for command, takes in (
        (Txn((), puts, ()), True),
        (Txn((TRUE,) * 128, puts, ()), True),
        (Txn((), (*puts, ReadKey(b"a")), ()), False),
        (Txn((), puts[:64], puts[64:]), True),
        (Txn((), puts[:64], puts[63:]), False),
        (Txn((TRUE,) * 128, (), ()), True),
        (Txn((TRUE,) * 129, (), ()), False),
    ):
        assert isinstance(store.apply(command), TxnDone if takes else Malformed)


# ------------------------------------------------------------------------------------------ exactly once

INCREMENT = Txn(
    (Compare(b"k", VALUE, Op.EQUAL, b"two"),),
    (Put(b"k", b"three"), ReadKey(b"k"), ReadRange(b"", None, 9)),
    (ReadKey(b"k"),),
)


def opened(store: Store) -> Store:
    store.apply(OpenSession(ID))
    return store


@pytest.mark.parametrize("restart", [False, True])
def test_a_numbered_transaction_is_executed_once(restart):
    """faults 46, 47: with other results the second time, had it been executed."""
    store = opened(prepared())
    first, index = store.apply(INCREMENT, Numbered(ID, 1)), store.index
    assert done(first).succeeded
    store.apply(Put(b"k", b"two"))
    if restart:
        store.restart_from_snapshot()
    before = store.machine.query(Range(b"", None, 9, 99))
    again = store.apply(INCREMENT, Numbered(ID, 1))
    assert isinstance(again, Repeated)
    assert (typed(again.answer), again.index) == (typed(first), index)
    assert store.machine.query(Range(b"", None, 9, 99)) == before


def test_another_transaction_under_the_same_number_is_refused():
    store = opened(prepared())
    store.apply(INCREMENT, Numbered(ID, 1))
    before = store.machine.snapshot()
    for other in (txn(), Txn(INCREMENT.compares, INCREMENT.success, ()), Put(b"k", b"three")):
        assert isinstance(store.apply(other, Numbered(ID, 1)), SequenceReused)
    assert store.machine.snapshot() == before


def test_what_was_too_large_leaves_its_number_free():
    """Nothing was executed, and that is not remembered; a repeat is judged by what there is by then."""
    store = opened(with_values(2 * MIB - 1))
    command = txn(ReadKey(b"0"), Put(b"n", b""))
    before = store.machine.snapshot()
    assert isinstance(store.apply(command, Numbered(ID, 1)), TooLarge)
    assert store.machine.snapshot() == before
    store.apply(Delete(b"0"))
    assert isinstance(store.apply(command, Numbered(ID, 1)), TxnDone)
    store.apply(Put(b"0", b"v" * (2 * MIB - 1)))
    assert isinstance(store.apply(command, Numbered(ID, 1)), Repeated), "whatever it would come to now"


def test_without_a_session_nothing_is_looked_at():
    assert isinstance(
        with_values(2 * MIB - 1).apply(txn(ReadKey(b"0"), ReadKey(b"0")), Numbered(ID, 1)), SessionExpired
    )


def test_answers_that_carry_values_fill_a_session():
    """faults 65: the one that reaches the bound may exceed it, and the next waits for an acknowledgement."""
    store = opened(with_values(ANSWERS_BYTES_MAX // 2, 2 * MIB - 1))
    small, large = txn(ReadKey(b"0")), txn(ReadKey(b"1"))
    assert isinstance(store.apply(small, Numbered(ID, 1)), TxnDone)
    assert isinstance(store.apply(large, Numbered(ID, 2)), TxnDone)
    assert isinstance(store.apply(small, Numbered(ID, 3)), TooManyUnacknowledged)
    store.restart_from_snapshot()
    assert isinstance(store.apply(small, Numbered(ID, 3, acknowledged=1)), TooManyUnacknowledged)
    assert isinstance(store.apply(large, Numbered(ID, 2)), Repeated), "a repeat needs no room"
    assert isinstance(store.apply(small, Numbered(ID, 3, acknowledged=2)), TxnDone)


def test_no_answer_is_much_larger_than_what_a_command_may_touch():
    """What stands around keys and values is bounded by how many there are."""
    store = Store()
    value = b"v" * ((COMMAND_BYTES_MAX - COMMAND_KEYS_MAX * 5) // COMMAND_KEYS_MAX)
    for number in range(COMMAND_KEYS_MAX):
        store.apply(Put(b"%05d" % number, value))
    answer = done(store.apply(txn(ReadRange(b"", None, COMMAND_KEYS_MAX))))
    (result,) = answer.results
    assert isinstance(result, ReadRangeResult) and len(result.items) == COMMAND_KEYS_MAX
    widest = tuple((key, Record(2**62, 2**62, 2**62, 2**62, record.value)) for key, record in result.items)
    packed = answers.pack(answer._replace(results=(result._replace(items=widest),)))
    assert len(packed) < COMMAND_BYTES_MAX + MIB // 2
    assert answers.unpack(answers.pack(answer)) == answer
