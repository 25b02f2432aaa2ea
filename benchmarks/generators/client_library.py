"""Load through a Python client: raftkv's own, or aetcd's; one client, as many tasks as asked for."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from benchmarks.generators import closing
from benchmarks.generators.closing import Count
from benchmarks.work import Work, drawn_keys, key


class Calls(NamedTuple):
    """A library's put and get."""

    put: Callable[[str, bytes], Awaitable[Any]]
    get: Callable[[str], Awaitable[Any]]


@asynccontextmanager
async def of_raftkv(urls: list[str]) -> AsyncIterator[Calls]:
    """All nodes are told to it, as a program would. It writes exactly once, with a session."""
    from raftkv.client import Client

    async with Client(urls) as client:
        yield Calls(client.put, client.get)


@asynccontextmanager
async def of_aetcd(urls: list[str]) -> AsyncIterator[Calls]:
    """It takes one node: the leader, which is named first."""
    import aetcd

    address = urlsplit(urls[0])
    async with aetcd.Client(host=address.hostname, port=address.port) as client:
        yield Calls(
            lambda name, value: client.put(name.encode(), value),
            lambda name: client.get(name.encode()),
        )


LIBRARIES = {"raftkv": of_raftkv, "aetcd": of_aetcd}


async def measured(library: str, urls: list[str], work: Work) -> dict[str, Any]:
    """One run."""
    names, value = [key(number) for number in drawn_keys(work)], b"v" * work.value_bytes
    async with LIBRARIES[library](urls) as calls:
        await calls.put(names[0], value)  # the connection and the session are there before it counts
        count = Count(work.seconds)

        async def task(at: int) -> None:
            began = time.perf_counter()
            while began < count.until_s:
                name = names[at % len(names)]
                await (calls.put(name, value) if work.verb == "put" else calls.get(name))
                ended = time.perf_counter()
                count.taken_s.append(ended - began)
                began, at = ended, at + 1

        await asyncio.gather(*(task(len(names) * n // work.clients) for n in range(work.clients)))
        return count.told()


def main() -> None:
    """Put load on a cluster, and tell what it did."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--library", choices=sorted(LIBRARIES), required=True)
    parser.add_argument("--urls", required=True)
    parser.add_argument("--verb", choices=["put", "get"], required=True)
    for name in ("clients", "seconds", "keys", "value-bytes", "seed"):
        parser.add_argument(f"--{name}", type=int, required=True)
    given = parser.parse_args()
    work = Work(given.verb, given.clients, given.seconds, given.keys, given.value_bytes, given.seed)
    closing.say(closing.run(measured(given.library, given.urls.split(","), work)))


if __name__ == "__main__":
    main()
