"""``member list|add|remove|promote|replace``: who belongs to the cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import click

from raftkv.cli.answers import decided
from raftkv.cli.asking import ask_this_node
from raftkv.cli.changing import MEMBERS, calling_off, change, in_words
from raftkv.cli.commands import group
from raftkv.cli.exchange import Request
from raftkv.cli.failures import CommandFailed, Refused, Unusable
from raftkv.cli.items import printable
from raftkv.cli.options import Shared, print_json, shared_options
from raftkv.values import parse_node_id, parse_url

ASK_TIMEOUT_S: Final = 2.0


@group(
    examples=(
        "raftkv member list",
        "raftkv member add n4 http://127.0.0.1:7404",
        "raftkv member remove n2",
        "raftkv member replace n3",
    )
)
def member() -> None:
    """The members of the cluster: who votes, who only listens."""


def _force(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--force", is_flag=True, help="Also if afterwards fewer than a majority of the voters would answer."
    )(command)


@member.command("list", examples=("raftkv member list", "raftkv member list --output json | jq -r .voters[].id"))
@shared_options
def list_members(options: Shared) -> None:
    """Show the members, and a change that is running.

    As the leader knows it. Lag is how many entries of the leader's log a member does not hold yet.
    """
    answer = decided(options.cluster().ask(Request("GET", MEMBERS)))
    told = answer.json()
    cluster = ask_this_node(answer.url, "/v1/cluster", timeout_s=ASK_TIMEOUT_S)
    now = {} if cluster is None else cluster.json()
    told = {**told, "change": now.get("change"), "leader_id": now.get("leader_id")}
    if options.wants_json:
        print_json(told)
        return
    from raftkv.cli.pictures import console, show_members

    running = told["change"] or {}
    words = "; ".join(filter(None, (in_words(running), calling_off(running)))) if running else None
    show_members(told, console(), change=words)


@member.command(
    examples=(
        "raftkv member add n4 http://127.0.0.1:7404",
        "raftkv member add n4 http://127.0.0.1:7404 --learner",
        "raftkv serve --id n4 --url http://127.0.0.1:7404 --data-dir n4-data \\",
        "    --join http://127.0.0.1:7401",
    )
)
@click.argument("id")
@click.argument("url")
@click.option("--learner", is_flag=True, help="It only receives the log, and does not vote.")
@_force
@shared_options
def add(id: str, url: str, learner: bool, force: bool, options: Shared) -> None:
    """Add a node, which was started with --join.

    It first receives the log, and votes as soon as it has caught up. If it cannot be reached, or never catches up, the
    members stay as they are. A node that is started with --join asks for this by itself.
    """
    fields = {"id": _id(id), "url": _url(url), "role": "learner" if learner else "voter"}
    told = change(options, "POST", "", fields, force=force, what=f"adding {id}")
    _tell(options, told, f"{id} is a member now", f"{id} is a member already")


@member.command(examples=("raftkv member remove n2", "raftkv member remove n2 --force"))
@click.argument("id")
@_force
@shared_options
def remove(id: str, force: bool, options: Shared) -> None:
    """Remove a member; its process can be stopped then.

    If it leads, another one takes over first. Its data stays where it is, and is of no use to the cluster any more. A
    node that is being added, and still catches up, is let go at once: the change that was to add it is called off.
    """
    told = change(options, "DELETE", f"/{_id(id)}", force=force, what=f"removing {id}")
    _tell(options, told, f"{id} is no member any more; its process can be stopped", f"{id} is no member")


@member.command(examples=("raftkv member promote n4",))
@click.argument("id")
@_force
@shared_options
def promote(id: str, force: bool, options: Shared) -> None:
    """Have a learner vote, as soon as it has caught up."""
    told = change(options, "PATCH", f"/{_id(id)}", {"role": "voter"}, force=force, what=f"promoting {id}")
    _tell(options, told, f"{id} votes now", f"{id} votes already")


@member.command(
    examples=(
        "raftkv member replace n3",
        "raftkv member replace n3 --url http://10.0.0.9:7403",
    )
)
@click.argument("id")
@click.option("--url", help="Where other nodes reach the new one, if it is elsewhere.")
@_force
@shared_options
def replace(id: str, url: str | None, force: bool, options: Shared) -> None:
    """Put an empty node in the place of one whose data is gone.

    Start it first, with the same ID, an empty data directory, and --join. The old one is removed, the new one added. If
    that is interrupted, the same command goes on with it.
    """
    members = decided(options.cluster().ask(Request("GET", MEMBERS))).json()
    role, old = _listed(members, _id(id))
    place = _url(url) if url is not None else None if old is None else old.get("url")
    if not isinstance(place, str):
        raise Unusable(f"there is no member {id} whose address is known: say where the new node is with --url.")
    _refuse_unfit(id, place, old)
    if old is not None:
        change(options, "DELETE", f"/{id}", force=force, what=f"removing the {id} whose data is gone")
    fields = {"id": id, "url": place, "role": role}
    told = change(options, "POST", "", fields, force=force, what=f"adding the new {id}")
    _tell(options, {**told, "changed": True}, f"{id} is replaced", f"{id} is replaced")


def _listed(members: Mapping[str, Any], id: str) -> tuple[str, Mapping[str, Any] | None]:
    """The role of the member, and the member; None: there is none of that name, as after half of a replacement."""
    for role, kind in (("voter", "voters"), ("learner", "learners")):
        for one in members.get(kind) or ():
            if isinstance(one, dict) and one.get("id") == id:
                return role, one
    return "voter", None


def _refuse_unfit(id: str, url: str, old: Mapping[str, Any] | None) -> None:
    """Raises what stands in the way, before anything is changed: a member is removed only for one that can come."""
    start = f"Start it there with --id {id}, an empty data directory, and --join with the URL of another member"
    answer = ask_this_node(url, "/v1/diagnostics", timeout_s=ASK_TIMEOUT_S)
    if answer is None:
        raise CommandFailed(f"no node answers at {url}, and so nothing was changed. {start}; then the same again.")
    said = answer.json()
    formation = said.get("formation")
    if said.get("id") != id:
        raise CommandFailed(f"{printable(str(said.get('id')))} answers at {url}, not {id}. Nothing was changed.")
    if said.get("cluster_id") is None:
        if isinstance(formation, dict) and formation.get("joins"):
            return
        raise CommandFailed(
            f"{id} runs without --join, so the cluster could not let it in; nothing was changed. Stop it. {start}, "
            "instead of --initial-cluster; then the same again."
        )
    if old is not None:
        raise Refused(
            f"{id} at {url} still has its data: there is nothing to replace, and nothing was changed. If it does not "
            f"serve, `raftkv doctor` says why; to have it begin anew all the same, stop it and empty its directory.",
            code="member_exists",
        )


def _tell(options: Shared, told: dict[str, Any], changed: str, unchanged: str) -> None:
    if options.wants_json:
        print_json(told)
        return
    voters = ", ".join(printable(str(one.get("id"))) for one in told.get("voters") or () if isinstance(one, dict))
    click.echo(f"{changed if told.get('changed') else unchanged}. Voters: {voters}")


def _id(id: str) -> str:
    try:
        return parse_node_id(id)
    except ValueError as error:
        raise Unusable(f"{error}.") from error


def _url(url: str) -> str:
    try:
        return parse_url(url)
    except ValueError as error:
        raise Unusable(f"{error}.") from error
