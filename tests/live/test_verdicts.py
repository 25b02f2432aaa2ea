"""Each verdict is shown to catch what it is there for, on small stories told by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from raftkv.kv.commands import Delete, Put
from raftkv.kv.queries import Get
from raftkv.sim.checks.history import Absent, Deleted, Done, Operation, Refused, Request, Result, Seen
from tests.live import verdicts
from tests.live.client import Ask
from tests.live.cluster import Ending
from tests.live.faults import States
from tests.live.wire import Answer
from tests.live.workload import FirstAnswer, Tally

KEY = b"k"
FIRST, SECOND = Put(KEY, b"first"), Put(KEY, b"second")


def operation(request: Request, result: Result | None, began_at: float) -> Operation:
    return Operation("c", request, result, began_at, None if result is None else began_at + 1)


def there(value: bytes, revision: int, version: int = 1) -> Answer:
    return Answer(200, {"etag": f'"{revision}"', "raftkv-version": str(version)}, value)


GONE = Answer(404, {}, b"")
ONE = [operation(FIRST, Done(5), 0)]
TWO = [*ONE, operation(SECOND, Done(6), 10)]
LOST_ANSWER = [*ONE, operation(SECOND, None, 10)]
DELETED = [*ONE, operation(Delete(KEY), Deleted(1, 6), 10)]
PERHAPS_DELETED = [*ONE, operation(Delete(KEY), None, 10)]
REFUSED = [*ONE, operation(SECOND, Refused(5, 5), 10)]


@pytest.mark.parametrize(
    ("operations", "last"),
    [
        (ONE, GONE),
        (ONE, there(b"first", 4)),
        (ONE, there(b"other", 5)),
        (TWO, there(b"first", 5)),
        (TWO, there(b"first", 7)),
        (LOST_ANSWER, there(b"second", 4)),
        (DELETED, there(b"first", 5)),
        (REFUSED, there(b"second", 6)),
        ([operation(Get(KEY), Absent(), 0)], there(b"never put", 1)),
    ],
)
def test_an_acknowledged_write_that_is_gone_is_noticed(operations: list[Operation], last: Answer) -> None:
    assert verdicts.acknowledged_writes_stand(operations, {KEY: last}).complaints


@pytest.mark.parametrize(
    ("operations", "last"),
    [
        (ONE, there(b"first", 5)),
        (TWO, there(b"second", 6)),
        (LOST_ANSWER, there(b"first", 5)),
        (LOST_ANSWER, there(b"second", 9)),
        (DELETED, GONE),
        (PERHAPS_DELETED, GONE),
        (PERHAPS_DELETED, there(b"first", 5)),
        (REFUSED, there(b"first", 5)),
    ],
)
def test_what_may_be_there_is_taken(operations: list[Operation], last: Answer) -> None:
    assert not verdicts.acknowledged_writes_stand(operations, {KEY: last}).complaints


def test_a_key_that_nobody_tells_is_noticed() -> None:
    assert verdicts.acknowledged_writes_stand(ONE, {}).complaints


def test_a_stale_read_is_noticed() -> None:
    stale = operation(Get(KEY), Seen(b"first", 5), 20)
    assert verdicts.linearizable([*TWO, stale]).complaints
    assert not verdicts.linearizable([*TWO, replace(stale, invoked_at=9)]).complaints


@pytest.mark.parametrize(
    ("versions", "unknown_count", "executed", "is_sound"),
    [
        ([1, 2, 3], 0, 3, True),
        ([1, 3], 1, 3, True),
        ([1, 3], 2, 3, True),
        ([1, 2, 3], 0, 4, False),
        ([1, 2, 3], 0, 2, False),
        ([1, 3], 1, 4, False),
        ([1, 2, 2], 0, 3, False),
        ([], 0, 1, False),
    ],
)
def test_a_write_executed_twice_or_never_is_noticed(
    versions: list[int], unknown_count: int, executed: int, is_sound: bool
) -> None:
    tally = Tally(KEY, is_numbered=True, unknown_count=unknown_count, versions=versions)
    verdict = verdicts.executed_once([tally], {KEY: there(b"x", 9, executed)})
    assert not verdict.complaints if is_sound else verdict.complaints


@pytest.mark.parametrize("name", ["status", "body", "etag", "raftkv-applied-index"])
def test_a_repeat_with_another_answer_is_noticed(name: str) -> None:
    answer = Answer(201, {"etag": '"5"', "raftkv-applied-index": "8"}, b"{}")
    first = FirstAnswer(Ask("PUT", "/v1/kv/k"), answer)
    assert first.is_told_again_by(replace(answer, headers={**answer.headers, "raftkv-duplicate": "true"}))
    match name:
        case "status":
            other = replace(answer, status=200)
        case "body":
            other = replace(answer, body=b"{ }")
        case _:
            other = replace(answer, headers={**answer.headers, name: '"9"'})
    assert not first.is_told_again_by(other)


def test_states_that_differ_are_noticed_at_the_end_and_before() -> None:
    states = States()
    states.hear("n1", 7, "aa")
    states.hear("n2", 7, "aa")
    states.hear("n2", 8, "bb")
    assert not verdicts.nodes_agree({"n1": "bb", "n2": "bb"}, states.contradictions).complaints
    states.hear("n3", 7, "bb")
    assert verdicts.nodes_agree({"n1": "bb", "n2": "bb"}, states.contradictions).complaints
    assert verdicts.nodes_agree({"n1": "bb", "n2": "cc"}, []).complaints
    assert verdicts.nodes_agree({"n1": None, "n2": None}, []).complaints


@pytest.mark.parametrize(
    ("ending", "is_sound"),
    [
        (Ending("n1", 0, by_itself=False), True),
        (Ending("n1", -9, by_itself=False), True),
        (Ending("n1", 0, by_itself=True), False),
        (Ending("n1", 70, by_itself=False), False),
        (Ending("n1", -11, by_itself=True), False),
    ],
)
def test_an_end_that_nobody_asked_for_is_noticed(ending: Ending, is_sound: bool) -> None:
    verdict = verdicts.processes_sound([ending], [])
    assert not verdict.complaints if is_sound else verdict.complaints
    assert verdicts.processes_sound([], ["n1: 2026-01-01T00:00:00.000Z ERROR node=n1"]).complaints
