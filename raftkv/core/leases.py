"""Leases: a leader that knows by the clock that nobody else can have led (thesis §6.4.1). Off by default.

Every echo of a read round is a promise too: the voter gives no vote for so long since it heard the round.
The leader counts from when it *sent* that round, which was earlier, by its own clock, which may be slower,
so that by its count each promise is over before it is over at the voter. While a majority of each voter set
is bound, nobody else is elected.

    leader   sent ├────── E less the drift bound ──────┤ lease over
    voter           heard ├──────────────── E ────────────────┤ may vote

A candidate that the leader itself sends (TimeoutNow) needs no free votes, so the leader forgoes its lease
when it sends one. A voter that starts again counts its start as having heard the leader.
"""

from __future__ import annotations

from raftkv.core import replication, rules
from raftkv.core.messages import HeartbeatReply
from raftkv.core.state import State
from raftkv.core.types import NodeId


def promised_until_us(state: State, *, sent_us: int | None, reply: HeartbeatReply) -> int:
    """Until when, by this leader's clock, the echoing voter is bound; ``sent_us`` is of the round that it echoes."""
    if sent_us is None:
        return 0
    return sent_us + rules.lease_duration_us(
        promised_us=reply.withholds_ms * 1000, clock_drift_max_per_mille=state.settings.clock_drift_max_per_mille
    )


def end_us(state: State) -> int:
    """When this leader's lease is over. Its own vote is bound by its office."""
    assert state.office is not None
    peers = state.office.progress.items()
    promised: dict[NodeId, int] = {peer: progress.echo.promised_until_us for peer, progress in peers}
    return rules.lease_end_us(state.voter_sets, state.with_own(promised, state.now_us + state.settings.lease_us))


def is_held(state: State, *, now_us: int) -> bool:
    """Whether reads may be answered without a round at ``now_us``, a reading of this node's clock.

    An earlier time than the core has seen already prolongs nothing.
    """
    office = state.office
    if office is None or not state.settings.lease_reads or not replication.may_serve(state, office):
        return False
    newest_us = max(now_us, state.now_us)
    return rules.lease_is_held(end_us=end_us(state), now_us=newest_us, forgone=office.lease_forgone)
