"""One follower as its leader sees it: how far it matches, what is under way to it.

    PROBE      we do not know where the logs agree: one AppendEntries at a time
    REPLICATE  they agree up to match: entries are sent ahead of the replies, within bounds (thesis §10.2.3)

    SNAPSHOT   it needs what the log does not hold any more: a snapshot is sent, piece by piece (paper §7)

A lost or refused AppendEntries brings it back to PROBE. A snapshot ends when the follower holds it, or proves to
hold enough of the log.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, NamedTuple

from raftkv.core import rules
from raftkv.core.effects import SnapshotRead
from raftkv.core.types import Index, Round, SnapshotId


class Phase(Enum):
    """How entries are sent to a follower."""

    PROBE = "probe"
    REPLICATE = "replicate"
    SNAPSHOT = "snapshot"


_HASHES_KEPT: Final = 32
_ROUND_AMONG: Final = 8


class StateHashes:
    """The hashes of one node's state at the newest of those indexes at which they are taken."""

    __slots__ = ("_by_index",)

    def __init__(self) -> None:
        self._by_index: dict[Index, bytes] = {}

    def note(self, index: Index, state_hash: bytes) -> None:
        """It had that hash right after ``index``; the oldest known one is forgotten."""
        self._by_index[index] = state_hash
        if len(self._by_index) > _HASHES_KEPT:
            del self._by_index[min(self._by_index)]

    def at(self, index: Index) -> bytes | None:
        """None: it is not known, or not any more."""
        return self._by_index.get(index)

    def newest_through(self, index: Index) -> tuple[Index, bytes]:
        """The newest at that index or before; (0, nothing): none is known."""
        found = max((known for known in self._by_index if known <= index), default=Index(0))
        return found, self._by_index.get(found, b"")

    def newest_common(self, other: StateHashes) -> Index:
        """The newest index where both are known; 0: there is none."""
        return max(self._by_index.keys() & other._by_index.keys(), default=Index(0))

    def newest_of_both(self, other: StateHashes) -> tuple[bytes, bytes]:
        """This node's and the other's at the newest index where both are known; nothing twice: there is none."""
        index = self.newest_common(other)
        return self._by_index.get(index, b""), other._by_index.get(index, b"")

    @property
    def roundest(self) -> tuple[Index, bytes]:
        """Of the newest few, that at the index which is a multiple of the highest power of two; (0, nothing): none.

        Nodes that are not equally far have other newest ones at any time, but for a while the same of these.
        """
        newest = sorted(self._by_index)[-_ROUND_AMONG:]
        found = max(newest, key=lambda index: (index & -index, index), default=Index(0))
        return found, self._by_index.get(found, b"")

    @property
    def newest(self) -> tuple[Index, bytes]:
        """The newest of all; (0, nothing): none is known."""
        found = max(self._by_index, default=Index(0))
        return found, self._by_index.get(found, b"")


class Echo(NamedTuple):
    """What a peer said with a read round that it gave back."""

    round: Round
    came_us: int
    """When, by our clock."""
    promised_until_us: int
    """Until when, by our clock, it votes for nobody else (thesis §6.4.1)."""
    life: int
    heard_us: int
    """When it heard the round, by the clock of that life of its own."""

    def dates(self, sent_us: int, *, clock_drift_max_per_mille: int) -> tuple[int, int]:
        """By the peer's own clock, no later than when we sent something at ``sent_us``; (0, 0): it cannot be said."""
        if not self.life:
            return 0, 0
        since_us = rules.passed_elsewhere_us(
            passed_us=sent_us - self.came_us, clock_drift_max_per_mille=clock_drift_max_per_mille
        )
        return self.life, max(0, self.heard_us + since_us)


NO_ECHO: Final = Echo(Round(0), 0, 0, 0, 0)


@dataclass(slots=True)
class Sending:
    """A snapshot on its way to one follower: one piece at a time, from where the follower wants it."""

    snapshot: SnapshotId | None = None
    """None: the newest, which the next piece tells."""
    offset: int = 0
    """The follower holds as much, as far as it has said."""
    read: SnapshotRead | None = None
    """A piece is being read …"""
    sent_us: int | None = None
    """… or was sent at this time, and has not been answered."""

    @property
    def is_under_way(self) -> bool:
        """Whether a piece is being read or was sent."""
        return self.read is not None or self.sent_us is not None

    def begin_anew(self) -> None:
        """Whatever is the newest then, from its beginning."""
        self.snapshot, self.offset, self.read, self.sent_us = None, 0, None, None


