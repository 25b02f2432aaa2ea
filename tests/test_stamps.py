"""Cluster time in entries: who bears it, and what every replica reads from that."""

from __future__ import annotations

import struct

import pytest

from raftkv import frames as framing
from raftkv import stamps
from raftkv.core.types import Index
from raftkv.frames import EntryKind
from raftkv.state_machine import LogEntry
from tests.lone_replica import LoneReplica


def frames_of(*batches: tuple[int, list[bytes]]) -> list[bytes]:
    """What was proposed at those times, from index 5 on; no commands: a no-op."""
    found: list[bytes] = []
    for time_ms, commands in batches:
        bodies = stamps.bodies(commands, time_ms=time_ms) if commands else [b""]
        kinds = [EntryKind.COMMAND, *[EntryKind.FURTHER_COMMAND] * (len(bodies) - 1)] if commands else [EntryKind.NOOP]
        for kind, body in zip(kinds, bodies, strict=True):
            found.append(framing.encode(kind, term=1, index=5 + len(found), body=body))
    return found


def test_only_the_first_of_what_is_proposed_together_bears_the_time():
    assert stamps.bodies([b"a"], time_ms=7) == [struct.pack("<Q", 7) + b"a"]
    assert stamps.bodies([b"a", b"", b"c"], time_ms=2**40) == [struct.pack("<Q", 2**40) + b"a", b"", b"c"]


@pytest.mark.parametrize(
    ("batches", "before_ms", "times_ms"),
    [
        ([(10, [b"a"])], 0, [10]),
        ([(10, [b"a", b"b", b"c"])], 0, [10, 10, 10]),
        ([(10, [b"a", b"b"]), (12, [b"c", b"d"])], 0, [10, 10, 12, 12]),
        # Of a leader whose clock lags, alone and behind another's.
        ([(10, [b"a", b"b"])], 30, [30, 30]),
        ([(10, [b"a", b"b"]), (8, [b"c", b"d"])], 0, [10, 10, 10, 10]),
        # A no-op stands between; it has no time.
        ([(10, [b"a", b"b"]), (0, []), (11, [b"c"])], 0, [10, 10, 11]),
    ],
)
def test_an_entry_without_a_time_has_that_of_what_came_before_it(
    batches: list[tuple[int, list[bytes]]], before_ms: int, times_ms: list[int]
):
    frames = frames_of(*batches)
    commands = [command for _, proposed in batches for command in proposed]
    places = [index for index, frame in enumerate(frames, 5) if framing.kind(frame) != EntryKind.NOOP]
    found = stamps.entries(frames, Index(5), time_ms=before_ms)
    assert found.commands == [LogEntry(*each) for each in zip(places, times_ms, commands, strict=True)]
    assert found.passed == [index for index in range(5, 5 + len(frames)) if index not in places]
    assert found.time_ms == times_ms[-1]


def test_it_does_not_matter_where_what_is_read_is_cut():
    frames = frames_of((10, [b"a", b"b", b"c"]), (0, []), (9, [b"d", b"e"]), (14, [b"f", b"g"]))
    whole = stamps.entries(frames, Index(5), time_ms=3)
    for cut in range(len(frames) + 1):
        head = stamps.entries(frames[:cut], Index(5), time_ms=3)
        tail = stamps.entries(frames[cut:], Index(5 + cut), time_ms=head.time_ms)
        assert head.commands + tail.commands == whole.commands
        assert (head.passed + tail.passed, tail.time_ms) == (whole.passed, whole.time_ms)


def test_what_waits_together_is_proposed_with_one_time():
    """And costs a follower's disk and wire eight bytes less for each further entry."""
    lone = LoneReplica()
    lone.lead()
    first = lone.raft.last_index + 1
    for name in "xyz":
        lone.submit(name, then_turn=False)
    lone.turn()
    frames = lone.raft.state.log.frames_between(Index(first), lone.raft.last_index, bytes_max=10_000)
    assert frames is not None
    assert [framing.kind(frame) for frame in frames] == [1, 3, 3]
    assert [len(frame) for frame in frames] == [framing.HEADER_BYTES + 9, *[framing.HEADER_BYTES + 1] * 2]
