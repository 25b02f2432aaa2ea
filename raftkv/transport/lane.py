"""One lane to a peer: a connection that is made again whenever it is lost.

Told: where the peer is, and what to post. Tells: its owner when it is connected, and what became of each
post. It never learns what is posted. While it is not connected, or full, there is no room: the core
repeats by itself what still matters, and what had waited in a queue would be out of date when it came.
"""

from __future__ import annotations

import asyncio
import math
import os
import random
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from raftkv.core.types import NodeId
from raftkv.http.client import ClientProtocol, ExchangeLimits
from raftkv.http.dial import dial
from raftkv.transport.routes import CONTENT_TYPE
from raftkv.transport.sealed import Credentials, Refusal, SealedProtocol
from raftkv.transport.settings import TransportSettings

_DOUBLINGS_MAX: Final = 16
"""Of the wait between attempts; it has long reached its bound by then."""


class LaneOwner(Protocol):
    """The link that a lane belongs to."""

    def on_connected(self, lane: Lane) -> None:
        """Posts can be made; nothing has been posted on this connection yet."""
        ...

    def on_answer(self, context: Any, status: int, body: bytes) -> None:
        """The answer to what was posted with this context."""
        ...

    def on_failed(self, context: Any, why: str) -> None:
        """There will be no answer."""
        ...

    def on_refused(self, refusal: Refusal) -> None:
        """The peers' secret stands between the two nodes; what was outstanding has failed, or soon will."""
        ...


