"""The whole client against nodes that break off, lie, stall, and disagree; on both event loops."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from raftkv.client import Client, ClientSettings, ConditionFailed, OutcomeUnknown, Rejected, Unreachable, asker
from raftkv.client.session import Session
from raftkv.problems import Code
from raftkv.values import Address
from tests.client.answers import problem
from tests.client.fake import (
    Act,
    Asked,
    FakeNode,
    Gate,
    answer,
    encoded,
    execute_and_reset,
    execute_and_say_only,
    faked,
    redirection,
    refuse,
    reset,
    say,
    until,
)

QUICK = ClientSettings(timeout_s=3.0, silence_s=0.1, connect_timeout_s=0.5, answer_timeout_s=1.0, close_timeout_s=0.5)


def client(urls: list[str], **more: float) -> Client:
    settings = {name: getattr(QUICK, name) for name in QUICK.__dataclass_fields__} | more
    return Client(urls, settings=ClientSettings(**settings))


# ------------------------------------------------------------------------------------------- what is sent


async def test_writes_are_numbered_in_one_session_and_acknowledge_what_was_answered():
    async with faked() as cluster:
        async with client(cluster.urls) as c:
            for _ in range(3):
                await c.put("k", "v")
        put = cluster.wrote()
        assert [(asked.number, asked.acknowledged) for asked in put] == [(1, 0), (2, 1), (3, 2)]
        assert {asked.fields["raftkv-session"] for asked in put} == {f"{1:032x}"}
        assert cluster.sessions == 1


async def test_reads_are_not_numbered_and_open_no_session():
    async with faked() as cluster:
        async with client(cluster.urls) as c:
            item = await c.get("k")
        assert item is not None
        assert (item.value, item.text, item.mod_revision, cluster.sessions) == (b"value", "value", 1, 0)
        assert not any(name.startswith("raftkv-") for asked in cluster.wrote("GET") for name in asked.fields)


async def test_one_node_is_enough_to_find_all():
    async with faked() as cluster:
        async with client([cluster.nodes[2].url]) as c:
            await c.put("k", "v")
        assert [len(node.wrote()) for node in cluster.nodes] == [1, 0, 0]


@pytest.mark.parametrize("endpoints", ["", "localhost:1", "http://a:1,,", [], ["http://a:1/x"]])
def test_an_endpoint_that_is_none_is_refused(endpoints):
    with pytest.raises(ValueError):
        Client(endpoints)


async def test_arguments_that_cannot_be_meant_are_refused_before_anything_is_sent():
    async with faked() as cluster:
        async with client(cluster.urls) as c:
            for wrong in (
                c.put("k", 5),  # type: ignore[arg-type]
                c.put("k", "v", if_revision=1, if_absent=True),
                c.get("k", consistency="strong"),  # type: ignore[arg-type]
                c.get("k", max_staleness_ms=1),
                c.delete_range(),
                c.delete_range(prefix=""),
                c.get("k", timeout_s=0),
            ):
                with pytest.raises((ValueError, TypeError)):
                    await wrong
        assert [node.asked for node in cluster.nodes] == [[], [], []]


# ------------------------------------------------------------------------------- answers that do not come

LOST: list[Act] = [
    reset,
    execute_and_reset,
    execute_and_say_only(1),
    execute_and_say_only(40),
    execute_and_say_only(120),
    answer(b"\x00\x01garbage\r\n\r\n"),
    answer(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 5\r\n\r\nabc"),
    answer(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
    answer(say(200, b"<html>welcome</html>")),
    answer(say(200, {"revision": "1"})),
    answer(say(302, b"", Location="http://127.0.0.1:1/")),
    answer(say(503, b"<html>bad gateway</html>")),
    refuse(Code.OUTCOME_UNKNOWN),
    refuse(Code.INTERNAL),
    refuse(Code.SUPERSEDED),
    refuse(Code.OVERLOADED, retry_after_ms=5),
    refuse(Code.REQUEST_TIMEOUT),
    refuse(Code.SHUTTING_DOWN),
]


@pytest.mark.parametrize("act", LOST, ids=range(len(LOST)))
async def test_a_write_without_an_answer_is_repeated_and_executed_once(act):
    """faults 46, 47, 50."""
    async with faked() as cluster:
        cluster.nodes[0].instead["PUT"].extend([act, act, act])
        async with client(cluster.urls) as c:
            done = await c.put("k", "v")
            figures = c.figures
        assert (done.version, cluster.executed["k"]) == (1, 1)
        assert [asked.number for asked in cluster.wrote()] == [1, 1, 1, 1]
        assert (figures.retries, figures.unknown) == (3, 0)
        executed_before = act in LOST[1:5]
        assert figures.duplicates == (1 if executed_before else 0)


@pytest.mark.parametrize("act", LOST, ids=range(len(LOST)))
async def test_a_read_without_an_answer_is_repeated(act):
    async with faked(1) as cluster:
        cluster.nodes[0].instead["GET"].extend([act, act])
        async with client(cluster.urls) as c:
            for consistency in ("linearizable", "follower"):
                item = await c.get("k", consistency=consistency)
                assert item is not None


@pytest.mark.parametrize("interim", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"])
async def test_interim_answers_are_passed_over(interim):
    async with faked() as cluster:

        async def act(asked: Asked) -> bytes:
            return interim * 3 + await cluster.execute(asked)

        cluster.nodes[0].always = act
        async with client(cluster.urls) as c:
            await c.put("k", "v")
            item = await c.get("k")
        assert item is not None
        assert (item.value, c.figures.retries) == (b"value", 0)


async def test_connections_that_the_server_closes_are_made_anew():
    async with faked() as cluster:
        leader = cluster.nodes[0]
        leader.closes_after_each = True
        async with client(cluster.urls) as c:
            for _ in range(3):
                await c.put("k", "v")
        assert cluster.executed["k"] == 3


async def test_connections_that_were_reset_while_idle_are_made_anew_without_an_attempt():
    async with faked() as cluster, client(cluster.urls) as c:
        for _ in range(3):
            await c.put("k", "v")
            cluster.nodes[0].drop()
            await until(lambda: cluster.nodes[0].connections_count == 0)
        assert (cluster.executed["k"], c.figures.retries) == (3, 0)


@pytest.mark.parametrize("extra", [b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"\r\n", b"x"])
async def test_bytes_that_nobody_asked_for_are_nobody_s_answer(extra):
    """A smuggled answer must not become the next call's."""
    async with faked() as cluster:

        async def act(asked: Asked) -> bytes:
            return await cluster.execute(asked) + extra

        cluster.nodes[0].instead["PUT"].append(act)
        async with client(cluster.urls) as c:
            await c.put("k", "v")
            done = await c.put("k", "v")
        assert (done.version, cluster.executed["k"]) == (2, 2)


