"""The store against a naive model: any story, told to both, gets the same answers and the same state."""

from __future__ import annotations

import random
from collections import Counter
from typing import get_args
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from raftkv.kv import sessions
from raftkv.kv.answers import Answer, Malformed, TooLarge
from raftkv.kv.commands import (
    ABSENT,
    ANY,
    PRESENT,
    CloseSession,
    Command,
    Delete,
    Expect,
    KeepAlive,
    Numbered,
    OpenSession,
    Put,
    Tick,
    encode,
)
from raftkv.kv.machine import KeyValueMachine
from raftkv.kv.queries import Get, Revision
from raftkv.state_machine import LogEntry
from tests.kv.model import NaiveStore
from tests.kv.store import Store

Step = tuple[tuple[Command, Numbered | None], int, bool]
"""What is applied, the time since the step before, and whether the machine is restored from a snapshot after it."""

ANSWERS_MAX, SESSIONS_MAX = 3, 3
KEYS = [b"a", b"b", b"\x00\xff"]
IDS = [bytes([letter]) * 16 for letter in b"stuv"]

PASSED_MS = [0] * 20 + [1] * 5 + [500, 999, 1_000, 2_500, -700]

keys = st.sampled_from(KEYS)
ids = st.sampled_from(IDS)
expects = st.one_of(st.just(ANY), st.sampled_from([ABSENT, PRESENT]), st.integers(1, 6).map(Expect))
any_write = st.one_of(
    st.builds(Put, keys, st.sampled_from([b"", b"one", b"two"]), expects),
    st.builds(Delete, keys, expects),
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
        st.tuples(st.builds(Put, st.just(b"a"), st.just(b"one")), numbered),
        st.tuples(on_sessions, st.none()),
    ),
    st.sampled_from(PASSED_MS),
    st.sampled_from([False] * 5 + [True]),
)


def assert_same_state(store: Store, model: NaiveStore) -> None:
    assert {key: record for key in KEYS if (record := store.get(key))} == model.records
    assert store.machine.query(Revision()) == model.revision
    due_ms = min((session.last_seen_ms + session.ttl_ms for session in model.sessions.values()), default=None)
    assert store.machine.tick_due_ms() == due_ms


def tell(story: list[Step]) -> list[Answer]:
    """The story to both, compared at every step."""
    store, model = Store(), NaiveStore(ANSWERS_MAX, SESSIONS_MAX)
    told = []
    opening: list[Step] = [((OpenSession(id, 2_000), None), 0, False) for id in IDS[:2]]
    with mock.patch.multiple(sessions, ANSWERS_MAX=ANSWERS_MAX, SESSIONS_MAX=SESSIONS_MAX):
        for (command, numbering), passed_ms, restart in opening + story:
            stamp_ms = max(0, model.time_ms + passed_ms)
            answer = store.apply(command, numbering, at_ms=stamp_ms)
            expected = model.apply(command, numbering, index=store.index, stamp_ms=stamp_ms)
            assert (type(answer), answer) == (type(expected), expected)
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
    for _ in range(400):
        met.update(map(type, tell([random_step(rng) for _ in range(40)])))
    never = [kind.__name__ for kind in get_args(Answer) if kind not in (Malformed, TooLarge) and met[kind] < 20]
    assert not never, met


def random_step(rng: random.Random) -> Step:
    """The same stories as the strategies tell, without their cost."""
    id, key = rng.choice(IDS[:1] * 6 + IDS[1:]), rng.choice(KEYS)
    expect = rng.choice([ANY, ANY, PRESENT, ABSENT, Expect(rng.randint(1, 6))])
    writes: list[Command] = [Put(key, rng.choice([b"one", b"two"]), expect), Delete(key, expect), Put(b"a", b"one")]
    tending: list[Command] = [OpenSession(id, 2_000), OpenSession(id, 5_000), KeepAlive(id), CloseSession(id), Tick()]
    numbering = rng.choice([None, Numbered(id, rng.randint(1, 6), rng.choice([0, 0, 0, 1, 2, 5]))])
    told = (rng.choice(writes), numbering) if rng.random() < 0.75 else (rng.choice(tending), None)
    return told, rng.choice(PASSED_MS), rng.random() < 0.1


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
