"""What a transaction's fields say, read strictly.

Told: the fields of a body, JSON's or msgpack's. Tells: the command, or RequestRefused with the place of what is
wrong. May never know: what it will come to.
"""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from raftkv.api.items import key_fields
from raftkv.api.problems import RequestRefused, bad_request
from raftkv.api.ranges import PAGE_ITEMS, PAGE_ITEMS_MAX, bounds_of, bounds_to_delete
from raftkv.api.requests import shown
from raftkv.kv.commands import (
    BOUND_BYTES_MAX,
    COMMAND_BYTES_MAX,
    COMMAND_KEYS_MAX,
    KEY_BYTES_MAX,
    NUMBER_MAX,
    OPERATIONS_MAX,
    Compare,
    Delete,
    DeleteRange,
    Op,
    Operation,
    Put,
    ReadKey,
    ReadRange,
    Target,
    Txn,
    key_written_twice,
)
from raftkv.problems import Code

_TARGETS: Final = {target.value: target for target in Target}
_OPS: Final = {op.value: op for op in Op}


@dataclass(slots=True)
class _Fields:
    """One map of the body, and where it stands."""

    fields: dict[str, Any]
    where: str

    def wrong(self, what: str) -> RequestRefused:
        """The refusal that says so, to be raised."""
        return bad_request(f"{self.where}: {what}")

    def octets(self, name: str, *, least: int = 0, most: int | None = None) -> bytes | None:
        """The bytes of that name, however they are written; None: it is not there."""
        plain, encoded = self.fields.get(name), self.fields.get(f"{name}_base64")
        if name in self.fields and f"{name}_base64" in self.fields:
            raise self.wrong(f"{name} and {name}_base64 exclude each other")
        if name in self.fields:
            found = self._plain(name, plain)
        elif f"{name}_base64" in self.fields:
            found = self._decoded(f"{name}_base64", encoded)
        else:
            return None
        if len(found) < least or (most is not None and len(found) > most):
            raise self.wrong(f"{name} has {least} to {most} bytes, not {len(found)}")
        return found

    def _plain(self, name: str, value: Any) -> bytes:
        if type(value) is str:
            return value.encode()
        if type(value) is bytes:
            return value
        raise self.wrong(f"{name} is text; other bytes go into {name}_base64, or into a msgpack body as they are")

    def _decoded(self, name: str, value: Any) -> bytes:
        try:
            if type(value) is str:
                return b64decode(value.encode("ascii"), validate=True)
        except (Base64Error, UnicodeEncodeError):
            pass
        raise self.wrong(f"{name} is base64 (RFC 4648, section 4, padded)")

    def key(self) -> bytes:
        """The key that the map names."""
        found = self.octets("key", least=1, most=KEY_BYTES_MAX)
        if found is None:
            raise self.wrong("key is missing")
        return found

    def number(self, name: str, *, default: int | None, least: int, most: int) -> int:
        """A whole number; no default: it must be there."""
        found = self.fields.get(name, default)
        if type(found) is not int or not least <= found <= most:
            raise self.wrong(f"{name} is a whole number between {least} and {most}")
        return found

    def switch(self, name: str) -> bool:
        """Whether it is on."""
        found = self.fields.get(name, False)
        if type(found) is not bool:
            raise self.wrong(f"{name} is true or false")
        return found

    def one_of(self, name: str, words: dict[str, Any]) -> Any:
        """What the word means."""
        found = self.fields.get(name)
        if type(found) is not str or found not in words:
            raise self.wrong(f"{name} is one of {', '.join(words)}")
        return words[found]

    def bounds(self) -> tuple[bytes | None, bytes | None, bytes | None]:
        """Prefix, start and end, as far as they are there."""
        return (
            self.octets("prefix", most=KEY_BYTES_MAX),
            self.octets("start", most=BOUND_BYTES_MAX),
            self.octets("end", least=1, most=BOUND_BYTES_MAX),
        )


def read_txn(fields: dict[str, Any], *, value_bytes_max: int) -> Txn:
    """The transaction; raises RequestRefused for anything that is none, or is too large."""
    lists = [_list(fields, name) for name in ("compare", "success", "failure")]
    for count, what in ((len(lists[0]), "compares"), (len(lists[1]) + len(lists[2]), "operations")):
        if count > OPERATIONS_MAX:
            raise RequestRefused(
                Code.TOO_LARGE, f"a transaction has at most {OPERATIONS_MAX} {what} in all, not {count}"
            )
    compares = tuple(_compare(_fields_at(one, f"compare[{at}]", _COMPARE)) for at, one in enumerate(lists[0]))
    success, failure = (
        tuple(_operation(one, f"{name}[{at}]", value_bytes_max) for at, one in enumerate(listed))
        for name, listed in (("success", lists[1]), ("failure", lists[2]))
    )
    txn = Txn(compares, success, failure)
    _refuse_large(txn)
    for name, branch in (("success", success), ("failure", failure)):
        _refuse_doubled_key(name, branch)
    return txn


