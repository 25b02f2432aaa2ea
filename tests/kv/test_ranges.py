"""Bounds as arithmetic, and what a range gives: bytewise order, limits, going on from page to page."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftkv.kv.answers import ReadRangeResult
from raftkv.kv.commands import BOUND_BYTES_MAX, KEY_BYTES_MAX, Delete, DeleteRange, Put, ReadRange, Txn
from raftkv.kv.queries import Page, Range
from raftkv.kv.ranges import Bounds, first_overlap, key_bounds, prefix_bounds, right_after
from tests.kv.store import Store, done

PREFIXES = [
    (b"", Bounds(b"", None)),
    (b"a", Bounds(b"a", b"b")),
    (b"app/", Bounds(b"app/", b"app0")),
    (b"a\xff", Bounds(b"a\xff", b"b")),
    (b"a\xff\xff\xff", Bounds(b"a\xff\xff\xff", b"b")),
    (b"a\xfe\xff", Bounds(b"a\xfe\xff", b"a\xff")),
    (b"\x00", Bounds(b"\x00", b"\x01")),
    (b"\xff", Bounds(b"\xff", None)),
    (b"\xff\xff\xff", Bounds(b"\xff\xff\xff", None)),
    (b"\xff\x00", Bounds(b"\xff\x00", b"\xff\x01")),
]
few_bytes = st.binary(max_size=4).map(lambda text: bytes(b"\x00\x01a\xff"[byte % 4] for byte in text))


@pytest.mark.parametrize(("prefix", "expected"), PREFIXES)
def test_a_prefix_is_a_range(prefix, expected):
    assert prefix_bounds(prefix) == expected


@settings(deadline=None)
@given(few_bytes, few_bytes)
def test_exactly_the_keys_with_the_prefix_are_within_its_bounds(prefix, key):
    assert is_within(key, prefix_bounds(prefix)) == key.startswith(prefix)


def is_within(key: bytes, bounds: Bounds) -> bool:
    return bounds.start <= key and (bounds.end is None or key < bounds.end)


@settings(deadline=None)
@given(few_bytes, few_bytes)
def test_nothing_is_between_a_key_and_what_follows_right_after(key, other):
    assert not key < other < right_after(key)
    assert is_within(other, key_bounds(key)) == (other == key)


def test_bounds_of_the_longest_keys_have_names():
    longest = b"\xfe" * KEY_BYTES_MAX
    bounds = (right_after(longest), prefix_bounds(longest).end)
    assert [len(bound) <= BOUND_BYTES_MAX for bound in bounds if bound is not None] == [True, True]


APART = [
    [],
    [Bounds(b"a", b"b")],
    [Bounds(b"b", b"c"), Bounds(b"a", b"b")],
    [Bounds(b"b", None), Bounds(b"a", b"b")],
    [Bounds(b"a", b"a"), Bounds(b"a", None)],
    [Bounds(b"b", b"a"), Bounds(b"", None)],
    [Bounds(b"", b""), Bounds(b"", None)],
    [key_bounds(b"a"), key_bounds(b"a\x00")],
]
MEETING = [
    ([key_bounds(b"a"), key_bounds(b"b"), key_bounds(b"a")], b"a"),
    ([Bounds(b"a", b"c"), Bounds(b"b", b"d")], b"b"),
    ([Bounds(b"a", None), key_bounds(b"z")], b"z"),
    ([Bounds(b"", None), Bounds(b"", b"a")], b""),
    ([Bounds(b"a", b"z"), Bounds(b"b", b"b\x00"), Bounds(b"y", None)], b"b"),
    ([Bounds(b"a", b"c"), Bounds(b"b\xff", b"a"), Bounds(b"b", b"b")], None),
]


@pytest.mark.parametrize("ranges", APART)
def test_ranges_that_only_touch_are_apart(ranges):
    assert first_overlap(ranges) is None


@pytest.mark.parametrize(("ranges", "where"), MEETING)
def test_ranges_meet_where_they_have_a_first_key_in_common(ranges, where):
    assert first_overlap(ranges) == where


@settings(deadline=None, max_examples=300)
@given(st.lists(st.builds(Bounds, few_bytes, st.one_of(few_bytes, st.none())), max_size=4))
def test_an_overlap_is_what_trying_all_bounds_finds(ranges):
    """If two ranges have anything in common, then the start of one of them."""
    shared = sorted({one.start for one in ranges if sum(is_within(one.start, other) for other in ranges) > 1})
    assert first_overlap(ranges) == (shared[0] if shared else None)


# ------------------------------------------------------------------------------------------- what is found

KEYS = [b"\x00", b"a", b"a\x00", b"a/b", b"aa", b"b", b"\xc3\xa4", b"\xff", b"\xff\xff"]


def filled() -> Store:
    """Every key's value is its number among them, put in another order."""
    store = Store()
    for number in (4, 8, 0, 2, 6, 1, 3, 7, 5):
        store.apply(Put(KEYS[number], b"%d" % number))
    return store


