"""What every node says of itself, gathered, and what follows for the cluster: who leads, what it survives.

Told: URLs. Tells: views of nodes, and a verdict. Prints nothing; ``pictures`` does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from raftkv.cli.asking import ask_this_node, members_in

STATUS_TIMEOUT_S: Final = 2.0
HEARD_MS_MAX: Final = 1_000
"""A voter that its leader has not heard for longer does not serve, where the leader's election timeout is not known."""


@dataclass(frozen=True, slots=True)
class NodeView:
    """One node, seen from here."""

    url: str
    status: Mapping[str, Any] | None
    """Its answer to ``GET /v1/status``; None: it did not answer."""

    @property
    def leads(self) -> bool:
        """Whether it says that it leads."""
        return self.status is not None and self.status.get("role") == "leader"

    def follows(self, leader_id: str) -> bool:
        """Whether it says that this node leads, itself perhaps."""
        return self.status is not None and self.status.get("leader_id") == leader_id

    @property
    def was_removed(self) -> bool:
        """Whether it says that it is no member any more."""
        return self.status is not None and self.status.get("removed_at") is not None

    @property
    def id(self) -> str | None:
        """Its name, where it told it."""
        return None if self.status is None else self.status.get("id")


@dataclass(frozen=True, slots=True)
class ClusterView:
    """All nodes that are known, and the members as the leader has them, or else somebody who answered."""

    nodes: list[NodeView]
    members: Mapping[str, Any]
    """An answer to ``GET /v1/cluster``; empty: nobody answered."""
    names: Mapping[str, str]
    """Ids by URL, as far as anybody knows them."""
    led_for_ms: int | None = None
    """For how long the leader has led; None: it did not tell."""
    heard_ms_max: int = HEARD_MS_MAX
    """A voter that the leader has not heard for longer does not serve."""

    @property
    def leader(self) -> NodeView | None:
        """Who leads."""
        return leader_among(self.nodes)

    @property
    def voters(self) -> list[Mapping[str, Any]]:
        """The voters; of both memberships while one turns into the other."""
        return _members(self.members, "voters")

    @property
    def learners(self) -> list[Mapping[str, Any]]:
        """Who gets the log and has no vote."""
        return _members(self.members, "learners")

    def name_of(self, node: NodeView) -> str:
        """A node's id, also where it does not answer."""
        return str(node.id or self.names.get(node.url, "?"))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the cluster can bear."""

    voters: int
    serving: int
    """Voters that follow the leader, itself too."""

    @property
    def failures_survived(self) -> int:
        """How many more voters may fail; below 0: there is no majority."""
        return self.serving - (self.voters // 2 + 1)


def view_nodes(urls: Sequence[str], *, timeout_s: float = STATUS_TIMEOUT_S) -> list[NodeView]:
    """Every node's own word, asked at once; in the order of the URLs."""
    with ThreadPoolExecutor(max_workers=max(1, len(urls))) as pool:
        answers = list(pool.map(lambda url: ask_this_node(url, "/v1/status", timeout_s=timeout_s), urls))
    return [
        NodeView(url, answer.json() if answer is not None and answer.status == 200 and answer.json() else None)
        for url, answer in zip(urls, answers, strict=True)
    ]


def view_cluster(
    endpoints: Sequence[str], *, names: Mapping[str, str] | None = None, timeout_s: float = STATUS_TIMEOUT_S
) -> ClusterView:
    """The endpoints, and the other members that one of them knows; ``names`` are ids that the caller knows by URL."""
    nodes = view_nodes(endpoints, timeout_s=timeout_s)
    first = _whom_to_ask(nodes)
    if first is None:
        return ClusterView(nodes, {}, names or {})
    answer = ask_this_node(first.url, "/v1/cluster", timeout_s=timeout_s)
    known = {node.id for node in nodes}
    found = view_nodes([url for url in members_in(answer) if url not in endpoints], timeout_s=timeout_s)
    # A node that is reached by another URL than its own would otherwise be there twice.
    nodes += [other for other in found if other.id is None or other.id not in known]
    leader = leader_among(nodes)
    if leader is not None and leader is not first:
        answer = ask_this_node(leader.url, "/v1/cluster", timeout_s=timeout_s) or answer
    members = answer.json() if answer is not None and answer.status == 200 else {}
    listed = [*_members(members, "voters"), *_members(members, "learners")]
    told = {str(member.get("url")).rstrip("/"): str(member.get("id")) for member in listed}
    # The id of a voter that answers by another URL is not to be given to a stranger at the member's own.
    office = {} if leader is None else _diagnostics(leader, timeout_s)
    return ClusterView(
        _without_doubles(nodes, told),
        members,
        {**(names or {}), **told},
        led_for_ms=_led_for_ms(office),
        heard_ms_max=_heard_ms_max(office),
    )


