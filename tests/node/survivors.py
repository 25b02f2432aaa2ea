"""Data directories that a node of the store leaves behind, on a simulated disk, and how a node starts from them."""

from __future__ import annotations

from random import Random

from raftkv import frames, stamps
from raftkv.core.effects import DiskWrite, LogBase
from raftkv.core.types import (
    Configuration,
    Incarnation,
    Index,
    Member,
    NodeId,
    Term,
    Ticket,
    cluster_id_of,
    membership_of,
)
from raftkv.frames import EntryKind
from raftkv.kv.commands import Numbered, OpenSession, Put, encode
from raftkv.kv.machine import KeyValueMachine
from raftkv.sim.world.disk import SimulatedDirectory
from raftkv.state_machine import LogEntry
from raftkv.storage.identity import Identity, IdentityFile
from raftkv.storage.recovery import Recovered
from raftkv.storage.replacing import finish
from raftkv.storage.snapshots import SnapshotMeta, Snapshots
from raftkv.storage.wal import Wal

N1 = NodeId("n1")
MEMBERS = [
    Member(NodeId(id), Incarnation(id.encode().ljust(16, b"*")), f"http://{id}.test:7401") for id in ("n1", "n2", "n3")
]
CONFIGURATION = Configuration(membership_of(MEMBERS))
CLUSTER = cluster_id_of([(member.id, member.incarnation) for member in MEMBERS])
SESSION = bytes(range(16))
SEGMENT_BYTES = 8192


def command(index: int) -> bytes:
    """What stands in the log there."""
    if index == 2:
        return encode(OpenSession(SESSION, 60_000))
    put = Put(b"key%d" % (index % 7), b"value %d" % index)
    return encode(put, Numbered(SESSION, index, 0)) if index == 5 else encode(put)


def time_at(index: int) -> int:
    """Cluster time there: some are proposed together."""
    return 1000 + index // 4 * 4


def entry(index: int, term: int) -> bytes:
    if index == 1:
        return frames.encode(EntryKind.NOOP, term=term, index=index)
    if index > 2 and time_at(index) == time_at(index - 1):
        return frames.encode(EntryKind.FURTHER_COMMAND, term=term, index=index, body=command(index))
    body = time_at(index).to_bytes(8, "little") + command(index)
    return frames.encode(EntryKind.COMMAND, term=term, index=index, body=body)


def machine_at(index: int) -> KeyValueMachine:
    """The store as every node had it there."""
    machine = KeyValueMachine()
    machine.apply_batch([LogEntry(at, time_at(at), command(at)) for at in range(2, index + 1)])
    return machine


def opened(disk: SimulatedDirectory) -> tuple[Identity, Snapshots, Wal, Recovered]:
    """As a node does it at its start, once it knows its cluster."""
    finish(disk)
    identity = IdentityFile.open(disk, node_id=N1, new_incarnation=MEMBERS[0].incarnation)
    snapshots = Snapshots.open(disk, cluster_id=identity.identity.cluster_id, reserve_bytes=0)
    wal, recovered = Wal.open(disk, identity, snapshots=snapshots, segment_bytes=SEGMENT_BYTES)
    return identity.identity, snapshots, wal, recovered


def survivor(*, last: int = 20, snapshot_at: int | None = 12, seed: int = 0) -> SimulatedDirectory:
    """A voter's disk, of which nobody knows how much of the end was committed."""
    disk = SimulatedDirectory(Random(seed))
    identity = IdentityFile.open(disk, node_id=N1, new_incarnation=MEMBERS[0].incarnation)
    identity.store_cluster(CLUSTER, CONFIGURATION)
    identity.store_formed()
    _, snapshots, wal, _ = opened(disk)
    for index in range(1, last + 1):
        term = Term(3 if index > 15 else 2)
        wal.write([DiskWrite(Ticket(index), vote=(term, None), frames=[entry(index, term)])])
        if index == snapshot_at:
            machine = machine_at(index)
            base = LogBase(Index(index), term, CONFIGURATION)
            meta = SnapshotMeta(CLUSTER, base, time_at(index), machine.state_hash().to_bytes(16, "little"))
            snapshots.write(meta, machine.capture().blocks())
    wal.close()
    return disk


def started(disk: SimulatedDirectory) -> tuple[Identity, Recovered, KeyValueMachine]:
    """Who a node is that starts from it, where its log stands, and its store with all of the log."""
    identity, snapshots, wal, recovered = opened(disk)
    machine = KeyValueMachine()
    first, time_ms = 1, 0
    if recovered.snapshot is not None:
        reader = snapshots.reader(recovered.snapshot.id)
        assert reader is not None
        with reader:
            loading = machine.loading()
            for block in reader.blocks():
                loading.add(block)
            loading.finish()
        first, time_ms = recovered.snapshot.id.index + 1, recovered.snapshot.meta.stamp_ms
    read = wal.read(Index(first), recovered.last_index, bytes_max=1 << 30)
    machine.apply_batch(stamps.entries(read, Index(first), time_ms=time_ms).commands)
    wal.close()
    return identity, recovered, machine
