"""Puts and gets of the plainest form: no condition, no number, no query, a key that needs no escape.

Told: a key and a value. Tells: the answer's parts, ready to be sent. May never know: which front asks.

They mean what ``keys.py`` and ``reads.py`` say, which answer everything here but success; what success looks like is
put into bytes here a second time, without a step between. The differential test holds both to the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from raftkv.api import keys, reads
from raftkv.api.exchange import Context, written
from raftkv.api.metering import Kind, Meter
from raftkv.api.requests import Request
from raftkv.api.responses import Response
from raftkv.http.answers import Answer
from raftkv.kv.answers import PutDone
from raftkv.kv.commands import KEY_BYTES_MAX, encode_put
from raftkv.kv.queries import Found, Get
from raftkv.outcomes import Answered, Applied, Consistency, ReadOutcome, WriteOutcome

_TARGET: Final = re.compile(rb"/v1/kv/([!$&-.0->@-\[\]-~]{1,%d})" % KEY_BYTES_MAX)
"""Of a key that stands for itself in a path and in JSON: no percent sign, question mark, slash, quote or backslash."""
_PUT_KIND: Final[Kind] = ("PUT", "/v1/kv/{key}")
_GET_KIND: Final[Kind] = ("GET", "/v1/kv/{key}")
_JSON: Final = b"application/json"
_OCTETS: Final = b"application/octet-stream"
_PUT_FIELDS: Final = b'ETag: "%d"\r\nRaftkv-Applied-Index: %d\r\n'
_PUT_BODY: Final = b'{"key":"%b","revision":%d,"create_revision":%d,"version":%d}'
_GET_FIELDS: Final = (
    b'ETag: "%d"\r\nRaftkv-Create-Revision: %d\r\nRaftkv-Version: %d\r\nRaftkv-Applied-Index: %d\r\n'
    b"Raftkv-Consistency: linearizable\r\n"
)

Respond = Callable[[Answer | Response], None]
"""Takes the one answer; one that is an Answer lacks only what every answer of the node carries."""


class PlainKeys:
    """Answers plain requests of one node."""

    __slots__ = ("_context", "_meter")

    def __init__(self, context: Context, meter: Meter | None) -> None:
        self._context, self._meter = context, meter

    def take(self, method: bytes, target: bytes, body: bytes, respond: Respond) -> bool:
        """Whether it is such a request, and this node leads: then ``respond`` is called once, now or later."""
        found = _TARGET.fullmatch(target)
        if found is None or not self._context.service.leadership().leads:
            return False
        if method == b"GET" and not body:
            self._get(found[1], target, respond)
        elif method == b"PUT" and len(body) <= self._context.settings.max_value_bytes:
            self._put(found[1], target, body, respond)
        else:
            return False
        return True

    def _put(self, key: bytes, target: bytes, value: bytes, respond: Respond) -> None:
        meter = self._meter
        began_ns = 0 if meter is None else meter.clock_ns()

        def done(outcome: WriteOutcome) -> None:
            answer: Answer | Response
            if type(outcome) is Applied and type(outcome.answer) is PutDone:
                created, revision, create_revision, version = outcome.answer
                told = _PUT_BODY % (key, revision, create_revision, version)
                answer = Answer(201 if created else 200, told, _JSON, _PUT_FIELDS % (revision, outcome.index))
            else:
                request = Request("PUT", target, None, {})
                answer = written(self._context, request, outcome, lambda given: keys.put_answer(key, given))
            if meter is not None:
                meter.answered(_PUT_KIND, answer.status, began_ns)
            respond(answer)

        self._context.service.submit(encode_put(key, value), done)

    def _get(self, key: bytes, target: bytes, respond: Respond) -> None:
        meter = self._meter
        began_ns = 0 if meter is None else meter.clock_ns()

        def done(outcome: ReadOutcome) -> None:
            answer: Answer | Response | None = None
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


def _found(outcome: Answered) -> Answer | None:
    """The value; None: there is none."""
    given = outcome.answer
    assert type(given) is Found, given
    record = given.record
    if record is None:
        return None
    create_revision, mod_revision, version, _, value = record
    return Answer(200, value, _OCTETS, _GET_FIELDS % (mod_revision, create_revision, version, outcome.index))
