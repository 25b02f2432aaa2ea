"""Changes of members: what a wish comes to, and what whoever asked is told, once."""

from __future__ import annotations

from typing import Any

import pytest

from raftkv import frames as framing
from raftkv.changing import Asking, to_be_asked, wanted
from raftkv.core.messages import AppendEntries, AppendEntriesReply, Introduction
from raftkv.core.types import (
    ClusterId,
    Configuration,
    Incarnation,
    Index,
    Intent,
    Learner,
    Member,
    Membership,
    NodeId,
    Role,
    Term,
)
from raftkv.members import (
    Add,
    Alter,
    Become,
    MembersAre,
    MembersRefused,
    MembersWhy,
    Named,
    Remove,
    StillChanging,
    Terms,
    Wish,
)
from raftkv.replica import ReplicaSettings
from tests.core.lone import CLUSTER_ID, incarnation_of
from tests.lone_replica import LoneReplica, leading

OTHER_CLUSTER = ClusterId(b"another cluster.")
SETTINGS = ReplicaSettings(member_catch_up_timeout_ms=2_000)


def member(name: str, url: str | None = None) -> Member:
    return Member(NodeId(name), incarnation_of(name), url or f"http://{name}")


def named(name: str, url: str | None = None) -> Named:
    return Named(name, url or f"http://{name}")


def membership(voters: str, learners: str = "") -> Membership:
    return Membership(
        tuple(member(name) for name in voters), tuple(Learner(member(n), Intent.LEARNER, None) for n in learners)
    )


def says(name: str, **otherwise: Any) -> Introduction:
    """A node that was started with --join, and belongs to nobody."""
    said: dict[str, Any] = {
        "sender": NodeId(name),
        "incarnation": incarnation_of(name),
        "url": f"http://{name}",
        "cluster_id": None,
        "formed": False,
        "initial_members": [],
        "joins": True,
    }
    return Introduction(**(said | otherwise))


def client_url_of(one: Member) -> str:
    return one.url.replace("http://", "http://clients.")


def comes_to(wish: Wish, standing: Membership, said: dict[str, Introduction] | None = None) -> Any:
    """A membership, or why not."""
    heard = {NodeId(id): introduction for id, introduction in (said or {}).items()}
    found = wanted(wish, standing, heard, client_url_of=client_url_of, cluster_id=CLUSTER_ID)
    return found.why if isinstance(found, MembersRefused) else found


# ------------------------------------------------------------------------------------- what a wish comes to

ABC, ABCd = membership("abc"), membership("abc", "d")


@pytest.mark.parametrize(
    ("wish", "standing", "goal"),
    [
        (Add(named("d"), votes=True), ABC, membership("abcd")),
        (Add(named("d"), votes=False), ABC, ABCd),
        (Add(named("d", "http://clients.d"), votes=True), ABC, membership("abcd")),
        (Add(named("b"), votes=True), ABC, ABC),
        (Add(named("b", "http://clients.b"), votes=True), ABC, ABC),
        (Add(named("d"), votes=False), ABCd, ABCd),
        (Remove("b"), ABC, membership("ac")),
        (Remove("d"), ABCd, ABC),
        (Remove("x"), ABC, ABC),
        (Alter("d", votes=True), ABCd, membership("abcd")),
        (Alter("c", votes=False), ABC, membership("ab", "c")),
        (Alter("c", votes=True), ABC, ABC),
        (Alter("c", url="http://c"), ABC, ABC),
        (Become((named("a"), named("d")), (named("b"),)), ABC, membership("ad", "b")),
        (Become((named("b"), named("a"), named("c"))), ABC, ABC),
        (Become((named("a"),)), ABCd, membership("a")),
    ],
)
def test_a_wish_comes_to_a_whole_membership(wish: Wish, standing: Membership, goal: Membership) -> None:
    said = {"d": says("d", client_url="http://clients.d")}
    assert comes_to(wish, standing, said) == goal


def test_a_member_is_where_it_says_that_nodes_reach_it() -> None:
    """Else the next introduction would have the log say something else again."""
    elsewhere = says("d", url="http://d.inside", client_url="http://d")
    goal = comes_to(Add(named("d"), votes=True), ABC, {"d": elsewhere})
    assert goal.voters[-1] == member("d", "http://d.inside")
    moved = comes_to(Alter("c", url="http://c.new"), ABC, {"c": says("c", url="http://c.new", cluster_id=CLUSTER_ID)})
    assert moved.voters[-1] == member("c", "http://c.new")


