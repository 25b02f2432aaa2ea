"""What a change came to, as a node tells it that did not see its end: others led, and it hears of much at once."""

from __future__ import annotations

from raftkv.core.effects import LogBase
from raftkv.core.messages import AppendEntriesReply, InstallSnapshot
from raftkv.core.types import Configuration, Index, Role, SnapshotId, Term
from raftkv.members import Add, MembersAre, MembersWhy, Remove
from tests.lone_replica import LoneReplica
from tests.test_changing import (
    SETTINGS,
    D,
    add_d,
    append,
    catching_up,
    configuration_frames,
    leading_three,
    membership,
    named,
    says,
    why_not,
    wish_for,
)


def test_whoever_waits_with_others_is_not_told_superseded_while_the_change_goes_on():
    """faults 25: C_old,new gives way to the successor's first entry, and the successor appends its own."""
    lone = leading_three()
    add_d(lone, "first")
    lone.acknowledge("b", "c")
    begun = lone.raft.last_index
    lone.says("d", AppendEntriesReply(lone.raft.term, True, Index(0), begun, Term(0), Index(0)))
    assert lone.raft.configuration.is_joint and lone.raft.commit_index == begun
    wish_for(lone, "second", D)
    lone.append("b", 2, [None], prev=begun, commit=begun + 1)
    assert (lone.outcome("first"), lone.outcome("second")) == (None, None)
    came = [Configuration(membership("abcd"), outgoing=membership("abc")), Configuration(membership("abcd"))]
    append(lone, 2, configuration_frames(begun + 2, 2, came), prev=begun + 1, commit=begun + 3)
    assert lone.outcome("first") == lone.outcome("second") == MembersAre(changed=True)


def test_who_became_a_voter_and_was_removed_before_this_node_heard_of_it_is_not_said_to_have_failed():
    """faults 50: it did catch up, though all is as before."""
    lone = catching_up()
    begun, abc, abcd = lone.raft.last_index, membership("abc"), membership("abcd")
    came = [Configuration(abcd, abc), Configuration(abcd), Configuration(abc, abcd), Configuration(abc)]
    append(lone, 2, configuration_frames(begun + 1, 2, came), prev=begun, commit=begun + 4)
    assert why_not(lone, "d") is MembersWhy.UNKNOWN


def installing(lone: LoneReplica, configuration: Configuration) -> int:
    """A snapshot of term 2 with this configuration is in place, and no turn has passed since. Returns its index."""
    base = LogBase(Index(lone.raft.last_index + 9), Term(2), configuration)
    snapshot = SnapshotId(base.index, base.term, size_bytes=1, checksum=1)
    lone.says("b", InstallSnapshot(Term(2), snapshot, 0, b"x"))
    (write,) = [write for work in lone.works for write in work.snapshots.writes]
    lone.replica.snapshots.was_received(write, 1, base)
    return base.index


def test_a_snapshot_says_how_the_members_are_and_not_what_became_of_a_change():
    """faults 50"""
    lone = catching_up()
    installing(lone, Configuration(membership("abc")))
    lone.turn()
    assert why_not(lone, "d") is MembersWhy.UNKNOWN


def test_a_snapshot_amid_the_next_change_does_not_say_what_became_of_one_either():
    """faults 50: d became a voter, and is removed again as the snapshot is taken; that change's end is in the log."""
    lone = catching_up()
    abc, abcd = membership("abc"), membership("abcd")
    base = installing(lone, Configuration(abc, abcd))
    lone.turn()
    assert lone.outcome("d") is None
    append(lone, 2, configuration_frames(base + 1, 2, [Configuration(abc)]), prev=base, commit=base + 1)
    assert why_not(lone, "d") is MembersWhy.UNKNOWN


def leading_again(lone: LoneReplica, name: str) -> None:
    """It wins the next election, and nothing of its term is committed when this asker's time is over."""
    lone.win()
    while lone.outcome(name) is None:
        lone.turn(100_000)
        lone.echo("b", "c")
    assert lone.raft.role is Role.LEADER


def test_a_leader_again_whose_log_ends_before_the_change_began_does_not_say_that_it_goes_on():
    """faults 25, 50: what stood before it gave way too, so nothing stands in its place."""
    lone = leading_three()
    lone.submit("x")
    lone.submit("y")
    wish_for(lone, "c", Remove("c"), wait_ms=3_000)
    lone.echo("b")
    lone.turn()
    begun = lone.raft.last_index
    assert lone.raft.configuration.is_joint
    lone.append("b", 2, [None], prev=1, commit=1)
    leading_again(lone, "c")
    assert lone.raft.change_status is None and lone.raft.last_index < begun
    assert why_not(lone, "c") is MembersWhy.UNKNOWN


def test_a_leader_again_amid_the_next_change_does_not_say_that_the_one_before_goes_on():
    """faults 25, 50: d was given up meanwhile, and it is c that goes."""
    lone = catching_up()
    begun, abc = lone.raft.last_index, membership("abc")
    came = [Configuration(abc), Configuration(membership("ab"), abc)]
    append(lone, 2, configuration_frames(begun + 1, 2, came), prev=begun, commit=begun + 2)
    leading_again(lone, "d")
    assert lone.raft.configuration.is_joint
    assert why_not(lone, "d") is MembersWhy.UNKNOWN


def test_what_is_so_already_is_told_by_a_leader_that_others_confirm():
    """faults 35: another may lead by now, and have removed c; nothing was heard of that here."""
    lone = leading_three()
    wish_for(lone, "c", Add(named("c"), votes=True), wait_ms=0)
    wish_for(lone, "x", Remove("x"))
    assert (lone.outcome("c"), lone.outcome("x")) == (None, None)
    lone.echo("c")
    assert lone.outcome("c") == lone.outcome("x") == MembersAre(changed=False)
    wish_for(lone, "late", Add(named("c"), votes=True))
    lone.follow("b", 2)
    assert why_not(lone, "late") is MembersWhy.NOT_LEADER


def test_what_is_on_its_way_and_not_committed_is_not_so_already():
    """faults 50: a majority confirms that this node leads, and may yet lose the entry."""
    lone = leading_three()
    learner = Add(named("d"), votes=False)
    wish_for(lone, "first", learner, {"d": says("d")})
    wish_for(lone, "second", learner)
    for _ in range(3):
        lone.turn(100_000)
        lone.echo("b", "c")
    assert (lone.outcome("first"), lone.outcome("second")) == (None, None)
    lone.acknowledge("b")
    assert lone.outcome("first") == lone.outcome("second") == MembersAre(changed=True)


def test_a_lone_voter_confirms_itself_at_once():
    lone = LoneReplica("a", settings=SETTINGS)
    lone.lead()
    wish_for(lone, "x", Remove("x"), wait_ms=0)
    assert lone.outcome("x") == MembersAre(changed=False)
