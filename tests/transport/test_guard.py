"""A node that has a secret, asked by whoever has it, has not, or has heard somebody who has."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import pytest

from raftkv.core.types import NodeId
from raftkv.http.handling import Verdict
from raftkv.http.heads import read_head
from raftkv.transport import codec, seals
from raftkv.transport.guard import CONNECTIONS_MAX, STRANGERS_MAX, PeerGate, PeerGuard
from raftkv.transport.routes import APPEND_ENTRIES, HELLO, INTRODUCE, READ_INDEX, PeerRoutes
from raftkv.transport.seals import Hello, PeerKeys, Session
from raftkv.transport.secret import PeerSecret
from tests.http.fronts import Reply, Wire, post, until
from tests.transport.peers import Peer, Peers
from tests.transport.samples import append, envelope, heartbeat, introduction

SECRET = b"the secret of these peers"
KEYS = PeerKeys(PeerSecret(SECRET))
OTHER_KEYS = PeerKeys(PeerSecret(b"the secret of other peers"))
MSGPACK = b"Content-Type: application/msgpack"
HI = Hello(NodeId("n1"), NodeId("n2"), b"h" * seals.NONCE_BYTES)
BEAT = codec.encode(envelope(heartbeat()))


class Raw:
    """A peer that makes its requests by hand, so that any part of them can be wrong."""

    def __init__(self, peer: Peer, wire: Wire) -> None:
        self.peer, self.wire = peer, wire
        self.session: Session | None = None
        self.count = 0

    async def hello(self, hello: Hello = HI, keys: PeerKeys = KEYS) -> Reply:
        body = hello.encode()
        self.wire.send(signed(HELLO, body, seals.hello_proof(keys, b"POST", HELLO, body)))
        reply = await self.wire.reply()
        if reply.status == 200:
            self.session = Session(keys, hello, seals.decode_welcome(reply.body))
            assert reply.fields[b"authentication-info"] == self.session.welcome_proof()
        return reply

    def request(self, target: bytes = APPEND_ENTRIES, body: bytes = BEAT) -> bytes:
        """The next one, as it ought to be."""
        assert self.session is not None
        self.count += 1
        return signed(target, body, self.session.request_proof(self.count, b"POST", target, body))

    async def ask(self, raw: bytes) -> Reply:
        self.wire.send(raw)
        return await self.wire.reply()


def signed(target: bytes, body: bytes, proof: bytes) -> bytes:
    return post(target, body, MSGPACK, b"Authorization: " + proof)


async def raw(peers: Peers) -> Raw:
    """At a peer that has the secret; no hello was said yet."""
    peer = await peers.peer(SECRET)
    return Raw(peer, Wire(*await asyncio.open_connection("127.0.0.1", peer.port)))


async def greeted(peers: Peers) -> Raw:
    made = await raw(peers)
    assert (await made.hello()).status == 200
    return made


def code(reply: Reply) -> tuple[int, str]:
    return reply.status, json.loads(reply.body)["code"]


UNAUTHORIZED, FORBIDDEN = (401, "unauthorized"), (403, "forbidden")


async def test_proved_requests_are_heard_and_their_answers_proved(peers: Peers):
    made = await greeted(peers)
    assert made.session is not None
    reply = await made.ask(made.request(INTRODUCE, codec.encode_introduction(introduction())))
    assert reply.fields[b"authentication-info"] == made.session.answer_proof(1, 200, reply.body)
    reply = await made.ask(made.request())
    assert reply.fields[b"authentication-info"] == made.session.answer_proof(2, 200, reply.body)
    assert made.peer.heard == [introduction(), envelope(heartbeat())]
    assert made.peer.strangers == []


async def test_refusals_of_proved_requests_are_proved_too(peers: Peers):
    """Else a request that a later version knows would look like an attack."""
    made = await greeted(peers)
    assert made.session is not None
    made.peer.refuses = True
    asked = [
        (made.request(b"/raft/v1/install-snapshots"), 404),
        (made.request(body=b"nonsense"), 400),
        (made.request(READ_INDEX), 400),
        (made.request(), 409),
    ]
    for number, (request, status) in enumerate(asked, 1):
        reply = await made.ask(request)
        assert reply.status == status
        assert reply.fields[b"authentication-info"] == made.session.answer_proof(number, status, reply.body)


async def test_without_a_hello_nothing_is_heard(peers: Peers):
    made = await raw(peers)
    stranger = Session(KEYS, HI, b"t" * seals.NONCE_BYTES)
    for request in (
        post(APPEND_ENTRIES, BEAT, MSGPACK),
        post(INTRODUCE, codec.encode_introduction(introduction()), MSGPACK),
        post(APPEND_ENTRIES, b"", MSGPACK),
        post(b"/raft/v1/unknown"),
        signed(APPEND_ENTRIES, BEAT, stranger.request_proof(1, b"POST", APPEND_ENTRIES, BEAT)),
        signed(APPEND_ENTRIES, BEAT, seals.hello_proof(KEYS, b"POST", APPEND_ENTRIES, BEAT)),
    ):
        reply = await made.ask(request)
        assert code(reply) == UNAUTHORIZED
        assert reply.fields[b"www-authenticate"] == b"Raftkv-HMAC"
    assert made.peer.heard == []
    assert len(made.peer.strangers) == 1
    assert (await made.hello()).status == 200, "and a hello can still be said"


async def test_a_stranger_is_refused_before_its_body_is_read(peers: Peers):
    made = await raw(peers)
    head = post(APPEND_ENTRIES, bytes(1024 * 1024), MSGPACK)[: -1024 * 1024]
    assert code(await made.ask(head)) == UNAUTHORIZED


async def test_a_hello_with_another_secret_is_refused_by_name(peers: Peers):
    made = await raw(peers)
    assert code(await made.hello(keys=OTHER_KEYS)) == FORBIDDEN
    assert made.peer.strangers == ["n1 (so it calls itself) does not have the same peer secret: it is refused here"]
    assert await made.wire.ended()


def changed_hello(**changes: object) -> bytes:
    """The sound hello's proof over a hello that somebody has changed."""
    sound = HI.encode()
    return signed(HELLO, HI._replace(**changes).encode(), seals.hello_proof(KEYS, b"POST", HELLO, sound))  # type: ignore[arg-type]


