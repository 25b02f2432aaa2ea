"""Keys and their records, the store-wide revision, and the hash over both.

Told: what to put and to delete, at which revision. Tells: what it did, what it holds, and which keys come first
within a range. May never know: sessions, time, the log, or why a write was wanted.

Whoever reads or changes a record does so through the few lines that touch ``_records``: a frozen base under
an overlay will take its place. ``_order`` holds the same keys, sorted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from sortedcontainers import SortedList

from raftkv.kv import record
from raftkv.kv.answers import PutDone
from raftkv.kv.hashing import Room, item_hash
from raftkv.kv.ranges import Bounds
from raftkv.kv.record import HEADER_BYTES, Record

ABSENT_REVISION = 0
"""The mod revision of a key that is not there."""


class Selection(NamedTuple):
    """The first keys of a range."""

    keys: list[bytes]
    more: bool
    """Further keys are within the bounds."""
    size_bytes: int
    """Of the keys, and of their values where those count."""


class Table:
    """The replicated keys. Whoever changes something raises ``revision`` to the one it was changed at."""

    __slots__ = ("_order", "_records", "hash_sum", "revision")

    def __init__(self, *, revision: int = 0, packed_records: Iterable[tuple[bytes, bytes]] = ()) -> None:
        self._records: dict[bytes, bytes] = dict(packed_records)
        self._order: Any = SortedList(self._records)
        self.revision = revision
        """Goes up by one with every command that changes something; 0: nothing ever did."""
        self.hash_sum = sum(item_hash(Room.TABLE, key, found) for key, found in self._records.items())
        """The sum of the hashes of all records, not yet cut to 128 bits."""

    def __len__(self) -> int:
        return len(self._records)

    def packed(self, key: bytes) -> bytes | None:
        """The key's record as it lies here; None: it is absent."""
        return self._records.get(key)

    def get(self, key: bytes) -> Record | None:
        """What the key holds; None: it is absent."""
        found = self._records.get(key)
        return None if found is None else record.unpack(found)

    def mod_revision(self, key: bytes) -> int:
        """The revision of the key's newest put; ABSENT_REVISION where there is no key."""
        found = self._records.get(key)
        return ABSENT_REVISION if found is None else record.header(found)[1]

    def put(self, key: bytes, value: bytes, revision: int) -> PutDone:
        """The key holds the value, since this revision."""
        create_revision, version = revision, 1
        found = self._records.get(key)
        if found is None:
            self._order.add(key)
        else:
            create_revision, _, version_before, _ = record.header(found)
            version = version_before + 1
            self.hash_sum -= item_hash(Room.TABLE, key, found)
        packed = record.pack(create_revision=create_revision, mod_revision=revision, version=version, value=value)
        self._records[key] = packed
        self.hash_sum += item_hash(Room.TABLE, key, packed)
        return PutDone(found is None, revision, create_revision, version)

    def remove(self, key: bytes) -> bool:
        """The key is absent; whether it was there."""
        found = self._records.pop(key, None)
        if found is None:
            return False
        self._order.remove(key)
        self.hash_sum -= item_hash(Room.TABLE, key, found)
        return True

    def select(
        self,
        bounds: Bounds,
        *,
        keys_max: int,
        bytes_max: int,
        keys_min: int = 1,
        reverse: bool = False,
        keys_only: bool = False,
    ) -> Selection:
        """The first keys within the bounds, as many as both limits let through.

        The first ``keys_min`` come whatever their bytes: who goes on from page to page always gets further.
        ``keys_only``: values do not count.
        """
        keys: list[bytes] = []
        size_bytes = 0
        for key in self._keys_within(bounds, reverse=reverse):
            size_after = size_bytes + len(key)
            if not keys_only:
                size_after += len(self._records[key]) - HEADER_BYTES
            if len(keys) >= keys_max or (size_after > bytes_max and len(keys) >= keys_min):
                return Selection(keys, more=True, size_bytes=size_bytes)
            keys.append(key)
            size_bytes = size_after
        return Selection(keys, more=False, size_bytes=size_bytes)

    def items(self, keys: Iterable[bytes], *, keys_only: bool) -> list[tuple[bytes, Record]]:
        """These keys, all present, and what they hold; ``keys_only``: with empty values instead of theirs."""
        unpack = record.unpack_header if keys_only else record.unpack
        return [(key, unpack(self._records[key])) for key in keys]

    def packed_records(self) -> list[tuple[bytes, bytes]]:
        """Every key with its packed record, in order of the keys."""
        return [(key, self._records[key]) for key in self._order]

    def _keys_within(self, bounds: Bounds, *, reverse: bool) -> Iterator[bytes]:
        if bounds.is_empty:
            return iter(())
        found: Iterator[bytes] = self._order.irange(bounds.start, bounds.end, (True, False), reverse)
        return found
