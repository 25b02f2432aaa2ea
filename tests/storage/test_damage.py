"""Damage is refused, never cut; a torn tail is cut, never refused."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Iterator
from random import Random

import pytest

from raftkv.core.effects import LogBase
from raftkv.core.types import ClusterId, Incarnation, Index, NodeId, Term
from raftkv.errors import DataDamaged, DataError, UnknownFormat, WrongIdentity
from raftkv.frames import EntryKind
from raftkv.sim.world.disk import SimulatedDirectory
from raftkv.storage.format import BLOCK_BYTES, encode_batch, salt_of
from raftkv.storage.identity import Identity, IdentityFile, read_identity
from raftkv.storage.operations import append_of, encode
from raftkv.storage.recovery import scan
from raftkv.storage.segments import WINDOW_BYTES, Segment, segment_name, segment_numbers
from raftkv.storage.standing import Standing
from raftkv.storage.wal import Wal
from tests.storage.life import INCARNATION, NODE, configuration_of, entry, open_log, overwrite, state_of, write

IDENTITY = Identity(NODE, INCARNATION)
LOG = segment_name(1)


def _small_log(*, marked: bool) -> tuple[SimulatedDirectory, int]:
    """One segment with every kind of operation, and where it ends."""
    disk = SimulatedDirectory(Random(1))
    wal, _ = open_log(disk)
    wal.write([write(entry(1, 1), entry(2, 1), vote=(1, "n1"))])
    wal.write([write(vote=(2, None)), write(entry(2, 2), truncate_from=2)])
    wal.write([write(entry(3, 2, configuration_of("n1", "n2").encode(), EntryKind.CONFIGURATION))])
    wal.write([write(entry(8, 2), base=LogBase(Index(7), Term(2), configuration_of("n1")))])
    if marked:
        wal.mark()
    return disk, wal._offset


def _facts(disk: SimulatedDirectory) -> tuple:
    found = scan(disk, IDENTITY)
    standing = found.standing
    return (
        standing.term,
        standing.voted_for,
        standing.base,
        standing.last_index,
        standing.term_runs,
        standing.configurations,
        found.tail.frames,
    )


def _believed(disk: SimulatedDirectory, start: int, end: int) -> Iterator[tuple]:
    """What recovery believes with each bit flipped alone; what it refuses is left out."""
    for bit in range(start * 8, end * 8):
        disk.flip_bit(LOG, bit)
        try:
            yield _facts(disk)
        except DataError:
            pass
        disk.flip_bit(LOG, bit)


def _flip_everywhere(disk: SimulatedDirectory, start: int, end: int) -> list[tuple]:
    return list(_believed(disk, start, end))


def test_every_bit_flipped_under_a_mark_is_refused():
    """faults 58, 53: header, table, payload, padding and checksums of all that is synced."""
    disk, end = _small_log(marked=True)
    assert _flip_everywhere(disk, 0, end - BLOCK_BYTES) == []


def test_a_bit_flipped_in_the_mark_itself_changes_nothing():
    """faults 58: the mark is the last batch, and says nothing that is not so without it."""
    disk, end = _small_log(marked=True)
    whole = _facts(disk)
    believed = _flip_everywhere(disk, end - BLOCK_BYTES, end)
    assert len(believed) == BLOCK_BYTES * 8
    assert all(each == whole for each in believed)


def test_a_bit_flipped_in_the_last_unmarked_batch_is_cut_and_never_believed():
    """faults 58: the one case that nobody can tell from a torn write."""
    disk, end = _small_log(marked=False)
    last = scan(disk, IDENTITY).last_batch
    assert last is not None
    assert _flip_everywhere(disk, 0, last.offset) == [], "what the last batch proves is refused"
    believed = _flip_everywhere(disk, last.offset, end)
    assert len(believed) == (end - last.offset) * 8
    overwrite(disk, LOG, offset=last.offset, data=bytes(end - last.offset))
    without = _facts(disk)
    assert all(each == without for each in believed)


def test_the_flip_check_catches_a_recovery_that_takes_damage_for_a_torn_tail(monkeypatch):
    """faults 53: planted bug."""
    disk, end = _small_log(marked=True)
    monkeypatch.setattr(Segment, "proof_after", lambda self, offset, *, number: None)
    assert any(_believed(disk, BLOCK_BYTES, end - BLOCK_BYTES))


def test_the_flip_check_catches_a_checksum_that_is_not_looked_at(monkeypatch):
    """faults 58: planted bug. The frames' own checksums still hold, but not what stands around them."""
    disk, end = _small_log(marked=True)
    monkeypatch.setattr("raftkv.storage.segments.body_of", lambda data, header: data[: header.body_bytes])
    assert any(_believed(disk, BLOCK_BYTES, end - BLOCK_BYTES))


