"""``delete``: one key, or a whole range of them, which must be meant twice."""

from __future__ import annotations

import sys
from typing import Final

import click

from raftkv.cli.answers import absent, decided, name_of, written
from raftkv.cli.asking import Cluster
from raftkv.cli.commands import command
from raftkv.cli.exchange import Request
from raftkv.cli.failures import AbsentOrConditionFailed, CommandFailed, OutcomeUnknown, Unusable
from raftkv.cli.keys import conditions, provenance, revision_option
from raftkv.cli.options import Shared, exactly_once_option, print_json, shared_options
from raftkv.cli.sessions import Writer, writer
from raftkv.cli.targets import Range, is_dot_segment, key_bytes, key_target, range_of, with_query
from raftkv.cli.transactions import delete_by_transaction

_COUNTED_MAX: Final = 10_000
"""How many keys are counted before asking; a node gives no more in one page."""


@command(
    examples=(
        "raftkv delete greeting",
        "raftkv delete counter --if-revision 41",
        "raftkv delete --prefix sessions/",
        "raftkv delete --start user/a --end user/n --yes",
        "raftkv delete --all --yes",
    )
)
@click.argument("key", required=False)
@click.option("--prefix", metavar="PREFIX", help="Every key that begins with this.")
@click.option("--start", metavar="KEY", help="Every key from this one on (with or without --end).")
@click.option("--end", metavar="KEY", help="Every key up to this one, which is not included.")
@click.option("--all", "everything", is_flag=True, help="Every key there is.")
@click.option("--yes", is_flag=True, help="Do not ask before deleting more than one named key.")
@revision_option
@exactly_once_option
@shared_options
def delete(
    key: str | None,
    prefix: str | None,
    start: str | None,
    end: str | None,
    everything: bool,
    yes: bool,
    if_revision: int | None,
    exactly_once: bool,
    options: Shared,
) -> None:
    """Delete KEY, or every key of a range.

    A range is deleted after a question on the terminal that tells how many keys it has, or with --yes; in steps of
    at most 10,000 keys, each atomic by itself. Exit code 1 means that there was nothing to delete, or that the
    condition failed.
    """
    bounds = [bound for bound in (prefix, start, end) if bound is not None]
    if (key is not None) + bool(bounds) + everything != 1:
        raise Unusable("say what to delete: KEY, or --prefix, or --start and --end, or --all; one of them.")
    if key is not None:
        _delete_key(key, if_revision, options, exactly_once=exactly_once)
        return
    if if_revision is not None:
        raise Unusable("--if-revision goes with one KEY, not with a range.")
    wanted = range_of(prefix=prefix, start=start, end=end)
    if wanted.is_all and not everything:
        raise Unusable("an empty bound would delete every key there is. If that is meant, say --all.")
    cluster = options.cluster()
    if not yes:
        _make_sure(cluster, wanted)
    with writer(cluster, exactly_once=exactly_once) as brings:
        _delete_range(brings, wanted, options)


def _delete_key(key: str, if_revision: int | None, options: Shared, *, exactly_once: bool) -> None:
    raw = key_bytes(key)
    headers = conditions(if_revision, absent=False)
    with writer(options.cluster(), exactly_once=exactly_once) as cluster:
        if is_dot_segment(raw):
            answer, report = delete_by_transaction(cluster, raw, if_revision=if_revision)
        else:
            answer = written(cluster.ask(Request("DELETE", key_target(raw), headers=headers)), raw)
            report = answer.json()
    if options.wants_json:
        print_json(report | provenance(answer))
    if not report.get("deleted"):
        raise absent(raw)
    if not options.wants_json:
        click.echo(f"deleted, revision {report.get('revision')}")


def _delete_range(cluster: Writer, wanted: Range, options: Shared) -> None:
    parameters = [("all", "true")] if wanted.is_all else wanted.parameters()
    request = Request("DELETE", with_query("/v1/kv", parameters))
    deleted, more, revision = 0, True, None
    while more:
        try:
            answer = written(cluster.ask(request))
        except CommandFailed as error:
            if deleted:
                raise error.adding(
                    f"{deleted:,} keys are deleted already; the same command goes on with the rest."
                ) from error
            if isinstance(error, OutcomeUnknown):
                raise error.adding("The same command deletes what is left.") from error
            raise
        report = answer.json()
        step = report.get("deleted")
        deleted += step if isinstance(step, int) else 0
        more, revision = report.get("more") is True, report.get("revision")
    if options.wants_json:
        print_json({"deleted": deleted, "revision": revision} | provenance(answer))
    if not deleted:
        raise _nothing_there(wanted)
    if not options.wants_json:
        click.echo(f"{deleted:,} {_keys(deleted)} deleted, revision {revision}")


def _make_sure(cluster: Cluster, wanted: Range) -> None:
    """Asks whoever sits at the terminal; without one, --yes must have been said."""
    if not _is_attended():
        raise Unusable(f"this would delete every key {_in_words(wanted, 1)}. If that is meant, say --yes.")
    count, is_all = _count(cluster, wanted)
    if not count:
        raise _nothing_there(wanted)
    number = f"{count:,}" if is_all else f"more than {count:,}"
    if not click.confirm(f"Delete {number} {_keys(count)} {_in_words(wanted, count)}?", err=True):
        raise CommandFailed("nothing was deleted.", code="declined")


def _is_attended() -> bool:
    """Whether somebody could answer a question."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def _count(cluster: Cluster, wanted: Range) -> tuple[int, bool]:
    """How many keys there are, and whether that is all of them."""
    asked = [*wanted.parameters(), ("keys_only", "true"), ("limit", str(_COUNTED_MAX))]
    page = decided(cluster.ask(Request("GET", with_query("/v1/kv", asked)))).json()
    return len(page.get("items") or ()), page.get("more") is not True


def _nothing_there(wanted: Range) -> AbsentOrConditionFailed:
    return AbsentOrConditionFailed(f"there is no key {_in_words(wanted, 1)}: nothing was deleted.")


def _in_words(wanted: Range, count: int) -> str:
    if wanted.prefix:
        return f"that {'begins' if count == 1 else 'begin'} with {name_of(wanted.prefix)}"
    sides = [f"{word} {name_of(bound)}" for word, bound in (("from", wanted.start), ("before", wanted.end)) if bound]
    return " and ".join(sides) if sides else "in this store"


def _keys(count: int) -> str:
    return "key" if count == 1 else "keys"
