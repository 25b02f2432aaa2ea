"""The link to a peer: who is told what, when the peer answers, does not, refuses, or is gone."""

from __future__ import annotations

import asyncio

import pytest

from raftkv.core.messages import (
    AppendEntries,
    AppendEntriesReply,
    Heartbeat,
    HeartbeatReply,
    InstallSnapshot,
    Introduction,
)
from raftkv.core.types import Index, SnapshotId, Term
from raftkv.transport import codec
from tests.http.fronts import until
from tests.transport.peers import Node, Peers
from tests.transport.samples import append, envelope, heartbeat, introduction


async def test_every_connection_begins_with_an_introduction(peers: Peers):
    peer = await peers.peer()
    link, node = await peers.connected(peer)
    link.send(envelope(heartbeat()))
    link.send(envelope(append(b"a")))
    await until(lambda: len(node.replies) == 2)
    assert [type(heard) for heard in peer.heard[:2]] == [Introduction, Introduction]
    peer.stop()
    await peer.listen()
    await until(lambda: len(node.introduced) == 4)


async def test_requests_get_their_replies(peers: Peers):
    peer = await peers.peer()
    link, node = await peers.connected(peer)
    for round in range(50):
        link.send(envelope(heartbeat(round)))
    await until(lambda: len(node.replies) == 50)
    assert [reply.round for reply in node.replies if isinstance(reply, HeartbeatReply)] == list(range(50))
    assert node.failed == []


async def test_held_append_delays_no_heartbeat(peers: Peers):
    """The control lane goes on while a bulk reply waits for the peer's disk."""
    peer = await peers.peer()
    peer.holds = lambda message: isinstance(message, AppendEntries)
    link, node = await peers.connected(peer)
    link.send(envelope(append(bytes(1024 * 1024))))
    await until(lambda: peer.held)
    link.send(envelope(heartbeat()))
    await until(lambda: node.replies)
    assert [type(reply) for reply in node.replies] == [HeartbeatReply]
    peer.release()
    await until(lambda: len(node.replies) == 2)
    assert type(node.replies[1]) is AppendEntriesReply


async def test_held_piece_of_a_snapshot_delays_neither_heartbeats_nor_appends(peers: Peers):
    """faults 45: with its last piece the peer proves a whole file."""
    peer = await peers.peer()
    peer.holds = lambda message: isinstance(message, InstallSnapshot)
    link, node = await peers.connected(peer)
    piece = InstallSnapshot(Term(3), SnapshotId(Index(9), Term(2), 2**20, 0), 0, bytes(2**20))
    link.send(envelope(piece))
    assert [why for _, why in node.failed] == ["not connected"], "the lane is made when it is first needed"
    while not peer.held:
        link.send(envelope(piece))
        await asyncio.sleep(0.005)
    link.send(envelope(append(b"a")))
    link.send(envelope(heartbeat()))
    await until(lambda: len(node.replies) == 2)
    assert {type(reply) for reply in node.replies} == {HeartbeatReply, AppendEntriesReply}


async def test_appends_of_a_mebibyte_are_pipelined(peers: Peers):
    peer = await peers.peer()
    link, node = await peers.connected(peer)
    for _ in range(4):
        link.send(envelope(append(bytes(1024 * 1024))))
    assert node.failed == []
    await until(lambda: len(node.replies) == 4)


async def test_full_lane_fails_a_request_at_once(peers: Peers):
    peer = await peers.peer()
    peer.holds = lambda message: True
    link, node = await peers.connected(peer, bulk_outstanding_max=2)
    for _ in range(3):
        link.send(envelope(append(b"a")))
    assert [why for _, why in node.failed] == ["too many requests are outstanding"]
    await until(lambda: len(peer.held) == 2)
    peer.release()
    await until(lambda: len(node.replies) == 2)


async def test_request_without_a_connection_fails_at_once(peers: Peers):
    peer = await peers.peer()
    peer.stop()
    node = Node()
    link = peers.link(peer, node)
    link.send(envelope(heartbeat()))
    assert [why for _, why in node.failed] == ["not connected"]


