"""What several commands have in common: where the cluster is, and how answers look.

The shared options may stand before or after the subcommand; the later one wins.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from click.core import ParameterSource

from raftkv.cli.asking import Cluster
from raftkv.cli.failures import Unreachable, Unusable
from raftkv.cli.record import DATA_DIR_DEFAULT, read_record, record_path
from raftkv.values import parse_url

PATIENCE_S_DEFAULT: Final = 15.0

Command = TypeVar("Command", bound=Callable[..., Any])
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Shared:
    """The shared options as far as they are known; None: not said."""

    endpoints: str | None = None
    output: str | None = None
    timeout_s: float | None = None

    def overridden_by(self, later: Shared) -> Shared:
        """These, except where the later ones say something."""
        said = {name: value for name, value in asdict(later).items() if value is not None}
        return replace(self, **said)

    @property
    def wants_json(self) -> bool:
        """Whether a program reads what is printed."""
        return self.output == "json"

    @property
    def patience_s(self) -> float:
        """How long to go on asking."""
        return PATIENCE_S_DEFAULT if self.timeout_s is None else self.timeout_s

    def urls(self) -> tuple[str, ...]:
        """The nodes to ask: those that were said, else those of the cluster on this machine."""
        if self.endpoints is not None:
            try:
                return tuple(parse_url(url.strip()) for url in self.endpoints.split(","))
            except ValueError as error:
                raise Unusable(f"--endpoints: {error}") from error
        record = read_record(DATA_DIR_DEFAULT)
        if record is None:
            raise Unreachable(
                f"no cluster was started here (there is no {record_path(DATA_DIR_DEFAULT)}). Start one with "
                "`raftkv cluster up`, or say where it is with --endpoints or RAFTKV_ENDPOINTS."
            )
        return record.urls

    def names(self) -> dict[str, str]:
        """The ids of the nodes by URL, as far as they are known before anybody is asked."""
        record = read_record(DATA_DIR_DEFAULT) if self.endpoints is None else None
        return {} if record is None else record.names

    def cluster(self) -> Cluster:
        """The cluster that the command is about."""
        return Cluster(self.urls(), patience_s=self.patience_s, is_quiet=self.wants_json)


def shared_options(command: Callable[..., Result]) -> Callable[..., Result]:
    """Adds the options of ``Shared``; the command takes them together as ``options``."""

    @wraps(command)
    def with_shared(*, endpoints: str | None, output: str | None, timeout_s: float | None, **own: Any) -> Result:
        context = click.get_current_context()
        before = context.find_object(Shared) or Shared()
        if before.endpoints and context.get_parameter_source("endpoints") is ParameterSource.ENVIRONMENT:
            # A flag before the subcommand beats the variable, which is offered again after it.
            endpoints = None
        return command(options=before.overridden_by(Shared(endpoints, output, timeout_s)), **own)

    for option in (
        click.option(
            "--timeout",
            "timeout_s",
            type=click.FloatRange(min=0.1),
            metavar="SECONDS",
            help=f"Go on asking for so long ({PATIENCE_S_DEFAULT:.0f}).",
        ),
        click.option(
            "--output",
            type=click.Choice(["table", "json"]),
            help="For people (table) or for programs (json; errors too, on standard error).",
        ),
        click.option(
            "--endpoints",
            metavar="URL[,URL…]",
            envvar="RAFTKV_ENDPOINTS",
            help="The nodes to ask (or RAFTKV_ENDPOINTS); else those of the cluster in raftkv-data.",
        ),
    ):
        with_shared = option(with_shared)
    return with_shared


def exactly_once_option(command: Command) -> Command:
    """``--exactly-once`` of the commands that write."""
    option = click.option(
        "--exactly-once",
        is_flag=True,
        help="Ride out a change of leader: repeat until the outcome is known, and never write twice "
        "(two more round trips).",
    )
    return option(command)


def print_json(value: Any) -> None:
    """One document, for programs."""
    click.echo(_safe(json.dumps(value, ensure_ascii=False, indent=2)))


def print_json_list(name: str, values: Iterable[Any], last: Callable[[], dict[str, Any]]) -> None:
    """One document with a list that may be long, written as it comes; ``last`` are its other members.

    A failure on the way leaves the document unfinished, so that nobody takes it for all there is.
    """
    write = sys.stdout.write
    write(f'{{\n  "{name}": [')
    separator = "\n    "
    for value in values:
        write(separator + _safe(json.dumps(value, ensure_ascii=False)))
        separator = ",\n    "
    rest = "".join(f',\n  "{key}": {json.dumps(value)}' for key, value in last().items())
    write(f"\n  ]{rest}\n}}\n")


def _safe(document: str) -> str:
    """The same JSON, with what a terminal would act on as escapes."""
    if document.isascii() and "\x7f" not in document:
        return document
    return re.sub(
        r"[^\n -~]", lambda found: found[0] if found[0].isprintable() else json.dumps(found[0])[1:-1], document
    )


def write_raw(value: bytes) -> None:
    """These bytes on standard output, and nothing else; on a terminal the prompt begins on a line of its own."""
    sys.stdout.buffer.write(value)
    if sys.stdout.isatty() and value and not value.endswith(b"\n"):
        sys.stdout.buffer.write(b"\n")
    sys.stdout.buffer.flush()


def data_dir_option(command: Command) -> Command:
    """``--data-dir`` of the commands about a cluster on this machine."""
    option = click.option(
        "--data-dir",
        type=click.Path(path_type=Path, file_okay=False),
        default=DATA_DIR_DEFAULT,
        show_default=True,
        help="Where the local cluster keeps its data and logs.",
    )
    return option(command)
