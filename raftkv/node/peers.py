"""The peers of this node: a link to each, and what each says of itself.

Told: who the members are, what to send, and by the links what came of it. Tells: the node replies, failures
and introductions. A member's address is where it was last heard to be; its identity is its incarnation.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from random import Random
from typing import Any, Final, Protocol

from raftkv.core.messages import Envelope, Introduction
from raftkv.core.types import Incarnation, Member, NodeId
from raftkv.node.logs import event
from raftkv.transport.codec import MEMBERS_MAX
from raftkv.transport.farewell import Farewell
from raftkv.transport.link import PeerLink
from raftkv.transport.sealed import Credentials
from raftkv.transport.settings import TransportSettings

_LOG: Final = logging.getLogger("raftkv.peers")
COMPLAINTS_MAX: Final = 8
"""Of one peer that are told in the log until it was heard again."""


class PeersListener(Protocol):
    """The node, as its peers see it. Every call only enqueues."""

    def on_reply(self, envelope: Envelope) -> None:
        """A reply to a request of ours."""
        ...

    def on_failed(self, peer: NodeId, request: Envelope, why: str) -> None:
        """This request gets no reply."""
        ...

    def on_introduced(self, peer: NodeId, introduction: Introduction) -> None:
        """Who answers at that peer's address."""
        ...


class ClientUrls:
    """Where clients reach the members, as far as these have said so since this node started.

    The log tells where nodes reach each other. A node introduces itself first on every connection, so whoever
    hears a leader has heard where clients reach it.
    """

    def __init__(self, me: NodeId, *, url: str, peer_url: str) -> None:
        self._me, self._url = me, url
        self._are_the_same = url == peer_url
        """Of this node."""
        self._said: dict[tuple[NodeId, Incarnation], str] = {}

    def heard(self, said: Introduction) -> None:
        """Its newest word counts; the oldest words of all are forgotten where too many are said."""
        speaker = (said.sender, said.incarnation)
        self._said.pop(speaker, None)
        self._said[speaker] = said.client_url or said.url
        if len(self._said) > MEMBERS_MAX:
            del self._said[next(iter(self._said))]

    def of(self, member: Member) -> str | None:
        """Where clients reach it; None: not known.

        Of a member that was not heard yet, a node whose own two addresses are one believes the same.
        """
        if member.id == self._me:
            return self._url
        return self._said.get((member.id, member.incarnation), member.url if self._are_the_same else None)


