"""Has requests answered: the shell around the decisions of ``attempts``, ``routing`` and ``session``.

Told: wishes. Tells: their results, or one of the four errors of a request. It decides nothing: it connects, sends,
waits, keeps the session alive, and asks the pure modules what to do next.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from functools import partial
from itertools import islice
from math import inf
from random import Random
from typing import Any, Final, TypeVar

from raftkv.client import wishes
from raftkv.client.attempts import (
    Again,
    Call,
    Figures,
    Follow,
    Heard,
    Kind,
    NotSent,
    Over,
    Patience,
    Settled,
    Step,
    Whom,
)
from raftkv.client.finder import Finder
from raftkv.client.pool import Pools
from raftkv.client.results import ClusterStatus, Member
from raftkv.client.routing import Routing, View
from raftkv.client.session import Numbered, Session
from raftkv.client.settings import ClientSettings
from raftkv.client.wishes import DoesNotLead, Unintelligible, Wish
from raftkv.errors import OutcomeUnknown, Rejected, RequestError, Unreachable
from raftkv.http.exchange import HttpAnswer, NoAnswer, encode_request
from raftkv.values import Address, is_url, parse_url, url_address

T = TypeVar("T")

_NEWS_FOR_S: Final = 0.5
"""A call that misses its leader has it looked for at least so long, and then wants it again."""
_REFRESH_EVERY_S: Final = 60.0
"""How old the list of members may grow while nothing goes wrong."""
_MUTE_MAX: Final = 8
"""Nodes of which an error tells why they were of no help."""
_KEEPALIVE_TIMEOUT_SHARE: Final = 0.5
"""Of the time between two signs of life: one that is not answered by then is given up, and the next is due."""


class Asker:
    """Everything that one client has in one running loop. Ended by ``close``."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        endpoints: Sequence[Address],
        settings: ClientSettings,
        rng: Random,
    ) -> None:
        self.figures = Figures()
        self.routing = Routing(endpoints, rng)
        self.seen_index = 0
        """The highest log index that an answer reflected."""
        self.session: Session | None = None
        self.loop, self._settings, self._rng = loop, settings, rng
        self._patience = Patience(
            silence_us=int(settings.silence_s * 1_000_000), answer_us_max=int(settings.answer_timeout_s * 1_000_000)
        )
        new_pools = partial(Pools, loop, connect_timeout_s=settings.connect_timeout_s, is_known=self.routing.is_known)
        self._pools = new_pools(connections_max=settings.connections_per_node_max)
        self._finding_pools = new_pools(connections_max=1)
        """For the finder's questions: the others may be full of calls that wait for a leader that is silent."""
        self._finder = Finder(loop, self.routing, rng, self._view_of)
        self._opening: asyncio.Task[None] | None = None
        self._opening_call: Call | None = None
        self._mute: dict[Address, str] = {}
        """Nodes that told nothing of use when they were asked who leads, and why."""
        self._room: deque[asyncio.Future[None]] = deque()
        """Calls that wait until the session may give out another number, first come first."""
        self._sleeping: set[asyncio.Future[None]] = set()
        """Calls between two attempts."""
        self._under_way_count = 0
        self._all_ended = asyncio.Event()
        """Set when, after the closing, the last call has ended."""
        self._session_began = asyncio.Event()
        self._keeper = loop.create_task(self._keep())
        self._keeper.add_done_callback(self._ended)
        self._is_closing = False
        """Nothing new is asked."""
        self._is_closed = False
        """What is asked ends."""
        self._finder.want(0.0)

    def now_us(self) -> int:
        """The time, as the decisions are told it."""
        return int(self.loop.time() * 1_000_000)

    async def ask(self, wish: Wish[T], *, timeout_s: float) -> T:
        """The wish's result. Raises one of the four errors of a request."""
        if self._is_closing:
            raise RuntimeError("this client is closed")
        self.figures.calls += 1
        self._under_way_count += 1
        call = self._call(wish, timeout_s)
        try:
            return await self._settle(call, wish)
        finally:
            # Answered, given up or cancelled: whatever becomes of the number now, nobody waits for it any more.
            if call.numbered is not None:
                call.numbered.settle()
            self._let_in()
            self._under_way_count -= 1
            if self._is_closed and not self._under_way_count:
                self._all_ended.set()

    async def close(self) -> None:
        """The session is ended if that goes quickly; no call is under way, no connection and no task is left."""
        if self._is_closing:
            return
        self._is_closing = True
        tasks = [self._keeper, *([self._opening] if self._opening is not None else [])]
        for task in tasks:
            task.cancel()
        try:
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._end_session()
        finally:
            self._is_closed = True
            self._let_in()
            for sleeping in self._sleeping:
                _end(sleeping)
            await self._finder.close()
            await self._pools.close()
            await self._finding_pools.close()
            if self._under_way_count:
                await self._all_ended.wait()

    # ---------------------------------------------------------------------------------------- one call

    def _call(self, wish: Wish[Any], timeout_s: float) -> Call:
        return Call(
            wish.kind,
            whom=wish.whom,
            routing=self.routing,
            rng=self._rng,
            figures=self.figures,
            patience=self._patience,
            deadline_us=self.now_us() + int(timeout_s * 1_000_000),
        )

    async def _settle(self, call: Call, wish: Wish[T]) -> T:
        to: Address | None = None
        is_retry = False
        while True:
            at = await self._ready(call, to)
            self.figures.attempts += 1
            self.figures.retries += is_retry
            sent_at_us = self.now_us()
            heard = await self._attempt(call, wish, at)
            step = self._judge(call, heard, at)
            if isinstance(step, Settled):
                assert isinstance(heard, HttpAnswer), "nothing else settles"
                try:
                    return self._settled(call, wish, heard, sent_at_us)
                except Unintelligible as error:
                    if isinstance(error, DoesNotLead):
                        self.routing.lose_leader(at)
                    step = self._judge(call, NoAnswer(str(error)), at)
            if isinstance(step, Over):
                raise step.error
            to, is_retry = (step.address, False) if isinstance(step, Follow) else (None, True)
            if isinstance(step, Again):
                await self._pause(call, step, at)

    async def _ready(self, call: Call, to: Address | None) -> Address:
        """Whom to ask now: ``to``, or who is found; a write has its number then. Raises what ends the call."""
        while True:
            if self._is_closed:
                raise call.out_of_time("the client was closed")
            if self.now_us() >= call.deadline_us:
                raise call.out_of_time(hint=self._why_nobody())
            if (error := call.hear_of_session()) is not None:
                raise error
            if call.kind is Kind.NUMBERED and call.numbered is None:
                call.numbered = await self._number(call)
            at = to or call.begin(self.now_us())
            if at is not None:
                return at
            self._finder.want(_NEWS_FOR_S)
            await self._finder.leader_or(min(self.loop.time() + _NEWS_FOR_S / 2, call.deadline_us / 1_000_000))

    async def _attempt(self, call: Call, wish: Wish[Any], at: Address) -> Heard:
        pool, look = self._pools.at(at), partial(self._look, call, at)
        connection = pool.take_idle()
        if connection is None:
            until_s = call.deadline_us / 1_000_000
            taken = await pool.take(until_s=until_s, look_after_s=self._look_after_s(call), look=look)
            if isinstance(taken, NotSent):
                return taken
            connection = taken
        if self.now_us() >= call.deadline_us:
            pool.give_back(connection)
            return NotSent("the time was over before it could be sent", unreachable=False)
        fields = wish.fields if call.numbered is None else wish.fields + numbering(call.numbered)
        request = encode_request(wish.method, wish.target, authority=pool.authority, fields=fields, body=wish.body)
        answer = connection.exchange(request, look_after_s=self._look_after_s(call), look=look)
        try:
            heard = await answer
            if isinstance(heard, NoAnswer):
                pool.distrust_idle()
            return heard
        except asyncio.CancelledError:
            connection.close("given up")
            raise
        finally:
            pool.give_back(connection)

    def _judge(self, call: Call, heard: Heard, at: Address) -> Step:
        led = self.routing.leader
        step = call.hear(heard, at, self.now_us())
        if self.routing.leader is not None and self.routing.leader != led:
            self._finder.tell()
        self._let_in()
        return step

    def _settled(self, call: Call, wish: Wish[T], answer: HttpAnswer, sent_at_us: int) -> T:
        self.seen_index = max(self.seen_index, wishes.applied_index_of(answer))
        if call.numbered is not None:
            call.numbered.session.was_alive(sent_at_us)
            self.figures.duplicates += b"raftkv-duplicate" in answer.fields
        return wish.read(answer)

    def _look_after_s(self, call: Call) -> float:
        return max(0.0, min(self._settings.silence_s, call.deadline_us / 1_000_000 - self.loop.time()))

    def _look(self, call: Call, at: Address, quiet_since_s: float) -> float | None:
        """Asked while an attempt is without an answer: others are asked who leads, and then it is decided."""
        if call.whom is Whom.LEADER:
            self._finder.want(_NEWS_FOR_S)
        more_us = call.look(at, quiet_since_us=int(quiet_since_s * 1_000_000), now_us=self.now_us())
        return None if more_us is None else more_us / 1_000_000

    async def _pause(self, call: Call, again: Again, at: Address) -> None:
        """Until the next attempt is due, or as soon as another node is known to lead, if that is what is missing."""
        if self._is_closed:
            return
        if again.wants_news:
            self._finder.want(0.0)
        until_s = min(self.loop.time() + again.pause_us / 1_000_000, call.deadline_us / 1_000_000)
        if again.ends_with_news and call.whom is Whom.LEADER:
            if self.routing.leader in (None, at):
                self._finder.want(_NEWS_FOR_S)
                await self._finder.leader_or(until_s)
        else:
            await self._sleep(until_s)

    async def _sleep(self, until_s: float) -> None:
        """It is that late by the loop's clock; or the client is closed."""
        sleeping: asyncio.Future[None] = self.loop.create_future()
        timer = self.loop.call_at(until_s, _end, sleeping)
        self._sleeping.add(sleeping)
        try:
            await sleeping
        finally:
            timer.cancel()
            self._sleeping.discard(sleeping)

    # --------------------------------------------------------------------------------------- the session

    async def _number(self, call: Call) -> Numbered:
        """A number of a session that is not over, as far as is known here."""
        while True:
            session = self.session
            if session is not None and not session.is_over:
                if session.has_room and not self._room:
                    return session.give()
                await self._wait_for_room(call)
                if session.can_give and not self._is_closing:
                    return session.give()
            elif not self._is_closing:
                await self._wait_for_session(call)
            if self._is_closing:
                raise call.out_of_time("the client was closed")
            if self.now_us() >= call.deadline_us:
                serves = session is not None and not session.is_over
                why = "no number was free in time" if serves else "no session could be opened in time"
                raise call.out_of_time(why, hint=self._why_nobody())

    async def _wait_for_session(self, call: Call) -> None:
        if self._opening is None:
            self._opening = self.loop.create_task(self._open())
            self._opening.add_done_callback(self._opened)
        opening = self._opening
        await asyncio.wait((opening,), timeout=max(0.0, call.deadline_us / 1_000_000 - self.loop.time()))
        if opening.done() and not opening.cancelled() and isinstance(opening.exception(), Rejected):
            refused = opening.exception()
            assert isinstance(refused, Rejected)
            raise Rejected(f"no session was opened: {refused.detail}", code=refused.code)

    async def _open(self) -> None:
        """There is a session that is not over."""
        wish = wishes.open_session(int(self._settings.session_ttl_s * 1000))
        sent_at_us = self.now_us()
        self._opening_call = call = self._call(wish, self._settings.timeout_s)
        opened = await self._settle(call, wish)
        self.session = Session(opened.id, ttl_us=opened.ttl_ms * 1000, opened_at_us=sent_at_us)
        self.figures.sessions += 1
        self._session_began.set()
        self._let_in()

    def _opened(self, opening: asyncio.Task[None]) -> None:
        self._opening = self._opening_call = None
        error = None if opening.cancelled() else opening.exception()
        if error is not None and not isinstance(error, RequestError):
            self._report(error)

    async def ask_beside(self, wish: Wish[T], *, timeout_s: float) -> T:
        """As ``ask``, for what the client does for itself."""
        return await self._settle(self._call(wish, timeout_s), wish)

    async def _wait_for_room(self, call: Call) -> None:
        """The session gives out the next number to this call; or is over, or time is."""
        room: asyncio.Future[None] = self.loop.create_future()
        timer = self.loop.call_at(call.deadline_us / 1_000_000, _end, room)
        self._room.append(room)
        self._let_in()  # A number that was given up since may be free, and nobody else be left to say so.
        try:
            await room
        except asyncio.CancelledError:
            self._room.remove(room)
            self._let_in()
            raise
        finally:
            timer.cancel()
        self._room.remove(room)

    def _let_in(self) -> None:
        """Who waits for a number goes on as far as there are some, or as the session is over."""
        if not self._room:
            return
        session = self.session
        serves = session is not None and not session.is_over and not self._is_closed
        for room in islice(self._room, session.free_count if session is not None and serves else None):
            _end(room)

    async def _keep(self) -> None:
        """The session stays alive, and the members stay known, while nobody asks for anything."""
        while True:
            now_s = self.loop.time()
            due_s = now_s + _REFRESH_EVERY_S
            session = self.session
            if session is not None and not session.is_over:
                due_s = min(due_s, session.keepalive_due_us / 1_000_000)
            if due_s > now_s:
                self._session_began.clear()
                try:
                    async with asyncio.timeout(due_s - now_s):
                        await self._session_began.wait()
                except TimeoutError:
                    self._finder.want(0.0)
            elif session is not None:
                await self._keep_alive(session)

    async def _keep_alive(self, session: Session) -> None:
        sent_at_us = self.now_us()
        every_s = self._settings.session_ttl_s / 3
        try:
            await self.ask_beside(wishes.keep_alive(session.id), timeout_s=every_s * _KEEPALIVE_TIMEOUT_SHARE)
            session.was_alive(sent_at_us)
        except Rejected as refused:
            if refused.code == "session_expired":
                session.is_over = True
                self._let_in()
            else:
                await asyncio.sleep(every_s * _KEEPALIVE_TIMEOUT_SHARE)
        except (Unreachable, OutcomeUnknown):
            return

    async def _end_session(self) -> None:
        session = self.session
        if session is None or session.is_over or self.routing.leader is None:
            return
        session.is_over = True
        self._let_in()
        wish = wishes.close_session(session.id)
        try:
            await self._settle(self._call(wish, self._settings.close_timeout_s), wish)
        except RequestError:
            return  # It expires.

    # ----------------------------------------------------------------------------------- who leads

    async def _view_of(self, at: Address) -> View | None:
        """What the node says of its cluster, for the finder."""
        pool = self._finding_pools.at(at)
        taken = await pool.take(until_s=inf, look_after_s=self._settings.silence_s, look=_no_longer)
        if isinstance(taken, NotSent):
            self._tells_nothing(at, taken.why)
            return None
        wish = wishes.cluster(at)
        request = encode_request(wish.method, wish.target, authority=pool.authority, fields=b"", body=b"")
        try:
            answer = await taken.exchange(request, look_after_s=self._settings.silence_s, look=_no_longer)
        except asyncio.CancelledError:
            taken.close("given up")
            raise
        finally:
            pool.give_back(taken)
        if not isinstance(answer, HttpAnswer):
            self._tells_nothing(at, answer.why)
            return None
        try:
            view = view_of(wish.read(answer))
        except Unintelligible as error:
            self._tells_nothing(at, str(error))
            return None
        self.routing.find(at)
        if not self.routing.is_ours(view):
            self._tells_nothing(at, "it is a node of another cluster")
            return None
        self._mute.pop(at, None)
        if view.leader is None:
            self._tells_nothing(at, "it knows no leader")
        return view

    def _tells_nothing(self, at: Address, why: str) -> None:
        self._mute[at] = why
        if len(self._mute) > _MUTE_MAX:
            del self._mute[next(iter(self._mute))]

    def _why_nobody(self) -> str:
        """Why a call found nobody to ask, as far as is known."""
        if self._opening_call is not None and self._opening_call.last_word:
            return f"the last word was: {self._opening_call.last_word}"
        told = [f"{at.host}:{at.port}: {why}" for at, why in self._mute.items() if self.routing.is_known(at)]
        if self.routing.leader is not None or not told:
            return ""
        return "nobody is known to lead: " + "; ".join(told)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._report(error)

    def _report(self, error: BaseException) -> None:
        """A bug of our own: the loop's owner hears of it at once."""
        self.loop.call_exception_handler({"message": "a task of a raftkv client failed", "exception": error})


def numbering(numbered: Numbered) -> bytes:
    """The three fields; what is acknowledged grows from attempt to attempt, and is no part of the request."""
    session = numbered.session
    acknowledged = session.acknowledged
    fields = b"Raftkv-Session: %b\r\nRaftkv-Sequence: %d\r\n" % (session.id.encode(), numbered.number)
    return fields + b"Raftkv-Acknowledged: %d\r\n" % acknowledged if acknowledged else fields


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


def _address(url: str | None) -> Address | None:
    return url_address(parse_url(url)) if url is not None and is_url(url) else None


def _no_longer(_quiet_since_s: float) -> None:
    return None


def _end(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