@dataclass(slots=True)
class Progress:
    """Paper Figure 2 "volatile state on leaders", for one peer. Only its leader changes it."""

    next_index: Index
    """The next entry to send."""
    match_index: Index = Index(0)
    """The highest entry known to be on the peer's stable storage as it is on ours."""
    phase: Phase = Phase.PROBE
    inflight: deque[tuple[Index, int]] = field(default_factory=deque)
    """(last index, when sent) of each AppendEntries that has not been answered."""
    blocked_until_us: int = 0
    """Nothing is sent before: the peer could not be reached."""
    reads_log: bool = False
    """Entries for it are being read from disk."""
    sending: Sending | None = None
    """In phase SNAPSHOT, and only there."""
    catches_up_to: Index = Index(0)
    """It held a snapshot when our log ended here …"""
    log_is_kept_until_us: int = 0
    """… and so long, at the latest, what it needs next stays in our log."""
    last_contact_us: int = 0
    """When it last answered in this term; at the start of a term, when that began."""
    has_answered: bool = False
    """It has answered at all in this term."""
    echo: Echo = field(default_factory=lambda: NO_ECHO)
    """Of the newest read round that it echoed; the first that came."""
    hashes: StateHashes = field(default_factory=lambda: StateHashes())
    """What it has said of its state."""

    round_of_catching_up: tuple[Index, int] | None = None
    """(the end of the log, when) as the present round began (thesis §4.2.1); None: it has not to catch up."""
    last_round_us: int | None = None
    """How long the last such round took."""

    @property
    def state_hash(self) -> tuple[Index, bytes]:
        """What it last said of its state."""
        return self.hashes.newest

    def may_send(self, *, now_us: int, inflight_max: int) -> bool:
        """Whether another AppendEntries may go out now."""
        if now_us < self.blocked_until_us or self.reads_log or self.phase is Phase.SNAPSHOT:
            return False
        return len(self.inflight) < (1 if self.phase is Phase.PROBE else inflight_max)

    def sent(self, *, last_index: Index, now_us: int) -> None:
        """An AppendEntries that ends at last_index is on its way."""
        self.inflight.append((last_index, now_us))
        if self.phase is Phase.REPLICATE:
            self.next_index = Index(last_index + 1)

    def matched(self, match: Index) -> None:
        """The peer holds everything up to ``match`` on stable storage."""
        self.match_index = rules.match_index_after(known=self.match_index, reported=match)
        while self.inflight and self.inflight[0][0] <= match:
            self.inflight.popleft()
        if self.phase is Phase.PROBE:
            self.phase = Phase.REPLICATE
            self.inflight.clear()
            self.next_index = Index(self.match_index + 1)
        self.next_index = max(self.next_index, Index(self.match_index + 1))

    def probe_from(self, next_index: Index) -> None:
        """We no longer know what reached the peer: one at a time again, from there."""
        self.phase = Phase.PROBE
        self.inflight.clear()
        self.next_index = next_index

    def catch_up(self, *, last_index: Index, now_us: int) -> None:
        """A round ends with what the log held when it began; the next begins at once."""
        if self.round_of_catching_up is not None:
            end, began_us = self.round_of_catching_up
            if self.match_index < end:
                return
            self.last_round_us = now_us - began_us
        self.round_of_catching_up = (last_index, now_us)

    def catch_up_anew(self) -> None:
        """Rounds are of one configuration: what was caught up with before it says nothing of what it lets in."""
        self.round_of_catching_up, self.last_round_us = None, None

    def has_caught_up(self, *, now_us: int, election_timeout_us: int) -> bool:
        """Whether it may vote without holding anybody up."""
        if self.round_of_catching_up is None:
            return False
        return rules.learner_has_caught_up(
            last_round_us=self.last_round_us,
            this_round_us=now_us - self.round_of_catching_up[1],
            silent_us=now_us - self.last_contact_us,
            election_timeout_us=election_timeout_us,
        )

    def begin_snapshot(self) -> None:
        """From now on pieces of a snapshot are sent instead of entries."""
        self.phase, self.sending = Phase.SNAPSHOT, Sending()
        self.inflight.clear()
        self.reads_log = False

    def end_snapshot(self) -> None:
        """What it matches stands in the log, or at its base: entries are sent again."""
        self.phase, self.sending = Phase.REPLICATE, None
        self.next_index = Index(self.match_index + 1)

    def echoed(self, echo: Echo) -> None:
        """The peer has echoed a round; an echo that is late or doubled changes nothing."""
        if echo.round > self.echo.round:
            self.echo = echo

    def oldest_send_us(self) -> int | None:
        """When the oldest unanswered AppendEntries went out."""
        return self.inflight[0][1] if self.inflight else None
