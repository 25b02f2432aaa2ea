"""Entries read back from the log's files, for what memory no longer holds.

Told: a directory, the sparse index, which entries. Tells: their frames, every checksum proved, or
DataDamaged. Writes nothing.
"""

from __future__ import annotations

from raftkv import frames
from raftkv.core.effects import LogBase
from raftkv.core.types import Index
from raftkv.errors import DataDamaged
from raftkv.storage.directory import Directory
from raftkv.storage.operations import Append, Operation, Truncate
from raftkv.storage.segments import Segment
from raftkv.storage.sparse_index import Place, SparseIndex


def read_entries(directory: Directory, index: SparseIndex, *, first: Index, last: Index, bytes_max: int) -> list[bytes]:
    """The frames from ``first`` to ``last``, ending with the one that reaches ``bytes_max``; all are in the log."""
    found: list[bytes] = []
    room_bytes = max(1, bytes_max)
    while first <= last:
        place = index.place_of(first)
        limit = Index(last + 1) if place.limit is None else min(place.limit, Index(last + 1))
        for frame in _walked(directory, place, first=first, limit=limit, bytes_max=room_bytes):
            found.append(frame)
            first = Index(first + 1)
            room_bytes -= len(frame)
            if room_bytes <= 0:
                return found
    return found


def _walked(directory: Directory, place: Place, *, first: Index, limit: Index, bytes_max: int) -> list[bytes]:
    """The entries from ``first`` to before ``limit``, or as many of them as reach ``bytes_max``."""
    found: list[bytes] = []
    segment = Segment.open(directory, place.segment)
    try:
        for batch in segment.batches(place.offset):
            for operation in batch.operations:
                _follow(found, operation, first=first, limit=limit)
            if len(found) == limit - first or sum(map(len, found)) >= bytes_max:
                return found
    finally:
        segment.file.close()
    why = f"entry {first + len(found)} was written from here on and does not read back"
    raise DataDamaged(path=segment.file.path, offset=place.offset, why=why)


def _follow(found: list[bytes], operation: Operation, *, first: Index, limit: Index) -> None:
    """``found`` is what is wanted after one more operation; within a batch a later one may take entries back."""
    match operation:
        case Append(joined):
            for frame in joined:
                index = frames.term_and_index(frame)[1]
                if index == first + len(found) and index < limit:
                    found.append(frame)
        case Truncate(truncated):
            del found[max(0, truncated - first) :]
        case LogBase():
            found.clear()
        case _:
            pass
