"""What nodes say to those who ask for transfers, changes of members and snapshots is judged: a lie is noticed."""

from __future__ import annotations

from typing import Any

import pytest

from raftkv.core.types import NodeId
from raftkv.members import (
    Add,
    Alter,
    Become,
    MembersAre,
    MembersRefused,
    MembersWhy,
    Named,
    Remove,
    StillChanging,
    Terms,
)
from raftkv.outcomes import SnapshotTaken, Transferred, TransferRefused, TransferWhy
from raftkv.sim.checks.violated import Violated
from raftkv.sim.runs.scene import Scene
from raftkv.sim.world.node import VirtualNode
from tests.sim.test_short_runs import a_world, elect


@pytest.fixture
def scene() -> Scene:
    made = a_world()
    elect(made)
    return made


def leader_of(scene: Scene) -> VirtualNode:
    return scene.world.nodes[NodeId("a")]


def heard(scene: Scene, outcome: Any, wish: Any = None) -> None:
    """Node a says that to whoever asked; then its turn is looked at."""
    node, judge = leader_of(scene), scene.world.judge
    if isinstance(outcome, Transferred | TransferRefused):
        judge.transferred(node)(outcome)
    elif isinstance(outcome, SnapshotTaken):
        judge.snapshot(node)(outcome)
    else:
        judge.members(node, wish, Terms())(outcome)
    scene.world.turn(node)


ABC = tuple(Named(name, f"http://{name}") for name in "abc")
TRUE = [
    (MembersAre(changed=False), Add(ABC[1], votes=True)),
    (MembersAre(changed=True), Remove("d")),
    (MembersAre(changed=False), Become(ABC)),
    (MembersAre(changed=False), Alter("b", votes=True)),
    (MembersRefused(MembersWhy.IN_PROGRESS, ""), Remove("b")),
    (TransferRefused(TransferWhy.TIMED_OUT), None),
]


@pytest.mark.parametrize(("outcome", "wish"), TRUE)
def test_what_is_so_may_be_said(scene, outcome, wish):
    _change_something(scene)
    heard(scene, outcome, wish)


def test_who_leads_may_be_said(scene):
    heard(scene, Transferred("a", "", leader_of(scene).raft.term, changed=False))


def _change_something(scene: Scene) -> None:
    """A learner comes and goes, so that the log says who the members are."""
    node, world = leader_of(scene), scene.world
    for votes in (False, True):
        wish, terms = Alter("c", votes=votes), Terms()
        node.running.change_members(wish, {}, terms, world.judge.members(node, wish, terms))
        for _ in range(12):
            world.lapse(node, world.setting.raft.heartbeat_us)
            world.talk(list(world.nodes.values()), budget=60, in_order=True)
    assert node.raft.change_status is None
    assert len(node.raft.configuration.current.voters) == 3


FALSE = [
    (MembersAre(changed=True), Add(Named("d", "http://d"), votes=True)),
    (MembersAre(changed=True), Remove("b")),
    (MembersAre(changed=True), Alter("b", votes=False)),
    (MembersAre(changed=True), Become(ABC[:2])),
]


@pytest.mark.parametrize(("outcome", "wish"), FALSE)
def test_members_that_are_others_are_noticed(scene, outcome, wish):
    _change_something(scene)
    with pytest.raises(Violated, match="members are as was said"):
        heard(scene, outcome, wish)


def test_a_change_that_does_not_go_on_is_noticed(scene):
    with pytest.raises(Violated, match="a change that goes on goes on"):
        heard(scene, StillChanging(), Remove("b"))


def test_another_change_that_goes_on_is_noticed(scene):
    node, world = leader_of(scene), scene.world
    world.talk(list(world.nodes.values()), budget=60, in_order=True)
    node.running.change_members(Alter("b", votes=False), {}, Terms(force=True), lambda _: None)
    world.turn(node)
    assert node.raft.configuration.is_joint
    heard(scene, StillChanging(), Alter("b", votes=False))
    with pytest.raises(Violated, match="a change that goes on goes on"):
        heard(scene, StillChanging(), Alter("c", votes=False))


def test_who_does_not_lead_knows_of_no_change_that_goes_on(scene):
    world = scene.world
    with pytest.raises(Violated, match="a change that goes on goes on"):
        world.judge.members(world.nodes[NodeId("b")], Remove("c"), Terms())(StillChanging())


def test_a_leader_that_never_led_is_noticed(scene):
    with pytest.raises(Violated, match="who is said to lead leads"):
        heard(scene, Transferred("b", "", leader_of(scene).raft.term))


def test_a_snapshot_that_is_not_there_is_noticed(scene):
    with pytest.raises(Violated, match="a snapshot is of what was applied"):
        heard(scene, SnapshotTaken(leader_of(scene).raft.applied_index, 1, changed=True))
