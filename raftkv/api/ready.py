"""Answers to plain requests, in bytes: what every answer of the node carries stands ready for a second at a time.

Told: what ``plain.py`` tells, and the time. Tells: the answer, which lacks only what it says of its connection. May
never know: which front asks, or for whom.
"""

from __future__ import annotations

from email.utils import formatdate

from raftkv.api.plain import Told
from raftkv.api.responses import common_header_bytes
from raftkv.http.answers import Ready, beginning_of


class ReadyAnswers:
    """Of one node, and one front."""

    __slots__ = ("_beginnings", "_common", "_date", "_date_field", "_date_second")

    def __init__(self, node_id: str) -> None:
        self._common = common_header_bytes(node_id)
        self._date = ""
        self._date_field = b""
        self._date_second = -1
        self._beginnings: dict[tuple[int, bytes], bytes] = {}
        """Of this second's answers, by status and the form of their own fields."""

    def of(self, told: Told, *, now_s: float, close: bool) -> Ready:
        """The answer that is given at ``now_s`` since 1970; ``close``: it is its connection's last."""
        self._come_to(now_s)
        status, content_type, fields, numbers, body = told
        beginning = self._beginnings.get((status, fields))
        if beginning is None:
            all_fields = self._common.replace(b"%", b"%%") + fields + self._date_field
            beginning = self._beginnings[status, fields] = beginning_of(status, content_type, all_fields)
        return Ready(status, beginning % numbers, body, close)

    def around(self, fields: bytes, *, now_s: float) -> bytes:
        """All header lines of an answer with these of its own."""
        self._come_to(now_s)
        return self._common + fields + self._date_field

    def date(self, *, now_s: float) -> str:
        """What stands behind Date in an answer that is given then (RFC 9110 section 6.6.1)."""
        self._come_to(now_s)
        return self._date

    def _come_to(self, now_s: float) -> None:
        second = int(now_s)
        if second != self._date_second:
            self._date_second = second
            self._date = formatdate(second, usegmt=True)
            self._date_field = f"Date: {self._date}\r\n".encode()
            self._beginnings.clear()
