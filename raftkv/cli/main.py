"""The ``raftkv`` command: its subcommands, and how it ends."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Final

import click
from click.shell_completion import shell_complete

from raftkv import __version__
from raftkv.cli.commands import group
from raftkv.cli.failures import (
    EXIT_INTERRUPTED,
    CommandFailed,
    OwnBug,
    give_up_output,
    keep_or_give_up_output,
    report,
    wants_json,
)
from raftkv.cli.options import Shared, shared_options
from raftkv.compiled import is_compiled
from raftkv.errors import RaftkvError

COMPLETION_VARIABLE: Final = "_RAFTKV_COMPLETE"
"""What a shell sets that wants to complete a word."""

SECTIONS: Final = {
    "Keys": {
        "put": "keys:put",
        "get": "keys:get",
        "delete": "deletion:delete",
        "list": "ranges:list_keys",
        "txn": "transactions:txn",
    },
    "Cluster": {
        "status": "admin:status",
        "doctor": "doctor:doctor",
        "leader": "admin:leader",
        "member": "member:member",
        "snapshot": "snapshot:snapshot",
    },
    "Nodes": {
        "cluster": "local:cluster",
        "serve": "serve:serve",
        "log": "admin:log",
    },
    "Disaster recovery": {
        "backup": "backup:backup",
        "restore": "recovery:restore",
        "recover": "recovery:recover",
    },
    "Proof": {
        "simulate": "simulate:simulate",
    },
    "Shell": {
        "completion": "completion:completion",
    },
}
"""Every command, under its heading in the help, and where it stands: it is imported when it is called."""


@group(
    sections=SECTIONS,
    examples=(
        "raftkv cluster up --detach",
        "raftkv put greeting hello",
        "raftkv get greeting",
        "raftkv --endpoints http://10.0.0.1:7401,http://10.0.0.2:7401 status",
    ),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(f"{__version__} (compiled)" if is_compiled() else __version__, prog_name="raftkv")
@shared_options
def raftkv(options: Shared) -> None:
    """A replicated key-value store. `raftkv cluster up` starts one on this machine.

    Exit codes: 0 done, 1 absent or condition failed, 2 usage, 3 cluster unreachable or outcome unknown,
    4 refused for another reason. With --output json, errors are JSON on standard error.
    """
    click.get_current_context().obj = options


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; the exit code is the contract's."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        code = _run(words)
        # What the last flush cannot write must not pass for written.
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output, or our errors, has had enough.
        give_up_output()
        return 0
    except OSError as error:
        keep_or_give_up_output()
        what = f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error)
        failed = CommandFailed(f"not done, or not all of it: {what}")
        return report(failed, as_json=wants_json(words))
    return code


def _run(words: list[str]) -> int:
    if os.environ.get(COMPLETION_VARIABLE):
        return shell_complete(raftkv, {}, "raftkv", COMPLETION_VARIABLE, os.environ[COMPLETION_VARIABLE])
    try:
        # Not click's main(): it ends with 1 when a pipe closes, and 1 means something else with us.
        with raftkv.make_context("raftkv", list(words)) as context:
            result = raftkv.invoke(context)
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except click.ClickException as error:
        return report(error, as_json=wants_json(words))
    except RaftkvError as error:
        return report(CommandFailed(str(error)), as_json=wants_json(words))
    except (click.Abort, KeyboardInterrupt):
        if sys.stderr.isatty():
            # Whatever was asked or shown there ended within a line.
            click.echo(err=True)
        return EXIT_INTERRUPTED
    except OSError:
        raise
    except Exception:  # noqa: BLE001 - whatever is left is a bug, and must not end with a code that means something
        traceback.print_exc(file=sys.stderr)
        return report(OwnBug("this is a bug of raftkv itself (above); please report it."), as_json=wants_json(words))
    return result if isinstance(result, int) else 0
