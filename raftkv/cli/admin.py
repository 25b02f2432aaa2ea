"""``status``, ``leader transfer``, ``log show``: looking at a cluster, and turning its one wheel."""

from __future__ import annotations

import json
from pathlib import Path

import click

from raftkv.cli.answers import decided
from raftkv.cli.commands import command, group
from raftkv.cli.exchange import Request
from raftkv.cli.failures import CommandFailed, OutcomeUnknown, Unreachable, Unusable
from raftkv.cli.options import Shared, print_json, print_json_list, shared_options
from raftkv.cli.overview import ClusterView, judge, view_cluster
from raftkv.cli.patience import Patience


@command(
    examples=(
        "raftkv status",
        "raftkv status --endpoints http://127.0.0.1:7401",
        "raftkv status --output json | jq .failures_survived",
    )
)
@shared_options
def status(options: Shared) -> None:
    """Show who leads, what is survived, and every node.

    Only one node of the cluster must be named; it knows the others. A voter serves while its leader hears it. Lag is
    how many entries of the log a node has yet to apply. Exit code 3 means that no node leads or that none answers.
    """
    with Patience("asking the nodes …", is_quiet=options.wants_json):
        view = view_cluster(options.urls(), names=options.names())
    show_view(view, options)


def show_view(view: ClusterView, options: Shared) -> None:
    """Prints the nodes; raises Unreachable where the cluster cannot serve."""
    if options.wants_json:
        print_json(_for_programs(view))
    else:
        from raftkv.cli.pictures import console, show_cluster

        show_cluster(view, console())
    if all(node.status is None for node in view.nodes):
        raise Unreachable(
            "no node answers. Start the cluster with `raftkv cluster up`, or say where it is with --endpoints."
        )
    if view.leader is None:
        raise Unreachable(
            "no node leads at the moment. If that lasts, `raftkv doctor` says what is wrong, and what to do.",
            code="no_leader",
        )


def _for_programs(view: ClusterView) -> dict[str, object]:
    leader, verdict = view.leader, judge(view)
    known = verdict is not None and leader is not None
    return {
        "leader_id": None if leader is None else leader.id,
        "term": None if leader is None else (leader.status or {}).get("term"),
        "led_for_ms": view.led_for_ms,
        "voters": None if verdict is None else verdict.voters,
        "voters_serving": verdict.serving if verdict is not None and known else None,
        "failures_survived": verdict.failures_survived if verdict is not None and known else None,
        "change": view.members.get("change"),
        "nodes": [
            {"id": node.id or view.names.get(node.url), "url": node.url, "status": node.status} for node in view.nodes
        ],
    }


@group(examples=("raftkv leader transfer",))
def leader() -> None:
    """The leader of the cluster."""


@leader.command(examples=("raftkv leader transfer", "raftkv leader transfer n2"))
@click.argument("id", required=False)
@shared_options
def transfer(id: str | None, options: Shared) -> None:
    """Have another node lead.

    The node ID, or without it the best placed one; before work on the machine that leads, for example. Writes wait
    meanwhile; none is lost.
    """
    body = json.dumps({} if id is None else {"id": id}).encode()
    request = Request("POST", "/v1/admin/leader", body, {"Content-Type": "application/json"})
    try:
        answer = decided(options.cluster().ask(request))
    except OutcomeUnknown as error:
        raise OutcomeUnknown(
            f"{'that node' if id is None else id} did not take over in time; it still may. See `raftkv status`, and if "
            "nothing has changed there, try again or name another node."
        ) from error
    if options.wants_json:
        print_json(answer.json())
    else:
        report = answer.json()
        leads = report.get("leader", {}).get("id")
        click.echo(f"{leads} leads, term {report.get('term')}" if report.get("changed") else f"{leads} leads already")


@group(examples=("raftkv log show raftkv-data/n1",))
def log() -> None:
    """The log on disk."""


@log.command(
    examples=(
        "raftkv log show raftkv-data/n1",
        "raftkv log show raftkv-data/n1 | head",
        "raftkv log show /var/lib/raftkv/n1 --output json",
    )
)
@click.argument("directory", type=click.Path(path_type=Path))
@shared_options
def show(directory: Path, options: Shared) -> None:
    """Tell what a node's log and snapshots hold; changes nothing.

    DIRECTORY is the node's data directory. Also while the node runs. A place that does not read back is told as
    torn (never acknowledged) or DAMAGED; every snapshot is read whole.
    """
    from raftkv.storage.directory import PosixDirectory
    from raftkv.storage.identity import IDENTITY_NAME
    from raftkv.storage.show import describe

    if not directory.is_dir():
        raise Unusable(f"{directory} is no directory. Give a node's data directory, like raftkv-data/n1.")
    if not (directory / IDENTITY_NAME).exists():
        below = sorted(str(found.parent) for found in directory.glob(f"*/{IDENTITY_NAME}"))
        hint = f"Did you mean {below[0]}?" if below else "Give what the node was started with as --data-dir."
        raise CommandFailed(f"{directory} is no data directory of a node: there is no identity in it. {hint}")
    lines = describe(PosixDirectory.read_only(directory))
    if options.wants_json:
        print_json_list("lines", lines, lambda: {"directory": str(directory)})
        return
    for line in lines:
        click.echo(line)
