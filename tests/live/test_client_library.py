"""The Python client against real nodes: every method, and leaders that die and sleep while a program writes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from raftkv.client import (
    Client,
    ClientSettings,
    Compare,
    ConditionFailed,
    DeleteDone,
    Op,
    Rejected,
    TxnDelete,
    TxnDeleteRange,
    TxnGet,
    TxnPut,
    TxnRange,
    sync,
)
from tests.live.client_soak import soak
from tests.live.cluster import LiveCluster

pytestmark = [pytest.mark.live, pytest.mark.timeout(60)]


@pytest.fixture(scope="module", params=[1, 3])
def processes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveCluster]:
    with LiveCluster(tmp_path_factory.mktemp("client"), nodes_count=request.param) as cluster:
        cluster.start()
        yield cluster


@pytest.fixture
async def cluster(processes: LiveCluster) -> AsyncIterator[LiveCluster]:
    await processes.until_serving()
    yield processes
    processes.connections.close()


@pytest.fixture
async def c(cluster: LiveCluster) -> AsyncIterator[Client]:
    async with Client(urls(cluster)) as client:
        await client.delete_range(all_keys=True)
        yield client


def urls(cluster: LiveCluster) -> list[str]:
    return [node.url for node in cluster.nodes.values()]


KEYS = ["plain", "a/b", "a/../b", ".", "..", "+ %?#", b"\x00\xff", "ä", b"\xff" * 4096, "%2E"]


@pytest.mark.parametrize("key", KEYS, ids=range(len(KEYS)))
async def test_any_key_is_put_read_compared_and_deleted(c: Client, key: str | bytes) -> None:
    raw = key.encode() if isinstance(key, str) else key
    assert await c.get(key) is None
    first = await c.put(key, b"\x00\xff", if_absent=True)
    assert (first.created, first.version, first.create_revision) == (True, 1, first.revision)
    with pytest.raises(ConditionFailed) as failed:
        await c.put(key, "no", if_absent=True)
    assert (failed.value.mod_revision, failed.value.revision) == (first.revision, first.revision)
    second = await c.put(key, "text", if_revision=first.revision)
    assert (second.created, second.version, second.create_revision) == (False, 2, first.revision)
    item = await c.get(key)
    assert item is not None
    assert (item.key, item.text, item.mod_revision, item.version) == (raw, "text", second.revision, 2)
    with pytest.raises(ConditionFailed):
        await c.delete(key, if_revision=first.revision)
    assert (await c.delete(key, if_present=True)).deleted
    assert not (await c.delete(key)).deleted
    with pytest.raises(ConditionFailed) as failed:
        await c.put(key, "no", if_present=True)
    assert failed.value.mod_revision == 0
    assert (await c.put(key, "anew", if_revision=0)).created


@pytest.mark.parametrize("consistency", ["linearizable", "lease", "follower", "stale"])
async def test_reads_of_every_consistency(c: Client, consistency: str) -> None:
    for number in range(6):
        await c.put("k", f"{number}")
        item = await c.get("k", consistency=consistency)  # type: ignore[arg-type]
        assert item is not None
        assert item.text == f"{number}", "stale reads too: this client has seen the write"


async def test_ranges_come_whole_in_order_and_page_by_page(c: Client) -> None:
    keys = [f"r/{number:04}".encode() for number in range(25)]
    await asyncio.gather(*(c.put(key, key[::-1]) for key in keys))
    await c.put("s", "not in it")
    assert [item.key async for item in c.range(prefix="r/")] == keys
    assert [item.value async for item in c.range(prefix="r/")] == [key[::-1] for key in keys]
    assert [item.key async for item in c.range(prefix="r/", reverse=True, limit=3)] == keys[:-4:-1]
    assert [item.key async for item in c.range(start=keys[3], end=keys[7])] == keys[3:7]
    assert [item.value async for item in c.range(prefix="r/", keys_only=True, limit=2)] == [b"", b""]
    assert [item.key async for item in c.range(prefix="r/", limit=0)] == []
    pages = [page async for page in c.pages(prefix="r/", page_items_max=10)]
    assert [len(page.items) for page in pages] == [10, 10, 5]
    pages = [page async for page in c.pages(prefix="r/", page_items_max=10, limit=12, reverse=True, keys_only=True)]
    assert [item.key for page in pages for item in page.items] == keys[:12:-1]
    assert {item.value for page in pages for item in page.items} == {b""}
    stale = [item.key async for item in c.range(prefix="r/", consistency="stale")]
    assert stale == keys


async def test_ranges_are_deleted(c: Client) -> None:
    await asyncio.gather(*(c.put(f"{room}/{number}", "v") for room in "ab" for number in range(10)))
    some = await c.delete_range(prefix="a/", limit=3)
    assert (some.deleted, some.more) == (3, True)
    rest = await c.delete_range(prefix="a/")
    assert (rest.deleted, rest.more) == (7, False)
    assert (await c.delete_range(start="b/5", end="b/8")).deleted == 3
    assert [item.key async for item in c.range()] == [f"b/{number}".encode() for number in (0, 1, 2, 3, 4, 8, 9)]
    assert (await c.delete_range(all_keys=True)).deleted == 7


async def test_a_transaction_is_one_write(c: Client) -> None:
    await c.put("state", "idle")
    claim = [Compare.absent("lock"), Compare.value("state", "==", "idle"), Compare.present("state")]
    operations = [Op.put("lock", b"\xff"), Op.get("lock"), Op.delete("state"), Op.range(prefix="l"), Op.get("state")]
    done = await c.txn(compare=claim, success=operations, failure=[Op.get("lock")])
    lock = await c.get("lock")
    assert lock is not None
    assert done.succeeded
    assert done.revision == lock.mod_revision
    assert done.results == (
        TxnPut(lock.mod_revision, 1),
        TxnGet(lock),
        TxnDelete(deleted=True),
        TxnRange((lock,), more=False),
        TxnGet(None),
    )
    done = await c.txn(
        compare=[*claim, Compare.mod_revision("lock", ">", lock.mod_revision)],
        success=[Op.put("x", "y")],
        failure=[Op.get("lock"), Op.delete_range(prefix="l")],
    )
    assert (done.succeeded, done.results) == (False, (TxnGet(lock), TxnDeleteRange(1, more=False)))
    with pytest.raises(Rejected) as refused:
        await c.txn(success=[Op.put("k", "1"), Op.put("k", "2")])
    assert refused.value.code == "duplicate_key"
    assert await c.get("k") is None


async def test_what_is_too_large_is_refused_at_once(c: Client) -> None:
    with pytest.raises(Rejected) as refused:
        await c.put("k", bytes(3 * 1024 * 1024))
    assert refused.value.code == "too_large"
    assert await c.get("k") is None
    with pytest.raises(Rejected) as refused:
        await c.put("k" * 5000, "v")
    assert refused.value.code == "bad_request"


async def test_the_cluster_tells_of_itself(cluster: LiveCluster, c: Client) -> None:
    await c.put("k", "v")
    known = await c.cluster()
    leader = await c.status()
    assert {member.url for member in known.voters} == set(urls(cluster))
    assert known.leader is not None
    assert (leader.role, leader.id, leader.term) == ("leader", known.leader.id, known.term)
    for node in cluster.nodes.values():
        assert (await c.status(node.url)).id == node.id
        assert (await c.cluster(node.url)).leader_id == leader.id


async def test_leadership_is_transferred_and_calls_follow(cluster: LiveCluster, c: Client) -> None:
    await c.put("k", "v")
    before = await c.status()
    if len(cluster.nodes) == 1:
        with pytest.raises(Rejected):
            await c.transfer_leadership()
        return
    done = await c.transfer_leadership()
    assert (done.changed, done.id != before.id) == (True, True)
    assert (await c.transfer_leadership(before.id)).id == before.id
    assert not (await c.transfer_leadership(before.id)).changed
    assert (await c.put("k", "v")).version == 2
    with pytest.raises(Rejected) as refused:
        await c.transfer_leadership("nobody")
    assert refused.value.code == "member_not_found"


async def test_many_tasks_write_at_once_each_exactly_once(c: Client) -> None:
    term = (await c.status()).term
    done = await asyncio.gather(*(c.put("counter", "v") for _ in range(500)))
    assert sorted(each.version for each in done) == list(range(1, 501))
    assert c.figures.sessions == 1
    assert c.figures.retries == 0 or (await c.status()).term > term, "only where another has come to lead"


async def test_a_restarted_cluster_costs_no_error_and_loses_no_number(cluster: LiveCluster, c: Client) -> None:
    """faults 3, 47: the session is in the log."""
    await c.put("k", "v")
    cluster.kill_all()
    put = asyncio.create_task(c.put("k", "v"))
    cluster.start()
    assert (await put).version == 2
    assert c.figures.sessions == 1


async def test_the_same_without_asyncio(cluster: LiveCluster) -> None:
    def program() -> None:
        with sync.Client(urls(cluster)) as c:
            c.delete_range(all_keys=True)
            first = c.put("s/k", "1")
            c.put("s/k", "2", if_revision=first.revision)
            item = c.get("s/k")
            assert item is not None
            assert (item.text, item.version) == ("2", 2)
            c.put("s/l", "3")
            assert [item.text for item in c.range(prefix="s/")] == ["2", "3"]
            assert [len(page.items) for page in c.pages(prefix="s/", page_items_max=1)] == [1, 1]
            assert c.txn(success=[Op.delete("s/k")]).results == (TxnDelete(deleted=True),)
            assert isinstance(c.delete("s/l"), DeleteDone)
            assert c.cluster().leader_id == c.status().id
            with pytest.raises(ConditionFailed):
                c.put("s/k", "no", if_present=True)

    await asyncio.to_thread(program)


async def test_no_error_reaches_a_program_that_writes_on_while_leaders_are_killed_and_stopped(
    tmp_path, capsys: pytest.CaptureFixture[str]
) -> None:
    """faults 46 to 51. The long form is ``python -m tests.live.client_soak --kills 50``."""
    with LiveCluster(tmp_path, nodes_count=3) as cluster:
        cluster.start()
        await cluster.until_serving()
        soaked = await soak(cluster, tasks=64, kills=3, pauses=1, settings=ClientSettings())
    with capsys.disabled():
        print(f"\n  {soaked}")  # noqa: T201
    assert soaked.errors == []
    assert soaked.wrong == []
    assert (soaked.kills, soaked.pauses) == (3, 1)
    assert soaked.longest_pause_s < 5.0
