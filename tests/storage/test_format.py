"""The bytes of batches, headers and operations, both ways."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftkv.core.effects import DiskWrite, LogBase
from raftkv.core.types import (
    ClusterId,
    Configuration,
    Incarnation,
    Index,
    Intent,
    Learner,
    Member,
    Membership,
    NodeId,
    Term,
    Ticket,
)
from raftkv.storage.format import (
    BATCH_MAGIC,
    BLOCK_BYTES,
    NO_CONFIGURATION,
    BadBytes,
    SegmentHeader,
    batch_bytes,
    batch_header_bytes,
    body_of,
    decode_batch_header,
    decode_segment_header,
    encode_batch,
    salt_of,
    segment_header_bytes,
)
from raftkv.storage.operations import (
    Append,
    BadBody,
    Run,
    Truncate,
    Vote,
    append_of,
    decode,
    encode,
    operations_of,
    table_of,
)
from tests.storage.life import entry, write

numbers = st.integers(0, 2**64 - 1)
ids = st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True).map(NodeId)
members = st.builds(Member, ids, st.binary(min_size=16, max_size=16).map(Incarnation), st.text(max_size=40))
learners = st.builds(Learner, members, st.sampled_from(Intent), st.none() | st.integers(0, 2**60))
memberships = st.builds(
    Membership, st.lists(members, min_size=1, max_size=3).map(tuple), st.lists(learners, max_size=2).map(tuple)
)
configurations = st.builds(Configuration, memberships, st.none() | memberships)
bases = st.builds(LogBase, numbers.map(Index), numbers.map(Term), configurations)
entries = st.builds(
    entry, st.integers(1, 2**64 - 2), st.integers(0, 2**64 - 1), st.binary(max_size=300), st.sampled_from([0, 1])
)
operations = st.one_of(
    st.builds(Vote, numbers.map(Term), st.none() | ids),
    st.builds(Truncate, numbers.map(Index)),
    bases,
    st.lists(entries, min_size=1, max_size=5).map(append_of),
)
headers = st.builds(
    SegmentHeader,
    number=numbers,
    first_batch=numbers,
    size_bytes=numbers,
    cluster_id=st.none() | st.binary(min_size=16, max_size=16).filter(any).map(ClusterId),
    node_id=ids,
    incarnation=st.binary(min_size=16, max_size=16).map(Incarnation),
    term=numbers.map(Term),
    voted_for=st.none() | ids,
    base=bases,
    first_index=numbers.map(Index),
    configuration_index=numbers.map(Index),
    configuration=configurations | st.just(NO_CONFIGURATION),
)


def _batch(found, *, salt: int = 7, number: int = 12) -> bytes:
    runs, checksums = table_of(found)
    parts = [part for operation in found for part in encode(operation)]
    return encode_batch(segment=3, number=number, runs=runs, checksums=checksums, parts=parts, salt=salt)


def _decoded(batch: bytes, *, salt: int = 7, segment: int = 3, room_bytes: int | None = None):
    room_bytes = len(batch) if room_bytes is None else room_bytes
    header_bytes = batch_header_bytes(batch[:BLOCK_BYTES], room_bytes=room_bytes)
    header = decode_batch_header(batch[:header_bytes], segment=segment, salt=salt)
    return header, list(decode(body_of(batch[header_bytes : header.total_bytes], header)))


@settings(deadline=None, max_examples=60)
@given(st.lists(operations, max_size=6))
def test_a_batch_reads_back_as_it_was_written(written):
    batch = _batch(written)
    header, found = _decoded(batch)
    assert found == written
    assert (header.segment, header.number, header.synced_through) == (3, 12, 11)
    assert (header.runs, header.checksums) == (table_of(found)[0], b"".join(table_of(found)[1]))
    assert header.is_mark == (not written)
    assert len(batch) == header.total_bytes
    assert len(batch) % BLOCK_BYTES == 0
    body_bytes = header.body_bytes
    entry_count = len(header.checksums) // 4
    assert len(batch) == batch_bytes(run_count=len(header.runs), entry_count=entry_count, body_bytes=body_bytes)


@settings(deadline=None, max_examples=60)
@given(headers)
def test_a_segment_header_reads_back_as_it_was_written(header):
    data = header.encode()
    assert len(data) % BLOCK_BYTES == 0
    assert segment_header_bytes(data[:BLOCK_BYTES], file_bytes=len(data)) == len(data)
    assert decode_segment_header(data) == header


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=600))
def test_arbitrary_bytes_are_no_batch_no_header_and_no_body(data):
    """faults 57."""
    for start in (data, BATCH_MAGIC + data):
        with pytest.raises(BadBytes):
            _decoded(start.ljust(BLOCK_BYTES, b"\0"))
    with pytest.raises(BadBytes):
        segment_header_bytes(data.ljust(BLOCK_BYTES, b"\0"), file_bytes=1 << 20)
    try:
        list(decode(data))
    except BadBody:
        pass


@settings(deadline=None, max_examples=40)
@given(st.lists(operations, min_size=1, max_size=3), st.data())
def test_a_body_that_is_cut_short_is_refused_or_ends_between_operations(written, data):
    """faults 57."""
    body = b"".join(part for operation in written for part in encode(operation))
    cut = body[: data.draw(st.integers(0, len(body) - 1))]
    try:
        found = list(decode(cut))
    except BadBody:
        return
    assert found == written[: len(found)]


def test_a_batch_of_another_incarnation_or_segment_is_none():
    batch = _batch([append_of([entry(1, 1)])])
    with pytest.raises(BadBytes, match="checksum"):
        _decoded(batch, salt=salt_of(Incarnation(b"other".ljust(16, b"."))))
    with pytest.raises(BadBytes, match="used this file before"):
        _decoded(batch, segment=4)


def test_a_body_under_another_header_is_none():
    """A stale body that a torn write left under a new header has a sound checksum of its own, but not this one."""
    old = _batch([append_of([entry(1, 1, b"old")])], number=12)
    new = _batch([append_of([entry(1, 1, b"old")])], number=13)
    header_bytes = batch_header_bytes(new[:BLOCK_BYTES], room_bytes=len(new))
    header = decode_batch_header(new[:header_bytes], segment=3, salt=7)
    with pytest.raises(BadBytes, match="body"):
        body_of(old[header_bytes:], header)


def test_a_batch_that_does_not_fit_into_the_room_is_none():
    """faults 57."""
    batch = _batch([append_of([entry(1, 1, bytes(2000))])])
    with pytest.raises(BadBytes, match="claims"):
        _decoded(batch, room_bytes=len(batch) - 1)


def test_operations_come_in_the_order_of_a_writes_fields():
    base = LogBase(Index(4), Term(2), Configuration(Membership(())))
    disk_write = write(entry(5, 2), vote=(2, "n2"), base=base, truncate_from=5)
    assert list(operations_of([disk_write], append_bytes_max=1000)) == [
        Vote(Term(2), NodeId("n2")),
        base,
        Truncate(Index(5)),
        append_of([entry(5, 2)]),
    ]


def test_runs_tell_terms_and_gaps_apart():
    joined = [entry(1, 1), entry(2, 1), entry(3, 2), entry(7, 2)]
    assert append_of(joined).runs == [
        Run(Index(1), Term(1), 2),
        Run(Index(3), Term(2), 1),
        Run(Index(7), Term(2), 1),
    ]


def test_an_append_is_cut_at_the_bound_and_one_frame_always_fits():
    joined = [entry(index, 1, bytes(100)) for index in range(1, 8)] + [entry(8, 1, bytes(5000)), entry(9, 1)]
    pieces = list(operations_of([write(*joined)], append_bytes_max=300))
    assert [len(piece.frames) for piece in pieces if isinstance(piece, Append)] == [2, 2, 2, 1, 1, 1]
    assert [frame for piece in pieces if isinstance(piece, Append) for frame in piece.frames] == joined


def test_composing_a_batch_of_64_entries_costs_well_under_a_millisecond():
    """The median is about 40 µs where this was written; the best of many is what a busy machine cannot spoil."""
    writes = [DiskWrite(Ticket(1), frames=[entry(index, 1, bytes(100)) for index in range(1, 65)])]
    best_us = 1e9
    for _ in range(200):
        began = time.perf_counter()
        _batch(list(operations_of(writes, append_bytes_max=1 << 23)))
        best_us = min(best_us, (time.perf_counter() - began) * 1e6)
    assert best_us < 400
