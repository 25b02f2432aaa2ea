"""Who is a member, who votes, who was told so: changes of members, transfers and followers' matches, after each turn.

Everything is reckoned here a second time, from logs and disks of all nodes: the core's own rules are not asked. What an
operator forced is known from whoever asked.

Told: which node has just had a turn, and what was committed. Tells: Violated, with the property's name.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from raftkv import frames as framing
from raftkv.core.messages import AppendEntries, TimeoutNow
from raftkv.core.raft import Raft
from raftkv.core.state import Departing, Office, Transfer
from raftkv.core.types import Configuration, Incarnation, Index, Intent, Membership, NodeId, Role
from raftkv.replica import Work
from raftkv.sim.checks.succession import are_to_vote, wrong_successor
from raftkv.sim.checks.violated import Violated
from raftkv.sim.world.node import VirtualNode


class Nodes(Protocol):
    """Whatever holds the nodes that are watched."""

    @property
    def nodes(self) -> Mapping[NodeId, VirtualNode]:
        """All of them, up or down."""
        ...


@dataclass(slots=True)
class _Left:
    """A member that left, as its leader was about to tell it so."""

    told: Departing
    life: int
    """Its own, then."""


@dataclass(slots=True)
class _Rounds:
    """How far a learner has come, as this leader could see it (thesis §4.2.1)."""

    end: int
    began_us: int
    last_us: int | None = None

    def as_of(self, now_us: int, match: int) -> tuple[int | None, int]:
        """How long the last one took, and the present one so far."""
        passed_us = now_us - self.began_us
        return (passed_us, 0) if match >= self.end else (self.last_us, passed_us)


@dataclass(slots=True)
class _Seen:
    """What is known of one node's present life."""

    role: tuple[object, ...] = ()
    """Its role, and all that it hangs on."""
    office: Office | None = None
    transfer: Transfer | None = None
    since_us: int = 0
    """The transfer was seen then."""
    was_told: bool = False
    last_index: int = 0
    departing: dict[NodeId, _Left] = field(default_factory=dict)
    rounds: dict[NodeId, _Rounds] = field(default_factory=dict)
    rounds_at: int = 0
    """Of learners that came with the configuration there."""


@dataclass(slots=True)
class Forced:
    """A wish that is to be done whoever answers; it has been decided, or not yet."""

    node: NodeId
    is_over: bool = False


