"""What a received snapshot says of the members, where this log says something else, or the same (faults 38, 39)."""

from __future__ import annotations

from raftkv.core.messages import AppendEntries
from raftkv.core.types import Index, Term
from tests.core.lone import NONE, Lone, configuration_entry, voters
from tests.core.lone_snapshots import SETTINGS, Receiver, base, install, snapshot


def test_who_was_listed_by_the_tail_alone_was_never_removed():
    """Faults 39: the change that was to let it in is undone with the tail; to say that it left would be a guess."""
    node = Lone("x", "abc", log=[1, 2], settings=SETTINGS)
    frames = [configuration_entry(3, 3, voters("a", "b", "c", "x"))]
    node.says("b", AppendEntries(Term(3), Index(2), Term(2), Index(2), frames))
    (write,) = node.says("c", install(snapshot(5, 4), term=4)).snapshot_writes
    node.raft.snapshot_was_written(write, 25, base(5, 4))
    node.turn()
    assert (node.raft.configuration, node.raft.removed_at) == (voters("a", "b", "c"), None)


def test_who_stands_goes_on_though_a_snapshot_commits_the_configuration_in_its_log():
    node = Receiver()
    (write,) = node.gets(install(snapshot(3, 3), 20))
    frames = [configuration_entry(3, 3, voters("a", "b", "c", "d"))]
    node.says("b", AppendEntries(Term(3), Index(2), Term(2), NONE, frames))
    node.stand()
    node.wrote(write, 25, base(3, 3, voters("a", "b", "c", "d")))
    assert (node.role, node.raft.commit_index) == ("candidate", 3)
