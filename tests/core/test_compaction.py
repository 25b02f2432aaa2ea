"""What of the log goes when a snapshot of one's own is in place, and what stays; a start from one (paper §7)."""

from __future__ import annotations

from raftkv.core.effects import SnapshotRead
from raftkv.core.messages import AppendEntries, HeartbeatReply
from raftkv.core.messages import InstallSnapshotReply as Reply
from raftkv.core.settings import RaftSettings
from raftkv.core.types import Index, NodeId, Round, Term
from tests.core.lone import E_US, NONE, Lone, configuration_entry, entries, entry, voters
from tests.core.lone_snapshots import CHUNK, SETTINGS, Receiver, Sender, base, snapshot, wants, whole


def applied(count: int, **more: object) -> Lone:
    """Leads alone, has applied so many."""
    lone = Lone("a", "a", settings=RaftSettings(log_tail_entries=3, **more))  # type: ignore[arg-type]
    lone.elapse(2 * E_US)
    lone.raft.propose([b"%d" % index for index in range(2, count + 1)])
    lone.turn()
    lone.turn()
    assert lone.raft.applied_index == count
    return lone


def test_the_log_begins_after_the_snapshot_less_a_tail():
    lone = applied(20)
    lone.raft.snapshot_stored(lone.raft.base_at(Index(15)), size_bytes=100)
    assert (lone.raft.state.log.base_index, lone.raft.snapshot_index, lone.raft.last_index) == (12, 15, 20)
    assert lone.turn().drop_log_through == 12


def test_a_tail_has_a_limit_in_bytes_too():
    lone = applied(20, log_tail_bytes=60)
    lone.raft.snapshot_stored(lone.raft.base_at(Index(15)), size_bytes=100)
    assert lone.raft.state.log.base_index == 13


def test_an_older_snapshot_that_is_in_place_late_changes_nothing():
    """A leader's came meanwhile."""
    node = Receiver((1, 2))
    node.says("b", AppendEntries(Term(3), Index(2), Term(2), Index(2), []))
    own = node.raft.base_at(Index(2))
    whole(node, snapshot(9, 3))
    node.raft.snapshot_stored(own, size_bytes=100)
    assert (node.raft.state.log.base_index, node.raft.snapshot_index, node.turn().drop_log_through) == (9, 9, None)


def test_the_log_is_kept_for_who_is_being_sent_a_snapshot_and_only_while_that_gets_further():
    leader = Sender(log=(2,) * 20)
    leader.acknowledge("c")
    assert leader.raft.applied_index == 26
    leader.reads(leader.refused_by("b"), snapshot(7, 2))
    leader.raft.snapshot_stored(leader.raft.base_at(Index(26)), size_bytes=100)
    leader.turn()
    assert leader.raft.state.log.base_index == 7
    for _ in range(320):
        leader.elapse(100_000)
        for name in "bc":
            leader.says(name, HeartbeatReply(leader.raft.term, Round(0), NONE, b""))
    assert leader.raft.state.log.base_index == 24


def test_the_log_is_kept_as_long_as_pieces_come_however_long_that_is():
    leader = Sender(log=(2,) * 20)
    leader.acknowledge("c")
    read = leader.refused_by("b")
    leader.reads(read, snapshot(7, 2, size=100))
    leader.raft.snapshot_stored(leader.raft.base_at(Index(26)), size_bytes=100)
    for offset in range(10, 100, 10):
        for _ in range(30):
            leader.elapse(E_US - 1000)
            for name in "bc":
                leader.says(name, HeartbeatReply(leader.raft.term, Round(0), NONE, b""))
        reads = wants(leader, 7, offset)
        assert leader.raft.state.log.base_index == 7
        leader.reads(reads[0], snapshot(7, 2, size=100))


def test_who_got_one_that_the_log_does_not_go_on_after_is_sent_the_next_at_once():
    """Not only when the piece that it answered has long been missed."""
    leader = Sender(log=(2,) * 20)
    leader.acknowledge("c")
    leader.reads(leader.refused_by("b"), snapshot(7, 2))
    leader.office.progress[NodeId("b")].log_is_kept_until_us = 0
    leader.raft.snapshot_stored(leader.raft.base_at(Index(26)), size_bytes=100)
    leader.turn()
    assert leader.raft.state.log.base_index == 24
    (read,) = leader.says("b", Reply(leader.raft.term, Index(7), 0, installed=True)).snapshot_reads
    assert read == SnapshotRead(NodeId("b"), None, 0, CHUNK)


