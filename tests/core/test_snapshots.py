"""Snapshots at one core: what is sent, what is taken, what goes (paper §7, Figure 13; faults 8, 12, 14, 38 to 42)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from raftkv.core.effects import LogRead, SnapshotRead
from raftkv.core.messages import (
    AppendEntries,
    AppendEntriesReply,
    Heartbeat,
    HeartbeatReply,
    InstallSnapshot,
    PreVoteRequest,
    RequestVote,
    TimeoutNow,
    TimeoutNowReply,
)
from raftkv.core.messages import InstallSnapshotReply as Reply
from raftkv.core.progress import Phase
from raftkv.core.settings import RaftSettings
from raftkv.core.snapshots import SNAPSHOT_BYTES_MAX
from raftkv.core.types import Configuration, Index, NodeId, Role, Round, Term
from raftkv.errors import ConfigError, MessageError
from tests.core.lone import E_US, NO_TERM, NONE, Lone, configuration_entry, entries, entry, voters
from tests.core.lone_snapshots import CHUNK, SETTINGS, Receiver, Sender, base, install, snapshot, wants, whole


@pytest.fixture
def leader() -> Sender:
    return Sender()


# ------------------------------------------------------------------------------------------ the leader


def test_who_needs_what_the_log_has_no_more_is_sent_the_newest_snapshot(leader):
    read = leader.refused_by("b")
    assert read == SnapshotRead(NodeId("b"), None, 0, CHUNK)
    (sent,) = leader.reads(read, snapshot(5, 2))
    assert sent == InstallSnapshot(leader.raft.term, snapshot(5, 2), 0, b"d" * 10)
    progress = leader.office.progress[NodeId("b")]
    assert (progress.phase, progress.sending.snapshot, progress.sending.offset) == (Phase.SNAPSHOT, snapshot(5, 2), 0)


def test_pieces_go_one_by_one_from_where_the_follower_wants_them(leader):
    leader.reads(leader.refused_by("b"), snapshot(5, 2))
    assert leader.elapse(1000).snapshot_reads == []
    (read,) = wants(leader, 5, 10)
    assert read == SnapshotRead(NodeId("b"), snapshot(5, 2), 10, CHUNK)
    assert leader.elapse(1000).snapshot_reads == []
    (sent,) = leader.reads(read, snapshot(5, 2))
    assert sent.offset == 10
    (read,) = wants(leader, 5, 20)
    assert leader.reads(read, snapshot(5, 2))[0].data == b"d" * 5


def test_a_follower_that_holds_the_snapshot_gets_the_log_after_it(leader):
    leader.reads(leader.refused_by("b"), snapshot(5, 2))
    leader.says("b", Reply(leader.raft.term, Index(5), 0, installed=True))
    progress = leader.office.progress[NodeId("b")]
    assert (progress.match_index, progress.phase, progress.sending) == (5, Phase.REPLICATE, None)
    assert leader.requests(AppendEntries, "b")[-1].prev_index == 5


def test_what_a_follower_holds_by_its_snapshot_counts_for_commit():
    leader = Sender(log=())
    leader.reads(leader.refused_by("b"), snapshot(5, 2))
    leader.says("b", Reply(leader.raft.term, Index(5), 0, installed=True))
    leader.acknowledge("b")
    assert leader.raft.commit_index == leader.raft.last_index == 6


def test_a_follower_that_wants_nothing_new_is_asked_again_after_a_heartbeat_only(leader):
    """Else one whose disk is full would be asked in a circle."""
    leader.reads(leader.refused_by("b"), snapshot(5, 2))
    assert wants(leader, 5, 0) == []
    leader.says("b", HeartbeatReply(leader.raft.term, Round(0), NONE, b""))
    assert len(leader.elapse(100_000).snapshot_reads) == 1


def test_a_follower_that_lost_its_partial_file_gets_it_from_the_beginning(leader):
    leader.reads(leader.refused_by("b"), snapshot(5, 2))
    (read,) = wants(leader, 5, 20)
    leader.reads(read, snapshot(5, 2))
    assert wants(leader, 5, 0) == []
    assert leader.elapse(100_000).snapshot_reads[0].offset == 0


def test_a_whole_file_that_is_not_said_to_be_installed_has_its_end_sent_again(leader):
    leader.reads(leader.refused_by("b"), snapshot(5, 2))
    assert wants(leader, 5, 25) == []
    assert leader.elapse(100_000).snapshot_reads[0].offset == 15


def test_a_piece_that_is_lost_goes_again_from_the_same_place(leader):
    leader.reads(leader.refused_by("b"), snapshot(5, 2))
    (envelope,) = leader.sent(InstallSnapshot)
    leader.raft.delivery_failed(envelope)
    assert leader.turn().snapshot_reads == []
    assert leader.elapse(100_000).snapshot_reads == [SnapshotRead(NodeId("b"), snapshot(5, 2), 0, CHUNK)]


@pytest.mark.parametrize(
    "lost", [install(snapshot(4, 2), term=3), install(snapshot(5, 2), term=2)], ids=["file", "term"]
)
def test_what_is_heard_late_of_other_pieces_sends_nothing_twice(leader, lost):
    leader.reads(leader.refused_by("b"), snapshot(5, 2))
    assert leader.raft.term == 3
    leader.raft.delivery_failed(leader.raft.state.request(NodeId("b"), lost))
    assert leader.elapse(100_000).snapshot_reads == []


def test_a_late_answer_about_another_snapshot_moves_nothing(leader):
    """Faults 41: the next piece would go out from where the other file ends."""
    leader.reads(leader.refused_by("b"), snapshot(5, 2))
    assert wants(leader, 4, 2 * CHUNK) == []


def test_a_piece_that_is_read_again_is_missed_though_its_first_answer_comes_late(leader):
    """Else it is not known which piece the link has lost, and nothing goes out for forty election timeouts."""
    leader.reads(leader.refused_by("b"), snapshot(5, 2))
    (envelope,) = leader.sent(InstallSnapshot)
    leader.raft.delivery_failed(envelope)
    (again,) = leader.elapse(100_000).snapshot_reads
    wants(leader, 5, CHUNK)
    leader.reads(again, snapshot(5, 2))
    (envelope,) = leader.sent(InstallSnapshot)
    leader.raft.delivery_failed(envelope)
    leader.turn()
    assert len(leader.elapse(100_000).snapshot_reads) == 1


def test_a_piece_that_nobody_answers_for_very_long_goes_again(leader):
    leader.reads(leader.refused_by("b"), snapshot(5, 2))
    reads = []
    for _ in range(45):
        reads += leader.elapse(E_US - 1000).snapshot_reads
        for name in "bc":
            reads += leader.says(name, HeartbeatReply(leader.raft.term, Round(0), NONE, b"")).snapshot_reads
    assert [read.offset for read in reads] == [0]


def test_nothing_is_read_for_a_follower_that_is_not_heard(leader):
    leader.reads(leader.refused_by("b"), snapshot(5, 2))
    (lost,) = leader.sent(InstallSnapshot)
    heard = HeartbeatReply(leader.raft.term, Round(0), NONE, b"")
    reads = []
    for _ in range(8):
        leader.says("c", heard)
        reads += leader.elapse(E_US // 2).snapshot_reads
    leader.raft.delivery_failed(lost)
    for _ in range(8):
        reads += leader.says("c", heard).snapshot_reads
        reads += leader.elapse(E_US // 2).snapshot_reads
    assert reads == []
    assert leader.says("b", heard).snapshot_reads == [SnapshotRead(NodeId("b"), snapshot(5, 2), 0, CHUNK)]


def test_entries_are_not_sent_beside_a_snapshot(leader):
    leader.reads(leader.refused_by("b"), snapshot(5, 2))
    leader.acknowledge("c")
    leader.forget()
    leader.raft.propose([b"x"])
    leader.turn()
    assert leader.requests(AppendEntries, "b") == []
    assert leader.requests(AppendEntries, "c") != []


def test_when_the_file_is_gone_the_newest_is_sent_from_its_beginning(leader):
    """Faults 41: the sender compacts midway."""
    leader.reads(leader.refused_by("b"), snapshot(5, 2))
    (read,) = wants(leader, 5, 10)
    assert leader.reads(read, None) == []
    (again,) = leader.effects.snapshot_reads
    assert again == SnapshotRead(NodeId("b"), None, 0, CHUNK)


def test_where_there_is_no_snapshot_it_is_not_looked_for_in_a_circle(leader):
    assert leader.reads(leader.refused_by("b"), None) == []
    assert leader.effects.snapshot_reads == []


def test_entries_that_come_late_end_a_snapshot_that_is_not_needed(leader):
    leader.reads(leader.refused_by("b"), snapshot(5, 2))
    leader.acknowledge("b", match=7)
    progress = leader.office.progress[NodeId("b")]
    assert (progress.phase, progress.sending) == (Phase.REPLICATE, None)


def test_a_late_refusal_or_failure_of_entries_does_not_end_it(leader):
    term = leader.raft.term
    (read,) = leader.says("b", AppendEntriesReply(term, False, Index(8), NONE, NO_TERM, Index(4))).snapshot_reads
    leader.reads(read, snapshot(5, 2))
    append = leader.raft.state.request(NodeId("b"), _empty(leader))
    leader.raft.delivery_failed(append)
    progress = leader.office.progress[NodeId("b")]
    for prev in (8, progress.next_index - 1):
        leader.says("b", AppendEntriesReply(term, False, Index(prev), NONE, NO_TERM, Index(1)))
        assert (progress.phase, progress.sending.snapshot) == (Phase.SNAPSHOT, snapshot(5, 2))


def test_a_snapshot_of_more_than_there_is_is_not_believed(leader):
    leader.reads(leader.refused_by("b"), snapshot(5, 2))
    with pytest.raises(MessageError):
        leader.hears("b", Reply(leader.raft.term, Index(99), 0, installed=True))


def test_a_reply_of_an_older_office_moves_nothing(leader):
    """Faults 14."""
    leader.reads(leader.refused_by("b"), snapshot(5, 2))
    leader.says("b", Reply(Term(leader.raft.term - 1), Index(5), 0, installed=True))
    assert leader.office.progress[NodeId("b")].match_index == 0


def test_a_piece_that_was_read_for_an_office_that_is_over_goes_nowhere(leader):
    """Faults 14."""
    read = leader.refused_by("b")
    leader.says("c", Heartbeat(Term(leader.raft.term + 1), NONE, NONE, Round(1), 0, 0))
    assert leader.reads(read, snapshot(5, 2)) == []


def test_an_append_that_was_lost_is_no_reason_for_a_snapshot(leader):
    """What is not known to match may match all the same: the follower says whether it does not."""
    leader.raft.delivery_failed(leader.raft.state.request(NodeId("b"), _empty(leader)))
    leader.elapse(100_000)
    assert leader.office.progress[NodeId("b")].phase is Phase.PROBE
    assert leader.requests(AppendEntries, "b")[-1].prev_index == 5


def _empty(leader: Sender) -> AppendEntries:
    return AppendEntries(leader.raft.term, leader.raft.last_index, leader.raft.term, NONE, [])


def test_entries_read_from_disk_that_the_log_has_no_more_are_not_sent():
    leader = Lone(log=[1] * 6, tail_first=7, settings=replace(SETTINGS, log_tail_bytes=1))
    leader.lead()
    refusal = AppendEntriesReply(leader.raft.term, False, Index(6), NONE, NO_TERM, Index(3))
    (read,) = leader.says("b", refusal).read_log
    leader.acknowledge("c")
    for wanted in leader.effects.read_log:
        leader.raft.log_was_read(wanted, entries([1] * 6))
    leader.turn()
    leader.turn()
    assert leader.raft.applied_index == 7
    leader.forget()
    leader.raft.snapshot_stored(leader.raft.base_at(Index(3)), size_bytes=1)
    leader.raft.log_was_read(LogRead(Index(3), Index(6), 99, NodeId("b")), entries([1] * 4, first=3))
    leader.turn()
    assert (read.first, leader.raft.state.log.base_index) == (3, 3)
    assert leader.office.progress[NodeId("b")].phase is Phase.SNAPSHOT


def test_who_lost_what_the_log_has_no_more_is_asked_although_there_is_nothing_to_send():
    """faults 41; found by a short run: it lagged until somebody wrote again."""
    leader = Lone(settings=RaftSettings(log_tail_entries=1))
    leader.lead()
    leader.acknowledge("b", "c")
    leader.raft.propose([b"x", b"y"])
    leader.turn()
    lost = [envelope for envelope in leader.sent(AppendEntries) if envelope.receiver == "b"][-1]
    leader.acknowledge("c")
    assert leader.raft.applied_index == leader.raft.last_index == 3
    leader.raft.state.compact(Index(3))
    leader.raft.delivery_failed(lost)
    leader.turn()
    leader.forget()
    leader.elapse(leader.raft.state.settings.heartbeat_us)
    (asked,) = leader.requests(AppendEntries, "b")
    assert (asked.prev_index, asked.frames) == (3, [])
    leader.elapse(leader.raft.state.settings.heartbeat_us)
    assert len(leader.requests(AppendEntries, "b")) == 1, "one at a time"
    refusal = AppendEntriesReply(leader.raft.term, False, Index(3), NONE, NO_TERM, Index(2))
    assert leader.says("b", refusal).snapshot_reads, "it is sent the snapshot"


# ---------------------------------------------------------------------------------------- the receiver


def test_a_piece_is_written_and_the_reply_says_what_is_wanted_next():
    node = Receiver()
    (write,) = node.gets(install(snapshot(9, 3)))
    assert (write.snapshot, write.offset, len(write.data)) == (snapshot(9, 3), 0, 10)
    assert node.replies == []
    node.wrote(write, 10)
    assert node.reply == Reply(Term(3), Index(9), 10, installed=False)
    assert node.raft.receiving == (snapshot(9, 3), 10)


@pytest.mark.parametrize(
    ("log", "id", "text"),
    [
        ((1, 2), snapshot(9, 3), "it ends before"),
        ((1, 1, 1), snapshot(2, 2), "the entry at the index is of another term"),
        ((1, 2, 2, 2), snapshot(3, 3), "a divergent tail"),
    ],
)
def test_a_log_that_does_not_hold_the_snapshot_begins_anew_after_it(log, id, text):
    """Figure 13 (7), faults 38 and 40."""
    node = Receiver(log)
    node.disk_answers = False
    whole(node, id)
    assert (node.raft.commit_index, node.raft.last_index, node.terms) == (id.index, id.index, [])
    assert node.replies == [], "the base is not on stable storage"
    node.disk_answers = True
    node.sync()
    node.turn()
    assert node.reply == Reply(Term(3), id.index, 0, installed=True)
    assert node.raft.durable_index == id.index
    assert node.gets(install(id, term=3)) == [], "it is installed once"
    assert node.reply.installed


def test_the_machine_loads_it_before_anything_else_is_applied():
    node = Receiver()
    (write,) = node.gets(install(snapshot(9, 3)))
    node.raft.snapshot_was_written(write, 25, base(9, 3))
    effects = node.raft.take()
    assert (effects.load_snapshot, node.raft.loading, node.raft.applied_index) == (9, 9, 0)
    append = AppendEntries(Term(3), Index(9), Term(3), Index(10), [entry(10, 3)])
    assert node.says("b", append).apply == []
    assert node.raft.commit_index == 10
    node.raft.snapshot_loaded(Index(9))
    (committed,) = node.turn().apply
    assert (committed.first, node.raft.applied_index, node.raft.loading) == (10, 10, None)


def test_who_loads_a_snapshot_does_not_stand_until_it_is_loaded():
    """Faults 45: it could answer nobody for as long as that takes; it votes for whoever can."""
    node = Receiver()
    whole(node, snapshot(9, 3))
    node.forget()
    for _ in range(10):
        node.elapse(E_US)
    assert (node.requests(PreVoteRequest), node.raft.role, node.raft.leader_id) == ([], Role.FOLLOWER, None)
    node.says("c", RequestVote(Term(4), Index(9), Term(3), False))
    assert node.reply.granted
    node.raft.snapshot_loaded(Index(9))
    for _ in range(3):
        node.elapse(E_US)
    assert node.requests(PreVoteRequest)


def test_who_loads_a_snapshot_does_not_take_over_until_it_is_loaded():
    """Faults 45: its log is as long as the leader's long before its state is there, so it may well be asked."""
    node = Receiver()
    whole(node, snapshot(9, 3))
    node.forget()
    node.says("b", TimeoutNow(Term(3)))
    assert (node.reply, node.raft.role, node.raft.term) == (TimeoutNowReply(Term(3), False), Role.FOLLOWER, 3)
    node.raft.snapshot_loaded(Index(9))
    node.says("b", TimeoutNow(Term(3)))
    assert (node.raft.role, node.raft.term) == (Role.CANDIDATE, 4)


