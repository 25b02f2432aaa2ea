"""Who comes and who goes: changes of members that come to no end, and nodes that are no members. Pure rules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from raftkv.cli.diagnosis.case import Case, is_fresh
from raftkv.cli.diagnosis.evidence import Joining, MembersChange, View
from raftkv.cli.diagnosis.finding import Finding, Weight, listed, plural, span, verb

SILENT_MS: Final = 5_000
"""A node that is to vote and has not answered its leader for so long does not catch up."""
CATCHES_UP_MS: Final = 60_000
"""After so long somebody should have a look, though much data takes its time."""
HANGS_MS: Final = 10_000
"""Old and new voters decide within milliseconds, if they can."""


def do_not_catch_up(case: Case) -> Iterator[Finding]:
    """Nodes that are to vote, and that the log does not reach, or not fast enough."""
    leader = case.leader
    if leader is None or leader.change is None or leader.change.phase != "catching_up":
        return
    change = leader.change
    for one in change.joining:
        silent = _is_silent(leader, one)
        if change.age_ms < (SILENT_MS if silent else CATCHES_UP_MS):
            continue
        far = f"it holds {one.match_index or 0:,} of {plural(change.last_index, 'entry', 'entries')}"
        what = "has no answer from it" if silent else f"has been sending it the log for {span(change.age_ms)}"
        headline = f"{one.id} does not catch up, so it does not vote yet: {leader.id}, which leads, {what}."
        link = leader.link_to(one.id)
        seen = (far, *([f"{leader.id}'s link to it: {link.trouble}"] if link is not None and link.trouble else []))
        do = (
            f"start {one.id} at {case.url_of(one.id)}, or mend the way there" if silent else f"see {one.id}'s log",
            _what_follows(change),
            f"`raftkv member remove {one.id}` calls the change off at once",
        )
        yield Finding("does_not_catch_up", Weight.CATCHES_UP_BADLY, headline, seen, do, (one.id,))


def changes_hang(case: Case) -> Iterator[Finding]:
    """C_old,new is in the log, and one of its two majorities does not come together."""
    for view in case.views.values():
        change = view.change
        if change is None or change.phase == "catching_up" or change.age_ms < HANGS_MS:
            continue
        silent = [id for id in case.voters if not case.works(id)]
        who = f"{listed(silent)} {verb(silent, 'do')} not answer" if silent else "all voters answer"
        headline = f"A change of members has been hanging for {span(change.age_ms)}: {who}."
        do = (
            f"get {listed(silent)} to run: old and new voters decide together, each by a majority"
            if silent
            else "`raftkv member list`, and again in a few seconds",
            "it then ends by itself, whoever leads; it cannot be called off",
        )
        yield Finding("change_hangs", Weight.CHANGE_HANGS, headline, _in_words(change), do, tuple(silent))
        return


def were_removed(case: Case) -> Iterator[Finding]:
    """Processes that run on and serve nobody."""
    for view in case.outside:
        if view.removed_at is None:
            continue
        headline = f"{view.id} was removed from the cluster, and still runs: it serves nobody."
        do = (
            f"stop it; its data at {view.url} is of no use to the cluster any more",
            f"or have it back: `raftkv member add {view.id} {view.url}`",
        )
        yield Finding("was_removed", Weight.NOTICE, headline, (), do, (view.id,))


def wait_outside(case: Case) -> Iterator[Finding]:
    """Nodes that were started with --join, and are not in."""
    for view in case.outside:
        if view.removed_at is not None or not view.formation.joins:
            continue
        headline = f"{view.id} waits to be let into the cluster: it was started with --join."
        seen = tuple(reason.detail for reason in view.unready)
        do = (f"`raftkv member add {view.id} {view.url}` says what stands in the way",)
        yield Finding("waits_outside", Weight.NOT_READY, headline, seen, do, (view.id,))


def _is_silent(leader: View, one: Joining) -> bool:
    link = leader.link_to(one.id)
    return link is None or not is_fresh(link)


def _what_follows(change: MembersChange) -> str:
    if change.remaining_ms is None:
        return "nothing else can change about the members until then"
    return f"if it does not, it is taken out again by itself in {span(change.remaining_ms)}, and can be added anew"


def _in_words(change: MembersChange) -> tuple[str, ...]:
    coming = tuple(one.id for one in change.joining)
    parts = (("to vote", coming), ("to leave", change.leaving), ("to learn", change.demoted))
    return tuple(f"{what}: {listed(list(ids))}" for what, ids in parts if ids)
