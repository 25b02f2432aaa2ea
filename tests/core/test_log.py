"""The core's log: term runs, truncation and what is no longer in memory, against a plain list of terms."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv.core.log import PART_BYTES, RaftLog
from raftkv.core.types import Index, Term
from tests.core.lone import entries, entry, runs_of

FRAME_BYTES = len(entry(1, 1))


def log_of(*terms: int, base: tuple[int, int] = (0, 0)) -> RaftLog:
    log = RaftLog(base_index=Index(base[0]), base_term=Term(base[1]))
    log.append(entries(terms, first=base[0] + 1))
    return log


def test_an_empty_log_ends_at_its_base():
    log = RaftLog(base_index=Index(7), base_term=Term(3))
    assert (log.last_index, log.last_term) == (7, 3)
    assert [log.term_at(index) for index in (6, 7, 8)] == [None, 3, None]


def test_terms_of_every_index():
    log = log_of(1, 1, 2, 5, 5)
    assert [log.term_at(index) for index in range(7)] == [0, 1, 1, 2, 5, 5, None]
    assert (log.last_index, log.last_term) == (5, 5)


@pytest.mark.parametrize(("index", "first"), [(1, 1), (2, 1), (3, 3), (4, 4), (5, 4)])
def test_first_index_of_the_term_there(index, first):
    assert log_of(1, 1, 2, 5, 5).first_index_of_term_at(index) == first


@pytest.mark.parametrize(("term", "last"), [(0, None), (1, 2), (2, 3), (3, None), (5, 5), (6, None)])
def test_last_index_of_a_term(term, last):
    assert log_of(1, 1, 2, 5, 5).last_index_of_term(term) == last


@pytest.mark.parametrize(("term", "last"), [(3, 7), (2, None), (4, 9)])
def test_the_base_counts_as_the_last_of_its_term(term, last):
    assert log_of(4, 4, base=(7, 3)).last_index_of_term(term) == last


def test_a_run_that_goes_on_after_the_base():
    log = log_of(3, 3, 4, base=(7, 3))
    assert log.last_index_of_term(3) == 9
    assert log.first_index_of_term_at(8) == 8
    log.truncate_from(8)
    assert (log.last_index, log.last_term) == (7, 3)
    log.append(entries([3], first=8))
    assert log.term_at(8) == 3


def test_a_run_that_is_cut_at_its_beginning_is_gone():
    """Paper §5.4.1: else this log would still claim its last term in an election."""
    log = log_of(1, 1, 2, 5)
    log.truncate_from(3)
    assert (log.last_index, log.last_term) == (2, 1)
    assert log.last_index_of_term(2) is None


@pytest.mark.parametrize("terms", [(2, 1), (1, 2, 1)])
def test_a_falling_term_is_our_own_bug(terms):
    with pytest.raises(AssertionError, match="falls"):
        log_of(*terms)


def test_a_gap_is_our_own_bug():
    with pytest.raises(AssertionError, match="appended at"):
        log_of(1).append([entry(3, 1)])


@pytest.mark.parametrize("index", [0, 4])
def test_a_truncation_outside_the_log_is_our_own_bug(index):
    with pytest.raises(AssertionError):
        log_of(1, 1, 1).truncate_from(index)


def test_frames_stop_after_the_one_that_reaches_the_bound():
    log = log_of(1, 1, 1, 1)
    frames = entries([1, 1, 1, 1])
    assert log.frames_between(1, 4, bytes_max=10**9) == frames
    assert log.frames_between(2, 3, bytes_max=10**9) == frames[1:3]
    assert log.frames_between(1, 4, bytes_max=1) == frames[:1], "one always"
    assert log.frames_between(1, 4, bytes_max=2 * FRAME_BYTES) == frames[:2]
    assert log.frames_between(1, 4, bytes_max=2 * FRAME_BYTES + 1) == frames[:3]


def test_eviction_drops_the_oldest_and_keeps_the_terms():
    log = log_of(*[1] * 20)
    log.evict(bytes_max=10 * FRAME_BYTES, through=20)
    assert log.memory_first == 11
    assert log.memory_bytes == 10 * FRAME_BYTES
    assert log.frames_between(10, 20, bytes_max=10**9) is None
    assert log.frames_between(11, 20, bytes_max=10**9) == entries([1] * 10, first=11)
    assert log.term_at(1) == 1
    assert log.last_index == 20


def test_eviction_never_passes_what_the_disk_can_give_back():
    log = log_of(*[1] * 20)
    log.evict(bytes_max=1, through=5)
    assert log.memory_first == 6
    log.evict(bytes_max=1, through=5)
    assert log.memory_first == 6


def test_a_little_above_the_bound_nothing_is_evicted():
    log = log_of(*[1] * 9)
    log.evict(bytes_max=8 * FRAME_BYTES, through=9)
    assert log.memory_first == 1


def test_a_little_more_that_may_go_waits_until_it_is_an_eighth():
    """Else each answer of a follower that lags would shift all that it lacks."""
    log = log_of(*[1] * 40)
    log.evict(bytes_max=16 * FRAME_BYTES, through=1)
    assert log.memory_first == 1
    log.evict(bytes_max=16 * FRAME_BYTES, through=2)
    assert log.memory_first == 3


class Counted(list[bytes]):
    """Frames, and how often somebody looked at one."""

    looks = 0

    def __getitem__(self, place):
        self.looks += 1
        return super().__getitem__(place)


def test_what_may_not_go_yet_is_not_looked_at_again_and_again(monkeypatch):
    """While a member is away each turn asks, and the frames that all have are many."""
    log = log_of(*[1] * 100)
    frames = Counted(log._frames)
    monkeypatch.setattr(log, "_frames", frames)
    for _ in range(50):
        log.evict(bytes_max=80 * FRAME_BYTES, through=9)
    assert (log.memory_first, frames.looks) == (1, 9)
    log.evict(bytes_max=80 * FRAME_BYTES, through=7)
    assert log.memory_first == 1
    log.evict(bytes_max=80 * FRAME_BYTES, through=12)
    assert log.memory_first == 13
    log.append(entries([1] * 20, first=101))
    log.evict(bytes_max=80 * FRAME_BYTES, through=14)
    assert log.memory_first == 13
    log.truncate_from(14)
    log.append([entry(index, 2, "of another size" * 2) for index in range(14, 104)])
    log.evict(bytes_max=80 * FRAME_BYTES, through=30)
    held = log.frames_between(log.memory_first, log.last_index, bytes_max=10**9)
    assert 14 < log.memory_first <= 31
    assert held is not None and log.memory_bytes == sum(map(len, held))


def test_of_what_goes_at_one_stroke_the_tail_can_be_a_part():
    log = log_of(*[1] * 10_000)
    log.evict(bytes_max=FRAME_BYTES, through=10_000)
    assert log.memory_first == 10_000
    bytes_max = 200 * 1024
    before = log.before_tail(10_000, entries_max=10_000, bytes_max=bytes_max)
    assert bytes_max - PART_BYTES - FRAME_BYTES <= (10_000 - before) * FRAME_BYTES <= bytes_max
    assert log.before_tail(10_000, entries_max=10_000, bytes_max=10**9) == 0


def test_a_truncation_into_what_memory_no_longer_holds():
    """faults 14: memory begins anew where the log now ends."""
    log = log_of(*[1] * 20)
    log.evict(bytes_max=5 * FRAME_BYTES, through=20)
    log.truncate_from(8)
    assert (log.last_index, log.memory_first, log.memory_bytes) == (7, 8, 0)
    assert log.frames_between(7, 7, bytes_max=1) is None
    log.append(entries([2], first=8))
    assert log.frames_between(8, 8, bytes_max=1) == entries([2], first=8)


def test_a_log_that_was_read_from_disk_in_part():
    frames = entries([1, 1, 2, 2, 3])
    log = RaftLog(term_runs=runs_of(frames), memory_first=Index(4), frames=frames[3:])
    assert [log.term_at(index) for index in range(1, 7)] == [1, 1, 2, 2, 3, None]
    assert log.frames_between(3, 5, bytes_max=10**9) is None


steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, 2), st.integers(1, 4)),
        st.tuples(st.just("cut"), st.integers(0, 100), st.just(0)),
        st.tuples(st.just("evict"), st.integers(1, 10), st.integers(0, 100)),
    ),
    max_size=30,
)


def played(story) -> tuple[RaftLog, list[int]]:
    """The log after all of this, and its terms."""
    log, term = RaftLog(), 1
    terms: list[int] = []
    for word, number, count in story:
        if word == "append":
            term += number
            log.append(entries([term] * count, first=len(terms) + 1))
            terms += [term] * count
        elif word == "cut" and terms:
            index = 1 + number % len(terms)
            log.truncate_from(index)
            del terms[index - 1 :]
        elif word == "evict":
            log.evict(bytes_max=number * FRAME_BYTES, through=min(count, len(terms)))
    return log, terms


@given(steps)
def test_it_says_what_a_list_of_terms_would_say(story):
    """faults 9, 14: whatever is appended, cut and evicted."""
    log, terms = played(story)
    term = max(terms, default=1)
    assert [log.term_at(index) for index in range(1, len(terms) + 2)] == [*terms, None]
    assert log.last_index == len(terms)
    assert log.last_term == (terms[-1] if terms else 0)
    for sought in range(1, term + 2):
        last = len(terms) - terms[::-1].index(sought) if sought in terms else None
        assert log.last_index_of_term(sought) == last
    held = log.frames_between(log.memory_first, log.last_index, bytes_max=10**9)
    assert held == entries(terms)[log.memory_first - 1 :]
    assert log.memory_bytes == sum(map(len, held))


@pytest.mark.parametrize(
    ("through", "terms", "runs"),
    [
        (1, [1, 2, 2, 3], [(2, 1), (3, 2), (5, 3)]),
        (2, [2, 2, 3], [(3, 2), (5, 3)]),
        (3, [2, 3], [(4, 2), (5, 3)]),
        (4, [3], [(5, 3)]),
        (5, [], []),
    ],
)
def test_a_log_that_begins_later_says_the_same_of_what_is_left(through, terms, runs):
    """Paper §7: after a snapshot."""
    log, whole = log_of(1, 1, 2, 2, 3), log_of(1, 1, 2, 2, 3)
    log.compact(Index(through))
    assert (log.base_index, log.base_term, log.last_index) == (through, whole.term_at(through), 5)
    assert [log.term_at(index) for index in range(through + 1, 6)] == terms
    assert (log.term_runs, log.term_at(through - 1)) == (runs, None)
    assert log.frames_between(through + 1, 5, bytes_max=10**9) == whole.frames_between(through + 1, 5, bytes_max=10**9)
    assert log.memory_bytes == sum(map(len, log.frames_between(through + 1, 5, bytes_max=10**9) or []))
    assert (log.last_term, log.last_index_of_term(3)) == (3, 5)
    log.append(entries([3, 4], first=6))
    assert log.term_runs[-1] == (7, 4)


def test_a_log_that_begins_after_what_is_in_memory():
    log = RaftLog(term_runs=[(Index(1), Term(1))], memory_first=Index(4), frames=entries([1, 1], first=4))
    log.compact(Index(2))
    assert (log.base_index, log.memory_first, log.last_index, log.term_at(3)) == (2, 4, 5, 1)


@pytest.mark.parametrize(("entries_max", "bytes_max", "before"), [(2, 999, 2), (9, 999, 0), (9, 100, 2), (9, 10, 4)])
def test_the_tail_is_no_longer_than_either_bound(entries_max, bytes_max, before):
    assert log_of(1, 1, 1, 1, 1).before_tail(4, entries_max=entries_max, bytes_max=bytes_max) == before


@pytest.mark.parametrize(
    ("through", "entries_max", "bytes_max", "before"),
    [
        # 1 to 4, 5 to 8 and 9 to 12 were let go together, 13 to 16 are in memory.
        (16, 99, 99, 0),
        (16, 99, 16, 0),
        (16, 99, 15, 4),
        (16, 99, 8, 8),
        (16, 99, 7, 12),
        (16, 99, 3, 13),
        (16, 6, 99, 10),
        (16, 3, 99, 13),
        (14, 99, 10, 4),
        # Of what went with the entry all counts.
        (10, 99, 8, 4),
        (10, 99, 7, 8),
        (10, 99, 3, 10),
        (10, 3, 99, 7),
        (10, 1, 99, 9),
    ],
)
def test_the_tail_goes_back_to_what_memory_no_longer_holds(through, entries_max, bytes_max, before):
    log = log_of(*[1] * 16)
    for bytes_left in (12, 8, 4):
        log.evict(bytes_max=bytes_left * FRAME_BYTES, through=16)
    assert log.before_tail(through, entries_max=entries_max, bytes_max=bytes_max * FRAME_BYTES) == before


def test_what_is_read_back_in_order_counts_for_the_tail():
    """As after a start, when memory holds only the newest."""
    frames = entries([1] * 16)
    log = RaftLog(term_runs=runs_of(frames), memory_first=Index(13), frames=frames[12:])
    assert log.before_tail(16, entries_max=99, bytes_max=10**9) == 12
    log.was_read(5, frames[4:8])
    assert log.before_tail(16, entries_max=99, bytes_max=10**9) == 12, "nothing is known of 9 to 12"
    assert log.before_tail(7, entries_max=99, bytes_max=10**9) == 4
    log.was_read(9, frames[8:12])
    assert log.before_tail(16, entries_max=99, bytes_max=10**9) == 4
    assert log.before_tail(16, entries_max=99, bytes_max=11 * FRAME_BYTES) == 8
    log.was_read(5, frames[4:8])
    assert log.before_tail(16, entries_max=99, bytes_max=12 * FRAME_BYTES) == 4, "once is enough"
    log.evict(bytes_max=2 * FRAME_BYTES, through=16)
    assert log.before_tail(16, entries_max=99, bytes_max=12 * FRAME_BYTES) == 4


def test_sizes_with_a_gap_between_them_are_not_added_up():
    frames = entries([1] * 16)
    log = RaftLog(term_runs=runs_of(frames), memory_first=Index(13), frames=frames[12:])
    log.was_read(1, frames[:4])
    log.evict(bytes_max=2 * FRAME_BYTES, through=16)
    assert log.before_tail(16, entries_max=99, bytes_max=10**9) == 12
    log.was_read(3, frames[2:14])
    assert log.before_tail(16, entries_max=99, bytes_max=4 * FRAME_BYTES) == 12


def test_of_what_was_compacted_truncated_or_begun_anew_no_size_is_left():
    def evicted() -> RaftLog:
        log = log_of(*[1] * 16)
        for bytes_left in (12, 8, 4):
            log.evict(bytes_max=bytes_left * FRAME_BYTES, through=16)
        return log

    log = evicted()
    log.compact(Index(6))
    assert log.before_tail(16, entries_max=99, bytes_max=10**9) == 8, "a part of what went together is no known size"
    log = evicted()
    log.truncate_from(6)
    log.append(entries([2] * 2, first=6))
    assert log.before_tail(7, entries_max=99, bytes_max=10**9) == 0
    assert log.before_tail(7, entries_max=99, bytes_max=9 * FRAME_BYTES) == 4
    log = evicted()
    log.truncate_from(5)
    log.append(entries([2] * 2, first=5))
    assert log.before_tail(6, entries_max=99, bytes_max=6 * FRAME_BYTES) == 0
    log = evicted()
    log.begin_anew(Index(20), Term(2))
    log.append(entries([2] * 2, first=21))
    assert log.before_tail(22, entries_max=99, bytes_max=10**9) == 20


@given(steps, st.integers(0, 100), st.integers(1, 20), st.integers(1, 20))
def test_a_tail_is_never_more_than_it_may_be_nor_behind_what_memory_holds(story, through, entries_max, frames_max):
    log, terms = played(story)
    through = through % (len(terms) + 1)
    bounds = {"entries_max": entries_max, "bytes_max": frames_max * FRAME_BYTES}
    whole = log_of(*terms)
    before = log.before_tail(through, **bounds)
    assert whole.before_tail(through, **bounds) <= before <= through
    if before >= log.memory_first:
        assert before == whole.before_tail(through, **bounds)


def test_nothing_of_the_old_log_is_left_when_it_begins_anew():
    log = log_of(1, 1, 2)
    log.begin_anew(Index(9), Term(4))
    assert (log.last_index, log.last_term, log.term_runs, log.memory_bytes, log.term_at(2)) == (9, 4, [], 0, None)
