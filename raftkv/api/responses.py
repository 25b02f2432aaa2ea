"""An answer: status, headers and body, and its bytes on the wire.

Told: what to answer. Tells: bytes, the same for every front. May never know: why.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, Final, Protocol

JSON: Final = "application/json"
MSGPACK: Final = "application/msgpack"
OCTETS: Final = "application/octet-stream"
PROBLEM: Final = "application/problem+json"

Headers = tuple[tuple[str, str], ...]
"""In the order in which they are sent; latin-1 text."""

_encode_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
_STATUS_LINES: Final = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
_WITHOUT_LENGTH: Final = frozenset({204, 304})


class Source(Protocol):
    """A body that is not held in memory. Read by one, from its beginning on, and closed in any case."""

    @property
    def size_bytes(self) -> int:
        """Of the whole body."""
        ...

    def read(self, bytes_max: int, done: Callable[[bytes], None]) -> None:
        """``done`` gets the next bytes, now or later; none where the rest will never come."""
        ...

    def close(self) -> None:
        """Nobody reads on. May be said again."""
        ...


@dataclass(slots=True)
class Response:
    """One final answer. What every answer carries (node, caching) is added when it is encoded."""

    status: int
    content_type: str
    body: bytes
    headers: Headers = ()
    body_omitted: bool = False
    """The answer to a HEAD: the headers as if the body came, and no body."""
    source: Source | None = None
    """Where the body comes from, instead of ``body``; whoever has the answer closes it, sent or not."""

    def let_go(self) -> None:
        """Nobody will send it."""
        if self.source is not None:
            self.source.close()


Respond = Callable[[Response], None]
"""Takes the one answer to a request, at once or later."""


def without_body(response: Response) -> Response:
    """The same answer for a HEAD (RFC 9110 section 9.3.2)."""
    return replace(response, body_omitted=True)


def with_headers(response: Response, headers: Headers) -> Response:
    """The same answer with these headers after its own."""
    response.headers += headers
    return response


def json_response(status: int, fields: dict[str, Any], headers: Headers = ()) -> Response:
    """An answer that is a JSON object."""
    return Response(status, JSON, json_bytes(fields), headers)


def json_bytes(fields: dict[str, Any]) -> bytes:
    """Compact JSON in UTF-8."""
    return _encode_json(fields).encode()


def common_headers(node_id: str) -> Headers:
    """The headers that every answer of this node carries."""
    return (("Raftkv-Node", node_id), ("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff"))


def common_header_bytes(node_id: str) -> bytes:
    """The same, as they go out."""
    return "".join(f"{name}: {value}\r\n" for name, value in common_headers(node_id)).encode()


def encode(response: Response, *, common: bytes, connection: str | None, date: str) -> bytes:
    """The whole answer as it goes out; where its body has a source, all before the body.

    ``common`` comes from ``common_header_bytes``; ``connection`` is the value of that header, None: leave it
    out; ``date`` is RFC 9110's IMF-fixdate.
    """
    lines = [f"{name}: {value}\r\n" for name, value in response.headers]
    lines.append(f"Date: {date}\r\n")
    if response.status not in _WITHOUT_LENGTH:
        size_bytes = len(response.body) if response.source is None else response.source.size_bytes
        lines.append(f"Content-Type: {response.content_type}\r\nContent-Length: {size_bytes}\r\n")
    lines.append("\r\n" if connection is None else f"Connection: {connection}\r\n\r\n")
    body = b"" if response.body_omitted or response.status in _WITHOUT_LENGTH else response.body
    return b"".join((_STATUS_LINES[response.status], common, "".join(lines).encode("latin-1"), body))
