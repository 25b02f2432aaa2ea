"""One call of the program, attempt by attempt: what each answer means, and what to do next.

Told: what became of each attempt, and the time. Tells: whom to ask, and whether the call is over, is sent on at
once, or is tried again and after how long. It never learns what is asked.

An answer speaks of its own arrival only (http-api.md, "Errors"). So a call remembers one thing across its attempts:
whether an earlier one may have been executed. From then on nothing but the answer to the very same request ends it
well, and when time is over nobody knows; before, everything ends with "nothing was changed".
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from random import Random
from typing import Any, Final

from raftkv.client.routing import Routing
from raftkv.client.session import Arrival, Next, Numbered
from raftkv.errors import OutcomeUnknown, Rejected, RequestError, Unreachable
from raftkv.http.exchange import Heard, HttpAnswer, NoAnswer, NotSent
from raftkv.problems import Code
from raftkv.values import Address, is_url, parse_url, url_address

REDIRECTS_MAX: Final = 3
PAUSE_US: Final = 10_000
"""Before the second attempt; twice as long before each further one, each time between half of it and all of it."""
PAUSE_US_MAX: Final = 1_000_000
RETRY_AFTER_MS_MAX: Final = 10_000
"""Nobody lets a client wait longer than this before it asks again."""

_CODES: Final = {code.text: code for code in Code}
_LOCATION: Final = re.compile(r"(http://[^/?#@\\\s]+)/[!-~]*")


class Kind(Enum):
    """What it means to send a request again."""

    READ = auto()
    """It changes nothing."""
    REPEATABLE = auto()
    """Twice is as good as once."""
    NUMBERED = auto()
    """Under the same number it is executed once."""
    ONCE = auto()
    """Twice is not once: again only after attempts that did nothing."""


class Whom(Enum):
    """Who can answer."""

    LEADER = auto()
    ANYBODY = auto()


class Lane(Enum):
    """What waits for the same thing: whoever stands behind another of its lane would not be answered before it.

    So they may share a connection, on which answers come in order. Nothing else may: a stale read is not held up by
    an election, nor a read by a disk.
    """

    WRITES = auto()
    """A majority's disks."""
    ROUNDS = auto()
    """A round of the leader."""
    FOLLOWING = auto()
    """A round of the leader, and that the node asked has applied so far."""
    STALE = auto()
    """Nothing; or the node has to apply what this client has seen before, as it has for whoever asks later."""

    __hash__ = object.__hash__  # There is one of each.


@dataclass(frozen=True, slots=True)
class Patience:
    """How long an attempt waits for its answer, or for more of it; microseconds."""

    silence_us: int = 500_000
    """Nothing for so long: is there another leader, or another node to ask?"""
    look_every_us: int = 100_000
    """And then again."""
    answer_us_max: int = 7_000_000
    """Longer than a node takes to give up by itself, so that its own words arrive."""


@dataclass(frozen=True, slots=True)
class Settled:
    """The answer decides."""


@dataclass(frozen=True, slots=True)
class Follow:
    """The same bytes are sent to this node, at once."""

    address: Address


@dataclass(frozen=True, slots=True)
class Again:
    """Another attempt after this pause."""

    pause_us: int
    ends_with_news: bool = False
    """Or as soon as a leader is found."""
    wants_news: bool = False
    """Who leads, and who the members are, is to be found out anew."""


@dataclass(frozen=True, slots=True)
class Over:
    """The call ends with this."""

    error: RequestError


Step = Settled | Follow | Again | Over
_SETTLED: Final = Settled()


@dataclass(slots=True)
class Figures:
    """What a client did so far."""

    calls: int = 0
    attempts: int = 0
    """Requests of those calls that were sent, or were to be sent."""
    redirects: int = 0
    retries: int = 0
    """Attempts after others of the same call, redirects not counted."""
    renumbered: int = 0
    """Numbers given up because they were certainly not executed, their writes sent under others."""
    duplicates: int = 0
    """Answers that a session had stored: the attempt before had been executed, its answer lost."""
    sessions: int = 0
    unknown: int = 0
    """Calls that ended with OutcomeUnknown."""
    failures: dict[str, int] = field(default_factory=dict)
    """Attempts that did not settle their calls, by what was heard."""

    def note_failure(self, what: str) -> None:
        """One more."""
        self.failures[what] = self.failures.get(what, 0) + 1


class Problem:
    """The problem details in an answer, as far as it has any that a node of ours would write."""

    def __init__(self, answer: HttpAnswer) -> None:
        self.fields = _problem_fields(answer)
        code = self.fields.get("code")
        known = _CODES.get(code) if isinstance(code, str) else None
        self.code = known if known is not None and known.status == answer.status else None
        """None: it comes from something else on the way, which knows nothing of what a node did before."""
        self.detail = str(self.fields.get("detail", ""))[:500]

    def number(self, name: str) -> int:
        """A whole number of its own that the problem has; 0: it has none."""
        value = self.fields.get(name)
        return value if type(value) is int and value >= 0 else 0


