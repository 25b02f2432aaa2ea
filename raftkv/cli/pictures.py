"""A cluster as a person likes to look at it: a verdict in a line or two, and a table that fits the screen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from rich.console import Console
from rich.text import Text

from raftkv.cli.changing import in_words
from raftkv.cli.items import byte_count, printable
from raftkv.cli.overview import HEARD_MS_MAX, ClusterView, NodeView, heard_elsewhere, judge

_WIDTH_OF_FILES: Final = 160
_GAP: Final = "  "
_STYLES: Final = {"leader": "bold green", "follower": "cyan", "candidate": "yellow", "learner": "magenta"}


class Screen(Console):
    """A console that leaves it to the command what a closed pipe means."""

    def on_broken_pipe(self) -> None:
        """Rich would end the whole process here, and leave nodes running that nobody watches."""
        raise BrokenPipeError


def console() -> Console:
    """Standard output, as wide as the terminal; a file or pipe gets whole lines."""
    screen = Screen(highlight=False)
    return screen if screen.is_terminal else Screen(highlight=False, width=_WIDTH_OF_FILES)


def show_cluster(view: ClusterView, screen: Console) -> None:
    """The verdict and the table."""
    for line in (*_headlines(view), Text(), *_fitting_table(view, screen)):
        screen.print(line, soft_wrap=True)


# ---------------------------------------------------------------------------------------------- the verdict


def _headlines(view: ClusterView) -> list[Text]:
    lines = [_who_leads(view)]
    verdict = judge(view)
    if verdict is not None and view.leader is not None:
        left = verdict.failures_survived
        style = "bold red" if left < 0 else "" if verdict.serving == verdict.voters else "bold yellow"
        told = f"{verdict.serving} of {verdict.voters} {_plural('voter', verdict.voters)} serve: {_survives(left)}"
        lines.append(Text(told, style))
    elsewhere = heard_elsewhere(view)
    if elsewhere:
        told = f"{_word(', '.join(elsewhere))} {'does' if len(elsewhere) == 1 else 'do'} not answer here"
        lines.append(Text(f"{told}, but the leader hears {'it' if len(elsewhere) == 1 else 'them'}", "yellow"))
    if view.learners:
        lines.append(Text(f"{len(view.learners)} {_plural('learner', len(view.learners))} without a vote"))
    change = view.members.get("change")
    if isinstance(change, dict):
        lines.append(Text(f"a change of members is running: {in_words(change)}", "yellow"))
    return lines


def _who_leads(view: ClusterView) -> Text:
    leader = view.leader
    if leader is None:
        return Text("no leader", "bold red")
    status = leader.status or {}
    how_long = "" if view.led_for_ms is None else f", for {duration(view.led_for_ms)}"
    line = Text(_word(leader.id), "bold green")
    return line.append(f" leads in term {_word(status.get('term'))}{how_long}", "default not bold")


def _survives(left: int) -> str:
    if left < 0:
        return "no majority, so nothing is written until more of them are back"
    if left == 0:
        return "no further failure is survived"
    return f"{left} {_plural('failure', left)} {'is' if left == 1 else 'are'} survived"


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"


def show_members(told: Mapping[str, Any], screen: Console, *, change: str | None) -> None:
    """The members as the leader has them, and the change that runs, in words."""
    if change is not None:
        screen.print(Text(f"a change of members is running: {change}", "yellow"), soft_wrap=True)
        screen.print()
    joining = {one.get("id") for one in (told.get("change") or {}).get("joining") or () if isinstance(one, dict)}
    voters, learners = ([one for one in told.get(kind) or () if isinstance(one, dict)] for kind in _KINDS)
    newest = max((one["match_index"] for one in voters if isinstance(one.get("match_index"), int)), default=None)
    rows = [[Text(heading, "bold") for heading in ("member", "role", "lag", "heard", "url")]]
    for kind, listed in (("voter", voters), ("learner", learners)):
        for one in listed:
            role = "leader" if one.get("id") == told.get("leader_id") else kind
            style = _STYLES.get(role, "cyan")
            said = f"{role}, is to vote" if kind == "learner" and one.get("id") in joining else role
            cells = (Text(_word(one.get("id"))), Text(said, style), _member_lag(one, newest), _heard(one))
            rows.append([*cells, Text(_word(one.get("url")), "dim")])
    for line in aligned(rows, [False, False, True, True, False]):
        screen.print(line, soft_wrap=True)


_KINDS: Final = ("voters", "learners")


def _member_lag(one: Mapping[str, Any], newest: int | None) -> Text:
    match = one.get("match_index")
    if newest is None or not isinstance(match, int):
        return _unknown()
    lag = max(0, newest - match)
    return Text(f"{lag:,}", "yellow" if lag else "")


def _heard(one: Mapping[str, Any]) -> Text:
    age_ms = one.get("last_contact_ms")
    if not isinstance(age_ms, int):
        return Text("never", "red")
    return Text("now" if age_ms < HEARD_MS_MAX else f"{duration(age_ms)} ago", "" if age_ms < HEARD_MS_MAX else "red")


# ------------------------------------------------------------------------------------------------ the table


class _Column(NamedTuple):
    """One column; of a node that does not answer only those without a need for its word have a cell."""

    heading: str
    cell: Callable[[NodeView, ClusterView], Text]
    is_number: bool = False


def role_of(node: NodeView) -> Text:
    """What it is to its cluster."""
    if node.status is None:
        return Text("no answer", "red")
    if node.was_removed:
        return Text("removed", "red")
    role = _word(node.status.get("role"))
    return Text(role, _STYLES.get(role, ""))


def _lag(node: NodeView, view: ClusterView) -> Text:
    newest = view.leader.status.get("commit_index") if view.leader is not None and view.leader.status else None
    applied = (node.status or {}).get("applied_index")
    if not (isinstance(newest, int) and isinstance(applied, int)):
        return _unknown()
    lag = max(0, newest - applied)
    return Text(f"{lag:,}", "yellow" if lag else "")


def _number(field: str) -> Callable[[NodeView, ClusterView], Text]:
    def cell(node: NodeView, _: ClusterView) -> Text:
        value = (node.status or {}).get(field)
        return Text(f"{value:,}") if isinstance(value, int) else _unknown()

    return cell


def _log(node: NodeView, _: ClusterView) -> Text:
    count = (node.status or {}).get("log_bytes")
    return Text(byte_count(count)) if isinstance(count, int) else _unknown()


def _uptime(node: NodeView, _: ClusterView) -> Text:
    told = (node.status or {}).get("uptime_ms")
    return Text(duration(told)) if isinstance(told, int) else _unknown()


def _unknown() -> Text:
    return Text("–", "dim")


_NODE: Final = _Column("node", lambda node, view: Text(_word(view.name_of(node))))
_ROLE: Final = _Column("role", lambda node, view: role_of(node))
_TERM: Final = _Column("term", _number("term"), is_number=True)
_COMMIT: Final = _Column("commit", _number("commit_index"), is_number=True)
_LAG: Final = _Column("lag", _lag, is_number=True)
_REVISION: Final = _Column("revision", _number("revision"), is_number=True)
_LOG: Final = _Column("log", _log, is_number=True)
_UPTIME: Final = _Column("up", _uptime, is_number=True)
_URL: Final = _Column("url", lambda node, view: Text(node.url, "dim"))
_ADDRESS: Final = _Column("address", lambda node, view: Text(node.url.removeprefix("http://"), "dim"))

_ALWAYS: Final = (_NODE, _ROLE, _TERM, _COMMIT, _LAG, _REVISION, _LOG, _UPTIME)
_GIVEN_UP: Final = (_UPTIME, _TERM, _REVISION, _LOG, _COMMIT)
"""What is left out of a narrow screen, in this order; --output json has it still."""


def _fitting_table(view: ClusterView, screen: Console) -> list[Text]:
    """The lines of the fullest table that the screen has room for."""
    variants: list[tuple[_Column, ...]] = [(*_ALWAYS, _URL)]
    for count in range(len(_GIVEN_UP) + 1):
        variants.append((*(column for column in _ALWAYS if column not in _GIVEN_UP[:count]), _ADDRESS))
    lines: list[Text] = []
    for columns in variants:
        lines = _table(view, columns)
        if max(line.cell_len for line in lines) <= screen.width:
            break
    return lines


def _table(view: ClusterView, columns: tuple[_Column, ...]) -> list[Text]:
    rows = [[Text(column.heading, "bold") for column in columns]]
    rows += [[column.cell(node, view) for column in columns] for node in view.nodes]
    return aligned(rows, [column.is_number for column in columns])


def aligned(rows: Sequence[Sequence[Text]], are_numbers: Sequence[bool]) -> list[Text]:
    """A table's lines: each column as wide as its widest cell, numbers to the right."""
    widths = [max(cell.cell_len for cell in column) for column in zip(*rows, strict=True)]
    return [_line(row, are_numbers, widths) for row in rows]


def _line(row: Sequence[Text], are_numbers: Sequence[bool], widths: Sequence[int]) -> Text:
    line = Text()
    for cell, is_number, width in zip(row, are_numbers, widths, strict=True):
        room = " " * (width - cell.cell_len)
        line.append(room if is_number else "").append_text(cell)
        line.append(("" if is_number else room) + _GAP)
    line.rstrip()
    return line


def _word(value: Any) -> str:
    """What a node says, on one line."""
    return "–" if value is None else printable(str(value)).replace("\n", " ")


def duration(milliseconds: int) -> str:
    """A time span in its two largest units."""
    seconds = milliseconds // 1000
    for larger, smaller, size, part in (("d", "h", 86_400, 3_600), ("h", "m", 3_600, 60), ("m", "s", 60, 1)):
        if seconds >= size:
            return f"{seconds // size}{larger} {seconds % size // part}{smaller}"
    return f"{seconds}s"