def test_however_long_it_is_loaded_memory_holds_no_more_of_the_log():
    """Nothing is applied meanwhile, and a leader sends what it has; what is stored can be read again."""
    node = Lone(log=[1, 2], settings=replace(SETTINGS, log_memory_bytes=1000))
    node.follow("b", 3)
    (write,) = node.says("b", install(snapshot(9, 3))).snapshot_writes
    node.raft.snapshot_was_written(write, 25, base(9, 3))
    for index in range(10, 110):
        node.says("b", AppendEntries(Term(3), Index(index - 1), Term(3), Index(index), [entry(index, 3)]))
    log = node.raft.state.log
    assert (node.raft.loading, node.raft.durable_index) == (9, 109)
    assert log.memory_bytes < 1250 and log.memory_first > 20


def test_hashes_of_the_state_before_say_nothing_of_the_loaded_one():
    node = Receiver()
    node.raft.machine_hash(Index(1024), b"of another state")
    whole(node, snapshot(2000, 3))
    node.raft.snapshot_loaded(Index(2000))
    assert node.raft.state.state_hash == (0, b"")


def test_a_log_that_holds_the_snapshot_stays_and_needs_no_file():
    """Figure 13 (6)."""
    node = Receiver((1, 2, 3, 3))
    assert node.gets(install(snapshot(3, 3))) == []
    assert node.reply == Reply(Term(3), Index(3), 0, installed=True)
    assert (node.raft.commit_index, node.terms, node.raft.loading) == (3, [1, 2, 3, 3], None)


