"""What should be the same everywhere, and how many voters make sense. Pure rules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from raftkv.cli.diagnosis.case import Case
from raftkv.cli.diagnosis.finding import Finding, Weight, listed, plural, span

CLOCKS_MS: Final = 1_000
"""Clocks that keep time by the network differ by milliseconds."""
_SETTINGS: Final = ("election_timeout_ms", "heartbeat_ms", "lease_reads")


def settings_differ(case: Case) -> Iterator[Finding]:
    """Nodes that wait for different times elect for no reason."""
    for name in _SETTINGS:
        groups: dict[object, list[str]] = {}
        for view in case.views.values():
            groups.setdefault(getattr(view.settings, name), []).append(view.id)
        if len(groups) < 2:
            continue
        spelled = name.replace("_", "-")
        values = [f"{_value(value)} at {listed(ids)}" for value, ids in groups.items()]
        odd = min(groups.values(), key=len)
        do = (f"give all nodes the same {spelled}, then start {listed(odd)} anew, one at a time",)
        headline = f"The nodes' settings differ: {spelled} is {listed(values)}."
        yield Finding("settings_differ", Weight.SETTINGS_DIFFER, headline, _danger(case, name), do, tuple(odd))


def _danger(case: Case, name: str) -> tuple[str, ...]:
    if name == "lease_reads":
        return ("a leader with leases counts on promises that only voters with leases make",)
    slowest = max(case.views.values(), key=lambda view: view.settings.heartbeat_ms)
    hastiest = min(case.views.values(), key=lambda view: view.settings.election_timeout_ms)
    if slowest.settings.heartbeat_ms * 2 > hastiest.settings.election_timeout_ms:
        return (f"led by {slowest.id}, {hastiest.id} stands for election whenever a heartbeat is lost",)
    return ()


def clocks_differ(case: Case) -> Iterator[Finding]:
    """Nothing of raftkv's promises rests on wall clocks; whoever reads two logs side by side does."""
    ahead = [
        (asked.clock_ahead_ms, asked.id)
        for asked in case.by_id.values()
        if asked.clock_ahead_ms is not None and asked.view
    ]
    if len(ahead) < 2:
        return
    in_order = sorted(ms for ms, _ in ahead)
    # Of two in the middle, that which agrees with the clock here.
    middle = min(in_order[(len(ahead) - 1) // 2], in_order[len(ahead) // 2], key=abs)
    for ms, id in ahead:
        difference = ms - middle
        if abs(difference) >= CLOCKS_MS and id is not None:
            way = "ahead of" if difference > 0 else "behind"
            whose = "the others'" if len(ahead) > 2 else f"{next(other for _, other in ahead if other != id)}'s"
            headline = f"{id}'s wall clock is {span(abs(difference))} {way} {whose}."
            do = (
                f"at {id}: `timedatectl`; let it keep time by the network",
                "no promise rests on it, but its log lines bear wrong times",
            )
            yield Finding("clocks_differ", Weight.CLOCKS_DIFFER, headline, (), do, (id,))


def versions_differ(case: Case) -> Iterator[Finding]:
    """Fine while nodes are renewed one by one, not for ever."""
    groups: dict[str, list[str]] = {}
    for view in case.views.values():
        groups.setdefault(view.version, []).append(view.id)
    if len(groups) > 1:
        values = [f"{version or 'unknown'} at {listed(ids)}" for version, ids in sorted(groups.items())]
        yield Finding("versions_differ", Weight.NOTICE, f"The nodes run different versions: {listed(values)}.")


def voters_are_few_or_even(case: Case) -> Iterator[Finding]:
    """What a number of voters survives."""
    count = len(case.voters)
    if count == 1:
        headline = (
            f"There is one voter, {case.voters[0]}: when it is gone, nothing is served; when its disk is, all is lost."
        )
        do = ("for what must not be lost, start a cluster of three, and copy the keys over",)
        yield Finding("one_voter", Weight.NOTICE, headline, (), do)
    elif count and count % 2 == 0:
        survives = (count - 1) // 2
        needed = count // 2 + 1
        headline = (
            f"There are {count} voters: they survive the loss of {survives}, no more than {count - 1} would, "
            f"and each write waits for {needed} of them."
        )
        do = (f"an odd number serves better: {count - 1} or {count + 1}",)
        yield Finding("even_voters", Weight.NOTICE, headline, (), do)


def all_is_well(case: Case) -> str:
    """The one sentence when nothing is wrong, with the two figures that most often go first."""
    leader, count = case.leader, len(case.voters)
    terms = [view.term for view in case.views.values()]
    who = f"{case.led_by} leads {plural(count, 'voter')} in term {max(terms)}" if case.led_by else "no leader is known"
    silent = [id for id in case.members if id not in case.views]
    answering = f"all answer but {listed(silent)}, whose address is not known" if silent else "all answer"
    however = f", though {count} voters are an even number" if count and count % 2 == 0 else ""
    if len({view.version for view in case.views.values()}) > 1:
        however += f"{' and' if however else ', though'} the nodes run different versions"
    disks = [
        (view.disk.sync_p99_us, view.id)
        for view in case.views.values()
        if view.disk is not None and view.disk.syncs_count
    ]
    disk = (
        f"the slowest disk syncs in {span(max(disks)[0] / 1000)} (p99, {max(disks)[1]})"
        if disks
        else "no disk had to sync in the last minute"
    )
    behind = [leader.commit_index - view.applied_index for view in case.views.values()] if leader is not None else [0]
    lag = f"the last follower is {plural(max(0, *behind), 'entry', 'entries')} behind"
    if count == 1:
        return f"All is well{however}: {who}, and answers; {disk}."
    return f"All is well{however}: {who}, {answering}; {disk}, {lag}."


def _value(value: object) -> str:
    return (
        {True: "on", False: "off", None: "unknown"}.get(value, str(value))
        if isinstance(value, bool | None)
        else str(value)
    )
