"""Messages as bytes: msgpack, with a format version and a type code. Pure.

Told: envelopes, or bytes from outside. Tells: the other of the two, or MessageError. It never learns who is
connected to whom, and judges no message by another or by the state of a node; what comes out has the types
and ranges that the core relies on, and frames whose checksums are proved.

    [version, type, cluster_id, sender, sender_incarnation, receiver, receiver_incarnation, field, …]
    [version, 0, sender, incarnation, url, cluster_id or nil, formed, [[id, incarnation], …], client_url or nil, joins]

The frames of an AppendEntries are one bin, joined as they stand in the log. Nothing nests deeper than this,
and the unpacker is told so before it allocates.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from operator import attrgetter
from typing import Any, Final, NamedTuple

import msgpack

from raftkv import frames
from raftkv.core.messages import (
    SNAPSHOT_CHUNK_BYTES_MAX,
    AppendEntries,
    AppendEntriesReply,
    Envelope,
    Heartbeat,
    HeartbeatReply,
    InstallSnapshot,
    InstallSnapshotReply,
    Introduction,
    Message,
    PreVoteReply,
    PreVoteRequest,
    ReadIndexReply,
    ReadIndexRequest,
    RequestVote,
    RequestVoteReply,
    TimeoutNow,
    TimeoutNowReply,
)
from raftkv.core.types import ID_BYTES, ClusterId, Incarnation, Index, NodeId, SnapshotId, Term
from raftkv.errors import FrameError, MessageError

VERSION: Final = 2
"""1 was of builds whose state hashes are others: compared with ours, every state would be wrong."""
INTRODUCTION_CODE: Final = 0
SMALL_BYTES_MAX: Final = 4096
"""Any message but an append, a piece of a snapshot and an introduction."""
INTRODUCTION_BYTES_MAX: Final = 64 * 1024
APPEND_BYTES_MAX: Final = frames.BODY_BYTES_MAX + 2 * 1024 * 1024
"""The largest entry behind an ordinary batch that it did not fit into."""
SNAPSHOT_BYTES_MAX: Final = SNAPSHOT_CHUNK_BYTES_MAX + SMALL_BYTES_MAX
MEMBERS_MAX: Final = 256
URL_CHARACTERS_MAX: Final = 2048
_NUMBER_MAX: Final = 2**63 - 1
_STATE_HASH_BYTES: Final = 16
_NODE_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_URL: Final = re.compile(r"https?://[\x21-\x7e]+")
"""It may come to stand in a header and in a log line."""


def _number(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= _NUMBER_MAX:
        raise MessageError(f"not a number from 0 to 2^63-1: {_shown(value)}")
    return value


def _truth(value: Any) -> bool:
    if type(value) is not bool:
        raise MessageError(f"not a truth value: {_shown(value)}")
    return value


def _state_hash(value: Any) -> bytes:
    if type(value) is not bytes or len(value) not in (0, _STATE_HASH_BYTES):
        raise MessageError(f"not a state hash: {_shown(value)}")
    return value


def _frames(value: Any) -> list[bytes]:
    if type(value) is not bytes:
        raise MessageError(f"frames are one bin, not {_shown(value)}")
    try:
        return frames.split(value)
    except FrameError as error:
        raise MessageError(str(error)) from error


def _checksum(value: Any) -> int:
    if _number(value) >= 2**32:
        raise MessageError(f"not a checksum: {_shown(value)}")
    return int(value)


def _chunk(value: Any) -> bytes:
    if type(value) is not bytes or not 0 < len(value) <= SNAPSHOT_CHUNK_BYTES_MAX:
        raise MessageError(f"not a piece of a snapshot: {_shown(value)}")
    return value


def _install_snapshot(
    term: int, index: int, last_term: int, size_bytes: int, checksum: int, offset: int, data: bytes
) -> InstallSnapshot:
    snapshot = SnapshotId(Index(index), Term(last_term), size_bytes, checksum)
    return InstallSnapshot(Term(term), snapshot, offset, data)


def _identity(value: Any) -> bytes:
    if type(value) is not bytes or len(value) != ID_BYTES:
        raise MessageError(f"not {ID_BYTES} bytes of identity: {_shown(value)}")
    return value


def node_id(value: Any) -> NodeId:
    """A node's id; raises MessageError on what is none."""
    if type(value) is not str or not _NODE_ID.fullmatch(value):
        raise MessageError(f"not a node's id: {_shown(value)}")
    return NodeId(value)


