"""Keys with what they hold, as answers show them.

Told: keys and records. Tells: JSON or msgpack. May never know: who asked for them.

A page has up to 10,000 items, and the event loop waits while it is written, so JSON is put together as text: 7 ms
instead of 18 for 10,000 small items.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable
from enum import Enum
from json.encoder import encode_basestring
from typing import Any, Final

from raftkv.api.requests import ACCEPT, Request
from raftkv.api.responses import JSON, MSGPACK
from raftkv.kv.record import Record

_QUALITY: Final = re.compile(rb"q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)", re.IGNORECASE)


class Form(Enum):
    """How an answer shows bytes."""

    TEXT = "text"
    """JSON: what is UTF-8 as text, the rest in base64."""
    BASE64 = "base64"
    """JSON: all of them in base64."""
    RAW = "raw"
    """msgpack: as they are."""


def form_of(request: Request, *, encoding: str | None) -> Form:
    """What the client asked for; msgpack wins over an ``encoding`` that only JSON needs."""
    if _prefers_msgpack(request.headers.get(ACCEPT, b"")):
        return Form.RAW
    return Form.TEXT if encoding is None else Form(encoding)


def _prefers_msgpack(accept: bytes) -> bool:
    """It is named, and JSON is not liked better. What is not understood of the header is as if it were not there."""
    qualities: dict[str, float] = {}
    for piece in accept.split(b","):
        name, *options = (part.strip() for part in piece.lower().split(b";"))
        quality = next((found for option in options if (found := _QUALITY.fullmatch(option))), None)
        if name.isascii():
            qualities[name.decode()] = 1.0 if quality is None else float(quality[1])
    wanted = qualities.get(MSGPACK, 0.0)
    return wanted > 0 and wanted >= qualities.get(JSON, 0.0)


def items_json(
    items: Iterable[tuple[bytes, Record]], *, keys_only: bool, form: Form, chars_max: int | None = None
) -> list[str]:
    """Each item as JSON, up to the one with which they exceed ``chars_max``."""
    as_text = form is not Form.BASE64
    shown: list[str] = []
    size_chars = 0
    for key, (create_revision, mod_revision, version, _, value) in items:
        held = "" if keys_only else "," + octets_json("value", value, as_text=as_text)
        shown.append(
            f'{{{octets_json("key", key, as_text=as_text)}{held},"create_revision":{create_revision},'
            f'"mod_revision":{mod_revision},"version":{version}}}'
        )
        size_chars += len(shown[-1])
        if chars_max is not None and size_chars > chars_max:
            break
    return shown


def octets_json(name: str, octets: bytes, *, as_text: bool) -> str:
    """The property in which these bytes come."""
    if as_text:
        try:
            return f'"{name}":{encode_basestring(octets.decode())}'
        except UnicodeDecodeError:
            pass
    return f'"{name}_base64":"{b64encode(octets).decode()}"'


def item_raw(key: bytes, record: Record, *, keys_only: bool) -> dict[str, Any]:
    """One item, for msgpack."""
    return {
        "key": key,
        **({} if keys_only else {"value": record.value}),
        "create_revision": record.create_revision,
        "mod_revision": record.mod_revision,
        "version": record.version,
    }


def key_fields(key: bytes) -> dict[str, str]:
    """Text as text, what is not UTF-8 as base64."""
    try:
        return {"key": key.decode()}
    except UnicodeDecodeError:
        return {"key_base64": b64encode(key).decode()}
