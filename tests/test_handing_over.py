"""When a leader hands over, for a change of members (paper §6) or because somebody asks, and when it had better not."""

from __future__ import annotations

from raftkv.core.messages import TimeoutNowReply
from raftkv.members import MembersWhy, Remove
from raftkv.outcomes import TransferOutcome, TransferRefused, TransferWhy
from tests.core.lone import B
from tests.lone_replica import leading
from tests.test_changing import catching_up, why_not, wish_for


def test_while_a_change_runs_nobody_hands_over_for_the_next():
    """Faults 24: it would be refused by the successor too, and the cluster had elected for nothing."""
    lone = catching_up()
    wish_for(lone, "a", Remove("a"))
    assert why_not(lone, "a") is MembersWhy.IN_PROGRESS
    assert lone.raft.takes_proposals


def test_who_asks_again_as_soon_as_it_is_told_is_heard():
    """Faults 20: what it was told about is over by then."""
    lone = leading()
    told: list[TransferOutcome] = []

    def done(outcome: TransferOutcome) -> None:
        told.append(outcome)
        if len(told) == 1:
            lone.replica.transfer_leadership(B, done)

    lone.replica.transfer_leadership(B, done)
    for count in (1, 2):
        lone.turn()
        lone.says("b", TimeoutNowReply(lone.raft.term, accepted=False))
        assert told == [TransferRefused(TransferWhy.TIMED_OUT)] * count
