"""A client's request as bytes, and what comes back for it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

_WITH_LENGTH: Final = frozenset({b"PUT", b"POST"})
"""Methods whose requests tell the length of their body even where it is 0."""


class HttpAnswer(NamedTuple):
    """What a server said."""

    status: int
    fields: dict[bytes, bytes]
    """By name in lower case; of a repeated one the last."""
    body: bytes


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """The request may have arrived, and may have been acted on; there will be no answer."""

    why: str


@dataclass(frozen=True, slots=True)
class NotSent:
    """No byte of the request left."""

    why: str
    unreachable: bool = True
    """No connection could be made; otherwise all were in use for too long, or it was over before."""


Heard = HttpAnswer | NoAnswer | NotSent
"""What became of one attempt to ask."""


def encode_request(method: bytes, target: bytes, *, authority: bytes, fields: bytes, body: bytes) -> bytes:
    """The request as it goes out, target and body byte for byte. ``fields`` are header lines, each ended by CRLF."""
    if not body and method not in _WITH_LENGTH:
        return b"%b %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (method, target, authority, fields)
    head = b"%b %b HTTP/1.1\r\nHost: %b\r\n%bContent-Length: %d\r\n\r\n"
    return head % (method, target, authority, fields, len(body)) + body
