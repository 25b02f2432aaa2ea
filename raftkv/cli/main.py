"""The ``raftkv`` command: its subcommands, and how it ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final

import click

from raftkv import __version__
from raftkv.cli.admin import leader, log, status
from raftkv.cli.failures import CommandFailed
from raftkv.cli.keys import delete, get, put
from raftkv.cli.local import cluster
from raftkv.cli.options import Shared, shared_options
from raftkv.cli.serve import serve
from raftkv.errors import RaftkvError

EXIT_INTERRUPTED: Final = 130


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="raftkv")
@shared_options
def raftkv(options: Shared) -> None:
    """A replicated key-value store. `raftkv cluster up` starts one on this machine."""
    click.get_current_context().obj = options


for _command in (serve, cluster, put, get, delete, status, leader, log):
    raftkv.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; the exit code is the contract's."""
    try:
        result = raftkv.main(
            args=None if arguments is None else list(arguments), prog_name="raftkv", standalone_mode=False
        )
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except RaftkvError as error:
        click.echo(f"Error: {error}", err=True)
        return CommandFailed.exit_code
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has had enough; the interpreter must not fail again as it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return result if isinstance(result, int) else 0
