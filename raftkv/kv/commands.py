"""What the store can be told to do, and the bytes in which the log carries it.

Told: nothing. Tells: the commands, their limits, ``encode`` and ``decode``. May never know: who asked, at
what index, or what the table holds.

    a put     c1 | key bytes u16, little-endian | key | value          without number and condition
    plain     msgpack [1, code, fields …]                             everything else
    numbered  msgpack [1, 64, session, sequence, acknowledged, <the plain command as bytes>]

    put           1, key, value, expect           open session  16, session, ttl_ms
    delete        2, key, expect                  keep alive    17, session
    delete range  3, start, end or nil, limit     close session 18, session
    transaction   4, [compare …], [operation …],  tick          32
                  [operation …]
    a compare     [key, target, op, operand], target and op by their numbers
    an operation  [code, fields …]: put, delete and delete range as above, their expect being ANY, and
                  read key    8, key
                  read range  9, start, end or nil, limit, reverse, keys only

A numbered command carries the plain one untouched, so "the same request" is a question about bytes, and
nodes of different versions answer it alike. Every bound on this page is part of the format: a node that
judged a command differently would end up with another table.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, NamedTuple, NewType, TypeVar

import msgpack

from raftkv.errors import CommandError
from raftkv.kv.ranges import Bounds, first_overlap, key_bounds

KEY_BYTES_MAX: Final = 4096
BOUND_BYTES_MAX: Final = KEY_BYTES_MAX + 1
"""A range's bound may be one byte longer than a key: what follows right after the longest key has a name too."""
COMMAND_BYTES_MAX: Final = 2 * 1024 * 1024
"""Keys and values that one command may touch, so that no apply stalls the cluster."""
COMMAND_KEYS_MAX: Final = 10_000
"""Keys that one command may touch, for the same reason."""
OPERATIONS_MAX: Final = 128
"""Operations of one transaction, of both branches together; and so many compares besides."""
SESSION_BYTES: Final = 16
"""128 random bits, drawn by whoever opens the session."""
TTL_MS_MIN: Final = 1_000
TTL_MS_MAX: Final = 24 * 3_600 * 1_000
TTL_MS_DEFAULT: Final = 60_000
NUMBER_MAX: Final = 2**63 - 1
"""The largest revision, sequence or acknowledgement that a command may name."""

Expect = NewType("Expect", int)
"""What a write demands of its key: one of the three below, or the mod revision (> 0) that it must have."""
ANY: Final = Expect(-1)
"""No condition."""
PRESENT: Final = Expect(-2)
"""``If-Match: *``"""
ABSENT: Final = Expect(0)
"""``If-None-Match: *``: an absent key's mod revision is 0."""


@dataclass(slots=True)
class Put:
    """The key has this value, if it is as expected."""

    key: bytes
    value: bytes
    expect: Expect = ANY


@dataclass(slots=True)
class Delete:
    """The key is absent, if it was as expected. Deleting an absent key changes nothing."""

    key: bytes
    expect: Expect = ANY


@dataclass(slots=True)
class DeleteRange:
    """The first keys within the bounds are absent: ``limit`` of them, or as many as one command may touch."""

    start: bytes
    """Empty: from the first key."""
    end: bytes | None
    """Excluded; None: to the last key."""
    limit: int = COMMAND_KEYS_MAX


@dataclass(slots=True)
class ReadKey:
    """Inside a transaction: what does the key hold now?"""

    key: bytes


@dataclass(slots=True)
class ReadRange:
    """Inside a transaction: what do the first keys within the bounds hold now?"""

    start: bytes
    end: bytes | None
    limit: int
    reverse: bool = False
    """From the last key within the bounds downwards."""
    keys_only: bool = False


class Target(Enum):
    """What of a key a comparison looks at. Of an absent key version and revisions are 0, and it has no value."""

    VALUE = "value"
    VERSION = "version"
    CREATE_REVISION = "create_revision"
    MOD_REVISION = "mod_revision"


class Op(Enum):
    """How a comparison compares; values bytewise. A comparison of an absent key's value is false."""

    EQUAL = "=="
    UNEQUAL = "!="
    LESS = "<"
    GREATER = ">"


@dataclass(slots=True)
class Compare:
    """A claim about one key."""

    key: bytes
    target: Target
    op: Op
    operand: bytes | int
    """Bytes for a value, otherwise a number between 0 and NUMBER_MAX."""


Operation = Put | Delete | DeleteRange | ReadKey | ReadRange
"""What a transaction can do; its puts and deletes bear no condition of their own."""


