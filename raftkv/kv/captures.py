"""A state captured, read in a thread and let go of; and a state loaded in a thread, checked and put in place.

Told: the store's table and sessions. Tells: blocks, and the state in blocks. May never know: files, commands, which
thread it is, or the clock: a budget of time is one of things to do, at what one of them has been measured to cost.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from itertools import islice
from operator import lt
from typing import Any, Final, NamedTuple

from raftkv.errors import SnapshotError, StateDamaged
from raftkv.kv import snapshot
from raftkv.kv.hashing import Room, hash_sum, total
from raftkv.kv.record import HEADER_BYTES
from raftkv.kv.sessions import Life, Sessions
from raftkv.kv.snapshot import Meta, Records, Rows
from raftkv.kv.table import Table

RELEASED_PER_MS: Final = 2_000
"""Noted records; one takes 0.2 to 0.4 µs."""
HASHED_PER_CALL: Final = 1_024
"""As many hashes take about a millisecond, within which nobody else runs."""
FREED_PER_PIECE: Final = 4_096


class State(NamedTuple):
    """All that the store holds."""

    table: Table
    sessions: Sessions
    time_ms: int
    """Cluster time: the highest stamp so far."""

    @property
    def meta(self) -> Meta:
        """Its numbers."""
        sums = total(self.table.hash_sum), total(self.sessions.hash_sum)
        return Meta(self.table.revision, self.time_ms, len(self.table), len(self.sessions), *sums)


class StoreCapture:
    """Implements ``raftkv.state_machine.Capture``."""

    __slots__ = ("_lives", "_meta", "_records", "_state")

    def __init__(self, state: State) -> None:
        self._state = state
        self._meta = state.meta
        self._records = state.table.freeze()
        self._lives = state.sessions.freeze()

    def blocks(self) -> Iterator[bytes]:
        """The state as it was; in a thread."""
        yield snapshot.meta_block(self._meta)
        yield from snapshot.record_blocks(self._state.table, self._records)
        yield from snapshot.session_blocks(self._state.sessions, self._lives)

    def fold(self, budget_us: int) -> bool:
        """Lets go of what was noted since; whether nothing of it is left."""
        self._state.table.thaw(self._records)
        self._state.sessions.thaw(self._lives)
        count = max(1, budget_us * RELEASED_PER_MS // 1_000)
        return self._records.release(count) and self._lives.release(count // 16)


class StoreLoading:
    """Implements ``raftkv.state_machine.Loading``."""

    __slots__ = ("_is_over", "_last_id", "_last_key", "_left", "_meta", "_new", "_replace")

    def __init__(self, replace: Callable[[State], State]) -> None:
        self._replace = replace
        """Puts a state in place; returns the one that was there."""
        self._new = State(Table(), Sessions(), 0)
        self._left: State = self._new
        """What nobody needs once this is over."""
        self._meta: Meta | None = None
        self._last_key: bytes | None = None
        self._last_id: bytes | None = None
        self._is_over = False

    def add(self, block: bytes) -> None:
        """The block's content is in the new state, which nobody sees yet; in a thread."""
        if self._is_over:
            raise SnapshotError("this loading is over")
        try:
            self._add(block)
        except (ValueError, TypeError, OverflowError, struct.error) as error:
            self._is_over = True
            raise SnapshotError(f"not a block of a snapshot: {error}") from error
        except SnapshotError:
            self._is_over = True
            raise

    def finish(self) -> None:
        """The state is what the blocks hold, if it is all of what the first one promised."""
        if self._is_over or self._meta is None:
            raise SnapshotError("this loading is over" if self._is_over else "a snapshot without a beginning")
        self._is_over = True
        table, sessions, _ = self._new
        table.revision = self._meta.revision
        state = State(table, sessions, self._meta.time_ms)
        if state.meta[:4] != self._meta[:4]:
            raise StateDamaged(f"the snapshot is not whole: {len(table)} keys of {self._meta.keys} are there")
        if state.meta != self._meta:
            raise StateDamaged("the state in the snapshot does not have the hash that it had when it was taken")
        self._left = self._replace(state)

    def free(self) -> Iterator[None]:
        """Lets go of the state that nobody needs."""
        self._is_over = True
        return freed(self._left)

    def _add(self, block: bytes) -> None:
        if self._meta is None:
            self._meta = snapshot.meta_of(block)
            return
        match snapshot.content_of(block):
            case Records(keys, records):
                self._add_records(keys, records)
            case Rows(rows):
                self._add_sessions(rows)

    def _add_records(self, keys: list[bytes], records: list[bytes]) -> None:
        if not _ascend(self._last_key, keys) or min(map(len, records)) < HEADER_BYTES:
            raise SnapshotError("a block of records that is out of order or holds something else")
        sums = (
            hash_sum(Room.TABLE, keys[start : start + HASHED_PER_CALL], records[start : start + HASHED_PER_CALL])
            for start in range(0, len(keys), HASHED_PER_CALL)
        )
        self._new.table.append(keys, records, hash_sum=sum(sums))
        self._last_key = keys[-1]

    def _add_sessions(self, rows: list[list[Any]]) -> None:
        ids = [life[0] for life, _ in rows]
        if not _ascend(self._last_id, ids):
            raise SnapshotError("a block of sessions that is out of order")
        for life, stored in rows:
            self._new.sessions.append(Life(*life), dict(stored))
        self._last_id = ids[-1]


def freed(state: State) -> Iterator[None]:
    """Lets go of an abandoned state, a piece at a time."""
    while not state.table.shrink(FREED_PER_PIECE):
        yield
    while not state.sessions.shrink(FREED_PER_PIECE // 16):
        yield


def _ascend(last: bytes | None, keys: list[bytes]) -> bool:
    return (last is None or last < keys[0]) and all(map(lt, keys, islice(keys, 1, None)))
