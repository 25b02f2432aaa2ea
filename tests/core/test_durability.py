"""What is durable: tickets, truncations after hand-out, appends at the same indexes again."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from raftkv.core.durability import Durability
from raftkv.core.effects import LogBase
from raftkv.core.types import Index, NodeId, Term, Ticket
from tests.core.lone import entries, voters

NOBODY: tuple[Term, NodeId | None] = (Term(0), None)


def on_empty_disk() -> Durability:
    return Durability(durable_index=Index(0), durable_vote=NOBODY)


def append(durability: Durability, first: int, last: int, *, term: int = 1) -> None:
    durability.appended(entries([term] * (last - first + 1), first=first), last_index=Index(last))


def take(durability: Durability) -> list[Ticket]:
    return [write.ticket for write in durability.take(now_us=0)]


def test_nothing_is_durable_before_its_ticket():
    """faults 1"""
    durability = on_empty_disk()
    append(durability, 1, 3)
    assert durability.durable_index == 0
    (ticket,) = take(durability)
    assert durability.durable_index == 0
    durability.persisted(ticket)
    assert durability.durable_index == 3


def test_a_ticket_speaks_for_all_before_it():
    durability = on_empty_disk()
    append(durability, 1, 3)
    take(durability)
    durability.vote_changed((Term(2), NodeId("a")))
    append(durability, 4, 5)
    (second,) = take(durability)
    durability.persisted(second)
    assert (durability.durable_index, durability.durable_vote) == (5, (2, "a"))


def test_an_old_ticket_says_nothing_of_later_writes():
    durability = on_empty_disk()
    append(durability, 1, 3)
    (first,) = take(durability)
    durability.vote_changed((Term(2), NodeId("a")))
    append(durability, 4, 5)
    take(durability)
    durability.persisted(first)
    assert (durability.durable_index, durability.durable_vote) == (3, NOBODY)


def test_a_truncation_takes_back_at_once():
    """faults 12"""
    durability = on_empty_disk()
    append(durability, 1, 5)
    durability.persisted(take(durability)[-1])
    durability.truncated(Index(3))
    assert durability.durable_index == 2


def test_a_write_that_was_handed_out_before_a_truncation_never_counts_past_it():
    """faults 12, 14: not even when the same indexes were filled again meanwhile."""
    durability = on_empty_disk()
    append(durability, 1, 5)
    (old,) = take(durability)
    durability.truncated(Index(3))
    append(durability, 3, 6, term=2)
    (new,) = take(durability)
    durability.persisted(old)
    assert durability.durable_index == 2
    durability.persisted(new)
    assert durability.durable_index == 6


def test_a_write_that_was_gathered_before_a_truncation_never_counts_past_it():
    """faults 12, 14"""
    durability = on_empty_disk()
    append(durability, 1, 5)
    durability.truncated(Index(3))
    append(durability, 3, 3, term=2)
    first, second = take(durability)
    durability.persisted(first)
    assert durability.durable_index == 2
    durability.persisted(second)
    assert durability.durable_index == 3


def test_a_change_of_term_takes_nothing_back():
    """faults 12: entries that still stand are counted."""
    durability = on_empty_disk()
    append(durability, 1, 5)
    (ticket,) = take(durability)
    durability.vote_changed((Term(9), None))
    take(durability)
    durability.persisted(ticket)
    assert durability.durable_index == 5


def test_what_gathers_is_one_write_as_far_as_its_order_allows():
    durability = on_empty_disk()
    durability.vote_changed((Term(2), None))
    durability.truncated(Index(4))
    append(durability, 4, 5, term=2)
    append(durability, 6, 6, term=2)
    (write,) = durability.take(now_us=0)
    assert write.vote == (2, None)
    assert write.truncate_from == 4
    assert len(write.frames) == 3


def test_what_must_come_after_is_another_write():
    """A vote after entries, a truncation after entries or after another: the order on disk is that of the calls."""
    durability = on_empty_disk()
    append(durability, 1, 5)
    durability.vote_changed((Term(2), NodeId("b")))
    durability.truncated(Index(4))
    durability.truncated(Index(3))
    append(durability, 3, 3, term=2)
    durability.vote_changed((Term(3), None))
    writes = durability.take(now_us=0)
    assert [(write.vote, write.truncate_from, len(write.frames)) for write in writes] == [
        (None, None, 5),
        ((2, "b"), 4, 0),
        (None, 3, 1),
        ((3, None), None, 0),
    ]
    assert [write.ticket for write in writes] == [1, 2, 3, 4]


def test_a_new_base_comes_after_whatever_was_there_before_it():
    """Faults 38: in one write the log would begin anew first, and then be cut below its base."""
    durability = on_empty_disk()
    append(durability, 1, 5)
    durability.truncated(Index(4))
    durability.base_changed(LogBase(Index(8), Term(2), voters("a")))
    durability.base_changed(LogBase(Index(9), Term(2), voters("a")))
    append(durability, 10, 11, term=2)
    writes = durability.take(now_us=0)
    assert [(write.base and write.base.index, write.truncate_from, len(write.frames)) for write in writes] == [
        (None, None, 5),
        (None, 4, 0),
        (8, None, 0),
        (9, None, 2),
    ]


def test_after_a_new_base_nothing_of_the_old_log_counts():
    durability = on_empty_disk()
    append(durability, 1, 9)
    (old,) = take(durability)
    durability.base_changed(LogBase(Index(5), Term(2), voters("a")))
    (new,) = take(durability)
    durability.persisted(old)
    assert durability.durable_index <= 5
    durability.persisted(new)
    assert durability.durable_index == 5


def test_the_oldest_unfinished_write_has_the_time_of_its_hand_out():
    """faults 22"""
    durability = on_empty_disk()
    assert durability.oldest_write_us is None
    append(durability, 1, 1)
    assert durability.oldest_write_us is None, "nobody was asked to write yet"
    (first,) = durability.take(now_us=100)
    append(durability, 2, 2)
    (second,) = durability.take(now_us=200)
    assert durability.oldest_write_us == 100
    durability.persisted(first.ticket)
    assert durability.oldest_write_us == 200
    durability.persisted(second.ticket)
    assert durability.oldest_write_us is None


words = st.one_of(
    st.tuples(st.just("append"), st.integers(1, 3)),
    st.tuples(st.just("cut"), st.integers(1, 4)),
    st.tuples(st.just("vote"), st.just(0)),
    st.tuples(st.just("take"), st.just(0)),
    st.tuples(st.just("sync"), st.integers(1, 3)),
)


@given(st.lists(words, max_size=40))
def test_it_never_claims_what_the_disk_does_not_hold_as_the_log_stands(story):
    """faults 12, 14: every entry up to durable_index is on the disk, the same as in the log; in the end all are."""
    durability, term = on_empty_disk(), 1
    log: list[bytes] = []
    disk: list[bytes] = []
    unfinished: list[Any] = []

    def sync(count: int) -> None:
        for write in unfinished[:count]:
            if write.truncate_from is not None:
                del disk[write.truncate_from - 1 :]
            disk.extend(write.frames)
        if unfinished[:count]:
            durability.persisted(unfinished[:count][-1].ticket)
            del unfinished[:count]

    for word, number in story:
        if word == "append":
            frames = entries([term] * number, first=len(log) + 1)
            log += frames
            durability.appended(frames, last_index=Index(len(log)))
        elif word == "cut" and log:
            index = max(1, len(log) + 1 - number)
            del log[index - 1 :]
            durability.truncated(Index(index))
            term += 1
        elif word == "vote":
            term += 1
            durability.vote_changed((Term(term), None))
        elif word == "take":
            unfinished += durability.take(now_us=0)
        elif word == "sync":
            sync(number)
        assert log[: durability.durable_index] == disk[: durability.durable_index]
        assert durability.durable_index <= len(log)
    unfinished += durability.take(now_us=0)
    sync(len(unfinished))
    assert durability.durable_index == len(log)
    assert disk == log
