"""The leader's office: ``POST /v1/admin/leader``.

Told: requests. Tells: what is asked of the cluster, and what became of it. May never know: how it is done.
"""

from __future__ import annotations

from typing import Any, Final

from raftkv.api.actions import LEADERS, Action, Answer
from raftkv.api.bodies import structured
from raftkv.api.exchange import Context, Decision, to_leader
from raftkv.api.posts import post
from raftkv.api.problems import bad_request, problem
from raftkv.api.requests import Request
from raftkv.api.responses import Respond, Response, json_response
from raftkv.api.schemas import BOOLEAN, NUMBER, TEXT, structure
from raftkv.outcomes import TransferOutcome, Transferred, TransferWhy
from raftkv.problems import Code

_REFUSALS: Final = {
    TransferWhy.NO_SUCH_MEMBER: (Code.MEMBER_NOT_FOUND, "no member has this id"),
    TransferWhy.NOT_A_VOTER: (Code.BAD_REQUEST, "a learner cannot lead; promote it first"),
    TransferWhy.NO_OTHER_VOTER: (Code.MEMBER_UNREACHABLE, "no other voter could take over now"),
    TransferWhy.IN_PROGRESS: (Code.MEMBERSHIP_CHANGE_IN_PROGRESS, "another change is running; ask again after it"),
    TransferWhy.TIMED_OUT: (Code.OUTCOME_UNKNOWN, "the other node did not take over in time; it still may"),
}


def transfer_leadership(context: Context, request: Request, _: bytes) -> Decision:
    """The node that the body names leads, or without a name the best placed."""

    def act(fields: dict[str, Any], respond: Respond) -> None:
        target = _target(fields)
        context.service.transfer_leadership(target, lambda outcome: respond(_transferred(context, request, outcome)))

    return post(context, request, act)


def _target(fields: dict[str, Any]) -> str | None:
    target = fields.get("id")
    if target is None and "id" not in fields:
        return None
    if type(target) is not str or not target:
        raise bad_request("id is the id of a voter")
    return target


def _transferred(context: Context, request: Request, outcome: TransferOutcome) -> Response:
    if isinstance(outcome, Transferred):
        leader = {"id": outcome.leader_id, "url": outcome.leader_url}
        return json_response(200, {"changed": outcome.changed, "leader": leader, "term": outcome.term})
    if outcome.why is TransferWhy.NOT_LEADER:
        return to_leader(context, request, context.service.leadership())
    return problem(*_REFUSALS[outcome.why])


TRANSFER: Final[Action] = Action(
    transfer_leadership,
    "Hands leadership over.",
    (
        Answer(
            200,
            "That node leads now.",
            structure({"changed": BOOLEAN, "leader": structure({"id": TEXT, "url": TEXT}), "term": NUMBER}),
        ),
    ),
    (*LEADERS, *(code for code, _ in _REFUSALS.values())),
    body=structured(
        {"id": {"type": "string", "minLength": 1}},
        "The voter that is to lead; without an id, the best placed.",
        empty_needs_no_type=False,
    ),
)
