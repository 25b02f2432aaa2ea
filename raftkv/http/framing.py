"""Where a request's body ends. Pure.

Told: a vetted head, then raw bytes. Tells: how far the body reaches into them, and its payload to whoever
wants it. It never learns what the payload is. Both fronts follow message boundaries through here.

Chunks are read as strictly as heads: plain hexadecimal sizes, CRLF and nothing else, no extensions, no
trailers. Nobody who means well sends those, and parsers are known to disagree about them.
"""

from __future__ import annotations

import re
from typing import Final

from raftkv.errors import UnsoundRequest
from raftkv.http.heads import Head

_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,8})\r\n")
_SIZE_LINE_BYTES_MAX: Final = 10
_PARTIAL_SIZE_LINE = re.compile(rb"[0-9A-Fa-f]{0,8}\r?")


class FixedBody:
    """A body of a length that its head told."""

    __slots__ = ("_left", "received_bytes")

    def __init__(self, length: int) -> None:
        self._left = length
        self.received_bytes = 0

    @property
    def done(self) -> bool:
        """Every byte has been seen."""
        return self._left == 0

    def scan(self, data: bytes, start: int, payload: list[bytes] | None) -> int:
        """Goes on through ``data`` from ``start``; answers where it stopped. The payload is appended if wanted."""
        taken = min(self._left, len(data) - start)
        if payload is not None and taken:
            payload.append(data[start : start + taken])
        self._left -= taken
        self.received_bytes += taken
        return start + taken


class ChunkedBody:
    """A body in chunks; sizes and line ends are never split across calls: what is left over comes again."""

    __slots__ = ("_left", "_wants_line_end", "done", "received_bytes")

    def __init__(self) -> None:
        self._left = 0
        self._wants_line_end = False
        self.done = False
        self.received_bytes = 0
        """Of payload, the chunks' own overhead not counted."""

    def scan(self, data: bytes, start: int, payload: list[bytes] | None) -> int:
        """As ``FixedBody.scan``; raises UnsoundRequest at the first byte that is out of place."""
        at, end = start, len(data)
        while at < end and not self.done:
            if self._left:
                taken = min(self._left, end - at)
                if payload is not None:
                    payload.append(data[at : at + taken])
                self._left -= taken
                self.received_bytes += taken
                self._wants_line_end = not self._left
                at += taken
                continue
            after = self._line_end(data, at) if self._wants_line_end else self._size_line(data, at)
            if after == at:
                break
            at = after
        return at

    def _line_end(self, data: bytes, at: int) -> int:
        found = data[at : at + 2]
        if found == b"\r":
            return at
        if found != b"\r\n":
            raise UnsoundRequest("a chunk does not end where its size says")
        self._wants_line_end = False
        return at + 2

    def _size_line(self, data: bytes, at: int) -> int:
        line = _SIZE_LINE.match(data, at)
        if line is None:
            left_over = data[at : at + _SIZE_LINE_BYTES_MAX]
            if not _PARTIAL_SIZE_LINE.fullmatch(left_over):
                raise UnsoundRequest("a chunk's size is one to eight hexadecimal digits and a line end")
            return at
        self._left = int(line[1], 16)
        if self._left:
            return line.end()
        return self._last_line(data, at, line.end())

    def _last_line(self, data: bytes, at: int, after: int) -> int:
        found = data[after : after + 2]
        if found == b"\r\n":
            self.done = True
            return after + 2
        if found in (b"", b"\r"):
            return at
        raise UnsoundRequest("trailers are not taken")


Body = FixedBody | ChunkedBody


def body_of(head: Head) -> Body | None:
    """What follows this head; None: nothing does."""
    if head.chunked:
        return ChunkedBody()
    return FixedBody(head.content_length) if head.content_length else None
