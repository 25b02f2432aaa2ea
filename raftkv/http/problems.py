"""Problem details (RFC 9457), the form of every refusal. Pure."""

from __future__ import annotations

import json
from typing import Final

from raftkv.errors import UnsoundRequest
from raftkv.problems import TYPE_PREFIX, Code

CONTENT_TYPE: Final = b"application/problem+json"

_TITLES: Final = {code.text: code.title for code in Code}


def problem(*, status: int, code: str, detail: str) -> bytes:
    """The JSON body of a refusal; ``code`` is of the closed list in http-api.md."""
    title = _TITLES[code]
    return json.dumps(
        {"type": TYPE_PREFIX + code, "title": title, "status": status, "detail": detail, "code": code},
        separators=(",", ":"),
    ).encode()


def problem_of(refusal: UnsoundRequest) -> bytes:
    """The same, of a refusal by the vetting of requests."""
    return problem(status=refusal.status, code=refusal.code, detail=refusal.detail)
