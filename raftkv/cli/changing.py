"""Seeing a change of members through: asking until it has ended, and showing how far it is meanwhile.

Told: what is to be asked of ``/v1/admin/members``. Tells: the answer at the end, or raises what it means. Asking again
does no harm: whoever asks for what is on its way waits for it, and what is there already is not done again. So no
answer that fails to come leaves anything open for long.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any, Final

from raftkv.cli.answers import decided
from raftkv.cli.asking import Cluster
from raftkv.cli.exchange import Answer, Request
from raftkv.cli.failures import Interrupted, OutcomeUnknown
from raftkv.cli.items import printable
from raftkv.cli.options import Shared
from raftkv.cli.patience import Patience

MEMBERS: Final = "/v1/admin/members"
WAIT_MS: Final = 1_000
"""So often it is told how far the change is."""
ANSWER_TIMEOUT_S: Final = 20.0
"""A new node may take 10 s to listen."""
FIND_S: Final = 15.0
"""For a leader to be found, each time."""
SILENT_S: Final = 60.0
"""After so long without a word of how far the change is, nobody waits any more."""
PAUSE_S: Final = 0.5
_BAR: Final = 20


def change(
    options: Shared, method: str, target: str = "", fields: Mapping[str, Any] | None = None, *, force: bool, what: str
) -> dict[str, Any]:
    """What the cluster answered when the change was over; ``what`` is being done, for whoever waits.

    Without --timeout it is waited for as long as the cluster works at it.
    """
    query = f"?wait_ms={WAIT_MS}" + ("&force=true" if force else "")
    body = None if fields is None else json.dumps(fields).encode()
    headers = {} if body is None else {"Content-Type": "application/json"}
    request = Request(method, MEMBERS + target + query, body, headers)
    with Patience(f"{what} …", is_quiet=options.wants_json) as patience:
        return _until_over(options, request, what, patience)


def _until_over(options: Shared, request: Request, what: str, patience: Patience) -> dict[str, Any]:
    began_s = heard_s = time.monotonic()
    was_begun = False
    while True:
        cluster = Cluster(
            options.urls(), patience_s=options.timeout_s or FIND_S, is_quiet=True, answer_timeout_s=ANSWER_TIMEOUT_S
        )
        try:
            answer = cluster.ask(request)
        except Interrupted:
            raise Interrupted(_goes_on(f"interrupted while {what}")) from None
        except OutcomeUnknown as error:
            why = error.message.partition(": whether")[0]
            if time.monotonic() - heard_s > SILENT_S:
                raise OutcomeUnknown(_goes_on(why)) from error
            patience.say(f"{what}: {why} …")
            was_begun = True
            time.sleep(PAUSE_S)
        else:
            if answer.status != 202:
                told = decided(answer).json()
                # What an earlier arrival of this very command did, it has changed too.
                return {**told, "changed": bool(told.get("changed")) or was_begun}
            was_begun, heard_s = True, time.monotonic()
            patience.say(f"{what}: {progress(answer)}")
        if options.timeout_s is not None and time.monotonic() - began_s > options.timeout_s:
            raise OutcomeUnknown(_goes_on(f"{what} takes longer than {options.timeout_s:g} s"))


def _goes_on(why: str) -> str:
    return (
        f"{why}: what was begun goes on without you. `raftkv member list` shows how far it is; the same command again "
        "waits for its end."
    )


def progress(answer: Answer) -> str:
    """How far the change is, in a line."""
    told = answer.json().get("change")
    if not isinstance(told, dict):
        return "almost done"
    return in_words(told)


def in_words(change: Mapping[str, Any]) -> str:
    """A change as the leader tells it."""
    joining = [one for one in change.get("joining") or () if isinstance(one, dict)]
    if change.get("phase") != "catching_up" or not joining:
        return {"joint": "old and new voters decide together"}.get(str(change.get("phase")), "almost done")
    last = change.get("last_index")
    parts = [_caught_up(one, last if isinstance(last, int) else 0) for one in joining]
    remaining_ms = change.get("remaining_ms")
    left = f", {remaining_ms // 1000} s left" if isinstance(remaining_ms, int) else ""
    return "; ".join(parts) + left


def calling_off(change: Mapping[str, Any]) -> str:
    """How whoever reads of this change may end it; nothing: it ends by itself."""
    joining = [one for one in change.get("joining") or () if isinstance(one, dict)]
    if change.get("phase") != "catching_up" or not joining:
        return ""
    return f"`raftkv member remove {printable(str(joining[0].get('id')))}` calls it off"


def _caught_up(one: Mapping[str, Any], last: int) -> str:
    id, match = printable(str(one.get("id"))), one.get("match_index")
    if not isinstance(match, int) or last <= 0:
        return f"{id} catches up"
    share = min(1.0, match / last)
    full = int(share * _BAR)
    return f"{id} catches up {'━' * full}{'╌' * (_BAR - full)} {share:.0%}, {match:,} of {last:,} entries"
