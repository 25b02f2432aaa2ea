"""A request's head, read strictly: target, query, numbers, conditions.

Told: a head as it came off the wire. Tells: the same in our terms, or RequestRefused. May never know: which
server it came through, what the table holds.

Nothing is normalised and nothing is guessed: two nodes, or a proxy and a node, that read one target
differently would store one client's key under another's name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple
from urllib.parse import unquote_to_bytes

from raftkv.api.problems import RequestRefused, bad_request
from raftkv.api.settings import ApiSettings
from raftkv.http.heads import HEAD_BYTES_MAX, TARGET_BYTES_MAX
from raftkv.kv.commands import ABSENT, ANY, KEY_BYTES_MAX, NUMBER_MAX, PRESENT, SESSION_BYTES, Expect, Numbered
from raftkv.problems import Code

ACCEPT: Final = b"accept"
CONTENT_LENGTH: Final = b"content-length"
CONTENT_TYPE: Final = b"content-type"
CONTENT_ENCODING: Final = b"content-encoding"
TRANSFER_ENCODING: Final = b"transfer-encoding"
IF_MATCH: Final = b"if-match"
IF_NONE_MATCH: Final = b"if-none-match"
SESSION: Final = b"raftkv-session"
SEQUENCE: Final = b"raftkv-sequence"
ACKNOWLEDGED: Final = b"raftkv-acknowledged"

HEEDED: Final = frozenset(
    {
        ACCEPT,
        CONTENT_LENGTH,
        CONTENT_TYPE,
        CONTENT_ENCODING,
        TRANSFER_ENCODING,
        IF_MATCH,
        IF_NONE_MATCH,
        SESSION,
        SEQUENCE,
        ACKNOWLEDGED,
    }
)
_NOT_IN_A_TARGET: Final = re.compile(rb"[^\x21\x22\x24-\x7e]")
"""``#`` (0x23) too: a fragment is never sent, so whoever sends one meant it as part of the key."""
_BAD_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_NUMBER: Final = re.compile(rb"0|[1-9][0-9]{0,18}")
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")
REVISION_TAG: Final = '"[1-9][0-9]{0,18}"'
"""A revision as a strong tag: an ETag of ours, and what conditions take."""
SESSION_ID: Final = f"[0-9a-f]{{{2 * SESSION_BYTES}}}"
_REVISION_TAG: Final = re.compile(REVISION_TAG.encode())
_SESSION_ID: Final = re.compile(SESSION_ID.encode())
_REQUEST_LINE_BYTES: Final = len(" ") + len(" HTTP/1.1\r\n")
_FIELD_BYTES: Final = len(": ") + len("\r\n")


class Head(NamedTuple):
    """What a front has read before the body; the bytes as they came."""

    method: str
    target: bytes
    headers: Iterable[tuple[bytes, bytes]]
    """Names and values, without the white space around them."""
    http_version: tuple[int, int] = (1, 1)


class Body(NamedTuple):
    """What an action takes as a body."""

    content_types: tuple[str, ...]
    schema: dict[str, Any]
    """Of a structured body; the names of its properties are the fields that are known. Empty: raw bytes."""
    bytes_max: Callable[[ApiSettings], int]
    description: str
    empty_needs_no_type: bool = True
    """An empty body may come without a Content-Type."""

    @property
    def fields(self) -> frozenset[str]:
        """The fields that a structured body may have."""
        return frozenset(self.schema["properties"])


@dataclass(slots=True)
class Request:
    """A head that keeps the rules that hold for every route."""

    method: str
    path: bytes
    """As it came, not decoded: routes are told apart by raw bytes."""
    query: bytes | None
    """As it came, without the ``?``; None: there was none."""
    headers: dict[bytes, bytes]
    """Those that this API heeds, by lower-case name; repeated ones joined by commas (RFC 9110 section 5.3)."""
    parameters: dict[str, Any] = field(default_factory=dict)
    """The query, decoded; filled once the route is known."""
    body: Body | None = None
    """What the action takes as a body; filled once the route is known. None: it takes none."""

    @property
    def path_and_query(self) -> bytes:
        """What a redirect repeats, byte for byte."""
        return self.path if self.query is None else self.path + b"?" + self.query


