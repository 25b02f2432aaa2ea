"""In joint consensus every question is put to both sets, whoever asks: votes, commits, reads, contact (paper §6)."""

from __future__ import annotations

import pytest

from raftkv.core.messages import AppendEntriesReply, PreVoteReply, RequestVoteReply
from raftkv.core.types import Configuration, Index, Term
from tests.core.lone import E_US, NO_TERM, NONE, Lone
from tests.core.test_changes import beats, begin, echo, led
from tests.core.test_changes_between import between
from tests.core.test_membership_rules import members

ONE_SET_EACH = [("bc", "d"), ("de", "b")]
"""Of a b c and the new a d e: whose word gives a majority of one set, and whose then that of the other."""


def in_joint_consensus() -> Lone:
    """It leads, and C_old,new of a b c and a d e stands at the end of its log, acknowledged by nobody."""
    lone = led()
    begin(lone, members("ade"))
    beats(lone, "b", "c", "d", "e")
    lone.acknowledge("b", "c", "d", "e")
    beats(lone, "b", "c", "d", "e")
    lone.elapse(1_000)
    assert lone.raft.configuration.is_joint and not lone.raft.state.configuration_is_committed
    return lone


@pytest.mark.parametrize(("first", "then"), ONE_SET_EACH)
def test_an_election_is_won_in_both_sets(first, then):
    """Faults 24: else each set could have a leader of its own."""
    lone = Lone("a", "abc")
    between(lone, Configuration(members("abc")), Configuration(members("ade"), outgoing=members("abc")))
    lone.elapse(2 * E_US)
    proposed = Term(lone.raft.term + 1)
    for name in first:
        lone.says(name, PreVoteReply(proposed, proposed, granted=True))
    assert lone.raft.term < proposed
    lone.says(then, PreVoteReply(proposed, proposed, granted=True))
    assert (lone.role, lone.raft.term) == ("candidate", proposed)
    for name in first:
        lone.says(name, RequestVoteReply(proposed, granted=True))
    assert lone.role == "candidate"
    lone.says(then, RequestVoteReply(proposed, granted=True))
    assert lone.role == "leader"


@pytest.mark.parametrize(("first", "then"), ONE_SET_EACH)
def test_what_both_sets_hold_is_committed(first, then):
    """Faults 24, 25"""
    lone = in_joint_consensus()
    last, committed = lone.raft.last_index, lone.raft.commit_index
    for name in first:
        lone.says(name, AppendEntriesReply(lone.raft.term, True, NONE, last, NO_TERM, NONE))
    assert lone.raft.commit_index == committed < last
    lone.says(then, AppendEntriesReply(lone.raft.term, True, NONE, last, NO_TERM, NONE))
    assert lone.raft.commit_index == last


@pytest.mark.parametrize(("first", "then"), ONE_SET_EACH)
def test_a_read_is_confirmed_by_both_sets(first, then):
    """Faults 33, 35"""
    lone = in_joint_consensus()
    lone.raft.request_read(7)
    assert lone.turn().reads_ready == []
    for name in first:
        echo(lone, name)
        assert lone.effects.reads_ready == []
    echo(lone, then)
    assert [ready.read_id for ready in lone.effects.reads_ready] == [7]


@pytest.mark.parametrize(("silent", "leads"), [("bc", False), ("de", False), ("be", True)])
def test_who_hears_one_set_only_leads_no_more(silent, leads):
    """Thesis §6.2, faults 18."""
    lone = in_joint_consensus()
    for _ in range(3):
        lone.elapse(E_US // 3)
        for name in set("bcde") - set(silent) if lone.role == "leader" else ():
            echo(lone, name)
    assert (lone.role == "leader") is leads


@pytest.mark.parametrize(("later_us", "leads"), [(E_US - 200_001, True), (E_US - 200_000, False)])
def test_from_its_beginning_a_change_needs_contact_with_both_sets(later_us, leads):
    """Thesis §6.2, faults 18, 24: what was known of contact with the old set says nothing of the new one."""
    lone = led()
    beats(lone, "b", "c")
    beats(lone, "c", count=2)
    begin(lone, members("ab"), force=True)
    assert lone.raft.configuration.is_joint
    lone.elapse(later_us)
    assert (lone.role == "leader") is leads


def test_where_an_entry_of_the_new_set_alone_stands_on_most_nodes_it_is_not_committed():
    """Of three and two more, the two and the leader are most of the new five: a majority of the old is needed, too."""
    lone = led()
    begin(lone, members("abcde"))
    beats(lone, "b", "c", "d", "e")
    lone.acknowledge("b", "c", "d", "e")
    assert lone.raft.configuration.is_joint
    lone.acknowledge("d", "e")
    assert lone.raft.commit_index < lone.raft.last_index
    lone.acknowledge("c")
    assert lone.raft.commit_index >= Index(3)
