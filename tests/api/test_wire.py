"""What happens on a connection: deadlines, limits, broken bytes, 100 Continue, the end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from raftkv.api.settings import ApiSettings
from raftkv.outcomes import Refused, Why
from tests.api.fronts import PATIENCE_SECONDS, AiohttpClient, MakeClient, Wire, request_bytes
from tests.api.service import FOLLOWS, LEADS

MIB = 1024 * 1024
GET = request_bytes("GET", b"/v1/kv/a", [], None)


def wait_until(condition: Callable[[], bool], thread_of: AiohttpClient) -> None:
    """Looks between exchanges until it holds; fails after a while."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not thread_of.thread.call(condition):
        assert time.monotonic() < deadline, "the condition never held"


def put_head(*headers: str, length: int | None = None) -> bytes:
    lines = [*headers, *([] if length is None else [f"Content-Length: {length}"])]
    return ("PUT /v1/kv/a HTTP/1.1\r\nHost: n1.test\r\n" + "".join(f"{line}\r\n" for line in lines) + "\r\n").encode()


class TestContinue:
    def test_a_wanted_body_is_asked_for(self, wired: AiohttpClient) -> None:
        wire = wired.wire()
        wire.send(put_head("Expect: 100-continue", length=5))
        assert wire.receive().status == 100
        wire.send(b"value")
        assert wire.receive().status == 201
        wire.send(GET)
        assert wire.receive().body == b"value"

    def test_a_redirect_comes_instead(self, wired: AiohttpClient) -> None:
        wired.service.led = FOLLOWS
        wire = wired.wire()
        wire.send(put_head("Expect: 100-Continue", length=5))
        answer = wire.receive()
        assert (answer.status, answer["Connection"]) == (307, "close")
        assert wire.ended()

    @pytest.mark.parametrize(
        ("header", "status"), [("If-Match: nonsense", 400), ("Content-Encoding: gzip", 415), ("X: y", 413)]
    )
    def test_a_refusal_comes_instead(self, wired: AiohttpClient, header: str, status: int) -> None:
        wire = wired.wire()
        wire.send(put_head("Expect: 100-continue", header, length=2 * MIB))
        assert wire.receive().status == status

    def test_an_empty_body_is_not_asked_for(self, wired: AiohttpClient) -> None:
        wire = wired.wire()
        wire.send(put_head("Expect: 100-continue", length=0))
        assert wire.receive().status == 201

    def test_nobody_is_told_unasked(self, wired: AiohttpClient) -> None:
        wire = wired.wire()
        wire.send(put_head(length=5))
        wire.send(b"value")
        assert wire.receive().status == 201


