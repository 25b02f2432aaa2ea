"""New clusters of survivors and of backups: what is in them, and that no moment of being killed leaves neither."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from raftkv.core.types import Configuration, NodeId, membership_of
from raftkv.errors import DataDamaged, DataError, DirectoryLocked, SnapshotError, UnknownFormat, WrongIdentity
from raftkv.kv.answers import PutDone, Repeated
from raftkv.kv.commands import Numbered, Put, encode
from raftkv.kv.machine import KeyValueMachine
from raftkv.kv.queries import Get, Range, Revision
from raftkv.kv.snapshot import REVISION_RAISE
from raftkv.node import recovering
from raftkv.node.recovering import Rebuilt, examine, finished, recover, restore, restore_into
from raftkv.sim.world.disk import Crash, Moment, SimulatedDirectory
from raftkv.state_machine import LogEntry
from raftkv.storage.directory import PosixDirectory
from raftkv.storage.identity import IDENTITY_NAME, IdentityFile, read_identity
from raftkv.storage.replacing import PREPARED_NAME, finish
from raftkv.storage.segments import segment_name, segment_numbers
from raftkv.storage.snapshot_proving import SnapshotProof
from raftkv.storage.snapshot_reading import open_unnamed, snapshot_name, snapshots_in
from tests.node.survivors import CLUSTER, MEMBERS, N1, SESSION, machine_at, started, survivor, time_at

URL = "http://n1.test:7401"
LIVES = [
    {"last": 20, "snapshot_at": 12},
    {"last": 20, "snapshot_at": None},
    {"last": 12, "snapshot_at": 12},
]


def rebuilt(disk: SimulatedDirectory) -> Rebuilt:
    """The same command, as often as it takes."""
    done = finished(disk)
    return done if done is not None else recover(examine(disk), peer_url=URL, reserve_bytes=0)


def contents(machine: KeyValueMachine) -> object:
    page = machine.query(Range(b"", None, 1000, 1 << 30, False, False))
    return page.items


@pytest.mark.parametrize("life", LIVES, ids=str)
class TestASurvivor:
    def test_is_a_cluster_of_its_own_with_all_that_its_log_says(self, life: dict[str, int]) -> None:
        disk = survivor(**life)
        told = recover(examine(disk), peer_url=URL, reserve_bytes=0)
        identity, recovered, machine = started(disk)
        assert identity.cluster_id not in (None, CLUSTER)
        assert identity.incarnation not in [member.incarnation for member in MEMBERS]
        assert identity.node_id == N1 and identity.formed
        (voter,) = recovered.base.configuration.current.voters
        assert (voter.id, voter.incarnation, voter.url) == (N1, identity.incarnation, URL)
        assert recovered.last_index == life["last"]
        before = machine_at(life["last"])
        assert contents(machine) == contents(before)
        assert machine.query(Revision()) == before.query(Revision()) + REVISION_RAISE == told.revision
        assert (told.keys, told.sessions) == (7, 1)

    def test_goes_on_from_the_cluster_time_of_the_log_s_end(self, life: dict[str, int]) -> None:
        """Begun again at the snapshot's, time would stand still for the store until it had passed once more."""
        told = recover(examine(survivor(**life)), peer_url=URL, reserve_bytes=0)
        assert told.meta.stamp_ms == time_at(life["last"])

    def test_gives_no_revision_twice(self, life: dict[str, int]) -> None:
        disk = survivor(**life)
        rebuilt(disk)
        _, _, machine = started(disk)
        (done,) = machine.apply_batch([LogEntry(21, 2000, encode(Put(b"new", b"value")))])
        assert isinstance(done, PutDone)
        assert done.revision > machine_at(life["last"]).query(Revision()) + 1_000_000

    def test_still_knows_the_answers_that_sessions_had(self, life: dict[str, int]) -> None:
        disk = survivor(**life)
        rebuilt(disk)
        _, _, machine = started(disk)
        again = LogEntry(21, 2000, encode(Put(b"key5", b"value 5"), Numbered(SESSION, 5, 0)))
        (answer,) = machine.apply_batch([again])
        assert isinstance(answer, Repeated) and answer.index == 5
        assert isinstance(answer.answer, PutDone) and answer.answer.revision < REVISION_RAISE

    def test_keeps_what_was_there_before_under_other_names(self, life: dict[str, int]) -> None:
        disk = survivor(**life)
        old = {name: disk.open(name).pread(1 << 24, offset=0) for name in disk.names() if name[:3] in ("log", "sna")}
        told = rebuilt(disk)
        assert told.identity.cluster_id is not None
        prefix = f"replaced-by-{told.identity.cluster_id.hex()[:8]}-"
        for name, data in old.items():
            assert disk.open(prefix + name).pread(1 << 24, offset=0) == data
        assert disk.exists(prefix + IDENTITY_NAME)
        assert not segment_numbers(disk) and len(snapshots_in(disk)) == 1

    def test_that_is_only_examined_is_as_it_was(self, life: dict[str, int]) -> None:
        disk = survivor(**life)
        before = {name: disk.open(name).pread(1 << 24, offset=0) for name in disk.names()}
        found = examine(disk)
        assert (found.last_index, found.last_term) == (life["last"], 3 if life["last"] > 15 else 2)
        assert found.url == URL and found.configuration.voters() == ("n1", "n2", "n3")
        assert {name: disk.open(name).pread(1 << 24, offset=0) for name in disk.names()} == before

    def test_that_dies_at_any_operation_is_as_before_or_is_finished(self, life: dict[str, int]) -> None:
        """faults 43, 54: and the same command again always comes to its end."""
        assert crashes(lambda: survivor(**life), rebuilt, machine_at(life["last"])) > 15


