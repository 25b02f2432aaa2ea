"""What each outcome is to an embedder, and that every outcome is something: by the words of http-api.md."""

from __future__ import annotations

from typing import Any

import pytest

from raftkv import NotLeader, OutcomeUnknown, Rejected, Unreachable
from raftkv.node.embedding import Raised, applied_answer, not_leader, read_answer, transferred
from raftkv.outcomes import (
    Answered,
    Applied,
    Consistency,
    Leadership,
    ReadTimedOut,
    Refused,
    Superseded,
    TooStale,
    Transferred,
    TransferRefused,
    TransferWhy,
    Unknown,
    Why,
)
from raftkv.problems import Code

FOLLOWS = Leadership(leads=False, term=8, leader_id="n2", leader_url="http://n2.test:7402")
LEADERLESS = Leadership(leads=False, term=9, leader_id=None, leader_url=None)
CODES = {code.text for code in Code}


def why() -> str:
    return "waiting for n2"


def told(call: Any, outcome: Any) -> tuple[type[Exception], str | None]:
    """The exception's type, and its code if it has one."""
    with pytest.raises(Exception) as raised:
        call(outcome, why_no_leader=why)
    return raised.type, getattr(raised.value, "code", None)


REFUSALS = {
    Why.NOT_LEADER: (NotLeader, "not_leader"),
    Why.OVERLOADED: (Rejected, "overloaded"),
    Why.SHUTTING_DOWN: (Rejected, "shutting_down"),
    Why.DISK_FULL: (Rejected, "disk_full"),
    Why.REPLICAS_DISAGREE: (Rejected, "replicas_disagree"),
}


@pytest.mark.parametrize("reason", Why)
def test_a_refusal_is_one_for_writes_and_reads_alike(reason: Why) -> None:
    refused = Refused(reason, FOLLOWS)
    assert told(applied_answer, refused) == told(read_answer, refused) == REFUSALS[reason]


def test_what_was_taken_ends_as_one_of_three() -> None:
    assert applied_answer(Applied(7, "answer"), why_no_leader=why) == "answer"
    assert told(applied_answer, Superseded()) == (Rejected, "superseded")
    assert told(applied_answer, Unknown()) == (OutcomeUnknown, None), "never a refusal (faults 50)"


def test_a_read_is_answered_or_says_why_not() -> None:
    assert read_answer(Answered(7, None, Consistency.STALE), why_no_leader=why) is None
    assert told(read_answer, TooStale(5, None, min_index=6)) == (Rejected, "too_stale")
    assert told(read_answer, ReadTimedOut()) == (Unreachable, None)
    assert told(read_answer, Answered(7, Raised(KeyError("k")), Consistency.STALE)) == (KeyError, None)


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (TooStale(5, 0, min_index=6), "index 6 was asked for, 5 is applied here"),
        (TooStale(5, 80, max_staleness_ms=50), "what is here is 80 ms old, at most 50 ms were asked for"),
        (TooStale(5, None, max_staleness_ms=50), "what is here is of unknown age, at most 50 ms were asked for"),
    ],
)
def test_what_is_too_stale_says_by_how_much(outcome: TooStale, said: str) -> None:
    with pytest.raises(Rejected, match=said):
        read_answer(outcome, why_no_leader=why)


def test_whoever_does_not_lead_says_who_does_or_why_nobody() -> None:
    elsewhere = not_leader(FOLLOWS, why)
    assert (elsewhere.leader_id, elsewhere.leader_url, elsewhere.term) == ("n2", "http://n2.test:7402", 8)
    assert str(elsewhere) == "not_leader: n2 leads"
    nobody = not_leader(LEADERLESS, why)
    assert (nobody.leader_id, nobody.leader_url, nobody.term) == (None, None, 9)
    assert "waiting for n2" in str(nobody)


TRANSFERS = {
    TransferWhy.NOT_LEADER: (NotLeader, "not_leader"),
    TransferWhy.NO_SUCH_MEMBER: (Rejected, "member_not_found"),
    TransferWhy.NOT_A_VOTER: (Rejected, "bad_request"),
    TransferWhy.NO_OTHER_VOTER: (Rejected, "member_unreachable"),
    TransferWhy.IN_PROGRESS: (Rejected, "membership_change_in_progress"),
    TransferWhy.TIMED_OUT: (OutcomeUnknown, None),
}


@pytest.mark.parametrize("reason", TransferWhy)
def test_a_transfer_that_is_not_made_says_why(reason: TransferWhy) -> None:
    with pytest.raises(TRANSFERS[reason][0]) as raised:
        transferred(TransferRefused(reason), FOLLOWS)
    assert getattr(raised.value, "code", None) == TRANSFERS[reason][1]


def test_a_transfer_that_is_made_says_to_whom() -> None:
    done = Transferred("n2", "http://n2.test:7402", 9)
    assert transferred(done, FOLLOWS) is done


def test_every_code_is_of_the_closed_list() -> None:
    assert {code for _, code in (*REFUSALS.values(), *TRANSFERS.values())} - {None} <= CODES
