"""What the lean front and whoever handles its requests say to each other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, Protocol

from raftkv.http.answers import Answer, Ready
from raftkv.http.heads import Head
from raftkv.http.room import BodyRoom


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Limits of one client connection; times in seconds."""

    head_timeout_s: float = 10.0
    """From the first byte of a head (or from the accept) to its last."""
    body_timeout_s: float = 30.0
    """For any body, and beside it the time that ``body_rate_bytes_per_s`` gives it for what has come."""
    body_rate_bytes_per_s: float = 64 * 1024.0
    idle_timeout_s: float = 75.0
    """Between an answer and the next request."""
    write_stall_timeout_s: float = 30.0
    """How long the client may leave answers unread."""
    discard_timeout_s: float = 2.0
    discard_bytes_max: int = 8 * 1024 * 1024
    """What is refused is still read, within these two bounds, so that the client sees its answer."""
    outstanding_max: int = 64
    """Requests of one connection that wait for their answers; then its bytes are left in the kernel."""
    refusal_fields: bytes = b""
    """Header lines that the refusal of what is no request carries, each ended by CRLF."""


class Verdict(Enum):
    """What a handler may say of a head besides a limit or an answer."""

    HAND_OVER = "hand over"
    """Another front serves this one, and all that follow on this connection."""


class Within(NamedTuple):
    """A handler's word on a head whose body is to be read: how much of it, and where it takes its room from."""

    body_bytes_max: int
    room: BodyRoom
    no_room: Callable[[], Answer]
    """What the request is answered where there is none …"""
    too_large: Callable[[], Answer]
    """… and where its body does not end within the bound."""


class Connection(Protocol):
    """What a request came on, to whoever must end it."""

    @property
    def is_open(self) -> bool:
        """It is neither gone nor handed over."""
        ...

    def abort(self) -> None:
        """It is closed at once, whatever is outstanding."""
        ...


class Exchange:
    """One request and the place of its answer."""

    __slots__ = ("_answered", "answer", "body", "connection", "head")

    def __init__(self, head: Head, answered: Callable[[], None], connection: Connection) -> None:
        self.head = head
        self.connection = connection
        self.body = b""
        """Whole, once ``Handler.on_request`` is told of it."""
        self.answer: Answer | Ready | None = None
        self._answered = answered

    def respond(self, answer: Answer | Ready) -> None:
        """The answer goes out once all before it have; if the connection is gone, nowhere."""
        assert self.answer is None, "a request is answered once"
        self.answer = answer
        self._answered()


class Handler(Protocol):
    """Who knows what requests mean."""

    def on_head(self, head: Head) -> int | Within | Answer | Verdict:
        """The most bytes of body this request may have; or its answer, before any body is read."""
        ...

    def on_request(self, exchange: Exchange) -> None:
        """The request is whole: ``exchange.respond`` it once, now or later."""
        ...


class HandOver(NamedTuple):
    """A connection as another front takes it: nothing outstanding, at the start of a request."""

    transport: asyncio.Transport
    unread: bytes
    ended: bool
    """The client has sent its last byte."""
