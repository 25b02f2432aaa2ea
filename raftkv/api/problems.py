"""What can go wrong, as a client is told it: RFC 9457 problem details with the closed list of codes.

Told: a code and what to say about it. Tells: the answer. May never know: how it came to that.
"""

from __future__ import annotations

from typing import Any

from raftkv.api.responses import PROBLEM, Headers, Response, json_bytes
from raftkv.errors import WireError
from raftkv.problems import TYPE_PREFIX, Code


class RequestRefused(WireError):
    """The request is not served as it stands; nothing was asked of the replica. Ends as that problem."""

    def __init__(self, code: Code, detail: str, headers: Headers = (), *, extra: dict[str, Any] | None = None) -> None:
        self.code, self.detail, self.headers, self.extra = code, detail, headers, extra
        super().__init__(detail)


def bad_request(detail: str) -> RequestRefused:
    """A 400, to be raised."""
    return RequestRefused(Code.BAD_REQUEST, detail)


def problem(code: Code, detail: str, *, headers: Headers = (), extra: dict[str, Any] | None = None) -> Response:
    """The answer that says so; ``extra`` are the members of its own that the code has."""
    fields: dict[str, Any] = {
        "type": TYPE_PREFIX + code.text,
        "title": code.title,
        "status": code.status,
        "detail": detail,
        "code": code.text,
    }
    if extra is not None:
        fields |= extra
    return Response(code.status, PROBLEM, json_bytes(fields), headers)


def refused_response(refused: RequestRefused) -> Response:
    """The answer to a refused request."""
    return problem(refused.code, refused.detail, headers=refused.headers, extra=refused.extra)
