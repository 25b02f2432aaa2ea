"""The lean front over real sockets: order, bodies, limits, deadlines, ends."""

from __future__ import annotations

import asyncio
import json
import socket
import struct

import pytest

from raftkv.http.answers import Answer
from raftkv.http.handling import Exchange, ServerSettings, Within
from raftkv.http.heads import Head
from raftkv.http.room import BodyRoom
from raftkv.http.server import ServerProtocol
from tests.http.fronts import BODY_BYTES_MAX, Fronts, chunked, post, until


async def test_pipelined_requests_are_answered_in_order(fronts: Fronts):
    port, recorder = await fronts.lean()
    wire = await fronts.wire(port)
    wire.send(b"".join(post(b"/raft/%d" % number, b"%d" % number) for number in range(300)))
    assert [(await wire.reply()).body for _ in range(300)] == [b"%d" % number for number in range(300)]
    assert recorder.targets == [b"/raft/%d" % number for number in range(300)]


async def test_many_small_requests_at_once_leave_the_loop_to_others_between_them(fronts: Fronts):
    """Each is answered at its head, as whoever is refused is; none is lost where the client sends no more."""
    port, recorder = await fronts.lean(outstanding_max=8)
    count = 2000
    asked, most = 0, 0

    def on_head(head: Head) -> Answer:
        nonlocal asked
        asked += 1
        return Answer(200, b"")

    recorder.on_head = on_head  # type: ignore[method-assign]
    wire = await fronts.wire(port)
    wire.send(post(b"/raft/echo") * count)
    wire.writer.write_eof()
    ending = asyncio.ensure_future(wire.rest())
    while not ending.done():
        before = asked
        await asyncio.sleep(0)
        most = max(most, asked - before)
    assert (await ending).count(b"HTTP/1.1 200") == count
    assert asked == count
    assert most <= 2 * 8


async def test_late_answers_leave_in_the_order_of_the_requests(fronts: Fronts):
    port, recorder = await fronts.lean()
    wire = await fronts.wire(port)
    wire.send(post(b"/raft/later") + post(b"/raft/echo", b"quick") + post(b"/raft/later"))
    await until(lambda: len(recorder.later) == 2)
    recorder.later[1].respond(Answer(201, b"third"))
    recorder.later[0].respond(Answer(200, b"first"))
    assert [(await wire.reply()).body for _ in range(3)] == [b"first", b"quick", b"third"]


async def test_requests_split_anywhere_are_read(fronts: Fronts):
    port, _ = await fronts.lean()
    wire = await fronts.wire(port)
    raw = post(b"/raft/echo", b"abc") + chunked(b"/raft/echo", b"d", b"ef") + post(b"/raft/echo")
    await wire.send_slowly([raw[at : at + 1] for at in range(len(raw))])
    assert [(await wire.reply()).body for _ in range(3)] == [b"abc", b"def", b""]


async def test_behind_a_head_in_two_pieces_senseless_bytes_are_refused_as_soon_as_before(fronts: Fronts):
    """How far the last head had been judged says nothing of the next."""
    port, _ = await fronts.lean()
    wire = await fronts.wire(port)
    raw = post(b"/raft/echo", b"abc")
    await wire.send_slowly([raw[:30], raw[30:]])
    assert (await wire.reply()).body == b"abc"
    wire.send(b"GET \x00")
    assert (await wire.reply()).status == 400


class Roomy:
    """Echoes bodies of at most ten bytes, which have one room."""

    def __init__(self) -> None:
        self.room = BodyRoom(1000)

    def on_request(self, exchange: Exchange) -> None:
        exchange.respond(Answer(200, exchange.body))

    def on_head(self, head: Head) -> Within:
        return Within(10, self.room, lambda: Answer(429, b""), lambda: Answer(413, b""))


@pytest.mark.parametrize(
    ("coding", "rest", "status"),
    [
        (b"Content-Length: 5", b"12345", 200),
        (b"Transfer-Encoding: chunked", b"5\r\n12345\r\n0\r\n\r\n", 200),
        (b"Transfer-Encoding: chunked", b"14\r\n" + bytes(20) + b"\r\n", 413),
        (b"Transfer-Encoding: chunked", b"nonsense\r\n", 400),
    ],
    ids=["whole", "whole in chunks", "too large", "senseless"],
)
async def test_the_room_of_a_body_that_comes_no_more_is_there_for_others(fronts: Fronts, coding, rest, status):
    """faults 65: whether or not the connection lives on."""
    loop, roomy = asyncio.get_running_loop(), Roomy()
    port = await fronts._serve(lambda: ServerProtocol(loop, roomy, ServerSettings(discard_timeout_s=60.0)))
    wire = await fronts.wire(port)
    wire.send(b"PUT /raft/echo HTTP/1.1\r\nHost: x\r\n" + coding + b"\r\n\r\n")
    await until(lambda: roomy.room.taken_bytes)
    wire.send(rest)
    assert (await wire.reply()).status == status
    assert roomy.room.taken_bytes == 0


