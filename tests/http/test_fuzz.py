"""faults 63, 64: whatever bytes come, both fronts go on serving, and nothing fails unseen."""

from __future__ import annotations

import asyncio
import random

import pytest

from tests.http.fronts import Fronts, chunked, post
from tests.http.smuggling import BODIES, HEADS

INPUTS = 1000
AT_ONCE = 50
GOOD = [post(b"%b", b"abc"), chunked(b"%b", b"abc", b"d"), post(b"%b", b"", b"Connection: close")]


def mutated(rng: random.Random, path: bytes) -> bytes:
    """A few messages, sound or not, then a few accidents to their bytes."""
    seeds = GOOD + [raw for raw, _ in (*HEADS.values(), *BODIES.values()) if len(raw) < 500]
    raw = bytearray(b"".join(rng.choice(seeds).replace(b"%b", path) for _ in range(rng.randint(1, 3))))
    for _ in range(rng.randint(0, 4)):
        at = rng.randrange(len(raw) + 1)
        what = rng.randrange(4)
        if what == 0:
            raw[at : at + 1] = bytes([rng.randrange(256)])
        elif what == 1:
            del raw[at : at + rng.randint(1, 8)]
        elif what == 2:
            raw[at:at] = rng.choice([b"\r\n", b"\n", b"\0", b" ", b":", rng.randbytes(5)])
        else:
            raw[at:at] = raw[rng.randrange(len(raw) + 1) :][: rng.randint(1, 40)]
    return bytes(raw)


async def throw(port: int, raw: bytes, cut: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(raw[:cut])
        await writer.drain()
        writer.write(raw[cut:])
        writer.write_eof()
        await reader.read()
    except ConnectionError:
        return
    finally:
        writer.close()


@pytest.mark.parametrize("path", [b"/raft/echo", b"/v1/x"])
async def test_front_survives_any_bytes(fronts: Fronts, path):
    port, _, other, _ = await fronts.door(head_timeout_s=0.5, body_timeout_s=0.5)
    rng = random.Random(7)
    for _ in range(INPUTS // AT_ONCE):
        thrown = [mutated(rng, path) for _ in range(AT_ONCE)]
        async with asyncio.timeout(10):
            await asyncio.gather(*(throw(port, raw, rng.randrange(len(raw) + 1)) for raw in thrown))
    assert await fronts.serves(port, path)
    assert other.connections_count <= 1
