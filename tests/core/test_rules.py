"""The paper's rules and the arithmetic under them, a table each: what is so, what is not, the boundary between."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest

from raftkv.core import quorum, rules
from raftkv.core.types import Index, NodeId, Term

A, B, C, D, E = (NodeId(name) for name in "abcde")
ONE, THREE, FOUR, FIVE = (frozenset(map(NodeId, names)) for names in ("a", "abc", "abcd", "abcde"))
JOINT = (THREE, frozenset({C, D, E}))


def cases(names: str, *rows: Sequence[object]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize([name.strip() for name in names.split(",")], rows)


# -------------------------------------------------------------------------------------------- quorum


@cases("voters, least", (1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (6, 4), (7, 4))
def test_majority_count(voters, least):
    """Paper §5.2: more than half."""
    assert quorum.majority_count(voters) == least
    assert 2 * least > voters >= 2 * (least - 1)


@cases(
    "sets, agreeing, verdict",
    ((ONE,), {A}, True),
    ((ONE,), set(), False),
    ((THREE,), {A, B}, True),
    ((THREE,), {A}, False),
    ((THREE,), {A, D, E}, False),
    ((FOUR,), {A, B}, False),
    ((FOUR,), {A, B, C}, True),
    (JOINT, {A, B}, False),
    (JOINT, {D, E}, False),
    (JOINT, {A, B, D}, False),
    (JOINT, {A, C, D}, True),
    (JOINT, {A, B, D, E}, True),
)
def test_has_majority(sets, agreeing, verdict):
    """Paper §5.2, §6: of each set, and strangers do not count."""
    assert quorum.has_majority(sets, agreeing) is verdict


@cases(
    "sets, refusing, verdict",
    ((THREE,), {A}, False),
    ((THREE,), {A, B}, True),
    ((THREE,), {D, E}, False),
    ((FOUR,), {A}, False),
    ((FOUR,), {A, B}, True),
    (JOINT, {A, D}, False),
    (JOINT, {A, B}, True),
    (JOINT, {D, E}, True),
)
def test_majority_is_out_of_reach(sets, refusing, verdict):
    """Paper §5.2, §6: one set that cannot agree any more is enough."""
    assert quorum.majority_is_out_of_reach(sets, refusing) is verdict


@cases(
    "sets, values, reached",
    ((ONE,), {A: 7}, 7),
    ((THREE,), {A: 9, B: 5, C: 2}, 5),
    ((THREE,), {A: 9, B: 5}, 5),
    ((THREE,), {A: 9}, 0),
    ((THREE,), {A: 9, D: 8, E: 8}, 0),
    ((FOUR,), {A: 9, B: 8, C: 3, D: 1}, 3),
    ((FIVE,), {A: 9, B: 8, C: 3, D: 1, E: 1}, 3),
    (JOINT, {A: 9, B: 9, C: 4, D: 4, E: 1}, 4),
    (JOINT, {A: 9, B: 9, C: 1, D: 4, E: 1}, 1),
    (JOINT, {A: 1, B: 1, C: 9, D: 9, E: 9}, 1),
)
def test_majority_value(sets, values, reached):
    """Paper §5.3, §6: the median of three, the lower middle of four, the lesser of two sets."""
    assert quorum.majority_value(sets, values) == reached


def test_majority_value_counts_who_is_missing_as_told():
    assert quorum.majority_value((THREE,), {A: 9}, missing=4) == 4


# --------------------------------------------------------------------------------------------- terms


@cases("theirs, ours, verdict", (4, 5, False), (5, 5, False), (6, 5, True))
def test_term_is_news(theirs, ours, verdict):
    """Paper §5.1"""
    assert rules.term_is_news(theirs=theirs, ours=ours) is verdict


@cases("theirs, ours, verdict", (4, 5, True), (5, 5, False), (6, 5, False))
def test_term_is_stale(theirs, ours, verdict):
    """Paper §5.1"""
    assert rules.term_is_stale(theirs=theirs, ours=ours) is verdict


# ----------------------------------------------------------------------------------------- elections


def test_randomized_election_timeout_us():
    """Paper §5.2: spread over all of [E, 2E), and never outside."""
    rng = Random(7)
    drawn = [rules.randomized_election_timeout_us(rng, lower_us=1000) for _ in range(20_000)]
    assert (min(drawn), max(drawn)) == (1000, 1999)
    assert len(set(drawn)) == 1000


@cases(
    "theirs, ours, verdict",
    ((2, 5), (2, 5), True),
    ((2, 6), (2, 5), True),
    ((2, 4), (2, 5), False),
    ((3, 1), (2, 9), True),
    ((1, 9), (2, 1), False),
    ((0, 0), (0, 0), True),
    ((0, 0), (1, 1), False),
)
def test_candidate_is_up_to_date(theirs, ours, verdict):
    """Paper §5.4.1, faults 16: the last term decides, then the length; (term, index) each."""
    found = rules.candidate_is_up_to_date(
        candidates_last_term=theirs[0],
        candidates_last_index=theirs[1],
        our_last_term=ours[0],
        our_last_index=ours[1],
    )
    assert found is verdict


@cases("voted_for, verdict", (None, True), (B, True), (C, False))
def test_vote_is_free(voted_for, verdict):
    """Paper §5.2, faults 2"""
    assert rules.vote_is_free(voted_for=voted_for, candidate=B) is verdict


@cases(
    "heard_us, transfer, verdict",
    (None, False, False),
    (1000, False, True),
    (701, False, True),
    (700, False, False),
    (0, False, False),
    (1000, True, False),
)
def test_vote_is_withheld(heard_us, transfer, verdict):
    """Paper §6, thesis §4.2.3, §3.10: at 1000, with E = 300; a transfer is the leader's own wish."""
    found = rules.vote_is_withheld(
        last_heard_leader_us=heard_us, now_us=1000, election_timeout_us=300, transfer=transfer
    )
    assert found is verdict


