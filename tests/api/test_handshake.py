"""Who may open a stream, and that whoever may not, or asks wrongly, is told so in HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from raftkv.api.routes import NODE_ROUTES, Api
from raftkv.api.settings import ApiSettings
from tests.api.conftest import METRICS
from tests.api.fronts import COMMON_HEADERS, AiohttpClient, LoopThread, StreamClient
from tests.api.service import FakeService
from tests.api.streams import BareStream, until


@pytest.fixture
def wire(wired: AiohttpClient) -> Iterator[BareStream]:
    """A connection on which nothing was said yet."""
    made = BareStream(wired.port)
    yield made
    made.close()


def test_so_many_streams_are_open_and_no_more(open_stream: Callable[..., StreamClient]) -> None:
    client = open_stream(replace(ApiSettings(), streams_max=1))
    one_more, later = BareStream(client.port), BareStream(client.port)
    refused = one_more.shake_hands()
    assert (refused.status, refused.code) == (429, "overloaded")
    client.thread.run(client.socket.close())
    client.thread.run(until(lambda: client.front.streams_count == 0))
    assert later.shake_hands().status == 101
    one_more.close()
    later.close()


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("127.0.0.1:7401", None, 101),
        ("127.0.0.1:7401", "http://127.0.0.1:7401", 101),
        ("localhost:7401", "http://localhost:7401", 101),
        ("[::1]:7401", "http://[::1]:7401", 101),
        ("n1.test:7401", "http://n1.test:7401", 101),
        ("elsewhere.test", "http://n3.test:7403", 101),
        ("127.0.0.1:7401", "http://evil.test", 403),
        ("evil.test:7401", "http://evil.test:7401", 403),
        ("127.0.0.1:7401", "http://127.0.0.1:8080", 403),
        ("127.0.0.1:7401", "https://127.0.0.1:7401", 403),
        ("127.0.0.1:7401", "http://127.0.0.1:7401.evil.test", 403),
        ("127.0.0.1.evil.test", "http://127.0.0.1.evil.test", 403),
        ("127.0.0.1:7401", "null", 403),
        ("127.0.0.1:7401", "", 403),
        ("[bad", "http://[bad", 403),
    ],
)
def test_a_page_of_somebody_elses_opens_no_stream(wire: BareStream, host: str, origin: str | None, status: int) -> None:
    """Browsers ask nobody before they open a WebSocket; a name in Host may be anybody's."""
    headers = {} if origin is None else {"Origin": origin}
    answer = wire.shake_hands({"Host": host, **headers})
    assert answer.status == status
    assert status == 101 or answer.code == "forbidden"


@pytest.mark.parametrize(
    ("line", "headers", "status"),
    [
        ("GET /v1/stream", {"Upgrade": None, "Connection": None}, 400),
        ("GET /v1/stream", {"Upgrade": "h2c"}, 400),
        ("GET /v1/stream", {"Sec-WebSocket-Version": "12"}, 400),
        ("GET /v1/stream", {"Sec-WebSocket-Version": None}, 400),
        ("GET /v1/stream", {"Sec-WebSocket-Key": None}, 400),
        ("GET /v1/stream", {"Sec-WebSocket-Key": "short"}, 400),
        ("GET /v1/stream", {"Sec-WebSocket-Key": "%"}, 400),
        ("GET /v1/stream?x=1", {}, 400),
        ("GET /v1/stream/", {}, 404),
        ("POST /v1/stream", {}, 405),
        ("GET /v1/kv/a", {}, 404),
    ],
)
def test_what_is_no_handshake_is_answered_as_http_and_the_connection_goes_on(
    wire: BareStream, line: str, headers: dict[str, str | None], status: int
) -> None:
    assert wire.shake_hands(headers, line=line).status == status
    wire.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert wire.receive().status == 200


def test_no_extension_and_no_protocol_is_agreed_on(wire: BareStream) -> None:
    """What is packed would have to be unpacked (faults 67)."""
    answer = wire.shake_hands({"Sec-WebSocket-Extensions": "permessage-deflate", "Sec-WebSocket-Protocol": "mqtt"})
    assert answer.status == 101 and answer["Raftkv-Node"] == "n1"
    assert "Sec-WebSocket-Extensions" not in answer and "Sec-WebSocket-Protocol" not in answer


def test_the_answer_that_opens_a_stream_says_what_all_answers_say(wire: BareStream) -> None:
    answer = wire.shake_hands()
    assert answer.status == 101
    assert answer.headers[: len(COMMON_HEADERS)] == COMMON_HEADERS


def test_a_node_without_the_store_has_no_stream_and_says_why(loop_thread: LoopThread) -> None:
    service = FakeService()
    api = Api(service, node_id="n1", settings=ApiSettings(), metrics=lambda: METRICS, routes=NODE_ROUTES)
    client = AiohttpClient(api, service, ApiSettings(), loop_thread)
    wire = BareStream(client.port)
    try:
        assert "another state machine" in wire.shake_hands().json["detail"]
        for method, target in (("PUT", "/v1/kv/a"), ("GET", "/v1/kv"), ("POST", "/v1/txn"), ("POST", "/v1/sessions")):
            answer = client.ask_raw(method, target.encode(), [], None)
            assert (answer.status, answer.code) == (404, "not_found")
            assert "another state machine" in answer.json["detail"]
        assert "another state machine" not in client.ask("GET", "/v1/nothing").json["detail"]
        assert "/v1/kv" not in client.ask("GET", "/v1/openapi.json").json["paths"]
        for path in ("/v1/status", "/v1/cluster", "/healthz", "/readyz", "/metrics", "/v1/openapi.json"):
            assert client.ask("GET", path).status == 200
    finally:
        wire.close()
        client.close()
