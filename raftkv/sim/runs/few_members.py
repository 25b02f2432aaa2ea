"""Three nodes, of which the first so many are members, and what the members may be asked to be.

Told: a target in a few letters, the voters' and after a plus the learners', ``ab+c``; or its number. Tells: the
membership that it means.
"""

from __future__ import annotations

from typing import Final

from raftkv.core.effects import LogBase
from raftkv.core.state import Identity
from raftkv.core.types import (
    Configuration,
    Index,
    Intent,
    Learner,
    Member,
    Membership,
    NodeId,
    Term,
    membership_of,
)
from raftkv.sim.world.births import url_of
from raftkv.sim.world.cluster import CLUSTER_ID, incarnation_of

NAMES: Final = (NodeId("a"), NodeId("b"), NodeId("c"))
DEADLINE_MS: Final = 1
"""Cluster time by which everybody must have caught up: it begins at 0, and passes when that is chosen."""


def _member(name: str) -> Member:
    id = NodeId(name)
    return Member(id, incarnation_of(id), url_of(id))


def identities(listed: int) -> list[tuple[Identity, LogBase]]:
    """Who each node is, and with what it begins; those that are not listed know of nobody."""
    inside, outside = membership_of(map(_member, NAMES[:listed])), membership_of(())
    return [
        (
            Identity(name, incarnation_of(name), CLUSTER_ID),
            LogBase(Index(0), Term(0), Configuration(inside if name in NAMES[:listed] else outside)),
        )
        for name in NAMES
    ]


def target_number(text: str) -> int:
    """A target as a number: a digit for each node."""
    voters, _, learners = text.partition("+")
    return sum((1 if name in voters else 2 if name in learners else 0) * 3**place for place, name in enumerate(NAMES))


def target_text(number: int) -> str:
    """A target of that number."""
    digits = {name: number // 3**place % 3 for place, name in enumerate(NAMES)}
    voters, learners = ("".join(name for name in NAMES if digits[name] == digit) for digit in (1, 2))
    return f"{voters}+{learners}" if learners else voters


def target_of(number: int) -> Membership:
    """The membership that it means."""
    voters, _, learners = target_text(number).partition("+")
    return Membership(
        tuple(map(_member, voters)), tuple(Learner(_member(name), Intent.LEARNER, None) for name in learners)
    )
