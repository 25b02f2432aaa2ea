"""The client's end of a connection to a peer with whom this node shares a secret.

Told: requests to post, as any connection is. Tells: their answers, each only after its proof was found right.
It says hello by itself; ``greeted`` is done when the peer has proved that it is there now and knows the
secret, or when there is no hope of it. An answer without its proof ends the connection: whoever has taken
over the address of a dead peer could otherwise acknowledge entries in its name.
"""

from __future__ import annotations

import asyncio
from secrets import token_bytes
from typing import Any, Final, NamedTuple

from raftkv.core.types import NodeId
from raftkv.errors import MessageError
from raftkv.http.client import ClientProtocol, ExchangeLimits, Poster
from raftkv.transport import seals
from raftkv.transport.routes import CONTENT_TYPE, HELLO
from raftkv.transport.seals import Hello, PeerKeys, Session
from raftkv.transport.secret import PeerSecret

_POST: Final = b"POST"


class Credentials:
    """Who this node is to its peers, and how it proves it."""

    __slots__ = ("keys", "me")

    def __init__(self, secret: PeerSecret, me: NodeId) -> None:
        self.keys, self.me = PeerKeys(secret), me


class Refusal(NamedTuple):
    """What stands between two nodes: a code of the closed list, and a sentence of our own."""

    code: str
    text: str


class SealedProtocol(ClientProtocol):
    """One connection; ``post`` only after ``greeted``, while ``has_room``."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        credentials: Credentials,
        peer: NodeId,
        authority: bytes,
        limits: ExchangeLimits,
        poster: Poster,
    ) -> None:
        super().__init__(loop, authority=authority, content_type=CONTENT_TYPE, limits=limits, poster=poster)
        self.greeted: asyncio.Future[None] = loop.create_future()
        self.refusal: Refusal | None = None
        """Why the connection was ended, where the secret is the reason."""
        self._credentials, self._peer = credentials, peer
        self._hello = Hello(credentials.me, peer, token_bytes(seals.NONCE_BYTES))
        self._session: Session | None = None
        self._requests_count = 0
        self._answers_count = 0
        self._proof: bytes | None = None
        """Of the answer that is being received."""

    def post(self, target: bytes, body: bytes, context: Any, fields: bytes = b"") -> None:
        """With its proof."""
        session = self._session
        assert session is not None, "wait until it is greeted"
        self._requests_count += 1
        proof = session.request_proof(self._requests_count, _POST, target, body)
        super().post(target, body, context, fields + seals.request_field(proof))

    # What the transport tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Hello is said."""
        super().connection_made(transport)
        body = self._hello.encode()
        proof = seals.hello_proof(self._credentials.keys, _POST, HELLO, body)
        super().post(HELLO, body, None, seals.request_field(proof))

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody need wait for a welcome any more."""
        super().connection_lost(exc)
        self._end_greeting()

    # What the parser tells.

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of the answer that is being received; said twice, it proves nothing."""
        if name.lower() == seals.ANSWER_FIELD_NAME:
            self._proof = value if self._proof is None else b""

    def _answered(self, status: int, body: bytes) -> None:
        proof, self._proof = self._proof, None
        session = self._session
        if session is None:
            self._welcomed(status, body, proof)
            return
        self._answers_count += 1
        if seals.is_same(proof, session.answer_proof(self._answers_count, status, body)):
            super()._answered(status, body)
        else:
            self._refuse("forbidden", f"an answer in {self._peer}'s name bears no proof ({status})")

    def _welcomed(self, status: int, body: bytes, proof: bytes | None) -> None:
        if status != 200:
            why = _why_unwelcome(self._peer, status)
            if why is None:
                self.close(f"hello was answered with {status}")
            else:
                self._refuse(*why)
            return
        try:
            session = Session(self._credentials.keys, self._hello, seals.decode_welcome(body))
        except MessageError:
            session = None
        if session is None or not seals.is_same(proof, session.welcome_proof()):
            self._refuse("forbidden", f"whoever answers at {self._peer}'s address does not have the same peer secret")
            return
        self._next_waiting()
        self._session = session
        self._end_greeting()

    def _refuse(self, code: str, text: str) -> None:
        self.refusal = Refusal(code, text)
        self.close(text)

    def _end_greeting(self) -> None:
        if not self.greeted.done():
            self.greeted.set_result(None)


def _why_unwelcome(peer: NodeId, status: int) -> Refusal | None:
    """In our own words: what stands in an answer without a proof could be anybody's. None: it is not the secret."""
    if status == 403:
        return Refusal("forbidden", f"{peer} does not have the same peer secret")
    if status == 404:
        return Refusal("unauthorized", f"{peer} has no peer secret, and this node has one: give it --peer-secret-file")
    if status == 409:
        return Refusal("wrong_cluster", f"another node answers at {peer}'s address")
    return None
