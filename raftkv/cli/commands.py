"""What all commands have in common as commands: examples in their help, loading on demand, slips understood.

Told: names, examples, where a command stands. Tells: click's commands. May never know: what they do.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, Final

import click

_NEAR: Final = 0.75
"""How alike two names must be to be taken for a slip of the fingers."""
_OPTIONS_ELSEWHERE: Final = {
    "--if-match": "--if-revision",
    "--if-none-match": "--if-absent",
    "--endpoint": "--endpoints",
    "--url": "--endpoints",
    "--host": "--endpoints",
    "--json": "--output json",
    "--format": "--output",
    "--dir": "--data-dir",
    "--keys": "--keys-only",
    "--force": "--yes",
}
"""What other stores, or HTTP, call an option of ours."""
_COMMANDS_ELSEWHERE: Final = {
    "set": "put",
    "write": "put",
    "read": "get",
    "rm": "delete",
    "del": "delete",
    "remove": "delete",
    "ls": "list",
    "keys": "list",
    "start": "cluster up",
    "up": "cluster up",
    "down": "cluster down",
    "stop": "cluster down",
    "run": "serve",
    "members": "member",
    "transaction": "txn",
    "health": "status",
    "sim": "simulate",
    "test": "simulate",
}


class Command(click.Command):
    """A command whose help ends with examples that can be pasted."""

    def __init__(self, *arguments: Any, examples: Sequence[str] = (), **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.examples = tuple(examples)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The examples, each on a line of its own."""
        super().format_epilog(ctx, formatter)
        _write_examples(formatter, self.examples)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """An option that is not ours is answered with the one that was meant, or with none."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            raise _unknown_option(error, ctx) from None


class Group(click.Group):
    """Commands under one name; those in ``sections`` are imported when somebody asks for them."""

    command_class = Command

    def __init__(
        self,
        *arguments: Any,
        examples: Sequence[str] = (),
        sections: Mapping[str, Mapping[str, str]] | None = None,
        **more: Any,
    ) -> None:
        """``sections`` are headings of the help, with names of commands and where each stands (MODULE:ATTRIBUTE)."""
        super().__init__(*arguments, **more)
        self.examples = tuple(examples)
        self._sections = {} if sections is None else sections
        self._places = {name: place for section in self._sections.values() for name, place in section.items()}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which they were added."""
        return [*self._places, *(name for name in self.commands if name not in self._places)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command; None: there is none of this name."""
        if cmd_name not in self.commands and cmd_name in self._places:
            module, _, attribute = self._places[cmd_name].partition(":")
            self.add_command(getattr(import_module(f"raftkv.cli.{module}"), attribute), cmd_name)
        return self.commands.get(cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """By section, where there are any."""
        if not self._sections:
            super().format_commands(ctx, formatter)
            return
        widest = max(map(len, self.list_commands(ctx)))
        for heading, names in self._sections.items():
            rows = [(name.ljust(widest), command) for name in names if (command := self.get_command(ctx, name))]
            with formatter.section(heading):
                room = formatter.width - 6 - widest
                formatter.write_dl([(name, command.get_short_help_str(room)) for name, command in rows])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The examples, each on a line of its own."""
        super().format_epilog(ctx, formatter)
        _write_examples(formatter, self.examples)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """An option that is not ours is answered with the one that was meant, or with none."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            raise _unknown_option(error, ctx) from None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """A name that is not ours is answered with the one that was meant, or with all there are."""
        name = str(args[0])
        if self.get_command(ctx, name) is None and not ctx.resilient_parsing and not name.startswith("-"):
            names = self.list_commands(ctx)
            elsewhere = _COMMANDS_ELSEWHERE.get(name, "")
            meant = elsewhere if elsewhere.split(" ")[0] in names else _nearest(name, names)
            tail = f"Did you mean {meant}?" if meant else f"There are {', '.join(names)}."
            raise click.UsageError(f"there is no command {name!r}. {tail}", ctx)
        return super().resolve_command(ctx, args)


def command(name: str | None = None, *, examples: Sequence[str]) -> Callable[[Callable[..., Any]], Command]:
    """Makes a command of a function; its docstring is the help."""
    return click.command(name, cls=Command, examples=examples)


def group(
    name: str | None = None,
    *,
    examples: Sequence[str],
    sections: Mapping[str, Mapping[str, str]] | None = None,
    **more: Any,
) -> Callable[[Callable[..., Any]], Group]:
    """Makes a group of a function; its docstring is the help."""
    return click.group(name, cls=Group, examples=examples, sections=sections, **more)


def _write_examples(formatter: click.HelpFormatter, examples: Sequence[str]) -> None:
    if examples:
        with formatter.section("Examples"):
            for line in examples:
                formatter.write(f"{'':{formatter.current_indent}}{line}\n")


def _unknown_option(error: click.NoSuchOption, ctx: click.Context) -> click.UsageError:
    known = [name for parameter in ctx.command.get_params(ctx) for name in parameter.opts if name.startswith("--")]
    elsewhere = _OPTIONS_ELSEWHERE.get(error.option_name, "")
    meant = elsewhere if elsewhere.split(" ")[0] in known else _nearest(error.option_name, known)
    tail = f" Did you mean {meant}?" if meant else ""
    return click.UsageError(f"there is no option {error.option_name}.{tail}", error.ctx or ctx)


def _nearest(name: str, known: Sequence[str]) -> str | None:
    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=_NEAR)), None)
