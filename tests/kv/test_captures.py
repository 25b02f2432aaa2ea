"""A capture holds the state of its moment, whatever happens while a thread reads it; a loading is all or nothing.

In the stories the thread is a generator that is asked for its next block between any two commands, and commands are
also executed in the middle of its reading, where a thread would find them.
"""

from __future__ import annotations

import random
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple
from unittest import mock

import msgpack
import pytest

from raftkv.errors import SnapshotError, StateDamaged
from raftkv.kv import order, sessions, snapshot
from raftkv.kv.answers import DeleteDone, PutDone
from raftkv.kv.captures import StoreCapture, StoreLoading
from raftkv.kv.commands import Command, Delete, DeleteRange, Numbered, OpenSession, Put, encode
from raftkv.kv.frozen import Frozen
from raftkv.kv.hashing import HASH_BYTES
from raftkv.kv.machine import KeyValueMachine
from raftkv.kv.queries import Get, Page, Range, Revision
from raftkv.kv.sessions import ANSWERS_MAX, Sessions
from raftkv.kv.snapshot import REVISION_RAISE, joined, meta_of, parted, raised
from raftkv.sim.checks.specification import Specification
from raftkv.state_machine import LogEntry
from tests.kv.model import NaiveStore
from tests.kv.store import Store, typed
from tests.kv.test_model import IDS, assert_same_state, random_step
from tests.kv.test_state_hash import busier_store, busy_store

EVERYTHING = Range(b"", None, 10**6, 10**9)
ID = IDS[0]


def loaded(blocks: list[bytes]) -> KeyValueMachine:
    """A machine that holds what the blocks hold."""
    machine = KeyValueMachine()
    load(machine, blocks)
    return machine


def load(machine: KeyValueMachine, blocks: list[bytes]) -> StoreLoading:
    loading = machine.loading()
    add_all(loading, blocks)
    return loading


def add_all(loading: StoreLoading, blocks: list[bytes]) -> None:
    for block in blocks:
        loading.add(block)
    loading.finish()


def fold(capture: StoreCapture) -> None:
    while not capture.fold(1_000):
        pass


class Truth(NamedTuple):
    """The state at a capture's moment."""

    page: Page
    snapshot: bytes
    due_ms: int | None


class Reader:
    """One capture, read block by block."""

    def __init__(self, store: Store, model: NaiveStore) -> None:
        machine = store.machine
        page = Page(sorted(model.keys.records.items()), more=False, revision=model.keys.revision)
        self.truth = Truth(page, machine.snapshot(), machine.tick_due_ms())
        self.capture = machine.capture()
        self._blocks = self.capture.blocks()
        self._read: list[bytes] = []
        self.is_void = False
        """Given up, or the state that it was of was replaced."""

    def go_on(self) -> bool:
        """Reads a block; whether there was none left. A void one may end by an error, and by nothing else."""
        try:
            block = next(self._blocks, None)
        except SnapshotError:
            assert self.is_void
            return True
        if block is None:
            assert joined(self._read) == self.truth.snapshot
            machine = loaded(self._read)
            assert machine.query(EVERYTHING) == self.truth.page
            assert machine.tick_due_ms() == self.truth.due_ms
            return True
        self._read.append(block)
        return False


