"""A change of members, from the request to its end (paper §6, thesis §4): who joins catches up, C_old,new, C_new.

Everything rests on the log: whoever leads reads from the configuration in force how far the change has come,
and takes the next step. Only how far a learner has caught up is known to the leader alone.
"""

from __future__ import annotations

from raftkv.core.state import State
from raftkv.core.types import ChangeStatus, Index, Member, Membership, NodeId


def begin(state: State, target: Membership, *, deadline_ms: int | None, force: bool) -> Index:
    """Appends the first configuration on the way to ``target``; ChangeRefused says why not. The caller leads."""
    raise NotImplementedError


def contacts(state: State) -> dict[NodeId, Member]:
    """Everybody to whom messages may go."""
    return dict(state.configurations.members)


def status(state: State) -> ChangeStatus | None:
    """The change that is under way, for people."""
    del state
    return None