D = Add(named("d"), votes=True)
EMPTIED = Incarnation(b"another disk....")


@pytest.mark.parametrize(
    ("wish", "said", "why"),
    [
        (D, {}, MembersWhy.UNREACHABLE),
        (D, {"d": says("e", url="http://d")}, MembersWhy.UNREACHABLE),
        (D, {"d": says("d", url="http://d.other")}, MembersWhy.UNREACHABLE),
        (D, {"d": says("d", cluster_id=OTHER_CLUSTER)}, MembersWhy.WRONG_CLUSTER),
        (D, {"d": says("d", joins=False)}, MembersWhy.WRONG_CLUSTER),
        (D, {"d": says("d", incarnation=incarnation_of("b"))}, MembersWhy.EXISTS),
        (Add(named("d", "http://b"), votes=True), {"d": says("d", url="http://b")}, MembersWhy.EXISTS),
        (Add(named("b", "http://b.new"), votes=True), {}, MembersWhy.EXISTS),
        (Add(named("b"), votes=False), {}, MembersWhy.EXISTS),
        (Add(named("b"), votes=True), {"b": says("b", incarnation=EMPTIED)}, MembersWhy.EXISTS),
        (Alter("x", votes=True), {}, MembersWhy.NO_SUCH_MEMBER),
        (Alter("b", url="http://b.new"), {}, MembersWhy.UNREACHABLE),
        (Alter("b", url="http://b.new"), {"b": says("b", url="http://b.new", incarnation=EMPTIED)}, MembersWhy.EXISTS),
        (Alter("b", url="http://c"), {"b": says("b", url="http://c", cluster_id=CLUSTER_ID)}, MembersWhy.EXISTS),
        (Become((named("a"), named("a"))), {}, MembersWhy.BAD),
        (Become((named("a"),), (named("a"),)), {}, MembersWhy.BAD),
        (Become((named("a"), named("b", "http://a"))), {}, MembersWhy.BAD),
        (Become((named("a"), named("d"))), {}, MembersWhy.UNREACHABLE),
        (Become((named("a"), named("b", "http://b.new"))), {}, MembersWhy.UNREACHABLE),
    ],
)
def test_a_wish_that_cannot_be_met_says_why(wish: Wish, said: dict[str, Introduction], why: MembersWhy) -> None:
    """faults 29, 31, 32"""
    assert comes_to(wish, ABC, said) is why


def test_somebody_votes() -> None:
    for wish in (Remove("a"), Alter("a", votes=False)):
        assert comes_to(wish, membership("a", "b")) is MembersWhy.BAD


def test_a_node_of_this_very_cluster_may_come_back() -> None:
    """It was removed, or a change that was to add it was undone after it had heard of it."""
    returns = says("d", cluster_id=CLUSTER_ID, joins=False)
    assert comes_to(D, ABC, {"d": returns}) == membership("abcd")


@pytest.mark.parametrize(
    ("wish", "asking"),
    [
        (D, [Asking(named("d"), is_needed=True)]),
        (Add(named("b"), votes=True), []),
        (Add(named("c"), votes=True), [Asking(named("c"), is_needed=False)]),
        (Add(named("c", "http://c.new"), votes=True), []),
        (Remove("b"), []),
        (Alter("b", votes=False), []),
        (Alter("b", url="http://b"), []),
        (Alter("b", url="http://clients.b"), [Asking(named("b", "http://clients.b"), is_needed=True)]),
        (Alter("b", url="http://b.new"), [Asking(named("b", "http://b.new"), is_needed=True)]),
        (Alter("x", url="http://x"), []),
        (
            Become((named("a"), named("d")), (named("b", "http://b.new"),)),
            [Asking(named("d"), is_needed=True), Asking(named("b", "http://b.new"), is_needed=True)],
        ),
    ],
)
def test_who_is_new_or_elsewhere_is_asked_and_a_silent_member_whether_it_is_still_there(
    wish: Wish, asking: list[Asking]
) -> None:
    found = to_be_asked(wish, ABC, client_url_of=client_url_of, is_in_contact=lambda id: id != "c")
    assert found == asking


