"""One key as a sequential specification: which results are possible in a state, and what state follows.

Told: a state and an operation. Tells: the state after it, or that it cannot be. May never know: time,
clients, other keys.

Revisions belong to the whole store, so another key's write may raise them at any moment: of the store's
revision a state knows only how low it cannot be. A put whose answer was lost leaves a revision that nobody
knows until somebody sees it.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple

from raftkv.kv.commands import ABSENT, ANY, PRESENT, Expect, Put
from raftkv.kv.queries import Get
from raftkv.sim.checks.history import Absent, Deleted, Done, Operation, Refused, Result, Seen, shown


class State(NamedTuple):
    """What one key may be."""

    value: bytes | None
    """None: the key is absent."""
    mod_revision: int | None
    """0: the key is absent. None: at least ``floor``, and nobody has seen it yet."""
    floor: int
    """The store's revision is not lower than this."""


class Held(Enum):
    """What an answer tells of a key without telling its value."""

    NOTHING = "nothing"
    ANYTHING = "anything"


INITIAL: Final = State(None, 0, 0)


def after(operation: Operation, state: State) -> State | None:
    """The state once the operation has taken effect; None: in this state it cannot have had its result.

    An unknown result is taken for success: without effect, the operation need not be ordered at all.
    """
    request, result = operation.request, operation.result
    if isinstance(request, Get):
        return _read(state, result)
    if isinstance(result, Refused):
        return _refused(state, request.expect, result)
    held = _pinned(state, request.expect)
    if held is None:
        return None
    if isinstance(request, Put):
        return _put(held, request.value, result)
    return _deleted(held, result)


def is_blind(operation: Operation) -> bool:
    """Whether it overwrites the key without its result telling what was there before."""
    request, result = operation.request, operation.result
    if isinstance(request, Get) or request.expect != ANY:
        return False
    return isinstance(request, Put) or result is None


def wanted(operation: Operation) -> bytes | Held:
    """What must have been there for the operation to have its result; only for those that are not blind."""
    result = operation.result
    if isinstance(result, Seen):
        return result.value
    if isinstance(result, Absent) or (isinstance(result, Deleted) and result.count == 0):
        return Held.NOTHING
    if isinstance(result, Refused):
        return Held.ANYTHING if result.mod_revision else Held.NOTHING
    assert not isinstance(operation.request, Get), "a read without an answer is no part of a history"
    return Held.NOTHING if operation.request.expect == ABSENT else Held.ANYTHING


def leaves(operation: Operation, wants: set[bytes | Held]) -> bool:
    """Whether the write leaves something that is wanted."""
    if isinstance(operation.request, Put):
        return Held.ANYTHING in wants or operation.request.value in wants
    return Held.NOTHING in wants


def told_revision(operation: Operation) -> tuple[int | None, bool]:
    """The store's revision as the answer has it, and whether the operation made it."""
    match operation.result:
        case Done(revision) | Deleted(1, revision):
            return revision, True
        case Deleted(_, revision) | Refused(_, revision):
            return revision, False
    return None, False


def seen_mod_revision(operation: Operation) -> int | None:
    """The revision that the answer says the present key to have had; None: it says none."""
    match operation.result:
        case Seen(_, mod_revision):
            return mod_revision
        case Refused(mod_revision) if mod_revision > 0:
            return mod_revision
    return None


def named_mod_revision(operation: Operation) -> int | None:
    """The revision that the present key must have had before, by the answer or by the condition that held."""
    seen = seen_mod_revision(operation)
    if seen is not None or isinstance(operation.request, Get) or isinstance(operation.result, Refused):
        return seen
    return operation.request.expect if operation.request.expect > 0 else None


def comes_too_late(operation: Operation, state: State) -> bool:
    """Whether the revisions that it was told are already past, in this state and all that follow it."""
    match operation.result:
        case Seen(_, int(seen)) | Refused(int(seen), None) if seen:
            return _is_past(state, seen)
        case Refused(seen, int(revision)):
            return state.floor > revision or (seen > 0 and _is_past(state, seen))
        case Done(int(revision)) | Deleted(1, int(revision)):
            return state.floor >= revision
        case Deleted(0, int(revision)):
            return state.floor > revision
    return False


def described(state: State) -> str:
    """The state in words."""
    if state.value is None:
        return f"absent, the store at revision {state.floor} or later"
    at = f"{state.floor} or later" if state.mod_revision is None else str(state.mod_revision)
    return f"{shown(state.value)} at revision {at}"


def _is_past(state: State, mod_revision: int) -> bool:
    if state.value is None:
        return False
    return (state.floor if state.mod_revision is None else state.mod_revision) > mod_revision


def _read(state: State, result: Result | None) -> State | None:
    match result:
        case Absent():
            return state if state.value is None else None
        case Seen(value, mod_revision) if value == state.value:
            return state if mod_revision is None else _pinned(state, Expect(mod_revision))
    return None


def _refused(state: State, expect: Expect, result: Refused) -> State | None:
    found = result.mod_revision
    held = _pinned(state, Expect(found) if found else ABSENT)
    if held is None or _holds(expect, found):
        return None
    return _store_seen(held, result.revision)


def _put(held: State, value: bytes, result: Result | None) -> State | None:
    revision = result.revision if isinstance(result, Done) else None
    if revision is None:
        return State(value, None, held.floor + 1)
    return State(value, revision, revision) if revision > held.floor else None


def _deleted(held: State, result: Result | None) -> State | None:
    count, revision = (result.count, result.revision) if isinstance(result, Deleted) else (1, None)
    if count != (held.value is not None):
        return None
    if count == 0:
        return _store_seen(held, revision)
    if revision is None:
        return State(None, 0, held.floor + 1)
    return State(None, 0, revision) if revision > held.floor else None


def _holds(expect: Expect, mod_revision: int) -> bool:
    if expect == ANY:
        return True
    return mod_revision > 0 if expect == PRESENT else mod_revision == expect


def _pinned(state: State, expect: Expect) -> State | None:
    """The state, knowing that this condition holds in it; None: it does not."""
    if expect == ANY:
        return state
    if expect == ABSENT or state.value is None:
        return state if expect == ABSENT and state.value is None else None
    if expect in (PRESENT, state.mod_revision):
        return state
    if state.mod_revision is None and expect >= state.floor:
        return State(state.value, expect, expect)
    return None


def _store_seen(state: State, revision: int | None) -> State | None:
    """The state, knowing that the store's revision was this; None: it was higher already."""
    if revision is None:
        return state
    return state._replace(floor=revision) if revision >= state.floor else None
