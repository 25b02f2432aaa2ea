"""Is there one order of all operations that explains every answer, and never turns back the clock?

Told: a history. Tells: that it is linearizable, or why it is not, or that the search gave up. May never know:
how the answers came about.

Linearizability is local (Herlihy and Wing, 1990), so each key is searched by itself; only the revisions are
the whole store's, and are compared across keys first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from raftkv.kv.queries import Get
from raftkv.sim.checks.history import Operation, Refused
from raftkv.sim.checks.register import described, seen_mod_revision, told_revision
from raftkv.sim.checks.search import Search

STEPS_MAX: Final = 200_000
"""States entered for one key before the search gives up: some seconds."""
_SHOWN_OPERATIONS: Final = 6


@dataclass(frozen=True, slots=True)
class Linearizable:
    """There is such an order."""

    steps: int
    """States that the search entered."""


@dataclass(frozen=True, slots=True)
class Violation:
    """There is no such order."""

    key: bytes
    operations: tuple[Operation, ...]
    """The shortest beginning of the key's history that cannot be explained (or the two that contradict each
    other); the answer that came last in it is the one that no order allows."""
    explanation: str
    """For people."""


@dataclass(frozen=True, slots=True)
class Undecided:
    """The search gave up. For whoever wants a proof this is a failure."""

    key: bytes
    why: str


Verdict = Linearizable | Violation | Undecided


def check(history: Sequence[Operation], *, steps_max: int = STEPS_MAX) -> Verdict:
    """The verdict on the whole history; a violation of one key outweighs another key's being undecided."""
    contradiction = _revision_contradiction(history)
    if contradiction is not None:
        return contradiction
    undecided: Undecided | None = None
    steps = 0
    for key, operations in sorted(_by_key(history).items()):
        search = Search(operations, steps_max)
        if search.finds_an_order():
            steps += search.steps
        elif search.gave_up:
            why = f"no order of {len(operations)} operations found and none ruled out within {steps_max} steps"
            undecided = undecided or Undecided(key, why)
        else:
            return _violation(key, operations, steps_max)
    return undecided or Linearizable(steps)


def _by_key(history: Sequence[Operation]) -> dict[bytes, list[Operation]]:
    """The operations of each key; reads that were never answered say nothing and are left out."""
    found: dict[bytes, list[Operation]] = {}
    for operation in history:
        if operation.result is not None or not isinstance(operation.request, Get):
            found.setdefault(operation.request.key, []).append(operation)
    return found


def _violation(key: bytes, operations: Sequence[Operation], steps_max: int) -> Violation:
    """The violation that shows first, and what stood in the way."""
    beginning, search = _shortest_violation(operations, steps_max)
    furthest = search.furthest
    lines = [f"no order of operations explains what clients of {key!r} were told"]
    lines.append(f"the longest order that works has {len(furthest.ordered)} operations and ends with")
    lines += [f"  {operation}" for operation in furthest.ordered[-_SHOWN_OPERATIONS:]]
    lines.append(f"then the key is {described(furthest.node.state)}, and of what must come next nothing fits:")
    lines += [f"  {operation}" for operation in search.next_answered(furthest.node)]
    return Violation(key, tuple(beginning), "\n".join(lines))


def _shortest_violation(operations: Sequence[Operation], steps_max: int) -> tuple[list[Operation], Search]:
    """What had happened by the return that made it a violation, and the search that failed.

    A beginning of a linearizable history is linearizable, so halving finds it.
    """
    returns = sorted(operation.returned_at for operation in operations if operation.returned_at is not None)
    fine, bad = -1, len(returns) - 1
    while bad - fine > 1:
        middle = (fine + bad) // 2
        search = Search(_until(operations, returns[middle]), steps_max)
        if search.finds_an_order() or search.gave_up:
            fine = middle
        else:
            bad = middle
    beginning = _until(operations, returns[bad])
    search = Search(beginning, steps_max)
    search.finds_an_order()
    return beginning, search


def _until(operations: Sequence[Operation], time: float) -> list[Operation]:
    """The history as it stood at this time: what had not returned by then was unknown."""
    found = []
    for operation in operations:
        if operation.invoked_at > time:
            continue
        if operation.returned_at is not None and operation.returned_at > time:
            if isinstance(operation.request, Get) or isinstance(operation.result, Refused):
                continue
            operation = replace(operation, result=None, returned_at=None)
        found.append(operation)
    return found


class _Witness(NamedTuple):
    """The highest revision that an answer has proved, and whose answer."""

    revision: int
    operation: Operation | None


_NOBODY: Final = _Witness(0, None)


def _revision_contradiction(history: Sequence[Operation]) -> Violation | None:
    """Two answers that disagree about revisions: most faults show here, and in the fewest words.

    No two writes make the same one, but for the parts of one request on its several keys. An answer tells of no
    older one than an answer before it did: the store's over all keys, a key's own over that key.
    """
    made: dict[int, Operation] = {}
    of_store = _NOBODY
    of_key: dict[bytes, _Witness] = {}
    before: dict[int, tuple[_Witness, _Witness]] = {}
    for _, is_return, place in _moments(history):
        operation = history[place]
        key = operation.request.key
        if not is_return:
            before[place] = of_store, of_key.get(key, _NOBODY)
            continue
        told, makes_one = told_revision(operation)
        seen = seen_mod_revision(operation)
        store_before, key_before = before.pop(place)
        if told is not None and store_before.operation and told < store_before.revision + makes_one:
            return _contradict(store_before.operation, operation, "the store's revision does not rise between them")
        if seen is not None and key_before.operation and seen < key_before.revision:
            return _contradict(key_before.operation, operation, "the key went back to an older revision")
        if told is not None and makes_one and told in made and not _share(made[told], operation):
            return _contradict(made[told], operation, f"both made revision {told}")
        if told is not None and makes_one:
            made[told] = operation
        of_this_key = max(seen or 0, (told or 0) if makes_one else 0)
        of_key[key] = max(of_key.get(key, _NOBODY), _Witness(of_this_key, operation), key=_revision_of)
        of_store = max(of_store, _Witness(max(told or 0, seen or 0), operation), key=_revision_of)
    return None


def _share(one: Operation, other: Operation) -> bool:
    """Whether one request wrote both keys, at its one revision."""
    return one.part_of is not None and one.part_of == other.part_of and one.request.key != other.request.key


def _revision_of(witness: _Witness) -> int:
    return witness.revision


def _moments(history: Sequence[Operation]) -> list[tuple[float, bool, int]]:
    """(time, whether it is a return, place) of all that was answered; at one time, invocations come first."""
    moments: list[tuple[float, bool, int]] = []
    for place, operation in enumerate(history):
        if operation.returned_at is not None:
            moments += [(operation.invoked_at, False, place), (operation.returned_at, True, place)]
    return sorted(moments)


def _contradict(first: Operation, second: Operation, why: str) -> Violation:
    return Violation(second.request.key, (first, second), f"{why}:\n  {first}\n  {second}")