class Telling:
    """A random story, told to the store and to the model, while captures begin, are read and end."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._store, self._model = Store(), NaiveStore(ANSWERS_MAX, 3, Specification(2**21, 10_000))
        self._readers: list[Reader] = []
        self._folding: list[StoreCapture] = []
        self._depth = 0
        self.done: Counter[str] = Counter()

    def tell(self, steps: int) -> None:
        with ExitStack() as patched:
            patched.enter_context(mock.patch.multiple(snapshot, RECORDS_PER_BLOCK=2, SESSIONS_PER_BLOCK=1))
            patched.enter_context(mock.patch.multiple(order, KEYS_PER_LIST=2))
            patched.enter_context(mock.patch.multiple(sessions, SESSIONS_MAX=3))
            patched.enter_context(mock.patch.object(Frozen, "as_it_was", self._interrupted(Frozen.as_it_was)))
            for _ in range(steps):
                self._step()
            while self._readers:
                self._read()
        for capture in self._folding:
            fold(capture)
        assert not self._store.machine._table._frozen and not self._store.machine._sessions._frozen

    def _interrupted(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """The map was looked at, what is noted was not: now the loop has its turn."""

        def as_it_was(frozen: Frozen[Any], keys: list[bytes], found: dict[bytes, Any]) -> Any:
            if self._depth == 0:
                self._depth += 1
                for _ in range(self._rng.choice([0, 1, 3])):
                    self._apply()
                self._depth -= 1
            return original(frozen, keys, found)

        return as_it_was

    def _step(self) -> None:
        chosen = self._rng.choices(
            [self._apply, self._read, self._begin, self._give_up, self._fold, self._replace], [10, 12, 2, 1, 3, 0.3]
        )[0]
        chosen()

    def _apply(self) -> None:
        (command, numbering), passed_ms, _ = random_step(self._rng)
        stamp_ms = max(0, self._model.time_ms + passed_ms)
        answer = self._store.apply(command, numbering, at_ms=stamp_ms)
        expected = self._model.apply(command, numbering, index=self._store.index, stamp_ms=stamp_ms)
        assert typed(answer) == typed(expected)
        assert_same_state(self._store, self._model)

    def _begin(self) -> None:
        if len(self._readers) < 3:
            self._depth += 1
            self._readers.append(Reader(self._store, self._model))
            self._depth -= 1
            self.done["begun"] += 1

    def _read(self) -> None:
        if not self._readers:
            return
        reader = self._rng.choice(self._readers)
        if reader.go_on():
            self._readers.remove(reader)
            self._folding.append(reader.capture)
            self.done["void" if reader.is_void else "read"] += 1

    def _give_up(self) -> None:
        if self._readers:
            reader = self._rng.choice(self._readers)
            reader.is_void = True
            reader.capture.fold(1)
            self.done["given up"] += 1

    def _fold(self) -> None:
        self._folding = [capture for capture in self._folding if not capture.fold(1)]
        self.done["folded"] += 1

    def _replace(self) -> None:
        self._depth += 1
        load(self._store.machine, parted(self._store.machine.snapshot()))
        self._depth -= 1
        for reader in self._readers:
            reader.is_void = True
        self.done["replaced"] += 1


@pytest.mark.parametrize("seed", range(40))
def test_a_capture_holds_its_moment_whatever_happens_meanwhile(seed):
    """faults 44, 45: commands of every kind before, between and in the middle of its reading."""
    telling = Telling(random.Random(seed))
    telling.tell(150)
    assert telling.done["read"] and telling.done["folded"], telling.done


def read_in_turns(capture: StoreCapture, into: list[bytes], turns: threading.Semaphore) -> None:
    """A block for each turn, so that the other thread does something meanwhile."""
    for block in capture.blocks():
        turns.acquire()
        into.append(block)


def test_a_thread_reads_the_moment_while_the_loop_writes(monkeypatch):
    """faults 45: the same with a thread, which is made to change over as often as it can be."""
    monkeypatch.setattr(snapshot, "RECORDS_PER_BLOCK", 16)
    store, rng = Store(), random.Random(7)
    keys = [b"%06d" % number for number in range(4_000)]
    store.apply(OpenSession(ID))
    for key in keys:
        store.apply(Put(key, key))
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(3):
            then, expected = store.hash, store.machine.query(EVERYTHING)
            capture = store.machine.capture()
            blocks: list[bytes] = []
            turns = threading.Semaphore(0)
            thread = threading.Thread(target=read_in_turns, args=(capture, blocks, turns))
            thread.start()
            number = store.index
            while thread.is_alive():
                key = rng.choice(keys)
                written: list[Command] = [
                    Put(key, b"new"),
                    Delete(key),
                    Put(key + b"x", b""),
                    DeleteRange(key, None, 3),
                ]
                store.apply(rng.choice(written))
                turns.release()
                store.apply(Put(key, b"numbered"), Numbered(ID, store.index, store.index - 3))
            thread.join()
            assert store.index >= number + len(blocks) > 200, "something was written meanwhile"
            fold(capture)
            machine = loaded(blocks)
            assert (machine.state_hash(), machine.query(EVERYTHING)) == (then, expected)
    finally:
        sys.setswitchinterval(interval)


def test_what_the_thread_has_of_a_session_does_not_change_under_its_hands():
    """It was read before the session changed, and so nothing that is noted corrects it."""
    held = Sessions()
    held.open(ID, 10_000, 0)
    held.remember(Numbered(ID, 1), b"1" * HASH_BYTES, 0, index=1, answer=DeleteDone(0, 0))
    frozen = held.freeze()
    ((_, stored),) = held.held([ID], frozen)
    held.remember(Numbered(ID, 2), b"2" * HASH_BYTES, 0, index=2, answer=DeleteDone(0, 0))
    assert list(stored) == [1]


def test_a_capture_that_is_given_up_is_never_read_as_whole():
    store = busier_store()
    capture = store.machine.capture()
    blocks = capture.blocks()
    next(blocks)
    capture.fold(1)
    with pytest.raises(SnapshotError, match="given up"):
        list(blocks)


@pytest.mark.parametrize("replace", [lambda machine: load(machine, parted(Store().machine.snapshot())),
                                     lambda machine: list(machine.discard())], ids=["loaded", "discarded"])  # fmt: skip
def test_a_capture_of_a_state_that_was_replaced_is_void(replace):
    store = busier_store()
    capture = store.machine.capture()
    replace(store.machine)
    with pytest.raises(SnapshotError, match="given up"):
        list(capture.blocks())
    fold(capture)


def test_sessions_are_void_too_where_the_thread_has_come_to_them(monkeypatch):
    """The records were all read before: what is left of the capture must not be looked for in what is let go of."""
    monkeypatch.setattr(snapshot, "SESSIONS_PER_BLOCK", 1)
    store = busier_store()
    capture = store.machine.capture()
    blocks = capture.blocks()
    while next(blocks)[1] != snapshot._SESSIONS:
        continue
    list(store.machine.discard())
    with pytest.raises(SnapshotError, match="given up"):
        list(blocks)


def test_folding_lets_go_of_everything_a_little_at_a_time():
    store = Store()
    for number in range(5_000):
        store.apply(Put(b"%d" % number, b"v"))
    capture = store.machine.capture()
    for number in range(5_000):
        store.apply(Put(b"%d" % number, b"w"))
    left = []
    while not capture.fold(1_000):
        left.append(len(capture._records.before))
    assert len(left) >= 2 and left[0] >= 2_500, "a millisecond is over long before all are gone"
    assert not capture._records.before and not store.machine._table._frozen
    store.apply(Put(b"1", b"x"))
    assert not capture._records.before, "nothing is noted any more"


def lines_of(run: Callable[[], object]) -> int:
    """How many lines of Python are executed."""
    count = 0

    def trace(frame: Any, event: str, arg: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        run()
    finally:
        sys.settrace(before)
    return count


def store_of(keys: int, sessions_count: int) -> Store:
    store = Store()
    for number in range(keys):
        store.apply(Put(b"%06d" % number, b"v" * 20))
    for number in range(sessions_count):
        id = b"%016d" % number
        store.apply(OpenSession(id))
        store.apply(Put(b"a", b""), Numbered(id, 1))
    return store


def test_what_is_noted_never_grows_in_one_large_step():
    """One dict of 350,000 notes grows in a step of 25 ms, on the loop; of 64 each grows by itself."""
    frozen: Frozen[bytes] = Frozen([], 0)
    for number in range(20_000):
        frozen.note(b"%d" % number, b"held")
    assert len(frozen.before) == 20_000
    assert max(map(len, frozen.before.parts)) < 1_000


def test_the_thread_runs_no_line_of_python_for_each_record():
    """Else every turn of the loop waits for the interpreter's switch interval again and again."""
    few, many = store_of(10, 3), store_of(2 * snapshot.RECORDS_PER_BLOCK + 9, 600)
    captures = [store.machine.capture() for store in (few, many)]
    assert lines_of(many.machine.capture) == lines_of(few.machine.capture), "a capture costs the same, large or small"
    some = lines_of(lambda: list(captures[0].blocks()))
    assert lines_of(lambda: list(captures[1].blocks())) < 4 * some
    blocks = list(captures[1].blocks())
    loading = KeyValueMachine().loading()
    loading.add(blocks[0])
    assert sum(lines_of(partial(loading.add, block)) for block in blocks[1:4]) < 400


