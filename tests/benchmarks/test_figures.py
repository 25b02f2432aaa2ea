"""What is read off generators, and what follows from it."""

from __future__ import annotations

import pytest

from benchmarks import figures
from benchmarks.figures import BadOutput, Point, Run

WRK = """Running 2s test @ http://127.0.0.1:7991
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     3.54ms    1.20ms  21.33ms   91.12%
    Req/Sec    18.20k     1.10k   20.01k    75.00%
  Latency Distribution
     50%    3.20ms
     75%  950.00us
     90%    4.90ms
     99%    1.25s
  36412 requests in 2.01s, 9.03MB read
Requests/sec:  18115.42
Transfer/sec:      4.49MB
percentile 50 3211
percentile 99.9 15002.5
"""


def test_wrk_is_read_whole() -> None:
    run = figures.run_of_wrk(WRK)
    assert run.operations == 36412
    assert run.seconds == pytest.approx(2.01)
    assert run.latency_ms == pytest.approx({"50": 3.211, "75": 0.95, "90": 4.9, "99": 1250.0, "99.9": 15.0025})
    assert run.per_second == pytest.approx(36412 / 2.01)


@pytest.mark.parametrize("time", ["59.98s", "1.00m", "60.10s"])
def test_a_long_run_of_wrk_is_told_in_minutes(time: str) -> None:
    assert figures.run_of_wrk(WRK.replace("2.01s", time)).seconds == pytest.approx(60, abs=0.2)


@pytest.mark.parametrize(
    "bad",
    [
        WRK + "  Non-2xx or 3xx responses: 3\n",
        WRK.replace("Requests/sec", "  Socket errors: connect 0, read 1, write 0, timeout 0\nRequests/sec"),
        WRK.replace("requests in", "answers in"),
        WRK.replace("percentile 50 3211\n", "").replace("     50%    3.20ms\n", ""),
        WRK.replace("1.25s", "1.25h"),
        "",
    ],
    ids=["failures", "socket errors", "no count", "no median", "unknown unit", "nothing"],
)
def test_wrk_that_is_not_well_is_refused(bad: str) -> None:
    with pytest.raises(BadOutput):
        figures.run_of_wrk(bad)


@pytest.mark.parametrize(
    ("values", "part", "expected"),
    [
        (range(1, 101), 50, 50),
        (range(1, 101), 99, 99),
        (range(1, 101), 100, 100),
        (range(1, 101), 99.9, 100),
        (range(1, 1001), 99.9, 999),
        ([7], 1, 7),
        ([7], 100, 7),
        ([1, 2], 50, 1),
        ([1, 2], 51, 2),
        ([3, 5, 9], 95, 9),
    ],
)
def test_a_percentile_is_a_value_that_was_measured(values, part: float, expected: float) -> None:
    assert figures.percentile(list(values), part) == expected


def test_nothing_has_no_percentile_and_no_spread() -> None:
    for asked in (lambda: figures.percentile([], 50), lambda: figures.spread([])):
        with pytest.raises(ValueError, match="nothing was measured"):
            asked()
    assert figures.latencies_ms([]) == {}


def test_latencies_are_told_in_milliseconds_whatever_their_order() -> None:
    told = figures.latencies_ms([0.003, 0.001, 0.002])
    assert (told["1"], told["50"], told["99.9"]) == (1.0, 2.0, 3.0)


def test_ratios_are_taken_round_by_round() -> None:
    ratio = figures.ratios([100.0, 50.0, 90.0], [50.0, 50.0, 30.0])
    assert ratio == (2.0, 1.0, 3.0)
    assert ratio.text() == "2.00 (1.00–3.00)"


def test_one_round_has_no_spread() -> None:
    assert figures.spread([1234.4]).text(0) == "1,234"


def test_rounds_that_had_no_counterpart_are_refused() -> None:
    with pytest.raises(ValueError, match="2 rounds against 1"):
        figures.ratios([1.0, 2.0], [1.0])


def test_metrics_without_labels_are_read() -> None:
    text = '# HELP a b\n# TYPE a counter\na_total 12.0\nb{x="1"} 3\nc_sum 1.5e-03\n\n'
    assert figures.metrics(text) == {"a_total": 12.0, "c_sum": 0.0015}


def counters(syncs: float, batches: float = 0.0, entries: float = 0.0, syncing_s: float = 0.0) -> dict[str, float]:
    return {
        "raftkv_storage_syncs_total": syncs,
        "raftkv_replica_proposal_entries_count": batches,
        "raftkv_replica_proposal_entries_sum": entries,
        "raftkv_storage_sync_seconds_sum": syncing_s,
    }


def test_syncs_are_counted_for_each_batch_of_the_leader() -> None:
    before = [counters(5), counters(10, 100, 1000, 1.0), counters(0)]
    after = [counters(55), counters(110, 200, 3500, 2.5), counters(25)]
    found = figures.syncs_between(before, after, leader=1, seconds=2.0)
    assert found == ((0.5, 1.0, 0.25), 25.0, 0.75)


def test_a_leader_that_proposed_nothing_has_no_batches() -> None:
    same = [counters(5, 7, 7, 1.0)] * 3
    assert figures.syncs_between(same, same, leader=0, seconds=1.0) is None


def point(
    nodes: tuple[float, ...] = (0.1, 0.2, 0.1),
    *,
    generator: float = 0.1,
    machine: float = 0.5,
    sync_share: float | None = None,
    inside: bool = False,
) -> Point:
    run = Run(1000, 1.0, {"50": 1.0, "99": 2.0}, generator_cpu_s=generator, generator_is_in_leader=inside)
    return Point(run, 1, nodes, machine, window_s=1.0, cores=2, sync_share=sync_share)


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        (point(), "waiting: leader 20%"),
        (point((0.1, 0.95, 0.1), machine=1.3), "one core: leader 95%"),
        (point((0.92, 0.1, 0.1), machine=1.3), "one core: follower 1 92%"),
        (point(generator=0.97, machine=1.3), "one core: generator 97%"),
        (point(generator=0.97, machine=0.5, inside=True), "waiting: leader 20%"),
        (point((0.3, 0.9, 0.3), machine=1.9, generator=0.4), "all cores, most: leader 90%"),
        (point(machine=1.9), "all cores, most: leader 20%; others' programs 70%"),
        (point(sync_share=0.8), "disk: 80% of the time"),
        (point((0.1, 0.95, 0.1), machine=1.3, sync_share=0.8), "one core: leader 95%"),
        (point(sync_share=0.5), "waiting: leader 20%"),
    ],
)
def test_what_limited_a_run_is_named(measured: Point, expected: str) -> None:
    assert measured.limited_by == expected


def test_cpu_is_told_for_one_operation() -> None:
    assert point((0.05, 0.1, 0.0)).cpu_us(1) == pytest.approx(100)