@cases(
    "proposed, current, withheld, up_to_date, verdict",
    (6, 5, False, True, True),
    (5, 5, False, True, False),
    (4, 5, False, True, False),
    (6, 5, True, True, False),
    (6, 5, False, False, False),
)
def test_pre_vote_is_granted(proposed, current, withheld, up_to_date, verdict):
    """Thesis §9.6, faults 15"""
    found = rules.pre_vote_is_granted(
        proposed_term=proposed, current_term=current, withheld=withheld, up_to_date=up_to_date
    )
    assert found is verdict


@cases("durable, verdict", ((5, A), True), ((5, None), False), ((5, B), False), ((4, A), False), ((6, A), False))
def test_own_vote_counts(durable, verdict):
    """Paper Figure 2 "persistent state", faults 2"""
    assert rules.own_vote_counts(durable_vote=durable, term=Term(5), me=A) is verdict


@cases(
    "sets, granted, verdict",
    ((THREE,), {A, B}, True),
    ((THREE,), {A}, False),
    ((FOUR,), {A, B}, False),
    (JOINT, {A, B, C}, False),
    (JOINT, {B, C, D}, True),
)
def test_has_won_election(sets, granted, verdict):
    """Paper §5.2, §6, faults 24"""
    assert rules.has_won_election(sets, granted) is verdict


@cases("me, verdict", (A, True), (C, True), (E, True), (NodeId("x"), False))
def test_may_stand(me, verdict):
    """Thesis §4.2.1: a voter of either set."""
    assert rules.may_stand(JOINT, me) is verdict


# ------------------------------------------------------------------------------------------- the log


@cases("prev_term, ours, verdict", (3, 3, True), (3, 2, False), (3, None, False), (0, 0, True), (0, None, False))
def test_log_matches(prev_term, ours, verdict):
    """Paper §5.3, Figure 2 AppendEntries 2"""
    assert rules.log_matches(prev_term=prev_term, our_term_at_prev=ours) is verdict


@cases("ours, leaders, verdict", (None, 3, False), (3, 3, False), (2, 3, True), (4, 3, True))
def test_entry_conflicts(ours, leaders, verdict):
    """Paper §5.3, Figure 2 AppendEntries 3, faults 7: what is not there does not conflict."""
    assert rules.entry_conflicts(our_term=ours, leaders_term=leaders) is verdict


