"""Range deletes: one revision for all that goes, within what one command may touch."""

from __future__ import annotations

import pytest

from raftkv.kv.answers import DeleteRangeDone, Repeated
from raftkv.kv.commands import COMMAND_BYTES_MAX, COMMAND_KEYS_MAX, DeleteRange, Numbered, OpenSession, Put
from raftkv.kv.queries import Range
from tests.kv.store import Store

ID = b"0123456789abcdef"


def prepared() -> Store:
    """Revision 5: a, b, ba, c, d."""
    store = Store()
    for key in (b"c", b"a", b"ba", b"d", b"b"):
        store.apply(Put(key, b"v"))
    return store


def left(store: Store) -> list[bytes]:
    return [key for key, _ in store.machine.query(Range(b"", None, 100_000, 2**30, keys_only=True)).items]


GONE = [
    (DeleteRange(b"b", b"c"), 2, False, b"a c d"),
    (DeleteRange(b"b", b"c", 2), 2, False, b"a c d"),
    (DeleteRange(b"b", b"c", 1), 1, True, b"a ba c d"),
    (DeleteRange(b"b", None), 4, False, b"a"),
    (DeleteRange(b"", b"b"), 1, False, b"b ba c d"),
    (DeleteRange(b"", None), 5, False, b""),
    (DeleteRange(b"", None, 4), 4, True, b"d"),
    (DeleteRange(b"d", None, 1), 1, False, b"a b ba c"),
    (DeleteRange(b"bb", b"c"), 0, False, b"a b ba c d"),
    (DeleteRange(b"c", b"b"), 0, False, b"a b ba c d"),
    (DeleteRange(b"b", b"b"), 0, False, b"a b ba c d"),
    (DeleteRange(b"", b""), 0, False, b"a b ba c d"),
]


@pytest.mark.parametrize(("command", "deleted", "more", "expected"), GONE)
def test_the_first_keys_within_the_bounds_go_at_one_revision(command, deleted, more, expected):
    """And where nothing was there, none is made. faults 70: no bounds that cross or are empty delete anything."""
    store = prepared()
    before = store.machine.snapshot()
    answer = store.apply(command)
    revision = 6 if deleted else 5
    assert (type(answer), answer) == (DeleteRangeDone, DeleteRangeDone(deleted, more, revision))
    assert b" ".join(left(store)) == expected
    assert (store.machine.snapshot() == before) == (deleted == 0)
    store.restart_from_snapshot()
    assert b" ".join(left(store)) == expected


def test_one_command_deletes_at_most_ten_thousand_keys():
    """faults 62: who repeats it gets on."""
    store = Store()
    for number in range(COMMAND_KEYS_MAX + 1):
        store.apply(Put(b"%d" % number, b""))
    revision = COMMAND_KEYS_MAX + 1
    assert store.apply(DeleteRange(b"", None)) == DeleteRangeDone(COMMAND_KEYS_MAX, more=True, revision=revision + 1)
    assert left(store) == [b"9999"]
    assert store.apply(DeleteRange(b"", None)) == DeleteRangeDone(1, more=False, revision=revision + 2)
    assert store.apply(DeleteRange(b"", None)) == DeleteRangeDone(0, more=False, revision=revision + 2)


HALF = COMMAND_BYTES_MAX // 2
BYTES = [
    ([HALF, HALF, 1], 2, True),
    ([HALF, HALF], 2, False),
    ([HALF, HALF + 1, 1], 1, True),
    ([COMMAND_BYTES_MAX, 1], 1, True),
    ([COMMAND_BYTES_MAX], 1, False),
    ([1, COMMAND_BYTES_MAX], 1, True),
]


@pytest.mark.parametrize(("sizes", "deleted", "more"), BYTES)
def test_one_command_deletes_at_most_two_mebibytes(sizes, deleted, more):
    """Of keys and values; the largest record there can be still goes."""
    store = Store()
    for number, size in enumerate(sizes):
        store.apply(Put(b"%d" % number, b"v" * (size - 1)))
    assert store.apply(DeleteRange(b"", None)) == DeleteRangeDone(deleted, more, len(sizes) + 1)


def test_a_numbered_range_delete_is_executed_once():
    """faults 46: also when there is more to delete by then."""
    store = prepared()
    store.apply(OpenSession(ID))
    first = store.apply(DeleteRange(b"a", None, 2), Numbered(ID, 1))
    assert isinstance(first, DeleteRangeDone)
    index = store.index
    store.apply(Put(b"a", b"new"))
    store.restart_from_snapshot()
    assert store.apply(DeleteRange(b"a", None, 2), Numbered(ID, 1)) == Repeated(first, index)
    assert left(store) == [b"a", b"ba", b"c", b"d"]
