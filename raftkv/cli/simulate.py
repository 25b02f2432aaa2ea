"""``raftkv simulate``: whole clusters in virtual time, one that is told as a story, or very many that are counted."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from rich.text import Text

from raftkv.cli.campaign import Campaign, Campaigned, Wanted, differs_elsewhere, elsewhere
from raftkv.cli.commands import command
from raftkv.cli.exploring import Exploring, start_names, tell_exploration
from raftkv.cli.failures import EXIT_INTERRUPTED, Unusable
from raftkv.cli.items import printable
from raftkv.cli.options import Shared, print_json
from raftkv.cli.own_machine import find_machine
from raftkv.cli.pictures import console
from raftkv.cli.summary import (
    Say,
    finding_for_programs,
    for_programs,
    pace,
    say_line,
    show_finding,
    show_summary,
    span_text,
)
from raftkv.compiled import is_compiled
from raftkv.sim.runs.counted import Finding, shortest, story_end
from raftkv.sim.runs.exhaustive import STATES_MAX
from raftkv.sim.runs.failed import RunFailed
from raftkv.sim.runs.short import Made, ShortRun, short_run
from raftkv.sim.runs.story import Line, Story, Trace, profile_text
from raftkv.sim.runs.whole import Outcome, Run, finish

if TYPE_CHECKING:
    from rich.progress import Progress

EXIT_FOUND: Final = 1
"""A property did not hold."""
_TOLD_EVERY_S: Final = 30.0
_STORY_LINES: Final = 24
"""Of a failed run's end; the command that repeats it tells all."""


@command(
    examples=(
        "raftkv simulate --seed 17",
        "raftkv simulate --seed 17 --trace --steps 500",
        "raftkv simulate --seeds 10000 --jobs 2 --minutes 10 --state campaign.json",
        "raftkv simulate --short --seeds 100000",
        "raftkv simulate --exhaustive 6 --start led",
        "raftkv simulate --seeds 1000 --state-machine examples.tickets:Tickets",
    )
)
@click.option("--seed", type=click.IntRange(0), metavar="NUMBER", help="Tell the run of this seed.")
@click.option("--seeds", type=click.IntRange(1), metavar="COUNT", help="Make so many runs, and sum them up.")
@click.option("--first-seed", type=click.IntRange(0), metavar="SEED", help="Begin there.  [0]")
@click.option(
    "--minutes", type=click.FloatRange(0, min_open=True), metavar="MINUTES", help="Make runs for so long at most."
)
@click.option("--jobs", type=click.IntRange(1), metavar="COUNT", help="In so many processes.  [1]")
@click.option(
    "--state", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Go on from there later."
)
@click.option("--short", is_flag=True, help="Very short runs, in which every step is drawn.")
@click.option(
    "--exhaustive",
    type=click.IntRange(1),
    metavar="DEPTH",
    help="All that so many choices can bring about in three nodes.",
)
@click.option(
    "--start",
    "starts",
    type=click.Choice(start_names()),
    multiple=True,
    metavar="NAME",
    help=f"Explore from there, may be given again: {', '.join(start_names())}.  [empty]",
)
@click.option(
    "--states", type=click.IntRange(1), metavar="COUNT", help=f"Explore so many states at most.  [{STATES_MAX}]"
)
@click.option("--trace", is_flag=True, help="Tell everything, message by message.")
@click.option(
    "--steps", type=click.IntRange(1), metavar="COUNT", help="Cut the run off after so many steps, and judge it."
)
@click.option("--state-machine", metavar="MODULE:CLASS", help="Your own state machine instead of keys and values.")
@click.option("--output", type=click.Choice(["table", "json"]), help="For people (table) or for programs (json).")
def simulate(
    *,
    seed: int | None,
    trace: bool,
    steps: int | None,
    first_seed: int | None,
    output: str | None,
    state_machine: str | None,
    short: bool,
    exhaustive: int | None,
    starts: tuple[str, ...],
    states: int | None,
    **many: Any,
) -> int:
    """Prove the code in virtual time.

    Whole clusters of the code that ships, on a network, disks and clocks that fail by a seed; the properties of Raft
    are checked after every step, and what clients were told at the end. The same seed is the same run. A state
    machine of yours needs two more methods: see raftkv.sim.SimulatedMachine. Or, exhaustively, everything that can
    happen to three nodes in so many choices, from the empty cluster or from where things are known to go wrong.

    Exit codes: 0 nothing found, 1 a property did not hold (the seed and how to repeat it are told), 2 usage.
    """
    shared = click.get_current_context().find_object(Shared)
    as_json = (output or (shared.output if shared else None)) == "json"
    if exhaustive is not None:
        others = (seed, first_seed, steps, state_machine, many["seeds"], many["jobs"], many["state"])
        if short or trace or any(value is not None for value in others):
            raise Unusable("--exhaustive goes with --start, --states, --minutes and --output alone: nothing is drawn")
        if is_compiled():
            raise Unusable(
                "--exhaustive copies nodes, which cannot be done with compiled ones: install raftkv from source"
            )
        minutes = many["minutes"]
        exploring = Exploring(exhaustive, starts, states or STATES_MAX, None if minutes is None else minutes * 60)
        return tell_exploration(exploring, _say(), as_json=as_json)
    if starts or states is not None:
        raise Unusable("--start and --states are about an exploration: say --exhaustive DEPTH too")
    if state_machine is not None:
        if short:
            raise Unusable("--state-machine is for whole runs; leave out --short")
        find_machine(state_machine)
    if seed is None:
        if trace or steps is not None:
            raise Unusable("--trace and --steps are about one run: say --seed too")
        return _many(first_seed, short, state_machine, as_json=as_json, **many)
    if first_seed is not None or any(value is not None for value in many.values()):
        raise Unusable("--seed is about one run; --seeds, --first-seed, --minutes, --jobs and --state are about many")
    wanted = Wanted(seed, 1, short, state_machine)
    if short:
        if trace or steps is not None:
            raise Unusable("a short run tells every step anyway; --trace and --steps are for whole runs")
        return _one_short(wanted, as_json=as_json)
    return _One(wanted, steps, trace=trace, as_json=as_json).tell()