def test_entries_that_come_before_the_file_is_whole_stay():
    node = Receiver()
    (write,) = node.gets(install(snapshot(3, 3)))
    node.says("b", AppendEntries(Term(3), Index(2), Term(2), NONE, entries([3, 3], first=3)))
    node.forget()
    node.wrote(write, 25, base(3, 3))
    assert node.reply.installed
    assert (node.raft.commit_index, node.terms, node.raft.loading) == (3, [1, 2, 3, 3], None)


def test_a_snapshot_that_the_log_holds_is_acknowledged_when_the_log_is_stored():
    node = Receiver()
    node.disk_answers = False
    node.says("b", AppendEntries(Term(3), Index(2), Term(2), NONE, entries([3, 3], first=3)))
    node.says("b", install(snapshot(3, 3)))
    assert (node.replies, node.raft.commit_index) == ([], 3)
    node.sync()
    node.turn()
    assert sorted(type(reply).__name__ for reply in node.replies) == ["AppendEntriesReply", "InstallSnapshotReply"]


def test_the_configuration_is_the_snapshots_and_those_of_the_tail_are_gone():
    """Faults 38, 39; also a joint one."""
    node = Lone(log=[1, 2], settings=SETTINGS)
    node.follow("b", 3)
    frames = [configuration_entry(3, 3, voters("a", "b", "d"))]
    node.says("b", AppendEntries(Term(3), Index(2), Term(2), NONE, frames))
    assert node.raft.configuration == voters("a", "b", "d")
    joint = Configuration(voters("a", "b", "c", "d").current, voters("a", "b", "c").current)
    (write,) = node.says("c", install(snapshot(3, 4), term=4)).snapshot_writes
    node.raft.snapshot_was_written(write, 25, base(3, 4, joint))
    node.turn()
    assert node.raft.configuration == joint
    assert node.raft.state.voter_sets == joint.voter_sets()
    assert node.writes == []


