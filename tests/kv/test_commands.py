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
    BOUND_BYTES_MAX,
    COMMAND_KEYS_MAX,
    KEY_BYTES_MAX,
    NUMBER_MAX,
    PRESENT,
    TTL_MS_MAX,
    TTL_MS_MIN,
    CloseSession,
    Command,
    Compare,
    Delete,
    DeleteRange,
    Expect,
    KeepAlive,
    Numbered,
    Op,
    OpenSession,
    Put,
    ReadKey,
    ReadRange,
    Target,
    Tick,
    Txn,
    decode,
    encode,
    key_written_twice,
)
from tests.kv.store import Store

ID = b"0123456789abcdef"
keys = st.binary(min_size=1, max_size=64)
ids = st.binary(min_size=16, max_size=16)
expects = st.one_of(st.sampled_from([ANY, ABSENT, PRESENT]), st.integers(1, NUMBER_MAX).map(Expect))
bounds = st.binary(max_size=64)
limits = st.integers(1, COMMAND_KEYS_MAX)
delete_ranges = st.builds(DeleteRange, bounds, st.one_of(st.none(), bounds), limits)
compares = st.one_of(
    st.builds(Compare, keys, st.just(Target.VALUE), st.sampled_from(Op), st.binary()),
    st.builds(
        Compare,
        keys,
        st.sampled_from([target for target in Target if target is not Target.VALUE]),
        st.sampled_from(Op),
        st.integers(0, NUMBER_MAX),
    ),
)
operations = st.one_of(
    st.builds(Put, keys, st.binary()),
    st.builds(Delete, keys),
    st.builds(ReadKey, keys),
    delete_ranges,
    st.builds(ReadRange, bounds, st.one_of(st.none(), bounds), limits, st.booleans(), st.booleans()),
)
branches = st.lists(operations, max_size=6).map(tuple).filter(lambda branch: key_written_twice(branch) is None)
txns = st.builds(Txn, st.lists(compares, max_size=6).map(tuple), branches, branches)
writes = st.one_of(st.builds(Put, keys, st.binary(), expects), st.builds(Delete, keys, expects), delete_ranges, txns)
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
    assert one.request == other.request
    assert decode(one.request).command == command


def test_the_longest_key_and_the_shortest_are_taken():
    for key in (b"k", b"k" * KEY_BYTES_MAX):
        assert decode(encode(Put(key, b""))).command == Put(key, b"")


def test_a_bound_may_be_one_byte_longer_than_a_key():
    longest = b"\xff" * BOUND_BYTES_MAX
    command = Txn((), (DeleteRange(longest, longest), ReadRange(longest, longest, 1)), ())
    assert decode(encode(command)).command == command
    assert decode(encode(DeleteRange(longest, longest))).command == DeleteRange(longest, longest)


def test_limits_are_taken_from_one_to_all_that_a_command_may_touch():
    for limit in (1, COMMAND_KEYS_MAX):
        assert decode(encode(DeleteRange(b"", None, limit))).command == DeleteRange(b"", None, limit)


def test_an_empty_range_and_an_empty_transaction_are_commands():
    for command in (DeleteRange(b"b", b"a"), DeleteRange(b"", b""), Txn((), (), ())):
        assert decode(encode(command)).command == command


EVERYTHING = Txn(
    (
        Compare(b"a", Target.VALUE, Op.EQUAL, b"v"),
        Compare(b"b", Target.VERSION, Op.UNEQUAL, 1),
        Compare(b"c", Target.CREATE_REVISION, Op.LESS, 2),
        Compare(b"d", Target.MOD_REVISION, Op.GREATER, 3),
    ),
    (Put(b"e", b"v"), Delete(b"f"), ReadKey(b"g")),
    (DeleteRange(b"h", None, 9), ReadRange(b"", b"i", 8, reverse=True)),
)
BYTES: list[tuple[Command, str]] = [
    (Put(b"k", b"v"), "c10100 6b 76"),
    (Put(b"k", b""), "c10100 6b"),
    (Put(b"k", b"v", PRESENT), "950101c4016bc40176fe"),
    (Delete(b"k", ABSENT), "940102c4016b00"),
    (DeleteRange(b"a", None), "950103c40161c0cd2710"),
    (DeleteRange(b"", b"b", 1), "950103c400c4016201"),
    (
        EVERYTHING,
        (
            "950104 94 94c401610101c40176 94c40162020201 94c40163030302 94c40164040403"
            " 93 9401c40165c40176ff 9302c40166ff 9208c40167 92 9403c40168c009 9609c400c4016908c3c2"
        ),
    ),
    (Tick(), "920120"),
]


@pytest.mark.parametrize(("command", "expected"), BYTES)
def test_the_bytes_are_part_of_the_format(command, expected):
    """They stand in logs: what was written once is read for ever."""
    assert encode(command) == bytes.fromhex(expected)
    assert decode(bytes.fromhex(expected)).command == command


def test_a_put_without_condition_may_be_msgpack_too():
    """Numbered ones are, and so were all of them once."""
    assert decode(bytes.fromhex("950101c4016bc40176ff")).command == Put(b"k", b"v")


