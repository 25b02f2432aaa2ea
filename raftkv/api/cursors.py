"""Cursors: where a range goes on after a page. Opaque to clients, valid on every node.

Told: bounds, a direction and the last key of a page. Tells: a cursor, and from one again what is left of the range.
May never know: which keys there are.

    version u8 | flags u8 | digest of the bounds, 8 bytes | length of the last key u16 | last key |
    the bound that lies ahead | checksum of all before it, 8 bytes

as base64url without padding. Of the bounds only the one ahead is needed to go on; the digest is there to tell
whether bounds that are given beside a cursor are its own. So the longest one fits into a target.
"""

from __future__ import annotations

import binascii
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import blake2b
from typing import Final, NamedTuple

from raftkv.api.problems import RequestRefused, bad_request
from raftkv.kv.commands import BOUND_BYTES_MAX, KEY_BYTES_MAX
from raftkv.kv.ranges import Bounds, right_after

_VERSION: Final = 1
_REVERSE: Final = 1
_IS_BOUNDED: Final = 2
_DIGEST_BYTES: Final = 8
_HEADER: Final = struct.Struct(f"<BB{_DIGEST_BYTES}sH")
_LENGTH: Final = struct.Struct("<H")
_ALPHABET: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
CURSOR_CHARS_MAX: Final = -(-(_HEADER.size + KEY_BYTES_MAX + BOUND_BYTES_MAX + _DIGEST_BYTES) * 4 // 3)


class Cursor(NamedTuple):
    """A place in a range."""

    digest: bytes
    """Of the bounds of the whole range."""
    reverse: bool
    last_key: bytes
    ahead: bytes | None
    """The bound that is not reached yet; None: it goes on to the last key."""

    @property
    def rest(self) -> Bounds:
        """What is left of the range."""
        if self.reverse:
            return Bounds(self.ahead or b"", self.last_key)
        return Bounds(right_after(self.last_key), self.ahead)


def cursor_after(bounds: Bounds, *, reverse: bool, last_key: bytes) -> Cursor:
    """The place behind this key, in a range with these bounds."""
    return Cursor(digest_of(bounds), reverse, last_key, bounds.start if reverse else bounds.end)


def digest_of(bounds: Bounds) -> bytes:
    """Tells ranges apart."""
    end = b"" if bounds.end is None else b"\x01" + bounds.end
    return _digest(_LENGTH.pack(len(bounds.start)) + bounds.start + end)


def write_cursor(cursor: Cursor) -> str:
    """As clients get it."""
    flags = (_REVERSE if cursor.reverse else 0) | (_IS_BOUNDED if cursor.ahead is not None else 0)
    header = _HEADER.pack(_VERSION, flags, cursor.digest, len(cursor.last_key))
    packed = header + cursor.last_key + (cursor.ahead or b"")
    return urlsafe_b64encode(packed + _digest(packed)).rstrip(b"=").decode()


def read_cursor(raw: bytes) -> Cursor:
    """The other way; raises RequestRefused for anything that ``write_cursor`` does not make."""
    packed = _decoded(raw)
    if len(packed) < _HEADER.size + _DIGEST_BYTES or _digest(packed[:-_DIGEST_BYTES]) != packed[-_DIGEST_BYTES:]:
        raise _bad_cursor()
    version, flags, digest, key_bytes = _HEADER.unpack_from(packed)
    if version != _VERSION:
        raise bad_request("this cursor is of another version of raftkv; begin the range anew")
    key_end = _HEADER.size + key_bytes
    last_key, ahead = packed[_HEADER.size : key_end], packed[key_end:-_DIGEST_BYTES]
    cursor = Cursor(digest, bool(flags & _REVERSE), last_key, ahead if flags & _IS_BOUNDED else None)
    if not 1 <= len(last_key) <= KEY_BYTES_MAX or len(ahead) > BOUND_BYTES_MAX or write_cursor(cursor) != raw.decode():
        raise _bad_cursor()
    return cursor


def _decoded(raw: bytes) -> bytes:
    if not _ALPHABET.issuperset(raw) or len(raw) > CURSOR_CHARS_MAX:
        raise _bad_cursor()
    try:
        return urlsafe_b64decode(raw + b"=" * (-len(raw) % 4))
    except binascii.Error as error:
        raise _bad_cursor() from error


def _bad_cursor() -> RequestRefused:
    return bad_request("this is no cursor of ours; take it from the answer as it is, or begin the range anew")


def _digest(packed: bytes) -> bytes:
    return blake2b(packed, digest_size=_DIGEST_BYTES, person=b"raftkv cursor").digest()