async def test_requests_above_the_limit_of_outstanding_ones_wait_unread(fronts: Fronts):
    """faults 65: memory stays bounded, and everything is answered once there is room."""
    port, recorder = await fronts.lean(outstanding_max=4)
    wire = await fronts.wire(port)
    wire.send(post(b"/raft/later") * 10)
    await until(lambda: len(recorder.later) == 4)
    await wire.send_slowly([b""] * 5)
    assert len(recorder.later) == 4
    for number in range(10):
        await until(lambda: len(recorder.later) > number)  # noqa: B023  # awaited within the turn
        recorder.later[number].respond(Answer(200, b"%d" % number))
        assert (await wire.reply()).body == b"%d" % number


async def test_client_that_reads_nothing_is_not_read_either_and_is_cut_off(fronts: Fronts):
    """faults 63, 65: a stalled reader neither fills our memory nor stays for ever."""
    port, recorder = await fronts.lean(write_stall_timeout_s=0.2)
    wire = await fronts.wire(port)
    wire.stop_reading()
    for _ in range(40):
        wire.send(post(b"/raft/large-answer", b"1000000"))
    await until(lambda: recorder.closed_count)
    assert 0 < len(recorder.targets) < 40
    assert await fronts.serves(port)


async def test_large_answers_to_a_slow_reader_arrive_whole(fronts: Fronts):
    port, _ = await fronts.lean()
    wire = await fronts.wire(port)
    wire.send(post(b"/raft/large-answer", b"1000000") * 20)
    assert [len((await wire.reply()).body) for _ in range(20)] == [1_000_000] * 20


async def test_chunked_body_is_joined(fronts: Fronts):
    port, _ = await fronts.lean()
    wire = await fronts.wire(port)
    wire.send(chunked(b"/raft/echo", b"abc", b"d" * 300, b"e"))
    assert (await wire.reply()).body == b"abc" + b"d" * 300 + b"e"


async def test_body_in_many_pieces_arrives_whole(fronts: Fronts):
    port, _ = await fronts.lean()
    wire = await fronts.wire(port)
    wire.send(post(b"/raft/big", bytes(16 * 1024 * 1024)))
    assert (await wire.reply()).body == b"16777216"


async def test_body_at_its_limit_is_taken_and_one_byte_more_is_not(fronts: Fronts):
    """faults 60: refused with 413 before it is read, whether its length is told or not."""
    port, recorder = await fronts.lean()
    for body, status in ((b"a" * BODY_BYTES_MAX, 200), (b"a" * (BODY_BYTES_MAX + 1), 413)):
        for raw in (post(b"/raft/echo", body), chunked(b"/raft/echo", body[:500], body[500:])):
            wire = await fronts.wire(port)
            wire.send(raw)
            reply = await wire.reply()
            assert reply.status == status
            if status == 413:
                assert json.loads(reply.body)["code"] == "too_large"
                assert reply.fields[b"content-type"] == b"application/problem+json"
                assert await wire.ended()
    assert len(recorder.targets) == 2


async def test_refused_body_is_read_on_so_that_the_answer_is_seen(fronts: Fronts):
    port, _ = await fronts.lean()
    wire = await fronts.wire(port)
    wire.send(post(b"/raft/echo", bytes(5_000_000)))
    await wire.writer.drain()
    assert (await wire.reply()).status == 413
    assert await wire.ended()


async def test_refusal_is_seen_by_a_client_that_goes_on_sending(fronts: Fronts):
    """A close with bytes unread would reset the connection, and the answer would be lost with it."""
    port, _ = await fronts.lean()
    wire = await fronts.wire(port)
    wire.send(b"GET /raft/echo HTTP/1.1\r\nHost : x\r\n\r\n")
    for _ in range(40):
        wire.send(bytes(100_000))
        await wire.writer.drain()
    assert (await wire.reply()).status == 400
    assert await wire.ended()


