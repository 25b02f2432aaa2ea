"""A link with a secret: it talks to whoever has the same one, believes proved answers only, and says who has not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from raftkv.core.messages import AppendEntries, Envelope
from raftkv.transport import codec, seals
from raftkv.transport.seals import PeerKeys, Session
from raftkv.transport.secret import PeerSecret
from tests.http.fronts import until
from tests.transport.middle import Alteration, Middle, as_it_is, proofs_in, replacing
from tests.transport.peers import Node, Peer, Peers
from tests.transport.samples import append, envelope, heartbeat, introduction

SECRET, OTHER = b"the secret of these peers", b"the secret of other peers"


async def test_peers_with_one_secret_talk(peers: Peers):
    peer = await peers.peer(SECRET)
    link, node = await peers.connected(peer)
    for round in range(50):
        link.send(envelope(heartbeat(round)))
    for _ in range(4):
        link.send(envelope(append(bytes(1024 * 1024))))
    await until(lambda: len(node.replies) == 54)
    assert (node.failed, node.refused, peer.strangers) == ([], [], [])
    assert link.refusal is None


async def test_a_connection_that_was_lost_is_greeted_anew(peers: Peers):
    peer = await peers.peer(SECRET)
    link, node = await peers.connected(peer)
    peer.stop()
    await peer.listen()
    await until(lambda: len(node.introduced) == 4)
    link.send(envelope(heartbeat()))
    await until(lambda: node.replies)


async def refused(peers: Peers, peer: Peer, *, secret: bytes | None) -> Node:
    """A node whose link was refused for the secret's sake."""
    node = Node()
    link = peers.link(peer, node, secret=secret, reconnect_max_s=0.02)
    await until(lambda: len(node.refused) >= 4)
    link.send(envelope(heartbeat()))
    assert len(set(node.refused)) == 1
    assert link.refusal is not None
    assert link.refusal[2] == node.refused[0] == link.trouble or secret is None
    assert (node.introduced, node.replies, peer.heard) == ([], [], [])
    return node


async def test_another_secret_is_said_on_both_sides(peers: Peers):
    """faults 32, by the secret: no message is heard, so no term moves."""
    peer = await peers.peer(SECRET)
    node = await refused(peers, peer, secret=OTHER)
    assert node.refused[0] == "n2 does not have the same peer secret"
    assert peer.strangers == ["n1 (so it calls itself) does not have the same peer secret: it is refused here"]
    assert [why for _, why in node.failed] == ["not connected"]


async def test_a_peer_without_a_secret_is_not_talked_to(peers: Peers):
    peer = await peers.peer(None)
    node = await refused(peers, peer, secret=SECRET)
    assert "n2 has no peer secret" in node.refused[0]


async def test_a_node_without_a_secret_is_told_that_it_needs_one(peers: Peers):
    peer = await peers.peer(SECRET)
    node = Node()
    link = peers.link(peer, node)
    await until(lambda: len(node.refused) == 2)
    link.send(envelope(heartbeat()))
    await until(lambda: node.failed)
    assert "n2 takes only peers that share its secret" in node.refused[0]
    assert "--peer-secret-file" in node.refused[0]
    assert link.refusal is not None
    assert link.refusal[1] == "unauthorized"
    assert peer.heard == []
    assert len(peer.strangers) == 1


async def test_attempts_with_a_wrong_secret_do_not_become_a_storm(peers: Peers):
    peer = await peers.peer(SECRET)
    node = Node()
    peers.link(peer, node, secret=OTHER, reconnect_first_s=0.001, reconnect_max_s=0.2)
    clock = asyncio.get_running_loop().time
    began_s = clock()
    await until(lambda: len(node.refused) >= 6)
    assert clock() - began_s > 0.2


# -------------------------------------------------------------------- somebody at a peer's address


