"""What peers that share a secret sign, and how. Pure.

Told: keys, who speaks to whom, two nonces, then the requests and answers of one connection in their order.
Tells: the header that proves each of them. It never learns what they mean.

    hello     method, target, digest of the body                      [version, sender, receiver, nonce]
    welcome   sender, receiver, both nonces                           [version, nonce of the other end]
    request   sender, receiver, both nonces, number, method, target, digest of the body
    answer    sender, receiver, both nonces, number, status, digest of the body

Each is an HMAC-SHA256 under a key of its own; every part stands behind its length. The number counts the
requests of the connection from 1 and is not sent: both ends count. So whatever is said again, left out,
moved to another place, another connection or another receiver bears the wrong proof, without a clock.
"""

from __future__ import annotations

import hashlib
import hmac
from binascii import b2a_base64
from typing import Any, Final, NamedTuple

import msgpack

from raftkv.core.types import NodeId
from raftkv.errors import MessageError
from raftkv.transport import codec
from raftkv.transport.secret import PeerSecret

VERSION: Final = 1
NONCE_BYTES: Final = 16
HELLO_BYTES_MAX: Final = 256
SCHEME: Final = b"Raftkv-HMAC"
_REQUEST_FIELD: Final = b"Authorization: %b\r\n"
_ANSWER_FIELD: Final = b"Authentication-Info: %b\r\n"
REQUEST_FIELD_NAME: Final = b"authorization"
ANSWER_FIELD_NAME: Final = b"authentication-info"
CHALLENGE_FIELD: Final = b"WWW-Authenticate: " + SCHEME + b"\r\n"
"""What an answer of 401 says must be brought."""


class PeerKeys:
    """The keys of the four things that are signed between peers."""

    __slots__ = ("answer", "hello", "request", "welcome")

    def __init__(self, secret: PeerSecret) -> None:
        self.hello = secret.key(b"peers hello")
        self.welcome = secret.key(b"peers welcome")
        self.request = secret.key(b"peers request")
        self.answer = secret.key(b"peers answer")


class Hello(NamedTuple):
    """The first thing said on a connection between peers that share a secret."""

    sender: NodeId
    receiver: NodeId
    nonce: bytes

    def encode(self) -> bytes:
        """Its body."""
        packed: bytes = msgpack.packb((VERSION, *self))
        return packed


class Session:
    """One connection after hello and welcome: proves the requests one way, the answers the other."""

    __slots__ = ("_answer", "_request", "_welcome")

    def __init__(self, keys: PeerKeys, hello: Hello, welcome_nonce: bytes) -> None:
        context = _joined(hello.sender.encode(), hello.receiver.encode(), hello.nonce, welcome_nonce)
        self._welcome = hmac.new(keys.welcome, context, "sha256")
        self._request = hmac.new(keys.request, context, "sha256")
        """What every proof of a request begins with is hashed once; likewise of answers."""
        self._answer = hmac.new(keys.answer, context, "sha256")

    def welcome_proof(self) -> bytes:
        """The value of the header that the welcome bears: whoever made it has the secret, and made it now."""
        return _as_information(self._welcome.digest())

    def request_proof(self, number: int, method: bytes, target: bytes, body: bytes) -> bytes:
        """The value of the header that the connection's request with this number bears."""
        mac = self._request.copy()
        mac.update(_joined(b"%d" % number, method, target, hashlib.sha256(body).digest()))
        return _as_credentials(mac.digest())

    def answer_proof(self, number: int, status: int, body: bytes) -> bytes:
        """The value of the header that the answer to the request with this number bears."""
        mac = self._answer.copy()
        mac.update(_joined(b"%d" % number, b"%d" % status, hashlib.sha256(body).digest()))
        return _as_information(mac.digest())


def hello_proof(keys: PeerKeys, method: bytes, target: bytes, body: bytes) -> bytes:
    """The value of the header that a hello bears."""
    told = _joined(method, target, hashlib.sha256(body).digest())
    return _as_credentials(hmac.digest(keys.hello, told, "sha256"))


def is_same(proof: bytes | None, expected: bytes) -> bool:
    """Whether it is the expected proof, in a time that tells nothing about where they differ."""
    return hmac.compare_digest(b"" if proof is None else proof, expected)


def request_field(proof: bytes) -> bytes:
    """The header line of a request."""
    return _REQUEST_FIELD % proof


def answer_field(proof: bytes) -> bytes:
    """The header line of an answer."""
    return _ANSWER_FIELD % proof


def decode_hello(packed: bytes) -> Hello:
    """The hello in ``packed``; raises MessageError on anything that ``Hello.encode`` does not make."""
    sender, receiver, nonce = _unpacked(packed, parts_count=4)
    return Hello(codec.node_id(sender), codec.node_id(receiver), _nonce(nonce))


def encode_welcome(nonce: bytes) -> bytes:
    """The body of a welcome."""
    packed: bytes = msgpack.packb((VERSION, nonce))
    return packed


def decode_welcome(packed: bytes) -> bytes:
    """The nonce in a welcome; raises MessageError."""
    (nonce,) = _unpacked(packed, parts_count=2)
    return _nonce(nonce)


def _unpacked(packed: bytes, *, parts_count: int) -> list[Any]:
    """What stands behind the version."""
    if len(packed) > HELLO_BYTES_MAX:
        raise MessageError(f"a greeting of {len(packed)} bytes")
    parts = codec.unpack(packed, items_max=parts_count, version=VERSION)
    if len(parts) != parts_count:
        raise MessageError(f"a greeting with {len(parts)} parts")
    return parts[1:]


def _nonce(value: Any) -> bytes:
    if type(value) is not bytes or len(value) != NONCE_BYTES:
        raise MessageError("not a nonce")
    return value


def _joined(*parts: bytes) -> bytes:
    """Each part behind its length: no two lists of parts look alike."""
    return b"".join([b"%d:%b" % (len(part), part) for part in parts])


def _as_credentials(mac: bytes) -> bytes:
    return b"%b %b" % (SCHEME, b2a_base64(mac, newline=False))


def _as_information(mac: bytes) -> bytes:
    return b'mac="%b"' % b2a_base64(mac, newline=False)