async def test_refused_body_without_end_is_cut_off(fronts: Fronts):
    port, _ = await fronts.lean(discard_bytes_max=100_000, discard_timeout_s=0.2)
    wire = await fronts.wire(port)
    wire.send(b"POST /raft/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 90000\r\n\r\n")
    assert (await wire.reply()).status == 413
    assert await wire.ended()
    wire = await fronts.wire(port)
    wire.send(b"POST /raft/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    wire.send(b"10000\r\n" + bytes(0x10000) + b"\r\n")
    assert (await wire.reply()).status == 413
    wire.send((b"10000\r\n" + bytes(0x10000) + b"\r\n") * 3)
    assert await wire.rest() in (b"", b"(reset)")


async def test_answer_before_the_body_keeps_the_connection(fronts: Fronts):
    port, recorder = await fronts.lean()
    wire = await fronts.wire(port)
    wire.send(post(b"/raft/elsewhere", bytes(5000)) + post(b"/raft/echo", b"next"))
    reply = await wire.reply()
    assert (reply.status, reply.fields[b"location"]) == (307, b"/raft/echo")
    assert (await wire.reply()).body == b"next"
    assert recorder.targets == [b"/raft/echo"]


async def test_client_that_expects_it_is_told_to_continue(fronts: Fronts):
    port, _ = await fronts.lean()
    wire = await fronts.wire(port)
    wire.send(b"POST /raft/echo HTTP/1.1\r\nHost: x\r\nExpect: 100-Continue\r\nContent-Length: 3\r\n\r\n")
    assert (await wire.reply()).status == 100
    wire.send(b"abc")
    assert (await wire.reply()).body == b"abc"


async def test_continue_waits_for_the_answers_before_it(fronts: Fronts):
    port, recorder = await fronts.lean()
    wire = await fronts.wire(port)
    wire.send(post(b"/raft/later"))
    wire.send(b"POST /raft/echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
    await until(lambda: recorder.later)
    recorder.later[0].respond(Answer(200, b"first"))
    assert (await wire.reply()).body == b"first"
    assert (await wire.reply()).status == 100
    wire.send(b"abc")
    assert (await wire.reply()).body == b"abc"


async def test_client_that_expects_continue_and_may_not_is_answered_at_once(fronts: Fronts):
    port, _ = await fronts.lean(discard_timeout_s=5.0)
    for target, length, status in ((b"echo", 5000, 413), (b"elsewhere", 5, 307)):
        wire = await fronts.wire(port)
        head = b"POST /raft/%b HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
        wire.send(head % (target, length))
        reply = await wire.reply()
        assert (reply.status, reply.fields[b"connection"]) == (status, b"close")
        assert await wire.ended()


async def test_a_body_behind_a_refused_expectation_is_no_request(fronts: Fronts):
    """faults 66: its client did not wait for our word, and what it sends may look like a request."""
    port, recorder = await fronts.lean()
    wire = await fronts.wire(port)
    head = b"POST /raft/echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    wire.send(head % (BODY_BYTES_MAX + 1) + post(b"/raft/smuggled"))
    assert (await wire.reply()).status == 413
    assert await wire.ended()
    assert recorder.targets == []


async def test_connection_close_ends_it_after_the_answer_and_nothing_behind_is_done(fronts: Fronts):
    port, recorder = await fronts.lean()
    wire = await fronts.wire(port)
    wire.send(post(b"/raft/echo", b"last", b"Connection: close") + post(b"/raft/behind"))
    reply = await wire.reply()
    assert (reply.body, reply.fields[b"connection"]) == (b"last", b"close")
    assert await wire.ended()
    assert recorder.targets == [b"/raft/echo"]


async def test_http_1_0_is_served_and_closed_unless_it_asks_to_stay(fronts: Fronts):
    port, _ = await fronts.lean()
    wire = await fronts.wire(port)
    wire.send(b"GET /raft/echo HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /raft/echo HTTP/1.0\r\n\r\n")
    assert (await wire.reply()).fields[b"connection"] == b"keep-alive"
    assert (await wire.reply()).fields[b"connection"] == b"close"
    assert await wire.ended()


async def test_answer_to_head_has_the_length_and_no_body(fronts: Fronts):
    port, recorder = await fronts.lean()
    wire = await fronts.wire(port)
    wire.send(b"HEAD /raft/later HTTP/1.1\r\nHost: x\r\n\r\nGET /raft/later HTTP/1.1\r\nHost: x\r\n\r\n")
    await until(lambda: len(recorder.later) == 2)
    recorder.later[0].respond(Answer(200, b"abc"))
    recorder.later[1].respond(Answer(304, fields=b'ETag: "1"\r\n'))
    assert (await wire.reply(to_head=True)).fields[b"content-length"] == b"3"
    reply = await wire.reply()
    assert (reply.status, b"content-length" in reply.fields) == (304, False)


async def test_half_closed_client_still_gets_its_answers(fronts: Fronts):
    """faults 63."""
    port, recorder = await fronts.lean()
    wire = await fronts.wire(port)
    wire.send(post(b"/raft/later") + post(b"/raft/echo", b"x") + b"POST /raft/ec")
    wire.writer.write_eof()
    await until(lambda: recorder.later)
    recorder.later[0].respond(Answer(200, b"late"))
    assert [(await wire.reply()).body for _ in range(2)] == [b"late", b"x"]
    assert await wire.ended()


async def test_client_that_half_closes_in_a_body_is_dropped(fronts: Fronts):
    port, recorder = await fronts.lean()
    wire = await fronts.wire(port)
    wire.send(post(b"/raft/echo", b"a") + b"POST /raft/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc")
    wire.writer.write_eof()
    assert (await wire.reply()).body == b"a"
    assert await wire.ended()
    assert recorder.targets == [b"/raft/echo"]


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET /raft/ec", 408),
        (b"G", 408),
        (b"POST /raft/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc", 408),
        (b"POST /raft/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nab", 408),
        (b"", None),
    ],
)
async def test_slow_sender_is_cut_off(fronts: Fronts, raw, status):
    """faults 63: by deadlines on heads and bodies; the service goes on."""
    port, _ = await fronts.lean(head_timeout_s=0.1, body_timeout_s=0.1)
    wire = await fronts.wire(port)
    wire.send(raw)
    if status is not None:
        reply = await wire.reply()
        assert (reply.status, json.loads(reply.body)["code"]) == (status, "request_timeout")
    assert await wire.ended()
    assert await fronts.serves(port)


