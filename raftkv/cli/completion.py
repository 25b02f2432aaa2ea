"""``completion``: a script with which a shell completes commands, options and file names.

It asks this very program, and never a cluster: nobody's terminal waits for one that does not answer.
"""

from __future__ import annotations

import click
from click.shell_completion import BashComplete, get_completion_class

from raftkv.cli.commands import command

SHELLS = ("bash", "zsh", "fish")


@command(
    examples=(
        'eval "$(raftkv completion bash)"',
        "raftkv completion bash > ~/.local/share/bash-completion/completions/raftkv",
        'raftkv completion zsh > "${fpath[1]}/_raftkv"',
        "raftkv completion fish > ~/.config/fish/completions/raftkv.fish",
    )
)
@click.argument("shell", type=click.Choice(SHELLS), metavar="SHELL")
def completion(shell: str) -> None:
    """Print a script that completes commands and options.

    SHELL is bash (4.4 or newer), zsh or fish. Put the script where the examples show, and start a new shell.
    """
    found = get_completion_class(shell)
    assert found is not None
    context = click.get_current_context().find_root()
    script = found(context.command, {}, "raftkv", "_RAFTKV_COMPLETE")
    # Bash's own source() would start a bash only to ask for its version, and complain where there is none.
    source = super(BashComplete, script).source() if isinstance(script, BashComplete) else script.source()
    click.echo(source)
