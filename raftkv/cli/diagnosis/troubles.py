"""What hinders nodes that run: links, disks, event loops, leadership that will not stay. Pure rules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from typing import Final
from urllib.parse import urlsplit

from raftkv.cli.diagnosis.case import MINUTE_MS, Case, CutLink, is_fresh, is_refused
from raftkv.cli.diagnosis.evidence import Change, Outage, View
from raftkv.cli.diagnosis.finding import Finding, Weight, ago, listed, plural, span

SLOW_P50_US: Final = 25_000
"""A disk of whose syncs half take longer: a spinning disk without a cache takes 10 to 15 ms."""
_NOT_KEPT: Final = "a piece of a snapshot was not stored"
"""How a node begins that has no room for one."""
SLOW_SYNCS_MIN: Final = 3
RARE_SYNCS_MIN: Final = 100
"""Of fewer syncs the slowest is no hundredth."""
LATELY_MS: Final = 5_000
CHANGES_MAX: Final = 2
"""More changes of leadership in a minute are no chance."""
STALLS_MAX: Final = 2
OUTAGES_MAX: Final = 2
"""More outages of one link in a minute are no chance."""
LAG_ENTRIES: Final = 10_000
LAG_MS: Final = 5_000
LOW_ROOM_BYTES: Final = 256 * 1024 * 1024


def cut_links(case: Case) -> Iterator[Finding]:
    """Which link, which way; a node without any is cut off itself."""
    left = case.cut_links()
    for id in case.views:
        others = [other for other in case.views if other != id]
        ways = {(link.of, link.to) for link in left}
        if len(others) > 1 and all((id, other) in ways and (other, id) in ways for other in others):
            links = [link for link in left if id in (link.of, link.to)]
            left = [link for link in left if link not in links]
            headline = f"{id} is cut off: it cannot reach {listed(others)}, nor can they reach it ({links[0].why})."
            seen = (*_seen(links), *_what_it_means(case, id, others[0]))
            yield Finding("cut_off", Weight.CUT_OFF, headline, seen, _mend(case, links[0]), (id,))
    while left:
        link = left.pop(0)
        back = next((other for other in left if (other.of, other.to) == (link.to, link.of)), None)
        if back is not None:
            left.remove(back)
            headline = f"The link between {link.of} and {link.to} is cut: neither reaches the other ({link.why})."
            name = "link_cut"
        else:
            headline = f"{link.of} cannot reach {link.to} ({link.why}){_but(case, link)}."
            name = "link_cut_one_way"
        seen = (*_seen([link] if back is None else [link, back]), *_what_it_means(case, link.of, link.to))
        yield Finding(name, Weight.LINK_CUT, headline, seen, _mend(case, link), (link.of, link.to))


def flapping_links(case: Case) -> Iterator[Finding]:
    """Links that work now, and did not time and again; a node all of whose links are such is cut off itself."""
    cut = {frozenset((link.of, link.to)) for link in case.cut_links()}
    left = {
        pair: outages
        for pair, outages in case.outages().items()
        if len(outages) > OUTAGES_MAX and frozenset(pair) not in cut
    }
    for id in case.views:
        mine = {pair: outages for pair, outages in left.items() if id in pair}
        if 1 < len(mine) == len(case.views) - 1:
            left = {pair: outages for pair, outages in left.items() if id not in pair}
            headline = f"{id} is cut off again and again: {_how_often(max(mine.values(), key=len))}."
            seen = tuple(_outages_seen(pair, outages) for pair, outages in mine.items())
            do = (f"at {id}: `ip -s link`, `ss -ti`; cable, switch, firewall, address taken twice?",)
            yield Finding("link_flaps", Weight.LINK_FLAPS, headline, seen, do, (id,))
    for (one, other), outages in left.items():
        headline = f"The link between {one} and {other} comes and goes: {_how_often(outages)}."
        seen = (_outages_seen((one, other), outages), *_what_it_means(case, one, other))
        do = (f"at {one}: `ping -c 20 {_host(case.url_of(other))}`; then cables, switches, firewalls between the two",)
        yield Finding("link_flaps", Weight.LINK_FLAPS, headline, seen, do, (one, other))


def _how_often(outages: Sequence[Outage]) -> str:
    longest = max(outage.duration_ms for outage in outages)
    return f"no answer {len(outages)} times in the last minute, for up to {span(longest)}"


def _outages_seen(pair: tuple[str, str], outages: Sequence[Outage]) -> str:
    told = ", ".join(f"{span(outage.duration_ms)} until {ago(outage.age_ms)}" for outage in outages)
    return f"{pair[0]} and {pair[1]}: {told}"


def _host(url: str) -> str:
    return urlsplit(url).hostname or url


def refusals(case: Case) -> Iterator[Finding]:
    """A peer answers and will not have us, for another reason than its secret or its identity."""
    for view in case.views.values():
        for link in view.links:
            refusal = link.refusal
            if refusal is None or not is_refused(link) or link.peer not in case.views:
                continue
            if refusal.code in ("wrong_cluster", "no_leader", "forbidden", "unauthorized"):
                continue
            one, other = view.version, case.views[link.peer].version
            headline = f"{link.peer} refuses {view.id}: {refusal.detail} ({refusal.code})."
            do = (f"look in both nodes' logs for what {link.peer} takes amiss",)
            if one != other:
                headline = f"{link.peer} ({other}) refuses {view.id} ({one}): {refusal.detail} ({refusal.code})."
                do = (f"run one version everywhere: {link.peer} has {other}, {view.id} has {one}",)
            yield Finding("refused", Weight.LINK_CUT, headline, (), do, (view.id, link.peer))


def hanging_disks(case: Case) -> Iterator[Finding]:
    """A write waits for longer than any disk takes that works."""
    for view in case.views.values():
        if view.disk is None or not case.hangs(view.id):
            continue
        waits = span(view.disk.oldest_wait_ms)
        headline = f"{view.id}'s disk hangs: a write has been waiting for {waits}."
        seen = (*_syncs(case, view), *_if_leading(view, "it can commit nothing by itself, and hands over where it can"))
        do = (
            f"at {view.id}: `dmesg | tail`, `iostat -x 1 3`; a disk that comes back needs nothing else",
            "a restart does not mend a disk; move the node's directory if it must be replaced",
        )
        yield Finding("disk_hangs", Weight.DISK_HANGS, headline, seen, do, (view.id,))


def full_disks(case: Case) -> Iterator[Finding]:
    """There is no room for another segment of the log."""
    for view in case.views.values():
        disk = view.disk
        if disk is None or not disk.room_is_short:
            continue
        leads = view.role == "leader"
        then = "it refuses puts (507) and takes deletes" if leads else "it stops when its open segment is full too"
        headline = f"{view.id}'s disk is full: there is no room for another segment of its log, and {then}."
        room = (
            ()
            if disk.free_bytes is None
            else (f"{_mib(disk.free_bytes)} are free, its log takes {_mib(disk.log_bytes)}",)
        )
        do = (f"make room at {view.id}: `df -h`, `du -xh -d1 / | sort -h`; never delete files of the log",)
        yield Finding("disk_full", Weight.DISK_FULL, headline, room, do, (view.id,))


def no_snapshots(case: Case) -> Iterator[Finding]:
    """A log that nothing cuts any more; where the disk is full for the log too, that is the finding."""
    for view in case.views.values():
        disk = view.disk
        if disk is None or disk.snapshot_failure is None or disk.room_is_short:
            continue
        if disk.snapshot_failure.startswith(_NOT_KEPT):
            yield _cannot_be_sent_one(view.id, disk.snapshot_failure)
            continue
        headline = f"{view.id} cannot take snapshots: {disk.snapshot_failure}."
        seen = (f"its log takes {_mib(disk.log_bytes)} and grows, and a start would read all that is new in it",)
        do = (
            f"make room at {view.id}: `df -h`, `du -xh -d1 / | sort -h`",
            "it tries again by itself every half minute",
        )
        yield Finding("no_snapshots", Weight.NO_SNAPSHOTS, headline, seen, do, (view.id,))


def _cannot_be_sent_one(id: str, failure: str) -> Finding:
    """It lags by more than the others' logs hold, and has no room for the file that would bring it back."""
    headline = f"{id} cannot be sent the snapshot that it needs: {failure}."
    seen = ("until it has that it stays behind; its older snapshots have gone for it already, or would not be enough",)
    do = (
        f"make room at {id}: `df -h`, `du -xh -d1 / | sort -h`; never delete files of the data directory",
        "it is sent again by itself, a second later",
    )
    return Finding("no_snapshots", Weight.NO_SNAPSHOTS, headline, seen, do, (id,))


