"""A log whose first segments are gone, what a start makes of it and of the snapshots beside it."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from raftkv.core.effects import LogBase
from raftkv.core.types import ClusterId, Index, Term
from raftkv.errors import DataDamaged, WrongIdentity
from raftkv.frames import EntryKind
from raftkv.sim.world.disk import Crash, Moment, SimulatedDirectory
from raftkv.storage.segments import segment_name, segment_numbers
from raftkv.storage.snapshot_reading import snapshot_name, snapshots_in
from raftkv.storage.snapshots import Snapshots
from raftkv.storage.spare import SPARE_NAME, USED_NAME, Spare
from raftkv.storage.wal import Wal
from tests.storage.histories import CLUSTER, SEGMENT_BYTES, content_of, meta_of, open_directory, others_file
from tests.storage.life import configuration_of, entry, write

CONFIGURATION = configuration_of("n1")
OTHERS = configuration_of("n1", "n2", "n3")


def base_at(index: int, term: int = 1) -> LogBase:
    return LogBase(Index(index), Term(term), CONFIGURATION)


def append(wal: Wal, count: int, *, term: int = 1, bytes_each: int = 100) -> None:
    """One batch each, so that segments go by."""
    for _ in range(count):
        wal.write([write(entry(wal.last_index + 1, term, bytes(bytes_each)))])


def take(snapshots: Snapshots, index: int, term: int = 1) -> None:
    snapshots.write(meta_of(base_at(index, term)), content_of(base_at(index, term)))


def trimmed(*, entries: int = 60, at: tuple[int, ...] = (30, 45)) -> SimulatedDirectory:
    """A log of so many entries, snapshots of some of them, and nothing kept that need not be."""
    disk = SimulatedDirectory(Random(1))
    snapshots, wal, _ = open_directory(disk)
    wal.write([write(vote=(1, "n2"))])
    append(wal, entries)
    for index in at:
        take(snapshots, index)
    wal.trim(Index(at[-1]))
    wal.mark()
    return disk


# ------------------------------------------------------------------------------------------------ trimming


def test_whole_segments_go_and_the_rest_is_read_as_before():
    disk = SimulatedDirectory(Random(1))
    snapshots, wal, _ = open_directory(disk)
    wal.write([write(vote=(1, "n2"))])
    append(wal, 60)
    before, count = wal.log_bytes, len(segment_numbers(disk))
    assert count > 8
    wal.trim(Index(0))
    assert len(segment_numbers(disk)) == count
    take(snapshots, 30)
    wal.trim(Index(30))
    assert len(segment_numbers(disk)) == count, "one snapshot alone may be damaged: the log has everything"
    take(snapshots, 45)
    wal.trim(Index(45))
    left = len(segment_numbers(disk))
    assert wal.log_bytes == left * SEGMENT_BYTES < before
    first = wal._standing.begin.index + 1 if wal._standing.begin else 0
    assert 26 <= first <= 31, "never past the older snapshot, and not a segment more than need be"
    assert wal.read(Index(first), Index(60), bytes_max=1 << 20) == [
        entry(index, 1, bytes(100)) for index in range(first, 61)
    ]
    assert wal.read(Index(first - 1), Index(60), bytes_max=1 << 20) == []
    found = open_directory(disk.survivor(Random(2))).recovered
    assert (found.base, found.last_index) == (base_at(first - 1), 60)
    assert (found.term, found.voted_for) == (1, "n2")
    assert found.snapshot is not None
    assert found.snapshot.meta == meta_of(base_at(45))
    assert found.notes == []


def test_what_is_asked_for_bounds_what_goes():
    """The core keeps a tail for followers that are a little late."""
    disk = SimulatedDirectory(Random(1))
    snapshots, wal, _ = open_directory(disk)
    wal.write([write(vote=(1, None))])
    append(wal, 60)
    for index in (30, 45):
        take(snapshots, index)
    wal.trim(Index(12))
    assert len(wal.read(Index(13), Index(60), bytes_max=1 << 20)) == 48
    assert wal.read(Index(5), Index(60), bytes_max=1 << 20) == []


def test_segments_may_go_a_few_at_a_time():
    """A start after any of them finds the same log; the thread that writes it can write in between."""
    disk = SimulatedDirectory(Random(1))
    snapshots, wal, _ = open_directory(disk)
    wal.write([write(vote=(1, "n2"))])
    append(wal, 60)
    for index in (50, 55):
        take(snapshots, index)
    count, calls = len(segment_numbers(disk)), 1
    while wal.trim(Index(55), segments_max=2):
        assert len(segment_numbers(disk)) == count - 2 * calls
        append(wal, 1)
        count += len(segment_numbers(disk)) - (count - 2 * calls)
        recovered = open_directory(disk.survivor(Random(calls))).recovered
        assert 45 <= recovered.base.index <= 50
        assert recovered.last_index == wal.last_index
        calls += 1
    assert calls > 3
    assert not wal.trim(Index(55))
    assert segment_numbers(disk)[0] == wal._starts.oldest > 2 * calls - 2


def test_the_log_never_begins_behind_its_end():
    """Snapshots are ahead of this disk where a commit came from the others before its own sync."""
    disk = SimulatedDirectory(Random(1))
    snapshots, wal, _ = open_directory(disk)
    wal.write([write(vote=(2, "n2"))])
    append(wal, 20, term=2)
    count, term = len(segment_numbers(disk)), 3
    while len(segment_numbers(disk)) == count:
        wal.write([write(vote=(term, None))])
        term += 1
    for index in (wal.last_index + 10, wal.last_index + 20):
        take(snapshots, index)
    wal.trim(Index(wal.last_index + 20))
    append(wal, 1, term=2)
    assert wal.read(wal.last_index, wal.last_index, bytes_max=1) == [entry(wal.last_index, 2, bytes(100))]


def test_memory_gets_what_follows_the_first_entry_of_what_is_left():
    """Of that entry only its term counts: a snapshot has it, and the log begins after it."""
    disk = trimmed()
    identity = open_directory(disk).wal._identity
    snapshots = Snapshots.open(disk, cluster_id=CLUSTER, reserve_bytes=0)
    _, recovered = Wal.open(disk, identity, snapshots=snapshots, segment_bytes=SEGMENT_BYTES)
    assert 0 < recovered.base.index < 60
    assert recovered.tail_first == recovered.base.index + 1
    assert recovered.tail == [entry(index, 1, bytes(100)) for index in range(recovered.tail_first, 61)]


def test_a_configuration_that_was_dropped_is_still_in_force():
    """Paper §6: the newest configuration counts, wherever it stands."""
    disk = SimulatedDirectory(Random(1))
    snapshots, wal, recovered = open_directory(disk)
    assert recovered.base.configuration == CONFIGURATION
    wal.write([write(entry(1, 1, OTHERS.encode(), kind=EntryKind.CONFIGURATION), vote=(1, None))])
    append(wal, 40)
    for index in (20, 30):
        snapshots.write(replace(meta_of(base_at(index)), base=replace(base_at(index), configuration=OTHERS)), [])
    wal.trim(Index(30))
    for _ in range(2):
        found = open_directory(disk).recovered
        assert found.base.index > 1
        assert (found.base.configuration, found.configurations) == (OTHERS, [])
        append(open_directory(disk).wal, 8)


def test_a_configuration_that_stands_where_the_log_begins_is_the_first_in_force():
    """Not the one before it, nor the same one twice; also after a start."""
    disk = SimulatedDirectory(Random(1))
    snapshots, wal, _ = open_directory(disk)
    wal.write([write(vote=(1, None))])
    for index in range(1, 41):
        wal.write([write(entry(index, 1, configuration_of(f"n{index}").encode(), kind=EntryKind.CONFIGURATION))])
    for index in (20, 30):
        take(snapshots, index)
    wal.trim(Index(30))
    standing, found = wal._standing, open_directory(disk).recovered
    assert standing.begin is not None
    assert standing.begin.index == found.base.index > 1
    for base, later in ((standing.begin, standing.configurations[1:]), (found.base, found.configurations)):
        assert base.configuration == configuration_of(f"n{base.index}")
        assert [index for index, _ in later] == list(range(base.index + 1, 41))


def test_a_segment_whose_first_entry_was_taken_back_is_never_the_first():
    """Its header tells what was in force before entries that are gone: only the segments before it know the rest."""
    disk = SimulatedDirectory(Random(1))
    snapshots, wal, _ = open_directory(disk)
    wal.write([write(vote=(1, None))])
    append(wal, 9)
    wal.write([write(entry(10, 1, OTHERS.encode(), kind=EntryKind.CONFIGURATION))])
    number = segment_numbers(disk)[-1]
    while segment_numbers(disk)[-1] == number:
        append(wal, 1)
    wal.write([write(entry(9, 2), vote=(2, None), truncate_from=9)])
    append(wal, 3, term=2)
    for index in (11, 12):
        take(snapshots, index, term=2)
    wal.trim(Index(12))
    assert segment_numbers(disk)[0] <= number
    append(wal, 20, term=2)
    wal.trim(Index(12))
    found = open_directory(disk).recovered
    assert (found.base.configuration, found.configurations) == (CONFIGURATION, [])


def test_nor_is_one_that_was_taken_back_from_its_first_entry_on():
    disk = SimulatedDirectory(Random(1))
    snapshots, wal, _ = open_directory(disk)
    wal.write([write(vote=(1, None))])
    number = segment_numbers(disk)[-1]
    while segment_numbers(disk)[-1] == number:
        append(wal, 1)
    first = wal.last_index
    wal.write([write(entry(first, 2), vote=(2, None), truncate_from=first)])
    append(wal, 3, term=2)
    for index in (first, first + 1):
        take(snapshots, index, term=2)
    wal.trim(Index(first + 1))
    assert segment_numbers(disk)[0] == number
    assert open_directory(disk).recovered.last_index == first + 3


def test_after_a_received_snapshot_everything_before_its_record_goes():
    disk = SimulatedDirectory(Random(1))
    snapshots, wal, _ = open_directory(disk)
    wal.write([write(vote=(1, None))])
    append(wal, 40)
    id, file = others_file(base_at(500), 0)
    snapshots.receive(id, 0, file)
    wal.write([write(base=base_at(500))])
    wal.trim(Index(0))
    assert len(segment_numbers(disk)) == 1
    found = open_directory(disk.survivor(Random(1))).recovered
    assert (found.base, found.last_index) == (base_at(500), 500)


def test_endless_overwrites_take_bounded_room():
    """Log since the snapshot before the newest, two snapshots, a spare, and what a segment is larger than need be."""
    disk = SimulatedDirectory(Random(1))
    snapshots, wal, _ = open_directory(disk)
    wal.write([write(vote=(1, None))])
    most_bytes = 0
    for round_number in range(1, 60):
        append(wal, 20)
        wal.prepare_spare()
        take(snapshots, 20 * round_number - 3)
        wal.trim(Index(20 * round_number - 3))
        assert len(snapshots_in(disk)) <= 2
        most_bytes = max(most_bytes, sum(len(disk.content(name)) for name in disk.names()))
        if round_number % 10 == 0:
            disk = disk.restarted()
            snapshots, wal, _ = open_directory(disk)
    assert most_bytes < (20 * 3 // 3 + 3) * SEGMENT_BYTES


# --------------------------------------------------------------------------------------------- the spare


def test_a_dropped_segment_becomes_the_spare_and_nothing_of_it_is_left():
    """faults 53, 56: also on a disk that has no room for another, and with the old batches' sound checksums."""
    disk = SimulatedDirectory(Random(1))
    snapshots, wal, _ = open_directory(disk)
    wal.write([write(vote=(1, None))])
    append(wal, 60)
    for index in (30, 45):
        take(snapshots, index)
    assert wal.wants_spare
    disk.capacity_bytes = 0
    assert not wal.prepare_spare()
    wal.trim(Index(45))
    assert USED_NAME in disk.names()
    assert wal.prepare_spare()
    assert not wal.room_is_short
    assert disk.content(SPARE_NAME) == bytes(SEGMENT_BYTES)
    assert USED_NAME not in disk.names()


