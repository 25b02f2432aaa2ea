"""The nouns of the paper: terms, indexes, members, configurations."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, NewType

import msgpack

from raftkv.errors import MessageError

Term = NewType("Term", int)
"""Paper §5.1: a logical clock; 0 before the first election."""
Index = NewType("Index", int)
"""A place in the log; the first entry is 1, and 0 is the place before it."""
NodeId = NewType("NodeId", str)
"""The name that the operator gives a node: 1 to 64 of A-Z a-z 0-9 . _ -"""
Incarnation = NewType("Incarnation", bytes)
"""16 random bytes that an empty data directory gets: the same id on an emptied disk is somebody else."""
ClusterId = NewType("ClusterId", bytes)
"""16 bytes: the hash of the sorted (id, incarnation) pairs of the members that formed the cluster."""
Ticket = NewType("Ticket", int)
"""The number of a piece of disk work; tickets are completed in order."""
Round = NewType("Round", int)
"""The number of a read round; never used twice in a term (thesis §6.4)."""

ID_BYTES: Final = 16


class Role(Enum):
    """Paper §5.1; a learner receives the log and has no vote (thesis §4.2.1)."""

    FOLLOWER = "follower"
    CANDIDATE = "candidate"
    LEADER = "leader"
    LEARNER = "learner"


class Intent(Enum):
    """What a learner was added to become; it stands in the log, so that whoever leads can finish it."""

    VOTER = "voter"
    LEARNER = "learner"


@dataclass(frozen=True, slots=True, order=True)
class Member:
    """One node of a configuration. The incarnation is its identity, the URL only where it was last."""

    id: NodeId
    incarnation: Incarnation
    url: str


@dataclass(frozen=True, slots=True)
class Learner:
    """A member without a vote."""

    member: Member
    intent: Intent
    deadline_ms: int | None
    """Cluster time by which it must have caught up; None: it may take for ever."""


@dataclass(frozen=True, slots=True)
class Membership:
    """One complete set of members: who votes, who only listens. Both sorted by id."""

    voters: tuple[Member, ...]
    learners: tuple[Learner, ...] = ()

    def members(self) -> tuple[Member, ...]:
        """Voters first, then learners."""
        return self.voters + tuple(learner.member for learner in self.learners)


@dataclass(frozen=True, slots=True)
class Configuration:
    """Paper §6: C_new, or C_old,new while ``outgoing`` (the old membership) is there too."""

    current: Membership
    outgoing: Membership | None = None

    @property
    def is_joint(self) -> bool:
        """Whether decisions need majorities of both memberships."""
        return self.outgoing is not None

    def voter_sets(self) -> tuple[frozenset[NodeId], ...]:
        """The one or two sets of which each must give its majority."""
        sets = [frozenset(member.id for member in self.current.voters)]
        if self.outgoing is not None:
            sets.append(frozenset(member.id for member in self.outgoing.voters))
        return tuple(sets)

    def members(self) -> dict[NodeId, Member]:
        """Everybody who receives the log, in order of id."""
        found = {member.id: member for member in self.current.members()}
        if self.outgoing is not None:
            for member in self.outgoing.members():
                found.setdefault(member.id, member)
        return dict(sorted(found.items()))

    def voters(self) -> tuple[NodeId, ...]:
        """Everybody who votes in one of the sets, in order of id."""
        return tuple(sorted(set().union(*self.voter_sets())))

    def encode(self) -> bytes:
        """The body of a CONFIGURATION entry."""
        packed: bytes = msgpack.packb(
            [1, _pack_membership(self.current), self.outgoing and _pack_membership(self.outgoing)]
        )
        return packed

    @staticmethod
    def decode(packed: bytes) -> Configuration:
        """The other way; raises MessageError on anything that ``encode`` does not make."""
        try:
            version, current, outgoing = msgpack.unpackb(packed, strict_map_key=True)
            if version != 1:
                raise MessageError(f"configuration of unknown version {version!r}")
            found = Configuration(
                _unpack_membership(current), None if outgoing is None else _unpack_membership(outgoing)
            )
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            raise MessageError(f"not a configuration: {error}") from error
        if not all(found.voter_sets()):
            raise MessageError("a configuration in which nobody votes")
        return found


def _pack_membership(membership: Membership) -> list[Any]:
    return [
        [[member.id, member.incarnation, member.url] for member in membership.voters],
        [
            [
                learner.member.id,
                learner.member.incarnation,
                learner.member.url,
                learner.intent.value,
                learner.deadline_ms,
            ]
            for learner in membership.learners
        ],
    ]


def _unpack_membership(packed: Any) -> Membership:
    voters, learners = packed
    return Membership(
        tuple(_unpack_member(*member) for member in voters),
        tuple(
            Learner(_unpack_member(id, incarnation, url), Intent(intent), _checked(deadline_ms, int, type(None)))
            for id, incarnation, url, intent, deadline_ms in learners
        ),
    )


def _unpack_member(id: Any, incarnation: Any, url: Any) -> Member:
    return Member(NodeId(_checked(id, str)), Incarnation(_checked(incarnation, bytes)), _checked(url, str))


def _checked(value: Any, *kinds: type) -> Any:
    if not isinstance(value, kinds):
        raise TypeError(f"{value!r} is not {kinds[0].__name__}")
    return value


def membership_of(voters: Iterable[Member]) -> Membership:
    """A membership of voters only, sorted."""
    return Membership(tuple(sorted(voters)))


def cluster_id_of(members: Iterable[tuple[NodeId, Incarnation]]) -> ClusterId:
    """The name of the cluster that exactly these incarnations form."""
    digest = hashlib.sha256(b"raftkv cluster\0")
    for id, incarnation in sorted(members):
        digest.update(len(id).to_bytes(2, "little") + id.encode() + incarnation)
    return ClusterId(digest.digest()[:ID_BYTES])
