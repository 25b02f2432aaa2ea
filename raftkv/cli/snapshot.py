"""``snapshot``: every node that is named keeps its state as a file, and needs less of its log."""

from __future__ import annotations

from typing import Any, Final

import click

from raftkv.cli.answers import decided, unlike_ours
from raftkv.cli.commands import command
from raftkv.cli.exchange import Answer, BrokenOff, NotSent, Request, exchange
from raftkv.cli.failures import CommandFailed, OutcomeUnknown, Unreachable
from raftkv.cli.items import printable
from raftkv.cli.options import Shared, print_json, shared_options
from raftkv.cli.patience import Patience

WAIT_MS_MAX: Final = 600_000
"""A node waits no longer for its own snapshot."""
_ANSWER_S: Final = 5.0
"""For the answer itself, beyond what the snapshot may take."""
_NOT_NOW: Final = frozenset({"no_leader", "too_stale", "shutting_down", "overloaded"})
"""Codes of a node that has nothing to keep, or no room for another request."""
_MIB: Final = 1024 * 1024


@command(
    examples=(
        "raftkv snapshot",
        "raftkv snapshot --endpoints http://127.0.0.1:7402",
        "raftkv snapshot --timeout 120 --output json",
    )
)
@shared_options
def snapshot(options: Shared) -> None:
    """Take a snapshot now, on every node that is named.

    Nodes take them by themselves, as their log grows; this is for before a stop, or to free disk. One node after the
    other does it, while all go on serving. A snapshot that has everything already is left as it is.
    """
    taken: list[dict[str, Any]] = []
    failures: list[CommandFailed] = []
    for url in options.urls():
        try:
            taken.append(_take(url, options))
        except CommandFailed as failure:
            failures.append(failure)
    if options.wants_json:
        print_json({"snapshots": taken})
    else:
        for one in taken:
            click.echo(_line(one))
    if failures:
        more = f" So it was at {len(failures) - 1} more." if len(failures) > 1 else ""
        raise failures[0].adding(more.strip()) if more else failures[0]


def _take(url: str, options: Shared) -> dict[str, Any]:
    """What the node has now; raises what stands in the way."""
    wait_ms = min(WAIT_MS_MAX, int(options.patience_s * 1000))
    headers = {"Content-Type": "application/json"}
    request = Request("POST", f"/v1/admin/snapshot?wait_ms={wait_ms}", b"{}", headers)
    with Patience(f"{url} takes a snapshot …", is_quiet=options.wants_json):
        try:
            answer = exchange(url, request, timeout_s=wait_ms / 1000 + _ANSWER_S)
        except NotSent as error:
            raise Unreachable(f"no node answers at {url} ({error}); it has no new snapshot.") from error
        except BrokenOff as error:
            raise OutcomeUnknown(
                f"{url} broke off ({error}): whether it has a snapshot now shows `raftkv status --output json`."
            ) from error
    if answer.code in _NOT_NOW:
        raise Unreachable(f"{url} can take no snapshot now: {printable(answer.explanation)}. Try again soon.")
    return _told(decided(answer))


def _told(answer: Answer) -> dict[str, Any]:
    said = answer.json()
    index, size_bytes = said.get("index"), said.get("bytes")
    if answer.status == 202:
        raise OutcomeUnknown(
            f"{answer.url} is still writing its snapshot, and goes on with it. Wait for longer with --timeout, or see "
            f"its snapshot_index in `raftkv status --output json`, which then is {index} or more."
        )
    if type(index) is not int or type(size_bytes) is not int:
        raise unlike_ours(answer, "no snapshot in its answer")
    node = printable(answer.headers.get("raftkv-node", ""))
    return {"node": node, "url": answer.url, "changed": said.get("changed"), "index": index, "bytes": size_bytes}


def _line(one: dict[str, Any]) -> str:
    had = "" if one["changed"] else ", which it had already"
    return f"{one['node'] or one['url']} has a snapshot up to index {one['index']}, {one['bytes'] / _MIB:.1f} MiB{had}"