@pytest.mark.parametrize("marked", [True, False])
def test_damage_names_its_place_and_changes_nothing(marked):
    """faults 53."""
    disk, end = _small_log(marked=marked)
    for offset in range(BLOCK_BYTES, end - 2 * BLOCK_BYTES, BLOCK_BYTES):
        before = disk.content(LOG)
        overwrite(disk, LOG, offset=offset, data=Random(offset).randbytes(BLOCK_BYTES))
        operations = disk.operations
        with pytest.raises(DataDamaged) as refused:
            open_log(disk)
        assert (str(refused.value.path), refused.value.offset) == (f"sim/{LOG}", offset)
        assert disk.operations == operations + 1, "only the directory was synced, for the identity's sake"
        overwrite(disk, LOG, offset=0, data=before)
    open_log(disk)


def test_a_torn_batch_whose_successor_left_only_its_header_is_damage():
    """faults 53: the successor was only written after the sync of the one before."""
    disk, end = _small_log(marked=False)
    wal, _ = open_log(disk)
    start = wal._offset
    wal.write([write(entry(9, 2, b"y" * 3000))])
    overwrite(disk, LOG, offset=start + BLOCK_BYTES, data=bytes(3000))
    assert state_of(*open_log(disk)).last_index == 8, "the long batch alone is torn"
    wal, _ = open_log(disk)
    wal.write([write(entry(9, 2, b"y" * 3000))])
    overwrite(disk, LOG, offset=wal._offset - BLOCK_BYTES, data=bytes(BLOCK_BYTES))
    overwrite(disk, LOG, offset=end - BLOCK_BYTES, data=bytes(BLOCK_BYTES))
    with pytest.raises(DataDamaged):
        open_log(disk)


def _two_segments() -> SimulatedDirectory:
    disk = SimulatedDirectory(Random(1))
    wal, _ = open_log(disk)
    wal.write([write(vote=(1, None))])
    for index in range(1, 24):
        wal.write([write(entry(index, 1))])
    assert disk.exists(segment_name(2))
    return disk


def test_a_bad_end_of_an_older_segment_is_damage():
    """faults 53: the later segment's header says that all before it was synced."""
    disk = _two_segments()
    segment = Segment(disk.open(LOG))
    *_, last = segment.batches()
    disk.flip_bit(LOG, last.offset * 8 + 100)
    with pytest.raises(DataDamaged) as refused:
        open_log(disk)
    assert (str(refused.value.path), refused.value.offset) == (f"sim/{LOG}", last.offset)
    assert segment_name(2) in refused.value.why


@pytest.mark.parametrize(("lost", "why"), [(1, "are missing"), (2, "missing between others")])
def test_a_lost_segment_is_damage(lost, why):
    """faults 53: at the beginning the header of the oldest that is left tells, in the middle the numbers."""
    disk = _two_segments()
    wal, _ = open_log(disk)
    for index in range(24, 38):
        wal.write([write(entry(index, 1))])
    assert disk.exists(segment_name(3))
    disk.delete(segment_name(lost))
    with pytest.raises(DataDamaged, match=why):
        open_log(disk)


def test_a_log_that_is_gone_is_damage_not_a_fresh_start():
    """faults 53: the vote was in there."""
    disk, _ = _small_log(marked=True)
    disk.delete(LOG)
    with pytest.raises(DataDamaged, match="the log is gone"):
        open_log(disk)


def test_a_shortened_file_is_damage():
    disk, end = _small_log(marked=True)
    disk.open(LOG).truncate(end)
    with pytest.raises(DataDamaged, match="bytes long"):
        open_log(disk)


