"""faults 66: what two parsers could read differently is refused by both fronts, whenever it comes."""

from __future__ import annotations

import json
import logging

import pytest

from tests.http.fronts import Fronts, Wire, chunked, post
from tests.http.smuggling import BODIES, HEADS, SMUGGLED

PLACES = ["lean", "aiohttp"]

pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])
"""What is refused does not depend on the loop; the fuzz runs on both."""


async def opened(fronts: Fronts, place: str) -> tuple[Wire, list[bytes], bytes]:
    """A client of this front, what the front's handlers hear, and a path that it serves."""
    if place == "lean":
        port, recorder = await fronts.lean()
    else:
        port, recorder, _, _ = await fronts.door()
    return await fronts.wire(port), recorder.targets, b"/other/x" if place == "aiohttp" else b"/raft/x"


async def refusal_of(wire: Wire, status: int) -> bool:
    reply = await wire.reply()
    assert reply.status == status, reply
    assert reply.fields[b"content-type"].startswith(b"application/problem+json")
    assert json.loads(reply.body)["status"] == status
    return await wire.rest() in (b"", b"(reset)")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", HEADS)
async def test_head_is_refused_as_the_first_and_behind_others(fronts: Fronts, place, name):
    raw, status = HEADS[name]
    for before in (0, 2):
        wire, targets, path = await opened(fronts, place)
        hidden = SMUGGLED.replace(b"%b", path + b"/smuggled") if raw.endswith(b"\n") else b""
        wire.send(post(path, b"abc") * before + raw.replace(b"%b", path) + hidden)
        assert [(await wire.reply()).body for _ in range(before)] == [b"abc"] * before
        assert await refusal_of(wire, status)
        assert targets == [path] * before


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", BODIES)
async def test_body_is_refused_and_nothing_behind_it_is_a_request(fronts: Fronts, place, name):
    raw, status = BODIES[name]
    wire, targets, path = await opened(fronts, place)
    hidden = SMUGGLED.replace(b"%b", path + b"/smuggled")
    wire.send(post(path, b"abc") + raw.replace(b"%b", path) + hidden)
    assert (await wire.reply()).body == b"abc"
    assert await refusal_of(wire, status)
    assert targets == [path]


@pytest.mark.parametrize("place", PLACES)
async def test_request_in_a_body_is_body(fronts: Fronts, place):
    """What looks like a request inside a body reaches the handler as bytes, on a connection that goes on."""
    wire, targets, path = await opened(fronts, place)
    hidden = SMUGGLED.replace(b"%b", path + b"/smuggled")
    wire.send(post(path, hidden) + chunked(path, hidden, hidden) + post(path))
    assert [(await wire.reply()).body for _ in range(3)] == [hidden, hidden * 2, b""]
    assert targets == [path] * 3


async def test_refusals_leave_no_traceback_in_the_log(fronts: Fronts, caplog):
    caplog.set_level(logging.DEBUG)
    for raw, status in list(HEADS.values())[:5]:
        wire, _, path = await opened(fronts, "aiohttp")
        wire.send(post(path) + raw.replace(b"%b", path))
        await wire.reply()
        assert await refusal_of(wire, status)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
