"""``GET /v1/diagnostics``: all that one node knows of its own troubles, never redirected.

Told: the node's own view. Tells: it, as JSON under the names of ``reports.py``. May never know: what other nodes
think; ``raftkv doctor`` puts the views side by side.
"""

from __future__ import annotations

from dataclasses import asdict, is_dataclass
from inspect import getdoc
from types import NoneType, UnionType
from typing import Any, Final, get_args, get_origin, get_type_hints

from raftkv.api.actions import Action, Answer, Numbering
from raftkv.api.exchange import Context, Decision
from raftkv.api.parameters import Schema
from raftkv.api.reports import Diagnostics
from raftkv.api.requests import Request
from raftkv.api.responses import json_response
from raftkv.api.schemas import BOOLEAN, NUMBER, TEXT, list_of, nullable, structure

_PLAIN: Final[dict[Any, Schema]] = {bool: BOOLEAN, int: NUMBER, str: TEXT}


def diagnostics(context: Context, _request: Request, _rest: bytes) -> Decision:
    """What this node knows of its own troubles."""
    return json_response(200, asdict(context.service.diagnostics()))


def schema_of(kind: Any) -> Schema:
    """How a report looks as JSON: its fields are the properties, its first line the description."""
    if is_dataclass(kind):
        properties = {name: schema_of(hint) for name, hint in get_type_hints(kind).items()}
        return structure(properties, description=(getdoc(kind) or "").partition("\n")[0])
    if get_origin(kind) is UnionType:
        (known,) = (part for part in get_args(kind) if part is not NoneType)
        return nullable(schema_of(known))
    if get_origin(kind) is tuple:
        return list_of(schema_of(get_args(kind)[0]))
    return _PLAIN[kind]


DIAGNOSTICS: Final[Action] = Action(
    diagnostics,
    "What this node knows of its own troubles.",
    (
        Answer(
            200,
            "Its links, disk, event loop, and what befell leadership; ages in milliseconds.",
            schema_of(Diagnostics),
        ),
    ),
    numbering=Numbering.IGNORED,
    description="`raftkv doctor` asks all nodes for this, and says in words what is wrong.",
)
