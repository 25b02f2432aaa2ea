"""Evidence of clusters as a doctor sees it: a healthy one, and what may befall it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from raftkv.cli.diagnosis.evidence import (
    Asked,
    Change,
    Disk,
    Evidence,
    Farewell,
    Formation,
    Link,
    Member,
    Outage,
    Reach,
    Refusal,
    Stall,
    View,
)

OURS, THEIRS = "ab" * 16, "cd" * 16
WELL = Disk(syncs_count=40, sync_p50_us=400, sync_p99_us=1_600, sync_longest_us=2_000, free_bytes=10**11)


def url_of(id: str) -> str:
    return f"http://{id}.test:7401"


def healthy(count: int = 3, *, leader: str | None = "n1", cluster_id: str = OURS, prefix: str = "n") -> Evidence:
    """All nodes answer, and know and reach each other."""
    ids = [f"{prefix}{number}" for number in range(1, count + 1)]
    return tuple(_asked(id, ids, leader, cluster_id) for id in ids)


def _asked(id: str, ids: list[str], leader: str | None, cluster_id: str) -> Asked:
    view = View(
        id=id,
        url=url_of(id),
        version="0.1.0",
        cluster_id=cluster_id,
        role="leader" if id == leader else "follower",
        term=4,
        leader_id=leader,
        leader_age_ms=0 if id == leader else 40,
        commit_index=1200,
        applied_index=1200,
        last_index=1200,
        durable_index=1200,
        state_hash="aa" * 16,
        staleness_ms=50,
        members=tuple(Member(each, url_of(each)) for each in ids),
        links=tuple(Link(each, url_of(each), True, 40, 400) for each in ids if each != id),
        disk=WELL,
    )
    return Asked(url_of(id), Reach.ANSWERS, None, view, answer_ms=2.0, clock_ahead_ms=0.0)


def change(evidence: Evidence, of: str, /, **fields: Any) -> Evidence:
    """The same, but for these fields of one node's view."""
    return tuple(
        replace(asked, view=replace(asked.view, **fields)) if asked.view is not None and asked.view.id == of else asked
        for asked in evidence
    )


def gone(
    evidence: Evidence, *ids: str, reach: Reach = Reach.REFUSED, detail: str = "Connection refused", **more: Any
) -> Evidence:
    """The same, but these do not answer; the others' links to them are dead, and those that led do no more."""
    for id in ids:
        evidence = tuple(
            Asked(asked.url, reach, id, None, detail, **more) if asked.view and asked.view.id == id else asked
            for asked in evidence
        )
        evidence = links_to(evidence, id, connected=False, answer_age_ms=9_000, trouble="connection refused")
    return evidence


def links_to(evidence: Evidence, peer: str, **fields: Any) -> Evidence:
    """The same, but for these fields of everybody's link to that peer."""
    for asked in evidence:
        if asked.view is not None:
            evidence = link(evidence, asked.view.id, peer, **fields)
    return evidence


def link(evidence: Evidence, of: str, to: str, **fields: Any) -> Evidence:
    """The same, but for these fields of one node's link."""
    (view,) = [asked.view for asked in evidence if asked.view is not None and asked.view.id == of]
    links = tuple(replace(each, **fields) if each.peer == to else each for each in view.links)
    return change(evidence, of, links=links)


def cut(evidence: Evidence, *ways: str) -> Evidence:
    """The same, but these are cut: ``n1>n3`` one way, ``n1-n3`` both."""
    for way in ways:
        of, to = way.replace(">", "-").split("-")
        pairs = [(of, to)] if ">" in way else [(of, to), (to, of)]
        for one, other in pairs:
            evidence = link(
                evidence, one, other, connected=False, answer_age_ms=8_000, trouble="no connection within 1 s"
            )
    return evidence


def refused(evidence: Evidence, of: str, to: str, code: str, detail: str) -> Evidence:
    """The same, but ``to`` will not have ``of``."""
    return link(evidence, of, to, connected=False, answer_age_ms=8_000, refusal=Refusal(code, detail, 200))


def disk(evidence: Evidence, *ids: str, **fields: Any) -> Evidence:
    """The same, but for these fields of these nodes' disks."""
    for id in ids:
        evidence = change(evidence, id, disk=replace(WELL, **fields))
    return evidence


def unformed(*ids: str, waits_for: dict[str, tuple[str, ...]], problem: str | None = None) -> Evidence:
    """Nodes that have never been a cluster."""
    evidence = healthy(3, leader=None)
    for id in ids:
        formation = Formation(formed=False, waits_for=waits_for.get(id, ()), problem=problem)
        evidence = change(evidence, id, cluster_id=None, term=0, formation=formation, disk=None, state_hash=None)
    return gone(evidence, *[id for id in ("n1", "n2", "n3") if id not in ids])


def changes(*terms: tuple[int, str, str], age_ms: int = 20_000) -> tuple[Change, ...]:
    """What befell leadership, as a node notes it."""
    return tuple(
        Change(event, term, age_ms - place * 1000, detail) for place, (term, event, detail) in enumerate(terms)
    )


def farewell(evidence: Evidence, id: str, reason: str) -> Evidence:
    """The same, but that one said why it goes."""
    return links_to(evidence, id, farewell=Farewell(reason, 3_000))


def outages(evidence: Evidence, *links_: str, count: int, duration_ms: int = 1_200, age_ms: int = 5_000) -> Evidence:
    """The same, but these links (``n1-n3``, as both ends know) did not work so often, ten seconds apart."""
    told = tuple(Outage(duration_ms, age_ms + 10_000 * place) for place in reversed(range(count)))
    for each in links_:
        one, other = each.split("-")
        evidence = link(link(evidence, one, other, outages=told), other, one, outages=told)
    return evidence


def stalls(evidence: Evidence, id: str, *durations_ms: int, age_ms: int = 5_000) -> Evidence:
    """The same, but that one stood still."""
    (view,) = [asked.view for asked in evidence if asked.view is not None and asked.view.id == id]
    found = tuple(Stall(duration_ms, age_ms) for duration_ms in durations_ms)
    return change(evidence, id, loop=replace(view.loop, stalls_count=len(found), stalls=found))
