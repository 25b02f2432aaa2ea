"""Keys and ranges as people type them, and as request targets carry them.

Told: words of the command line. Tells: targets, byte for byte; or Unusable, before anything is sent.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from raftkv.cli.failures import Unusable

KEY_BYTES_MAX: Final = 4096
_AS_THEY_ARE: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_~")
"""Unreserved bytes, without the dot: no library or proxy on the way finds a segment to tidy up."""
_DOT_SEGMENTS: Final = (b".", b"..")


def key_bytes(key: str) -> bytes:
    """The key as it was typed; whatever the terminal sent, byte for byte."""
    raw = os.fsencode(key)
    if not raw:
        raise Unusable("a key has at least one byte.")
    if len(raw) > KEY_BYTES_MAX:
        raise Unusable(f"a key has at most {KEY_BYTES_MAX} bytes; this one has {len(raw)}.")
    return raw


def is_dot_segment(key: bytes) -> bool:
    """Whether no URL can name the key: everything on the way would tidy it up, also percent-encoded."""
    return key in _DOT_SEGMENTS


def key_target(key: bytes) -> str:
    """The target of a key; every byte but the plainest is percent-encoded."""
    assert not is_dot_segment(key)
    return "/v1/kv/" + encoded(key)


def encoded(raw: bytes) -> str:
    """These bytes where a target may hold anything."""
    return "".join(chr(byte) if byte in _AS_THEY_ARE else f"%{byte:02X}" for byte in raw)


def with_query(path: str, parameters: Iterable[tuple[str, bytes | str]]) -> str:
    """The path with its query."""
    pairs = [f"{name}={encoded(os.fsencode(value))}" for name, value in parameters]
    return f"{path}?{'&'.join(pairs)}" if pairs else path


@dataclass(frozen=True, slots=True)
class Range:
    """Neighbouring keys: those with a prefix, or those from ``start`` on and before ``end``; both None: all."""

    prefix: bytes | None = None
    start: bytes | None = None
    end: bytes | None = None

    @property
    def is_all(self) -> bool:
        """Whether every key is in it."""
        return not (self.prefix or self.start or self.end)

    def parameters(self) -> list[tuple[str, bytes | str]]:
        """Its bounds as a query has them."""
        bounds = (("prefix", self.prefix), ("start", self.start), ("end", self.end))
        return [(name, bound) for name, bound in bounds if bound]


def range_of(*, prefix: str | None, start: str | None, end: str | None) -> Range:
    """The range that was typed."""
    if prefix is not None and (start is not None or end is not None):
        raise Unusable("a prefix and --start or --end contradict each other: give one or the other.")
    found = Range(*(None if bound is None else _bound(bound) for bound in (prefix, start, end)))
    if found.start and found.end and found.start >= found.end:
        raise Unusable("--start is not before --end, so no key could be between them. --end itself is not included.")
    return found


def _bound(bound: str) -> bytes:
    raw = os.fsencode(bound)
    if len(raw) > KEY_BYTES_MAX:
        raise Unusable(f"a bound has at most {KEY_BYTES_MAX} bytes, as keys have; this one has {len(raw)}.")
    return raw
