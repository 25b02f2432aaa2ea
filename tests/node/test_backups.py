"""Backups of a node that serves: what they have, how many at once, and what is left of those that are given up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from raftkv import Node, NodeConfig
from raftkv.api.service import BackupBusy, BackupOpened, BackupOutcome
from raftkv.errors import WrongIdentity
from raftkv.node.backups import BACKUPS_MAX, Backups
from raftkv.node.embedding import CarefulMachine
from raftkv.node.recovering import restore
from raftkv.outcomes import (
    Answered,
    Consistency,
    Leadership,
    ReadOutcome,
    ReadTimedOut,
    Refused,
    SnapshotOutcome,
    SnapshotRefused,
    SnapshotTaken,
    SnapshotUnderWay,
    SnapshotWhy,
    Why,
)
from raftkv.storage.snapshot_proving import SnapshotProof
from tests.live.cluster import free_ports, until
from tests.node.nodes import ALONE, PATIENCE_S, Adder, lone_node
from tests.node.test_embedded_snapshots import add, until_snapshot

OFTEN: dict[str, Any] = {"log_tail_entries": 1, "log_tail_bytes": 1}


class Incurious(Adder):
    """A machine that is asked nothing by nobody but its owner."""

    def query(self, query: Any) -> Any:
        assert query in ("total", "who?"), query
        return super().query(query)


async def opened(node: Node, *, wait_ms: int = 10_000) -> BackupOutcome:
    future: asyncio.Future[BackupOutcome] = asyncio.get_running_loop().create_future()
    assert node._running is not None
    node._running.service.open_backup(future.set_result, wait_ms=wait_ms)
    async with asyncio.timeout(PATIENCE_S):
        return await future


async def backup_of(node: Node) -> BackupOpened:
    outcome = await opened(node)
    assert isinstance(outcome, BackupOpened), outcome
    return outcome


async def read(backup: BackupOpened, *, piece_bytes: int = 40) -> bytes:
    """All of it, proved; then it is closed."""
    source = backup.source
    pieces: list[bytes] = []
    while sum(map(len, pieces)) < source.size_bytes:
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        source.read(piece_bytes, future.set_result)
        async with asyncio.timeout(PATIENCE_S):
            pieces.append(await future)
        assert pieces[-1]
    source.close()
    data = b"".join(pieces)
    proof = SnapshotProof(len(data), path="the backup")
    proof.add(data)
    assert proof.finish().id.index == backup.index
    return data


@asynccontextmanager
async def restored(directory: Path, data: bytes) -> AsyncIterator[Node]:
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    config = NodeConfig.of(id="r1", data_dir=directory / "r1", url=url, **ALONE)
    await asyncio.to_thread((directory / "backup").write_bytes, data)
    await asyncio.to_thread(restore, directory / "backup", directory / "r1", node_id=config.id, peer_url=url)
    async with Node(config, state_machine=Adder()) as node:
        await node.until_ready(timeout_s=PATIENCE_S)
        yield node


async def test_it_has_all_that_was_acknowledged_before_and_restores_any_machine(tmp_path: Path) -> None:
    async with lone_node(tmp_path, Incurious(), **OFTEN) as node:
        await add(node, 5)
        first = await read(await backup_of(node))
        await add(node, 4)
        second = await read(await backup_of(node))
    for data, total in ((first, 5), (second, 9)):
        directory = tmp_path / str(total)
        directory.mkdir()
        async with restored(directory, data) as again:
            assert (await again.query("total"))[1] == total
            await add(again, 1)
            assert (await again.query("total"))[1] == total + 1


async def test_no_more_than_so_many_are_sent_at_once(tmp_path: Path) -> None:
    async with lone_node(tmp_path, **OFTEN) as node:
        await add(node, 1)
        backups = [await backup_of(node) for _ in range(BACKUPS_MAX)]
        assert isinstance(await opened(node), BackupBusy)
        backups[0].source.close()
        backups[0].source.close()  # what is closed twice makes room for one
        more = await backup_of(node)
        assert isinstance(await opened(node), BackupBusy)
        for backup in [*backups[1:], more]:
            backup.source.close()
        await read(await backup_of(node))


async def test_a_file_that_is_being_sent_stays_until_it_is_closed(tmp_path: Path) -> None:
    async with lone_node(tmp_path, snapshot_log_entries=10, **OFTEN) as node:
        await add(node, 1)
        backup = await backup_of(node)
        for _ in range(4):
            index = node.status().snapshot_index
            await add(node, 12)
            await until_snapshot(node, after=index)
        files = list(node.config.data_dir.glob("snapshot-*"))
        assert len(files) == 3
        await read(backup)
        await until(
            lambda: len(list(node.config.data_dir.glob("snapshot-*"))) == 2,
            within_s=PATIENCE_S,
            what="it to be deleted",
        )


async def test_what_is_read_of_a_closed_one_never_comes_and_harms_nobody(tmp_path: Path) -> None:
    async with lone_node(tmp_path, **OFTEN) as node:
        await add(node, 1)
        backup = await backup_of(node)
        came: list[bytes] = []
        backup.source.read(10, came.append)
        backup.source.close()
        await read(await backup_of(node))
        assert came in ([], [came[0]] if came else [])
        await add(node, 1)


async def test_whoever_does_not_wait_hears_that_it_is_under_way_and_leaves_room(tmp_path: Path) -> None:
    async with lone_node(tmp_path, **OFTEN) as node:
        for _ in range(BACKUPS_MAX + 2):
            await add(node, 1)
            outcome = await opened(node, wait_ms=0)
            if isinstance(outcome, BackupOpened):
                outcome.source.close()
            else:
                assert isinstance(outcome, SnapshotUnderWay), outcome
        await read(await backup_of(node))


async def test_a_node_stops_while_one_is_being_sent(tmp_path: Path) -> None:
    async with lone_node(tmp_path, **OFTEN) as node:
        await add(node, 1)
        backup = await backup_of(node)
        async with asyncio.timeout(PATIENCE_S):
            await node.stop()
        assert isinstance(await opened(node), Refused)
        backup.source.close()


async def test_who_belongs_to_no_cluster_yet_gives_none(tmp_path: Path) -> None:
    ports = free_ports(2)
    members = {f"n{place}": f"http://127.0.0.1:{port}" for place, port in enumerate(ports, 1)}
    config = NodeConfig.of(id="n1", data_dir=tmp_path / "n1", url=members["n1"], initial_cluster=members)
    async with Node(config, state_machine=Adder()) as node:
        outcome = await opened(node)
        assert isinstance(outcome, Refused) and outcome.why is Why.NOT_LEADER


def test_no_machine_is_asked_what_only_waits_for_its_turn() -> None:
    from raftkv.node.embedding import NOTHING

    assert CarefulMachine(Incurious()).query(NOTHING) is None


class Asked:
    """A replica that is asked, and says what a test wants."""

    def __init__(self, read: ReadOutcome, snapshot: SnapshotOutcome) -> None:
        self._read, self._snapshot = read, snapshot
        self.said: list[str] = []
        self.snapshots = self

    def read(self, query: object, consistency: Consistency, done: Callable[[ReadOutcome], None]) -> None:
        self.said.append(consistency.value)
        done(self._read)

    def ask(self, done: Callable[[SnapshotOutcome], None], *, wait_us: int) -> None:
        self.said.append("snapshot")
        done(self._snapshot)

    def open_backup(self, done: Callable[[None], None]) -> None:
        self.said.append("file")
        done(None)


CONFIRMED = Answered(12, None, Consistency.LINEARIZABLE)
TAKEN = SnapshotTaken(12, 4096, changed=True)
NOT_TAKEN = SnapshotRefused(SnapshotWhy.DISK_FULL, "it is full")
WAYS: list[tuple[ReadOutcome, SnapshotOutcome, list[str], type]] = [
    (ReadTimedOut(), TAKEN, ["linearizable"], ReadTimedOut),
    (Refused(Why.NOT_LEADER, Leadership(False, 7, None, None)), TAKEN, ["linearizable"], Refused),
    (CONFIRMED, NOT_TAKEN, ["linearizable", "snapshot"], SnapshotRefused),
    (CONFIRMED, SnapshotUnderWay(12), ["linearizable", "snapshot"], SnapshotUnderWay),
    (CONFIRMED, TAKEN, ["linearizable", "snapshot", "file"], SnapshotRefused),
]


@pytest.mark.parametrize(("read", "snapshot", "said", "told"), WAYS, ids=[way[3].__name__ for way in WAYS])
def test_a_majority_confirms_before_anything_is_taken_and_who_gets_none_leaves_room(
    read: ReadOutcome, snapshot: SnapshotOutcome, said: list[str], told: type
) -> None:
    """faults 35: a leader that nobody hears gives no backup."""
    asked = Asked(read, snapshot)
    backups = Backups(asked, asked, lambda: None, barrier=None)  # type: ignore[arg-type]
    for _ in range(BACKUPS_MAX + 2):
        outcomes: list[BackupOutcome] = []
        backups.open(outcomes.append, wait_ms=5)
        assert [type(outcome) for outcome in outcomes] == [told]
    assert asked.said == said * (BACKUPS_MAX + 2)


async def test_a_node_that_is_started_finishes_what_a_killed_restore_had_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """faults 43: the identity names the new cluster, and its state has not got its name yet."""
    async with lone_node(tmp_path, **OFTEN) as node:
        await add(node, 5)
        data = await read(await backup_of(node))
    with monkeypatch.context() as killed:
        killed.setattr("raftkv.storage.replacing.finish", lambda _: False)
        async with restored(tmp_path, data) as again:
            assert not (again.config.data_dir / "replacement").exists()
            assert (await again.query("total"))[1] == 5
    assert "replaced" in [getattr(record, "event", None) for record in caplog.records]


async def test_a_node_does_not_begin_empty_where_a_restore_was_killed(tmp_path: Path) -> None:
    """faults 31: its directory is no empty one."""
    async with lone_node(tmp_path / "old", **OFTEN) as node:
        await add(node, 5)
        data = await read(await backup_of(node))
    directory = tmp_path / "n1"
    directory.mkdir()
    (directory / "replacement").write_bytes(data)
    config = NodeConfig.of(id="n1", data_dir=directory, url=f"http://127.0.0.1:{free_ports(1)[0]}", **ALONE)
    with pytest.raises(WrongIdentity, match="was not finished"):
        async with Node(config, state_machine=Adder()):
            raise AssertionError("it has begun")
