"""Runs that are counted: what one came to, as figures that can be added up, or as a finding; and its shortest form.

Told: a seed, options. Tells: a Tally, or a Finding. Some runs, chosen by their seeds, are looked at closely: they
count rules and rare situations too. Looking changes nothing. May never know: how many runs there are, and where.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, Self

from raftkv.sim.checks.coverage import Situations, rules_are_counted
from raftkv.sim.runs.failed import RunFailed
from raftkv.sim.runs.short import short_run
from raftkv.sim.runs.story import Line, Story
from raftkv.sim.runs.whole import Run, RunOptions, finish

COVERED_EVERY: Final = 4
"""One run of so many is looked at closely: that takes half as long again."""


@dataclass(slots=True)
class Tally:
    """Figures of any number of runs."""

    runs: int = 0
    virtual_us: int = 0
    steps: int = 0
    operations: int = 0
    """Answers that were judged."""
    executions: int = 0
    covered_runs: int = 0
    """Those that were looked at closely."""
    faults: Counter[str] = field(default_factory=Counter)
    clients: Counter[str] = field(default_factory=Counter)
    """What they were told."""
    rules: Counter[str] = field(default_factory=Counter)
    situations: Counter[str] = field(default_factory=Counter)
    traces: dict[int, int] = field(default_factory=dict)
    """By seed, where somebody wants to compare them."""

    def add(self, other: Tally) -> None:
        """The other's runs count here too."""
        for one in fields(self):
            mine, theirs = getattr(self, one.name), getattr(other, one.name)
            if isinstance(mine, dict):
                mine.update(theirs)
            else:
                setattr(self, one.name, mine + theirs)

    def as_json(self) -> dict[str, Any]:
        """All of it but the traces, for files and programs."""
        return {one.name: _plain(getattr(self, one.name)) for one in fields(self) if one.name != "traces"}

    @classmethod
    def from_json(cls, said: dict[str, Any]) -> Self:
        """What ``as_json`` gave; raises TypeError or ValueError for anything else."""
        kept = {one.name for one in fields(cls)} - {"traces"}
        if set(said) != kept:
            raise ValueError(f"a tally has {', '.join(sorted(kept))}")
        values: dict[str, Any] = {}
        for name, value in said.items():
            values[name] = Counter(value) if isinstance(value, dict) else int(value)
        return cls(**values)


def _plain(value: int | Counter[str]) -> Any:
    return dict(sorted(value.items())) if isinstance(value, dict) else value


@dataclass(frozen=True, slots=True)
class Finding:
    """A run that failed."""

    seed: int
    property: str
    """Its name, or the kind of error."""
    text: str
    steps: int
    told: tuple[str, ...] = ()
    """The last that happened, in lines."""
    hash_seed: int | None = None
    """PYTHONHASHSEED where it failed, if that may matter."""

    @classmethod
    def of(cls, failed: RunFailed) -> Self:
        """What failed, by its name."""
        name = getattr(failed.cause, "name", type(failed.cause).__name__)
        text = str(failed.cause).removeprefix(f"{name}: ")
        return cls(failed.seed, str(name), text, failed.steps, tuple(failed.told))


def counted(seed: int, options: RunOptions) -> Tally | Finding:
    """The whole run of that seed."""
    is_covered = seed % COVERED_EVERY == 0
    tally = Tally(runs=1, covered_runs=int(is_covered))
    made = Run(seed, options)
    situations = Situations(made.cluster.nodes)
    if is_covered:
        made.cluster.watchers.insert(0, situations)
    try:
        with rules_are_counted(tally.rules) if is_covered else nullcontext():
            outcome = finish(made)
    except RunFailed as failed:
        return Finding.of(failed)
    tally.virtual_us, tally.steps = outcome.virtual_us, outcome.steps
    tally.operations, tally.executions = outcome.operations, outcome.executions
    tally.faults.update(made.teller.faults)
    tally.clients.update(made.workload.tally)
    tally.traces[seed] = outcome.trace
    if is_covered:
        situations.clients_were_told(made.workload.tally)
        tally.situations.update(situations.counts)
    return tally


def story_end(found: Finding, options: RunOptions, *, lines_max: int) -> list[Line]:
    """The last lines of that run's story, up to where it failed."""
    made = Run(found.seed, replace(options, steps_max=found.steps or None))
    lines: deque[Line] = deque(maxlen=lines_max)
    story = Story(made, lines.append)
    made.cluster.watchers.insert(0, story)
    with suppress(RunFailed):
        finish(made)
    story.tell_clients()
    return list(lines)


def counted_short(seed: int) -> Tally | Finding:
    """The short run of that seed; it has turns instead of steps, and no clock."""
    is_covered = seed % COVERED_EVERY == 0
    tally = Tally(runs=1, covered_runs=int(is_covered))
    try:
        with rules_are_counted(tally.rules) if is_covered else nullcontext():
            tally.steps = short_run(seed)
    except RunFailed as failed:
        return Finding.of(failed)
    return tally


def shortest(found: Finding, options: RunOptions, *, tried: Callable[[int], None] = lambda steps: None) -> int:
    """The fewest steps after which this run fails in the same way.

    What is checked at every step fails at the step itself. What is judged at the end is looked for by cutting the
    run, again and again at half of what is left. A failure that no cut shows, like a cluster that does not come to
    rest, takes the whole run. ``tried`` hears how far each cut is.
    """

    def fails(steps: int) -> bool:
        tried(steps)
        ended = counted(found.seed, replace(options, steps_max=steps))
        return isinstance(ended, Finding) and ended.property == found.property

    if found.steps < 2 or not fails(found.steps) or not fails(found.steps - 1):
        return found.steps
    holds, failing = 0, found.steps - 1
    while failing - holds > 1:
        middle = (holds + failing) // 2
        if fails(middle):
            failing = middle
        else:
            holds = middle
    return failing
