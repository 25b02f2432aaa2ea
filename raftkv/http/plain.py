"""GETs and PUTs of the plainest form, told at a glance. Pure.

Told: bytes as they came. Tells: method, target and body, where the bytes are exactly one whole request that the
strict reader (``heads.py``) takes and whose fields ask for nothing; otherwise nothing, and the strict reader is asked.

The fields of a client's requests are the same bytes again and again. So the strict reader judges each such block
once, behind a plain request line, and what it said is remembered; a block that is not remembered costs what it did.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final, NamedTuple

from raftkv.errors import UnsoundRequest
from raftkv.http.heads import HEAD_BYTES_MAX, read_head

_LINE: Final = re.compile(rb"(GET|PUT) (/[!\"$-~]{0,8192}+) HTTP/1\.1\r\n")
_FIELDS_BYTES_MAX: Final = 1024
_BLOCKS_MAX: Final = 1024
_PROBE: Final = b"GET / HTTP/1.1\r\n"
_NOT_PLAIN: Final = -1


class Plain(NamedTuple):
    """A whole request whose connection lives on, and whose body, if any, is as it came."""

    method: bytes
    target: bytes
    body: bytes


class PlainReader:
    """Remembers what the strict reader said of blocks of fields."""

    __slots__ = ("_body_bytes", "_heeded")

    def __init__(self, heeded: Collection[bytes]) -> None:
        """``heeded`` are the lower-case names of fields that ask for something: a request that has one is not plain."""
        self._heeded = tuple(heeded)
        self._body_bytes: dict[bytes, int] = {}
        """By block: the length of the body that it tells, or that it is not plain."""

    def read(self, data: bytes) -> Plain | None:
        """The request that these bytes are; None: they are something else, or less, or more."""
        line = _LINE.match(data)
        if line is None:
            return None
        start = line.end()
        stop = data.find(b"\r\n\r\n", start - 2, HEAD_BYTES_MAX) + 4
        if not start < stop <= start + _FIELDS_BYTES_MAX:
            return None
        block = data[start:stop]
        body_bytes = self._body_bytes.get(block)
        if body_bytes is None:
            body_bytes = self._judged(block)
        if len(data) - stop != body_bytes:
            return None
        method, target = line.groups()
        return Plain(method, target, data[stop:])

    def _judged(self, block: bytes) -> int:
        body_bytes = self._length_told_by(block)
        if len(self._body_bytes) >= _BLOCKS_MAX:
            self._body_bytes.clear()
        self._body_bytes[block] = body_bytes
        return body_bytes

    def _length_told_by(self, block: bytes) -> int:
        try:
            head = read_head(_PROBE + block)
        except UnsoundRequest:
            return _NOT_PLAIN
        if head is None or head.chunked or head.expects_continue or head.upgrades or not head.keep_alive:
            return _NOT_PLAIN
        if any(head.values(name) for name in self._heeded):
            return _NOT_PLAIN
        return head.content_length
