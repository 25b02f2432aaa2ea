"""The comparison itself: systems side by side, the same work in turns, round by round."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rich.progress import Progress, TaskID

from benchmarks import tables
from benchmarks.environment import Available
from benchmarks.figures import Point
from benchmarks.processes import Failed
from benchmarks.systems.base import System, measure
from benchmarks.tables import Key, Table
from benchmarks.work import Work

GROUPS: Final = {
    "servers": ("etcd-3.4", "etcd-3.5", "zookeeper", "raftkv-aiohttp", "raftkv-compiled", "raftkv"),
    "inside": ("pysyncobj", "raftkv-inside-compiled", "raftkv-inside"),
    "libraries": ("aetcd-client", "raftkv-client-compiled", "raftkv-client"),
}
"""What is compared with what. An etcd of another version than these takes part, too."""
LIBRARY_TASKS: Final = 64
VERBS: Final = ("put", "get")


@dataclass(frozen=True)
class Plan:
    """How much is to be measured."""

    seconds: int
    rounds: int
    clients: tuple[int, ...]
    keys: int
    value_bytes: int
    systems: tuple[str, ...]
    """Empty: all."""

    def counts(self, group: str) -> tuple[int, ...]:
        """How many clients, one after the other."""
        return (LIBRARY_TASKS,) if group == "libraries" else self.clients


@dataclass
class Result:
    """What came of it."""

    measured: dict[str, dict[str, dict[Key, list[Point]]]] = field(default_factory=dict)
    """By group, system and point, round by round."""
    titles: dict[str, str] = field(default_factory=dict)
    generators: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


def members(group: str, available: Available) -> list[str]:
    """Of a group, what can be started."""
    others = [name for name in available.makes if name.startswith("etcd-") and name not in GROUPS["servers"]]
    names = [*(others if group == "servers" else ()), *GROUPS[group]]
    return [name for name in names if name in available.makes]


@contextmanager
def running(
    names: Sequence[str], available: Available, directory: Path, left_out: dict[str, str]
) -> Iterator[list[System]]:
    """Clusters of these names, all started; what does not start is ended, named in ``left_out``, and not there.

    Ours must start.
    """
    systems: list[System] = []
    try:
        for name in names:
            system = available.makes[name](directory / name)
            try:
                system.start()
            except (Failed, OSError) as error:
                system.end()
                if name.startswith("raftkv"):
                    raise
                left_out[name] = str(error)
                continue
            systems.append(system)
        yield systems
    finally:
        for system in systems:
            system.end()


def compare(plan: Plan, available: Available, directory: Path, progress: Progress) -> Result:
    """All groups, one after the other."""
    result = Result(left_out={name: why for name, why in available.missing.items() if _wanted(plan, name)})
    chosen = {group: [name for name in members(group, available) if _wanted(plan, name)] for group in GROUPS}
    total = sum(_steps(plan, group, len(names)) for group, names in chosen.items())
    task = progress.add_task("starting", total=total)
    for group, names in chosen.items():
        progress.update(task, description=f"starting {', '.join(names)}")
        with running(names, available, directory, result.left_out) as systems:
            _compare(group, plan, systems, result, _Steps(progress, task))
    return result


def _wanted(plan: Plan, name: str) -> bool:
    return not plan.systems or name in plan.systems


def _steps(plan: Plan, group: str, systems: int) -> int:
    return systems * (1 + plan.rounds * len(VERBS) * len(plan.counts(group)))


@dataclass
class _Steps:
    progress: Progress
    task: TaskID

    def say(self, text: str) -> None:
        """What is done now."""
        self.progress.update(self.task, description=text)

    def done(self) -> None:
        """It is."""
        self.progress.advance(self.task)


def _compare(group: str, plan: Plan, systems: list[System], result: Result, steps: _Steps) -> None:
    measured = result.measured.setdefault(group, {})
    for system in list(systems):
        steps.say(f"{system.name}: filling {plan.keys:,} keys")
        result.titles[system.name] = system.title
        result.generators[system.name] = system.generator
        if system.remark and system.remark not in result.remarks:
            result.remarks.append(system.remark)
        if not _attempt(system, systems, result, lambda system=system: system.fill(plan.keys, plan.value_bytes)):  # type: ignore[misc]
            continue
        system.rest()
        steps.done()
    for number in range(plan.rounds):
        for verb in VERBS:
            for clients in plan.counts(group):
                work = Work(verb, clients, plan.seconds, plan.keys, plan.value_bytes, seed=number)
                for system in list(systems):
                    steps.say(f"round {number + 1}: {system.name} {verb}, {clients} clients")
                    points = measured.setdefault(system.name, {}).setdefault((verb, clients), [])
                    _attempt(system, systems, result, lambda s=system, p=points, w=work: p.append(_alone(s, w)))  # type: ignore[misc]
                    steps.done()
    for name in result.left_out:
        measured.pop(name, None)  # half a round compares with nothing


def _alone(system: System, work: Work) -> Point:
    """One run of a system that rests before and after: nobody is disturbed by what others do when they are idle."""
    system.wake()
    point = measure(system, work)
    system.rest()
    return point


def _attempt(system: System, systems: list[System], result: Result, act: Callable[[], Any]) -> bool:
    """False: this system failed, says so in the result, and takes no further part. Ours must not fail."""
    try:
        act()
    except (Failed, OSError) as error:
        if system.name.startswith("raftkv"):
            raise
        result.left_out[system.name] = f"failed while it was measured: {error}"
        systems.remove(system)
        system.end()
        return False
    return True


def told(result: Result) -> list[Table]:
    """As tables."""
    found: list[Table] = []
    for group, measured in result.measured.items():
        if measured:
            found.append(tables.comparison(group, measured, result.titles))
    everything = {name: points for measured in result.measured.values() for name, points in measured.items()}
    if everything:
        found.append(tables.limits(everything, result.titles))
    return found


def kept(result: Result) -> dict[str, Any]:
    """For JSON: every single run, with what follows from it."""
    return {
        "titles": result.titles,
        "generators": result.generators,
        "left_out": result.left_out,
        "measured": {
            group: {
                name: [
                    {"verb": verb, "clients": clients, "rounds": [_point(one) for one in rounds]}
                    for (verb, clients), rounds in points.items()
                ]
                for name, points in measured.items()
            }
            for group, measured in result.measured.items()
        },
    }


def _point(point: Point) -> dict[str, Any]:
    return {**vars(point), "run": vars(point.run), "per_second": point.run.per_second, "limited_by": point.limited_by}
