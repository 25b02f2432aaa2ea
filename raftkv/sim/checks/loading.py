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
        """Between two turns one loading can end and the next begin: then what was loaded counts as applied.

        What is to be loaded is newer than the state that goes, and than what was to be loaded before.
        """
        was_loading, had_applied = self._was_loading, self._had_applied
        self._was_loading, self._had_applied = loading, applied
        is_right = loading is None or applied < loading
        if was_loading is not None:
            if loading is None:
                is_right = applied >= was_loading
            elif loading == was_loading:
                is_right &= applied == had_applied
            else:
                is_right &= loading > was_loading and applied in (had_applied, was_loading)
        if not is_right:
            told = f"applied {had_applied} → {applied}, to be loaded {was_loading} → {loading}"
            raise Violated("nothing is applied to a state that goes", told)
