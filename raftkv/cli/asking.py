"""Getting an answer out of a cluster: which node to ask, whom to follow, when to ask again.

What may be repeated is the contract's ("An answer speaks of this arrival only"): a read always; a write as
long as no byte of it was sent, or a node said by a code that this arrival changed nothing. Anything else
leaves a write's outcome unknown, and then this says so instead of guessing. A write with a session and a
number may be repeated as often as one likes, and its outcome is known when the stored answer comes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from raftkv.cli.exchange import Answer, BrokenOff, NotSent, Request, exchange
from raftkv.cli.failures import Interrupted, OutcomeUnknown, Refused, Unreachable
from raftkv.cli.patience import Patience
from raftkv.values import is_url

REDIRECTS_MAX: Final = 3
ANSWER_TIMEOUT_S: Final = 10.0
"""Longer than a node takes to give up by itself, so that its own words arrive."""
PAUSE_S: Final = 0.1
UNKNOWN: Final = "whether the write happened is not known, and it may happen yet. Read the key before you write again; "
_ASKED_ONCE: Final = "with --exactly-once the command repeats until it knows."
_ASKED_OFTEN: Final = "a longer --timeout repeats for longer."
CHANGED_NOTHING: Final = frozenset(
    {"not_leader", "no_leader", "superseded", "shutting_down", "too_stale", "overloaded"}
)
"""Codes after which the same request may be sent again at once, a write too."""


class Cluster:
    """The nodes that may be asked, and for how long to go on asking."""

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        patience_s: float,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
        is_quiet: bool = False,
        answer_timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> None:
        """``is_quiet``: nobody is told what is waited for. ``answer_timeout_s``: for one node, with one arrival."""
        self.endpoints = tuple(endpoints)
        self.patience_s = patience_s
        self._clock = clock
        self._pause = pause
        self._is_quiet = is_quiet
        self._answer_timeout_s = answer_timeout_s

    def ask(self, request: Request, *, repeatable: bool = False) -> Answer:
        """A decided answer from whoever may give it.

        ``repeatable``: a second arrival does no harm, so that an unknown outcome is a reason to ask again.
        Raises Unreachable when nobody who could decide was reached in time, OutcomeUnknown when a write
        was sent and its fate was not heard.
        """
        with Patience(f"asking {self.endpoints[0]} …", is_quiet=self._is_quiet) as patience:
            return self._ask(request, _Asked(may_repeat=repeatable or request.only_reads, patience=patience))

    def _ask(self, request: Request, asked: _Asked) -> Answer:
        deadline = self._clock() + self.patience_s
        while True:
            connected = False
            for endpoint in self.endpoints:
                timeout_s = max(1.0, min(self._answer_timeout_s, deadline - self._clock()))
                try:
                    answer = self._follow(endpoint, request, timeout_s, asked)
                except NotSent as error:
                    asked.why = asked.why or f"{endpoint}: {error}"
                    continue
                except BrokenOff as error:
                    connected, asked.why = True, f"{endpoint}: {error}"
                    asked.patience.say(f"{asked.why} …")
                    continue
                connected = True
                if asked.decides(request, answer):
                    return answer
                asked.why = f"{answer.url}: {answer.explanation}"
                asked.patience.say(f"{asked.why} …")
            remaining_s = deadline - self._clock()
            if asked.is_open and remaining_s <= 0:
                raise OutcomeUnknown(f"{asked.why}: {UNKNOWN}{_ASKED_OFTEN}")
            if remaining_s <= 0 or not (connected or asked.is_open):
                raise _nobody_answered(self.endpoints, connected, asked.why)
            self._pause(min(PAUSE_S, remaining_s))

    def _follow(self, endpoint: str, request: Request, timeout_s: float, asked: _Asked) -> Answer:
        """The answer at the end of the redirects that start at this endpoint, or the one that leads no further."""
        answer = self._one(endpoint, request, timeout_s, asked)
        members: frozenset[str] | None = None
        term = -1
        for _ in range(REDIRECTS_MAX):
            if answer.status != 307:
                return answer
            members = members or members_known_to(answer.url, timeout_s)
            said_term = answer.json().get("term")
            if not isinstance(said_term, int) or said_term < term:
                return answer
            term = said_term
            url, target = split_location(answer.headers.get("location", ""))
            if url not in members:
                raise Refused(
                    f"{answer.url} points to {url or 'nowhere'}, which is no member of its cluster: nothing was "
                    "sent there. Ask a member by its own URL with --endpoints."
                )
            try:
                answer = self._one(url, replace(request, target=target), timeout_s, asked)
            except NotSent:
                # The leader that was known is gone; whoever pointed to it will soon know another.
                return answer
        return answer

    def _one(self, url: str, request: Request, timeout_s: float, asked: _Asked) -> Answer:
        if not asked.why:
            asked.patience.say(f"asking {url} …")
        try:
            answer = exchange(url, request, timeout_s=timeout_s)
        except BrokenOff as error:
            if not request.only_reads:
                asked.is_open = True
            if asked.may_repeat:
                raise
            raise outcome_unknown(f"the connection to {url} failed ({error})") from error
        except KeyboardInterrupt:
            if request.only_reads:
                raise
            raise Interrupted(f"interrupted: {UNKNOWN}{_ASKED_ONCE}") from None
        if not request.only_reads and _leaves_it_open(answer):
            asked.is_open = True
            if not asked.may_repeat:
                raise outcome_unknown(f"{url} said: {answer.explanation}")
        return answer


@dataclass(slots=True)
class _Asked:
    """One request over all its arrivals."""

    may_repeat: bool
    patience: Patience
    is_open: bool = False
    """An earlier arrival may have happened, or may happen yet: only the stored answer settles it."""
    why: str = ""
    """Why the last attempt was none."""

    def decides(self, request: Request, answer: Answer) -> bool:
        """Whether this answer ends the asking."""
        if self.is_open:
            # A later no proves nothing about an earlier arrival.
            return _is_a_decision(answer)
        return not _worth_repeating(request, answer)


def outcome_unknown(why: str) -> OutcomeUnknown:
    """The one message for a write that was sent once and not heard of."""
    return OutcomeUnknown(f"{why}: {UNKNOWN}{_ASKED_ONCE}")


def ask_this_node(url: str, target: str, *, timeout_s: float) -> Answer | None:
    """What this very node says of itself; None: it did not answer."""
    try:
        return exchange(url, Request("GET", target), timeout_s=timeout_s)
    except (NotSent, BrokenOff):
        return None


def members_in(cluster: Answer | None) -> tuple[str, ...]:
    """The URLs of voters and learners in an answer to ``GET /v1/cluster``."""
    found = cluster.json() if cluster is not None and cluster.status == 200 else {}
    listed = [*(found.get("voters") or ()), *(found.get("learners") or ())]
    urls = [member.get("url") for member in listed if isinstance(member, dict)]
    return tuple(str(url).rstrip("/") for url in urls if is_url(url))


def members_known_to(url: str, timeout_s: float) -> frozenset[str]:
    """The URLs of all members, as this node knows them; none where it does not answer."""
    return frozenset(members_in(ask_this_node(url, "/v1/cluster", timeout_s=timeout_s)))


def split_location(location: str) -> tuple[str, str]:
    """A node's URL and the target at it, whose bytes stay as they came."""
    scheme, separator, rest = location.partition("://")
    authority, slash, target = rest.partition("/")
    if not (separator and slash and location.isascii() and location.isprintable()) or " " in location:
        return "", ""
    return f"{scheme}://{authority}", f"/{target}"


def _worth_repeating(request: Request, answer: Answer) -> bool:
    if answer.code in CHANGED_NOTHING:
        return True
    return request.only_reads and answer.status >= 500


def _is_a_decision(answer: Answer) -> bool:
    """Whether it is what the cluster decided once and for all, now or when the request first arrived."""
    return 200 <= answer.status < 300 or answer.code in ("key_not_found", "precondition_failed")


def _leaves_it_open(answer: Answer) -> bool:
    """Whether a write's fate is open after this answer."""
    if answer.status in (500, 504):
        return True
    return answer.status >= 500 and answer.code is None


def _nobody_answered(endpoints: Sequence[str], connected: bool, why: str) -> Unreachable:
    if connected:
        return Unreachable(
            f"no node could answer in time; the last word was {why}. `raftkv doctor` says what is wrong."
        )
    return Unreachable(
        f"no node answers at {', '.join(endpoints)} ({why}). Start the cluster with `raftkv cluster up`, "
        "or say where it is with --endpoints."
    )
