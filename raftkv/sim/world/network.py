"""A network in virtual time: it delays, loses, doubles and reorders, and can be cut, each direction by itself.

Told: who speaks to whom, and who can reach whom. Tells: what arrives when, and, as a TCP link would,
that a request will never be answered. Every choice is drawn from the rng that it was given.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from raftkv.core.types import NodeId


@dataclass(frozen=True, slots=True)
class NetworkFaults:
    """How bad the network is; chances in thousandths, times in microseconds."""

    delay_us_min: int = 500
    delay_us_max: int = 1_500
    loss_per_mille: int = 0
    doubling_per_mille: int = 0
    late_per_mille: int = 0
    """A message that takes ``late_us_max`` at most instead: reordering."""
    late_us_max: int = 0
    failure_told_per_mille: int = 1000
    """How often the sender of a lost request is told so."""


class Network:
    """Decides the fate of each message."""

    def __init__(self, rng: Random, faults: NetworkFaults) -> None:
        self.faults = faults
        self._rng = rng
        self._cut: dict[tuple[NodeId, NodeId], None] = {}
        self._of_links: dict[tuple[NodeId, NodeId], NetworkFaults] = {}
        """Links, one way each, that are worse than the network is."""
        self._newest_arrival_us: dict[tuple[NodeId, NodeId], int] = {}

    def cut(self, sender: NodeId, receiver: NodeId) -> None:
        """Nothing passes from sender to receiver any more."""
        self._cut[sender, receiver] = None

    def heal(self, sender: NodeId, receiver: NodeId) -> None:
        """Messages pass again."""
        self._cut.pop((sender, receiver), None)

    def heal_all(self) -> None:
        """Everybody reaches everybody, and no link is worse than another."""
        self._cut.clear()
        self._of_links.clear()

    def worsen(self, sender: NodeId, receiver: NodeId, faults: NetworkFaults | None) -> None:
        """This link, this way, is as bad as that; None: as the network is."""
        if faults is None:
            self._of_links.pop((sender, receiver), None)
        else:
            self._of_links[sender, receiver] = faults

    @property
    def cuts(self) -> tuple[tuple[NodeId, NodeId], ...]:
        """Every (sender, receiver) between whom nothing passes."""
        return tuple(self._cut)

    def arrivals_us(self, sender: NodeId, receiver: NodeId, *, now_us: int) -> list[int]:
        """When each copy of a message arrives; none: it is lost. In order, but for late ones and doubles."""
        direction = (sender, receiver)
        faults = self._of_links.get(direction, self.faults)
        if direction in self._cut or self._hits(faults.loss_per_mille):
            return []
        if self._hits(faults.late_per_mille):
            return [now_us + self._rng.randrange(faults.delay_us_min, faults.late_us_max + 1)]
        arrival_us = max(now_us + self._delay_us(faults), self._newest_arrival_us.get(direction, 0))
        self._newest_arrival_us[direction] = arrival_us
        if self._hits(faults.doubling_per_mille):
            return [arrival_us, arrival_us + self._delay_us(faults)]
        return [arrival_us]

    def tells_failure(self) -> bool:
        """Whether the sender of a lost request hears of it."""
        return self._hits(self.faults.failure_told_per_mille)

    def _delay_us(self, faults: NetworkFaults) -> int:
        return self._rng.randrange(faults.delay_us_min, faults.delay_us_max + 1)

    def _hits(self, per_mille: int) -> bool:
        return per_mille > 0 and self._rng.randrange(1000) < per_mille