def _url(value: Any) -> str:
    if type(value) is not str or len(value) > URL_CHARACTERS_MAX or not _URL.fullmatch(value):
        raise MessageError(f"not a URL: {_shown(value)}")
    return value


def _shown(value: Any) -> str:
    """What stood there, short enough for a log line whatever it was."""
    if isinstance(value, (bytes, str)):
        return f"{type(value).__name__} of length {len(value)}"
    return repr(value) if value is None or isinstance(value, (int, float)) else type(value).__name__


class _Form(NamedTuple):
    """How the fields of one message stand on the wire."""

    code: int
    make: Callable[..., Message]
    fields: Callable[[Any], tuple[Any, ...]]
    checks: Sequence[Callable[[Any], Any]]


def _form(code: int, make: Callable[..., Message], names: str, checks: Sequence[Callable[[Any], Any]]) -> _Form:
    if len(checks) > 1:
        return _Form(code, make, attrgetter(*names.split()), checks)
    only: attrgetter[Any] = attrgetter(names)
    return _Form(code, make, lambda message: (only(message),), checks)


_N, _T = _number, _truth
_FORMS: Final[dict[type[Any], _Form]] = {
    PreVoteRequest: _form(1, PreVoteRequest, "term last_log_index last_log_term", (_N, _N, _N)),
    PreVoteReply: _form(
        2,
        PreVoteReply,
        "term proposed_term granted removed last_log_index last_log_term",
        (_N, _N, _T, _T, _N, _N),
    ),
    RequestVote: _form(3, RequestVote, "term last_log_index last_log_term transfer", (_N, _N, _N, _T)),
    RequestVoteReply: _form(
        4, RequestVoteReply, "term granted removed last_log_index last_log_term", (_N, _T, _T, _N, _N)
    ),
    AppendEntries: _form(5, AppendEntries, "term prev_index prev_term commit frames", (_N, _N, _N, _N, _frames)),
    AppendEntriesReply: _form(
        6,
        AppendEntriesReply,
        "term success prev_index match conflict_term conflict_index",
        (_N, _T, _N, _N, _N, _N),
    ),
    Heartbeat: _form(
        7,
        Heartbeat,
        "term commit leader_commit round dated_life dated_us agreed_index agreed_hash",
        (_N, _N, _N, _N, _N, _N, _N, _state_hash),
    ),
    HeartbeatReply: _form(
        8,
        HeartbeatReply,
        "term round hash_index state_hash withholds_ms life heard_us",
        (_N, _N, _N, _state_hash, _N, _N, _N),
    ),
    ReadIndexRequest: _form(9, ReadIndexRequest, "term read_id", (_N, _N)),
    ReadIndexReply: _form(10, ReadIndexReply, "term read_id confirmed index", (_N, _N, _T, _N)),
    TimeoutNow: _form(11, TimeoutNow, "term", (_N,)),
    TimeoutNowReply: _form(12, TimeoutNowReply, "term accepted", (_N, _T)),
    InstallSnapshot: _form(
        13,
        _install_snapshot,
        "term snapshot.index snapshot.term snapshot.size_bytes snapshot.checksum offset data",
        (_N, _N, _N, _N, _checksum, _N, _chunk),
    ),
    InstallSnapshotReply: _form(14, InstallSnapshotReply, "term index wanted_offset installed", (_N, _N, _N, _T)),
}
_FORM_OF_CODE: Final = {form.code: form for form in _FORMS.values()}


def encode(envelope: Envelope) -> bytes:
    """The bytes of an envelope."""
    message = envelope.message
    form = _FORMS[type(message)]
    fields = form.fields(message)
    if isinstance(message, AppendEntries):
        fields = (*fields[:-1], b"".join(message.frames))
    packed: bytes = msgpack.packb(
        (
            VERSION,
            form.code,
            envelope.cluster_id,
            envelope.sender,
            envelope.sender_incarnation,
            envelope.receiver,
            envelope.receiver_incarnation,
            *fields,
        )
    )
    return packed