# ---------------------------------------------------------------------------------------- who waits


def wish_for(
    lone: LoneReplica, name: str, wish: Wish, said: dict[str, Introduction] | None = None, **terms: Any
) -> None:
    heard = {NodeId(id): introduction for id, introduction in (said or {}).items()}
    lone.replica.change_members(wish, heard, Terms(**terms), lambda outcome: lone.told.append((name, outcome)))
    lone.turn()


def add_d(lone: LoneReplica, name: str = "d", **terms: Any) -> None:
    wish_for(lone, name, D, {"d": says("d")}, **terms)


def why_not(lone: LoneReplica, name: str) -> MembersWhy:
    outcome = lone.outcome(name)
    assert isinstance(outcome, MembersRefused), outcome
    return outcome.why


def see_through(lone: LoneReplica, *names: str) -> None:
    """These acknowledge everything until nothing more is begun."""
    for _ in range(8):
        lone.turn(20_000)
        for name in names:
            if lone.raft.role is Role.LEADER:
                match = lone.raft.last_index
                lone.says(name, AppendEntriesReply(lone.raft.term, True, Index(0), match, Term(0), Index(0)))
            if lone.raft.role is Role.LEADER and name in lone.raft.contacts:
                lone.echo(name)


def voters(lone: LoneReplica) -> list[str]:
    return [one.id for one in lone.raft.configuration.current.voters]


def leading_three() -> LoneReplica:
    return leading(settings=SETTINGS)


def test_who_adds_a_node_hears_when_it_votes():
    lone = leading_three()
    add_d(lone)
    lone.acknowledge("b", "c")
    assert lone.outcome("d") is None, "it has not caught up"
    see_through(lone, "b", "c", "d")
    assert lone.outcome("d") == MembersAre(changed=True)
    assert voters(lone) == ["a", "b", "c", "d"]


def test_whoever_asks_for_what_is_on_its_way_waits_for_it_too():
    """POST and --join are one change, whoever asks first (http-api, Starting nodes)."""
    lone = leading_three()
    add_d(lone, "first")
    lone.acknowledge("b", "c")
    wish_for(lone, "second", D)
    see_through(lone, "b", "c", "d")
    assert lone.outcome("first") == lone.outcome("second") == MembersAre(changed=True)
    wish_for(lone, "third", D)
    lone.echo("b", "c")
    assert lone.outcome("third") == MembersAre(changed=False)


def test_what_is_there_already_is_not_done_again():
    lone = leading_three()
    before = lone.raft.last_index
    wish_for(lone, "b", Add(named("b"), votes=True))
    wish_for(lone, "x", Remove("x"))
    wish_for(lone, "same", Become((named("a"), named("b"), named("c"))))
    lone.echo("b")
    assert [lone.outcome(name) for name in ("b", "x", "same")] == [MembersAre(changed=False)] * 3
    assert lone.raft.last_index == before


def test_a_second_change_is_refused_while_one_runs():
    """faults 24"""
    lone = leading_three()
    add_d(lone)
    wish_for(lone, "c", Remove("c"))
    assert why_not(lone, "c") is MembersWhy.IN_PROGRESS
    assert lone.outcome("d") is None


def test_whose_time_is_over_is_told_that_it_goes_on():
    lone = leading_three()
    add_d(lone, wait_ms=500)
    for _ in range(5):
        assert lone.outcome("d") is None
        lone.turn(100_000)
        lone.acknowledge("b", "c")
    assert lone.outcome("d") == StillChanging()
    add_d(lone, "again")
    see_through(lone, "b", "c", "d")
    assert lone.outcome("again") == MembersAre(changed=True)


def test_no_patience_at_all_begins_it_all_the_same():
    lone = leading_three()
    add_d(lone, wait_ms=0)
    assert lone.outcome("d") == StillChanging()
    assert lone.raft.change_status is not None


def test_a_node_that_never_catches_up_leaves_the_members_as_they_were():
    """faults 29"""
    lone = leading_three()
    add_d(lone)
    for _ in range(25):
        lone.turn(100_000)
        lone.acknowledge("b", "c")
    assert why_not(lone, "d") is MembersWhy.CATCH_UP_FAILED
    assert lone.outcome("d").text.startswith("d did not catch up in time")
    assert lone.raft.configuration == Configuration(membership("abc"))


