"""What the log is told of peers that refuse this node, or of whoever answers in their place; and who moves a link."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from raftkv.core.messages import Envelope, Introduction
from raftkv.core.types import ID_BYTES, ClusterId, Incarnation, NodeId
from raftkv.members import Named
from raftkv.node.node import Node
from raftkv.node.peers import COMPLAINTS_MAX, Peers
from raftkv.node.probing import Prober
from raftkv.transport.settings import TransportSettings
from tests.live.cluster import until
from tests.node.nodes import Adder, configs, leader_of, running
from tests.transport.samples import introduction

N1 = NodeId("n1")
REFUSED, HAS_NONE = "n1 does not have the same peer secret", "n1 has no peer secret"


class Anybody:
    """A listener to whom all is the same."""

    def on_reply(self, envelope: Envelope) -> None: ...

    def on_failed(self, peer: NodeId, request: Envelope, why: str) -> None: ...

    def on_introduced(self, peer: NodeId, introduction: Introduction) -> None: ...


@pytest.fixture
def peers() -> Peers:
    return Peers(TransportSettings(), Random(1), introduction, Anybody())


def test_whoever_says_now_this_now_that_fills_no_log(peers: Peers, caplog: pytest.LogCaptureFixture) -> None:
    """An answer without a proof may be anybody's, and two sentences in turn are always something else."""
    for number in range(50):
        peers.on_refused(N1, HAS_NONE if number % 2 else REFUSED)
        assert peers.complaint_about(N1) == (HAS_NONE if number % 2 else REFUSED)
    assert [record.getMessage() for record in caplog.records] == [REFUSED, HAS_NONE]
    for number in range(50):
        peers.on_refused(N1, f"an answer in n1's name bears no proof ({number})")
        peers.on_wrong_cluster(N1, f"{number}")
    assert len(caplog.records) == COMPLAINTS_MAX
    assert peers.complaint_about(N1) == "49"


def test_what_befalls_a_peer_that_was_heard_again_is_told_anew(peers: Peers, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        peers.on_refused(N1, REFUSED)
        peers.on_introduced(N1, introduction())
        assert peers.complaint_about(N1) is None
    assert len(caplog.records) == 2


async def test_whoever_bears_a_member_s_name_in_another_incarnation_moves_no_link(tmp_path: Path) -> None:
    """faults 31, 32: an emptied one, one of another cluster, and one of this cluster that was replaced long ago."""
    async with running(configs(tmp_path, 3)) as nodes:
        node = (await leader_of(nodes))._running
        assert node is not None
        peer, ours = node._peers.names()[0], node._forming.cluster_id
        before = node._peers.links()
        for cluster_id in (None, ClusterId(b"another cluster."), ours):
            said = Introduction(peer, Incarnation(bytes(ID_BYTES)), "http://127.0.0.1:1", cluster_id, True, [])
            node._hear(said)
            assert node._peers.links() == before


async def test_nothing_is_left_of_asking_a_node_who_it_is() -> None:
    """Else this one would knock at the address of whoever was never let in for as long as it lives."""
    before = asyncio.all_tasks()
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        whom = Named(NodeId("n9"), "http://{}:{}".format(*nobody.getsockname()))
        told = await Prober(TransportSettings(), Random(1), introduction, None).ask(whom, within_s=0.05)
    assert isinstance(told, str)
    assert asyncio.all_tasks() == before


async def test_who_starts_late_is_reached_as_soon_as_it_comes(tmp_path: Path) -> None:
    """Else who leads then would step down for want of a majority that is there, and waits for its word."""
    waits = TransportSettings(reconnect_first_s=60.0, reconnect_max_s=60.0)
    made = [replace(config, transport=waits) for config in configs(tmp_path, 2)]
    first, late = (Node(config, state_machine=Adder()) for config in made)
    try:
        await first.start()
        ((link, _),) = first._running._peers.links()  # type: ignore[union-attr]
        await until(lambda: bool(link.trouble), within_s=5, what="the first to have looked for the other in vain")
        await late.start()
        await until(lambda: link.is_connected, within_s=5, what="the first to reach the other")
    finally:
        await asyncio.gather(first.stop(), late.stop())
