"""A snapshot of the node asked: ``POST /v1/admin/snapshot``. Never redirected: every node has its own.

Told: a request. Tells: what is asked of the node, and what became of it. May never know: files.
"""

from __future__ import annotations

from typing import Any, Final

from raftkv.api.actions import Action, Answer
from raftkv.api.bodies import structured
from raftkv.api.exchange import Context, Decision, retry_after
from raftkv.api.parameters import Parameter, WholeNumber
from raftkv.api.posts import post_here
from raftkv.api.problems import problem
from raftkv.api.requests import Request
from raftkv.api.responses import Respond, Response, json_response
from raftkv.api.schemas import BOOLEAN, NUMBER, structure
from raftkv.outcomes import SnapshotOutcome, SnapshotRefused, SnapshotTaken, SnapshotUnderWay, SnapshotWhy
from raftkv.problems import Code

WAIT_MS: Final = Parameter(
    "wait_ms",
    WholeNumber(0, 600_000),
    "After so long 202 is answered; the snapshot is finished all the same.",
    30_000,
)
_REFUSALS: Final = {
    SnapshotWhy.NOTHING_APPLIED: Code.NO_LEADER,
    SnapshotWhy.LOADING: Code.TOO_STALE,
    SnapshotWhy.DISK_FULL: Code.DISK_FULL,
    SnapshotWhy.FAILED: Code.INTERNAL,
    SnapshotWhy.REPLICAS_DISAGREE: Code.REPLICAS_DISAGREE,
    SnapshotWhy.SHUTTING_DOWN: Code.SHUTTING_DOWN,
}
_MAY_BE_ASKED_AGAIN: Final = (SnapshotWhy.NOTHING_APPLIED, SnapshotWhy.LOADING)


def take(context: Context, request: Request, _: bytes) -> Decision:
    """A snapshot of everything that is applied at this node is in place there, or on its way."""
    wait_ms = WAIT_MS.of(request)

    def act(_fields: dict[str, Any], respond: Respond) -> None:
        context.service.take_snapshot(lambda outcome: respond(_told(context, outcome)), wait_ms=wait_ms)

    return post_here(context, request, act)


def _told(context: Context, outcome: SnapshotOutcome) -> Response:
    match outcome:
        case SnapshotTaken():
            shown = {"changed": outcome.changed, "index": outcome.index, "bytes": outcome.size_bytes}
            return json_response(200, shown)
        case SnapshotUnderWay():
            return json_response(202, {"index": outcome.index})
        case SnapshotRefused():
            return not_taken(context, outcome)


def not_taken(context: Context, outcome: SnapshotRefused) -> Response:
    """Why there is no snapshot of now, and whether to ask again."""
    if outcome.why not in _MAY_BE_ASKED_AGAIN:
        return problem(_REFUSALS[outcome.why], f"no snapshot was taken: {outcome.text}")
    return problem(
        _REFUSALS[outcome.why],
        f"{outcome.text}; ask again soon",
        headers=retry_after(context),
        extra={"retry_after_ms": context.settings.retry_after_ms},
    )


TAKE: Final[Action] = Action(
    take,
    "Takes a snapshot of this node's state.",
    (
        Answer(
            200,
            "A snapshot of all that was applied when it was asked for is in place; changed is false if it was before.",
            structure({"changed": BOOLEAN, "index": NUMBER, "bytes": NUMBER}),
        ),
        Answer(
            202,
            "It is being written. Once snapshot_index in /v1/status has reached index, it is in place.",
            structure({"index": NUMBER}),
        ),
    ),
    tuple(_REFUSALS.values()),
    parameters=(WAIT_MS,),
    body=structured({}, "An empty object.", empty_needs_no_type=False),
)
