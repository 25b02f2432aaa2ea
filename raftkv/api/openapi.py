"""``/v1/openapi.json``: the API as OpenAPI 3.1 describes it, made of the route table.

Told: the routes, the settings of this node. Tells: the document. May never know: a request.

The closed list of codes stands under ``x-raftkv-codes``, the limits under ``x-raftkv-limits``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from raftkv import __version__
from raftkv.api.actions import ALWAYS_POSSIBLE, DUPLICATE, Action, Answer, Conditions, Field, Numbering, Route
from raftkv.api.exchange import Context, Decision
from raftkv.api.parameters import Schema
from raftkv.api.reads import PROVENANCE
from raftkv.api.requests import REVISION_TAG, Body, Request
from raftkv.api.responses import JSON, PROBLEM, Response
from raftkv.api.schemas import NUMBER, SESSION, SHARED, TEXT, reference
from raftkv.api.settings import ApiSettings
from raftkv.http.heads import HEAD_BYTES_MAX, TARGET_BYTES_MAX
from raftkv.kv.commands import COMMAND_BYTES_MAX, COMMAND_KEYS_MAX, KEY_BYTES_MAX, NUMBER_MAX, OPERATIONS_MAX
from raftkv.problems import Code

VERSION: Final = "3.1.0"

_DESCRIPTION: Final = """\
A replicated key-value store. Any node may be asked: one that does not lead answers 307 where the leader is needed.

A failure is application/problem+json with a code of a closed list (x-raftkv-codes). It speaks of this arrival only. \
2xx, 404 and 412 are decided. 307, the other 4xx, 503 and 507 with a code: this arrival changed nothing and never \
will. 504 outcome_unknown, 500, a 5xx without a code, a connection that broke: it may have happened or may happen yet; \
repeat it only with the same Raftkv-Session and Raftkv-Sequence.

