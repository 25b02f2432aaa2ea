"""How a cluster comes to be, once (design: identity). Pure; no part of Raft, and over before Raft begins.

Told: who this node is, whom the operator listed, what others say of themselves. Tells: what to say, what to
store, and when Raft may begin. It may never guess: where something is missing it waits and says for whom.

    1. A node that has heard the incarnation of every listed member stores the cluster's id, which is the
       hash of all of them. From then on it never believes in another.
    2. It votes only when every member has been heard to have stored that same id (or one of them knows so).

So two emptied disks, or an emptied and a fresh one, cannot form a second cluster over the remains of the
first: somebody who stored the first id would have to say the second. Step 2 is why: with step 1 alone, a
node that had heard an old incarnation and a new one would store an id of its own and vote in it.
"""

from __future__ import annotations

from collections.abc import Sequence

from raftkv.core.messages import Introduction
from raftkv.core.types import ClusterId, Configuration, Incarnation, Member, NodeId, cluster_id_of, membership_of


class Formation:
    """What one node knows of the forming of its cluster."""

    def __init__(
        self,
        me: Member,
        listed: Sequence[tuple[NodeId, str]],
        *,
        cluster_id: ClusterId | None = None,
        configuration: Configuration | None = None,
        formed: bool = False,
    ) -> None:
        """``listed`` are the ids and URLs of --initial-cluster; the rest is what the disk gave back."""
        self.me = me
        self.cluster_id = cluster_id
        self.configuration = configuration
        """Of the members as they formed the cluster; to be stored with its id before anything else is said."""
        self.formed = formed
        if cluster_id is not None and configuration is None:
            # Only who joined a cluster has an id of it and no members: it was formed, and forms nothing.
            self.formed, listed = True, ()
        self._listed = dict(listed)
        self._heard: dict[NodeId, Introduction] = {}
        self._settle()

    def introduction(self) -> Introduction:
        """What this node says of itself now. Only to be said once what it says is stored."""
        return Introduction(
            self.me.id, self.me.incarnation, self.me.url, self.cluster_id, self.formed, self._initial_members()
        )

    def hear(self, said: Introduction) -> None:
        """Another node said who it is; the newest word of each counts."""
        if said.sender in self._members_by_id() and said.sender != self.me.id:
            self._heard[said.sender] = said
            self._settle()

    def heard_of_formation(self) -> None:
        """A message of Raft came that bears this cluster's id: somebody knows that it is formed."""
        if self.cluster_id is not None:
            self.formed = True

    def was_let_in(self, cluster_id: ClusterId) -> None:
        """A member's message named this very incarnation, which only a cluster that has added it does."""
        if self.cluster_id is None:
            self.cluster_id, self.formed, self._listed = cluster_id, True, {}

    @property
    def waits_for(self) -> list[NodeId]:
        """Members that must still be heard, in order of id."""
        if self.formed:
            return []
        return [
            id
            for id in sorted(self._members_by_id())
            if id != self.me.id
            and (id not in self._heard or (self.cluster_id is not None and not self._agrees(self._heard[id])))
        ]

    @property
    def problem(self) -> str | None:
        """What will not mend by waiting, and what to do about it; None: nothing."""
        if self.formed:
            return None
        for id, said in sorted(self._heard.items()):
            problem = self._problem_with(said)
            if problem is not None:
                return problem
            del id
        return None

    # ---------------------------------------------------------------------------------------- leaves

    def _settle(self) -> None:
        if self.cluster_id is None:
            self._learn_cluster()
        if self.cluster_id is not None and not self.formed:
            self.formed = self._everybody_stored() or any(
                said.formed and self._agrees(said) for said in self._heard.values()
            )

    def _learn_cluster(self) -> None:
        """By hearing all, or from somebody who has: the others' stored id wins over a new one."""
        for _, said in sorted(self._heard.items()):
            if said.cluster_id is not None:
                if self._lists_me(said):
                    self._adopt(said.initial_members)
                return
        if not self._listed or self._lists_differ():
            return
        members = self._initial_members()
        if all(incarnation for _, incarnation in members):
            self._adopt(members)

    def _adopt(self, members: Sequence[tuple[NodeId, Incarnation]]) -> None:
        self.cluster_id = cluster_id_of(members)
        self.configuration = Configuration(
            membership_of(Member(id, incarnation, self._listed[id]) for id, incarnation in members)
        )

    def _everybody_stored(self) -> bool:
        others = [id for id in self._members_by_id() if id != self.me.id]
        return all(id in self._heard and self._agrees(self._heard[id]) for id in others)

    def _agrees(self, said: Introduction) -> bool:
        """Whether the member, in the incarnation that we formed with, has stored our cluster id."""
        assert self.configuration is not None
        member = self.configuration.members().get(said.sender)
        return said.cluster_id == self.cluster_id and member is not None and member.incarnation == said.incarnation

    def _lists_me(self, said: Introduction) -> bool:
        members = dict(said.initial_members)
        return (
            members.get(self.me.id) == self.me.incarnation
            and sorted(members) == sorted(self._listed)
            and cluster_id_of(said.initial_members) == said.cluster_id
        )

    def _lists_differ(self) -> bool:
        return any(self._list_differs(said) for said in self._heard.values())

    def _list_differs(self, said: Introduction) -> bool:
        return [id for id, _ in said.initial_members] != sorted(self._members_by_id())

    def _initial_members(self) -> list[tuple[NodeId, Incarnation]]:
        """Sorted; empty incarnations where nothing was heard yet."""
        if self.configuration is not None:
            return [(member.id, member.incarnation) for member in self.configuration.current.voters]
        members = []
        for id in sorted(self._listed):
            said = self._heard.get(id)
            incarnation = (
                self.me.incarnation if id == self.me.id else Incarnation(b"") if said is None else said.incarnation
            )
            members.append((id, incarnation))
        return members

    def _members_by_id(self) -> list[NodeId]:
        if self.configuration is not None:
            return list(self.configuration.members())
        return list(self._listed)

    def _problem_with(self, said: Introduction) -> str | None:
        other, mine = said.sender, self.me.id
        if self._list_differs(said):
            theirs = ",".join(id for id, _ in said.initial_members) or "nobody"
            return f"{other} was started with another --initial-cluster ({theirs})"
        if said.cluster_id is None or said.cluster_id == self.cluster_id:
            if self.cluster_id is not None and said.cluster_id is None and not self._is_known(said):
                return gone(other)
            return None
        if self.cluster_id is None and dict(said.initial_members).get(mine) != self.me.incarnation:
            return gone(mine)
        return (
            f"{other} belongs to cluster {said.cluster_id.hex()}: the members were emptied while they formed; "
            "nothing was stored yet, so empty all their data directories and start again"
        )

    def _is_known(self, said: Introduction) -> bool:
        assert self.configuration is not None
        return self.configuration.members()[said.sender].incarnation == said.incarnation


def gone(node: str) -> str:
    """What is said of a node whose disk was emptied."""
    return f"{node}'s data is gone; run raftkv member replace {node}"