def read_head(head: Head) -> Request:
    """The request in a head; raises RequestRefused where it breaks a rule of every route."""
    if head.http_version not in ((1, 1), (1, 0)):
        raise bad_request("only HTTP/1.1 and HTTP/1.0 are spoken here")
    headers: dict[bytes, bytes] = {}
    if len(head.target) > TARGET_BYTES_MAX:
        raise RequestRefused(Code.URI_TOO_LONG, f"a target has at most {TARGET_BYTES_MAX} bytes")
    head_bytes = len(head.method) + len(head.target) + _REQUEST_LINE_BYTES
    for name, value in head.headers:
        head_bytes += len(name) + len(value) + _FIELD_BYTES
        name = name.lower()
        if name in HEEDED:
            headers[name] = value if name not in headers else headers[name] + b", " + value
    if head_bytes > HEAD_BYTES_MAX:
        raise RequestRefused(Code.HEAD_TOO_LARGE, f"a head has at most {HEAD_BYTES_MAX} bytes")
    path, query = _split_target(head.target)
    request = Request(head.method, path, query, headers)
    _check_framing(request, head.http_version)
    return request


def _split_target(target: bytes) -> tuple[bytes, bytes | None]:
    if _NOT_IN_A_TARGET.search(target):
        raise bad_request("a target has printable ASCII only, and no '#'; percent-encode the rest")
    if not target.startswith(b"/"):
        raise bad_request("a target begins with a slash")
    path, mark, query = target.partition(b"?")
    return path, query if mark else None


def _check_framing(request: Request, http_version: tuple[int, int]) -> None:
    """Refuses bodies of which another reader could see another end (RFC 9112 section 6.1)."""
    coding = request.headers.get(TRANSFER_ENCODING)
    length = request.headers.get(CONTENT_LENGTH)
    if coding is not None:
        if http_version < (1, 1) or length is not None:
            raise bad_request("Transfer-Encoding goes with HTTP/1.1, and without Content-Length")
        if coding.lower() != b"chunked":
            raise bad_request("no Transfer-Encoding is taken but chunked")
    if length is not None and not _LENGTH.fullmatch(length):
        raise bad_request("Content-Length is not a length")


def body_bytes(request: Request) -> int | None:
    """How long the body will be; None: it comes in chunks, nobody knows."""
    if TRANSFER_ENCODING in request.headers:
        return None
    return int(request.headers.get(CONTENT_LENGTH, b"0"))


def refuse_body(request: Request) -> None:
    """For a method that takes none: a body that was ignored might have been meant."""
    if body_bytes(request) != 0:
        raise bad_request(f"{request.method} takes no body here")


def refuse_large_body(request: Request, *, body_bytes_max: int) -> None:
    """413 where the head already says so."""
    length = body_bytes(request)
    if length is not None and length > body_bytes_max:
        raise too_large(body_bytes_max)


def too_large(body_bytes_max: int) -> RequestRefused:
    """A 413, to be raised."""
    return RequestRefused(Code.TOO_LARGE, f"at most {body_bytes_max} bytes are taken here")


def no_room() -> RequestRefused:
    """A 429, to be raised, where as many bodies are being read as there is room for."""
    return RequestRefused(Code.OVERLOADED, "too many large bodies are being read; ask again soon")


def refuse_encoded_body(request: Request) -> None:
    """A packed body is neither stored as it is nor unpacked (faults 67)."""
    coding = request.headers.get(CONTENT_ENCODING)
    if coding is not None and coding.lower() != b"identity":
        raise RequestRefused(Code.UNSUPPORTED_MEDIA_TYPE, "no Content-Encoding is taken but identity")


