"""``raftkv doctor``: asks every node what it knows of its troubles, and says what is wrong and what to do.

The asking stands here, and the printing; what it means is for ``raftkv.cli.diagnosis`` to say.
"""

from __future__ import annotations

import re
import shlex
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final

from raftkv.cli.commands import command
from raftkv.cli.diagnosis.diagnose import diagnose
from raftkv.cli.diagnosis.evidence import Asked, Evidence, NotAView, Reach, View, read_view
from raftkv.cli.diagnosis.finding import EXIT_WELL, Diagnosis, Finding, plural, span
from raftkv.cli.exchange import Answer, BrokenOff, NotSent, Request, exchange
from raftkv.cli.options import Shared, print_json, shared_options
from raftkv.cli.record import DATA_DIR_DEFAULT, Process, read_record

ANSWER_TIMEOUT_S: Final = 1.5
"""A node that is well answers within milliseconds."""
SLACK_S: Final = 0.5
"""For whoever answers in drops, or whose name nobody resolves: so much longer, and then no more."""
AGAIN_S: Final = 0.5
"""For who has answered once, and is asked again because others were slow."""
NODES_MAX: Final = 64
"""Are asked at most, whatever anybody names."""
_OF_A_CLUSTER: Final = re.compile(r"`raftkv (doctor|status|leader transfer)`")
"""Our commands that the doctor advises, of those that have to find a cluster."""
_STOPPED: Final = "Tt"
"""The system's letters for a process that a signal or a debugger has stopped."""


@command(
    examples=(
        "raftkv doctor",
        "raftkv doctor --endpoints http://127.0.0.1:7401,http://127.0.0.1:7402",
        "raftkv doctor --output json | jq -r .headline",
    )
)
@shared_options
def doctor(options: Shared) -> int:
    """Say what is wrong with the cluster, and what to do about it.

    Asks all nodes at once, those named and those that they know. The first line names the cause. Exit codes: 0 all is
    well, 4 something is wrong, 3 nobody answers.
    """
    began_s = time.monotonic()
    timeout_s = ANSWER_TIMEOUT_S if options.timeout_s is None else options.timeout_s
    evidence = gather(options.urls(), timeout_s=timeout_s, names=options.names())
    if options.endpoints is None:
        evidence = with_processes(evidence, DATA_DIR_DEFAULT)
    diagnosis = diagnose(evidence)
    if options.endpoints is not None:
        diagnosis = with_endpoints(diagnosis, options.endpoints)
    if options.wants_json:
        print_json(for_programs(diagnosis, evidence))
    else:
        show(diagnosis, evidence, took_ms=(time.monotonic() - began_s) * 1000)
    return diagnosis.exit_code


# ------------------------------------------------------------------------------------------- asking


def gather(urls: Sequence[str], *, timeout_s: float, names: Mapping[str, str] | None = None) -> Evidence:
    """What asking the endpoints, and the members that they know, came to: endpoints first, each in order.

    Nobody holds it up for much longer than ``timeout_s``, whoever hangs, and whatever resolves names.
    """
    round_ = _Round(timeout_s, names or {})
    for url in dict.fromkeys(urls):
        round_.ask(url, is_endpoint=True)
    evidence = round_.wait(round_.ask_members)
    slow = any(asked.reach in (Reach.SILENT, Reach.TIMED_OUT) for asked in evidence)
    return _asked_again(evidence, min(timeout_s, AGAIN_S)) if slow else evidence


