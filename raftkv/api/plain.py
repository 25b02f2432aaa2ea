"""Puts, gets and deletes of the plainest form: no condition, no query, a key that needs no escape, a number or none.

Told: a key, a value, a number. Tells: the answer's parts, ready to be sent. May never know: which front asks.

They mean what ``keys.py`` and ``reads.py`` say, which answer everything here but success; what success looks like is
put into bytes here a second time, without a step between. The differential test holds both to the same bytes.
"""

from __future__ import annotations

from binascii import unhexlify
from collections.abc import Callable
from typing import Final, NamedTuple

from raftkv.api import keys, reads
from raftkv.api.exchange import Context, written
from raftkv.api.metering import Kind, Meter
from raftkv.api.requests import ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HEEDED, Request
from raftkv.api.responses import Response
from raftkv.http.plain import Plain, PlainReader
from raftkv.kv.answers import DeleteDone, PutDone
from raftkv.kv.commands import KEY_BYTES_MAX, SESSION_BYTES, Delete, Numbered, Put, encode, encode_put
from raftkv.kv.queries import Found, Get
from raftkv.outcomes import Answered, Applied, Consistency, ReadOutcome, WriteOutcome

TARGET: Final = rb"/v1/kv/([!$&-.0->@-\[\]-~]{1,%d})" % KEY_BYTES_MAX
"""Of a key that stands for itself in a path and in JSON: no percent sign, question mark, slash, quote or backslash."""
_COUNT: Final = rb"[1-9][0-9]{0,17}"
NUMBERING: Final = (
    rb"\r\nRaftkv-Session: ([0-9a-f]{%d})\r\nRaftkv-Sequence: (%b)(?:\r\nRaftkv-Acknowledged: (0|%b))?"
    % (2 * SESSION_BYTES, _COUNT, _COUNT)
)
"""The three fields as the Python client sends them, of which the last may be missing: numbers without doubt."""
_PUT_KIND: Final[Kind] = ("PUT", "/v1/kv/{key}")
_GET_KIND: Final[Kind] = ("GET", "/v1/kv/{key}")
_DELETE_KIND: Final[Kind] = ("DELETE", "/v1/kv/{key}")
_JSON: Final = b"application/json"
_OCTETS: Final = b"application/octet-stream"
_PUT_FIELDS: Final = b'ETag: "%d"\r\nRaftkv-Applied-Index: %d\r\n'
_PUT_BODY: Final = b'{"key":"%b","revision":%d,"create_revision":%d,"version":%d}'
_DELETE_FIELDS: Final = b"Raftkv-Applied-Index: %d\r\n"
_DELETE_BODY: Final = b'{"deleted":%d,"revision":%d}'
_GET_FIELDS: Final = (
    b'ETag: "%d"\r\nRaftkv-Create-Revision: %d\r\nRaftkv-Version: %d\r\nRaftkv-Applied-Index: %d\r\n'
    b"Raftkv-Consistency: linearizable\r\n"
)


class Told(NamedTuple):
    """Success, in bytes but for what every answer of the node carries."""

    status: int
    content_type: bytes
    fields: bytes
    """The form of its header lines, each ended by CRLF …"""
    numbers: tuple[int, ...]
    """… and what stands in them, and then the length of the body."""
    body: bytes


def reader() -> PlainReader:
    """What tells such requests at a glance."""
    return PlainReader(target=TARGET, numbering=NUMBERING, heeded=HEEDED - {CONTENT_LENGTH, CONTENT_TYPE, ACCEPT})


Respond = Callable[[Told | Response], None]
"""Takes the one answer."""


class PlainKeys:
    """Answers plain requests of one node."""

    __slots__ = ("_context", "_meter")

    def __init__(self, context: Context, meter: Meter | None) -> None:
        self._context, self._meter = context, meter

    def take(self, plain: Plain, respond: Respond) -> bool:
        """Whether it is such a request, and this node leads: then ``respond`` is called once, now or later."""
        if not self._context.service.leadership().leads:
            return False
        method, body = plain.method, plain.body
        if method == b"PUT":
            if len(body) > self._context.settings.max_value_bytes:
                return False
            self._put(plain, respond)
        elif body:
            return False
        elif method == b"DELETE":
            self._delete(plain, respond)
        else:
            self._get(plain.key, plain.target, respond)
        return True

    def _put(self, plain: Plain, respond: Respond) -> None:
        meter, key = self._meter, plain.key
        began_ns = 0 if meter is None else meter.clock_ns()

        def done(outcome: WriteOutcome) -> None:
            answer: Told | Response
            if type(outcome) is Applied and type(outcome.answer) is PutDone:
                created, revision, create_revision, version = outcome.answer
                told = _PUT_BODY % (key, revision, create_revision, version)
                numbers = (revision, outcome.index, len(told))
                answer = Told(201 if created else 200, _JSON, _PUT_FIELDS, numbers, told)
            else:
                request = Request("PUT", plain.target, None, {})
                answer = written(self._context, request, outcome, lambda given: keys.put_answer(key, given))
            if meter is not None:
                meter.answered(_PUT_KIND, answer.status, began_ns)
            respond(answer)

        numbered = _numbered(plain)
        value = plain.body
        command = encode_put(key, value) if numbered is None else encode(Put(key, value), numbered)
        self._context.service.submit(command, done)

    def _delete(self, plain: Plain, respond: Respond) -> None:
        meter = self._meter
        began_ns = 0 if meter is None else meter.clock_ns()

        def done(outcome: WriteOutcome) -> None:
            answer: Told | Response
            if type(outcome) is Applied and type(outcome.answer) is DeleteDone:
                told = _DELETE_BODY % outcome.answer
                answer = Told(200, _JSON, _DELETE_FIELDS, (outcome.index, len(told)), told)
            else:
                request = Request("DELETE", plain.target, None, {})
                answer = written(self._context, request, outcome, keys.delete_answer)
            if meter is not None:
                meter.answered(_DELETE_KIND, answer.status, began_ns)
            respond(answer)

        self._context.service.submit(encode(Delete(plain.key), _numbered(plain)), done, frees_space=True)

    def _get(self, key: bytes, target: bytes, respond: Respond) -> None:
        meter = self._meter
        began_ns = 0 if meter is None else meter.clock_ns()

        def done(outcome: ReadOutcome) -> None:
            answer: Told | Response | None = None
            if type(outcome) is Answered and outcome.consistency is Consistency.LINEARIZABLE:
                answer = _found(outcome)
            if answer is None:
                request = Request("GET", target, None, {})
                answer = reads.read_answer(
                    self._context, request, outcome, lambda given: reads.found(given, known_revision=None)
                )
            if meter is not None:
                meter.answered(_GET_KIND, answer.status, began_ns)
            respond(answer)

        self._context.service.read(Get(key), Consistency.LINEARIZABLE, done)


def _numbered(plain: Plain) -> Numbered | None:
    """The number that stands in the request, by ``NUMBERING``."""
    if plain.numbering is None:
        return None
    session, sequence, acknowledged = plain.numbering
    assert session is not None, plain.numbering
    assert sequence is not None, plain.numbering
    return Numbered(unhexlify(session), int(sequence), 0 if acknowledged is None else int(acknowledged))


def _found(outcome: Answered) -> Told | None:
    """The value; None: there is none."""
    given = outcome.answer
    assert type(given) is Found, given
    record = given.record
    if record is None:
        return None
    create_revision, mod_revision, version, _, value = record
    numbers = (mod_revision, create_revision, version, outcome.index, len(value))
    return Told(200, _OCTETS, _GET_FIELDS, numbers, value)
