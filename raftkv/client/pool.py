"""The connections to one node: kept, bounded, one exchange at a time on each.

Told: that a connection is wanted, and whom to ask how long it is worth waiting for. Tells: one that is free, or why
there is none; nothing has been sent on it then. It never learns what is sent.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final

from raftkv.http.deadline import Deadline
from raftkv.http.dial import dial
from raftkv.http.exchange import NotSent
from raftkv.http.requests import Look, RequestProtocol
from raftkv.values import Address

ANSWER_BYTES_MAX: Final = 32 * 1024 * 1024
"""No answer of ours is larger: a page of a range is 4 MiB, a third more in base64."""
IDLE_S_MAX: Final = 30.0
"""What was not used for so long is not used again: something on the way may have forgotten it, and a request on it
would be waited for in vain."""

Turn = asyncio.Future[RequestProtocol | NotSent | None]


def authority_of(address: Address) -> bytes:
    """Host and port as a request names them."""
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"{host}:{address.port}".encode()


class Pool:
    """Used inside one running loop; ended by ``close``."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, address: Address, *, connections_max: int, connect_timeout_s: float
    ) -> None:
        self._loop, self._address = loop, address
        self._connections_max, self._connect_timeout_s = connections_max, connect_timeout_s
        self._connecting: set[asyncio.Timeout] = set()
        self._all: dict[RequestProtocol, None] = {}
        self._idle: dict[RequestProtocol, float] = {}
        """Since when, the last used one last: the others grow old."""
        self._queue: deque[Turn] = deque()
        """Who waits for a connection, or for room to make one, first come first."""
        self._is_closed = False
        self._emptied = asyncio.Event()
        self.authority: Final = authority_of(address)

    @property
    def is_unused(self) -> bool:
        """Nobody has a connection of it, or waits for one."""
        return not self._connecting and not self._queue and len(self._idle) == len(self._all)

    @property
    def connections_count(self) -> int:
        """Connections that there are, or that are being made."""
        return len(self._all) + len(self._connecting)

    def take_idle(self) -> RequestProtocol | None:
        """One that was in use before, at once; None: there is none. To be given back."""
        while self._idle:
            connection, since_s = self._idle.popitem()
            if self._loop.time() - since_s > IDLE_S_MAX:
                connection.close("it was not used for long")
            elif connection.is_free:
                return connection
        return None

    async def take(self, *, until_s: float, look_after_s: float, look: Look) -> RequestProtocol | NotSent:
        """One that is free, to be given back; while all are in use, ``look`` says how long to wait on.

        Nothing is connected beyond ``until_s``.
        """
        since_s, has_waited = self._loop.time(), False
        while not self._is_closed:
            taken: RequestProtocol | NotSent | None = self.take_idle()
            if taken is None and self.connections_count < self._connections_max:
                taken = await self._connect(until_s)
            if taken is None:
                taken = await self._turn(look_after_s, partial(look, since_s), is_next=has_waited)
                has_waited = True
            if taken is not None:
                return taken
        return NotSent("the client was closed", unreachable=False)

    def give_back(self, connection: RequestProtocol) -> None:
        """It is in use no more. Of one that is closed or closing, ``_lost`` tells when there is room for another."""
        if connection.is_free and not self._end_turn(connection):
            self._idle[connection] = self._loop.time()

    def distrust_idle(self) -> None:
        """An answer did not come: what lay idle meanwhile is not used again, as the same may have befallen it."""
        for connection in list(self._idle):
            connection.close("an answer did not come on another")
        self._idle.clear()

    def retire(self) -> None:
        """Its connections end. Only while ``is_unused``."""
        assert self.is_unused, "ask is_unused first"
        self.distrust_idle()

    async def close(self) -> None:
        """No connection is left."""
        self._is_closed = True
        for limit in self._connecting:
            if not limit.expired():
                limit.reschedule(self._loop.time())
        for connection in list(self._all):
            connection.close("the client was closed")
        while self._end_turn(None):
            continue
        if self._all:
            await self._emptied.wait()

    async def _connect(self, until_s: float) -> RequestProtocol | NotSent:
        connection: RequestProtocol | None = None
        given_up_s = self._loop.time() + self._connect_timeout_s
        limit = asyncio.timeout_at(min(given_up_s, until_s))
        self._connecting.add(limit)
        try:
            async with limit:
                connection = await dial(self._loop, self._protocol, *self._address)
        except TimeoutError:
            is_unreachable = given_up_s <= until_s and not self._is_closed
            return NotSent("not connected in time", unreachable=is_unreachable)
        except (OSError, UnicodeError) as error:
            return NotSent(getattr(error, "strerror", None) or str(error))
        finally:
            self._connecting.remove(limit)
            if connection is None:
                self._end_turn(None)
        if self._is_closed:
            connection.close("the client was closed")
        if not connection.is_free:
            return NotSent("the connection was lost as soon as it was made")
        self._all[connection] = None
        return connection

    def _protocol(self) -> RequestProtocol:
        return RequestProtocol(self._loop, answer_bytes_max=ANSWER_BYTES_MAX, on_lost=self._lost)

    def _lost(self, connection: RequestProtocol) -> None:
        self._all.pop(connection, None)
        self._idle.pop(connection, None)
        if self._is_closed and not self._all:
            self._emptied.set()
        self._end_turn(None)

    async def _turn(
        self, look_after_s: float, look: Callable[[], float | None], *, is_next: bool
    ) -> RequestProtocol | NotSent | None:
        """One that another call gave back; None: there may be room for a new one.

        ``is_next``: there was none although its turn had come; it goes before those who wait.
        """
        turn: Turn = self._loop.create_future()

        def quiet() -> None:
            more_s = look()
            if more_s is not None:
                deadline.set(self._loop.time() + more_s)
            elif not turn.done():
                turn.set_result(
                    NotSent(f"all {self._connections_max} connections were in use", unreachable=False),
                )

        deadline = Deadline(self._loop, quiet)
        deadline.set(self._loop.time() + look_after_s)
        (self._queue.appendleft if is_next else self._queue.append)(turn)
        try:
            taken = await turn
        except asyncio.CancelledError:
            self._pass_on(turn)
            raise
        finally:
            deadline.stop()
        return taken if not isinstance(taken, RequestProtocol) or taken.is_free else None

    def _pass_on(self, turn: Turn) -> None:
        """The turn of somebody who waits no more is the next one's."""
        if not turn.done() or turn.cancelled():
            return
        handed = turn.result()
        if isinstance(handed, RequestProtocol):
            self.give_back(handed)
        elif handed is None:
            self._end_turn(None)

    def _end_turn(self, with_: RequestProtocol | None) -> bool:
        """Whether somebody waited, and has it now."""
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(with_)
                return True
        return False


