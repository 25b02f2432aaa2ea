"""What becomes of a state in whose place a received snapshot is being loaded: nothing. Pure.

Told: after each turn of one node's life, which snapshot the machine is to load and how far it has applied. Tells:
Violated. It never learns of whom the snapshot was.
"""

from __future__ import annotations

from raftkv.core.types import Index
from raftkv.sim.checks.violated import Violated


class Loading:
    """Watches one life of a node."""

    def __init__(self) -> None:
        self._was_loading: Index | None = None
        self._had_applied = Index(0)

    def stepped(self, *, loading: Index | None, applied: Index) -> None:
        """Between two turns one loading can end and the next begin: then what was loaded counts as applied."""
        was_loading, had_applied = self._was_loading, self._had_applied
        self._was_loading, self._had_applied = loading, applied
        if loading is None or was_loading is None or applied == had_applied:
            return
        if applied != was_loading or loading == was_loading:
            raise Violated("nothing is applied to a state that goes", f"{had_applied} → {applied}, loads {loading}")
