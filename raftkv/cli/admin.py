"""``status``, ``leader transfer``, ``log show``: looking at a cluster, and turning its one wheel."""

from __future__ import annotations

import json
from pathlib import Path

import click

from raftkv.cli.exchange import Request
from raftkv.cli.failures import Unreachable
from raftkv.cli.keys import refused
from raftkv.cli.options import Shared, print_json, shared_options
from raftkv.cli.overview import NodeView, console, leader_among, nodes_table, view_cluster


@click.command()
@shared_options
def status(options: Shared) -> None:
    """Show every node: its role, term, and how far it has come."""
    show_views(view_cluster(options.urls()), options, names=options.names())


def show_views(views: list[NodeView], options: Shared, *, names: dict[str, str] | None = None) -> None:
    """Prints the nodes; raises Unreachable where the cluster cannot serve."""
    if options.wants_json:
        print_json({"nodes": [{"url": view.url, "status": view.status} for view in views]})
    else:
        console().print(nodes_table(views, names=names))
    if all(view.status is None for view in views):
        raise Unreachable(
            "no node answers. Start the cluster with `raftkv cluster up`, or say where it is with --endpoints."
        )
    if leader_among(views) is None:
        raise Unreachable(
            "no node leads at the moment. If that lasts, fewer than half of the members reach each other: "
            "start those that do not answer, and look into their logs."
        )


@click.group()
def leader() -> None:
    """The leader of the cluster."""


@leader.command()
@click.argument("id", required=False)
@shared_options
def transfer(id: str | None, options: Shared) -> None:
    """Hand leadership over to the node ID, or to the best placed one."""
    body = json.dumps({} if id is None else {"id": id}).encode()
    request = Request("POST", "/v1/admin/leader", body, {"Content-Type": "application/json"})
    answer = options.cluster().ask(request)
    if not 200 <= answer.status < 300:
        raise refused(answer)
    if options.wants_json:
        print_json(answer.json())
    else:
        report = answer.json()
        leads = report.get("leader", {}).get("id")
        click.echo(f"{leads} leads, term {report.get('term')}" if report.get("changed") else f"{leads} leads already")


@click.group()
def log() -> None:
    """The log on disk."""


@log.command()
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
def show(directory: Path) -> None:
    """Tell what the log in a node's data directory holds; changes nothing."""
    from raftkv.storage.directory import PosixDirectory
    from raftkv.storage.show import describe

    for line in describe(PosixDirectory.read_only(directory)):
        click.echo(line)
