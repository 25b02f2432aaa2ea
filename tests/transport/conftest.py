"""Links and routes run on both event loops, against real sockets on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
import uvloop

from tests.transport.peers import Peers


def pytest_asyncio_loop_factories(config, item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
async def peers() -> AsyncIterator[Peers]:
    """What opens peers and links, and at the end closes them and demands that nothing failed unseen."""
    opened = Peers()
    yield opened
    await opened.close()
    assert opened.failures == []
