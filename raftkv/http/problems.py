"""Problem details (RFC 9457), the form of every refusal. Pure."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Final

from raftkv.errors import UnsoundRequest

CONTENT_TYPE: Final = b"application/problem+json"
TYPE_PREFIX: Final = "urn:raftkv:problem:"

_TITLES: Final = {
    "bad_request": "The request is not one that is understood",
    "not_found": "There is no such route",
    "method_not_allowed": "The route has no such method",
    "request_timeout": "The request came too slowly",
    "wrong_cluster": "The node belongs to another cluster",
    "too_large": "The request is too large",
    "uri_too_long": "The request's target is too long",
    "unsupported_media_type": "The body's type or encoding is not taken here",
    "overloaded": "Too much is waiting already",
    "head_too_large": "The request's head is too large",
}
"""Of the codes that this room and the peers' routes use, in the words that the API has for them."""


def problem(*, status: int, code: str, detail: str) -> bytes:
    """The JSON body of a refusal; ``code`` is of the closed list in http-api.md."""
    title = _TITLES.get(code) or HTTPStatus(status).phrase
    return json.dumps(
        {"type": TYPE_PREFIX + code, "title": title, "status": status, "detail": detail, "code": code}
    ).encode()


def problem_of(refusal: UnsoundRequest) -> bytes:
    """The same, of a refusal by the vetting of requests."""
    return problem(status=refusal.status, code=refusal.code, detail=refusal.detail)
