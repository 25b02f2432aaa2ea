"""The connections that the requests of one lane to one node share; few, and made as they are needed.

Told: requests. Tells: of each what became of it (``http/shared.py``). It never learns what they mean.

A request goes on the first connection that has room and is quick. Where nothing has come for a while although
something is owed, an answer holds up those behind it: there it goes only if no other connection can be had. Nobody
connects for himself: if a connection cannot be made, all that wait for one hear it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Final

from raftkv.client.attempts import Lane
from raftkv.client.pool import ANSWER_BYTES_MAX, IDLE_S_MAX, authority_of
from raftkv.http.dial import dial
from raftkv.http.exchange import Heard, NotSent
from raftkv.http.shared import OWED_MAX, SLOW_S, TOO_LATE, Asked, LookAt, SharedProtocol
from raftkv.http.watch import TICK_S, Watch
from raftkv.values import Address

_CLOSED: Final = NotSent("the client was closed", unreachable=False)


class SharedPool:
    """Used inside one running loop; ended by ``close``."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        address: Address,
        *,
        connections_max: int,
        connect_timeout_s: float,
        silence_s: float,
        look: LookAt,
        on_doubt: Callable[[], None],
    ) -> None:
        """``look`` is asked for whoever hears nothing; ``on_doubt`` is called when something owed gets no answer."""
        self._loop, self._address = loop, address
        self._connections_max, self._connect_timeout_s = connections_max, connect_timeout_s
        self._silence_s, self._look, self._on_doubt = silence_s, look, on_doubt
        self._connections: list[SharedProtocol] = []
        self._dials: set[asyncio.Task[None]] = set()
        self._waiting: deque[Asked] = deque()
        """For a connection, first come first."""
        self._watch = Watch(loop, self._look_about)
        self._is_closed = False
        self._emptied = asyncio.Event()
        self.authority: Final = authority_of(address)

    @property
    def is_unused(self) -> bool:
        """Nobody asks anything."""
        return not self._waiting and not self._dials and all(one.is_unused for one in self._connections)

    def ask(self, request: bytes, context: Any, due_s: float) -> asyncio.Future[Heard]:
        """What becomes of it, at the latest when it is ``due_s`` by the loop's clock. Cancelled, it is given up."""
        answered: asyncio.Future[Heard] = self._loop.create_future()
        asked, now_s = Asked(request, context, due_s, answered), self._loop.time()
        connection = None if self._waiting else self._quick(now_s)
        if connection is not None:
            connection.ask(asked, now_s)
        elif self._is_closed:
            asked.end(_CLOSED)
        else:
            asked.since_s = now_s
            self._waiting.append(asked)
            self._watch.by(min(due_s, now_s + self._silence_s))
            self._serve()
        return answered

    def distrust_idle(self) -> None:
        """An answer did not come: what lay idle meanwhile is not used again, as the same may have befallen it."""
        for connection in list(self._connections):
            if connection.is_unused:
                connection.close("an answer did not come on another")

    async def close(self) -> None:
        """No connection is left, and nobody waits."""
        self._is_closed = True
        self._watch.stop()
        dials = list(self._dials)
        for task in dials:
            task.cancel()
        await asyncio.gather(*dials, return_exceptions=True)
        self._end_waiting(_CLOSED)
        for connection in list(self._connections):
            connection.close("the client was closed")
        if self._connections:
            await self._emptied.wait()

    # ------------------------------------------------------------------------------------ who goes where

    def _quick(self, now_s: float) -> SharedProtocol | None:
        """One with room that holds nobody up, as far as is known."""
        for connection in self._connections:
            if not connection.has_room:
                continue
            if not connection.is_unused:
                if connection.quiet_s(now_s) < SLOW_S:
                    return connection
            elif connection.quiet_s(now_s) < IDLE_S_MAX:
                return connection
            else:
                connection.close("it was not used for long")
        return None

    def _serve(self) -> None:
        """Who waits has a place where there is one; as many connections are made as those want that are left."""
        waiting = self._waiting
        while waiting and (connection := self._quick(self._loop.time())) is not None:
            self._place(connection)
        while len(waiting) > len(self._dials) * OWED_MAX and self._may_connect:
            task = self._loop.create_task(self._connect())
            self._dials.add(task)
            task.add_done_callback(self._connected)
        if waiting and not self._dials:
            self._serve_slowly()

    def _serve_slowly(self) -> None:
        for connection in self._connections:
            while self._waiting and connection.has_room:
                self._place(connection)

    def _place(self, connection: SharedProtocol) -> None:
        asked = self._waiting.popleft()
        if not asked.answered.done():
            connection.ask(asked, self._loop.time())

    @property
    def _may_connect(self) -> bool:
        return not self._is_closed and len(self._connections) + len(self._dials) < self._connections_max

    async def _connect(self) -> None:
        """There is one connection more; or whoever waits is told why not, if there is no other."""
        refused: NotSent | None = None
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                connection = await dial(self._loop, self._protocol, *self._address)
        except TimeoutError:
            refused = NotSent("not connected in time")
        except (OSError, UnicodeError) as error:
            refused = NotSent(getattr(error, "strerror", None) or str(error))
        else:
            if connection.is_open:
                self._connections.append(connection)
            else:
                refused = NotSent("the connection was lost as soon as it was made")
        if refused is not None:
            self._serve_slowly()
            self._end_waiting(replace(refused, unreachable=not self._connections))

    def _connected(self, task: asyncio.Task[None]) -> None:
        self._dials.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._loop.call_exception_handler({"message": "connecting to a node failed", "exception": error})
        self._serve()

    def _protocol(self) -> SharedProtocol:
        return SharedProtocol(
            self._loop,
            answer_bytes_max=ANSWER_BYTES_MAX,
            silence_s=self._silence_s,
            look=self._look,
            on_room=self._has_room,
            on_lost=self._lost,
        )

    def _has_room(self) -> None:
        if self._waiting:
            self._serve()

    def _lost(self, connection: SharedProtocol) -> None:
        if connection in self._connections:
            self._connections.remove(connection)
        if connection.left_doubts and not self._is_closed:
            self._on_doubt()
        if self._is_closed and not self._connections:
            self._emptied.set()
        self._has_room()

    # ------------------------------------------------------------------------------------ who waits in vain

    def _end_waiting(self, with_: NotSent) -> None:
        while self._waiting:
            self._waiting.popleft().end(with_)

    def _look_about(self) -> None:
        now_s, waiting = self._loop.time(), self._waiting
        self._waiting = deque()
        for asked in waiting:
            if asked.answered.done():
                continue
            more_s: float | None = asked.since_s + self._silence_s - now_s
            if asked.due_s - now_s < TICK_S:
                asked.end(TOO_LATE)
                continue
            if more_s is not None and more_s < TICK_S:
                more_s = self._look(asked.context, asked.since_s)
            if more_s is None:
                why = "all connections were in use" if self._connections else "not connected yet"
                asked.end(NotSent(why, unreachable=False))
            else:
                self._waiting.append(asked)
                self._watch.by(min(asked.due_s, now_s + more_s))