def decode(packed: bytes) -> Envelope:
    """The envelope in ``packed``; raises MessageError on anything that ``encode`` does not make."""
    if len(packed) > APPEND_BYTES_MAX:
        raise MessageError(f"a message of {len(packed)} bytes")
    parts = unpack(packed, items_max=16)
    code = parts[1]
    form = _FORM_OF_CODE.get(code) if type(code) is int else None
    if form is None:
        raise MessageError(f"unknown type of message {_shown(code)}")
    if len(packed) > _BYTES_MAX_OF_CODE.get(form.code, SMALL_BYTES_MAX):
        raise MessageError(f"a message of type {form.code} with {len(packed)} bytes")
    if len(parts) != 7 + len(form.checks):
        raise MessageError(f"a message of type {form.code} with {len(parts)} parts")
    message = form.make(*[check(part) for check, part in zip(form.checks, parts[7:], strict=True)])
    return Envelope(
        ClusterId(_identity(parts[2])),
        node_id(parts[3]),
        Incarnation(_identity(parts[4])),
        node_id(parts[5]),
        Incarnation(_identity(parts[6])),
        message,
    )


_BYTES_MAX_OF_CODE: Final = {
    _FORMS[AppendEntries].code: APPEND_BYTES_MAX,
    _FORMS[InstallSnapshot].code: SNAPSHOT_BYTES_MAX,
}


def encode_introduction(introduction: Introduction) -> bytes:
    """The bytes of an introduction, whether it asks or replies."""
    packed: bytes = msgpack.packb(
        (
            VERSION,
            INTRODUCTION_CODE,
            introduction.sender,
            introduction.incarnation,
            introduction.url,
            introduction.cluster_id,
            introduction.formed,
            introduction.initial_members,
            introduction.client_url,
            introduction.joins,
        )
    )
    return packed


def decode_introduction(packed: bytes) -> Introduction:
    """The introduction in ``packed``; raises MessageError on anything else."""
    if len(packed) > INTRODUCTION_BYTES_MAX:
        raise MessageError(f"an introduction of {len(packed)} bytes")
    parts = unpack(packed, items_max=MEMBERS_MAX)
    if type(parts[1]) is not int or parts[1] != INTRODUCTION_CODE or len(parts) != 10:
        raise MessageError("not an introduction")
    _, _, sender, incarnation, url, cluster_id, formed, members, client_url, joins = parts
    if type(members) is not list:
        raise MessageError("the members of an introduction are a list")
    return Introduction(
        sender=node_id(sender),
        incarnation=Incarnation(_identity(incarnation)),
        url=_url(url),
        cluster_id=None if cluster_id is None else ClusterId(_identity(cluster_id)),
        formed=_truth(formed),
        initial_members=_sorted_members([_introduced(member) for member in members]),
        client_url=None if client_url is None else _url(client_url),
        joins=_truth(joins),
    )


def _introduced(member: Any) -> tuple[NodeId, Incarnation]:
    if type(member) is not list or len(member) != 2:
        raise MessageError("a member of an introduction is an id and an incarnation")
    id, incarnation = member
    return node_id(id), Incarnation(b"" if incarnation == b"" else _identity(incarnation))


def _sorted_members(members: list[tuple[NodeId, Incarnation]]) -> list[tuple[NodeId, Incarnation]]:
    ids = [id for id, _ in members]
    if any(later <= earlier for earlier, later in pairwise(ids)):
        raise MessageError("the members of an introduction are not sorted, or one is there twice")
    return members


def unpack(packed: bytes, *, items_max: int, version: int = VERSION) -> list[Any]:
    """The outermost list, its version checked; nothing larger than the input is ever allocated for."""
    try:
        parts = msgpack.unpackb(
            packed,
            strict_map_key=True,
            max_array_len=items_max,
            max_map_len=0,
            max_ext_len=0,
            max_str_len=URL_CHARACTERS_MAX * 4,
        )
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise MessageError(f"not msgpack as it is spoken here: {type(error).__name__}") from error
    if type(parts) is not list or len(parts) < 2:
        raise MessageError("a message is a list")
    if type(parts[0]) is not int or parts[0] != version:
        raise MessageError(f"unknown version {_shown(parts[0])}")
    return parts