def _diagnostics(leader: NodeView, timeout_s: float) -> Mapping[str, Any]:
    answer = ask_this_node(leader.url, "/v1/diagnostics", timeout_s=timeout_s)
    return answer.json() if answer is not None and answer.status == 200 else {}


def _led_for_ms(office: Mapping[str, Any]) -> int | None:
    """From what the leader remembers of its office in the term that it leads."""
    told, term = office.get("leadership"), office.get("term")
    ages = [
        event.get("age_ms")
        for event in (told if isinstance(told, list) else ())
        if isinstance(event, dict) and event.get("event") == "became_leader" and event.get("term") == term
    ]
    return next((age for age in ages if isinstance(age, int)), None)


def _heard_ms_max(office: Mapping[str, Any]) -> int:
    """Within two election timeouts a voter that lives has been heard."""
    settings = office.get("settings")
    told = settings.get("election_timeout_ms") if isinstance(settings, dict) else None
    return 2 * told if isinstance(told, int) else HEARD_MS_MAX


def _whom_to_ask(nodes: Sequence[NodeView]) -> NodeView | None:
    """The leader, or else any node that answers, for the members."""
    return leader_among(nodes) or next((node for node in nodes if node.status is not None), None)


def _without_doubles(nodes: Sequence[NodeView], told: Mapping[str, str]) -> list[NodeView]:
    """Without members that do not answer by their own URL, but do by another."""
    answering = {node.id for node in nodes if node.status is not None}
    return [node for node in nodes if node.status is not None or told.get(node.url) not in answering]


def _members(members: Mapping[str, Any], kind: str) -> list[Mapping[str, Any]]:
    return [member for member in members.get(kind) or () if isinstance(member, dict)]


def leader_among(views: Sequence[NodeView]) -> NodeView | None:
    """The leader of the highest term; an isolated one of an older term may still believe in itself."""
    leaders = [view for view in views if view.leads]
    return max(leaders, key=lambda view: (view.status or {}).get("term") or 0, default=None)


def judge(view: ClusterView) -> Verdict | None:
    """What the cluster can bear; None: nobody told who votes."""
    voters, leader = view.voters, view.leader
    if not voters:
        return None
    if leader is None:
        return Verdict(len(voters), 0)
    following = {
        node.id for node in view.nodes if node.status is not None and node.status.get("leader_id") == leader.id
    }
    return Verdict(len(voters), sum(_serves(voter, view, following) for voter in voters))


def _serves(voter: Mapping[str, Any], view: ClusterView, following: set[str | None]) -> bool:
    """The leader's own word counts where there is one: what we reach from here is another matter."""
    id, contact_ms = voter.get("id"), voter.get("last_contact_ms")
    if view.leader is not None and id == view.leader.id:
        return True
    if isinstance(contact_ms, int):
        return contact_ms <= view.heard_ms_max
    return id in following


def heard_elsewhere(view: ClusterView) -> list[str]:
    """Members that do not answer here, and that the leader hears."""
    silent = {view.name_of(node) for node in view.nodes if node.status is None}
    return [
        str(member.get("id"))
        for member in (*view.voters, *view.learners)
        if member.get("id") in silent
        and isinstance(member.get("last_contact_ms"), int)
        and member["last_contact_ms"] <= view.heard_ms_max
    ]
