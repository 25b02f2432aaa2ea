"""The JSON Schemas that several actions share, for the OpenAPI document.

Told: nothing. Tells: schemas. May never know: which action uses which.
"""

from __future__ import annotations

from typing import Any, Final

from raftkv.api.parameters import Schema
from raftkv.api.requests import SESSION_ID
from raftkv.kv.commands import NUMBER_MAX
from raftkv.problems import TYPE_PREFIX, Code

BASE64_PATTERN: Final = "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"
"""RFC 4648 section 4, padded."""

TEXT: Final[Schema] = {"type": "string"}
BOOLEAN: Final[Schema] = {"type": "boolean"}
NUMBER: Final[Schema] = {"type": "integer", "minimum": 0, "maximum": NUMBER_MAX}
REVISION: Final[Schema] = {**NUMBER, "description": "The store's revision: one more with each command that changes it."}
SESSION: Final[Schema] = {"type": "string", "pattern": f"^{SESSION_ID}$"}


def structure(properties: dict[str, Schema], *, optional: tuple[str, ...] = (), **more: Any) -> Schema:
    """An object with these properties and no others."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False, **more}


def nullable(schema: Schema) -> Schema:
    """That, or null."""
    return {**schema, "type": [schema["type"], "null"]}


def list_of(schema: Schema) -> Schema:
    """Any number of those."""
    return {"type": "array", "items": schema}


def reference(name: str) -> Schema:
    """The schema of that name in ``SHARED``."""
    assert name in SHARED, name
    return {"$ref": f"#/components/schemas/{name}"}


def nullable_reference(name: str) -> Schema:
    """That, or null."""
    return {"oneOf": [reference(name), {"type": "null"}]}


def octets(name: str, **bounds: int) -> dict[str, Schema]:
    """The two properties in which bytes come: as text, or in base64."""
    encoded = {"type": "string", "contentEncoding": "base64", "pattern": BASE64_PATTERN}
    return {name: {**TEXT, **bounds}, f"{name}_base64": encoded}


def one_of_both(name: str) -> Schema:
    """Exactly one of them is there."""
    return {"oneOf": [{"required": [name]}, {"required": [f"{name}_base64"]}]}


_ITEM: Final = structure(
    {**octets("key"), **octets("value"), "create_revision": NUMBER, "mod_revision": NUMBER, "version": NUMBER},
    optional=("key", "key_base64", "value", "value_base64"),
    description="A key and what it holds. What is no UTF-8 comes in base64; with keys_only there is no value.",
    allOf=[one_of_both("key"), {"not": {"required": ["value", "value_base64"]}}],
)
_MEMBER: Final = structure(
    {"id": TEXT, "url": nullable(TEXT), "match_index": nullable(NUMBER), "last_contact_ms": nullable(NUMBER)},
    description="A member; what only the leader knows is null elsewhere.",
)
_CHANGE: Final = structure(
    {
        "phase": {"type": "string", "enum": ["catching_up", "joint", "leaving"]},
        "joining": list_of(structure({"id": TEXT, "match_index": nullable(NUMBER)})),
        "leaving": list_of(TEXT),
        "demoted": list_of(TEXT),
        "remaining_ms": nullable(NUMBER),
        "last_index": NUMBER,
    },
    description="A change of members that is running: who is to vote and how far its log is, against the end of the "
    "log of the node that tells; who goes; who becomes a learner; after how long those that have not caught up are "
    "taken out again (null: no more).",
)
_PROBLEM: Final[Schema] = {
    "type": "object",
    "description": "RFC 9457, with a code of a closed list; some codes have members of their own.",
    "properties": {
        "type": {"type": "string", "pattern": f"^{TYPE_PREFIX}[a-z_]+$"},
        "title": TEXT,
        "status": {"type": "integer"},
        "detail": TEXT,
        "code": {"type": "string", "enum": [code.text for code in Code]},
        "leader": structure({"id": TEXT, "url": TEXT}),
        "term": NUMBER,
        "retry_after_ms": NUMBER,
        "revision": REVISION,
        "mod_revision": NUMBER,
        "configuration_index": NUMBER,
        "called_off": BOOLEAN,
        "applied_index": NUMBER,
        "staleness_ms": nullable(NUMBER),
        "min_index": NUMBER,
        "max_staleness_ms": nullable(NUMBER),
        "reasons": list_of(structure({"code": TEXT, "detail": TEXT})),
    },
    "required": ["type", "title", "status", "detail", "code"],
}

SHARED: Final[dict[str, Schema]] = {"Change": _CHANGE, "Item": _ITEM, "Member": _MEMBER, "Problem": _PROBLEM}
