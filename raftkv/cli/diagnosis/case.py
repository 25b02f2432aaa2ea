"""The evidence put in order: whose cluster it is, who belongs to it, who reaches whom. Pure; judges nothing.

Told: evidence. Tells: members by id with what is known of each, the leader, the links that are cut.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Final

from raftkv.cli.diagnosis.evidence import Asked, Evidence, Farewell, Link, Member, Reach, View
from raftkv.cli.diagnosis.finding import ago, listed

LINK_FRESH_MS: Final = 1_500
"""A link is tried when it has been idle for a second: one that answered so lately is well."""
LINK_LOST_MS: Final = 4_000
"""After so long it is not, whatever its node knows of trouble."""
SETTLING_MS: Final = 2_000
"""Who started so lately may not have reached everybody yet."""
REFUSAL_FRESH_MS: Final = 5_000
DISK_HANGS_MS: Final = 1_000
"""A write that has waited so long: no disk that works takes it."""
SECRET_CODES: Final = ("forbidden", "unauthorized")


@dataclass(frozen=True, slots=True)
class CutLink:
    """One direction: ``of`` cannot reach ``to``."""

    of: str
    to: str
    why: str


@dataclass(slots=True)
class Case:
    """What the rules look at."""

    asked: Evidence
    cluster_id: str | None = None
    """Of the cluster that it is about; None: nobody belongs to one yet."""
    views: dict[str, View] = field(default_factory=dict)
    """Of its nodes that answer, those that have not joined yet included, by id."""
    strangers: tuple[Asked, ...] = ()
    """Nodes of other clusters."""
    members: dict[str, Member] = field(default_factory=dict)
    by_id: dict[str, Asked] = field(default_factory=dict)
    """What asking each member, and any other node of the cluster, came to."""

    @property
    def voters(self) -> list[str]:
        """Who votes, in order."""
        return [member.id for member in self.members.values() if member.role == "voter"]

    @property
    def majority(self) -> int:
        """So many voters are needed."""
        return len(self.voters) // 2 + 1

    @property
    def leader(self) -> View | None:
        """Who leads in the highest term; an isolated one of an older term may still believe in itself."""
        leaders = [view for view in self.views.values() if view.role == "leader"]
        return max(leaders, key=lambda view: view.term, default=None)

    @property
    def gone(self) -> list[Asked]:
        """Members that do not answer."""
        return [self.by_id[id] for id in self.members if id in self.by_id and id not in self.views]

    def url_of(self, id: str) -> str:
        """Where it was asked, or should be."""
        if id in self.by_id:
            return self.by_id[id].url
        member = self.members.get(id)
        return member.url or "an unknown URL" if member is not None else "an unknown URL"

    def farewell_of(self, id: str) -> Farewell | None:
        """Its last words, as they were heard last."""
        said = [link.farewell for link in self._links_to(id) if link.farewell is not None]
        return min(said, key=lambda farewell: farewell.age_ms, default=None)

    def reached_by(self, id: str) -> list[str]:
        """The nodes whose links to it work."""
        return [view.id for view in self.views.values() if (link := view.link_to(id)) is not None and is_fresh(link)]

    def seen_by_peers(self, id: str) -> tuple[str, ...]:
        """What each node says of its link to that one, a line each."""
        lines = []
        for view in self.views.values():
            link = view.link_to(id)
            if link is not None and not is_fresh(link):
                lines.append(f"{view.id} had its last answer {ago(link.answer_age_ms)}{_why(link)}")
        return tuple(lines)

    def hangs(self, id: str) -> bool:
        """Its disk does."""
        view = self.views.get(id)
        return view is not None and view.disk is not None and view.disk.oldest_wait_ms >= DISK_HANGS_MS

    def works(self, id: str) -> bool:
        """It answers, takes part, and its disk does its work: it can vote and store."""
        view = self.views.get(id)
        return view is not None and view.dead_because is None and view.formation.formed and not self.hangs(id)

    def cut_links(self) -> list[CutLink]:
        """Between nodes that both answer and have had time to find each other."""
        found = []
        for view in self.views.values():
            for link in view.links:
                other = self.views.get(link.peer)
                if other is None or min(view.uptime_ms, other.uptime_ms) < SETTLING_MS:
                    continue
                if is_cut(link) and not is_refused(link):
                    found.append(CutLink(view.id, link.peer, link.trouble or "no answer"))
        return found

    def _links_to(self, id: str) -> list[Link]:
        return [link for view in self.views.values() if (link := view.link_to(id)) is not None]


def is_fresh(link: Link) -> bool:
    """The peer answered lately."""
    return link.answer_age_ms is not None and link.answer_age_ms < LINK_FRESH_MS


def is_cut(link: Link) -> bool:
    """The peer has not answered for longer than a link may be idle."""
    if is_fresh(link):
        return False
    return link.trouble is not None or link.answer_age_ms is None or link.answer_age_ms > LINK_LOST_MS


def is_refused(link: Link) -> bool:
    """The peer answers, and will not have this node."""
    return link.refusal is not None and link.refusal.age_ms < REFUSAL_FRESH_MS


def case_of(evidence: Evidence) -> Case:
    """The evidence in order."""
    answering = [asked for asked in evidence if asked.view is not None]
    cluster_id = _cluster_of(answering)
    case = Case(evidence, cluster_id)
    strangers = []
    for asked in answering:
        assert asked.view is not None
        if asked.view.cluster_id in (None, cluster_id) and asked.view.id not in case.views:
            case.views[asked.view.id] = asked.view
            case.by_id[asked.view.id] = asked
        else:
            strangers.append(asked)
    case.strangers = tuple(strangers)
    case.members = {member.id: member for member in _members(case.views)}
    urls = {member.url: member.id for member in case.members.values() if member.url}
    case.asked = tuple(asked if asked.name else replace(asked, name=urls.get(asked.url)) for asked in evidence)
    for asked in case.asked:
        if asked.view is None and asked.name is not None:
            case.by_id.setdefault(asked.name, asked)
    return case


def _cluster_of(answering: list[Asked]) -> str | None:
    """That of most nodes; of equals, that which was asked first."""
    ids = [asked.view.cluster_id for asked in answering if asked.view is not None and asked.view.cluster_id]
    return Counter(ids).most_common(1)[0][0] if ids else None


def _members(views: dict[str, View]) -> list[Member]:
    """As the leader has them, or whoever has come furthest; before there is a cluster, as anybody was told."""
    formed = [view for view in views.values() if view.formation.formed and view.members]
    if formed:
        best = max(formed, key=lambda view: (view.role == "leader", view.term, view.last_index))
        return list(best.members)
    known: dict[str, Member] = {}
    for view in views.values():
        for member in view.members:
            if known.get(member.id) is None or known[member.id].url is None:
                known[member.id] = member
    return [known[id] for id in sorted(known)]


def _why(link: Link) -> str:
    return f" ({link.trouble})" if link.trouble else ""


GONE: Final = {
    Reach.REFUSED: ("does not run", "do not run", "connection refused"),
    Reach.TIMED_OUT: ("cannot be reached", "cannot be reached", "no connection in time"),
    Reach.UNREACHABLE: ("cannot be reached", "cannot be reached", ""),
    Reach.SILENT: ("hangs or is paused", "hang or are paused", "connected, but no answer"),
    Reach.BROKE: ("breaks connections off", "break connections off", ""),
    Reach.STRANGE: ("answers like no raftkv node", "answer like no raftkv node", ""),
}
"""How a node is gone: one, several, and in parentheses how that was seen; empty: in the system's words."""


def how_gone(nodes: list[Asked]) -> str:
    """``n2 and n3 do not run (connection refused)``; nodes that are gone alike stand together."""
    groups: dict[tuple[Reach, str], list[str]] = {}
    for asked in nodes:
        seen = GONE[asked.reach][2] or asked.detail
        groups.setdefault((asked.reach, seen), []).append(asked.id or asked.url)
    parts = []
    for (reach, seen), names in groups.items():
        one, several, _ = GONE[reach]
        parts.append(f"{listed(names)} {one if len(names) == 1 else several}" + (f" ({seen})" if seen else ""))
    return listed(parts)
