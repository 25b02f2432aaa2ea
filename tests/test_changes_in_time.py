"""By when a change of members is given up, whoever leads and however late the log thinks it is (faults 29)."""

from __future__ import annotations

import struct

from raftkv import frames as framing
from raftkv.core.messages import AppendEntriesReply
from raftkv.core.settings import RaftSettings
from raftkv.core.types import Configuration, Index, Intent, Learner, Membership, Term
from tests.lone_replica import LoneReplica
from tests.test_changing import SETTINGS, add_d, append, configuration_frame, member, membership

HOUR_MS = 3_600_000


def catching_up_until(lone: LoneReplica, deadline_ms: int, *, term: int) -> None:
    """Another leader let d in, and set this deadline by its own clock; then this node leads."""
    d = Learner(member("d"), Intent.VOTER, deadline_ms)
    index = lone.raft.last_index + 1
    begun = Configuration(Membership(membership("abc").voters, (d,)))
    append(lone, term, [configuration_frame(index, term, begun)], prev=index - 1, commit=index - 1)
    lone.lead()
    assert lone.raft.change_status is not None


def test_each_time_that_a_node_leads_it_finds_out_how_far_it_is_behind():
    """What it was behind in an earlier term says nothing: others have led since, for longer than it knows."""
    lone = LoneReplica(settings=SETTINGS)
    for hours in (1, 3):
        catching_up_until(lone, hours * HOUR_MS, term=lone.raft.term + 1)
        for _ in range(25):
            lone.turn(100_000)
            lone.acknowledge("b", "c")
        assert lone.raft.configuration == Configuration(membership("abc"))


def stamped(first: int, stamps_ms: list[int]) -> list[bytes]:
    """Commands of term 1 that were proposed at these times."""
    kind, stamp = framing.EntryKind.COMMAND, struct.Struct("<Q")
    return [framing.encode(kind, term=1, index=i, body=stamp.pack(ms) + b"x") for i, ms in enumerate(stamps_ms, first)]


def test_a_leader_that_has_much_to_apply_sets_no_deadline_before_it_knows_how_late_it_is():
    """What it has not applied yet may be of hours, and the node would have failed to catch up when that is."""
    lone = LoneReplica(settings=SETTINGS, raft_settings=RaftSettings(apply_entries_max=1))
    append(lone, 1, stamped(1, [0, 0, HOUR_MS]), prev=0, commit=0)
    lone.win()
    lone.says("b", acknowledged(lone), then_turn=False)
    add_d(lone)
    assert lone.raft.applied_index < 4 and lone.raft.commit_index == 4
    for _ in range(10):
        lone.turn(10_000)
        lone.acknowledge("b", "c")
    assert lone.raft.change_status is not None and lone.outcome("d") is None


def acknowledged(lone: LoneReplica) -> AppendEntriesReply:
    return AppendEntriesReply(lone.raft.term, True, Index(0), lone.raft.last_index, Term(0), Index(0))
