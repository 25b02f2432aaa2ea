"""Numbers: given out once, acknowledged when nothing of them is wanted, and worth what their arrivals were."""

from __future__ import annotations

import pytest

from raftkv.client.session import NUMBERS_MAX, Arrival, Next, Session
from raftkv.kv.sessions import ANSWERS_MAX

NOTHING, PERHAPS, NO_ROOM, EXPIRED = Arrival.NOTHING, Arrival.PERHAPS, Arrival.NO_ROOM, Arrival.EXPIRED


def session(numbers_max: int = 4) -> Session:
    return Session("0" * 32, ttl_us=60_000_000, opened_at_us=0, numbers_max=numbers_max)


def test_numbers_are_1_2_3():
    one = session()
    assert [one.give().number for _ in range(3)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("settled", "acknowledged", "free"),
    [
        ([], 0, 0),
        ([1], 1, 1),
        ([2], 0, 0),
        ([2, 3, 4], 0, 0),
        ([1, 2], 2, 2),
        ([1, 3], 1, 1),
        ([4, 3, 2, 1], 4, 4),
        ([1, 1, 1], 1, 1),
        ([9], 0, 0),
    ],
)
def test_what_is_acknowledged_stays_below_every_number_that_is_wanted(settled, acknowledged, free):
    one = session(numbers_max=4)
    numbered = [one.give() for _ in range(4)]
    for number in settled:
        one.settle(number)
    assert (one.acknowledged, one.free_count, one.has_room) == (acknowledged, free, free > 0)
    assert all(one.acknowledged < each.number for each in numbered if each.number not in settled)


def test_a_session_that_gave_nothing_acknowledges_nothing():
    assert (session().acknowledged, session().unsettled_count) == (0, 0)


def test_numbers_in_flight_stay_below_what_the_servers_keep():
    assert NUMBERS_MAX < ANSWERS_MAX


@pytest.mark.parametrize(
    ("arrivals", "next_", "may_have_happened", "is_over"),
    [
        ([NOTHING], Next.SAME, False, False),
        ([NOTHING, NOTHING], Next.SAME, False, False),
        ([PERHAPS], Next.SAME, True, False),
        ([PERHAPS, NOTHING], Next.SAME, True, False),
        ([EXPIRED], Next.ANEW, False, True),
        ([NOTHING, EXPIRED], Next.ANEW, False, True),
        ([PERHAPS, EXPIRED], Next.UNKNOWN, True, True),
        ([PERHAPS, NOTHING, EXPIRED], Next.UNKNOWN, True, True),
        ([NO_ROOM], Next.ANEW, False, False),
        ([NOTHING, NO_ROOM], Next.ANEW, False, False),
        ([PERHAPS, NO_ROOM], Next.SAME, True, False),
        ([PERHAPS, NO_ROOM, NOTHING, NO_ROOM], Next.SAME, True, False),
    ],
)
def test_what_arrivals_come_to(arrivals, next_, may_have_happened, is_over):
    """http-api "Errors": a later 409, 410 or 503 proves nothing about an earlier arrival."""
    one = session()
    numbered = one.give()
    told = [numbered.after(arrival) for arrival in arrivals]
    assert (told[-1], numbered.may_have_happened, one.is_over) == (next_, may_have_happened, is_over)


@pytest.mark.parametrize(("arrivals", "next_"), [([], Next.ANEW), ([NOTHING], Next.ANEW), ([PERHAPS], Next.UNKNOWN)])
def test_the_end_of_a_session_that_another_write_heard_of_counts(arrivals, next_):
    one = session()
    first, second = one.give(), one.give()
    for arrival in arrivals:
        first.after(arrival)
    assert second.after(EXPIRED) is Next.ANEW
    assert first.next is next_
    assert not one.can_give


@pytest.mark.parametrize(("opened_s", "alive_s", "due_s"), [(0, None, 20), (5, None, 25), (0, 30, 50), (30, 10, 50)])
def test_a_sign_of_life_is_due_after_a_third_of_the_time(opened_s, alive_s, due_s):
    """Counted from when the last answered request was sent: the session can only live longer than that."""
    one = Session("0" * 32, ttl_us=60_000_000, opened_at_us=opened_s * 1_000_000)
    if alive_s is not None:
        one.was_alive(alive_s * 1_000_000)
    assert one.keepalive_due_us == due_s * 1_000_000