@dataclass(slots=True)
class Txn:
    """If every comparison holds, ``success`` is executed, else ``failure``: in order, at one revision, or not at all.

    Each operation sees those before it. Within a branch a key is written at most once.
    """

    compares: tuple[Compare, ...]
    success: tuple[Operation, ...]
    failure: tuple[Operation, ...]


@dataclass(slots=True)
class OpenSession:
    """The session exists. Repeated while it lives, it is the same session, kept alive."""

    session: bytes
    ttl_ms: int = TTL_MS_DEFAULT


@dataclass(slots=True)
class KeepAlive:
    """The session lives for another whole ``ttl_ms``."""

    session: bytes


@dataclass(slots=True)
class CloseSession:
    """The session and its stored answers are gone."""

    session: bytes


@dataclass(slots=True)
class Tick:
    """Time passes; what has run out goes."""


Write = Put | Delete | DeleteRange | Txn
"""Commands on keys: only these can be numbered."""
Command = Write | OpenSession | KeepAlive | CloseSession | Tick


class Numbered(NamedTuple):
    """The session that wants a write executed at most once, and the number that it gave to it."""

    session: bytes
    sequence: int
    """1, 2, 3 …; several may be in flight, in any order."""
    acknowledged: int = 0
    """All answers up to this number may be forgotten; 0: none."""


def key_written_twice(branch: Iterable[Operation]) -> bytes | None:
    """A key that two operations of the branch would write; None: there is none.

    A range that is deleted counts with all that is within its bounds, whatever its limit. Where two such
    ranges meet, it is the lower bound of what they have in common (empty, if that is the first key of all).
    """
    return first_overlap(bounds for operation in branch if (bounds := _written(operation)) is not None)


def _written(operation: Operation) -> Bounds | None:
    match operation:
        case Put() | Delete():
            return key_bounds(operation.key)
        case DeleteRange():
            return Bounds(operation.start, operation.end)
    return None


class Decoded(NamedTuple):
    """A command as it stood in the log."""

    command: Command
    numbered: Numbered | None
    request: bytes
    """The command without its numbering; empty where it had none."""


_SHOWN_BYTES: Final = 64
_LIST_MAX: Final = 8 * OPERATIONS_MAX
"""No list of a command is longer: what claims to be is not unpacked to be counted."""
_Built = TypeVar("_Built")

_FORMAT: Final = 1
_PUT: Final = 1
_DELETE: Final = 2
_DELETE_RANGE: Final = 3
_TXN: Final = 4
_READ_KEY: Final = 8
_READ_RANGE: Final = 9
_OPEN_SESSION: Final = 16
_KEEP_ALIVE: Final = 17
_CLOSE_SESSION: Final = 18
_TICK: Final = 32
_NUMBERED: Final = 64

_PLAIN_PUT_MARK: Final = 0xC1
"""Of a put without number and condition, which most writes are: 6 bytes less than in msgpack."""
_PLAIN_PUT_BEGINNING: Final = bytes([_PLAIN_PUT_MARK])
_PLAIN_PUT: Final = struct.Struct("<BH")

_TARGETS: Final = {Target.VALUE: 1, Target.VERSION: 2, Target.CREATE_REVISION: 3, Target.MOD_REVISION: 4}
_OPS: Final = {Op.EQUAL: 1, Op.UNEQUAL: 2, Op.LESS: 3, Op.GREATER: 4}
_TARGET_OF: Final = {number: target for target, number in _TARGETS.items()}
_OP_OF: Final = {number: op for op, number in _OPS.items()}


def encode(command: Command, numbered: Numbered | None = None) -> bytes:
    """The bytes to propose. Bounds are not checked here: ``decode`` and the machine are total."""
    if numbered is None and type(command) is Put and command.expect == ANY:
        return encode_put(command.key, command.value)
    plain: bytes = msgpack.packb((_FORMAT, *_fields(command)))
    if numbered is None:
        return plain
    assert isinstance(command, Write), "only writes to keys are numbered"
    packed: bytes = msgpack.packb((_FORMAT, _NUMBERED, *numbered, plain))
    return packed


def encode_put(key: bytes, value: bytes) -> bytes:
    """The bytes of ``encode(Put(key, value))``, at once: a mark that no msgpack begins with, the key's length, both."""
    return _PLAIN_PUT.pack(_PLAIN_PUT_MARK, len(key)) + key + value


