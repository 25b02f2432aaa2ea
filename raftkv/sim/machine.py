"""What a state machine has to offer to be simulated, besides being one."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any, Final, Protocol

from raftkv.state_machine import LogEntry

NEEDED: Final = {
    "apply_batch": "apply_batch(entries) -> answers",
    "query": "query(query) -> answer",
    "snapshot": "snapshot() -> bytes",
    "restore": "restore(snapshot)",
    "random_command": "random_command(rng) -> bytes",
    "random_query": "random_query(rng) -> query",
}
"""By name, as they are called."""


class SimulatedMachine(Protocol):
    """A state machine that the simulator can drive: the four methods of ``StateMachine``, and two more.

    Nothing has to be inherited; a class that has these methods, and can be made without arguments, will do. The
    two are asked of a machine that holds what is committed so far; they draw from ``rng`` and from nothing else, and
    change nothing. Answers, and answers to queries, are compared with ``==``.

    A method ``check()`` may be there as well: it is called after every batch on every replica, and raises when
    something that must hold of the machine's own state does not.
    """

    def apply_batch(self, entries: Sequence[LogEntry]) -> Sequence[Any]:
        """As in ``StateMachine``: total and deterministic, one answer for each entry."""
        ...

    def query(self, query: Any) -> Any:
        """As in ``StateMachine``: it changes nothing."""
        ...

    def snapshot(self) -> bytes:
        """As in ``StateMachine``: equal states give equal bytes, unless ``state_hash`` tells equal states."""
        ...

    def restore(self, snapshot: bytes) -> None:
        """As in ``StateMachine``: whoever was restored goes on like the one that the snapshot is of."""
        ...

    def random_command(self, rng: Random) -> bytes:
        """A command that some client could submit; of every sort, also such as are refused."""
        ...

    def random_query(self, rng: Random) -> Any:
        """A query that some client could ask."""
        ...


def missing_in(machine: object) -> list[str]:
    """What it lacks to be simulated, as it would be called."""
    return [call for name, call in NEEDED.items() if not callable(getattr(machine, name, None))]
