"""Keys and their records, the store-wide revision, and the hash over both.

Told: what to put and to delete. Tells: what it did, and what it holds. May never know: sessions, time, the
log, or why a write was wanted.

Whoever reads or changes a record does so through the few lines that touch ``_records``: a frozen base under
an overlay will take its place.
"""

from __future__ import annotations

from collections.abc import Iterable

from raftkv.kv import record
from raftkv.kv.answers import DeleteDone, PutDone
from raftkv.kv.hashing import Room, item_hash
from raftkv.kv.record import Record

ABSENT_REVISION = 0
"""The mod revision of a key that is not there."""


class Table:
    """The replicated keys."""

    __slots__ = ("_records", "hash_sum", "revision")

    def __init__(self, *, revision: int = 0, packed_records: Iterable[tuple[bytes, bytes]] = ()) -> None:
        self._records: dict[bytes, bytes] = dict(packed_records)
        self.revision = revision
        """Goes up by one with every command that changes something; 0: nothing ever did."""
        self.hash_sum = sum(item_hash(Room.TABLE, key, found) for key, found in self._records.items())
        """The sum of the hashes of all records, not yet cut to 128 bits."""

    def __len__(self) -> int:
        return len(self._records)

    def get(self, key: bytes) -> Record | None:
        """What the key holds; None: it is absent."""
        found = self._records.get(key)
        return None if found is None else record.unpack(found)

    def mod_revision(self, key: bytes) -> int:
        """The revision of the key's newest put; ABSENT_REVISION where there is no key."""
        found = self._records.get(key)
        return ABSENT_REVISION if found is None else record.header(found)[1]

    def put(self, key: bytes, value: bytes) -> PutDone:
        """The key holds the value, under a revision of its own."""
        revision = self.revision = self.revision + 1
        create_revision, version = revision, 1
        found = self._records.get(key)
        if found is not None:
            create_revision, _, version_before, _ = record.header(found)
            version = version_before + 1
            self.hash_sum -= item_hash(Room.TABLE, key, found)
        packed = record.pack(create_revision=create_revision, mod_revision=revision, version=version, value=value)
        self._records[key] = packed
        self.hash_sum += item_hash(Room.TABLE, key, packed)
        return PutDone(found is None, revision, create_revision, version)

    def delete(self, key: bytes) -> DeleteDone:
        """The key is absent; where it was already, no revision is made."""
        found = self._records.pop(key, None)
        if found is None:
            return DeleteDone(0, self.revision)
        self.hash_sum -= item_hash(Room.TABLE, key, found)
        self.revision += 1
        return DeleteDone(1, self.revision)

    def packed_records(self) -> list[tuple[bytes, bytes]]:
        """Every key with its packed record, in order of the keys."""
        return sorted(self._records.items())
