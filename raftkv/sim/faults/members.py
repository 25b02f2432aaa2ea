"""What befalls a cluster's idea of who belongs to it: see breaking.py for how to add a kind."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import Final

from raftkv.core.messages import AppendEntries, Envelope, Heartbeat, Introduction, Request, RequestVote, TimeoutNow
from raftkv.core.types import ClusterId, Incarnation, Index, NodeId, Round, Term
from raftkv.members import Add, Alter, Become, Named, Remove, Terms, Wish
from raftkv.sim.checks.told import Told
from raftkv.sim.faults.breaking import Faults, kind, kind_of_files
from raftkv.sim.world.births import url_of
from raftkv.sim.world.cluster import STRANGERS_TERM
from raftkv.sim.world.node import VirtualNode
from raftkv.sim.world.wal_disk import WalDisk

_ANOTHER_CLUSTER: Final = ClusterId(b"another cluster.")
_VOTERS_MIN: Final = 3
"""So many are needed for one of them to lose its data."""
_ASKED_AGAIN_US: Final = 300_000
_ANOTHER_LIFE: Final = Incarnation(b"another node....")


@kind_of_files
def wipe(faults: Faults) -> None:
    """A data directory is emptied while its node is down: whoever comes back is somebody else."""
    victim = faults.victim()
    disk = victim.disk
    assert isinstance(disk, WalDisk)
    if faults.may_lose(victim):
        faults.crash(victim)
        disk.wipe()


@kind_of_files
def replace_member(faults: Faults) -> None:
    """A voter's data is gone; it comes back as somebody new, and an operator has that one take its place."""
    cluster, leader = faults.cluster, faults.cluster.leader()
    if leader is None or cluster.members() != list(cluster.nodes.values()):
        return
    voters = [member.id for member in leader.raft.configuration.current.voters]
    others = [cluster.nodes[id] for id in voters if id != leader.id and cluster.nodes[id].is_up]
    if len(voters) < _VOTERS_MIN or len(others) != len(voters) - 1:
        return
    victim = faults.rng.choice(others)
    disk = victim.disk
    assert isinstance(disk, WalDisk)
    faults.crash(victim)
    disk.wipe()
    victim.joins = True
    _go_on_replacing(faults, victim)


def _go_on_replacing(faults: Faults, victim: VirtualNode) -> None:
    """Whoever leads is asked, again and again, until the new one votes."""
    leader = faults.cluster.leader()
    if leader is not None and not leader.paused and victim.runs:
        current = leader.raft.configuration.current
        if any(member.incarnation == victim.incarnation for member in current.voters):
            return
        lives = [member.incarnation for member in current.members() if member.id == victim.id]
        is_old = lives not in ([], [victim.incarnation])
        wish: Wish = Remove(victim.id) if is_old else Add(_named(victim.id), votes=True)
        said, terms = {victim.id: _introduction(victim)}, Terms(wait_ms=1_000)
        leader.running.change_members(wish, said, terms, faults.told.members(leader, wish, terms))
        faults.cluster.poke(leader.id)
    faults.later(_ASKED_AGAIN_US, lambda: _go_on_replacing(faults, victim))


@kind
def change_members(faults: Faults) -> None:
    """Whoever leads is asked to let somebody in, or to let go of somebody, be it of itself, or for several at once."""
    leader = faults.cluster.leader()
    if leader is None or leader.paused:
        return
    ask_for_a_change(leader, faults.cluster.nodes.values(), faults.rng, faults.told)
    faults.cluster.poke(leader.id)


def ask_for_a_change(leader: VirtualNode, nodes: Iterable[VirtualNode], rng: Random, told: Told) -> None:
    """A wish is drawn, and all nodes that run have been asked who they are."""
    said = {node.id: _introduction(node) for node in nodes if node.runs or node.is_up}
    terms = Terms(wait_ms=rng.choice((100, 2_000)), force=rng.randrange(8) == 0)
    wish = _wish(rng, leader, [node.id for node in nodes])
    leader.running.change_members(wish, said, terms, told.members(leader, wish, terms))


def _wish(rng: Random, leader: VirtualNode, names: list[NodeId]) -> Wish:
    membership = leader.raft.state.configurations.current.current
    members = [member.id for member in membership.members()]
    others = [name for name in names if name not in members]
    drawn = rng.randrange(8)
    if others and drawn < 3:
        return Add(_named(rng.choice(others)), votes=rng.randrange(4) > 0)
    if drawn < 5:
        return Remove(leader.id if rng.randrange(2) else rng.choice(members))
    if drawn < 7:
        return Alter(rng.choice(members), votes=rng.randrange(2) > 0)
    names = rng.sample(names, rng.randrange(1, len(names) + 1))
    learners = names[1 : rng.randrange(1, 3)]
    return Become(
        tuple(_named(name) for name in names if name not in learners), tuple(_named(name) for name in learners)
    )


def _named(name: NodeId) -> Named:
    return Named(name, url_of(name))


def _introduction(node: VirtualNode) -> Introduction:
    """What it says when it is asked who it is."""
    if node.forming is not None:
        return node.forming.introduction()
    return Introduction(
        node.id, node.me.incarnation, url_of(node.id), node.me.cluster_id, formed=True, initial_members=[]
    )


@kind
def stranger(faults: Faults) -> None:
    """A node of another cluster, or one that means another node, has an address of ours: it speaks of a high term.

    To whoever waits to be let in, and knows of nobody, it speaks in the victim's own name.
    """
    rng = faults.rng
    victim = faults.victim()
    if not victim.is_up:
        return
    me, members = victim.raft.state.me, victim.raft.state.configurations.members.values()
    known = [(member.id, member.incarnation) for member in members] or [(me.id, me.incarnation)]
    (sender, life), term = rng.choice(known), Term(STRANGERS_TERM + rng.randrange(1_000))
    said: Request = rng.choice(
        (
            RequestVote(term, Index(1_000_000), term, transfer=True),
            AppendEntries(term, Index(0), Term(0), Index(0), []),
            Heartbeat(term, Index(0), Index(0), Round(1), 0, 0),
            TimeoutNow(term),
        )
    )
    if rng.randrange(2):
        envelope = Envelope(_ANOTHER_CLUSTER, sender, life, me.id, me.incarnation, said)
    else:
        envelope = Envelope(me.cluster_id, sender, life, me.id, _ANOTHER_LIFE, said)
    faults.cluster.hear_stranger(victim, envelope)