SOUND_HELLO = signed(HELLO, HI.encode(), seals.hello_proof(KEYS, b"POST", HELLO, HI.encode()))
BAD_HELLOS = {
    "another sender": changed_hello(sender=NodeId("n3")),
    "another receiver": changed_hello(receiver=NodeId("n3")),
    "another nonce": changed_hello(nonce=b"H" * seals.NONCE_BYTES),
    "no proof": post(HELLO, HI.encode(), MSGPACK),
    "half a proof": SOUND_HELLO.replace(b"Raftkv-HMAC", b"Basic"),
    "two proofs": SOUND_HELLO.replace(b"Content-Length", b"Authorization: Raftkv-HMAC x\r\nContent-Length"),
    "no msgpack": signed(HELLO, b"nonsense", seals.hello_proof(OTHER_KEYS, b"POST", HELLO, b"nonsense")),
    "nothing": post(HELLO, b"", MSGPACK),
}


@pytest.mark.parametrize("name", BAD_HELLOS)
async def test_a_hello_that_is_not_proved_is_refused(peers: Peers, name):
    made = await raw(peers)
    assert code(await made.ask(BAD_HELLOS[name])) == FORBIDDEN
    assert await made.wire.ended()
    assert made.peer.heard == []


@pytest.mark.parametrize(
    ("request_of", "status", "said"),
    [
        (lambda: SOUND_HELLO.replace(b"POST", b"PUT", 1), 405, "method_not_allowed"),
        (lambda: SOUND_HELLO.replace(b"msgpack", b"json"), 415, "unsupported_media_type"),
        (lambda: post(HELLO, bytes(seals.HELLO_BYTES_MAX + 1), MSGPACK), 413, "too_large"),
        (lambda: signed(HELLO, b"x", seals.hello_proof(KEYS, b"POST", HELLO, b"x")), 400, "bad_request"),
    ],
)
async def test_a_hello_of_another_form_is_refused_for_that(peers: Peers, request_of, status, said):
    made = await raw(peers)
    assert code(await made.ask(request_of())) == (status, said)


async def test_a_hello_for_another_node_is_refused(peers: Peers):
    """So a man in the middle cannot carry what n1 says to n3 over to n2."""
    made = await raw(peers)
    reply = await made.hello(HI._replace(receiver=NodeId("n3")))
    assert code(reply) == (409, "wrong_cluster")
    assert b"authentication-info" not in reply.fields


