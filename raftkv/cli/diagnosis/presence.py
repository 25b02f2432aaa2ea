"""Who is there, who is not, and whether that is enough to lead. Pure rules: a case comes in, findings go out."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator
from typing import Final

from raftkv.cli.diagnosis.case import GONE, Case, CutLink, how_gone, how_to_restart, how_to_start, is_refused
from raftkv.cli.diagnosis.evidence import Asked, Farewell, Reach, View
from raftkv.cli.diagnosis.finding import Finding, Weight, ago, listed, plural, verb
from raftkv.cli.diagnosis.identity import is_emptied

DISK_FAILED: Final = "its disk failed"
"""How a node takes leave whose disk did."""
DATA_DAMAGED: Final = " is damaged at byte "
"""Where a node that takes leave says so, its data are."""
EXIT_CODES: Final = (
    "exit code 74: the disk failed, 76: data is damaged, 73: the directory is in use, 77: it is another's"
)


def nobody_answers(case: Case) -> Iterator[Finding]:
    """Nothing more can be known than how each of them does not."""
    if case.views or case.strangers:
        return
    nodes = list(case.asked)
    reaches = {asked.reach for asked in nodes}
    if reaches == {Reach.REFUSED}:
        urls = listed([asked.url for asked in nodes])
        headline = f"Nothing listens at {urls} (connection refused): no node runs there."
    else:
        headline = f"Nobody answers: {how_gone(nodes)}."
    seen = tuple(f"{_named(asked)}: {GONE[asked.reach][0]} ({asked.detail})" for asked in nodes)
    yield Finding("nobody_answers", Weight.NOBODY_ANSWERS, headline, seen, _remedies(nodes), _ids(nodes))


_LAST_RESORT: Final = (
    "only if too many are gone for good: stop all, let `raftkv recover --data-dir DIR` show how far each survivor "
    "came, and with --force-new-cluster make a new cluster of the one that came farthest"
)


def too_few_work(case: Case) -> Iterator[Finding]:
    """Fewer than a majority of voters can vote and store, so that nothing is decided."""
    working = [id for id in case.voters if case.works(id)]
    if not case.voters or len(working) >= case.majority or not _is_formed(case):
        return
    lost = [id for id in case.voters if id not in working]
    gone = [case.by_id[id] for id in lost if id in case.by_id and id not in case.views]
    hanging = [id for id in lost if case.hangs(id)]
    unasked = [id for id in lost if id not in case.by_id]
    causes = [how_gone(gone)] if gone else []
    if hanging:
        causes.append(f"the {'disk' if len(hanging) == 1 else 'disks'} of {listed(hanging)} {verb(hanging, 'hang')}")
    causes += [_why_idle(case, id) for id in lost if id in case.views and id not in hanging]
    if unasked:
        causes.append(f"nobody knows where {listed(unasked)} {verb(unasked, 'answer')}")
    what = "Nothing is committed" if case.led_by is not None else "No leader"
    needed = f"{case.majority} of {plural(len(case.voters), 'voter')} are needed"
    headline = f"{what}: {listed(causes)}, and {needed}."
    who = f"only {listed(working)}" if working else "nobody"
    seen: tuple[str, ...] = (f"of {listed(case.voters)} {who} can vote and store",)
    seen += tuple(line for asked in gone for line in _last_words(case, asked))
    do = _remedies(gone)
    if hanging:
        do += (f"at {listed(hanging)}: `dmesg | tail`, `iostat -x 1 3`; a restart does not mend a disk",)
    if unasked:
        do += (f"ask {listed(unasked)} too: add where clients reach {_them(unasked)} to --endpoints",)
    if working and (gone or any(is_emptied(case, id) for id in lost)):
        do += (_LAST_RESORT,)
    yield Finding("no_majority", Weight.NO_LEADER, headline, seen, do, (*_ids(gone), *hanging))


def _why_idle(case: Case, id: str) -> str:
    """Of a node that answers, and can neither vote nor store."""
    view = case.views[id]
    if view.dead_because is not None:
        return f"{id} has halted ({view.dead_because})"
    return f"{id}'s data is gone" if is_emptied(case, id) else f"{id} does not take part"


def links_leave_no_leader(case: Case) -> Iterator[Finding]:
    """Enough voters work, and none reaches a majority of them."""
    working = [id for id in case.voters if case.works(id)]
    if case.led_by is not None or not _is_formed(case) or len(working) < case.majority:
        return
    cut = [link for link in case.cut_links() if link.of in working and link.to in working]
    if not cut:
        return
    lost = {(link.of, link.to) for link in cut}
    for id in working:
        if sum((id, other) not in lost for other in working) >= case.majority:
            return
    every = len(lost) == len(working) * (len(working) - 1)
    which = "every link between them is cut" if every else f"{_pairs(cut)}"
    headline = f"No leader: {listed(working)} run, but {which}, and nobody reaches {case.majority} voters."
    seen = tuple(f"{link.of} cannot reach {link.to} ({link.why})" for link in cut)
    yield Finding("no_leader_links_cut", Weight.NO_LEADER, headline, seen, _mend_link(case, cut[0]), tuple(working))


def no_leader(case: Case) -> Iterator[Finding]:
    """Enough voters work and could hear each other: it may only be a moment."""
    working = [id for id in case.voters if case.works(id)]
    if case.led_by is not None or not _is_formed(case) or len(working) < case.majority:
        return
    asking = {each.id for view in case.views.values() for each in view.candidates if each.age_ms < 3_000}
    asking |= {view.id for view in case.views.values() if view.role == "candidate"}
    term = max(view.term for view in case.views.values())
    who = f"{listed(sorted(asking))} {verb(sorted(asking), 'ask')} for votes" if asking else "nobody stands"
    headline = f"No leader at the moment: {who} in term {term}, and {listed(working)} could elect one."
    do = ("ask again in a few seconds: `raftkv doctor`", "if it stays so, look for `refused_vote` in the nodes' logs")
    yield Finding("no_leader", Weight.LEADERSHIP_CHANGES, headline, (), do, tuple(working))


def never_formed(case: Case) -> Iterator[Finding]:
    """Nodes run that have never been a cluster, and say for whom they wait."""
    waiting = [view for view in case.views.values() if not view.formation.formed]
    if not waiting or _is_formed(case):
        return
    about = tuple(view.id for view in waiting)
    problems = [view.formation.problem for view in waiting if view.formation.problem is not None]
    if problems:
        yield _cannot_form(waiting, Counter(problems).most_common(1)[0][0])
        return
    absent = sorted({id for view in waiting for id in view.formation.waits_for})
    who = f"{listed(about)} {verb(about, 'wait')}"
    if not absent:
        reasons = tuple(f"{view.id}: {reason.detail}" for view in waiting for reason in view.unready)
        do: tuple[str, ...] = ("ask again in a few seconds: `raftkv doctor`",)
        yield Finding("not_formed", Weight.NOT_FORMED, f"The cluster is not formed yet: {who}.", reasons, do, about)
        return
    gone = [case.by_id[id] for id in absent if id in case.by_id and id not in case.views]
    weight = Weight.NOT_FORMED
    if gone:
        headline = (
            f"The cluster has never formed: {who} for {listed([_named(asked) for asked in gone])}; {how_gone(gone)}."
        )
        do = (*_remedies(gone), "a cluster forms once, when all of its members have heard of each other")
    else:
        headline = f"The cluster has never formed: {who} for {listed(absent)}, and nobody hears what is awaited."
        do = ("all nodes need the same --initial-cluster, and to reach each other at the URLs in it",)
        if _is_explained(case, absent):
            weight = Weight.NOT_FORMED_FOR_THAT
    seen = tuple(
        f"{view.id} waits for {listed(view.formation.waits_for)}" for view in waiting if view.formation.waits_for
    )
    yield Finding("never_formed", weight, headline, seen, do, (*about, *absent))


def _cannot_form(waiting: list[View], problem: str) -> Finding:
    """What most of them say is to blame: the odd one says it of another."""
    by = [view.id for view in waiting if view.formation.problem == problem]
    do = ("start all nodes with the very same --initial-cluster ID=URL,…: whoever has never formed takes the new list",)
    headline, seen = f"The cluster cannot form: {problem}.", (f"{listed(by)} {verb(by, 'say')} so",)
    return Finding("cannot_form", Weight.NOT_FORMED, headline, seen, do, tuple(view.id for view in waiting))


def _is_explained(case: Case, absent: list[str]) -> bool:
    """Another finding says why those are not heard: a cut link, a secret, a stranger in their place."""
    refused = any(is_refused(link) for view in case.views.values() for link in view.links)
    cut = any(link.of in absent or link.to in absent for link in case.cut_links())
    replaced = any(
        member.url == asked.url for id, member in case.members.items() if id in absent for asked in case.strangers
    )
    return refused or cut or replaced


def nodes_are_gone(case: Case) -> Iterator[Finding]:
    """Each member that does not answer: how that is seen, and what it said before."""
    if not case.views:
        return
    elsewhere = [asked for asked in case.gone if case.is_elsewhere(_named(asked))]
    if elsewhere:
        yield _out_of_reach(case, elsewhere)
    for asked in case.gone:
        if asked not in elsewhere:
            yield _gone(case, asked)
    may_be_a_member = any(member.url is None for member in case.members.values())
    for asked in case.asked:
        if asked.view is None and asked.is_endpoint and asked not in case.gone:
            yield _gone(case, asked) if may_be_a_member else _no_member(case, asked)


def _out_of_reach(case: Case, nodes: list[Asked]) -> Finding:
    """The way from here is cut, not the cluster."""
    names = list(_ids(nodes))
    by = sorted({id for name in names for id in case.reached_by(name)})
    ways = listed(list(dict.fromkeys(asked.detail for asked in nodes)))
    others = f"{listed(by)} {verb(by, 'reach')} {_them(names)}"
    headline = f"{listed(names)} cannot be reached from here ({ways}), though {others}."
    led_by = case.led_by
    word = f", by the word of {listed(by)}" if led_by in names else ""
    seen = () if led_by is None else (f"{led_by} leads{word}: the cluster serves",)
    do = (
        f"here: `curl -m 2 {nodes[0].url}/healthz`; then routes and firewalls on the way, or ask from another machine",
    )
    return Finding("out_of_reach", Weight.OUT_OF_REACH, headline, seen, do, tuple(names))


def _no_member(case: Case, asked: Asked) -> Finding:
    """The operator named it, and nobody knows it."""
    known = [member.url for member in case.members.values() if member.url is not None]
    if asked.reach is Reach.REFUSED:
        what = f"Nothing listens at the endpoint {asked.url} (connection refused)"
    else:
        what = f"The endpoint {asked.url} {GONE[asked.reach][0]} ({asked.detail})"
    headline = f"{what}, and no member is known to be there."
    do = (f"correct it, or leave it out of --endpoints: the members are at {listed(known)}",)
    return Finding("wrong_endpoint", Weight.WRONG_ENDPOINT, headline, (), do, (asked.url,))


def outsiders(case: Case) -> Iterator[Finding]:
    """Nodes that have never formed a cluster, and that the one which is looked at does not know."""
    for view in case.views.values():
        if view.formation.formed or view.id in case.members or not _is_formed(case):
            continue
        url = case.url_of(view.id)
        headline = f"{view.id} at {url} is no member: it has never formed a cluster, and this one does not list it."
        do = (
            f"if it is to form another one: leave {url} out of --endpoints",
            f"if not: correct its --id or --initial-cluster, for the members are {listed(list(case.members))}",
        )
        yield Finding("outsider", Weight.NOT_READY, headline, (), do, (view.id,))


def nodes_have_halted(case: Case) -> Iterator[Finding]:
    """Nodes that answer only to say that they work no more."""
    for view in case.views.values():
        if view.dead_because is not None:
            yield Finding(
                "node_failed",
                Weight.NODE_FAILED,
                f"{view.id} has halted: {view.dead_because}.",
                (),
                (
                    f"at {view.id}: `dmesg | tail`, and the end of its log",
                    how_to_restart(case, [view.id]),
                ),
                (view.id,),
            )


def _gone(case: Case, asked: Asked) -> Finding:
    name, url = _named(asked), asked.url
    farewell = case.farewell_of(name)
    weight, code = Weight.NODE_GONE, f"node_{asked.reach.value}"
    match asked.reach:
        case Reach.REFUSED if farewell is not None:
            headline = f"{name} has ended: {farewell.reason}."
        case Reach.REFUSED if asked.id is None:
            headline = f"Nothing listens at {url} (connection refused); which node should is not known."
        case Reach.REFUSED:
            headline = f"{name} does not run: nothing listens at {url} (connection refused), and it did not say why."
        case Reach.SILENT | Reach.TIMED_OUT if asked.process_state == "stopped":
            headline = f"{name} is paused: its process {asked.pid} was stopped by a signal."
        case Reach.TIMED_OUT:
            why = "its machine is down, or packets are dropped"
            headline = f"{name} cannot be reached: no connection to {url} in time; {why}."
        case Reach.UNREACHABLE:
            headline = f"{name} cannot be reached: {asked.detail} ({url})."
        case Reach.SILENT:
            headline = f"{name} hangs or is paused: {url} takes connections, and nothing answers."
        case _:
            headline = f"{name} does not answer as a node does: {asked.detail} ({url})."
    seen = (*_last_words(case, asked), *case.seen_by_peers(name), *_what_is_left(case, name))
    return Finding(code, weight, headline, seen, _remedy(asked, farewell), (name,))


def _remedies(nodes: list[Asked]) -> tuple[str, ...]:
    """Of several that do not answer, what is done to each kind."""
    ended = [asked for asked in nodes if asked.reach is Reach.REFUSED]
    others = [_remedy(asked, None)[0] for asked in nodes if asked.reach is not Reach.REFUSED]
    return (*((how_to_start(ended),) if ended else ()), *dict.fromkeys(others))


def _remedy(asked: Asked, farewell: Farewell | None) -> tuple[str, ...]:
    name = _named(asked)
    match asked.reach:
        case Reach.SILENT | Reach.TIMED_OUT if asked.process_state == "stopped":
            return (f"let it go on: `kill -CONT {asked.pid}`",)
        case Reach.SILENT:
            pid = f"$(pgrep -f -- '--id[= ]{name}')" if asked.pid is None else str(asked.pid)
            at = f"at {name}: " if asked.pid is None else ""
            return (
                f"{at}`ps -o pid,stat,wchan:20 -p {pid}`: T is stopped (`kill -CONT {pid}`), D waits for a disk",
                "if it is stuck, kill it and start it again: what it acknowledged is safe",
            )
        case Reach.REFUSED:
            if farewell is None:
                why = f"why did it end? {_log_of(asked)} ({EXIT_CODES})"
                return how_to_start([asked]), why, f"if data is damaged: {_anew(name)}"
            if farewell.reason.startswith(DISK_FAILED):
                look = f"at {name}: `dmesg | tail`; what was acknowledged is on the others' disks too"
                return look, f"then {how_to_start([asked])}"
            if DATA_DAMAGED in farewell.reason:
                return ("what it acknowledged the others have, as long as most of the voters are well", _anew(name))
            return (how_to_start([asked]),)
        case Reach.STRANGE:
            return ("is this URL right? Ask a member by its own URL with --endpoints",)
        case _:
            return (
                f"is the machine up, and the way open? `curl -m 2 {asked.url}/healthz`, here and at {name}'s peers",
            )


def _anew(name: str) -> str:
    return f"move its directory away, start it empty with --join, and then `raftkv member replace {name}`"


def _what_is_left(case: Case, lost: str) -> tuple[str, ...]:
    if lost not in case.voters:
        return ()
    left = sum(case.works(id) for id in case.voters)
    if left < case.majority:
        return ()
    if case.led_by is None:
        return (f"{left} of {plural(len(case.voters), 'voter')} run, but nobody leads: nothing is served",)
    more = left - case.majority
    then = "one more lost, and nothing is served" if more == 0 else f"{more} more may be lost"
    return (f"{left} of {plural(len(case.voters), 'voter')} work: {then}",)


def _last_words(case: Case, asked: Asked) -> tuple[str, ...]:
    farewell = case.farewell_of(_named(asked))
    return () if farewell is None else (f"{_named(asked)} said so itself {ago(farewell.age_ms)}: {farewell.reason}",)


def _log_of(asked: Asked) -> str:
    if asked.log is not None:
        return f"`tail -n 20 {shlex.quote(asked.log)}`"
    return f"`journalctl -n 20 -u raftkv@{asked.id}` or wherever its log goes" if asked.id else "look at its log"


def _them(words: list[str]) -> str:
    return "it" if len(words) == 1 else "them"


def _mend_link(case: Case, link: CutLink) -> tuple[str, ...]:
    return (f"at {link.of}: `curl -m 2 {case.url_of(link.to)}/healthz`; then routes and firewalls on the way",)


def _pairs(cut: list[CutLink]) -> str:
    """``n1–n2 and n1→n3 are cut``."""
    ways = {(link.of, link.to) for link in cut}
    both = sorted((of, to) for of, to in ways if of < to and (to, of) in ways)
    one = sorted((of, to) for of, to in ways if (to, of) not in ways)
    names = [f"{of}–{to}" for of, to in both] + [f"{of}→{to}" for of, to in one]
    return f"the {'link' if len(names) == 1 else 'links'} {listed(names)} {'is' if len(names) == 1 else 'are'} cut"


def _is_formed(case: Case) -> bool:
    return any(view.formation.formed for view in case.views.values())


def _named(asked: Asked) -> str:
    return asked.id or asked.url


def _ids(nodes: list[Asked]) -> tuple[str, ...]:
    return tuple(_named(asked) for asked in nodes)
