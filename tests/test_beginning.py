"""A node that starts again is the one that it was: nothing of what its disk holds is left out (faults 2, 31, 44)."""

from __future__ import annotations

from random import Random

from raftkv.beginning import raft_of
from raftkv.core.effects import LogBase
from raftkv.core.messages import AppendEntries, PreVoteReply, PreVoteRequest, RequestVote, RequestVoteReply
from raftkv.core.raft import Raft
from raftkv.core.settings import RaftSettings
from raftkv.core.types import Index, NodeId, SnapshotId, Term
from raftkv.storage.identity import Identity
from raftkv.storage.recovery import Recovered
from raftkv.storage.snapshot_format import SnapshotMeta
from raftkv.storage.snapshots import StoredSnapshot
from tests.core.lone import CLUSTER_ID, E_US, B, C, Lone, configuration_entry, entry, incarnation_of, runs_of, voters


class Restarted(Lone):
    """Node a as its disk has it: base 2, entries 3 to 6, other members since 4, a snapshot at 5, memory from 5 on."""

    def __init__(self) -> None:
        super().__init__()
        changed = voters("a", "b", "c", "d")
        frames = [entry(3, 2), configuration_entry(4, 2, changed), entry(5, 3), entry(6, 3)]
        snapshot = SnapshotMeta(CLUSTER_ID, LogBase(Index(5), Term(3), changed), 0, b"")
        recovered = Recovered(
            term=Term(7),
            voted_for=C,
            base=LogBase(Index(2), Term(1), voters("a", "b", "c")),
            term_runs=runs_of(frames),
            last_index=Index(6),
            tail=frames[2:],
            tail_first=Index(5),
            configurations=[(Index(4), changed)],
            snapshot=StoredSnapshot(SnapshotId(Index(5), Term(3), 1, 1), snapshot),
        )
        identity = Identity(NodeId("a"), incarnation_of("a"), CLUSTER_ID, formed=True, log_begun=True)
        self.raft: Raft = raft_of(identity, recovered, RaftSettings(), Random(1))
        self.elapse(0)


def test_it_knows_how_far_it_was_and_who_the_members_are():
    raft = Restarted().raft
    assert (raft.term, raft.voted_for) == (7, "c")
    assert (raft.last_index, raft.durable_index, raft.state.log.last_term) == (6, 6, 3)
    assert [raft.term_at(index) for index in range(1, 8)] == [None, 1, 2, 2, 3, 3, None]
    assert (raft.commit_index, raft.applied_index, raft.snapshot_index) == (5, 5, 5), "that is in its state already"
    assert list(raft.configuration.members()) == list("abcd")
    assert raft.committed_configuration == raft.configuration
    assert (raft.state.configurations.current_index, raft.state.configurations.oldest_index) == (4, 2)


def test_it_votes_for_nobody_else_in_the_term_in_which_it_voted():
    """Faults 2: two would win one term."""
    node = Restarted()
    for asker, granted in (("b", False), ("c", True)):
        node.forget()
        node.says(asker, RequestVote(Term(7), Index(9), Term(6), transfer=False))
        assert node.reply == RequestVoteReply(Term(7), granted=granted)


def test_only_who_means_this_incarnation_is_heard():
    node = Restarted()
    assert (node.raft.state.me, node.raft.state.is_voter) == (node.me, True)


def test_its_log_goes_on_where_it_ended_and_it_stands_with_that():
    node = Restarted()
    node.elapse(2 * E_US)
    assert node.requests(PreVoteRequest, "d") == [PreVoteRequest(Term(8), Index(6), Term(3))]
    node.says("b", PreVoteReply(Term(8), Term(8), granted=True))
    node.says("c", PreVoteReply(Term(8), Term(8), granted=True))
    assert node.requests(RequestVote, "d") == [RequestVote(Term(8), Index(6), Term(3), transfer=False)]
    node.says(B, AppendEntries(Term(8), Index(6), Term(3), Index(7), [entry(7, 8)]))
    (committed,) = node.effects.apply
    assert (committed.first, len(committed.frames)) == (6, 2)
