"""Snapshots' files: bytes, places, names; writing, reading, receiving."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from random import Random

import google_crc32c
import pytest

from raftkv.core.effects import LogBase
from raftkv.core.types import ClusterId, Index, SnapshotId, Term
from raftkv.errors import DataDamaged, DataError, DiskFailed, UnknownFormat, WrongIdentity
from raftkv.sim.world.disk import SimulatedDirectory
from raftkv.storage.directory import PosixDirectory, is_disk_full
from raftkv.storage.snapshot_format import TRAILER_BYTES, encode_header
from raftkv.storage.snapshot_reading import (
    RECEIVING_PREFIX,
    TEMPORARY_NAME,
    SnapshotFile,
    receiving_name,
    snapshot_name,
    snapshots_in,
)
from raftkv.storage.snapshots import SnapshotMeta, SnapshotReader, Snapshots, StoredSnapshot
from tests.storage.histories import CLUSTER
from tests.storage.life import configuration_of, overwrite

BLOCKS = [b"", b"first" * 9, bytes(300), Random(1).randbytes(700)]


def meta_at(index: int, term: int = 3) -> SnapshotMeta:
    base = LogBase(Index(index), Term(term), configuration_of("n1", "n2"))
    return SnapshotMeta(CLUSTER, base, stamp_ms=17, state_hash=b"h" * 16)


def opened(disk, *, reserve_bytes: int = 0) -> Snapshots:
    return Snapshots.open(disk, cluster_id=CLUSTER, reserve_bytes=reserve_bytes)


def written(index: int = 50, blocks: list[bytes] = BLOCKS) -> tuple[SimulatedDirectory, SnapshotId]:
    disk = SimulatedDirectory(Random(1))
    return disk, opened(disk).write(meta_at(index), blocks)


def file_of(index: int = 50, blocks: list[bytes] = BLOCKS) -> tuple[SnapshotId, bytes]:
    disk, id = written(index, blocks)
    return id, disk.content(snapshot_name(id))


def reader_of(snapshots: Snapshots, id: SnapshotId | None = None) -> SnapshotReader:
    reader = snapshots.reader(id)
    assert reader is not None
    return reader


def newest_of(snapshots: Snapshots) -> StoredSnapshot:
    assert snapshots.newest is not None
    return snapshots.newest


def noted(drawn: list[bytes], blocks: list[bytes]) -> Iterator[bytes]:
    """The blocks, and in ``drawn`` those that somebody asked for."""
    for block in blocks:
        drawn.append(block)
        yield block


def blocks_in(disk) -> list[bytes]:
    with reader_of(opened(disk)) as reader:
        return list(reader.blocks())


# ----------------------------------------------------------------------------------------------- the bytes


@pytest.mark.parametrize("blocks", [[], [b""], BLOCKS, [bytes(3_000_000)]])
def test_what_was_written_is_read_back(blocks):
    disk, id = written(50, blocks)
    snapshots = opened(disk)
    assert blocks_in(disk) == blocks
    assert snapshots.newest == (id, meta_at(50))
    assert (id.index, id.term, id.size_bytes) == (50, 3, len(disk.content(snapshot_name(id))))
    assert disk.names() == [snapshot_name(id)]


def test_a_machine_without_a_hash_has_none():
    disk = SimulatedDirectory(Random(1))
    opened(disk).write(replace(meta_at(5), state_hash=b""), [])
    assert newest_of(opened(disk)).meta.state_hash == b""


def test_the_checksum_in_the_name_is_of_every_byte_before_it():
    id, file = file_of()
    assert id.checksum == google_crc32c.value(file[:-4]) == int.from_bytes(file[-4:], "little")
    assert file_of(50, [b"other"])[0].checksum != id.checksum


def test_nothing_in_the_file_is_of_the_node_that_wrote_it():
    """Another node can install it; so its own name, incarnation and time do not stand in it."""
    assert encode_header(meta_at(50)) == file_of()[1][: len(encode_header(meta_at(50)))]
    assert set(SnapshotMeta.__slots__) == {"cluster_id", "base", "stamp_ms", "state_hash"}


def _believed(disk: SimulatedDirectory, id: SnapshotId) -> Iterator[int]:
    """Every bit that may be flipped alone and nobody sees it."""
    name = snapshot_name(id)
    for bit in range(id.size_bytes * 8):
        disk.flip_bit(name, bit)
        try:
            with reader_of(opened(disk)) as reader:
                list(reader.blocks())
            yield bit
        except (DataError, AssertionError):
            pass
        disk.flip_bit(name, bit)


def test_every_flipped_bit_is_noticed():
    """faults 58: header, block headers, data, trailer."""
    disk, id = written(50, [b"", b"first", bytes(40)])
    assert list(_believed(disk, id)) == []


def test_a_block_is_proved_before_it_is_handed_out():
    """faults 58: whoever loads it never sees a wrong byte, wherever in the file one is."""
    disk, id = written()
    header_bytes = len(encode_header(meta_at(50)))
    for bit in range(header_bytes * 8, id.size_bytes * 8, 5):
        file = SnapshotFile.open(disk, id, cluster_id=CLUSTER)
        disk.flip_bit(snapshot_name(id), bit)
        seen: list[bytes] = []
        with pytest.raises(DataDamaged) as damaged:
            seen.extend(file.blocks())
        assert seen == BLOCKS[: len(seen)]
        assert damaged.value.offset <= bit // 8
        disk.flip_bit(snapshot_name(id), bit)


def test_blocks_that_changed_places_are_noticed_at_the_first_of_them():
    """faults 58: each is sound by itself."""
    disk, id = written(50, [b"a" * 20, b"b" * 20, b"c" * 20])
    start = id.size_bytes - TRAILER_BYTES - 2 * 28
    file = disk.content(snapshot_name(id))
    overwrite(disk, snapshot_name(id), offset=start, data=file[start + 28 : start + 56] + file[start : start + 28])
    found = SnapshotFile.open(disk, id, cluster_id=CLUSTER).blocks()
    assert next(found) == b"a" * 20
    with pytest.raises(DataDamaged):
        next(found)


@pytest.mark.parametrize("cut", [1, 2, TRAILER_BYTES, TRAILER_BYTES + 1, 500, 10_000])
def test_a_shortened_or_longer_file_is_noticed(cut):
    """faults 58, 43: also one of no bytes at all."""
    disk, id = written()
    disk.open(snapshot_name(id)).truncate(max(0, id.size_bytes - cut))
    assert opened(disk).newest is None
    disk, id = written()
    overwrite(disk, snapshot_name(id), offset=id.size_bytes, data=bytes(cut))
    assert opened(disk).newest is None


@pytest.mark.parametrize("size_bytes", [0, 1, 13, 14, 60])
def test_a_file_that_ends_in_its_header_is_damaged(size_bytes):
    """faults 43: its name says so, too."""
    _, file = file_of()
    disk = SimulatedDirectory(Random(1))
    id = SnapshotId(Index(50), Term(3), size_bytes, 0)
    disk.create(snapshot_name(id))
    overwrite(disk, snapshot_name(id), offset=0, data=file[:size_bytes])
    snapshots = opened(disk)
    assert snapshots.newest is None
    with pytest.raises(DataDamaged):
        snapshots.prove(id)


def test_a_snapshot_under_another_name_is_damaged():
    disk, id = written()
    for other in (replace(id, index=Index(51)), replace(id, term=Term(2)), replace(id, checksum=id.checksum ^ 1)):
        disk.rename(snapshot_name(id), snapshot_name(other))
        with pytest.raises(DataDamaged):
            opened(disk).prove(other)
        disk.rename(snapshot_name(other), snapshot_name(id))
    opened(disk).prove(id)


@pytest.mark.parametrize("value", [0xFFFF_FFFF, 0x7FFF_FFFF, 64 * 1024 * 1024, 2000])
def test_an_absurd_length_is_refused_without_memory(value, tmp_path):
    """faults 57: a block's, and the header's. On a real disk, for reading takes what it is asked for."""
    disk = PosixDirectory(tmp_path)
    id = opened(disk).write(meta_at(50), BLOCKS)
    before = (tmp_path / snapshot_name(id)).read_bytes()
    for offset in (8, len(encode_header(meta_at(50)))):
        (tmp_path / snapshot_name(id)).write_bytes(before[:offset] + struct.pack("<I", value) + before[offset + 4 :])
        tracemalloc.start()
        with pytest.raises(DataDamaged):
            SnapshotFile.open(disk, id, cluster_id=CLUSTER).prove()
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak_bytes < 1_000_000


def test_another_format_is_unknown_and_another_cluster_wrong(monkeypatch):
    disk, id = written()
    with pytest.raises(WrongIdentity):
        Snapshots.open(disk, cluster_id=ClusterId(b"x" * 16), reserve_bytes=0).prove(id)
    monkeypatch.setattr("raftkv.storage.snapshot_format.SNAPSHOT_FORMAT", 3)
    with pytest.raises(UnknownFormat, match="format 2"):
        opened(disk).prove(id)


# ------------------------------------------------------------------------------------------------- writing


def test_the_newest_two_are_kept_and_what_is_being_read():
    disk = SimulatedDirectory(Random(1))
    snapshots = opened(disk)
    ids = [snapshots.write(meta_at(10), BLOCKS)]
    reader = reader_of(snapshots)
    again = reader_of(snapshots, ids[0])
    for index in (20, 30, 40):
        ids.append(snapshots.write(meta_at(index), BLOCKS))
    assert snapshots_in(disk) == [ids[0], *ids[2:]]
    assert snapshots.reader(ids[1]) is None
    reader.close()
    reader.close()
    assert snapshots_in(disk) == [ids[0], *ids[2:]], "somebody else still reads it"
    again.close()
    assert snapshots_in(disk) == ids[2:]
    assert [each.id for each in snapshots.stored] == ids[2:]


def test_the_log_is_kept_for_the_one_before_the_newest():
    snapshots = opened(SimulatedDirectory(Random(1)))
    limits = [snapshots.trim_limit]
    for index in (10, 20, 30):
        snapshots.write(meta_at(index), BLOCKS)
        limits.append(snapshots.trim_limit)
    assert limits == [0, 0, 10, 20]


def test_a_snapshot_that_is_not_newer_is_not_written():
    disk, id = written(50)
    snapshots, drawn = opened(disk), list[bytes]()
    blocks = noted(drawn, BLOCKS)
    assert snapshots.write(meta_at(50), blocks) == snapshots.write(meta_at(49), blocks) == id
    assert drawn == []


def test_a_received_one_may_overtake_one_that_is_being_written():
    """One thread does both, between two blocks; the one that is older by then is given up."""
    disk = SimulatedDirectory(Random(1))
    snapshots = opened(disk)
    id, file = file_of(60)

    def blocks() -> Iterator[bytes]:
        yield b"one"
        assert snapshots.receive(id, 0, file).complete is not None
        with reader_of(snapshots) as reader:
            assert reader.piece(0, 1 << 20) == file
        yield b"two"

    assert snapshots.write(meta_at(50), blocks()) == id
    assert disk.names() == [snapshot_name(id)]


def test_what_the_blocks_raise_passes_through_and_leaves_nothing():
    disk, id = written(50)

    class GivenUp(Exception):
        pass

    def blocks() -> Iterator[bytes]:
        yield b"one"
        raise GivenUp

    snapshots = opened(disk)
    with pytest.raises(GivenUp):
        snapshots.write(meta_at(60), blocks())
    assert disk.names() == [snapshot_name(id)]
    assert snapshots.write(meta_at(60), BLOCKS).index == 60


def test_a_full_disk_costs_nothing_but_the_attempt():
    """faults 56: at every byte that may be the last; all that was there is there, and room comes back."""
    disk, id = written(50)
    used_bytes = id.size_bytes
    for left_bytes in range(0, used_bytes, 7):
        disk.capacity_bytes = used_bytes + left_bytes
        snapshots = opened(disk, reserve_bytes=-(1 << 40))
        with pytest.raises(DiskFailed) as full:
            snapshots.write(meta_at(60), BLOCKS)
        assert is_disk_full(full.value)
        assert disk.names() == [snapshot_name(id)]
        assert blocks_in_newest(snapshots) == BLOCKS
        disk.capacity_bytes = None
    assert snapshots.write(meta_at(60), BLOCKS).index == 60


def blocks_in_newest(snapshots: Snapshots) -> list[bytes]:
    with reader_of(snapshots) as reader:
        return list(reader.blocks())


def test_the_logs_share_of_the_disk_is_not_touched(monkeypatch):
    """faults 56: given up before the log has no room; at the start, and midway."""
    monkeypatch.setattr("raftkv.storage.snapshot_writing.SYNC_BYTES", 1000)
    disk, id = written(50)
    snapshots = opened(disk, reserve_bytes=20_000)
    disk.capacity_bytes = id.size_bytes + 20_500
    for attempt in ([b"x"], [bytes(500)] * 50):
        drawn: list[bytes] = []
        with pytest.raises(DiskFailed, match="20000 are the log's") as full:
            snapshots.write(meta_at(60), noted(drawn, attempt))
        assert is_disk_full(full.value)
        assert len(drawn) * 500 < 3000
        disk.capacity_bytes = id.size_bytes + 21_500
    other, file = file_of(70, [bytes(2000)])
    with pytest.raises(DiskFailed, match="20000 are the log's"):
        snapshots.receive(other, 0, file[:10])
    assert disk.names() == [snapshot_name(id)]


def test_any_other_failure_of_the_disk_is_final():
    """faults 55."""
    disk, id = written(50)
    snapshots = opened(disk)
    disk.failing_syncs.add(disk.syncs + 1)
    with pytest.raises(DiskFailed) as failed:
        snapshots.write(meta_at(60), BLOCKS)
    operations = disk.operations
    for refused in (
        lambda: snapshots.write(meta_at(70), BLOCKS),
        lambda: snapshots.receive(*file_of(70)[:1], 0, b"x"),
        lambda: snapshots.prove(id),
    ):
        with pytest.raises(DiskFailed) as again:
            refused()
        assert again.value is failed.value
    assert disk.operations == operations


# ----------------------------------------------------------------------------------------------- receiving


def test_a_file_comes_in_pieces_of_any_order_and_size():
    """faults 41: beyond what is there, over it, twice, past its end, nothing at all."""
    id, file = file_of()
    for seed in range(40):
        rng, disk = Random(seed), SimulatedDirectory(Random(seed))
        snapshots, there, complete = opened(disk), 0, None
        while complete is None:
            offset = rng.choice((there, rng.randint(0, len(file) + 20)))
            length = rng.choice((0, 1, 50, 400, 2000))
            received = snapshots.receive(id, offset, (file + b"more")[offset : offset + length])
            if offset <= there:
                there = max(there, min(len(file), offset + length))
            assert (received.wanted_offset, received.problem) == (there, "")
            complete = received.complete
            assert (complete is not None) == (there == len(file))
        assert complete == meta_at(50).base
        assert disk.content(snapshot_name(id)) == file
        assert snapshots.receive(id, 3, b"late") == (len(file), complete, "")
        assert disk.names() == [snapshot_name(id)]


def test_a_restart_goes_on_with_what_is_proved():
    """faults 41: whole blocks; after a cut of the power not what the disk lost."""
    id, file = file_of(50, [bytes([number]) * 100 for number in range(30)])
    for seed in range(60):
        rng, disk = Random(seed), SimulatedDirectory(Random(seed), page_bytes=512)
        snapshots, offset = opened(disk), 0
        for _ in range(3):
            for _ in range(rng.randint(0, 4)):
                offset = snapshots.receive(id, offset, file[offset : offset + 300]).wanted_offset
            power_fails = rng.random() < 0.5
            disk = disk.survivor(rng) if power_fails else disk.restarted()
            snapshots = opened(disk)
            wanted = snapshots.receive(id, offset, b"").wanted_offset
            assert offset - 108 < wanted <= offset or power_fails or offset < 200
            offset = wanted
        assert snapshots.receive(id, offset, file[offset:]).complete == meta_at(50).base
        assert blocks_in(disk.survivor(rng)) == blocks_in_newest(snapshots)


def test_what_a_failed_sync_left_in_the_cache_is_written_again():
    """faults 55: the cache shows it and calls it clean; only what is written anew will be on the disk."""
    id, file = file_of(50, [bytes([number]) * 100 for number in range(30)])
    disk = SimulatedDirectory(Random(1), page_bytes=512)
    opened(disk).receive(id, 0, file[:-1])
    disk.failing_syncs.add(disk.syncs + 1)
    with pytest.raises(DiskFailed):
        disk.open(receiving_name(id)).sync()
    disk = disk.restarted()
    snapshots = opened(disk)
    wanted = snapshots.receive(id, 0, b"").wanted_offset
    assert wanted > 0
    assert snapshots.receive(id, wanted, file[wanted:]).complete is not None
    for seed in range(10):
        assert len(blocks_in(disk.survivor(Random(seed)))) == 30


def test_another_file_starts_again():
    """faults 41: a new leader's; nothing of the first one is left, also after a restart."""
    disk = SimulatedDirectory(Random(1))
    snapshots = opened(disk)
    id, file = file_of(50)
    other, other_file = file_of(50, [b"cut otherwise"])
    assert snapshots.receive(id, 0, file[:200]).wanted_offset == 200
    assert snapshots.receive(other, 200, other_file[200:]).wanted_offset == 0
    assert snapshots_in(disk, RECEIVING_PREFIX) == [other]
    assert opened(disk).receive(id, 0, file[:200]).wanted_offset == 200
    assert snapshots_in(disk, RECEIVING_PREFIX) == [id]
    assert opened(disk).receive(other, 0, other_file).complete == meta_at(50).base
    assert disk.names() == [snapshot_name(other)]


