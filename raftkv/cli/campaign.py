"""Very many runs of virtual clusters, in processes of their own: what they came to, or the first that failed.

Told: which seeds, of which kind, in how many processes, for how long, and where to keep what was done. Tells: a
``Campaigned``. What is done is added up in the order of the seeds, so that a campaign that was killed goes on
where it was, and comes to the same. May never know: how it is shown.

A state machine of the user's runs every seed twice, in processes with different hash seeds: the order of a set
differs between them, and whatever rests on it.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final

from raftkv.cli.failures import CommandFailed, Unusable
from raftkv.cli.own_machine import find_machine
from raftkv.sim.runs.counted import Finding, Tally, counted, counted_short
from raftkv.sim.runs.whole import RunOptions

UNENDING_S: Final = 120.0
"""A run takes seconds at most; one that takes this long goes round in a circle."""
SAVED_EVERY_S: Final = 2.0
_LOOKED_EVERY_S: Final = 0.2
_SEEDS_AT_ONCE: Final = {"whole": 1, "short": 50}
_FORMAT: Final = 1
_ANOTHER_PROCESS: Final = "the same in every process"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a campaign is to run."""

    first_seed: int
    seeds: int | None
    """None: as many as there is time for."""
    is_short: bool = False
    machine: str | None = None
    jobs: int = 1
    seconds: float | None = None
    state: Path | None = None

    @property
    def kind(self) -> str:
        """Of its runs."""
        return "short" if self.is_short else "whole"

    @property
    def command(self) -> str:
        """What runs one of its seeds again, but for the seed."""
        machine = "" if self.machine is None else f" --state-machine {self.machine}"
        return f"raftkv simulate{' --short' if self.is_short else ''}{machine}"

    def options(self) -> RunOptions:
        """Of its whole runs."""
        make = None if self.machine is None else find_machine(self.machine)
        return RunOptions(machine=make, command=self.command)


@dataclass(slots=True)
class Campaigned:
    """What a campaign came to."""

    tally: Tally = field(default_factory=Tally)
    """Of all seeds before ``next_seed``."""
    next_seed: int = 0
    spent_s: float = 0.0
    """In all its lives."""
    spent_now_s: float = 0.0
    runs_now: int = 0
    """What this life did in ``spent_now_s``; the rest was done before."""
    finding: Finding | None = None
    was_interrupted: bool = False


Watch = Callable[[Campaigned], None]


# ------------------------------------------------------------------------------------------ one process


