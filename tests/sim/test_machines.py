"""Any state machine in virtual clusters: what is wrong with it is found, and so is what is wrong beneath it."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import pytest

from raftkv.sim import SimulatedMachine
from raftkv.sim.checks.invariants import Violated
from raftkv.sim.checks.machines import MachineOracle, Raised, WatchedReplica
from raftkv.sim.faults.drawing import draw_profile
from raftkv.sim.faults.profile import Profile
from raftkv.sim.machine import missing_in
from raftkv.sim.runs.failed import RunFailed
from raftkv.sim.runs.whole import RunOptions, run
from raftkv.state_machine import LogEntry
from tests.sim.broken_machines import FOUND, Bag, IteratesASet
from tests.sim.planted import PLANTED

RUNS_MAX = 30


def failure_with(machine: type[SimulatedMachine], *kinds: str) -> RunFailed | None:
    """The first run that fails; of those to which such things happen often, or of any."""
    for seed in range(RUNS_MAX):
        try:
            run(seed, RunOptions(machine=machine, profile=often(seed, *kinds) if kinds else None))
        except RunFailed as failed:
            return failed
    return None


def often(seed: int, *kinds: str) -> Profile:
    """Three nodes, that let clients wait for long."""
    drawn = draw_profile(Random(seed))
    return replace(
        drawn,
        voters=3,
        kinds=kinds,
        pause_us_max=400_000,
        aim=None,
        segment_bytes=0,
        spares=0,
        request_timeout_ms=2_000,
    )


def test_a_sound_machine_is_sound():
    outcomes = [run(seed, RunOptions(machine=Bag)) for seed in range(4)]
    assert sum(outcome.operations for outcome in outcomes) > 100
    assert sum(outcome.executions for outcome in outcomes) > 100
    assert outcomes[3] == run(3, RunOptions(machine=Bag))


@pytest.mark.parametrize("machine", FOUND, ids=lambda machine: machine.__name__)
def test_a_wrong_machine_is_found(machine):
    failed = failure_with(machine)
    assert failed is not None
    assert isinstance(failed.cause, Violated)
    assert failed.cause.name == FOUND[machine]


BENEATH: dict[str, tuple[str, ...]] = {
    "answers_whoever_waits_at_the_index": ("isolate", "isolate_in_turn"),
    "commits_without_a_majority": (),
    "votes_for_anybody": (),
}
"""Each with what has to happen often, if anything: a leader is cut off while writes wait, and is soon back."""


@pytest.mark.parametrize("name", BENEATH)
def test_what_is_wrong_beneath_the_machine_is_found(name, monkeypatch):
    PLANTED[name](monkeypatch)
    failed = failure_with(Bag, *BENEATH[name])
    assert failed is not None
    assert isinstance(failed.cause, Violated)


@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_found_where_leaders_are_cut_off_and_nothing_is_wrong(seed):
    run(seed, RunOptions(machine=Bag, profile=often(seed, *BENEATH["answers_whoever_waits_at_the_index"])))


def test_what_a_machine_lacks_is_told_by_name():
    assert missing_in(Bag()) == []
    assert missing_in(object())[-1] == "random_query(rng) -> query"
    assert len(missing_in(object())) == 6


# ---------------------------------------------------------------------------------------- the oracle


@pytest.fixture
def oracle() -> MachineOracle:
    return MachineOracle(Bag)


def replica_that_has(oracle: MachineOracle, *commands: bytes) -> WatchedReplica:
    replica = WatchedReplica(oracle, Bag)
    for index, command in enumerate(commands, 1):
        oracle.submitted(command)
        replica.apply_batch([LogEntry(index, 0, command)])
    return replica


def violated(name: str) -> Any:
    return pytest.raises(Violated, match=f"^{name}")


def test_an_acknowledgement_is_that_of_its_command(oracle):
    replica_that_has(oracle, b"a", b"a", b"b")
    oracle.write_answered(b"a", 2, 2, asked_at=0)
    for wrong in ((b"b", 2, 2), (b"a", 1, 2), (b"a", 4, 1)):
        with violated("acknowledged is executed"):
            oracle.write_answered(*wrong, asked_at=0)
    with violated("never another's answer"):
        oracle.write_answered(b"a", 2, 2, asked_at=0)
    with violated("real-time order"):
        oracle.write_answered(b"a", 1, 1, asked_at=2)


def test_nothing_is_executed_more_often_than_it_was_submitted(oracle):
    replica = replica_that_has(oracle, b"a")
    with violated("at most once"):
        replica.apply_batch([LogEntry(2, 0, b"a")])


def test_what_was_said_to_be_void_is_not_executed(oracle):
    replica_that_has(oracle, b"a")
    with violated("at most once"):
        oracle.was_void(b"a")


def test_reads_are_held_against_the_state_at_their_index(oracle):
    replica = replica_that_has(oracle, b"a", b"a", b"a")
    for index in range(4):
        oracle.read_answered("a", index, index, asked_at=None)
    with violated("a read is the state at its index"):
        oracle.read_answered("a", 2, 3, asked_at=None)
    with violated("real-time order"):
        oracle.read_answered("a", 2, 2, asked_at=3)
    assert replica.query([]) == Raised("TypeError", "unhashable type: 'list'")
    oracle.read_answered([], 1, replica.query([]), asked_at=None)


def test_replicas_that_differ_are_told_apart(oracle):
    replica_that_has(oracle, b"a", b"b")
    other = WatchedReplica(oracle, Bag)
    with violated("State Machine Safety"):
        other.apply_batch([LogEntry(1, 0, b"b")])
    wrong = WatchedReplica(oracle, Bag)
    wrong._machine.words["x"] = 1  # type: ignore[attr-defined]
    with violated("equal states"):
        wrong.apply_batch([LogEntry(1, 0, b"a")])


def test_every_replica_executes_at_the_same_time_which_never_falls(oracle):
    replica = WatchedReplica(oracle, Bag)
    for command in (b"a", b"b", b"c"):
        oracle.submitted(command)
    replica.apply_batch([LogEntry(1, 7, b"a"), LogEntry(3, 7, b"b")])
    other = WatchedReplica(oracle, Bag)
    other.apply_batch([LogEntry(1, 7, b"a")])
    with violated("equal times"):
        other.apply_batch([LogEntry(3, 8, b"b")])
    with violated("cluster time never falls"):
        replica.apply_batch([LogEntry(4, 6, b"c")])


def test_the_order_of_a_set_is_in_the_digest():
    """Processes with other hash seeds come to other digests; within one, all replicas agree."""
    one, other = MachineOracle(IteratesASet), MachineOracle(IteratesASet)
    for oracle in (one, other):
        oracle.submitted(b"a")
        WatchedReplica(oracle, IteratesASet).apply_batch([LogEntry(1, 0, b"a")])
    assert one.digest == other.digest != 0