class Peers:
    """Links by id."""

    def __init__(
        self,
        settings: TransportSettings,
        rng: Random,
        introduction: Callable[[], Introduction],
        listener: PeersListener,
        credentials: Credentials | None = None,
    ) -> None:
        """``credentials``: how this node proves itself to its peers and they to it; None: nobody proves anything."""
        self._credentials = credentials
        self._settings, self._rng, self._introduction, self._listener = settings, rng, introduction, listener
        self._links: dict[NodeId, PeerLink] = {}
        self._urls: dict[NodeId, str] = {}
        self._complaints: dict[NodeId, str] = {}
        """What is wrong at each peer's address, or with how it takes us."""
        self._told: dict[NodeId, set[str]] = {}
        """Which complaints of each peer are in the log since it was heard."""

    def reach(self, members: Iterable[tuple[NodeId, str]]) -> None:
        """There is a link to each of them."""
        for peer, url in members:
            if peer not in self._links:
                self._urls[peer] = url
                self._links[peer] = PeerLink(
                    peer,
                    url,
                    settings=self._settings,
                    rng=self._rng,
                    introduction=self._introduction,
                    listener=self,
                    credentials=self._credentials,
                )

    def send(self, envelope: Envelope) -> None:
        """On its way, or the listener is told that it failed."""
        link = self._links.get(envelope.receiver)
        if link is None:
            self._listener.on_failed(envelope.receiver, envelope, "no such peer")
        else:
            link.send(envelope)

    def names(self) -> list[NodeId]:
        """To whom there is a link, in order of id."""
        return sorted(self._links)

    def let_go(self, peer: NodeId) -> Coroutine[Any, Any, None]:
        """There is no link to it any more, and nothing is known of it: at once, for it may be let in again at once.

        Comes back: the closing of the link that there was.
        """
        link = self._links.pop(peer)
        del self._urls[peer]
        self._complaints.pop(peer, None)
        self._told.pop(peer, None)
        return link.close()

    def introduce_again(self) -> None:
        """What this node says of itself has changed: everybody hears it."""
        for link in self._links.values():
            link.introduce()

    def moved(self, peer: NodeId, url: str) -> None:
        """The peer says that it is reached at ``url`` now."""
        link = self._links.get(peer)
        if link is not None and self._urls[peer] != url:
            _LOG.info("%s is reached at %s now", peer, url, extra=event("peer_moved", peer=peer, url=url))
            self._urls[peer] = url
            link.move(url)

    def is_there(self, peer: NodeId) -> None:
        """It has come to us, or somebody in its name: who has just started again does not wait for our word."""
        link = self._links.get(peer)
        if link is not None:
            link.hurry()

    def links(self) -> list[tuple[PeerLink, str]]:
        """Every link and the URL that it goes to, in order of id; to be looked at."""
        return [(self._links[peer], self._urls[peer]) for peer in sorted(self._links)]

    def complaint_about(self, peer: NodeId) -> str | None:
        """Who answers at the peer's address instead of it, or how it refuses us; None: nobody, and it does not."""
        return self._complaints.get(peer)

    async def take_leave(self, said: Farewell, *, within_s: float) -> None:
        """Every peer that can be reached has heard that this node stops, and why; or that time is over."""
        leaves = [link.take_leave(said) for link in self._links.values()]
        if leaves:
            await asyncio.wait(leaves, timeout=within_s)

    async def close(self) -> None:
        """All links are down."""
        for link in self._links.values():
            await link.close()

    # -- what the links tell

    def on_reply(self, envelope: Envelope) -> None:
        """Handed on."""
        self._listener.on_reply(envelope)

    def on_failed(self, peer: NodeId, request: Envelope, why: str) -> None:
        """Handed on."""
        self._listener.on_failed(peer, request, why)

    def on_introduced(self, peer: NodeId, introduction: Introduction) -> None:
        """Handed on, unless somebody else answers there."""
        if introduction.sender == peer:
            self._complaints.pop(peer, None)
            self._told.pop(peer, None)
            self._listener.on_introduced(peer, introduction)
        else:
            self._is_another(peer, f"{introduction.sender} answers at {self._urls.get(peer)}, where {peer} should be")

    def _is_another(self, peer: NodeId, text: str) -> None:
        if self._is_new(peer, text):
            _LOG.error("%s", text, extra=event("peer_is_another", peer=peer))

    def on_wrong_cluster(self, peer: NodeId, text: str) -> None:
        """Said once, until the peer was heard again."""
        if self._is_new(peer, text):
            _LOG.warning("%s refuses us: %s", peer, text, extra=event("peer_refuses", peer=peer))

    def on_refused(self, peer: NodeId, text: str) -> None:
        """Said once, until the peer was heard again."""
        if self._is_new(peer, text):
            _LOG.error("%s", text, extra=event("peer_refuses", peer=peer))

    def _is_new(self, peer: NodeId, text: str) -> bool:
        """Whether the log should have it. Whoever answers at a peer's address says now this, now that, if he likes."""
        self._complaints[peer] = text
        told = self._told.setdefault(peer, set())
        if text in told or len(told) >= COMPLAINTS_MAX:
            return False
        told.add(text)
        return True

    @staticmethod
    def on_stranger(text: str) -> None:
        """Somebody who asked this node was refused; told once of each, in words."""
        _LOG.warning("%s", text, extra=event("stranger_refused"))
