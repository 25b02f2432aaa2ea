"""When a replica's state is hashed, so that replicas can be compared: at indexes at which others do it, too.

Told: what is applied, the time. Tells the core the hash of the state at every multiple of an interval, which all nodes
have alike; and, where nothing comes for a heartbeat interval, as the state stands: else in a quiet cluster nobody would
know for days that a state is wrong, or that one that was captured is right. May never know: who compares, and what for.
"""

from __future__ import annotations

from typing import Final

from raftkv.core.raft import Raft
from raftkv.core.types import Index
from raftkv.state_machine import StateMachine

STATE_HASH_BYTES: Final = 16


class Comparing:
    """The hashes of one replica's state."""

    __slots__ = ("_applied_us", "_interval", "_machine", "_noted_index", "_raft")

    def __init__(self, raft: Raft, machine: StateMachine, *, interval_entries: int) -> None:
        self._raft, self._machine, self._interval = raft, machine, interval_entries
        self._applied_us = 0
        """When something was applied last."""
        self._noted_index = Index(0)
        """Where the state's hash was noted last."""

    def until_next(self, first: Index) -> int:
        """So many entries from ``first`` on may be applied in one go."""
        return self._interval - (first - 1) % self._interval

    def applied(self, last: Index, *, now_us: int) -> None:
        """Everything up to ``last`` is in the machine."""
        self._applied_us = now_us
        if last % self._interval == 0:
            self._note(last)

    def stands(self, *, now_us: int) -> None:
        """All is applied that is to be applied now."""
        index = self._raft.applied_index
        quiet_us = self._raft.state.settings.heartbeat_us
        if index != self._noted_index and now_us - self._applied_us >= quiet_us:
            self._note(index)

    def _note(self, index: Index) -> None:
        self._noted_index = index
        state_hash = self._machine.state_hash()
        if state_hash is not None:
            self._raft.machine_hash(index, state_hash.to_bytes(STATE_HASH_BYTES, "little"))
