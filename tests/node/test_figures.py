"""Counting: nothing is lost, the last minute is the last minute, percentiles are near enough."""

from __future__ import annotations

from random import Random

import pytest

from raftkv.node.figures import NOTHING, SLOT_US, SLOTS, Histogram, Recent, Summary


@pytest.mark.parametrize(
    ("value", "bits"), [(0, 0), (1, 1), (2, 2), (3, 2), (4, 3), (1023, 10), (1024, 11), (2**63, 64)]
)
def test_a_value_is_in_the_bucket_of_its_length(value: int, bits: int) -> None:
    histogram = Histogram()
    histogram.add(value)
    assert (histogram.up_to(bits), histogram.up_to(bits - 1) if bits else 0) == (1, 0)
    assert (histogram.count, histogram.total) == (1, value)


def test_values_of_the_last_minute_are_summed_up_and_older_ones_forgotten() -> None:
    recent = Recent()
    assert recent.summary(now_us=0) == NOTHING
    recent.add(1_000_000, now_us=5)
    for _ in range(99):
        recent.add(3, now_us=SLOT_US)
    assert recent.summary(now_us=SLOT_US) == Summary(values_count=100, p50=3, p99=3, longest=1_000_000)
    assert recent.summary(now_us=SLOT_US * SLOTS) == Summary(values_count=99, p50=3, p99=3, longest=3)
    assert recent.summary(now_us=SLOT_US * (SLOTS + 1)) == NOTHING


def test_a_slot_that_comes_round_again_begins_empty() -> None:
    recent = Recent()
    recent.add(7, now_us=0)
    recent.add(2, now_us=SLOT_US * SLOTS)
    assert recent.summary(now_us=SLOT_US * SLOTS) == Summary(1, 2, 2, 2)


@pytest.mark.parametrize("seed", range(20))
def test_percentiles_are_never_too_small_and_at_most_a_quarter_too_large(seed: int) -> None:
    rng = Random(seed)
    values = sorted(int(rng.lognormvariate(5, 3)) for _ in range(rng.randint(1, 500)))
    recent = Recent()
    for value in values:
        recent.add(value, now_us=0)
    told = recent.summary(now_us=0)
    for part, p in ((50, told.p50), (99, told.p99)):
        exact = values[-(-len(values) * part // 100) - 1]
        assert exact <= p <= exact * 1.25 + 1
    assert (told.values_count, told.longest) == (len(values), values[-1])
