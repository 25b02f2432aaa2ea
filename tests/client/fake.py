"""A cluster that does to its clients whatever a test has laid out, and remembers every byte that it was asked.

Told: who leads, and what to do instead of answering. Tells: every request, in order. Puts are executed once per
number, as in the real one, so that a test sees how often. As the real one it carries out at once whatever arrives, and
answers in order. Demands: only requests for single keys share a connection.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from raftkv.client import Client, ClientSettings
from raftkv.client.wishes import SHARED_VALUE_BYTES_MAX
from raftkv.http.exchange import HttpAnswer
from raftkv.problems import Code
from raftkv.values import Address
from tests.client.answers import problem

PATIENCE_S = 5.0
QUICK = ClientSettings(timeout_s=3.0, silence_s=0.1, connect_timeout_s=0.5, answer_timeout_s=1.0, close_timeout_s=0.5)


class Broken(Exception):
    """The connection ends here."""


@dataclass
class Asked:
    """A request as it arrived."""

    node: FakeNode
    method: str
    target: str
    fields: dict[str, str]
    body: bytes
    writer: asyncio.StreamWriter

    @property
    def is_for_one_key(self) -> bool:
        return self.target.startswith("/v1/kv/")

    @property
    def number(self) -> int:
        return int(self.fields["raftkv-sequence"])

    @property
    def acknowledged(self) -> int:
        return int(self.fields.get("raftkv-acknowledged", "0"))

    @property
    def key(self) -> str:
        return self.target.removeprefix("/v1/kv/").partition("?")[0]


Act = Callable[[Asked], Awaitable[bytes]]
"""The bytes to answer with, or Broken."""


def say(status: int, fields: Mapping[str, Any] | bytes = b"", **headers: str) -> bytes:
    body = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    lines = [f"HTTP/1.1 {status} X", "Content-Type: application/json", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def encoded(answer: HttpAnswer) -> bytes:
    head = b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n" % (answer.status, len(answer.body))
    return head + b"".join(b"%b: %b\r\n" % pair for pair in answer.fields.items()) + b"\r\n" + answer.body


def refuse(code: Code, **more: Any) -> Act:
    async def act(asked: Asked) -> bytes:
        return encoded(problem(code, **more))

    return act


def answer(raw: bytes) -> Act:
    async def act(asked: Asked) -> bytes:
        return raw

    return act


async def reset(asked: Asked) -> bytes:
    """Nothing was executed, and nobody says so."""
    raise Broken


async def execute_and_reset(asked: Asked) -> bytes:
    await asked.node.cluster.execute(asked)
    raise Broken


def execute_and_say_only(count: int) -> Act:
    """So many bytes of the answer, then the end."""

    async def act(asked: Asked) -> bytes:
        whole = await asked.node.cluster.execute(asked)
        asked.writer.write(whole[:count])
        await asked.writer.drain()
        raise Broken

    return act


class Gate:
    """Holds requests until it is opened."""

    def __init__(self, then: Act | None = None) -> None:
        self.opened, self.held = asyncio.Event(), 0
        self._then = then

    async def __call__(self, asked: Asked) -> bytes:
        self.held += 1
        await self.opened.wait()
        return await (self._then or asked.node.cluster.execute)(asked)


class FakeNode:
    """One node, listening."""

    def __init__(self, cluster: FakeCluster, id: str, host: str = "127.0.0.1") -> None:
        self.cluster, self.id = cluster, id
        self.asked: list[Asked] = []
        self.connections_count = 0
        self.connections_most = 0
        self.instead: dict[str, deque[Act]] = defaultdict(deque)
        """By method: what to do with the next requests for keys, sessions and the rest; not with /v1/cluster."""
        self.always: Act | None = None
        self.view: Act | None = None
        self.closes_after_each = False
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.address = Address(host, 0)

    @property
    def url(self) -> str:
        host = f"[{self.address.host}]" if ":" in self.address.host else self.address.host
        return f"http://{host}:{self.address.port}"

    async def listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, *self.address)
        self.address = Address(self.address.host, self._server.sockets[0].getsockname()[1])

    async def die(self) -> None:
        """As kill -9: the port is free, every connection reset."""
        assert self._server is not None
        self._server.close()
        self.drop()
        await self._server.wait_closed()

    def drop(self) -> None:
        """Every connection is reset."""
        for writer in self._writers:
            writer.transport.abort()

    def wrote(self, method: str = "PUT") -> list[Asked]:
        return [asked for asked in self.asked if asked.method == method and asked.target.startswith("/v1/kv")]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        self.connections_count += 1
        self.connections_most = max(self.connections_most, self.connections_count)
        last: asyncio.Task[None] | None = None
        may_share = True
        try:
            while (asked := await self._read(reader, writer)) is not None:
                could_share, may_share = may_share, asked.is_for_one_key
                assert last is None or last.done() or (could_share and may_share), "only single keys' requests share"
                if asked.target != "/v1/cluster":
                    self.asked.append(asked)
                last = asyncio.create_task(self._answer(asked, last))
        except (ConnectionError, asyncio.IncompleteReadError):
            writer.transport.abort()
        finally:
            if last is not None:
                await asyncio.wait([last])
            self.connections_count -= 1
            self._writers.discard(writer)
            writer.close()

    async def _answer(self, asked: Asked, before: asyncio.Task[None] | None) -> None:
        """In its turn."""
        writer = asked.writer
        try:
            said = await self._act(asked)
        except (Broken, ConnectionError):
            said = None
        if before is not None:
            await asyncio.wait([before])
        if said is None:
            writer.transport.abort()
        elif not writer.transport.is_closing():
            writer.write(said.replace(b"\r\n", b"\r\nConnection: close\r\n", 1) if self.closes_after_each else said)
            if self.closes_after_each:
                writer.close()

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Asked | None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return None
        line, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = line.split(" ")
        fields = {name.lower(): value.strip() for name, _, value in (one.partition(":") for one in lines if one)}
        body = await reader.readexactly(int(fields.get("content-length", "0")))
        return Asked(self, method, target, fields, body, writer)

    async def _act(self, asked: Asked) -> bytes:
        if asked.target == "/v1/cluster":
            return await (self.view or self.cluster.tell_view)(asked)
        if self.instead[asked.method]:
            return await self.instead[asked.method].popleft()(asked)
        if self.always is not None and asked.target.startswith("/v1/kv"):
            return await self.always(asked)
        return await self.cluster.execute(asked)


@dataclass
class FakeCluster:
    """Some nodes that agree about everything, unless a test says otherwise."""

    nodes: list[FakeNode] = field(default_factory=list)
    leader: FakeNode | None = None
    term: int = 5
    sessions: int = 0
    session_ttl_ms: int = 60_000
    """As long as no test takes: what keeps a session alive comes between whatever else is counted."""
    answers: dict[tuple[str, int], bytes] = field(default_factory=dict)
    executed: Counter[str] = field(default_factory=Counter)
    """By key."""
    index: int = 0
    expired: set[str] = field(default_factory=set)

    def lead(self, node: FakeNode | None) -> None:
        self.leader = node
        self.term += 1

    @property
    def urls(self) -> list[str]:
        return [node.url for node in self.nodes]

    def wrote(self, method: str = "PUT") -> list[Asked]:
        return [asked for node in self.nodes for asked in node.wrote(method)]

    async def tell_view(self, asked: Asked) -> bytes:
        match = self.index if asked.node is self.leader else None
        members = [{"id": node.id, "url": node.url, "match_index": match, "last_contact_ms": 1} for node in self.nodes]
        leader = None if self.leader is None else self.leader.id
        told = {"cluster_id": "k", "term": self.term, "leader_id": leader, "voters": members, "learners": []}
        return say(200, told | {"change": None}, Raftkv_Node=asked.node.id)

    def tell_status(self, node: FakeNode) -> bytes:
        numbers = (
            "commit_index",
            "applied_index",
            "last_index",
            "snapshot_index",
            "log_bytes",
            "revision",
            "uptime_ms",
        )
        told = {"id": node.id, "role": "leader" if node is self.leader else "follower", "version": "1"}
        return say(200, told | {"term": self.term} | dict.fromkeys(numbers, 1))

    async def execute(self, asked: Asked) -> bytes:
        if asked.target == "/v1/status":
            return self.tell_status(asked.node)
        if asked.node is not self.leader and "consistency=" not in asked.target:
            return self.refuse(asked)
        self.index += 1
        if asked.target == "/v1/sessions":
            self.sessions += 1
            return say(201, {"session": f"{self.sessions:032x}", "ttl_ms": self.session_ttl_ms})
        if asked.target.startswith("/v1/sessions/"):
            gone = asked.target.split("/")[3] in self.expired
            return encoded(problem(Code.SESSION_EXPIRED)) if gone else say(200, {})
        if asked.method == "PUT":
            return self._put(asked)
        return say(
            200,
            b"value",
            ETag='"1"',
            Raftkv_Create_Revision="1",
            Raftkv_Version="1",
            Raftkv_Applied_Index=str(self.index),
        )

    def refuse(self, asked: Asked) -> bytes:
        if self.leader is None:
            return encoded(problem(Code.NO_LEADER, retry_after_ms=50))
        return redirection(self.leader, asked.target, self.term)

    def _put(self, asked: Asked) -> bytes:
        session = asked.fields["raftkv-session"]
        if session in self.expired:
            return encoded(problem(Code.SESSION_EXPIRED))
        stored = self.answers.get((session, asked.number))
        if stored is not None:
            return stored.replace(b"\r\n", b"\r\nRaftkv-Duplicate: true\r\n", 1)
        self.executed[asked.key] += 1
        done = {"revision": self.index, "create_revision": 1, "version": self.executed[asked.key]}
        self.answers[session, asked.number] = say(200, done, Raftkv_Applied_Index=str(self.index))
        return self.answers[session, asked.number]


def redirection(to: FakeNode, target: str, term: int) -> bytes:
    answer = problem(Code.NOT_LEADER, term=term, leader={"id": to.id, "url": to.url})
    answer.fields[b"location"] = (to.url + target).encode()
    return encoded(answer)


@asynccontextmanager
async def faked(nodes_count: int = 3, *, host: str = "127.0.0.1") -> AsyncIterator[FakeCluster]:
    """Nodes that listen; the first leads. Nothing that they did failed unseen."""
    failures: list[Mapping[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: failures.append(context))
    cluster = FakeCluster()
    for number in range(1, nodes_count + 1):
        node = FakeNode(cluster, f"n{number}", host)
        await node.listen()
        cluster.nodes.append(node)
    cluster.leader = cluster.nodes[0]
    try:
        yield cluster
    finally:
        for node in cluster.nodes:
            await node.die()
    assert [str(context) for context in failures] == []


def client(urls: list[str], **more: float) -> Client:
    """One that loses no time, or with ``more`` of its settings."""
    settings = {name: getattr(QUICK, name) for name in QUICK.__dataclass_fields__} | more
    return Client(urls, settings=ClientSettings(**settings))


def has_ipv6() -> bool:
    """The machine has an address to listen on."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def bound_answers(monkeypatch: pytest.MonkeyPatch, bytes_max: int) -> None:
    """No answer may be longer, whatever connection it comes on."""
    for module in ("pool", "shared"):
        monkeypatch.setattr(f"raftkv.client.{module}.ANSWER_BYTES_MAX", bytes_max)


LARGE = "v" * (SHARED_VALUE_BYTES_MAX + 1)
"""A value that goes on a connection of its own."""


async def until(condition: Callable[[], bool]) -> None:
    """The condition holds."""
    deadline = asyncio.get_running_loop().time() + PATIENCE_S
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "waited in vain"
        await asyncio.sleep(0.002)