def slow_disks(case: Case) -> Iterator[Finding]:
    """Every write waits for the disks of a majority."""
    for view in sorted(case.views.values(), key=lambda view: -view.disk.sync_p50_us if view.disk is not None else 0):
        disk = view.disk
        if disk is None or disk.syncs_count < SLOW_SYNCS_MIN or case.hangs(view.id):
            continue
        bound_us = view.settings.election_timeout_ms * 500
        is_rarely_slow = disk.sync_p99_us >= bound_us and disk.syncs_count >= RARE_SYNCS_MIN
        if disk.sync_p50_us < SLOW_P50_US and not is_rarely_slow:
            continue
        share, us = (
            ("half", disk.sync_p50_us) if disk.sync_p50_us >= SLOW_P50_US else ("one in a hundred", disk.sync_p99_us)
        )
        others = [
            f"{other.id} {span(other.disk.sync_p50_us / 1000)}"
            for other in case.views.values()
            if other is not view and other.disk is not None and other.disk.syncs_count
        ]
        beside = f"; half at {listed(others)}" if others else ""
        headline = (
            f"{view.id}'s disk is slow: {share} of its {plural(disk.syncs_count, 'sync')} in the last minute took "
            f"{span(us / 1000)} or longer{beside}."
        )
        seen = (
            *_syncs(case, view),
            *_if_leading(view, "all writes wait for the followers' disks instead, one of which is then needed"),
        )
        do = (
            f"at {view.id}: `iostat -x 1 3`: who else writes there? The log wants a disk of its own",
            *_hand_over(view),
        )
        yield Finding("disk_slow", Weight.DISK_SLOW, headline, seen, do, (view.id,))