class Lane:
    """Keeps one connection to a peer. Made inside a running loop; ended by ``close``."""

    def __init__(
        self,
        *,
        url: str,
        limits: ExchangeLimits,
        settings: TransportSettings,
        rng: random.Random,
        owner: LaneOwner,
        peer: NodeId,
        credentials: Credentials | None,
    ) -> None:
        """``rng`` spreads the attempts of many nodes to reach one that has restarted.

        With ``credentials`` there is a connection only to whoever knows the same secret and answers as ``peer``.
        """
        self._loop = asyncio.get_running_loop()
        self._peer, self._credentials = peer, credentials
        self._url, self._limits, self._settings, self._rng, self._owner = url, limits, settings, rng, owner
        self._connection: ClientProtocol | None = None
        self._failed_attempts = 0
        """Since a connection that was of use."""
        self._connected_at_s = 0.0
        self._is_of_use = False
        """The peer has answered on this connection."""
        self.trouble = ""
        """Why there is no connection, or was no answer; empty since the last answer."""
        self.answered_at_s: float | None = None
        """When the peer answered last, by the loop's clock; None: never."""
        self._lost = asyncio.Event()
        self._again = asyncio.Event()
        """The wait for the next attempt is over early."""
        self._hurried_at_s = -math.inf
        self._task = self._loop.create_task(self._keep_connected())
        self._task.add_done_callback(self._keeper_ended)

    @property
    def is_connected(self) -> bool:
        """A connection stands, as far as is known here."""
        return self._connection is not None

    @property
    def has_room(self) -> bool:
        """A post would be sent now."""
        return self._connection is not None and self._connection.has_room

    def post(self, target: bytes, body: bytes, context: Any) -> None:
        """Sends it; ``context`` comes back with the answer, or with the failure. Only while ``has_room``."""
        assert self._connection is not None, "ask has_room first"
        self._connection.post(target, body, context)

    def move(self, url: str) -> None:
        """The peer is at ``url`` from now on; what is outstanding at the old place fails."""
        if url == self._url:
            return
        self._url = url
        self._failed_attempts = 0
        if self._connection is not None:
            self._connection.close("the peer has moved")
        self._again.set()

    def hurry(self) -> None:
        """The peer is there: it is tried at once, however long the wait has become.

        Once within the longest wait: a peer that comes and comes and cannot be reached is not stormed.
        """
        now_s = self._loop.time()
        if self._connection is None and now_s - self._hurried_at_s >= self._settings.reconnect_max_s:
            self._hurried_at_s = now_s
            self._again.set()

    async def close(self) -> None:
        """The lane is down for good; what was outstanding has failed."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if self._connection is not None:
            self._connection.close("this node is stopping")
            await self._lost.wait()

    async def _keep_connected(self) -> None:
        while True:
            self._lost.clear()
            self._again.clear()
            if await self._connect():
                self._owner.on_connected(self)
                await self._lost.wait()
            try:
                async with asyncio.timeout(self._wait_s()):
                    await self._again.wait()
            except TimeoutError:
                continue

    def _keeper_ended(self, task: asyncio.Task[None]) -> None:
        """Ends only by ``close``; anything else is a bug of our own, and the loop's owner hears of it at once."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._loop.call_exception_handler({"message": "the keeper of a lane failed", "exception": error})

    async def _connect(self) -> bool:
        url = self._url
        self._failed_attempts += 1
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s):
                connection = await self._open(url)
                if isinstance(connection, SealedProtocol):
                    await self._greet(connection)
        except TimeoutError:
            self.trouble = self._too_late
            return False
        except OSError as error:
            self.trouble = _in_words(error)
            return False
        except ValueError:
            self.trouble = "nobody can be reached at its URL"
            return False
        if url != self._url:
            connection.close("the peer has moved")
        if not connection.is_open or url != self._url:
            return False
        self._connection = connection
        self._connected_at_s, self._is_of_use = self._loop.time(), False
        return True

    async def _open(self, url: str) -> ClientProtocol:
        """A connection to it. ValueError: a peer says of itself where it is, and it may say what is no place."""
        parts = urlsplit(url)
        if parts.hostname is None:
            raise ValueError("it names no host")
        port = parts.port or (443 if parts.scheme == "https" else 80)
        return await dial(self._loop, lambda: self._protocol(parts.netloc.encode()), parts.hostname, port)

    async def _greet(self, connection: SealedProtocol) -> None:
        """The peer has proved itself; or the connection is closed, and its owner knows why."""
        try:
            await connection.greeted
        except BaseException:
            connection.close(self._too_late)
            raise
        if connection.refusal is not None:
            self._refused(connection.refusal)

    @property
    def _too_late(self) -> str:
        return f"no connection within {self._settings.connect_timeout_s:g} s"

    def _refused(self, refusal: Refusal) -> None:
        """The next attempt can wait as long as any: secrets do not mend within milliseconds."""
        self._failed_attempts = _DOUBLINGS_MAX
        self.trouble = refusal.text
        self._owner.on_refused(refusal)

    def _protocol(self, authority: bytes) -> ClientProtocol:
        if self._credentials is None:
            return ClientProtocol(
                self._loop, authority=authority, content_type=CONTENT_TYPE, limits=self._limits, poster=self
            )
        return SealedProtocol(
            self._loop,
            credentials=self._credentials,
            peer=self._peer,
            authority=authority,
            limits=self._limits,
            poster=self,
        )

    def _wait_s(self) -> float:
        """Before the next attempt: none after a connection that was of use for a while, else ever longer.

        A peer that answers once and hangs up each time would be asked a thousand times a second.
        """
        if not self._failed_attempts:
            return 0.0
        settings = self._settings
        doublings = min(self._failed_attempts - 1, _DOUBLINGS_MAX)
        longest_s = min(settings.reconnect_first_s * 2.0**doublings, settings.reconnect_max_s)
        return longest_s * (0.5 + 0.5 * self._rng.random())

    # What the connection tells.

    def on_answer(self, context: Any, status: int, body: bytes) -> None:
        """Passed on; and the peer is there."""
        self._is_of_use = True
        self.trouble = ""
        self.answered_at_s = self._loop.time()
        self._owner.on_answer(context, status, body)

    def on_failed(self, context: Any, why: str) -> None:
        """Passed on."""
        self._owner.on_failed(context, why)

    def on_lost(self, why: str) -> None:
        """A new connection is made. (An attempt that was given up in the making is lost too, and was not yet ours.)"""
        connection = self._connection
        if connection is None:
            self.trouble = why
        elif not connection.is_open:
            self._connection = None
            self.trouble = why
            if self._is_of_use and self._loop.time() - self._connected_at_s >= self._settings.reconnect_max_s:
                self._failed_attempts = 0
            self._lost.set()
            if isinstance(connection, SealedProtocol) and connection.refusal is not None:
                self._refused(connection.refusal)


def _in_words(error: OSError) -> str:
    """The system's own words; a name that several addresses stand for fails with a list of them."""
    return os.strerror(error.errno).lower() if error.errno is not None and error.errno > 0 else str(error)
