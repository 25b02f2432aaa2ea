"""What each answer means to a call, and what the call does next."""

from __future__ import annotations

import json
from collections.abc import Iterable
from random import Random

import pytest

from raftkv.client.attempts import (
    PAUSE_US,
    PAUSE_US_MAX,
    REDIRECTS_MAX,
    RETRY_AFTER_MS_MAX,
    Again,
    Call,
    Figures,
    Follow,
    Kind,
    Over,
    Patience,
    Settled,
    Whom,
    address_in,
)
from raftkv.client.routing import Routing, View
from raftkv.client.session import Session
from raftkv.errors import OutcomeUnknown, Rejected, Unreachable
from raftkv.http.exchange import HttpAnswer, NoAnswer, NotSent
from raftkv.problems import Code
from raftkv.values import Address
from tests.client.answers import problem, put_done, redirect

A, B, C, X = (Address(name, 7400) for name in ("a", "b", "c", "x"))
BROKEN = NoAnswer("connection lost")
KINDS = list(Kind)


def routing(leader: Address | None = A, term: int = 5) -> Routing:
    one = Routing((A,), Random(1))
    one.hear(View("k", term, leader, (A, B, C), ()), 0)
    return one


def call(kind: Kind = Kind.NUMBERED, whom: Whom | Address = Whom.LEADER, *, by: Routing | None = None) -> Call:
    one = Call(
        kind,
        whom=whom,
        routing=by or routing(),
        rng=Random(1),
        figures=Figures(),
        patience=Patience(),
        deadline_us=10_000_000,
    )
    if kind is Kind.NUMBERED:
        one.numbered = Session("0" * 32, ttl_us=60_000_000, opened_at_us=0).give()
    one.begin(0)
    return one


def has_number(one: Call) -> bool:
    return one.numbered is not None


# -------------------------------------------------------------------------------------------- one answer

DECIDED = {Code.KEY_NOT_FOUND, Code.PRECONDITION_FAILED}
REPEATED = {
    *(Code.NO_LEADER, Code.TOO_STALE, Code.SUPERSEDED, Code.REPLICAS_DISAGREE, Code.SHUTTING_DOWN),
    *(Code.OVERLOADED, Code.REQUEST_TIMEOUT),
}
OPEN = {Code.INTERNAL, Code.OUTCOME_UNKNOWN, Code.READ_TIMEOUT}
OF_SESSIONS = {Code.SESSION_EXPIRED, Code.TOO_MANY_UNACKNOWLEDGED}
FINAL = set(Code) - DECIDED - REPEATED - OPEN - OF_SESSIONS - {Code.NOT_LEADER}


def by_name(codes: Iterable[Code]) -> list[Code]:
    return sorted(codes, key=lambda code: str(code.text))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_success_settles(kind, status):
    assert call(kind).hear(HttpAnswer(status, {}, b""), A, 0) == Settled()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("code", by_name(DECIDED))
def test_what_the_cluster_decided_settles(kind, code):
    assert call(kind).hear(problem(code), A, 0) == Settled()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("code", by_name(REPEATED))
def test_an_arrival_that_did_nothing_is_repeated(kind, code):
    one = call(kind)
    assert isinstance(one.hear(problem(code), A, 0), Again)
    assert not one.may_have_happened
    assert isinstance(one.out_of_time(), Unreachable)


@pytest.mark.parametrize("code", by_name(FINAL))
@pytest.mark.parametrize("kind", KINDS)
def test_a_final_no_is_told_at_once(kind, code):
    """413, 400, 422, 507 and all the rest."""
    step = call(kind).hear(problem(code), A, 0)
    assert isinstance(step, Over)
    assert isinstance(step.error, Rejected)
    assert (step.error.code, step.error.detail) == (code.text, f"because of {code.text}")


@pytest.mark.parametrize("code", by_name(FINAL))
def test_a_final_no_after_what_may_have_happened_leaves_it_unknown(code):
    """faults 50: a node with other settings may have taken it."""
    one = call()
    one.hear(BROKEN, A, 0)
    step = one.hear(problem(code), A, 0)
    assert isinstance(step, Over)
    assert isinstance(step.error, OutcomeUnknown)


