"""Histories for the checker's tests: true ones, spoilt ones, and an oracle that tries everything."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

from raftkv.kv.commands import ABSENT, ANY, PRESENT, Delete, Expect, Put
from raftkv.kv.queries import Get
from raftkv.sim.checks.history import Absent, Deleted, Done, Operation, Refused, Request, Result, Seen


@dataclass
class TrueStore:
    """Executes one request after the other, as a store of one node without faults would."""

    revision: int = 0

    def __post_init__(self) -> None:
        self.keys: dict[bytes, tuple[bytes, int]] = {}

    def execute(self, request: Request) -> Result:
        found = self.keys.get(request.key)
        if isinstance(request, Get):
            return Seen(*found) if found else Absent()
        mod_revision = found[1] if found else 0
        if not condition_holds(request.expect, mod_revision):
            return Refused(mod_revision, self.revision)
        if isinstance(request, Put):
            self.revision += 1
            self.keys[request.key] = (request.value, self.revision)
            return Done(self.revision)
        self.revision += found is not None
        self.keys.pop(request.key, None)
        return Deleted(int(found is not None), self.revision)


def condition_holds(expect: int, mod_revision: int) -> bool:
    return expect in (ANY, mod_revision) or (expect == PRESENT and mod_revision > 0)


def forget_revisions(result: Result | None) -> Result | None:
    """What a client knows that does not look at revisions."""
    match result:
        case Seen(value, _):
            return Seen(value)
        case Done(_):
            return Done()
        case Deleted(count, _):
            return Deleted(count)
        case Refused(mod_revision, _):
            return Refused(mod_revision)
    return result


def random_request(rng: random.Random, keys: Sequence[bytes], value: bytes, revision: int) -> Request:
    key, kind = rng.choice(keys), rng.random()
    expect = rng.choice([ANY, ANY, ANY, PRESENT, ABSENT, Expect(max(1, revision - rng.randint(0, 2)))])
    if kind < 0.45:
        return Get(key)
    return Put(key, value, expect) if kind < 0.85 else Delete(key, expect)


def true_history(
    rng: random.Random,
    *,
    clients: int,
    operations: int,
    keys: Sequence[bytes],
    unknown_share: float = 0.0,
    values: Sequence[bytes] | None = None,
) -> list[Operation]:
    """A history that is linearizable because it was: each request takes effect at a moment within its interval.

    Of the unknown ones half take effect, some long after their client went on to other things.
    """
    store, time, history = TrueStore(), 0.0, []
    waiting: list[tuple[float, int, str, Request, float, float | None]] = []
    free_at = {f"c{number}": 0.0 for number in range(clients)}
    number = 0
    while number < operations or waiting:
        client, time = min(free_at.items(), key=lambda entry: entry[1])
        if number < operations and (not waiting or time <= waiting[0][0]):
            value = rng.choice(values) if values else b"%d" % number
            request = random_request(rng, keys, value, store.revision)
            duration, number = rng.expovariate(1.0) + 0.01, number + 1
            is_unknown = rng.random() < unknown_share
            effect_at = time + (duration * rng.random() if not is_unknown else rng.expovariate(0.2))
            returned_at = None if is_unknown else time + duration
            waiting.append((effect_at, number, client, request, time, returned_at))
            waiting.sort(key=lambda entry: entry[:2])
            free_at[client] = time + duration + rng.expovariate(5.0) + 0.001
            continue
        _, _, client, request, invoked_at, returned_at = waiting.pop(0)
        if returned_at is None:
            if rng.random() < 0.5:
                store.execute(request)
            history.append(Operation(client, request, None, invoked_at, None))
        else:
            history.append(Operation(client, request, store.execute(request), invoked_at, returned_at))
    return sorted(history, key=lambda operation: operation.invoked_at)


def spoilt(rng: random.Random, history: list[Operation]) -> list[Operation]:
    """The history with one answer replaced by another's of the same sort, or shifted, or forgotten."""
    place = rng.randrange(len(history))
    chosen = history[place]
    alike = [other.result for other in history if type(other.request) is type(chosen.request) and other.result]
    match rng.randrange(3):
        case 0 if chosen.result and alike:
            chosen = replace(chosen, result=rng.choice(alike))
        case 1 if chosen.returned_at is not None:
            later = rng.choice([0.3, 1.0, 3.0])
            chosen = replace(chosen, invoked_at=chosen.invoked_at + later, returned_at=chosen.returned_at + later)
        case _:
            return history[:place] + history[place + 1 :]
    return [*history[:place], chosen, *history[place + 1 :]]


def oracle_says_linearizable(history: Sequence[Operation]) -> bool:
    """By trying every order of every key, and every revision for what nobody was told; for small histories."""
    by_key: dict[bytes, list[Operation]] = {}
    for operation in history:
        by_key.setdefault(operation.request.key, []).append(operation)
    return all(_some_order(operations) for operations in by_key.values())


def _some_order(operations: Sequence[Operation]) -> bool:
    @cache
    def some_order_of(left: frozenset[int], held: tuple[bytes, int] | None, revision: int) -> bool:
        if all(operations[place].returned_at is None for place in left):
            return True
        for place in left:
            operation, rest = operations[place], left - {place}
            returns = [operations[other].returned_at for other in rest]
            if any(returned_at is not None and returned_at < operation.invoked_at for returned_at in returns):
                continue
            if any(some_order_of(rest, *state) for state in _states_after(operation, held, revision)):
                return True
        return False

    return some_order_of(frozenset(range(len(operations))), None, 0)


REVISIONS_TRIED = 8
"""How far beyond the present one a revision that nobody was told is looked for: no small history has more."""


def _states_after(
    operation: Operation, held: tuple[bytes, int] | None, revision: int
) -> list[tuple[tuple[bytes, int] | None, int]]:
    """(what the key holds, the store's revision) for all that other keys' writes may have done before."""
    found = []
    for earlier in range(revision, revision + REVISIONS_TRIED):
        store = TrueStore(earlier)
        if held is not None:
            store.keys[operation.request.key] = held
        truth = store.execute(operation.request)
        told = operation.result
        if told is None and isinstance(truth, Done | Deleted):
            told = truth
        if told in (truth, forget_revisions(truth)) or (isinstance(told, Refused) and told == _half_forgotten(truth)):
            found.append((store.keys.get(operation.request.key), store.revision))
    return found


def _half_forgotten(truth: Result) -> Result | None:
    return Refused(truth.mod_revision) if isinstance(truth, Refused) else None