class Pools:
    """The pools of one client, by node; of nodes that are known no more, only those that are in use."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        connections_max: int,
        connect_timeout_s: float,
        is_known: Callable[[Address], bool],
    ) -> None:
        """``connections_max`` is for each node."""
        self._loop, self._is_known = loop, is_known
        self._connections_max, self._connect_timeout_s = connections_max, connect_timeout_s
        self._pools: dict[Address, Pool] = {}

    def __len__(self) -> int:
        return len(self._pools)

    def at(self, address: Address) -> Pool:
        """That node's."""
        pool = self._pools.get(address)
        if pool is None:
            self._forget()
            pool = self._pools[address] = Pool(
                self._loop,
                address,
                connections_max=self._connections_max,
                connect_timeout_s=self._connect_timeout_s,
            )
        return pool

    def distrust_idle(self, address: Address) -> None:
        """An answer of this node did not come: what lay idle meanwhile is not used again."""
        if (pool := self._pools.get(address)) is not None:
            pool.distrust_idle()

    async def close(self) -> None:
        """No connection is left."""
        for pool in list(self._pools.values()):
            await pool.close()

    def _forget(self) -> None:
        gone = [address for address, pool in self._pools.items() if pool.is_unused and not self._is_known(address)]
        for address in gone:
            self._pools.pop(address).retire()
