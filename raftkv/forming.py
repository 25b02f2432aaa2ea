"""Until a node takes part: who it says it is, whom it has heard, and what of that is on stable storage.

Told: introductions of others, and that a member's message came. Tells: everybody who this node is, once a
second while the cluster is not formed; its owner, once, that it is. What is new is stored before anybody
hears of it. May never know: how introductions travel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from raftkv.core.formation import Formation, gone
from raftkv.core.messages import Introduction
from raftkv.core.types import ClusterId, Incarnation, Member, NodeId
from raftkv.errors import DataError
from raftkv.pump import Scheduler, Timer
from raftkv.storage.identity import IdentityFile

INTRODUCE_EVERY_US: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class FormingPlan:
    """What the operator said of this node and its cluster."""

    id: NodeId
    peer_url: str
    client_url: str | None = None
    """None: clients reach it where its peers do."""
    initial_cluster: Sequence[tuple[NodeId, str]] = ()
    """All members with their peer URLs, this one included."""
    joins: bool = False
    """It is to become a member of a cluster that is there, and forms none."""


@dataclass(slots=True)
class FormingShell:
    """Whom forming tells."""

    introduce_again: Callable[[], None]
    """What this node says of itself has changed, or nobody has heard it."""
    formed: Callable[[], None]
    """The cluster is formed, and that is stored: called once."""
    waits: Callable[[str], None]
    """Why it is not formed, in a sentence; called when that changes."""
    failed: Callable[[BaseException], None]
    """What had to be stored was not; it is not tried again."""


class Forming:
    """One node's identity, and its way into the cluster."""

    def __init__(self, plan: FormingPlan, identity: IdentityFile, scheduler: Scheduler, shell: FormingShell) -> None:
        self.identity = identity
        stored = identity.identity
        self._plan, self._scheduler, self._shell = plan, scheduler, shell
        self._formation = Formation(
            Member(plan.id, stored.incarnation, plan.peer_url),
            plan.initial_cluster,
            cluster_id=stored.cluster_id,
            configuration=stored.initial_configuration,
            formed=stored.formed,
        )
        self._done = False
        """It is formed, or never will be by this node."""
        self._why_not_in = ""
        self._is_gone = False
        self._said = ""
        self._timer: Timer | None = None

    @property
    def cluster_id(self) -> ClusterId | None:
        """As it is stored."""
        return self.identity.identity.cluster_id

    @property
    def is_formed(self) -> bool:
        """All members have been heard to have stored one cluster id."""
        return self._formation.formed

    @property
    def waits_for(self) -> tuple[NodeId, ...]:
        """Members that must still be heard."""
        return tuple(self._formation.waits_for)

    @property
    def problem(self) -> str | None:
        """What will not mend by waiting, and what to do about it; None: nothing."""
        return gone(self._plan.id) if self._is_gone and self.joins else self._formation.problem

    @property
    def joins(self) -> bool:
        """This node was started to join a cluster, and belongs to none yet."""
        return self._plan.joins and self.cluster_id is None

    def others(self) -> list[tuple[NodeId, str]]:
        """The ids and URLs of whom to reach."""
        configuration = self._formation.configuration
        if configuration is None:
            members = list(self._plan.initial_cluster)
        else:
            members = [(member.id, member.url) for member in configuration.members().values()]
        return [(id, url) for id, url in members if id != self._plan.id]

    def introduction(self) -> Introduction:
        """What this node says of itself: only what is on stable storage."""
        stored = self.identity.identity
        return replace(
            self._formation.introduction(),
            cluster_id=stored.cluster_id,
            formed=stored.formed,
            client_url=self._plan.client_url,
            joins=self.joins,
        )

    def start(self) -> None:
        """The cluster forms by itself, as soon as everybody has been heard."""
        self._moved()
        self._introduce_on()

    def stop(self) -> None:
        """Nobody hears of this node by itself any more, and it forms nothing."""
        self._done = True
        if self._timer is not None:
            self._timer.cancel()

    def hear(self, said: Introduction) -> None:
        """Somebody says who it is."""
        self._formation.hear(said)
        self._moved()

    def heard_of_formation(self) -> None:
        """A member's message shows that all have stored the cluster id."""
        self._formation.heard_of_formation()
        self._moved()

    def was_named(self, cluster_id: ClusterId, incarnation: Incarnation) -> None:
        """A message of that cluster came for this node, in that incarnation.

        Only its own, drawn at random when its directory was made, says that the cluster has let this node in: then it
        belongs there, and that is stored before anybody hears of it. A node that was not started to join never does.
        """
        if self._done or not self.joins:
            return
        self._is_gone = incarnation != self.identity.identity.incarnation
        if not self._is_gone:
            self._formation.was_let_in(cluster_id)
            self._moved()

    def was_not_let_in(self, why: str) -> None:
        """Whoever was asked to let this node in has not, or not yet."""
        self._why_not_in = why

    def why_not_formed(self) -> str:
        """One sentence for the operator."""
        formation = self._formation
        if formation.problem is not None:
            return formation.problem
        if self._is_gone and self.joins:
            return gone(self._plan.id)
        if self.joins:
            return f"this node waits to be let into the cluster{f': {self._why_not_in}' if self._why_not_in else ''}"
        if formation.waits_for:
            return f"the cluster is not formed yet: waiting for {', '.join(formation.waits_for)}"
        if not self._plan.initial_cluster and formation.cluster_id is None:
            return (
                "the data directory is empty, and neither --initial-cluster says whom to form a cluster with, nor "
                "--join whose to join"
            )
        return "this node is starting"

    def _introduce_on(self) -> None:
        """While the cluster is not formed, everybody hears of this node once a second, and the operator once."""
        if self._done:
            return
        why = self.why_not_formed()
        if why != self._said:
            self._said = why
            self._shell.waits(why)
        self._shell.introduce_again()
        self._timer = self._scheduler.later(INTRODUCE_EVERY_US, self._introduce_on)

    def _moved(self) -> None:
        """What is new is stored before anybody hears of it; then Raft may begin.

        A store that failed is not tried again, and ends the node: callers are connections, whose own failures
        end only them.
        """
        if self._done:
            return
        try:
            self._store()
        except DataError as error:
            self.stop()
            self._shell.failed(error)

    def _store(self) -> None:
        formation, identity = self._formation, self.identity
        if formation.cluster_id is not None and self.cluster_id is None:
            identity.store_cluster(formation.cluster_id, formation.configuration)
            self._shell.introduce_again()
        if formation.formed:
            identity.store_formed()
            self.stop()
            self._shell.introduce_again()
            self._shell.formed()
