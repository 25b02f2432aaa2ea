"""Sessions as one would write them without a thought for speed, over keys that are specified likewise.

Nothing is kept incrementally, packed, hashed or indexed; everything is looked for afresh.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from raftkv.kv import answers, commands
from raftkv.kv.answers import Answer, Executed, TooLarge
from raftkv.kv.commands import Command, Numbered, Write
from raftkv.sim.checks.specification import Specification


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
    keys: Specification
    sessions: dict[bytes, NaiveSession] = field(default_factory=dict)
    time_ms: int = 0

    def apply(self, command: Command, numbered: Numbered | None, *, index: int, stamp_ms: int) -> Answer:
        self.time_ms = max(self.time_ms, stamp_ms)
        self.sessions = {
            id: session for id, session in self.sessions.items() if self.time_ms - session.last_seen_ms < session.ttl_ms
        }
        if isinstance(command, Write):
            return self.keys.write(command) if numbered is None else self.write_once(command, numbered, index)
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
            executed = self.keys.write(command)
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
