"""Every kind of fault happens in whole runs whose nodes keep files, shows, and is survived."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import pytest

from raftkv.core.types import NodeId
from raftkv.outcomes import SnapshotOutcome, SnapshotTaken
from raftkv.sim.faults.drawing import draw_profile
from raftkv.sim.faults.kinds import FILE_KINDS, KINDS, Faults
from raftkv.sim.runs.whole import Run, RunOptions, finish
from raftkv.sim.world.cluster import Plan, VirtualCluster
from raftkv.sim.world.wal_disk import WalDisk
from tests.sim.worlds import run_of, watched
from tests.story import ListMachine

SHOWS = {
    "crash_one": "crashed",
    "crash_all": "crashed",
    "reboot": "crashed",
    "die_at_the_disk": "in doubt",
    "fail_sync": "simulated EIO",
    "fail_write": "simulated EIO",
    "fill_disk": "short",
    "flip_bit": "refused",
    "wipe": "lost",
    "stranger": "refusals",
}
"""What is seen of a kind, beside its having happened."""
SEEDS_MAX = 4


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_kind_happens_and_is_survived(kind):
    """faults 31, 32, 52 to 58 among them: no checker finds anything, and afterwards the cluster works."""
    for seed in range(SEEDS_MAX):
        run = run_of(seed, kind)
        seen = watched(run)
        finish(run)
        if run.teller.faults[kind] and (kind not in SHOWS or seen.counted[SHOWS[kind]]):
            return
    raise AssertionError(f"{kind} does not show in {SEEDS_MAX} runs")


def test_only_runs_with_files_draw_what_befalls_files():
    profiles = [draw_profile(Random(seed)) for seed in range(400)]
    assert {kind for profile in profiles for kind in profile.kinds} == set(KINDS)
    assert [
        profile for profile in profiles if not profile.segment_bytes and FILE_KINDS.keys() & set(profile.kinds)
    ] == []


@pytest.mark.parametrize("passes_us", [0, 3_000_000])
def test_what_was_broken_for_a_while_is_undone_once_and_at_the_latest_when_everything_is_mended(passes_us):
    """Also where nobody but its kind knows what it broke: that is why a kind is one function."""
    cluster = cluster_of_one()
    faults = Faults(cluster, replace(draw_profile(Random(1)), kinds=()), Random(1))
    undone: list[int] = []
    faults.for_a_while(lambda: undone.append(cluster.now_us))
    cluster.run_for(passes_us)
    assert len(undone) == bool(passes_us)
    faults.stop()
    cluster.run_for(3_000_000)
    assert len(undone) == 1


def test_most_runs_keep_files_and_roll_their_logs():
    profiles = [draw_profile(Random(seed)) for seed in range(400)]
    assert sum(bool(profile.segment_bytes) for profile in profiles) > 250
    run = Run(3, RunOptions(profile=replace(profiles[3], kinds=(), voters=3, segment_bytes=4_096)))
    finish(run)
    disks = [node.disk for node in run.cluster.nodes.values()]
    assert all(isinstance(disk, WalDisk) and len(disk.directory.names()) > 5 for disk in disks)


def test_a_stranger_speaks_to_one_that_waits_to_be_let_in_and_knows_of_nobody():
    cluster = VirtualCluster(Plan(voters=("a",), spares=("b",)), Random(1), ListMachine)
    cluster.start_all()
    waiting = cluster.nodes[NodeId("b")]
    assert not waiting.raft.state.configurations.members
    faults = Faults(cluster, replace(draw_profile(Random(1)), aim="b"), Random(1))
    for _ in range(20):
        KINDS["stranger"](faults)
    cluster.run_for(100_000)
    assert waiting.raft.term == 0


# ------------------------------------------------------------------------------------------ processes


def cluster_of_one(segment_bytes: int = 0) -> VirtualCluster:
    cluster = VirtualCluster(Plan(voters=("a",), segment_bytes=segment_bytes), Random(1), ListMachine)
    cluster.start_all()
    cluster.run_for(2_000_000)
    assert cluster.leader() is not None
    return cluster


def the_one(cluster: VirtualCluster) -> Any:
    return next(iter(cluster.nodes.values()))


def test_timers_stand_still_while_the_machine_sleeps_and_its_clock_does_not():
    cluster = cluster_of_one()
    node, rang = the_one(cluster), []
    node.process.later(100_000, lambda: rang.append(cluster.now_us))
    began_us, before_us = cluster.now_us, node.read_clock_us()
    cluster.run_for(40_000)
    cluster.suspend("a")
    cluster.run_for(500_000)
    assert node.read_clock_us() == before_us + 540_000
    cluster.resume("a")
    cluster.run_for(59_000)
    assert rang == []
    cluster.run_for(2_000)
    assert rang == [began_us + 600_000]


def test_timers_of_a_stopped_process_ring_when_it_goes_on():
    cluster = cluster_of_one()
    rang: list[int] = []
    the_one(cluster).process.later(100_000, lambda: rang.append(cluster.now_us))
    cluster.pause("a")
    cluster.run_for(500_000)
    assert rang == []
    cluster.resume("a")
    assert rang == [cluster.now_us]


@pytest.mark.parametrize(("stop", "goes_on"), [("block_loop", True), ("pause", False)])
def test_a_disk_goes_on_while_only_the_event_loop_stands_still(stop, goes_on):
    cluster = cluster_of_one(segment_bytes=4_096)
    node = the_one(cluster)
    for word in (b"x", b"y"):
        node.running.submit(word, lambda _: None)
        cluster.poke("a")
    getattr(cluster, stop)("a")
    cluster.run_for(50_000)
    assert (len(node.disk.unfinished) == 0) is goes_on
    cluster.resume("a")
    cluster.run_for(50_000)
    assert len(node.disk.unfinished) == 0


def test_what_a_slow_disk_was_at_is_done_soon_once_it_is_as_fast_as_others():
    """A snapshot too, or a node would wait for its thread long after everything was mended."""
    cluster = cluster_of_one(segment_bytes=4_096)
    node = the_one(cluster)
    told: list[SnapshotOutcome] = []
    node.running.submit(b"x", lambda _: None)
    cluster.poke("a")
    cluster.run_for(50_000)
    cluster.slow_disk_down("a", 10_000)
    node.running.snapshots.ask(told.append, wait_us=3_600_000_000)
    cluster.poke("a")
    cluster.run_for(3_000_000)
    assert told == []
    cluster.slow_disk_down("a", 1)
    cluster.run_for(500_000)
    [taken] = told
    assert isinstance(taken, SnapshotTaken)
    cluster.run_for(3_000_000_000)
    assert node.files.snapshots.newest.id.index == taken.index


def test_a_log_that_a_slow_disk_reads_is_open_soon_once_the_disk_is_as_fast_as_others():
    """A node would take part only long after everything was mended, as seed 235279988000181 at d5fc641 showed."""
    cluster = cluster_of_one(segment_bytes=4_096)
    node = the_one(cluster)
    cluster.crash("a")
    cluster.slow_disk_down("a", 1_000_000)
    cluster.start("a")
    cluster.run_for(50_000)
    assert node.runs
    assert not node.is_up
    cluster.slow_disk_down("a", 1)
    cluster.run_for(50_000)
    assert node.is_up


def test_a_disk_that_has_failed_is_asked_nothing_while_its_process_stands_still():
    """Seed 121563231099471 at 6e8fa53: a failed log was written once more, as its disk became as fast as others."""
    cluster = cluster_of_one(segment_bytes=4_096)
    node = the_one(cluster)
    node.running.submit(b"x", lambda _: None)
    cluster.poke("a")
    cluster.slow_disk_down("a", 10)
    node.disk.fail_syncs(1)
    cluster.block_loop("a")
    cluster.run_for(1_000_000)
    assert not node.disk.is_open
    cluster.slow_disk_down("a", 1)
    cluster.run_for(1_000_000)
    assert node.runs
    cluster.resume("a")
    cluster.run_for(1_000)
    assert not node.runs


def test_a_turn_that_was_stopped_goes_on_with_the_time_that_it_had_read():
    cluster = cluster_of_one()
    node, read = the_one(cluster), []
    original = node.replica.turn

    def turn(now_us: int) -> Any:
        read.append(now_us)
        return original(now_us)

    node.replica.turn = turn
    cluster.stall("a", 300_000)
    at_us = cluster.now_us
    cluster.poke("a")
    cluster.run_for(300_000)
    assert read[0] == at_us
    assert read[1] >= at_us + 300_000