async def test_an_answer_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("raftkv.client.pool.ANSWER_BYTES_MAX", 1000)
    async with faked() as cluster:
        huge = answer(say(200, b"x" * 2000))
        endless = answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"5dc\r\n" + b"x" * 1500)
        head = answer(b"HTTP/1.1 200 OK\r\n" + b"A: %b\r\n" % (b"x" * 1000) * 70 + b"Content-Length: 0\r\n\r\n")
        cluster.nodes[0].instead["GET"].extend([huge, endless, head])
        async with client(cluster.urls) as c:
            item = await c.get("k")
        assert item is not None
        assert item.value == b"value"
        assert c.figures.retries == 3


# ---------------------------------------------------------------------------------------- who is asked


async def test_a_redirect_to_a_member_is_followed():
    async with faked() as cluster:
        async with client(cluster.urls) as c:
            await c.put("k", "v")
            cluster.lead(cluster.nodes[1])
            await c.put("k", "v")
            assert (c.figures.redirects, c.figures.retries) == (1, 0)
        assert [len(node.wrote()) for node in cluster.nodes] == [2, 1, 0]
        assert [asked.number for asked in cluster.wrote()] == [1, 2, 2]


async def test_followers_that_disagree_cost_pauses_and_not_a_storm():
    """faults 51."""
    async with faked() as cluster:
        a, b, c3 = cluster.nodes

        def points_to(other: FakeNode) -> Act:
            async def act(asked: Asked) -> bytes:
                return redirection(other, asked.target, cluster.term)

            return act

        async with client(cluster.urls) as c:
            await c.put("k", "v")
            a.always, b.always, c3.always = points_to(b), points_to(a), points_to(a)
            with pytest.raises(Unreachable):
                await c.put("k", "v", timeout_s=1.0)
            asked = len(cluster.wrote())
            assert 4 <= asked < 100
            a.always = b.always = c3.always = None
            await c.put("k", "v")
        assert cluster.executed["k"] == 2


