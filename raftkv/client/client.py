"""The client. One object for a whole program, used by any number of tasks at once.

    async with Client("http://127.0.0.1:7401,http://127.0.0.1:7402,http://127.0.0.1:7403") as c:
        done = await c.put("greeting", "hello")
        item = await c.get("greeting")
        await c.put("greeting", "hello again", if_revision=done.revision)

Every write is executed exactly once, also when leaders die while it is under way: it is numbered in a session of the
client's own, and repeated under its number until the cluster says what came of it. Every method ends with its result
or with one of four errors (``raftkv.errors``):

    ConditionFailed   the key was not as demanded; nothing was changed
    Rejected          the cluster said no, and ``code`` says why; nothing was changed
    Unreachable       nobody who could decide was reached in time; nothing was changed
    OutcomeUnknown    time was over, and the write may have happened, or may happen yet
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from random import Random, SystemRandom
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from raftkv.client import wishes
from raftkv.client.asker import Asker
from raftkv.client.attempts import Figures, Whom
from raftkv.client.results import (
    ClusterStatus,
    DeleteDone,
    DeleteRangeDone,
    Item,
    LeaderDone,
    NodeStatus,
    Page,
    PutDone,
    TxnDone,
)
from raftkv.client.settings import ClientSettings
from raftkv.client.txn import Compare, Op, Text, as_bytes, bounds, refuse_everything_unasked
from raftkv.client.wishes import ANY, LINEARIZABLE, Condition, Consistency, Freshness, Wish
from raftkv.errors import RequestError
from raftkv.kv.commands import COMMAND_KEYS_MAX
from raftkv.values import parse_url, url_address

T = TypeVar("T")

PAGE_ITEMS_MAX: Final = 1_000


class Client:
    """A client of one cluster, inside one event loop: the one of its first call. RuntimeError in any other.

    Its session is opened with its first write, and kept alive until ``close``. Keys and values are bytes, or text that
    stands for its UTF-8. ``timeout_s`` is for a whole call with all its attempts, in seconds; without it the settings'
    counts. A call raises ConditionFailed, Rejected or Unreachable, and then it changed nothing; or OutcomeUnknown, and
    then its write may have happened, or may happen yet. ValueError and TypeError are for arguments that cannot be
    meant: nothing was sent.
    """

    def __init__(self, endpoints: str | Sequence[str], *, settings: ClientSettings | None = None) -> None:
        """``endpoints``: URLs of some nodes, in a list or with commas between them; the others are found.

        Raises ValueError where one of them is no URL of a node.
        """
        urls = endpoints.split(",") if isinstance(endpoints, str) else list(endpoints)
        if not urls:
            raise ValueError("a client needs the URL of at least one node")
        self._endpoints = tuple(url_address(parse_url(url.strip())) for url in urls)
        self._settings = settings or ClientSettings()
        self._asker: Asker | None = None
        self._is_closed = False

    async def __aenter__(self) -> Self:
        self._running()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """The session is ended, if the cluster can be reached at once; nothing is left behind.

        Calls that are under way end with Unreachable or OutcomeUnknown.
        """
        self._stay_in_loop()
        self._is_closed = True
        if self._asker is not None:
            await self._asker.close()

    @property
    def figures(self) -> Figures:
        """What this client did so far: attempts, retries, and what they met."""
        return Figures() if self._asker is None else self._asker.figures

    # ------------------------------------------------------------------------------------------------ keys

    async def put(
        self,
        key: Text,
        value: Text,
        *,
        if_revision: int | None = None,
        if_absent: bool = False,
        if_present: bool = False,
        timeout_s: float | None = None,
    ) -> PutDone:
        """The key has the value; with a condition, only if the key was so, otherwise ConditionFailed is raised.

        ``if_revision`` is the mod revision that the key must have; 0: it must be absent.
        """
        condition = ANY
        if if_revision is not None or if_absent or if_present:
            condition = Condition(if_revision, if_absent, if_present)
        return await self._ask(
            wishes.put(as_bytes(key, what="key"), as_bytes(value, what="value"), condition), timeout_s
        )

    async def get(
        self,
        key: Text,
        *,
        consistency: Consistency = "linearizable",
        max_staleness_ms: int | None = None,
        timeout_s: float | None = None,
    ) -> Item | None:
        """What the key holds; None: it is absent.

        ``linearizable`` and ``lease`` reads go to the leader, ``follower`` and ``stale`` ones to each node in turn.
        All but ``stale`` see every write that was acknowledged before the read began. ``stale`` shows nothing older
        than what this client has seen, and with ``max_staleness_ms`` nothing that is older than so many milliseconds.
        """
        return await self._ask(
            wishes.get(as_bytes(key, what="key"), self._freshness(consistency, max_staleness_ms)), timeout_s
        )

    async def delete(
        self,
        key: Text,
        *,
        if_revision: int | None = None,
        if_present: bool = False,
        timeout_s: float | None = None,
    ) -> DeleteDone:
        """The key is absent; with a condition, only if the key was so, otherwise ConditionFailed is raised.

        ``if_revision`` is the mod revision that the key must have.
        """
        condition = Condition(if_revision, present=if_present) if if_revision is not None or if_present else ANY
        return await self._ask(wishes.delete(as_bytes(key, what="key"), condition), timeout_s)

    async def delete_range(
        self,
        *,
        prefix: Text | None = None,
        start: Text | None = None,
        end: Text | None = None,
        all_keys: bool = False,
        limit: int | None = None,
        timeout_s: float | None = None,
    ) -> DeleteRangeDone:
        """The keys within the bounds (``end`` excluded) are absent: all of them, or the first ``limit``.

        A large range goes in several commands of at most 10,000 keys, each of which is executed once and at one
        moment; ``timeout_s`` is for each of them. When one of them fails, those before it stay done: the error speaks
        of that one, and a note in it says how many keys had been deleted.
        """
        within = bounds(prefix=prefix, start=start, end=end)
        refuse_everything_unasked(within, all_keys=all_keys)
        _refuse_number("limit", limit, least=1)
        deleted = 0
        while True:
            left = None if limit is None else min(limit - deleted, COMMAND_KEYS_MAX)
            try:
                done = await self._ask(wishes.delete_range(within, limit=left, all_keys=all_keys), timeout_s)
            except RequestError as error:
                if deleted:
                    error.add_note(f"{deleted} keys had been deleted before, by other commands of the same call")
                raise
            deleted += done.deleted
            if not done.more or not done.deleted or (limit is not None and deleted >= limit):
                return DeleteRangeDone(deleted, done.more, done.revision)

    async def range(
        self,
        *,
        prefix: Text | None = None,
        start: Text | None = None,
        end: Text | None = None,
        limit: int | None = None,
        reverse: bool = False,
        keys_only: bool = False,
        consistency: Consistency = "linearizable",
        max_staleness_ms: int | None = None,
        timeout_s: float | None = None,
    ) -> AsyncIterator[Item]:
        """The items within the bounds (``end`` excluded), in the order of their keys; all of them, or ``limit``.

        They come in pages, each read at one moment and within ``timeout_s``. A key that is there throughout comes
        exactly once, whatever is written meanwhile.
        """
        async for page in self.pages(
            prefix=prefix,
            start=start,
            end=end,
            limit=limit,
            reverse=reverse,
            keys_only=keys_only,
            consistency=consistency,
            max_staleness_ms=max_staleness_ms,
            timeout_s=timeout_s,
        ):
            for item in page.items:
                yield item

    async def pages(
        self,
        *,
        prefix: Text | None = None,
        start: Text | None = None,
        end: Text | None = None,
        limit: int | None = None,
        reverse: bool = False,
        keys_only: bool = False,
        page_items_max: int = PAGE_ITEMS_MAX,
        consistency: Consistency = "linearizable",
        max_staleness_ms: int | None = None,
        timeout_s: float | None = None,
    ) -> AsyncIterator[Page]:
        """As ``range``, page by page, with the revision at which each was read.

        ``page_items_max`` is at most 10,000; a page of large items also ends at 4 MiB.
        """
        within = bounds(prefix=prefix, start=start, end=end)
        _refuse_number("limit", limit, least=0)
        _refuse_number("page_items_max", page_items_max, least=1, most=COMMAND_KEYS_MAX)
        cursor: str | None = None
        left = limit
        while left is None or left > 0:
            page = await self._ask(
                wishes.range_page(
                    within,
                    self._freshness(consistency, max_staleness_ms),
                    limit=page_items_max if left is None else min(left, page_items_max),
                    reverse=reverse,
                    keys_only=keys_only,
                    cursor=cursor,
                ),
                timeout_s,
            )
            yield page
            cursor = page.next
            left = None if left is None else left - len(page.items)
            if cursor is None:
                return

    async def txn(
        self,
        *,
        compare: Sequence[Compare] = (),
        success: Sequence[Op] = (),
        failure: Sequence[Op] = (),
        timeout_s: float | None = None,
    ) -> TxnDone:
        """If all claims of ``compare`` hold, ``success`` is executed, else ``failure``: at one moment or not at all.

        Which it was stands in ``succeeded``; ConditionFailed is not raised.
        """
        return await self._ask(wishes.txn(compare, success, failure), timeout_s)

    # ----------------------------------------------------------------------------------------- the cluster

    async def status(self, endpoint: str | None = None, *, timeout_s: float | None = None) -> NodeStatus:
        """What the node at this URL says of itself, or without one the leader."""
        whom = Whom.LEADER if endpoint is None else url_address(parse_url(endpoint))
        return await self._ask(wishes.status(whom), timeout_s)

    async def cluster(self, endpoint: str | None = None, *, timeout_s: float | None = None) -> ClusterStatus:
        """The cluster as the node at this URL sees it, or without one as the leader does."""
        whom = Whom.LEADER if endpoint is None else url_address(parse_url(endpoint))
        return await self._ask(wishes.cluster(whom), timeout_s)

    async def transfer_leadership(self, to: str | None = None, *, timeout_s: float | None = None) -> LeaderDone:
        """The voter of this id leads, or without one the best placed of the others.

        Without one it is asked once only, since another time would move leadership on: OutcomeUnknown where no answer
        came.
        """
        return await self._ask(wishes.transfer_leadership(to), timeout_s)

    # ------------------------------------------------------------------------------------------------------

    def _running(self) -> Asker:
        if self._is_closed:
            raise RuntimeError("this client is closed")
        self._stay_in_loop()
        if self._asker is None:
            rng = Random(SystemRandom().getrandbits(64))
            self._asker = Asker(asyncio.get_running_loop(), self._endpoints, self._settings, rng)
        return self._asker

    def _stay_in_loop(self) -> None:
        """Before anything is sent: in another loop its connections would send, and never hear."""
        if self._asker is not None and self._asker.loop is not asyncio.get_running_loop():
            raise RuntimeError("this client belongs to another event loop: make one in each, and close it there")

    def _ask(self, wish: Wish[T], timeout_s: float | None) -> Coroutine[Any, Any, T]:
        timeout_s = self._settings.timeout_s if timeout_s is None else timeout_s
        if not 0 < timeout_s < 1e6:
            raise ValueError(f"timeout_s is a time in seconds, above 0 and below a million, not {timeout_s!r}")
        return self._running().ask(wish, timeout_s=timeout_s)

    def _freshness(self, consistency: Consistency, max_staleness_ms: int | None) -> Freshness:
        if consistency == "linearizable" and max_staleness_ms is None:
            return LINEARIZABLE
        is_monotonic = consistency == "stale" and self._settings.monotonic_reads
        return Freshness(consistency, max_staleness_ms, self._running().seen_index if is_monotonic else None)


def _refuse_number(name: str, value: int | None, *, least: int, most: int | None = None) -> None:
    """Raises ValueError for what is no such number: below 0 a loop would end at once, and look like an empty range."""
    if value is not None and (type(value) is not int or value < least or (most is not None and value > most)):
        up_to = "" if most is None else f" and at most {most}"
        raise ValueError(f"{name} is a whole number of at least {least}{up_to}, not {value!r}")