class Electorate:
    """Watches who belongs to a cluster. Nodes are looked at after each turn of theirs."""

    def __init__(self, cluster: Nodes, committed: Sequence[bytes]) -> None:
        """``committed``: all entries that some node knows to be, as they become known."""
        self.cluster = cluster
        self._committed = committed
        self._read = 0
        self._configurations: list[tuple[int, Configuration]] = []
        """That with which the cluster began, and those of the committed entries."""
        self._seen: dict[NodeId, _Seen] = {}
        self._said: dict[NodeId, list[Callable[[], None]]] = {}
        self._forced: list[Forced] = []
        self._forced_from: set[tuple[NodeId, int, int]] = set()
        """(leader, its term, where its first configuration stands) of each change that was forced."""

    def judge_after_turn(self, node: NodeId, judge: Callable[[], None]) -> None:
        """What that node has just said is judged as soon as its turn has been looked at."""
        self._said.setdefault(node, []).append(judge)

    def said_so(self, node: NodeId) -> None:
        """Its turn has been looked at."""
        for judge in self._said.pop(node, ()):
            judge()

    def is_forced_at(self, node: NodeId) -> Forced:
        """Somebody asks that node for a change, whoever answers it; to be told when that is over."""
        self._forced.append(Forced(node))
        return self._forced[-1]

    def started(self, node: VirtualNode) -> None:
        """A new life."""
        self._seen[node.id] = _Seen()
        self._said.pop(node.id, None)
        state = node.raft.state
        if not self._configurations and not state.log.base_index and state.configurations.at(0).voters():
            self._configurations.append((0, state.configurations.at(0)))

    def stepped(self, node: VirtualNode, work: Work) -> None:
        """Checks everything that this turn can have broken."""
        raft, seen = node.raft, self._seen[node.id]
        self._role_is_by_the_configuration(node, raft, seen)
        if raft.removed_at is not None:
            self._was_removed(node, raft)
        office = raft.state.office
        self._successors_hold_everything(node, raft, work)
        self._hands_over(node, raft, seen, work)
        if office is not None:
            self._those_who_left(node, raft, office, seen, work)
            self._catch_up(raft, office, seen)
        if office is not seen.office:
            seen.office, seen.rounds, seen.departing = office, {}, {}
            if office is not None:
                self._catch_up(raft, office, seen)
        if office is not None and office.departing:
            seen.departing = {
                id: _Left(left, self.cluster.nodes[id].life if id not in seen.departing else seen.departing[id].life)
                for id, left in office.departing.items()
            }
        seen.last_index = raft.last_index
        self._forced = [forced for forced in self._forced if not forced.is_over]

    # ------------------------------------------------------------------------------ roles and members

    def _role_is_by_the_configuration(self, node: VirtualNode, raft: Raft, seen: _Seen) -> None:
        """Thesis §4.2: who votes by the newest of the log stands; or who did before, if that may be undone."""
        state = raft.state
        configurations = state.configurations
        is_committed = configurations.current_index <= raft.commit_index
        role = (raft.role, configurations.current_index, is_committed, state.told_removed_at, raft.term)
        if role == seen.role:
            return
        seen.role = role
        if raft.role not in (Role.FOLLOWER, Role.LEARNER):
            return
        before = None if is_committed else configurations.before
        current, me = configurations.current, (node.id, state.me.incarnation)
        is_another = not _lists(current, *me) and node.id in current.members()
        may_stand = not is_another and (_votes(current, *me) or (before is not None and _votes(before[1], *me)))
        expected = Role.FOLLOWER if may_stand and state.told_removed_at is None else Role.LEARNER
        if raft.role is not expected:
            raise Violated("a role is by the configuration", f"{node.id} is a {raft.role.value} by {current}")

    def _was_removed(self, node: VirtualNode, raft: Raft) -> None:
        """Whoever takes himself for removed is: something was committed without him, later than all that he knows."""
        me = (node.id, raft.state.me.incarnation)
        newest_with, newest_without = -1, -1
        for index, configuration in self.committed_configurations():
            if not _lists(configuration, *me):
                newest_without = index
            elif index <= raft.commit_index:
                newest_with = index
        if newest_without <= newest_with:
            raise Violated("who takes itself for removed was", f"{node.id}, whose log ends at {raft.last_index}")

    def committed_configurations(self) -> Sequence[tuple[int, Configuration]]:
        """With their indexes."""
        while self._read < len(self._committed):
            frame = self._committed[self._read]
            self._read += 1
            if framing.kind(frame) == framing.EntryKind.CONFIGURATION:
                self._configurations.append((self._read, Configuration.decode(framing.body(frame))))
        return self._configurations

    # ------------------------------------------------------------------------------- what is appended

    def appended(self, node: VirtualNode, raft: Raft, index: int, *, by_this_leader: bool) -> None:
        """A configuration is in that log now."""
        configurations = raft.state.configurations
        before, new = configurations.at(index - 1), configurations.at(index)
        wrong = wrong_successor(before, new)
        if wrong is not None:
            raise Violated("a change of members goes by its steps", f"{node.id} at {index}: {wrong}")
        office = raft.state.office
        if by_this_leader and office is not None:
            self._is_begun_well(node, raft, office, index, before, new)

    def _is_begun_well(
        self, node: VirtualNode, raft: Raft, office: Office, index: int, before: Configuration, new: Configuration
    ) -> None:
        joining, start = _joining(before.current), raft.state.configurations.index_at(index - 1)
        if new.is_joint and joining:
            self._have_caught_up(node, raft, office, joining, start)
            begun_at = int(start)
        elif before.is_joint or joining:
            return
        else:
            begun_at = index
            if any(forced.node == node.id for forced in self._forced):
                self._forced_from.add((node.id, raft.term, begun_at))
        if (node.id, raft.term, begun_at) not in self._forced_from:
            self._are_there(node, raft, office, set(map(NodeId, are_to_vote(new.current))), set(_joining(new.current)))

    def _are_there(
        self, node: VirtualNode, raft: Raft, office: Office, voters: Collection[NodeId], coming: set[NodeId]
    ) -> None:
        """Paper §6: most of those who are to decide answer this leader; who comes proves itself by catching up."""
        oldest_us = raft.state.now_us - raft.state.settings.election_timeout_us
        there = [
            id
            for id in voters
            if id in coming
            or id == node.id
            or (
                id in office.progress
                and office.progress[id].has_answered
                and office.progress[id].last_contact_us > oldest_us
            )
        ]
        if 2 * len(there) <= len(voters):
            raise Violated("most of the new voters answer", f"{node.id} hears {sorted(there)} of {sorted(voters)}")

    def _have_caught_up(
        self, node: VirtualNode, raft: Raft, office: Office, joining: Sequence[NodeId], since: Index
    ) -> None:
        """Thesis §4.2.1: each holds the log from which it came on, was heard, and its last round was short."""
        state, seen = raft.state, self._seen[node.id]
        timeout_us = state.settings.election_timeout_us
        for id in joining:
            other = self.cluster.nodes[id]
            held = other.disk.base.index + len(other.disk.frames)
            if held < since and other.disk.vote[0] <= raft.term and not other.disk.emptied:
                raise Violated("who is to vote has caught up", f"{id} holds {held}, it came with entry {since}")
            if state.now_us - office.progress[id].last_contact_us >= timeout_us:
                raise Violated("who is to vote has caught up", f"{id} was not heard by {node.id} lately")
            rounds = seen.rounds.get(id)
            if rounds is not None:
                last_us, this_us = rounds.as_of(state.now_us, office.progress[id].match_index)
                if last_us is None or max(last_us, this_us) >= timeout_us:
                    raise Violated("who is to vote has caught up", f"{id}'s last rounds took {last_us}, {this_us} us")

    def _catch_up(self, raft: Raft, office: Office, seen: _Seen) -> None:
        """Rounds of catching up, as this leader's turns show them: each is as long as it takes to see its end."""
        configurations = raft.state.configurations
        joining = _joining(configurations.current.current)
        if not joining or seen.rounds_at != configurations.current_index:
            seen.rounds, seen.rounds_at = {}, configurations.current_index
        for id in joining:
            rounds, progress = seen.rounds.get(id), office.progress[id]
            if rounds is None:
                seen.rounds[id] = _Rounds(raft.last_index, raft.state.now_us)
            elif progress.match_index >= rounds.end:
                seen.rounds[id] = _Rounds(raft.last_index, raft.state.now_us, raft.state.now_us - rounds.began_us)

    # ---------------------------------------------------------------------------------- handing over

    def _successors_hold_everything(self, node: VirtualNode, raft: Raft, work: Work) -> None:
        """Thesis §3.10: who is told to stand holds all that its leader does, and votes."""
        for envelope in work.requests:
            if not isinstance(envelope.message, TimeoutNow):
                continue
            other, state = self.cluster.nodes[envelope.receiver], raft.state
            voters = state.configurations.current.voters()
            if state.office is None:
                voters = tuple(member.id for member in state.configurations.current.current.voters)
            if envelope.receiver not in voters:
                raise Violated("leadership goes to who votes", f"{node.id} hands over to {envelope.receiver}")
            held = other.disk.base.index + len(other.disk.frames)
            if held < raft.last_index and other.disk.vote[0] <= envelope.message.term and not other.disk.emptied:
                text = f"{node.id} hands over to {envelope.receiver}, which holds {held} of {raft.last_index}"
                raise Violated("who is to lead holds everything", text)

    def _hands_over(self, node: VirtualNode, raft: Raft, seen: _Seen, work: Work) -> None:
        office = raft.state.office
        transfer = None if office is None else office.transfer
        if transfer is None or transfer is not seen.transfer:
            seen.transfer, seen.since_us = transfer, raft.state.now_us
            seen.was_told = transfer is not None and transfer.told
            return
        if raft.last_index > seen.last_index:
            raise Violated("nothing is taken while handing over", f"{node.id} appends {raft.last_index}")
        if raft.state.now_us - seen.since_us >= 2 * raft.state.settings.election_timeout_us:
            raise Violated("a transfer comes to its end", f"{node.id} hands over to {transfer.target} for ever")
        told_again = any(isinstance(envelope.message, TimeoutNow) for envelope in work.requests)
        if seen.was_told and told_again:
            raise Violated("a successor is told once", f"{node.id} tells {transfer.target} again")
        seen.was_told = transfer.told

    # ------------------------------------------------------------------------------------ who leaves

    def _those_who_left(self, node: VirtualNode, raft: Raft, office: Office, seen: _Seen, work: Work) -> None:
        """They hear that their removal is committed, for so long at most, and nothing that comes after it."""
        if not office.departing and not seen.departing:
            return
        state = raft.state
        patience_us = 4 * state.settings.election_timeout_us
        for envelope in work.requests:
            left, message = office.departing.get(envelope.receiver), envelope.message
            if left is not None and isinstance(message, AppendEntries):
                end = message.prev_index + len(message.frames)
                if end > left.index:
                    raise Violated("who left gets no more", f"{node.id} sends {envelope.receiver} entry {end}")
        for id, left in office.departing.items():
            if left.committed_us is not None and state.now_us - left.committed_us >= patience_us:
                raise Violated("nobody is told for ever", f"{node.id} still speaks to {id}, which left")
        for id, gone in seen.departing.items():
            if id not in office.departing and id not in state.configurations.members:
                self._was_told(node, id, gone, raft, patience_us)
        if not office.departing:
            seen.departing = {}

    def _was_told(self, node: VirtualNode, id: NodeId, gone: _Left, raft: Raft, patience_us: int) -> None:
        other, left = self.cluster.nodes[id], gone.told
        if not other.is_up or other.life != gone.life or left.member.incarnation != other.raft.state.me.incarnation:
            return
        was_patient = left.committed_us is not None and raft.state.now_us - left.committed_us >= patience_us
        if other.raft.commit_index < left.index and not was_patient and other.raft.term <= raft.term:
            raise Violated("who left is told so", f"{node.id} forgets {id}, which knows of {other.raft.commit_index}")

    # --------------------------------------------------------------------------- what a follower holds

    def matched(self, node: VirtualNode, raft: Raft, peer: NodeId, match: int, frame: bytes | None) -> None:
        """A leader counts this entry as being there: it is on that disk, and that is the member's own.

        ``frame`` None: its own log does not hold it any more. Whoever has come to a later term may have lost it.
        """
        other = self.cluster.nodes.get(peer)
        member = raft.state.configurations.members.get(peer)
        if other is None or member is None or frame is None or other.disk.is_spoiled:
            return
        if other.disk.vote[0] > raft.term or other.incarnation != member.incarnation:
            return
        if not other.disk.holds(match, frame):
            raise Violated("a match is on its disk", f"{node.id} counts {peer} up to {match}")


def _lists(configuration: Configuration, id: NodeId, incarnation: Incarnation) -> bool:
    member = configuration.members().get(id)
    return member is not None and member.incarnation == incarnation


def _votes(configuration: Configuration, id: NodeId, incarnation: Incarnation) -> bool:
    return _lists(configuration, id, incarnation) and id in configuration.voters()


def _joining(membership: Membership) -> tuple[NodeId, ...]:
    return tuple(one.member.id for one in membership.learners if one.intent is Intent.VOTER)
