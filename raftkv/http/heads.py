"""The strict reading of a request's head, before any parser is trusted with it. Pure.

Told: raw bytes, as they come. Tells: a ``Head``, or that more bytes are needed, or why the request is
refused. It never learns what a request means, nor which front serves it: both fronts read through here,
so that two parsers on one port can never disagree about where a request ends.

What could smuggle a request is refused, not repaired: Transfer-Encoding together with Content-Length, a
length or an encoding that is said twice, folded lines, a bare LF or CR, a space before a colon, control
bytes, any encoding but exactly ``chunked``, any version but 1.0 and 1.1, white space in the target.
"""

from __future__ import annotations

import re
from typing import Final

from raftkv.errors import UnsoundRequest

HEAD_BYTES_MAX: Final = 32 * 1024
TARGET_BYTES_MAX: Final = 28 * 1024
"""Two bounds of 4,096 bytes take 24,576 when every byte is escaped; the rest is for what else a query has."""
FIELDS_MAX: Final = 1_000
"""More would be taken apart for milliseconds: of the shortest, 32 KiB hold 6,500."""
LENGTH_DIGITS_MAX: Final = 15

_NAME = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_VALUE = rb"[\t\x20-\x7e\x80-\xff]*+"
_FIELD_LINE = _NAME + rb":" + _VALUE + rb"\r\n"
_TARGET = rb"(?:/[\x21\x22\x24-\x7e]*+|\*)"
_REQUEST_LINE = rb"([A-Z]{1,32}+) (" + _TARGET + rb") HTTP/1\.([01])\r\n"

_HEAD = re.compile(_REQUEST_LINE + rb"((?:" + _FIELD_LINE + rb"){0,%d}+)\r\n" % FIELDS_MAX)
"""The whole grammar; what it does not match is never looked at again but to say why."""
_ODD_BYTE = re.compile(rb"[^\t\r\n\x20-\x7e\x80-\xff]|\r(?!\n|\Z)|(?<!\r)\n")
_LENGTH = re.compile(rb"[0-9]{1,%d}" % LENGTH_DIGITS_MAX)


class Head:
    """One vetted request head. Names of fields are looked up in lower case."""

    __slots__ = (
        "_fields",
        "_fields_lower",
        "chunked",
        "content_length",
        "end",
        "expects_continue",
        "keep_alive",
        "method",
        "minor_version",
        "target",
        "upgrades",
    )

    method: bytes
    target: bytes
    """As it came: path and query, nothing decoded."""
    minor_version: int
    """Of HTTP/1.x: 0 or 1."""
    content_length: int
    """Bytes of body; 0 where there is none, and where ``chunked``."""
    chunked: bool
    keep_alive: bool
    """The client lets the connection live on after the answer."""
    expects_continue: bool
    """The client waits for ``100 Continue`` before it sends the body."""
    upgrades: bool
    """It asks for a WebSocket: what follows the head may not be HTTP any more."""
    end: int
    """Where the head ends in the bytes that were read."""

    def __init__(self, *, method: bytes, target: bytes, minor_version: int, fields: bytes, end: int) -> None:
        self.method, self.target, self.minor_version, self.end = method, target, minor_version, end
        self._fields = b"\r\n" + fields
        self._fields_lower = lower = self._fields.lower()
        self.chunked = b"\r\ntransfer-encoding:" in lower and self._is_chunked()
        self.content_length = self._body_length() if b"\r\ncontent-length:" in lower else 0
        self.expects_continue = b"\r\nexpect:" in lower and self._expects_continue()
        self.upgrades = False
        self.keep_alive = minor_version == 1
        if b"\r\nconnection:" in lower:
            self._read_connection()
        if lower.count(b"\r\nhost:") != 1 and (minor_version == 1 or b"\r\nhost:" in lower):
            raise UnsoundRequest("exactly one Host is needed")

    def values(self, name: bytes) -> list[bytes]:
        """Every value given under this lower-case name, in order, without the white space around it."""
        found: list[bytes] = []
        mark = b"\r\n" + name + b":"
        at = self._fields_lower.find(mark)
        while at >= 0:
            start = at + len(mark)
            stop = self._fields.index(b"\r\n", start)
            found.append(self._fields[start:stop].strip(b" \t"))
            at = self._fields_lower.find(mark, stop)
        return found

    def value(self, name: bytes) -> bytes | None:
        """The values under this lower-case name as one list, comma-separated (RFC 9110 §5.3); None: absent."""
        found = self.values(name)
        return b", ".join(found) if found else None

    @property
    def fields(self) -> bytes:
        """Every field as it came, each behind a line end, with one at the end."""
        return self._fields

    @property
    def has_body(self) -> bool:
        """Whether bytes of this request follow the head."""
        return self.chunked or self.content_length > 0

    def _is_chunked(self) -> bool:
        if self.values(b"transfer-encoding") != [b"chunked"]:
            raise UnsoundRequest("Transfer-Encoding may only be exactly chunked, once")
        if self.minor_version == 0:
            raise UnsoundRequest("HTTP/1.0 has no Transfer-Encoding")
        return True

    def _body_length(self) -> int:
        if self.chunked:
            raise UnsoundRequest("Transfer-Encoding and Content-Length exclude each other")
        values = self.values(b"content-length")
        if len(values) != 1 or not _LENGTH.fullmatch(values[0]):
            raise UnsoundRequest("Content-Length must be one plain number")
        return int(values[0])

    def _expects_continue(self) -> bool:
        if [value.lower() for value in self.values(b"expect")] != [b"100-continue"]:
            raise UnsoundRequest("the only expectation that is met is 100-continue")
        return self.minor_version == 1 and self.has_body

    def _read_connection(self) -> None:
        tokens = [token.strip(b" \t").lower() for token in b",".join(self.values(b"connection")).split(b",")]
        if b"close" in tokens:
            self.keep_alive = False
        elif b"keep-alive" in tokens:
            self.keep_alive = True
        if b"upgrade" not in tokens:
            return
        upgrade = self.value(b"upgrade")
        self.upgrades = upgrade is not None and b"websocket" in upgrade.lower()
        if self.upgrades and self.has_body:
            raise UnsoundRequest("a request to upgrade has no body")