NOT_OURS = [
    HttpAnswer(503, {}, b"<html>"),
    HttpAnswer(502, {b"content-type": b"application/problem+json"}, b'{"code":"bad_gateway"}'),
    HttpAnswer(503, {b"content-type": b"application/problem+json"}, b'{"code":"precondition_failed"}'),
    HttpAnswer(503, {b"content-type": b"application/json"}, b'{"code":"no_leader"}'),
    HttpAnswer(503, {b"content-type": b"application/problem+json"}, b"[" * 100_000),
    HttpAnswer(413, {b"content-type": b"text/plain"}, b"too large, says the proxy"),
    HttpAnswer(400, {}, b""),
    HttpAnswer(301, {b"location": b"http://x:1/"}, b""),
    HttpAnswer(307, {b"location": b"http://b:7400/v1/kv/k"}, b""),
    HttpAnswer(412, {b"content-type": b"application/problem+json"}, b'{"code":["x"]}'),
]
UNDECIDED = [BROKEN, *(problem(code) for code in by_name(OPEN)), *NOT_OURS]


@pytest.mark.parametrize("heard", UNDECIDED, ids=lambda heard: str(getattr(heard, "status", "broken")))
def test_what_may_have_happened_is_repeated_under_its_number_and_else_unknown(heard):
    numbered = call()
    number = numbered.numbered
    assert isinstance(numbered.hear(heard, A, 0), Again)
    assert numbered.numbered is number
    assert numbered.may_have_happened
    assert isinstance(numbered.out_of_time(), OutcomeUnknown)

    read = call(Kind.READ)
    assert isinstance(read.hear(heard, A, 0), Again)
    assert isinstance(read.out_of_time(), Unreachable)

    repeatable = call(Kind.REPEATABLE)
    assert isinstance(repeatable.hear(heard, A, 0), Again)
    assert isinstance(repeatable.out_of_time(), OutcomeUnknown)

    once = call(Kind.ONCE)
    step = once.hear(heard, A, 0)
    assert isinstance(step, Over)
    assert isinstance(step.error, OutcomeUnknown)


def test_an_attempt_that_was_not_sent_did_nothing():
    for kind in KINDS:
        one = call(kind)
        step = one.hear(NotSent("refused"), A, 0)
        assert isinstance(step, Again)
        assert step.ends_with_news
        assert isinstance(one.out_of_time(), Unreachable)


# ------------------------------------------------------------------------------------- numbers and sessions


def test_an_expired_session_is_replaced_where_nothing_can_have_happened():
    one = call()
    assert one.numbered is not None
    session = one.numbered.session
    assert one.hear(problem(Code.NO_LEADER), A, 0) is not None
    assert one.hear(problem(Code.SESSION_EXPIRED), A, 0) == Again(0)
    assert not has_number(one)
    assert (session.is_over, session.unsettled_count) == (True, 0)
    one.numbered = Session("1" * 32, ttl_us=60_000_000, opened_at_us=0).give()
    again = one.hear(problem(Code.SESSION_EXPIRED), A, 0)
    assert isinstance(again, Again)
    assert again.pause_us > 0, "sessions that are over at once are opened with pauses"


def test_an_expired_session_after_what_may_have_happened_leaves_it_unknown():
    one = call()
    one.hear(BROKEN, A, 0)
    step = one.hear(problem(Code.SESSION_EXPIRED), A, 0)
    assert isinstance(step, Over)
    assert isinstance(step.error, OutcomeUnknown)


def test_a_full_session_gives_another_number_where_nothing_can_have_happened():
    """Else a low number could wait for ever for room that the answers to higher ones take."""
    one = call()
    assert one.numbered is not None
    session, step = one.numbered.session, one.hear(problem(Code.TOO_MANY_UNACKNOWLEDGED), A, 0)
    assert isinstance(step, Again)
    assert step.pause_us > 0
    assert not has_number(one)
    assert (session.acknowledged, session.is_over) == (1, False)


def test_a_full_session_after_what_may_have_happened_is_asked_again():
    one = call()
    number = one.numbered
    one.hear(BROKEN, A, 0)
    assert isinstance(one.hear(problem(Code.TOO_MANY_UNACKNOWLEDGED), A, 0), Again)
    assert one.numbered is number


def test_the_end_of_the_session_is_heard_of_before_an_attempt():
    fresh, sent = call(), call()
    for one in (fresh, sent):
        assert one.numbered is not None
        assert one.hear_of_session() is None
    sent.hear(BROKEN, A, 0)
    for one in (fresh, sent):
        assert one.numbered is not None
        one.numbered.session.is_over = True
    assert (fresh.hear_of_session(), fresh.numbered) == (None, None)
    assert isinstance(sent.hear_of_session(), OutcomeUnknown)


def test_a_sign_of_life_hears_that_the_session_is_over():
    step = call(Kind.REPEATABLE).hear(problem(Code.SESSION_EXPIRED), A, 0)
    assert isinstance(step, Over)
    assert isinstance(step.error, Rejected)
    assert step.error.code == "session_expired"


# ---------------------------------------------------------------------------------------------- redirects


