"""The live client against a node that answers anything: what it follows, repeats and reports."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from random import Random

import pytest

from tests.live.client import Ask, Client, Members, Settled
from tests.live.wire import Address, Connections

WRITE = Ask("PUT", "/v1/kv/a", b"1")
NUMBERED = Ask("PUT", "/v1/kv/a", b"1", {"Raftkv-Session": "s", "Raftkv-Sequence": "1"}, is_repeatable=True)
HANGS_UP = b""


class ScriptedNode:
    """Answers what the script says, one answer a request; the last one again and again."""

    def __init__(self) -> None:
        self.script: list[bytes] = []
        self.requests_count = 0
        self.address = Address("", 0)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if head.startswith(b"PUT"):
                    await reader.readexactly(1)
                answer = self.script[min(self.requests_count, len(self.script) - 1)]
                self.requests_count += 1
                if answer == HANGS_UP:
                    return
                writer.write(answer)
        except asyncio.IncompleteReadError:
            return
        finally:
            writer.close()


@pytest.fixture
async def node() -> AsyncIterator[ScriptedNode]:
    node = ScriptedNode()
    server = await asyncio.start_server(node.serve, "127.0.0.1", 0)
    node.address = Address(*server.sockets[0].getsockname())
    yield node
    server.close()


def done(**headers: str) -> bytes:
    return response(201, {"revision": 1}, "application/json", **headers)


def problem(status: int, code: str, **fields: object) -> bytes:
    return response(status, {"code": code, **fields}, "application/problem+json")


def redirect(address: Address, *, term: int, target: str = "/v1/kv/a") -> bytes:
    location = f"http://{address.host}:{address.port}{target}"
    return response(307, {"code": "not_leader", "term": term}, "application/problem+json", Location=location)


def response(status: int, fields: object, content_type: str, **headers: str) -> bytes:
    body = json.dumps(fields).encode()
    lines = [f"HTTP/1.1 {status} X", f"Content-Type: {content_type}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def settled(node: ScriptedNode, ask: Ask, *script: bytes) -> tuple[Settled, Members]:
    node.script = list(script)
    members, connections = Members([node.address]), Connections()
    result = await Client(members, Random(1), connections, timeout_s=1.0).settle(ask)
    connections.close()
    return result, members


@pytest.mark.parametrize("status", [503, 507, 429])
async def test_what_changed_nothing_is_asked_again_and_leaves_no_doubt(node: ScriptedNode, status: int) -> None:
    result, members = await settled(node, WRITE, problem(status, "no_leader"), done())
    assert result.answer is not None and result.unknown_before == 0
    assert members.findings == []


@pytest.mark.parametrize("trouble", [HANGS_UP, problem(504, "outcome_unknown")])
async def test_a_write_of_unknown_outcome_is_repeated_only_if_numbered(node: ScriptedNode, trouble: bytes) -> None:
    result, _ = await settled(node, WRITE, trouble, done())
    assert result.answer is None and node.requests_count == 1
    node.requests_count = 0
    result, _ = await settled(node, NUMBERED, trouble, done(Raftkv_Duplicate="true"))
    assert result.answer is not None and result.unknown_before == 1


async def test_a_redirect_is_followed_at_most_three_times_in_a_row(node: ScriptedNode) -> None:
    node.script = [redirect(node.address, term=1)]
    members = Members([node.address], ends_at=0.0)
    result = await Client(members, Random(1), Connections(), timeout_s=1.0).settle(NUMBERED)
    assert result.answer is None and node.requests_count == 4


async def test_a_redirect_to_a_lower_term_is_not_followed(node: ScriptedNode) -> None:
    node.script = [redirect(node.address, term=2), redirect(node.address, term=1)]
    members = Members([node.address], ends_at=0.0)
    await Client(members, Random(1), Connections(), timeout_s=1.0).settle(NUMBERED)
    assert node.requests_count == 2


WRONG: list[Callable[[Address], bytes]] = [
    lambda address: redirect(Address("192.0.2.1", 80), term=1),
    lambda address: redirect(address, term=1, target="/v1/kv/b"),
    lambda address: problem(500, "internal"),
    lambda address: problem(410, "session_expired"),
    lambda address: problem(404, "key_not_found"),
    lambda address: response(503, {}, "text/plain"),
]


@pytest.mark.parametrize("wrong", WRONG)
async def test_what_no_node_should_answer_is_reported(node: ScriptedNode, wrong: Callable[[Address], bytes]) -> None:
    _, members = await settled(node, NUMBERED, wrong(node.address), done())
    assert len(members.findings) == 1
