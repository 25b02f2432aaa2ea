"""What comes while the machine loads a snapshot (faults 42, 45): another one may take its place on the disk."""

from __future__ import annotations

import pytest

from raftkv.core.messages import AppendEntries
from raftkv.core.types import Index, Term
from tests.core.lone import entries
from tests.core.lone_snapshots import Receiver, base, install, snapshot, whole


@pytest.mark.parametrize("commit", [9, 12, 13])
def test_a_newer_one_whose_entries_came_first_is_loaded_instead(commit: int) -> None:
    """With the second of such the first one's file goes: it would be looked for for ever."""
    node = Receiver()
    whole(node, snapshot(9, 3))
    node.raft.take()
    (write,) = node.gets(install(snapshot(12, 3)))
    node.says("b", AppendEntries(Term(3), Index(9), Term(3), Index(commit), entries([3] * 5, first=10)))
    node.raft.snapshot_was_written(write, 25, base(12, 3))
    effects = node.turn()
    assert (effects.load_snapshot, node.raft.loading, node.raft.commit_index) == (12, 12, max(commit, 12))
    assert (node.raft.last_index, effects.apply) == (14, []), "the log stays"
    node.raft.snapshot_loaded(Index(9))
    assert (node.raft.loading, node.turn().apply) == (12, [])
    node.raft.snapshot_loaded(Index(12))
    node.says("b", AppendEntries(Term(3), Index(14), Term(3), Index(14), []))
    assert (node.raft.loading, node.raft.applied_index) == (None, 14)


def test_an_older_one_is_not() -> None:
    node = Receiver()
    (write,) = node.gets(install(snapshot(7, 3)))
    whole(node, snapshot(9, 3))
    node.raft.snapshot_was_written(write, 25, base(7, 3))
    assert (node.turn().load_snapshot, node.raft.loading) == (None, 9)


def test_what_is_committed_meanwhile_wakes_nobody_until_it_is_loaded() -> None:
    """Else turn would follow upon turn for as long as it is loaded, and nothing be done in any."""
    node = Receiver()
    whole(node, snapshot(9, 3))
    effects = node.says("b", AppendEntries(Term(3), Index(9), Term(3), Index(12), entries([3] * 3, first=10)))
    assert (node.raft.loading, node.raft.commit_index, effects.apply) == (9, 12, [])
    assert effects.deadline_us is not None and effects.deadline_us > node.now_us
    node.raft.snapshot_loaded(Index(9))
    assert [committed.first for committed in node.turn().apply] == [10]
