"""One key's search for an order of its operations that explains every answer.

Told: the operations on one key. Tells: whether there is such an order, and how far the search came. May never
know: other keys, people.

Wing and Gong's search with Lowe's memory ("Testing for Linearizability", 2017): of the operations that may
come next, because nothing still to be ordered returned before they were invoked, try each; never enter the
same (ordered operations, state) twice. What keeps it short:

- An operation that the state allows and that leaves it as it is can be ordered at once: whatever follows
  could follow all the same.
- Answers that tell the store's revision stand in its order, whatever else is between them.
- An operation without an answer needs a place only right before one that sees its effect, and that the state
  without it would not explain; elsewhere it can be taken out of any order that works, or put later. Of those
  that nobody can tell apart, one is tried.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Final, NamedTuple

from raftkv.kv.commands import Put
from raftkv.kv.queries import Get
from raftkv.sim.checks.history import Operation, Seen
from raftkv.sim.checks.register import (
    INITIAL,
    State,
    after,
    comes_too_late,
    is_blind,
    leaves,
    named_mod_revision,
    told_revision,
    wanted,
)


class Node(NamedTuple):
    """Where a search stands. Equal nodes have the same future."""

    first: int
    """All answered operations before this one are in order …"""
    mask: int
    """… and of those from it on, the ones whose bit is set."""
    told_count: int
    """How many of them were told the store's revision."""
    unanswered_mask: int
    """The operations without an answer that took effect."""
    state: State
    is_awaited: bool
    """The newest was one without an answer: the next must see its effect."""


class _Child(NamedTuple):
    node: Node
    operation: Operation


@dataclass(slots=True)
class _Frame:
    children: Iterator[_Child]
    node: Node
    via: Operation | None
    """What led here; None: nothing yet."""


_ROOT: Final = Node(0, 0, 0, 0, INITIAL, is_awaited=False)
_MADE: Final = 0
_FOUND: Final = 1


@dataclass(slots=True)
class Furthest:
    """The longest order from which the search had to turn back."""

    ordered: list[Operation] = field(default_factory=list)
    node: Node = _ROOT


