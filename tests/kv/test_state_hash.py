"""The state hash: equal states have equal hashes on every node, and any difference shows."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from typing import Any

import msgpack
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from raftkv.errors import SnapshotError
from raftkv.kv import answers, sessions, snapshot
from raftkv.kv.commands import (
    CloseSession,
    Compare,
    Delete,
    DeleteRange,
    KeepAlive,
    Numbered,
    Op,
    OpenSession,
    Put,
    ReadKey,
    ReadRange,
    Target,
    Tick,
    Txn,
)
from raftkv.kv.hashing import Room, hash_sum, item_hash
from raftkv.kv.machine import KeyValueMachine
from raftkv.kv.queries import Range
from raftkv.kv.snapshot import Meta
from raftkv.state_machine import LogEntry
from tests.kv.store import Store

ID = b"0123456789abcdef"


def busy_store() -> Store:
    store = Store()
    store.apply(OpenSession(ID), at_ms=5)
    store.apply(OpenSession(ID[::-1], 1_000), at_ms=6)
    for number in range(1, 40):
        store.apply(Put(b"key%d" % (number % 7), b"value%d" % number), Numbered(ID, number, max(0, number - 3)))
    store.apply(Delete(b"key3"))
    return store


def busier_store() -> Store:
    """With everything that touches several keys, answers stored too."""
    store = busy_store()
    compare = Compare(b"key1", Target.VALUE, Op.GREATER, b"value")
    reads = (ReadKey(b"key1"), ReadRange(b"", None, 9), ReadRange(b"", None, 2, reverse=True, keys_only=True))
    puts = tuple(Put(b"new%d" % number, b"v") for number in range(9, 0, -1))
    store.apply(
        Txn((compare,), (*puts, *reads, Delete(b"key2"), DeleteRange(b"key4", b"key6", 1)), ()), Numbered(ID, 41)
    )
    store.apply(Txn((compare,), (), (Delete(b"key1"),)), Numbered(ID, 42))
    store.apply(DeleteRange(b"new3", b"new7", 2), Numbered(ID, 43))
    store.apply(DeleteRange(b"new8", None))
    return store


STORY = """
from tests.kv.test_state_hash import busier_store
store = busier_store()
print(store.hash, store.machine.snapshot().hex())
"""


def test_every_process_finds_the_same_hash():
    """faults 61: whatever the hash seed and the locale are."""
    told = set()
    for seed, locale in (("0", "C"), ("1", "C.UTF-8"), ("4242", "tr_TR.UTF-8")):
        environment = os.environ | {"PYTHONHASHSEED": seed, "LC_ALL": locale, "PYTHONPATH": os.pathsep.join(sys.path)}
        told.add(subprocess.run([sys.executable, "-c", STORY], env=environment, check=True, capture_output=True).stdout)
    here = busier_store()
    assert told == {f"{here.hash} {here.machine.snapshot().hex()}\n".encode()}


def test_the_hash_is_part_of_the_format():
    """A change of this number is a change of format: nodes of two versions would halt over it."""
    assert Store().hash == 48315271135194831186084227649339748412
    assert busy_store().hash == 99058299852149570583284421996737961392
    assert busier_store().hash == 23215786954301748652808552327911760762


def test_it_is_xxh3_of_the_room_and_the_key_with_its_length_and_the_content():
    assert xxhash.xxh3_128_intdigest(b"") == 0x99AA06D3014798D86001C324468D497F, "as its specification has it"
    for size_bytes in (0, 1, 4095, 4096, 4097, 70_000):
        content = bytes(range(256)) * (size_bytes // 256) + bytes(size_bytes % 256)
        joined = b"t" + (3).to_bytes(4, "little") + b"key" + content
        assert item_hash(Room.TABLE, b"key", content) == xxhash.xxh3_128_intdigest(joined)
        assert hash_sum(Room.TABLE, [b"key"] * 2, [content] * 2) == 2 * item_hash(Room.TABLE, b"key", content)


DIFFERENCES = {
    "a value": lambda store: store.apply(Put(b"key1", b"another")),
    "a key less": lambda store: store.apply(Delete(b"key1")),
    "a session more": lambda store: store.apply(OpenSession(b"x" * 16)),
    "a later sign of life": lambda store: store.apply(OpenSession(ID), at_ms=7),
    "the time": lambda store: store.apply(Tick(), at_ms=7),
    "a range less": lambda store: store.apply(DeleteRange(b"key1", b"key2")),
    "a transaction's puts": lambda store: store.apply(Txn((), (Put(b"key1", b"value36"), Put(b"key2", b"")), ())),
    "a stored answer of a transaction": lambda store: store.apply(Txn((), (), ()), Numbered(ID, 41)),
    "a stored answer": lambda store: store.apply(Delete(b"none"), Numbered(ID, 41)),
    "an acknowledgement": lambda store: store.apply(Put(b"key4", b"value39"), Numbered(ID, 39, 37)),
}


@pytest.mark.parametrize("change", DIFFERENCES.values(), ids=DIFFERENCES.keys())
def test_every_difference_shows(change):
    store, same = busy_store(), busy_store()
    assert store.hash == same.hash
    change(store)
    assert store.hash != same.hash


def test_another_way_to_the_same_records_is_the_same_only_with_the_same_revisions():
    store, other = Store(), Store()
    for first, second in ((store, b"a"), (other, b"b")):
        first.apply(Put(second, b"v"))
        first.apply(Put(b"ab".replace(second, b""), b"v"))
    assert store.hash != other.hash


def test_no_two_keys_run_together():
    store, other = Store(), Store()
    store.apply(Put(b"a", b"bc"))
    other.apply(Put(b"ab", b"c"))
    assert store.hash != other.hash


@pytest.mark.parametrize("overwrite", [Put(b"key1", b"new"), Delete(b"key1")])
def test_a_bit_that_flipped_in_memory_shows_for_ever(overwrite):
    """The hash subtracted is that of the record found: overwriting a damaged one heals nothing."""
    store, sound = busy_store(), busy_store()
    records = store.machine._table._records.parts[hash(b"key1") & 63]
    records[b"key1"] = records[b"key1"][:-1] + bytes([records[b"key1"][-1] ^ 1])
    store.apply(overwrite)
    sound.apply(overwrite)
    assert store.get(b"key1") == sound.get(b"key1")
    assert store.hash != sound.hash


def test_a_snapshot_brings_everything_over():
    """faults 47."""
    store = busy_store()
    before, taken = store.hash, store.machine.snapshot()
    store.restart_from_snapshot()
    assert (store.hash, store.machine.snapshot()) == (before, taken)
    assert store.apply(Put(b"key4", b"value39"), Numbered(ID, 39)) == answers.Repeated(
        answers.PutDone(created=False, revision=39, create_revision=4, version=6), index=41
    )


def test_a_snapshot_brings_the_answers_of_transactions_over():
    """faults 47; and the order of the keys."""
    store = busier_store()
    before, taken, page = store.hash, store.machine.snapshot(), store.machine.query(Range(b"", None, 99, 9_999))
    store.restart_from_snapshot()
    assert (store.hash, store.machine.snapshot()) == (before, taken)
    assert store.machine.query(Range(b"", None, 99, 9_999)) == page
    again = store.apply(DeleteRange(b"new3", b"new7", 2), Numbered(ID, 43))
    assert again == answers.Repeated(answers.DeleteRangeDone(2, more=True, revision=42), index=45)


def test_restoring_replaces_what_was_there():
    store = busy_store()
    store.machine.restore(KeyValueMachine().snapshot())
    assert store.hash == Store().hash
    assert store.get(b"key1") is None and store.machine.tick_due_ms() is None


def test_no_damaged_snapshot_is_restored():
    """faults 58: any single byte, any cut; and the state is as it was."""
    taken, store = busy_store().machine.snapshot(), busy_store()
    before = store.hash
    damaged = [taken[:cut] for cut in range(0, len(taken), 7)]
    damaged += [taken[:at] + bytes([taken[at] ^ 0x41]) + taken[at + 1 :] for at in range(len(taken))]
    for bad in damaged:
        with pytest.raises(SnapshotError):
            store.machine.restore(bad)
    assert store.hash == before


HASH = bytes(16)


def of_blocks(*blocks: object) -> bytes:
    return msgpack.packb([msgpack.packb(block) for block in blocks])


def after_a_beginning(*blocks: object, keys: int = 0, sessions: int = 0) -> bytes:
    beginning = snapshot.meta_block(Meta(1, 1, keys, sessions, 0, 0))
    return msgpack.packb([beginning, *map(msgpack.packb, blocks)])


RECORD = bytes(32)
NOT_SNAPSHOTS = {
    "nothing": b"",
    "no blocks": of_blocks(),
    "blocks that are text": msgpack.packb(["raftkv kv"]),
    "the first format": msgpack.packb([1, 0, 0, [], [], HASH]),
    "format 3": of_blocks(["raftkv kv", 3]),
    "another machine's": of_blocks(["raftkv", 2, 0, 0, 0, 0, HASH, HASH, HASH]),
    "a field too few": of_blocks(["raftkv kv", 2, 0, 0, 0, HASH, HASH, HASH]),
    "a negative revision": of_blocks(["raftkv kv", 2, -1, 0, 0, 0, HASH, HASH, HASH]),
    "time that is text": of_blocks(["raftkv kv", 2, 0, "0", 0, 0, HASH, HASH, HASH]),
    "the wrong hash": of_blocks(["raftkv kv", 2, 0, 0, 0, 0, HASH, HASH, HASH]),
    "a second beginning": msgpack.packb([snapshot.meta_block(Meta(1, 1, 0, 0, 0, 0))] * 2),
    "records that are numbers": after_a_beginning([1, [b"a", b"b"], [1, 2]], keys=2),
    "records that are short": after_a_beginning([1, [b"a", b"b"], [b"", b""]], keys=2),
    "records that are text": after_a_beginning([1, [b"a"], ["r" * 32]], keys=1),
    "keys that are numbers": after_a_beginning([1, [1], [RECORD]], keys=1),
    "keys that are text": after_a_beginning([1, ["a"], [RECORD]], keys=1),
    "keys without records": after_a_beginning([1, [b"a"], []], keys=1),
    "a block of nothing": after_a_beginning([1, [], []]),
    "an unknown block": after_a_beginning([3, [b"a"], [RECORD]]),
    "a session of nothing": after_a_beginning([2, [[]]], sessions=1),
    "a session without answers": after_a_beginning([2, [[[ID, 1, 1, 0]]]], sessions=1),
    "a session that expired before time began": after_a_beginning([2, [[[ID, 1, -1, 0], []]]], sessions=1),
    "an answer that is a number": after_a_beginning([2, [[[ID, 1, 1, 0], [[1, 1]]]]], sessions=1),
    "an answer under a text": after_a_beginning([2, [[[ID, 1, 1, 0], [["1", b"stored"]]]]], sessions=1),
    "a session's id that is a number": after_a_beginning([2, [[[1, 1, 1, 0], []]]], sessions=1),
}


@pytest.mark.parametrize("packed", NOT_SNAPSHOTS.values(), ids=NOT_SNAPSHOTS.keys())
def test_what_is_no_snapshot_is_refused(packed):
    with pytest.raises(SnapshotError):
        KeyValueMachine().restore(packed)


NOT_ANSWERS = [
    b"",
    b"\xc1",
    *map(
        msgpack.packb,
        [
            [9, 1, 1],
            [1],
            7,
            [[1], 1],
            [4, 1],
            [5, True, None, 1],
            [5, True, [7], 1],
            [5, True, [[]], 1],
            [5, True, [[7, 1]], 1],
            [5, True, [[8, b"k", 5]], 1],
            [5, True, [[8, b"k", [1, 2]]], 1],
            [5, True, [[9, [[b"k"]], False, False]], 1],
            [5, True, [[9, [[b"k", [1]]], False, False]], 1],
        ],
    ),
]


@pytest.mark.parametrize("packed", NOT_ANSWERS)
def test_what_is_no_stored_answer_is_refused(packed):
    with pytest.raises(SnapshotError):
        answers.unpack(packed)


@settings(deadline=None, max_examples=150)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.recursive(
                st.one_of(st.integers(-3, 70), st.binary(max_size=18), st.none(), st.text(max_size=3), st.booleans()),
                lambda inner: st.lists(inner, max_size=6),
            ).map(msgpack.packb),
            st.lists(st.one_of(st.integers(-2, 65), st.just(ID), st.binary(max_size=20)), max_size=6).map(
                lambda fields: msgpack.packb([1, *fields])
            ),
        ),
        max_size=12,
    ),
    st.integers(-1, 2**65),
)
def test_apply_is_total(garbage, stamp_ms):
    """faults 62, 64: whatever the bytes and the stamp, an answer each, the same on every node."""
    store, other = busy_store(), busy_store()
    entries = [LogEntry(100 + number, stamp_ms, encoded) for number, encoded in enumerate(garbage)]
    told = store.machine.apply_batch(entries)
    assert len(told) == len(entries)
    assert all(isinstance(answer, answers.Answer) for answer in told)
    assert (other.machine.apply_batch(entries), other.hash) == (told, store.hash)


def session_life(rng: random.Random, store: Store, sequence: int) -> tuple[Any, Numbered | None, int]:
    """What a few clients do within seconds, each in its own session, of which some run out."""
    id = bytes([rng.randrange(6)]) * 16
    what = rng.random()
    numbered: Numbered | None = Numbered(
        id, rng.randint(max(1, sequence - 8), sequence), rng.choice([0, max(0, sequence - 8)])
    )
    command: Any = Put(b"key%d" % rng.randrange(9), b"v%d" % sequence)
    if what < 0.1:
        command, numbered = OpenSession(id, rng.choice([1_000, 1_500, 4_000])), None
    elif what < 0.14:
        command, numbered = rng.choice([KeepAlive(id), CloseSession(id)]), None
    elif what < 0.2:
        numbered = None
    return command, numbered, store.stamp_ms + rng.choice([0, 0, 1, 40, 300 if rng.random() < 0.2 else 2])


@pytest.mark.parametrize("changes_max", [3, sessions.CHANGES_MAX])
def test_who_is_asked_often_and_who_never_was_have_the_same_state(monkeypatch, changes_max):
    """faults 49, 61: what changed since somebody asked is hashed when somebody asks, and was always there."""
    monkeypatch.setattr(sessions, "CHANGES_MAX", changes_max)
    for seed in range(12):
        rng, often, never, restarted = random.Random(seed), Store(), Store(), Store()
        for sequence in range(1, 250):
            command, numbered, at_ms = session_life(rng, often, sequence)
            told = [store.apply(command, numbered, at_ms=at_ms) for store in (often, never, restarted)]
            assert told[0] == told[1] == told[2]
            assert len({store.machine.snapshot() for store in (often, restarted)}) == 1
            assert often.machine.tick_due_ms() == restarted.machine.tick_due_ms()
            if rng.random() < 0.2:
                restarted.restart_from_snapshot()
        assert often.hash == never.hash == restarted.hash
        assert never.machine.snapshot() == often.machine.snapshot()
        assert never.machine.tick_due_ms() == often.machine.tick_due_ms()


def test_changes_that_nobody_asks_about_wait_to_be_hashed_up_to_a_limit(monkeypatch):
    """Else whoever asks after long would wait for all of them at once."""
    monkeypatch.setattr(sessions, "CHANGES_MAX", 10)
    store = Store()
    for number in range(30):
        store.apply(OpenSession(bytes([number]) * 16))
    for number in range(300):
        store.apply(Put(b"k", b"v"), Numbered(bytes([number % 30]) * 16, number + 1), at_ms=number)
        assert len(store.machine._sessions._changed) <= 10
        assert sum(len(session.unhashed) for session in store.machine._sessions._sessions.values()) <= 10
