"""Log replication and commit, played against one core with hand-made messages (paper §5.3, §5.4, §6)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from raftkv.core.effects import LogRead
from raftkv.core.messages import (
    AppendEntries,
    AppendEntriesReply,
    Heartbeat,
)
from raftkv.core.progress import Phase
from raftkv.core.settings import RaftSettings
from raftkv.core.types import Configuration, Index, Round, Term, membership_of
from raftkv.errors import NotLeader
from tests.core.lone import E_US, NO_TERM, NONE, B, Lone, configuration_entry, entries, entry, incarnation_of, voters


def append(term: int, prev: int, prev_term: int, terms: tuple[int, ...] = (), *, commit: int = 0) -> AppendEntries:
    return AppendEntries(Term(term), Index(prev), Term(prev_term), Index(commit), entries(terms, first=prev + 1))


def success(lone: Lone, match: int, *, term: int | None = None) -> AppendEntriesReply:
    said_in = lone.raft.term if term is None else Term(term)
    return AppendEntriesReply(said_in, True, NONE, Index(match), NO_TERM, NONE)


# -------------------------------------------------------------------------- §5.3: the log at a follower


@pytest.mark.parametrize(
    ("log", "request_", "log_after", "conflict"),
    [
        ([1, 1], append(3, 3, 1), [1, 1], (0, 3)),  # too short
        ([1, 2, 2, 2], append(3, 4, 3), [1, 2, 2, 2], (2, 2)),  # another term at prev
        ([1, 1, 1], append(3, 2, 2), [1, 1, 1], (1, 1)),
    ],
)
def test_a_log_that_does_not_match_is_refused_with_where_it_parts(log, request_, log_after, conflict):
    """Paper §5.3 (the end), faults 13"""
    lone = Lone(log=log)
    lone.says("b", request_)
    refusal = AppendEntriesReply(Term(3), False, request_.prev_index, NONE, Term(conflict[0]), Index(conflict[1]))
    assert lone.reply == refusal
    assert lone.terms == log_after


@pytest.mark.parametrize(
    ("log", "request_", "log_after", "match"),
    [
        ([], append(1, 0, 0, (1, 1)), [1, 1], 2),
        ([1, 1], append(2, 2, 1, (2,)), [1, 1, 2], 3),
        ([1, 1, 1], append(2, 1, 1, (2,)), [1, 2], 2),  # a conflict takes all after it
        ([1, 1, 1], append(2, 1, 1, (1, 2)), [1, 1, 2], 3),
        ([1, 1, 1], append(1, 0, 0, (1,)), [1, 1, 1], 1),  # short and late: what matched stays
        ([1, 1, 1], append(1, 1, 1), [1, 1, 1], 1),
        ([1, 1, 1], append(2, 0, 0, (1, 1, 1)), [1, 1, 1], 3),
    ],
)
def test_what_matches_is_stored_and_only_a_conflict_removes(log, request_, log_after, match):
    """Paper §5.3, Figure 2 AppendEntries 3 and 4, faults 7 and 9"""
    lone = Lone(log=log)
    lone.says("b", request_)
    assert lone.terms == log_after
    reply = lone.reply
    assert (reply.success, reply.match, reply.prev_index) == (True, match, request_.prev_index)


def test_a_late_append_is_not_written_again():
    """faults 7: nothing goes to the disk for what is there."""
    lone = Lone(log=[1, 1, 1])
    lone.disk_answers = False
    lone.says("b", append(1, 0, 0, (1, 1)))
    assert lone.writes == []


@pytest.mark.parametrize(
    ("request_", "commit"),
    [
        (append(2, 1, 1, commit=9), 1),  # empty: prev, though this log goes on
        (append(2, 1, 1, (2,), commit=9), 2),
        (append(2, 1, 1, (2,), commit=1), 1),
        (append(2, 0, 0, commit=9), 0),
    ],
)
def test_commit_goes_no_further_than_what_the_request_proved(request_, commit):
    """Paper Figure 2 AppendEntries 5, faults 6: what stands behind may be a dead leader's."""
    lone = Lone(log=[1, 1, 1])
    lone.says("b", request_)
    assert lone.raft.commit_index == commit


def test_a_heartbeats_commit_is_bounded_by_the_match_that_the_leader_knows():
    """faults 6, for heartbeats: 0 before the follower's first match in this term."""
    lone = Lone(log=[1, 1])
    lone.lead()
    lone.acknowledge("b")
    lone.elapse(100_000)
    assert lone.requests(Heartbeat, "b")[-1].commit == 3
    assert lone.requests(Heartbeat, "c")[-1].commit == 0


