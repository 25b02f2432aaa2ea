"""A follower as its leader sees it, the configuration in force, and configurations as bytes."""

from __future__ import annotations

import msgpack
import pytest

from raftkv.core.membership import Configurations
from raftkv.core.progress import Phase, Progress
from raftkv.core.types import (
    Configuration,
    Index,
    Intent,
    Learner,
    Member,
    Membership,
    NodeId,
    cluster_id_of,
    membership_of,
)
from raftkv.errors import MessageError
from tests.core.lone import incarnation_of, voters

# ---------------------------------------------------------------------------------------- progress


def replicating(match: int = 5) -> Progress:
    progress = Progress(next_index=Index(match + 1))
    progress.matched(Index(match))
    return progress


def test_a_probe_goes_out_alone():
    """Paper §5.3"""
    progress = Progress(next_index=Index(6))
    assert progress.may_send(now_us=0, inflight_max=4)
    progress.sent(last_index=Index(9), now_us=0)
    assert not progress.may_send(now_us=0, inflight_max=4)
    assert progress.next_index == 6, "where the logs agree is not known yet"


def test_a_match_ends_the_probing():
    progress = Progress(next_index=Index(6))
    progress.sent(last_index=Index(9), now_us=0)
    progress.matched(Index(7))
    assert (progress.phase, progress.match_index, progress.next_index) == (Phase.REPLICATE, 7, 8)
    assert progress.oldest_send_us() is None


def test_entries_are_sent_ahead_within_bounds():
    """Thesis §10.2.3"""
    progress = replicating(5)
    for last, sent_us in ((7, 10), (8, 20)):
        assert progress.may_send(now_us=0, inflight_max=2)
        progress.sent(last_index=Index(last), now_us=sent_us)
    assert progress.next_index == 9
    assert not progress.may_send(now_us=0, inflight_max=2)
    progress.matched(Index(7))
    assert progress.may_send(now_us=0, inflight_max=2)
    assert progress.oldest_send_us() == 20
    progress.matched(Index(8))
    assert progress.oldest_send_us() is None


def test_one_match_answers_all_that_it_covers():
    """The replies to the others were lost, or come later."""
    progress = replicating(5)
    for last in (7, 8, 9):
        progress.sent(last_index=Index(last), now_us=10)
    progress.matched(Index(9))
    assert progress.oldest_send_us() is None
    assert progress.may_send(now_us=0, inflight_max=1)


@pytest.mark.parametrize("late", [5, 6, 0])
def test_late_and_doubled_matches_take_nothing_back(late):
    """faults 10"""
    progress = replicating(5)
    progress.sent(last_index=Index(7), now_us=10)
    progress.matched(Index(6))
    progress.matched(Index(late))
    assert (progress.match_index, progress.next_index, progress.phase) == (6, 8, Phase.REPLICATE)
    assert progress.oldest_send_us() == 10


def test_probing_again_forgets_what_was_under_way():
    progress = replicating(5)
    progress.sent(last_index=Index(7), now_us=10)
    progress.probe_from(Index(6))
    assert (progress.phase, progress.next_index, progress.match_index) == (Phase.PROBE, 6, 5)
    assert progress.may_send(now_us=0, inflight_max=4)


def test_nothing_is_sent_while_blocked_or_while_the_log_is_read():
    progress = replicating(5)
    progress.blocked_until_us = 100
    assert not progress.may_send(now_us=99, inflight_max=4)
    assert progress.may_send(now_us=100, inflight_max=4)
    progress.reads_log = True
    assert not progress.may_send(now_us=100, inflight_max=4)


def test_entries_that_were_under_way_when_a_snapshot_began_are_not_missed():
    """Faults 41: counted as lost, they would bring the follower back to PROBE and its snapshot to its beginning."""
    progress = replicating(5)
    progress.sent(last_index=Index(7), now_us=10)
    progress.begin_snapshot()
    assert (progress.phase, progress.oldest_send_us()) == (Phase.SNAPSHOT, None)


# --------------------------------------------------------------------------------------- membership


def test_the_newest_configuration_is_in_force_and_gives_way_when_truncated():
    """Paper §6, faults 9 and 28"""
    configurations = Configurations(Index(0), voters("a"))
    configurations.append(Index(3), voters("a", "b"))
    configurations.append(Index(7), voters("a", "b", "c"))
    assert (configurations.voters, configurations.current_index) == (("a", "b", "c"), 7)
    configurations.truncate_from(8)
    assert configurations.current_index == 7
    configurations.truncate_from(7)
    assert (configurations.voters, configurations.current_index) == (("a", "b"), 3)
    configurations.truncate_from(1)
    assert (configurations.voters, configurations.current_index) == (("a",), 0)


