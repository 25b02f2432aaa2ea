"""Reads at the leader and at followers, with hand-made messages (thesis §6.4)."""

from __future__ import annotations

from random import Random

import pytest

from raftkv.core import rules
from raftkv.core.messages import (
    AppendEntries,
    Heartbeat,
    HeartbeatReply,
    ReadIndexReply,
    ReadIndexRequest,
    RequestVote,
)
from raftkv.core.raft import Raft
from raftkv.core.settings import RaftSettings
from raftkv.core.types import Index, NodeId, Role, Round, Term
from raftkv.errors import MessageError
from tests.core.lone import E_US, NO_TERM, NONE, B, Lone, configuration_entry, entries, voters

NO_HASH = (NONE, b"")


def echo(lone: Lone, round: int, *, term: int | None = None, life: int = 0, heard_us: int = 0) -> HeartbeatReply:
    said_in = lone.raft.term if term is None else Term(term)
    return HeartbeatReply(said_in, Round(round), *NO_HASH, life=life, heard_us=heard_us)


def serving_leader(**how) -> Lone:
    lone = Lone(**how)
    lone.lead()
    lone.acknowledge("b")
    return lone


# ------------------------------------------------------------------------------------------ rounds


def test_a_read_is_ready_when_a_majority_has_echoed_its_round():
    lone = serving_leader()
    lone.raft.request_read(1)
    assert not lone.turn().reads_ready
    (ready,) = lone.says("b", echo(lone, lone.office.last_round)).reads_ready
    assert (ready.read_id, ready.index) == (1, 1)


def test_an_echo_of_an_earlier_round_confirms_no_later_read():
    """faults 34"""
    lone = serving_leader()
    lone.elapse(100_000)
    idle_round = lone.office.last_round
    lone.raft.request_read(1)
    lone.turn()
    assert lone.office.last_round > idle_round
    for sender in ("b", "b", "c"):
        assert not lone.says(sender, echo(lone, idle_round)).reads_ready


def test_a_read_does_not_join_a_round_that_is_already_out():
    """faults 34: the heartbeat went out with no read aboard; its echo says nothing of what came after."""
    lone = serving_leader()
    lone.elapse(100_000)
    idle_round = lone.office.last_round
    lone.raft.request_read(1)
    assert not lone.says("b", echo(lone, idle_round)).reads_ready


def test_an_echo_of_another_term_confirms_nothing():
    """faults 34"""
    lone = serving_leader()
    lone.raft.request_read(1)
    lone.turn()
    assert not lone.says("b", echo(lone, lone.office.last_round, term=lone.raft.term - 1)).reads_ready


def test_a_heartbeat_of_an_older_term_is_not_echoed():
    """faults 34: round numbers begin anew with every term; an old one, echoed in the new, would confirm another."""
    lone = Lone()
    lone.follow("b", 1)
    lone.says("b", RequestVote(Term(2), NONE, NO_TERM, transfer=True))
    lone.forget()
    lone.says("b", Heartbeat(Term(1), NONE, NONE, Round(7), 0, 0))
    reply = lone.reply
    assert (reply.term, reply.round) == (2, 0)


def test_a_held_echo_that_became_void_echoes_nothing():
    """faults 34: the same, for a reply that waited for the disk while the term moved on."""
    lone = Lone()
    lone.disk_answers = False
    lone.says("b", Heartbeat(Term(1), NONE, NONE, Round(7), 0, 0))
    lone.says("b", RequestVote(Term(2), NONE, NO_TERM, transfer=True))
    assert lone.replies == []
    lone.disk_answers = True
    lone.turn()
    assert lone.replies[0] == HeartbeatReply(Term(2), Round(0), *NO_HASH)


def test_reads_wait_for_a_commit_of_the_own_term():
    """faults 33; paper §8"""
    lone = Lone(log=[1, 1])
    lone.lead()
    lone.raft.request_read(1)
    lone.turn()
    for sender in ("b", "c"):
        assert not lone.says(sender, echo(lone, lone.office.last_round)).reads_ready
    lone.acknowledge("b")
    (ready,) = lone.says("b", echo(lone, lone.office.last_round)).reads_ready
    assert ready.index == 3


def test_a_read_that_may_not_be_served_yet_sends_no_round():
    """Else every turn until the no-op is committed would send one more."""
    lone = Lone()
    lone.lead()
    lone.elapse(100_000)
    lone.forget()
    lone.raft.request_read(1)
    lone.turn()
    assert lone.sent(Heartbeat) == []