def numbers(page: Page) -> str:
    return b"".join(record.value for _, record in page.items).decode()


FOUND = [
    (b"", None, "012345678"),
    (b"a", b"b", "1234"),
    (b"a\x00", b"aa", "23"),
    (b"a", b"a\x00", "1"),
    (b"b\x00", b"\xff", "6"),
    (b"\xff", None, "78"),
    (b"\xff\xff\x00", None, ""),
    (b"b", b"a", ""),
    (b"a", b"a", ""),
    (b"", b"", ""),
    (b"", b"\x00", ""),
]


@pytest.mark.parametrize(("start", "end", "expected"), FOUND)
def test_a_range_is_in_bytewise_order_from_its_start_to_before_its_end(start, end, expected):
    store = filled()
    for reverse, in_order in ((False, expected), (True, expected[::-1])):
        page = store.machine.query(Range(start, end, 100, 1_000, reverse=reverse))
        assert (numbers(page), page.more, page.revision) == (in_order, False, 9)
    assert [key for key, _ in page.items] == sorted((key for key, _ in page.items), reverse=True)


def test_an_item_is_the_whole_record():
    store = filled()
    store.apply(Put(b"a", b"again"))
    ((key, record),) = store.machine.query(Range(b"a", b"a\x00", 9, 99)).items
    assert (key, record) == (b"a", store.get(b"a"))
    ((key, bare),) = store.machine.query(Range(b"a", b"a\x00", 9, 99, keys_only=True)).items
    assert (key, bare) == (b"a", record._replace(value=b""))


LIMITED = [
    (Range(b"", None, 9, 1_000), "012345678", False),
    (Range(b"", None, 8, 1_000), "01234567", True),
    (Range(b"", None, 1, 1_000), "0", True),
    (Range(b"a", b"b", 4, 1_000), "1234", False),
    (Range(b"a", b"b", 3, 1_000), "123", True),
    (Range(b"a", b"b", 3, 1_000, reverse=True), "432", True),
    # Keys of 1, 2, 3 and 2 bytes, each with a value of 1.
    (Range(b"a", b"b", 9, 12), "1234", False),
    (Range(b"a", b"b", 9, 11), "123", True),
    (Range(b"a", b"b", 9, 9), "123", True),
    (Range(b"a", b"b", 9, 8), "12", True),
    (Range(b"a", b"b", 9, 2), "1", True),
    (Range(b"a", b"b", 9, 1), "1", True),
    (Range(b"a", b"b", 9, 0), "1", True),
    (Range(b"a", b"a\x00", 9, 0), "1", False),
    (Range(b"a", b"b", 9, 7, reverse=True), "43", True),
]


@pytest.mark.parametrize(("query", "expected", "more"), LIMITED)
def test_a_page_ends_at_its_limits_and_has_one_item_at_least(query, expected, more):
    page = filled().machine.query(query)
    assert (numbers(page), page.more) == (expected, more)


@pytest.mark.parametrize(("bytes_max", "count", "more"), [(8, 4, False), (7, 3, True), (0, 1, True)])
def test_values_do_not_count_where_only_keys_are_wanted(bytes_max, count, more):
    page = filled().machine.query(Range(b"a", b"b", 9, bytes_max, keys_only=True))
    assert (len(page.items), page.more) == (count, more)


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 2**32), st.booleans())
def test_going_on_from_page_to_page_finds_every_key_once(seed, reverse):
    """The next page begins right after the last key, or ends before it."""
    rng, store = random.Random(seed), Store()
    keys = sorted({rng.randbytes(rng.randint(1, 3)) for _ in range(rng.randint(0, 60))})
    for key in rng.sample(keys, len(keys)):
        store.apply(Put(key, b"v" * rng.randint(0, 5)))
    start, end, found, more = b"", None, [], True
    while more:
        page = store.machine.query(Range(start, end, rng.randint(1, 9), rng.randint(0, 40), reverse=reverse))
        found += [key for key, _ in page.items]
        more = page.more
        if page.items:
            start, end = (start, found[-1]) if reverse else (right_after(found[-1]), end)
    assert found == (keys[::-1] if reverse else keys)


def test_a_query_changes_nothing():
    store = filled()
    before = store.machine.snapshot()
    store.machine.query(Range(b"", None, 3, 10, reverse=True, keys_only=True))
    assert store.machine.snapshot() == before


def test_the_order_is_the_same_after_a_restart():
    store = filled()
    before = store.machine.query(Range(b"", None, 100, 1_000))
    store.restart_from_snapshot()
    assert store.machine.query(Range(b"", None, 100, 1_000)) == before
    store.apply(Delete(b"a"))
    store.apply(Put(b"a!", b"!"))
    assert numbers(store.machine.query(Range(b"", None, 100, 1_000))) == "02!345678"
    _, read = done(store.apply(Txn((), (DeleteRange(b"a", b"b"), ReadRange(b"", None, 9)), ()))).results
    assert isinstance(read, ReadRangeResult)
    assert b"".join(record.value for _, record in read.items) == b"05678"