class Search:
    """To be asked once, ``finds_an_order()``; then it tells about itself."""

    def __init__(self, operations: Sequence[Operation], steps_max: int) -> None:
        by_time = sorted(operations, key=lambda operation: operation.invoked_at)
        self.steps = 0
        self.gave_up = False
        self.furthest = Furthest()
        self._steps_max = steps_max
        self._answered = [operation for operation in by_time if operation.returned_at is not None]
        self._unanswered = [operation for operation in by_time if operation.returned_at is None]
        self._unanswered_invoked_at = [operation.invoked_at for operation in self._unanswered]
        self._told = [_told_order(operation) for operation in self._answered]
        self._told_in_order = sorted(order for order in self._told if order is not None)
        self._seen_at = {seen.mod_revision: seen.value for seen in _seen(self._answered) if seen.mod_revision}
        self._kinds = _kinds(self._unanswered, {seen.value for seen in _seen(self._answered)})
        self._made = {revision for revision, kind in self._told_in_order if kind == _MADE}

    def finds_an_order(self) -> bool:
        """Whether there is one; after False, ``gave_up`` tells whether there may be one all the same."""
        if not self._answered:
            return True
        entered = {_ROOT}
        path = [_Frame(self._children(_ROOT), _ROOT, None)]
        while path:
            child = next(path[-1].children, None)
            if child is None:
                self._remember_furthest(path)
                path.pop()
                continue
            node = child.node
            if node in entered:
                continue
            entered.add(node)
            self.steps += 1
            if node.first == len(self._answered):
                return True
            if self.steps >= self._steps_max:
                self.gave_up = True
                return False
            path.append(_Frame(self._children(node), node, child.operation))
        return False

    def next_answered(self, node: Node) -> list[Operation]:
        """The answered operations of which one must come next."""
        return [self._answered[place] for place in self._next_places(node)[0]]

    def _next_places(self, node: Node) -> tuple[list[int], float]:
        """Where they are, and the first return among all that is not ordered yet."""
        first_return = inf
        found: list[int] = []
        for place in range(node.first, len(self._answered)):
            operation = self._answered[place]
            if operation.invoked_at > first_return:
                break
            if node.mask >> (place - node.first) & 1:
                continue
            assert operation.returned_at is not None, "answered"
            first_return = min(first_return, operation.returned_at)
            found.append(place)
        return found, first_return

    def _children(self, node: Node) -> Iterator[_Child]:
        places, first_return = self._next_places(node)
        if any(comes_too_late(self._answered[place], node.state) for place in places):
            return
        possible: list[_Child] = []
        for place in places:
            following = self._after(node, place)
            if following is None:
                continue
            child = _Child(self._ordered(node, place, following), self._answered[place])
            if _changes_nothing(node.state, following):
                yield child
                return
            possible.append(child)
        yield from possible
        yield from self._unanswered_children(node, places, first_return)

    def _after(self, node: Node, place: int) -> State | None:
        """The state after the answered operation at this place, if it may be next."""
        operation, order = self._answered[place], self._told[place]
        if order is not None and order != self._told_in_order[node.told_count]:
            return None
        if node.is_awaited and is_blind(operation):
            return None
        if node.state.mod_revision is None and not self._may_be_at(node.state, named_mod_revision(operation)):
            return None
        return after(operation, node.state)

    def _may_be_at(self, state: State, mod_revision: int | None) -> bool:
        """Whether a put without an answer, which left this state, can have made this revision."""
        if mod_revision in self._made:
            return False
        return mod_revision is None or self._seen_at.get(mod_revision, state.value) == state.value

    def _ordered(self, node: Node, place: int, state: State) -> Node:
        """The node after the answered operation at this place."""
        first, mask = node.first, node.mask | 1 << (place - node.first)
        while mask & 1:
            first, mask = first + 1, mask >> 1
        told_count = node.told_count + (self._told[place] is not None)
        return Node(first, mask, told_count, node.unanswered_mask, state, is_awaited=False)

    def _unanswered_children(self, node: Node, places: list[int], first_return: float) -> Iterator[_Child]:
        invoked_count = bisect_right(self._unanswered_invoked_at, first_return)
        unused = [place for place in range(invoked_count) if not node.unanswered_mask >> place & 1]
        tried: set[object] = set()
        for place in self._worth_trying(node, [self._answered[place] for place in places], unused):
            if self._kinds[place] in tried:
                continue
            tried.add(self._kinds[place])
            operation = self._unanswered[place]
            following = None if node.is_awaited and is_blind(operation) else after(operation, node.state)
            if following is not None:
                mask = node.unanswered_mask | 1 << place
                yield _Child(node._replace(unanswered_mask=mask, state=following, is_awaited=True), operation)

    def _worth_trying(self, node: Node, observers: list[Operation], unused: list[int]) -> list[int]:
        """The places of those that leave what an observer wants, or what one of themselves wants, and so on."""
        chosen: list[int] = []
        while unused:
            wants = {
                wanted(operation)
                for operation in observers
                if not is_blind(operation)
                and named_mod_revision(operation) not in self._made
                and not _is_explained(operation, node.state)
            }
            new = [place for place in unused if leaves(self._unanswered[place], wants)]
            if not new:
                break
            chosen += new
            unused = [place for place in unused if place not in new]
            observers = [self._unanswered[place] for place in new]
        return chosen

    def _remember_furthest(self, path: list[_Frame]) -> None:
        if len(path) - 1 > len(self.furthest.ordered):
            self.furthest = Furthest([frame.via for frame in path if frame.via is not None], path[-1].node)


def _told_order(operation: Operation) -> tuple[int, int] | None:
    """By this the answers that tell the store's revision stand in every order: the write that made it first."""
    revision, makes_one = told_revision(operation)
    return None if revision is None else (revision, _MADE if makes_one else _FOUND)


def _seen(operations: Sequence[Operation]) -> list[Seen]:
    return [operation.result for operation in operations if isinstance(operation.result, Seen)]


def _kinds(unanswered: Sequence[Operation], seen_values: set[bytes]) -> list[tuple[object, ...]]:
    """Equal for operations that can stand for each other: of those that may be next, one is enough to try.

    They stay available for ever, so it does not matter which is used up; and a value that nobody ever saw is
    as good as another.
    """
    kinds: list[tuple[object, ...]] = []
    for operation in unanswered:
        request = operation.request
        assert not isinstance(request, Get), "a read without an answer is no part of a history"
        value = request.value if isinstance(request, Put) and request.value in seen_values else None
        kinds.append((type(request), request.expect, value))
    return kinds


def _changes_nothing(state: State, following: State) -> bool:
    """Whether every future of the one is a future of the other.

    Where the key's revision is known, that of the store may have risen: what could still happen below it
    would have to be told, and comes before by its own revision.
    """
    if following == state:
        return True
    return bool(state.mod_revision) and following[:2] == state[:2]


def _is_explained(operation: Operation, state: State) -> bool:
    """Whether the state allows it, without having to be of a revision that nobody has seen."""
    return state.mod_revision is not None and after(operation, state) is not None
