"""What a link tells of itself: when the peer answered last, and why it does not."""

from __future__ import annotations

import asyncio

from tests.http.fronts import until
from tests.transport.peers import Node, Peers
from tests.transport.samples import envelope, heartbeat


async def test_a_link_whose_peer_answers_has_no_trouble(peers: Peers):
    link, _ = await peers.connected(await peers.peer())
    now_s = asyncio.get_running_loop().time()
    assert (link.trouble, link.refusal) == ("", None)
    assert link.answered_at_s is not None and now_s - 5 < link.answered_at_s <= now_s


async def test_a_link_to_nobody_says_why_in_the_systems_words(peers: Peers):
    peer = await peers.peer()
    peer.stop()
    link = peers.link(peer, Node())
    await until(lambda: link.trouble == "connection refused")
    assert (link.answered_at_s, link.is_connected) == (None, False)


async def test_a_peer_that_falls_silent_is_trouble_until_it_answers_again(peers: Peers):
    peer = await peers.peer()
    link, _ = await peers.connected(peer, control_timeout_s=0.1)
    before = link.answered_at_s
    answers_introductions, peer.on_introduction = peer.on_introduction, lambda *_: None  # type: ignore[method-assign]
    link.introduce()
    await until(lambda: link.trouble == "no answer within 0.1 s")
    peer.on_introduction = answers_introductions  # type: ignore[method-assign]
    await until(lambda: link.trouble == "")
    assert before is not None and link.answered_at_s is not None and link.answered_at_s > before


async def test_a_refusal_is_remembered_with_its_code_and_words(peers: Peers):
    peer = await peers.peer()
    peer.refuses = True
    link, node = await peers.connected(peer)
    link.send(envelope(heartbeat()))
    await until(lambda: bool(node.failed))
    assert link.refusal is not None
    assert link.refusal[1:] == ("wrong_cluster", "this is another cluster")
    assert link.trouble == "", "it did answer"