# -------------------------------------------------------------------------------------------- one run


class _One:
    """The run of one seed, told."""

    def __init__(self, wanted: Wanted, steps: int | None, *, trace: bool, as_json: bool) -> None:
        self.wanted, self.steps, self.trace, self.as_json = wanted, steps, trace, as_json
        self.seed = wanted.first_seed
        self.options = replace(wanted.options(), steps_max=steps)
        self.say = _say()

    def tell(self) -> int:
        began_s = time.monotonic()
        run = Run(self.seed, self.options)
        story = Story(run, self._tell_line)
        if not self.as_json:
            run.cluster.watchers.insert(0, story)
            if self.trace:
                run.cluster.watchers.insert(1, Trace(run.cluster, self._tell_line))
            self._introduce(run)
        try:
            outcome = finish(run)
        except RunFailed as failed:
            return self._failed(Finding.of(failed))
        story.tell_clients() if not self.as_json else None
        if self.wanted.machine is not None and self.steps is None:
            there = elsewhere(self.seed, self.wanted)
            if isinstance(there, Finding):
                return self._failed(there)
            if there.traces[self.seed] != outcome.trace:
                return self._failed(differs_elsewhere(self.seed))
        self._all_is_well(outcome, run)
        took_s = time.monotonic() - began_s
        if not self.as_json:
            click.echo(f"{pace(outcome.virtual_us, outcome.steps, took_s)}, in {took_s:.1f} s", err=True)
        return 0

    def _introduce(self, run: Run) -> None:
        self.say(f"seed {self.seed}", "bold")
        for line in profile_text(run):
            self.say(f"  {line}", "dim")
        self.say("")

    def _tell_line(self, line: Line) -> None:
        if not self.as_json:
            say_line(line, self.say)

    def _all_is_well(self, outcome: Outcome, run: Run) -> None:
        figures = {
            "steps": outcome.steps,
            "virtual_us": outcome.virtual_us,
            "faults": outcome.faults,
            "terms": outcome.terms,
            "operations": outcome.operations,
            "executions": outcome.executions,
            "trace": f"{outcome.trace:08x}",
        }
        if self.as_json:
            print_json({"seed": self.seed, "found": None, **figures})
            return
        self.say("")
        self.say("nothing is wrong", "bold green")
        cut = f" (it was cut off after {self.steps:,})" if run.cluster.steps == self.steps else ""
        self.say(
            f"  every property held after each of {outcome.steps:,} steps{cut}, "
            f"in {span_text(outcome.virtual_us)} of virtual time"
        )
        answers, writes = _count(outcome.operations, "answer"), _count(outcome.executions, "write")
        self.say(f"  {answers} to clients agree with one order of {writes}")
        faults, terms = _count(outcome.faults, "fault"), _count(outcome.terms, "term")
        self.say(f"  {faults}, {terms}, trace {outcome.trace:08x}")

    def _failed(self, found: Finding) -> int:
        steps = found.steps
        if self.steps is None and found.steps:
            steps = shortest(found, self.options)
        if self.as_json:
            print_json({"seed": self.seed, "found": finding_for_programs(found, self.wanted, steps)})
        else:
            self.say("")
            show_finding(found, self.wanted, steps, self.say)
        return EXIT_FOUND


def _one_short(wanted: Wanted, *, as_json: bool) -> int:
    """A short run: what was chosen, and what came of it."""
    say, seed = _say(), wanted.first_seed
    try:
        turns = short_run(seed)
    except RunFailed as failed:
        found = Finding.of(failed)
        if as_json:
            print_json({"seed": seed, "found": finding_for_programs(found, wanted, found.steps)})
        else:
            show_finding(found, wanted, found.steps, say)
        return EXIT_FOUND
    if as_json:
        print_json({"seed": seed, "found": None, "turns": turns})
        return 0
    for line in _told_by(ShortRun(seed)):
        say(line)
    say("")
    say("nothing is wrong", "bold green")
    say(f"  every property held after each of {turns:,} turns")
    return 0


