"""One key's record: a tuple for whoever reads it, a single ``bytes`` in the table.

Told: fields. Tells: bytes, and back. May never know: the key.

    create_revision u64 | mod_revision u64 | version u64 | lease u64 | value

Little-endian. The garbage collector does not follow bytes, so a table of millions costs it nothing.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

_HEADER: Final = struct.Struct("<QQQQ")
HEADER_BYTES: Final = _HEADER.size
NO_LEASE: Final = 0

header = _HEADER.unpack_from
"""(create_revision, mod_revision, version, lease) of a packed record, without copying the value."""


class Record(NamedTuple):
    """What a key holds. Revisions are the store's."""

    create_revision: int
    mod_revision: int
    """Of the newest put; a key's ETag."""
    version: int
    """Puts since the key was created."""
    lease: int
    """NO_LEASE: it does not run out."""
    value: bytes


def pack(*, create_revision: int, mod_revision: int, version: int, value: bytes) -> bytes:
    """The bytes that the table holds."""
    return _HEADER.pack(create_revision, mod_revision, version, NO_LEASE) + value


def unpack(packed: bytes) -> Record:
    """The record in these bytes; at least HEADER_BYTES of them."""
    create_revision, mod_revision, version, lease = _HEADER.unpack_from(packed)
    return Record(create_revision, mod_revision, version, lease, packed[HEADER_BYTES:])


def unpack_header(packed: bytes) -> Record:
    """The record in these bytes with an empty value in place of its own."""
    create_revision, mod_revision, version, lease = _HEADER.unpack_from(packed)
    return Record(create_revision, mod_revision, version, lease, b"")
