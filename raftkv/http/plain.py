"""Requests of the plainest form, told at a glance. Pure.

Told: bytes as they came. Tells: method, target and body, where the bytes begin with one whole request that the strict
reader (``heads.py``) takes, whose target is of a given form and whose fields ask for nothing, or for a number in
exactly one form; otherwise nothing, and the strict reader is asked.

The fields of a client's requests are the same bytes again and again. So the strict reader judges each such block
once, behind a plain request line, and what it said is remembered; a block that is not remembered costs what it did.

Fields that number a request are others each time. They are taken out first, where they stand in the one form that is
known, whole lines and nothing else; what is left is judged as if they had never been there. So in any other form, or
a second time, they are seen by the strict reader as before: as fields that ask for something.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final, NamedTuple

from raftkv.errors import UnsoundRequest
from raftkv.http.heads import read_head

_FIELDS_BYTES_MAX: Final = 1024
_BLOCKS_MAX: Final = 1024
_PROBE: Final = b"GET / HTTP/1.1"
_NOT_PLAIN: Final = -1
_LINE_END_BYTES: Final = len(b"\r\n")


class Plain(NamedTuple):
    """A whole request whose connection lives on, and whose body, if any, is as it came."""

    method: bytes
    target: bytes
    key: bytes
    """What the form of targets captures."""
    numbering: tuple[bytes | None, ...] | None
    """What the form of numberings captures; None: it has none."""
    body: bytes
    end: int
    """Where it ends in the bytes that were read."""


class PlainReader:
    """Remembers what the strict reader said of blocks of fields."""

    __slots__ = ("_body_bytes", "_heeded", "_line", "_numbering")

    def __init__(self, *, target: bytes, numbering: bytes, heeded: Collection[bytes]) -> None:
        """``target`` is a pattern with one group, of at most 8 KiB of what a target may have.

        ``numbering`` is a pattern of whole lines, each behind its line end and as the strict reader takes it, whose
        names are all ``heeded``: the lower-case names of fields that ask for something. No other request that has one
        of these is plain.
        """
        self._line = re.compile(rb"(GET|PUT|DELETE) (" + target + rb") HTTP/1\.1(?=\r\n)")
        self._numbering = re.compile(numbering + rb"(?=\r\n)")
        self._heeded = tuple(heeded)
        self._body_bytes: dict[bytes, int] = {}
        """By block, from the end of the line before it: the length of the body that it tells; or it is not plain."""

    def read(self, data: bytes, start: int = 0) -> Plain | None:
        """The request that begins there; None: it is something else, or less."""
        line = self._line.match(data, start)
        if line is None:
            return None
        begin = line.end()
        last = data.find(b"\r\n\r\n", begin, begin + _FIELDS_BYTES_MAX)
        if last <= begin:
            return None
        stop = last + 2 * _LINE_END_BYTES
        block, numbering = data[begin:stop], None
        body_bytes = self._body_bytes.get(block)
        if body_bytes is None:
            numbers = self._numbering.search(block)
            if numbers is not None:
                numbering = numbers.groups()
                block = block[: numbers.start()] + block[numbers.end() :]
                body_bytes = self._body_bytes.get(block)
            if body_bytes is None:
                body_bytes = self._judged(block)
        end = stop + body_bytes
        if body_bytes < 0 or len(data) < end:
            return None
        method, target, key = line.groups()
        return Plain(method, target, key, numbering, data[stop:end], end)

    def _judged(self, block: bytes) -> int:
        if self._numbering.search(block):
            return _NOT_PLAIN  # A second one. Not remembered: the same lines may come as the first and only one.
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
