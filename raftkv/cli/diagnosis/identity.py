"""Who is who: two clusters, emptied and mistaken nodes, secrets that differ, states that differ. Pure rules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from raftkv.cli.diagnosis.case import SECRET_CODES, Case, how_to_restart, is_refused
from raftkv.cli.diagnosis.finding import Finding, Weight, listed, verb

_GONE: Final = "data is gone"
"""What a node says of one whose directory was emptied, itself or another."""
_ASKER_HAS_NONE: Final = "this node has none"
"""How a node says so of itself; where it is refused for that and says otherwise, its peer has none."""
_WRONG: Final = "replicas_disagree"
"""How a node says that its own state is wrong."""


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
            ours = "ours never formed" if case.cluster_id is None else f"not {_short(case.cluster_id)}"
            what = f"The {member} at {asked.url} belongs to another cluster ({cluster}, {ours})"
        else:
            what = f"At {asked.url}, where {member} should be, answers {asked.view.id} of another cluster ({cluster})"
        do = (
            f"start {member} there with its own data directory, or correct its address",
            "nothing was harmed: peers refuse it",
        )
        yield Finding("stranger", Weight.IDENTITY, f"{what}.", _complaints(case, member), do, (member,))


def twins(case: Case) -> Iterator[Finding]:
    """Two processes under one id: peers cannot tell them apart, and either may acknowledge what the other lacks."""
    for asked in case.twins:
        assert asked.view is not None
        id, first = asked.view.id, case.by_id[asked.view.id]
        member = case.members.get(id)
        headline = f"Two processes say that they are {id}: one at {first.url}, another at {asked.url}."
        do = (
            f"stop at once the one whose data directory is a copy; {id} belongs at {case.url_of(id)}"
            if member is None or member.url is None
            else f"stop at once the one that does not belong: {id} belongs at {member.url}",
            "one data directory, one process: what a copy has acknowledged proves nothing",
        )
        yield Finding("twins", Weight.TWINS, headline, (), do, (id,))


def is_emptied(case: Case, id: str) -> bool:
    """It came back without its data, by its own word or its peers'."""
    view = case.views.get(id)
    if view is not None and view.formation.formed and view.cluster_id == case.cluster_id:
        return False
    return id in _gone_by_witness(case)


def emptied_nodes(case: Case) -> Iterator[Finding]:
    """A node came back without its data: it is not the node that it was."""
    if not any(view.formation.formed for view in case.views.values()):
        return
    for id, witnesses in sorted(_gone_by_witness(case).items()):
        if not is_emptied(case, id):
            continue
        headline = f"{id}'s data is gone: its directory is empty, so it is another node, and neither votes nor counts."
        named = sorted(set(witnesses))
        seen = (f"{listed(named)} {verb(named, 'say')} so",)
        left, needed = sum(case.works(voter) for voter in case.voters), f"{case.majority} of {len(case.voters)}"
        do = (
            f"stop {id}, give it its old data directory back (is a disk not mounted?), and start it again",
            f"if that is lost for good: start {id} empty, with --join, and then `raftkv member replace {id}`",
            f"until then its place is empty: keep the other {left} well, {needed} are needed",
        )
        yield Finding("data_gone", Weight.IDENTITY, headline, seen, do, (id,))


def _gone_by_witness(case: Case) -> dict[str, list[str]]:
    """Whose data is gone, and who says so."""
    gone: dict[str, list[str]] = {}
    for view in case.views.values():
        for text in (view.formation.problem, view.formation.complaint, *(link.complaint for link in view.links)):
            if text is not None and _GONE in text:
                gone.setdefault(text.partition("'")[0], []).append(view.id)
    return gone