def stalling_loops(case: Case) -> Iterator[Finding]:
    """A process that does not get to run: whatever it does is late, its heartbeats too. The worst of now first."""
    for view in sorted(case.views.values(), key=_stalled_lately_ms, reverse=True):
        stalls = [stall for stall in view.loop.stalls if stall.age_ms < MINUTE_MS]
        long = [stall for stall in stalls if stall.duration_ms >= view.settings.election_timeout_ms]
        if not long:
            continue
        longest = max(long, key=lambda stall: stall.duration_ms)
        lasted = span(longest.duration_ms)
        do = (
            f"at {view.id}: enough CPU, memory? `vmstat 1 5`, `cat /proc/pressure/cpu`; or was the machine suspended?",
        )
        seen = tuple(f"{span(stall.duration_ms)}, {ago(stall.age_ms)}" for stall in stalls)
        if len(long) > STALLS_MAX:
            headline = (
                f"{view.id} stands still again and again: {len(long)} times in the last minute, for up to {lasted}."
            )
            yield Finding("loop_stalls", Weight.LOOP_STALLS, headline, seen, do, (view.id,))
        else:
            yield Finding(
                "loop_stalled",
                Weight.NOTICE,
                f"{view.id} stood still for {lasted}, {ago(longest.age_ms)}.",
                seen,
                do,
                (view.id,),
            )


def _stalled_lately_ms(view: View) -> int:
    return sum(stall.duration_ms for stall in view.loop.stalls if stall.age_ms < LATELY_MS)


def changing_leadership(case: Case) -> Iterator[Finding]:
    """Leadership that does not stay, and what takes it away."""
    terms: dict[int, str] = {}
    oldest_ms = 0
    for view in case.views.values():
        for change in view.leadership:
            if change.event in ("became_leader", "follows") and change.age_ms < MINUTE_MS:
                terms.setdefault(change.term, _leader_in(view, change))
                oldest_ms = max(oldest_ms, change.age_ms)
    changes = len(terms) - 1
    if changes <= CHANGES_MAX:
        return
    leaders = [f"{leader} (term {term})" for term, leader in sorted(terms.items())]
    causes = list(_why_leadership_changes(case))
    why = causes[0] if causes else "no cause is left to be seen"
    headline = f"Leadership changed {changes} times in the last minute: {why}."
    seen = (f"led, oldest first: {', '.join(leaders)}", *causes[1:])
    do = (
        ("mend that first: writes stand still at each change",)
        if causes
        else ("look for `stepped_down` and `disk_stalled` in the nodes' logs: they say why",)
    )
    yield Finding("leadership_changes", Weight.LEADERSHIP_CHANGES, headline, seen, do, ())


def _why_leadership_changes(case: Case) -> Iterator[str]:
    for view in case.views.values():
        stalls = [
            each
            for each in view.loop.stalls
            if each.age_ms < MINUTE_MS and each.duration_ms >= view.settings.election_timeout_ms
        ]
        if stalls:
            longest = max(stall.duration_ms for stall in stalls)
            times = "once" if len(stalls) == 1 else f"{len(stalls)} times"
            yield f"{view.id} stood still {times}, for up to {span(longest)}"
    for link in case.cut_links():
        yield f"{link.of} cannot reach {link.to} ({link.why})"
    for (one, other), outages in case.outages().items():
        longest = max(outage.duration_ms for outage in outages)
        times = "once" if len(outages) == 1 else f"{len(outages)} times"
        yield f"the link between {one} and {other} was cut {times}, for up to {span(longest)}"
    for view in case.views.values():
        recent = [change for change in view.leadership if change.age_ms < MINUTE_MS]
        if any(change.event == "disk_stalled" for change in recent):
            yield f"{view.id}'s disk did not answer in time, and it handed over"
        elif any(change.event == "transfer_began" for change in recent):
            yield f"{view.id} was told to hand over, or was stopped"
        quorum = [change for change in recent if change.event == "stepped_down" and "no quorum" in change.detail]
        if quorum:
            yield f"{view.id} led and heard no majority ({quorum[-1].detail.rpartition(', ')[2]})"
    for asked in case.gone:
        yield f"{asked.id or asked.url} is gone"