def _problem_fields(answer: HttpAnswer) -> Mapping[str, Any]:
    if not answer.fields.get(b"content-type", b"").startswith(b"application/problem+json"):
        return {}
    try:
        fields = json.loads(answer.body)
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


_REFUSED: Final = frozenset(
    {
        *(Code.NOT_LEADER, Code.NO_LEADER, Code.TOO_STALE, Code.SUPERSEDED, Code.REPLICAS_DISAGREE),
        *(Code.SHUTTING_DOWN, Code.OVERLOADED, Code.REQUEST_TIMEOUT),
    }
)
"""This arrival did nothing, another may."""
_DOES_NOT_LEAD: Final = frozenset({Code.NO_LEADER, Code.SHUTTING_DOWN, Code.REPLICAS_DISAGREE})
_OPEN: Final = frozenset({Code.INTERNAL, Code.OUTCOME_UNKNOWN, Code.READ_TIMEOUT})
_DECIDED: Final = frozenset({Code.KEY_NOT_FOUND, Code.PRECONDITION_FAILED})


class Call:
    """One call, from its first attempt to its end."""

    __slots__ = (
        *("_expiries", "_failures", "_figures", "_may_have_happened", "_patience", "_redirect_term", "_redirects"),
        *("_rng", "_routing", "deadline_us", "kind", "last_word", "numbered", "whom"),
    )

    def __init__(
        self,
        kind: Kind,
        *,
        whom: Whom | Address,
        routing: Routing,
        rng: Random,
        figures: Figures,
        patience: Patience,
        deadline_us: int,
    ) -> None:
        self.kind, self.whom, self.deadline_us = kind, whom, deadline_us
        self.numbered: Numbered | None = None
        """Under which number; None: none was given to it yet."""
        self._routing, self._rng, self._figures, self._patience = routing, rng, figures, patience
        self._may_have_happened = False
        """Of what has no number."""
        self._failures = 0
        self._redirects = 0
        self._redirect_term = 0
        self._expiries = 0
        self.last_word = ""
        """Of the attempt that failed last."""

    @property
    def may_have_happened(self) -> bool:
        """Some attempt may have been executed, and nobody has said so."""
        if self.kind is Kind.NUMBERED:
            return self.numbered is not None and self.numbered.may_have_happened
        return self._may_have_happened

    def begin(self, now_us: int) -> Address | None:
        """Whom to ask in a new attempt; None: nobody is known to lead."""
        self._redirects = self._redirect_term = 0
        if isinstance(self.whom, Address):
            return self.whom
        return self._routing.anybody(now_us) if self.whom is Whom.ANYBODY else self._routing.leader

    def hear_of_session(self) -> RequestError | None:
        """To be asked before each attempt: another call may have heard that the session is over."""
        if self.numbered is not None and self.numbered.next is Next.ANEW:
            self._give_up_number()
        elif self.numbered is not None and self.numbered.next is Next.UNKNOWN:
            return self._unknown("its session is over").error
        return None

    def look(self, at: Address, *, quiet_since_us: int, now_us: int) -> int | None:
        """For how long more to wait for a node of whose answer nothing came since then; None: it is given up.

        A leader is given up for another one. While the others still follow it, it is alive, and a second request
        would only be one more for it to answer.
        """
        waited_us = now_us - quiet_since_us
        if now_us >= self.deadline_us or waited_us >= self._patience.answer_us_max:
            return None
        wait_us = self._patience.look_every_us
        if waited_us < self._patience.silence_us:
            wait_us = self._patience.silence_us - waited_us
        elif self.whom is Whom.ANYBODY or (self.whom is Whom.LEADER and self._routing.leader not in (at, None)):
            return None
        return max(1, min(wait_us, self.deadline_us - now_us))

    def hear(self, heard: Heard, at: Address, now_us: int) -> Step:
        """What to do after an attempt that ended so."""
        if isinstance(heard, NotSent):
            return self._not_sent(heard, at, now_us)
        if isinstance(heard, NoAnswer):
            return self._no_answer(heard, at, now_us)
        self._routing.find(at)
        if 200 <= heard.status < 300:
            return _SETTLED
        return self._problem(heard, Problem(heard), at, now_us)

    def out_of_time(self, why: str = "the time for this call is over", *, hint: str = "") -> RequestError:
        """What the call ends with where it ends undecided; ``hint``: what is known where it heard nothing itself."""
        last = f"; the last word was: {self.last_word}" if self.last_word else hint and f"; {hint}"
        if self.may_have_happened:
            self._figures.unknown += 1
            return OutcomeUnknown(f"{why}, and an attempt may have been executed{last}")
        return Unreachable(f"{why}, and nothing was changed{last}")

    # ------------------------------------------------------------------------------------ what was heard

    def _not_sent(self, heard: NotSent, at: Address, now_us: int) -> Step:
        wants_news = heard.unreachable and self.whom is Whom.ANYBODY  # Else it is asked for where it is missing.
        if heard.unreachable:
            self._routing.lose(at, now_us)
        return self._try_again(
            Arrival.NOTHING, at, heard.why, failure="not sent", ends_with_news=True, wants_news=wants_news
        )

    def _no_answer(self, heard: NoAnswer, at: Address, now_us: int) -> Step:
        wants_news = self.whom is Whom.ANYBODY
        if wants_news:
            self._routing.lose(at, now_us, is_silent=True)
        return self._try_again(Arrival.PERHAPS, at, heard.why, failure="no answer", wants_news=wants_news)

    def _problem(self, answer: HttpAnswer, problem: Problem, at: Address, now_us: int) -> Step:
        code, why = problem.code, f"{answer.status} {problem.detail or 'without an explanation'}"
        if code is None:
            return self._try_again(Arrival.PERHAPS, at, why, failure=f"status {answer.status}")
        if code in _DECIDED:
            return Settled()
        if code is Code.NOT_LEADER:
            return self._redirected(answer, problem, at, now_us)
        if code in _REFUSED:
            if code in _DOES_NOT_LEAD:
                self._routing.lose_leader(at)
            return self._try_again(
                Arrival.NOTHING,
                at,
                why,
                failure=code.text,
                retry_after_us=1000 * min(problem.number("retry_after_ms"), RETRY_AFTER_MS_MAX),
                ends_with_news=code in _DOES_NOT_LEAD,
            )
        if code in _OPEN:
            return self._try_again(Arrival.PERHAPS, at, why, failure=code.text)
        if self.numbered is not None and code is Code.SESSION_EXPIRED:
            return self._try_again(Arrival.EXPIRED, at, why, failure=code.text)
        if self.numbered is not None and code is Code.TOO_MANY_UNACKNOWLEDGED:
            return self._try_again(Arrival.NO_ROOM, at, why, failure=code.text)
        if self.may_have_happened:
            return self._unknown(why)
        return Over(Rejected(problem.detail, code=code.text))

    def _redirected(self, answer: HttpAnswer, problem: Problem, at: Address, now_us: int) -> Step:
        """To a known member, in no earlier term than the redirect before, and not for ever (faults 51)."""
        location = answer.fields.get(b"location", b"")
        address, term = address_in(location), problem.number("term")
        why = f"a redirect to {location[:200].decode('latin-1')!r} in term {term}"
        if address is None or not self._routing.is_known(address):
            self._routing.lose_leader(at)
            return self._try_again(
                Arrival.NOTHING, at, f"{why}, who is no known member", failure="strange redirect", wants_news=True
            )
        goes_on = self._redirects < REDIRECTS_MAX and term >= self._redirect_term and address != at
        if not goes_on or not self._routing.hear_of_leader(address, term, now_us):
            self._routing.lose_leader(at)
            return self._try_again(Arrival.NOTHING, at, why, failure="not_leader")
        self._redirects += 1
        self._redirect_term = term
        self._figures.redirects += 1
        return Follow(address)

    # --------------------------------------------------------------------------------------- what to do

    def _try_again(
        self,
        arrival: Arrival,
        at: Address,
        why: str,
        *,
        failure: str,
        retry_after_us: int = 0,
        ends_with_news: bool = False,
        wants_news: bool = False,
    ) -> Step:
        self._figures.note_failure(failure)
        self.last_word = f"{at.host}:{at.port}: {why}"
        if self.numbered is not None:
            next_ = self.numbered.after(arrival)
            if next_ is Next.UNKNOWN:
                return self._unknown("its session is over")
            if next_ is Next.ANEW:
                self._give_up_number()
        elif arrival is Arrival.PERHAPS and self.kind is not Kind.READ:
            self._may_have_happened = True
            if self.kind is Kind.ONCE:
                return self._unknown(why)
        if arrival is Arrival.EXPIRED:
            self._expiries += 1
            if self._expiries == 1:
                return Again(0)  # A session that is over as soon as it is opened opens another no faster than this.
        return Again(self._pause_us(retry_after_us), ends_with_news=ends_with_news, wants_news=wants_news)

    def _give_up_number(self) -> None:
        """The number was certainly not executed: the next attempt takes another."""
        assert self.numbered is not None
        assert not self.numbered.may_have_happened, "its write could be executed under both numbers"
        self._figures.renumbered += 1
        self.numbered.settle()
        self.numbered = None

    def _unknown(self, why: str) -> Over:
        self._figures.unknown += 1
        return Over(OutcomeUnknown(f"an attempt may have been executed, and no answer can be had: {why}"))

    def _pause_us(self, retry_after_us: int) -> int:
        longest_us = min(PAUSE_US << min(self._failures, 16), PAUSE_US_MAX)
        self._failures += 1
        share = 0.5 + 0.5 * self._rng.random()
        if retry_after_us:
            return int(max(longest_us, retry_after_us) * (0.5 + share))
        return int(longest_us * share)


def address_in(location: bytes) -> Address | None:
    """The node that a redirect leads to. Path and query are not looked at: what is sent there is sent already."""
    found = _LOCATION.fullmatch(location.decode("latin-1"))
    return url_address(parse_url(found[1])) if found is not None and is_url(found[1]) else None