def secrets_differ(case: Case) -> Iterator[Finding]:
    """Nodes refuse each other for want of the same secret."""
    refused = [
        (view.id, link.peer, link.refusal)
        for view in case.views.values()
        for link in view.links
        if is_refused(link) and link.refusal is not None and link.refusal.code in SECRET_CODES
    ]
    if not refused:
        return
    pairs = sorted({tuple(sorted((view, peer))) for view, peer, _ in refused})
    nodes = sorted({node for pair in pairs for node in pair})
    bare = [each for each in refused if each[2].code == "unauthorized"]
    without = {view if _ASKER_HAS_NONE in refusal.detail else peer for view, peer, refusal in bare}
    headline, about = _whose_secret(nodes, pairs, sorted(without))
    seen = tuple(dict.fromkeys(f"{view}: {refusal.detail}" for view, _, refusal in refused))
    do = (
        f"compare `sha256sum` of the file that --peer-secret-file names at {listed(nodes)}: all must be alike",
        "give the odd one the others' file, and start it again: a secret is read at the start only",
    )
    yield Finding("secrets_differ", Weight.SECRET, f"{headline}: they refuse each other.", seen, do, about)


def _whose_secret(nodes: list[str], pairs: list[tuple[str, ...]], without: list[str]) -> tuple[str, tuple[str, ...]]:
    """Who has another one or none, and whom it is about: whoever is refused by most is the odd one."""
    if without:
        others = [node for node in nodes if node not in without]
        has, have = verb(without, "have"), verb(others, "have")
        return f"{listed(without)} {has} no peer secret, and {listed(others)} {have} one", tuple(without)
    if len(nodes) > 2 and len(pairs) == len(nodes) * (len(nodes) - 1) // 2:
        return f"No two of {listed(nodes)} have the same peer secret", tuple(nodes)
    if len(nodes) == 2:
        return f"{listed(nodes)} do not have the same peer secret", tuple(nodes)
    odd = Counter(node for pair in pairs for node in pair).most_common(1)[0][0]
    others = [node for node in nodes if node != odd]
    return f"{odd} does not have the peer secret of {listed(others)}", (odd,)


def states_differ(case: Case) -> Iterator[Finding]:
    """Equal logs must make equal states. Nothing graver can be found."""
    knowing = [view for view in case.views.values() if any(reason.code == _WRONG for reason in view.unready)]
    for view in knowing:
        headline = f"{view.id}'s state is wrong: the same log made another state there than at a majority."
        told = tuple(reason.detail for reason in view.unready if reason.code == _WRONG)
        seen = (*told, f"{view.id} answers no reads or writes and leads no more; it still votes and stores")
        yield Finding(
            "state_is_wrong", Weight.STATES_DISAGREE, headline, seen, _build_anew(case, [view.id]), (view.id,)
        )
    if not knowing:
        yield from _unjudged_states(case)


def _unjudged_states(case: Case) -> Iterator[Finding]:
    """States that differ, though no node knows yet, or can know, that it is its own that is wrong."""
    at: dict[int, dict[str, list[str]]] = {}
    for view in case.views.values():
        if view.state_hash is not None and view.formation.formed:
            at.setdefault(view.applied_index, {}).setdefault(view.state_hash, []).append(view.id)
    for index, hashes in sorted(at.items()):
        if len(hashes) > 1:
            groups = sorted(hashes.values(), key=len)
            yield _differ(case, groups[0], groups[-1], f"both have applied the log to index {index:,}")
            return
    leader = case.leader
    if leader is not None and leader.disagreeing:
        others = [id for id in case.voters if id in case.views and id not in leader.disagreeing]
        yield _differ(case, list(leader.disagreeing), others, f"{leader.id}, which leads, says so")


def _differ(case: Case, fewest: list[str], most: list[str], seen: str) -> Finding:
    if len(most) >= case.majority:
        headline = f"{listed(fewest)} {verb(fewest, 'hold')} another state than {listed(most)}, from the same log."
        do = _build_anew(case, fewest)
        return Finding("states_differ", Weight.STATES_DISAGREE, headline, (seen,), do, tuple(fewest))
    both = sorted([*fewest, *most])
    headline = f"{listed(both)} hold different states, from the same log, and which is right is not known."
    do = (
        f"send no traffic to {listed(both)}, and get the nodes that do not answer to run: a majority is right",
        f"without them: start {listed(both)} again, one after the other; each builds its state anew from its log",
    )
    return Finding("states_differ", Weight.STATES_DISAGREE, headline, (seen,), do, tuple(both))


def _build_anew(case: Case, wrong: list[str]) -> tuple[str, ...]:
    return (
        f"{how_to_restart(case, wrong)}: a start builds the state anew from the log",
        "before that copy its data directory: with the others' it is the evidence of a bug, or of bad memory",
    )


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
