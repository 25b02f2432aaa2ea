"""Who stands before the peers' routes of a node that has the peers' secret.

Told: the requests of each connection, the routes behind it, and this node's name. Tells: the routes, only
what was proved; whoever has sent anything else, that it is refused; the node, once, who that was. Nothing
of a message is decoded before its proof has been found right.

401 ``unauthorized``: no proof was brought, or no hello before it. 403 ``forbidden``: a proof was brought and
is wrong, so the other end has another secret, or somebody has changed, moved or repeated the request.
"""

from __future__ import annotations

from collections.abc import Callable
from secrets import token_bytes
from typing import Final

from raftkv.core.types import NodeId
from raftkv.errors import MessageError
from raftkv.http.answers import Answer
from raftkv.http.handling import Connection, Exchange, Handler, Verdict
from raftkv.http.heads import Head
from raftkv.transport import codec, seals
from raftkv.transport.routes import CONTENT_TYPE, HELLO, PeerRoutes, refusal, within
from raftkv.transport.seals import Hello, PeerKeys, Session
from raftkv.transport.secret import PeerSecret

STRANGERS_MAX: Final = 64
"""Names that are remembered as refused; anybody can make one up."""
CONNECTIONS_MAX: Final = 8
"""Of one peer that has proved itself, which needs two, and twice that while old ones are not known to be gone."""


class PeerGate:
    """All that the connections of one node have in common. Calling it makes the handler of a connection."""

    def __init__(self, secret: PeerSecret, me: NodeId, routes: PeerRoutes, complain: Callable[[str], None]) -> None:
        """``complain`` hears in words who was refused: each name once, until it has proved itself again."""
        self.keys = PeerKeys(secret)
        self.me = me
        self.routes = routes
        self._complain = complain
        self._refused: dict[NodeId | None, None] = {}
        """Who was told of, by names that anybody can give itself."""
        self._disproved: dict[NodeId, None] = {}
        """Who was told of, by names that whoever knows the secret has given itself."""
        self._connections: dict[NodeId, list[Connection]] = {}
        """Of whoever has proved itself on them, oldest first."""

    def __call__(self) -> Handler:
        """The handler of a connection that has just been accepted."""
        return PeerGuard(self)

    def refused(self, who: NodeId | None, why: str) -> None:
        """Somebody was refused, under the name that it gave itself; None: it gave none that can be believed."""
        if who not in self._refused and len(self._refused) < STRANGERS_MAX:
            self._refused[who] = None
            self._complain(why)

    def disproved(self, who: NodeId, why: str) -> None:
        """Something was wrong on the connection of a peer whose hello was proved."""
        if who not in self._disproved and len(self._disproved) < STRANGERS_MAX:
            self._disproved[who] = None
            self._complain(why)

    def proved(self, who: NodeId, connection: Connection) -> None:
        """This peer has the secret, and this connection is its own.

        It has no more than it can use: whoever stands between could keep each open towards us, have the peer make
        another, and begin a body of 18 MiB on every one of them.
        """
        self._refused.pop(who, None)
        self._disproved.pop(who, None)
        own = [other for other in self._connections.get(who, ()) if other.is_open]
        if len(own) >= CONNECTIONS_MAX:
            own.pop(0).abort()
        self._connections[who] = [*own, connection]


