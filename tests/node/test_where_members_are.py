"""Where this node looks for members: as the log has them, as they say themselves, and as neither is the newest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest

from raftkv import frames as framing
from raftkv.core.messages import AppendEntries, Introduction
from raftkv.core.types import Configuration, Index, Membership, NodeId, Term
from raftkv.members import Alter, MembersOutcome, MembersRefused, MembersWhy, Named, Terms
from raftkv.node import members, peers
from raftkv.node.members import Members
from raftkv.node.peers import Peers
from raftkv.transport.settings import TransportSettings
from tests.core.lone import CLUSTER_ID, incarnation_of
from tests.live.cluster import until
from tests.lone_replica import LoneReplica
from tests.test_changing import member, membership, says


class Link:
    """To where it was last told that its peer is."""

    def __init__(self, peer: NodeId, url: str, **_: Any) -> None:
        self.url = url

    def move(self, url: str) -> None:
        self.url = url

    async def close(self) -> None:
        await asyncio.sleep(0)


class Places:
    """A node's links, as what it hears and what its log says move them."""

    def __init__(self, lone: LoneReplica) -> None:
        self.lone = lone
        self.asked: list[Named] = []
        self.peers = Peers(TransportSettings(), Random(1), self.me, object())  # type: ignore[arg-type]
        self.members = Members(
            asyncio.get_running_loop(),
            self.peers,
            self,  # type: ignore[arg-type]
            self.me,
            lambda _: None,
        )
        self.members.start(lone.replica, self.turned)

    @staticmethod
    def me() -> Introduction:
        return says("a", cluster_id=CLUSTER_ID, formed=True, joins=False)

    def turned(self) -> None:
        self.lone.turn()
        self.members.turned()

    async def ask(self, whom: Named, *, within_s: float) -> Introduction | str:
        """The prober: b is wherever one looks."""
        self.asked.append(whom)
        return says(whom.id, url=whom.url, cluster_id=CLUSTER_ID, formed=True, joins=False)

    def hears(self, name: str, url: str) -> None:
        """As a running node does."""
        said = says(name, url=url, cluster_id=CLUSTER_ID, formed=True, joins=False)
        self.members.heard(said)
        self.peers.moved(said.sender, said.url)

    def appends(self, leader: str, term: int, came: list[Configuration | None], *, prev: int, commit: int) -> None:
        """That leader's entries; None: its no-op."""
        frames = []
        for index, one in enumerate(came, prev + 1):
            kind = framing.EntryKind.NOOP if one is None else framing.EntryKind.CONFIGURATION
            frames.append(framing.encode(kind, term=term, index=index, body=b"" if one is None else one.encode()))
        prev_term = self.lone.raft.term_at(prev) or Term(0)
        self.lone.says(leader, AppendEntries(Term(term), Index(prev), prev_term, Index(commit), frames))
        self.members.turned()

    def place_of(self, name: str) -> str:
        """Where its link goes to."""
        return dict(zip(self.peers.names(), self.peers.links(), strict=True))[NodeId(name)][1]


@pytest.fixture(autouse=True)
def links(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "PeerLink", Link)


def abc(**urls: str) -> Configuration:
    return Configuration(Membership(tuple(member(name, urls.get(name)) for name in "abc")))


@asynccontextmanager
async def looking() -> AsyncIterator[Places]:
    """Node a of three, none of whom has moved."""
    places = Places(LoneReplica())
    try:
        yield places
    finally:
        await places.members.stop()


B, B1, B2 = "http://b", "http://b.one", "http://b.two"


async def test_a_member_is_where_the_log_has_it_or_says_that_it_is_whatever_is_news() -> None:
    async with looking() as places:
        assert places.place_of("b") == B
        places.hears("b", B1)
        assert places.place_of("b") == B1
        places.appends("c", 1, [abc(b=B1)], prev=0, commit=0)
        assert places.place_of("b") == B1
        places.appends("c", 1, [abc(b=B2)], prev=1, commit=1)
        assert places.place_of("b") == B2, "others have heard what it told them"


