"""``scripts/planted-bugs``: plants each bug into a copy of the tree, and sees whether some check catches it.

Told: which bugs, for how long each, where to keep what came out. Tells: a table, and exit code 0 if at least 95 % are
caught and each of the others is explained. A check counts only if it lets the unchanged copy pass: tests are run on it
once before they are used, and the very seed that caught a bug is run on it afterwards.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.table import Table

from tests.planted.catalogue import FAULTS_MAX, ROOT, BadBug, Bug, load, planted
from tests.planted.checks import FIRST_BATCH, Caught, run_seeds, simulated, tested

NEEDED: Final = (
    *("raftkv", "tests", "examples", "deploy", "pyproject.toml", "hatch_build.py", "requirements-dev.txt"),
    *("README.md", "CHANGELOG.md"),
)
"""What the checks use of the tree."""
CAUGHT_PERCENT_MIN: Final = 95
SHARES: Final = {"short": 1 / 6, "whole": 1 / 4}
"""Of a bug's time, for the simulator's two kinds of runs; tests have the rest."""
CONTROL_S: Final = 300.0
TESTS_S_MIN: Final = 30.0
_CONSOLE: Final = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 200)


class Unsound(click.ClickException):
    """The unchanged copy does not pass: nothing can be said of any bug."""


@dataclass(slots=True)
class Result:
    """What came of one bug."""

    name: str
    digest: str
    """Of the bug and of the file that it goes into: as long as it is the same, nothing is run again."""
    caught: Caught | None
    seconds: float

    @property
    def by(self) -> str:
        """The kind of check."""
        return "nothing" if self.caught is None else self.caught.by


class Trees:
    """The unchanged copy, which is proved once, and copies of it with one bug each."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.base = directory / "unchanged"
        self.base.mkdir()
        self._lock = threading.Lock()
        self._proved: dict[str, float] = {}
        self.batch_s: dict[str, float] = {}
        """What the first batch of each kind of runs takes without a bug."""
        for name in NEEDED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, self.base / name)
            else:
                shutil.copy2(source, self.base / name)

    def prove_simulator(self) -> None:
        """The simulator finds nothing wrong with the unchanged copy."""
        for kind, runs in FIRST_BATCH.items():
            began_s = time.monotonic()
            ended = run_seeds(self.base, kind, 0, runs, within_s=CONTROL_S)
            self.batch_s[kind] = time.monotonic() - began_s
            if ended.status != 0:
                raise Unsound(f"the unchanged copy fails in the simulator's {kind} runs:\n{ended.text}")

    def prove_seed(self, kind: str, seed: int) -> None:
        """That run finds nothing wrong with the unchanged copy."""
        ended = run_seeds(self.base, kind, seed, seed + 1, within_s=CONTROL_S)
        if ended.status != 0:
            raise Unsound(f"the unchanged copy fails in the simulator's {kind} run {seed}:\n{ended.text}")

    def prove_tests(self, target: str) -> float:
        """Those tests pass in the unchanged copy, in so many seconds; run once."""
        with self._lock:
            if target not in self._proved:
                began_s = time.monotonic()
                caught = tested(self.base, target, within_s=CONTROL_S)
                if caught is not None:
                    raise Unsound(f"the unchanged copy fails: {caught.what}")
                self._proved[target] = time.monotonic() - began_s
            return self._proved[target]

    def with_bug(self, bug: Bug) -> Path:
        """A copy of its own with the bug in it; files that are the same are links."""
        copy = self._directory / bug.name
        shutil.copytree(self.base, copy, copy_function=os.link)
        changed = copy / bug.file
        source = changed.read_text()
        changed.unlink()
        changed.write_text(planted(bug, source))
        for compiled in changed.parent.glob(f"__pycache__/{changed.stem}.*"):
            compiled.unlink()
        return copy


def digest_of(bug: Bug) -> str:
    """Another one as soon as the bug or its file is another."""
    parts = (bug.file, bug.function, bug.old, bug.new, (ROOT / bug.file).read_text())
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def judged(bug: Bug, trees: Trees, *, seconds: float, tests_first: bool) -> Result:
    """The checks were run on a copy with the bug until one caught it."""
    began_s = time.monotonic()
    copy = trees.with_bug(bug)
    try:
        caught = _by_tests(bug, trees, copy, until_s=began_s + seconds) if tests_first else None
        if caught is None and bug.simulator:
            caught = _by_simulator(bug, trees, copy, seconds=seconds)
        if caught is None and not tests_first:
            caught = _by_tests(bug, trees, copy, until_s=began_s + seconds)
    finally:
        shutil.rmtree(copy, ignore_errors=True)
    return Result(bug.name, digest_of(bug), caught, round(time.monotonic() - began_s, 1))


def _by_simulator(bug: Bug, trees: Trees, copy: Path, *, seconds: float) -> Caught | None:
    for kind, share in SHARES.items():
        usual_s = trees.batch_s[kind]
        caught = simulated(copy, kind, first_seed=0, within_s=share * seconds, usual_s=usual_s)
        if caught is not None:
            assert caught.seed is not None
            trees.prove_seed(kind, caught.seed)
            return caught
    return None


def _by_tests(bug: Bug, trees: Trees, copy: Path, *, until_s: float) -> Caught | None:
    for target in bug.tests:
        usual_s = trees.prove_tests(target)
        within_s = max(until_s - time.monotonic(), TESTS_S_MIN, 3 * usual_s)
        caught = tested(copy, target, within_s=within_s)
        if caught is not None:
            return caught
    return None


# ----------------------------------------------------------------------------------------- what is kept


