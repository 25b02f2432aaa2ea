"""Plots of what scripts/bench kept. Runs in .venv-bench, which has matplotlib: python -m benchmarks.plots FILE."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot

WIDTH_IN: Final = 7.0
HEIGHT_IN: Final = 4.2
DPI: Final = 120


def _figures(count: int, title: str) -> tuple[Any, list[Any]]:
    figure, axes = pyplot.subplots(1, count, figsize=(WIDTH_IN * count, HEIGHT_IN), squeeze=False)
    figure.suptitle(title)
    return figure, list(axes[0])


def _save(figure: Any, path: Path) -> Path:
    figure.tight_layout()
    figure.savefig(path, dpi=DPI)
    pyplot.close(figure)
    return path


def throughput(kept: dict[str, Any], directory: Path) -> Iterator[Path]:
    """Operations per second against clients: the median, and from the lowest to the highest round."""
    for group, systems in kept["measured"].items():
        if not systems or len(next(iter(systems.values()))) <= 2:
            continue  # one count of clients makes no curve
        figure, axes = _figures(2, f"{group}: operations per second against clients")
        for axis, verb in zip(axes, ("put", "get"), strict=True):
            for name, points in systems.items():
                chosen = [point for point in points if point["verb"] == verb]
                clients = [point["clients"] for point in chosen]
                speeds = [[one["per_second"] for one in point["rounds"]] for point in chosen]
                middle = [statistics.median(rounds) for rounds in speeds]
                axis.plot(clients, middle, marker="o", label=kept["titles"][name])
                axis.fill_between(clients, [min(one) for one in speeds], [max(one) for one in speeds], alpha=0.15)
            axis.set(title=verb, xlabel="clients", ylabel="per second", xscale="log", ylim=(0, None))
            axis.grid(alpha=0.3)
        axes[0].legend(fontsize="small")
        yield _save(figure, directory / f"throughput-{group}.png")


def latency(kept: dict[str, Any], directory: Path) -> Iterator[Path]:
    """How many of the operations took at most so long, at every count of clients."""
    for group, systems in kept["measured"].items():
        counts = sorted({point["clients"] for points in systems.values() for point in points})
        for clients in counts:
            figure, axes = _figures(2, f"{group}: latency, {clients} clients")
            for axis, verb in zip(axes, ("put", "get"), strict=True):
                for name, points in systems.items():
                    chosen = [one for one in points if (one["verb"], one["clients"]) == (verb, clients)]
                    for point in chosen:
                        axis.plot(*_distribution(point), marker=".", label=kept["titles"][name])
                axis.set(title=verb, xlabel="ms", ylabel="% at most", xscale="log", ylim=(0, 100))
                axis.grid(alpha=0.3, which="both")
            axes[0].legend(fontsize="small")
            yield _save(figure, directory / f"latency-{group}-{clients}.png")


def _distribution(point: dict[str, Any]) -> tuple[list[float], list[float]]:
    """Milliseconds, the median of the rounds, and how many of a hundred took at most so long."""
    latencies = [one["run"]["latency_ms"] for one in point["rounds"]]
    parts = sorted(latencies[0], key=float)
    return [statistics.median(one[part] for one in latencies) for part in parts], [float(part) for part in parts]


def failover(kept: dict[str, Any], directory: Path) -> Iterator[Path]:
    """Every single time, and how many were at most so long."""
    figure, axes = _figures(2, "failover: until the next accepted write")
    for axis, way in zip(axes, ("kill -9", "SIGSTOP"), strict=True):
        for title, ways in kept["failover_s"].items():
            taken = sorted(seconds * 1000 for seconds in ways[way])
            shares = [100 * (number + 1) / len(taken) for number in range(len(taken))]
            axis.step(taken, shares, where="post", marker=".", label=title)
        axis.set(title=way, xlabel="ms", ylabel="% at most", ylim=(0, 100), xlim=(0, None))
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize="small")
    yield _save(figure, directory / "failover.png")


def main(path: Path) -> None:
    """Draws what there is to draw, and prints the names of the files."""
    kept = json.loads(path.read_text())
    kinds = {"comparison": (throughput, latency), "failover": (failover,)}
    for draw in kinds.get(kept["name"], ()):
        for drawn in draw(kept, path.parent):
            sys.stdout.write(f"{drawn.name}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