def test_who_has_caught_up_is_not_said_to_be_all_that_was_missing():
    """faults 29: b and c die while d catches up, and with a and d alone nothing would be decided any more."""
    lone = LoneReplica("abcef", settings=SETTINGS)
    lone.lead()
    wish_for(lone, "d", *become("abcd"))
    for name in "bcef":
        lone.echo(name)
    lone.turn()
    for _ in range(30):
        see_through(lone, "d", "e", "f")
    assert why_not(lone, "d") is MembersWhy.CATCH_UP_FAILED
    assert "those that would vote were not there" in lone.outcome("d").text
    told = [note.text for work in lone.works for note in work.notes if note.event == "members_gave_up"]
    assert told == ["a: most of those that would vote are not there"]
    assert lone.raft.configuration == Configuration(membership("abcef"))


def test_a_leader_asks_for_nothing_before_it_has_committed_in_its_own_term():
    """faults 24: a wish waits for that, or for its time."""
    lone = LoneReplica(settings=SETTINGS)
    lone.win()
    wish_for(lone, "c", Remove("c"))
    wish_for(lone, "hurried", Remove("c"), wait_ms=0)
    assert lone.outcome("c") is None and lone.raft.change_status is None
    assert why_not(lone, "hurried") is MembersWhy.NOT_LEADER
    lone.acknowledge("b", "c")
    see_through(lone, "b", "c")
    assert lone.outcome("c") == MembersAre(changed=True)


def test_a_removal_after_which_no_majority_would_answer_is_refused_unless_forced():
    lone = leading_three()
    for _ in range(9):
        lone.turn(80_000)
        lone.acknowledge("b")
    wish_for(lone, "b", Remove("b"))
    lone.turn(80_000)
    lone.acknowledge("b")
    assert lone.outcome("b") is None, "c may answer yet"
    for _ in range(3):
        lone.turn(80_000)
        lone.acknowledge("b")
    assert why_not(lone, "b") is MembersWhy.QUORUM_AT_RISK
    wish_for(lone, "forced", Remove("b"), force=True)
    assert lone.outcome("forced") is None and lone.raft.configuration.is_joint


def test_a_live_voter_stays_while_another_that_was_just_heard_does_not_answer():
    """faults 29: c dies; by what was heard within E, b would go, and a, alone of two, commit nothing."""
    lone = leading_three()
    wish_for(lone, "b", Remove("b"), wait_ms=0)
    for _ in range(4):
        assert lone.outcome("b") is None
        lone.turn(80_000)
        lone.acknowledge("b")
    assert why_not(lone, "b") is MembersWhy.QUORUM_AT_RISK
    assert lone.raft.configuration == Configuration(membership("abc"))
    wish_for(lone, "c", Remove("c"))
    see_through(lone, "b")
    assert lone.outcome("c") == MembersAre(changed=True)


def test_a_removal_waits_for_no_more_than_the_first_answers():
    lone = leading_three()
    wish_for(lone, "c", Remove("c"), wait_ms=0)
    assert lone.outcome("c") is None
    lone.turn(1_000)
    lone.echo("b")
    lone.turn()
    assert lone.raft.configuration.is_joint
    assert lone.outcome("c") == StillChanging(), "there is no patience, and it is begun all the same"


def test_one_round_is_asked_for_by_each_wish():
    lone = leading_three()
    before = lone.lone.office.last_round
    wish_for(lone, "c", Remove("c"))
    for _ in range(9):
        lone.turn(1_000)
    assert lone.lone.office.last_round == before + 1


def test_only_the_configuration_that_was_looked_at_is_replaced():
    lone = leading_three()
    index = lone.raft.state.configurations.current_index
    wish_for(lone, "late", Become((named("a"), named("b")), expected_index=index + 1))
    assert why_not(lone, "late") is MembersWhy.OTHER_CONFIGURATION
    wish_for(lone, "right", Become((named("a"), named("b")), expected_index=index))
    see_through(lone, "b", "c")
    assert lone.outcome("right") == MembersAre(changed=True)


