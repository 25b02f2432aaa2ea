"""The bytes of an answer. Pure."""

from __future__ import annotations

from functools import lru_cache
from http import HTTPStatus
from typing import Final, NamedTuple

from raftkv.http.heads import Head

_WITHOUT_BODY: Final = frozenset((204, 304))


class Answer(NamedTuple):
    """What a request is answered."""

    status: int
    body: bytes = b""
    content_type: bytes = b"application/json"
    fields: bytes = b""
    """Further header lines, each ended by CRLF, ready to be sent."""
    close: bool = False
    """The connection ends with this answer."""


@lru_cache(maxsize=64)
def _status_line(status: int) -> bytes:
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n".encode()


def encode(parts: list[bytes], answer: Answer, head: Head | None, *, close: bool) -> None:
    """Appends the answer to this head (None: to what was no request) to what is written next.

    The answer to HEAD tells the length of the body and leaves it away.
    """
    status, body, content_type, fields, _ = answer
    ending = b"\r\n"
    if close:
        ending = b"Connection: close\r\n\r\n"
    elif head is not None and head.minor_version == 0:
        ending = b"Connection: keep-alive\r\n\r\n"
    if status in _WITHOUT_BODY:
        parts.append(_status_line(status) + fields + ending)
        return
    if head is not None and head.method == b"HEAD":
        body_bytes, body = len(body), b""
    else:
        body_bytes = len(body)
    beginning = b"%b%bContent-Type: %b\r\nContent-Length: %d\r\n%b"
    if body_bytes > 4096:
        parts.append(beginning % (_status_line(status), fields, content_type, body_bytes, ending))
        parts.append(body)
    else:
        parts.append(beginning % (_status_line(status), fields, content_type, body_bytes, ending) + body)
