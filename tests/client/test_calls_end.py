"""How calls, sessions and clients end: in an answer, with the truth, or cleanly; on both event loops."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from raftkv.client import ConditionFailed, OutcomeUnknown, Rejected, Unreachable, course
from raftkv.problems import Code
from raftkv.values import Address
from tests.client.answers import problem
from tests.client.fake import (
    LARGE,
    PATIENCE_S,
    Asked,
    Gate,
    client,
    encoded,
    execute_and_reset,
    faked,
    refuse,
    reset,
    say,
    until,
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
            assert 0.8 < asyncio.get_running_loop().time() - began_s < PATIENCE_S


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
        assert 0.29 < asyncio.get_running_loop().time() - began_s < PATIENCE_S
        gate.opened.set()


@pytest.mark.parametrize("refusal", [Code.SUPERSEDED, Code.NO_LEADER, Code.OUTCOME_UNKNOWN, None])
async def test_a_call_that_is_refused_for_ever_ends_at_its_deadline_and_asks_no_more(refusal):
    """A put whose last attempt was on its way at that moment cannot know better (``test_course`` has that apart)."""
    async with faked() as cluster, client(cluster.urls) as c:
        await c.put("k", "v")
        if refusal is None:
            cluster.lead(None)
        else:
            for node in cluster.nodes:
                node.always = refuse(refusal)
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises((Unreachable, OutcomeUnknown)) as put:
                await c.put("k", "v", timeout_s=0.1)
            in_doubt = {"no answer", Code.OUTCOME_UNKNOWN.text} & c.figures.failures.keys()
            assert put.type is (OutcomeUnknown if in_doubt else Unreachable), c.figures.failures
            with pytest.raises(Unreachable):
                await c.get("k", timeout_s=0.2)
            if refusal is not None:
                with pytest.raises(Unreachable):
                    await c.get("k", consistency="follower", timeout_s=0.1)
        assert c.figures.attempts < 60
        assert sum(len(node.asked) for node in cluster.nodes) < 60


@pytest.mark.parametrize("value", ["v", LARGE], ids=["shared", "own"])
async def test_a_cancelled_call_s_number_is_acknowledged_and_its_answer_nobody_s(value):
    async with faked() as cluster:
        node = cluster.nodes[0]
        async with client(cluster.urls, connections_per_node_max=1, shared_connections_per_node_max=1) as c:
            await c.put("k", value)
            node.instead["PUT"].append(gate := Gate())
            cancelled = asyncio.create_task(c.put("k", value))
            await until(lambda: gate.held == 1)
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
            put = asyncio.create_task(c.put("k", value))
            await until(lambda: len(node.wrote()) == 3)
            if value == LARGE:
                done = await put
            assert put.done() == (value == LARGE), "on a shared connection it waits for what is before it"
            gate.opened.set()
            done = await put
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
        cluster.session_ttl_ms = 1000
        async with client(cluster.urls, session_ttl_s=1.0) as c:
            await c.put("k", "v")

            def signs() -> list[str]:
                return [asked.target for asked in cluster.nodes[0].asked if asked.target.endswith("/keepalive")]

            await until(lambda: len(signs()) >= 2)
            assert set(signs()) == {f"/v1/sessions/{1:032x}/keepalive"}
            cluster.expired.add(f"{1:032x}")
            assert c._asker is not None
            session = c._asker.courses.session
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
    monkeypatch.setattr(course, "NUMBERS_MAX", 8)
    async with faked() as cluster:
        node = cluster.nodes[0]
        async with client(cluster.urls) as c:
            await c.put("first", "v")
            node.instead["PUT"].append(stuck := Gate())
            puts = [asyncio.create_task(c.put(f"k{number}", "v" if number else LARGE)) for number in range(40)]
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
    monkeypatch.setattr(course, "NUMBERS_MAX", 1)
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


@pytest.mark.parametrize("value", ["v", LARGE], ids=["shared", "own"])
async def test_connections_are_bounded_and_calls_wait_their_turn(value):
    async with faked() as cluster:
        node = cluster.nodes[0]
        node.always = gate = Gate()
        bounds = {"connections_per_node_max": 4, "shared_connections_per_node_max": 4}
        async with client(cluster.urls, answer_timeout_s=60.0, **bounds) as c:
            puts = [asyncio.create_task(c.put("k", value)) for _ in range(50)]
            await until(lambda: gate.held == 4)
            for cancelled in puts[2:10]:
                cancelled.cancel()
            gate.opened.set()
            await asyncio.wait(puts)
            assert sum(not put.cancelled() for put in puts) == 42
        assert node.connections_most <= 4 + 2, "one for the question who leads, one for the session"
        assert cluster.executed["k"] <= 44


def is_held(gate: Gate) -> bool:
    return gate.held == 1


async def test_a_cancelled_call_keeps_its_connection_from_nobody():
    """Its answer comes later: nobody waits for it, and nobody would give the connection back."""
    async with faked() as cluster:
        node = cluster.nodes[0]
        async with client(cluster.urls, connections_per_node_max=1, shared_connections_per_node_max=1) as c:
            await c.put("k", LARGE)
            gates = [Gate(), Gate()]
            node.instead["PUT"] += gates
            for gate in gates:
                cancelled = asyncio.create_task(c.put("k", LARGE))
                await until(partial(is_held, gate))
                cancelled.cancel()
                await asyncio.wait([cancelled])
                gate.opened.set()
            await c.put("k", LARGE)


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


async def test_closing_does_not_wait_until_a_call_would_be_tried_again():
    async with faked(1) as cluster:
        (node,) = cluster.nodes
        c = client(cluster.urls, timeout_s=60.0)
        await c.put("k", "v")
        node.always = refuse(Code.OVERLOADED, retry_after_ms=10_000)
        put = asyncio.create_task(c.put("k", "v"))
        await until(lambda: c.figures.failures != {})
        async with asyncio.timeout(PATIENCE_S / 2):
            await c.close()
        with pytest.raises(Unreachable, match="the client was closed"):
            await put


async def test_closing_does_not_wait_for_a_cluster_that_is_gone():
    async with faked() as cluster:
        c = client(cluster.urls, timeout_s=60.0, answer_timeout_s=60.0, close_timeout_s=0.2)
        await c.put("k", "v")
        cluster.nodes[0].always = gate = Gate()
        for node in cluster.nodes:
            node.instead["DELETE"].append(gate)
        began_s = asyncio.get_running_loop().time()
        await c.close()
        assert asyncio.get_running_loop().time() - began_s < PATIENCE_S
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


# ------------------------------------------------------------------------------------------- what errors tell


async def test_a_list_of_endpoints_that_is_all_wrong_is_told_node_by_node():
    """What everybody meets first."""
    async with faked() as cluster:
        for node in cluster.nodes:
            await node.die()
        ports = [str(node.address.port) for node in cluster.nodes]
        async with client(cluster.urls) as c:
            for call in (c.put("k", "v", timeout_s=0.3), c.get("k", timeout_s=0.3)):
                with pytest.raises(Unreachable, match=f"nobody is known to lead: .*{ports[0]}: .*[Cc]onnect") as error:
                    await call
                assert all(port in str(error.value) for port in ports)


async def test_nodes_that_know_no_leader_or_are_of_another_cluster_are_told_of():
    async with faked() as cluster, faked(1) as other:

        async def strange(asked: Asked) -> bytes:
            return say(200, {"cluster_id": "x", "term": 9, "leader_id": None, "voters": [], "learners": []})

        cluster.lead(None)
        async with client(cluster.urls) as c:
            with pytest.raises(Unreachable, match="it knows no leader"):
                await c.get("k", timeout_s=0.8)
        cluster.nodes[1].view = other.nodes[0].view = strange
        async with client([cluster.nodes[0].url]) as c:
            await until(lambda: c._asker is not None and len(c._asker.routing.everybody()) == 3)
            with pytest.raises(Unreachable, match=f"{cluster.nodes[1].address.port}: it is a node of another cluster"):
                await c.put("k", "v", timeout_s=0.8)


async def test_a_session_that_could_not_be_opened_is_told_with_its_last_word():
    async with faked() as cluster:
        cluster.nodes[0].instead["POST"].extend([refuse(Code.OVERLOADED, retry_after_ms=20)] * 99)
        async with client(cluster.urls) as c:
            with pytest.raises(Unreachable, match=r"no session could be opened in time.*429 because of overloaded"):
                await c.put("k", "v", timeout_s=0.3)


async def test_sessions_that_are_over_at_once_are_opened_with_pauses():
    """faults 49: a cluster whose time runs wild is not asked for a thousand sessions a second."""
    async with faked() as cluster:
        cluster.expired.update(f"{number:032x}" for number in range(1, 1000))
        async with client(cluster.urls) as c:
            with pytest.raises(Unreachable):
                await c.put("k", "v", timeout_s=1.0)
        assert 3 <= cluster.sessions <= 12