def test_only_writes_are_numbered():
    with pytest.raises(AssertionError):
        encode(Tick(), Numbered(ID, 1))


PLAIN = encode(Put(b"k", b"v", ABSENT))
NOT_COMMANDS = {
    "nothing": b"",
    "cut short": PLAIN[:-1],
    "more than one thing": PLAIN + b"\x00",
    "a plain put cut short": encode(Put(b"key", b""))[:-1],
    "a plain put that has hardly begun": b"\xc1\x01",
    "a plain put without a key": b"\xc1\x00\x00v",
    "a plain put with too long a key": b"\xc1\x01\x10" + b"k" * 5_000,
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
    "a range without a limit": msgpack.packb([1, 3, b"a", b"b"]),
    "a range from text": msgpack.packb([1, 3, "a", b"b", 1]),
    "a range from nowhere": msgpack.packb([1, 3, None, b"b", 1]),
    "a range to a number": msgpack.packb([1, 3, b"a", 1, 1]),
    "a range's start too long": encode(DeleteRange(b"a" * (BOUND_BYTES_MAX + 1), None)),
    "a range's end too long": encode(DeleteRange(b"", b"a" * (BOUND_BYTES_MAX + 1))),
    "limit 0": encode(DeleteRange(b"", None, 0)),
    "limit -1": encode(DeleteRange(b"", None, -1)),
    "a limit beyond all": encode(DeleteRange(b"", None, COMMAND_KEYS_MAX + 1)),
    "limit true": msgpack.packb([1, 3, b"a", b"b", True]),
    "a limit of floating point": msgpack.packb([1, 3, b"a", b"b", 1.0]),
    "no limit": msgpack.packb([1, 3, b"a", b"b", None]),
    "a read outside a transaction": msgpack.packb([1, 8, b"k"]),
    "a range read outside a transaction": msgpack.packb([1, 9, b"", None, 1, False, False]),
    "a list that claims 2^32 elements": b"\xdd\xff\xff\xff\xff\x01\x01",
    "bytes that claim 4 GiB": b"\x95\x01\x01\xc6\xff\xff\xff\xffk",
    "lists in lists": b"\x91" * 100_000 + b"\x01",
    "an unhashable map key": b"\x81\x91\x01\x01",
    "text that is no UTF-8": b"\xa1\xff",
    "a timestamp out of range": b"\xc7\x0c\xff" + b"\xff" * 12,
}


def in_txn(compares: object = (), success: object = (), failure: object = ()) -> bytes:
    packed: bytes = msgpack.packb([1, 4, compares, success, failure])
    return packed


NESTED: object = 1
for _ in range(400):
    NESTED = [NESTED]