class TestBodies:
    def test_chunks_are_joined(self, wired: AiohttpClient) -> None:
        wire = wired.wire()
        wire.send(put_head("Transfer-Encoding: chunked") + b"3\r\nval\r\n2\r\nue\r\n0\r\n\r\n" + GET)
        assert (wire.receive().status, wire.receive().body) == (201, b"value")

    @pytest.mark.parametrize("space", [" ", "\t", " \t "])
    def test_white_space_around_what_a_field_says_is_none_of_it(self, wired: AiohttpClient, space: str) -> None:
        """faults 66: RFC 9110 §5.5; else what one front takes the other refuses."""
        wire = wired.wire()
        length, condition = f"Content-Length:{space}5{space}", f"If-None-Match:{space}*{space}"
        wire.send(put_head(length, condition, f"Content-Encoding:{space}identity{space}") + b"value")
        assert wire.receive().status == 201
        wire.send(put_head(length, condition) + b"other")
        assert wire.receive().status == 412

    def test_chunks_are_counted(self, wired: AiohttpClient) -> None:
        """faults 60: 413 as soon as it is too much, long before the end."""
        wire = wired.wire()
        wire.send(put_head("Transfer-Encoding: chunked") + b"%x\r\n" % (200 * MIB) + b"x" * (MIB + 1))
        answer = wire.receive()
        assert (answer.status, answer["Connection"]) == (413, "close")
        assert wired.service.submitted == []

    def test_an_announced_length_is_refused_before_the_body(self, wired: AiohttpClient) -> None:
        """faults 60: a 100 MB value is refused with 413 before a byte of it is read."""
        wire = wired.wire()
        wire.send(put_head(length=100 * MIB))
        answer = wire.receive()
        assert (answer.status, answer.code, answer["Connection"]) == (413, "too_large", "close")

    def test_a_client_that_sends_first_sees_the_refusal(self, wired: AiohttpClient) -> None:
        """8 MiB of a refused body are read on: the answer is not lost in a reset."""
        wire = wired.wire()
        wire.send(put_head(length=7 * MIB) + b"x" * (7 * MIB))
        assert wire.receive().status == 413
        wire.send(GET)
        assert wire.receive().status == 404

    def test_a_refused_body_is_read_on_for_a_while_only(self, open_wired: MakeClient) -> None:
        """faults 63: whoever announces a body and sends none is cut off."""
        client = open_wired(ApiSettings(discard_timeout_ms=30))
        wire = client.wire()
        wire.send(put_head("If-Match: nonsense", length=MIB))
        assert wire.receive().status == 400
        assert wire.ended()
        wait_until(lambda: client.connections_count == 0, client)

    def test_a_refused_body_is_read_on_for_so_much_only(self, open_wired: MakeClient) -> None:
        client = open_wired(ApiSettings(discard_bytes_max=1, discard_timeout_ms=60_000))
        wire = client.wire()
        wire.send(put_head("If-Match: nonsense", length=MIB) + b"xx")
        assert wire.receive()["Connection"] == "close"
        assert wire.ended()
        wait_until(lambda: client.connections_count == 0, client)

    def test_a_body_that_was_there_already_costs_no_connection(self, wired: AiohttpClient) -> None:
        wired.service.led = FOLLOWS
        wire = wired.wire()
        for _ in range(3):
            wire.send(put_head(length=5) + b"value")
            answer = wire.receive()
            assert answer.status == 307 and "Connection" not in answer

    def test_a_slow_body_is_cut_off(self, open_wired: MakeClient) -> None:
        """faults 63: slow senders end at a deadline, and nothing of theirs is stored."""
        client = open_wired(ApiSettings(body_timeout_ms=30, discard_timeout_ms=30))
        wire = client.wire()
        wire.send(put_head(length=5) + b"valu")
        answer = wire.receive()
        assert (answer.status, answer.code) == (408, "request_timeout")
        assert wire.ended()
        assert client.service.submitted == []

    @pytest.mark.parametrize("how", ["close", "reset", "end_sending"])
    def test_a_body_that_breaks_off_is_not_stored(self, wired: AiohttpClient, how: str) -> None:
        """faults 63: half-open connections and resets in mid-body; service goes on."""
        wire = wired.wire()
        wire.send(put_head(length=5) + b"valu")
        wait_until(lambda: wired.front.room.taken_bytes == 5, wired)
        getattr(wire, how)()
        wait_until(lambda: wired.connections_count == 0 and wired.front.room.taken_bytes == 0, wired)
        assert wired.service.submitted == []
        assert wired.get("a").status == 404

    @pytest.mark.parametrize(
        "chunks", [b"zz\r\n", b"3\r\nabcd\r\n", b"-1\r\n", b"3\nabc", b"\r\n", b"f" * 17 + b"\r\n", b"1;x=y\r\nz\r\n"]
    )
    def test_broken_chunks_are_refused_at_once(self, wired: AiohttpClient, chunks: bytes) -> None:
        """faults 66: and not only when the deadline of the body has come."""
        wire = wired.wire()
        wire.send(put_head("Transfer-Encoding: chunked") + b"2\r\nok\r\n")
        wire.send(chunks + GET)
        answer = wire.receive()
        assert (answer.status, answer.code, answer["Connection"]) == (400, "bad_request", "close")
        assert wire.ended()
        assert wired.service.submitted == []

    def test_bodies_in_flight_are_bounded(self, open_wired: MakeClient) -> None:
        """faults 65: 429 before another body is read, and room again once one is done."""
        client = open_wired(ApiSettings(bodies_bytes_max=MIB, transaction_body_bytes_max=MIB))
        first, second = client.wire(), client.wire()
        first.send(put_head(length=MIB - 10) + b"x")
        wait_until(lambda: client.front.room.taken_bytes == MIB - 10, client)
        second.send(put_head(length=11) + b"x")
        assert second.receive().code == "overloaded"
        second.send(b"x" * 10)
        first.send(b"x" * (MIB - 11))
        assert first.receive().status == 201
        second.send(put_head(length=11) + b"x" * 11)
        assert second.receive().status == 200

    def test_a_packed_body_is_not_unpacked(self, wired: AiohttpClient) -> None:
        """faults 67: 415, whatever aiohttp would do with it."""
        assert wired.put("a", b"\x1f\x8b" + b"x" * 20, {"Content-Encoding": "gzip"}).status == 415