async def test_hello_is_said_once(peers: Peers):
    """Repeated, it would begin the count anew."""
    made = await greeted(peers)
    assert code(await made.hello()) == (400, "bad_request")
    assert await made.wire.ended()


def same_proof(made: Raw, replaced: bytes, by: bytes) -> bytes:
    sound = made.request()
    assert replaced in sound
    return sound.replace(replaced, by, 1)


def of_other_session(made: Raw, keys: PeerKeys = KEYS, **changes: object) -> bytes:
    session = Session(keys, HI._replace(**changes), b"t" * seals.NONCE_BYTES)  # type: ignore[arg-type]
    return signed(APPEND_ENTRIES, BEAT, session.request_proof(1, b"POST", APPEND_ENTRIES, BEAT))


def of_number(made: Raw, number: int) -> bytes:
    assert made.session is not None
    return signed(APPEND_ENTRIES, BEAT, made.session.request_proof(number, b"POST", APPEND_ENTRIES, BEAT))


def flipped_proof(made: Raw, bit: int) -> bytes:
    sound = made.request()
    place = sound.index(b"Raftkv-HMAC ") + len(b"Raftkv-HMAC ") + bit
    changed = b"A" if sound[place : place + 1] != b"A" else b"B"
    return sound[:place] + changed + sound[place + 1 :]


BODY_OF_ANOTHER_ROUND = codec.encode(envelope(heartbeat(2)))
TAMPERED: dict[str, Callable[[Raw], bytes]] = {
    "another target": lambda made: same_proof(made, APPEND_ENTRIES, READ_INDEX),
    "another body of the same length": lambda made: same_proof(made, BEAT, BODY_OF_ANOTHER_ROUND),
    "another sender in the body": lambda made: same_proof(made, b"\xa2n1", b"\xa2n3"),
    "another cluster in the body": lambda made: same_proof(made, b"c" * 16, b"C" * 16),
    "the proof's first character": lambda made: flipped_proof(made, 0),
    "the proof's last character": lambda made: flipped_proof(made, 42),
    "no proof": lambda made: post(APPEND_ENTRIES, BEAT, MSGPACK),
    "two proofs": lambda made: same_proof(made, b"Content-Length", b"Authorization: Raftkv-HMAC x\r\nContent-Length"),
    "the proof of a hello": lambda made: signed(
        APPEND_ENTRIES, BEAT, seals.hello_proof(KEYS, b"POST", APPEND_ENTRIES, BEAT)
    ),
    "another secret": lambda made: of_other_session(made, OTHER_KEYS),
    "another connection": of_other_session,
    "another nonce": lambda made: of_other_session(made, nonce=b"H" * seals.NONCE_BYTES),
    "another sender": lambda made: of_other_session(made, sender=NodeId("n3")),
    "another receiver": lambda made: of_other_session(made, receiver=NodeId("n3")),
    "the request before": lambda made: of_number(made, 0),
    "the request after": lambda made: of_number(made, 2),
}


@pytest.mark.parametrize("name", TAMPERED)
async def test_a_request_that_was_tampered_with_is_refused(peers: Peers, name):
    made = await greeted(peers)
    assert code(await made.ask(TAMPERED[name](made))) == FORBIDDEN
    assert await made.wire.ended()
    assert made.peer.heard == []
    assert len(made.peer.strangers) == 1


async def test_a_refusal_is_proved_only_to_a_request_that_is(peers: Peers):
    """Else whoever stands between could put nonsense in a request's place, and its sender would go on unaware."""
    for tampered in (
        lambda made: same_proof(made, b"POST", b"PUT"),
        lambda made: same_proof(made, APPEND_ENTRIES, b"/raft/v1/no-such-route"),
        lambda made: same_proof(made, b"application/msgpack", b"application/json"),
        lambda made: same_proof(made, b"Content-Length", b"Content-Encoding: gzip\r\nContent-Length"),
        lambda made: post(b"/raft/v1/no-such-route"),
        lambda made: post(APPEND_ENTRIES, bytes(codec.APPEND_BYTES_MAX + 1), MSGPACK)[:1000],
    ):
        made = await greeted(peers)
        reply = await made.ask(tampered(made))
        assert b"authentication-info" not in reply.fields, reply.status
        assert await made.wire.ended()
        assert made.peer.heard == []


