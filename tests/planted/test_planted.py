"""The list of planted bugs fits the tree: ``scripts/planted-bugs`` runs it, and this says that it can."""

from __future__ import annotations

import ast
from dataclasses import replace

import pytest

from tests.planted.catalogue import FAULTS_MAX, ROOT, BadBug, Bug, load, planted

BUGS = load()
OTHERS = {59, 63, 65, 66, 67}
"""Stalls, connections, limits and parsers: live nodes and fuzzers show these."""
EXAMPLE = Bug("example", "rules", (1,), "A slip.", "a.py", "C.f", "x < y", "x <= y", ("tests/core",))


def rule_names():
    tree = ast.parse((ROOT / "raftkv/core/rules.py").read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")}


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_every_bug_can_be_planted(bug):
    source = (ROOT / bug.file).read_text()
    assert planted(bug, source) != source
    assert [path for path in bug.tests if not (ROOT / path).exists()] == []


def test_every_rule_of_the_paper_has_one():
    assert rule_names() - {bug.function for bug in BUGS if bug.file == "raftkv/core/rules.py"} == set()


def test_every_known_fault_has_one():
    rows = {row for bug in BUGS for row in bug.rows}
    assert set(range(1, FAULTS_MAX + 1)) - OTHERS - rows == set()


def test_there_is_a_subset_for_every_change():
    quick = [bug for bug in BUGS if bug.quick]
    assert 20 <= len(quick) <= 60
    assert [bug.name for bug in quick if bug.explained] == []
    assert len({bug.room for bug in quick}) > 10


SOURCE = '''
def f(x, y):
    return x < y

class C:
    LIMIT: int = 7

    def f(self, x, y):
        """x < y"""
        return LIMIT

    def g(self, x, y):
        return x < y
'''


@pytest.mark.parametrize(
    ("function", "old", "new", "why"),
    [
        ("C.g", "x > y", "x", "the old text stands 0 times in a.py, C.g"),
        ("C", "x < y", "x", "the old text stands 2 times in a.py, C"),
        ("C.h", "x < y", "x", "a.py has 0 of the name C.h"),
        ("C.g", "x < y", "x <", "with it a.py is no Python"),
    ],
)
def test_what_does_not_fit_is_named(function, old, new, why):
    bug = replace(EXAMPLE, function=function, old=old, new=new)
    with pytest.raises(BadBug, match=f"^example: {why}"):
        planted(bug, SOURCE)


@pytest.mark.parametrize(("function", "old"), [("f", "x < y"), ("C.f", "x < y"), ("C.LIMIT", "7")])
def test_only_the_named_place_changes(function, old):
    bug = replace(EXAMPLE, function=function, old=old, new="8")
    assert planted(bug, SOURCE).count("8") == 1
    assert planted(bug, SOURCE).count("x < y") == SOURCE.count("x < y") - (old == "x < y")


@pytest.mark.parametrize(
    "text",
    [
        '[[bug]]\nname = "a"\n',
        'file = "a"\ntests = []\n' + '[[bug]]\nname="a"\nrows=[1]\nslip="A."\nfunction="f"\nold="a"\nnew="b"\n' * 2,
        'file = "a"\ntests = []\n[[bug]]\nname="a"\nrows=[1]\nslip="A."\nfunction="f"\nold="a"\nnew="b"\nextra=1\n',
        'file = "a"\ntests = []\n[[bug]]\nname="a"\nrows=[71]\nslip="A."\nfunction="f"\nold="a"\nnew="b"\n',
        'file = "a"\ntests = []\n[[bug]]\nname="a"\nrows=[1]\nslip="A."\nfunction="f"\nold="a"\nnew="a"\n',
    ],
    ids=["fields missing", "one name twice", "an unknown field", "an unknown row", "no change"],
)
def test_a_list_that_contradicts_itself_is_refused(tmp_path, text):
    (tmp_path / "room.toml").write_text(text)
    with pytest.raises(BadBug, match="a"):
        load(tmp_path)