class At(Peer):
    """A peer as a link sees it that goes by another port."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.port = port


async def through_the_middle(peers: Peers, act: Callable[[Middle, Peer, Node], Awaitable[None]]) -> None:
    peer, middle, node = await peers.peer(SECRET), Middle(), Node()
    await middle.listen(peer.port)
    try:
        await act(middle, peer, node)
    finally:
        peer.stop()
        await middle.close()


FORGED: dict[str, Alteration] = {
    "another status": replacing(b"HTTP/1.1 200 OK", b"HTTP/1.1 201 Created"),
    "a match that was not": replacing(b"\xc3\x07\x08", b"\xc3\x07\x09"),
    "another proof": replacing(b'mac="', b'mac="A'),
    "no proof": replacing(b"Authentication-Info", b"X-Nothing"),
    "two proofs": replacing(b"Authentication-Info", b'Authentication-Info: mac="x"\r\nAuthentication-Info'),
}


@pytest.mark.parametrize("name", FORGED)
async def test_an_answer_that_was_altered_acknowledges_nothing(peers: Peers, name):
    async def act(middle: Middle, peer: Peer, node: Node) -> None:
        link = peers.link(At(middle.port), node, secret=SECRET)
        await until(lambda: len(node.introduced) == 2)
        middle.back = FORGED[name]
        link.send(envelope(append(b"a")))
        await until(lambda: node.failed)
        assert len([heard for heard in peer.heard if isinstance(heard, Envelope)]) == 1
        assert node.replies == []
        assert "bears no proof" in node.failed[0][1]
        assert link.refusal is not None
        middle.back = as_it_is
        await until(lambda: link.is_connected)
        await until(lambda: len(node.introduced) >= 3)
        link.send(envelope(append(b"a")))
        await until(lambda: node.replies)
        await link.close()

    await through_the_middle(peers, act)


async def test_a_request_that_was_altered_on_its_way_is_not_heard(peers: Peers):
    async def act(middle: Middle, peer: Peer, node: Node) -> None:
        link = peers.link(At(middle.port), node, secret=SECRET)
        await until(lambda: len(node.introduced) == 2)
        middle.there = replacing(b"payload", b"malware")
        link.send(envelope(append(b"payload")))
        await until(lambda: node.failed)
        assert [heard for heard in peer.heard if isinstance(heard, Envelope)] == []
        assert node.replies == []
        await link.close()

    await through_the_middle(peers, act)


async def test_answers_of_an_earlier_connection_prove_nothing(peers: Peers):
    """Whoever takes a dead peer's address and has heard it answer can answer nothing, not even the same again."""

    async def act(middle: Middle, peer: Peer, node: Node) -> None:
        link = peers.link(At(middle.port), node, secret=SECRET, reconnect_first_s=5.0)
        await until(lambda: len(node.introduced) == 2)
        await link.close()
        recorded = [answer for answer in middle.answered if b"mac=" in answer]
        assert len(recorded) >= 4, "two welcomes, two introductions"

        later = Node()

        async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"".join(recorded))

        impostor = await asyncio.start_server(answer, "127.0.0.1", 0)
        link = peers.link(At(impostor.sockets[0].getsockname()[1]), later, secret=SECRET)
        await until(lambda: later.refused)
        assert later.refused[0] == "whoever answers at n2's address does not have the same peer secret"
        assert (later.introduced, link.is_connected) == ([], False)
        impostor.close()
        await link.close()

    await through_the_middle(peers, act)


async def test_an_impostor_that_carries_the_greeting_to_another_member_is_refused(peers: Peers):
    """It hands n1's hello for n2 to n3, which knows the secret: n3 is not n2, and says so."""
    peer, node = await peers.peer(), Node()
    keys = PeerKeys(PeerSecret(SECRET))

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hello = seals.decode_hello(await reader.readuntil(b"\r\n\r\n") and await reader.read(256))
        other = hello._replace(receiver="n3")  # type: ignore[arg-type]  # as n3 would welcome it
        nonce = b"t" * seals.NONCE_BYTES
        body = seals.encode_welcome(nonce)
        field = seals.answer_field(Session(keys, other, nonce).welcome_proof())
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%b\r\n%b" % (len(body), field, body))

    impostor = await asyncio.start_server(answer, "127.0.0.1", 0)
    link = peers.link(At(impostor.sockets[0].getsockname()[1]), node, secret=SECRET)
    await until(lambda: node.refused)
    assert "does not have the same peer secret" in node.refused[0]
    impostor.close()
    await link.close()
    del peer


