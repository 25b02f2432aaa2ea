"""What raftkv and etcd's gateway have in common: HTTP for filling, for single writes, for looking who leads."""

from __future__ import annotations

import asyncio
import http.client
import json
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp

from benchmarks.processes import Failed, wait_for
from benchmarks.systems.base import NotAccepted, System
from benchmarks.work import batches

FILLERS: Final = 8


def ask(url: str, method: str, path: str, body: bytes | None = None, *, timeout_s: float = 2.0) -> tuple[int, bytes]:
    """Status and body of one request on a connection of its own. OSError when there is no answer."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=timeout_s)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    except http.client.HTTPException as error:
        raise ConnectionError(str(error)) from error
    finally:
        connection.close()


class HttpSystem(System):
    """Three nodes that are reached by these URLs."""

    urls: list[str]
    generator = "wrk"

    @abstractmethod
    def leads(self, url: str) -> bool:
        """This node says so of itself. OSError when it says nothing."""

    @abstractmethod
    def fill_request(self, numbers: range, value_bytes: int) -> tuple[str, bytes]:
        """Path and body of the transaction that puts all of these keys."""

    @abstractmethod
    def write_request(self) -> tuple[str, str, bytes]:
        """Method, path and body of one put."""

    def leader(self) -> int:
        """By asking every node."""

        def look() -> int | None:
            self.cluster.check()
            for node, url in enumerate(self.urls):
                try:
                    if self.leads(url):
                        return node
                except (OSError, ValueError):
                    continue
            return None

        return wait_for(f"{self.name}: a leader", look)

    def fill(self, keys: int, value_bytes: int) -> None:
        """By transactions, several at a time."""
        asyncio.run(self._fill(self.urls[self.leader()], keys, value_bytes))

    async def _fill(self, url: str, keys: int, value_bytes: int) -> None:
        waiting = iter(batches(keys, value_bytes))
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
            await asyncio.gather(*(self._fill_some(session, url, waiting, value_bytes) for _ in range(FILLERS)))

    async def _fill_some(
        self, session: aiohttp.ClientSession, url: str, waiting: Iterator[range], value_bytes: int
    ) -> None:
        for numbers in waiting:
            path, body = self.fill_request(numbers, value_bytes)
            async with session.post(url + path, data=body, headers={"Content-Type": "application/json"}) as answer:
                if answer.status != 200:
                    raise Failed(f"{self.name}: filling was answered {answer.status}: {await answer.text()}")

    def write(self, node: int, timeout_s: float) -> None:
        """Follows no redirect: whoever leads is asked directly by another."""
        status, _ = ask(self.urls[node], *self.write_request(), timeout_s=timeout_s)
        if status not in (200, 201):
            raise NotAccepted(str(status))


def json_of(url: str, method: str, path: str, body: bytes | None = None) -> Any:
    """The body of an answer that is a success; ConnectionError for every other."""
    status, told = ask(url, method, path, body)
    if status != 200:
        raise ConnectionError(f"{url}{path}: {status}")
    return json.loads(told)