def crashes(
    born: Callable[[], SimulatedDirectory], act: Callable[[SimulatedDirectory], object], before: KeyValueMachine
) -> int:
    """Dies before, in the middle of and after each operation; how many there are."""
    whole = born()
    began = whole.operations
    act(whole)
    outcomes = set()
    for operation in range(1, whole.operations - began + 1):
        for moment in (Moment.BEFORE, Moment.MIDDLE, Moment.AFTER):
            if moment is Moment.AFTER and operation != whole.operations - began:
                continue  # nothing happens until the next operation begins
            disk = born()
            disk.crash_at(disk.operations + operation, moment)
            with pytest.raises(Crash):
                act(disk)
            for draw, found in enumerate([disk.restarted(), *(disk.survivor(Random(seed)) for seed in range(8))]):
                again = found.restarted()
                is_new = judged(found, before, f"{moment.value} operation {operation}")
                outcomes.add(is_new)
                if draw < 3:
                    act(again)
                    assert judged(again, before, f"again after {moment.value} operation {operation}")
    assert outcomes == {False, True}
    return whole.operations - began


def judged(disk: SimulatedDirectory, before: KeyValueMachine, when: str) -> bool:
    """Whether it is the new cluster; everything is there, and a node starts from it, whichever it is."""
    identity, recovered, machine = started(disk)
    is_new = identity.cluster_id != CLUSTER
    raised = machine.query(Revision()) - before.query(Revision())
    assert contents(machine) == contents(before), when
    # Who died when all was done, and asks again, gets another cluster, and another raise.
    assert raised in ((REVISION_RAISE, 2 * REVISION_RAISE) if is_new else (0,)), when
    voters = (
        recovered.base.configuration.voters()
        if recovered.snapshot is None
        else (recovered.snapshot.meta.base.configuration.voters())
    )
    assert voters == (("n1",) if is_new else ("n1", "n2", "n3")), when
    return is_new


def test_what_was_prepared_and_does_not_count_is_gone_at_the_next_start() -> None:
    disk = survivor()
    whole = survivor()
    began = whole.operations
    rebuilt(whole)
    for operation in range(1, whole.operations - began):
        disk = survivor()
        disk.crash_at(disk.operations + operation, Moment.AFTER)
        with pytest.raises(Crash):
            rebuilt(disk)
        found = disk.restarted()
        if found.exists(PREPARED_NAME) and read_identity(found).cluster_id == CLUSTER:
            started(found)
            assert not found.exists(PREPARED_NAME)
            return
    raise AssertionError("there is no such moment")