def percent_decoded(raw: bytes) -> bytes:
    """Decoded once; raises RequestRefused at an escape that is none."""
    if b"%" not in raw:
        return raw
    if _BAD_ESCAPE.search(raw):
        raise bad_request("'%' is followed by two hexadecimal digits; a '%' itself is %25")
    return unquote_to_bytes(raw)


def key_of(raw: bytes) -> bytes:
    """The key that a path names: ``+`` is a plus."""
    key = percent_decoded(raw)
    if not 1 <= len(key) <= KEY_BYTES_MAX:
        raise bad_request(f"a key is 1 to {KEY_BYTES_MAX} bytes, not {len(key)}")
    return key


def shown(raw: bytes) -> str:
    """Foreign bytes, safe and short enough for a message."""
    return ascii(raw[:64].decode("latin-1"))


def number(raw: bytes, *, name: str, least: int = 0, most: int = NUMBER_MAX) -> int:
    """A decimal number without sign, leading zero or foreign digit; otherwise RequestRefused."""
    if _NUMBER.fullmatch(raw) and least <= int(raw) <= most:
        return int(raw)
    raise bad_request(f"{name} is a number between {least} and {most}, not {shown(raw)}")


def refuse_conditions(request: Request) -> None:
    """For routes on which a condition has no meaning: it is refused, never ignored."""
    if IF_MATCH in request.headers or IF_NONE_MATCH in request.headers:
        raise bad_request("If-Match and If-None-Match are taken on keys only")


def write_condition(request: Request) -> Expect:
    """What a PUT or DELETE demands of its key."""
    if_match, if_none_match = request.headers.get(IF_MATCH), request.headers.get(IF_NONE_MATCH)
    if if_match is None and if_none_match is None:
        return ANY
    if if_match is not None and if_none_match is not None:
        raise bad_request("If-Match and If-None-Match exclude each other")
    if if_match is not None:
        return PRESENT if if_match == b"*" else Expect(_revision(if_match, header="If-Match"))
    if if_none_match != b"*":
        raise bad_request('If-None-Match of a write takes "*" only (the key must be absent)')
    return ABSENT


def read_condition(request: Request) -> int | None:
    """The mod revision that the client has already (GET, HEAD); None: it asks for whatever there is."""
    if IF_MATCH in request.headers:
        raise bad_request("If-Match is for writes")
    tag = request.headers.get(IF_NONE_MATCH)
    return None if tag is None else _revision(tag, header="If-None-Match")


def _revision(tag: bytes, *, header: str) -> int:
    if not _REVISION_TAG.fullmatch(tag) or int(tag[1:-1]) > NUMBER_MAX:
        raise bad_request(f'{header} takes one strong tag, "<revision>" with its quotes, not {shown(tag)}')
    return int(tag[1:-1])


def numbering(request: Request) -> Numbered | None:
    """The session and number of a write that is to be executed at most once; None: it has none."""
    session, sequence = request.headers.get(SESSION), request.headers.get(SEQUENCE)
    acknowledged = request.headers.get(ACKNOWLEDGED)
    if session is None and sequence is None and acknowledged is None:
        return None
    if session is None or sequence is None:
        raise bad_request("Raftkv-Session and Raftkv-Sequence go together")
    return Numbered(
        session_of(session),
        number(sequence, name="Raftkv-Sequence", least=1),
        0 if acknowledged is None else number(acknowledged, name="Raftkv-Acknowledged"),
    )


def refuse_numbering(request: Request) -> None:
    """For writes that cannot be numbered: a client that believed otherwise would repeat them."""
    if request.headers.keys() & {SESSION, SEQUENCE, ACKNOWLEDGED}:
        raise bad_request("only writes to keys are numbered")


def session_of(raw: bytes) -> bytes:
    """A session's id out of its text; raises RequestRefused (410) where no session can ever have had it."""
    if not raw or b"," in raw:
        raise bad_request("exactly one session is named")
    if not _SESSION_ID.fullmatch(raw):
        raise RequestRefused(Code.SESSION_EXPIRED, "there never was a session of this id; nothing was executed")
    return bytes.fromhex(raw.decode())
