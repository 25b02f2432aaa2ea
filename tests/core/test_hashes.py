"""States that ought to be equal (faults 61): what a majority has is right, and who has another leads no more."""

from __future__ import annotations

import pytest

from raftkv.core import transfer
from raftkv.core.messages import AppendEntries, Heartbeat, HeartbeatReply, RequestVote, TimeoutNow, TimeoutNowReply
from raftkv.core.progress import StateHashes
from raftkv.core.types import Configuration, Index, Round, Term, membership_of
from tests.core.lone import E_US, NO_TERM, NONE, Lone, configuration_entry, entries, voters


def at(multiple: int) -> Index:
    return Index(1024 * multiple)


def hash_of(letter: str) -> bytes:
    return letter.encode() * 16


def leading(others: str = "abc") -> Lone:
    lone = Lone(others=others)
    lone.lead()
    lone.elapse(1000)
    return lone


def tells(lone: Lone, name: str, multiple: int, letter: str) -> None:
    round = lone.office.last_round
    lone.says(name, HeartbeatReply(lone.raft.term, round, at(multiple), hash_of(letter)))


def knows(lone: Lone, multiple: int, letter: str) -> None:
    lone.raft.machine_hash(at(multiple), hash_of(letter))


def heartbeat(multiple: int, letter: str, *, round: int = 1, term: int = 1) -> Heartbeat:
    return Heartbeat(Term(term), NONE, NONE, Round(round), 0, 0, at(multiple), hash_of(letter))


def told_to(lone: Lone, name: str) -> tuple[int, bytes]:
    lone.forget()
    lone.elapse(100_000)
    (sent,) = lone.requests(Heartbeat, name)
    return sent.agreed_index, sent.agreed_hash


NOTHING = (0, b"")

# --------------------------------------------------------------------------------------- at the leader


def test_what_a_majority_has_is_told_to_everybody_who_can_compare_it():
    lone = leading()
    knows(lone, 1, "x")
    assert told_to(lone, "b") == NOTHING, "one of three is no majority"
    tells(lone, "b", 1, "x")
    assert told_to(lone, "b") == (1024, hash_of("x"))
    assert told_to(lone, "c") == NOTHING, "it has told no hash, so it may not have got so far"
    tells(lone, "c", 1, "w")
    assert told_to(lone, "c") == (1024, hash_of("x"))


def test_a_follower_that_lags_is_told_of_an_index_that_it_has_reached():
    """Else one that always lags a little would never be compared with anybody."""
    lone = leading()
    for multiple, letter in ((1, "x"), (2, "y"), (3, "z")):
        knows(lone, multiple, letter)
        tells(lone, "b", multiple, letter)
    tells(lone, "c", 2, "w")
    assert told_to(lone, "b") == (3072, hash_of("z"))
    assert told_to(lone, "c") == (2048, hash_of("y"))


def test_hashes_of_one_index_meet_however_late_the_second_is():
    lone = leading()
    tells(lone, "b", 1, "x")
    tells(lone, "b", 2, "y")
    knows(lone, 1, "x")
    assert told_to(lone, "b") == (1024, hash_of("x"))


def test_without_a_majority_nobody_is_right():
    lone = leading("abcde")
    knows(lone, 1, "x")
    tells(lone, "b", 1, "x")
    tells(lone, "c", 1, "y")
    tells(lone, "d", 1, "y")
    assert told_to(lone, "b") == NOTHING
    assert lone.raft.disagrees_at is None
    tells(lone, "e", 1, "x")
    assert told_to(lone, "c") == (1024, hash_of("x"))


def test_in_a_joint_configuration_both_majorities_must_have_it():
    lone = leading()
    joint = Configuration(membership_of(voters("a", "d", "e").current.voters), voters("a", "b", "c").current)
    lone.raft.state.append([configuration_entry(lone.raft.last_index + 1, lone.raft.term, joint)])
    knows(lone, 1, "x")
    tells(lone, "b", 1, "x")
    assert lone.office.agreed_hashes.newest == NOTHING
    tells(lone, "d", 1, "x")
    assert lone.office.agreed_hashes.newest == (at(1), hash_of("x"))