async def test_a_repeated_hello_alone_brings_no_large_body_in(peers: Peers):
    """It is not known yet who has said it; a peer's first request is its introduction, and that is small."""
    made = await raw(peers)
    assert (await made.ask(SOUND_HELLO)).status == 200
    size = codec.INTRODUCTION_BYTES_MAX + 1
    assert code(await made.ask(post(APPEND_ENTRIES, bytes(size), MSGPACK)[:-size])) == (413, "too_large")
    made = await greeted(peers)
    assert (await made.ask(made.request())).status == 200
    large = codec.encode(envelope(append(bytes(size))))
    assert (await made.ask(made.request(body=large))).status == 200


async def test_a_hello_that_is_repeated_again_and_again_is_told_of_once(peers: Peers):
    """Or whoever has recorded one could fill the log's disk: only a proved request shows that the peer is there."""
    peer = await peers.peer(SECRET)
    for _ in range(5):
        made = Raw(peer, Wire(*await asyncio.open_connection("127.0.0.1", peer.port)))
        assert (await made.ask(SOUND_HELLO)).status == 200
        assert code(await made.ask(of_other_session(made))) == FORBIDDEN
    assert len(peer.strangers) == 1
    made = Raw(peer, Wire(*await asyncio.open_connection("127.0.0.1", peer.port)))
    await made.hello()
    assert (await made.ask(made.request())).status == 200
    assert code(await made.ask(of_other_session(made))) == FORBIDDEN
    assert len(peer.strangers) == 2


async def test_names_that_are_made_up_hide_nothing_that_befalls_a_peer(peers: Peers):
    made = await greeted(peers)
    for name in ("n1", *(f"x{number}" for number in range(1, STRANGERS_MAX))):
        stranger = Raw(made.peer, Wire(*await asyncio.open_connection("127.0.0.1", made.peer.port)))
        await stranger.hello(HI._replace(sender=NodeId(name)), OTHER_KEYS)
    assert len(made.peer.strangers) == STRANGERS_MAX
    assert code(await made.ask(of_other_session(made))) == FORBIDDEN
    assert "n1's connection was changed" in made.peer.strangers[-1]


async def test_a_request_that_is_sent_again_is_refused(peers: Peers):
    """faults: what was recorded on the way is worth nothing, neither on its own connection …"""
    made = await greeted(peers)
    first = made.request()
    assert (await made.ask(first)).status == 200
    assert (await made.ask(made.request())).status == 200
    assert code(await made.ask(first)) == FORBIDDEN
    assert await made.wire.ended()
    assert len(made.peer.heard) == 2


async def test_a_recorded_connection_is_worth_nothing(peers: Peers):
    """… nor on another one: the recorded hello gets a new nonce, and what followed does not know it."""
    made = await greeted(peers)
    recorded = [made.request(), made.request()]
    for request in recorded:
        assert (await made.ask(request)).status == 200
    again = Raw(made.peer, Wire(*await asyncio.open_connection("127.0.0.1", made.peer.port)))
    assert (await again.ask(SOUND_HELLO)).status == 200
    assert code(await again.ask(recorded[0])) == FORBIDDEN
    assert len(made.peer.heard) == 2


async def test_what_was_pipelined_behind_a_wrong_proof_is_not_heard(peers: Peers):
    """Nor what was left out noticed only later."""
    made = await greeted(peers)
    _left_out, *others = [made.request() for _ in range(4)]
    made.wire.send(b"".join(others))
    assert code(await made.wire.reply()) == FORBIDDEN
    assert (await made.wire.rest()).count(b"HTTP/1.1 401") == 2
    assert made.peer.heard == []


async def another(peer: Peer) -> Raw:
    """One more connection, on which a request was proved."""
    made = Raw(peer, Wire(*await asyncio.open_connection("127.0.0.1", peer.port)))
    assert (await made.hello()).status == 200
    assert (await made.ask(made.request())).status == 200
    return made


