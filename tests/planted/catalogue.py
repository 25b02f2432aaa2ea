"""The list of planted bugs: what each one is, where it goes, and the text of a file with it in place.

Told: the TOML files beside this one, and a tree. Tells: bugs, or BadBug with the name of the one that is wrong. It
never runs anything. A file's first lines may name what its bugs have in common: ``file``, ``tests``, ``simulator``.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from textwrap import dedent
from typing import Any, Final

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parent.parent
_NEEDED: Final = frozenset({"name", "rows", "slip", "file", "function", "old", "new", "tests"})
_OPTIONAL: Final = frozenset({"simulator", "quick", "explained"})
FAULTS_MAX: Final = 70


class BadBug(Exception):
    """The list says something that does not fit the tree, or itself."""


@dataclass(frozen=True, slots=True)
class Bug:
    """One way in which somebody might write it wrongly."""

    name: str
    room: str
    """The file of the list that it stands in."""
    rows: tuple[int, ...]
    """Which of the known faults it stands for; none: a promise of the documented interface that is no row there."""
    slip: str
    """What its author believed or forgot."""
    file: str
    function: str
    """Qualified, as ``Class.method``; or the name of a class, or of what is assigned in a module."""
    old: str
    """Found exactly once in that function."""
    new: str
    tests: tuple[str, ...]
    """Where to look for what the simulator does not find, lowest first."""
    simulator: bool = True
    """Whether the simulated cluster runs this code at all."""
    quick: bool = False
    """One of the few for every change."""
    explained: str = ""
    """Why nothing can be expected to catch it; empty: something must."""


def load(directory: Path = HERE) -> list[Bug]:
    """All of them, in order of room and place."""
    found: list[Bug] = []
    for path in sorted(directory.glob("*.toml")):
        common = tomllib.loads(path.read_text())
        bugs = common.pop("bug", [])
        found += [_bug({**common, **fields}, room=path.stem) for fields in bugs]
    names = [bug.name for bug in found]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise BadBug(f"two bugs have one name: {', '.join(sorted(twice))}")
    return found


def _bug(fields: dict[str, Any], *, room: str) -> Bug:
    name = fields.get("name", f"a bug in {room}.toml")
    wrong = (_NEEDED - fields.keys()) | (fields.keys() - _NEEDED - _OPTIONAL)
    if wrong:
        raise BadBug(f"{name}: missing or unknown: {', '.join(sorted(wrong))}")
    bug = Bug(**{**fields, "room": room, "rows": tuple(fields["rows"]), "tests": tuple(fields["tests"])})
    if bug.old == bug.new or not bug.slip.endswith(".") or not all(1 <= row <= FAULTS_MAX for row in bug.rows):
        raise BadBug(f"{name}: a change, a sentence and rows that exist are needed")
    return bug


def planted(bug: Bug, source: str) -> str:
    """The file's text with the bug in it; BadBug if the old text does not stand exactly once in the function."""
    start, stop = _span(bug, source)
    place = source[start:stop]
    count = place.count(bug.old)
    if count != 1:
        raise BadBug(f"{bug.name}: the old text stands {count} times in {bug.file}, {bug.function}")
    changed = place.replace(bug.old, bug.new)
    try:
        ast.parse(dedent(changed))
    except SyntaxError as error:
        raise BadBug(f"{bug.name}: with it {bug.file} is no Python: {error}") from error
    return source[:start] + changed + source[stop:]


def _span(bug: Bug, source: str) -> tuple[int, int]:
    """Where the function's lines begin and end in the text."""
    spans = [span for name, span in _spans(source) if name == bug.function]
    if len(spans) != 1:
        raise BadBug(f"{bug.name}: {bug.file} has {len(spans)} of the name {bug.function}")
    return spans[0]


@lru_cache
def _spans(source: str) -> list[tuple[str, tuple[int, int]]]:
    """Every name in a file, and where its lines begin and end in the text."""
    starts = [0, *accumulate(map(len, source.splitlines(keepends=True)))]
    return [
        (name, (starts[node.lineno - 1], starts[node.end_lineno or -1]))
        for name, node in _named(ast.parse(source).body, "")
    ]


def _named(body: list[ast.stmt], prefix: str) -> Iterator[tuple[str, ast.stmt]]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + node.name, node
        elif isinstance(node, ast.ClassDef):
            yield prefix + node.name, node
            yield from _named(node.body, f"{prefix}{node.name}.")
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield prefix + node.target.id, node
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            yield prefix + node.targets[0].id, node
