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
from raftkv.node.diagnostics import OUTAGE_S, SILENT_S, Watch
from raftkv.transport.link import PeerLink

PEER = NodeId("n2")
HEARTBEAT_S = 0.1


class World:
    """A clock, a timer, turns as heartbeats bring them, and one link; the loop does nothing by itself."""

    def __init__(self, *, turns: bool = True) -> None:
        self.now_s = 100.0
        self.turns, self.role, self.rang = turns, Role.FOLLOWER, 0
        self.timers: set[object] = set()
        self.ring: Callable[[], None]
        self.link = Link()
        self.watch = Watch(cast(asyncio.AbstractEventLoop, self), clock=lambda: round(self.now_s * 1_000_000))
        self.watch.start(lambda: [(cast(PeerLink, self.link), "http://n2.test:7401")])

    def time(self) -> float:
        return self.now_s

    def call_later(self, delay_s: float, callback: Callable[[int], None], due_us: int) -> object:
        self.due_s, self.ring, timer = self.now_s + delay_s, lambda: callback(due_us), object()
        self.timers.add(timer)
        return SimpleNamespace(cancel=lambda: self._cancelled(timer))

    def _cancelled(self, timer: object) -> None:
        self.timers.discard(timer)
        self.due_s = float("inf")

    def goes_on(self, seconds: float, *, answers: bool = True, trouble: str = "") -> None:
        """Turn after turn, where there are any; the peer answers each time, or not."""
        until_s = self.now_s + seconds
        self.link.trouble = trouble
        while self.now_s < until_s - 1e-6:
            self.now_s = min(self.due_s, self.now_s + HEARTBEAT_S) if self.turns else self.due_s
            if answers:
                self.link.answered_at_s = self.now_s
            self._happens()

    def stands_still(self, seconds: float) -> None:
        """The next turn, or ring, comes late."""
        self.now_s = (self.now_s + HEARTBEAT_S if self.turns else self.due_s) + seconds
        self._happens()

    def _happens(self) -> None:
        if self.turns:
            self.turn()
        if self.now_s >= self.due_s:
            self.rang += 1
            self.ring()

    def turn(self) -> None:
        settings = SimpleNamespace(election_timeout_us=300_000)
        raft = SimpleNamespace(
            role=self.role, last_index=1, commit_index=1, term=1, state=SimpleNamespace(settings=settings)
        )
        self.watch.turned(cast(Raft, raft))

    def leads(self, leads: bool = True) -> None:
        self.role = Role.LEADER if leads else Role.FOLLOWER
        self.turn()

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
    assert outage.ended_at_s == pytest.approx(world.now_s - 1.0 + HEARTBEAT_S)


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
    world.goes_on(OUTAGE_S - HEARTBEAT_S * 2, answers=False, trouble="connection lost")
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


def test_where_turns_come_no_timer_rings_and_where_none_come_one_does() -> None:
    for turns, rings in ((True, 0), (False, 6)):
        world = World(turns=turns)
        world.goes_on(0.9)
        assert world.rang == rings
        assert len(world.timers) == 1, "each that is not needed is cancelled, or all of them would ring"
        world.stands_still(0.4)
        assert [round(stall.duration_us / 1e6, 1) for stall in world.watch.stalls] == [0.4]


def test_before_it_starts_and_after_it_stopped_turns_set_no_timer() -> None:
    world = World()
    world.watch.stop()
    assert world.due_s == float("inf")
    world.now_s += 1.0
    world.turn()
    assert world.due_s == float("inf")
    new = Watch(cast(asyncio.AbstractEventLoop, world), clock=lambda: round(world.now_s * 1_000_000))
    world.watch = new
    world.turn()
    assert world.due_s == float("inf")


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