@pytest.mark.parametrize("id", [snapshot(1, 1), snapshot(2, 2)])
def test_an_older_snapshot_is_ignored(id):
    """Faults 42."""
    node = Receiver()
    node.says("b", AppendEntries(Term(3), Index(2), Term(2), Index(2), []))
    node.forget()
    assert node.gets(install(id, term=3)) == []
    assert node.reply == Reply(Term(3), id.index, 0, installed=True)
    assert (node.raft.commit_index, node.terms) == (2, [1, 2])


def test_a_snapshot_that_is_overtaken_while_it_is_written_is_ignored():
    """Faults 42."""
    node = Receiver()
    (write,) = node.gets(install(snapshot(3, 3)))
    frames = entries([3, 3, 3], first=3)
    node.says("b", AppendEntries(Term(3), Index(2), Term(2), Index(4), frames))
    node.forget()
    node.wrote(write, 25, base(3, 3))
    assert node.reply.installed
    assert (node.raft.commit_index, node.terms) == (4, [1, 2, 3, 3, 3])


def test_a_snapshot_of_an_older_term_is_refused():
    """Faults 42: the term never falls."""
    node = Receiver()
    assert node.gets(install(snapshot(9, 2), term=2), by="c") == []
    assert node.reply == Reply(Term(3), NONE, 0, installed=False)
    assert node.raft.leader_id == "b"


