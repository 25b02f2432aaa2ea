"""Connections by name: made, refused, and given up without leaving anything behind."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from raftkv.http.dial import dial


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as one:
        yield one


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_host_is_reached_by_its_address_and_by_its_name(listening, host):
    class Greeted(asyncio.Protocol):
        transport: asyncio.BaseTransport

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

    connection = await dial(asyncio.get_running_loop(), Greeted, host, listening.getsockname()[1])
    assert connection.transport.get_extra_info("peername")[1] == listening.getsockname()[1]
    connection.transport.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "no-such-host.invalid"])
async def test_who_does_not_listen_or_is_nobody_is_an_os_error(listening, host):
    port = listening.getsockname()[1]
    listening.close()
    with pytest.raises(OSError, match=r"."):
        await dial(asyncio.get_running_loop(), asyncio.Protocol, host, port)


@pytest.mark.parametrize("host", ["a..b", "x" * 64])
async def test_what_cannot_be_a_name_is_said_to_be_none(host):
    with pytest.raises((UnicodeError, OSError)):
        await dial(asyncio.get_running_loop(), asyncio.Protocol, host, 1)


async def test_who_gives_up_while_a_name_is_looked_up_hears_no_more_of_it():
    """Neither then nor when the resolver answers after all."""
    reported: list[Mapping[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: reported.append(context))
    asking = asyncio.ensure_future(dial(loop, asyncio.Protocol, "no-such-host.invalid", 1))
    await asyncio.wait([asking], timeout=0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    for _ in range(3):  # the resolver answered long ago when it has answered these
        with pytest.raises(OSError, match=r"."):
            await loop.getaddrinfo("no-such-host.invalid", 1, type=socket.SOCK_STREAM)
    gc.collect()
    assert reported == []