async def test_lost_connection_fails_what_is_outstanding_and_is_made_again(peers: Peers):
    peer = await peers.peer()
    peer.holds = lambda message: True
    link, node = await peers.connected(peer)
    for round in range(3):
        link.send(envelope(heartbeat(round)))
    await until(lambda: len(peer.held) == 3)
    peer.stop()
    await until(lambda: len(node.failed) == 3)
    assert [message.round for message, _ in node.failed if isinstance(message, Heartbeat)] == [0, 1, 2]
    peer.release()
    peer.holds = lambda message: False
    await peer.listen()
    await until(lambda: link.is_connected)
    link.send(envelope(heartbeat(9)))
    await until(lambda: node.replies)
    assert len(node.failed) == 3


async def test_peer_that_does_not_answer_loses_the_connection(peers: Peers):
    """faults 63: a deadline for every exchange; a late answer can then reach nobody."""
    peer = await peers.peer()
    peer.holds = lambda message: True
    link, node = await peers.connected(peer, control_timeout_s=0.1)
    link.send(envelope(heartbeat(1)))
    link.send(envelope(heartbeat(2)))
    await until(lambda: len(node.failed) == 2)
    assert {why for _, why in node.failed} == {"no answer within 0.1 s"}
    peer.release()
    await until(lambda: len(node.introduced) == 3)
    assert node.replies == []


async def test_deadline_runs_from_each_request(peers: Peers):
    """An answered request does not lend its time to the next one, nor take it away."""
    peer = await peers.peer()
    link, node = await peers.connected(peer, control_timeout_s=0.2)
    clock = asyncio.get_running_loop().time
    until_s = clock() + 0.5
    while clock() < until_s:
        answered = len(node.replies)
        link.send(envelope(heartbeat()))
        await until(lambda: len(node.replies) > answered)  # noqa: B023  # awaited within the turn
    peer.holds = lambda message: True
    began_s = clock()
    link.send(envelope(heartbeat()))
    await until(lambda: node.failed)
    assert 0.15 < clock() - began_s < 2.0


async def test_wrong_cluster_is_reported_in_the_peers_words(peers: Peers):
    """faults 32."""
    peer = await peers.peer()
    peer.refuses = True
    link, node = await peers.connected(peer)
    link.send(envelope(heartbeat()))
    await until(lambda: node.wrong_cluster)
    assert node.wrong_cluster == ["this is another cluster"]
    assert [why for _, why in node.failed] == ["refused: 409 wrong_cluster: this is another cluster"]


async def test_reply_of_another_kind_is_a_failure(peers: Peers):
    peer = await peers.peer()
    peer.wrong_reply = True
    link, node = await peers.connected(peer)
    link.send(envelope(append(b"a")))
    await until(lambda: node.failed)
    assert node.replies == []


async def test_peer_that_moves_is_found_at_its_new_place(peers: Peers):
    old, new = await peers.peer(), await peers.peer()
    old.holds = lambda message: True
    link, node = await peers.connected(old)
    link.send(envelope(heartbeat()))
    await until(lambda: old.held)
    link.move(new.url)
    await until(lambda: len(node.introduced) == 4)
    assert [why for _, why in node.failed] == ["the peer has moved"]
    link.send(envelope(heartbeat()))
    await until(lambda: node.replies)
    assert len(new.heard) == 3


async def test_a_peer_that_moves_while_it_is_down_is_looked_for_at_once(peers: Peers):
    """However long the pause between attempts at its old place has become."""
    down, new = await peers.peer(), await peers.peer()
    down.stop()
    node = Node()
    link = peers.link(down, node, reconnect_first_s=60.0, reconnect_max_s=60.0)
    await until(lambda: link.trouble)
    link.move(new.url)
    await until(lambda: len(node.introduced) == 2)


async def test_a_peer_that_comes_is_tried_at_once(peers: Peers):
    """However long the pause between attempts has become while it was down."""
    peer, node = await peers.peer(), Node()
    peer.stop()
    link = peers.link(peer, node, reconnect_first_s=60.0, reconnect_max_s=60.0)
    await until(lambda: link.trouble)
    await peer.listen()
    link.hurry()
    await until(lambda: link.is_connected)