def test_a_snapshot_keeps_the_election_away():
    node = Receiver()
    for _ in range(20):
        node.elapse(E_US - 10_000)
        node.gets(install(snapshot(9, 3)))
    assert node.raft.role.value == "follower"


def test_another_leaders_snapshot_takes_over_and_the_first_ones_write_confirms_nothing():
    """Faults 41: another file for the same index."""
    node = Receiver()
    first, second = snapshot(9, 3), snapshot(9, 3, checksum=8)
    (one,) = node.gets(install(first))
    (two,) = node.gets(install(second, term=4), by="c")
    assert node.reply == Reply(Term(4), NONE, 0, installed=False), "the first leader's exchange ends"
    node.wrote(one, 10)
    assert node.replies == []
    node.wrote(two, 10)
    assert node.reply == Reply(Term(4), Index(9), 10, installed=False)
    assert node.raft.receiving == (second, 10)


def test_a_snapshot_that_becomes_whole_late_counts_whoever_leads_now():
    node = Receiver()
    (one,) = node.gets(install(snapshot(9, 3), 20))
    (two,) = node.gets(install(snapshot(9, 3, checksum=8), term=4), by="c")
    node.forget()
    node.wrote(one, 25, base(9, 3))
    assert (node.raft.commit_index, node.replies) == (9, [])
    node.wrote(two, 10)
    assert node.reply == Reply(Term(4), Index(9), 0, installed=True)


