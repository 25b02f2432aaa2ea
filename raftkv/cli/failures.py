"""How a command ends when it does not end well. The exit codes are part of the contract with scripts."""

from __future__ import annotations

import click


class CommandFailed(click.ClickException):
    """The command did not do what it was asked; the message ends with what to do next."""

    exit_code = 4


class AbsentOrConditionFailed(CommandFailed):
    """The cluster decided: there is no such key, or it was not as the condition demanded."""

    exit_code = 1


class Unusable(CommandFailed):
    """What was typed cannot be meant."""

    exit_code = 2


class Unreachable(CommandFailed):
    """Nobody who could decide was reached. Nothing was changed."""

    exit_code = 3


class OutcomeUnknown(CommandFailed):
    """The write may have happened, or may happen yet."""

    exit_code = 3


class Refused(CommandFailed):
    """The cluster said no, for a reason that trying again does not mend."""

    exit_code = 4
