"""Exactly once (thesis §6.3): the sessions, and the answers that they were given.

Told: which session asks under which number, the hash of what it asks, the answer, the cluster time.
Tells: whether to execute, the answer of the first time, when a session runs out. May never know: what a
command means, keys, the log beyond an index to remember.

A number is executed at most once: from its execution until it is acknowledged its answer is stored here,
and from then on the number is too old. A refusal changes nothing at all, neither the session's life nor
what it has acknowledged. The limits are part of the format: nodes that disagreed about them would execute
different commands.

A session that writes changes with every write: its life grows, an answer comes and an older one goes. It is hashed,
and finds its place in the order of expiry, when somebody asks, once for all that changed it since.
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

CHANGES_MAX: Final = 1_024
"""Changes that may wait to be hashed, so that whoever asks waits for a millisecond or two at most."""

_NEVER_MS: Final = 2**63
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
    """Kept, so that a session with a thousand answers goes in constant time. Without those that are …"""
    unhashed: set[int] = field(default_factory=set)
    """… new since somebody asked for the hash."""
    listed_ms: int = 0
    """Where it stands in the order of expiry: at ``expires_ms``, or before, where that has changed since."""

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

    __slots__ = ("_changed", "_changes_count", "_frozen", "_hash_sum", "_ids", "_order", "_quiet_until_ms", "_sessions")

    def __init__(self) -> None:
        self._sessions: dict[bytes, Session] = {}
        self._ids = Keys()
        """The same ids, in order."""
        self._frozen: tuple[Frozen[Kept], ...] = ()
        """Moments that somebody still needs: each is told what a session is before that changes."""
        self._order: Any = SortedList()
        """(listed_ms, id) of every session."""
        self._quiet_until_ms = 0
        """No session runs out before."""
        self._hash_sum = 0
        """Of all but what changed since somebody asked."""
        self._changed: dict[bytes, Session] = {}
        """By id, the sessions whose life is not in it, and whose place in the order may be out of date."""
        self._changes_count = 0

    def __len__(self) -> int:
        return len(self._sessions)

    @property
    def hash_sum(self) -> int:
        """The sum of the hashes of all sessions and answers, not yet cut to 128 bits."""
        self._settle()
        return self._hash_sum

    def next_expiry_ms(self) -> int | None:
        """The cluster time at which the next session runs out."""
        first = self._first()
        return None if first is None else first.expires_ms

    def expire(self, now_ms: int) -> None:
        """What has run out is gone, in the order of (expiry, id), up to the limit for one command."""
        if now_ms < self._quiet_until_ms:
            return
        for _ in range(EXPIRED_PER_COMMAND_MAX):
            first = self._first()
            if first is None or first.expires_ms > now_ms:
                self._quiet_until_ms = _NEVER_MS if first is None else first.expires_ms
                return
            self._remove(first)

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
        self._note(session)
        self._changes(session)
        stored = _STORED.pack(request_hash, index) + answers.pack(answer)
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
        self._hash_sum += session.stored_hash_sum

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

    def _first(self) -> Session | None:
        """The session that runs out next; None: there is none. Those before it find their places."""
        while self._order:
            listed_ms, id = self._order[0]
            session = self._sessions[id]
            if session.expires_ms == listed_ms:
                return session
            self._list(session)
        return None

    def _list(self, session: Session) -> None:
        """It stands in the order where it runs out."""
        self._order.remove((session.listed_ms, session.id))
        session.listed_ms = session.expires_ms
        self._order.add((session.listed_ms, session.id))

    def _changes(self, session: Session) -> None:
        """Called before it does: its life leaves the sum until somebody asks."""
        if self._changes_count >= CHANGES_MAX:
            self._settle()
        self._changes_count += 1
        if session.id not in self._changed:
            self._hash_sum -= session.life_hash()
            self._changed[session.id] = session

    def _settle(self) -> None:
        """Nothing that changed is left to be hashed, or out of its place."""
        for session in self._changed.values():
            if session.unhashed:
                numbers = [session.id + _SEQUENCE.pack(number) for number in session.unhashed]
                added = hash_sum(Room.ANSWERS, numbers, map(session.stored.__getitem__, session.unhashed))
                session.stored_hash_sum += added
                self._hash_sum += added
                session.unhashed.clear()
            self._hash_sum += session.life_hash()
            if session.listed_ms != session.expires_ms:
                self._list(session)
        self._changed.clear()
        self._changes_count = 0

    def _add(self, session: Session) -> None:
        session.listed_ms = session.expires_ms
        self._quiet_until_ms = min(self._quiet_until_ms, session.expires_ms)
        self._sessions[session.id] = session
        self._ids.add(session.id)
        self._order.add((session.listed_ms, session.id))
        self._hash_sum += session.life_hash()

    def _remove(self, session: Session) -> None:
        self._note(session)
        self._changes(session)
        del self._changed[session.id]
        del self._sessions[session.id]
        self._ids.remove(session.id)
        self._order.remove((session.listed_ms, session.id))
        self._hash_sum -= session.stored_hash_sum

    def _live_on(self, session: Session, now_ms: int) -> None:
        self._acknowledge(session, session.acknowledged, now_ms)

    def _acknowledge(self, session: Session, acknowledged: int, now_ms: int) -> None:
        """Drops the answers up to a number, and lets the session live for a whole ttl from now."""
        expires_ms = now_ms + session.ttl_ms
        if (expires_ms, acknowledged) == (session.expires_ms, session.acknowledged):
            return
        assert expires_ms >= session.expires_ms, "cluster time does not fall"
        self._note(session)
        self._changes(session)
        for sequence in session.stored_up_to(acknowledged):
            self._drop(session, sequence)
        session.expires_ms, session.acknowledged = expires_ms, acknowledged

    def _note(self, session: Session) -> None:
        """Whoever has frozen the sessions may see this one change now."""
        for frozen in self._frozen:
            if frozen.before.get(session.id) is None:
                frozen.note(session.id, (_LIFE_OF(session), session.stored.copy()))

    def _store(self, session: Session, sequence: int, stored: bytes) -> None:
        session.stored[sequence] = stored
        session.stored_bytes += len(stored) - _STORED.size
        session.unhashed.add(sequence)

    def _drop(self, session: Session, sequence: int) -> None:
        if sequence in session.unhashed:
            session.unhashed.remove(sequence)
        else:
            dropped = session.stored_hash(sequence)
            session.stored_hash_sum -= dropped
            self._hash_sum -= dropped
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
