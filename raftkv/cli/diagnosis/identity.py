"""Who is who: two clusters, emptied and mistaken nodes, secrets that differ, states that differ. Pure rules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from raftkv.cli.diagnosis.case import SECRET_CODES, Case, is_refused
from raftkv.cli.diagnosis.finding import Finding, Weight, listed, verb

_GONE = "data is gone"
"""What a node says of one whose directory was emptied, itself or another."""


def endpoints_of_two_clusters(case: Case) -> Iterator[Finding]:
    """The operator named nodes that do not belong together."""
    foreign = [asked for asked in case.strangers if asked.is_endpoint and not _stands_in_for(case, asked.url)]
    if not foreign:
        return
    ours = [id for id in case.views if case.by_id[id].is_endpoint]
    theirs: dict[str, list[str]] = {}
    for asked in foreign:
        assert asked.view is not None
        theirs.setdefault(_short(asked.view.cluster_id), []).append(asked.view.id)
    parts = [f"{listed(ours)} to {_short(case.cluster_id)}"]
    parts += [f"{listed(ids)} to {cluster}" for cluster, ids in theirs.items()]
    headline = f"The endpoints belong to {_number(len(parts))} clusters: {listed(parts)}."
    seen = tuple(f"{asked.url} answers as {asked.id}" for asked in foreign)
    do = ("ask one cluster at a time: leave the others' URLs out of --endpoints", f"what follows is about {parts[0]}")
    yield Finding("two_clusters", Weight.TWO_CLUSTERS, headline, seen, do, tuple(asked.id or "" for asked in foreign))


def strangers_at_members_addresses(case: Case) -> Iterator[Finding]:
    """Another cluster's node answers where one of ours should."""
    for asked in case.strangers:
        member = _stands_in_for(case, asked.url)
        if member is None or asked.view is None:
            continue
        cluster = _short(asked.view.cluster_id)
        if asked.view.id == member:
            what = f"The {member} at {asked.url} belongs to another cluster ({cluster}, not {_short(case.cluster_id)})"
        else:
            what = f"At {asked.url}, where {member} should be, answers {asked.view.id} of another cluster ({cluster})"
        do = (
            f"start {member} there with its own data directory, or correct its address",
            "nothing was harmed: peers refuse it",
        )
        yield Finding("stranger", Weight.IDENTITY, f"{what}.", _complaints(case, member), do, (member,))


def emptied_nodes(case: Case) -> Iterator[Finding]:
    """A node came back without its data: it is not the node that it was."""
    if not any(view.formation.formed for view in case.views.values()):
        return
    gone: dict[str, list[str]] = {}
    for view in case.views.values():
        for text in (view.formation.problem, view.formation.complaint, *(link.complaint for link in view.links)):
            if text is not None and _GONE in text:
                gone.setdefault(text.partition("'")[0], []).append(view.id)
    for id, witnesses in sorted(gone.items()):
        if id in case.views and case.views[id].formation.formed and case.views[id].cluster_id == case.cluster_id:
            continue
        headline = f"{id}'s data is gone: its directory is empty, so it is another node, and neither votes nor counts."
        named = sorted(set(witnesses))
        seen = (f"{listed(named)} {verb(named, 'say')} so",)
        do = (
            f"if its disk is lost for good: `raftkv member replace {id}`",
            "if not: stop it, and give it its old directory back",
        )
        yield Finding("data_gone", Weight.IDENTITY, headline, seen, do, (id,))


def secrets_differ(case: Case) -> Iterator[Finding]:
    """Nodes refuse each other for want of the same secret; whoever is refused by most is the odd one."""
    refused = [
        (view.id, link.peer, link.refusal.detail)
        for view in case.views.values()
        for link in view.links
        if is_refused(link) and link.refusal is not None and link.refusal.code in SECRET_CODES
    ]
    if not refused:
        return
    odd, _ = Counter(peer for view, peer, _ in refused for peer in (view, peer)).most_common(1)[0]
    others = sorted({other for view, peer, _ in refused for other in (view, peer) if other != odd})
    if len(others) > 1:
        headline = f"{odd} does not have the peer secret of {listed(others)}: they refuse each other."
    else:
        headline = f"{odd} and {listed(others)} do not have the same peer secret: they refuse each other."
    seen = tuple(f"{view}: {detail}" for view, _, detail in refused)
    do = ("give all nodes a --peer-secret-file with the same content, and start whoever had another one anew",)
    yield Finding("secrets_differ", Weight.SECRET, headline, seen, do, (odd,))


def states_differ(case: Case) -> Iterator[Finding]:
    """Equal logs must make equal states. Nothing graver can be found."""
    at: dict[int, dict[str, list[str]]] = {}
    for view in case.views.values():
        if view.state_hash is not None and view.formation.formed:
            at.setdefault(view.applied_index, {}).setdefault(view.state_hash, []).append(view.id)
    for index, hashes in sorted(at.items()):
        if len(hashes) > 1:
            groups = sorted(hashes.values(), key=len)
            fewest, most = groups[0], groups[-1]
            yield _differ(fewest, [*most], f"both have applied the log to index {index:,}")
            return
    leader = case.leader
    if leader is not None and leader.disagreeing:
        yield _differ(list(leader.disagreeing), [leader.id], f"{leader.id}, which leads, says so")


def _differ(fewest: list[str], most: list[str], seen: str) -> Finding:
    headline = f"{listed(fewest)} {verb(fewest, 'hold')} another state than {listed(most)}, from the same log."
    do = (
        f"send no traffic to {listed(fewest)}; keep the data directories of all: this is a bug, they are its evidence",
        "then empty and replace the node that stands alone: `raftkv member replace ID`",
    )
    return Finding("states_differ", Weight.STATES_DISAGREE, headline, (seen,), do, tuple(fewest))


def _complaints(case: Case, member: str) -> tuple[str, ...]:
    lines = []
    for view in case.views.values():
        link = view.link_to(member)
        if link is not None and link.complaint is not None:
            lines.append(f"{view.id}: {link.complaint}")
    return tuple(lines)


def _stands_in_for(case: Case, url: str) -> str | None:
    """The member of ours that should answer there."""
    return next((member.id for member in case.members.values() if member.url == url), None)


def _short(cluster_id: str | None) -> str:
    return "none" if cluster_id is None else f"{cluster_id[:8]}…"


def _number(count: int) -> str:
    return {2: "two", 3: "three"}.get(count, str(count))