def test_commit_never_falls():
    """faults 10"""
    lone = Lone(log=[1, 1, 1])
    lone.says("b", append(1, 3, 1, commit=3))
    lone.says("b", append(1, 3, 1, commit=1))
    lone.says("b", Heartbeat(Term(1), Index(1), Index(1), Round(1), 0, 0))
    assert lone.raft.commit_index == 3


def test_a_reply_waits_until_what_it_claims_is_stored():
    """faults 2: the term and the entries."""
    lone = Lone()
    lone.disk_answers = False
    lone.says("b", append(1, 0, 0, (1, 1)))
    assert lone.replies == []
    lone.disk_answers = True
    lone.turn()
    assert lone.reply.match == 2


def test_an_overwritten_entry_that_becomes_durable_is_not_acknowledged():
    """faults 12: the disk finishes the old entries after the new leader's took their place."""
    lone = Lone(log=[1])
    lone.forget()
    lone.disk_answers = False
    lone.says("b", append(2, 1, 1, (2, 2)))
    (old,) = lone.writes
    lone.says("c", append(3, 1, 1, (3,)))
    lone.raft.persisted(old.ticket)
    assert lone.raft.durable_index == 1
    lone.turn()
    assert lone.replies == []
    lone.disk_answers = True
    lone.turn()
    void, stored = lone.replies
    assert (void.success, void.term) == (False, 3)
    assert (stored.success, stored.match) == (True, 2)


def test_an_entry_that_still_stands_after_a_change_of_term_is_counted():
    """faults 12"""
    lone = Lone(log=[1])
    lone.forget()
    lone.disk_answers = False
    lone.says("b", append(2, 1, 1, (2, 2)))
    (old,) = lone.writes
    lone.says("c", append(3, 3, 2))
    lone.raft.persisted(old.ticket)
    assert lone.raft.durable_index == 3


def test_a_configuration_counts_from_its_append_and_gives_way_when_truncated():
    """Paper §6, faults 9 and 28"""
    lone = Lone(log=[1])
    change = configuration_entry(2, 2, voters("a", "b", "c", "d", "e"))
    lone.says("b", AppendEntries(Term(2), Index(1), Term(1), NONE, [change]))
    assert len(lone.raft.configuration.voters()) == 5
    lone.says("c", append(3, 1, 1, (3,)))
    assert lone.raft.configuration.voters() == ("a", "b", "c")


@pytest.mark.parametrize(
    ("prev", "last", "log_after", "match"),
    [
        (0, 13, [5, 5, 5], 13),  # from before the snapshot into the log, and on
        (0, 2, [5, 5], 10),  # all of it is in the snapshot: it matches as far as that
        (4, 4, [5, 5], 10),
        (10, 10, [5, 5], 10),  # right at it
        (10, 11, [5, 5], 11),
    ],
)
def test_a_prev_in_the_snapshot_deletes_and_doubles_nothing(prev, last, log_after, match):
    """faults 8: the log begins after a snapshot at 10 of term 4, its leader's has all of it."""
    terms = [1] * 8 + [4] * 2 + [5] * 3
    lone = Lone(base=(10, 4), log=[5, 5])
    prev_term = terms[prev - 1] if prev else 0
    frames = entries(terms)[prev:last]
    lone.says("b", AppendEntries(Term(5), Index(prev), Term(prev_term), NONE, frames))
    reply = lone.reply
    assert (reply.success, reply.match) == (True, match)
    assert lone.terms == log_after
    assert lone.raft.commit_index == 10


# ------------------------------------------------------------------------------ §5.3: the leader's part


def test_match_and_commit_never_fall_by_late_or_doubled_replies():
    """faults 10"""
    lone = Lone()
    lone.lead()
    lone.raft.propose([b"x", b"y"])
    lone.turn()
    lone.says("b", success(lone, 3))
    assert lone.raft.commit_index == 3
    for match in (1, 2, 0):
        lone.says("b", success(lone, match))
    assert (lone.office.progress[B].match_index, lone.raft.commit_index) == (3, 3)


def test_a_success_of_an_older_term_is_not_counted():
    """faults 10, 14: the same indexes, but other entries."""
    lone = Lone(term=1)
    lone.lead()
    lone.says("b", success(lone, 1, term=1))
    assert lone.raft.commit_index == 0


def test_the_leader_counts_itself_only_as_far_as_its_disk():
    """faults 1, thesis §10.2.1: its appends go out at once all the same."""
    lone = Lone()
    lone.lead()
    lone.acknowledge("b", "c")
    lone.disk_answers = False
    lone.raft.propose([b"x"])
    lone.turn()
    assert lone.requests(AppendEntries, "b")[-1].frames
    lone.acknowledge("b")
    assert lone.raft.commit_index == 1, "two hold entry 2, but one of them only in memory"
    lone.acknowledge("c")
    assert lone.raft.commit_index == 2, "two disks hold it"


