"""Messages as bytes: what goes in comes out, and nothing else is taken."""

from __future__ import annotations

import dataclasses
import random
import tracemalloc
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftkv import frames
from raftkv.core.messages import (
    REPLY_TYPES,
    REQUEST_TYPES,
    SNAPSHOT_CHUNK_BYTES_MAX,
    AppendEntries,
    Envelope,
    InstallSnapshot,
    Introduction,
)
from raftkv.core.types import ClusterId, Incarnation, Index, NodeId, SnapshotId, Term
from raftkv.errors import MessageError
from raftkv.transport import codec
from tests.transport.samples import CLUSTER, ONE, REPLIES, REQUESTS, TWO, append, envelope, heartbeat, introduction

NUMBERS = st.integers(0, 2**63 - 1)
IDENTITIES = st.binary(min_size=16, max_size=16)
NODE_IDS = st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True)
MESSAGES = st.sampled_from(sorted({*REQUEST_TYPES, *REPLY_TYPES} - {AppendEntries, InstallSnapshot}, key=str))


def filled(kind: type[Any], draw: st.DataObject) -> Any:
    """A message with every field drawn from all that its type allows."""
    of_type = {"bool": st.booleans(), "bytes": st.sampled_from([b"", b"h" * 16])}
    types = [
        str(getattr(field.type, "__name__", field.type)) for field in dataclasses.fields(kind)
    ]  # compiled: no words
    return kind(*(draw.draw(of_type.get(one, NUMBERS)) for one in types))


@given(MESSAGES, NODE_IDS, NODE_IDS, IDENTITIES, IDENTITIES, IDENTITIES, st.data())
def test_every_message_comes_back_as_it_went(kind, sender, receiver, cluster, one, two, data):
    sent = Envelope(
        ClusterId(cluster), NodeId(sender), Incarnation(one), NodeId(receiver), Incarnation(two), filled(kind, data)
    )
    assert codec.decode(codec.encode(sent)) == sent


@given(st.lists(st.binary(max_size=300), max_size=70), st.integers(2, 2**60), st.integers(0, 2**60))
def test_every_append_comes_back_with_the_same_frames(bodies, term, prev):
    sent = envelope(append(*bodies, term=term, prev=prev))
    assert codec.decode(codec.encode(sent)) == sent


@given(st.tuples(*[NUMBERS] * 3), st.integers(0, 2**32 - 1), NUMBERS, st.binary(min_size=1, max_size=300))
def test_every_piece_of_a_snapshot_comes_back_as_it_went(numbers, checksum, offset, data):
    index, term, size_bytes = numbers
    sent = envelope(InstallSnapshot(Term(term), SnapshotId(Index(index), Term(3), size_bytes, checksum), offset, data))
    assert codec.decode(codec.encode(sent)) == sent


def test_a_piece_of_a_snapshot_is_of_no_absurd_length():
    """faults 57."""
    message = REQUESTS[-1]
    assert isinstance(message, InstallSnapshot)
    largest = b"x" * SNAPSHOT_CHUNK_BYTES_MAX
    message = InstallSnapshot(message.term, message.snapshot, message.offset, largest)
    assert codec.decode(codec.encode(envelope(message))).message == message
    for data in (b"", largest + b"x", "x", None, 1, [b"x"]):
        with pytest.raises(MessageError):
            codec.decode(packed_with(-1, data, message))


@pytest.mark.parametrize("checksum", [-1, 2**32, None, True, b"1234"])
def test_what_is_no_checksum_of_a_snapshot_is_refused(checksum):
    with pytest.raises(MessageError):
        codec.decode(packed_with(11, checksum, REQUESTS[-1]))


@given(
    st.one_of(st.none(), IDENTITIES),
    st.booleans(),
    st.dictionaries(st.sampled_from(["a", "B", "n-1", "n.2", "_" * 64]), st.sampled_from([b"", b"1" * 16, b"2" * 16])),
    st.from_regex(r"https?://[!-~]{1,200}", fullmatch=True),
    st.one_of(st.none(), st.just("http://n1.example:80")),
)
def test_every_introduction_comes_back_as_it_went(cluster, formed, members, url, client_url):
    sent = Introduction(NodeId("n1"), ONE, url, cluster, formed, sorted(members.items()), client_url)
    assert codec.decode_introduction(codec.encode_introduction(sent)) == sent


