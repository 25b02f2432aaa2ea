"""The same client for programs without asyncio: every method waits until it is done.

    with Client("http://127.0.0.1:7401") as c:
        c.put("greeting", "hello")
        for item in c.range(prefix="greet"):
            print(item.key_text, item.text)

Its connections and its session live in an event loop of its own, in a thread of its own, which ends with it. It may be
used by any number of threads at once, of the process that made it: a forked child makes its own.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import CancelledError
from types import TracebackType
from typing import Any, Self, TypeVar

from raftkv.client.attempts import Figures
from raftkv.client.client import PAGE_ITEMS_MAX
from raftkv.client.client import Client as AsyncClient
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
from raftkv.client.txn import Compare, Op, Text
from raftkv.client.wishes import Consistency

T = TypeVar("T")


class Client:
    """``raftkv.client.Client``, waiting. Methods, results and errors are told there."""

    def __init__(self, endpoints: str | Sequence[str], *, settings: ClientSettings | None = None) -> None:
        self._client = AsyncClient(endpoints, settings=settings)
        self._loop = asyncio.new_event_loop()
        self._lock = threading.Lock()
        self._is_closed = False
        self._process_id = os.getpid()
        self._thread = threading.Thread(target=self._run, name="raftkv client", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """The session is ended, if the cluster can be reached at once; the thread has ended.

        Calls of other threads end with Unreachable or OutcomeUnknown. In a forked child nothing happens.
        """
        if os.getpid() != self._process_id:
            return
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            closing = asyncio.run_coroutine_threadsafe(self._client.close(), self._loop)
        try:
            closing.result()
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()

    @property
    def figures(self) -> Figures:
        """What this client did so far."""
        return self._client.figures

    def put(
        self,
        key: Text,
        value: Text,
        *,
        if_revision: int | None = None,
        if_absent: bool = False,
        if_present: bool = False,
        timeout_s: float | None = None,
    ) -> PutDone:
        """The key has the value; with a condition, only if the key was so, otherwise ConditionFailed is raised."""
        return self._wait(
            self._client.put(
                key,
                value,
                if_revision=if_revision,
                if_absent=if_absent,
                if_present=if_present,
                timeout_s=timeout_s,
            )
        )

    def get(
        self,
        key: Text,
        *,
        consistency: Consistency = "linearizable",
        max_staleness_ms: int | None = None,
        timeout_s: float | None = None,
    ) -> Item | None:
        """What the key holds; None: it is absent."""
        return self._wait(
            self._client.get(key, consistency=consistency, max_staleness_ms=max_staleness_ms, timeout_s=timeout_s)
        )

    def delete(
        self,
        key: Text,
        *,
        if_revision: int | None = None,
        if_present: bool = False,
        timeout_s: float | None = None,
    ) -> DeleteDone:
        """The key is absent; with a condition, only if the key was so, otherwise ConditionFailed is raised."""
        return self._wait(self._client.delete(key, if_revision=if_revision, if_present=if_present, timeout_s=timeout_s))

    def delete_range(
        self,
        *,
        prefix: Text | None = None,
        start: Text | None = None,
        end: Text | None = None,
        all_keys: bool = False,
        limit: int | None = None,
        timeout_s: float | None = None,
    ) -> DeleteRangeDone:
        """The keys within the bounds (``end`` excluded) are absent: all of them, or the first ``limit``."""
        return self._wait(
            self._client.delete_range(
                prefix=prefix, start=start, end=end, all_keys=all_keys, limit=limit, timeout_s=timeout_s
            )
        )

    def range(
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
    ) -> Iterator[Item]:
        """The items within the bounds (``end`` excluded), in the order of their keys; all of them, or ``limit``."""
        for page in self.pages(
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
            yield from page.items

    def pages(
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
    ) -> Iterator[Page]:
        """As ``range``, page by page, with the revision at which each was read."""
        pages = self._client.pages(
            prefix=prefix,
            start=start,
            end=end,
            limit=limit,
            reverse=reverse,
            keys_only=keys_only,
            page_items_max=page_items_max,
            consistency=consistency,
            max_staleness_ms=max_staleness_ms,
            timeout_s=timeout_s,
        )
        while (page := self._wait(_next(pages))) is not None:
            yield page

    def txn(
        self,
        *,
        compare: Sequence[Compare] = (),
        success: Sequence[Op] = (),
        failure: Sequence[Op] = (),
        timeout_s: float | None = None,
    ) -> TxnDone:
        """If all claims of ``compare`` hold, ``success`` is executed, else ``failure``: at one moment or not at all."""
        return self._wait(self._client.txn(compare=compare, success=success, failure=failure, timeout_s=timeout_s))

    def status(self, endpoint: str | None = None, *, timeout_s: float | None = None) -> NodeStatus:
        """What the node at this URL says of itself, or without one the leader."""
        return self._wait(self._client.status(endpoint, timeout_s=timeout_s))

    def cluster(self, endpoint: str | None = None, *, timeout_s: float | None = None) -> ClusterStatus:
        """The cluster as the node at this URL sees it, or without one as the leader does."""
        return self._wait(self._client.cluster(endpoint, timeout_s=timeout_s))

    def transfer_leadership(self, to: str | None = None, *, timeout_s: float | None = None) -> LeaderDone:
        """The voter of this id leads, or without one the best placed of the others."""
        return self._wait(self._client.transfer_leadership(to, timeout_s=timeout_s))

    def _wait(self, asked: Coroutine[Any, Any, T]) -> T:
        """The result. An interrupt gives the call up."""
        if os.getpid() != self._process_id:
            asked.close()
            raise RuntimeError("this client is another process's: make one in each process, after the fork")
        with self._lock:
            if self._is_closed:
                asked.close()
                raise RuntimeError("this client is closed")
            future = asyncio.run_coroutine_threadsafe(asked, self._loop)
        try:
            return future.result()
        except CancelledError:
            raise RuntimeError("this client was closed") from None
        except BaseException:
            future.cancel()
            raise

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            left = asyncio.all_tasks(self._loop)
            for task in left:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            self._loop.close()


async def _next(pages: Any) -> Page | None:
    return await anext(pages, None)
