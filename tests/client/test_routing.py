"""Who is believed to lead, and who is asked."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from raftkv.client.course import view_of
from raftkv.client.results import ClusterStatus, Member
from raftkv.client.routing import SHUNNED_US, SHUNNED_US_MAX, TRIED_US, Routing, View
from raftkv.values import Address

A, B, C, D, X = (Address(name, 7400) for name in ("a", "b", "c", "d", "x"))


def routing(*endpoints: Address) -> Routing:
    return Routing(endpoints or (A,), Random(1))


def view(leader: Address | None = None, *, term: int = 5, voters=(A, B, C), learners=(), cluster="k") -> View:
    return View(cluster, term, leader, tuple(voters), tuple(learners))


def led_by(leader: Address, term: int = 5) -> Routing:
    one = routing()
    one.hear(view(leader, term=term), 0)
    assert (one.leader, one.term) == (leader, term)
    return one


def test_members_are_learned():
    one = routing(A, X)
    one.hear(view(learners=[D]), 0)
    assert one.everybody() == (A, B, C, D, X)
    assert [one.is_known(each) for each in (A, D, X, Address("y", 1))] == [True, True, True, False]


def test_a_member_that_is_gone_is_known_no_more():
    one = led_by(A)
    one.hear(view(A, term=6, voters=[A, D, X]), 0)
    assert not one.is_known(B)


def test_members_of_an_earlier_term_are_not_listened_to():
    """A node that was cut off tells who they were then."""
    one = led_by(A)
    one.hear(view(term=4, voters=[A, D, X]), 0)
    assert one.everybody() == (A, B, C)


def test_a_member_that_a_node_has_not_heard_from_yet_is_a_member_all_the_same():
    """A node that was started just now tells null for the others; it may be gone again before anybody is asked anew."""
    one = led_by(A)
    one.hear(replace(view(A, voters=[A], learners=[D]), is_whole=False), 0)
    assert [one.is_known(each) for each in (A, B, C, D)] == [True] * 4
    one.hear(view(A, voters=[A, B]), 0)
    assert [one.is_known(each) for each in (A, B, C, D)] == [True, True, False, False]


def test_who_is_no_member_any_more_is_forgotten_also_as_one_to_be_shunned():
    one = led_by(A)
    one.lose(B, 0)
    one.hear(view(A, voters=[A, C]), 0)
    one.hear(view(A), 1)
    assert B in {one.anybody(1) for _ in range(9)}


def test_urls_that_are_none_make_a_view_that_is_not_whole():
    members = (Member("a", "http://a:7400", None, None), Member("b", None, None, None))
    for voters, learners, is_whole in ((members, (), False), ((), members, False), (members[:1], members[:1], True)):
        told = view_of(ClusterStatus("k", 5, "a", voters, learners, is_changing=False))
        assert (told.is_whole, told.leader) == (is_whole, A)


@pytest.mark.parametrize(
    ("leader", "term", "believed"),
    [(B, 6, B), (B, 5, B), (B, 4, A), (X, 6, A), (A, 6, A)],
    ids=["later", "same term: it moved", "earlier", "unknown", "itself"],
)
def test_a_leader_is_believed_until_a_later_one_is_heard_of(leader, term, believed):
    one = led_by(A)
    one.hear_of_leader(leader, term, 0)
    assert one.leader == believed


def test_a_lost_leader_leaves_room_for_anybody():
    one = led_by(A, term=900)
    one.lose_leader(B)
    assert one.leader == A
    one.lose_leader(A)
    assert one.hear_of_leader(B, 3, 0)
    assert one.leader == B


def test_a_leader_that_cannot_be_reached_is_believed_in_again_after_a_while_or_in_a_later_term():
    """A follower names a dead leader for up to an election timeout."""
    one = led_by(A)
    one.lose(A, 1_000)
    assert one.leader is None
    assert not one.hear_of_leader(A, 5, 1_000 + SHUNNED_US - 1)
    assert one.hear_of_leader(A, 6, 1_001)
    two = led_by(A)
    two.lose(A, 1_000)
    assert two.hear_of_leader(A, 5, 1_000 + SHUNNED_US)
    three = led_by(A)
    three.lose(A, 1_000)
    three.find(A)
    assert three.hear_of_leader(A, 5, 1_001)


def test_a_node_whose_reads_hang_is_left_out_though_it_tells_of_its_cluster_and_may_lead_it():
    one, now_us = led_by(A), 0
    for times in range(3):
        one.lose(B, now_us, is_silent=True)
        assert not one.hear_of_leader(B, 5, now_us + 1)
        one.reach(B)
        assert one.hear_of_leader(B, 5, now_us + 1)
        now_us += 2**times * SHUNNED_US
        assert {one.anybody(now_us - 1) for _ in range(9)} == {A, C}, "longer each time"
        assert B in {one.anybody(now_us) for _ in range(9)}
    one.find(B)
    assert B in {one.anybody(1) for _ in range(9)}


def test_many_reads_that_hang_at_once_are_one_silence():
    """A node that was silent for a moment is not left out for as long as one that was tried again and again."""
    one = led_by(A)
    for sent_us in range(30):
        one.lose(B, sent_us, is_silent=True)
    assert B not in {one.anybody(29 + SHUNNED_US - 1) for _ in range(9)}
    assert B in {one.anybody(29 + SHUNNED_US) for _ in range(9)}


def test_a_node_that_was_left_out_is_tried_by_one_read_and_by_the_next_after_a_while():
    """Else, whenever its time is over, everything that a program asks at once waits for a node that hangs."""
    one = led_by(A)
    one.lose(B, 0, is_silent=True)
    assert [one.anybody(SHUNNED_US) for _ in range(30)].count(B) == 1
    assert one.hear_of_leader(B, 5, SHUNNED_US), "its time is over"
    assert B not in {one.anybody(SHUNNED_US + TRIED_US - 1) for _ in range(30)}
    assert [one.anybody(SHUNNED_US + TRIED_US) for _ in range(30)].count(B) == 1, "nothing was heard of the first"
    one.find(B)
    assert [one.anybody(SHUNNED_US + TRIED_US) for _ in range(30)].count(B) == 10


def test_a_node_that_was_not_to_be_reached_and_tells_of_its_cluster_is_there_again():
    one = led_by(A)
    one.lose(B, 0)
    one.reach(B)
    assert B in {one.anybody(1) for _ in range(9)}


def test_who_stays_away_is_shunned_longer_up_to_a_bound():
    one, now_us, lengths = led_by(A), 0, []
    for _ in range(20):
        one.lose(A, now_us)
        began_us = now_us
        while not one.hear_of_leader(A, 5, now_us):
            now_us += SHUNNED_US
        lengths.append(now_us - began_us)
    assert lengths[:3] == [SHUNNED_US, 2 * SHUNNED_US, 4 * SHUNNED_US]
    assert max(lengths) <= SHUNNED_US_MAX + SHUNNED_US


def test_reads_that_anybody_may_answer_are_spread_over_the_voters():
    one = routing(A, X)
    assert {one.anybody(0) for _ in range(4)} == {A, X}
    one.hear(view(learners=[D]), 0)
    asked = [one.anybody(0) for _ in range(300)]
    assert {node: asked.count(node) for node in set(asked)} == {A: 100, B: 100, C: 100}


def test_a_node_that_is_down_is_left_out_where_there_is_another():
    one = led_by(A)
    one.lose(B, 0)
    assert {one.anybody(1) for _ in range(9)} == {A, C}
    one.lose(A, 0)
    one.lose(C, 0)
    assert {one.anybody(1) for _ in range(9)} == {A, B, C}


def test_clients_begin_at_different_nodes():
    assert len({Routing((A, B, C), Random(seed)).anybody(0) for seed in range(20)}) == 3


def test_a_node_of_another_cluster_is_not_listened_to():
    """faults 32."""
    one = led_by(A)
    one.hear(view(X, term=99, voters=[X], cluster="other"), 0)
    assert (one.leader, one.is_known(X)) == (A, False)
    one.hear(view(B, term=6, cluster=None), 0)
    assert one.leader == B
