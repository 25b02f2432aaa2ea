"""What an embedder implements to have a state machine of their own replicated.

The machine is deterministic: the same entries give the same answers and the same state on every node. It
may not read a clock, draw a random number, or let the order of a set or a hash be seen; the time it may
use is ``stamp_ms``, the cluster's time, which the log carries and which never falls.

A machine begins empty each time a node starts: what the log holds is applied to it anew. So it keeps nothing
on disk itself, and an object that has served a node once serves no second one.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, Protocol

SUBMITTED_BYTES_MAX: Final = 4 * 1024 * 1024
"""The largest command that an embedder may submit."""


class LogEntry(NamedTuple):
    """One committed command, as the machine sees it."""

    log_index: int
    """Its place in the log; strictly rising, with gaps (the log holds other things too)."""
    stamp_ms: int
    """Cluster time: milliseconds that the leaders' clocks have counted, never falling, no calendar."""
    command: bytes
    """What was submitted."""


class StateMachine(Protocol):
    """The replicated state. Inherit from it, and four methods are yours to write; the others have defaults.

    Every method runs on the event loop, so it must return soon, and never awaits. ``snapshot`` and ``restore``
    belong to the four from the beginning: the log of a cluster whose machine had none could never be cut.
    """

    @abstractmethod
    def apply_batch(self, entries: Sequence[LogEntry]) -> Sequence[Any]:
        """Executes the commands in order; answers one result for each, ``entries`` may be empty.

        Total: a command that it cannot execute gets an answer that says so. An exception means that this
        machine is broken; the node halts rather than skip an entry, and so, soon, does every other one.
        """
        ...

    @abstractmethod
    def query(self, query: Any) -> Any:
        """Answers from the state as it is now; changes nothing. What it raises goes to whoever asked."""
        ...

    @abstractmethod
    def snapshot(self) -> bytes:
        """The whole state, to be read back by ``restore``. Equal states should give equal bytes."""
        ...

    @abstractmethod
    def restore(self, snapshot: bytes) -> None:
        """Replaces the state by what ``snapshot`` returned on some node, perhaps one of an older version."""
        ...

    def tick_due_ms(self) -> int | None:
        """The cluster time at which something of the machine runs out by itself; None: nothing will.

        Once that time has come the leader proposes ``tick_command()``.
        """
        return None

    def tick_command(self) -> bytes:
        """A command that does nothing but let the machine see the time; asked for only when a tick is due."""
        return b""

    def state_hash(self) -> int | None:
        """128 bits over the whole state: equal on two nodes exactly when their states are equal.

        None: it is not known, and replicas are not compared. Never Python's own ``hash``, which differs from
        one process to the next.
        """
        return None
