"""``raftkv serve``: one node, in the foreground, until it is told to stop."""

from __future__ import annotations

import errno
import os
import shlex
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from raftkv.cli.commands import command
from raftkv.cli.failures import EXIT_OWN_BUG, EXIT_USAGE
from raftkv.config import SETTINGS, NodeConfig, Setting, load
from raftkv.errors import ConfigError, DataDamaged, DataError

_CANNOT_LISTEN: Final = frozenset({errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES})


def setting_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """An option for each setting, as text: ``config.load`` judges them together with the other sources."""
    for setting in reversed(SETTINGS):
        command = _option(setting)(command)
    return command


def _option(setting: Setting) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    shown = "on" if setting.default is True else setting.default
    tail = "" if setting.default in (None, False, ()) else f"  [{shown}]"
    if setting.is_switch:
        return click.option(setting.flag, setting.field, is_flag=True, default=None, help=setting.help)
    return click.option(setting.flag, setting.field, metavar=setting.shape, help=setting.help + tail)


@command(
    examples=(
        "raftkv serve --id n1 --data-dir n1-data --url http://127.0.0.1:7401 \\",
        "    --initial-cluster n1=http://127.0.0.1:7401",
        "raftkv serve --config /etc/raftkv/n1.toml --log-format json",
    )
)
@click.option(
    "--config",
    "config_file",
    envvar="RAFTKV_CONFIG",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A TOML file with settings.",
)
@setting_options
def serve(*, config_file: Path | None, **flags: Any) -> int:
    """Run one node, in the foreground, until SIGTERM or SIGINT.

    Every setting is also RAFTKV_… in the environment and a key of the --config file. A directory that holds state
    wins over --initial-cluster: a restart is the same command. Exit codes: 0 told to stop, 2 wrong settings, 70 a
    bug of raftkv, 73 another process holds the directory, 74 the disk failed, 76 data is damaged, 77 the directory
    is another cluster's or of an unknown format.
    """
    by_name = {setting.name: flags[setting.field] for setting in SETTINGS}
    try:
        config = load(flags=by_name, environment=os.environ, file=config_file)
    except ConfigError as error:
        for problem in error.problems:
            click.echo(f"raftkv serve: {problem}", err=True)
        click.echo("Nothing was started or changed. All settings: raftkv serve --help", err=True)
        return EXIT_USAGE
    return run(config)


def run(config: NodeConfig) -> int:
    """The exit code of a node that has run to its end."""
    from raftkv.node.main import serve as serve_node

    try:
        return serve_node(config)
    except DataError as error:
        click.echo(f"raftkv {config.id}: {error}", err=True)
        if isinstance(error, DataDamaged):
            click.echo(way_back(config), err=True)
        return error.exit_code
    except OSError as error:
        if error.errno in _CANNOT_LISTEN or isinstance(error, socket.gaierror):
            address = error.filename or f"{config.listen.host}:{config.listen.port}"
            flag = "--peer-listen" if _is_for_peers_alone(address, config) else "--listen"
            click.echo(f"raftkv {config.id}: cannot listen on {address}: {_why_not(error, flag)}", err=True)
            return EXIT_USAGE
        return _own_bug(config, error)
    except Exception as error:  # noqa: BLE001 - whatever is left is a bug, and has an exit code of its own
        return _own_bug(config, error)


def way_back(config: NodeConfig) -> str:
    """What an operator does about data that is damaged, command by command.

    It is not done unasked. What the node had acknowledged it no longer holds, and only people know whether a disk with
    the rest of it can still be had; that most of the others are alive and well one look at this directory cannot say.
    """
    others = [url for id, url in config.initial_cluster if id != config.id] or list(config.join)
    if config.initial_cluster and not others:
        return "Nothing was changed. This node was the whole cluster: `raftkv restore` makes one of the newest backup."
    # Where peers have an address of their own, nobody here knows what clients reach them by.
    is_known = bool(others) and config.peer_url == config.url
    asked = ",".join(others) if is_known else "URL"
    directory = shlex.quote(str(config.data_dir))
    return "\n".join(
        (
            "Nothing was changed. As long as most of the voters are well, they have all that was acknowledged:",
            f"  raftkv doctor --endpoints {asked}",
            f"  mv {directory} {directory}.damaged",
            f"  raftkv serve …    as ever, with --join {','.join(others) or 'URL'} instead of --initial-cluster",
            f"  raftkv member replace {config.id} --endpoints {asked}",
            "If most of them are not, leave this directory as it is, and bring those back first.",
        )
    )


def _is_for_peers_alone(address: str, config: NodeConfig) -> bool:
    return config.peers_have_their_own_port and address == f"{config.peer_listen.host}:{config.peer_listen.port}"


def _why_not(error: OSError, flag: str) -> str:
    """In words, and what to do."""
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return f"this machine has no such address. Give one that it has with {flag}, or 0.0.0.0 for all of them."
    if error.errno == errno.EACCES:
        return f"that is not allowed; ports below 1024 are reserved. Take another with {flag}."
    return f"another process has this port (`ss -ltnp` names it). Stop that one, or take another port with {flag}."


def _own_bug(config: NodeConfig, error: Exception) -> int:
    """Told as the log tells it: this too goes where the log goes, and an exception's own words may quote a client."""
    from raftkv.node.logs import way_of

    click.echo(way_of(error), err=True)
    click.echo(f"raftkv {config.id}: stopped by a bug of raftkv itself (above); what it acknowledged is safe", err=True)
    return EXIT_OWN_BUG