def _list(fields: dict[str, Any], name: str) -> list[Any]:
    found = fields.get(name, [])
    if type(found) is not list:
        raise bad_request(f"{name} is a list")
    return found


def _fields_at(value: Any, where: str, known: frozenset[str]) -> _Fields:
    found = _Fields(value, where)
    if type(value) is not dict:
        raise found.wrong("this is not an object")
    for name in value:
        if name not in known:
            raise found.wrong(f"unknown field {ascii(name)[:80]}")
    return found


def _known(*names: str, octets: tuple[str, ...]) -> frozenset[str]:
    return frozenset((*names, *octets, *(f"{name}_base64" for name in octets)))


_COMPARE: Final = _known("target", "op", octets=("key", "operand"))
_KEY: Final = _known(octets=("key",))
_BOUNDS: Final = ("prefix", "start", "end")


def _compare(fields: _Fields) -> Compare:
    key, target, op = fields.key(), fields.one_of("target", _TARGETS), fields.one_of("op", _OPS)
    if target is not Target.VALUE:
        if "operand_base64" in fields.fields:
            raise fields.wrong("operand_base64 goes with the target value only")
        return Compare(key, target, op, fields.number("operand", default=None, least=0, most=NUMBER_MAX))
    operand = fields.octets("operand")
    if operand is None:
        raise fields.wrong("operand is missing")
    return Compare(key, target, op, operand)


def _put(fields: _Fields, value_bytes_max: int) -> Put:
    key, value = fields.key(), fields.octets("value")
    if value is None:
        raise fields.wrong("value is missing")
    if len(value) > value_bytes_max:
        raise RequestRefused(Code.TOO_LARGE, f"{fields.where}: a value has at most {value_bytes_max} bytes")
    return Put(key, value)


def _range(fields: _Fields, _: int) -> ReadRange:
    bounds = bounds_of(*fields.bounds())
    limit = fields.number("limit", default=PAGE_ITEMS, least=1, most=PAGE_ITEMS_MAX)
    return ReadRange(bounds.start, bounds.end, limit, fields.switch("reverse"), fields.switch("keys_only"))


def _delete_range(fields: _Fields, _: int) -> DeleteRange:
    bounds = bounds_to_delete(*fields.bounds(), everything=fields.switch("all"))
    limit = fields.number("limit", default=COMMAND_KEYS_MAX, least=1, most=COMMAND_KEYS_MAX)
    return DeleteRange(bounds.start, bounds.end, limit)


_OPERATIONS: Final[dict[str, tuple[frozenset[str], Callable[[_Fields, int], Operation]]]] = {
    "put": (_known(octets=("key", "value")), _put),
    "get": (_KEY, lambda fields, _: ReadKey(fields.key())),
    "delete": (_KEY, lambda fields, _: Delete(fields.key())),
    "range": (_known("limit", "reverse", "keys_only", octets=_BOUNDS), _range),
    "delete_range": (_known("limit", "all", octets=_BOUNDS), _delete_range),
}


def _operation(value: Any, where: str, value_bytes_max: int) -> Operation:
    if type(value) is not dict or len(value) != 1 or next(iter(value)) not in _OPERATIONS:
        raise bad_request(f"{where}: an operation is an object with one field, of {', '.join(_OPERATIONS)}")
    ((name, inner),) = value.items()
    known, build = _OPERATIONS[name]
    return build(_fields_at(inner, f"{where}.{name}", known), value_bytes_max)


def _refuse_large(txn: Txn) -> None:
    """Before it is replicated: the machine counts what is replaced and read, too."""
    touched = sum(
        len(compare.key) + (len(compare.operand) if type(compare.operand) is bytes else 0) for compare in txn.compares
    )
    for operation in (*txn.success, *txn.failure):
        match operation:
            case Put(key, value):
                touched += len(key) + len(value)
            case Delete(key) | ReadKey(key):
                touched += len(key)
    if touched > COMMAND_BYTES_MAX:
        raise RequestRefused(
            Code.TOO_LARGE, f"a transaction has at most {COMMAND_BYTES_MAX} bytes of keys and values, not {touched}"
        )


def _refuse_doubled_key(name: str, branch: tuple[Operation, ...]) -> None:
    key = key_written_twice(branch)
    if key is not None:
        raise RequestRefused(
            Code.DUPLICATE_KEY,
            f"{name} writes {shown(key)} twice; a range counts with all that is within its bounds",
            extra=key_fields(key),
        )