def test_a_file_that_is_not_what_it_was_called_is_thrown_away():
    """faults 58: a bit flipped on the way or at the sender; nothing gets its name, and it may be sent again."""
    id, file = file_of()
    for offset in range(0, len(file), 3):
        disk = SimulatedDirectory(Random(1))
        snapshots = opened(disk)
        bad = file[:offset] + bytes([file[offset] ^ 4]) + file[offset + 1 :]
        received = snapshots.receive(id, 0, bad)
        assert (received.wanted_offset, received.complete) == (0, None)
        assert received.problem
        assert disk.names() == []
    assert snapshots.receive(id, 0, file).complete is not None


@pytest.mark.parametrize("size_bytes", [0, 1, 31, 100])
def test_a_file_that_is_too_short_for_a_snapshot_is_thrown_away(size_bytes):
    """faults 57: a sender that says nonsense."""
    disk = SimulatedDirectory(Random(1))
    id = SnapshotId(Index(50), Term(3), size_bytes, 0)
    received = opened(disk).receive(id, 0, file_of()[1][:size_bytes])
    assert (received.wanted_offset, received.complete) == (0, None)
    assert received.problem
    assert disk.names() == []


def test_a_format_of_the_future_is_refused_with_its_first_bytes(monkeypatch):
    """Not after ten gigabytes of it, and not silently."""
    with monkeypatch.context() as future:
        future.setattr("raftkv.storage.snapshot_format.SNAPSHOT_FORMAT", 3)
        id, file = file_of()
    disk = SimulatedDirectory(Random(1))
    received = opened(disk).receive(id, 0, file[:250])
    assert received.wanted_offset == 0
    assert "format 3" in received.problem
    assert disk.names() == []