NO_TXN = {
    "no failure branch": msgpack.packb([1, 4, [], []]),
    "compares that are none": in_txn(None),
    "compares that are a map": in_txn({}),
    "a branch of bytes": in_txn((), b""),
    "a branch of text": in_txn((), (), "put"),
    "a branch that is a number": in_txn((), 0),
    "a compare that is a map": in_txn([{"key": b"k"}]),
    "a compare that is bytes": in_txn([b"1234"]),
    "an empty compare": in_txn([[]]),
    "a compare of 3": in_txn([[b"k", 1, 1]]),
    "a compare of 5": in_txn([[b"k", 1, 1, b"v", 0]]),
    "a compare of no key": in_txn([[b"", 1, 1, b"v"]]),
    "a compare of a key too long": in_txn([[b"k" * (KEY_BYTES_MAX + 1), 1, 1, b"v"]]),
    "a compare of text": in_txn([["k", 1, 1, b"v"]]),
    "target 0": in_txn([[b"k", 0, 1, 0]]),
    "target 5": in_txn([[b"k", 5, 1, 0]]),
    "target true": in_txn([[b"k", True, 1, b"v"]]),
    "a target by name": in_txn([[b"k", "value", 1, b"v"]]),
    "a target that is a list": in_txn([[b"k", [1], 1, b"v"]]),
    "op 0": in_txn([[b"k", 1, 0, b"v"]]),
    "op 5": in_txn([[b"k", 1, 5, b"v"]]),
    "an op by name": in_txn([[b"k", 1, "==", b"v"]]),
    "an op that is a list": in_txn([[b"k", 1, [1], b"v"]]),
    "a value compared with a number": in_txn([[b"k", 1, 1, 1]]),
    "a value compared with text": in_txn([[b"k", 1, 1, "v"]]),
    "a value compared with nothing": in_txn([[b"k", 1, 1, None]]),
    "a version compared with bytes": in_txn([[b"k", 2, 1, b"1"]]),
    "a version compared with true": in_txn([[b"k", 2, 1, True]]),
    "a version compared with -1": in_txn([[b"k", 2, 1, -1]]),
    "a version compared with 1.0": in_txn([[b"k", 2, 1, 1.0]]),
    "a version compared with what none can be": in_txn([[b"k", 2, 1, NUMBER_MAX + 1]]),
    "an operation that is a code": in_txn((), [8]),
    "an operation that is bytes": in_txn((), [b"\x08"]),
    "an operation that is nothing": in_txn((), [None]),
    "an empty operation": in_txn((), [[]]),
    "operation 0": in_txn((), [[0, b"k"]]),
    "operation 99": in_txn((), [[99, b"k"]]),
    "an operation true": in_txn((), [[True, b"k", b"v", -1]]),
    "an operation whose code is a list": in_txn((), [[[1], b"k", b"v", -1]]),
    "a transaction in a transaction": in_txn((), [[4, [], [], []]]),
    "a tick in a transaction": in_txn((), [[32]]),
    "a session opened in a transaction": in_txn((), [[16, ID, TTL_MS_MIN]]),
    "a numbered put in a transaction": in_txn((), [[64, ID, 1, 0, PLAIN]]),
    "a put without a condition's field": in_txn((), [[1, b"k", b"v"]]),
    "a put that must be absent": in_txn((), [[1, b"k", b"v", 0]]),
    "a put that must be present": in_txn((), (), [[1, b"k", b"v", -2]]),
    "a put at a revision": in_txn((), [[1, b"k", b"v", 7]]),
    "a put of condition false": in_txn((), [[1, b"k", b"v", False]]),
    "a delete that must be present": in_txn((), [[2, b"k", -2]]),
    "a put of text": in_txn((), [[1, b"k", "v", -1]]),
    "a put of no key": in_txn((), (), [[1, b"", b"v", -1]]),
    "a read of no key": in_txn((), [[8, b""]]),
    "a read of a key too long": in_txn((), [[8, b"k" * (KEY_BYTES_MAX + 1)]]),
    "a read of two keys": in_txn((), [[8, b"k", b"l"]]),
    "a range read of limit 0": in_txn((), [[9, b"", None, 0, False, False]]),
    "a range read of a limit beyond all": in_txn((), [[9, b"", None, COMMAND_KEYS_MAX + 1, False, False]]),
    "a range read of switch 1": in_txn((), [[9, b"", None, 1, 1, False]]),
    "a range read of switch nil": in_txn((), [[9, b"", None, 1, False, None]]),
    "a range read from text": in_txn((), [[9, "", None, 1, False, False]]),
    "a range read to a bound too long": in_txn((), [[9, b"", b"a" * (BOUND_BYTES_MAX + 1), 1, False, False]]),
    "a delete range of limit 0": in_txn((), [[3, b"", None, 0]]),
    "a key written twice": in_txn((), [[1, b"k", b"v", -1], [2, b"k", -1]]),
    "a key written twice in the other branch": in_txn((), (), [[1, b"k", b"v", -1], [3, b"", None, 1]]),
    "129 compares": in_txn([[b"k", 2, 1, 0]] * 129),
    "129 operations": in_txn((), [[8, b"k"]] * 64, [[8, b"k"]] * 65),
    "a million operations": in_txn((), [0] * 1_000_000),
    "lists in lists in a branch": in_txn((), [NESTED]),
    "a numbered one of text": msgpack.packb([1, 64, ID, 1, 0, "txn"]),
    "a numbered one that is malformed": msgpack.packb([1, 64, ID, 1, 0, in_txn((), [[1, b"k", b"v", 0]])]),
    "a branch that claims 2^32 operations": b"\x95\x01\x04\x90\x90\xdd\xff\xff\xff\xff\x92",
}
NOT_COMMANDS |= NO_TXN


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
    assert store_says(b"\xc0\xc0").startswith("not msgpack")
    assert store_says(encode(Put(b"", b"v"))) == "a key is 1 to 4096 bytes"
    assert store_says(in_txn((), [[2, b"k" * 4096, -1]] * 2)) == f"a branch writes {b'k' * 64!r} twice"
    assert store_says(encode(OpenSession(ID, 5))) == "ttl_ms is not within 1000 and 86400000"


@settings(deadline=None, max_examples=300)
@given(txns, st.data())
def test_whatever_a_damaged_transaction_says_it_is_refused_or_sound(txn, data):
    """faults 62, 64: a field replaced by junk, at any depth; what is taken is within its bounds."""
    parts = msgpack.unpackb(encode(txn))
    junk = st.one_of(
        st.integers(-(2**63), 2**64 - 1), st.binary(max_size=8), st.none(), st.text(max_size=2), st.booleans(),
        st.floats(), st.lists(st.integers(0, 9), max_size=5), st.just({}),
    )  # fmt: skip
    spot = parts
    while True:
        place = data.draw(st.integers(0, len(spot) - 1))
        if not isinstance(spot[place], list) or not spot[place] or data.draw(st.booleans()):
            break
        spot = spot[place]
    spot[place] = data.draw(junk)
    try:
        command = decode(msgpack.packb(parts)).command
    except CommandError:
        return
    assert decode(encode(command)).command == command


def store_says(encoded: bytes) -> str:
    answer = Store().apply_bytes(encoded)
    assert isinstance(answer, Malformed)
    return answer.why
