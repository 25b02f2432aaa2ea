"""Short runs: what is drawn, what leaving a choice out leaves alone, and how a failure is told."""

from __future__ import annotations

from random import Random

import pytest

from raftkv.core import quorum
from raftkv.core.settings import RaftSettings
from raftkv.core.types import NodeId, Role
from raftkv.kv.commands import DeleteRange, Txn
from raftkv.outcomes import Consistency
from raftkv.sim.runs import choices
from raftkv.sim.runs.choices import CHOICES, Choice
from raftkv.sim.runs.failed import RunFailed
from raftkv.sim.runs.minimize import lowest, minimized
from raftkv.sim.runs.scene import Scene
from raftkv.sim.runs.short import CHOICES_MAX, Chosen, Made, ShortRun, short_run
from raftkv.sim.runs.short_clients import ShortClients
from raftkv.sim.runs.short_world import Setting, ShortWorld
from tests.sim.planted import PLANTED

DRAWN = [ShortRun(seed) for seed in range(400)]


# -------------------------------------------------------------------------------------------- minimizing


@pytest.mark.parametrize("needed", [[0], [7], [19], [0, 19], [3, 4, 5], [1, 8, 9, 17], list(range(20))])
def test_a_list_is_cut_down_to_what_it_fails_by(needed):
    tried = []

    def fails(items):
        tried.append(items)
        return set(needed) <= set(items)

    assert minimized(list(range(20)), fails, tries_max=1000) == needed
    assert [] not in tried


def test_cutting_down_ends_when_the_tries_run_out():
    tried = []

    def fails(items):
        tried.append(items)
        return 63 in items

    assert minimized(list(range(64)), fails, tries_max=3) == list(range(56, 64))
    assert len(tried) == 3


@pytest.mark.parametrize(("threshold", "highest"), [(0, 9), (1, 9), (5, 9), (9, 9), (0, 0), (3, 40)])
def test_the_lowest_number_that_fails(threshold, highest):
    assert lowest(highest, lambda number: number >= threshold) == threshold


# ------------------------------------------------------------------------------------------ what is drawn


def test_every_kind_of_run_and_every_choice_is_drawn():
    assert {len(run.setting.names) for run in DRAWN} == {3, 4, 5}
    assert {run.setting.raft.lease_reads for run in DRAWN} == {False, True}
    assert {run.setting.raft.append_bytes_max == 1 for run in DRAWN} == {False, True}
    assert {one.choice for run in DRAWN for one in run.chosen} >= set(CHOICES)
    assert max(len(run.chosen) for run in DRAWN) <= CHOICES_MAX


def test_leaving_a_choice_out_leaves_alone_what_the_others_draw():
    numbers = [1, 2, 3, 4, 5]

    def draws(left: list[int]) -> list[float]:
        seen: list[float] = []
        spy = Choice(lambda scene: seen.append(scene.rng.random()), 1)
        Made(DRAWN[3].setting, 3).run([Chosen(number, spy) for number in left])
        return seen

    whole = draws(numbers)
    assert len(set(whole)) == 5
    assert draws([2, 4, 5]) == [whole[1], whole[3], whole[4]]


def test_who_begins_anew_at_the_end_is_not_in_step_with_another():
    """Two that wait equally long, each time, stand against each other for ever (seed 115156038622648)."""
    setting = Setting(tuple(map(NodeId, "ab")), RaftSettings(election_timeout_ms=300, heartbeat_ms=100), (1000, 1000))
    for seed in range(20):
        end_b = Choice(lambda scene: scene.world.crash(scene.world.nodes[NodeId("b")]), 1)
        made = Made(setting, seed)
        made.run([Chosen(1, end_b)])
        assert made.world.up()


def test_talk_is_cut_off_after_so_many_steps():
    talk = next(choice for choice in CHOICES if choice.act is choices.campaign)
    for steps in (0, 1, 5):
        made = Made(DRAWN[0].setting, 0)
        made.run([Chosen(1, talk, steps)])
        assert made.world.talked == steps


# ------------------------------------------------------------------------------------- what choices bring


def a_world(*, count: int = 3, leases: bool = False, seed: int = 1) -> Scene:
    rng = Random(seed)
    names = tuple(map(NodeId, "abcd"[:count]))
    raft = RaftSettings(election_timeout_ms=300, heartbeat_ms=100, lease_reads=leases)
    world = ShortWorld(Setting(names, raft, (1000, 1100, 1000, 1050)[:count]), rng)
    for node in world.nodes.values():
        world.start(node)
    return Scene(world, ShortClients(world), rng)