def test_an_absurd_size_is_no_room():
    """faults 57."""
    id, _ = file_of()
    disk = SimulatedDirectory(Random(1))
    with pytest.raises(DiskFailed) as full:
        opened(disk).receive(replace(id, size_bytes=1 << 62), 0, b"RaftkvSn")
    assert is_disk_full(full.value)
    assert disk.names() == []


def test_a_full_disk_while_receiving_gives_back_what_it_took():
    """faults 56."""
    disk, id = written(50)
    other, file = file_of(60)
    for left_bytes in range(0, len(file), 11):
        snapshots = opened(disk, reserve_bytes=-(1 << 40))
        disk.capacity_bytes = id.size_bytes + left_bytes
        with pytest.raises(DiskFailed) as full:
            [snapshots.receive(other, offset, file[offset : offset + 100]) for offset in range(0, len(file), 100)]
        assert is_disk_full(full.value)
        assert disk.names() == [snapshot_name(id)]
        disk.capacity_bytes = None
    assert snapshots.receive(other, 0, file).complete is not None


def test_leftovers_are_gone_at_the_next_start():
    """faults 43: what was being written; a partial file of what is in place already, or older."""
    disk, id = written(50)
    for name in (TEMPORARY_NAME, receiving_name(id), receiving_name(file_of(40)[0]), receiving_name(file_of(60)[0])):
        disk.create(name)
    opened(disk)
    assert disk.names() == [receiving_name(file_of(60)[0]), snapshot_name(id)]