class SharedPools:
    """The shared connections of one client, by node and lane; of nodes that are known no more, only those in use."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        connections_max: int,
        connect_timeout_s: float,
        silence_s: float,
        look: Callable[[Any, Address, float], float | None],
        is_known: Callable[[Address], bool],
        on_doubt: Callable[[Address], None],
    ) -> None:
        """``connections_max`` is for each lane to each node; ``look`` and ``on_doubt`` are told which node it is."""
        self._loop, self._is_known = loop, is_known
        self._look, self._on_doubt = look, on_doubt
        self._new = partial(
            SharedPool,
            loop,
            connections_max=connections_max,
            connect_timeout_s=connect_timeout_s,
            silence_s=silence_s,
        )
        self._pools: dict[tuple[Address, Lane], SharedPool] = {}

    def __len__(self) -> int:
        return len(self._pools)

    def at(self, address: Address, lane: Lane) -> SharedPool:
        """That node's, for this lane."""
        pool = self._pools.get((address, lane))
        if pool is None:
            self._forget()
            pool = self._pools[address, lane] = self._new(
                address,
                look=lambda context, quiet_since_s: self._look(context, address, quiet_since_s),
                on_doubt=partial(self._on_doubt, address),
            )
        return pool

    def distrust_idle(self, address: Address) -> None:
        """An answer of this node did not come: what lay idle meanwhile is not used again."""
        for lane in Lane:
            if (pool := self._pools.get((address, lane))) is not None:
                pool.distrust_idle()

    async def close(self) -> None:
        """No connection is left."""
        for pool in list(self._pools.values()):
            await pool.close()

    def _forget(self) -> None:
        gone = [at for at, pool in self._pools.items() if pool.is_unused and not self._is_known(at[0])]
        for at in gone:
            self._pools.pop(at).distrust_idle()