def _prepared(wal: Wal, disk: SimulatedDirectory) -> None:
    assert wal.prepare_spare()
    disk.sync()


def test_a_used_segment_is_zeroed_after_a_crash_midway():
    for operation in range(1, 5):
        for moment in Moment:
            disk = SimulatedDirectory(Random(operation), page_bytes=512)
            snapshots, wal, _ = open_directory(disk)
            wal.write([write(vote=(1, None))])
            append(wal, 60)
            for index in (30, 45):
                take(snapshots, index)
            wal.trim(Index(45))
            disk.crash_at(disk.operations + operation, moment)
            with pytest.raises(Crash):
                _prepared(wal, disk)
            found = disk.survivor(Random(operation))
            wal = open_directory(found).wal
            assert wal.prepare_spare()
            assert found.content(SPARE_NAME) == bytes(SEGMENT_BYTES)


def test_a_used_segment_is_zeroed_only_once_its_old_name_is_gone_for_good(monkeypatch):
    """faults 54: the thread that makes spares may begin right after the renaming, before the directory is synced."""
    takes = Spare.takes
    for operation in range(1, 6):
        for moment in Moment:
            disk = SimulatedDirectory(Random(operation), page_bytes=512)
            snapshots, wal, _ = open_directory(disk)
            wal.write([write(vote=(1, None))])
            append(wal, 40)
            for index in (20, 30):
                take(snapshots, index)

            def prepared_at_once(
                spare: Spare,
                name: str,
                *,
                size_bytes: int,
                disk: SimulatedDirectory = disk,
                operation: int = operation,
                moment: Moment = moment,
            ) -> bool:
                took = takes(spare, name, size_bytes=size_bytes)
                if took:
                    disk.crash_at(disk.operations + operation, moment)
                    spare.prepare()
                return took

            monkeypatch.setattr(Spare, "takes", prepared_at_once)
            with pytest.raises(Crash):
                wal.trim(Index(30))
            monkeypatch.setattr(Spare, "takes", takes)
            for seed in range(4):
                assert open_directory(disk.survivor(Random(seed))).recovered.last_index == 40