def test_names_that_are_not_ours_are_left_alone():
    disk, id = written(50)
    names = ["snapshot-50", f"{snapshot_name(id)}.bak", snapshot_name(id).replace("-0000", "-00000", 1), "receiving-x"]
    for name in names:
        disk.create(name)
    assert opened(disk).write(meta_at(60), []).index == 60
    assert set(names) <= set(disk.names())


# --------------------------------------------------------------------------------------------- damaged files


def test_a_damaged_snapshot_is_not_sent():
    """The one before is, until a newer one is in place; then the damaged one goes."""
    disk = SimulatedDirectory(Random(1))
    snapshots = opened(disk)
    ids = [snapshots.write(meta_at(index), BLOCKS) for index in (10, 20)]
    disk.flip_bit(snapshot_name(ids[1]), ids[1].size_bytes * 4)
    snapshots = opened(disk)
    assert newest_of(snapshots).id == ids[1], "only its header was read"
    assert reader_of(snapshots).stored.id == ids[0]
    assert snapshots.reader(ids[1]) is None
    assert newest_of(snapshots).id == ids[0]
    assert snapshots.trim_limit == 0
    assert snapshots_in(disk) == ids
    newest = snapshots.write(meta_at(30), BLOCKS)
    assert snapshots_in(disk) == [ids[0], newest]