def read_head(data: bytes, start: int = 0, *, checked: int = 0) -> Head | None:
    """The head that begins at ``start``; None: it is sound as far as it goes, and more bytes are needed.

    ``checked`` is how many bytes from ``start`` an earlier call has answered None to: they are not judged
    again. Raises UnsoundRequest (400, 414, 431) as soon as the bytes that are there cannot become a head.
    """
    stop = data.find(b"\r\n\r\n", start, start + HEAD_BYTES_MAX)
    if stop < 0:
        _check_partial(data, start, checked)
        return None
    found = _HEAD.fullmatch(data, start, stop + 4)
    if found is None:
        raise _why_not(data[start : stop + 4])
    method, target, minor, fields = found.groups()
    if len(target) > TARGET_BYTES_MAX:
        raise _target_too_long()
    if method == b"CONNECT":
        raise UnsoundRequest("this is no proxy")
    return Head(method=method, target=target, minor_version=int(minor), fields=fields, end=stop + 4)


def _check_partial(data: bytes, start: int, checked: int) -> None:
    """Refuses what can no longer become a sound head, without waiting for the rest of it."""
    if len(data) == start:
        return
    if not 0x41 <= data[start] <= 0x5A:
        raise UnsoundRequest("a request begins with a method in capital letters")
    if _ODD_BYTE.search(data, max(start, start + checked - 1), start + HEAD_BYTES_MAX):
        raise _odd_byte()
    if len(data) - start > TARGET_BYTES_MAX + 64 and data.find(b"\r\n", start, start + TARGET_BYTES_MAX + 64) < 0:
        raise _target_too_long()
    if len(data) - start >= HEAD_BYTES_MAX:
        raise UnsoundRequest(f"a head has at most {HEAD_BYTES_MAX} bytes", status=431, code="head_too_large")


def _why_not(head: bytes) -> UnsoundRequest:
    """What is wrong with a whole head that is not in the grammar."""
    if _ODD_BYTE.search(head):
        return _odd_byte()
    line, *fields = head[:-4].split(b"\r\n")
    if not re.fullmatch(_REQUEST_LINE, line + b"\r\n"):
        return _why_not_line(line)
    if len(fields) > FIELDS_MAX:
        return UnsoundRequest(f"a head has at most {FIELDS_MAX} fields", status=431, code="head_too_large")
    bad = next(field for field in fields if not re.fullmatch(_FIELD_LINE, field + b"\r\n"))
    if bad[:1] in b" \t":
        return UnsoundRequest("folded lines are not taken")
    if b":" in bad and bad.split(b":")[0].rstrip(b" \t") != bad.split(b":")[0]:
        return UnsoundRequest("white space before a colon")
    return UnsoundRequest("a line of the head is not a field")


def _why_not_line(line: bytes) -> UnsoundRequest:
    words = line.split(b" ")
    if len(words) != 3:
        return UnsoundRequest("a request line is a method, a target and a version, one space apart")
    method, target, version = words
    if not re.fullmatch(rb"[A-Z]{1,32}", method):
        return UnsoundRequest("a method is at most 32 capital letters")
    if version not in (b"HTTP/1.0", b"HTTP/1.1"):
        return UnsoundRequest("HTTP/1.1 and HTTP/1.0 are spoken here")
    if b"#" in target:
        return UnsoundRequest("a target has no fragment")
    return UnsoundRequest("a target begins with a slash; what is not printable ASCII comes escaped")


def _odd_byte() -> UnsoundRequest:
    return UnsoundRequest("a control byte, or CR and LF apart from each other, in the head")


def _target_too_long() -> UnsoundRequest:
    return UnsoundRequest(f"a target has at most {TARGET_BYTES_MAX} bytes", status=414, code="uri_too_long")
