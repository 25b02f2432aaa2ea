"""Plain requests on either front: taken at a glance, and never mistaken for the one before or behind."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from raftkv.api.aiohttp_front import AiohttpFront
from raftkv.api.routes import Api
from raftkv.kv.commands import encode_put
from tests.api.conftest import SETTINGS, api_of
from tests.api.fronts import Answer, Header, MakeClient, request_bytes
from tests.api.service import FakeService

NUMBERED = [("Raftkv-Session", f"{1:032x}"), ("Raftkv-Sequence", "1")]


def test_what_is_plain_takes_no_second_look(open_wired: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    client = open_wired()

    def begin(*_: Any) -> Any:
        raise AssertionError("the general way")

    with monkeypatch.context() as patched:
        patched.setattr(Api, "begin", begin)
        assert client.put("a", b"v").status == 201
        assert client.get("a").body == b"v"
        assert client.ask_raw("DELETE", b"/v1/kv/a", NUMBERED, None).code == "session_expired"
        assert client.ask_raw("DELETE", b"/v1/kv/a", [], None).status == 200
        assert client.put("a", b"v", {"If-None-Match": "*"}).status == 500
    assert client.put("a", b"v", {"If-None-Match": "*"}).status == 201


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_a_body_that_nobody_takes_is_refused_however_plain_the_request(open_wired: MakeClient, method: str) -> None:
    """It might have been meant for something: nothing is deleted."""
    client = open_wired()
    client.put("a", b"v")
    assert client.ask_raw(method, b"/v1/kv/a", [], b"body").status == 400
    assert client.get("a").body == b"v"


def test_bodies_of_any_size_leave_the_connection_as_it_was(open_wired: MakeClient) -> None:
    client = open_wired()
    wire = client.wire()
    for size_bytes in (0, 1, 3_000, 150_000, 200_000, 250_000, 1_000_000, 2):
        for number in range(3):
            value = bytes([number]) * size_bytes
            wire.send(request_bytes("PUT", b"/v1/kv/a", [], value))
            assert wire.receive().status in (200, 201)
            wire.send(request_bytes("GET", b"/v1/kv/a", [], None))
            assert wire.receive().body == value


@pytest.mark.parametrize("plain_is_first", [True, False])
def test_a_plain_request_and_another_are_each_answered_for_itself(open_wired: MakeClient, plain_is_first: bool) -> None:
    """Also where the second comes while the first waits, and where both come at once."""
    client = open_wired()
    plain: tuple[bytes, list[Header]] = (b"/v1/kv/plain", [])
    other: tuple[bytes, list[Header]] = (b"/v1/kv/other", [("If-None-Match", "*")])
    first, second = (plain, other) if plain_is_first else (other, plain)
    for at_once in (True, False):
        client.service.holds = True
        wire = client.wire()
        parts = [request_bytes("PUT", target, headers, target) for target, headers in (first, second)]
        if at_once:
            parts = [b"".join(parts)]
        for part in parts:
            wire.send(part)
            client.thread.call(lambda: None)
        answers: list[Answer] = []
        while len(answers) < 2:
            while not wire.has_answer(method="PUT"):
                client.thread.call(lambda: [client.service.held.pop(0)() for _ in client.service.held[:]])
            answers.append(wire.receive(method="PUT"))
        client.service.holds = False
        assert [answer.status for answer in answers] == [201, 201]
        assert [answer.json["key"] for answer in answers] == [target.decode()[7:] for target, _ in (first, second)]
        for target, _ in (first, second):
            assert client.ask_raw("GET", target, [], None).body == target
            assert client.ask_raw("DELETE", target, [], None).status == 200


def test_what_follows_a_plain_request_is_vetted_all_the_same(open_wired: MakeClient) -> None:
    """faults 66: taken together with it, two Hosts, a length twice or bytes that are no head are refused as ever."""
    client = open_wired()
    plain = request_bytes("PUT", b"/v1/kv/a", [], b"v")
    for behind in (
        b"GET /v1/kv/a HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"PUT /v1/kv/a HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nw",
        b"PUT /v1/kv/a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"\n\nGET /v1/kv/a HTTP/1.1\r\nHost: a\r\n\r\n",
    ):
        wire = client.wire()
        wire.send(plain + behind)
        assert wire.receive(method="PUT").status in (200, 201)
        assert wire.receive().status == 400
        assert client.get("a").body == b"v"


def test_a_request_for_the_same_key_is_not_taken_for_the_plain_one_before(open_wired: MakeClient) -> None:
    client = open_wired()
    assert client.put("a", b"first").status == 201
    assert client.put("a", b"second", {"If-None-Match": "*"}).status == 412
    assert client.put("a", b"third", {"If-Match": '"1"'}).status == 200
    assert client.get("a").body == b"third"


class OneClient(asyncio.Transport):
    """The other end of a connection without a socket."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.is_read, self.is_closed = True, False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.is_closed

    def is_reading(self) -> bool:
        return self.is_read

    def pause_reading(self) -> None:
        self.is_read = False

    def resume_reading(self) -> None:
        self.is_read = True

    def close(self) -> None:
        self.is_closed = True


async def answered(service: FakeService, *turns: list[bytes]) -> OneClient:
    """Aiohttp's front, given these bytes one after the other, and after each list as many turns as it needs."""
    connection, transport = AiohttpFront(api_of(service), SETTINGS).protocol_factory(), OneClient()
    connection.connection_made(transport)
    for pieces in turns:
        for piece in pieces:
            connection.data_received(piece)
        for _ in range(20):
            await asyncio.sleep(0)
    assert transport.is_read and not transport.is_closed
    connection.connection_lost(None)
    return transport


async def test_two_that_come_before_aiohttp_has_its_turn_keep_their_bodies() -> None:
    service = FakeService()
    bodies = [b"first", b"other"]
    transport = await answered(service, [request_bytes("PUT", b"/v1/kv/a", [], body) for body in bodies])
    assert transport.written.count(b"HTTP/1.1 20") == 2
    assert service.submitted == [(encode_put(b"a", body), False) for body in bodies]


@pytest.mark.parametrize("size_bytes", [1, 60_000, 70_000, 130_000, 270_000, 1_000_000])
async def test_a_body_of_any_size_that_was_taken_at_a_glance_leaves_the_connection_as_it_was(size_bytes: int) -> None:
    put = request_bytes("PUT", b"/v1/kv/a", [], b"x" * size_bytes)
    transport = await answered(FakeService(), [put], [request_bytes("GET", b"/v1/kv/a", [], None)], [put], [put])
    assert transport.written.count(b"HTTP/1.1 20") == 4