@pytest.mark.parametrize(("index", "count"), [(0, 1), (2, 1), (3, 2), (6, 2), (7, 3), (99, 3)])
def test_the_configuration_at_an_index(index, count):
    later = [(Index(3), voters("a", "b")), (Index(7), voters("a", "b", "c"))]
    assert len(Configurations(Index(0), voters("a"), later).at(index).voters()) == count


@pytest.mark.parametrize(("through", "oldest", "current"), [(2, 0, 7), (3, 3, 7), (6, 3, 7), (7, 7, 7), (9, 7, 7)])
def test_a_log_that_begins_later_moves_no_configuration(through, oldest, current):
    """Faults 24: whoever looked at the members, and asks for others in their place, looked at these."""
    later = [(Index(3), voters("a", "b")), (Index(7), voters("a", "b", "c"))]
    configurations = Configurations(Index(0), voters("a"), later)
    configurations.compact(Index(through))
    assert (configurations.oldest_index, configurations.current_index) == (oldest, current)


def test_only_the_very_incarnation_is_listed():
    """faults 31"""
    configurations = Configurations(Index(0), voters("a", "b"))
    assert configurations.is_listed(NodeId("a"), incarnation_of("a"))
    assert not configurations.is_listed(NodeId("a"), incarnation_of("a, emptied"))
    assert not configurations.is_listed(NodeId("x"), incarnation_of("x"))


# -------------------------------------------------------------------------------------------- types


def member(name: str) -> Member:
    return Member(NodeId(name), incarnation_of(name), f"http://{name}")


JOINT = Configuration(
    Membership((member("b"), member("c")), (Learner(member("d"), Intent.VOTER, 500),)),
    Membership((member("a"), member("b")), (Learner(member("e"), Intent.LEARNER, None),)),
)


def test_a_joint_configuration_names_everybody_once_in_order():
    """Paper §6"""
    assert JOINT.is_joint
    assert JOINT.voter_sets() == (frozenset({"b", "c"}), frozenset({"a", "b"}))
    assert JOINT.voters() == ("a", "b", "c")
    assert list(JOINT.members()) == ["a", "b", "c", "d", "e"]


def test_while_both_sets_decide_a_member_is_where_the_new_one_has_it():
    """Else who has moved is not reached until C_new, and where its vote is needed there is never a C_new."""
    moved = Member(NodeId("b"), incarnation_of("b"), "http://b.new")
    joint = Configuration(membership_of([moved, member("c")]), membership_of([member("a"), member("b")]))
    assert joint.members() == {NodeId("a"): member("a"), NodeId("b"): moved, NodeId("c"): member("c")}


@pytest.mark.parametrize("configuration", [voters("a"), voters("a", "b", "c"), JOINT])
def test_a_configuration_comes_back_as_it_was(configuration):
    assert Configuration.decode(configuration.encode()) == configuration


A = ["a", b"i" * 16, "http://a"]


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"\xc1",
        msgpack.packb(None),
        msgpack.packb([1, [[A], []]]),
        msgpack.packb([2, [[A], []], None]),
        msgpack.packb([1, [[A], []], None, None]),
        msgpack.packb([1, None, None]),
        msgpack.packb([1, [[A]], None]),
        msgpack.packb([1, [[["a", "text", "http://a"]], []], None]),
        msgpack.packb([1, [[["a", b"i" * 16]], []], None]),
        msgpack.packb([1, [[[7, b"i" * 16, "http://a"]], []], None]),
        msgpack.packb([1, [[A], [[*A, "king", None]]], None]),
        msgpack.packb([1, [[A], [[*A, "voter", "soon"]]], None]),
        msgpack.packb([1, [[], []], None]),
        msgpack.packb([1, [[A], []], [[], []]]),
        JOINT.encode()[:-1],
        JOINT.encode() + b"\0",
    ],
)
def test_what_is_no_configuration_is_refused(packed):
    """faults 57, 64: and nobody votes is none either, it could decide nothing for ever."""
    with pytest.raises(MessageError):
        Configuration.decode(packed)


def test_a_membership_of_voters_is_sorted():
    assert [one.id for one in membership_of([member("c"), member("a")]).voters] == ["a", "c"]


def test_a_clusters_id_is_that_of_its_members_and_no_others():
    """faults 31, 32"""
    pairs = [(NodeId("a"), incarnation_of("a")), (NodeId("b"), incarnation_of("b"))]
    same = cluster_id_of(reversed(pairs))
    assert cluster_id_of(pairs) == same
    assert len(same) == 16
    assert cluster_id_of([*pairs[:1], (NodeId("b"), incarnation_of("b, emptied"))]) != same
    assert cluster_id_of(pairs[:1]) != same
