"""The course of one client's calls: what is sent when, what is waited for, what ends them. Pure.

Told: wishes, the time, and what came of each step. Tells: step by step what is to be done next, and in the end a
result, or one of the four errors of a request. It never learns how anybody waits or sends.

A course is a generator. It yields a step, and is sent what came of it; whoever carries the steps out waits for it:
``asker.py`` in a running loop, the simulator in virtual time.

    ready ── its time is over ──► OutcomeUnknown, Unreachable
      │ ▲
    Send └── Pause, UntilLeader ◄── again
      └────► an answer decides ──► result, ConditionFailed, Rejected
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from random import Random
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from raftkv.client import wishes
from raftkv.client.attempts import (
    Again,
    Call,
    Figures,
    Follow,
    Kind,
    Over,
    Patience,
    Settled,
    Step,
    Whom,
)
from raftkv.client.results import ClusterStatus, Member
from raftkv.client.routing import Routing, View
from raftkv.client.session import NUMBERS_MAX, Numbered, Session
from raftkv.client.wishes import DoesNotLead, Unintelligible, Wish
from raftkv.errors import OutcomeUnknown, Rejected, RequestError, Unreachable
from raftkv.http.exchange import Heard, HttpAnswer, NoAnswer
from raftkv.values import Address, is_url, parse_url, url_address

T = TypeVar("T")

NEWS_FOR_US: Final = 500_000
"""A call that misses its leader has it looked for at least so long, and then wants it again."""
REFRESH_EVERY_US: Final = 60_000_000
"""How old the list of members may grow while nothing goes wrong."""
_MUTE_MAX: Final = 8
"""Nodes of which an error tells why they were of no help."""


# ------------------------------------------------------------------------------------------------ the steps


class Send(NamedTuple):
    """The wish goes to this node, under the call's number if it has one. Comes back: a ``Heard``."""

    call: Call
    wish: Wish[Any]
    at: Address


@dataclass(frozen=True, slots=True)
class Pause:
    """It is that late; or the client is closed."""

    until_us: int


@dataclass(frozen=True, slots=True)
class UntilLeader:
    """A leader was heard of since, or it is that late; or the client is closed."""

    until_us: int


@dataclass(frozen=True, slots=True)
class UntilRoom:
    """In the ``line``, its turn has come for a number, or the session is over; or it is that late."""

    until_us: int


@dataclass(frozen=True, slots=True)
class UntilOpen:
    """The opening of a session has ended, which is begun if none is under way, or it is that late.

    Comes back: the Rejected with which it ended, or None.
    """

    until_us: int


@dataclass(frozen=True, slots=True)
class UntilBegun:
    """A session has begun (comes back: True), or it is that late (False)."""

    until_us: int


Stage = Send | Pause | UntilLeader | UntilRoom | UntilOpen | UntilBegun
Course = Generator[Stage, Any, T]


class Shell(Protocol):
    """Whoever carries the steps out."""

    def now_us(self) -> int:
        """The time, by a clock that only goes on."""
        ...

    def want_news(self, for_us: int) -> None:
        """Every node is asked who leads, at least once, and for at least so long."""
        ...

    def leader_is_known(self) -> None:
        """Who waits ``UntilLeader`` goes on."""
        ...

    def session_has_begun(self) -> None:
        """Who waits ``UntilBegun`` goes on."""
        ...


