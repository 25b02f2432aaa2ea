"""Everything that can happen, from named starting points: Figure 3 holds; what is planted is found, and how soon."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from raftkv import frames as framing
from raftkv.core import durability, election, rules
from raftkv.core.membership import Configurations
from raftkv.core.messages import PreVoteReply, PreVoteRequest
from raftkv.core.raft import _REPLY_HANDLERS, _REQUEST_HANDLERS, Raft
from raftkv.core.types import Configuration, Role
from raftkv.sim.checks.figure3 import Facts, History, after_step, read_answered
from raftkv.sim.checks.invariants import Violated
from raftkv.sim.runs import fingerprint
from raftkv.sim.runs.exhaustive import explore
from raftkv.sim.runs.few_members import NAMES
from raftkv.sim.runs.one_node import What, _facts, _Node, _Turns
from raftkv.sim.runs.starts import STARTS, Driver
from raftkv.sim.runs.states import _LINKS, Rules, Worlds
from tests.sim.planted import PLANTED, Plant

pytestmark = pytest.mark.usefixtures("interpreted")
ROOT = Path(__file__).parent.parent.parent
STATES_MAX = 12_000
OWN: dict[str, Plant] = {}

TELL = """
from raftkv.sim.runs.exhaustive import explore
print(explore(4, "led", 3000), explore(4, "figure-7", 3000))
"""


def plant(act):
    OWN[act.__name__] = act
    return act


@plant
def a_pre_vote_counts_as_a_vote(patch):
    """faults 11"""

    def handle(state, envelope, reply):
        campaign = state.campaign
        if campaign is not None and reply.proposed_term == campaign.term:
            election._count(state, campaign, envelope.sender, granted=reply.granted)

    patch.setitem(_REPLY_HANDLERS, PreVoteReply, handle)


@plant
def a_pre_vote_brings_its_term(patch):
    """faults 15"""

    def handle(state, envelope, request, exchange):
        election.adopt_term(state, request.term, "asked")
        original(state, envelope, request, exchange)

    original = election.handle_pre_vote
    patch.setitem(_REQUEST_HANDLERS, PreVoteRequest, handle)


@plant
def pre_votes_are_for_whoever_asks(patch):
    """faults 15, 17"""
    patch.setattr(
        rules, "pre_vote_is_granted", lambda *, proposed_term, current_term, **_: proposed_term > current_term
    )


@plant
def stands_without_asking(patch):
    """faults 15"""

    def passed(state):
        election.stand(state)

    patch.setattr(election, "election_timeout_passed", passed)


@plant
def the_vote_is_not_stored(patch):
    """faults 2: the term is."""

    def set_term_and_vote(self, vote):
        original(self, (vote[0], None))
        self.durable_vote = vote

    original = durability.Durability.vote_changed
    patch.setattr(durability.Durability, "vote_changed", set_term_and_vote)


@plant
def who_is_to_go_has_gone(patch):
    """faults 24: C_new where C_old,new should be."""
    patch.setattr(rules, "first_configuration", lambda current, target, *, deadline_ms: Configuration(target))


@plant
def the_old_set_decides_alone(patch):
    """faults 24: while both should."""

    def match_index(voter_sets, match):
        return original(voter_sets[-1:], match)

    original = rules.majority_match_index
    patch.setattr(rules, "majority_match_index", match_index)


@plant
def joint_consensus_is_taken_back(patch):
    """faults 25: C_old follows C_old,new."""

    def following(configuration, **how):
        if configuration.outgoing is not None:
            return Configuration(configuration.outgoing)
        return original(configuration, **how)

    original = rules.next_configuration
    patch.setattr(rules, "next_configuration", following)


@plant
def what_was_overruled_stays_in_force(patch):
    """faults 28"""
    patch.setattr(Configurations, "truncate_from", lambda self, index: None)


@plant
def a_log_that_is_long_enough_holds_the_snapshot(patch):
    """faults 38, 40"""
    patch.setattr(rules, "log_goes_on_after_snapshot", lambda *, our_term_at_index, **_: our_term_at_index is not None)


@plant
def the_old_log_is_taken_for_the_base(patch):
    """faults 12, 41"""

    def base_changed(self, base):
        original(self, base)
        self.durable_index = max(self.durable_index, base.index)

    original = durability.Durability.base_changed
    patch.setattr(durability.Durability, "base_changed", base_changed)


@plant
def the_tails_members_stay(patch):
    """faults 38, 39"""
    patch.setattr(Configurations, "begin_anew", lambda self, base_index, base, *, committed: None)


@plant
def a_snapshot_has_the_members_of_now(patch):
    """faults 39"""

    def base_at(self, index):
        return replace(original(self, index), configuration=self.state.configurations.current)

    original = Raft.base_at
    patch.setattr(Raft, "base_at", base_at)


@plant
def the_log_begins_one_too_late(patch):
    """faults 8: whoever needs the entry at the base is sent entries, and there are none."""
    patch.setattr(rules, "snapshot_is_needed", lambda *, next_index, log_base: next_index < log_base)


ON_THE_WAY = 0
"""The cluster does not even come to where the exploration begins."""
FOUND = [
    # the votes
    ("votes_for_anybody", "behind", 4, "Leader Completeness"),
    ("judges_logs_by_length_alone", "longer", 4, "Leader Completeness"),
    ("judges_logs_by_term_alone", "behind", 4, "Leader Completeness"),
    ("votes_twice", "rivals", 1, "a vote is durable before it leaves"),
    ("votes_leave_before_the_disk_has_them", "rivals", 1, "nothing leaves before its term is durable"),
    ("stands_in_its_present_term_again", "led", 3, "one vote a term"),
    ("wins_without_a_majority", "empty", 1, "a term begins with others' word"),
    ("a_pre_vote_counts_as_a_vote", "won", 1, "elected by a majority"),
    ("a_pre_vote_counts_as_a_vote", "empty", 6, "elected by a majority"),
    ("a_pre_vote_brings_its_term", "empty", 2, "a PreVote changes nothing"),
    ("pre_votes_are_for_whoever_asks", "led", 2, "who hears a leader votes for nobody"),
    ("stands_without_asking", "empty", 1, "a term begins with others' word"),
    # the commit rule
    ("commits_old_terms_by_counting", "figure-8", 1, "only the own term is committed by counting"),
    ("commits_without_a_majority", "prompt", 5, "committed is durable on a majority"),
    ("the_leader_counts_what_it_has_not_synced", "uncommitted", 1, "committed is durable on a majority"),
    ("commits_whatever_the_leader_did", "cut-off", 4, "State Machine Safety"),
    ("match_falls", "acknowledged", 2, "match never falls"),
    # the disk
    ("a_truncation_leaves_what_is_durable", "cut-off", 4, "acknowledged is durable"),
    ("old_writes_count_after_a_truncation", "cut-off", 4, "acknowledged is durable"),
    ("acknowledges_before_its_disk", "led", ON_THE_WAY, "acknowledged is durable"),
    # the log
    ("never_truncates", "cut-off", 2, ""),
    ("does_not_look_at_prev", "figure-7", 2, ""),
    ("looks_only_whether_prev_is_there", "figure-7", 2, "Log Matching"),
    ("truncates_what_does_not_conflict", "late", 2, "committed is durable on a majority"),
    ("serves_old_terms", "cut-off", 2, "committed is durable on a majority"),
    # reads
    ("reads_do_not_wait_for_a_round", "cut-off", 1, "real-time order"),
    ("any_echo_confirms_a_round", "cut-off", 1, "real-time order"),
    ("reads_join_rounds_that_are_out", "led", 3, "one answer a read"),
    # members
    ("who_is_to_go_has_gone", "members", 1, "a change of members goes by its steps"),
    ("the_old_set_decides_alone", "members", 3, "committed is durable on a majority"),
    ("joint_consensus_is_taken_back", "joint", 2, "a change of members goes by its steps"),
    ("what_was_overruled_stays_in_force", "overruled", 4, "the newest configuration is in force"),
    # snapshots
    ("a_log_that_is_long_enough_holds_the_snapshot", "snapshot-parted", 1, "State Machine Safety"),
    ("the_old_log_is_taken_for_the_base", "snapshot-behind", 2, "installed is durable"),
    ("the_tails_members_stay", "snapshot-over-members", 2, "the newest configuration is in force"),
    ("a_snapshot_has_the_members_of_now", "members", 4, "a snapshot has the members of its index"),
    ("the_log_begins_one_too_late", "snapshot-behind", ON_THE_WAY, "a node comes to rest"),
]
"""(what is planted, from where it is found, after how many choices, by which property)"""


@pytest.mark.parametrize("start", STARTS)
def test_every_property_holds_whatever_happens(start):
    explored = explore(20, start, STATES_MAX)
    assert explored.found is None
    assert explored.ended_by == "states"
    assert explored.depth >= 3
    assert explored.merged > explored.states // 2


@pytest.mark.parametrize(("name", "start", "choices", "cause"), FOUND)
def test_what_is_planted_is_found(name, start, choices, cause, monkeypatch):
    (OWN.get(name) or PLANTED[name])(monkeypatch)
    found = explore(choices, start, STATES_MAX).found
    assert found is not None
    assert isinstance(found.cause, AssertionError)
    assert getattr(found.cause, "name", "") == cause
    assert found.was_on_the_way if choices == ON_THE_WAY else len(found.choices) == choices
    assert len([line for line in found.story if line[0].isdigit()]) == len(found.choices)


def test_what_is_found_is_told_choice_by_choice_and_happens_again(monkeypatch):
    PLANTED["truncates_what_does_not_conflict"](monkeypatch)
    found = explore(3, "late", STATES_MAX).found
    assert found is not None
    worlds = Worlds(STARTS["late"].rules)
    driver = Driver(worlds)
    STARTS["late"].lead(driver)
    *before, last = found.choices
    world = driver.world
    for choice in before:
        world = worlds.after(world, choice)
    with pytest.raises(Violated, match="committed is durable on a majority"):
        worlds.after(world, last)
    told = str(found)
    assert told.startswith("Violated: committed is durable on a majority")
    assert "1. deliver a→b, number 3 of those in flight: AppendEntries(term=1, prev_index=1" in told
    assert "2. sync b" in told


def test_the_same_exploration_visits_the_same_states_whatever_the_hash_seed():
    told = {
        subprocess.run(
            [sys.executable, "-c", TELL],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for hash_seed in ("0", "4711")
    }
    assert len(told) == 1
    assert "states=3" in told.pop()


# ------------------------------------------------------------------------------- what is merged is equal

WALKS = 40
WALK_STEPS = 100
LIKELY = {"deliver": 40, "sync": 40, "start": 20, "put": 5, "heartbeat": 8, "read": 5}
"""Else nobody would ever lead."""


def walk(seed: int, worlds: Worlds) -> None:
    """One random way, gone twice: from state to state as explorations go it, and by nodes that simply go on."""
    rng, rules = Random(seed), worlds.rules
    world = worlds.first()
    live: list[_Node] = [pickle.loads(worlds.nodes._packed[number]) for number in world.nodes]  # noqa: S301
    for _ in range(WALK_STEPS):
        possible = list(worlds.choices(world))
        (choice,) = rng.choices(possible, [LIKELY.get(one.kind, 1) for one in possible])
        if choice.kind != "lose":
            place, what = choice.place, What(choice.kind, choice.number)
            if choice.kind == "deliver":
                place, what = _LINKS[choice.place][1], What("deliver", world.links[choice.place][choice.number])
            step = worlds.nodes.step(world.nodes[place], what)
            turns = _Turns(live[place], worlds.nodes.messages, prompt=rules.disks_are_prompt)
            turns.happens(what)
            assert [(to, worlds.nodes.messages[one]) for to, one in step.sent] == turns.sent
            assert list(step.reads) == turns.reads
            assert worlds.nodes.facts[step.after] == _facts(live[place])
        world = worlds.after(world, choice)


@pytest.mark.parametrize(("any_order", "more"), [(False, False), (True, False), (False, True)])
def test_nodes_that_are_taken_for_equal_do_the_same(any_order, more):
    rules = Rules(any_order=any_order, reads=True, transfers=True, term_max=9, entries_max=9, lives_max=3)
    if more:
        rules = replace(rules, snapshots=True, listed=2, members=("abc", "ab", "bc", "b+c"))
    worlds = Worlds(rules)
    for seed in range(WALKS):
        walk(seed, worlds)
    assert worlds.nodes.steps_made < WALKS * WALK_STEPS, "some steps were made before, by nodes taken for equal"


@pytest.mark.parametrize("forgotten", ["office", "progress", "outbox", "campaign", "refused", "_held"])
def test_a_fingerprint_that_forgets_something_is_noticed(forgotten, monkeypatch):
    monkeypatch.setattr(fingerprint, "_LEFT_OUT", fingerprint._LEFT_OUT | {forgotten})
    worlds = Worlds(Rules(term_max=9, entries_max=9, lives_max=3))

    def walks() -> None:
        for seed in range(WALKS):
            walk(seed, worlds)

    with pytest.raises(Exception):  # noqa: B017 (the two ways part, or one of them breaks)
        walks()


# ------------------------------------------------------------------------------------------ the properties


def frames(*terms: int) -> tuple[bytes, ...]:
    return tuple(framing.encode(framing.EntryKind.NOOP, term=term, index=index) for index, term in enumerate(terms, 1))


def node(name, *terms, role=Role.FOLLOWER, term=3, commit=0, vote=None, durable=None):
    log = frames(*terms)
    held = log if durable is None else frames(*durable)
    return Facts(name, 1, role, term, log, commit, log[:commit], (), (term, vote), held, hears=False)


A, B, C = NAMES
BROKEN = [
    ("Election Safety", [node(A, role=Role.LEADER, vote=A), node(B), node(C)], History(leaders=((3, B),))),
    ("elected by a majority", [node(A, role=Role.LEADER, vote=A), node(B), node(C, vote=B)], History()),
    ("Log Matching", [node(A, 1, 2, 3), node(B, 1, 1, 3), node(C)], History()),
    ("State Machine Safety", [node(A, 1, 2, commit=2), node(B), node(C)], History(committed=frames(1, 1))),
    ("committed is durable on a majority", [node(A, 1, commit=1), node(B, 1, durable=()), node(C)], History()),
    ("committed is durable on a majority", [node(A), node(B, 1), node(C)], History(committed=frames(1))),
    (
        "Leader Completeness",
        [node(A, 1, role=Role.LEADER, vote=A), node(B, 1, 1, vote=A), node(C, 1, 1)],
        History(committed=frames(1, 1)),
    ),
]


@pytest.mark.parametrize(("name", "nodes", "history"), BROKEN)
def test_each_property_of_a_whole_state_can_fail(name, nodes, history):
    with pytest.raises(Violated, match=name):
        after_step(nodes, nodes[0], history)


def test_what_is_right_is_left_alone():
    nodes = [node(A, 1, 3, role=Role.LEADER, vote=A, commit=1), node(B, 1, vote=A), node(C, 1, 2, 2, term=2, vote=C)]
    after = after_step(nodes, nodes[0], History(leaders=((2, C),), committed=frames(1)))
    assert after == History(leaders=((2, C), (3, A)), committed=frames(1))


def test_a_read_from_before_its_question_is_noticed():
    history = History(reads=((A, 2), (B, 1)))
    assert read_answered(A, 2, history) == read_answered(A, None, history) == History(reads=((B, 1),))
    with pytest.raises(Violated, match="real-time order"):
        read_answered(A, 1, history)
    with pytest.raises(Violated, match="one answer a read"):
        read_answered(C, 1, history)


# --------------------------------------------------------------------------------------------- bounds


def test_an_exploration_keeps_to_its_bounds():
    looks = iter(range(20))
    assert explore(2, "led").ended_by == "depth"
    assert explore(2, "led").depth == 2
    assert explore(9, "led", 500).ended_by == "states"
    stopped = explore(9, "led", stop=lambda: next(looks, None) is None)
    assert (stopped.ended_by, stopped.found) == ("told to stop", None)
    quiet = Rules(term_max=0, entries_max=0, crashes=False)
    assert (explore(9, rules=quiet).ended_by, explore(9, rules=quiet).states) == ("nothing is left", 1)


def test_the_rules_say_what_may_happen():
    def kinds(rules: Rules) -> set[str]:
        worlds = Worlds(rules)
        driver = Driver(worlds)
        STARTS["late"].lead(driver) if rules.any_order else STARTS["uncommitted"].lead(driver)
        return {choice.kind for choice in worlds.choices(driver.world)}

    assert kinds(Rules()) == {"deliver", "lose", "sync", "crash", "time out", "heartbeat", "put"}
    assert kinds(Rules(any_order=True)) == {"deliver", "crash", "time out", "heartbeat"}
    more = Rules(reads=True, transfers=True, crashes=False, term_max=1)
    assert kinds(more) == {"deliver", "lose", "sync", "heartbeat", "put", "read", "hand over"}
