"""How a command ends when it does not end well. The exit codes are part of the contract with scripts.

0 done   1 absent, or a condition failed   2 usage   3 cluster unreachable, or outcome unknown
4 refused for another reason   70 a bug of raftkv   130 interrupted
"""

from __future__ import annotations

import json
import os
import sys
from typing import Final, Self

import click

EXIT_USAGE: Final = 2
EXIT_OWN_BUG: Final = 70
EXIT_INTERRUPTED: Final = 130


class CommandFailed(click.ClickException):
    """The command did not do what it was asked; the message ends with what to do next."""

    exit_code = 4
    code = "failed"
    """What went wrong, for programs; a node's own code where a node said it."""

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code or self.code

    def adding(self, more: str) -> Self:
        """The same failure with more to say."""
        return type(self)(f"{self.message} {more}", code=self.code)


class AbsentOrConditionFailed(CommandFailed):
    """The cluster decided: there is no such key, or it was not as the condition demanded."""

    exit_code = 1
    code = "key_not_found"


class Unusable(CommandFailed):
    """What was typed cannot be meant."""

    exit_code = EXIT_USAGE
    code = "usage"


class Unreachable(CommandFailed):
    """Nobody who could decide was reached. Nothing was changed."""

    exit_code = 3
    code = "unreachable"


class OutcomeUnknown(CommandFailed):
    """The write may have happened, or may happen yet."""

    exit_code = 3
    code = "outcome_unknown"


class Interrupted(OutcomeUnknown):
    """Somebody stopped the command while its write was under way."""

    exit_code = EXIT_INTERRUPTED


class Refused(CommandFailed):
    """The cluster said no, for a reason that trying again does not mend."""

    exit_code = 4
    code = "refused"


class OwnBug(CommandFailed):
    """Something that nobody foresaw."""

    exit_code = EXIT_OWN_BUG
    code = "internal"


def exit_code_of(error: click.ClickException) -> int:
    """The contract's code. Click's own 1 would mean that a key is absent."""
    return error.exit_code if isinstance(error, CommandFailed) else EXIT_USAGE


def report(error: click.ClickException, *, as_json: bool) -> int:
    """Tells standard error what went wrong, for people or for programs; returns the exit code."""
    exit_code = exit_code_of(error)
    try:
        if as_json:
            code = error.code if isinstance(error, CommandFailed) else Unusable.code
            said = {"code": code, "message": error.format_message(), "exit_code": exit_code}
            click.echo(json.dumps({"error": said}), err=True)
        else:
            error.show()
    except BrokenPipeError:
        # Nobody reads our errors; the exit code tells as much.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    return exit_code


def wants_json(words: list[str]) -> bool:
    """Whether a command line asks for JSON, also one that is not understood otherwise."""
    told = ""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == "--":
            break
        if word == "--output":
            told = following
        elif word.startswith("--output="):
            told = word.partition("=")[2]
    return told == "json"


def give_up_output() -> None:
    """Nobody reads standard output any more; the interpreter must not fail again as it flushes."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def keep_or_give_up_output() -> None:
    """What was printed is written, if it can be."""
    try:
        sys.stdout.flush()
    except OSError:
        give_up_output()
