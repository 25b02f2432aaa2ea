"""The front door of one port: the lean front for what it knows, another one (aiohttp) for everything else.

Told: connections. Tells: nobody anything; it counts them, refuses those above the limit, and closes all of
them at the end. It never learns what is said on them.

Every connection begins at the lean front. At the first request that its handler does not know, with no
answer outstanding, it goes to the other front with the bytes untouched, and stays there. TLS changes nothing here:
the transport is then one that decrypts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, cast

from raftkv.http import problems
from raftkv.http.answers import Answer, encode
from raftkv.http.handling import Handler, HandOver, ServerSettings
from raftkv.http.server import ServerProtocol
from raftkv.problems import Code


@dataclass(frozen=True, slots=True)
class DoorSettings:
    """Limits of one port."""

    connections_max: int = 10_000
    connection: ServerSettings = field(default_factory=ServerSettings)


class Front(Protocol):
    """The other front, to which connections are handed over. Its handlers stand on ``guard.GuardedHandler``."""

    @property
    def connections_count(self) -> int:
        """Those that are open with it."""
        ...

    def protocol_factory(self) -> asyncio.Protocol:
        """The protocol of a connection that begins with it now."""
        ...


class Door:
    """The protocol factory of one listening socket: ``loop.create_server(door, …)``."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        handler_of: Callable[[], Handler],
        other: Front,
        settings: DoorSettings,
        *,
        gives_way: Callable[[Handler], bool] = lambda _: False,
    ) -> None:
        """``handler_of`` makes each connection's handler, or gives one to all; ``other`` takes what is handed over.

        ``gives_way``: whether this handler's connection may be ended, when there is no room, for one that is new.
        """
        self._loop, self._handler_of, self._other, self._settings = loop, handler_of, other, settings
        self._gives_way = gives_way
        self._lean: dict[ServerProtocol, Handler] = {}
        """Oldest first."""
        self._empty: asyncio.Event | None = None

    @property
    def connections_count(self) -> int:
        """How many are open, those with the other front included."""
        return len(self._lean) + self._other.connections_count

    def __call__(self) -> asyncio.Protocol:
        """The protocol of a connection that has just been accepted."""
        if self._empty is not None:
            return _Refused(Code.SHUTTING_DOWN, "this node is stopping; ask another one", self._settings)
        if self.connections_count >= self._settings.connections_max and not self._made_room():
            detail = "this node has as many connections as it takes; try another, or later"
            return _Refused(Code.OVERLOADED, detail, self._settings)
        handler = self._handler_of()
        protocol = ServerProtocol(
            self._loop,
            handler,
            self._settings.connection,
            on_closed=self._lean_closed,
            on_hand_over=self._hand_over,
        )
        self._lean[protocol] = handler
        return protocol

    async def close(self, grace_s: float) -> None:
        """Every lean connection is closed, after its outstanding answers, or when ``grace_s`` have passed.

        New ones are refused. Those with the other front are its own to close.
        """
        self._empty = asyncio.Event()
        for protocol in tuple(self._lean):
            protocol.close_gracefully()
        self._look_if_empty()
        try:
            async with asyncio.timeout(grace_s):
                await self._empty.wait()
        except TimeoutError:
            for protocol in tuple(self._lean):
                protocol.abort()

    def _made_room(self) -> bool:
        """The oldest connection that gives way is ended; false: none does."""
        for protocol, handler in self._lean.items():
            if self._gives_way(handler):
                del self._lean[protocol]
                protocol.abort()
                return True
        return False

    def _hand_over(self, protocol: ServerProtocol, connection: HandOver) -> None:
        del self._lean[protocol]
        self._look_if_empty()
        handler = self._other.protocol_factory()
        connection.transport.set_protocol(handler)
        handler.connection_made(connection.transport)
        handler.data_received(connection.unread)
        if connection.ended and not handler.eof_received():
            connection.transport.close()

    def _lean_closed(self, protocol: ServerProtocol) -> None:
        self._lean.pop(protocol, None)
        self._look_if_empty()

    def _look_if_empty(self) -> None:
        if self._empty is not None and not self._lean:
            self._empty.set()


class _Refused(asyncio.Protocol):
    """A connection that is not taken is told why and closed, at no further cost."""

    def __init__(self, code: Code, detail: str, settings: DoorSettings) -> None:
        self._code, self._detail, self._settings = code, detail, settings

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Says it without having read anything."""
        status, fields = self._code.status, self._settings.connection.refusal_fields + b"Retry-After: 1\r\n"
        body = problems.problem(status=status, code=self._code.text, detail=self._detail)
        parts: list[bytes] = []
        encode(parts, Answer(status, body, problems.CONTENT_TYPE, fields), None, close=True)
        writing = cast(asyncio.WriteTransport, transport)
        writing.writelines(parts)
        writing.close()
