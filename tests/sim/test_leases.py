"""Lease reads in whole runs (thesis §6.4.1, faults 36): nothing is stale while clocks keep to the bound, and only then.

One clock is as slow as the bound allows, the others as fast; leadership goes to the slow one again and again,
and everybody stands as early as the rule lets them. So there is nothing to spare. That the checkers can fail is
shown by planted bugs, and by clocks that break the bound.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any, Final

import pytest

from raftkv.core import leases, rules
from raftkv.core.settings import RaftSettings
from raftkv.sim.checks.invariants import Invariants, Violated
from raftkv.sim.checks.oracle import Oracle
from raftkv.sim.clients.workload import Workload, WorkloadPlan
from raftkv.sim.faults import kinds as faults
from raftkv.sim.faults.drawing import draw_profile
from raftkv.sim.faults.kinds import Faults
from raftkv.sim.faults.profile import CALM, SLOW
from raftkv.sim.runs.whole import Run, RunOptions
from raftkv.sim.world.network import NetworkFaults
from raftkv.sim.world.node import Clock
from raftkv.snapshotting import SnapshotSettings

RUNS_MAX: Final = 40
SETTINGS: Final = RaftSettings(lease_reads=True, clock_drift_max_per_mille=223, heartbeat_ms=50)
UNEVEN: Final = NetworkFaults(late_per_mille=200, late_us_max=300_000)
"""Some echoes come when most of what they promised is over."""
AT_THE_BOUND: Final = (900, 1100, 1100)
BEYOND: Final = (700, 1400, 1400)
BUSY: Final = WorkloadPlan(clients=6, slots=2, keys=1, think_us_max=20_000, attempt_us_max=300_000, reads_per_mille=700)
QUIET: Final = WorkloadPlan(clients=2, slots=1, keys=1, reads_per_mille=990)


def lease_run(
    seed: int,
    *kinds: str,
    weather: NetworkFaults = CALM,
    clients: WorkloadPlan = BUSY,
    clocks: tuple[int, ...] = AT_THE_BOUND,
) -> Run:
    """Three nodes to which such things happen; between them, leadership goes to the slow one."""
    profile = replace(
        draw_profile(Random(seed)),
        voters=3,
        weather=weather,
        kinds=("favour_the_slow", *kinds),
        pause_us_max=800_000,
        aim=None,
        raft=SETTINGS,
        clocks_differ=False,
        snapshots=SnapshotSettings(),
        spares=0,
    )
    run = Run(seed, RunOptions(profile=profile))
    for node, per_mille in zip(run.cluster.nodes.values(), clocks, strict=True):
        node.clock = Clock(per_mille=per_mille)
    assert isinstance(run.oracle, Oracle)
    run.workload = Workload(run.cluster, run.oracle, clients, Random(seed))
    return run


def favour_the_slow(world: Faults) -> None:
    """The leader hands over to the node with the slow clock."""
    leader, slow = world.cluster.leader(), next(iter(world.cluster.nodes))
    if leader is not None and not leader.paused:
        leader.running.transfer_leadership(slow, lambda _: None)
        world.cluster.poke(leader.id)


def restart_a_voter(world: Faults) -> None:
    """One does not hear the leader for as long as it waits; then the other one, who did, starts again."""
    leader = world.cluster.leader()
    if leader is None:
        return
    deaf, voter = world.rng.sample([name for name in world.cluster.nodes if name != leader.id], 2)
    world.new_partition()
    world.cut(leader.id, deaf)
    world.heal_later()

    def restart() -> None:
        node = world.cluster.nodes[voter]
        if node.is_up and not world.stopped:
            world.cluster.crash(voter)
            world.cluster.start(voter)

    for delay_us in range(240_000, 340_000, 3_000):
        world.cluster.after(delay_us, restart)


@pytest.fixture(autouse=True)
def everything_comes_near_the_end_of_a_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (favour_the_slow, restart_a_voter):
        monkeypatch.setitem(faults.KINDS, kind.__name__, kind)
    monkeypatch.setattr(
        rules, "randomized_election_timeout_us", lambda rng, *, lower_us: lower_us + rng.randrange(lower_us // 20)
    )


def violation_of(run: Run) -> Violated | None:
    try:
        run.whole()
    except Violated as violated:
        return violated
    return None


def first_violation(**how: Any) -> Violated | None:
    kinds = how.pop("kinds")
    violations = (violation_of(lease_run(seed, *kinds, **how)) for seed in range(RUNS_MAX))
    return next((violation for violation in violations if violation is not None), None)


@pytest.mark.parametrize("weather", [CALM, SLOW, UNEVEN], ids=["calm", "slow", "uneven"])
def test_lease_reads_are_linearizable_while_clocks_keep_to_the_bound(weather):
    """faults 23, 35, 36, 59"""
    kinds = ("isolate", "split", "cut_one_way", "crash_one", "pause", "stall", "hand_over_unheard", "restart_a_voter")
    for seed in range(5):
        lease_run(seed, *kinds, weather=weather).whole()
        lease_run(seed, *kinds[-2:], weather=weather, clients=QUIET).whole()


# ------------------------------------------------------------------------------------------ planted bugs

Plant = Callable[[pytest.MonkeyPatch], None]
PLANTED: dict[Plant, dict[str, Any]] = {}


def plant(**how: Any) -> Callable[[Plant], Plant]:
    def planted(act: Plant) -> Plant:
        PLANTED[act] = how
        return act

    return planted


@plant(kinds=("isolate",), weather=UNEVEN, clients=QUIET)
def counted_from_the_echo(patch: pytest.MonkeyPatch) -> None:
    original = leases.promised_until_us
    patch.setattr(
        leases, "promised_until_us", lambda state, *, sent_us, reply: original(state, sent_us=state.now_us, reply=reply)
    )


@plant(kinds=("hand_over_unheard",), clients=QUIET)
def kept_after_timeout_now(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(rules, "lease_is_held", lambda *, end_us, now_us, forgone: now_us < end_us)


@plant(kinds=("restart_a_voter",), clients=QUIET)
def forgotten_by_a_voter_that_restarts(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(rules, "vote_may_be_promised", lambda **_: False)


@plant(kinds=("isolate", "split"))
def blind_to_drift(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(rules, "lease_duration_us", lambda *, promised_us, **_: promised_us)


@plant(kinds=("isolate", "split"))
def without_a_majority(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(rules, "lease_end_us", lambda sets, promised: max(promised.values()))


@plant(kinds=("isolate",), weather=SLOW)
def before_the_own_commit(patch: pytest.MonkeyPatch) -> None:
    def is_held(state, *, now_us):
        office = state.office
        return office is not None and now_us < leases.end_us(state) and not office.lease_forgone

    patch.setattr(leases, "is_held", is_held)


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_a_planted_bug_is_found(plant, monkeypatch):
    plant(monkeypatch)
    assert first_violation(**PLANTED[plant]) is not None


# ------------------------------------------------------------------------------------ beyond the bound

LEASE_CHECK: Final = (Invariants, "_no_older_lease_is_held")


@pytest.mark.parametrize(
    ("unheeded", "finds"),
    [
        ((), "a lease excludes"),
        ((LEASE_CHECK,), "real-time order"),
        ((LEASE_CHECK, (Oracle, "read_answered")), "linearizability"),
    ],
    ids=["invariant", "oracle", "checker of histories"],
)
def test_beyond_the_bound_a_stale_read_is_found(unheeded, finds, monkeypatch):
    """faults 36: each check by itself, when those before it look away."""
    for owner, check in unheeded:
        monkeypatch.setattr(owner, check, lambda *_, **__: None)
    violation = first_violation(kinds=("isolate", "split"), clocks=BEYOND)
    assert violation is not None
    assert violation.name == finds
