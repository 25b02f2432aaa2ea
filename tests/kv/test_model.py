"""The store against a naive model: any story, told to both, gets the same answers and the same state."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any, get_args
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from raftkv.kv import machine, sessions, transactions
from raftkv.kv.answers import Answer, Executed, Malformed, Repeated, Result, TxnDone
from raftkv.kv.commands import (
    ABSENT,
    ANY,
    PRESENT,
    CloseSession,
    Command,
    Compare,
    Delete,
    DeleteRange,
    Expect,
    KeepAlive,
    Numbered,
    Op,
    OpenSession,
    Operation,
    Put,
    ReadKey,
    ReadRange,
    Target,
    Tick,
    Txn,
    encode,
    key_written_twice,
)
from raftkv.kv.machine import KeyValueMachine
from raftkv.kv.queries import Get, Page, Range, Revision
from raftkv.sim.checks.specification import Specification, page
from raftkv.state_machine import LogEntry
from tests.kv.model import NaiveStore
from tests.kv.store import Store, typed

Step = tuple[tuple[Command, Numbered | None], int, bool]
"""What is applied, the time since the step before, and whether the machine is restored from a snapshot after it."""

ANSWERS_MAX, SESSIONS_MAX = 3, 3
BYTES_MAX, KEYS_MAX = 24, 6
"""So small that transactions meet them."""
KEYS = [b"a", b"aa", b"b", b"\x00\xff", b"\xff\xff"]
BOUNDS = [b"", b"\x00", b"a", b"a\x00", b"b", b"c", b"\xff\xff"]
VALUES = [b"", b"one", b"two", b"a longer one", b"v" * 23]
IDS = [bytes([letter]) * 16 for letter in b"stuv"]

PASSED_MS = [0] * 20 + [1] * 5 + [500, 999, 1_000, 2_500, -700]


QUERIES = [
    Range(b"", None, 100, 10_000, reverse=True),
    Range(b"a", b"b", 2, 10_000),
    Range(b"a\x00", None, 100, 6),
    Range(b"", b"b", 100, 0, reverse=True),
    Range(b"", None, 2, 4, keys_only=True),
]
OFTEN: list[Command] = [
    Put(b"a", b"one"),
    DeleteRange(b"a", b"b", 1),
    Txn((), (ReadRange(b"", None, 9), Put(b"b", b"one"), Delete(b"a"), ReadKey(b"b")), ()),
]
"""Among any writes, equal ones hardly ever come under the same number."""


def apart(operations: list[Operation]) -> tuple[Operation, ...]:
    """Of these, those that a branch can have one after the other."""
    kept: list[Operation] = []
    for operation in operations:
        if key_written_twice([*kept, operation]) is None:
            kept.append(operation)
    return tuple(kept)


keys = st.sampled_from(KEYS)
values = st.sampled_from(VALUES)
ids = st.sampled_from(IDS)
expects = st.one_of(st.just(ANY), st.sampled_from([ABSENT, PRESENT]), st.integers(1, 6).map(Expect))
starts, ends = st.sampled_from(BOUNDS), st.sampled_from([*BOUNDS, None])
limits = st.sampled_from([1, 2, 10_000])
compares = st.one_of(
    st.builds(Compare, keys, st.just(Target.VALUE), st.sampled_from(Op), values),
    st.builds(
        Compare,
        keys,
        st.sampled_from([Target.VERSION, Target.CREATE_REVISION, Target.MOD_REVISION]),
        st.sampled_from(Op),
        st.integers(0, 6),
    ),
)
operations = st.one_of(
    st.builds(Put, keys, values),
    st.builds(Delete, keys),
    st.builds(ReadKey, keys),
    st.builds(DeleteRange, starts, ends, limits),
    st.builds(ReadRange, starts, ends, limits, st.booleans(), st.booleans()),
)
branches = st.lists(operations, max_size=5).map(apart)
any_write = st.one_of(
    st.builds(Put, keys, values, expects),
    st.builds(Delete, keys, expects),
    st.builds(DeleteRange, starts, ends, limits),
    st.builds(Txn, st.lists(compares, max_size=2).map(tuple), branches, branches),
)
numbered = st.builds(Numbered, ids, st.integers(1, 6), st.sampled_from([0, 0, 0, 1, 2, 3, 5]))
on_sessions = st.one_of(
    st.builds(OpenSession, ids, st.sampled_from([1_000, 2_000, 5_000])),
    st.builds(KeepAlive, ids),
    st.builds(CloseSession, ids),
    st.just(Tick()),
)
steps = st.tuples(
    st.one_of(
        st.tuples(any_write, st.none()),
        st.tuples(any_write, numbered),
        st.tuples(st.sampled_from(OFTEN), numbered),
        st.tuples(on_sessions, st.none()),
    ),
    st.sampled_from(PASSED_MS),
    st.sampled_from([False] * 5 + [True]),
)


def assert_same_state(store: Store, model: NaiveStore) -> None:
    assert {key: record for key in KEYS if (record := store.get(key))} == model.keys.records
    in_order = Page(sorted(model.keys.records.items()), more=False, revision=model.keys.revision)
    assert store.machine.query(Range(b"", None, 100, 10_000)) == in_order
    for query in QUERIES:
        assert store.machine.query(query) == page(model.keys.records, model.keys.revision, query)
    assert store.machine.query(Revision()) == model.keys.revision
    due_ms = min((session.last_seen_ms + session.ttl_ms for session in model.sessions.values()), default=None)
    assert store.machine.tick_due_ms() == due_ms


def tell(story: list[Step]) -> list[Answer]:
    """The story to both, compared at every step."""
    with (
        mock.patch.multiple(sessions, ANSWERS_MAX=ANSWERS_MAX, SESSIONS_MAX=SESSIONS_MAX),
        mock.patch.multiple(machine, COMMAND_BYTES_MAX=BYTES_MAX),
        mock.patch.multiple(transactions, COMMAND_BYTES_MAX=BYTES_MAX, COMMAND_KEYS_MAX=KEYS_MAX),
    ):
        return _tell(story)


def _tell(story: list[Step]) -> list[Answer]:
    store, model = Store(), NaiveStore(ANSWERS_MAX, SESSIONS_MAX, Specification(BYTES_MAX, KEYS_MAX))
    told = []
    opening: list[Step] = [((OpenSession(id, 2_000), None), 0, False) for id in IDS[:2]]
    for (command, numbering), passed_ms, restart in opening + story:
        stamp_ms = max(0, model.time_ms + passed_ms)
        answer = store.apply(command, numbering, at_ms=stamp_ms)
        expected = model.apply(command, numbering, index=store.index, stamp_ms=stamp_ms)
        assert typed(answer) == typed(expected)
        if restart:
            store.restart_from_snapshot()
        assert_same_state(store, model)
        told.append(answer)
    assert_hash_is_of_the_state_alone(store)
    return told


@settings(deadline=None, max_examples=300)
@given(st.lists(steps, min_size=1, max_size=60))
def test_every_story_is_told_as_by_the_model(story):
    """faults 47, 48, 49: repeats, numbers in any order, acknowledgements that cross them, expiry, restarts."""
    tell(story)


def test_the_stories_reach_every_answer():
    """A comparison that never met a refusal would prove nothing about it."""
    rng = random.Random(46)
    met: Counter[type] = Counter()
    repeated: Counter[type] = Counter()
    stopped: Counter[type] = Counter()
    for _ in range(400):
        for answer in tell(random_story(rng)):
            results = answer.results if isinstance(answer, TxnDone) else ()
            met.update(map(type, (answer, *results)))
            repeated.update([type(answer.answer)] if isinstance(answer, Repeated) else [])
            stopped.update(type(one) for one in (answer, *results) if getattr(one, "more", False))
    wanted = (*get_args(Answer), *get_args(Result))
    never = [kind.__name__ for kind in wanted if kind is not Malformed and met[kind] < 20]
    assert not never, met
    assert not [kind.__name__ for kind in get_args(Executed) if repeated[kind] < 5], repeated
    assert len(stopped) == 3 and min(stopped.values()) > 20, stopped


def random_story(rng: random.Random) -> list[Step]:
    """One in which clients ask again."""
    story: list[Step] = []
    for _ in range(40):
        story.append(rng.choice(story[-5:]) if story and rng.random() < 0.2 else random_step(rng))
    return story


def random_step(rng: random.Random) -> Step:
    """The same stories as the strategies tell, without their cost."""
    id, key = rng.choice(IDS[:1] * 6 + IDS[1:]), rng.choice(KEYS)
    expect = rng.choice([ANY, ANY, PRESENT, ABSENT, Expect(rng.randint(1, 6))])
    writes: list[Command] = [Put(key, rng.choice([b"one", b"two"]), expect), Put(key, rng.choice(VALUES))]
    writes += [Put(rng.choice(KEYS), b"one") for _ in range(3)]
    writes += [Delete(key, expect), random_txn(rng), random_txn(rng), random_operation(rng, DeleteRange), *OFTEN]
    opened = OpenSession(id, rng.choice([2_000, 5_000]))
    tending: list[Command] = [opened, opened, opened, OpenSession(rng.choice(IDS)), KeepAlive(id), CloseSession(id)]
    numbering = rng.choice([None, Numbered(id, rng.randint(1, 6), rng.choice([0, 0, 0, 1, 2, 5]))])
    told = (rng.choice(writes), numbering) if rng.random() < 0.7 else (rng.choice([*tending, Tick()]), None)
    return told, rng.choice(PASSED_MS), rng.random() < 0.1


def random_txn(rng: random.Random) -> Txn:
    branch = [random_operation(rng, rng.choice(get_args(Operation))) for _ in range(rng.randint(0, 6))]
    compared = Compare(rng.choice(KEYS), Target.VERSION, rng.choice(list(Op)), rng.randint(0, 2))
    return Txn((compared,) * rng.randint(0, 1), apart(branch), apart(branch[::-1]))


def random_operation(rng: random.Random, kind: type) -> Any:
    key, start, end, limit = rng.choice(KEYS), rng.choice(BOUNDS), rng.choice([*BOUNDS, None]), rng.choice([1, 2, 99])
    return {
        Put: Put(key, rng.choice(VALUES[:3])),
        Delete: Delete(key),
        ReadKey: ReadKey(key),
        DeleteRange: DeleteRange(start, end, limit),
        ReadRange: ReadRange(start, end, limit, rng.random() < 0.5, rng.random() < 0.5),
    }[kind]


def assert_hash_is_of_the_state_alone(store: Store) -> None:
    """However it came about: a machine that computes the hash from nothing but the state finds the same."""
    fresh = KeyValueMachine()
    fresh.restore(store.machine.snapshot())
    assert fresh.state_hash() == store.hash
    assert fresh.snapshot() == store.machine.snapshot()


@settings(deadline=None, max_examples=50)
@given(st.lists(steps, min_size=2, max_size=30), st.data())
def test_batches_are_cut_anywhere_without_a_difference(story, data):
    entries = [
        LogEntry(index, max(0, 100 * index + passed_ms), encode(command, numbering))
        for index, ((command, numbering), passed_ms, _) in enumerate(story, 1)
    ]
    cut = data.draw(st.integers(0, len(entries)))
    whole, parts = KeyValueMachine(), KeyValueMachine()
    at_once = whole.apply_batch(entries)
    assert at_once == parts.apply_batch(entries[:cut]) + parts.apply_batch(entries[cut:])
    assert whole.state_hash() == parts.state_hash()
    assert whole.query(Get(b"a")) == parts.query(Get(b"a"))
