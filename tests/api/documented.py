"""Every answer that a contract test gets is held against the OpenAPI document: what is answered is documented.

The document is read here as any client would read it, without the route table that it is made of.
"""

from __future__ import annotations

import json
import re
from functools import cache
from typing import TYPE_CHECKING, Any

import jsonschema_rs

from raftkv.api.openapi import render
from raftkv.api.routes import ROUTES
from raftkv.api.settings import ApiSettings

if TYPE_CHECKING:
    from tests.api.fronts import Answer

ANYWHERE = {400, 404, 405, 408, 414, 429, 431, 500, 503}
"""What may be said where no operation is met."""


@cache
def document() -> dict[str, Any]:
    return json.loads(json.dumps(render(ROUTES, ApiSettings())))


@cache
def _paths() -> list[tuple[re.Pattern[str], dict[str, Any]]]:
    """Literal paths first, as OpenAPI has it."""
    patterns = {path: re.sub(r"\\\{key\\\}", ".*", re.escape(path)) for path in document()["paths"]}
    patterns = {path: re.sub(r"\\\{\w+\\\}", "[^/]+", pattern) for path, pattern in patterns.items()}
    ordered = sorted(patterns, key=lambda path: "{" in path)
    return [(re.compile(patterns[path]), document()["paths"][path]) for path in ordered]


def operation_of(method: str, target: bytes) -> dict[str, Any] | None:
    path = target.partition(b"?")[0].decode("latin-1")
    for pattern, item in _paths():
        if pattern.fullmatch(path):
            return item.get(method.lower())
    return None


def complaint_about(method: str, target: bytes, answer: Answer) -> str | None:
    """What the document does not tell of this answer; None: it tells all of it."""
    operation = operation_of(method, target)
    if operation is None:
        return None if answer.status in ANYWHERE else f"no operation of the document answers {answer.status}"
    response = operation["responses"].get(str(answer.status))
    if response is None:
        return f"{answer.status} is not documented"
    if "$ref" in response:
        response = document()["components"]["responses"][response["$ref"].rsplit("/", 1)[1]]
    return _about_headers(response["headers"], answer) or _about_body(method, response.get("content", {}), answer)


def _about_headers(documented: dict[str, Any], answer: Answer) -> str | None:
    for name, header in documented.items():
        if "$ref" in header:
            header = document()["components"]["headers"][name]
        if name not in answer:
            if header["required"]:
                return f"{name} is missing"
            continue
        value: Any = answer[name]
        schema = header["schema"]
        if schema.get("type") == "integer":
            value = int(value)
        if not _validator(json.dumps(schema)).is_valid(value):
            return f"{name} is {value!r}"
    known = {*(name.lower() for name in documented), "content-type", "content-length", "date", "connection"}
    return next((f"{name} is not documented" for name, _ in answer.headers if name.lower() not in known), None)


def _about_body(method: str, content: dict[str, Any], answer: Answer) -> str | None:
    if not content:
        return None if answer.body == b"" else "there is a body"
    found = answer["Content-Type"]
    if found not in content:
        return f"{found} is not documented"
    if method == "HEAD" or "schema" not in content[found]:
        return None
    for error in _validator(json.dumps(content[found]["schema"])).iter_errors(json.loads(answer.body)):
        return f"the body is not as documented: {error}"
    return None


@cache
def _validator(schema: str) -> Any:
    return jsonschema_rs.Draft202012Validator({**json.loads(schema), "components": document()["components"]})
