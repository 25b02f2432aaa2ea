"""One log entry, encoded once: the same bytes in memory, on the wire and on disk.

    length u32 | crc32c u32 | kind u8 | term u64 | index u64 | body

All numbers are little-endian. ``length`` counts what follows the checksum (17 bytes and the body); the
checksum covers exactly that. The leader makes a frame when it proposes; a follower checks it and writes
it as it came. A batch of entries is a plain join of frames.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final

import google_crc32c

from raftkv.errors import FrameError

PREFIX_BYTES: Final = 8
"""length and crc."""
FIXED_BYTES: Final = 17
"""kind, term and index: the least that ``length`` can say."""
HEADER_BYTES: Final = PREFIX_BYTES + FIXED_BYTES
BODY_BYTES_MAX: Final = 16 * 1024 * 1024
"""No node accepts a larger body, whatever its settings."""

KIND_OFFSET: Final = PREFIX_BYTES

_PREFIX = struct.Struct("<II")
_FIXED = struct.Struct("<BQQ")
_TERM_INDEX = struct.Struct("<QQ")


class EntryKind(IntEnum):
    """What an entry is for: only commands reach the state machine."""

    NOOP = 0
    COMMAND = 1
    CONFIGURATION = 2
    FURTHER_COMMAND = 3
    """Proposed together with the command before it: what holds for all of them stands only in the first."""


_KIND_MAX: Final = max(EntryKind)


def encode(kind: EntryKind, *, term: int, index: int, body: bytes = b"") -> bytes:
    """The frame of one entry."""
    assert len(body) <= BODY_BYTES_MAX, "the caller bounds bodies before it proposes"
    checked = _FIXED.pack(kind, term, index) + body
    return _PREFIX.pack(len(checked), google_crc32c.value(checked)) + checked


def kind(frame: bytes) -> int:
    """An ``EntryKind`` as a plain number, cheap enough for the hot path."""
    return frame[KIND_OFFSET]


def term_and_index(frame: bytes) -> tuple[int, int]:
    """The entry's term and index, read without checking the frame again."""
    term, index = _TERM_INDEX.unpack_from(frame, KIND_OFFSET + 1)
    return term, index


def checksum_bytes(frame: bytes) -> bytes:
    """The four bytes of the frame's checksum as they stand in it."""
    return frame[4:8]


def body(frame: bytes) -> bytes:
    """What the proposer put in."""
    return frame[HEADER_BYTES:]


def split(joined: bytes) -> list[bytes]:
    """The frames of a join, each with its length and checksum proved.

    Raises FrameError at the first byte that is not a whole, sound frame; allocates nothing for a length
    that the input does not hold.
    """
    found: list[bytes] = []
    offset, end = 0, len(joined)
    value = google_crc32c.value
    while offset < end:
        if end - offset < HEADER_BYTES:
            raise FrameError("cut short", offset=offset)
        length, crc = _PREFIX.unpack_from(joined, offset)
        if not FIXED_BYTES <= length <= FIXED_BYTES + BODY_BYTES_MAX:
            raise FrameError(f"impossible length {length}", offset=offset)
        start = offset + PREFIX_BYTES
        stop = start + length
        if stop > end:
            raise FrameError("cut short", offset=offset)
        if joined[start] > _KIND_MAX:
            raise FrameError(f"unknown kind {joined[start]}", offset=offset)
        if value(joined[start:stop]) != crc:
            raise FrameError("checksum does not match", offset=offset)
        found.append(joined[offset:stop])
        offset = stop
    return found