def decode_put(encoded: bytes) -> tuple[bytes, bytes] | None:
    """Key and value of a put without number and condition; None: this is some other command. Raises CommandError."""
    if encoded[:1] != _PLAIN_PUT_BEGINNING:
        return None
    if len(encoded) < _PLAIN_PUT.size:
        raise CommandError("a put that breaks off")
    value_at = _PLAIN_PUT.size + _PLAIN_PUT.unpack_from(encoded)[1]
    if value_at > len(encoded):
        raise CommandError("a put whose key breaks off")
    return _key(encoded[_PLAIN_PUT.size : value_at]), encoded[value_at:]


def decode(encoded: bytes) -> Decoded:
    """The command in these bytes; raises CommandError for anything that is not one within its bounds."""
    put = decode_put(encoded)
    if put is not None:
        return Decoded(Put(*put), None, b"")
    code, fields = _unpack(encoded)
    if code != _NUMBERED:
        return Decoded(_parse(code, fields), None, b"")
    try:
        session, sequence, acknowledged, plain = fields
    except ValueError:
        raise CommandError(f"a numbering has 4 fields, not {len(fields)}") from None
    numbered = Numbered(_session(session), _number(sequence, least=1), _number(acknowledged, least=0))
    if type(plain) is not bytes:
        raise CommandError("the numbered command is not bytes")
    command = _parse(*_unpack(plain))
    if not isinstance(command, Write):
        raise CommandError("only writes to keys are numbered")
    return Decoded(command, numbered, plain)


def _fields(command: Command | ReadKey | ReadRange) -> tuple[Any, ...]:
    match command:
        case Put():
            return _PUT, command.key, command.value, command.expect
        case Delete():
            return _DELETE, command.key, command.expect
        case DeleteRange():
            return _DELETE_RANGE, command.start, command.end, command.limit
        case Txn():
            compares = [(one.key, _TARGETS[one.target], _OPS[one.op], one.operand) for one in command.compares]
            return _TXN, compares, [*map(_fields, command.success)], [*map(_fields, command.failure)]
        case ReadKey():
            return _READ_KEY, command.key
        case ReadRange():
            return _READ_RANGE, command.start, command.end, command.limit, command.reverse, command.keys_only
        case OpenSession():
            return _OPEN_SESSION, command.session, command.ttl_ms
        case KeepAlive():
            return _KEEP_ALIVE, command.session
        case CloseSession():
            return _CLOSE_SESSION, command.session
        case Tick():
            return (_TICK,)


def _unpack(encoded: bytes) -> tuple[Any, tuple[Any, ...]]:
    try:
        unpacked = msgpack.unpackb(encoded, use_list=False, max_array_len=_LIST_MAX)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise CommandError(f"not msgpack: {error}") from error
    if type(unpacked) is not tuple or len(unpacked) < 2:
        raise CommandError("not a list of a format version and a command code")
    if type(unpacked[0]) is not int or unpacked[0] != _FORMAT:
        raise CommandError("a command of an unknown format version")
    return unpacked[1], unpacked[2:]


def _parse(code: Any, fields: tuple[Any, ...]) -> Command:
    parser = _PARSERS.get(code) if type(code) is int else None
    if parser is None:
        raise CommandError("an unknown command code")
    return _built(parser, code, fields)


def _built(parser: tuple[int, Callable[..., _Built]], code: int, fields: tuple[Any, ...]) -> _Built:
    fields_count, build = parser
    if len(fields) != fields_count:
        raise CommandError(f"command {code} has {fields_count} fields, not {len(fields)}")
    return build(*fields)


def _put(key: Any, value: Any, expect: Any) -> Put:
    if type(value) is not bytes:
        raise CommandError("the value is not bytes")
    return Put(_key(key), value, _expect(expect))


def _delete(key: Any, expect: Any) -> Delete:
    return Delete(_key(key), _expect(expect))


def _delete_range(start: Any, end: Any, limit: Any) -> DeleteRange:
    return DeleteRange(_bound(start), None if end is None else _bound(end), _limit(limit))


def _read_key(key: Any) -> ReadKey:
    return ReadKey(_key(key))


def _read_range(start: Any, end: Any, limit: Any, reverse: Any, keys_only: Any) -> ReadRange:
    if type(reverse) is not bool or type(keys_only) is not bool:
        raise CommandError("a switch of a range is not true or false")
    return ReadRange(_bound(start), None if end is None else _bound(end), _limit(limit), reverse, keys_only)