@pytest.mark.parametrize("last", [19, 20])
def test_a_log_that_is_read_in_many_pieces_is_recovered_to_its_end(monkeypatch: pytest.MonkeyPatch, last: int) -> None:
    monkeypatch.setattr(recovering, "READ_BYTES", 1)
    disk = survivor(last=last, snapshot_at=12)
    rebuilt(disk)
    assert contents(started(disk)[2]) == contents(machine_at(last))


def test_a_full_disk_changes_nothing() -> None:
    disk = survivor()
    with pytest.raises(DataError):
        recover(examine(disk), peer_url=URL, reserve_bytes=1 << 60)
    identity, _, machine = started(disk)
    assert identity.cluster_id == CLUSTER
    assert contents(machine) == contents(machine_at(20))


@pytest.mark.parametrize("what", ["log", "snapshot", "both"])
def test_damage_is_refused_and_nothing_is_changed(what: str) -> None:
    disk = survivor(last=20, snapshot_at=12)
    if what != "snapshot":
        disk.flip_bit(segment_name(1), 8 * 2100)
    if what != "log":
        id = snapshots_in(disk)[-1]
        disk.flip_bit(snapshot_name(id), 8 * id.size_bytes - 40)
    before = read_identity(disk)
    if what == "snapshot":
        # The log reaches back to the beginning, and stands in for it.
        assert rebuilt(disk).revision == machine_at(20).query(Revision()) + REVISION_RAISE
        return
    with pytest.raises(DataDamaged):
        rebuilt(disk)
    assert read_identity(disk) == before and not disk.exists(PREPARED_NAME)


def test_who_never_belonged_to_a_cluster_is_no_survivor() -> None:
    disk = SimulatedDirectory(Random(0))
    with pytest.raises(WrongIdentity, match="no data directory"):
        examine(disk)
    IdentityFile.open(disk, node_id=N1, new_incarnation=MEMBERS[0].incarnation)
    with pytest.raises(WrongIdentity, match="never belonged"):
        examine(disk)


def test_an_emptied_log_is_no_survivor() -> None:
    disk = survivor(snapshot_at=None)
    for number in segment_numbers(disk):
        disk.delete(segment_name(number))
    with pytest.raises(DataDamaged, match="the log is gone"):
        examine(disk)


# --------------------------------------------------------------------------------------------- backups


def backup_bytes() -> bytes:
    """A node's snapshot file of 20 entries."""
    disk = survivor(last=20, snapshot_at=20)
    (id,) = snapshots_in(disk)
    return disk.open(snapshot_name(id)).pread(1 << 24, offset=0)


def backup_file() -> SimulatedDirectory:
    disk = SimulatedDirectory(Random(1))
    file = disk.create("backup")
    file.pwrite(backup_bytes(), offset=0)
    return disk


def restored(disk: SimulatedDirectory) -> Rebuilt:
    source = open_unnamed(backup_file(), "backup")
    return restore_into(disk, source, node_id=N1, peer_url=URL, reserve_bytes=0)


def test_a_backup_is_a_cluster_of_its_own() -> None:
    disk = SimulatedDirectory(Random(2))
    told = restored(disk)
    identity, recovered, machine = started(disk)
    assert identity == told.identity or identity.log_begun
    assert identity.cluster_id not in (None, CLUSTER) and identity.incarnation != MEMBERS[0].incarnation
    assert recovered.base.configuration == Configuration(membership_of(recovered.base.configuration.current.voters))
    assert recovered.base.configuration.voters() == ("n1",)
    before = machine_at(20)
    assert contents(machine) == contents(before)
    assert machine.query(Revision()) == before.query(Revision()) + REVISION_RAISE == told.revision
    assert machine.query(Get(b"key5")).record is not None


