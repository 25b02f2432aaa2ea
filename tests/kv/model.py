"""The store as one would write it without a thought for speed, to be compared with the real one.

Nothing is kept incrementally, packed, hashed or indexed; everything is looked for afresh.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, field

from raftkv.kv import answers, commands
from raftkv.kv.answers import Answer, Executed, TooLarge
from raftkv.kv.commands import Command, Compare, Delete, DeleteRange, Numbered, Operation, Put, ReadKey, Txn, Write
from raftkv.kv.record import Record

COMPARISONS = {"==": operator.eq, "!=": operator.ne, "<": operator.lt, ">": operator.gt}
Records = dict[bytes, Record]


@dataclass
class NaiveSession:
    ttl_ms: int
    last_seen_ms: int
    acknowledged: int = 0
    answers: dict[int, tuple[Write, Executed, int]] = field(default_factory=dict)

    def answers_above(self, number: int) -> dict[int, tuple[Write, Executed, int]]:
        return {sequence: stored for sequence, stored in self.answers.items() if sequence > number}


@dataclass
class NaiveStore:
    answers_max: int
    sessions_max: int
    bytes_max: int = commands.COMMAND_BYTES_MAX
    keys_max: int = commands.COMMAND_KEYS_MAX
    """Of a transaction; a range delete names its own limit."""
    records: Records = field(default_factory=dict)
    sessions: dict[bytes, NaiveSession] = field(default_factory=dict)
    revision: int = 0
    time_ms: int = 0

    def apply(self, command: Command, numbered: Numbered | None, *, index: int, stamp_ms: int) -> Answer:
        self.time_ms = max(self.time_ms, stamp_ms)
        self.sessions = {
            id: session for id, session in self.sessions.items() if self.time_ms - session.last_seen_ms < session.ttl_ms
        }
        if isinstance(command, Write):
            return self.write(command) if numbered is None else self.write_once(command, numbered, index)
        if isinstance(command, commands.Tick):
            return answers.Ticked()
        return self.tend_session(command)

    def tend_session(self, command: commands.OpenSession | commands.KeepAlive | commands.CloseSession) -> Answer:
        session = self.sessions.get(command.session)
        if isinstance(command, commands.OpenSession):
            if session is None and len(self.sessions) == self.sessions_max:
                return answers.TooManySessions(self.sessions_max)
            session = self.sessions.setdefault(command.session, NaiveSession(command.ttl_ms, self.time_ms))
            session.last_seen_ms = self.time_ms
            return answers.SessionOpened(command.session, session.ttl_ms)
        if session is None:
            return answers.SessionExpired()
        if isinstance(command, commands.CloseSession):
            del self.sessions[command.session]
            return answers.SessionClosed(command.session)
        session.last_seen_ms = self.time_ms
        return answers.SessionAlive(command.session, session.ttl_ms)

    def write_once(self, command: Write, numbered: Numbered, index: int) -> Answer:
        session = self.sessions.get(numbered.session)
        if session is None:
            return answers.SessionExpired()
        acknowledged = max(session.acknowledged, numbered.acknowledged)
        kept = session.answers_above(acknowledged)
        if numbered.sequence <= acknowledged:
            return answers.SequenceTooOld()
        if numbered.sequence not in kept:
            if len(kept) >= self.answers_max:
                return answers.TooManyUnacknowledged()
            executed = self.write(command)
            if isinstance(executed, TooLarge):
                return executed
            kept[numbered.sequence] = (command, executed, index)
            answer: Answer = executed
        else:
            first_command, first_answer, first_index = kept[numbered.sequence]
            if first_command != command:
                return answers.SequenceReused()
            answer = answers.Repeated(first_answer, first_index)
        session.answers, session.acknowledged, session.last_seen_ms = kept, acknowledged, self.time_ms
        return answer

    def write(self, command: Write) -> Executed | TooLarge:
        """On a copy of everything; what has changed in it is what was changed."""
        if isinstance(command, Txn):
            return self.transact(command)
        after = dict(self.records)
        if isinstance(command, DeleteRange):
            gone, more, _ = first_keys(after, command, keys_max=command.limit, bytes_max=self.bytes_max)
            self.commit({key: found for key, found in after.items() if key not in gone})
            return answers.DeleteRangeDone(len(gone), more, self.revision)
        if isinstance(command, Put) and len(command.key) + len(command.value) > self.bytes_max:
            return TooLarge(len(command.key) + len(command.value), self.bytes_max)
        found = self.records.get(command.key)
        holds = {
            commands.ANY: True,
            commands.PRESENT: found is not None,
            commands.ABSENT: found is None,
        }.get(command.expect, found is not None and found.mod_revision == command.expect)
        if not holds:
            return answers.ConditionFailed(found.mod_revision if found else 0, self.revision)
        if isinstance(command, Delete):
            after.pop(command.key, None)
            self.commit(after)
            return answers.DeleteDone(int(found is not None), self.revision)
        put(after, command, self.revision + 1)
        self.commit(after)
        new = after[command.key]
        return answers.PutDone(found is None, self.revision, new.create_revision, new.version)

    def transact(self, command: Txn) -> answers.TxnDone | TooLarge:
        succeeded = all(holds(self.records, compare) for compare in command.compares)
        branch = command.success if succeeded else command.failure
        bytes_left = self.bytes_max
        for compare in command.compares:
            bytes_left -= len(compare.key) + (len(compare.operand) if isinstance(compare.operand, bytes) else 0)
        bytes_left -= self.bytes_on_single_keys(branch)
        if bytes_left < 0:
            return TooLarge(self.bytes_max - bytes_left, self.bytes_max)
        keys_left = self.keys_max - len(command.compares)
        keys_left -= sum(isinstance(operation, Put | Delete | ReadKey) for operation in branch)
        after, results = dict(self.records), []
        for operation in branch:
            result, keys_touched, bytes_touched = self.operate(after, operation, keys_left, bytes_left)
            keys_left, bytes_left = keys_left - keys_touched, bytes_left - bytes_touched
            results.append(result)
        self.commit(after)
        return answers.TxnDone(succeeded, tuple(results), self.revision)

    def bytes_on_single_keys(self, branch: tuple[Operation, ...]) -> int:
        """Found by doing it, without the ranges."""
        after, touched = dict(self.records), 0
        for operation in branch:
            if isinstance(operation, Put | Delete | ReadKey):
                before = len(after[operation.key].value) if operation.key in after else 0
                new = len(operation.value) if isinstance(operation, Put) else 0
                touched += len(operation.key) + max(before, new)
                self.operate(after, operation, 0, 0)
        return touched

    def operate(
        self, after: Records, operation: Operation, keys_left: int, bytes_left: int
    ) -> tuple[answers.Result, int, int]:
        """The result, and how many keys and bytes a range has touched."""
        if isinstance(operation, Put):
            put(after, operation, self.revision + 1)
            return answers.PutResult(self.revision + 1, after[operation.key].version), 0, 0
        if isinstance(operation, Delete):
            return answers.DeleteResult(int(after.pop(operation.key, None) is not None)), 0, 0
        if isinstance(operation, ReadKey):
            return answers.ReadKeyResult(operation.key, after.get(operation.key)), 0, 0
        keys, more, size = first_keys(after, operation, keys_max=keys_left, bytes_max=bytes_left)
        if isinstance(operation, DeleteRange):
            for key in keys:
                del after[key]
            return answers.DeleteRangeResult(len(keys), more), len(keys), size
        items = [(key, after[key]) for key in keys]
        if operation.keys_only:
            items = [(key, found._replace(value=b"")) for key, found in items]
        return answers.ReadRangeResult(tuple(items), more, operation.keys_only), len(keys), size

    def commit(self, after: Records) -> None:
        self.revision += after != self.records
        self.records = after


def put(records: Records, command: Put, revision: int) -> None:
    found = records.get(command.key)
    created, version = (found.create_revision, found.version + 1) if found else (revision, 1)
    records[command.key] = Record(created, revision, version, 0, command.value)


def holds(records: Records, compare: Compare) -> bool:
    found = records.get(compare.key)
    if found is None:
        found_there = None if compare.target is commands.Target.VALUE else 0
    else:
        found_there = getattr(found, compare.target.value)
    return found_there is not None and COMPARISONS[compare.op.value](found_there, compare.operand)


def first_keys(
    records: Records, asked: DeleteRange | commands.ReadRange, *, keys_max: int, bytes_max: int
) -> tuple[list[bytes], bool, int]:
    """The keys, whether there are more, and how many bytes they and their values have."""
    within = sorted(key for key in records if asked.start <= key and (asked.end is None or key < asked.end))
    values_count = True
    if isinstance(asked, commands.ReadRange):
        values_count = not asked.keys_only
        within = within[::-1] if asked.reverse else within
    for count in range(min(len(within), asked.limit, keys_max), -1, -1):
        size = sum(len(key) + (len(records[key].value) if values_count else 0) for key in within[:count])
        if size <= bytes_max:
            return within[:count], count < len(within), size
    raise AssertionError("nothing takes no room")