async def test_a_greeting_that_nobody_answers_is_given_up(peers: Peers):
    """Somebody listens there and says nothing: that is an attempt that failed, not a link that hangs."""
    accepted: list[asyncio.StreamWriter] = []
    let_go: list[bytes] = []

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.append(writer)
        let_go.append(await reader.read())

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    node = Node()
    limits = {"connect_timeout_s": 0.05, "control_timeout_s": 60.0, "bulk_timeout_s": 60.0}
    link = peers.link(At(server.sockets[0].getsockname()[1]), node, secret=SECRET, **limits)
    await until(lambda: len(accepted) >= 4)
    await until(lambda: len(let_go) >= 3)
    assert link.trouble == "no connection within 0.05 s"
    assert not link.is_connected
    await link.close()
    server.close()
    for writer in accepted:
        writer.close()


@pytest.mark.parametrize("status", [b"503 Service Unavailable", b"500 Internal Server Error", b"400 Bad Request"])
async def test_a_peer_that_cannot_welcome_anybody_is_not_said_to_have_another_secret(peers: Peers, status):
    """It has as many connections as it takes, say."""

    async def full(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 %b\r\nContent-Length: 0\r\n\r\n" % status)

    server = await asyncio.start_server(full, "127.0.0.1", 0)
    node = Node()
    link = peers.link(At(server.sockets[0].getsockname()[1]), node, secret=SECRET)
    await until(lambda: link.trouble == f"hello was answered with {status[:3].decode()}")
    assert (node.refused, link.refusal, link.is_connected) == ([], None, False)
    await link.close()
    server.close()


async def test_a_link_that_is_closed_or_moved_while_it_greets_lets_go(peers: Peers):
    accepted: list[asyncio.StreamWriter] = []

    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.append(writer)

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    there, node = await peers.peer(SECRET), Node()
    link = peers.link(At(server.sockets[0].getsockname()[1]), node, secret=SECRET, connect_timeout_s=0.3)
    await until(lambda: len(accepted) == 2)
    link.move(there.url)
    await until(lambda: len(node.introduced) == 2)
    await link.close()
    server.close()
    for writer in accepted:
        writer.close()


@pytest.mark.parametrize("secret", [SECRET, None], ids=["with a secret", "without"])
async def test_a_peer_that_moves_while_it_is_being_connected_to_is_followed(peers: Peers, secret):
    """Wherever between the first attempt and the welcome the word of it comes."""
    old, new = await peers.peer(secret), await peers.peer(secret)
    for turns in range(24):
        node = Node()
        link = peers.link(old, node, secret=secret)
        for _ in range(turns):
            await asyncio.sleep(0)
        link.move(new.url)
        heard = len(new.heard)
        await until(lambda: len(new.heard) == heard + 2)  # noqa: B023  # awaited within the turn
        assert link.is_connected
        await link.close()


async def test_nothing_that_is_told_shows_the_secret_or_a_proof(peers: Peers):
    async def act(middle: Middle, peer: Peer, node: Node) -> None:
        link = peers.link(At(middle.port), node, secret=SECRET)
        await until(lambda: len(node.introduced) == 2)
        middle.back = replacing(b'mac="', b'mac="A')
        link.send(envelope(append(b"a")))
        await until(lambda: node.failed)
        wrong = Node()
        refused_link = peers.link(At(middle.port), wrong, secret=OTHER)
        await until(lambda: wrong.refused)
        told = repr((node.failed, node.refused, wrong.refused, peer.strangers, link.refusal, link.trouble, vars(link)))
        sent = b"".join(middle.heard + middle.answered)
        proofs = proofs_in(sent)
        assert len(proofs) >= 6
        assert not [proof for proof in proofs if proof in told]
        for secret in (SECRET, OTHER):
            assert secret.decode() not in told
            assert secret not in sent
        await refused_link.close()
        await link.close()

    await through_the_middle(peers, act)


def test_the_sample_answer_is_as_the_forgeries_expect():
    """Else an alteration would alter nothing, and its test could not fail."""
    reply = Peer().reply_to(envelope(append(b"a")))
    assert b"\xc3\x07\x08" in codec.encode(reply)
    assert isinstance(append(b"a"), AppendEntries)
    assert introduction().sender == "n1"
