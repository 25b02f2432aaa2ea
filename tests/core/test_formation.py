"""First formation (design: identity; faults 31 and 32): all members once, and never a second cluster."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest

from raftkv.core.formation import Formation
from raftkv.core.types import Incarnation, Member, NodeId, cluster_id_of

LISTED = [(NodeId(name), f"http://{name}") for name in ("n1", "n2", "n3")]


def incarnation(name: str, life: int = 1) -> Incarnation:
    return Incarnation(f"{name} life {life}".encode().ljust(16, b"."))


def fresh(name: str, life: int = 1, listed: list[tuple[NodeId, str]] = LISTED) -> Formation:
    return Formation(Member(NodeId(name), incarnation(name, life), f"http://{name}"), listed)


def restarted(formation: Formation) -> Formation:
    """As its disk gives it back."""
    listed = [(NodeId(id), url) for id, url in LISTED]
    return Formation(
        formation.me,
        listed,
        cluster_id=formation.cluster_id,
        configuration=formation.configuration,
        formed=formation.formed,
    )


def exchange(one: Formation, other: Formation) -> None:
    """One introduces itself, the other answers."""
    other.hear(one.introduction())
    one.hear(other.introduction())


def formed_cluster() -> list[Formation]:
    nodes = [fresh("n1"), fresh("n2"), fresh("n3")]
    for _ in range(3):
        for one, other in permutations(nodes, 2):
            exchange(one, other)
    return nodes


def test_all_three_form_one_cluster() -> None:
    nodes = formed_cluster()
    expected = cluster_id_of((NodeId(name), incarnation(name)) for name in ("n1", "n2", "n3"))
    assert [node.cluster_id for node in nodes] == [expected] * 3
    assert all(node.formed and node.problem is None and not node.waits_for for node in nodes)
    configuration = nodes[0].configuration
    assert configuration is not None
    assert [member.id for member in configuration.current.voters] == ["n1", "n2", "n3"]


def test_a_cluster_of_one_forms_by_itself() -> None:
    alone = fresh("n1", listed=[(NodeId("n1"), "http://n1")])
    assert alone.formed


def test_two_of_three_wait_for_the_third() -> None:
    one, two = fresh("n1"), fresh("n2")
    for _ in range(5):
        exchange(one, two)
    assert not one.formed
    assert not two.formed
    assert one.cluster_id is None
    assert one.waits_for == ["n3"]


def test_who_has_heard_all_does_not_vote_before_all_have_stored_the_id() -> None:
    one, two, three = fresh("n1"), fresh("n2"), fresh("n3")
    exchange(one, two)
    exchange(one, three)
    assert one.cluster_id is not None
    assert not one.formed
    assert one.waits_for == ["n2", "n3"]


def test_who_has_not_stored_the_id_yet_is_not_said_to_be_emptied() -> None:
    """It has not heard all; to be told to replace it, the operator would take a healthy node out of a new cluster."""
    one, two, three = fresh("n1"), fresh("n2"), fresh("n3")
    one.hear(two.introduction())
    one.hear(three.introduction())
    assert one.cluster_id is not None and two.cluster_id is None
    assert (one.problem, one.waits_for) == (None, ["n2", "n3"])


def test_an_emptied_node_does_not_form_again_with_those_who_remember() -> None:
    """faults 31: the new incarnation says that its data is gone."""
    one, _, three = formed_cluster()
    emptied = fresh("n2", life=2)
    for _ in range(3):
        exchange(emptied, one)
        exchange(emptied, three)
    assert not emptied.formed
    assert emptied.cluster_id is None
    assert emptied.problem == "n2's data is gone; run raftkv member replace n2"


def test_an_emptied_and_a_never_started_node_do_not_elect_each_other() -> None:
    """faults 31: n1 and n2 knew all; n3 was heard once and had stored nothing; then n1 is down and n2 emptied."""
    one, two, three = fresh("n1"), fresh("n2"), fresh("n3")
    three.hear(one.introduction())  # n1 unformed, heard by n3
    exchange(one, two)
    one.hear(three.introduction())
    two.hear(three.introduction())
    exchange(one, two)
    assert one.cluster_id == two.cluster_id is not None
    emptied = fresh("n2", life=2)
    for _ in range(3):
        exchange(emptied, three)
    assert not emptied.formed
    assert not three.formed
    exchange(three, one)
    exchange(emptied, one)
    exchange(emptied, three)
    assert not emptied.formed
    assert not three.formed
    assert three.problem is not None


def test_a_node_that_crashed_before_it_stored_learns_the_id_from_those_who_did() -> None:
    nodes = formed_cluster()
    again = fresh("n3")  # the same incarnation, but the id was not stored yet
    exchange(again, nodes[0])
    assert again.cluster_id == nodes[0].cluster_id
    assert again.formed


def test_formation_survives_a_restart_at_every_step() -> None:
    nodes = [fresh("n1"), fresh("n2"), fresh("n3")]
    for _ in range(4):
        for one, other in permutations(range(3), 2):
            exchange(nodes[one], nodes[other])
            nodes[one] = restarted(nodes[one])
    assert all(node.formed for node in nodes)
    assert len({node.cluster_id for node in nodes}) == 1


def test_other_lists_are_told_and_nothing_is_formed() -> None:
    one = fresh("n1")
    odd = fresh("n2", listed=[*LISTED, (NodeId("n4"), "http://n4")])
    exchange(one, odd)
    exchange(one, fresh("n3"))
    assert one.cluster_id is None
    assert one.problem == "n2 was started with another --initial-cluster (n1,n2,n3,n4)"


def test_another_clusters_node_is_not_believed() -> None:
    """faults 32: a formed cluster of other incarnations at our members' addresses."""
    others = [fresh("n1", 7), fresh("n2", 7), fresh("n3", 7)]
    for _ in range(3):
        for one, other in permutations(others, 2):
            exchange(one, other)
    mine = fresh("n1")
    exchange(mine, others[1])
    assert mine.cluster_id is None
    assert not mine.formed
    assert mine.problem == "n1's data is gone; run raftkv member replace n1"