async def test_nothing_is_sent_to_a_stranger():
    async with faked() as cluster, faked(1) as other:
        (stranger,) = other.nodes

        async def act(asked: Asked) -> bytes:
            return redirection(stranger, asked.target, 99)

        cluster.nodes[0].instead["PUT"].extend([act, act])
        async with client(cluster.urls) as c:
            await c.put("k", "v")
        assert (stranger.connections_most, cluster.executed["k"]) == (0, 1)


async def test_a_new_member_that_a_redirect_names_is_learned_of():
    async with faked() as cluster:
        async with client(cluster.urls) as c:
            await c.put("k", "v")
            new = FakeNode(cluster, "n4")
            await new.listen()
            cluster.nodes.append(new)
            cluster.lead(new)
            await c.put("k", "v")
        assert (len(new.wrote()), cluster.executed["k"]) == (1, 2)


async def test_a_killed_leader_s_calls_go_on_at_the_next_one():
    async with faked() as cluster:
        a, b, _ = cluster.nodes
        async with client(cluster.urls) as c:
            await c.put("k", "v")
            a.always = gate = Gate()
            puts = [asyncio.create_task(c.put("k", "v")) for _ in range(20)]
            await until(lambda: gate.held == 20)
            cluster.lead(None)
            await a.die()
            await until(lambda: c.figures.failures.get("no answer", 0) == 20)
            assert not any(put.done() for put in puts)
            cluster.lead(b)
            await asyncio.gather(*puts)
            gate.opened.set()
        assert cluster.executed["k"] == 21
        assert {asked.number for asked in b.wrote()} == set(range(2, 22))


async def test_a_silent_leader_is_left_for_the_next_one():
    """A stopped process keeps its connections; the kernel goes on accepting for it."""
    async with faked() as cluster:
        a, b, _ = cluster.nodes
        async with client(cluster.urls, answer_timeout_s=60.0, timeout_s=5.0) as c:
            await c.put("k", "v")
            a.always = a.view = gate = Gate()
            put = asyncio.create_task(c.put("k", "v"))
            await until(lambda: gate.held > 0)
            cluster.lead(b)
            began_s = asyncio.get_running_loop().time()
            await put
            assert asyncio.get_running_loop().time() - began_s < 2.0
            gate.opened.set()
        assert (cluster.executed["k"], len(b.wrote())) == (2, 1)


async def test_a_slow_leader_that_the_others_follow_is_waited_for():
    async with faked() as cluster:
        a = cluster.nodes[0]
        async with client(cluster.urls, silence_s=0.05, answer_timeout_s=60.0) as c:
            await c.put("k", "v")
            a.always = gate = Gate()
            put = asyncio.create_task(c.put("k", "v"))
            began_s = asyncio.get_running_loop().time()
            await until(lambda: asyncio.get_running_loop().time() - began_s > 0.4)
            assert (gate.held, put.done()) == (1, False)
            gate.opened.set()
            await put
            assert c.figures.retries == 0


async def test_an_answer_that_does_not_come_is_given_up_after_a_while_and_asked_for_again():
    async with faked(1) as cluster:
        node = cluster.nodes[0]
        node.instead["PUT"].append(Gate())
        async with client(cluster.urls, silence_s=0.05, answer_timeout_s=0.2) as c:
            await c.put("k", "v")
            assert c.figures.retries == 1
        assert cluster.executed["k"] == 1


async def test_reads_that_anybody_may_answer_go_round_and_leave_out_the_silent():
    async with faked() as cluster, client(cluster.urls) as c:
        await c.get("k")
        for _ in range(6):
            await c.get("k", consistency="follower")
        reads = [sum("follower" in asked.target for asked in node.asked) for node in cluster.nodes]
        assert reads == [2, 2, 2]
        cluster.nodes[1].always = gate = Gate()
        began_s = asyncio.get_running_loop().time()
        for _ in range(20):
            await c.get("k", consistency="follower")
        assert asyncio.get_running_loop().time() - began_s < 1.5
        assert 1 <= gate.held <= 3
        gate.opened.set()


