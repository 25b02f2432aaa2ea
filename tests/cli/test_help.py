"""Every command's help: examples that the parser understands, in lines that fit; and slips that are understood."""

from __future__ import annotations

import click
import pytest

from raftkv.cli.commands import Command, Group
from raftkv.cli.main import SECTIONS, raftkv
from tests.cli.commandlines import all_commands, raftkv_words, understood

COMMANDS = list(all_commands())
LINE_CELLS_MAX = 80


@pytest.mark.parametrize(
    ("names", "command"), COMMANDS, ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
class TestEveryCommand:
    def test_has_examples_that_the_parser_understands(self, names, command, monkeypatch):
        monkeypatch.setenv("HOSTNAME", "here")
        assert isinstance(command, Command | Group), f"raftkv {' '.join(names)}: made without raftkv.cli.commands"
        lines = list(raftkv_words(command.examples))
        assert lines, f"raftkv {' '.join(names)} has no examples"
        for words in lines:
            understood(words)
        assert any(words[: len(names)] == list(names) for words in lines)

    def test_shows_them_in_lines_that_fit(self, run, names, command):
        ended = run(*names, "--help")
        assert ended.code == 0
        shown = ended.text.splitlines()
        examples = shown[shown.index("Examples:") + 1 :]
        assert examples == [f"  {line}" for line in command.examples]
        assert [line for line in shown if len(line) > LINE_CELLS_MAX] == []

    def test_says_in_its_first_line_what_it_does(self, names, command):
        if names:
            short = command.get_short_help_str(60)
            assert short
            assert not short.endswith("..."), short


def test_a_wrong_example_is_caught():
    with pytest.raises(click.UsageError):
        understood(["put", "k", "v", "--if-revison", "3"])
    with pytest.raises(click.UsageError):
        understood(["cluster", "up", "--nodes", "4"])


def test_commands_are_found_in_lines_of_shell():
    lines = [
        "echo a | raftkv put k - && raftkv get k > file",
        'eval "$(raftkv completion bash)"',
        "raftkv list \\",
        "  a/",
    ]
    assert list(raftkv_words(lines)) == [["put", "k", "-"], ["get", "k"], ["completion", "bash"], ["list", "a/"]]


def test_the_help_has_every_command_under_a_heading(run):
    shown = run("--help").text
    for heading, names in SECTIONS.items():
        section = shown[shown.index(f"{heading}:\n") :].split("\n\n")[0]
        assert [line.split()[0] for line in section.splitlines()[1:]] == list(names)


def test_no_command_is_hidden_from_the_sections():
    assert raftkv.list_commands(click.Context(raftkv)) == [name for names in SECTIONS.values() for name in names]


SLIPS = [
    (("put", "k", "v", "--if-match", "3"), "Did you mean --if-revision?"),
    (("put", "k", "v", "--if-none-match", "*"), "Did you mean --if-absent?"),
    (("get", "k", "--endpoint", "http://127.0.0.1:1"), "Did you mean --endpoints?"),
    (("get", "k", "--json"), "Did you mean --output json?"),
    (("put", "k", "v", "--if-abscent"), "Did you mean --if-absent?"),
    (("delete", "k", "--if-match", "3"), "Did you mean --if-revision?"),
    (("delete", "--all", "--force"), "Did you mean --yes?"),
    (("--dataa-dir", "x", "status"), None),
    (("get", "k", "--if-match", "3"), None),
    (("put", "k", "v", "--prefix", "3"), None),
    (("set", "k", "v"), "Did you mean put?"),
    (("rm", "k"), "Did you mean delete?"),
    (("ls",), "Did you mean list?"),
    (("gett", "k"), "Did you mean get?"),
    (("lsit",), "Did you mean list?"),
    (("up",), "Did you mean cluster up?"),
    (("cluster", "start"), "There are up, "),
    (("xyzzy",), "There are put, get, "),
]


@pytest.mark.parametrize(
    ("words", "meant"), SLIPS, ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_a_slip_is_answered_with_what_was_meant_or_with_nothing_wrong(run, words, meant):
    ended = run(*words)
    assert (ended.code, ended.text) == (2, "")
    if meant is None:
        assert "Did you mean" not in ended.err
    else:
        assert meant in ended.err
