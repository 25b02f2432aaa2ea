"""What clients feel when the leader dies, stops, or sleeps; and bytes that nobody should send. Three nodes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from itertools import count
from random import Random

import pytest

from tests.live.client import now_ms, problem_of
from tests.live.cluster import SERVING_WITHIN_S, LiveCluster, LiveNode, eventually, until
from tests.live.fuzz import fuzz
from tests.live.leadership import kill_leader, next_write
from tests.live.wire import Answer, Trouble, read_answer, request_bytes
from tests.live.workload import target_of

pytestmark = [pytest.mark.live, pytest.mark.timeout(60)]

IN_FLIGHT = 20
MISSED, MISSED_BYTES = 24, 512 * 1024


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveCluster]:
    with LiveCluster(tmp_path_factory.mktemp("leaders"), nodes_count=3) as cluster:
        cluster.start()
        yield cluster


@pytest.fixture
async def cluster(processes: LiveCluster) -> AsyncIterator[LiveCluster]:
    """Serving before each test, and again after it; no node ended by itself, none logged an error."""
    processes.resume_all()
    processes.start()
    await processes.until_serving()
    yield processes
    processes.connections.close()
    await processes.until_serving()
    assert [str(ending) for ending in processes.endings() if ending.by_itself] == []
    assert [line for node in processes.nodes.values() for line in node.loud_lines()] == []


async def ask(cluster: LiveCluster, node: LiveNode, method: str, key: bytes, body: bytes = b"") -> Answer:
    return await cluster.connections.exchange(node.address, method, target_of(key), body=body, timeout_s=7.0)


async def written(cluster: LiveCluster, key: bytes, value: bytes, *, other_than: LiveNode) -> None:
    """It is acknowledged, whoever of the others leads."""

    async def look() -> bool | None:
        leader = await cluster.until_leader(other_than=other_than)
        with contextlib.suppress(Trouble):
            return (await ask(cluster, leader, "PUT", key, value)).status in (200, 201) or None
        return None

    await eventually(look, within_s=SERVING_WITHIN_S, what="a write to be acknowledged")


async def read(cluster: LiveCluster, key: bytes) -> bytes | None:
    """What it holds, by the word of whoever leads: one that does not know, or leads no more, is no witness."""

    async def look() -> Answer | None:
        leader = await cluster.until_leader()
        with contextlib.suppress(Trouble):
            answer = await ask(cluster, leader, "GET", key)
            return answer if answer.status in (200, 404) else None
        return None

    answer = await eventually(look, within_s=SERVING_WITHIN_S, what="an answer to a read")
    return answer.body if answer.status == 200 else None


class Prepared:
    """A request over a connection of its own: connected early, sent when told, its answer read later."""

    def __init__(self, node: LiveNode, method: str, key: bytes, query: str = "", *, body: bytes = b"") -> None:
        self.key, self._node = key, node
        self._request = request_bytes(node.address, method, target_of(key) + query, {}, body)

    async def connect(self) -> None:
        self._reader, self._writer = await asyncio.open_connection(*self._node.address)

    def send(self) -> None:
        """The node has the bytes, or at least its kernel."""
        self._writer.write(self._request)

    async def answer(self) -> Answer:
        async with asyncio.timeout(7.0):
            answer = await read_answer(self._reader)
        self._writer.close()
        return answer


async def test_after_a_leader_is_killed_writes_are_accepted_within_five_seconds(
    cluster: LiveCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    pause_ms = await kill_leader(cluster, Random(1))
    with capsys.disabled():
        print(f"\n  the leader was killed: {pause_ms:.0f} ms until a write was accepted")  # noqa: T201
    assert pause_ms < 5_000


async def test_a_leader_asked_to_stop_hands_over_and_ends_with_0(
    cluster: LiveCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    leader = await cluster.until_serving()
    leader.ask_to_stop()
    pause_ms = await next_write(cluster, Random(2))
    with capsys.disabled():
        print(f"\n  the leader was asked to stop: {pause_ms:.0f} ms until a write was accepted")  # noqa: T201
    assert await leader.ended() == 0
    assert "event=transfer_began" in leader.log_text()
    assert pause_ms < 3_000


async def test_writes_that_wait_at_a_leader_asked_to_stop_are_answered_by_what_became_of_them(
    cluster: LiveCluster,
) -> None:
    """faults 69: the followers sleep while the writes arrive, so that they wait when the leader resigns."""
    tries = count()

    async def waiting() -> tuple[LiveNode, list[Prepared]] | None:
        return await _writes_that_wait(cluster, b"waits/%d/" % next(tries))

    leader, sent = await eventually(waiting, within_s=SERVING_WITHIN_S, what="a leader that holds writes")
    leader.ask_to_stop()
    cluster.resume_all()
    answers = await asyncio.gather(*(each.answer() for each in sent))
    assert await leader.ended() == 0
    for each, answer in zip(sent, answers, strict=True):
        found = await read(cluster, each.key)
        if answer.status == 201:
            assert found == each.key
        elif answer.status == 503:
            assert found is None and problem_of(answer)["code"] in ("superseded", "shutting_down")
        else:
            assert answer.status == 504, answer


async def _writes_that_wait(cluster: LiveCluster, prefix: bytes) -> tuple[LiveNode, list[Prepared]] | None:
    """A leader, and writes that it has taken and cannot answer, for all others sleep.

    None: it stepped down before, as one does that hears nobody for a while; this machine was slow, and all are awake.
    """
    leader = await cluster.until_serving()
    keys = [prefix + b"%d" % number for number in range(IN_FLIGHT)]
    sent = [Prepared(leader, "PUT", key, body=key) for key in keys]
    for each in sent:
        await each.connect()
    for node in cluster.nodes.values():
        if node is not leader:
            node.pause()
    for each in sent:
        each.send()
    if await _are_waiting(cluster, leader, IN_FLIGHT):
        return leader, sent
    cluster.resume_all()
    await asyncio.gather(*(each.answer() for each in sent))
    return None


async def _are_waiting(cluster: LiveCluster, leader: LiveNode, number: int) -> bool:
    """Within less than an election timeout the leader has taken so many writes that nobody has answered."""
    began_at = now_ms()
    while now_ms() - began_at < 250:
        text = (await cluster.connections.exchange(leader.address, "GET", "/metrics", timeout_s=2.0)).body.decode()
        if f"raftkv_replica_writes_in_flight_count {number}.0" in text:
            return True
        await asyncio.sleep(0.005)
    return False


async def test_a_leader_that_slept_answers_nothing_from_the_past(cluster: LiveCluster) -> None:
    """faults 23, 59: requests reach it while it sleeps; it wakes up long after another has led and written.

    They come over connections that it has accepted, so that it sees them as early as what its peers say, and
    it has missed so much that it stays behind for a while.
    """
    sleeper = await cluster.until_serving()
    assert (await ask(cluster, sleeper, "PUT", b"slept", b"old")).status in (200, 201)
    reads = [Prepared(sleeper, "GET", b"slept", query) for query in ["", "?consistency=follower"] * 10]
    writes = [Prepared(sleeper, "PUT", b"slept/%d" % number, body=b"past") for number in range(10)]
    for each in [*reads, *writes]:
        await each.connect()
    assert (await ask(cluster, sleeper, "GET", b"slept")).body == b"old", "it leads, and has accepted all of them"
    sleeper.pause()
    began_at = now_ms()
    for number in range(MISSED):
        await written(cluster, b"missed/%d" % number, bytes(MISSED_BYTES), other_than=sleeper)
    await written(cluster, b"slept", b"new", other_than=sleeper)
    for each in [*reads, *writes]:
        each.send()
    await until(lambda: now_ms() - began_at > 2_000, within_s=3, what="two seconds of sleep to pass")
    sleeper.resume()
    answers = await asyncio.gather(*(each.answer() for each in reads))
    assert {answer.body for answer in answers if answer.status == 200} <= {b"new"}
    assert {answer.status for answer in answers} <= {200, 307, 503}
    for number, answer in enumerate(await asyncio.gather(*(each.answer() for each in writes))):
        found = await read(cluster, b"slept/%d" % number)
        assert (answer.status in (307, 503)) == (found is None), (answer, found)


async def test_nodes_started_again_with_the_same_command_just_go_on(cluster: LiveCluster) -> None:
    leader = await cluster.until_serving()
    assert (await ask(cluster, leader, "PUT", b"stays", b"here")).status in (200, 201)
    before = await cluster.until_equal()
    for node in cluster.nodes.values():
        node.ask_to_stop()
    assert [await node.ended() for node in cluster.nodes.values()] == [0, 0, 0]
    cluster.start()
    leader = await cluster.until_serving()
    assert (await ask(cluster, leader, "GET", b"stays")).body == b"here"
    after = await cluster.until_equal()
    for id, status in after.items():
        assert all(status[name] == before[id][name] for name in ("cluster_id", "revision", "state_hash"))
        assert status["term"] > before[id]["term"]


async def test_bytes_that_nobody_should_send_change_nothing(cluster: LiveCluster) -> None:
    """faults 19, 32, 57, 63, 64, 66: half of them to the leader, half to a follower."""
    leader = await cluster.until_serving()
    follower = next(node for node in cluster.nodes.values() if node is not leader)
    before = await cluster.until_equal()
    for node in (leader, follower):
        found = await fuzz(node.address, inputs_count=500, seed=3)
        assert found.findings == []
        assert found.statuses.total() == 500
        assert len(found.statuses) > 5, "the inputs did not reach far enough to be refused for many reasons"
    after = await cluster.until_equal()
    for id, status in after.items():
        assert (status["revision"], status["state_hash"]) == (before[id]["revision"], before[id]["state_hash"])
    assert (await ask(cluster, await cluster.until_leader(), "PUT", b"after fuzz", b"1")).status == 201


async def test_a_killed_node_refuses_connections(cluster: LiveCluster) -> None:
    """What the tests above rest on: nobody else answers at a dead node's port."""
    node = cluster.nodes["n3"]
    node.kill()
    with pytest.raises(Trouble):
        await ask(cluster, node, "GET", b"anything")
    assert node.endings[-1].exit_code == -9
    node.start()
