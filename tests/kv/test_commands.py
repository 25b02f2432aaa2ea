"""The bytes of commands: what goes in comes out, and nothing else is taken for a command."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftkv.errors import CommandError
from raftkv.kv.answers import Malformed
from raftkv.kv.commands import (
    ABSENT,
    ANY,
    KEY_BYTES_MAX,
    NUMBER_MAX,
    PRESENT,
    TTL_MS_MAX,
    TTL_MS_MIN,
    CloseSession,
    Delete,
    Expect,
    KeepAlive,
    Numbered,
    OpenSession,
    Put,
    Tick,
    decode,
    encode,
)
from tests.kv.store import Store

ID = b"0123456789abcdef"
keys = st.binary(min_size=1, max_size=64)
ids = st.binary(min_size=16, max_size=16)
expects = st.one_of(st.sampled_from([ANY, ABSENT, PRESENT]), st.integers(1, NUMBER_MAX).map(Expect))
writes = st.one_of(st.builds(Put, keys, st.binary(), expects), st.builds(Delete, keys, expects))
others = st.one_of(
    st.builds(OpenSession, ids, st.integers(TTL_MS_MIN, TTL_MS_MAX)),
    st.builds(KeepAlive, ids),
    st.builds(CloseSession, ids),
    st.just(Tick()),
)
numberings = st.builds(Numbered, ids, st.integers(1, NUMBER_MAX), st.integers(0, NUMBER_MAX))


@settings(deadline=None)
@given(st.one_of(writes, others))
def test_a_command_comes_back_as_it_was(command):
    assert decode(encode(command)) == (command, None, b"")


@settings(deadline=None)
@given(writes, numberings, numberings)
def test_the_request_is_the_same_under_every_number(command, first, second):
    one, other = decode(encode(command, first)), decode(encode(command, second))
    assert (one.command, one.numbered) == (command, first)
    assert one.request == other.request == encode(command)


def test_the_longest_key_and_the_shortest_are_taken():
    for key in (b"k", b"k" * KEY_BYTES_MAX):
        assert decode(encode(Put(key, b""))).command == Put(key, b"")


def test_only_writes_are_numbered():
    with pytest.raises(AssertionError):
        encode(Tick(), Numbered(ID, 1))


PLAIN = encode(Put(b"k", b"v"))
NOT_COMMANDS = {
    "nothing": b"",
    "cut short": PLAIN[:-1],
    "more than one thing": PLAIN + b"\x00",
    "no list": msgpack.packb("put"),
    "an empty list": msgpack.packb([]),
    "a map": msgpack.packb({1: 1, 2: 2}),
    "a version without a code": msgpack.packb([1]),
    "version 2": msgpack.packb([2, 32]),
    "version true": msgpack.packb([True, 32]),
    "an unknown code": msgpack.packb([1, 99]),
    "a code that is a list": msgpack.packb([1, [1]]),
    "a code that is true": msgpack.packb([1, True, b"k", b"v", -1]),
    "a field too many": msgpack.packb([1, 32, 0]),
    "a field too few": msgpack.packb([1, 1, b"k", b"v"]),
    "an empty key": encode(Put(b"", b"v")),
    "a key too long": encode(Delete(b"k" * (KEY_BYTES_MAX + 1))),
    "a key of text": msgpack.packb([1, 1, "k", b"v", -1]),
    "a value of text": msgpack.packb([1, 1, b"k", "v", -1]),
    "no value": msgpack.packb([1, 1, b"k", None, -1]),
    "condition below the last": encode(Put(b"k", b"v", Expect(-3))),
    "condition beyond revisions": encode(Put(b"k", b"v", Expect(NUMBER_MAX + 1))),
    "condition false": msgpack.packb([1, 1, b"k", b"v", False]),
    "a ttl too short": encode(OpenSession(ID, TTL_MS_MIN - 1)),
    "a ttl too long": encode(OpenSession(ID, TTL_MS_MAX + 1)),
    "a ttl of floating point": msgpack.packb([1, 16, ID, 60_000.0]),
    "a session of 15 bytes": encode(KeepAlive(ID[1:])),
    "a session of 17 bytes": encode(CloseSession(ID + b"!")),
    "a session of text": msgpack.packb([1, 17, "0123456789abcdef"]),
    "number 0": encode(Put(b"k", b"v"), Numbered(ID, 0)),
    "number true": msgpack.packb([1, 64, ID, True, 0, PLAIN]),
    "a number beyond all": encode(Put(b"k", b"v"), Numbered(ID, NUMBER_MAX + 1)),
    "acknowledged -1": encode(Put(b"k", b"v"), Numbered(ID, 1, -1)),
    "numbered, a field too few": msgpack.packb([1, 64, ID, 1, PLAIN]),
    "numbered text": msgpack.packb([1, 64, ID, 1, 0, "put"]),
    "numbered garbage": msgpack.packb([1, 64, ID, 1, 0, b"\xc1"]),
    "a numbered tick": msgpack.packb([1, 64, ID, 1, 0, encode(Tick())]),
    "numbered twice": msgpack.packb([1, 64, ID, 1, 0, encode(Put(b"k", b"v"), Numbered(ID, 1))]),
    "a list that claims 2^32 elements": b"\xdd\xff\xff\xff\xff\x01\x01",
    "bytes that claim 4 GiB": b"\x95\x01\x01\xc6\xff\xff\xff\xffk",
    "lists in lists": b"\x91" * 100_000 + b"\x01",
    "an unhashable map key": b"\x81\x91\x01\x01",
    "text that is no UTF-8": b"\xa1\xff",
    "a timestamp out of range": b"\xc7\x0c\xff" + b"\xff" * 12,
}


@pytest.mark.parametrize("encoded", NOT_COMMANDS.values(), ids=NOT_COMMANDS.keys())
def test_what_is_no_command_is_refused_and_changes_nothing(encoded):
    """faults 57, 62, 64."""
    with pytest.raises(CommandError):
        decode(encoded)
    store = Store()
    store.apply(Put(b"k", b"before"))
    store.apply(OpenSession(ID))
    before = store.machine.snapshot()
    assert isinstance(store.apply_bytes(encoded), Malformed)
    assert store.machine.snapshot() == before


def test_a_refusal_says_what_is_wrong():
    assert store_says(b"\xc1").startswith("not msgpack")
    assert store_says(encode(Put(b"", b"v"))) == "a key is 1 to 4096 bytes"
    assert store_says(encode(OpenSession(ID, 5))) == "ttl_ms is not within 1000 and 86400000"


def store_says(encoded: bytes) -> str:
    answer = Store().apply_bytes(encoded)
    assert isinstance(answer, Malformed)
    return answer.why