@pytest.mark.parametrize("is_monotonic", [True, False])
async def test_a_stale_read_shows_nothing_older_than_what_was_seen(is_monotonic):
    async with faked() as cluster:
        async with client(cluster.urls, monotonic_reads=is_monotonic) as c:
            await c.put("k", "v")
            cluster.index = 41
            await c.put("k", "v")
            await c.get("k", consistency="stale", max_staleness_ms=7)
        (target,) = [asked.target for asked in cluster.wrote("GET")]
        assert (
            target == "/v1/kv/k?consistency=stale" + ("&min_index=42" if is_monotonic else "") + "&max_staleness_ms=7"
        )


# --------------------------------------------------------------------------------------- how calls end


@pytest.mark.parametrize("code", [Code.TOO_LARGE, Code.BAD_REQUEST, Code.SEQUENCE_REUSED, Code.DISK_FULL])
async def test_a_final_no_ends_a_call_at_once(code):
    async with faked() as cluster:
        cluster.nodes[0].instead["PUT"].append(refuse(code))
        async with client(cluster.urls) as c:
            with pytest.raises(Rejected) as refused:
                await c.put("k", "v")
            assert (refused.value.code, c.figures.retries) == (code.text, 0)
            await c.put("k", "v")
        assert [(asked.number, asked.acknowledged) for asked in cluster.wrote()] == [(1, 0), (2, 1)]


async def test_a_failed_condition_is_an_answer():
    async with faked() as cluster:
        cluster.nodes[0].instead["PUT"].append(refuse(Code.PRECONDITION_FAILED, mod_revision=3, revision=9))
        async with client(cluster.urls) as c:
            with pytest.raises(ConditionFailed) as failed:
                await c.put("k", "v", if_revision=2)
        assert (failed.value.mod_revision, failed.value.revision) == (3, 9)
        assert cluster.wrote()[0].fields["if-match"] == '"2"'


async def test_time_over_with_nothing_sent_changed_nothing():
    async with faked() as cluster:
        for node in cluster.nodes:
            await node.die()
        async with client(cluster.urls) as c:
            began_s = asyncio.get_running_loop().time()
            for call in (c.put("k", "v", timeout_s=0.3), c.get("k", timeout_s=0.3)):
                with pytest.raises(Unreachable):
                    await call
            with pytest.raises(Unreachable):
                await c.get("k", consistency="stale", timeout_s=0.3)
            assert 0.8 < asyncio.get_running_loop().time() - began_s < 2.0


async def test_time_over_with_every_arrival_refused_changed_nothing():
    async with faked() as cluster:
        async with client(cluster.urls) as c:
            await c.put("k", "v")
            cluster.lead(None)
            with pytest.raises(Unreachable):
                await c.put("k", "v", timeout_s=0.3)
            cluster.lead(cluster.nodes[1])
            await c.put("k", "v")
        assert cluster.executed["k"] == 2


@pytest.mark.parametrize("act", [reset, execute_and_reset])
async def test_time_over_after_an_arrival_that_may_have_been_executed_is_unknown(act):
    async with faked() as cluster:
        async with client(cluster.urls) as c:
            await c.put("k", "v")
            cluster.nodes[0].always = act
            with pytest.raises(OutcomeUnknown):
                await c.put("k", "v", timeout_s=0.3)
            cluster.nodes[0].always = None
            await c.put("k", "v")
            assert c.figures.unknown == 1
        assert (cluster.wrote()[-1].number, cluster.wrote()[-1].acknowledged) == (3, 2)


async def test_a_call_that_hangs_ends_at_its_deadline():
    async with faked() as cluster, client(cluster.urls, answer_timeout_s=60.0) as c:
        await c.put("k", "v")
        cluster.nodes[0].always = gate = Gate()
        began_s = asyncio.get_running_loop().time()
        with pytest.raises(OutcomeUnknown):
            await c.put("k", "v", timeout_s=0.3)
        assert 0.29 < asyncio.get_running_loop().time() - began_s < 1.0
        gate.opened.set()


async def test_a_cancelled_call_s_number_is_acknowledged_and_its_connection_not_used_again():
    async with faked() as cluster:
        node = cluster.nodes[0]
        async with client(cluster.urls) as c:
            await c.put("k", "v")
            node.instead["PUT"].append(gate := Gate())
            put = asyncio.create_task(c.put("k", "v"))
            await until(lambda: gate.held == 1)
            put.cancel()
            with pytest.raises(asyncio.CancelledError):
                await put
            done = await c.put("k", "v")
            gate.opened.set()
        assert [(asked.number, asked.acknowledged) for asked in cluster.wrote()] == [(1, 0), (2, 1), (3, 2)]
        assert done.version == 2


