"""The front door: hand-over with untouched bytes, and the same strictness behind it."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest

from raftkv.http.answers import Answer
from raftkv.http.door import Door, DoorSettings
from raftkv.http.handling import Handler, ServerSettings
from tests.http.fronts import AiohttpFront, Fronts, Recorder, chunked, post, until


async def test_first_target_decides_who_serves(fronts: Fronts):
    port, _, other, door = await fronts.door()
    lean, handed = await fronts.wire(port), await fronts.wire(port)
    lean.send(post(b"/raft/echo", b"lean"))
    assert (await lean.reply()).body == b"lean"
    handed.send(post(b"/v1/x", b"aiohttp"))
    reply = await handed.reply()
    assert (reply.body, reply.fields[b"server"][:6]) == (b"aiohttp", b"Python")
    assert (door.connections_count, other.connections_count) == (2, 1)


async def test_pipelined_bytes_are_handed_over_untouched(fronts: Fronts):
    port, recorder, _, _ = await fronts.door()
    wire = await fronts.wire(port)
    wire.send(post(b"/a", b"1") + chunked(b"/b%2Fb?x", b"2", b"3") + post(b"/raft/c", b"4") + post(b"/%ff", b"5"))
    assert [(await wire.reply()).body for _ in range(4)] == [b"1", b"23", b"4", b"5"]
    assert recorder.targets == [b"/a", b"/b%2Fb?x", b"/raft/c", b"/%ff"]


@pytest.mark.parametrize("size", [1, 7, 50])
async def test_bytes_split_anywhere_are_handed_over(fronts: Fronts, size):
    port, _, _, _ = await fronts.door()
    wire = await fronts.wire(port)
    raw = post(b"/a", b"abc") + chunked(b"/b", b"d", b"ef") + post(b"/c", b"ghi")
    await wire.send_slowly([raw[at : at + size] for at in range(0, len(raw), size)])
    assert [(await wire.reply()).body for _ in range(3)] == [b"abc", b"def", b"ghi"]


async def test_hand_over_waits_until_nothing_is_outstanding(fronts: Fronts):
    port, recorder, other, _ = await fronts.door()
    wire = await fronts.wire(port)
    wire.send(post(b"/raft/later") + post(b"/v1/x", b"behind"))
    await until(lambda: recorder.later)
    assert other.connections_count == 0
    recorder.later[0].respond(Answer(200, b"first"))
    assert [(await wire.reply()).body for _ in range(2)] == [b"first", b"behind"]
    assert other.connections_count == 1


async def test_large_body_passes_the_guard_whole(fronts: Fronts):
    port, _, _, _ = await fronts.door()
    wire = await fronts.wire(port)
    body = bytes(range(256)) * 3000
    wire.send(post(b"/v1/x", body) + chunked(b"/v1/y", *[body[at : at + 5000] for at in range(0, len(body), 5000)]))
    assert (await wire.reply()).body == body
    assert (await wire.reply()).body == body


@pytest.mark.parametrize("before", [b"", post(b"/v1/x", b"abc")])
async def test_slow_head_is_cut_off_wherever_it_comes(fronts: Fronts, before):
    """faults 63: aiohttp itself has no deadline on heads."""
    port, _, _, _ = await fronts.door(head_timeout_s=0.1)
    wire = await fronts.wire(port)
    wire.send(before + b"GET /v1/x HT")
    if before:
        assert (await wire.reply()).body == b"abc"
    reply = await wire.reply()
    assert (reply.status, json.loads(reply.body)["code"]) == (408, "request_timeout")
    assert await wire.ended()


async def test_slow_body_is_cut_off(fronts: Fronts):
    """faults 63: nor on bodies."""
    port, recorder, other, _ = await fronts.door(body_timeout_s=0.1)
    wire = await fronts.wire(port)
    wire.send(b"POST /v1/x HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc")
    assert (await wire.reply()).status == 408
    assert await wire.ended()
    await until(lambda: other.connections_count == 0)
    assert recorder.targets == []


async def test_idle_connection_with_aiohttp_is_closed(fronts: Fronts):
    port, _, other, _ = await fronts.door(idle_timeout_s=0.1)
    wire = await fronts.wire(port)
    wire.send(post(b"/v1/x", b"a"))
    assert (await wire.reply()).body == b"a"
    assert await wire.ended()
    await until(lambda: other.connections_count == 0)


async def test_refusal_waits_for_the_answers_before_it(fronts: Fronts):
    port, recorder, other, _ = await fronts.door()
    wire = await fronts.wire(port)
    wire.send(post(b"/later", b"slow") + b"GET /v1/x HTTP/1.1\r\nHost : x\r\n\r\n")
    await until(lambda: recorder.targets)
    other.gate.set()
    assert (await wire.reply()).body == b"slow"
    assert (await wire.reply()).status == 400
    assert await wire.ended()


async def test_websocket_passes_once_aiohttp_has_accepted_it(fronts: Fronts):
    port, _, _, _ = await fronts.door(head_timeout_s=0.2, body_timeout_s=0.2)
    async with aiohttp.ClientSession() as session, session.ws_connect(f"http://127.0.0.1:{port}/websocket") as socket:
        for message in (b"GET / HTTP/1.1\n\n", b"\0" * 100_000):
            await socket.send_bytes(message)
            assert await socket.receive_bytes() == message


async def test_behind_a_declined_upgrade_requests_are_vetted_again(fronts: Fronts):
    """faults 66: the bytes behind it are held until it is clear what they are."""
    asking = b"GET /v1/x HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    port, recorder, _, _ = await fronts.door()
    wire = await fronts.wire(port)
    wire.send(post(b"/a", b"1") + asking + post(b"/b", b"2") + b"GET /smuggled HTTP/1.1\nHost: x\n\n")
    assert [(await wire.reply()).body for _ in range(3)] == [b"1", b"", b"2"]
    assert (await wire.reply()).status == 400
    assert await wire.ended()
    assert recorder.targets == [b"/a", b"/v1/x", b"/b"]


async def test_connections_above_the_limit_are_told_so(fronts: Fronts):
    """faults 65."""
    port, _, _, door = await fronts.door(connections_max=2, refusal_fields=b"Raftkv-Node: n1\r\n")
    first, second = await fronts.wire(port), await fronts.wire(port)
    first.send(post(b"/raft/echo", b"a"))
    second.send(post(b"/v1/x", b"b"))
    assert [(await first.reply()).body, (await second.reply()).body] == [b"a", b"b"]
    third = await fronts.wire(port)
    reply = await third.reply()
    assert (reply.status, json.loads(reply.body)["code"]) == (429, "overloaded")
    assert (reply.fields[b"raftkv-node"], reply.fields[b"retry-after"]) == (b"n1", b"1")
    assert await third.ended()
    first.close()
    await until(lambda: door.connections_count == 1)
    assert await fronts.serves(port)


async def test_the_oldest_connection_that_gives_way_makes_room(fronts: Fronts):
    """One that does not stays; where none does, the new one is refused."""
    made: list[Recorder] = []
    stay: list[Handler] = []

    def handler() -> Recorder:
        made.append(Recorder())
        return made[-1]

    loop, front = asyncio.get_running_loop(), AiohttpFront(ServerSettings(), [])
    door = Door(loop, handler, front, DoorSettings(3), gives_way=lambda handler: handler not in stay)
    server = await loop.create_server(door, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    first, second, third = [await fronts.wire(port) for _ in range(3)]
    await until(lambda: len(made) == 3)
    stay.append(made[0])
    fourth = await fronts.wire(port)
    assert await second.rest() in (b"", b"(reset)")
    for wire in (first, third, fourth):
        wire.send(post(b"/raft/echo", b"a"))
        assert (await wire.reply()).body == b"a"
    stay += made
    assert (await (await fronts.wire(port)).reply()).status == 429
    assert door.connections_count == 3
    server.close()
    await door.close(0.0)


async def test_close_lets_outstanding_requests_finish(fronts: Fronts):
    port, recorder, _, door = await fronts.door()
    busy, idle = await fronts.wire(port), await fronts.wire(port)
    idle.send(post(b"/raft/echo", b"a"))
    assert (await idle.reply()).body == b"a"
    busy.send(post(b"/raft/later") + post(b"/raft/later"))
    await until(lambda: len(recorder.later) == 2)
    closing = asyncio.create_task(door.close(5.0))
    assert await idle.ended()
    for exchange in recorder.later:
        exchange.respond(Answer(200, b"done"))
    replies = [await busy.reply() for _ in range(2)]
    assert [reply.fields.get(b"connection") for reply in replies] == [None, b"close"]
    assert await busy.ended()
    busy.close()
    await closing
    late = await (await fronts.wire(port)).reply()
    assert (late.status, json.loads(late.body)["code"]) == (503, "shutting_down")


async def test_close_does_not_wait_for_ever(fronts: Fronts):
    port, recorder, _, door = await fronts.door()
    wire = await fronts.wire(port)
    wire.send(post(b"/raft/later"))
    await until(lambda: recorder.later)
    await door.close(0.05)
    assert await wire.rest() in (b"", b"(reset)")
