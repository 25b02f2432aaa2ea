"""Cluster time in the log: which entry bears it, and what every replica reads from that. Pure.

Told: commands and the time at which a leader proposes them; committed frames and the time before them. Tells: the
bodies of entries; commands with their times, the same on every node. May never know: clocks, or what a command means.

    COMMAND          cluster time u64, milliseconds, little-endian | command
    FURTHER_COMMAND  command

What is proposed together has one time: only its first entry bears it. An entry without it has the time of what came
before it in the log, which is the same wherever the entry is; behind a snapshot the snapshot says it.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from raftkv import frames as framing
from raftkv.core.types import Index
from raftkv.state_machine import LogEntry

_STAMP: Final = struct.Struct("<Q")
_STAMP_AT: Final = framing.HEADER_BYTES
_COMMAND_AT: Final = _STAMP_AT + _STAMP.size
_FURTHER_AT: Final = framing.HEADER_BYTES


class Entries(NamedTuple):
    """What a part of the log says to the machine."""

    commands: list[LogEntry]
    passed: list[Index]
    """Entries that say nothing to it."""
    time_ms: int
    """Cluster time after them."""


def bodies(commands: list[bytes], *, time_ms: int) -> list[bytes]:
    """Of the entries, a COMMAND and then FURTHER_COMMANDs, by which these are proposed at that time."""
    return [_STAMP.pack(time_ms) + commands[0], *commands[1:]]


def entries(frames: list[bytes], first: Index, *, time_ms: int) -> Entries:
    """What stands in them, the first at that index, where cluster time was ``time_ms`` before them.

    A stamp of a leader whose clock lags raises nothing: cluster time never falls.
    """
    commands: list[LogEntry] = []
    passed: list[Index] = []
    stamped, further = int(framing.EntryKind.COMMAND), int(framing.EntryKind.FURTHER_COMMAND)
    at = framing.KIND_OFFSET
    for index, frame in enumerate(frames, first):
        kind = frame[at]
        if kind == further:
            commands.append(LogEntry(index, time_ms, frame[_FURTHER_AT:]))
        elif kind == stamped:
            (stamp_ms,) = _STAMP.unpack_from(frame, _STAMP_AT)
            time_ms = max(time_ms, stamp_ms)
            commands.append(LogEntry(index, time_ms, frame[_COMMAND_AT:]))
        else:
            passed.append(Index(index))
    return Entries(commands, passed, time_ms)
