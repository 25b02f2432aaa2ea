"""What nodes say to a library, and what the library tells its callers, held against the log: no false word.

Told: answers as nodes give them, and how each call ended. Tells: Violated. May never know: bytes, connections,
routing, and why a call ended as it did.

A call may end in four ways, and each is a claim:

- an answer (a failed condition is one): the very request that was asked stands in the log, once, and came to that;
- Rejected, Unreachable: it does not stand there, and never will;
- OutcomeUnknown: some arrival of it was in doubt; and it stands there once at most.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from raftkv.http.exchange import HttpAnswer
from raftkv.kv.answers import Answer, Repeated
from raftkv.kv.commands import Numbered, Write, decode, encode
from raftkv.kv.queries import Found, Get, Page, Range
from raftkv.outcomes import Answered, Applied, Consistency, ReadOutcome, WriteOutcome
from raftkv.sim.checks.invariants import Violated
from raftkv.sim.checks.oracle import Oracle
from raftkv.sim.world.cluster import VirtualCluster
from raftkv.sim.world.node import VirtualNode

_MICROSECONDS: Final = 1000
REDIRECTS_MAX: Final = 3
_NOTHING_WAS_DONE: Final = (307, 400, 403, 405, 408, 409, 410, 413, 415, 422, 429, 503, 507)


@dataclass(slots=True, eq=False)
class Sent:
    """One write of a library: what is known of its arrivals."""

    request: Write
    asked_at: int
    """The oracle's acknowledged index when its caller asked."""
    numbers: list[tuple[bytes, int]] = field(default_factory=list)
    """Sessions and numbers under which it went out."""
    doubts: int = 0
    """Arrivals whose end was not told."""

    @property
    def commands(self) -> list[bytes]:
        """As they stand in the log if they do."""
        return [encode(self.request, Numbered(*number)) for number in self.numbers]

    def goes_out_as(self, session: bytes, number: int) -> None:
        """Under this number, and no other from now on, unless nothing came of it."""
        if (session, number) not in self.numbers:
            self.numbers.append((session, number))


@dataclass(frozen=True, slots=True)
class Behalf:
    """On whose behalf a request comes: what its bytes do not say, and the judge wants to know."""

    client: str
    asked_at: int = -1
    """The oracle's acknowledged index when it was asked."""
    min_index: int = 0
    """What the client has seen, and does not want to see undone."""
    max_staleness_ms: int | None = None


class Redirects:
    """One call's: at most three in a row, to where the answer said, never to an earlier term (faults 51)."""

    __slots__ = ("_came", "_count", "_term")

    def __init__(self) -> None:
        self._came: tuple[str, int, int] | None = None
        """Where the last answer led, in which term, and when it came."""
        self._count = self._term = 0

    def came(self, answer: HttpAnswer, now_us: int, *, at: str, target: bytes) -> None:
        """This was heard at a node that was asked for the target."""
        self._came = None
        if answer.status != 307:
            return
        told = json.loads(answer.body)
        location = answer.fields[b"location"]
        if told["leader"]["id"] == at:
            raise Violated("nobody redirects to himself", f"{at}: {told}")
        if location != told["leader"]["url"].encode() + target:
            raise Violated("redirects keep their target", f"{location!r} for {target!r}")
        self._came = told["leader"]["id"], told["term"], now_us

    def sent(self, to: str, now_us: int) -> None:
        """A request of the call goes there."""
        came, self._came = self._came, None
        if came is None or came[2] != now_us or came[0] != to:
            self._count = self._term = 0  # Not at once, or elsewhere: by its own choice.
            return
        self._count += 1
        if self._count > REDIRECTS_MAX:
            raise Violated("redirects come to an end", f"{self._count} in a row, the last to {to}")
        if came[1] < self._term:
            raise Violated("redirects lead to no earlier term", f"to {to} in term {came[1]}, after term {self._term}")
        self._term = came[1]