class _Round:
    """All are asked at once, and whomever an answer names as soon as it is there."""

    def __init__(self, timeout_s: float, names: Mapping[str, str]) -> None:
        self._timeout_s, self._names = timeout_s, dict(names)
        self._deadline_s = time.monotonic() + timeout_s + SLACK_S
        self._heard: SimpleQueue[Asked] = SimpleQueue()
        self._asked: dict[str, Asked] = {}
        """By URL; of whom nothing was heard yet, what will be said if it stays so."""
        self._waits_for: set[str] = set()
        self._answering: set[str] = set()

    def ask(self, url: str, *, is_endpoint: bool) -> None:
        """In a thread of its own, for which nobody waits at the end: looking up a name cannot be cut short."""
        if url in self._asked or len(self._asked) >= NODES_MAX:
            return
        name = self._names.get(url)
        late = f"no answer within {self._timeout_s + SLACK_S:g} s"
        self._asked[url] = Asked(url, Reach.TIMED_OUT, name, None, late, is_endpoint)
        self._waits_for.add(url)
        threading.Thread(
            target=lambda: self._heard.put(_ask(url, name, is_endpoint, timeout_s=self._timeout_s)), daemon=True
        ).start()

    def wait(self, heard: Callable[[View], None] = lambda view: None) -> Evidence:
        """What it came to, once nobody is waited for, or it is too late. ``heard`` is told each answer as it comes."""
        while any(self._matters(self._asked[url]) for url in self._waits_for):
            try:
                asked = self._heard.get(timeout=max(0.0, self._deadline_s - time.monotonic()))
            except Empty:
                break
            self._asked[asked.url] = asked
            self._waits_for.discard(asked.url)
            if asked.view is not None:
                self._answering.add(asked.view.id)
                heard(asked.view)
        named = (replace(asked, name=asked.name or self._names.get(asked.url)) for asked in self._asked.values())
        found = sorted((asked for asked in named if self._matters(asked)), key=_endpoints_first)
        return tuple(asked for place, asked in enumerate(found) if not _is_met_before(asked, found[:place]))

    def ask_members(self, view: View) -> None:
        """Whoever has not answered by another address."""
        for member in view.members:
            if member.url is not None:
                url = member.url.rstrip("/")
                self._names.setdefault(url, member.id)
                if member.id not in self._answering:
                    self.ask(url, is_endpoint=False)

    def _matters(self, asked: Asked) -> bool:
        """Not a second address of somebody who answers at another."""
        return asked.is_endpoint or asked.view is not None or self._names.get(asked.url) not in self._answering


def _endpoints_first(asked: Asked) -> tuple[bool, str]:
    """Those in the operator's order, the others by name: in which order they answered is chance."""
    return (False, "") if asked.is_endpoint else (True, asked.name or asked.url)


def _is_met_before(asked: Asked, before: Sequence[Asked]) -> bool:
    """An endpoint under the URL that its cluster knows it by."""
    return not asked.is_endpoint and any(asked.is_same_process(other) for other in before)


def _asked_again(evidence: Evidence, timeout_s: float) -> Evidence:
    """The same, but what nodes say is of now: waiting for others had made it old."""
    round_ = _Round(timeout_s, {})
    for asked in evidence:
        if asked.view is not None:
            round_.ask(asked.url, is_endpoint=True)
    again = {asked.url: asked for asked in round_.wait() if asked.view is not None}
    return tuple(
        replace(again[asked.url], name=asked.name, is_endpoint=asked.is_endpoint) if asked.url in again else asked
        for asked in evidence
    )


def _ask(url: str, name: str | None, is_endpoint: bool, *, timeout_s: float) -> Asked:
    began_s, began_wall_s = time.monotonic(), time.time()
    try:
        answer = exchange(url, Request("GET", "/v1/diagnostics"), timeout_s=timeout_s)
    except (NotSent, BrokenOff) as error:
        return Asked(url, _how_far(error), name, None, str(error), is_endpoint)
    took_s = time.monotonic() - began_s
    view, why = _view_in(answer)
    if view is None:
        return Asked(url, Reach.STRANGE, name, None, why, is_endpoint)
    ahead_ms = view.wall_clock_ms - (began_wall_s + took_s / 2) * 1000 if view.wall_clock_ms else None
    return Asked(url, Reach.ANSWERS, name, view, "", is_endpoint, took_s * 1000, ahead_ms)


def _how_far(error: NotSent | BrokenOff) -> Reach:
    cause = error.__cause__
    if isinstance(error, BrokenOff):
        return Reach.SILENT if isinstance(cause, TimeoutError) else Reach.BROKE
    if isinstance(cause, ConnectionRefusedError):
        return Reach.REFUSED
    return Reach.TIMED_OUT if isinstance(cause, TimeoutError) else Reach.UNREACHABLE


