"""Finds out who leads and who the members are, while somebody wants to know.

Told: that news is wanted, and until when. Tells: the routing what each node says of its cluster, and whoever waits
that a leader is known. One finder serves all calls of a client: sixty-four calls that miss their leader ask no more
often than one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random

from raftkv.client.course import Search
from raftkv.client.routing import Routing, View
from raftkv.values import Address


class Finder:
    """Used inside one running loop; ended by ``close``."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        routing: Routing,
        rng: Random,
        ask: Callable[[Address], Awaitable[View | None]],
    ) -> None:
        """``ask`` tells what a node says of its cluster, within a bounded time; None: it does not answer."""
        self._loop, self._routing, self._ask = loop, routing, ask
        self._search = Search(rng)
        self._task: asyncio.Task[None] | None = None
        self._asking: dict[Address, asyncio.Task[None]] = {}
        self._waiting: set[asyncio.Future[None]] = set()
        self._is_closed = False

    def want(self, for_s: float) -> None:
        """Everybody is asked, over and over, at least once and for at least so long; never without a pause between."""
        if self._is_closed:
            return
        self._search.want(int(for_s * 1_000_000), self._now_us())
        if self._task is None:
            self._task = self._loop.create_task(self._find())
            self._task.add_done_callback(self._ended)

    async def leader_or(self, until_s: float) -> None:
        """A leader was heard of since, or it is that late by the loop's clock; or nobody is asked any more."""
        if self._is_closed:
            return
        news: asyncio.Future[None] = self._loop.create_future()
        timer = self._loop.call_at(until_s, _wake, news)
        self._waiting.add(news)
        try:
            await news
        finally:
            timer.cancel()
            self._waiting.discard(news)

    def tell(self) -> None:
        """A leader is known: whoever waits for one goes on."""
        for news in self._waiting:
            _wake(news)

    async def close(self) -> None:
        """Nobody is asked any more."""
        self._is_closed = True
        tasks = [*self._asking.values(), *([self._task] if self._task is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.tell()

    async def _find(self) -> None:
        pause_us: int | None = self._search.begin(self._now_us())
        while pause_us is not None:
            if pause_us:
                await asyncio.sleep(pause_us / 1_000_000)
            for address in self._routing.everybody():
                if address not in self._asking:
                    task = self._loop.create_task(self._ask_one(address))
                    self._asking[address] = task
                    task.add_done_callback(self._ended)
            pause_us = self._search.next(self._now_us())

    async def _ask_one(self, address: Address) -> None:
        try:
            view = await self._ask(address)
        finally:
            del self._asking[address]
        if view is None:
            return
        self._routing.hear(view, self._now_us())
        if self._routing.leader is not None:
            self.tell()

    def _now_us(self) -> int:
        return int(self._loop.time() * 1_000_000)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Anything but an end or a cancellation is a bug of our own, and the loop's owner hears of it at once."""
        if task is self._task:
            self._task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            self._loop.call_exception_handler({"message": "asking for the leader failed", "exception": error})


def _wake(news: asyncio.Future[None]) -> None:
    if not news.done():
        news.set_result(None)