def test_large_values_have_blocks_of_their_own():
    store = Store()
    for number in range(9):
        store.apply(Put(b"key%d" % number, b"v" * (700_000 if number != 4 else 2**21 - 9)))
    capture = store.machine.capture()
    sizes = [len(block) for block in capture.blocks()]
    assert len(sizes) > 4 and max(sizes) < 2**21 + 200
    assert store.hash == loaded(list(store.machine.capture().blocks())).state_hash()


def test_equal_states_have_equal_blocks_however_they_came_about():
    """The order lies in lists that differ with how it came about; nothing of that is in a snapshot."""
    one, other = Store(), Store()
    keys = [b"%05d" % number for number in range(5_000)]
    for store, first in ((one, keys), (other, keys[::-1])):
        for key in first:
            store.apply(Put(key, b""))
        store.apply(DeleteRange(b"", None))
        for key in first[::2] + first[1::2]:
            store.apply(Put(key, b""))
        for key in keys[::3]:
            store.apply(Delete(key))
        store.apply(DeleteRange(b"", None))
        for key in keys[::7]:
            store.apply(Put(key, b"v"))
    lists = [[len(part) for part in store.machine._table._order._lists] for store in (one, other)]
    restored = KeyValueMachine()
    restored.restore(one.machine.snapshot())
    assert one.machine.snapshot() == other.machine.snapshot() == restored.snapshot(), lists