def packed_with(place: int, value: Any, message: Any = None) -> bytes:
    parts = msgpack.unpackb(codec.encode(envelope(message or heartbeat())))
    parts[place] = value
    return msgpack.packb(parts)


@pytest.mark.parametrize("value", [None, -1, 2**63, 2**64 - 1, 1.0, True, "1", b"1", [1], [], float("nan")])
@pytest.mark.parametrize("place", range(7, 12))
def test_number_of_another_type_or_range_is_refused(place, value):
    """faults 57, 64."""
    with pytest.raises(MessageError):
        codec.decode(packed_with(place, value))


@pytest.mark.parametrize("value", [None, 0, 1, -1, 1.0, "true", b"\1", []])
@pytest.mark.parametrize(
    ("message", "from_end"),
    [(REQUESTS[1], 1), (REPLIES[0], 4), (REPLIES[0], 3), (REPLIES[1], 4), (REPLIES[1], 3), (REPLIES[5], 1)],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_truth_value_is_refused(message, from_end, value):
    """faults 64: whatever is true to Python would make a vote, or a transfer, of a number."""
    place = len(msgpack.unpackb(codec.encode(envelope(message)))) - from_end
    with pytest.raises(MessageError):
        codec.decode(packed_with(place, value, message))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (0, 0),
        (0, codec.VERSION + 1),
        (0, codec.VERSION - 1),
        (0, True),
        (0, "1"),
        (0, None),
        (1, 0),
        (1, 15),
        (1, -1),
        (1, True),
        (1, "7"),
        (1, None),
        (1, []),
    ]
    + [(place, value) for place in (2, 4, 6) for value in (b"", b"c" * 15, b"c" * 17, "c" * 16, None, 1)]
    + [(place, value) for place in (3, 5) for value in ("", "n" * 65, "n 1", "n/1", "ä", "n1\n", b"n1", None, 1)],
)
def test_version_type_or_identity_that_is_none_is_refused(place, value):
    """faults 64, 32."""
    with pytest.raises(MessageError):
        codec.decode(packed_with(place, value))


@pytest.mark.parametrize("message", REQUESTS + REPLIES, ids=lambda message: type(message).__name__)
def test_missing_additional_and_trailing_parts_are_refused(message):
    packed = codec.encode(envelope(message))
    parts = msgpack.unpackb(packed)
    for wrong in (parts[:-1], [*parts, 1], parts[:1], [], parts[0], {1: 1}, None):
        with pytest.raises(MessageError):
            codec.decode(msgpack.packb(wrong))
    for wrong_bytes in (packed + b"\0", packed[:-1], b"", packed * 2):
        with pytest.raises(MessageError):
            codec.decode(wrong_bytes)


def test_every_flipped_bit_of_frames_is_noticed():
    """faults 58, on the wire."""
    packed = codec.encode(envelope(append(b"abc", b"d")))
    start = packed.index(append(b"abc", b"d").frames[0])
    for bit in range(start * 8, len(packed) * 8):
        flipped = bytearray(packed)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(MessageError):
            codec.decode(bytes(flipped))


BOMBS = {
    "a list of 2^32 - 1": b"\xdd\xff\xff\xff\xff",
    "lists of 2^32 - 1 in each other": b"\xdd\xff\xff\xff\xff" * 2000,
    "a map of 2^32 - 1": b"\xdf\xff\xff\xff\xff",
    "a bin of 2^32 - 1": b"\x9c\x01\x05\xc6\xff\xff\xff\xff",
    "a str of 2^32 - 1": b"\x9c\x01\x05\xdb\xff\xff\xff\xff",
    "an ext of 2^32 - 1": b"\xc9\xff\xff\xff\xff\x01",
    "deep nesting": b"\x91" * 4000,
    "wide nesting": b"\x9f" * 4000,
    "deep maps": b"\x81\xa1a" * 1000,
    "a timestamp": b"\xd6\xff\x00\x00\x00\x00",
    "text that is none": b"\x92\x01\xa2\xff\xfe",
}


@pytest.mark.parametrize("name", BOMBS)
def test_bomb_is_refused_without_large_allocation(name):
    """faults 57, 64."""
    for decode in (codec.decode, codec.decode_introduction):
        tracemalloc.start()
        try:
            with pytest.raises(MessageError):
                decode(BOMBS[name])
            assert tracemalloc.get_traced_memory()[1] < 1_000_000
        finally:
            tracemalloc.stop()


