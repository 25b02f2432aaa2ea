"""``POST /v1/txn``: compares and operations as one command.

Told: requests. Tells: a command to the replica, its results to the client. May never know: which branch it will be.
"""

from __future__ import annotations

from typing import Any, Final

import msgpack

from raftkv.api.actions import APPLIED_INDEX, NUMBERED, Action, Answer, Numbering
from raftkv.api.bodies import structured
from raftkv.api.exchange import Context, Decision, written
from raftkv.api.items import Form, form_of, item_raw, items_json
from raftkv.api.parameters import Schema
from raftkv.api.posts import post
from raftkv.api.ranges import ENCODING, PAGE_ITEMS, PAGE_ITEMS_MAX
from raftkv.api.requests import Request, numbering
from raftkv.api.responses import JSON, MSGPACK, Respond, Response, json_bytes
from raftkv.api.schemas import (
    BOOLEAN,
    NUMBER,
    REVISION,
    list_of,
    octets,
    one_of_both,
    reference,
    structure,
)
from raftkv.api.txn_fields import read_txn
from raftkv.kv.answers import (
    DeleteRangeResult,
    DeleteResult,
    PutResult,
    ReadKeyResult,
    ReadRangeResult,
    Result,
    TxnDone,
)
from raftkv.kv.commands import (
    BOUND_BYTES_MAX,
    COMMAND_KEYS_MAX,
    KEY_BYTES_MAX,
    OPERATIONS_MAX,
    Op,
    Put,
    Target,
    Txn,
    encode,
)
from raftkv.outcomes import WriteOutcome
from raftkv.problems import Code


def execute(context: Context, request: Request, _: bytes) -> Decision:
    """One branch is executed, whole, at one revision."""
    numbered = numbering(request)
    form = form_of(request, encoding=ENCODING.of(request))

    def act(fields: dict[str, Any], respond: Respond) -> None:
        txn = read_txn(fields, value_bytes_max=context.settings.max_value_bytes)

        def done(outcome: WriteOutcome) -> None:
            respond(written(context, request, outcome, lambda answer: _done(answer, form)))

        context.service.submit(encode(txn, numbered), done, frees_space=_puts_nothing(txn))

    return post(context, request, act)


def _puts_nothing(txn: Txn) -> bool:
    return not any(isinstance(operation, Put) for operation in (*txn.success, *txn.failure))


def _done(answer: Any, form: Form) -> Response:
    assert type(answer) is TxnDone, answer
    if form is Form.RAW:
        fields = {
            "succeeded": answer.succeeded,
            "results": [_result_raw(result) for result in answer.results],
            "revision": answer.revision,
        }
        return Response(200, MSGPACK, msgpack.packb(fields))
    succeeded = "true" if answer.succeeded else "false"
    results = ",".join([_result_json(result, form) for result in answer.results])
    return Response(
        200, JSON, f'{{"succeeded":{succeeded},"results":[{results}],"revision":{answer.revision}}}'.encode()
    )


def _result_json(result: Result, form: Form) -> str:
    match result:
        case ReadKeyResult(key, record):
            shown = [] if record is None else items_json([(key, record)], keys_only=False, form=form)
            return f'{{"get":{shown[0] if shown else "null"}}}'
        case ReadRangeResult(items, more, keys_only):
            shown = items_json(items, keys_only=keys_only, form=form)
            return f'{{"range":{{"items":[{",".join(shown)}],"more":{"true" if more else "false"}}}}}'
        case _:
            return json_bytes(_result_raw(result)).decode()


def _result_raw(result: Result) -> dict[str, Any]:
    match result:
        case PutResult(revision, version):
            return {"put": {"revision": revision, "version": version}}
        case DeleteResult(deleted):
            return {"delete": {"deleted": deleted}}
        case DeleteRangeResult(deleted, more):
            return {"delete_range": {"deleted": deleted, "more": more}}
        case ReadKeyResult(key, record):
            return {"get": None if record is None else item_raw(key, record, keys_only=False)}
        case ReadRangeResult(items, more, keys_only):
            shown = [item_raw(key, record, keys_only=keys_only) for key, record in items]
            return {"range": {"items": shown, "more": more}}


# ------------------------------------------------------------------------------------- as it is documented

_KEY: Final = octets("key", minLength=1, maxLength=KEY_BYTES_MAX)
_ALL_OPTIONAL: Final = ("key", "key_base64", "value", "value_base64", "operand", "operand_base64")


