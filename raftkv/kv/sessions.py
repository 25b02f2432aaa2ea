"""Exactly once (thesis §6.3): the sessions, and the answers that they were given.

Told: which session asks under which number, the hash of what it asks, the answer, the cluster time.
Tells: whether to execute, the answer of the first time, when a session runs out. May never know: what a
command means, keys, the log beyond an index to remember.

A number is executed at most once: from its execution until it is acknowledged its answer is stored here,
and from then on the number is too old. A refusal changes nothing at all, neither the session's life nor
what it has acknowledged. The limits are part of the format: nodes that disagreed about them would execute
different commands.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import compress
from operator import attrgetter
from typing import Any, Final, NamedTuple

from sortedcontainers import SortedList

from raftkv.kv import answers
from raftkv.kv.answers import (
    Executed,
    Repeated,
    SequenceReused,
    SequenceTooOld,
    SessionAlive,
    SessionClosed,
    SessionExpired,
    SessionOpened,
    TooManySessions,
    TooManyUnacknowledged,
)
from raftkv.kv.commands import Numbered
from raftkv.kv.frozen import Frozen, shrink
from raftkv.kv.hashing import HASH_BYTES, Room, hash_sum, item_hash
from raftkv.kv.order import Keys

SESSIONS_MAX: Final = 100_000
"""In the whole store; with the bounds below, what sessions can hold is bounded."""
ANSWERS_MAX: Final = 1_024
"""Unacknowledged numbers of one session."""
ANSWERS_BYTES_MAX: Final = 1024 * 1024
"""Stored answers of one session; once they have reached it, nothing more is executed for it.

How large an answer is shows only once it is there, so the one that reaches the bound may exceed it: by what one
transaction can read, 2 MiB of keys and values with at most 0.5 MiB of revisions around them.
"""
EXPIRED_PER_COMMAND_MAX: Final = 1_000
"""Sessions removed before one command, so that no apply stalls the cluster. A session that has run out is
none, removed or not."""

_STORED: Final = struct.Struct(f"<{HASH_BYTES}sQ")
_SEQUENCE: Final = struct.Struct("<Q")
_LIFE: Final = struct.Struct("<QQQ")

Judgement = Repeated | SessionExpired | SequenceReused | SequenceTooOld | TooManyUnacknowledged


@dataclass(slots=True)
class Session:
    """One client's session. Changed by ``Sessions`` only, which keeps the hash."""

    id: bytes
    ttl_ms: int
    expires_ms: int
    """Cluster time from which on it is none."""
    acknowledged: int = 0
    """No number up to this is executed any more."""
    stored: dict[int, bytes] = field(default_factory=dict)
    """By number: the hash of the request, the log index of its execution, the packed answer, in one ``bytes``."""
    stored_bytes: int = 0
    stored_hash_sum: int = 0
    """Kept, so that a session with a thousand answers goes in constant time."""

    def life_hash(self) -> int:
        """The hash of all but the answers."""
        return item_hash(Room.SESSIONS, self.id, _LIFE.pack(self.ttl_ms, self.expires_ms, self.acknowledged))

    def stored_hash(self, sequence: int) -> int:
        """The hash of one answer as it is found."""
        return item_hash(Room.ANSWERS, self.id + _SEQUENCE.pack(sequence), self.stored[sequence])

    def stored_up_to(self, acknowledged: int) -> list[int]:
        """The numbers whose answers this acknowledgement lets go."""
        if acknowledged - self.acknowledged < len(self.stored):
            return [number for number in range(self.acknowledged + 1, acknowledged + 1) if number in self.stored]
        return [number for number in self.stored if number <= acknowledged]


class Life(NamedTuple):
    """A session at one moment, but for its answers."""

    id: bytes
    ttl_ms: int
    expires_ms: int
    acknowledged: int


Kept = tuple[Life | tuple[Any, ...], dict[int, bytes]]
"""A session at one moment: its life and its answers by number, in the order in which they came."""

_LIFE_OF: Final = attrgetter(*Life._fields)
_STORED_OF: Final = attrgetter("stored")


