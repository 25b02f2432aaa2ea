"""Ranges, range deletes and transactions in whole runs: what somebody could do wrongly with them is found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from raftkv.kv import transactions
from raftkv.kv.answers import PutResult, Repeated, TxnDone
from raftkv.kv.commands import Put, ReadKey, Txn
from raftkv.kv.machine import KeyValueMachine
from raftkv.kv.ranges import right_after
from raftkv.kv.sessions import Sessions
from raftkv.kv.table import Table
from raftkv.sim.checks.invariants import Violated
from raftkv.sim.checks.oracle import Oracle, _State
from raftkv.sim.runs.failed import RunFailed
from raftkv.sim.runs.whole import run

RUNS_MAX = 20

Plant = Callable[[pytest.MonkeyPatch], None]
PLANTED: dict[str, Plant] = {}


def plant(act: Plant) -> Plant:
    PLANTED[act.__name__] = act
    return act


def _operations(patch: pytest.MonkeyPatch, broken: Callable[..., Any]) -> None:
    """``broken`` executes an operation of a transaction; it is given the original."""
    original = transactions._Execution.result
    patch.setattr(transactions._Execution, "result", lambda self, operation: broken(original, self, operation))


@plant
def half_a_transaction(patch: pytest.MonkeyPatch) -> None:
    """Of its puts only the first is done; all are answered."""

    def result(original, self, operation):
        if not (isinstance(operation, Put) and self.has_changed):
            return original(self, operation)
        found = self._table.get(operation.key)
        return PutResult(self.revision, 1 if found is None else found.version + 1)

    _operations(patch, result)


@plant
def a_revision_for_each_put(patch: pytest.MonkeyPatch) -> None:
    def result(original, self, operation):
        self.revision += self.has_changed and isinstance(operation, Put)
        return original(self, operation)

    _operations(patch, result)


@plant
def reads_the_state_before_the_transaction(patch: pytest.MonkeyPatch) -> None:
    def execute(table, txn):
        before.clear()
        before.update({key: table.get(key) for key in table._order})
        return original(table, txn)

    def result(original, self, operation):
        answer = original(self, operation)
        return answer._replace(record=before.get(operation.key)) if isinstance(operation, ReadKey) else answer

    before: dict[bytes, Any] = {}
    original = transactions.execute
    patch.setattr(transactions, "execute", execute)
    _operations(patch, result)


@plant
def executes_a_branch_backwards(patch: pytest.MonkeyPatch) -> None:
    def execute(table, txn):
        answer = original(table, Txn(txn.compares, txn.success[::-1], txn.failure[::-1]))
        return answer._replace(results=answer.results[::-1]) if isinstance(answer, TxnDone) else answer

    original = transactions.execute
    patch.setattr(transactions, "execute", execute)


@plant
def one_compare_that_holds_is_enough(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(transactions, "all", any, raising=False)


@plant
def an_absent_key_is_equal_to_anything(patch: pytest.MonkeyPatch) -> None:
    original = transactions._holds
    patch.setattr(
        transactions, "_holds", lambda table, compare: table.packed(compare.key) is None or original(table, compare)
    )


@plant
def executes_a_transaction_again(patch: pytest.MonkeyPatch) -> None:
    """faults 46: its number is forgotten as soon as somebody asks."""

    def judge(self, numbered, request_hash, now_ms):
        found = original(self, numbered, request_hash, now_ms)
        if isinstance(found, Repeated) and isinstance(found.answer, TxnDone):
            self._drop(self._sessions[numbered.session], numbered.sequence)
            return None
        return found

    original = Sessions.judge
    patch.setattr(Sessions, "judge", judge)


def _selects(patch: pytest.MonkeyPatch, bent: Callable[..., tuple[Any, dict[str, Any]]]) -> None:
    """``bent`` changes what is asked of the table."""

    def select(self, bounds, **asked):
        bounds, asked = bent(bounds, **asked)
        return original(self, bounds, **asked)

    original = Table.select
    patch.setattr(Table, "select", select)


@plant
def the_end_of_a_range_is_in_it(patch: pytest.MonkeyPatch) -> None:
    _selects(patch, lambda bounds, **asked: (bounds._replace(end=bounds.end and right_after(bounds.end)), asked))


@plant
def the_start_of_a_range_is_not_in_it(patch: pytest.MonkeyPatch) -> None:
    _selects(patch, lambda bounds, **asked: (bounds._replace(start=right_after(bounds.start)), asked))


@plant
def a_range_has_one_key_too_many(patch: pytest.MonkeyPatch) -> None:
    _selects(patch, lambda bounds, keys_max, **asked: (bounds, {"keys_max": keys_max + 1, **asked}))


@plant
def a_range_is_never_reversed(patch: pytest.MonkeyPatch) -> None:
    _selects(patch, lambda bounds, reverse=False, **asked: (bounds, asked))


@plant
def a_page_is_kept_for_the_next_who_asks(patch: pytest.MonkeyPatch) -> None:
    def page(self, query):
        if query.keys_only or query.reverse or query.limit > 10_000:
            return original(self, query)
        return kept.setdefault((query.start, query.end, query.limit), original(self, query))

    kept: dict[Any, Any] = {}
    original = KeyValueMachine._page
    patch.setattr(KeyValueMachine, "_page", page)


@plant
def one_replica_executes_differently(patch: pytest.MonkeyPatch) -> None:
    """By something that is its own: where its table lies, a hash seed, a clock."""

    def result(original, self, operation):
        tables.setdefault(id(self._table), self._table)
        if isinstance(operation, Put) and next(iter(tables)) == id(self._table):
            operation = Put(operation.key, operation.value + b"!")
        return original(self, operation)

    tables: dict[int, Table] = {}
    _operations(patch, result)


def found_in_runs() -> RunFailed | None:
    for seed in range(RUNS_MAX):
        try:
            run(seed)
        except RunFailed as failure:
            return failure
    return None


@pytest.mark.parametrize("name", sorted(PLANTED))
def test_runs_find(name, monkeypatch):
    PLANTED[name](monkeypatch)
    failure = found_in_runs()
    assert failure is not None
    assert isinstance(failure.cause, Violated), failure


WITHOUT_THE_LOG = [
    "a_page_is_kept_for_the_next_who_asks",
    "a_range_has_one_key_too_many",
    "a_revision_for_each_put",
    "an_absent_key_is_equal_to_anything",
    "half_a_transaction",
    "one_compare_that_holds_is_enough",
]


@pytest.mark.parametrize("name", WITHOUT_THE_LOG)
def test_what_clients_were_told_is_enough_to_find(name, monkeypatch):
    """The oracle is silent, and only follows the log: the parts of requests mean something to the checker."""

    def follow(self, index, command, answer):
        self._specification.write(command)
        self._changed_at.append(index)
        self._states.append(_State(self._specification.records, self._specification.revision))

    def say_nothing(*_, **__):
        pass

    for silenced in ("table_is", "read_answered"):
        monkeypatch.setattr(Oracle, silenced, say_nothing)
    monkeypatch.setattr(Oracle, "_specified", follow)
    PLANTED[name](monkeypatch)
    failure = found_in_runs()
    assert failure is not None
    assert isinstance(failure.cause, Violated) and failure.cause.name == "linearizability", failure