def elect(scene: Scene) -> None:
    node = scene.world.nodes[NodeId("a")]
    for _ in range(10):
        if node.raft.role is not Role.LEADER:
            scene.world.stand(node)
        for _ in range(4):
            scene.world.talk(list(scene.world.nodes.values()), budget=60, in_order=True)
    assert node.raft.role is Role.LEADER


def test_one_way_loss_is_one_way_until_it_is_mended():
    scene = a_world()
    world, (a, b, _) = scene.world, scene.world.nodes.values()
    world.deaf[a.id, b.id] = None
    world.stand(a)
    assert [message.envelope.receiver for message in world.flying] == ["c"]
    world.stand(b)
    assert ("b", "a") in [(message.envelope.sender, message.envelope.receiver) for message in world.flying]
    choices.mend(scene)
    world.stand(a)
    assert [message.envelope.receiver for message in world.flying].count(b.id) == 1


def test_clocks_jump_alone_but_where_leases_are_on():
    for leases in (False, True):
        scene = a_world(leases=leases)
        a, b, c = scene.world.nodes.values()
        before = [scene.world.clock_us(node.id) for node in (a, b, c)]
        scene.world.pass_time(b, 110_000)
        passed = [scene.world.clock_us(node.id) - was for node, was in zip((a, b, c), before, strict=True)]
        assert passed == ([100_000, 110_000, 100_000] if leases else [0, 110_000, 0])


def test_four_elect_and_serve_with_leases_too():
    scene = a_world(count=4, leases=True)
    elect(scene)
    leader = scene.world.nodes[NodeId("a")]
    scene.clients.put(leader)
    scene.world.turn(leader)
    for _ in range(6):
        scene.world.talk(list(scene.world.nodes.values()), budget=60, in_order=True)
    assert leader.raft.commit_index == 2
    scene.world.lapse(leader, 100_000)
    for _ in range(6):
        scene.world.talk(list(scene.world.nodes.values()), budget=60, in_order=True)
    scene.clients.read(leader, Consistency.LEASE)
    flying = len(scene.world.flying)
    scene.world.turn(leader)
    assert len(scene.world.flying) == flying, "no round is asked for"
    assert scene.clients._asked[-1].returned_at is not None
    scene.clients.prove()


def test_ranges_and_transactions_are_asked_for_and_answered():
    asked = []
    for seed in range(60):
        scene = a_world(seed=seed)
        elect(scene)
        for _ in range(6):
            choices.write_anything(scene)
        scene.world.talk(list(scene.world.nodes.values()), budget=90, in_order=True)
        scene.clients.prove()
        asked += [one for one in scene.clients._asked if one.answer is not None]
    assert sum(isinstance(one.request, Txn) for one in asked) > 20
    assert sum(isinstance(one.request, DeleteRange) for one in asked) > 10


# --------------------------------------------------------------------------------------- what goes wrong


def test_a_failure_is_told_by_the_choices_that_it_needs(monkeypatch):
    PLANTED["commits_old_terms_by_counting"](monkeypatch)
    seed = next(seed for seed in range(300) if ShortRun(seed).failure() is not None)
    with pytest.raises(RunFailed) as failed:
        short_run(seed)
    told = failed.value.told
    head = told[0].split()
    fewest, made = int(head[0]), int(head[2])
    assert fewest < made
    assert "choices, which fail by themselves:" in told[0]
    numbers = [int(line.split(":")[0]) for line in told[1 : fewest + 1]]
    run = ShortRun(seed)
    needed = [one for one in run.chosen if one.number in numbers]
    assert isinstance(Made(run.setting, seed).failure_of(needed), AssertionError)
    for left_out in needed:
        rest = [one for one in needed if one is not left_out]
        again = Made(run.setting, seed).failure_of(rest)
        assert getattr(again, "name", "") != getattr(failed.value.cause, "name", None)
    assert "--short" in str(failed.value)
    assert str(seed) in str(failed.value)


def test_half_of_four_for_a_majority_is_found(monkeypatch):
    monkeypatch.setattr(quorum, "majority_count", lambda voters: (voters + 1) // 2)
    fours = [run for run in map(ShortRun, range(1_200)) if len(run.setting.names) == 4]
    assert next(filter(None, (run.failure() for run in fours)), None) is not None


def test_votes_in_spite_of_a_lease_are_found(monkeypatch):
    """faults 36, in runs where clocks keep to their bound."""
    monkeypatch.setattr("raftkv.core.rules.vote_is_withheld", lambda **_: False)
    with_leases = [run for run in map(ShortRun, range(1_200)) if run.setting.raft.lease_reads]
    failures = filter(None, (run.failure() for run in with_leases))
    assert getattr(next(failures, None), "name", "") == "a lease excludes"
