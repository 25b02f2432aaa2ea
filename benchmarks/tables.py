"""Tables as data, and as Markdown. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from benchmarks.figures import Point, ratios, spread

Key = tuple[str, int]
"""What was done, and by how many clients."""

OURS: Final = {"servers": "raftkv", "inside": "raftkv-inside", "libraries": "raftkv-client"}
"""Whose throughput is divided by that of the others of its group …"""
COMPILED: Final = {group: f"{name}-compiled" for group, name in OURS.items()}
"""… and the same, compiled, where it is there."""


@dataclass
class Table:
    """Rows of text under a title; ``left`` columns are words, the others figures."""

    title: str
    headings: Sequence[str]
    rows: list[list[str]] = field(default_factory=list)
    left: int = 1
    notes: list[str] = field(default_factory=list)

    def add(self, *cells: str) -> None:
        """One row more, as wide as the others."""
        if len(cells) != len(self.headings):
            raise ValueError(f"{len(cells)} cells under {len(self.headings)} headings")
        self.rows.append(list(cells))

    def markdown(self) -> str:
        """As a document has it."""
        rule = ["---" if n < self.left else "--:" for n in range(len(self.headings))]
        lines = [f"| {' | '.join(_escaped(row))} |" for row in (self.headings, rule, *self.rows)]
        notes = "".join(f"\n{note}\n" for note in self.notes)
        return f"## {self.title}\n\n" + "\n".join(lines) + "\n" + notes


def _escaped(cells: Iterable[str]) -> list[str]:
    return [cell.replace("|", "\\|") for cell in cells]


Measurements = Mapping[str, Mapping[Key, Sequence[Point]]]
"""Of each system, of each point, round by round."""


def comparison(group: str, measured: Measurements, titles: Mapping[str, str]) -> Table:
    """All systems of a group, point by point, ours last; what ours did divided by what each of the others did."""
    ours, compiled = OURS[group], COMPILED[group]
    over = ("raftkv over it", *(["compiled over it"] if compiled in measured else []))
    table = Table(
        f"{group}: operations per second",
        ("operation", "clients", "system", "per second", "p50/p99 ms", *over, "CPU µs leader+followers"),
        left=3,
    )
    names = [*(name for name in measured if name != ours), *([ours] if ours in measured else [])]
    for point in measured[names[0]] if names else ():
        for name in names:
            divided = [measured.get(dividend, {}).get(point, ()) for dividend in (ours, compiled)[: len(over)]]
            table.add(*point_row(point, measured[name][point], divided, titles[name]))
    table.notes.append(
        "Median (lowest–highest) of the rounds; ratios are taken round by round. CPU is what each node worked for one "
        "operation, from /proc."
    )
    return table


def point_row(point: Key, theirs: Sequence[Point], ours: Sequence[Sequence[Point]], title: str) -> list[str]:
    """One system at one point, and what each of ours made of what it did."""
    speeds = [one.run.per_second for one in theirs]
    over = [
        "–" if theirs is dividend or not dividend else ratios([one.run.per_second for one in dividend], speeds).text()
        for dividend in ours
    ]
    return [point[0], str(point[1]), title, spread(speeds).text(0), latency_cell(theirs), *over, cpu_cell(theirs)]


def latency_cell(points: Sequence[Point]) -> str:
    """Medians of p50 and p99."""
    p50, p99 = (_median(points, lambda one, part=part: one.run.latency_ms[part]) for part in ("50", "99"))  # type: ignore[misc]
    return f"{p50:.2f}/{p99:.1f}"


def cpu_cell(points: Sequence[Point]) -> str:
    """The leader's, and those of the others."""

    def of(point: Point) -> list[float]:
        followers = [point.cpu_us(node) for node in range(len(point.node_cpu_s)) if node != point.leader]
        return [point.cpu_us(point.leader), *sorted(followers)]

    columns = zip(*(of(point) for point in points), strict=True)
    return " + ".join(f"{statistics.median(column):.0f}" for column in columns)


def limits(measured: Measurements, titles: Mapping[str, str]) -> Table:
    """What held each of them back, in its median round; and how often it synced, where it tells."""
    table = Table(
        "What limited it",
        ("operation", "clients", "system", "limited by", "entries per batch", "syncs per batch, leader + followers"),
        left=4,
    )
    for name, points in measured.items():
        for (verb, clients), rounds in points.items():
            middle = sorted(rounds, key=lambda one: one.run.per_second)[len(rounds) // 2]
            syncs, entries = "–", "–"
            if middle.syncs_per_batch is not None and middle.operations_per_batch is not None:
                syncs = " + ".join(f"{count:.2f}" for count in _leader_first(middle.syncs_per_batch, middle.leader))
                entries = f"{middle.operations_per_batch:.1f}"
            table.add(verb, str(clients), titles[name], middle.limited_by, entries, syncs)
    table.notes.append(
        "Shares of one core; of other programs, of the machine, where nodes of the others are stopped meanwhile. "
        "Waiting: for answers, disks and each other."
    )
    table.notes.append(
        "A batch is what the leader proposed at once; below 1 sync for a batch, one fdatasync was for several. "
        "Only raftkv tells, by its own metrics."
    )
    return table


def _leader_first(values: Sequence[float], leader: int) -> list[float]:
    return [values[leader], *(value for node, value in enumerate(values) if node != leader)]


def _median(points: Sequence[Point], value: Callable[[Point], float]) -> float:
    return statistics.median(value(point) for point in points)
