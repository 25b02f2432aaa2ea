"""Structured bodies: JSON and msgpack, read strictly and within bounds.

Told: a body and its Content-Type. Tells: its fields, or RequestRefused. May never know: what they are for.

A body is foreign input (faults 64): what is deep, doubled, endless or not a number is refused before anything
of its claimed size is allocated. How many values a body holds is known before it is parsed: parsing a few mebibytes
of empty lists would keep the event loop for a second, and every other client waiting.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from enum import Enum
from typing import Any, Final, NoReturn

import msgpack

from raftkv.api.parameters import Schema
from raftkv.api.problems import RequestRefused, bad_request
from raftkv.api.requests import CONTENT_TYPE, Body, Request, body_bytes
from raftkv.api.responses import JSON, MSGPACK
from raftkv.api.settings import ApiSettings
from raftkv.problems import Code

DEPTH_MAX: Final = 16
"""Objects and lists within each other."""
ITEMS_MAX: Final = 4_096
"""Values in one body, names of fields included. The largest transaction that makes sense has about 2,800."""

_WHOLE_MAX: Final = 2**53
"""From it on a float no longer says which whole number was meant."""
_JSON_TOKEN: Final = re.compile(rb'[^"\[{,]*+(?:"[^"\\]*+(?:\\.[^"\\]*+)*+"?|([\[{,]))', re.DOTALL)
"""A whole string, or (as its group) what begins another value. Possessive throughout: linear in the body."""


class BodyType(Enum):
    """What a structured body may be written in."""

    JSON = JSON
    MSGPACK = MSGPACK


_BODY_TYPES: Final = {body_type.value.encode(): body_type for body_type in BodyType}


def structured(
    properties: dict[str, Schema],
    description: str,
    *,
    required: tuple[str, ...] = (),
    bytes_max: Callable[[ApiSettings], int] = lambda settings: settings.structured_body_bytes_max,
    empty_needs_no_type: bool = True,
) -> Body:
    """A body that is one map with these fields."""
    schema = {
        "type": "object",
        "properties": properties,
        **({"required": list(required)} if required else {}),
        "additionalProperties": False,
    }
    return Body((JSON, MSGPACK), schema, bytes_max, description, empty_needs_no_type)


def body_type(request: Request, *, empty_needs_none: bool) -> BodyType | None:
    """How the body is written, judged before it is read; raises RequestRefused (415) for another type.

    ``empty_needs_none``: an empty body may come without a type, and None says that only an empty one may. Where
    this does not hold, a form on a foreign web page cannot send the request: it cannot set these types.
    """
    named = request.headers.get(CONTENT_TYPE, b"").partition(b";")[0].strip().lower()
    found = _BODY_TYPES.get(named)
    if found is None and not (empty_needs_none and body_bytes(request) in (0, None)):
        raise unsupported_type()
    return found


def unsupported_type() -> RequestRefused:
    """A 415, to be raised."""
    return RequestRefused(
        Code.UNSUPPORTED_MEDIA_TYPE, "the body's Content-Type is application/json or application/msgpack"
    )


def fields_of(body: bytes, written_in: BodyType | None, *, known: frozenset[str]) -> dict[str, Any]:
    """The fields of a body, an empty one having none; raises RequestRefused for unknown ones and for no object."""
    if not body:
        return {}
    if written_in is None:
        raise unsupported_type()
    loaded = _load_json(body) if written_in is BodyType.JSON else _load_msgpack(body)
    if type(loaded) is not dict:
        raise bad_request("the body is not an object")
    _check_depth(loaded)
    for name in loaded:
        if name not in known:
            raise bad_request(f"unknown field {ascii(name)[:80]}")
    return loaded


def _load_json(body: bytes) -> Any:
    _check_json_items(body)
    try:
        text = body.decode()
        loaded = json.loads(
            text, object_pairs_hook=_without_doubles, parse_constant=_refuse_constant, parse_float=_finite
        )
        if "\\ud" in text or "\\uD" in text:
            json.dumps(loaded, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except (ValueError, RecursionError) as error:
        raise bad_request("the body is not strict JSON in UTF-8") from error
    return loaded


def _check_json_items(body: bytes) -> None:
    """Counts what is outside of strings; but only where all that there is would be too much."""
    if body.count(b"[") + body.count(b"{") + body.count(b",") <= ITEMS_MAX:
        return
    items_count = 0
    for token in _JSON_TOKEN.finditer(body):
        items_count += token.lastindex is not None
        if items_count > ITEMS_MAX:
            raise _too_many_items()


def _load_msgpack(body: bytes) -> Any:
    _check_msgpack_items(body)
    try:
        return msgpack.unpackb(body, object_pairs_hook=_without_doubles, max_ext_len=0, strict_map_key=True)
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise bad_request("the body is not msgpack, or beyond its bounds") from error


_FIXED: Final = {0xCA: 5, 0xCB: 9, 0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9, 0xD0: 2, 0xD1: 3, 0xD2: 5, 0xD3: 9}
"""Bytes of a number, by its first byte."""
_SIZED: Final = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
"""Bytes in which bytes and strings say their length."""
_CONTAINERS: Final = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}
"""Bytes in which lists and maps say their length, and values for each of it."""


def _check_msgpack_items(body: bytes) -> None:
    """Counts what the headers claim; the unpacker would believe them. What is none of these is left to it."""
    at, open_count, items_count = 0, 1, 0
    while open_count and at < len(body):
        first = body[at]
        inner_count, size_bytes = 0, 1
        if 0x80 <= first <= 0x9F:
            inner_count = (first & 0x0F) * (2 if first < 0x90 else 1)
        elif 0xA0 <= first <= 0xBF:
            size_bytes = 1 + (first & 0x1F)
        elif first in _CONTAINERS:
            length_bytes, each = _CONTAINERS[first]
            size_bytes = 1 + length_bytes
            inner_count = each * int.from_bytes(body[at + 1 : at + size_bytes], "big")
        elif first in _SIZED:
            size_bytes = 1 + _SIZED[first]
            size_bytes += int.from_bytes(body[at + 1 : at + size_bytes], "big")
        else:
            size_bytes = _FIXED.get(first, 1)
        items_count += inner_count
        if items_count > ITEMS_MAX:
            raise _too_many_items()
        open_count += inner_count - 1
        at += size_bytes


def _too_many_items() -> RequestRefused:
    return bad_request(f"the body holds more than {ITEMS_MAX} values")


def _check_depth(loaded: Any) -> None:
    """Judged here for both, and not by a parser: its limit is the interpreter's stack, which depends on who calls."""
    level, depth = [loaded], 0
    while level:
        depth += 1
        if depth > DEPTH_MAX + 1:
            raise bad_request(f"the body is nested more than {DEPTH_MAX} deep")
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]


def _without_doubles(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a field is given twice")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    """A whole number stays one, however it is written: JSON has one kind of number only."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number beyond all bounds")
    return int(value) if value.is_integer() and abs(value) < _WHOLE_MAX else value