def test_a_redirect_to_a_member_is_followed_at_once():
    by = routing()
    assert call(by=by).hear(redirect(B, term=6), A, 0) == Follow(B)
    assert (by.leader, by.term) == (B, 6)


@pytest.mark.parametrize("term", [5, 6, 7])
def test_at_most_three_redirects_are_followed(term):
    """faults 51: followers that disagree make no client run in circles."""
    by = routing(None)
    one = call(by=by)
    at, steps = A, []
    for number in range(REDIRECTS_MAX + 1):
        step = one.hear(redirect(B if at == A else A, term=term + number), at, 0)
        steps.append(type(step))
        at = B if at == A else A
    assert steps == [Follow, Follow, Follow, Again]
    assert by.leader is None
    assert isinstance(step, Again)
    assert step.pause_us >= PAUSE_US // 2
    assert not step.ends_with_news
    one.begin(0)
    assert isinstance(one.hear(redirect(B, term=20), A, 0), Follow)


@pytest.mark.parametrize("terms", [(6, 5), (6, 0)])
def test_no_redirect_to_a_lower_term_is_followed(terms):
    by = routing(None)
    one = call(by=by)
    assert isinstance(one.hear(redirect(B, term=terms[0]), A, 0), Follow)
    by.lose_leader(B)  # as another call may have heard meanwhile
    assert isinstance(one.hear(redirect(C, term=terms[1]), B, 0), Again)


def test_no_redirect_behind_the_leader_that_is_known_is_followed():
    by = routing(B, term=7)
    assert isinstance(call(Kind.READ, by=by).hear(redirect(C, term=6), A, 0), Again)
    assert by.leader == B


@pytest.mark.parametrize("location", [b"", b"/v1/kv/k", b"http://x:7400/v1/kv/k", b"http://b:7400@x:1/v1/kv/k"])
def test_a_redirect_to_nobody_known_is_not_followed_and_members_are_asked_for(location):
    answer = redirect(B)
    answer.fields[b"location"] = location
    step = call().hear(answer, A, 0)
    assert isinstance(step, Again)
    assert step.wants_news


@pytest.mark.parametrize(
    ("location", "address"),
    [
        (b"http://b:7400/v1/kv/k", B),
        (b"http://b:7400/v1/kv/%2F?consistency=lease", B),
        (b"http://[::1]:7400/", Address("::1", 7400)),
        (b"https://b:7400/", None),
        (b"http://b/", None),
        (b"http://b:7400", None),
        (b"http://b:7400/ x", None),
        (b"http://b:7400\\@x/", None),
        (b"http://u@b:7400/", None),
        (b"http://b:7400?@x/", None),
        (b"http://b:7400#/", None),
        (b"http://b:74001/", None),
        (b"http://b:\xb2/", None),
        (b"ftp://b:7400/", None),
    ],
)
def test_only_host_and_port_are_taken_from_a_location(location, address):
    assert address_in(location) == address


# ------------------------------------------------------------------------------------------- whom and when


@pytest.mark.parametrize(
    ("heard", "leader"),
    [
        (NotSent("refused"), None),
        (NotSent("all in use", unreachable=False), A),
        (BROKEN, A),
        (problem(Code.NO_LEADER), None),
        (problem(Code.SHUTTING_DOWN), None),
        (problem(Code.REPLICAS_DISAGREE), None),
        (problem(Code.OVERLOADED), A),
        (problem(Code.SUPERSEDED), A),
        (put_done(), A),
    ],
)
def test_who_leads_is_forgotten_when_it_is_known_to_be_wrong(heard, leader):
    by = routing()
    call(by=by).hear(heard, A, 0)
    assert by.leader == leader


def test_leader_reads_go_to_the_leader_and_others_round():
    by = routing()
    assert call(Kind.READ, by=by).begin(0) == A
    assert {call(Kind.READ, Whom.ANYBODY, by=by).begin(0) for _ in range(6)} == {A, B, C}
    assert call(Kind.READ, X, by=by).begin(0) == X
    by.lose_leader(A)
    assert call(by=by).begin(0) is None


def test_pauses_grow_and_differ():
    one, pauses = call(Kind.READ), []
    for _ in range(12):
        step = one.hear(BROKEN, A, 0)
        assert isinstance(step, Again)
        pauses.append(step.pause_us)
    for number, pause_us in enumerate(pauses):
        longest_us = min(PAUSE_US * 2**number, PAUSE_US_MAX)
        assert longest_us / 2 <= pause_us <= longest_us
    assert len({pause_us / min(PAUSE_US * 2**number, PAUSE_US_MAX) for number, pause_us in enumerate(pauses)}) == 12


