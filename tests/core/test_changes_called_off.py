"""A change of members that is called off while its learners catch up (thesis §4.2.1)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from raftkv.core.membership import Configurations
from raftkv.core.messages import AppendEntries, AppendEntriesReply
from raftkv.core.types import Configuration, Incarnation, Index, Member, NodeId, Term
from raftkv.errors import ChangeRefused, ChangeWhy, NotLeader
from tests.core.lone import NO_TERM, NONE, B, Lone, configuration_entry
from tests.core.test_changes import D, beats, begin, led, refusal
from tests.core.test_membership_rules import members

EMPTIED = Incarnation(b"an emptied disk.")


def not_called_off(lone: Lone, node: NodeId) -> ChangeWhy:
    last = lone.raft.last_index
    with pytest.raises(ChangeRefused) as raised:
        lone.raft.call_off_change(node)
    assert lone.raft.last_index == last, "nothing was appended"
    return raised.value.why


def test_a_change_that_catches_up_is_called_off_by_one_entry():
    """Nothing of it is left: who was to leave stays, and another change may begin when that is committed."""
    lone = led()
    begin(lone, members("abde", "y"), deadline_ms=1000)
    lone.acknowledge("b", "c")
    index = lone.raft.call_off_change(NodeId("e"))
    lone.turn()
    assert (index, lone.raft.configuration.current) == (lone.raft.last_index, members("abc"))
    assert lone.raft.configuration.called_off == (D, NodeId("e"))
    assert refusal(lone, members("abcd")) is ChangeWhy.IN_PROGRESS
    lone.acknowledge("b")
    begin(lone, members("abcd"))


def test_only_a_leader_that_hands_over_to_nobody_calls_off():
    lone = Lone("a", "abc")
    with pytest.raises(NotLeader):
        lone.raft.call_off_change(D)
    lone = led()
    begin(lone, members("abcd"))
    lone.acknowledge("b", "c")
    lone.raft.transfer_leadership(B)
    with pytest.raises(NotLeader):
        lone.raft.call_off_change(D)


def test_what_is_not_known_to_be_committed_is_not_called_off_yet():
    """Faults 24: of the change, or of this leader's own term."""
    lone = led()
    begin(lone, members("abcd"))
    assert not_called_off(lone, D) is ChangeWhy.NOT_READY
    lone.acknowledge("b")
    lone.raft.call_off_change(D)


def test_promoted_or_called_off_never_both():
    """Faults 24, 26: whichever entry comes first, the other is refused."""
    lone = led()
    begin(lone, members("abcd"))
    lone.acknowledge("b", "c")
    lone.hears("d", AppendEntriesReply(lone.raft.term, True, NONE, lone.raft.last_index, NO_TERM, NONE))
    lone.raft.call_off_change(D)
    lone.turn()
    lone.acknowledge("d")
    beats(lone, "b", "c", "d", count=2)
    assert lone.raft.configuration.current == members("abc"), "it had caught up, and is let go all the same"

    lone = led()
    begin(lone, members("abcd"))
    lone.acknowledge("b", "c", "d")
    assert lone.raft.configuration.is_joint
    assert not_called_off(lone, D) is ChangeWhy.BAD
    lone.acknowledge("b", "c", "d")
    assert not_called_off(lone, D) is ChangeWhy.BAD
    lone.acknowledge("b", "c", "d")
    assert lone.raft.configuration == Configuration(members("abcd"))


def test_a_successor_calls_off_what_another_began():
    lone = Lone("a", "abc", log=[1, 1])
    lone.raft.state.configurations = Configurations(NONE, Configuration(members("abc", to_vote="d")))
    lone.lead()
    assert not_called_off(lone, D) is ChangeWhy.NOT_READY
    lone.acknowledge("b", "c")
    lone.raft.call_off_change(D)
    lone.turn()
    assert lone.raft.configuration.current == members("abc")
    assert D in lone.raft.contacts, "it is told"


def test_who_was_let_go_knows_it_from_its_log_and_who_comes_after_it_under_its_id_does_not():
    """Faults 31: a new d, its disk empty, receives on its way in what became of the old one."""
    let_in, ended = members("abc", to_vote="d"), Configuration(members("abc"), called_off=(D,))
    another = replace(let_in, learners=(replace(let_in.learners[0], member=Member(D, EMPTIED, "http://d")),))
    for listed, knows in ((let_in, True), (another, False)):
        lone = Lone("d", "abc")
        came = [Configuration(listed), ended, Configuration(let_in)]
        frames = [configuration_entry(index, 1, one) for index, one in enumerate(came, 1)]
        seen = []
        for commit in (1, 2, 3):
            lone.says("a", AppendEntries(Term(1), NONE, NO_TERM, Index(commit), [*frames]))
            seen.append(lone.raft.was_let_go)
        assert seen == [False, knows, False]


def test_who_is_to_vote_after_all_catches_up_anew():
    """Thesis §4.2.1: what a learner had caught up with before it was called off says nothing of what came since."""
    lone = led()
    begin(lone, members("abc", "y"))
    lone.acknowledge("b", "c", "y")
    begin(lone, members("abcy"))
    lone.acknowledge("b", "c")
    lone.hears("y", AppendEntriesReply(lone.raft.term, True, NONE, lone.raft.last_index, NO_TERM, NONE))
    lone.raft.call_off_change(NodeId("y"))
    lone.turn()
    lone.acknowledge("b", "c")
    begin(lone, members("abcy"))
    lone.acknowledge("b", "c")
    beats(lone, "b", "c", "y", count=1)
    assert not lone.raft.configuration.is_joint
    lone.acknowledge("y")
    assert lone.raft.configuration.is_joint