def test_two_restores_of_one_backup_are_two_clusters() -> None:
    first, second = restored(SimulatedDirectory(Random(2))), restored(SimulatedDirectory(Random(2)))
    assert first.identity.cluster_id != second.identity.cluster_id
    assert first.identity.incarnation != second.identity.incarnation


def test_a_restore_that_dies_at_any_operation_can_be_made_again() -> None:
    """faults 43, 54: and what is left is never taken for an empty node's directory."""
    whole = SimulatedDirectory(Random(3))
    restored(whole)
    for operation in range(1, whole.operations + 1):
        for moment in Moment:
            disk = SimulatedDirectory(Random(3))
            disk.crash_at(operation, moment)
            with pytest.raises(Crash):
                restored(disk)
            for found in (disk.survivor(Random(operation)), disk.restarted()):
                again = found.restarted()
                if found.exists(IDENTITY_NAME):
                    assert contents(started(found)[2]) == contents(machine_at(20))
                elif found.exists(PREPARED_NAME):
                    with pytest.raises(WrongIdentity, match="not finished"):
                        finish(found)
                if not snapshots_in(again):
                    restored(again)
                assert contents(started(again)[2]) == contents(machine_at(20))
    assert whole.operations > 8


class TestABackupOnARealDisk:
    def test_is_restored_into_a_directory_that_is_not_there(self, tmp_path: Path) -> None:
        (tmp_path / "b").write_bytes(backup_bytes())
        told = restore(tmp_path / "b", tmp_path / "n1", node_id=N1, peer_url=URL)
        assert told.keys == 7
        directory = PosixDirectory(tmp_path / "n1")
        assert read_identity(directory) == told.identity
        directory.close()

    @pytest.mark.parametrize("left", ["file", "link", "directory"])
    def test_is_never_restored_over_anything(self, tmp_path: Path, left: str) -> None:
        (tmp_path / "b").write_bytes(backup_bytes())
        (tmp_path / "n1").mkdir()
        there = tmp_path / "n1" / "something"
        {"file": there.touch, "link": lambda: there.symlink_to("/dev/null"), "directory": there.mkdir}[left]()
        with pytest.raises(WrongIdentity, match="not empty"):
            restore(tmp_path / "b", tmp_path / "n1", node_id=N1, peer_url=URL)
        assert [path.name for path in (tmp_path / "n1").iterdir()] == ["something"]

    def test_is_never_restored_twice_into_one_directory(self, tmp_path: Path) -> None:
        (tmp_path / "b").write_bytes(backup_bytes())
        told = restore(tmp_path / "b", tmp_path / "n1", node_id=N1, peer_url=URL)
        with pytest.raises(WrongIdentity, match="not empty"):
            restore(tmp_path / "b", tmp_path / "n1", node_id=N1, peer_url=URL)
        directory = PosixDirectory.read_only(tmp_path / "n1")
        assert read_identity(directory) == told.identity

    def test_needs_a_directory_that_nobody_holds(self, tmp_path: Path) -> None:
        (tmp_path / "b").write_bytes(backup_bytes())
        holder = PosixDirectory(tmp_path / "n1")
        with pytest.raises(DirectoryLocked):
            restore(tmp_path / "b", tmp_path / "n1", node_id=N1, peer_url=URL)
        holder.close()

    @pytest.mark.parametrize("cut", [0, 1, 13, 100, -1, -17, -40])
    def test_that_is_cut_short_is_refused_and_nothing_is_made(self, tmp_path: Path, cut: int) -> None:
        data = backup_bytes()
        (tmp_path / "b").write_bytes(data[: cut if cut >= 0 else len(data) + cut])
        with pytest.raises(DataDamaged):
            restore(tmp_path / "b", tmp_path / "n1", node_id=N1, peer_url=URL)
        assert not (tmp_path / "n1").exists()

    def test_of_which_any_bit_is_wrong_is_refused(self, tmp_path: Path) -> None:
        """faults 58"""
        data = backup_bytes()
        rng = Random(5)
        for bit in [*rng.sample(range(8 * len(data)), 150), 0, 8 * len(data) - 1]:
            wrong = bytearray(data)
            wrong[bit // 8] ^= 1 << bit % 8
            (tmp_path / "b").write_bytes(wrong)
            with pytest.raises((DataDamaged, UnknownFormat)):
                restore(tmp_path / "b", tmp_path / "n1", node_id=N1, peer_url=URL)
        assert not (tmp_path / "n1").exists()

    @pytest.mark.parametrize("data", [b"", b"not a backup", bytes(5000), b"\x1f\x8b" + bytes(500)])
    def test_that_is_none_is_refused(self, tmp_path: Path, data: bytes) -> None:
        (tmp_path / "b").write_bytes(data)
        with pytest.raises(DataDamaged):
            restore(tmp_path / "b", tmp_path / "n1", node_id=N1, peer_url=URL)
        assert not (tmp_path / "n1").exists()


@pytest.mark.parametrize("piece_bytes", [1, 7, 1000, 1 << 20])
def test_a_backup_is_proved_in_pieces_of_any_size(piece_bytes: int) -> None:
    data = backup_bytes()
    proof = SnapshotProof(len(data), path="it")
    for at in range(0, len(data), piece_bytes):
        proof.add(data[at : at + piece_bytes])
    file = open_unnamed(backup_file(), "backup")
    proved = proof.finish()
    assert (proved.id, proved.meta) == (file.id, file.meta)
    assert proved.first_block == next(file.blocks())


def test_every_flipped_bit_is_noticed_in_pieces_too() -> None:
    """faults 58"""
    data = backup_bytes()
    for bit in range(8 * len(data)):
        wrong = bytearray(data)
        wrong[bit // 8] ^= 1 << bit % 8
        proof = SnapshotProof(len(wrong), path="it")
        with pytest.raises((DataDamaged, UnknownFormat)):
            prove(proof, bytes(wrong))


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"x", lambda data: b""])
def test_what_ends_too_early_or_too_late_is_noticed(change: Callable[[bytes], bytes]) -> None:
    data = backup_bytes()
    proof = SnapshotProof(len(data), path="it")
    with pytest.raises(DataDamaged):
        prove(proof, change(data))


