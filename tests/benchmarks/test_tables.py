"""Tables of what was measured."""

from __future__ import annotations

import pytest

from benchmarks import tables
from benchmarks.figures import Point, Run
from benchmarks.tables import Table

TITLES = {"raftkv": "raftkv", "etcd-3.5": "etcd 3.5.1"}


def point(per_second: int, *, leader: int = 0, **more) -> Point:
    run = Run(per_second, 1.0, {"50": 1.5, "99": 9.0})
    return Point(run, leader, (0.1, 0.02, 0.03), machine_cpu_s=0.5, window_s=1.0, cores=2, **more)


def test_a_table_is_markdown() -> None:
    table = Table("floor", ("what", "p50"), notes=["a note"])
    table.add("a | b", "1.0")
    assert table.markdown() == "## floor\n\n| what | p50 |\n| --- | --: |\n| a \\| b | 1.0 |\n\na note\n"


def test_a_row_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="1 cells under 2 headings"):
        Table("t", ("a", "b")).add("x")


def test_the_others_come_first_and_have_the_ratio() -> None:
    measured = {
        "raftkv": {("put", 64): [point(2000), point(4000)]},
        "etcd-3.5": {("put", 64): [point(1000, leader=2), point(1000, leader=2)]},
    }
    table = tables.comparison("servers", measured, TITLES)
    assert table.rows == [
        ["put", "64", "etcd 3.5.1", "1,000", "1.50/9.0", "3.00 (2.00–4.00)", "30 + 20 + 100"],
        ["put", "64", "raftkv", "3,000 (2,000–4,000)", "1.50/9.0", "–", "38 + 8 + 11"],
    ]


def test_a_compiled_raftkv_that_was_measured_has_its_ratios_beside_them() -> None:
    measured = {
        "etcd-3.5": {("put", 64): [point(1000)]},
        "raftkv-compiled": {("put", 64): [point(3000)]},
        "raftkv": {("put", 64): [point(2000)]},
    }
    table = tables.comparison("servers", measured, {**TITLES, "raftkv-compiled": "raftkv, compiled"})
    assert table.headings[5:7] == ("raftkv over it", "compiled over it")
    assert [row[5:7] for row in table.rows] == [["2.00", "3.00"], ["0.67", "–"], ["–", "1.50"]]


def test_without_ours_there_is_no_ratio() -> None:
    table = tables.comparison("servers", {"etcd-3.5": {("get", 1): [point(1000)]}}, TITLES)
    assert [row[5] for row in table.rows] == ["–"]


def test_ours_alone_is_a_table_too() -> None:
    table = tables.comparison("servers", {"raftkv": {("get", 1): [point(1000)]}}, TITLES)
    assert [row[2:4] for row in table.rows] == [["raftkv", "1,000"]]


def test_limits_tell_the_syncs_of_those_who_tell_them() -> None:
    syncs = {"syncs_per_batch": (0.9, 0.5, 0.7), "operations_per_batch": 12.0, "sync_share": 0.2}
    measured = {
        "raftkv": {("put", 1): [point(1000, leader=1, **syncs)]},
        "etcd-3.5": {("put", 1): [point(10), point(30), point(20)]},
    }
    rows = tables.limits(measured, TITLES).rows
    assert [row[4:] for row in rows] == [["12.0", "0.50 + 0.90 + 0.70"], ["–", "–"]]