def test_who_is_asked_again_later_gets_the_log_at_once_when_it_holds_the_snapshot():
    leader = Sender()
    leader.reads(leader.refused_by("b"), snapshot(5, 2))
    assert wants(leader, 5, 25) == []
    leader.forget()
    leader.says("b", Reply(leader.raft.term, Index(5), 0, installed=True))
    assert [message.prev_index for message in leader.requests(AppendEntries, "b")] == [5]


def test_the_log_is_kept_until_who_got_a_snapshot_has_caught_up():
    leader = Sender(log=(2,) * 20)
    leader.acknowledge("c")
    leader.reads(leader.refused_by("b"), snapshot(7, 2))
    leader.says("b", Reply(leader.raft.term, Index(7), 0, installed=True))
    leader.raft.snapshot_stored(leader.raft.base_at(Index(26)), size_bytes=100)
    leader.turn()
    assert leader.raft.state.log.base_index == 7
    leader.acknowledge("b")
    assert leader.raft.state.log.base_index == 24


def test_the_log_is_kept_anew_for_who_holds_the_snapshot_however_long_it_was_proved():
    """Counted from its last piece, the log would be gone as it is needed, and the next snapshot be sent, and so on."""
    leader = Sender(log=(2,) * 20)
    leader.acknowledge("c")
    leader.reads(leader.refused_by("b"), snapshot(7, 2))
    for waited in range(104):
        if waited == 98:
            leader.says("b", Reply(leader.raft.term, Index(7), 0, installed=True))
            leader.raft.snapshot_stored(leader.raft.base_at(Index(26)), size_bytes=100)
        leader.elapse(E_US - 1000)
        for name in "bc":
            leader.says(name, HeartbeatReply(leader.raft.term, Round(0), NONE, b""))
    assert leader.raft.state.log.base_index == 7


def test_what_waits_to_go_is_as_much_as_the_newest_snapshot_allows():
    leader = Sender(log=(2,) * 20)
    leader.acknowledge("c")
    leader.reads(leader.refused_by("b"), snapshot(7, 2))
    for index in (20, 26):
        leader.raft.snapshot_stored(leader.raft.base_at(Index(index)), size_bytes=100)
    leader.says("b", Reply(leader.raft.term, Index(7), 0, installed=True))
    leader.acknowledge("b")
    assert leader.raft.state.log.base_index == 24


def test_the_log_is_not_kept_for_who_is_not_heard():
    leader = Sender(log=(2,) * 20)
    leader.acknowledge("c")
    leader.reads(leader.refused_by("b"), snapshot(7, 2))
    for _ in range(4):
        leader.elapse(100_000)
        leader.says("c", HeartbeatReply(leader.raft.term, Round(0), NONE, b""))
    leader.raft.snapshot_stored(leader.raft.base_at(Index(26)), size_bytes=100)
    leader.turn()
    assert leader.raft.state.log.base_index == 24
    (read,) = wants(leader, 7, 10)
    assert read == SnapshotRead(NodeId("b"), None, 0, CHUNK), "after the old one it would need the next"


def test_configurations_below_the_base_are_folded_into_it():
    lone = Lone(log=[1, 1], settings=RaftSettings(log_tail_entries=1))
    lone.follow("b", 3)
    five = voters("a", "b", "c", "d", "e")
    frames = [configuration_entry(3, 3, five), *entries([3, 3], first=4), configuration_entry(6, 3, voters("a", "b"))]
    lone.says("b", AppendEntries(Term(3), Index(2), Term(1), Index(5), frames))
    taken = lone.raft.base_at(Index(5))
    assert taken.configuration == five, "not the newest"
    lone.raft.snapshot_stored(taken, size_bytes=1)
    assert (lone.raft.state.log.base_index, lone.raft.configuration) == (4, voters("a", "b"))
    assert lone.raft.state.configurations.at(4) == five
    lone.says("c", AppendEntries(Term(4), Index(5), Term(3), NONE, [entry(6, 4)]))
    assert lone.raft.configuration == five, "the newest gave way, that of the base counts"


def test_a_start_from_a_snapshot_goes_on_where_it_ends():
    lone = Lone(base=(5, 2), log=[2, 2, 2])
    lone.saved.snapshot = base(7, 2)
    again = type(lone.raft)(lone.me, SETTINGS, lone.saved, lone.raft.state.rng)
    assert (again.commit_index, again.applied_index, again.last_index, again.snapshot_index) == (7, 7, 8, 7)


def test_a_snapshot_proves_its_term_when_the_disk_does_not():
    """Its entries were committed and applied here before the term was on stable storage."""
    lone = Lone(base=(5, 4), term=3)
    assert (lone.raft.term, lone.raft.voted_for) == (4, None)
    assert lone.raft.state.durability.durable_vote == (4, None)
