"""What breaks between nodes: see breaking.py for how to add a kind."""

from __future__ import annotations

from raftkv.core.types import NodeId
from raftkv.sim.faults.breaking import Faults, kind
from raftkv.sim.faults.profile import CALM, LATE, LOSSY, SLOW
from raftkv.sim.world.network import NetworkFaults


@kind
def isolate(faults: Faults) -> None:
    """Nobody hears one node, and it hears nobody."""
    _cut_off(faults, [faults.victim().id])


@kind
def split(faults: Faults) -> None:
    """Two sides; everybody hears their own."""
    names = list(faults.cluster.nodes)
    _cut_off(faults, faults.rng.sample(names, faults.rng.randrange(1, len(names) + 1)))


@kind
def cut_one_way(faults: Faults) -> None:
    """One node is heard and hears nothing, or the other way round, by all or by one."""
    faults.new_partition()
    victim, deaf = faults.victim().id, faults.rng.randrange(2)
    others = [name for name in faults.cluster.nodes if name != victim]
    for other in others[: faults.rng.randrange(1, len(others) + 1) if others else 0]:
        if deaf:
            faults.cut(other, victim)
        else:
            faults.cut(victim, other)
    faults.heal_later()


@kind
def ring(faults: Faults) -> None:
    """Everybody reaches only their two neighbours."""
    faults.new_partition()
    names = list(faults.cluster.nodes)
    for place, name in enumerate(names):
        for distance in range(2, len(names) - 1):
            faults.cut(name, names[(place + distance) % len(names)])
    faults.heal_later()


@kind
def bridge(faults: Faults) -> None:
    """Two sides that reach each other only through one node, which both reach."""
    faults.new_partition()
    middle = faults.victim().id
    others = [name for name in faults.cluster.nodes if name != middle]
    half = len(others) // 2
    for one in others[:half]:
        for other in others[half:]:
            _cut_between(faults, one, other)
    faults.heal_later()


@kind
def isolate_in_turn(faults: Faults) -> None:
    """One node after the other is cut off; they come back in another order."""
    names = list(faults.cluster.nodes)
    number = faults.rng.randrange(1, len(names) + 1)
    gone, back = faults.rng.sample(names, number), faults.rng.sample(names, len(names))
    apart_us = faults.rng.randrange(20_000, 600_000)
    faults.new_partition()
    for place, name in enumerate(gone):
        faults.later(1 + place * apart_us, lambda name=name: _cut_from_all(faults, name))  # type: ignore[misc]
    for place, name in enumerate(back, len(gone)):
        faults.later(1 + place * apart_us, lambda name=name: _let_back(faults, name))  # type: ignore[misc]


@kind
def flap(faults: Faults) -> None:
    """One link, or all links of one node, comes and goes."""
    one = faults.victim().id
    others = [name for name in faults.cluster.nodes if name != one]
    if others and faults.rng.randrange(2):
        others = [faults.rng.choice(others)]
    up_us, down_us = faults.rng.randrange(5_000, 400_000), faults.rng.randrange(5_000, 400_000)
    at_us = 1
    for _ in range(faults.rng.randrange(2, 6)):
        for other in others:
            faults.later(at_us, lambda other=other: _cut_between(faults, one, other))  # type: ignore[misc]
            faults.later(at_us + down_us, lambda other=other: _heal_between(faults, one, other))  # type: ignore[misc]
        at_us += down_us + up_us


@kind
def slow_link(faults: Faults) -> None:
    """One link, one way or both, takes its time."""
    names = list(faults.cluster.nodes)
    if len(names) < 2:
        return
    one, other = faults.rng.sample(names, 2)
    delay_us = faults.rng.choice((20_000, 120_000, 400_000))
    slow = NetworkFaults(delay_us_min=delay_us // 2, delay_us_max=delay_us)
    ways = [(one, other), (other, one)][: faults.rng.randrange(1, 3)]
    _worsen(faults, ways, slow)
    faults.for_a_while(lambda: _worsen(faults, ways, None))


@kind
def burst(faults: Faults) -> None:
    """For a moment most messages are lost."""
    network = faults.cluster.network
    before, network.faults = network.faults, NetworkFaults(loss_per_mille=700, failure_told_per_mille=500)
    faults.for_a_while(lambda: setattr(network, "faults", before), at_most_us=800_000)


@kind
def heal(faults: Faults) -> None:
    """Sooner than was meant."""
    faults.cluster.network.heal_all()


@kind
def change_weather(faults: Faults) -> None:
    """The network gets better or worse."""
    faults.cluster.network.faults = faults.rng.choice((CALM, LOSSY, LATE, SLOW))


def _worsen(faults: Faults, ways: list[tuple[NodeId, NodeId]], badness: NetworkFaults | None) -> None:
    for sender, receiver in ways:
        faults.cluster.network.worsen(sender, receiver, badness)


def _cut_off(faults: Faults, side: list[NodeId]) -> None:
    faults.new_partition()
    for one in side:
        for other in faults.cluster.nodes:
            if other not in side:
                _cut_between(faults, one, other)
    faults.heal_later()


def _cut_from_all(faults: Faults, name: NodeId) -> None:
    for other in faults.cluster.nodes:
        if other != name:
            _cut_between(faults, name, other)


def _let_back(faults: Faults, name: NodeId) -> None:
    for other in faults.cluster.nodes:
        _heal_between(faults, name, other)


def _cut_between(faults: Faults, one: NodeId, other: NodeId) -> None:
    faults.cut(one, other)
    faults.cut(other, one)


def _heal_between(faults: Faults, one: NodeId, other: NodeId) -> None:
    faults.cluster.network.heal(one, other)
    faults.cluster.network.heal(other, one)