def test_many_reads_go_with_few_rounds():
    lone = serving_leader(settings=RaftSettings(inflight_rounds_max=2))
    before = lone.office.last_round
    for read_id in range(20):
        lone.raft.request_read(read_id)
        lone.turn()
    assert lone.office.last_round <= before + 2
    ready = lone.says("b", echo(lone, lone.office.last_round)).reads_ready
    ready += lone.says("b", echo(lone, lone.office.last_round)).reads_ready
    assert [one.read_id for one in ready] == list(range(20))


def test_rounds_that_nobody_echoes_do_not_pile_up_and_lose_no_read():
    lone = serving_leader(others="abcde", settings=RaftSettings(inflight_rounds_max=2, election_timeout_ms=10_000))
    lone.acknowledge("c")
    for read_id in range(30):
        lone.raft.request_read(read_id)
        lone.elapse(100_000)
    assert len(lone.office.rounds) <= 4
    lone.says("b", echo(lone, lone.office.last_round))
    ready = lone.says("c", echo(lone, lone.office.last_round)).reads_ready
    assert [one.read_id for one in ready] == list(range(30)), "also where both of two that are joined had some"


def test_a_read_that_was_handed_to_a_later_round_waits_for_that_one():
    """faults 34: the rounds that stay were sent before it came, and their echoes prove nothing to it."""
    lone = serving_leader(settings=RaftSettings(inflight_rounds_max=1, election_timeout_ms=10_000))
    lone.elapse(100_000)
    sent_before = lone.office.last_round
    lone.raft.request_read(1)
    for _ in range(5):
        lone.elapse(100_000)
    assert lone.office.rounds[0].round <= sent_before
    for round in range(lone.office.rounds[0].round, sent_before + 1):
        assert not lone.says("b", echo(lone, round)).reads_ready
    (ready,) = lone.says("b", echo(lone, lone.office.last_round)).reads_ready
    assert ready.read_id == 1


def test_a_read_that_came_when_rounds_had_piled_up_waits_for_its_own():
    """faults 34: the round before was sent before the read came."""
    lone = serving_leader(settings=RaftSettings(inflight_rounds_max=1, election_timeout_ms=10_000))
    for _ in range(4):
        lone.elapse(100_000)
    lone.raft.request_read(1)
    sent_before = lone.office.last_round
    lone.elapse(100_000)
    assert lone.office.last_round == sent_before + 1
    assert not lone.says("b", echo(lone, sent_before)).reads_ready
    (ready,) = lone.says("b", echo(lone, sent_before + 1)).reads_ready
    assert ready.read_id == 1


def test_a_read_waits_for_all_that_was_committed_whatever_is_applied():
    """faults 35: a leader that applies slowly tells itself and its followers how far they must be to answer."""
    lone = serving_leader(settings=RaftSettings(apply_entries_max=1))
    lone.raft.propose([b"x"] * 10)
    lone.turn()
    lone.acknowledge("b")
    committed = lone.raft.commit_index
    lone.raft.request_read(1)
    lone.hears("c", ReadIndexRequest(lone.raft.term, 7))
    lone.turn()
    lone.forget()
    (ready,) = lone.says("b", echo(lone, lone.office.last_round)).reads_ready
    assert lone.raft.applied_index < committed == ready.index == 11
    assert lone.reply == ReadIndexReply(lone.raft.term, 7, confirmed=True, index=committed)


def test_a_majority_that_shrinks_releases_the_reads_that_wait():
    """faults 37: those who have echoed already are enough now, and nobody else may ever answer."""
    lone = serving_leader(others="abcde")
    lone.acknowledge("c")
    lone.raft.request_read(1)
    lone.turn()
    assert not lone.says("b", echo(lone, lone.office.last_round)).reads_ready
    lone.raft.state.append([configuration_entry(lone.raft.last_index + 1, lone.raft.term, voters("a", "b", "c"))])
    (ready,) = lone.turn().reads_ready
    assert ready.read_id == 1


def test_losing_office_fails_every_read_once():
    """faults 35, 14: those not yet sent, those on their way, and those that followers asked for."""
    lone = serving_leader()
    lone.raft.request_read(1)
    lone.turn()
    lone.says("c", ReadIndexRequest(lone.raft.term, 5))
    lone.raft.request_read(2)
    lone.forget()
    lone.says("b", Heartbeat(Term(9), NONE, NONE, Round(1), 0, 0))
    assert sorted(lone.effects.reads_failed) == [1, 2]
    assert ReadIndexReply(Term(9), 5, confirmed=False, index=NONE) in lone.replies
    assert lone.turn().reads_failed == []


def test_a_leader_alone_confirms_its_own_rounds():
    lone = Lone(others="a")
    lone.stand()
    lone.raft.request_read(1)
    (ready,) = lone.turn().reads_ready
    assert ready.index == 1