def test_entries_of_old_terms_are_committed_by_one_of_the_own_term():
    """Paper §5.4.2, faults 4 and 5"""
    lone = Lone(log=[1, 2, 2])
    lone.lead()
    assert lone.terms == [1, 2, 2, 3]
    lone.acknowledge("b", match=3)
    assert lone.raft.commit_index == 0, "on a majority, but of an old term"
    lone.acknowledge("c", match=4)
    assert lone.raft.commit_index == 4


@pytest.mark.parametrize(
    ("conflict_term", "conflict_index", "prev"),
    [
        (4, 3, 5),  # the leader has that term too: they can agree up to its last entry of it
        (3, 3, 2),  # it has not: not before that term began there
        (0, 5, 4),  # the follower's log ends before
    ],
)
def test_a_refusal_moves_the_probe_by_a_whole_term(conflict_term, conflict_index, prev):
    """Paper §5.3 (the end), faults 13"""
    lone = Lone(log=[1, 1, 4, 4, 4, 6, 6])
    lone.lead()
    lone.forget()
    refusal = AppendEntriesReply(lone.raft.term, False, Index(7), NONE, Term(conflict_term), Index(conflict_index))
    lone.says("b", refusal)
    (probe,) = lone.requests(AppendEntries, "b")
    assert probe.prev_index == prev


def test_a_late_refusal_of_a_probe_that_was_answered_changes_nothing():
    """faults 10, 13"""
    lone = Lone(log=[1, 1, 1])
    lone.lead()
    refusal = AppendEntriesReply(lone.raft.term, False, Index(3), NONE, NO_TERM, Index(2))
    lone.says("b", refusal)
    assert lone.office.progress[B].next_index == 2
    lone.says("b", refusal)
    assert lone.office.progress[B].next_index == 2
    lone.says("b", success(lone, 4))
    lone.says("b", refusal)
    assert (lone.office.progress[B].phase, lone.office.progress[B].match_index) == (Phase.REPLICATE, 4)


def test_a_refusal_of_an_older_terms_append_says_nothing_of_the_log():
    """faults 10: it was not compared."""
    lone = Lone(log=[1, 1, 1])
    lone.lead()
    lone.says("b", AppendEntriesReply(lone.raft.term, False, Index(3), NONE, NO_TERM, NONE))
    assert lone.office.progress[B].next_index == 4
    follower = Lone(term=5, log=[1, 1])
    follower.says("b", append(4, 1, 1))
    assert follower.reply == AppendEntriesReply(Term(5), False, Index(1), NONE, NO_TERM, NONE)


def test_entries_are_sent_ahead_up_to_the_bound():
    """Thesis §10.2.3"""
    lone = Lone(settings=RaftSettings(inflight_appends_max=3))
    lone.lead()
    lone.acknowledge("b")
    lone.forget()
    for _ in range(5):
        lone.raft.propose([b"x"])
        lone.turn()
    sent = lone.requests(AppendEntries, "b")
    assert [(one.prev_index, len(one.frames)) for one in sent] == [(1, 1), (2, 1), (3, 1)]
    lone.says("b", success(lone, 2))
    assert lone.requests(AppendEntries, "b")[-1].prev_index == 4
    assert len(lone.requests(AppendEntries, "b")[-1].frames) == 2, "what gathered goes together"


def test_what_is_not_answered_for_a_timeout_is_sent_again():
    """Paper §5.3: "retries AppendEntries indefinitely"."""
    lone = Lone()
    lone.lead()
    lone.acknowledge("b", "c")
    lone.raft.propose([b"x"])
    lone.turn()
    lone.forget()
    lone.elapse(E_US - 1)
    lone.says("b", success(lone, 2))
    assert lone.requests(AppendEntries, "c") == []
    lone.elapse(1)
    (again,) = lone.requests(AppendEntries, "c")
    assert again.prev_index == 1


def test_a_broken_link_is_tried_again_after_a_heartbeat():
    lone = Lone()
    lone.lead()
    lone.acknowledge("b")
    lone.raft.propose([b"x"])
    lone.turn()
    lost = next(envelope for envelope in lone.sent(AppendEntries) if envelope.receiver == B)
    lone.forget()
    lone.raft.delivery_failed(lost)
    lone.turn()
    assert lone.requests(AppendEntries, "b") == []
    lone.elapse(100_000)
    (again,) = lone.requests(AppendEntries, "b")
    assert again.prev_index == 1


