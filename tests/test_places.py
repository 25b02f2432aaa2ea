"""Members that are elsewhere, several at once: who may be where, by where all of them will be."""

from __future__ import annotations

import pytest

from raftkv.changing import wanted
from raftkv.core.membership import problem_with
from raftkv.core.messages import Introduction
from raftkv.core.types import Membership, NodeId
from raftkv.members import Become, MembersWhy
from tests.core.lone import CLUSTER_ID
from tests.test_changing import ABC, comes_to, member, named, says


def moved(name: str, url: str, client_url: str | None = None) -> Introduction:
    return says(name, url=url, client_url=client_url, cluster_id=CLUSTER_ID, joins=False)


HERE = {"b": moved("b", "http://c"), "c": moved("c", "http://b")}
SWAPPED = Become((named("a"), named("b", "http://c"), named("c", "http://b")))
GOAL = Membership((member("a"), member("b", "http://c"), member("c", "http://b")))


def test_members_that_have_changed_places_are_set_at_once() -> None:
    """One by one neither could be said to be where the other still is in the log."""
    assert comes_to(SWAPPED, ABC, HERE) == GOAL
    assert problem_with(ABC, GOAL) is None


def test_who_comes_may_be_where_a_member_was_that_goes_elsewhere() -> None:
    said = {"b": moved("b", "http://e"), "d": says("d", url="http://b")}
    goal = comes_to(Become((named("a"), named("d", "http://b"), named("b", "http://e"), named("c"))), ABC, said)
    assert [one.url for one in goal.voters] == ["http://a", "http://e", "http://c", "http://b"]


def test_who_has_been_asked_is_where_it_says_though_clients_reach_it_there_already() -> None:
    """A member's own word says where clients reach it; it is a moment older than the log's."""
    said = {NodeId(id): one for id, one in HERE.items()}
    clients = {"a": "http://a", "b": "http://c", "c": "http://b"}
    assert wanted(SWAPPED, ABC, said, client_url_of=lambda one: clients[one.id], cluster_id=CLUSTER_ID) == GOAL


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        (
            Become((named("a"), named("b", "http://clients.c"), named("c"))),
            {"b": moved("b", "http://c", "http://clients.c")},
        ),
        (
            Become((named("a"), named("c"), named("d", "http://clients.c"))),
            {"d": says("d", url="http://c", client_url="http://clients.c")},
        ),
    ],
    ids=["who moves", "who comes"],
)
def test_nobody_may_be_where_a_member_stays(wish: Become, said: dict[str, Introduction]) -> None:
    """faults 32: neither by the address that was named, nor by the one that it says it is at."""
    assert comes_to(wish, ABC, said) is MembersWhy.EXISTS
