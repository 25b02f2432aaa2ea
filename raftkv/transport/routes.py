"""The peers' routes: what other nodes ask of this one.

Told: requests of the lean front. Tells: the node, each decoded envelope or introduction with the exchange
that waits for its reply. It never learns whether a message is acted on: identity and terms are the node's
and the core's to judge.

    POST /raft/v1/request-vote      PreVoteRequest, RequestVote
    POST /raft/v1/append-entries    AppendEntries, Heartbeat
    POST /raft/v1/install-snapshot  InstallSnapshot
    POST /raft/v1/timeout-now       TimeoutNow
    POST /raft/v1/read-index        ReadIndexRequest
    POST /raft/v1/introduce         Introduction
    POST /raft/v1/farewell          Farewell

With a secret, ``guard`` stands before these routes and answers ``POST /raft/v1/hello`` itself.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple, Protocol

from raftkv.core.messages import (
    AppendEntries,
    Envelope,
    Heartbeat,
    InstallSnapshot,
    Introduction,
    PreVoteRequest,
    ReadIndexRequest,
    RequestVote,
    TimeoutNow,
)
from raftkv.errors import MessageError
from raftkv.http.answers import Answer
from raftkv.http.handling import Verdict
from raftkv.http.heads import Head
from raftkv.http.problems import CONTENT_TYPE as PROBLEM_TYPE
from raftkv.http.problems import problem
from raftkv.transport import codec, farewell
from raftkv.transport.farewell import Farewell

PREFIX: Final = b"/raft/"
CONTENT_TYPE: Final = b"application/msgpack"


class Route(NamedTuple):
    """One of the peers' routes."""

    messages: tuple[type[Any], ...]
    body_bytes_max: int


REQUEST_VOTE: Final = b"/raft/v1/request-vote"
APPEND_ENTRIES: Final = b"/raft/v1/append-entries"
INSTALL_SNAPSHOT: Final = b"/raft/v1/install-snapshot"
TIMEOUT_NOW: Final = b"/raft/v1/timeout-now"
READ_INDEX: Final = b"/raft/v1/read-index"
INTRODUCE: Final = b"/raft/v1/introduce"
FAREWELL: Final = b"/raft/v1/farewell"
HELLO: Final = b"/raft/v1/hello"
"""Only at a node that has the peers' secret (``guard``); elsewhere there is no such route."""

ROUTES: Final = {
    REQUEST_VOTE: Route((PreVoteRequest, RequestVote), codec.SMALL_BYTES_MAX),
    APPEND_ENTRIES: Route((AppendEntries, Heartbeat), codec.APPEND_BYTES_MAX),
    INSTALL_SNAPSHOT: Route((InstallSnapshot,), codec.SNAPSHOT_BYTES_MAX),
    TIMEOUT_NOW: Route((TimeoutNow,), codec.SMALL_BYTES_MAX),
    READ_INDEX: Route((ReadIndexRequest,), codec.SMALL_BYTES_MAX),
    INTRODUCE: Route((), codec.INTRODUCTION_BYTES_MAX),
    FAREWELL: Route((), farewell.FAREWELL_BYTES_MAX),
}
TARGET_OF: Final = {message: target for target, route in ROUTES.items() for message in route.messages}
"""Where each request goes."""


class Asked(Protocol):
    """What is used here of the lean front's exchange; who stands before these routes may put its own in its place."""

    head: Head
    body: bytes

    def respond(self, answer: Answer) -> None:
        """The answer goes out."""
        ...


class PeerExchange:
    """A peer's request that waits for its reply. If the connection is gone, the reply goes nowhere."""

    __slots__ = ("_exchange",)

    def __init__(self, exchange: Asked) -> None:
        self._exchange = exchange

    def reply(self, envelope: Envelope) -> None:
        """The reply to a message."""
        self._exchange.respond(Answer(200, codec.encode(envelope), CONTENT_TYPE))

    def introduce(self, introduction: Introduction) -> None:
        """The reply to an introduction."""
        self._exchange.respond(Answer(200, codec.encode_introduction(introduction), CONTENT_TYPE))

    def take_note(self) -> None:
        """The reply to a farewell."""
        self._exchange.respond(Answer(200, b"", CONTENT_TYPE))

    def refuse(self, *, status: int, code: str, detail: str) -> None:
        """A problem instead of a reply: nothing was changed here, and no term was heard."""
        self._exchange.respond(refusal(status, code, detail))


class PeerListener(Protocol):
    """The node, as the peers' routes see it. It answers each exchange exactly once, now or later."""

    def on_message(self, envelope: Envelope, exchange: PeerExchange) -> None:
        """A request of the kind that belongs to its route, not yet checked for whom it is meant."""
        ...

    def on_introduction(self, introduction: Introduction, exchange: PeerExchange) -> None:
        """Another node says who it is."""
        ...

    def on_farewell(self, said: Farewell, exchange: PeerExchange) -> None:
        """Another node says that it stops."""
        ...


class PeerRoutes:
    """The lean front's handler for the peers; what is none of theirs it hands over."""

    def __init__(self, listener: PeerListener) -> None:
        self._listener = listener

    def on_head(self, head: Head) -> int | Answer | Verdict:
        """The route's limit, or what is wrong with the request."""
        target = head.target
        if not target.startswith(PREFIX):
            return Verdict.HAND_OVER
        route = ROUTES.get(target)
        if route is None:
            return refusal(404, "not_found", "no such route between peers")
        return within(head, route.body_bytes_max)

    def on_request(self, exchange: Asked) -> None:
        """Decodes, and hands to the node what belongs to the route."""
        target = exchange.head.target
        try:
            if target == INTRODUCE:
                introduction = codec.decode_introduction(exchange.body)
                self._listener.on_introduction(introduction, PeerExchange(exchange))
                return
            if target == FAREWELL:
                self._listener.on_farewell(farewell.decode(exchange.body), PeerExchange(exchange))
                return
            envelope = codec.decode(exchange.body)
        except MessageError as error:
            exchange.respond(refusal(400, "bad_request", str(error)))
            return
        if not isinstance(envelope.message, ROUTES[target].messages):
            kind = type(envelope.message).__name__
            exchange.respond(refusal(400, "bad_request", f"{kind} does not belong to this route"))
            return
        self._listener.on_message(envelope, PeerExchange(exchange))


def within(head: Head, body_bytes_max: int) -> int | Answer:
    """The limit, if the request is of the form that all the peers' routes take; else what is wrong with it."""
    if head.method != b"POST":
        return refusal(405, "method_not_allowed", "peers POST")._replace(fields=b"Allow: POST\r\n")
    if head.value(b"content-type") != CONTENT_TYPE:
        return refusal(415, "unsupported_media_type", "peers speak application/msgpack")
    if head.value(b"content-encoding") not in (None, b"identity"):
        return refusal(415, "unsupported_media_type", "peers' bodies are not encoded further")
    return body_bytes_max


def refusal(status: int, code: str, detail: str) -> Answer:
    """A problem instead of an answer."""
    return Answer(status, problem(status=status, code=code, detail=detail), PROBLEM_TYPE)
