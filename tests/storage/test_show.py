"""What an operator sees of a log."""

from __future__ import annotations

from random import Random

from raftkv.core.effects import LogBase
from raftkv.core.types import Index, Term
from raftkv.frames import EntryKind
from raftkv.sim.world.disk import SimulatedDirectory
from raftkv.storage.directory import PosixDirectory
from raftkv.storage.segments import segment_name
from raftkv.storage.show import describe
from raftkv.storage.snapshot_reading import receiving_name, snapshot_name, snapshots_in
from raftkv.storage.snapshots import Snapshots
from tests.storage.histories import CLUSTER, others_file
from tests.storage.life import configuration_of, entry, open_log, overwrite, write
from tests.storage.test_trim import base_at, trimmed


def _shown(directory) -> str:
    return "\n".join(describe(directory))


def _disk() -> tuple[SimulatedDirectory, int]:
    disk = SimulatedDirectory(Random(1))
    wal, _ = open_log(disk)
    wal.write([write(entry(1, 1, b"abc"), entry(2, 1, kind=EntryKind.NOOP), vote=(1, "n2"))])
    wal.write([write(truncate_from=2)])
    wal.write([write(base=LogBase(Index(9), Term(1), configuration_of("n1", "n3")))])
    wal.mark()
    return disk, wal._offset


def test_a_log_is_told_readably():
    disk, _ = _disk()
    shown = _shown(disk)
    for told in (
        "sim: node n1, incarnation 000102030405060708090a0b0c0d0e0f, not yet of a cluster",
        "log-0000000000000001: 8192 bytes, from batch 1, entry 1; term 0, no vote; base 0 of term 0",
        "batch 1, 512 bytes, synced through 0",
        "term 1, voted for n2",
        "entry 1, term 1, command, 3 bytes",
        "entry 2, term 1, noop, 1 bytes",
        "truncated from entry 2",
        "base 9 of term 1: n1 n3",
        "mark 4, 512 bytes, synced through 3",
    ):
        assert told in shown
    assert shown.endswith("end")


def test_looking_changes_nothing():
    disk, end = _disk()
    overwrite(disk, segment_name(1), offset=end, data=b"torn")
    before = {name: disk.content(name) for name in disk.names()}
    operations = disk.operations
    _shown(disk)
    assert disk.operations == operations
    assert {name: disk.content(name) for name in disk.names()} == before


def test_a_torn_end_is_told_from_damage():
    """faults 52, 53."""
    disk, end = _disk()
    overwrite(disk, segment_name(1), offset=end, data=b"torn")
    assert "torn: batch 5 is not whole" in _shown(disk)
    disk.flip_bit(segment_name(1), (512 + 70) * 8)
    shown = _shown(disk)
    assert "DAMAGED: batch 1 was synced" in shown
    assert "       512  DAMAGED" in shown


def test_what_cannot_be_read_at_all_is_told_and_the_rest_shown():
    disk, _ = _disk()
    wal, _ = open_log(disk)
    wal.write([write(entry(10, 1, bytes(5000)))])
    wal.write([write(entry(11, 1, bytes(5000)))])
    assert disk.exists(segment_name(2))
    disk.flip_bit(segment_name(1), 100)
    disk.flip_bit("identity", 100)
    shown = _shown(disk)
    assert "sim/identity is damaged" in shown
    assert f"{segment_name(1)}: sim/{segment_name(1)} is damaged at byte 0" in shown
    assert "entry 11, term 1, command, 5000 bytes" in shown
    disk.delete("identity")
    assert "sim: no identity" in _shown(disk)


def test_snapshots_are_told_and_proved():
    disk = trimmed()
    older, newest = snapshots_in(disk)
    id, file = others_file(base_at(500), 0)
    Snapshots.open(disk, cluster_id=CLUSTER, reserve_bytes=0).receive(id, 0, file[:150])
    disk.create("snapshot.new")
    shown = _shown(disk)
    for told in (
        f"{snapshot_name(newest)}: {newest.size_bytes} bytes, cluster {CLUSTER.hex()}; ends with entry 45 of term 1, ",
        f"cluster time 135 ms; state hash {(45).to_bytes(16, 'little').hex()}; configuration: n1",
        f"{snapshot_name(older)}: ",
        " blocks, every byte as it was written",
        f"{receiving_name(id)}: 150 of {id.size_bytes} bytes of another node's snapshot",
        "snapshot.new: 0 bytes of a snapshot that is not finished",
    ):
        assert told in shown
    disk.flip_bit(snapshot_name(older), 8 * older.size_bytes - 50)
    shown = _shown(disk)
    assert f"{snapshot_name(older)}: sim/{snapshot_name(older)} is damaged at byte " in shown
    assert shown.count("every byte as it was written") == 1


def test_a_running_nodes_log_can_be_looked_at(tmp_path):
    directory = PosixDirectory(tmp_path)
    wal, _ = open_log(directory)
    wal.write([write(entry(1, 1), vote=(1, None))])
    reader = PosixDirectory.read_only(tmp_path)
    assert "entry 1, term 1, command, 1 bytes" in _shown(reader)
    reader.close()
    wal.close()
    directory.close()
