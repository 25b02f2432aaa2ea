"""``raftkv doctor``: asks every node what it knows of its troubles, and says what is wrong and what to do.

The asking stands here, and the printing; what it means is for ``raftkv.cli.diagnosis`` to say.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from raftkv.cli.commands import command
from raftkv.cli.diagnosis.diagnose import diagnose
from raftkv.cli.diagnosis.evidence import Asked, Evidence, NotAView, Reach, View, read_view
from raftkv.cli.diagnosis.finding import EXIT_WELL, Diagnosis, Finding, plural, span
from raftkv.cli.exchange import Answer, BrokenOff, NotSent, Request, exchange
from raftkv.cli.options import Shared, print_json, shared_options
from raftkv.cli.record import DATA_DIR_DEFAULT, Process, read_record

ANSWER_TIMEOUT_S: Final = 2.0
"""A node that is well answers within milliseconds."""
NODES_MAX: Final = 64
"""Are asked at most, whatever anybody names."""
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
    if options.wants_json:
        print_json(for_programs(diagnosis, evidence))
    else:
        show(diagnosis, evidence, took_ms=(time.monotonic() - began_s) * 1000)
    return diagnosis.exit_code


# ------------------------------------------------------------------------------------------- asking


def gather(urls: Sequence[str], *, timeout_s: float, names: Mapping[str, str] | None = None) -> Evidence:
    """What asking the endpoints, and then the members that they know, came to; in the order of asking."""
    known = dict(names or {})
    evidence = _ask_all([(url, known.get(url), True) for url in dict.fromkeys(urls)], timeout_s)
    members = {
        member.url.rstrip("/"): member.id
        for asked in evidence
        if asked.view is not None
        for member in asked.view.members
        if member.url is not None
    }
    answering = {asked.view.id for asked in evidence if asked.view is not None}
    asked_urls = {asked.url for asked in evidence}
    others = [(url, id, False) for url, id in members.items() if url not in asked_urls and id not in answering]
    evidence = [replace(asked, name=asked.name or members.get(asked.url)) for asked in evidence]
    return (*evidence, *_ask_all(others[: NODES_MAX - len(evidence)], timeout_s))


def _ask_all(nodes: Sequence[tuple[str, str | None, bool]], timeout_s: float) -> list[Asked]:
    """All at once: the slowest is waited for, not each in turn."""
    with ThreadPoolExecutor(max_workers=max(1, len(nodes))) as pool:
        return list(pool.map(lambda node: _ask(*node, timeout_s=timeout_s), nodes))


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
    """For people: the cause first, then why one may believe it, then what to do; then the rest."""
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
    for line in finding.seen:
        say(f"    seen  {line}", "dim")
    for line in finding.do:
        say(f"    do    {line}", "")
