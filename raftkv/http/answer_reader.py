"""What comes back on a client's connection, taken apart into whole answers.

Told: bytes as they come. Tells its owner that an answer begins, and each one that is whole, in order; or that the
bytes are no HTTP, or have no end. It never learns who asked for what. Interim answers (RFC 9110 section 15.2), which
only say that the real one will come, are passed over.
"""

from __future__ import annotations

from typing import Final, Protocol

import httptools

from raftkv.http.exchange import HttpAnswer

FIELDS_BYTES_MAX: Final = 64 * 1024


class Owner(Protocol):
    """The connection that the bytes come on."""

    def on_answer_begun(self) -> None:
        """The first bytes of an answer are there; or of an interim one."""
        ...

    def on_answer(self, answer: HttpAnswer, *, is_last: bool) -> None:
        """An answer is whole. ``is_last``: the server keeps the connection no longer."""
        ...

    def close(self, why: str) -> None:
        """What comes makes no sense: the connection ends."""
        ...


class AnswerReader:
    """Of one connection. After ``stop`` it tells nothing more."""

    def __init__(self, owner: Owner, *, answer_bytes_max: int) -> None:
        self._owner, self._answer_bytes_max = owner, answer_bytes_max
        self._parser = httptools.HttpResponseParser(self)
        self._fields: dict[bytes, bytes] = {}
        self._fields_bytes = 0
        self._head_is_whole = False
        self._received_bytes = 0
        """Since the last answer. The parser keeps lines without end: they count here."""
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._is_last = False
        self._is_stopped = False

    def feed(self, data: bytes) -> None:
        """These bytes came."""
        self._received_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._owner.close(f"the answer is not HTTP: {error}")
        if self._received_bytes > self._answer_bytes_max + FIELDS_BYTES_MAX:
            self._close_for_size()

    def stop(self) -> None:
        """Whatever else came is nobody's."""
        self._is_stopped = True

    # What the parser tells.

    def on_message_begin(self) -> None:
        """An answer begins."""
        self._fields = {}
        self._fields_bytes = 0
        self._head_is_whole = False
        self._body.clear()
        self._body_bytes = 0
        if not self._is_stopped:
            self._owner.on_answer_begun()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of the head; or a trailer, which nobody needs and nobody trusts, but which counts."""
        self._fields_bytes += len(name) + len(value)
        if self._fields_bytes > FIELDS_BYTES_MAX:
            self._owner.close(f"a head of more than {FIELDS_BYTES_MAX} bytes")
        elif not self._head_is_whole:
            self._fields[name.lower()] = value

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._head_is_whole = True
        self._is_last = not self._parser.should_keep_alive()

    def on_body(self, data: bytes) -> None:
        """A part of the body."""
        self._body_bytes += len(data)
        if self._body_bytes > self._answer_bytes_max:
            self._close_for_size()
        elif not self._is_stopped:
            self._body.append(data)

    def on_message_complete(self) -> None:
        """The answer is whole, or the interim one is."""
        status = self._parser.get_status_code()
        if self._is_stopped or status < 200:
            return
        self._received_bytes = 0
        self._owner.on_answer(HttpAnswer(status, self._fields, b"".join(self._body)), is_last=self._is_last)

    def _close_for_size(self) -> None:
        self._owner.close(f"an answer of more than {self._answer_bytes_max} bytes")
