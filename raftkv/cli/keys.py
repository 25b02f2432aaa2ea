"""``put`` and ``get``: one request each, and its answer in an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from raftkv.cli.answers import absent, decided, item_in, unlike_ours, written
from raftkv.cli.commands import command
from raftkv.cli.exchange import Answer, Request
from raftkv.cli.failures import Unusable
from raftkv.cli.items import Item, for_programs
from raftkv.cli.options import Shared, exactly_once_option, print_json, shared_options, write_raw
from raftkv.cli.sessions import writer
from raftkv.cli.targets import Range, is_dot_segment, key_bytes, key_target, with_query
from raftkv.cli.transactions import put_by_transaction

AnyCommand = TypeVar("AnyCommand", bound=Callable[..., Any])

revision_option = click.option(
    "--if-revision", type=click.IntRange(min=1), metavar="N", help="Only if the key's revision is this one."
)


def conditions(revision: int | None, *, absent: bool) -> dict[str, str]:
    """The headers that make a write conditional."""
    if revision is not None and absent:
        raise Unusable("--if-revision and --if-absent contradict each other: give one of them.")
    if absent:
        return {"If-None-Match": "*"}
    return {} if revision is None else {"If-Match": f'"{revision}"'}


def freshness_options(command: AnyCommand) -> AnyCommand:
    """The options of every read; ``freshness`` makes a query of them."""
    for option in (
        click.option(
            "--max-staleness-ms",
            type=click.IntRange(min=0),
            metavar="N",
            help="With --consistency stale: no older than this; else refused.",
        ),
        click.option(
            "--min-index",
            type=click.IntRange(min=0),
            metavar="N",
            help="With --consistency stale: at least as new as this applied_index, which --output json tells.",
        ),
        click.option(
            "--consistency",
            type=click.Choice(["linearizable", "follower", "lease", "stale"]),
            metavar="LEVEL",
            help="How fresh it must be: linearizable (the default), follower, lease or stale.",
        ),
    ):
        command = option(command)
    return command


def freshness(
    consistency: str | None, min_index: int | None, max_staleness_ms: int | None
) -> list[tuple[str, bytes | str]]:
    """The query that asks for it."""
    bounds = [("min_index", min_index), ("max_staleness_ms", max_staleness_ms)]
    said = [(name, str(bound)) for name, bound in bounds if bound is not None]
    if said and consistency != "stale":
        raise Unusable(
            "--min-index and --max-staleness-ms go with --consistency stale; the other levels need no bounds."
        )
    level = [] if consistency is None else [("consistency", consistency)]
    return [*level, *said]


@command(
    examples=(
        "raftkv put greeting hello",
        "raftkv put config/app - < app.toml",
        'raftkv put lock "$HOSTNAME" --if-absent',
        "raftkv put counter 8 --if-revision 41",
        "raftkv put -- -key-with-a-dash value",
    )
)
@click.argument("key")
@click.argument("value")
@revision_option
@click.option("--if-absent", is_flag=True, help="Only if there is no such key.")
@exactly_once_option
@shared_options
def put(key: str, value: str, if_revision: int | None, if_absent: bool, exactly_once: bool, options: Shared) -> None:
    """Store VALUE under KEY; "-" reads it from standard input.

    Exit code 1 means that the condition failed and nothing was changed; 3 that the cluster was not reached, or
    that whether the write happened is not known.
    """
    headers = conditions(if_revision, absent=if_absent)
    raw = key_bytes(key)
    body = sys.stdin.buffer.read() if value == "-" else os.fsencode(value)
    with writer(options.cluster(), exactly_once=exactly_once) as cluster:
        if is_dot_segment(raw):
            answer, report = put_by_transaction(cluster, raw, body, if_revision=if_revision, if_absent=if_absent)
        else:
            answer = written(cluster.ask(Request("PUT", key_target(raw), body, headers)), raw)
            report = answer.json()
    if options.wants_json:
        print_json(report | provenance(answer))
    else:
        click.echo(f"{'created' if report.get('version') == 1 else 'replaced'}, revision {report.get('revision')}")


@command(
    examples=(
        "raftkv get greeting",
        "raftkv get config/app > app.toml",
        "raftkv get greeting --output json",
        "raftkv get greeting --consistency stale --max-staleness-ms 500",
    )
)
@click.argument("key")
@freshness_options
@shared_options
def get(
    key: str, consistency: str | None, min_index: int | None, max_staleness_ms: int | None, options: Shared
) -> None:
    """Print the value of KEY, and nothing else.

    A terminal gets a newline after it. With --output json: the item with its revisions; a key or value that is not
    UTF-8 text comes as key_base64 or value_base64. Exit code 1 means that there is no such key.
    """
    raw, query = key_bytes(key), freshness(consistency, min_index, max_staleness_ms)
    if is_dot_segment(raw):
        answer, item = _get_by_range(options, raw, query)
    else:
        answer = decided(options.cluster().ask(Request("GET", with_query(key_target(raw), query))), raw)
        item = Item(raw, answer.body, *_revisions(answer)) if options.wants_json else Item(raw, answer.body, 0, 0, 0)
    if options.wants_json:
        print_json(for_programs(item) | provenance(answer))
    else:
        assert item.value is not None
        write_raw(item.value)


def provenance(answer: Answer) -> dict[str, int]:
    """What the answer reflects, for a later ``--min-index``, and how old a stale one is; as far as the node tells."""
    names = ("raftkv-applied-index", "applied_index"), ("raftkv-staleness-ms", "staleness_ms")
    told = {name: answer.headers.get(header, "") for header, name in names}
    return {name: int(number) for name, number in told.items() if number.isdecimal()}


def _revisions(answer: Answer) -> tuple[int, int, int]:
    """Create revision, mod revision and version of the key that was got."""
    names = ("raftkv-create-revision", "etag", "raftkv-version")
    create, mod, version = (answer.headers.get(name, "").strip('"') for name in names)
    if not (create.isdecimal() and mod.isdecimal() and version.isdecimal()):
        raise unlike_ours(answer, "no revisions")
    return int(create), int(mod), int(version)


def _get_by_range(options: Shared, key: bytes, query: list[tuple[str, bytes | str]]) -> tuple[Answer, Item]:
    """The key as a range of one: everything on the way would tidy up a path that ends with it."""
    only_it = [*Range(start=key, end=key + b"\0").parameters(), ("encoding", "base64")]
    answer = decided(options.cluster().ask(Request("GET", with_query("/v1/kv", [*only_it, *query]))))
    found = answer.json().get("items")
    if not found:
        raise absent(key)
    item = item_in(found[0], answer)
    if item.value is None:
        raise unlike_ours(answer, "an item without its value")
    return answer, item