def prove(proof: SnapshotProof, data: bytes) -> None:
    proof.add(data)
    proof.finish()


def test_a_log_of_another_machine_is_not_taken_for_an_empty_store() -> None:
    disk = other_machines()
    with pytest.raises(SnapshotError, match="another state machine"):
        rebuilt(disk)
    assert read_identity(disk).cluster_id == CLUSTER and not disk.exists(PREPARED_NAME)


def other_machines() -> SimulatedDirectory:
    """The disk of a node whose machine is not the store."""
    from raftkv import frames
    from raftkv.core.effects import DiskWrite
    from raftkv.core.types import Term, Ticket
    from tests.node.survivors import opened

    disk = survivor(last=1, snapshot_at=None)
    _, _, wal, _ = opened(disk)
    joined = [
        frames.encode(frames.EntryKind.COMMAND, term=2, index=index, body=bytes(8) + b"\xc1add 1")
        for index in range(2, 6)
    ]
    wal.write([DiskWrite(Ticket(9), vote=(Term(2), None), frames=joined)])
    wal.close()
    return disk


def test_who_restores_a_killed_restore_under_another_name_is_refused() -> None:
    whole = SimulatedDirectory(Random(3))
    restored(whole)
    for operation in range(1, whole.operations + 1):
        disk = SimulatedDirectory(Random(3))
        disk.crash_at(operation, Moment.AFTER)
        with pytest.raises(Crash):
            restored(disk)
        found = disk.restarted()
        if found.exists(IDENTITY_NAME) and found.exists(PREPARED_NAME):
            source = open_unnamed(backup_file(), "backup")
            with pytest.raises(WrongIdentity, match="as node n1"):
                restore_into(found, source, node_id=NodeId("n2"), peer_url=URL)
            return
    raise AssertionError("there is no such moment")
