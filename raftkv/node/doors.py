"""The ports of one node: one for clients and peers alike, or one for each of them.

Told: the addresses, who answers peers and who clients. Tells: the operating system what to bind. With a port
for peers alone, their routes are on that port only, and nothing else is.
"""

from __future__ import annotations

import asyncio
import logging
import resource
from asyncio import AbstractEventLoop
from collections.abc import Callable
from typing import Final, NamedTuple

from raftkv.api.lean_front import LeanFront, connection_settings
from raftkv.config import NodeConfig
from raftkv.http.answers import Answer
from raftkv.http.door import Door, DoorSettings, Front
from raftkv.http.handling import Exchange, Handler, Verdict, Within
from raftkv.http.heads import Head
from raftkv.node.logs import event
from raftkv.transport.guard import PeerGate, PeerGuard
from raftkv.transport.routes import PeerRoutes, refusal
from raftkv.values import Address, is_loopback

_LOG: Final = logging.getLogger("raftkv.node")
DESCRIPTORS_RESERVED: Final = 128
"""For the log, the links to peers, and what else a node opens."""
_CLIENTS_MAX: Final = 10_000
_PEERS_MAX: Final = 1024
_BACKLOG: Final = 1024


class Room(NamedTuple):
    """How many connections each port takes."""

    clients_max: int
    peers_max: int
    backlog: int
    """So many more may have been accepted before any is refused."""


def room_within(descriptors_max: int, *, apart: bool) -> Room:
    """What this many file descriptors are enough for, beside the log's.

    Else anybody who opens connections and says nothing takes the last descriptor, the next segment of the log
    cannot be opened, and the node stops.
    """
    free = max(descriptors_max - DESCRIPTORS_RESERVED, DESCRIPTORS_RESERVED // 2)
    backlog = min(_BACKLOG, free // 4)
    peers_max = min(_PEERS_MAX, free // 8) if apart else 0
    rest = free - (backlog + peers_max + backlog if apart else backlog)
    return Room(min(_CLIENTS_MAX, rest), peers_max, backlog)


def descriptors_max() -> int:
    """How many file descriptors this process may have open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 2**20 if soft == resource.RLIM_INFINITY else soft


class Doors:
    """Opened once, closed once."""

    def __init__(
        self,
        loop: AbstractEventLoop,
        config: NodeConfig,
        routes: PeerRoutes,
        front: Front,
        lean: LeanFront | None,
        *,
        complain: Callable[[str], None],
    ) -> None:
        """``lean`` serves what it knows of clients' requests, ``front`` the rest; None: ``front`` serves all.

        ``complain`` hears in words who does not have the peers' secret, where this node has one.
        """
        self._loop, self._config = loop, config
        self._servers: list[asyncio.Server] = []
        for_peers = _for_peers(config, routes, complain)
        apart = config.peers_have_their_own_port
        self._room = room = room_within(descriptors_max(), apart=apart)
        connection = connection_settings(config.api, config.id)
        settings = DoorSettings(room.clients_max, connection)
        if apart:
            only_clients = (lambda: _CLIENTS_ONLY) if lean is None else lean.handler
            clients = Door(loop, only_clients, front, settings)
            limits = DoorSettings(room.peers_max, connection)
            peers = Door(loop, lambda: PeersOnly(for_peers()), _NO_FRONT, limits, gives_way=is_unproved)
            self._doors: list[tuple[Address, Door]] = [(config.listen, clients), (config.peer_listen, peers)]
        else:
            for_all = for_peers if lean is None else lambda: lean.handler(for_peers())
            self._doors = [(config.listen, Door(loop, for_all, front, settings))]

    async def open(self) -> None:
        """Every port is bound. An OSError says in ``filename`` which one is not; the others are still to be closed."""
        for address, door in self._doors:
            try:
                server = await self._loop.create_server(door, address.host, address.port, backlog=self._room.backlog)
            except OSError as error:
                error.filename = f"{address.host}:{address.port}"
                raise
            self._servers.append(server)
        clients = self._config.listen
        if not is_loopback(clients.host) and not self._config.insecure:
            text = "clients prove nothing: whoever reaches %s:%d can read and write everything"
            _LOG.warning(text, *clients, extra=event("clients_unproved"))

    def stop_accepting(self) -> None:
        """Nobody new comes in."""
        for server in self._servers:
            server.close()

    async def close(self, grace_s: float) -> None:
        """Every connection that is not with the other front is closed, after its outstanding answers, or then."""
        await asyncio.gather(*(door.close(grace_s) for _, door in self._doors))


def _for_peers(config: NodeConfig, routes: PeerRoutes, complain: Callable[[str], None]) -> Callable[[], Handler]:
    """Who answers peers: the routes themselves; with a secret, a guard of each connection before them."""
    if config.peer_secret is None:
        return lambda: routes
    return PeerGate(config.peer_secret, config.id, routes, complain)


class ClientsOnly:
    """The handler of a port on which the peers' routes are not."""

    def on_head(self, head: Head) -> Verdict:
        """All of it is the other front's, which knows no such route as peers use."""
        return Verdict.HAND_OVER

    def on_request(self, exchange: Exchange) -> None:
        """Never told: everything is handed over."""
        raise AssertionError("nothing is read here")


class PeersOnly:
    """The handler of one connection to a port on which nothing is but the peers' routes."""

    __slots__ = ("_handler",)

    def __init__(self, handler: Handler) -> None:
        self._handler = handler

    @property
    def is_unproved(self) -> bool:
        """A peer has to prove itself, and did not."""
        return isinstance(self._handler, PeerGuard) and not self._handler.is_proved

    def on_head(self, head: Head) -> int | Within | Answer | Verdict:
        """404 to whatever is none of theirs."""
        verdict = self._handler.on_head(head)
        if verdict is Verdict.HAND_OVER:
            return refusal(404, "not_found", "this port is for other nodes; clients have one of their own")
        return verdict

    def on_request(self, exchange: Exchange) -> None:
        """Passed on."""
        self._handler.on_request(exchange)


def is_unproved(handler: Handler) -> bool:
    """Nobody has proved on its connection to be a peer, where peers have to: it gives way to whoever comes next.

    Else as many strangers as there is room for, who say nothing, would keep a peer out that has been started anew.
    """
    return isinstance(handler, PeersOnly) and handler.is_unproved


class _NoFront:
    """Nothing is ever handed over to it."""

    connections_count: Final = 0

    def protocol_factory(self) -> asyncio.Protocol:
        raise AssertionError("this port hands nothing over")


_CLIENTS_ONLY: Final = ClientsOnly()
_NO_FRONT: Final = _NoFront()