def test_a_damaged_snapshot_is_replaced_by_the_same_file():
    id, file = file_of(50)
    disk, _ = written(50)
    disk.flip_bit(snapshot_name(id), 3)
    snapshots = opened(disk)
    assert snapshots.newest is None
    assert snapshots.receive(id, 0, file).complete is not None
    assert blocks_in_newest(snapshots) == BLOCKS


def test_a_real_disk_does_the_same(tmp_path):
    directory = PosixDirectory(tmp_path)
    snapshots = opened(directory)
    first = snapshots.write(meta_at(10), BLOCKS)
    id, file = file_of(20)
    for offset in range(0, len(file), 300):
        received = snapshots.receive(id, offset, file[offset : offset + 300])
    assert received.complete == meta_at(20).base
    reader = reader_of(snapshots, first)
    newest = snapshots.write(meta_at(30), [bytes(20_000_000)])
    assert snapshots_in(directory) == [first, id, newest]
    assert list(reader.blocks()) == BLOCKS
    reader.close()
    assert [each.id for each in opened(directory).stored] == [id, newest]
    assert (tmp_path / snapshot_name(newest)).stat().st_mode & 0o777 == 0o600
    directory.close()


@pytest.mark.parametrize("part", ["receiving", "writing"])
def test_a_large_file_is_synced_piece_by_piece(part, monkeypatch):
    """Faults 45: one sync of all of it at the end would hold up whoever syncs the log meanwhile."""
    blocks = [Random(number).randbytes(100) for number in range(20)]
    monkeypatch.setattr(f"raftkv.storage.snapshot_{part}.SYNC_BYTES", 300)
    disk = SimulatedDirectory(Random(1))
    snapshots = opened(disk)
    id, file = file_of(blocks=blocks)
    before = disk.syncs
    if part == "writing":
        snapshots.write(meta_at(50), blocks)
    else:
        for offset in range(0, len(file), 100):
            snapshots.receive(id, offset, file[offset : offset + 100])
    assert disk.syncs - before >= len(file) // 400
