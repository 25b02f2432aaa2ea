"""A node for each test, behind each front."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from raftkv.api.routes import Api
from raftkv.api.settings import ApiSettings
from tests.api.fronts import (
    AiohttpClient,
    Client,
    DoorClient,
    LeanClient,
    LoopThread,
    MakeClient,
    PureClient,
    StreamClient,
)
from tests.api.service import FakeService

METRICS = b"# HELP raftkv_core_term_count The term.\nraftkv_core_term_count 7.0\n"
SETTINGS = ApiSettings()


def api_of(service: FakeService, settings: ApiSettings = SETTINGS) -> Api:
    return Api(service, node_id="n1", settings=settings, metrics=lambda: METRICS)


@pytest.fixture(scope="session")
def loop_thread() -> Iterator[LoopThread]:
    thread = LoopThread()
    yield thread
    thread.stop()


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def open_aiohttp(loop_thread: LoopThread) -> Iterator[MakeClient]:
    yield from _opening(AiohttpClient, loop_thread)


@pytest.fixture
def open_door(loop_thread: LoopThread) -> Iterator[MakeClient]:
    yield from _opening(DoorClient, loop_thread)


@pytest.fixture
def open_lean(loop_thread: LoopThread) -> Iterator[MakeClient]:
    yield from _opening(LeanClient, loop_thread)


@pytest.fixture(params=["aiohttp", "lean"])
def open_wired(request: pytest.FixtureRequest) -> MakeClient:
    """Each of the two fronts that read from a socket, with limits of the test's own."""
    opens: MakeClient = request.getfixturevalue(f"open_{request.param}")
    return opens


def _opening(front: type[AiohttpClient], loop_thread: LoopThread) -> Iterator[MakeClient]:
    opened: list[AiohttpClient] = []

    def make(settings: ApiSettings = SETTINGS) -> AiohttpClient:
        service = FakeService()
        opened.append(front(api_of(service, settings), service, settings, loop_thread))
        return opened[-1]

    yield make
    for client in opened:
        client.close()


@pytest.fixture
def open_stream(loop_thread: LoopThread) -> Iterator[Callable[..., StreamClient]]:
    opened: list[StreamClient] = []

    def make(settings: ApiSettings = SETTINGS) -> StreamClient:
        service = FakeService()
        opened.append(StreamClient(api_of(service, settings), service, settings, loop_thread))
        return opened[-1]

    yield make
    for client in opened:
        client.close()


@pytest.fixture(params=["pure", "aiohttp", "door", "lean", "stream"])
def client(request: pytest.FixtureRequest) -> Client:
    """One node behind the front that the parameter names."""
    if request.param != "pure":
        opened: Client = request.getfixturevalue(f"open_{request.param}")()
        return opened
    service = FakeService()
    return PureClient(api_of(service), service)


@pytest.fixture(params=["aiohttp", "door", "lean"])
def wired(request: pytest.FixtureRequest) -> AiohttpClient:
    """One node behind aiohttp, which has a connection from its first byte on, is handed it by the door, or has
    nothing to do with the keys' own routes."""
    opened: AiohttpClient = request.getfixturevalue(f"open_{request.param}")()
    return opened