class PeerGuard:
    """The handler of one connection."""

    __slots__ = ("_gate", "_has_proved", "_hello", "_requests_count", "_session", "_verdict")

    def __init__(self, gate: PeerGate) -> None:
        self._gate = gate
        self._session: Session | None = None
        """None: no hello was proved yet, or a later proof was wrong."""
        self._hello: Hello | None = None
        self._requests_count = 0
        """Heads since the welcome: the number of the newest request."""
        self._has_proved = False
        """A request was, and so whoever has said hello is who it says."""
        self._verdict: int | Answer = 0
        """What the routes say of its head; told only when it is proved."""

    @property
    def is_proved(self) -> bool:
        """A peer is known to be there."""
        return self._has_proved and self._session is not None

    def on_head(self, head: Head) -> int | Answer | Verdict:
        """How large a body may be, for whoever has said hello; 401 to everybody else.

        A refusal waits for the body, and for the proof that covers it: were it proved before, whoever stands
        between could put a senseless head in a request's place, and its sender would go on unaware. The first
        request is an introduction, so that a hello that was only repeated lets nothing larger in.
        """
        if head.target == HELLO:
            return within(head, seals.HELLO_BYTES_MAX)
        verdict = self._gate.routes.on_head(head)
        if verdict is Verdict.HAND_OVER:
            return verdict
        if self._session is None:
            return self._unproved()
        self._requests_count += 1
        self._verdict = verdict
        body_bytes_max = codec.APPEND_BYTES_MAX if isinstance(verdict, Answer) else verdict
        return body_bytes_max if self._has_proved else min(body_bytes_max, codec.INTRODUCTION_BYTES_MAX)

    def on_request(self, exchange: Exchange) -> None:
        """Passed on if it is proved."""
        head = exchange.head
        if head.target == HELLO:
            exchange.respond(self._greeted(exchange))
            return
        session, number = self._session, self._requests_count
        if session is None:
            exchange.respond(self._unproved())
            return
        expected = session.request_proof(number, head.method, head.target, exchange.body)
        if not seals.is_same(head.value(seals.REQUEST_FIELD_NAME), expected) or not _bears_peers_fields(head):
            exchange.respond(self._disproved())
            return
        self._believe(exchange)
        if isinstance(self._verdict, Answer):
            exchange.respond(sealed(session, number, self._verdict))
        else:
            self._gate.routes.on_request(SealedExchange(exchange, session, number))

    def _greeted(self, exchange: Exchange) -> Answer:
        """The welcome, if the hello is proved, for us, and the first of its connection."""
        gate, head, body = self._gate, exchange.head, exchange.body
        given = head.value(seals.REQUEST_FIELD_NAME)
        proved = seals.is_same(given, seals.hello_proof(gate.keys, head.method, head.target, body))
        try:
            hello = seals.decode_hello(body)
        except MessageError as error:
            return refusal(400, "bad_request", str(error)) if proved else _forbidden(gate, None)
        if not proved:
            return _forbidden(gate, hello.sender)
        if hello.receiver != gate.me:
            return refusal(409, "wrong_cluster", f"this is {gate.me}, not {hello.receiver}")._replace(close=True)
        if self._hello is not None:
            return refusal(400, "bad_request", "hello is said once on a connection")._replace(close=True)
        nonce = token_bytes(seals.NONCE_BYTES)
        self._hello, self._session = hello, Session(gate.keys, hello, nonce)
        proof = seals.answer_field(self._session.welcome_proof())
        return Answer(200, seals.encode_welcome(nonce), CONTENT_TYPE, fields=proof)

    def _believe(self, exchange: Exchange) -> None:
        """The other end is there now: it has signed our nonce. A hello alone may be a repeated one."""
        assert self._hello is not None
        if not self._has_proved:
            self._has_proved = True
            self._gate.proved(self._hello.sender, exchange.connection)

    def _unproved(self) -> Answer:
        gate = self._gate
        gate.refused(None, "somebody without the peers' secret is refused here: 401 to whatever it says")
        detail = "only nodes with this cluster's peer secret are heard here: see --peer-secret-file"
        return refusal(401, "unauthorized", detail)._replace(fields=seals.CHALLENGE_FIELD)

    def _disproved(self) -> Answer:
        """This connection is not to be believed any more; nor is it worth more of our words."""
        hello, self._session = self._hello, None
        assert hello is not None
        text = f"a request on {hello.sender}'s connection was changed, repeated or put there by somebody else"
        self._gate.disproved(hello.sender, text)
        return refusal(403, "forbidden", "the request does not bear its proof")._replace(close=True)


class SealedExchange:
    """An exchange whose request was proved and whose answer will be. The routes take it for the exchange itself."""

    __slots__ = ("_exchange", "_number", "_session", "body", "head")

    def __init__(self, exchange: Exchange, session: Session, number: int) -> None:
        self._exchange, self._session, self._number = exchange, session, number
        self.head, self.body = exchange.head, exchange.body

    def respond(self, answer: Answer) -> None:
        """It goes out with its proof."""
        self._exchange.respond(sealed(self._session, self._number, answer))


def sealed(session: Session, number: int, answer: Answer) -> Answer:
    """The answer with its proof."""
    field = seals.answer_field(session.answer_proof(number, answer.status, answer.body))
    return answer._replace(fields=answer.fields + field)


def _bears_peers_fields(head: Head) -> bool:
    """What its fields say of the body is what every peer says; they are not signed, so nothing else is believed."""
    return head.value(b"content-type") == CONTENT_TYPE and head.value(b"content-encoding") is None


def _forbidden(gate: PeerGate, who: NodeId | None) -> Answer:
    name = "somebody" if who is None else f"{who} (so it calls itself)"
    gate.refused(who, f"{name} does not have the same peer secret: it is refused here")
    return refusal(403, "forbidden", f"{gate.me} does not have the same peer secret")._replace(close=True)