def test_another_incarnation_does_not_agree_whatever_id_it_has_stored() -> None:
    """faults 31: it has the name of a member and the id of our cluster, and is not the one that we formed with."""
    one, two, three = fresh("n1"), fresh("n2"), fresh("n3")
    exchange(one, two)
    exchange(one, three)
    exchange(one, two)
    one.hear(replace(three.introduction(), incarnation=incarnation("n3", 2), cluster_id=one.cluster_id))
    assert (one.formed, one.waits_for) == (False, ["n3"])
    exchange(one, three)
    assert one.formed


def test_that_another_cluster_is_formed_forms_nothing() -> None:
    """faults 31, 32: who has heard all, and then somebody at a member's address, waits for the member itself."""
    here, there = [fresh("n1"), fresh("n2"), fresh("n3")], [fresh(name, life=2) for name in ("n1", "n2", "n3")]
    for nodes in (here, there):
        for other in nodes[1:]:
            nodes[0].hear(other.introduction())
        nodes[1].hear(nodes[0].introduction())
        nodes[2].hear(nodes[0].introduction())
    there[0].hear(there[1].introduction())
    there[0].hear(there[2].introduction())
    assert there[0].formed
    there[1].hear(there[0].introduction())
    assert (here[0].cluster_id is not None, here[0].formed) == (True, False)
    here[0].hear(there[1].introduction())
    assert not here[0].formed
    assert "n2" in here[0].waits_for


def test_a_message_of_the_cluster_proves_that_it_is_formed() -> None:
    one, two, three = fresh("n1"), fresh("n2"), fresh("n3")
    exchange(one, two)
    exchange(one, three)
    one.heard_of_formation()
    assert one.formed
    unknowing = fresh("n2")
    unknowing.heard_of_formation()
    assert not unknowing.formed


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_the_order_in_which_nodes_start_does_not_matter(order: tuple[int, ...]) -> None:
    nodes = [fresh("n1"), fresh("n2"), fresh("n3")]
    for _ in range(3):
        for one in order:
            for other in order:
                if one != other:
                    exchange(nodes[one], nodes[other])
    assert len({node.cluster_id for node in nodes}) == 1
    assert all(node.formed for node in nodes)


def test_a_node_that_is_let_in_belongs_to_that_cluster_for_good() -> None:
    (one, *_) = formed_cluster()
    assert one.cluster_id is not None
    joined = fresh("n4", listed=[])
    joined.was_let_in(one.cluster_id)
    assert (joined.cluster_id, joined.formed, joined.waits_for, joined.problem) == (one.cluster_id, True, [], None)
    joined.was_let_in(cluster_id_of([(NodeId("x"), incarnation("x"))]))
    assert joined.cluster_id == one.cluster_id


def test_a_node_that_joined_goes_on_whatever_it_is_told_to_form() -> None:
    """A directory that holds state wins over the command line (http-api, Starting nodes), also after a crash between
    the storing of the cluster's id and of its having been formed."""
    (one, *_) = formed_cluster()
    for formed in (False, True):
        again = Formation(
            Member(NodeId("n4"), incarnation("n4"), "http://n4"), LISTED, cluster_id=one.cluster_id, formed=formed
        )
        again.hear(one.introduction())
        assert (again.cluster_id, again.formed, again.waits_for) == (one.cluster_id, True, [])
        assert again.introduction().initial_members == []