def test_leadership_is_not_handed_to_a_node_whose_state_is_wrong():
    lone = leading()
    lone.acknowledge("b", "c")
    assert transfer.best_target(lone.raft.state) == "b"
    knows(lone, 1, "x")
    tells(lone, "b", 1, "w")
    tells(lone, "c", 1, "x")
    assert transfer.best_target(lone.raft.state) == "c"


def test_a_node_whose_state_was_wrong_stays_so_while_it_tells_of_indexes_that_nobody_else_told():
    """Under load each tells of another multiple, as its heartbeat happens to come."""
    lone = leading()
    lone.acknowledge("b", match=0)
    lone.acknowledge("c")
    knows(lone, 1, "x")
    tells(lone, "b", 1, "x")
    tells(lone, "c", 1, "w")
    knows(lone, 2, "y")
    tells(lone, "b", 2, "y")
    tells(lone, "c", 3, "v")
    assert transfer.best_target(lone.raft.state) == "b"
    tells(lone, "c", 2, "y")
    assert transfer.best_target(lone.raft.state) == "c", "started again, it is right where both are known"


def test_a_peers_newest_word_of_an_index_counts():
    """Started again, it has built its state anew, and tells another hash of the same index."""
    lone = leading()
    lone.acknowledge("b")
    knows(lone, 1, "x")
    tells(lone, "b", 1, "w")
    assert lone.office.agreed_hashes.newest == NOTHING
    tells(lone, "b", 1, "x")
    assert lone.office.agreed_hashes.newest == (1024, hash_of("x"))
    assert transfer.best_target(lone.raft.state) == "b"


def test_a_difference_is_noted_once_whoever_is_right():
    lone = leading()
    knows(lone, 1, "x")
    notes = []
    for letter in "yyz":
        tells(lone, "b", 1, letter)
        notes += lone.effects.notes
    assert [(note.event, note.text) for note in notes] == [
        ("replicas_disagree", "a: b has another state at index 1024")
    ]


@pytest.mark.parametrize("others", ["ab", "abc"])
def test_a_difference_is_noted_also_when_the_leader_gets_there_last(others):
    """Of two nodes neither is a majority: that they differ is all that can ever be said."""
    lone = leading(others)
    tells(lone, "b", 1, "y")
    tells(lone, "b", 2, "y")
    for multiple in (1, 2):
        knows(lone, multiple, "x")
    notes = [note.text for note in lone.turn().notes if note.event == "replicas_disagree"]
    assert notes == ["a: b has another state at index 1024"]
    assert lone.raft.disagrees_at is None


@pytest.mark.parametrize("own_is_last", [False, True])
def test_a_leader_whose_state_is_wrong_steps_down_at_once(own_is_last):
    lone = leading()
    if not own_is_last:
        knows(lone, 1, "w")
    tells(lone, "b", 1, "x")
    tells(lone, "c", 1, "x")
    if own_is_last:
        knows(lone, 1, "w")
    assert lone.role == "follower"
    assert lone.raft.disagrees_at == 1024
    assert not lone.raft.takes_proposals
    notes = [note.text for note in lone.effects.notes + lone.turn().notes]
    assert any("serves nothing" in note for note in notes)


def test_it_does_not_stand_again_and_nobody_can_make_it():
    lone = leading()
    knows(lone, 1, "w")
    tells(lone, "b", 1, "x")
    tells(lone, "c", 1, "x")
    lone.forget()
    for _ in range(10):
        lone.elapse(2 * E_US)
    assert lone.sent(object) == []
    assert lone.role == "follower"
    lone.says("b", Heartbeat(Term(2), NONE, NONE, Round(1), 0, 0))
    lone.forget()
    lone.says("b", TimeoutNow(Term(2)))
    assert lone.reply == TimeoutNowReply(Term(2), accepted=False)


