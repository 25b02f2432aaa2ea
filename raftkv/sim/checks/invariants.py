"""The properties of Figure 3, and what else may never happen, checked after every step of a virtual cluster.

Told: which node has just had a turn. Tells: Violated, with the property's name. It rereads what changed
on that node only, so that a check costs what a step costs.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

from raftkv import frames as framing
from raftkv.core import quorum
from raftkv.core.effects import DiskWrite
from raftkv.core.messages import AppendEntriesReply, InstallSnapshotReply, PreVoteRequest, RequestVote, RequestVoteReply
from raftkv.core.raft import Raft
from raftkv.core.types import Index, NodeId, Role
from raftkv.replica import Work
from raftkv.sim.checks.electorate import Electorate, Nodes
from raftkv.sim.checks.loading import Loading
from raftkv.sim.checks.violated import Violated as Violated
from raftkv.sim.world.cluster import Watcher
from raftkv.sim.world.node import VirtualNode


@dataclass(slots=True)
class _Seen:
    """What the checker knows of one node's present life."""

    frames: list[bytes] = field(default_factory=list)
    chain: list[int] = field(default_factory=list)
    """For each entry, a hash over it and all before it."""
    base: int = 0
    """The log is known from here on …"""
    root: int = 0
    """… and this is the hash over all up to there."""
    term: int = 0
    commit: int = 0
    applied: int = 0
    hashed: int = -1
    """Where the states were last compared."""
    led: tuple[int, int] | None = None
    """(term, last index) while it leads."""
    match: dict[tuple[NodeId, bytes | None], int] = field(default_factory=dict)
    """At a leader: how far each incarnation is known to match; None: it has left."""
    loading: Loading = field(default_factory=Loading)


