"""The whole client against nodes that break off, lie, stall, and disagree; on both event loops."""

from __future__ import annotations

import asyncio
import inspect
import re
from typing import Any

import pytest

import raftkv.client
from raftkv.client import Client, Rejected, Unreachable, sync
from raftkv.problems import Code
from tests.client.fake import (
    PATIENCE_S,
    Act,
    Asked,
    FakeNode,
    Gate,
    answer,
    bound_answers,
    client,
    execute_and_reset,
    execute_and_say_only,
    faked,
    has_ipv6,
    redirection,
    refuse,
    reset,
    say,
    until,
)

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
                c.delete_range(prefix="k", limit=0),
                c.delete_range(prefix="k", limit=True),
                anext(c.range(limit=-1)),
                anext(c.pages(page_items_max=0)),
                anext(c.pages(page_items_max=10_001)),
            ):
                with pytest.raises((ValueError, TypeError)):
                    await wrong
        assert [node.asked for node in cluster.nodes] == [[], [], []]


@pytest.mark.parametrize("face", [Client, sync.Client])
def test_whoever_types_a_program_finds_every_name_that_the_methods_speak_of(face):
    public: list[Any] = [
        getattr(face, name) for name in dir(face) if name in ("__init__", "figures") or not name.startswith("_")
    ]
    methods: list[Any] = [one.fget if isinstance(one, property) else one for one in public]
    for method in methods:
        assert method.__name__ == "__init__" or method.__doc__
        for annotation in inspect.get_annotations(method).values():
            for name in re.findall(r"\b[A-Z]\w+", annotation):
                assert name in (*raftkv.client.__all__, "None", "Sequence", "AsyncIterator", "Iterator"), annotation


def test_both_faces_take_the_same_arguments():
    for name, method in vars(Client).items():
        if not name.startswith("_") and name != "figures":
            other = inspect.signature(vars(sync.Client)[name])
            assert other.parameters == inspect.signature(method).parameters


async def test_a_range_delete_goes_in_commands_that_the_cluster_takes():
    async with faked(1) as cluster:

        async def delete(asked: Asked) -> bytes:
            count = int(asked.target.partition("limit=")[2] or "10000")
            return say(200, {"deleted": count, "more": True, "revision": 1})

        node = cluster.nodes[0]
        node.always = delete
        async with client(cluster.urls) as c:
            done = await c.delete_range(prefix="k", limit=25_000)
            limits = [asked.target.partition("limit=")[2] for asked in cluster.wrote("DELETE")]
            assert (done.deleted, done.more, limits) == (25_000, True, ["10000", "10000", "5000"])
            node.instead["DELETE"].extend([delete, refuse(Code.DISK_FULL)])
            with pytest.raises(Rejected) as refused:
                await c.delete_range(prefix="k")
        assert refused.value.__notes__ == ["10000 keys had been deleted before, by other commands of the same call"]


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
        async with client(cluster.urls, silence_s=PATIENCE_S, answer_timeout_s=PATIENCE_S, timeout_s=PATIENCE_S) as c:
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
    bound_answers(monkeypatch, 1000)
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


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback address")
async def test_nodes_may_have_ipv6_addresses():
    async with faked(host="::1") as cluster:
        async with client([cluster.nodes[0].url]) as c:
            await c.put("k", "v")
            cluster.lead(cluster.nodes[1])
            await c.put("k", "v")
            assert c.figures.redirects == 1
        assert [asked.fields["host"] for asked in cluster.wrote()][-1] == f"[::1]:{cluster.nodes[1].address.port}"


@pytest.mark.parametrize("asks", ["status", "cluster"])
async def test_the_leader_s_own_word_is_had_from_nobody_else(asks):
    """/v1/status and /v1/cluster are never redirected: whoever led until now answers for itself."""
    async with faked() as cluster, client(cluster.urls) as c:
        await c.get("k")
        assert c._asker is not None
        finder = c._asker._finder
        await until(lambda: finder._task is None and not finder._asking)
        cluster.lead(cluster.nodes[1])
        if asks == "status":
            assert (await c.status()).id == "n2"
            assert (await c.status(cluster.nodes[2].url)).id == "n3"
        else:
            told = await c.cluster()
            assert told.voters[0].match_index is not None
            assert (await c.cluster(cluster.nodes[2].url)).voters[0].match_index is None


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
        async with client(cluster.urls, answer_timeout_s=60.0, timeout_s=60.0) as c:
            await c.put("k", "v")
            a.always = a.view = gate = Gate()
            put = asyncio.create_task(c.put("k", "v"))
            await until(lambda: gate.held > 0)
            cluster.lead(b)
            began_s = asyncio.get_running_loop().time()
            await put
            assert asyncio.get_running_loop().time() - began_s < PATIENCE_S
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


async def test_reads_that_anybody_may_answer_go_round():
    async with faked() as cluster, client(cluster.urls, silence_s=PATIENCE_S, answer_timeout_s=PATIENCE_S) as c:
        await c.get("k")
        for _ in range(6):
            await c.get("k", consistency="follower")
        reads = [sum("follower" in asked.target for asked in node.asked) for node in cluster.nodes]
        assert reads == [2, 2, 2]


async def test_reads_that_anybody_may_answer_leave_out_the_silent():
    async with faked() as cluster, client(cluster.urls) as c:
        cluster.nodes[1].always = gate = Gate()
        for _ in range(60):
            await c.get("k", consistency="follower")
        assert 1 <= gate.held <= 6, "left out for longer each time; else it would have been asked twenty times"
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