def test_a_doubled_piece_is_written_once_and_each_exchange_has_its_reply():
    """Faults 41."""
    node = Receiver()
    (write,) = node.gets(install(snapshot(9, 3)))
    assert node.gets(install(snapshot(9, 3))) == []
    assert node.reply == Reply(Term(3), Index(9), 0, installed=False)
    node.wrote(write, 10)
    assert node.reply == Reply(Term(3), Index(9), 10, installed=False)


def test_an_exchange_whose_term_is_over_is_refused():
    """Faults 14."""
    node = Receiver()
    (write,) = node.gets(install(snapshot(9, 3), 20))
    node.says("c", Heartbeat(Term(4), NONE, NONE, Round(1), 0, 0))
    node.forget()
    node.wrote(write, 25, base(9, 3))
    assert node.reply == Reply(Term(4), NONE, 0, installed=False)
    assert node.raft.commit_index == 9, "what it stands for is committed all the same"


def test_a_snapshot_that_comes_while_this_node_stands_ends_that():
    node = Receiver()
    (write,) = node.gets(install(snapshot(9, 3), 20))
    node.stand()
    assert node.role == "candidate"
    node.wrote(write, 25, base(9, 3))
    assert (node.role, node.raft.state.campaign, node.raft.commit_index) == ("follower", None, 9)