BROKEN: dict[str, Callable[[list[bytes], list[bytes]], list[bytes]]] = {
    "nothing": lambda blocks, others: [],
    "no beginning": lambda blocks, others: blocks[1:],
    "the beginning alone": lambda blocks, others: blocks[:1],
    "the last missing": lambda blocks, others: blocks[:-1],
    "the first missing": lambda blocks, others: blocks[:1] + blocks[2:],
    "one twice": lambda blocks, others: blocks[:2] + blocks[1:],
    "two exchanged": lambda blocks, others: [blocks[0], blocks[2], blocks[1], *blocks[3:]],
    "sessions exchanged": lambda blocks, others: [*blocks[:-2], blocks[-1], blocks[-2]],
    "another's beginning": lambda blocks, others: [others[0], *blocks[1:]],
    "another's block": lambda blocks, others: [*blocks[:1], others[1], *blocks[2:]],
    "an answer of a transaction": lambda blocks, others: [
        *blocks[:-2],
        blocks[-2].replace(b"value", b"evalu", 1),
        blocks[-1],
    ],
    "a block cut short": lambda blocks, others: [*blocks[:2], blocks[2][:-1], *blocks[3:]],
    "more behind a block": lambda blocks, others: [*blocks[:2], blocks[2] + b"\x00", *blocks[3:]],
    "a block of an embedder's machine": lambda blocks, others: [b'{"not": "ours"}'],
}


def test_a_record_that_changed_in_memory_is_told_apart_from_what_is_no_snapshot():
    """faults 58: then the snapshot before may be right, and stand in."""
    blocks = list(busier_store().machine.capture().blocks())
    kind, keys, records = msgpack.unpackb(blocks[1])
    records[0] = records[0][:-1] + bytes([records[0][-1] ^ 1])
    with pytest.raises(StateDamaged):
        loaded([blocks[0], msgpack.packb([kind, keys, records]), *blocks[2:]])


