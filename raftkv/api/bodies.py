"""Structured bodies: JSON and msgpack, read strictly and within bounds.

Told: a body and its Content-Type. Tells: its fields, or RequestRefused. May never know: what they are for.

A body is foreign input (faults 64): what is deep, doubled, endless or not a number is refused before anything
of its claimed size is allocated.
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
ITEMS_MAX: Final = 1_024
"""In one msgpack list or map. Its header only claims how many follow, and the unpacker believes it."""

_JSON_TOKEN: Final = re.compile(rb'"(?:[^"\\]|\\.)*"?|[\[{]|[\]}]', re.DOTALL)


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
    for name in loaded:
        if name not in known:
            raise bad_request(f"unknown field {ascii(name)[:80]}")
    return loaded


def _load_json(body: bytes) -> Any:
    _check_json_depth(body)
    try:
        text = body.decode()
        loaded = json.loads(
            text, object_pairs_hook=_without_doubles, parse_constant=_refuse_constant, parse_float=_finite
        )
        if "\\u" in text:
            json.dumps(loaded, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except (ValueError, RecursionError) as error:
        raise bad_request("the body is not strict JSON in UTF-8") from error
    return loaded


def _check_json_depth(body: bytes) -> None:
    """Counted beforehand: the parser's own limit is the interpreter's stack, which depends on who calls."""
    if body.count(b"[") + body.count(b"{") <= DEPTH_MAX:
        return
    depth = 0
    for token in _JSON_TOKEN.finditer(body):
        opened = token[0] in b"[{"
        depth += 1 if opened else -1 if token[0] in b"]}" else 0
        if depth > DEPTH_MAX:
            raise bad_request(f"the body is nested more than {DEPTH_MAX} deep")


def _load_msgpack(body: bytes) -> Any:
    try:
        return msgpack.unpackb(
            body,
            object_pairs_hook=_without_doubles,
            max_array_len=ITEMS_MAX,
            max_map_len=ITEMS_MAX,
            max_ext_len=0,
            strict_map_key=True,
        )
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise bad_request("the body is not msgpack, or beyond its bounds") from error


def _without_doubles(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a field is given twice")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number beyond all bounds")
    return value
