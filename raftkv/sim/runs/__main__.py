"""Virtual clusters from seeds, and all that can happen to one up to a depth.

python -m raftkv.sim.runs 17                          that whole run, told
python -m raftkv.sim.runs 0 5000                      all of these, failures told
python -m raftkv.sim.runs --short 0 5000
python -m raftkv.sim.runs --exhaustive 8              from the empty cluster
python -m raftkv.sim.runs --exhaustive 5 led cut-off  from these starting points; "all": from each
    --states 1000000 --seconds 60                     but no further, each
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from time import monotonic

from raftkv.sim.runs.exhaustive import STATES_MAX, Explored, explore
from raftkv.sim.runs.failed import RunFailed
from raftkv.sim.runs.short import short_run
from raftkv.sim.runs.starts import STARTS
from raftkv.sim.runs.whole import run


def main(arguments: Sequence[str]) -> int:
    """Runs what the command line names; how many failed."""
    if not arguments or "--help" in arguments:
        sys.stdout.write(__doc__ or "")
        return 0
    if arguments[0] == "--exhaustive":
        return _explore(list(arguments[1:]))
    numbers = [int(argument) for argument in arguments if argument != "--short"]
    one: Callable[[int], object] = short_run if "--short" in arguments else run
    seeds = range(numbers[0], numbers[1] if len(numbers) > 1 else numbers[0] + 1)
    failed = 0
    for seed in seeds:
        try:
            outcome = one(seed)
        except RunFailed as failure:
            failed += 1
            sys.stdout.write(f"{failure}\n\n")
        else:
            if len(seeds) == 1:
                sys.stdout.write(f"{outcome}\n")
    sys.stdout.write(f"{len(seeds)} runs, {failed} failed\n")
    return failed


def _explore(arguments: list[str]) -> int:
    states_max = _taken(arguments, "--states", STATES_MAX)
    seconds_max = _taken(arguments, "--seconds", 3600)
    depth, *starts = arguments
    failed = 0
    for start in STARTS if starts == ["all"] else starts or ["empty"]:
        if start not in STARTS:
            sys.stdout.write(f"{start}: there is no such starting point, but {', '.join(STARTS)}\n")
            return failed + 1
        sys.stdout.write(f"{start}: {STARTS[start].about}\n")
        found = _explore_from(start, int(depth), states_max, seconds_max)
        failed += found.found is not None
    return failed


def _explore_from(start: str, depth: int, states_max: int, seconds_max: int) -> Explored:
    began = monotonic()

    def tell(so_far: Explored) -> None:
        rate = so_far.states / max(monotonic() - began, 0.001)
        seen = f"states {so_far.states:>9,}  merged {so_far.merged:>10,}"
        sys.stdout.write(f"  depth {so_far.depth:2}  {seen}  {rate:>8,.0f} states/s\n")
        sys.stdout.flush()

    def is_out_of_time() -> bool:
        return monotonic() - began > seconds_max

    found = explore(depth, start, states_max, stop=is_out_of_time, progress=tell)
    sys.stdout.write(f"  ended by: {found.ended_by}\n")
    if found.found is not None:
        sys.stdout.write(f"{found.found}\n\n")
    return found


def _taken(arguments: list[str], option: str, default: int) -> int:
    """The number after the option; both are taken out."""
    if option not in arguments:
        return default
    place = arguments.index(option)
    number = int(arguments[place + 1])
    del arguments[place : place + 2]
    return number


if __name__ == "__main__":
    sys.exit(min(1, main(sys.argv[1:])))
