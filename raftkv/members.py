"""Wishes about who is a member of the cluster, and what became of them.

Vocabulary: told nothing, it tells what operators may ask for and hear. The API puts it into words, ``changing``
decides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from raftkv.outcomes import Leadership


class Named(NamedTuple):
    """A member as an operator names it."""

    id: str
    url: str
    """Where other nodes reach it."""


@dataclass(frozen=True, slots=True)
class Add:
    """This node is a member too."""

    member: Named
    votes: bool


@dataclass(frozen=True, slots=True)
class Remove:
    """That member is none any more."""

    id: str


@dataclass(frozen=True, slots=True)
class Alter:
    """That member has another role, or another address."""

    id: str
    votes: bool | None = None
    """None: as it is."""
    url: str | None = None
    """None: as it is."""


@dataclass(frozen=True, slots=True)
class Become:
    """These and nobody else are the members."""

    voters: tuple[Named, ...]
    learners: tuple[Named, ...] = ()
    expected_index: int | None = None
    """The configuration must still be the one that stands at this log index; None: whichever it is."""


Wish = Add | Remove | Alter | Become


class Terms(NamedTuple):
    """On what terms a change is asked for."""

    wait_ms: int = 30_000
    """After so long the asker is told how far it is; it goes on."""
    force: bool = False
    """Also if fewer than a majority of the new voters answer."""


class MembersWhy(Enum):
    """Why the members did not change by this arrival. Of all but the last four: it changed nothing and never will."""

    NOT_LEADER = "not_leader"
    BAD = "bad"
    """It can never be done as it was asked."""
    NO_SUCH_MEMBER = "no_such_member"
    EXISTS = "exists"
    UNREACHABLE = "unreachable"
    WRONG_CLUSTER = "wrong_cluster"
    QUORUM_AT_RISK = "quorum_at_risk"
    IN_PROGRESS = "in_progress"
    OTHER_CONFIGURATION = "other_configuration"
    """It was changed since the asker looked."""
    SHUTTING_DOWN = "shutting_down"
    CATCH_UP_FAILED = "catch_up_failed"
    """It was begun, and undone: the members are as before."""
    CALLED_OFF = "called_off"
    """The same, because somebody wished it, who need not be the asker."""
    SUPERSEDED = "superseded"
    """It was begun, and another leader's entry was committed in its place."""
    UNKNOWN = "unknown"
    """It was begun, and this node does not know what becomes of it."""


@dataclass(frozen=True, slots=True)
class MembersAre:
    """The members are as was asked, and that is committed."""

    changed: bool
    """False: they were so already, nothing was done."""


@dataclass(frozen=True, slots=True)
class StillChanging:
    """The change goes on, whether or not anybody waits for it."""


@dataclass(frozen=True, slots=True)
class MembersRefused:
    """They are not as was asked, or it is not known."""

    why: MembersWhy
    text: str
    """A sentence for the operator, with what to do."""
    leadership: Leadership | None = None
    """With NOT_LEADER: who leads."""


MembersOutcome = MembersAre | StillChanging | MembersRefused
MembersDone = Callable[[MembersOutcome], None]