Unknown query parameters, conditions where none are taken and unknown fields of bodies are 400. Raftkv-Session and \
Raftkv-Sequence go together; If-Match and If-None-Match of a write exclude each other. Accept chooses between JSON and \
msgpack where both are listed, and is ignored elsewhere."""

_COMMON: Final = (
    Field("Raftkv-Node", TEXT, "The id of the node that answers."),
    Field("Cache-Control", {"const": "no-store"}, "Nothing is to be kept."),
    Field("X-Content-Type-Options", {"const": "nosniff"}, "Nothing is to be guessed."),
)
_CODE_FIELDS: Final = {
    Code.NOT_LEADER: Field("Location", {"type": "string", "format": "uri"}, "The same path and query at the leader."),
    Code.METHOD_NOT_ALLOWED: Field("Allow", TEXT, "The methods that the route has."),
}
_MAY_NAME_A_TIME: Final = (429, 503)
_RETRY_AFTER: Final = Field("Retry-After", NUMBER, "Seconds; retry_after_ms in the body is exact.", always=False)
_APPLIED_SO_FAR: Final = Field("Raftkv-Applied-Index", NUMBER, "The log index that the answer reflects.", always=False)

_CONDITIONS: Final[dict[Conditions, tuple[Field, ...]]] = {
    Conditions.NONE: (),
    Conditions.READ: (
        Field("If-None-Match", {"type": "string", "pattern": f"^{REVISION_TAG}$"}, "304 if the key still has it."),
    ),
    Conditions.CONFIGURATION: (
        Field(
            "If-Match",
            {"type": "string", "pattern": r'^(?:\*|"(?:0|[1-9][0-9]{0,18})")$'},
            "The configuration that is to be replaced, as the ETag of the members has it, or * for any.",
        ),
    ),
    Conditions.WRITE: (
        Field(
            "If-Match",
            {"type": "string", "pattern": rf"^(?:\*|{REVISION_TAG})$"},
            "The mod revision that the key must have, or * for any: it must be present.",
        ),
        Field("If-None-Match", {"type": "string", "enum": ["*"]}, "The key must be absent."),
    ),
}
_POSITIVE: Final = {**NUMBER, "minimum": 1}
_NUMBERING: Final = (
    Field("Raftkv-Session", SESSION, "With Raftkv-Sequence: the write is executed at most once."),
    Field("Raftkv-Sequence", _POSITIVE, "1, 2, 3 …; several may be in flight, in any order."),
    Field("Raftkv-Acknowledged", NUMBER, "All answers up to this number may be forgotten."),
)


def document(context: Context, _request: Request, _rest: bytes) -> Decision:
    """The document, rendered once."""
    return Response(200, JSON, context.document())


DOCUMENT: Final[Action] = Action(
    document,
    "This document.",
    (Answer(200, "OpenAPI 3.1.", {"type": "object", "required": ["openapi", "info", "paths"]}),),
    numbering=Numbering.IGNORED,
)


def render(routes: Iterable[Route], settings: ApiSettings) -> dict[str, Any]:
    """The whole document."""
    routes = tuple(routes)
    actions = [action for route in routes for action in route.actions.values()]
    return {
        "openapi": VERSION,
        "info": {
            "title": "raftkv",
            "version": __version__,
            "description": _DESCRIPTION,
            "license": {"name": "Apache License 2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "The node asked."}],
        "paths": {route.path: _path(route, settings) for route in routes},
        "components": {
            "schemas": SHARED,
            "headers": {field.name: _header(field) for field in _COMMON},
            "responses": {
                _name(codes): _problem_response(status, codes)
                for action in actions
                for status, codes in codes_by_status(action).items()
            },
        },
        "x-raftkv-codes": {code.text: {"status": code.status, "title": code.title} for code in Code},
        "x-raftkv-limits": limits(settings),
    }


def limits(settings: ApiSettings) -> dict[str, int]:
    """What a client must keep to."""
    return {
        "key_bytes_max": KEY_BYTES_MAX,
        "value_bytes_max": settings.max_value_bytes,
        "head_bytes_max": HEAD_BYTES_MAX,
        "target_bytes_max": TARGET_BYTES_MAX,
        "structured_body_bytes_max": settings.structured_body_bytes_max,
        "command_bytes_max": COMMAND_BYTES_MAX,
        "command_keys_max": COMMAND_KEYS_MAX,
        "transaction_operations_max": OPERATIONS_MAX,
        "number_max": NUMBER_MAX,
        "stream_message_bytes_max": settings.stream_message_bytes_max,
    }


def codes_by_status(action: Action) -> dict[int, tuple[Code, ...]]:
    """Every code that the action may fail with, in the order of the closed list."""
    possible = {*ALWAYS_POSSIBLE, *action.codes}
    found: dict[int, tuple[Code, ...]] = {}
    for code in Code:
        if code in possible:
            found[code.status] = (*found.get(code.status, ()), code)
    return found


def _path(route: Route, settings: ApiSettings) -> dict[str, Any]:
    item: dict[str, Any] = {
        method.lower(): _operation(route, method, action, settings) for method, action in route.actions.items()
    }
    if route.opening is None:
        return item
    opening = route.opening
    return {
        "parameters": [
            {
                "name": opening.name,
                "in": "path",
                "required": True,
                "description": opening.description,
                "schema": opening.schema,
            }
        ],
        **item,
    }


def _operation(route: Route, method: str, action: Action, settings: ApiSettings) -> dict[str, Any]:
    words = [word.strip("{}") for word in route.path.replace(".", "/").split("/") if word]
    operation: dict[str, Any] = {"operationId": "_".join([method.lower(), *words]), "summary": action.summary}
    if action.description:
        operation["description"] = action.description
    parameters = [
        {"name": one.name, "in": "query", "description": one.description, "schema": one.schema}
        for one in action.parameters
    ]
    fields = _CONDITIONS[action.conditions] + (_NUMBERING if action.numbering is Numbering.TAKEN else ())
    parameters += [{"name": one.name, "in": "header", **_header(one, required=False)} for one in fields]
    if parameters:
        operation["parameters"] = parameters
    if action.body is not None:
        operation["requestBody"] = _request_body(action.body, settings)
    operation["responses"] = {
        **{str(answer.status): _response(action, answer) for answer in action.answers},
        **{
            str(status): {"$ref": f"#/components/responses/{_name(codes)}"}
            for status, codes in codes_by_status(action).items()
        },
    }
    return operation


def _request_body(body: Body, settings: ApiSettings) -> dict[str, Any]:
    size = f" At most {body.bytes_max(settings)} bytes."
    return {
        "description": body.description + size,
        "required": "required" in body.schema or not body.empty_needs_no_type,
        "content": {content_type: {"schema": body.schema} for content_type in body.content_types},
    }


def _response(action: Action, answer: Answer) -> dict[str, Any]:
    fields = (*answer.fields, DUPLICATE) if action.numbering is Numbering.TAKEN else answer.fields
    found: dict[str, Any] = {"description": answer.description, "headers": _headers(fields)}
    if answer.content_types:
        found["content"] = {name: _content(name, answer.schema) for name in answer.content_types}
    return found


def _content(content_type: str, schema: Schema | None) -> dict[str, Any]:
    return {"schema": schema} if content_type == JSON and schema is not None else {}


def _problem_response(status: int, codes: tuple[Code, ...]) -> dict[str, Any]:
    fields = [*(_CODE_FIELDS[code] for code in codes if code in _CODE_FIELDS), _APPLIED_SO_FAR, DUPLICATE]
    if Code.KEY_NOT_FOUND in codes:
        fields += PROVENANCE
    if status in _MAY_NAME_A_TIME:
        fields.append(_RETRY_AFTER)
    narrowed = {"properties": {"status": {"const": status}, "code": {"enum": [code.text for code in codes]}}}
    return {
        "description": " ".join(f"{code.text}: {code.title}." for code in codes),
        "headers": _headers(fields),
        "content": {PROBLEM: {"schema": {"allOf": [reference("Problem"), narrowed]}}},
    }


def _name(codes: tuple[Code, ...]) -> str:
    return "-".join(code.text for code in codes)


def _headers(fields: Iterable[Field]) -> dict[str, Any]:
    common = {field.name: {"$ref": f"#/components/headers/{field.name}"} for field in _COMMON}
    return common | {field.name: _header(field) for field in fields}


def _header(field: Field, *, required: bool | None = None) -> dict[str, Any]:
    return {
        "description": field.description,
        "required": field.always if required is None else required,
        "schema": field.schema,
    }
