"""Who is a member: ``/v1/admin/members`` and ``/v1/admin/members/{id}``, the leader's.

Told: requests. Tells: what is wished of the cluster's members, and what became of it. May never know: how nodes join,
catch up and leave.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from raftkv.api.actions import LEADERS, READS, Action, Answer, Conditions, Field, Numbering, Opening
from raftkv.api.bodies import structured
from raftkv.api.exchange import Context, Decision, Pending, away_from_leader, etag, to_leader
from raftkv.api.parameters import Parameter, Schema, Switch, WholeNumber
from raftkv.api.posts import post
from raftkv.api.problems import bad_request, problem
from raftkv.api.reads import PROVENANCE, Freshness, read
from raftkv.api.requests import IF_MATCH, IF_NONE_MATCH, Request, percent_decoded, shown
from raftkv.api.responses import Respond, Response, json_response
from raftkv.api.schemas import BOOLEAN, list_of, nullable_reference, reference, structure
from raftkv.api.status import change_fields, member_fields
from raftkv.kv.commands import NUMBER_MAX
from raftkv.kv.queries import Revision
from raftkv.members import (
    Add,
    Alter,
    Become,
    MembersAre,
    MembersOutcome,
    MembersRefused,
    MembersWhy,
    Named,
    Remove,
    StillChanging,
    Terms,
    Wish,
)
from raftkv.outcomes import Consistency
from raftkv.problems import Code
from raftkv.values import parse_node_id, parse_url

WAIT_MS_MAX: Final = 600_000
_ROLES: Final = {"voter": True, "learner": False}
_TAG: Final = re.compile(rb'"(0|[1-9][0-9]{0,18})"')
_CODES: Final = {
    MembersWhy.BAD: Code.BAD_REQUEST,
    MembersWhy.NO_SUCH_MEMBER: Code.MEMBER_NOT_FOUND,
    MembersWhy.EXISTS: Code.MEMBER_EXISTS,
    MembersWhy.UNREACHABLE: Code.MEMBER_UNREACHABLE,
    MembersWhy.WRONG_CLUSTER: Code.WRONG_CLUSTER,
    MembersWhy.QUORUM_AT_RISK: Code.QUORUM_AT_RISK,
    MembersWhy.IN_PROGRESS: Code.MEMBERSHIP_CHANGE_IN_PROGRESS,
    MembersWhy.OTHER_CONFIGURATION: Code.PRECONDITION_FAILED,
    MembersWhy.SHUTTING_DOWN: Code.SHUTTING_DOWN,
    MembersWhy.CATCH_UP_FAILED: Code.CATCH_UP_FAILED,
    MembersWhy.CALLED_OFF: Code.CATCH_UP_FAILED,
    MembersWhy.SUPERSEDED: Code.SUPERSEDED,
    MembersWhy.UNKNOWN: Code.OUTCOME_UNKNOWN,
}
WAIT_MS: Final = Parameter(
    "wait_ms",
    WholeNumber(0, WAIT_MS_MAX),
    "How long to wait for the change's end; then 202 tells how far it is, and it goes on.",
    Terms().wait_ms,
)
FORCE: Final = Parameter(
    "force",
    Switch(),
    "true: also if afterwards fewer than a majority of the voters would answer.",
    default=False,
)


def members(context: Context, request: Request, _: bytes) -> Decision:
    """The members, as a leader knows them that a majority has just confirmed."""

    def answered(_revision: Any) -> Response:
        return _shown(context, 200, {})

    return read(context, request, Revision(), Freshness(Consistency.LINEARIZABLE, 0, None), answered)


def add(context: Context, request: Request, _: bytes) -> Decision:
    """The node that the body names becomes a member."""

    def wish(fields: dict[str, Any]) -> Wish:
        return Add(_named(fields), _votes(fields.get("role", "voter")))

    return _post(context, request, wish)


def become(context: Context, request: Request, _: bytes) -> Decision:
    """The members are exactly those that the body names."""
    expected_index = _expected_index(request)

    def wish(fields: dict[str, Any]) -> Wish:
        return Become(_list(fields, "voters"), _list(fields, "learners"), expected_index)

    return _post(context, request, wish)


def alter(context: Context, request: Request, raw_id: bytes) -> Decision:
    """The member has the role and the address that the body names."""
    id = _id_of(raw_id)

    def wish(fields: dict[str, Any]) -> Wish:
        if not fields:
            raise bad_request("say what is to change: role, url or both")
        votes = _votes(fields["role"]) if "role" in fields else None
        return Alter(id, votes, _url(fields["url"]) if "url" in fields else None)

    return _post(context, request, wish)


def remove(context: Context, request: Request, raw_id: bytes) -> Decision:
    """The member is none any more."""
    id = _id_of(raw_id)
    away = away_from_leader(context, request)
    if away is not None:
        return away
    return Pending(0, lambda _, respond: _change(context, request, Remove(id), respond))


def _post(context: Context, request: Request, wish: Callable[[dict[str, Any]], Wish]) -> Decision:
    return post(context, request, lambda fields, respond: _change(context, request, wish(fields), respond))


def _change(context: Context, request: Request, wish: Wish, respond: Respond) -> None:
    terms = Terms(WAIT_MS.of(request), FORCE.of(request))
    context.service.change_members(wish, terms, lambda outcome: respond(_changed(context, request, outcome)))


def _changed(context: Context, request: Request, outcome: MembersOutcome) -> Response:
    match outcome:
        case MembersAre(changed):
            return _shown(context, 200, {"changed": changed})
        case StillChanging():
            change = context.service.status().change
            return _shown(context, 202, {"change": None if change is None else change_fields(change)})
        case MembersRefused():
            return _refused(context, request, outcome)


def _refused(context: Context, request: Request, refused: MembersRefused) -> Response:
    if refused.why is MembersWhy.NOT_LEADER:
        return to_leader(context, request, refused.leadership or context.service.leadership())
    extra: dict[str, Any] | None = None
    if refused.why is MembersWhy.OTHER_CONFIGURATION:
        extra = {"configuration_index": context.service.status().configuration_index}
    elif refused.why is MembersWhy.CALLED_OFF:
        extra = {"called_off": True}
    return problem(_CODES[refused.why], refused.text, extra=extra)


def _shown(context: Context, status: int, fields: dict[str, Any]) -> Response:
    now = context.service.status()
    shown = {
        **fields,
        "voters": [member_fields(voter) for voter in now.voters],
        "learners": [member_fields(learner) for learner in now.learners],
    }
    return json_response(status, shown, etag(now.configuration_index))


# ----------------------------------------------------------------------------------------- what is read


def _id_of(raw: bytes) -> str:
    try:
        return parse_node_id(percent_decoded(raw).decode("ascii"))
    except ValueError:
        raise bad_request(f"{shown(raw)} is no node's id: 1 to 64 of A-Z a-z 0-9 . _ -") from None


def _list(fields: dict[str, Any], name: str) -> tuple[Named, ...]:
    listed = fields.get(name, [])
    if type(listed) is not list or (name == "voters" and not listed):
        raise bad_request(f"{name} is a list of objects with id and url; somebody must vote")
    for one in listed:
        if type(one) is not dict or set(one) != {"id", "url"}:
            raise bad_request(f"each of {name} is an object with id and url, and nothing else")
    return tuple(_named(one) for one in listed)


def _named(fields: dict[str, Any]) -> Named:
    for name in ("id", "url"):
        if name not in fields:
            raise bad_request(f"{name} is missing")
    try:
        return Named(parse_node_id(fields["id"]), _url(fields["url"]))
    except ValueError as error:
        raise bad_request(str(error)) from None


def _url(value: Any) -> str:
    try:
        return parse_url(value)
    except ValueError as error:
        raise bad_request(str(error)) from None


def _votes(role: Any) -> bool:
    votes = _ROLES.get(role) if type(role) is str else None
    if votes is None:
        raise bad_request("role is voter or learner")
    return votes


def _expected_index(request: Request) -> int | None:
    """Which configuration a PUT is to replace; None: whichever there is."""
    if IF_NONE_MATCH in request.headers:
        raise bad_request("of the members there is always some configuration: only If-Match is taken here")
    tag = request.headers.get(IF_MATCH)
    if tag is None or tag == b"*":
        return None
    found = _TAG.fullmatch(tag)
    if found is None or int(found[1]) > NUMBER_MAX:
        raise bad_request(f'If-Match takes one strong tag, "<configuration index>" with its quotes, not {shown(tag)}')
    return int(found[1])


# -------------------------------------------------------------------------------------- what is documented

_ID: Final[Schema] = {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"}
_PORT: Final = "(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
_URL: Final[Schema] = {"type": "string", "pattern": f"^http://[A-Za-z0-9.-]{{1,253}}:{_PORT}/?$"}
_ROLE: Final[Schema] = {"type": "string", "enum": list(_ROLES)}
_NAMED: Final[Schema] = structure({"id": _ID, "url": _URL})
_MEMBERS: Final = {"voters": list_of(reference("Member")), "learners": list_of(reference("Member"))}
_ETAG: Final = Field("ETag", {"type": "string", "pattern": '^"(?:0|[1-9][0-9]*)"$'}, "The configuration's index.")
_ANSWERS: Final = (
    Answer(
        200,
        "The members are so, and that is committed; changed is false where they were so already.",
        structure({"changed": BOOLEAN, **_MEMBERS}),
        fields=(_ETAG,),
    ),
    Answer(
        202,
        "The change goes on; ask for the same again to wait for its end.",
        structure({"change": nullable_reference("Change"), **_MEMBERS}),
        fields=(_ETAG,),
    ),
)
_CHANGES: Final = (
    *LEADERS,
    Code.MEMBERSHIP_CHANGE_IN_PROGRESS,
    Code.QUORUM_AT_RISK,
    Code.SUPERSEDED,
    Code.OUTCOME_UNKNOWN,
)
_JOINS: Final = (Code.MEMBER_EXISTS, Code.MEMBER_UNREACHABLE, Code.WRONG_CLUSTER, Code.CATCH_UP_FAILED)
_PARAMETERS: Final = (WAIT_MS, FORCE)

ID: Final[Opening] = Opening("id", rb"[^/]*", _ID, "The member's id.")
MEMBERS: Final[Action] = Action(
    members,
    "The members, as the leader knows them.",
    (
        Answer(
            200, "Voters and learners of the configuration in force.", structure(_MEMBERS), fields=(_ETAG, *PROVENANCE)
        ),
    ),
    READS,
    numbering=Numbering.IGNORED,
)
ADD: Final[Action] = Action(
    add,
    "Adds a member.",
    _ANSWERS,
    (*_CHANGES, *_JOINS, Code.TOO_LARGE),
    _PARAMETERS,
    body=structured(
        {"id": _ID, "url": _URL, "role": _ROLE},
        "The node, where other nodes reach it, and whether it is to vote: voter (the default) or learner.",
        required=("id", "url"),
        empty_needs_no_type=False,
    ),
    description="The node is asked who it is for up to 10 s. It joins as a learner, catches up, and votes by itself.",
)
BECOME: Final[Action] = Action(
    become,
    "Sets the whole membership at once.",
    _ANSWERS,
    (*_CHANGES, *_JOINS, Code.PRECONDITION_FAILED, Code.TOO_LARGE),
    _PARAMETERS,
    conditions=Conditions.CONFIGURATION,
    body=structured(
        {"voters": {**list_of(_NAMED), "minItems": 1}, "learners": list_of(_NAMED)},
        "Who is to vote, and who is only to receive the log.",
        required=("voters",),
        empty_needs_no_type=False,
    ),
)
REMOVE: Final[Action] = Action(
    remove,
    "Removes a member.",
    _ANSWERS,
    _CHANGES,
    _PARAMETERS,
    description="The leader hands over before it removes itself, and answers 307 to the new one. A node that is being "
    "added and still catches up is let go at once: that calls the change off, and whoever waits for it is told 409.",
)
ALTER: Final[Action] = Action(
    alter,
    "Changes a member's role or address.",
    _ANSWERS,
    (*_CHANGES, *_JOINS, Code.MEMBER_NOT_FOUND, Code.TOO_LARGE),
    _PARAMETERS,
    body=structured(
        {"role": _ROLE, "url": _URL},
        "voter or learner; where other nodes reach it now.",
        empty_needs_no_type=False,
    ),
)