# --------------------------------------------------------------------------------------- followers


def test_a_followers_read_is_answered_by_the_leaders_index():
    lone = Lone()
    lone.follow("b", 1)
    lone.raft.request_read(4)
    lone.turn()
    assert lone.requests(ReadIndexRequest, "b") == [ReadIndexRequest(Term(1), 4)]
    (ready,) = lone.says("b", ReadIndexReply(Term(1), 4, confirmed=True, index=Index(6))).reads_ready
    assert (ready.read_id, ready.index) == (4, 6)


def test_a_doubled_or_unasked_reply_readies_nothing():
    """faults 34"""
    lone = Lone()
    lone.follow("b", 1)
    lone.raft.request_read(4)
    lone.turn()
    reply = ReadIndexReply(Term(1), 4, confirmed=True, index=Index(6))
    assert not lone.says("c", reply).reads_ready, "c was not asked"
    assert lone.says("b", reply).reads_ready
    assert not lone.says("b", reply).reads_ready


def test_a_higher_term_in_the_leaders_reply_is_adopted():
    """Paper §5.1"""
    lone = Lone()
    lone.follow("b", 1)
    lone.raft.request_read(4)
    lone.turn()
    assert lone.says("b", ReadIndexReply(Term(3), 4, confirmed=False, index=NONE)).reads_failed == [4]
    assert lone.raft.term == 3


def test_a_followers_read_fails_with_its_leader():
    """Without one, when it is gone, when the link breaks, when nothing comes for E."""
    lone = Lone()
    lone.raft.request_read(1)
    assert lone.turn().reads_failed == [1]
    lone.follow("b", 1)
    lone.raft.request_read(2)
    lone.turn()
    lone.raft.delivery_failed(lone.sent(ReadIndexRequest)[-1])
    assert lone.turn().reads_failed == [2]
    lone.raft.request_read(3)
    lone.turn()
    lone.follow("c", 2)
    assert lone.elapse(0).reads_failed == [3]
    lone.raft.request_read(4)
    lone.turn()
    lone.elapse(E_US - 1)
    lone.follow("c", 2)
    assert lone.elapse(1).reads_failed == [4]


def test_a_leader_refuses_a_read_of_another_term():
    lone = serving_leader()
    lone.forget()
    lone.says("b", ReadIndexRequest(Term(lone.raft.term - 1), 5))
    assert lone.reply == ReadIndexReply(lone.raft.term, 5, confirmed=False, index=NONE)


# --------------------------------------------------------------------------------------- staleness


def test_a_new_leader_does_not_call_its_old_commit_fresh():
    """Before its no-op commits it does not know what its predecessor acknowledged, however many echo its rounds."""
    lone = Lone(log=[1, 1])
    lone.says("b", AppendEntries(Term(1), Index(2), Term(1), Index(1), []))
    assert lone.raft.applied_index == 1
    lone.lead()
    lone.elapse(1000)
    lone.says("b", echo(lone, lone.office.last_round))
    assert lone.raft.state.staleness_us is None, "entry 2 may have been acknowledged long ago"
    lone.acknowledge("b")
    assert lone.raft.state.staleness_us == 0


def test_a_follower_of_a_new_leader_is_not_fresh_before_the_no_op_is_applied():
    """The leader's heartbeat names what must be applied here: its no-op at least."""
    leader = Lone(log=[1, 1])
    leader.lead()
    leader.elapse(1000)
    leader.says("b", echo(leader, leader.office.last_round))
    leader.forget()
    leader.elapse(100_000)
    (heartbeat,) = leader.requests(Heartbeat, "b")
    assert heartbeat.leader_commit == 3, "the no-op's index, though nothing of this term is committed yet"

    follower = Lone("b", log=[1, 1])
    follower.now_us = 5_000_000
    follower.elapse(0)
    heartbeat.dated_life, heartbeat.dated_us = follower.raft.state.life, follower.now_us
    follower.says("a", AppendEntries(Term(2), Index(2), Term(1), Index(2), []))
    follower.says("a", heartbeat)
    assert follower.raft.applied_index == 2
    assert follower.raft.state.staleness_us is None
    follower.says("a", AppendEntries(Term(2), Index(2), Term(1), Index(3), entries([2], first=3)))
    assert follower.raft.applied_index == 3
    assert follower.raft.state.staleness_us == 0


