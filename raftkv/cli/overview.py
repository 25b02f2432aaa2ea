"""What every node says of itself, gathered, and shown so that one look tells how the cluster is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from raftkv.cli.asking import ask_this_node, members_in

STATUS_TIMEOUT_S: Final = 2.0
_WIDTH_OF_FILES: Final = 160
_STYLES: Final = {"leader": "bold green", "follower": "cyan", "candidate": "yellow", "learner": "magenta"}


@dataclass(frozen=True, slots=True)
class NodeView:
    """One node, seen from here."""

    url: str
    status: Mapping[str, Any] | None
    """Its answer to ``GET /v1/status``; None: it did not answer."""

    @property
    def leads(self) -> bool:
        """Whether it says that it leads."""
        return self.status is not None and self.status.get("role") == "leader"


def view_nodes(urls: Sequence[str], *, timeout_s: float = STATUS_TIMEOUT_S) -> list[NodeView]:
    """Every node's own word, asked at once; in the order of the URLs."""
    with ThreadPoolExecutor(max_workers=max(1, len(urls))) as pool:
        answers = list(pool.map(lambda url: ask_this_node(url, "/v1/status", timeout_s=timeout_s), urls))
    return [
        NodeView(url, answer.json() if answer is not None and answer.status == 200 and answer.json() else None)
        for url, answer in zip(urls, answers, strict=True)
    ]


def view_cluster(endpoints: Sequence[str], *, timeout_s: float = STATUS_TIMEOUT_S) -> list[NodeView]:
    """The endpoints, and the other members that one of them knows."""
    views = view_nodes(endpoints, timeout_s=timeout_s)
    known = {view.status["id"]: view.url for view in views if view.status is not None and "id" in view.status}
    for view in views:
        if view.status is None:
            continue
        members = members_in(ask_this_node(view.url, "/v1/cluster", timeout_s=timeout_s))
        others = [url for url in members if url not in endpoints]
        found = view_nodes(others, timeout_s=timeout_s)
        # A node that is reached by another URL than its own would otherwise be there twice.
        views += [other for other in found if other.status is None or other.status.get("id") not in known]
        break
    return views


def leader_among(views: Sequence[NodeView]) -> NodeView | None:
    """The leader of the highest term; an isolated one of an older term may still believe in itself."""
    leaders = [view for view in views if view.leads]
    return max(leaders, key=lambda view: (view.status or {}).get("term") or 0, default=None)


class Screen(Console):
    """A console that leaves it to the command what a closed pipe means."""

    def on_broken_pipe(self) -> None:
        """Rich would end the whole process here, and leave nodes running that nobody watches."""
        raise BrokenPipeError


def console() -> Console:
    """Standard output, as wide as the terminal; a file or pipe gets whole lines."""
    screen = Screen(highlight=False)
    return screen if screen.is_terminal else Screen(highlight=False, width=_WIDTH_OF_FILES)


def nodes_table(views: Sequence[NodeView], *, names: Mapping[str, str] | None = None) -> Table:
    """One line a node; ``names`` are known ids by URL, for nodes that do not answer."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("node", "role"):
        table.add_column(heading)
    for heading in ("term", "commit", "applied", "lag", "revision", "uptime"):
        table.add_column(heading, justify="right")
    table.add_column("url", no_wrap=True)
    leader = leader_among(views)
    newest = leader.status.get("commit_index") if leader is not None and leader.status is not None else None
    for view in views:
        table.add_row(*_cells(view, newest, (names or {}).get(view.url, "?")))
    return table


def _cells(view: NodeView, newest: int | None, name: str) -> list[Text]:
    status = view.status
    if status is None:
        return [Text(name), Text("no answer", "red"), *([Text("–", "dim")] * 6), Text(view.url, "dim")]
    role = str(status.get("role"))
    applied = status.get("applied_index")
    lag = max(0, newest - applied) if isinstance(newest, int) and isinstance(applied, int) else None
    return [
        Text(str(status.get("id"))),
        Text(role, _STYLES.get(role, "")),
        _number(status.get("term")),
        _number(status.get("commit_index")),
        _number(applied),
        Text("–" if lag is None else f"{lag:,}", "yellow" if lag else ""),
        _number(status.get("revision")),
        Text(duration(status.get("uptime_ms"))),
        Text(view.url, "dim"),
    ]


def _number(value: Any) -> Text:
    return Text(f"{value:,}" if isinstance(value, int) else "–")


def duration(milliseconds: Any) -> str:
    """A time span in its two largest units."""
    if not isinstance(milliseconds, int):
        return "–"
    seconds = milliseconds // 1000
    for larger, smaller, size, part in (("d", "h", 86_400, 3_600), ("h", "min", 3_600, 60), ("min", "s", 60, 1)):
        if seconds >= size:
            return f"{seconds // size} {larger} {seconds % size // part} {smaller}"
    return f"{seconds} s"
