"""A transfer of leadership that somebody asked this replica for: what became of it.

Told: who is to lead, and each turn the time. Tells whoever asked, once, who leads, or why nobody else does. May never
know: how the core hands over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from raftkv.core.raft import Raft
from raftkv.core.types import NodeId, Role
from raftkv.outcomes import TransferOutcome, Transferred, TransferRefused, TransferWhy


@dataclass(slots=True)
class _Waiting:
    """Somebody who asked and was not answered."""

    term: int
    """In which this node led."""
    done: Callable[[TransferOutcome], None]
    deadline_us: int


class Transferring:
    """At most one transfer at a time."""

    def __init__(self, raft: Raft, url_of: Callable[[str], str | None]) -> None:
        """``url_of`` tells where clients reach a member; None: not known."""
        self._raft, self._url_of = raft, url_of
        self._waiting: _Waiting | None = None

    def ask(self, target: NodeId | None, done: Callable[[TransferOutcome], None], *, deadline_us: int) -> None:
        """Hands over to that voter, or to the best placed; ``done`` is called at once or by ``settle``."""
        raft = self._raft
        if raft.role is not Role.LEADER:
            return done(TransferRefused(TransferWhy.NOT_LEADER))
        if target == raft.state.me.id:
            return done(Transferred(target, self._url_of(target) or "", raft.term, changed=False))
        why = self._why_not(target)
        if why is not None:
            return done(TransferRefused(why))
        raft.transfer_leadership(target)
        self._waiting = _Waiting(raft.term, done, deadline_us)
        return None

    def settle(self, now_us: int) -> None:
        """Whoever waits is told as soon as it is decided."""
        waiting = self._waiting
        outcome = None if waiting is None else self._outcome(waiting, now_us)
        if waiting is not None and outcome is not None:
            self._waiting = None
            waiting.done(outcome)

    @property
    def deadline_us(self) -> int | None:
        """When to look again at the latest."""
        return None if self._waiting is None else self._waiting.deadline_us

    def _why_not(self, target: NodeId | None) -> TransferWhy | None:
        state = self._raft.state
        if self._waiting is not None or (state.office is not None and state.office.transfer is not None):
            return TransferWhy.IN_PROGRESS
        others = state.other_voters()
        if not others:
            return TransferWhy.NO_OTHER_VOTER
        if target is not None and target not in state.configurations.members:
            return TransferWhy.NO_SUCH_MEMBER
        if target is not None and target not in others:
            return TransferWhy.NOT_A_VOTER
        if target is None and self._raft.best_placed is None:
            return TransferWhy.NO_OTHER_VOTER
        return None

    def _outcome(self, waiting: _Waiting, now_us: int) -> TransferOutcome | None:
        """None: not decided yet."""
        raft, office = self._raft, self._raft.state.office
        goes_on = office is None or (raft.term == waiting.term and office.transfer is not None)
        if not goes_on or now_us >= waiting.deadline_us:
            return TransferRefused(TransferWhy.TIMED_OUT)
        leader = raft.leader_id
        if office is None and leader is not None and raft.term > waiting.term:
            return Transferred(leader, self._url_of(leader) or "", raft.term)
        return None
