"""What an embedder implements to have a state machine of their own replicated.

The machine is deterministic: the same entries give the same answers and the same state on every node. It
may not read a clock, draw a random number, or let the order of a set or a hash be seen; the time it may
use is ``stamp_ms``, the cluster's time, which the log carries and which never falls.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol


class LogEntry(NamedTuple):
    """One committed command, as the machine sees it."""

    log_index: int
    """Its place in the log; strictly rising, with gaps (the log holds other things too)."""
    stamp_ms: int
    """Cluster time: milliseconds that the leaders' clocks have counted, never falling, no calendar."""
    command: bytes
    """What was submitted."""


class StateMachine(Protocol):
    """The replicated state. Every method runs on the event loop and must return soon."""

    def apply_batch(self, entries: Sequence[LogEntry]) -> Sequence[Any]:
        """Executes the commands in order; answers one result for each.

        Total: a command that it cannot execute gets an answer that says so. An exception means that this
        machine is broken; the node halts rather than skip an entry.
        """
        ...

    def query(self, query: Any) -> Any:
        """Answers from the state as it is now; changes nothing."""
        ...

    def tick_due_ms(self) -> int | None:
        """The cluster time at which something of the machine runs out by itself; None: nothing will.

        Once that time has come the leader proposes ``tick_command()``.
        """
        ...

    def tick_command(self) -> bytes:
        """A command that does nothing but let the machine see the time."""
        ...

    def state_hash(self) -> int:
        """128 bits over the whole state: equal on two nodes exactly when their states are equal."""
        ...

    def snapshot(self) -> bytes:
        """The whole state, to be read back by ``restore``."""
        ...

    def restore(self, snapshot: bytes) -> None:
        """Replaces the state by what ``snapshot`` returned on some node."""
        ...
