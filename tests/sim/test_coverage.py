"""What random runs come across, by name: the rules of the paper with their results, and the rare situations.

Checks say that nothing went wrong; this says that it could have. Looking changes nothing.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

import pytest

from raftkv.core import rules
from raftkv.core.types import Index, NodeId, Term
from raftkv.sim.checks import coverage
from raftkv.sim.checks.coverage import (
    OF_CLIENTS,
    Situations,
    result_names,
    results_of,
    rule_names,
    rules_are_counted,
    situation_names,
)
from raftkv.sim.runs.counted import COVERED_EVERY, Tally, counted
from raftkv.sim.runs.short import short_run
from raftkv.sim.runs.whole import Run, RunOptions

SEEDS: Final = range(60)
SOAK_SEEDS: Final = range(300)
SHORT_SEEDS: Final = range(200)

HARDLY: Final = {
    "a leader heard of its successor": "it steps down for want of a majority first, nearly always",
    "such an entry gave way (Figure 8, fourth column)": "three changes of leader in a certain order",
}
"""Not seen in some hundreds of runs, and why."""
SELDOM: Final = HARDLY | {
    "a vote was held until its term was durable and became void": "a newer term comes within one sync",
    "a vote was given to the same candidate again": "a request comes twice and the vote is durable between",
    "a transfer was given up": "the target must fail just then",
    "a leader's disk hung, and it handed over": "a disk must hang at a leader whose followers are well",
    "a leader's disk hung, and nobody could take over": "a disk must hang while the followers are away",
    "a follower's uncommitted entries gave way": "its leader must be cut off with it, or fall before it commits",
    "a refusal named the conflicting term": "two logs must part below the end of both",
    "entries were read from disk to be applied": "only where memory holds hardly any",
    "a crash lost a vote or a term": "a crash within one sync of a vote",
    "a session expired": "a client must be kept from it for a session's whole life",
    "a session expired with a write in doubt": "the same, while a write is under way",
    "a write was overtaken at its index": "its client must still wait at a leader that has fallen",
    "a write's deadline passed at its node": "clients are less patient than nodes",
    "own_vote_counts → False": "the disk finishes an older write while a candidate waits for its own",
    "candidate_was_removed → True": "who left must miss that, and ask somebody who hears a leader: 2 of 70 runs",
    "a snapshot was captured in joint consensus": "members must change just then",
    "a capture was given up for a snapshot that came": "a node must fall behind while it writes its own",
    "a disk had no room": "one of many kinds of faults, and only where logs are files",
    "a disk had room again": "the same",
    "a node refused to start from what its directory held": "a bit must be flipped, and seldom is where members change",
    "log_goes_on_after_snapshot → True": "a log must catch up with a snapshot that is on its way to it",
    "configuration_without → a value": "a learner must fall silent in the middle of a change",
    "configuration_without → None": "the same",
}
"""Not seen in every sixty runs, and why."""
NEVER: Final = {
    "new_leader_may_serve → False": "the commit index is looked at first, and says the same",
    "state_is_wrong → True": "the machines of these runs are right",
}
"""Cannot be seen, and why."""


def seen_in(seeds: range) -> Counter[str]:
    """In how many of the runs each came about."""
    counts: Counter[str] = Counter()
    for seed in seeds:
        made, asked = Run(seed), Counter[str]()
        situations = Situations(made.cluster.nodes)
        made.cluster.watchers.append(situations)
        with rules_are_counted(asked):
            made.whole()
        situations.clients_were_told(made.workload.tally)
        counts.update({*situations.counts, *asked})
    return counts


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("seeds", "excused"),
    [
        pytest.param(SEEDS, SELDOM | NEVER, id="sixty"),
        pytest.param(SOAK_SEEDS, HARDLY | NEVER, id="hundreds", marks=pytest.mark.soak),
    ],
)
def test_runs_see_all_but_what_is_excused_by_name(seeds, excused):
    seen = seen_in(seeds)
    missing = [name for name in (*situation_names(), *result_names()) if not seen[name]]
    assert [name for name in missing if name not in excused] == []
    assert [name for name in NEVER if seen[name]] == [], "it is no longer excused"


def test_only_what_has_a_name_is_excused():
    assert set(SELDOM | NEVER) <= {*situation_names(), *result_names()}


def test_short_runs_ask_most_rules():
    asked: Counter[str] = Counter()
    with rules_are_counted(asked):
        for seed in SHORT_SEEDS:
            short_run(seed)
    never = [name for name in result_names() if not asked[name]]
    assert len(never) < 16, never


def test_a_run_that_is_looked_at_is_the_same_run():
    made = Run(5)
    made.cluster.watchers.insert(0, Situations(made.cluster.nodes))
    with rules_are_counted(Counter()):
        looked_at = made.whole()
    assert looked_at == Run(5).whole()


def test_rules_are_their_own_again_afterwards():
    before = {name: getattr(rules, name) for name in rule_names()}
    with pytest.raises(TypeError), rules_are_counted(Counter()):
        rules.term_is_news()  # type: ignore[call-arg]
    assert {name: getattr(rules, name) for name in rule_names()} == before


def test_answers_are_counted_by_rule_and_kind():
    counts: Counter[str] = Counter()
    with rules_are_counted(counts):
        assert rules.term_is_news(theirs=2, ours=1)
        assert not rules.term_is_news(theirs=1, ours=1)
        assert rules.hash_of_a_majority((frozenset({NodeId("a")}),), {}) is None
        assert rules.follower_commit_index(ours=Index(1), leaders=Index(0), last_checked=Index(0)) == 1
    assert counts == {
        "term_is_news → True": 1,
        "term_is_news → False": 1,
        "hash_of_a_majority → None": 1,
        "follower_commit_index → a value": 1,
    }


def test_a_rule_says_itself_what_it_can_come_to():
    assert results_of("term_is_stale") == ["term_is_stale → True", "term_is_stale → False"]
    assert results_of("hash_of_a_majority") == ["hash_of_a_majority → a value", "hash_of_a_majority → None"]
    assert results_of("confirmed_round") == ["confirmed_round → a value"]


def test_every_name_is_one_of_its_kind():
    names = [*situation_names(), *result_names()]
    assert len(set(names)) == len(names)


def test_what_clients_were_told_is_counted_once():
    situations = Situations({})
    situations.clients_were_told({"Superseded": 2, "Applied": 9})
    assert situations.counts == {"a write was overtaken at its index": 2}
    assert all(whats for whats in OF_CLIENTS.values())


def test_one_run_of_some_is_looked_at():
    tallies = [counted(seed, RunOptions()) for seed in range(2 * COVERED_EVERY)]
    assert all(isinstance(tally, Tally) for tally in tallies)
    assert [seed for seed, tally in enumerate(tallies) if isinstance(tally, Tally) and tally.rules] == [
        0,
        COVERED_EVERY,
    ]


def test_the_log_of_before_is_remembered_by_its_terms():
    before = coverage.Before(last=5, term_runs=[(Index(1), Term(1)), (Index(4), Term(3))])
    assert [before.term_at(index) for index in (0, 1, 3, 4, 5, 6)] == [0, 1, 1, 3, 3, 0]
    assert before.last_term == 3
