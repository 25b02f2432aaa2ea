"""What a transaction is made of: claims about keys, and operations on keys and ranges.

Told: keys, values, bounds. Tells: the fields that the API takes. It never learns what becomes of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Text = str | bytes
"""Keys and values: bytes, or text that stands for its UTF-8."""
Operator = Literal["==", "!=", "<", ">"]
_TARGETS_OF_NUMBERS = ("version", "create_revision", "mod_revision")
_OPERATORS = ("==", "!=", "<", ">")


def as_bytes(text: Text, *, what: str) -> bytes:
    """The bytes; raises TypeError for what has none."""
    if isinstance(text, str):
        return text.encode()
    if isinstance(text, bytes | bytearray | memoryview):
        return bytes(text)
    raise TypeError(f"a {what} is bytes or text, not {type(text).__name__}")


@dataclass(frozen=True, slots=True)
class Compare:
    """A claim about one key. Of an absent key version and revisions are 0, and no claim about its value holds.

    ``Compare.absent("lock")``, ``Compare.value("state", "==", "idle")``
    """

    fields: dict[str, Any]
    """As the API takes it."""

    @staticmethod
    def value(key: Text, operator: Operator, operand: Text) -> Compare:
        """Compares the key's value, bytewise."""
        return _compare(key, "value", operator, as_bytes(operand, what="value"))

    @staticmethod
    def version(key: Text, operator: Operator, operand: int) -> Compare:
        """Compares how often the key was put since it was created."""
        return _compare(key, "version", operator, operand)

    @staticmethod
    def create_revision(key: Text, operator: Operator, operand: int) -> Compare:
        """Compares the revision at which the key was created."""
        return _compare(key, "create_revision", operator, operand)

    @staticmethod
    def mod_revision(key: Text, operator: Operator, operand: int) -> Compare:
        """Compares the revision at which the key was last put."""
        return _compare(key, "mod_revision", operator, operand)

    @staticmethod
    def absent(key: Text) -> Compare:
        """There is no such key."""
        return _compare(key, "version", "==", 0)

    @staticmethod
    def present(key: Text) -> Compare:
        """There is such a key."""
        return _compare(key, "version", ">", 0)


def _compare(key: Text, target: str, operator: str, operand: bytes | int) -> Compare:
    if operator not in _OPERATORS:
        raise ValueError(f"a comparison is one of {' '.join(_OPERATORS)}, not {operator!r}")
    if target in _TARGETS_OF_NUMBERS and type(operand) is not int:
        raise TypeError(f"a {target} is compared with a whole number, not with {operand!r}")
    return Compare({"key": as_bytes(key, what="key"), "target": target, "op": operator, "operand": operand})


@dataclass(frozen=True, slots=True)
class Op:
    """One operation. Operations are executed in order; each sees those before it; a key is written at most once.

    ``Op.put("lock", "mine")``, ``Op.get("state")``
    """

    fields: dict[str, Any]
    """As the API takes it."""

    @staticmethod
    def put(key: Text, value: Text) -> Op:
        """The key gets the value."""
        return Op({"put": {"key": as_bytes(key, what="key"), "value": as_bytes(value, what="value")}})

    @staticmethod
    def get(key: Text) -> Op:
        """What the key holds at this point."""
        return Op({"get": {"key": as_bytes(key, what="key")}})

    @staticmethod
    def delete(key: Text) -> Op:
        """The key is absent."""
        return Op({"delete": {"key": as_bytes(key, what="key")}})

    @staticmethod
    def range(
        *,
        prefix: Text | None = None,
        start: Text | None = None,
        end: Text | None = None,
        limit: int | None = None,
        reverse: bool = False,
        keys_only: bool = False,
    ) -> Op:
        """What the keys within the bounds hold at this point."""
        fields: dict[str, Any] = bounds(prefix=prefix, start=start, end=end)
        if limit is not None:
            fields["limit"] = limit
        if reverse:
            fields["reverse"] = True
        if keys_only:
            fields["keys_only"] = True
        return Op({"range": fields})

    @staticmethod
    def delete_range(
        *,
        prefix: Text | None = None,
        start: Text | None = None,
        end: Text | None = None,
        limit: int | None = None,
        all_keys: bool = False,
    ) -> Op:
        """The keys within the bounds are absent."""
        fields: dict[str, Any] = bounds(prefix=prefix, start=start, end=end)
        refuse_everything_unasked(fields, all_keys=all_keys)
        if limit is not None:
            fields["limit"] = limit
        if all_keys:
            fields["all"] = True
        return Op({"delete_range": fields})


def bounds(*, prefix: Text | None, start: Text | None, end: Text | None) -> dict[str, bytes]:
    """The bounds of a range by the API's names; raises ValueError where they contradict each other."""
    if prefix is not None and (start is not None or end is not None):
        raise ValueError("a range has a prefix, or a start and an end, not both")
    given = {"prefix": prefix, "start": start, "end": end}
    return {name: as_bytes(bound, what=name) for name, bound in given.items() if bound is not None}


def refuse_everything_unasked(bounds: dict[str, bytes], *, all_keys: bool) -> None:
    """Raises ValueError where every key would be deleted and nobody said so, or the other way round (faults 70)."""
    is_bounded = any(bounds.values())
    if not is_bounded and not all_keys:
        raise ValueError("no bound: to delete every key, say all_keys=True")
    if bounds and all_keys:
        raise ValueError("all_keys=True goes without bounds")
