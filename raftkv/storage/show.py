"""A log and the snapshots beside it, told readably. Reads only, takes no lock, and goes on where recovery would refuse.

Told: a directory. Tells: lines.
"""

from __future__ import annotations

from collections.abc import Iterator

from raftkv import frames
from raftkv.core.effects import LogBase
from raftkv.core.types import Configuration, NodeId, SnapshotId
from raftkv.errors import DataError, DiskFailed
from raftkv.storage.directory import Directory
from raftkv.storage.format import BadBytes, SegmentHeader
from raftkv.storage.identity import IDENTITY_NAME, read_identity
from raftkv.storage.operations import Append, Operation, Truncate, Vote
from raftkv.storage.segments import Batch, Segment, segment_name, segment_numbers
from raftkv.storage.snapshot_reading import (
    RECEIVING_PREFIX,
    TEMPORARY_NAME,
    SnapshotFile,
    receiving_name,
    snapshot_name,
    snapshots_in,
)


def describe(directory: Directory) -> Iterator[str]:
    """What stands in the directory, line by line: identity, snapshots, segments, batches, marks, entries.

    A place where no batch begins is told with why, and whether it is a torn end or damage; a snapshot is read whole.
    """
    yield from _identity(directory)
    yield from _snapshots(directory)
    numbers = segment_numbers(directory)
    for number in numbers:
        try:
            segment = Segment.open(directory, number)
        except DataError as error:
            yield f"{segment_name(number)}: {error}"
            continue
        try:
            yield from _segment(segment, is_newest=number == numbers[-1])
        finally:
            segment.file.close()


def _identity(directory: Directory) -> Iterator[str]:
    if not directory.exists(IDENTITY_NAME):
        yield f"{directory.path}: no identity"
        return
    try:
        identity = read_identity(directory)
    except DataError as error:
        yield str(error)
        return
    cluster = "not yet of a cluster" if identity.cluster_id is None else f"cluster {identity.cluster_id.hex()}"
    formed = "formed" if identity.formed else "not known to be formed"
    yield f"{directory.path}: node {identity.node_id}, incarnation {identity.incarnation.hex()}, {cluster}, {formed}"


def _snapshots(directory: Directory) -> Iterator[str]:
    for id in snapshots_in(directory):
        try:
            yield from _snapshot(directory, id)
        except DataError as error:
            is_there = directory.exists(snapshot_name(id))
            yield f"{snapshot_name(id)}: {error if is_there else 'gone by now'}"
    for id in snapshots_in(directory, RECEIVING_PREFIX):
        size = _size(directory, receiving_name(id))
        yield f"{receiving_name(id)}: {size} of {id.size_bytes} bytes of another node's snapshot"
    if directory.exists(TEMPORARY_NAME):
        yield f"{TEMPORARY_NAME}: {_size(directory, TEMPORARY_NAME)} bytes of a snapshot that is not finished"


def _snapshot(directory: Directory, id: SnapshotId) -> Iterator[str]:
    snapshot = SnapshotFile.open(directory, id, cluster_id=None)
    try:
        meta, base = snapshot.meta, snapshot.meta.base
        yield (
            f"{snapshot_name(id)}: {id.size_bytes} bytes, cluster {meta.cluster_id.hex()}; "
            f"ends with entry {base.index} of term {base.term}, cluster time {meta.stamp_ms} ms; "
            f"state hash {meta.state_hash.hex() or 'none'}; configuration: {_members(base.configuration)}"
        )
        blocks_count = sum(1 for _ in snapshot.blocks())
        yield f"  {blocks_count} blocks, every byte as it was written"
    finally:
        snapshot.file.close()


def _size(directory: Directory, name: str) -> str:
    """In bytes; of a file that the node has renamed or deleted meanwhile nobody knows."""
    try:
        file = directory.open(name)
    except DiskFailed:
        return "unknown"
    try:
        return str(file.size_bytes())
    finally:
        file.close()


def _segment(segment: Segment, *, is_newest: bool) -> Iterator[str]:
    yield f"{segment_name(segment.header.number)}: {_header(segment.header)}"
    offset, number = segment.batches_offset, segment.header.first_batch
    end = None
    while end is None:
        for batch in segment.batches(offset):
            yield from _batch(batch)
            offset, number = batch.offset + batch.header.total_bytes, batch.header.number + 1
        end = _end(segment, offset, number, is_newest=is_newest)
    yield f"  {offset:>10}  {end}"


def _header(header: SegmentHeader) -> str:
    return (
        f"{header.size_bytes} bytes, from batch {header.first_batch}, entry {header.first_index}; "
        f"{_vote(Vote(header.term, header.voted_for))}; base {header.base.index} of term {header.base.term}; "
        f"configuration {header.configuration_index}: {_members(header.configuration)}"
    )


def _batch(batch: Batch) -> Iterator[str]:
    header = batch.header
    what = "mark" if header.is_mark else "batch"
    yield (
        f"  {batch.offset:>10}  {what} {header.number}, {header.total_bytes} bytes, "
        f"synced through {header.synced_through}"
    )
    for operation in batch.operations:
        for line in _operation(operation):
            yield f"              {line}"


def _operation(operation: Operation) -> Iterator[str]:
    match operation:
        case Append(joined):
            for frame in joined:
                term, index = frames.term_and_index(frame)
                kind = frames.EntryKind(frames.kind(frame)).name.lower()
                yield f"entry {index}, term {term}, {kind}, {len(frames.body(frame))} bytes"
        case Vote():
            yield _vote(operation)
        case Truncate(first):
            yield f"truncated from entry {first}"
        case LogBase(index, term, configuration):
            yield f"base {index} of term {term}: {_members(configuration)}"


def _vote(vote: Vote) -> str:
    return f"term {vote.term}, " + ("no vote" if vote.voted_for is None else f"voted for {vote.voted_for}")


def _members(configuration: Configuration) -> str:
    ids: list[NodeId] = list(configuration.members())
    return " ".join(ids) if ids else "none"


def _end(segment: Segment, offset: int, number: int, *, is_newest: bool) -> str | None:
    """Why the batches end there; None if they do not any more: the node that owns the log may be writing it."""
    proof = segment.proof_after(offset, number=number)
    segment.read_anew()
    try:
        segment.batch_at(offset)
    except BadBytes as error:
        why = str(error)
    else:
        return None
    if proof is not None:
        return f"DAMAGED: batch {number} was synced (byte {proof} says so), but {why}"
    if not is_newest or next(segment.leftovers(offset), None) is None:
        return "end"
    return f"torn: batch {number} is not whole ({why}), and nothing says that it was synced"