async def test_a_peer_that_comes_and_comes_and_hangs_up_is_not_stormed(peers: Peers):
    attempts: list[float] = []

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        attempts.append(asyncio.get_running_loop().time())
        writer.close()
        link.hurry()

    peer, node = await peers.peer(), Node()
    peer.stop()
    link = peers.link(peer, node, reconnect_first_s=0.2, reconnect_max_s=0.2)
    server = await asyncio.start_server(hang_up, "127.0.0.1", peer.port)
    link.hurry()
    await until(lambda: len(attempts) >= 12)
    assert attempts[11] - attempts[0] > 0.3
    server.close()


async def test_pieces_of_a_snapshot_go_where_the_peer_is_now(peers: Peers):
    """Their lane is made with the first of them, long after the others perhaps."""
    old, new = await peers.peer(), await peers.peer()
    link, node = await peers.connected(old)
    link.move(new.url)
    await until(lambda: len(node.introduced) == 4)
    link.send(envelope(InstallSnapshot(Term(3), SnapshotId(Index(9), Term(2), 2**20, 0), 0, b"piece")))
    await until(lambda: len(node.introduced) == 5)
    assert len(new.heard) == 3


@pytest.mark.parametrize("url", ["http://[", "http://n1:99999", "http://:1", "http://" + "n" * 64 + ".b:1"])
async def test_a_place_that_is_none_is_an_attempt_that_failed(peers: Peers, url):
    """A peer said that it has moved there; it may yet say something better."""
    peer = await peers.peer()
    link, node = await peers.connected(peer)
    link.move(url)
    await until(lambda: not link.is_connected)
    await until(lambda: link.trouble == "nobody can be reached at its URL")
    link.move(peer.url)
    await until(lambda: len(node.introduced) == 4)


async def test_introduction_can_be_said_again(peers: Peers):
    peer = await peers.peer()
    link, node = await peers.connected(peer)
    link.introduce()
    await until(lambda: len(node.introduced) == 3)


@pytest.mark.parametrize(
    "answer", [b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nabc", b"", None]
)
async def test_what_is_no_peer_is_left_and_tried_again_later(peers: Peers, answer):
    """faults 63: garbage, half an answer, or a close at once; attempts do not become a storm."""
    peer = await peers.peer()
    peer.stop()
    attempts: list[float] = []

    class NoPeer(asyncio.Protocol):
        def connection_made(self, transport):
            attempts.append(asyncio.get_running_loop().time())
            self.transport = transport
            if answer is None:
                transport.close()

        def data_received(self, data):
            self.transport.write(answer)
            self.transport.close()

    server = await asyncio.get_running_loop().create_server(NoPeer, "127.0.0.1", peer.port)
    node = Node()
    peers.link(peer, node, control_timeout_s=0.1, bulk_timeout_s=0.1, reconnect_first_s=0.05)
    await until(lambda: len(attempts) >= 6)
    assert attempts[5] - attempts[0] > 0.05
    assert node.introduced == []
    server.close()
    await peer.listen()
    await until(lambda: len(node.introduced) == 2)


@pytest.mark.parametrize("status", [b"200 OK", b"503 Service Unavailable"])
async def test_a_peer_that_answers_once_and_hangs_up_is_not_stormed(peers: Peers, status):
    """It has as many connections as it takes, say; or somebody between wants another one, and another."""
    body = codec.encode_introduction(introduction())
    answer = b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)
    attempts: list[float] = []

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        attempts.append(asyncio.get_running_loop().time())
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    peer, node = await peers.peer(), Node()
    peer.stop()
    server = await asyncio.start_server(hang_up, "127.0.0.1", peer.port)
    peers.link(peer, node, reconnect_first_s=0.05, reconnect_max_s=0.2)
    await until(lambda: len(attempts) >= 12)
    assert attempts[11] - attempts[0] > 0.3
    server.close()


async def test_closing_fails_what_is_outstanding(peers: Peers):
    peer = await peers.peer()
    peer.holds = lambda message: True
    link, node = await peers.connected(peer)
    link.send(envelope(heartbeat()))
    await link.close()
    assert [why for _, why in node.failed] == ["this node is stopping"]
    link.send(envelope(heartbeat()))
    assert node.failed[1][1] == "not connected"
