"""The whole state as bytes.

Told: the table, the sessions, the cluster time, the state hash. Tells: bytes, and the same things back. May
never know: files, and what log index the state is of.

    msgpack [1, revision, time_ms, [[key, packed record] …], [[id, ttl_ms, expires_ms, acknowledged,
    [[number, stored answer] …]] …], state hash]

Keys, ids and numbers are in order, so equal states have equal bytes.
"""

from __future__ import annotations

import struct
from typing import Any, Final, NamedTuple

import msgpack

from raftkv.errors import SnapshotError
from raftkv.kv.hashing import HASH_BYTES
from raftkv.kv.sessions import Sessions
from raftkv.kv.table import Table

FORMAT: Final = 1
REVISION_RAISE: Final = 2**32
"""What a restored or forced cluster's revision is raised by: nobody has handed out as many since the snapshot."""


class State(NamedTuple):
    """What a snapshot holds."""

    table: Table
    sessions: Sessions
    time_ms: int
    state_hash: int
    """As it was when the snapshot was taken; whoever restores compares."""


def pack(state: State) -> bytes:
    """The bytes to keep."""
    packed: bytes = msgpack.packb(
        (
            FORMAT,
            state.table.revision,
            state.time_ms,
            state.table.packed_records(),
            state.sessions.dump(),
            state.state_hash.to_bytes(HASH_BYTES, "little"),
        )
    )
    return packed


def unpack(packed: bytes) -> State:
    """The state in these bytes, its hash not yet compared; raises SnapshotError where there is none."""
    try:
        found = msgpack.unpackb(packed, use_list=False)
        if type(found) is not tuple or not found or found[0] != FORMAT:
            raise SnapshotError("a snapshot of an unknown format")
        _, revision, time_ms, records, sessions, state_hash = found
        return State(
            Table(revision=_count(revision), packed_records=records),
            Sessions.load(sessions),
            _count(time_ms),
            int.from_bytes(state_hash, "little"),
        )
    except (ValueError, TypeError, struct.error, msgpack.UnpackException) as error:
        raise SnapshotError(f"not a snapshot: {error}") from error


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise TypeError("a count is not one")
    return value
