"""Runs the checks on one copy of the tree: the simulator's seeds first, then tests; each in a process of its own.

Told: a directory, what to run, for how long. Tells: what was caught, by which check, after how much; or nothing. A
process that does not end in its time is ended with all that it began. What it prints is read, nothing else of it.
"""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MEMORY_BYTES_MAX: Final = 3 * 1024**3
"""A bug may gather without end."""
FIRST_BATCH: Final = {"short": 100, "whole": 5}
"""Runs of the first process; each further one makes twice as many."""
TIMES_AS_LONG: Final = 10
_RUN_FAILED: Final = re.compile(r"^seed (\d+): (\w+): (.*)$", re.MULTILINE)
_STEPS: Final = re.compile(r"^after (\d+) steps", re.MULTILINE)
_TEST_FAILED: Final = re.compile(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", re.MULTILINE)
_WHAT_CHARACTERS_MAX: Final = 100


@dataclass(slots=True)
class Caught:
    """A check that failed."""

    by: str
    """What kind of check: a simulator's short or whole runs, or tests."""
    what: str
    """The property, or the test's id."""
    runs: int = 0
    """Runs made until then, this one included."""
    steps: int = 0
    """Of the run that failed."""
    seed: int | None = None


@dataclass(slots=True)
class _Ended:
    """A process that is over."""

    status: int | None
    """None: it was ended, its time was over."""
    text: str


def simulated(directory: Path, kind: str, *, first_seed: int, within_s: float, usual_s: float) -> Caught | None:
    """Runs of that kind from ``first_seed`` on, until one fails or the time is over.

    ``usual_s`` is what the first batch takes where there is no bug: one that takes many times as long does not end.
    """
    seed, count, began_s = first_seed, FIRST_BATCH[kind], time.monotonic()
    deadline_s = began_s + within_s
    while (left_s := deadline_s - time.monotonic()) > 0:
        if seed == first_seed:
            left_s = max(left_s, TIMES_AS_LONG * usual_s)
        ended = run_seeds(directory, kind, seed, seed + count, within_s=left_s)
        failed = _RUN_FAILED.search(ended.text)
        if failed is not None:
            return _run_that_failed(ended.text, failed, kind, first_seed)
        if ended.status is None:
            return Caught(f"simulator, {kind} runs", "does not end", runs=1, seed=seed) if seed == first_seed else None
        if ended.status != 0:
            return Caught(f"simulator, {kind} runs", _last_line(ended.text), runs=1, seed=seed)
        seed, count = seed + count, 2 * count
    return None


def run_seeds(directory: Path, kind: str, first: int, stop: int, *, within_s: float) -> _Ended:
    """The simulator's own command for these seeds."""
    switch = ["--short"] if kind == "short" else []
    command = [sys.executable, "-u", "-m", "raftkv.sim.runs", *switch, str(first), str(stop)]
    return _ended(command, directory, within_s=within_s, stop_at=b"the last that was told")


def _run_that_failed(text: str, failed: re.Match[str], kind: str, first_seed: int) -> Caught:
    seed, error, words = int(failed[1]), failed[2], failed[3]
    what = words.split(":")[0] if error == "Violated" else f"{error}: {words}"
    steps = _STEPS.search(text)
    return Caught(
        f"simulator, {kind} runs",
        what[:_WHAT_CHARACTERS_MAX],
        runs=seed - first_seed + 1,
        steps=int(steps[1]) if steps is not None else 0,
        seed=seed,
    )


def tested(directory: Path, target: str, *, within_s: float) -> Caught | None:
    """The tests at that place, up to the first that fails."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "--tb=no", "-p", "no:cacheprovider", target]
    ended = _ended(command, directory, within_s=within_s)
    if ended.status is None:
        return Caught("tests", f"{target} does not end")
    if ended.status == 0:
        return None
    failed = _TEST_FAILED.search(ended.text)
    return Caught("tests", failed[1] if failed is not None else f"{target}: {_last_line(ended.text)}")


def _ended(command: list[str], directory: Path, *, within_s: float, stop_at: bytes | None = None) -> _Ended:
    """The process is over, and everything that it began; ``stop_at``: as soon as this stands in what it prints."""
    environment = {**os.environ, "PYTHONPATH": str(directory), "PYTHONHASHSEED": "0"}
    process = subprocess.Popen(
        command,
        cwd=directory,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=_bounded,
    )
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    read, deadline_s = b"", time.monotonic() + within_s
    try:
        while process.poll() is None and time.monotonic() < deadline_s:
            read += process.stdout.read() or b""
            if stop_at is not None and stop_at in read:
                break
            time.sleep(0.02)
        status = process.poll()
        read += process.stdout.read() or b""
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
    return _Ended(status, read.decode(errors="replace"))


def _bounded() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1][:_WHAT_CHARACTERS_MAX] if lines else "ends without a word"
