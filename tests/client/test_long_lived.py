"""A client that runs for weeks: nothing waits in vain, nothing rots, nothing grows; on both event loops."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from functools import partial
from math import inf

import pytest

from raftkv.client import OutcomeUnknown, Unreachable, course, shared
from raftkv.client.attempts import Lane
from raftkv.client.course import PAUSE_US
from raftkv.client.pool import Pool
from raftkv.client.session import Numbered, Session
from raftkv.client.shared import SharedPool, SharedPools
from raftkv.http.exchange import HttpAnswer, NoAnswer, NotSent, encode_request
from raftkv.http.requests import RequestProtocol
from raftkv.problems import Code
from raftkv.values import Address
from tests.client.fake import (
    LARGE,
    PATIENCE_S,
    Asked,
    Broken,
    FakeNode,
    Gate,
    answer,
    bound_answers,
    client,
    faked,
    redirection,
    refuse,
    reset,
    say,
    until,
)


async def test_a_number_given_up_lets_in_who_waits_for_one(monkeypatch: pytest.MonkeyPatch):
    """Else the lowest number's own write waits behind them, and nobody is left to let anybody in."""
    monkeypatch.setattr(course, "NUMBERS_MAX", 2)
    async with faked() as cluster:
        async with client(cluster.urls) as c:
            cluster.nodes[0].instead["PUT"].append(gate := Gate(then=refuse(Code.TOO_MANY_UNACKNOWLEDGED)))
            first = asyncio.create_task(c.put("first", "v"))
            await until(lambda: gate.held == 1)
            await c.put("second", "v")
            waiting = [asyncio.create_task(c.put("waiting", "v", timeout_s=1.0)) for _ in range(3)]
            await until(lambda: c.figures.calls == 5)
            gate.opened.set()
            await asyncio.gather(first, *waiting)
        assert cluster.executed == {"first": 1, "second": 1, "waiting": 3}


async def test_the_end_of_a_session_is_told_to_who_waits_for_a_number_of_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(course, "NUMBERS_MAX", 1)
    async with faked() as cluster:
        async with client(cluster.urls) as c:
            cluster.nodes[0].instead["PUT"].append(gate := Gate())
            first = asyncio.create_task(c.put("k", "v", timeout_s=1.0))
            await until(lambda: gate.held == 1)
            waiting = asyncio.create_task(c.put("k", "v", timeout_s=1.0))
            await until(lambda: c.figures.calls == 2)
            cluster.expired.add(f"{1:032x}")
            gate.opened.set()
            await asyncio.gather(first, waiting)
        assert (cluster.executed["k"], cluster.sessions) == (2, 2)


