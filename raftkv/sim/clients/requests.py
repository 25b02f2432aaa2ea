"""What simulated clients ask for: requests drawn at random, of every sort that the store takes.

Told: a seeded generator, the keys, what the client has seen of them, fresh values. Tells: requests. May never
know: what became of earlier ones, but for what was seen.

But for deletes of single keys no two requests are equal: each has a value, or a bound, that none had before. So
whoever finds one in the log knows whose it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

from raftkv.kv.answers import Answer, ConditionFailed, PutDone, ReadKeyResult, ReadRangeResult, TxnDone
from raftkv.kv.commands import (
    ABSENT,
    ANY,
    COMMAND_KEYS_MAX,
    PRESENT,
    Compare,
    Delete,
    DeleteRange,
    Expect,
    Op,
    Operation,
    Put,
    ReadKey,
    ReadRange,
    Target,
    Txn,
    Write,
)
from raftkv.kv.queries import Found, Get, Page, Range
from raftkv.kv.record import Record

FIRST: Final = b"k"
"""All keys of clients begin with it; nobody else's do."""
END: Final = b"l"
_ANY_NUMBER: Final = COMMAND_KEYS_MAX


@dataclass(slots=True)
class Memory:
    """What a client last saw of each key: what its conditions are made of."""

    revisions: dict[bytes, int] = field(default_factory=dict)
    """0: the key was absent."""
    values: dict[bytes, bytes] = field(default_factory=dict)

    def saw(self, key: bytes, record: Record | None) -> None:
        """It was shown this."""
        self.revisions[key] = 0 if record is None else record.mod_revision
        if record is not None:
            self.values[key] = record.value

    def put(self, key: bytes, value: bytes, revision: int) -> None:
        """It was told that its put was done."""
        self.revisions[key], self.values[key] = revision, value

    def was_told(self, request: Get | Range | Write, answer: Answer | Found | Page) -> None:
        """It asked for this, and was told that."""
        match request, answer:
            case Get(key), Found(record, _):
                self.saw(key, record)
            case Range(keys_only=False), Page(items, _, _):
                self._saw_items(items)
            case Put(key, value), PutDone():
                self.put(key, value, answer.revision)
            case Put(key) | Delete(key), ConditionFailed():
                self.revisions[key] = answer.mod_revision
            case Txn(), TxnDone():
                self._saw_branch(request.success if answer.succeeded else request.failure, answer)

    def _saw_branch(self, branch: Sequence[Operation], answer: TxnDone) -> None:
        for operation, result in zip(branch, answer.results, strict=True):
            if isinstance(operation, Put):
                self.put(operation.key, operation.value, answer.revision)
            elif isinstance(result, ReadKeyResult):
                self.saw(*result)
            elif isinstance(result, ReadRangeResult) and not result.keys_only:
                self._saw_items(result.items)

    def _saw_items(self, items: Iterable[tuple[bytes, Record]]) -> None:
        for key, record in items:
            self.saw(key, record)


@dataclass(slots=True)
class Requests:
    """Draws for one client."""

    rng: Random
    keys: Sequence[bytes]
    """In their order."""
    memory: Memory
    new_value: Callable[[], bytes]

    def read(self) -> Get | Range:
        """A key mostly, sometimes a range."""
        if self.rng.randrange(4):
            return Get(self.rng.choice(self.keys))
        start, end = self._bounds()
        return Range(start, end, self._limit(), 10_000, reverse=self._flip(2), keys_only=self._flip(8))

    def write(self) -> Write:
        """Any write, puts mostly."""
        kind = self.rng.randrange(100)
        if kind < 55:
            return Put(self.rng.choice(self.keys), self.new_value(), self._expect())
        if kind < 70:
            return Delete(self.rng.choice(self.keys), self._expect())
        if kind < 78:
            return self._delete_range(self.keys)
        return self.rng.choice((self._swap, self._increment, self._jumble))()

    def _expect(self) -> Expect:
        key = self.rng.choice(self.keys)
        return self.rng.choice((ANY, ANY, ANY, ABSENT, PRESENT, Expect(self.memory.revisions.get(key, 1) or 1)))

    def _delete_range(self, keys: Sequence[bytes]) -> DeleteRange:
        """Its end is right after some key."""
        first = self.rng.randrange(len(keys))
        last = self.rng.randrange(first, len(keys))
        return DeleteRange(keys[first], keys[last] + b"!" + self.new_value(), self._limit())

    def _swap(self) -> Txn:
        """Two keys are put if both are as they were last seen."""
        keys = self.rng.sample(self.keys, min(2, len(self.keys)))
        return Txn(
            tuple(Compare(key, Target.MOD_REVISION, Op.EQUAL, self.memory.revisions.get(key, 0)) for key in keys),
            tuple(Put(key, self.new_value()) for key in keys),
            tuple(map(ReadKey, keys)),
        )

    def _increment(self) -> Txn:
        """The next value, if the last one is still there, and a look around."""
        key = self.rng.choice(self.keys)
        value = self.memory.values.get(key)
        compare = Compare(key, Target.VERSION, Op.EQUAL, 0)
        if value is not None:
            compare = Compare(key, Target.VALUE, Op.EQUAL, value)
        return Txn((compare,), (Put(key, self.new_value()), self._read_range()), (ReadKey(key),))

    def _jumble(self) -> Txn:
        """Whatever a branch may hold, in any order: a put at least."""
        cut = self.rng.randrange(1, len(self.keys) + 1)
        single, ranged = self.keys[:cut], self.keys[cut:]
        operations: list[Operation] = [Put(single[0], self.new_value()), self._read_range(), self._read_range()]
        operations += [self._on_key(key) for key in single[1:]]
        operations += [ReadKey(self.rng.choice(self.keys)) for _ in range(2)]
        if ranged:
            operations.append(self._delete_range(ranged))
        self.rng.shuffle(operations)
        compare = Compare(self.rng.choice(self.keys), Target.VERSION, self.rng.choice((Op.GREATER, Op.LESS)), 1)
        return Txn((compare,) * self.rng.randrange(2), tuple(operations), (self._read_range(),))

    def _on_key(self, key: bytes) -> Operation:
        return self.rng.choice((Put(key, self.new_value()), Delete(key), ReadKey(key)))

    def _read_range(self) -> ReadRange:
        start, end = self._bounds()
        return ReadRange(start, end, self._limit(), reverse=self._flip(2), keys_only=self._flip(8))

    def _bounds(self) -> tuple[bytes, bytes]:
        """All keys mostly; sometimes those from a key on, or before one."""
        start = self.rng.choice((FIRST, FIRST, self.rng.choice(self.keys)))
        return start, self.rng.choice((END, END, self.rng.choice(self.keys)))

    def _limit(self) -> int:
        return self.rng.choice((1, 2, _ANY_NUMBER))

    def _flip(self, one_in: int) -> bool:
        return self.rng.randrange(one_in) == 0
