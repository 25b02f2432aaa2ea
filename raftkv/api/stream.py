"""``/v1/stream``: requests to the store on one WebSocket, many at once, answered in any order. Pure.

Told: a client's messages. Tells: the Api its requests, the client their answers. May never know: sockets, tasks.

    client   [id, method, target, headers, body]    id: a whole number, not that of a request without an answer
    node     [id, status, headers, body]            each a binary message, one msgpack array

Method, target, headers and body are those of the request in HTTP, and what it means is decided by the same code. What
HTTP needs to find the end of a message has no place here: no Content-Length, no Transfer-Encoding. A message that is no
such array ends the stream, because nobody can say what was meant; everything else is answered.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import IntEnum
from typing import Final, NamedTuple

import msgpack

from raftkv.api.exchange import Decision
from raftkv.api.problems import RequestRefused, bad_request, refused_response
from raftkv.api.requests import CONTENT_LENGTH, TRANSFER_ENCODING, Head
from raftkv.api.responses import Response
from raftkv.api.routes import Api
from raftkv.errors import WireError
from raftkv.http.heads import FIELDS_MAX
from raftkv.kv.commands import NUMBER_MAX
from raftkv.problems import Code

LOAD_MAX: Final = 256
"""Of the requests of one stream that wait for their answers; then its bytes are left in the kernel."""
READ_LOAD: Final = 4
"""A read of a key counts so much, since its answer may hold a value …"""
RANGE_LOAD: Final = 32
"""… and what may read many keys so much: so what is answered and not yet sent stays bounded."""

_STREAMED: Final = re.compile(rb"/v1/(?:kv|txn|sessions)(?:[/?].*)?", re.DOTALL)
_METHOD: Final = re.compile(r"[A-Z]{1,32}")
_FIELD_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FIELD_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_OF_HTTPS_FRAMING: Final = frozenset({CONTENT_LENGTH, TRANSFER_ENCODING})
_WITHOUT_BODY: Final = frozenset({204, 304})


class CloseCode(IntEnum):
    """Why a node ends a stream (RFC 6455 section 7.4.1)."""

    GOING_AWAY = 1001
    """The node stops. What it had taken it has answered, as far as that could be done in time."""
    UNSUPPORTED_DATA = 1003
    """A text message."""
    INVALID_MESSAGE = 1007
    """A message that is not the array that it should be."""
    POLICY_VIOLATION = 1008
    """The id of a request without an answer was used again."""
    INTERNAL = 1011
    """The node met a fault of its own."""


class StreamBroken(WireError):
    """What came makes no sense; the stream ends, once what it had asked before is answered."""

    def __init__(self, code: CloseCode, why: str) -> None:
        self.code, self.why = code, why
        super().__init__(f"{code.value}: {why}")


class Asked(NamedTuple):
    """One request as it came: of the right types, and no more is known of it."""

    id: int
    method: str
    target: bytes
    headers: tuple[tuple[str, str], ...]
    body: bytes | None


class Stream:
    """One client's stream."""

    def __init__(self, api: Api, send: Callable[[bytes], None]) -> None:
        """``send`` takes the node's messages, at once or when the answers come."""
        self._api, self._send = api, send
        self._loads: dict[int, int] = {}
        """Of the requests without an answer, by id."""
        self._load = 0

    @property
    def is_full(self) -> bool:
        """So much waits for answers that nothing more should be read."""
        return self._load >= LOAD_MAX

    @property
    def is_idle(self) -> bool:
        """Every request has been answered."""
        return not self._loads

    def receive(self, message: bytes) -> None:
        """The request in it is answered, now or later; raises StreamBroken where there is none."""
        asked = decode(message)
        id = asked.id
        if id in self._loads:
            raise StreamBroken(CloseCode.POLICY_VIOLATION, f"{id} has no answer yet, and is used again")
        decision = self._decide(asked)
        if isinstance(decision, Response):
            self._send(encode_answer(id, decision))
            return
        load = self._loads[id] = _load(asked)
        self._load += load
        decision.finish(asked.body or b"", lambda response: self._answered(id, response))

    def _decide(self, asked: Asked) -> Decision:
        try:
            return self._api.begin(_head(asked))
        except RequestRefused as refused:
            return refused_response(refused)

    def _answered(self, id: int, response: Response) -> None:
        self._load -= self._loads.pop(id)
        self._send(encode_answer(id, response))


def decode(message: bytes) -> Asked:
    """The request in a message; raises StreamBroken."""
    try:
        fields = msgpack.unpackb(
            message,
            object_pairs_hook=tuple,
            max_array_len=len(Asked._fields),
            max_map_len=FIELDS_MAX,
            max_ext_len=0,
            strict_map_key=True,
        )
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise _invalid("it is not msgpack, or beyond its bounds") from error
    if type(fields) is not list or len(fields) != len(Asked._fields):
        raise _invalid("it is not an array of id, method, target, headers and body")
    id, method, target, headers, body = fields
    if type(id) is not int or not 0 <= id <= NUMBER_MAX:
        raise _invalid(f"an id is a whole number between 0 and {NUMBER_MAX}")
    if type(target) is str:
        target = target.encode()
    if type(method) is not str or type(target) is not bytes or type(body) not in (bytes, type(None)):
        raise _invalid("a method is text, a target text or bytes, a body bytes or nil")
    if type(headers) is not tuple or any(type(text) is not str for field in headers for text in field):
        raise _invalid("headers are a map from text to text")
    return Asked(id, method, target, headers, body)


def encode_answer(id: int, response: Response) -> bytes:
    """The message that answers that request. What every answer of a node carries is said once, by the handshake."""
    headers, body = dict(response.headers), b""
    assert len(headers) == len(response.headers), "no answer has a header twice"
    if response.status not in _WITHOUT_BODY:
        headers["Content-Type"] = response.content_type
        if response.body_omitted:
            headers["Content-Length"] = str(len(response.body))
        else:
            body = response.body
    packed: bytes = msgpack.packb([id, response.status, headers, body])
    return packed


def _invalid(why: str) -> StreamBroken:
    return StreamBroken(CloseCode.INVALID_MESSAGE, why)


def _head(asked: Asked) -> Head:
    """As a front would have read it; raises RequestRefused for what no front lets pass, and what no stream carries."""
    if not _METHOD.fullmatch(asked.method):
        raise bad_request("a method is at most 32 capital letters")
    if not _STREAMED.fullmatch(asked.target):
        raise RequestRefused(Code.NOT_FOUND, "only /v1/kv, /v1/txn and /v1/sessions are served over a stream")
    fields = []
    for name, value in asked.headers:
        if not _FIELD_NAME.fullmatch(name) or not _FIELD_VALUE.fullmatch(value):
            raise bad_request(f"{ascii(name)[:80]} is no header field, or has a value that none may have")
        raw_name = name.lower().encode()
        if raw_name in _OF_HTTPS_FRAMING:
            raise bad_request(f"{name} has no meaning here: the body is what stands in the message")
        fields.append((raw_name, value.strip(" \t").encode("latin-1")))
    if asked.body is not None:
        fields.append((CONTENT_LENGTH, str(len(asked.body)).encode()))
    return Head(asked.method, asked.target, fields)


def _load(asked: Asked) -> int:
    if asked.target.startswith(b"/v1/kv/"):
        return READ_LOAD if asked.method == "GET" else 1
    return 1 if asked.target.startswith(b"/v1/sessions") else RANGE_LOAD