# ------------------------------------------------------------------------------------------ the session


async def test_an_expired_session_is_replaced_unseen():
    async with faked() as cluster:
        async with client(cluster.urls) as c:
            await c.put("k", "v")
            cluster.expired.add(f"{1:032x}")
            await asyncio.gather(*(c.put("k", "v") for _ in range(20)))
            assert c.figures.unknown == 0
        assert (cluster.executed["k"], cluster.sessions) == (21, 2)


async def test_a_write_in_doubt_when_the_session_expires_is_unknown():
    async with faked() as cluster:

        async def execute_and_expire(asked: Asked) -> bytes:
            await cluster.execute(asked)
            cluster.expired.add(f"{1:032x}")
            return await reset(asked)

        cluster.nodes[0].instead["PUT"].append(execute_and_expire)
        async with client(cluster.urls) as c:
            with pytest.raises(OutcomeUnknown):
                await c.put("k", "v")
            await c.put("j", "v")
        assert (cluster.executed["k"], cluster.executed["j"], cluster.sessions) == (1, 1, 2)


async def test_a_session_is_kept_alive_while_nothing_is_written():
    async with faked() as cluster:
        async with client(cluster.urls, session_ttl_s=1.0) as c:
            await c.put("k", "v")

            def signs() -> list[str]:
                return [asked.target for asked in cluster.nodes[0].asked if asked.target.endswith("/keepalive")]

            await until(lambda: len(signs()) >= 2)
            assert set(signs()) == {f"/v1/sessions/{1:032x}/keepalive"}
            cluster.expired.add(f"{1:032x}")
            assert c._asker is not None
            session = c._asker.session
            assert session is not None
            await until(lambda: session.is_over)
            await c.put("k", "v")
        assert [asked.fields["raftkv-session"] for asked in cluster.wrote()] == [f"{1:032x}", f"{2:032x}"]


async def test_one_session_is_opened_for_all_that_wait_and_asked_for_until_it_is_there():
    async with faked() as cluster:
        cluster.nodes[0].instead["POST"].extend([reset, refuse(Code.OVERLOADED), execute_and_reset])
        async with client(cluster.urls) as c:
            await asyncio.gather(*(c.put("k", "v") for _ in range(50)))
        assert (cluster.executed["k"], cluster.sessions) == (50, 2)
        assert {asked.fields["raftkv-session"] for asked in cluster.wrote()} == {f"{2:032x}"}


async def test_a_session_that_is_refused_refuses_the_write():
    async with faked() as cluster:
        cluster.nodes[0].instead["POST"].append(refuse(Code.UNAUTHORIZED))
        async with client(cluster.urls) as c:
            with pytest.raises(Rejected) as refused:
                await c.put("k", "v")
            assert refused.value.code == "unauthorized"
            await c.put("k", "v")


async def test_numbers_in_flight_are_bounded_and_acknowledged_in_order(monkeypatch: pytest.MonkeyPatch):
    """faults 48."""
    monkeypatch.setattr(asker, "Session", partial(Session, numbers_max=8))
    async with faked() as cluster:
        node = cluster.nodes[0]
        async with client(cluster.urls) as c:
            await c.put("first", "v")
            node.instead["PUT"].append(stuck := Gate())
            puts = [asyncio.create_task(c.put(f"k{number}", "v")) for number in range(40)]
            await until(lambda: len(node.wrote()) == 9)
            await asyncio.wait(puts[1:8], timeout=2.0)
            assert [put.done() for put in puts] == [False, *[True] * 7, *[False] * 32]
            assert max(asked.acknowledged for asked in node.wrote()) == 1
            for cancelled in puts[20:25]:
                cancelled.cancel()
            stuck.opened.set()
            await asyncio.wait(puts)
            assert [put.cancelled() for put in puts].count(True) == 5
        answered: set[int] = set()
        for asked in node.wrote():
            assert asked.acknowledged < asked.number
            assert asked.number - asked.acknowledged <= 8
            answered.add(asked.number)
        assert sum(cluster.executed.values()) == 36
        assert answered == set(range(1, 37))