def test_a_segment_of_another_past_of_this_node_is_damage():
    """As from a backup of the directory: as many batches, the same term and vote, and one entry more in between."""
    pasts = []
    for count in (1, 2):
        disk = SimulatedDirectory(Random(1))
        wal, _ = open_log(disk)
        wal.write([write(*[entry(index, 1) for index in range(1, count + 1)], vote=(1, "n1"))])
        while len(segment_numbers(disk)) < 2:
            wal.write([write(entry(wal.last_index + 1, 1))])
        pasts.append(disk)
    mine, others = pasts
    assert scan(mine, IDENTITY).next_batch == scan(others, IDENTITY).next_batch
    mine.open(segment_name(2)).pwrite(others.content(segment_name(2)), offset=0)
    with pytest.raises(DataDamaged, match="does not say what the segments before it amount to"):
        scan(mine, IDENTITY)


def test_a_segment_under_another_number_is_damage():
    disk, _ = _small_log(marked=True)
    disk.rename(LOG, segment_name(2))
    with pytest.raises(DataDamaged, match="it says that it is segment 1"):
        open_log(disk)


def test_two_segments_that_do_not_fit_together_are_damage():
    disk, other = _two_segments(), SimulatedDirectory(Random(2))
    wal, _ = open_log(other)
    wal.write([write(vote=(7, None))])
    for index in range(1, 24):
        wal.write([write(entry(index, 7))])
    overwrite(disk, segment_name(2), offset=0, data=other.content(segment_name(2)))
    with pytest.raises(DataDamaged, match="does not say what"):
        open_log(disk)