def _view_in(answer: Answer) -> tuple[View | None, str]:
    """The node's view, or why there is none."""
    if answer.status != 200:
        return None, f"it answers {answer.status}" + (f" {answer.code}: {answer.explanation}" if answer.code else "")
    try:
        return read_view(answer.json()), ""
    except NotAView as error:
        return None, f"its answer is not what a node says of itself: {error}"


def with_endpoints(diagnosis: Diagnosis, endpoints: str) -> Diagnosis:
    """The same, but our own commands in it are to be typed as they stand: they find the cluster."""
    said = shlex.quote(endpoints)

    def typed(line: str) -> str:
        return _OF_A_CLUSTER.sub(lambda found: f"`raftkv {found[1]} --endpoints {said}`", line)

    findings = (replace(finding, do=tuple(map(typed, finding.do))) for finding in diagnosis.findings)
    return replace(diagnosis, findings=tuple(findings))


def with_processes(evidence: Evidence, directory: Path) -> Evidence:
    """The same, with what this machine knows of the processes of its own cluster."""
    record = read_record(directory)
    nodes = {} if record is None else {node.url: node for node in record.nodes}

    def looked_up(asked: Asked) -> Asked:
        node = nodes.get(asked.url)
        if node is None:
            return asked
        state = "gone" if node.process is None else _state_of(node.process)
        pid = None if node.process is None else node.process.pid
        return replace(asked, process_state=state, pid=pid, log=str(directory / f"{node.id}.log"))

    return tuple(looked_up(asked) for asked in evidence)


def _state_of(process: Process) -> str:
    if not process.is_alive:
        return "gone"
    try:
        stat = Path(f"/proc/{process.pid}/stat").read_text()
    except OSError:
        return "running"
    return "stopped" if stat[stat.rindex(")") + 2] in _STOPPED else "running"


# ----------------------------------------------------------------------------------------- printing


def for_programs(diagnosis: Diagnosis, evidence: Evidence) -> dict[str, Any]:
    """One document; names of findings never change."""
    return {
        "well": diagnosis.exit_code == EXIT_WELL,
        "headline": diagnosis.findings[0].headline,
        "findings": [
            {
                "name": finding.name,
                "wrong": finding.is_wrong,
                "headline": finding.headline,
                "seen": list(finding.seen),
                "do": list(finding.do),
                "nodes": list(finding.about),
            }
            for finding in diagnosis.findings
        ],
        "nodes": [
            {
                "id": asked.id,
                "url": asked.url,
                "reach": asked.reach.value,
                "detail": asked.detail,
                "role": None if asked.view is None else asked.view.role,
                "answer_ms": round(asked.answer_ms, 1) if asked.view is not None else None,
            }
            for asked in evidence
        ],
    }


def show(diagnosis: Diagnosis, evidence: Evidence, *, took_ms: float) -> None:
    """For people: the cause first, then what to do, then why one may believe it; then the rest."""
    from rich.text import Text

    from raftkv.cli.items import printable
    from raftkv.cli.pictures import console

    screen = console()

    def say(text: str, style: str = "") -> None:
        screen.print(Text(printable(text.replace("\n", " ")), style), soft_wrap=True)

    first, *others = diagnosis.findings
    say(first.headline, "bold red" if first.is_wrong else "bold green")
    _show_details(first, say)
    for heading, findings in (
        ("Also wrong:", [finding for finding in others if finding.is_wrong]),
        ("Worth knowing:", [finding for finding in others if not finding.is_wrong]),
    ):
        if findings:
            say("")
            say(heading, "bold")
        for finding in findings:
            say(f"- {finding.headline}", "red" if finding.is_wrong else "yellow")
            _show_details(finding, say)
    answered = sum(asked.view is not None for asked in evidence)
    say("")
    say(f"{plural(len(evidence), 'node')} asked, {answered} answered, in {span(took_ms)}.", "dim")


def _show_details(finding: Finding, say: Callable[[str, str], None]) -> None:
    for line in finding.do:
        say(f"    do    {line}", "")
    for line in finding.seen:
        say(f"    seen  {line}", "dim")