@pytest.mark.parametrize(
    ("told", "least_us", "most_us"),
    [
        (300, 300_000, 450_000),
        (1, PAUSE_US / 2, PAUSE_US * 1.5),
        (10**9, RETRY_AFTER_MS_MAX * 1000, RETRY_AFTER_MS_MAX * 1500),
        (-1, PAUSE_US / 2, PAUSE_US),
        ("soon", PAUSE_US / 2, PAUSE_US),
        (True, PAUSE_US / 2, PAUSE_US),
    ],
)
def test_retry_after_is_honoured(told, least_us, most_us):
    step = call().hear(problem(Code.OVERLOADED, retry_after_ms=told), A, 0)
    assert isinstance(step, Again)
    assert least_us <= step.pause_us <= most_us
    assert not step.ends_with_news


def test_a_pause_for_want_of_a_leader_ends_with_one():
    step = call().hear(problem(Code.NO_LEADER, retry_after_ms=300), A, 0)
    assert isinstance(step, Again)
    assert step.ends_with_news


S = 1_000_000


@pytest.mark.parametrize(
    ("whom", "leader", "waited_us", "more_us"),
    [
        (Whom.LEADER, A, 0, S // 2),
        (Whom.LEADER, A, S // 5, 3 * S // 10),
        (Whom.LEADER, A, S // 2, S // 10),
        (Whom.LEADER, A, 6_900_000, S // 10),
        (Whom.LEADER, A, 7 * S, None),
        (Whom.LEADER, None, S, S // 10),
        (Whom.LEADER, B, S // 5, 3 * S // 10),
        (Whom.LEADER, B, S // 2, None),
        (Whom.ANYBODY, A, S // 5, 3 * S // 10),
        (Whom.ANYBODY, A, S // 2, None),
        (A, B, S, S // 10),
    ],
)
def test_a_silent_leader_is_given_up_for_another_one_only(whom, leader, waited_us, more_us):
    """One that the others still follow is slow, not dead: another request would only make it slower."""
    by = routing(A)
    if leader == B:
        by.hear_of_leader(B, 6, 0)
    elif leader is None:
        by.lose_leader(A)
    one = call(Kind.READ, whom, by=by)
    assert one.look(A, quiet_since_us=S, now_us=S + waited_us) == more_us


def test_no_attempt_waits_beyond_the_deadline():
    one = call()
    assert one.look(A, quiet_since_us=9_900_000, now_us=9_900_000) == 100_000
    assert one.look(A, quiet_since_us=9_900_000, now_us=10_000_000) is None


def test_a_node_that_answers_is_left_out_no_more():
    """Whatever it answers: it is there."""
    by = routing()
    by.lose(B, 0)
    assert B not in {by.anybody(1) for _ in range(9)}
    call(Kind.READ, Whom.ANYBODY, by=by).hear(problem(Code.OVERLOADED), B, 1)
    assert B in {by.anybody(1) for _ in range(9)}


def test_a_node_that_any_other_can_stand_in_for_is_left_out_after_silence():
    by = routing()
    call(Kind.READ, Whom.ANYBODY, by=by).hear(BROKEN, B, 0)
    assert B not in {by.anybody(1) for _ in range(9)}
    by.reach(B)
    assert B not in {by.anybody(1) for _ in range(9)}, "it tells of its cluster, and answers no read"


@pytest.mark.parametrize(
    ("heard", "whom", "wants_news"),
    [
        (NotSent("refused"), Whom.ANYBODY, True),
        (NotSent("all in use", unreachable=False), Whom.ANYBODY, False),
        (BROKEN, Whom.ANYBODY, True),
        (NotSent("refused"), Whom.LEADER, False),
        (BROKEN, Whom.LEADER, False),
        (NotSent("refused"), X, False),
    ],
)
def test_a_read_that_misses_its_node_has_the_members_asked_for(heard, whom, wants_news):
    """All of them may have moved. A call that misses its leader has it looked for in any case."""
    step = call(Kind.READ, whom).hear(heard, A, 0)
    assert isinstance(step, Again)
    assert step.wants_news == wants_news


def test_errors_tell_the_last_word():
    one = call()
    one.hear(problem(Code.NO_LEADER), A, 0)
    assert str(one.out_of_time()) == (
        "the time for this call is over, and nothing was changed; the last word was: a:7400: 503 because of no_leader"
    )


def test_problems_of_any_shape_do_no_harm():
    for body in (b"", b"[]", b"null", b"\xff", json.dumps({"code": "no_leader", "detail": ["x"] * 999}).encode()):
        answer = HttpAnswer(503, {b"content-type": b"application/problem+json"}, body)
        assert isinstance(call().hear(answer, A, 0), Again)