@cases(
    "ours, leaders, checked, commit", (3, 9, 5, 5), (3, 4, 5, 4), (3, 5, 5, 5), (3, 9, 2, 3), (3, 2, 5, 3), (0, 0, 0, 0)
)
def test_follower_commit_index(ours, leaders, checked, commit):
    """Paper Figure 2 AppendEntries 5, faults 6 and 10: bounded by what was checked, and never falls."""
    found = rules.follower_commit_index(ours=Index(ours), leaders=Index(leaders), last_checked=Index(checked))
    assert found == commit


@cases("leaders, match, commit", (9, 5, 5), (5, 9, 5), (5, 5, 5), (9, 0, 0))
def test_heartbeat_commit_index(leaders, match, commit):
    """Paper §5.3, for a message without prev"""
    assert rules.heartbeat_commit_index(leaders=Index(leaders), match=Index(match)) == commit


@cases("known, reported, match", (3, 5, 5), (5, 3, 5), (5, 5, 5))
def test_match_index_after(known, reported, match):
    """Paper Figure 2 "volatile state on leaders", faults 10"""
    assert rules.match_index_after(known=Index(known), reported=Index(reported)) == match


@cases(
    "match, refused, conflict, ours, next_index",
    (0, 10, 4, None, 4),  # the leader has nothing of that term: to where it began there
    (0, 10, 4, 6, 7),  # the logs can agree as far as the leader's last entry of that term
    (0, 10, 4, 2, 3),
    (0, 10, 11, None, 10),  # never forward of what was refused …
    (0, 10, 4, 12, 10),
    (5, 10, 4, None, 6),  # … nor back into what is known to match
    (5, 10, 4, 3, 6),
    (0, 1, 1, None, 1),
)
def test_next_index_after_refusal(match, refused, conflict, ours, next_index):
    """Paper §5.3 (the end), faults 13"""
    found = rules.next_index_after_refusal(
        match=Index(match),
        refused_prev=Index(refused),
        conflict_index=Index(conflict),
        our_last_index_of_conflict_term=ours,
    )
    assert found == next_index


# -------------------------------------------------------------------------------------------- commit


@cases(
    "sets, match, index",
    ((THREE,), {A: 5, B: 4, C: 0}, 4),
    ((THREE,), {B: 4, C: 3}, 3),  # the leader's own disk is behind, or it is no voter
    ((FOUR,), {A: 5, B: 5, C: 2, D: 1}, 2),
    (JOINT, {A: 9, B: 9, C: 9, D: 0, E: 0}, 0),
)
def test_majority_match_index(sets, match, index):
    """Paper §5.3, §6; thesis §10.2.1, faults 1"""
    assert rules.majority_match_index(sets, match) == index


@cases(
    "commit, majority, term, index",
    (3, 5, 4, 5),
    (3, 5, 3, 3),  # on a majority, but of an old term
    (3, 5, None, 3),
    (3, 3, 4, 3),
    (3, 2, 4, 3),
)
def test_leader_commit_index(commit, majority, term, index):
    """Paper §5.4.2, Figure 8, faults 4 and 5: in term 4"""
    found = rules.leader_commit_index(
        commit=Index(commit), majority_match=Index(majority), term_at_match=term, current_term=Term(4)
    )
    assert found == index


@cases("term_at_commit, verdict", (4, True), (3, False), (None, False), (0, False))
def test_new_leader_may_serve(term_at_commit, verdict):
    """Paper §8, thesis §6.4, faults 33: in term 4"""
    assert rules.new_leader_may_serve(term_at_commit=term_at_commit, current_term=Term(4)) is verdict


# --------------------------------------------------------------------------------------------- reads