async def test_a_peer_has_no_more_connections_than_it_can_use(peers: Peers):
    """Whoever stands between could keep each one open and have the peer make another, and each may hold 18 MiB."""
    peer = await peers.peer(SECRET)
    kept = [await another(peer) for _ in range(CONNECTIONS_MAX)]
    newest = [await another(peer) for _ in range(3)]
    for made in kept[:3]:
        assert await made.wire.rest() in (b"", b"(reset)")
    for made in (*kept[3:], *newest):
        assert (await made.ask(made.request())).status == 200
    assert peer.strangers == []


async def test_a_peer_is_known_to_be_there_from_its_first_proved_request_to_the_first_wrong_proof(peers: Peers):
    made = await raw(peers)
    assert (await made.ask(post(b"/raft/v1/unknown"))).status == 401
    (guard,) = made.peer.handlers
    assert isinstance(guard, PeerGuard)
    assert not guard.is_proved
    await made.hello()
    assert not guard.is_proved, "it may be a repeated hello"
    await made.ask(made.request())
    assert guard.is_proved
    assert code(await made.ask(of_other_session(made))) == FORBIDDEN
    assert not guard.is_proved


async def test_connections_of_a_peer_that_are_gone_cost_it_none(peers: Peers):
    """A lane that is made again and again does not end the other one."""
    peer = await peers.peer(SECRET)
    kept = await another(peer)
    for _ in range(2 * CONNECTIONS_MAX):
        made = await another(peer)
        gone = peer.connections[-1]
        made.wire.close()
        await until(lambda: not gone.is_open)  # noqa: B023  # awaited within the turn
    assert (await kept.ask(kept.request())).status == 200


async def test_a_connection_on_which_nobody_is_proved_ends_no_other(peers: Peers):
    """A recorded hello is said as often as anybody likes."""
    made = await greeted(peers)
    assert (await made.ask(made.request())).status == 200
    for _ in range(2 * CONNECTIONS_MAX):
        stranger = Raw(made.peer, Wire(*await asyncio.open_connection("127.0.0.1", made.peer.port)))
        assert (await stranger.ask(SOUND_HELLO)).status == 200
        assert code(await stranger.ask(of_other_session(stranger))) == FORBIDDEN
    assert (await made.ask(made.request())).status == 200


async def test_a_held_answer_is_proved_when_it_comes(peers: Peers):
    """An append's reply waits for the disk while other requests are read."""
    made = await greeted(peers)
    assert made.session is not None
    made.peer.holds = lambda message: not hasattr(message, "round")
    made.wire.send(made.request(body=codec.encode(envelope(append(b"a")))) + made.request())
    await until(lambda: len(made.peer.heard) == 2)
    made.peer.release()
    for number in (1, 2):
        reply = await made.wire.reply()
        assert reply.fields[b"authentication-info"] == made.session.answer_proof(number, 200, reply.body)


class Deaf:
    """A listener that nothing must reach."""

    def on_message(self, envelope, exchange):
        raise AssertionError

    def on_introduction(self, introduction, exchange):
        raise AssertionError

    def on_farewell(self, said, exchange):
        raise AssertionError


class Open:
    """A connection."""

    is_open = True

    def abort(self) -> None:
        raise AssertionError("there is room for it")


def test_names_that_are_made_up_are_not_all_remembered():
    told: list[str] = []
    gate = PeerGate(PeerSecret(SECRET), NodeId("n2"), PeerRoutes(Deaf()), told.append)
    for number in range(10 * STRANGERS_MAX):
        gate.refused(NodeId(f"x{number}"), f"x{number}")
    assert len(told) == STRANGERS_MAX


def test_a_peer_that_has_proved_itself_is_told_of_again_when_it_fails_again():
    told: list[str] = []
    gate = PeerGate(PeerSecret(SECRET), NodeId("n2"), PeerRoutes(Deaf()), told.append)
    for _ in range(3):
        gate.refused(NodeId("n1"), "n1 has another secret")
    assert len(told) == 1
    gate.proved(NodeId("n1"), Open())
    gate.refused(NodeId("n1"), "n1 has another secret")
    assert len(told) == 2


def test_clients_requests_are_handed_over_unproved():
    """On a port that peers and clients share."""
    gate = PeerGate(PeerSecret(SECRET), NodeId("n2"), PeerRoutes(Deaf()), lambda _: None)
    head = read_head(b"GET /v1/kv/a HTTP/1.1\r\nHost: x\r\n\r\n")
    assert head is not None
    assert gate().on_head(head) is Verdict.HAND_OVER
