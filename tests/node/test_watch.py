"""A node's memory of what happened to it: stalls and outages, each noted once, by the node's own clocks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import cast

import pytest

from raftkv.api.reports import OUTAGES_MAX
from raftkv.core.raft import Raft
from raftkv.core.types import NodeId, Role
from raftkv.node.diagnostics import LOOK_EVERY_S, OUTAGE_S, SILENT_S, Watch
from raftkv.transport.link import PeerLink

PEER = NodeId("n2")


class World:
    """A clock, a timer, and one link; the loop does nothing by itself."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.link = Link()
        self.watch = Watch(cast(asyncio.AbstractEventLoop, self), clock=lambda: round(self.now_s * 1_000_000))
        self.watch.start(lambda: [(cast(PeerLink, self.link), "http://n2.test:7401")])

    def time(self) -> float:
        return self.now_s

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> object:
        self.due_s, self.ring = self.now_s + delay_s, callback
        return object()

    def goes_on(self, seconds: float, *, answers: bool = True, trouble: str = "") -> None:
        """Turn after turn; the peer answers each time, or not."""
        until_s = self.now_s + seconds
        self.link.trouble = trouble
        while self.now_s < until_s - 1e-6:
            self.now_s = self.due_s
            if answers:
                self.link.answered_at_s = self.now_s
            self.ring()

    def stands_still(self, seconds: float) -> None:
        """The next ring comes late."""
        self.now_s = self.due_s + seconds
        self.ring()

    def leads(self, leads: bool = True) -> None:
        role = Role.LEADER if leads else Role.FOLLOWER
        settings = SimpleNamespace(election_timeout_us=300_000)
        raft = SimpleNamespace(
            role=role, last_index=1, commit_index=1, term=1, state=SimpleNamespace(settings=settings)
        )
        self.watch.turned(cast(Raft, raft))

    @property
    def outages(self) -> list[float]:
        return [round(each.duration_s, 1) for each in self.watch.outages_of(PEER)]


@dataclass
class Link:
    peer: NodeId = PEER
    trouble: str = ""
    answered_at_s: float | None = None
    introductions_count: int = 0

    def introduce(self) -> None:
        self.introductions_count += 1


def test_a_silence_that_made_the_link_give_up_is_one_outage_from_answer_to_answer() -> None:
    world = World()
    world.goes_on(1.0)
    world.goes_on(1.0, answers=False)
    world.goes_on(2.0, answers=False, trouble="no answer within 1 s")
    assert world.outages == [], "it is not over"
    world.goes_on(1.0)
    assert world.outages == [3.1]
    (outage,) = world.watch.outages_of(PEER)
    assert outage.ended_at_s == pytest.approx(world.now_s - 1.0 + LOOK_EVERY_S)


def test_a_leader_notices_a_silence_longer_than_its_election_timeout() -> None:
    for leads, found in ((True, [0.6]), (False, [])):
        world = World()
        world.leads(leads)
        world.goes_on(0.5)
        world.goes_on(0.5, answers=False)
        world.goes_on(0.5)
        assert world.outages == found


def test_who_led_expects_no_heartbeats_to_be_answered() -> None:
    world = World()
    world.leads()
    world.goes_on(0.5)
    world.leads(False)
    world.goes_on(SILENT_S, answers=False)
    world.goes_on(0.5)
    assert world.outages == []


def test_a_connection_that_is_made_again_at_once_is_no_outage() -> None:
    world = World()
    world.goes_on(1.0)
    world.goes_on(OUTAGE_S - LOOK_EVERY_S * 2, answers=False, trouble="connection lost")
    world.goes_on(1.0)
    assert world.outages == []


def test_a_leader_s_own_standing_still_is_no_silence_of_its_peers() -> None:
    world = World()
    world.leads()
    world.goes_on(1.0)
    world.stands_still(5.0)
    world.goes_on(1.0)
    assert world.outages == []
    assert [round(stall.duration_us / 1e6, 1) for stall in world.watch.stalls] == [5.0]


def test_a_peer_that_never_answered_has_no_outage_and_the_newest_are_kept() -> None:
    world = World()
    world.goes_on(2.0, answers=False, trouble="connection refused")
    world.goes_on(0.5)
    assert world.outages == []
    for number in range(OUTAGES_MAX + 2):
        world.goes_on(0.4 + number / 10, answers=False, trouble="no answer within 1 s")
        world.goes_on(0.5)
    assert world.outages == [round(0.5 + number / 10, 1) for number in range(2, OUTAGES_MAX + 2)]


def test_a_link_that_is_silent_for_a_second_is_tried() -> None:
    world = World()
    world.goes_on(5.0)
    assert world.link.introductions_count == 0
    world.goes_on(5.0, answers=False)
    assert world.link.introductions_count == 4