async def test_a_write_that_waits_for_a_number_in_vain_changed_nothing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(asker, "Session", partial(Session, numbers_max=1))
    async with faked() as cluster:
        async with client(cluster.urls) as c:
            cluster.nodes[0].instead["PUT"].append(stuck := Gate())
            put = asyncio.create_task(c.put("k", "v"))
            await until(lambda: stuck.held == 1)
            with pytest.raises(Unreachable, match="no number was free"):
                await c.put("j", "v", timeout_s=0.2)
            stuck.opened.set()
            await put
            await c.put("j", "v")
        assert cluster.executed["j"] == 1


async def test_a_full_session_makes_room_by_other_numbers():
    async with faked() as cluster:
        cluster.nodes[0].instead["PUT"].extend([refuse(Code.TOO_MANY_UNACKNOWLEDGED)] * 2)
        async with client(cluster.urls) as c:
            await c.put("k", "v")
            assert c.figures.renumbered == 2
        assert [(asked.number, asked.acknowledged) for asked in cluster.wrote()] == [(1, 0), (2, 1), (3, 2)]
        assert cluster.executed["k"] == 1


# -------------------------------------------------------------------------------------- connections, the end


async def test_connections_are_bounded_and_calls_wait_their_turn():
    async with faked() as cluster:
        node = cluster.nodes[0]
        node.always = gate = Gate()
        async with client(cluster.urls, connections_per_node_max=4, answer_timeout_s=60.0) as c:
            puts = [asyncio.create_task(c.put("k", "v")) for _ in range(50)]
            await until(lambda: gate.held == 4)
            for cancelled in puts[2:10]:
                cancelled.cancel()
            gate.opened.set()
            await asyncio.wait(puts)
            assert sum(not put.cancelled() for put in puts) == 42
        assert node.connections_most <= 4 + 1, "one for the question who leads"
        assert cluster.executed["k"] <= 44


async def test_closing_ends_the_session_and_every_connection():
    async with faked() as cluster:
        c = client(cluster.urls)
        await c.put("k", "v")
        await c.close()
        await c.close()
        deleted = [asked.target for asked in cluster.nodes[0].asked if asked.method == "DELETE"]
        assert deleted == [f"/v1/sessions/{1:032x}"]
        await until(lambda: not any(node.connections_count for node in cluster.nodes))
        with pytest.raises(RuntimeError):
            await c.put("k", "v")
        assert len(asyncio.all_tasks()) == 1


async def test_closing_ends_what_is_under_way_with_the_truth():
    async with faked() as cluster:
        c = client(cluster.urls)
        await c.put("k", "v")
        cluster.nodes[0].always = gate = Gate()
        sent = asyncio.create_task(c.put("k", "v"))
        await until(lambda: gate.held == 1)
        await c.close()
        with pytest.raises(OutcomeUnknown):
            await sent
        gate.opened.set()

        cluster.lead(None)
        c = client(cluster.urls)
        waiting = [asyncio.create_task(c.put("k", "v")), asyncio.create_task(c.get("k"))]
        await until(lambda: c.figures.calls == 2)
        await c.close()
        for one in waiting:
            with pytest.raises(Unreachable):
                await one


async def test_closing_does_not_wait_for_a_cluster_that_is_gone():
    async with faked() as cluster:
        c = client(cluster.urls, close_timeout_s=0.2)
        await c.put("k", "v")
        cluster.nodes[0].always = gate = Gate()
        for node in cluster.nodes:
            node.instead["DELETE"].append(gate)
        began_s = asyncio.get_running_loop().time()
        await c.close()
        assert asyncio.get_running_loop().time() - began_s < 1.0
        gate.opened.set()


async def test_nothing_is_left_of_a_client_that_was_never_used():
    async with client(["http://127.0.0.1:1"]):
        pass
    assert len(asyncio.all_tasks()) == 1


async def test_a_node_that_never_accepts_costs_a_connect_timeout_only():
    """An address behind which packets vanish."""
    async with faked(2) as cluster:
        async with client([*cluster.urls, "http://127.0.0.1:1"]) as c:
            for _ in range(5):
                await c.get("k", consistency="stale")
        assert c.figures.unknown == 0


def test_the_fake_s_refusals_are_the_real_ones():
    assert encoded(problem(Code.NO_LEADER)).startswith(b"HTTP/1.1 503")
    assert Address("127.0.0.1", 1) == ("127.0.0.1", 1)