def test_a_leader_is_as_fresh_as_the_sending_of_its_newest_confirmed_round():
    """When the echo came says nothing: another may lead, and have acknowledged writes, since the round was heard."""
    lone = serving_leader()
    lone.elapse(100_000)
    sent_round = lone.office.last_round
    lone.elapse(40_000)
    assert lone.office.last_round == sent_round
    lone.says("b", echo(lone, sent_round))
    assert lone.raft.state.staleness_us == 40_000


def test_before_a_round_is_confirmed_a_heartbeat_claims_no_freshness():
    """A late vote can make a leader of whom another has long taken over: its term's start proves nothing."""
    lone = Lone(log=[1, 1])
    lone.elapse(50_000_000)
    lone.lead()
    lone.elapse(0)
    assert lone.requests(Heartbeat, B)[-1].dated_life == 0


def test_a_heartbeat_is_dated_by_the_echo_that_came_before_the_confirmed_round():
    """What the follower's clock showed when it heard that round, and, as the slowest clock shows it, the time from
    its echo to the later round.
    """
    lone = Lone()
    lone.lead()
    lone.elapse(1000)
    first = lone.office.last_round
    lone.elapse(7_000)
    lone.says("b", echo(lone, first, life=8, heard_us=5_000_000))
    lone.elapse(93_000)
    second = lone.office.last_round
    assert second == first + 1
    lone.says("b", echo(lone, second, life=8, heard_us=9_000_000))
    lone.forget()
    lone.elapse(100_000)
    (to_b,) = lone.requests(Heartbeat, "b")
    (to_c,) = lone.requests(Heartbeat, "c")
    passed_us = rules.passed_elsewhere_us(passed_us=93_000, clock_drift_max_per_mille=100)
    assert (to_b.dated_life, to_b.dated_us) == (8, 5_000_000 + passed_us)
    assert to_c.dated_life == 0, "it has echoed nothing, so nothing can be dated for it"


def followed(passed_us: int) -> Lone:
    """A follower that heard a first round of term 1 at 0 by its clock, so long ago."""
    lone = Lone()
    lone.says("b", Heartbeat(Term(1), NONE, NONE, Round(1), 0, 0))
    lone.elapse(passed_us)
    return lone


def dated(lone: Lone, round: int, dated_us: int, *, term: int = 1, commit: int = 0, life: int | None = None) -> None:
    """A heartbeat comes whose newest confirmed round was sent when this node's clock showed that, or later."""
    of_life = lone.raft.state.life if life is None else life
    lone.says("b", Heartbeat(Term(term), NONE, Index(commit), Round(round), of_life, dated_us))


def test_an_echo_says_when_the_round_was_heard():
    lone = followed(70_000)
    lone.forget()
    lone.says("b", Heartbeat(Term(1), NONE, NONE, Round(2), 0, 0))
    reply = lone.reply
    assert (reply.life, reply.heard_us) == (lone.raft.state.life, 70_000)


def test_staleness_grows_with_time_and_shrinks_with_news():
    lone = followed(20_000)
    dated(lone, 2, 0)
    assert lone.raft.state.staleness_us == 20_000
    lone.elapse(30_000)
    assert lone.raft.state.staleness_us == 50_000
    dated(lone, 3, 40_000)
    assert lone.raft.state.staleness_us == 10_000
    dated(lone, 4, 50_000, commit=9)
    assert lone.raft.state.staleness_us == 10_000, "what would be fresher is not applied here"


def test_a_heartbeat_that_lay_in_a_buffer_makes_nothing_fresh():
    """faults 23: a process is stopped and continued; the leader's word of long ago is the first that it hears."""
    lone = followed(100_000)
    lone.elapse(30_000_000)
    dated(lone, 2, 50_000)
    assert lone.raft.state.staleness_us == 30_050_000


def test_a_date_from_an_earlier_life_is_void():
    """The machine was started anew, its clock began anew, and a doubled heartbeat brings the old clock's reading."""
    lone = followed(100_000)
    dated(lone, 2, 90_000, life=lone.raft.state.life + 1)
    assert lone.raft.state.staleness_us is None
    dated(lone, 3, 90_000)
    assert lone.raft.state.staleness_us == 10_000


def test_a_restarted_node_has_another_life():
    first, second = Lone(), Lone()
    second.now_us = 7
    second.raft = Raft(second.me, RaftSettings(), second.saved, Random(1))
    second.elapse(0)
    assert first.raft.state.life != second.raft.state.life
    assert first.raft.state.life > 0


def test_a_date_that_lies_ahead_is_no_fresher_than_now():
    """The leader's clock may run faster than ours."""
    lone = followed(100_000)
    dated(lone, 2, 150_000)
    assert lone.raft.state.staleness_us == 0
    lone.elapse(100_000)
    assert lone.raft.state.staleness_us == 100_000


