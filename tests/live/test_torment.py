"""Whole runs on real processes: faults among the nodes while clients work, then every promise judged."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.live.cluster import LiveCluster
from tests.live.harness import Plan, Report, run

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]


async def tormented(directory: Path, plan: Plan, *, nodes_count: int) -> Report:
    with LiveCluster(directory, nodes_count=nodes_count) as cluster:
        cluster.start()
        await cluster.until_serving()
        report = await run(cluster, plan)
        report.keep(directory)
    return report


async def test_a_minority_is_killed_paused_and_stopped_and_every_promise_is_kept(tmp_path: Path) -> None:
    """faults 1, 2, 14, 23, 46 to 48, 59, 61, 69."""
    report = await tormented(tmp_path, Plan(seconds=10, seed=1), nodes_count=5)
    assert not report.broken, report.complaint()
    assert len(report.story.acknowledged_at) > 100, "too little was written to judge"
    assert report.deeds.counts.total() >= 2, report.deeds.told


async def test_all_nodes_are_killed_at_once_under_load_and_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    """faults 1 to 3, 47: the stored answers too are there after the restart."""
    plan = Plan(seconds=0, seed=2, power_cuts_count=2, clients_count=6)
    report = await tormented(tmp_path, plan, nodes_count=3)
    assert not report.broken, report.complaint()
    assert len(report.story.acknowledged_at) > 30, "too little was written to judge"