def _with_key(more: dict[str, Schema], *rules: Schema) -> Schema:
    return structure({**_KEY, **more}, optional=_ALL_OPTIONAL, allOf=[one_of_both("key"), *rules])


def _bounded(more: dict[str, Schema], *rules: Schema) -> Schema:
    bounds = {
        **octets("prefix", maxLength=KEY_BYTES_MAX),
        **octets("start", maxLength=BOUND_BYTES_MAX),
        **octets("end", minLength=1, maxLength=BOUND_BYTES_MAX),
    }
    exclusive: list[Schema] = [
        {"not": {"required": [prefix, bound]}}
        for prefix in ("prefix", "prefix_base64")
        for bound in ("start", "start_base64", "end", "end_base64")
    ]
    exclusive += [{"not": {"required": [name, f"{name}_base64"]}} for name in ("prefix", "start", "end")]
    return structure({**bounds, **more}, optional=(*bounds, *more), allOf=[*exclusive, *rules])


def _limit(most: int, default: int) -> Schema:
    return {"type": "integer", "minimum": 1, "maximum": most, "default": default}


_OPS: Final[Schema] = {"type": "string", "enum": [op.value for op in Op]}
_TARGETS: Final = [target.value for target in Target]
_COMPARE: Final[Schema] = {
    "description": "A claim about one key. Of an absent key version and revisions are 0, and its value is no value: "
    "any comparison with it is false. Values compare bytewise.",
    "oneOf": [
        _with_key({"target": {"const": "value"}, "op": _OPS, **octets("operand")}, one_of_both("operand")),
        _with_key(
            {
                "target": {"type": "string", "enum": [target for target in _TARGETS if target != "value"]},
                "op": _OPS,
                "operand": NUMBER,
            },
            {"required": ["operand"]},
        ),
    ],
}
_SOME_BOUND: Final[Schema] = {
    "anyOf": [
        *({"required": [name], "properties": {name: {"minLength": 1}}} for name in ("prefix", "prefix_base64")),
        *({"required": [name], "properties": {name: {"minLength": 1}}} for name in ("start", "start_base64")),
        *({"required": [name], "properties": {name: {"minLength": 1}}} for name in ("end", "end_base64")),
        {"required": ["all"], "properties": {"all": {"const": True}}},
    ]
}
_OPERATIONS: Final = {
    "put": _with_key(octets("value"), one_of_both("value")),
    "get": _with_key({}),
    "delete": _with_key({}),
    "range": _bounded({"limit": _limit(PAGE_ITEMS_MAX, PAGE_ITEMS), "reverse": BOOLEAN, "keys_only": BOOLEAN}),
    "delete_range": _bounded({"limit": _limit(COMMAND_KEYS_MAX, COMMAND_KEYS_MAX), "all": BOOLEAN}, _SOME_BOUND),
}
_OPERATION: Final[Schema] = {"oneOf": [structure({name: schema}) for name, schema in _OPERATIONS.items()]}
_RESULT: Final[Schema] = {
    "oneOf": [
        structure({"put": structure({"revision": REVISION, "version": NUMBER})}),
        structure({"get": {"oneOf": [{"type": "null"}, reference("Item")]}}),
        structure({"delete": structure({"deleted": NUMBER})}),
        structure({"range": structure({"items": list_of(reference("Item")), "more": BOOLEAN})}),
        structure({"delete_range": structure({"deleted": NUMBER, "more": BOOLEAN})}),
    ]
}
EXECUTE: Final[Action] = Action(
    execute,
    "Executes a transaction.",
    (
        Answer(
            200,
            "One branch was executed, whole and at one revision; its results are in the order of its operations.",
            structure({"succeeded": BOOLEAN, "results": list_of(_RESULT), "revision": REVISION}),
            (JSON, MSGPACK),
            (APPLIED_INDEX,),
        ),
    ),
    (*NUMBERED, Code.DUPLICATE_KEY),
    parameters=(ENCODING,),
    numbering=Numbering.TAKEN,
    body=structured(
        {
            name: {"type": "array", "items": schema, "maxItems": OPERATIONS_MAX}
            for name, schema in (("compare", _COMPARE), ("success", _OPERATION), ("failure", _OPERATION))
        },
        "If every comparison holds, success is executed, else failure: in order, each operation seeing those before "
        "it. A branch writes a key at most once. At most 128 operations in both branches together, as many compares, "
        "and 2 MiB of keys and values; as msgpack, keys, values, operands and bounds may be raw bytes.",
        bytes_max=lambda settings: settings.transaction_body_bytes_max,
    ),
)
