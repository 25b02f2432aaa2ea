"""What is read off generators, and what follows from it: percentiles, ratios, costs, limits. Pure."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

PERCENTILES: Final = (1, 5, 10, 25, 50, 75, 90, 95, 99, 99.9)
BUSY: Final = 0.9
"""A thread, or a machine, that works for such a share of the time has nothing left."""
SYNCING: Final = 0.7
"""A disk that is waited for during such a share of the time sets the pace."""
FOREIGN: Final = 0.2
"""Other programs that take such a share of the machine spoil what was measured."""

_UNITS_MS: Final = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}


class BadOutput(Exception):
    """A generator printed something else than what it does when all is well."""


@dataclass(frozen=True)
class Run:
    """One run of a generator."""

    operations: int
    seconds: float
    latency_ms: dict[str, float]
    """By percentile: "50", "99", "99.9"."""
    generator_cpu_s: float = 0.0
    generator_is_in_leader: bool = False

    @property
    def per_second(self) -> float:
        """Operations."""
        return self.operations / self.seconds


@dataclass(frozen=True)
class Point:
    """One run, and what it cost."""

    run: Run
    leader: int
    node_cpu_s: tuple[float, ...]
    machine_cpu_s: float
    """What all programs together worked …"""
    window_s: float
    """… in this time, in which the run was."""
    cores: int
    syncs_per_batch: tuple[float, ...] | None = None
    """Of each node, for every batch that the leader proposed; None: this system does not tell."""
    operations_per_batch: float | None = None
    sync_share: float | None = None
    """How much of the time the leader's disk wrote and synced."""

    def cpu_us(self, node: int) -> float:
        """Of one node, for one operation."""
        return self.node_cpu_s[node] / max(1, self.run.operations) * 1e6

    @property
    def foreign_share(self) -> float:
        """What programs that have nothing to do with this took of the machine."""
        ours = sum(self.node_cpu_s) + self.run.generator_cpu_s
        return max(0.0, self.machine_cpu_s - ours) / (self.cores * self.window_s)

    @property
    def limited_by(self) -> str:
        """What held this run back, as far as it can be seen.

        A process by its share of one core, other people's programs by their share of the machine.
        """
        seconds = self.run.seconds
        named = {"leader" if n == self.leader else f"follower {n + 1}": s for n, s in enumerate(self.node_cpu_s)}
        if not self.run.generator_is_in_leader:
            named["generator"] = self.run.generator_cpu_s
        most = max(named, key=lambda name: named[name])
        shares = f"{most} {named[most] / seconds:.0%}"
        foreign = f"; others' programs {self.foreign_share:.0%}" if self.foreign_share > FOREIGN else ""
        if self.machine_cpu_s / (self.cores * self.window_s) >= BUSY:
            return f"all cores, most: {shares}{foreign}"
        if named[most] / seconds >= BUSY:
            return f"one core: {shares}{foreign}"
        if self.sync_share is not None and self.sync_share >= SYNCING:
            return f"disk: {self.sync_share:.0%} of the time{foreign}"
        return f"waiting: {shares}{foreign}"


class Spread(NamedTuple):
    """Several rounds of one thing."""

    median: float
    low: float
    high: float

    def text(self, digits: int = 2) -> str:
        """As people read it; one round has no spread."""
        if self.low == self.high:
            return f"{self.median:,.{digits}f}"
        return f"{self.median:,.{digits}f} ({self.low:,.{digits}f}–{self.high:,.{digits}f})"


def spread(values: Iterable[float]) -> Spread:
    """Median, lowest and highest; of nothing at all, ValueError."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("nothing was measured")
    return Spread(statistics.median(ordered), ordered[0], ordered[-1])


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Ours over theirs, round by round: what stood side by side is compared, and only that."""
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} rounds against {len(theirs)}")
    return spread(mine / other for mine, other in zip(ours, theirs, strict=True))


def percentile(ordered: Sequence[float], part: float) -> float:
    """The smallest value that so many of a hundred do not exceed; ``ordered`` is, and is not empty."""
    if not ordered:
        raise ValueError("nothing was measured")
    return ordered[max(0, math.ceil(len(ordered) * part / 100 - 1e-9) - 1)]


def latencies_ms(taken_s: Iterable[float]) -> dict[str, float]:
    """The percentiles that a run is told by; of nothing at all, none."""
    ordered = sorted(taken_s)
    return {f"{part:g}": percentile(ordered, part) * 1000 for part in PERCENTILES} if ordered else {}


def run_of_wrk(printed: str) -> Run:
    """What wrk printed, with our script's own lines. Raises BadOutput for failures and for anything unknown."""
    if "Non-2xx or 3xx responses" in printed or "Socket errors" in printed:
        raise BadOutput(f"not everything was answered well:\n{printed}")
    counted = _found(r"(\d+) requests in ([\d.]+(?:us|ms|s|m))\b", printed)
    latency_ms = {
        part: float(us) / 1000 for part, us in re.findall(r"^percentile ([\d.]+) ([\d.]+)$", printed, re.MULTILINE)
    }
    for part, time in re.findall(r"^ +(\d+)% +(\S+)$", printed, re.MULTILINE):
        latency_ms.setdefault(part, milliseconds(time))
    if "50" not in latency_ms or "99" not in latency_ms:
        raise BadOutput(f"no latencies in what wrk printed:\n{printed}")
    return Run(int(counted[1]), milliseconds(counted[2]) / 1000, latency_ms)


def milliseconds(text: str) -> float:
    """Wrk's way of writing a time."""
    found = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text)
    if found is None:
        raise BadOutput(f"{text!r} is no time of wrk's")
    return float(found[1]) * _UNITS_MS[found[2]]


def _found(pattern: str, text: str) -> re.Match[str]:
    found = re.search(pattern, text)
    if found is None:
        raise BadOutput(f"wrk printed something else than expected:\n{text}")
    return found


def metrics(exposition: str) -> dict[str, float]:
    """Every series without labels, by its name."""
    lines = (line.split() for line in exposition.splitlines() if line and not line.startswith("#"))
    return {words[0]: float(words[1]) for words in lines if len(words) >= 2 and "{" not in words[0]}


class Syncs(NamedTuple):
    """What a cluster's metrics say of one run."""

    per_batch: tuple[float, ...]
    operations_per_batch: float
    share: float


def syncs_between(
    before: Sequence[Mapping[str, float]], after: Sequence[Mapping[str, float]], *, leader: int, seconds: float
) -> Syncs | None:
    """Of raftkv's metrics before and after a run; None: the leader proposed nothing."""

    def grown(node: int, name: str) -> float:
        return after[node].get(name, 0.0) - before[node].get(name, 0.0)

    batches = grown(leader, "raftkv_replica_proposal_entries_count")
    if batches <= 0:
        return None
    return Syncs(
        tuple(grown(node, "raftkv_storage_syncs_total") / batches for node in range(len(after))),
        grown(leader, "raftkv_replica_proposal_entries_sum") / batches,
        grown(leader, "raftkv_storage_sync_seconds_sum") / seconds,
    )