NOT_HTTP = [
    b"\r\n\r\nnonsense\r\n\r\n",
    b"GET\r\n\r\n",
    b"GET /v1/kv/a\r\n\r\n",
    b"GET /v1/kv/a HTTP/1.1\r\n\r\n",
    b"GET /v1/kv/a HTTP/9.9\r\nHost: x\r\n\r\n",
    b"GET /v1/kv/a HTTP/2.0\r\nHost: x\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"GET /v1/kv/\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /v1/kv/a\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /v1/kv/a\tb HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /v1/kv/a b HTTP/1.1\r\nHost: x\r\n\r\n",
    b"CONNECT n1.test:80 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET http://[ HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET http://n1.test:99999/v1/kv/a HTTP/1.1\r\nHost: x\r\n\r\n",
    b"PUT /v1/kv/a HTTP/1.1\nHost: x\n\n",
    b"PUT /v1/kv/a HTTP/1.1\r\nHost: x\nContent-Length: 0\r\n\r\n",
    b"PUT /v1/kv/a HTTP/1.1\r\nHost : x\r\n\r\n",
    b"PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n",
    b"PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nX: \x00\r\n\r\n",
    b"PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    b"PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
    b"PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1, 1\r\n\r\nx",
    b"PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
    b"PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    b"PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n",
    b"PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n",
    b"PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    b"PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    b"PUT /v1/kv/a HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
]


