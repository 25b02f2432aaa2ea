"""What a row of the table of choices says: how likely a choice is, and which runs make it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from raftkv.sim.runs.scene import Scene


class Theme(Enum):
    """What a run is about."""

    ANYTHING = "anything"
    MEMBERS = "members"
    SNAPSHOTS = "snapshots"


@dataclass(frozen=True, slots=True)
class Choice:
    """A row of the table."""

    act: Callable[[Scene], None]
    weight: int
    """How likely it is, before the run has drawn what it likes."""
    is_needed: bool = False
    """Without these nothing comes about: half of all runs take them as they are."""
    is_rare: bool = False
    """Most runs do without it."""
    needs_leases: bool = False
    """Runs without leases do."""
    needs_changes: bool = False
    """Runs in which members stay do."""
    needs_snapshots: bool = False
    """Runs in which none is ever due do."""

    @property
    def theme(self) -> Theme | None:
        """Runs that are about this make it often."""
        return Theme.MEMBERS if self.needs_changes else Theme.SNAPSHOTS if self.needs_snapshots else None

    @property
    def name(self) -> str:
        """For people."""
        return self.act.__name__.replace("_", " ")
