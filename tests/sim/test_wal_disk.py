"""What a start may find in files, as it is known beside them."""

from __future__ import annotations

from random import Random

from raftkv import frames as framing
from raftkv.core.effects import DiskWrite, LogBase
from raftkv.core.types import ClusterId, Configuration, Incarnation, Index, Member, NodeId, Term, Ticket, membership_of
from raftkv.sim.world.snapshot_files import open_snapshots
from raftkv.sim.world.wal_disk import WalDisk
from raftkv.sim.world.watching import Recovery
from raftkv.storage.snapshots import SnapshotMeta, Snapshots

CLUSTER = ClusterId(b"a cluster's name")
MEMBERS = Configuration(membership_of([Member(NodeId("a"), Incarnation(b"a" * 16), "http://a")]))
LAST = 40


def frame(index: int) -> bytes:
    return framing.encode(framing.EntryKind.COMMAND, term=1, index=index, body=bytes(500))


def opened(disk: WalDisk) -> tuple[Snapshots, Recovery]:
    disk.open_identity()
    snapshots = open_snapshots(disk.directory, CLUSTER)
    return snapshots, disk.open_log(snapshots, tail_bytes_max=1 << 20)


def of_one_that_was_let_in() -> WalDisk:
    """Its directory names a cluster, and no members: it learned of those from the log."""
    disk = WalDisk(NodeId("d"), Random(1), segment_bytes=4_096)
    disk.open_identity().store_cluster(CLUSTER, None)
    disk.end(Random(1))
    return disk


def test_the_log_of_one_that_was_let_in_is_known_from_its_first_entry_on_however_much_was_trimmed():
    disk = of_one_that_was_let_in()
    snapshots, _ = opened(disk)
    for index in range(1, LAST + 1):
        disk.unfinished.append(DiskWrite(Ticket(index), vote=(Term(1), None), frames=[frame(index)]))
        disk.under_way = 1
        disk.finish()
    for index in (LAST - 2, LAST - 1):
        snapshots.write(SnapshotMeta(CLUSTER, LogBase(Index(index), Term(1), MEMBERS), 0, b""), [b"all"])
    disk.trim_log(Index(LAST - 2))
    disk.end(Random(1))
    _, found = opened(disk)
    (known,) = found.admissible
    assert found.said.base.index > 0, "whole segments went"
    assert known.base.index == 0
    assert known.frames == [frame(index) for index in range(1, LAST + 1)]
    assert found.frames == known.frames[found.said.base.index :]
