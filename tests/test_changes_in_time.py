"""By when a change of members is given up, whoever leads and however late the log thinks it is (faults 29)."""

from __future__ import annotations

from raftkv.core.types import Configuration, Intent, Learner, Membership
from tests.lone_replica import LoneReplica
from tests.test_changing import SETTINGS, append, configuration_frame, member, membership

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
