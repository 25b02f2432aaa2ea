"""Keys, revisions and conditions, one table per rule."""

from __future__ import annotations

import pytest

from raftkv.kv.answers import ConditionFailed, DeleteDone, Executed, PutDone, TooLarge
from raftkv.kv.commands import ABSENT, ANY, COMMAND_BYTES_MAX, PRESENT, Delete, Expect, Put, Tick
from raftkv.kv.queries import Get, Revision
from raftkv.kv.record import Record
from tests.kv.store import Store


def prepared() -> Store:
    """Revision 3: ``k`` created at 1, put again at 2; ``other`` at 3."""
    store = Store()
    for key, value in ((b"k", b"one"), (b"k", b"two"), (b"other", b"")):
        store.apply(Put(key, value))
    return store


def test_puts_count_revisions_and_versions():
    store = Store()
    assert store.apply(Put(b"k", b"one")) == PutDone(created=True, revision=1, create_revision=1, version=1)
    assert store.apply(Put(b"k", b"one")) == PutDone(created=False, revision=2, create_revision=1, version=2)
    assert store.apply(Put(b"other", b"")) == PutDone(created=True, revision=3, create_revision=3, version=1)
    assert store.get(b"k") == Record(create_revision=1, mod_revision=2, version=2, lease=0, value=b"one")
    assert store.get(b"absent") is None


def test_a_deleted_key_starts_again():
    store = prepared()
    assert store.apply(Delete(b"k")) == DeleteDone(deleted=1, revision=4)
    assert store.get(b"k") is None
    assert store.apply(Put(b"k", b"new")) == PutDone(created=True, revision=5, create_revision=5, version=1)


CONDITIONS: list[tuple[Put | Delete, Executed]] = [
    (Put(b"k", b"", ANY), PutDone(created=False, revision=4, create_revision=1, version=3)),
    (Put(b"k", b"", PRESENT), PutDone(created=False, revision=4, create_revision=1, version=3)),
    (Put(b"k", b"", Expect(2)), PutDone(created=False, revision=4, create_revision=1, version=3)),
    (Put(b"k", b"", Expect(1)), ConditionFailed(mod_revision=2, revision=3)),
    (Put(b"k", b"", Expect(3)), ConditionFailed(mod_revision=2, revision=3)),
    (Put(b"k", b"", ABSENT), ConditionFailed(mod_revision=2, revision=3)),
    (Put(b"none", b"", ANY), PutDone(created=True, revision=4, create_revision=4, version=1)),
    (Put(b"none", b"", ABSENT), PutDone(created=True, revision=4, create_revision=4, version=1)),
    (Put(b"none", b"", PRESENT), ConditionFailed(mod_revision=0, revision=3)),
    (Put(b"none", b"", Expect(2)), ConditionFailed(mod_revision=0, revision=3)),
    (Delete(b"k", ANY), DeleteDone(deleted=1, revision=4)),
    (Delete(b"k", PRESENT), DeleteDone(deleted=1, revision=4)),
    (Delete(b"k", Expect(2)), DeleteDone(deleted=1, revision=4)),
    (Delete(b"k", Expect(1)), ConditionFailed(mod_revision=2, revision=3)),
    (Delete(b"k", ABSENT), ConditionFailed(mod_revision=2, revision=3)),
    (Delete(b"none", ANY), DeleteDone(deleted=0, revision=3)),
    (Delete(b"none", ABSENT), DeleteDone(deleted=0, revision=3)),
    (Delete(b"none", PRESENT), ConditionFailed(mod_revision=0, revision=3)),
    (Delete(b"none", Expect(2)), ConditionFailed(mod_revision=0, revision=3)),
]


@pytest.mark.parametrize(("command", "expected"), CONDITIONS)
def test_conditions(command, expected):
    store = prepared()
    before = store.hash
    answer = store.apply(command)
    assert (type(answer), answer) == (type(expected), expected)
    changed = expected.revision == 4
    assert (store.hash != before) == changed, "what changes nothing makes no revision, and the other way round"
    assert store.machine.query(Revision()) == expected.revision


def test_a_revision_that_the_key_had_in_an_earlier_life_does_not_match():
    store = prepared()
    store.apply(Delete(b"k"))
    store.apply(Put(b"k", b"again"))
    assert store.apply(Put(b"k", b"", Expect(2))) == ConditionFailed(mod_revision=5, revision=5)


KEYS = [b"..", b"\x00", b"\xff\xfe", b"a/b", b"a%2Fb", b"a//b", b"a/../b", "ключ".encode(), b"k" * 4096]


def test_odd_keys_are_kept_apart_byte_for_byte():
    """faults 64."""
    store = Store()
    for number, key in enumerate(KEYS):
        store.apply(Put(key, b"%d" % number))
    values = [found.value for key in KEYS if (found := store.get(key))]
    assert values == [b"%d" % number for number in range(len(KEYS))]


def test_a_command_touches_at_most_two_mebibytes():
    """faults 60."""
    store = Store()
    largest = b"v" * (COMMAND_BYTES_MAX - 1)
    before = store.hash
    assert store.apply(Put(b"k", largest + b"v")) == TooLarge(COMMAND_BYTES_MAX + 1, COMMAND_BYTES_MAX)
    assert store.hash == before
    assert isinstance(store.apply(Put(b"k", largest)), PutDone)
    found = store.machine.query(Get(b"k"))
    assert found.record is not None and found.record.value == largest and found.revision == 1


def test_a_tick_changes_nothing_but_the_time():
    store = prepared()
    before = store.hash
    store.apply(Tick())
    assert store.hash == before
    store.apply_bytes(store.machine.tick_command(), at_ms=1)
    assert store.hash != before
    assert store.machine.query(Revision()) == 3
