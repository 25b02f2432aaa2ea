"""Keys and their records, the store-wide revision, and the hash over both.

Told: what to put and to delete, at which revision. Tells: what it did, what it holds, and which keys come first
within a range. May never know: sessions, time, the log, or why a write was wanted.

Whoever changes a record notes it first for whoever has frozen the table. ``_order`` holds the same keys, sorted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from raftkv.kv import record
from raftkv.kv.answers import PutDone
from raftkv.kv.frozen import Frozen
from raftkv.kv.hashing import Room, item_hash
from raftkv.kv.order import Keys
from raftkv.kv.parted import MASK, PartedMap
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

    __slots__ = ("_frozen", "_order", "_records", "hash_sum", "revision")

    def __init__(self) -> None:
        self._records: PartedMap[bytes] = PartedMap()
        self._order = Keys()
        self._frozen: tuple[Frozen[bytes], ...] = ()
        """Moments that somebody still needs: each is told what a key holds before that changes."""
        self.revision = 0
        """Goes up by one with every command that changes something; 0: nothing ever did."""
        self.hash_sum = 0
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
        records = self._records.parts[hash(key) & MASK]
        found = records.get(key)
        if found is None:
            self._order.add(key)
        else:
            create_revision, _, version_before, _ = record.header(found)
            version = version_before + 1
            self.hash_sum -= item_hash(Room.TABLE, key, found)
            for frozen in self._frozen:
                frozen.note(key, found)
        packed = record.pack(create_revision=create_revision, mod_revision=revision, version=version, value=value)
        records[key] = packed
        self.hash_sum += item_hash(Room.TABLE, key, packed)
        return PutDone(found is None, revision, create_revision, version)

    def remove(self, key: bytes) -> bool:
        """The key is absent; whether it was there."""
        records = self._records.parts[hash(key) & MASK]
        found = records.get(key)
        if found is None:
            return False
        for frozen in self._frozen:
            frozen.note(key, found)
        del records[key]
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
                size_after += len(self._present(key)) - HEADER_BYTES
            if len(keys) >= keys_max or (size_after > bytes_max and len(keys) >= keys_min):
                return Selection(keys, more=True, size_bytes=size_bytes)
            keys.append(key)
            size_bytes = size_after
        return Selection(keys, more=False, size_bytes=size_bytes)

    def items(self, keys: Iterable[bytes], *, keys_only: bool) -> list[tuple[bytes, Record]]:
        """These keys, all present, and what they hold; ``keys_only``: with empty values instead of theirs."""
        unpack = record.unpack_header if keys_only else record.unpack
        return [(key, unpack(self._present(key))) for key in keys]

    def freeze(self) -> Frozen[bytes]:
        """The table as it is now; until ``thaw`` whatever changes is noted for it."""
        frozen: Frozen[bytes] = Frozen(self._order.freeze(), len(self._records))
        self._frozen += (frozen,)
        return frozen

    def held(self, keys: list[bytes], frozen: Frozen[bytes]) -> list[bytes]:
        """The packed records of these of its keys, as they were then; in a thread, while the table changes."""
        found = dict(zip(keys, self._records.found(keys), strict=True))
        return frozen.as_it_was(keys, found)  # type: ignore[arg-type]

    def thaw(self, frozen: Frozen[bytes]) -> None:
        """Nothing is noted for this one any more."""
        frozen.end()
        self._frozen = tuple(other for other in self._frozen if other is not frozen)

    def append(self, keys: list[bytes], records: list[bytes], *, hash_sum: int) -> None:
        """Keys above all that are here, ascending, with their packed records and the sum of their hashes."""
        self._records.update(keys, records)
        self._order.append(keys)
        self.hash_sum += hash_sum

    def abandon(self) -> None:
        """Nobody needs the table any more, nor any moment of it."""
        for frozen in self._frozen:
            self.thaw(frozen)

    def shrink(self, count: int) -> bool:
        """Lets go of so many records, once the table is abandoned; whether none is left."""
        self._order.shrink(count)
        return self._records.shrink(count)

    def _present(self, key: bytes) -> bytes:
        return self._records.parts[hash(key) & MASK][key]

    def _keys_within(self, bounds: Bounds, *, reverse: bool) -> Iterator[bytes]:
        return self._order.within(bounds, reverse=reverse)