def finished(state: Path | None, bugs: Iterable[Bug]) -> dict[str, Result]:
    """What an earlier run found of bugs that are still the same; not of those that nothing caught or explains."""
    if state is None or not state.exists():
        return {}
    by_name = {bug.name: bug for bug in bugs}
    found: dict[str, Result] = {}
    for line in state.read_text().splitlines():
        fields = json.loads(line)
        caught = None if fields["caught"] is None else Caught(**fields["caught"])
        bug = by_name.get(fields["name"])
        if bug is None or fields["digest"] != digest_of(bug):
            continue
        found.pop(bug.name, None)
        if caught is not None or bug.explained:
            found[bug.name] = Result(bug.name, fields["digest"], caught, fields["seconds"])
    return found


def _keep(state: Path | None, result: Result) -> None:
    if state is not None:
        with state.open("a") as lines:
            lines.write(json.dumps(asdict(result)) + "\n")


# --------------------------------------------------------------------------------------- what is told


def _told(bugs: list[Bug], results: dict[str, Result]) -> None:
    table = Table("bug", "faults", "caught by", "what", "runs", "steps", "s", box=None, pad_edge=False)
    for bug in bugs:
        result = results[bug.name]
        caught = result.caught
        rows = ",".join(map(str, bug.rows))
        if caught is None:
            table.add_row(bug.name, rows, "nothing", bug.explained or "NOT EXPLAINED", "", "", str(result.seconds))
        else:
            runs, steps = (str(caught.runs) if caught.runs else "", str(caught.steps) if caught.steps else "")
            table.add_row(bug.name, rows, caught.by, caught.what, runs, steps, str(result.seconds))
    _CONSOLE.print(table)


def _summed_up(bugs: list[Bug], results: dict[str, Result]) -> bool:
    """Whether so many are caught as must be, and the others explained."""
    missed = [bug for bug in bugs if results[bug.name].caught is None]
    kinds = Counter(results[bug.name].by for bug in bugs)
    caught_count = len(bugs) - len(missed)
    seconds = sum(results[bug.name].seconds for bug in bugs)
    _CONSOLE.print(f"{caught_count} of {len(bugs)} planted bugs were caught, in {seconds:.0f} s")
    for kind, count in kinds.most_common():
        _CONSOLE.print(f"  {count:4} by {kind}")
    for bug in missed:
        _CONSOLE.print(f"not caught: {bug.name} ({bug.room}): {bug.explained or 'NOT EXPLAINED'}")
    is_enough = caught_count * 100 >= CAUGHT_PERCENT_MIN * len(bugs)
    return is_enough and all(bug.explained for bug in missed)


def _chosen(names: tuple[str, ...], rows: str | None, *, quick: bool) -> list[Bug]:
    bugs = load()
    unknown = set(names) - {bug.name for bug in bugs}
    if unknown:
        raise click.BadParameter(f"no such bug: {', '.join(sorted(unknown))}", param_hint="--only")
    first, last = _span_of_rows(rows)
    chosen = [
        bug
        for bug in bugs
        if (not names or bug.name in names)
        and (rows is None or any(first <= row <= last for row in bug.rows))
        and (bug.quick or not quick)
    ]
    for bug in chosen:
        planted(bug, (ROOT / bug.file).read_text())
    return chosen


def _span_of_rows(rows: str | None) -> tuple[int, int]:
    first, _, last = (rows or f"1-{FAULTS_MAX}").partition("-")
    try:
        return int(first), int(last or first)
    except ValueError:
        raise click.BadParameter("a row, or two with a dash between them", param_hint="--rows") from None


@click.command()
@click.option("--only", "names", multiple=True, metavar="NAME", help="Only this bug; may be given again.")
@click.option("--rows", metavar="A-B", help="Only bugs that stand for these known faults.")
@click.option("--quick", is_flag=True, help="Only the few that are marked so: less than ten minutes with --jobs 2.")
@click.option("--tests-first", is_flag=True, help="The simulator only where tests let a bug pass: it takes longer.")
@click.option("--jobs", type=click.IntRange(1, 64), default=1, show_default=True, help="Bugs at once, a core each.")
@click.option("--seconds", type=click.FloatRange(3, 3600), default=60.0, show_default=True, help="For each bug.")
@click.option(
    "--state", type=click.Path(dir_okay=False, path_type=Path), help="Keep results here, and go on from them."
)
def main(
    *,
    names: tuple[str, ...],
    rows: str | None,
    quick: bool,
    tests_first: bool,
    jobs: int,
    seconds: float,
    state: Path | None,
) -> None:
    """Plant bugs, one at a time, into copies of the tree, and see whether the checks catch them."""
    try:
        bugs = _chosen(names, rows, quick=quick)
    except BadBug as error:
        raise click.ClickException(str(error)) from None
    results = finished(state, bugs)
    left = [bug for bug in bugs if bug.name not in results]
    with tempfile.TemporaryDirectory(prefix="planted-bugs-") as directory:
        if left:
            trees = Trees(Path(directory))
            trees.prove_simulator()
            judge = partial(judged, trees=trees, seconds=seconds, tests_first=tests_first)
            _judge_all(left, judge, results, jobs=jobs, state=state)
    _told(bugs, results)
    sys.exit(0 if _summed_up(bugs, results) else 1)


def _judge_all(
    bugs: list[Bug], judge: Callable[[Bug], Result], results: dict[str, Result], *, jobs: int, state: Path | None
) -> None:
    with ThreadPoolExecutor(jobs) as pool:
        under_way = [pool.submit(judge, bug) for bug in bugs]
        try:
            for done in as_completed(under_way):
                result = done.result()
                results[result.name] = result
                _keep(state, result)
                what = "NOT CAUGHT" if result.caught is None else f"{result.by}: {result.caught.what}"
                _CONSOLE.print(f"{len(results):4} {result.name}: {what} ({result.seconds} s)")
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


if __name__ == "__main__":
    main()