def test_a_late_echo_takes_no_round_back():
    """faults 34: neither the round itself nor when its echo came, nor what was promised with it."""
    lone = Lone()
    lone.lead()
    lone.elapse(1000)
    first = lone.office.last_round
    lone.elapse(100_000)
    second = lone.office.last_round
    assert second > first
    lone.says("b", echo(lone, second))
    progress = lone.office.progress[NodeId("b")]
    known = progress.echo
    assert known.round == second
    lone.elapse(1000)
    lone.says("b", echo(lone, first))
    lone.says("b", echo(lone, second))
    assert progress.echo is known


def test_who_decides_alone_knows_nothing_before_its_no_op_is_committed():
    """What an earlier life acknowledged stands in its log; it has committed and applied none of that yet."""
    lone = Lone(others="a", log=[1, 1])
    lone.disk_answers = False
    lone.stand()
    lone.sync()
    lone.turn()
    assert lone.raft.role is Role.LEADER
    assert lone.raft.commit_index == lone.raft.applied_index == 0
    assert lone.raft.state.staleness_us is None
    lone.sync()
    lone.turn()
    assert lone.raft.applied_index == 3
    assert lone.raft.state.staleness_us == 0


def test_who_decides_alone_is_stale_while_it_has_not_applied_all():
    lone = Lone(others="a", log=[1, 1], settings=RaftSettings(apply_entries_max=1))
    lone.stand()
    assert lone.raft.commit_index == 3
    while lone.raft.applied_index < 3:
        assert lone.raft.state.staleness_us is None
        lone.turn()
    assert lone.raft.state.staleness_us == 0


@pytest.mark.parametrize("late_commit", [0, 1, 2])
def test_late_news_takes_no_freshness_back(late_commit):
    lone = followed(100_000)
    lone.says("b", AppendEntries(Term(1), NONE, NO_TERM, Index(1), entries([1])))
    assert lone.raft.applied_index == 1
    dated(lone, 5, 90_000, commit=1)
    dated(lone, 4, 40_000, commit=late_commit)
    assert lone.raft.state.staleness_us == 10_000


def test_late_news_says_more_to_who_lags():
    """What is newer is not applied here yet: what comes late is all that can be said, until it is."""
    lone = followed(100_000)
    dated(lone, 5, 90_000, commit=1)
    dated(lone, 4, 40_000, commit=0)
    assert lone.raft.state.staleness_us == 60_000
    lone.says("b", AppendEntries(Term(1), NONE, NO_TERM, Index(1), entries([1])))
    assert lone.raft.state.staleness_us == 10_000


def test_of_two_words_of_one_date_the_one_that_asks_for_less_counts():
    lone = followed(100_000)
    dated(lone, 5, 90_000, commit=1)
    dated(lone, 6, 90_000, commit=0)
    assert lone.raft.state.staleness_us == 10_000


def test_a_node_that_always_lags_a_little_is_a_little_stale():
    """Many rounds a second, each with a later commit: those that it will have applied soon are not forgotten first."""
    lone = Lone()
    lone.says("b", AppendEntries(Term(1), NONE, NO_TERM, NONE, entries([1] * 2000)))
    lag = 200
    for step in range(1, 1800):
        lone.elapse(500)
        dated(lone, step, lone.now_us, commit=step)
        applied = Index(max(0, step - lag))
        lone.says("b", AppendEntries(Term(1), Index(2000), Term(1), applied, []))
        staleness_us = lone.raft.state.staleness_us
        if step > 2 * lag:
            assert staleness_us is not None
            assert staleness_us <= 2 * lag * 500 + 1000


def test_rounds_are_confirmed_though_a_round_trip_is_longer_than_many_heartbeats():
    """Each echo is of a round sent ten heartbeats ago; a read must not wait for ever for that of the newest."""
    lone = serving_leader(settings=RaftSettings(heartbeat_ms=10, election_timeout_ms=1000))
    echoes: list[HeartbeatReply] = []
    lone.raft.request_read(1)
    ready = lone.turn().reads_ready
    for _ in range(60):
        lone.elapse(10_000)
        echoes.append(echo(lone, lone.office.last_round))
        if len(echoes) > 10:
            ready += lone.says("b", echoes.pop(0)).reads_ready
    assert [one.read_id for one in ready] == [1]


def test_an_echo_of_a_round_that_was_never_sent_is_refused():
    """It would confirm rounds to come."""
    lone = serving_leader()
    with pytest.raises(MessageError):
        lone.hears("b", echo(lone, lone.office.last_round + 1))
    lone.raft.request_read(1)
    assert not lone.turn().reads_ready
