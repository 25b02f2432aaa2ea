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


@dataclass(frozen=True, slots=True, order=True)
class SnapshotId:
    """One file that holds a snapshot. Two nodes' files at one index may differ, so the index alone names none."""

    index: Index
    """Of the last entry that it stands for …"""
    term: Term
    """… and that entry's term."""
    size_bytes: int
    checksum: int
    """crc32c of the whole file."""


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
    """Cluster time by which the change that it came with must be over; None: it may take for ever."""
    stays: bool = False
    """It was a learner before it was to vote, and is one again if that comes to nothing."""


@dataclass(frozen=True, slots=True)
class Membership:
    """One complete set of members: who votes, who only listens. All sorted by id.

    While learners catch up that are to vote, it also says what else changes when they do, so that whoever leads
    can finish the change.
    """

    voters: tuple[Member, ...]
    learners: tuple[Learner, ...] = ()
    leaving: tuple[NodeId, ...] = ()
    """Members that go when the learners have become voters."""
    demoted: tuple[NodeId, ...] = ()
    """Voters that are learners from then on."""

    def members(self) -> tuple[Member, ...]:
        """Voters first, then learners."""
        return self.voters + tuple(learner.member for learner in self.learners)


class ChangePhase(Enum):
    """How far a change of members has come."""

    CATCHING_UP = "catching_up"
    """Learners receive the log until they may vote."""
    JOINT = "joint"
    """Paper §6, C_old,new: both sets decide."""
    LEAVING = "leaving"
    """C_new, or a simple change, waits for its commit; or it has that, and those that left are told so."""


@dataclass(frozen=True, slots=True)
class ChangeStatus:
    """A change of members as one node knows it, for people."""

    phase: ChangePhase
    index: Index
    """Where the configuration in force stands in the log."""
    joining: tuple[NodeId, ...]
    """Who is to vote and does not yet without the old set."""
    leaving: tuple[NodeId, ...]
    """Members that go; in phase LEAVING, those that are still told so."""
    demoted: tuple[NodeId, ...]
    """Voters that become learners."""
    deadline_ms: int | None
    """Cluster time by which those that join must have caught up; None: there is none, or they have."""
    match: tuple[tuple[NodeId, Index], ...]
    """At the leader: how far it knows each of ``joining`` to hold the log."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """Paper §6: C_new, or C_old,new while ``outgoing`` (the old membership) is there too."""

    current: Membership
    outgoing: Membership | None = None
    called_off: tuple[NodeId, ...] = ()
    """Who was to vote by the change that this entry ended because somebody wished it; by id."""

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
        parts = [1, _pack_membership(self.current), self.outgoing and _pack_membership(self.outgoing)]
        packed: bytes = msgpack.packb([*parts, list(self.called_off)] if self.called_off else parts)
        return packed

    @staticmethod
    def decode(packed: bytes) -> Configuration:
        """The other way; raises MessageError on anything that ``encode`` does not make."""
        try:
            version, current, outgoing, *called_off = msgpack.unpackb(packed, strict_map_key=True)
            if version != 1:
                raise MessageError(f"configuration of unknown version {version!r}")
            ids, *more = called_off or [[]]
            if more:
                raise ValueError("it goes on after its end")
            found = Configuration(
                _unpack_membership(current),
                None if outgoing is None else _unpack_membership(outgoing),
                tuple(NodeId(_checked(id, str)) for id in ids),
            )
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            raise MessageError(f"not a configuration: {error}") from error
        if not all(found.voter_sets()):
            raise MessageError("a configuration in which nobody votes")
        return found


def _pack_membership(membership: Membership) -> list[Any]:
    packed: list[Any] = [
        [[member.id, member.incarnation, member.url] for member in membership.voters],
        [_pack_learner(learner) for learner in membership.learners],
    ]
    if membership.leaving or membership.demoted:
        packed += [list(membership.leaving), list(membership.demoted)]
    return packed


def _pack_learner(learner: Learner) -> list[Any]:
    member = learner.member
    packed = [member.id, member.incarnation, member.url, learner.intent.value, learner.deadline_ms]
    return [*packed, True] if learner.stays else packed


def _unpack_membership(packed: Any) -> Membership:
    voters, learners, leaving, demoted = (*packed, [], []) if len(packed) == 2 else packed
    return Membership(
        tuple(_unpack_member(*member) for member in voters),
        tuple(_unpack_learner(*learner) for learner in learners),
        tuple(NodeId(_checked(id, str)) for id in leaving),
        tuple(NodeId(_checked(id, str)) for id in demoted),
    )


def _unpack_learner(id: Any, incarnation: Any, url: Any, intent: Any, deadline_ms: Any, stays: Any = False) -> Learner:
    member = _unpack_member(id, incarnation, url)
    return Learner(member, Intent(intent), _checked(deadline_ms, int, type(None)), _checked(stays, bool))


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
