"""The rules of snapshots as tables (paper §7, Figure 13)."""

from __future__ import annotations

import pytest

from raftkv.core import rules
from raftkv.core.types import Index


@pytest.mark.parametrize(
    ("next_index", "log_base", "needed"), [(1, 0, False), (1, 1, True), (5, 5, True), (6, 5, False)]
)
def test_a_snapshot_is_needed_where_the_log_begins_too_late(next_index, log_base, needed):
    """Paper §7: the entry at the base itself is gone."""
    assert rules.snapshot_is_needed(next_index=Index(next_index), log_base=Index(log_base)) is needed


@pytest.mark.parametrize(("index", "commit", "old"), [(4, 5, True), (5, 5, True), (6, 5, False), (1, 0, False)])
def test_a_snapshot_of_what_is_committed_here_is_old(index, commit, old):
    """Faults 42."""
    assert rules.snapshot_is_old(index=Index(index), commit=Index(commit)) is old


@pytest.mark.parametrize(
    ("ours", "snapshots", "goes_on"), [(3, 3, True), (2, 3, False), (4, 3, False), (None, 3, False)]
)
def test_the_log_goes_on_after_a_snapshot_that_it_holds(ours, snapshots, goes_on):
    """Figure 13 (6) and (7), faults 38 to 40."""
    assert rules.log_goes_on_after_snapshot(our_term_at_index=ours, snapshots_term=snapshots) is goes_on


@pytest.mark.parametrize(
    ("snapshot", "before_tail", "durable", "wanted_after", "through"),
    [
        (100, 100, 200, [], 100),
        (100, 90, 200, [], 90),
        (100, 100, 95, [], 95),
        (100, 90, 200, [70, 80], 70),
        (100, 90, 200, [95], 90),
    ],
)
def test_the_log_goes_as_far_as_nobody_needs_it(snapshot, before_tail, durable, wanted_after, through):
    found = rules.log_may_go_through(
        snapshot=Index(snapshot),
        before_tail=Index(before_tail),
        durable=Index(durable),
        wanted_after=map(Index, wanted_after),
    )
    assert found == through