def test_entries_that_memory_no_longer_holds_are_read_for_the_follower():
    frames = entries([1] * 6)
    lone = Lone(log=[1] * 6, tail_first=5)
    lone.lead()
    lone.says("b", AppendEntriesReply(lone.raft.term, False, Index(6), NONE, NO_TERM, Index(2)))
    (read,) = lone.effects.read_log
    assert read == LogRead(Index(2), Index(4), 1024 * 1024, B)
    assert lone.elapse(1000).read_log == [], "once"
    lone.forget()
    lone.raft.log_was_read(read, frames[1:4])
    lone.turn()
    (sent,) = lone.requests(AppendEntries, "b")
    assert (sent.prev_index, sent.frames) == (1, frames[1:4])


def test_entries_that_were_overwritten_while_they_were_read_are_not_sent():
    """faults 14"""
    lone = Lone(log=[1] * 6, tail_first=5)
    lone.lead()
    lone.says("b", AppendEntriesReply(lone.raft.term, False, Index(6), NONE, NO_TERM, Index(2)))
    (read,) = lone.effects.read_log
    lone.forget()
    lone.raft.log_was_read(read, entries([2, 2, 2], first=2))
    lone.turn()
    assert lone.requests(AppendEntries, "b") == []
    assert lone.effects.read_log == [read], "asked anew"


def test_what_was_read_for_a_follower_that_needs_something_else_by_now_is_not_sent():
    """faults 10: a late success came while the disk was read; what was read does not follow on what matches."""
    frames = entries([1] * 6)
    lone = Lone(log=[1] * 6, tail_first=5)
    lone.lead()
    lone.says("b", AppendEntriesReply(lone.raft.term, False, Index(6), NONE, NO_TERM, Index(2)))
    (read,) = lone.effects.read_log
    lone.acknowledge("b", match=3)
    lone.forget()
    lone.raft.log_was_read(read, frames[1:4])
    lone.turn()
    assert lone.requests(AppendEntries, "b") == []
    assert lone.effects.read_log == [LogRead(Index(4), Index(4), 1024 * 1024, B)], "what it needs now"


def test_at_a_restart_committed_entries_are_read_from_disk_to_be_applied():
    lone = Lone(log=[1] * 6, tail_first=5)
    lone.says("b", append(1, 6, 1, commit=6))
    (read,) = lone.effects.read_log
    assert (read.first, read.last, read.follower) == (1, 4, None)
    lone.raft.log_was_read(read, entries([1] * 2))
    effects = lone.turn()
    assert [committed.first for committed in effects.apply] == [1]
    (rest,) = effects.read_log
    assert (rest.first, rest.last) == (3, 4)
    lone.raft.log_was_read(rest, entries([1] * 2, first=3))
    lone.turn()
    lone.turn()
    assert lone.raft.applied_index == 6


def test_what_came_back_from_disk_at_once_is_handed_out_in_turns_and_read_once():
    """However little of it may be handed out in a turn: where it stands is read from its beginning each time."""
    lone = Lone(log=[1] * 9, tail_first=8, settings=RaftSettings(apply_entries_max=3))
    lone.says("b", append(1, 9, 1, commit=9))
    (read,) = lone.effects.read_log
    assert (read.first, read.last) == (1, 7)
    lone.raft.log_was_read(read, entries([1] * 7))
    handed = []
    for _ in range(5):
        effects = lone.turn()
        assert effects.read_log == []
        handed += [(committed.first, len(committed.frames)) for committed in effects.apply]
        assert lone.raft.applied_index == 9 or effects.deadline_us == lone.now_us
    assert handed == [(1, 3), (4, 3), (7, 1), (8, 2)]


def test_what_came_back_from_disk_is_nothing_once_a_snapshot_took_its_place():
    lone = Lone(log=[1] * 9, tail_first=10, settings=RaftSettings(apply_entries_max=3))
    lone.says("b", append(1, 9, 1, commit=9))
    (read,) = lone.effects.read_log
    lone.raft.log_was_read(read, entries([1] * 9))
    assert [committed.first for committed in lone.turn().apply] == [1]
    lone.raft.state.handed_index = Index(7)
    (read,) = lone.turn().read_log
    assert (read.first, read.last) == (8, 9)


SMALL_RECENT = RaftSettings(log_memory_bytes=100 * len(entry(1, 1)), log_recent_bytes=5 * len(entry(1, 1)))


