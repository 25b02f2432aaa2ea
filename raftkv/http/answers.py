"""The bytes of an answer. Pure."""

from __future__ import annotations

from functools import lru_cache
from http import HTTPStatus
from typing import Final, NamedTuple, cast

from raftkv.http.heads import Head

_WITHOUT_BODY: Final = frozenset((204, 304))
_JOINED_BYTES_MAX: Final = 4096
"""A longer body is not copied behind its head."""


class Answer(NamedTuple):
    """What a request is answered."""

    status: int
    body: bytes = b""
    content_type: bytes = b"application/json"
    fields: bytes = b""
    """Further header lines, each ended by CRLF, ready to be sent."""
    close: bool = False
    """The connection ends with this answer."""


class Ready(NamedTuple):
    """The answer to a GET, PUT or DELETE of HTTP/1.1, already in bytes but for what it says of its connection."""

    status: int
    beginning: bytes
    """The status line and all header lines, each ended by CRLF."""
    body: bytes
    close: bool = False
    """The connection ends with this answer."""


def beginning_of(status: int, content_type: bytes, fields: bytes) -> bytes:
    """Of a ``Ready`` answer, as an ``Answer`` with these begins, but with ``%d`` for the length of its body."""
    return b"%bContent-Type: %b\r\nContent-Length: %%d\r\n" % (_status_line(status) + fields, content_type)


@lru_cache(maxsize=64)
def _status_line(status: int) -> bytes:
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n".encode()


def encode(parts: list[bytes], answer: Answer | Ready, head: Head | None, *, close: bool) -> None:
    """Appends the answer to this head (None: to what was no request) to what is written next.

    The answer to HEAD tells the length of the body and leaves it away.
    """
    if type(answer) is Ready:
        ending = b"Connection: close\r\n\r\n" if close else b"\r\n"
        if len(answer.body) > _JOINED_BYTES_MAX:
            parts += (answer.beginning + ending, answer.body)
        else:
            parts.append(answer.beginning + ending + answer.body)
    else:
        _encode(parts, cast(Answer, answer), head, close=close)


def _encode(parts: list[bytes], answer: Answer, head: Head | None, *, close: bool) -> None:
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
    if body_bytes > _JOINED_BYTES_MAX:
        parts.append(beginning % (_status_line(status), fields, content_type, body_bytes, ending))
        parts.append(body)
    else:
        parts.append(beginning % (_status_line(status), fields, content_type, body_bytes, ending) + body)
