"""Members change all the time while nodes crash and the network is bad: nothing of Figure 3 breaks, no change is stuck.

``python -m tests.core.test_random_members FIRST COUNT`` runs more seeds.
"""

from __future__ import annotations

import sys
from random import Random

import pytest

from raftkv.core.raft import Raft
from raftkv.core.types import Role
from tests.core.members_world import E_MS, Node, World, Wrong, wanted

SEEDS = 120
PARTS = 6


def one_run(seed: int) -> World:
    rng = Random(seed)
    names = "abcdef"[: rng.randrange(3, 7)]
    world = World(seed, names, names[: rng.randrange(1, len(names) + 1)])
    try:
        _live(world, rng)
        world.comes_to_rest()
        _still_works(world)
    except Exception as error:
        story = "\n".join(world.told[-200:])
        raise Wrong(f"seed {seed}: {error}\n{story}") from error
    return world


def _live(world: World, rng: Random) -> None:
    for node in list(world.nodes.values()):
        world.start(node)
    world.run(rng.choice((0, 3 * E_MS, 5 * E_MS)))
    for _ in range(rng.randrange(5, 40)):
        happening = rng.choices(_HAPPENINGS, weights=_WEIGHTS)[0]
        happening(world, rng)
        world.run(rng.choice((0, 1, 3, 10, 30, E_MS, 3 * E_MS)))


def _anybody(world: World, rng: Random) -> Node:
    leader = world.leader()
    if leader is not None and rng.randrange(4):
        return leader
    return rng.choice(list(world.nodes.values()))


def _a_change(world: World, rng: Random) -> None:
    deadline_ms = rng.choice((None, world.now_us // 1000 + rng.choice((50, 500, 5000))))
    leaders = [node for node in world.nodes.values() if node.raft is not None and node.raft.role is Role.LEADER]
    target = wanted(world, rng)
    if leaders:
        leader = rng.choice(leaders)
        asked = world.ask_around(leader) if rng.randrange(2) else None
        if asked is not None:
            world.run(rng.choice((1, 3, 10, E_MS)))
        world.change(leader, target, deadline_ms=deadline_ms, force=rng.randrange(3) == 0, asked=asked)


def _a_second_thought(world: World, rng: Random) -> None:
    """Also at leaders that are none any more; perhaps in the very turn in which all have caught up."""
    _a_change(world, rng)
    world.run(rng.choice((1, 2, 3, 5, 20)))
    for node in list(world.nodes.values()):
        if node.raft is not None and node.raft.role is Role.LEADER:
            world.call_off(node)


def _writes(world: World, rng: Random) -> None:
    """Also at leaders that are none any more, and do not know it."""
    for node in list(world.nodes.values()):
        if node.raft is not None and rng.randrange(2):
            world.propose(node)


def _a_crash(world: World, rng: Random) -> None:
    node = _anybody(world, rng)
    if node.raft is not None:
        world.crash(node)


def _a_start(world: World, rng: Random) -> None:
    for node in list(world.nodes.values()):
        if node.raft is None and rng.randrange(2):
            world.start(node)


def _a_snapshot(world: World, rng: Random) -> None:
    """Perhaps of a joint configuration, and nobody else may have what it stands for any more."""
    for node in list(world.nodes.values()):
        if node.raft is not None and rng.randrange(2):
            world.keep_state(node)


def _an_empty_directory(world: World, rng: Random) -> None:
    """Of a node that no log that there is lists."""
    node = rng.choice(list(world.nodes.values()))
    logs = [one.saved() for one in world.nodes.values()]
    listed = any(
        node.id in configuration.members() for log in logs for _, configuration in [(0, log.base.configuration)]
    ) or any(node.id in configuration.members() for log in logs for _, configuration in log.configurations[-2:])
    if not listed and all(node.id not in one.raft.contacts for one in world.nodes.values() if one.raft is not None):
        world.wipe(node)


def _an_elections_time(world: World, rng: Random) -> None:
    node = rng.choice(list(world.nodes.values()))
    if node.raft is not None and node.raft.state.office is None:
        node.raft.state.election_deadline_us = world.now_us
        world.turn(node)


def _a_transfer(world: World, rng: Random) -> None:
    def act(raft: Raft) -> None:
        if raft.takes_proposals and raft.best_placed is not None:
            raft.transfer_leadership(None)

    leader = world.leader()
    if leader is not None:
        world.turn(leader, act)


def _a_bad_network(world: World, rng: Random) -> None:
    world.loss_percent = rng.choice((0, 5, 30))
    world.delay_us_max = rng.choice((1_000, 5_000, 80_000))
    world.disk_us_max = rng.choice((500, 5_000, 60_000))


def _a_cut(world: World, rng: Random) -> None:
    names = list(world.nodes)
    if rng.randrange(3) == 0:
        world.cut = set()
    elif rng.randrange(2):
        group = set(rng.sample(names, rng.randrange(1, len(names))))
        world.cut = {(a, b) for a in names for b in names if (a in group) != (b in group)}
    else:
        world.cut |= {(rng.choice(names), rng.choice(names)) for _ in range(rng.randrange(1, 4))}


_HAPPENINGS, _WEIGHTS = zip(
    (_a_change, 12),
    (_a_second_thought, 7),
    (_writes, 8),
    (_a_crash, 4),
    (_a_start, 5),
    (_a_snapshot, 4),
    (_an_empty_directory, 2),
    (_an_elections_time, 3),
    (_a_transfer, 1),
    (_a_bad_network, 3),
    (_a_cut, 5),
    strict=True,
)


def _still_works(world: World) -> None:
    """What is at rest can be changed again: all but the leader's data may go, and come back."""
    leader = world.leader()
    assert leader is not None
    before = len(world.committed)
    world.propose(leader)
    world.run(3 * E_MS)
    if len(world.committed) <= before:
        raise Wrong("nothing is committed any more")


@pytest.mark.parametrize("part", range(PARTS))
def test_no_run_goes_wrong_and_none_is_stuck(part):
    """Figure 3; faults 24, 25, 26, 28"""
    worlds = [one_run(seed) for seed in range(part, SEEDS, PARTS)]
    assert sum(world.changes_begun for world in worlds) >= SEEDS // PARTS // 2
    assert any(world.called_off for world in worlds)


def main() -> None:
    """More seeds, from a command line."""
    first, count = map(int, sys.argv[1:])
    begun = wrong = 0
    for seed in range(first, first + count):
        try:
            begun += one_run(seed).changes_begun
        except Wrong as error:
            wrong += 1
            sys.stdout.write(f"{error}"[:300] + "\n")
            sys.stdout.flush()
    sys.stdout.write(f"{count} runs, {begun} changes begun, {wrong} wrong\n")


if __name__ == "__main__":
    main()
