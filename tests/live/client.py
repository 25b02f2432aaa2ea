"""One client as http-api.md wants it: finds the leader, follows few redirects, repeats only what is safe.

Told: the members and a request. Tells: the answer that settled it and when it can have happened, or that
the outcome is unknown. What no node should ever have answered goes into ``findings``. It never learns what
the values mean.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final
from urllib.parse import urlsplit

from tests.live.wire import Address, Answer, Broken, Connections, NotSent

REDIRECTS_MAX: Final = 3
_READ: Final = frozenset({200, 404})
_WRITTEN: Final = frozenset({200, 201, 412})
_NO_CHANGE: Final = frozenset({307, 503, 507, 429})
"""With a code: this arrival changed nothing and never will. Worth another attempt."""
_UNKNOWN: Final = frozenset({500, 504})
_BACK_OFF_S: Final = (0.01, 0.06)


@dataclass(slots=True)
class Ask:
    """A request to be settled."""

    method: str
    target: str
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    is_repeatable: bool = False
    """A read, or numbered: after an unknown outcome it is asked again."""
    changes_nothing: bool = False
    """A read: earlier attempts cannot matter."""
    any_node: bool = False
    """Whoever is asked answers; not only the leader."""

    def is_decided_by(self, answer: Answer) -> bool:
        """Whether there is nothing more to ask."""
        return answer.status in (_READ if self.changes_nothing else _WRITTEN)

    def __str__(self) -> str:
        number = self.headers.get("Raftkv-Sequence")
        return f"{self.method} {self.target}" + (f" (number {number})" if number else "")


@dataclass(slots=True)
class Settled:
    """How a request ended."""

    answer: Answer | None
    """The deciding one; None: the outcome is unknown."""
    invoked_at: float
    """Before the first attempt that may have had an effect; milliseconds of the clock that all clients share."""
    returned_at: float
    unknown_before: int
    """Attempts before the deciding one of which nobody knows what became."""


@dataclass(slots=True)
class Members:
    """The nodes that a client knows, and what all clients together found wrong."""

    addresses: Sequence[Address]
    findings: list[str] = field(default_factory=list)
    stops_at: float = float("inf")
    """From then on clients begin nothing new; milliseconds."""
    ends_at: float = float("inf")
    """When clients give up what is not settled; milliseconds."""

    def settle_within(self, duration_ms: float) -> None:
        """Clients begin nothing more, and end what they began within this time."""
        self.stops_at = min(self.stops_at, now_ms())
        self.ends_at = now_ms() + duration_ms


def now_ms() -> float:
    """The clock that all clients share."""
    return time.monotonic_ns() / 1e6


class Client:
    """Sends one request after the other; several may run over one ``Connections``."""

    def __init__(self, members: Members, rng: Random, connections: Connections, *, timeout_s: float) -> None:
        """``timeout_s``: of one attempt; shorter than the nodes' own, it makes unknown outcomes."""
        self._members, self._rng, self._connections, self._timeout_s = members, rng, connections, timeout_s
        self._hint: Address | None = None
        """Who answered last."""

    async def settle(self, ask: Ask) -> Settled:
        """Asks until it is decided, unknown for good, or the run is over."""
        invoked_at, unknown_count = None, 0
        while True:
            began_at = now_ms()
            answer = await self._attempt(ask)
            if invoked_at is None or (ask.changes_nothing and answer is not None):
                invoked_at = began_at
            if answer is not None and ask.is_decided_by(answer):
                return Settled(answer, invoked_at, now_ms(), unknown_count)
            if answer is None or answer.status in _UNKNOWN:
                unknown_count += 1
            elif unknown_count == 0:
                invoked_at = None
            is_lost = unknown_count > 0 and not ask.is_repeatable
            if is_lost or now_ms() > self._members.ends_at:
                return Settled(None, began_at if invoked_at is None else invoked_at, now_ms(), unknown_count)
            await asyncio.sleep(self._rng.uniform(*_BACK_OFF_S))

    async def _attempt(self, ask: Ask) -> Answer | None:
        """The last answer on the way from some node to the leader; None: it may have happened, unanswered.

        That nothing was sent comes back as an answer of our own: 503.
        """
        address = self._hint if self._hint is not None and not ask.any_node else None
        address = address or self._rng.choice(self._members.addresses)
        term = 0
        for _ in range(1 + REDIRECTS_MAX):
            try:
                answer = await self._connections.exchange(
                    address,
                    ask.method,
                    ask.target,
                    headers=ask.headers,
                    body=ask.body,
                    timeout_s=self._timeout_s,
                )
            except NotSent:
                self._hint = None
                return _NOT_SENT
            except Broken:
                self._hint = None
                return None
            self._judge(ask, answer)
            if answer.status != 307:
                self._hint = address if ask.is_decided_by(answer) and not ask.any_node else None
                return answer
            told = problem_of(answer)
            if told.get("term", 0) < term:
                break
            term, address = told.get("term", 0), self._next(ask, answer)
        self._hint = None
        return answer

    def _next(self, ask: Ask, answer: Answer) -> Address:
        """Where the redirect leads: to a member, the same path and query."""
        parts = urlsplit(answer.headers.get("location", ""))
        address = Address(parts.hostname or "", parts.port or 0)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        if address not in self._members.addresses or target != ask.target:
            self._members.findings.append(f"{ask} was redirected to {answer.headers.get('location')}")
            return self._rng.choice(self._members.addresses)
        return address

    def _judge(self, ask: Ask, answer: Answer) -> None:
        """What no healthy node answers to what these clients ask."""
        code = problem_of(answer).get("code")
        if ask.is_decided_by(answer) and code in (None, "key_not_found", "precondition_failed"):
            return
        if answer.status not in _NO_CHANGE | {504} or code is None:
            self._members.findings.append(f"{ask} was answered {answer.status} {code}: {answer.body[:200]!r}")


_NOT_SENT: Final = Answer(503, {}, b'{"code":"not_sent"}')


def problem_of(answer: Answer) -> dict[str, Any]:
    """The fields of problem details; empty where there are none."""
    if not answer.headers.get("content-type", "").startswith("application/problem+json"):
        return {}
    found: dict[str, Any] = json.loads(answer.body)
    return found
