"""Last words: said once to whoever can be reached, believed of members only, and nothing ever waits for them long."""

from __future__ import annotations

import asyncio

import msgpack
import pytest

from raftkv.core.types import ID_BYTES, Incarnation, NodeId
from raftkv.errors import MessageError
from raftkv.transport import codec, farewell
from raftkv.transport.farewell import REASON_CHARACTERS_MAX, Farewell
from tests.transport.peers import Node, Peers

SAID = Farewell(NodeId("n1"), Incarnation(bytes(ID_BYTES)), "its disk failed: Input/output error")


def test_a_farewell_comes_back_as_it_was_said():
    assert farewell.decode(farewell.encode(SAID)) == SAID


def test_a_long_reason_is_cut():
    told = farewell.decode(farewell.encode(SAID._replace(reason="x" * 10_000)))
    assert told.reason == "x" * REASON_CHARACTERS_MAX


@pytest.mark.parametrize(
    "parts",
    [
        (),
        (codec.VERSION, "n1", bytes(ID_BYTES)),
        (codec.VERSION, "n1", bytes(ID_BYTES), "why", "more"),
        (codec.VERSION + 1, "n1", bytes(ID_BYTES), "why"),
        (codec.VERSION, "../n1", bytes(ID_BYTES), "why"),
        (codec.VERSION, "n1", b"short", "why"),
        (codec.VERSION, "n1", bytes(ID_BYTES), 7),
        (codec.VERSION, "n1", bytes(ID_BYTES), "x" * (REASON_CHARACTERS_MAX + 1)),
    ],
    ids=str,
)
def test_what_is_none_is_refused(parts):
    with pytest.raises(MessageError):
        farewell.decode(msgpack.packb(parts))


async def test_a_peer_hears_it_and_whoever_goes_need_not_wait_longer(peers: Peers):
    peer = await peers.peer()
    link, _ = await peers.connected(peer)
    async with asyncio.timeout(5):
        await link.take_leave(SAID)
    assert peer.farewells == [SAID]


async def test_a_peer_that_cannot_be_reached_is_not_waited_for(peers: Peers):
    peer = await peers.peer()
    peer.stop()
    link = peers.link(peer, Node())
    assert link.take_leave(SAID).done()


async def test_a_peer_that_goes_meanwhile_is_not_waited_for(peers: Peers):
    peer = await peers.peer()
    link, _ = await peers.connected(peer)
    peer.on_farewell = lambda *_: peer.stop()  # type: ignore[method-assign]
    async with asyncio.timeout(5):
        await link.take_leave(SAID)
