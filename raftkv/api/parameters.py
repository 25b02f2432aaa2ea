"""Query parameters: what each may be, said once, for the parser and for the OpenAPI document.

Told: a query as it came, and the parameters that an action has. Tells: their values, or RequestRefused. May never
know: what they are for.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from raftkv.api.problems import bad_request
from raftkv.api.requests import Request, number, percent_decoded, shown
from raftkv.kv.commands import NUMBER_MAX

Schema = dict[str, Any]
"""A JSON Schema (2020-12), as OpenAPI 3.1 takes it."""

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Kind(Protocol[T_co]):
    """What the values of a parameter are."""

    def read(self, raw: bytes, *, name: str) -> T_co:
        """The value in these decoded bytes; raises RequestRefused where they hold none."""
        ...

    @property
    def schema(self) -> Schema:
        """Exactly the values that ``read`` takes, as far as a schema can say it."""
        ...


@dataclass(frozen=True, slots=True)
class WholeNumber:
    """A decimal number without sign or leading zero, between two bounds."""

    least: int = 0
    most: int = NUMBER_MAX

    def read(self, raw: bytes, *, name: str) -> int:
        """The number."""
        return number(raw, name=name, least=self.least, most=self.most)

    @property
    def schema(self) -> Schema:
        """An integer within the bounds."""
        return {"type": "integer", "minimum": self.least, "maximum": self.most}


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of a few words."""

    words: tuple[str, ...]

    def read(self, raw: bytes, *, name: str) -> str:
        """The word."""
        for word in self.words:
            if raw == word.encode():
                return word
        raise bad_request(f"{name} is one of {', '.join(self.words)}")

    @property
    def schema(self) -> Schema:
        """The words."""
        return {"type": "string", "enum": list(self.words)}


@dataclass(frozen=True, slots=True)
class Switch:
    """``true`` or ``false``."""

    def read(self, raw: bytes, *, name: str) -> bool:
        """Whether it is on."""
        if raw not in (b"true", b"false"):
            raise bad_request(f"{name} is true or false, not {shown(raw)}")
        return raw == b"true"

    @property
    def schema(self) -> Schema:
        """A boolean."""
        return {"type": "boolean"}


@dataclass(frozen=True, slots=True)
class Octets:
    """Any bytes, percent-encoded; so many at least and at most."""

    least: int
    most: int

    def read(self, raw: bytes, *, name: str) -> bytes:
        """The bytes."""
        if not self.least <= len(raw) <= self.most:
            raise bad_request(f"{name} has {self.least} to {self.most} bytes, not {len(raw)}")
        return raw

    @property
    def schema(self) -> Schema:
        """Text; the bound is on its bytes."""
        bounds = {"minLength": self.least} if self.least else {}
        return {"type": "string", **bounds, "maxLength": self.most}


@dataclass(frozen=True, slots=True)
class Parameter(Generic[T]):
    """One parameter. An action that does not list it refuses requests that give it."""

    name: str
    kind: Kind[T]
    description: str
    default: T

    def of(self, request: Request) -> T:
        """What the request says, or the default."""
        given: T = request.parameters.get(self.name, self.default)
        return given

    @property
    def schema(self) -> Schema:
        """With the default, if there is one."""
        return self.kind.schema if self.default is None else {**self.kind.schema, "default": self.default}


def read_query(query: bytes | None, parameters: Iterable[Parameter[Any]]) -> dict[str, Any]:
    """The values by name; an unknown, repeated or malformed parameter is refused. ``+`` is a space."""
    if not query:
        return {}
    known = {parameter.name.encode(): parameter for parameter in parameters}
    found: dict[str, Any] = {}
    for piece in query.split(b"&"):
        raw_name, _, raw_value = piece.replace(b"+", b" ").partition(b"=")
        name = percent_decoded(raw_name)
        parameter = known.get(name)
        if parameter is None:
            raise bad_request(f"unknown query parameter {shown(name)}")
        if parameter.name in found:
            raise bad_request(f"query parameter {shown(name)} is given twice")
        found[parameter.name] = parameter.kind.read(percent_decoded(raw_value), name=parameter.name)
    return found