class Sessions:
    """All sessions of the store."""

    __slots__ = ("_frozen", "_ids", "_order", "_sessions", "hash_sum")

    def __init__(self) -> None:
        self._sessions: dict[bytes, Session] = {}
        self._ids = Keys()
        """The same ids, in order."""
        self._frozen: tuple[Frozen[Kept], ...] = ()
        """Moments that somebody still needs: each is told what a session is before that changes."""
        self._order: Any = SortedList()
        """(expires_ms, id) of every session."""
        self.hash_sum = 0
        """The sum of the hashes of all sessions and answers, not yet cut to 128 bits."""

    def __len__(self) -> int:
        return len(self._sessions)

    def next_expiry_ms(self) -> int | None:
        """The cluster time at which the next session runs out."""
        return self._order[0][0] if self._order else None

    def expire(self, now_ms: int) -> None:
        """What has run out is gone, in the order of (expiry, id), up to the limit for one command."""
        for _ in range(EXPIRED_PER_COMMAND_MAX):
            if not self._order or self._order[0][0] > now_ms:
                return
            self._remove(self._sessions[self._order[0][1]])

    def open(self, id: bytes, ttl_ms: int, now_ms: int) -> SessionOpened | TooManySessions:
        """The session lives. A repeat finds it, keeps it alive, and hears the ttl that it has."""
        found = self._sessions.get(id)
        if found is not None and found.expires_ms > now_ms:
            self._live_on(found, now_ms)
            return SessionOpened(id, found.ttl_ms)
        if found is not None:
            self._remove(found)
        if len(self._sessions) >= SESSIONS_MAX:
            return TooManySessions(SESSIONS_MAX)
        self._add(Session(id, ttl_ms, now_ms + ttl_ms))
        return SessionOpened(id, ttl_ms)

    def keep_alive(self, id: bytes, now_ms: int) -> SessionAlive | SessionExpired:
        """The session lives for another whole ttl."""
        session = self._find(id, now_ms)
        if session is None:
            return SessionExpired()
        self._live_on(session, now_ms)
        return SessionAlive(id, session.ttl_ms)

    def close(self, id: bytes, now_ms: int) -> SessionClosed | SessionExpired:
        """The session and its answers are gone."""
        session = self._find(id, now_ms)
        if session is None:
            return SessionExpired()
        self._remove(session)
        return SessionClosed(id)

    def judge(self, numbered: Numbered, request_hash: bytes, now_ms: int) -> Judgement | None:
        """Why this write is not to be executed now; None: execute it, and ``remember`` its answer.

        A repeat counts as a sign of life and as an acknowledgement; a refusal does not.
        """
        session = self._find(numbered.session, now_ms)
        if session is None:
            return SessionExpired()
        acknowledged = max(session.acknowledged, numbered.acknowledged)
        if numbered.sequence <= acknowledged:
            return SequenceTooOld()
        stored = session.stored.get(numbered.sequence)
        if stored is None:
            return TooManyUnacknowledged() if _is_full(session, acknowledged) else None
        first_hash, index = _STORED.unpack_from(stored)
        if first_hash != request_hash:
            return SequenceReused()
        self._acknowledge(session, acknowledged, now_ms)
        return Repeated(answers.unpack(stored[_STORED.size :]), index)

    def remember(self, numbered: Numbered, request_hash: bytes, now_ms: int, *, index: int, answer: Executed) -> None:
        """The number was executed at this index and is never executed again."""
        session = self._sessions[numbered.session]
        assert numbered.sequence not in session.stored, "judge() lets nothing be executed twice"
        self._acknowledge(session, max(session.acknowledged, numbered.acknowledged), now_ms)
        stored = _STORED.pack(request_hash, index) + answers.pack(answer)
        self._note(session)
        self._store(session, numbered.sequence, stored)

    def freeze(self) -> Frozen[Kept]:
        """The sessions as they are now; until ``thaw`` whatever changes is noted for it."""
        frozen: Frozen[Kept] = Frozen(self._ids.freeze(), len(self._sessions))
        self._frozen += (frozen,)
        return frozen

    def held(self, ids: list[bytes], frozen: Frozen[Kept]) -> list[Kept]:
        """These of its sessions, as they were then; in a thread, while they change."""
        sessions = list(map(self._sessions.get, ids))
        present = list(compress(sessions, sessions))
        kept = zip(map(_LIFE_OF, present), map(dict.copy, map(_STORED_OF, present)), strict=True)
        found: dict[bytes, Kept] = dict(zip(compress(ids, sessions), kept, strict=True))
        return frozen.as_it_was(ids, found)

    def thaw(self, frozen: Frozen[Kept]) -> None:
        """Nothing is noted for this one any more."""
        frozen.end()
        self._frozen = tuple(other for other in self._frozen if other is not frozen)

    def append(self, life: Life, stored: Mapping[int, bytes]) -> None:
        """This session with its answers, above all that are here."""
        session = Session(*life)
        self._add(session)
        for number, packed in stored.items():
            session.stored[number] = packed
            session.stored_bytes += len(packed) - _STORED.size
        numbers = [session.id + _SEQUENCE.pack(number) for number in stored]
        session.stored_hash_sum = hash_sum(Room.ANSWERS, numbers, stored.values())
        self.hash_sum += session.stored_hash_sum

    def abandon(self) -> None:
        """Nobody needs the sessions any more, nor any moment of them."""
        for frozen in self._frozen:
            self.thaw(frozen)

    def shrink(self, count: int) -> bool:
        """Lets go of so many sessions, once they are abandoned; whether none is left."""
        self._ids.shrink(count)
        return shrink(self._sessions, count)

    def _find(self, id: bytes, now_ms: int) -> Session | None:
        found = self._sessions.get(id)
        return found if found is not None and found.expires_ms > now_ms else None

    def _add(self, session: Session) -> None:
        self._sessions[session.id] = session
        self._ids.add(session.id)
        self._order.add((session.expires_ms, session.id))
        self.hash_sum += session.life_hash()

    def _remove(self, session: Session) -> None:
        self._note(session)
        del self._sessions[session.id]
        self._ids.remove(session.id)
        self._order.remove((session.expires_ms, session.id))
        self.hash_sum -= session.life_hash() + session.stored_hash_sum

    def _live_on(self, session: Session, now_ms: int) -> None:
        self._acknowledge(session, session.acknowledged, now_ms)

    def _acknowledge(self, session: Session, acknowledged: int, now_ms: int) -> None:
        """Drops the answers up to a number, and lets the session live for a whole ttl from now."""
        expires_ms = now_ms + session.ttl_ms
        if (expires_ms, acknowledged) == (session.expires_ms, session.acknowledged):
            return
        self._note(session)
        for sequence in session.stored_up_to(acknowledged):
            self._drop(session, sequence)
        self.hash_sum -= session.life_hash()
        if expires_ms != session.expires_ms:
            self._order.remove((session.expires_ms, session.id))
            self._order.add((expires_ms, session.id))
        session.expires_ms, session.acknowledged = expires_ms, acknowledged
        self.hash_sum += session.life_hash()

    def _note(self, session: Session) -> None:
        """Whoever has frozen the sessions may see this one change now."""
        for frozen in self._frozen:
            if frozen.before.get(session.id) is None:
                frozen.note(session.id, (_LIFE_OF(session), session.stored.copy()))

    def _store(self, session: Session, sequence: int, stored: bytes) -> None:
        session.stored[sequence] = stored
        session.stored_bytes += len(stored) - _STORED.size
        added = session.stored_hash(sequence)
        session.stored_hash_sum += added
        self.hash_sum += added

    def _drop(self, session: Session, sequence: int) -> None:
        dropped = session.stored_hash(sequence)
        session.stored_hash_sum -= dropped
        self.hash_sum -= dropped
        session.stored_bytes -= len(session.stored.pop(sequence)) - _STORED.size


def _is_full(session: Session, acknowledged: int) -> bool:
    """Whether no further answer fits, once those up to ``acknowledged`` are gone."""
    if len(session.stored) < ANSWERS_MAX and session.stored_bytes < ANSWERS_BYTES_MAX:
        return False
    leaving = session.stored_up_to(acknowledged)
    leaving_bytes = sum(len(session.stored[sequence]) - _STORED.size for sequence in leaving)
    return (
        len(session.stored) - len(leaving) >= ANSWERS_MAX or session.stored_bytes - leaving_bytes >= ANSWERS_BYTES_MAX
    )
