"""One HTTP exchange with one node, on the standard library alone.

Told: a node's URL and a request. Tells: the answer as it came, or whether anything had been sent when it
failed, which is all that decides whether a write may be repeated. Targets go out byte for byte: nothing
here normalises, follows or retries.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

CONNECT_TIMEOUT_S: Final = 2.0
ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024
"""No answer of ours is larger; what is, does not come from a raftkv node."""


class NotSent(Exception):
    """No connection was made: the node has seen nothing of the request."""


class BrokenOff(Exception):
    """The exchange failed after its first byte was sent: the node may have acted on it."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked; ``target`` is path and query, already percent-encoded."""

    method: str
    target: str
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def only_reads(self) -> bool:
        """Whether repeating it can change nothing."""
        return self.method in ("GET", "HEAD")


@dataclass(frozen=True, slots=True)
class Answer:
    """What one node said."""

    url: str
    """The node's."""
    status: int
    headers: Mapping[str, str]
    """By name in lower case."""
    body: bytes

    def json(self) -> dict[str, Any]:
        """The body as a JSON object; empty where it is not one."""
        try:
            value = json.loads(self.body)
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}

    @property
    def code(self) -> str | None:
        """The problem's code; None: not an error of raftkv's."""
        code = self.json().get("code") if self.status >= 300 else None
        return code if isinstance(code, str) else None

    @property
    def explanation(self) -> str:
        """The problem in words."""
        problem = self.json()
        return str(problem.get("detail") or problem.get("title") or f"status {self.status} without an explanation")


def exchange(url: str, request: Request, *, timeout_s: float) -> Answer:
    """The node's answer. Raises NotSent or BrokenOff, with the reason in words."""
    parts = urlsplit(url)
    assert parts.hostname is not None, "URLs are checked where they come in"
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=min(CONNECT_TIMEOUT_S, timeout_s))
    try:
        connection.connect()
    except OSError as error:
        raise NotSent(error.strerror or str(error)) from error
    try:
        connection.sock.settimeout(timeout_s)
        return _converse(connection, url, request)
    except (OSError, http.client.HTTPException) as error:
        raise BrokenOff(str(error) or type(error).__name__) from error
    finally:
        connection.close()


def _converse(connection: http.client.HTTPConnection, url: str, request: Request) -> Answer:
    connection.putrequest(request.method, request.target, skip_accept_encoding=True)
    for name, value in request.headers.items():
        connection.putheader(name, value)
    if request.body is not None:
        connection.putheader("Content-Length", str(len(request.body)))
    try:
        connection.endheaders(request.body)
    except (BrokenPipeError, ConnectionResetError):
        # A node may answer and close before it has read the whole body; the answer can still be there.
        pass
    response = connection.getresponse()
    body = response.read(ANSWER_BYTES_MAX + 1)
    if len(body) > ANSWER_BYTES_MAX:
        raise http.client.HTTPException(f"an answer of more than {ANSWER_BYTES_MAX} bytes")
    return Answer(url, response.status, {name.lower(): value for name, value in response.getheaders()}, body)
