"""Nodes in somebody's program: what they promise to whoever embeds them."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
from collections.abc import Callable, Coroutine
from typing import Any

import aiohttp
import pytest
import uvloop

from raftkv import Consistency, KeyValueMachine, Node, NotLeader, OutcomeUnknown, RaftkvError, Rejected, Unreachable
from raftkv.errors import DirectoryLocked
from raftkv.outcomes import Refused, Why
from raftkv.replica import HASH_INTERVAL
from raftkv.state_machine import SUBMITTED_BYTES_MAX
from tests.live.cluster import until
from tests.node.nodes import (
    PATIENCE_S,
    Adder,
    at_leader,
    configs,
    leader_of,
    lone_node,
    outcome,
    ready,
    running,
    totals,
)

Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine on the loop that the parameter names."""
    factory = uvloop.new_event_loop if request.param == "uvloop" else None

    def run_on(coroutine: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(coroutine)

    return run_on


def test_three_nodes_in_one_process_are_a_cluster(run: Run, tmp_path) -> None:
    async def story() -> None:
        async with running(configs(tmp_path, 3)) as nodes:
            leader = await leader_of(nodes)
            assert await asyncio.gather(*(leader.submit(b"1") for _ in range(100))) == list(range(1, 101))
            assert await totals(nodes) == [100, 100, 100]
            other = next(node for node in nodes if node is not leader)
            with pytest.raises(NotLeader) as refused:
                await other.submit(b"1")
            led = leader.leadership()
            assert (refused.value.leader_id, refused.value.leader_url, refused.value.term) == led[2:] + led[1:2]
            with pytest.raises(NotLeader):
                await other.query("total")
            assert (await other.query("total", consistency=Consistency.STALE))[1] <= 100
            assert (await leader.transfer_leadership(other.config.id)).leader_id == other.config.id
            assert await at_leader(nodes, lambda node: node.submit(b"1")) == 101

    run(story())


def test_the_others_go_on_without_the_leader_and_it_comes_back_with_what_it_missed(run: Run, tmp_path) -> None:
    async def story() -> None:
        made = configs(tmp_path, 3)
        async with running(made) as nodes:
            leader = await leader_of(nodes)
            assert await leader.submit(b"5") == 5
            await leader.stop()
            left = [node for node in nodes if node is not leader]
            assert await at_leader(left, lambda node: node.submit(b"2")) == 7
            async with Node(leader.config, state_machine=Adder()) as back:
                await ready([back])
                assert await totals([back, *left]) == [7, 7, 7]
        async with running(made) as nodes:
            assert await totals(nodes) == [7, 7, 7], "all of them, from their disks"

    run(story())


# ------------------------------------------------------------------------------------------------- ready


async def test_a_node_that_waits_for_others_says_for_whom(tmp_path) -> None:
    async with Node(configs(tmp_path, 3)[0], state_machine=Adder()) as node:
        with pytest.raises(Unreachable, match=r"n1 is not ready after 0\.05 s: .* waiting for n2, n3"):
            await node.until_ready(timeout_s=0.05)
        with pytest.raises(NotLeader, match="waiting for n2, n3"):
            await node.submit(b"1")
        with pytest.raises(NotLeader, match="waiting for n2, n3"):
            await node.query("total", consistency=Consistency.FOLLOWER)
        assert (node.status().role, node.leadership().leader_id) == ("follower", None)


async def test_whoever_waits_for_a_node_hears_that_it_is_stopped(tmp_path) -> None:
    async with Node(configs(tmp_path, 3)[0], state_machine=Adder()) as node:
        waits = asyncio.create_task(outcome(node.until_ready(timeout_s=PATIENCE_S)))
        await asyncio.sleep(0)
    assert (await waits).code == "shutting_down"


# -------------------------------------------------------------------------------------- what is refused


async def test_what_no_log_could_carry_is_refused_and_the_largest_command_is_not(tmp_path) -> None:
    async with lone_node(tmp_path) as node:
        for command, code in ((bytearray(b"1"), "bad_request"), ("1", "bad_request"), (None, "bad_request")):
            assert (await outcome(node.submit(command))).code == code  # type: ignore[arg-type]
        assert (await outcome(node.submit(b"0" * (SUBMITTED_BYTES_MAX + 1)))).code == "too_large"
        assert await node.submit(b"7" + b" " * (SUBMITTED_BYTES_MAX - 1)) == 7


async def test_what_exceeds_the_settings_is_refused_and_the_rest_is_executed(tmp_path) -> None:
    async with lone_node(tmp_path, proposals_in_flight_max=3, reads_in_flight_max=3) as node:
        writes = await asyncio.gather(*(outcome(node.submit(b"1")) for _ in range(5)))
        assert [getattr(write, "code", write) for write in writes] == [1, 2, 3, "overloaded", "overloaded"]
        reads = await asyncio.gather(*(outcome(node.query(i)) for i in range(5)))
        assert [getattr(read, "code", read) for read in reads] == [(0, 3), (1, 3), (2, 3), "overloaded", "overloaded"]


async def test_the_bounds_of_a_stale_read_are_kept(tmp_path) -> None:
    async with lone_node(tmp_path, request_timeout_ms=200) as node:
        await node.submit(b"1")
        applied = node.status().applied_index
        stale = Consistency.STALE
        assert await node.query("q", consistency=stale, min_index=applied, max_staleness_ms=60_000) == ("q", 1)
        refused = await outcome(node.query("q", consistency=stale, min_index=applied + 1))
        assert refused.code == "too_stale"
        assert (await outcome(node.query("q", min_index=1))).code == "bad_request"
        with pytest.raises(ValueError, match="nonsense"):
            await node.query("q", consistency="nonsense")  # type: ignore[arg-type]


async def test_leadership_that_nobody_can_take_stays(tmp_path) -> None:
    async with lone_node(tmp_path) as node:
        assert (await outcome(node.transfer_leadership())).code == "member_unreachable"
        assert not (await node.transfer_leadership("n1")).changed
        assert await node.submit(b"1") == 1


async def test_a_machine_whose_hash_is_not_known_is_not_compared(tmp_path) -> None:
    """At every multiple of 1,024 the others are asked for theirs."""
    async with lone_node(tmp_path) as node:
        await asyncio.gather(*(node.submit(b"1") for _ in range(HASH_INTERVAL + 1)))
        assert node.status().applied_index > HASH_INTERVAL


async def test_a_query_that_raises_harms_only_whoever_asked(tmp_path) -> None:
    async with lone_node(tmp_path) as node:
        answers = await asyncio.gather(node.query("total"), node.query("raise"), return_exceptions=True)
        assert list(map(repr, answers)) == ["('total', 0)", "LookupError('no such thing')"]
        assert await node.submit(b"1") == 1


# ------------------------------------------------------------------------------ time, cancelling, stopping


async def test_a_machine_sees_the_time_that_it_waits_for(tmp_path) -> None:
    machine = Adder()
    async with lone_node(tmp_path, machine) as node:
        await node.submit(b"due 20")
        await until(lambda: machine.due_ms is None, within_s=PATIENCE_S, what="the tick")
    tick = machine.entries[-1]
    assert tick.command == b"tick"
    assert tick.stamp_ms >= 20


async def test_a_cancelled_submit_takes_nothing_back(tmp_path) -> None:
    async with lone_node(tmp_path) as node:
        cancelled = asyncio.create_task(node.submit(b"5"))
        await asyncio.sleep(0)
        cancelled.cancel()
        assert await node.submit(b"1") == 6
        with pytest.raises(asyncio.CancelledError):
            await cancelled


async def test_a_node_that_stops_answers_what_it_has_taken_and_refuses_the_rest(tmp_path) -> None:
    async with lone_node(tmp_path) as node:
        taken = [asyncio.create_task(node.submit(b"1")) for _ in range(10)]
        await asyncio.sleep(0)
        stops = asyncio.create_task(node.stop())
        await asyncio.sleep(0)
        for late in (node.submit(b"1"), node.query("total"), node.until_ready(), node.transfer_leadership()):
            assert (await outcome(late)).code == "shutting_down"
        await stops
        assert await asyncio.gather(*taken) == list(range(1, 11))
        assert await node.ended is None
        await node.stop()


async def test_while_a_node_hands_over_it_takes_nothing_more(tmp_path) -> None:
    """Its ports are still open then: clients who go on writing would keep it from ever coming to an end."""
    async with lone_node(tmp_path) as node:
        running_node = node._running
        assert running_node is not None
        refused: list[Why] = []
        stops = asyncio.create_task(node.stop())
        while not stops.done() and Why.SHUTTING_DOWN not in refused:
            running_node.service.submit(
                b"1", lambda outcome: refused.append(outcome.why) if isinstance(outcome, Refused) else None
            )
            await asyncio.sleep(0)
        assert Why.SHUTTING_DOWN in refused
        await stops


async def test_a_stop_without_a_majority_leaves_no_write_without_an_end(tmp_path) -> None:
    async with running(configs(tmp_path, 3, request_timeout_ms=300)) as nodes:
        leader = await leader_of(nodes)
        for node in nodes:
            if node is not leader:
                await node.stop()
        written = asyncio.create_task(outcome(leader.submit(b"1")))
        read = asyncio.create_task(outcome(leader.query("total")))
        await asyncio.sleep(0)
        await leader.stop()
        assert isinstance(await written, OutcomeUnknown | NotLeader)
        assert isinstance(await read, Unreachable | Rejected)


async def test_a_stop_goes_on_when_whoever_asked_is_cancelled(tmp_path) -> None:
    async with lone_node(tmp_path) as node:
        asked = asyncio.create_task(node.stop())
        await asyncio.sleep(0)
        asked.cancel()
        assert await node.ended is None
        with pytest.raises(asyncio.CancelledError):
            await asked


async def test_a_cancelled_wait_for_the_end_is_nobody_elses(tmp_path) -> None:
    async with lone_node(tmp_path) as node:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(node.ended, 0.01)
        assert not node.ended.done()
        assert await node.submit(b"1") == 1


async def test_a_node_runs_once_and_says_so(tmp_path) -> None:
    (config,) = configs(tmp_path, 1)
    node = Node(config, state_machine=Adder())
    await node.stop()
    for call in (node.submit(b"1"), node.query("total"), node.until_ready()):
        with pytest.raises(RaftkvError, match="not started"):
            await call
    with pytest.raises(RaftkvError, match="not started"):
        node.ended  # noqa: B018 - asking is what fails
    async with node:
        with pytest.raises(RaftkvError, match="runs once"):
            await node.start()
    with pytest.raises(RaftkvError, match="runs once"):
        await node.start()


# ------------------------------------------------------------------------------------- a start that fails


async def test_a_directory_in_use_is_refused_and_the_node_may_start_later(tmp_path) -> None:
    (config,) = configs(tmp_path, 1)
    second = Node(config, state_machine=Adder())
    async with Node(config, state_machine=Adder()):
        with pytest.raises(DirectoryLocked):
            await second.start()
    async with second:
        await ready([second])


async def test_a_port_in_use_leaves_nothing_locked(tmp_path) -> None:
    (config,) = configs(tmp_path, 1)
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", config.listen.port)
    with pytest.raises(OSError, match="address already in use"):
        await Node(config, state_machine=Adder()).start()
    server.close()
    async with Node(config, state_machine=Adder()) as node:
        await ready([node])


# ------------------------------------------------------------------------------------------- its manners


async def test_the_process_is_left_as_it_was(tmp_path) -> None:
    def what_is_the_processs() -> tuple[Any, ...]:
        handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        logger = logging.getLogger("raftkv")
        return handlers, list(logging.root.handlers), logging.root.level, logger.handlers, logger.level, gc.isenabled()

    before = what_is_the_processs(), gc.get_freeze_count()
    async with lone_node(tmp_path) as node:
        await node.submit(b"1")
        assert (what_is_the_processs(), gc.get_freeze_count()) == before


@pytest.mark.parametrize(("machine", "status"), [(Adder, 404), (KeyValueMachine, 201)])
async def test_keys_are_served_where_the_store_is_replicated_and_nowhere_else(tmp_path, machine, status: int) -> None:
    async with lone_node(tmp_path, machine()) as node, aiohttp.ClientSession(node.config.url) as session:
        async with session.put("/v1/kv/a", data=b"v") as answer:
            assert answer.status == status
            assert status == 201 or "another state machine" in (await answer.json())["detail"]
        for path in ("/v1/status", "/v1/cluster", "/healthz", "/readyz", "/metrics", "/v1/openapi.json"):
            async with session.get(path) as answer:
                assert answer.status == 200, path


@pytest.mark.parametrize("machine", [Adder, KeyValueMachine])
async def test_a_status_tells_what_the_machine_knows(tmp_path, machine) -> None:
    async with lone_node(tmp_path, machine()) as node:
        status = node.status()
        assert (status.id, status.role, status.leader_id) == ("n1", "leader", "n1")
        is_store = machine is KeyValueMachine
        assert (status.revision == 0, status.state_hash is not None) == (is_store, is_store)