class Invariants(Watcher):
    """Watches a cluster. Entries are compared by their frames, logs by a hash over all that came before."""

    def __init__(
        self, cluster: Nodes, *, clocks_keep_to_the_bound: bool = True, machines_are_sound: bool = True
    ) -> None:
        """Where clocks break the bound that leases rest on, or machines err, the one property that hangs on it is
        not claimed.
        """
        self.cluster = cluster
        self._clocks_keep_to_the_bound = clocks_keep_to_the_bound
        self._machines_are_sound = machines_are_sound
        self.checks = 0
        self._seen: dict[NodeId, _Seen] = {}
        self._leader_of_term: dict[int, NodeId] = {}
        self._chain_of_entry: dict[tuple[int, int], int] = {}
        self._committed: list[bytes] = []
        self._votes: dict[tuple[NodeId, bytes, int], NodeId] = {}
        """By incarnation, as terms are: whoever lost his data is somebody else."""
        self._hashes: dict[int, tuple[NodeId, int | None]] = {}
        self._terms: dict[tuple[NodeId, bytes], int] = {}
        self.electorate = Electorate(cluster, self._committed)

    def leader_of(self, term: int) -> NodeId | None:
        """Who was seen to lead it; None: nobody was."""
        return self._leader_of_term.get(term)

    def started(self, node: VirtualNode) -> None:
        """A new life: what is volatile begins anew, the term does not."""
        self._seen[node.id] = _Seen()
        self.electorate.started(node)
        if node.raft.term < self._terms.get(_life_of(node), 0):
            raise Violated("term never falls", f"{node.id} restarted in term {node.raft.term}")
        found, promised = node.running.snapshots.index, node.disk.promised_snapshot
        if found < promised and not node.disk.is_spoiled:
            raise Violated("a snapshot that is in place stays", f"{node.id} found {found}, had said {promised}")

    def synced(self, node: VirtualNode, write: DiskWrite) -> None:
        """Only what a disk holds counts for the check of acknowledgements."""

    def stepped(self, node: VirtualNode, work: Work) -> None:
        """Checks everything that this turn can have broken."""
        self.checks += 1
        raft, seen = node.raft, self._seen[node.id]
        self._term_never_falls(node, raft, seen)
        self._election_safety(node, raft)
        self._leader_append_only(node, raft, seen)
        self._log_matching(node, raft, seen)
        self._commit_and_applied_never_fall(node, raft, seen)
        seen.loading.stepped(loading=raft.loading, applied=raft.applied_index)
        self._state_machine_safety(node, raft, seen)
        self._leader_completeness(node, raft, seen)
        self._match_never_falls(node, raft, seen)
        self._requests_rest_on_the_disk(node, work)
        self._replies_rest_on_the_disk(node, work)
        self.electorate.stepped(node, work)
        self.electorate.said_so(node.id)
        if self._machines_are_sound:
            self._equal_states(node, raft, seen)

    def _term_never_falls(self, node: VirtualNode, raft: Raft, seen: _Seen) -> None:
        if raft.term < seen.term:
            raise Violated("term never falls", f"{node.id}: {seen.term} → {raft.term}")
        seen.term = raft.term
        me = _life_of(node)
        self._terms[me] = max(self._terms.get(me, 0), node.disk.vote[0])

    def _election_safety(self, node: VirtualNode, raft: Raft) -> None:
        """Figure 3: at most one leader in a term."""
        if raft.role is Role.LEADER:
            first = self._leader_of_term.setdefault(raft.term, node.id)
            if first != node.id:
                raise Violated("Election Safety", f"{first} and {node.id} both led term {raft.term}")
            if node.disk.vote != (raft.term, node.id):
                raise Violated("a leader's own vote is durable", f"{node.id} leads term {raft.term}")
            if raft.state.configuration_is_committed and not raft.state.is_voter:
                raise Violated("who votes no more does not lead", f"{node.id} in term {raft.term}")
            if self._clocks_keep_to_the_bound:
                self._no_older_lease_is_held(node, raft)

    def _no_older_lease_is_held(self, node: VirtualNode, raft: Raft) -> None:
        """Thesis §6.4.1: while a leader would answer by its lease, nobody leads a later term."""
        for other in self.cluster.nodes.values():
            if other.is_up and other.raft.term < raft.term and other.raft.holds_lease(other.read_clock_us()):
                raise Violated("a lease excludes", f"{other.id} holds its lease, {node.id} leads term {raft.term}")

    def _leader_append_only(self, node: VirtualNode, raft: Raft, seen: _Seen) -> None:
        """Figure 3: a leader never overwrites or deletes entries in its log."""
        if raft.role is not Role.LEADER:
            seen.led = None
            return
        if seen.led is not None and seen.led[0] == raft.term and raft.last_index < seen.led[1]:
            raise Violated("Leader Append-Only", f"{node.id}'s log shrank to {raft.last_index} while it led")
        seen.led = (raft.term, raft.last_index)

    def _log_matching(self, node: VirtualNode, raft: Raft, seen: _Seen) -> None:
        """Figure 3: one entry, one history before it. Looks back from the end to where nothing changed."""
        if raft.state.log.base_index != seen.base:
            self._begin_at(node, raft.state.log.base_index, raft, seen)
        count = raft.last_index - seen.base
        unchanged = min(len(seen.frames), count)
        while unchanged and _frame_at(node, raft, unchanged) is not seen.frames[unchanged - 1]:
            unchanged -= 1
        was_cut = unchanged < len(seen.frames)
        del seen.frames[unchanged:], seen.chain[unchanged:]
        if was_cut:
            self._newest_members_are_in_force(node, raft, seen, through=unchanged)
        for position in range(unchanged + 1, count + 1):
            frame = _frame_at(node, raft, position)
            self._remember(node, seen, frame)
            if framing.kind(frame) == framing.EntryKind.CONFIGURATION:
                self._majorities_meet(node, raft, seen.base + position)

    def _newest_members_are_in_force(self, node: VirtualNode, raft: Raft, seen: _Seen, *, through: int) -> None:
        """Paper §6: the newest configuration in the log counts; where its entry gave way, the one before does."""
        newest = seen.base
        for position in range(through, 0, -1):
            if framing.kind(seen.frames[position - 1]) == framing.EntryKind.CONFIGURATION:
                newest = seen.base + position
                break
        known = raft.state.configurations.index_at(seen.base + through)
        if known != newest and (known > newest or newest > seen.base):
            raise Violated(
                "the newest configuration is in force", f"{node.id} goes by that at {known}, not at {newest}"
            )

    def _majorities_meet(self, node: VirtualNode, raft: Raft, index: int) -> None:
        """Paper §6: two configurations in a row have a voter set in common, so no two disjoint majorities decide."""
        configurations = raft.state.configurations
        before, new = configurations.at(index - 1).voter_sets(), configurations.at(index).voter_sets()
        if any(before) and not set(before) & set(new):
            told = " and ".join(" with ".join(map(_names, sets)) for sets in (before, new))
            raise Violated("majorities of configurations meet", f"{node.id} has {told} in a row at {index}")
        if raft.role is Role.LEADER and configurations.index_at(index - 1) > raft.commit_index:
            raise Violated("one change at a time", f"{node.id} began another at {index}, with one uncommitted")
        if raft.role is Role.LEADER and raft.term_at(raft.commit_index) != raft.term:
            raise Violated("no change before the own term commits", f"{node.id} began one at {index}")
        by_this_leader = raft.role is Role.LEADER and raft.term_at(index) == raft.term
        self.electorate.appended(node, raft, index, by_this_leader=by_this_leader)

    def _begin_at(self, node: VirtualNode, base: int, raft: Raft, seen: _Seen) -> None:
        """The log begins there now: what a snapshot stands for is an entry that was committed (faults 38 to 40)."""
        term = raft.term_at(Index(base))
        if base > len(self._committed) or framing.term_and_index(self._committed[base - 1]) != (term, base):
            raise Violated("a log begins with what was committed", f"{node.id}'s with ({base}, term {term})")
        assert term is not None, "a log knows the term at its base"
        root, count = self._chain_of_entry[base, term], base - seen.base
        if 0 < count <= len(seen.chain) and seen.chain[count - 1] == root:
            del seen.frames[:count], seen.chain[:count]
        else:
            seen.frames.clear()
            seen.chain.clear()
        seen.base, seen.root = base, root

    def _remember(self, node: VirtualNode, seen: _Seen, frame: bytes) -> None:
        term, index = framing.term_and_index(frame)
        before = seen.chain[-1] if seen.chain else seen.root
        chain = int.from_bytes(framing.checksum_bytes(frame), "little") ^ (before * _MIX & _MASK)
        if self._chain_of_entry.setdefault((index, term), chain) != chain:
            raise Violated("Log Matching", f"{node.id} holds another history before ({index}, term {term})")
        seen.frames.append(frame)
        seen.chain.append(chain)

    def _commit_and_applied_never_fall(self, node: VirtualNode, raft: Raft, seen: _Seen) -> None:
        if raft.commit_index < seen.commit or raft.applied_index < seen.applied:
            raise Violated("commit and applied never fall", node.id)
        if seen.led is not None and seen.commit < raft.commit_index and raft.term_at(raft.commit_index) != raft.term:
            raise Violated("only the own term is committed by counting", f"{node.id}, entry {raft.commit_index}")
        if raft.applied_index > raft.commit_index or raft.commit_index > raft.last_index:
            raise Violated("applied ≤ commit ≤ last", node.id)
        seen.applied = raft.applied_index

    def _state_machine_safety(self, node: VirtualNode, raft: Raft, seen: _Seen) -> None:
        """Figure 3: no two nodes commit different entries at one index; what is new is on a majority's disks."""
        base = raft.state.log.base_index
        for index in range(max(base, seen.commit) + 1, raft.commit_index + 1):
            frame = seen.frames[index - base - 1]
            if index > len(self._committed):
                self._is_on_a_majority(node, index, frame)
                self._committed.append(frame)
            elif self._committed[index - 1] != frame:
                raise Violated("State Machine Safety", f"{node.id} commits another entry {index}")
        seen.commit = raft.commit_index

    def _is_on_a_majority(self, node: VirtualNode, index: int, frame: bytes) -> None:
        holders = [other.id for other in self.cluster.nodes.values() if other.disk.was_promised(index, frame)]
        # In the turn in which a configuration is committed the next one may be in force already.
        before = node.raft.state.configurations.before
        in_force = [node.raft.configuration] + ([] if before is None else [before[1]])
        if not any(quorum.has_majority(configuration.voter_sets(), holders) for configuration in in_force):
            raise Violated("committed is durable on a majority", f"entry {index} is only on the disks of {holders}")

    def _leader_completeness(self, node: VirtualNode, raft: Raft, seen: _Seen) -> None:
        """Figure 3: what was committed is in the log of every later leader."""
        if raft.role is not Role.LEADER or not self._committed:
            return
        if raft.term < max(self._leader_of_term):
            return
        last, base = len(self._committed), raft.state.log.base_index
        if raft.last_index < last or (last > base and seen.frames[last - base - 1] != self._committed[-1]):
            raise Violated("Leader Completeness", f"{node.id} leads term {raft.term} without committed entry {last}")

    def _match_never_falls(self, node: VirtualNode, raft: Raft, seen: _Seen) -> None:
        office = raft.state.office
        if office is None:
            seen.match = {}
            return
        lives = {peer: member.incarnation for peer, member in office.members.items()}
        for peer, progress in office.progress.items():
            known = seen.match.get((peer, lives.get(peer)), 0)
            if seen.led is not None and progress.match_index < known and seen.led[0] == raft.term:
                raise Violated("match never falls", f"{peer} at {node.id}")
            if progress.match_index > known:
                position = progress.match_index - seen.base
                frame = seen.frames[position - 1] if position > 0 else None
                self.electorate.matched(node, raft, peer, progress.match_index, frame)
        seen.match = {(peer, lives.get(peer)): progress.match_index for peer, progress in office.progress.items()}

    def _requests_rest_on_the_disk(self, node: VirtualNode, work: Work) -> None:
        """Whoever hears of a term could hear of it again after a crash; so it is stored before it is said."""
        for envelope in work.requests:
            request = envelope.message
            if isinstance(request, PreVoteRequest):
                continue
            if request.term > node.disk.vote[0]:
                raise Violated("nothing leaves before its term is durable", f"{node.id}: {request}")
            if isinstance(request, RequestVote) and node.disk.vote != (request.term, node.id):
                raise Violated("a candidate's own vote is durable", f"{node.id}: {request}")

    def _replies_rest_on_the_disk(self, node: VirtualNode, work: Work) -> None:
        """A vote and a match that leave are on this node's disk; no second vote in a term, ever."""
        for _, envelope in work.replies:
            reply = envelope.message
            if reply.term > node.disk.vote[0] and not _grants_a_pre_vote(reply):
                raise Violated("nothing leaves before its term is durable", f"{node.id}: {reply}")
            if isinstance(reply, RequestVoteReply) and reply.granted:
                self._vote_is_durable_and_single(node, reply, envelope.receiver)
            elif isinstance(reply, AppendEntriesReply) and reply.success:
                end = node.disk.base.index + len(node.disk.frames)
                if reply.match > end:
                    raise Violated("acknowledged is durable", f"{node.id} claims {reply.match}, its disk ends at {end}")
            elif isinstance(reply, InstallSnapshotReply) and reply.installed:
                end = node.disk.base.index + len(node.disk.frames)
                if reply.index > end:
                    raise Violated("installed is durable", f"{node.id} claims {reply.index}, its disk ends at {end}")

    def _vote_is_durable_and_single(self, node: VirtualNode, reply: RequestVoteReply, candidate: NodeId) -> None:
        if node.disk.vote != (reply.term, candidate):
            raise Violated("a vote is durable before it leaves", f"{node.id} for {candidate} in term {reply.term}")
        if self._votes.setdefault((*_life_of(node), reply.term), candidate) != candidate:
            raise Violated("one vote a term", f"{node.id} voted twice in term {reply.term}")

    def _equal_states(self, node: VirtualNode, raft: Raft, seen: _Seen) -> None:
        """Equal logs make equal states: the machines' hashes at one applied index are the same."""
        if seen.hashed == raft.applied_index or node.running.snapshots.is_loading:
            return
        seen.hashed = raft.applied_index
        state_hash = node.running.machine.state_hash()
        first, known = self._hashes.setdefault(raft.applied_index, (node.id, state_hash))
        if known != state_hash:
            raise Violated("equal states", f"{first} and {node.id} differ at applied index {raft.applied_index}")


def _life_of(node: VirtualNode) -> tuple[NodeId, bytes]:
    return node.id, node.raft.state.me.incarnation


def _names(voters: Collection[NodeId]) -> str:
    return ",".join(sorted(voters))


def _frame_at(node: VirtualNode, raft: Raft, position: int) -> bytes:
    """The frame at that place after the base; what the core no longer holds is on the disk."""
    log = raft.state.log
    index = log.base_index + position
    held = log.frames_between(index, index, bytes_max=1)
    return node.disk.frames[index - node.disk.base.index - 1] if held is None else held[0]


def _grants_a_pre_vote(reply: object) -> bool:
    return bool(getattr(reply, "granted", False)) and hasattr(reply, "proposed_term")


_MIX: Final = 0x9E3779B97F4A7C15
_MASK: Final = (1 << 64) - 1
