"""Keys and values as a node's JSON has them, as a terminal may show them, and as programs get them.

Nothing that was stored can move a cursor, ring a bell or hide a line: what is not printable is escaped.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from rich.cells import cell_len, set_cell_size

_NAMED: Final = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\\": "\\\\"}
_BYTE_FIRST, _BYTE_LAST = "\udc80", "\udcff"
_PREVIEW_BYTES_PER_CELL: Final = 4
"""No character of UTF-8 is longer, so more bytes than that never fit."""


@dataclass(frozen=True, slots=True)
class Item:
    """One key of the store; ``value`` is None where only keys were asked for."""

    key: bytes
    value: bytes | None
    create_revision: int
    mod_revision: int
    version: int


def item_of(said: Mapping[str, Any]) -> Item:
    """An item as a node says it; ValueError: no node of ours says that."""
    key = _bytes_in(said, "key")
    if key is None:
        raise ValueError("an item without a key")
    numbers = [said.get(name) for name in ("create_revision", "mod_revision", "version")]
    if any(type(number) is not int for number in numbers):
        raise ValueError("an item without its revisions")
    return Item(key, _bytes_in(said, "value"), *(int(number or 0) for number in numbers))


def _bytes_in(said: Mapping[str, Any], name: str) -> bytes | None:
    encoded, text = said.get(f"{name}_base64"), said.get(name)
    if isinstance(encoded, str):
        try:
            return base64.b64decode(encoded, validate=True)
        except binascii.Error as error:
            raise ValueError(f"{name}_base64 is not base64") from error
    return text.encode(errors="surrogatepass") if isinstance(text, str) else None


def for_programs(item: Item) -> dict[str, Any]:
    """The item with text as text, and what is not UTF-8 in base64 under a name that says so."""
    fields = field_for_programs("key", item.key)
    if item.value is not None:
        fields |= field_for_programs("value", item.value)
    return fields | {
        "create_revision": item.create_revision,
        "mod_revision": item.mod_revision,
        "version": item.version,
    }


def field_for_programs(name: str, raw: bytes) -> dict[str, Any]:
    """One field, as text or in base64."""
    try:
        return {name: raw.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(raw).decode()}


def shown(raw: bytes) -> str:
    """These bytes on one line that a terminal may have; a backslash is doubled, so that no two look the same."""
    return "".join(map(_shown, raw.decode(errors="surrogateescape")))


def _shown(character: str) -> str:
    if character in _NAMED:
        return _NAMED[character]
    if character.isprintable():
        return character
    code = ord(character)
    if _BYTE_FIRST <= character <= _BYTE_LAST:
        return f"\\x{code & 0xFF:02x}"
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def printable(text: str) -> str:
    """Text of somebody else's, without what a terminal would act on."""
    return re.sub(r"[^\n]", lambda found: found[0] if found[0].isprintable() else _shown(found[0]), text)


def cut(text: str, cells: int) -> str:
    """At most so many cells; an ellipsis tells that there is more."""
    return text if cell_len(text) <= cells else set_cell_size(text, max(0, cells - 1)).rstrip() + "…"


def preview(raw: bytes, cells: int) -> str:
    """The beginning of a value, and how long it is where that does not show."""
    text = shown(raw[: cells * _PREVIEW_BYTES_PER_CELL + 1])
    if cell_len(text) <= cells and len(raw) <= cells * _PREVIEW_BYTES_PER_CELL:
        return text
    size = f" ({byte_count(len(raw))})"
    if len(size) > cells // 2:
        return set_cell_size(text, cells - 1).rstrip() + "…"
    return set_cell_size(text, max(0, cells - len(size) - 1)).rstrip() + "…" + size


def byte_count(count: int) -> str:
    """A number of bytes, in the unit that fits it."""
    if count < 1024:
        return f"{count} B"
    amount = float(count)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        amount /= 1024
        if amount < 1000 or unit == "TiB":
            break
    return f"{amount:.1f} {unit}" if amount < 10 else f"{amount:,.0f} {unit}"
