"""What was measured, shown and kept: on the console, as Markdown, as JSON, as plots where they can be drawn."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table as RichTable

from benchmarks.environment import PYTHON, installed
from benchmarks.processes import ROOT, environment
from benchmarks.tables import Table
from raftkv import __version__

PLOT_TIMEOUT_S: Final = 120

console = Console(highlight=False, width=max(140, Console().width))


def progress() -> Progress:
    """A bar that is gone when all is done; nothing where nobody looks."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def machine() -> dict[str, str | int]:
    """On what it was measured."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), platform.machine())
    return {
        "date": datetime.now(tz=UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": model,
        "cores": os.cpu_count() or 1,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "raftkv": __version__,
        "commit": _commit(),
        "load_average": f"{os.getloadavg()[0]:.2f}",
    }


def _commit() -> str:
    said = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return said.stdout.strip() or "unknown"


def show(table: Table) -> None:
    """On the console."""
    shown = RichTable(box=None, pad_edge=False, title=table.title, title_justify="left")
    for number, heading in enumerate(table.headings):
        shown.add_column(heading, justify="left" if number < table.left else "right")
    for row in table.rows:
        shown.add_row(*row)
    console.print(shown)
    for note in table.notes:
        console.print(note, style="dim")
    console.print()


def publish(
    directory: Path, name: str, tables: Sequence[Table], figures: Mapping[str, Any], notes: Sequence[str]
) -> None:
    """Shown, and kept in ``directory`` as NAME.md and NAME.json, with plots where matplotlib is."""
    directory.mkdir(parents=True, exist_ok=True)
    where = machine()
    for table in tables:
        show(table)
    for note in notes:
        console.print(note)
    head = "".join(f"- {what.replace('_', ' ')}: {value}\n" for what, value in where.items())
    remarks = "".join(f"\n{note}\n" for note in notes)
    text = f"# scripts/bench: {name}\n\n{head}{remarks}\n" + "\n".join(table.markdown() for table in tables)
    (directory / f"{name}.md").write_text(text)
    kept = directory / f"{name}.json"
    whole = {"name": name, "machine": where, "notes": list(notes), **figures}
    kept.write_text(json.dumps(whole, indent=1, default=plain) + "\n")
    console.print(f"kept in {directory}: {name}.md, {name}.json{_plots(kept)}")


def plain(value: Any) -> Any:
    """What JSON does not know by itself."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{value!r} cannot be kept")


def _plots(kept: Path) -> str:
    """Drawn by a process of .venv-bench's own, which has matplotlib; says what became of it."""
    if "matplotlib" not in installed():
        return "; no plots: matplotlib is not in .venv-bench (scripts/bench --install brings it)"
    drawn = subprocess.run(
        [str(PYTHON), "-m", "benchmarks.plots", str(kept)],
        capture_output=True,
        text=True,
        check=False,
        timeout=PLOT_TIMEOUT_S,
        env=environment(),
    )
    if drawn.returncode != 0:
        said = drawn.stderr.strip().splitlines()
        return f"; no plots: {said[-1] if said else 'matplotlib failed'}"
    return "".join(f", {line}" for line in drawn.stdout.splitlines())