@cases(
    "sets, echoed, newest",
    ((ONE,), {A: 4}, 4),
    ((THREE,), {A: 9, B: 7, C: 2}, 7),
    ((THREE,), {A: 9}, 0),
    ((THREE,), {B: 7, C: 6}, 6),  # a leader that is no voter does not count itself
    (JOINT, {A: 9, B: 9, C: 3, D: 5, E: 1}, 3),
)
def test_confirmed_round(sets, echoed, newest):
    """Thesis §6.4, faults 34 and 37"""
    assert rules.confirmed_round(sets, echoed) == newest


# -------------------------------------------------------------------------------------------- leases


@cases(
    "promised_us, per_mille, lease_us",
    (300_000, 1, 299_698),
    (300_000, 100, 272_725),
    (300_000, 1000, 149_998),
    (0, 100, -2),
)
def test_lease_duration_us(promised_us, per_mille, lease_us):
    """Thesis §6.4.1, faults 36"""
    assert rules.lease_duration_us(promised_us=promised_us, clock_drift_max_per_mille=per_mille) == lease_us


@cases("per_mille, slow, fast", (1, 1000, 1001), (100, 1000, 1100), (223, 900, 1100), (1000, 700, 1400), (1000, 1, 2))
def test_a_lease_is_over_before_the_promise_is_on_the_fastest_clock_allowed(per_mille, slow, fast):
    """Thesis §6.4.1: clocks that show so many thousandths of the time, cut to microseconds wherever they begin."""
    rng = Random(1)
    for _ in range(500):
        promised_us, heard = rng.randrange(2_000, 600_000), rng.randrange(10**9)
        lease_us = rules.lease_duration_us(promised_us=promised_us, clock_drift_max_per_mille=per_mille)
        first_free = next(
            t
            for t in range(promised_us * 1000 // fast - 2, 10**9)
            if _shown(heard + t, fast) >= _shown(heard, fast) + promised_us
        )
        assert not rules.lease_is_held(
            end_us=_shown(heard, slow) + lease_us, now_us=_shown(heard + first_free, slow), forgone=False
        )


@cases("per_mille, slow, fast", (1, 1000, 1001), (100, 1000, 1100), (223, 900, 1100), (1000, 1, 2))
def test_passed_elsewhere_us(per_mille, slow, fast):
    """Thesis §6.4.1: never more than the slowest clock allowed shows, while the fastest shows so much; hardly less."""
    rng = Random(2)
    for _ in range(500):
        began, lasted = rng.randrange(10**9), rng.randrange(10**7)
        passed_us = _shown(began + lasted, fast) - _shown(began, fast)
        at_least_us = rules.passed_elsewhere_us(passed_us=passed_us, clock_drift_max_per_mille=per_mille)
        elsewhere_us = _shown(began + lasted, slow) - _shown(began, slow)
        assert elsewhere_us - passed_us // 1000 - 4 <= at_least_us <= elsewhere_us


def _shown(world_us: int, per_mille: int) -> int:
    return world_us * per_mille // 1000


@cases(
    "sets, promised, end",
    ((ONE,), {A: 9}, 9),
    ((THREE,), {A: 9, B: 7, C: 0}, 7),
    ((THREE,), {A: 9}, 0),
    ((THREE,), {B: 7, C: 6}, 6),  # a leader that is no voter
    ((FIVE,), {A: 9, B: 8, C: 3}, 3),
    ((THREE,), {A: 9, D: 9, E: 9}, 0),
    (JOINT, {A: 9, B: 9, C: 1, D: 2, E: 2}, 2),
    (JOINT, {A: 1, B: 1, C: 9, D: 9, E: 9}, 1),
)
def test_lease_end_us(sets, promised, end):
    """Thesis §6.4.1, paper §6, faults 36 and 37: of each set in force"""
    assert rules.lease_end_us(sets, promised) == end


@cases("now, forgone, verdict", (4, False, True), (5, False, False), (6, False, False), (4, True, False))
def test_lease_is_held(now, forgone, verdict):
    """Thesis §6.4.1, §3.10: until 5"""
    assert rules.lease_is_held(end_us=5, now_us=now, forgone=forgone) is verdict


@cases("term, leases, verdict", (0, True, False), (1, True, True), (7, True, True), (7, False, False))
def test_vote_may_be_promised(term, leases, verdict):
    """Thesis §6.4.1, §4.2.3"""
    assert rules.vote_may_be_promised(saved_term=term, leases=leases) is verdict


# ----------------------------------------------------------------------------------------- in office


@cases(
    "sets, heard_us, at_us",
    ((THREE,), {A: 1000, B: 701}, 1001),
    ((THREE,), {A: 1000, B: 700}, 1000),
    ((THREE,), {A: 1000, B: 0, C: 999}, 1299),
    ((THREE,), {B: 1000, C: 1000}, 1300),
    ((THREE,), {A: 1000, D: 1000, E: 1000}, 0),
    ((ONE,), {A: 1000}, 1300),
    (JOINT, {A: 1000, B: 1000, C: 1000}, 0),
    (JOINT, {A: 1000, B: 900, C: 1000, D: 800, E: 600}, 1100),
    (JOINT, {A: 1000, B: 900, D: 400, E: 600}, 700),
)
def test_leader_loses_its_majority_at(sets, heard_us, at_us):
    """Thesis §6.2, faults 18: with E = 300"""
    assert rules.leader_loses_its_majority_at_us(sets, heard_us, election_timeout_us=300) == at_us


@cases("oldest_us, verdict", (700, False), (699, True), (1000, False))
def test_disk_has_stalled(oldest_us, verdict):
    """Paper §5.6, faults 22: at 1000, with E = 300"""
    assert rules.disk_has_stalled(oldest_write_us=oldest_us, now_us=1000, election_timeout_us=300) is verdict


@cases("match, last, verdict", (5, 5, True), (4, 5, False), (0, 5, False), (0, 0, True))
def test_transfer_target_is_ready(match, last, verdict):
    """Thesis §3.10, faults 20"""
    assert rules.transfer_target_is_ready(target_match=Index(match), our_last_index=Index(last)) is verdict


# -------------------------------------------------------------------------------------- equal states


@cases(
    "sets, hashes, agreed",
    ((ONE,), {A: b"x"}, b"x"),
    ((THREE,), {A: b"x", B: b"x"}, b"x"),
    ((THREE,), {A: b"y", B: b"x", C: b"x"}, b"x"),
    ((THREE,), {A: b"x", B: b"y"}, None),
    ((THREE,), {A: b"x", B: b"y", C: b"z"}, None),
    ((THREE,), {A: b"x", D: b"x", E: b"x"}, None),  # who does not vote does not decide
    ((FIVE,), {A: b"y", B: b"y", C: b"x", D: b"x", E: b"x"}, b"x"),
    ((FIVE,), {A: b"x", B: b"x"}, None),
    (JOINT, {A: b"x", B: b"x", C: b"y"}, None),
    (JOINT, {A: b"x", B: b"x", D: b"x", E: b"x"}, b"x"),
)
def test_hash_of_a_majority(sets, hashes, agreed):
    """Paper §5.3, Figure 3, faults 61"""
    assert rules.hash_of_a_majority(sets, hashes) == agreed


@cases("own, agreed, verdict", (b"x", b"x", False), (b"x", b"y", True), (b"y", b"x", True))
def test_state_is_wrong(own, agreed, verdict):
    """Paper Figure 3, faults 61"""
    assert rules.state_is_wrong(own=own, agreed=agreed) is verdict


# ---------------------------------------------------------------------------------------- durability


@cases("durable, cut, after", (9, 5, 4), (5, 5, 4), (4, 5, 4), (2, 5, 2), (9, 1, 0))
def test_durable_index_after_truncation(durable, cut, after):
    """Paper Figure 2 "persistent state", faults 12"""
    assert rules.durable_index_after_truncation(durable=Index(durable), truncated_from=Index(cut)) == after


@cases("match, durable, verdict", (4, 5, True), (5, 5, True), (6, 5, False), (0, 0, True))
def test_append_reply_may_leave(match, durable, verdict):
    """Paper §5.3, faults 2"""
    assert rules.append_reply_may_leave(match=Index(match), durable=Index(durable)) is verdict