def _work(connection: Connection, wanted: Wanted) -> None:
    """Runs the seeds that come, one batch after the other, until there is nobody to tell."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    options = wanted.options()
    try:
        while True:
            first, count = connection.recv()
            connection.send(_run_batch(first, count, wanted, options))
    except (EOFError, OSError):
        return


def _run_batch(first: int, count: int, wanted: Wanted, options: RunOptions) -> Tally | Finding:
    tally = Tally()
    for seed in range(first, first + count):
        one = counted_short(seed) if wanted.is_short else counted(seed, options)
        if isinstance(one, Finding):
            return one
        if wanted.machine is None:
            one.traces.clear()
        tally.add(one)
    return tally


@contextmanager
def hash_seed(number: int) -> Iterator[None]:
    """Processes that are started meanwhile hash with this seed."""
    before = os.environ.get("PYTHONHASHSEED")
    os.environ["PYTHONHASHSEED"] = str(number)
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONHASHSEED"]
        else:
            os.environ["PYTHONHASHSEED"] = before


@dataclass(slots=True, eq=False)
class _Worker:
    """One process, and what it is at."""

    lane: int
    """Processes of different lanes hash differently."""
    process: BaseProcess
    connection: Connection
    batch: tuple[int, int] | None = None
    began_s: float = 0.0

    @classmethod
    def start(cls, lane: int, wanted: Wanted) -> _Worker:
        ours, theirs = get_context("spawn").Pipe()
        process = get_context("spawn").Process(target=_work, args=(theirs, wanted), daemon=True)
        with hash_seed(lane + 1):
            process.start()
        theirs.close()
        return cls(lane, process, ours)

    @property
    def hash_seed(self) -> int:
        """Its own."""
        return self.lane + 1

    def begin(self, batch: tuple[int, int]) -> None:
        self.batch, self.began_s = batch, time.monotonic()
        with suppress(OSError):  # It is dead; that is found when its answer is waited for.
            self.connection.send(batch)

    def answer(self) -> Tally | Finding:
        """What the batch came to; a process that died over it is a finding too."""
        assert self.batch is not None
        try:
            said: Tally | Finding = self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            text = f"its process ended with {self.process.exitcode} on the way through {_seeds(self.batch)}"
            return Finding(self.batch[0], "a run comes to its end", text, 0)
        return said


def _seeds(batch: tuple[int, int]) -> str:
    first, count = batch
    return f"seed {first}" if count == 1 else f"seeds {first} to {first + count - 1}"


# ------------------------------------------------------------------------------------------ all of them


class Campaign:
    """Hands seeds out, adds up what comes back."""

    def __init__(self, wanted: Wanted) -> None:
        """Raises Unusable if the state cannot be gone on with."""
        self.wanted = wanted
        self.came_to = Campaigned(next_seed=wanted.first_seed)
        self._of = _fingerprint(wanted)
        if wanted.state is not None:
            self._load(wanted.state)
        self._spent_before_s = self.came_to.spent_s
        self._runs_before = self.came_to.tally.runs
        self._lanes = 1 if wanted.machine is None else 2
        self._waiting: list[deque[tuple[int, int]]] = [deque() for _ in range(self._lanes)]
        self._next_batch = self.came_to.next_seed
        self._done: dict[int, list[Tally]] = {}
        """By first seed, what is done and not yet added up, for some seed before it is not done."""
        self._sizes: dict[int, int] = {}
        self._began_s = self._saved_s = time.monotonic()

    @property
    def end(self) -> int | None:
        """The first seed that is not wanted any more."""
        return None if self.wanted.seeds is None else self.wanted.first_seed + self.wanted.seeds

    def run(self, watch: Watch = lambda came_to: None) -> Campaigned:
        """Until the seeds are done, or the time is over, or a run fails, or somebody interrupts."""
        workers = [
            _Worker.start(place % self._lanes, self.wanted) for place in range(max(self.wanted.jobs, self._lanes))
        ]
        try:
            while self._goes_on(workers):
                self._hand_out(workers)
                self._take_in(workers)
                self._note_time()
                watch(self.came_to)
        except KeyboardInterrupt:
            self.came_to.was_interrupted = True
        finally:
            for worker in workers:
                worker.process.kill()
            self._note_time()
            self._save()
        return self.came_to

    def _goes_on(self, workers: list[_Worker]) -> bool:
        if self.came_to.finding is not None:
            return False
        busy = any(worker.batch is not None for worker in workers)
        return busy or (self._has_time() and self._has_seeds())

    def _has_time(self) -> bool:
        return self.wanted.seconds is None or time.monotonic() - self._began_s < self.wanted.seconds

    def _has_seeds(self) -> bool:
        return any(self._waiting) or self.end is None or self._next_batch < self.end

    def _hand_out(self, workers: list[_Worker]) -> None:
        busy = sum(worker.batch is not None for worker in workers)
        for worker in workers:
            if busy >= self.wanted.jobs or (not self._has_time() and not any(self._waiting)):
                return
            if worker.batch is not None:
                continue
            batch = self._batch_for(worker.lane)
            if batch is not None:
                worker.begin(batch)
                busy += 1

    def _batch_for(self, lane: int) -> tuple[int, int] | None:
        """The next seeds that this lane has not run."""
        if not self._waiting[lane] and self._has_time() and not any(self._waiting):
            count = _SEEDS_AT_ONCE[self.wanted.kind]
            if self.end is not None:
                count = min(count, self.end - self._next_batch)
            if count > 0:
                self._sizes[self._next_batch] = count
                for waiting in self._waiting:
                    waiting.append((self._next_batch, count))
                self._next_batch += count
        return self._waiting[lane].popleft() if self._waiting[lane] else None

    def _take_in(self, workers: list[_Worker]) -> None:
        busy = [worker for worker in workers if worker.batch is not None]
        for connection in wait([worker.connection for worker in busy], timeout=_LOOKED_EVERY_S):
            worker = next(worker for worker in busy if worker.connection is connection)
            self._came(worker, worker.answer())
        for worker in busy:
            if worker.batch is not None and time.monotonic() - worker.began_s > UNENDING_S:
                text = f"{_seeds(worker.batch)} did not end within {UNENDING_S:.0f} s"
                self._found(Finding(worker.batch[0], "a run comes to its end", text, 0))

    def _came(self, worker: _Worker, answer: Tally | Finding) -> None:
        assert worker.batch is not None
        (first, _), worker.batch = worker.batch, None
        if isinstance(answer, Finding):
            self._found(answer if self.wanted.machine is None else replace(answer, hash_seed=worker.hash_seed))
            return
        done = self._done.setdefault(first, [])
        done.append(answer)
        if len(done) == self._lanes == 2:
            self._compare(*done)
        while len(self._done.get(self.came_to.next_seed, ())) == self._lanes:
            tally = self._done.pop(self.came_to.next_seed)[0]
            tally.traces.clear()
            self.came_to.tally.add(tally)
            self.came_to.next_seed += self._sizes.pop(self.came_to.next_seed)
        if time.monotonic() - self._saved_s > SAVED_EVERY_S:
            self._save()

    def _compare(self, one: Tally, other: Tally) -> None:
        for seed, trace in one.traces.items():
            if other.traces[seed] != trace:
                self._found(differs_elsewhere(seed))

    def _found(self, finding: Finding) -> None:
        if self.came_to.finding is None:
            self.came_to.finding = finding

    def _note_time(self) -> None:
        self.came_to.spent_now_s = time.monotonic() - self._began_s
        self.came_to.spent_s = self._spent_before_s + self.came_to.spent_now_s
        self.came_to.runs_now = self.came_to.tally.runs - self._runs_before

    # -------------------------------------------------------------------------------- what is kept

    def _save(self) -> None:
        """Whole or not at all, whenever the process is killed."""
        path, self._saved_s = self.wanted.state, time.monotonic()
        if path is None:
            return
        self._note_time()
        kept = {
            "format": _FORMAT,
            "of": self._of,
            "next_seed": self.came_to.next_seed,
            "spent_s": round(self.came_to.spent_s, 3),
            "tally": self.came_to.tally.as_json(),
        }
        beside = path.with_name(path.name + ".new")
        beside.write_text(json.dumps(kept, indent=1) + "\n")
        beside.replace(path)

    def _load(self, path: Path) -> None:
        try:
            text = path.read_text()
        except FileNotFoundError:
            if not path.parent.is_dir():
                raise Unusable(f"--state {path}: there is no directory {path.parent}") from None
            return
        except (OSError, UnicodeDecodeError) as error:
            raise Unusable(f"--state {path} cannot be read: {error}") from error
        kept = _understood(path, text)
        if kept["of"] != self._of:
            told = ", ".join(name for name, value in self._of.items() if kept["of"].get(name) != value)
            raise Unusable(f"--state {path} is of another campaign ({told} differs). Remove it, or name another file.")
        self.came_to.tally = Tally.from_json(kept["tally"])
        self.came_to.next_seed, self.came_to.spent_s = kept["next_seed"], kept["spent_s"]


def _understood(path: Path, text: str) -> dict[str, Any]:
    try:
        kept: dict[str, Any] = json.loads(text)
        if kept["format"] != _FORMAT or not isinstance(kept["of"], dict):
            raise ValueError
        Tally.from_json(kept["tally"])
        kept["next_seed"], kept["spent_s"] = int(kept["next_seed"]), float(kept["spent_s"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Unusable(f"--state {path} is no campaign's state. Remove it, or name another file.") from error
    return kept


def _fingerprint(wanted: Wanted) -> dict[str, Any]:
    """What must be the same for a campaign to go on: the same seeds would not be the same runs otherwise."""
    return {
        "first_seed": wanted.first_seed,
        "kind": wanted.kind,
        "state_machine": wanted.machine,
        "code": _code_hash(wanted),
    }


def _code_hash(wanted: Wanted) -> str:
    """Over everything that runs are made of."""
    root = Path(__file__).resolve().parent.parent
    paths = sorted(root.rglob("*.py"))
    if wanted.machine is not None:
        module = sys.modules.get(wanted.machine.partition(":")[0])
        paths += [Path(module.__file__)] if module is not None and module.__file__ else []
    hashed = hashlib.sha256()
    for path in paths:
        hashed.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return hashed.hexdigest()[:16]


def differs_elsewhere(seed: int) -> Finding:
    """The same seed gave another run in another process."""
    text = (
        "the same seed came to something else in a process that hashes differently, or at another time:\n"
        "the machine lets the order of a set, a hash, a clock or an address be seen"
    )
    return Finding(seed, _ANOTHER_PROCESS, text, 0)


def elsewhere(seed: int, wanted: Wanted) -> Tally | Finding:
    """The same seed in another process, which hashes differently from this one."""
    worker = _Worker.start(-1 if sys.flags.hash_randomization else 0, wanted)
    try:
        worker.begin((seed, 1))
        if not worker.connection.poll(UNENDING_S):
            raise CommandFailed(f"seed {seed} did not end within {UNENDING_S:.0f} s in another process")
        return worker.answer()
    finally:
        worker.process.kill()
