"""A peer that answers as a test wants, and links to it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

from raftkv.core.messages import (
    AppendEntries,
    AppendEntriesReply,
    Envelope,
    Heartbeat,
    HeartbeatReply,
    Introduction,
    Message,
)
from raftkv.core.types import Index, NodeId, Round
from raftkv.http.handling import Handler, ServerSettings
from raftkv.http.server import ServerProtocol
from raftkv.transport.farewell import Farewell
from raftkv.transport.guard import PeerGate
from raftkv.transport.link import PeerLink
from raftkv.transport.routes import PeerExchange, PeerRoutes
from raftkv.transport.sealed import Credentials
from raftkv.transport.secret import PeerSecret
from raftkv.transport.settings import TransportSettings
from tests.http.fronts import until
from tests.transport.samples import envelope, introduction


class Peer:
    """The other end: keeps what ``holds`` says, answers the rest, remembers the order of all it heard."""

    def __init__(self, secret: bytes | None = None) -> None:
        self.secret = secret
        self.strangers: list[str] = []
        """What its gate complained of."""
        self.farewells: list[Farewell] = []
        self.heard: list[Envelope | Introduction] = []
        self.held: list[tuple[Envelope, PeerExchange]] = []
        self.holds: Callable[[Message], bool] = lambda _: False
        self.refuses = False
        self.wrong_reply = False
        self.connections: list[ServerProtocol] = []
        self.handlers: list[Handler] = []
        """Of all connections that were ever made."""
        self.server: asyncio.Server | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def listen(self) -> None:
        loop, routes = asyncio.get_running_loop(), PeerRoutes(self)
        settings = ServerSettings()
        gate = None
        if self.secret is not None:
            gate = PeerGate(PeerSecret(self.secret), NodeId("n2"), routes, self.strangers.append)

        def connection() -> ServerProtocol:
            handler: Handler = gate() if gate else routes
            self.handlers.append(handler)
            self.connections.append(ServerProtocol(loop, handler, settings))
            return self.connections[-1]

        self.server = await loop.create_server(connection, "127.0.0.1", self.port)
        self.port = self.server.sockets[0].getsockname()[1]

    def stop(self) -> None:
        """As a crash would: nobody listens, and every connection is gone."""
        if self.server is not None:
            self.server.close()
            self.server = None
        for connection in self.connections:
            connection.abort()
        self.connections.clear()

    def on_message(self, envelope: Envelope, exchange: PeerExchange) -> None:
        self.heard.append(envelope)
        if self.refuses:
            exchange.refuse(status=409, code="wrong_cluster", detail="this is another cluster")
        elif self.holds(envelope.message):
            self.held.append((envelope, exchange))
        else:
            exchange.reply(self.reply_to(envelope))

    def on_introduction(self, introduction: Introduction, exchange: PeerExchange) -> None:
        self.heard.append(introduction)
        exchange.introduce(introduction)

    def on_farewell(self, said: Farewell, exchange: PeerExchange) -> None:
        self.farewells.append(said)
        exchange.take_note()

    def release(self) -> None:
        held, self.held = self.held, []
        for request, exchange in held:
            exchange.reply(self.reply_to(request))

    def reply_to(self, request: Envelope) -> Envelope:
        message = request.message
        if isinstance(message, Heartbeat) or self.wrong_reply:
            round = message.round if isinstance(message, Heartbeat) else Round(0)
            return envelope(HeartbeatReply(message.term, round, Index(0), b""), to="n1")
        assert isinstance(message, AppendEntries)
        prev = message.prev_index
        reply = AppendEntriesReply(message.term, True, prev, Index(prev + len(message.frames)), prev, prev)  # type: ignore[arg-type]
        return envelope(reply, to="n1")


class Node:
    """This end: remembers what its link tells it."""

    def __init__(self) -> None:
        self.replies: list[Message] = []
        self.failed: list[tuple[Message, str]] = []
        self.introduced: list[Introduction] = []
        self.wrong_cluster: list[str] = []
        self.refused: list[str] = []

    def on_reply(self, envelope: Envelope) -> None:
        self.replies.append(envelope.message)

    def on_failed(self, peer: NodeId, request: Envelope, why: str) -> None:
        self.failed.append((request.message, why))

    def on_introduced(self, peer: NodeId, introduction: Introduction) -> None:
        self.introduced.append(introduction)

    def on_wrong_cluster(self, peer: NodeId, text: str) -> None:
        self.wrong_cluster.append(text)

    def on_refused(self, peer: NodeId, text: str) -> None:
        self.refused.append(text)


class Peers:
    """Opens peers and links; closes all of them."""

    def __init__(self) -> None:
        self.failures: list[dict[str, Any]] = []
        self._peers: list[Peer] = []
        self._links: list[PeerLink] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: self.failures.append(context))

    async def peer(self, secret: bytes | None = None) -> Peer:
        peer = Peer(secret)
        await peer.listen()
        self._peers.append(peer)
        return peer

    def link(self, peer: Peer, node: Node, *, secret: bytes | None = None, **settings: Any) -> PeerLink:
        """A link that may not stand yet."""
        link = PeerLink(
            NodeId("n2"),
            peer.url,
            settings=TransportSettings(**settings),
            rng=random.Random(1),
            introduction=introduction,
            listener=node,
            credentials=None if secret is None else Credentials(PeerSecret(secret), NodeId("n1")),
        )
        self._links.append(link)
        return link

    async def connected(self, peer: Peer, **settings: Any) -> tuple[PeerLink, Node]:
        """A link over which both lanes have introduced themselves; it has the peer's secret, if that has one."""
        node = Node()
        link = self.link(peer, node, secret=peer.secret, **settings)
        await until(lambda: len(node.introduced) == 2)
        return link, node

    async def close(self) -> None:
        for link in self._links:
            await link.close()
        for peer in self._peers:
            peer.stop()
