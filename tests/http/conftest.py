"""Every test of this room that needs a loop runs on both, against real sockets on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
import uvloop

from tests.http.fronts import Fronts


def pytest_asyncio_loop_factories(config, item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
async def fronts() -> AsyncIterator[Fronts]:
    """What opens fronts, and at the end closes them and demands that nothing failed unseen."""
    opened = Fronts()
    yield opened
    await opened.close()
    assert opened.failures == []