@pytest.mark.parametrize("break_them", BROKEN.values(), ids=BROKEN.keys())
def test_what_is_no_whole_state_is_refused_and_changes_nothing(break_them, monkeypatch):
    """faults 58."""
    monkeypatch.setattr(snapshot, "RECORDS_PER_BLOCK", 2)
    monkeypatch.setattr(snapshot, "SESSIONS_PER_BLOCK", 1)
    blocks, others = (list(store.machine.capture().blocks()) for store in (busier_store(), store_of(9, 9)))
    assert len(blocks) > 5 and loaded(blocks).state_hash() == busier_store().hash
    store = busier_store()
    before = store.hash, store.machine.snapshot(), store.machine.query(EVERYTHING)
    loading = store.machine.loading()
    with pytest.raises(SnapshotError):
        add_all(loading, break_them(blocks, others))
    list(loading.free())
    assert (store.hash, store.machine.snapshot(), store.machine.query(EVERYTHING)) == before


def test_a_loading_that_was_refused_takes_nothing_more():
    blocks = list(busy_store().machine.capture().blocks())
    loading = KeyValueMachine().loading()
    loading.add(blocks[0])
    with pytest.raises(SnapshotError):
        loading.add(b"\xc1")
    with pytest.raises(SnapshotError, match="over"):
        loading.add(blocks[1])
    with pytest.raises(SnapshotError, match="over"):
        loading.finish()


def test_until_the_end_of_a_loading_the_old_state_answers():
    store, blocks = busy_store(), list(busier_store().machine.capture().blocks())
    loading = store.machine.loading()
    for block in blocks:
        loading.add(block)
        assert store.hash == busy_store().hash
    store.apply(Put(b"still", b"written"))
    assert store.get(b"still") is not None
    loading.finish()
    assert store.hash == busier_store().hash and store.get(b"still") is None


def pieces(of: Iterator[None]) -> int:
    return sum(1 for _ in of)


def test_the_old_state_goes_in_pieces():
    store = store_of(9_000, 600)
    old = store.machine._table
    loading = load(store.machine, parted(busy_store().machine.snapshot()))
    assert len(old) == 9_001, "ending a loading frees nothing"
    assert pieces(loading.free()) >= 4
    assert len(old) == 0 and store.hash == busy_store().hash
    again = store_of(9_000, 0)
    given_up = again.machine.loading()
    for block in store_of(9_000, 0).machine.capture().blocks():
        given_up.add(block)
    assert pieces(given_up.free()) >= 2 and again.hash == store_of(9_000, 0).hash


def test_a_store_is_emptied_before_another_state_is_loaded():
    store = store_of(9_000, 0)
    old, rest = store.machine._table, store.machine.discard()
    assert store.machine.query(Revision()) == 0 and len(old) == 9_000
    assert pieces(rest) >= 2 and len(old) == 0
    load(store.machine, parted(busy_store().machine.snapshot()))
    assert store.hash == busy_store().hash


def test_a_raised_revision_is_above_all_that_were_given():
    store = busier_store()
    first, *rest = store.machine.capture().blocks()
    machine = loaded([raised(first), *rest])
    before = store.machine.query(Revision())
    assert machine.query(Revision()) == before + REVISION_RAISE == before + 2**32
    assert machine.state_hash() == meta_of(raised(first)).state_hash != store.hash
    assert machine.query(EVERYTHING).items == store.machine.query(EVERYTHING).items
    store.machine.raise_revision()
    assert (store.machine.state_hash(), store.machine.snapshot()) == (machine.state_hash(), machine.snapshot())
    (done,) = machine.apply_batch([LogEntry(99, 10, encode(Put(b"key1", b"new")))])
    assert isinstance(done, PutDone) and done.revision == before + 2**32 + 1
    record = machine.query(Get(b"key1")).record
    assert record is not None and record.mod_revision == done.revision


def test_what_is_no_beginning_has_no_revision_to_raise():
    first, second, *_ = busy_store().machine.capture().blocks()
    for block in (b"", second, first[:-1], first + b"\x00", first.replace(b"raftkv kv", b"raftkv kw")):
        with pytest.raises(SnapshotError):
            raised(block)
