"""The identity file: written in one step, read back bit for bit or refused."""

from __future__ import annotations

import json
from random import Random

import pytest

from raftkv.core.types import ClusterId, Incarnation, NodeId
from raftkv.errors import DataDamaged, DiskFailed, UnknownFormat, WrongIdentity
from raftkv.sim.world.disk import Crash, Moment, SimulatedDirectory
from raftkv.storage.identity import (
    IDENTITY_NAME,
    TEMPORARY_NAME,
    Identity,
    IdentityFile,
    decode_identity,
    read_identity,
)
from tests.storage.life import INCARNATION, NODE, configuration_of, open_log, overwrite

CLUSTER = ClusterId(b"c" * 16)
OTHER = Incarnation(b"another one".ljust(16, b"!"))


def _open(disk: SimulatedDirectory, incarnation: Incarnation = INCARNATION) -> IdentityFile:
    return IdentityFile.open(disk, node_id=NODE, new_incarnation=incarnation)


def _live(disk: SimulatedDirectory) -> None:
    identity = _open(disk)
    identity.store_log_begun()
    identity.store_cluster(CLUSTER, configuration_of("n1", "n2", "n3"))
    identity.store_formed()


STAGES = [
    None,
    Identity(NODE, INCARNATION),
    Identity(NODE, INCARNATION, log_begun=True),
    Identity(NODE, INCARNATION, CLUSTER, configuration_of("n1", "n2", "n3"), log_begun=True),
    Identity(NODE, INCARNATION, CLUSTER, configuration_of("n1", "n2", "n3"), formed=True, log_begun=True),
]


def test_an_empty_directory_gets_the_incarnation_and_keeps_it():
    """faults 31, the disk's part."""
    disk = SimulatedDirectory(Random(1))
    assert _open(disk).identity == STAGES[1]
    assert _open(disk.survivor(Random(1)), OTHER).identity == STAGES[1]


def test_what_is_stored_is_read_back_and_people_can_read_it():
    disk = SimulatedDirectory(Random(1))
    _live(disk)
    assert _open(disk).identity == STAGES[-1]
    fields = json.loads(disk.content(IDENTITY_NAME))
    assert fields["node_id"] == "n1"
    assert fields["cluster_id"] == CLUSTER.hex()
    assert fields["initial_voters"][1] == {
        "id": "n2",
        "incarnation": (b"n2" + b"*" * 14).hex(),
        "url": "http://n2:7401",
    }


def test_a_crash_at_every_operation_leaves_the_old_or_the_new_one():
    """faults 54: each change once acknowledged stays; nothing half done is ever read; temporary files go."""
    whole = SimulatedDirectory(Random(1))
    _live(whole)
    for operation in range(1, whole.operations + 1):
        for moment in Moment:
            disk = SimulatedDirectory(Random(operation), page_bytes=512)
            disk.crash_at(operation, moment)
            with pytest.raises(Crash):
                _live(disk)
            reached = _stage(disk.restarted())
            for seed in range(6):
                found = _stage(disk.survivor(Random(seed)))
                assert found in (reached - 1, reached)
                assert found >= (operation - 1) // 5, "a create, a write, two syncs and a rename for each change"


def test_what_a_killed_process_left_is_on_stable_storage_before_anybody_hears_of_it():
    """faults 31, 54: renamed and not yet synced, it is there for the next process, and gone after a power cut."""
    disk = SimulatedDirectory(Random(1))
    disk.crash_at(5, Moment.BEFORE)
    with pytest.raises(Crash):
        _open(disk)
    restarted = disk.restarted()
    assert _open(restarted, OTHER).identity == STAGES[1]
    for seed in range(10):
        assert _open(restarted.survivor(Random(seed)), OTHER).identity == STAGES[1]


def _stage(disk: SimulatedDirectory) -> int:
    stage = STAGES.index(read_identity(disk)) if disk.exists(IDENTITY_NAME) else 0
    _open(disk)
    assert TEMPORARY_NAME not in disk.names()
    return stage


