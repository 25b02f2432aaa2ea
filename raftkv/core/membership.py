"""Which configuration is in force: the newest in the log, committed or not (paper §6, thesis §4.1).

Told: configurations as they are appended, and truncations. Tells: the voter sets and members now. How a
change of members is begun and ended will have its place here.
"""

from __future__ import annotations

from collections.abc import Sequence

from raftkv.core.types import Configuration, Incarnation, Index, Member, NodeId


class Configurations:
    """The base's configuration and those of the log after it, by rising index."""

    __slots__ = ("_stack", "members", "voter_sets", "voters")

    def __init__(
        self, base_index: Index, base: Configuration, later: Sequence[tuple[Index, Configuration]] = ()
    ) -> None:
        self._stack: list[tuple[Index, Configuration]] = [(base_index, base), *later]
        self._take_effect()

    @property
    def current(self) -> Configuration:
        """The one in force."""
        return self._stack[-1][1]

    @property
    def current_index(self) -> Index:
        """Where in the log the one in force stands."""
        return self._stack[-1][0]

    def is_listed(self, node: NodeId, incarnation: Incarnation) -> bool:
        """Whether exactly this incarnation is a member."""
        member = self.members.get(node)
        return member is not None and member.incarnation == incarnation

    def append(self, index: Index, configuration: Configuration) -> None:
        """Counts from the moment it is in the log."""
        assert index > self.current_index
        self._stack.append((index, configuration))
        self._take_effect()

    def truncate_from(self, index: int) -> None:
        """Brings the one before back into force where the newest goes."""
        while self._stack[-1][0] >= index:
            self._stack.pop()
        assert self._stack, "the base's configuration is never truncated"
        self._take_effect()

    def at(self, index: int) -> Configuration:
        """The one in force when the log ended at ``index``."""
        return next(configuration for first, configuration in reversed(self._stack) if first <= index)

    def _take_effect(self) -> None:
        self.voter_sets: tuple[frozenset[NodeId], ...] = self.current.voter_sets()
        self.members: dict[NodeId, Member] = self.current.members()
        self.voters: tuple[NodeId, ...] = self.current.voters()
