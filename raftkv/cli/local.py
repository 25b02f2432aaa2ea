"""``raftkv cluster``: a whole cluster on this machine by one command."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from raftkv.cli import local_cluster
from raftkv.cli.admin import show_view
from raftkv.cli.changing import in_words
from raftkv.cli.commands import group
from raftkv.cli.failures import CommandFailed, Unreachable
from raftkv.cli.items import printable
from raftkv.cli.local_cluster import (
    BASE_PORT_DEFAULT,
    NODES_DEFAULT,
    SERVING_TIMEOUT_S,
    STOPPING_SIGNALS,
    Ending,
    LocalCluster,
)
from raftkv.cli.options import Shared, data_dir_option, print_json, shared_options
from raftkv.cli.overview import NodeView, leader_among, view_cluster, view_nodes
from raftkv.cli.patience import Patience
from raftkv.cli.pictures import aligned, console, role_of
from raftkv.cli.record import DATA_DIR_DEFAULT, LocalNode, read_record


@group(
    examples=(
        "raftkv cluster up",
        "raftkv cluster up --nodes 5 --detach",
        "raftkv cluster status",
        "raftkv cluster add",
        "raftkv cluster down",
    )
)
def cluster() -> None:
    """A cluster of real processes on this machine."""


@cluster.command(
    examples=(
        "raftkv cluster up",
        "raftkv cluster up --detach",
        "raftkv cluster up --nodes 5 --base-port 8401 --data-dir other",
    )
)
@click.option("--nodes", type=click.Choice(["3", "5"]), help=f"How many nodes ({NODES_DEFAULT}).")
@data_dir_option
@click.option(
    "--base-port",
    type=click.IntRange(1, 65_531),
    metavar="PORT",
    help=f"The first node's port, the others' follow ({BASE_PORT_DEFAULT}).",
)
@click.option("--detach", is_flag=True, help="Return as soon as the cluster serves, and leave it running.")
@shared_options
def up(nodes: str | None, data_dir: Path, base_port: int | None, detach: bool, options: Shared) -> int:
    """Start a cluster, or what is missing of one.

    Real processes, one for each node, that write to DATA-DIR/ID and log to DATA-DIR/ID.log. Data that is there is
    gone on with. Ctrl-C stops them all; with --detach, `raftkv cluster down` does.
    """
    with _signals_interrupt():
        local = _started(data_dir, int(nodes) if nodes else None, base_port, options)
        if local is None:
            return 0
        if not detach:
            return _stay(local, options)
        _present(local, options, detach=True)
        lost = local_cluster.loss(local)
        if lost:
            raise CommandFailed(f"{lost}\nThe others go on without it.")
        return 0


def _started(data_dir: Path, nodes: int | None, base_port: int | None, options: Shared) -> LocalCluster | None:
    """The cluster, serving; None: it already ran."""
    with local_cluster.exclusively(data_dir):
        local = LocalCluster(data_dir, local_cluster.plan(data_dir, nodes=nodes, base_port=base_port))
        if len(local.record.alive()) == len(local.record.nodes):
            _show(local, view_nodes(local.record.urls), options)
            if not options.wants_json:
                click.echo(f"The cluster in {data_dir} is already running. {_how_to_stop(data_dir)}", err=True)
            return None
        try:
            local_cluster.start_missing(local)
            with _waiting(options):
                local_cluster.wait_until_serving(local, timeout_s=options.timeout_s or SERVING_TIMEOUT_S)
        except BaseException:
            local_cluster.stop_children(local)
            raise
    return local


def _present(local: LocalCluster, options: Shared, *, detach: bool) -> None:
    _show(local, view_nodes(local.record.urls), options)
    if not options.wants_json:
        _show_what_to_try(local, detach=detach)


def _stay(local: LocalCluster, options: Shared) -> int:
    """Stays until the nodes are gone or somebody interrupts; then all of them are stopped."""
    failed = []

    def on_end(node: LocalNode, code: int | None) -> None:
        if code:
            failed.append(node.id)
            end = local_cluster.log_tail(local.log_path(node.id))
            again = _command("cluster", "up", "--detach", data_dir=local.directory)
            click.echo(f"\n{node.id} {local_cluster.ending_of(code)}. {end}", err=True)
            click.echo(f"The others go on. To have it back, in another shell: {again}", err=True)
        else:
            click.echo(f"{node.id} stopped", err=True)

    try:
        _present(local, options, detach=False)
        lost = local_cluster.loss(local)
        if lost:
            failed.append(lost)
            click.echo(f"\n{lost}\nThe others go on without it.", err=True)
        local_cluster.watch(local, on_end=on_end)
    except KeyboardInterrupt:
        click.echo("\nStopping … (Ctrl-C again kills)", err=True)
        with local_cluster.exclusively(local.directory):
            _tell_endings(local_cluster.stop(local))
        return 0
    except BaseException:
        with local_cluster.exclusively(local.directory):
            local_cluster.stop(local)
        raise
    return CommandFailed.exit_code if failed else 0


@cluster.command(examples=("raftkv cluster add", "raftkv cluster add --data-dir other"))
@data_dir_option
@shared_options
def add(data_dir: Path, options: Shared) -> None:
    """Grow the cluster by one node.

    A process more, which joins the others, catches up, and votes. Later starts of the cluster start it too; `raftkv
    member remove` takes it out again.
    """
    _existing(data_dir)
    with _signals_interrupt(), local_cluster.exclusively(data_dir):
        local = LocalCluster(data_dir, _existing(data_dir).record)
        if leader_among(view_nodes(local.record.urls)) is None:
            raise Unreachable(
                f"the cluster in {data_dir} has no leader, and so nobody can join it. Start what is missing of it "
                f"with `{_command('cluster', 'up', '--detach', data_dir=data_dir)}`."
            )
        node = local_cluster.add_node(local)
        try:
            with Patience(f"{node.id} starts …", is_quiet=options.wants_json) as patience:
                _until_in(local, node, patience, options.timeout_s)
        except BaseException:
            local_cluster.forget_node(local, node.id)
            raise
    _show(local, view_nodes(local.record.urls), options)


def _until_in(local: LocalCluster, node: LocalNode, patience: Patience, timeout_s: float | None) -> None:
    """The node votes; raises CommandFailed with the end of its log when it never will, or not in time."""
    others = tuple(other.url for other in local.record.nodes if other.id != node.id)
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    while True:
        view = view_cluster(others)
        change = view.members.get("change")
        if any(voter.get("id") == node.id for voter in view.voters) and not change:
            return
        if isinstance(change, dict):
            patience.say(in_words(change))
        code = local.exit_code(node.id)
        if code is not None:
            log = local_cluster.log_tail(local.log_path(node.id))
            raise CommandFailed(f"{node.id} {local_cluster.ending_of(code)}, the cluster is as it was. {log}")
        if deadline is not None and time.monotonic() > deadline:
            raise CommandFailed(
                f"{node.id} was not in after {timeout_s:g} s, and is stopped again. `raftkv member list` shows whether "
                "the cluster still waits for it; then the same command goes on with it."
            )
        time.sleep(local_cluster.POLL_S)


@cluster.command(examples=("raftkv cluster down", "raftkv cluster down --data-dir other"))
@data_dir_option
@shared_options
def down(data_dir: Path, options: Shared) -> None:
    """Stop the cluster; its data stays.

    `raftkv cluster up` goes on with it.
    """
    _existing(data_dir)
    with local_cluster.exclusively(data_dir):
        local = LocalCluster(data_dir, _existing(data_dir).record)
        with Patience("waiting for the nodes to hand over and stop …", is_quiet=options.wants_json):
            endings = local_cluster.stop(local)
    if options.wants_json:
        print_json({"nodes": [{"id": node.id, "ending": ending.name.lower()} for node, ending in endings]})
    else:
        _tell_endings(endings)
        click.echo(f"The data stays in {data_dir}; `{_command('cluster', 'up', data_dir=data_dir)}` goes on with it.")


@cluster.command(
    "status",
    examples=("raftkv cluster status", "raftkv cluster status --data-dir other --output json"),
)
@data_dir_option
@shared_options
def local_status(data_dir: Path, options: Shared) -> None:
    """Show who leads, what is survived, and every node.

    The same as `raftkv status`, of the cluster that `raftkv cluster up` has started in DATA-DIR.
    """
    local = _existing(data_dir)
    with Patience("asking the nodes …", is_quiet=options.wants_json):
        view = view_cluster(local.record.urls, names=local.record.names)
    show_view(view, options)


def _existing(data_dir: Path) -> LocalCluster:
    record = read_record(data_dir)
    if record is None:
        raise Unreachable(
            f"no cluster was started in {data_dir}. Start one with `{_command('cluster', 'up', data_dir=data_dir)}`."
        )
    return LocalCluster(data_dir, record)


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """Whatever asks this command to stop is a KeyboardInterrupt, so that no way out leaves nodes behind."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    # Under nohup the hang-up is ignored on purpose.
    before = {number: signal.getsignal(number) for number in STOPPING_SIGNALS if _is_wanted(number)}
    for number in before:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_wanted(number: signal.Signals) -> bool:
    return number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN


def _waiting(options: Shared) -> Any:
    progress = Console(stderr=True)
    if options.wants_json or not progress.is_terminal:
        return nullcontext()
    return progress.status("waiting for the nodes to elect a leader …")


def _show(local: LocalCluster, views: Sequence[NodeView], options: Shared) -> None:
    leader = leader_among(views)
    leader_id = None if leader is None else leader.id
    if options.wants_json:
        nodes = [
            {
                "id": node.id,
                "url": node.url,
                "pid": node.process and node.process.pid,
                "log": str(local.log_path(node.id)),
            }
            for node in local.record.nodes
        ]
        print_json({"leader_id": leader_id, "data_dir": str(local.directory), "nodes": nodes})
        return
    serving = sum(leader_id is not None and view.follows(leader_id) for view in views)
    headline = f"{serving} of {len(views)} nodes serve" if serving < len(views) else f"{len(views)} nodes serve"
    screen = console()
    screen.print(Text(f"{headline}, {leader_id} leads" if leader_id else f"{headline}, no leader yet", "bold"))
    rows = [[Text(heading, "bold") for heading in ("node", "role", "url", "log")]]
    for node, view in zip(local.record.nodes, views, strict=True):
        log = str(local.log_path(node.id))
        rows.append([Text(node.id), role_of(view), Text(node.url), Text(printable(log).replace("\n", " "))])
    for line in (Text(), *aligned(rows, [False] * 4), Text()):
        screen.print(line, soft_wrap=True)
    if serving < len(views):
        screen.print(Text(f"`{_doctor(local)}` says what is wrong with the others.\n", "yellow"), soft_wrap=True)