# ------------------------------------------------------------------------------------------ named moments


def _crashed(disk: SimulatedDirectory, operation_kind: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine dies right before that operation of a directory or file, of that kind, for the count-th time."""
    seen = [0]
    original = SimulatedDirectory._operate

    def operate(self, operation, name, work, **more):
        if self is disk and operation == operation_kind:
            seen[0] += 1
            if seen[0] == count:
                self.crash_at(self.operations + 1, Moment.BEFORE)
        original(self, operation, name, work, **more)

    monkeypatch.setattr(SimulatedDirectory, "_operate", operate)


OWN = [
    ("create", 1, 45, "before the temporary file"),
    ("write", 2, 45, "in the temporary file"),
    ("fsync", 1, 45, "before the temporary file is synced"),
    ("rename", 1, 45, "before it gets its name"),
    ("fsync", 2, 45, "before its name is synced"),
    ("delete", 1, 55, "before the oldest goes"),
]


@pytest.mark.parametrize(("kind", "count", "at_least", "moment"), OWN, ids=[each[3] for each in OWN])
def test_a_crash_while_a_snapshot_is_written(kind, count, at_least, moment, monkeypatch):
    """faults 43: the newest one in place counts, whole, and the log goes on from it."""
    for seed in range(8):
        disk = trimmed()
        snapshots = open_directory(disk).snapshots
        with monkeypatch.context() as dying:
            _crashed(disk, kind, count, dying)
            with pytest.raises(Crash):
                take(snapshots, 55)
        for found in (disk.survivor(Random(seed)), disk.restarted()):
            opened = open_directory(found)
            assert opened.recovered.snapshot is not None
            assert opened.recovered.snapshot.id.index in {at_least, 55}
            assert opened.recovered.last_index == 60
            assert all(len(found.content(name)) for name in found.names()), "no file of no bytes"


@pytest.mark.parametrize("index", [50, 90])
def test_a_crash_between_a_received_snapshot_and_its_record(index):
    """faults 43: it is ahead of the log, or the log contradicts it: the log starts again after it (faults 38, 40)."""
    disk = trimmed()
    id, file = others_file(base_at(index, 2), 0)
    assert open_directory(disk).snapshots.receive(id, 0, file).complete is not None
    for found in (disk.survivor(Random(1)), disk.restarted()):
        opened = open_directory(found)
        recovered = opened.recovered
        assert (recovered.base, recovered.last_index, recovered.tail) == (base_at(index, 2), index, [])
        assert (recovered.term, recovered.voted_for) == (2, None), "its term was adopted, if not yet stored"
        assert f"after entry {index}" in recovered.notes[0]
        append(opened.wal, 3, term=2)
        assert open_directory(found.survivor(Random(2))).recovered.last_index == index + 3


def test_a_snapshot_that_the_log_holds_keeps_the_log():
    """faults 38: what follows it is not divergent only because a snapshot came."""
    disk = trimmed()
    id, file = others_file(base_at(50, 1), 0)
    assert open_directory(disk).snapshots.receive(id, 0, file).complete is not None
    recovered = open_directory(disk).recovered
    assert recovered.last_index == 60
    assert recovered.snapshot is not None
    assert recovered.snapshot.id == id
    assert (recovered.term, recovered.voted_for) == (1, "n2")


@pytest.mark.parametrize("kept", [1, 2, 4])
def test_a_crash_while_segments_are_dropped(kept):
    """faults 43, 54: what is left before the gap is dropped by the next start."""
    disk = trimmed(at=(30, 31))
    snapshots, wal, _ = open_directory(disk)
    take(snapshots, 55)
    take(snapshots, 58)
    numbers = segment_numbers(disk)
    disk.crash_at(disk.operations + 2 * kept, Moment.AFTER)
    with pytest.raises(Crash):
        wal.trim(Index(58))
    found = disk.survivor(Random(1))
    assert 1 <= len(numbers) - len(segment_numbers(found)) <= kept
    recovered = open_directory(found).recovered
    assert recovered.last_index == 60
    assert recovered.base.index > 50
    left = segment_numbers(found)
    assert left == list(range(left[0], numbers[-1] + 1))


# ---------------------------------------------------------------------------------- what is damaged or lost


def test_a_damaged_newest_snapshot_has_a_stand_in():
    """faults 58: the one before it and the log; nothing is lost, and both are told."""
    disk = trimmed()
    older, newest = snapshots_in(disk)
    disk.flip_bit(snapshot_name(newest), 8 * newest.size_bytes - 40)
    for _ in range(2):
        recovered = open_directory(disk).recovered
        assert recovered.snapshot is not None
        assert (recovered.snapshot.id, recovered.last_index) == (older, 60)
        assert snapshot_name(newest) in recovered.notes[0]
        assert "the snapshot of entry 30 stands in" in recovered.notes[0]
    opened = open_directory(disk)
    take(opened.snapshots, 60)
    assert len(snapshots_in(disk)) == 2
    assert newest not in snapshots_in(disk)


def test_the_only_snapshot_may_be_damaged_while_the_log_has_everything():
    disk = trimmed(at=(30,))
    (only,) = snapshots_in(disk)
    disk.flip_bit(snapshot_name(only), 70)
    recovered = open_directory(disk).recovered
    assert (recovered.snapshot, recovered.base.index, recovered.last_index) == (None, 0, 60)
    assert "the log from its beginning stands in" in recovered.notes[0]


def test_where_the_log_does_not_reach_nothing_is_guessed():
    """faults 53: after a received one the log begins there; the one before it is of no use, and both are named."""
    disk = trimmed()
    id, file = others_file(base_at(500), 0)
    opened = open_directory(disk)
    opened.snapshots.receive(id, 0, file)
    opened.wal.write([write(base=base_at(500))])
    opened.wal.mark()
    disk.flip_bit(snapshot_name(id), 8 * id.size_bytes - 40)
    operations = disk.operations
    with pytest.raises(DataDamaged) as refused:
        open_directory(disk)
    assert str(refused.value.path) == f"sim/{snapshot_name(id)}"
    assert "the snapshot before it, of entry 45, is whole, but the log begins after entry 500" in refused.value.why
    assert disk.operations == operations + 2, "two syncs of the directory, and nothing else"
    disk.flip_bit(snapshot_name(id), 8 * id.size_bytes - 40)
    assert open_directory(disk).recovered.last_index == 500


def test_a_stand_in_that_the_log_contradicts_is_none():
    """faults 38, 53: two were received and neither is recorded in the log, which has other entries; one is damaged."""
    disk = trimmed(at=(30,))
    snapshots = open_directory(disk).snapshots
    ids = []
    for index in (50, 55):
        id, file = others_file(base_at(index, 2), 0)
        assert snapshots.receive(id, 0, file).complete is not None
        ids.append(id)
    older, newest = ids
    assert snapshots_in(disk)[-2:] == ids
    disk.flip_bit(snapshot_name(newest), 8 * newest.size_bytes - 40)
    with pytest.raises(DataDamaged, match=f"of entry {older.index}, is whole, but the log has another entry there"):
        open_directory(disk)


def test_two_damaged_snapshots_are_both_named():
    disk = trimmed()
    for id in snapshots_in(disk):
        disk.flip_bit(snapshot_name(id), 70)
    with pytest.raises(DataDamaged) as refused:
        open_directory(disk)
    for id in snapshots_in(disk):
        assert snapshot_name(id) in str(refused.value)


@pytest.mark.parametrize("keeps", [0, 1])
def test_a_snapshot_that_is_gone_is_damage_not_a_fresh_start(keeps):
    """faults 53: the log begins after the entries that it held."""
    disk = trimmed(at=(30, 45, 50, 55))
    for id in snapshots_in(disk)[keeps:]:
        disk.delete(snapshot_name(id))
    if keeps:
        id, file = others_file(base_at(9), 0)
        disk.delete(snapshot_name(snapshots_in(disk)[0]))
        Snapshots.open(disk, cluster_id=CLUSTER, reserve_bytes=0).receive(id, 0, file)
    with pytest.raises(DataDamaged, match=r"are missing|only what is up to 9"):
        open_directory(disk)


@pytest.mark.parametrize("with_snapshots", [True, False])
def test_a_lost_segment_is_damage_where_no_snapshot_holds_it(with_snapshots):
    """faults 53: a gap may be a trim that was interrupted, but not past the newest snapshot."""
    disk = trimmed(at=(30, 31))
    numbers = segment_numbers(disk)
    if not with_snapshots:
        for id in snapshots_in(disk):
            disk.delete(snapshot_name(id))
    disk.delete(segment_name(numbers[-2]))
    with pytest.raises(DataDamaged, match=r"begins after entry|are missing"):
        open_directory(disk)


def test_a_log_without_its_snapshot_keeper_must_be_whole():
    disk = trimmed()
    identity = open_directory(disk).wal._identity
    with pytest.raises(DataDamaged, match="are missing"):
        Wal.open(disk, identity, segment_bytes=SEGMENT_BYTES)


def test_a_snapshot_of_another_cluster_is_refused():
    disk = trimmed()
    meta = replace(meta_of(base_at(70)), cluster_id=ClusterId(b"x" * 16))
    Snapshots.open(disk, cluster_id=None, reserve_bytes=0).write(meta, [])
    with pytest.raises(WrongIdentity):
        open_directory(disk)


def test_a_snapshot_without_any_log_is_enough_to_begin():
    """What a restored backup leaves: an identity and a snapshot."""
    disk = SimulatedDirectory(Random(1))
    Snapshots.open(disk, cluster_id=CLUSTER, reserve_bytes=0).write(meta_of(base_at(70, 4)), [b"state"])
    for _ in range(2):
        recovered = open_directory(disk).recovered
        assert (recovered.base, recovered.last_index, recovered.term) == (base_at(70, 4), 70, 4)
        assert recovered.snapshot is not None
