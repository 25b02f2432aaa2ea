"""The evidence put in order: whose cluster it is, who belongs to it, who reaches whom. Pure; judges nothing.

Told: evidence. Tells: members by id with what is known of each, the leader, the links that are cut.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Final

from raftkv.cli.diagnosis.evidence import Asked, Evidence, Farewell, Link, Member, Outage, Reach, Stall, View
from raftkv.cli.diagnosis.finding import ago, listed

LINK_FRESH_MS: Final = 1_500
"""A link is tried when it has been idle for a second: one that answered so lately is well."""
LINK_LOST_MS: Final = 4_000
"""After so long it is not, whatever its node knows of trouble."""
SETTLING_MS: Final = 2_000
"""Who started so lately may not have reached everybody yet."""
REFUSAL_FRESH_MS: Final = 5_000
MINUTE_MS: Final = 60_000
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
    twins: tuple[Asked, ...] = ()
    """Other processes under the id of a node that answers too."""
    outside: tuple[View, ...] = ()
    """Nodes of this cluster that are no members any more, and those that wait to be let into one; no rule but those
    about them looks at them."""
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
    def led_by(self) -> str | None:
        """Who leads; where it cannot be asked from here, by the word of the nodes that hear it."""
        if self.leader is not None:
            return self.leader.id
        told = [
            view for view in self.views.values() if view.leader_id is not None and self.is_elsewhere(view.leader_id)
        ]
        return max(told, key=lambda view: view.term).leader_id if told else None

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
        return [view.id for view in self.views.values() if (link := view.link_to(id)) is not None and is_well(link)]

    def is_elsewhere(self, id: str) -> bool:
        """Nothing is heard of it here, and its peers have its answers: what is broken is the way from here."""
        asked = self.by_id.get(id)
        if id in self.views or (asked is not None and asked.reach is Reach.SILENT):
            return False
        return bool(self.reached_by(id))

    def seen_by_peers(self, id: str) -> tuple[str, ...]:
        """What each node says of its link to that one, a line each."""
        lines = []
        for view in self.views.values():
            link = view.link_to(id)
            if link is not None and not is_fresh(link):
                age_ms = link.answer_age_ms
                when = "never had an answer" if age_ms is None else f"had its last answer {ago(age_ms)}"
                lines.append(f"{view.id} {when}{_why(link)}")
        return tuple(lines)

    def hangs(self, id: str) -> bool:
        """Its disk does."""
        view = self.views.get(id)
        return view is not None and view.disk is not None and view.disk.oldest_wait_ms >= DISK_HANGS_MS

    def works(self, id: str) -> bool:
        """It takes part, and its disk does its work, as far as is known: it can vote and store."""
        view = self.views.get(id)
        if view is None:
            return self.is_elsewhere(id)
        return view.dead_because is None and view.formation.formed and not self.hangs(id)

    def cut_links(self) -> list[CutLink]:
        """Between nodes that both answer and have had time to find each other."""
        found = []
        for view in self.views.values():
            for link in view.links:
                other = self.views.get(link.peer)
                if other is None or min(view.uptime_ms, other.uptime_ms) < SETTLING_MS:
                    continue
                if (
                    is_cut(link)
                    and not is_refused(link)
                    and not _is_for_a_stall(link, (*view.loop.stalls, *other.loop.stalls))
                ):
                    found.append(CutLink(view.id, link.peer, link.trouble or "no answer"))
        return found

    def outages(self) -> dict[tuple[str, str], tuple[Outage, ...]]:
        """Of the last minute, by link; but for those for which one of its ends is to blame, as it stood still or began.

        Told by the end that told of more: both notice one and the same.
        """
        found: dict[tuple[str, str], tuple[Outage, ...]] = {}
        for view in self.views.values():
            for link in view.links:
                other = self.views.get(link.peer)
                if other is None:
                    continue
                pair = (min(view.id, other.id), max(view.id, other.id))
                told = tuple(each for each in link.outages if _is_the_links_own(each, view, other))
                if len(told) > len(found.get(pair, ())):
                    found[pair] = told
        return found

    def _links_to(self, id: str) -> list[Link]:
        return [link for view in self.views.values() if (link := view.link_to(id)) is not None]


def is_fresh(link: Link) -> bool:
    """The peer answered lately."""
    return link.answer_age_ms is not None and link.answer_age_ms < LINK_FRESH_MS


def is_well(link: Link) -> bool:
    """The peer answered lately, and nothing has come between since."""
    return is_fresh(link) and link.connected and link.trouble is None


def is_cut(link: Link) -> bool:
    """The peer has not answered for longer than a link may be idle."""
    if is_fresh(link):
        return False
    return link.trouble is not None or link.answer_age_ms is None or link.answer_age_ms > LINK_LOST_MS


def is_refused(link: Link) -> bool:
    """The peer answers, and will not have this node."""
    return link.refusal is not None and link.refusal.age_ms < REFUSAL_FRESH_MS


def _is_the_links_own(outage: Outage, *ends: View) -> bool:
    """It is of the last minute, both ends ran throughout, and neither stood still."""
    began_ms = outage.age_ms + outage.duration_ms
    if outage.age_ms >= MINUTE_MS or any(end.uptime_ms < began_ms + SETTLING_MS for end in ends):
        return False
    return not any(
        stall.age_ms < began_ms and stall.age_ms + stall.duration_ms > outage.age_ms
        for end in ends
        for stall in end.loop.stalls
    )


def _is_for_a_stall(link: Link, stalls: tuple[Stall, ...]) -> bool:
    """One end stood still while no answer came, and the link has hardly had time to mend since."""
    if link.answer_age_ms is None or not any(stall.age_ms < LINK_LOST_MS for stall in stalls):
        return False
    return link.answer_age_ms <= max(stall.age_ms + stall.duration_ms for stall in stalls) + LINK_FRESH_MS


def case_of(evidence: Evidence) -> Case:
    """The evidence in order."""
    answering = [asked for asked in evidence if asked.view is not None]
    cluster_id = _cluster_of(answering)
    case = Case(evidence, cluster_id)
    strangers, twins = [], []
    for asked in answering:
        assert asked.view is not None
        if asked.view.cluster_id not in (None, cluster_id):
            strangers.append(asked)
        elif asked.view.id not in case.views:
            case.views[asked.view.id] = asked.view
            case.by_id[asked.view.id] = asked
        elif not asked.is_same_process(case.by_id[asked.view.id]):
            twins.append(asked)
    case.strangers, case.twins = tuple(strangers), tuple(twins)
    case.members = {member.id: member for member in _members(case.views)}
    case.outside = tuple(view for view in case.views.values() if _is_outside(view, case.members))
    if len(case.outside) < len(case.views):
        case.views = {id: view for id, view in case.views.items() if view not in case.outside}
    urls = {member.url: member.id for member in case.members.values() if member.url}
    case.asked = tuple(asked if asked.name else replace(asked, name=urls.get(asked.url)) for asked in evidence)
    for asked in case.asked:
        if asked.view is None and asked.name is not None:
            case.by_id.setdefault(asked.name, asked)
    return case


def _is_outside(view: View, members: dict[str, Member]) -> bool:
    """It was removed, or was started to join and is not in yet; a member that was emptied is neither."""
    waits = view.formation.joins and not view.formation.formed
    return view.id not in members and (view.removed_at is not None or waits)


def _cluster_of(answering: list[Asked]) -> str | None:
    """That of most nodes; of equals, that which was asked first. None: it is about nodes that have never formed one.

    These are, if they are more, nobody that a formed cluster's nodes list: then that is a stranger in their midst.
    """
    views = [asked.view for asked in answering if asked.view is not None]
    formed = Counter(view.cluster_id for view in views if view.cluster_id is not None)
    if not formed:
        return None
    cluster_id, count = formed.most_common(1)[0]
    listed = {member.id for view in views if view.cluster_id == cluster_id for member in view.members}
    here = {asked.url for asked in answering if asked.view is not None and asked.view.cluster_id == cluster_id}
    unformed = [view for view in views if view.cluster_id is None]
    meets = any(member.url in here for view in unformed for member in view.members)
    is_strange = meets and len(unformed) > count and not any(view.id in listed for view in unformed)
    return None if is_strange else cluster_id


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


def how_to_start(nodes: list[Asked]) -> str:
    """The command that brings these nodes back."""
    if any(asked.log is not None for asked in nodes):
        return "start what is missing: `raftkv cluster up --detach`"
    if not all(asked.id for asked in nodes):
        urls = listed([asked.url for asked in nodes])
        return f"start the nodes at {urls} with the same commands as ever; or are these not the right --endpoints?"
    units = " ".join(f"raftkv@{asked.id}" for asked in nodes)
    service = f" (`systemctl start {units}` where it is a service)"
    return f"start {listed([asked.id or asked.url for asked in nodes])} again with the same command as ever{service}"


def how_to_restart(case: Case, ids: list[str]) -> str:
    """The command after which these nodes have begun anew."""
    nodes = [case.by_id[id] for id in ids if id in case.by_id]
    pids = [str(asked.pid) for asked in nodes if asked.pid is not None]
    if pids:
        return f"`kill {' '.join(pids)}`, and when that has ended `raftkv cluster up --detach`"
    units = " ".join(f"raftkv@{id}" for id in ids)
    return f"`systemctl restart {units}`, or stop {listed(ids)} and start with the same command as ever"