def _doctor(local: LocalCluster) -> str:
    return _command("doctor", *_elsewhere(local))


def _elsewhere(local: LocalCluster) -> tuple[str, ...]:
    """What tells a command where this cluster is."""
    return () if _is_default(local.directory) else ("--endpoints", ",".join(local.record.urls))


def _show_what_to_try(local: LocalCluster, *, detach: bool) -> None:
    screen = console()
    url = local.record.nodes[0].url
    elsewhere = _elsewhere(local)
    screen.print("Try:")
    for line in (
        _command("put", "greeting", "hello", *elsewhere),
        _command("get", "greeting", *elsewhere),
        f"curl -L {url}/v1/kv/greeting",
        _command("cluster", "status", data_dir=local.directory),
    ):
        screen.print(Text(f"  {line}", "bold"), soft_wrap=True)
    ending = _how_to_stop(local.directory) if detach else "Ctrl-C stops all nodes."
    screen.print(Text(f"\n{ending} The data stays in {local.directory}."), soft_wrap=True)


def _how_to_stop(directory: Path) -> str:
    return f"`{_command('cluster', 'down', data_dir=directory)}` stops it."


def _command(*words: str, data_dir: Path = DATA_DIR_DEFAULT) -> str:
    """A command line that works where the user is, as they called us."""
    called = Path(sys.argv[0])
    found = shutil.which("raftkv")
    if called.name == "__main__.py":
        name = "python -m raftkv"
    elif found is not None and Path(found).resolve() == called.resolve():
        name = "raftkv"
    else:
        name = shlex.quote(os.path.relpath(called)) if called.name == "raftkv" else "raftkv"
    place = () if _is_default(data_dir) else ("--data-dir", str(data_dir))
    return " ".join((name, *map(shlex.quote, (*words, *place))))


def _is_default(directory: Path) -> bool:
    return directory.resolve() == DATA_DIR_DEFAULT.resolve()


def _tell_endings(endings: Sequence[tuple[LocalNode, Ending]]) -> None:
    for node, ending in endings:
        click.echo(f"{node.id} {ending.value}")
