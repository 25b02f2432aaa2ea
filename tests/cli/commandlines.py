"""Command lines as people paste them: found in text, and read by the real parser without being run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from typing import Any

import click

from raftkv.cli.main import raftkv

_ENDS_A_COMMAND = frozenset({"|", "||", "&&", ";", "&"})
_REDIRECTS = frozenset({">", ">>", "<", "2>", "2>>"})


def all_commands(
    group: click.Group = raftkv, names: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command there is, groups too, with its words."""
    yield names, group
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None, name
        if isinstance(command, click.Group):
            yield from all_commands(command, (*names, name))
        else:
            yield (*names, name), command


def raftkv_words(lines: Iterable[str]) -> Iterator[list[str]]:
    """The words after ``raftkv`` of each of its calls in these shell lines; a backslash at the end goes on."""
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        inner = re.search(r"\$\((raftkv .*?)\)", line)
        yield from _calls(inner[1] if inner else line)


def _calls(line: str) -> Iterator[list[str]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    skips_next = False
    for token in [*lexer, ";"]:
        if token in _ENDS_A_COMMAND:
            if words[:1] == ["raftkv"]:
                yield words[1:]
            words = []
        elif skips_next:
            skips_next = False
        elif token in _REDIRECTS:
            skips_next = True
        else:
            words.append(token)


def understood(words: list[str]) -> dict[str, Any]:
    """What the parser makes of a command line; raises click's errors, runs nothing."""
    context = raftkv.make_context("raftkv", list(words))
    command: click.Command = raftkv
    while isinstance(command, click.Group):
        _, found, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        assert found is not None
        command = found
        context = command.make_context(command.name, rest, parent=context)
    return context.params