def test_the_crash_check_catches_a_name_that_is_not_synced(monkeypatch):
    """faults 54: planted bug."""
    monkeypatch.setattr(SimulatedDirectory, "sync", lambda self: None)
    disk = SimulatedDirectory(Random(1))
    _open(disk)
    assert any(not disk.survivor(Random(seed)).exists(IDENTITY_NAME) for seed in range(10))


def test_every_flipped_bit_is_noticed():
    """faults 58."""
    disk = SimulatedDirectory(Random(1))
    _live(disk)
    data = disk.content(IDENTITY_NAME)
    for bit in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DataDamaged):
            decode_identity(bytes(flipped), path=IDENTITY_NAME)


@pytest.mark.parametrize("data", [b"", b"{}", b"\0" * 400, b"\xff" * 400])
def test_what_is_no_identity_is_damage(data):
    disk = SimulatedDirectory(Random(1))
    file = disk.create(IDENTITY_NAME)
    file.pwrite(data, offset=0)
    with pytest.raises(DataDamaged):
        _open(disk)


def test_an_unknown_format_is_told_from_damage(monkeypatch):
    with monkeypatch.context() as future:
        future.setattr("raftkv.storage.identity.FORMAT_VERSION", 2)
        data = Identity(NODE, INCARNATION).encode()
    with pytest.raises(UnknownFormat, match="format 2"):
        decode_identity(data, path="identity")


def test_another_nodes_directory_is_refused_and_left_alone():
    disk = SimulatedDirectory(Random(1))
    _open(disk)
    operations = disk.operations
    with pytest.raises(WrongIdentity, match="belongs to node n1, not to n2"):
        IdentityFile.open(disk, node_id=NodeId("n2"), new_incarnation=OTHER)
    assert disk.operations == operations


def test_a_log_without_an_identity_is_damage_not_an_empty_directory():
    """faults 31, 53: a new incarnation there would forget a vote."""
    disk = SimulatedDirectory(Random(1))
    open_log(disk)
    disk.delete(IDENTITY_NAME)
    with pytest.raises(DataDamaged, match="holds a log"):
        _open(disk)


def test_a_cluster_once_stored_is_never_another():
    disk = SimulatedDirectory(Random(1))
    _live(disk)
    identity = _open(disk)
    identity.store_cluster(CLUSTER, configuration_of("n1"))
    assert identity.identity == STAGES[-1], "the same cluster again changes nothing"
    with pytest.raises(WrongIdentity, match="belongs to cluster"):
        identity.store_cluster(ClusterId(b"d" * 16), configuration_of("n1"))


def test_the_log_begins_with_the_configuration_that_the_cluster_was_formed_with():
    disk = SimulatedDirectory(Random(1))
    _live(disk)
    _open(disk)
    overwrite(disk, IDENTITY_NAME, offset=0, data=b"")
    with pytest.raises(DataDamaged, match="the log is gone"):
        open_log(disk)
    disk = SimulatedDirectory(Random(1))
    open_log(disk)
    _open(disk).store_cluster(CLUSTER, configuration_of("n1", "n2"))
    _, recovered = open_log(disk)
    assert recovered.base.configuration == configuration_of("n1", "n2")
    assert (recovered.base.index, recovered.base.term, recovered.configurations) == (0, 0, [])


def test_a_store_that_failed_is_not_tried_again():
    """faults 55: the disk would take it now, but what the failed sync left there nobody knows."""
    disk = SimulatedDirectory(Random(1))
    identity = _open(disk)
    disk.failing_syncs.add(disk.syncs + 1)
    with pytest.raises(DiskFailed):
        identity.store_cluster(CLUSTER, configuration_of("n1"))
    operations = disk.operations
    for again in (lambda: identity.store_cluster(CLUSTER, configuration_of("n1")), identity.store_log_begun):
        with pytest.raises(DiskFailed):
            again()
    assert disk.operations == operations
    assert identity.identity == STAGES[1]
