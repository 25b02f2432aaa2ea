"""What is signed between peers: each part of it counts, and nothing can be taken for anything else."""

from __future__ import annotations

import ast
import hmac
import inspect
import re

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv.core.types import NodeId
from raftkv.errors import MessageError
from raftkv.transport import guard, sealed, seals
from raftkv.transport.routes import APPEND_ENTRIES, HELLO, READ_INDEX
from raftkv.transport.seals import Hello, PeerKeys, Session
from raftkv.transport.secret import PeerSecret

KEYS = PeerKeys(PeerSecret(b"s" * 32))
HERE, THERE = b"h" * 16, b"t" * 16
HI = Hello(NodeId("n1"), NodeId("n2"), HERE)
SESSION = Session(KEYS, HI, THERE)

OTHERS = {
    "another secret": Session(PeerKeys(PeerSecret(b"S" * 32)), HI, THERE),
    "another sender": Session(KEYS, HI._replace(sender=NodeId("n3")), THERE),
    "another receiver": Session(KEYS, HI._replace(receiver=NodeId("n3")), THERE),
    "sender and receiver exchanged": Session(KEYS, Hello(NodeId("n2"), NodeId("n1"), HERE), THERE),
    "another nonce of the sender": Session(KEYS, HI._replace(nonce=b"H" * 16), THERE),
    "another nonce of the receiver": Session(KEYS, HI, b"T" * 16),
    "the nonces exchanged": Session(KEYS, HI._replace(nonce=THERE), HERE),
}


@pytest.mark.parametrize("name", OTHERS)
def test_every_part_of_a_session_counts(name):
    other = OTHERS[name]
    assert other.welcome_proof() != SESSION.welcome_proof()
    assert other.request_proof(1, b"POST", APPEND_ENTRIES, b"a") != SESSION.request_proof(
        1, b"POST", APPEND_ENTRIES, b"a"
    )
    assert other.answer_proof(1, 200, b"a") != SESSION.answer_proof(1, 200, b"a")


@pytest.mark.parametrize(
    "changed",
    [
        (2, b"POST", APPEND_ENTRIES, b"body"),
        (1, b"PUT", APPEND_ENTRIES, b"body"),
        (1, b"POST", READ_INDEX, b"body"),
        (1, b"POST", APPEND_ENTRIES + b"?", b"body"),
        (1, b"POST", APPEND_ENTRIES, b"bodY"),
        (1, b"POST", APPEND_ENTRIES, b"body\0"),
        (1, b"POST", APPEND_ENTRIES, b""),
    ],
)
def test_every_part_of_a_request_counts(changed):
    assert SESSION.request_proof(*changed) != SESSION.request_proof(1, b"POST", APPEND_ENTRIES, b"body")


@pytest.mark.parametrize("changed", [(2, 200, b"body"), (1, 409, b"body"), (1, 200, b"bodY"), (1, 200, b"")])
def test_every_part_of_an_answer_counts(changed):
    assert SESSION.answer_proof(*changed) != SESSION.answer_proof(1, 200, b"body")


PARTS = st.binary(max_size=12)


@given(PARTS, PARTS, PARTS, PARTS)
def test_no_byte_can_move_from_one_part_to_the_next(method, target, other_method, other_target):
    same = (method, target) == (other_method, other_target)
    one = SESSION.request_proof(1, method, target, b"")
    assert (one == SESSION.request_proof(1, other_method, other_target, b"")) is same
    if method:
        assert one != SESSION.request_proof(1, method[:-1], method[-1:] + target, b"")


def test_every_part_of_a_hello_counts():
    sound = seals.hello_proof(KEYS, b"POST", HELLO, HI.encode())
    others = PeerKeys(PeerSecret(b"S" * 32))
    assert seals.hello_proof(KEYS, b"POST", HELLO, HI.encode()) == sound
    assert seals.hello_proof(KEYS, b"PUT", HELLO, HI.encode()) != sound
    assert seals.hello_proof(KEYS, b"POST", APPEND_ENTRIES, HI.encode()) != sound
    assert seals.hello_proof(KEYS, b"POST", HELLO, HI._replace(nonce=THERE).encode()) != sound
    assert seals.hello_proof(others, b"POST", HELLO, HI.encode()) != sound


@pytest.mark.parametrize("room", [seals, guard, sealed], ids=lambda room: room.__name__)
def test_proofs_are_compared_in_one_place_and_in_constant_time(room, monkeypatch):
    """How long a comparison takes would tell byte by byte what the right proof is."""
    compared: list[tuple[bytes, bytes]] = []
    monkeypatch.setattr(hmac, "compare_digest", lambda one, other: compared.append((one, other)))
    seals.is_same(b"given", b"expected")
    assert compared == [(b"given", b"expected")]
    for node in ast.walk(ast.parse(inspect.getsource(room))):
        if isinstance(node, ast.Compare) and not isinstance(node.ops[0], (ast.Is, ast.IsNot)):
            assert not re.search(r"proof|expected|given|digest|mac\b", ast.unparse(node)), ast.unparse(node)


def test_a_proof_of_one_kind_is_none_of_another():
    """Each of the four has a key of its own: a hello's proof opens nothing else, an answer is no request."""
    assert len({KEYS.hello, KEYS.welcome, KEYS.request, KEYS.answer}) == 4
    macs = {
        proof.removeprefix(b"Raftkv-HMAC ").removeprefix(b'mac="').removesuffix(b'"')
        for proof in (
            seals.hello_proof(KEYS, b"POST", HELLO, b""),
            SESSION.welcome_proof(),
            SESSION.request_proof(1, b"200", b"", b""),
            SESSION.answer_proof(1, 200, b""),
        )
    }
    assert len(macs) == 4


@pytest.mark.parametrize("proof", [None, b"", b"Raftkv-HMAC ", b"Raftkv-HMAC x", b"Bearer x", b"\xff" * 60])
def test_what_is_no_proof_is_none(proof):
    assert not seals.is_same(proof, SESSION.request_proof(1, b"POST", HELLO, b""))


def test_greetings_come_back_as_they_went():
    assert seals.decode_hello(HI.encode()) == HI
    assert seals.decode_welcome(seals.encode_welcome(THERE)) == THERE


@pytest.mark.parametrize(
    "parts",
    [
        [], [1], [1, "n1", "n2"], [1, "n1", "n2", HERE, 1], [2, "n1", "n2", HERE], ["1", "n1", "n2", HERE],
        [1, "n 1", "n2", HERE], [1, b"n1", "n2", HERE], [1, "n1", None, HERE], [1, "n1", "n2", HERE[1:]],
        [1, "n1", "n2", "h" * 16], [1, "n1", "n2", None], None, {},
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_no_hello_is_refused(parts):
    with pytest.raises(MessageError):
        seals.decode_hello(msgpack.packb(parts))


@pytest.mark.parametrize("parts", [[], [1], [1, THERE, 1], [2, THERE], [1, THERE[1:]], [1, "t" * 16], [1, None], None])
def test_what_is_no_welcome_is_refused(parts):
    with pytest.raises(MessageError):
        seals.decode_welcome(msgpack.packb(parts))


@pytest.mark.parametrize("packed", [b"", HI.encode()[:-1], HI.encode() + b"\0", bytes(257), b"\xdd\xff\xff\xff\xff"])
def test_bytes_that_are_no_greeting_are_refused(packed):
    for decode in (seals.decode_hello, seals.decode_welcome):
        with pytest.raises(MessageError):
            decode(packed)