def test_sizes_are_bounded():
    """faults 60: one entry of the largest size passes, beside an ordinary batch; nothing larger does."""
    largest = envelope(append(bytes(1024 * 1024), bytes(frames.BODY_BYTES_MAX)))
    assert codec.decode(codec.encode(largest)) == largest
    with pytest.raises(MessageError):
        codec.decode(codec.encode(envelope(append(bytes(4 * 1024 * 1024), bytes(frames.BODY_BYTES_MAX)))))
    with pytest.raises(MessageError):
        codec.decode(packed_with(7, "x" * codec.SMALL_BYTES_MAX))
    long_url = dataclasses.replace(introduction(), url="http://" + "u" * codec.URL_CHARACTERS_MAX)
    many = dataclasses.replace(
        introduction(), initial_members=[(NodeId(f"n{at:04}"), ONE) for at in range(codec.MEMBERS_MAX + 1)]
    )
    for wrong in (long_url, many):
        with pytest.raises(MessageError):
            codec.decode_introduction(codec.encode_introduction(wrong))


@pytest.mark.parametrize(
    "members",
    [
        [["n2", ONE], ["n1", TWO]],
        [["n1", ONE], ["n1", TWO]],
        [["n1"]],
        [["n1", ONE, 1]],
        [["n1", b"x"]],
        [["n1", ""]],
        [[b"n1", ONE]],
        ["n1"],
        None,
        {},
    ],
)
def test_members_of_an_introduction_are_sorted_pairs(members):
    parts = msgpack.unpackb(codec.encode_introduction(introduction()))
    parts[7] = [["n1", ONE], ["n2", TWO]]
    assert codec.decode_introduction(msgpack.packb(parts)).initial_members
    parts[7] = members
    with pytest.raises(MessageError):
        codec.decode_introduction(msgpack.packb(parts))


@pytest.mark.parametrize(
    "url",
    ["", "n1", "ftp://n1:1", "http://", "http://n 1:1", "http://n1:1\r\nX: y", "http://n1:1\n", "http://nä:1", b"", 1],
)
@pytest.mark.parametrize("place", [4, 8])
def test_what_could_not_stand_in_a_header_is_no_url(place, url):
    """A client is sent to the second one, by Location."""
    parts = msgpack.unpackb(codec.encode_introduction(introduction()))
    parts[place] = url
    with pytest.raises(MessageError):
        codec.decode_introduction(msgpack.packb(parts))


def test_introduction_and_message_are_not_taken_for_each_other():
    with pytest.raises(MessageError):
        codec.decode(codec.encode_introduction(introduction()))
    with pytest.raises(MessageError):
        codec.decode_introduction(codec.encode(envelope(heartbeat())))


ATOMS = st.none() | st.integers(-5, 20) | st.binary(max_size=20)
GARBAGE = st.binary(max_size=200) | st.lists(ATOMS | st.lists(ATOMS, max_size=4), max_size=14).map(msgpack.packb)


@given(GARBAGE)
@settings(max_examples=300)
def test_garbage_is_refused_and_nothing_else_happens(garbage):
    """faults 64."""
    for decode in (codec.decode, codec.decode_introduction):
        with pytest.raises(MessageError):
            decode(garbage)


def test_mutated_messages_are_refused_or_are_messages():
    """faults 64: whatever decodes has the types that the core relies on, for it encodes to itself again."""
    rng = random.Random(11)
    for _ in range(5000):
        raw = bytearray(codec.encode(envelope(rng.choice(REQUESTS + REPLIES))))
        for _ in range(rng.randint(1, 3)):
            raw[rng.randrange(len(raw))] = rng.randrange(256)
        try:
            decoded = codec.decode(bytes(raw))
        except MessageError:
            continue
        assert codec.decode(codec.encode(decoded)) == decoded


def test_every_message_has_a_form_with_all_its_fields():
    """A field that is added to a message and forgotten here would not survive the wire."""
    for message in (*REQUESTS, *REPLIES):
        fields = len(dataclasses.fields(message))
        if isinstance(message, InstallSnapshot):
            fields += len(dataclasses.fields(message.snapshot)) - 1  # each of its parts stands alone
        assert len(msgpack.unpackb(codec.encode(envelope(message)))) == 7 + fields
    assert {type(message) for message in REQUESTS} == set(REQUEST_TYPES)
    assert {type(message) for message in REPLIES} == set(REPLY_TYPES)
    assert codec.decode(codec.encode(envelope(heartbeat()))).cluster_id == CLUSTER