class BlackHole:
    """An address that takes no connection and refuses none: its backlog is full."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=0)
        self.url = "http://{}:{}".format(*self._listener.getsockname())
        self._fill = []
        for _ in range(8):
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(self._listener.getsockname())
            self._fill.append(one)

    def close(self) -> None:
        for one in (*self._fill, self._listener):
            one.close()


@pytest.mark.parametrize("whom", ["leader", "anybody", "one"])
async def test_a_call_ends_at_its_deadline_also_while_it_connects(whom):
    hole = BlackHole()
    try:
        async with client([hole.url], connect_timeout_s=60.0, close_timeout_s=0.1) as c:
            began_s = asyncio.get_running_loop().time()
            calls = {
                "leader": lambda: c.put("k", "v", timeout_s=0.2),
                "anybody": lambda: c.get("k", consistency="stale", timeout_s=0.2),
                "one": lambda: c.status(hole.url, timeout_s=0.2),
            }
            with pytest.raises(Unreachable):
                await calls[whom]()
            assert asyncio.get_running_loop().time() - began_s < PATIENCE_S
    finally:
        hole.close()


async def test_nothing_is_sent_when_the_time_is_over(monkeypatch: pytest.MonkeyPatch):
    """A program that was busy until then is told that nothing was changed, and not that nobody knows."""
    async with faked() as cluster, client(cluster.urls) as c:
        await c.put("k", "v")
        give = Session.give

        def give_late(session: Session) -> Numbered:
            until_s = time.monotonic() + 0.15
            while time.monotonic() < until_s:
                time.sleep(0.01)
            return give(session)

        monkeypatch.setattr(Session, "give", give_late)
        with pytest.raises(Unreachable):
            await c.put("k", "v", timeout_s=0.1)
        monkeypatch.undo()
        await c.put("k", "v")
        assert [asked.number for asked in cluster.wrote()] == [1, 3]


async def test_bytes_that_still_come_are_no_silence():
    """A page of 4 MiB over a slow link takes longer than a node may be silent."""
    async with faked() as cluster:

        async def trickle(asked: Asked) -> bytes:
            whole = await cluster.execute(asked)
            share = len(whole) // 8
            while whole:
                asked.writer.write(whole[:share])
                whole = whole[share:]
                await asyncio.sleep(0.1)
            return b""

        for node in cluster.nodes:
            node.always = trickle
        async with client(cluster.urls, silence_s=0.5, answer_timeout_s=0.6) as c:
            for consistency in ("linearizable", "follower"):
                item = await c.get("k", consistency=consistency)
                assert item is not None
                assert item.value == b"value"
            assert c.figures.retries == 0


async def test_drops_that_never_end_do_not_outlast_the_deadline():
    async with faked(1) as cluster:

        async def drip(asked: Asked) -> bytes:
            asked.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            while not asked.writer.transport.is_closing():
                asked.writer.write(b"x")
                await asyncio.sleep(0.02)
            return b""

        cluster.nodes[0].always = drip
        async with client(cluster.urls) as c:
            began_s = asyncio.get_running_loop().time()
            with pytest.raises(Unreachable):
                await c.get("k", timeout_s=0.4)
            assert asyncio.get_running_loop().time() - began_s < PATIENCE_S


async def test_members_that_all_moved_are_found_again_by_reads_that_anybody_may_answer():
    """The program knows one name that stays; behind it every member has another address now."""
    async with faked() as cluster:
        door = FakeNode(cluster, "door")
        await door.listen()
        async with client([door.url]) as c:
            await c.get("k")
            assert c._asker is not None
            finder = c._asker._finder
            await until(lambda: finder._task is None and not finder._asking)
            old, cluster.nodes = cluster.nodes, []
            for number in (1, 2, 3):
                new = FakeNode(cluster, f"n{number}")
                await new.listen()
                cluster.nodes.append(new)
            cluster.lead(cluster.nodes[0])
            for node in old:
                await node.die()
            assert await c.get("k", consistency="stale") is not None
        await door.die()


@pytest.mark.parametrize("value", ["v", LARGE], ids=["shared", "own"])
async def test_what_was_long_idle_is_not_used_again(monkeypatch: pytest.MonkeyPatch, value):
    """A firewall forgets a quiet connection and tells neither end: what is asked on it is never answered."""
    monkeypatch.setattr("raftkv.client.pool.IDLE_S_MAX", 0.1)
    monkeypatch.setattr("raftkv.client.shared.IDLE_S_MAX", 0.1)
    async with faked(1) as cluster:
        node = cluster.nodes[0]
        cluster.session_ttl_ms = 1000  # A look at the session ends the connection that opened it.
        async with client(cluster.urls, silence_s=60.0, answer_timeout_s=60.0) as c:
            await c.put("k", "v")
            node.always = gate = Gate()
            puts = [asyncio.create_task(c.put("k", value)) for _ in range(4)]
            await until(lambda: gate.held == 4)
            gate.opened.set()
            await asyncio.gather(*puts)
            forgotten = set(node._writers)

            async def forget(asked: Asked) -> bytes:
                return await (Gate() if asked.writer in forgotten else cluster.execute)(asked)

            node.always = forget
            began_s = asyncio.get_running_loop().time()
            await until(lambda: asyncio.get_running_loop().time() > began_s + 0.15)
            await asyncio.gather(*(c.put("k", value, timeout_s=1.0) for _ in range(4)))
            assert c.figures.retries == 0
            await until(lambda: len(forgotten & node._writers) <= (0 if value == "v" else 2))


@pytest.mark.parametrize("value", ["v", LARGE], ids=["shared", "own"])
async def test_one_connection_that_was_forgotten_is_enough_to_distrust_those_that_lay_beside_it(value):
    async with faked(1) as cluster:
        node = cluster.nodes[0]
        async with client(cluster.urls, silence_s=0.9, answer_timeout_s=1.0) as c:
            await c.put("k", "v")
            node.always = gate = Gate()
            puts = [asyncio.create_task(c.put("k", LARGE)) for _ in range(4)]
            await until(lambda: gate.held == 4)
            gate.opened.set()
            await asyncio.gather(*puts)
            forgotten = set(node._writers)

            async def forget(asked: Asked) -> bytes:
                return await (Gate() if asked.writer in forgotten else cluster.execute)(asked)

            node.always = forget
            retries = c.figures.retries
            await c.put("k", value)
            assert c.figures.retries == retries + 1
            await c.put("k", LARGE if value == "v" else "v")
            assert c.figures.retries == retries + 1, "whatever kind it was"
        assert cluster.executed["k"] == 7


async def test_who_waits_for_a_connection_keeps_the_place_where_a_server_closes_each():
    async with faked(1) as cluster:
        node = cluster.nodes[0]
        node.closes_after_each = True
        async with client(cluster.urls, shared_connections_per_node_max=1) as c:
            await c.put("first", "v")
            await asyncio.gather(*(c.put(f"{number}", "v") for number in range(30)))
        assert [asked.key for asked in node.wrote()] == ["first", *(f"{number}" for number in range(30))]


async def test_a_connection_handed_to_who_was_just_cancelled_is_the_next_one_s():
    async with faked(1) as cluster:
        loop = asyncio.get_running_loop()
        pool = Pool(loop, cluster.nodes[0].address, connections_max=1, connect_timeout_s=1.0)

        def take() -> asyncio.Task[RequestProtocol | NotSent]:
            return loop.create_task(pool.take(until_s=inf, look_after_s=PATIENCE_S, look=lambda _: None))

        connection = await take()
        assert isinstance(connection, RequestProtocol)
        first, second = take(), take()
        await asyncio.sleep(0)
        pool.give_back(connection)
        first.cancel()
        async with asyncio.timeout(1.0):
            assert await second is connection
        third, fourth = take(), take()
        await asyncio.sleep(0)
        connection.close("broken")
        pool.give_back(connection)
        while len(pool._queue) == 2:  # noqa: ASYNC110 - turn by turn, to be there first
            await asyncio.sleep(0)
        third.cancel()  # As it is told that there is room, or begins to connect.
        async with asyncio.timeout(1.0):
            other = await fourth
        assert isinstance(other, RequestProtocol)
        pool.give_back(other)
        await pool.close()
        await until(lambda: not cluster.nodes[0].connections_count)


async def test_who_waits_for_room_hears_when_nothing_came_of_the_connection_that_took_it():
    """Else only the first would turn to another node at once, and all the others once they had waited in vain."""
    loop = asyncio.get_running_loop()
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = Address(*nobody.getsockname())
        pool = Pool(loop, address, connections_max=1, connect_timeout_s=PATIENCE_S)
        takes = (pool.take(until_s=inf, look_after_s=PATIENCE_S, look=lambda _: None) for _ in range(3))
        async with asyncio.timeout(PATIENCE_S / 2):
            came = await asyncio.gather(*takes)
    assert [isinstance(one, NotSent) and one.unreachable for one in came] == [True] * 3
    await pool.close()


async def test_connections_that_were_lost_while_idle_are_none_that_are_in_use():
    """Else a node that is known no more would be remembered for ever, and every connection that there was to it."""
    async with faked(1) as cluster:
        loop, (node,) = asyncio.get_running_loop(), cluster.nodes
        pool = Pool(loop, node.address, connections_max=1, connect_timeout_s=PATIENCE_S)
        connection = await pool.take(until_s=inf, look_after_s=PATIENCE_S, look=lambda _: None)
        assert isinstance(connection, RequestProtocol) and not pool.is_unused
        pool.give_back(connection)
        assert (pool.connections_count, pool.is_unused) == (1, True)
        connection.close("the server closed it")
        await until(lambda: pool.connections_count == 0)
        assert pool.is_unused
        await pool.close()


async def test_shared_connections_to_a_node_that_is_known_no_more_stay_while_they_are_in_use():
    """The answer still comes on them, and a client that closes has to know of them."""
    async with faked(2) as cluster:
        one, other = cluster.nodes
        one.instead["GET"].append(gate := Gate())
        loop = asyncio.get_running_loop()
        pools = SharedPools(
            loop,
            connections_max=1,
            connect_timeout_s=PATIENCE_S,
            silence_s=PATIENCE_S,
            look=lambda *_: PATIENCE_S,
            is_known=lambda address: address != one.address,
            on_doubt=lambda _: None,
        )
        pool = pools.at(one.address, Lane.STALE)
        request = encode_request(b"GET", b"/v1/kv/k", authority=pool.authority, fields=b"", body=b"")
        asked = pool.ask(request, None, loop.time() + 60.0)
        await until(lambda: gate.held == 1)
        pools.at(other.address, Lane.STALE)
        assert len(pools) == 2
        await pools.close()
        assert isinstance(await asked, NoAnswer)
        gate.opened.set()
        await until(lambda: not one.connections_count)


async def test_a_node_that_takes_no_further_connection_is_not_lost(monkeypatch: pytest.MonkeyPatch):
    """It may have as many as it takes: who has one to it that stands does not look for another leader."""
    async with faked(1) as cluster:
        node, loop = cluster.nodes[0], asyncio.get_running_loop()
        node.instead["GET"].append(gate := Gate())
        pool = SharedPool(
            loop,
            node.address,
            connections_max=2,
            connect_timeout_s=PATIENCE_S,
            silence_s=PATIENCE_S,
            look=lambda *_: PATIENCE_S,
            on_doubt=lambda: None,
        )
        request = encode_request(b"GET", b"/v1/kv/k", authority=pool.authority, fields=b"", body=b"")
        first = pool.ask(request, None, loop.time() + 60.0)
        await until(lambda: gate.held == 1)

        async def refused(*_: object) -> None:
            raise ConnectionRefusedError("connection refused")

        monkeypatch.setattr(shared, "dial", refused)
        heard = await asyncio.wait_for(pool.ask(request, None, loop.time() + 60.0), PATIENCE_S)
        assert isinstance(heard, NotSent) and not heard.unreachable
        gate.opened.set()
        assert isinstance(await first, HttpAnswer)
        await pool.close()


@pytest.mark.parametrize("host", ["a..b", "x" * 64, "no-such-host.invalid"])
async def test_a_name_that_is_no_host_s_is_a_node_that_cannot_be_reached(host):
    async with client([f"http://{host}:1"], close_timeout_s=0.1) as c:
        with pytest.raises(Unreachable):
            await c.put("k", "v", timeout_s=0.2)
        with pytest.raises(Unreachable, match=host):
            await c.get("k", consistency="stale", timeout_s=0.3)
    async with faked() as cluster, client([f"http://{host}:1", *cluster.urls]) as c:
        await c.put("k", "v")


@pytest.mark.parametrize("act", ["pause", "long pause", "connect"])
async def test_closing_waits_for_nobody_and_leaves_no_call_behind(act):
    """Between two attempts, or while it connects, a call hears at once that the client is closed."""
    hole = BlackHole()
    async with faked() as cluster:
        c = client([*cluster.urls, hole.url], timeout_s=30.0, connect_timeout_s=30.0, close_timeout_s=0.2)
        await c.put("k", "v")
        asking: list[asyncio.Future[object]]
        if act == "connect":
            asking = [asyncio.ensure_future(c.status(hole.url)) for _ in range(40)]
        else:
            refusal = refuse(Code.SUPERSEDED) if act == "pause" else refuse(Code.OVERLOADED, retry_after_ms=9_000)
            cluster.nodes[0].always = refusal
            asking = [asyncio.ensure_future(c.put("k", "v"))]
        await until(lambda: c.figures.attempts > 10 or (act == "long pause" and bool(c.figures.failures)))
        began_s = asyncio.get_running_loop().time()
        await c.close()
        assert asyncio.get_running_loop().time() - began_s < PATIENCE_S
        assert all(one.done() for one in asking)
        for one in asking:
            with pytest.raises(Unreachable):
                await one
        assert len(asyncio.all_tasks()) == 1 + sum(node.connections_count for node in cluster.nodes)
    hole.close()


async def test_a_closed_client_asks_nobody_any_more():
    async with faked() as cluster:
        c = client(cluster.urls)
        await c.put("k", "v")
        await c.close()
        assert c._asker is not None
        finder = c._asker._finder
        finder.want(60.0)
        await finder.leader_or(asyncio.get_running_loop().time() + 60.0)
        assert len(asyncio.all_tasks()) == 1 + sum(node.connections_count for node in cluster.nodes)


async def test_a_closed_client_leaves_a_doubt_told():
    async with faked() as cluster:
        c = client(cluster.urls, timeout_s=30.0)
        await c.put("k", "v")
        cluster.nodes[0].always = refuse(Code.OUTCOME_UNKNOWN)
        put = asyncio.create_task(c.put("k", "v"))
        await until(lambda: c.figures.retries > 3)
        await c.close()
        with pytest.raises(OutcomeUnknown):
            await put


async def test_a_head_line_without_end_fills_no_memory(monkeypatch: pytest.MonkeyPatch):
    bound_answers(monkeypatch, 1000)
    async with faked(1) as cluster:

        async def endless(asked: Asked) -> bytes:
            asked.writer.write(b"HTTP/1.1 200 OK\r\nX: ")
            while not asked.writer.transport.is_closing():
                asked.writer.write(b"x" * 10_000)
                await asyncio.sleep(0.001)
            raise Broken

        async def endless_trailer(asked: Asked) -> bytes:
            asked.writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ")
            while not asked.writer.transport.is_closing():
                asked.writer.write(b"x" * 10_000)
                await asyncio.sleep(0.001)
            raise Broken

        cluster.nodes[0].instead["GET"].extend([endless, endless_trailer])
        async with client(cluster.urls, silence_s=60.0, answer_timeout_s=60.0) as c:
            assert await c.get("k", timeout_s=2.0) is not None
            assert c.figures.retries == 2


async def test_a_trailer_is_no_field_of_the_head():
    async with faked(1) as cluster:
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nETag: %b\r\nRaftkv-Create-Revision: 1\r\n"
        raw = head % b'"1"' + b'Raftkv-Version: 1\r\n\r\n0\r\nETag: "9"\r\nRaftkv-Applied-Index: 99\r\n\r\n'
        cluster.nodes[0].instead["GET"].append(answer(raw))
        async with client(cluster.urls) as c:
            item = await c.get("k")
            assert item is not None
            assert (item.value, item.mod_revision) == (b"", 1)
            assert c._asker is not None
            assert c._asker.seen_index == 0


async def test_addresses_that_nobody_has_any_more_leave_nothing_behind():
    """Members that are replaced, week after week."""
    async with faked(1) as cluster, client(cluster.urls) as c:
        assert c._asker is not None
        asker = c._asker
        for number in range(7):
            old = cluster.nodes[-1]
            new = FakeNode(cluster, f"m{number}")
            await new.listen()
            cluster.nodes.append(new)
            cluster.lead(new)
            await c.put("k", "v")
            await until(partial(asker.routing.is_known, new.address))
            if number:
                cluster.nodes.remove(old)
                await old.die()
        asker._finder.want(0.0)
        await until(lambda: len(asker.routing.everybody()) <= 3)
        await c.get("k", consistency="stale")
        assert len(asker._pools) <= 5
        assert len(asker._finding_pools) <= 5
        assert len(asker.courses.mute) <= 8
        assert set(asker.routing._shunned) <= set(asker.routing.everybody())


@pytest.mark.parametrize("consistency", ["linearizable", "stale"])
async def test_many_calls_ask_no_more_often_who_the_members_are_than_one(consistency):
    async with faked() as cluster, faked(1) as other:
        views = 0

        async def tell(asked: Asked) -> bytes:
            nonlocal views
            views += 1
            return await cluster.tell_view(asked)

        async def strange(asked: Asked) -> bytes:
            return redirection(other.nodes[0], asked.target, 99)

        for node in cluster.nodes:
            node.view, node.always = tell, strange if consistency == "linearizable" else reset
        async with client(cluster.urls) as c:
            began_s = asyncio.get_running_loop().time()
            reads = [c.get("k", consistency=consistency, timeout_s=0.5) for _ in range(100)]
            told = await asyncio.gather(*reads, return_exceptions=True)
            took_s = asyncio.get_running_loop().time() - began_s
            assert {type(one) for one in told} == {Unreachable}
        assert views <= 3 * (3 + took_s / (0.75 * PAUSE_US / 1_000_000))


async def test_an_answer_that_came_while_the_program_was_busy_is_taken():
    """A loop that stood still finds timers and bytes due at once, and may turn to its timers first."""
    loop, received, go = asyncio.get_running_loop(), threading.Event(), threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(1000)
            received.set()
            go.wait(PATIENCE_S)
            connection.sendall(say(200, b"late"))
            connection.recv(1000)

    serving = loop.run_in_executor(None, serve)
    lost: asyncio.Future[RequestProtocol] = loop.create_future()
    _, protocol = await loop.create_connection(
        lambda: RequestProtocol(loop, answer_bytes_max=1000, on_lost=lost.set_result), *listener.getsockname()
    )
    answered = protocol.exchange(b"GET / HTTP/1.1\r\n\r\n", look_after_s=0.3, look=lambda _: None)
    await loop.run_in_executor(None, received.wait)
    go.set()
    until_s = time.monotonic() + 0.4
    while time.monotonic() < until_s:
        time.sleep(0.01)  # noqa: ASYNC251 - the loop is to stand still
    heard = await answered
    assert isinstance(heard, HttpAnswer)
    assert heard.body == b"late"
    protocol.close("done")
    await serving
    await lost
    listener.close()
