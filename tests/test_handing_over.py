"""When a leader hands over for a change of members (paper §6), and when it had better not."""

from __future__ import annotations

from raftkv.members import MembersWhy, Remove
from tests.test_changing import catching_up, why_not, wish_for


def test_while_a_change_runs_nobody_hands_over_for_the_next():
    """Faults 24: it would be refused by the successor too, and the cluster had elected for nothing."""
    lone = catching_up()
    wish_for(lone, "a", Remove("a"))
    assert why_not(lone, "a") is MembersWhy.IN_PROGRESS
    assert lone.raft.takes_proposals
