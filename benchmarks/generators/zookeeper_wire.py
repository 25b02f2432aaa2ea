"""As much of ZooKeeper's own protocol as a load needs: frames to send, and what answers say. Pure."""

from __future__ import annotations

import struct
from typing import Final

CREATE, GET, SET, SYNC = 1, 4, 5, 9
OK: Final = 0
NODE_EXISTS: Final = -110
_ANYONE: Final = struct.pack(">ii", 1, 31) + struct.pack(">i5s", 5, b"world") + struct.pack(">i6s", 6, b"anyone")
"""An access list of one: everybody may do everything."""


class Refused(Exception):
    """A request was answered with an error."""


def _string(data: bytes) -> bytes:
    return struct.pack(">i", len(data)) + data


def framed(payload: bytes) -> bytes:
    """As it goes over the wire."""
    return _string(payload)


def connect(timeout_ms: int = 30_000) -> bytes:
    """Asks for a session; its answer is a frame of its own kind."""
    return framed(struct.pack(">iqiq", 0, 0, timeout_ms, 0) + _string(bytes(16)) + b"\0")


def create(xid: int, path: bytes, data: bytes) -> bytes:
    """A node that stays."""
    return framed(struct.pack(">ii", xid, CREATE) + _string(path) + _string(data) + _ANYONE + struct.pack(">i", 0))


def set_data(xid: int, path: bytes, data: bytes) -> bytes:
    """Whatever version is there."""
    return framed(struct.pack(">ii", xid, SET) + _string(path) + _string(data) + struct.pack(">i", -1))


def get_data(xid: int, path: bytes) -> bytes:
    """Without a watch."""
    return framed(struct.pack(">ii", xid, GET) + _string(path) + b"\0")


def sync(xid: int, path: bytes) -> bytes:
    """What follows on this connection sees all that was committed before."""
    return framed(struct.pack(">ii", xid, SYNC) + _string(path))


def frame_of(buffer: bytes | bytearray, at: int) -> tuple[int, int] | None:
    """Where the frame at ``at`` begins and ends; None: it is not whole yet."""
    if len(buffer) - at < 4:
        return None
    (length,) = struct.unpack_from(">i", buffer, at)
    first, end = at + 4, at + 4 + length
    return (first, end) if len(buffer) >= end else None


def error_of(buffer: bytes | bytearray, first: int) -> int:
    """What an answer says: 0 when all is well."""
    (code,) = struct.unpack_from(">i", buffer, first + 12)
    return int(code)


def session_is_given(buffer: bytes | bytearray, first: int) -> bool:
    """Of the answer to ``connect``: the time that the session may be silent is above 0."""
    (timeout_ms,) = struct.unpack_from(">i", buffer, first + 4)
    return bool(timeout_ms > 0)