def _leader_in(view: View, change: Change) -> str:
    """Who led in that term; the note's text has ``follows ID in term``."""
    if change.event == "became_leader":
        return view.id
    words = change.detail.split()
    return words[words.index("follows") + 1] if "follows" in words[:-1] else "somebody"


def lagging_followers(case: Case) -> Iterator[Finding]:
    """Who is behind without a reason that is told already."""
    leader = case.leader
    if leader is None:
        return
    for view in case.views.values():
        if view is leader or not view.formation.formed:
            continue
        behind = leader.commit_index - view.applied_index
        is_stale = view.staleness_ms is not None and view.staleness_ms > LAG_MS
        if behind <= LAG_ENTRIES and not is_stale:
            continue
        old = f"what it holds is {span(view.staleness_ms)} old" if view.staleness_ms is not None else ""
        entries = f"{plural(behind, 'entry', 'entries')} are not applied there yet" if behind > 0 else ""
        headline = f"{view.id} lags behind: {listed([part for part in (entries, old) if part])}."
        seen = (
            f"{leader.id} has committed to {leader.commit_index:,}, {view.id} has applied to {view.applied_index:,}",
        )
        do = (
            "ask again: does the number fall? Then it catches up by itself",
            f"if not: `vmstat 1 5` and `iostat -x 1 3` at {view.id}",
        )
        yield Finding("lag", Weight.LAG, headline, seen, do, (view.id,))


def not_ready(case: Case) -> Iterator[Finding]:
    """Whatever keeps a node from serving that nothing else explains."""
    for view in case.views.values():
        if view.unready and view.dead_because is None:
            headline = f"{view.id} is not ready: {view.unready[0].detail}."
            yield Finding("not_ready", Weight.NOT_READY, headline, (), ("ask again in a few seconds",), (view.id,))


def little_room(case: Case) -> Iterator[Finding]:
    """A disk that will be full."""
    for view in case.views.values():
        free = None if view.disk is None else view.disk.free_bytes
        if view.disk is not None and free is not None and free < LOW_ROOM_BYTES and not view.disk.room_is_short:
            headline = f"{view.id}'s disk has {_mib(free)} left."
            yield Finding("little_room", Weight.NOTICE, headline, (), ("make room before it is full",), (view.id,))


# ------------------------------------------------------------------------------------------- words


def _but(case: Case, link: CutLink) -> str:
    back = case.views[link.to].link_to(link.of)
    if back is not None and is_fresh(back):
        return f", but {link.to} reaches {link.of}"
    return ""


def _seen(links: Sequence[CutLink]) -> tuple[str, ...]:
    return tuple(f"{link.of} to {link.to}: {link.why}" for link in links)


def _what_it_means(case: Case, one: str, other: str) -> tuple[str, ...]:
    leader = case.leader
    if leader is None or leader.id not in (one, other):
        return ()
    return (f"{leader.id} leads: {other if leader.id == one else one} gets or confirms nothing over that link",)


def _mend(case: Case, link: CutLink) -> tuple[str, ...]:
    url = case.url_of(link.to)
    return (
        f"at {link.of}: `curl -m 2 {url}/healthz`; then routes and firewalls between the two",
        "the cluster goes on with whoever reaches a majority",
    )


def _syncs(case: Case, view: View) -> tuple[str, ...]:
    disk = view.disk
    if disk is None or not disk.syncs_count:
        return ()
    others = [
        other.disk.sync_p50_us
        for other in case.views.values()
        if other is not view and other.disk is not None and other.disk.syncs_count
    ]
    beside = f"; elsewhere p50 {span(median(others) / 1000)}" if others else ""
    times = (("p50", disk.sync_p50_us), ("p99", disk.sync_p99_us), ("longest", disk.sync_longest_us))
    told = ", ".join(f"{name} {span(us / 1000)}" for name, us in times)
    text = f"last minute: {plural(disk.syncs_count, 'sync')}, {told}"
    return (text + beside,)


def _if_leading(view: View, what: str) -> tuple[str, ...]:
    return (f"{view.id} leads: {what}",) if view.role == "leader" else ()


def _hand_over(view: View) -> tuple[str, ...]:
    return ("until then let another lead: `raftkv leader transfer`",) if view.role == "leader" else ()


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / (1024 * 1024):,.0f} MiB"