def _told_by(drawn: ShortRun) -> list[str]:
    made = Made(drawn.setting, drawn.seed)
    made.run(drawn.chosen)
    return made.world.told


# ----------------------------------------------------------------------------------------------- many


def _many(
    first_seed: int | None,
    short: bool,
    machine: str | None,
    *,
    seeds: int | None,
    minutes: float | None,
    jobs: int | None,
    state: Path | None,
    as_json: bool,
) -> int:
    if seeds is None and minutes is None:
        raise Unusable("say --seed 17 for one run, or --seeds 1000, or --minutes 10, for many")
    seconds = None if minutes is None else minutes * 60
    campaign = Campaign(Wanted(first_seed or 0, seeds, short, machine, jobs or 1, seconds, state))
    with _progress(campaign, is_quiet=as_json) as watch:
        came_to = campaign.run(watch)
    _sum_up(campaign, came_to, as_json=as_json)
    if came_to.finding is not None:
        return EXIT_FOUND
    return EXIT_INTERRUPTED if came_to.was_interrupted else 0


def _sum_up(campaign: Campaign, came_to: Campaigned, *, as_json: bool) -> None:
    found, wanted = came_to.finding, campaign.wanted
    steps = 0 if found is None else found.steps
    if found is not None and found.steps and not wanted.is_short:
        steps = _shortest_told(found, wanted, is_quiet=as_json)
    if as_json:
        document = for_programs(came_to, wanted)
        document["found"] = None if found is None else finding_for_programs(found, wanted, steps)
        print_json(document)
        return
    say = _say()
    show_summary(came_to, wanted, say)
    if found is not None:
        say("")
        story = () if wanted.is_short or not found.steps else story_end(found, wanted.options(), lines_max=_STORY_LINES)
        show_finding(found, wanted, steps, say, story=story)
    if came_to.tally.runs:
        tally_rate = pace(came_to.tally.virtual_us, came_to.tally.steps, came_to.spent_s)
        click.echo(
            f"{tally_rate}, in {came_to.spent_s:,.0f} s of {wanted.jobs} process{'es' * (wanted.jobs > 1)}", err=True
        )


def _shortest_told(found: Finding, wanted: Wanted, *, is_quiet: bool) -> int:
    from raftkv.cli.patience import Patience

    with Patience(f"seed {found.seed} failed; looking for its shortest form …", is_quiet=is_quiet) as patience:
        return shortest(
            found,
            wanted.options(),
            tried=lambda steps: patience.say(f"seed {found.seed} failed; does it fail within {steps:,} steps?"),
        )


@contextmanager
def _progress(campaign: Campaign, *, is_quiet: bool) -> Iterator[Callable[[Campaigned], None]]:
    """A bar on a terminal, else a line now and then; on standard error."""
    if is_quiet:
        yield lambda came_to: None
    elif sys.stderr.isatty():
        with _bar() as bar:
            task = bar.add_task("", total=_total(campaign), done="", pace="")
            yield lambda came_to: bar.update(
                task, completed=_completed(campaign, came_to), done=_done_text(campaign, came_to), pace=_pace(came_to)
            )
    else:
        told_s = time.monotonic()

        def tell(came_to: Campaigned) -> None:
            nonlocal told_s
            if time.monotonic() - told_s > _TOLD_EVERY_S:
                told_s = time.monotonic()
                click.echo(f"{_done_text(campaign, came_to)}, {_pace(came_to)}", err=True)

        yield tell


def _bar() -> Progress:
    # Few commands show one, and all would wait for this import.
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    return Progress(
        SpinnerColumn(),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[done]}", style="bold"),
        TextColumn("{task.fields[pace]}", style="dim"),
        TimeRemainingColumn(compact=True),
        console=Console(stderr=True),
        transient=True,
    )


def _total(campaign: Campaign) -> float:
    """In runs; in seconds where only time ends it."""
    wanted = campaign.wanted
    return wanted.seeds if wanted.seeds is not None else wanted.seconds or 0.0


def _completed(campaign: Campaign, came_to: Campaigned) -> float:
    return came_to.tally.runs if campaign.wanted.seeds is not None else came_to.spent_now_s


def _done_text(campaign: Campaign, came_to: Campaigned) -> str:
    seeds = campaign.wanted.seeds
    of = "" if seeds is None else f" of {seeds:,}"
    return f"{came_to.tally.runs:,}{of} {campaign.wanted.kind} runs"


def _pace(came_to: Campaigned) -> str:
    if came_to.spent_now_s <= 0:
        return ""
    return f"{came_to.runs_now / came_to.spent_now_s:,.1f} a second"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _say() -> Say:
    screen = console()

    def say(text: str, style: str = "") -> None:
        screen.print(Text(printable(text), style), soft_wrap=True)

    return say