def _txn(compares: Any, success: Any, failure: Any) -> Txn:
    if not type(compares) is type(success) is type(failure) is tuple:
        raise CommandError("a transaction's parts are lists")
    if max(len(compares), len(success) + len(failure)) > OPERATIONS_MAX:
        raise CommandError(f"a transaction has at most {OPERATIONS_MAX} operations, and as many compares")
    txn = Txn(tuple(map(_compare, compares)), tuple(map(_operation, success)), tuple(map(_operation, failure)))
    for branch in (txn.success, txn.failure):
        key = key_written_twice(branch)
        if key is not None:
            raise CommandError(f"a branch writes {key[:_SHOWN_BYTES]!r} twice")
    return txn


def _compare(compare: Any) -> Compare:
    if type(compare) is not tuple or len(compare) != 4:
        raise CommandError("a compare is a list of 4")
    key, target_number, op_number, operand = compare
    target = _TARGET_OF.get(target_number) if type(target_number) is int else None
    op = _OP_OF.get(op_number) if type(op_number) is int else None
    if target is None or op is None:
        raise CommandError("an unknown target or op of a compare")
    if target is not Target.VALUE:
        return Compare(_key(key), target, op, _number(operand, least=0))
    if type(operand) is not bytes:
        raise CommandError("a value is compared with what is not bytes")
    return Compare(_key(key), target, op, operand)


def _operation(operation: Any) -> Operation:
    if type(operation) is not tuple or not operation:
        raise CommandError("an operation is a list that begins with its code")
    code = operation[0]
    parser = _OPERATION_PARSERS.get(code) if type(code) is int else None
    if parser is None:
        raise CommandError("an unknown operation code")
    built = _built(parser, code, operation[1:])
    if isinstance(built, Put | Delete) and built.expect != ANY:
        raise CommandError("an operation of a transaction has no condition of its own")
    return built


def _open_session(session: Any, ttl_ms: Any) -> OpenSession:
    if type(ttl_ms) is not int or not TTL_MS_MIN <= ttl_ms <= TTL_MS_MAX:
        raise CommandError(f"ttl_ms is not within {TTL_MS_MIN} and {TTL_MS_MAX}")
    return OpenSession(_session(session), ttl_ms)


def _keep_alive(session: Any) -> KeepAlive:
    return KeepAlive(_session(session))


def _close_session(session: Any) -> CloseSession:
    return CloseSession(_session(session))


_PARSERS: Final[dict[int, tuple[int, Callable[..., Command]]]] = {
    _PUT: (3, _put),
    _DELETE: (2, _delete),
    _DELETE_RANGE: (3, _delete_range),
    _TXN: (3, _txn),
    _OPEN_SESSION: (2, _open_session),
    _KEEP_ALIVE: (1, _keep_alive),
    _CLOSE_SESSION: (1, _close_session),
    _TICK: (0, Tick),
}

_OPERATION_PARSERS: Final[dict[int, tuple[int, Callable[..., Operation]]]] = {
    _PUT: (3, _put),
    _DELETE: (2, _delete),
    _DELETE_RANGE: (3, _delete_range),
    _READ_KEY: (1, _read_key),
    _READ_RANGE: (5, _read_range),
}


def _key(key: Any) -> bytes:
    if type(key) is not bytes or not 1 <= len(key) <= KEY_BYTES_MAX:
        raise CommandError(f"a key is 1 to {KEY_BYTES_MAX} bytes")
    return key


def _bound(bound: Any) -> bytes:
    if type(bound) is not bytes or len(bound) > BOUND_BYTES_MAX:
        raise CommandError(f"a range's bound is at most {BOUND_BYTES_MAX} bytes")
    return bound


def _limit(limit: Any) -> int:
    if type(limit) is not int or not 1 <= limit <= COMMAND_KEYS_MAX:
        raise CommandError(f"a limit is within 1 and {COMMAND_KEYS_MAX}")
    return limit


def _session(session: Any) -> bytes:
    if type(session) is not bytes or len(session) != SESSION_BYTES:
        raise CommandError(f"a session's id is {SESSION_BYTES} bytes")
    return session


def _expect(expect: Any) -> Expect:
    if type(expect) is not int or not PRESENT <= expect <= NUMBER_MAX:
        raise CommandError("an unknown condition")
    return Expect(expect)


def _number(number: Any, *, least: int) -> int:
    if type(number) is not int or not least <= number <= NUMBER_MAX:
        raise CommandError(f"a number is within {least} and {NUMBER_MAX}")
    return number
