"""What simulated runs came to, for people and for programs: figures, what was never seen, and a run that failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

from raftkv.cli.campaign import Campaigned, Wanted
from raftkv.sim.checks.coverage import result_names, rule_names, situation_names
from raftkv.sim.runs.counted import Finding, Tally
from raftkv.sim.runs.story import Line, told_to_clients

Say = Callable[..., None]

_TONES: Final = {"good": "green", "bad": "yellow", "fault": "red"}
_LABEL_CELLS: Final = 16


def show_summary(came_to: Campaigned, wanted: Wanted, say: Say) -> None:
    """The verdict, the figures, and what did not come about."""
    tally = came_to.tally
    runs = f"{tally.runs:,} {wanted.kind} run{'s' * (tally.runs != 1)}"
    seeds = (
        f"seeds {wanted.first_seed:,} to {came_to.next_seed - 1:,}"
        if tally.runs
        else f"from seed {wanted.first_seed:,} on"
    )
    why = ", interrupted" if came_to.was_interrupted else ""
    if came_to.finding is None:
        say(f"{runs} ({seeds}){why}: nothing is wrong", "bold green")
    else:
        say(f"{runs} ({seeds}) held; then one did not", "bold red")
    if not tally.runs:
        return
    say("")
    if not wanted.is_short:
        _row(say, "virtual time", span_text(tally.virtual_us))
    _row(say, "turns" if wanted.is_short else "steps", f"{tally.steps:,}, every one of them checked")
    if not wanted.is_short:
        _row(say, "operations", f"{tally.operations:,} answers to clients judged, {tally.executions:,} writes executed")
        _row(say, "clients", told_to_clients(tally.clients) or "were told nothing")
        _row(say, "faults", _counts(tally.faults) or "none")
    if tally.covered_runs and came_to.finding is None and wanted.machine is None:
        _show_coverage(tally, wanted, say)


def _show_coverage(tally: Tally, wanted: Wanted, say: Say) -> None:
    results = result_names()
    asked = [name for name in rule_names() if any(key.startswith(f"{name} ") for key in tally.rules)]
    came = [name for name in results if tally.rules[name]]
    say("")
    say(f"Looked at closely, in {tally.covered_runs:,} of them:", "bold")
    _row(
        say,
        "rules",
        f"{len(asked)} of {len(rule_names())} were asked, {len(came)} of {len(results)} results came about",
    )
    _never(say, [name for name in results if not tally.rules[name]])
    if wanted.is_short:
        return
    names = situation_names()
    seen = [name for name in names if tally.situations[name]]
    _row(say, "rare situations", f"{len(seen)} of {len(names)} came about")
    _never(say, [name for name in names if not tally.situations[name]])


def _never(say: Say, names: Sequence[str]) -> None:
    for place, name in enumerate(names):
        say(f"  {'never' if place == 0 else '':<{_LABEL_CELLS}}{name}", "dim")


def _row(say: Say, label: str, text: str) -> None:
    say(f"  {label:<{_LABEL_CELLS}}{text}")


def _counts(counts: Counter[str]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in _by_count(counts))


def _by_count(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def show_finding(found: Finding, wanted: Wanted, steps: int, say: Say, *, story: Sequence[Line] = ()) -> None:
    """What did not hold, the story's end, and what repeats it."""
    say(f"seed {found.seed}: {found.property} does not hold", "bold red")
    for line in found.text.splitlines():
        say(f"  {line}")
    if story or wanted.is_short:
        say("")
        say("the last that happened:", "bold")
    for happened in story:
        say_line(happened, say)
    for told in found.told if wanted.is_short else ():
        say(f"  {told}")
    say("")
    if 0 < steps < found.steps:
        say(f"it failed after {found.steps:,} steps; the shortest run that shows it has {steps:,}:", "bold")
    else:
        unit = "turns" if wanted.is_short else "steps"
        say(f"it failed after {steps:,} {unit}; to see it again:" if steps else "to see it again:", "bold")
    say(f"  {repeating(found, wanted, steps)}")


def say_line(line: Line, say: Say) -> None:
    """A line of a story: when, who, what."""
    at = f"{line.at_us // 1_000_000:4}.{line.at_us % 1_000_000 // 1000:03} s"
    say(f"{at}  {line.who:<7}  {line.text}", _TONES.get(line.tone, ""))


def repeating(found: Finding, wanted: Wanted, steps: int) -> str:
    """The command that shows this failure."""
    cut = f" --steps {steps}" if steps and not wanted.is_short else ""
    hashing = "" if found.hash_seed is None else f"PYTHONHASHSEED={found.hash_seed} "
    return f"{hashing}{wanted.command} --seed {found.seed}{cut}"


def for_programs(came_to: Campaigned, wanted: Wanted) -> dict[str, Any]:
    """The summary as one document."""
    tally = came_to.tally
    rate = came_to.spent_s or 1.0
    return {
        "kind": wanted.kind,
        "state_machine": wanted.machine,
        "first_seed": wanted.first_seed,
        "next_seed": came_to.next_seed,
        "interrupted": came_to.was_interrupted,
        **tally.as_json(),
        "rules": {name: tally.rules[name] for name in result_names()},
        "situations": {name: tally.situations[name] for name in situation_names()},
        "never_seen": [
            name
            for counts, names in ((tally.rules, result_names()), (tally.situations, situation_names()))
            for name in names
            if not counts[name]
        ],
        "spent_s": round(came_to.spent_s, 1),
        "steps_per_second": round(tally.steps / rate),
        "virtual_hours_per_minute": round(tally.virtual_us / 3.6e9 / rate * 60, 3),
    }


def finding_for_programs(found: Finding, wanted: Wanted, steps: int) -> dict[str, Any]:
    """A failed run as one document."""
    return {
        "seed": found.seed,
        "property": found.property,
        "text": found.text,
        "steps": found.steps,
        "shortest_steps": steps,
        "command": repeating(found, wanted, steps),
        "told": list(found.told),
    }


def pace(virtual_us: int, steps: int, took_s: float) -> str:
    """How fast that was."""
    took_s = max(took_s, 0.001)
    hours = virtual_us / 3.6e9 / took_s * 60
    virtual = f", {hours:,.2f} virtual hours a minute" if virtual_us else ""
    return f"{steps / took_s:,.0f} steps a second{virtual}"


def span_text(virtual_us: int) -> str:
    """A span of virtual time, in its larger units where it is long."""
    seconds = virtual_us // 1_000_000
    if seconds < 600:
        return f"{seconds}.{virtual_us % 1_000_000 // 1000:03} s"
    minutes = f"{seconds % 3600 // 60} min"
    return f"{minutes} {seconds % 60} s" if seconds < 3600 else f"{seconds // 3600:,} h {minutes}"
