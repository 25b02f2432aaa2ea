"""Virtual clusters from seeds, in this process; ``raftkv simulate`` is for people, and has more.

python -m raftkv.sim.runs 17                          that whole run, told
python -m raftkv.sim.runs 0 5000                      all of these, failures told
python -m raftkv.sim.runs --short 0 5000
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from raftkv.sim.runs.failed import RunFailed
from raftkv.sim.runs.short import short_run
from raftkv.sim.runs.whole import run


def main(arguments: Sequence[str]) -> int:
    """Runs what the command line names; how many failed."""
    if not arguments or "--help" in arguments:
        sys.stdout.write(__doc__ or "")
        return 0
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


if __name__ == "__main__":
    sys.exit(min(1, main(sys.argv[1:])))