def put_while_c_is_away(lone: Lone, batches_count: int, payloads: list[bytes]) -> None:
    for _ in range(batches_count):
        lone.raft.propose(payloads)
        lone.turn()
        lone.acknowledge("b")


def test_a_leader_keeps_in_memory_what_a_member_lacks_and_little_of_what_all_have():
    lone = Lone(settings=SMALL_RECENT)
    lone.lead()
    put_while_c_is_away(lone, 4, [bytes(19)] * 10)
    log = lone.raft.state.log
    assert (lone.raft.applied_index, log.memory_first) == (41, 1), "c may need all of it"
    lone.acknowledge("c", match=21)
    assert log.memory_first == 22
    lone.acknowledge("c")
    assert 41 - 5 <= log.memory_first <= 41


def test_what_a_member_lacks_for_long_is_kept_in_memory_within_the_bound():
    lone = Lone(settings=SMALL_RECENT)
    lone.lead()
    put_while_c_is_away(lone, 20, [bytes(19)] * 10)
    log = lone.raft.state.log
    assert 201 - 113 <= log.memory_first <= 201 - 80


def test_a_follower_keeps_little_of_what_is_applied():
    lone = Lone(settings=SMALL_RECENT)
    lone.follow("b", 1)
    lone.says("b", AppendEntries(Term(1), Index(0), Term(0), Index(0), entries([1] * 40)))
    log = lone.raft.state.log
    assert log.memory_first == 1, "it may be applied yet"
    lone.says("b", AppendEntries(Term(1), Index(40), Term(1), Index(30), []))
    assert (lone.raft.applied_index, log.memory_first) == (30, 31)
    lone.says("b", AppendEntries(Term(1), Index(40), Term(1), Index(40), []))
    assert 40 - 5 <= log.memory_first <= 40


def test_the_first_snapshot_after_a_start_leaves_a_tail_of_what_was_replayed():
    """Though memory has held none of it."""
    lone = Lone(log=[1] * 6, tail_first=7, settings=RaftSettings(log_tail_entries=2))
    lone.follow("b", 1)
    (read,) = lone.says("b", append(1, 6, 1, commit=6)).read_log
    lone.raft.log_was_read(read, entries([1] * 6))
    lone.turn()
    lone.raft.snapshot_stored(lone.raft.base_at(Index(6)), size_bytes=1)
    assert lone.raft.state.log.base_index == 4


def test_a_leader_that_steps_down_after_a_member_was_away_leaves_a_tail():
    """It lets go of much at one stroke."""
    lone = Lone(settings=RaftSettings(log_tail_bytes=1024 * 1024))
    lone.lead()
    lone.acknowledge("b", "c")
    put_while_c_is_away(lone, 20, [bytes(1000)] * 100)
    last, term = lone.raft.last_index, lone.raft.term
    lone.says("b", AppendEntries(Term(term + 1), last, term, last, []))
    lone.turn()
    assert lone.raft.state.log.memory_first > 1_000
    base = lone.raft.base_at(Index(last - 1000))
    lone.raft.snapshot_stored(base, size_bytes=1)
    assert 900 < base.index - lone.raft.state.log.base_index < 1_024


def test_what_the_own_disk_does_not_have_yet_stays_in_memory_though_it_is_applied():
    lone = Lone(settings=SMALL_RECENT)
    lone.follow("b", 1)
    lone.disk_answers = False
    lone.says("b", AppendEntries(Term(1), Index(0), Term(0), Index(40), entries([1] * 40)))
    log = lone.raft.state.log
    assert (lone.raft.applied_index, lone.raft.durable_index, log.memory_first) == (40, 0, 1)
    lone.disk_answers = True
    lone.sync()
    lone.turn()
    assert 40 - 5 <= log.memory_first <= 40


def test_a_proposal_needs_a_leader():
    lone = Lone()
    with pytest.raises(NotLeader):
        lone.raft.propose([b"x"])
    with pytest.raises(NotLeader):
        lone.raft.transfer_leadership(None)


def test_a_leader_that_was_replaced_under_its_own_name_does_not_count_itself():
    """faults 31: the log of the incarnation that the configuration lists is another one."""
    lone = Lone()
    lone.lead()
    lone.acknowledge("b", "c")
    after = voters("a", "b", "c").current.voters
    anew = Configuration(membership_of((replace(after[0], incarnation=incarnation_of("a anew")), *after[1:])))
    before = lone.raft.commit_index
    lone.raft.state.append([configuration_entry(lone.raft.last_index + 1, lone.raft.term, anew)])
    lone.turn()
    lone.acknowledge("b")
    assert lone.raft.commit_index == before
    lone.acknowledge("c")
    assert lone.raft.commit_index == before + 1
