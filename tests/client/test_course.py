"""The steps of a client's calls, one by one: who is woken, and when a call waits instead of asking again."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from raftkv.client import wishes
from raftkv.client.attempts import Patience
from raftkv.client.course import Courses, Pause, Send, UntilLeader, UntilRoom
from raftkv.client.routing import View
from raftkv.client.session import Session
from raftkv.client.wishes import Condition, Freshness
from raftkv.errors import OutcomeUnknown, Unreachable
from raftkv.http.exchange import NoAnswer, NotSent
from raftkv.problems import Code
from raftkv.values import Address
from tests.client.answers import problem, put_done

DEADLINE_US = 100_000
A, B, C = (Address(name, 7400) for name in "abc")


class Shell:
    """Time stands still unless a test moves it; what is asked of it is nobody's concern here."""

    time_us = 0

    def now_us(self) -> int:
        return self.time_us

    def want_news(self, for_us: int) -> None:
        pass

    def leader_is_known(self) -> None:
        pass

    def session_has_begun(self) -> None:
        pass


class One(Courses):
    """A client that knows its leader and has a session with a single number, and how often a call in line was woken."""

    def __init__(self) -> None:
        self.shell = Shell()
        super().__init__(self.shell, [A], Random(1), patience=Patience(), timeout_us=10**6, session_ttl_ms=60_000)
        self.routing.hear(View("k", 5, A, (A, B, C), ()), 0)
        self.session = Session(f"{1:032x}", ttl_us=60_000_000, opened_at_us=0, numbers_max=1)
        self.woken = 0

    def wait_in_line(self) -> None:
        def wake() -> None:
            self.woken += 1

        self.line.append(wake)


def ends(course: Any, heard: Any) -> Any:
    """What the course comes to once this is heard."""
    with pytest.raises(StopIteration) as end:
        course.send(heard)
    return end.value.value


def test_a_call_that_could_not_be_sent_does_not_ask_the_same_leader_again_at_once():
    """All connections to it are in use, say: without a pause it would be asked in a circle."""
    one = One()
    wish = wishes.get(b"k", Freshness())
    course = one.asked(one.call(wish, 10**7), wish)
    assert isinstance(next(course), Send)
    step = course.send(NotSent("all connections were in use", unreachable=False))
    assert isinstance(step, UntilLeader)
    assert step.until_us > 0


def test_the_number_of_a_call_that_ended_is_the_next_ones():
    one = One()
    wish = wishes.put(b"k", b"v", Condition())
    course = one.asked(one.call(wish, 10**7), wish)
    assert isinstance(next(course), Send)
    one.wait_in_line()
    one.let_in()
    assert one.woken == 0
    ends(course, put_done())
    assert one.woken == 1


def test_who_waits_for_a_number_hears_when_the_session_has_run_out():
    """Told by the answer to a sign of life: no write may be there to hear it."""
    one = One()
    assert one.session is not None
    one.session.give()
    one.wait_in_line()
    course = one._kept_alive(one.session)
    assert isinstance(next(course), Send)
    ends(course, problem(Code.SESSION_EXPIRED))
    assert (one.session.is_over, one.woken) == (True, 1)


def test_a_session_lives_from_when_its_sign_of_life_was_sent():
    """The cluster may have taken it at once and the answer been long on its way: its time began there, not here."""
    one = One()
    assert one.session is not None
    wish = wishes.put(b"k", b"v", Condition())
    for begin in (lambda: one.asked(one.call(wish, 10**7), wish), lambda: one._kept_alive(one.session)):
        course, sent_at_us = begin(), one.shell.time_us
        assert isinstance(next(course), Send)
        one.shell.time_us += 5_000_000
        ends(course, put_done())
        assert one.session.keepalive_due_us == sent_at_us + 20_000_000


def test_who_waits_for_a_number_as_the_client_closes_changed_nothing():
    """Its session is ended then, and another is not opened any more: there is nothing left to wait for."""
    one = One()
    assert one.session is not None
    one.session.give()
    wish = wishes.put(b"k", b"v", Condition())
    course = one.asked(one.call(wish, 10**7), wish)
    assert isinstance(next(course), UntilRoom)
    one.is_closing = True
    closing = one.closing(10**6)
    assert isinstance(next(closing), Send)
    with pytest.raises(Unreachable, match="the client was closed"):
        course.send(None)


def test_what_was_seen_once_is_not_forgotten_for_what_came_late():
    """Two answers may change places on their way; a read that must not go back asks for the higher index."""
    one = One()
    wish = wishes.put(b"k", b"v", Condition())
    for told in (b"7", b"5"):
        course = one.asked(one.call(wish, 10**7), wish)
        assert isinstance(next(course), Send)
        answer = put_done()
        answer.fields[b"raftkv-applied-index"] = told
        ends(course, answer)
    assert one.seen_index == 7


@pytest.mark.parametrize(
    ("last", "ends_as"),
    [
        (problem(Code.NO_LEADER), Unreachable),
        (problem(Code.SUPERSEDED), Unreachable),
        (NotSent("the time was over before it could be sent", unreachable=False), Unreachable),
        (NoAnswer("no answer in time"), OutcomeUnknown),
        (problem(Code.OUTCOME_UNKNOWN), OutcomeUnknown),
    ],
)
def test_a_put_that_was_refused_until_its_time_is_over_ends_as_its_last_attempt_leaves_it(last, ends_as):
    """Each arrival that was refused did nothing; of one that is on its way at the end nobody knows."""
    one = One()
    wish = wishes.put(b"k", b"v", Condition())
    course = one.asked(one.call(wish, DEADLINE_US), wish)
    step = next(course)
    while one.shell.time_us < DEADLINE_US * 9 // 10:
        assert isinstance(step, Send)
        one.shell.time_us += 1_000
        step = course.send(problem(Code.SUPERSEDED))
        assert isinstance(step, Pause)
        one.shell.time_us = min(step.until_us, DEADLINE_US * 9 // 10)
        step = course.send(None)
    assert isinstance(step, Send)
    one.shell.time_us = DEADLINE_US
    step = course.send(last)
    assert isinstance(step, Pause | UntilLeader)
    assert step.until_us == DEADLINE_US
    with pytest.raises(ends_as):
        course.send(None)
    assert one.figures.attempts == sum(one.figures.failures.values())
