"""What a disk has promised, and what it holds."""

from __future__ import annotations

from raftkv import frames as framing
from raftkv.core.effects import DiskWrite, LogBase
from raftkv.core.types import Configuration, Index, Term, Ticket, membership_of
from raftkv.sim.world.shadow import Shadow

BASE = LogBase(Index(0), Term(0), Configuration(membership_of([])))


def frame(index: int, term: int = 1) -> bytes:
    return framing.encode(framing.EntryKind.COMMAND, term=term, index=index)


def holding(*frames: bytes) -> Shadow:
    shadow = Shadow(BASE)
    shadow.frames = list(frames)
    return shadow


def test_what_a_disk_held_before_it_was_emptied_was_promised():
    shadow = holding()
    shadow.emptied.append(holding(frame(1), frame(2)))
    assert shadow.was_promised(2, frame(2))
    assert not shadow.was_promised(2, frame(2, term=2)), "another entry at its index"
    assert not shadow.was_promised(3, frame(3)), "what was never there"


def test_what_is_not_durable_is_no_promise():
    shadow = holding(frame(1))
    shadow.unfinished.append(DiskWrite(Ticket(1), frames=[frame(2)]))
    assert shadow.was_promised(1, frame(1))
    assert not shadow.was_promised(2, frame(2))
    shadow.finish_one()
    assert shadow.was_promised(2, frame(2))
