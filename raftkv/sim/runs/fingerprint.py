"""What a node is, apart from what makes no difference to what it will do: equal nodes have equal fingerprints.

Told: any object of the core, and what time it is there. Tells: a tree of plain values. Everything in the object counts,
also what is added to it one day, but for what stands here:

- a moment (its name ends in ``_us``) counts as how long ago it is, and beyond an election timeout as long ago;
- how long something took counts as it is, and a ticket from the last one that was handed out;
- what is only about leases and the age of stale reads, which are never asked for where fingerprints are taken.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import Any, Final

from raftkv.core.durability import Durability
from raftkv.core.raft import Raft
from raftkv.core.settings import RaftSettings

Tree = Any

_LEFT_OUT: Final = frozenset(
    {"me", "settings", "rng", "now_us", "notes"}
    | {"freshness", "dates", "came_us", "heard_us", "promised_until_us", "newest_confirmed", "lease_forgone"}
)
_PLAIN: Final = (int, str, bytes, bool, type(None))


class Fingerprints:
    """Of nodes with one and the same settings."""

    def __init__(self, settings: RaftSettings) -> None:
        self._timeout_us = settings.election_timeout_us

    def of(self, raft: Raft, *beside: object) -> Tree:
        """Of a core, and of whatever counts beside it."""
        state = raft.state
        reader = _Reader(state.now_us, self._timeout_us, state.durability)
        return reader.tree(state), *(reader.tree(one) for one in beside)

    @staticmethod
    def of_no_process(*beside: object) -> Tree:
        """Of a node that is down: no time passes there."""
        reader = _Reader(0, 0, None)
        return tuple(reader.tree(one) for one in beside)


class _Reader:
    """Reads one node at one moment."""

    def __init__(self, now_us: int, timeout_us: int, durability: Durability | None) -> None:
        self._now_us, self._timeout_us = now_us, timeout_us
        self._last_ticket = 0 if durability is None else durability._ticket

    def tree(self, value: Any) -> Tree:
        if isinstance(value, _PLAIN):
            return value
        if isinstance(value, Enum):
            return value.name
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return tuple(self._named(name, getattr(value, name)) for name in value._fields if name not in _LEFT_OUT)
        if isinstance(value, list | tuple | deque):
            return tuple(self.tree(one) for one in value)
        if isinstance(value, dict):
            return tuple(sorted((repr(self.tree(key)), self.tree(one)) for key, one in value.items()))
        if isinstance(value, set | frozenset):
            return tuple(sorted(repr(self.tree(one)) for one in value))
        return type(value).__name__, *(
            self._named(name, getattr(value, name)) for name in _names(value) if name not in _LEFT_OUT
        )

    def _named(self, name: str, value: Any) -> Tree:
        if value is None:
            return None
        if name == "last_round_us":
            return value
        if name.endswith("_us"):
            return self._age(value)
        if name == "round_of_catching_up":
            return value[0], self._age(value[1])
        if name == "asked_around":
            return value[:2], self._age(value[2])
        if name == "inflight":
            return tuple((last, self._age(sent_us)) for last, sent_us in value)
        if name in ("ticket", "_ticket"):
            return value - self._last_ticket
        return self.tree(value)

    def _age(self, moment_us: int) -> int:
        """Anything longer than an election timeout ago is as good as any other; so is what is two of them ahead."""
        return max(-2 * self._timeout_us, min(self._timeout_us + 1, self._now_us - moment_us))


def _names(value: object) -> list[str]:
    found = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
    found += getattr(value, "__dict__", ())
    assert found, f"nothing tells what a {type(value).__name__} consists of: is it compiled?"
    return sorted(found)