def test_a_leader_does_not_take_a_snapshot_of_an_older_term():
    node = Receiver()
    (write,) = node.gets(install(snapshot(9, 3), 20))
    node.lead()
    node.wrote(write, 25, base(9, 3))
    assert (node.role, node.terms) == ("leader", [1, 2, 4])
    assert node.replies == [Reply(Term(4), NONE, 0, installed=False)]


def test_a_piece_is_written_only_when_its_term_is_stored():
    node = Lone(log=[1], settings=SETTINGS)
    node.disk_answers = False
    assert node.says("b", install(snapshot(9, 3))).snapshot_writes == []
    node.sync()
    assert len(node.turn().snapshot_writes) == 1


def test_a_newer_snapshot_while_one_is_loaded_is_loaded_too():
    """Faults 42."""
    node = Receiver()
    whole(node, snapshot(9, 3))
    whole(node, snapshot(12, 3))
    node.raft.snapshot_loaded(Index(9))
    assert (node.raft.applied_index, node.raft.loading) == (9, 12)
    node.raft.snapshot_loaded(Index(12))
    assert (node.raft.applied_index, node.raft.loading) == (12, None)


def test_an_append_of_what_the_snapshot_holds_deletes_and_doubles_nothing():
    """Faults 8."""
    node = Receiver()
    whole(node, snapshot(9, 3))
    node.forget()
    for prev, prev_term, terms in [(0, 0, [1, 2]), (2, 2, [3] * 7), (8, 3, [3, 3]), (0, 0, [])]:
        frames = entries(terms, first=prev + 1)
        node.says("b", AppendEntries(Term(3), Index(prev), Term(prev_term), NONE, frames))
        assert node.reply.success
    assert (node.terms, node.raft.state.log.base_index) == ([3], 9)


def test_writes_of_the_old_log_make_nothing_of_the_new_one_durable():
    """Faults 12, with a reset."""
    node = Receiver()
    (write,) = node.gets(install(snapshot(6, 3), 20))
    node.disk_answers = False
    node.says("b", AppendEntries(Term(3), Index(2), Term(2), NONE, entries([2] * 9, first=3)))
    old = node.writes[-1].ticket
    node.wrote(write, 25, base(6, 3))
    node.raft.persisted(old)
    assert node.raft.durable_index == 5
    node.says("b", AppendEntries(Term(3), Index(6), Term(3), NONE, entries([3, 3], first=7)))
    node.raft.persisted(node.writes[-1].ticket)
    assert node.raft.durable_index == 8


ABSURD = [
    install(snapshot(9, 3, size=SNAPSHOT_BYTES_MAX + 1)),
    install(snapshot(9, 4), term=3),
    install(snapshot(0, 3)),
    install(snapshot(9, 0), term=3),
    InstallSnapshot(Term(3), snapshot(9, 3), 20, b"x" * 6),
    InstallSnapshot(Term(3), snapshot(9, 3), 25, b"x"),
    InstallSnapshot(Term(3), snapshot(9, 3), 0, b""),
    InstallSnapshot(Term(3), snapshot(2, 3), 0, b"x"),
]


@pytest.mark.parametrize("message", ABSURD)
def test_what_no_node_sends_is_refused_and_changes_nothing(message):
    """Faults 57; the last stands for another entry than what is committed."""
    node = Receiver()
    node.says("b", AppendEntries(Term(3), Index(2), Term(2), Index(2), []))
    with pytest.raises(MessageError):
        node.hears("b", message)
    assert (node.turn().snapshot_writes, node.terms, node.raft.commit_index) == ([], [1, 2], 2)


def test_pieces_are_no_larger_than_anybody_takes():
    with pytest.raises(ConfigError, match="snapshot_chunk_bytes"):
        RaftSettings(snapshot_chunk_bytes=2**20 + 1)