async def test_a_member_that_said_later_where_it_is_than_the_log_is_not_looked_for_where_it_was() -> None:
    """It moved twice, and the first place comes into the log when it has left that again."""
    async with looking() as places:
        places.hears("b", B1)
        places.hears("b", B2)
        places.appends("c", 1, [abc(b=B1)], prev=0, commit=0)
        assert places.place_of("b") == B2


async def test_a_place_that_was_undone_in_the_log_is_where_its_member_is_all_the_same(monkeypatch: Any) -> None:
    """It says so once for each connection: whoever looked in the old place again would never reach it."""
    monkeypatch.setattr(members, "LOOK_EVERY_S", 0.01)
    async with looking() as places:
        places.hears("b", B1)
        places.appends("c", 1, [abc(b=B1)], prev=0, commit=0)
        places.appends("c", 2, [None], prev=0, commit=0)
        assert places.lone.raft.configuration == abc()
        assert places.place_of("b") == B1
        places.lone.lead()
        places.members.turned()
        await until(lambda: bool(places.asked), within_s=5, what="the new leader to look there")
        assert places.asked[0] == Named("b", B1)
        await until(lambda: places.lone.raft.configuration == abc(b=B1), within_s=5, what="the log to have it again")


async def test_members_that_have_changed_places_have_done_so_in_the_log_at_once(monkeypatch: Any) -> None:
    """One by one each would be where the log still has the other; after a start each would look for it at itself."""
    monkeypatch.setattr(members, "LOOK_EVERY_S", 0.01)
    async with looking() as places:
        places.lone.lead()
        places.hears("b", "http://c")
        await until(lambda: bool(places.asked), within_s=5, what="b's new place to be looked at")
        assert places.lone.raft.configuration == abc()
        places.hears("c", "http://b")
        swapped = abc(b="http://c", c="http://b")
        await until(lambda: places.lone.raft.configuration == swapped, within_s=5, what="the log to have both")
        assert (places.place_of("b"), places.place_of("c")) == ("http://c", "http://b")


async def test_who_is_let_in_again_as_its_link_goes_has_a_link(monkeypatch: Any) -> None:
    monkeypatch.setattr(members, "LET_GO_AFTER_LOOKS", 1)
    async with looking() as places:
        places.appends("b", 1, [Configuration(membership("ab"))], prev=0, commit=1)
        places.members._look()
        places.appends("b", 1, [abc(c="http://c.new")], prev=1, commit=1)
        await asyncio.gather(*places.members._closing)
        assert places.place_of("c") == "http://c.new"


async def test_whoever_speaks_in_a_member_s_name_tells_nothing_of_where_it_is(monkeypatch: Any) -> None:
    """An emptied node, or one that has been replaced: the member's own word stands, and its leader goes by that."""
    monkeypatch.setattr(members, "LOOK_EVERY_S", 0.01)
    async with looking() as places:
        places.lone.lead()
        places.hears("b", B1)
        places.members.heard(says("b", url=B2, incarnation=incarnation_of("another")))
        await until(lambda: places.lone.raft.configuration == abc(b=B1), within_s=5, what="b's own word in the log")
        assert {asked.url for asked in places.asked} == {B1}


async def test_who_wants_a_change_as_the_node_stops_hears_that_it_does() -> None:
    async def asks(whom: Named, *, within_s: float) -> Introduction | str:
        return await asyncio.get_running_loop().create_future()

    async with looking() as places:
        places.lone.lead()
        places.ask = asks  # type: ignore[method-assign]
        told: list[MembersOutcome] = []
        places.members.change(Alter(NodeId("b"), url=B1), Terms(wait_ms=0), told.append)
        await asyncio.sleep(0)
        assert told == []
        await places.members.stop()
        assert [one.why for one in told if isinstance(one, MembersRefused)] == [MembersWhy.SHUTTING_DOWN]