def test_a_follower_sends_to_the_leader():
    lone = LoneReplica()
    lone.follow("b", 3)
    wish_for(lone, "c", Remove("c"))
    refused = lone.outcome("c")
    assert refused.why is MembersWhy.NOT_LEADER
    assert (refused.leadership.leader_id, refused.leadership.leader_url) == ("b", "http://b")


def test_a_node_that_stops_lets_nobody_wait():
    lone = leading_three()
    add_d(lone)
    lone.replica.shutting_down = True
    lone.turn()
    assert why_not(lone, "d") is MembersWhy.UNKNOWN
    assert "goes on" not in lone.outcome("d").text, "nobody else may have it"
    wish_for(lone, "c", Remove("c"))
    assert why_not(lone, "c") is MembersWhy.SHUTTING_DOWN


# ------------------------------------------------------------------------------------ the leader's own place


@pytest.mark.parametrize("wish", [Remove("a"), Alter("a", votes=False), Become((named("b"), named("c")))])
def test_a_leader_that_is_to_vote_no_more_hands_over_first(wish: Wish):
    """faults 26: nothing of the change is begun here; whoever leads then is asked for it."""
    lone = leading_three()
    before = lone.raft.last_index
    wish_for(lone, "a", wish)
    assert lone.raft.state.office is not None and lone.raft.state.office.transfer is not None
    successor = lone.raft.state.office.transfer.target
    lone.follow(successor, 2)
    refused = lone.outcome("a")
    assert refused.why is MembersWhy.NOT_LEADER
    assert (refused.leadership.leader_id, refused.leadership.leader_url, refused.leadership.term) == (
        successor, f"http://{successor}", 2,
    )  # fmt: skip
    assert lone.raft.last_index == before


def become(voters: str) -> tuple[Become, dict[str, Introduction]]:
    return Become(tuple(named(name) for name in voters)), {name: says(name) for name in voters if name not in "abc"}


def test_a_leader_hands_over_to_a_voter_that_stays():
    """Two that leave would hand over to each other for ever, and whoever asks would be sent to and fro."""
    lone = leading_three()
    wish_for(lone, "most", *become("cde"))
    assert lone.raft.state.office is not None and lone.raft.state.office.transfer is not None
    assert lone.raft.state.office.transfer.target == "c"


def test_a_leader_does_not_hand_over_to_a_voter_that_stays_and_does_not_answer():
    lone = leading_three()
    for _ in range(9):
        lone.turn(80_000)
        lone.acknowledge("b")
    wish_for(lone, "most", *become("cde"))
    assert why_not(lone, "most") is MembersWhy.QUORUM_AT_RISK
    assert lone.raft.takes_proposals


def test_where_no_voter_stays_the_leader_sees_the_change_through():
    """faults 26: there is nobody to hand over to; it steps down when C_new is committed."""
    lone = leading_three()
    wish_for(lone, "all", *become("def"))
    assert lone.raft.change_status is not None
    see_through(lone, "b", "c", "d", "e", "f")
    assert lone.outcome("all") == MembersAre(changed=True)
    assert voters(lone) == ["d", "e", "f"] and lone.raft.role is not Role.LEADER


def test_a_leader_that_is_forced_removes_itself_without_handing_over():
    """faults 26"""
    lone = leading_three()
    wish_for(lone, "forced", Remove("a"), force=True)
    assert lone.raft.configuration.is_joint
    see_through(lone, "b", "c")
    assert lone.outcome("forced") == MembersAre(changed=True)
    assert lone.raft.role is not Role.LEADER


def test_a_transfer_that_comes_to_nothing_changes_nothing():
    lone = leading_three()
    wish_for(lone, "a", Remove("a"))
    for _ in range(8):
        lone.turn(100_000)
        lone.acknowledge("b", "c")
    assert why_not(lone, "a") is MembersWhy.NOT_LEADER
    assert lone.raft.role is Role.LEADER and voters(lone) == ["a", "b", "c"]


# ---------------------------------------------------------------------------------------- lost leadership


def configuration_frame(index: int, term: int, configuration: Configuration) -> bytes:
    return framing.encode(framing.EntryKind.CONFIGURATION, term=term, index=index, body=configuration.encode())