@pytest.mark.parametrize("raw", NOT_HTTP, ids=range(len(NOT_HTTP)))
def test_what_is_no_http_is_refused_in_our_words(
    wired: AiohttpClient, raw: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """faults 66: refused, the connection ends, nothing behind it is served, and the log stays quiet."""
    wire = wired.wire()
    wire.send(raw + request_bytes("PUT", b"/v1/kv/smuggled", [], b"v"))
    answer = wire.receive()
    assert (answer.status, answer.code) == (400, "bad_request")
    assert (answer["Cache-Control"], answer["Raftkv-Node"], answer["Connection"]) == ("no-store", "n1", "close")
    assert wire.ended()
    assert wired.service.submitted == []
    assert caplog.records == []


def test_a_client_that_sends_on_after_nonsense_sees_why_it_is_refused(wired: AiohttpClient) -> None:
    """What still comes is read and thrown away: a reset would overtake the answer."""
    wire = wired.wire()
    wire.send(b"GET / HTTP/9.9\r\n\r\n" + b"x" * (5 * MIB))
    assert wire.receive().status == 400


def test_nonsense_without_end_is_cut_off(open_wired: MakeClient) -> None:
    """faults 63: by its size, however long it might go on."""
    client = open_wired(ApiSettings(discard_bytes_max=1_000, discard_timeout_ms=60_000))
    wire = client.wire()
    wire.send(b"GET / HTTP/9.9\r\n\r\n")
    assert wire.receive().status == 400
    wire.try_to_send(b"x" * 1_001)
    wait_until(lambda: client.connections_count == 0, client)


class TestHeads:
    def test_a_slow_head_is_cut_off(self, open_wired: MakeClient) -> None:
        """faults 63: from its first byte on a head has a deadline."""
        wire = open_wired(ApiSettings(head_timeout_ms=30)).wire()
        wire.send(b"GET /v1/kv/a HTTP/1.1\r\nHos")
        answer = wire.receive()
        assert (answer.status, answer.code, answer["Connection"]) == (408, "request_timeout", "close")
        assert wire.ended()

    def test_a_head_that_drips_has_the_same_deadline(self, open_wired: MakeClient) -> None:
        client = open_wired(ApiSettings(head_timeout_ms=50, discard_timeout_ms=30))
        wire = client.wire()
        deadline = time.monotonic() + PATIENCE_SECONDS
        wire.send(b"GET /v1/kv/a HTTP/1.1\r\nX: ")
        dripped = True
        while dripped:
            assert time.monotonic() < deadline, "the head was never cut off"
            client.thread.call(lambda: None)
            dripped = wire.try_to_send(b"x")

    def test_a_head_without_end_is_cut_off(self, wired: AiohttpClient) -> None:
        """faults 63: headers without end are refused after 32 KiB, however short each of them is."""
        wire = wired.wire()
        wire.send(b"GET /v1/kv/a HTTP/1.1\r\n" + b"X: y\r\n" * 20_000)
        answer = wire.receive()
        assert (answer.status, answer.code) == (431, "head_too_large")
        assert wire.ended()

    def test_a_long_line_is_cut_off(self, wired: AiohttpClient) -> None:
        for raw, code in (
            (b"GET /" + b"x" * 200_000, "uri_too_long"),
            (b"GET / HTTP/1.1\r\nX: " + b"y" * 200_000, "head_too_large"),
            (b"GET / HTTP/1.1\r\n" + b"x" * 200_000, "head_too_large"),
        ):
            wire = wired.wire()
            wire.send(raw)
            assert wire.receive().code == code
            assert wire.ended()

    def test_a_request_may_come_byte_by_byte(self, wired: AiohttpClient) -> None:
        wire = wired.wire()
        for byte in put_head(length=5) + b"value" + GET:
            wire.send(bytes([byte]))
        assert (wire.receive().status, wire.receive().body) == (201, b"value")

    def test_an_idle_connection_is_closed(self, open_wired: MakeClient) -> None:
        client = open_wired(ApiSettings(keep_alive_timeout_ms=30))
        fresh, used = client.wire(), client.wire()
        used.send(GET)
        used.receive()
        assert fresh.ended() and used.ended()

    def test_pipelined_requests_are_answered_in_order(self, wired: AiohttpClient) -> None:
        """faults 63: doubled requests, each answered, each executed once."""
        wire = wired.wire()
        wire.send(b"".join(request_bytes("PUT", b"/v1/kv/k%d" % n, [], b"v%d" % n) for n in range(100)))
        assert [wire.receive().json["revision"] for _ in range(100)] == list(range(1, 101))

    def test_large_pipelined_bodies_are_no_endless_head(self, wired: AiohttpClient) -> None:
        value = b"x" * 300_000
        wire = wired.wire()
        wire.send(request_bytes("PUT", b"/v1/kv/a", [], value) * 3 + GET)
        assert [wire.receive().status for _ in range(3)] == [201, 200, 200]
        assert wire.receive().body == value


class TestConnections:
    @pytest.mark.parametrize(
        ("version", "headers", "connection"),
        [
            (b"1.0", b"", "close"),
            (b"1.0", b"Connection: keep-alive\r\n", "keep-alive"),
            (b"1.1", b"Connection: close\r\n", "close"),
            (b"1.1", b"", None),
        ],
    )
    def test_a_connection_ends_when_the_client_wants_it(
        self, wired: AiohttpClient, version: bytes, headers: bytes, connection: str | None
    ) -> None:
        wire = wired.wire()
        wire.send(b"GET /v1/kv/a HTTP/%s\r\nHost: x\r\n%s\r\n" % (version, headers))
        answer = wire.receive()
        assert dict(answer.headers).get("Connection") == connection
        if connection == "close":
            assert wire.ended()
        else:
            wire.send(GET)
            assert wire.receive().status == 404

    def test_a_client_that_sends_no_more_still_gets_its_answers(self, wired: AiohttpClient) -> None:
        """faults 63: half-open connections, as ``nc`` makes them."""
        wire = wired.wire()
        wire.send(request_bytes("PUT", b"/v1/kv/a", [], b"value") + GET)
        wire.end_sending()
        assert (wire.receive().status, wire.receive().body) == (201, b"value")
        assert wire.ended()

    def test_an_upgrade_is_declined_by_answering(self, wired: AiohttpClient) -> None:
        wire = wired.wire()
        wire.send(request_bytes("GET", b"/v1/kv/a", [("Upgrade", "websocket"), ("Connection", "Upgrade")], None) + GET)
        assert [wire.receive().status, wire.receive().status] == [404, 404]

    def test_a_client_that_does_not_read_is_cut_off(self, open_wired: MakeClient) -> None:
        """faults 63, 65: answers that nobody takes are not heaped up."""
        client = open_wired(ApiSettings(send_timeout_ms=30))
        client.put("a", b"x" * MIB)
        wire = client.wire()
        wait_until(lambda: client.connections_count == 2, client)
        wire.send(GET * 32)
        wait_until(lambda: client.connections_count == 1, client)

    def test_an_answer_to_a_client_that_went_away_is_dropped(
        self, wired: AiohttpClient, caplog: pytest.LogCaptureFixture
    ) -> None:
        """faults 47: the write happened; nobody hears of it here."""
        wired.service.holds = True
        wire = wired.wire()
        wire.send(put_head(length=5) + b"value")
        wait_until(lambda: len(wired.service.held) == 1, wired)
        wire.reset()
        wait_until(wired.is_gone, wired)
        wired.thread.call(wired.service.held[0])
        wait_until(lambda: wired.connections_count == 0, wired)
        assert wired.stored(b"a") == b"value"
        assert caplog.records == []

    def test_a_connection_is_taken_over_with_what_was_read_of_it(self, wired: AiohttpClient) -> None:
        """As a front door hands it over: at a request boundary, with the bytes that it has not looked at."""

        class Door(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                self.transport = transport

            def data_received(self, data: bytes) -> None:
                protocol = wired.front.protocol_factory()
                assert isinstance(self.transport, asyncio.Transport)
                self.transport.set_protocol(protocol)
                protocol.connection_made(self.transport)
                protocol.data_received(data)

        async def listen() -> asyncio.Server:
            return await asyncio.get_running_loop().create_server(Door, "127.0.0.1", 0)

        listener = wired.thread.run(listen())
        wire = Wire(listener.sockets[0].getsockname()[1])
        wire.send(put_head(length=5) + b"val")
        wire.send(b"ue" + GET)
        assert (wire.receive().status, wire.receive().body) == (201, b"value")
        wire.close()
        wired.thread.call(listener.close)


class Pipe(asyncio.Transport):
    """A transport that keeps what is written, and whose other side may be gone."""

    def __init__(self, *, was_reset: bool) -> None:
        super().__init__()
        self.written = b""
        self._was_reset = was_reset
        self.closed = asyncio.Event()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        if self._was_reset:
            raise OSError("the endpoint is not connected")

    def is_closing(self) -> bool:
        return self.closed.is_set()

    def close(self) -> None:
        self.closed.set()


async def told_in_turns(
    client: AiohttpClient, pipe: Pipe, parts: list[bytes], turns: int, *, then_ends: bool = False
) -> None:
    """Tells a connection these parts, so many turns of the loop apart, perhaps the end, and waits for it to close."""
    protocol = client.front.protocol_factory()
    protocol.connection_made(pipe)
    for part in parts:
        protocol.data_received(part)
        for _ in range(turns):
            await asyncio.sleep(0)
    if then_ends and not protocol.eof_received():
        pipe.close()
    async with asyncio.timeout(PATIENCE_SECONDS):
        await pipe.closed.wait()
    protocol.connection_lost(None)


@pytest.mark.parametrize("turns", range(8))
def test_a_body_may_break_at_any_turn_of_the_loop(wired: AiohttpClient, turns: int) -> None:
    """faults 63: also while aiohttp is just taking the request up, and nobody waits for the body yet."""
    pipe = Pipe(was_reset=False)
    parts = [put_head("Transfer-Encoding: chunked") + b"2\r\nok\r\n", b"zz\r\n"]
    wired.thread.run(told_in_turns(wired, pipe, parts, turns))
    assert pipe.written.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("turns", range(16))
def test_a_body_behind_a_request_to_upgrade_may_break_at_any_turn_of_the_loop(wired: AiohttpClient, turns: int) -> None:
    """faults 63: what follows such a request is held back until it is declined; the end may come before or after."""
    pipe = Pipe(was_reset=False)
    upgrade = b"GET /metrics HTTP/1.1\r\nHost: n1.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
    wired.thread.run(told_in_turns(wired, pipe, [upgrade + put_head(length=5) + b"val"], turns, then_ends=True))
    assert pipe.written.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("turns", range(24))
def test_the_end_may_be_heard_at_any_turn_of_the_loop(wired: AiohttpClient, turns: int) -> None:
    """faults 63: also between the last answer and the wait for another request."""
    pipe = Pipe(was_reset=False)
    parts = [GET + put_head("Expect: 100-continue", length=5) + b"value"]
    wired.thread.run(told_in_turns(wired, pipe, parts, turns, then_ends=True))
    assert b"HTTP/1.1 201 " in pipe.written


def test_a_client_that_resets_under_its_answer_is_no_fault(
    wired: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    """faults 63: the socket may be gone between the answer and its end."""
    pipe = Pipe(was_reset=True)
    wired.thread.run(told_in_turns(wired, pipe, [put_head("Connection: close", length=5) + b"value"], 1))
    assert pipe.written.startswith(b"HTTP/1.1 201 ")
    assert caplog.records == []


class TestStop:
    def test_what_is_in_flight_is_answered_and_what_comes_is_refused(self, wired: AiohttpClient) -> None:
        wired.service.holds = True
        waiting, other, idle = wired.wire(), wired.wire(), wired.wire()
        for wire in (other, idle):
            wire.send(GET)
            wire.receive()
        waiting.send(put_head(length=5) + b"value")
        wait_until(lambda: len(wired.service.held) == 1, wired)
        stopped = asyncio.run_coroutine_threadsafe(wired.stop(PATIENCE_SECONDS), wired.thread.loop)
        wait_until(lambda: wired.front.stopping, wired)
        other.send(put_head(length=5) + b"other")
        answer = other.receive()
        assert (answer.status, answer.code, answer["Connection"]) == (503, "shutting_down", "close")
        assert not stopped.done()
        wired.thread.call(wired.service.held[0])
        answer = waiting.receive()
        assert (answer.status, answer["Connection"]) == (201, "close")
        stopped.result(PATIENCE_SECONDS)
        assert waiting.ended() and other.ended() and idle.ended()
        assert len(wired.service.submitted) == 1

    def test_where_all_is_answered_nothing_is_waited_for(self, wired: AiohttpClient) -> None:
        """Also where requests looked plain and had to go the general way."""
        wire = wired.wire()
        for _ in range(2):
            wire.send(request_bytes("GET", b"/v1/kv/a", [], b"a body that it may not have"))
            wire.receive()
        began_s = time.monotonic()
        wired.thread.run(wired.stop(grace_seconds=PATIENCE_SECONDS))
        assert time.monotonic() - began_s < PATIENCE_SECONDS

    def test_grace_has_an_end(self, wired: AiohttpClient) -> None:
        """faults 69: a write that still waits then gets no answer, which says "unknown"."""
        wired.service.holds = True
        wire = wired.wire()
        wire.send(put_head(length=5) + b"value")
        wait_until(lambda: len(wired.service.held) == 1, wired)
        wired.thread.run(wired.stop(grace_seconds=0.02))
        assert wire.ended()
        wired.thread.call(wired.service.held[0])  # too late, and harmless

    def test_the_replicas_own_refusal_is_told_as_well(self, wired: AiohttpClient) -> None:
        wired.service.forced_writes.append(Refused(Why.SHUTTING_DOWN, LEADS))
        assert wired.put("a").code == "shutting_down"
