"""The linearizability checker: it accepts what could have been, refuses what could not, and says why."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from raftkv.kv.commands import ABSENT, PRESENT, Delete, Expect, Put
from raftkv.kv.queries import Get
from raftkv.sim.checks.history import Absent, Deleted, Done, Operation, Refused, Request, Result, Seen
from raftkv.sim.checks.linearizability import Linearizable, Undecided, Violation, check
from raftkv.sim.checks.register import State, after
from tests.sim.histories import forget_revisions, oracle_says_linearizable, spoilt, true_history

K, L = b"k", b"l"


def told(client: str, request: Request, result: Result, invoked_at: float, returned_at: float) -> Operation:
    return Operation(client, request, result, invoked_at, returned_at)


def unknown(client: str, request: Request, invoked_at: float) -> Operation:
    return Operation(client, request, None, invoked_at, None)


FINE: dict[str, list[Operation]] = {
    "nothing at all": [],
    "a read of nothing": [told("a", Get(K), Absent(), 0, 1)],
    "one client": [
        told("a", Put(K, b"1"), Done(1), 0, 1),
        told("a", Get(K), Seen(b"1", 1), 2, 3),
        told("a", Delete(K), Deleted(1, 2), 4, 5),
        told("a", Get(K), Absent(), 6, 7),
        told("a", Delete(K), Deleted(0, 2), 8, 9),
    ],
    "a read beside a write sees it or not": [
        told("a", Put(K, b"1"), Done(1), 0, 9),
        told("b", Get(K), Absent(), 1, 2),
        told("c", Get(K), Seen(b"1", 1), 3, 4),
    ],
    "answers that touch are beside each other": [
        told("a", Put(K, b"1"), Done(1), 0, 1),
        told("b", Get(K), Absent(), 1, 2),
    ],
    "a write without an answer is seen late": [
        unknown("a", Put(K, b"1"), 0),
        told("b", Get(K), Absent(), 10, 11),
        told("b", Put(K, b"2"), Done(5), 12, 13),
        told("b", Get(K), Seen(b"1", 7), 14, 15),
    ],
    "a write without an answer never happens": [
        unknown("a", Put(K, b"1"), 0),
        told("b", Get(K), Absent(), 10, 11),
    ],
    "one lost answer explains the next": [
        unknown("a", Put(K, b"1"), 0),
        unknown("a", Put(K, b"2", PRESENT), 1),
        told("b", Get(K), Seen(b"2", 2), 2, 3),
    ],
    "a lost deletion": [
        told("a", Put(K, b"1"), Done(1), 0, 1),
        unknown("a", Delete(K), 2),
        told("b", Get(K), Seen(b"1", 1), 3, 4),
        told("b", Get(K), Absent(), 5, 6),
        told("b", Put(K, b"2", ABSENT), Done(3), 7, 8),
    ],
    "conditions that held and conditions that did not": [
        told("a", Put(K, b"1", ABSENT), Done(1), 0, 1),
        told("a", Put(K, b"2", Expect(1)), Done(2), 2, 3),
        told("b", Put(K, b"3", Expect(1)), Refused(2, 2), 4, 5),
        told("b", Put(K, b"3", ABSENT), Refused(2, 2), 6, 7),
        told("b", Delete(K, Expect(2)), Deleted(1, 3), 8, 9),
        told("b", Delete(K, PRESENT), Refused(0, 3), 10, 11),
    ],
    "of two that expect the same one wins": [
        told("a", Put(K, b"0"), Done(1), 0, 1),
        told("a", Put(K, b"a", Expect(1)), Refused(2, 2), 2, 9),
        told("b", Put(K, b"b", Expect(1)), Done(2), 3, 8),
    ],
    "a refusal shows what a lost answer made": [
        unknown("a", Put(K, b"1"), 0),
        told("b", Put(K, b"2", ABSENT), Refused(4, 6), 1, 2),
        told("b", Get(K), Seen(b"1", 4), 3, 4),
    ],
    "two lost answers seen the other way round": [
        unknown("a", Put(K, b"1"), 0),
        unknown("a", Put(K, b"2"), 1),
        told("b", Get(K), Seen(b"1", 2), 2, 9),
        told("c", Get(K), Seen(b"2", 1), 3, 8),
    ],
    "a refusal could mean the write before, but a read says otherwise": [
        told("a", Put(K, b"1"), Done(), 0, 1),
        unknown("a", Put(K, b"2"), 2),
        told("b", Put(K, b"3", ABSENT), Refused(5), 3, 4),
        told("b", Get(K), Seen(b"2", 5), 5, 6),
    ],
    "other keys raise the revision": [
        told("a", Put(K, b"1"), Done(1), 0, 1),
        told("a", Put(L, b"1"), Done(2), 2, 3),
        told("a", Put(K, b"2"), Done(3), 4, 5),
        told("b", Get(L), Seen(b"1", 2), 6, 7),
    ],
}

BAD: dict[str, tuple[list[Operation], str]] = {
    "stale read": (
        [
            told("a", Put(K, b"1"), Done(1), 0, 1),
            told("a", Put(K, b"2"), Done(2), 2, 3),
            told("b", Get(K), Seen(b"1", 1), 4, 5),
        ],
        "the key went back to an older revision",
    ),
    "stale read, nobody looked at revisions": (
        [
            told("a", Put(K, b"1"), Done(), 0, 1),
            told("a", Put(K, b"2"), Done(), 2, 3),
            told("b", Get(K), Seen(b"1"), 4, 5),
        ],
        "and of what must come next nothing fits:\n  [4 … 5] b: get b'k' → b'1'",
    ),
    "a value flickers": (
        [
            told("a", Put(K, b"1"), Done(), 0, 9),
            told("b", Get(K), Seen(b"1"), 1, 2),
            told("b", Get(K), Absent(), 3, 4),
        ],
        "  [3 … 4] b: get b'k' → absent",
    ),
    "lost write": (
        [told("a", Put(K, b"1"), Done(1), 0, 1), told("b", Get(K), Absent(), 2, 3)],
        "then the key is b'1' at revision 1, and of what must come next nothing fits:\n  [2 … 3] b: get b'k' → absent",
    ),
    "lost update: both of two that expect the same win": (
        [
            told("a", Put(K, b"0"), Done(1), 0, 1),
            told("a", Put(K, b"a", Expect(1)), Done(2), 2, 9),
            told("b", Put(K, b"b", Expect(1)), Done(3), 3, 8),
        ],
        "no order of operations explains",
    ),
    "double execution": (
        [
            told("a", Put(K, b"1"), Done(1), 0, 1),
            told("b", Put(K, b"2"), Done(2), 2, 3),
            told("b", Get(K), Seen(b"1", 3), 4, 5),
        ],
        "  [4 … 5] b: get b'k' → b'1' at revision 3",
    ),
    "double execution in place": (
        [told("a", Put(K, b"1"), Done(1), 0, 1), told("b", Get(K), Seen(b"1", 2), 2, 3)],
        "then the key is b'1' at revision 1",
    ),
    "one lost answer takes effect twice": (
        [
            unknown("a", Put(K, b"1"), 0),
            told("b", Get(K), Seen(b"1", 1), 1, 2),
            told("b", Put(K, b"2"), Done(2), 3, 4),
            told("b", Get(K), Seen(b"1", 3), 5, 6),
        ],
        "  [5 … 6] b: get b'k' → b'1' at revision 3",
    ),
    "a value that nobody wrote": (
        [told("a", Put(K, b"1"), Done(1), 0, 9), told("b", Get(K), Seen(b"2", 1), 1, 2)],
        "b: get b'k' → b'2' at revision 1",
    ),
    "a value before it was written": (
        [told("b", Get(K), Seen(b"1", 1), 0, 1), told("a", Put(K, b"1"), Done(1), 2, 3)],
        "b: get b'k' → b'1' at revision 1",
    ),
    "a value before its lost write was asked": (
        [told("b", Get(K), Seen(b"1"), 0, 1), unknown("a", Put(K, b"1"), 2)],
        "b: get b'k' → b'1'",
    ),
    "split brain: one revision made twice": (
        [told("a", Put(K, b"1"), Done(1), 0, 9), told("b", Put(L, b"2"), Done(1), 1, 8)],
        "both made revision 1",
    ),
    "split brain: two leaders, each with its readers": (
        [
            told("a", Put(K, b"1"), Done(), 0, 1),
            told("b", Put(K, b"2"), Done(), 0, 1),
            told("a", Get(K), Seen(b"1"), 2, 9),
            told("b", Get(K), Seen(b"2"), 2, 9),
        ],
        "no order of operations explains",
    ),
    "revisions that run against time": (
        [told("a", Put(K, b"1"), Done(7), 0, 1), told("b", Put(L, b"2"), Done(6), 2, 3)],
        "the store's revision does not rise between them",
    ),
    "a refusal of what should have been done": (
        [told("a", Put(K, b"1"), Done(1), 0, 1), told("b", Put(K, b"2", Expect(1)), Refused(1, 1), 2, 3)],
        "b: put b'k' = b'2' if at revision 1 → refused, the key was at revision 1",
    ),
    "a refusal without a condition": (
        [told("a", Put(K, b"1"), Refused(0, 0), 0, 1)],
        "refused, the key was absent",
    ),
    "two deletions of one value": (
        [
            told("a", Put(K, b"1"), Done(1), 0, 1),
            told("a", Delete(K), Deleted(1, 2), 2, 9),
            told("b", Delete(K), Deleted(1, 3), 2, 9),
        ],
        "no order of operations explains",
    ),
    "a refusal out of the past": (
        [
            told("a", Put(K, b"1"), Done(1), 0, 1),
            told("a", Put(K, b"2"), Done(2), 2, 3),
            told("b", Put(K, b"3", ABSENT), Refused(1), 4, 5),
        ],
        "the key went back to an older revision",
    ),
}


@pytest.mark.parametrize("history", FINE.values(), ids=FINE.keys())
def test_what_could_have_been_is_linearizable(history):
    assert isinstance(check(history), Linearizable)
    assert oracle_says_linearizable(history)


@pytest.mark.parametrize(("history", "why"), BAD.values(), ids=BAD.keys())
def test_what_could_not_have_been_is_a_violation(history, why):
    verdict = check(history)
    assert isinstance(verdict, Violation)
    assert why in verdict.explanation


@pytest.mark.parametrize("history", BAD.values(), ids=BAD.keys())
def test_the_order_in_which_operations_are_listed_does_not_matter(history):
    assert type(check(history[0][::-1])) is Violation


def test_a_violation_is_told_by_its_shortest_beginning():
    rng = random.Random(5)
    history = [replace(one, result=forget_revisions(one.result)) for one in true_history_of_one_key(rng, 300)]
    end = max(one.returned_at or 0 for one in history)
    stale = told("reader", Get(K), Seen(b"never written"), end / 2, end / 2)
    verdict = check([*history, stale])
    assert isinstance(verdict, Violation)
    assert stale in verdict.operations
    assert not [one for one in verdict.operations if one.returned_at is not None and one.returned_at > end / 2]
    assert verdict.key == K
    assert len(verdict.explanation.splitlines()) < 20


def true_history_of_one_key(rng: random.Random, operations: int) -> list[Operation]:
    return true_history(rng, clients=4, operations=operations, keys=[K])


def test_a_violation_of_one_key_outweighs_that_another_is_undecided():
    hard = [told(f"c{number}", Put(b"a", b"%d" % number), Done(), 0, 9) for number in range(12)]
    hard.append(told("r", Get(b"a"), Seen(b"none of these"), 10, 11))
    undecided = check(hard, steps_max=100)
    assert undecided == Undecided(b"a", "no order of 13 operations found and none ruled out within 100 steps")
    stale = [told("x", Get(K), Seen(b"1"), 0, 1)]
    assert isinstance(check(hard + stale, steps_max=100), Violation)


def test_an_outcome_is_known_exactly_from_when_it_returned():
    with pytest.raises(AssertionError):
        Operation("a", Get(K), None, 0, 1)
    with pytest.raises(AssertionError):
        Operation("a", Get(K), Absent(), 0, None)
    with pytest.raises(AssertionError):
        Operation("a", Get(K), Absent(), 1, 0)


SEEN = State(b"1", 5, 7)
UNSEEN = State(b"1", None, 5)
GONE = State(None, 0, 5)
AFTER: list[tuple[State, Request, Result | None, State | None]] = [
    (SEEN, Get(K), Seen(b"1", 5), SEEN),
    (SEEN, Get(K), Seen(b"1"), SEEN),
    (SEEN, Get(K), Seen(b"1", 4), None),
    (SEEN, Get(K), Seen(b"2", 5), None),
    (SEEN, Get(K), Absent(), None),
    (UNSEEN, Get(K), Seen(b"1"), UNSEEN),
    (UNSEEN, Get(K), Seen(b"1", 9), State(b"1", 9, 9)),
    (UNSEEN, Get(K), Seen(b"1", 4), None),
    (GONE, Get(K), Absent(), GONE),
    (GONE, Get(K), Seen(b"1"), None),
    (SEEN, Put(K, b"2"), Done(8), State(b"2", 8, 8)),
    (SEEN, Put(K, b"2"), Done(7), None),
    (SEEN, Put(K, b"2"), None, State(b"2", None, 8)),
    (SEEN, Put(K, b"2", Expect(5)), Done(), State(b"2", None, 8)),
    (SEEN, Put(K, b"2", Expect(4)), Done(), None),
    (UNSEEN, Put(K, b"2", Expect(5)), Done(6), State(b"2", 6, 6)),
    (UNSEEN, Put(K, b"2", Expect(4)), Done(6), None),
    (UNSEEN, Put(K, b"2", Expect(6)), Done(6), None),
    (GONE, Put(K, b"2", PRESENT), None, None),
    (SEEN, Put(K, b"2", ABSENT), Done(8), None),
    (SEEN, Put(K, b"2", ABSENT), Refused(5, 8), State(b"1", 5, 8)),
    (SEEN, Put(K, b"2", ABSENT), Refused(5, 6), None),
    (SEEN, Put(K, b"2", ABSENT), Refused(4, 8), None),
    (SEEN, Put(K, b"2", Expect(5)), Refused(5, 8), None),
    (SEEN, Put(K, b"2", PRESENT), Refused(5, 8), None),
    (UNSEEN, Put(K, b"2", ABSENT), Refused(6, 8), State(b"1", 6, 8)),
    (GONE, Put(K, b"2", PRESENT), Refused(0, 5), GONE),
    (GONE, Put(K, b"2", ABSENT), Refused(0, 5), None),
    (SEEN, Delete(K), Deleted(1, 8), State(None, 0, 8)),
    (SEEN, Delete(K), Deleted(1, 7), None),
    (SEEN, Delete(K), Deleted(0, 8), None),
    (SEEN, Delete(K), None, State(None, 0, 8)),
    (GONE, Delete(K), Deleted(0, 6), State(None, 0, 6)),
    (GONE, Delete(K), Deleted(0, 4), None),
    (GONE, Delete(K), Deleted(1, 6), None),
    (GONE, Delete(K), None, None),
]


@pytest.mark.parametrize(("state", "request_", "result", "expected"), AFTER)
def test_what_one_key_allows(state, request_, result, expected):
    returned_at = None if result is None else 1.0
    assert after(Operation("a", request_, result, 0, returned_at), state) == expected


def small_history(rng: random.Random, spoilings: int) -> list[Operation]:
    """At most seven operations on one key; some clients look at revisions, some do not, some hear nothing."""
    history = true_history(
        rng,
        clients=rng.randint(1, 4),
        operations=rng.randint(2, 7),
        keys=[K],
        unknown_share=rng.choice([0, 0, 0.2, 0.4]),
        values=rng.choice([None, [b"x", b"y"]]),
    )
    forgetful = rng.choice([0.0, 0.3, 1.0])
    history = [replace(one, result=_maybe_forgotten(rng, one.result, forgetful)) for one in history]
    for _ in range(spoilings):
        history = spoilt(rng, history) if len(history) > 1 else history
    return history


def _maybe_forgotten(rng: random.Random, result: Result | None, share: float) -> Result | None:
    return forget_revisions(result) if rng.random() < share else result


@settings(deadline=None, max_examples=1_000)
@given(st.integers(0, 2**32), st.integers(0, 3))
def test_the_checker_agrees_with_trying_everything(seed, spoilings):
    history = small_history(random.Random(seed), spoilings)
    truth = oracle_says_linearizable(history)
    event("linearizable" if truth else "violation")
    assert isinstance(check(history), Linearizable if truth else Violation), "\n".join(map(str, history))


def test_the_oracle_gives_both_verdicts_often():
    """And so does the checker: the comparison is not one of accepting everything."""
    verdicts = []
    for seed in range(1_500):
        history = small_history(random.Random(seed), spoilings=seed % 6)
        verdicts.append(oracle_says_linearizable(history))
        assert isinstance(check(history), Linearizable) == verdicts[-1]
    assert verdicts.count(True) > 100
    assert verdicts.count(False) > 50


@pytest.mark.parametrize("unknown_share", [0.0, 0.02])
@pytest.mark.parametrize("looks_at_revisions", [True, False])
def test_a_long_true_history_is_decided_with_few_detours(unknown_share, looks_at_revisions):
    """Counted in states entered, not in seconds: hardly more than there are operations."""
    keys = [b"%d" % number for number in range(10)]
    history = true_history(random.Random(1), clients=8, operations=10_000, keys=keys, unknown_share=unknown_share)
    if not looks_at_revisions:
        history = [replace(one, result=forget_revisions(one.result)) for one in history]
    verdict = check(history)
    assert isinstance(verdict, Linearizable)
    assert verdict.steps < 2 * len(history)


@pytest.mark.parametrize("unknown_share", [0.0, 0.02])
def test_a_single_stale_read_in_a_long_history_is_found(unknown_share):
    rng = random.Random(2)
    history = true_history(rng, clients=8, operations=10_000, keys=[K, L], unknown_share=unknown_share)
    reads = [place for place, one in enumerate(history) if one.request == Get(K) and isinstance(one.result, Seen)]
    early, late = history[reads[len(reads) // 2]], reads[len(reads) // 2 + 40]
    assert early.result != history[late].result
    history[late] = replace(history[late], result=early.result)
    verdict = check(history)
    assert isinstance(verdict, Violation)
    assert len(verdict.operations) == 2 and history[late] in verdict.operations
