"""What befalls processes and their clocks: see breaking.py for how to add a kind."""

from __future__ import annotations

from dataclasses import replace

from raftkv.outcomes import SnapshotWhy
from raftkv.sim.faults.breaking import Faults, kind
from raftkv.sim.world.node import VirtualNode


@kind
def crash_one(faults: Faults) -> None:
    """It starts again some time later, or at once."""
    faults.crash(faults.victim())


@kind
def crash_all(faults: Faults) -> None:
    """All processes die, or power fails everywhere."""
    power_fails = faults.rng.randrange(2) == 0
    for node in faults.cluster.nodes.values():
        faults.crash(node, power_fails=power_fails)


@kind
def reboot(faults: Faults) -> None:
    """The machine goes down with its process, and its clock begins at 0."""
    node = faults.victim()
    if faults.crash(node, power_fails=True):
        per_mille = node.clock.per_mille
        node.clock = replace(node.clock, offset_us=-(faults.cluster.now_us * per_mille // 1000))


@kind
def pause(faults: Faults) -> None:
    """The process stands still, and its clock goes on."""
    victim = faults.victim()
    faults.cluster.pause(victim.id)
    faults.for_a_while(lambda: faults.cluster.resume(victim.id))


@kind
def stall(faults: Faults) -> None:
    """The process stands still in the middle of a turn: what it does next rests on a clock read long ago."""
    faults.cluster.stall(faults.victim().id, faults.rng.randrange(1_000, 2_000_000))


@kind
def block_loop(faults: Faults) -> None:
    """The event loop is kept from its next turn, for longer than an election takes perhaps; the disk goes on."""
    victim = faults.victim()
    faults.cluster.block_loop(victim.id)
    faults.for_a_while(lambda: faults.cluster.resume(victim.id), at_most_us=1_500_000)


@kind
def suspend(faults: Faults) -> None:
    """The machine sleeps: its clock goes on, as CLOCK_BOOTTIME does, and the timers of its event loop do not."""
    victim = faults.victim()
    faults.cluster.suspend(victim.id)
    faults.for_a_while(lambda: faults.cluster.resume(victim.id))


@kind
def transfer(faults: Faults) -> None:
    """The leader is asked to hand over, to anybody."""
    leader = faults.cluster.leader()
    if leader is not None and not leader.paused:
        _hand_over(faults, leader)


def _hand_over(faults: Faults, leader: VirtualNode) -> None:
    target = faults.rng.choice([*faults.cluster.nodes, None])
    leader.running.transfer_leadership(target, faults.told.transferred(leader))
    faults.cluster.poke(leader.id)


@kind
def terminate(faults: Faults) -> None:
    """SIGTERM: the node hands over, takes nothing more, and is gone some time later, whoever still waits."""
    node = faults.victim()
    if not node.is_up or node.paused:
        return
    life = node.life
    node.running.shutting_down = True
    node.running.snapshots.give_up(SnapshotWhy.SHUTTING_DOWN, "this node is stopping")
    node.running.transfer_leadership(None, faults.told.transferred(node))
    faults.cluster.poke(node.id)
    faults.for_a_while(lambda: _end(faults, node, life), at_most_us=1_200_000)


def _end(faults: Faults, node: VirtualNode, life: int) -> None:
    if node.life == life:
        faults.crash(node)


@kind
def hand_over_unheard(faults: Faults) -> None:
    """The leader hands over, and hears nobody any more: for as long as it takes it to notice, two believe they lead."""
    leader = faults.cluster.leader()
    if leader is None or leader.paused:
        return
    faults.new_partition()
    for other in faults.cluster.nodes:
        if other != leader.id:
            faults.cut(other, leader.id)
    _hand_over(faults, leader)
    faults.heal_later()
