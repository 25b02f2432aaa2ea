"""A node's last words to its peers: who goes, and why. Pure.

Told: a farewell, or bytes from outside. Tells: the other of the two, or MessageError. Nothing rests on it: whoever
was killed says none, and whoever diagnoses reads from that that it was killed.

    [version, sender, sender_incarnation, reason]
"""

from __future__ import annotations

from typing import Final, NamedTuple

import msgpack

from raftkv.core.types import ID_BYTES, Incarnation, NodeId
from raftkv.errors import MessageError
from raftkv.transport import codec

REASON_CHARACTERS_MAX: Final = 300
FAREWELL_BYTES_MAX: Final = codec.SMALL_BYTES_MAX


class Farewell(NamedTuple):
    """One node stops."""

    sender: NodeId
    incarnation: Incarnation
    reason: str
    """For people."""


def encode(farewell: Farewell) -> bytes:
    """The bytes of a farewell."""
    reason = farewell.reason[:REASON_CHARACTERS_MAX]
    packed: bytes = msgpack.packb((codec.VERSION, farewell.sender, farewell.incarnation, reason))
    return packed


def decode(packed: bytes) -> Farewell:
    """The farewell in ``packed``; raises MessageError on anything else."""
    parts = codec.unpack(packed, items_max=4)
    if len(parts) != 4:
        raise MessageError("not a farewell")
    _, sender, incarnation, reason = parts
    if type(reason) is not str or len(reason) > REASON_CHARACTERS_MAX:
        raise MessageError("the reason of a farewell is a short text")
    if type(incarnation) is not bytes or len(incarnation) != ID_BYTES:
        raise MessageError("a farewell without an incarnation")
    return Farewell(codec.node_id(sender), Incarnation(incarnation), reason)