# --------------------------------------------------------------------------------------- at a follower


def test_a_follower_whose_state_is_wrong_finds_out():
    lone = Lone()
    knows(lone, 1, "w")
    lone.says("b", heartbeat(1, "x"))
    assert lone.raft.disagrees_at == 1024
    (note,) = [note for note in lone.effects.notes if note.event == "state_is_wrong"]
    assert "a: the state here is not that of the majority at index 1024" in note.text
    lone.says("b", heartbeat(1, "x", round=2))
    assert not [note for note in lone.effects.notes if note.event == "state_is_wrong"], "once"


@pytest.mark.parametrize(
    ("own", "heartbeat", "why"),
    [
        ([(1, "x")], heartbeat(1, "x"), "equal"),
        ([(1, "w")], heartbeat(2, "x"), "not reached"),
        ([(2, "w")], heartbeat(1, "x"), "never taken, after a start say"),
        ([(multiple, "w") for multiple in range(1, 40)], heartbeat(1, "x"), "forgotten"),
        ([(1, "w")], Heartbeat(Term(1), NONE, NONE, Round(1), 0, 0), "nothing agreed"),
        ([(1, "w")], heartbeat(1, "x", term=0), "of an older term"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_who_does_not_know_its_own_hash_there_says_nothing(own, heartbeat, why):
    lone = Lone(term=1)
    for multiple, letter in own:
        knows(lone, multiple, letter)
    lone.says("b", heartbeat)
    assert lone.raft.disagrees_at is None, why


def test_it_still_votes_and_stores():
    lone = Lone()
    knows(lone, 1, "w")
    lone.says("b", heartbeat(1, "x"))
    lone.elapse(E_US)
    lone.forget()
    lone.says("c", RequestVote(Term(2), NONE, NO_TERM, transfer=False))
    assert lone.reply.granted
    lone.says("c", AppendEntries(Term(2), NONE, NO_TERM, NONE, entries([2])))
    assert lone.reply.success


def test_only_the_newest_hashes_are_kept():
    hashes = StateHashes()
    assert hashes.newest == NOTHING
    for multiple in range(1, 36):
        hashes.note(at(multiple), hash_of("x"))
    assert hashes.at(at(3)) is None
    assert hashes.at(at(4)) == hash_of("x")
    assert hashes.newest == (35 * 1024, hash_of("x"))
    assert hashes.newest_through(Index(5000)) == (4096, hash_of("x"))
    assert hashes.newest_through(Index(1024)) == NOTHING


@pytest.mark.parametrize(
    ("known", "roundest"),
    [
        ([], 0),
        ([1024], 1024),
        ([1024, 1030], 1024),
        ([1024 * multiple for multiple in range(1, 8)], 4096),
        ([1024 * multiple for multiple in range(1, 9)], 8192),
        ([1024 * multiple for multiple in range(1, 16)], 8192),
        ([1024 * multiple for multiple in range(1, 17)], 16384),
        ([1024 * multiple for multiple in range(1, 24)], 16384),
        ([1024 * multiple for multiple in range(1, 25)], 24576),
        ([3072, 5120], 5120),
    ],
)
def test_the_roundest_index_is_the_same_for_a_while(known, roundest):
    hashes = StateHashes()
    for index in known:
        hashes.note(Index(index), b"%d" % index)
    assert hashes.roundest == (roundest, b"%d" % roundest if roundest else b"")


def test_every_other_heartbeat_is_answered_with_the_roundest():
    lone = Lone()
    for multiple in range(1, 12):
        knows(lone, multiple, "x")
    told = []
    for round in (1, 2, 3):
        lone.says("b", heartbeat(0, "", round=round))
        told.append(lone.reply.hash_index // 1024)
    assert told == [11, 8, 11]


def test_three_of_five_that_are_never_equally_far_agree():
    """Each is further by an interval than the one before when it tells, and again the next time."""
    nodes = [Lone() for _ in range(3)]
    told: list[set[int]] = [set(), set(), set()]
    for step in range(24):
        for place, lone in enumerate(nodes):
            knows(lone, 3 * step + place + 1, "x")
            knows(lone, 3 * step + place + 2, "x")
            knows(lone, 3 * step + place + 3, "x")
            lone.says("b", heartbeat(0, "", round=step + 1))
            told[place].add(lone.reply.hash_index)
    assert set.intersection(*told)


# --------------------------------------------------------------------------- where a state is known to be right


def test_who_did_not_stand_where_others_did_is_told_of_an_index_that_it_told():
    """Else where one thing at a time is written, a slow node would never be told of a hash that it can compare."""
    lone = leading()
    for index, others in ((1024, "bc"), (1030, "b")):
        lone.raft.machine_hash(Index(index), b"x" * 16)
        for name in others:
            lone.says(name, HeartbeatReply(lone.raft.term, lone.office.last_round, Index(index), b"x" * 16))
    lone.says("c", HeartbeatReply(lone.raft.term, lone.office.last_round, Index(1035), b"y" * 16))
    assert {told_to(lone, "c")[0] for _ in range(2)} == {1024, 1030}


def test_a_leader_agrees_where_a_majority_has_its_state():
    lone = leading()
    knows(lone, 1, "x")
    assert lone.raft.agrees_at == 0, "one of three is no majority"
    tells(lone, "b", 1, "x")
    assert lone.raft.agrees_at == at(1)
    knows(lone, 2, "y")
    tells(lone, "b", 2, "z")
    assert lone.raft.agrees_at == at(1)
    tells(lone, "c", 2, "y")
    assert lone.raft.agrees_at == at(2)


def test_a_leader_alone_in_its_cluster_is_its_own_majority():
    lone = leading(others="a")
    knows(lone, 1, "x")
    assert lone.raft.agrees_at == at(1)


def test_a_follower_agrees_where_it_is_told_its_own_hash():
    lone = Lone()
    knows(lone, 1, "x")
    knows(lone, 3, "z")
    lone.says("b", heartbeat(2, "y"))
    assert lone.raft.agrees_at == 0, "it knows none of its own there"
    lone.says("b", heartbeat(3, "z", round=2))
    assert lone.raft.agrees_at == at(3)
    lone.says("b", heartbeat(1, "x", round=3))
    assert lone.raft.agrees_at == at(3), "an older word takes nothing back"


def test_who_is_wrong_does_not_agree():
    lone = Lone()
    knows(lone, 1, "x")
    lone.says("b", heartbeat(1, "y"))
    assert (lone.raft.disagrees_at, lone.raft.agrees_at) == (at(1), 0)


def test_a_state_that_shows_another_hash_at_the_same_index_agrees_no_more():
    """A bit that flips while nothing is written, before a snapshot is taken."""
    lone = Lone()
    knows(lone, 1, "x")
    lone.says("b", heartbeat(1, "x"))
    knows(lone, 1, "x")
    assert lone.raft.agrees_at == at(1)
    knows(lone, 1, "w")
    assert lone.raft.agrees_at == at(1) - 1
    lone.says("b", heartbeat(1, "x", round=2))
    assert (lone.raft.disagrees_at, lone.raft.agrees_at) == (at(1), at(1) - 1)


@pytest.mark.parametrize("others", ["a", "abc"])
def test_a_leader_that_shows_another_hash_where_a_majority_agreed_leads_no_more(others):
    """Its own was one of them, so nobody else need say anything: alone in its cluster nobody could."""
    lone = leading(others)
    knows(lone, 1, "x")
    if others == "abc":
        tells(lone, "b", 1, "x")
    assert lone.raft.agrees_at == at(1)
    knows(lone, 1, "w")
    assert (lone.raft.disagrees_at, lone.raft.agrees_at, lone.role) == (at(1), at(1) - 1, "follower")