async def test_trickling_does_not_push_the_deadline(fronts: Fronts):
    """faults 63: a byte now and then keeps neither a head nor a body alive."""
    port, _ = await fronts.lean(head_timeout_s=0.15, body_timeout_s=0.15)
    for start in (b"GET /raft/", b"POST /raft/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n"):
        wire = await fronts.wire(port)
        wire.send(start)
        answered = asyncio.create_task(wire.reply())
        while not answered.done():
            wire.send(b"a")
            await asyncio.wait([answered], timeout=0.01)
        assert answered.result().status == 408


async def test_steady_body_is_given_the_time_that_its_size_needs(fronts: Fronts):
    port, _ = await fronts.lean(body_timeout_s=0.2, body_rate_bytes_per_s=1000.0)
    wire = await fronts.wire(port)
    wire.send(b"POST /raft/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
    clock = asyncio.get_running_loop().time
    began_s = clock()
    for _ in range(10):
        wire.send(bytes(100))
        due_s = clock() + 0.04
        await until(lambda: clock() >= due_s)  # noqa: B023  # awaited within the turn
    assert (await wire.reply()).status == 200
    assert clock() - began_s > 0.2


async def test_healthy_pipelining_is_never_too_slow(fronts: Fronts):
    """The deadline of a head runs from that head's own first byte, however the packets are cut."""
    port, _ = await fronts.lean(head_timeout_s=0.2)
    wire = await fronts.wire(port)
    raw = b"GET /raft/echo HTTP/1.1\r\nHost: x\r\n\r\n"
    clock = asyncio.get_running_loop().time
    until_s = clock() + 0.6
    wire.send(raw[:20])
    while clock() < until_s:
        wire.send(raw[20:] + raw[:20])
        assert (await wire.reply()).status == 200


async def test_idle_connection_is_closed(fronts: Fronts):
    """faults 63: half-open connections do not pile up."""
    port, _ = await fronts.lean(idle_timeout_s=0.1)
    wire = await fronts.wire(port)
    wire.send(post(b"/raft/echo", b"a"))
    assert (await wire.reply()).body == b"a"
    assert await wire.ended()


async def test_waiting_for_our_own_answer_has_no_deadline(fronts: Fronts):
    port, recorder = await fronts.lean(idle_timeout_s=0.05, head_timeout_s=0.05, body_timeout_s=0.05)
    wire = await fronts.wire(port)
    wire.send(post(b"/raft/later", b"a"))
    await until(lambda: recorder.later)
    clock = asyncio.get_running_loop().time
    due_s = clock() + 0.2
    await until(lambda: clock() > due_s)
    recorder.later[0].respond(Answer(200, b"late"))
    assert (await wire.reply()).body == b"late"


async def test_reset_in_a_body_or_before_the_answer_harms_nobody(fronts: Fronts):
    """faults 63: the exchange of a connection that is gone swallows its answer."""
    port, recorder = await fronts.lean()
    for raw in (post(b"/raft/later"), b"POST /raft/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc"):
        wire = await fronts.wire(port)
        wire.send(raw)
        await wire.send_slowly([b""] * 3)
        wire.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        wire.writer.transport.abort()
        assert await fronts.serves(port)
    await until(lambda: recorder.later)
    recorder.later[0].respond(Answer(200, b"to nobody"))
    assert await fronts.serves(port)


async def test_request_is_answered_once(fronts: Fronts):
    port, recorder = await fronts.lean()
    wire = await fronts.wire(port)
    wire.send(post(b"/raft/later"))
    await until(lambda: recorder.later)
    recorder.later[0].respond(Answer(200, b"a"))
    with pytest.raises(AssertionError):
        recorder.later[0].respond(Answer(200, b"b"))
