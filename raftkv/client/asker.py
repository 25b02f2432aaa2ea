"""Has requests answered: carries out in a running loop what ``course`` says, step by step.

Told: wishes. Tells: their results, or one of the four errors of a request. It decides nothing: it connects, sends
and waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from math import inf
from random import Random
from typing import Any, TypeVar

from raftkv.client import wishes
from raftkv.client.attempts import Call, Patience
from raftkv.client.course import (
    Course,
    Courses,
    Pause,
    Send,
    Stage,
    UntilBegun,
    UntilLeader,
    UntilOpen,
    UntilRoom,
    fields_of,
)
from raftkv.client.finder import Finder
from raftkv.client.pool import Pools
from raftkv.client.routing import View
from raftkv.client.settings import ClientSettings
from raftkv.client.shared import SharedPools
from raftkv.client.wishes import Wish
from raftkv.errors import Rejected, RequestError
from raftkv.http.exchange import Heard, NoAnswer, NotSent, encode_request
from raftkv.values import Address

T = TypeVar("T")


class Asker:
    """Everything that one client has in one running loop. Ended by ``close``."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        endpoints: Sequence[Address],
        settings: ClientSettings,
        rng: Random,
    ) -> None:
        self.loop, self._settings = loop, settings
        self.courses = Courses(
            self,
            endpoints,
            rng,
            patience=Patience(
                silence_us=int(settings.silence_s * 1_000_000), answer_us_max=int(settings.answer_timeout_s * 1_000_000)
            ),
            timeout_us=int(settings.timeout_s * 1_000_000),
            session_ttl_ms=int(settings.session_ttl_s * 1000),
        )
        self.figures, self.routing = self.courses.figures, self.courses.routing
        new_pools = partial(Pools, loop, connect_timeout_s=settings.connect_timeout_s, is_known=self.routing.is_known)
        self._pools = new_pools(connections_max=settings.connections_per_node_max)
        self._finding_pools = new_pools(connections_max=1)
        """For the finder's questions: the others may be full of calls that wait for a leader that is silent."""
        self._shared = SharedPools(
            loop,
            connections_max=settings.shared_connections_per_node_max,
            connect_timeout_s=settings.connect_timeout_s,
            silence_s=settings.silence_s,
            look=self._look,
            is_known=self.routing.is_known,
            on_doubt=self._distrust_idle,
        )
        self._finder = Finder(loop, self.routing, rng, self._view_of)
        self._opening: asyncio.Task[None] | None = None
        self._sleeping: set[asyncio.Future[None]] = set()
        """Calls between two attempts."""
        self._under_way_count = 0
        self._all_ended = asyncio.Event()
        """Set when, after the closing, the last call has ended."""
        self._session_began = asyncio.Event()
        self._keeper = loop.create_task(self._carried_out(self.courses.kept()))
        self._keeper.add_done_callback(self._ended)
        self._finder.want(0.0)

    @property
    def seen_index(self) -> int:
        """The highest log index that an answer reflected."""
        return self.courses.seen_index

    async def ask(self, wish: Wish[T], *, timeout_s: float) -> T:
        """The wish's result. Raises one of the four errors of a request."""
        courses = self.courses
        if courses.is_closing:
            raise RuntimeError("this client is closed")
        self._under_way_count += 1
        try:
            return await self._carried_out(courses.asked(courses.call(wish, int(timeout_s * 1_000_000)), wish))
        finally:
            self._under_way_count -= 1
            if courses.is_closed and not self._under_way_count:
                self._all_ended.set()

    async def close(self) -> None:
        """The session is ended if that goes quickly; no call is under way, no connection and no task is left."""
        courses = self.courses
        if courses.is_closing:
            return
        courses.is_closing = True
        tasks = [self._keeper, *([self._opening] if self._opening is not None else [])]
        for task in tasks:
            task.cancel()
        try:
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._carried_out(courses.closing(int(self._settings.close_timeout_s * 1_000_000)))
        finally:
            courses.is_closed = True
            courses.let_in()
            for sleeping in self._sleeping:
                _end(sleeping)
            await self._finder.close()
            await self._shared.close()
            await self._pools.close()
            await self._finding_pools.close()
            if self._under_way_count:
                await self._all_ended.wait()

    # ------------------------------------------------------------------------------- what courses ask for

    def now_us(self) -> int:
        """The time, as the decisions are told it."""
        return int(self.loop.time() * 1_000_000)

    def want_news(self, for_us: int) -> None:
        """Every node is asked who leads."""
        self._finder.want(for_us / 1_000_000)

    def leader_is_known(self) -> None:
        """Who waits for a leader goes on."""
        self._finder.tell()

    def session_has_begun(self) -> None:
        """It is kept alive from now on."""
        self._session_began.set()

    async def _carried_out(self, course: Course[T]) -> T:
        came: Any = None
        try:
            while True:
                stage = course.send(came)
                came = await (self._sent(*stage) if type(stage) is Send else self._done(stage))
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            course.close()

    async def _done(self, stage: Stage) -> Any:
        """What came of it."""
        match stage:
            case UntilLeader(until_us):
                return await self._finder.leader_or(until_us / 1_000_000)
            case Pause(until_us):
                return await self._sleep(until_us / 1_000_000)
            case UntilRoom(until_us):
                return await self._wait_for_room(until_us / 1_000_000)
            case UntilOpen(until_us):
                return await self._wait_for_session(until_us / 1_000_000)
            case UntilBegun(until_us):
                return await self._wait_for_begin(until_us / 1_000_000)

    def _sent(self, call: Call, wish: Wish[Any], at: Address) -> Awaitable[Heard]:
        """What comes of it."""
        if wish.lane is None or not self._settings.shared_connections_per_node_max:
            return self._exchanged(call, wish, at)
        pool = self._shared.at(at, wish.lane)
        fields = fields_of(call, wish)
        request = encode_request(wish.method, wish.target, authority=pool.authority, fields=fields, body=wish.body)
        return pool.ask(request, call, call.deadline_us / 1_000_000)

    async def _exchanged(self, call: Call, wish: Wish[Any], at: Address) -> Heard:
        """The same, on a connection of its own."""
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
        fields = fields_of(call, wish)
        request = encode_request(wish.method, wish.target, authority=pool.authority, fields=fields, body=wish.body)
        answer = connection.exchange(request, look_after_s=self._look_after_s(call), look=look)
        try:
            heard = await answer
            if isinstance(heard, NoAnswer):
                self._distrust_idle(at)
            return heard
        except asyncio.CancelledError:
            connection.close("given up")
            raise
        finally:
            pool.give_back(connection)

    def _distrust_idle(self, at: Address) -> None:
        """This node did not answer: what lay idle meanwhile is not used again, as the same may have befallen it."""
        self._pools.distrust_idle(at)
        self._shared.distrust_idle(at)

    def _look_after_s(self, call: Call) -> float:
        return self.courses.look_after_us(call) / 1_000_000

    def _look(self, call: Call, at: Address, quiet_since_s: float) -> float | None:
        more_us = self.courses.look(call, at, quiet_since_us=int(quiet_since_s * 1_000_000))
        return None if more_us is None else more_us / 1_000_000

    async def _sleep(self, until_s: float) -> None:
        """It is that late by the loop's clock; or the client is closed."""
        if self.courses.is_closed:
            return
        sleeping: asyncio.Future[None] = self.loop.create_future()
        timer = self.loop.call_at(until_s, _end, sleeping)
        self._sleeping.add(sleeping)
        try:
            await sleeping
        finally:
            timer.cancel()
            self._sleeping.discard(sleeping)

    async def _wait_for_session(self, until_s: float) -> Rejected | None:
        if self._opening is None:
            self._opening = self.loop.create_task(self._carried_out(self.courses.opened()))
            self._opening.add_done_callback(self._opened)
        opening = self._opening
        await asyncio.wait((opening,), timeout=max(0.0, until_s - self.loop.time()))
        if not opening.done() or opening.cancelled():
            return None
        error = opening.exception()
        return error if isinstance(error, Rejected) else None

    def _opened(self, opening: asyncio.Task[None]) -> None:
        self._opening = None
        error = None if opening.cancelled() else opening.exception()
        if error is not None and not isinstance(error, RequestError):
            self._report(error)

    async def _wait_for_room(self, until_s: float) -> None:
        """The session gives out the next number to this call; or is over, or time is."""
        courses = self.courses
        room: asyncio.Future[None] = self.loop.create_future()
        wake: Callable[[], None] = partial(_end, room)
        timer = self.loop.call_at(until_s, wake)
        courses.line.append(wake)
        courses.let_in()  # A number that was given up since may be free, and nobody else be left to say so.
        try:
            await room
        except asyncio.CancelledError:
            courses.line.remove(wake)
            courses.let_in()
            raise
        finally:
            timer.cancel()
        courses.line.remove(wake)

    async def _wait_for_begin(self, until_s: float) -> bool:
        self._session_began.clear()
        try:
            async with asyncio.timeout_at(until_s):
                await self._session_began.wait()
        except TimeoutError:
            return False
        return True

    # ----------------------------------------------------------------------------------- who leads

    async def _view_of(self, at: Address) -> View | None:
        """What the node says of its cluster, for the finder."""
        return self.courses.hear_view(at, await self._asked_for_view(at))

    async def _asked_for_view(self, at: Address) -> Heard:
        pool = self._finding_pools.at(at)
        taken = await pool.take(until_s=inf, look_after_s=self._settings.silence_s, look=_no_longer)
        if isinstance(taken, NotSent):
            return taken
        wish = wishes.cluster(at)
        request = encode_request(wish.method, wish.target, authority=pool.authority, fields=b"", body=b"")
        try:
            return await taken.exchange(request, look_after_s=self._settings.silence_s, look=_no_longer)
        except asyncio.CancelledError:
            taken.close("given up")
            raise
        finally:
            pool.give_back(taken)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._report(error)

    def _report(self, error: BaseException) -> None:
        """A bug of our own: the loop's owner hears of it at once."""
        self.loop.call_exception_handler({"message": "a task of a raftkv client failed", "exception": error})


def _no_longer(_quiet_since_s: float) -> None:
    return None


def _end(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