class Courses:
    """All that one client knows, and the courses of its calls."""

    def __init__(
        self,
        shell: Shell,
        endpoints: Sequence[Address],
        rng: Random,
        *,
        patience: Patience,
        timeout_us: int,
        session_ttl_ms: int,
        numbers_max: int | None = None,
    ) -> None:
        """``timeout_us`` is for the opening of a session, ``numbers_max`` for its numbers in flight."""
        self.figures = Figures()
        self.routing = Routing(endpoints, rng)
        self.seen_index = 0
        """The highest log index that an answer reflected."""
        self.session: Session | None = None
        self.line: deque[Callable[[], None]] = deque()
        """How to wake the calls that wait until the session may give out another number, first come first."""
        self.mute: dict[Address, str] = {}
        """Nodes that told nothing of use when they were asked who leads, and why."""
        self.is_closing = False
        """Nothing new is asked."""
        self.is_closed = False
        """What is asked ends."""
        self._shell, self._rng, self._patience = shell, rng, patience
        self._timeout_us, self._session_ttl_ms = timeout_us, session_ttl_ms
        self._numbers_max = NUMBERS_MAX if numbers_max is None else numbers_max
        self._opening_call: Call | None = None

    # ---------------------------------------------------------------------------------------- one call

    def call(self, wish: Wish[Any], timeout_us: int) -> Call:
        """One that ends by then."""
        return Call(
            wish.kind,
            whom=wish.whom,
            routing=self.routing,
            rng=self._rng,
            figures=self.figures,
            patience=self._patience,
            deadline_us=self._shell.now_us() + timeout_us,
        )

    def asked(self, call: Call, wish: Wish[T]) -> Course[T]:
        """The wish's result. Raises one of the four errors of a request."""
        self.figures.calls += 1
        try:
            return (yield from self.settled(call, wish))
        finally:
            # Answered, given up or cancelled: whatever becomes of the number now, nobody waits for it any more.
            if call.numbered is not None:
                call.numbered.settle()
            self.let_in()

    def settled(self, call: Call, wish: Wish[T]) -> Course[T]:
        """The same, for what the client does for itself."""
        to: Address | None = None
        is_retry = False
        while True:
            at = self._ready_now(call, to)
            if at is None:
                at = yield from self._ready(call, to)
            self.figures.attempts += 1
            self.figures.retries += is_retry
            sent_at_us = self._shell.now_us()
            heard: Heard = yield Send(call, wish, at)
            step = self._judged(call, heard, at)
            if isinstance(step, Settled):
                assert isinstance(heard, HttpAnswer), "nothing else settles"
                try:
                    return self._read(call, wish, heard, sent_at_us)
                except Unintelligible as error:
                    if isinstance(error, DoesNotLead):
                        self.routing.lose_leader(at)
                    step = self._judged(call, NoAnswer(str(error)), at)
            if isinstance(step, Over):
                raise step.error
            to, is_retry = (step.address, False) if isinstance(step, Follow) else (None, True)
            if isinstance(step, Again):
                yield from self._paused(call, step, at)

    def look(self, call: Call, at: Address, *, quiet_since_us: int) -> int | None:
        """Asked while an attempt is without an answer: others are asked who leads, and then it is decided.

        For how long more to wait; None: it is given up.
        """
        if call.whom is Whom.LEADER:
            self._shell.want_news(NEWS_FOR_US)
        return call.look(at, quiet_since_us=quiet_since_us, now_us=self._shell.now_us())

    def look_after_us(self, call: Call) -> int:
        """How long an attempt is quiet before the first look."""
        return max(0, min(self._patience.silence_us, call.deadline_us - self._shell.now_us()))

    def _ready_now(self, call: Call, to: Address | None) -> Address | None:
        """Whom to ask now: ``to``, or who is found; a write has its number then. Raises what ends the call.

        None: something must be waited for.
        """
        if self.is_closed:
            raise call.out_of_time("the client was closed")
        now_us = self._shell.now_us()
        if now_us >= call.deadline_us:
            raise call.out_of_time(hint=self._why_nobody())
        if (error := call.hear_of_session()) is not None:
            raise error
        if call.kind is Kind.NUMBERED and call.numbered is None:
            session = self.session
            if session is None or self.line or not session.can_give:
                return None
            call.numbered = session.give()
        return to or call.begin(now_us)

    def _ready(self, call: Call, to: Address | None) -> Course[Address]:
        """The same, as soon as there is a number for it, and somebody to ask."""
        while True:
            if call.kind is Kind.NUMBERED and call.numbered is None:
                call.numbered = yield from self._number(call)
            else:
                self._shell.want_news(NEWS_FOR_US)
                yield UntilLeader(min(self._shell.now_us() + NEWS_FOR_US // 2, call.deadline_us))
            at = self._ready_now(call, to)
            if at is not None:
                return at

    def _judged(self, call: Call, heard: Heard, at: Address) -> Step:
        led = self.routing.leader
        step = call.hear(heard, at, self._shell.now_us())
        if self.routing.leader is not None and self.routing.leader != led:
            self._shell.leader_is_known()
        self.let_in()
        return step

    def _read(self, call: Call, wish: Wish[T], answer: HttpAnswer, sent_at_us: int) -> T:
        self.seen_index = max(self.seen_index, wishes.applied_index_of(answer))
        if call.numbered is not None:
            call.numbered.session.was_alive(sent_at_us)
            self.figures.duplicates += b"raftkv-duplicate" in answer.fields
        return wish.read(answer)

    def _paused(self, call: Call, again: Again, at: Address) -> Course[None]:
        """Until the next attempt is due, or as soon as another node is known to lead, if that is what is missing."""
        if self.is_closed:
            return
        if again.wants_news:
            self._shell.want_news(0)
        until_us = min(self._shell.now_us() + again.pause_us, call.deadline_us)
        if not again.ends_with_news or call.whom is not Whom.LEADER:
            yield Pause(until_us)
        elif self.routing.leader in (None, at):
            self._shell.want_news(NEWS_FOR_US)
            yield UntilLeader(until_us)

    # --------------------------------------------------------------------------------------- the session

    def opened(self) -> Course[None]:
        """There is a session that is not over."""
        wish = wishes.open_session(self._session_ttl_ms)
        sent_at_us = self._shell.now_us()
        self._opening_call = call = self.call(wish, self._timeout_us)
        try:
            opened = yield from self.settled(call, wish)
        finally:
            self._opening_call = None
        self.session = Session(
            opened.id, ttl_us=opened.ttl_ms * 1000, opened_at_us=sent_at_us, numbers_max=self._numbers_max
        )
        self.figures.sessions += 1
        self._shell.session_has_begun()
        self.let_in()

    def kept(self) -> Course[None]:
        """The session stays alive, and the members stay known, while nobody asks for anything. Never ends."""
        while True:
            now_us, session = self._shell.now_us(), self.session
            due_us = now_us + REFRESH_EVERY_US
            if session is not None and not session.is_over:
                due_us = min(due_us, session.keepalive_due_us)
            if due_us > now_us:
                has_begun = yield UntilBegun(due_us)
                if not has_begun:
                    self._shell.want_news(0)
            elif session is not None:
                yield from self._kept_alive(session)

    def let_in(self) -> None:
        """Who waits for a number goes on as far as there are some, or as the session is over."""
        if not self.line:
            return
        session = self.session
        serves = session is not None and not session.is_over and not self.is_closing
        for wake in list(islice(self.line, session.free_count if session is not None and serves else None)):
            wake()

    def _number(self, call: Call) -> Course[Numbered]:
        """A number of a session that is not over, as far as is known here."""
        while True:
            session = self.session
            if session is not None and not session.is_over:
                if session.has_room and not self.line:
                    return session.give()
                yield UntilRoom(call.deadline_us)
                if session.can_give and not self.is_closing:
                    return session.give()
            elif not self.is_closing:
                refused: Rejected | None = yield UntilOpen(call.deadline_us)
                if refused is not None:
                    raise Rejected(f"no session was opened: {refused.detail}", code=refused.code)
            if self.is_closing:
                raise call.out_of_time("the client was closed")
            if self._shell.now_us() >= call.deadline_us:
                serves = session is not None and not session.is_over
                why = "no number was free in time" if serves else "no session could be opened in time"
                raise call.out_of_time(why, hint=self._why_nobody())

    def _kept_alive(self, session: Session) -> Course[None]:
        """One sign of life: if it is not answered by the time that half of another is over, the next is due."""
        wish, sent_at_us = wishes.keep_alive(session.id), self._shell.now_us()
        at_most_us = self._session_ttl_ms * 1000 // 6
        try:
            yield from self.settled(self.call(wish, at_most_us), wish)
            session.was_alive(sent_at_us)
        except Rejected as refused:
            if refused.code == "session_expired":
                session.is_over = True
                self.let_in()
            else:
                yield Pause(self._shell.now_us() + at_most_us)
        except (Unreachable, OutcomeUnknown):
            return

    def closing(self, timeout_us: int) -> Course[None]:
        """The session is ended, if that goes quickly."""
        session = self.session
        if session is None or session.is_over or self.routing.leader is None:
            return
        session.is_over = True
        self.let_in()
        wish = wishes.close_session(session.id)
        try:
            yield from self.settled(self.call(wish, timeout_us), wish)
        except RequestError:
            return  # It expires.

    # ----------------------------------------------------------------------------------- who leads

    def hear_view(self, at: Address, heard: Heard) -> View | None:
        """What a node said of its cluster when it was asked; None: nothing of use."""
        if not isinstance(heard, HttpAnswer):
            self._tells_nothing(at, heard.why)
            return None
        try:
            view = view_of(wishes.cluster(at).read(heard))
        except Unintelligible as error:
            self._tells_nothing(at, str(error))
            return None
        self.routing.reach(at)
        if not self.routing.is_ours(view):
            self._tells_nothing(at, "it is a node of another cluster")
            return None
        self.mute.pop(at, None)
        if view.leader is None:
            self._tells_nothing(at, "it knows no leader")
        return view

    def _tells_nothing(self, at: Address, why: str) -> None:
        self.mute[at] = why
        if len(self.mute) > _MUTE_MAX:
            del self.mute[next(iter(self.mute))]

    def _why_nobody(self) -> str:
        """Why a call found nobody to ask, as far as is known."""
        if self._opening_call is not None and self._opening_call.last_word:
            return f"the last word was: {self._opening_call.last_word}"
        told = [f"{at.host}:{at.port}: {why}" for at, why in self.mute.items() if self.routing.is_known(at)]
        if self.routing.leader is not None or not told:
            return ""
        return "nobody is known to lead: " + "; ".join(told)


PAUSE_US: Final = 50_000
"""Between two questions to the same node, at first; a quarter more each time, each time a little less at random."""
PAUSE_US_MAX: Final = 1_000_000


class Search:
    """When everybody is asked who leads, while somebody wants to know."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._wanted_until_us = 0
        self._asked_at_us = -PAUSE_US
        self._pause_us = PAUSE_US

    def want(self, for_us: int, now_us: int) -> None:
        """At least once, and for at least so long."""
        self._wanted_until_us = max(self._wanted_until_us, now_us + for_us)

    def begin(self, now_us: int) -> int:
        """How long to wait before the first round: there is never none between two."""
        self._pause_us = PAUSE_US
        return max(0, self._asked_at_us + PAUSE_US - now_us)

    def next(self, now_us: int) -> int | None:
        """Everybody was asked just now: how long to wait before the next round; None: nobody wants one."""
        self._asked_at_us = now_us
        if now_us >= self._wanted_until_us:
            return None
        pause_us = int(self._pause_us * (0.75 + 0.25 * self._rng.random()))
        self._pause_us = min(self._pause_us * 5 // 4, PAUSE_US_MAX)
        return pause_us


def numbering(numbered: Numbered) -> bytes:
    """The three fields; what is acknowledged grows from attempt to attempt, and is no part of the request."""
    session = numbered.session
    acknowledged = session.acknowledged
    if not acknowledged:
        return b"Raftkv-Session: %b\r\nRaftkv-Sequence: %d\r\n" % (session.id.encode(), numbered.number)
    fields = b"Raftkv-Session: %b\r\nRaftkv-Sequence: %d\r\nRaftkv-Acknowledged: %d\r\n"
    return fields % (session.id.encode(), numbered.number, acknowledged)


def fields_of(call: Call, wish: Wish[Any]) -> bytes:
    """The header lines with which it is sent now."""
    return wish.fields if call.numbered is None else wish.fields + numbering(call.numbered)


def view_of(cluster: ClusterStatus) -> View:
    """The same in addresses; a member whose URL is none is left out."""
    leader = cluster.leader
    voters, learners = _addresses(cluster.voters), _addresses(cluster.learners)
    return View(
        cluster.cluster_id,
        cluster.term,
        None if leader is None else _address(leader.url),
        voters,
        learners,
        is_whole=len(voters) + len(learners) == len(cluster.voters) + len(cluster.learners),
    )


def _addresses(members: Sequence[Member]) -> tuple[Address, ...]:
    return tuple(address for member in members if (address := _address(member.url)) is not None)


@lru_cache(maxsize=256)
def _address(url: str | None) -> Address | None:
    """Asked for the same few URLs over and over."""
    return url_address(parse_url(url)) if url is not None and is_url(url) else None
