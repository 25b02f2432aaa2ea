"""What became of a command, as values, and the bytes in which a session keeps them.

Told: nothing. Tells: the answers, ``pack`` and ``unpack``. May never know: status codes, headers, JSON.

NamedTuples compare as tuples: tell answers apart by their type first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgpack

from raftkv.errors import SnapshotError
from raftkv.kv.record import Record


class PutDone(NamedTuple):
    """The key has the value now."""

    created: bool
    """The key was absent before."""
    revision: int
    """The store's, and so the key's mod revision."""
    create_revision: int
    version: int
    """How often the key was put since it was created; 1: just now."""


class DeleteDone(NamedTuple):
    """The key is absent now."""

    deleted: int
    """0: it was absent before, and no revision was made."""
    revision: int


class DeleteRangeDone(NamedTuple):
    """The first keys within the bounds are absent now."""

    deleted: int
    """0: no revision was made."""
    more: bool
    """Further keys are within the bounds."""
    revision: int


class PutResult(NamedTuple):
    """Inside a transaction: the key has the value."""

    revision: int
    version: int


class DeleteResult(NamedTuple):
    """Inside a transaction: the key is absent."""

    deleted: int


class DeleteRangeResult(NamedTuple):
    """Inside a transaction: the first keys within the bounds are absent."""

    deleted: int
    more: bool


class ReadKeyResult(NamedTuple):
    """Inside a transaction: what the key held at that point."""

    key: bytes
    record: Record | None
    """None: it was absent."""


class ReadRangeResult(NamedTuple):
    """Inside a transaction: what the keys held at that point."""

    items: tuple[tuple[bytes, Record], ...]
    more: bool
    keys_only: bool
    """The records' values are empty, and say nothing."""


Result = PutResult | DeleteResult | DeleteRangeResult | ReadKeyResult | ReadRangeResult


class TxnDone(NamedTuple):
    """One branch was executed, whole."""

    succeeded: bool
    """Every comparison held."""
    results: tuple[Result, ...]
    """One for each operation of the branch, in its order."""
    revision: int
    """The store's; that of everything that was put."""


class ConditionFailed(NamedTuple):
    """The key was not as expected; nothing was changed."""

    mod_revision: int
    """What the key has instead; 0: it is absent."""
    revision: int
    """The store's."""


class SessionOpened(NamedTuple):
    """The session exists, for this long after its last sign of life."""

    session: bytes
    ttl_ms: int


class SessionAlive(NamedTuple):
    """The session was kept alive."""

    session: bytes
    ttl_ms: int


class SessionClosed(NamedTuple):
    """The session is gone."""

    session: bytes


class SessionExpired(NamedTuple):
    """The session ran out, was closed or never was; nothing was executed."""


class TooManySessions(NamedTuple):
    """The store holds as many sessions as its format allows; nothing was opened."""

    sessions_max: int


class Ticked(NamedTuple):
    """Time has passed."""


class SequenceReused(NamedTuple):
    """The number belongs to another request of this session; nothing was executed."""


class SequenceTooOld(NamedTuple):
    """The session has acknowledged this number: whether it was executed is forgotten. Now it was not."""


class TooManyUnacknowledged(NamedTuple):
    """The session must acknowledge answers before it can store more; nothing was executed."""


class Malformed(NamedTuple):
    """These bytes are no command; nothing was executed."""

    why: str


class TooLarge(NamedTuple):
    """The command touches more bytes than one command may; nothing was executed."""

    command_bytes: int
    command_bytes_max: int


Executed = PutDone | DeleteDone | DeleteRangeDone | TxnDone | ConditionFailed
"""What a write came to once it was executed: this is stored and repeated."""


@dataclass(frozen=True, slots=True)
class Repeated:
    """The write was executed before; this is what it came to then."""

    answer: Executed
    index: int
    """The log index at which it was executed."""


Answer = (
    Executed
    | Repeated
    | SessionOpened
    | SessionAlive
    | SessionClosed
    | SessionExpired
    | TooManySessions
    | Ticked
    | SequenceReused
    | SequenceTooOld
    | TooManyUnacknowledged
    | Malformed
    | TooLarge
)

_CODES: Final[dict[type[Executed], int]] = {
    PutDone: 1, DeleteDone: 2, ConditionFailed: 3, DeleteRangeDone: 4, TxnDone: 5,
}  # fmt: skip
_RESULT_CODES: Final[dict[type[Result], int]] = {
    PutResult: 1, DeleteResult: 2, DeleteRangeResult: 3, ReadKeyResult: 8, ReadRangeResult: 9,
}  # fmt: skip
"""As the operations' codes in a command."""
_TYPES: Final[dict[int, Any]] = {code: kind for kind, code in _CODES.items()}
_RESULT_TYPES: Final[dict[int, Any]] = {code: kind for kind, code in _RESULT_CODES.items()}


def pack(answer: Executed) -> bytes:
    """The bytes to store."""
    fields: tuple[Any, ...] = answer
    if isinstance(answer, TxnDone):
        results = [(_RESULT_CODES[type(result)], *result) for result in answer.results]
        fields = answer.succeeded, results, answer.revision
    packed: bytes = msgpack.packb((_CODES[type(answer)], *fields))
    return packed


def unpack(packed: bytes) -> Executed:
    """The answer that ``pack`` stored; raises SnapshotError for anything else."""
    try:
        code, *fields = msgpack.unpackb(packed, use_list=False)
        answer: Executed = _TYPES[code](*fields)
        if isinstance(answer, TxnDone):
            return answer._replace(results=tuple(map(_result, answer.results)))
    except (ValueError, TypeError, KeyError, msgpack.UnpackException) as error:
        raise SnapshotError(f"not a stored answer: {error!r}") from error
    return answer


def _result(packed: Any) -> Result:
    code, *fields = packed
    result: Result = _RESULT_TYPES[code](*fields)
    if isinstance(result, ReadKeyResult) and result.record is not None:
        return result._replace(record=Record(*result.record))
    if isinstance(result, ReadRangeResult):
        return result._replace(items=tuple((key, Record(*record)) for key, record in result.items))
    return result
