"""Writes to keys: ``PUT`` and ``DELETE /v1/kv/{key}``.

Told: a request with its key. Tells: commands to the replica, answers to the client. May never know: how a
command is replicated, or by whom it was applied.
"""

from __future__ import annotations

from typing import Any, Final

from raftkv.api.actions import APPLIED_INDEX, NUMBERED, Action, Answer, Conditions, Field, Numbering, Opening
from raftkv.api.exchange import Context, Decision, Pending, away_from_leader, etag, written
from raftkv.api.items import key_fields
from raftkv.api.problems import problem
from raftkv.api.requests import REVISION_TAG, Body, Request, key_of, numbering, refuse_large_body, write_condition
from raftkv.api.responses import OCTETS, Respond, Response, json_response
from raftkv.api.schemas import NUMBER, REVISION, octets, one_of_both, structure
from raftkv.kv.answers import ConditionFailed, DeleteDone, PutDone
from raftkv.kv.commands import KEY_BYTES_MAX, Delete, Put, encode
from raftkv.outcomes import WriteOutcome
from raftkv.problems import Code


def put(context: Context, request: Request, raw_key: bytes) -> Decision:
    """The body becomes the key's value."""
    key, expect, numbered = key_of(raw_key), write_condition(request), numbering(request)
    value_bytes_max = context.settings.max_value_bytes
    refuse_large_body(request, body_bytes_max=value_bytes_max)
    away = away_from_leader(context, request)
    if away is not None:
        return away

    def act(value: bytes, respond: Respond) -> None:
        def done(outcome: WriteOutcome) -> None:
            respond(written(context, request, outcome, lambda answer: put_answer(key, answer)))

        context.service.submit(encode(Put(key, value, expect), numbered), done)

    return Pending(value_bytes_max, act)


def delete(context: Context, request: Request, raw_key: bytes) -> Decision:
    """The key is gone, if it was there."""
    key, expect, numbered = key_of(raw_key), write_condition(request), numbering(request)
    away = away_from_leader(context, request)
    if away is not None:
        return away

    def act(_: bytes, respond: Respond) -> None:
        def done(outcome: WriteOutcome) -> None:
            respond(written(context, request, outcome, delete_answer))

        context.service.submit(encode(Delete(key, expect), numbered), done, frees_space=True)

    return Pending(0, act)


def put_answer(key: bytes, answer: Any) -> Response:
    """What the state machine said to a put, in words."""
    if type(answer) is ConditionFailed:
        return _condition_failed(answer)
    assert type(answer) is PutDone, answer
    fields = {
        **key_fields(key),
        "revision": answer.revision,
        "create_revision": answer.create_revision,
        "version": answer.version,
    }
    return json_response(201 if answer.created else 200, fields, etag(answer.revision))


def delete_answer(answer: Any) -> Response:
    """What the state machine said to a delete, in words."""
    if type(answer) is ConditionFailed:
        return _condition_failed(answer)
    assert type(answer) is DeleteDone, answer
    return json_response(200, {"deleted": answer.deleted, "revision": answer.revision})


def _condition_failed(answer: ConditionFailed) -> Response:
    return problem(
        Code.PRECONDITION_FAILED,
        "the key is not as the condition demands; nothing was changed",
        extra={"mod_revision": answer.mod_revision, "revision": answer.revision},
    )


KEY: Final[Opening] = Opening(
    "key",
    rb".*",
    {"type": "string", "minLength": 1, "maxLength": KEY_BYTES_MAX},
    f"Any 1 to {KEY_BYTES_MAX} bytes, percent-decoded once and never normalised; a plus is a plus, and a slash may be "
    "encoded or not. Encode the slashes around the segments . and .. where an HTTP library would rewrite them.",
)
ETAG: Final = Field("ETag", {"type": "string", "pattern": f"^{REVISION_TAG}$"}, "The key's mod revision.")
_KEY_PUT: Final = structure(
    {**octets("key"), "revision": REVISION, "create_revision": NUMBER, "version": NUMBER},
    optional=("key", "key_base64"),
    **one_of_both("key"),
)
PUT: Final[Action] = Action(
    put,
    "Sets a key to the body.",
    (
        Answer(201, "The key was absent, and has the value now.", _KEY_PUT, fields=(ETAG, APPLIED_INDEX)),
        Answer(200, "The key has the value now.", _KEY_PUT, fields=(ETAG, APPLIED_INDEX)),
    ),
    (*NUMBERED, Code.PRECONDITION_FAILED),
    conditions=Conditions.WRITE,
    numbering=Numbering.TAKEN,
    body=Body(
        (OCTETS,),
        {},
        lambda settings: settings.max_value_bytes,
        "The value: raw bytes, kept as they come. Content-Type is ignored.",
    ),
)
DELETE: Final[Action] = Action(
    delete,
    "Deletes a key.",
    (
        Answer(
            200,
            "The key is absent now; deleted is 0 where it was absent before.",
            structure({"deleted": {"type": "integer", "minimum": 0, "maximum": 1}, "revision": REVISION}),
            fields=(APPLIED_INDEX,),
        ),
    ),
    (*NUMBERED, Code.PRECONDITION_FAILED),
    conditions=Conditions.WRITE,
    numbering=Numbering.TAKEN,
)
