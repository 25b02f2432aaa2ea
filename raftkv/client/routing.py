"""Whom to ask: which nodes there are, which of them leads, which one a read goes to that any may answer.

Told: what nodes say of their cluster, redirects, and who was not to be reached. Tells: the leader as far as it is
known, and whom else to ask. It never learns what is asked.

A leader is believed until it is lost or a later one is heard of. A node says for up to an election timeout that a
leader leads which is dead: so one that could not be reached is not believed in again for a moment, unless in a
later term (faults 51: followers that disagree make no client run in circles).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from raftkv.values import Address

SHUNNED_US: Final = 200_000
"""For so long a node that did not answer is asked only where there is no other; twice as long each further time."""
SHUNNED_US_MAX: Final = 5_000_000
TRIED_US: Final = 1_000_000
"""Then one read tries it, and for so long no other does, unless something was heard."""


@dataclass(frozen=True, slots=True)
class View:
    """What one node says of its cluster (``GET /v1/cluster``), as far as it matters here."""

    cluster_id: str | None
    term: int
    leader: Address | None
    """Of whom it has heard in this term, lately."""
    voters: tuple[Address, ...]
    learners: tuple[Address, ...]
    is_whole: bool = True
    """It has heard from every member where clients reach it."""


@dataclass(slots=True)
class _Shunned:
    """A node that did not answer."""

    times: int
    until_us: int
    term: int
    """As leader of a later one it is believed at once."""
    is_silent: bool
    """It was reached, and what it was asked had no answer."""
    may_lead: bool = False
    """It has told of its cluster since."""
    tried_until_us: int = 0
    """One read tries it, and until then no other does: it may hang still."""


class Routing:
    """What one client knows of its cluster."""

    def __init__(self, endpoints: Sequence[Address], rng: Random) -> None:
        """``endpoints``: where the program says that nodes are; ``rng`` spreads many clients over the nodes."""
        assert endpoints, "a client knows at least one node"
        self.leader: Address | None = None
        self.term = 0
        """In which ``leader`` leads, or the last one led."""
        self._endpoints = tuple(dict.fromkeys(endpoints))
        self._voters: tuple[Address, ...] = ()
        self._learners: tuple[Address, ...] = ()
        self._cluster_id: str | None = None
        self._shunned: dict[Address, _Shunned] = {}
        self._turn = rng.randrange(1 << 16)

    def is_known(self, address: Address) -> bool:
        """The program named it, or it is a member."""
        return address in self._voters or address in self._learners or address in self._endpoints

    def everybody(self) -> tuple[Address, ...]:
        """Every node that is known, members first."""
        return tuple(dict.fromkeys((*self._voters, *self._learners, *self._endpoints)))

    def anybody(self, now_us: int) -> Address:
        """The node that a read goes to which any may answer: each in turn, those that are down left out."""
        nodes = self._voters or self._endpoints
        for _ in nodes:
            self._turn += 1
            node = nodes[self._turn % len(nodes)]
            if self._may_be_asked(node, now_us):
                return node
        self._turn += 1
        return nodes[self._turn % len(nodes)]

    def is_ours(self, view: View) -> bool:
        """It is of the cluster that was heard first, or of one that is not formed yet."""
        return self._cluster_id is None or view.cluster_id in (None, self._cluster_id)

    def hear(self, view: View, now_us: int) -> None:
        """What a node says of its cluster. One of another cluster is not listened to (faults 32)."""
        if not self.is_ours(view):
            return
        self._cluster_id = self._cluster_id or view.cluster_id
        if view.voters and view.term >= self.term:
            voters, learners = view.voters, view.learners
            if not view.is_whole:  # It was started just now: whom it has not heard from is a member all the same.
                voters = tuple(dict.fromkeys((*voters, *self._voters)))
                learners = tuple(dict.fromkeys((*learners, *self._learners)))
            self._voters, self._learners = voters, learners
            self._shunned = {address: one for address, one in self._shunned.items() if self.is_known(address)}
        if view.leader is not None:
            self.hear_of_leader(view.leader, view.term, now_us)

    def hear_of_leader(self, address: Address, term: int, now_us: int) -> bool:
        """Whether it is believed to lead now: not who is unknown, nor in an earlier term, nor who was just lost."""
        shunned = self._shunned_as(address, now_us)
        if not self.is_known(address) or (shunned is not None and term <= shunned.term and not shunned.may_lead):
            return False
        if self.leader is not None and term < self.term:
            return False
        self.leader, self.term = address, term
        return True

    def lose_leader(self, address: Address) -> None:
        """It says that it does not lead, or is going away."""
        if self.leader == address:
            self.leader = None

    def lose(self, address: Address, now_us: int, *, is_silent: bool = False) -> None:
        """It could not be reached, or (``is_silent``) gave no answer when any node would have."""
        before = self._shunned.get(address)
        times = 1 if before is None else before.times + 1
        if before is not None and is_silent and before.is_silent and now_us < before.until_us:
            times = before.times  # Many were asked before the first had waited in vain: it is one silence.
        for_us = min(SHUNNED_US * 2 ** min(times - 1, 16), SHUNNED_US_MAX)
        self._shunned[address] = _Shunned(times, now_us + for_us, self.term, is_silent)
        self.lose_leader(address)

    def find(self, address: Address) -> None:
        """It answers."""
        if self._shunned:
            self._shunned.pop(address, None)

    def reach(self, address: Address) -> None:
        """It tells of its cluster, and may lead it. One whose reads hang does so too, and stays left out of those."""
        shunned = self._shunned.get(address)
        if shunned is not None and shunned.is_silent:
            shunned.may_lead = True
        else:
            self.find(address)

    def _may_be_asked(self, address: Address, now_us: int) -> bool:
        """Whoever is left out no more is tried by whoever asks first; the others wait for what comes of that."""
        shunned = self._shunned.get(address)
        if shunned is None:
            return True
        if now_us < max(shunned.until_us, shunned.tried_until_us):
            return False
        shunned.tried_until_us = now_us + TRIED_US
        return True

    def _shunned_as(self, address: Address, now_us: int) -> _Shunned | None:
        shunned = self._shunned.get(address)
        return shunned if shunned is not None and now_us < shunned.until_us else None
