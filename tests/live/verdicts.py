"""What raftkv promises, judged after a run from what clients were told and what nodes say.

Told: the story, the last reads, the nodes' words and ends. Tells: one verdict for each promise. It never
learns what was done to the nodes: a promise has no excuses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from raftkv.kv.commands import Delete, Put
from raftkv.sim.checks.history import Deleted, Done, Operation
from raftkv.sim.checks.linearizability import Linearizable, Undecided, check
from tests.live.cluster import Ending
from tests.live.wire import Answer
from tests.live.workload import Story, Tally, revision_of

_SHOWN: Final = 5
KILLED: Final = -9


class Verdict(NamedTuple):
    """On one promise."""

    promise: str
    complaints: Sequence[str]
    """Empty: it was kept."""

    def __str__(self) -> str:
        if not self.complaints:
            return f"kept: {self.promise}"
        more = [f"and {len(self.complaints) - _SHOWN} more"] if len(self.complaints) > _SHOWN else []
        return "\n  ".join([f"BROKEN: {self.promise}", *self.complaints[:_SHOWN], *more])


def linearizable(operations: Sequence[Operation]) -> Verdict:
    """The history has an order that explains it; a search that gave up is a failure."""
    verdict = check(operations)
    promise = "every answer is explained by one order of all operations"
    if isinstance(verdict, Linearizable):
        return Verdict(promise, [])
    if isinstance(verdict, Undecided):
        return Verdict(promise, [f"undecided for {verdict.key!r}: {verdict.why}"])
    return Verdict(promise, [verdict.explanation])


def acknowledged_writes_stand(operations: Sequence[Operation], last: Mapping[bytes, Answer]) -> Verdict:
    """Of each key: the newest acknowledged write, or one with unknown outcome that came after it."""
    complaints = []
    by_key: dict[bytes, list[Operation]] = {}
    for operation in operations:
        by_key.setdefault(operation.request.key, []).append(operation)
    for key, of_key in sorted(by_key.items()):
        if key not in last:
            complaints.append(f"nobody would tell what {key!r} is")
        else:
            complaint = _lost(of_key, last[key])
            if complaint:
                complaints.append(f"{key!r}: {complaint}")
    return Verdict("every acknowledged write is there", complaints)


def _lost(operations: Sequence[Operation], last: Answer) -> str:
    newest = max(operations, key=_made_revision)
    unknown = [operation for operation in operations if operation.result is None]
    puts = {operation.request.value for operation in unknown if isinstance(operation.request, Put)}
    may_be_deleted = any(isinstance(operation.request, Delete) for operation in unknown)
    is_there = last.status == 200
    revision = _made_revision(newest)
    if revision == 0 or isinstance(newest.result, Deleted):
        return f"is there, after {newest}" if is_there and last.body not in puts else ""
    if not is_there:
        return "" if may_be_deleted else f"is absent, after {newest}"
    assert isinstance(newest.request, Put)
    same = (revision, newest.request.value) == (revision_of(last), last.body)
    if same or (revision_of(last) > revision and last.body in puts):
        return ""
    return f"is {last.body[:40]!r} at revision {revision_of(last)}, after {newest}"


def _made_revision(operation: Operation) -> int:
    """That the operation is known to have made; 0: none."""
    match operation.result:
        case Done(int(revision)) | Deleted(1, int(revision)):
            return revision
    return 0


def executed_once(tallies: Sequence[Tally], last: Mapping[bytes, Answer]) -> Verdict:
    """A key's version counts its puts: each acknowledged one once, each unknown one at most once."""
    complaints = []
    for tally in tallies:
        acknowledged = len(tally.versions)
        answer = last.get(tally.key)
        version = int(answer.headers["raftkv-version"]) if answer is not None and answer.status == 200 else 0
        if len(set(tally.versions)) < acknowledged:
            complaints.append(f"{tally.key!r}: two puts were told the same version")
        if not acknowledged <= version <= acknowledged + tally.unknown_count:
            complaints.append(
                f"{tally.key!r}: {acknowledged} puts were acknowledged and {tally.unknown_count} are unknown, "
                f"but {version} were executed"
            )
    return Verdict("each numbered write is executed once, each other at most once per arrival", complaints)


def answers_sound(story: Story, odd_answers: Sequence[str]) -> Verdict:
    """Nothing that a client should never be told; repeats got the first answer."""
    return Verdict(
        "repeats get the first answer, refusals change nothing, redirects lead to members",
        [*story.findings, *odd_answers],
    )


def nodes_agree(hashes: Mapping[str, str | None], contradictions: Sequence[str]) -> Verdict:
    """All nodes, having applied the same entries, have the same state; at the end and at every look before."""
    differing = sorted({str(state_hash) for state_hash in hashes.values()})
    complaints = list(contradictions)
    if len(differing) > 1 or None in hashes.values():
        complaints.append(f"at the end the states differ: {dict(hashes)}")
    return Verdict("all nodes have equal state", complaints)


def processes_sound(endings: Sequence[Ending], loud_lines: Sequence[str]) -> Verdict:
    """No process ended unasked, or with another code than 0; none logged an error."""
    bad = [str(ending) for ending in endings if ending.by_itself or ending.exit_code not in (0, KILLED)]
    return Verdict("no node ends by itself or logs an error", [*bad, *loud_lines])
