"""``raftkv simulate --exhaustive``: everything that can happen to three nodes up to a depth, told as it goes.

Told: how deep, from which starting points, and when to stop. Tells: how far each exploration came, and the first state
in which a property does not hold, with the choices that lead there. May never know: how states are explored.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import click

from raftkv.cli.failures import EXIT_INTERRUPTED
from raftkv.cli.options import print_json
from raftkv.cli.patience import Patience
from raftkv.cli.summary import Say
from raftkv.sim.runs.exhaustive import STATES_MAX, Explored, explore
from raftkv.sim.runs.starts import STARTS

EXIT_FOUND: Final = 1
ALL: Final = "all"
"""Instead of a starting point's name: each of them."""
EMPTY: Final = "empty"
_OUTCOMES: Final = {
    "depth": "everything up to that depth was seen",
    "nothing is left": "nothing further can happen",
    "states": "stopped at so many states; --states COUNT goes further",
    "told to stop": "stopped: the time is over",
    "interrupted": "interrupted",
}


@dataclass(frozen=True, slots=True)
class Exploring:
    """What is wanted."""

    depth: int
    starts: tuple[str, ...] = ()
    """Names of starting points, or ``all``; none: the empty cluster."""
    states_max: int = STATES_MAX
    seconds: float | None = None
    """For all of them together."""

    @property
    def names(self) -> list[str]:
        """Of the starting points, each once."""
        return list(STARTS) if ALL in self.starts else list(dict.fromkeys(self.starts)) or [EMPTY]


def tell_exploration(wanted: Exploring, say: Say, *, as_json: bool) -> int:
    """Explores from each starting point, until a property does not hold; the exit code."""
    began_s = time.monotonic()
    came_to: list[Explored] = []
    is_interrupted = False
    for name in wanted.names:
        if not as_json:
            say(f"from {name}: {STARTS[name].about}", "bold")
        explored, is_interrupted = _explore(name, wanted, began_s, is_quiet=as_json)
        came_to.append(explored)
        if not as_json:
            _show(explored, say)
        if explored.found is not None or is_interrupted:
            break
    found = any(explored.found is not None for explored in came_to)
    if as_json:
        print_json({"found": found, "interrupted": is_interrupted, "explored": [_for_programs(one) for one in came_to]})
    elif not found and not is_interrupted:
        say("")
        say("nothing is wrong", "bold green")
    states = sum(explored.states for explored in came_to)
    if not as_json:
        took_s = time.monotonic() - began_s
        click.echo(f"{states:,} states, {states / max(took_s, 0.001):,.0f} a second, in {took_s:.1f} s", err=True)
    return EXIT_FOUND if found else EXIT_INTERRUPTED if is_interrupted else 0


def _explore(name: str, wanted: Exploring, began_s: float, *, is_quiet: bool) -> tuple[Explored, bool]:
    """How far it came, and whether somebody interrupted it."""
    newest = Explored(name, 0, 0, 0, 0, "interrupted", None)

    with _progress(name, is_quiet=is_quiet) as tell:

        def heard(so_far: Explored) -> None:
            nonlocal newest
            newest = so_far
            tell(so_far)

        def is_over() -> bool:
            return wanted.seconds is not None and time.monotonic() - began_s > wanted.seconds

        try:
            return explore(wanted.depth, name, wanted.states_max, stop=is_over, progress=heard), False
        except KeyboardInterrupt:
            return _interrupted(newest), True


def _interrupted(newest: Explored) -> Explored:
    return Explored(newest.start, newest.depth, newest.states, newest.merged, newest.node_steps, "interrupted", None)


@contextmanager
def _progress(name: str, *, is_quiet: bool) -> Iterator[Callable[[Explored], None]]:
    """On standard error: a line that changes on a terminal, else one for each depth."""
    if is_quiet or not sys.stderr.isatty():
        yield (lambda so_far: None) if is_quiet else lambda so_far: click.echo(_depth_text(name, so_far), err=True)
        return
    with Patience(f"from {name} …") as patience:
        yield lambda so_far: patience.say(f"{_depth_text(name, so_far)}; one deeper …")


def _depth_text(name: str, so_far: Explored) -> str:
    return f"from {name}: depth {so_far.depth}, {so_far.states:,} states"


def _show(explored: Explored, say: Say) -> None:
    merged = f"{explored.merged:,} times one that was known"
    say(f"  depth {explored.depth}: {explored.states:,} different states, {merged}")
    if explored.found is None:
        say(f"  {_OUTCOMES[explored.ended_by]}")
        return
    counterexample = explored.found
    say("")
    say(f"{_property(counterexample.cause)} does not hold", "bold red")
    for line in str(counterexample).splitlines():
        say(f"  {line}")
    say("")
    say("to see it again:", "bold")
    say(f"  {_repeating(explored)}")


def _property(cause: Exception) -> str:
    return str(getattr(cause, "name", type(cause).__name__))


def _repeating(explored: Explored) -> str:
    return f"raftkv simulate --exhaustive {explored.depth + 1} --start {explored.start}"


def _for_programs(explored: Explored) -> dict[str, Any]:
    found = explored.found
    return {
        "start": explored.start,
        "depth": explored.depth,
        "states": explored.states,
        "merged": explored.merged,
        "node_steps": explored.node_steps,
        "ended_by": explored.ended_by,
        "found": None
        if found is None
        else {
            "property": _property(found.cause),
            "text": str(found.cause),
            "choices": [str(choice) for choice in found.choices],
            "told": list(found.story),
            "command": _repeating(explored),
        },
    }


def start_names() -> Sequence[str]:
    """What ``--start`` may be."""
    return (*STARTS, ALL)
