"""What the log records, one operation after the other, and the bytes of each.

Told: the core's ``DiskWrite``s, or a batch's body. Tells: operations. Pure. In a body each operation is a
tag byte and then

    1  vote       term u64 | length u8 | id             length 0: no vote in this term
    2  base       index u64 | term u64 | length u32 | configuration
    3  truncate   from u64
    4  entries    length u32 | frames, joined           see raftkv.frames
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from raftkv import frames
from raftkv.core.effects import DiskWrite, LogBase
from raftkv.core.types import Configuration, Index, NodeId, Term
from raftkv.errors import FrameError, MessageError

_TAG_VOTE: Final = 1
_TAG_BASE: Final = 2
_TAG_TRUNCATE: Final = 3
_TAG_ENTRIES: Final = 4

_VOTE = struct.Struct("<BQB")
_BASE = struct.Struct("<BQQI")
_TRUNCATE = struct.Struct("<BQ")
_ENTRIES = struct.Struct("<BI")


class BadBody(Exception):
    """A body that no ``encode`` made, although its checksum is right; never leaves this room."""


class Vote(NamedTuple):
    """The current term, and for whom this node voted in it."""

    term: Term
    voted_for: NodeId | None


class Truncate(NamedTuple):
    """This entry and all after it go."""

    first: Index


class Run(NamedTuple):
    """Entries with indexes in sequence and one term."""

    first: Index
    term: Term
    entry_count: int


class Append(NamedTuple):
    """Entries for the end of the log."""

    frames: list[bytes]
    runs: list[Run]
    checksums: list[bytes]
    """Of each frame, as they stand in it."""
    configurations: list[tuple[Index, bytes]]
    """The entries among them that are configurations: index and body."""


Operation = Vote | LogBase | Truncate | Append


def append_in_sequence(joined: list[bytes]) -> Append:
    """The operation that appends these frames, of which somebody has proved that each follows the one before.

    Their terms do not fall, so where the first and the last are of one term, all are: two are looked into instead
    of each, for this is on the path of every write.
    """
    first_term, first = frames.term_and_index(joined[0])
    last_term, last = frames.term_and_index(joined[-1])
    if first_term != last_term or last - first + 1 != len(joined):
        return append_of(joined)
    configuration, at = frames.EntryKind.CONFIGURATION, frames.KIND_OFFSET
    configurations = [
        (Index(index), frames.body(frame)) for index, frame in enumerate(joined, first) if frame[at] == configuration
    ]
    runs = [Run(Index(first), Term(first_term), len(joined))]
    return Append(joined, runs, [frame[4:8] for frame in joined], configurations)


def append_of(joined: list[bytes]) -> Append:
    """The operation that appends these frames, whatever they are."""
    runs: list[Run] = []
    checksums: list[bytes] = []
    configurations: list[tuple[Index, bytes]] = []
    first = run_term = next_index = -1
    for frame in joined:
        term, index = frames.term_and_index(frame)
        if index != next_index or term != run_term:
            if first >= 0:
                runs.append(Run(Index(first), Term(run_term), next_index - first))
            first, run_term = index, term
        next_index = index + 1
        checksums.append(frames.checksum_bytes(frame))
        if frames.kind(frame) == frames.EntryKind.CONFIGURATION:
            configurations.append((Index(index), frames.body(frame)))
    if first >= 0:
        runs.append(Run(Index(first), Term(run_term), next_index - first))
    return Append(joined, runs, checksums, configurations)


def operations_of(writes: Sequence[DiskWrite], *, append_bytes_max: int) -> Iterator[Operation]:
    """The writes in order, each in the order of its fields; no append exceeds the bound but by one frame."""
    for write in writes:
        if write.vote is not None:
            yield Vote(*write.vote)
        if write.base is not None:
            yield write.base
        if write.truncate_from is not None:
            yield Truncate(write.truncate_from)
        if write.frames:
            for piece in _pieces(write.frames, append_bytes_max):
                yield append_in_sequence(piece)


def _pieces(joined: list[bytes], bytes_max: int) -> Iterator[list[bytes]]:
    if sum(map(len, joined)) <= bytes_max:
        yield joined
        return
    piece: list[bytes] = []
    size_bytes = 0
    for frame in joined:
        if piece and size_bytes + len(frame) > bytes_max:
            yield piece
            piece, size_bytes = [], 0
        piece.append(frame)
        size_bytes += len(frame)
    yield piece


def encode(operation: Operation) -> list[bytes]:
    """The parts of its bytes, still to be joined."""
    match operation:
        case Append():
            length = sum(map(len, operation.frames))
            return [_ENTRIES.pack(_TAG_ENTRIES, length), *operation.frames]
        case Vote(term, voted_for):
            id = (voted_for or "").encode()
            return [_VOTE.pack(_TAG_VOTE, term, len(id)), id]
        case Truncate(first):
            return [_TRUNCATE.pack(_TAG_TRUNCATE, first)]
        case LogBase(index, term, configuration):
            packed = configuration.encode()
            return [_BASE.pack(_TAG_BASE, index, term, len(packed)), packed]


def decode(body: bytes) -> Iterator[Operation]:
    """The operations of a body whose checksum was proved; BadBody where it makes no sense all the same."""
    offset = 0
    try:
        while offset < len(body):
            operation, offset = _decode_one(body, offset)
            yield operation
    except (struct.error, FrameError, MessageError, UnicodeDecodeError) as error:
        raise BadBody(f"operation at byte {offset} of the body: {error}") from error


def _decode_one(body: bytes, offset: int) -> tuple[Operation, int]:
    tag = body[offset]
    if tag == _TAG_ENTRIES:
        _, length = _ENTRIES.unpack_from(body, offset)
        joined, offset = _taken(body, offset + _ENTRIES.size, length)
        return append_of(frames.split(joined)), offset
    if tag == _TAG_VOTE:
        _, term, length = _VOTE.unpack_from(body, offset)
        id, offset = _taken(body, offset + _VOTE.size, length)
        return Vote(Term(term), NodeId(id.decode()) if id else None), offset
    if tag == _TAG_TRUNCATE:
        _, first = _TRUNCATE.unpack_from(body, offset)
        return Truncate(Index(first)), offset + _TRUNCATE.size
    if tag == _TAG_BASE:
        _, index, term, length = _BASE.unpack_from(body, offset)
        packed, offset = _taken(body, offset + _BASE.size, length)
        return LogBase(Index(index), Term(term), Configuration.decode(packed)), offset
    raise BadBody(f"operation at byte {offset} of the body: unknown tag {tag}")


def _taken(body: bytes, offset: int, length: int) -> tuple[bytes, int]:
    if length > len(body) - offset:
        raise BadBody(f"{length} bytes are said to be at byte {offset} of a body of {len(body)}")
    return body[offset : offset + length], offset + length


def table_of(operations: Iterable[Operation]) -> tuple[list[Run], list[bytes]]:
    """What a batch's header repeats of its entries: runs of (first index, term, count), and checksums."""
    runs: list[Run] = []
    checksums: list[bytes] = []
    for operation in operations:
        if isinstance(operation, Append):
            runs += operation.runs
            checksums += operation.checksums
    return runs, checksums