FORGERIES = {
    "falling term": ([write(vote=(3, None)), write(vote=(2, None))], "falls"),
    "second vote": ([write(vote=(3, "a")), write(vote=(3, "b"))], "second vote"),
    "vote taken back": ([write(vote=(3, "a")), write(vote=(3, None))], "second vote"),
    "entry above the term": ([write(entry(1, 4), vote=(3, None))], "only of term 3"),
    "falling entry term": ([write(entry(1, 3), entry(2, 2), vote=(3, None))], "the one before of term 3"),
    "gap": ([write(entry(1, 1), entry(3, 1), vote=(3, None))], "entry 3 comes after entry 1"),
    "first entry missing": ([write(entry(2, 1), vote=(3, None))], "entry 2 comes after entry 0"),
    "absurd index": ([write(entry(2**64 - 1, 1), vote=(3, None))], "comes after entry 0"),
    "truncation past the end": ([write(vote=(3, None)), write(truncate_from=5)], "truncation at 5"),
    "truncation into the base": (
        [write(vote=(3, None)), write(base=LogBase(Index(9), Term(1), configuration_of("n1")), truncate_from=9)],
        "truncation at 9",
    ),
    "base above the term": ([write(base=LogBase(Index(9), Term(1), configuration_of("n1")))], "base of term 1"),
    "no configuration": ([write(entry(1, 1, b"?", EntryKind.CONFIGURATION), vote=(3, None))], "entry 1: "),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_what_no_node_can_have_written_is_refused(forgery, monkeypatch):
    """faults 57: sound checksums do not make sense of nonsense. The writer asserts what the reader refuses."""
    writes, why = FORGERIES[forgery]
    disk = SimulatedDirectory(Random(1))
    wal, _ = open_log(disk)
    with pytest.raises(AssertionError, match=why):
        wal.write(writes)
    disk = SimulatedDirectory(Random(1))
    wal, _ = open_log(disk)
    with monkeypatch.context() as blind:
        blind.setattr(Standing, "apply", lambda self, operation: None)
        wal.write(writes)
    with pytest.raises(DataDamaged, match=why):
        open_log(disk)


@pytest.mark.parametrize(
    ("field", "value"),
    [(offset, value) for offset in (32, 36, 40) for value in (0xFFFF_FFFF, 0x7FFF_FFFF, 20_000_000, 9000)],
)
def test_absurd_lengths_are_refused_without_memory(field, value):
    """faults 57: body bytes, runs and entries of a batch's header."""
    disk, _ = _small_log(marked=True)
    overwrite(disk, LOG, offset=2 * BLOCK_BYTES + field, data=struct.pack("<I", value))
    tracemalloc.start()
    with pytest.raises(DataDamaged):
        scan(disk, IDENTITY)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 1_000_000


@pytest.mark.parametrize("value", [0, 1, 511, 513, 1 << 20, 0xFFFF_FE00])
def test_an_absurd_header_length_of_a_segment_is_refused(value):
    """faults 57."""
    disk, _ = _small_log(marked=True)
    overwrite(disk, LOG, offset=8, data=struct.pack("<I", value))
    with pytest.raises(DataDamaged):
        scan(disk, IDENTITY)


def test_a_stale_batch_in_a_recycled_file_is_never_believed():
    """faults 53: the file was segment 1 before, with sound batches of higher numbers at the same places."""
    used = SimulatedDirectory(Random(1))
    wal, _ = open_log(used, segment_bytes=1 << 15)
    wal.write([write(vote=(1, None))])
    for index in range(1, 50):
        wal.write([write(entry(index, 1))])
    disk = SimulatedDirectory(Random(2))
    wal, _ = open_log(disk, segment_bytes=1 << 13)
    wal.write([write(vote=(1, None))])
    file = disk.create("spare")
    file.pwrite(used.content(LOG), offset=0)
    file.sync()
    wal, _ = open_log(disk, segment_bytes=1 << 13)
    assert not wal.wants_spare
    wal._roll(room_bytes=BLOCK_BYTES)
    wal.write([write(entry(1, 1, b"new"))])
    wal, recovered = open_log(disk.survivor(Random(3)), segment_bytes=1 << 13)
    assert recovered.last_index == 1
    assert wal.read(Index(1), Index(9), bytes_max=9999) == [entry(1, 1, b"new")]


def _value_with_a_batch(salt: int) -> bytes:
    """A value that holds a sound-looking later batch just where a block of the file begins."""
    append = append_of([entry(2, 1, b"forged")])
    forged = encode_batch(
        segment=1, number=99, runs=append.runs, checksums=append.checksums, parts=encode(append), salt=salt
    )
    before_bytes = 44 + 20 + 4 + 4 + 5 + 25
    return bytes(BLOCK_BYTES - before_bytes) + forged


@pytest.mark.parametrize(("incarnation", "is_taken_for_damage"), [(bytes(16), False), (INCARNATION, True)])
def test_a_batch_that_a_client_put_as_a_value_proves_nothing(incarnation, is_taken_for_damage):
    """faults 52: only who knows the node's incarnation could make its log look damaged."""
    disk, end = SimulatedDirectory(Random(1)), 0
    wal, _ = open_log(disk)
    wal.write([write(vote=(1, None))])
    end = wal._offset
    wal.write([write(entry(1, 1, _value_with_a_batch(salt_of(Incarnation(incarnation)))))])
    overwrite(disk, LOG, offset=end, data=bytes(BLOCK_BYTES))
    if is_taken_for_damage:
        with pytest.raises(DataDamaged):
            open_log(disk)
    else:
        assert open_log(disk)[1].last_index == 0


def test_another_node_incarnation_or_cluster_is_refused():
    """faults 32, the disk's part."""
    disk, _ = _small_log(marked=True)
    for identity in (Identity(NodeId("n2"), INCARNATION), Identity(NODE, Incarnation(bytes(16)))):
        with pytest.raises(WrongIdentity):
            scan(disk, identity)
    disk = SimulatedDirectory(Random(1))
    identity_file = IdentityFile.open(disk, node_id=NODE, new_incarnation=INCARNATION)
    identity_file.store_cluster(ClusterId(b"c" * 16), configuration_of("n1"))
    Wal.open(disk, identity_file, segment_bytes=8192)
    with pytest.raises(WrongIdentity):
        scan(disk, Identity(NODE, INCARNATION, cluster_id=ClusterId(b"d" * 16)))
    assert scan(disk, read_identity(disk)).standing.term == 0


def test_a_format_of_another_version_is_unknown_not_damaged(monkeypatch):
    with monkeypatch.context() as future:
        future.setattr("raftkv.storage.format.FORMAT_VERSION", 3)
        disk, _ = _small_log(marked=True)
    with pytest.raises(UnknownFormat, match="format 2"):
        open_log(disk)


def test_what_a_torn_write_left_is_cleared_wherever_it_stands():
    """Of a large write the beginning may be lost and the end kept: zeros say nothing of what stands behind them."""
    disk = SimulatedDirectory(Random(1))
    wal, _ = open_log(disk, segment_bytes=4 * WINDOW_BYTES)
    wal.write([write(entry(1, 1), vote=(1, None))])
    wal.mark()
    disk.open(LOG).pwrite(b"left", offset=3 * WINDOW_BYTES)
    wal, recovered = open_log(disk, segment_bytes=4 * WINDOW_BYTES)
    assert len(recovered.notes) == 1
    assert disk.content(LOG).rstrip(b"\0") == disk.content(LOG)[: wal._offset].rstrip(b"\0")
