"""What is the stream's own: messages, their bounds, who may open one, how it ends. What is asked on it: elsewhere."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import msgpack
import pytest
from aiohttp import WSMsgType
from hypothesis import given
from hypothesis import strategies as st

from raftkv.api.aiohttp_stream import UNSENT_BYTES_MAX
from raftkv.api.settings import ApiSettings
from raftkv.api.stream import LOAD_MAX, RANGE_LOAD, READ_LOAD, CloseCode, Stream, StreamBroken, decode
from tests.api.conftest import SETTINGS, api_of
from tests.api.fronts import PATIENCE_SECONDS, AiohttpClient, MakeClient, StreamClient, stream_message
from tests.api.service import FakeService
from tests.api.streams import BINARY, CLOSE, CONTINUATION, PING, PONG, BareStream, Talk, frame, get, put, until

OpenStream = Callable[..., StreamClient]
OpenBare = Callable[..., BareStream]
GET = get(1)
SMALL = ApiSettings(max_value_bytes=1024, structured_body_bytes_max=1024, transaction_body_bytes_max=1024)


@pytest.fixture
def open_bare(open_aiohttp: MakeClient) -> Iterator[OpenBare]:
    """A stream over a bare socket, to a node of its own unless one is named."""
    opened: list[BareStream] = []

    def make(settings: ApiSettings = SETTINGS, client: AiohttpClient | None = None) -> BareStream:
        opened.append(BareStream((client or open_aiohttp(settings)).port))
        return opened[-1].opened()

    yield make
    for bare in opened:
        bare.close()


@pytest.fixture
def talk(open_stream: OpenStream) -> Talk:
    return Talk(open_stream())


# ---------------------------------------------------------------------------------------------- pipelining


def test_answers_come_as_they_are_ready_under_their_requests_ids(talk: Talk) -> None:
    talk.hold()
    talk.send(put(7), put(3), put(5))
    talk.until_held(3)
    for at, id in ((1, 3), (1, 5), (0, 7)):
        talk.let_go(at)
        answered, status, headers, _ = talk.receive()
        assert (answered, status) == (id, 201 if id == 7 else 200)
        assert headers["ETag"] == f'"{(7, 3, 5).index(id) + 1}"'


def test_an_id_may_be_used_again_once_it_is_answered(talk: Talk) -> None:
    for _ in range(3):
        talk.send(GET)
        assert talk.receive()[:2] == [1, 404]


@pytest.mark.parametrize("id", [0, 127, 2**31, 2**63 - 1])
def test_ids_are_the_clients_to_choose(talk: Talk, id: int) -> None:
    talk.send(put(id))
    assert talk.receive()[:2] == [id, 201]


def test_a_target_is_text_or_bytes(talk: Talk) -> None:
    talk.send(msgpack.packb([1, "PUT", "/v1/kv/%ff", {}, b"v"]), msgpack.packb([2, "GET", b"/v1/kv/%FF", {}, None]))
    assert talk.receive()[:2] == [1, 201]
    assert talk.receive()[1:] == [200, {**_READ_HEADERS}, b"v"]


_READ_HEADERS = {
    "ETag": '"1"',
    "Raftkv-Create-Revision": "1",
    "Raftkv-Version": "1",
    "Raftkv-Applied-Index": "1",
    "Raftkv-Consistency": "linearizable",
    "Content-Type": "application/octet-stream",
}


def test_a_message_in_fragments_is_one_message(open_bare: OpenBare) -> None:
    wire = open_bare()
    message = put(1, value=b"x" * 300)
    begins, goes_on = BINARY & 0x7F, CONTINUATION & 0x7F
    wire.send(frame(begins, message[:10]) + frame(goes_on, message[10:200]) + frame(PING, b"ping"))
    wire.send(frame(CONTINUATION, message[200:]))
    assert wire.receive_frame() == (PONG, b"ping"), "a ping between fragments is answered"
    first, answer = wire.receive_frame()
    assert (first, msgpack.unpackb(answer)[:2]) == (BINARY, [1, 201])


# ------------------------------------------------------------------------------- what is answered 4xx, what ends


@pytest.mark.parametrize(
    ("method", "target", "headers", "status"),
    [
        ("GET", b"/v1/status", [], 404),
        ("POST", b"/v1/admin/leader", [], 404),
        ("GET", b"/v1/stream", [], 404),
        ("GET", b"/v1/kvs", [], 404),
        ("GET", b"/metrics", [], 404),
        ("get", b"/v1/kv/a", [], 400),
        ("", b"/v1/kv/a", [], 400),
        ("G\nET", b"/v1/kv/a", [], 400),
        ("PATCH", b"/v1/kv/a", [], 405),
        ("GET", b"/v1/kv/a b", [], 400),
        ("GET", b"/v1/kv/a\r\nX: y", [], 400),
        ("GET", b"/v1/kv/\xff", [], 400),
        ("GET", b"/v1/kv/a#b", [], 400),
        ("GET", b"/v1/kv/" + b"a" * 30_000, [], 414),
        ("GET", b"/v1/kv/a", [("Content-Length", "0")], 400),
        ("PUT", b"/v1/kv/a", [("content-length", "5")], 400),
        ("PUT", b"/v1/kv/a", [("Transfer-Encoding", "chunked")], 400),
        ("GET", b"/v1/kv/a", [("If-None-Match ", '"1"')], 400),
        ("GET", b"/v1/kv/a", [("", "x")], 400),
        ("GET", b"/v1/kv/a", [("X", "a\r\nIf-None-Match: *")], 400),
        ("GET", b"/v1/kv/a", [("X", "\u0100")], 400),
        ("GET", b"/v1/kv/a", [("X", "x" * 40_000)], 431),
        ("PUT", b"/v1/kv/a", [("If-Match", '"1"'), ("if-match", '"2"')], 400),
        ("PUT", b"/v1/kv/a", [("Content-Encoding", "gzip")], 415),
    ],
)
def test_a_request_that_is_none_is_answered_and_the_stream_goes_on(
    talk: Talk, method: str, target: bytes, headers: list[tuple[str, str]], status: int
) -> None:
    body = b"value" if method == "PUT" else None
    talk.send(stream_message(1, method, target, headers, body), put(2))
    assert talk.receive()[:2] == [1, status]
    assert talk.receive()[:2] == [2, 201]
    assert len(talk.service.submitted) == 1


def test_white_space_around_a_value_is_none_of_it(talk: Talk) -> None:
    talk.send(stream_message(1, "PUT", b"/v1/kv/a", [("If-None-Match", " *\t")], b"v"))
    assert talk.receive()[:2] == [1, 201]


def _any(*values: Any) -> tuple[Any, ...]:
    return values


DEEP = b"\x91" * 2000
NOT_A_REQUEST = [
    *(
        b"",
        b"\xc1",
        b"\x95\x01",
        GET[:-1],
        GET + b"\0",
        GET * 2,
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        DEEP,
    ),
    *(msgpack.packb(whole) for whole in _any(1, None, {}, [], [1], [1, "GET", "/", {}], [1, "GET", "/", {}, None, 1])),
    *(msgpack.packb([id, "GET", "/v1/kv/a", {}, None]) for id in (-1, 2**63, 1.0, "1", None, True, [1])),
    *(msgpack.packb([1, method, "/v1/kv/a", {}, None]) for method in (b"GET", None, 1)),
    *(msgpack.packb([1, "GET", target, {}, None]) for target in (None, 1, ["/"])),
    *(
        msgpack.packb([1, "GET", "/", headers, None])
        for headers in _any(None, [], "x", {"a": 1}, {"a": b"b"}, {b"a": "b"})
    ),
    *(msgpack.packb([1, "GET", "/", headers, None]) for headers in ({1: "a"}, {"a": {"b": "c"}}, {"a": ["b"]})),
    *(msgpack.packb([1, "PUT", "/v1/kv/a", {}, body]) for body in ("text", 1, [b"x"], msgpack.ExtType(1, b"x"))),
    msgpack.packb([1, "GET", "/", {str(i): "x" for i in range(1_001)}, None]),
    b"\x95\x01\xa3GET\xa1/\x80\xd6\xff\0\0\0\0",
    b"\x95\x01\xa3\xff\xff\xff\xa1/\x80\xc0",
]


@pytest.mark.parametrize("message", NOT_A_REQUEST, ids=range(len(NOT_A_REQUEST)))
def test_a_message_that_is_no_request_is_none(message: bytes) -> None:
    """faults 64, 57: nothing that is claimed is allocated."""
    with pytest.raises(StreamBroken) as broken:
        decode(message)
    assert broken.value.code is CloseCode.INVALID_MESSAGE
    assert len(broken.value.why.encode()) <= 123, "a close frame holds no more"


@given(st.binary(max_size=200))
def test_no_bytes_upset_the_decoder(message: bytes) -> None:
    try:
        asked = decode(message)
    except StreamBroken:
        return
    assert decode(stream_message(asked.id, asked.method, asked.target, list(asked.headers), asked.body)) == asked


@pytest.mark.parametrize(
    ("messages", "code"),
    [([b"\xc0"], 1007), (["text"], 1003), ([put(1), put(1)], 1008)],
    ids=["no array", "text", "an id in use"],
)
def test_what_makes_no_sense_ends_the_stream_once_the_rest_is_answered(
    talk: Talk, messages: list[bytes | str], code: int
) -> None:
    talk.hold()
    talk.send(put(9, "other"), *messages, put(10, "never"))
    talk.until_held(2 if code == 1008 else 1)
    while talk.service.held:
        talk.let_go()
    answered = [talk.receive()[0] for _ in range(len(talk.service.submitted))]
    assert answered == ([9, 1] if code == 1008 else [9])
    assert talk.end()[0] == code
    assert talk.client.stored(b"never") is None


def test_the_largest_value_is_taken_and_a_larger_one_answered_413(open_stream: OpenStream) -> None:
    talk = Talk(open_stream())
    size = SETTINGS.max_value_bytes
    talk.send(put(1, value=b"x" * size), put(2, value=b"x" * (size + 1)))
    assert [talk.receive()[:2], talk.receive()[:2]] == [[1, 201], [2, 413]]


def test_a_message_too_long_for_any_request_ends_the_stream_with_1009(open_stream: OpenStream) -> None:
    """faults 60, 65: before it has been read."""
    talk = Talk(open_stream(SMALL))
    talk.hold()
    talk.send(put(1))
    talk.until_held(1)
    talk.send(put(2, value=b"x" * SMALL.stream_message_bytes_max))
    talk.let_go()
    assert talk.receive()[:2] == [1, 201], "what was taken before is answered"
    assert talk.end()[0] == 1009


# ---------------------------------------------------------------------------------------------- bounds


def test_what_waits_for_answers_is_bounded(talk: Talk) -> None:
    """faults 65: the rest is left in the kernel until something was answered."""
    talk.hold()
    talk.send(*(put(id) for id in range(LOAD_MAX + 50)))
    talk.until_held(LOAD_MAX)
    talk.client.thread.run(_turns(200))
    assert len(talk.service.held) == LOAD_MAX
    talk.let_go()
    talk.until_held(LOAD_MAX)
    talk.client.thread.call(lambda: setattr(talk.service, "holds", False))
    while talk.client.thread.call(lambda: bool(talk.service.held)):
        talk.let_go()
    assert sorted(talk.receive()[0] for _ in range(LOAD_MAX + 50)) == list(range(LOAD_MAX + 50))


async def _turns(count: int) -> None:
    """Of the event loop: whatever could happen has."""
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("method", "target", "load"),
    [("GET", b"/v1/kv/a", READ_LOAD), ("HEAD", b"/v1/kv/a", 1), ("GET", b"/v1/kv?prefix=a", RANGE_LOAD)],
)
def test_what_may_be_answered_at_length_counts_more(method: str, target: bytes, load: int) -> None:
    service, sent = FakeService(), list[bytes]()
    waiting = []
    service.read = lambda query, consistency, done, **_: waiting.append(done)  # type: ignore[method-assign]
    stream = Stream(api_of(service), sent.append)
    for id in range(LOAD_MAX // load):
        assert not stream.is_full
        stream.receive(stream_message(id, method, target, [], None))
    assert stream.is_full and len(waiting) == LOAD_MAX // load and not sent


VALUE_BYTES = 500_000


def test_a_client_that_does_not_read_is_not_buffered_without_end(open_aiohttp: MakeClient, open_bare: OpenBare) -> None:
    """faults 65: it is cut off, and until then little is read of it."""
    client = open_aiohttp(replace(SETTINGS, send_timeout_ms=300))
    wire = open_bare(client=client)
    wire.send(frame(BINARY, put(0, value=b"x" * VALUE_BYTES)))
    assert wire.try_to_send(b"".join(frame(BINARY, get(id)) for id in range(1, 1000)))
    client.thread.run(until(lambda: client.front.streams_count == 0))
    in_sockets_bytes = 32 * 1024 * 1024
    assert 0 < len(client.service.reads) * VALUE_BYTES < UNSENT_BYTES_MAX + in_sockets_bytes
    assert wire.is_cut_off()


# ------------------------------------------------------------------------------------------------- the end


def test_a_stopping_node_answers_what_it_has_taken_and_goes_away(talk: Talk) -> None:
    talk.hold()
    talk.send(put(1))
    talk.until_held(1)
    thread = talk.client.thread
    stopping = asyncio.run_coroutine_threadsafe(talk.client.front.stop(PATIENCE_SECONDS), thread.loop)
    thread.run(until(lambda: talk.client.front.stopping))
    talk.send(put(2))
    assert not stopping.done()
    talk.let_go()
    assert talk.receive()[:2] == [1, 201]
    assert talk.end() == (CloseCode.GOING_AWAY, "this node is stopping")
    stopping.result(PATIENCE_SECONDS)
    assert len(talk.service.submitted) == 1, "what came after is not taken"


def test_a_stopping_node_does_not_wait_for_ever_for_an_answer(talk: Talk) -> None:
    talk.hold()
    talk.send(put(1))
    talk.until_held(1)
    talk.client.thread.run(talk.client.front.stop(0.05))
    assert talk.client.thread.run(talk.client.socket.receive()).type in (WSMsgType.CLOSED, WSMsgType.CLOSE)


def test_a_client_that_closes_gets_its_answers_first(talk: Talk) -> None:
    talk.hold()
    talk.send(put(1))
    talk.until_held(1)

    async def close_and_read() -> list[Any]:
        await talk.client.socket._writer.close(1000, b"done")
        talk.service.held.pop()()
        answer: list[Any] = msgpack.unpackb(await talk.client.socket.receive_bytes())
        assert (await talk.client.socket.receive()).type is WSMsgType.CLOSE
        return answer

    assert talk.client.thread.run(close_and_read())[:2] == [1, 201]


@pytest.mark.parametrize("how", ["reset", "end"])
def test_a_client_that_goes_without_a_word_leaves_nothing(
    open_aiohttp: MakeClient, open_bare: OpenBare, how: str
) -> None:
    """faults 63."""
    client = open_aiohttp()
    client.service.holds = True
    wire = open_bare(client=client)
    wire.send(frame(BINARY, put(1)))
    client.thread.run(until(lambda: len(client.service.held) == 1))
    wire.reset() if how == "reset" else wire.end_sending()
    client.thread.run(until(lambda: client.front.connections_count == 0))
    client.thread.call(client.service.held.pop())
    client.thread.run(until(lambda: client.front.streams_count == 0))


def test_a_client_that_says_nothing_is_pinged_and_cut_off(open_bare: OpenBare) -> None:
    """faults 63: half-open connections do not stay."""
    wire = open_bare(replace(SETTINGS, keep_alive_timeout_ms=300))
    assert wire.receive_frame().first == PING
    assert wire.is_cut_off()


def test_a_client_that_is_cut_off_with_answers_unsent_leaves_no_connection(
    open_aiohttp: MakeClient, open_bare: OpenBare
) -> None:
    """faults 63: a machine that is gone takes nothing and acknowledges nothing; its answers are not kept for it."""
    client = open_aiohttp(replace(SETTINGS, keep_alive_timeout_ms=500))
    wire = open_bare(client=client)
    wire.send(frame(BINARY, put(0, value=b"x" * 30_000)))
    for count in range(1, 5_000):
        wire.send(frame(BINARY, get(count)))
        client.thread.run(until(partial(_has_read, client, count)))
        if client.thread.call(lambda: _unsent_bytes(client)) > 0:
            break
    client.thread.run(until(lambda: client.front.connections_count == 0))


def _has_read(client: AiohttpClient, count: int) -> bool:
    return len(client.service.reads) == count


def _unsent_bytes(client: AiohttpClient) -> int:
    """What the kernel has not taken of the answers on the one connection."""
    (connection,) = client.front._server.connections
    assert connection.transport is not None
    return connection.transport.get_write_buffer_size()


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        (b"\xc2\x81\0\0\0\0\xc0", 1002),
        (b"\x83\x81\0\0\0\0\xc0", 1002),
        (b"\x80\x81\0\0\0\0\xc0", 1002),
        (b"\x09\x80\0\0\0\0", 1002),
        (b"\x82\xff" + b"\xff" * 8 + b"\0" * 4, 1009),
    ],
    ids=[
        "reserved bit",
        "unknown opcode",
        "nothing to go on with",
        "cut ping",
        "huge",
    ],
)
def test_frames_that_break_the_protocol_end_the_stream(open_bare: OpenBare, broken: bytes, code: int) -> None:
    wire = open_bare()
    wire.send(broken)
    first, payload = wire.receive_frame()
    assert (first, struct.unpack("!H", payload[:2])[0]) == (CLOSE, code)
