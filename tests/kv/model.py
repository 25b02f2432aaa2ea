"""The store as one would write it without a thought for speed, to be compared with the real one.

Nothing is kept incrementally, packed, hashed or indexed; everything is looked for afresh.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from raftkv.kv import answers, commands
from raftkv.kv.answers import Answer, Executed
from raftkv.kv.commands import Command, Numbered, Write
from raftkv.kv.record import Record


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
    records: dict[bytes, Record] = field(default_factory=dict)
    sessions: dict[bytes, NaiveSession] = field(default_factory=dict)
    revision: int = 0
    time_ms: int = 0

    def apply(self, command: Command, numbered: Numbered | None, *, index: int, stamp_ms: int) -> Answer:
        self.time_ms = max(self.time_ms, stamp_ms)
        self.sessions = {
            id: session for id, session in self.sessions.items() if self.time_ms - session.last_seen_ms < session.ttl_ms
        }
        if isinstance(command, commands.Put | commands.Delete):
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
            kept[numbered.sequence] = (command, executed, index)
            answer: Answer = executed
        else:
            first_command, first_answer, first_index = kept[numbered.sequence]
            if first_command != command:
                return answers.SequenceReused()
            answer = answers.Repeated(first_answer, first_index)
        session.answers, session.acknowledged, session.last_seen_ms = kept, acknowledged, self.time_ms
        return answer

    def write(self, command: Write) -> Executed:
        found = self.records.get(command.key)
        holds = {
            commands.ANY: True,
            commands.PRESENT: found is not None,
            commands.ABSENT: found is None,
        }.get(command.expect, found is not None and found.mod_revision == command.expect)
        if not holds:
            return answers.ConditionFailed(found.mod_revision if found else 0, self.revision)
        if isinstance(command, commands.Delete):
            self.revision += found is not None
            self.records.pop(command.key, None)
            return answers.DeleteDone(int(found is not None), self.revision)
        self.revision += 1
        create_revision = found.create_revision if found else self.revision
        version = found.version + 1 if found else 1
        self.records[command.key] = Record(create_revision, self.revision, version, 0, command.value)
        return answers.PutDone(found is None, self.revision, create_revision, version)
