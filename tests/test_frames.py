"""One entry's bytes: as they stand in the log and on the wire, and what is never taken for an entry."""

from __future__ import annotations

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv import frames
from raftkv.errors import FrameError
from raftkv.frames import BODY_BYTES_MAX, FIXED_BYTES, HEADER_BYTES, PREFIX_BYTES, EntryKind

numbers = st.integers(0, 2**64 - 1)
ONE = frames.encode(EntryKind.COMMAND, term=3, index=7, body=b"abc")


def test_the_layout_is_fixed():
    """It stands on users' disks: length, crc32c, kind, term, index, body, all little-endian."""
    assert ONE[:4] == (17 + 3).to_bytes(4, "little")
    assert ONE[4:8] == frames.checksum_bytes(ONE) == bytes.fromhex("c2c269f9")
    assert ONE[8:] == b"\x01" + (3).to_bytes(8, "little") + (7).to_bytes(8, "little") + b"abc"
    assert (PREFIX_BYTES, FIXED_BYTES, HEADER_BYTES) == (8, 17, 25)


@given(st.sampled_from(EntryKind), numbers, numbers, st.binary(max_size=100))
def test_what_goes_in_comes_out(kind, term, index, body):
    frame = frames.encode(kind, term=term, index=index, body=body)
    assert frames.kind(frame) == kind
    assert frames.term_and_index(frame) == (term, index)
    assert frames.body(frame) == body
    assert frames.split(frame) == [frame]


@given(st.lists(st.binary(max_size=50), max_size=10))
def test_a_join_comes_apart_as_it_was(bodies):
    made = [frames.encode(EntryKind.COMMAND, term=1, index=i, body=body) for i, body in enumerate(bodies)]
    assert frames.split(b"".join(made)) == made


@pytest.mark.parametrize("bit", range(8 * len(ONE)))
def test_any_flipped_bit_is_noticed(bit):
    """faults 58"""
    damaged = bytearray(ONE)
    damaged[bit // 8] ^= 1 << bit % 8
    with pytest.raises(FrameError):
        frames.split(bytes(damaged))


@pytest.mark.parametrize("size", range(1, len(ONE)))
def test_whatever_is_cut_short_is_noticed_where_it_begins(size):
    with pytest.raises(FrameError) as caught:
        frames.split(ONE + ONE[:size])
    assert caught.value.offset == len(ONE)


@pytest.mark.parametrize("length", [0, FIXED_BYTES - 1, FIXED_BYTES + BODY_BYTES_MAX + 1, 2**32 - 1])
def test_an_absurd_length_allocates_nothing(length):
    """faults 57"""
    with pytest.raises(FrameError, match="impossible length"):
        frames.split(length.to_bytes(4, "little") + bytes(60))


def test_an_unknown_kind_is_refused_though_its_checksum_is_right():
    """faults 64: it would be of a later version."""
    strange = bytearray(ONE[8:])
    strange[0] = max(EntryKind) + 1
    crc = google_crc32c.value(bytes(strange)).to_bytes(4, "little")
    with pytest.raises(FrameError, match="unknown kind"):
        frames.split(ONE[:4] + crc + bytes(strange))


def test_the_largest_body_is_taken_and_a_larger_one_is_our_own_bug():
    largest = frames.encode(EntryKind.COMMAND, term=1, index=1, body=bytes(BODY_BYTES_MAX))
    assert frames.split(largest) == [largest]
    with pytest.raises(AssertionError):
        frames.encode(EntryKind.COMMAND, term=1, index=1, body=bytes(BODY_BYTES_MAX + 1))


def test_the_checksum_is_crc32c():
    """The check value of the algorithm's definition (RFC 3720, appendix B.4 uses the same)."""
    assert google_crc32c.value(b"123456789") == 0xE3069283


def test_nothing_is_no_frame():
    assert frames.split(b"") == []
