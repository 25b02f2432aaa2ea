"""``scripts/torture``: the same run as the tests', longer, and told to whoever watches.

Told: how long, how many, which seed. Tells: figures and verdicts on the terminal, exit code 1 when a promise
was broken, and then where to look. Every phase has an end.
"""

from __future__ import annotations

import asyncio
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from random import Random, SystemRandom
from typing import Final

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table

from tests.live.cluster import LiveCluster
from tests.live.fuzz import fuzz
from tests.live.harness import Plan, Report, run
from tests.live.leadership import kill_leader
from tests.live.verdicts import Verdict, processes_sound

_CONSOLE: Final = Console(highlight=False)
_NODES: Final = (3, 5)


@click.command()
@click.option("--nodes", "nodes_count", type=click.Choice([str(count) for count in _NODES]), default="5")
@click.option("--clients", "clients_count", type=click.IntRange(1, 100), default=8, show_default=True)
@click.option("--minutes", type=click.FloatRange(0, 600), default=5.0, show_default=True, help="Of mixed faults.")
@click.option("--power-cuts", type=click.IntRange(0, 1000), default=5, show_default=True, help="All nodes at once.")
@click.option("--leader-kills", type=click.IntRange(0, 1000), default=10, show_default=True, help="Each one timed.")
@click.option("--fuzz", "inputs_count", type=click.IntRange(0, 10**6), default=0, help="Inputs at a node's port.")
@click.option("--seed", type=int, help="Of faults and requests; timing is the machine's. Default: a new one.")
@click.option("--keep", is_flag=True, help="Keep data and history even when all is well.")
@click.option(
    "--package-root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Where another raftkv lies, for instance one with a planted bug.",
)
def main(
    *,
    nodes_count: str,
    clients_count: int,
    minutes: float,
    power_cuts: int,
    leader_kills: int,
    inputs_count: int,
    seed: int | None,
    keep: bool,
    package_root: Path | None,
) -> None:
    """Torment a cluster of real processes, and judge whether it kept its promises.

    Kills, pauses and stops at most a minority at a time while clients read and write, then cuts the power of
    all nodes, then kills leaders and measures. Exit code 1: a promise was broken; data and history are kept.
    """
    seed = SystemRandom().randrange(10**6) if seed is None else seed
    plan = Plan(minutes * 60, clients_count=clients_count, seed=seed, power_cuts_count=power_cuts)
    directory = Path(tempfile.mkdtemp(prefix="raftkv-torture-"))
    _CONSOLE.print(f"[bold]torture[/] seed {seed}, {nodes_count} nodes in {directory}")
    cluster = LiveCluster(directory, nodes_count=int(nodes_count), package_root=package_root)
    try:
        with cluster:
            kept = asyncio.run(_torture(cluster, plan, leader_kills=leader_kills, inputs_count=inputs_count))
    except KeyboardInterrupt:
        _CONSOLE.print(f"interrupted; the data stays in {directory}")
        sys.exit(130)
    if kept:
        if not keep:
            shutil.rmtree(directory)
        return
    _CONSOLE.print(
        f"[red]Look at[/] {directory}/history.txt (verdicts, faults, every operation) and {directory}/n*.log; "
        f"the same faults again: --seed {seed}"
    )
    sys.exit(1)


async def _torture(cluster: LiveCluster, plan: Plan, *, leader_kills: int, inputs_count: int) -> bool:
    """Whether everything was as promised."""
    cluster.start()
    await cluster.until_serving()
    with Live(console=_CONSOLE, refresh_per_second=1, transient=True) as live:
        report = await run(cluster, plan, tell=lambda so_far: live.update(figures(so_far)))
    _CONSOLE.print(figures(report))
    report.keep(cluster.directory)
    verdicts = list(report.verdicts)
    if leader_kills:
        await _time_leaders(cluster, plan.seed, leader_kills)
    if inputs_count:
        verdicts.append(await _fuzz(cluster, plan.seed, inputs_count))
    if leader_kills or inputs_count:
        loud = [line for node in cluster.nodes.values() for line in node.loud_lines()]
        verdicts.append(processes_sound(cluster.endings(), loud))
    for verdict in verdicts:
        _CONSOLE.print(str(verdict), style="red" if verdict.complaints else "green", markup=False)
    return not any(verdict.complaints for verdict in verdicts)


def figures(report: Report) -> Table:
    """What was done and told, up to now."""
    story, deeds = report.story, report.deeds
    table = Table.grid(padding=(0, 2))
    pause_ms, ended_ms = report.longest_pause
    rows = [
        ("operations", len(story.operations)),
        ("writes acknowledged", len(story.acknowledged_at)),
        ("outcomes unknown", story.unknown_count),
        ("answers told again", f"{story.duplicates_count} after a retry, {story.repeats_count} on purpose"),
        *deeds.counts.items(),
        ("longest pause of writes", f"{pause_ms:.0f} ms, until {ended_ms / 1000:.1f} s"),
    ]
    if report.verdicts:
        rows += [("elections", report.elections_count), ("took", f"{report.seconds:.0f} s")]
    elif deeds.told:
        rows.append(("now", deeds.told[-1].strip()))
    for name, value in rows:
        table.add_row(f"[bold]{name}[/]", str(value))
    return table


async def _time_leaders(cluster: LiveCluster, seed: int, kills_count: int) -> None:
    rng = Random(f"leaders {seed}")
    pauses_ms = sorted([await kill_leader(cluster, rng) for _ in range(kills_count)])
    p90 = pauses_ms[min(len(pauses_ms) - 1, len(pauses_ms) * 9 // 10)]
    _CONSOLE.print(
        f"[bold]leader killed until a write is accepted[/]: {kills_count} times; least {pauses_ms[0]:.0f} ms, median "
        f"{statistics.median(pauses_ms):.0f} ms, p90 {p90:.0f} ms, most {pauses_ms[-1]:.0f} ms"
    )


async def _fuzz(cluster: LiveCluster, seed: int, inputs_count: int) -> Verdict:
    """Half of it at the leader, half at a follower."""
    leader = await cluster.until_serving()
    follower = next(node for node in cluster.nodes.values() if node is not leader)
    before = await cluster.until_equal()
    complaints: list[str] = []
    for node in (leader, follower):
        found = await fuzz(node.address, inputs_count=inputs_count // 2, seed=seed)
        complaints += found.findings
        _CONSOLE.print(f"[bold]fuzz[/] at {node.id}, answers by status: {dict(sorted(found.statuses.items()))}")
    after = await cluster.until_equal()
    complaints += [
        f"{id} had revision {before[id]['revision']} and state {before[id]['state_hash']}, and now others"
        for id in after
        if any(after[id][name] != before[id][name] for name in ("revision", "state_hash"))
    ]
    return Verdict("bytes that nobody should send change nothing", complaints)


if __name__ == "__main__":
    main()