class Words:
    """All that is said in one run."""

    def __init__(self, cluster: VirtualCluster, oracle: Oracle, new_session: Callable[[], bytes]) -> None:
        self.cluster, self.oracle, self._new_session = cluster, oracle, new_session
        self._ended: list[tuple[Sent, str]] = []
        """Writes that have ended and may not stand in the log twice, or at all: why they may not; empty: once."""
        self._arrivals: dict[bytes, int] = {}
        """How many arrivals of a command were not refused, as far as nodes have said."""
        self._acknowledged_us: list[int] = []
        self._acknowledged_index: list[int] = []
        """The highest at each of these times."""

    # ---------------------------------------------------------------------------------- what nodes say

    def now_us(self) -> int:
        """The world's time."""
        return self.cluster.now_us

    def new_session_id(self) -> bytes:
        """One that nobody had before."""
        return self._new_session()

    def write_arrives(self, command: bytes) -> None:
        """A node is asked to have it executed."""
        self._arrivals[command] = self._arrivals.get(command, 0) + 1

    def write_was_told(self, command: bytes, status: int) -> None:
        """The node's answer has this status: some speak of an arrival that did nothing and never will."""
        if status in _NOTHING_WAS_DONE:
            self._arrivals[command] -= 1

    def write_was_answered(self, command: bytes, outcome: WriteOutcome, behalf: Behalf | None) -> None:
        """A node says this of the command."""
        if not isinstance(outcome, Applied):
            return
        asked_at = -1 if behalf is None else behalf.asked_at
        self.oracle.write_answered(command, outcome.index, outcome.answer, asked_at=asked_at)
        highest = self._acknowledged_index[-1] if self._acknowledged_index else 0
        self._acknowledged_us.append(self.cluster.now_us)
        self._acknowledged_index.append(max(highest, outcome.index))

    def read_was_answered(
        self,
        node: VirtualNode,
        query: object,
        consistency: Consistency,
        outcome: ReadOutcome,
        behalf: Behalf | None,
        arrived_us: int,
    ) -> None:
        """A node says this when it is asked that; the request was there at that time of the world."""
        if not isinstance(outcome, Answered) or behalf is None or not isinstance(query, Get | Range):
            return
        is_stale = consistency is Consistency.STALE
        asked_at = None if is_stale else behalf.asked_at
        self.oracle.read_answered(query, outcome.index, outcome.answer, asked_at=asked_at)
        if is_stale:
            self._is_monotonic(outcome.index, behalf)
            self._is_young_enough(node, outcome, behalf, arrived_us)

    def _is_monotonic(self, index: int, behalf: Behalf) -> None:
        if index < behalf.min_index:
            raise Violated(
                "stale reads are monotonic", f"{behalf.client} has seen {behalf.min_index}, shown is {index}"
            )

    def _is_young_enough(self, node: VirtualNode, outcome: Answered, behalf: Behalf, arrived_us: int) -> None:
        """It is within the bound, if one was asked for, and as young as it says: by the node's own clock, as far as
        clocks keep to what the settings say of them.
        """
        told_ms, at_most_ms = outcome.staleness_ms, behalf.max_staleness_ms
        if at_most_ms is not None and (told_ms is None or told_ms > at_most_ms):
            raise Violated("stale reads are within their bound", f"{outcome}, {at_most_ms} ms were asked")
        if told_ms is None or not self._clocks_keep_their_bound():
            return
        as_of_us = node.clock.world_us(node.clock.local_us(arrived_us) - told_ms * _MICROSECONDS)
        before = bisect_left(self._acknowledged_us, as_of_us)
        if before and self._acknowledged_index[before - 1] > outcome.index:
            missed = f"at {as_of_us} us {self._acknowledged_index[before - 1]} was acknowledged"
            raise Violated("stale reads are as young as they say", f"{outcome}; {missed}")

    def _clocks_keep_their_bound(self) -> bool:
        rates = [node.clock.per_mille for node in self.cluster.nodes.values()]
        return (max(rates) - min(rates)) * 1000 <= self.cluster.plan.raft.clock_drift_max_per_mille * min(rates)

    # ----------------------------------------------------------------------------- what callers are told

    def answered(self, sent: Sent, answer: Answer, index: int) -> None:
        """The caller was told this of its write, as of this log index."""
        executed = self._executed(sent)
        if not executed:
            raise Violated("acknowledged is executed", f"{answer} for {sent.request}, which the log does not have")
        at, first = executed[-1]
        if first != answer or type(first) is not type(answer):
            raise Violated("callers are told what came of it", f"{answer} for {sent.request}, the log has {first}")
        if index != at:
            raise Violated("answers tell their index", f"{index} for {sent.request}, the log has it at {at}")
        if at <= sent.asked_at:
            raise Violated("real-time order", f"{answer} at {at}, asked after {sent.asked_at} was acknowledged")
        self._ended.append((sent, ""))

    def heard(self, sent: Sent, answer: HttpAnswer) -> None:
        """The client that still wants the answer to it was told this."""
        if answer.status in (409, 422):
            raise Violated("numbers are kept while they are wanted", f"{answer.body!r} to {sent.request}")

    def unknown(self, sent: Sent) -> None:
        """The caller was told that nobody knows."""
        if not sent.doubts:
            raise Violated("unknown is only what is in doubt", f"{sent.request} under {sent.numbers}")
        self._ended.append((sent, ""))

    def denied(self, sent: Sent, why: str) -> None:
        """The caller was told that nothing was done."""
        self._ended.append((sent, why))
        self._holds(sent, why)

    def read_told(self, query: Get | Range, found: Found | Page, index: int, behalf: Behalf, *, is_stale: bool) -> None:
        """The caller was told that this is what there is, as of this log index."""
        if is_stale:
            self._is_monotonic(index, behalf)
        elif index < behalf.asked_at:
            raise Violated("real-time order", f"read at {index}, asked after {behalf.asked_at} was acknowledged")
        if isinstance(found, Found):
            found = Found(found.record, self.oracle.revision_at(index))
        self.oracle.read_answered(query, index, found, asked_at=None)

    def prove(self) -> None:
        """Nothing more will happen: every word still holds."""
        for sent, why in self._ended:
            self._holds(sent, why)
        for index, command in self.oracle.executed_commands():
            if self._arrivals.get(command) == 0:
                raise Violated("a refused arrival does nothing", f"{decode(command).command}, executed at {index}")

    def _holds(self, sent: Sent, why_not: str) -> None:
        executed = self._executed(sent)
        if why_not and executed:
            raise Violated("no false word", f"{why_not}: {sent.request}, which the log has at {executed[0][0]}")
        if len(executed) > 1:
            raise Violated("at most once", f"{sent.request} was executed at {[index for index, _ in executed]}")

    def _executed(self, sent: Sent) -> list[tuple[int, Answer]]:
        """Where it stands in the log, and what it came to there."""
        found: list[tuple[int, Answer]] = []
        for session, number in sent.numbers:
            end = self.oracle.end_of_number(session, number)
            if end is None:
                continue
            index, command, answer = end
            if encode(decode(command).command) != encode(sent.request):
                raise Violated("the log has what was asked", f"{decode(command).command}, asked was {sent.request}")
            found.append((index, answer.answer if isinstance(answer, Repeated) else answer))
        return found