def configuration_frames(first: int, term: int, configurations: list[Configuration]) -> list[bytes]:
    return [configuration_frame(index, term, one) for index, one in enumerate(configurations, first)]


def append(lone: LoneReplica, term: int, frames: list[bytes], *, prev: int, commit: int) -> None:
    prev_term = lone.raft.term_at(prev) or Term(0)
    lone.says("b", AppendEntries(Term(term), Index(prev), prev_term, Index(commit), frames))


def removing_c() -> LoneReplica:
    """C_old,new stands at index 2, and nobody else has it."""
    lone = leading_three()
    wish_for(lone, "c", Remove("c"))
    lone.echo("b")
    lone.turn()
    assert lone.raft.configuration.is_joint and lone.raft.last_index == 2
    return lone


def test_a_change_that_the_next_leader_finishes_is_told_as_done():
    """faults 25"""
    lone = removing_c()
    done = configuration_frame(3, 2, Configuration(membership("ab")))
    append(lone, 2, [done], prev=2, commit=2)
    assert lone.outcome("c") is None
    append(lone, 2, [], prev=3, commit=3)
    assert lone.outcome("c") == MembersAre(changed=True)


def test_a_change_in_whose_place_another_entry_is_committed_is_superseded():
    """faults 25, 69"""
    lone = removing_c()
    lone.append("b", 2, [None], prev=1, commit=1)
    assert lone.outcome("c") is None, "b's entry may be overwritten yet"
    lone.append("b", 2, [None], prev=2, commit=2)
    assert why_not(lone, "c") is MembersWhy.SUPERSEDED


def test_a_leader_again_whose_change_gave_way_does_not_say_that_it_goes_on():
    """faults 25, 50: nothing of it is in the log, and what stands in its place is not committed yet."""
    lone = leading_three()
    wish_for(lone, "c", Remove("c"), wait_ms=3_000)
    lone.echo("b")
    lone.turn()
    assert lone.raft.configuration.is_joint
    lone.append("b", 2, [None], prev=1, commit=1)
    lone.win()
    while lone.outcome("c") is None:
        lone.turn(100_000)
        lone.echo("b", "c")
    assert lone.raft.role is Role.LEADER and lone.raft.change_status is None
    assert why_not(lone, "c") is MembersWhy.UNKNOWN


def test_a_leader_that_is_cut_off_says_that_it_does_not_know():
    """faults 30"""
    lone = leading_three()
    wish_for(lone, "c", Remove("c"), wait_ms=3_000)
    lone.echo("b")
    for _ in range(30):
        assert lone.outcome("c") is None
        lone.turn(100_000)
    assert lone.raft.role is not Role.LEADER
    assert why_not(lone, "c") is MembersWhy.UNKNOWN


def test_members_that_were_changed_again_meanwhile_are_not_told_as_undone():
    lone = removing_c()
    others = Configuration(membership("abc", "e"))
    append(lone, 2, [configuration_frame(3, 2, others)], prev=2, commit=3)
    assert why_not(lone, "c") is MembersWhy.UNKNOWN


def catching_up() -> LoneReplica:
    """d is to vote, and somebody waits for it."""
    lone = leading_three()
    add_d(lone)
    lone.acknowledge("b", "c")
    assert lone.raft.change_status is not None and lone.outcome("d") is None
    return lone


def test_a_successor_gives_up_in_its_own_time_what_was_begun_after_an_hour_without_writes():
    """faults 29: nothing in the log says how late it is, so this leader's cluster time is an hour behind."""
    lone = LoneReplica(settings=SETTINGS)
    d = Learner(member("d"), Intent.VOTER, 3_600_000 + 2_000)
    begun = Configuration(Membership(membership("abc").voters, (d,)))
    append(lone, 1, [configuration_frame(1, 1, begun)], prev=0, commit=0)
    lone.lead()
    assert lone.raft.change_status is not None and lone.replica.cluster_time_ms() == 0
    for _ in range(25):
        lone.turn(100_000)
        lone.acknowledge("b", "c")
    assert lone.raft.configuration == Configuration(membership("abc"))
    assert lone.replica.cluster_time_ms() < 3_000, "sessions do not grow older by it"
    add_d(lone)
    lone.acknowledge("b", "c")
    assert lone.raft.change_status is not None, "the next one has its whole time"
