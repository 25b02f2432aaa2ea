"""The command line of scripts/bench."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click
from click.core import ParameterSource

from benchmarks import clusters, comparing, environment, failover, floor
from benchmarks.comparing import Plan
from benchmarks.environment import Available
from benchmarks.processes import ROOT, Failed, ended_by_signals
from benchmarks.report import console, progress, publish

SHORT: Final = Plan(seconds=1, rounds=1, clients=(1, 64), keys=1_000, value_bytes=256, systems=())
RESULTS: Final = ROOT / "bench-results"


class Place:
    """Where data lies while it is measured, and where results are kept."""

    def __init__(self, data: Path | None, results: Path | None) -> None:
        self.data = data
        self.results = results or RESULTS / datetime.now(tz=UTC).strftime("%Y%m%d-%H%M%S")

    @contextmanager
    def directory(self) -> Iterator[Path]:
        """Empty, on one file system, gone afterwards."""
        with (
            ended_by_signals(),
            tempfile.TemporaryDirectory(prefix="raftkv-bench-", dir=self.data, ignore_cleanup_errors=True) as name,
        ):
            yield Path(name)


def _counts(_: click.Context, __: click.Parameter, text: str) -> tuple[int, ...]:
    try:
        counts = tuple(int(word) for word in text.split(","))
    except ValueError:
        raise click.BadParameter("numbers with commas between them, like 1,64,256") from None
    if min(counts) < 1:
        raise click.BadParameter("at least 1")
    return counts


def _names(_: click.Context, __: click.Parameter, text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


SYSTEMS: Final = click.option(
    "--systems", default="", callback=_names, help="Only these, like raftkv,etcd-3.5; without it, all that is here."
)
POSITIVE: Final = click.IntRange(min=1)


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, invoke_without_command=True)
@click.option("--seconds", type=POSITIVE, default=5, show_default=True, help="Length of one measurement.")
@click.option("--rounds", type=POSITIVE, default=3, show_default=True, help="How often all take turns.")
@click.option("--clients", default="1,64,256", show_default=True, callback=_counts, help="Clients, one request each.")
@click.option("--keys", type=POSITIVE, default=100_000, show_default=True, help="Keys that are there, drawn uniformly.")
@click.option("--value-bytes", type=POSITIVE, default=256, show_default=True, help="Size of every value.")
@click.option("--short", is_flag=True, help="About a minute: 1 s, one round, 1 and 64 clients, 1,000 keys.")
@click.option("--install", is_flag=True, help="First bring what is compared with: apt-get, and pip into .venv-bench.")
@click.option("--output", type=click.Path(path_type=Path, file_okay=False), help="Where results are kept.")
@click.option("--data", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Where nodes keep theirs.")
@SYSTEMS
@click.pass_context
def bench(
    context: click.Context,
    /,
    short: bool,
    install: bool,
    output: Path | None,
    data: Path | None,
    **chosen: Any,
) -> None:
    """Measure raftkv beside etcd, ZooKeeper and PySyncObj, in turns, and print the ratios.

    Three nodes of each on loopback, default durability, all data on one file system, the same work for all. What is
    not installed is named and left out. Results go to --output as Markdown, JSON and plots.
    """
    if context.invoked_subcommand is not None:
        _refuse_lost(context, context.invoked_subcommand, ("short", *chosen))
    if not sys.platform.startswith("linux"):
        raise Failed("needs Linux: what processes cost is read from /proc")
    context.obj = Place(data, output)
    if install:
        environment.install_debian(console.print)
        environment.install_python(console.print)
    if context.invoked_subcommand is not None:
        return
    plan = replace(SHORT, systems=chosen["systems"]) if short else Plan(**chosen)
    available = _available(plan.systems)
    with context.obj.directory() as directory, progress() as bar:
        sync_us = floor.sync_us(directory, count=300)
        result = comparing.compare(plan, available, directory, bar)
    notes = [
        _headline(plan, sync_us),
        *(f"load on {result.titles[name]}: {who}" for name, who in result.generators.items() if name in result.titles),
        *result.remarks,
        *(f"left out: {name}: {why}" for name, why in result.left_out.items()),
    ]
    publish(context.obj.results, "comparison", comparing.told(result), comparing.kept(result), notes)


def _refuse_lost(context: click.Context, command: str, names: Iterable[str]) -> None:
    """What is said of the comparison does nothing before the name of a command."""
    lost = [name for name in names if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    if lost:
        raise click.UsageError(f"--{lost[0].replace('_', '-')} does nothing before {command}; see {command} --help")


def _headline(plan: Plan, sync_us: float) -> str:
    return (
        f"3 nodes each on loopback, {plan.rounds} rounds of {plan.seconds} s in turns, {plan.keys:,} keys, "
        f"{plan.value_bytes}-byte values; fdatasync of 4 KiB here: {sync_us:.0f} µs (p50)"
    )


def _available(systems: tuple[str, ...]) -> Available:
    available = environment.look()
    unknown = [name for name in systems if name not in available.makes and name not in available.missing]
    if unknown:
        known = ", ".join(sorted({*available.makes, *available.missing}))
        raise click.BadParameter(f"no system is called {', '.join(unknown)}; there are {known}")
    wanted = [name for name in systems if name in available.missing]
    if wanted:
        raise Failed("; ".join(f"{name}: {available.missing[name]}" for name in wanted))
    return available


@bench.command("floor")
@click.option("--seconds", type=POSITIVE, default=3, show_default=True, help="Length of one run of wrk.")
@click.pass_obj
def floor_command(place: Place, seconds: int) -> None:
    """What the machine allows: syncs, copies, a hop between processes, an event loop that does nothing else."""
    with place.directory() as directory, progress() as bar:
        table, figures = floor.measured(directory, seconds, bar)
    publish(place.results, "floor", [table], figures, [])


@bench.command("failover")
@click.option(
    "--kills", type=POSITIVE, default=20, show_default=True, help="How often the leader is killed, then stopped."
)
@SYSTEMS
@click.pass_obj
def failover_command(place: Place, kills: int, systems: tuple[str, ...]) -> None:
    """From kill -9 (and SIGSTOP) of the leader to the next accepted write."""
    available = _available(systems)
    names = systems or failover.SYSTEMS
    with place.directory() as directory, progress() as bar:
        table, figures = failover.measured(names, available, directory, kills, bar)
    publish(place.results, "failover", [table], figures, _left_out(names, available))


@bench.command("idle")
@click.option("--seconds", type=POSITIVE, default=20, show_default=True, help="How long nobody asks anything.")
@SYSTEMS
@click.pass_obj
def idle_command(place: Place, seconds: int, systems: tuple[str, ...]) -> None:
    """CPU of a cluster that nobody asks anything."""
    available = _available(systems)
    names = systems or clusters.IDLE
    with place.directory() as directory, progress() as bar:
        table, figures = clusters.idle(names, available, directory, seconds, bar)
    publish(place.results, "idle", [table], figures, _left_out(names, available))


@bench.command("memory")
@click.option("--keys", default="100000,1000000", show_default=True, callback=_counts, help="Keys that are there.")
@SYSTEMS
@click.pass_obj
def memory_command(place: Place, keys: tuple[int, ...], systems: tuple[str, ...]) -> None:
    """Resident memory of each node, with so many keys of 256 bytes."""
    available = _available(systems)
    names = systems or clusters.SERVERS
    with place.directory() as directory, progress() as bar:
        table, figures = clusters.memory(names, available, directory, keys, bar)
    publish(place.results, "memory", [table], figures, _left_out(names, available))


@bench.command("sizes")
@click.option("--keys", default="1000,10000,100000,1000000", show_default=True, callback=_counts, help="Keys there.")
@click.option("--seconds", type=POSITIVE, default=5, show_default=True, help="Length of one measurement.")
@SYSTEMS
@click.pass_obj
def sizes_command(place: Place, keys: tuple[int, ...], seconds: int, systems: tuple[str, ...]) -> None:
    """What an operation costs with few keys and with many, and values of 64 KiB beside what the disk allows."""
    available = _available(systems)
    names = systems or ("raftkv",)
    with place.directory() as directory, progress() as bar:
        made, figures = clusters.sizes(names, available, directory, keys, seconds, bar)
    publish(place.results, "sizes", made, figures, _left_out(names, available))


@bench.command("steady")
@click.option("--minutes", type=click.FloatRange(min=0.05), default=10.0, show_default=True, help="How long.")
@click.option("--clients", type=POSITIVE, default=256, show_default=True, help="Clients, one request each.")
@SYSTEMS
@click.pass_obj
def steady_command(place: Place, minutes: float, clients: int, systems: tuple[str, ...]) -> None:
    """Changes of leader under full load: there should be none."""
    available = _available(systems)
    names = systems or ("raftkv",)
    with place.directory() as directory, progress() as bar:
        table, figures = clusters.steady(names, available, directory, minutes, clients, bar)
    publish(place.results, "steady", [table], figures, _left_out(names, available))


def _left_out(names: tuple[str, ...], available: Available) -> list[str]:
    return [f"left out: {name}: {available.missing[name]}" for name in names if name in available.missing]


if __name__ == "__main__":
    bench(prog_name="scripts/bench")
